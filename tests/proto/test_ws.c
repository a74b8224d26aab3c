/* Goal    frames mean what RFC 6455 says, however TCP cuts their bytes, and each rule of the RFC
 *         fails with its own words.
 * Method  a vector is fed whole, in two pieces cut at every place, and byte by byte; each piece
 *         ends at a guard page, with the tail that the reader left put in front of it, as the
 *         contract says. Compared is the log of events, in which neighbouring pieces of a message
 *         are one, never the parser's insides. */
#include "proto/ws.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base.h"
#include "tests/proto/ws_log.h"
#include "tests/rh_test.h"

/* The wire, to its reader, in pieces of `step` bytes after a first one of `cut`. */
static void expect_cut(uint64_t size_max, size_t cut, size_t step, const char *want)
{
    static struct log log;

    log_init(&log, wire.from == RH_WS_CLIENT ? RH_WS_SERVER : RH_WS_CLIENT, size_max);
    log_feed(&log, wire.at, cut);
    for (size_t at = cut, len; at < wire.len; at += len) {
        len = RH_MIN(step, wire.len - at);
        log_feed(&log, wire.at + at, len);
    }
    if (strcmp(log_end(&log), want) != 0)
        RH_FAIL("cut after %zu, then %zu a step: %s, not %s", cut, step, log.text, want);
}

static void expect_max(uint64_t size_max, const char *want)
{
    for (size_t cut = 0; cut <= wire.len; cut += wire.len < 2000 ? 1 : wire.len / 701)
        expect_cut(size_max, cut, ROOM, want);
    expect_cut(size_max, 0, 1, want);
    expect_cut(size_max, 0, 3, want);
}

static void expect(const char *want)
{
    expect_max(1 << 20, want);
}

/* After how many of the wire's bytes, coming one by one, the error is there; 0: never. */
static size_t error_after(uint64_t size_max)
{
    static struct log log;

    log_init(&log, RH_WS_SERVER, size_max);
    for (size_t i = 0; i < wire.len; i++) {
        log_feed(&log, wire.at + i, 1);
        if (log.over)
            return i + 1;
    }
    return 0;
}

/* ---- RFC 6455 5.7: the examples ---- */

RH_TEST(ws_examples, a_single_frame_unmasked_text_message)
{
    WIRE(0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f);
    wire.from = RH_WS_SERVER;
    expect("text(Hello)");
}

RH_TEST(ws_examples, a_single_frame_masked_text_message)
{
    WIRE(0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58);
    expect("text(Hello)");
}

RH_TEST(ws_examples, a_fragmented_unmasked_text_message)
{
    WIRE(0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f);
    wire.from = RH_WS_SERVER;
    expect("text(Hello)");
}

RH_TEST(ws_examples, unmasked_ping_request_and_masked_ping_response)
{
    WIRE(0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f);
    wire.from = RH_WS_SERVER;
    expect("ping(Hello)");
    WIRE(0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58);
    expect("pong(Hello)");
}

RH_TEST(ws_examples, binary_messages_of_256_bytes_and_of_64_kib_unmasked)
{
    static const struct {
        size_t len;
        uint8_t head[10], head_len;
    } cases[] = {{256, {0x82, 0x7e, 0x01, 0x00}, 4},
                 {65536, {0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0}, 10}};

    for (unsigned i = 0; i < RH_COUNT(cases); i++) {
        uint8_t bytes[65536];

        for (size_t k = 0; k < sizeof(bytes); k++)
            bytes[k] = (uint8_t)rh_test_rand();
        wire_bytes(cases[i].head, cases[i].head_len);
        put(bytes, cases[i].len);
        wire.from = RH_WS_SERVER;
        expect(want_long("binary", bytes, cases[i].len));
    }
}

/* ---- 5.2: the base framing ---- */

RH_TEST(ws_frame, lengths_in_each_of_the_three_forms_are_read)
{
    static const size_t lens[] = {0, 1, 15, 16, 63, 64, 125, 126, 127, 1000, 65535, 65536, 70000};
    static uint8_t text[70000];

    memset(text, 'x', sizeof(text));
    for (unsigned i = 0; i < RH_COUNT(lens); i++)
        for (unsigned from = 0; from < 2; from++) {
            wire_new();
            wire.from = from ? RH_WS_CLIENT : RH_WS_SERVER;
            put_frame_of(RH_WS_TEXT, true, text, lens[i]);
            if (lens[i] > SHOWN) {
                expect(want_long("text", text, lens[i]));
            } else {
                char want[SHOWN + 8];

                snprintf(want, sizeof(want), "text(%.*s)", (int)lens[i], (const char *)text);
                expect(want);
            }
        }
}

