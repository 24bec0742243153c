/* What `clsplat generate`, `chat` and `eval` share: a language model on a device, text in and text out. */
#ifndef CLSPLAT_CLI_LANGUAGE_H
#define CLSPLAT_CLI_LANGUAGE_H

#include <clsplat/clsplat.h>

#include "base/text.h"
#include "cli/cli.h"

/* Tokens between two looks at the keyboard. */
enum { LANGUAGE_PIECE = 512 };

/* Options as given; NULL: not given. */
typedef struct language_request {
    char *attention, *window, *tolerance, *sparse_topk, *chunk, *dtype, *context;
    char *memory; /* generate and chat */
} language_request;

/* Rows of a table of options. */
#define LANGUAGE_OPTIONS(r)                                                                                   \
    {"attention",                                                                                             \
     0,                                                                                                       \
     POPT_ARG_STRING,                                                                                         \
     &(r).attention,                                                                                          \
     0,                                                                                                       \
     "softmax over all keys if it is not given",                                                              \
     "softmax|window|near-far|topk|blocks"},                                                                  \
        {"window", 0, POPT_ARG_STRING, &(r).window, 0, "keys for --attention window; 512 if it is not given", \
         "N"},                                                                                                \
        {"tolerance",                                                                                         \
         0,                                                                                                   \
         POPT_ARG_STRING,                                                                                     \
         &(r).tolerance,                                                                                      \
         0,                                                                                                   \
         "relative error for --attention near-far; 0.02 if it is not given",                                  \
         "X"},                                                                                                \
        {"sparse-topk",                                                                                       \
         0,                                                                                                   \
         POPT_ARG_STRING,                                                                                     \
         &(r).sparse_topk,                                                                                    \
         0,                                                                                                   \
         "keys that a query sees exactly at most, for --attention near-far, topk and blocks; no limit if "    \
         "it is not "                                                                                         \
         "given",                                                                                             \
         "N"},                                                                                                \
        {"chunk",    0, POPT_ARG_STRING,                                                                      \
         &(r).chunk, 0, "keys of a tree, for --attention near-far; the library's choice if it is not given",  \
         "N"},                                                                                                \
        {"dtype",                                                                                             \
         0,                                                                                                   \
         POPT_ARG_STRING,                                                                                     \
         &(r).dtype,                                                                                          \
         0,                                                                                                   \
         "how what passes between layers, keys and values are stored; f32 if it is not given",                \
         "f32|f16|bf16"},                                                                                     \
    {                                                                                                         \
        "context", 0, POPT_ARG_STRING, &(r).context, 0,                                                       \
            "tokens; what the model was made for if it is not given", "N"                                     \
    }

#define LANGUAGE_MEMORY_OPTION(r)                                                                            \
    {                                                                                                        \
        "memory", 0, POPT_ARG_STRING, &(r).memory, 0,                                                        \
            "device memory for keys and values at most, as 512M or 1.5G", "SIZE"                             \
    }

typedef struct language {
    cli *c;
    clsplat_device *device;
    clsplat_model *model;
    const clsplat_model_info *info;
    clsplat_model_attention attention;
    size_t context;  /* the longest text in tokens */
    uint64_t memory; /* bytes that a session may take; 0: what there is */
} language;

/* Reads the options, and opens the device and the model; c->progress runs from here on. */
clsplat_status language_open(cli *c, const language_request *r, const char *folder, language *l);
void language_close(language *l);

/* A session of `wanted` tokens, or of as many as --memory holds. Writes: bytes, what it takes on the device.
 * Returns: INVALID, saying what is needed, if these are fewer than `least`. */
clsplat_status language_session(const language *l, size_t wanted, size_t least, clsplat_session **session,
                                uint64_t *bytes);

typedef struct language_tokens {
    int32_t *list;
    size_t count;
} language_tokens;

/* A text's tokens, with those that begin a text and without those that end one. `special`: see
 * clsplat_model_encode. Ownership: language_free. */
clsplat_status language_encode(const language *l, const char *words, size_t bytes, bool special,
                               language_tokens *tokens);
void language_free(language_tokens *tokens);

/* Reads tokens piece by piece, so that Ctrl-C is heard and the bar moves from `begin` to `end`. Writes:
 * logits [count, vocabulary] unless NULL. Returns: CANCELLED. */
typedef struct language_span {
    double begin, end; /* of the bar */
} language_span;
clsplat_status language_feed(const language *l, clsplat_session *session, language_tokens tokens,
                             float *logits, language_span bar);

/* Text out of single tokens: what is only half a character is held back. */
typedef struct language_stream {
    text held;        /* not shown yet */
    int32_t previous; /* the token before; −1: none */
} language_stream;

/* Adds the token's text to what is held. */
clsplat_status language_stream_add(const language *l, language_stream *s, int32_t token);
/* How much of it can be shown. */
size_t language_stream_ready(const language_stream *s);
/* Drops the first bytes. */
void language_stream_drop(language_stream *s, size_t bytes);

/* How the next token is chosen: options as given, NULL if not. */
typedef struct language_choice {
    char *temperature, *top_k, *top_p, *seed, *tokens;
} language_choice;

#define LANGUAGE_CHOICE_OPTIONS(r)                                                                           \
    {"tokens", 'n', POPT_ARG_STRING, &(r).tokens, 0, "how many to write at most; 256 if it is not given",    \
     "N"},                                                                                                   \
        {"temperature",                                                                                      \
         't',                                                                                                \
         POPT_ARG_STRING,                                                                                    \
         &(r).temperature,                                                                                   \
         0,                                                                                                  \
         "0 takes the most probable token, always; above it tokens are drawn; 0 if it is not given, or 1 "   \
         "with "                                                                                             \
         "--top-k, --top-p or --seed",                                                                       \
         "X"},                                                                                               \
        {"top-k", 0, POPT_ARG_STRING, &(r).top_k, 0, "draw from the N most probable tokens", "N"},           \
        {"top-p",    0, POPT_ARG_STRING,                                                                     \
         &(r).top_p, 0, "draw from the most probable tokens that together have this probability",            \
         "X"},                                                                                               \
    {                                                                                                        \
        "seed", 0, POPT_ARG_STRING, &(r).seed, 0, "of every draw; 0 if it is not given", "N"                 \
    }

clsplat_status language_choose(cli *c, const language_choice *r, clsplat_sampling *sampling, size_t *tokens);

#endif
