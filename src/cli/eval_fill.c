/* What an encoder's head would put where a text has its mask. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "cli/eval.h"
#include "cli/report.h"

enum { GUESSES = 5 };

typedef struct guess {
    int32_t token;
    double probability;
} guess;

/* The most probable tokens, the first of equals first. */
static void best_of(const float *logits, size_t count, guess best[GUESSES]) {
    double top = -INFINITY, sum = 0;
    for (size_t v = 0; v < count; ++v)
        top = fmax(top, (double)logits[v]);
    for (size_t v = 0; v < count; ++v)
        sum += exp((double)logits[v] - top);
    for (size_t i = 0; i < GUESSES; ++i)
        best[i] = (guess){-1, 0};
    for (size_t v = 0; v < count; ++v) {
        guess next = {(int32_t)v, exp((double)logits[v] - top) / sum};
        for (size_t i = 0; i < GUESSES; ++i)
            if (best[i].token < 0 || next.probability > best[i].probability) {
                guess swap = best[i];
                best[i] = next;
                next = swap;
            }
    }
}

/* A guess's letters go to *words, to be freed. */
static clsplat_status show(const language *l, int32_t token, text *words) {
    clsplat_status status = CLSPLAT_OK;
    char *bytes = NULL;
    size_t count = 0;
    TRY(clsplat_model_decode(l->model, &token, 1, &bytes, &count));
    utf8_add_mended(words, bytes, count);
    if (!text_ok(words))
        TRY(log_error(l->c->lib, CLSPLAT_MEMORY, "there is no memory for a guess"));
fail:
    clsplat_model_free(bytes);
    return status;
}

static clsplat_status report_mask(const language *l, const float *logits, json_t **masks) {
    clsplat_status status = CLSPLAT_OK;
    guess best[GUESSES];
    json_t *list = json_array();
    best_of(logits, l->info->vocabulary, best);
    for (size_t i = 0; i < GUESSES && best[i].token >= 0; ++i) {
        text words = {0};
        TRY(show(l, best[i].token, &words));
        const char *letters = words.data ? words.data : "";
        if (l->c->json)
            list = json_push(
                list, json_put(json_put(json_put(json_object(), "text", report_words(letters, words.length)),
                                        "token", json_integer(best[i].token)),
                               "probability", report_number(best[i].probability)));
        else
            printf("%s%s %.4f", i ? "  " : "", letters, best[i].probability);
        text_free(&words);
    }
    if (!l->c->json)
        putchar('\n');
    *masks = json_push(*masks, list);
    list = NULL;
fail:
    json_decref(list);
    return status;
}

static clsplat_status report(const language *l, const language_tokens *tokens, const float *logits) {
    clsplat_status status = CLSPLAT_OK;
    json_t *masks = json_array();
    progress_clear(&l->c->progress);
    for (size_t i = 0; i < tokens->count; ++i)
        if (tokens->list[i] == l->info->mask)
            TRY(report_mask(l, logits + i * l->info->vocabulary, &masks));
    if (l->c->json) {
        json_t *whole = json_put(json_object(), "masks", masks);
        masks = NULL;
        TRY(report_json(l->c, whole));
    }
fail:
    json_decref(masks);
    return status;
}

clsplat_status eval_fill(const language *l, const char *words) {
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = l->c->lib;
    language_tokens tokens = {0};
    float *logits = NULL;
    size_t masks = 0;
    if (!l->info->encoder)
        return log_error(lib, CLSPLAT_UNSUPPORTED,
                         "--fill is for encoders; a model of type %s writes texts on", l->info->family);
    TRY(clsplat_model_encode(l->model, words, strlen(words), true, &tokens.list, &tokens.count));
    for (size_t i = 0; i < tokens.count; ++i)
        masks += l->info->mask >= 0 && tokens.list[i] == l->info->mask;
    if (masks == 0)
        TRY(log_error(lib, CLSPLAT_INVALID,
                      "--fill: the text has no mask, which is [MASK] or <mask> as the model has it"));
    logits = malloc(tokens.count * l->info->vocabulary * sizeof *logits);
    if (!logits)
        TRY(log_error(lib, CLSPLAT_MEMORY, "there is no memory for the logits of %zu tokens", tokens.count));
    TRY(clsplat_model_read(l->model, l->attention, tokens.list, tokens.count, NULL, logits));
    TRY(report(l, &tokens, logits));
fail:
    free(logits);
    language_free(&tokens);
    return status;
}
