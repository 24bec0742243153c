/* What a folder says of its tokeniser beside the tokeniser's own file: tokenizer_config.json, or, where that
 * lists no added tokens, added_tokens.json and special_tokens_map.json. Source:
 * PreTrainedTokenizerBase._from_pretrained in Hugging Face transformers 5. */
#ifndef CLSPLAT_TOKENIZER_BESIDE_H
#define CLSPLAT_TOKENIZER_BESIDE_H

#include <jansson.h>

#include "tokenizer/added.h"

typedef struct tokenizer_beside {
    json_t *config;  /* of tokenizer_config.json; NULL: there is none */
    json_t *added;   /* of added_tokens.json */
    json_t *special; /* of special_tokens_map.json */
} tokenizer_beside;

/* Reads what is there in the folder of t->path. Returns: IO, FORMAT, MEMORY; then tokenizer_beside_free, too.
 */
clsplat_status tokenizer_beside_read(const tokenizer *t, tokenizer_beside *b);
void tokenizer_beside_free(tokenizer_beside *b);

/* An added token; `normalised`: it is found behind the normaliser. Its number is −1 if it is only named, as
 * "eos_token" or the like: then it is special, and new only if there is none of that name. `name` is json's.
 */
typedef clsplat_status tokenizer_beside_take(void *user, const char *name, added_token token,
                                             bool normalised);
/* Every added token, names that are empty left out, and behind them those that are only named. Returns:
 * FORMAT, and what `take` does. */
clsplat_status tokenizer_beside_walk(const tokenizer *t, const tokenizer_beside *b,
                                     tokenizer_beside_take *take, void *user);

#endif
