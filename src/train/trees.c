#include "train/trees.h"

#include <stdlib.h>

#include "attention/near_far.h"
#include "runtime/buffer.h"

clsplat_status pass_trees_open(const pass *p, pass_trees **made) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = p->model->device;
    const model_config *c = &p->model->model->config;
    size_t chunk = c->near_far_chunk, rows = p->rows * c->heads;
    op_tensor k = {.dtype = p->type, .shape = {p->batch, c->kv_heads, p->length, c->head_dim}};
    pass_trees *t = *made = calloc(1, sizeof *t);
    queue q;
    if (!t)
        return log_error(device->lib, CLSPLAT_MEMORY, "no memory for a step of %zu tokens", p->rows);
    TRY(near_far_check_device(device));
    TRY(near_far_choose(device, (float)c->near_far_tolerance, 0, p->length, &chunk));
    t->forest = forest_shape(&k, &k, p->length, chunk, 0);
    TRY(forest_create(device, &t->forest));
    t->noted = op_near_far_backward_notes(&device->info.limits, &t->forest, rows);
    t->bytes = sizeof(float) * (t->noted ? t->forest.chunks : OP_KEPT) * rows;
    TRY(buffer_create(device, t->bytes, &t->kept));
    queue_begin(device, 0, NULL, &q);
    TRY(forest_clear(&q, &t->forest));
fail:
    return status;
}

void pass_trees_close(const pass *p, pass_trees **made) {
    pass_trees *t = *made;
    if (!t)
        return;
    forest_release(p->model->device, &t->forest);
    buffer_release(p->model->device, t->bytes, &t->kept);
    free(t);
    *made = NULL;
}

clsplat_status pass_trees_attend(queue *q, const pass *p, size_t layer) {
    clsplat_status status = CLSPLAT_OK;
    const pass_trees *t = pass_layer_of(p, layer)->trees;
    op_softmax_args f = pass_attention(p, layer);
    TRY(op_gather(q, &(op_gather_args){.forest = &t->forest, .k = f.k, .v = f.v}));
    TRY(op_near_far(q, &(op_near_far_args){.forest = &t->forest,
                                           .q = f.q,
                                           .k = f.k,
                                           .v = f.v,
                                           .out = f.out,
                                           .lse = f.lse,
                                           .kept = t->noted ? NULL : t->kept,
                                           .notes = t->noted ? t->kept : NULL,
                                           .scale = f.scale,
                                           .diagonal = f.diagonal,
                                           .keys = p->length,
                                           .tolerance = (float)p->model->model->config.near_far_tolerance}));
fail:
    return status;
}

clsplat_status pass_trees_back(queue *q, const pass *p, size_t layer, const op_softmax_backward_args *a) {
    const pass_trees *t = pass_layer_of(p, layer)->trees;
    return op_near_far_backward(
        q, &(op_near_far_backward_args){.forest = &t->forest,
                                        .q = a->q,
                                        .k = a->k,
                                        .v = a->v,
                                        .out = a->out,
                                        .lse = a->lse,
                                        .kept = t->noted ? NULL : t->kept,
                                        .notes = t->noted ? t->kept : NULL,
                                        .dout = a->dout,
                                        .dq = a->dq,
                                        .dk = a->dk,
                                        .dv = a->dv,
                                        .scale = a->scale,
                                        .diagonal = a->diagonal,
                                        .tolerance = (float)p->model->model->config.near_far_tolerance});
}
