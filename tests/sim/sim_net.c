/* tests/sim/sim_net.c - bytes on their way, ends of stream, resets; see sim_net.h. */
#include "tests/sim/sim_net.h"

#include <errno.h>
#include <string.h>

/* ---- moving ---- */

static void kick(struct sim_pipe *p);

static void changed(struct sim_end *end)
{
    if (end->changed && !end->closed)
        end->changed(end->arg);
}

static void break_end(void *arg)
{
    struct sim_end *end = arg;

    if (end->reset)
        return;
    end->reset = true;
    end->out->wrote = end->out->arrived; /* what was to be sent is lost */
    end->in.wrote = end->in.arrived;     /* and what comes behind the reset */
    if (sim_chance(500))
        end->in.took = end->in.arrived; /* and, with some luck, what was not read */
    changed(end);
}

static void reset_peer(struct sim_end *end)
{
    sim_at(sim_soon(), break_end, end->peer);
}

/* A piece arrives. */
static void arrive(void *arg)
{
    struct sim_pipe *p = arg;
    uint64_t ready = p->wrote - p->arrived;
    uint64_t space = p->recv_room - (p->arrived - p->took);
    uint64_t n = RH_MIN(ready, space);

    p->moving = false;
    if (p->stopped_ns > sim_now()) {
        kick(p);
        return;
    }
    if (n > 1 && sim_chance(400))
        n = 1 + sim_below(n);
    p->arrived += n;
    if (n && p->reader->closed) {
        p->took = p->arrived;
        reset_peer(p->reader);
    }
    if (p->fin && p->arrived == p->wrote)
        p->fin_arrived = true;
    changed(p->reader);
    if (n)
        changed(p->writer);
    kick(p);
}

static void kick(struct sim_pipe *p)
{
    bool bytes = p->wrote > p->arrived && p->arrived - p->took < p->recv_room;
    bool end = p->fin && !p->fin_arrived && p->wrote == p->arrived;

    if (p->moving || p->writer->reset || !(bytes || end))
        return;
    p->moving = true;
    sim_at(RH_MAX(sim_soon(), p->stopped_ns), arrive, p);
}

/* ---- life ---- */

static void pipe_init(struct sim_end *reader, struct sim_end *writer)
{
    struct sim_pipe *p = &reader->in;

    p->send_room = sim_knobs.send_room;
    p->recv_room = sim_knobs.recv_room;
    p->room = p->send_room + p->recv_room;
    p->at = sim_keep(p->room);
    p->reader = reader;
    p->writer = writer;
    writer->out = p;
    writer->peer = reader;
}

struct sim_end *sim_net_connect(unsigned id)
{
    struct sim_end *client = sim_keep(sizeof(*client));
    struct sim_end *server = sim_keep(sizeof(*server));

    pipe_init(client, server);
    pipe_init(server, client);
    client->id = server->id = id;
    server->server = true;
    return client;
}

/* ---- reading and writing ---- */

bool sim_readable(const struct sim_end *end)
{
    return end->in.arrived > end->in.took || end->in.fin_arrived || end->reset || end->shut_in;
}

static uint64_t write_room(const struct sim_end *end)
{
    return end->out->send_room - (end->out->wrote - end->out->arrived);
}

bool sim_writable(const struct sim_end *end)
{
    return write_room(end) > 0 || end->reset || end->shut_out;
}

/* The first to ask hears of the reset, who asks again of its consequence. */
static int broken(struct sim_end *end, int again)
{
    int rc = end->told ? again : -ECONNRESET;

    end->told = true;
    return rc;
}

int sim_read(struct sim_end *end, void *dst, size_t room)
{
    struct sim_pipe *p = &end->in;
    uint64_t n = RH_MIN(p->arrived - p->took, (uint64_t)room);

    rh_assert(!end->closed && room);
    for (uint64_t i = 0; i < n; i++)
        ((uint8_t *)dst)[i] = p->at[(p->took + i) % p->room];
    p->took += n;
    if (n) {
        kick(p);
        return (int)n;
    }
    if (end->reset)
        return broken(end, 0);
    return p->fin_arrived || end->shut_in ? 0 : -EAGAIN;
}

int sim_write(struct sim_end *end, const void *bytes, size_t len)
{
    struct sim_pipe *p = end->out;
    uint64_t n = RH_MIN(write_room(end), (uint64_t)len);

    rh_assert(!end->closed);
    if (end->reset)
        return broken(end, -EPIPE);
    if (end->shut_out)
        return -EPIPE;
    for (uint64_t i = 0; i < n; i++)
        p->at[(p->wrote + i) % p->room] = ((const uint8_t *)bytes)[i];
    p->wrote += n;
    kick(p);
    return (int)n;
}

/* ---- ending ---- */

void sim_shut(struct sim_end *end, bool in, bool out)
{
    end->shut_in |= in;
    end->shut_out |= out;
    end->out->fin |= out;
    kick(end->out);
    changed(end);
}

void sim_close(struct sim_end *end, bool abort)
{
    struct sim_pipe *in = &end->in;

    rh_assert(!end->closed);
    end->closed = true;
    if (end->reset)
        return;
    if (abort || in->arrived > in->took) {
        end->out->wrote = end->out->arrived;
        in->took = in->arrived;
        reset_peer(end);
        return;
    }
    end->out->fin = true;
    kick(end->out);
    kick(in);
}
