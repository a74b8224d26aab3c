/* Goal    damage that lost nothing that was told is passed over, all other is found and told, wherever it
 *         is; salvage goes on behind it, and is needed once.
 * Method  journals written on the disk in memory, then changed: each file cut at every byte, every bit of
 *         its first batches flipped, zeroed, exchanged, missing. What opens has all events, or, where only
 *         the end is hurt, a prefix. */
#include "store/journal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/crc32c.h"
#include "tests/store/disk.h"
#include "tests/store/journal_rig.h"

static struct rig rig;

/* A copy of all files. */
static struct {
    char name[64];
    uint8_t *bytes;
    size_t len;
} kept[64];
static unsigned kept_count;

static void keep(void)
{
    const char *names[RH_COUNT(kept)];

    kept_count = disk_names(names, RH_COUNT(kept));
    for (unsigned i = 0; i < kept_count; i++) {
        const uint8_t *bytes = disk_bytes(names[i], &kept[i].len);

        snprintf(kept[i].name, sizeof(kept[i].name), "%s", names[i]);
        free(kept[i].bytes);
        kept[i].bytes = malloc(kept[i].len);
        memcpy(kept[i].bytes, bytes, kept[i].len);
    }
}

static void put_back(void)
{
    disk_reset();
    for (unsigned i = 0; i < kept_count; i++)
        disk_put(kept[i].name, kept[i].bytes, kept[i].len);
}

static uint64_t size_of(uint64_t segment)
{
    return (uint64_t)disk_size(rig_name(segment));
}

/* `batches` events of `text` bytes, one in each batch; closed, and kept. */
static void make(size_t text, unsigned batches)
{
    rig_init(&rig);
    rig.text = text;
    rig_wants(&rig, 0, 0);
    rig_commit(&rig, batches);
    rig_close(&rig);
    keep();
}

static void wants_damage(const char *where, const char *what)
{
    RH_EQ_INT(rig_open(&rig), RH_EIO);
    if (!strstr(rig.fault.text, where) || !strstr(rig.fault.text, what))
        RH_FAIL("the fault says: %s", rig.fault.text);
}

/* The events from `first` to `last`, without those of `holes`; `skipped` places. Then one more event, and
 * without salvage the same again. */
static void wants_salvage(uint64_t first, uint64_t last, uint64_t holes, uint64_t skipped)
{
    struct rh_journal_stat stat;

    rig.salvage = true;
    RH_EQ_INT(rig_open(&rig), RH_OK);
    rh_journal_stat(rig.j, &stat);
    RH_EQ_U64(rig.first, first);
    RH_EQ_U64(rig.next, last + 1);
    RH_EQ_U64(rig.holes, holes);
    RH_EQ_U64(stat.skipped, skipped);
    rig_commit(&rig, 1);
    rig_close(&rig);
    rig.salvage = false;
    for (unsigned i = 1; i < 3; i++) {
        RH_OK_IF(rig_open(&rig) == RH_OK);
        RH_EQ_U64(rig.first, first);
        RH_EQ_U64(rig.next, last + 1 + i);
        RH_EQ_U64(rig.holes, holes);
        rig_commit(&rig, 1);
        rig_close(&rig);
    }
}

/* Where batch `n` of a segment begins, from 0 on. */
static uint64_t batch_at(uint64_t segment, unsigned n)
{
    struct rh_segment s;
    struct rh_batch b = {.end = RH_SEGMENT_HEAD};
    uint64_t next;
    size_t len;
    bool torn;
    const uint8_t *bytes = disk_bytes(rig_name(segment), &len);

    RH_OK_IF(rh_segment_open(&s, bytes, len) == RH_OK);
    for (unsigned i = 0; i < n; i++)
        RH_OK_IF(rh_segment_next(&s, b.end, &b, &next, &torn) == RH_PIECE_BATCH);
    return b.end;
}

/* ---- the end ---- */

