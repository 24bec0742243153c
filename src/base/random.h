/* Random numbers that are the same on every machine for one seed.
 * Source: Steele, Lea and Flood 2014 (SplitMix64). */
#ifndef CLSPLAT_BASE_RANDOM_H
#define CLSPLAT_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

typedef struct random_state {
    uint64_t state;
} random_state;

random_state random_seed(uint64_t seed);
/* An independent sequence for each `stream` of one seed: a head, a level. */
random_state random_stream(uint64_t seed, uint64_t stream);
uint64_t random_next(random_state *r);
double random_uniform(random_state *r);             /* [0, 1) */
double random_normal(random_state *r);              /* mean 0, variance 1 */
size_t random_below(random_state *r, size_t limit); /* 0 to limit − 1, unbiased; limit ≥ 1 */
/* `count` different numbers below `limit`, ascending; count ≤ limit. */
void random_sample(random_state *r, size_t limit, size_t count, size_t *chosen);

#endif
