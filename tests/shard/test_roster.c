/* Members in their order: what is in it is what was added and not deleted, in pages, too. */
#include "shard/roster.h"

#include <stdlib.h>

#include "core/mem.h"
#include "shard/room_int.h"
#include "tests/rh_test.h"

#define MANY 5000

static struct rh_member *member_of(uint64_t ord, const char *name, const char *type)
{
    struct rh_member *m = rh_mem_zalloc(sizeof(*m) + strlen(name) + strlen(type));

    m->ord = ord;
    m->since_ms = 1000 + ord;
    m->name_len = (uint8_t)strlen(name);
    m->type_len = (uint8_t)strlen(type);
    memcpy(m->bytes, name, m->name_len);
    memcpy(m->bytes + m->name_len, type, m->type_len);
    return m;
}

static void expect_page(const struct rh_roster *r, uint64_t ord, uint32_t limit, const char *want)
{
    struct rh_text *text = rh_roster_page(r, ord, limit);

    RH_OK_IF(text);
    ck_assert_msg(text->len == strlen(want) && memcmp(text->at, want, text->len) == 0, "%.*s",
                  (int)text->len, text->at);
    rh_mem_free(text);
}

RH_TEST(roster, nobody_is_in_an_empty_one)
{
    struct rh_roster *r = NULL;

    RH_OK_IF(!rh_roster_after(r, 0));
    expect_page(r, 0, 100, "{\"items\":[],\"next\":null}");
    rh_roster_fini(&r);
}

/* Goal    whatever joins and leaves, a walk finds exactly who is there, in order.
 * Method  a plain array of flags beside it; phases in which more join, or more leave. */
RH_TEST(roster, a_walk_finds_who_is_there_in_order)
{
    static struct rh_member *all[MANY + 1];
    struct rh_roster *r = NULL;
    uint64_t next = 0;

    for (unsigned step = 0; step < 40000; step++) {
        bool joins = rh_test_rand() % 100 < (step / 4000 % 2 ? 30 : 60);
        uint64_t ord = next ? 1 + rh_test_rand() % next : 0;

        if (joins && next < MANY) {
            all[next + 1] = member_of(next + 1, "u", "");
            RH_EQ_INT(rh_roster_add(&r, all[next + 1]), RH_OK);
            next++;
        } else if (ord && all[ord]) {
            rh_roster_del(&r, all[ord]);
            rh_mem_free(all[ord]);
            all[ord] = NULL;
        }
        if (step % 500)
            continue;
        struct rh_member *m = rh_roster_after(r, 0);
        for (uint64_t i = 1; i <= next; i++) {
            if (!all[i])
                continue;
            RH_OK_IF(m == all[i]);
            m = rh_roster_after(r, i);
        }
        RH_OK_IF(!m);
    }
    for (uint64_t i = 1; i <= next; i++) {
        if (!all[i])
            continue;
        rh_roster_del(&r, all[i]);
        rh_mem_free(all[i]);
    }
    RH_OK_IF(r == NULL); /* and needs no memory any more */
}

RH_TEST(roster, a_cursor_stays_good_when_its_member_has_left)
{
    struct rh_roster *r = NULL;
    struct rh_member *a = member_of(1, "ann", "admin"), *b = member_of(2, "b\"b", ""),
                     *c = member_of(5, "carl", "");

    rh_roster_add(&r, a);
    rh_roster_add(&r, b);
    rh_roster_add(&r, c);
    c->live = 3;
    expect_page(r, 0, 1,
                "{\"items\":[{\"user\":\"ann\",\"user_type\":\"admin\",\"since\":1001,"
                "\"devices\":0}],\"next\":\"1\"}");
    rh_roster_del(&r, a);
    expect_page(r, 1, 1,
                "{\"items\":[{\"user\":\"b\\\"b\",\"user_type\":\"\",\"since\":1002,"
                "\"devices\":0}],\"next\":\"2\"}");
    rh_roster_del(&r, b);
    expect_page(r, 2, 1,
                "{\"items\":[{\"user\":\"carl\",\"user_type\":\"\",\"since\":1005,"
                "\"devices\":3}],\"next\":null}");
    expect_page(r, 5, 1, "{\"items\":[],\"next\":null}");
    rh_roster_fini(&r);
    rh_mem_free(a);
    rh_mem_free(b);
    rh_mem_free(c);
}

