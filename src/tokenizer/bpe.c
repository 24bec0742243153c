#include "tokenizer/bpe.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/utf8.h"
#include "format/json_text.h"

enum { BYTES = 256 };
static const int32_t none = -1;

/* Both tables are open: an entry lies at its hash or behind it, at least half of the places are empty. */
typedef struct name_entry {
    size_t begin, bytes; /* of the name, in `names` */
    int32_t token;       /* none: the place is empty */
} name_entry;

typedef struct merge_entry {
    int32_t left, right, token; /* left none: the place is empty */
    uint32_t rank;
} merge_entry;

struct bpe {
    clsplat *lib;
    const char *where;
    bpe_rules rules;
    text names;
    name_entry *tokens;
    merge_entry *merges;
    size_t token_mask, merge_mask;
    uint32_t ranks; /* merges so far */
    int32_t unknown, fallback[BYTES];
};

static size_t places_for(size_t count) {
    size_t places = 16;
    while (places < 2 * count)
        places *= 2;
    return places;
}

clsplat_status bpe_create(clsplat *lib, const char *where, bpe_rules rules, bpe **created) {
    bpe *b = calloc(1, sizeof *b);
    *created = b;
    if (!b)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its vocabulary", where);
    *b = (bpe){.lib = lib, .where = where, .rules = rules, .unknown = none};
    size_t tokens = places_for(rules.tokens), merges = places_for(rules.merges);
    b->token_mask = tokens - 1;
    b->merge_mask = merges - 1;
    b->tokens = malloc(tokens * sizeof *b->tokens);
    b->merges = malloc(merges * sizeof *b->merges);
    if (!b->tokens || !b->merges)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for %zu tokens and %zu merges", where,
                         rules.tokens, rules.merges);
    for (size_t i = 0; i < tokens; ++i)
        b->tokens[i].token = none;
    for (size_t i = 0; i < merges; ++i)
        b->merges[i].left = none;
    return CLSPLAT_OK;
}

void bpe_destroy(bpe *b) {
    if (!b)
        return;
    text_free(&b->names);
    free(b->tokens);
    free(b->merges);
    free(b);
}

/* Where the name is, or would be. */
static name_entry *place_of_name(const bpe *b, const char *name, size_t bytes) {
    size_t i = XXH3_64bits(name, bytes) & b->token_mask;
    for (;; i = (i + 1) & b->token_mask) {
        name_entry *e = &b->tokens[i];
        if (e->token == none || (e->bytes == bytes && memcmp(b->names.data + e->begin, name, bytes) == 0))
            return e;
    }
}

static merge_entry *place_of_merge(const bpe *b, int32_t left, int32_t right) {
    const int32_t pair[] = {left, right};
    size_t i = XXH3_64bits(pair, sizeof pair) & b->merge_mask;
    for (;; i = (i + 1) & b->merge_mask) {
        merge_entry *e = &b->merges[i];
        if (e->left == none || (e->left == left && e->right == right))
            return e;
    }
}

int32_t bpe_find(const bpe *b, const char *name, size_t bytes) {
    return place_of_name(b, name, bytes)->token;
}

clsplat_status bpe_add_token(bpe *b, const char *name, int32_t token) {
    size_t begin = b->names.length;
    text_add(&b->names, "%s", name);
    if (!text_ok(&b->names))
        return log_error(b->lib, CLSPLAT_MEMORY, "%s: no memory for its vocabulary", b->where);
    size_t bytes = json_text_restore(b->names.data + begin, b->names.length - begin);
    b->names.length = begin + bytes;
    name_entry *e = place_of_name(b, b->names.data + begin, bytes);
    if (e->token != none)
        return log_error(b->lib, CLSPLAT_FORMAT, "%s: token '%s' is there twice", b->where,
                         text_show(name).bytes);
    *e = (name_entry){begin, bytes, token};
    return CLSPLAT_OK;
}

clsplat_status bpe_add_merge(bpe *b, const char *left, size_t left_bytes, const char *right) {
    text both = {0};
    text_add_bytes(&both, left, left_bytes);
    if (text_ok(&both))
        left_bytes = both.length = json_text_restore(both.data, both.length);
    text_add(&both, "%s", right);
    if (!text_ok(&both)) {
        text_free(&both);
        return log_error(b->lib, CLSPLAT_MEMORY, "%s: no memory for its merges", b->where);
    }
    both.length = left_bytes + json_text_restore(both.data + left_bytes, both.length - left_bytes);
    int32_t l = bpe_find(b, both.data, left_bytes);
    int32_t r = bpe_find(b, both.data + left_bytes, both.length - left_bytes);
    int32_t token = bpe_find(b, both.data, both.length);
    text_shown shown = text_show(both.data);
    text_free(&both);
    if (l == none || r == none || token == none)
        return log_error(b->lib, CLSPLAT_FORMAT,
                         "%s: model.merges[%u] makes '%s' of two parts, but not all three are in model.vocab",
                         b->where, b->ranks, shown.bytes);
    *place_of_merge(b, l, r) = (merge_entry){l, r, token, b->ranks++};
    return CLSPLAT_OK;
}

void bpe_set_unknown(bpe *b, int32_t token) {
    b->unknown = token;
}

