/* The matrix product, every row of its table that fits, against float64: ragged, degenerate and strided
 * shapes, all storage types, NaN in everything that is not an element. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"
#include "base/random.h"
#include "compare.h"
#include "matrix.h"
#include "naive/naive.h"
#include "op/families.h"
#include "op/op.h"
#include "op/rows.h"
#include "runtime/device.h"

typedef struct gemm_case {
    suite_tier tier;
    size_t batch, heads, rows, columns, depth; /* batch and heads: 0 is 1 */
    bool shared;                               /* one b for all */
    clsplat_dtype a, b, c;
} gemm_case;

// clang-format off
static const gemm_case cases[] = {
    {.rows = 1, .columns = 1, .depth = 1},
    {.rows = 3, .columns = 5, .depth = 7},
    {.rows = 1, .columns = 130, .depth = 64},
    {.rows = 130, .columns = 1, .depth = 64},
    {.rows = 17, .columns = 66, .depth = 16, .a = CLSPLAT_F16, .b = CLSPLAT_BF16},
    {.rows = 64, .columns = 64, .depth = 64, .c = CLSPLAT_F16},
    {.rows = 37, .columns = 70, .depth = 33, .a = CLSPLAT_BF16, .b = CLSPLAT_F16, .c = CLSPLAT_BF16},
    {.batch = 2, .heads = 3, .rows = 9, .columns = 20, .depth = 31, .shared = true},
    {.batch = 2, .heads = 2, .rows = 70, .columns = 33, .depth = 80},
    {.rows = 5, .columns = 3, .depth = 1500},
    {.rows = 1, .columns = 301, .depth = 200, .b = CLSPLAT_F16},
    {.rows = 8, .columns = 67, .depth = 99, .b = CLSPLAT_BF16},
    {.tier = SUITE_NORMAL, .rows = 300, .columns = 270, .depth = 261},
    {.tier = SUITE_NORMAL, .rows = 257, .columns = 513, .depth = 530, .b = CLSPLAT_BF16},
    {.tier = SUITE_NORMAL, .rows = 140, .columns = 270, .depth = 264, .a = CLSPLAT_BF16, .b = CLSPLAT_BF16},
    {.tier = SUITE_NORMAL, .batch = 2, .heads = 2, .rows = 16, .columns = 33, .depth = 40, .a = CLSPLAT_F16, .b = CLSPLAT_F16,
     .c = CLSPLAT_F16},
    {.tier = SUITE_NORMAL, .batch = 2, .heads = 2, .rows = 130, .columns = 136, .depth = 72, .shared = true,
     .a = CLSPLAT_BF16, .b = CLSPLAT_BF16, .c = CLSPLAT_BF16},
    {.tier = SUITE_NORMAL, .heads = 2, .rows = 40, .columns = 72, .depth = 40, .a = CLSPLAT_F16, .b = CLSPLAT_F16},
    {.tier = SUITE_LONG, .rows = 1030, .columns = 777, .depth = 1100},
};
// clang-format on
enum { CASES = sizeof cases / sizeof *cases, TUNED = 12, HALVES = 16 };

typedef struct product {
    const gemm_case *spec;
    matrix a, b;
    size_t shape[4]; /* of c */
    double *reference;
} product;

static product product_create(const gemm_case *spec, clsplat_device *device) {
    size_t batch = spec->batch ? spec->batch : 1, heads = spec->heads ? spec->heads : 1;
    random_state random = random_seed(spec->rows * 31 + spec->depth);
    product p = {.spec = spec, .shape = {batch, heads, spec->rows, spec->columns}};
    p.a = matrix_create(spec->a, (size_t[]){batch, heads, spec->rows, spec->depth}, &random);
    p.b = matrix_create(
        spec->b, (size_t[]){spec->shared ? 1 : batch, spec->shared ? 1 : heads, spec->columns, spec->depth},
        &random);
    matrix_upload(&p.a, device);
    matrix_upload(&p.b, device);
    p.reference = calloc(batch * heads * spec->rows * spec->columns, sizeof *p.reference);
    for (size_t i = 0; i < batch * heads; i++)
        naive_gemm(spec->rows, spec->columns, spec->depth, p.a.values + i * spec->rows * spec->depth,
                   p.b.values + (spec->shared ? 0 : i) * spec->columns * spec->depth,
                   p.reference + i * spec->rows * spec->columns);
    if (spec->shared) {
        memcpy(p.b.t.shape, p.shape, 2 * sizeof *p.shape);
        p.b.t.stride[0] = p.b.t.stride[1] = 0;
    }
    return p;
}

