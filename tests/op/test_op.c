/* Every row against the reference: log-density, write, scan, read, and softmax in two steps. */
#include <math.h>
#include <stdlib.h>

#include "attention/problem.h"
#include "compare.h"
#include "op/families.h"
#include "op/matrix.h"
#include "op/rows.h"
#include "runtime/device.h"
#include "splats/splats.h"

enum { SEGMENT = 16, FORMS = 3 };

// clang-format off
static const problem_spec specs[] = {
    {.batch = 2, .heads = 4, .kv_heads = 2, .queries = 9, .keys = 50, .dim = 8, .value_dim = 8,
     .splats = 5, .bias = BIAS_HOLES},
    {.heads = 2, .kv_heads = 1, .queries = 33, .keys = 16, .dim = 5, .value_dim = 7, .splats = 40,
     .levels = 3, .shared = true, .bias = BIAS_FRONT},
    {.queries = 3, .keys = 49, .dim = 8, .value_dim = 8, .splats = 1, .bias = BIAS_ALL},
    {.queries = 20, .keys = 100, .dim = 8, .value_dim = 8, .splats = 17, .levels = 4, .data = DATA_FAR},
    {.batch = 2, .heads = 2, .kv_heads = 1, .queries = 70, .keys = 90, .dim = 16, .value_dim = 32,
     .splats = 33, .levels = 2, .bias = BIAS_HOLES},
    {.queries = 33, .keys = 65, .dim = 7, .value_dim = 16, .splats = 65, .shared = true,
     .bias = BIAS_RANDOM},
    /* Of so many keys for so few queries the softmax has rows of its own. */
    {.heads = 4, .kv_heads = 2, .queries = 3, .keys = 3100, .dim = 16, .value_dim = 32, .splats = 1, .bias = BIAS_HOLES},
};
// clang-format on
enum { SPECS = sizeof specs / sizeof *specs, SMALL = SPECS - 1 };

/* A problem with everything of it in buffers. Rows run with parameters that differ from one number to the
 * next. Its splats are sorted by level, as the device has them. */
typedef struct bench {
    size_t number;
    problem p;
    clsplat_device *device;
    clsplat_splats_parameters splats;
    const op_splats *uploaded;
    op_tensor t[PROBLEM_TENSORS];
    double *host[PROBLEM_TENSORS]; /* dense doubles */
    size_t writers;                /* Hw */
} bench;

/* Out and lse start as NaN. */
static void upload(bench *b, int which) {
    b->host[which] = problem_dense(&b->p.tensors[which]);
    if (b->host[which])
        b->t[which] = numbers_tensor(b->p.tensors[which].view.shape, b->host[which]);
}

static void sort_levels(bench *b) {
    for (size_t s = 0; s < b->splats.shape.count; s++)
        b->splats.level[s] = (int32_t)(s * b->splats.shape.levels / b->splats.shape.count);
    suite_ok(b->p.lib, clsplat_splats_changed(b->p.splats));
}

static bench bench_create(int number) {
    problem_stage stage = problem_on_stage();
    problem_spec spec = specs[number / FORMS];
    spec.covariance = (clsplat_covariance)(number % FORMS);
    bench b = {.number = (size_t)number,
               .p = problem_create(stage.lib, &spec, (uint64_t)number),
               .device = stage.device};
    b.splats = clsplat_splats_get(b.p.splats);
    sort_levels(&b);
    suite_ok(stage.lib, splats_upload(stage.device, b.p.splats, &b.uploaded));
    for (int i = 0; i < PROBLEM_TENSORS; i++)
        upload(&b, i);
    b.writers = b.splats.shape.heads == 1 ? b.p.spec.kv_heads : b.p.spec.heads;
    return b;
}

static void bench_free(bench *b) {
    for (int i = 0; i < PROBLEM_TENSORS; i++) {
        if (b->t[i].mem)
            clReleaseMemObject(b->t[i].mem);
        free(b->host[i]);
    }
    problem_free(&b->p);
}

/* The keys [begin, end) that writer w of batch entry `batch` sees. */
static naive_keys keys_of(const bench *b, size_t batch, size_t w, size_t begin, size_t end) {
    const problem_spec *s = &b->p.spec;
    size_t row = (batch * s->kv_heads + w / (b->writers / s->kv_heads)) * s->keys + begin;
    return (naive_keys){.count = end > begin ? end - begin : 0,
                        .dim = s->dim,
                        .value_dim = s->value_dim,
                        .k = b->host[PROBLEM_K] + row * s->dim,
                        .v = b->host[PROBLEM_V] + row * s->value_dim,
                        .key_bias = b->host[PROBLEM_BIAS] ? b->host[PROBLEM_BIAS] + row : NULL};
}

