/* Whether a launch tells its kernel what the kernel takes: builds with assertions look at every kernel's
 * first launch. */
#ifndef CLSPLAT_RUNTIME_LAUNCH_CHECK_H
#define CLSPLAT_RUNTIME_LAUNCH_CHECK_H

#include "runtime/launch.h"

/* As many arguments, and where the driver knows them (CL_KERNEL_ARG_INFO) each under its parameter's name,
 * buffers where pointers are, floats where floats are, and as many bytes. OpenCL itself need not notice:
 * kernels are kept, with what the launch before told them. Returns: OPENCL, naming the kernel and the
 * argument. */
clsplat_status launch_check(const launch *l, const clsplat_device *device);

#endif
