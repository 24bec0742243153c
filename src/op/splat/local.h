/* Tiles of local memory for splats and tokens, for GPUs of any vendor: cl/shared/local_tile.clh,
 * cl/splat/local_splat.clh.
 */
#ifndef CLSPLAT_OP_SPLAT_LOCAL_H
#define CLSPLAT_OP_SPLAT_LOCAL_H

#include "op/kernel.h"

/* What may be tuned: TY, the work-items of a group along the rows (0: as many as there is local memory for,
 * 16 or 8), and RT, rows per item. */
extern const tune_space local_space;

/* What a kernel keeps in a tile. */
typedef struct local_shape {
    size_t dim, value_dim; /* value_dim 0: no values */
    /* Whether means and tokens are multiplied, or their squared differences summed; then splats have two
     * numbers per column. */
    bool product, splat_rows;
    size_t row_parts, source_parts; /* numbers per column */
} local_shape;

/* The shape for these splats; rows are splats, or else tokens. */
local_shape local_shape_of(const op_splats *splats, size_t value_dim, bool splat_rows);

/* Whether distances from a common centre are exact enough, and a group of 64 has local memory enough for some
 * tile. */
bool local_fits(const clsplat_limits *limits, const op_splats *splats, local_shape shape);

/* TY, RT and STEP; o is begun. Returns the rows of a group. */
size_t options_local(kernel_options *o, const queue *q, local_shape shape);

/* Groups of local_tile.clh's smallest tile, 8 × 8 items. */
enum { LOCAL_GROUP = 64 };

#endif
