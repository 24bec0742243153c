/* What is looked at in a SentencePiece model before its library reads it, and what the library does not tell.
 */
#ifndef CLSPLAT_TOKENIZER_PROTO_H
#define CLSPLAT_TOKENIZER_PROTO_H

#include <stdbool.h>
#include <stddef.h>

typedef struct proto_normaliser {
    bool prefix;       /* a space is put before a text */
    bool extra_spaces; /* several spaces become one */
} proto_normaliser;

/* Reads the model's outer structure. Returns: NULL, or what is wrong. The tables of its normalisers are
 * walked through, since the library follows them without looking where they lead. Source:
 * sentencepiece_model.proto; the layout of Darts-clone's arrays. */
const char *proto_check(const char *bytes, size_t count, proto_normaliser *normaliser);

#endif
