#include "adapt/propose.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct proposing {
    herd *h;
    size_t head, level;
    candidates *c;
    const herd_look *look;
    double *room; /* [3·D·D + 3·D] */
} proposing;

static double *candidate(const proposing *p, size_t i) {
    return candidates_splat(p->h, p->c, p->head, i);
}

static void take_column(const proposing *p, size_t i, size_t column) {
    const population *people = &p->h->people;
    memcpy(candidate(p, i), population_splat(people, p->head, column), people->form.numbers * sizeof(double));
}

/* The column of the level that is first by `score`, among those not taken yet; SIZE_MAX if there is none
 * left. */
static size_t next_best(const proposing *p, const double *score, bool largest, const size_t *taken,
                        size_t count) {
    const population *people = &p->h->people;
    size_t best = SIZE_MAX;
    for (size_t c = 0; c < people->count; ++c) {
        bool is_taken = (size_t)people->level[c] != p->level;
        for (size_t i = 0; i < count; ++i)
            is_taken |= taken[i] == c;
        if (!is_taken && (best == SIZE_MAX || (largest ? score[c] > score[best] : score[c] < score[best])))
            best = c;
    }
    return best;
}

static clsplat_adapt_event event_of(const proposing *p, clsplat_decision decision, const size_t *columns,
                                    size_t count) {
    const herd_look *look = p->look;
    clsplat_adapt_event e = {.decision = decision, .head = p->head, .level = p->level};
    for (size_t i = 0; i < count; ++i) {
        const splat_life *life = population_life(&p->h->people, p->head, columns[i]);
        e.from[i] = life->number;
        e.age = p->h->cycle - life->born > e.age ? p->h->cycle - life->born : e.age;
        e.use += look->use[columns[i]];
        e.entropy = fmax(e.entropy, look->entropy[columns[i]]);
        e.leave_one_out += look->leave_one_out[columns[i]];
        e.expected_gain += decision == CLSPLAT_MITOSIS ? look->blame[columns[i]] : 0;
    }
    return e;
}

/* The key of a sampled token. */
static const float *key_of(const herd *h, size_t token_at) {
    const layer *l = h->layer;
    size_t writer = token_at / h->tokens, t = token_at % h->tokens * h->spacing;
    size_t b = writer / h->state_heads, kv = writer % h->state_heads / (h->state_heads / l->kv_heads);
    return l->k + ((b * l->kv_heads + kv) * l->keys + t) * l->dim;
}

/* Towards the farthest of the keys that are nearest to the splat, as far as their deviation that way. */
static void find_direction(const proposing *p, size_t column, double *delta) {
    const herd *h = p->h;
    const double *mean = population_splat(&h->people, p->head, column);
    size_t dim = h->people.form.dim, all = h->layer->batch * h->state_heads * h->tokens, keys = 0;
    double farthest = 0, along = 0;
    const float *far = NULL;
    for (size_t t = 0; t < all; ++t) {
        if (p->look->nearest[t] != column)
            continue;
        const float *key = key_of(h, t);
        double square = 0;
        for (size_t d = 0; d < dim; ++d)
            square += ((double)key[d] - mean[d]) * ((double)key[d] - mean[d]);
        if (square > farthest)
            farthest = square, far = key;
    }
    for (size_t d = 0; d < dim; ++d)
        delta[d] = far ? ((double)far[d] - mean[d]) / sqrt(farthest)
                       : random_normal(&p->h->random) / sqrt((double)dim);
    for (size_t t = 0; far && t < all; ++t) {
        double projection = 0;
        if (p->look->nearest[t] != column)
            continue;
        const float *key = key_of(h, t);
        for (size_t d = 0; d < dim; ++d)
            projection += delta[d] * ((double)key[d] - mean[d]);
        along += projection * projection;
        ++keys;
    }
    for (size_t d = 0; keys && d < dim; ++d)
        delta[d] *= sqrt(along / (double)keys);
}

