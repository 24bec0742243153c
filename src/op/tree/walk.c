#include "op/tree/walk.h"

#include "op/families.h"
#include "op/tree/near_far.h"

static clsplat_status attend(queue *q, const op_walk_args *a) {
    op_near_far_args forward = a->forward;
    forward.kept = a->kept;
    return op_run(q, op_row(&op_near_far_family, "plain", &q->device->info.limits, &forward), NULL, &forward);
}

clsplat_status op_walk(queue *q, const op_walk_args *a) {
    clsplat_status status = CLSPLAT_OK;
    const size_t *rows = a->forward.q.shape;
    kernel_options o;
    launch l;
    TRY(attend(q, a));
    options_begin(&o, q->device);
    options_near_far(&o, &a->forward);
    options_elements(&o, OP_TOLD * (double)a->most * (double)(rows[0] * rows[1] * rows[2]));
    TRY(options_launch(&o, q->device, "walk.cl", "walk_rows", &l));
    launch_near_far_inputs(&l, &o, &a->forward);
    launch_mem(&l, "kept", a->kept);
    launch_uint(&l, "most", (uint32_t)a->most);
    launch_mem(&l, "counts", a->counts);
    launch_mem(&l, "told", a->told);
    TRY(launch_run(&l, q, grid_of(rows[2], rows[1], rows[0], o.group), near_far_work(&a->forward)));
fail:
    return status;
}
