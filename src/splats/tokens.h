/* The tokens that splats are made from: queries and keys in host memory, head by head. */
#ifndef CLSPLAT_SPLATS_TOKENS_H
#define CLSPLAT_SPLATS_TOKENS_H

#include <clsplat/tensor.h>

#include "base/random.h"

/* The tokens of head h: its queries and the keys of its key head, over the batch; of all heads together if
 * shared. keys_only leaves the queries out. */
typedef struct token_source {
    clsplat_tensor q, k; /* strides filled in; q may be absent */
    bool shared, keys_only;
} token_source;

/* Returns: SHAPE, INVALID. */
clsplat_status tokens_open(clsplat *lib, clsplat_tensor q, clsplat_tensor k, bool shared,
                           token_source *source);

/* Of the set, and tokens in each. */
size_t tokens_heads(const token_source *source);
size_t tokens_count(const token_source *source);

/* `count` different tokens of a head, drawn evenly, as float32 rows. Returns: INVALID, naming tensor, head
 * and column of a number among them that is not finite; MEMORY. */
clsplat_status tokens_sample(clsplat *lib, const token_source *source, size_t head, random_state *random,
                             size_t count, float *tokens);

#endif