RH_TEST(ws_frame, each_reserved_bit_must_be_zero)
{
    for (unsigned bit = 0x10; bit <= 0x40; bit <<= 1)
        for (unsigned opcode = 0; opcode < 16; opcode++) {
            WIRE((uint8_t)(0x80 | bit | opcode), 0x80, 0, 0, 0, 0);
            expect("error(1002 reserved bits are set)");
        }
}

RH_TEST(ws_frame, reserved_opcodes_fail)
{
    static const uint8_t reserved[] = {3, 4, 5, 6, 7, 11, 12, 13, 14, 15};

    for (unsigned i = 0; i < RH_COUNT(reserved); i++) {
        wire_frame(RH_WS_TEXT, true, "before");
        put_frame(reserved[i], true, "");
        put_frame(RH_WS_TEXT, true, "after");
        expect("text(before) error(1002 reserved opcode)");
    }
}

RH_TEST(ws_frame, a_client_must_mask)
{
    for (unsigned opcode = 1; opcode <= RH_WS_OP_PONG; opcode = opcode == 2 ? 8 : opcode + 1) {
        WIRE((uint8_t)(0x80 | opcode), 0x02, 'h', 'i');
        expect("error(1002 frame is not masked)");
    }
}

RH_TEST(ws_frame, a_server_must_not_mask)
{
    WIRE(0x81, 0x82, 0, 0, 0, 0, 'h', 'i');
    wire.from = RH_WS_SERVER;
    expect("error(1002 frame is masked)");
}

RH_TEST(ws_frame, a_length_must_have_its_shortest_form)
{
    for (unsigned len = 0; len <= 125; len += 25) {
        WIRE(0x82, 0xfe, 0, (uint8_t)len, 1, 2, 3, 4);
        expect("error(1002 length is not in its shortest form)");
        WIRE(0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, (uint8_t)len, 1, 2, 3, 4);
        expect("error(1002 length is not in its shortest form)");
    }
    WIRE(0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4);
    expect("error(1002 length is not in its shortest form)");
}

RH_TEST(ws_frame, a_length_must_not_have_its_top_bit_set)
{
    WIRE(0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4);
    expect("error(1002 length has its top bit set)");
    WIRE(0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4);
    expect("error(1002 length has its top bit set)");
}

