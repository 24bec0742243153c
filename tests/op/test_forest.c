/* Trees and the walk through them, every row of both tables, against the reference: what a node says of its
 * keys, and a row's output from the same nodes with nothing open, and from the same keys with everything.
 * What is opened between is judged by its promises: attention/test_judged.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "op/forest_case.h"
#include "runtime/device.h"

/* Those of the same columns, chunks and biases share programs, which take most of the time: nine sets of
 * these. A walk from a cache, by one query alone, is another program each: the first of them have it, and in
 * the long tier all. */
// clang-format off
static const far_spec specs[] = {
    {{.queries = 40, .keys = 300, .dim = 5, .value_dim = 7, .causal = true}, 16, 0},
    {{.batch = 2, .heads = 4, .kv_heads = 2, .queries = 70, .keys = 300, .dim = 16, .value_dim = 32, .causal = true,
      .bias = BIAS_HOLES}, 32, 0},
    {{.heads = 3, .kv_heads = 1, .queries = 100, .keys = 100, .dim = 5, .value_dim = 7, .causal = true}, 16, 1},
    {{.heads = 2, .kv_heads = 1, .queries = 130, .keys = 1100, .dim = 16, .value_dim = 16, .causal = true}, 512, 0},
    {{.heads = 6, .kv_heads = 1, .queries = 50, .keys = 1300, .dim = 16, .value_dim = 16, .causal = true}, 16, 0},
    {{.queries = 150, .keys = 60, .dim = 16, .value_dim = 16, .causal = true, .bias = BIAS_HOLES}, 16, 2},
    {{.batch = 2, .queries = 9, .keys = 200, .dim = 16, .value_dim = 16, .causal = true, .bias = BIAS_ALL}, 64, 0},
    /* Few queries over many chunks, as in decoding: several of a group, across the end of a chunk, bias, each width. */
    {{.heads = 6, .kv_heads = 2, .queries = 5, .keys = 1058, .dim = 16, .value_dim = 48, .causal = true, .bias = BIAS_HOLES}, 16,
     0},
    /* From here on gathered and walked, but not from a cache. */
    {{.batch = 2, .heads = 8, .kv_heads = 1, .queries = 16, .keys = 1100, .dim = 32, .value_dim = 16, .causal = true}, 16, 0},
    {{.heads = 2, .queries = 1, .keys = 1500, .dim = 256, .value_dim = 256, .bias = BIAS_RANDOM}, 16, 0},
    {{.heads = 2, .queries = 33, .keys = 700, .dim = 16, .value_dim = 16, .bias = BIAS_RANDOM}, 64, 0},
    {{.queries = 20, .keys = 1290, .dim = 16, .value_dim = 16, .bias = BIAS_FRONT}, 16, 0},
    {{.queries = 60, .keys = 300, .dim = 32, .value_dim = 16, .causal = true}, 16, 3},
    {{.queries = 60, .keys = 300, .dim = 16, .value_dim = 32, .causal = true, .bias = BIAS_HOLES}, 32, 3},
    {{.queries = 80, .keys = 400, .dim = 16, .value_dim = 16, .causal = true, .data = DATA_IDENTICAL}, 16, 0},
    {{.heads = 6, .kv_heads = 2, .queries = 12, .keys = 1100, .dim = 16, .value_dim = 48, .causal = true, .bias = BIAS_RANDOM},
     16, 0},
    /* Enough chunks to start above them. */
    {{.heads = 2, .kv_heads = 1, .queries = 3, .keys = 70000, .dim = 16, .value_dim = 16, .causal = true,
      .tier = SUITE_NORMAL}, 16, 0},
    /* More columns than an item keeps of its key. */
    {{.queries = 9, .keys = 100, .dim = 80, .value_dim = 16, .causal = true}, 32, 0},
};
// clang-format on
enum { SPECS = sizeof specs / sizeof *specs, FROM_A_CACHE = 8 };

/* Every key of a chunk is in one of its slots, the first ones, with its value and bias, or stands apart; the
 * other slots are empty. */
