/* The float64 reference of every operation, straight from its definition: simple, slow, obviously right.
 *
 * Arrays are dense, row-major and double; exponentials are taken only after the largest logarithm was
 * subtracted. */
#ifndef CLSPLAT_TESTS_NAIVE_H
#define CLSPLAT_TESTS_NAIVE_H

#include <clsplat/attention.h>

typedef struct naive_shape {
    size_t batch, heads, kv_heads, queries, keys, dim, value_dim; /* B, H, Hk, N, M, D, Dv */
} naive_shape;

typedef struct naive_tensors {
    naive_shape shape;
    bool causal;             /* query i sees key j if j ≤ i + (M − N) */
    const double *q, *k, *v; /* [B,H,N,D] [B,Hk,M,D] [B,Hk,M,Dv] */
    const double *key_bias;  /* [B,Hk,M]; NULL: 0 */
    double *out, *lse;       /* [B,H,N,Dv] [B,H,N] */
    double *largest; /* NULL, or the largest |lse| of any row, or any level of it, joins what is there */
    double cap;      /* of products: cap tanh(scale q·k / cap); 0: none */
    size_t window;   /* of the keys that a query sees the last so many; 0: all */
} naive_tensors;

/* out_i = Σ_j e^(l_ij) v_j / Σ_j e^(l_ij), l_ij = cap(scale q_i·k_j) + b_j, lse_i = ln Σ_j e^(l_ij). */
void naive_softmax(const naive_tensors *t, double scale);

/* The same over the `keep` keys of the largest l_ij, or the keep / block blocks of the largest means, the
 * last visible key's among them; only out is written. */
void naive_topk(const naive_tensors *t, double scale, size_t keep, size_t block);

/* A_ij = Σ_s w a_s e^(φ_s(q_i) + φ_s(k_j) + b_j), term by term: O(N M S). Per level: each level on its own.
 */
void naive_gaussian(const naive_tensors *t, const clsplat_splats_parameters *splats, clsplat_mixing mixing);

/* Gradients of Σ out · dout by everything; all but dout are added to, and NULL is left out. `activity` is the
 * sum of the magnitudes of what the log-weights receive before they cancel, `steepness` the largest
 * derivative of a log-weight by a number that the gradients are for: together what rounding is measured by
 * where a gradient is 0. */
typedef struct naive_gradients {
    const double *dout;               /* [B,H,N,Dv] */
    double *dq, *dk, *dv, *dkey_bias; /* as what they are of */
    double *mean, *width;             /* width: of log_var, or of precision_chol */
    double *amplitude, *temperature;  /* of the logarithms */
    double *level;                    /* of level_log_weight */
    double activity, steepness;
} naive_gradients;

/* p_ij = e^(l_ij − lse_i); l_ij receives p_ij (dout_i·v_j − dout_i·out_i). t->out and t->lse are
 * naive_softmax's. */
void naive_softmax_backward(const naive_tensors *t, double scale, naive_gradients *g);

/* Of every weight w a_s e^(φ_s(q_i)+φ_s(k_j)+b_j), one by one: O(N M S). */
void naive_gaussian_backward(const naive_tensors *t, const clsplat_splats_parameters *splats,
                             clsplat_mixing mixing, naive_gradients *g);

/* φ_s(x) = −½ (x − μ_s)ᵀ Σ_s⁻¹ (x − μ_s) / τ_s for splat s of the splats' head `head`. */
double naive_log_density(const clsplat_splats_parameters *splats, size_t head, size_t s, const double *x);

/* What splat s of head `head` knows of keys 0 … count−1: lse = ln Σ_j e^(φ_s(k_j) + b_j) and value [Dv], the
 * mean of v with those weights. No visible key: −inf and 0. */
typedef struct naive_keys {
    size_t count, dim, value_dim;
    const double *k, *v, *key_bias;
} naive_keys;
double naive_write(const clsplat_splats_parameters *splats, size_t head, size_t s, const naive_keys *keys,
                   double *value);

/* One query's output [Dv] from the states of all splats, lse [S] and value [S,Dv]. Returns: its lse. */
double naive_read(const clsplat_splats_parameters *splats, size_t head, clsplat_mixing mixing,
                  const double *q, const double *lse, const double *value, size_t value_dim, double *out);

/* c = a bᵀ. Shapes: a [rows,depth], b [columns,depth], c [rows,columns]. */
void naive_gemm(size_t rows, size_t columns, size_t depth, const double *a, const double *b, double *c);

/* out = weight · x / √(mean x² + ε). Shapes: x, weight, out [columns]. */
void naive_norm(size_t columns, double epsilon, const double *x, const double *weight, double *out);
/* out = weight · (x − mean x) / √(var x + ε) + shift. Shapes: all [columns]. */
void naive_layer_norm(size_t columns, double epsilon, const double *x, const double *weight,
                      const double *shift, double *out);

