#include "model/template.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"
#include "format/json.h"
#include "model/gguf_model.h"

enum { FILE_LIMIT = 64 << 20 };

/* One template, or a list of them by name. */
static const char *words_of(const json_t *found) {
    for (size_t i = 0; i < json_array_size(found); ++i) {
        const json_t *one = json_array_get(found, i);
        const char *name = json_string_value(json_object_get(one, "name"));
        if (name && strcmp(name, "default") == 0)
            return json_string_value(json_object_get(one, "template"));
    }
    return json_string_value(found);
}

clsplat_status model_template_of_folder(clsplat *lib, const char *folder, char **words) {
    clsplat_status status = CLSPLAT_OK;
    text path = {0}, config = {0};
    json_t *root = NULL;
    size_t bytes = 0;
    *words = NULL;
    text_add(&path, "%s/chat_template.jinja", folder);
    text_add(&config, "%s/tokenizer_config.json", folder);
    if (!text_ok(&path) || !text_ok(&config))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its path", folder));
    if (access(path.data, F_OK) == 0) {
        TRY(file_load(lib, path.data, FILE_LIMIT, words, &bytes));
    } else if (access(config.data, F_OK) == 0) {
        TRY(json_file(lib, config.data, FILE_LIMIT, &root));
        const char *found = words_of(json_object_get(root, "chat_template"));
        *words = found ? text_copy(found) : NULL;
    }
fail:
    json_decref(root);
    text_free(&path);
    text_free(&config);
    return status;
}

char *model_template_of_file(const gguf *file) {
    const gguf_value *found = gguf_find(file, "tokenizer.chat_template");
    gguf_words words;
    size_t at = 0;
    return found && !found->is_array && gguf_next(found, &at, &words) ? strndup(words.bytes, words.count)
                                                                      : NULL;
}

clsplat_status model_template(clsplat *lib, const char *path, char **words) {
    clsplat_status status = CLSPLAT_OK;
    gguf *file = NULL;
    *words = NULL;
    if (!gguf_is(path))
        return model_template_of_folder(lib, path, words);
    TRY(gguf_open(lib, path, &file));
    *words = model_template_of_file(file);
fail:
    gguf_close(&file);
    return status;
}