static void propose_split(const proposing *p, size_t column, size_t first, proposal *to) {
    const splat_form *form = &p->h->people.form;
    double *delta = p->room, *room = p->room + form->dim;
    take_column(p, first, column);
    find_direction(p, column, delta);
    for (unsigned tries = 0; tries < 8 && !to->possible; ++tries) {
        to->possible = moments_split(form, candidate(p, first), delta, room, candidate(p, first + 1),
                                     candidate(p, first + 2));
        for (size_t d = 0; d < form->dim; ++d)
            delta[d] /= 2;
    }
    to->what =
        (change){.level = p->level, .going = 1, .gone = {first}, .coming = 2, .come = {first + 1, first + 2}};
    to->columns = 1;
    to->column[0] = column;
    to->event = event_of(p, CLSPLAT_MITOSIS, &column, 1);
}

/* A row of the head, drawn by its squared error. */
static size_t draw_row(const proposing *p) {
    const layer *l = p->h->layer;
    size_t rows = l->batch * l->heads * l->rows, last = p->head * l->rows;
    double left = random_uniform(&p->h->random) * p->look->row_total;
    for (size_t i = 0; i < rows; ++i) {
        if (p->look->row_square[i] <= 0)
            continue;
        last = i;
        left -= p->look->row_square[i];
        if (left < 0)
            break;
    }
    return last;
}

/* A key drawn as softmax attention of the row has it: the largest of log-weights with Gumbel noise. */
static const float *draw_key(const proposing *p, size_t at) {
    const layer *l = p->h->layer;
    size_t head = at / l->rows, row = at % l->rows, b = head / l->heads, hq = head % l->heads;
    size_t kv = b * l->kv_heads + hq / (l->heads / l->kv_heads);
    const float *q = l->q + (head * l->queries + l->first_row + row * l->step) * l->dim;
    const float *keys = l->k + kv * l->keys * l->dim, *best = keys;
    double most = -INFINITY, loudest = 37; /* −ln −ln(1 − 2⁻⁵³) */
    for (size_t j = 0; j < layer_visible(l, row); ++j) {
        float score = layer_product(q, keys + j * l->dim, l->dim);
        double bias = l->key_bias ? (double)l->key_bias[kv * l->keys + j] : 0;
        double noisy = (double)(score * l->scale) + bias;
        if (noisy + loudest < most) /* the noise is not asked */
            continue;
        double draw = random_uniform(&p->h->random), gap = most - noisy;
        if ((gap > 7 && draw < 0.999) || (gap > 3 && draw < 0.95)) /* below e^(−e^−gap): not loud enough */
            continue;
        noisy -= log(-log(fmax(draw, 1e-300)));
        if (noisy > most)
            most = noisy, best = keys + j * l->dim;
    }
    return best;
}

/* The token that is covered worst, after those that were taken. */
static size_t worst_covered(const proposing *p, const size_t *taken, size_t count) {
    const herd *h = p->h;
    size_t worst = SIZE_MAX;
    for (size_t t = 0; t < h->layer->batch * h->state_heads * h->tokens; ++t) {
        bool skip = p->look->nearest[t] == SIZE_MAX;
        for (size_t i = 0; i < count; ++i)
            skip |= taken[i] == t;
        if (!skip && (worst == SIZE_MAX || p->look->reach[t] < p->look->reach[worst]))
            worst = t;
    }
    return worst;
}

/* 1 / variance of the dimensions, of covariances that are not full. */
static void find_precisions(const splat_form *form, const double *splat, double *precision) {
    bool one = form->covariance == CLSPLAT_ISOTROPIC;
    double temperature = exp(splat[form->dim + form->size + 1]);
    for (size_t d = 0; d < form->dim; ++d)
        precision[d] = one && d ? precision[0] : 1 / (exp(splat[form->dim + (one ? 0 : d)]) * temperature);
}

/* −2φ of a splat at x. */
static double distance_of(const splat_form *form, const double *splat, const double *precision,
                          const float *x) {
    double sum = 0, temperature = exp(splat[form->dim + form->size + 1]);
    for (size_t d = 0; d < form->dim; ++d) {
        double along = (double)x[d] - splat[d];
        if (form->covariance == CLSPLAT_FULL) {
            along = 0;
            for (size_t e = d; e < form->dim; ++e)
                along += splat[form->dim + e * form->dim + d] * ((double)x[e] - splat[e]);
            sum += along * along / temperature;
        } else {
            sum += along * along * precision[d];
        }
    }
    return sum;
}

