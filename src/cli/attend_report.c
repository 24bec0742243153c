#include <math.h>
#include <stdio.h>

#include "cli/attend.h"
#include "cli/report.h"

static const char *mixing_name(const clsplat_attention *a) {
    return a->mixing == CLSPLAT_JOINT ? "joint" : "per-level";
}

void attend_sum_near_far(const attend_problem *p, size_t rows, double sums[2]) {
    sums[0] = sums[1] = 0;
    for (size_t row = 0; row < rows; ++row) {
        sums[0] += p->exact_keys[row];
        sums[1] += (double)p->error_estimate[row];
    }
}

/* Of the keys that the rows may see, those attended exactly; and the rows' mean estimate. */
static void share_near_far(const clsplat_attention *a, const attend_problem *p, const attend_cost *cost,
                           double *share, double *estimate) {
    const size_t *q = p->q.tensor.shape;
    size_t rows = q[0] * q[1] * q[2], keys = p->k.tensor.shape[2];
    double visible = 0, sums[2] = {cost->near_far[0], cost->near_far[1]};
    for (size_t row = 0; row < rows; ++row)
        visible += a->causal ? fmax((double)(row % q[2]) + (double)keys - (double)q[2] + 1, 0) : (double)keys;
    if (!cost->ranks)
        attend_sum_near_far(p, rows, sums);
    *share = visible > 0 ? sums[0] / visible : 0;
    *estimate = sums[1] / (double)rows;
}

static double kernel_seconds(const attend_cost *cost) {
    double seconds = 0;
    for (size_t i = 0; i < cost->kernel_count; ++i)
        seconds += cost->kernels[i].seconds;
    return seconds;
}

static json_t *kernels_json(const attend_cost *cost) {
    json_t *rows = json_array();
    for (size_t i = 0; i < cost->kernel_count; ++i) {
        const clsplat_profile_row *k = &cost->kernels[i];
        rows = json_push(rows, json_pack("{s:s, s:I, s:f, s:f, s:f, s:b}", "name", k->kernel, "launches",
                                         (json_int_t)k->launches, "seconds", k->seconds, "flops", k->flops,
                                         "bytes", k->bytes, "wall_clock", k->wall_clock));
    }
    return rows;
}

static json_t *shape_json(const attend_problem *p) {
    const size_t *q = p->q.tensor.shape, *k = p->k.tensor.shape;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "batch", (json_int_t)q[0], "heads",
                     (json_int_t)q[1], "kv_heads", (json_int_t)k[1], "queries", (json_int_t)q[2], "keys",
                     (json_int_t)k[2], "dim", (json_int_t)q[3], "value_dim",
                     (json_int_t)p->v.tensor.shape[3]);
}

static json_t *splats_json(clsplat_splats *splats) {
    clsplat_splats_shape s = clsplat_splats_get(splats).shape;
    return json_pack("{s:s, s:I, s:I, s:I}", "covariance", report_covariance(s.covariance), "heads",
                     (json_int_t)s.heads, "count", (json_int_t)s.count, "levels", (json_int_t)s.levels);
}

static json_t *devices_json(const attend_cost *cost) {
    json_t *rows = json_array();
    for (size_t i = 0; i < clsplat_group_count(cost->group); ++i) {
        clsplat_group_share s = clsplat_group_share_of(cost->group, i);
        const char *name = clsplat_device_describe(clsplat_group_device(cost->group, i))->name;
        rows = json_push(rows, json_pack("{s:o, s:f, s:f, s:I}", "device", report_text(name), "share",
                                         s.share, "seconds", s.seconds, "units", (json_int_t)s.units));
    }
    return rows;
}

static json_t *ranks_json(const attend_cost *cost) {
    return json_pack("{s:I, s:I, s:I, s:f, s:f}", "count", (json_int_t)cost->ranks, "sent_most",
                     (json_int_t)cost->most_sent, "sent", (json_int_t)cost->all_sent, "waited_most",
                     cost->most_waited, "seconds_least", cost->least_seconds);
}

