#include "cli/eval_tokens.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static clsplat_status find(clsplat *lib, const safetensors *file, const char *name,
                           const safetensors_entry **entry) {
    const safetensors_entry *e = safetensors_find(file, name);
    const char *path = safetensors_path(file);
    *entry = e;
    if (!e)
        return log_error(lib, CLSPLAT_FORMAT, "%s: has no tensor '%s'", path, name);
    if (strcmp(e->dtype, "I32") != 0 && strcmp(e->dtype, "U8") != 0)
        return log_error(lib, CLSPLAT_FORMAT, "%s: tensor '%s' is %s; it must be I32 or U8", path, name,
                         e->dtype);
    if (e->rank != 2 || e->shape[0] == 0 || e->shape[1] == 0)
        return log_error(lib, CLSPLAT_SHAPE, "%s: tensor '%s' must have 2 dimensions, neither of them 0",
                         path, name);
    return CLSPLAT_OK;
}

clsplat_status int_tensor_read(clsplat *lib, const safetensors *file, const char *name, size_t limit,
                               int_tensor *t) {
    clsplat_status status = CLSPLAT_OK;
    const safetensors_entry *e;
    *t = (int_tensor){0};
    TRY(find(lib, file, name, &e));
    t->rows = e->shape[0];
    t->columns = e->shape[1];
    t->numbers = malloc(e->count * sizeof *t->numbers);
    if (!t->numbers)
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: there is no memory for tensor '%s'", safetensors_path(file),
                      name));
    TRY(safetensors_read(lib, file, e, t->numbers));
    if (strcmp(e->dtype, "U8") == 0) /* wider from the end, so that nothing is overwritten */
        for (size_t i = e->count; i-- > 0;)
            t->numbers[i] = ((const unsigned char *)t->numbers)[i];
    for (size_t i = 0; i < e->count; ++i)
        if (t->numbers[i] < 0 || (size_t)t->numbers[i] >= limit)
            TRY(log_error(
                lib, CLSPLAT_INVALID, "%s: tensor '%s' has %" PRId32 " at [%zu, %zu]; below %zu is possible",
                safetensors_path(file), name, t->numbers[i], i / t->columns, i % t->columns, limit));
fail:
    if (status != CLSPLAT_OK)
        int_tensor_free(t);
    return status;
}

void int_tensor_free(int_tensor *t) {
    free(t->numbers);
    *t = (int_tensor){0};
}

clsplat_status token_tensor_read(const language *l, const safetensors *file, const char *name,
                                 int_tensor *t) {
    clsplat_status status = CLSPLAT_OK;
    TRY(int_tensor_read(l->c->lib, file, name, l->info->vocabulary, t));
    if (t->columns > l->context) {
        status = log_error(
            l->c->lib, CLSPLAT_INVALID,
            "%s: tensor '%s' has rows of %zu tokens, and the context is %zu: ask for a longer --context",
            safetensors_path(file), name, t->columns, l->context);
        int_tensor_free(t);
    }
fail:
    return status;
}
