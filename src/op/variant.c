#include "op/variant.h"

#include <assert.h>
#include <string.h>

#include "op/choose.h"
#include "op/families.h"

#define X(name) &op_##name##_family,
const op_family *const op_families[] = {OP_FAMILIES(X)};
#undef X
const size_t op_family_count = sizeof op_families / sizeof *op_families;

bool op_fits_all(const clsplat_limits *limits, const void *args) {
    (void)limits, (void)args;
    return true;
}

const op_variant *op_row(const op_family *family, const char *name, const clsplat_limits *limits,
                         const void *args) {
    for (size_t row = 0; row < family->count; ++row)
        if (strcmp(family->variants[row].name, name) == 0 && family->variants[row].fits(limits, args))
            return &family->variants[row];
    return NULL;
}

bool op_lists(const op_family *family, const char *name, text *names) {
    bool listed = false;
    for (size_t row = 0; row < family->count; ++row) {
        listed = listed || strcmp(family->variants[row].name, name) == 0;
        text_add(names, "%s%s", row ? ", " : "", family->variants[row].name);
    }
    return listed;
}

clsplat_status op_run(queue *q, const op_variant *variant, const tune_point *point, const void *args) {
    const uint32_t *outer = q->tuned;
    tune_point defaults = tune_default(variant->space, &q->device->info.limits);
    assert(variant->fits(&q->device->info.limits, args));
    q->tuned = point ? point->value : defaults.value;
    clsplat_status status = variant->run(q, args);
    q->tuned = outer;
    return status;
}

/* A compiler, or a device, that nobody has tried the row with: it does not build, or asks for more than there
 * is. Either shows before anything is written. */
static bool gives_way(clsplat_status status) {
    return status == CLSPLAT_BUILD || status == CLSPLAT_UNSUPPORTED;
}

clsplat_status op_dispatch(queue *q, const op_family *family, const void *args) {
    const clsplat_limits *limits = &q->device->info.limits;
    const op_variant *wanted = q->variant ? op_row(family, q->variant, limits, args) : NULL;
    if (wanted)
        return op_run(q, wanted, NULL, args);
    op_choice choice = op_choose(q->device, family, args);
    clsplat_status status = op_run(q, &family->variants[choice.row], &choice.point, args);
    while (gives_way(status) && choice.row > 0) {
        const char *failed = family->variants[choice.row].name;
        choice = op_choose_below(q->device, family, args, choice.row);
        log_warning(q->device->lib, "the variant `%s` of %s does not run here; `%s` takes its place: %.200s",
                    failed, family->name, family->variants[choice.row].name,
                    clsplat_last_error(q->device->lib));
        status = op_run(q, &family->variants[choice.row], &choice.point, args);
    }
    return status;
}
