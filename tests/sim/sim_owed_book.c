/* tests/sim/sim_owed_book.c - the book of what is owed; see sim_owed.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_owed.h"
#include "tests/sim/sim_read.h"

#define GONE SIM_S /* after so long the hub knows that a client has gone */

struct owed_rules owed_rules;

static struct {
    struct owed_msg *msgs;
    struct owed_ask *asks;
    unsigned count, ask_count, run;
    uint64_t top[OWED_USERS];     /* the highest seq of earlier runs */
    uint64_t seq_max[OWED_USERS]; /* and of all */
    uint64_t
        left_ns[OWED_USERS];    /* a link of this user ended last: who knows what was on its way */
    unsigned rooms[OWED_USERS]; /* that it may be in, as bits */
    uint64_t lost[OWED_USERS];  /* messages that were told lost */
} book;

void owed_book_begin(void)
{
    memset(&book, 0, sizeof(book));
    book.msgs = sim_keep(OWED_MSGS * sizeof(*book.msgs));
    book.asks = sim_keep(OWED_ASKS * sizeof(*book.asks));
}

unsigned owed_run(void)
{
    return book.run;
}

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* ---- messages and their names ---- */

struct owed_msg *owed_new(const struct owed_msg *msg)
{
    struct owed_msg *m;

    if (book.count >= OWED_MSGS)
        return NULL;
    m = &book.msgs[book.count++];
    *m = *msg;
    m->run = book.run;
    m->asked_ns = sim_now();
    if (m->given)
        snprintf(m->id, sizeof(m->id), "g%u", book.count - 1);
    return m;
}

unsigned owed_count(void)
{
    return book.count;
}

struct owed_msg *owed_at(unsigned number)
{
    return &book.msgs[number];
}

unsigned owed_number(const struct owed_msg *msg)
{
    return (unsigned)(msg - book.msgs);
}

size_t owed_content(unsigned number, char *dst)
{
    size_t len = (size_t)sprintf(dst, "m%u:", number);

    for (size_t i = 0; i < book.msgs[number].pad; i++)
        dst[len++] = (char)('a' + (number + i) % 26);
    dst[len] = '\0';
    return len;
}

static struct owed_msg *of_content(const struct owed_link *link, struct rh_json data)
{
    static char want[16384];
    struct rh_span content = sim_get_raw(data, "content");
    unsigned number = content.len > 1 ? (unsigned)strtoul(content.at + 1, NULL, 10) : 0;
    size_t len;

    SIM_CHECK(content.len && content.at[0] == 'm' && number < book.count,
              "link %u hears what nobody said", link->number);
    len = owed_content(number, want);
    SIM_CHECK(len == content.len && memcmp(want, content.at, len) == 0, "link %u: m%u was changed",
              link->number, number);
    return &book.msgs[number];
}

static struct owed_msg *of_id(const char *id)
{
    for (unsigned i = 0; i < book.count; i++)
        if (is(book.msgs[i].id, id))
            return &book.msgs[i];
    return NULL;
}

/* ---- asks and answers ---- */

unsigned owed_asked(struct owed_msg *msg, struct owed_link *link)
{
    struct owed_ask *ask = &book.asks[book.ask_count];

    rh_assert(book.ask_count < OWED_ASKS);
    *ask = (struct owed_ask){.msg = msg, .link = link};
    msg->asks++;
    return book.ask_count++;
}

static bool may_refuse(const struct owed_msg *m, const char *error)
{
    if (is(error, "queue_full"))
        return owed_rules.tight || owed_rules.failing;
    if (is(error, "store_failed"))
        return owed_rules.full || owed_rules.failing ||
               (owed_rules.durable && (owed_rules.faulty || owed_rules.stalling));
    if (is(error, "forbidden") || is(error, "not_found"))
        return m->in_room; /* it is no member yet, or not any more */
    return (is(error, "unavailable") || is(error, "internal")) && owed_rules.failing && m;
}

