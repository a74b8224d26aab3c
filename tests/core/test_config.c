/* tests/core/test_config.c - configuration: files, environment, single values, and what they say
 * when something is wrong.
 *
 * Goal    every key means the same wherever it is set, and every mistake is answered with its
 *         place, its key and what would have been right.
 * Method  through the public functions, with real files in a directory of the test's own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/config.h"
#include "core/mem.h"
#include "core/promise.h"
#include "core/ringhub.h"
#include "tests/rh_test.h"

static struct rh_config *cfg;
static struct rh_fault fault;

static void begin(void)
{
    RH_EQ_INT(rh_config_create(&cfg), 0);
    fault.text[0] = '\0';
}

static void end(void)
{
    rh_config_destroy(cfg);
}

/* Loads `yaml` as the file "t.yaml" over the defaults. */
static int load(const char *yaml)
{
    return rh_config_load_text(cfg, "t.yaml", yaml, strlen(yaml), &fault);
}

static int set(const char *key, const char *value)
{
    return rh_config_set(cfg, key, value, "--set", &fault);
}

static int env(const char *entry)
{
    char *const environment[] = {"HOME=/", (char *)(uintptr_t)entry, "PATH=/bin", NULL};

    return rh_config_load_env(cfg, environment, &fault);
}

static void expect_load(const char *yaml, int rc, const char *text)
{
    begin();
    RH_EQ_INT(load(yaml), rc);
    RH_EQ_STR(fault.text, text);
    end();
}

static void expect_set(const char *key, const char *value, int rc, const char *text)
{
    begin();
    RH_EQ_INT(set(key, value), rc);
    RH_EQ_STR(fault.text, text);
    end();
}

/* ---- defaults ------------------------------------------------------------------------------- */

RH_TEST(config, without_a_file_the_defaults_of_the_contract_stand)
{
    begin();
    RH_EQ_U64(cfg->listen.count, 1);
    RH_EQ_STR(cfg->listen.at[0].text, "127.0.0.1:8080");
    RH_OK_IF(cfg->shards >= 1 && cfg->shards <= 64);
    RH_EQ_INT(cfg->auth_mode, RH_AUTH_NONE);
    RH_OK_IF(!cfg->auth_allow_insecure);
    RH_EQ_U64(cfg->limits_message_size, 1 << 20);
    RH_EQ_U64(cfg->limits_head_size, 16 << 10);
    RH_EQ_U64(cfg->limits_handshake_timeout_ms, 10000);
    RH_EQ_U64(cfg->limits_invalid_messages, 10);
    RH_EQ_U64(cfg->limits_send_queue_bytes, 1 << 20);
    RH_EQ_U64(cfg->limits_send_queue_messages, 256);
    RH_EQ_INT(cfg->limits_slow_consumer, RH_SLOW_DISCONNECT);
    RH_EQ_U64(cfg->limits_send_timeout_ms, 30000);
    RH_EQ_U64(cfg->heartbeat_interval_ms, 30000);
    RH_EQ_U64(cfg->heartbeat_timeout_ms, 90000);
    RH_EQ_U64(cfg->limits_connections, 0);
    RH_EQ_U64(cfg->limits_connections_per_user, 1000);
    RH_EQ_U64(cfg->limits_connections_per_address, 0);
    RH_EQ_U64(cfg->limits_handshakes, 10000);
    RH_EQ_U64(cfg->users_max_devices, 0);
    RH_EQ_INT(cfg->users_on_limit, RH_ON_LIMIT_KICK);
    RH_EQ_U64(cfg->security_origins.count, 0);
    RH_OK_IF(!rh_config_list_next(&cfg->security_origins, NULL));
    RH_OK_IF(!cfg->security_require_origin);
    RH_EQ_U64(cfg->security_rate_limit_messages_per_second, 0);
    RH_EQ_U64(cfg->security_rate_limit_burst, 0);
    RH_EQ_U64(cfg->security_rate_limit_handshakes_per_second, 0);
    RH_EQ_U64(cfg->retry_base_delay_ms, 100);
    RH_OK_IF(cfg->retry_backoff_factor == 2.0);
    RH_EQ_U64(cfg->retry_max_delay_ms, 5000);
    RH_EQ_U64(cfg->retry_max_retries, 3);
    RH_EQ_U64(cfg->resume_window_ms, 10000);
    RH_OK_IF(cfg->rooms_auto_create);
    RH_EQ_U64(cfg->rooms_max_members, 0);
    RH_EQ_U64(cfg->rooms_per_user, 100);
    RH_EQ_U64(cfg->rooms_notify_max, 256);
    RH_EQ_U64(cfg->rooms_history_size, 100);
    RH_EQ_U64(cfg->rooms_history_ttl_ms, 3600000);
    RH_EQ_U64(cfg->rooms_empty_ttl_ms, 600000);
    RH_EQ_U64(cfg->rooms_broadcasts_per_minute, 0);
    RH_EQ_U64(cfg->shutdown_grace_ms, 10000);
    RH_EQ_U64(cfg->shutdown_spread_ms, 5000);
    RH_EQ_U64(cfg->drain_rate, 0);
    RH_EQ_INT(cfg->io_backend, RH_BACKEND_AUTO);
    RH_OK_IF(!cfg->echo_enabled);
    RH_EQ_INT(cfg->log_level, RH_LOG_INFO);
    RH_EQ_INT(cfg->log_format, RH_LOG_JSON);
    RH_EQ_STR(cfg->log_file, "");
    RH_EQ_INT(rh_config_check(cfg, &fault), 0);
    end();
}

RH_TEST(config, a_process_that_may_use_one_cpu_gets_one_shard)
{
    cpu_set_t set;
    cpu_set_t only;

    RH_EQ_INT(sched_getaffinity(0, sizeof(set), &set), 0);
    CPU_ZERO(&only);
    for (size_t i = 0; CPU_COUNT(&only) == 0; i++)
        if (CPU_ISSET(i, &set))
            CPU_SET(i, &only);
    begin();
    RH_EQ_U64(cfg->shards, (unsigned)RH_MIN(CPU_COUNT(&set), 64));
    end();
    RH_EQ_INT(sched_setaffinity(0, sizeof(only), &only), 0);
    begin();
    RH_EQ_U64(cfg->shards, 1);
    end();
}

RH_TEST(config, an_empty_file_leaves_the_defaults)
{
    static const char *const files[] = {"", "\n\n", "# nothing\n", "---\n", "{}\n", "---\n...\n"};

    for (size_t i = 0; i < RH_COUNT(files); i++) {
        begin();
        RH_EQ_INT(load(files[i]), 0);
        RH_EQ_U64(cfg->limits_message_size, 1 << 20);
        end();
    }
}

/* ---- files ---------------------------------------------------------------------------------- */

RH_TEST(config, nested_groups_and_dotted_keys_are_the_same)
{
    static const char *const files[] = {
        "limits:\n  message_size: 64KiB\n  head_size: 2KiB\n",
        "limits: {message_size: 64KiB, head_size: 2KiB}\n",
        "limits.message_size: 64KiB\nlimits.head_size: 2KiB\n",
        "limits: {head_size: 2KiB}\nlimits.message_size: 65536\n",
        "\"limits\": {'message_size': \"64KiB\", head_size: '2048B'}\n",
    };

    for (size_t i = 0; i < RH_COUNT(files); i++) {
        begin();
        ck_assert_msg(load(files[i]) == 0, "%s", fault.text);
        RH_EQ_U64(cfg->limits_message_size, 64 << 10);
        RH_EQ_U64(cfg->limits_head_size, 2 << 10);
        end();
    }
}

