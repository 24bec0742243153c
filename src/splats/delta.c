/* Splat files of what differs from a base: `index` [n], the splats that differ in any head or are new, and
 * their rows of every array [Hs,n,columns]. The base's numbers are hashed in the metadata, so that another
 * one is refused. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "splats/file.h"

static clsplat_status no_memory(clsplat *lib, const char *path) {
    return log_error(lib, CLSPLAT_MEMORY, "no memory for the splats of %s", path);
}

/* Of a set's shape and its splats' numbers. */
static void hash_set(const clsplat_splats *set, char words[17]) {
    const clsplat_splats_shape *s = &set->parameters.shape;
    const uint64_t shape[] = {s->covariance, s->heads, s->count, s->dim};
    splats_array arrays[SPLATS_ARRAYS];
    XXH64_hash_t hash = XXH3_64bits(shape, sizeof shape);
    splats_arrays(set, arrays);
    for (size_t i = 0; i < SPLATS_ARRAYS; ++i)
        hash = XXH3_64bits_withSeed(arrays[i].values, s->heads * s->count * arrays[i].columns * sizeof(float),
                                    hash);
    snprintf(words, 17, "%016" PRIx64, (uint64_t)hash);
}

static bool differs(const clsplat_splats *set, const clsplat_splats *base, size_t splat) {
    splats_array own[SPLATS_ARRAYS], other[SPLATS_ARRAYS];
    const clsplat_splats_shape *s = &set->parameters.shape, *b = &base->parameters.shape;
    bool different = splat >= b->count;
    splats_arrays(set, own);
    splats_arrays(base, other);
    for (size_t i = 0; i < s->heads * SPLATS_ARRAYS && !different; ++i) {
        size_t h = i / SPLATS_ARRAYS, columns = own[i % SPLATS_ARRAYS].columns;
        different = memcmp(own[i % SPLATS_ARRAYS].values + (h * s->count + splat) * columns,
                           other[i % SPLATS_ARRAYS].values + (h * b->count + splat) * columns,
                           columns * sizeof(float)) != 0;
    }
    return different;
}

/* Rows `index` of an array [Hs,S,columns], to or from [Hs,n,columns]. */
static void move_rows(const clsplat_splats_shape *s, const splats_array *a, const int32_t *index, size_t n,
                      float *rows, bool out) {
    size_t bytes = a->columns * sizeof(float);
    for (size_t i = 0; i < s->heads * n; ++i) {
        float *own = a->values + (i / n * s->count + (size_t)index[i % n]) * a->columns,
              *row = rows + i * a->columns;
        memcpy(out ? row : own, out ? own : row, bytes);
    }
}

static clsplat_status check_base(clsplat *lib, const clsplat_splats_shape *s, const clsplat_splats_shape *b) {
    if (s->covariance == b->covariance && s->heads == b->heads && s->dim == b->dim)
        return CLSPLAT_OK;
    return log_error(lib, CLSPLAT_INVALID,
                     "the base has %zu heads of %zu dimensions, the splats %zu of %zu; these and the kind of "
                     "covariance must "
                     "be the same",
                     b->heads, b->dim, s->heads, s->dim);
}

clsplat_status clsplat_splats_save_delta(clsplat_splats *splats, clsplat_splats *base, const char *path) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_splats_parameters *p = &splats->parameters;
    uint64_t heads = p->shape.heads, count = p->shape.count;
    splats_array arrays[SPLATS_ARRAYS];
    float *rows[SPLATS_ARRAYS] = {0};
    safetensors_output tensors[SPLATS_ARRAYS + 3];
    char hash[17];
    size_t n = 0, next = 0;
    int32_t *index = malloc(count * sizeof *index);
    if (!index)
        return no_memory(splats->lib, path);
    TRY(check_base(splats->lib, &p->shape, &base->parameters.shape));
    TRY(splats_check(splats, CLSPLAT_INVALID, ""));
    for (size_t s = 0; s < count; ++s)
        if (differs(splats, base, s))
            index[n++] = (int32_t)s;
    hash_set(base, hash);
    splats_arrays(splats, arrays);
    for (size_t i = 0; i < SPLATS_ARRAYS && n; ++i) {
        rows[i] = malloc(heads * n * arrays[i].columns * sizeof(float));
        if (!rows[i]) {
            status = no_memory(splats->lib, path);
            goto fail;
        }
        move_rows(&p->shape, &arrays[i], index, n, rows[i], true);
        tensors[next++] =
            (safetensors_output){arrays[i].name, "F32", 3, {heads, n, arrays[i].columns}, rows[i]};
    }
    if (n)
        tensors[next++] = (safetensors_output){"index", "I32", 1, {n}, index};
    tensors[next++] = (safetensors_output){"level", "I32", 1, {count}, p->level};
    tensors[next++] =
        (safetensors_output){"level_log_weight", "F32", 1, {p->shape.levels}, p->level_log_weight};
    const char *const extra[][2] = {{"kind", "delta"}, {"base", hash}};
    TRY(splats_file_write(splats, path, "2", tensors, next, extra, 2));
fail:
    for (size_t i = 0; i < SPLATS_ARRAYS; ++i)
        free(rows[i]);
    free(index);
    return status;
}

