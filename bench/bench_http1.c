/* bench/bench_http1.c - what a handshake costs before and after the socket.
 *
 * Method  one thread, a browser's handshake of usual size; each figure is the best of five rounds
 *         of 200,000, in nanoseconds of wall time per head. "by bytes" feeds a head of 16 KiB in
 *         steps of one byte, the worst that a client can do, and shows the cost of one such call.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/query.h"
#include "proto/upgrade.h"

enum { ROUNDS = 5, TIMES = 200000, LONG_HEAD = 16 * 1024 };

static const char browser[] =
    "GET /ws?user_id=ann%20b&device=tab-1&rooms=lobby HTTP/1.1\r\n"
    "Host: chat.example.org:8080\r\n"
    "Connection: Upgrade\r\n"
    "Pragma: no-cache\r\n"
    "Cache-Control: no-cache\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/126.0.0.0 Safari/537.36\r\n"
    "Upgrade: websocket\r\n"
    "Origin: http://chat.example.org:8080\r\n"
    "Sec-WebSocket-Version: 13\r\n"
    "Accept-Encoding: gzip, deflate, br\r\n"
    "Accept-Language: en-US,en;q=0.9\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Protocol: ringhub.v1\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

static volatile size_t sink;

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void parse(struct rh_http_head *head)
{
    const char *why;

    if (rh_http_parse(browser, sizeof(browser) - 1, 16384, NULL, head, &why) <= 0)
        abort();
}

static void run_parse(struct rh_http_head *head)
{
    parse(head);
    sink += head->header_count;
}

static void run_check(struct rh_http_head *head)
{
    struct rh_upgrade up;
    const char *why;

    if (rh_upgrade_check(head, NULL, &up, &why))
        abort();
    sink += (size_t)up.accept[0];
}

static void run_whole(struct rh_http_head *head)
{
    struct rh_upgrade up;
    struct rh_span user;
    const char *why;
    char name[RH_NAME_MAX], answer[512];
    bool more;
    int len;

    parse(head);
    if (rh_upgrade_check(head, NULL, &up, &why) || !rh_origin_same(head) ||
        !rh_query_find(head->query, "user_id", &user, &more) || more)
        abort();
    len = rh_percent_decode(name, sizeof(name), user);
    if (len < 0 || !rh_name_ok(name, (size_t)len))
        abort();
    sink += rh_upgrade_response(answer, sizeof(answer), &up);
}

static void measure(const char *what, void (*run)(struct rh_http_head *head))
{
    struct rh_http_head head;
    uint64_t best = UINT64_MAX;

    parse(&head);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = now_ns(), took;

        for (int i = 0; i < TIMES; i++)
            run(&head);
        took = now_ns() - start;
        best = RH_MIN(best, took);
    }
    printf("%-44s %8.0f ns\n", what, (double)best / TIMES);
}

static void measure_by_bytes(void)
{
    static char head_bytes[LONG_HEAD];
    struct rh_http_head head;
    const char *why;
    size_t scanned = 0;
    uint64_t start;

    memset(head_bytes, 'a', sizeof(head_bytes));
    memcpy(head_bytes, "GET / HTTP/1.1\r\nA: ", 19);
    start = now_ns();
    for (size_t len = 0; len < LONG_HEAD; len++) {
        if (rh_http_parse(head_bytes, len, LONG_HEAD, &scanned, &head, &why))
            abort();
    }
    printf("%-44s %8.0f ns\n", "a call, 16 KiB by bytes", (double)(now_ns() - start) / LONG_HEAD);
}

int main(void)
{
    printf("a browser's handshake, %zu bytes, 13 fields\n", sizeof(browser) - 1);
    measure("rh_http_parse", run_parse);
    measure("rh_upgrade_check (SHA-1 within)", run_check);
    measure("parse, check, origin, user, response", run_whole);
    measure_by_bytes();
    return 0;
}
