/* store/jot.c - events of the journal as bytes; see jot.h.
 *
 * Why this way: the fields of each kind stand once, in fields_of(), and a walk over them sizes, writes or
 * reads. So the three cannot disagree. The walk is inlined three times with a constant mode, which leaves
 * straight code.
 *
 * Invariants  (1) What is_sound lets through is written in exactly one way, and reading gives it back.
 *             (2) Reading touches no byte behind `end`, whatever the bytes are.
 */
#include "store/jot.h"

#include <string.h>

#include "core/mem.h"
#include "core/msg.h"

enum mode { SIZE, WRITE, READ };

/* A walk over the fields of one event. */
struct walk {
    enum mode mode;
    uint8_t *put;       /* WRITE */
    const uint8_t *get; /* READ */
    const uint8_t *end; /* READ */
    size_t size;        /* SIZE */
    bool bad;           /* READ: the bytes end, or are no number; all that follows is 0 */
    struct rh_jot_room *room;
    int rc;
};

#define INLINE static inline __attribute__((always_inline))

/* ---- numbers ---- */

INLINE size_t number_size(uint64_t n)
{
    return (size_t)(70 - __builtin_clzll(n | 1)) / 7;
}

/* At most ten bytes; the last is not 0 unless it is the only one, and of the tenth one bit is used. */
INLINE uint64_t read_number(struct walk *w)
{
    uint64_t n = 0;

    for (unsigned shift = 0; shift < 64 && w->get < w->end; shift += 7) {
        const uint8_t byte = *w->get++;

        n |= (uint64_t)(byte & 0x7f) << shift;
        if (byte & 0x80)
            continue;
        if ((byte == 0 && shift) || (shift == 63 && byte > 1))
            break;
        return n;
    }
    w->bad = true;
    w->get = w->end;
    return 0;
}

INLINE void number(struct walk *w, uint64_t *n)
{
    if (w->mode == SIZE) {
        w->size += number_size(*n);
    } else if (w->mode == WRITE) {
        uint64_t left = *n;

        for (; left >= 0x80; left >>= 7)
            *w->put++ = (uint8_t)(left | 0x80);
        *w->put++ = (uint8_t)left;
    } else {
        *n = read_number(w);
    }
}

INLINE void number32(struct walk *w, uint32_t *n)
{
    uint64_t wide = *n;

    number(w, &wide);
    if (w->mode == READ) {
        w->bad |= wide > UINT32_MAX;
        *n = (uint32_t)wide;
    }
}

INLINE void byte(struct walk *w, uint8_t *b)
{
    if (w->mode == SIZE) {
        w->size++;
    } else if (w->mode == WRITE) {
        *w->put++ = *b;
    } else if (w->get < w->end) {
        *b = *w->get++;
    } else {
        w->bad = true;
    }
}

INLINE void span(struct walk *w, struct rh_span *s)
{
    number32(w, &s->len);
    if (w->mode == SIZE) {
        w->size += s->len;
    } else if (w->mode == WRITE) {
        if (s->len)
            memcpy(w->put, s->at, s->len);
        w->put += s->len;
    } else if (s->len <= (size_t)(w->end - w->get)) {
        s->at = (const char *)w->get;
        w->get += s->len;
    } else {
        w->bad = true;
    }
}

/* ---- shares ---- */

/* A share takes at least four bytes, so bytes that lie about their number make no large room. */
static bool make_room(struct walk *w, uint32_t count)
{
    struct rh_jot_share *shares;

    if (count > (size_t)(w->end - w->get) / 4) {
        w->bad = true;
        return false;
    }
    if (count <= w->room->count)
        return true;
    shares = rh_mem_realloc(w->room->shares, count * sizeof(*shares));
    if (!shares) {
        w->rc = RH_ENOMEM;
        w->bad = true;
        return false;
    }
    w->room->shares = shares;
    w->room->count = count;
    return true;
}

INLINE void share(struct walk *w, struct rh_jot_share *s)
{
    span(w, &s->user);
    number32(w, &s->attempt);
    byte(w, &s->state);
    byte(w, &s->reason);
}

INLINE void shares(struct walk *w, struct rh_jot *jot)
{
    number32(w, &jot->share_count);
    if (w->mode == READ) {
        if (!make_room(w, jot->share_count)) {
            jot->share_count = 0;
            return;
        }
        if (jot->share_count)
            memset(w->room->shares, 0, jot->share_count * sizeof(*w->room->shares));
        jot->shares = w->room->shares;
        for (uint32_t i = 0; i < jot->share_count; i++)
            share(w, &w->room->shares[i]);
        return;
    }
    for (uint32_t i = 0; i < jot->share_count; i++) {
        struct rh_jot_share s = jot->shares[i];

        share(w, &s);
    }
}

/* ---- events ---- */

