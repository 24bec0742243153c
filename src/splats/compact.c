/* Splat files in 16 or 8 bits a number.
 *
 * Every column of every array of a head is stored as whole numbers n with x = offset + step n, [Hs,S,columns]
 * of U16 or U8, with tensors NAME.offset and NAME.step [Hs,columns]; half a step is lost at most. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sized.h"
#include "splats/file.h"

static const char *const covariances[] = {
    [CLSPLAT_ISOTROPIC] = "isotropic", [CLSPLAT_DIAGONAL] = "diagonal", [CLSPLAT_FULL] = "full"};

static clsplat_status no_memory(clsplat *lib, const char *path) {
    return log_error(lib, CLSPLAT_MEMORY, "no memory for the splats of %s", path);
}

/* One array in whole numbers. */
typedef struct stepped {
    char offset_name[40], step_name[40];
    float *offset, *step; /* [Hs,columns] */
    void *numbers;        /* [Hs,S,columns] */
} stepped;

static bool stepped_allocate(const clsplat_splats_shape *shape, const splats_array *a, unsigned bits,
                             stepped *s) {
    size_t columns = shape->heads * a->columns;
    s->offset = malloc(columns * sizeof *s->offset);
    s->step = malloc(columns * sizeof *s->step);
    s->numbers = malloc(columns * shape->count * (bits / 8));
    return s->offset && s->step && s->numbers;
}

static void stepped_name(const splats_array *a, stepped *s) {
    snprintf(s->offset_name, sizeof s->offset_name, "%s.offset", a->name);
    snprintf(s->step_name, sizeof s->step_name, "%s.step", a->name);
}

static void stepped_free(stepped *s) {
    free(s->offset);
    free(s->step);
    free(s->numbers);
}

/* The largest numbers must not become infinite by rounding. */
static float stepped_float(double x) {
    return (float)fmin(fmax(x, -(double)FLT_MAX), (double)FLT_MAX);
}

static float stepped_value(const clsplat_splats_shape *shape, const splats_array *a, const stepped *s,
                           unsigned bits, size_t at) {
    size_t column = at / (shape->count * a->columns) * a->columns + at % a->columns;
    uint32_t n = bits == 8 ? ((const uint8_t *)s->numbers)[at] : ((const uint16_t *)s->numbers)[at];
    return stepped_float((double)s->offset[column] + (double)s->step[column] * (double)n);
}

/* Above the diagonal of a factor anything may stand: 0 then. */
static bool column_counts(const clsplat_splats_shape *shape, const splats_array *a, size_t column) {
    return shape->covariance != CLSPLAT_FULL || strcmp(a->name, "precision_chol") != 0 ||
           column % shape->dim <= column / shape->dim;
}

static void step_column(const clsplat_splats_shape *shape, const splats_array *a, size_t head, size_t column,
                        unsigned bits, const stepped *to) {
    const float *x = a->values + head * shape->count * a->columns + column;
    double least = (double)x[0], most = (double)x[0], last = (double)((1U << bits) - 1);
    float *step = &to->step[head * a->columns + column], *offset = &to->offset[head * a->columns + column];
    bool is_there = column_counts(shape, a, column);
    for (size_t s = 0; s < shape->count && is_there; ++s) {
        least = fmin(least, (double)x[s * a->columns]);
        most = fmax(most, (double)x[s * a->columns]);
    }
    *offset = is_there ? (float)least : 0;
    *step = is_there ? (float)((most - least) / last) : 0;
    for (size_t s = 0; s < shape->count; ++s) {
        size_t at = (head * shape->count + s) * a->columns + column;
        double n = *step > 0 ? round(((double)x[s * a->columns] - least) / (double)*step) : 0;
        n = fmin(fmax(n, 0), last);
        if (bits == 8)
            ((uint8_t *)to->numbers)[at] = (uint8_t)n;
        else
            ((uint16_t *)to->numbers)[at] = (uint16_t)n;
    }
}

/* What the loss of a number is measured in: of a mean a width of its splat, of a factor its row's diagonal,
 * of a logarithm 1. */
