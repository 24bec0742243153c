#include "base/random.h"

#include <assert.h>
#include <math.h>

random_state random_seed(uint64_t seed) {
    return (random_state){seed};
}

random_state random_stream(uint64_t seed, uint64_t stream) {
    random_state s = {stream};
    return (random_state){seed ^ random_next(&s)};
}

uint64_t random_next(random_state *r) {
    uint64_t x = r->state += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

double random_uniform(random_state *r) {
    return (double)(random_next(r) >> 11) * 0x1p-53;
}

double random_normal(random_state *r) {
    double u = 1 - random_uniform(r), angle = 6.283185307179586 * random_uniform(r);
    return sqrt(-2 * log(u)) * cos(angle);
}

size_t random_below(random_state *r, size_t limit) {
    assert(limit >= 1);
    uint64_t biased = -(uint64_t)limit % limit, x; /* 2⁶⁴ mod limit draws at the bottom are drawn again */
    do
        x = random_next(r);
    while (x < biased);
    return (size_t)(x % limit);
}

void random_sample(random_state *r, size_t limit, size_t count, size_t *chosen) {
    assert(count <= limit);
    /* Knuth's algorithm S: each number is taken with the probability that is left for it. */
    for (size_t i = 0, taken = 0; taken < count; ++i)
        if (random_uniform(r) * (double)(limit - i) < (double)(count - taken))
            chosen[taken++] = i;
}