RH_TEST(config, listen_is_an_address_or_a_list)
{
    begin();
    RH_EQ_INT(load("listen: 127.0.0.1:0\n"), 0);
    RH_EQ_U64(cfg->listen.count, 1);
    RH_EQ_U64(cfg->listen.at[0].addr.v4.sin_port, 0);
    RH_EQ_INT(load("listen:\n  - 127.0.0.9:81\n  - '[::1]:82'\n"), 0);
    RH_EQ_U64(cfg->listen.count, 2);
    RH_EQ_INT(cfg->listen.at[0].addr.v4.sin_family, AF_INET);
    RH_EQ_U64(ntohs(cfg->listen.at[0].addr.v4.sin_port), 81);
    RH_EQ_U64(ntohl(cfg->listen.at[0].addr.v4.sin_addr.s_addr), 0x7f000009);
    RH_EQ_U64(cfg->listen.at[0].addr_len, sizeof(struct sockaddr_in));
    RH_EQ_INT(cfg->listen.at[1].addr.v6.sin6_family, AF_INET6);
    RH_EQ_U64(ntohs(cfg->listen.at[1].addr.v6.sin6_port), 82);
    RH_EQ_U64(cfg->listen.at[1].addr_len, sizeof(struct sockaddr_in6));
    RH_OK_IF(cfg->listen.at[0].loopback && cfg->listen.at[1].loopback);
    RH_EQ_INT(set("listen", "10.0.0.1:80 , [2001:db8::1]:443"), 0);
    RH_EQ_U64(cfg->listen.count, 2);
    RH_OK_IF(!cfg->listen.at[0].loopback && !cfg->listen.at[1].loopback);
    end();
}

RH_TEST(config, a_mistake_is_named_with_file_line_and_key)
{
    expect_load("shards: 2\n\nlimits:\n  mesage_size: 1MiB\n", RH_EINVAL,
                "t.yaml:4: limits.mesage_size: unknown key; did you mean limits.message_size?");
    expect_load("shards: 2\nlimits: {message_size: 1TiB}\n", RH_EINVAL,
                "t.yaml:2: limits.message_size: \"1TiB\" is not a size, such as 512, 64KiB, 1MiB "
                "or 2GiB");
    expect_load("a:\n  b: 1\n", RH_EINVAL, "t.yaml:1: a: unknown key");
    expect_load("message_size: 1MiB\n", RH_EINVAL,
                "t.yaml:1: message_size: unknown key; did you mean limits.message_size?");
    expect_load("limit.head_size: 1KiB\n", RH_EINVAL,
                "t.yaml:1: limit.head_size: unknown key; did you mean limits.head_size?");
    expect_load("hsards: 1\n", RH_EINVAL, "t.yaml:1: hsards: unknown key; did you mean shards?");
    expect_load("\xef\xbb\xbf"
                "shards: x\n",
                RH_EINVAL, "t.yaml:1: shards: \"x\" is not a whole number");
    expect_load("listen:\n- 127.0.0.1:1\n- localhost:80\n", RH_EINVAL,
                "t.yaml:3: listen: \"localhost\" is not a numeric address, such as 127.0.0.1 or "
                "[::1]; for all addresses write 0.0.0.0 or [::]");
}

RH_TEST(config, what_is_not_built_is_refused_by_name)
{
    static const struct {
        const char *yaml, *text;
    } cases[] = {
        {"records: {mode: all}\n", "t.yaml:1: records.mode is not supported yet"},
        {"store.url: 'sqlite:'\n", "t.yaml:1: store.url is not supported yet"},
        {"\nauth:\n  jwt:\n    secret: x\n", "t.yaml:4: auth.jwt.secret is not supported yet"},
        {"auth: {mode: jwt}\n", "t.yaml:1: auth.mode: jwt is not supported yet"},
        {"auth.mode: webhook\n", "t.yaml:1: auth.mode: webhook is not supported yet"},
        {"io.backend: epoll\n", "t.yaml:1: io.backend: epoll is not supported yet"},
        {"security.ip_allow: [a, b]\n", "t.yaml:1: security.ip_allow is not supported yet"},
        {"welcome: {text: hi}\n", "t.yaml:1: welcome is not supported yet"},
        {"webhooks.request: x\n", "t.yaml:1: webhooks.request is not supported yet"},
        {"cluster: 1\n", "t.yaml:1: cluster is not supported yet"},
        {"metrics:\n", "t.yaml:1: metrics is not supported yet"},
        {"alerts.a.b.c.d: 1\n", "t.yaml:1: alerts.a.b.c.d is not supported yet"},
        {"sse: {heartbeat: 5s}\n", "t.yaml:1: sse.heartbeat is not supported yet"},
    };

    for (size_t i = 0; i < RH_COUNT(cases); i++)
        expect_load(cases[i].yaml, RH_EUNSUPPORTED, cases[i].text);
}

RH_TEST(config, every_later_key_of_the_table_is_refused_and_every_built_one_takes_its_default)
{
    const struct rh_config_key *key;
    char path[128];

    for (size_t i = 0; (key = rh_config_key(i)); i++) {
        begin();
        snprintf(path, sizeof(path), "%s", key->path);
        if (key->kind == RH_KIND_GROUP)
            strcpy(strchr(path, '*'), "x");
        if (key->slot < 0)
            RH_EQ_INT(set(path, key->standard), RH_EUNSUPPORTED);
        else if (key->slot != RH_KEY_shards)
            ck_assert_msg(set(path, key->standard) == 0, "%s", fault.text);
        end();
    }
}

RH_TEST(config, keys_and_groups_stand_in_a_file_once)
{
    expect_load("shards: 1\nshards: 2\n", RH_EINVAL, "t.yaml:2: shards: stands in line 1 already");
    expect_load("limits: {head_size: 2KiB}\nlimits.head_size: 2KiB\n", RH_EINVAL,
                "t.yaml:2: limits.head_size: stands in line 1 already");
    expect_load("limits:\n  head_size: 2KiB\nshards: 1\nlimits:\n  send_timeout: 1s\n", RH_EINVAL,
                "t.yaml:4: limits: stands in line 1 already");
}

RH_TEST(config, what_has_to_be_evaluated_is_refused)
{
    expect_load("shards: &a 1\n", RH_EINVAL,
                "t.yaml:1: shards: anchors (&name) are not allowed here");
    expect_load("limits: &a {head_size: 1KiB}\n", RH_EINVAL,
                "t.yaml:1: limits: anchors (&name) are not allowed here");
    expect_load("listen: &a [x]\n", RH_EINVAL,
                "t.yaml:1: listen: anchors (&name) are not allowed here");
    expect_load("\nshards: *a\n", RH_EINVAL,
                "t.yaml:2: shards: aliases (*name) are not allowed here");
    expect_load("shards: !!int 1\n", RH_EINVAL,
                "t.yaml:1: shards: tags (!name) are not allowed here");
    expect_load("!x {}\n", RH_EINVAL, "t.yaml:1: tags (!name) are not allowed here");
    expect_load("listen: !!seq []\n", RH_EINVAL,
                "t.yaml:1: listen: tags (!name) are not allowed here");
    expect_load("shards: 1\n---\nshards: 2\n", RH_EINVAL,
                "t.yaml:2: only one document is allowed in a file");
}

