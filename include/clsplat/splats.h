/* Splats: the Gaussians that stand between queries and keys.
 *
 * A set holds S splats in L levels, per head or shared by all heads. Amplitude, variance and
 * temperature are logarithms, so that any finite number is valid.
 *
 * A set belongs to a library handle, not to a device: it is on as many devices as it is used on, uploaded on
 * first use there, and again after clsplat_splats_changed.
 *
 * Threads: calls that attend through a set only read it, and may be made at once, each on its own device. One
 * at a time, and no other meanwhile, for what writes it: its parameters, changed, destroy, adapting. */
#ifndef CLSPLAT_SPLATS_H
#define CLSPLAT_SPLATS_H

#include <clsplat/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct clsplat_splats clsplat_splats;

typedef enum clsplat_covariance {
    CLSPLAT_ISOTROPIC, /* log_var [Hs,S,1] */
    CLSPLAT_DIAGONAL,  /* log_var [Hs,S,D] */
    CLSPLAT_FULL       /* precision_chol [Hs,S,D,D]: Σ⁻¹ = L Lᵀ, L lower triangular */
} clsplat_covariance;

typedef struct clsplat_splats_shape {
    clsplat_covariance covariance;
    size_t heads;  /* Hs: 1 (shared by all heads) or H */
    size_t count;  /* S, over all levels */
    size_t dim;    /* D */
    size_t levels; /* L */
} clsplat_splats_shape;

/* A set whose means and logarithms are all 0 (factors: the identity), every splat at level 0.
 * Ownership: *splats is the caller's. Returns: INVALID, MEMORY. */
CLSPLAT_API clsplat_status clsplat_splats_create(clsplat *lib, clsplat_splats_shape shape,
                                                 clsplat_splats **splats);

/* Accepts NULL and a NULL handle; sets *splats to NULL. */
CLSPLAT_API void clsplat_splats_destroy(clsplat_splats **splats);

/* The parameters, to read and to write in place. Ownership: the set's. */
typedef struct clsplat_splats_parameters {
    size_t size; /* see status.h */
    clsplat_splats_shape shape;
    float *mean;                    /* [Hs,S,D] */
    float *log_var;                 /* [Hs,S,1] or [Hs,S,D]; NULL when full */
    float *precision_chol;          /* [Hs,S,D,D]; NULL unless full; above the diagonal ignored */
    float *log_amplitude;           /* [Hs,S] */
    float *log_temperature;         /* [Hs,S] */
    int32_t *level;                 /* [S], 0-based, in any order; a level may be empty */
    float *level_log_weight;        /* [L], need not be normalised */
    const char *const *level_names; /* [L], e.g. "Token"; never NULL */
} clsplat_splats_parameters;
CLSPLAT_API void clsplat_splats_get_sized(clsplat_splats *splats, clsplat_splats_parameters *parameters);
static inline clsplat_splats_parameters clsplat_splats_get(clsplat_splats *splats) {
    clsplat_splats_parameters parameters;
    parameters.size = sizeof parameters;
    clsplat_splats_get_sized(splats, &parameters);
    return parameters;
}

/* To be called after writing to the parameters; checks them.
 * Returns: INVALID, naming the first tensor and place that is not finite or out of range. */
CLSPLAT_API clsplat_status clsplat_splats_changed(clsplat_splats *splats);

/* Returns: INVALID if a name is NULL or empty, MEMORY. */
CLSPLAT_API clsplat_status clsplat_splats_set_level_name(clsplat_splats *splats, size_t level,
                                                         const char *name);

/* safetensors, tensors named as the parameters above; metadata carries format "clsplat", a
 * format_version and the level names. Loading takes files without metadata too.
 *
 * Saving replaces the file in one step, or leaves what was there.
 * Returns: IO, FORMAT (naming file, tensor and what is wrong), UNSUPPORTED (a newer version), MEMORY. */
CLSPLAT_API clsplat_status clsplat_splats_load(clsplat *lib, const char *path, clsplat_splats **splats);
CLSPLAT_API clsplat_status clsplat_splats_save(clsplat_splats *splats, const char *path);

/* What a compact file loses at most: of a mean in widths of its splat, of ln Σ (of a factor's number, over
 * its row's diagonal), of ln a and of ln τ. */
typedef struct clsplat_splats_loss {
    size_t size; /* see status.h */
    double mean, covariance, log_amplitude, log_temperature;
} clsplat_splats_loss;

/* A file of 16 or 8 bits a number, which clsplat_splats_load reads like any other. Writes: *loss unless it is
 * NULL. Returns: as clsplat_splats_save; INVALID for other bits. */
CLSPLAT_API clsplat_status clsplat_splats_save_compact_sized(clsplat_splats *splats, const char *path,
                                                             unsigned bits, clsplat_splats_loss *loss);
static inline clsplat_status clsplat_splats_save_compact(clsplat_splats *splats, const char *path,
                                                         unsigned bits, clsplat_splats_loss *loss) {
    if (loss)
        loss->size = sizeof *loss;
    return clsplat_splats_save_compact_sized(splats, path, bits, loss);
}

/* A file of the splats that differ from the base's, without loss; and a set of both. The file is read with
 * the base that it was made for, to the bit, and with no other. Returns: as save and load; INVALID for
 * another base. */
CLSPLAT_API clsplat_status clsplat_splats_save_delta(clsplat_splats *splats, clsplat_splats *base,
                                                     const char *path);
