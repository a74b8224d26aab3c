/* tests/shard/test_dedup.c - shard/dedup.c: ids that are remembered. */
#include "shard/dedup.h"

#include <stdio.h>

#include "core/err.h"
#include "core/mem.h"
#include "tests/rh_test.h"

#define T0   1700000000000u
#define STEP 64 /* what dedup.c rounds a time up to */

static struct rh_span span(const char *text)
{
    return (struct rh_span){text, (uint32_t)strlen(text)};
}

static struct rh_id_key key_of(const struct rh_dedup *d, unsigned n)
{
    char id[16];

    snprintf(id, sizeof(id), "id-%u", n);
    return rh_dedup_key(d, RH_ID_SEND, span("alice"), span("bob"), span(id));
}

static struct rh_promise *promise(unsigned n)
{
    return (struct rh_promise *)(uintptr_t)(n + 1);
}

static void begin(struct rh_dedup *d)
{
    RH_EQ_INT(rh_dedup_init(d, T0), RH_OK);
}

static void add_kept(struct rh_dedup *d, unsigned n, uint64_t until_ms)
{
    struct rh_id_key key = key_of(d, n);
    struct rh_id *id = rh_dedup_add(d, &key, promise(n));

    RH_OK_IF(id);
    rh_dedup_keep(d, id, &(struct rh_id_outcome){.seq = n}, until_ms);
}

static struct rh_id *find(struct rh_dedup *d, unsigned n, uint64_t now_ms)
{
    struct rh_id_key key = key_of(d, n);

    return rh_dedup_find(d, &key, now_ms);
}

static void drop_if_pending(struct rh_dedup *d, unsigned n)
{
    struct rh_id *id = find(d, n, 0);

    if (id && rh_id_is_pending(id))
        rh_dedup_drop(d, id);
}

/* Goal    whose id it is, for whom and of which request is part of the key; no part runs into the next.
 * Method  keys of texts that are the same when they are strung together. */
RH_TEST(dedup, each_part_counts_with_its_length)
{
    static const char *const parts[][3] = {
        {"alice", "bob", "1"}, {"aliceb", "ob", "1"}, {"alice", "bob1", ""}, {"", "alicebob", "1"},
        {"alice", "bo", "b1"}, {"alice", "bob", "2"}, {"bob", "alice", "1"},
    };
    struct rh_id_key keys[3 * RH_COUNT(parts)];
    struct rh_dedup d;
    unsigned count = 0;

    begin(&d);
    for (unsigned event = RH_ID_SEND; event <= RH_ID_BROADCAST; event++)
        for (unsigned i = 0; i < RH_COUNT(parts); i++)
            keys[count++] = rh_dedup_key(&d, (enum rh_id_event)event, span(parts[i][0]),
                                         span(parts[i][1]), span(parts[i][2]));
    for (unsigned i = 0; i < count; i++)
        for (unsigned k = 0; k < i; k++)
            RH_OK_IF(keys[i].h[0] != keys[k].h[0] && keys[i].h[1] != keys[k].h[1]);
    RH_OK_IF(keys[0].h[0] != keys[0].h[1]);
    rh_dedup_fini(&d);
}

RH_TEST(dedup, the_longest_names_fit)
{
    static char name[128], id[64];
    struct rh_dedup d;
    struct rh_id_key a, b;

    memset(name, 'n', sizeof(name));
    memset(id, 'i', sizeof(id));
    begin(&d);
    a = rh_dedup_key(&d, RH_ID_SEND, (struct rh_span){name, 128}, (struct rh_span){name, 128},
                     (struct rh_span){id, 64});
    b = rh_dedup_key(&d, RH_ID_SEND, (struct rh_span){name, 128}, (struct rh_span){name, 128},
                     (struct rh_span){id, 63});
    RH_OK_IF(a.h[0] != b.h[0] && a.h[1] != b.h[1]);
    rh_dedup_fini(&d);
}

