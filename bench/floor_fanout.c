/* bench/floor_fanout.c - the floor under a room: the least code that hands one message to many.
 *
 * What ringhub's own CPU per delivery is measured against. It receives and sends through the same
 * seam with the same settings as a shard, and speaks as much of the protocol as mode fanout of
 * ringhub-bench needs to find every byte right: welcome and room.subscribed at connect, an answer
 * to each room.publish, and to everybody connected a room.message with the right room, sender,
 * number and content. It looks at no envelope: it knows that whoever sends is the publisher, that
 * frames are masked with the key 0 (--mask-zero), and where in them number and content stand.
 *
 * A batch    Everything that was published when it gets to it becomes one run of bytes, in which
 *            each message is written once, and each subscriber gets all of that in one send. At
 *            most SENDS of them are queued between two looks at completions. The next batch begins
 *            when the last subscriber has this one, so depth and not luck decides how large it is.
 *
 * Usage      floor_fanout --listen 127.0.0.1:PORT --size 64 [--text 260] [--cpu 0]
 *            --text is the length of a message's JSON (ringhub's), filled up with spaces.
 * Limits     sizes up to 60000; one room and one publisher at a time; a client's mistake is
 *            answered by closing.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "core/mem.h"
#include "core/uring.h"
#include "proto/json.h"
#include "proto/upgrade.h"
#include "proto/ws.h"

#define SIZE_MOST  60000
#define CONNS_MAX  65536
#define HEAD_ROOM  2048
#define REAP       256
#define BUSY       16   /* as in shard.c: so many completions, then there may be more */
#define SENDS      2000 /* of a batch in one pass */
#define CLOSE_BYTE (0x80 | RH_WS_OP_CLOSE)
#define KEY_SIZE   4
#define NAME_ROOM  64
#define DIGITS_MAX 20

#define PUBLISH_HEAD "{\"type\":\"request\",\"event\":\"room.publish\",\"request_id\":\""
#define PUBLISH_TAIL "\"}}"

struct bytes {
    uint8_t *at;
    size_t len, room;
};

struct conn {
    int fd;
    unsigned place; /* in subscribers[], if open */
    bool open;      /* upgraded, and subscribed */
    bool receiving, sending, fanning, dead, dirty;
    char user[NAME_ROOM], room[NAME_ROOM];
    struct bytes in;          /* a head or frame that has not come whole yet */
    struct bytes out, flight; /* of its own: being filled, with the kernel */
};

static struct {
    struct rh_uring *uring;
    int listener;
    struct rh_addr peer;
    struct conn *dirty[CONNS_MAX];
    unsigned dirty_count;
    struct conn *subscribers[CONNS_MAX];
    unsigned count;
    struct bytes next, batch; /* being filled, with the kernel for everybody */
    unsigned cursor;          /* these have it, or it is on its way to them */
    unsigned fanning;         /* sends of it that have not completed */
    size_t size;              /* of a payload */
    size_t text;              /* of a message, at least */

    /* Of the room's publisher, and what stands before and behind a message's content. */
    const struct conn *publisher;
    uint64_t seq;
    char before[256], behind[256];
    size_t before_len, behind_len;
} server;

enum { ACCEPT, RECV, SEND, FAN }; /* in a tag, above the connection's address */

static uint64_t tag(const struct conn *c, unsigned op)
{
    return (uint64_t)(uintptr_t)c << 2 | op; /* addresses have 57 bits at most */
}

static struct conn *conn_of(uint64_t from)
{
    return (struct conn *)(uintptr_t)(from >> 2); // NOLINT(performance-no-int-to-ptr): a tag
}

static uint8_t *add(struct bytes *b, size_t len)
{
    if (b->len + len > b->room) {
        size_t room = RH_MAX(2 * b->room, b->len + len + 256);
        void *more = rh_mem_realloc(b->at, room);

        rh_assert(more); /* a yardstick may give up */
        b->at = more;
        b->room = room;
    }
    b->len += len;
    return b->at + b->len - len;
}

static void make_dirty(struct conn *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    rh_assert(server.dirty_count < CONNS_MAX);
    server.dirty[server.dirty_count++] = c;
}

/* ---- who is there ---- */

static void put(struct conn *c, unsigned place)
{
    server.subscribers[place] = c;
    c->place = place;
}

/* Before the cursor: what is on its way is not for it. */
static void subscribe(struct conn *c)
{
    rh_assert(server.count < CONNS_MAX);
    if (server.cursor < server.count)
        put(server.subscribers[server.cursor], server.count);
    put(c, server.cursor++);
    server.count++;
    c->open = true;
}