static void check_slots(const forest_case *b, const naive_forest *f, size_t head, size_t chunk) {
    const uint32_t *apart = b->apart + head * forest_case_apart(b);
    size_t keys = b->p.spec.keys, count = 0, found = 0, begin = chunk * f->chunk;
    for (size_t j = chunk * f->chunk; j < (chunk + 1) * f->chunk && j < keys; j++) {
        const double *k = b->host[PROBLEM_K] + (head * keys + j) * f->dim;
        const double *v = b->host[PROBLEM_V] + (head * keys + j) * f->value_dim;
        double bias = b->host[PROBLEM_BIAS] ? b->host[PROBLEM_BIAS][head * keys + j] : 0;
        if (bias == -INFINITY)
            continue;
        count++;
        size_t after = f->slots + apart[chunk], more = apart[chunk + 1] - apart[chunk];
        for (size_t x = 0; x < f->chunk + more; x++) {
            size_t s = x < f->chunk ? begin + x : after + x - f->chunk;
            if (f->biases[s] == bias && memcmp(f->keys + s * f->dim, k, f->dim * sizeof *k) == 0 &&
                memcmp(f->values + s * f->value_dim, v, f->value_dim * sizeof *v) == 0) {
                found++;
                break;
            }
        }
    }
    ck_assert_msg(found == count, "chunk %zu of head %zu has %zu of its %zu keys", chunk, head, found, count);
    for (size_t s = chunk * f->chunk; s < (chunk + 1) * f->chunk; s++)
        ck_assert_msg((s - begin + apart[chunk + 1] - apart[chunk] < count) == (f->biases[s] > -INFINITY),
                      "slot %zu of %zu keys", s, count);
}

static void check_node(const forest_case *b, const naive_forest *f, size_t head, size_t level, size_t g,
                       naive_node *n, double whole) {
    const op_forest *o = &b->forest;
    size_t blocks = o->first_block[o->levels], block = o->first_block[level] + g / 16, lane = g % 16;
    const double *stats = b->stats + (head * blocks + block) * 16 * OP_NODE_STATS + lane;
    double mean[256], square[256], sum = 0;
    for (size_t d = 0; d < f->dim; d++) {
        mean[d] = b->means[((head * blocks + block) * f->dim + d) * 16 + lane];
        sum += n->variance[d];
    }
    const double *value = b->mean_values + ((head * blocks + block) * 16 + lane) * f->value_dim;
    ck_assert_msg(stats[48] == n->count, "node %zu of level %zu has %g keys, expected %g", g, level,
                  stats[48], n->count);
    ck_assert_msg(n->count > 0 ? fabs(stats[0] - n->log_mass) < 1e-5 * fmax(1, fabs(n->log_mass))
                               : stats[0] == -INFINITY,
                  "node %zu of level %zu: log-mass %g, expected %g", g, level, stats[0], n->log_mass);
    ck_assert_msg(fabs(stats[32] - n->spread) <= 1e-4 * n->spread + 1e-5,
                  "node %zu of level %zu: spread %g, expected %g", g, level, stats[32], n->spread);
    /* Above chunks it is a bound. */
    ck_assert_msg(level > f->top ? stats[64] > 0.999 * n->reach
                                 : sum < 1e-9 || fabs(stats[64] - n->reach) < 1e-3 * n->reach,
                  "node %zu of level %zu: reach %g, expected %g", g, level, stats[64], n->reach);
    double share = level >= f->top ? (n->count > 0 || level > f->top ? 1 : 0) : whole > 0 ? sum / whole : 0;
    ck_assert_msg(n->count == 0 || whole < 1e-9 || fabs(stats[16] - share) < 1e-4,
                  "node %zu of level %zu: share %g, expected %g", g, level, stats[16], share);
    ck_assert(compare_norm(mean, n->mean, f->dim) < 1e-5);
    ck_assert(compare_norm(value, n->value, f->value_dim) < 1e-5);
    if (level < f->top)
        return;
    size_t above = blocks - o->first_block[f->top], at = head * above + block - o->first_block[f->top];
    for (size_t d = 0; d < f->dim; d++)
        square[d] = b->variances[(at * f->dim + d) * 16 + lane];
    /* Of identical keys, what rounding left of their differences. */
    ck_assert(sum < 1e-9 || compare_norm(square, n->variance, f->dim) < 1e-4);
}

static void check_covariances(const forest_case *b, const naive_forest *f, size_t head) {
    size_t runs = b->forest.chunks / OP_FOREST_RUN, size = f->dim * f->value_dim;
    double *expected = naive_covariances(f);
    for (size_t r = 0; r < b->p.spec.keys / f->chunk / OP_FOREST_RUN; r++) {
        double error = compare_norm(b->covariances + (head * runs + r) * size, expected + r * size, size);
        ck_assert_msg(error < 1e-4, "the covariances of run %zu are off by %.1e", r, error);
    }
    free(expected);
}

