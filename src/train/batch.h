/* What goes through a pass: windows of a text, and what is asked of them. Of a decoder every token's next; of
 * an encoder, what stood where a window has been hidden in part (masked-token loss). Source: Devlin et al.
 * 2018 (arXiv 1810.04805). */
#ifndef CLSPLAT_TRAIN_BATCH_H
#define CLSPLAT_TRAIN_BATCH_H

#include "train/corpus.h"
#include "train/pass.h"
#include "train/settings.h"

typedef struct train_batch {
    const trainee *t;
    const train_settings *settings;
    size_t count, length, processes; /* count: windows of this process's part of a batch */
    size_t asked;                    /* tokens of a window that count */
    pass_tokens tokens;
    int32_t *ids, *targets, *hidden, *places; /* the same, to be filled; ids begin all of it */
} train_batch;

/* Tokens of a window that count: all, or of an encoder's those that are hidden, at least one. */
size_t train_batch_asked(const trainee *t, const train_settings *settings);

/* For so many windows at a time. Returns: MEMORY. Ownership: the caller's, also after a failure, for
 * train_batch_close, which accepts a zeroed struct. */
clsplat_status train_batch_open(const trainee *t, const train_settings *settings, size_t count,
                                size_t processes, train_batch *b);
void train_batch_close(train_batch *b);

/* Windows from places that the seed, the step and the part of it decide, and nothing else: of the batch's the
 * rows that are process `own`'s. */
void train_batch_draw(const train_batch *b, const corpus *from, uint64_t step, size_t part, size_t own);

/* Windows of the first `most` tokens after each other, from *at on, which moves behind them. What is hidden
 * depends on the place alone. Returns: how many tokens count. */
size_t train_batch_next(const train_batch *b, const corpus *from, size_t most, size_t *at);

#endif
