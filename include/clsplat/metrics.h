/* Metrics: what splats do for a layer, by true definitions, over rows of queries that are looked at.
 *
 * For a row i let p_i(j) be its softmax attention over the keys it sees, g_i(j) its attention through the
 * splats, and r_i(s) the share of that which goes through splat s: Σ_s r_i(s) = 1. Everything is summed over
 * all keys exactly, and averaged over rows that are evenly spaced; cost is linear in the number of tokens.
 * With an estimate comes its error: twice its standard error over the rows plus what is known of its bias; 0
 * where every row was looked at. Logarithms are natural. Joint mixing.
 *
 *     attention_entropy   mean −Σ_j p ln p                  splat_form_entropy   mean −Σ_j g ln g
 *     kullback_leibler    mean Σ_j p ln(p/g)                jensen_shannon       mean ½ KL(p‖m) + ½ KL(g‖m),
 * m = (p+g)/2 use                 u_s = mean r_i(s)                 use_entropy          −Σ_s u ln u
 *     effective_splats    e^use_entropy                     mutual_information   of row and splat: mean
 * KL(r_i ‖ u) leave_one_out       mean −ln(1 − r_i(s)): the Kullback–Leibler divergence of the splats' shares
 * without s from those with it level_share         mean Σ_{s in l} r_i(s)            flow mutual information
 * of the splats of two levels, each level's shares normalised on their own: Σ_st c ln(c / (c_s c_t)), c =
 * mean r^l(s) r^m(t) coverage            of a key: max_s φ_s(k), 0 at the middle of a splat; covered: the
 * share of keys above −2.3
 *
 * Source: Kullback and Leibler 1951; Lin 1991 (Jensen–Shannon). */
#ifndef CLSPLAT_METRICS_H
#define CLSPLAT_METRICS_H

#include <clsplat/attention.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct clsplat_estimate {
    double value, error;
} clsplat_estimate;

/* Of one head of the set. */
typedef struct clsplat_head_metrics {
    double output_error; /* ‖out − softmax‖ / ‖softmax‖ of the rows */
    clsplat_estimate attention_entropy, splat_form_entropy, kullback_leibler, jensen_shannon;
    clsplat_estimate use_entropy, effective_splats, mutual_information;
    double mean_coverage, worst_coverage, covered;
    double *use, *leave_one_out; /* [S] */
    double *level_share;         /* [L] */
    double *flow;                /* [L,L]; on the diagonal 0 */
} clsplat_head_metrics;

typedef struct clsplat_metrics {
    size_t heads, splats, levels;
    size_t rows, pair_rows; /* of each query head; pair_rows for what is summed over pairs of rows and keys */
    clsplat_head_metrics *head; /* [heads] */
} clsplat_metrics;

typedef struct clsplat_measure {
    size_t size;   /* see status.h */
    bool causal;   /* query i sees the keys up to i + (M − N) */
    float scale;   /* of softmax; NaN: 1/sqrt(D) */
    size_t sample; /* 1024; rows of each query head */
    size_t pairs;  /* 32; rows of each query head for the four that need p and g of every key */
} clsplat_measure;
CLSPLAT_DEFAULTS(clsplat_measure)

/* Shapes: q, k, v and, if it is there, key_bias of `tensors` as clsplat_attend has them, in host memory; all
 * must fit the device. Writes: *metrics, for clsplat_metrics_free. Blocks: until done. Threads: one at a time
 * per device. Returns: SHAPE, INVALID, MEMORY, BUILD, OPENCL. */
CLSPLAT_API clsplat_status clsplat_splats_measure_sized(clsplat_device *device,
                                                        const clsplat_measure *measure,
                                                        const clsplat_attention_tensors *tensors,
                                                        clsplat_splats *splats, clsplat_metrics *metrics);
static inline clsplat_status clsplat_splats_measure(clsplat_device *device, clsplat_measure measure,
                                                    clsplat_attention_tensors tensors, clsplat_splats *splats,
                                                    clsplat_metrics *metrics) {
    measure.size = sizeof measure;
    tensors.size = sizeof tensors;
    return clsplat_splats_measure_sized(device, &measure, &tensors, splats, metrics);
}
/* Level weights by measurement, in place: those under which the levels' mean shares of the attention are as
 * `shares` [L] are to each other; or with NULL those that lower the error of the rows, one weight after the
 * other until no step of e^0.03 helps. Of the whole set: weights are those of all heads. One attention of
 * each level's splats is all it takes. Writes: error, unless it is NULL: ‖out − softmax‖ / ‖softmax‖ of the
 * rows before and after. Returns: as above; INVALID for a share that is not above 0. */
CLSPLAT_API clsplat_status clsplat_splats_balance_sized(clsplat_device *device,
                                                        const clsplat_measure *measure,
                                                        const clsplat_attention_tensors *tensors,
                                                        clsplat_splats *splats, const double *shares,
                                                        double error[2]);
static inline clsplat_status clsplat_splats_balance(clsplat_device *device, clsplat_measure measure,
                                                    clsplat_attention_tensors tensors, clsplat_splats *splats,
                                                    const double *shares, double error[2]) {
    measure.size = sizeof measure;
    tensors.size = sizeof tensors;
    return clsplat_splats_balance_sized(device, &measure, &tensors, splats, shares, error);
}

/* Accepts a zeroed struct; zeroes it. */
CLSPLAT_API void clsplat_metrics_free(clsplat_metrics *metrics);

#ifdef __cplusplus
}
#endif
#endif
