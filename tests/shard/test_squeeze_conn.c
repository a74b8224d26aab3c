/* Compression on a connection: own frames, contexts, and what comes in.
 *
 * Goal    a client reads exactly what was queued for it, in that order, whatever is compressed, fails
 *         or is torn in between.
 * Method  messages are numbered texts; a real inflater with the agreed window, and with or without a
 *         context, reads the wire. */
#include "tests/shard/conn_rig.h"
#include "tests/shard/reader.h"

#define OWN 5000 /* numbers of own frames begin there */

static uint8_t text[1 << 16];
static struct reader reader;
static char heard[1 << 14];
static unsigned queued;

static void write_text(void)
{
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (uint8_t)("abcdefghijklmnop"[(i * i / 97 + i) % 16]);
}

static void note(void *arg, const uint8_t *at, size_t len)
{
    unsigned long number = strtoul((const char *)at, NULL, 10);

    RH_OK_IF(len >= 8 && (number % 10 == 9 || !memcmp(at + 8, text + 8, len - 8)));
    snprintf(heard + strlen(heard), sizeof(heard) - strlen(heard), "%lu ", number);
}

/* Connection 0 has agreed on that; connection 1 on nothing. */
static void begin(const struct rh_deflate_terms *terms)
{
    rig_begin(2);
    rig.cfg->limits_send_queue_messages = 10000;
    write_text();
    heard[0] = '\0';
    queued = 0;
    if (terms) {
        RH_OK_IF(rh_squeeze_begin(rig.sh, rig.conns[0], terms));
        reader_begin(&reader, terms->server_bits, terms->server_keeps, note, NULL);
    }
}

static void end(void)
{
    reader_end(&reader);
    rig_end();
}

static struct rh_deflate_terms terms(unsigned server_bits, bool server_keeps, unsigned client_bits,
                                     bool client_keeps)
{
    return (struct rh_deflate_terms){.server_bits = (uint8_t)server_bits,
                                     .server_keeps = server_keeps,
                                     .client_bits = (uint8_t)client_bits,
                                     .client_keeps = client_keeps};
}

/* A text that compresses; one whose number ends with 9 does not. */
static void write_payload(uint8_t *dst, unsigned number, size_t len)
{
    char digits[12];

    memcpy(dst, text, len);
    for (size_t i = 8; number % 10 == 9 && i < len; i++)
        dst[i] = (uint8_t)rh_test_rand();
    snprintf(digits, sizeof(digits), "%07u ", number);
    memcpy(dst, digits, 8);
}

static size_t write_frame(uint8_t *dst, unsigned number, size_t len)
{
    size_t head = rh_ws_head(dst, RH_WS_BINARY, true, len, NULL);

    write_payload(dst + head, number, len);
    return head + len;
}

static int push(unsigned conn, unsigned number, size_t len)
{
    struct rh_msg *msg = rh_msg_create(RH_MSG_HEAD_ROOM + len);
    struct rh_handle *h = rig_handle(msg);
    int rc;

    if (!h)
        return RH_ENOMEM;
    msg->frame_len = (uint32_t)write_frame(msg->bytes + msg->frame_at, number, len);
    rc = rh_conn_push(rig.sh, rig.conns[conn], h);
    rh_handle_unref(&rig.sh->stock.handles, h);
    return rc;
}

static void own(unsigned conn, unsigned number, size_t len)
{
    uint8_t *at = rh_conn_own(rig.sh, rig.conns[conn], RH_MSG_HEAD_ROOM + len);

    if (at)
        rh_conn_own_done(rig.sh, rig.conns[conn], write_frame(at, number, len));
}

/* It would get much smaller. */
static void own_ping(unsigned conn)
{
    uint8_t *at = rh_conn_own(rig.sh, rig.conns[conn], 102);

    if (!at)
        return;
    memset(at, 'p', 102);
    rh_ws_head(at, RH_WS_OP_PING, true, 100, NULL);
    rh_conn_own_done(rig.sh, rig.conns[conn], 102);
}

/* The peer takes what is under way and reads it. False: nothing was. */
static bool take(void)
{
    size_t len = rig.flight_len[0];

    if (len == 0)
        return false;
    rig.flight_len[0] = 0;
    RH_EQ_U64(rig.conns[0]->out->flying_bytes, len);
    reader_feed(&reader, rig.flight[0], len);
    rh_conn_on_send(rig.sh, rig.conns[0], (int)len);
    return true;
}

