/* Goal    whatever clients do and the kernel answers, in whatever order, with whatever memory: a
 *         connection's states hold, nothing leaks, and who is not to blame gets what is due.
 * Method  run the shards as they are on a seam that the input commands (fz.h tells the files).
 *         Each of its files checks what it can see; the assertions of shard/ are on; at the end
 *         all clients leave in one of four ways, and nothing at all may be left.
 * Input   bytes 0 to 2: the world (begin). Then a program: each step is a byte with the number
 *         of a client in its low three bits and the step in the others (STEPS below), and the
 *         operands that its function reads; what is missing reads as 0. A shard's number is the
 *         client's lowest bit. The kernel moves only in PASS, RUN and TIME: what stands before
 *         them comes together.
 *
 * FZ_TRACE=1 in the environment prints what happens. tests/fuzz/conn_seeds.py writes programs as
 * words. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "proto/mask.h"
#include "proto/ws.h"
#include "shard/shard.h"
#include "tests/fuzz/fz_hub.h"
#include "tests/fuzz/fz_kernel.h"
#include "tests/fuzz/fz_peer.h"
#include "tests/fuzz/fz_say.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__asan_default_options(void);

#define CLIENTS   8
#define STEPS_MAX 400
#define TIME_MAX  60000 /* ms that a program can let pass */
#define LAST_MAX  4096  /* bytes that AGAIN repeats */

static struct {
    const uint8_t *at, *end;
    struct rh_config cfg;
    struct fz_sock *clients[CLIENTS]; /* the newest connection of each */
    struct {
        uint8_t bytes[LAST_MAX];
        size_t len;
    } last[CLIENTS];
    unsigned waited_ms;
    int traces; /* -1: not asked yet */
} run = {.traces = -1};

/* Freed memory is kept for some runs instead of for hundreds: fresh memory is what costs most. */
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=4:malloc_context_size=5";
}

/* ---- talking about it ---- */