RH_TEST(config, shapes_that_do_not_fit_are_refused)
{
    expect_load("shards\n", RH_EINVAL, "t.yaml:1: expected keys with values, such as shards: 4");
    expect_load("- shards\n", RH_EINVAL, "t.yaml:1: expected keys with values, such as shards: 4");
    expect_load("shards: [1]\n", RH_EINVAL, "t.yaml:1: shards: takes one value, not a list");
    expect_load("shards: {a: 1}\n", RH_EINVAL,
                "t.yaml:1: shards: takes a value, not a group of keys");
    expect_load("listen: [[a]]\n", RH_EINVAL,
                "t.yaml:1: listen: takes plain values, no lists or groups in a list");
    expect_load("listen: []\n", RH_EINVAL, "t.yaml:1: listen: needs a value");
    expect_load("listen:\n  -\n", RH_EINVAL, "t.yaml:2: listen: needs a value");
    expect_load("limits: 3\n", RH_EINVAL,
                "t.yaml:1: limits: is a group of keys, such as limits.connections");
    expect_load("limits:\n", RH_EINVAL, "t.yaml:1: limits: needs a value");
    expect_load("shards:\n", RH_EINVAL, "t.yaml:1: shards: needs a value");
    expect_load("shards: ~\n", RH_EINVAL, "t.yaml:1: shards: needs a value");
    expect_load("log: {file: null}\n", RH_EINVAL, "t.yaml:1: log.file: needs a value");
    expect_load("? [a]\n: 1\n", RH_EINVAL, "t.yaml:1: a key must be plain text");
    expect_load("\"\": 1\n", RH_EINVAL,
                "t.yaml:1: has a key that is empty, too long or has a zero byte inside");
    expect_load("log.file: \"a\\0b\"\n", RH_EINVAL, "t.yaml:1: log.file: has a zero byte inside");
    begin();
    RH_EQ_INT(load("log.file: \"\"\n"), 0); /* an empty text is a value */
    end();
}

RH_TEST(config, what_is_not_yaml_is_named_with_its_line)
{
    begin();
    RH_EQ_INT(load("shards: 1\n\techo: x\n"), RH_EINVAL);
    ck_assert_msg(strstr(fault.text, "t.yaml:2: ") == fault.text, "%s", fault.text);
    RH_EQ_INT(load("shards: 1\nlimits: {head_size: 1KiB\n"), RH_EINVAL);
    ck_assert_msg(strstr(fault.text, "t.yaml:") == fault.text, "%s", fault.text);
    RH_EQ_INT(load("shards: 1\n\n# \x01\n"), RH_EINVAL);
    ck_assert_msg(strstr(fault.text, "t.yaml:3: ") == fault.text, "%s", fault.text);
    RH_EQ_INT(load("shards: \xff\n"), RH_EINVAL);
    RH_EQ_U64(strcspn(fault.text, "\n"), strlen(fault.text));
    end();
}

RH_TEST(config, a_load_that_fails_has_changed_nothing)
{
    char *const environment[] = {"RINGHUB_ECHO__ENABLED=true", "RINGHUB_SHARDS=0", NULL};

    begin();
    RH_EQ_INT(load("echo.enabled: true\nshards: 7\nlisten: [127.0.0.1:1, x]\n"), RH_EINVAL);
    RH_OK_IF(!cfg->echo_enabled && cfg->listen.count == 1);
    RH_EQ_INT(rh_config_load_env(cfg, environment, &fault), RH_EINVAL);
    RH_OK_IF(!cfg->echo_enabled);
    RH_EQ_INT(set("listen", "127.0.0.1:9,nonsense"), RH_EINVAL);
    RH_EQ_STR(cfg->listen.at[0].text, "127.0.0.1:8080");
    end();
}

/* A directory of our own for real files. */
static const char *temp_file(const char *contents, size_t len)
{
    static char path[64];
    char dir[] = "/tmp/rh_config_XXXXXX";
    FILE *file;

    RH_OK_IF(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/ringhub.yaml", dir);
    file = fopen(path, "w");
    RH_OK_IF(file && fwrite(contents, 1, len, file) == len && fclose(file) == 0);
    return path;
}

static void temp_gone(const char *path)
{
    char dir[64];

    unlink(path);
    snprintf(dir, sizeof(dir), "%.*s", (int)(strrchr(path, '/') - path), path);
    rmdir(dir);
}

RH_TEST(config, a_file_is_read_from_disk)
{
    static const char yaml[] = "shards: 3\nlog: {level: debug, format: text}\nshutdown.grace: 0\n";
    const char *path = temp_file(yaml, sizeof(yaml) - 1);

    begin();
    RH_EQ_INT(rh_config_load_file(cfg, path, &fault), 0);
    RH_EQ_U64(cfg->shards, 3);
    RH_EQ_INT(cfg->log_level, RH_LOG_DEBUG);
    RH_EQ_INT(cfg->log_format, RH_LOG_TEXT);
    RH_EQ_U64(cfg->shutdown_grace_ms, 0);
    temp_gone(path);
    RH_EQ_INT(rh_config_load_file(cfg, path, &fault), RH_EIO);
    RH_OK_IF(strstr(fault.text, path) && strstr(fault.text, strerror(ENOENT)));
    RH_EQ_INT(rh_config_load_file(cfg, "/", &fault), RH_EIO);
    end();
}

RH_TEST(config, a_file_may_have_one_mebibyte)
{
    char *big = malloc(RH_CONFIG_FILE_MAX + 1);
    const char *path;

    memset(big, '\n', RH_CONFIG_FILE_MAX + 1);
    memcpy(big + RH_CONFIG_FILE_MAX - 10, "\nshards: 5", 10);
    path = temp_file(big, RH_CONFIG_FILE_MAX);
    begin();
    RH_EQ_INT(rh_config_load_file(cfg, path, &fault), 0);
    RH_EQ_U64(cfg->shards, 5);
    temp_gone(path);
    path = temp_file(big, RH_CONFIG_FILE_MAX + 1);
    RH_EQ_INT(rh_config_load_file(cfg, path, &fault), RH_EINVAL);
    RH_OK_IF(strstr(fault.text, "larger than 1 MiB"));
    temp_gone(path);
    end();
    free(big);
}

RH_TEST(config, deep_nesting_ends_at_the_first_group_that_no_key_has)
{
    char *deep = malloc(200001);

    for (size_t i = 0; i < 200000; i += 2)
        memcpy(deep + i, "{a", 2);
    deep[200000] = '\0';
    begin();
    RH_EQ_INT(load(deep), RH_EINVAL);
    memset(deep, '[', 200000);
    RH_EQ_INT(load(deep), RH_EINVAL);
    memcpy(deep, "listen: ", 8);
    RH_EQ_INT(load(deep), RH_EINVAL);
    end();
    free(deep);
}

/* ---- values --------------------------------------------------------------------------------- */

RH_TEST(config, durations_and_sizes_have_units)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } times[] = {{"200ms", 200}, {"5s", 5000}, {"2m", 120000}, {"1h", 3600000}, {"0100ms", 100}};
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {
        {"4096", 4096}, {"4096B", 4096}, {"64KiB", 65536}, {"1MiB", 1 << 20}, {"1GiB", 1 << 30}};

    begin();
    for (size_t i = 0; i < RH_COUNT(times); i++) {
        RH_EQ_INT(set("heartbeat.interval", times[i].text), 0);
        RH_EQ_U64(cfg->heartbeat_interval_ms, times[i].ms);
    }
    for (size_t i = 0; i < RH_COUNT(sizes); i++) {
        RH_EQ_INT(set("limits.send_queue_bytes", sizes[i].text), 0);
        RH_EQ_U64(cfg->limits_send_queue_bytes, sizes[i].bytes);
    }
    RH_EQ_INT(set("heartbeat.timeout", "1d"), 0);
    RH_EQ_U64(cfg->heartbeat_timeout_ms, 86400000);
    RH_EQ_INT(set("shutdown.grace", "0"), 0);
    RH_EQ_INT(set("shutdown.grace", "0s"), 0);
    end();
}

