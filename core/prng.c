/* core/prng.c - xoshiro256** 1.0 (Blackman and Vigna, "Scrambled linear pseudorandom number
 * generators", 2018).
 *
 * Why this way: four words of state, no multiplication on the state's path, and a size that lets
 * every thread have one. It is not in core/rand.c, so that the simulation, which replaces that
 * file, keeps this one.
 */
#include "core/prng.h"

#include "core/rand.h"

static inline uint64_t rotl(uint64_t x, unsigned by)
{
    return x << by | x >> (64 - by);
}

void rh_prng_init(struct rh_prng *p)
{
    rh_rand_bytes(p->s, sizeof(p->s));
    if (!(p->s[0] | p->s[1] | p->s[2] | p->s[3]))
        p->s[0] = 1; /* all zero is the one state that never leaves itself */
}

uint64_t rh_prng_next(struct rh_prng *p)
{
    uint64_t *s = p->s;
    uint64_t ret = rotl(s[1] * 5, 7) * 9;
    uint64_t old = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= old;
    s[3] = rotl(s[3], 45);
    return ret;
}
