#include <math.h>

#include "op/local_rows.h"
#include "op/tree/near_far_backward.h"

/* What a kernel keeps of a row beside its numbers: its place in the list, and behind it those of a group. */
enum { LISTED = 24 };

/* Six groups of 64 items at a time. */
static void options_narrowed(kernel_options *o, const clsplat_device *device) {
    if (device->info.limits.nvidia_capability > 0)
        text_add(&o->text, " -cl-nv-maxrregcount=168");
}

/* Groups of 64 items at most: larger ones list more rows that only some of their nodes have met. */
static rows_tile tile_for(const clsplat_limits *limits, const op_forest *f) {
    size_t columns = rows_pitch(f->dim) + rows_pitch(f->value_dim);
    rows_tile tile =
        rows_tile_for(limits, (rows_shape){.row = columns, .source = columns + LISTED, .weights = true});
    return tile.high > 8 ? (rows_tile){8, 2} : tile;
}

/* Of rows of queries: no more than a chunk has tokens. Beside both and their numbers four arrays by row and
 * source. */
static rows_tile queries_tile(const clsplat_limits *limits, const op_forest *f) {
    enum { ACROSS = OP_LOCAL_ACROSS, VECTOR = 4, ARRAYS = 4 };
    static const rows_tile tries[] = {{8, 2}, {4, 2}, {8, 1}, {4, 1}};
    size_t columns = rows_pitch(f->dim) + rows_pitch(f->value_dim);
    for (size_t i = 0; limits->local_memory > 0 && i < sizeof tries / sizeof *tries; ++i) {
        size_t rows = rows_high(tries[i]), sources = ACROSS * tries[i].sources_each,
               floats = rows * (columns + VECTOR + ACROSS) +
                        sources * (columns + VECTOR + ARRAYS * (rows + VECTOR));
        if (rows <= f->chunk && limits_allow_group(limits, (uint32_t)(ACROSS * tries[i].high)) &&
            sizeof(float) * floats <= limits_local_share(limits))
            return tries[i];
    }
    return (rows_tile){0};
}

/* Rows start from chunks, which are 16 leaves. */
bool near_far_back_notes(const clsplat_limits *limits, const op_forest *f, size_t rows) {
    enum { FAN = 16 };
    return f->chunk == FAN * f->leaf && f->chunks < (size_t)FAN * OP_ROOTS_LEAST && f->dim <= 128 &&
           f->value_dim <= 128 &&
           (double)sizeof(cl_uint) * (double)rows * (double)f->chunks <= (double)limits->max_allocation &&
           tile_for(limits, f).high > 0 && queries_tile(limits, f).high > 0;
}

bool op_near_far_backward_notes(const clsplat_limits *limits, const op_forest *f, size_t rows) {
    return !near_far_back_turns(limits, f) && near_far_back_notes(limits, f, rows);
}

static clsplat_status rows_run(const near_far_back *p) {
    clsplat_status status = CLSPLAT_OK;
    const op_near_far_backward_args *a = p->a;
    rows_tile tile = queries_tile(&p->q->device->info.limits, a->forest);
    kernel_options o;
    launch l;
    options_rows(&o, p->q->device, tile);
    options_narrowed(&o, p->q->device);
    options_near_far_back_add(&o, p);
    TRY(near_far_back_open(p, &o, "near_far_back_rows_local.cl", "near_far_back_rows_local", &l));
    near_far_back_launch_rows(&l, &o, p);
    launch_mem(&l, "notes", p->mem[BACK_NOTES]);
    launch_mem(&l, "spreads", p->mem[BACK_SPREADS]);
    launch_mem(&l, "spreads_back", p->mem[BACK_SPREADS_BACK]);
    TRY(launch_run(&l, p->q,
                   grid_of(near_far_tiles(&p->forward, rows_high(tile)) * o.group, a->q.shape[1],
                           a->q.shape[0], o.group),
                   near_far_work(&p->forward)));
fail:
    return status;
}

static clsplat_status tiles_run(const near_far_back *p, bool of_nodes) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = p->a->forest;
    rows_tile tile = tile_for(&p->q->device->info.limits, f);
    size_t each = of_nodes ? f->chunk / f->leaf : f->chunk,
           tiles = rows_groups(tile, of_nodes ? f->chunks : forest_apart_room(f)) +
                   rows_groups(tile, f->chunks * each);
    kernel_options o;
    launch l;
    options_rows(&o, p->q->device, tile);
    options_number(&o, "OF_NODES", of_nodes);
    options_narrowed(&o, p->q->device);
    options_near_far_back_add(&o, p);
    TRY(near_far_back_open(p, &o, "near_far_back_local.cl", "near_far_back_local", &l));
    launch_tensor(&l, &o, "dout", &p->a->dout);
    launch_mem(&l, "row_numbers", p->mem[BACK_ROWS]);
    launch_mem(&l, "notes", p->mem[BACK_NOTES]);
    launch_mem(&l, "spreads", p->mem[BACK_SPREADS]);
    launch_near_far_sums(&l, p);
    TRY(launch_run(&l, p->q, grid_of(tiles * o.group, f->heads, f->batch, o.group),
                   near_far_work(&p->forward)));
fail:
    return status;
}

static clsplat_status variances_run(const near_far_back *p) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = p->a->forest;
    rows_tile tile = tile_for(&p->q->device->info.limits, f);
    kernel_options o;
    launch l;
    options_rows(&o, p->q->device, tile);
    options_near_far_back_add(&o, p);
    TRY(near_far_back_open(p, &o, "near_far_back_variances.cl", "near_far_back_variances", &l));
    launch_mem(&l, "spreads_back", p->mem[BACK_SPREADS_BACK]);
    launch_near_far_sums(&l, p);
    TRY(launch_run(&l, p->q, grid_of(rows_groups(tile, f->chunks) * o.group, f->heads, f->batch, o.group),
                   (work){0}));
fail:
    return status;
}

clsplat_status near_far_back_tiles(const near_far_back *p) {
    clsplat_status status = CLSPLAT_OK;
    TRY(rows_run(p));
    TRY(tiles_run(p, true));
    TRY(variances_run(p));
    TRY(tiles_run(p, false));
fail:
    return status;
}