/* One of those that are allowed; the default for number 0. */
static tune_point some_point(const bench *b, const tune_space *space) {
    size_t size = tune_space_size(space), index = b->number * 7 % size;
    tune_point point = tune_point_at(space, index);
    while (!tune_space_allows(space, &clsplat_device_describe(b->device)->limits, &point))
        point = tune_point_at(space, ++index % size);
    return point;
}

/* Runs a row of a table, unless it says that it does not fit. */
static bool run_row(bench *b, const op_family *family, size_t row, const void *args) {
    const op_variant *variant = &family->variants[row];
    if (row >= family->count || !variant->fits(&clsplat_device_describe(b->device)->limits, args))
        return false;
    queue q;
    queue_begin(b->device, 0, NULL, &q);
    tune_point point = some_point(b, variant->space);
    suite_ok(b->p.lib, op_run(&q, variant, &point, args));
    rows_ran(family, row);
    return true;
}

/* Padding keys hold 1e30: their log-density is −inf in float32. */
static void check_log_densities(bench *b, cl_mem log_density) {
    const problem_spec *s = &b->p.spec;
    size_t per_head = s->keys * s->splats, count = s->batch * b->writers * per_head;
    double *got = numbers_doubles(log_density, count);
    for (size_t i = 0; i < count; i++) {
        size_t head = i / per_head % b->writers, j = i / s->splats % s->keys;
        naive_keys key = keys_of(b, i / per_head / b->writers, head, j, j + 1);
        double ref =
            naive_log_density(&b->splats, b->splats.shape.heads == 1 ? 0 : head, i % s->splats, key.k);
        ck_assert_msg(ref < -1e38 ? got[i] < -1e38 : fabs(got[i] - ref) <= 1e-5 * fmax(1, fabs(ref)),
                      "response %zu is %g, expected %g", i, got[i], ref);
    }
    free(got);
}

START_TEST(log_densities_of_keys) {
    bench b = bench_create(_i);
    const problem_spec *s = &b.p.spec;
    for (size_t row = 0; row < op_log_density_family.count; row++) {
        cl_mem log_density = numbers_of(NULL, s->batch * b.writers * s->keys * s->splats);
        op_log_density_args args = {
            .splats = b.uploaded, .heads = b.writers, .x = b.t[PROBLEM_K], .log_density = log_density};
        if (run_row(&b, &op_log_density_family, row, &args))
            check_log_densities(&b, log_density);
        clReleaseMemObject(log_density);
    }
    bench_free(&b);
}
END_TEST

static op_state state_create(bench *b, size_t segments) {
    size_t states = b->p.spec.batch * b->writers * segments * b->p.spec.splats;
    return (op_state){.lse = numbers_of(NULL, states),
                      .value = numbers_of(NULL, states * b->p.spec.value_dim),
                      .segments = segments};
}

static void state_free(op_state *state) {
    clReleaseMemObject(state->lse);
    clReleaseMemObject(state->value);
}

/* Which keys a segment's state stands for: its own, all before it, all there are. */
typedef enum past { OWN, BEFORE, ALL } past;

static void check_state(bench *b, const op_state *state, past which) {
    const problem_spec *s = &b->p.spec;
    size_t states = s->batch * b->writers * state->segments * s->splats, dv = s->value_dim;
    double *lse = numbers_doubles(state->lse, states), *value = numbers_doubles(state->value, states * dv);
    double *ref_lse = malloc(states * sizeof *ref_lse), *ref = malloc(states * dv * sizeof *ref);
    for (size_t i = 0; i < states; i++) {
        size_t splat = i % s->splats, segment = i / s->splats % state->segments;
        size_t w = i / s->splats / state->segments % b->writers;
        size_t batch = i / s->splats / state->segments / b->writers;
        size_t begin = which == OWN ? segment * SEGMENT : 0, end = (segment + (which == OWN)) * SEGMENT;
        end = which == ALL || end > s->keys ? s->keys : end;
        naive_keys keys = keys_of(b, batch, w, begin, end);
        ref_lse[i] = naive_write(&b->splats, b->splats.shape.heads == 1 ? 0 : w, splat, &keys, ref + i * dv);
    }
    double error = compare_norm(value, ref, states * dv), lse_error = compare_lse(lse, ref_lse, states);
    free(lse);
    free(value);
    free(ref_lse);
    free(ref);
    ck_assert_msg(error < 1e-5 && lse_error < 2e-5, "values are off by %.1e, lse by %.1e", error, lse_error);
}

