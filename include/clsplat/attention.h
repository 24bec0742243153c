/* Attention: exact softmax attention, the same with an error that the caller chooses, and attention through
 * Gaussian splats in linear cost.
 *
 * Shapes: q [B,H,N,D], k [B,Hk,M,D], v [B,Hk,M,Dv], key_bias [B,Hk,M,1], out [B,H,N,Dv],
 * lse [B,H,N,1]. H is a multiple of Hk; query head h uses key head h / (H / Hk). D and Dv from 1 to
 * 1024; N and M at least 1. Inputs have any storage type each; out and lse too.
 *
 * softmax
 *     out_i = Σ_j exp(l_ij) v_j / Σ_j exp(l_ij)      l_ij = scale q_i·k_j + b_j
 *     lse_i = ln Σ_j exp(l_ij)
 *
 * window, softmax attention over the last `window` of the keys that a query sees, its own included; causal
 *
 * near and far, softmax attention that is exact where it matters
 *     The keys of every completed chunk of `chunk` keys are gathered into a balanced tree. A node far away
 * stands for all its keys: their number, mean, spread and mean value. Each row opens the nodes that would
 *     otherwise make its out err by more than `tolerance`, down to the keys themselves, and takes its own
 *     unfinished chunk exactly. Tolerance 0 is softmax attention, an infinite one opens nothing. lse errs
 *     as out does. error_estimate is the error of each row, ‖out − softmax‖ / ‖softmax‖, as the row expects
 * it.
 *
 * splats
 *     φ_s(x) = −½ (x − μ_s)ᵀ Σ_s⁻¹ (x − μ_s) / τ_s
 *     A_ij   = Σ_s w_level(s) a_s exp(φ_s(q_i) + φ_s(k_j) + b_j)
 *     out_i  = Σ_j A_ij v_j / Σ_j A_ij               lse_i = ln Σ_j A_ij
 *   computed without any N×M matrix, since each splat's term is a factor of i times a factor of j.
 *   Per-level mixing normalises every level on its own and mixes the outputs by the level weights.
 *
 * Everything stays in the log domain. A row with no visible key, or only keys of bias −inf, has
 * out 0 and lse −inf. What k and v hold at a key of bias −inf does not matter, as long as it is
 * finite. A NaN in q stays in its own row. With `causal`, query i sees the keys j ≤ i + (M − N), and
 * changing a later key leaves an earlier row's out and lse bitwise as they were. The same inputs on the same
 * device give the same bits every time.
 *
 * Source: Vaswani et al. 2017 (arXiv 1706.03762) for softmax attention; Milakov and Gimelshein 2018
 * (arXiv 1805.02867) for the running maximum; the separable form of the Gaussian is in src/op/op.h. */
#ifndef CLSPLAT_ATTENTION_H
#define CLSPLAT_ATTENTION_H

#include <clsplat/splats.h>
#include <clsplat/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum clsplat_mixing {
    CLSPLAT_JOINT,    /* all levels under one normaliser */
    CLSPLAT_PER_LEVEL /* each level normalised alone; level weights are shares */
} clsplat_mixing;

typedef enum clsplat_method {
    CLSPLAT_SOFTMAX,
    CLSPLAT_SPLATS,
    CLSPLAT_NEAR_FAR,
    CLSPLAT_WINDOW
} clsplat_method;

/* What the chunk of near and far may be, and the least sparse_topk. */
enum { CLSPLAT_CHUNK_LEAST = 16, CLSPLAT_CHUNK_MOST = 4096 };

typedef struct clsplat_attention {
    size_t size; /* see status.h */
    clsplat_method method;
    clsplat_splats *splats; /* splats only, otherwise NULL */
    clsplat_mixing mixing;  /* splats only */
    bool causal;
    float scale;        /* all but splats; NaN: 1/sqrt(D) */
    size_t window;      /* window only: keys, 1 and more */
    float tolerance;    /* near and far only, like all down to the progress; 0 and more, INFINITY too */
    size_t sparse_topk; /* the most keys a row attends to exactly, its own chunk's included; 0: no limit */
    size_t chunk;       /* a power of two within these limits, at most sparse_topk; 0: the library's choice */
    clsplat_progress *progress; /* for tensors in host memory; NULL: none */
    void *progress_user;
    const char *variant; /* kernels of this name where they fit: "plain"; NULL: as tuned for the device */
} clsplat_attention;

/* Softmax attention, joint mixing, not causal, scale 1/sqrt(D); should it become near and far, tolerance
 * 0.02, or of a window, 512 keys. */
CLSPLAT_DEFAULTS(clsplat_attention)

typedef struct clsplat_attention_tensors {
    size_t size; /* see status.h */
    clsplat_tensor q, k, v;
    clsplat_tensor key_bias; /* may be absent: 0 for every key */
    clsplat_tensor out;
    clsplat_tensor lse;            /* may be absent */
    clsplat_tensor exact_keys;     /* [B,H,N,1], I32; near and far only; may be absent */
    clsplat_tensor error_estimate; /* [B,H,N,1]; near and far only; may be absent */
} clsplat_attention_tensors;

/* All tensors in host memory. Inputs and outputs go through device blocks of bounded size, so a
 * problem larger than one allocation of the device, or than its memory, is cut, not refused.
 *
 * Writes: out, lse. Blocks: until they are complete. Returns: SHAPE, INVALID, MEMORY, BUILD, OPENCL,
 * CANCELLED (out and lse then hold anything). */
