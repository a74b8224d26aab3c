/* shard/roster.c - the members of a room in the order in which they joined; the design is in
 * roster.h.
 *
 * Why this way: a vector sorted by ord, since a new member is always the last one. Who leaves only
 * leaves a gap behind, which keeps its ord, so that the binary search still works. Once more
 * places are gaps than not, all move together: each deletion pays for a constant part of that.
 *
 * Invariant  the last place is no gap, and at most half of them (and MIN_PLACES) are.
 */
#include "shard/roster.h"

#include "core/mem.h"
#include "shard/room_int.h"

#define MIN_PLACES 8

struct place {
    uint64_t ord;
    struct rh_member *member; /* NULL: a gap */
};

struct rh_roster {
    uint32_t room, used; /* places */
    uint32_t gaps;       /* of those used */
    struct place at[];
};

static size_t bytes_for(uint32_t room)
{
    return sizeof(struct rh_roster) + room * sizeof(struct place);
}

/* The first place whose ord is larger; `used` if none is. */
static uint32_t find_after(const struct rh_roster *r, uint64_t ord)
{
    uint32_t low = 0, high = r->used;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if (r->at[mid].ord > ord)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

static int grow(struct rh_roster **roster)
{
    uint32_t room = *roster ? (*roster)->room * 2 : MIN_PLACES;
    struct rh_roster *more = rh_mem_realloc(*roster, bytes_for(room));

    if (!more)
        return RH_ENOMEM;
    if (!*roster)
        more->used = more->gaps = 0;
    more->room = room;
    *roster = more;
    return RH_OK;
}

int rh_roster_add(struct rh_roster **roster, struct rh_member *member)
{
    struct rh_roster *r = *roster;

    if ((!r || r->used == r->room) && grow(roster) < 0)
        return RH_ENOMEM;
    r = *roster;
    rh_assert(r->used == 0 || r->at[r->used - 1].ord < member->ord);
    r->at[r->used++] = (struct place){member->ord, member};
    return RH_OK;
}

static void close_gaps(struct rh_roster *r)
{
    uint32_t used = 0;

    for (uint32_t i = 0; i < r->used; i++)
        if (r->at[i].member)
            r->at[used++] = r->at[i];
    r->used = used;
    r->gaps = 0;
}

/* Gives memory back if most of it is unused. */
static void shrink(struct rh_roster **roster)
{
    uint32_t room = (*roster)->room;
    struct rh_roster *less;

    while (room > MIN_PLACES && (*roster)->used <= room / 4)
        room /= 2;
    if (room == (*roster)->room)
        return;
    less = rh_mem_realloc(*roster, bytes_for(room));
    if (!less) /* it stays as large as it is */
        return;
    less->room = room;
    *roster = less;
}

void rh_roster_del(struct rh_roster **roster, const struct rh_member *member)
{
    struct rh_roster *r = *roster;
    uint32_t at = find_after(r, member->ord - 1);

    rh_assert(at < r->used && r->at[at].member == member);
    r->at[at].member = NULL;
    r->gaps++;
    while (r->used > 0 && !r->at[r->used - 1].member) {
        r->used--;
        r->gaps--;
    }
    if (r->gaps > MIN_PLACES && r->gaps > r->used / 2)
        close_gaps(r);
    if (r->used == 0)
        rh_roster_fini(roster);
    else
        shrink(roster);
}

void rh_roster_fini(struct rh_roster **roster)
{
    rh_mem_free(*roster);
    *roster = NULL;
}

struct rh_member *rh_roster_after(const struct rh_roster *roster, uint64_t ord)
{
    if (!roster)
        return NULL;
    for (uint32_t i = find_after(roster, ord); i < roster->used; i++)
        if (roster->at[i].member)
            return roster->at[i].member;
    return NULL;
}

/* ---- pages ---- */

/* Three numbers and all that is fixed of an item, and of what stands around the items. */
#define MEMBER_ROOM 128

static size_t member_room(const struct rh_member *m)
{
    return MEMBER_ROOM + RH_JSON_ESCAPED_MAX(m->name_len) + RH_JSON_ESCAPED_MAX(m->type_len);
}

static void put_member(struct rh_writer *w, const struct rh_member *m)
{
    RH_PUT(w, "{\"user\":");
    rh_put_str(w, (struct rh_span){m->bytes, m->name_len});
    RH_PUT(w, ",\"user_type\":");
    rh_put_str(w, (struct rh_span){m->bytes + m->name_len, m->type_len});
    RH_PUT(w, ",\"since\":");
    rh_put_u64(w, m->since_ms);
    RH_PUT(w, ",\"devices\":");
    rh_put_u64(w, m->live);
    RH_PUT(w, "}");
}

/* How many members the page has, and the room that its text needs at most. */
static uint32_t page_of(const struct rh_roster *r, uint64_t ord, uint32_t limit, size_t *ret_room)
{
    uint32_t count = 0;
    struct rh_member *m = rh_roster_after(r, ord);

    *ret_room = MEMBER_ROOM;
    for (; m && count < limit && *ret_room < RH_PAGE_BYTES; count++) {
        *ret_room += member_room(m);
        m = rh_roster_after(r, m->ord);
    }
    return count;
}

struct rh_text *rh_roster_page(const struct rh_roster *roster, uint64_t ord, uint32_t limit)
{
    size_t size;
    uint32_t count = page_of(roster, ord, limit, &size);
    struct rh_text *text = rh_mem_alloc(sizeof(*text) + size), *less;
    struct rh_writer w;

    if (!text)
        return NULL;
    rh_writer_init(&w, text->at, size);
    RH_PUT(&w, "{\"items\":[");
    for (uint32_t i = 0; i < count; i++) {
        const struct rh_member *m = rh_roster_after(roster, ord);

        if (i)
            RH_PUT(&w, ",");
        put_member(&w, m);
        ord = m->ord;
    }
    RH_PUT(&w, "],\"next\":");
    if (rh_roster_after(roster, ord)) {
        RH_PUT(&w, "\"");
        rh_put_u64(&w, ord);
        RH_PUT(&w, "\"}");
    } else {
        RH_PUT(&w, "null}");
    }
    rh_assert(!w.full);
    text->len = rh_writer_len(&w);
    less = rh_mem_realloc(text, sizeof(*text) + text->len); /* a name may be six times shorter */
    return less ? less : text;
}
