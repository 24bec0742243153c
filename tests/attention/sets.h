/* Splat sets to test with: of every covariance, shared or not, from one number up. */
#ifndef CLSPLAT_TESTS_SETS_H
#define CLSPLAT_TESTS_SETS_H

#include "splats/splats.h"
#include "suite.h"

enum { SETS_SHAPES = 5, SETS_ARRAYS = 7 };
extern const clsplat_splats_shape sets_shapes[SETS_SHAPES];

/* All parameters as arrays of 4-byte numbers: floats, and last the levels. Absent ones have count 0. */
typedef struct sets_array {
    const char *name;
    void *data;
    size_t count;
} sets_array;
void sets_list(clsplat_splats *set, sets_array arrays[SETS_ARRAYS]);

/* A fresh set; these three fail the running test if they cannot do it, or find a difference. */
clsplat_splats *sets_create(clsplat *lib, const clsplat_splats_shape *shape);
/* Any finite bits: denormals, −0 and the largest numbers too. */
void sets_fill(clsplat *lib, clsplat_splats *set, uint64_t seed);
/* Shape, names and every bit of the numbers. */
void sets_same(clsplat_splats *a, clsplat_splats *b);

#endif
