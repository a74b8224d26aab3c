/* tests/sim/sim_squeeze.h - a client's end of permessage-deflate, and what the hub is told about it.
 *
 * Whether a client offers it, with which parameters, and which of its messages it compresses is drawn.
 * What it hears it inflates as it was agreed on, so a context that does not fit is damaged data.
 */
#ifndef SIM_SQUEEZE_H
#define SIM_SQUEEZE_H

#include "core/config.h"
#include "proto/deflate.h"
#include "proto/ws.h"

/* Zeroed: nothing was offered. */
struct sim_squeeze {
    struct rh_deflate_ask ask;
    bool asks, agreed;
    struct rh_deflater *out;
    struct rh_inflater *in;
    struct sim_squeeze *next; /* of all that have memory */
};

/* Off, or on with settings of any kind. */
void sim_squeeze_config(struct rh_config *cfg);

void sim_squeeze_begin(void); /* a run: nobody has anything */
void sim_squeeze_end(void);   /* frees what clients have */

/* Draws an offer; NULL: none. */
const struct rh_deflate_ask *sim_squeeze_offer(struct sim_squeeze *s);
/* The answer's whole head, as rh_upgrade_answer; sets `ws` up where it is a 101. */
int sim_squeeze_answer(struct sim_squeeze *s, const uint8_t *at, size_t len, const char key[24],
                       struct rh_ws *ws, uint64_t size_max);
/* Inflates a whole message where it lies; returns its new length, at most `room`. */
size_t sim_squeeze_inflate(struct sim_squeeze *s, void *at, size_t len, size_t room);
/* A message that is about to be said, compressed; false: it goes as it is. Lent until the next. */
bool sim_squeeze_deflate(struct sim_squeeze *s, const void *at, size_t len,
                         struct rh_deflate_out *ret_out);

#endif
