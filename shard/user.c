/* shard/user.c - the users of this shard.
 *
 * A user exists here while it has a session, or is owed something. Its name falls on this shard, so this thread alone
 * decides which devices it has, and in which order messages reach them.
 */
#include <string.h>

#include "core/mem.h"
#include "shard/owed.h"

struct rh_user *rh_user_find(const struct rh_shard *sh, uint64_t hash, const char *name, size_t len)
{
    struct rh_map_node *node = rh_map_first(&sh->users, hash);

    for (; node; node = rh_map_again(node)) {
        struct rh_user *user = rh_container_of(node, struct rh_user, node);

        if (user->name_len == len && memcmp(user->name, name, len) == 0)
            return user;
    }
    return NULL;
}

static struct rh_user *user_create(struct rh_shard *sh, uint64_t hash, const char *name, size_t len)
{
    size_t size = RH_MAX(offsetof(struct rh_user, name) + len, sizeof(struct rh_user));
    struct rh_user *user = rh_mem_alloc(size);

    if (!user)
        return NULL;
    rh_assert(len <= RH_NAME_MAX);
    memset(user, 0, sizeof(*user));
    user->name_len = (uint8_t)len;
    memcpy(user->name, name, len);
    rh_map_add(&sh->users, &user->node, hash);
    return user;
}

static void user_drop_unused(struct rh_shard *sh, struct rh_user *user)
{
    if (user->pins || rh_session_next(user, NULL) || rh_owed_any(user))
        return;
    rh_assert(rh_user_devices(user) == 0 && rh_user_detached(user) == 0 &&
              rh_user_rooms(user) == 0);
    if (rh_user_retry(user)) /* one came behind the last device, while somebody walked over them */
        rh_retry_drop(sh, user);
    rh_map_del(&sh->users, &user->node);
    rh_mem_free(user->more);
    rh_mem_free(user);
}

struct rh_user *rh_user_take(struct rh_shard *sh, uint64_t hash, const char *name, size_t len)
{
    struct rh_user *user = rh_user_find(sh, hash, name, len);

    if (!user)
        user = user_create(sh, hash, name, len);
    if (user)
        rh_user_pin(user);
    return user;
}

struct rh_user_more *rh_user_more(struct rh_user *user)
{
    struct rh_user_more *more = user->more;

    if (more)
        return more;
    more = rh_mem_zalloc(sizeof(*more));
    if (!more)
        return NULL;
    rh_list_init(&more->others);
    more->rooms = rh_user_rooms(user); /* of its only session */
    return user->more = more;
}

void rh_user_pin(struct rh_user *user)
{
    rh_assert(user->pins < UINT8_MAX); /* as deep as calls are nested */
    user->pins++;
}

void rh_user_unpin(struct rh_shard *sh, struct rh_user *user)
{
    user->pins--;
    user_drop_unused(sh, user);
}