CLSPLAT_API clsplat_status clsplat_splats_load_delta(clsplat *lib, const char *path, clsplat_splats *base,
                                                     clsplat_splats **splats);

/* Levels of a set, finest first, as in the original system's configuration:
 *     {"hierarchy": {"levels": ["Token", …], "init_splats_per_level": [100, …], "level_weights": [0.4, …]}}
 * Keys may also stand at the top level. Weights are positive and are normalised to a sum of 1. */
typedef struct clsplat_hierarchy {
    size_t levels;
    char **names;    /* [levels] */
    size_t *counts;  /* [levels] */
    double *weights; /* [levels], sum 1 */
} clsplat_hierarchy;

/* Token 100, Phrase 50, Section 20, Document 5, weights 0.4, 0.3, 0.2, 0.1. Returns: MEMORY. */
CLSPLAT_API clsplat_status clsplat_hierarchy_default(clsplat *lib, clsplat_hierarchy *hierarchy);
/* Returns: IO, FORMAT (naming the file and the key), MEMORY. Unknown keys are ignored. */
CLSPLAT_API clsplat_status clsplat_hierarchy_load(clsplat *lib, const char *path,
                                                  clsplat_hierarchy *hierarchy);
/* Hierarchies by name, those of the original system. Returns: NULL beyond the last. Threads: any. */
typedef struct clsplat_preset {
    const char *name, *purpose;
    size_t levels, sparse_topk;
} clsplat_preset;
CLSPLAT_API const clsplat_preset *clsplat_preset_at(size_t index);
/* For so many tokens: long_context has more splats for more of them, and no level has more than there are; 0:
 * not known. Returns: INVALID (naming the presets there are), MEMORY. */
CLSPLAT_API clsplat_status clsplat_hierarchy_preset(clsplat *lib, const char *name, size_t tokens,
                                                    clsplat_hierarchy *hierarchy);
/* Ownership: frees what those above allocated, and zeroes the struct. Accepts a zeroed struct. */
CLSPLAT_API void clsplat_hierarchy_free(clsplat_hierarchy *hierarchy);

typedef enum clsplat_init_method {
    CLSPLAT_INIT_RANDOM,     /* means are tokens drawn without replacement */
    CLSPLAT_INIT_KMEANS,     /* k-means++ and Lloyd steps */
    CLSPLAT_INIT_PCA,        /* means at quantiles along the principal axes */
    CLSPLAT_INIT_SPECTRAL,   /* clusters of the normalised affinity graph of a landmark sample */
    CLSPLAT_INIT_TOKEN_AWARE /* half from salient tokens (high norm or rare direction), half k-means */
} clsplat_init_method;

typedef enum clsplat_match {
    CLSPLAT_MATCH_TOKENS, /* variances and amplitudes are those of a splat's queries and keys */
    CLSPLAT_MATCH_SOFTMAX /* they make A_ij follow exp(q·k / √D), as a pretrained layer expects: every
                             variance is √D and ln a = |μ|² / (2√D), for clusters of the keys. Then a splat at
                             a key, e^(|k|²/2√D − |q−k|²/2√D − 0) = e^(q·k/√D) e^(−|q|²/2√D), has that key's
                             exact weight up to a factor of the query alone; other splats nearby blur it */
} clsplat_match;

typedef struct clsplat_init {
    size_t size;                        /* see status.h */
    clsplat_init_method method;         /* KMEANS */
    clsplat_covariance covariance;      /* DIAGONAL */
    const clsplat_hierarchy *hierarchy; /* NULL: clsplat_hierarchy_default */
    bool shared;                        /* one set for all heads; false */
    uint64_t seed;                      /* 0 */
    unsigned lloyd_steps;               /* 10 */
    clsplat_match match;                /* TOKENS */
    size_t sample;                      /* tokens looked at per head, drawn with the seed; 65536 */
    float variance_scale;               /* factor on every variance; 1 */
    clsplat_progress *progress;         /* NULL: none */
    void *progress_user;
} clsplat_init;
CLSPLAT_DEFAULTS(clsplat_init)

/* Splats from data: the tokens of head h are its queries and the keys of its key head together,
 * over the batch. The distances, assignments and moments are computed on the device; every draw comes from
 * the seed, so the same data, seed and device give the same bits. Variances are those of a splat's tokens,
 * with a floor that keeps splats of one token from collapsing; amplitudes are the logarithm of the share of
 * tokens.
 *
 * Shapes: q [B,H,N,D], k [B,Hk,M,D] in host memory; q may be absent: then H = Hk.
 * Ownership: *splats is the caller's. Blocks: until done.
 * Returns: SHAPE, INVALID (more splats than tokens, numbers that are not finite), UNSUPPORTED (PCA or
 * SPECTRAL in a build without LAPACKE), MEMORY, BUILD, OPENCL, CANCELLED. Source: Arthur and Vassilvitskii
 * 2007 (k-means++); Ng, Jordan and Weiss 2001 (spectral). */
CLSPLAT_API clsplat_status clsplat_splats_init_sized(clsplat_device *device, const clsplat_init *init,
                                                     clsplat_tensor q, clsplat_tensor k,
                                                     clsplat_splats **splats);
static inline clsplat_status clsplat_splats_init(clsplat_device *device, clsplat_init init, clsplat_tensor q,
                                                 clsplat_tensor k, clsplat_splats **splats) {
    init.size = sizeof init;
    return clsplat_splats_init_sized(device, &init, q, k, splats);
}

#ifdef __cplusplus
}
#endif
#endif
