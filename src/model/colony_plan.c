/* Decisions of a colony: who goes and who comes, what that is expected to do, and what it did. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/colony.h"

/* A decision in the making: who goes (two that merge into the first one's place), who comes, and what the
 * error is then. */
typedef struct plan {
    size_t out, with;              /* `with`: SIZE_MAX unless `out` and it merge */
    size_t parent;                 /* SIZE_MAX unless it splits */
    double *merged, *come, *child; /* splats; `child` of a split */
    double error, coverage, blame; /* the error then; c of the birthplace, the parent's share of the error */
} plan;

/* c_j without whoever goes, in `best`. */
static float left(const colony *c, const plan *p, size_t j) {
    const float *merged = c->fresh + (COLONY_FRESH - 1) * c->samples;
    if (p->with == SIZE_MAX)
        return c->nearest[j] == p->out ? c->second[j] : c->best[j];
    float most = -INFINITY;
    if (c->nearest[j] != p->out && c->nearest[j] != p->with)
        most = c->best[j];
    else
        for (size_t s = 0; s < c->splats; ++s)
            if (s != p->out && s != p->with)
                most = fmaxf(most, c->reach[s * c->samples + j]);
    return fmaxf(most, merged[j]);
}

static double error_left(const colony *c, const plan *p) {
    double sum = 0;
    for (size_t j = 0; j < c->samples; ++j)
        sum -= (double)c->weight[j] * (double)left(c, p, j);
    return sum;
}

/* Who has starved for long enough, and otherwise the death that costs the least coverage; of those that cost
 * as little the one of the least use. */
static size_t cheapest_death(colony *c, unsigned patience) {
    size_t best = 0;
    memset(c->cost, 0, c->splats * sizeof *c->cost);
    for (size_t j = 0; j < c->samples; ++j)
        c->cost[c->nearest[j]] += (double)c->weight[j] * ((double)c->best[j] - (double)c->second[j]);
    for (size_t s = 1; s < c->splats; ++s) {
        bool starved = c->life[s].starved >= patience, first = c->life[best].starved >= patience;
        if (starved != first
                ? starved
                : c->cost[s] < c->cost[best] || (c->cost[s] <= c->cost[best] && c->use[s] < c->use[best]))
            best = s;
    }
    return best;
}

/* The splat of the level nearest to it, in its widths. */
static size_t nearest_splat(const colony *c, size_t to, double *precision) {
    size_t dim = c->form.dim, near = SIZE_MAX;
    const double *own = colony_splat(c, to);
    double least = INFINITY;
    for (size_t d = 0; d < dim; ++d)
        precision[d] = 1 / splat_variance(&c->form, own, d);
    for (size_t s = 0; s < c->splats; ++s) {
        const double *other = colony_splat(c, s);
        double apart = 0;
        for (size_t d = 0; s != to && d < dim; ++d)
            apart += precision[d] * (own[d] - other[d]) * (own[d] - other[d]);
        if (s != to && apart < least)
            least = apart, near = s;
    }
    return near;
}

/* The merge of the splat and its nearest, if it costs less than its death. */
static void consider_merge(colony *c, double *room, plan *p) {
    size_t near = nearest_splat(c, p->out, room);
    double alone = error_left(c, p);
    plan merge = *p;
    if (near == SIZE_MAX ||
        !moments_merge(&c->form, colony_splat(c, p->out), colony_splat(c, near), room, p->merged))
        return;
    merge.with = near;
    colony_log_density(c, p->merged, c->fresh + (COLONY_FRESH - 1) * c->samples);
    if (error_left(c, &merge) < alone)
        *p = merge;
}

/* The error with one or two rows of c->fresh beside what is left; a split's parent is covered by its
 * children. */
static double error_with(const colony *c, const plan *p, size_t row, size_t parent) {
    double sum = 0;
    for (size_t j = 0; j < c->samples; ++j) {
        float at = left(c, p, j), first = c->fresh[row * c->samples + j];
        if (parent != SIZE_MAX && c->nearest[j] == parent)
            at = c->second[j];
        at = fmaxf(at, first);
        if (parent != SIZE_MAX)
            at = fmaxf(at, c->fresh[(row + 1) * c->samples + j]);
        sum -= (double)c->weight[j] * (double)at;
    }
    return sum;
}

/* A splat at the key, as wide as the nearest, and then at the mean of the keys that it covers better than
 * what is left. False: the key would be alone. */
static bool make_birth(const colony *c, const plan *p, size_t key, double *splat, float *reach) {
    size_t dim = c->form.dim, joined = 0;
    memcpy(splat, colony_splat(c, c->nearest[key]), c->form.numbers * sizeof *splat);
    for (size_t d = 0; d < dim; ++d)
        splat[d] = (double)c->features[key * c->pitch + d];
    colony_log_density(c, splat, reach);
    memset(splat, 0, dim * sizeof *splat);
    for (size_t j = 0; j < c->samples; ++j) {
        if (!(reach[j] > left(c, p, j)))
            continue;
        ++joined;
        for (size_t d = 0; d < dim; ++d)
            splat[d] += (double)c->features[j * c->pitch + d];
    }
    for (size_t d = 0; d < dim; ++d)
        splat[d] /= (double)joined;
    colony_log_density(c, splat, reach);
    return joined > 1;
}

