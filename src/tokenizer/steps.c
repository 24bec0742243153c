#include "tokenizer/steps.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

void steps_free(steps *s) {
    for (size_t i = 0; i < s->count; ++i) {
        pattern_free(&s->list[i].pattern);
        free(s->list[i].words);
        charsmap_free(s->list[i].map);
    }
    *s = (steps){.count = 0};
}

static clsplat_status no_memory(clsplat *lib, size_t count) {
    return log_error(lib, CLSPLAT_MEMORY, "no memory to cut a text of %zu bytes into words", count);
}

/* Printable Latin-1 stands for itself, the rest for U+0100 and on. Source: GPT-2's encoder.py. */
static bool is_printable(int byte) {
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad && byte <= 0xff);
}

enum { FIRST_HIDDEN = 0x100, BEFORE_DELETE = 0x21, DELETE = 0x7f, LAST_CONTROL = 0xa0, SOFT_HYPHEN = 0xad };

int32_t steps_letter_of(unsigned char byte) {
    if (is_printable(byte))
        return byte;
    return FIRST_HIDDEN + (byte < BEFORE_DELETE   ? byte
                           : byte <= LAST_CONTROL ? byte - DELETE + BEFORE_DELETE
                                                  : LAST_CONTROL - DELETE + 1 + BEFORE_DELETE);
}

int steps_byte_of(int32_t letter) {
    if (letter < FIRST_HIDDEN)
        return letter >= 0 && is_printable(letter) ? letter : -1;
    int hidden = letter - FIRST_HIDDEN, controls = LAST_CONTROL - DELETE + 1;
    return hidden < BEFORE_DELETE               ? hidden
           : hidden < BEFORE_DELETE + controls  ? hidden - BEFORE_DELETE + DELETE
           : hidden == BEFORE_DELETE + controls ? SOFT_HYPHEN
                                                : -1;
}

/* Rewriting. */

typedef struct replacement {
    const char *from, *words;
    text *to;
} replacement;

static clsplat_status replace_range(void *user, size_t begin, size_t end, bool match) {
    replacement *r = user;
    if (match)
        text_add_bytes(r->to, r->words, strlen(r->words));
    else
        text_add_bytes(r->to, r->from + begin, end - begin);
    return CLSPLAT_OK;
}

static clsplat_status compose(clsplat *lib, int form, const char *words, size_t count, text *to) {
    utf8proc_uint8_t *made = NULL;
    utf8proc_ssize_t length = utf8proc_map((const utf8proc_uint8_t *)words, (utf8proc_ssize_t)count, &made,
                                           (utf8proc_option_t)form);
    if (length < 0)
        return log_error(lib, length == UTF8PROC_ERROR_NOMEM ? CLSPLAT_MEMORY : CLSPLAT_INVALID,
                         "a text of %zu bytes cannot be brought into a Unicode normal form: %s", count,
                         utf8proc_errmsg(length));
    text_add_bytes(to, made, (size_t)length);
    free(made);
    return CLSPLAT_OK;
}

/* Source: the rules nmt_nfkc of sentencepiece. */
static void nmt(const char *words, size_t count, text *to) {
    int32_t code;
    for (size_t at = 0, length; at < count; at += length) {
        length = utf8_next(words + at, count - at, &code);
        bool gone = (code >= 1 && code <= 8) || code == 0x0b || (code >= 0x0e && code <= 0x1f) ||
                    code == 0x7f || code == 0x8f || code == 0x9f;
        bool space = code == '\t' || code == '\n' || code == '\f' || code == '\r' || code == 0x1680 ||
                     (code >= 0x200b && code <= 0x200f) || code == 0x2028 || code == 0x2029 ||
                     code == 0x2581 || code == 0xfeff || code == 0xfffd;
        if (!gone)
            text_add_bytes(to, space ? " " : words + at, space ? 1 : length);
    }
}

static bool is_space(const char *words, size_t count, size_t *length) {
    int32_t code;
    *length = utf8_next(words, count, &code);
    const utf8proc_property_t *p = utf8proc_get_property(code);
    return (code >= '\t' && code <= '\r') || code == 0x85 || p->category == UTF8PROC_CATEGORY_ZS ||
           p->category == UTF8PROC_CATEGORY_ZL || p->category == UTF8PROC_CATEGORY_ZP;
}