CLSPLAT_API clsplat_status clsplat_attend_sized(clsplat_device *device, const clsplat_attention *attention,
                                                const clsplat_attention_tensors *tensors);
static inline clsplat_status clsplat_attend(clsplat_device *device, clsplat_attention attention,
                                            clsplat_attention_tensors tensors) {
    attention.size = sizeof attention;
    tensors.size = sizeof tensors;
    return clsplat_attend_sized(device, &attention, &tensors);
}

/* All tensors in buffers of the device's context. Enqueues and returns; does not block, except that the
 * first call for new shapes and types builds programs, and the first with new or changed splats uploads them.
 *
 * Starts after the events of wait_list (count may be 0); *event, if event is not NULL, is the
 * caller's to release and completes when out and lse are written. Calls through one device handle
 * run in the order they were made, also on an out-of-order queue, since they share workspaces.
 *
 * Returns: SHAPE, INVALID, MEMORY, BUILD, OPENCL. After a failure earlier commands of the same call
 * may still run and write out and lse. */
CLSPLAT_API clsplat_status clsplat_attend_enqueue_sized(clsplat_device *device,
                                                        const clsplat_attention *attention,
                                                        const clsplat_attention_tensors *tensors,
                                                        cl_uint wait_count, const cl_event *wait_list,
                                                        cl_event *event);
static inline clsplat_status clsplat_attend_enqueue(clsplat_device *device, clsplat_attention attention,
                                                    clsplat_attention_tensors tensors, cl_uint wait_count,
                                                    const cl_event *wait_list, cl_event *event) {
    attention.size = sizeof attention;
    tensors.size = sizeof tensors;
    return clsplat_attend_enqueue_sized(device, &attention, &tensors, wait_count, wait_list, event);
}

/* What a splat set's parameters receive, in host memory, each of the shape of the parameter
 * (clsplat_splats_parameters); NULL: not wanted. */
typedef struct clsplat_splats_gradient {
    float *mean;
    float *log_var;        /* isotropic: summed over the dimensions */
    float *precision_chol; /* 0 above the diagonal */
    float *log_amplitude;  /* the sum over a head's splats is 0: only ratios matter */
    float *log_temperature;
    float *level_log_weight;
} clsplat_splats_gradient;

typedef struct clsplat_attention_gradients {
    size_t size;                    /* see status.h */
    clsplat_tensor dout;            /* in: the gradient of some loss by out, of out's shape */
    clsplat_tensor dq, dk, dv;      /* out: of the shapes of q, k and v */
    clsplat_tensor dkey_bias;       /* out: [B,Hk,M,1]; may be absent, also where there is a key_bias */
    clsplat_splats_gradient splats; /* out: method splats only; it grows with this struct */
} clsplat_attention_gradients;

/* The gradients of Σ out · dout by every input, summed over whatever shares it: dk, dv and dkey_bias over the
 * query heads of a group, those of a splat over the batch, and over the heads if they share the set.
 * `tensors` are those of a call of clsplat_attend, with the out and the lse that it wrote; lse itself
 * receives nothing.
 *
 *     p_ij = e^(l_ij − lse_i)     δ_i = dout_i·out_i     l_ij receives p_ij (dout_i·v_j − δ_i), v_j Σ_i p_ij
 * dout_i
 *
 * for softmax; with splats the same for the weight of every pair and splat (src/op/backward.h), in the same
 * linear cost as forward. Near and far is differentiated as it is computed, its trees and what a row opens
 * held constant: through opened keys, and through the mass, mean, variance and mean value of closed nodes to
 * theirs; rows walk again, and out and lse are not read. Its kernels are the plain ones, and slower than
 * softmax's. Weights are computed again and not kept: beyond the tensors, the device needs O(N + S·Dv)
 * numbers a head and workspaces of bounded size. A row without a visible key adds nothing, and at a key of
 * bias −inf dk, dv and dkey_bias are 0. The same inputs on the same device give the same bits every time.
 *
 * Shapes: all tensors in host memory; gradients in any storage type, summed in float32, and of splats put
 * together in float64. Problems larger than the device are cut along batch and key heads; what one key head
 * and its query heads need must fit. Writes: what is not absent in `gradients`, but for dout. Blocks: until
 * it is complete. Threads: one at a time per device. Returns: SHAPE, INVALID, UNSUPPORTED (near and far on a
 * device that ends long loops), MEMORY, BUILD, OPENCL, CANCELLED (the gradients then hold anything). Source:
 * Dao et al. 2022 (arXiv 2205.14135), appendix B.2, for softmax. */
CLSPLAT_API clsplat_status clsplat_attend_backward_sized(clsplat_device *device,
                                                         const clsplat_attention *attention,
                                                         const clsplat_attention_tensors *tensors,
                                                         const clsplat_attention_gradients *gradients);
static inline clsplat_status clsplat_attend_backward(clsplat_device *device, clsplat_attention attention,
                                                     clsplat_attention_tensors tensors,
                                                     clsplat_attention_gradients gradients) {
    attention.size = sizeof attention;
    tensors.size = sizeof tensors;
    gradients.size = sizeof gradients;
    return clsplat_attend_backward_sized(device, &attention, &tensors, &gradients);
}

#ifdef __cplusplus
}
#endif
#endif