void fz_trace(const char *format, ...)
{
    va_list args;

    if (run.traces < 0)
        run.traces = getenv("FZ_TRACE") != NULL;
    if (!run.traces)
        return;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

void fz_fail(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "fuzz_conn: at %llu ms: ", (unsigned long long)fz_now_ms());
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

/* ---- reading the program ---- */

static uint8_t next(void)
{
    return run.at < run.end ? *run.at++ : 0;
}

static size_t next_bytes(const uint8_t **ret_at)
{
    size_t len = next();

    len = RH_MIN(len, (size_t)(run.end - run.at));
    *ret_at = run.at;
    run.at += len;
    return len;
}

/* ---- what clients send ---- */

static void client_send(unsigned client, const void *bytes, size_t len)
{
    size_t kept = RH_MIN(len, (size_t)LAST_MAX);

    if (!run.clients[client])
        return;
    fz_send(run.clients[client], bytes, len);
    memcpy(run.last[client].bytes, bytes, kept);
    run.last[client].len = kept;
}

#define FRAME_MAX (256 * 40)

/* first: FIN, RSV and opcode, as they are. */
static void send_frame(unsigned client, uint8_t first, const void *payload, size_t len)
{
    static const uint8_t key[] = {0x37, 0xfa, 0x21, 0x3d};
    uint8_t frame[RH_WS_HEAD_MAX + FRAME_MAX];
    size_t head = rh_ws_head(frame, first & 15, true, len, key);

    rh_assert(len <= FRAME_MAX);
    frame[0] = first;
    if (len)
        memcpy(frame + head, payload, len);
    rh_mask(frame + head, frame + head, len, key, 0);
    client_send(client, frame, head + len);
}

/* Compressed, where that was agreed on; with `cut` in two fragments. */
static void send_deflated(unsigned client, uint8_t opcode, bool cut, const void *payload,
                          size_t len)
{
    struct fz_sock *s = run.clients[client];
    size_t out_len = 0, first;
    const uint8_t *out = s ? fz_peer_deflate(s, payload, len, &out_len) : NULL;

    if (!out || out_len > FRAME_MAX) {
        send_frame(client, 0x80 | opcode, payload, len);
        return;
    }
    first = cut ? out_len / 2 : out_len;
    send_frame(client, (cut ? 0 : 0x80) | RH_WS_RSV1 | opcode, out, first);
    if (cut)
        send_frame(client, 0x80, out + first, out_len - first);
}

static void step_raw(unsigned client)
{
    const uint8_t *bytes;
    size_t len = next_bytes(&bytes);

    client_send(client, bytes, len);
}

static void step_request(unsigned client)
{
    struct fz_sock *s = run.clients[client];
    char text[FZ_SAID_MAX];
    uint8_t number = next();
    size_t len;

    if (!s)
        return;
    if (fz_say_replaces(number))
        fz_excuse_all(FZ_REPLACED);
    len = fz_say_request(text, number, next(),
                         fz_peer_session(fz_sock(s->number ? s->number - 1 : 0)));
    client_send(client, text, len);
}

static void step_frame(unsigned client)
{
    uint8_t first = next();
    const uint8_t *bytes;
    size_t len = next_bytes(&bytes);

    send_frame(client, first, bytes, len);
}

static void step_envelope(unsigned client)
{
    char text[FZ_SAID_MAX];
    uint8_t number = next();
    size_t len = fz_say_envelope(text, number & 127, next());

    if (number & 128)
        send_deflated(client, RH_WS_TEXT, false, text, len);
    else
        send_frame(client, 0x80 | RH_WS_TEXT, text, len);
}

/* A frame of up to FRAME_MAX bytes, text that is valid; with RSV1 compressed. */
static void step_big(unsigned client)
{
    static char text[FRAME_MAX];
    uint8_t first = next();

    if (!text[0])
        for (size_t i = 0; i < sizeof(text); i++)
            text[i] = (char)('a' + i % 23);
    if (first & RH_WS_RSV1)
        send_deflated(client, first & 15, !(first & 0x80), text, next() * 40u);
    else
        send_frame(client, first, text, next() * 40u);
}

/* Changes a byte that the hub has not received yet, counted from the last one. */
static void step_flip(unsigned client)
{
    struct fz_sock *s = run.clients[client];
    unsigned back = next() + 1u;
    uint8_t mask = next();

    if (s && s->sent >= s->read + back)
        fz_wire(s)[s->sent - back] ^= mask;
}

static void step_chop(unsigned client)
{
    struct fz_sock *s = run.clients[client];
    unsigned n = next();

    if (s)
        s->sent -= RH_MIN(n, s->sent - s->read);
}

static void step_again(unsigned client)
{
    unsigned times = next() % 32;

    while (times-- && run.clients[client])
        fz_send(run.clients[client], run.last[client].bytes, run.last[client].len);
}

/* ---- how clients come and go ---- */

static void knock(unsigned client, unsigned shard)
{
    run.clients[client] = fz_knock(shard % fz_hub_shards());
    run.last[client].len = 0;
}

static void step_open(unsigned client)
{
    knock(client, 0);
}

static void step_open_other(unsigned client)
{
    knock(client, 1);
}

static void step_finish(unsigned client)
{
    if (!run.clients[client])
        return;
    run.clients[client]->fin = true;
    fz_excuse(run.clients[client], FZ_FINISHED);
}

static void step_reset(unsigned client)
{
    if (!run.clients[client])
        return;
    fz_excuse(run.clients[client], FZ_ENDED);
    fz_reset(run.clients[client]);
}

static void step_close(unsigned client)
{
    if (!run.clients[client])
        return;
    fz_excuse(run.clients[client], FZ_ENDED);
    run.clients[client]->fin = run.clients[client]->gone = true;
}

/* ---- how the kernel answers ---- */

static void step_bite(unsigned client)
{
    uint8_t bite = next(), bites = next();

    if (!run.clients[client])
        return;
    run.clients[client]->bite = (uint16_t)(bite + 1);
    run.clients[client]->bites = bites % 16 + 1;
}

static void step_stop(unsigned client)
{
    uint8_t room = next();

    if (!run.clients[client])
        return;
    run.clients[client]->room = room * 16u;
    fz_excuse(run.clients[client], FZ_SLOW);
}

static void step_go(unsigned client)
{
    if (run.clients[client])
        run.clients[client]->room = FZ_ALL;
}

static void step_late(unsigned client)
{
    if (!run.clients[client])
        return;
    run.clients[client]->late_send = true;
    fz_excuse(run.clients[client], FZ_SLOW);
}

static void step_tear(unsigned client)
{
    static const int errors[] = {-EPIPE, -ECONNRESET, -ENOMEM, -ECANCELED, -ETIMEDOUT, -EINTR};
    struct fz_sock *s = run.clients[client];
    uint8_t tear = next(), error = next();

    if (!s)
        return;
    s->tear = tear;
    s->send_error = errors[error % RH_COUNT(errors)];
    fz_excuse(s, FZ_BROKEN);
}

/* -ENOBUFS and -ECANCELED are no reason to lose a connection. */
static void step_recv_error(unsigned client)
{
    static const int errors[] = {-ECANCELED, -ENOBUFS, -ENOMEM, -ECONNRESET, -ETIMEDOUT, -EINTR};
    struct fz_sock *s = run.clients[client];
    unsigned i = next() % RH_COUNT(errors);

    if (!s)
        return;
    s->recv_error = errors[i];
    if (i > 1)
        fz_excuse(s, FZ_BROKEN);
}

static void step_ends_multi(unsigned client)
{
    if (run.clients[client])
        run.clients[client]->ends_multi = true;
}

static void step_deaf(unsigned client)
{
    if (run.clients[client])
        run.clients[client]->deaf = true;
}

static void step_late_cancel(unsigned client)
{
    if (run.clients[client])
        run.clients[client]->late_cancel = true;
}

static void step_hide(unsigned client)
{
    if (run.clients[client])
        run.clients[client]->hides = true;
}

static unsigned shard_of(unsigned client)
{
    return client % fz_hub_shards();
}

static void step_order(unsigned client)
{
    fz_uring_set_order(fz_hub_ring(shard_of(client)), (enum fz_order)(client >> 1) % 3);
}

static void step_starve(unsigned client)
{
    fz_uring_starve(fz_hub_ring(shard_of(client)), next() % 32);
}

static void step_accept_error(unsigned client)
{
    static const int errors[] = {-EMFILE, -ENFILE, -ENOMEM, -ECONNABORTED, -EINTR, -EPROTO};
    uint8_t i = next();

    if (i & 128) {
        fz_excuse_all(FZ_RATE);
        fz_pass_error(shard_of(client), errors[i % 3]);
        return;
    }
    fz_accept_error(shard_of(client), errors[i % RH_COUNT(errors)]);
}

static void step_no_memory(unsigned client)
{
    rh_mem_fail_nth(next() + 1u);
}

/* ---- when something happens, and to all ---- */

static void step_pass(unsigned client)
{
    fz_hub_pass(shard_of(client));
}

static void step_run(unsigned client)
{
    fz_hub_run();
}

static void step_time(unsigned client)
{
    static const unsigned ms[] = {1, 10, 100, 260, 520, 1010, 2020, 4900};
    unsigned wait = ms[client];

    if (run.waited_ms + wait > TIME_MAX)
        return;
    run.waited_ms += wait;
    fz_hub_wait(wait);
}

static void step_drain(unsigned client)
{
    fz_hub_drain();
}

/* ---- the world ---- */

/* What the second byte and RELOAD draw. */
static void draw_limits(struct rh_config *cfg, uint8_t drawn)
{
    cfg->limits_handshakes = drawn & 1 ? 2 : 10000;
    cfg->users_max_devices = drawn & 2 ? 1 : 0;
    cfg->users_on_limit = drawn & 4 ? RH_ON_LIMIT_REJECT : RH_ON_LIMIT_KICK;
    cfg->security_rate_limit_messages_per_second = drawn & 8 ? 5 : 0;
    cfg->limits_connections = drawn & 16 ? 3 : 0;
    cfg->limits_connections_per_user = drawn & 32 ? 2 : 1000;
    cfg->resume_window_ms = drawn & 64 ? 0 : 1000;
    cfg->rooms_history_size = drawn & 128 ? 2 : 100;
    if (drawn & 2)
        fz_excuse_all(FZ_REPLACED);
    if (drawn & (8 | 16 | 32))
        fz_excuse_all(FZ_RATE);
}

static void draw_config(struct rh_config *cfg, uint8_t drawn)
{
    bool tight = drawn & 32;

    cfg->shards = drawn & 1 ? 2 : 1;
    fz_uring_set_buffers(1u << 2 * (drawn >> 1 & 3)); /* 1, 4, 16, 64 cut to what there is */
    cfg->limits_slow_consumer = (enum rh_slow_consumer)(drawn >> 3 & 3);
    cfg->limits_send_queue_messages = tight ? 2 : 256;
    cfg->limits_send_queue_bytes = tight ? 1024 : 1 << 20;
    cfg->echo_enabled = true;
    cfg->limits_message_size = 4000;
    cfg->limits_head_size = 1024;
    cfg->limits_invalid_messages = 2;
    cfg->limits_handshake_timeout_ms = 2000;
    cfg->limits_send_timeout_ms = 2000;
    cfg->heartbeat_interval_ms = 400; /* so that who is silent is parked soon */
    cfg->heartbeat_timeout_ms = 3000;
    cfg->rooms_empty_ttl_ms = 500;
    cfg->shutdown_grace_ms = 4000;
    cfg->shutdown_spread_ms = 500;
}

static void draw_compression(struct rh_config *cfg, uint8_t drawn)
{
    cfg->compression_enabled = drawn & 4;
    cfg->compression_context_takeover = drawn & 8;
    cfg->compression_window_bits = drawn & 16 ? 15 : 9;
    cfg->compression_min_size = drawn & 32 ? 200 : 20;
    cfg->compression_mem_level = 1;
}

/* Slots of each shard's table, if it has one. */
static unsigned draw_files(uint8_t drawn)
{
    static const unsigned files[] = {0, RH_TABLE_SPARE + 500, RH_TABLE_SPARE + 2,
                                     RH_TABLE_SPARE + RH_ACCEPTS + 1};
    unsigned i = drawn & 3;

    if (i > 1)
        fz_excuse_all(FZ_RATE); /* it can be full: 503 */
    return files[i];
}

static void step_reload(unsigned client)
{
    static struct rh_config want;

    fz_excuse_all(FZ_RATE);
    want = run.cfg;
    draw_limits(&want, next());
    want.limits_send_queue_messages = client & 1 ? 1 : 256;
    want.limits_send_queue_bytes = client & 2 ? 1024 : 1 << 20;
    want.heartbeat_interval_ms = client & 4 ? 700 : 400;
    fz_hub_reload(&want);
}

/* ---- steps ---- */

/* In the order of their numbers: only ever add behind. */
#define STEPS(X)                                                                                   \
    X(open)                                                                                        \
    X(open_other)                                                                                  \
    X(raw)                                                                                         \
    X(request)                                                                                     \
    X(frame)                                                                                       \
    X(envelope)                                                                                    \
    X(big)                                                                                         \
    X(flip)                                                                                        \
    X(chop)                                                                                        \
    X(again)                                                                                       \
    X(finish)                                                                                      \
    X(reset)                                                                                       \
    X(close)                                                                                       \
    X(bite)                                                                                        \
    X(stop)                                                                                        \
    X(go)                                                                                          \
    X(late)                                                                                        \
    X(tear)                                                                                        \
    X(recv_error)                                                                                  \
    X(ends_multi)                                                                                  \
    X(deaf)                                                                                        \
    X(late_cancel)                                                                                 \
    X(order)                                                                                       \
    X(starve)                                                                                      \
    X(accept_error)                                                                                \
    X(no_memory)                                                                                   \
    X(pass)                                                                                        \
    X(run)                                                                                         \
    X(time)                                                                                        \
    X(drain)                                                                                       \
    X(reload)                                                                                      \
    X(hide)

static void step(uint8_t byte)
{
    static const struct {
        const char *name;
        void (*run)(unsigned client);
    } steps[] = {
#define STEP(name) {#name, step_##name},
        STEPS(STEP)
#undef STEP
    };
    unsigned i = byte >> 3;

    if (i >= RH_COUNT(steps))
        return;
    fz_trace("%s %u", steps[i].name, byte & 7u);
    steps[i].run(byte & 7u);
}

/* ---- a run ---- */

/* Not of the run's memory: it is made once. */
static const struct rh_config *standard_config(void)
{
    static struct rh_config *standard;

    if (!standard) {
        rh_log_set_level_any(RH_LOG_ERROR + 1);
        FZ_CHECK(rh_config_create(&standard) == RH_OK, "no configuration");
        standard->store_durability = RH_DURABILITY_MEMORY;
        standard->offline_enabled = false;
    }
    return standard;
}

static void begin(void)
{
    uint8_t world;

    run.cfg = *standard_config();
    run.waited_ms = 0;
    memset(run.clients, 0, sizeof(run.clients));
    fz_kernel_begin();
    fz_mem_begin();
    fz_peers_begin(&run.cfg);
    world = next();
    draw_config(&run.cfg, world);
    draw_limits(&run.cfg, next());
    world = next();
    draw_compression(&run.cfg, world);
    fz_hub_start(&run.cfg, draw_files(world));
}

/* The kernel is kind, everybody reads: who is healthy gets what is due. */
static void rest(void)
{
    fz_trace("rest");
    fz_kernel_calm();
    fz_hub_run();
    for (unsigned i = 0; i < fz_sock_count(); i++)
        fz_peer_check_rest(fz_sock(i));
}

enum { ALL_RESET, ALL_FINISH, ALL_STAY, CUT };

static void end(unsigned how)
{
    fz_trace("end %u", how);
    for (unsigned i = 0; i < fz_sock_count() && how <= ALL_FINISH; i++) {
        struct fz_sock *s = fz_sock(i);

        fz_excuse(s, FZ_ENDED);
        if (how == ALL_RESET)
            fz_reset(s);
        s->fin = true;
    }
    fz_hub_run();
    fz_hub_stop(how == CUT);
    fz_peers_end();
    FZ_CHECK(fz_mem_live() == 0, "%llu allocations are left", (unsigned long long)fz_mem_live());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    run.at = data;
    run.end = data + size;
    begin();
    for (unsigned steps = 0; run.at < run.end && steps < STEPS_MAX; steps++)
        step(next());
    rest();
    end(size ? data[0] >> 6 : 0);
    return 0;
}