static double unit_of(const clsplat_splats_parameters *p, const splats_array *a, size_t splat,
                      size_t column) {
    size_t dim = p->shape.dim, size = splats_covariance_size(&p->shape);
    if (a->values == p->mean && p->log_var)
        return exp(0.5 *
                   (double)p->log_var[splat * size + (p->shape.covariance == CLSPLAT_DIAGONAL ? column : 0)]);
    if (a->values == p->mean)
        return 1 / fmax(fabs((double)p->precision_chol[splat * size + column * (dim + 1)]), 1e-30);
    if (a->values == p->precision_chol)
        return fmax(fabs((double)a->values[splat * size + column / dim * (dim + 1)]), 1e-30);
    return 1;
}

static double loss_of(const clsplat_splats *set, const splats_array *a, const stepped *s, unsigned bits) {
    const clsplat_splats_parameters *p = &set->parameters;
    double most = 0;
    for (size_t at = 0; at < p->shape.heads * p->shape.count * a->columns; ++at) {
        double apart = (double)stepped_value(&p->shape, a, s, bits, at) - (double)a->values[at];
        if (column_counts(&p->shape, a, at % a->columns))
            most = fmax(most, fabs(apart) / unit_of(p, a, at / a->columns, at % a->columns));
    }
    return most;
}

clsplat_status clsplat_splats_save_compact_sized(clsplat_splats *splats, const char *path, unsigned bits,
                                                 clsplat_splats_loss *loss) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_splats_parameters *p = &splats->parameters;
    uint64_t heads = p->shape.heads, count = p->shape.count;
    splats_array arrays[SPLATS_ARRAYS];
    stepped steps[SPLATS_ARRAYS] = {0};
    safetensors_output tensors[3 * SPLATS_ARRAYS + 2];
    size_t next = 0;
    if (bits != 8 && bits != 16)
        return log_error(splats->lib, CLSPLAT_INVALID, "compact splats have 8 or 16 bits a number, not %u",
                         bits);
    TRY(splats_check(splats, CLSPLAT_INVALID, ""));
    splats_arrays(splats, arrays);
    for (size_t i = 0; i < SPLATS_ARRAYS; ++i) {
        const splats_array *a = &arrays[i];
        stepped *s = &steps[i];
        stepped_name(a, s);
        if (!stepped_allocate(&p->shape, a, bits, s)) {
            status = no_memory(splats->lib, path);
            goto fail;
        }
        for (size_t c = 0; c < heads * a->columns; ++c)
            step_column(&p->shape, a, c / a->columns, c % a->columns, bits, s);
        tensors[next++] = (safetensors_output){
            a->name, bits == 8 ? "U8" : "U16", 3, {heads, count, a->columns}, s->numbers};
        tensors[next++] = (safetensors_output){s->offset_name, "F32", 2, {heads, a->columns}, s->offset};
        tensors[next++] = (safetensors_output){s->step_name, "F32", 2, {heads, a->columns}, s->step};
    }
    tensors[next++] = (safetensors_output){"level", "I32", 1, {count}, p->level};
    tensors[next++] =
        (safetensors_output){"level_log_weight", "F32", 1, {p->shape.levels}, p->level_log_weight};
    const char *const extra[][2] = {{"kind", "compact"}, {"covariance", covariances[p->shape.covariance]}};
    TRY(splats_file_write(splats, path, "2", tensors, next, extra, 2));
    if (loss) {
        clsplat_splats_loss own = {.mean = loss_of(splats, &arrays[0], &steps[0], bits),
                                   .covariance = loss_of(splats, &arrays[1], &steps[1], bits),
                                   .log_amplitude = loss_of(splats, &arrays[2], &steps[2], bits),
                                   .log_temperature = loss_of(splats, &arrays[3], &steps[3], bits)};
        sized_write(&own, sizeof own, loss);
    }
fail:
    for (size_t i = 0; i < SPLATS_ARRAYS; ++i)
        stepped_free(&steps[i]);
    return status;
}

