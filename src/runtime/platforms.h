/* OpenCL platforms: the loader's, and those of drivers that were installed where no loader looks. */
#ifndef CLSPLAT_RUNTIME_PLATFORMS_H
#define CLSPLAT_RUNTIME_PLATFORMS_H

#include "runtime/device.h"

/* Ownership: *platforms is the caller's, to be freed. Returns: NO_DEVICE if there is none, with how to
 * install one; OPENCL, MEMORY. */
clsplat_status platforms_read(clsplat *lib, cl_platform_id **platforms, size_t *count);

#define PLATFORMS_INSTALL                                                                                    \
    "Install a driver (on Debian pocl-opencl-icd for any CPU, or your GPU vendor's OpenCL package); it "     \
    "puts a file that ends in .icd into /etc/OpenCL/vendors, unless OCL_ICD_VENDORS names another folder."

#endif
