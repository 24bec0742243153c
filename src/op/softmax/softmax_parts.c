#include "op/softmax/softmax.h"
#include "runtime/buffer.h"

softmax_parts softmax_cut(const clsplat_limits *limits, const op_softmax_args *a, size_t ranges,
                          size_t shortest, size_t longest) {
    enum { STEP = 128 };
    size_t heads = a->k.shape[0] * a->k.shape[1], keys = a->k.shape[2];
    size_t wanted = (limits->compute_units * ranges + heads - 1) / heads;
    size_t share = (keys + wanted - 1) / wanted;
    share = share < shortest ? shortest : share > longest ? longest : share;
    share = (share + STEP - 1) / STEP * STEP;
    return (softmax_parts){.rows = a->q.shape[1] / a->k.shape[1] * a->q.shape[2],
                           .share = share,
                           .splits = (keys + share - 1) / share};
}

static size_t states_of(const op_softmax_args *a, const softmax_parts *p) {
    return a->k.shape[0] * a->k.shape[1] * p->rows * p->splits;
}

bool softmax_parts_fit(const op_softmax_args *a, const softmax_parts *p) {
    enum { STATE_LIMIT = 64 << 20 };
    return a->k.shape[2] > 0 && 4 * states_of(a, p) * a->v.shape[3] <= STATE_LIMIT;
}

static clsplat_status attend(queue *q, const op_softmax_args *a, kernel_options *o, const char *source,
                             const char *kernel, const softmax_parts *p, const op_state *part) {
    clsplat_status status = CLSPLAT_OK;
    launch l;
    softmax_options(o, a);
    TRY(options_launch(o, q->device, source, kernel, &l));
    launch_uint(&l, "queries", (uint32_t)a->q.shape[2]);
    launch_uint(&l, "keys", (uint32_t)a->k.shape[2]);
    launch_uint(&l, "group", (uint32_t)(a->q.shape[1] / a->k.shape[1]));
    launch_float(&l, "scale", a->scale);
    launch_int(&l, "diagonal", a->diagonal);
    launch_uint(&l, "share", (uint32_t)p->share);
    launch_tensor(&l, o, "q", &a->q);
    launch_tensor(&l, o, "k", &a->k);
    launch_tensor(&l, o, "v", &a->v);
    if (a->key_bias.mem)
        launch_tensor(&l, o, "bias", &a->key_bias);
    launch_mem(&l, "part_lse", part->lse);
    launch_mem(&l, "part_value", part->value);
    TRY(launch_run(&l, q, grid_of(p->splits * o->group, a->k.shape[1], a->k.shape[0], o->group),
                   softmax_work(a)));
fail:
    return status;
}

static clsplat_status merge(queue *q, const op_softmax_args *a, uint32_t group, const softmax_parts *p,
                            const op_state *part) {
    clsplat_status status = CLSPLAT_OK;
    kernel_options o;
    launch l;
    double states = (double)states_of(a, p), values = states * (double)a->v.shape[3];
    options_group_of(&o, q->device, group);
    softmax_options(&o, a);
    TRY(options_launch(&o, q->device, "softmax_merge.cl", "softmax_merge", &l));
    launch_uint(&l, "queries", (uint32_t)a->q.shape[2]);
    launch_uint(&l, "kv_heads", (uint32_t)a->k.shape[1]);
    launch_uint(&l, "group", (uint32_t)(a->q.shape[1] / a->k.shape[1]));
    launch_uint(&l, "splits", (uint32_t)p->splits);
    launch_uint(&l, "accumulate", a->accumulate);
    launch_mem(&l, "part_lse", part->lse);
    launch_mem(&l, "part_value", part->value);
    launch_tensor(&l, &o, "out", &a->out);
    launch_tensor(&l, &o, "lse", &a->lse);
    TRY(launch_run(&l, q, grid_of(o.group, p->rows, a->k.shape[1] * a->k.shape[0], o.group),
                   (work){.flops = 2 * values, .bytes = 4 * (values + states)}));
fail:
    return status;
}

clsplat_status softmax_parts_run(queue *q, const op_softmax_args *a, kernel_options *o, const char *source,
                                 const char *kernel, const softmax_parts *p) {
    clsplat_status status = CLSPLAT_OK;
    op_state part = {.segments = p->splits};
    size_t states = states_of(a, p);
    TRY(workspace_take(q->device, WORKSPACE_PART_LSE, 4 * states, &part.lse));
    TRY(workspace_take(q->device, WORKSPACE_PART_VALUE, 4 * states * a->v.shape[3], &part.value));
    TRY(attend(q, a, o, source, kernel, p, &part));
    return merge(q, a, o->group, p, &part);
fail:
    text_free(&o->text);
    return status;
}
