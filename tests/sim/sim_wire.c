/* tests/sim/sim_wire.c - what a client still has to write, in pieces; see sim_wire.h. */
#include "tests/sim/sim_wire.h"

#include <string.h>

#include "proto/mask.h"
#include "proto/ws.h"
#include "tests/sim/sim_uring.h"

static void stepped(void *arg)
{
    struct sim_wire *w = arg;

    w->step_comes = false;
    w->step(w->arg);
}

static void changed(void *arg)
{
    struct sim_wire *w = arg;

    if (w->step_comes)
        return;
    w->step_comes = true;
    sim_at(sim_soon(), stepped, w);
}

bool sim_wire_connect(struct sim_wire *w, unsigned id, void (*step)(void *arg), void *arg)
{
    struct sim_end *end = sim_net_connect(id);

    if (!sim_knock(end->peer))
        return false;
    w->end = end;
    w->step = step;
    w->arg = arg;
    end->changed = changed;
    end->arg = w;
    return true;
}

void sim_wire_put(struct sim_wire *w, const void *bytes, size_t len)
{
    if (w->out_len + len > w->out_room) {
        size_t room = 2 * (w->out_len + len);
        uint8_t *out = sim_keep(room);

        if (w->out_len)
            memcpy(out, w->out, w->out_len);
        w->out = out;
        w->out_room = room;
    }
    if (len)
        memcpy(w->out + w->out_len, bytes, len);
    w->out_len += len;
}

void sim_wire_frame(struct sim_wire *w, uint8_t opcode, bool fin, const void *at, size_t len)
{
    uint8_t head[RH_WS_HEAD_MAX], key[4];
    uint64_t drawn = sim_rand();
    uint8_t *payload;
    size_t head_len;

    memcpy(key, &drawn, sizeof(key));
    head_len = rh_ws_head(head, opcode, fin, len, key);
    sim_wire_put(w, head, head_len);
    sim_wire_put(w, at, len);
    payload = w->out + w->out_len - len;
    rh_mask(payload, payload, len, key, 0);
}

void sim_wire_message(struct sim_wire *w, uint8_t opcode, const void *at, size_t len, bool cut)
{
    struct rh_deflate_out squeezed;
    const uint8_t *rest = at;

    if (sim_squeeze_deflate(&w->squeeze, at, len, &squeezed)) {
        opcode |= RH_WS_RSV1;
        rest = squeezed.at;
        len = squeezed.len;
    }
    while (cut && len > 1 && sim_chance(400)) {
        size_t part = sim_below(len);

        sim_wire_frame(w, opcode, false, rest, part);
        opcode = RH_WS_CONT;
        rest += part;
        len -= part;
        if (sim_chance(300))
            sim_wire_frame(w, RH_WS_OP_PING, true, "hello", sim_below(6));
    }
    sim_wire_frame(w, opcode, true, rest, len);
}

void sim_wire_write(struct sim_wire *w)
{
    while (w->out_len) {
        size_t n = sim_chance(600) ? w->out_len : 1 + sim_below(w->out_len);
        int took = sim_write(w->end, w->out, n);

        if (took < 0) {
            w->out_len = 0; /* reading will tell */
            return;
        }
        memmove(w->out, w->out + took, w->out_len - (size_t)took);
        w->out_len -= (size_t)took;
        if ((size_t)took < n)
            return; /* until there is room */
        if (w->out_len && sim_chance(500)) {
            changed(w);
            return;
        }
    }
}
