/* The parts of tokenizer.json, each read by a function of its own. What a part asks for that this library
 * does not do is refused by name. */
#ifndef CLSPLAT_TOKENIZER_JSON_H
#define CLSPLAT_TOKENIZER_JSON_H

#include <jansson.h>

#include "tokenizer/bert.h"
#include "tokenizer/bpe.h"
#include "tokenizer/steps.h"
#include "tokenizer/unigram.h"

/* "FILE: KEY: …", as log_error. */
clsplat_status hf_refuse(const tokenizer *t, clsplat_status status, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* A part's type; "" for null or absent. Returns: FORMAT for whatever else is no object with a type. */
clsplat_status hf_type(const tokenizer *t, const char *key, const json_t *part, const char **type);
/* The string under `name` of a part. Returns: FORMAT if there is none. */
clsplat_status hf_words(const tokenizer *t, const char *key, const json_t *part, const char *name,
                        const char **words);
/* Whether a part says true; `absent` if it says nothing. */
bool hf_flag(const json_t *part, const char *name, bool absent);

/* The pattern under the key pattern, {"Regex": …} or {"String": …}. */
clsplat_status hf_pattern(const tokenizer *t, const char *key, const json_t *part, pattern **p);
/* Room for one more step. Returns: UNSUPPORTED if there are too many. */
clsplat_status hf_step(const tokenizer *t, const char *key, steps *s, step **added);

clsplat_status hf_read_normaliser(const tokenizer *t, const json_t *part, steps *s);
clsplat_status hf_read_pre_tokeniser(const tokenizer *t, const json_t *part, steps *s);
/* What cuts words, under the key model; the caller's to free. */
typedef struct hf_model {
    bpe *b;           /* vocabulary and merges, or the vocabulary alone */
    wordpiece pieces; /* with a prefix if that is the kind */
    unigram *scored;  /* NULL: it is another kind */
} hf_model;
clsplat_status hf_read_model(const tokenizer *t, const json_t *root, hf_model *model);
/* What stands around a whole text: t->begin and t->end. */
clsplat_status hf_read_post_processor(tokenizer *t, const json_t *part);

/* How a token's name becomes bytes; names are the file's. */
typedef struct hf_decoder {
    bool bytes;    /* GPT-2's alphabet */
    bool fallback; /* <0x00> to <0xFF> are bytes */
    bool fused;
    const char
        *pieces; /* words begin with a space, what has this prefix belongs to the one before; NULL: no */
    const char *from[STEPS_LIMIT], *to[STEPS_LIMIT]; /* replaced in every token */
    size_t replacements;
} hf_decoder;
clsplat_status hf_read_decoder(tokenizer *t, const json_t *part, hf_decoder *d);
/* The bytes of a token of that name; `to` is empty before. */
void hf_decode_name(const hf_decoder *d, const char *name, text *to);

/* Fills in a tokenizer from the root of such a file. */
clsplat_status tokenizer_read_json(tokenizer *t, const json_t *root);

#endif
