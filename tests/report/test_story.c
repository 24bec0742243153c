/* A closer look at attention against float64: weights, blocks, strongest keys, errors; and the page's
 * escapes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"
#include "base/random.h"
#include "op/matrix.h"
#include "report/look.h"
#include "report/page.h"
#include "runtime/buffer.h"

typedef struct look_case {
    size_t heads, kv_heads, keys, dim, chunk, window;
    bool causal, bias;
    float tolerance;
} look_case;

static const look_case cases[] = {
    {2, 1, 1, 8, 0, 0, true, false, 0.1f},      {4, 2, 300, 16, 0, 0, true, false, 0.1f},
    {4, 2, 300, 16, 64, 0, true, false, 0},     {4, 2, 300, 16, 64, 0, true, true, 0},
    {2, 2, 300, 16, 64, 0, false, false, 0.2f}, {2, 2, 300, 16, 64, 50, true, false, 0.2f},
};
enum { CASES = sizeof cases / sizeof *cases, COUNT = 5, TOP = 8 };

/* Float64 weights of the keys of one query. */
static double *weights_of(const look_case *c, const matrix *q, const matrix *k, const float *bias,
                          size_t head, size_t query, size_t last) {
    double *w = calloc(c->keys, sizeof *w), mass = 0;
    size_t kv = head / (c->heads / c->kv_heads),
           first = c->window && last + 1 > c->window ? last + 1 - c->window : 0;
    for (size_t j = first; j <= last; ++j) {
        double dot = 0;
        for (size_t d = 0; d < c->dim; ++d)
            dot +=
                q->values[(head * COUNT + query) * c->dim + d] * k->values[(kv * c->keys + j) * c->dim + d];
        w[j] = exp(dot / 4 + (bias ? (double)bias[kv * c->keys + j] : 0));
        mass += w[j];
    }
    for (size_t j = 0; j < c->keys; ++j)
        w[j] /= mass;
    return w;
}

static void check_row(const look *l, const look_case *c, const look_row *row, const double *w, size_t last,
                      const uint8_t *apart) {
    double blocks[LOOK_BLOCKS] = {0}, own = 0, beside = 0, entropy = 0, most = 0;
    size_t begin = l->causal && l->chunk ? last / l->chunk * l->chunk : c->keys;
    for (size_t j = 0; j < c->keys; ++j) {
        size_t block = 0;
        while (j >= ((block + 1) * c->keys + LOOK_BLOCKS - 1) / LOOK_BLOCKS)
            ++block;
        blocks[block] += w[j];
        own += j >= begin ? w[j] : 0;
        beside += j < begin && apart[j] ? w[j] : 0;
        entropy -= w[j] > 0 ? w[j] * log2(w[j]) : 0;
        most = fmax(most, w[j]);
    }
    for (size_t block = 0; block < LOOK_BLOCKS; ++block)
        ck_assert_double_eq_tol((double)row->blocks[block], blocks[block], 1e-5);
    ck_assert_double_eq_tol((double)row->own, own, 1e-5);
    ck_assert_double_eq_tol((double)row->apart, beside, 1e-5);
    ck_assert_double_eq_tol((double)row->entropy, entropy, 1e-3);
    ck_assert_double_eq_tol((double)row->weight[0], most, 1e-5);
    for (size_t i = 0; i < TOP && row->weight[i] > 0; ++i) {
        ck_assert_double_eq_tol((double)row->weight[i], w[row->key[i]], 1e-5);
        ck_assert(i == 0 || row->weight[i] <= row->weight[i - 1]);
    }
}

/* A walk ends where the row's own way did: with as many keys one by one as the row has beside its own chunk's
 * and those apart, every node once, and errors that make up what the row expects. */
static void check_walk(const look *l, size_t head, size_t walk, const uint8_t *apart) {
    const look_walk *w = look_walk_at(l, 0, head, walk);
    uint32_t query = l->walked_queries[walk], position = l->positions[query];
    const look_row *row = look_at(l, 0, head, query);
    size_t own = l->causal ? position / l->chunk * l->chunk : l->keys,
           beside = l->causal ? position + 1 - own : 0, count = 0, covered = 0;
    double squares = 0, sum = 0;
    for (size_t j = 0; j < own; ++j)
        beside += apart[j];
    for (walk_reader r = walk_begin(l, w, position); walk_next(&r); ++count) {
        ck_assert_uint_lt(r.node.first, (own + l->chunk - 1) / l->chunk * l->chunk);
        ck_assert(!r.node.opened || r.node.most > 0.9 * (double)w->accepted);
        ck_assert(r.node.opened || r.node.error < 1.1 * fmax((double)w->accepted, 1e-6));
        if (!r.node.opened || r.node.level == 0)
            covered += r.node.keys;
        if (!r.node.opened) {
            squares += r.node.error * r.node.error;
            sum += r.node.error;
        }
    }
    ck_assert_uint_eq(count, w->count);
    ck_assert(covered >= own && (!l->causal || covered == own));
    ck_assert_uint_eq(w->keys + beside, row->exact);
    double joint =
        pow(16 / (double)l->sizes[0], 0.125) * sqrt(0.58 * 0.58 * squares + 0.068 * 0.068 * sum * sum);
    ck_assert_double_le(fabs(joint - (double)row->expected), 1.5 * joint + 1e-5);
}

