/* What the rows of the matrix product share. */
#ifndef CLSPLAT_OP_GEMM_GEMM_H
#define CLSPLAT_OP_GEMM_GEMM_H

#include "op/kernel.h"

work gemm_work(const op_gemm_args *args);

/* All rows but CLBlast's take the same arguments. */
clsplat_status gemm_launch(queue *q, const op_gemm_args *args, kernel_options *o, const char *source,
                           const char *kernel, grid g);

/* Few rows of a, as in decoding: b is read once, at the speed of memory. CPUs and GPUs. */
bool gemm_few_fits(const clsplat_limits *limits, const void *args);
clsplat_status gemm_few_run(queue *q, const void *args);

/* The same for a b in blocks, whose integers meet the rows of a as they are. */
bool gemm_blocks_fits(const clsplat_limits *limits, const void *args);
clsplat_status gemm_blocks_run(queue *q, const void *args);

/* Tiles in local memory: GPUs of any vendor, any storage types. */
bool gemm_local_fits(const clsplat_limits *limits, const void *args);
clsplat_status gemm_local_run(queue *q, const void *args);

/* Matrix units: NVIDIA's; AMD's and Intel's. */
bool gemm_mma_fits(const clsplat_limits *limits, const void *args);
clsplat_status gemm_mma_run(queue *q, const void *args);
bool gemm_units_fits(const clsplat_limits *limits, const void *args);
clsplat_status gemm_units_run(queue *q, const void *args);

/* Hopper's matrix instructions. */
bool gemm_wgmma_fits(const clsplat_limits *limits, const void *args);
clsplat_status gemm_wgmma_run(queue *q, const void *args);
extern const tune_space gemm_wgmma_space;

/* The same, which read factors as they lie. */
bool gemm_wgmma_transposed_fits(const clsplat_limits *limits, const void *args);
clsplat_status gemm_wgmma_transposed_run(queue *q, const void *args);
extern const tune_space gemm_wgmma_transposed_space;

/* The row of CLBlast, in builds that have it. */
bool gemm_clblast_fits(const clsplat_limits *limits, const void *args);
clsplat_status gemm_clblast_run(queue *q, const void *args);
extern const tune_space gemm_clblast_space;

#endif
