/* UTF-8 as it comes: whole, cut, or damaged. */
#ifndef CLSPLAT_BASE_UTF8_H
#define CLSPLAT_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/text.h"

enum { UTF8_LONGEST = 4, UTF8_REPLACEMENT = 0xfffd };

/* Bytes of the character that begins the text (count ≥ 1). If there is none, *code is −1 and the result is
 * what one replacement character stands for: the longest beginning of a character, or one byte. Source: The
 * Unicode Standard, section 3.9, table 3-7 and "substitution of maximal subparts". */
size_t utf8_next(const char *bytes, size_t count, int32_t *code);

/* Writes the character at `bytes` and returns how many they are. */
size_t utf8_put(int32_t code, char bytes[UTF8_LONGEST]);

/* The text with U+FFFD where it is not UTF-8, as Python's errors="replace" reads it. Returns: how many those
 * are. */
size_t utf8_add_mended(text *to, const char *bytes, size_t count);

/* How much of the text can be shown already: all but the beginning of a character at its end. */
size_t utf8_complete(const char *bytes, size_t count);

#endif
