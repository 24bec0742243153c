#include "model/scratch.h"

#include <math.h>
#include <stdlib.h>

#include "runtime/buffer.h"

/* Logits of one piece, in numbers, but at least one row. */
enum { LOGITS_LIMIT = 16 << 20 };

static size_t bytes_of(const op_tensor *t) {
    return t->shape[0] * t->stride[0] * clsplat_dtype_size(t->dtype);
}

clsplat_status tensor_create_batch(clsplat_device *device, clsplat_dtype dtype, size_t batch, size_t heads,
                                   size_t rows, size_t columns, op_tensor *tensor) {
    size_t all = heads * rows * columns;
    *tensor = (op_tensor){
        .dtype = dtype, .shape = {batch, heads, rows, columns}, .stride = {all, rows * columns, columns}};
    return buffer_create(device, bytes_of(tensor), &tensor->mem);
}

clsplat_status tensor_create(clsplat_device *device, clsplat_dtype dtype, size_t heads, size_t rows,
                             size_t columns, op_tensor *tensor) {
    return tensor_create_batch(device, dtype, 1, heads, rows, columns, tensor);
}

void tensor_release(clsplat_device *device, op_tensor *tensor) {
    if (tensor->mem)
        buffer_release(device, bytes_of(tensor), &tensor->mem);
}

/* What whole texts need besides. */
static clsplat_status create_lists(clsplat_device *device, const model_config *c, model_scratch *s) {
    clsplat_status status = CLSPLAT_OK;
    queue q;
    TRY(buffer_create(device, 4 * s->rows, &s->ids));
    TRY(buffer_create(device, 4 * s->rows, &s->positions));
    TRY(tensor_create(device, CLSPLAT_F32, 1, s->rows, 1, &s->key_bias));
    TRY(tensor_create(device, CLSPLAT_F32, 1, s->rows, c->hidden, &s->pooled));
    TRY(tensor_create(device, CLSPLAT_F32, 1, 1, c->hidden, &s->unit));
    queue_begin(device, 0, NULL, &q);
    TRY(queue_fill(&q, s->unit.mem, 0, 4 * c->hidden, 1 / sqrtf((float)c->hidden)));
fail:
    return status;
}

clsplat_status tensor_create_zeros(clsplat_device *device, size_t columns, op_tensor *zeros) {
    float *host = calloc(columns, sizeof *host);
    *zeros =
        (op_tensor){.dtype = CLSPLAT_F32, .shape = {1, 1, 1, columns}, .stride = {columns, columns, columns}};
    if (!host)
        return log_error(device->lib, CLSPLAT_MEMORY, "no memory for %zu zeros", columns);
    clsplat_status status = buffer_create_from(device, bytes_of(zeros), host, &zeros->mem);
    free(host);
    return status;
}

clsplat_status model_scratch_create(clsplat_device *device, const model_config *c, size_t rows,
                                    clsplat_dtype activations, bool head, model_scratch *s) {
    clsplat_status status = CLSPLAT_OK;
    size_t logit_rows = LOGITS_LIMIT / c->vocabulary;
    *s = (model_scratch){.rows = rows,
                         .logit_rows = logit_rows < 1      ? 1
                                       : logit_rows > rows ? rows
                                                           : logit_rows};
    TRY(tensor_create(device, CLSPLAT_F32, 1, rows, c->hidden, &s->x));
    TRY(tensor_create(device, activations, 1, rows, c->hidden, &s->h));
    TRY(tensor_create(device, activations, 1, rows, (c->heads + 2 * c->kv_heads) * c->head_dim, &s->qkv));
    TRY(tensor_create(device, activations, 1, rows, c->heads * c->head_dim, &s->attended));
    TRY(tensor_create(device, activations, 1, rows, c->hidden, &s->y));
    TRY(tensor_create(device, activations, 1, rows, (c->layer.gated ? 2 : 1) * c->intermediate, &s->gate_up));
    if (c->layer.gated)
        TRY(tensor_create(device, activations, 1, rows, c->intermediate, &s->gated));
    TRY(tensor_create(device, CLSPLAT_F32, c->heads, rows, 1, &s->lse));
    if (!c->layer.encoder)
        TRY(tensor_create_zeros(device, c->head_dim, &s->zeros));
    if (c->frequencies)
        TRY(tensor_create(device, CLSPLAT_F32, 1, rows, c->head_dim, &s->turn));
    if (c->local_turn)
        TRY(tensor_create(device, CLSPLAT_F32, 1, rows, c->head_dim, &s->local_turn));
    if (head)
        TRY(tensor_create(device, CLSPLAT_F32, 1, s->logit_rows, c->vocabulary, &s->logits));
    if (c->layer.encoder)
        TRY(create_lists(device, c, s));
fail:
    if (status != CLSPLAT_OK)
        model_scratch_free(device, s);
    return status;
}

void model_scratch_free(clsplat_device *device, model_scratch *s) {
    op_tensor *all[] = {&s->zeros,      &s->x,       &s->h,        &s->qkv,    &s->attended,
                        &s->y,          &s->gate_up, &s->gated,    &s->lse,    &s->turn,
                        &s->local_turn, &s->logits,  &s->key_bias, &s->pooled, &s->unit};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        tensor_release(device, all[i]);
    buffer_release(device, 4 * s->rows, &s->ids);
    buffer_release(device, 4 * s->rows, &s->positions);
    *s = (model_scratch){0};
}
