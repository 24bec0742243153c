/* The operations that a transformer's layers need beside products and attention, every row of their tables
 * that fits, against float64: ragged and degenerate shapes, storage types, NaN in everything that is not an
 * element. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"
#include "compare.h"
#include "matrix.h"
#include "naive/naive.h"
#include "op/families.h"
#include "op/rows.h"
#include "runtime/device.h"

typedef clsplat_dtype dtype;
#define F32 CLSPLAT_F32
#define F16 CLSPLAT_F16
#define BF16 CLSPLAT_BF16

typedef struct shape {
    size_t heads, rows, columns;
    dtype x, out, weight;
    bool add, bias;
    double scale; /* of x; 0: 1 */
} shape;

/* What a normalisation does besides. */
typedef struct norm_case {
    shape shape;
    bool centred, none, replace, in_place;
    double offset;
} norm_case;

// clang-format off
static const norm_case norms[] = {
    {{1, 1, 1, F32, F32, F32, false, false, 0}, false, false, false, false, 0},
    {{1, 1, 256, F32, F32, BF16, true, false, 0}, false, false, false, false, 0},
    {{2, 70, 24, F32, F32, F32, true, true, 0}, false, false, false, false, 0},
    {{1, 3, 333, F32, BF16, F16, true, true, 0}, false, false, false, false, 0},
    {{1, 65, 100, BF16, F16, F32, false, false, 0}, false, false, false, false, 0},
    {{1, 4, 64, F32, F32, F32, true, false, 1e15}, false, false, false, false, 0},
    {{1, 4, 64, F32, F32, F32, false, false, 1e-20}, false, false, false, false, 0},
    {{1, 5, 30, F32, F32, BF16, true, false, 0}, false, false, false, false, 1},
    {{1, 9, 70, F32, F32, F32, false, false, 0}, false, false, false, true, 0},
    {{1, 1, 1, F32, F32, F32, true, true, 0}, true, false, false, false, 0},
    {{2, 70, 384, F32, F32, F32, true, true, 0}, true, false, true, false, 0},
    {{1, 7, 333, F32, BF16, F16, true, false, 1000}, true, false, true, false, 0},
    {{1, 33, 37, F32, F32, F32, false, false, 0}, true, false, true, true, 0},
    {{1, 6, 50, F32, BF16, F32, true, true, 0}, false, true, false, false, 0},
};
// clang-format on
enum { NORMS = sizeof norms / sizeof *norms };