static clsplat_status print_json(cli *c, const clsplat_device *device, const clsplat_attention *a,
                                 const attend_problem *p, const attend_cost *cost) {
    json_t *report =
        json_pack("{s:s, s:b, s:o, s:f, s:f, s:I, s:o, s:o}", "method", attend_methods[a->method], "causal",
                  a->causal, "device", report_text(clsplat_device_describe(device)->name), "seconds",
                  cost->seconds, "kernel_seconds", kernel_seconds(cost), "device_memory_peak",
                  (json_int_t)cost->memory.peak, "shape", shape_json(p), "kernels", kernels_json(cost));
    if (p->splats) {
        report = json_put(report, "mixing", json_string(mixing_name(a)));
        report = json_put(report, "splats", splats_json(p->splats));
    }
    if (cost->ranks)
        report = json_put(report, "ranks", ranks_json(cost));
    if (cost->group)
        report = json_put(report, "devices", devices_json(cost));
    if (p->grad.dout.entry)
        report = json_put(report, "backward_seconds", json_real(cost->backward_seconds));
    if (a->method == CLSPLAT_NEAR_FAR) {
        double share, estimate;
        share_near_far(a, p, cost, &share, &estimate);
        report = json_put(report, "tolerance", report_number((double)a->tolerance));
        report = json_put(report, "exact_keys_share", report_number(share));
        report = json_put(report, "error_estimate", report_number(estimate));
    }
    return report_json(c, report);
}

static void print_kernels(const attend_cost *cost) {
    printf("  %-22s %8s %10s %9s %8s\n", "kernel", "launches", "ms", "GFLOP/s", "GB/s");
    for (size_t i = 0; i < cost->kernel_count; ++i) {
        const clsplat_profile_row *k = &cost->kernels[i];
        double seconds = fmax(k->seconds, 1e-9);
        printf("  %-22s %8llu %10.3f %9.1f %8.1f%s\n", k->kernel, (unsigned long long)k->launches,
               1e3 * k->seconds, 1e-9 * k->flops / seconds, 1e-9 * k->bytes / seconds,
               k->wall_clock ? "  by the wall clock" : "");
    }
}

static clsplat_status print_lines(cli *c, const clsplat_device *device, const clsplat_attention *a,
                                  const attend_problem *p, const attend_cost *cost) {
    const size_t *q = p->q.tensor.shape, *k = p->k.tensor.shape;
    char memory[REPORT_BYTES], most[REPORT_BYTES];
    printf("%s attention%s on %s\n", attend_methods[a->method], a->causal ? ", causal," : "",
           clsplat_device_describe(device)->name);
    printf("  %zu × %zu heads (%zu for keys), %zu queries, %zu keys, D %zu, Dv %zu\n", q[0], q[1], k[1], q[2],
           k[2], q[3], p->v.tensor.shape[3]);
    if (p->splats) {
        clsplat_splats_shape s = clsplat_splats_get(p->splats).shape;
        printf("  %zu splats of %s covariance in %zu levels, %s; %s mixing\n", s.count,
               report_covariance(s.covariance), s.levels,
               s.heads == 1 ? "shared by the heads" : "for each head", mixing_name(a));
    }
    if (a->method == CLSPLAT_NEAR_FAR) {
        double share, estimate;
        share_near_far(a, p, cost, &share, &estimate);
        printf("  tolerance %g: %.2f %% of the keys exact, a mean error of %.2g expected\n",
               (double)a->tolerance, 100 * share, estimate);
    }
    printf("  %.3f s, of which %.3f s in kernels; %s of device memory at most\n", cost->seconds,
           kernel_seconds(cost), report_bytes(cost->memory.peak, memory));
    for (size_t i = 0; cost->group && i < clsplat_group_count(cost->group); ++i) {
        clsplat_group_share s = clsplat_group_share_of(cost->group, i);
        printf("  %s: %.1f %% of the work, %.3f s\n",
               clsplat_device_describe(clsplat_group_device(cost->group, i))->name, 100 * s.share, s.seconds);
    }
    if (cost->ranks)
        printf("  %zu ranks: %s sent in all, %s at most by one, which waited %.3f s at most\n", cost->ranks,
               report_bytes(cost->all_sent, memory), report_bytes(cost->most_sent, most), cost->most_waited);
    if (p->grad.dout.entry)
        printf("  %.3f s more for the gradients\n", cost->backward_seconds);
    print_kernels(cost);
    return cli_flush(c);
}

clsplat_status attend_report(cli *c, const clsplat_device *device, const clsplat_attention *attention,
                             const attend_problem *problem, const attend_cost *cost) {
    if (c->json)
        return print_json(c, device, attention, problem, cost);
    return c->verbose ? print_lines(c, device, attention, problem, cost) : CLSPLAT_OK;
}