static void take_all(void)
{
    for (rig_pass(); take(); rig_pass())
        ;
}

/* ---- without contexts ---- */

RH_TEST(squeeze_conn, own_frames_are_compressed_when_they_are_queued)
{
    struct rh_deflate_terms agreed = terms(12, false, 15, false);

    begin(&agreed);
    rig.cfg->compression_min_size = 0;
    rh_squeeze_config(&rig.sh->stock.squeeze, rig.cfg);
    own(0, 1, 3000);
    RH_OK_IF(rig.conns[0]->out->bytes < 2500); /* it counts as what it is */
    own_ping(0);
    own(0, 2, 8);
    own(0, 19, 700);
    own(0, 3, 9000);
    take_all();
    RH_EQ_STR(heard, "1 2 19 3 ");
    RH_EQ_INT(reader.controls, 1);
    RH_OK_IF(reader.compressed >= 2);
    end();
}

RH_TEST(squeeze_conn, what_is_queued_before_is_no_frame_and_stays_as_it_is)
{
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\n\r\n";

    for (unsigned keeps = 0; keeps < 2; keeps++) {
        struct rh_deflate_terms agreed = terms(12, keeps, 15, false);
        uint8_t *at;

        begin(NULL);
        at = rh_conn_own(rig.sh, rig.conns[0], sizeof(answer));
        memcpy(at, answer, sizeof(answer));
        rh_conn_own_done(rig.sh, rig.conns[0], sizeof(answer));
        RH_OK_IF(rh_squeeze_begin(rig.sh, rig.conns[0], &agreed));
        reader_begin(&reader, 12, keeps, note, NULL);
        RH_EQ_U64(rig.flight_len[0], sizeof(answer));
        RH_EQ_STR(rig.flight[0], answer);
        RH_EQ_INT(push(0, 1, 3000), RH_OK); /* behind it, in the same pass */
        rig_pass();
        rig.flight_len[0] = 0;
        rh_conn_on_send(rig.sh, rig.conns[0], sizeof(answer));
        take_all();
        RH_EQ_STR(heard, "1 ");
        RH_EQ_INT(reader.compressed, 1);
        end();
    }
}

RH_TEST(squeeze_conn, a_window_of_8_gets_nothing_compressed)
{
    for (unsigned keeps = 0; keeps < 2; keeps++) {
        struct rh_deflate_terms agreed = terms(8, keeps, 15, false);

        begin(&agreed);
        own(0, 1, 3000);
        RH_EQ_INT(push(0, 2, 3000), RH_OK);
        take_all();
        RH_EQ_STR(heard, "1 2 ");
        RH_EQ_INT(reader.compressed, 0);
        end();
    }
}

RH_TEST(squeeze_conn, a_neighbour_that_agreed_on_nothing_is_sent_plain_frames)
{
    struct rh_deflate_terms agreed = terms(12, false, 15, false);

    begin(&agreed);
    own(1, 1, 3000);
    RH_EQ_INT(push(1, 2, 3000), RH_OK);
    rig_pass();
    RH_EQ_U64(rig.flight_len[1], 2 * 3004);
    RH_EQ_U64(rig_stat(RH_STAT_deflates), 0);
    end();
}

/* ---- with the server's context ---- */

RH_TEST(squeeze_conn, a_context_makes_the_second_of_two_alike_small)
{
    struct rh_deflate_terms agreed = terms(15, true, 15, true);
    uint64_t first;

    begin(&agreed);
    RH_EQ_INT(push(0, 1, 12000), RH_OK);
    rig_pass();
    first = rig.flight_len[0];
    RH_EQ_U64(rig.conns[0]->out->bytes, 12004); /* the bound counts it plain */
    take_all();
    own(0, 2, 12000);
    rig_pass();
    RH_OK_IF(rig.flight_len[0] < first / 2);
    take_all();
    RH_EQ_STR(heard, "1 2 ");
    RH_EQ_INT(reader.compressed, 2);
    RH_EQ_U64(rig_stat(RH_STAT_compressed_messages_out), 2);
    RH_EQ_U64(rig_stat(RH_STAT_compressed_plain_bytes_out), 24000);
    RH_EQ_U64(rig_stat(RH_STAT_compressed_wire_bytes_out), reader.wire);
    end();
}

