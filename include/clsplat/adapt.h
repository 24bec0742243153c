/* Adaptation: splats that are born, split, merge, die and move until their attention is nearer to softmax
 * attention on a layer's own tokens.
 *
 * The error of a head is ‖out − exact‖ / ‖exact‖ (Frobenius), over sampled rows and the batch entries and
 * query heads that use it; `exact` is softmax attention. Every decision is measured before it is kept: what
 * it does to the output of each sampled row is computed from the states of the splats it removes and adds
 * (a row's output is a sum over splats, so only those count), and a decision that does not lower the
 * error is undone, or never made. Joint mixing.
 *
 *     mitosis   two children at μ ± δ, half the amplitude each; mean and second moment of the pair are the
 *               parent's: covariance Σ − δδᵀ (its diagonal, its mean diagonal by kind). δ = 0 changes no
 * output birth     at keys that are worst covered, or that rows of large error attend to; its amplitude by
 * measured error death     of a splat that rows hardly use for several cycles, or to make room for a better
 * one merge     of the nearest pair: amplitudes add, mean and second moment match adjust    gradient steps
 * (Adam) on every parameter of every splat; halved while they do not help
 *
 * A set has as many splats at a level in every head: a head grows and shrinks with the others, and otherwise
 * trades (a death or merge for a birth or mitosis) on its own. */
#ifndef CLSPLAT_ADAPT_H
#define CLSPLAT_ADAPT_H

#include <clsplat/attention.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum clsplat_decision {
    CLSPLAT_MITOSIS,
    CLSPLAT_BIRTH,
    CLSPLAT_DEATH,
    CLSPLAT_MERGE,
    CLSPLAT_ADJUST,
    CLSPLAT_DECISIONS
} clsplat_decision;

/* "mitosis", "birth", …; NULL beyond the last. Threads: any. */
CLSPLAT_API const char *clsplat_decision_name(clsplat_decision decision);

/* One decision and why. Splats have numbers of their own per head, given at birth and never again; 0 is none.
 * ADJUST concerns all splats of all heads: its head is 0 and its errors are those of the whole layer. */
typedef struct clsplat_adapt_event {
    size_t layer; /* of a model that adapts while it reads or learns; otherwise 0 */
    unsigned cycle;
    clsplat_decision decision;
    size_t head, level;
    uint64_t from[2];     /* the parent, the dead one, or the pair that merged */
    uint64_t to[2];       /* the children, the new one, or the merged one */
    unsigned age;         /* cycles that the older of `from` has lived */
    double use;           /* the share of the head's attention that went through `from` */
    double entropy;       /* of that over the rows, in nats: which of them it serves */
    double leave_one_out; /* mean over the rows of −ln(1 − share of `from`): information lost without it */
    double coverage;      /* φ at the birthplace of the best splat there was; 0 is best */
    double expected_gain; /* of mitosis: the share of the head's squared error that passes through the parent;
                             birth: the share of that in the row that asked for it */
    double moved;         /* ADJUST: how far means have come, in widths of their splats, root mean square */
    double error_before, error_after; /* of the head, if it were kept */
    bool kept;
} clsplat_adapt_event;
typedef void clsplat_adapt_listener(void *user, const clsplat_adapt_event *event);

typedef struct clsplat_adapt {
    size_t size;     /* see status.h */
    unsigned cycles; /* 4; each: shrink, grow, trade, then adjust */
    unsigned every;  /* 1; splats come and go in each `every`-th cycle, and are adjusted in all */
    unsigned trades; /* 4; rounds of trades in a cycle, one or two a head each */
    unsigned steps;  /* 0; gradient steps a cycle */
    double rate;     /* 0.03; of the first gradient step, in units of a splat's width */
    uint64_t seed;   /* 0 */
    size_t sample;   /* 1024; rows looked at per head, evenly spaced; more: fewer surprises elsewhere */
    bool causal;     /* query i sees the keys up to i + (M − N) */
    float scale;     /* of softmax; NaN: 1/sqrt(D) */
    const size_t *least, *most; /* [L] splats per level at all times; NULL: as many as there are, each */
    double death_threshold;     /* 0.01; dead after `patience` cycles below this share of the mean use */
    unsigned patience;          /* 2 */
    double merge_distance; /* 0.02; Bhattacharyya distance below which a pair may merge to shrink a level */
    double least_gain;     /* 1e-4; relative fall of the error that a decision must bring */
    clsplat_adapt_listener *listener; /* told of every decision as it falls; NULL: nobody. If the call fails,
                                         nothing of what it was told has come about */
    void *listener_user;
    clsplat_progress *progress; /* NULL: none */
    void *progress_user;
} clsplat_adapt;
CLSPLAT_DEFAULTS(clsplat_adapt)

/* What came of it. */
typedef struct clsplat_adapt_result {
    size_t size;                      /* see status.h */
    double error_before, error_after; /* of the layer */
    size_t rows;                      /* per head, that were looked at */
    size_t kept[CLSPLAT_DECISIONS], undone[CLSPLAT_DECISIONS];
} clsplat_adapt_result;

