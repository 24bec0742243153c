/* One kernel launch: arguments in order, each with its parameter's name in the kernel, then the grid. The
 * kernel's own list of parameters is the list: builds with assertions compare the two (launch_check.h).
 *
 *     launch l = launch_of(kernel, "softmax");
 *     launch_mem(&l, "q", q.mem);
 *     launch_uint(&l, "queries", n);
 *     TRY(launch_run(&l, &queue, grid_of(rows, heads, batch, 64), (work){.flops = …, .bytes = …})); */
#ifndef CLSPLAT_RUNTIME_LAUNCH_H
#define CLSPLAT_RUNTIME_LAUNCH_H

#include "runtime/queue.h"

/* What a kernel has been told, for launch_check.h. */
enum { LAUNCH_ARGUMENTS = 64 };
#define LAUNCH_LAYOUT "_at"
typedef struct launch_argument {
    enum { LAUNCH_BYTES, LAUNCH_MEM, LAUNCH_NUMBER, LAUNCH_FLOAT } kind;
    size_t bytes;
    const char *name, *end; /* of the parameter, in two pieces */
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
/* Ownership: names are borrowed until the launch has run; literals. */
void launch_mem(launch *l, const char *name, cl_mem mem);
void launch_int(launch *l, const char *name, int32_t value);
void launch_uint(launch *l, const char *name, uint32_t value);
void launch_float(launch *l, const char *name, float value);
void launch_bytes(launch *l, const char *name, const void *bytes, size_t count);
/* The same for NAME_at: the layout of the buffer NAME, which a kernel of one tensor may also call `at`. */
void launch_layout(launch *l, const char *name, const void *bytes, size_t count);
/* Enqueues the kernel; nothing if the grid is empty. Returns: UNSUPPORTED if a group is larger than the
 * device's limits allow, OPENCL. Blocks: only while profiling by the wall clock. */
clsplat_status launch_run(launch *l, queue *q, grid g, work w);

#endif