/* Some that is queued, of all kinds and sizes, in one send or several. */
static void queue_some(char *expected)
{
    for (unsigned n = 1 + (unsigned)(rh_test_rand() % 6); n; n--) {
        static const size_t sizes[] = {8, 100, 511, 512, 600, 3000, 12000};
        size_t len = sizes[rh_test_rand() % RH_COUNT(sizes)];
        unsigned number = ++queued;

        if (rh_test_rand() % 5 == 0)
            own_ping(0);
        if (rh_test_rand() % 2)
            own(0, number, len);
        else
            RH_EQ_INT(push(0, number, len), RH_OK);
        sprintf(expected + strlen(expected), "%u ", number);
    }
}

RH_TEST(squeeze_conn, with_a_context_everything_arrives_in_its_order)
{
    static char expected[1 << 14];

    for (unsigned round = 0; round < 40; round++) {
        unsigned bits = 9 + (unsigned)(rh_test_rand() % 7);
        struct rh_deflate_terms agreed = terms(bits, rh_test_rand() % 4, 15, rh_test_rand() % 2);

        expected[0] = '\0';
        begin(&agreed);
        for (unsigned pass = 0; pass < 20; pass++) {
            queue_some(expected);
            rig_pass();
            if (rh_test_rand() % 3)
                take();
        }
        take_all();
        RH_EQ_STR(heard, expected);
        RH_OK_IF(reader.compressed > 0 && reader.compressed < reader.messages);
        end();
    }
}

RH_TEST(squeeze_conn, control_frames_are_never_packed)
{
    struct rh_deflate_terms agreed = terms(12, true, 15, false);

    begin(&agreed);
    rig.cfg->compression_min_size = 0;
    rh_squeeze_config(&rig.sh->stock.squeeze, rig.cfg);
    own_ping(0);
    own(0, 1, 100);
    own_ping(0);
    take_all();
    RH_EQ_INT(reader.controls, 2);
    RH_EQ_STR(heard, "1 ");
    end();
}

RH_TEST(squeeze_conn, a_bundle_is_packed_like_anything_else)
{
    struct rh_deflate_terms agreed = terms(12, true, 15, false);
    struct rh_handle *h[3];

    begin(&agreed);
    for (unsigned n = 0; n < 3; n++) {
        struct rh_msg *msg = rh_msg_create(2000);

        h[n] = rig_handle(msg);
        msg->frame_len = (uint32_t)write_frame(msg->bytes + msg->frame_at, n + 1, 1000);
        for (unsigned i = 0; i < 2; i++)
            RH_EQ_INT(rh_conn_push(rig.sh, rig.conns[i], h[n]), RH_OK);
        rh_handle_unref(&rig.sh->stock.handles, h[n]);
    }
    rig_pass();
    RH_OK_IF(rig.conns[0]->out->bundle || rig.conns[1]->out->bundle);
    RH_EQ_U64(rig.flight_len[1], 3 * 1004);
    RH_OK_IF(rig.flight_len[0] < 3 * 1004);
    take_all();
    RH_EQ_STR(heard, "1 2 3 ");
    RH_EQ_INT(reader.compressed, 3);
    end();
}

RH_TEST(squeeze_conn, a_torn_send_ends_it_and_settles_what_flew)
{
    struct rh_deflate_terms agreed = terms(12, true, 15, true);
    size_t len;

    begin(&agreed);
    RH_EQ_INT(push(0, 1, 3000), RH_OK);
    rig_pass();
    len = rig.flight_len[0];
    rig.flight_len[0] = 0;
    rh_conn_on_send(rig.sh, rig.conns[0], (int)len - 1);
    RH_EQ_INT(rig.conns[0]->state, RH_CONN_DEAD);
    RH_EQ_U64(rig_stat(RH_STAT_messages_delivered), 0);
    RH_EQ_U64(rig_stat(RH_STAT_messages_dropped_conn_error), 1);
    end();
}

