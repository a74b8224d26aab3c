/* tools/load/zip.c - permessage-deflate (--compress): both ends of it, for all connections of a worker.
 *
 * Why this way: contexts that outlive a message would be 40 KB a connection and direction, so the tool
 * asks the server to forget, and forgets itself. One deflater and one inflater then do for everybody.
 * A receiver that gets the same bytes as others before does not come here (mode_fanout.c).
 */
#include "core/err.h"
#include "tools/load/load.h"

#define LEVEL     1 /* the cheapest: this is not what is measured */
#define MEM_LEVEL 8
#define LEAST     512 /* bytes of a message that is worth it */

const struct rh_deflate_ask load_zip_ask = {.server_forgets = true, .client_forgets = true};

int load_zip_init(struct load_zip *z)
{
    int rc = rh_deflater_create(RH_DEFLATE_BITS_MAX, MEM_LEVEL, LEVEL, false, &z->deflater);

    return rc < 0 ? rc : rh_inflater_create(RH_DEFLATE_BITS_MAX, false, &z->inflater);
}

void load_zip_fini(struct load_zip *z)
{
    rh_deflater_destroy(z->deflater);
    rh_inflater_destroy(z->inflater);
    rh_deflate_out_trim(&z->out, 0);
    rh_deflate_out_trim(&z->in, 0);
    *z = (struct load_zip){.deflater = NULL};
}

bool load_zip_deflate(struct load_zip *z, const void *at, size_t len, struct rh_span *ret)
{
    if (len < LEAST || rh_deflate(z->deflater, at, len, &z->out) < 0 || z->out.len >= len)
        return false;
    *ret = (struct rh_span){(const char *)z->out.at, (uint32_t)z->out.len};
    return true;
}

bool load_zip_inflate(struct load_zip *z, struct rh_span packed, struct rh_span *ret)
{
    if (rh_inflate(z->inflater, packed.at, packed.len, LOAD_MESSAGE_MAX, &z->in) < 0)
        return false;
    *ret = (struct rh_span){(const char *)z->in.at, (uint32_t)z->in.len};
    return true;
}