static void unsubscribe(struct conn *c)
{
    unsigned hole = c->place;

    if (hole < server.cursor) { /* those before the cursor stay before it */
        server.cursor--;
        put(server.subscribers[server.cursor], hole);
        hole = server.cursor;
    }
    server.count--;
    if (hole < server.count)
        put(server.subscribers[server.count], hole);
    c->open = false;
}

static void end(struct conn *c)
{
    if (!c->dead)
        rh_uring_shutdown(server.uring, c->fd, SHUT_RDWR);
    c->dead = true;
    if (c->open)
        unsubscribe(c);
    if (c->receiving || c->sending || c->fanning || c->dirty)
        return;
    if (server.publisher == c)
        server.publisher = NULL;
    rh_uring_close(server.uring, c->fd);
    rh_mem_free(c->in.at);
    rh_mem_free(c->out.at);
    rh_mem_free(c->flight.at);
    rh_mem_free(c);
}

static void add_text(struct bytes *b, const char *text, size_t len)
{
    uint8_t head[RH_WS_HEAD_MAX];
    size_t head_len = rh_ws_head(head, RH_WS_TEXT, true, len, NULL);

    memcpy(add(b, head_len), head, head_len);
    memcpy(add(b, len), text, len);
}

/* ---- the handshake ---- */

static bool read_name(struct rh_span query, const char *key, char *dst)
{
    const char *end = query.at + query.len;
    const char *at = memmem(query.at, query.len, key, strlen(key));
    size_t len = 0;

    if (!at)
        return false;
    for (at += strlen(key); at + len < end && at[len] != '&'; len++)
        if (len == NAME_ROOM - 1)
            return false;
    memcpy(dst, at, len);
    dst[len] = '\0';
    return true;
}

static void greet(struct conn *c)
{
    static const char welcome[] = "{\"type\":\"notify\",\"event\":\"welcome\",\"data\":{}}";
    char text[256];
    int len =
        snprintf(text, sizeof(text),
                 "{\"type\":\"notify\",\"event\":\"room.subscribed\",\"data\":{\"room\":\"%s\","
                 "\"members\":1,\"seq\":0,\"epoch\":\"floor\"}}",
                 c->room);

    add_text(&c->out, welcome, sizeof(welcome) - 1);
    add_text(&c->out, text, (size_t)len);
    make_dirty(c);
}

static void upgrade(struct conn *c, const uint8_t *at, size_t len)
{
    struct rh_http_head head;
    struct rh_upgrade up;
    const char *why;
    char answer[512];
    size_t answer_len;
    int rc;

    memcpy(add(&c->in, len), at, len);
    rc = rh_http_parse((char *)c->in.at, c->in.len, HEAD_ROOM, NULL, &head, &why);
    if (rc == 0)
        return;
    if (rc < 0 || rh_upgrade_check(&head, NULL, &up, &why) != 0 ||
        !read_name(head.query, "user_id=", c->user) || !read_name(head.query, "rooms=", c->room)) {
        end(c);
        return;
    }
    answer_len = rh_upgrade_response(answer, sizeof(answer), &up);
    memcpy(add(&c->out, answer_len), answer, answer_len);
    c->in.len = 0; /* a client waits for the answer: nothing follows the head */
    greet(c);
    subscribe(c);
}

/* ---- a publish ---- */

/* What every message of this publisher has in common; its room is new. */
static void set_publisher(const struct conn *c)
{
    server.publisher = c;
    server.seq = 0;
    server.before_len =
        (size_t)snprintf(server.before, sizeof(server.before),
                         ",\"room\":\"%s\",\"id\":\"00000000000000000000000000000000\",\"from\":\"%"
                         "s\",\"content\":\"",
                         c->room, c->user);
    server.behind_len = (size_t)snprintf(
        server.behind, sizeof(server.behind),
        "\",\"ack\":false,\"attempt\":1,\"priority\":\"normal\",\"created_at\":1700000000000},"
        "\"timestamp\":1700000000000");
}

static void add_message(const uint8_t *content)
{
    static const char begin[] =
        "{\"type\":\"notify\",\"event\":\"room.message\",\"data\":{\"seq\":";
    char number[DIGITS_MAX + 1];
    size_t digits =
        (size_t)snprintf(number, sizeof(number), "%llu", (unsigned long long)server.seq);
    size_t len = sizeof(begin) + digits + server.before_len + server.size + server.behind_len;
    size_t pad = server.text > len ? server.text - len : 0, head_len;
    uint8_t head[RH_WS_HEAD_MAX];
    struct rh_writer w;

    head_len = rh_ws_head(head, RH_WS_TEXT, true, len + pad, NULL);
    rh_writer_init(&w, add(&server.next, head_len + len + pad), head_len + len + pad);
    rh_put(&w, head, head_len);
    rh_put(&w, begin, sizeof(begin) - 1);
    rh_put(&w, number, digits);
    rh_put(&w, server.before, server.before_len);
    rh_put(&w, content, server.size);
    rh_put(&w, server.behind, server.behind_len);
    memset(w.at, ' ', pad);
    w.at += pad;
    RH_PUT(&w, "}");
    rh_assert(!w.full && w.at == w.end);
}

