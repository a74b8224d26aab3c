/* tests/core/test_machine.c - limits of control groups from files made by hand, and this machine's. */
#include "core/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/rh_test.h"

static char root[64];

static void begin(void)
{
    snprintf(root, sizeof(root), "/tmp/rh_machine.XXXXXX");
    RH_OK_IF(mkdtemp(root));
}

static void end(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", root);
    RH_EQ_INT(system(command), 0);
}

/* Writes a file, and makes the folders above it. */
static void put(const char *path, const char *text)
{
    char whole[256];
    FILE *file;

    snprintf(whole, sizeof(whole), "%s%s", root, path);
    for (char *at = whole + strlen(root) + 1; (at = strchr(at, '/')); at++) {
        *at = '\0';
        mkdir(whole, 0700);
        *at = '/';
    }
    file = fopen(whole, "we");
    RH_OK_IF(file && fputs(text, file) >= 0);
    fclose(file);
}

#define V2 "0::/a/b\n"

RH_TEST(machine, a_group_without_a_limit_bounds_nothing)
{
    begin();
    RH_EQ_U64(rh_machine_cgroup("", root), UINT64_MAX);
    RH_EQ_U64(rh_machine_cgroup(V2, root), UINT64_MAX); /* no files at all */
    put("/a/b/memory.max", "max\n");
    put("/a/b/memory.current", "4096\n");
    RH_EQ_U64(rh_machine_cgroup(V2, root), UINT64_MAX);
    end();
}

RH_TEST(machine, what_a_group_has_used_is_not_left)
{
    begin();
    put("/a/b/memory.max", "1000000\n");
    RH_EQ_U64(rh_machine_cgroup(V2, root), 1000000);
    put("/a/b/memory.current", "300000\n");
    RH_EQ_U64(rh_machine_cgroup(V2, root), 700000);
    put("/a/b/memory.current", "1300000\n");
    RH_EQ_U64(rh_machine_cgroup(V2, root), 0);
    end();
}

RH_TEST(machine, file_pages_that_nobody_uses_are_left)
{
    begin();
    put("/a/b/memory.max", "1000000\n");
    put("/a/b/memory.current", "1000000\n");
    put("/a/b/memory.stat", "anon 300000\nfile 700000\nactive_file 200000\ninactive_file 500000\n");
    RH_EQ_U64(rh_machine_cgroup(V2, root), 500000);
    put("/a/b/memory.stat", "inactive_file 2000000\n"); /* of another moment */
    RH_EQ_U64(rh_machine_cgroup(V2, root), 1000000);
    put("/memory/x/memory.limit_in_bytes", "5000\n");
    put("/memory/x/memory.usage_in_bytes", "4000\n");
    put("/memory/x/memory.stat", "inactive_file 1\ntotal_inactive_file 2000\n");
    RH_EQ_U64(rh_machine_cgroup("4:memory:/x\n", root), 3000);
    end();
}

RH_TEST(machine, the_tightest_level_counts)
{
    begin();
    put("/a/b/memory.max", "900000\n");
    put("/a/memory.max", "500000\n");
    put("/a/memory.current", "100000\n");
    RH_EQ_U64(rh_machine_cgroup(V2, root), 400000);
    put("/memory.max", "200000\n"); /* where a container's root is */
    RH_EQ_U64(rh_machine_cgroup(V2, root), 200000);
    RH_EQ_U64(rh_machine_cgroup("0::/elsewhere\n", root), 200000);
    RH_EQ_U64(rh_machine_cgroup("0::/\n", root), 200000);
    end();
}

RH_TEST(machine, the_older_groups_count_as_well)
{
    static const char self[] = "9:pids:/\n4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n";

    begin();
    put("/memory/memory.limit_in_bytes", "9223372036854771712\n"); /* their "none" */
    RH_OK_IF(rh_machine_cgroup(self, root) > UINT64_C(1) << 60);
    put("/memory/x/memory.limit_in_bytes", "5000\n");
    put("/memory/x/memory.usage_in_bytes", "2000\n");
    RH_EQ_U64(rh_machine_cgroup(self, root), 3000);
    RH_EQ_U64(rh_machine_cgroup("4:memory:/x", root), 3000); /* a line without its end */
    RH_EQ_U64(rh_machine_cgroup("garbage\n::\n:\n4:memory:/x\n", root), 3000);
    end();
}

RH_TEST(machine, this_one_has_memory)
{
    RH_OK_IF(rh_machine_memory() > 1 << 20);
}

RH_TEST(machine, the_soft_limit_of_descriptors_becomes_the_hard_one)
{
    struct rlimit limit = {50, 60};

    RH_EQ_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    RH_EQ_U64(rh_machine_descriptors(), 60);
    RH_EQ_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    RH_EQ_U64(limit.rlim_cur, 60);
    RH_EQ_U64(rh_machine_descriptors(), 60);
}
