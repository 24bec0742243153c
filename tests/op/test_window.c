/* Softmax attention within a window, and of capped products, every row of its table that fits, against
 * float64; and keys cut into launches. */
#include <math.h>
#include <stdlib.h>

#include "attention/problem.h"
#include "matrix.h"
#include "naive/naive.h"
#include "op/families.h"
#include "runtime/device.h"
#include "runtime/quirks.h"

typedef struct window_case {
    size_t heads, kv_heads, queries, keys, dim, window;
    int32_t diagonal;
    clsplat_dtype type;
    double cap;
} window_case;

// clang-format off
static const window_case cases[] = {
    {1, 1, 1, 1, 8, 1, 0, CLSPLAT_F32, 0},
    {2, 1, 9, 20, 7, 5, 11, CLSPLAT_F32, 0},
    {4, 2, 130, 130, 16, 33, 0, CLSPLAT_F32, 0},
    {4, 2, 130, 300, 32, 64, 170, CLSPLAT_F32, 0},
    {4, 2, 100, 300, 64, 1, 200, CLSPLAT_BF16, 0},
    {2, 2, 40, 100, 16, 1000, 60, CLSPLAT_F32, 0},
    {2, 1, 30, 20, 16, 4, -10, CLSPLAT_F32, 0},  /* the first queries see nothing */
    {2, 1, 30, 20, 16, 4, 10, CLSPLAT_F32, 0},   /* the last queries' windows are past the keys */
    {4, 2, 130, 130, 16, 33, 16, CLSPLAT_F32, 0},   /* before and behind, as encoders see */
    {4, 2, 90, 90, 64, 129, 64, CLSPLAT_BF16, 0},
    {4, 2, 3, 1500, 16, 700, 1497, CLSPLAT_F32, 0}, /* the split row */
    {4, 2, 1, 2100, 64, 100, 2099, CLSPLAT_F32, 0},
    {2, 1, 9, 20, 7, 0, 11, CLSPLAT_F32, 1.5},
    {4, 2, 130, 130, 16, 33, 0, CLSPLAT_F32, 5},
    {4, 2, 70, 200, 32, 0, 130, CLSPLAT_BF16, 3},
    {2, 1, 20, 90, 256, 40, 70, CLSPLAT_F32, 50},
    {4, 2, 2, 1500, 16, 700, 1498, CLSPLAT_F32, 2},  /* the split row */
    {4, 2, 1, 2100, 64, 0, 2099, CLSPLAT_F32, 4},
};
// clang-format on
enum { CASES = sizeof cases / sizeof *cases };

typedef struct window_setup {
    const window_case *spec;
    matrix q, k, v;
    double *reference;
} window_setup;

/* One query over the keys it sees. */
static void attend(const window_setup *s, size_t head, size_t i, double *out) {
    const window_case *c = s->spec;
    size_t kv = head / (c->heads / c->kv_heads);
    ptrdiff_t end = (ptrdiff_t)i + c->diagonal + 1, begin = c->window ? end - (ptrdiff_t)c->window : 0;
    begin = begin < 0 ? 0 : begin;
    end = end > (ptrdiff_t)c->keys ? (ptrdiff_t)c->keys : end;
    double lse;
    for (size_t d = 0; d < c->dim; d++)
        out[d] = 0;
    if (begin >= end)
        return;
    size_t at = (kv * c->keys + (size_t)begin) * c->dim;
    naive_tensors t = {.shape = {1, 1, 1, 1, (size_t)(end - begin), c->dim, c->dim},
                       .q = s->q.values + (head * c->queries + i) * c->dim,
                       .k = s->k.values + at,
                       .v = s->v.values + at,
                       .out = out,
                       .cap = c->cap,
                       .lse = &lse};
    naive_softmax(&t, 0.5);
}

