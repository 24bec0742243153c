/* A model's weights on a device, in the type they are stored in. */
#ifndef CLSPLAT_MODEL_WEIGHTS_H
#define CLSPLAT_MODEL_WEIGHTS_H

#include <clsplat/model.h>

#include "model/config.h"
#include "op/op.h"

/* Matrices are [1,1,out,in], vectors [1,1,1,C]; what a model does not have is absent. Projections that read
 * the same rows lie one after the other in one matrix. A matrix of several types, or larger than one buffer
 * may be, lies in several, each with the rows that follow those of the one before; the rest are absent. */
enum { MATRIX_PARTS = 24 };

typedef struct model_norm {
    op_tensor weight, shift; /* absent: rows stay as they are */
} model_norm;

/* As layer_kind tells. */
typedef struct model_layer {
    model_norm attention_norm, attention_result, mlp_norm, mlp_result;
    op_tensor qkv[MATRIX_PARTS], qkv_bias, q_norm, k_norm, out[MATRIX_PARTS], out_bias;
    /* qkv [(H+2·Hk)·D, hidden] */
    op_tensor splat_mean, splat_precision,
        splat_amplitude;   /* splat layers: [Hk·S,D], logarithms [Hk·S,D], [Hk·S] */
    op_tensor splat_shift; /* [(H+2·Hk)·D]: how much of the token before is in q, k and v; absent: nothing */
    op_tensor splat_gates, splat_gates_bias; /* strength and, but in encoders, decay: [2·Hk,hidden], [2·Hk] */
    op_tensor sinks;                         /* [1,H,1,1]; absent: heads have none */
    op_tensor gate_up[MATRIX_PARTS], gate_up_bias; /* [2·I, hidden], without gates [I, hidden] */
    op_tensor down[MATRIX_PARTS], down_bias;
} model_layer;

typedef struct model_weights {
    op_tensor embedding[MATRIX_PARTS], positions, types;
    model_norm embedding_norm, norm;
    op_tensor head_dense, head_dense_bias; /* encoders: x becomes norm(f(dense x)) before the head reads it */
    model_norm head_norm;
    op_tensor head[MATRIX_PARTS], head_bias; /* head may be the embedding; absent if there is none */
    model_layer *layers;
    cl_mem frequencies[2]; /* float32 [D/2] each, as in the configuration; the second may be NULL */
    bool has_sinks;        /* some layer's heads */
    uint64_t parameters, bytes;
    struct weight_plan *plan; /* who owns the buffers */
} model_weights;

/* Finds every tensor and checks its shape and type, then whether the device has room for all, and uploads
 * them. Blocks. Returns: IO, FORMAT, UNSUPPORTED, MEMORY, OPENCL, CANCELLED. */
clsplat_status model_weights_load(clsplat_device *device, const char *folder, const model_config *config,
                                  const clsplat_model_options *options, model_weights *weights);
/* Accepts a zeroed struct. */
void model_weights_free(clsplat_device *device, model_weights *weights);

#endif
