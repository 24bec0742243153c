#include "tokenizer/unigram.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "format/json_text.h"

enum { BYTES = 256 };
static const int32_t none = -1;
/* How much less than the worst piece an unknown character is worth. */
static const double UNKNOWN_PENALTY = 10;

typedef struct piece {
    size_t begin, bytes; /* of its name, in `names` */
    double score;
    int32_t token;
} piece;

struct unigram {
    clsplat *lib;
    const char *where;
    text names;
    piece *pieces; /* once finished sorted by name, byte by byte */
    size_t count, room;
    double unknown_score;
    int32_t unknown, fallback[BYTES];
};

static clsplat_status no_memory(const unigram *u) {
    return log_error(u->lib, CLSPLAT_MEMORY, "%s: no memory for its vocabulary", u->where);
}

clsplat_status unigram_create(clsplat *lib, const char *where, size_t pieces, unigram **created) {
    unigram *u = calloc(1, sizeof *u);
    *created = u;
    if (!u)
        return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its vocabulary", where);
    *u = (unigram){.lib = lib, .where = where, .room = pieces, .unknown = none};
    u->pieces = malloc((pieces ? pieces : 1) * sizeof *u->pieces);
    return u->pieces ? CLSPLAT_OK : no_memory(u);
}

void unigram_destroy(unigram *u) {
    if (!u)
        return;
    text_free(&u->names);
    free(u->pieces);
    free(u);
}

clsplat_status unigram_add(unigram *u, const char *name, int32_t token, double score) {
    size_t begin = u->names.length;
    text_add(&u->names, "%s", name);
    if (!text_ok(&u->names) || u->count == u->room)
        return no_memory(u);
    size_t bytes = json_text_restore(u->names.data + begin, u->names.length - begin);
    u->names.length = begin + bytes;
    u->pieces[u->count++] = (piece){begin, bytes, score, token};
    return CLSPLAT_OK;
}

