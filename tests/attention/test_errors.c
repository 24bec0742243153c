/* What cannot be computed is refused with the status and the words that the header promises. */
#include <math.h>
#include <string.h>

#include "attention/problem.h"

/* A small attention that works, to be broken in one place. */
static const problem_spec specs[] = {
    {.batch = 2,
     .heads = 4,
     .kv_heads = 2,
     .queries = 5,
     .keys = 6,
     .dim = 8,
     .value_dim = 4,
     .bias = BIAS_RANDOM},
    {.batch = 2,
     .heads = 4,
     .kv_heads = 2,
     .queries = 5,
     .keys = 6,
     .dim = 8,
     .value_dim = 4,
     .bias = BIAS_RANDOM,
     .splats = 3,
     .levels = 2,
     .covariance = CLSPLAT_DIAGONAL},
};

typedef struct call {
    clsplat_attention attention;
    clsplat_attention_tensors t;
} call;

typedef struct mistake {
    void (*make)(call *c);
    clsplat_status status;
    const char *word; /* that the message must have */
} mistake;

static void q_absent(call *c) {
    c->t.q.host = NULL;
}
static void k_absent(call *c) {
    c->t.k.host = NULL;
}
static void v_absent(call *c) {
    c->t.v.host = NULL;
}
static void out_absent(call *c) {
    c->t.out.host = NULL;
}
static void k_batch(call *c) {
    c->t.k.shape[0] = 1;
}
static void v_heads(call *c) {
    c->t.v.shape[1] = 4;
}
static void v_rows(call *c) {
    c->t.v.shape[2] = 5;
}
static void k_columns(call *c) {
    c->t.k.shape[3] = 7;
}
static void bias_rows(call *c) {
    c->t.key_bias.shape[2] = 5;
}
static void bias_columns(call *c) {
    c->t.key_bias.shape[3] = 8;
}
static void out_rows(call *c) {
    c->t.out.shape[2] = 6;
}
static void out_columns(call *c) {
    c->t.out.shape[3] = 8;
}
static void lse_heads(call *c) {
    c->t.lse.shape[1] = 2;
}
static void heads_no_multiple(call *c) {
    c->t.k.shape[1] = c->t.v.shape[1] = c->t.key_bias.shape[1] = 3;
}
static void no_columns(call *c) {
    c->t.q.shape[3] = c->t.k.shape[3] = 0;
}
static void no_rows(call *c) {
    c->t.k.shape[2] = c->t.v.shape[2] = c->t.key_bias.shape[2] = 0;
}
static void too_many_columns(call *c) {
    c->t.q.shape[3] = c->t.k.shape[3] = 1025;
}
static void too_many_value_columns(call *c) {
    c->t.v.shape[3] = c->t.out.shape[3] = 1025;
}
static void overflow(call *c) {
    c->t.q.shape[0] = c->t.k.shape[0] = c->t.v.shape[0] = c->t.out.shape[0] = SIZE_MAX / 2;
    c->t.key_bias = c->t.lse = (clsplat_tensor){0};
}
static void no_such_type(call *c) {
    c->t.v.dtype = (clsplat_dtype)7;
}
static void infinite_scale(call *c) {
    c->attention.scale = INFINITY;
}
static void no_such_mixing(call *c) {
    c->attention.mixing = (clsplat_mixing)5;
}

static void no_such_method(call *c) {
    c->attention.method = (clsplat_method)9;
}
static void no_such_variant(call *c) {
    c->attention.variant = "fast";
}
static void splats_and_another_method(call *c) {
    static char any;
    c->attention.method = CLSPLAT_SOFTMAX;
    c->attention.splats = (clsplat_splats *)&any;
}
static void splats_left_away(call *c) {
    c->attention.method = CLSPLAT_SPLATS;
    c->attention.splats = NULL;
}
static void a_window_of_nothing(call *c) {
    c->attention.method = CLSPLAT_WINDOW;
    c->attention.splats = NULL;
    c->attention.causal = true;
    c->attention.window = 0;
}
static void a_window_to_both_sides(call *c) {
    a_window_of_nothing(c);
    c->attention.causal = false;
    c->attention.window = 5;
}

