/* What holds for every attention bit for bit, whatever the method. Each call fails the running test if it
 * does not. */
#ifndef CLSPLAT_TESTS_PROPERTIES_H
#define CLSPLAT_TESTS_PROPERTIES_H

#include "attention/problem.h"

/* Shape, heads, bias and data drawn from a seed; head dimensions are those of the tables, so that few
 * programs are built. No splats. */
problem_spec properties_random(uint64_t seed);

/* With the spec made causal: a later token of k, v and key_bias changes, a little or enormously, and every
 * row before it keeps out and lse. */
void properties_causal(const problem_spec *spec, uint64_t seed);

/* Three runs on one device handle and one on a second handle. */
void properties_repeatable(const problem_spec *spec, uint64_t seed);

/* What padding keys hold leaves no trace. The spec's bias has holes. */
void properties_padding(const problem_spec *spec, uint64_t seed);

/* A NaN in one query leaves the other rows as they were. */
void properties_nan_query(const problem_spec *spec, uint64_t seed);

#endif
