#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cli/bench.h"

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

/* What the library chooses. */
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
static size_t list_all(const example *e, lane lanes[BENCH_VARIANTS]) {
    size_t count = 0;
    for (const example_part *p = e->parts; p < e->parts + EXAMPLE_PARTS && p->family; ++p)
        for (size_t row = 0; row < p->family->count; ++row)
            if (op_row(p->family, p->family->variants[row].name, &e->device->info.limits, p->args))
                list(lanes, &count, p->family->variants[row].name);
    list(lanes, &count, chosen);
    return count;
}

static clsplat_status run(example *e, const lane *l, size_t launches, double *seconds) {
    example_take(e, l->result.rows);
    return example_call(e, strcmp(l->result.variant, chosen) == 0 ? NULL : l->result.variant, launches,
                        seconds);
}

/* Builds the kernels, and finds how many rows a run may have and how many runs fill a stretch of time. */
static clsplat_status warm_up(example *e, lane *l) {
    clsplat_status status = CLSPLAT_OK;
    size_t all = e->shape.queries;
    double seconds = 0;
    l->result.rows = all < FIRST_ROWS ? all : FIRST_ROWS;
    TRY(run(e, l, 1, &seconds));
    TRY(run(e, l, 1, &seconds));
    while (l->result.rows < all && 4 * seconds <= PATIENCE) {
        l->result.rows = 4 * l->result.rows < all ? 4 * l->result.rows : all;
        TRY(run(e, l, 1, &seconds));
    }
    l->launches = seconds < STRETCH ? (size_t)fmin(STRETCH / fmax(seconds, 1e-9), 1000) + 1 : 1;
    l->result.work = e->kind->work(e);
fail:
    return status;
}

/* Warms a variant up and compares its last rows with the reference's, if it has come that far; the first one
 * makes the reference. Of gradients, those of keys are of the rows that ran: only of all they are compared.
 */
static clsplat_status prepare(example *e, lane *l, size_t rows, float **reference) {
    clsplat_status status = CLSPLAT_OK;
    float *values = NULL;
    TRY(example_poison(e));
    TRY(warm_up(e, l));
    if (!*reference)
        return example_results(e, reference);
    if (l->result.rows < rows)
        return CLSPLAT_OK;
    example_take(e, rows);
    TRY(example_results(e, &values));
    l->result.error = example_error(e, values, *reference);
fail:
    free(values);
    return status;
}

/* One that fails is left out, unless it is row 0 or the only other. */
static clsplat_status prepare_all(cli *c, example *e, lane *lanes, size_t *count) {
    clsplat_status status = CLSPLAT_OK;
    float *reference = NULL;
    size_t kept = 0;
    for (size_t i = 0; i < *count; ++i) {
        clsplat_status ready = prepare(e, &lanes[i], lanes[0].result.rows, &reference);
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
static clsplat_status race(cli *c, example *e, size_t repeat, lane *lanes, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    for (size_t turn = 0; turn < repeat; ++turn) {
        for (lane *l = lanes; l < lanes + count; ++l) {
            double *seconds = &l->seconds[l->result.runs];
            if (l->result.runs > 0 && l->spent > TOTAL)
                continue;
            TRY(run(e, l, l->launches, seconds));
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

clsplat_status bench_time(cli *c, const bench_request *request, example *e,
                          bench_result results[BENCH_VARIANTS], size_t *count) {
    clsplat_status status = CLSPLAT_OK;
    lane *lanes = calloc(BENCH_VARIANTS, sizeof *lanes);
    if (!lanes)
        return log_error(c->lib, CLSPLAT_MEMORY, "no memory for a stopwatch");
    size_t listed = list_all(e, lanes), first = 0;
    if (request->variant) {
        TRY(narrow(c, request->variant, lanes, &listed));
        first = listed - 1;
    }
    TRY(prepare_all(c, e, lanes, &listed));
    TRY(race(c, e, request->repeat < RUNS ? request->repeat : RUNS, lanes + first, listed - first));
    *count = listed - first;
    for (size_t i = 0; i < *count; ++i)
        results[i] = finish(&lanes[first + i]);
fail:
    free(lanes);
    return status;
}