RH_TEST(journal_damage, any_prefix_recovers_to_a_prefix)
{
    uint64_t last = 0;

    make(30, 20);
    for (size_t len = 0; len <= RH_SEGMENT_BYTES_MIN; len++) {
        put_back();
        disk_delete(rig_name(2)); /* the one that was prepared */
        disk_truncate(rig_name(1), len);
        RH_OK_IF(rig_open(&rig) == RH_OK);
        RH_OK_IF(rig.holes == 0 && rig.next - 1 >= last && rig.read == rig.next - 1);
        last = rig.next - 1;
        rig_close(&rig);
    }
    RH_EQ_U64(last, 20);
}

RH_TEST(journal_damage, a_zeroed_end_recovers_to_a_prefix)
{
    uint64_t last = 0;

    make(30, 20);
    for (size_t from = 0; from <= RH_SEGMENT_BYTES_MIN; from += 3) {
        put_back();
        disk_zero(rig_name(1), from, RH_SEGMENT_BYTES_MIN - from);
        RH_OK_IF(rig_open(&rig) == RH_OK);
        RH_OK_IF(rig.holes == 0 && rig.next - 1 >= last && rig.read == rig.next - 1);
        last = rig.next - 1;
        rig_close(&rig);
    }
    RH_EQ_U64(last, 20);
}

/* Over several segments: the newer ones are gone, the newest that is left is cut. */
RH_TEST(journal_damage, any_prefix_of_many_segments_recovers_to_a_prefix)
{
    uint64_t last = 0;

    make(700, 20);
    for (uint64_t segment = 1; segment <= 4; segment++)
        for (size_t len = 0; len <= RH_SEGMENT_BYTES_MIN; len += 97) {
            put_back();
            for (uint64_t more = segment + 1; more < 10; more++)
                if (disk_size(rig_name(more)) >= 0)
                    disk_delete(rig_name(more));
            disk_truncate(rig_name(segment), len);
            RH_OK_IF(rig_open(&rig) == RH_OK);
            RH_OK_IF(rig.holes == 0 && rig.next - 1 >= last && rig.read == rig.next - 1);
            last = rig.next - 1;
            rig_close(&rig);
        }
    RH_OK_IF(last >= 16);
}

/* Flip any bit of the last batch: it is void, and the rest is there; the next run goes on. */
RH_TEST(journal_damage, a_last_batch_that_is_damaged_anywhere_is_void)
{
    uint64_t from, to;

    make(30, 5);
    from = batch_at(1, 4);
    to = batch_at(1, 5) - RH_BATCH_ALIGN;
    for (uint64_t bit = 8 * from; bit < 8 * to; bit++) {
        put_back();
        disk_flip(rig_name(1), bit);
        rig_wants(&rig, 1, 4);
        rig_close(&rig);
    }
    rig_wants(&rig, 1, 4);
    rig_commit(&rig, 2);
    rig_close(&rig);
    rig_wants(&rig, 1, 6);
    rig_close(&rig);
}

/* ---- the middle ---- */

/* Whatever bit is flipped: real damage, or nothing is lost. In a batch that is not the last it is real. */
RH_TEST(journal_damage, a_flipped_bit_in_the_middle_is_found)
{
    uint64_t from, to;

    make(30, 5);
    from = batch_at(1, 2);
    to = batch_at(1, 3) - RH_BATCH_ALIGN;
    for (uint64_t bit = 8 * from; bit < 8 * to; bit++) {
        put_back();
        disk_flip(rig_name(1), bit);
        RH_EQ_INT(rig_open(&rig), RH_EIO);
    }
    wants_damage("journal-0000000000000001.seg is damaged at byte 4", "batches 3 to 3 are lost");
    wants_salvage(1, 5, 1, 1);
}

RH_TEST(journal_damage, a_flipped_bit_anywhere_loses_nothing_in_silence)
{
    make(700, 20);
    for (unsigned round = 0; round < 3000; round++) {
        const uint64_t segment = 1 + rh_test_rand() % 4;
        int rc;

        put_back();
        disk_flip(rig_name(segment), rh_test_rand() % (8 * RH_SEGMENT_BYTES_MIN));
        rc = rig_open(&rig);
        RH_OK_IF(rc == RH_EIO || (rc == RH_OK && rig.holes == 0 && rig.first == 1 &&
                                  rig.next >= 20)); /* the last batch may be the one */
        if (rc == RH_OK)
            rig_close(&rig);
    }
}