RH_TEST(squeeze_conn, a_whole_send_of_a_run_is_no_torn_one)
{
    struct rh_deflate_terms agreed = terms(12, true, 15, true);

    begin(&agreed);
    RH_EQ_INT(push(0, 1, 3000), RH_OK);
    take_all();
    RH_EQ_INT(rig.conns[0]->state, RH_CONN_OPEN);
    RH_EQ_U64(rig_stat(RH_STAT_messages_delivered), 1);
    end();
}

/* What a context holds is counted, a run while it flies, and all of it goes. */
RH_TEST(squeeze_conn, memory_of_contexts_is_counted)
{
    struct rh_deflate_terms agreed = terms(12, true, 15, true);
    uint64_t idle, flying;

    begin(&agreed);
    RH_OK_IF(rig_stat(RH_STAT_compression_bytes) > 0);
    RH_OK_IF(rig_stat(RH_STAT_compression_bytes) < 512);
    RH_EQ_INT(push(0, 1, 3000), RH_OK);
    take_all();
    idle = rig_stat(RH_STAT_compression_bytes);
    RH_OK_IF(idle > 20 << 10);
    RH_EQ_INT(push(0, 19, 12000), RH_OK); /* does not get smaller: a run of 12,004 bytes */
    rig_pass();
    flying = rig_stat(RH_STAT_compression_bytes);
    RH_OK_IF(flying >= idle + 12004);
    take_all();
    RH_OK_IF(rig_stat(RH_STAT_compression_bytes) <= flying - 12004);
    rh_conn_cut(rig.sh, rig.conns[0], 1006);
    rig_pass();
    RH_OK_IF(rig_stat(RH_STAT_compression_bytes) <= rig.sh->stock.squeeze.buffer.room);
    end();
}

static void without_memory(void *arg)
{
    uint64_t fail = rh_mem_fail_left();
    struct rh_deflate_terms agreed = terms(12, arg != NULL, 15, false);
    char expected[64] = "";

    rh_mem_fail_nth(0);
    begin(&agreed);
    for (unsigned n = 1; n < 4; n++) {
        rh_mem_fail_nth(0);
        for (unsigned i = 0; i < 3; i++) { /* so that they need no memory of their own */
            own(0, 10 * n + i, 600);
            sprintf(expected + strlen(expected), "%u ", 10 * n + i);
        }
        RH_EQ_INT(push(0, 100 + n, 4000), RH_OK);
        sprintf(expected + strlen(expected), "%u ", 100 + n);
        rh_mem_fail_nth(fail);
        take_all();
        fail = rh_mem_fail_left();
    }
    rh_mem_fail_nth(0);
    RH_EQ_STR(heard, expected);
    RH_OK_IF(reader.compressed > 0);
    end();
    rh_mem_fail_nth(fail);
}

RH_TEST(squeeze_conn, without_memory_frames_leave_plain)
{
    rh_test_fail_each_alloc(without_memory, NULL);
    rh_test_fail_each_alloc(without_memory, "keeps");
}

RH_TEST(squeeze_conn, without_memory_for_a_context_it_is_closed)
{
    struct rh_deflate_terms agreed = terms(12, true, 15, true);

    begin(NULL);
    reader_begin(&reader, 12, true, note, NULL);
    rh_mem_fail_nth(1);
    RH_OK_IF(!rh_squeeze_begin(rig.sh, rig.conns[0], &agreed));
    rh_mem_fail_nth(0);
    RH_EQ_INT(rig.conns[0]->state, RH_CONN_CLOSING);
    take_all();
    RH_EQ_INT(reader.closed, 1013);
    end();
}

/* ---- what comes in ---- */

static struct rh_deflate_out packed;

/* As a client with such a window would send it. */
static void deflate(struct rh_deflater *d, const void *at, size_t len)
{
    RH_EQ_INT(rh_deflate(d, at, len, &packed), 0);
}

static unsigned inflate(bool is_text, const char *expected, size_t expected_len)
{
    struct rh_block *message = NULL;
    const char *why = NULL;
    unsigned code =
        rh_squeeze_inflate(rig.sh, rig.conns[0], packed.at, packed.len, is_text, &message, &why);

    RH_OK_IF(code ? why && !message : message != NULL);
    if (!code) {
        RH_EQ_U64(rh_block_len(message), expected_len);
        RH_OK_IF(!memcmp(rh_block_at(message), expected, expected_len));
        rh_block_give(&rig.sh->stock.blocks, message);
    }
    return code;
}