/* The pairs (x_d, x_{d+dim/2}) turned by position · frequencies[d], times the factor. Shapes: frequencies
 * [dim/2], x, out [dim], which may not overlap. */
void naive_rope(size_t dim, double position, const double *frequencies, double factor, const double *x,
                double *out);

/* f(x), by the names of op_activation. */
typedef enum naive_activation {
    NAIVE_IDENTITY,
    NAIVE_SILU,
    NAIVE_GELU,
    NAIVE_GELU_TANH,
    NAIVE_RELU,
    NAIVE_TANH,
    NAIVE_SOFT_CAP
} naive_activation;
double naive_activate(naive_activation f, double cap, double x);

/* Returns: ln of the probability of `target`; *greedy: whether it is the first of the largest logits. */
double naive_score(size_t count, const double *logits, size_t target, bool *greedy);

/* Of a row and one that it imitates: |x − goal|² / |goal|², and Σ p (ln p − ln q) of the goal's softmax p and
 * x's q. */
double naive_relative_error(size_t count, const double *x, const double *goal);
double naive_divergence(size_t count, const double *x, const double *goal);

/* The probability with which every token is drawn. Shapes: logits [count], probability [2·count], of which
 * the second half is for the function's own use. */
typedef struct naive_sampling {
    double temperature; /* above 0 */
    size_t top_k;       /* 0: all; ties with the last are kept */
    double top_p;
} naive_sampling;
void naive_sample(size_t count, const double *logits, const naive_sampling *sampling, double *probability);

/* Near-far attention on one head's forest as it has been gathered, in which order is not asked: slots of keys
 * [slots,D], values [slots,Dv] and biases [slots], −inf where there is no key. Levels as in op_forest. */
typedef struct naive_forest {
    size_t dim, value_dim, leaf, chunk, top, levels, slots;
    const double *keys, *values, *biases; /* of the slots, and of the keys that stand apart after them */
    const double *covariances;            /* naive_covariances, for naive_near_far */
} naive_forest;
typedef struct naive_node {
    double log_mass, spread, count;
    double reach;                    /* its farthest key from the mean, over the root of the mean square */
    double *mean, *variance, *value; /* [D], [D], [Dv] */
} naive_node;
naive_node naive_node_create(const naive_forest *forest);
void naive_node_free(naive_node *node);
size_t naive_node_size(const naive_forest *forest, size_t level);
void naive_node_of(const naive_forest *forest, size_t level, size_t g, naive_node *node);
/* How values follow keys in the leaves, per slope: [runs][dim][value_dim], the run r for the first r + 1 runs
 * of NAIVE_RUN chunks. To be freed. */
enum { NAIVE_RUN = 4 };
double *naive_covariances(const naive_forest *forest);

/* What a row decides by (OP_KEPT in src/op/op.h), and what it decided: [nodes of all levels], as
 * naive_far_index counts them. */
typedef struct naive_far_judge {
    double mass, inverse_size, accepted;
    unsigned char *opened;
    double margin; /* the least difference from a limit, as a factor above 1 */
} naive_far_judge;
size_t naive_far_index(const naive_forest *forest, size_t level, size_t g);

/* A row: its scaled query, the keys of its own chunk that it sees, the chunks before. */
typedef struct naive_far_row {
    const double *q;
    size_t own;
    const double *k, *v, *bias;  /* of the own keys; bias may be NULL */
    size_t past, keys;           /* chunks before; keys of the sequence that are theirs */
    size_t apart;                /* keys that stand apart before the own chunk */
    bool rest;                   /* not causal: the last node of the highest level may be a part of one */
    bool open;                   /* everything, or nothing */
    naive_far_judge *judge;      /* decides instead, if not NULL */
    const unsigned char *opened; /* what it decided, if not NULL */
} naive_far_row;
typedef struct naive_far {
    double lse;
    double *out; /* [Dv] */
    size_t exact;
} naive_far;
void naive_near_far(const naive_forest *forest, const naive_far_row *row, naive_far *far);

/* Whether a row opens the node: l[0], its log-weight, of which l[1] comes from the variance l[2] of its
 * logits. By the functions of cl/tree/near_far.clh, so that a change there is a change here. */
bool naive_far_opens(const naive_forest *forest, naive_far_judge *judge, size_t level, const naive_node *node,
                     const double l[3]);

/* A state: the logarithm of a sum of weights, and the weighted mean of values of `width` numbers. Starts as
 * (−inf, 0) with naive_state_clear. */
typedef struct naive_state {
    double lse;
    double *value;
    size_t width;
} naive_state;
void naive_state_clear(naive_state *state);
/* Σ over `count` sources with log-weights l [count] and values v [count,width]. */
void naive_state_of(naive_state *state, size_t count, const double *l, const double *v);
/* Levels of states mixed by `log_weight` [levels]; those whose lse is −inf take no share. */
void naive_mix(naive_state *mixed, size_t levels, const double *log_weight, const double *lse,
               const double *value);

#endif