static window_setup setup_create(const window_case *c) {
    clsplat_device *device = problem_on_stage().device;
    random_state random = random_seed(c->keys);
    window_setup s = {.spec = c,
                      .q = matrix_create(c->type, (size_t[]){1, c->heads, c->queries, c->dim}, &random),
                      .k = matrix_create(c->type, (size_t[]){1, c->kv_heads, c->keys, c->dim}, &random),
                      .v = matrix_create(c->type, (size_t[]){1, c->kv_heads, c->keys, c->dim}, &random),
                      .reference = malloc(c->heads * c->queries * c->dim * sizeof(double))};
    matrix_upload(&s.q, device);
    matrix_upload(&s.k, device);
    matrix_upload(&s.v, device);
    for (size_t h = 0; h < c->heads; h++)
        for (size_t i = 0; i < c->queries; i++)
            attend(&s, h, i, s.reference + (h * c->queries + i) * c->dim);
    return s;
}

static void setup_free(window_setup *s) {
    matrix_free(&s->q);
    matrix_free(&s->k);
    matrix_free(&s->v);
    free(s->reference);
}

/* A row of the table, or with NULL op_softmax. */
static void run(const window_setup *s, const op_variant *row) {
    problem_stage stage = problem_on_stage();
    const window_case *c = s->spec;
    matrix out = matrix_create(CLSPLAT_F32, (size_t[]){1, c->heads, c->queries, c->dim}, NULL);
    matrix lse = matrix_create(CLSPLAT_F32, (size_t[]){1, c->heads, c->queries, 1}, NULL);
    matrix_upload(&out, stage.device);
    matrix_upload(&lse, stage.device);
    op_softmax_args args = {.q = s->q.t,
                            .k = s->k.t,
                            .v = s->v.t,
                            .out = out.t,
                            .lse = lse.t,
                            .scale = 0.5f,
                            .diagonal = c->diagonal,
                            .window = (uint32_t)c->window,
                            .cap = (float)c->cap};
    queue q;
    queue_begin(stage.device, 0, NULL, &q);
    if (!row || row->fits(&stage.device->info.limits, &args)) {
        /* Mesa counts the arrays of softmax_local twice, and so refuses it: op_softmax takes another row. */
        clsplat_status status = row ? op_run(&q, row, NULL, &args) : op_softmax(&q, &args);
        bool refused = status == CLSPLAT_UNSUPPORTED && stage.device->quirks & QUIRK_LOOP_LIMIT;
        if (!row || !refused) {
            suite_ok(stage.lib, status);
            suite_ok(stage.lib, clsplat_device_finish(stage.device));
            matrix_check(&out, stage.device, s->reference, 1e-5, row ? row->name : "op_softmax");
        }
    }
    matrix_free(&out);
    matrix_free(&lse);
}

START_TEST(every_row_is_right) {
    window_setup s = setup_create(&cases[_i]);
    bool rows = cases[_i].keys < 400 || !(problem_on_stage().device->quirks & QUIRK_LOOP_LIMIT);
    for (size_t row = 0; rows && row < op_softmax_family.count; row++)
        run(&s, &op_softmax_family.variants[row]);
    run(&s, NULL);
    setup_free(&s);
}
END_TEST

/* As on a device whose loops end early. */
START_TEST(keys_are_cut) {
    clsplat_device *device = problem_on_stage().device;
    window_setup s = setup_create(&cases[_i]);
    unsigned before = device->quirks;
    device->quirks |= QUIRK_LOOP_LIMIT;
    run(&s, NULL);
    device->quirks = before;
    setup_free(&s);
}
END_TEST

static void add_all(TCase *part) {
    problem_add_stage(part);
    tcase_add_loop_test(part, every_row_is_right, 0, CASES);
    tcase_add_loop_test(part, keys_are_cut, CASES - 2, CASES);
}

static void add_disguised(TCase *part) {
    add_all(part);
    matrix_add_disguise(part);
}

int main(void) {
    static const suite_part parts[] = {{"window", add_all}, {"window as on a GPU", add_disguised}};
    return suite_run("window", parts, sizeof parts / sizeof *parts);
}