/* Where a splat may be born, and why there; φ of the best splat that there is, and its column. */
typedef struct birthplace {
    const float *key;
    double gain, reach;
    size_t nearest;
} birthplace;

static void find_nearest(const proposing *p, birthplace *places, size_t count) {
    const population *people = &p->h->people;
    double *precision = p->room;
    for (size_t i = 0; i < count; ++i)
        places[i].reach = -INFINITY, places[i].nearest = 0;
    for (size_t c = 0; c < people->count; ++c) {
        const double *splat = population_splat(people, p->head, c);
        if (people->form.covariance != CLSPLAT_FULL)
            find_precisions(&people->form, splat, precision);
        for (size_t i = 0; i < count; ++i) {
            double reach = -0.5 * distance_of(&people->form, splat, precision, places[i].key);
            if (reach > places[i].reach)
                places[i].reach = reach, places[i].nearest = c;
        }
    }
}

/* Of the widths of the nearest splat, or of those that softmax has: variance 1 / scale, which is √D (see
 * CLSPLAT_MATCH_SOFTMAX). */
static void propose_birth(const proposing *p, const birthplace *place, bool softmax, size_t i, proposal *to) {
    const splat_form *form = &p->h->people.form;
    double *splat = candidate(p, i), variance = 1 / fmax((double)fabsf(p->h->layer->scale), 1e-6);
    take_column(p, i, place->nearest);
    double *covariance = splat_covariance(form, splat);
    for (size_t d = 0; d < form->dim; ++d)
        splat[d] = (double)place->key[d];
    for (size_t n = 0; softmax && n < form->size; ++n) {
        bool diagonal = n % (form->dim + 1) == 0;
        covariance[n] = form->covariance != CLSPLAT_FULL ? log(variance) : diagonal ? 1 / sqrt(variance) : 0;
    }
    if (softmax)
        *splat_log_temperature(form, splat) = 0;
    to->possible = true;
    to->what = (change){.level = p->level, .coming = 1, .come = {i}};
    to->columns = 0;
    to->event = event_of(p, CLSPLAT_BIRTH, NULL, 0);
    to->event.coverage = place->reach;
    to->event.expected_gain = place->gain;
}

static void propose_births(const proposing *p, size_t first, proposal *to) {
    enum { COVERED = 2 }; /* at the keys that are covered worst */
    size_t taken[COVERED], places = 0;
    birthplace place[PROPOSE_BIRTHS];
    for (size_t i = 0; i < PROPOSE_BIRTHS - COVERED; ++i) {
        size_t row = draw_row(p);
        place[places++] =
            (birthplace){.key = draw_key(p, row),
                         .gain = p->look->row_total > 0 ? p->look->row_square[row] / p->look->row_total : 0};
    }
    for (size_t i = 0; i < COVERED; ++i) {
        taken[i] = worst_covered(p, taken, i);
        if (taken[i] != SIZE_MAX)
            place[places++] = (birthplace){.key = key_of(p->h, taken[i])};
    }
    find_nearest(p, place, places);
    for (size_t i = 0; i < places; ++i)
        propose_birth(p, &place[i], i % 2, first + i, &to[i]);
}

static void propose_deaths(const proposing *p, bool starving, size_t first, proposal *to) {
    size_t taken[PROPOSE_DEATHS];
    for (size_t i = 0; i < PROPOSE_DEATHS; ++i) {
        taken[i] = next_best(p, p->look->leave_one_out, false, taken, i);
        if (taken[i] == SIZE_MAX)
            break;
        take_column(p, first + i, taken[i]);
        to[i].possible =
            !starving || population_life(&p->h->people, p->head, taken[i])->starved >= p->h->how->patience;
        to[i].what = (change){.level = p->level, .going = 1, .gone = {first + i}};
        to[i].columns = 1;
        to[i].column[0] = taken[i];
        to[i].event = event_of(p, CLSPLAT_DEATH, &taken[i], 1);
    }
}

