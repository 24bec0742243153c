/* The first means of a level, by each method of clsplat_init. */
#ifndef CLSPLAT_ATTENTION_SEED_H
#define CLSPLAT_ATTENTION_SEED_H

#include <clsplat/splats.h>

#include "attention/cluster.h"

/* Leaves `splats` means in set->fit.means, after the Lloyd steps that the method wants.
 * Returns: UNSUPPORTED without LAPACKE, INVALID if the method cannot make so many, MEMORY, OPENCL. */
clsplat_status seed_means(cluster_set *set, const clsplat_init *init, random_state *random, size_t splats);

#endif
