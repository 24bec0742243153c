#include "op/kernel.h"
#include "op/softmax/softmax.h"

static softmax_parts parts_of(const clsplat_limits *limits, const op_softmax_args *a) {
    enum { RANGES = 2, SHORTEST = 2 * GROUP_ITEMS, LONGEST = 1 << 15 };
    return softmax_cut(limits, a, RANGES, SHORTEST, LONGEST);
}

/* Rows that share a key head, up to which a work-group takes them all. Its local memory is
 * cl/softmax/softmax_few.cl's: per row the query, and twice a number for each item. */
bool softmax_few_fits(const clsplat_limits *limits, const void *args) {
    enum { ROWS_LIMIT = 8, DIM_LIMIT = 256 };
    const op_softmax_args *a = args;
    softmax_parts p = parts_of(limits, a);
    size_t bytes = sizeof(cl_float) * p.rows * (a->q.shape[3] + 2 * GROUP_ITEMS);
    return limits_have_groups(limits, GROUP_ITEMS, bytes) && p.rows <= ROWS_LIMIT &&
           a->q.shape[3] <= DIM_LIMIT && softmax_parts_fit(a, &p);
}

clsplat_status softmax_few_run(queue *q, const void *args) {
    const op_softmax_args *a = args;
    softmax_parts p = parts_of(&q->device->info.limits, a);
    kernel_options o;
    options_group_of(&o, q->device, GROUP_ITEMS);
    options_number(&o, "ROWS", p.rows);
    return softmax_parts_run(q, a, &o, "softmax_few.cl", "softmax_few", &p);
}
