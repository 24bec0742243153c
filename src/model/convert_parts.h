/* A conversion in the making: tensors (convert.c) and what stands beside them (convert_folder.c,
 * convert_values.c). */
#ifndef CLSPLAT_MODEL_CONVERT_PARTS_H
#define CLSPLAT_MODEL_CONVERT_PARTS_H

#include "format/gguf_save.h"
#include "model/config.h"
#include "model/convert.h"
#include "model/gguf_model.h"
#include "tokenizer/gguf.h"

typedef struct convert_tensor {
    model_tensor source;
    const block_type *from, *to;
    size_t rows, columns;
    size_t heads;     /* of rows whose order changes; 0: it stays */
    bool to_pairs;    /* from halves; else the other way round */
    const float *own; /* instead of a source: a vector of so many columns */
} convert_tensor;

typedef struct conversion {
    clsplat *lib;
    const convert_request *request;
    model_folder *folder;
    bool from_packed, packed; /* GGUF on this side */
    model_config config;
    json_t *about,
        *tokenizer; /* config.json and tokenizer.json, or what would be in them; tokenizer may be NULL */
    char *template; /* of chats; may be NULL */
    bool pairs;     /* as gguf_family */
    size_t heads, kv_heads;
    float *divisors; /* [head_dim / 2] of the plain frequencies, where the kind of positions is told by them;
                        or NULL */
    convert_tensor *tensors;
    size_t count;
} conversion;

/* Reads what stands beside the tensors. */
clsplat_status convert_read(conversion *c);
void convert_free(conversion *c);

/* Writes what stands beside OUT.safetensors. */
clsplat_status convert_save_folder(const conversion *c);
/* Whether the kind of positions is told by divisors of frequencies, and those. Returns: MEMORY. */
clsplat_status convert_divisors(conversion *c);

/* What stands before the tensors of OUT.gguf. */
clsplat_status convert_values(const conversion *c, gguf_values *values);

#endif