static void add_answer(struct conn *c, const char *id, size_t id_len)
{
    char text[256];
    int len =
        snprintf(text, sizeof(text),
                 "{\"type\":\"response\",\"request_id\":\"%.*s\",\"code\":200,\"message\":\"OK\","
                 "\"data\":{\"id\":\"00000000000000000000000000000000\",\"seq\":%llu,"
                 "\"recipients\":%u},\"timestamp\":1700000000000}",
                 (int)id_len, id, (unsigned long long)server.seq, server.count);

    add_text(&c->out, text, (size_t)len);
    make_dirty(c);
}

static bool publish(struct conn *c, const char *text, size_t len)
{
    const char *id = text + sizeof(PUBLISH_HEAD) - 1;
    size_t least = sizeof(PUBLISH_HEAD) - 1 + server.size + sizeof(PUBLISH_TAIL) - 1, digits = 0;

    if (len < least + DIGITS_MAX || memcmp(text, PUBLISH_HEAD, sizeof(PUBLISH_HEAD) - 1) != 0)
        return false;
    while (digits < DIGITS_MAX && id[digits] != '"')
        digits++;
    if (server.publisher != c)
        set_publisher(c);
    server.seq++;
    add_message((const uint8_t *)text + len - (sizeof(PUBLISH_TAIL) - 1) - server.size);
    add_answer(c, id, digits);
    return true;
}

/* One whole frame at the front; how many bytes it has, 0 for "need more", -1 for anything else. */
static long take_frame(struct conn *c, const uint8_t *at, size_t len)
{
    size_t head = 2 + KEY_SIZE, payload;

    if (len < 4)
        return 0;
    payload = at[1] & 0x7f;
    if (payload == 126) {
        payload = (size_t)at[2] << 8 | at[3];
        head += 2;
    }
    if (at[0] != (0x80 | RH_WS_TEXT) || payload == 127)
        return -1;
    if (len < head + payload)
        return 0;
    return publish(c, (const char *)at + head, payload) ? (long)(head + payload) : -1;
}

/* ---- what comes in ---- */

static void on_bytes(struct conn *c, const uint8_t *at, size_t len)
{
    bool kept = c->in.len > 0;
    long used = 0;

    if (!c->open) {
        upgrade(c, at, len);
        return;
    }
    if (kept) { /* the frame that was cut comes first */
        memcpy(add(&c->in, len), at, len);
        at = c->in.at;
        len = c->in.len;
    }
    while (len > 0 && (used = take_frame(c, at, len)) > 0) {
        at += used;
        len -= (size_t)used;
    }
    if (len > 0 && (used < 0 || at[0] == CLOSE_BYTE)) {
        end(c);
        return;
    }
    if (kept) {
        memmove(c->in.at, at, len);
        c->in.len = len;
    } else if (len > 0) {
        memcpy(add(&c->in, len), at, len);
    }
}

static void on_recv(struct conn *c, const struct rh_cqe *cqe)
{
    c->receiving = cqe->flags & RH_CQE_MORE;
    if (cqe->flags & RH_CQE_BUFFER) {
        if (cqe->res > 0 && !c->dead) {
            c->receiving = true; /* not to be freed under our hands */
            on_bytes(c, rh_uring_buffer(server.uring, cqe->buffer), (size_t)cqe->res);
            c->receiving = cqe->flags & RH_CQE_MORE;
        }
        rh_uring_give(server.uring, cqe->buffer);
    }
    if (c->dead || cqe->res == 0 || (cqe->res < 0 && cqe->res != -ENOBUFS)) {
        end(c);
    } else if (!c->receiving) {
        c->receiving = true;
        rh_uring_recv_multi(server.uring, c->fd, cqe->res == -ENOBUFS, tag(c, RECV));
    }
}

static void on_accept(int fd)
{
    struct conn *c = fd >= 0 ? rh_mem_zalloc(sizeof(*c)) : NULL;

    rh_uring_accept(server.uring, server.listener, &server.peer, tag(NULL, ACCEPT));
    if (!c)
        return;
    c->fd = fd;
    c->receiving = true;
    rh_uring_recv_multi(server.uring, fd, false, tag(c, RECV));
}

/* ---- a pass ---- */

