/* The tensors of a model's folder: model.safetensors, or the shards that model.safetensors.index.json names.
 */
#ifndef CLSPLAT_MODEL_FOLDER_H
#define CLSPLAT_MODEL_FOLDER_H

#include "format/safetensors.h"

typedef struct model_folder model_folder;

/* Returns: IO, FORMAT (naming the file, and the shard or tensor), MEMORY. */
clsplat_status model_folder_open(clsplat *lib, const char *path, model_folder **folder);
/* Accepts NULL and a NULL handle; sets *folder to NULL. */
void model_folder_close(model_folder **folder);

/* A tensor and the file it is in; both NULL if there is none of that name. Ownership: the folder's. */
typedef struct model_tensor {
    safetensors *file;
    const safetensors_entry *entry;
} model_tensor;
/* A name may also be one that the file's metadata give for another, as safetensors' save_model writes for
 * matrices that are shared. */
model_tensor model_folder_find(const model_folder *folder, const char *name);
/* From here on `name`, if there is none of that name, is found as `other`; there is one such name at most.
 * Returns: MEMORY. */
clsplat_status model_folder_alias(clsplat *lib, model_folder *folder, const char *name, const char *other);
/* What messages about a missing tensor name. */
const char *model_folder_path(const model_folder *folder);

/* Every tensor, shard by shard; `entry` is NULL behind the last. */
model_tensor model_folder_at(const model_folder *folder, size_t index);

#endif
