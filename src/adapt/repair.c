/* Looking at a set and mending it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adapt/health.h"
#include "base/sized.h"

enum { ROUNDS = 4 };

typedef struct patient {
    clsplat_adapt how;
    layer layer;
    herd herd;
} patient;

static void patient_close(patient *p) {
    herd_close(&p->herd);
    layer_close(&p->layer);
}

/* The layer and the set's numbers, finite by then; what was not is noted. */
static clsplat_status patient_open(clsplat_device *device, const clsplat_measure *measure,
                                   const clsplat_attention_tensors *tensors, clsplat_splats *splats,
                                   patient *p, clsplat_health *health) {
    clsplat_status status = CLSPLAT_OK;
    *p = (patient){.how = clsplat_adapt_defaults()};
    if (measure->sample == 0)
        return log_error(device->lib, CLSPLAT_INVALID, "sample is 0; it is at least 1");
    TRY(layer_open(device, tensors, measure->causal, measure->scale, measure->sample, &p->layer));
    TRY(layer_check_set(&p->layer, splats));
    TRY(herd_open(&p->layer, &p->how, splats, &p->herd));
    TRY(health_find_numbers(device->lib, &p->herd.people, health));
    TRY(herd_measure(&p->herd));
fail:
    if (status != CLSPLAT_OK)
        patient_close(p);
    return status;
}

clsplat_status clsplat_splats_examine_sized(clsplat_device *device, const clsplat_measure *measure_given,
                                            const clsplat_attention_tensors *tensors_given,
                                            clsplat_splats *splats, const double *errors, size_t cycles,
                                            clsplat_health *health) {
    clsplat_measure measure = clsplat_measure_defaults();
    clsplat_attention_tensors tensors = {0};
    clsplat_status status = CLSPLAT_OK;
    patient p = {0};
    *health = (clsplat_health){0};
    TRY(SIZED_READ(device->lib, measure, measure_given));
    TRY(SIZED_READ(device->lib, tensors, tensors_given));
    TRY(patient_open(device, &measure, &tensors, splats, &p, health));
    TRY(health_find(&p.herd, health));
    if (errors && health_oscillates(errors, cycles))
        TRY(health_add(device->lib, health,
                       (clsplat_finding){CLSPLAT_FAILURE_OSCILLATING, 0, 0, SIZE_MAX, errors[cycles - 1]}));
    health_score(health, p.herd.people.heads, p.herd.people.count);
fail:
    patient_close(&p);
    if (status != CLSPLAT_OK)
        clsplat_health_free(health);
    return status;
}

static bool is_bad(const clsplat_health *health, size_t head, size_t column) {
    for (size_t i = 0; i < health->findings; ++i)
        if (health->finding[i].head == head && health->finding[i].splat == column)
            return true;
    return false;
}

static void widen(population *p, const clsplat_finding *f) {
    double *splat = population_splat(p, f->head, f->splat), *covariance = splat_covariance(&p->form, splat);
    for (size_t i = 0; i < p->form.size; ++i)
        covariance[i] =
            p->form.covariance == CLSPLAT_FULL ? covariance[i] * exp(f->value) : covariance[i] - 2 * f->value;
}

/* The worst covered token of the head, which is then taken; SIZE_MAX if all are. */
static size_t take_token(const herd *h, herd_look *look) {
    size_t worst = SIZE_MAX;
    for (size_t t = 0; t < h->layer->batch * h->state_heads * h->tokens; ++t)
        if (look->nearest[t] != SIZE_MAX && (worst == SIZE_MAX || look->reach[t] < look->reach[worst]))
            worst = t;
    if (worst != SIZE_MAX)
        look->nearest[worst] = SIZE_MAX;
    return worst;
}

/* A splat at the token like the healthy one of its level, or else of any, that reaches it best. */
static void bear_again(herd *h, const clsplat_health *health, const clsplat_finding *f, size_t token) {
    const layer *l = h->layer;
    population *p = &h->people;
    size_t writer = token / h->tokens, t = token % h->tokens, best = SIZE_MAX;
    size_t kv =
        writer / h->state_heads * l->kv_heads + writer % h->state_heads / (h->state_heads / l->kv_heads);
    const float *key = l->k + (kv * l->keys + t * h->spacing) * l->dim;
    bool best_is_own = false;
    for (size_t c = 0; c < p->count; ++c) {
        bool own = p->level[c] == p->level[f->splat];
        if (is_bad(health, f->head, c) || (best_is_own && !own))
            continue;
        const float *cover = h->cover + writer * p->capacity * h->tokens + t;
        if (best == SIZE_MAX || (own && !best_is_own) || cover[c * h->tokens] > cover[best * h->tokens])
            best = c, best_is_own = own;
    }
    double *splat = population_splat(p, f->head, f->splat);
    if (best != SIZE_MAX)
        memcpy(splat, population_splat(p, f->head, best), p->form.numbers * sizeof *splat);
    for (size_t d = 0; d < p->form.dim; ++d)
        splat[d] = (double)key[d];
}

