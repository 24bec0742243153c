#include "tokenizer/bert.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

static bool is_white(int32_t code) {
    utf8proc_category_t c = utf8proc_category(code);
    return code == ' ' || (code >= '\t' && code <= '\r') || code == 0x85 || c == UTF8PROC_CATEGORY_ZS ||
           c == UTF8PROC_CATEGORY_ZL || c == UTF8PROC_CATEGORY_ZP;
}

static bool is_control(int32_t code) {
    utf8proc_category_t c = utf8proc_category(code);
    return code == UTF8_REPLACEMENT || c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF ||
           c == UTF8PROC_CATEGORY_CO;
}

static bool is_punctuation(int32_t code) {
    utf8proc_category_t c = utf8proc_category(code);
    bool ascii = (code >= '!' && code <= '/') || (code >= ':' && code <= '@') ||
                 (code >= '[' && code <= '`') || (code >= '{' && code <= '~');
    return ascii || (c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO);
}

static bool is_ideograph(int32_t code) {
    static const int32_t ranges[][2] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df},
                                        {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf},
                                        {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; ++i)
        if (code >= ranges[i][0] && code <= ranges[i][1])
            return true;
    return false;
}

static void add_code(text *to, int32_t code) {
    char bytes[UTF8_LONGEST];
    text_add_bytes(to, bytes, utf8_put(code, bytes));
}

static void clean(const bert_rules *rules, const char *words, size_t count, text *to) {
    for (size_t i = 0, length; i < count; i += length) {
        int32_t code;
        length = utf8_next(words + i, count - i, &code);
        bool line = code == '\t' || code == '\n' || code == '\r';
        if (rules->clean && !line && (code <= 0 || is_control(code)))
            continue;
        if (rules->clean && is_white(code))
            text_add(to, " ");
        else if (rules->chinese && is_ideograph(code))
            text_add(to, " %.*s ", (int)length, words + i);
        else
            text_add_bytes(to, words + i, length);
    }
}

static clsplat_status strip_accents(clsplat *lib, text *in) {
    utf8proc_uint8_t *made = NULL;
    text out = {0};
    utf8proc_ssize_t count = utf8proc_map((const utf8proc_uint8_t *)in->data, (utf8proc_ssize_t)in->length,
                                          &made, (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE));
    if (count < 0)
        return log_error(lib, count == UTF8PROC_ERROR_NOMEM ? CLSPLAT_MEMORY : CLSPLAT_INVALID,
                         "the accents of a text of %zu bytes cannot be told from its letters: %s", in->length,
                         utf8proc_errmsg(count));
    text_add(&out, "%s", "");
    for (size_t i = 0, length; i < (size_t)count; i += length) {
        int32_t code;
        length = utf8_next((const char *)made + i, (size_t)count - i, &code);
        if (utf8proc_category(code) != UTF8PROC_CATEGORY_MN)
            text_add_bytes(&out, made + i, length);
    }
    free(made);
    out.failed = out.failed || in->failed;
    text_free(in);
    *in = out;
    return CLSPLAT_OK;
}

/* One letter becomes two in lower case: I with a dot above. */
static void lower(text *in) {
    enum { DOTTED_I = 0x130, DOT_ABOVE = 0x307 };
    text out = {0};
    text_add(&out, "%s", "");
    for (size_t i = 0, length; i < in->length; i += length) {
        int32_t code;
        length = utf8_next(in->data + i, in->length - i, &code);
        add_code(&out, code == DOTTED_I ? 'i' : utf8proc_tolower(code));
        if (code == DOTTED_I)
            add_code(&out, DOT_ABOVE);
    }
    out.failed = out.failed || in->failed;
    text_free(in);
    *in = out;
}

clsplat_status bert_normalise(clsplat *lib, bert_rules rules, const char *words, size_t count, text *to) {
    clsplat_status status = CLSPLAT_OK;
    clean(&rules, words, count, to);
    if (rules.accents && text_ok(to) && to->length > 0)
        TRY(strip_accents(lib, to));
    if (rules.lower_case && text_ok(to) && to->length > 0)
        lower(to);
fail:
    return status;
}

clsplat_status bert_cut(const char *words, size_t count, pattern_piece *piece, void *user) {
    clsplat_status status = CLSPLAT_OK;
    size_t begin = 0;
    for (size_t i = 0, length; i < count; i += length) {
        int32_t code;
        length = utf8_next(words + i, count - i, &code);
        bool white = is_white(code), mark = is_punctuation(code);
        if (!white && !mark)
            continue;
        if (i > begin)
            TRY(piece(user, begin, i));
        if (mark)
            TRY(piece(user, i, i + length));
        begin = i + length;
    }
    if (count > begin)
        TRY(piece(user, begin, count));
fail:
    return status;
}

static size_t characters(const char *word, size_t bytes) {
    size_t count = 0;
    for (size_t i = 0; i < bytes; ++i)
        count += ((unsigned char)word[i] & 0xc0) != 0x80;
    return count;
}

/* The longest piece that begins at `from`; its length goes to *length. `name` has the prefix in front of room
 * for it. */
static int32_t longest_piece(const bpe *vocabulary, const char *word, size_t bytes, size_t from, text *name,
                             size_t prefix, size_t *length) {
    size_t skip = from == 0 ? prefix : 0;
    name->length = prefix;
    text_add_bytes(name, word + from, bytes - from);
    if (!text_ok(name))
        return -1;
    for (*length = bytes - from; *length > 0; --*length) {
        bool whole = from + *length == bytes || ((unsigned char)word[from + *length] & 0xc0) != 0x80;
        int32_t token = whole ? bpe_find(vocabulary, name->data + skip, prefix - skip + *length) : -1;
        if (token >= 0)
            return token;
    }
    return -1;
}

clsplat_status wordpiece_encode(clsplat *lib, const wordpiece *w, const bpe *vocabulary, const char *word,
                                size_t bytes, token_list *to) {
    text name = {0};
    size_t prefix = strlen(w->prefix), before = to->count;
    bool whole = characters(word, bytes) <= w->longest;
    text_add(&name, "%s", w->prefix);
    for (size_t at = 0, length; whole && at < bytes; at += length) {
        int32_t token = longest_piece(vocabulary, word, bytes, at, &name, prefix, &length);
        whole = token >= 0;
        if (whole)
            token_list_add(to, token);
    }
    if (!whole) {
        to->count = before;
        token_list_add(to, w->unknown);
    }
    bool enough = text_ok(&name);
    text_free(&name);
    return enough ? CLSPLAT_OK : log_error(lib, CLSPLAT_MEMORY, "no memory for a word of %zu bytes", bytes);
}
