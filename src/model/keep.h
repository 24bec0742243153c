/* The queries of chosen tokens, kept as they pass, for whoever looks at a text's attention afterwards: keys
 * and values are in the session's cache anyway. */
#ifndef CLSPLAT_MODEL_KEEP_H
#define CLSPLAT_MODEL_KEEP_H

#include "model/attention.h"

typedef struct query_keeper {
    const uint32_t *tokens; /* [count], rising, below the session's capacity */
    size_t count;
    clsplat_dtype dtype; /* of what is kept: the model's activations */
    char *queries;       /* [layers][H][count][D]; 0 where a token has not passed */
} query_keeper;

/* Ownership: *keeper is the caller's, to be given to query_keeper_free; `tokens` stay the caller's. Returns:
 * MEMORY. */
clsplat_status query_keeper_create(clsplat *lib, const attention_shape *shape, clsplat_dtype activations,
                                   const uint32_t *tokens, size_t count, query_keeper *keeper);
void query_keeper_free(query_keeper *keeper);

/* Those of the step. Blocks. */
clsplat_status query_keep(queue *q, const attention_step *step, query_keeper *keeper);

#endif