static void check_forest(const forest_case *b) {
    for (size_t head = 0; head < b->forest.batch * b->forest.heads; head++) {
        double *keys, whole = 0;
        naive_forest f = forest_case_head(b, head, &keys);
        naive_node n = naive_node_create(&f);
        for (size_t chunk = 0; chunk < b->forest.chunks; chunk++)
            check_slots(b, &f, head, chunk);
        for (size_t level = 0; level < f.levels; level++)
            for (size_t g = 0; g * naive_node_size(&f, level) < f.slots; g++) {
                whole = 0;
                naive_node_of(&f, f.top, g * naive_node_size(&f, level) / f.chunk, &n);
                for (size_t d = 0; d < f.dim; d++)
                    whole += n.variance[d];
                naive_node_of(&f, level, g, &n);
                check_node(b, &f, head, level, g, &n, whole);
            }
        check_covariances(b, &f, head);
        naive_node_free(&n);
        free(keys);
    }
}

static naive_far_row row_of(const forest_case *b, size_t head, size_t i, bool open, double *scaled) {
    const problem_spec *s = &b->p.spec;
    size_t kv = head / s->heads * s->kv_heads + head % s->heads / (s->heads / s->kv_heads);
    size_t visible = !s->causal ? s->keys : i + s->keys + 1 > s->queries ? i + s->keys + 1 - s->queries : 0;
    naive_far_row row = {.q = scaled, .open = open, .rest = !s->causal};
    row.past = s->causal ? (visible ? (visible - 1) / b->spec.chunk : 0) : b->forest.chunks;
    row.apart = b->apart[kv * forest_case_apart(b) + row.past];
    row.own = s->causal ? visible - row.past * b->spec.chunk : 0;
    row.keys = s->causal ? row.past * b->spec.chunk : s->keys;
    size_t at = kv * s->keys + row.past * b->spec.chunk;
    if (row.own) {
        row.k = b->host[PROBLEM_K] + at * s->dim;
        row.v = b->host[PROBLEM_V] + at * s->value_dim;
        row.bias = b->host[PROBLEM_BIAS] ? b->host[PROBLEM_BIAS] + at : NULL;
    }
    for (size_t d = 0; d < s->dim; d++)
        scaled[d] = b->host[PROBLEM_Q][(head * s->queries + i) * s->dim + d] * 0.25;
    return row;
}

/* What a row of the table left. */
typedef struct results {
    double *out, *lse;
    int32_t *exact;
} results;

static void check_row(const forest_case *b, const naive_forest *f, size_t head, size_t i, bool open,
                      const results *r) {
    double scaled[256], out[256];
    naive_far far = {.out = out};
    naive_far_row row = row_of(b, head, i, open, scaled);
    naive_near_far(f, &row, &far);
    size_t at = head * b->p.spec.queries + i;
    ck_assert_msg((size_t)r->exact[at] == far.exact, "row %zu of head %zu: %d keys are exact, expected %zu",
                  i, head, r->exact[at], far.exact);
    double error = compare_norm(r->out + at * f->value_dim, out, f->value_dim),
           lse_error = compare_lse(r->lse + at, &far.lse, 1);
    ck_assert_msg(error < 2e-5 && lse_error < 2e-5, "row %zu of head %zu: out is off by %.1e, lse by %.1e", i,
                  head, error, lse_error);
}

static void check_results(forest_case *b, bool open) {
    const problem_spec *s = &b->p.spec;
    size_t rows = s->queries, all = s->batch * s->heads * rows;
    results r = {forest_case_floats(b, b->t[PROBLEM_OUT].mem, all * s->value_dim),
                 forest_case_floats(b, b->t[PROBLEM_LSE].mem, all),
                 forest_case_bytes(b, b->exact.mem, all * sizeof(int32_t))};
    for (size_t head = 0; head < s->batch * s->heads; head++) {
        double *keys;
        naive_forest f = forest_case_head(
            b, head / s->heads * s->kv_heads + head % s->heads / (s->heads / s->kv_heads), &keys);
        double *covariances = naive_covariances(&f);
        f.covariances = covariances;
        for (size_t i = 0; i < rows; i++)
            check_row(b, &f, head, i, open, &r);
        free(keys);
        free(covariances);
    }
    free(r.out);
    free(r.lse);
    free(r.exact);
}

