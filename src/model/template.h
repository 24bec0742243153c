/* The chat template that a model brings along. */
#ifndef CLSPLAT_MODEL_TEMPLATE_H
#define CLSPLAT_MODEL_TEMPLATE_H

#include "base/log.h"
#include "format/gguf.h"

/* Of a folder: chat_template.jinja, or what tokenizer_config.json has, of several the one named default.
 * *words is NULL if there is none. Ownership: free(). Returns: IO, FORMAT, MEMORY. */
clsplat_status model_template_of_folder(clsplat *lib, const char *folder, char **words);
/* Of an open GGUF file. */
char *model_template_of_file(const gguf *file);
/* Of a folder or a GGUF file. */
clsplat_status model_template(clsplat *lib, const char *path, char **words);

#endif
