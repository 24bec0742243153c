/* Which tensors of a folder become which buffers of a model. */
#ifndef CLSPLAT_MODEL_WEIGHTS_PLAN_H
#define CLSPLAT_MODEL_WEIGHTS_PLAN_H

#include "model/folder.h"
#include "model/weights.h"

enum { PARTS_MOST = 3 };

/* One buffer in the making: a tensor, or several below each other. */
typedef struct weight_target {
    op_tensor *tensor;
    model_tensor parts[PARTS_MOST];
    size_t count;
    size_t bytes;
} weight_target;

typedef struct weight_plan {
    weight_target *targets;
    size_t count;
    size_t frequency_bytes;
    uint64_t parameters;
    bool tied; /* the embedding is the head, too: what the configuration says, or the file */
} weight_plan;

/* Finds every tensor that the configuration asks for, checks its shape and type, and plans its place in the
 * weights. weights->layers has room for all layers. Warns of tensors that nothing asks for. Ownership: *plan
 * is the caller's, for weight_plan_free, also when it fails. Returns: FORMAT, UNSUPPORTED, MEMORY. */
clsplat_status weight_plan_make(clsplat *lib, model_folder *folder, const model_config *config,
                                model_weights *weights, weight_plan **plan);
/* Accepts NULL. */
void weight_plan_free(weight_plan *plan);

#endif
