/* OpenCL's handles without OpenCL's headers, for programs that bring none: what <CL/cl.h> itself declares, so
 * that both may meet in one file. device.h includes this one instead if CLSPLAT_WITHOUT_CL is defined. */
#ifndef CLSPLAT_HANDLES_H
#define CLSPLAT_HANDLES_H

#include <stdint.h>

typedef uint32_t cl_uint;
typedef struct _cl_device_id *cl_device_id;
typedef struct _cl_context *cl_context;
typedef struct _cl_command_queue *cl_command_queue;
typedef struct _cl_mem *cl_mem;
typedef struct _cl_event *cl_event;

#endif