RH_TEST(journal_damage, a_zeroed_middle_is_found)
{
    make(30, 10);
    disk_zero(rig_name(1), batch_at(1, 3), 300);
    wants_damage("seg is damaged at byte", "a batch is damaged, and another follows; batches 4 to");
    rig.salvage = true;
    RH_OK_IF(rig_open(&rig) == RH_OK && rig.first == 1 && rig.next == 11 && rig.holes > 0);
    rig_close(&rig);
}

/* Two damaged batches at the end: at most one was not synced. The second one's header tells. */
RH_TEST(journal_damage, two_damaged_batches_at_the_end_are_real)
{
    uint64_t last;

    make(30, 5);
    last = batch_at(1, 4);
    disk_flip(rig_name(1), 8 * batch_at(1, 3));
    disk_flip(rig_name(1), 8 * (last + RH_BATCH_HEAD + 9));
    wants_damage(rig_name(1), "batches are damaged");
    wants_salvage(1, 3, 0, 1);
}

RH_TEST(journal_damage, a_damaged_end_of_a_segment_that_is_not_the_last_is_found)
{
    unsigned in_first = 0;

    make(700, 20);
    for (uint64_t at = 0; at < RH_SEGMENT_BYTES_MIN; in_first++) {
        struct rh_segment s;
        struct rh_batch b;
        uint64_t next;
        size_t len;
        bool torn;
        const uint8_t *bytes = disk_bytes(rig_name(1), &len);

        RH_OK_IF(rh_segment_open(&s, bytes, len) == RH_OK);
        at = batch_at(1, in_first);
        if (rh_segment_next(&s, at, &b, &next, &torn) == RH_PIECE_END)
            break;
    }
    disk_flip(rig_name(1), 8 * (batch_at(1, in_first - 1) + 100));
    wants_damage(rig_name(1), "a batch is damaged; batches");
    wants_salvage(1, 20, 1, 1);
}

/* ---- whole segments ---- */

RH_TEST(journal_damage, a_segment_that_is_missing_in_the_middle_is_found)
{
    make(700, 20);
    disk_delete(rig_name(2));
    wants_damage(rig_name(1), "batches end here; batches");
}

RH_TEST(journal_damage, a_segment_that_is_missing_at_the_beginning_is_found)
{
    make(700, 20);
    disk_delete(rig_name(1));
    wants_damage(rig_name(2), "it begins too late; batches 1 to");
}

RH_TEST(journal_damage, one_header_of_two_is_enough)
{
    make(700, 20);
    disk_zero(rig_name(1), 0, 2048);
    disk_zero(rig_name(2), 2048, 2048);
    rig_wants(&rig, 1, 20);
    rig_close(&rig);
}

RH_TEST(journal_damage, a_segment_without_a_header_is_found_if_it_had_batches)
{
    for (uint64_t segment = 1; segment <= 4; segment++) {
        make(700, 20);
        disk_zero(rig_name(segment), 0, 4096);
        wants_damage(rig_name(segment), "the header is damaged");
    }
    make(30, 5);
    disk_delete(rig_name(2));
    disk_zero(rig_name(1), 0, 4096);
    wants_damage(rig_name(1), "the header is damaged, and batches stand behind it");
}

RH_TEST(journal_damage, a_last_segment_without_header_and_batches_is_void)
{
    make(30, 5);
    RH_OK_IF(size_of(2) == RH_SEGMENT_BYTES_MIN || disk_size(rig_name(2)) < 0);
    disk_put(rig_name(2), "\0\0\0", 3);
    rig_wants(&rig, 1, 5);
    rig_commit(&rig, 1);
    rig_close(&rig);
    rig_wants(&rig, 1, 6);
    rig_close(&rig);
}

