/* core/thread.c - threads with a number, a name, an arena and no signals. */
#include "core/thread.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>

#include "core/base.h"
#include "core/mem.h"
#include "core/ringhub.h"

static _Thread_local int tid_self = RH_TID_NONE;

int rh_tid_self(void)
{
    return tid_self;
}

void rh_tid_set(int tid)
{
    tid_self = tid;
}

static void *thread_main(void *arg)
{
    struct rh_thread *thread = arg;

    rh_tid_set(thread->tid);
    rh_mem_thread_init();
    pthread_setname_np(pthread_self(), thread->name);
    thread->run(thread->arg);
    return NULL;
}

int rh_thread_start(struct rh_thread *thread, int tid, const char *name, void (*run)(void *arg),
                    void *arg)
{
    pthread_t handle;
    sigset_t all, before;
    int rc;

    thread->tid = tid;
    thread->run = run;
    thread->arg = arg;
    snprintf(thread->name, sizeof(thread->name), "%.15s", name);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&handle, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc)
        return RH_EIO;
    thread->handle = handle;
    return RH_OK;
}

void rh_thread_join(struct rh_thread *thread)
{
    pthread_join(thread->handle, NULL);
}

void rh_thread_yield(void)
{
    sched_yield();
}

unsigned rh_thread_cpus(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}
