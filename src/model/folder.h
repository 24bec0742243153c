/* The tensors of a model's folder: model.safetensors, or the shards that model.safetensors.index.json names;
 * or those of a GGUF file, by the names that they have in folders. */
#ifndef CLSPLAT_MODEL_FOLDER_H
#define CLSPLAT_MODEL_FOLDER_H

#include "format/gguf.h"
#include "format/safetensors.h"

typedef struct model_folder model_folder;

/* Returns: IO, FORMAT (naming the file, and the shard or tensor), MEMORY. */
clsplat_status model_folder_open(clsplat *lib, const char *path, model_folder **folder);
/* Accepts NULL and a NULL handle; sets *folder to NULL. */
void model_folder_close(model_folder **folder);

/* A tensor and the file it is in (NULL for a GGUF file); both NULL if there is none of that name. Ownership:
 * the folder's. */
typedef struct model_tensor {
    safetensors *file;
    const safetensors_entry *entry;
    size_t heads; /* of a GGUF file: rows of so many heads are in the order of pairs; 0: as in folders */
} model_tensor;
/* A name may also be one that the file's metadata give for another, as safetensors' save_model writes for
 * matrices that are shared. */
model_tensor model_folder_find(const model_folder *folder, const char *name);
/* From here on `name`, if there is none of that name, is found as `other`; there is one such name at most.
 * Returns: MEMORY. */
clsplat_status model_folder_alias(clsplat *lib, model_folder *folder, const char *name, const char *other);
/* The file it is in, and its bytes there: in memory, read as they are looked at. */
const char *model_folder_path_of(const model_folder *folder, const model_tensor *tensor);
clsplat_status model_folder_map(clsplat *lib, const model_folder *folder, const model_tensor *tensor,
                                const void **bytes);
/* NULL: it is no GGUF file. */
const gguf *model_folder_packed(const model_folder *folder);
/* What messages about a missing tensor name. */
const char *model_folder_path(const model_folder *folder);

/* Every tensor, shard by shard; `entry` is NULL behind the last. */
model_tensor model_folder_at(const model_folder *folder, size_t index);

#endif