/* A new set; `splats` stays as it is. Every draw comes from the seed: the same data, seed and device give the
 * same bits.
 *
 * Shapes: q, k, v and, if it is there, key_bias of `tensors` as clsplat_attend has them, in host memory; the
 * rest is not looked at. All must fit the device; the set is of H heads or shared. Writes: *result unless it
 * is NULL. Ownership: *adapted is the caller's. Blocks: until done. Threads: one at a time per device; the
 * listener is called from this thread. Returns: SHAPE, INVALID (limits that contradict each other, numbers
 * that are not finite), MEMORY, BUILD, OPENCL, CANCELLED. Source: Kerbl et al. 2023 (arXiv 2308.04079) for
 * growing where the error is; the moments of a pair are those of a mixture. */
CLSPLAT_API clsplat_status clsplat_splats_adapt_sized(clsplat_device *device, const clsplat_adapt *adapt,
                                                      const clsplat_attention_tensors *tensors,
                                                      clsplat_splats *splats, clsplat_splats **adapted,
                                                      clsplat_adapt_result *result);
static inline clsplat_status clsplat_splats_adapt(clsplat_device *device, clsplat_adapt adapt,
                                                  clsplat_attention_tensors tensors, clsplat_splats *splats,
                                                  clsplat_splats **adapted, clsplat_adapt_result *result) {
    adapt.size = sizeof adapt;
    tensors.size = sizeof tensors;
    if (result)
        result->size = sizeof *result;
    return clsplat_splats_adapt_sized(device, &adapt, &tensors, splats, adapted, result);
}

/* Splats from one at each level up to the counts of init.hierarchy, each where the measured error falls most:
 * the same as adapting, from a set that clsplat_splats_init makes with one splat a level. Of `init` method,
 * lloyd_steps and progress do not count; of `adapt` least and most; its cycles, 1 at least, go on after the
 * first has grown the set.
 *
 * Shapes, Writes, Ownership, Blocks, Threads, Returns: as above. */
CLSPLAT_API clsplat_status clsplat_splats_grow_sized(clsplat_device *device, const clsplat_init *init,
                                                     const clsplat_adapt *adapt,
                                                     const clsplat_attention_tensors *tensors,
                                                     clsplat_splats **splats, clsplat_adapt_result *result);
static inline clsplat_status clsplat_splats_grow(clsplat_device *device, clsplat_init init,
                                                 clsplat_adapt adapt, clsplat_attention_tensors tensors,
                                                 clsplat_splats **splats, clsplat_adapt_result *result) {
    init.size = sizeof init;
    adapt.size = sizeof adapt;
    tensors.size = sizeof tensors;
    if (result)
        result->size = sizeof *result;
    return clsplat_splats_grow_sized(device, &init, &adapt, &tensors, splats, result);
}

/* Coarse levels out of fine ones, in place: the splats of every level but the first become clusters of those
 * of the level before, by mass; in a head, mass, mean and second moment of a level are those of the level
 * before (as far as its kind of covariance has them). Temperatures are those of the heaviest. Threads: any,
 * one at a time per set. Returns: MEMORY. */
CLSPLAT_API clsplat_status clsplat_splats_coarsen(clsplat *lib, clsplat_splats *splats, uint64_t seed);

/* Flow between neighbouring levels, in place: from the finest up, a parent's mean goes the share `bottom_up`
 * of the way to the mean of its children by mass; then from the coarsest down, a child's the share `top_down`
 * of the way to its parent's. A splat's parent is the one of the next coarser level that is nearest in that
 * one's widths. Threads: as above. Returns: INVALID (a share that is not from 0 to 1), MEMORY. */
CLSPLAT_API clsplat_status clsplat_splats_flow(clsplat *lib, clsplat_splats *splats, double top_down,
                                               double bottom_up);

/* What splats of a hierarchy would come to on a layer, before they are made and used: from splats of every
 * fourth token at most, at 256 rows of a head, and from one attention over an eighth and over a quarter of
 * the tokens. One attention of theirs: the device memory beyond what is held now, its time, and the error
 * beside softmax attention. */
typedef struct clsplat_forecast {
    size_t size; /* see status.h */
    size_t splats;
    uint64_t bytes;
    double seconds, error;
} clsplat_forecast;

/* Shapes, Blocks, Threads, Returns: as above. Writes: *forecast. */
CLSPLAT_API clsplat_status clsplat_splats_forecast_sized(clsplat_device *device, const clsplat_init *init,
                                                         bool causal,
                                                         const clsplat_attention_tensors *tensors,
                                                         clsplat_forecast *forecast);
static inline clsplat_status clsplat_splats_forecast(clsplat_device *device, clsplat_init init, bool causal,
                                                     clsplat_attention_tensors tensors,
                                                     clsplat_forecast *forecast) {
    init.size = sizeof init;
    tensors.size = sizeof tensors;
    if (forecast)
        forecast->size = sizeof *forecast;
    return clsplat_splats_forecast_sized(device, &init, causal, &tensors, forecast);
}

#ifdef __cplusplus
}
#endif
#endif