RH_TEST(ws_frame, headers_fail_with_the_byte_that_breaks_the_rule)
{
    WIRE(0xc1, 0x80, 0, 0, 0, 0);
    RH_EQ_U64(error_after(100), 2);
    WIRE(0x82, 0xfe, 0, 125, 0, 0, 0, 0);
    RH_EQ_U64(error_after(100), 4);
    WIRE(0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    RH_EQ_U64(error_after(100), 10);
}

/* ---- 5.4: fragmentation ---- */

RH_TEST(ws_fragments, make_one_message_with_the_opcode_of_the_first)
{
    wire_frame(RH_WS_BINARY, false, "one ");
    put_frame(RH_WS_CONT, false, "two ");
    put_frame(RH_WS_CONT, true, "three");
    put_frame(RH_WS_TEXT, true, "next");
    expect("binary(one two three) text(next)");
}

RH_TEST(ws_fragments, let_control_frames_stand_between_them)
{
    wire_frame(RH_WS_TEXT, false, "h");
    put_frame(RH_WS_OP_PING, true, "p1");
    put_frame(RH_WS_CONT, false, "ell");
    put_frame(RH_WS_OP_PONG, true, "p2");
    put_frame(RH_WS_OP_PING, true, "");
    put_frame(RH_WS_CONT, true, "o");
    expect("ping(p1) pong(p2) ping() text(hello)");
}

RH_TEST(ws_fragments, may_be_empty_in_front_in_the_middle_and_at_the_end)
{
    wire_frame(RH_WS_TEXT, false, "");
    put_frame(RH_WS_CONT, false, "");
    put_frame(RH_WS_CONT, false, "all");
    put_frame(RH_WS_CONT, false, "");
    put_frame(RH_WS_CONT, true, "");
    put_frame(RH_WS_BINARY, false, "");
    put_frame(RH_WS_CONT, true, "");
    put_frame(RH_WS_TEXT, true, "");
    expect("text(all) binary() text()");
}

RH_TEST(ws_fragments, that_never_end_stay_unfinished)
{
    wire_frame(RH_WS_TEXT, false, "wait");
    put_frame(RH_WS_CONT, false, "ing");
    expect("unfinished(waiting)");
}

RH_TEST(ws_fragments, cannot_continue_a_message_that_was_not_begun)
{
    for (unsigned fin = 0; fin < 2; fin++) {
        wire_frame(RH_WS_CONT, fin, "x");
        expect("error(1002 continuation without a message)");
        wire_frame(RH_WS_TEXT, true, "whole");
        put_frame(RH_WS_CONT, fin, "");
        expect("text(whole) error(1002 continuation without a message)");
        wire_frame(RH_WS_TEXT, false, "who");
        put_frame(RH_WS_CONT, true, "le");
        put_frame(RH_WS_CONT, fin, "");
        expect("text(whole) error(1002 continuation without a message)");
    }
}

RH_TEST(ws_fragments, let_no_new_message_begin_among_them)
{
    for (unsigned opcode = RH_WS_TEXT; opcode <= RH_WS_BINARY; opcode++)
        for (unsigned fin = 0; fin < 2; fin++) {
            wire_frame(RH_WS_TEXT, false, opcode == RH_WS_TEXT ? "begun" : "");
            put_frame((uint8_t)opcode, fin, "new");
            expect("error(1002 new message inside a fragmented one)");
        }
}

/* ---- 5.5: control frames ---- */

RH_TEST(ws_control, frames_carry_up_to_125_bytes)
{
    uint8_t bytes[126];

    memset(bytes, 'p', sizeof(bytes));
    for (uint8_t opcode = RH_WS_OP_PING; opcode <= RH_WS_OP_PONG; opcode++) {
        wire_new();
        put_frame_of(opcode, true, bytes, 125);
        expect(want_long(opcode == RH_WS_OP_PING ? "ping" : "pong", bytes, 125));
    }
    for (uint8_t opcode = RH_WS_OP_CLOSE; opcode <= RH_WS_OP_PONG; opcode++) {
        wire_new();
        put_frame_of(opcode, true, bytes, 126);
        expect("error(1002 control frame over 125 bytes)");
        RH_EQ_U64(error_after(1 << 20), 2);
    }
}

RH_TEST(ws_control, frames_must_not_be_fragmented)
{
    for (uint8_t opcode = RH_WS_OP_CLOSE; opcode <= RH_WS_OP_PONG; opcode++) {
        wire_frame(opcode, false, "");
        expect("error(1002 fragmented control frame)");
    }
}

RH_TEST(ws_close, may_have_no_payload_a_code_or_a_code_and_a_reason)
{
    static const uint8_t code[] = {0x03, 0xe8};

    wire_frame(RH_WS_OP_CLOSE, true, "");
    expect("close(1005)");
    wire_new();
    put_frame_of(RH_WS_OP_CLOSE, true, code, 2);
    expect("close(1000)");
    wire_frame(RH_WS_OP_CLOSE, true, "\x03\xe9goodbye \xe2\x82\xac");
    expect("close(1001 goodbye \\xe2\\x82\\xac)");
}

RH_TEST(ws_close, ends_everything_also_inside_a_message)
{
    wire_frame(RH_WS_TEXT, false, "unfini");
    put_frame(RH_WS_OP_CLOSE, true, "\x03\xe8");
    put_frame(RH_WS_OP_PING, true, "never seen");
    expect("close(1000) unfinished(unfini)");
}

RH_TEST(ws_close, of_one_byte_fails)
{
    wire_frame(RH_WS_OP_CLOSE, true, "\x03");
    expect("error(1002 close frame of one byte)");
}

/* 7.4.1, 7.4.2 and the IANA registry; all 65,536 codes against the list. */
RH_TEST(ws_close, codes_are_those_that_may_be_sent)
{
    static const struct {
        unsigned first, last;
    } fine[] = {{1000, 1003}, {1007, 1014}, {3000, 4999}};
    unsigned at = 0;

    for (unsigned code = 0; code < 70000; code++) {
        if (at < RH_COUNT(fine) && code > fine[at].last)
            at++;
        if (rh_ws_close_code_ok(code) != (at < RH_COUNT(fine) && code >= fine[at].first))
            RH_FAIL("code %u", code);
    }
}

RH_TEST(ws_close, with_a_code_that_may_not_be_sent_fails)
{
    static const unsigned bad[] = {0,    1,    999,  1004, 1005, 1006, 1015,
                                   1016, 1100, 2000, 2999, 5000, 65535};

    for (unsigned i = 0; i < RH_COUNT(bad); i++) {
        const uint8_t payload[] = {(uint8_t)(bad[i] >> 8), (uint8_t)bad[i], 'x'};

        wire_new();
        put_frame_of(RH_WS_OP_CLOSE, true, payload, 2 + i % 2);
        expect("error(1002 close code that may not be sent)");
    }
}

RH_TEST(ws_close, reason_must_be_utf8)
{
    wire_frame(RH_WS_OP_CLOSE, true, "\x03\xe8 \xed\xa0\x80");
    expect("error(1007 close reason is not UTF-8)");
    wire_frame(RH_WS_OP_CLOSE, true, "\x03\xe8 \xe2\x82");
    expect("error(1007 close reason is not UTF-8)");
}

RH_TEST(ws_close, reason_is_judged_apart_from_a_text_that_waits_inside_a_character)
{
    wire_frame(RH_WS_TEXT, false, "\xe2\x82");
    put_frame(RH_WS_OP_CLOSE, true, "\x03\xe8\xe2\x82\xac");
    expect("close(1000 \\xe2\\x82\\xac) unfinished(\\xe2\\x82)");
}

/* ---- 8.1 and Autobahn's section 6: text is UTF-8 ---- */

RH_TEST(ws_utf8, a_text_may_be_cut_inside_a_character_by_fragments)
{
    static const char text[] = "\xce\xba\xe1\xbd\xb9\xf0\x9f\x98\x80";
    const char *want = "text(\\xce\\xba\\xe1\\xbd\\xb9\\xf0\\x9f\\x98\\x80)";

    wire_frame(RH_WS_TEXT, true, text);
    expect(want);
    for (size_t cut = 0; cut < sizeof(text); cut++) {
        wire_new();
        put_frame_of(RH_WS_TEXT, false, text, cut);
        put_frame_of(RH_WS_CONT, true, text + cut, sizeof(text) - 1 - cut);
        expect(want);
    }
    wire_frame(RH_WS_TEXT, false, "");
    for (size_t i = 0; text[i]; i++)
        put_frame_of(RH_WS_CONT, false, text + i, 1);
    put_frame(RH_WS_CONT, true, "");
    expect(want);
}

RH_TEST(ws_utf8, a_ping_inside_a_character_of_a_fragmented_text_breaks_nothing)
{
    wire_frame(RH_WS_TEXT, false, "\xe2\x82");
    put_frame(RH_WS_OP_PING, true, "\xff\xfe");
    put_frame(RH_WS_CONT, true, "\xac");
    expect("ping(\\xff\\xfe) text(\\xe2\\x82\\xac)");
}

/* Each alone, after ASCII of up to 40 bytes, and in two frames: 1007 always. */
RH_TEST(ws_utf8, a_text_that_is_broken_fails)
{
    static const char *const bad[] = {"\x80",
                                      "\xbf",
                                      "\x80\xbf\x80",
                                      "\xc0\xaf",
                                      "\xc1\xbf",
                                      "\xe0\x80\xaf",
                                      "\xe0\x9f\xbf",
                                      "\xf0\x80\x80\xaf",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf8\x80\x80\x80\xaf",
                                      "\xfc\x80\x80\x80\x80\xaf",
                                      "\xed\xa0\x80",
                                      "\xed\xaf\xbf\xed\xbf\xbf",
                                      "\xed\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80",
                                      "\xfe",
                                      "\xff",
                                      "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80"
                                      "edited",
                                      "\xc3(",
                                      "\xe2\x82(",
                                      "\xf0\x9f\x98("};

    for (unsigned i = 0; i < RH_COUNT(bad); i++)
        for (size_t pad = 0; pad <= 40; pad += 8) {
            char text[80];
            const size_t len = pad + strlen(bad[i]);

            memset(text, 'a', pad);
            strcpy(text + pad, bad[i]);
            wire_frame(RH_WS_TEXT, true, text);
            expect("error(1007 text is not UTF-8)");
            wire_new();
            put_frame_of(RH_WS_TEXT, false, text, len / 2);
            put_frame_of(RH_WS_CONT, true, text + len / 2, len - len / 2);
            expect("error(1007 text is not UTF-8)");
        }
}

RH_TEST(ws_utf8, a_text_must_not_end_inside_a_character)
{
    static const char *const bad[] = {"\xc3", "\xe2",         "\xe2\x82",
                                      "\xf0", "\xf0\x9f\x98", "ok \xce"};

    for (unsigned i = 0; i < RH_COUNT(bad); i++) {
        wire_frame(RH_WS_TEXT, true, bad[i]);
        expect("error(1007 text ends inside a character)");
        wire_frame(RH_WS_TEXT, false, bad[i]);
        put_frame(RH_WS_CONT, true, "");
        expect("error(1007 text ends inside a character)");
        wire_new();
        wire.from = RH_WS_SERVER;
        put_frame(RH_WS_TEXT, true, bad[i]);
        expect("error(1007 text ends inside a character)");
    }
}

/* Autobahn 6.4: F4 90 is past U+10FFFF, whatever follows; the message goes on for long. */
RH_TEST(ws_utf8, a_broken_text_fails_with_the_byte_that_makes_it_certain)
{
    wire_frame(RH_WS_TEXT, true, "\xce\xba\xf4\x90\x80\x80 and more");
    RH_EQ_U64(error_after(100), 6 + 4);
    wire_frame(RH_WS_TEXT, false, "\xce\xba\xf4");
    put_frame(RH_WS_CONT, false, "\x90");
    put_frame(RH_WS_CONT, true, "\x80\x80");
    RH_EQ_U64(error_after(100), 6 + 3 + 6 + 1);
    wire_frame(RH_WS_TEXT, true, "a\xed\xa0\x80");
    RH_EQ_U64(error_after(100), 6 + 3);
}

RH_TEST(ws_utf8, binary_messages_may_hold_any_bytes)
{
    wire_frame(RH_WS_BINARY, false, "\xff\xfe\xc3");
    put_frame(RH_WS_CONT, true, "\xed\xa0\x80");
    put_frame(RH_WS_BINARY, true, "\x80");
    expect("binary(\\xff\\xfe\\xc3\\xed\\xa0\\x80) binary(\\x80)");
}

/* ---- the limit of a message ---- */

RH_TEST(ws_limit, a_message_of_exactly_the_limit_passes)
{
    wire_frame(RH_WS_TEXT, true, "12345");
    expect_max(5, "text(12345)");
    wire_frame(RH_WS_TEXT, false, "12");
    put_frame(RH_WS_CONT, false, "");
    put_frame(RH_WS_CONT, true, "345");
    put_frame(RH_WS_TEXT, true, "67890");
    expect_max(5, "text(12345) text(67890)");
    wire_frame(RH_WS_TEXT, true, "");
    expect_max(0, "text()");
}

RH_TEST(ws_limit, one_byte_more_fails_with_the_header_before_the_payload)
{
    wire_frame(RH_WS_TEXT, true, "123456");
    expect_max(5, "error(1009 message is too big)");
    RH_EQ_U64(error_after(5), 2);
    WIRE(0x82, 0xfe, 0x03, 0xe9, 1, 2, 3, 4);
    RH_EQ_U64(error_after(1000), 4);
    WIRE(0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4);
    RH_EQ_U64(error_after(65535), 10);
    WIRE(0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4);
    RH_EQ_U64(error_after(RH_WS_SIZE_MAX), 10);
}

RH_TEST(ws_limit, counts_what_all_fragments_announce)
{
    wire_frame(RH_WS_TEXT, false, "123");
    put_frame(RH_WS_OP_PING, true, "not counted");
    put_frame(RH_WS_CONT, true, "456");
    expect_max(5, "ping(not counted) error(1009 message is too big)");
    RH_EQ_U64(error_after(5), 9 + 17 + 2);
}

RH_TEST(ws_limit, may_be_a_tebibyte)
{
    WIRE(0x02, 0xff, 0, 0, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'a', 'b');
    expect_max(RH_WS_SIZE_MAX, "unfinished(ab)");
    wire_frame(RH_WS_BINARY, false, "x");
    put((const uint8_t[]){0x80, 0xff, 0, 0, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 14);
    expect_max(RH_WS_SIZE_MAX, "error(1009 message is too big)");
}

/* ---- RSV1, where permessage-deflate was agreed on (RFC 7692 6, 7.2.3.1) ---- */

#define SQUEEZED_TEXT   (RH_WS_TEXT | RH_WS_RSV1)
#define SQUEEZED_BINARY (RH_WS_BINARY | RH_WS_RSV1)

RH_TEST(ws_deflate, the_examples_of_rfc_7692_are_read)
{
    log_deflate = true;
    wire_new();
    wire.from = RH_WS_SERVER;
    put((const uint8_t[]){0xc1, 0x07, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00}, 9);
    put((const uint8_t[]){0x41, 0x03, 0xf2, 0x48, 0xcd, 0x80, 0x04, 0xc9, 0xc9, 0x07, 0x00}, 11);
    expect("deflated text(\\xf2H\\xcd\\xc9\\xc9\\x07\\x00) "
           "deflated text(\\xf2H\\xcd\\xc9\\xc9\\x07\\x00)");
}

RH_TEST(ws_deflate, each_message_says_for_itself_whether_it_is_compressed)
{
    log_deflate = true;
    wire_frame(RH_WS_TEXT, true, "a");
    put_frame(SQUEEZED_BINARY, true, "b");
    put_frame(RH_WS_BINARY, false, "c");
    put_frame(RH_WS_OP_PING, true, "p");
    put_frame(RH_WS_CONT, true, "d");
    put_frame(SQUEEZED_TEXT, false, "");
    put_frame(RH_WS_CONT, false, "e");
    put_frame(RH_WS_OP_PONG, true, "q");
    put_frame(RH_WS_CONT, true, "");
    put_frame(SQUEEZED_TEXT, true, "");
    put_frame(RH_WS_TEXT, true, "f");
    expect("text(a) deflated binary(b) ping(p) binary(cd) pong(q) deflated text(e) "
           "deflated text() text(f)");
}

RH_TEST(ws_deflate, rsv1_stands_on_the_first_frame_of_a_message_alone)
{
    static const uint8_t controls[] = {RH_WS_OP_CLOSE, RH_WS_OP_PING, RH_WS_OP_PONG};
    static const char want[] =
        "error(1002 only a message's first frame says that it is compressed)";

    log_deflate = true;
    wire_frame(RH_WS_CONT | RH_WS_RSV1, true, "");
    expect(want);
    for (unsigned first = 0; first < 2; first++) {
        wire_frame(first ? SQUEEZED_TEXT : RH_WS_TEXT, false, "a");
        put_frame(RH_WS_CONT | RH_WS_RSV1, true, "b");
        expect(want);
        for (unsigned i = 0; i < RH_COUNT(controls); i++) {
            wire_frame(first ? SQUEEZED_TEXT : RH_WS_TEXT, false, "a");
            put_frame(controls[i] | RH_WS_RSV1, true, "");
            expect(want);
        }
        wire_frame(first ? SQUEEZED_TEXT : RH_WS_TEXT, false, "a");
        put_frame(SQUEEZED_TEXT, true, "b");
        expect("error(1002 new message inside a fragmented one)");
    }
    for (unsigned i = 0; i < RH_COUNT(controls); i++) {
        wire_frame(controls[i] | RH_WS_RSV1, true, "");
        expect(want);
    }
}

RH_TEST(ws_deflate, the_other_reserved_bits_stay_reserved)
{
    log_deflate = true;
    for (unsigned bits = 0x10; bits <= 0x70; bits += 0x10)
        for (unsigned opcode = 0; opcode < 16 && bits != 0x40; opcode++) {
            WIRE((uint8_t)(0x80 | bits | opcode), 0x80, 0, 0, 0, 0);
            expect("error(1002 reserved bits are set)");
        }
    WIRE(0xc3, 0x80, 0, 0, 0, 0);
    expect("error(1002 reserved opcode)");
}

RH_TEST(ws_deflate, utf8_of_what_is_compressed_is_not_judged_here)
{
    log_deflate = true;
    wire_frame(SQUEEZED_TEXT, true, "\xff\xc3");
    put_frame(SQUEEZED_TEXT, false, "\xe2\x82");
    put_frame(RH_WS_CONT, true, "\xff");
    put_frame(RH_WS_TEXT, true, "\xe2\x82\xac");
    put_frame(RH_WS_TEXT, true, "\x82\xac");
    expect("deflated text(\\xff\\xc3) deflated text(\\xe2\\x82\\xff) text(\\xe2\\x82\\xac) "
           "error(1007 text is not UTF-8)");
}

RH_TEST(ws_deflate, a_compressed_message_may_be_a_little_longer)
{
    static char text[2308], both[2308] = "12";

    log_deflate = true;
    memset(text, 'x', sizeof(text) - 1);
    memcpy(both + 2, text, 2304);
    wire_new();
    put_frame_of(SQUEEZED_TEXT, true, text, 2048 + 2 + 256);
    expect_max(2048, want_long("deflated text", (const uint8_t *)text, 2306));
    wire_frame(SQUEEZED_TEXT, true, text);
    expect_max(2048, "error(1009 message is too big)");
    RH_EQ_U64(error_after(2048), 4);
    wire_frame(SQUEEZED_BINARY, false, "12");
    put_frame_of(RH_WS_CONT, true, text, 2304);
    expect_max(2048, want_long("deflated binary", (const uint8_t *)both, 2306));
    put_frame_of(RH_WS_BINARY, true, text, 2049); /* without RSV1, after one with it */
    RH_EQ_U64(error_after(2048), wire.len - 2049 - 4);
    wire_frame(SQUEEZED_BINARY, false, "12");
    put_frame_of(RH_WS_CONT, true, text, 2305);
    expect_max(2048, "error(1009 message is too big)");
    wire_new();
    put_frame_of(SQUEEZED_BINARY, true, text, 256);
    expect_max(0, want_long("deflated binary", (const uint8_t *)text, 256));
}

/* ---- the contract with the caller ---- */

RH_TEST(ws_feed, gives_data_out_as_it_comes)
{
    struct rh_ws ws;
    struct rh_ws_event ev;

    rh_ws_init(&ws, RH_WS_SERVER, 100);
    wire_frame(RH_WS_TEXT, true, "hello");
    RH_EQ_U64(rh_ws_feed(&ws, wire.at, 6, &ev), 6);
    RH_EQ_INT(ev.kind, RH_WS_MORE);
    RH_EQ_U64(rh_ws_feed(&ws, wire.at + 6, 0, &ev), 0);
    RH_EQ_INT(ev.kind, RH_WS_MORE);
    RH_EQ_U64(rh_ws_feed(&ws, wire.at + 6, 2, &ev), 2);
    RH_OK_IF(ev.kind == RH_WS_DATA && ev.first && !ev.last && ev.opcode == RH_WS_TEXT);
    RH_OK_IF(ev.data == wire.at + 6 && ev.len == 2 && memcmp(ev.data, "he", 2) == 0);
    RH_EQ_U64(rh_ws_feed(&ws, wire.at + 8, 3, &ev), 3);
    RH_OK_IF(ev.kind == RH_WS_DATA && !ev.first && ev.last && ev.len == 3);
    RH_EQ_MEM(ev.data, "llo", 3);
}

RH_TEST(ws_feed, gives_a_whole_message_in_one_piece)
{
    struct rh_ws ws;
    struct rh_ws_event ev;

    rh_ws_init(&ws, RH_WS_SERVER, 1000);
    for (size_t len = 0; len < 1000; len++) {
        uint8_t bytes[1000] = {0};

        wire_new();
        put_frame_of(RH_WS_BINARY, true, bytes, len);
        RH_EQ_U64(rh_ws_feed(&ws, wire.at, wire.len, &ev), wire.len);
        if (ev.kind != RH_WS_DATA || !ev.first || !ev.last || ev.len != len ||
            ev.data + len != wire.at + wire.len || memcmp(ev.data, bytes, len) != 0)
            RH_FAIL("a message of %zu bytes", len);
    }
}

RH_TEST(ws_feed, gives_an_empty_piece_where_a_message_begins_or_ends)
{
    struct rh_ws ws;
    struct rh_ws_event ev;
    size_t at = 0;

    rh_ws_init(&ws, RH_WS_SERVER, 100);
    wire_frame(RH_WS_TEXT, false, "");
    put_frame(RH_WS_CONT, false, "");
    put_frame(RH_WS_CONT, true, "");
    at += rh_ws_feed(&ws, wire.at, wire.len, &ev);
    RH_OK_IF(at == 6 && ev.kind == RH_WS_DATA && ev.first && !ev.last && !ev.len);
    at += rh_ws_feed(&ws, wire.at + at, wire.len - at, &ev);
    RH_OK_IF(at == 18 && ev.kind == RH_WS_DATA && !ev.first && ev.last && !ev.len);
}

RH_TEST(ws_feed, leaves_the_tail_of_an_unfinished_control_frame_masked)
{
    struct rh_ws ws;
    struct rh_ws_event ev;
    uint8_t before[64];

    rh_ws_init(&ws, RH_WS_SERVER, 100);
    wire_frame(RH_WS_OP_PING, true, "are you there?");
    memcpy(before, wire.at, wire.len);
    for (size_t len = 0; len < wire.len; len++) {
        RH_EQ_U64(rh_ws_feed(&ws, wire.at, len, &ev), 0);
        RH_EQ_INT(ev.kind, RH_WS_MORE);
        RH_EQ_MEM(wire.at, before, wire.len);
    }
    RH_EQ_U64(rh_ws_feed(&ws, wire.at, wire.len, &ev), wire.len);
    RH_EQ_INT(ev.kind, RH_WS_PING);
}

/* True when the process that feeds this state once more ends with an abort. */
static bool feed_aborts(struct rh_ws *ws)
{
    struct rh_ws_event ev;
    int status = 0;
    const pid_t child = fork();

    rh_assert(child >= 0);
    if (!child) {
        close(STDERR_FILENO); /* the assertion's words */
        rh_ws_feed(ws, wire.at, wire.len, &ev);
        _exit(0);
    }
    RH_EQ_INT(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

RH_TEST(ws_feed, takes_no_more_after_an_error_or_a_close)
{
    struct rh_ws ws;
    struct rh_ws_event ev;

    for (unsigned bad = 0; bad < 2; bad++) {
        rh_ws_init(&ws, RH_WS_SERVER, 100);
        wire_frame(bad ? RH_WS_CONT : RH_WS_OP_CLOSE, true, "");
        RH_OK_IF(!feed_aborts(&ws));
        rh_ws_feed(&ws, wire.at, wire.len, &ev);
        RH_EQ_INT(ev.kind, bad ? RH_WS_ERROR : RH_WS_CLOSE);
        RH_OK_IF(feed_aborts(&ws));
    }
}

/* ---- sending ---- */

RH_TEST(ws_head, is_the_shortest_that_5_2_allows)
{
    static const struct {
        uint64_t len;
        uint8_t head[RH_WS_HEAD_MAX], size;
    } cases[] = {{0, {0x82, 0x00}, 2},
                 {125, {0x82, 125}, 2},
                 {126, {0x82, 126, 0, 126}, 4},
                 {65535, {0x82, 126, 0xff, 0xff}, 4},
                 {65536, {0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}, 10},
                 {INT64_MAX, {0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 10}};

    for (unsigned i = 0; i < RH_COUNT(cases); i++) {
        const size_t size = cases[i].size;
        uint8_t *at = rh_guard(NULL, size);

        RH_EQ_U64(rh_ws_head(at, RH_WS_BINARY, true, cases[i].len, NULL), size);
        RH_EQ_MEM(at, cases[i].head, size);
        at = rh_guard(NULL, size + 4);
        RH_EQ_U64(rh_ws_head(at, RH_WS_BINARY, false, cases[i].len, key), size + 4);
        RH_EQ_INT(at[0], RH_WS_BINARY);
        RH_EQ_INT(at[1], 0x80 | cases[i].head[1]);
        RH_EQ_MEM(at + 2, cases[i].head + 2, size - 2);
        RH_EQ_MEM(at + size, key, 4);
        rh_ws_head(at, SQUEEZED_TEXT, true, cases[i].len, key);
        RH_EQ_INT(at[0], 0xc1);
    }
}

/* ---- everything together ---- */

/* A text or binary message of random content in random fragments, with pings among them; `want`
 * gets what the log must say. */
static void put_random_message(struct log *want)
{
    static const size_t sizes[] = {1, 20, 126, 300, 5000};
    static uint8_t bytes[5000];
    const size_t len = rh_test_rand() % sizes[rh_test_rand() % RH_COUNT(sizes)];
    const uint8_t opcode = rh_test_rand() % 2 ? RH_WS_TEXT : RH_WS_BINARY;
    const uint8_t rsv = log_deflate && rh_test_rand() % 2 ? RH_WS_RSV1 : 0;
    const bool ascii = rh_test_rand() % 2;
    size_t at = 0;

    for (size_t i = 0; i < len; i++)
        bytes[i] = opcode == RH_WS_BINARY ? (uint8_t)rh_test_rand() : 'a' + (uint8_t)(i % 26);
    for (size_t i = 0; opcode == RH_WS_TEXT && !ascii && i + 3 < len; i += 3 + rh_test_rand() % 20)
        memcpy(bytes + i, "\xe2\x82\xac", 3);
    for (bool first = true, last = false; !last; first = false) {
        size_t piece = rh_test_rand() % (1 + len);

        piece = RH_MIN(piece, len - at);
        last = at + piece == len && rh_test_rand() % 2;
        put_frame_of(first ? opcode | rsv : RH_WS_CONT, last, bytes + at, piece);
        at += piece;
        if (!last && rh_test_rand() % 4 == 0) {
            put_frame(RH_WS_OP_PING, true, "inside");
            log_print(want, "ping(inside) ");
        }
    }
    log_print(want, "%s%s", rsv ? "deflated " : "", opcode == RH_WS_TEXT ? "text(" : "binary(");
    log_bytes(want, bytes, len);
    log_print(want, ") ");
}

RH_TEST(ws, random_messages_in_random_fragments_and_cuts_come_out_as_they_went_in)
{
    static struct log want;

    for (unsigned run = 0; run < 300; run++) {
        log_deflate = run / 2 % 2;
        log_init(&want, RH_WS_SERVER, 5000);
        wire_new();
        wire.from = run % 2 ? RH_WS_CLIENT : RH_WS_SERVER;
        for (unsigned i = 0; i < 6; i++)
            put_random_message(&want);
        log_end(&want);
        expect_cut(5000, 0, ROOM, want.text);
        expect_cut(5000, 0, 1, want.text);
        for (unsigned i = 0; i < 20; i++)
            expect_cut(5000, rh_test_rand() % (wire.len + 1), 1 + rh_test_rand() % 300, want.text);
    }
}
