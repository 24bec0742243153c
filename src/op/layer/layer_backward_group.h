/* The rows for GPUs of layer_backward.h and optimise.h (cl/layer/layer_backward_group.cl). Sums over rows are
 * made in runs, whose parts are added up in their order. */
#ifndef CLSPLAT_OP_LAYER_LAYER_BACKWARD_GROUP_H
#define CLSPLAT_OP_LAYER_LAYER_BACKWARD_GROUP_H

#include "op/variant.h"

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
