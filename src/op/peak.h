/* What a device can do at most: the measure of every other rate. */
#ifndef CLSPLAT_OP_PEAK_H
#define CLSPLAT_OP_PEAK_H

#include "runtime/device.h"

typedef struct op_peak {
    double flops; /* per second, of multiply-adds in registers, counted as two each */
    double bytes; /* per second, of a copy: read and written ones together */
} op_peak;

/* Blocks: for about a second. */
clsplat_status op_peak_measure(clsplat_device *device, op_peak *peak);

#endif