static void note_ok(struct owed_link *link, struct owed_msg *m, struct rh_json data)
{
    char id[72], status[24];

    sim_get_text(data, "id", id, sizeof(id));
    sim_get_text(data, "status", status, sizeof(status));
    SIM_CHECK(m->in_room || is(status, "sent") || is(status, "stored"), "link %u: m%u is %s",
              link->number, owed_number(m), status);
    SIM_CHECK(id[0] && (!m->id[0] || is(m->id, id)), "link %u: m%u has the id %s, and had %s",
              link->number, owed_number(m), id, m->id);
    snprintf(m->id, sizeof(m->id), "%s", id);
    snprintf(m->outcome, sizeof(m->outcome), "%s", status);
    if (!m->oks++)
        m->answered_ns = sim_now();
}

void owed_answered(struct owed_link *link, unsigned number, const char *error, struct rh_json data)
{
    struct owed_ask *ask = &book.asks[number];
    struct owed_msg *m = ask->msg;

    SIM_CHECK(number < book.ask_count && ask->link == link && !ask->answered,
              "link %u: a strange answer q%u", link->number, number);
    ask->answered = true;
    sim_trace("link %u: q%u for m%u is %s", link->number, number, owed_number(m),
              error ? error : "well");
    if (!error) {
        note_ok(link, m, data);
        return;
    }
    SIM_CHECK(may_refuse(m, error), "link %u: m%u is refused: %s", link->number, owed_number(m),
              error);
    m->refusals++;
    m->perhaps |= is(error, "store_failed");
    SIM_CHECK(!m->got || m->perhaps || m->oks || m->asks > 1, "m%u was refused (%s), and heard",
              owed_number(m), error);
}

/* ---- what is heard ---- */

/* It was refused, or may have been, while it was owed already: said again, it is another one. */
static bool vague(const struct owed_msg *m)
{
    return m->asks > 1 && (owed_rules.faulty || owed_rules.stalling || owed_rules.failing);
}

static void check_attempt(struct owed_link *link, struct owed_msg *m, uint64_t attempt)
{
    unsigned number = owed_number(m);

    if (m->heard_run != book.run) {
        memset(m->heard_ns, 0, sizeof(m->heard_ns));
        m->heard_run = book.run;
    }
    if (vague(m))
        return;
    SIM_CHECK(attempt >= 1, "m%u has no attempt", number);
    SIM_CHECK(attempt > m->least || link->run < book.run,
              "m%u comes again under attempt %llu, behind %u", number, (unsigned long long)attempt,
              m->least);
    if (attempt >= OWED_ATTEMPTS)
        return;
    SIM_CHECK(attempt > link->attempts[number], "link %u: m%u attempt %llu behind %u", link->number,
              number, (unsigned long long)attempt, link->attempts[number]);
    link->attempts[number] = (uint8_t)attempt;
    if (link->run < book.run || m->in_room)
        return; /* it was on its way when the hub died */
    for (uint64_t a = attempt; a < OWED_ATTEMPTS && m->ack; a++)
        SIM_CHECK(!m->heard_ns[a] || m->heard_ns[a] >= link->began_ns,
                  "link %u: m%u attempt %llu, and %llu was heard before it began", link->number,
                  number, (unsigned long long)attempt, (unsigned long long)a);
    if (!m->heard_ns[attempt])
        m->heard_ns[attempt] = sim_now();
}

static void check_seq(struct owed_link *link, struct owed_msg *m, uint64_t seq, uint64_t attempt)
{
    unsigned number = owed_number(m);

    SIM_CHECK(seq && (!m->seq || m->seq == seq || m->asks > 1), "m%u has two numbers", number);
    SIM_CHECK(m->run < book.run || seq > book.top[m->to], "m%u has a number of an earlier run",
              number);
    m->seq = seq;
    book.seq_max[m->to] = RH_MAX(book.seq_max[m->to], seq);
    if (attempt > 1 || m->got)
        return;
    SIM_CHECK(seq > link->seq[m->high], "link %u: m%u out of order", link->number, number);
    link->seq[m->high] = seq;
}

struct owed_msg *owed_heard(struct owed_link *link, struct rh_json data, bool in_room)
{
    struct owed_msg *m = of_content(link, data);
    uint64_t attempt = sim_get_u64(data, "attempt");
    unsigned number = owed_number(m), user = link->dev->user;
    bool ack = m->ack && !(in_room && m->from == user);
    char id[72], from[16], want[16];

