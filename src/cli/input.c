#include "cli/input.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const dtype_names[] = {
    [CLSPLAT_F32] = "F32", [CLSPLAT_F16] = "F16", [CLSPLAT_BF16] = "BF16"};
enum { DTYPES = sizeof dtype_names / sizeof *dtype_names };

static const char *const layouts[] = {[3] = "[batch, heads, rows]", [4] = "[batch, heads, rows, columns]"};

/* The type of that name; -1 if it is none of ours. */
static int dtype_of(const safetensors_entry *entry) {
    for (int i = 0; i < DTYPES; ++i)
        if (strcmp(entry->dtype, dtype_names[i]) == 0)
            return i;
    return -1;
}

bool input_is_number(const safetensors_entry *entry) {
    return dtype_of(entry) >= 0;
}

clsplat_status input_find_any(clsplat *lib, const safetensors *file, const char *name, input *in) {
    *in = (input){.file = file, .entry = safetensors_find(file, name)};
    if (!in->entry)
        return log_error(lib, CLSPLAT_FORMAT, "%s: there is no tensor '%s'", safetensors_path(file), name);
    int dtype = dtype_of(in->entry);
    if (dtype < 0)
        return log_error(lib, CLSPLAT_FORMAT, "%s: tensor '%s' is %s; it must be F32, F16 or BF16",
                         safetensors_path(file), name, in->entry->dtype);
    in->tensor.dtype = (clsplat_dtype)dtype;
    return CLSPLAT_OK;
}

clsplat_status input_find(clsplat *lib, const safetensors *file, const char *name, size_t rank, input *in) {
    clsplat_status status = CLSPLAT_OK;
    TRY(input_find_any(lib, file, name, in));
    if (in->entry->rank != rank)
        return log_error(lib, CLSPLAT_SHAPE, "%s: tensor '%s' has %zu dimensions; it must have %zu, %s",
                         safetensors_path(file), name, in->entry->rank, rank, layouts[rank]);
    in->tensor.shape[INPUT_COLUMNS] = 1;
    for (size_t d = 0; d < rank; ++d) {
        if (in->entry->shape[d] == 0)
            return log_error(lib, CLSPLAT_SHAPE,
                             "%s: dimension %zu of tensor '%s' is 0; it must be at least 1",
                             safetensors_path(file), d, name);
        in->tensor.shape[d] = in->entry->shape[d];
    }
fail:
    return status;
}

clsplat_status input_find_optional(clsplat *lib, const safetensors *file, const char *name, size_t rank,
                                   input *in) {
    *in = (input){.file = file};
    return safetensors_find(file, name) ? input_find(lib, file, name, rank, in) : CLSPLAT_OK;
}

clsplat_status input_match(clsplat *lib, const input *in, const input *other, int d) {
    static const char *const things[4] = {"batch entries", "heads", "rows", "columns"};
    if (in->tensor.shape[d] == other->tensor.shape[d])
        return CLSPLAT_OK;
    return log_error(lib, CLSPLAT_SHAPE,
                     "%s: tensor '%s' has %zu %s, but tensor '%s' has %zu; they must be equal",
                     safetensors_path(in->file), in->entry->name, in->tensor.shape[d], things[d],
                     other->entry->name, other->tensor.shape[d]);
}

clsplat_status input_match_heads(clsplat *lib, const input *q, const input *k) {
    if (q->tensor.shape[INPUT_HEADS] % k->tensor.shape[INPUT_HEADS] == 0)
        return CLSPLAT_OK;
    return log_error(
        lib, CLSPLAT_SHAPE,
        "%s: tensor '%s' has %zu heads, but tensor '%s' has %zu; %s must have a multiple of that",
        safetensors_path(q->file), q->entry->name, q->tensor.shape[INPUT_HEADS], k->entry->name,
        k->tensor.shape[INPUT_HEADS], q->entry->name);
}

/* What is not finite has all exponent bits set. */
typedef struct number_format {
    uint32_t exponent, minus_infinity;
} number_format;
static const number_format formats[] = {[CLSPLAT_F32] = {0x7f800000u, 0xff800000u},
                                        [CLSPLAT_F16] = {0x7c00u, 0xfc00u},
                                        [CLSPLAT_BF16] = {0x7f80u, 0xff80u}};

