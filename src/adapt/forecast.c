/* What a set of splats would take and do, from parts of the tokens. */
#include <clsplat/adapt.h>
#include <math.h>
#include <stdlib.h>

#include "adapt/layer.h"
#include "base/clock.h"
#include "base/sized.h"

enum {
    TOKENS_PER_SPLAT = 8, /* of a part, at least, that splats are made from */
    MOST_STEP = 4,        /* every so many-th token at least */
    RUNS = 3,
    ROWS = 256, /* of a head that the error is taken at, of all keys */
    LEAST = 128 /* tokens of a part whose time is taken */
};

static clsplat_tensor every(clsplat_tensor t, size_t step) {
    if (!t.host)
        return t;
    t.shape[2] /= step;
    t.stride[2] *= step;
    return t;
}

static clsplat_tensor first(clsplat_tensor t, size_t tokens) {
    if (t.host && t.shape[2] > tokens)
        t.shape[2] = tokens;
    return t;
}

/* Every step-th token. */
static clsplat_attention_tensors thinned(clsplat_attention_tensors t, size_t step) {
    return (clsplat_attention_tensors){.q = every(t.q, step),
                                       .k = every(t.k, step),
                                       .v = every(t.v, step),
                                       .key_bias = every(t.key_bias, step)};
}

/* What one attention over the first of the tokens takes. */
typedef struct trial {
    size_t tokens;
    double seconds, bytes; /* the median of some runs; above what the device held before */
} trial;

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static clsplat_status attend(clsplat_device *device, clsplat_attention how,
                             const clsplat_attention_tensors *tensors, uint64_t held, trial *t) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_attention_tensors part = *tensors;
    double taken[RUNS];
    const size_t *q = part.q.shape, *v = part.v.shape;
    uint64_t peak = clsplat_device_memory(device).peak, here;
    float *out = calloc(q[0] * q[1] * t->tokens * v[3], sizeof *out);
    if (!out)
        return log_error(device->lib, CLSPLAT_MEMORY, "no memory for the outputs of %zu tokens", t->tokens);
    part.q = first(part.q, t->tokens), part.k = first(part.k, t->tokens), part.v = first(part.v, t->tokens);
    part.key_bias = first(part.key_bias, t->tokens);
    part.out = clsplat_tensor_host(CLSPLAT_F32, q[0], q[1], part.q.shape[2], v[3], out);
    device_begin_peak(device, 0);
    for (int run = -1; run < RUNS; ++run) { /* the first builds kernels */
        double begin = clock_seconds();
        TRY(clsplat_attend(device, how, part));
        if (run >= 0)
            taken[run] = clock_seconds() - begin;
    }
    qsort(taken, RUNS, sizeof *taken, ascending);
    t->seconds = taken[RUNS / 2];
    t->bytes = (double)clsplat_device_memory(device).peak - (double)held;
fail:
    here = clsplat_device_memory(device).peak;
    device_begin_peak(device, peak > here ? peak : here);
    free(out);
    return status;
}

/* Both are lines over the number of tokens. */
static double extend(trial a, trial b, double at_a, double at_b, size_t tokens) {
    double slope = b.tokens > a.tokens ? (at_b - at_a) / (double)(b.tokens - a.tokens) : 0;
    return at_b + fmax(slope, 0) * ((double)tokens - (double)b.tokens);
}

static clsplat_status measure(clsplat_device *device, bool causal, const clsplat_attention_tensors *tensors,
                              clsplat_splats *splats, uint64_t held, clsplat_forecast *forecast) {
    clsplat_status status = CLSPLAT_OK;
    size_t tokens = tensors->q.shape[2] > tensors->k.shape[2] ? tensors->q.shape[2] : tensors->k.shape[2];
    size_t least = tokens < LEAST ? tokens : LEAST;
    trial a = {.tokens = tokens / 8 > least ? tokens / 8 : least}, b = {.tokens = 2 * a.tokens};
    clsplat_attention how = clsplat_attention_defaults();
    how.causal = causal;
    how.method = CLSPLAT_SPLATS;
    how.splats = splats;
    b.tokens = b.tokens < tokens ? b.tokens : tokens;
    TRY(attend(device, how, tensors, held, &a));
    TRY(attend(device, how, tensors, held, &b));
    forecast->seconds = extend(a, b, a.seconds, b.seconds, tokens);
    forecast->bytes = (uint64_t)extend(a, b, a.bytes, b.bytes, tokens);
fail:
    return status;
}

clsplat_status clsplat_splats_forecast_sized(clsplat_device *device, const clsplat_init *init_given,
                                             bool causal, const clsplat_attention_tensors *tensors_given,
                                             clsplat_forecast *forecast) {
    clsplat_init init = clsplat_init_defaults();
    clsplat_attention_tensors tensors = {0};
    clsplat_status status = CLSPLAT_OK;
    clsplat_adapt look = clsplat_adapt_defaults();
    clsplat_adapt_result result;
    clsplat_hierarchy usual = {0};
    clsplat_splats *splats = NULL, *same = NULL;
    uint64_t held = clsplat_device_memory(device).now;
    size_t wanted = 0, keys;
    clsplat_forecast own = {0};
    TRY(SIZED_READ(device->lib, init, init_given));
    TRY(SIZED_READ(device->lib, tensors, tensors_given));
    keys = tensors.k.shape[2] < tensors.q.shape[2] ? tensors.k.shape[2] : tensors.q.shape[2];
    TRY(layer_check_tensors(device->lib, &tensors)); /* strides, before parts are taken */
    if (!init.hierarchy) {
        TRY(clsplat_hierarchy_default(device->lib, &usual));
        init.hierarchy = &usual;
    }
    for (size_t l = 0; l < init.hierarchy->levels; ++l)
        wanted += init.hierarchy->counts[l];
    size_t step = keys / (TOKENS_PER_SPLAT * wanted + 1);
    step = step < 1 ? 1 : step > MOST_STEP ? MOST_STEP : step;
    clsplat_attention_tensors part = thinned(tensors, step);
    TRY(clsplat_splats_init(device, init, part.q, part.k, &splats));
    look.cycles = 0;
    look.sample = ROWS;
    look.causal = causal;
    TRY(clsplat_splats_adapt(device, look, tensors, splats, &same, &result));
    own.error = result.error_before;
    own.splats = wanted;
    TRY(measure(device, causal, &tensors, splats, held, &own));
fail:
    sized_write(&own, sizeof own, forecast);
    clsplat_splats_destroy(&same);
    clsplat_splats_destroy(&splats);
    clsplat_hierarchy_free(&usual);
    return status;
}