RH_TEST(squeeze_conn, what_comes_is_inflated_with_and_without_a_context)
{
    for (unsigned keeps = 0; keeps < 2; keeps++) {
        struct rh_deflate_terms agreed = terms(12, false, 10, keeps);
        struct rh_deflater *d;
        size_t first;

        begin(&agreed);
        RH_EQ_INT(rh_deflater_create(10, 8, 6, keeps, &d), 0);
        deflate(d, text, 500);
        first = packed.len;
        RH_EQ_INT(inflate(true, (char *)text, 500), 0);
        deflate(d, text, 500);
        RH_OK_IF(keeps ? packed.len < first / 2 : packed.len == first);
        RH_EQ_INT(inflate(true, (char *)text, 500), 0);
        deflate(d, "", 0);
        RH_EQ_INT(inflate(true, "", 0), 0);
        deflate(d, text, sizeof(text));
        RH_EQ_INT(inflate(false, (char *)text, sizeof(text)), 0);
        RH_EQ_U64(rig_stat(RH_STAT_compressed_messages_in), 4);
        RH_EQ_U64(rig_stat(RH_STAT_compressed_plain_bytes_in), 1000 + sizeof(text));
        rh_deflater_destroy(d);
        end();
    }
    rh_deflate_out_trim(&packed, 0);
}

RH_TEST(squeeze_conn, what_is_too_large_damaged_or_no_text_has_its_code)
{
    for (unsigned keeps = 0; keeps < 2; keeps++) {
        struct rh_deflate_terms agreed = terms(12, false, 15, keeps);
        struct rh_deflater *d;
        uint8_t *bomb = calloc(1, 4 << 20);

        begin(&agreed);
        rig.cfg->limits_message_size = 60000;
        RH_EQ_INT(rh_deflater_create(15, 8, 6, false, &d), 0);
        deflate(d, text, 60000);
        RH_EQ_INT(inflate(true, (char *)text, 60000), 0);
        deflate(d, text, 60001);
        RH_EQ_INT(inflate(true, NULL, 0), 1009);
        deflate(d, bomb, 4 << 20);
        RH_EQ_INT(inflate(false, NULL, 0), 1009);
        RH_OK_IF(rig.sh->stock.squeeze.buffer.room <= 64 << 10);
        deflate(d, "\xff\xfe caf\xc3", 7);
        RH_EQ_INT(inflate(true, NULL, 0), 1007);
        deflate(d, "\xff\xfe caf\xc3", 7);
        RH_EQ_INT(inflate(false, "\xff\xfe caf\xc3", 7), 0); /* binary may be anything */
        deflate(d, text, 4000);
        packed.at[2] ^= 0xff;
        packed.at[3] ^= 0x55;
        memset(packed.at + 6, 0xee, 8);
        RH_EQ_INT(inflate(true, NULL, 0), 1007);
        rh_deflater_destroy(d);
        free(bomb);
        end();
    }
    rh_deflate_out_trim(&packed, 0);
}

static void inflate_without_memory(void *arg)
{
    uint64_t fail = rh_mem_fail_left();
    struct rh_deflate_terms agreed = terms(12, false, 15, arg != NULL);
    struct rh_deflater *d;
    unsigned code;

    rh_mem_fail_nth(0);
    begin(&agreed);
    RH_EQ_INT(rh_deflater_create(15, 8, 6, false, &d), 0);
    deflate(d, text, 20000);
    rh_mem_fail_nth(fail);
    code = inflate(true, (char *)text, 20000);
    RH_OK_IF(code == 0 || code == 1013);
    fail = rh_mem_fail_left();
    rh_mem_fail_nth(0);
    RH_EQ_INT(inflate(true, (char *)text, 20000), 0);
    rh_deflater_destroy(d);
    rh_deflate_out_trim(&packed, 0);
    end();
    rh_mem_fail_nth(fail);
}

RH_TEST(squeeze_conn, what_finds_no_memory_is_1013)
{
    rh_test_fail_each_alloc(inflate_without_memory, NULL);
    rh_test_fail_each_alloc(inflate_without_memory, "keeps");
}

