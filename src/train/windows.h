/* Windows of a text: a pass's rows of tokens, and what follows each of them. */
#ifndef CLSPLAT_TRAIN_WINDOWS_H
#define CLSPLAT_TRAIN_WINDOWS_H

#include "train/corpus.h"
#include "train/settings.h"

/* `length` tokens from `at` on, as far as there are any; behind the text's end targets do not count (−1). */
void windows_fill(const corpus *from, size_t at, size_t length, int32_t *ids, int32_t *targets);

/* Windows from places that the seed, the step and the part of it decide, and nothing else: of the batch's
 * windows those from first · count on. Shapes: ids, targets [count, context]. */
void windows_draw(const corpus *from, const train_settings *settings, uint64_t step, size_t part,
                  size_t first, size_t count, int32_t *ids, int32_t *targets);

/* Bits a byte of a nat a token. */
double windows_bits(const corpus *c);

#endif
