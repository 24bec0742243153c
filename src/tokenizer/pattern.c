#include "tokenizer/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "base/utf8.h"

enum { PATTERN_LIMIT = 1 << 16 }; /* bytes */

struct pattern {
    pcre2_code *code;
    char *where;
};

/* Oniguruma's \s and \w, fit to stand in brackets. PCRE2's own differ by a few characters (U+180E is white
 * space to it, and marks are not letters). */
static const char *const white = "\\p{Z}\\x09-\\x0d\\x{85}", *const word = "\\p{L}\\p{M}\\p{Nd}\\p{Pc}";

/* One escape at `*at`, a backslash. Returns: NULL, or what this library does not know how to translate. */
static const char *add_escape(text *to, const char **at, bool in_class) {
    char letter = (*at)[1];
    const char *class = letter == 's' || letter == 'S' ? white : word;
    switch (letter) {
    case '\0':
        return "a backslash at its end";
    case 's':
    case 'w':
        text_add(to, in_class ? "%s" : "[%s]", class);
        break;
    case 'S':
    case 'W':
        if (in_class)
            return letter == 'S' ? "\\S in brackets" : "\\W in brackets";
        text_add(to, "[^%s]", class);
        break;
    case 'h':
    case 'H':
    case 'b':
    case 'B':
    case 'X':
    case 'O':
        return "\\h, \\H, \\b, \\B, \\X or \\O, which mean something else here";
    default:
        text_add_bytes(to, *at, 2);
        if (strchr("pPxou", letter) && (*at)[2] == '{') { /* \p{L}: the braces belong to it */
            size_t inner = strcspn(*at + 2, "}");
            inner += (*at)[2 + inner] == '}';
            text_add_bytes(to, *at + 2, inner);
            *at += inner;
        }
    }
    *at += 2;
    return NULL;
}

/* One character in brackets that is not an escape. */
static const char *add_in_class(text *to, const char **at) {
    if ((*at)[0] == '&' && (*at)[1] == '&')
        return "&& in brackets";
    if ((*at)[0] == '[' && (*at)[1] != ':')
        return "brackets in brackets";
    if ((*at)[0] == '[') { /* [:alpha:] */
        const char *end = strstr(*at, ":]");
        if (!end)
            return "[: without :]";
        text_add_bytes(to, *at, (size_t)(end + 2 - *at));
        *at = end + 2;
        return NULL;
    }
    text_add_bytes(to, (*at)++, 1);
    return NULL;
}

/* The pattern as PCRE2 reads it. Returns: NULL, or what it has that cannot be translated. */
static const char *translate(const char *source, text *to) {
    bool in_class = false;
    for (const char *at = source; *at;) {
        const char *refused = NULL;
        if (*at == '\\') {
            refused = add_escape(to, &at, in_class);
        } else if (in_class && *at != ']') {
            refused = add_in_class(to, &at);
        } else if (*at == '[') {
            size_t length = at[1] == '^' ? 2 : 1;
            length += at[length] == ']'; /* a letter there */
            text_add_bytes(to, at, length);
            at += length;
            in_class = true;
        } else if (*at == '}' && at[1] == '+') {
            refused = "}+, which is possessive here and is not there";
        } else if (strncmp(at, "(?m", 3) == 0 || strncmp(at, "(?x", 3) == 0) {
            refused = "the modifiers m or x";
        } else {
            in_class = in_class && *at != ']';
            text_add_bytes(to, at++, 1);
        }
        if (refused)
            return refused;
    }
    return NULL;
}

static clsplat_status compile(clsplat *lib, const char *where, const char *source, uint32_t options,
                              pattern *p) {
    clsplat_status status = CLSPLAT_OK;
    int code = 0;
    PCRE2_SIZE offset = 0;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its pattern", where);
    pcre2_set_max_pattern_length(context, PATTERN_LIMIT);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    p->code = pcre2_compile((PCRE2_SPTR)source, strlen(source), options, &code, &offset, context);
    pcre2_compile_context_free(context);
    if (!p->code) {
        char why[256] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        TRY(log_error(lib, CLSPLAT_UNSUPPORTED, "%s: the pattern %s cannot be read: %s at byte %zu", where,
                      text_show(source).bytes, why, offset));
    }
    pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); /* only faster; where there is none it is interpreted */
fail:
    return status;
}

