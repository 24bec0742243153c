/* Growing is adapting a set of one splat a level. */
#include <clsplat/adapt.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/sized.h"
#include "runtime/device.h"

clsplat_status clsplat_splats_grow_sized(clsplat_device *device, const clsplat_init *init_given,
                                         const clsplat_adapt *adapt_given,
                                         const clsplat_attention_tensors *tensors_given,
                                         clsplat_splats **splats, clsplat_adapt_result *result) {
    clsplat_init init = clsplat_init_defaults();
    clsplat_adapt adapt = clsplat_adapt_defaults();
    clsplat_attention_tensors tensors = {0};
    clsplat_status status = CLSPLAT_OK;
    clsplat_hierarchy usual = {0}, seed;
    clsplat_splats *first = NULL;
    size_t *ones = NULL;
    *splats = NULL;
    TRY(SIZED_READ(device->lib, init, init_given));
    TRY(SIZED_READ(device->lib, adapt, adapt_given));
    TRY(SIZED_READ(device->lib, tensors, tensors_given));
    if (!init.hierarchy) {
        TRY(clsplat_hierarchy_default(device->lib, &usual));
        init.hierarchy = &usual;
    }
    seed = *init.hierarchy;
    ones = malloc((seed.levels + 1) * sizeof *ones);
    if (!ones) {
        status = log_error(device->lib, CLSPLAT_MEMORY, "no memory for %zu levels", seed.levels);
        goto fail;
    }
    for (size_t l = 0; l < seed.levels; ++l)
        ones[l] = 1;
    adapt.least = adapt.most = seed.counts;
    adapt.cycles = adapt.cycles ? adapt.cycles : 1;
    seed.counts = ones;
    init.hierarchy = &seed;
    init.method = CLSPLAT_INIT_KMEANS;
    init.progress = NULL;
    TRY(clsplat_splats_init(device, init, tensors.q, tensors.k, &first));
    TRY(clsplat_splats_adapt(device, adapt, tensors, first, splats, result));
fail:
    clsplat_splats_destroy(&first);
    clsplat_hierarchy_free(&usual);
    free(ones);
    return status;
}
