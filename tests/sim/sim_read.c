/* tests/sim/sim_read.c - reading JSON that the hub wrote; see sim_read.h. */
#include "tests/sim/sim_read.h"

#include <string.h>

struct rh_json sim_whole(const char *at, size_t len)
{
    struct rh_json v = {0};

    if (!rh_json_scan(at, at + len, RH_JSON_DEPTH, &v))
        v.kind = RH_JSON_NONE;
    return v;
}

struct rh_json sim_get(struct rh_json object, const char *key)
{
    struct rh_json_iter it;
    struct rh_json v;
    struct rh_span name;

    if (object.kind != RH_JSON_OBJECT)
        return (struct rh_json){0};
    rh_json_members(&it, object);
    while (rh_json_next_member(&it, &name, &v))
        if (rh_json_str_eq(name, key, strlen(key)))
            return v;
    return (struct rh_json){0};
}

bool sim_has(struct rh_json object, const char *key)
{
    return sim_get(object, key).kind != RH_JSON_NONE;
}

uint64_t sim_get_u64(struct rh_json object, const char *key)
{
    uint64_t n;

    return rh_json_u64(sim_get(object, key), 0, UINT64_MAX, &n) ? n : 0;
}

bool sim_get_true(struct rh_json object, const char *key)
{
    return sim_get(object, key).kind == RH_JSON_TRUE;
}

const char *sim_get_text(struct rh_json object, const char *key, char *dst, size_t room)
{
    struct rh_json v = sim_get(object, key);
    int len = v.kind == RH_JSON_STRING ? rh_json_str_decode(dst, room - 1, v.raw) : 0;

    dst[len < 0 ? 0 : len] = '\0';
    return dst;
}

struct rh_span sim_get_raw(struct rh_json object, const char *key)
{
    struct rh_json v = sim_get(object, key);

    if (v.kind != RH_JSON_STRING)
        return (struct rh_span){0};
    return (struct rh_span){v.raw.at + 1, v.raw.len - 2};
}