/* NaN in all results, before a row writes them. */
static void poison(forest_case *b) {
    const op_tensor *all[] = {&b->t[PROBLEM_OUT], &b->t[PROBLEM_LSE], &b->exact, &b->estimate};
    queue q;
    queue_begin(b->device, 0, NULL, &q);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        suite_ok(b->p.lib, queue_fill(&q, all[i]->mem, 0, forest_case_count(all[i]) * sizeof(float), NAN));
}

static op_near_far_args args_at(const forest_case *b, float tolerance) {
    const problem_spec *s = &b->p.spec;
    return (op_near_far_args){.forest = &b->forest,
                              .q = b->t[PROBLEM_Q],
                              .k = b->t[PROBLEM_K],
                              .v = b->t[PROBLEM_V],
                              .key_bias = b->t[PROBLEM_BIAS],
                              .out = b->t[PROBLEM_OUT],
                              .lse = b->t[PROBLEM_LSE],
                              .exact_keys = b->exact,
                              .error_estimate = b->estimate,
                              .scale = 0.25F,
                              .diagonal = s->causal ? (int32_t)s->keys - (int32_t)s->queries : OP_SEES_ALL,
                              .keys = s->keys,
                              .tolerance = tolerance};
}

static op_near_far_args args_of(const forest_case *b, bool open) {
    return args_at(b, open ? 0 : INFINITY);
}

/* The last query alone, with the keys of its own chunk alone, as a cache has them. */
static op_near_far_args last_of(const forest_case *b, op_near_far_args args) {
    const problem_spec *s = &b->p.spec;
    size_t first = (s->keys - 1) / b->spec.chunk * b->spec.chunk;
    args.q = op_slice(args.q, 2, s->queries - 1, 1);
    args.out = op_slice(args.out, 2, s->queries - 1, 1);
    args.lse = op_slice(args.lse, 2, s->queries - 1, 1);
    args.exact_keys = op_slice(args.exact_keys, 2, s->queries - 1, 1);
    args.error_estimate = op_slice(args.error_estimate, 2, s->queries - 1, 1);
    args.k = op_slice(args.k, 2, first, s->keys - first);
    args.v = op_slice(args.v, 2, first, s->keys - first);
    args.key_bias = op_slice(args.key_bias, 2, first, s->keys - first);
    args.first_key = first;
    args.diagonal = (int32_t)s->keys - 1;
    return args;
}

START_TEST(gather_trees) {
    forest_case b = forest_case_create(&specs[_i], (uint64_t)_i);
    for (int feigned = 0; feigned < 2; feigned++) {
        for (size_t row = 0; row < op_gather_family.count; row++)
            if (forest_case_gather(&b, row))
                check_forest(&b);
        /* Then the rows for GPUs, where local memory is not a device's own: slow, but the same. */
        b.device->info.limits.local_memory = 32 << 10;
    }
    b.device->info.limits.local_memory = 0;
    forest_case_free(&b);
}
END_TEST

START_TEST(walk_trees) {
    forest_case b = forest_case_create(&specs[_i], (uint64_t)_i);
    ck_assert(forest_case_gather(&b, 0));
    for (size_t row = 0; row < 2 * op_near_far_family.count; row++) {
        op_near_far_args args = args_of(&b, row % 2);
        poison(&b);
        if (forest_case_run(&b, &op_near_far_family, row / 2, &args))
            check_results(&b, row % 2);
    }
    forest_case_free(&b);
}
END_TEST

static size_t row_called(const char *name) {
    size_t row = 0;
    while (strcmp(op_near_far_family.variants[row].name, name) != 0)
        row++;
    return row;
}

/* The row in local memory, on cases of few numbers to compile for; what it opens in between, where rows of a
 * tile share, keeps the error that was asked for (test_judged has more of that). */
