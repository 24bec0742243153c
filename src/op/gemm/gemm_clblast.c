/* The one file that knows CLBlast. */
#include <clblast_c.h>

#include "base/clock.h"
#include "op/gemm/gemm.h"
#include "op/kernel.h"
#include "runtime/profile.h"

/* CLBlast refuses rows that overlap. */
static bool rows_are_apart(const op_tensor *t) {
    return t->shape[2] == 1 || t->stride[2] >= t->shape[3];
}

/* F32 alone: CLBlast sums halves in half precision, which is not what op_gemm promises. */
bool gemm_clblast_fits(const clsplat_limits *limits, const void *args) {
    const op_gemm_args *a = args;
    (void)limits;
    return a->a.dtype == CLSPLAT_F32 && a->b.dtype == CLSPLAT_F32 && a->c.dtype == CLSPLAT_F32 &&
           rows_are_apart(&a->a) && rows_are_apart(&a->b);
}

/* Of CLBlast's kernel for large matrices; the tile of a work-group, its work-items, and their vectors. Where
 * all are 0 CLBlast's own database decides. */
enum { MWG, NWG, MDIM, NDIM, VWM, VWN, PARAMETERS };
static const uint32_t usual[PARAMETERS] = {64, 64, 16, 8, 4, 4};

static uint32_t value_of(const tune_point *point, size_t parameter) {
    return point->value[parameter] ? point->value[parameter] : usual[parameter];
}

enum { DEPTH = 32 }; /* KWG: of the tiles in local memory */

/* The conditions that CLBlast's own tuner sets. */
/* The default is CLBlast's own choice, which knows the device. */
static bool is_default(const tune_point *point) {
    for (size_t p = 0; p < PARAMETERS; ++p)
        if (point->value[p])
            return false;
    return true;
}

static bool allows(const clsplat_limits *limits, const tune_point *point) {
    if (is_default(point))
        return true;
    uint32_t mwg = value_of(point, MWG), nwg = value_of(point, NWG);
    uint32_t mdim = value_of(point, MDIM), ndim = value_of(point, NDIM);
    uint64_t local = sizeof(float) * DEPTH * (uint64_t)(mwg + nwg);
    return mwg % (mdim * value_of(point, VWM)) == 0 && nwg % (ndim * value_of(point, VWN)) == 0 &&
           mdim * ndim <= limits->max_work_group &&
           (limits->local_memory == 0 || local <= limits->local_memory);
}

const tune_space gemm_clblast_space = {PARAMETERS,
                                       {{"MWG", {0, 32, 64, 128}},
                                        {"NWG", {0, 32, 64, 128}},
                                        {"MDIMC", {0, 8, 16, 32}},
                                        {"NDIMC", {0, 8, 16, 32}},
                                        {"VWM", {0, 1, 2, 4, 8}},
                                        {"VWN", {0, 1, 2, 4, 8}}},
                                       allows};

/* All that its kernel wants to know. */
static CLBlastStatusCode tell(const clsplat_device *device, const tune_point *point) {
    size_t mdim = value_of(point, MDIM), ndim = value_of(point, NDIM);
    size_t shared = device->info.limits.local_memory > 0;
    const struct {
        const char *name;
        size_t value;
    } all[] = {
        {"GEMMK", 0},
        {"KREG", 1},
        {"KWG", DEPTH},
        {"KWI", 2},
        {"MDIMA", mdim},
        {"MDIMC", mdim},
        {"NDIMB", ndim},
        {"NDIMC", ndim},
        {"MWG", value_of(point, MWG)},
        {"NWG", value_of(point, NWG)},
        {"VWM", value_of(point, VWM)},
        {"VWN", value_of(point, VWN)},
        {"SA", shared},
        {"SB", shared},
        {"STRM", 0},
        {"STRN", 0},
    };
    enum { COUNT = sizeof all / sizeof *all };
    const char *names[COUNT];
    size_t values[COUNT];
    for (size_t i = 0; i < COUNT; ++i) {
        names[i] = all[i].name;
        values[i] = all[i].value;
    }
    return CLBlastOverrideParameters(device->id, "Xgemm", CLBlastPrecisionSingle, COUNT, names, values);
}

/* CLBlast keeps programs per context, and with them the context; letting go of it lets go of them. */
static void forget(void *told) {
    (void)told;
    CLBlastClearCache();
}