clsplat_status bpe_finish(bpe *b) {
    for (int byte = 0; byte < BYTES; ++byte) {
        char name[8];
        int length = snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        b->fallback[byte] = b->rules.byte_fallback ? bpe_find(b, name, (size_t)length) : none;
    }
    if (!b->rules.unknown)
        return CLSPLAT_OK;
    int32_t known = bpe_find(b, b->rules.unknown, strlen(b->rules.unknown));
    b->unknown = known != none ? known : b->unknown;
    if (b->unknown != none)
        return CLSPLAT_OK;
    return log_error(b->lib, CLSPLAT_FORMAT,
                     "%s: model.unk_token '%s' is neither in model.vocab nor among added_tokens", b->where,
                     text_show(b->rules.unknown).bytes);
}

/* A word in the making: its symbols as a chain, and the merges that could be made, the next one first. */
typedef struct symbol {
    int32_t token;          /* none: it went into the one before */
    uint32_t before, after; /* symbols; `nobody` at the ends */
} symbol;

typedef struct candidate {
    uint32_t rank, at; /* of equal ranks the one further left comes first */
    int32_t token;
} candidate;

typedef struct word {
    const bpe *b;
    symbol *symbols;
    candidate *heap; /* every symbol is in it at most twice at a time: 3 × symbols have room */
    size_t count, waiting;
} word;
static const uint32_t nobody = UINT32_MAX;

static bool comes_first(candidate a, candidate b) {
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void push(word *w, candidate c) {
    size_t i = w->waiting++;
    for (; i > 0 && comes_first(c, w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
}

static candidate pop(word *w) {
    candidate top = w->heap[0], last = w->heap[--w->waiting];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->waiting; i = child) {
        if (child + 1 < w->waiting && comes_first(w->heap[child + 1], w->heap[child]))
            ++child;
        if (!comes_first(w->heap[child], last))
            break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

/* The merge of a symbol with the one after it; NULL if there is none. */
static const merge_entry *merge_at(const word *w, uint32_t at) {
    uint32_t after = w->symbols[at].after;
    if (w->symbols[at].token == none || after == nobody)
        return NULL;
    const merge_entry *e = place_of_merge(w->b, w->symbols[at].token, w->symbols[after].token);
    return e->left == none ? NULL : e;
}

static void propose(word *w, uint32_t at) {
    const merge_entry *e = at == nobody ? NULL : merge_at(w, at);
    if (e)
        push(w, (candidate){e->rank, at, e->token});
}

static void merge_all(word *w) {
    for (uint32_t i = 0; i + 1 < w->count; ++i)
        propose(w, i);
    while (w->waiting > 0) {
        candidate c = pop(w);
        const merge_entry *e = merge_at(w, c.at);
        if (!e || e->token != c.token) /* its symbols have changed since */
            continue;
        symbol *left = &w->symbols[c.at], *right = &w->symbols[left->after];
        left->token = c.token;
        left->after = right->after;
        right->token = none;
        if (left->after != nobody)
            w->symbols[left->after].before = c.at;
        propose(w, left->before);
        propose(w, c.at);
    }
}

static void add_symbol(word *w, int32_t token) {
    uint32_t at = (uint32_t)w->count++;
    w->symbols[at] = (symbol){token, at == 0 ? nobody : at - 1, nobody};
    if (at > 0)
        w->symbols[at - 1].after = at;
}

/* The bytes of a character that is in no token, if every one has a token. */
static bool add_fallback(word *w, const char *character, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i)
        if (w->b->fallback[(unsigned char)character[i]] == none)
            return false;
    for (size_t i = 0; i < bytes; ++i)
        add_symbol(w, w->b->fallback[(unsigned char)character[i]]);
    return true;
}

/* One symbol for each character. An unknown one waits for its neighbour, with which it may be fused; with
 * bytes that fall back in between, this is the order in which Hugging Face's tokenizers add them. */
static void add_characters(word *w, const char *letters, size_t bytes) {
    const bpe *b = w->b;
    bool unknown = false;
    for (size_t i = 0, length; i < bytes; i += length) {
        int32_t code;
        length = utf8_next(letters + i, bytes - i, &code);
        int32_t token = bpe_find(b, letters + i, length);
        if (token == none && add_fallback(w, letters + i, length))
            continue;
        if (token == none && b->unknown == none)
            continue;
        if (unknown && (token != none || !b->rules.fuse_unknown))
            add_symbol(w, b->unknown);
        unknown = token == none;
        if (token != none)
            add_symbol(w, token);
    }
    if (unknown)
        add_symbol(w, b->unknown);
}

clsplat_status bpe_encode(const bpe *b, const char *letters, size_t bytes, token_list *to) {
    int32_t whole = b->rules.whole_words ? bpe_find(b, letters, bytes) : none;
    if (whole != none) {
        token_list_add(to, whole);
        return CLSPLAT_OK;
    }
    if (bytes > INT32_MAX / 4)
        return log_error(b->lib, CLSPLAT_INVALID,
                         "%s: a word of %zu bytes is too long for it; read the text in parts", b->where,
                         bytes);
    word w = {.b = b,
              .symbols = malloc((bytes + 1) * sizeof *w.symbols),
              .heap = malloc(3 * (bytes + 1) * sizeof *w.heap)};
    bool enough = w.symbols && w.heap;
    if (enough) {
        add_characters(&w, letters, bytes);
        merge_all(&w);
        for (size_t i = 0; i < w.count; ++i)
            if (w.symbols[i].token != none)
                token_list_add(to, w.symbols[i].token);
    }
    free(w.symbols);
    free(w.heap);
    return enough
               ? CLSPLAT_OK
               : log_error(b->lib, CLSPLAT_MEMORY, "%s: no memory for a word of %zu bytes", b->where, bytes);
}
