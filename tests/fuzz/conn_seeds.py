#!/usr/bin/env python3
"""Programs for fuzz_conn, written as words: `conn_seeds.py DIR` writes one file for each into DIR.

A program is a first line "world N N N" and then a step a line: its name as in STEPS (fuzz_conn.c),
the client, and operands: numbers, or text in quotes, which a step takes with its length in front.
"""
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "fuzz_conn.c"), encoding="utf-8") as source:
    STEPS = re.findall(r"^ *X\((\w+)\)", source.read(), re.M)


def assemble(text):
    out = bytearray()
    for line in text.strip().splitlines():
        word, *operands = re.findall(r'"[^"]*"|\S+', line)
        if word != "world":
            out.append(STEPS.index(word) << 3 | int(operands.pop(0), 0))
        for operand in operands:
            if operand[0] == '"':
                payload = operand[1:-1].encode().decode("unicode_escape").encode("latin-1")
                out += bytes([len(payload)]) + payload
            else:
                out.append(int(operand, 0))
    return bytes(out)


# Requests: 0 /ws, 1 /echo, 2 /ws with rooms, 3 admin, 4 /livez, 7 HEAD, 8 /metrics, 9 POST,
# 16 device, 17 resume. Envelopes: 0 ping, 1 send, 3 join, 4 publish, 7 leave, 8 join since,
# 11 delete, 14 broadcast; 128 more: compressed.
LONG = "0123456789" * 12
NOISE = "".join(f"\\x{i * 37 % 256:02x}" for i in range(24))

