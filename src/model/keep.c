#include "model/keep.h"

#include <stdlib.h>

clsplat_status query_keeper_create(clsplat *lib, const attention_shape *shape, clsplat_dtype activations,
                                   const uint32_t *tokens, size_t count, query_keeper *keeper) {
    size_t rows = shape->layers * shape->heads * count,
           row = shape->head_dim * clsplat_dtype_size(activations);
    *keeper = (query_keeper){.tokens = tokens, .count = count, .dtype = activations};
    keeper->queries = calloc(rows ? rows : 1, row);
    if (!keeper->queries)
        return log_error(lib, CLSPLAT_MEMORY, "no memory for the queries of %zu tokens", count);
    return CLSPLAT_OK;
}

void query_keeper_free(query_keeper *keeper) {
    free(keeper->queries);
    *keeper = (query_keeper){0};
}

clsplat_status query_keep(queue *q, const attention_step *step, query_keeper *keeper) {
    clsplat_status status = CLSPLAT_OK;
    const op_tensor *t = &step->q;
    size_t each = clsplat_dtype_size(t->dtype), row = t->shape[3] * each, heads = t->shape[1];
    for (size_t i = 0; i < keeper->count; ++i) {
        size_t token = keeper->tokens[i];
        if (token < step->first || token >= step->first + t->shape[2])
            continue;
        size_t element = t->offset + (token - step->first) * t->stride[2];
        TRY(queue_download(
            q, (queue_copy){.mem = t->mem,
                            .mem_offset = element * each,
                            .mem_pitch = t->stride[1] * each,
                            .host = keeper->queries + (step->layer * heads * keeper->count + i) * row,
                            .host_pitch = keeper->count * row,
                            .row = row,
                            .rows = heads}));
    }
fail:
    return status;
}
