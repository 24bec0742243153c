#include "op/splat/splat_layer.h"

#include "op/families.h"
#include "op/kernel.h"

static const char source[] = "splat_layer.cl", group_source[] = "splat_layer_group.cl";

/* Both have the columns D that all kernels of a layer are built for. */
static clsplat_status begin(queue *q, size_t dim, size_t value_dim, double elements, const char *kernel,
                            kernel_options *o, launch *l) {
    options_number(o, "D", dim);
    options_number(o, "DV", value_dim);
    options_elements(o, elements);
    return options_launch(o, q->device, source, kernel, l);
}

static clsplat_status token_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_token_features_args *a = args;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_tensor(&o, "X", &a->x);
    TRY(begin(q, a->x.shape[3], 1, tensor_bytes(&a->f), "token_features", &o, &l));
    launch_uint(&l, "rows", (uint32_t)a->x.shape[2]);
    launch_tensor(&l, &o, "x", &a->x);
    launch_tensor(&l, &o, "f", &a->f);
    TRY(launch_run(&l, q, grid_of(a->x.shape[2], a->x.shape[1], a->x.shape[0], o.group),
                   (work){.flops = tensor_bytes(&a->x), .bytes = 3 * tensor_bytes(&a->x)}));
fail:
    return status;
}

static clsplat_status token_backward_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_token_features_backward_args *a = args;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_tensor(&o, "X", &a->x);
    options_tensor(&o, "DX", &a->dx);
    TRY(begin(q, a->x.shape[3], 1, tensor_bytes(&a->f), "token_features_backward", &o, &l));
    launch_uint(&l, "rows", (uint32_t)a->x.shape[2]);
    launch_tensor(&l, &o, "x", &a->x);
    launch_tensor(&l, &o, "f", &a->f);
    launch_tensor(&l, &o, "df", &a->df);
    launch_tensor(&l, &o, "dx", &a->dx);
    TRY(launch_run(&l, q, grid_of(a->x.shape[2], a->x.shape[1], a->x.shape[0], o.group),
                   (work){.flops = 3 * tensor_bytes(&a->x), .bytes = 7 * tensor_bytes(&a->x)}));
fail:
    return status;
}

/* Items of a token's row on a GPU. */
enum { ROW_ITEMS = 64 };

static bool group_fits(const clsplat_limits *limits, const void *args) {
    (void)args;
    return limits_have_groups(limits, ROW_ITEMS, sizeof(cl_float) * ROW_ITEMS);
}

static clsplat_status token_group_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_token_features_args *a = args;
    kernel_options o;
    launch l;
    options_group_of(&o, q->device, ROW_ITEMS);
    options_number(&o, "D", a->x.shape[3]);
    options_tensor(&o, "X", &a->x);
    options_tensor(&o, "F", &a->f);
    TRY(options_launch(&o, q->device, group_source, "token_features_group", &l));
    launch_tensor(&l, &o, "x", &a->x);
    launch_tensor(&l, &o, "f", &a->f);
    TRY(launch_run(&l, q, grid_of(a->x.shape[2] * o.group, a->x.shape[1], a->x.shape[0], o.group),
                   (work){.flops = tensor_bytes(&a->x), .bytes = tensor_bytes(&a->x) + tensor_bytes(&a->f)}));
fail:
    return status;
}

static clsplat_status token_backward_group_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_token_features_backward_args *a = args;
    kernel_options o;
    launch l;
    options_group_of(&o, q->device, ROW_ITEMS);
    options_number(&o, "D", a->x.shape[3]);
    options_tensor(&o, "X", &a->x);
    options_tensor(&o, "DX", &a->dx);
    options_tensor(&o, "F", &a->f);
    TRY(options_launch(&o, q->device, group_source, "token_features_back_group", &l));
    launch_tensor(&l, &o, "x", &a->x);
    launch_tensor(&l, &o, "f", &a->f);
    launch_tensor(&l, &o, "df", &a->df);
    launch_tensor(&l, &o, "dx", &a->dx);
    TRY(launch_run(&l, q, grid_of(a->x.shape[2] * o.group, a->x.shape[1], a->x.shape[0], o.group),
                   (work){.flops = 3 * tensor_bytes(&a->x),
                          .bytes = 3 * tensor_bytes(&a->x) + 2 * tensor_bytes(&a->f)}));
fail:
    return status;
}