RH_TEST(roster, a_page_ends_at_its_bytes_and_says_where_to_go_on)
{
    static struct rh_member *all[1001];
    struct rh_roster *r = NULL;
    char name[129], type[129];
    uint64_t ord = 0;
    unsigned seen = 0, pages = 0;

    memset(name, 1, 128); /* each becomes six bytes */
    memset(type, 2, 128);
    name[128] = type[128] = '\0';
    for (uint64_t i = 1; i <= 1000; i++)
        rh_roster_add(&r, all[i] = member_of(i, name, type));
    for (; seen < 1000; pages++) {
        struct rh_text *text = rh_roster_page(r, ord, 1000);
        const char *next = memmem(text->at, text->len, "\"next\":\"", 8);

        RH_OK_IF(text->len < RH_PAGE_BYTES + 2000);
        for (char *at = text->at;
             (at = memmem(at, (size_t)(text->at + text->len - at), "\"since\":", 8)) != NULL; at++)
            seen++;
        ord = next ? strtoull(next + 8, NULL, 10) : 0;
        RH_EQ_INT(next == NULL, seen == 1000);
        rh_mem_free(text);
    }
    RH_EQ_INT(pages, 2);
    rh_roster_fini(&r);
    for (uint64_t i = 1; i <= 1000; i++)
        rh_mem_free(all[i]);
}

/* Goal    who comes and goes for ever needs no more memory than who is there.
 * Method  the oldest of a hundred always leaves; after a while nothing is allocated any more. */
RH_TEST(roster, gaps_are_closed)
{
    struct rh_member *all[100] = {NULL};
    struct rh_roster *r = NULL;

    for (uint64_t i = 1; i <= 20000; i++) {
        struct rh_member **m = &all[i % RH_COUNT(all)];

        if (*m)
            rh_roster_del(&r, *m);
        else
            *m = member_of(i, "u", "");
        (*m)->ord = i;
        if (i == 1000)
            rh_mem_fail_nth(1);
        RH_EQ_INT(rh_roster_add(&r, *m), RH_OK);
    }
    RH_EQ_U64(rh_mem_fail_left(), 1);
    rh_mem_fail_nth(0);
    for (unsigned i = 0; i < RH_COUNT(all); i++)
        rh_mem_free(all[i]);
    rh_roster_fini(&r);
}

static void add_and_del(void *arg)
{
    struct rh_roster *r = NULL;
    struct rh_member *all[200];
    unsigned count = 0;
    struct rh_text *text;

    for (unsigned i = 0; i < RH_COUNT(all); i++) {
        struct rh_member *m = NULL;
        uint64_t left = rh_mem_fail_left();

        rh_mem_fail_nth(0);
        m = member_of(i + 1, "u", "");
        rh_mem_fail_nth(left);
        if (rh_roster_add(&r, m) == RH_OK)
            all[count++] = m;
        else
            rh_mem_free(m);
    }
    RH_OK_IF(count >= RH_COUNT(all) - 1);
    text = rh_roster_page(r, 0, 100);
    rh_mem_free(text);
    for (unsigned i = 0; i < count; i++) {
        rh_roster_del(&r, all[i]);
        RH_OK_IF(rh_roster_after(r, 0) == (i + 1 < count ? all[i + 1] : NULL));
        rh_mem_free(all[i]);
    }
    RH_OK_IF(!r);
}

RH_TEST(roster, failing_memory_leaves_it_as_it_was)
{
    rh_test_fail_each_alloc(add_and_del, NULL);
}
