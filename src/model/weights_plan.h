/* Which tensors of a folder become which buffers of a model. */
#ifndef CLSPLAT_MODEL_WEIGHTS_PLAN_H
#define CLSPLAT_MODEL_WEIGHTS_PLAN_H

#include "model/folder.h"
#include "model/weights.h"

enum { PARTS_MOST = 3 };

/* One buffer in the making: a tensor, several below each other, or some rows of one that is too large. */
typedef struct weight_target {
    op_tensor *tensor;
    model_tensor parts[PARTS_MOST];
    size_t count;
    size_t begin; /* the first byte of parts[0] that is in it */
    size_t bytes;
} weight_target;

typedef struct weight_plan {
    weight_target *targets;
    size_t count;
    size_t frequency_bytes;
    uint64_t parameters;
    uint64_t limit; /* bytes that a buffer may have */
    bool cut;       /* some matrix lies in several buffers since one has no room for it */
    bool tied;      /* the embedding is the head, too: what the configuration says, or the file */
} weight_plan;

/* Finds every tensor that the configuration asks for, checks its shape and type, and plans its place in the
 * weights, in buffers of at most `limit` bytes as far as matrices can be cut. weights->layers has room for
 * all layers. Warns of tensors that nothing asks for. Ownership: *plan is the caller's, for weight_plan_free,
 * also when it fails. Returns: FORMAT, UNSUPPORTED, MEMORY. */
clsplat_status weight_plan_make(clsplat *lib, model_folder *folder, const model_config *config,
                                uint64_t limit, model_weights *weights, weight_plan **plan);
/* Where a matrix or vector goes: so many tensors, one after the other. */
typedef struct weight_place {
    op_tensor *tensors;
    size_t room;
} weight_place;

/* Plans the first parts that are of one type, matrices of so many columns or vectors (0): in one buffer if
 * there is room for all in it, or where there would be too many of them; else each in buffers of its own.
 * Returns: how many parts they are; `to` is what is left of it. */
size_t weight_plan_alike(weight_plan *plan, weight_place *to, size_t columns, const model_tensor *parts,
                         size_t count);

/* Accepts NULL. */
void weight_plan_free(weight_plan *plan);

#endif
