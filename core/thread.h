/* core/thread.h - which of the hub's threads is this one?
 *
 * Every thread of a hub has a tid: shards 0 to N-1, behind them the others. The number is a
 * thread-local, so that objects can assert who touches them; the simulation runs all threads'
 * steps on one thread and sets it before each.
 */
#ifndef RH_THREAD_H
#define RH_THREAD_H

#define RH_TID_NONE (-1) /* not a thread of a hub */

int rh_tid_self(void);
void rh_tid_set(int tid);

/* Starts a thread with all signals blocked, so that the host's handlers run on the host's threads.
 * `name` shows in top and gdb (15 bytes). 0 or RH_EIO. */
struct rh_thread {
    unsigned long handle;
    void (*run)(void *arg);
    void *arg;
    int tid;
    char name[16];
};
int rh_thread_start(struct rh_thread *thread, int tid, const char *name, void (*run)(void *arg),
                    void *arg);
void rh_thread_join(struct rh_thread *thread);
void rh_thread_yield(void);    /* the others that wait for this processor come first */
unsigned rh_thread_cpus(void); /* processors that this process may use */

#endif
