#include "model/head.h"

#include <string.h>

/* Files that keep a shared matrix twice repeat its bytes. */
static clsplat_status is_same(clsplat *lib, const model_folder *folder, const model_tensor *a,
                              const model_tensor *b, bool *same) {
    clsplat_status status = CLSPLAT_OK;
    const safetensors_entry *x = a->entry, *y = b->entry;
    const void *left = NULL, *right = NULL;
    *same = x == y;
    if (*same || x->bytes != y->bytes || x->rank != y->rank || strcmp(x->dtype, y->dtype) != 0 ||
        memcmp(x->shape, y->shape, sizeof x->shape) != 0)
        return CLSPLAT_OK;
    TRY(model_folder_map(lib, folder, a, &left));
    TRY(model_folder_map(lib, folder, b, &right));
    *same = memcmp(left, right, (size_t)x->bytes) == 0;
fail:
    return status;
}

clsplat_status model_head_tie(clsplat *lib, model_folder *folder, const char *embedding, const char *head,
                              bool *tied) {
    clsplat_status status = CLSPLAT_OK;
    bool same = true;
    model_tensor e = model_folder_find(folder, embedding), h = model_folder_find(folder, head);
    if (*tied && !e.entry && h.entry)
        TRY(model_folder_alias(lib, folder, embedding, head));
    if (!e.entry || !h.entry)
        return CLSPLAT_OK;
    if (*tied)
        TRY(is_same(lib, folder, &e, &h, &same));
    if (*tied && !same)
        log_warning(lib,
                    "%s: tensor '%s' differs from '%s', though config.json says tie_word_embeddings; it is "
                    "used, as in "
                    "transformers 5",
                    model_folder_path_of(folder, &h), head, embedding);
    *tied = *tied ? same : e.entry == h.entry;
fail:
    return status;
}
