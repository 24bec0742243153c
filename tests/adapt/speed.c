/* What adaptation and metrics cost, beside one write and read of the same tokens: adapt-speed TOKENS SPLATS
 * [REPEATS]
 *
 * One head of 64 columns, tokens in 40 clusters, softmax-matched splats; every query sees all keys, and the
 * same in causal order. Prints one JSON object a line: the median seconds of clsplat_attend, of
 * clsplat_splats_measure and of one cycle of clsplat_splats_adapt, with their defaults, by the clock. */
#include <clsplat/clsplat.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"

enum { DIM = 64, CLUSTERS = 40, REPEATS_LIMIT = 99, KINDS = 3 };

typedef struct timing {
    clsplat *lib;
    clsplat_device *device;
    clsplat_splats *splats;
    clsplat_attention_tensors t;
    size_t tokens;
    float *numbers; /* q, k, v and out */
} timing;

static void fill(timing *t) {
    random_state random = random_seed(1);
    size_t count = t->tokens * DIM;
    float *centre = t->numbers + 3 * count; /* out is not needed yet */
    for (size_t i = 0; i < (size_t)CLUSTERS * DIM; i++)
        centre[i] = 1.5f * (float)random_normal(&random);
    for (size_t row = 0; row < 2 * t->tokens; row++) {
        const float *from = centre + random_below(&random, CLUSTERS) * DIM;
        for (size_t d = 0; d < DIM; d++)
            t->numbers[row * DIM + d] =
                (row < t->tokens ? 0.8f : 1) * (from[d] + (float)random_normal(&random));
    }
    for (size_t i = 0; i < count; i++)
        t->numbers[2 * count + i] = tanhf(t->numbers[count + i]) + 0.3f * (float)random_normal(&random);
}

static clsplat_status open(timing *t, size_t splats) {
    clsplat_status status = CLSPLAT_OK;
    size_t n = t->tokens, counts[] = {splats};
    char name[] = "all", *names[] = {name};
    double weights[] = {1};
    clsplat_hierarchy one = {1, names, counts, weights};
    clsplat_init init = clsplat_init_defaults();
    init.hierarchy = &one;
    init.match = CLSPLAT_MATCH_SOFTMAX;
    t->numbers = malloc(4 * n * DIM * sizeof *t->numbers);
    if (!t->numbers)
        return CLSPLAT_MEMORY;
    fill(t);
    t->t.q = clsplat_tensor_host(CLSPLAT_F32, 1, 1, n, DIM, t->numbers);
    t->t.k = clsplat_tensor_host(CLSPLAT_F32, 1, 1, n, DIM, t->numbers + n * DIM);
    t->t.v = clsplat_tensor_host(CLSPLAT_F32, 1, 1, n, DIM, t->numbers + 2 * n * DIM);
    t->t.out = clsplat_tensor_host(CLSPLAT_F32, 1, 1, n, DIM, t->numbers + 3 * n * DIM);
    TRY(clsplat_create(clsplat_options_defaults(), &t->lib));
    TRY(clsplat_device_open(t->lib, NULL, &t->device));
    TRY(clsplat_splats_init(t->device, init, t->t.q, t->t.k, &t->splats));
fail:
    return status;
}

static clsplat_status run(timing *t, bool causal, int kind) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_attention attention = clsplat_attention_defaults();
    clsplat_measure measure = clsplat_measure_defaults();
    clsplat_adapt adapt = clsplat_adapt_defaults();
    clsplat_splats *adapted = NULL;
    clsplat_metrics metrics = {0};
    attention.method = CLSPLAT_SPLATS;
    attention.splats = t->splats;
    attention.causal = measure.causal = adapt.causal = causal;
    adapt.cycles = 1;
    if (kind == 0)
        TRY(clsplat_attend(t->device, attention, t->t));
    if (kind == 1)
        TRY(clsplat_splats_measure(t->device, measure, t->t, t->splats, &metrics));
    if (kind == 2)
        TRY(clsplat_splats_adapt(t->device, adapt, t->t, t->splats, &adapted, NULL));
fail:
    clsplat_metrics_free(&metrics);
    clsplat_splats_destroy(&adapted);
    return status;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static clsplat_status measure(timing *t, bool causal, size_t repeats) {
    clsplat_status status = CLSPLAT_OK;
    double taken[KINDS][REPEATS_LIMIT];
    for (size_t r = 0; r <= repeats; r++) /* the first turn warms up */
        for (int kind = 0; kind < KINDS; kind++) {
            double begin = clock_seconds();
            TRY(run(t, causal, kind));
            if (r > 0)
                taken[kind][r - 1] = clock_seconds() - begin;
        }
    for (int kind = 0; kind < KINDS; kind++)
        qsort(taken[kind], repeats, sizeof **taken, ascending);
    size_t middle = repeats / 2;
    printf("{\"causal\": %s, \"attend\": %.4f, \"metrics\": %.4f, \"adapt\": %.4f, \"metrics_over_attend\": "
           "%.2f, "
           "\"adapt_over_attend\": %.2f}\n",
           causal ? "true" : "false", taken[0][middle], taken[1][middle], taken[2][middle],
           taken[1][middle] / taken[0][middle], taken[2][middle] / taken[0][middle]);
fail:
    return status;
}

int main(int argc, char **argv) {
    timing t = {.tokens = argc > 2 ? strtoul(argv[1], NULL, 10) : 0};
    size_t splats = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    size_t repeats = argc > 3 ? strtoul(argv[3], NULL, 10) : 5;
    if (t.tokens < CLUSTERS || splats == 0 || repeats == 0 || repeats > REPEATS_LIMIT) {
        fputs("adapt-speed TOKENS SPLATS [REPEATS]\n", stderr);
        return 2;
    }
    clsplat_status status = open(&t, splats);
    for (int causal = 0; status == CLSPLAT_OK && causal < 2; causal++)
        status = measure(&t, causal, repeats);
    if (status != CLSPLAT_OK)
        fprintf(stderr, "adapt-speed: %s\n", t.lib ? clsplat_last_error(t.lib) : clsplat_status_text(status));
    clsplat_splats_destroy(&t.splats);
    clsplat_device_close(&t.device);
    clsplat_destroy(&t.lib);
    free(t.numbers);
    return status != CLSPLAT_OK;
}