RH_TEST(config, bad_values_are_answered_with_what_would_be_right)
{
    expect_set("heartbeat.interval", "30", RH_EINVAL,
               "--set: heartbeat.interval: 30 needs a unit, such as 30s or 30ms");
    expect_set("heartbeat.interval", "1.5s", RH_EINVAL,
               "--set: heartbeat.interval: \"1.5s\" is not a duration, such as 200ms, 5s, 2m, 24h "
               "or 7d");
    expect_set("heartbeat.interval", "99999999999999999999999s", RH_EINVAL,
               "--set: heartbeat.interval: 99999999999999999999999s is out of range: 100ms to 1h");
    expect_set("heartbeat.interval", "18446744073709551615ms", RH_EINVAL,
               "--set: heartbeat.interval: 18446744073709551615ms is out of range: 100ms to 1h");
    expect_set("heartbeat.interval", "213503982335d", RH_EINVAL,
               "--set: heartbeat.interval: 213503982335d is out of range: 100ms to 1h");
    expect_set("heartbeat.interval", "0", RH_EINVAL,
               "--set: heartbeat.interval: 0 is out of range: 100ms to 1h");
    expect_set(
        "heartbeat.interval", "", RH_EINVAL,
        "--set: heartbeat.interval: \"\" is not a duration, such as 200ms, 5s, 2m, 24h or 7d");
    expect_set("heartbeat.interval", "s", RH_EINVAL,
               "--set: heartbeat.interval: \"s\" is not a duration, such as 200ms, 5s, 2m, 24h or "
               "7d");
    expect_set("limits.message_size", "127", RH_EINVAL,
               "--set: limits.message_size: 127 is out of range: 128 to 64MiB");
    expect_set("limits.message_size", "65MiB", RH_EINVAL,
               "--set: limits.message_size: 65MiB is out of range: 128 to 64MiB");
    expect_set("limits.message_size", "17179869184GiB", RH_EINVAL,
               "--set: limits.message_size: 17179869184GiB is out of range: 128 to 64MiB");
    expect_set(
        "limits.message_size", "1mb", RH_EINVAL,
        "--set: limits.message_size: \"1mb\" is not a size, such as 512, 64KiB, 1MiB or 2GiB");
    expect_set("shards", "65", RH_EINVAL, "--set: shards: 65 is out of range: 1 to 64");
    expect_set("shards", "0", RH_EINVAL, "--set: shards: 0 is out of range: 1 to 64");
    expect_set("shards", "-1", RH_EINVAL, "--set: shards: \"-1\" is not a whole number");
    expect_set("shards", "18446744073709551617", RH_EINVAL,
               "--set: shards: 18446744073709551617 is out of range: 1 to 64");
    expect_set("echo.enabled", "yes", RH_EINVAL,
               "--set: echo.enabled: \"yes\" is neither true nor false");
    expect_set("log.level", "warning", RH_EINVAL,
               "--set: log.level: \"warning\" is not known: debug, info, warn or error");
    expect_set("auth.mode", "", RH_EINVAL, "--set: auth.mode: \"\" is not known: none");
    expect_set("limits", "1", RH_EINVAL,
               "--set: limits: is a group of keys, such as limits.connections");
    expect_set("", "1", RH_EINVAL, "--set: unknown key");
}

RH_TEST(config, listen_takes_numeric_addresses_with_a_port_only)
{
    static const char *const bad[] = {
        "",
        "8080",
        ":8080",
        "127.0.0.1",
        "127.0.0.1:",
        "1.2.3:80",
        "1.2.3.4:x",
        "1.2.3.4:-1",
        "1.2.3.4:65536",
        "1.2.3.4:80 81",
        "::1:80",
        "[::1]",
        "[::1:80",
        "[]:80",
        "[fe80::1%lo]:80",
        "[1]:80",
        "localhost:80",
        "*:80",
        "1.2.3.4:80,",
        ",1.2.3.4:80",
        "1.2.3.4:18446744073709551617",
        "1.2.3.4:80,1.2.3.4:80",
        "[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]:80",
    };
    char many[32 * (RH_LISTEN_MAX + 1)] = "";

    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        begin();
        ck_assert_msg(set("listen", bad[i]) == RH_EINVAL, "taken: %s", bad[i]);
        end();
    }
    for (int i = 0; i < RH_LISTEN_MAX + 1; i++)
        snprintf(many + strlen(many), 32, "%s127.0.0.1:%d", i ? "," : "", i);
    expect_set("listen", many, RH_EINVAL, "--set: listen: more than 16 addresses");
    *strrchr(many, ',') = '\0';
    expect_set("listen", many, 0, "");
    expect_set("listen", "127.0.0.1:0,127.0.0.1:0", 0, ""); /* two free ports */
}

RH_TEST(config, durations_that_may_be_nothing_need_no_unit)
{
    begin();
    RH_EQ_INT(load("resume.window: 0\nrooms.empty_ttl: 0s\nshutdown: {spread: 0}\n"), 0);
    RH_EQ_U64(cfg->resume_window_ms, 0);
    RH_EQ_U64(cfg->rooms_empty_ttl_ms, 0);
    RH_EQ_U64(cfg->shutdown_spread_ms, 0);
    RH_EQ_INT(set("rooms.empty_ttl", "30d"), 0);
    RH_EQ_U64(cfg->rooms_empty_ttl_ms, 2592000000u);
    end();
    expect_set("resume.window", "61m", RH_EINVAL,
               "--set: resume.window: 61m is out of range: 0 to 1h");
}

RH_TEST(config, words_stand_for_the_values_of_their_enum)
{
    static const char *const slow[] = {"disconnect", "drop_oldest", "drop_newest", "conflate"};

    begin();
    for (unsigned i = 0; i < RH_COUNT(slow); i++) {
        RH_EQ_INT(set("limits.slow_consumer", slow[i]), 0);
        RH_EQ_U64(cfg->limits_slow_consumer, i);
    }
    RH_EQ_U64(cfg->limits_slow_consumer, RH_SLOW_CONFLATE);
    RH_EQ_INT(set("users.on_limit", "reject"), 0);
    RH_EQ_INT(cfg->users_on_limit, RH_ON_LIMIT_REJECT);
    end();
}