/* Goal    half a key is no key. */
RH_TEST(dedup, both_halves_of_a_key_are_compared)
{
    struct rh_dedup d;
    struct rh_id_key key, other;
    struct rh_id *id;

    begin(&d);
    key = key_of(&d, 1);
    other = key;
    other.h[1]++;
    id = rh_dedup_add(&d, &key, promise(1));
    RH_OK_IF(id && !rh_dedup_find(&d, &other, T0));
    RH_OK_IF(rh_dedup_find(&d, &key, T0) == id && id->promise == promise(1));
    rh_dedup_drop(&d, id);
    RH_OK_IF(!rh_dedup_find(&d, &key, T0));
    RH_EQ_U64(rh_dedup_count(&d), 0);
    rh_dedup_fini(&d);
}

RH_TEST(dedup, an_outcome_is_kept_whole)
{
    struct rh_id_outcome o = {(1ull << 53) - 1, 1, 1, UINT32_MAX};
    struct rh_dedup d;
    struct rh_id_key key;
    struct rh_id *id;

    begin(&d);
    key = key_of(&d, 1);
    id = rh_dedup_add(&d, &key, promise(1));
    RH_OK_IF(rh_id_is_pending(id));
    rh_dedup_keep(&d, id, &o, T0 + 5000);
    RH_OK_IF(!rh_id_is_pending(id) && rh_dedup_find(&d, &key, T0) == id);
    RH_EQ_U64(id->seq, o.seq);
    RH_EQ_U64(id->recipients, o.recipients);
    RH_OK_IF(id->stored && id->partial);
    rh_dedup_fini(&d);
}

/* Goal    an id is known until its time, and not 64 ms longer. */
RH_TEST(dedup, time_is_kept)
{
    struct rh_dedup d;

    begin(&d);
    for (unsigned n = 0; n < 200; n++)
        add_kept(&d, n, T0 + 1000 + n);
    for (unsigned n = 0; n < 200; n++)
        RH_OK_IF(find(&d, n, T0 + 1000 + n - 1));
    for (unsigned n = 0; n < 200; n++)
        RH_OK_IF(!find(&d, n, T0 + 1000 + n + STEP));
    RH_EQ_U64(rh_dedup_count(&d), 0);
    RH_EQ_U64(rh_dedup_trim(&d, T0, SIZE_MAX, UINT32_MAX), 0);
    rh_dedup_fini(&d);
}

/* Goal    a time before the beginning, and one far away, do no harm. */
RH_TEST(dedup, odd_times_are_taken)
{
    struct rh_dedup d;

    begin(&d);
    add_kept(&d, 1, T0 - 5000);
    add_kept(&d, 2, UINT64_MAX);
    RH_OK_IF(!find(&d, 1, T0 + STEP) && find(&d, 2, T0 + 86400000));
    rh_dedup_fini(&d);
}

RH_TEST(dedup, at_the_bound_the_oldest_goes_and_is_counted)
{
    struct rh_dedup d;

    begin(&d);
    for (unsigned n = 0; n < 10; n++)
        add_kept(&d, n, T0 + 5000);
    RH_EQ_U64(rh_dedup_trim(&d, T0, 10, 100), 0);
    RH_EQ_U64(rh_dedup_trim(&d, T0, 6, 3), 3); /* a budget */
    RH_EQ_U64(rh_dedup_trim(&d, T0, 6, 3), 1);
    for (unsigned n = 0; n < 10; n++)
        RH_EQ_INT(find(&d, n, T0) != NULL, n >= 4);
    rh_dedup_fini(&d);
}

/* Goal    what is over is not counted as evicted. */
RH_TEST(dedup, what_is_over_goes_uncounted)
{
    struct rh_dedup d;

    begin(&d);
    for (unsigned n = 0; n < 10; n++)
        add_kept(&d, n, T0 + (n < 5 ? 100 : 5000));
    RH_EQ_U64(rh_dedup_trim(&d, T0 + 1000, 3, 100), 2);
    RH_EQ_U64(rh_dedup_count(&d), 3);
    rh_dedup_fini(&d);
}

