/* tests/core/test_thread.c - threads with a number, a name and no signals. */
#include "core/thread.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/ringhub.h"
#include "tests/rh_test.h"

#define NOBODY 65534

/* What a thread saw of itself. */
struct seen {
    struct rh_thread thread;
    int tid;
    char name[16];
    sigset_t blocked;
    unsigned runs;
};

static void look(void *arg)
{
    struct seen *seen = arg;

    seen->tid = rh_tid_self();
    pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name));
    pthread_sigmask(SIG_SETMASK, NULL, &seen->blocked);
    seen->runs++;
}

RH_TEST(thread, nobody_has_a_number_before_it_is_given_one)
{
    RH_EQ_INT(rh_tid_self(), RH_TID_NONE);
    rh_tid_set(3);
    RH_EQ_INT(rh_tid_self(), 3);
    rh_tid_set(RH_TID_NONE);
    RH_EQ_INT(rh_tid_self(), RH_TID_NONE);
}

RH_TEST(thread, each_has_its_own_number_and_name_and_runs_once)
{
    static struct seen seen[8];
    char name[32];

    rh_tid_set(77);
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof(name), "shard %d", i);
        RH_EQ_INT(rh_thread_start(&seen[i].thread, i, name, look, &seen[i]), RH_OK);
        memset(name, '?', sizeof(name)); /* it was copied */
    }
    for (int i = 0; i < 8; i++) {
        rh_thread_join(&seen[i].thread);
        snprintf(name, sizeof(name), "shard %d", i);
        RH_EQ_INT(seen[i].runs, 1);
        RH_EQ_INT(seen[i].tid, i);
        RH_EQ_STR(seen[i].name, name);
    }
    RH_EQ_INT(rh_tid_self(), 77);
}

RH_TEST(thread, a_long_name_is_cut_to_15_bytes)
{
    static struct seen seen;

    RH_EQ_INT(rh_thread_start(&seen.thread, 0, "0123456789abcdefgh", look, &seen), RH_OK);
    rh_thread_join(&seen.thread);
    RH_EQ_STR(seen.name, "0123456789abcde");
}

static bool same_signals(const sigset_t *a, const sigset_t *b)
{
    for (int sig = 1; sig <= SIGRTMAX; sig++)
        if (sigismember(a, sig) != sigismember(b, sig))
            return false;
    return true;
}

RH_TEST(thread, signals_stay_with_the_starter_whose_mask_is_kept)
{
    static const int usual[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD, SIGALRM};
    static struct seen seen;
    sigset_t before, after;

    sigemptyset(&before);
    sigaddset(&before, SIGUSR2);
    RH_EQ_INT(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
    RH_EQ_INT(rh_thread_start(&seen.thread, 0, "t", look, &seen), RH_OK);
    RH_EQ_INT(pthread_sigmask(SIG_SETMASK, NULL, &after), 0);
    RH_OK_IF(same_signals(&before, &after));
    rh_thread_join(&seen.thread);
    for (size_t i = 0; i < sizeof(usual) / sizeof(*usual); i++)
        RH_OK_IF(sigismember(&seen.blocked, usual[i]));
}

RH_TEST(thread, one_that_cannot_be_started_is_eio_and_never_runs)
{
    static struct seen seen;
    struct rlimit limit, none;
    sigset_t before, after;

    if (geteuid() == 0) { /* root has no limit */
        RH_EQ_INT(setresgid(NOBODY, NOBODY, NOBODY), 0);
        RH_EQ_INT(setresuid(NOBODY, NOBODY, NOBODY), 0);
        RH_EQ_INT(prctl(PR_SET_DUMPABLE, 1), 0); /* for the leak check at the end */
    }
    RH_EQ_INT(getrlimit(RLIMIT_NPROC, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    RH_EQ_INT(setrlimit(RLIMIT_NPROC, &none), 0);
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    RH_EQ_INT(rh_thread_start(&seen.thread, 0, "t", look, &seen), RH_EIO);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    RH_OK_IF(same_signals(&before, &after));
    RH_EQ_INT(seen.runs, 0);
    RH_EQ_INT(setrlimit(RLIMIT_NPROC, &limit), 0);
    RH_EQ_INT(rh_thread_start(&seen.thread, 0, "t", look, &seen), RH_OK);
    rh_thread_join(&seen.thread);
    RH_EQ_INT(seen.runs, 1);
}