    sim_trace("link %u: gets m%u attempt %llu", link->number, number, (unsigned long long)attempt);
    SIM_CHECK(m->in_room == in_room && (in_room ? book.rooms[user] >> m->to & 1 : m->to == user),
              "link %u: m%u is for others", link->number, number);
    SIM_CHECK(sim_get_true(data, "ack") == ack || (in_room && owed_rules.failing),
              "m%u: ack is wrong: %s", number, link->text);
    sim_get_text(data, "id", id, sizeof(id));
    snprintf(want, sizeof(want), "u%u", m->from);
    SIM_CHECK(is(sim_get_text(data, "from", from, sizeof(from)), want), "m%u is from %s", number,
              from);
    SIM_CHECK(!m->id[0] || is(m->id, id), "m%u has the id %s, and had %s", number, id, m->id);
    snprintf(m->id, sizeof(m->id), "%s", id);
    SIM_CHECK(!m->void_ || link->run < book.run, "m%u comes from a run that kept nothing", number);
    SIM_CHECK(!m->refusals || m->oks || m->perhaps || m->asks > m->refusals,
              "m%u was refused, and is heard", number);
    SIM_CHECK(!m->end || m->end_ns >= link->began_ns || vague(m),
              "link %u: m%u had ended (%d) before the link began", link->number, number, m->end);
    check_attempt(link, m, attempt);
    if (!in_room)
        check_seq(link, m, sim_get_u64(data, "seq"), attempt);
    m->got++;
    m->got_by |= 1u << user;
    return ack ? m : NULL;
}

/* This link alone asked for it, and has no answer yet. */
static bool awaits_answer(const struct owed_link *link, const struct owed_msg *m)
{
    unsigned here = 0, elsewhere = 0;

    for (unsigned i = 0; i < book.ask_count && !m->oks; i++) {
        const struct owed_ask *ask = &book.asks[i];

        if (ask->msg == m && !ask->answered)
            *(ask->link == link ? &here : &elsewhere) += 1;
    }
    return here && !elsewhere;
}

static void check_count(const struct owed_msg *m, enum owed_end end, struct rh_json data)
{
    uint64_t recipients = m->in_room ? sim_get_u64(data, "recipients") : 1;
    uint64_t said = m->in_room ? sim_get_u64(data, "acknowledged") : end == OWED_SUCCESS;

    SIM_CHECK(said <= (unsigned)__builtin_popcount(m->acked_by & ~(m->in_room << m->from)),
              "m%u is acknowledged by %llu users, by whom?", owed_number(m),
              (unsigned long long)said);
    SIM_CHECK((end == OWED_SUCCESS) == (said == recipients),
              "m%u: %llu of %llu users, and state %d", owed_number(m), (unsigned long long)said,
              (unsigned long long)recipients, (int)end);
}

void owed_status(struct owed_link *link, struct rh_json data)
{
    char id[72], status[24], reason[24];
    struct owed_msg *m = of_id(sim_get_text(data, "id", id, sizeof(id)));
    enum owed_end end;

    sim_get_text(data, "status", status, sizeof(status));
    sim_get_text(data, "reason", reason, sizeof(reason));
    sim_trace("link %u: %s is %s %s", link->number, id, status, reason);
    if (!m) { /* an answer that did not come told no id */
        SIM_CHECK(id[0] != 'g', "a status of %s", id);
        return;
    }
    end = is(status, "success") ? OWED_SUCCESS : OWED_FAILED;
    SIM_CHECK(m->ack && m->from == link->dev->user, "link %u: a status of m%u", link->number,
              owed_number(m));
    SIM_CHECK(!awaits_answer(link, m) || vague(m), "link %u: m%u has a status before its answer",
              link->number, owed_number(m));
    SIM_CHECK(!m->end || m->end == end || vague(m), "m%u ends twice: %d, %s", owed_number(m),
              m->end, status);
    check_count(m, end, data);
    SIM_CHECK(!is(reason, "expired") || owed_rules.expires, "m%u has expired", owed_number(m));
    if (m->end)
        return;
    m->end = end;
    m->end_ns = sim_now();
    m->end_run = book.run;
}