/* Shares of 1 / L each, for the level that had it all. */
static void balance(population *p, const clsplat_finding *f) {
    double others = fmax(1 - f->value, 1e-30);
    p->level_log_weight[f->level] -= log(f->value / others * ((double)p->levels - 1));
}

static clsplat_status mend_head(herd *h, const clsplat_health *health, size_t head) {
    clsplat_status status = CLSPLAT_OK;
    population *p = &h->people;
    herd_look look;
    TRY(herd_look_at(h, head, &look));
    for (size_t i = 0; i < health->findings; ++i) {
        const clsplat_finding *f = &health->finding[i];
        bool first = true;
        for (size_t j = 0; j < i; ++j) /* one who is born again needs no more */
            first &= health->finding[j].head != head || health->finding[j].splat != f->splat;
        if (f->head != head || f->splat == SIZE_MAX || !first)
            continue;
        if (f->failure == CLSPLAT_FAILURE_COLLAPSED || f->failure == CLSPLAT_FAILURE_EXPLODING) {
            widen(p, f);
            continue;
        }
        if (f->failure == CLSPLAT_FAILURE_DUPLICATE) {
            double *twin = splat_log_amplitude(&p->form, population_splat(p, head, (size_t)f->value));
            double own = *splat_log_amplitude(&p->form, population_splat(p, head, f->splat));
            double top = fmax(*twin, own);
            *twin = top + log(exp(*twin - top) + exp(own - top));
        }
        size_t token = take_token(h, &look);
        if (token != SIZE_MAX)
            bear_again(h, health, f, token);
    }
    herd_look_free(&look);
fail:
    return status;
}

/* The population's numbers become the set's. */
static clsplat_status write_back(const population *p, clsplat *lib, clsplat_splats *splats) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_splats *mended = NULL;
    clsplat_splats_parameters to = clsplat_splats_get(splats);
    TRY(population_set(p, lib, splats, &mended));
    clsplat_splats_parameters from = clsplat_splats_get(mended);
    size_t count = p->heads * p->count;
    memcpy(to.mean, from.mean, count * p->form.dim * sizeof *to.mean);
    memcpy(to.log_var ? to.log_var : to.precision_chol, from.log_var ? from.log_var : from.precision_chol,
           count * p->form.size * sizeof *to.mean);
    memcpy(to.log_amplitude, from.log_amplitude, count * sizeof *to.log_amplitude);
    memcpy(to.log_temperature, from.log_temperature, count * sizeof *to.log_temperature);
    memcpy(to.level_log_weight, from.level_log_weight, p->levels * sizeof *to.level_log_weight);
    TRY(clsplat_splats_changed(splats));
fail:
    clsplat_splats_destroy(&mended);
    return status;
}

static clsplat_status mend(herd *h, const clsplat_health *health) {
    clsplat_status status = CLSPLAT_OK;
    bool balanced = false; /* weights are those of all heads: one at a time */
    for (size_t head = 0; head < h->people.heads; ++head)
        TRY(mend_head(h, health, head));
    for (size_t i = 0; i < health->findings; ++i)
        if (health->finding[i].failure == CLSPLAT_FAILURE_ONE_LEVEL && !balanced) {
            balance(&h->people, &health->finding[i]);
            balanced = true;
        }
fail:
    return status;
}

clsplat_status clsplat_splats_repair_sized(clsplat_device *device, const clsplat_measure *measure_given,
                                           const clsplat_attention_tensors *tensors_given,
                                           clsplat_splats *splats, clsplat_health *health) {
    clsplat_measure measure = clsplat_measure_defaults();
    clsplat_attention_tensors tensors = {0};
    clsplat_status status = CLSPLAT_OK;
    patient p = {0};
    *health = (clsplat_health){0};
    TRY(SIZED_READ(device->lib, measure, measure_given));
    TRY(SIZED_READ(device->lib, tensors, tensors_given));
    for (unsigned round = 0; round <= ROUNDS; ++round) {
        clsplat_health_free(health);
        TRY(patient_open(device, &measure, &tensors, splats, &p, health));
        TRY(health_find(&p.herd, health));
        health_score(health, p.herd.people.heads, p.herd.people.count);
        if (health->findings == 0 || round == ROUNDS)
            break;
        TRY(mend(&p.herd, health));
        TRY(write_back(&p.herd.people, device->lib, splats));
        patient_close(&p);
        p = (patient){0};
    }
fail:
    patient_close(&p);
    if (status != CLSPLAT_OK)
        clsplat_health_free(health);
    return status;
}