static void far_with_nan(call *c) {
    c->attention.method = CLSPLAT_NEAR_FAR;
    c->attention.splats = NULL;
    c->attention.tolerance = NAN;
}
static void far_below_0(call *c) {
    far_with_nan(c);
    c->attention.tolerance = -1;
}
static void far_with_an_odd_chunk(call *c) {
    far_below_0(c);
    c->attention.tolerance = 0;
    c->attention.chunk = 48;
}
static void far_with_a_chunk_above_the_limit(call *c) {
    far_with_an_odd_chunk(c);
    c->attention.chunk = 64;
    c->attention.sparse_topk = 32;
}
static void far_with_a_limit_too_small(call *c) {
    far_with_an_odd_chunk(c);
    c->attention.chunk = 0;
    c->attention.sparse_topk = 5;
}
static void exact_keys_without_near_far(call *c) {
    c->t.exact_keys = c->t.lse;
}
static void exact_keys_of_floats(call *c) {
    c->attention.method = CLSPLAT_NEAR_FAR;
    c->attention.splats = NULL;
    c->t.exact_keys = c->t.lse;
}
static void an_input_of_counts(call *c) {
    c->t.v.dtype = CLSPLAT_I32;
}

static const mistake mistakes[] = {
    {q_absent, CLSPLAT_INVALID, "q"},
    {k_absent, CLSPLAT_INVALID, "k"},
    {v_absent, CLSPLAT_INVALID, "v"},
    {out_absent, CLSPLAT_INVALID, "out"},
    {k_batch, CLSPLAT_SHAPE, "k "},
    {v_heads, CLSPLAT_SHAPE, "v "},
    {v_rows, CLSPLAT_SHAPE, "v "},
    {k_columns, CLSPLAT_SHAPE, "k "},
    {bias_rows, CLSPLAT_SHAPE, "key_bias"},
    {bias_columns, CLSPLAT_SHAPE, "key_bias"},
    {out_rows, CLSPLAT_SHAPE, "out"},
    {out_columns, CLSPLAT_SHAPE, "out"},
    {lse_heads, CLSPLAT_SHAPE, "lse"},
    {heads_no_multiple, CLSPLAT_SHAPE, "multiple"},
    {no_columns, CLSPLAT_SHAPE, "q"},
    {no_rows, CLSPLAT_SHAPE, "k"},
    {too_many_columns, CLSPLAT_SHAPE, "1024"},
    {too_many_value_columns, CLSPLAT_SHAPE, "1024"},
    {overflow, CLSPLAT_SHAPE, "q"},
    {no_such_type, CLSPLAT_INVALID, "v"},
    {infinite_scale, CLSPLAT_INVALID, "scale"},
    {no_such_mixing, CLSPLAT_INVALID, "mixing"},
    {no_such_method, CLSPLAT_INVALID, "method"},
    {no_such_variant, CLSPLAT_INVALID, "variant `fast`; there are plain, wide"},
    {splats_and_another_method, CLSPLAT_INVALID, "splats are given"},
    {splats_left_away, CLSPLAT_INVALID, "needs splats"},
    {a_window_of_nothing, CLSPLAT_INVALID, "window"},
    {a_window_to_both_sides, CLSPLAT_INVALID, "causal"},
    {far_with_nan, CLSPLAT_INVALID, "tolerance"},
    {far_below_0, CLSPLAT_INVALID, "tolerance"},
    {far_with_an_odd_chunk, CLSPLAT_INVALID, "power of two"},
    {far_with_a_chunk_above_the_limit, CLSPLAT_INVALID, "sparse_topk"},
    {far_with_a_limit_too_small, CLSPLAT_INVALID, "sparse_topk"},
    {exact_keys_without_near_far, CLSPLAT_INVALID, "exact_keys"},
    {exact_keys_of_floats, CLSPLAT_INVALID, "exact_keys"},
    {an_input_of_counts, CLSPLAT_INVALID, "v"},
};
enum { MISTAKES = sizeof mistakes / sizeof *mistakes };

