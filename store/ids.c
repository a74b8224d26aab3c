/* store/ids.c - a queue of rows in chunks; see ids.h. */
#include "store/ids.h"

#include <string.h>

#include "core/mem.h"

struct rh_ids_chunk {
    struct rh_ids_chunk *next;
    uint32_t head, tail; /* rows lie in bytes[head..tail) */
    char bytes[RH_IDS_CHUNK - 16];
};

/* In front of the names; chunks are bytes, so it is copied in and out. */
struct row {
    uint64_t until_ms;
    uint64_t seq;
    uint32_t recipients;
    uint8_t kind_flags; /* enum rh_msg_kind, 128: RH_JOT_STORED */
    uint8_t from_len, to_len, id_len;
};

#define STORED 128

_Static_assert(sizeof(struct row) + 3 * UINT8_MAX < RH_IDS_CHUNK - 16, "a row fits a chunk");

static struct rh_ids_chunk *chunk_for(struct rh_ids *ids, size_t len)
{
    struct rh_ids_chunk *chunk = ids->last;

    if (chunk && chunk->tail + len <= sizeof(chunk->bytes))
        return chunk;
    chunk = rh_mem_alloc(sizeof(*chunk));
    if (!chunk)
        return NULL;
    chunk->next = NULL;
    chunk->head = chunk->tail = 0;
    if (ids->last)
        ids->last->next = chunk;
    else
        ids->first = chunk;
    ids->last = chunk;
    return chunk;
}

static void put(struct rh_ids_chunk *chunk, const void *at, size_t len)
{
    if (len)
        memcpy(chunk->bytes + chunk->tail, at, len);
    chunk->tail += (uint32_t)len;
}

int rh_ids_push(struct rh_ids *ids, const struct rh_jot *jot)
{
    struct row row = {
        .until_ms = jot->dedup_ms,
        .seq = jot->seq,
        .recipients = jot->recipients,
        .kind_flags = (uint8_t)(jot->msg_kind | (jot->flags & RH_JOT_STORED ? STORED : 0)),
        .from_len = (uint8_t)jot->from.len,
        .to_len = (uint8_t)jot->to.len,
        .id_len = (uint8_t)jot->id.len,
    };
    struct rh_ids_chunk *chunk;

    rh_assert(jot->from.len <= UINT8_MAX && jot->to.len <= UINT8_MAX && jot->id.len <= UINT8_MAX);
    chunk = chunk_for(ids, sizeof(row) + jot->from.len + jot->to.len + jot->id.len);
    if (!chunk)
        return RH_ENOMEM;
    put(chunk, &row, sizeof(row));
    put(chunk, jot->from.at, jot->from.len);
    put(chunk, jot->to.at, jot->to.len);
    put(chunk, jot->id.at, jot->id.len);
    ids->count++;
    ids->bytes += sizeof(row) + row.from_len + row.to_len + row.id_len;
    return RH_OK;
}

/* Reads the row at `offset`; returns the offset behind it. */
static uint32_t row_at(const struct rh_ids_chunk *chunk, uint32_t offset, struct rh_jot *ret_jot)
{
    const char *at = chunk->bytes + offset;
    struct row row;

    memcpy(&row, at, sizeof(row));
    at += sizeof(row);
    *ret_jot = (struct rh_jot){
        .kind = RH_JOT_ID,
        .msg_kind = row.kind_flags & (STORED - 1),
        .flags = row.kind_flags & STORED ? RH_JOT_STORED : 0,
        .dedup_ms = row.until_ms,
        .seq = row.seq,
        .recipients = row.recipients,
        .from = {at, row.from_len},
        .to = {at + row.from_len, row.to_len},
        .id = {at + row.from_len + row.to_len, row.id_len},
    };
    return offset + (uint32_t)sizeof(row) + row.from_len + row.to_len + row.id_len;
}

bool rh_ids_first(const struct rh_ids *ids, struct rh_jot *ret_jot)
{
    if (!ids->count)
        return false;
    row_at(ids->first, ids->first->head, ret_jot);
    return true;
}

void rh_ids_pop(struct rh_ids *ids)
{
    struct rh_ids_chunk *chunk = ids->first;
    struct rh_jot jot;

    rh_assert(ids->count);
    ids->bytes += chunk->head;
    chunk->head = row_at(chunk, chunk->head, &jot);
    ids->bytes -= chunk->head;
    ids->count--;
    if (chunk->head < chunk->tail)
        return;
    ids->first = chunk->next;
    if (!ids->first)
        ids->last = NULL;
    rh_mem_free(chunk);
}

bool rh_ids_next(const struct rh_ids *ids, struct rh_ids_at *at, struct rh_jot *ret_jot)
{
    if (!at->chunk)
        *at = (struct rh_ids_at){ids->first, ids->first ? ids->first->head : 0};
    while (at->chunk && at->offset == at->chunk->tail) {
        if (!at->chunk->next)
            return false;
        at->chunk = at->chunk->next;
        at->offset = at->chunk->head;
    }
    if (!at->chunk)
        return false;
    at->offset = row_at(at->chunk, at->offset, ret_jot);
    return true;
}

void rh_ids_fini(struct rh_ids *ids)
{
    while (ids->first) {
        struct rh_ids_chunk *chunk = ids->first;

        ids->first = chunk->next;
        rh_mem_free(chunk);
    }
    ids->last = NULL;
    ids->count = 0;
    ids->bytes = 0;
}
