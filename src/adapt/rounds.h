/* One round of decisions at a level, in all heads. */
#ifndef CLSPLAT_ADAPT_ROUNDS_H
#define CLSPLAT_ADAPT_ROUNDS_H

#include "adapt/propose.h"

/* One column less, by the death or merge that costs each head least. Not forced: only of splats that starve
 * or pairs that are one, and only where it raises no head's error by more than least_gain. */
clsplat_status round_shrink(herd *h, size_t level, bool forced, bool *done);

/* Up to `most` columns more, by the mitoses and births that lower each head's error most. Forced: one at
 * least. A head that nothing helps while others grow splits a splat in place. Writes: *grown. */
clsplat_status round_grow(herd *h, size_t level, size_t most, bool forced, size_t *grown);

/* In each head a death or merge, and a birth or mitosis in its place, if the two lower the head's error; and
 * if they do, another such pair. */
clsplat_status round_trade(herd *h, size_t level);

#endif
