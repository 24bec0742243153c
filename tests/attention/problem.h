/* An attention to compute and what must come out: random tensors from a seed, laid out with NaN all around
 * them, and the float64 reference of what they hold as stored. */
#ifndef CLSPLAT_TESTS_PROBLEM_H
#define CLSPLAT_TESTS_PROBLEM_H

#include "naive/naive.h"
#include "suite.h"

typedef enum problem_bias {
    BIAS_NONE,
    BIAS_RANDOM,
    BIAS_HOLES, /* every third key is padding */
    BIAS_FRONT, /* the first half of the keys is padding */
    BIAS_ALL    /* of the last batch entry, every key is padding */
} problem_bias;

typedef enum problem_data {
    DATA_PLAIN,
    DATA_FAR,       /* tokens, and means, around ±60 */
    DATA_IDENTICAL, /* one token again and again */
    DATA_LOUD,      /* softmax logits up to 10⁴, of integers, so that float32 holds them exactly */
    DATA_DOMINANT,  /* one key in the middle outweighs all by e^10000 */
    DATA_NARROW,    /* splats 5 to 15 of their widths from their centre, each with tokens of its own */
    DATA_EXTREME    /* log_var down to −8, log_amplitude ±40, temperatures ±3, level weights ±30 */
} problem_data;

typedef enum problem_layout {
    LAYOUT_DENSE, /* [batch, head, row, column] */
    LAYOUT_TOKENS /* [batch, row, head, column], as layers have it, with a gap behind every row */
} problem_layout;

/* One row of a table of cases. Numbers left 0: 1 batch entry, 1 head, as many key heads as heads, 1 level,
 * the library's scale. */
typedef struct problem_spec {
    suite_tier tier;
    size_t batch, heads, kv_heads, queries, keys, dim, value_dim;
    bool causal;
    float scale;
    problem_bias bias;
    problem_data data;
    problem_layout layout;
    clsplat_dtype q, k, v, key_bias, out, lse;
    bool near_far; /* and its parameters; tolerance 0 must give softmax attention */
    float tolerance;
    size_t sparse_topk, chunk;
    size_t window;         /* of so many keys; 0: none */
    size_t splats, levels; /* no splats: softmax */
    bool shared;
    clsplat_covariance covariance;
    clsplat_mixing mixing;
    const char *variant;
} problem_spec;

/* A tensor inside an allocation whose other elements are NaN. */
typedef struct problem_tensor {
    clsplat_tensor view; /* view.host points behind the guard in front */
    void *bytes;
    size_t elements; /* of the whole allocation */
} problem_tensor;

enum { PROBLEM_Q, PROBLEM_K, PROBLEM_V, PROBLEM_BIAS, PROBLEM_OUT, PROBLEM_LSE, PROBLEM_TENSORS };

typedef struct problem {
    problem_spec spec;
    clsplat *lib;
    clsplat_attention attention;
    problem_tensor tensors[PROBLEM_TENSORS];
    clsplat_splats *splats;
    naive_tensors reference; /* out and lse: [B,H,N,Dv] and [B,H,N] */
    double largest;          /* |lse| of a row, or of one level of it, in the reference */
} problem;

problem problem_create(clsplat *lib, const problem_spec *spec, uint64_t seed);
void problem_free(problem *p);

/* The case in words, for messages. */
void problem_describe(const problem_spec *spec, char *words, size_t room);

/* Poisons out and lse, and computes them from tensors in host memory, or in buffers of the device's context.
 */
clsplat_status problem_attend(problem *p, clsplat_device *device);
clsplat_status problem_attend_buffers(problem *p, clsplat_device *device);

/* Computes the reference, from the inputs as they are now. */
void problem_expect(problem *p);
/* Fails unless out and lse are the reference's, and nothing around them was written. */
void problem_check(const problem *p);
/* Both, after problem_attend. */
void problem_solve(problem *p, clsplat_device *device);

/* The place of [b,h,row,column] in the allocation of a tensor. */
size_t problem_place(const problem_tensor *t, size_t b, size_t h, size_t row, size_t column);
double problem_get(const problem_tensor *t, size_t b, size_t h, size_t row, size_t column);
void problem_set(problem_tensor *t, size_t b, size_t h, size_t row, size_t column, double value);

/* A tensor of poison, to be freed by its `bytes`: every byte 0xFF, a NaN in each of the three types. */
problem_tensor problem_tensor_of(clsplat_dtype dtype, problem_layout layout, const size_t shape[4]);
void problem_poison(problem_tensor *t);
/* A tensor as dense doubles, to be freed; NULL if absent. */
double *problem_dense(const problem_tensor *t);
/* How many bytes of the allocation that are not the tensor's are no longer poison. */
size_t problem_spoilt(const problem_tensor *t);

/* The tensors as clsplat_attend takes them. */
clsplat_attention_tensors problem_views(const problem *p);
size_t problem_bytes(const problem_tensor *t);

/* Adds a test for every row of the table up to the tier that is wanted. */
void problem_add_cases(TCase *part, const TTest *test, const problem_spec *cases, size_t count);

/* The device that all tests of a part share (a Check fixture opens it), and its library. */
typedef struct problem_stage {
    clsplat *lib;
    clsplat_device *device;
} problem_stage;
void problem_add_stage(TCase *part);
problem_stage problem_on_stage(void);

/* A problem of its own on the stage: solved, and right; also by each row for matrix units, where the device
 * has it. */
void problem_solve_here(const problem_spec *spec, uint64_t seed);
void problem_solve_by_matrix_rows(const problem_spec *spec, uint64_t seed);

#endif
