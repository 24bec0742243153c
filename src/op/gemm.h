/* What the rows of the matrix product share. */
#ifndef CLSPLAT_OP_GEMM_H
#define CLSPLAT_OP_GEMM_H

#include "op/op.h"
#include "tune/space.h"

work gemm_work(const op_gemm_args *args);

/* The row of CLBlast, in builds that have it. */
bool gemm_clblast_fits(const clsplat_limits *limits, const void *args);
clsplat_status gemm_clblast_run(queue *q, const void *args);
extern const tune_space gemm_clblast_space;

#endif
