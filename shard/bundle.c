/* shard/bundle.c - one run of bytes for many connections; the design is in bundle.h. */
#include "shard/bundle.h"

#include <string.h>

#include "core/mem.h"

static bool is_of(const struct rh_bundle *b, struct rh_handle *const of[], uint32_t count)
{
    return b && b->count == count && memcmp(b->of, of, count * sizeof(of[0])) == 0;
}

static struct rh_bundle *make(struct rh_handle *const of[], uint32_t count, size_t len)
{
    struct rh_bundle *b = rh_mem_alloc(sizeof(*b) + len);
    uint8_t *at;

    if (!b)
        return NULL;
    b->uses = 1;
    b->count = count;
    b->len = len;
    at = b->bytes;
    for (uint32_t i = 0; i < count; i++) {
        const struct rh_msg *msg = of[i]->msg;

        b->of[i] = of[i];
        rh_handle_ref(of[i]);
        memcpy(at, rh_msg_frame(msg), msg->frame_len);
        at += msg->frame_len;
    }
    rh_assert(at == b->bytes + len);
    return b;
}

struct rh_bundle *rh_bundle_take(struct rh_bundles *b, struct rh_handles *stock,
                                 struct rh_handle *const of[], uint32_t count, size_t len)
{
    if (!is_of(b->newest, of, count)) {
        bool again = b->seen == of[0];

        rh_assert(count >= RH_BUNDLE_MIN && count <= RH_BUNDLE_MAX);
        b->seen = of[0];
        if (!again)
            return NULL;
        rh_bundle_give(stock, b->newest);
        b->newest = make(of, count, len);
        if (!b->newest)
            return NULL;
    }
    b->newest->uses++;
    return b->newest;
}

void rh_bundle_give(struct rh_handles *stock, struct rh_bundle *bundle)
{
    if (!bundle || --bundle->uses)
        return;
    for (uint32_t i = 0; i < bundle->count; i++)
        rh_handle_unref(stock, bundle->of[i]);
    rh_mem_free(bundle);
}

void rh_bundles_forget(struct rh_bundles *b, struct rh_handles *stock)
{
    rh_bundle_give(stock, b->newest);
    b->newest = NULL;
    b->seen = NULL;
}
