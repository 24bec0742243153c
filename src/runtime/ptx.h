/* Instructions that NVIDIA's OpenCL compiler does not know.
 *
 * It compiles for the plain target of an architecture ("sm_90"), whose assembler refuses what the
 * architecture's own target
 * ("sm_90a") has, such as Hopper's matrix instructions. So kernels write these lines as comments in inline
 * assembly, which pass through the compiler with their operands filled in:
 *
 *     __asm__ volatile("// sm_90a: wgmma.fence.sync.aligned;");
 *     __asm__ volatile("// sm_90a entry: .minnctapersm 3");       a directive of the kernel that it stands in
 *
 * and the driver's PTX, with the comments opened and the target changed, is handed back to it as a program
 * binary. */
#ifndef CLSPLAT_RUNTIME_PTX_H
#define CLSPLAT_RUNTIME_PTX_H

#include "base/text.h"

/* How a kernel's source shows that it may have such lines. */
#define PTX_MARK "// sm_90a"

/* Bytes of local memory that such lines may declare for a group of sm_90: more than OpenCL promises. */
enum { PTX_LOCAL_MEMORY = 227 << 10 };

/* The PTX with the comments opened; an empty text if it has none, or is no PTX for sm_90 at all. `ptx` ends
 * with a 0 byte. */
text ptx_opened(const char *ptx);

#endif
