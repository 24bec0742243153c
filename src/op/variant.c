#include "op/variant.h"

#include <assert.h>
#include <string.h>

#include "op/choose.h"
#include "op/families.h"

const op_family *const op_families[] = {&op_softmax_family,
                                        &op_write_family,
                                        &op_scan_family,
                                        &op_respond_family,
                                        &op_read_family,
                                        &op_gemm_family,
                                        &op_topk_family,
                                        &op_norm_family,
                                        &op_turn_family,
                                        &op_rope_family,
                                        &op_activate_family,
                                        &op_embed_family,
                                        &op_score_family,
                                        &op_sample_family,
                                        &op_gather_family,
                                        &op_near_far_family,
                                        &op_distance_family,
                                        &op_softmax_backward_family,
                                        &op_read_backward_family,
                                        &op_collect_family,
                                        &op_write_backward_family,
                                        &op_token_gradient_family,
                                        &op_splat_moments_family,
                                        &op_level_lifts_family,
                                        &op_near_far_backward_family,
                                        &op_norm_backward_family,
                                        &op_activate_backward_family,
                                        &op_embed_backward_family,
                                        &op_cross_entropy_family,
                                        &op_turn_back_family,
                                        &op_transpose_family,
                                        &op_column_sums_family,
                                        &op_square_sums_family,
                                        &op_clip_factor_family,
                                        &op_adamw_family,
                                        &op_token_features_family,
                                        &op_token_features_backward_family,
                                        &op_splat_features_family,
                                        &op_splat_features_backward_family,
                                        &op_splat_scan_family,
                                        &op_splat_scan_backward_family};
const size_t op_family_count = sizeof op_families / sizeof *op_families;

bool op_fits_all(const clsplat_limits *limits, const void *args) {
    (void)limits, (void)args;
    return true;
}

const op_variant *op_row(const op_family *family, const char *name, const clsplat_limits *limits,
                         const void *args) {
    for (size_t row = 0; row < family->count; ++row)
        if (strcmp(family->variants[row].name, name) == 0 && family->variants[row].fits(limits, args))
            return &family->variants[row];
    return NULL;
}

clsplat_status op_run(queue *q, const op_variant *variant, const tune_point *point, const void *args) {
    tune_point defaults = tune_default(variant->space, &q->device->info.limits);
    assert(variant->fits(&q->device->info.limits, args));
    q->tuned = point ? point->value : defaults.value;
    clsplat_status status = variant->run(q, args);
    q->tuned = NULL;
    return status;
}

/* A compiler, or a device, that nobody has tried the row with: it does not build, or asks for more than there
 * is. Either shows before anything is written. */
static bool gives_way(clsplat_status status) {
    return status == CLSPLAT_BUILD || status == CLSPLAT_UNSUPPORTED;
}

clsplat_status op_dispatch(queue *q, const op_family *family, const void *args) {
    const char *preferred = op_preferred(q->device);
    const op_variant *wanted = preferred ? op_row(family, preferred, &q->device->info.limits, args) : NULL;
    if (wanted)
        return op_run(q, wanted, NULL, args);
    op_choice choice = op_choose(q->device, family, args);
    clsplat_status status = op_run(q, &family->variants[choice.row], &choice.point, args);
    while (gives_way(status) && choice.row > 0) {
        const char *failed = family->variants[choice.row].name;
        choice = op_choose_below(q->device, family, args, choice.row);
        log_warning(q->device->lib, "the variant `%s` of %s does not run here; `%s` takes its place: %.200s",
                    failed, family->name, family->variants[choice.row].name,
                    clsplat_last_error(q->device->lib));
        status = op_run(q, &family->variants[choice.row], &choice.point, args);
    }
    return status;
}
