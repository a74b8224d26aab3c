/* tests/sim/sim_squeeze.c - a client's end of permessage-deflate; see sim_squeeze.h. */
#include "tests/sim/sim_squeeze.h"

#include <string.h>

#include "proto/upgrade.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_case.h"

static struct sim_squeeze *all;
static struct rh_deflate_out buffer;

void sim_squeeze_config(struct rh_config *cfg)
{
    cfg->compression_enabled = sim_chance(600);
    cfg->compression_context_takeover = sim_chance(400);
    cfg->compression_min_size = SIM_ONE_OF(0, 1, 100, 512);
    cfg->compression_window_bits = 9 + (uint32_t)sim_below(7);
    cfg->compression_mem_level = 1 + (uint32_t)sim_below(9);
    cfg->compression_level = 1 + (uint32_t)sim_below(9);
}

void sim_squeeze_begin(void)
{
    all = NULL;
}

void sim_squeeze_end(void)
{
    for (; all; all = all->next) {
        rh_deflater_destroy(all->out);
        rh_inflater_destroy(all->in);
        all->out = NULL;
        all->in = NULL;
    }
    rh_deflate_out_trim(&buffer, 0);
}

const struct rh_deflate_ask *sim_squeeze_offer(struct sim_squeeze *s)
{
    s->asks = sim_chance(500);
    if (!s->asks)
        return NULL;
    s->ask.server_forgets = sim_chance(200);
    s->ask.client_forgets = sim_chance(200);
    s->ask.server_bits = (uint8_t)SIM_ONE_OF(0, 0, 0, 8, 9, 12, 15);
    s->ask.client_bits = (uint8_t)SIM_ONE_OF(0, RH_DEFLATE_ANY, RH_DEFLATE_ANY, 9, 12, 15);
    return &s->ask;
}

int sim_squeeze_answer(struct sim_squeeze *s, const uint8_t *at, size_t len, const char key[24],
                       struct rh_ws *ws, uint64_t size_max)
{
    struct rh_deflate_terms terms = {0};
    int used = rh_upgrade_answer((const char *)at, len, key, s->asks ? &s->ask : NULL, &terms);

    if (used <= 0)
        return used;
    rh_ws_init(ws, RH_WS_CLIENT, size_max);
    s->agreed = terms.server_bits != 0;
    if (!s->agreed)
        return used;
    rh_ws_allow_deflate(ws);
    SIM_CHECK(rh_inflater_create(terms.server_bits, terms.server_keeps, &s->in) == 0 &&
                  rh_deflater_create(RH_MAX(terms.client_bits, RH_DEFLATE_BITS_MIN),
                                     1 + (unsigned)sim_below(9), 1 + (unsigned)sim_below(9),
                                     terms.client_keeps, &s->out) == 0,
              "no memory for a client");
    s->next = all;
    all = s;
    return used;
}

size_t sim_squeeze_inflate(struct sim_squeeze *s, void *at, size_t len, size_t room)
{
    int rc = rh_inflate(s->in, at, len, room, &buffer);

    SIM_CHECK(rc == 0, "what the hub compressed cannot be read (%d)", rc);
    SIM_CHECK(buffer.len > len, "compressed from %zu to %zu bytes", buffer.len, len);
    memcpy(at, buffer.at, buffer.len);
    return buffer.len;
}

bool sim_squeeze_deflate(struct sim_squeeze *s, const void *at, size_t len,
                         struct rh_deflate_out *ret_out)
{
    if (!s->agreed || !sim_chance(700))
        return false;
    SIM_CHECK(rh_deflate(s->out, at, len, &buffer) == 0, "no memory for a client");
    *ret_out = buffer;
    return true;
}
