#include "op/local_rows.h"

enum { ACROSS = OP_LOCAL_ACROSS, ROWS_EACH = 4, VECTOR = 4 };

size_t rows_pitch(size_t columns) {
    size_t step = VECTOR * ACROSS;
    return (columns + step - 1) / step * step + VECTOR;
}

size_t rows_high(rows_tile tile) {
    return ROWS_EACH * tile.high;
}

size_t rows_groups(rows_tile tile, size_t rows) {
    return (rows + rows_high(tile) - 1) / rows_high(tile);
}

static size_t tile_bytes(rows_shape s, rows_tile t) {
    size_t rows = rows_high(t), sources = ACROSS * t.sources_each;
    return sizeof(float) * (rows * s.row + sources * (s.source + (s.weights ? rows + VECTOR : 0)));
}

rows_tile rows_tile_for(const clsplat_limits *limits, rows_shape shape) {
    static const rows_tile tries[] = {{16, 2}, {8, 2}, {8, 1}, {4, 1}};
    for (size_t i = 0; limits->local_memory > 0 && i < sizeof tries / sizeof *tries; ++i)
        if (limits_allow_group(limits, ACROSS * (uint32_t)tries[i].high) &&
            tile_bytes(shape, tries[i]) <= limits_local_share(limits))
            return tries[i];
    return (rows_tile){0};
}

void options_rows(kernel_options *o, const clsplat_device *device, rows_tile tile) {
    *o = (kernel_options){.group = (uint32_t)(ACROSS * tile.high)};
    options_eager(o, device);
    options_narrow(o, device);
    options_number(o, "TY", tile.high);
    options_number(o, "CT", tile.sources_each);
}