/* ---- in turns ---- */

/* One pass inflates so much; who may send more waits for the next, and the longest goes first. */
RH_TEST(squeeze_conn, what_comes_is_inflated_in_turns)
{
    struct rh_deflate_terms agreed = terms(12, false, 15, false);
    struct rh_shard *sh;
    struct rh_deflater *d;

    begin(&agreed);
    sh = rig.sh;
    RH_EQ_INT(rh_deflater_create(15, 8, 6, false, &d), 0);
    deflate(d, text, sizeof(text));
    while (sh->stock.squeeze.work < RH_SQUEEZE_PASS) {
        RH_OK_IF(!rh_squeeze_pause(sh, rig.conns[0]));
        RH_EQ_INT(inflate(false, (char *)text, sizeof(text)), 0);
    }
    RH_OK_IF(!rh_squeeze_pause(sh, rig.conns[1])); /* this one sends nothing compressed */
    rig.conns[1]->inflates = true;
    RH_OK_IF(rh_squeeze_pause(sh, rig.conns[1]));
    RH_OK_IF(rh_squeeze_pause(sh, rig.conns[0]));
    RH_EQ_INT(rig.conns[0]->paused, RH_PAUSE_TURN);
    RH_EQ_U64(rig_stat(RH_STAT_paused_reads_inflate), 2);
    RH_OK_IF(sh->turns.next == &rig.conns[1]->waiting);
    rh_squeeze_turns(sh);
    RH_EQ_INT(rig.conns[0]->paused | rig.conns[1]->paused, 0);
    RH_OK_IF(rh_list_empty(&sh->turns));
    RH_EQ_U64(sh->stock.squeeze.work, 0);
    rh_deflater_destroy(d);
    rh_deflate_out_trim(&packed, 0);
    end();
}

RH_TEST(squeeze_conn, who_waits_for_a_turn_may_be_cut_or_closed)
{
    struct rh_deflate_terms agreed = terms(12, false, 15, false);

    begin(&agreed);
    rig.conns[1]->inflates = true;
    rig.sh->stock.squeeze.work = RH_SQUEEZE_PASS;
    for (unsigned i = 0; i < 2; i++)
        RH_OK_IF(rh_squeeze_pause(rig.sh, rig.conns[i]));
    rh_conn_cut(rig.sh, rig.conns[1], 1006);
    rh_conn_close(rig.sh, rig.conns[0], 1001, "");
    RH_OK_IF(rh_list_empty(&rig.sh->turns));
    RH_EQ_INT(rig.conns[0]->paused, 0);
    take_all();
    RH_EQ_INT(reader.closed, 1001);
    end();
}

RH_TEST(squeeze_conn, own_frames_that_are_compressed_are_work_too)
{
    struct rh_deflate_terms agreed = terms(12, false, 15, false);

    begin(&agreed);
    own(0, 1, 500);
    RH_EQ_U64(rig.sh->stock.squeeze.work, 0);
    own(0, 2, 3000);
    RH_EQ_U64(rig.sh->stock.squeeze.work, 3004);
    take_all();
    end();
}

/* ---- long messages ---- */

/* Compressed blocks that hold nothing but tables: each costs a microsecond and brings no byte. */
static void write_tables(size_t len)
{
    static const uint8_t lens[18] = {[2] = 1, [17] = 1}; /* of the codes 18 and 1 */
    static const struct {
        uint16_t bits;
        uint8_t count;
    } fixed[] = {{0, 1}, {2, 2}, {0, 5}, {0, 5}, {14, 4}},
      codes[] = {{1, 1}, {127, 7}, {1, 1}, {107, 7}, {0, 1}, {0, 1}, {0, 1}};
    size_t bit = 0;

    packed.at = rh_mem_zalloc(len + 64);
    packed.room = len + 64;
    packed.len = len;
    while (bit / 8 < len - 64) {
        uint32_t word[RH_COUNT(fixed) + RH_COUNT(lens) + RH_COUNT(codes)], count[RH_COUNT(word)];
        unsigned n = 0;

        for (unsigned i = 0; i < RH_COUNT(fixed); i++, n++)
            word[n] = fixed[i].bits, count[n] = fixed[i].count;
        for (unsigned i = 0; i < RH_COUNT(lens); i++, n++)
            word[n] = lens[i], count[n] = 3;
        for (unsigned i = 0; i < RH_COUNT(codes); i++, n++)
            word[n] = codes[i].bits, count[n] = codes[i].count;
        for (unsigned i = 0; i < n; i++)
            for (unsigned k = 0; k < count[i]; k++, bit++)
                packed.at[bit / 8] |= (uint8_t)((word[i] >> k & 1) << bit % 8);
    }
    packed.len = (bit + 3 + 7) / 8; /* and the head of a stored block */
}

