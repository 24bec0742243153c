#include "attention/trial.h"

#include <math.h>
#include <stdlib.h>

#include "op/choose.h"

/* Seconds: what no launch should take, what the default may take on the timed problem, what one timing takes
 * at least. */
static const double LONGEST = 0.25, LONG = 0.06, SHORTEST = 0.005;

static const double bounds[] = {[CLSPLAT_F32] = 2e-5, [CLSPLAT_F16] = 2e-3, [CLSPLAT_BF16] = 1.6e-2};

/* A row of near-far attention may open what another leaves closed, by a rounding error; both keep their
 * tolerance, which is what calls have by default. */
double trial_bound(probe_kind kind, clsplat_dtype dtype) {
    return kind == PROBE_NEAR_FAR ? (double)clsplat_attention_defaults().tolerance : bounds[dtype];
}

/* As many multiply-adds as a slow device does in a quarter of a second by row 0; not round. */
static probe_shape check_shape(probe_kind kind, probe_shape shape) {
    const double enough = 2e7;
    while (probe_pairs(kind, &shape) * (double)(shape.dim + shape.value_dim) > enough &&
           probe_shrink(kind, &shape))
        ;
    shape.queries -= shape.queries > 64 ? 5 : 0;
    shape.keys -= shape.keys > 64 ? 3 : 0;
    return shape;
}

static const op_variant *variant_of(const probe *p, op_choice choice) {
    return &p->family->variants[choice.row];
}

static op_choice default_of(const probe *p) {
    return op_choose_default(&p->device->info.limits, p->family, &p->args);
}

/* Runs a row into fresh results: *values. The caller frees it. */
static clsplat_status run_fresh(probe *p, const op_variant *variant, const tune_point *point,
                                float **values) {
    clsplat_status status = CLSPLAT_OK;
    double seconds;
    *values = NULL;
    TRY(probe_poison(p));
    TRY(probe_run(p, variant, point, 1, &seconds));
    TRY(probe_results(p, values));
fail:
    return status;
}

static clsplat_status compare(probe *p, const float *values, const float *reference, double bound,
                              double *error) {
    double own = probe_error(p, values, reference);
    *error = fmax(*error, own);
    if (own <= bound)
        return CLSPLAT_OK;
    return log_error(p->device->lib, CLSPLAT_OPENCL, "its results are off by %.2g, more than %.2g", own,
                     bound);
}

static clsplat_status check(probe *p, const op_variant *variant, const tune_point *point,
                            const float *reference, double bound, double *error) {
    clsplat_status status = CLSPLAT_OK;
    float *values = NULL;
    TRY(run_fresh(p, variant, point, &values));
    TRY(compare(p, values, reference, bound, error));
fail:
    free(values);
    return status;
}

/* As large as the default does in LONG, judged from one size to the next. */
static clsplat_status make_timed(clsplat_device *device, probe_kind kind, const probe_shape *wanted, trial *t,
                                 double rate) {
    enum { STEPS = 3 };
    clsplat_status status = CLSPLAT_OK;
    probe_shape shape = {0}, last;
    for (int i = 0; i < STEPS; ++i) {
        last = shape;
        shape = *wanted;
        while (probe_pairs(kind, &shape) > LONG * rate && probe_shrink(kind, &shape))
            ;
        if (probe_pairs(kind, &shape) <= probe_pairs(kind, &last))
            break;
        probe_free(&t->timed);
        TRY(probe_create(device, kind, &shape, &t->timed));
        op_choice row = default_of(&t->timed);
        TRY(probe_run(&t->timed, variant_of(&t->timed, row), &row.point, 1, &t->timed_seconds)); /* builds */
        TRY(probe_run(&t->timed, variant_of(&t->timed, row), &row.point, 1, &t->timed_seconds));
        rate = probe_pairs(kind, &shape) / t->timed_seconds;
    }
fail:
    return status;
}

clsplat_status trial_create(clsplat_device *device, probe_kind kind, const probe_shape *shape, trial *made) {
    clsplat_status status = CLSPLAT_OK;
    trial *t = made;
    probe_shape small = check_shape(kind, *shape);
    double error = 0;
    *t = (trial){.bound = trial_bound(kind, shape->dtype)};
    TRY(probe_create(device, kind, &small, &t->check));
    TRY(run_fresh(&t->check, &t->check.family->variants[0], NULL, &t->check_reference));
    op_choice row = default_of(&t->check);
    TRY(check(&t->check, variant_of(&t->check, row), &row.point, t->check_reference, t->bound, &error));
    TRY(probe_run(&t->check, variant_of(&t->check, row), &row.point, 1, &t->check_seconds));
    TRY(make_timed(device, kind, shape, t, probe_pairs(kind, &small) / t->check_seconds));
    t->times = (size_t)fmin(64, ceil(SHORTEST / t->timed_seconds));
    row = default_of(&t->timed);
    TRY(run_fresh(&t->timed, variant_of(&t->timed, row), &row.point, &t->timed_reference));
fail:
    return status;
}

void trial_free(trial *t) {
    probe_free(&t->check);
    probe_free(&t->timed);
    free(t->check_reference);
    free(t->timed_reference);
    *t = (trial){0};
}

bool trial_fits(const trial *t, const op_variant *variant) {
    const clsplat_limits *limits = &t->timed.device->info.limits;
    return variant->fits(limits, &t->timed.args) && variant->fits(limits, &t->check.args);
}

clsplat_status trial_verify(trial *t, const op_variant *variant, const tune_point *point, double *error) {
    clsplat_status status = CLSPLAT_OK;
    double seconds;
    *error = 0;
    TRY(check(&t->check, variant, point, t->check_reference, t->bound, error));
    TRY(probe_run(&t->check, variant, point, 1, &seconds));
    double expected = seconds / t->check_seconds * t->timed_seconds;
    if (expected > LONGEST)
        TRY(log_error(t->check.device->lib, CLSPLAT_UNSUPPORTED, "it would take %.2g s", expected));
    TRY(check(&t->timed, variant, point, t->timed_reference, t->bound, error));
fail:
    return status;
}

clsplat_status trial_time(trial *t, const op_variant *variant, const tune_point *point, double *seconds) {
    return probe_run(&t->timed, variant, point, t->times, seconds);
}
