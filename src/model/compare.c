#include "model/compare.h"

#include <stdlib.h>

#include "runtime/buffer.h"

/* The step with results of its own. */
static clsplat_status exact_step(clsplat_device *device, const attention_step *step, attention_step *exact) {
    clsplat_status status = CLSPLAT_OK;
    size_t heads = step->q.shape[1], rows = step->q.shape[2], dim = step->q.shape[3];
    *exact = *step;
    exact->out = (op_tensor){.dtype = CLSPLAT_F32,
                             .shape = {1, heads, rows, dim},
                             .stride = {heads * rows * dim, rows * dim, dim}};
    exact->lse =
        (op_tensor){.dtype = CLSPLAT_F32, .shape = {1, heads, rows, 1}, .stride = {heads * rows, rows, 1}};
    TRY(workspace_take(device, WORKSPACE_OUT, 4 * heads * rows * dim, &exact->out.mem));
    TRY(workspace_take(device, WORKSPACE_EXACT_KEYS, 4 * heads * rows, &exact->lse.mem));
fail:
    return status;
}

clsplat_status attention_compare(queue *q, const attention_step *step, attention_distance *sums) {
    clsplat_status status = CLSPLAT_OK;
    attention_step exact;
    op_distance_args args = {.a = step->out};
    size_t rows = step->q.shape[1] * step->q.shape[2];
    float *squares = malloc(2 * rows * sizeof *squares);
    if (!squares)
        return log_error(q->device->lib, CLSPLAT_MEMORY, "no memory for %zu distances", rows);
    TRY(exact_step(q->device, step, &exact));
    TRY(attention_softmax(q, &exact, step->window));
    args.b = exact.out;
    TRY(workspace_take(q->device, WORKSPACE_LSE, 8 * rows, &args.squares));
    TRY(op_distance(q, &args));
    TRY(queue_download(q, (queue_copy){.mem = args.squares, .host = squares, .row = 8 * rows, .rows = 1}));
    for (size_t i = 0; i < rows; ++i) {
        sums->difference += (double)squares[2 * i];
        sums->size += (double)squares[2 * i + 1];
    }
fail:
    free(squares);
    return status;
}