RH_TEST(dedup, pending_ones_are_never_evicted)
{
    struct rh_dedup d;
    struct rh_id_key key;
    struct rh_id *first;

    begin(&d);
    key = key_of(&d, 100);
    first = rh_dedup_add(&d, &key, promise(100));
    for (unsigned n = 0; n < 10; n++)
        add_kept(&d, n, T0 + 5000);
    RH_EQ_U64(rh_dedup_trim(&d, T0, 0, 100), 10);
    RH_OK_IF(find(&d, 100, UINT64_MAX) == first && rh_id_is_pending(first));
    rh_dedup_keep(&d, first, &(struct rh_id_outcome){0}, T0 + 5000);
    RH_OK_IF(find(&d, 100, T0) == first);
    RH_EQ_U64(rh_dedup_trim(&d, T0, 0, 100), 1);
    rh_dedup_fini(&d);
}

/* Goal    one that is over and stands behind others may be given anew at once. */
RH_TEST(dedup, an_id_that_is_over_is_new_again)
{
    struct rh_dedup d;
    struct rh_id_key key;
    struct rh_id *again;

    begin(&d);
    add_kept(&d, 1, T0 + 5000);
    add_kept(&d, 2, T0 + 100);
    key = key_of(&d, 2);
    RH_OK_IF(!rh_dedup_find(&d, &key, T0 + 1000));
    again = rh_dedup_add(&d, &key, promise(2));
    rh_dedup_keep(&d, again, &(struct rh_id_outcome){.seq = 7}, T0 + 5000);
    RH_OK_IF(rh_dedup_find(&d, &key, T0 + 1000) == again && again->seq == 7);
    RH_EQ_U64(rh_dedup_count(&d), 2);
    RH_EQ_U64(rh_dedup_trim(&d, T0 + 1000, 1, 2), 1); /* number 1, and what was over */
    RH_OK_IF(rh_dedup_find(&d, &key, T0 + 1000) == again);
    rh_dedup_fini(&d);
}

/* ---- against a plain list ---- */

#define KEYS  48
#define STEPS 3000

enum { UNKNOWN, PENDING, KEPT };

struct model {
    struct {
        uint8_t state;
        uint64_t over_ms; /* from then on it is not known */
        uint64_t born;    /* when it was kept, as an order */
        uint64_t seq;
        uint32_t recipients;
    } at[KEYS];
    uint64_t now_ms, order;
    size_t max;
};

static void forget_over(struct model *m)
{
    for (unsigned n = 0; n < KEYS; n++)
        if (m->at[n].state == KEPT && m->at[n].over_ms <= m->now_ms)
            m->at[n].state = UNKNOWN;
}

static size_t known(const struct model *m)
{
    size_t count = 0;

    for (unsigned n = 0; n < KEYS; n++)
        count += m->at[n].state != UNKNOWN;
    return count;
}

/* Forgets the oldest that is kept. False: there is none. */
static bool evict(struct model *m)
{
    unsigned oldest = KEYS;

    for (unsigned n = 0; n < KEYS; n++)
        if (m->at[n].state == KEPT && (oldest == KEYS || m->at[n].born < m->at[oldest].born))
            oldest = n;
    if (oldest < KEYS)
        m->at[oldest].state = UNKNOWN;
    return oldest < KEYS;
}

/* What is over is looked for first: then nothing but the bound makes the table forget. */
static void trim_both(struct rh_dedup *d, struct model *m)
{
    uint32_t evicted = 0;

    forget_over(m);
    for (unsigned n = 0; n < KEYS; n++)
        find(d, n, m->now_ms);
    while (known(m) > m->max && evict(m))
        evicted++;
    RH_EQ_U64(rh_dedup_trim(d, m->now_ms, m->max, UINT32_MAX), evicted);
    RH_EQ_U64(rh_dedup_count(d), known(m));
}

