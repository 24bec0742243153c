/* The first clusters of a level, by each method of clsplat_init. */
#ifndef CLSPLAT_SPLATS_SEED_H
#define CLSPLAT_SPLATS_SEED_H

#include <clsplat/splats.h>

#include "splats/cluster.h"

/* Leaves `splats` means in set->fit.means, after the Lloyd steps that the method wants, and the tokens
 * grouped by them. Returns: UNSUPPORTED without LAPACKE, INVALID if the method cannot make so many, MEMORY,
 * OPENCL. */
clsplat_status seed_clusters(cluster_set *set, const clsplat_init *init, random_state *random, size_t splats);

/* k-means++ and Lloyd steps; the first `fixed` means are there and stay. */
clsplat_status seed_kmeans(cluster_set *set, random_state *random, size_t fixed, size_t splats,
                           unsigned steps);

/* Clusters of the affinity graph of a sample of landmarks; every token is with its nearest landmark. */
clsplat_status seed_spectral(cluster_set *set, random_state *random, size_t splats, unsigned steps);

#endif