START_TEST(walk_in_groups) {
    static const far_spec whole = {
        {.heads = 2, .queries = 33, .keys = 700, .dim = 16, .value_dim = 16, .bias = BIAS_RANDOM}, 128, 0};
    forest_case b = forest_case_create(_i ? &whole : &specs[1], (uint64_t)_i);
    const problem_spec *s = &b.p.spec;
    size_t rows = s->batch * s->heads * s->queries;
    ck_assert(forest_case_gather(&b, 0));
    b.device->info.limits.local_memory = 32 << 10;
    for (int open = 0; open < 2; open++) {
        op_near_far_args args = args_of(&b, open);
        poison(&b);
        ck_assert(forest_case_run(&b, &op_near_far_family, row_called("local"), &args));
        check_results(&b, open);
        args = last_of(&b, args);
        if (s->causal)
            ck_assert(forest_case_run(&b, &op_near_far_family, row_called("local"), &args));
        check_results(&b, open);
    }
    double *out[2];
    int32_t *exact[2];
    for (int local = 0; local < 2; local++) {
        op_near_far_args args = args_at(&b, local ? 0.1F : 0);
        poison(&b);
        ck_assert(forest_case_run(&b, &op_near_far_family, row_called(local ? "local" : "plain"), &args));
        out[local] = forest_case_floats(&b, b.t[PROBLEM_OUT].mem, rows * s->value_dim);
        exact[local] = forest_case_bytes(&b, b.exact.mem, rows * sizeof(int32_t));
    }
    for (size_t row = 0; row < rows; row++)
        ck_assert_int_le(exact[1][row], exact[0][row]);
    ck_assert_double_lt(compare_norm(out[1], out[0], rows * s->value_dim), 0.1);
    b.device->info.limits.local_memory = 0;
    for (int local = 0; local < 2; local++) {
        free(out[local]);
        free(exact[local]);
    }
    forest_case_free(&b);
}
END_TEST

/* Fewer keys than a chunk: nothing is ever gathered, and every key is exact. */
START_TEST(walk_without_trees) {
    static const far_spec spec = {
        {.heads = 2, .kv_heads = 1, .queries = 20, .keys = 20, .dim = 16, .value_dim = 16, .causal = true},
        32,
        0};
    forest_case b = forest_case_create(&spec, 1);
    const problem_spec *s = &b.p.spec;
    for (size_t row = 0; row < op_near_far_family.count; row++) {
        op_near_far_args args = args_of(&b, false);
        forest_case_poison(&b);
        poison(&b);
        if (!forest_case_run(&b, &op_near_far_family, row, &args))
            continue;
        double *out = forest_case_floats(&b, b.t[PROBLEM_OUT].mem, s->heads * s->queries * s->value_dim);
        int32_t *exact = forest_case_bytes(&b, b.exact.mem, s->heads * s->queries * sizeof *exact);
        for (size_t i = 0; i < s->heads * s->queries; i++) {
            ck_assert_int_eq(exact[i], (int)(i % s->queries) + 1);
            for (size_t d = 0; d < s->value_dim; d++)
                ck_assert(isfinite(out[i * s->value_dim + d]));
        }
        free(out);
        free(exact);
    }
    forest_case_free(&b);
}
END_TEST

START_TEST(walk_from_a_cache) {
    forest_case b = forest_case_create(&specs[_i], (uint64_t)_i);
    ck_assert(forest_case_gather(&b, 0));
    const problem_spec *s = &b.p.spec;
    for (size_t row = 0; row < 2 * op_near_far_family.count && s->causal; row++) {
        op_near_far_args args = args_of(&b, row % 2);
        poison(&b);
        if (!forest_case_run(&b, &op_near_far_family, row / 2, &args))
            continue;
        args = last_of(&b, args);
        if (forest_case_run(&b, &op_near_far_family, row / 2, &args))
            check_results(&b, row % 2);
    }
    forest_case_free(&b);
}
END_TEST

/* Longer ones than the tier wants come last. */
static void add_all(TCase *part) {
    int count = SPECS;
    while (count > 0 && specs[count - 1].problem.tier > suite_tier_wanted())
        count--;
    problem_add_stage(part);
    tcase_add_loop_test(part, gather_trees, 0, count);
    tcase_add_loop_test(part, walk_trees, 0, count);
    tcase_add_loop_test(part, walk_from_a_cache, 0, suite_tier_wanted() == SUITE_LONG ? count : FROM_A_CACHE);
    tcase_add_test(part, walk_without_trees);
    tcase_add_loop_test(part, walk_in_groups, 0, 2);
}

int main(void) {
    static const suite_part parts[] = {{"forest", add_all}};
    return suite_run("forest", parts, sizeof parts / sizeof *parts);
}
