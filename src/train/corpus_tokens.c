/* A text as the tokens of a model. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "model/model.h"
#include "train/corpus.h"

enum { BYTES = 256 };

size_t corpus_length(const corpus *c) {
    return c->tokens ? c->length : c->count;
}

int32_t corpus_token(const corpus *c, size_t at) {
    return c->tokens ? c->tokens[at] : c->bytes[at];
}

/* Adds tokens, and one behind them if it is none of −1. */
static clsplat_status add(clsplat *lib, corpus *c, size_t *room, const int32_t *tokens, size_t count,
                          int32_t end) {
    size_t wanted = c->length + count + 1;
    if (wanted > *room) {
        size_t larger = 2 * *room > wanted ? 2 * *room : wanted;
        int32_t *grown = realloc(c->tokens, larger * sizeof *grown);
        if (!grown)
            return log_error(lib, CLSPLAT_MEMORY, "no memory for the tokens of %zu bytes of text", c->count);
        c->tokens = grown;
        *room = larger;
    }
    if (count > 0)
        memcpy(c->tokens + c->length, tokens, count * sizeof *tokens);
    c->length += count;
    if (end >= 0)
        c->tokens[c->length++] = end;
    return CLSPLAT_OK;
}

clsplat_status corpus_encode(corpus *c, clsplat_model *model) {
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = model->device->lib;
    int32_t end = model->info.end_count > 0 ? model->info.ends[0] : -1;
    size_t room = 0;
    if (model->config.vocabulary == BYTES || c->tokens)
        return CLSPLAT_OK;
    for (size_t at = 0, bytes; at < c->count; at += bytes + 1) {
        const uint8_t *from = c->bytes + at, *zero = memchr(from, 0, c->count - at);
        int32_t *tokens = NULL;
        size_t count = 0;
        bytes = zero ? (size_t)(zero - from) : c->count - at;
        TRY(clsplat_model_encode(model, (const char *)from, bytes, false, &tokens, &count));
        status = add(lib, c, &room, tokens, count, zero ? end : -1);
        free(tokens);
        if (status != CLSPLAT_OK)
            goto fail;
    }
fail:
    return status;
}

static clsplat_status copy(clsplat *lib, const char *from, const char *to, const char *name, bool *there) {
    clsplat_status status = CLSPLAT_OK;
    static const size_t limit = (size_t)1 << 30;
    text source = {0}, target = {0};
    file_writer file = {0};
    char *bytes = NULL;
    size_t count = 0;
    text_add(&source, "%s/%s", from, name);
    text_add(&target, "%s/%s", to, name);
    if (!text_ok(&source) || !text_ok(&target))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its path", from));
    *there = file_is_there(source.data);
    if (!*there)
        goto fail;
    TRY(file_load(lib, source.data, limit, &bytes, &count));
    TRY(file_create(lib, target.data, &file));
    TRY(file_write(lib, &file, bytes, count));
    TRY(file_commit(lib, &file));
fail:
    file_discard(&file);
    free(bytes);
    text_free(&source);
    text_free(&target);
    return status;
}

/* The first of them are tokenisers, the others say something beside. */
static const char *const files[] = {"tokenizer.json", "tokenizer.model", "vocab.txt", "tokenizer_config.json",
                                    "special_tokens_map.json"};
enum { TOKENISERS = 3, FILES = sizeof files / sizeof *files };

clsplat_status corpus_check_tokenizer(clsplat *lib, const char *folder, size_t vocabulary) {
    tokenizer *opened = NULL;
    bool any = false;
    for (size_t i = 0; i < TOKENISERS; ++i) {
        text path = {0};
        text_add(&path, "%s/%s", folder, files[i]);
        any = any || (text_ok(&path) && file_is_there(path.data));
        text_free(&path);
    }
    if (!any)
        return log_error(lib, CLSPLAT_IO, "%s: has no tokenizer.json, tokenizer.model or vocab.txt", folder);
    clsplat_status status = tokenizer_open(lib, folder, vocabulary, &opened);
    tokenizer_close(&opened);
    return status;
}

clsplat_status corpus_take_tokenizer(clsplat *lib, const char *from, const char *to) {
    clsplat_status status = CLSPLAT_OK;
    bool there;
    for (size_t i = 0; i < FILES; ++i)
        TRY(copy(lib, from, to, files[i], &there));
fail:
    return status;
}