RH_TEST(config, numbers_have_up_to_three_digits_behind_the_point)
{
    static const struct {
        const char *text;
        double value;
        const char *printed;
    } good[] = {{"2", 2.0, "2.0"},      {"1.5", 1.5, "1.5"},       {"1.0", 1.0, "1.0"},
                {"10", 10.0, "10.0"},   {"1.25", 1.25, "1.25"},    {"9.999", 9.999, "9.999"},
                {"002.10", 2.1, "2.1"}, {"1.001", 1.001, "1.001"}, {"3.000", 3.0, "3.0"}};
    static const char *const bad[] = {"",   ".5",  "1.", "1.5.0", "1,5",    "-2",
                                      "2x", "1e1", " 2", "nan",   "1.0000", "0x2"};
    const struct rh_config_key *key = rh_config_key(0);
    char printed[32];
    char text[128];

    begin();
    while (key->slot != RH_KEY_retry_backoff_factor)
        key++;
    for (size_t i = 0; i < RH_COUNT(good); i++) {
        RH_EQ_INT(set("retry.backoff_factor", good[i].text), 0);
        RH_OK_IF(cfg->retry_backoff_factor == good[i].value);
        rh_config_value(cfg, key, printed, sizeof(printed));
        RH_EQ_STR(printed, good[i].printed);
    }
    end();
    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        snprintf(text, sizeof(text),
                 "--set: retry.backoff_factor: \"%s\" is not a number, such as 2 or 1.5", bad[i]);
        expect_set("retry.backoff_factor", bad[i], RH_EINVAL, text);
    }
    expect_set("retry.backoff_factor", "0.999", RH_EINVAL,
               "--set: retry.backoff_factor: 0.999 is out of range: 1.0 to 10.0");
    expect_set("retry.backoff_factor", "10.001", RH_EINVAL,
               "--set: retry.backoff_factor: 10.001 is out of range: 1.0 to 10.0");
    expect_set("retry.backoff_factor", "18446744073709551.616", RH_EINVAL,
               "--set: retry.backoff_factor: 18446744073709551.616 is out of range: 1.0 to 10.0");
}

/* The origins, with blanks between them. */
static const char *origins(void)
{
    static char all[2 * RH_CONFIG_LIST_MAX];
    uint32_t n = 0;

    all[0] = '\0';
    for (const char *at = NULL; (at = rh_config_list_next(&cfg->security_origins, at)); n++)
        sprintf(all + strlen(all), "%s%s", n ? " " : "", at);
    RH_EQ_U64(n, cfg->security_origins.count);
    return all;
}

RH_TEST(config, a_list_is_one_text_or_many_and_may_be_empty)
{
    begin();
    RH_EQ_INT(load("security.origins: https://a.example\n"), 0);
    RH_EQ_STR(origins(), "https://a.example");
    RH_EQ_INT(load("security: {origins: ['https://b', 'http://c:8080']}\n"), 0);
    RH_EQ_STR(origins(), "https://b http://c:8080");
    RH_EQ_INT(load("security:\n  origins:\n    - https://d\n    - \"*\"\n"), 0);
    RH_EQ_STR(origins(), "https://d *");
    RH_EQ_INT(load("security.origins: []\n"), 0);
    RH_EQ_STR(origins(), "");
    RH_EQ_INT(set("security.origins", " https://a , https://b"), 0);
    RH_EQ_STR(origins(), "https://a https://b");
    RH_EQ_INT(load("security.origins: \"\"\n"), 0);
    RH_EQ_STR(origins(), "");
    RH_EQ_INT(env("RINGHUB_SECURITY__ORIGINS=https://a,https://b,https://c"), 0);
    RH_EQ_STR(origins(), "https://a https://b https://c");
    RH_EQ_INT(env("RINGHUB_SECURITY__ORIGINS="), 0);
    RH_EQ_STR(origins(), "");
    end();
    expect_load("security.origins:\n", RH_EINVAL, "t.yaml:1: security.origins: needs a value");
    expect_load("security.origins: [https://a,]\nshards: [1]\n", RH_EINVAL,
                "t.yaml:2: shards: takes one value, not a list");
}

RH_TEST(config, origins_are_kept_as_browsers_write_them)
{
    static const struct {
        const char *text, *kept;
    } cases[] = {
        {"*", "*"},
        {"https://a.example", "https://a.example"},
        {"HTTPS://A.Example", "https://a.example"},
        {"https://a:443", "https://a"},
        {"http://a:80", "http://a"},
        {"http://a:443", "http://a:443"},
        {"https://a:80", "https://a:80"},
        {"https://a:08443", "https://a:8443"},
        {"https://a:00443", "https://a"},
        {"https://a:65535", "https://a:65535"},
        {"http://127.0.0.1:8080", "http://127.0.0.1:8080"},
        {"https://[::1]", "https://[::1]"},
        {"https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"},
        {"https://xn--bcher-kva.example", "https://xn--bcher-kva.example"},
    };

    for (size_t i = 0; i < RH_COUNT(cases); i++) {
        begin();
        ck_assert_msg(set("security.origins", cases[i].text) == 0, "%s", fault.text);
        RH_EQ_STR(origins(), cases[i].kept);
        end();
    }
}

RH_TEST(config, what_is_no_origin_is_refused)
{
    static const char *const bad[] = {
        "a",
        "a.example",
        "//a",
        "ftp://a",
        "wss://a",
        "https://",
        "https:///",
        "https://a/",
        "https://a/b",
        "https://a?b",
        "https://u@a",

        "https://a#b",
        "https://*.a",
        "https://*",
        "https://a b",
        "https://b\xc3\xbc",
        "https://.a",
        "https://[::1",
        "https://::1",
        "https://[]",
        "https://[1.2.3.4]",
        "https://[::1]a",
        "https://[::1]a:1",
        "**",
        "null",
        "https:/a",
        "https:a",
        "https",
        "http",
    };
    static const char *const ports[] = {
        "https://a:",     "https://a:0",   "https://a:65536",
        "https://a:8x",   "https://a:80/", "https://a:18446744073709551617",
        "https://[::1]:", "https://u:p@a", "https://a:1:2"};
    char text[256];

    for (size_t i = 0; i < RH_COUNT(bad); i++) {
        begin();
        ck_assert_msg(set("security.origins", bad[i]) == RH_EINVAL, "taken: %s", bad[i]);
        ck_assert_msg(strstr(fault.text, "is not an origin"), "%s: %s", bad[i], fault.text);
        end();
    }
    for (size_t i = 0; i < RH_COUNT(ports); i++) {
        snprintf(text, sizeof(text), "--set: security.origins: \"%s\" has no port from 1 to 65535",
                 ports[i]);
        expect_set("security.origins", ports[i], RH_EINVAL, text);
    }
    expect_load(
        "shards: 1\nsecurity.origins:\n - https://a\n - b\n", RH_EINVAL,
        "t.yaml:4: security.origins: \"b\" is not an origin, such as https://example.com or "
        "https://example.com:8443; * for any");
    expect_set("security.origins", "https://a,,https://b", RH_EINVAL,
               "--set: security.origins: \"\" is not an origin, such as https://example.com or "
               "https://example.com:8443; * for any");
    expect_set("security.origins", "https://a,HTTPS://A:443", RH_EINVAL,
               "--set: security.origins: https://a is there twice");
}

