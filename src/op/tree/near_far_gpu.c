#include "op/tree/near_far.h"

#include "runtime/buffer.h"

/* Work-items of a group, two for each row it has. */
enum { GROUP = 256, ROWS = GROUP / 2, BLOCK = 16, PACK_GROUP = 64 };

/* Rows are copied 16 bytes at a time. */
static bool is_aligned(const op_tensor *t) {
    return t->offset % 8 == 0 && t->stride[0] % 8 == 0 && t->stride[1] % 8 == 0 && t->stride[2] % 8 == 0;
}

/* The kernel's lists of opened nodes have 21 bits for a leaf. */
static bool forest_fits(const op_forest *f) {
    return f->dtype != CLSPLAT_F32 && f->leaf == BLOCK && f->chunk == BLOCK * BLOCK && f->chunks < 1u << 16 &&
           f->dim % BLOCK == 0 && f->value_dim % BLOCK == 0 && f->dim <= 128 && f->value_dim <= 128;
}

bool near_far_mma_fits(const clsplat_limits *limits, const void *args) {
    const op_near_far_args *a = args;
    bool own = a->diagonal != OP_SEES_ALL, half = a->q.dtype == a->forest->dtype;
    if (own)
        half = half && a->k.dtype == a->q.dtype && a->v.dtype == a->q.dtype && is_aligned(&a->k) &&
               is_aligned(&a->v);
    return limits->nvidia_capability >= 80 && half && forest_fits(a->forest) && a->scale > 0 &&
           a->sparse_topk == 0 && !a->kept && !a->notes && a->q.shape[2] >= 16 && is_aligned(&a->q) &&
           is_aligned(&a->out);
}

/* What the packed nodes take. */
typedef struct packed {
    cl_mem means, values, variances, numbers;
} packed;

static clsplat_status pack_nodes(queue *q, const kernel_options *shared, const op_forest *f, packed *to) {
    clsplat_status status = CLSPLAT_OK;
    size_t heads = f->batch * f->heads, nodes = heads * f->first_block[f->levels] * BLOCK,
           columns = f->dim > f->value_dim ? f->dim : f->value_dim;
    kernel_options o = *shared;
    launch l;
    o.text = (text){0};
    text_add(&o.text, "%s", shared->text.data);
    TRY(workspace_take(q->device, WORKSPACE_NODE_VARIANCES, 2 * heads * f->chunks * f->dim, &to->variances));
    TRY(workspace_take(q->device, WORKSPACE_NODE_MEANS, 2 * nodes * f->dim, &to->means));
    TRY(workspace_take(q->device, WORKSPACE_NODE_VALUES, 2 * nodes * f->value_dim, &to->values));
    TRY(workspace_take(q->device, WORKSPACE_NODE_NUMBERS, OP_PACKED_NUMBERS * sizeof(float) * nodes,
                       &to->numbers));
    TRY(options_launch(&o, q->device, "near_far_mma.cl", "near_far_pack", &l));
    launch_forest_shape(&l, f);
    launch_mem(&l, "means", f->means);
    launch_mem(&l, "variances", f->variances);
    launch_mem(&l, "mean_values", f->mean_values);
    launch_mem(&l, "stats", f->stats);
    launch_mem(&l, "half_means", to->means);
    launch_mem(&l, "half_values", to->values);
    launch_mem(&l, "half_variances", to->variances);
    launch_mem(&l, "packed", to->numbers);
    launch_uint(&l, "heads", (uint32_t)heads);
    return launch_run(&l, q, grid_of(nodes * columns, 1, 1, PACK_GROUP),
                      (work){.bytes = 6 * (double)(nodes * (f->dim + f->value_dim))});
fail:
    text_free(&o.text);
    return status;
}

static clsplat_status run(queue *q, const op_near_far_args *a, bool wgmma) {
    clsplat_status status = CLSPLAT_OK;
    kernel_options o = {.group = GROUP};
    size_t share = near_far_share(a, ROWS), tokens = ROWS / share;
    /* Tiles begin at multiples of their tokens in the positions of keys. */
    size_t lead = a->diagonal == OP_SEES_ALL ? 0 : (size_t)(a->diagonal & (int32_t)(tokens - 1));
    size_t tiles = (lead + a->q.shape[2] + tokens - 1) / tokens;
    packed nodes;
    launch l;
    options_number(&o, "WG", GROUP);
    options_number(&o, "SHARE", share);
    options_number(&o, "WGMMA", wgmma);
    options_near_far(&o, a);
    text_add(&o.text, " -cl-nv-maxrregcount=128"); /* two groups at a time */
    TRY(pack_nodes(q, &o, a->forest, &nodes));
    TRY(options_launch(&o, q->device, "near_far_mma.cl", "near_far_mma", &l));
    launch_near_far(&l, &o, a);
    launch_mem(&l, "half_means", nodes.means);
    launch_mem(&l, "half_values", nodes.values);
    launch_mem(&l, "half_variances", nodes.variances);
    launch_mem(&l, "packed", nodes.numbers);
    return launch_run(&l, q, grid_of(tiles * GROUP, a->q.shape[1] / share, a->q.shape[0], GROUP),
                      near_far_work(a));
fail:
    text_free(&o.text);
    return status;
}

clsplat_status near_far_mma_run(queue *q, const void *args) {
    return run(q, args, false);
}

bool near_far_wgmma_fits(const clsplat_limits *limits, const void *args) {
    const op_near_far_args *a = args;
    return limits_have_wgmma(limits) && near_far_mma_fits(limits, args) && a->q.dtype == CLSPLAT_BF16 &&
           a->forest->dim == 64 && a->forest->value_dim == 64;
}

clsplat_status near_far_wgmma_run(queue *q, const void *args) {
    return run(q, args, true);
}
