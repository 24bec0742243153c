/* One kernel launch: arguments in order, then the grid.
 *
 *     launch l = launch_of(kernel, "softmax");
 *     launch_mem(&l, q.mem);
 *     launch_uint(&l, n);
 *     TRY(launch_run(&l, &queue, grid_of(rows, heads, batch, 64), (work){.flops = …, .bytes = …})); */
#ifndef CLSPLAT_RUNTIME_LAUNCH_H
#define CLSPLAT_RUNTIME_LAUNCH_H

#include "runtime/queue.h"

/* What a kernel has been told, for launch_check.h. */
enum { LAUNCH_ARGUMENTS = 64 };
typedef struct launch_argument {
    enum { LAUNCH_BYTES, LAUNCH_MEM, LAUNCH_NUMBER, LAUNCH_FLOAT } kind;
    size_t bytes;
} launch_argument;

typedef struct launch {
    cl_kernel kernel;
    const char *name; /* in profiles and errors */
    cl_uint next;     /* argument */
    cl_int code;      /* the first failure among the arguments */
    launch_argument told[LAUNCH_ARGUMENTS];
} launch;

/* What a launch does, for the profile: see clsplat_profile_row. */
typedef struct work {
    double flops, bytes;
} work;

/* Work-items in all and per group; size is a multiple of group in each dimension. */
typedef struct grid {
    size_t size[3], group[3];
} grid;
/* At least x, y and z work-items, x rounded up to whole groups of group_x by 1 by 1. */
grid grid_of(size_t x, size_t y, size_t z, size_t group_x);

launch launch_of(cl_kernel kernel, const char *name);
void launch_mem(launch *l, cl_mem mem);
void launch_int(launch *l, int32_t value);
void launch_uint(launch *l, uint32_t value);
void launch_float(launch *l, float value);
void launch_bytes(launch *l, const void *bytes, size_t count);
/* Enqueues the kernel; nothing if the grid is empty. Returns: UNSUPPORTED if a group is larger than the
 * device's limits allow, OPENCL. Blocks: only while profiling by the wall clock. */
clsplat_status launch_run(launch *l, queue *q, grid g, work w);

#endif
