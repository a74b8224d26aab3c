/* core/base.h - assertions, list, small arithmetic: what every file may take for granted.
 *
 * rh_assert stays on in release builds: it guards states that cannot happen, costs one
 * predicted branch, and a crash with a sentence is better than a wrong delivery.
 */
#ifndef RH_BASE_H
#define RH_BASE_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define rh_likely(x)   __builtin_expect(!!(x), 1)
#define rh_unlikely(x) __builtin_expect(!!(x), 0)

/* Prints the broken rule and aborts. Any thread. */
_Noreturn void rh_assert_fail(const char *rule, const char *file, int line);

#define rh_assert(rule)                                                                            \
    do {                                                                                           \
        if (rh_unlikely(!(rule)))                                                                  \
            rh_assert_fail(#rule, __FILE__, __LINE__);                                             \
    } while (0)

#define rh_container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define RH_COUNT(array)                    (sizeof(array) / sizeof((array)[0]))
#define RH_MIN(a, b)                       ((a) < (b) ? (a) : (b))
#define RH_MAX(a, b)                       ((a) > (b) ? (a) : (b))
#define RH_CACHE_LINE                      64

/* A run of bytes that somebody else owns; not terminated by a zero. */
struct rh_span {
    const char *at;
    uint32_t len;
};

#define RH_SPAN(literal) ((struct rh_span){(literal), sizeof(literal) - 1})

/* True when both hold the same bytes. */
bool rh_span_eq(struct rh_span a, struct rh_span b);

/* A ring list with a head of its own kind; an unlinked node points at itself. */
struct rh_list {
    struct rh_list *next;
    struct rh_list *prev;
};

static inline void rh_list_init(struct rh_list *node)
{
    node->next = node;
    node->prev = node;
}

static inline bool rh_list_empty(const struct rh_list *head)
{
    return head->next == head;
}

static inline void rh_list_add(struct rh_list *head, struct rh_list *node) /* at the end */
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void rh_list_del(struct rh_list *node) /* harmless on an unlinked node */
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    rh_list_init(node);
}

#endif