void owed_lost(struct owed_link *link, struct rh_json data)
{
    uint64_t count = sim_get_u64(data, "count");

    sim_trace("link %u: lost %llu", link->number, (unsigned long long)count);
    SIM_CHECK(count && (owed_rules.tight || owed_rules.failing || owed_rules.expires),
              "link %u is told of a loss without a reason", link->number);
    book.lost[link->dev->user] += count;
}

void owed_member(unsigned user, unsigned rooms)
{
    book.rooms[user] |= rooms;
}

void owed_link_ended(struct owed_link *link)
{
    if (link->run == book.run) /* else it ended with the hub */
        book.left_ns[link->dev->user] = sim_now();
}

/* ---- a crash ---- */

static void end_run_of(struct owed_msg *m)
{
    /* On a disk that does not fail all is durable by then, in some turns of its. */
    uint64_t committed = 300 * SIM_MS + 20 * sim_knobs.delay_us * SIM_US;
    bool sure = !owed_rules.faulty && !owed_rules.stalling && !owed_rules.failing;

    m->over |= !m->ack || owed_rules.expires || (m->in_room && owed_rules.tight) ||
               m->asked_ns + owed_rules.patience_ns <= sim_now();
    if (!owed_rules.durable) {
        m->void_ = true;
        return;
    }
    if (!m->ack || m->in_room || m->heard_run != book.run || !sure)
        return;
    for (uint32_t a = 1; a < OWED_ATTEMPTS; a++)
        if (m->heard_ns[a] && m->heard_ns[a] + committed < sim_now())
            m->least = RH_MAX(m->least, a);
}

void owed_book_crash(void)
{
    for (unsigned i = 0; i < book.count; i++)
        end_run_of(&book.msgs[i]);
    for (unsigned u = 0; u < OWED_USERS; u++)
        book.top[u] = book.seq_max[u];
    book.run++;
}

/* ---- at rest ---- */

/* What was on its way to this user since then may have ended with a connection, or was dropped. */
static bool excused(const struct owed_msg *m, unsigned user)
{
    return m->over || book.left_ns[user] >= m->asked_ns || book.lost[user] || owed_rules.failing;
}

/* Who had gone well before it could end was told of that end later. */
static bool sender_excused(const struct owed_msg *m)
{
    bool later = !m->in_room && !owed_rules.expires && !owed_rules.stalling && !owed_rules.faulty;
    uint64_t ended_ns = m->asked_ns + owed_rules.patience_ns;

    if (later && !m->over && !book.lost[m->from] && !owed_rules.failing)
        return book.left_ns[m->from] + GONE >= ended_ns;
    return excused(m, m->from);
}

static void check_acked(const struct owed_msg *m)
{
    bool told = m->end == OWED_FAILED || (m->in_room && m->end);

    /* Success is told to who is connected: after a start nobody is, at first. */
    if (m->got && m->acked_by && (!m->in_room || m->run < book.run))
        return;
    SIM_CHECK(told || sender_excused(m), "m%u is owed, %s, and nobody was told", owed_number(m),
              m->got ? "was not acknowledged" : "never came");
    SIM_CHECK(told || m->got || m->in_room || owed_rules.expires || excused(m, m->to),
              "m%u is owed, and never came", owed_number(m));
}

void owed_check_rest(void)
{
    for (unsigned i = 0; i < book.count; i++) {
        const struct owed_msg *m = &book.msgs[i];

        if (!m->oks || m->void_)
            continue;
        if (m->ack)
            check_acked(m);
        else if (!m->in_room)
            SIM_CHECK(m->got || excused(m, m->to) || m->ttl_ms || owed_rules.expires,
                      "m%u was %s, and never came", i, m->outcome);
    }
    for (unsigned i = 0; i < book.ask_count; i++) {
        const struct owed_ask *ask = &book.asks[i];

        SIM_CHECK(ask->answered || ask->link->state != OWED_TALKS || ask->link->said_close,
                  "q%u has no answer", i);
    }
}
