/* The gradients of a problem: dout drawn from a seed, every result laid out with NaN all around it, and the
 * float64 reference. */
#ifndef CLSPLAT_TESTS_GRADIENT_H
#define CLSPLAT_TESTS_GRADIENT_H

#include "attention/problem.h"

enum { GRADIENT_DQ, GRADIENT_DK, GRADIENT_DV, GRADIENT_DBIAS, GRADIENT_TENSORS };
enum { GRADIENT_SPLATS = 5 }; /* mean, width, amplitude, temperature, level */

typedef struct gradient {
    problem *p;
    problem_tensor dout, results[GRADIENT_TENSORS];
    float *splats[GRADIENT_SPLATS]; /* with one more number behind, which must stay as it is */
    size_t counts[GRADIENT_SPLATS];
} gradient;

/* Results of the type of the problem's out; dout of that of its q. */
gradient gradient_create(problem *p, uint64_t seed);
void gradient_free(gradient *g);

/* Poisons the results, and computes them: attention first, since its out and lse go in. */
clsplat_status gradient_attend(gradient *g, clsplat_device *device);
/* Fails unless every result is the reference's, and nothing around them was written. */
void gradient_check(gradient *g);

/* All of it, of a problem that is made on the stage. */
void gradient_solve(const problem_spec *spec, uint64_t seed);

/* All results as bytes, to compare runs; to be freed. */
unsigned char *gradient_bytes(const gradient *g, size_t *count);

#endif
