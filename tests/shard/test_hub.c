/* A hub as an embedder has it: through core/ringhub.h alone, with real threads and sockets. */
#include "core/ringhub.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/rh_test.h"

static struct rh_config *config(const char *listen, const char *shards)
{
    struct rh_config *cfg;
    struct rh_fault fault;

    RH_EQ_INT(rh_config_create(&cfg), RH_OK);
    RH_EQ_INT(rh_config_set(cfg, "listen", listen, "test", &fault), RH_OK);
    RH_EQ_INT(rh_config_set(cfg, "shards", shards, "test", &fault), RH_OK);
    RH_EQ_INT(rh_config_set(cfg, "log.level", "error", "test", &fault), RH_OK);
    RH_EQ_INT(rh_config_set(cfg, "store.durability", "memory", "test", &fault), RH_OK);
    return cfg;
}

static struct rh_hub *hub_of(const char *listen, const char *shards)
{
    struct rh_config *cfg = config(listen, shards);
    struct rh_fault fault = {""};
    struct rh_hub *hub = NULL;

    if (rh_hub_create(cfg, &hub, &fault) < 0)
        RH_FAIL("%s", fault.text);
    rh_config_destroy(cfg); /* the hub has a copy */
    return hub;
}

static int dial(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    const char *colon = strrchr(address, ':');
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    to.sin_port = htons((uint16_t)atoi(colon + 1));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    RH_OK_IF(fd >= 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
        return fd;
    close(fd);
    return -1;
}

/* The first bytes of the answer to a GET. */
static void get(const char *address, const char *path, char *answer, size_t room)
{
    char request[128];
    int fd = dial(address);
    ssize_t n;

    RH_OK_IF(fd >= 0);
    n = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    RH_OK_IF(write(fd, request, (size_t)n) == n);
    n = read(fd, answer, room - 1);
    RH_OK_IF(n > 0);
    answer[n] = '\0';
    close(fd);
}

RH_TEST(hub, it_listens_where_it_says_and_answers_on_every_shard)
{
    struct rh_hub *hub = hub_of("127.0.0.1:0", "3");
    const char *address = rh_hub_address(hub, 0);
    char answer[512];

    RH_EQ_INT(rh_hub_shards(hub), 3);
    ck_assert_ptr_nonnull(address);
    ck_assert_ptr_null(rh_hub_address(hub, 1));
    RH_EQ_INT(rh_hub_start(hub, NULL), RH_OK);
    for (int i = 0; i < 30; i++) { /* the kernel chooses the shard */
        get(address, "/livez", answer, sizeof(answer));
        ck_assert_ptr_nonnull(strstr(answer, "200 OK"));
    }
    rh_hub_destroy(hub);
}

RH_TEST(hub, stopping_twice_is_fine_and_frees_the_port)
{
    struct rh_hub *hub = hub_of("127.0.0.1:0", "2");
    char address[64];

    snprintf(address, sizeof(address), "%s", rh_hub_address(hub, 0));
    RH_EQ_INT(rh_hub_start(hub, NULL), RH_OK);
    RH_EQ_INT(rh_hub_stop(hub), RH_OK);
    RH_EQ_INT(rh_hub_stop(hub), RH_OK);
    RH_OK_IF(dial(address) < 0);
    rh_hub_destroy(hub);
    hub = hub_of(address, "2");
    RH_EQ_INT(rh_hub_start(hub, NULL), RH_OK);
    rh_hub_destroy(hub);
}

RH_TEST(hub, starting_twice_is_an_error)
{
    struct rh_hub *hub = hub_of("127.0.0.1:0", "1");
    struct rh_fault fault = {""};

    RH_EQ_INT(rh_hub_start(hub, &fault), RH_OK);
    RH_EQ_INT(rh_hub_start(hub, &fault), RH_ESTATE);
    RH_OK_IF(fault.text[0]);
    rh_hub_destroy(hub);
}

RH_TEST(hub, one_that_was_never_started_can_be_stopped_and_destroyed)
{
    struct rh_hub *hub = hub_of("127.0.0.1:0", "4");

    RH_EQ_INT(rh_hub_stop(hub), RH_OK);
    rh_hub_destroy(hub);
    rh_hub_destroy(NULL);
}

RH_TEST(hub, a_port_in_use_is_said_at_creation)
{
    struct rh_hub *first = hub_of("127.0.0.1:0", "1"), *second = NULL;
    struct rh_config *cfg = config(rh_hub_address(first, 0), "1");
    struct rh_fault fault = {""};

    RH_EQ_INT(rh_hub_create(cfg, &second, &fault), RH_EADDRINUSE);
    ck_assert_ptr_null(second);
    ck_assert_ptr_nonnull(strstr(fault.text, "in use"));
    rh_config_destroy(cfg);
    rh_hub_destroy(first);
}

RH_TEST(hub, two_hubs_live_in_one_process)
{
    struct rh_hub *first = hub_of("127.0.0.1:0", "2"), *second = hub_of("127.0.0.1:0", "2");
    char answer[512];

    RH_EQ_INT(rh_hub_start(first, NULL), RH_OK);
    RH_EQ_INT(rh_hub_start(second, NULL), RH_OK);
    rh_hub_stop(first);
    get(rh_hub_address(second, 0), "/readyz", answer, sizeof(answer));
    ck_assert_ptr_nonnull(strstr(answer, "200 OK"));
    rh_hub_destroy(second);
    rh_hub_destroy(first); /* it had started the log */
}

/* Goal    an ordinary user with little lockable memory gets a hub all the same, on smaller rings.
 * Method  the limit of 1 MiB counts only without CAP_IPC_LOCK: as nobody, where we may become that. */
RH_TEST(hub, little_lockable_memory_makes_smaller_rings)
{
    struct rlimit limit = {1 << 20, 1 << 20};
    struct rh_hub *hub;
    char answer[512];

    RH_EQ_INT(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    if (geteuid() == 0)
        RH_EQ_INT(setuid(65534), 0);
    hub = hub_of("127.0.0.1:0", "4");
    RH_EQ_INT(rh_hub_start(hub, NULL), RH_OK);
    get(rh_hub_address(hub, 0), "/livez", answer, sizeof(answer));
    ck_assert_ptr_nonnull(strstr(answer, "200 OK"));
    rh_hub_destroy(hub);
}

RH_TEST(hub, an_unsafe_address_is_refused)
{
    struct rh_config *cfg = config("0.0.0.0:0", "1");
    struct rh_hub *hub = NULL;
    struct rh_fault fault = {""};

    RH_EQ_INT(rh_hub_create(cfg, &hub, &fault), RH_EINVAL);
    ck_assert_ptr_nonnull(strstr(fault.text, "allow_insecure"));
    rh_config_destroy(cfg);
}
