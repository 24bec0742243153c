/* What the kernels of the backward pass of Gaussian attention share. */
#ifndef CLSPLAT_OP_SPLAT_BACKWARD_KERNEL_H
#define CLSPLAT_OP_SPLAT_BACKWARD_KERNEL_H

#include "op/backward.h"
#include "op/kernel.h"

/* Levels, mixing and the set's numbers that are no geometry, in the order that all kernels have them. */
void launch_mixture(launch *l, const op_splats *splats, clsplat_mixing mixing);

static inline size_t tiles_of(size_t rows, size_t tile) {
    return (rows + tile - 1) / tile;
}

/* One for every row and splat. */
double log_density_count(const op_splats *splats, const op_tensor *rows);

/* For tuning records: rows against splats. */
void backward_shape(const op_splats *splats, const op_tensor *rows, bool causal, tune_shape *shape);

/* Register tiles (cl/shared/wide_backward.clh): rows of a work-item, what may be tuned, and whether splats
 * and value columns fill whole vectors. */
enum { BACKWARD_TILE = 64 };
extern const tune_space backward_wide_space;
void options_backward_wide(kernel_options *o, const queue *q, size_t tile);
bool splats_fill_vectors(const clsplat_limits *limits, const op_splats *splats, size_t value_dim);
/* The same for splats and columns of tokens, and whether these are exact enough from a common centre. */
bool backward_tokens_are_wide(const clsplat_limits *limits, const op_splats *splats);
/* The same for kernels that keep a row's weights of all splats. */
bool causal_fills_vectors(const clsplat_limits *limits, const op_splats *splats, size_t value_dim,
                          clsplat_mixing mixing);

#endif
