/* JSON as Python's writers make it. They write what the grammar does not have (NaN, Infinity) and what
 * Jansson does not take: whole numbers beyond 64 bits, real ones beyond double, a NUL in a string or a key,
 * half a surrogate pair, a key twice. None of it is damage, and it mostly stands under keys that nobody
 * reads. */
#ifndef CLSPLAT_FORMAT_JSON_TEXT_H
#define CLSPLAT_FORMAT_JSON_TEXT_H

#include <jansson.h>

#include "base/log.h"
#include "base/text.h"

/* Stands for NUL in what Jansson read: U+10FFFF, which no text has. */
#define JSON_NUL "\xf4\x8f\xbf\xbf"

typedef enum json_numbers { JSON_NUMBERS_STRICT, JSON_NUMBERS_PYTHON } json_numbers;

/* The text in a form that Jansson takes, as far as it is JSON at all: NaN, Infinity and what is too large for
 * double become strings of those names, so that a key which needs a number refuses them; larger whole numbers
 * than 64 bits hold become real ones; NUL becomes JSON_NUL, half a surrogate pair U+FFFD. A byte-order mark
 * goes. With STRICT, numbers stay as they are. Running out of memory: text_ok. */
void json_text_mend(const char *bytes, size_t count, json_numbers numbers, text *to);

/* Mends and reads. Of a key that is there twice the last value counts, as in Python, with a warning. `path`
 * is for messages. Ownership: *root is the caller's. Returns: FORMAT with line and column, MEMORY. */
clsplat_status json_text_read(clsplat *lib, const char *path, const char *bytes, size_t count, json_t **root);

/* NULs in the place of JSON_NUL; behind the words is a NUL as ever. Returns: the new length. */
size_t json_text_restore(char *words, size_t length);

#endif
