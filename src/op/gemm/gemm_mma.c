#include "op/gemm/gemm.h"

/* How cl/gemm/gemm_mma.cl is built for matrix units: work-items of a group and of a subgroup; rows and
 * columns of a group's part of c; and of the summed dimension, what lies in local memory at once. */
typedef struct units_form {
    size_t group, warp, high, broad, depth;
} units_form;

static units_form units_form_of(const clsplat_limits *limits) {
    enum { SIDE = OP_GEMM_MMA_SIDE, DEPTH = 16 };
    switch (limits->matrix_units) {
    case CLSPLAT_UNITS_WMMA:
        return (units_form){128, 32, SIDE, SIDE, DEPTH};
    case CLSPLAT_UNITS_MFMA:
        return (units_form){256, 64, SIDE, SIDE, DEPTH};
    case CLSPLAT_UNITS_DPAS:
        return (units_form){limits->subgroup == 8 || limits->subgroup == 16 ? 64 : 0, limits->subgroup, SIDE,
                            SIDE / 2, DEPTH};
    case CLSPLAT_UNITS_NONE:
        break;
    }
    return (units_form){0};
}

/* Bytes of two parts each of a and of b, whose rows are padded by 8. */
static size_t units_bytes(const units_form *f) {
    return 2 * sizeof(cl_ushort) * (f->high + f->broad) * (f->depth + 8);
}

/* Few rows would leave most of a tile idle. */
static bool halves_fit(const op_gemm_args *a) {
    return tensor_suits_mma(&a->a) && tensor_suits_mma(&a->b) && a->a.dtype == a->b.dtype &&
           a->a.shape[3] % 8 == 0 && a->c.shape[2] >= 16;
}

static clsplat_status run(queue *q, const op_gemm_args *a, kernel_options *o, const units_form *f) {
    size_t across = (a->c.shape[3] + f->broad - 1) / f->broad, down = (a->c.shape[2] + f->high - 1) / f->high;
    o->group = (uint32_t)f->group;
    options_number(o, "WG", f->group);
    return gemm_launch(q, a, o, "gemm_mma.cl", "gemm_mma",
                       grid_of(across * f->group, down, a->c.shape[0] * a->c.shape[1], o->group));
}

bool gemm_mma_fits(const clsplat_limits *limits, const void *args) {
    return limits_have_mma(limits) && halves_fit(args);
}

clsplat_status gemm_mma_run(queue *q, const void *args) {
    kernel_options o = {.group = 0};
    return run(q, args, &o, &(units_form){128, 32, OP_GEMM_MMA_SIDE, OP_GEMM_MMA_SIDE, 32});
}

bool gemm_units_fits(const clsplat_limits *limits, const void *args) {
    const op_gemm_args *a = args;
    units_form form = units_form_of(limits);
    return form.group > 0 && halves_fit(a) && a->c.shape[3] % 4 == 0 && tensor_suits_fours(&a->c) &&
           limits_allow_group(limits, (uint32_t)form.group) &&
           units_bytes(&form) <= limits_local_share(limits);
}

clsplat_status gemm_units_run(queue *q, const void *args) {
    const clsplat_limits *limits = &q->device->info.limits;
    units_form form = units_form_of(limits);
    kernel_options o = {.group = 0};
    options_registers(&o, q->device);
    options_number(&o, "UNITS", (size_t)limits->matrix_units);
    if (limits->matrix_units == CLSPLAT_UNITS_DPAS)
        options_number(&o, "WARP", form.warp);
    return run(q, args, &o, &form);
}
