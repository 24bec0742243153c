/* How long a model takes, for tests/peers/model.py: speed MODEL FILE TOKENS DECODED REPEATS [TYPE [CHUNK]]
 *
 * Reads the first TOKENS bytes of FILE (prefill, up to the logits of the next token), then DECODED tokens
 * greedily, one by one. Prints one JSON object: the median seconds of each, by the clock and of all
 * processors together, and the peak of device memory. */
#include <clsplat/clsplat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"

enum { REPEATS_LIMIT = 100 };

typedef struct timing {
    clsplat_session *session;
    int32_t *tokens;
    size_t count, decoded;
    float *logits;
} timing;

/* How long something took, by the clock and of all processors together. */
typedef struct duration {
    double seconds, processors;
} duration;

static duration now(void) {
    return (duration){clock_seconds(), (double)clock() / CLOCKS_PER_SEC};
}

static duration since(duration start) {
    duration end = now();
    return (duration){end.seconds - start.seconds, end.processors - start.processors};
}

static clsplat_status prefill(timing *t, duration *taken) {
    clsplat_status status = CLSPLAT_OK;
    duration start = now();
    TRY(clsplat_session_rewind(t->session, 0));
    TRY(clsplat_session_feed(t->session, t->tokens, t->count, NULL));
    TRY(clsplat_session_logits(t->session, t->logits));
    *taken = since(start);
fail:
    return status;
}

static clsplat_status decode(timing *t, duration *taken) {
    clsplat_status status = CLSPLAT_OK;
    int32_t token = 0;
    duration start = now();
    for (size_t i = 0; i < t->decoded; i++) {
        TRY(clsplat_session_sample(t->session, clsplat_sampling_defaults(), &token));
        TRY(clsplat_session_feed(t->session, &token, 1, NULL));
    }
    TRY(clsplat_session_logits(t->session, t->logits));
    *taken = since(start);
fail:
    return status;
}

static int by_seconds(const void *a, const void *b) {
    const duration *x = a, *y = b;
    return (x->seconds > y->seconds) - (x->seconds < y->seconds);
}

static clsplat_status measure(timing *t, size_t repeats, const clsplat_device *device) {
    clsplat_status status = CLSPLAT_OK;
    duration reading[REPEATS_LIMIT + 1], writing[REPEATS_LIMIT + 1];
    for (size_t i = 0; i <= repeats; i++) { /* the first warms up */
        TRY(prefill(t, &reading[i]));
        TRY(decode(t, &writing[i]));
    }
    qsort(reading + 1, repeats, sizeof *reading, by_seconds);
    qsort(writing + 1, repeats, sizeof *writing, by_seconds);
    const duration *r = &reading[1 + repeats / 2], *w = &writing[1 + repeats / 2];
    printf("{\"prefill\": %.6f, \"prefill_processors\": %.6f, \"decode\": %.6f, \"decode_processors\": %.6f, "
           "\"peak_bytes\": %llu}\n",
           r->seconds, r->processors, w->seconds, w->processors,
           (unsigned long long)clsplat_device_memory(device).peak);
fail:
    return status;
}

int main(int argc, char **argv) {
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = NULL;
    clsplat_device *device = NULL;
    clsplat_model *model = NULL;
    timing t = {0};
    char *text = NULL;
    size_t bytes = 0;
    if (argc < 6 || atoi(argv[5]) > REPEATS_LIMIT)
        return 2;
    t.count = strtoul(argv[3], NULL, 10);
    t.decoded = strtoul(argv[4], NULL, 10);
    TRY(clsplat_create(clsplat_options_defaults(), &lib));
    TRY(clsplat_device_open(lib, NULL, &device));
    TRY(file_load(lib, argv[2], 1 << 30, &text, &bytes));
    clsplat_model_options options = clsplat_model_options_defaults();
    options.context = t.count + t.decoded;
    options.activations = options.cache =
        argc > 6 && strcmp(argv[6], "bf16") == 0 ? CLSPLAT_BF16 : CLSPLAT_F32;
    options.chunk = argc > 7 ? strtoul(argv[7], NULL, 10) : options.chunk;
    TRY(clsplat_model_open(device, argv[1], options, &model));
    t.tokens = calloc(t.count + 1, sizeof *t.tokens);
    t.logits = calloc(clsplat_model_describe(model)->vocabulary, sizeof *t.logits);
    for (size_t i = 0; i < t.count && bytes; i++)
        t.tokens[i] = (unsigned char)text[i % bytes];
    TRY(clsplat_session_open(model, options.context, clsplat_model_attention_defaults(), &t.session));
    TRY(measure(&t, strtoul(argv[5], NULL, 10), device));
fail:
    if (status)
        fprintf(stderr, "%s\n", lib ? clsplat_last_error(lib) : clsplat_status_text(status));
    clsplat_session_close(&t.session);
    clsplat_model_close(&model);
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
    free(t.tokens);
    free(t.logits);
    free(text);
    return status ? 1 : 0;
}
