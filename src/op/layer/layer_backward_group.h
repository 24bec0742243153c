/* The rows for GPUs of layer_backward.h and optimise.h (cl/layer/layer_backward_group.cl). Sums over rows are
 * made in runs, whose parts are added up in their order. */
#ifndef CLSPLAT_OP_LAYER_LAYER_BACKWARD_GROUP_H
#define CLSPLAT_OP_LAYER_LAYER_BACKWARD_GROUP_H

#include "op/kernel.h"
#include "op/layer/layer_backward.h"
#include "op/variant.h"

/* What a row for any device and one for GPUs have in common: numbers of a tensor, and the options and last
 * arguments of kernels. */
double layer_numbers(const op_tensor *t);
void norm_backward_options(kernel_options *o, const op_norm_backward_args *a);
void norm_backward_arguments(launch *l, const kernel_options *o, const op_norm_backward_args *a);
void cross_entropy_arguments(launch *l, const kernel_options *o, const op_cross_entropy_args *a);
clsplat_status turn_back_begin(queue *q, kernel_options *o, const char *source, const char *kernel,
                               const op_turn_back_args *a, launch *l);

/* Groups of GROUP_ITEMS, whatever the arguments. */
bool layer_group_fits(const clsplat_limits *limits, const void *args);
/* The same where a vocabulary's table leaves room for one of each run. */
bool embed_backward_group_fits(const clsplat_limits *limits, const void *args);

clsplat_status norm_backward_group_run(queue *q, const void *args);
clsplat_status embed_backward_group_run(queue *q, const void *args);
clsplat_status cross_entropy_group_run(queue *q, const void *args);
clsplat_status turn_back_group_run(queue *q, const void *args);
clsplat_status transpose_group_run(queue *q, const void *args);
clsplat_status column_sums_group_run(queue *q, const void *args);
clsplat_status square_sums_group_run(queue *q, const void *args);

#endif
