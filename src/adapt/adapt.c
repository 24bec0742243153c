/* Cycles: splats that starve go, levels with room grow, heads trade, and all are adjusted. */
#include <clsplat/adapt.h>
#include <math.h>
#include <stdlib.h>

#include "adapt/adjust.h"
#include "adapt/rounds.h"
#include "base/sized.h"

void clsplat_adapt_defaults_sized(clsplat_adapt *defaults) {
    clsplat_adapt own = {.cycles = 4,
                         .every = 1,
                         .trades = 4,
                         .rate = 0.03,
                         .sample = 1024,
                         .scale = NAN,
                         .death_threshold = 0.01,
                         .patience = 2,
                         .merge_distance = 0.02,
                         .least_gain = 1e-4};
    sized_write(&own, sizeof own, defaults);
}

const char *clsplat_decision_name(clsplat_decision decision) {
    static const char *const names[CLSPLAT_DECISIONS] = {"mitosis", "birth", "death", "merge", "adjust"};
    return (unsigned)decision < CLSPLAT_DECISIONS ? names[decision] : NULL;
}

static clsplat_status check(clsplat *lib, const clsplat_adapt *how) {
    if (how->every == 0 || how->sample == 0)
        return log_error(lib, CLSPLAT_INVALID, "%s is 0; it is at least 1", how->every ? "sample" : "every");
    if (!(how->rate > 0) || !isfinite(how->rate))
        return log_error(lib, CLSPLAT_INVALID, "rate is %g; it must be a finite number above 0", how->rate);
    if (!(how->death_threshold >= 0) || !(how->merge_distance >= 0) || !(how->least_gain >= 0))
        return log_error(lib, CLSPLAT_INVALID,
                         "death_threshold is %g, merge_distance %g and least_gain %g; each must be 0 or more",
                         how->death_threshold, how->merge_distance, how->least_gain);
    return CLSPLAT_OK;
}

/* Counts the cycles that every splat has been hardly used for. */
static clsplat_status count_hunger(herd *h) {
    clsplat_status status = CLSPLAT_OK;
    double least = h->how->death_threshold / (double)h->people.count;
    for (size_t head = 0; head < h->people.heads; ++head) {
        herd_look look;
        TRY(herd_look_at(h, head, &look));
        for (size_t c = 0; c < h->people.count; ++c) {
            splat_life *life = population_life(&h->people, head, c);
            life->starved = look.use[c] < least ? life->starved + 1 : 0;
        }
        herd_look_free(&look);
    }
fail:
    return status;
}

static clsplat_status shrink(herd *h, size_t level) {
    clsplat_status status = CLSPLAT_OK;
    for (bool done = true; done && h->people.of_level[level] > h->least[level];)
        TRY(round_shrink(h, level, h->people.of_level[level] > h->most[level], &done));
fail:
    return status;
}

/* Until there is no room, or nothing that helps has been found three times in a row. */
static clsplat_status grow(herd *h, size_t level) {
    clsplat_status status = CLSPLAT_OK;
    for (unsigned failed = 0; failed < 3 && h->people.of_level[level] < h->most[level];) {
        size_t now = h->people.of_level[level], grown;
        size_t most = 1 + now / 8; /* what many have been added at once was not measured together with */
        most = most < h->most[level] - now ? most : h->most[level] - now;
        TRY(round_grow(h, level, most, now < h->least[level], &grown));
        failed = grown ? 0 : failed + 1;
    }
fail:
    return status;
}

static bool progress(const herd *h, double part) {
    const clsplat_adapt *how = h->how;
    double done = ((double)h->cycle - 1 + part) / (double)how->cycles;
    return !how->progress || how->progress(how->progress_user, fmin(done, 1));
}

static clsplat_status structure(herd *h) {
    clsplat_status status = CLSPLAT_OK;
    size_t levels = h->people.levels;
    TRY(count_hunger(h));
    for (size_t l = 0; l < levels; ++l) {
        TRY(shrink(h, l));
        TRY(grow(h, l));
    }
    for (unsigned t = 0; t < h->how->trades; ++t) {
        TRY(round_trade(h, t % levels));
        if (!progress(h, 0.5 * (double)t / (double)h->how->trades)) {
            status = log_error(h->layer->device->lib, CLSPLAT_CANCELLED, "stopped by the caller");
            goto fail;
        }
    }
fail:
    return status;
}

static clsplat_status cycle(herd *h) {
    clsplat_status status = CLSPLAT_OK;
    ++h->cycle;
    bool last = h->cycle == h->how->cycles; /* only its errors are asked for: no states are */
    if ((h->cycle - 1) % h->how->every == 0) {
        TRY(structure(h));
        TRY(last || h->how->steps ? herd_attend(h) : herd_measure(h)); /* without many roundings */
    }
    if (h->how->steps) {
        TRY(adjust(h, h->how->steps));
        TRY(last ? herd_attend(h) : herd_measure(h));
    }
    if (!progress(h, 1))
        status = log_error(h->layer->device->lib, CLSPLAT_CANCELLED, "stopped by the caller");
fail:
    return status;
}

clsplat_status clsplat_splats_adapt_sized(clsplat_device *device, const clsplat_adapt *adapt_given,
                                          const clsplat_attention_tensors *tensors_given,
                                          clsplat_splats *splats, clsplat_splats **adapted,
                                          clsplat_adapt_result *result) {
    clsplat_adapt adapt = clsplat_adapt_defaults();
    clsplat_attention_tensors tensors = {0};
    clsplat_status status = CLSPLAT_OK;
    layer l = {0};
    herd h = {0};
    *adapted = NULL;
    TRY(SIZED_READ(device->lib, adapt, adapt_given));
    TRY(SIZED_READ(device->lib, tensors, tensors_given));
    TRY(check(device->lib, &adapt));
    TRY(clsplat_splats_changed(splats));
    TRY(layer_open(device, &tensors, adapt.causal, adapt.scale, adapt.sample, &l));
    TRY(layer_check_set(&l, splats));
    TRY(herd_open(&l, &adapt, splats, &h));
    TRY(herd_check_limits(&h));
    TRY(herd_measure(&h));
    h.result.error_before = herd_layer_error(&h);
    for (unsigned c = 0; c < adapt.cycles; ++c)
        TRY(cycle(&h));
    h.result.error_after = herd_layer_error(&h);
    if (result)
        sized_write(&h.result, sizeof h.result, result);
    TRY(population_set(&h.people, device->lib, splats, adapted));
fail:
    herd_close(&h);
    layer_close(&l);
    return status;
}
