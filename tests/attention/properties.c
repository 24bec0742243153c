#include "attention/properties.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

problem_spec properties_random(uint64_t seed) {
    static const size_t dims[][2] = {{8, 8}, {64, 64}, {5, 7}};
    static const size_t rows[] = {1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 129, 200};
    random_state r = random_stream(seed, 7);
    size_t dim = random_below(&r, sizeof dims / sizeof *dims), kv_heads = 1 + random_below(&r, 2);
    return (problem_spec){.batch = 1 + random_below(&r, 3),
                          .heads = kv_heads * (1 + random_below(&r, 3)),
                          .kv_heads = kv_heads,
                          .queries = rows[random_below(&r, sizeof rows / sizeof *rows)],
                          .keys = rows[random_below(&r, sizeof rows / sizeof *rows)],
                          .dim = dims[dim][0],
                          .value_dim = dims[dim][1],
                          .causal = random_below(&r, 2),
                          .bias = (problem_bias)random_below(&r, 5),
                          .layout = (problem_layout)random_below(&r, 2)};
}

/* The bits of out and lse. */
typedef struct snapshot {
    void *bytes[2];
} snapshot;

static const problem_tensor *result(const problem *p, int i) {
    return &p->tensors[i == 0 ? PROBLEM_OUT : PROBLEM_LSE];
}

static snapshot snapshot_take(const problem *p) {
    snapshot s;
    for (int i = 0; i < 2; i++) {
        size_t bytes = problem_bytes(result(p, i));
        s.bytes[i] = memcpy(malloc(bytes), result(p, i)->bytes, bytes);
    }
    return s;
}

static void snapshot_free(snapshot *s) {
    free(s->bytes[0]);
    free(s->bytes[1]);
}

/* Whether one row of out and lse has the bits it had. */
static bool row_kept(const problem *p, const snapshot *before, size_t b, size_t h, size_t row) {
    for (int i = 0; i < 2; i++) {
        const problem_tensor *t = result(p, i);
        size_t size = clsplat_dtype_size(t->view.dtype), at = problem_place(t, b, h, row, 0) * size;
        if (memcmp((char *)t->bytes + at, (char *)before->bytes[i] + at, t->view.shape[3] * size) != 0)
            return false;
    }
    return true;
}

/* The rows of `count` of one head that must be as before, except `other` (SIZE_MAX: none). */
static void check_kept(const problem *p, const snapshot *before, size_t count, size_t other,
                       const char *what) {
    char words[400];
    problem_describe(&p->spec, words, sizeof words);
    for (size_t b = 0; b < p->spec.batch; b++)
        for (size_t h = 0; h < p->spec.heads; h++)
            for (size_t row = 0; row < count; row++)
                ck_assert_msg(row == other || row_kept(p, before, b, h, row),
                              "%s: %s changed row %zu of head %zu", words, what, row, h);
}

static void run(problem *p, clsplat_device *device) {
    clsplat_status status = problem_attend(p, device);
    ck_assert_msg(status == CLSPLAT_OK, "%s", clsplat_last_error(p->lib));
}

/* Token j of every head, in k and v, and its bias if there is one. */
static void set_token(problem *p, size_t j, double value, double bias) {
    for (size_t b = 0; b < p->spec.batch; b++)
        for (size_t h = 0; h < p->spec.kv_heads; h++) {
            for (size_t d = 0; d < p->spec.dim; d++)
                problem_set(&p->tensors[PROBLEM_K], b, h, j, d, d % 2 ? -value : value);
            for (size_t d = 0; d < p->spec.value_dim; d++)
                problem_set(&p->tensors[PROBLEM_V], b, h, j, d, value);
            if (p->tensors[PROBLEM_BIAS].bytes)
                problem_set(&p->tensors[PROBLEM_BIAS], b, h, j, 0, bias);
        }
}

void properties_causal(const problem_spec *spec, uint64_t seed) {
    static const double changes[][2] = {{0.1, 0.2}, {1e30, 0}, {0.5, 1e4}, {-1, 1e30}, {0, -INFINITY}};
    static const double half_changes[][2] = {{0.1, 0.2}, {6e4, 0}, {0.5, 1e4}, {-1, 6e4}, {0, -INFINITY}};
    problem_spec s = *spec;
    s.causal = true;
    problem_stage stage = problem_on_stage();
    problem p = problem_create(stage.lib, &s, seed);
    run(&p, stage.device);
    snapshot before = snapshot_take(&p);
    /* From the last key towards the first: rows before key j have not seen any change yet. */
    const size_t places[] = {s.keys - 1, s.keys - 2, s.keys * 2 / 3, s.keys / 2, s.keys / 3, 1, 0};
    for (size_t c = 0; c < sizeof places / sizeof *places; c++) {
        size_t j = places[c], first_seeing = j + s.queries > s.keys ? j + s.queries - s.keys : 0;
        for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
            const double *change = s.k == CLSPLAT_F16 ? half_changes[i] : changes[i];
            set_token(&p, j, change[0], change[1]);
            run(&p, stage.device);
            check_kept(&p, &before, first_seeing, SIZE_MAX, "a later key");
        }
    }
    snapshot_free(&before);
    problem_free(&p);
}

void properties_repeatable(const problem_spec *spec, uint64_t seed) {
    problem_stage stage = problem_on_stage();
    problem p = problem_create(stage.lib, spec, seed);
    run(&p, stage.device);
    snapshot before = snapshot_take(&p);
    for (int i = 0; i < 2; i++) {
        run(&p, stage.device);
        check_kept(&p, &before, p.spec.queries, SIZE_MAX, "another run");
    }
    clsplat_device *second = suite_device(stage.lib);
    clsplat_device_set_limits(second, clsplat_device_describe(stage.device)->limits);
    run(&p, second);
    check_kept(&p, &before, p.spec.queries, SIZE_MAX, "another device handle");
    clsplat_device_close(&second);
    snapshot_free(&before);
    problem_free(&p);
}

void properties_padding(const problem_spec *spec, uint64_t seed) {
    static const double values[] = {0, 1, -1e30, 3e4};
    problem_stage stage = problem_on_stage();
    problem p = problem_create(stage.lib, spec, seed);
    run(&p, stage.device);
    snapshot before = snapshot_take(&p);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        for (size_t j = 1; j < spec->keys; j += 3) /* BIAS_HOLES */
            set_token(&p, j, values[i], -INFINITY);
        run(&p, stage.device);
        check_kept(&p, &before, p.spec.queries, SIZE_MAX, "a padding key");
    }
    snapshot_free(&before);
    problem_free(&p);
}

void properties_nan_query(const problem_spec *spec, uint64_t seed) {
    problem_stage stage = problem_on_stage();
    problem p = problem_create(stage.lib, spec, seed);
    run(&p, stage.device);
    snapshot before = snapshot_take(&p);
    const size_t rows[] = {0, 1, spec->queries / 2, spec->queries - 1};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double kept = problem_get(&p.tensors[PROBLEM_Q], 0, 0, rows[i], 0);
        problem_set(&p.tensors[PROBLEM_Q], 0, 0, rows[i], 0, NAN);
        run(&p, stage.device);
        check_kept(&p, &before, p.spec.queries, rows[i], "a NaN in another query");
        problem_set(&p.tensors[PROBLEM_Q], 0, 0, rows[i], 0, kept);
    }
    snapshot_free(&before);
    problem_free(&p);
}
