/* How fast a device is at a model's operations: timed where it is here, by the tuner's records elsewhere. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/plan.h"
#include "op/choose.h"

enum { CHUNK = 512, KEYS_MOST = 8192, RUNS = 4 };

/* The fastest of a few runs, each of at least STRETCH seconds. */
static clsplat_status time_one(clsplat_device *device, const example_kind *kind, example_shape shape,
                               double *seconds) {
    static const double STRETCH = 0.02;
    clsplat_status status = CLSPLAT_OK;
    double once = 0;
    size_t times = 1;
    example e;
    TRY(example_create(device, kind, &shape, &e));
    TRY(example_call(&e, NULL, 1, &once)); /* kernels are built */
    TRY(example_call(&e, NULL, 1, seconds));
    times = *seconds < STRETCH ? (size_t)(STRETCH / fmax(*seconds, 1e-7)) + 1 : 1;
    for (int i = 0; i < RUNS; ++i) {
        TRY(example_call(&e, NULL, times, &once));
        *seconds = fmin(*seconds, once);
    }
fail:
    example_free(&e);
    return status;
}

/* The matrices of a layer: columns, rows, and how many of them. */
enum { MATRICES = 5 };
static void list_matrices(const model_config *m, size_t sizes[MATRICES][3]) {
    const size_t all[MATRICES][3] = {{m->hidden, m->heads * m->head_dim, 1},
                                     {m->hidden, m->kv_heads * m->head_dim, 2},
                                     {m->heads * m->head_dim, m->hidden, 1},
                                     {m->hidden, m->intermediate, 2},
                                     {m->intermediate, m->hidden, 1}};
    memcpy(sizes, all, sizeof all);
}

static clsplat_status time_product(clsplat_device *device, const plan_model *m, const size_t size[2],
                                   size_t rows, double *seconds) {
    example_shape shape = {.batch = 1,
                           .heads = 1,
                           .queries = rows,
                           .keys = size[1],
                           .dim = size[0],
                           .value_dim = size[0],
                           .dtype = m->dtype};
    return time_one(device, &example_gemm, shape, seconds);
}

static clsplat_status time_products(clsplat_device *device, const plan_model *m, size_t rows,
                                    double *seconds) {
    clsplat_status status = CLSPLAT_OK;
    size_t sizes[MATRICES][3];
    *seconds = 0;
    list_matrices(&m->config, sizes);
    for (size_t i = 0; i < MATRICES; ++i) {
        double one = 0;
        TRY(time_product(device, m, sizes[i], rows, &one));
        *seconds += one * (double)sizes[i][2];
    }
fail:
    return status;
}

/* The pairs of `rows` last rows with the keys that they see. */
static double pairs_of(double rows, double keys) {
    return rows * keys - rows * (rows - 1) / 2;
}

static clsplat_status time_attention(clsplat_device *device, const plan_model *m, size_t rows,
                                     double *seconds) {
    size_t keys = m->context < KEYS_MOST ? (size_t)m->context : KEYS_MOST;
    example_shape shape = {.batch = 1,
                           .heads = m->config.heads,
                           .queries = rows < keys ? rows : keys,
                           .keys = keys,
                           .dim = m->config.head_dim,
                           .value_dim = m->config.head_dim,
                           .splats = (size_t)m->splats,
                           .dtype = m->dtype,
                           .causal = true};
    if (m->splats > 0)
        shape.keys = shape.queries;
    clsplat_status status =
        time_one(device, m->splats > 0 ? &example_gaussian : &example_softmax, shape, seconds);
    *seconds /= m->splats > 0 ? (double)shape.queries : pairs_of((double)shape.queries, (double)shape.keys);
    return status;
}

/* A token alone reads all weights, from memory where they do not fit caches: by the time of one matrix, as
 * large. */
static clsplat_status time_reading(clsplat_device *device, const plan_model *m, double *seconds) {
    static const double MOST = 1 << 27;
    double row = (double)m->config.hidden * (double)clsplat_dtype_size(m->dtype);
    double rows = fmax(floor(fmin(m->weight_bytes, MOST) / row), 1);
    clsplat_status status = time_product(device, m, (size_t[]){m->config.hidden, (size_t)rows}, 1, seconds);
    *seconds *= m->weight_bytes / (rows * row);
    return status;
}