/* The states of the segments, by a row of the table; none if it does not fit. */
static bool write_segments(bench *b, size_t row, op_state *part) {
    *part = state_create(b, (b->p.spec.keys + SEGMENT - 1) / SEGMENT);
    return run_row(b, &op_write_family, row,
                   &(op_write_args){.splats = b->uploaded,
                                    .heads = b->writers,
                                    .segment = SEGMENT,
                                    .k = b->t[PROBLEM_K],
                                    .v = b->t[PROBLEM_V],
                                    .key_bias = b->t[PROBLEM_BIAS],
                                    .state = *part});
}

START_TEST(write_segment_states) {
    bench b = bench_create(_i);
    for (size_t row = 0; row < op_write_family.count; row++) {
        op_state part;
        if (write_segments(&b, row, &part))
            check_state(&b, &part, OWN);
        state_free(&part);
    }
    bench_free(&b);
}
END_TEST

static void scan_with_row(bench *b, size_t row, bool exclusive) {
    const problem_spec *s = &b->p.spec;
    op_state part, whole = state_create(b, 1);
    cl_mem carry = numbers_of(NULL, s->batch * b->writers * s->splats * (s->value_dim + 2));
    ck_assert(write_segments(b, 0, &part));
    op_scan_args args = {.splats = b->uploaded,
                         .rows = s->batch * b->writers,
                         .value_dim = s->value_dim,
                         .begin = true,
                         .exclusive = exclusive,
                         .part = part,
                         .result = whole,
                         .carry = carry};
    if (run_row(b, &op_scan_family, row, &args))
        check_state(b, exclusive ? &part : &whole, exclusive ? BEFORE : ALL);
    clReleaseMemObject(carry);
    state_free(&part);
    state_free(&whole);
}

START_TEST(scan_states) {
    bench b = bench_create(_i);
    for (size_t row = 0; row < op_scan_family.count; row++) {
        scan_with_row(&b, row, false);
        scan_with_row(&b, row, true);
    }
    bench_free(&b);
}
END_TEST

/* Reads states that never were written: any number is a valid one, and −inf is an empty splat. */
static void fill_states(const bench *b, double *lse, double *value) {
    const problem_spec *s = &b->p.spec;
    size_t states = s->batch * b->writers * s->splats;
    for (size_t i = 0; i < states; i++) {
        lse[i] = i % 7 == 3 ? -INFINITY : (double)(float)(-20 * sin((double)i));
        for (size_t d = 0; d < s->value_dim; d++)
            value[i * s->value_dim + d] = i % 7 == 3 ? 0 : (double)(float)cos((double)(i + 31 * d));
    }
}

static void check_read(bench *b, const double *lse, const double *value) {
    const problem_spec *s = &b->p.spec;
    size_t dv = s->value_dim, rows = s->batch * s->heads * s->queries;
    for (size_t row = 0; row < rows; row++) {
        size_t h = row / s->queries % s->heads, batch = row / s->queries / s->heads;
        size_t at = (batch * b->writers + h / (s->heads / b->writers)) * s->splats;
        b->p.reference.lse[row] = naive_read(&b->splats, b->splats.shape.heads == 1 ? 0 : h, s->mixing,
                                             b->host[PROBLEM_Q] + row * s->dim, lse + at, value + at * dv, dv,
                                             b->p.reference.out + row * dv);
    }
    double *out = numbers_doubles(b->t[PROBLEM_OUT].mem, rows * dv),
           *got = numbers_doubles(b->t[PROBLEM_LSE].mem, rows);
    double error = compare_norm(out, b->p.reference.out, rows * dv);
    double lse_error = compare_lse(got, b->p.reference.lse, rows);
    free(out);
    free(got);
    ck_assert_msg(error < 1e-5 && lse_error < 2e-5, "out is off by %.1e, lse by %.1e", error, lse_error);
}

