/* Attention and its splat form of a few rows, key by key. */
#ifndef CLSPLAT_ADAPT_PAIRS_H
#define CLSPLAT_ADAPT_PAIRS_H

#include "adapt/layer.h"

/* What the divergences of one row are made of: entropies of p and g, and Σ p ln(p/g), and the Jensen–Shannon
 * divergence. A row that sees no key has seen 0 and else 0s. */
typedef struct pair_row {
    bool seen;
    double attention_entropy, form_entropy, kullback_leibler, jensen_shannon;
} pair_row;

/* For each of the first `count` looked-at rows that are `spacing` apart, of each query head: rows
 * [B·H][count]. */
clsplat_status pairs_measure(layer *l, clsplat_splats *set, size_t count, size_t spacing, pair_row *rows);

#endif
