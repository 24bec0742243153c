/* Tiles of rows in local memory, for GPUs of any vendor: cl/shared/local_rows.clh. */
#ifndef CLSPLAT_OP_LOCAL_ROWS_H
#define CLSPLAT_OP_LOCAL_ROWS_H

#include "op/kernel.h"

/* Floats that a kernel keeps of each row and each source of a tile, and whether weights are handed over. */
typedef struct rows_shape {
    size_t row, source;
    bool weights;
} rows_shape;

/* Floats from one row of so many columns to the next. */
size_t rows_pitch(size_t columns);

/* TY items of a group along its rows, and CT sources of an item. */
typedef struct rows_tile {
    size_t high, sources_each;
} rows_tile;

/* The largest that there is room for; high 0: none. */
rows_tile rows_tile_for(const clsplat_limits *limits, rows_shape shape);
/* Rows of a group, and groups for so many. */
size_t rows_high(rows_tile tile);
size_t rows_groups(rows_tile tile, size_t rows);
/* TY and CT; o is begun. */
void options_rows(kernel_options *o, const clsplat_device *device, rows_tile tile);

#endif