static uint32_t bits_at(const clsplat_tensor *t, size_t i) {
    return t->dtype == CLSPLAT_F32 ? ((const uint32_t *)t->host)[i] : ((const uint16_t *)t->host)[i];
}

size_t input_row(const input *in, size_t row) {
    if (in->run[0][1] + in->run[1][1] == 0)
        return row;
    return row < in->run[0][1] ? in->run[0][0] + row : in->run[1][0] + row - in->run[0][1];
}

static clsplat_status refuse_number(clsplat *lib, const input *in, size_t i, uint32_t bits) {
    const clsplat_tensor *t = &in->tensor;
    number_format f = formats[t->dtype];
    uint32_t sign = f.minus_infinity ^ f.exponent;
    const char *value = (bits | sign) == f.minus_infinity ? "infinite" : "NaN";
    size_t column = i % t->shape[3], row = input_row(in, i / t->shape[3] % t->shape[2]);
    size_t head = i / t->shape[3] / t->shape[2] % t->shape[1],
           batch = i / t->shape[3] / t->shape[2] / t->shape[1];
    char last[32] = "";
    if (in->entry->rank == 4)
        snprintf(last, sizeof last, ", %zu", column);
    return log_error(lib, CLSPLAT_INVALID, "%s: tensor '%s' is %s at [%zu, %zu, %zu%s]; %s",
                     safetensors_path(in->file), in->entry->name, value, batch, head, row, last,
                     in->entry->rank == 4 ? "every number must be finite"
                                          : "it must be finite, or −inf for padding");
}

static clsplat_status check_numbers(clsplat *lib, const input *in, bool padding) {
    number_format f = formats[in->tensor.dtype];
    const size_t *shape = in->tensor.shape;
    for (size_t i = 0; i < shape[0] * shape[1] * shape[2] * shape[3]; ++i) {
        uint32_t bits = bits_at(&in->tensor, i);
        if ((bits & f.exponent) == f.exponent && !(padding && bits == f.minus_infinity))
            return refuse_number(lib, in, i, bits);
    }
    return CLSPLAT_OK;
}

clsplat_status input_read(clsplat *lib, input *in) {
    if (!in->entry)
        return CLSPLAT_OK;
    in->tensor.host = malloc(in->entry->bytes);
    if (!in->tensor.host)
        return log_error(lib, CLSPLAT_MEMORY,
                         "%s: tensor '%s' needs %" PRIu64 " bytes of memory, more than there is",
                         safetensors_path(in->file), in->entry->name, in->entry->bytes);
    return safetensors_read(lib, in->file, in->entry, in->tensor.host);
}

clsplat_status input_read_finite(clsplat *lib, input *in, bool padding) {
    clsplat_status status = CLSPLAT_OK;
    TRY(input_read(lib, in));
    if (in->entry)
        TRY(check_numbers(lib, in, padding));
fail:
    return status;
}

clsplat_status input_read_runs(clsplat *lib, input *in, const size_t run[2][2], bool padding) {
    clsplat_status status = CLSPLAT_OK;
    if (!in->entry)
        return CLSPLAT_OK;
    size_t *shape = in->tensor.shape, all = shape[INPUT_ROWS], heads = shape[0] * shape[1];
    size_t row = shape[INPUT_COLUMNS] * clsplat_dtype_size(in->tensor.dtype);
    memcpy(in->run, run, sizeof in->run);
    shape[INPUT_ROWS] = run[0][1] + run[1][1];
    char *to = in->tensor.host = malloc(heads * shape[INPUT_ROWS] * row + 1);
    if (!to)
        return log_error(lib, CLSPLAT_MEMORY, "%s: %zu rows of tensor '%s' are more than there is memory for",
                         safetensors_path(in->file), shape[INPUT_ROWS], in->entry->name);
    for (size_t i = 0; i < 2 * heads; ++i) {
        const size_t *r = run[i % 2];
        TRY(safetensors_read_part(lib, in->file, in->entry, (i / 2 * all + r[0]) * row, to, r[1] * row));
        to += r[1] * row;
    }
    TRY(check_numbers(lib, in, padding));
fail:
    return status;
}

void input_free(input *in) {
    free(in->tensor.host);
    in->tensor.host = NULL;
}
