/* Pretrained language models: a folder as people publish them, opened on a device, reading and writing text.
 *
 *     clsplat_model_open(device, "folder", clsplat_model_options_defaults(), &model);
 *     clsplat_session_open(model, 4096, clsplat_model_attention_defaults(), &session);
 *     clsplat_model_encode(model, text, bytes, true, &tokens, &count);
 *     clsplat_session_feed(session, tokens, count, NULL);
 *     while (…) {
 *         clsplat_session_sample(session, clsplat_sampling_defaults(), &token);
 *         clsplat_session_feed(session, &token, 1, NULL);
 *     }
 *
 * Models that write are of the Llama family (also Mistral, Qwen2 and Qwen3): RMSNorm, rotary positions,
 * grouped-query attention, SwiGLU. Encoders (BERT, RoBERTa, XLM-R, DistilBERT) read whole texts:
 *
 *     clsplat_model_embed(model, clsplat_embedding_defaults(), texts, count, vectors);
 *
 * The host only orchestrates; all arithmetic is on the device, in float32 whatever the
 * storage types.
 *
 * A call that returns OPENCL or MEMORY because a kernel failed while it ran, in this session or elsewhere on
 * the device, has taken the session back to the last token whose keys and values are known to be whole:
 * clsplat_session_length tells. Whoever feeds the tokens after it again gets the very same numbers.
 *
 * Threads: a model and its sessions belong to the thread of their device. They must be closed before it:
 * sessions, then the model, then the device. */
#ifndef CLSPLAT_MODEL_H
#define CLSPLAT_MODEL_H

#include <clsplat/adapt.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Configuration, tokeniser and weights on one device. */
typedef struct clsplat_model clsplat_model;

typedef struct clsplat_model_options {
    size_t size;               /* see status.h */
    clsplat_dtype activations; /* of what products and attention read and write; F32. BF16 suits GPUs. What
                                  layers add to stays float32 */
    clsplat_dtype cache;       /* of keys and values in sessions; F32 */
    size_t context; /* the longest session in tokens; 0: what the model was made for. More is possible,
                       but then it sees positions that it was not trained on */
    size_t chunk;   /* tokens that go through the layers together, which bounds workspaces; 0: the library's
                       choice, 512 on a CPU and up to 8192 on a GPU that has memory for them; 0 */
    clsplat_progress *progress; /* while weights are uploaded; NULL: none */
    void *progress_user;
} clsplat_model_options;
CLSPLAT_DEFAULTS(clsplat_model_options)

/* Opens a folder with config.json, model.safetensors (or the shards that model.safetensors.index.json names)
 * and, for texts, unless the vocabulary is the 256 bytes, tokenizer.json or tokenizer.model. Weights stay in
 * their stored type (F32, F16 or BF16) and are uploaded once, straight from the file, which must not be
 * shortened meanwhile: that ends the process with SIGBUS. Nothing is guessed: a key or tensor that is
 * missing, of another type or shape, or asks for what this library does not do, is an error.
 *
 * Ownership: *model is the caller's; it keeps using the device. Blocks: until the weights are uploaded.
 * Returns: IO, FORMAT and UNSUPPORTED (naming the file and the key or tensor), INVALID (the options), MEMORY
 * (what is needed and what there is, before anything is uploaded), OPENCL, CANCELLED. */
CLSPLAT_API clsplat_status clsplat_model_open_sized(clsplat_device *device, const char *folder,
                                                    const clsplat_model_options *options,
                                                    clsplat_model **model);
static inline clsplat_status clsplat_model_open(clsplat_device *device, const char *folder,
                                                clsplat_model_options options, clsplat_model **model) {
    options.size = sizeof options;
    return clsplat_model_open_sized(device, folder, &options, model);
}
/* Accepts NULL and a NULL handle; sets *model to NULL. */
CLSPLAT_API void clsplat_model_close(clsplat_model **model);

typedef struct clsplat_model_info {
    const char *family; /* "llama", "bert", …: the model_type of config.json */
    size_t layers, hidden, heads, kv_heads, head_dim, intermediate, vocabulary;
    size_t context;        /* tokens: what the model was made for */
    size_t window;         /* keys that a token sees at most, itself included, in the layers that have such a
                              window; 0: none has */
    uint64_t parameters;   /* numbers, a tied embedding once */
    uint64_t weight_bytes; /* on the device */
    uint64_t token_bytes;  /* of cache that one token takes in a session, over all layers but those of splats
                              that do not adapt */
    int32_t begin;         /* the token that begins a text; −1: none */
    const int32_t *ends;   /* [end_count] tokens after which generation stops: eos_token_id of config.json and
                              generation_config.json */
    size_t end_count;
    bool encoder;   /* reads whole texts: no sessions, but clsplat_model_embed and clsplat_model_read */
    bool head;      /* there are logits */
    size_t longest; /* encoders: tokens of a text, those around it included; longer texts are cut */
    int32_t mask;   /* encoders: the token that stands for one to be guessed; −1: none */
} clsplat_model_info;

