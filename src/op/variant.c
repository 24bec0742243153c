#include "op/variant.h"

#include <assert.h>

#include "op/families.h"

const op_family *const op_families[] = {&op_softmax_family, &op_write_family, &op_scan_family,
                                        &op_respond_family, &op_read_family};
const size_t op_family_count = sizeof op_families / sizeof *op_families;

bool op_fits_all(const clsplat_limits *limits, const void *args) {
    (void)limits, (void)args;
    return true;
}

clsplat_status op_dispatch(queue *q, const op_family *family, const void *args) {
    size_t row = family->count - 1;
    while (row > 0 && !family->variants[row].fits(&q->device->info.limits, args))
        --row;
    assert(family->variants[row].fits(&q->device->info.limits, args));
    return family->variants[row].run(q, args);
}
