/* A GGUF file as the folder that it was made from: config.json and tensors by their names
 * there, so that what reads folders reads these files, too, and one becomes the other. */
#ifndef CLSPLAT_MODEL_GGUF_MODEL_H
#define CLSPLAT_MODEL_GGUF_MODEL_H

#include <jansson.h>

#include "format/gguf.h"

/* A family that GGUF files name in general.architecture. */
typedef struct gguf_family {
    const char *architecture, *model_type;
    bool pairs; /* rows of queries and keys are in the order of pairs that rotary positions turn */
} gguf_family;
/* Returns: FORMAT, UNSUPPORTED. */
clsplat_status gguf_family_of(clsplat *lib, const gguf *file, const gguf_family **family);
/* NULL: none is made from that model_type. */
const gguf_family *gguf_family_for(const char *model_type);

/* What config.json would say; the caller releases *root. Returns: FORMAT and UNSUPPORTED, naming file and
 * key; MEMORY. */
clsplat_status gguf_config(clsplat *lib, const gguf *file, json_t **root);
clsplat_status gguf_config_of(clsplat *lib, const char *path, json_t **root);
/* The key ARCHITECTURE.name as a number; needed keys that are missing, or no number, are refused. */
clsplat_status gguf_size(clsplat *lib, const gguf *file, const char *name, bool needed, uint64_t *value);

/* A tensor's name in a folder and in a GGUF file, one from the other, with room for 255 bytes; of a name that
 * no rule knows: the same. */
typedef struct gguf_name {
    char bytes[256];
} gguf_name;
gguf_name gguf_name_in_folder(const char *name);
gguf_name gguf_name_in_file(const char *name);

#endif