/* Ownership: the model's, valid until it is closed. */
CLSPLAT_API const clsplat_model_info *clsplat_model_describe(const clsplat_model *model);
CLSPLAT_API clsplat_device *clsplat_model_device(const clsplat_model *model);
/* Whether generation stops after this token. */
CLSPLAT_API bool clsplat_model_is_end(const clsplat_model *model, int32_t token);

/* Text to tokens and back. `special` adds what the tokeniser puts around a whole text (the token that begins
 * it, where the model has one) and takes the names of special tokens in the text for those tokens; without it
 * they are letters like others. `text` need not be valid UTF-8 and may hold NULs; *text of decode has a NUL
 * behind it, and special tokens are left out of it.
 *
 * Ownership: *tokens and *text are the caller's, to be given to clsplat_model_free.
 * Returns: IO (the folder has no tokeniser), INVALID (a token outside the vocabulary, a text that the
 * vocabulary cannot express), MEMORY. */
CLSPLAT_API clsplat_status clsplat_model_encode(const clsplat_model *model, const char *text, size_t bytes,
                                                bool special, int32_t **tokens, size_t *count);
CLSPLAT_API clsplat_status clsplat_model_decode(const clsplat_model *model, const int32_t *tokens,
                                                size_t count, char **text, size_t *bytes);
/* What one more token adds to a text, to show it as it comes: a space at its beginning stays unless it begins
 * the text. `previous`: the token before it; −1: none. *text may be half a character, and is empty for
 * special tokens. Ownership and Returns: as clsplat_model_decode. */
CLSPLAT_API clsplat_status clsplat_model_decode_next(const clsplat_model *model, int32_t previous,
                                                     int32_t token, char **text, size_t *bytes);
/* Accepts NULL. */
CLSPLAT_API void clsplat_model_free(void *list);

/* How the layers attend. */
typedef enum clsplat_model_method {
    CLSPLAT_MODEL_EXACT,    /* softmax over all keys that the model lets a token see */
    CLSPLAT_MODEL_WINDOW,   /* softmax over the last `window` keys of those, the token's own included */
    CLSPLAT_MODEL_NEAR_FAR, /* softmax over the keys nearby, and through a tree of splats over those far away
                             */
    CLSPLAT_MODEL_TOPK,     /* to compare with: softmax over the sparse_topk keys of the largest scores. No
                               faster than EXACT, since it computes all scores to find them */
    CLSPLAT_MODEL_BLOCKS    /* to compare with: over blocks of consecutive keys with the largest mean scores,
                               sparse_topk keys in all, the token's own block among them */
} clsplat_model_method;

typedef struct clsplat_model_attention {
    size_t size;                 /* see status.h */
    clsplat_model_method method; /* EXACT */
    size_t window;               /* WINDOW only: keys; 512 */
    float tolerance;    /* NEAR_FAR only: the relative error that a row may expect; 0.02. From 0.005 on,
                           trees keep an F32 cache's keys and values in F16 */
    size_t sparse_topk; /* NEAR_FAR: keys that a row attends to exactly at most; 0: no limit. TOPK, BLOCKS:
                           keys that it attends to; at least 1 */
    size_t chunk; /* NEAR_FAR only: keys of a tree, and so how many tokens back a row is always exact; a power
                     of two from 16 to 4096, at most sparse_topk; 0: the library's choice */
    size_t adapt_every; /* of models with splat layers: tokens between two cycles in which their splats adapt
                           to what was read; 0: as adaptation.* of the model's configuration says; SIZE_MAX:
                           never */
    clsplat_adapt_listener
        *adapt_listener; /* told of every decision of a cycle once all layers have made theirs; NULL: nobody.
                            Errors are Σ −φ of the best splat over keys, the smaller the better covered */
    void *adapt_user;
    bool measure_errors; /* every layer attends exactly, too, and clsplat_session_errors tells the difference
                          */
} clsplat_model_attention;
CLSPLAT_DEFAULTS(clsplat_model_attention)

/* One text in the making: the keys and values of its tokens, and the logits after the last one. Several
 * sessions of one model are independent. */
typedef struct clsplat_session clsplat_session;

