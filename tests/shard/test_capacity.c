/* tests/shard/test_capacity.c - the arithmetic of connections and descriptors. */
#include "shard/capacity.h"

#include <string.h>

#include "core/machine.h"
#include "shard/shard.h"
#include "tests/rh_test.h"

#define GIB (UINT64_C(1) << 30)

static struct rh_config *cfg;
static struct rh_machine machine;
static struct rh_capacity capacity;
static struct rh_fault fault;

/* A machine of 16 GiB (room for 1,677,721 connections) and 1,000 descriptors. */
static void setup(const char *key, const char *value)
{
    RH_EQ_INT(rh_config_create(&cfg), RH_OK);
    RH_EQ_INT(rh_config_set(cfg, "shards", "4", "test", &fault), RH_OK);
    if (key)
        RH_EQ_INT(rh_config_set(cfg, key, value, "test", &fault), RH_OK);
    machine = (struct rh_machine){16 * GIB, 1000, true, "this kernel is too old"};
}

static void set(const char *key, const char *value)
{
    RH_EQ_INT(rh_config_set(cfg, key, value, "test", &fault), RH_OK);
}

static void compute(void)
{
    RH_EQ_INT(rh_capacity(cfg, &machine, &capacity, &fault), RH_OK);
}

static void teardown(void)
{
    rh_config_destroy(cfg);
}

RH_TEST(capacity, direct_ones_where_the_limit_of_descriptors_would_be_the_bound)
{
    setup(NULL, NULL);
    compute();
    RH_EQ_U64(capacity.files, 1000);
    RH_EQ_U64(capacity.connections, 4 * (1000 - RH_TABLE_SPARE));
    RH_OK_IF(capacity.computed);
    RH_EQ_STR(capacity.bound, "descriptors");
    RH_OK_IF(strstr(capacity.hint, "more shards"));
    teardown();
}

RH_TEST(capacity, ordinary_ones_where_they_suffice)
{
    setup("limits.connections", "500");
    compute();
    RH_EQ_U64(capacity.files, 0);
    RH_EQ_U64(capacity.connections, 500);
    RH_OK_IF(!capacity.computed && capacity.reachable >= 500);
    RH_EQ_STR(capacity.bound, "configuration");
    machine.descriptors = 200000;
    machine.memory = GIB;
    set("limits.connections", "0");
    compute();
    RH_EQ_U64(capacity.files, 0);
    RH_EQ_U64(capacity.connections, 104857);
    teardown();
}

RH_TEST(capacity, memory_is_the_bound_where_descriptors_are_many)
{
    setup(NULL, NULL);
    machine.descriptors = 1 << 20;
    machine.memory = GIB;
    compute();
    RH_EQ_U64(capacity.files, 0);
    RH_EQ_U64(capacity.connections, 104857);
    RH_EQ_STR(capacity.bound, "memory");
    RH_OK_IF(strstr(capacity.hint, "80 % of the memory"));
    teardown();
}

RH_TEST(capacity, unknown_memory_bounds_nothing)
{
    setup(NULL, NULL);
    machine.memory = RH_MEMORY_UNKNOWN;
    compute();
    RH_EQ_U64(capacity.connections, 4 * (1000 - RH_TABLE_SPARE));
    RH_EQ_STR(capacity.bound, "descriptors");
    machine.memory = 0; /* there is none left: one is always let in */
    compute();
    RH_EQ_U64(capacity.connections, 1);
    RH_EQ_STR(capacity.bound, "memory");
    teardown();
}

/* A limit may be taken away while the hub runs. */
RH_TEST(capacity, what_there_is_room_for_is_known_beside_a_configured_limit)
{
    setup("limits.connections", "500");
    compute();
    RH_EQ_U64(capacity.room, capacity.reachable);
    RH_OK_IF(capacity.room >= 500 && capacity.room < 1000);
    machine.memory = GIB / 1024;
    compute();
    RH_EQ_U64(capacity.room, 102);
    RH_EQ_U64(capacity.connections, 500);
    teardown();
}

RH_TEST(capacity, ordinary_ones_by_configuration_leave_the_hub_what_it_needs)
{
    setup("io.descriptors", "ordinary");
    compute();
    RH_EQ_U64(capacity.files, 0);
    RH_OK_IF(capacity.connections > 700 && capacity.connections < 900);
    RH_EQ_STR(capacity.bound, "descriptors");
    RH_OK_IF(strstr(capacity.hint, "io.descriptors: auto"));
    machine.descriptors = 20; /* not even that: one is always let in */
    compute();
    RH_EQ_U64(capacity.connections, 1);
    teardown();
}

RH_TEST(capacity, a_table_is_no_larger_than_the_connections_need)
{
    setup("io.descriptors", "direct");
    machine.descriptors = 1 << 20;
    set("limits.connections", "5000");
    compute();
    RH_EQ_U64(capacity.files, 5000 + RH_TABLE_SPARE + RH_ACCEPTS);
    RH_OK_IF(capacity.reachable >= 5000);
    set("listen", "127.0.0.1:0,127.0.0.1:0,127.0.0.1:0");
    compute();
    RH_EQ_U64(capacity.files, 5000 + RH_TABLE_SPARE + 3 * RH_ACCEPTS);
    machine.descriptors = UINT32_MAX;
    set("limits.connections", "100000000");
    compute();
    RH_EQ_U64(capacity.files, RH_FILES_MAX);
    RH_EQ_STR(capacity.bound, "descriptors");
    RH_EQ_U64(capacity.connections, 100000000);
    RH_EQ_U64(capacity.reachable, 4 * (RH_FILES_MAX - RH_TABLE_SPARE));
    teardown();
}

RH_TEST(capacity, a_kernel_without_direct_ones_is_no_error_unless_they_are_asked_for)
{
    setup(NULL, NULL);
    machine.direct = false;
    compute();
    RH_EQ_U64(capacity.files, 0);
    RH_EQ_STR(capacity.hint, "this kernel is too old");
    set("io.descriptors", "direct");
    RH_EQ_INT(rh_capacity(cfg, &machine, &capacity, &fault), RH_EUNSUPPORTED);
    RH_OK_IF(strstr(fault.text, "io.descriptors: direct") &&
             strstr(fault.text, "this kernel is too old"));
    teardown();
}

RH_TEST(capacity, a_table_without_room_for_anybody_is_refused)
{
    setup(NULL, NULL);
    machine.descriptors = RH_TABLE_SPARE + RH_ACCEPTS - 1;
    compute();
    RH_EQ_U64(capacity.files, 0);
    set("io.descriptors", "direct");
    RH_EQ_INT(rh_capacity(cfg, &machine, &capacity, &fault), RH_EINVAL);
    RH_OK_IF(strstr(fault.text, "at least 96") && strstr(fault.text, "it is 95"));
    machine.descriptors++;
    compute();
    RH_EQ_U64(capacity.files, 96);
    RH_EQ_U64(capacity.connections, 4 * RH_ACCEPTS);
    teardown();
}