static unsigned inflate_long(uint8_t opcode, struct rh_block **ret_message)
{
    const char *why = NULL;
    uint8_t told = opcode;
    unsigned code;

    *ret_message = NULL;
    code = rh_squeeze_inflate_long(rig.sh, rig.conns[0], packed.at, packed.len, &told, ret_message,
                                   &why);
    RH_OK_IF(code > RH_SQUEEZE_WAITS ? why && !*ret_message : !*ret_message == (code != 0));
    RH_EQ_INT(code == RH_SQUEEZE_WAITS, rh_squeeze_inflating(rig.sh, rig.conns[0]));
    return code;
}

/* Goes on until it is over; *ret_passes says in how many passes. */
static unsigned inflate_all(struct rh_block **ret_message, unsigned *ret_passes)
{
    unsigned code = inflate_long(RH_WS_BINARY, ret_message);

    for (*ret_passes = 1; code == RH_SQUEEZE_WAITS; ++*ret_passes) {
        RH_EQ_INT(rig.conns[0]->paused, RH_PAUSE_TURN);
        RH_OK_IF(rig.sh->stock.squeeze.work < RH_SQUEEZE_PASS + (2u << 20));
        rh_squeeze_turns(rig.sh); /* the rig's client does not go on by itself */
        RH_EQ_INT(rig.conns[0]->paused, 0);
        code = inflate_long(RH_WS_TEXT, ret_message); /* it knows better */
    }
    return code;
}

RH_TEST(squeeze_conn, what_goes_in_is_work_as_well_as_what_comes_out)
{
    struct rh_deflate_terms agreed = terms(12, false, 15, false);
    struct rh_squeeze *sq;
    uint64_t before;

    begin(&agreed);
    sq = &rig.sh->stock.squeeze;
    write_tables(20000);
    RH_EQ_INT(inflate(false, "", 0), 0);
    RH_EQ_U64(sq->work, packed.len * RH_SQUEEZE_IN);
    before = sq->work;
    packed.at[packed.len - 20] ^= 0x55;
    RH_EQ_INT(inflate(false, NULL, 0), 1007); /* whatever came of it before */
    RH_EQ_U64(sq->work, before + packed.len * RH_SQUEEZE_IN + rig.cfg->limits_message_size);
    rh_deflate_out_trim(&packed, 0);
    end();
}

RH_TEST(squeeze_conn, a_long_message_is_inflated_over_several_passes)
{
    for (unsigned keeps = 0; keeps < 2; keeps++) {
        struct rh_deflate_terms agreed = terms(12, keeps, 15, keeps);
        struct rh_block *message;
        struct rh_deflater *d;
        uint8_t *rough = malloc(300000);
        unsigned passes;

        begin(&agreed);
        write_tables(1 << 20);
        RH_EQ_INT(inflate_all(&message, &passes), 0);
        RH_EQ_U64(rh_block_len(message), 0);
        RH_OK_IF(passes >= 8);
        rh_block_give(&rig.sh->stock.blocks, message);
        rh_deflate_out_trim(&packed, 0);
        RH_EQ_INT(rh_deflater_create(15, 8, 6, keeps, &d), 0);
        for (unsigned i = 0; i < 300000; i++)
            rough[i] = (uint8_t)rh_test_rand();
        for (unsigned round = 0; round < 2; round++) {
            deflate(d, rough, 300000);
            RH_EQ_INT(inflate_all(&message, &passes), 0);
            RH_OK_IF(passes > 1);
            RH_EQ_U64(rh_block_len(message), 300000);
            RH_OK_IF(!memcmp(rh_block_at(message), rough, 300000));
            rh_block_give(&rig.sh->stock.blocks, message);
            deflate(d, text, 500); /* short ones between them use the same context */
            RH_EQ_INT(inflate(true, (char *)text, 500), 0);
        }
        rig.cfg->limits_message_size = 250000;
        deflate(d, rough, 300000);
        RH_EQ_INT(inflate_all(&message, &passes), 1009);
        rh_deflater_destroy(d);
        rh_deflate_out_trim(&packed, 0);
        free(rough);
        end();
    }
}

