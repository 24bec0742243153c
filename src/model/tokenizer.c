#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

enum { BYTES = 256 };

struct tokenizer {
    clsplat *lib;
};

clsplat_status tokenizer_open(clsplat *lib, const char *folder, size_t vocabulary, tokenizer **t) {
    *t = NULL;
    if (vocabulary != BYTES)
        return log_error(lib, CLSPLAT_UNSUPPORTED, "%s: only vocabularies of the 256 bytes can be read",
                         folder);
    *t = malloc(sizeof **t);
    if (!*t)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its tokeniser", folder);
    (*t)->lib = lib;
    return CLSPLAT_OK;
}

void tokenizer_close(tokenizer **t) {
    if (!t)
        return;
    free(*t);
    *t = NULL;
}

clsplat_status tokenizer_encode(const tokenizer *t, const char *text, size_t bytes, bool special,
                                int32_t **tokens, size_t *count) {
    (void)special;
    *count = bytes;
    *tokens = malloc((bytes + 1) * sizeof **tokens);
    if (!*tokens)
        return log_error(t->lib, CLSPLAT_MEMORY, "no memory for %zu tokens", bytes);
    for (size_t i = 0; i < bytes; ++i)
        (*tokens)[i] = (unsigned char)text[i];
    return CLSPLAT_OK;
}

clsplat_status tokenizer_decode(const tokenizer *t, const int32_t *tokens, size_t count, char **text,
                                size_t *bytes) {
    *bytes = count;
    *text = malloc(count + 1);
    if (!*text)
        return log_error(t->lib, CLSPLAT_MEMORY, "no memory for a text of %zu bytes", count);
    for (size_t i = 0; i < count; ++i) {
        if (tokens[i] < 0 || tokens[i] >= BYTES) {
            free(*text);
            *text = NULL;
            return log_error(t->lib, CLSPLAT_INVALID, "token %d is not one of the %d bytes", (int)tokens[i],
                             BYTES);
        }
        (*text)[i] = (char)tokens[i];
    }
    (*text)[count] = '\0';
    return CLSPLAT_OK;
}
