/* tools/load/opts.h - what the command line of ringhub-bench asks for.
 *
 * Everything is checked here: whoever reads a struct load_opts may take it as possible. A wrong
 * or contradictory command line is RH_EINVAL with one sentence; the program then exits with 2.
 */
#ifndef LOAD_OPTS_H
#define LOAD_OPTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "core/ringhub.h"
#include "core/uring.h"
#include "tools/load/mix.h"

#define LOAD_CONNECTIONS_MAX 10000000
#define LOAD_PER_SOURCE      10000 /* connections from one address: more makes connect() slow */
#define LOAD_DEPTH_MAX       4096
#define LOAD_SIZE_MAX        (64u << 20)
#define LOAD_SIZE_MIN        18 /* ack, mixed: the numbers of a message and its sender */
#define LOAD_THREADS_MAX     64
#define LOAD_PATH_MAX        1024 /* of the URL, with the user's name that the tool adds */

struct load_mode;

struct load_opts {
    const struct load_mode *mode;
    const char *url; /* as given */

    char host[256]; /* for the Host field: "127.0.0.1:8080" */
    char path[LOAD_PATH_MAX];
    struct rh_addr target;

    struct rh_addr
        source; /* the first of `sources` neighbouring addresses; 0: the system's choice */
    uint32_t sources;

    uint32_t connections; /* that read; fanout: and so many more that do not */
    uint32_t slow;
    uint32_t threads; /* 0 until load_run_files has chosen */
    bool direct;      /* descriptors in the threads' rings: as files there would be too many */
    uint32_t depth;   /* closed loop, if rate is 0 */
    double rate;      /* open loop: messages a second, of all senders together */
    uint32_t size;
    uint64_t duration_ns;
    uint64_t warmup_ns;

    uint64_t drain_ns;       /* how long to wait at the end, */
    bool awaits_ends;        /* also for the ends of what nobody acknowledges */
    double silent;           /* ack, mixed: share of the receivers who never acknowledge, 0 to 1 */
    uint64_t ack_timeout_ns; /* the hub's */
    double reconnect;        /* connections cut off in a second; 0: none */
    struct load_mix mix;     /* mode ack: nothing but that */
    uint32_t room_size;      /* mixed: users of a room, an even number */

    bool broadcast; /* fanout: to all who are connected, not to a room */
    bool text;
    bool mask_zero;
    bool compress;    /* offer permessage-deflate */
    pid_t pid;        /* 0: none */
    const char *json; /* file name, "-" or NULL */
};

enum load_wish { LOAD_RUN, LOAD_HELP, LOAD_VERSION };

/* Reads the command line. The strings of `argv` are kept. RH_EINVAL: `fault` says what is wrong. */
int load_opts_parse(int argc, char **argv, struct load_opts *ret_opts, enum load_wish *ret_wish,
                    struct rh_fault *fault);

void load_opts_help(FILE *to);

/* The address that connection `number` comes from, into `ret_addr`; false: the system's choice. */
bool load_opts_source(const struct load_opts *opts, uint32_t number, struct rh_addr *ret_addr);
/* The same without a port, for a person; there are sources. */
void load_opts_source_text(const struct load_opts *opts, uint32_t number, char dst[RH_ADDR_TEXT]);

#endif