static void flush(void)
{
    for (unsigned i = 0; i < server.dirty_count; i++) {
        struct conn *c = server.dirty[i];
        struct bytes filled = c->out;

        c->dirty = false;
        if (c->dead) {
            end(c);
        } else if (!c->sending && !c->fanning && c->out.len) {
            c->out = c->flight;
            c->out.len = 0;
            c->flight = filled;
            c->sending = true;
            rh_uring_send(server.uring, c->fd, c->flight.at, c->flight.len, tag(c, SEND));
        }
    }
    server.dirty_count = 0;
}

static bool batch_is_done(void)
{
    return server.cursor == server.count && server.fanning == 0;
}

static void begin_batch(void)
{
    struct bytes old = server.batch;

    if (!batch_is_done() || server.next.len == 0)
        return;
    server.batch = server.next;
    server.next = old;
    server.next.len = 0;
    server.cursor = 0;
}

/* The next subscribers' sends. Who has something of its own to send gets a copy behind that. */
static void fan_out(void)
{
    for (unsigned i = 0; i < SENDS && server.cursor < server.count; i++) {
        struct conn *c = server.subscribers[server.cursor++];

        if (c->sending || c->out.len) {
            memcpy(add(&c->out, server.batch.len), server.batch.at, server.batch.len);
            make_dirty(c);
            continue;
        }
        c->fanning = true;
        server.fanning++;
        rh_uring_send(server.uring, c->fd, server.batch.at, server.batch.len, tag(c, FAN));
    }
}

static void on_cqe(const struct rh_cqe *cqe)
{
    struct conn *c = conn_of(cqe->tag);
    size_t asked;

    switch (cqe->tag & 3) {
    case ACCEPT:
        on_accept(cqe->res);
        return;
    case RECV:
        on_recv(c, cqe);
        return;
    case SEND:
        asked = c->flight.len;
        c->sending = false;
        break;
    default:
        asked = server.batch.len;
        c->fanning = false;
        server.fanning--;
    }
    if (c->dead || cqe->res != (int)asked)
        end(c);
    else if (c->out.len)
        make_dirty(c);
}

static int serve(struct rh_fault *fault)
{
    static const struct rh_uring_opts opts = {4096, 16384, 2048, 160, 0}; /* a shard's */
    struct rh_cqe cqes[REAP];
    unsigned count, all = 0;
    int rc = rh_uring_create(&opts, &server.uring, fault);

    if (rc < 0)
        return rc;
    rh_uring_accept(server.uring, server.listener, &server.peer, tag(NULL, ACCEPT));
    for (;;) {
        bool more =
            all >= BUSY || server.cursor < server.count || (server.next.len > 0 && batch_is_done());

        if (rh_uring_enter(server.uring, more ? 0 : 1000000000) != RH_OK)
            return RH_EIO;
        all = 0;
        do {
            count = rh_uring_reap(server.uring, cqes, REAP);
            for (unsigned i = 0; i < count; i++)
                on_cqe(&cqes[i]);
            all += count;
        } while (count == REAP);
        begin_batch();
        fan_out();
        flush();
    }
}

/* ---- start ---- */

static bool pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof(set), &set) == 0;
}

static bool read_args(int argc, char **argv, struct rh_addr *ret_addr)
{
    bool listen = false;
    long size = -1, text = 0;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--listen") == 0)
            listen = rh_addr_parse(argv[i + 1], ret_addr) == RH_OK;
        else if (strcmp(argv[i], "--size") == 0)
            size = atol(argv[i + 1]);
        else if (strcmp(argv[i], "--text") == 0)
            text = atol(argv[i + 1]);
        else if (strcmp(argv[i], "--cpu") != 0 || !pin(atoi(argv[i + 1])))
            return false;
    }
    if (!listen || size < 0 || size > SIZE_MOST || text < 0 || text > SIZE_MOST || argc % 2 == 0)
        return false;
    server.size = (size_t)size;
    server.text = (size_t)text;
    return true;
}

int main(int argc, char **argv)
{
    struct rh_addr addr;
    struct rh_fault fault;
    char text[RH_ADDR_TEXT];

    if (!read_args(argc, argv, &addr)) {
        fprintf(
            stderr,
            "usage: floor_fanout --listen 127.0.0.1:PORT --size 0..%d [--text 0..%d] [--cpu N]\n",
            SIZE_MOST, SIZE_MOST);
        return 2;
    }
    if (rh_sock_listen(&addr, true, &server.listener, &fault) < 0) {
        fprintf(stderr, "floor_fanout: %s\n", fault.text);
        return 1;
    }
    rh_addr_print(&addr, text);
    printf("floor_fanout listens on ws://%s/\n", text);
    fflush(stdout);
    if (serve(&fault) < 0)
        fprintf(stderr, "floor_fanout: %s\n", fault.text);
    return 1;
}