/* Births at the keys that weigh most in what is left of the error. */
static void consider_births(colony *c, const model_adaptation *how, double *splat, plan *p) {
    size_t taken[COLONY_BIRTHS];
    for (size_t i = 0; i < COLONY_BIRTHS; ++i) {
        size_t worst = SIZE_MAX;
        for (size_t j = 0; j < c->samples; ++j) {
            bool skip = false;
            for (size_t t = 0; t < i; ++t)
                skip |= taken[t] == j;
            if (!skip &&
                (worst == SIZE_MAX || left(c, p, j) * c->weight[j] < left(c, p, worst) * c->weight[worst]))
                worst = j;
        }
        if (worst == SIZE_MAX || (double)left(c, p, worst) > how->birth_threshold)
            break;
        taken[i] = worst;
        if (!make_birth(c, p, worst, splat, c->fresh + i * c->samples))
            continue;
        double error = error_with(c, p, i, SIZE_MAX);
        if (error < p->error) {
            memcpy(p->come, splat, c->form.numbers * sizeof *splat);
            p->error = error, p->parent = SIZE_MAX;
            p->coverage = (double)left(c, p, worst);
        }
    }
}

/* The mitosis of the splat whose keys have the largest part of the error, along their deviation from it. */
static void consider_split(colony *c, const model_adaptation *how, double *room, plan *p) {
    size_t dim = c->form.dim, parent = 0;
    double *delta = room, total = 0, weight = 0, *a = room + dim, *b = a + c->form.numbers,
           *spare = b + c->form.numbers;
    memset(c->cost, 0, c->splats * sizeof *c->cost);
    for (size_t j = 0; j < c->samples; ++j) {
        c->cost[c->nearest[j]] -= (double)c->weight[j] * (double)c->best[j];
        total -= (double)c->weight[j] * (double)c->best[j];
    }
    for (size_t s = 1; s < c->splats; ++s)
        parent = c->cost[s] > c->cost[parent] ? s : parent;
    if (parent == p->out || parent == p->with || c->cost[parent] < how->mitosis_threshold * total)
        return;
    memset(delta, 0, dim * sizeof *delta);
    for (size_t j = 0; j < c->samples; ++j) {
        const float *y = c->features + j * c->pitch;
        double along = 0;
        for (size_t d = 0; c->nearest[j] == parent && d < dim; ++d)
            along += delta[d] * ((double)y[d] - colony_splat(c, parent)[d]);
        for (size_t d = 0; c->nearest[j] == parent && d < dim; ++d)
            delta[d] +=
                (along < 0 ? -1 : 1) * (double)c->weight[j] * ((double)y[d] - colony_splat(c, parent)[d]);
        weight += c->nearest[j] == parent ? (double)c->weight[j] : 0;
    }
    for (size_t d = 0; d < dim; ++d)
        delta[d] /= weight;
    for (unsigned tries = 0; !moments_split(&c->form, colony_splat(c, parent), delta, spare, a, b); ++tries) {
        if (tries == 8)
            return;
        for (size_t d = 0; d < dim; ++d)
            delta[d] /= 2;
    }
    colony_log_density(c, a, c->fresh + COLONY_BIRTHS * c->samples);
    colony_log_density(c, b, c->fresh + (COLONY_BIRTHS + 1) * c->samples);
    double error = error_with(c, p, COLONY_BIRTHS, parent);
    if (error < p->error) {
        memcpy(p->come, a, c->form.numbers * sizeof *a);
        memcpy(p->child, b, c->form.numbers * sizeof *b);
        p->error = error, p->parent = parent, p->coverage = 0;
        p->blame = c->cost[parent] / total;
    }
}

/* What a decision writes over, to be undone. */
typedef struct keepsake {
    size_t place[3];
    double *splat; /* [3][numbers] */
    splat_life life[3];
} keepsake;

static void keep(const colony *c, const plan *p, keepsake *k) {
    size_t none = p->out;
    k->place[0] = p->out;
    k->place[1] = p->with != SIZE_MAX ? p->with : none;
    k->place[2] = p->parent != SIZE_MAX ? p->parent : none;
    for (size_t i = 0; i < 3; ++i) {
        memcpy(k->splat + i * c->form.numbers, colony_splat(c, k->place[i]),
               c->form.numbers * sizeof *k->splat);
        k->life[i] = c->life[k->place[i]];
    }
}

static void put(colony *c, size_t place, const double *splat) {
    memcpy(colony_splat(c, place), splat, c->form.numbers * sizeof *splat);
    colony_log_density(c, splat, c->reach + place * c->samples);
}

static void restore(colony *c, const keepsake *k) {
    for (size_t i = 3; i-- > 0;) {
        put(c, k->place[i], k->splat + i * c->form.numbers);
        c->life[k->place[i]] = k->life[i];
    }
}

