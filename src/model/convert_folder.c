/* What stands beside the tensors of a model: read from a folder or a GGUF file, written into a folder. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"
#include "format/json.h"
#include "model/convert_parts.h"
#include "model/template.h"

enum { FILE_LIMIT = 64 << 20 };

static clsplat_status no_memory(const conversion *c) {
    return log_error(c->lib, CLSPLAT_MEMORY, "%s: no memory to convert it", c->request->from);
}

/* The file's path in the model's folder, if it is there. */
static bool beside(const conversion *c, const char *name, text *path) {
    text_add(path, "%s/%s", c->request->from, name);
    return text_ok(path) && access(path->data, F_OK) == 0;
}

static clsplat_status read_folder(conversion *c) {
    clsplat_status status = CLSPLAT_OK;
    text path = {0}, words = {0};
    beside(c, "config.json", &path);
    if (!text_ok(&path))
        TRY(no_memory(c));
    TRY(json_file(c->lib, path.data, FILE_LIMIT, &c->about));
    if (beside(c, "tokenizer.json", &words))
        TRY(json_file(c->lib, words.data, FILE_LIMIT, &c->tokenizer));
    TRY(model_template_of_folder(c->lib, c->request->from, &c->template));
fail:
    text_free(&path);
    text_free(&words);
    return status;
}

static clsplat_status read_packed(conversion *c) {
    clsplat_status status = CLSPLAT_OK;
    const gguf *file = model_folder_packed(c->folder);
    TRY(gguf_config(c->lib, file, &c->about));
    TRY(gguf_tokenizer(c->lib, file, &c->tokenizer));
    c->template = model_template_of_file(file);
fail:
    return status;
}

clsplat_status convert_read(conversion *c) {
    clsplat_status status = CLSPLAT_OK;
    c->from_packed = model_folder_packed(c->folder) != NULL;
    TRY(model_config_load(c->lib, c->request->from, &c->config));
    TRY(c->from_packed ? read_packed(c) : read_folder(c));
    const gguf_family *family = gguf_family_for(c->config.family);
    if (c->packed && !family)
        return log_error(c->lib, CLSPLAT_UNSUPPORTED, "%s: models of type %s cannot be written as GGUF files",
                         c->request->from, c->config.family);
    c->pairs = family && family->pairs;
    c->heads = c->config.heads;
    c->kv_heads = c->config.kv_heads;
    TRY(convert_divisors(c));
fail:
    return status;
}

void convert_free(conversion *c) {
    json_decref(c->about);
    json_decref(c->tokenizer);
    free(c->template);
    free(c->divisors);
    model_config_free(&c->config);
}

/* A file beside OUT, unless there is one. */
static clsplat_status save_beside(const conversion *c, const char *name, const char *words) {
    clsplat_status status = CLSPLAT_OK;
    file_writer file = {.descriptor = -1};
    text path = {0};
    const char *slash = strrchr(c->request->to, '/');
    text_add(&path, "%.*s%s", slash ? (int)(slash + 1 - c->request->to) : 0, c->request->to, name);
    if (!text_ok(&path) || !words)
        TRY(no_memory(c));
    if (access(path.data, F_OK) == 0) {
        log_info(c->lib, "%s is there already, and stays", path.data);
    } else {
        TRY(file_create(c->lib, path.data, &file));
        TRY(file_write(c->lib, &file, words, strlen(words)));
        TRY(file_commit(c->lib, &file));
    }
fail:
    file_discard(&file);
    text_free(&path);
    return status;
}

static clsplat_status save_json(const conversion *c, const char *name, const json_t *root, size_t flags) {
    char *words = json_write(root, flags);
    clsplat_status status = save_beside(c, name, words);
    free(words);
    return status;
}

/* What transformers wants to know besides. */
static clsplat_status name_architecture(const conversion *c) {
    static const char *const names[][2] = {{"llama", "LlamaForCausalLM"},
                                           {"mistral", "MistralForCausalLM"},
                                           {"qwen2", "Qwen2ForCausalLM"},
                                           {"qwen3", "Qwen3ForCausalLM"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
        if (strcmp(names[i][0], c->config.family) == 0 && !json_object_get(c->about, "architectures"))
            return json_object_set_new(c->about, "architectures", json_pack("[s]", names[i][1])) == 0
                       ? CLSPLAT_OK
                       : no_memory(c);
    return CLSPLAT_OK;
}

clsplat_status convert_save_folder(const conversion *c) {
    clsplat_status status = CLSPLAT_OK;
    TRY(name_architecture(c));
    TRY(save_json(c, "config.json", c->about, JSON_INDENT(2)));
    if (c->tokenizer)
        TRY(save_json(c, "tokenizer.json", c->tokenizer, JSON_COMPACT));
    if (c->template)
        TRY(save_beside(c, "chat_template.jinja", c->template));
fail:
    return status;
}