static void strip(const step *s, const char *words, size_t count, text *to) {
    size_t begin = 0, end = 0, length;
    while (s->left && begin < count && is_space(words + begin, count - begin, &length))
        begin += length;
    for (size_t at = end = begin; at < count; at += length)
        if (!is_space(words + at, count - at, &length))
            end = at + length;
    text_add_bytes(to, words + begin, (s->right ? end : count) - begin);
}

static clsplat_status rewrite(clsplat *lib, const step *s, const char *words, size_t count, text *to) {
    replacement r = {words, s->words, to};
    if (s->kind == STEP_COMPOSE)
        return compose(lib, s->form, words, count, to);
    if (s->kind == STEP_BERT)
        return bert_normalise(lib, s->rules, words, count, to);
    if (s->kind == STEP_REPLACE)
        return pattern_walk(lib, s->pattern, words, count, replace_range, &r);
    if (s->kind == STEP_MAP) {
        charsmap_apply(s->map, words, count, to);
    } else if (s->kind == STEP_NMT) {
        nmt(words, count, to);
    } else if (s->kind == STEP_STRIP) {
        strip(s, words, count, to);
    } else {
        text_add(to, "%s", s->words);
        text_add_bytes(to, words, count);
    }
    return CLSPLAT_OK;
}

clsplat_status steps_normalise(clsplat *lib, const steps *s, const char *words, size_t count, text *to) {
    clsplat_status status = CLSPLAT_OK;
    text next = {0};
    text_add_bytes(to, words, count);
    for (size_t i = 0; i < s->count && text_ok(to) && to->length > 0; ++i) {
        TRY(rewrite(lib, &s->list[i], to->data, to->length, &next));
        text_free(to);
        *to = next;
        next = (text){0};
    }
    if (!text_ok(to))
        TRY(no_memory(lib, count));
fail:
    text_free(&next);
    return status;
}

/* Cutting: every step hands its pieces to the next, the last to the caller. */

typedef struct cutting {
    clsplat *lib;
    const steps *steps;
    size_t at; /* the step that is done */
    const char *words;
    bool first;
    steps_word *word;
    void *user;
} cutting;

static clsplat_status cut(const cutting *c, const char *words, size_t count, bool first);

/* A piece of what this step was given goes to the next one. */
static clsplat_status hand_on(void *user, size_t begin, size_t end) {
    cutting next = *(const cutting *)user;
    ++next.at;
    return cut(&next, next.words + begin, end - begin, next.first && begin == 0);
}

static void add_letters(text *to, const char *words, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        char letter[UTF8_LONGEST];
        text_add_bytes(to, letter, utf8_put(steps_letter_of((unsigned char)words[i]), letter));
    }
}

static void add_spaces(text *to, const step *s, const char *words, size_t count, bool first) {
    size_t mark = strlen(s->words);
    bool there = count > 0 && (words[0] == ' ' || (count >= mark && memcmp(words, s->words, mark) == 0));
    if (!there && (s->prefix == PREFIX_ALWAYS || (s->prefix == PREFIX_FIRST && first)))
        text_add_bytes(to, s->words, mark);
    for (size_t i = 0; i < count; ++i)
        if (words[i] == ' ')
            text_add_bytes(to, s->words, mark);
        else
            text_add_bytes(to, words + i, 1);
}

static clsplat_status cut(const cutting *c, const char *words, size_t count, bool first) {
    clsplat_status status = CLSPLAT_OK;
    if (c->at == c->steps->count)
        return c->word(c->user, words, count);
    const step *s = &c->steps->list[c->at];
    text changed = {0};
    cutting here = *c;
    here.words = words;
    here.first = first;
    if (s->kind == STEP_SPLIT) {
        pattern_cut how = {s->pattern, s->behavior, s->invert};
        return pattern_split(c->lib, &how, words, count, hand_on, &here);
    }
    if (s->kind == STEP_WORDS)
        return bert_cut(words, count, hand_on, &here);
    if (s->kind == STEP_BYTES)
        add_letters(&changed, words, count);
    else
        add_spaces(&changed, s, words, count, first);
    if (!text_ok(&changed))
        TRY(no_memory(c->lib, count));
    here.words = changed.data;
    TRY(hand_on(&here, 0, changed.length));
fail:
    text_free(&changed);
    return status;
}

clsplat_status steps_cut(clsplat *lib, const steps *s, const char *words, size_t count, bool first,
                         steps_word *word, void *user) {
    cutting c = {.lib = lib, .steps = s, .word = word, .user = user};
    return cut(&c, words, count, first);
}
