#include "op/kernel.h"
#include "op/softmax/softmax.h"

/* A few ranges per compute unit, so that none waits long for the others; each long enough to be worth a
 * state, and short enough for a sum in float32. */
static softmax_parts parts_of(const clsplat_limits *limits, const op_softmax_args *a) {
    enum { RANGES = 8, SHORTEST = 512, LONGEST = 1 << 16 };
    return softmax_cut(limits, a, RANGES, SHORTEST, LONGEST);
}

/* Rows that share a key head, up to which one work-item takes them all. */
bool softmax_split_fits(const clsplat_limits *limits, const void *args) {
    enum { ROWS_LIMIT = 32, QUERIES_LIMIT = 16, KEYS_LEAST = 1024 };
    const op_softmax_args *a = args;
    softmax_parts p = parts_of(limits, a);
    return limits_are_wide(limits) && a->q.shape[3] % 16 == 0 && a->v.shape[3] % 16 == 0 &&
           a->q.shape[2] <= QUERIES_LIMIT && p.rows <= ROWS_LIMIT && a->k.shape[2] >= KEYS_LEAST &&
           softmax_parts_fit(a, &p);
}

/* Up to FEW rows each reads the keys as they lie; more are worth transposing them. */
clsplat_status softmax_split_run(queue *q, const void *args) {
    enum { FEW = 8 };
    const op_softmax_args *a = args;
    softmax_parts p = parts_of(&q->device->info.limits, a);
    size_t high = p.rows <= FEW ? 1 : 4;
    kernel_options o = {.group = 1};
    options_number(&o, "RT", high);
    options_number(&o, "TILE", (p.rows + high - 1) / high * high);
    options_number(&o, "LANES", high);
    return softmax_parts_run(q, a, &o, "softmax_split.cl", "softmax_split", &p);
}
