#include <math.h>
#include <stdio.h>

#include "cli/bench.h"
#include "cli/report.h"

/* A result's rates, per second, and what share of the device's best they are. */
typedef struct rates {
    double flops, bytes, of_flops, of_bytes;
} rates;

static rates rates_of(const op_peak *peak, const bench_result *r) {
    double flops = r->work.flops / r->seconds, bytes = r->work.bytes / r->seconds;
    return (rates){flops, bytes, flops / peak->flops, bytes / peak->bytes};
}

static void print_heading(const bench_request *q) {
    const example_shape *s = &q->shape;
    const example_kind *kind = q->operation->kind;
    printf("%s%s, %s, B %zu, H %zu, N %zu, M %zu, D %zu", q->operation->name, s->causal ? ", causal" : "",
           bench_dtype_names[s->dtype], s->batch, s->heads, s->queries, s->keys, s->dim);
    if (!kind->product)
        printf(", Dv %zu", s->value_dim);
    if (kind->of_splats)
        printf(", S %zu", s->splats);
    printf("\n  %-10s %10s %18s %10s %8s %8s %8s %9s\n", "variant", "ms", "from - to", "GFLOP/s", "of peak",
           "GB/s", "of copy", "error");
}

void bench_print(const bench_request *q, const op_peak *peak, const bench_result *results, size_t count) {
    size_t all = q->shape.queries;
    print_heading(q);
    for (const bench_result *r = results; r < results + count; ++r) {
        rates rate = rates_of(peak, r);
        char spread[40], error[16] = "-";
        snprintf(spread, sizeof spread, "%.3g - %.3g", 1e3 * r->fastest, 1e3 * r->slowest);
        if (!isnan(r->error))
            snprintf(error, sizeof error, "%.1e", r->error);
        printf("  %-10s %10.3f %18s %10.1f %6.1f %% %8.2f %6.1f %% %9s%s\n", r->variant, 1e3 * r->seconds,
               spread, 1e-9 * rate.flops, 100 * rate.of_flops, 1e-9 * rate.bytes, 100 * rate.of_bytes, error,
               r->rows < all ? " *" : "");
    }
    for (const bench_result *r = results; r < results + count; ++r)
        if (r->rows < all)
            printf("  * %s: only the last %zu of the %zu rows, since all would take too long\n", r->variant,
                   r->rows, all);
    putchar('\n');
}

static json_t *result_json(const bench_request *q, const op_peak *peak, const bench_result *r) {
    const example_shape *s = &q->shape;
    rates rate = rates_of(peak, r);
    json_t *shape =
        json_pack("[I,I,I,I,I,I,I]", (json_int_t)s->batch, (json_int_t)s->heads, (json_int_t)s->queries,
                  (json_int_t)s->keys, (json_int_t)s->dim, (json_int_t)s->value_dim, (json_int_t)s->splats);
    json_t *object = json_pack(
        "{s:s, s:o, s:s, s:b, s:s, s:I, s:I, s:f, s:f, s:f, s:o, s:f, s:o, s:o, s:f}", "op",
        q->operation->name, "shape", shape, "dtype", bench_dtype_names[s->dtype], "causal", s->causal,
        "variant", r->variant, "rows", (json_int_t)r->rows, "runs", (json_int_t)r->runs, "seconds",
        r->seconds, "fastest", r->fastest, "slowest", r->slowest, "gflops", report_number(1e-9 * rate.flops),
        "peak_gflops", 1e-9 * peak->flops, "fraction_of_peak", report_number(rate.of_flops), "gbytes",
        report_number(1e-9 * rate.bytes), "peak_gbytes", 1e-9 * peak->bytes);
    return json_put(object, "error", report_number(r->error));
}

void bench_append(void *list, const bench_request *q, const op_peak *peak, const bench_result *results,
                  size_t count) {
    json_t **array = list;
    for (size_t i = 0; i < count; ++i)
        *array = json_push(*array, result_json(q, peak, &results[i]));
}
