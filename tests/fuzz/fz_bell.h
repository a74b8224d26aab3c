/* tests/fuzz/fz_bell.h - bells that nobody waits on: what core/bell.h was told. A thread has one bell,
 * found by its tid. A wait for a moment is none: its thread goes on in the next round.
 */
#ifndef FZ_BELL_H
#define FZ_BELL_H

#include "core/bell.h"
#include "tests/fuzz/fz.h"

bool fz_bell_due(unsigned tid); /* it does not sleep, or has been rung for */

#endif