static uint64_t name(colony *c, size_t place, unsigned cycle) {
    c->life[place] = (splat_life){.number = ++*c->named, .born = cycle};
    c->changed[place] = true;
    return c->life[place].number;
}

static clsplat_adapt_event event_of(const colony *c, const clsplat_adapt_event *like,
                                    clsplat_decision decision, const size_t *from, size_t count) {
    clsplat_adapt_event e = *like;
    e.decision = decision;
    for (size_t i = 0; i < count; ++i) {
        const splat_life *life = &c->life[from[i]];
        unsigned age = like->cycle - life->born;
        e.from[i] = life->number;
        e.age = age > e.age ? age : e.age;
        e.use += c->use[from[i]];
        e.entropy = fmax(e.entropy, c->entropy[from[i]]);
        e.leave_one_out += c->leave_one_out[from[i]];
    }
    return e;
}

/* The two halves of a decision, as events; `to` is filled in once it is kept. */
static void describe(const colony *c, const clsplat_adapt_event *like, const plan *p, double before,
                     clsplat_adapt_event event[2]) {
    size_t pair[2] = {p->out, p->with};
    bool merges = p->with != SIZE_MAX, splits = p->parent != SIZE_MAX;
    event[0] = event_of(c, like, merges ? CLSPLAT_MERGE : CLSPLAT_DEATH, pair, merges ? 2 : 1);
    event[1] = event_of(c, like, splits ? CLSPLAT_MITOSIS : CLSPLAT_BIRTH, &p->parent, splits ? 1 : 0);
    event[1].coverage = p->coverage;
    event[1].expected_gain = splits ? p->blame : (before - p->error) / fmax(before, 1e-30);
}

static void make(colony *c, const plan *p) {
    size_t vacant = p->with != SIZE_MAX ? p->with : p->out;
    if (p->with != SIZE_MAX)
        put(c, p->out, p->merged);
    put(c, p->parent != SIZE_MAX ? p->parent : vacant, p->come);
    if (p->parent != SIZE_MAX)
        put(c, vacant, p->child);
    colony_find_best(c);
}

static void name_all(colony *c, const plan *p, unsigned cycle, clsplat_adapt_event event[2]) {
    size_t vacant = p->with != SIZE_MAX ? p->with : p->out;
    if (p->with != SIZE_MAX)
        event[0].to[0] = name(c, p->out, cycle);
    event[1].to[0] = name(c, p->parent != SIZE_MAX ? p->parent : vacant, cycle);
    if (p->parent != SIZE_MAX)
        event[1].to[1] = name(c, vacant, cycle);
}

/* Returns: whether there was a decision that stays. `room`: of splats and widths. */
static bool decide(colony *c, const model_adaptation *how, const clsplat_adapt_event *like, double *room,
                   clsplat_adapt_listener *listener, void *user) {
    size_t n = c->form.numbers;
    plan p = {.out = cheapest_death(c, how->patience),
              .with = SIZE_MAX,
              .parent = SIZE_MAX,
              .merged = room,
              .come = room + n,
              .child = room + 2 * n,
              .error = INFINITY};
    keepsake k = {.splat = room + 3 * n};
    clsplat_adapt_event event[2];
    double before = colony_error_now(c), *rest = room + 6 * n;
    consider_merge(c, rest, &p);
    consider_births(c, how, rest, &p);
    consider_split(c, how, rest, &p);
    if (!(p.error < INFINITY))
        return false;
    describe(c, like, &p, before, event);
    keep(c, &p, &k);
    make(c, &p);
    double after = colony_error_now(c);
    bool kept = after < before * (1 - how->least_gain);
    if (kept) {
        name_all(c, &p, like->cycle, event);
    } else {
        restore(c, &k);
        colony_find_best(c);
    }
    for (size_t i = 0; i < 2 && listener; ++i) {
        event[i].error_before = before, event[i].error_after = after;
        event[i].kept = kept;
        listener(user, &event[i]);
    }
    return kept;
}

static double recent_coverage(const colony *c) {
    double sum = 0;
    for (size_t j = c->recent; j < c->samples; ++j)
        sum += (double)c->best[j];
    return c->samples > c->recent ? sum / (double)(c->samples - c->recent) : 0;
}

colony_result colony_adapt(colony *c, const model_adaptation *how, const clsplat_adapt_event *like,
                           clsplat_adapt_listener *listener, void *user) {
    colony_result result = {0};
    double *room = malloc((9 * c->form.numbers + 4 * c->form.dim) * sizeof *room);
    result.before = colony_error(c);
    result.recent_before = recent_coverage(c);
    colony_find_use(c);
    for (size_t s = 0; s < c->splats; ++s) {
        bool hungry = c->use[s] < how->death_threshold / (double)c->splats;
        c->life[s].starved = hungry ? c->life[s].starved + 1 : 0;
    }
    while (room && c->splats > 1 && result.made < how->most && colony_error_now(c) > how->enough &&
           decide(c, how, like, room, listener, user))
        ++result.made;
    result.after = colony_error_now(c);
    result.recent_after = recent_coverage(c);
    free(room);
    return result;
}
