/* What a splat layer has beside softmax attention: plain rows, for any device, all in float32 but
 * for x and dx, which may be of any storage type.
 *
 * A splat layer attends to the keys of a query's own chunk and of the one before, and through splats to all
 * before those, under one normaliser; queries, keys and values of a decoder have something of the token
 * before in them (op_token_shift). Each key is shared out among the splats by their densities of it, φ_s of
 * the normalised key, a product of features; a query meets a splat as it meets a key, by the product with its
 * mean. So all of it is softmax attention:
 *
 *     share   the densities of a key together: the lse of its features over those of all splats
 *     write   a splat's state of a chunk: softmax of its features over those of the chunk's keys, a bias each
 *     scan    the states of all chunks before, which fall as the tokens since say
 *     read    softmax of a query, before it is turned, over the means, with values and biases from the scan
 *
 * Splats are those of all key heads, S in a head, in one list: count = Hk·S. Their states' log-masses leave
 * out −½ Σ p μ² of the write, which `base` has. */
#ifndef CLSPLAT_OP_SPLAT_SPLAT_LAYER_H
#define CLSPLAT_OP_SPLAT_SPLAT_LAYER_H

#include "op/op.h"

enum { OP_SPLAT_LAG = 2 }; /* chunks that a query sees key by key */

/* out_i = x_i + mix ⊙ (x_(i−1) − x_i), but where i is the first of a text of `length` tokens: what a layer
 * sees of a token has something of the one before it. x's first row is token `first` of its text; unless that
 * is 0, the row in front of x is there. Shapes: x, out [1,1,N,C], mix [C]. */
typedef struct op_token_shift_args {
    op_tensor x, out;
    cl_mem mix;
    size_t first, length;
} op_token_shift_args;
clsplat_status op_token_shift(queue *q, const op_token_shift_args *args);

/* Of whole texts. dmix is the column sums of parts [runs,C]; x, dout and dx are of one type, in different
 * places. */
typedef struct op_token_shift_backward_args {
    op_tensor x, dout, dx;
    cl_mem mix, parts;
    size_t length, runs;
} op_token_shift_backward_args;
clsplat_status op_token_shift_backward(queue *q, const op_token_shift_backward_args *args);

/* f_i = [y, y²], y = x_i / √(mean x_i² + 1e-5). Shapes: x [B,H,N,D], f [B,H,N,2·D]. */
typedef struct op_token_features_args {
    op_tensor x, f;
} op_token_features_args;
clsplat_status op_token_features(queue *q, const op_token_features_args *args);

/* dx is added to. x may be turned; f is what op_token_features made of it before. */
typedef struct op_token_features_backward_args {
    op_tensor x, f, df, dx;
} op_token_features_backward_args;
clsplat_status op_token_features_backward(queue *q, const op_token_features_backward_args *args);

/* g_s = [p μ, −½ p] and base_s = log_amplitude − ½ Σ p μ², with p = e^log_precision. Shapes: mean,
 * log_precision [count,D], log_amplitude, base [count], g [count,2·D]. */
typedef struct op_splat_features_args {
    cl_mem mean, log_precision, log_amplitude, g, base;
    size_t count, dim;
} op_splat_features_args;
clsplat_status op_splat_features(queue *q, const op_splat_features_args *args);

/* Gradients of the parameters are added to. */
typedef struct op_splat_features_backward_args {
    cl_mem mean, log_precision, dg, dbase, dmean, dlog_precision, dlog_amplitude;
    size_t count, dim;
} op_splat_features_backward_args;
clsplat_status op_splat_features_backward(queue *q, const op_splat_features_backward_args *args);

/* biases_j = strength_j − mixture_j − Σ_{t > j} ln(1 + e^decay_t), t in j's chunk, and falls, that sum over a
 * whole chunk; mixture_j: the logarithm of all splats' densities of the key. Without decay nothing falls.
 * Shapes: strength, decay, mixture, biases [chunks,Hk,chunk,1], falls [chunks,Hk,1,1]. */
typedef struct op_token_biases_args {
    op_tensor strength, decay, mixture, biases, falls;
} op_token_biases_args;
clsplat_status op_token_biases(queue *q, const op_token_biases_args *args);

/* dstrength is dbiases. dfalls [chunks,Hk,splats] is what each splat's scan makes of it. */
typedef struct op_token_biases_backward_args {
    op_tensor decay, dbiases, dmixture, ddecay;
    cl_mem dfalls;
    size_t splats;
} op_token_biases_backward_args;
clsplat_status op_token_biases_backward(queue *q, const op_token_biases_backward_args *args);

/* prefix_lse and prefix of the chunks [first, chunks): the state of all chunks up to c − OP_SPLAT_LAG, as it
 * has fallen since; bias = base + prefix_lse. Of count splats each head has `splats`. Shapes: lse,
 * prefix_lse, bias [batch,room,count], value, prefix [batch,room,count,value_dim], falls [batch,room,count /
 * splats]. */
typedef struct op_splat_scan_args {
    cl_mem base, lse, value, falls, prefix_lse, prefix, bias;
    size_t batch, first, chunks, room, count, splats, value_dim;
} op_splat_scan_args;
clsplat_status op_splat_scan(queue *q, const op_splat_scan_args *args);

/* Of all chunks (first 0, room chunks). dbase is the column sums of dbias; dfalls [batch,chunks,count]. */
typedef struct op_splat_scan_backward_args {
    cl_mem lse, value, falls, prefix_lse, prefix, dprefix, dbias, dlse, dvalue, dfalls;
    size_t batch, chunks, count, splats, value_dim;
} op_splat_scan_backward_args;
clsplat_status op_splat_scan_backward(queue *q, const op_splat_scan_backward_args *args);

#endif
