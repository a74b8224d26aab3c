/* tests/sim/sim_book.c - what was said, answered and received; see sim_book.h. */
#include "tests/sim/sim_book.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAID_MAX 16384

enum { NORMAL, HIGH, LANES };

struct party {
    bool known, lives;
    unsigned user;
    uint64_t joined_ns;
    uint64_t seq[LANES];                   /* of the last message received */
    uint32_t last[SIM_CLIENTS_MAX][LANES]; /* its number + 1, by sender */
};

static struct {
    struct party *parties;
    struct sim_said *said;
    unsigned count;
} book;

void sim_book_begin(void)
{
    book.parties = sim_keep(SIM_CLIENTS_MAX * sizeof(*book.parties));
    book.said = sim_keep(SAID_MAX * sizeof(*book.said));
    book.count = 0;
}

void sim_book_joined(unsigned client, unsigned user)
{
    struct party *p = &book.parties[client];

    SIM_CHECK(!p->known, "client %u is welcomed twice", client);
    p->known = p->lives = true;
    p->user = user;
    p->joined_ns = sim_now();
}

void sim_book_left(unsigned client)
{
    book.parties[client].lives = false;
}

bool sim_book_lives(unsigned client)
{
    return book.parties[client].lives;
}

unsigned sim_book_say(const struct sim_said *said)
{
    rh_assert(book.count < SAID_MAX && said->pad <= SIM_PAD_MAX);
    book.said[book.count] = *said;
    book.said[book.count].said_ns = sim_now();
    return book.count++;
}

size_t sim_book_content(unsigned number, char *dst)
{
    size_t len = (size_t)sprintf(dst, "m%u:", number);

    for (size_t i = 0; i < book.said[number].pad; i++)
        dst[len++] = (char)('a' + (number * 7 + i) % 26);
    return len;
}

void sim_book_answered(unsigned client, unsigned number, const char *outcome, size_t len)
{
    struct sim_said *said = &book.said[number];

    SIM_CHECK(number < book.count, "client %u: an answer to r%u, which nobody asked", client,
              number);
    SIM_CHECK(said->client == client && said->asked,
              "client %u: an answer to r%u, which it did not ask", client, number);
    SIM_CHECK(said->answers++ == 0, "client %u: a second answer to r%u", client, number);
    SIM_CHECK(len < sizeof(said->outcome), "client %u: a strange answer to r%u", client, number);
    memcpy(said->outcome, outcome, len);
    said->outcome[len] = '\0';
}

void sim_book_received(unsigned client, const char *content, size_t len, uint64_t seq)
{
    static char expected[SIM_PAD_MAX + 16];
    struct party *p = &book.parties[client];
    unsigned number = (unsigned)strtoul(content + 1, NULL, 10);
    struct sim_said *said = &book.said[number];
    unsigned lane = number < book.count && said->high ? HIGH : NORMAL;

    SIM_CHECK(number < book.count && said->is_message, "client %u got m%u, which nobody sent",
              client, number);
    SIM_CHECK(p->known && said->to_user == p->user, "client %u of u%u got m%u, which is for u%u",
              client, p->user, number, said->to_user);
    SIM_CHECK(sim_book_content(number, expected) == len && memcmp(expected, content, len) == 0,
              "client %u: the content of m%u was changed", client, number);
    SIM_CHECK(!(said->got_by >> client & 1), "client %u got m%u twice", client, number);
    SIM_CHECK(p->last[said->client][lane] <= number, "client %u got m%u behind m%u", client, number,
              p->last[said->client][lane] - 1);
    SIM_CHECK(p->seq[lane] < seq, "client %u: seq %llu of m%u is not above %llu", client,
              (unsigned long long)seq, number, (unsigned long long)p->seq[lane]);
    said->got_by |= UINT64_C(1) << client;
    p->last[said->client][lane] = number + 1;
    p->seq[lane] = seq;
}

/* A device of the receiver that was there all the time. */
static bool was_there(const struct party *p, const struct sim_said *said)
{
    return p->lives && p->user == said->to_user && p->joined_ns < said->said_ns;
}

static void check_message(unsigned number)
{
    const struct sim_said *said = &book.said[number];
    bool sent = strcmp(said->outcome, "sent") == 0;

    for (unsigned i = 0; i < SIM_CLIENTS_MAX; i++) {
        if (!was_there(&book.parties[i], said))
            continue;
        SIM_CHECK(strcmp(said->outcome, "user_offline") != 0,
                  "m%u: u%u is called offline, but client %u was there", number, said->to_user, i);
        SIM_CHECK(!sent || said->got_by >> i & 1, "m%u was sent, but client %u did not get it",
                  number, i);
    }
}

void sim_book_check_rest(void)
{
    for (unsigned number = 0; number < book.count; number++) {
        const struct sim_said *said = &book.said[number];

        SIM_CHECK(!said->asked || !book.parties[said->client].lives || said->answers == 1,
                  "client %u lives, but r%u has no answer", said->client, number);
        if (said->is_message)
            check_message(number);
    }
}

unsigned sim_book_count(void)
{
    return book.count;
}

const struct sim_said *sim_book_said(unsigned number)
{
    return &book.said[number];
}
