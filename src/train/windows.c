#include "train/windows.h"

#include "base/random.h"

static const double BITS = 1.4426950408889634; /* of a nat */

double windows_bits(const corpus *c) {
    return c->count > 0 ? BITS * (double)corpus_length(c) / (double)c->count : BITS;
}

void windows_fill(const corpus *from, size_t at, size_t length, int32_t *ids, int32_t *targets) {
    size_t count = corpus_length(from);
    for (size_t i = 0; i < length; ++i) {
        bool inside = at + i + 1 < count;
        ids[i] = at + i < count ? corpus_token(from, at + i) : 0;
        targets[i] = inside ? corpus_token(from, at + i + 1) : -1;
    }
}

void windows_draw(const corpus *from, const train_settings *s, uint64_t step, size_t part, size_t first,
                  size_t count, int32_t *ids, int32_t *targets) {
    random_state random = random_stream(s->seed ^ 0x7261696eu, step * s->accumulate + part);
    for (size_t row = 0; row < (first + 1) * count; ++row) {
        size_t at = random_below(&random, corpus_length(from) - s->context), own = row - first * count;
        if (row >= first * count)
            windows_fill(from, at, s->context, ids + own * s->context, targets + own * s->context);
    }
}
