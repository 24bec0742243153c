/* The patterns of tokenizer.json: regular expressions as Oniguruma reads them, which Hugging Face's
 * tokenizers use, run by PCRE2. */
#ifndef CLSPLAT_TOKENIZER_PATTERN_H
#define CLSPLAT_TOKENIZER_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/log.h"

typedef struct pattern pattern;

/* `where` is the file and key, for messages; a literal pattern is found as it is. What the two engines read
 * differently is rewritten, or refused by name. Returns: UNSUPPORTED, FORMAT, MEMORY. */
clsplat_status pattern_compile(clsplat *lib, const char *where, const char *source, bool literal,
                               pattern **p);
/* Accepts NULL and a NULL handle; sets *p to NULL. */
void pattern_free(pattern **p);

/* A range of a text: one match, or what lies between two. Returning a status other than OK ends the walk. */
typedef clsplat_status pattern_range(void *user, size_t begin, size_t end, bool match);

/* Calls `range` for every match in UTF-8 text and for what lies between, in order; ranges may be empty where
 * the pattern is. Returns: UNSUPPORTED if the pattern takes too long on this text. */
clsplat_status pattern_walk(clsplat *lib, const pattern *p, const char *words, size_t count,
                            pattern_range *range, void *user);

/* What becomes of matches; the names of tokenizer.json. */
typedef enum pattern_behavior {
    PATTERN_REMOVED,
    PATTERN_ISOLATED,
    PATTERN_MERGED_WITH_PREVIOUS,
    PATTERN_MERGED_WITH_NEXT,
    PATTERN_CONTIGUOUS
} pattern_behavior;

/* Receives the pieces that a text is cut into, none of them empty. */
typedef clsplat_status pattern_piece(void *user, size_t begin, size_t end);

/* Cuts the text at the matches; `invert` takes what lies between matches for the matches. */
typedef struct pattern_cut {
    const pattern *pattern;
    pattern_behavior behavior;
    bool invert;
} pattern_cut;
clsplat_status pattern_split(clsplat *lib, const pattern_cut *cut, const char *words, size_t count,
                             pattern_piece *piece, void *user);

#endif