RH_TEST(config, a_list_has_a_bound)
{
    char many[2 * RH_CONFIG_LIST_MAX] = "";
    const struct rh_config_key *key = rh_config_key(0);
    char printed[RH_CONFIG_PRINTED];
    size_t len = 0;

    for (int i = 0; len < RH_CONFIG_LIST_MAX - 30; i++) /* each has 15 with what ends it */
        len += (size_t)snprintf(many + len, 64, "https://%06d,", i);
    snprintf(many + len, 64, "https://%0*d", (int)(RH_CONFIG_LIST_MAX - len - 9), 0);
    RH_EQ_U64(strlen(many), RH_CONFIG_LIST_MAX - 1);
    begin();
    ck_assert_msg(set("security.origins", many) == 0, "%s", fault.text);
    RH_EQ_U64(cfg->security_origins.len, RH_CONFIG_LIST_MAX);
    while (key->slot != RH_KEY_security_origins)
        key++;
    rh_config_value(cfg, key, printed, sizeof(printed));
    RH_EQ_STR(printed, many);
    end();
    strcat(many, "0");
    expect_set("security.origins", many, RH_EINVAL,
               "--set: security.origins: more than 4096 bytes in all");
}

RH_TEST(config, a_text_has_a_bound)
{
    char text[RH_CONFIG_TEXT_MAX + 2];

    memset(text, 'x', sizeof(text));
    text[RH_CONFIG_TEXT_MAX + 1] = '\0';
    expect_set("log.file", text, RH_EINVAL, "--set: log.file: longer than 1023 bytes");
    text[RH_CONFIG_TEXT_MAX] = '\0';
    begin();
    RH_EQ_INT(set("log.file", text), 0);
    RH_EQ_STR(cfg->log_file, text);
    end();
}

RH_TEST(config, a_fault_is_one_printable_line)
{
    begin();
    RH_EQ_INT(set("a\nb\x1b[31m", "1"), RH_EINVAL);
    RH_EQ_STR(fault.text, "--set: a?b?[31m: unknown key");
    RH_EQ_INT(load("\"sh\\nards\": 1\n"), RH_EINVAL);
    RH_OK_IF(!strchr(fault.text, '\n'));
    RH_EQ_INT(rh_config_set(cfg, "shards", "x", "w", NULL), RH_EINVAL); /* nobody wants to know */
    end();
}

/* ---- environment ---------------------------------------------------------------------------- */

RH_TEST(config, the_environment_overrides_the_file_and_options_override_both)
{
    begin();
    RH_EQ_INT(load("shards: 2\nlimits.message_size: 1KiB\nheartbeat.interval: 1s\n"), 0);
    RH_EQ_INT(env("RINGHUB_LIMITS__MESSAGE_SIZE=2KiB"), 0);
    RH_EQ_INT(env("RINGHUB_Heartbeat__Interval=2s"), 0);
    RH_EQ_INT(set("heartbeat.interval", "3s"), 0);
    RH_EQ_INT(set("heartbeat.interval", "4s"), 0); /* the last of several wins */
    RH_EQ_U64(cfg->shards, 2);
    RH_EQ_U64(cfg->limits_message_size, 2048);
    RH_EQ_U64(cfg->heartbeat_interval_ms, 4000);
    RH_EQ_INT(env("RINGHUB_LISTEN=127.0.0.1:1,[::1]:2"), 0);
    RH_EQ_U64(cfg->listen.count, 2);
    RH_EQ_INT(env("RINGHUB_LOG__FILE=/a=b"), 0);
    RH_EQ_STR(cfg->log_file, "/a=b");
    end();
}

RH_TEST(config, variables_of_others_are_left_alone)
{
    static const char *const theirs[] = {"RINGHUB=1",       "RINGHUBX=1",   "ringhub_shards=1",
                                         "RINGHUB_NOVALUE", "=RINGHUB_A=1", ""};

    for (size_t i = 0; i < RH_COUNT(theirs); i++) {
        begin();
        RH_EQ_INT(env(theirs[i]), 0);
        end();
    }
}

RH_TEST(config, a_variable_that_no_key_has_is_an_error_with_a_suggestion)
{
    static const struct {
        const char *entry;
        int rc;
        const char *text;
    } cases[] = {
        {"RINGHUB_SHARD=1", RH_EINVAL,
         "RINGHUB_SHARD: unknown variable; did you mean RINGHUB_SHARDS?"},
        {"RINGHUB_LIMITS_MESSAGE_SIZE=1", RH_EINVAL,
         "RINGHUB_LIMITS_MESSAGE_SIZE: unknown variable; did you mean "
         "RINGHUB_LIMITS__MESSAGE_SIZE?"},
        {"RINGHUB_PORT=tcp://10.0.0.1", RH_EINVAL, "RINGHUB_PORT: unknown variable"},
        {"RINGHUB_=1", RH_EINVAL, "RINGHUB_: unknown variable"},
        {"RINGHUB_SHARDS=x", RH_EINVAL, "RINGHUB_SHARDS: shards: \"x\" is not a whole number"},
        {"RINGHUB_RECORDS__MAX=1", RH_EUNSUPPORTED,
         "RINGHUB_RECORDS__MAX: records.max is not supported yet"},
        {"RINGHUB_CLUSTER__X=1", RH_EUNSUPPORTED,
         "RINGHUB_CLUSTER__X: cluster.x is not supported yet"},
        {"RINGHUB_AUTH__JWT__SECRET_FILE=/x", RH_EUNSUPPORTED,
         "RINGHUB_AUTH__JWT__SECRET_FILE: auth.jwt.secret is not supported yet"},
        {"RINGHUB_ADMIN__API_KEYS_FILE=/x", RH_EUNSUPPORTED,
         "RINGHUB_ADMIN__API_KEYS_FILE: admin.api_keys is not supported yet"},
        {"RINGHUB_SECURITY__TLS__KEY_FILE=/x", RH_EUNSUPPORTED,
         "RINGHUB_SECURITY__TLS__KEY_FILE: security.tls.key_file is not supported yet"},
        {"RINGHUB_SHARDS_FILE=/x", RH_EINVAL,
         "RINGHUB_SHARDS_FILE: shards: only a secret can be read from a file"},
        {"RINGHUB_LIMITS=1", RH_EINVAL,
         "RINGHUB_LIMITS: limits: is a group of keys, such as limits.connections"},
        {"RINGHUB_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=1",
         RH_EINVAL,
         "RINGHUB_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA: "
         "unknown variable"},
    };

    for (size_t i = 0; i < RH_COUNT(cases); i++) {
        begin();
        RH_EQ_INT(env(cases[i].entry), cases[i].rc);
        RH_EQ_STR(fault.text, cases[i].text);
        end();
    }
}

/* ---- the whole ------------------------------------------------------------------------------ */

RH_TEST(config, the_heartbeat_must_end_after_its_interval)
{
    begin();
    RH_EQ_INT(load("shards: 1\nheartbeat.timeout: 30s\n"), 0);
    RH_EQ_INT(rh_config_check(cfg, &fault), RH_EINVAL);
    RH_EQ_STR(fault.text, "t.yaml:2: heartbeat.timeout: must be larger than heartbeat.interval "
                          "(30000 ms)");
    RH_EQ_INT(set("heartbeat.timeout", "30001ms"), 0);
    RH_EQ_INT(rh_config_check(cfg, &fault), 0);
    end();
    begin();
    RH_EQ_INT(set("heartbeat.interval", "2m"), 0);
    RH_EQ_INT(rh_config_check(cfg, &fault), RH_EINVAL);
    RH_EQ_STR(fault.text, "--set: heartbeat.interval: must be smaller than heartbeat.timeout "
                          "(90000 ms)");
    end();
}