/* A session of up to `capacity` tokens; it also decides which positions a model with longrope has, those for
 * long texts or those for short ones. Ownership: *session is the caller's. Returns: INVALID (a capacity of 0
 * or above the model's context, an attention outside its range), UNSUPPORTED (an attention that this device
 * cannot compute), MEMORY. */
CLSPLAT_API clsplat_status clsplat_session_open_sized(clsplat_model *model, size_t capacity,
                                                      const clsplat_model_attention *attention,
                                                      clsplat_session **session);
static inline clsplat_status clsplat_session_open(clsplat_model *model, size_t capacity,
                                                  clsplat_model_attention attention,
                                                  clsplat_session **session) {
    attention.size = sizeof attention;
    return clsplat_session_open_sized(model, capacity, &attention, session);
}
/* Accepts NULL and a NULL handle; sets *session to NULL. */
CLSPLAT_API void clsplat_session_close(clsplat_session **session);

/* Reads the next tokens of the text, many (prefill) or one (decoding).
 * Writes: logits [count, vocabulary] in host memory, unless it is NULL: entry i is for the token after
 * tokens[i]. Blocks: while earlier commands of the device end, and for logits until they are written.
 * Returns: INVALID (a token outside the vocabulary; more tokens than the session has room for: it stays as it
 * was), MEMORY, BUILD, OPENCL. */
CLSPLAT_API clsplat_status clsplat_session_feed(clsplat_session *session, const int32_t *tokens, size_t count,
                                                float *logits);

/* The same, and how well every next token was predicted: targets[i] is the token that does follow tokens[i],
 * for a text mostly tokens + 1. Writes: log_likelihood [count], the natural logarithm of the probability of
 * targets[i]; greedy [count], whether it is the most probable one (of several the lowest). Either may be
 * NULL. Blocks: until they are written. Returns: as clsplat_session_feed; NOT_FINITE where logits have a NaN
 * or +infinity. */
CLSPLAT_API clsplat_status clsplat_session_score(clsplat_session *session, const int32_t *tokens,
                                                 const int32_t *targets, size_t count, float *log_likelihood,
                                                 bool *greedy);

/* The logits after the last token. Writes: logits [vocabulary]. Blocks. Returns: INVALID if nothing was read
 * yet, or the session was rewound since. */
CLSPLAT_API clsplat_status clsplat_session_logits(clsplat_session *session, float *logits);

/* How the next token is drawn. The filters apply in this order: temperature, top_k, top_p. */
typedef struct clsplat_sampling {
    size_t size;       /* see status.h */
    float temperature; /* logits are divided by it; 0: the most probable token, always; 0 */
    size_t top_k;      /* only the so many most probable tokens; 0: all; 0 */
    float top_p;       /* only the most probable tokens that together have this probability; 1: all; 1 */
    uint64_t seed;     /* seed and position in the text decide the draw; 0 */
} clsplat_sampling;
CLSPLAT_DEFAULTS(clsplat_sampling)

/* Draws a token from the logits after the last one, on the device; does not feed it. Blocks. Returns: INVALID
 * (also as clsplat_session_logits), NOT_FINITE if there is a NaN or +infinity among them, or nothing but
 * −infinity: *token is −1 then. */
CLSPLAT_API clsplat_status clsplat_session_sample_sized(clsplat_session *session,
                                                        const clsplat_sampling *sampling, int32_t *token);
static inline clsplat_status clsplat_session_sample(clsplat_session *session, clsplat_sampling sampling,
                                                    int32_t *token) {
    sampling.size = sizeof sampling;
    return clsplat_session_sample_sized(session, &sampling, token);
}

/* Tokens read so far, and how many there is room for. */
CLSPLAT_API size_t clsplat_session_length(const clsplat_session *session);
CLSPLAT_API size_t clsplat_session_capacity(const clsplat_session *session);
/* Goes back to the first `length` tokens; the statistics start anew at length 0. Returns: INVALID if there
 * are fewer, or if it is less than clsplat_session_reach and not 0. */
CLSPLAT_API clsplat_status clsplat_session_rewind(clsplat_session *session, size_t length);
/* The fewest tokens, beside none, that it can go back to: 0 unless splat layers have left keys behind. Those
 * that do not adapt keep the last ones, and of all before what is in their splats. */
CLSPLAT_API size_t clsplat_session_reach(const clsplat_session *session);

/* What attention cost since the session was opened or rewound to 0, summed over tokens, layers and query
 * heads. Blocks where the attention counts on the device. */
