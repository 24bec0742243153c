/* What the kinds of splat files share: whole (splats_file.c), compact (splats_compact.c), against a base
 * (splats_delta.c). */
#ifndef CLSPLAT_SPLATS_FILE_H
#define CLSPLAT_SPLATS_FILE_H

#include "format/safetensors.h"
#include "splats/splats.h"

/* The numbers that a splat has one or more of: mean, covariance, log_amplitude, log_temperature,
 * [Hs,S,columns]. */
enum { SPLATS_ARRAYS = 4 };
typedef struct splats_array {
    const char *name;
    float *values;
    size_t columns;
} splats_array;
void splats_arrays(const clsplat_splats *set, splats_array arrays[SPLATS_ARRAYS]);

/* Returns: UNSUPPORTED for a version of the format that is newer than this library. */
clsplat_status splats_file_version(clsplat *lib, const safetensors *f);
/* A tensor that must be there, of the given type and rank, with every dimension at least 1. */
clsplat_status splats_file_need(clsplat *lib, const safetensors *f, const char *name, const char *dtype,
                                size_t rank, const safetensors_entry **entry);
/* Dimension d of a tensor must be `size`. */
clsplat_status splats_file_expect(clsplat *lib, const safetensors *f, const safetensors_entry *e, size_t d,
                                  uint64_t size);
/* `level` and `level_log_weight`, of the set's shape. */
clsplat_status splats_file_levels(clsplat *lib, const safetensors *f, clsplat_splats *set);
/* Level names, and the check of all numbers. */
clsplat_status splats_file_finish(clsplat *lib, const safetensors *f, clsplat_splats *set);

/* Writes the tensors with the set's level names, the version, and `extra` pairs of metadata. */
clsplat_status splats_file_write(const clsplat_splats *set, const char *path, const char *version,
                                 const safetensors_output *tensors, size_t count,
                                 const char *const (*extra)[2], size_t extras);

/* A compact file's set. */
clsplat_status splats_read_compact(clsplat *lib, const safetensors *f, clsplat_splats **set);

#endif