RH_TEST(journal_damage, a_segment_under_another_name_has_no_batches)
{
    size_t len;
    const uint8_t *bytes;

    make(30, 5);
    bytes = disk_bytes(rig_name(1), &len);
    disk_put(rig_name(9), bytes, len);
    rig_wants(&rig, 1, 5);
    rig_close(&rig);
}

RH_TEST(journal_damage, another_version_is_refused_even_by_salvage)
{
    uint8_t head[48];
    uint32_t sum;

    make(30, 5);
    memcpy(head, kept[0].bytes, sizeof(head));
    head[8] = 2;
    sum = rh_crc32c(0, head, 44);
    memcpy(head + 44, &sum, 4);
    memcpy(kept[0].bytes, head, sizeof(head));
    put_back();
    rig.salvage = true;
    wants_damage(rig_name(1), "another version");
}

/* ---- batches that make no sense, under sums that are right ---- */

/* A segment made by hand: `count` batches with these numbers and events. */
static void put_segment(uint64_t number, unsigned count, const uint64_t *numbers,
                        const uint64_t *events, const char *raw)
{
    static uint8_t bytes[RH_SEGMENT_BYTES_MIN];
    size_t at = RH_SEGMENT_HEAD;

    memset(bytes, 0, sizeof(bytes));
    rh_segment_seal(bytes, number, sizeof(bytes), 77);
    for (unsigned i = 0; i < count; i++) {
        const struct rh_jot jot = {.kind = RH_JOT_TIME, .at_ms = events[i]};
        uint8_t *body = bytes + at + RH_BATCH_HEAD;
        struct rh_batch b = {.number = numbers[i],
                             .keep_segment = 1,
                             .keep_batch = 1,
                             .events = 1,
                             .len = (uint32_t)(rh_jot_encode(body, &jot) - body),
                             .body = body};

        if (raw) {
            b.len = (uint32_t)strlen(raw);
            memcpy(body, raw, b.len);
        }
        rh_batch_seal(bytes + at, &b, number, rh_segment_seed(number, 77));
        at = rh_round_up(at + RH_BATCH_HEAD + b.len, RH_BATCH_ALIGN);
    }
    disk_put(rig_name(number), bytes, sizeof(bytes));
}

#define LIST(...) ((const uint64_t[]){__VA_ARGS__})

RH_TEST(journal_damage, events_that_make_no_sense_are_damage)
{
    rig_init(&rig);
    put_segment(1, 2, LIST(1, 2), LIST(1, 2), NULL);
    put_segment(2, 1, LIST(3), LIST(3), "\x63nonsense");
    wants_damage("journal-0000000000000002.seg is damaged at byte 4160",
                 "its events make no sense");
    put_segment(3, 1, LIST(4), LIST(4), NULL);
    wants_salvage(1, 4, 1, 1);
}

/* The event is fine, but there is more than the header says. */
RH_TEST(journal_damage, bytes_behind_the_events_are_damage)
{
    rig_init(&rig);
    put_segment(1, 1, LIST(1), LIST(1), "\x05\x01\x05\x01");
    wants_damage("byte 4162", "its events make no sense");
}

RH_TEST(journal_damage, a_batch_that_begins_the_next_segment_again_counts_once)
{
    rig_init(&rig);
    put_segment(1, 3, LIST(1, 2, 3), LIST(1, 2, 3), NULL);
    put_segment(2, 2, LIST(3, 4), LIST(3, 4), NULL);
    put_segment(3, 2, LIST(4, 5), LIST(4, 5), NULL);
    rig_wants(&rig, 1, 5);
    RH_EQ_U64(rig.read, 5);
    rig_close(&rig);
}

/* The later copy is the one that was synced. */
RH_TEST(journal_damage, of_two_copies_the_later_one_counts)
{
    rig_init(&rig);
    put_segment(1, 2, LIST(1, 2), LIST(1, 99), NULL);
    put_segment(2, 2, LIST(2, 3), LIST(2, 3), NULL);
    rig_wants(&rig, 1, 3);
    rig_close(&rig);
}

