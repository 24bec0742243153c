#include "op/families.h"
#include "op/tree/forest_kernel.h"

void options_forest(kernel_options *o, const op_forest *f) {
    static const char *const types[] = {
        [CLSPLAT_F32] = "F32", [CLSPLAT_F16] = "F16", [CLSPLAT_BF16] = "BF16"};
    size_t bytes[FOREST_BUFFERS];
    options_number(o, "D", f->dim);
    options_number(o, "DV", f->value_dim);
    options_number(o, "LEAF", f->leaf);
    options_number(o, "CHUNK", f->chunk);
    options_number(o, "TOP", f->top);
    options_number(o, "APART_EACH", forest_apart_each(f));
    options_number(o, "APART_FIRST", FOREST_APART_FIRST);
    text_add(&o->text, " -DFOREST_TYPE=%s", types[f->dtype]);
    forest_sizes(f, bytes);
    for (int i = 0; i < FOREST_BUFFERS; ++i)
        options_elements(o, (double)bytes[i] / (double)clsplat_dtype_size(i < 2 ? f->dtype : CLSPLAT_F32));
}

void launch_forest_shape(launch *l, const op_forest *f) {
    cl_uint first[16] = {0};
    for (size_t level = 0; level <= f->levels; ++level)
        first[level] = (cl_uint)f->first_block[level];
    launch_uint(l, "levels", (uint32_t)f->levels);
    launch_uint(l, "chunks", (uint32_t)f->chunks);
    launch_uint(l, "room", (uint32_t)forest_apart_room(f));
    launch_bytes(l, "first_block", first, sizeof first);
}

void launch_forest_keys(launch *l, const op_forest *f) {
    launch_mem(l, "tree_keys", f->keys);
    launch_mem(l, "tree_values", f->values);
    launch_mem(l, "biases", f->biases);
}

void launch_forest_nodes(launch *l, const op_forest *f) {
    launch_mem(l, "means", f->means);
    launch_mem(l, "variances", f->variances);
    launch_mem(l, "mean_values", f->mean_values);
    launch_mem(l, "stats", f->stats);
}

/* Who has a chunk: an item of a group; on a CPU a group of one, since a chunk is work enough, and groups are
 * what cores share; on a GPU a group of as many items as keys. */
typedef enum worker { ITEM, ALONE, LOCAL } worker;

static void options_inputs(kernel_options *o, const op_gather_args *a) {
    options_forest(o, a->forest);
    options_number(o, "BIAS", a->key_bias.mem != NULL);
    options_tensor(o, "K", &a->k);
    options_tensor(o, "V", &a->v);
    if (a->key_bias.mem)
        options_tensor(o, "BIAS", &a->key_bias);
}

/* Columns of its key that an item keeps in registers: with all of 128, AMD's 256 spilled 33 to 39. */
static size_t held_columns(const clsplat_limits *limits, const op_forest *f) {
    enum { MOST = 64 };
    return limits->nvidia_capability > 0 || f->dim < MOST ? f->dim : MOST;
}

static void options_gather(kernel_options *o, const queue *q, const op_gather_args *a, worker who) {
    if (who == LOCAL) {
        *o = (kernel_options){.group = (uint32_t)a->forest->chunk};
        options_registers(o, q->device);
        options_narrow(o, q->device);
        options_number(o, "WG", a->forest->chunk);
        options_number(o, "HELD", held_columns(&q->device->info.limits, a->forest));
    } else if (who == ALONE) {
        *o = (kernel_options){.group = 1, .vector = 16};
        options_number(o, "WG", 1);
        options_number(o, "W", 16);
    } else
        options_plain(o, q);
    options_inputs(o, a);
}

static bool does(const op_gather_args *a, op_gather_phase phase) {
    return !a->phases || (a->phases & (unsigned)phase);
}

static clsplat_status gather_chunks(queue *q, const op_gather_args *a, worker who) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = a->forest;
    size_t keys = a->k.shape[2], chunks = (keys + f->chunk - 1) / f->chunk;
    double columns = (double)(f->dim + f->value_dim), slots = (double)(f->batch * f->heads * keys);
    kernel_options o;
    launch l;
    options_gather(&o, q, a, who);
    TRY(options_launch(&o, q->device, who == LOCAL ? "gather_local.cl" : "gather.cl",
                       who == LOCAL ? "gather_local" : "gather_chunks", &l));
    launch_uint(&l, "keys", (uint32_t)keys);
    launch_uint(&l, "first_chunk", (uint32_t)a->first_chunk);
    launch_forest_shape(&l, f);
    launch_tensor(&l, &o, "k", &a->k);
    launch_tensor(&l, &o, "v", &a->v);
    if (a->key_bias.mem)
        launch_tensor(&l, &o, "bias", &a->key_bias);
    launch_forest_keys(&l, f);
    launch_forest_nodes(&l, f);
    launch_mem(&l, "apart", f->apart);
    /* 12 passes over the keys for each halving, and a few more. */
    TRY(launch_run(&l, q, grid_of(who == LOCAL ? chunks * f->chunk : chunks, f->heads, f->batch, o.group),
                   (work){.flops = 100 * slots * columns, .bytes = 12 * slots * columns}));