/* Every splat beyond the base's must be told of. */
static clsplat_status read_index(clsplat *lib, const safetensors *f, size_t count, size_t known,
                                 const safetensors_entry *e, int32_t *index) {
    clsplat_status status = CLSPLAT_OK;
    size_t fresh = 0;
    TRY(safetensors_read(lib, f, e, index));
    for (size_t i = 0; i < e->count; ++i) {
        if (index[i] < 0 || (size_t)index[i] >= count || (i && index[i] <= index[i - 1]))
            return log_error(lib, CLSPLAT_FORMAT,
                             "%s: tensor 'index' holds %" PRId32
                             " at element %zu; it must rise from 0 to %zu at most",
                             safetensors_path(f), index[i], i, count - 1);
        fresh += (size_t)index[i] >= known;
    }
    if (count > known && fresh != count - known)
        return log_error(lib, CLSPLAT_FORMAT, "%s: tensor 'index' has %zu of %zu splats that the base lacks",
                         safetensors_path(f), fresh, count - known);
fail:
    return status;
}

static clsplat_status read_rows(clsplat *lib, const safetensors *f, size_t known, clsplat_splats *set) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_splats_shape *s = &set->parameters.shape;
    const safetensors_entry *e, *rows;
    splats_array own[SPLATS_ARRAYS];
    int32_t *index = NULL;
    float *numbers = NULL;
    splats_arrays(set, own);
    TRY(splats_file_need(lib, f, "index", "I32", 1, &e));
    TRY(splats_file_need(lib, f, own[1].name, "F32", 3, &rows));
    index = malloc((size_t)e->bytes);
    numbers = malloc(
        (size_t)(rows->bytes > s->heads * e->bytes * s->dim ? rows->bytes : s->heads * e->bytes * s->dim));
    if (!index || !numbers) {
        status = no_memory(lib, safetensors_path(f));
        goto fail;
    }
    TRY(read_index(lib, f, s->count, known, e, index));
    for (size_t i = 0; i < SPLATS_ARRAYS; ++i) {
        const uint64_t expected[] = {s->heads, e->count, own[i].columns};
        TRY(splats_file_need(lib, f, own[i].name, "F32", 3, &rows));
        for (size_t d = 0; d < 3; ++d)
            TRY(splats_file_expect(lib, f, rows, d, expected[d]));
        TRY(safetensors_read(lib, f, rows, numbers));
        move_rows(s, &own[i], index, (size_t)e->count, numbers, false);
    }
fail:
    free(numbers);
    free(index);
    return status;
}

/* The base's splats as far as both go; then those of the file. */
static clsplat_status read_delta(clsplat *lib, const safetensors *f, const clsplat_splats *base,
                                 clsplat_splats *set) {
    const clsplat_splats_shape *s = &set->parameters.shape, *b = &base->parameters.shape;
    splats_array own[SPLATS_ARRAYS], other[SPLATS_ARRAYS];
    size_t shared = s->count < b->count ? s->count : b->count;
    splats_arrays(set, own);
    splats_arrays(base, other);
    for (size_t i = 0; i < SPLATS_ARRAYS; ++i)
        for (size_t h = 0; h < s->heads; ++h)
            memcpy(own[i].values + h * s->count * own[i].columns,
                   other[i].values + h * b->count * own[i].columns, shared * own[i].columns * sizeof(float));
    if (!safetensors_find(f, "index") && s->count <= b->count)
        return CLSPLAT_OK; /* nothing differs */
    return read_rows(lib, f, b->count, set);
}

static clsplat_status check_made_for(clsplat *lib, const safetensors *f, const clsplat_splats *base) {
    const char *kind = safetensors_metadata(f, "kind"), *made_for = safetensors_metadata(f, "base");
    char hash[17];
    if (!kind || strcmp(kind, "delta") != 0 || !made_for)
        return log_error(lib, CLSPLAT_FORMAT,
                         "%s: holds splats of its own, and no difference from a base; load it alone",
                         safetensors_path(f));
    hash_set(base, hash);
    if (strcmp(hash, made_for) != 0)
        return log_error(lib, CLSPLAT_INVALID,
                         "%s: is the difference from another base than the one that is given",
                         safetensors_path(f));
    return CLSPLAT_OK;
}

clsplat_status clsplat_splats_load_delta(clsplat *lib, const char *path, clsplat_splats *base,
                                         clsplat_splats **splats) {
    clsplat_status status = CLSPLAT_OK;
    safetensors *f = NULL;
    const safetensors_entry *level, *weight;
    clsplat_splats_shape shape = base->parameters.shape;
    clsplat_splats *set = NULL;
    *splats = NULL;
    TRY(safetensors_open(lib, path, &f));
    TRY(splats_file_version(lib, f));
    TRY(check_made_for(lib, f, base));
    TRY(splats_file_need(lib, f, "level", "I32", 1, &level));
    TRY(splats_file_need(lib, f, "level_log_weight", "F32", 1, &weight));
    shape.count = (size_t)level->shape[0];
    shape.levels = (size_t)weight->shape[0];
    TRY(clsplat_splats_create(lib, shape, &set));
    TRY(read_delta(lib, f, base, set));
    TRY(splats_file_levels(lib, f, set));
    TRY(splats_file_finish(lib, f, set));
    *splats = set;
    set = NULL;
fail:
    clsplat_splats_destroy(&set);
    safetensors_close(&f);
    return status;
}
