/* The buffers that activations pass through, made once and shared by a model's sessions. */
#ifndef CLSPLAT_MODEL_SCRATCH_H
#define CLSPLAT_MODEL_SCRATCH_H

#include "model/config.h"
#include "op/op.h"

/* For up to `rows` tokens at once, and logits of up to `logit_rows`. Dense. What a model has no use for is
 * absent: gated without gates, turn without rotary positions, logits without a head. */
typedef struct model_scratch {
    size_t rows, logit_rows;
    op_tensor x;                                   /* float32 [1,1,rows,hidden]: the residual stream */
    op_tensor h, qkv, attended, y, gate_up, gated; /* [1,1,rows,…] in the type of activations */
    op_tensor lse, turn, local_turn, logits;       /* float32; local_turn of layers with a window */
    cl_mem ids, positions;                         /* int32 [rows]: encoders */
    op_tensor zeros;                               /* float32 [1,1,1,D]: decoders */
    op_tensor key_bias, pooled, unit; /* float32 [1,1,rows,1], [1,1,rows,hidden], and √hidden⁻¹ as weights
                                         [1,1,1,hidden]: encoders */
} model_scratch;

/* Returns: MEMORY. */
clsplat_status model_scratch_create(clsplat_device *device, const model_config *config, size_t rows,
                                    clsplat_dtype activations, bool head, model_scratch *scratch);
/* Accepts a zeroed struct. */
void model_scratch_free(clsplat_device *device, model_scratch *scratch);

/* A new dense tensor [batch,heads,rows,columns], or [1,heads,rows,columns]; and its end. */
clsplat_status tensor_create_batch(clsplat_device *device, clsplat_dtype dtype, size_t batch, size_t heads,
                                   size_t rows, size_t columns, op_tensor *tensor);
clsplat_status tensor_create(clsplat_device *device, clsplat_dtype dtype, size_t heads, size_t rows,
                             size_t columns, op_tensor *tensor);
/* A row of zeros, from the host, so that no command can fail to make them. */
clsplat_status tensor_create_zeros(clsplat_device *device, size_t columns, op_tensor *zeros);
void tensor_release(clsplat_device *device, op_tensor *tensor);

#endif