START_TEST(rows_are_those_of_float64) {
    const look_case *c = &cases[_i];
    problem_stage stage = problem_on_stage();
    random_state random = random_seed((uint64_t)_i + 1);
    matrix q = matrix_random(CLSPLAT_F32, c->heads, COUNT, c->dim, &random),
           k = matrix_random(CLSPLAT_F32, c->kv_heads, c->keys, c->dim, &random),
           v = matrix_random(CLSPLAT_F32, c->kv_heads, c->keys, 12, &random);
    float *bias = calloc(c->kv_heads * c->keys, sizeof *bias);
    for (size_t i = 0; c->bias && i < c->kv_heads * c->keys; ++i)
        bias[i] = i % 7 == 3 ? -INFINITY : (float)random_normal(&random);
    uint32_t positions[COUNT];
    for (size_t i = 0; i < COUNT; ++i)
        positions[i] = (uint32_t)((i + 1) * c->keys / COUNT > 0 ? (i + 1) * c->keys / COUNT - 1 : 0);
    look l, shape = {.layers = 1,
                     .heads = c->heads,
                     .kv_heads = c->kv_heads,
                     .count = COUNT,
                     .keys = c->keys,
                     .top = TOP,
                     .chunk = c->chunk,
                     .causal = c->causal};
    look_source from = {
        .q = q.t, .k = k.t, .v = v.t, .scale = 0.25f, .tolerance = c->tolerance, .window = c->window};
    if (c->bias) {
        from.bias = bias;
        from.key_bias = (op_tensor){.mem = numbers_create(bias, c->kv_heads * c->keys),
                                    .dtype = CLSPLAT_F32,
                                    .shape = {1, c->kv_heads, c->keys, 1},
                                    .stride = {c->kv_heads * c->keys, c->keys, 1}};
    }
    suite_ok(stage.lib, look_create(stage.lib, shape, positions, &l));
    suite_ok(stage.lib, look_layer(stage.device, &l, 0, &from));
    for (size_t i = 0; i < c->heads * COUNT; ++i) {
        size_t head = i / COUNT, last = c->causal ? positions[i % COUNT] : c->keys - 1;
        const look_row *row = look_at(&l, 0, head, i % COUNT);
        double *w = weights_of(c, &q, &k, c->bias ? bias : NULL, head, i % COUNT, last);
        check_row(&l, c, row, w, last, l.apart + head / (c->heads / c->kv_heads) * c->keys);
        ck_assert_uint_le(row->exact, row->visible);
        if (c->tolerance == 0 || !c->chunk || c->window)
            ck_assert_double_lt((double)row->actual, 1e-5);
        free(w);
    }
    ck_assert(!c->chunk || l.walked == COUNT);
    for (size_t i = 0; !c->window && !c->bias && i < c->heads * l.walked; ++i)
        check_walk(&l, i / l.walked, i % l.walked,
                   l.apart + i / l.walked / (c->heads / c->kv_heads) * c->keys);
    look_sum sum = look_sum_up(&l, 0, 0, c->heads);
    ck_assert_double_le(sum.actual, (double)c->tolerance + 1e-5);
    if (from.key_bias.mem)
        clReleaseMemObject(from.key_bias.mem);
    look_free(&l);
    free(bias);
    matrix_free(&q);
    matrix_free(&k);
    matrix_free(&v);
}
END_TEST

static void add_look(TCase *part) {
    problem_add_stage(part);
    tcase_add_loop_test(part, rows_are_those_of_float64, 0, CASES);
}

START_TEST(strings_cannot_end_the_script) {
    static const char hostile[] = "</script>\0\"\\\xff\xed\xa0\x80\xe2\x80\xa8 é";
    text json = {0};
    page_string(&json, hostile, sizeof hostile - 1);
    ck_assert_str_eq(json.data,
                     "\"\\u003c/script\\u003e\\u0000\\u0022\\u005c\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
                     "\xef\xbf\xbd\\u2028 é\"");
    text_free(&json);
}
END_TEST

START_TEST(bytes_are_base64) {
    static const char *const words[][2] = {
        {"", "\"\""}, {"a", "\"YQ==\""}, {"ab", "\"YWI=\""}, {"abc", "\"YWJj\""}};
    for (size_t i = 0; i < 4; ++i) {
        text json = {0};
        page_bytes(&json, words[i][0], strlen(words[i][0]));
        ck_assert_str_eq(json.data, words[i][1]);
        text_free(&json);
    }
}
END_TEST

static void add_page(TCase *part) {
    tcase_add_test(part, strings_cannot_end_the_script);
    tcase_add_test(part, bytes_are_base64);
}

int main(void) {
    static const suite_part parts[] = {{"look", add_look}, {"page", add_page}};
    return suite_run("story", parts, sizeof parts / sizeof *parts);
}