PROGRAMS = {
    "echo": """
        world 6 0 0
        open 0
        request 0 1 0
        run 0
        frame 0 0x81 "hello"
        frame 0 0x82 "bytes"
        frame 0 0x89 "ping"
        run 0
        frame 0 0x01 "frag"
        frame 0 0x89 ""
        frame 0 0x80 "ment"
        run 0
        frame 0 0x88 "\\x03\\xe8bye"
        run 0""",
    "echo_cut": """
        world 0x22 0 0
        open 0
        request 0 1 0
        frame 0 0x81 "behind the handshake"
        bite 0 60 2
        run 0
        frame 0 0x81 "cut somewhere"
        bite 0 2 5
        ends_multi 0
        pass 0
        pass 0
        big 0 0x02 30
        big 0 0x80 20
        bite 0 250 3
        run 0
        finish 0
        run 0""",
    "echo_slow": """
        world 0x26 0 0
        open 0
        request 0 1 0
        run 0
        stop 0 4
        big 0 0x81 20
        again 0 10
        run 0
        time 2
        stop 0 30
        run 0
        go 0
        run 0""",
    "echo_held": """
        world 0x26 0 0
        open 0
        request 0 1 0
        run 0
        stop 0 0
        big 0 0x82 90
        again 0 10
        run 0
        late_cancel 0
        again 0 4
        run 0
        stop 0 255
        run 0
        go 0
        run 0""",
    "echo_held_end": """
        world 0x26 0 0
        open 0
        request 0 1 0
        run 0
        stop 0 0
        big 0 0x82 30
        again 0 5
        run 0
        finish 0
        run 0
        go 0
        run 0""",
    "ping_cut": """
        world 6 0 0
        open 0
        request 0 1 0
        run 0
        frame 0 0x89 "@LONG@"
        bite 0 110 0
        run 0
        frame 0 0x89 "@LONG@"
        bite 0 3 0
        run 0""",
    "closing_slow": """
        world 0x26 0 0
        open 0
        request 0 1 0
        run 0
        stop 0 0
        big 0 0x82 90
        frame 0 0x88 "\\x03\\xe8"
        run 0
        time 6
        stop 0 4
        time 6
        stop 0 4
        time 7
        stop 0 4
        time 7""",
    "retry": """
        world 0x37 0 0
        open 0
        request 0 0 0
        open_other 1
        request 1 0 1
        run 0
        stop 1 1
        envelope 0 1 1
        again 0 12
        run 0
        time 3
        envelope 0 2 1
        run 0
        stop 1 20
        time 4
        go 1
        time 3""",
    "retry_lost": """
        world 0x36 0 0
        open 0
        request 0 0 0
        open 1
        request 1 0 1
        run 0
        stop 1 1
        envelope 0 1 1
        again 0 12
        run 0
        time 5
        time 4
        reset 1
        run 0""",
    "replay": """
        world 0x27 0 0
        open 0
        request 0 3 0
        open 1
        request 1 2 1
        run 0
        envelope 0 3 0
        envelope 0 4 0
        run 0
        reset 1
        run 0
        envelope 0 4 0
        again 0 31
        again 0 31
        run 0
        open_other 1
        request 1 17 1
        stop 1 40
        run 0
        envelope 0 5 0
        envelope 0 4 0
        run 0
        stop 1 255
        run 0
        envelope 0 11 0
        run 0
        go 1
        run 0""",
    "replay_lost": """
        world 0x2e 0 0
        open 0
        request 0 0 0
        open 1
        request 1 0 1
        run 0
        envelope 0 3 2
        envelope 0 4 2
        again 0 31
        again 0 31
        run 0
        stop 1 10
        envelope 1 8 2
        envelope 1 8 2
        run 0
        envelope 0 4 2
        again 0 6
        envelope 0 7 2
        run 0
        finish 1
        stop 1 255
        run 0
        stop 1 255
        run 0
        reset 1
        run 0""",
    "echo_starved": """
        world 0x40 0 0
        order 2
        open 0
        open 1
        request 0 1 0
        request 1 1 0
        run 0
        starve 0 3
        big 0 0x81 60
        big 1 0x81 60
        recv_error 0 0
        recv_error 1 1
        pass 0
        late 0
        pass 0
        run 0""",
    "echo_bad": """
        world 6 0 0
        open 0
        request 0 1 0
        run 0
        big 0 0x81 120
        run 0
        open 1
        request 1 1 0
        frame 1 0x81 "\\xff\\xfe"
        open 2
        request 2 1 0
        frame 2 0xc1 "rsv"
        open 3
        request 3 1 0
        raw 3 "\\x81\\x01x"
        run 0
        time 7""",
    "chat": """
        world 7 0 0
        open 0
        request 0 2 0
        open_other 1
        request 1 2 1
        run 0
        envelope 0 0 0
        envelope 0 1 1
        envelope 1 2 0
        run 0
        envelope 0 3 2
        envelope 1 3 2
        run 0
        envelope 0 4 2
        envelope 0 5 0
        envelope 1 6 1
        envelope 1 12 2
        envelope 1 13 2
        run 0
        envelope 1 7 2
        envelope 0 11 2
        run 0""",
    "slow": """
        world 0x27 0 0
        open 0
        request 0 2 0
        open 1
        request 1 2 1
        run 0
        stop 1 0
        envelope 0 4 0
        again 0 20
        run 0
        time 3
        go 1
        run 0""",
    "drop_oldest": """
        world 0x2f 0 0
        open 0
        request 0 2 0
        open 1
        request 1 2 1
        run 0
        stop 1 0
        envelope 0 4 0
        again 0 20
        run 0
        go 1
        run 0""",
    "conflate": """
        world 0x3e 0 0
        open 0
        request 0 3 0
        open 1
        request 1 0 1
        envelope 0 9 2
        run 0
        envelope 0 3 2
        envelope 1 3 2
        run 0
        stop 1 0
        envelope 0 6 2
        again 0 12
        run 0
        go 1
        run 0""",
    "broadcast": """
        world 0x07 0 0
        open 0
        request 0 3 0
        open_other 1
        request 1 0 1
        open 2
        request 2 0 2
        run 0
        envelope 0 14 0
        envelope 0 15 0
        envelope 1 14 0
        run 0
        close 2
        envelope 0 14 0
        run 0""",
    "devices": """
        world 0x07 2 0
        open 0
        request 0 16 0
        run 0
        open_other 1
        request 1 16 0
        run 0
        open 2
        request 2 0 0
        run 0""",
    "resume": """
        world 0x87 0 0
        open 0
        request 0 17 0
        run 0
        open 1
        request 1 0 1
        run 0
        envelope 1 3 0
        envelope 1 4 0
        run 0
        reset 0
        run 0
        envelope 1 4 0
        run 0
        open_other 0
        request 0 17 0
        run 0""",
    "http": """
        world 6 0 0
        open 0
        request 0 4 0
        request 0 7 0
        request 0 10 0
        request 0 8 0
        run 0
        request 0 9 0
        run 0
        open 1
        request 1 6 0
        open 2
        request 2 15 0
        open 3
        request 3 4 0
        chop 3 9
        run 0
        finish 3
        open 4
        request 4 12 0
        request 4 13 0
        run 0
        time 6""",
    "accept": """
        world 7 1 0
        accept_error 0 0
        accept_error 1 3
        open 0
        open_other 1
        open 2
        request 0 4 0
        run 0
        time 2
        open 3
        open 4
        run 0""",
    "memory": """
        world 7 0 0
        open 0
        no_memory 0 3
        request 0 0 0
        run 0
        open 1
        request 1 2 1
        no_memory 0 9
        run 0
        envelope 1 4 0
        no_memory 0 1
        run 0
        envelope 1 1 0
        no_memory 0 5
        run 0""",
    "torn": """
        world 7 0 0
        open 0
        request 0 2 0
        open 1
        request 1 2 1
        run 0
        tear 0 3 0
        envelope 1 4 0
        late_cancel 1
        deaf 1
        recv_error 1 3
        run 0
        time 6
        run 0""",
    "drain": """
        world 0x87 0 0
        open 0
        request 0 2 0
        open_other 1
        request 1 1 0
        open 2
        request 2 0 2
        chop 2 5
        run 0
        open 3
        drain 0
        run 0
        open 4
        request 4 4 0
        run 0
        time 4
        drain 0
        run 0""",
    "direct": """
        world 7 0 1
        open 0
        open_other 1
        request 0 2 0
        request 1 2 1
        envelope 1 4 0
        run 0
        envelope 0 4 0
        hide 0
        run 0
        open 2
        request 2 0 2
        reset 2
        run 0
        open 3
        accept_error 0 129
        accept_error 1 129
        open_other 4
        request 3 0 3
        request 4 0 3
        run 0
        stop 0 0
        envelope 1 4 0
        again 1 6
        run 0
        time 6
        time 6""",
    "direct_full": """
        world 7 0 2
        open 0
        open 1
        open 2
        open 3
        open_other 4
        open_other 5
        request 0 0 0
        request 1 0 1
        request 2 0 2
        request 4 0 0
        request 5 0 1
        run 0
        request 3 4 0
        reset 0
        run 0
        close 1
        run 0
        time 3""",
    "direct_cut": """
        world 0xc7 0 1
        open 0
        request 0 0 0
        open_other 1
        request 1 0 1
        open 2
        pass 0
        pass 1
        finish 1""",
    "parked": """
        world 6 0 0
        open 0
        request 0 1 0
        open 1
        request 1 0 1
        run 0
        time 4
        frame 0 0x8a ""
        frame 1 0x8a ""
        time 4
        frame 0 0x8a ""
        frame 1 0x8a ""
        time 4
        bite 0 2 0
        frame 0 0x81 "hello"
        frame 1 0x8a ""
        run 0
        starve 0 2
        envelope 1 0 0
        run 0
        time 4
        frame 1 0x8a ""
        time 4
        frame 1 0x8a ""
        time 4
        frame 1 0x8a ""
        recv_error 1 1
        run 0
        finish 1
        run 0""",
    "deflate": """
        world 7 0 4
        open 0
        request 0 1 4
        open_other 1
        request 1 2 13
        open 2
        request 2 2 22
        open 3
        request 3 2 3
        run 0
        big 0 0xc1 20
        big 0 0x42 60
        envelope 1 132 0
        envelope 2 4 0
        again 2 4
        run 0
        big 0 0xc1 120
        run 0
        frame 1 0xc1 "nonsense"
        run 0""",
    "deflate_contexts": """
        world 7 0 0x1c
        open 0
        request 0 1 4
        open_other 1
        request 1 2 5
        open 2
        request 2 2 14
        run 0
        big 0 0xc1 20
        big 0 0xc1 20
        envelope 1 132 0
        envelope 1 132 0
        envelope 2 132 0
        run 0
        tear 2 40 0
        envelope 1 132 0
        run 0
        stop 1 2
        envelope 1 142 0
        envelope 1 141 0
        run 0
        go 1
        run 0""",
    "deflate_unsent": """
        world 6 0 0x1c
        open 0
        request 0 1 4
        run 0
        frame 0 0x82 "@NOISE@"
        run 0
        again 0 1
        run 0
        again 0 1
        run 0
        envelope 0 132 0
        again 0 1
        run 0""",
    "reload": """
        world 0xc7 0 0
        open 0
        request 0 2 0
        open 1
        request 1 2 1
        run 0
        reload 3 8
        envelope 0 4 0
        again 0 8
        run 0
        reload 4 0
        time 5
        run 0""",
    "invalid": """
        world 6 0 0
        open 0
        request 0 0 0
        run 0
        envelope 0 24 0
        envelope 0 23 0
        frame 0 0x82 "binary"
        envelope 0 0 0
        run 0
        open 1
        request 1 0 0
        envelope 1 24 0
        envelope 1 0 0
        envelope 1 24 0
        envelope 1 19 0
        envelope 1 16 0
        run 0""",
    "timeouts": """
        world 6 0 0
        open 0
        open 1
        request 1 0 0
        open 2
        request 2 1 0
        run 0
        stop 2 1
        big 2 0x81 90
        run 0
        time 5
        time 6
        time 7""",
}


def main():
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, text in PROGRAMS.items():
        with open(os.path.join(sys.argv[1], name), "wb") as out:
            out.write(assemble(text.replace("@LONG@", LONG).replace("@NOISE@", NOISE)))


if __name__ == "__main__":
    main()
