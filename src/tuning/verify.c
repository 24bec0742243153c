#include "tuning/verify.h"

#include <math.h>
#include <stdlib.h>

#include "op/choose.h"

/* Seconds: what no launch should take, what the default may take on the timed problem, what one timing takes
 * at least. */
static const double LONGEST = 0.25, LONG = 0.06, SHORTEST = 0.005;

static const double bounds[] = {[CLSPLAT_F32] = 2e-5, [CLSPLAT_F16] = 2e-3, [CLSPLAT_BF16] = 1.6e-2};

/* A row of near-far attention may open what another leaves closed, by a rounding error; both keep their
 * tolerance, which is what calls have by default. */
double verify_bound(const example_kind *kind, clsplat_dtype dtype) {
    return kind->tolerant ? (double)clsplat_attention_defaults().tolerance : bounds[dtype];
}

/* As many multiply-adds as a slow device does in a quarter of a second by row 0; not round. */
static example_shape check_shape(const example_kind *kind, example_shape shape) {
    const double enough = 2e7;
    while (example_pairs(kind, &shape) * (double)(shape.dim + shape.value_dim) > enough &&
           example_shrink(kind, &shape))
        ;
    shape.queries -= shape.queries > 64 ? 5 : 0;
    shape.keys -= shape.keys > 64 ? 3 : 0;
    return shape;
}

static const op_variant *variant_of(const example *e, op_choice choice) {
    return &e->family->variants[choice.row];
}

static op_choice default_of(const example *e) {
    return op_choose_default(&e->device->info.limits, e->family, &e->args);
}

static clsplat_status compare(example *e, const float *values, const float *reference, double bound,
                              double *error) {
    double own = example_error(e, values, reference);
    *error = fmax(*error, own);
    if (own <= bound)
        return CLSPLAT_OK;
    return log_error(e->device->lib, CLSPLAT_OPENCL, "its results are off by %.2g, more than %.2g", own,
                     bound);
}

static clsplat_status check(example *e, const op_variant *variant, const tune_point *point,
                            const float *reference, double bound, double *error) {
    clsplat_status status = CLSPLAT_OK;
    float *values = NULL;
    TRY(example_fresh(e, variant, point, &values));
    TRY(compare(e, values, reference, bound, error));
fail:
    free(values);
    return status;
}

/* As large as the default does in LONG, judged from one size to the next. */
static clsplat_status make_timed(clsplat_device *device, const example_kind *kind,
                                 const example_shape *wanted, verification *t, double rate) {
    enum { STEPS = 3 };
    clsplat_status status = CLSPLAT_OK;
    example_shape shape = {0}, last;
    for (int i = 0; i < STEPS; ++i) {
        last = shape;
        shape = *wanted;
        while (example_pairs(kind, &shape) > LONG * rate && example_shrink(kind, &shape))
            ;
        if (example_pairs(kind, &shape) <= example_pairs(kind, &last))
            break;
        example_free(&t->timed);
        TRY(example_create(device, kind, &shape, &t->timed));
        op_choice row = default_of(&t->timed);
        TRY(example_run(&t->timed, variant_of(&t->timed, row), &row.point, 1,
                        &t->timed_seconds)); /* builds */
        TRY(example_run(&t->timed, variant_of(&t->timed, row), &row.point, 1, &t->timed_seconds));
        rate = example_pairs(kind, &shape) / t->timed_seconds;
    }
fail:
    return status;
}

clsplat_status verify_create(clsplat_device *device, const example_kind *kind, const example_shape *shape,
                             verification *made) {
    clsplat_status status = CLSPLAT_OK;
    verification *t = made;
    example_shape small = check_shape(kind, *shape);
    double error = 0;
    *t = (verification){.bound = verify_bound(kind, shape->dtype)};
    TRY(example_create(device, kind, &small, &t->check));
    TRY(example_fresh(&t->check, &t->check.family->variants[0], NULL, &t->check_reference));
    op_choice row = default_of(&t->check);
    TRY(check(&t->check, variant_of(&t->check, row), &row.point, t->check_reference, t->bound, &error));
    TRY(example_run(&t->check, variant_of(&t->check, row), &row.point, 1, &t->check_seconds));
    TRY(make_timed(device, kind, shape, t, example_pairs(kind, &small) / t->check_seconds));
    t->times = (size_t)fmin(64, ceil(SHORTEST / t->timed_seconds));
    row = default_of(&t->timed);
    TRY(example_fresh(&t->timed, variant_of(&t->timed, row), &row.point, &t->timed_reference));
fail:
    return status;
}

void verify_free(verification *t) {
    example_free(&t->check);
    example_free(&t->timed);
    free(t->check_reference);
    free(t->timed_reference);
    *t = (verification){0};
}

bool verify_fits(const verification *t, const op_variant *variant) {
    const clsplat_limits *limits = &t->timed.device->info.limits;
    return variant->fits(limits, &t->timed.args) && variant->fits(limits, &t->check.args);
}

clsplat_status verify_row(verification *t, const op_variant *variant, const tune_point *point,
                          double *error) {
    clsplat_status status = CLSPLAT_OK;
    double seconds;
    *error = 0;
    TRY(check(&t->check, variant, point, t->check_reference, t->bound, error));
    TRY(example_run(&t->check, variant, point, 1, &seconds));
    double expected = seconds / t->check_seconds * t->timed_seconds;
    if (expected > LONGEST)
        TRY(log_error(t->check.device->lib, CLSPLAT_UNSUPPORTED, "it would take %.2g s", expected));
    TRY(check(&t->timed, variant, point, t->timed_reference, t->bound, error));
fail:
    return status;
}

clsplat_status verify_time(verification *t, const op_variant *variant, const tune_point *point,
                           double *seconds) {
    return example_run(&t->timed, variant, point, t->times, seconds);
}