typedef struct clsplat_session_statistics {
    size_t size; /* see status.h */
    uint64_t tokens;
    double visible_keys; /* that the model lets its tokens see */
    double exact_keys;   /* of these, attended one by one */
    uint64_t bytes;      /* of device memory that the session holds */
} clsplat_session_statistics;
CLSPLAT_API clsplat_status clsplat_session_statistics_read_sized(clsplat_session *session,
                                                                 clsplat_session_statistics *statistics);
static inline clsplat_status clsplat_session_statistics_read(clsplat_session *session,
                                                             clsplat_session_statistics *statistics) {
    if (statistics)
        statistics->size = sizeof *statistics;
    return clsplat_session_statistics_read_sized(session, statistics);
}

/* What adaptation came to. Coverage of a key: φ of the splat that is nearest, 0 at its middle. */
typedef struct clsplat_session_adaptation {
    size_t size;                            /* see status.h */
    uint64_t cycles, decisions;             /* cycles made, and splats that were replaced in them */
    double coverage_before, coverage_after; /* of the last cycle: of the keys since the cycle before, over all
                                               layers and heads */
} clsplat_session_adaptation;
CLSPLAT_API void clsplat_session_adaptation_read_sized(const clsplat_session *session,
                                                       clsplat_session_adaptation *adaptation);
static inline void clsplat_session_adaptation_read(const clsplat_session *session,
                                                   clsplat_session_adaptation *adaptation) {
    if (adaptation)
        adaptation->size = sizeof *adaptation;
    clsplat_session_adaptation_read_sized(session, adaptation);
}

/* How far each layer's attention is from softmax attention of the same queries, keys and values: ‖out −
 * exact‖ / ‖exact‖ over all tokens since the session was opened, rewound or not. Writes: errors [layers].
 * Returns: INVALID if the session does not measure them. */
CLSPLAT_API clsplat_status clsplat_session_errors(clsplat_session *session, double *errors);

/* Encoders. */

/* How one vector is made of those of a text's tokens. */
typedef enum clsplat_pooling {
    CLSPLAT_POOLING_FOLDER, /* as modules.json and 1_Pooling say; the mean without them */
    CLSPLAT_POOLING_MEAN,
    CLSPLAT_POOLING_CLS, /* that of the first token */
    CLSPLAT_POOLING_LAST /* that of the last token */
} clsplat_pooling;

typedef struct clsplat_embedding {
    size_t size;                /* see status.h */
    clsplat_pooling pooling;    /* FOLDER */
    bool normalise;             /* to length 1, also where the folder does not; false */
    clsplat_progress *progress; /* NULL: none */
    void *progress_user;
    clsplat_model_attention attention; /* EXACT or NEAR_FAR; EXACT; it grows with this struct */
} clsplat_embedding;
CLSPLAT_DEFAULTS(clsplat_embedding)

/* Need not be valid UTF-8 and may hold NULs. */
typedef struct clsplat_text {
    const char *words;
    size_t bytes;
} clsplat_text;

/* A vector for every text. Texts of nearly one length go through the layers together, whatever their order; a
 * vector does not depend on which others there are beyond rounding. Longer texts than the model reads are
 * cut, with a warning.
 *
 * Writes: vectors [count, hidden]. Blocks: until they are written. Returns: UNSUPPORTED (a model that writes;
 * an attention that is for those), INVALID, IO (no tokeniser), MEMORY, BUILD, OPENCL, CANCELLED. */
CLSPLAT_API clsplat_status clsplat_model_embed_sized(clsplat_model *model, const clsplat_embedding *how,
                                                     const clsplat_text *texts, size_t count, float *vectors);
static inline clsplat_status clsplat_model_embed(clsplat_model *model, clsplat_embedding how,
                                                 const clsplat_text *texts, size_t count, float *vectors) {
    how.size = sizeof how;
    return clsplat_model_embed_sized(model, &how, texts, count, vectors);
}

/* One text as tokens. Writes: rows [count, hidden], what the last layer makes of every token, and logits
 * [count, vocabulary] of the head; either may be NULL. Blocks: until they are written. Returns: INVALID (no
 * token, too many, one outside the vocabulary), UNSUPPORTED (logits of a model without a head; otherwise as
 * clsplat_model_embed), … */
CLSPLAT_API clsplat_status clsplat_model_read_sized(clsplat_model *model,
                                                    const clsplat_model_attention *attention,
                                                    const int32_t *tokens, size_t count, float *rows,
                                                    float *logits);
static inline clsplat_status clsplat_model_read(clsplat_model *model, clsplat_model_attention attention,
                                                const int32_t *tokens, size_t count, float *rows,
                                                float *logits) {
    attention.size = sizeof attention;
    return clsplat_model_read_sized(model, &attention, tokens, count, rows, logits);
}

#ifdef __cplusplus
}
#endif
#endif
