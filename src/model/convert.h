/* Models from folders to GGUF files and back, in other types. */
#ifndef CLSPLAT_MODEL_CONVERT_H
#define CLSPLAT_MODEL_CONVERT_H

#include "format/blocks.h"
#include "model/folder.h"

typedef struct convert_request {
    const char *from, *to;  /* a folder or a GGUF file; OUT.gguf or OUT.safetensors */
    const block_type *type; /* of matrices; NULL: as they are, or what the format has instead */
    clsplat_progress *progress;
    void *progress_user;
} convert_request;

/* Writes the file in one step. Beside OUT.safetensors go config.json and, if the model has them,
 * tokenizer.json and chat_template.jinja, unless they are there. Matrices whose rows are no whole blocks of
 * the type become F16, vectors of a GGUF file F32, and of types below 8 bits the embedding and the head Q8_0,
 * as is the custom there. Returns: IO, FORMAT, UNSUPPORTED, INVALID, MEMORY, CANCELLED. */
clsplat_status model_convert(clsplat *lib, const convert_request *request);

#endif
