/* tests/sim/sim_client.h - a scripted client: a real handshake, masked frames, a way to end.
 *
 * A client follows its plan: it connects, waits for its welcome (or not), says what it has to say in
 * frames that leave in pieces of any size, answers pings and closes, and ends as planned. What it
 * hears it checks (RFC 6455 as a client must, JSON, the welcome) and tells the book.
 */
#ifndef SIM_CLIENT_H
#define SIM_CLIENT_H

#include "tests/sim/sim_book.h"
#include "tests/sim/sim_net.h"

enum sim_ending {
    SIM_STAYS,    /* until it is told to go */
    SIM_CLOSES,   /* with a close frame, and waits for the answer */
    SIM_HANGS_UP, /* closes the socket without a close frame */
    SIM_RESETS,
    SIM_SHUTS, /* its side only, and waits for the hub to end the rest */
    SIM_ENDINGS
};

struct sim_plan {
    unsigned user;
    const char *device; /* or NULL */
    uint64_t connect_ns;
    unsigned says;   /* so many things */
    unsigned users;  /* to users 0 to this - 1 */
    unsigned gap_us; /* at most this long between two; 0: all at once */
    size_t pad_max;
    uint64_t stall_ns, stall_for_ns; /* reads nothing in that time; 0: never */
    uint64_t end_ns;                 /* SIM_NEVER: when told */
    enum sim_ending ending;
    bool aims; /* at this user only, and asks for answers */
    unsigned aim;
    bool eager;  /* says the first things before it has its welcome */
    bool mute;   /* connects, and never finishes its handshake */
    bool chatty; /* pings, fragments, unknown events */
};

struct sim_client;

struct sim_client *sim_client_start(unsigned id, const struct sim_plan *plan);
void sim_client_end(struct sim_client *c, enum sim_ending ending); /* now */

/* For the cases: what has become of it. */
bool sim_client_joined(const struct sim_client *c);
bool sim_client_gone(const struct sim_client *c);
/* The code of the hub's close frame, the status of its refusal, or 0. */
unsigned sim_client_code(const struct sim_client *c);
/* It was ended by the hub, or by the network, against its plan. */
bool sim_client_dropped(const struct sim_client *c);

#endif