RH_TEST(config, an_open_hub_on_the_net_must_be_meant)
{
    static const char *const reachable[] = {
        "0.0.0.0:80",          "10.0.0.1:80", "[::]:80", "[::ffff:127.0.0.1]:80",
        "127.0.0.1:1,[::2]:1", "128.0.0.1:1"};

    for (size_t i = 0; i < RH_COUNT(reachable); i++) {
        begin();
        RH_EQ_INT(set("listen", reachable[i]), 0);
        RH_EQ_INT(rh_config_check(cfg, &fault), RH_EINVAL);
        ck_assert_msg(strstr(fault.text, "--set: listen: other machines can reach ") == fault.text,
                      "%s", fault.text);
        RH_OK_IF(strstr(fault.text, "auth.allow_insecure"));
        RH_EQ_INT(set("auth.allow_insecure", "true"), 0);
        RH_EQ_INT(rh_config_check(cfg, &fault), 0);
        end();
    }
    begin();
    RH_EQ_INT(set("listen", "127.0.0.1:1,127.255.0.1:1,[::1]:1"), 0);
    RH_EQ_INT(rh_config_check(cfg, &fault), 0);
    end();
}

RH_TEST(config, a_journal_needs_a_directory)
{
    begin();
    RH_EQ_INT(load("store:\n  path: ''\n"), 0);
    RH_EQ_INT(rh_config_check(cfg, &fault), RH_EINVAL);
    RH_EQ_STR(fault.text,
              "t.yaml:2: store.path: names no directory, and store.durability is commit");
    RH_EQ_INT(set("store.durability", "memory"), 0);
    RH_EQ_INT(rh_config_check(cfg, &fault), 0);
    end();
}

RH_TEST(config, reasons_that_are_tried_again_are_those_that_the_lists_leave)
{
    begin();
    for (unsigned r = RH_REASON_none + 1; r < RH_REASON_COUNT; r++)
        RH_OK_IF(rh_config_retries(cfg, r));
    RH_EQ_INT(set("retry.retryable", "queue_full,ack_timeout"), 0);
    for (unsigned r = RH_REASON_none + 1; r < RH_REASON_COUNT; r++)
        RH_OK_IF(rh_config_retries(cfg, r) ==
                 (r == RH_REASON_queue_full || r == RH_REASON_ack_timeout));
    RH_EQ_INT(set("retry.non_retryable", "queue_full"), 0);
    RH_OK_IF(!rh_config_retries(cfg, RH_REASON_queue_full));
    RH_OK_IF(rh_config_retries(cfg, RH_REASON_ack_timeout));
    RH_EQ_INT(set("retry.non_retryable", "late"), RH_EINVAL);
    RH_EQ_STR(fault.text, "--set: retry.non_retryable: \"late\" is no reason");
    RH_EQ_INT(set("retry.non_retryable", "none"), RH_EINVAL);
    end();
}

RH_TEST(config, a_copy_stands_by_itself)
{
    struct rh_config *copy;

    begin();
    RH_EQ_INT(set("shards", "9"), 0);
    RH_EQ_INT(rh_config_copy(cfg, &copy), 0);
    RH_EQ_INT(set("shards", "8"), 0);
    RH_EQ_U64(copy->shards, 9);
    end();
    RH_EQ_U64(copy->shards, 9);
    rh_config_destroy(copy);
    rh_config_destroy(NULL);
}

/* ---- reloading ------------------------------------------------------------------------------ */

/* Reloads `cfg` with `want`, checks what is said, and makes the result `cfg`. */
static void reload(struct rh_config *want, const char *applied, const char *restart)
{
    struct rh_config_changes changes;
    struct rh_config *next;

    RH_EQ_INT(rh_config_reload(cfg, want, &next, &changes), 0);
    RH_EQ_STR(changes.applied, applied);
    RH_EQ_STR(changes.restart, restart);
    rh_config_destroy(cfg);
    cfg = next;
}

RH_TEST(config, a_reload_takes_what_is_live_and_names_what_needs_a_restart)
{
    static const char yaml[] = "listen: 127.0.0.1:9\nshards: 63\nlog: {level: debug, file: /x}\n"
                               "limits: {message_size: 2MiB, slow_consumer: conflate}\n"
                               "security.origins: [https://a, https://b]\nresume.window: 0\n"
                               "echo.enabled: true\nretry.backoff_factor: 1.5\n";
    struct rh_config *want;
    uint32_t shards;

    begin();
    shards = cfg->shards;
    RH_EQ_INT(rh_config_copy(cfg, &want), 0);
    reload(want, "", "");
    RH_EQ_INT(rh_config_load_text(want, "n.yaml", yaml, sizeof(yaml) - 1, &fault), 0);
    reload(want,
           "limits.message_size,limits.slow_consumer,security.origins,retry.backoff_factor,"
           "resume.window,echo.enabled,log.level",
           "listen,shards,log.file");
    RH_EQ_U64(cfg->limits_message_size, 2 << 20);
    RH_EQ_INT(cfg->limits_slow_consumer, RH_SLOW_CONFLATE);
    RH_EQ_STR(origins(), "https://a https://b");
    RH_OK_IF(cfg->retry_backoff_factor == 1.5);
    RH_EQ_U64(cfg->resume_window_ms, 0);
    RH_OK_IF(cfg->echo_enabled);
    RH_EQ_INT(cfg->log_level, RH_LOG_DEBUG);
    RH_EQ_STR(cfg->where[RH_KEY_limits_message_size], "n.yaml:4");
    RH_EQ_STR(cfg->listen.at[0].text, "127.0.0.1:8080");
    RH_EQ_U64(cfg->shards, shards);
    RH_EQ_STR(cfg->log_file, "");
    RH_EQ_STR(cfg->where[RH_KEY_listen], "");
    reload(want, "", "listen,shards,log.file"); /* still to be done */
    rh_config_destroy(want);

    RH_EQ_INT(rh_config_create(&want), 0); /* an empty file: the defaults come back */
    reload(want,
           "limits.message_size,limits.slow_consumer,security.origins,retry.backoff_factor,"
           "resume.window,echo.enabled,log.level",
           "");
    RH_EQ_U64(cfg->limits_message_size, 1 << 20);
    RH_EQ_U64(cfg->security_origins.count, 0);
    rh_config_destroy(want);
    end();
}

RH_TEST(config, a_reload_sees_equal_values_however_they_are_written)
{
    struct rh_config *want;

    begin();
    RH_EQ_INT(load("limits.message_size: 2MiB\nsecurity.origins: [https://a]\n"
                   "listen: [127.0.0.1:1, 127.0.0.1:2]\nlog.file: aaaaaaaa\n"),
              0);
    RH_EQ_INT(set("security.origins", "https://a,https://bbbbbbb"), 0);
    RH_EQ_INT(set("log.file", "bb"), 0);
    RH_EQ_INT(rh_config_copy(cfg, &want), 0);
    RH_EQ_INT(rh_config_set(want, "limits.message_size", "2048KiB", "x", &fault), 0);
    RH_EQ_INT(rh_config_set(want, "listen", "127.0.0.1:1,127.0.0.1:2", "x", &fault), 0);
    RH_EQ_INT(rh_config_set(want, "security.origins", "https://a,https://BBBBBBB:443", "x", &fault),
              0);
    RH_EQ_INT(rh_config_set(want, "log.file", "bb", "x", &fault), 0);
    RH_EQ_INT(rh_config_set(want, "retry.backoff_factor", "2.000", "x", &fault), 0);
    reload(want, "", "");
    rh_config_destroy(want);
    end();
}