static void ask_both(struct rh_dedup *d, struct model *m, unsigned n)
{
    struct rh_id_key key = key_of(d, n);
    struct rh_id *id = rh_dedup_find(d, &key, m->now_ms);

    if (m->at[n].state == KEPT && m->at[n].over_ms <= m->now_ms)
        m->at[n].state = UNKNOWN;
    RH_EQ_INT(id != NULL, m->at[n].state != UNKNOWN);
    if (!id) {
        id = rh_dedup_add(d, &key, promise(n));
        if (id)
            m->at[n].state = PENDING;
        return;
    }
    RH_EQ_INT(rh_id_is_pending(id), m->at[n].state == PENDING);
    if (rh_id_is_pending(id)) {
        RH_OK_IF(id->promise == promise(n));
        return;
    }
    RH_EQ_U64(id->seq, m->at[n].seq);
    RH_EQ_U64(id->recipients, m->at[n].recipients);
}

static void end_both(struct rh_dedup *d, struct model *m, unsigned n)
{
    struct rh_id *id = find(d, n, m->now_ms);
    struct rh_id_outcome o = {.seq = rh_test_rand() >> 11, .recipients = (uint32_t)rh_test_rand()};
    uint64_t ms = 1 + rh_test_rand() % 3000;

    if (m->at[n].state != PENDING)
        return;
    RH_OK_IF(id && rh_id_is_pending(id));
    if (rh_test_rand() % 4 == 0) {
        rh_dedup_drop(d, id);
        m->at[n].state = UNKNOWN;
        return;
    }
    rh_dedup_keep(d, id, &o, m->now_ms + ms);
    m->at[n].state = KEPT;
    m->at[n].born = ++m->order;
    m->at[n].seq = o.seq;
    m->at[n].recipients = o.recipients;
    m->at[n].over_ms = T0 + (m->now_ms + ms - T0 + STEP - 1) / STEP * STEP;
}

/* Goal    whatever comes and goes, the table knows what a plain list knows.
 * Method  ids are asked for, answered, refused, trimmed while time goes on; some find no memory. */
RH_TEST(dedup, a_plain_list_would_know_the_same)
{
    for (unsigned run = 0; run < 50; run++) {
        struct model m = {.now_ms = T0, .max = rh_test_rand() % KEYS};
        struct rh_dedup d;

        begin(&d);
        for (unsigned step = 0; step < STEPS; step++) {
            uint64_t draw = rh_test_rand() % 100;
            unsigned n = (unsigned)(rh_test_rand() % KEYS);

            rh_mem_fail_nth(rh_test_rand() % 16 == 0);
            if (draw < 50)
                ask_both(&d, &m, n);
            else if (draw < 85)
                end_both(&d, &m, n);
            else if (draw < 95)
                m.now_ms += rh_test_rand() % 200;
            else
                trim_both(&d, &m);
            rh_mem_fail_nth(0);
        }
        for (unsigned n = 0; n < KEYS; n++)
            drop_if_pending(&d, n);
        rh_dedup_fini(&d);
    }
}

static void a_life(void *arg)
{
    struct rh_dedup d;

    memset(&d, 0, sizeof(d));
    if (rh_dedup_init(&d, T0) == RH_OK) {
        for (unsigned n = 0; n < 100; n++) {
            struct rh_id_key key = key_of(&d, n);
            struct rh_id *id = rh_dedup_add(&d, &key, promise(n));

            if (id && n % 3)
                rh_dedup_keep(&d, id, &(struct rh_id_outcome){0}, T0 + 100);
            else if (id)
                rh_dedup_drop(&d, id);
        }
        rh_dedup_trim(&d, T0, 20, 100);
    }
    rh_dedup_fini(&d);
}

RH_TEST(dedup, survives_every_failing_allocation)
{
    rh_test_fail_each_alloc(a_life, NULL);
}
