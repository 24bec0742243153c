#include "splats/cluster.h"

#include <stdlib.h>
#include <string.h>

clsplat_status cluster_create(clsplat_device *device, const float *tokens, size_t count, size_t dim,
                              size_t splats, cluster_set *set) {
    clsplat_status status = CLSPLAT_OK;
    *set = (cluster_set){.tokens = tokens};
    queue_begin(device, 0, NULL, &set->queue);
    set->nearest = malloc(count * sizeof *set->nearest);
    set->distance = malloc(count * sizeof *set->distance);
    set->order = malloc(count * sizeof *set->order);
    set->begin = malloc((splats + 1) * sizeof *set->begin);
    set->picked = malloc(splats * sizeof *set->picked);
    if (!set->nearest || !set->distance || !set->order || !set->begin || !set->picked) {
        status = log_error(device->lib, CLSPLAT_MEMORY, "no memory for the clusters of %zu tokens", count);
        goto fail;
    }
    TRY(op_fit_create(&set->queue, tokens, count, dim, splats, &set->fit));
    return CLSPLAT_OK;
fail:
    cluster_release(set);
    return status;
}

void cluster_release(cluster_set *set) {
    if (set->queue.device)
        op_fit_release(set->queue.device, &set->fit);
    free(set->nearest);
    free(set->distance);
    free(set->order);
    free(set->begin);
    free(set->picked);
    *set = (cluster_set){0};
}

clsplat_status cluster_take_picked(cluster_set *set, size_t first, size_t last) {
    clsplat_status status = CLSPLAT_OK;
    size_t dim = set->fit.dim;
    for (size_t s = first; s < last; ++s)
        TRY(op_fit_put(&set->queue, set->fit.means, s * dim, dim, set->tokens + set->picked[s] * dim));
fail:
    return status;
}

/* A token drawn with a probability proportional to its distance. */
static size_t draw(const cluster_set *set, random_state *random) {
    double total = 0;
    for (size_t i = 0; i < set->fit.count; ++i)
        total += (double)set->distance[i];
    if (!(total > 0))
        return random_below(random, set->fit.count);
    double left = random_uniform(random) * total;
    size_t last = 0; /* the last token that could be drawn: rounding may leave a rest */
    for (size_t i = 0; i < set->fit.count; ++i) {
        if (set->distance[i] <= 0)
            continue;
        last = i;
        left -= (double)set->distance[i];
        if (left < 0)
            break;
    }
    return last;
}

clsplat_status cluster_seed(cluster_set *set, random_state *random, size_t first, size_t last) {
    clsplat_status status = CLSPLAT_OK;
    for (size_t s = 0; s < first; ++s)
        TRY(op_fit_closer(&set->queue, &set->fit, s, s == 0));
    for (size_t s = first; s < last; ++s) {
        if (s == 0) {
            set->picked[s] = random_below(random, set->fit.count);
        } else {
            TRY(op_fit_get(&set->queue, set->fit.distance, 0, set->fit.count, set->distance));
            set->picked[s] = draw(set, random);
        }
        TRY(cluster_take_picked(set, s, s + 1));
        TRY(op_fit_closer(&set->queue, &set->fit, s, s == 0));
    }
fail:
    return status;
}

/* A counting sort by cluster. */
static void sort_members(cluster_set *set, size_t splats) {
    uint32_t *begin = set->begin;
    memset(begin, 0, (splats + 1) * sizeof *begin);
    for (size_t i = 0; i < set->fit.count; ++i)
        ++begin[set->nearest[i] + 1];
    for (size_t s = 0; s < splats; ++s)
        begin[s + 1] += begin[s];
    for (size_t i = 0; i < set->fit.count; ++i)
        set->order[begin[set->nearest[i]]++] = (uint32_t)i;
    for (size_t s = splats; s > 0; --s) /* the sort left each cluster's begin at the next one's */
        begin[s] = begin[s - 1];
    begin[0] = 0;
}

clsplat_status cluster_group(cluster_set *set, size_t splats) {
    clsplat_status status = CLSPLAT_OK;
    sort_members(set, splats);
    TRY(op_fit_put(&set->queue, set->fit.order, 0, set->fit.count, set->order));
    TRY(op_fit_put(&set->queue, set->fit.begin, 0, splats + 1, set->begin));
fail:
    return status;
}

clsplat_status cluster_assign(cluster_set *set, size_t splats) {
    clsplat_status status = CLSPLAT_OK;
    TRY(op_fit_nearest(&set->queue, &set->fit, splats));
    TRY(op_fit_get(&set->queue, set->fit.nearest, 0, set->fit.count, set->nearest));
    TRY(op_fit_get(&set->queue, set->fit.distance, 0, set->fit.count, set->distance));
    TRY(cluster_group(set, splats));
fail:
    return status;
}

/* Each mean without tokens takes the token farthest from its own mean, a different one each. */
static clsplat_status revive(cluster_set *set, size_t fixed, size_t splats) {
    clsplat_status status = CLSPLAT_OK;
    for (size_t s = fixed; s < splats; ++s) {
        if (set->begin[s] < set->begin[s + 1])
            continue;
        size_t farthest = 0;
        for (size_t i = 1; i < set->fit.count; ++i)
            if (set->distance[i] > set->distance[farthest])
                farthest = i;
        if (set->distance[farthest] <= 0)
            break; /* every token lies on a mean */
        set->distance[farthest] = 0;
        set->picked[s] = farthest;
        TRY(cluster_take_picked(set, s, s + 1));
    }
fail:
    return status;
}

/* The first `fixed` means, kept over a step that moves all of them. */
static clsplat_status step(cluster_set *set, size_t fixed, size_t splats, float *kept) {
    clsplat_status status = CLSPLAT_OK;
    size_t dim = set->fit.dim;
    TRY(cluster_assign(set, splats));
    if (fixed)
        TRY(op_fit_get(&set->queue, set->fit.means, 0, fixed * dim, kept));
    TRY(op_fit_moments(&set->queue, &set->fit, splats));
    if (fixed)
        TRY(op_fit_put(&set->queue, set->fit.means, 0, fixed * dim, kept));
    TRY(revive(set, fixed, splats));
fail:
    return status;
}

clsplat_status cluster_refine(cluster_set *set, size_t fixed, size_t splats, unsigned steps) {
    clsplat_status status = CLSPLAT_OK;
    float *kept = malloc((fixed + 1) * set->fit.dim * sizeof *kept);
    if (!kept)
        return log_error(set->queue.device->lib, CLSPLAT_MEMORY, "no memory for %zu means", fixed);
    for (unsigned i = 0; i < steps; ++i)
        TRY(step(set, fixed, splats, kept));
fail:
    free(kept);
    return status;
}
