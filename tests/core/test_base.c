/* tests/core/test_base.c - the list against an array, spans, and what a broken rule does. */
#include "core/base.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/rh_test.h"

struct item {
    int number;
    struct rh_list node;
};

RH_TEST(list, is_empty_at_first_and_after_the_last_one_left)
{
    struct rh_list head;
    struct item a = {.number = 1};

    rh_list_init(&head);
    RH_OK_IF(rh_list_empty(&head));
    rh_list_add(&head, &a.node);
    RH_OK_IF(!rh_list_empty(&head));
    rh_list_del(&a.node);
    RH_OK_IF(rh_list_empty(&head));
}

RH_TEST(list, deleting_an_unlinked_node_is_harmless)
{
    struct rh_list head;
    struct item a;
    struct item b;

    rh_list_init(&head);
    rh_list_init(&a.node);
    rh_list_del(&a.node);
    rh_list_add(&head, &b.node);
    rh_list_del(&b.node);
    rh_list_del(&b.node);
    RH_OK_IF(rh_list_empty(&head));
    RH_OK_IF(rh_list_empty(&b.node));
}

static void check_same(const struct rh_list *head, const int *want, int count)
{
    const struct rh_list *node = head->next;

    for (int i = 0; i < count; i++, node = node->next) {
        RH_OK_IF(node != head);
        RH_EQ_INT(rh_container_of(node, struct item, node)->number, want[i]);
        RH_OK_IF(node->next->prev == node && node->prev->next == node);
    }
    RH_OK_IF(node == head);
}

/* Goal    random adds and dels leave the same sequence as in an array. */
RH_TEST(list, keeps_the_order_of_adding_under_random_deletions)
{
    enum { items = 30 };
    struct item all[items];
    struct rh_list head;
    int want[items];
    int count = 0;

    rh_list_init(&head);
    for (int i = 0; i < items; i++) {
        all[i].number = i;
        rh_list_init(&all[i].node);
    }
    for (int step = 0; step < 4000; step++) {
        int pick = (int)(rh_test_rand() % items);
        int at = 0;

        while (at < count && want[at] != pick)
            at++;
        if (at < count) {
            rh_list_del(&all[pick].node);
            memmove(&want[at], &want[at + 1], (size_t)(--count - at) * sizeof(want[0]));
        } else {
            rh_list_add(&head, &all[pick].node);
            want[count++] = pick;
        }
        check_same(&head, want, count);
    }
}

RH_TEST(span, is_equal_when_length_and_bytes_are)
{
    RH_OK_IF(rh_span_eq(RH_SPAN("room"), RH_SPAN("room")));
    RH_OK_IF(!rh_span_eq(RH_SPAN("room"), RH_SPAN("rooms")));
    RH_OK_IF(!rh_span_eq(RH_SPAN("room"), RH_SPAN("roon")));
    RH_OK_IF(!rh_span_eq(RH_SPAN("a\0b"), RH_SPAN("a\0c")));
    RH_OK_IF(rh_span_eq(RH_SPAN(""), (struct rh_span){NULL, 0}));
}

RH_TEST(span, compares_no_byte_beyond_its_end)
{
    char *at_guard = (char *)rh_guard("room", 4);

    RH_OK_IF(rh_span_eq((struct rh_span){at_guard, 4}, RH_SPAN("room")));
    RH_OK_IF(!rh_span_eq((struct rh_span){at_guard, 4}, RH_SPAN("room and more")));
}

RH_TEST(base, macros_count_and_pick)
{
    int three[3] = {0};

    RH_EQ_INT(RH_COUNT(three), 3);
    RH_EQ_INT(RH_MIN(2, 3), 2);
    RH_EQ_INT(RH_MIN(3, 2), 2);
    RH_EQ_INT(RH_MAX(2, 3), 3);
    RH_EQ_INT(RH_MAX(3, 2), 3);
}

/* Runs rh_assert(rule) in a process of its own; `text` gets what it wrote to stderr. */
static int assert_in_child(bool rule, char *text, size_t size)
{
    int fds[2];
    pid_t child;
    ssize_t got = 0;
    int status;

    RH_EQ_INT(pipe(fds), 0);
    child = fork();
    RH_OK_IF(child >= 0);
    if (child == 0) {
        dup2(fds[1], 2);
        signal(SIGABRT, SIG_DFL);
        rh_assert(rule);
        _exit(0);
    }
    close(fds[1]);
    for (ssize_t n = 1; n > 0; got += n)
        n = read(fds[0], text + got, size - 1 - (size_t)got);
    text[got] = '\0';
    close(fds[0]);
    RH_EQ_INT(waitpid(child, &status, 0), child);
    return status;
}

RH_TEST(assert, that_holds_says_nothing)
{
    char text[512];
    int status = assert_in_child(true, text, sizeof(text));

    RH_OK_IF(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    RH_EQ_STR(text, "");
}

RH_TEST(assert, that_is_broken_names_rule_and_file_and_aborts)
{
    char text[512];
    int status = assert_in_child(false, text, sizeof(text));

    RH_OK_IF(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    RH_OK_IF(strstr(text, "broken rule") != NULL);
    RH_OK_IF(strstr(text, "test_base.c") != NULL);
    RH_OK_IF(strstr(text, ": rule\n") != NULL);
}
