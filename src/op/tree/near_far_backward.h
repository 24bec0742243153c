/* What the rows of near-far attention's gradients share. */
#ifndef CLSPLAT_OP_TREE_NEAR_FAR_BACKWARD_H
#define CLSPLAT_OP_TREE_NEAR_FAR_BACKWARD_H

#include "op/backward.h"
#include "op/tree/near_far.h"

/* What the kernels leave for each other. */
typedef enum near_far_back_buffer {
    BACK_OUT,
    BACK_LSE,
    BACK_KEPT,
    BACK_ROWS,
    BACK_COVARIANCE_TERMS,
    BACK_SLOTS,
    BACK_NODES,
    BACK_VARIANCES,
    BACK_RUN_MASSES,
    BACK_RUN_SUMS,
    BACK_RUN_SLOPES,
    BACK_HASHES,
    BACK_PLACES,
    BACK_BELOW,   /* of the plain row alone */
    BACK_NOTES,   /* of the row in local memory alone */
    BACK_SPREADS, /* likewise, and the next one */
    BACK_SPREADS_BACK,
    BACK_KEY_ROWS, /* turned for near_far_back_wide.cl, from here on */
    BACK_VALUE_LANES,
    BACK_MEAN_ROWS,
    BACK_MEAN_VALUE_LANES,
    BACK_VARIANCE_ROWS,
    BACK_BUFFERS
} near_far_back_buffer;

/* One backward pass on its way. */
typedef struct near_far_back {
    queue *q;
    const op_near_far_backward_args *a;
    op_near_far_args forward;
    bool turned; /* with turned trees, and sums in rows */
    bool noted;  /* by what rows noted */
    cl_mem mem[BACK_BUFFERS];
} near_far_back;

void near_far_back_sizes(const op_forest *forest, size_t rows, size_t bytes[BACK_BUFFERS]);

/* Takes the buffers: sums for so many ranges of rows, all 0, and those that `p` says are wanted. */
clsplat_status near_far_back_begin(queue *q, const op_near_far_backward_args *args, size_t ranges,
                                   near_far_back *p);
/* The forward pass by the row of this name, or the plain one, with what it decided, unless the caller has it.
 */
clsplat_status near_far_back_again(near_far_back *p, const char *row);
/* Arguments of kernels that go by rows, from `out` to `covariance_terms`; with `kept` unless there are notes.
 */
void near_far_back_launch_rows(launch *l, const kernel_options *o, const near_far_back *p);
/* From nodes down to slots, and which slot each key is in. */
clsplat_status near_far_back_down(const near_far_back *p);

/* Options of all kernels; `alone`: a work-item is work enough for a CPU's core. */
void options_near_far_back(kernel_options *o, const near_far_back *p, bool alone);
/* The same for options that are begun. */
void options_near_far_back_add(kernel_options *o, const near_far_back *p);
void launch_near_far_sums(launch *l, const near_far_back *p);
/* Begins the launch of a kernel that has the forward pass's inputs first. */
clsplat_status near_far_back_open(const near_far_back *p, kernel_options *o, const char *source,
                                  const char *kernel, launch *l);

/* What the covariances of runs receive. Strips of value columns, equal parts, that kernels may take one at a
 * time: the most of any device, and those of this one. */
clsplat_status near_far_back_runs(const near_far_back *p);
size_t near_far_back_strips(const op_forest *f);
size_t near_far_back_strips_of(const near_far_back *p);

/* Which slot each key is in; and what it gets of that, and of the rows of its own chunk. */
clsplat_status near_far_back_places(const near_far_back *p);
clsplat_status near_far_back_keys(const near_far_back *p);

/* What kernels that end at the keys have in common: options of dk, dv and dkey_bias; slots, places and these
 * as the last arguments, and a work-item a key. */
void options_near_far_keys(kernel_options *o, const op_near_far_backward_args *args);
clsplat_status run_near_far_keys(launch *l, const kernel_options *o, const near_far_back *p);

/* Tiles in local memory, by notes that rows have made: whether these trees and so many rows may be noted; the
 * passes over rows, nodes and slots. */
bool near_far_back_notes(const clsplat_limits *limits, const op_forest *forest, size_t rows);
clsplat_status near_far_back_tiles(const near_far_back *p);

/* Tiles of rows that share loads, on a CPU: whether they may be for these trees, which are turned then, and
 * ranges of at most so many tiles, each with sums of its own. */
bool near_far_back_turns(const clsplat_limits *limits, const op_forest *forest);
size_t near_far_back_ranges(const clsplat_limits *limits, const op_forest *forest, size_t tiles);
extern const tune_space near_far_back_wide_space;
bool near_far_back_wide_fits(const clsplat_limits *limits, const void *args);
clsplat_status near_far_back_wide_run(queue *q, const void *args);

#endif