fail:
    return status;
}

static clsplat_status gather_nodes(queue *q, const op_gather_args *a, size_t level, worker who) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = a->forest;
    size_t slots = a->first_chunk * f->chunk + a->k.shape[2], size = forest_size(f, level),
           child = forest_size(f, level - 1);
    size_t first = a->first_chunk * f->chunk / size, nodes = (slots + size - 1) / size - first;
    double numbers = (double)(f->batch * f->heads * nodes * 16 * (f->dim + f->value_dim));
    kernel_options o;
    launch l;
    options_gather(&o, q, a, who == LOCAL ? ITEM : who);
    TRY(options_launch(&o, q->device, "gather.cl", "gather_nodes", &l));
    launch_uint(&l, "level", (uint32_t)level);
    launch_uint(&l, "first", (uint32_t)first);
    launch_uint(&l, "nodes", (uint32_t)nodes);
    launch_uint(&l, "children", (uint32_t)((slots + child - 1) / child));
    launch_forest_shape(&l, f);
    launch_forest_nodes(&l, f);
    TRY(launch_run(&l, q, grid_of(nodes, f->heads, f->batch, o.group),
                   (work){.flops = 6 * numbers, .bytes = 8 * numbers}));
fail:
    return status;
}

/* How values follow keys in the runs that are whole now, and were not before: a sum of each, then the means
 * of all so far. */
static clsplat_status gather_covariances(queue *q, const op_gather_args *a, worker who) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = a->forest;
    size_t keys = a->first_chunk * f->chunk + a->k.shape[2], run = OP_FOREST_RUN * f->chunk;
    size_t first = a->first_chunk * f->chunk / run, runs = keys / run - first;
    double products = (double)(f->batch * f->heads * runs * f->dim * f->value_dim);
    for (int pass = 0; pass < 2 && runs > 0; ++pass) {
        if (!does(a, pass ? OP_GATHER_MEANS : OP_GATHER_CHUNKS))
            continue;
        kernel_options o;
        launch l;
        options_gather(&o, q, a, who == LOCAL ? ITEM : who);
        /* A GPU wants many items, others would count slopes anew in each. */
        size_t columns = limits_are_wide(&q->device->info.limits) ? f->value_dim : 1;
        options_number(&o, "COLUMNS", columns);
        size_t rows = o.vector / 4, strips = (f->dim + rows - 1) / rows; /* rows that registers hold */
        options_number(&o, "ROWS", rows);
        TRY(options_launch(&o, q->device, "covariance.cl",
                           pass ? "average_covariances" : "gather_covariances", &l));
        launch_uint(&l, "first", (uint32_t)first);
        launch_uint(&l, "runs", (uint32_t)runs);
        launch_forest_shape(&l, f);
        if (pass == 0)
            launch_forest_keys(&l, f);
        launch_mem(&l, "stats", f->stats);
        launch_mem(&l, "covariances", f->covariances);
        TRY(launch_run(
            &l, q,
            grid_of(pass ? f->dim * f->value_dim / columns : runs * strips, f->heads, f->batch, o.group),
            (work){.flops = pass ? 4 * products : 2 * products * (double)run, .bytes = 8 * products}));
    }
fail:
    return status;
}

/* A kernel of cl/tree/apart.cl: its options are those of gather, its groups its own. */
static clsplat_status apart_begin(queue *q, const op_gather_args *a, const char *kernel, kernel_options *o,
                                  launch *l) {
    enum { ITEMS = 64 };
    const clsplat_limits *limits = &q->device->info.limits;
    *o = (kernel_options){.group = limits_are_wide(limits) || limits->max_work_group < ITEMS ? 1 : ITEMS};
    options_number(o, "WG", o->group);
    options_inputs(o, a);
    return options_launch(o, q->device, "apart.cl", kernel, l);
}

static size_t chunks_of(const op_gather_args *a) {
    return (a->k.shape[2] + a->forest->chunk - 1) / a->forest->chunk;
}

/* Which keys of the chunks stand apart. */
static clsplat_status find_apart(queue *q, const op_gather_args *a) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = a->forest;
    double numbers = (double)(f->batch * f->heads * a->k.shape[2] * f->dim);
    kernel_options o;
    launch l;
    TRY(apart_begin(q, a, "find_apart", &o, &l));
    launch_uint(&l, "keys", (uint32_t)a->k.shape[2]);
    launch_uint(&l, "first_chunk", (uint32_t)a->first_chunk);
    launch_uint(&l, "apart_chunks", f->apart_chunks < UINT32_MAX ? (uint32_t)f->apart_chunks : UINT32_MAX);
    launch_forest_shape(&l, f);
    launch_tensor(&l, &o, "k", &a->k);
    if (a->key_bias.mem)
        launch_tensor(&l, &o, "bias", &a->key_bias);
    launch_mem(&l, "apart", f->apart);
    TRY(launch_run(&l, q, grid_of(chunks_of(a) * o.group, f->heads, f->batch, o.group),
                   (work){.flops = 6 * numbers, .bytes = 8 * numbers}));
