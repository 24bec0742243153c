#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "cli/bench.h"
#include "op/families.h"

/* A run of all rows that would take longer than PATIENCE is left to a part of them; all runs of a variant
 * together take about TOTAL at most; a shorter stretch than STRETCH is filled with several launches. */
static const double PATIENCE = 6, TOTAL = 12, STRETCH = 0.01;
enum { FIRST_ROWS = 256, RUNS = 100 };

/* Returns: CANCELLED after Ctrl-C. */
static clsplat_status step(cli *c, double done) {
    if (progress_step(&c->progress, done))
        return CLSPLAT_OK;
    return log_error(c->lib, CLSPLAT_CANCELLED, "stopped by the user");
}

/* A variant on the stopwatch. */
typedef struct lane {
    bench_result result;
    size_t launches; /* in one stretch */
    double spent, seconds[RUNS];
} lane;

/* Families whose rows may be chosen by name, and the name for what the library chooses. */
static const op_family *const families[] = {&op_softmax_family, &op_write_family, &op_read_family,
                                            &op_gemm_family};
static const char chosen[] = "tuned";

static bool is_listed(const lane *lanes, size_t count, const char *name) {
    for (size_t i = 0; i < count; ++i)
        if (strcmp(lanes[i].result.variant, name) == 0)
            return true;
    return false;
}

static void list(lane *lanes, size_t *count, const char *name) {
    if (*count < BENCH_VARIANTS && !is_listed(lanes, *count, name))
        lanes[(*count)++] = (lane){.result = {.variant = name, .error = NAN}};
}

/* Row 0 comes first: the others are compared with it. */
static size_t list_all(const bench_case *b, lane lanes[BENCH_VARIANTS]) {
    size_t count = 0;
    for (size_t f = 0; f < sizeof families / sizeof *families; ++f)
        for (size_t row = 0; row < families[f]->count; ++row)
            if (bench_case_has(b, families[f]->variants[row].name))
                list(lanes, &count, families[f]->variants[row].name);
    list(lanes, &count, chosen);
    return count;
}

static clsplat_status run(const bench_case *b, const lane *l, size_t launches, double *seconds) {
    clsplat_status status = CLSPLAT_OK;
    queue q;
    b->device->preferred = strcmp(l->result.variant, chosen) == 0 ? NULL : l->result.variant;
    queue_begin(b->device, 0, NULL, &q);
    double start = clock_seconds();
    for (size_t i = 0; i < launches; ++i)
        TRY(bench_case_enqueue(b, l->result.rows, &q));
    TRY(clsplat_device_finish(b->device));
    *seconds = (clock_seconds() - start) / (double)launches;
fail:
    b->device->preferred = NULL;
    return status;
}

/* Builds the kernels, and finds how many rows a run may have and how many runs fill a stretch of time. */
static clsplat_status warm_up(const bench_case *b, lane *l) {
    clsplat_status status = CLSPLAT_OK;
    size_t all = b->request.shape.queries;
    double seconds = 0;
    l->result.rows = all < FIRST_ROWS ? all : FIRST_ROWS;
    TRY(run(b, l, 1, &seconds));
    TRY(run(b, l, 1, &seconds));
    while (l->result.rows < all && 4 * seconds <= PATIENCE) {
        l->result.rows = 4 * l->result.rows < all ? 4 * l->result.rows : all;
        TRY(run(b, l, 1, &seconds));
    }
    l->launches = seconds < STRETCH ? (size_t)fmin(STRETCH / fmax(seconds, 1e-9), 1000) + 1 : 1;
fail:
    return status;
}

/* The last rows of what a variant just computed. */
static clsplat_status results_of(const bench_case *b, size_t rows, float **values, size_t *count) {
    *count = b->q.shape[0] * b->q.shape[1] * rows * b->out.shape[3];
    *values = malloc(*count * sizeof **values);
    if (!*values)
        return log_error(b->device->lib, CLSPLAT_MEMORY, "no memory for %zu results", *count);
    return bench_case_read(b, rows, *values);
}

static double relative_error(const float *a, const float *reference, size_t count) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; ++i) {
        double d = (double)a[i] - (double)reference[i];
        difference += d * d;
        norm += (double)reference[i] * (double)reference[i];
    }
    return isfinite(difference) ? sqrt(difference / fmax(norm, 1e-300)) : INFINITY;
}