/* NaN in out and lse, before a row writes them. */
static void poison_results(bench *b) {
    for (int which = PROBLEM_OUT; which <= PROBLEM_LSE; which++) {
        const op_tensor *t = &b->t[which];
        float nan = NAN;
        ck_assert_int_eq(clEnqueueFillBuffer(clsplat_device_queue(b->device), t->mem, &nan, sizeof nan, 0,
                                             t->shape[0] * t->stride[0] * sizeof nan, 0, NULL, NULL),
                         CL_SUCCESS);
    }
}

START_TEST(read_states) {
    bench b = bench_create(_i / 2);
    b.p.spec.mixing = (clsplat_mixing)(_i % 2);
    size_t states = b.p.spec.batch * b.writers * b.p.spec.splats, dv = b.p.spec.value_dim;
    double *lse = malloc(states * sizeof *lse), *value = malloc(states * dv * sizeof *value);
    fill_states(&b, lse, value);
    op_read_args args = {.splats = b.uploaded,
                         .kv_heads = b.p.spec.kv_heads,
                         .mixing = b.p.spec.mixing,
                         .q = b.t[PROBLEM_Q],
                         .out = b.t[PROBLEM_OUT],
                         .lse = b.t[PROBLEM_LSE],
                         .state = {numbers_of(lse, states), numbers_of(value, states * dv), 1}};
    for (size_t row = 0; row < op_read_family.count; row++) {
        poison_results(&b);
        if (run_row(&b, &op_read_family, row, &args))
            check_read(&b, lse, value);
    }
    free(lse);
    free(value);
    state_free(&args.state);
    bench_free(&b);
}
END_TEST

static void check_softmax(bench *b, double scale) {
    naive_tensors *t = &b->p.reference;
    t->q = b->host[PROBLEM_Q];
    t->k = b->host[PROBLEM_K];
    t->v = b->host[PROBLEM_V];
    t->key_bias = b->host[PROBLEM_BIAS];
    naive_softmax(t, scale);
    size_t rows = t->shape.batch * t->shape.heads * t->shape.queries, dv = t->shape.value_dim;
    double *out = numbers_doubles(b->t[PROBLEM_OUT].mem, rows * dv),
           *lse = numbers_doubles(b->t[PROBLEM_LSE].mem, rows);
    double error = compare_norm(out, t->out, rows * dv), lse_error = compare_lse(lse, t->lse, rows);
    free(out);
    free(lse);
    ck_assert_msg(error < 1e-5 && lse_error < 2e-5, "out is off by %.1e, lse by %.1e", error, lse_error);
}

/* The keys in two parts, the second merged with the result of the first. */
START_TEST(softmax_accumulates) {
    bench b = bench_create(_i * FORMS);
    const size_t cut = b.p.spec.keys / 3;
    for (size_t row = 0; row < op_softmax_family.count; row++) {
        op_softmax_args args = {.q = b.t[PROBLEM_Q],
                                .out = b.t[PROBLEM_OUT],
                                .lse = b.t[PROBLEM_LSE],
                                .scale = 0.25F,
                                .diagonal = OP_SEES_ALL};
        bool fits = true;
        poison_results(&b);
        for (int part = 0; part < 2 && fits; part++) {
            size_t begin = part ? cut : 0, count = part ? b.p.spec.keys - cut : cut;
            args.accumulate = part;
            args.k = op_slice(b.t[PROBLEM_K], 2, begin, count);
            args.v = op_slice(b.t[PROBLEM_V], 2, begin, count);
            args.key_bias = op_slice(b.t[PROBLEM_BIAS], 2, begin, count);
            fits = run_row(&b, &op_softmax_family, row, &args);
        }
        if (fits)
            check_softmax(&b, 0.25);
    }
    bench_free(&b);
}
END_TEST

static void add_all(TCase *part) {
    static const op_family *const families[] = {&op_log_density_family, &op_write_family,   &op_scan_family,
                                                &op_read_family,        &op_softmax_family, NULL};
    problem_add_stage(part);
    rows_begin(part);
    tcase_add_loop_test(part, log_densities_of_keys, 0, SMALL * FORMS);
    tcase_add_loop_test(part, write_segment_states, 0, SMALL * FORMS);
    tcase_add_loop_test(part, scan_states, 0, SMALL * FORMS);
    tcase_add_loop_test(part, read_states, 0, 2 * SMALL * FORMS);
    tcase_add_loop_test(part, softmax_accumulates, 0, SPECS);
    rows_end(part, families);
}

int main(void) {
    static const suite_part parts[] = {{"op", add_all}};
    return suite_run("op", parts, sizeof parts / sizeof *parts);
}
