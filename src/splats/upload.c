/* A splat set on its way to a device: sorted by level, logarithms combined in double. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "runtime/buffer.h"
#include "runtime/queue.h"
#include "splats/splats.h"

/* The host's side of op_splats. */
typedef struct prepared {
    size_t *order; /* [S]: splats by level, in their own order within one */
    float *mean, *inverse, *centre, *log_weight;
    uint32_t *level_begin;
    double spread, distance;
} prepared;

static void prepared_free(prepared *p) {
    free(p->order);
    free(p->mean);
    free(p->inverse);
    free(p->centre);
    free(p->log_weight);
    free(p->level_begin);
}

static bool prepared_allocate(prepared *p, const clsplat_splats_shape *s) {
    size_t splats = s->heads * s->count;
    p->order = malloc(s->count * sizeof *p->order);
    p->mean = malloc(splats * s->dim * sizeof *p->mean);
    p->inverse = calloc(splats * splats_covariance_size(s), sizeof *p->inverse);
    p->centre = malloc(s->heads * s->dim * sizeof *p->centre);
    p->log_weight = malloc(splats * sizeof *p->log_weight);
    p->level_begin = calloc(s->levels + 1, sizeof *p->level_begin);
    return p->order && p->mean && p->inverse && p->centre && p->log_weight && p->level_begin;
}

/* A counting sort. */
static void sort_by_level(prepared *p, const clsplat_splats_parameters *from) {
    size_t levels = from->shape.levels;
    for (size_t s = 0; s < from->shape.count; ++s)
        ++p->level_begin[from->level[s] + 1];
    for (size_t l = 0; l < levels; ++l)
        p->level_begin[l + 1] += p->level_begin[l];
    for (size_t s = 0; s < from->shape.count; ++s)
        p->order[p->level_begin[from->level[s]]++] = s;
    for (size_t l = levels; l > 0; --l) /* the sort left each level's begin at the next one's */
        p->level_begin[l] = p->level_begin[l - 1];
    p->level_begin[0] = 0;
}

static float to_float(double value) {
    return (float)fmin(fmax(value, -FLT_MAX), FLT_MAX);
}

/* (L/√τ)ᵀ: row c holds the entries L[e][c], e ≥ c. */
static void transpose_factor(const float *chol, size_t dim, double scale, float *inverse) {
    for (size_t c = 0; c < dim; ++c)
        for (size_t e = c; e < dim; ++e)
            inverse[c * dim + e] = to_float((double)chol[e * dim + c] * scale);
}

static void prepare_splat(prepared *p, const clsplat_splats_parameters *from, size_t source, size_t target) {
    size_t dim = from->shape.dim, size = splats_covariance_size(&from->shape);
    double half_log_temperature = 0.5 * (double)from->log_temperature[source];
    for (size_t d = 0; d < dim; ++d)
        p->mean[target * dim + d] = from->mean[source * dim + d];
    p->log_weight[target] = from->log_amplitude[source];
    if (from->shape.covariance == CLSPLAT_FULL) {
        transpose_factor(from->precision_chol + source * size, dim, exp(-half_log_temperature),
                         p->inverse + target * size);
        return;
    }
    for (size_t d = 0; d < size; ++d)
        p->inverse[target * size + d] =
            to_float(exp(-0.5 * (double)from->log_var[source * size + d] - half_log_temperature));
}

/* The mean of a head's means, and how far the means lie from it and from the origin in widths of a splat
 * (op_splats.spread, op_splats.distance). */
static void find_centre(prepared *p, const clsplat_splats_shape *s, size_t head) {
    size_t size = splats_covariance_size(s);
    float *centre = p->centre + head * s->dim;
    for (size_t d = 0; d < s->dim; ++d) {
        double sum = 0;
        for (size_t i = 0; i < s->count; ++i)
            sum += (double)p->mean[(head * s->count + i) * s->dim + d];
        centre[d] = (float)(sum / (double)s->count);
    }
    for (size_t i = head * s->count; i < (head + 1) * s->count; ++i) {
        double square = 0, widest = 0, from_origin = 0;
        for (size_t d = 0; d < s->dim; ++d) {
            double distance = fabs((double)p->mean[i * s->dim + d] - (double)centre[d]) *
                              (double)p->inverse[i * size + (s->covariance == CLSPLAT_DIAGONAL ? d : 0)];
            square += distance * distance;
            widest = fmax(widest, distance);
            from_origin += (double)p->mean[i * s->dim + d] * (double)p->mean[i * s->dim + d];
        }
        p->distance = fmax(p->distance, sqrt(from_origin) * (double)p->inverse[i * size]);
        p->spread = fmax(p->spread, s->covariance == CLSPLAT_ISOTROPIC ? sqrt(square) : widest);
    }
}

