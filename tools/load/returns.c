/* tools/load/returns.c - connections that are cut off and come back as the same user (--reconnect).
 *
 *     OPEN -- load_returns_run --> AWAY -- load_open_again, when the kernel has nothing of it --> ...
 *
 * The cut is one of TCP, without a closing handshake: what a phone in a tunnel does. The next
 * connection begins at once. It asks for its session (`resume`) and, where there are rooms, says
 * how far it was (`rooms=NAME@SEQ@EPOCH`), so that nothing of a room may be missing unless it is
 * told. Which connection it meets is drawn; which messages may suffer, book.h says.
 *
 * Cut k of the run is due at start + (k + 1) / R; worker k % threads sees to it.
 */
#include <string.h>

#include "core/clock.h"
#include "tools/load/envelope.h"

#define TRIES 8 /* to find one that is open */

static void cut_one(struct load_worker *w)
{
    for (int i = 0; i < TRIES; i++) {
        uint32_t at = (uint32_t)((unsigned __int128)rh_prng_next(&w->prng) * w->conns_count >> 64);
        struct load_conn *c = &w->conns[at];

        if (c->state != LOAD_OPEN)
            continue;
        load_count(&w->counts.cut);
        load_book_cut(w, c);
        load_conn_cut(w, c);
        return;
    }
}

void load_returns_run(struct load_worker *w, uint64_t now)
{
    const struct load_run *run = w->run;
    double rate = run->opts->reconnect;

    if (rate == 0 || w->conns_count == 0 ||
        atomic_load_explicit(&w->phase, memory_order_relaxed) != LOAD_RUNNING)
        return;
    for (;; w->cuts++) {
        double k = (double)(w->cuts * run->opts->threads + w->number);
        uint64_t due = load_time(&run->start_ns) + (uint64_t)((k + 1) * 1e9 / rate);

        if (due > now || due >= load_time(&run->end_ns))
            return;
        cut_one(w);
    }
}

/* A plain string of at most room - 1 bytes, as sessions and epochs are; else nothing. */
static void keep(char *dst, size_t room, struct rh_json v)
{
    size_t len = v.kind == RH_JSON_STRING ? v.raw.len - 2 : 0;

    if (len >= room)
        len = 0;
    memcpy(dst, v.raw.at + (len > 0), len);
    dst[len] = '\0';
}

void load_returns_welcome(struct load_conn *c, struct rh_json data)
{
    struct load_body b;

    load_body_read(data, &b);
    keep(c->ledger->session, sizeof(c->ledger->session), b.session);
}

void load_returns_subscribed(struct load_worker *w, struct load_conn *c, const struct load_body *b)
{
    struct load_ledger *l = c->ledger;
    uint64_t seq = 0, missed = 0;

    keep(l->epoch, sizeof(l->epoch), b->epoch);
    rh_json_u64(b->seq, 0, UINT64_C(1) << 53, &seq);
    rh_json_u64(b->missed, 0, UINT64_C(1) << 53, &missed);
    if (l->next_room == 0) /* for the first time */
        l->next_room = seq + 1;
    else if (missed > 0)
        load_book_missed_in_room(w, c, l->next_room, l->next_room + missed - 1);
    if (missed > 0)
        l->next_room += missed;
}

/* What follows the user's name in the path of its next connection. */
void load_returns_query(const struct load_worker *w, const struct load_conn *c,
                        struct rh_writer *out)
{
    const struct load_ledger *l = c->ledger;
    char room[LOAD_NAME_ROOM];

    if (l->session[0]) {
        RH_PUT(out, "&resume=");
        rh_put(out, l->session, strlen(l->session));
    }
    if (!load_mode_joins(w->run->opts))
        return;
    RH_PUT(out, "&rooms=");
    rh_put(out, room, load_block_name(w->run, c->number, room));
    if (l->next_room > 0 && l->epoch[0]) {
        RH_PUT(out, "@");
        rh_put_u64(out, l->next_room - 1);
        RH_PUT(out, "@");
        rh_put(out, l->epoch, strlen(l->epoch));
    }
}