/* A launch of next to nothing. */
static clsplat_status time_launch(clsplat_device *device, const plan_model *m, double *seconds) {
    enum { LITTLE = 16 };
    return time_product(device, m, (size_t[]){LITTLE, LITTLE}, 1, seconds);
}

clsplat_status plan_time(cli *c, const plan_model *m, plan_speed *speed) {
    enum { LAUNCHES = 10 }; /* of a layer in decoding: products, norms, rotary positions, attention, sums */
    clsplat_status status = CLSPLAT_OK;
    size_t rows = m->context < CHUNK ? (size_t)m->context : CHUNK;
    clsplat_device *device = NULL;
    double reading = 0, pair = 0, little = 0, layers = (double)m->config.layers;
    *speed = (plan_speed){0};
    TRY(clsplat_device_open(c->lib, c->device, &device));
    snprintf(speed->device, sizeof speed->device, "%s", clsplat_device_describe(device)->name);
    TRY(time_products(device, m, rows, &speed->token));
    speed->token /= (double)rows;
    TRY(time_attention(device, m, rows, &speed->pair));
    TRY(time_reading(device, m, &reading));
    TRY(time_attention(device, m, 1, &pair));
    TRY(time_launch(device, m, &little));
    speed->single = reading + layers * (LAUNCHES * little + pair * (m->splats > 0 ? 1 : m->context));
fail:
    clsplat_device_close(&device);
    return status;
}

/* Multiply-adds, twice, of what a record is of. */
static double flops_of(const tune_record *r) {
    const tune_shape *s = &r->shape;
    double pairs = (double)s->heads * (double)s->rows * (double)s->sources;
    if (strcmp(r->op, "softmax") == 0 && strcmp(s->form, "causal") == 0)
        pairs = (double)s->heads * pairs_of((double)s->rows, (double)s->sources);
    return 2 * pairs * (double)(s->dim + s->value_dim);
}

/* The fastest record of an operation; 0: there is none. */
static double rate_of(const tune_database *db, const char *name, const char *op, const plan_model *m,
                      char device[128]) {
    static const char *const types[] = {
        [CLSPLAT_F32] = "F32", [CLSPLAT_F16] = "F16", [CLSPLAT_BF16] = "BF16"};
    double rate = 0;
    for (size_t i = 0; i < db->count; ++i) {
        const tune_record *r = &db->records[i];
        if (!strstr(r->on.device, name) || strcmp(r->op, op) != 0 || !isfinite(r->seconds) ||
            strcmp(r->shape.type, types[m->dtype]) != 0)
            continue;
        rate = fmax(rate, flops_of(r) / r->seconds);
        snprintf(device, 128, "%s", r->on.device);
    }
    return rate;
}

static clsplat_status no_record(cli *c, const char *name, const char *op) {
    return log_error(c->lib, CLSPLAT_INVALID,
                     "--devices: no tuning record of %s in that type is of a device whose name has `%s`: run "
                     "`clsplat tune` there, choose another --dtype, or plan for the device that is here",
                     op, name);
}

clsplat_status plan_look_up(cli *c, const plan_model *m, const char *name, plan_speed *speed) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *f = &m->config;
    const char *const halves[] = {"write", "read"};
    tune_database db = {0};
    size_t sizes[MATRICES][3];
    *speed = (plan_speed){.single = (double)NAN};
    TRY(op_records_load(c->lib, &db));
    double gemm = rate_of(&db, name, "gemm", m, speed->device), columns = 2 * (double)f->head_dim;
    if (gemm <= 0)
        TRY(no_record(c, name, "gemm"));
    list_matrices(f, sizes);
    for (size_t i = 0; i < MATRICES; ++i)
        speed->token += 2 * (double)(sizes[i][0] * sizes[i][1] * sizes[i][2]) / gemm;
    if (m->splats > 0) {
        for (int i = 0; i < 2; ++i) {
            double rate = rate_of(&db, name, halves[i], m, speed->device);
            if (rate <= 0)
                TRY(no_record(c, name, halves[i]));
            speed->pair += 2 * (double)f->heads * m->splats * columns / rate;
        }
    } else {
        double rate = rate_of(&db, name, "softmax", m, speed->device);
        if (rate <= 0)
            TRY(no_record(c, name, "softmax"));
        speed->pair = 2 * (double)f->heads * columns / rate;
    }
fail:
    tune_database_free(&db);
    return status;
}
