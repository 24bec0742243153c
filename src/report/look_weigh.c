#include <math.h>
#include <string.h>

#include "report/look.h"

/* Among the strongest, if it is; of equal ones the first stays. */
static void rank(look_row *row, size_t *count, size_t top, uint32_t key, float weight) {
    if (*count == top && weight <= row->weight[top - 1])
        return;
    size_t at = *count < top ? (*count)++ : top - 1;
    for (; at > 0 && row->weight[at - 1] < weight; --at) {
        row->key[at] = row->key[at - 1];
        row->weight[at] = row->weight[at - 1];
    }
    row->key[at] = key;
    row->weight[at] = weight;
}

static float largest(const float *scores, size_t first, size_t end) {
    float most = -INFINITY;
    for (size_t j = first; j < end; ++j)
        most = fmaxf(most, scores[j]);
    return most;
}

void look_weigh(const look *l, float *scores, size_t first, size_t own, const uint8_t *apart, look_row *row) {
    double mass = 0, surprise = 0, own_mass = 0, apart_mass = 0;
    size_t end = row->visible + first, ranked = 0;
    float most = largest(scores, first, end);
    if (!(most > -INFINITY))
        return;
    for (size_t j = first; j < end; ++j) {
        float beside = scores[j] - most, weight = beside > -80 ? expf(beside) : 0;
        scores[j] = weight;
        mass += (double)weight;
        surprise -= (double)weight * (double)fmaxf(beside, -80);
    }
    for (size_t block = 0, j = first; block < LOOK_BLOCKS; ++block) {
        size_t stop = ((block + 1) * l->keys + LOOK_BLOCKS - 1) / LOOK_BLOCKS;
        double sum = 0;
        for (; j < stop && j < end; ++j) {
            sum += (double)scores[j];
            rank(row, &ranked, l->top, (uint32_t)j, (float)((double)scores[j] / mass));
        }
        row->blocks[block] = (float)(sum / mass);
    }
    for (size_t j = own > first ? own : first; j < end; ++j)
        own_mass += (double)scores[j];
    for (size_t j = first; apart && j < end && j < own; ++j)
        apart_mass += apart[j] ? (double)scores[j] : 0;
    row->own = (float)(own_mass / mass);
    row->apart = (float)(apart_mass / mass);
    row->entropy = (float)((log(mass) + surprise / mass) / M_LN2);
}
