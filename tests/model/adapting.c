/* Splats that adapt while a text is read: adapting MODEL FILE EVERY, for tests/train/topic.py
 *
 * Reads FILE token by token, as generation does, with a cycle after every EVERY tokens, and prints a line of
 * JSON for each: how well the splats covered the tokens since the cycle before, before and after. The last
 * line has the seconds, and processor seconds, that all of it took, and without adaptation (the two take
 * turns by EVERY tokens), and whether the session without it goes back as it should. */
#include <clsplat/clsplat.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

enum { LIMIT = 1 << 24, KINDS = 2 };

typedef struct reading {
    clsplat *lib;
    clsplat_device *device;
    clsplat_model *model;
    clsplat_session *session[KINDS]; /* with and without */
    int32_t *tokens;
    size_t count, every;
    double seconds[KINDS], processors[KINDS];
} reading;

static clsplat_status open(reading *r, const char *folder, const char *path) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_model_attention how = clsplat_model_attention_defaults();
    char *bytes = NULL;
    size_t count = 0;
    TRY(clsplat_create(clsplat_options_defaults(), &r->lib));
    TRY(clsplat_device_open(r->lib, NULL, &r->device));
    TRY(clsplat_model_open(r->device, folder, clsplat_model_options_defaults(), &r->model));
    TRY(file_load(r->lib, path, LIMIT, &bytes, &count));
    TRY(clsplat_model_encode(r->model, bytes, count, false, &r->tokens, &r->count));
    for (int kind = 0; kind < KINDS; kind++) {
        how.adapt_every = kind ? SIZE_MAX : r->every;
        TRY(clsplat_session_open(r->model, r->count, how, &r->session[kind]));
    }
fail:
    free(bytes);
    return status;
}

/* Tokens [begin, end) one by one. */
static clsplat_status read_on(reading *r, int kind, size_t begin, size_t end) {
    clsplat_status status = CLSPLAT_OK;
    int32_t next;
    double start = clock_seconds(), busy = (double)clock() / CLOCKS_PER_SEC;
    for (size_t i = begin; i < end; i++) {
        TRY(clsplat_session_feed(r->session[kind], &r->tokens[i], 1, NULL));
        TRY(clsplat_session_sample(r->session[kind], clsplat_sampling_defaults(), &next));
    }
    r->seconds[kind] += clock_seconds() - start;
    r->processors[kind] += (double)clock() / CLOCKS_PER_SEC - busy;
fail:
    return status;
}

/* Without adaptation old keys are gone: *same, whether the session goes back as far as it says, no further,
 * and then comes to the same logits. */
static clsplat_status go_back(reading *r, bool *same) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_session *s = r->session[1];
    size_t length = clsplat_session_length(s), reach = clsplat_session_reach(s),
           vocabulary = clsplat_model_describe(r->model)->vocabulary;
    float *before = malloc(2 * vocabulary * sizeof *before), *after = before + vocabulary;
    if (!before)
        return CLSPLAT_MEMORY;
    *same = reach > 1 && clsplat_session_reach(r->session[0]) == 0 &&
            clsplat_session_rewind(s, reach - 1) == CLSPLAT_INVALID;
    TRY(clsplat_session_logits(s, before));
    TRY(clsplat_session_rewind(s, reach));
    TRY(read_on(r, 1, reach, length));
    TRY(clsplat_session_logits(s, after));
    *same = *same && memcmp(before, after, vocabulary * sizeof *before) == 0;
    TRY(clsplat_session_rewind(s, 0));
    TRY(clsplat_session_feed(s, r->tokens, 1, NULL));
    *same = *same && clsplat_session_reach(s) == 0;
fail:
    free(before);
    return status;
}

static clsplat_status run(reading *r) {
    clsplat_status status = CLSPLAT_OK;
    bool same = false;
    clsplat_session_adaptation told;
    for (size_t end = r->every; end <= r->count; end += r->every) {
        for (int kind = 0; kind < KINDS; kind++)
            TRY(read_on(r, kind, end - r->every, end));
        clsplat_session_adaptation_read(r->session[0], &told);
        printf("{\"tokens\": %zu, \"before\": %.5f, \"after\": %.5f, \"decisions\": %llu}\n", end,
               told.coverage_before, told.coverage_after, (unsigned long long)told.decisions);
        if (end == r->every) /* the first turn has built kernels */
            r->seconds[0] = r->seconds[1] = r->processors[0] = r->processors[1] = 0;
    }
    printf("{\"seconds\": %.4f, \"still\": %.4f, \"processors\": %.4f, \"processors_still\": %.4f, ",
           r->seconds[0], r->seconds[1], r->processors[0], r->processors[1]);
    TRY(go_back(r, &same));
    printf("\"goes_back\": %s}\n", same ? "true" : "false");
fail:
    return status;
}

int main(int argc, char **argv) {
    reading r = {.every = argc == 4 ? strtoul(argv[3], NULL, 10) : 0};
    if (r.every == 0) {
        fputs("adapting MODEL FILE EVERY\n", stderr);
        return 2;
    }
    clsplat_status status = open(&r, argv[1], argv[2]);
    if (status == CLSPLAT_OK)
        status = run(&r);
    if (status != CLSPLAT_OK)
        fprintf(stderr, "adapting: %s\n", r.lib ? clsplat_last_error(r.lib) : clsplat_status_text(status));
    for (int kind = 0; kind < KINDS; kind++)
        clsplat_session_close(&r.session[kind]);
    clsplat_model_free(r.tokens);
    clsplat_model_close(&r.model);
    clsplat_device_close(&r.device);
    clsplat_destroy(&r.lib);
    return status != CLSPLAT_OK;
}
