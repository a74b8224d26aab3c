/* shard/bundle.c - one run of bytes for many connections; the design is in bundle.h. */
#include "shard/bundle.h"

#include <string.h>

#include "core/mem.h"

static bool is_of(const struct rh_bundle *b, struct rh_handle *const of[], uint32_t count,
                  unsigned bits)
{
    return b && b->count == count && b->bits == bits &&
           memcmp(b->of, of, count * sizeof(of[0])) == 0;
}

static struct rh_bundle *make(struct rh_squeeze *sq, struct rh_handle *const of[], uint32_t count,
                              unsigned bits)
{
    struct rh_squeezed squeezed = {0};
    struct iovec frames[RH_BUNDLE_MAX];
    struct rh_bundle *b;
    size_t len = 0, used = 0;

    for (uint32_t i = 0; i < count; i++) {
        const struct rh_msg *msg = of[i]->msg;

        frames[i] = bits ? rh_squeeze_frame(sq, of[i], bits, &squeezed)
                         : (struct iovec){(void *)rh_msg_frame(msg), msg->frame_len};
        len += frames[i].iov_len;
    }
    b = rh_mem_alloc(sizeof(*b) + len);
    if (!b)
        return NULL;
    b->uses = 1;
    b->count = (uint16_t)count;
    b->bits = (uint16_t)bits;
    b->len = len;
    b->squeezed = squeezed;
    for (uint32_t i = 0; i < count; i++) {
        b->of[i] = of[i];
        rh_handle_ref(of[i]);
        memcpy(b->bytes + used, frames[i].iov_base, frames[i].iov_len);
        used += frames[i].iov_len;
    }
    return b;
}

struct rh_bundle *rh_bundle_take(struct rh_bundles *b, struct rh_handles *stock,
                                 struct rh_squeeze *sq, struct rh_handle *const of[],
                                 uint32_t count, unsigned bits)
{
    struct rh_bundle **newest = &b->newest[bits != 0];

    if (!is_of(*newest, of, count, bits)) {
        bool again = b->seen[bits != 0] == of[0];

        rh_assert(count >= RH_BUNDLE_MIN && count <= RH_BUNDLE_MAX);
        b->seen[bits != 0] = of[0];
        if (!again)
            return NULL;
        rh_bundle_give(stock, *newest);
        *newest = make(sq, of, count, bits);
        if (!*newest)
            return NULL;
    }
    if (bits)
        rh_squeeze_count(sq, &(*newest)->squeezed);
    (*newest)->uses++;
    return *newest;
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
    for (unsigned i = 0; i < RH_COUNT(b->newest); i++) {
        rh_bundle_give(stock, b->newest[i]);
        b->newest[i] = NULL;
        b->seen[i] = NULL;
    }
}