static void product_free(product *p) {
    matrix_free(&p->a);
    matrix_free(&p->b);
    free(p->reference);
}

static void try_row(const product *p, const op_variant *row, const tune_point *point) {
    problem_stage stage = problem_on_stage();
    matrix c = matrix_create(p->spec->c, p->shape, NULL);
    queue q;
    matrix_upload(&c, stage.device);
    queue_begin(stage.device, 0, NULL, &q);
    suite_ok(stage.lib, op_run(&q, row, point, &(op_gemm_args){.a = p->a.t, .b = p->b.t, .c = c.t}));
    suite_ok(stage.lib, clsplat_device_finish(stage.device));
    matrix_check(&c, stage.device, p->reference, 2e-6, row->name);
    matrix_free(&c);
}

static bool row_fits(const product *p, const op_variant *row) {
    matrix c = matrix_create(p->spec->c, p->shape, NULL);
    op_gemm_args args = {.a = p->a.t, .b = p->b.t, .c = c.t};
    matrix_free(&c);
    return row->fits(&problem_on_stage().device->info.limits, &args);
}

START_TEST(every_row_is_right) {
    product p = product_create(&cases[_i], problem_on_stage().device);
    for (size_t i = 0; i < op_gemm_family.count; i++) {
        if (!row_fits(&p, &op_gemm_family.variants[i]))
            continue;
        try_row(&p, &op_gemm_family.variants[i], NULL);
        rows_ran(&op_gemm_family, i);
    }
    product_free(&p);
}
END_TEST

/* One of CLBlast's outside the long tier: its kernels are its own affair, and PoCL compiles eleven of them at
 * every point. */
static int points_of(const op_variant *row) {
    return strcmp(row->name, "clblast") == 0 && suite_tier_wanted() < SUITE_LONG ? 1 : 3;
}

/* Points from all over each row's space, and its default again after them. */
START_TEST(every_parameter_is_right) {
    const clsplat_limits *limits = &problem_on_stage().device->info.limits;
    product p = product_create(&cases[TUNED], problem_on_stage().device);
    const op_variant *row = &op_gemm_family.variants[_i];
    random_state random = random_seed(7);
    for (int tried = 0; tried < points_of(row) && row_fits(&p, row);) {
        tune_point point = tune_point_at(row->space, random_below(&random, tune_space_size(row->space)));
        if (!tune_space_allows(row->space, limits, &point))
            continue;
        try_row(&p, row, &point);
        try_row(&p, row, NULL);
        tried++;
    }
    product_free(&p);
}
END_TEST

/* Dispatch takes a row, and two runs give the same bits. */
START_TEST(same_bits_twice) {
    problem_stage stage = problem_on_stage();
    product p = product_create(&cases[8], stage.device);
    matrix c[2];
    for (int i = 0; i < 2; i++) {
        queue q;
        c[i] = matrix_create(p.spec->c, p.shape, NULL);
        matrix_upload(&c[i], stage.device);
        queue_begin(stage.device, 0, NULL, &q);
        suite_ok(stage.lib, op_gemm(&q, &(op_gemm_args){.a = p.a.t, .b = p.b.t, .c = c[i].t}));
        suite_ok(stage.lib, clsplat_device_finish(stage.device));
        ck_assert_int_eq(clEnqueueReadBuffer(clsplat_device_queue(stage.device), c[i].t.mem, CL_TRUE, 0,
                                             c[i].elements * sizeof(float), c[i].bytes, 0, NULL, NULL),
                         CL_SUCCESS);
    }
    ck_assert_mem_eq(c[0].bytes, c[1].bytes, c[0].elements * sizeof(float));
    matrix_free(&c[0]);
    matrix_free(&c[1]);
    product_free(&p);
}
END_TEST