clsplat_status pattern_compile(clsplat *lib, const char *where, const char *source, bool literal,
                               pattern **compiled) {
    clsplat_status status = CLSPLAT_OK;
    text translated = {0};
    pattern *p = calloc(1, sizeof *p);
    *compiled = NULL;
    if (p)
        p->where = text_copy(where);
    text_add(&translated, "%s", literal ? source : "");
    const char *refused = literal ? NULL : translate(source, &translated);
    if (refused)
        TRY(log_error(lib, CLSPLAT_UNSUPPORTED, "%s: the pattern %s has %s", where, text_show(source).bytes,
                      refused));
    if (!p || !p->where || !text_ok(&translated))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its pattern", where));
    TRY(compile(lib, where, translated.data,
                literal ? PCRE2_UTF | PCRE2_LITERAL
                        : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                p));
    *compiled = p;
    p = NULL;
fail:
    text_free(&translated);
    pattern_free(&p);
    return status;
}

void pattern_free(pattern **p) {
    if (!p || !*p)
        return;
    pcre2_code_free((*p)->code);
    free((*p)->where);
    free(*p);
    *p = NULL;
}

/* The next match from `from` on; with `empty`, only one that is not empty. PCRE2_ERROR_NOMATCH, or another of
 * its errors. */
static int find(const pattern *p, const char *words, size_t count, size_t from, pcre2_match_data *data) {
    int found = pcre2_match(p->code, (PCRE2_SPTR)words, count, from, PCRE2_NO_UTF_CHECK, data, NULL);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
        found = pcre2_match(p->code, (PCRE2_SPTR)words, count, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data,
                            NULL);
    return found;
}

static clsplat_status too_long(clsplat *lib, const pattern *p, int code) {
    char why[256] = "";
    pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
    return log_error(lib, CLSPLAT_UNSUPPORTED, "%s: the pattern fails on this text: %s", p->where, why);
}

clsplat_status pattern_walk(clsplat *lib, const pattern *p, const char *words, size_t count,
                            pattern_range *range, void *user) {
    clsplat_status status = CLSPLAT_OK;
    pcre2_match_data *data = pcre2_match_data_create_from_pattern(p->code, NULL);
    if (!data)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory to match its pattern", p->where);
    const PCRE2_SIZE *match = pcre2_get_ovector_pointer(data);
    size_t done = 0;
    bool any = false;
    for (size_t from = 0; from <= count;) {
        int found = find(p, words, count, from, data);
        if (found == PCRE2_ERROR_NOMATCH)
            break;
        if (found < 0)
            TRY(too_long(lib, p, found));
        size_t begin = match[0], end = match[1];
        if (begin < from || end < begin) /* \K, or a lookbehind that moves the beginning */
            TRY(log_error(lib, CLSPLAT_UNSUPPORTED, "%s: the pattern matches backwards", p->where));
        int32_t code;
        from = end > begin ? end : end < count ? end + utf8_next(words + end, count - end, &code) : count + 1;
        if (begin == end && any && begin == done) /* an empty match right behind another is none */
            continue;
        if (begin > done)
            TRY(range(user, done, begin, false));
        TRY(range(user, begin, end, true));
        done = end;
        any = true;
    }
    if (done < count)
        TRY(range(user, done, count, false));
fail:
    pcre2_match_data_free(data);
    return status;
}

/* The piece that may still grow, and where finished ones go. */
typedef struct cutter {
    const pattern_cut *cut;
    pattern_piece *piece;
    void *user;
    size_t begin, end;
    bool held, match; /* what is held is, or ends with, a match */
} cutter;

static clsplat_status let_go(cutter *c) {
    bool empty = !c->held || c->begin == c->end;
    c->held = false;
    return empty ? CLSPLAT_OK : c->piece(c->user, c->begin, c->end);
}

/* Whether the range joins what is held. */
static bool joins(const cutter *c, bool match) {
    switch (c->cut->behavior) {
    case PATTERN_MERGED_WITH_PREVIOUS:
        return match && !c->match;
    case PATTERN_MERGED_WITH_NEXT:
        return !match && c->match;
    case PATTERN_CONTIGUOUS:
        return match == c->match;
    case PATTERN_REMOVED:
    case PATTERN_ISOLATED:
        break;
    }
    return false;
}

static clsplat_status cut_range(void *user, size_t begin, size_t end, bool match) {
    clsplat_status status = CLSPLAT_OK;
    cutter *c = user;
    match = match != c->cut->invert;
    if (match && c->cut->behavior == PATTERN_REMOVED)
        return let_go(c);
    if (c->held && joins(c, match)) {
        c->end = end;
        c->match = match;
        return CLSPLAT_OK;
    }
    TRY(let_go(c));
    c->begin = begin;
    c->end = end;
    c->match = match;
    c->held = true;
fail:
    return status;
}

clsplat_status pattern_split(clsplat *lib, const pattern_cut *cut, const char *words, size_t count,
                             pattern_piece *piece, void *user) {
    clsplat_status status = CLSPLAT_OK;
    cutter c = {.cut = cut, .piece = piece, .user = user};
    TRY(pattern_walk(lib, cut->pattern, words, count, cut_range, &c));
    TRY(let_go(&c));
fail:
    return status;
}
