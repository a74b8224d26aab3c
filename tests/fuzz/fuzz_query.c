/* tests/fuzz/fuzz_query.c - queries, percent escapes and lists of rooms of any bytes.
 *
 * What is accepted is checked by its rules: names that may be names, epochs that may be epochs, and a
 * walk that ends. */
#include <stdlib.h>
#include <string.h>

#include "core/base.h"
#include "proto/query.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_list(struct rh_span list)
{
    struct rh_wish w;
    uint32_t items = 0;

    while (rh_wish_next(&list, &w) > 0) {
        rh_assert(rh_name_ok(w.name, w.len));
        rh_assert(w.since <= RH_ROOM_SEQ_MAX && (w.has_since || w.since == 0));
        rh_assert(!w.has_epoch || rh_epoch_ok(w.epoch));
        items++;
    }
    rh_assert(items <= 1u << 20);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = malloc(size ? size : 1); /* so that a byte too many is found */
    struct rh_span query = {copy, (uint32_t)size}, rest = query, name, value;
    char decoded[RH_NAME_MAX];
    bool more;

    memcpy(copy, data, size);
    while (rh_query_next(&rest, &name, &value)) {
        int len = rh_percent_decode(decoded, sizeof(decoded), value);

        rh_assert(len <= (int)sizeof(decoded));
        if (len > 0)
            rh_name_ok(decoded, (size_t)len);
        check_list(value);
    }
    if (rh_query_find(query, "rooms", &value, &more))
        check_list(value);
    check_list(query);
    free(copy);
    return 0;
}
