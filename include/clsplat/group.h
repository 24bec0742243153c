/* Several devices of one process that work on one attention: GPUs of a machine, or its CPU beside its GPU.
 *
 * The work is cut into units of batch entries, heads and, for softmax attention, runs of queries; who is
 * ready takes the next one, so that each gets what its speed is worth. Speeds are measured: on a small part
 * of the call before it begins, and then by every unit. A device takes no unit that the others would have
 * done before it.
 *
 * Where the units are cut depends on the shapes and on the number of devices only, so that devices of one
 * kind give the same bits every time; of different kinds they do not, since one time the one is faster and
 * one time the other. */
#ifndef CLSPLAT_GROUP_H
#define CLSPLAT_GROUP_H

#include <clsplat/attention.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct clsplat_group clsplat_group;

/* `which`: "all", every device that can be opened but those that end long loops early; or several separated
 * by commas, each as clsplat_device_open takes it; the same one may be there twice. Ownership: *group is the
 * caller's. Blocks: while the drivers start. Threads: one at a time; the library starts one for each device
 * during a call. Returns: as clsplat_device_open. */
CLSPLAT_API clsplat_status clsplat_group_open(clsplat *lib, const char *which, clsplat_group **group);
/* Accepts NULL and a NULL handle; sets *group to NULL. */
CLSPLAT_API void clsplat_group_close(clsplat_group **group);

/* Whether clsplat_group_open is meant: "all", or words with a comma. NULL: no. */
CLSPLAT_API bool clsplat_group_named(const char *which);

CLSPLAT_API size_t clsplat_group_count(const clsplat_group *group);
/* Ownership: the group's, which alone may use it. */
CLSPLAT_API clsplat_device *clsplat_group_device(const clsplat_group *group, size_t index);

/* clsplat_attend by all devices. All tensors in host memory.
 * Writes: out, lse, exact_keys, error_estimate. Blocks. Returns: as clsplat_attend; the words name the device
 * that failed. After a failure the results hold anything. */
CLSPLAT_API clsplat_status clsplat_group_attend_sized(clsplat_group *group,
                                                      const clsplat_attention *attention,
                                                      const clsplat_attention_tensors *tensors);
static inline clsplat_status clsplat_group_attend(clsplat_group *group, clsplat_attention attention,
                                                  clsplat_attention_tensors tensors) {
    attention.size = sizeof attention;
    tensors.size = sizeof tensors;
    return clsplat_group_attend_sized(group, &attention, &tensors);
}

/* What a device had of the last call: its share of the work, and how long it was at it. */
typedef struct clsplat_group_share {
    double share;   /* 0 to 1 */
    double seconds; /* without what measuring took */
    size_t units;
} clsplat_group_share;
CLSPLAT_API clsplat_group_share clsplat_group_share_of(const clsplat_group *group, size_t index);

#ifdef __cplusplus
}
#endif
#endif
