#include "op/gemm/gemm.h"

enum { ITEMS = 64, SIDE = OP_GEMM_LOCAL_SIDE, STEP = OP_GEMM_LOCAL_STEP, ROWS_LEAST = 9 };

bool gemm_local_fits(const clsplat_limits *limits, const void *args) {
    const op_gemm_args *a = args;
    return limits_have_groups(limits, ITEMS, sizeof(cl_float) * 2 * STEP * SIDE) &&
           a->c.shape[2] >= ROWS_LEAST;
}

clsplat_status gemm_local_run(queue *q, const void *args) {
    const op_gemm_args *a = args;
    kernel_options o;
    options_group_of(&o, q->device, ITEMS);
    options_registers(&o, q->device);
    options_narrow(&o, q->device);
    size_t down = (a->c.shape[2] + SIDE - 1) / SIDE, across = (a->c.shape[3] + SIDE - 1) / SIDE;
    return gemm_launch(q, a, &o, "gemm_local.cl", "gemm_local",
                       grid_of(down * ITEMS, across, a->c.shape[0] * a->c.shape[1], ITEMS));
}
