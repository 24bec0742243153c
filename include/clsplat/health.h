/* Health: what can go wrong with splats, found on a layer's tokens and mended.
 *
 *     not finite    a number of the splat is NaN or infinite                        mended: born again
 *     collapsed     100 times narrower than the middle one of its head's splats     mended: made as wide as
 * that exploding     100 times wider                                                 mended: the same dead no
 * row that is looked at gives it a share above e^−200          mended: born again duplicate     one that is
 * another's twin (Bhattacharyya distance below 1e−9)  mended: its mass goes to the twin, and it is born again
 *     far away      10 widths a dimension, or more, from every key and query        mended: born again
 *     one level     a level of several has all but a millionth of the attention     mended: by the levels'
 * weights oscillating   the errors of an adaptation's cycles rise and fall in turns     mended: by half the
 * rate (the caller's)
 *
 * Born again is a splat at the key that is covered worst, like the healthy one that is nearest. The score is
 * 1 for healthy sets; it falls by the share of splats that something is wrong with, by half the share of
 * heads where a level has it all, and by a quarter for oscillation. */
#ifndef CLSPLAT_HEALTH_H
#define CLSPLAT_HEALTH_H

#include <clsplat/metrics.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum clsplat_failure {
    CLSPLAT_FAILURE_NOT_FINITE,
    CLSPLAT_FAILURE_COLLAPSED,
    CLSPLAT_FAILURE_EXPLODING,
    CLSPLAT_FAILURE_DEAD,
    CLSPLAT_FAILURE_DUPLICATE,
    CLSPLAT_FAILURE_FAR_AWAY,
    CLSPLAT_FAILURE_ONE_LEVEL,
    CLSPLAT_FAILURE_OSCILLATING,
    CLSPLAT_FAILURES
} clsplat_failure;

/* "not finite", "collapsed", …; NULL beyond the last. Threads: any. */
CLSPLAT_API const char *clsplat_failure_name(clsplat_failure failure);

typedef struct clsplat_finding {
    clsplat_failure failure;
    size_t head, level;
    size_t splat; /* its index in the set; SIZE_MAX for a level or an adaptation */
    double value; /* what it was found by: ln of the width over the middle one's, the largest ln share,
                     distance, φ, share */
} clsplat_finding;

typedef struct clsplat_health {
    double score; /* 0 to 1 */
    size_t count[CLSPLAT_FAILURES];
    size_t findings;
    clsplat_finding *finding; /* by head, splat */
} clsplat_health;

/* errors [cycles]: of an adaptation after each of its cycles; NULL: there was none. Tensors and `measure` as
 * for clsplat_splats_measure. Writes: *health, for clsplat_health_free. Blocks: until done. Returns: SHAPE,
 * INVALID, MEMORY, BUILD, OPENCL; what is wrong with splats is no error. */
CLSPLAT_API clsplat_status clsplat_splats_examine_sized(clsplat_device *device,
                                                        const clsplat_measure *measure,
                                                        const clsplat_attention_tensors *tensors,
                                                        clsplat_splats *splats, const double *errors,
                                                        size_t cycles, clsplat_health *health);
static inline clsplat_status clsplat_splats_examine(clsplat_device *device, clsplat_measure measure,
                                                    clsplat_attention_tensors tensors, clsplat_splats *splats,
                                                    const double *errors, size_t cycles,
                                                    clsplat_health *health) {
    measure.size = sizeof measure;
    tensors.size = sizeof tensors;
    return clsplat_splats_examine_sized(device, &measure, &tensors, splats, errors, cycles, health);
}

/* Mends the set in place, in up to four rounds of looking and mending. Writes: *health, of the set as it is
 * then. Returns: as above; INVALID also where every splat of a head is not finite. */
CLSPLAT_API clsplat_status clsplat_splats_repair_sized(clsplat_device *device, const clsplat_measure *measure,
                                                       const clsplat_attention_tensors *tensors,
                                                       clsplat_splats *splats, clsplat_health *health);
static inline clsplat_status clsplat_splats_repair(clsplat_device *device, clsplat_measure measure,
                                                   clsplat_attention_tensors tensors, clsplat_splats *splats,
                                                   clsplat_health *health) {
    measure.size = sizeof measure;
    tensors.size = sizeof tensors;
    return clsplat_splats_repair_sized(device, &measure, &tensors, splats, health);
}

/* Accepts a zeroed struct; zeroes it. */
CLSPLAT_API void clsplat_health_free(clsplat_health *health);

#ifdef __cplusplus
}
#endif
#endif