/* What CLBlast was told about a device last; 0s: nothing. */
static const device_keeper keeper = {PARAMETERS * sizeof(uint32_t), forget, .by_limits = false};

/* Tells CLBlast only what it does not know yet, since it throws its programs away each time. It cannot be
 * told to forget: after that, 0s are the usual values. */
static clsplat_status override(const queue *q) {
    clsplat_device *device = q->device;
    uint32_t *told = device_keep(device, &keeper);
    tune_point point = {{0}};
    if (!told)
        return log_error(device->lib, CLSPLAT_MEMORY, "no memory for what CLBlast is told");
    bool wanted = false, known = true;
    for (size_t p = 0; p < PARAMETERS; ++p) {
        point.value[p] = tuned_value(q, &gemm_clblast_space, p);
        wanted = wanted || point.value[p] || told[p];
        known = known && told[p] == value_of(&point, p);
    }
    if (!wanted || known)
        return CLSPLAT_OK;
    CLBlastStatusCode code = tell(device, &point);
    if (code != CLBlastSuccess)
        return log_error(device->lib, CLSPLAT_UNSUPPORTED, "CLBlast refuses its parameters: code %d",
                         (int)code);
    for (size_t p = 0; p < PARAMETERS; ++p)
        told[p] = value_of(&point, p);
    return CLSPLAT_OK;
}

/* CLBlast takes no wait-list: a barrier waits for it. */
static clsplat_status wait_first(queue *q) {
    clsplat_status status = CLSPLAT_OK;
    queue_waits waits = {0};
    cl_event event = NULL;
    TRY(queue_waits_take(q, &waits));
    if (waits.count == 0)
        return CLSPLAT_OK;
    cl_int code = clEnqueueBarrierWithWaitList(q->device->queue, waits.count, waits.list, &event);
    TRY(queue_pushed(q, &waits, "clEnqueueBarrierWithWaitList", code, event));
fail:
    return status;
}

static size_t row_of(const op_tensor *t, size_t batch, size_t head) {
    return t->offset + batch * t->stride[0] + head * t->stride[1];
}

/* A row's pitch; CLBlast checks it even where there is only one row. */
static size_t pitch_of(const op_tensor *t) {
    return t->shape[2] == 1 ? t->shape[3] : t->stride[2];
}

static clsplat_status multiply(queue *q, const op_gemm_args *a, size_t batch, size_t head) {
    clsplat_status status = CLSPLAT_OK;
    cl_event event = NULL;
    queue_waits waits = {0};
    TRY(wait_first(q));
    CLBlastStatusCode code =
        CLBlastSgemm(CLBlastLayoutRowMajor, CLBlastTransposeNo, CLBlastTransposeYes, a->c.shape[2],
                     a->c.shape[3], a->a.shape[3], 1, a->a.mem, row_of(&a->a, batch, head), pitch_of(&a->a),
                     a->b.mem, row_of(&a->b, batch, head), pitch_of(&a->b), 0, a->c.mem,
                     row_of(&a->c, batch, head), pitch_of(&a->c), &q->device->queue, &event);
    if ((int)code <= CLBlastNotImplemented)
        return log_error(q->device->lib, CLSPLAT_OPENCL, "CLBlastSgemm failed with its code %d", (int)code);
    TRY(queue_pushed(q, &waits, "CLBlastSgemm", (cl_int)code, event));
fail:
    return status;
}

static clsplat_status multiply_all(queue *q, const op_gemm_args *a) {
    clsplat_status status = CLSPLAT_OK;
    TRY(override(q));
    for (size_t batch = 0; batch < a->c.shape[0]; ++batch)
        for (size_t head = 0; head < a->c.shape[1]; ++head)
            TRY(multiply(q, a, batch, head));
fail:
    return status;
}

clsplat_status gemm_clblast_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    if (!profile_is_on(q->device))
        return multiply_all(q, args);
    /* It is several kernels of CLBlast's, of which only the last has an event: the clock on the wall. */
    TRY(clsplat_device_finish(q->device));
    double start = clock_seconds();
    TRY(multiply_all(q, args));
    TRY(clsplat_device_finish(q->device));
    TRY(profile_add(q->device, "clblast", gemm_work(args), NULL, clock_seconds() - start));
fail:
    return status;
}
