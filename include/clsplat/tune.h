/* Tuning: which variant of each operation, with which parameters, is the fastest on a device.
 *
 * What is found is kept for the user, in $XDG_DATA_HOME/clsplat/tuning.txt or
 * ~/.local/share/clsplat/tuning.txt, and used from then on by every program: by the attention calls of this
 * device handle at once. Without tuning they use the record of the nearest device and shape, or a default;
 * they never wait for tuning.
 *
 * A candidate is compared with the plain variant before it is timed, in buffers with guards around them; one
 * that brings down the process or the machine is not tried again. */
#ifndef CLSPLAT_TUNE_H
#define CLSPLAT_TUNE_H

#include <clsplat/splats.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Between two candidates. Ownership: the library's, for the duration of the call. */
typedef struct clsplat_tune_step {
    const char *op;         /* "softmax causal" */
    const char *best;       /* "wide TILE=128 RT=4 LANES=4"; "" before the first is timed */
    double best_seconds;    /* INFINITY before */
    double first_seconds;   /* of what was known, or the default */
    size_t tried, rejected; /* candidates of this operation */
    double done;            /* of the whole call, 0 to 1 */
    bool finished;          /* this operation */
} clsplat_tune_step;

/* Returning false stops the call with CANCELLED; what was found until then is kept. */
typedef bool clsplat_tune_progress(void *user, const clsplat_tune_step *step);

typedef struct clsplat_tune_options {
    size_t size;    /* see status.h */
    const char *op; /* "softmax", "gaussian" (diagonal splats), "gaussian-isotropic", "gaussian-full",
                       "near-far", "gemm"; NULL: all */
    size_t batch, heads, queries, keys, dim, value_dim, splats; /* 1, 4, 4096, 4096, 64, 64, 256; gemm:
        products of queries × dim by keys × dim numbers */
    clsplat_dtype dtype;                                        /* of everything but lse and states; F32 */
    double seconds;                  /* about, for all operations together; INFINITY: every candidate; 60 */
    clsplat_tune_progress *progress; /* NULL: none */
    void *progress_user;
} clsplat_tune_options;
CLSPLAT_DEFAULTS(clsplat_tune_options)

/* No launch takes much longer than a quarter of a second: the shape is cut down until the default is well
 * below. Blocks: until done. Returns: INVALID, IO (no place to keep the records, or another process tunes),
 * MEMORY, BUILD, OPENCL, CANCELLED. */
CLSPLAT_API clsplat_status clsplat_tune_sized(clsplat_device *device, const clsplat_tune_options *options);
static inline clsplat_status clsplat_tune(clsplat_device *device, clsplat_tune_options options) {
    options.size = sizeof options;
    return clsplat_tune_sized(device, &options);
}

/* The user's records as a file, and records of a file among the user's: those that are new, or faster than
 * the one for the same use. Returns: IO, MEMORY. */
CLSPLAT_API clsplat_status clsplat_tune_export(clsplat *lib, const char *path);
CLSPLAT_API clsplat_status clsplat_tune_import(clsplat *lib, const char *path);

#ifdef __cplusplus
}
#endif
#endif
