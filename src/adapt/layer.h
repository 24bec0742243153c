/* A layer's tokens on the device, the rows that are looked at, and what splats make of them.
 *
 * Rows are evenly spaced and end with the last: row t of `rows` is query first_row + t·step. In causal order
 * it sees `head_keys` keys if t is 0, and `step` more for each t; otherwise all keys are head keys. */
#ifndef CLSPLAT_ADAPT_LAYER_H
#define CLSPLAT_ADAPT_LAYER_H

#include "attention/gaussian.h"
#include "splats/splats.h"

typedef struct layer {
    clsplat_device *device;
    queue queue;
    size_t batch, heads, kv_heads, queries, keys, dim, value_dim;
    bool causal;
    float scale;
    float *q, *k, *v, *key_bias;         /* dense, on the host; key_bias [B,Hk,M] may be NULL */
    op_tensor on_q, on_k, on_v, on_bias; /* on the device */
    cl_mem out, lse;                     /* of whole attentions, [B,H,N,Dv] and [B,H,N] */
    size_t rows, first_row, step, head_keys;
    float *target; /* [B,H,rows,Dv]: softmax attention of the rows */
    double *norm;  /* [B,H]: Σ target² */
} layer;

/* Whether q, k, v and key_bias, if it is there, lie in host memory and fit each other; fills in the strides
 * of dense ones. Returns: SHAPE, INVALID. */
clsplat_status layer_check_tensors(clsplat *lib, clsplat_attention_tensors *tensors);

/* Copies the tensors, uploads them, and computes the targets. Blocks. Returns: SHAPE, INVALID, MEMORY,
 * OPENCL. */
clsplat_status layer_open(clsplat_device *device, const clsplat_attention_tensors *tensors, bool causal,
                          float scale, size_t sample, layer *l);
void layer_close(layer *l);

/* Whether the set is of these heads and dimensions. Returns: SHAPE. */
clsplat_status layer_check_set(const layer *l, clsplat_splats *splats);

/* Whether a key of a head, of [B,Hk], is padding. */
bool layer_is_padding(const layer *l, size_t head, size_t key);

/* q·k. */
float layer_product(const float *q, const float *k, size_t dim);

/* Keys that row t sees. */
size_t layer_visible(const layer *l, size_t row);

/* Whole attention through the set: out [B,H,rows,Dv] and lse [B,H,rows] of the rows. */
clsplat_status layer_attend(layer *l, clsplat_splats *set, float *out, float *lse);

/* The looked-at rows from `begin` on of a tensor of all queries; and [B,H,rows,columns] in a buffer. */
op_tensor layer_rows_of(const layer *l, op_tensor t, size_t begin);
op_tensor layer_result(const layer *l, cl_mem mem, size_t rows, size_t columns);

/* All queries of the attention that layer_attend was last asked for: out [B,H,N,Dv] and lse [B,H,N]. */
clsplat_status layer_download(layer *l, float *out, float *lse);

/* Each splat alone at each row: log-weights ln a + φ(q) + Λ, [B,H,rows,S], without that of its level, and the
 * mean values of the keys it has seen, [B,Hw,rows,S,Dv]; NULL: not wanted. S in the set's own order, by level
 * if it has several. */
typedef struct layer_states {
    size_t splats, state_heads; /* S, Hw */
    float *log_weight, *value;
    size_t room, value_room; /* numbers that there is room for; a zeroed struct has none */
} layer_states;
/* `states` is zeroed, or what is there gives its room. */
clsplat_status layer_measure(layer *l, clsplat_splats *set, bool values, layer_states *states);
void layer_states_free(layer_states *states);
/* layer_attend and layer_measure without values, at once; states: NULL if they are not wanted. */
clsplat_status layer_evaluate(layer *l, clsplat_splats *set, float *out, float *lse, layer_states *states);

/* φ of every `spacing`-th key: [B,Hw,count,S] with count = ⌈M / spacing⌉. The caller frees it. */
clsplat_status layer_cover(layer *l, clsplat_splats *set, size_t spacing, float **log_density);
/* Hw: heads of states and of cover. */
size_t layer_state_heads(const layer *l, const clsplat_splats *set);

#endif
