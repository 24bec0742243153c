/* CLSplat: attention over long contexts on any OpenCL device.
 *
 * The story, in the order a program meets it:
 *
 *   status.h     a library handle; every call answers with a status, and with words on request
 *   device.h     the devices there are, and one opened: yours (your context and queue) or ours
 *   tensor.h     your numbers, in host memory or in a buffer, described and never copied or owned
 *   splats.h     the Gaussians between queries and keys: made from data, loaded, saved
 *   attention.h  the attention itself: exact, or through the splats in linear cost
 *   adapt.h      splats that are born, split, merge and die until they serve a layer better
 *   metrics.h    what splats do for a layer: entropies, divergences, who contributes
 *   health.h     what can go wrong with splats, found and mended
 *   model.h      a pretrained language model: text in, text out, on all of the above
 *   tune.h       the fastest variants on a device, found once and remembered
 *   group.h      several devices of one process on one attention
 *
 * Not included here: mpi.h and ranks.h, one attention over several processes; where the library has MPI.
 *
 * Parameters are structs passed by value that start from clsplat_x_defaults(). A destroy call takes
 * the address of the handle, accepts NULL and sets it to NULL. Nothing blocks unless its comment says
 * `Blocks`; nothing prints, exits or keeps globals. */
#ifndef CLSPLAT_H
#define CLSPLAT_H

#include <clsplat/adapt.h>
#include <clsplat/attention.h>
#include <clsplat/device.h>
#include <clsplat/group.h>
#include <clsplat/health.h>
#include <clsplat/metrics.h>
#include <clsplat/model.h>
#include <clsplat/splats.h>
#include <clsplat/status.h>
#include <clsplat/tensor.h>
#include <clsplat/tune.h>

#define CLSPLAT_VERSION_MAJOR 0
#define CLSPLAT_VERSION_MINOR 1
#define CLSPLAT_VERSION_PATCH 0

#ifdef __cplusplus
extern "C" {
#endif

/* The version that runs, as "0.1.0"; the macros above are the version that was compiled against. */
CLSPLAT_API const char *clsplat_version(void);

#ifdef __cplusplus
}
#endif
#endif