INLINE void fields_of(struct walk *w, struct rh_jot *jot)
{
    byte(w, &jot->kind);
    number(w, &jot->at_ms);
    switch (jot->kind) {
    case RH_JOT_OWED:
        byte(w, &jot->msg_kind);
        byte(w, &jot->flags);
        number(w, &jot->number);
        number(w, &jot->expires_ms);
        number(w, &jot->dedup_ms);
        number(w, &jot->seq);
        number(w, &jot->uid);
        number32(w, &jot->recipients);
        span(w, &jot->from);
        span(w, &jot->to);
        span(w, &jot->id);
        number32(w, &jot->attempt_at);
        byte(w, &jot->attempt_len);
        number32(w, &jot->ack_at);
        span(w, &jot->text);
        shares(w, jot);
        break;
    case RH_JOT_ATTEMPT:
        number(w, &jot->number);
        number32(w, &jot->share);
        number32(w, &jot->attempt);
        break;
    case RH_JOT_SETTLED:
        number(w, &jot->number);
        number32(w, &jot->share);
        byte(w, &jot->state);
        byte(w, &jot->reason);
        break;
    case RH_JOT_ID:
        byte(w, &jot->msg_kind);
        byte(w, &jot->flags);
        number(w, &jot->dedup_ms);
        number(w, &jot->seq);
        number32(w, &jot->recipients);
        span(w, &jot->from);
        span(w, &jot->to);
        span(w, &jot->id);
        break;
    case RH_JOT_TIME:
        break;
    default:
        w->bad = true;
    }
}

static bool is_named(const struct rh_jot *jot)
{
    return jot->from.len <= RH_JOT_NAME_MAX && jot->to.len <= RH_JOT_NAME_MAX &&
           jot->id.len <= RH_JOT_NAME_MAX &&
           (jot->msg_kind == RH_MSG_DIRECT || jot->msg_kind == RH_MSG_ROOM);
}

static bool is_owed(const struct rh_jot *jot)
{
    const unsigned flags =
        RH_JOT_ACK | RH_JOT_HIGH | RH_JOT_FROM_USER | RH_JOT_GIVEN | RH_JOT_STORED;

    if (!is_named(jot) || !jot->number || (jot->flags & ~flags) ||
        jot->text.len > RH_JOT_TEXT_MAX || jot->attempt_at > jot->text.len ||
        jot->attempt_len > jot->text.len - jot->attempt_at || jot->ack_at > jot->text.len ||
        !jot->share_count || (jot->msg_kind == RH_MSG_DIRECT && jot->share_count != 1))
        return false;
    for (uint32_t i = 0; i < jot->share_count; i++)
        if (jot->shares[i].user.len > RH_JOT_NAME_MAX || jot->shares[i].state >= RH_STATE_COUNT ||
            jot->shares[i].reason >= RH_REASON_COUNT)
            return false;
    return true;
}

bool rh_jot_is_sound(const struct rh_jot *jot)
{
    switch (jot->kind) {
    case RH_JOT_OWED:
        return is_owed(jot);
    case RH_JOT_ATTEMPT:
        return jot->number != 0;
    case RH_JOT_SETTLED:
        return jot->number && rh_state_is_end(jot->state) && jot->state < RH_STATE_COUNT &&
               jot->reason < RH_REASON_COUNT;
    case RH_JOT_ID:
        return is_named(jot) && !(jot->flags & ~RH_JOT_STORED);
    default:
        return jot->kind == RH_JOT_TIME;
    }
}

size_t rh_jot_size(const struct rh_jot *jot)
{
    struct walk w = {.mode = SIZE};
    struct rh_jot copy = *jot;

    fields_of(&w, &copy);
    return w.size;
}

uint8_t *rh_jot_encode(uint8_t *dst, const struct rh_jot *jot)
{
    struct walk w = {.mode = WRITE, .put = dst};
    struct rh_jot copy = *jot;

    rh_assert(rh_jot_is_sound(jot));
    fields_of(&w, &copy);
    return w.put;
}

int64_t rh_jot_decode(const uint8_t *at, size_t len, struct rh_jot_room *room,
                      struct rh_jot *ret_jot)
{
    struct walk w = {.mode = READ, .get = at, .end = at + len, .room = room, .rc = RH_EINVAL};

    memset(ret_jot, 0, sizeof(*ret_jot));
    fields_of(&w, ret_jot);
    if (w.bad)
        return w.rc;
    return rh_jot_is_sound(ret_jot) ? w.get - at : RH_EINVAL;
}

void rh_jot_room_fini(struct rh_jot_room *room)
{
    rh_mem_free(room->shares);
    memset(room, 0, sizeof(*room));
}

const char *rh_jot_name(unsigned kind)
{
    static const char *const names[RH_JOT_COUNT] = {
#define RH_JOT(name, help) [RH_JOT_##name] = #name,
        RH_JOTS(RH_JOT)
#undef RH_JOT
    };

    return kind < RH_JOT_COUNT && names[kind] ? names[kind] : "?";
}