static clsplat_status splat_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_splat_features_args *a = args;
    double numbers = (double)(a->count * a->dim);
    kernel_options o;
    launch l;
    options_plain(&o, q);
    TRY(begin(q, a->dim, 1, 2 * numbers, "splat_features", &o, &l));
    launch_uint(&l, "count", (uint32_t)a->count);
    launch_mem(&l, "mean", a->mean);
    launch_mem(&l, "log_precision", a->log_precision);
    launch_mem(&l, "log_amplitude", a->log_amplitude);
    launch_mem(&l, "g", a->g);
    launch_mem(&l, "base", a->base);
    TRY(launch_run(&l, q, grid_of(a->count, 1, 1, o.group),
                   (work){.flops = 4 * numbers, .bytes = 16 * numbers}));
fail:
    return status;
}

static clsplat_status splat_backward_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_splat_features_backward_args *a = args;
    double numbers = (double)(a->count * a->dim);
    kernel_options o;
    launch l;
    options_plain(&o, q);
    TRY(begin(q, a->dim, 1, 2 * numbers, "splat_features_backward", &o, &l));
    launch_uint(&l, "count", (uint32_t)a->count);
    launch_mem(&l, "mean", a->mean);
    launch_mem(&l, "log_precision", a->log_precision);
    launch_mem(&l, "dg", a->dg);
    launch_mem(&l, "dbase", a->dbase);
    launch_mem(&l, "dmean", a->dmean);
    launch_mem(&l, "dlog_precision", a->dlog_precision);
    launch_mem(&l, "dlog_amplitude", a->dlog_amplitude);
    TRY(launch_run(&l, q, grid_of(a->count, 1, 1, o.group),
                   (work){.flops = 9 * numbers, .bytes = 32 * numbers}));
fail:
    return status;
}

static clsplat_status biases_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_token_biases_args *a = args;
    const op_tensor *t = &a->biases;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_number(&o, "DECAY", a->decay.mem != NULL);
    TRY(begin(q, 1, 1, tensor_bytes(t), "token_biases", &o, &l));
    launch_uint(&l, "chunks", (uint32_t)t->shape[0]);
    launch_uint(&l, "chunk", (uint32_t)t->shape[2]);
    launch_tensor(&l, &o, "strength", &a->strength);
    launch_tensor(&l, &o, "mixture", &a->mixture);
    launch_tensor(&l, &o, "decay", &a->decay);
    launch_tensor(&l, &o, "falls", &a->falls);
    launch_tensor(&l, &o, "biases", t);
    TRY(launch_run(&l, q, grid_of(t->shape[0], t->shape[1], 1, o.group),
                   (work){.flops = tensor_bytes(t), .bytes = 4 * tensor_bytes(t)}));
fail:
    return status;
}

static clsplat_status biases_backward_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_token_biases_backward_args *a = args;
    const op_tensor *t = &a->dbiases;
    kernel_options o;
    launch l;
    options_plain(&o, q);
    options_number(&o, "DECAY", a->decay.mem != NULL);
    TRY(begin(q, 1, 1, tensor_bytes(t), "token_biases_backward", &o, &l));
    launch_uint(&l, "chunks", (uint32_t)t->shape[0]);
    launch_uint(&l, "chunk", (uint32_t)t->shape[2]);
    launch_uint(&l, "splats", (uint32_t)a->splats);
    launch_tensor(&l, &o, "dbiases", t);
    launch_tensor(&l, &o, "dmixture", &a->dmixture);
    launch_tensor(&l, &o, "decay", &a->decay);
    launch_mem(&l, "dfalls", a->dfalls);
    launch_tensor(&l, &o, "ddecay", &a->ddecay);
    TRY(launch_run(&l, q, grid_of(t->shape[0], t->shape[1], 1, o.group),
                   (work){.flops = tensor_bytes(t), .bytes = 4 * tensor_bytes(t)}));
fail:
    return status;
}

static clsplat_status scan_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_splat_scan_args *a = args;
    double numbers = (double)(a->batch * (a->chunks - a->first)) * (double)(a->count * a->value_dim);
    kernel_options o;
    launch l;
    options_plain(&o, q);
    TRY(begin(q, 1, a->value_dim, (double)(a->batch * a->room) * (double)(a->count * a->value_dim),
              "splat_scan", &o, &l));
    launch_uint(&l, "count", (uint32_t)a->count);
    launch_uint(&l, "splats", (uint32_t)a->splats);
    launch_uint(&l, "first", (uint32_t)a->first);
    launch_uint(&l, "chunks", (uint32_t)a->chunks);
    launch_uint(&l, "room", (uint32_t)a->room);
    launch_mem(&l, "base", a->base);
    launch_mem(&l, "lse", a->lse);
    launch_mem(&l, "value", a->value);
    launch_mem(&l, "falls", a->falls);
    launch_mem(&l, "prefix_lse", a->prefix_lse);
    launch_mem(&l, "prefix", a->prefix);
    launch_mem(&l, "bias", a->bias);
    TRY(launch_run(&l, q, grid_of(a->count, a->batch, 1, o.group),
                   (work){.flops = 3 * numbers, .bytes = 12 * numbers}));
