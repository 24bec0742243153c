/* Splat layers of an encoder: a token attends to the keys around it and, under the same normaliser, through
 * splats to all keys of its text (op/splat/splat_layer.h has what they are; here every text is one chunk). */
#ifndef CLSPLAT_MODEL_ENCODER_SPLATS_H
#define CLSPLAT_MODEL_ENCODER_SPLATS_H

#include "model/encoder.h"

/* Of the texts of a pass. */
typedef struct encoder_splats {
    op_tensor queries;            /* [1,1,rows,H·D]: before they are turned */
    op_tensor features, strength; /* of keys: [1,1,rows,Hk·2·D], [1,1,rows,Hk] */
    op_tensor mixture, shared;    /* [1,1,rows,Hk], [1,1,rows,Hk·…]: as splat_share leaves them */
    op_tensor g, base;            /* [1,Hk,S,2·D], [1,Hk,S,1]: of the layer that is read */
    op_tensor lse, value, bias;   /* [ENCODER_TEXTS,Hk,S,…] */
} encoder_splats;

/* Ownership: *splats is the caller's, also after a failure, for encoder_splats_close; NULL for a model
 * without such layers. Returns: UNSUPPORTED (activations that are not float32), MEMORY, OPENCL. */
clsplat_status encoder_splats_open(const clsplat_model *model, encoder_splats **splats);
/* Accepts a NULL handle; sets *splats to NULL. */
void encoder_splats_close(clsplat_device *device, encoder_splats **splats);

/* From the layer's rows in scratch.h and the heads in scratch.qkv, before they are turned: queries, keys'
 * features, and how strongly each token is written. */
clsplat_status encoder_splats_look(queue *q, const clsplat_model *model, size_t layer, size_t rows);
/* Attention through splats joins what `near` has left in its out and lse. */
clsplat_status encoder_splats_attend(queue *q, const clsplat_model *model, size_t layer,
                                     const encoder_group *group, const op_softmax_args *near);

/* bias = base + lse, the log-masses that splats are read with. Shapes: base [1,Hk,S,1], lse, bias [n,Hk,S,1].
 */
clsplat_status splat_read_bias(queue *q, op_tensor base, op_tensor lse, op_tensor bias);

#endif