static clsplat_status read_covariance(clsplat *lib, const safetensors *f, clsplat_covariance *covariance) {
    const char *word = safetensors_metadata(f, "covariance");
    for (size_t i = 0; word && i < sizeof covariances / sizeof *covariances; ++i)
        if (strcmp(covariances[i], word) == 0) {
            *covariance = (clsplat_covariance)i;
            return CLSPLAT_OK;
        }
    return log_error(lib, CLSPLAT_FORMAT, "%s: its metadata has no covariance that there is",
                     safetensors_path(f));
}

static clsplat_status read_array(clsplat *lib, const safetensors *f, const clsplat_splats_shape *shape,
                                 unsigned bits, const splats_array *a) {
    clsplat_status status = CLSPLAT_OK;
    stepped s = {0};
    const safetensors_entry *numbers, *parts[2];
    const uint64_t expected[] = {shape->heads, shape->count, a->columns};
    stepped_name(a, &s);
    TRY(splats_file_need(lib, f, a->name, bits == 8 ? "U8" : "U16", 3, &numbers));
    for (size_t d = 0; d < 3; ++d)
        TRY(splats_file_expect(lib, f, numbers, d, expected[d]));
    for (size_t i = 0; i < 2; ++i) {
        TRY(splats_file_need(lib, f, i ? s.step_name : s.offset_name, "F32", 2, &parts[i]));
        TRY(splats_file_expect(lib, f, parts[i], 0, shape->heads));
        TRY(splats_file_expect(lib, f, parts[i], 1, a->columns));
    }
    if (!stepped_allocate(shape, a, bits, &s)) {
        status = no_memory(lib, safetensors_path(f));
        goto fail;
    }
    TRY(safetensors_read(lib, f, parts[0], s.offset));
    TRY(safetensors_read(lib, f, parts[1], s.step));
    TRY(safetensors_read(lib, f, numbers, s.numbers));
    for (size_t at = 0; at < shape->heads * shape->count * a->columns; ++at)
        a->values[at] = stepped_value(shape, a, &s, bits, at);
fail:
    stepped_free(&s);
    return status;
}

/* The shape, of tensors that are there: memory is taken for no more than the file has. */
static clsplat_status read_shape(clsplat *lib, const safetensors *f, unsigned *bits,
                                 clsplat_splats_shape *shape) {
    clsplat_status status = CLSPLAT_OK;
    const safetensors_entry *mean = safetensors_find(f, "mean"), *weight, *covariance;
    *bits = mean && strcmp(mean->dtype, "U8") == 0 ? 8 : 16;
    const char *type = *bits == 8 ? "U8" : "U16";
    TRY(read_covariance(lib, f, &shape->covariance));
    TRY(splats_file_need(lib, f, "mean", type, 3, &mean));
    TRY(splats_file_need(lib, f, "level_log_weight", "F32", 1, &weight));
    TRY(splats_file_need(lib, f, shape->covariance == CLSPLAT_FULL ? "precision_chol" : "log_var", type, 3,
                         &covariance));
    shape->heads = (size_t)mean->shape[0], shape->count = (size_t)mean->shape[1];
    shape->dim = (size_t)mean->shape[2], shape->levels = (size_t)weight->shape[0];
    TRY(splats_file_expect(lib, f, covariance, 0, shape->heads));
    TRY(splats_file_expect(lib, f, covariance, 1, shape->count));
    if (shape->dim < UINT32_MAX)
        TRY(splats_file_expect(lib, f, covariance, 2, splats_covariance_size(shape)));
fail:
    return status;
}

clsplat_status splats_read_compact(clsplat *lib, const safetensors *f, clsplat_splats **set) {
    clsplat_status status = CLSPLAT_OK;
    unsigned bits;
    clsplat_splats_shape shape = {0};
    splats_array arrays[SPLATS_ARRAYS];
    *set = NULL;
    TRY(read_shape(lib, f, &bits, &shape));
    TRY(clsplat_splats_create(lib, shape, set));
    splats_arrays(*set, arrays);
    for (size_t i = 0; i < SPLATS_ARRAYS; ++i)
        TRY(read_array(lib, f, &shape, bits, &arrays[i]));
    TRY(splats_file_levels(lib, f, *set));
    TRY(splats_file_finish(lib, f, *set));
    return CLSPLAT_OK;
fail:
    clsplat_splats_destroy(set);
    return status;
}
