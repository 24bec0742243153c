/* The few calls of libsentencepiece that this library makes, for C: its own interface is C++. Nothing is
 * thrown. */
#ifndef CLSPLAT_TOKENIZER_SP_H
#define CLSPLAT_TOKENIZER_SP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sp_model sp_model;

/* What went wrong, in words. */
typedef struct sp_why {
    char words[256];
} sp_why;

/* The model in a file's bytes; NULL if they are none. Ownership: to be given to sp_close. */
sp_model *sp_open(const char *bytes, size_t count, sp_why *why);
/* Accepts NULL. */
void sp_close(sp_model *s);

typedef struct sp_piece {
    const char *name; /* the model's */
    bool control, unknown;
    int byte; /* that it stands for; −1: none */
} sp_piece;

int32_t sp_size(const sp_model *s);
sp_piece sp_at(const sp_model *s, int32_t token);
/* The tokens that begin and end a text; −1: none. */
int32_t sp_begin(const sp_model *s);
int32_t sp_end(const sp_model *s);

typedef void sp_take(void *user, int32_t token);
/* False if it cannot be done. */
bool sp_encode(const sp_model *s, const char *text, size_t count, sp_take *take, void *user, sp_why *why);

#ifdef __cplusplus
}
#endif
#endif
