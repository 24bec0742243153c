/* The families, one a file: the list makes their declarations here, and op_families in variant.c. */
#ifndef CLSPLAT_OP_FAMILIES_H
#define CLSPLAT_OP_FAMILIES_H

#include "op/variant.h"

/* clang-format off */
#define OP_FAMILIES(X) \
    X(softmax) X(write) X(scan) X(log_density) X(read) X(gemm) X(gemm_transposed) X(topk) X(norm) X(turn) X(rope) X(activate) \
    X(embed) X(score) X(sample) X(gather) X(near_far) X(distance) X(softmax_backward) X(read_backward) \
    X(collect) X(write_backward) X(token_gradient) X(splat_moments) X(level_gradients) X(near_far_backward) \
    X(norm_backward) X(activate_backward) X(embed_backward) X(cross_entropy) X(turn_back) X(transpose) \
    X(column_sums) X(square_sums) X(clip_factor) X(adamw) X(token_features) X(token_features_backward) \
    X(splat_features) X(splat_features_backward) X(token_biases) X(token_biases_backward) X(splat_scan) \
    X(splat_scan_backward) X(token_shift) X(token_shift_backward) X(relative_error) X(divergence)
/* clang-format on */

#define X(name) extern const op_family op_##name##_family;
OP_FAMILIES(X)
#undef X

#endif