static matrix scaled_matrix(const shape *s, random_state *random) {
    size_t count = s->heads * s->rows * s->columns;
    double *values = malloc(count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = random_normal(random) * (s->scale != 0 ? s->scale : 1);
    matrix m = matrix_of(s->x, (size_t[]){1, s->heads, s->rows, s->columns}, values);
    free(values);
    return m;
}

static void norm_reference(const norm_case *c, const double *x, const double *weight, const double *shift,
                           double *out) {
    size_t columns = c->shape.columns;
    double *raised = malloc(columns * sizeof *raised);
    for (size_t d = 0; d < columns; d++)
        raised[d] = weight[d] + c->offset;
    if (c->none)
        memcpy(out, x, columns * sizeof *out);
    else if (c->centred)
        naive_layer_norm(columns, (double)1e-5f, x, raised, shift, out);
    else
        naive_norm(columns, (double)1e-5f, x, raised, out);
    free(raised);
}

static void check_norm(const norm_case *c, size_t row, uint64_t seed) {
    clsplat_device *device = problem_on_stage().device;
    const shape *s = &c->shape;
    const char *name = op_norm_family.variants[row].name;
    random_state random = random_seed(seed);
    matrix x = scaled_matrix(s, &random), add = matrix_random(F32, s->heads, s->rows, s->columns, &random);
    matrix bias = matrix_random(s->weight, 1, 1, s->columns, &random);
    matrix weight = matrix_random(s->weight, 1, 1, s->columns, &random);
    matrix shift = matrix_random(s->weight, 1, 1, s->columns, &random);
    matrix out = matrix_random(s->out, s->heads, s->rows, s->columns, NULL);
    matrix_upload(&x, device);
    op_norm_args args = {.x = x.t,
                         .add = s->add ? add.t : (op_tensor){0},
                         .bias = s->bias ? bias.t : (op_tensor){0},
                         .weight = c->none ? (op_tensor){0} : weight.t,
                         .shift = c->centred ? shift.t : (op_tensor){0},
                         .out = c->in_place ? x.t : out.t,
                         .epsilon = 1e-5f,
                         .offset = (float)c->offset,
                         .centred = c->centred,
                         .replace = c->replace};
    size_t count = matrix_count(&x);
    double *sum = malloc(count * sizeof *sum), *reference = malloc(count * sizeof *reference);
    for (size_t i = 0; i < count; i++)
        sum[i] = x.values[i] + (s->add ? add.values[i] : 0) + (s->bias ? bias.values[i % s->columns] : 0);
    for (size_t i = 0; i < count; i += s->columns)
        norm_reference(c, sum + i, weight.values, shift.values, reference + i);
    if (matrix_fits(&op_norm_family, row, &args)) {
        matrix_run(&op_norm_family, row, &args);
        if (!c->in_place)
            matrix_check(&out, device, reference, s->scale > 1e3 || c->centred ? 2e-6 : 1e-6, name);
        matrix_check(&x, device, c->replace || c->in_place ? reference : sum, c->centred ? 2e-6 : 1e-6, name);
    }
    free(sum);
    free(reference);
    matrix *all[] = {&x, &add, &bias, &weight, &shift, &out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        matrix_free(all[i]);
}

START_TEST(norm) {
    for (size_t row = 0; row < op_norm_family.count; row++)
        check_norm(&norms[_i], row, (uint64_t)_i);
}
END_TEST

typedef struct rope_case {
    size_t heads, kv_heads, rows, dim, first;
    bool bias, norm, in_place;
    dtype x, cache;
} rope_case;

// clang-format off
static const rope_case ropes[] = {
    {1, 1, 1, 2, 0, false, false, false, F32, F32},
    {4, 2, 70, 64, 100, false, false, true, F32, F32},
    {4, 2, 9, 10, 65000, true, false, true, F32, BF16},
    {3, 3, 33, 16, 7, false, true, false, F32, F16},
    {6, 2, 5, 128, 1000, true, true, true, BF16, BF16},
};
// clang-format on
enum { ROPES = sizeof ropes / sizeof *ropes };

typedef struct rope_setup {
    const rope_case *spec;
    matrix x, bias, q_weight, k_weight, q, k, v;
    float *frequencies;
    cl_mem frequency_mem, turn;
} rope_setup;

static rope_setup rope_create(const rope_case *c, random_state *random) {
    size_t all = c->heads + 2 * c->kv_heads;
    rope_setup s = {.spec = c,
                    .x = matrix_random(c->x, all, c->rows, c->dim, random),
                    .bias = matrix_random(F32, all, 1, c->dim, random),
                    .q_weight = matrix_random(BF16, 1, 1, c->dim, random),
                    .k_weight = matrix_random(F32, 1, 1, c->dim, random),
                    .q = matrix_random(c->x, c->heads, c->rows, c->dim, NULL),
                    .k = matrix_random(c->cache, c->kv_heads, c->rows, c->dim, NULL),
                    .v = matrix_random(c->cache, c->kv_heads, c->rows, c->dim, NULL),
                    .frequencies = malloc(c->dim / 2 * sizeof(float))};
    float *turn = malloc(c->rows * c->dim * sizeof *turn);
    for (size_t d = 0; d < c->dim / 2; d++)
        s.frequencies[d] = (float)pow(10000, -2.0 * (double)d / (double)c->dim);
    for (size_t i = 0; i < c->rows * c->dim; i++)
        turn[i] = NAN;
    s.frequency_mem = numbers_create(s.frequencies, c->dim / 2);
    s.turn = numbers_create(turn, c->rows * c->dim);
    free(turn);
    return s;
}

static void rope_free(rope_setup *s) {
    matrix *all[] = {&s->x, &s->bias, &s->q_weight, &s->k_weight, &s->q, &s->k, &s->v};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        matrix_free(all[i]);
    clReleaseMemObject(s->frequency_mem);
    clReleaseMemObject(s->turn);
    free(s->frequencies);
}

static op_rope_args rope_args(const rope_setup *s) {
    const rope_case *c = s->spec;
    op_rope_args args = {
        .x = s->x.t, .turn = s->turn, .q = s->q.t, .k = s->k.t, .v = s->v.t, .epsilon = 1e-6f};
    if (c->bias)
        args.bias = s->bias.t;
    if (c->norm) {
        args.q_weight = s->q_weight.t;
        args.k_weight = s->k_weight.t;
    }
    if (c->in_place)
        args.q = op_slice(s->x.t, 1, 0, c->heads);
    return args;
}

/* What row `i` of head `h` of all becomes. The angle is rounded to float32, as positions are computed. */
static void rope_reference(const rope_setup *s, size_t h, size_t i, double *out) {
    const rope_case *c = s->spec;
    double x[128], normed[128], turned[2];
    const double *row = s->x.values + (h * c->rows + i) * c->dim;
    bool is_value = h >= c->heads + c->kv_heads;
    const double *weight = h < c->heads ? s->q_weight.values : s->k_weight.values;
    for (size_t d = 0; d < c->dim; d++)
        x[d] = row[d] + (c->bias ? s->bias.values[h * c->dim + d] : 0);
    if (c->norm && !is_value)
        naive_norm(c->dim, (double)1e-6f, x, weight, normed);
    else
        memcpy(normed, x, sizeof x);
    for (size_t d = 0; d < c->dim / 2; d++) {
        double pair[] = {normed[d], normed[d + c->dim / 2]}, one = 1;
        double angle = (double)((float)(c->first + i) * s->frequencies[d]);
        naive_rope(2, is_value ? 0 : angle, &one, is_value ? 1 : 1.5, pair, turned);
        out[d] = turned[0];
        out[d + c->dim / 2] = turned[1];
    }
}

/* Heads [from, from + count) of x, as they should be. */
static double *rope_references(const rope_setup *s, size_t from, size_t count) {
    const rope_case *c = s->spec;
    double *all = malloc(count * c->rows * c->dim * sizeof *all);
    for (size_t h = 0; h < count; h++)
        for (size_t i = 0; i < c->rows; i++)
            rope_reference(s, from + h, i, all + (h * c->rows + i) * c->dim);
    return all;
}

START_TEST(rope) {
    clsplat_device *device = problem_on_stage().device;
    random_state random = random_seed((uint64_t)_i);
    rope_setup s = rope_create(&ropes[_i / 2], &random);
    const rope_case *c = s.spec;
    op_turn_args turn = {.frequencies = s.frequency_mem,
                         .turn = s.turn,
                         .rows = c->rows,
                         .dim = c->dim,
                         .first = (uint32_t)c->first,
                         .factor = 1.5f};
    op_rope_args args = rope_args(&s);
    double *q = rope_references(&s, 0, c->heads), *k = rope_references(&s, c->heads, c->kv_heads),
           *v = rope_references(&s, c->heads + c->kv_heads, c->kv_heads);
    matrix_run(&op_turn_family, 0, &turn);
    matrix_run(&op_rope_family, matrix_fits(&op_rope_family, _i % 2, &args) ? _i % 2 : 0, &args);
    if (c->in_place) {
        size_t count = c->heads * c->rows * c->dim, more = matrix_count(&s.x) - count;
        double *whole = malloc((count + more) * sizeof *whole);
        memcpy(whole, q, count * sizeof *whole);
        memcpy(whole + count, s.x.values + count, more * sizeof *whole);
        matrix_check(&s.x, device, whole, 2e-6, "in place");
        free(whole);
    } else {
        matrix_check(&s.q, device, q, 2e-6, "q");
    }
    matrix_check(&s.k, device, k, 2e-6, "k");
    matrix_check(&s.v, device, v, 1e-7, "v");
    free(q);
    free(k);
    free(v);
    rope_free(&s);
}
END_TEST

typedef struct activation_case {
    shape shape;
    op_activation activation;
    bool gated, in_place;
} activation_case;

// clang-format off
static const activation_case activations[] = {
    {{1, 1, 1, F32, F32, F32, false, false, 0}, OP_SILU, true, false},
    {{1, 5, 704, F32, F32, F32, false, false, 0}, OP_SILU, true, false},
    {{2, 7, 37, F32, BF16, F32, false, true, 0}, OP_SILU, true, false},
    {{1, 3, 66, BF16, F16, BF16, false, true, 0}, OP_SILU, true, false},
    {{1, 3, 64, F32, F32, F32, false, false, 200}, OP_SILU, true, false},
    {{1, 9, 1536, F32, F32, F32, false, true, 3}, OP_GELU, false, true},
    {{1, 3, 37, F32, BF16, F16, false, true, 200}, OP_GELU, true, false},
    {{1, 9, 64, F32, F32, F32, false, false, 1e-3}, OP_GELU, false, false},
    {{2, 9, 70, F32, F32, BF16, false, true, 3}, OP_GELU_TANH, true, false},
    {{1, 9, 70, BF16, F32, F32, false, false, 200}, OP_GELU_TANH, false, false},
    {{1, 9, 70, F32, F32, F32, false, true, 0}, OP_RELU, false, false},
    {{1, 9, 70, F32, F32, F32, false, true, 5}, OP_TANH, false, true},
    {{1, 9, 70, F32, F32, F32, false, false, 100}, OP_SOFT_CAP, false, true},
    {{2, 33, 1153, F32, F32, BF16, false, true, 0}, OP_IDENTITY, false, true},
};
// clang-format on
enum { ACTIVATIONS = sizeof activations / sizeof *activations };

/* Every number by itself: those near 0 and those far out have an error of their own. */
START_TEST(activate) {
    clsplat_device *device = problem_on_stage().device;
    const activation_case *c = &activations[_i];
    const shape *s = &c->shape;
    static const float cap = 30;
    random_state random = random_seed((uint64_t)_i);
    shape both = *s;
    both.columns *= c->gated ? 2 : 1;
    matrix x = scaled_matrix(&both, &random), bias = matrix_random(s->weight, 1, 1, both.columns, &random);
    matrix out = matrix_random(s->out, s->heads, s->rows, s->columns, NULL);
    double *reference = malloc(matrix_count(&out) * sizeof *reference);
    matrix_upload(&x, device);
    for (size_t i = 0; i < s->heads * s->rows; i++)
        for (size_t d = 0; d < s->columns; d++) {
            const double *row = x.values + i * both.columns;
            double up = c->gated ? row[s->columns + d] + (s->bias ? bias.values[s->columns + d] : 0) : 1;
            reference[i * s->columns + d] = up * naive_activate((naive_activation)c->activation, (double)cap,
                                                                row[d] + (s->bias ? bias.values[d] : 0));
        }
    op_activate_args args = {.x = x.t,
                             .bias = s->bias ? bias.t : (op_tensor){0},
                             .out = c->in_place ? x.t : out.t,
                             .activation = c->activation,
                             .gated = c->gated,
                             .cap = cap};
    matrix_run(&op_activate_family, 0, &args);
    matrix_check(c->in_place ? &x : &out, device, reference, 1e-6, "activate");
    free(reference);
    matrix_free(&x);
    matrix_free(&bias);
    matrix_free(&out);
}
END_TEST

START_TEST(embed) {
    enum { ROWS = 9, COLUMNS = 37, VOCABULARY = 11, FIRST = 3 };
    static const dtype types[] = {F32, F16, BF16};
    int32_t ids[FIRST + ROWS] = {-1, -1, -1, 0, 10, 5, 5, 1, 2, 3, 9, 10};
    random_state random = random_seed(1);
    matrix table = matrix_random(types[_i], 1, VOCABULARY, COLUMNS, &random);
    matrix out = matrix_random(F32, 1, ROWS, COLUMNS, NULL);
    double reference[ROWS * COLUMNS];
    cl_mem mem = numbers_create(ids, FIRST + ROWS);
    for (size_t i = 0; i < ROWS * COLUMNS; i++)
        reference[i] = 2.5 * table.values[(size_t)ids[FIRST + i / COLUMNS] * COLUMNS + i % COLUMNS];
    matrix_run(&op_embed_family, 0,
               &(op_embed_args){.ids = mem, .first = FIRST, .table = table.t, .out = out.t, .scale = 2.5f});
    matrix_check(&out, problem_on_stage().device, reference, 1e-7, "embed");
    clReleaseMemObject(mem);
    matrix_free(&table);
    matrix_free(&out);
}
END_TEST

static void add_all(TCase *part) {
    static const op_family *const families[] = {&op_norm_family,     &op_turn_family,  &op_rope_family,
                                                &op_activate_family, &op_embed_family, NULL};
    problem_add_stage(part);
    rows_begin(part);
    tcase_add_loop_test(part, norm, 0, NORMS);
    tcase_add_loop_test(part, rope, 0, 2 * ROPES);
    tcase_add_loop_test(part, activate, 0, ACTIVATIONS);
    tcase_add_loop_test(part, embed, 0, 3);
    rows_end(part, families);
}

static void add_disguised(TCase *part) {
    add_all(part);
    matrix_add_disguise(part);
}

int main(void) {
    static const suite_part parts[] = {{"layers", add_all}, {"layers as on a GPU", add_disguised}};
    return suite_run("layers", parts, sizeof parts / sizeof *parts);
}
