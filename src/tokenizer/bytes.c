/* A vocabulary of the 256 bytes: every byte is its own token, and any text can be expressed. */
#include "tokenizer/kind.h"

enum { BYTES = 256 };

static clsplat_status encode(const tokenizer *t, const char *words, size_t count, bool special,
                             token_list *to) {
    (void)t;
    (void)special;
    for (size_t i = 0; i < count; ++i)
        token_list_add(to, (unsigned char)words[i]);
    return CLSPLAT_OK;
}

static void close_nothing(void *state) {
    (void)state;
}

static const tokenizer_kind bytes_kind = {encode, close_nothing, .raw = true};

static const tokenizer_kind mute_kind = {NULL, close_nothing, .mute = true};

clsplat_status tokenizer_refuse(const tokenizer *t) {
    return log_error(
        t->lib, CLSPLAT_IO,
        "%s: has neither tokenizer.json nor tokenizer.model, which only a vocabulary of the %d "
        "bytes can do without; the model's has %zu tokens: copy the file from where the model is "
        "from, or give tokens instead of text",
        t->path, BYTES, t->vocabulary);
}

clsplat_status tokenizer_open_bytes(tokenizer *t) {
    clsplat_status status = CLSPLAT_OK;
    if (t->vocabulary != BYTES) {
        t->kind = &mute_kind;
        return CLSPLAT_OK;
    }
    t->kind = &bytes_kind;
    for (int byte = 0; byte < BYTES; ++byte)
        TRY(tokenizer_set_piece(t, byte, "", (char[]){(char)byte}, 1));
fail:
    return status;
}