/* Whose matrix units a device may have: NVIDIA's, of Hopper, or others'. */
static const struct {
    uint32_t nvidia_capability, subgroup;
    clsplat_matrix_units units;
} kinds[] = {{.nvidia_capability = 90},
             {.units = CLSPLAT_UNITS_WMMA, .subgroup = 32},
             {.units = CLSPLAT_UNITS_MFMA, .subgroup = 64},
             {.units = CLSPLAT_UNITS_DPAS, .subgroup = 8},
             {.units = CLSPLAT_UNITS_DPAS, .subgroup = 16}};
enum { KINDS = sizeof kinds / sizeof *kinds, WGMMA_SMALL = 5 }; /* the smallest of Hopper's tiles */

static void try_units(const product *p) {
    int tried = 0;
    for (size_t i = 0; i < op_gemm_family.count; i++) {
        const op_variant *row = &op_gemm_family.variants[i];
        bool wgmma = strcmp(row->name, "wgmma") == 0;
        if ((!wgmma && strcmp(row->name, "mma") != 0 && strcmp(row->name, "units") != 0) || !row_fits(p, row))
            continue;
        try_row(p, row, wgmma ? &(tune_point){{WGMMA_SMALL, 4}} : NULL);
        tried++;
    }
    ck_assert_msg(tried > 0, "no row of the product is for these matrix units");
}

/* Matrix units, emulated as cl/shared/mma.clh does it: every index and barrier of their rows, in the smallest
 * of Hopper's tiles, several to a group. Only where there is room for them. */
static bool feign_units(clsplat_device *device, size_t kind) {
    enum { ROOM = 128 << 10 };
    clsplat_limits feigned = device->info.limits;
    cl_ulong room = 0;
    clGetDeviceInfo(device->id, CL_DEVICE_LOCAL_MEM_SIZE, sizeof room, &room, NULL);
    if (feigned.nvidia_capability || feigned.matrix_units || room < ROOM || feigned.max_work_group < 256)
        return false;
    feigned.local_memory = 48 << 10;
    feigned.nvidia_capability = kinds[kind].nvidia_capability;
    feigned.matrix_units = kinds[kind].units;
    feigned.subgroup = kinds[kind].subgroup;
    clsplat_device_set_limits(device, feigned);
    return true;
}

START_TEST(matrix_units_are_right) {
    clsplat_device *device = problem_on_stage().device;
    clsplat_limits limits = device->info.limits;
    if (!feign_units(device, (size_t)_i % KINDS))
        return;
    product p = product_create(&cases[HALVES + _i / KINDS], device);
    try_units(&p);
    product_free(&p);
    clsplat_device_set_limits(device, limits);
}
END_TEST

/* Rows of 8 for those that read factors as they lie, sums that end within a tile's columns. */
static const gemm_case turned[] = {
    {.batch = 2, .heads = 3, .rows = 9, .columns = 20, .depth = 31},
    {.heads = 2, .rows = 40, .columns = 72, .depth = 72, .a = CLSPLAT_F16, .b = CLSPLAT_F16},
    {.rows = 136, .columns = 200, .depth = 100, .a = CLSPLAT_BF16, .b = CLSPLAT_BF16, .c = CLSPLAT_BF16},
};
enum { TURNED = sizeof turned / sizeof *turned, FORMS = 3 };

static matrix turn(const matrix *m, clsplat_dtype type, bool transposed) {
    const size_t *shape = m->t.shape, count = matrix_count(m), rows = shape[2], columns = shape[3];
    double *values = calloc(count, sizeof *values);
    for (size_t i = 0; i < count; i++) {
        size_t row = i / columns % rows, column = i % columns, first = i - row * columns - column;
        values[transposed ? first + column * rows + row : i] = m->values[i];
    }
    matrix to = matrix_of(
        type, (size_t[]){shape[0], shape[1], transposed ? columns : rows, transposed ? rows : columns},
        values);
    free(values);
    matrix_upload(&to, problem_on_stage().device);
    return to;
}

