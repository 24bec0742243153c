/* The tokeniser of a GGUF file as the tokenizer.json that it was made from. */
#ifndef CLSPLAT_TOKENIZER_GGUF_H
#define CLSPLAT_TOKENIZER_GGUF_H

#include <jansson.h>

#include "format/gguf.h"

/* What tokenizer.json would say; the caller releases *root, which is NULL if the file has no tokeniser.
 * Returns: FORMAT and UNSUPPORTED, naming file and key; MEMORY. */
clsplat_status gguf_tokenizer(clsplat *lib, const gguf *file, json_t **root);

/* What tokenizer.ggml.pre calls a tokenizer.json that cuts texts that way; NULL: it has no name. */
const char *gguf_pre_of(const json_t *root);

#endif
