/* tests/fuzz/fz_mem.c - core/mem replaced: the same allocator, and it counts what is out.
 *
 * Large blocks are kept for the next run, poisoned meanwhile: fresh memory of that size would cost more
 * than all else. Those of HUGE bytes and more, of which only a part is ever touched, are mapped anew.
 */
#include "core/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/fuzz/fz.h"

#define LARGE      (32u << 10)
#define HUGE       (512u << 10)
#define LARGES_MAX 64

static struct {
    uint64_t live, fail_left;
    bool may_fail, has_failed;
    struct large {
        void *at;
        size_t size;
        bool out;
    } larges[LARGES_MAX];
} mem;

void fz_mem_begin(void)
{
    mem.live = 0;
    mem.fail_left = 0;
    mem.may_fail = mem.has_failed = false;
}

bool fz_mem_may_fail(bool may)
{
    bool before = mem.may_fail;

    mem.may_fail = may;
    return before;
}

uint64_t fz_mem_live(void)
{
    return mem.live;
}

bool fz_mem_has_failed(void)
{
    return mem.has_failed;
}

static bool fails(void)
{
    if (!mem.may_fail || !mem.fail_left || --mem.fail_left)
        return false;
    fz_trace("    an allocation fails");
    mem.has_failed = true;
    return true;
}

/* One of that size which is not out, or a place for it. */
static struct large *find_large(size_t size)
{
    struct large *empty = NULL;

    for (unsigned i = 0; i < LARGES_MAX; i++) {
        struct large *l = &mem.larges[i];

        if (l->at && l->size == size && !l->out)
            return l;
        if (!l->at)
            empty = l;
    }
    return empty;
}

/* Zeroed. NULL: it is to come from the allocator. */
static void *take_large(size_t size)
{
    struct large *l = size >= LARGE ? find_large(size) : NULL;

    if (!l)
        return NULL;
    if (!l->at) {
        l->at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        FZ_CHECK(l->at != MAP_FAILED, "no memory");
        l->size = size;
    } else {
        RH_MEM_UNPOISON(l->at, size);
        memset(l->at, 0, size);
    }
    l->out = true;
    return l->at;
}

static bool give_large(void *at)
{
    for (unsigned i = 0; i < LARGES_MAX; i++) {
        struct large *l = &mem.larges[i];

        if (l->at != at || !at)
            continue;
        FZ_CHECK(l->out, "freed twice: %p", at);
        l->out = false;
        if (l->size < HUGE) {
            RH_MEM_POISON(at, l->size);
        } else {
            munmap(at, l->size);
            l->at = NULL;
        }
        return true;
    }
    return false;
}

void *rh_mem_alloc(size_t size)
{
    if (fails())
        return NULL;
    mem.live++;
    return malloc(size);
}

void *rh_mem_zalloc(size_t size)
{
    void *at;

    if (fails())
        return NULL;
    mem.live++;
    at = take_large(size);
    return at ? at : calloc(1, size);
}

void *rh_mem_zalloc_aligned(size_t size)
{
    size_t whole = (size + RH_CACHE_LINE - 1) & ~(size_t)(RH_CACHE_LINE - 1);
    void *at;

    if (fails())
        return NULL;
    mem.live++;
    at = take_large(whole);
    if (at)
        return at;
    at = aligned_alloc(RH_CACHE_LINE, whole);
    return at ? memset(at, 0, whole) : NULL;
}

void *rh_mem_realloc(void *at, size_t size)
{
    if (fails())
        return NULL;
    for (unsigned i = 0; at && i < LARGES_MAX; i++)
        FZ_CHECK(mem.larges[i].at != at, "a large block is not made to grow");
    mem.live += at == NULL;
    return realloc(at, size);
}

void rh_mem_free(void *at)
{
    if (!at)
        return;
    FZ_CHECK(mem.live, "more is freed than was allocated");
    mem.live--;
    if (!give_large(at))
        free(at);
}

char *rh_mem_strndup(const char *at, size_t len)
{
    char *copy = rh_mem_alloc(len + 1);

    if (!copy)
        return NULL;
    memcpy(copy, at, len);
    copy[len] = '\0';
    return copy;
}

void rh_mem_thread_init(void)
{
}

void rh_mem_purge(void)
{
}

uint64_t rh_mem_in_use(void)
{
    return 0;
}

void rh_mem_fail_nth(uint64_t nth)
{
    mem.fail_left = nth;
}

uint64_t rh_mem_fail_left(void)
{
    return mem.fail_left;
}
