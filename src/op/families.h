/* The families, one a file. */
#ifndef CLSPLAT_OP_FAMILIES_H
#define CLSPLAT_OP_FAMILIES_H

#include "op/variant.h"

extern const op_family op_softmax_family, op_write_family, op_scan_family, op_respond_family, op_read_family,
    op_gemm_family, op_topk_family, op_norm_family, op_turn_family, op_rope_family, op_activate_family,
    op_embed_family, op_score_family, op_sample_family, op_gather_family, op_near_far_family,
    op_distance_family;
/* op/backward.h */
extern const op_family op_softmax_backward_family, op_read_backward_family, op_collect_family,
    op_write_backward_family, op_token_gradient_family, op_splat_moments_family, op_level_lifts_family,
    op_near_far_backward_family;

/* op/layer/layer_backward.h */
extern const op_family op_norm_backward_family, op_activate_backward_family, op_embed_backward_family,
    op_cross_entropy_family, op_turn_back_family, op_transpose_family, op_column_sums_family;

/* op/layer/optimise.h */
extern const op_family op_square_sums_family, op_clip_factor_family, op_adamw_family;

/* op/splat/splat_layer.h */
extern const op_family op_token_features_family, op_token_features_backward_family, op_splat_features_family,
    op_splat_features_backward_family, op_splat_scan_family, op_splat_scan_backward_family;

#endif