static void prepare(prepared *p, const clsplat_splats_parameters *from) {
    sort_by_level(p, from);
    for (size_t h = 0; h < from->shape.heads; ++h) {
        for (size_t i = 0; i < from->shape.count; ++i)
            prepare_splat(p, from, h * from->shape.count + p->order[i], h * from->shape.count + i);
        find_centre(p, &from->shape, h);
    }
}

/* The buffers of a set and their sizes. */
typedef struct part {
    cl_mem *mem;
    const void *host;
    size_t bytes;
} part;
enum { PARTS = 6 };

static void list_parts(op_splats *ready, const clsplat_splats_parameters *from, const prepared *p,
                       part parts[PARTS]) {
    const clsplat_splats_shape *s = &from->shape;
    size_t splats = s->heads * s->count;
    parts[0] = (part){&ready->mean, p ? p->mean : NULL, splats * s->dim * sizeof(float)};
    parts[1] =
        (part){&ready->inverse, p ? p->inverse : NULL, splats * splats_covariance_size(s) * sizeof(float)};
    parts[2] = (part){&ready->centre, p ? p->centre : NULL, s->heads * s->dim * sizeof(float)};
    parts[3] = (part){&ready->log_weight, p ? p->log_weight : NULL, splats * sizeof(float)};
    parts[4] = (part){&ready->level_begin, p ? p->level_begin : NULL, (s->levels + 1) * sizeof(uint32_t)};
    parts[5] = (part){&ready->level_log_weight, from->level_log_weight, s->levels * sizeof(float)};
}

static void release(clsplat_splats *splats, splats_upload_state *u) {
    part parts[PARTS];
    list_parts(&u->ready, &splats->parameters, NULL, parts);
    for (size_t i = 0; i < PARTS; ++i)
        buffer_release_of(splats->lib, u->device, parts[i].bytes, parts[i].mem);
    u->version = 0;
}

void splats_uploads_release(clsplat_splats *splats) {
    for (splats_upload_state *u; (u = splats->uploads);) {
        splats->uploads = u->next;
        release(splats, u);
        free(u);
    }
}

static clsplat_status upload(clsplat_device *device, clsplat_splats *splats, const prepared *p,
                             splats_upload_state *u) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_splats_shape *s = &splats->parameters.shape;
    part parts[PARTS];
    u->ready = (op_splats){.covariance = s->covariance,
                           .heads = s->heads,
                           .count = s->count,
                           .dim = s->dim,
                           .levels = s->levels,
                           .spread = p->spread,
                           .distance = p->distance};
    list_parts(&u->ready, &splats->parameters, p, parts);
    for (size_t i = 0; i < PARTS; ++i)
        TRY(buffer_create_from(device, parts[i].bytes, parts[i].host, parts[i].mem));
    u->version = splats->version;
fail:
    return status;
}

static void leave_closed(clsplat_splats *splats) {
    for (splats_upload_state **at = &splats->uploads, *u; (u = *at);) {
        if (device_is_open(splats->lib, u->device)) {
            at = &u->next;
            continue;
        }
        *at = u->next;
        release(splats, u);
        free(u);
    }
}

/* The device's place in the list. */
static splats_upload_state *place_of(clsplat_splats *splats, uint64_t device) {
    splats_upload_state *u = splats->uploads;
    while (u && u->device != device)
        u = u->next;
    if (u)
        return u;
    leave_closed(splats);
    if ((u = calloc(1, sizeof *u))) {
        *u = (splats_upload_state){.next = splats->uploads, .device = device};
        splats->uploads = u;
    }
    return u;
}

static clsplat_status bring(clsplat_device *device, clsplat_splats *splats, splats_upload_state *u) {
    clsplat_status status = CLSPLAT_OK;
    prepared p = {0};
    TRY(splats_check(splats, CLSPLAT_INVALID, ""));
    release(splats, u);
    if (!prepared_allocate(&p, &splats->parameters.shape)) {
        status = log_error(device->lib, CLSPLAT_MEMORY, "no memory to upload %zu splats",
                           splats->parameters.shape.count);
        goto fail;
    }
    prepare(&p, &splats->parameters);
    TRY(upload(device, splats, &p, u));
fail:
    prepared_free(&p);
    if (status != CLSPLAT_OK)
        release(splats, u);
    return status;
}

clsplat_status splats_upload(clsplat_device *device, clsplat_splats *splats, const op_splats **ready) {
    clsplat_status status = CLSPLAT_OK;
    pthread_mutex_lock(&splats->lock);
    splats_upload_state *u = place_of(splats, device->serial);
    if (!u)
        status = log_error(device->lib, CLSPLAT_MEMORY, "no memory for a set of splats on another device");
    else if (u->version != splats->version)
        status = bring(device, splats, u);
    *ready = u ? &u->ready : NULL;
    pthread_mutex_unlock(&splats->lock);
    return status;
}
