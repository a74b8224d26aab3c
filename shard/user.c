/* shard/user.c - the users of this shard.
 *
 * A user exists here while it has a session. Its name falls on this shard, so this thread alone
 * decides which devices it has, and in which order messages reach them.
 */
#include "shard/shard_int.h"

#include <string.h>

#include "core/mem.h"

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
    struct rh_user *user = rh_mem_alloc(sizeof(*user) + len);

    if (!user)
        return NULL;
    rh_assert(len <= RH_NAME_MAX);
    memset(user, 0, sizeof(*user));
    rh_list_init(&user->sessions);
    user->name_len = (uint8_t)len;
    memcpy(user->name, name, len);
    rh_map_add(&sh->users, &user->node, hash);
    return user;
}

static void user_drop_unused(struct rh_shard *sh, struct rh_user *user)
{
    if (user->pins || !rh_list_empty(&user->sessions))
        return;
    rh_assert(user->room_count == 0 && user->devices == 0);
    if (user->retry) /* one came behind the last connection, while somebody walked over them */
        rh_retry_drop(sh, user);
    rh_map_del(&sh->users, &user->node);
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

void rh_user_pin(struct rh_user *user)
{
    user->pins++;
}

void rh_user_unpin(struct rh_shard *sh, struct rh_user *user)
{
    user->pins--;
    user_drop_unused(sh, user);
}