/* Form 1: a lies transposed; 2: b; 3: both. */
static void try_turned(const gemm_case *spec, size_t form, const tune_point *point, const char *needed) {
    problem_stage stage = problem_on_stage();
    product p = product_create(spec, stage.device);
    matrix a = turn(&p.a, spec->a, form & 1), b = turn(&p.b, spec->b, form & 2);
    bool ran = false;
    for (size_t i = 0; i < op_gemm_transposed_family.count; i++) {
        const op_variant *row = &op_gemm_transposed_family.variants[i];
        matrix c = matrix_create(spec->c, p.shape, NULL);
        op_gemm_transposed_args args = {
            .a = a.t, .b = b.t, .a_transposed = form & 1, .b_transposed = form & 2};
        queue q;
        matrix_upload(&c, stage.device);
        args.c = c.t;
        queue_begin(stage.device, 0, NULL, &q);
        if (row->fits(&stage.device->info.limits, &args) && (!needed || strcmp(row->name, needed) == 0)) {
            suite_ok(stage.lib, op_run(&q, row, i ? point : NULL, &args));
            suite_ok(stage.lib, clsplat_device_finish(stage.device));
            matrix_check(&c, stage.device, p.reference, 2e-6, row->name);
            rows_ran(&op_gemm_transposed_family, i);
            ran = true;
        }
        matrix_free(&c);
    }
    ck_assert_msg(ran, "no row took factors that lie transposed");
    matrix_free(&a);
    matrix_free(&b);
    product_free(&p);
}

/* On Hopper's units, emulated. */
START_TEST(units_read_transposed) {
    clsplat_device *device = problem_on_stage().device;
    clsplat_limits limits = device->info.limits;
    if (!feign_units(device, 0))
        return;
    size_t form = 1 + (size_t)_i;
    try_turned(&turned[form == 3 ? 2 : 1], form, &(tune_point){{WGMMA_SMALL, 4}}, "wgmma");
    clsplat_device_set_limits(device, limits);
}
END_TEST

START_TEST(factors_lie_transposed) {
    static const uint32_t tiles[] = {0, 1, 3, 4, 5}; /* of the row for Hopper */
    size_t tried =
        problem_on_stage().device->info.limits.nvidia_capability ? sizeof tiles / sizeof *tiles : 1;
    for (size_t tile = 0; tile < tried; tile++)
        try_turned(&turned[_i / FORMS], 1 + (size_t)_i % FORMS, &(tune_point){{tiles[tile], 8}}, NULL);
}
END_TEST

static void add_all(TCase *part) {
    static const op_family *const families[] = {&op_gemm_family, &op_gemm_transposed_family, NULL};
    problem_add_stage(part);
    rows_begin(part);
    for (int i = 0; i < CASES; i++)
        if (cases[i].tier <= suite_tier_wanted())
            tcase_add_loop_test(part, every_row_is_right, i, i + 1);
    if (suite_tier_wanted() > SUITE_SMALL)
        tcase_add_loop_test(part, every_parameter_is_right, 0, (int)op_gemm_family.count);
    tcase_add_test(part, same_bits_twice);
    tcase_add_loop_test(part, factors_lie_transposed, 0, TURNED * FORMS);
    rows_end(part, families);
}

static void add_units(TCase *part) {
    problem_add_stage(part);
    if (suite_tier_wanted() > SUITE_SMALL)
        tcase_add_loop_test(part, matrix_units_are_right, 0,
                            (suite_tier_wanted() == SUITE_LONG ? 2 : 1) * KINDS);
    if (suite_tier_wanted() > SUITE_SMALL)
        tcase_add_loop_test(part, units_read_transposed, 0, FORMS);
}

static void add_disguised(TCase *part) {
    add_all(part);
    matrix_add_disguise(part);
}

int main(void) {
    static const suite_part parts[] = {
        {"gemm", add_all}, {"gemm as on a GPU", add_disguised}, {"gemm on matrix units", add_units}};
    return suite_run("gemm", parts, sizeof parts / sizeof *parts);
}