START_TEST(a_mistake_is_named) {
    const mistake *m = &mistakes[_i % MISTAKES];
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, &specs[_i / MISTAKES], 1);
    call c = {p.attention, problem_views(&p)};
    memset(c.t.k.stride, 0, sizeof c.t.k.stride); /* dense: strides follow the broken shape */
    memset(c.t.q.stride, 0, sizeof c.t.q.stride);
    m->make(&c);
    clsplat_status status = clsplat_attend(s.device, c.attention, c.t);
    const char *words = clsplat_last_error(s.lib);
    ck_assert_msg(status == m->status, "mistake %d: %s: %s", _i, clsplat_status_text(status), words);
    ck_assert_msg(strstr(words, m->word) != NULL, "mistake %d: \"%s\" does not name %s", _i, words, m->word);
    problem_free(&p);
}
END_TEST

/* The handle works on after every mistake. */
START_TEST(the_same_call_without_the_mistake) {
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, &specs[_i], 1);
    problem_solve(&p, s.device);
    problem_free(&p);
}
END_TEST

START_TEST(host_tensors_are_not_for_enqueue) {
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, &specs[_i], 1);
    cl_event event = NULL;
    clsplat_status status = clsplat_attend_enqueue(s.device, p.attention, problem_views(&p), 0, NULL, &event);
    ck_assert_int_eq(status, CLSPLAT_INVALID);
    ck_assert_ptr_null(event);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(s.lib), "buffer"));
    problem_free(&p);
}
END_TEST

/* Buffers where host memory is wanted; both at once; a tensor that ends behind its buffer. */
START_TEST(buffers_must_fit) {
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, &specs[_i], 1);
    clsplat_attention_tensors t = problem_views(&p);
    cl_int code = CL_SUCCESS;
    cl_mem buffer = clCreateBuffer(clsplat_device_context(s.device), CL_MEM_READ_WRITE, 64, NULL, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
    t.q.buffer = buffer;
    clsplat_status both = clsplat_attend(s.device, p.attention, t);
    t.q.host = NULL;
    clsplat_status in_buffer = clsplat_attend(s.device, p.attention, t);
    clsplat_tensor *const all[] = {&t.q, &t.k, &t.v, &t.out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        *all[i] = clsplat_tensor_device(CLSPLAT_F32, 1, 1, 4, 8, buffer, 0);
    t.key_bias = t.lse = (clsplat_tensor){0};
    clsplat_status behind = clsplat_attend_enqueue(s.device, clsplat_attention_defaults(), t, 0, NULL, NULL);
    const char *words = clsplat_last_error(s.lib);
    ck_assert_int_eq(both, CLSPLAT_INVALID);
    ck_assert_int_eq(in_buffer, CLSPLAT_INVALID);
    ck_assert_int_eq(behind, CLSPLAT_SHAPE);
    ck_assert_msg(strstr(words, "q") && strstr(words, "64"), "%s", words);
    clReleaseMemObject(buffer);
    problem_free(&p);
}
END_TEST

/* Splats of another dimension, or of another number of heads. */
START_TEST(splats_must_fit) {
    static const clsplat_splats_shape shapes[] = {{CLSPLAT_DIAGONAL, 4, 3, 7, 1},
                                                  {CLSPLAT_DIAGONAL, 2, 3, 8, 1}};
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, &specs[0], 1);
    suite_ok(s.lib, clsplat_splats_create(s.lib, shapes[_i], &p.splats));
    p.attention.method = CLSPLAT_SPLATS;
    p.attention.splats = p.splats;
    ck_assert_int_eq(problem_attend(&p, s.device), CLSPLAT_SHAPE);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(s.lib), "splats"));
    problem_free(&p);
}
END_TEST

static void add_all(TCase *part) {
    problem_add_stage(part);
    tcase_add_loop_test(part, a_mistake_is_named, 0, 2 * MISTAKES);
    tcase_add_loop_test(part, the_same_call_without_the_mistake, 0, 2);
    tcase_add_loop_test(part, host_tensors_are_not_for_enqueue, 0, 2);
    tcase_add_loop_test(part, buffers_must_fit, 0, 2);
    tcase_add_loop_test(part, splats_must_fit, 0, 2);
}

int main(void) {
    static const suite_part parts[] = {{"errors", add_all}};
    return suite_run("errors", parts, sizeof parts / sizeof *parts);
}
