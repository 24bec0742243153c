/* What devices do that their specification does not say: one table, one row a quirk. */
#ifndef CLSPLAT_RUNTIME_QUIRKS_H
#define CLSPLAT_RUNTIME_QUIRKS_H

#include <clsplat/device.h>

typedef enum quirk_flag {
    QUIRK_WALL_CLOCK = 1 << 0,      /* event times are useless */
    QUIRK_SOFTWARE = 1 << 1,        /* a rasteriser in software: ranks below a CPU driver */
    QUIRK_LOOP_LIMIT = 1 << 2,      /* long loops give wrong results: opening it warns */
    QUIRK_LARGE_REGISTERS = 1 << 3, /* kernels that keep much in registers ask for the larger file of them */
    QUIRK_BUFFER_LIMIT = 1 << 4,    /* one buffer may have fewer bytes than the driver says */
    QUIRK_TRUSTS_FOLDER = 1 << 5,   /* takes what its folder keeps of a program as it is, even cut short */
    QUIRK_FAILURES_COMPLETE = 1 << 6, /* failed commands are complete by their status; waiting tells */
} quirk_flag;

typedef struct quirk {
    const char *name;     /* as `clsplat devices` shows it */
    const char *platform; /* part of the platform's name; NULL: any */
    const char *vendor;   /* part of the vendor's name; NULL: any */
    const char *device;   /* part of the device's name; NULL: any */
    const char *driver;   /* how the driver's version begins; NULL: any */
    unsigned flags;
    uint64_t buffer; /* with QUIRK_BUFFER_LIMIT: bytes */
    const char *why; /* measured or reported where */
} quirk;

extern const quirk quirks[];
extern const size_t quirk_count;

/* The flags of all rows that match; their names, comma-separated, go to info->quirks, and what they say of
 * limits to info->limits. */
unsigned quirks_apply(clsplat_device_info *info);

#endif