/* By name, of which none is there twice; a name comes before those that it begins. */
static int compare(const char *names, const piece *a, const piece *b) {
    size_t least = a->bytes < b->bytes ? a->bytes : b->bytes;
    int order = memcmp(names + a->begin, names + b->begin, least);
    return order ? order : (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

/* Sorts pieces [0, count) by merging; `spare` has as much room. */
static void sort(const char *names, piece *pieces, piece *spare, size_t count) {
    size_t half = count / 2, a = 0, b = half;
    if (count < 2)
        return;
    sort(names, pieces, spare, half);
    sort(names, pieces + half, spare, count - half);
    memcpy(spare, pieces, count * sizeof *pieces);
    for (size_t i = 0; i < count; ++i)
        pieces[i] =
            b == count || (a < half && compare(names, &spare[a], &spare[b]) <= 0) ? spare[a++] : spare[b++];
}

/* Those of the pieces [*first, *last) whose byte number `at` is `byte`. They share the bytes before it. */
static void narrow(const unigram *u, size_t at, unsigned char byte, size_t *first, size_t *last) {
    for (int side = 0; side < 2; ++side) {
        size_t low = *first, high = *last;
        while (low < high) {
            size_t middle = low + (high - low) / 2;
            const piece *p = &u->pieces[middle];
            int found = p->bytes > at ? (unsigned char)u->names.data[p->begin + at] : none;
            if (found < byte + side)
                low = middle + 1;
            else
                high = middle;
        }
        *(side == 0 ? first : last) = low;
    }
}

static int32_t find(const unigram *u, const char *name, size_t bytes) {
    size_t first = 0, last = u->count;
    for (size_t i = 0; i < bytes && first < last; ++i)
        narrow(u, i, (unsigned char)name[i], &first, &last);
    return first < last && u->pieces[first].bytes == bytes ? u->pieces[first].token : none;
}

static void find_fallback(unigram *u) {
    bool whole = true;
    for (int byte = 0; byte < BYTES; ++byte) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        u->fallback[byte] = find(u, name, strlen(name));
        whole = whole && u->fallback[byte] != none;
    }
    if (!whole)
        u->fallback[0] = none;
}

clsplat_status unigram_finish(unigram *u, int32_t unknown, bool fallback) {
    double least = 0;
    bool is_piece = unknown == none;
    piece *spare = malloc((u->count ? u->count : 1) * sizeof *spare);
    if (!spare)
        return no_memory(u);
    for (size_t i = 0; i < u->count; ++i) {
        least = i == 0 || u->pieces[i].score < least ? u->pieces[i].score : least;
        is_piece = is_piece || u->pieces[i].token == unknown;
    }
    u->unknown_score = least - UNKNOWN_PENALTY;
    u->unknown = unknown;
    if (u->count > 0)
        sort(u->names.data, u->pieces, spare, u->count);
    free(spare);
    u->fallback[0] = none;
    if (fallback)
        find_fallback(u);
    return is_piece ? CLSPLAT_OK
                    : log_error(u->lib, CLSPLAT_FORMAT, "%s: model: unk_id %d is no token of vocab", u->where,
                                (int)unknown);
}

/* The best way to an end within the word: what its last piece is, and where that begins. */
typedef struct way {
    double score;
    size_t begin;
    int32_t token; /* none: an unknown character */
    bool reached;
} way;

static void offer(way *w, double score, size_t begin, int32_t token) {
    if (!w->reached || score > w->score)
        *w = (way){score, begin, token, true};
}

/* Offers every piece that begins at `begin`, and the character there as an unknown one if it is none. */
static void offer_from(const unigram *u, const char *word, size_t bytes, size_t begin, size_t character,
                       way *ways) {
    size_t first = 0, last = u->count;
    double before = ways[begin].score;
    bool whole = false;
    for (size_t end = begin + 1; end <= bytes; ++end) {
        narrow(u, end - 1 - begin, (unsigned char)word[end - 1], &first, &last);
        if (first == last)
            break;
        const piece *p = &u->pieces[first];
        if (p->bytes != end - begin)
            continue;
        offer(&ways[end], before + p->score, begin, p->token == u->unknown ? none : p->token);
        whole = whole || p->bytes == character;
    }
    if (!whole)
        offer(&ways[begin + character], before + u->unknown_score, begin, none);
}

/* A run of unknown characters. */
static clsplat_status add_unknown(const unigram *u, const char *run, size_t bytes, token_list *to) {
    int32_t token = find(u, run, bytes);
    if (token == none && u->fallback[0] != none) {
        for (size_t i = 0; i < bytes; ++i)
            token_list_add(to, u->fallback[(unsigned char)run[i]]);
        return CLSPLAT_OK;
    }
    token = token == none ? u->unknown : token;
    if (token == none)
        return log_error(u->lib, CLSPLAT_INVALID,
                         "%s: the text has a character that is in no token, and there is no unk_id",
                         u->where);
    token_list_add(to, token);
    return CLSPLAT_OK;
}

/* Backwards from the end: next[begin] becomes where the piece that begins there ends. */
static void turn_round(way *ways, size_t bytes, size_t *next) {
    for (size_t end = bytes; end > 0; end = ways[end].begin)
        next[ways[end].begin] = end;
}

clsplat_status unigram_encode(const unigram *u, const char *word, size_t bytes, token_list *to) {
    clsplat_status status = CLSPLAT_OK;
    way *ways = calloc(bytes + 1, sizeof *ways);
    size_t *next = malloc((bytes + 1) * sizeof *next);
    int32_t code;
    if (!ways || !next)
        TRY(log_error(u->lib, CLSPLAT_MEMORY, "no memory for the tokens of a word of %zu bytes", bytes));
    for (size_t at = 0, character; at < bytes; at += character) {
        character = utf8_next(word + at, bytes - at, &code);
        offer_from(u, word, bytes, at, character, ways);
    }
    turn_round(ways, bytes, next);
    for (size_t at = 0, end; at < bytes; at = end) {
        end = next[at];
        if (ways[end].token != none) {
            token_list_add(to, ways[end].token);
            continue;
        }
        while (end < bytes && ways[next[end]].token == none)
            end = next[end];
        TRY(add_unknown(u, word + at, end - at, to));
    }
fail:
    free(ways);
    free(next);
    return status;
}
