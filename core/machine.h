/* core/machine.h - what the machine allows this process: memory and descriptors.
 *
 * Threads    any; each call looks anew.
 */
#ifndef RH_MACHINE_H
#define RH_MACHINE_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that this process could still use: what the kernel calls available, or less if a control
 * group (v1 or v2, its own or one above it) allows less. 0: nothing is left. */
#define RH_MEMORY_UNKNOWN UINT64_MAX
uint64_t rh_machine_memory(void);

/* Sets RLIMIT_NOFILE to its hard limit, as far as that goes; returns what it is then. */
uint32_t rh_machine_descriptors(void);

/* ---- for tests ---- */

/* The least that the control groups in `self` (contents of /proc/self/cgroup) leave, whose files are
 * below `root` (/sys/fs/cgroup): file pages that nobody used of late count as left, since the kernel
 * takes them back first. UINT64_MAX: no limit. */
uint64_t rh_machine_cgroup(const char *self, const char *root);

#endif
