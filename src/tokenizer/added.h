/* Added tokens: found in a text by their names before anything else happens to it. */
#ifndef CLSPLAT_TOKENIZER_ADDED_H
#define CLSPLAT_TOKENIZER_ADDED_H

#include <stdbool.h>
#include <stdint.h>

#include "tokenizer/kind.h"

typedef struct added_token {
    char *name;
    size_t bytes;
    int32_t token;
    bool special;     /* only found where special tokens are wanted */
    bool single_word; /* only where no letter is on either side */
    bool left, right; /* takes the white space on that side with it */
} added_token;

/* All zero: none. */
typedef struct added_list {
    added_token *tokens; /* by first byte, longer names first, once added_sort was called */
    size_t count, capacity;
    size_t first[257]; /* tokens that begin with byte b are [first[b], first[b + 1]) */
} added_list;

/* Copies the name, which is not empty. False without memory. */
bool added_add(added_list *list, const char *name, size_t bytes, added_token token);
/* The one of that name, by looking at all; NULL if there is none. Ownership: the list's. */
added_token *added_has(const added_list *list, const char *name);
void added_sort(added_list *list);
void added_free(added_list *list);

/* What lies between added tokens; `begin` and `end` are bytes of the text. */
typedef clsplat_status added_between(void *user, size_t begin, size_t end);

/* Walks through the text: tokens go to `to`, and what lies between to `between`, never empty. */
clsplat_status added_walk(const added_list *list, const char *words, size_t count, bool special,
                          token_list *to, added_between *between, void *user);

#endif
