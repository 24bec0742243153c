/* `clsplat eval` in parts: a text, once or with every attention, planted facts, or given tokens. */
#ifndef CLSPLAT_CLI_EVAL_H
#define CLSPLAT_CLI_EVAL_H

#include <jansson.h>

#include "cli/language.h"

/* What every evaluation counts. */
typedef struct eval_cost {
    size_t tokens;         /* that went through the model */
    double seconds;        /* on the wall */
    double exact, visible; /* keys attended one by one, and all that were visible */
} eval_cost;

/* Scores the tokens from the beginning of the session and adds to the cost: log_likelihood [count − 1] and
 * greedy [count − 1] as in clsplat_session_score, either may be NULL. */
clsplat_status eval_score(const language *l, clsplat_session *session, language_tokens tokens,
                          float *log_likelihood, bool *greedy, language_span bar, eval_cost *cost);
/* The same for tokens that were fed by other means since `begin`, in seconds. */
clsplat_status eval_count(clsplat_session *session, double begin, eval_cost *cost);

/* Adds the common keys to a report: tokens_per_second, exact_keys_share, peak_bytes, device. */
json_t *eval_json(const language *l, const eval_cost *cost, json_t *report);
/* The common line for a person. */
void eval_print(const language *l, const eval_cost *cost);

/* A text in windows, each for itself. */
typedef struct eval_reading {
    const char *path;
    language_tokens tokens;
    size_t window;        /* tokens */
    double nats;          /* of all scored tokens */
    size_t scored, bytes; /* how many, and the bytes they stand for */
    double *errors;       /* [layers], as clsplat_session_errors has them; NULL: not measured */
    eval_cost cost;
} eval_reading;

/* Finds the tokens and the window. */
clsplat_status eval_reading_begin(const language *l, const char *path, eval_reading *r);
/* Reads the text with the language's attention, from the beginning. */
clsplat_status eval_reading_run(const language *l, language_span bar, eval_reading *r);
void eval_reading_end(eval_reading *r);
double eval_reading_bits(const eval_reading *r); /* per byte */
double eval_share(const eval_cost *cost);        /* of visible keys that were attended exactly */

/* Each evaluates and reports. */
clsplat_status eval_text(const language *l, const char *path);
clsplat_status eval_compare(const language *l, const char *path);
clsplat_status eval_needles(const language *l, const char *path);
/* The head's guesses for each mask in the text, best first. */
clsplat_status eval_fill(const language *l, const char *words);
clsplat_status eval_logits(const language *l, const char *path, const char *output);

#endif
