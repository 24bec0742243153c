/* What `clsplat generate`, `chat` and `eval` share: a language model on a device, text in and text out. */
#ifndef CLSPLAT_CLI_LANGUAGE_H
#define CLSPLAT_CLI_LANGUAGE_H

#include <clsplat/clsplat.h>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/history.h"

/* Tokens between two looks at the keyboard. */
enum { LANGUAGE_PIECE = 512 };

/* Options as given; NULL: not given. */
typedef struct language_request {
    char *attention, *window, *tolerance, *sparse_topk, *chunk, *dtype, *context, *adapt, *history;
    char *memory; /* generate and chat */
    bool shared;  /* processes that mpirun started hold the session together */
} language_request;

// clang-format off
/* Rows of tables of options. */
#define LANGUAGE_ROW(name, letter, field, argument, words)                                                            \
    { name, letter, POPT_ARG_STRING, &(field), 0, words, argument }

/* Under LANGUAGE_ATTENTION. */
#define LANGUAGE_ATTENTION "How it attends:"
#define LANGUAGE_ATTENTION_OPTIONS(r)                                                                                 \
    LANGUAGE_ROW("attention", 0, (r).attention, "HOW",                                                                \
                 "softmax over all keys (if it is not given), window, near-far, topk or blocks"),                     \
    LANGUAGE_ROW("window", 0, (r).window, "N",                                                                        \
                 "keys that a token sees, for window; 512 if it is not given"),                                       \
    LANGUAGE_ROW("tolerance", 0, (r).tolerance, "X",                                                                  \
                 "relative error, for near-far; 0.02 if it is not given"),                                            \
    LANGUAGE_ROW("sparse-topk", 0, (r).sparse_topk, "N",                                                              \
                 "keys that a token sees exactly at most, for near-far, topk and blocks; no limit if it is "          \
                 "not given"),                                                                                        \
    LANGUAGE_ROW("chunk", 0, (r).chunk, "N",                                                                          \
                 "keys of a tree, for near-far; the library's choice if it is not given"),                            \
    LANGUAGE_ROW("adapt", 0, (r).adapt, "N",                                                                          \
                 "splat layers adapt after every N tokens, never with 0; as config.json says if it is not given"),    \
    LANGUAGE_ROW("history", 0, (r).history, "FILE", "every decision of that as a line of JSON, as it falls")

/* Under LANGUAGE_MODEL. */
#define LANGUAGE_MODEL "How the model is run:"
#define LANGUAGE_MODEL_OPTIONS(r)                                                                                     \
    LANGUAGE_ROW("dtype", 0, (r).dtype, "TYPE",                                                                       \
                 "f32, f16 or bf16: how what passes between layers, keys and values are stored; f32 if it is "        \
                 "not given"),                                                                                        \
    LANGUAGE_ROW("context", 0, (r).context, "N",                                                                      \
                 "tokens of a text at most; what the model was made for if it is not given")
#define LANGUAGE_MEMORY_OPTION(r)                                                                                     \
    LANGUAGE_ROW("memory", 0, (r).memory, "SIZE",                                                                     \
                 "device memory for keys and values at most, as 512M or 1.5G; chat forgets its oldest turns "         \
                 "for it")

// clang-format on

typedef struct language {
    cli *c;
    clsplat_device *device;
    clsplat_model *model;
    const clsplat_model_info *info;
    clsplat_model_attention attention;
    size_t context;              /* the longest text in tokens */
    uint64_t memory;             /* bytes that a session may take; 0: what there is */
    history decisions;           /* --history */
    struct clsplat_ranks *ranks; /* that share what a session holds; NULL: there are none */
    bool silent;                 /* another rank says it */
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

/* Of a language that ranks share; without ranks they do nothing. language_meet makes a status that of all,
 * once; language_alike also refuses ranks whose tokens differ; language_leave says it before any rank ends.
 * Collective. */
clsplat_status language_meet(const language *l, clsplat_status status);
clsplat_status language_alike(const language *l, clsplat_status status, language_tokens tokens);
clsplat_status language_leave(const language *l, clsplat_status status);

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
    int raw;
} language_choice;

// clang-format off
#define LANGUAGE_CHOICE "How the next token is chosen:"
#define LANGUAGE_CHOICE_OPTIONS(r)                                                                                    \
    LANGUAGE_ROW("tokens", 'n', (r).tokens, "N", "how many to write at most; 256 if it is not given"),                \
    LANGUAGE_ROW("temperature", 't', (r).temperature, "X",                                                            \
                 "0 takes the most probable token, always; above it tokens are drawn; 0 if it is not given, "         \
                 "or 1 with --top-k, --top-p or --seed"),                                                             \
    LANGUAGE_ROW("top-k", 0, (r).top_k, "N", "draw from the N most probable tokens"),                                 \
    LANGUAGE_ROW("top-p", 0, (r).top_p, "X",                                                                          \
                 "draw from the most probable tokens that together have this probability"),                           \
    LANGUAGE_ROW("seed", 0, (r).seed, "N", "of every draw; 0 if it is not given"),                                    \
    {"raw", 0, POPT_ARG_NONE, &(r).raw, 0, "show control characters to the terminal as they are", NULL}

// clang-format on

clsplat_status language_choose(cli *c, const language_choice *r, clsplat_sampling *sampling, size_t *tokens);

#endif