/* The last batch of a segment in its second copy: what is damaged there stands in the first. */
RH_TEST(journal_damage, a_copy_that_is_damaged_loses_nothing)
{
    rig_init(&rig);
    put_segment(1, 2, LIST(1, 2), LIST(1, 2), NULL);
    put_segment(2, 3, LIST(2, 3, 4), LIST(2, 3, 4), NULL);
    disk_flip(rig_name(2), 8 * 4096 + 3);
    rig_wants(&rig, 1, 4);
    rig_close(&rig);
}

RH_TEST(journal_damage, numbers_that_jump_or_go_back_are_damage)
{
    rig_init(&rig);
    put_segment(1, 3, LIST(1, 2, 4), LIST(1, 2, 4), NULL);
    wants_damage("byte", "it begins too late; batches 3 to 3 are lost");
    put_segment(1, 3, LIST(1, 2, 1), LIST(1, 2, 1), NULL);
    wants_damage("byte", "batch 1 stands behind batch 2");
    put_segment(1, 3, LIST(1, 2, 2), LIST(1, 2, 2), NULL);
    wants_damage("byte", "batch 2 stands behind batch 2");
    put_segment(1, 3, LIST(1, 2, 3), LIST(1, 2, 3), NULL);
    put_segment(2, 1, LIST(2), LIST(2), NULL);
    wants_damage(rig_name(2), "batch 2 stands behind batch 3");
}

/* What a user sends stands in a batch, and may look like batches. Without the salt it is none. */
RH_TEST(journal_damage, what_a_user_sends_is_never_taken_for_a_batch)
{
    uint8_t fake[RH_BATCH_HEAD + 16] = {0};
    struct rh_batch b = {.number = 9, .keep_segment = 1, .keep_batch = 1, .body = fake + 64};
    uint64_t at;

    make(700, 3);
    rh_batch_seal(fake, &b, 1, rh_segment_seed(1, 0));
    at = batch_at(1, 2);
    for (uint64_t place = at + 8; place + sizeof(fake) < at + 700; place += 8) {
        put_back();
        disk_zero(rig_name(1), place, sizeof(fake));
        for (unsigned i = 0; i < 8 * sizeof(fake); i++)
            if (fake[i / 8] >> (i % 8) & 1)
                disk_flip(rig_name(1), 8 * place + i);
        rig_wants(&rig, 1, 2);
        rig_close(&rig);
    }
}

/* A file that was used again has whole batches of its older life behind the new ones. */
RH_TEST(journal_damage, batches_of_an_older_life_are_not_seen)
{
    rig_init(&rig);
    rig.text = 200;
    rig_wants(&rig, 0, 0);
    for (unsigned i = 0; i < 300; i++) {
        rig_commit(&rig, 1);
        if (i % 10 == 0)
            rh_journal_release(rig.j, rh_journal_newest(rig.j));
    }
    rig_rest(&rig);
    rig_close(&rig);
    RH_OK_IF(rig_open(&rig) == RH_OK && rig.holes == 0 && rig.next == 301 && rig.first > 280);
    rig_close(&rig);
}

/* ---- errors on the way ---- */

static int refuse(void *arg, const struct rh_journal_at *at, const struct rh_jot *jot)
{
    (void)arg;
    RH_EQ_U64(at->batch, jot->at_ms);
    return jot->at_ms == 3 ? RH_EFULL : RH_OK;
}

RH_TEST(journal_damage, an_error_of_the_visitor_ends_it)
{
    struct rh_journal_opts opts = {.segment_bytes = RH_SEGMENT_BYTES_MIN};
    struct rh_journal *j = NULL;

    rig_init(&rig);
    put_segment(1, 4, LIST(1, 2, 3, 4), LIST(1, 2, 3, 4), NULL);
    RH_EQ_INT(rh_files_create("dir", &opts.files, NULL), RH_OK);
    RH_EQ_INT(rh_journal_open(&opts, refuse, NULL, &j, NULL), RH_EFULL);
    RH_OK_IF(!j);
    rh_files_destroy(opts.files);
}