/* Warms a variant up and compares its last rows with the reference's, if it has come that far; the first one
 * makes the reference. */
static clsplat_status prepare(const bench_case *b, lane *l, size_t rows, float **reference) {
    clsplat_status status = CLSPLAT_OK;
    float *values = NULL;
    size_t numbers = 0;
    TRY(bench_case_poison(b));
    TRY(warm_up(b, l));
    if (!*reference)
        return results_of(b, l->result.rows, reference, &numbers);
    if (l->result.rows < rows)
        return CLSPLAT_OK;
    TRY(results_of(b, rows, &values, &numbers));
    l->result.error = relative_error(values, *reference, numbers);
fail:
    free(values);
    return status;
}

/* One that fails is left out, unless it is row 0 or the only other. */
static clsplat_status prepare_all(cli *c, const bench_case *b, lane *lanes, size_t *count) {
    clsplat_status status = CLSPLAT_OK;
    float *reference = NULL;
    size_t kept = 0;
    for (size_t i = 0; i < *count; ++i) {
        clsplat_status ready = prepare(b, &lanes[i], lanes[0].result.rows, &reference);
        if (ready == CLSPLAT_OK)
            lanes[kept++] = lanes[i];
        else if (i == 0 || *count == 2)
            TRY(ready);
        else
            log_warning(c->lib, "%s is left out: %s", lanes[i].result.variant, clsplat_last_error(c->lib));
        TRY(step(c, 0.5 * (double)(i + 1) / (double)*count));
    }
    *count = kept;
    lanes[0].result.error = 0;
fail:
    free(reference);
    return status;
}

/* In turns, so that what else the machine does meets all of them. */
static clsplat_status race(cli *c, const bench_case *b, lane *lanes, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    size_t repeat = b->request.repeat < RUNS ? b->request.repeat : RUNS;
    for (size_t turn = 0; turn < repeat; ++turn) {
        for (lane *l = lanes; l < lanes + count; ++l) {
            double *seconds = &l->seconds[l->result.runs];
            if (l->result.runs > 0 && l->spent > TOTAL)
                continue;
            TRY(run(b, l, l->launches, seconds));
            l->spent += *seconds * (double)l->launches;
            ++l->result.runs;
        }
        TRY(step(c, 0.5 + 0.5 * (double)(turn + 1) / (double)repeat));
    }
fail:
    return status;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bench_result finish(lane *l) {
    size_t n = l->result.runs;
    qsort(l->seconds, n, sizeof *l->seconds, ascending);
    l->result.fastest = l->seconds[0];
    l->result.slowest = l->seconds[n - 1];
    l->result.seconds = (l->seconds[(n - 1) / 2] + l->seconds[n / 2]) / 2;
    return l->result;
}

/* Leaves row 0, as the reference, and the variant that is asked for. */
static clsplat_status narrow(cli *c, const char *variant, lane *lanes, size_t *count) {
    text names = {0};
    for (size_t i = 0; i < *count; ++i) {
        if (strcmp(lanes[i].result.variant, variant) == 0) {
            lanes[i > 0] = lanes[i];
            *count = (i > 0) + 1;
            text_free(&names);
            return CLSPLAT_OK;
        }
        text_add(&names, "%s%s", i ? ", " : "", lanes[i].result.variant);
    }
    clsplat_status status = cli_misuse(c, "--variant: no `%s` fits here; there are %s", variant,
                                       text_ok(&names) ? names.data : "others");
    text_free(&names);
    return status;
}

clsplat_status bench_time(cli *c, const bench_case *b, bench_result results[BENCH_VARIANTS], size_t *count) {
    clsplat_status status = CLSPLAT_OK;
    lane *lanes = calloc(BENCH_VARIANTS, sizeof *lanes);
    if (!lanes)
        return log_error(c->lib, CLSPLAT_MEMORY, "no memory for a stopwatch");
    size_t listed = list_all(b, lanes), first = 0;
    if (b->request.variant) {
        TRY(narrow(c, b->request.variant, lanes, &listed));
        first = listed - 1;
    }
    TRY(prepare_all(c, b, lanes, &listed));
    TRY(race(c, b, lanes + first, listed - first));
    *count = listed - first;
    for (size_t i = 0; i < *count; ++i)
        results[i] = finish(&lanes[first + i]);
fail:
    free(lanes);
    return status;
}
