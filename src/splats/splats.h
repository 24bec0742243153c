/* A splat set as the inside sees it. */
#ifndef CLSPLAT_SPLATS_SPLATS_H
#define CLSPLAT_SPLATS_SPLATS_H

#include <clsplat/splats.h>

#include "op/op.h"

/* What a set looks like on one of the devices that it was used on. */
typedef struct splats_upload_state {
    struct splats_upload_state *next;
    uint64_t device;  /* clsplat_device.serial */
    uint64_t version; /* of the parameters */
    op_splats ready;
} splats_upload_state;

struct clsplat_splats {
    clsplat *lib;
    clsplat_splats_parameters parameters;
    char **level_names;
    uint64_t version;             /* grows with clsplat_splats_changed */
    splats_upload_state *uploads; /* a list */
    pthread_mutex_t lock;         /* of the list */
};

/* Numbers per splat: of log_var, or of precision_chol for a full covariance. */
size_t splats_covariance_size(const clsplat_splats_shape *shape);

/* Returns: `bad`, naming the first tensor and element that is not finite or out of range, with `where` in
 * front: "" for parameters in memory, the file otherwise. */
clsplat_status splats_check(const clsplat_splats *splats, clsplat_status bad, const char *where);

/* The set on the device: uploaded on first use there and after a change, otherwise as it is. Ownership: the
 * set's. Blocks: while it uploads. Threads: any, of as many devices. */
clsplat_status splats_upload(clsplat_device *device, clsplat_splats *splats, const op_splats **ready);
/* Takes it off all devices, and off the memory figures of those that are still open. */
void splats_uploads_release(clsplat_splats *splats);

#endif