fail:
    return status;
}

static clsplat_status scan_backward_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_splat_scan_backward_args *a = args;
    double numbers = (double)(a->batch * a->chunks) * (double)(a->count * a->value_dim);
    kernel_options o;
    launch l;
    options_plain(&o, q);
    TRY(begin(q, 1, a->value_dim, numbers, "splat_scan_backward", &o, &l));
    launch_uint(&l, "count", (uint32_t)a->count);
    launch_uint(&l, "splats", (uint32_t)a->splats);
    launch_uint(&l, "chunks", (uint32_t)a->chunks);
    launch_mem(&l, "lse", a->lse);
    launch_mem(&l, "value", a->value);
    launch_mem(&l, "falls", a->falls);
    launch_mem(&l, "prefix_lse", a->prefix_lse);
    launch_mem(&l, "prefix", a->prefix);
    launch_mem(&l, "dprefix", a->dprefix);
    launch_mem(&l, "dbias", a->dbias);
    launch_mem(&l, "dlse", a->dlse);
    launch_mem(&l, "dvalue", a->dvalue);
    launch_mem(&l, "dfalls", a->dfalls);
    TRY(launch_run(&l, q, grid_of(a->count, a->batch, 1, o.group),
                   (work){.flops = 9 * numbers, .bytes = 16 * numbers}));
fail:
    return status;
}

static const char guarantee[] = "absolute error of a few ulp of the largest term";
static const op_variant
    token_rows[] = {{"plain", guarantee, op_fits_all, token_run, source, &plain_space},
                    {"group", guarantee, group_fits, token_group_run, group_source, &tune_nothing}},
    token_backward_rows[] = {{"plain", guarantee, op_fits_all, token_backward_run, source, &plain_space},
                             {"group", guarantee, group_fits, token_backward_group_run, group_source,
                              &tune_nothing}},
    splat_rows[] = {{"plain", guarantee, op_fits_all, splat_run, source, &plain_space}},
    splat_backward_rows[] = {{"plain", guarantee, op_fits_all, splat_backward_run, source, &plain_space}},
    biases_rows[] = {{"plain", guarantee, op_fits_all, biases_run, source, &plain_space}},
    biases_backward_rows[] = {{"plain", guarantee, op_fits_all, biases_backward_run, source, &plain_space}},
    scan_rows[] = {{"plain", guarantee, op_fits_all, scan_run, source, &plain_space}},
    scan_backward_rows[] = {{"plain", guarantee, op_fits_all, scan_backward_run, source, &plain_space}};

const op_family op_token_features_family = {"token_features", token_rows, 2, NULL},
                op_token_features_backward_family = {"token_features_backward", token_backward_rows, 2, NULL},
                op_splat_features_family = {"splat_features", splat_rows, 1, NULL},
                op_splat_features_backward_family = {"splat_features_backward", splat_backward_rows, 1, NULL},
                op_token_biases_family = {"token_biases", biases_rows, 1, NULL},
                op_token_biases_backward_family = {"token_biases_backward", biases_backward_rows, 1, NULL},
                op_splat_scan_family = {"splat_scan", scan_rows, 1, NULL},
                op_splat_scan_backward_family = {"splat_scan_backward", scan_backward_rows, 1, NULL};

clsplat_status op_token_features(queue *q, const op_token_features_args *args) {
    return op_dispatch(q, &op_token_features_family, args);
}

clsplat_status op_token_features_backward(queue *q, const op_token_features_backward_args *args) {
    return op_dispatch(q, &op_token_features_backward_family, args);
}

clsplat_status op_splat_features(queue *q, const op_splat_features_args *args) {
    return op_dispatch(q, &op_splat_features_family, args);
}

clsplat_status op_splat_features_backward(queue *q, const op_splat_features_backward_args *args) {
    return op_dispatch(q, &op_splat_features_backward_family, args);
}

clsplat_status op_token_biases(queue *q, const op_token_biases_args *args) {
    return op_dispatch(q, &op_token_biases_family, args);
}

clsplat_status op_token_biases_backward(queue *q, const op_token_biases_backward_args *args) {
    return op_dispatch(q, &op_token_biases_backward_family, args);
}

clsplat_status op_splat_scan(queue *q, const op_splat_scan_args *args) {
    return op_dispatch(q, &op_splat_scan_family, args);
}

clsplat_status op_splat_scan_backward(queue *q, const op_splat_scan_backward_args *args) {
    return op_dispatch(q, &op_splat_scan_backward_family, args);
}
