/* From the moments that the device sums to the gradients of a set's parameters. */
#ifndef CLSPLAT_ATTENTION_SPLATS_GRADIENT_H
#define CLSPLAT_ATTENTION_SPLATS_GRADIENT_H

#include <clsplat/attention.h>

/* Shapes: moments [Hs,S,op_moments_size] in the order of the uploaded set, sorted by level; level_gradients
 * [L], what the levels' log-weights receive in per-level mixing; NULL in joint mixing, where their splats'
 * amplitudes tell. Writes: what is not NULL in `gradient`. Returns: MEMORY. */
clsplat_status splats_gradient_finish(clsplat_splats *splats, const float *moments,
                                      const double *level_gradients, const clsplat_splats_gradient *gradient);

#endif
