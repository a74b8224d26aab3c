/* tests/sim/sim_wire.h - a client's end of a connection: what it still has to write, in pieces.
 *
 * Ownership  zeroed memory is a wire that is not connected; what it needs lives until the run's end.
 */
#ifndef SIM_WIRE_H
#define SIM_WIRE_H

#include "tests/sim/sim_net.h"
#include "tests/sim/sim_squeeze.h"

#define SIM_KEY "c2ltdWxhdGlvbi1rZXktMQ==" /* of every handshake */

struct sim_wire {
    struct sim_end *end; /* NULL: not connected */
    void (*step)(void *arg);
    void *arg;
    bool step_comes;
    uint8_t *out; /* to be written */
    size_t out_len, out_room;
    struct sim_squeeze squeeze;
};

/* False: nobody listens. step(arg) is called some time after something has changed. */
bool sim_wire_connect(struct sim_wire *w, unsigned id, void (*step)(void *arg), void *arg);

void sim_wire_put(struct sim_wire *w, const void *bytes, size_t len);
void sim_wire_frame(struct sim_wire *w, uint8_t opcode, bool fin, const void *at, size_t len);
/* A text or binary message, sometimes compressed where that was agreed on; `cut`: sometimes in
 * fragments, with pings between. */
void sim_wire_message(struct sim_wire *w, uint8_t opcode, const void *at, size_t len, bool cut);

/* Writes what there is room for, in pieces of any size; comes back by itself for the rest. */
void sim_wire_write(struct sim_wire *w);

#endif