static void widths(const splat_form *form, const double *splat, double *room, double *variance) {
    if (form->covariance == CLSPLAT_FULL)
        moments_covariance(form, splat, room, room + form->dim * form->dim);
    else
        find_precisions(form, splat, variance);
    for (size_t d = 0; d < form->dim; ++d)
        variance[d] = form->covariance == CLSPLAT_FULL ? room[form->dim * form->dim + d * (form->dim + 1)]
                                                       : 1 / variance[d];
}

/* The column of the level nearest to one of them, and how far it is. Full covariances are compared by their
 * means in the one's widths, since each would cost an inverse. */
static size_t nearest_splat(const proposing *p, size_t column, double *distance) {
    const population *people = &p->h->people;
    const splat_form *form = &people->form;
    size_t square = 3 * form->dim * form->dim, best = SIZE_MAX;
    double *own = p->room + square, *other = own + form->dim;
    const double *splat = population_splat(people, p->head, column);
    widths(form, splat, p->room, own);
    for (size_t c = 0; c < people->count; ++c) {
        if (c == column || (size_t)people->level[c] != p->level)
            continue;
        const double *candidate = population_splat(people, p->head, c);
        if (form->covariance == CLSPLAT_FULL)
            memcpy(other, own, form->dim * sizeof *other);
        else
            widths(form, candidate, p->room, other);
        double apart = moments_distance(form->dim, splat, own, candidate, other);
        if (best == SIZE_MAX || apart < *distance)
            best = c, *distance = apart;
    }
    return best;
}

static void propose_merge(const proposing *p, size_t column, bool starving, size_t first, proposal *to) {
    const splat_form *form = &p->h->people.form;
    double distance = INFINITY;
    size_t pair[2] = {column, nearest_splat(p, column, &distance)};
    if (pair[1] == SIZE_MAX || (starving && distance > p->h->how->merge_distance))
        return;
    take_column(p, first, pair[0]);
    take_column(p, first + 1, pair[1]);
    to->possible =
        moments_merge(form, candidate(p, first), candidate(p, first + 1), p->room, candidate(p, first + 2));
    to->what =
        (change){.level = p->level, .going = 2, .gone = {first, first + 1}, .coming = 1, .come = {first + 2}};
    to->columns = 2;
    memcpy(to->column, pair, sizeof pair);
    to->event = event_of(p, CLSPLAT_MERGE, pair, 2);
}

clsplat_status propose(herd *h, size_t head, size_t level, bool starving, candidates *c, proposals *to) {
    clsplat_status status = CLSPLAT_OK;
    size_t dim = h->people.form.dim, next = 0, taken[PROPOSE_GROWING];
    herd_look look = {0};
    proposing p = {.h = h,
                   .head = head,
                   .level = level,
                   .c = c,
                   .look = &look,
                   .room = malloc((3 * dim * dim + 3 * dim) * sizeof(double))};
    *to = (proposals){0};
    if (!p.room)
        return log_error(h->layer->device->lib, CLSPLAT_MEMORY, "no memory for what splats might become");
    for (size_t i = 0; i < c->count; ++i) /* what is not filled in below is measured, too */
        take_column(&p, i, 0);
    TRY(herd_look_at(h, head, &look));
    for (size_t i = 0; i < PROPOSE_SPLITS; ++i, next += 3) {
        taken[i] = next_best(&p, look.blame, true, taken, i);
        if (taken[i] != SIZE_MAX)
            propose_split(&p, taken[i], next, &to->growing[i]);
    }
    propose_births(&p, next, to->growing + PROPOSE_SPLITS);
    next += PROPOSE_BIRTHS;
    propose_deaths(&p, starving, next, to->shrinking);
    next += PROPOSE_DEATHS;
    for (size_t i = 0; i < PROPOSE_MERGES; ++i, next += 3) {
        taken[i] =
            i == 0 ? next_best(&p, look.use, false, taken, 0) : random_below(&h->random, h->people.count);
        if (taken[i] != SIZE_MAX && (size_t)h->people.level[taken[i]] == level)
            propose_merge(&p, taken[i], starving, next, &to->shrinking[PROPOSE_DEATHS + i]);
    }
fail:
    herd_look_free(&look);
    free(p.room);
    return status;
}
