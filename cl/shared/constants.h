/* Numbers that the host and the kernels both count by: C17 and OpenCL C 1.2 read this file. What a launch tells its
 * kernel by -D is not among them. Kernels give them shorter names where they use them. */
#ifndef CLSPLAT_CONSTANTS_H
#define CLSPLAT_CONSTANTS_H

/* Query i sees key j if j ≤ i + diagonal; with this one all. */
#define OP_SEES_ALL 0x7fffffff

/* COVARIANCE of a splat set: clsplat_covariance. */
#define COVARIANCE_ISOTROPIC 0
#define COVARIANCE_DIAGONAL 1
#define COVARIANCE_FULL 2

/* ACTIVATION: op_activation of op.h, which has the formulas. */
#define ACTIVATION_IDENTITY 0
#define ACTIVATION_SILU 1
#define ACTIVATION_GELU 2
#define ACTIVATION_GELU_TANH 3
#define ACTIVATION_RELU 4
#define ACTIVATION_TANH 5
#define ACTIVATION_SOFT_CAP 6

/* Numbers of a row's stats, for the one range of joint mixing or for each level (backward.clh). */
#define OP_STATS 3

/* Tiles in local memory (local_tile.clh): work-items along the sources and the value columns, and sources of each. */
#define OP_LOCAL_ACROSS 8
#define OP_LOCAL_EACH 4

/* Rows and columns of a group's part of a product, in local memory (of so many columns at a time) and on matrix units;
 * of a tile that is transposed. */
#define OP_GEMM_LOCAL_SIDE 64
#define OP_GEMM_LOCAL_STEP 16
#define OP_GEMM_MMA_SIDE 128
#define OP_TRANSPOSE_SIDE 16

/* Forests: levels at most, chunks of a run of covariances, the rows of a node's stats and their number, and what a row
 * keeps of its decisions (op_forest and op_near_far_args of op.h). */
#define OP_FOREST_LEVELS 12
#define OP_FOREST_RUN 4
#define OP_NODE_LOG_MASS 0
#define OP_NODE_VARIANCE 1
#define OP_NODE_SPREAD 2
#define OP_NODE_COUNT 3
#define OP_NODE_REACH 4
#define OP_NODE_STATS 5
#define OP_KEPT 4

/* The walk: a row starts a level higher only if it then has at least so many nodes to start from; numbers that its
 * parts leave for each other, of a look from above and of a state; numbers of a packed node. */
#define OP_ROOTS_LEAST 256
#define OP_LOOK_NUMBERS 4
#define OP_PART_NUMBERS 6
#define OP_PACKED_NUMBERS 7

/* Back: numbers of a row for later kernels, and of a node beside its mean's and its mean value's. */
#define OP_BACK_ROW_NUMBERS 3
#define OP_BACK_NODE_MORE 3

#endif