RH_TEST(config, a_reload_of_every_key_says_that_there_were_more)
{
    struct rh_config_changes changes;
    struct rh_config *want;
    struct rh_config *next;
    const struct rh_config_key *key;

    begin();
    RH_EQ_INT(rh_config_copy(cfg, &want), 0);
    for (size_t i = 0; (key = rh_config_key(i)); i++) /* flips a bit of each value */
        if (key->slot >= 0)
            ((char *)want)[key->field] ^= 1;
    RH_EQ_INT(rh_config_reload(cfg, want, &next, &changes), 0);
    RH_OK_IF(strlen(changes.applied) > RH_CONFIG_CHANGES - 64);
    RH_EQ_STR(changes.applied + strlen(changes.applied) - 4, ",...");
    RH_EQ_STR(changes.restart, "listen,shards,auth.mode,auth.allow_insecure,store.path,"
                               "store.durability,store.salvage,io.backend,io.descriptors,"
                               "log.format,log.file");
    for (size_t i = 0; (key = rh_config_key(i)); i++)
        if (key->slot >= 0)
            RH_OK_IF((((char *)next)[key->field] == ((char *)want)[key->field]) == key->live);
    rh_config_destroy(next);
    rh_config_destroy(want);
    end();
}

static void print_line(void *arg, const char *key, const char *value, const char *standard,
                       const char *help)
{
    char *out = arg;

    RH_OK_IF(*help != '\0');
    if (strcmp(value, standard) != 0)
        sprintf(out + strlen(out), "%s=%s(%s)\n", key, value, standard);
}

RH_TEST(config, print_tells_value_and_default_of_every_built_key)
{
    char out[4096] = "";

    begin();
    RH_EQ_INT(set("shards", "3"), 0);
    rh_config_print(cfg, print_line, out);
    RH_EQ_STR(out, "shards=3(number of CPUs)\n");
    out[0] = '\0';
    RH_EQ_INT(load("listen: [127.0.0.1:1, '[::1]:2']\nlimits:\n  message_size: 1025KiB\n"
                   "  head_size: 1025\n  send_timeout: 1500ms\nshutdown.grace: 0\n"
                   "heartbeat.timeout: 24h\nlog: {level: error, file: /x}\necho.enabled: true\n"),
              0);
    rh_config_print(cfg, print_line, out);
    RH_EQ_STR(out, "listen=127.0.0.1:1,[::1]:2(127.0.0.1:8080)\n"
                   "shards=3(number of CPUs)\n"
                   "limits.message_size=1025KiB(1MiB)\n"
                   "limits.head_size=1025(16KiB)\n"
                   "limits.send_timeout=1500ms(30s)\n"
                   "heartbeat.timeout=1d(90s)\n"
                   "shutdown.grace=0(10s)\n"
                   "echo.enabled=true(false)\n"
                   "log.level=error(info)\n"
                   "log.file=/x()\n");
    end();
}

static void load_everything(void *arg)
{
    static const char yaml[] = "listen: [127.0.0.1:1, 127.0.0.1:2]\nlog.file: x\n";
    char *const environment[] = {"RINGHUB_SHARDS=2", NULL};
    struct rh_config *mine = NULL;
    struct rh_config *copy = NULL;
    struct rh_config *next = NULL;
    struct rh_config_changes changes;
    int rc = rh_config_create(&mine);

    if (rc == 0)
        rc = rh_config_load_file(mine, arg, &fault);
    if (rc == 0)
        rc = rh_config_load_text(mine, "t", yaml, sizeof(yaml) - 1, &fault);
    if (rc == 0)
        rc = rh_config_load_env(mine, environment, &fault);
    if (rc == 0)
        rc = rh_config_copy(mine, &copy);
    if (rc == 0)
        rc = rh_config_reload(mine, copy, &next, &changes);
    RH_OK_IF(rc == (rh_mem_fail_left() ? 0 : RH_ENOMEM));
    rh_config_destroy(next);
    rh_config_destroy(copy);
    rh_config_destroy(mine);
}

RH_TEST(config, missing_memory_is_an_error_and_leaks_nothing)
{
    const char *path = temp_file("shards: 2\n", 10);

    rh_test_fail_each_alloc(load_everything, (void *)(uintptr_t)path);
    temp_gone(path);
}

/* ---- documentation -------------------------------------------------------------------------- */

#define PAGE       "docs/configuration.md"
#define TABLE_MARK "<!-- keys: written by tests/core/test_config.c -->\n"

/* What stands below the mark in docs/configuration.md. */
static void write_table(FILE *out)
{
    const struct rh_config_key *key;
    char range[256];

    fprintf(out, "\n## Keys\n\n| key | takes | default | reload | meaning |\n"
                 "| --- | --- | --- | --- | --- |\n");
    for (size_t i = 0; (key = rh_config_key(i)); i++) {
        if (key->slot < 0)
            continue;
        rh_config_range(key, range, sizeof(range));
        fprintf(out, "| `%s` | %s: %s | %s | %s | %s |\n", key->path,
                rh_config_kind_name(key->kind), range, *key->standard ? key->standard : "(empty)",
                key->live ? "yes" : "restart", key->help);
    }
    fprintf(out,
            "\n## Not supported yet\n\nThese names are taken. Setting one is an error that says "
            "so, even to its default.\n\n| key | takes | default | meaning |\n"
            "| --- | --- | --- | --- |\n");
    for (size_t i = 0; (key = rh_config_key(i)); i++)
        if (key->slot < 0)
            fprintf(out, "| `%s` | %s | %s | %s |\n", key->path, rh_config_kind_name(key->kind),
                    key->standard, key->help);
}

static char *read_page(void)
{
    FILE *file = fopen(PAGE, "r");
    char *text = calloc(1, 1 << 20);

    ck_assert_msg(file != NULL, "cannot open " PAGE "; tests run in the project's root");
    RH_OK_IF(fread(text, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    return text;
}

/* RH_WRITE_DOCS=1 build/release/tests/core/test_config writes the page's tables anew. */
RH_TEST(config, the_documentation_has_the_table_as_it_is)
{
    char *page = read_page();
    char *mark = strstr(page, TABLE_MARK);
    char *table = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&table, &len);

    ck_assert_msg(mark != NULL, PAGE " has lost its mark");
    mark += strlen(TABLE_MARK);
    write_table(out);
    fclose(out);
    if (getenv("RH_WRITE_DOCS")) {
        out = fopen(PAGE, "w");
        fprintf(out, "%.*s%s", (int)(mark - page), page, table);
        fclose(out);
    } else {
        ck_assert_msg(!strcmp(mark, table), PAGE " is stale: RH_WRITE_DOCS=1 %s writes it anew",
                      "tests/core/test_config");
    }
    free(table);
    free(page);
}
