/* What happens to a text on its way to byte-pair encoding, as the keys normalizer and pre_tokenizer of
 * tokenizer.json say: it is rewritten, then cut into words and rewritten further, step by step. */
#ifndef CLSPLAT_TOKENIZER_STEPS_H
#define CLSPLAT_TOKENIZER_STEPS_H

#include <stdbool.h>

#include "base/text.h"
#include "tokenizer/bert.h"
#include "tokenizer/charsmap.h"
#include "tokenizer/pattern.h"

enum { STEPS_LIMIT = 16 };

typedef enum step_kind {
    /* rewriting, of a normaliser */
    STEP_COMPOSE, /* a Unicode normal form */
    STEP_REPLACE, /* what a pattern matches becomes `words` */
    STEP_PREPEND, /* `words` before it, unless it is empty */
    STEP_BERT,    /* as `rules` say */
    STEP_MAP,     /* SentencePiece's table */
    STEP_NMT,     /* control characters go, odd spaces become plain ones */
    STEP_STRIP,   /* white space at the beginning, at the end, or both */
    /* cutting, of a pre-tokeniser */
    STEP_SPLIT, /* at the matches of a pattern */
    STEP_WORDS, /* at white space and punctuation */
    STEP_BYTES, /* every byte becomes a printable character: GPT-2's alphabet */
    STEP_SPACES /* every space becomes `words` */
} step_kind;

typedef enum step_prefix { PREFIX_NEVER, PREFIX_FIRST, PREFIX_ALWAYS } step_prefix;

typedef struct step {
    step_kind kind;
    pattern *pattern;
    pattern_behavior behavior;
    bool invert;
    char *words;
    bert_rules rules;
    charsmap *map;
    bool left, right; /* STRIP */
    int form;         /* COMPOSE: options of utf8proc */
    step_prefix
        prefix; /* SPACES: `words` before the text, or before every part of it, unless they are there */
} step;

typedef struct steps {
    step list[STEPS_LIMIT];
    size_t count;
} steps;

void steps_free(steps *s);

/* Rewrites UTF-8 text; `to` is empty before. Returns: MEMORY, UNSUPPORTED (see pattern_walk). */
clsplat_status steps_normalise(clsplat *lib, const steps *s, const char *words, size_t count, text *to);

typedef clsplat_status steps_word(void *user, const char *word, size_t count);
/* Hands every word of the text on, never empty; `first`: it is the beginning of the whole text. */
clsplat_status steps_cut(clsplat *lib, const steps *s, const char *words, size_t count, bool first,
                         steps_word *word, void *user);

/* GPT-2's alphabet: a byte as a character, and a character as a byte (−1: none). */
int32_t steps_letter_of(unsigned char byte);
int steps_byte_of(int32_t letter);

#endif