fail:
    return status;
}

static clsplat_status count_apart(queue *q, const op_gather_args *a) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = a->forest;
    kernel_options o;
    launch l;
    TRY(apart_begin(q, a, "count_apart", &o, &l));
    launch_uint(&l, "first_chunk", (uint32_t)a->first_chunk);
    launch_uint(&l, "last_chunk", (uint32_t)(a->first_chunk + chunks_of(a)));
    launch_forest_shape(&l, f);
    launch_mem(&l, "apart", f->apart);
    TRY(launch_run(&l, q, grid_of(1, f->heads, f->batch, 1), (work){0}));
fail:
    return status;
}

/* A copy of those that stand apart. */
static clsplat_status place_apart(queue *q, const op_gather_args *a) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = a->forest;
    kernel_options o;
    launch l;
    TRY(apart_begin(q, a, "place_apart", &o, &l));
    launch_uint(&l, "keys", (uint32_t)a->k.shape[2]);
    launch_uint(&l, "first_chunk", (uint32_t)a->first_chunk);
    launch_forest_shape(&l, f);
    launch_tensor(&l, &o, "k", &a->k);
    launch_tensor(&l, &o, "v", &a->v);
    if (a->key_bias.mem)
        launch_tensor(&l, &o, "bias", &a->key_bias);
    launch_mem(&l, "apart", f->apart);
    launch_forest_keys(&l, f);
    TRY(launch_run(&l, q, grid_of(chunks_of(a) * o.group, f->heads, f->batch, o.group), (work){0}));
fail:
    return status;
}

static clsplat_status gather(queue *q, const op_gather_args *a, worker who) {
    clsplat_status status = CLSPLAT_OK;
    bool apart = forest_apart_room(a->forest) > 0;
    if (apart && does(a, OP_GATHER_FIND))
        TRY(find_apart(q, a));
    if (apart && does(a, OP_GATHER_COUNT))
        TRY(count_apart(q, a));
    if (apart && does(a, OP_GATHER_CHUNKS))
        TRY(place_apart(q, a));
    if (does(a, OP_GATHER_CHUNKS))
        TRY(gather_chunks(q, a, who));
    for (size_t level = a->forest->top + 1; level < a->forest->levels && does(a, OP_GATHER_ABOVE); ++level)
        TRY(gather_nodes(q, a, level, who));
    TRY(gather_covariances(q, a, who));
fail:
    return status;
}

static clsplat_status plain_run(queue *q, const void *args) {
    return gather(q, args, ITEM);
}

static clsplat_status alone_run(queue *q, const void *args) {
    return gather(q, args, ALONE);
}

static bool alone_fits(const clsplat_limits *limits, const void *args) {
    (void)args;
    return limits_are_wide(limits);
}

/* A group a chunk; the nodes above, which are few, as everywhere. Its local memory is a `workplace` of
 * cl/tree/gather_local.cl: along, bias and order of the slots; the columns, of_mean and length of the nodes
 * that are halved; top, mass and square of the leaves; three numbers more. */
static bool local_fits(const clsplat_limits *limits, const void *args) {
    const op_forest *f = ((const op_gather_args *)args)->forest;
    size_t leaves = f->chunk / f->leaf, splits = leaves / 2;
    size_t bytes = (2 * sizeof(cl_float) + sizeof(cl_ushort)) * f->chunk +
                   sizeof(cl_float) * (splits * (3 * f->dim + 2) + leaves * (2 + f->dim + f->value_dim) + 3);
    return f->chunk <= 256 && limits_have_groups(limits, (uint32_t)f->chunk, bytes) && f->dim <= 128 &&
           f->value_dim <= 128;
}

static clsplat_status local_run(queue *q, const void *args) {
    return gather(q, args, LOCAL);
}

static void gather_shape(const void *args, tune_shape *shape) {
    const op_gather_args *a = args;
    *shape = (tune_shape){.heads = a->forest->batch * a->forest->heads,
                          .rows = a->k.shape[2],
                          .sources = a->forest->chunk,
                          .dim = a->forest->dim,
                          .value_dim = a->forest->value_dim};
    shape_words(shape, a->k.dtype, "-");
}

static const op_variant variants[] = {
    {"plain", "every node's moments with a relative error below 1e-5", op_fits_all, plain_run, "gather.cl",
     &plain_space},
    {"alone", "every node's moments with a relative error below 1e-5", alone_fits, alone_run, "gather.cl",
     &tune_nothing},
    {"local", "every node's moments with a relative error below 1e-5", local_fits, local_run,
     "gather_local.cl", &tune_nothing},
};
const op_family op_gather_family = {"gather", variants, sizeof variants / sizeof *variants, gather_shape};

clsplat_status op_gather(queue *q, const op_gather_args *args) {
    return op_dispatch(q, &op_gather_family, args);
}
