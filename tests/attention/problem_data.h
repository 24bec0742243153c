/* What a problem's tensors and splats hold. */
#ifndef CLSPLAT_TESTS_PROBLEM_DATA_H
#define CLSPLAT_TESTS_PROBLEM_DATA_H

#include "attention/problem.h"

/* Random numbers from the seed, of the kind that the spec asks for. Padding keys hold enormous numbers. */
void problem_fill(problem *p, uint64_t seed);

#endif