/* What it holds is counted, and goes with the connection. */
RH_TEST(squeeze_conn, who_is_cut_in_the_middle_of_a_long_message_leaves_nothing)
{
    struct rh_deflate_terms agreed = terms(12, false, 15, false);
    struct rh_block *message;
    uint64_t idle;

    begin(&agreed);
    idle = rig_stat(RH_STAT_compression_bytes);
    write_tables(1 << 20);
    RH_EQ_INT(inflate_long(RH_WS_TEXT, &message), RH_SQUEEZE_WAITS);
    RH_OK_IF(rig_stat(RH_STAT_compression_bytes) > idle + 8000);
    own(0, 1, 3000);
    rig_pass();
    rh_conn_cut(rig.sh, rig.conns[0], 1006);
    RH_OK_IF(rh_list_empty(&rig.sh->turns));
    rh_deflate_out_trim(&packed, 0);
    end();
}

static void inflate_long_without_memory(void *arg)
{
    uint64_t fail = rh_mem_fail_left();
    struct rh_deflate_terms agreed = terms(12, false, 15, arg != NULL);
    struct rh_block *message;
    unsigned code, passes;

    rh_mem_fail_nth(0);
    begin(&agreed);
    write_tables(400000);
    rh_mem_fail_nth(fail);
    code = inflate_all(&message, &passes);
    RH_OK_IF(code == 0 || code == 1013);
    fail = rh_mem_fail_left();
    rh_mem_fail_nth(0);
    rh_block_give(&rig.sh->stock.blocks, message);
    rh_deflate_out_trim(&packed, 0);
    end();
    rh_mem_fail_nth(fail);
}

RH_TEST(squeeze_conn, a_long_message_that_finds_no_memory_is_1013)
{
    rh_test_fail_each_alloc(inflate_long_without_memory, NULL);
    rh_test_fail_each_alloc(inflate_long_without_memory, "keeps");
}

/* ---- what leaves, in turns ---- */

/* A pass packs so much; what leaves plain does not wait, and who is cut meanwhile is forgotten. */
RH_TEST(squeeze_conn, what_leaves_is_packed_in_turns)
{
    struct rh_deflate_terms agreed = terms(12, true, 15, true);

    begin(&agreed);
    for (unsigned cut = 0; cut < 2; cut++) {
        rig.sh->stock.squeeze.packed = RH_SQUEEZE_PACK;
        own(0, 1 + cut, 3000);
        own(1, 1, 3000);
        rh_conn_flush_all(rig.sh);
        RH_EQ_U64(rig.flight_len[0], 0);
        RH_OK_IF(rig.flight_len[1] || cut);
        RH_EQ_INT(rig.sh->dirty_count, 1);
        if (cut)
            rh_conn_cut(rig.sh, rig.conns[0], 1006);
        rh_conn_flush_all(rig.sh); /* still this pass */
        RH_EQ_INT(rig.sh->dirty_count, !cut);
        rig.sh->stock.squeeze.packed = 0;
        if (cut)
            break;
        take_all();
        RH_EQ_STR(heard, "1 ");
        RH_EQ_INT(rig.sh->dirty_count, 0);
    }
    end();
}

RH_TEST(squeeze_conn, a_pass_counts_what_it_packs)
{
    struct rh_deflate_terms agreed = terms(12, true, 15, true);

    begin(&agreed);
    own(0, 1, 3000);
    RH_EQ_INT(push(0, 2, 100), RH_OK);
    rh_conn_flush_all(rig.sh);
    RH_EQ_U64(rig.sh->stock.squeeze.packed, 3004 + 102);
    rh_squeeze_turns(rig.sh);
    RH_EQ_U64(rig.sh->stock.squeeze.packed, 0);
    take_all();
    end();
}
