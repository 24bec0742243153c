#include "op/tree/wanted.h"

#include "op/families.h"
#include "op/tree/near_far.h"

clsplat_status op_wanted(queue *q, const op_wanted_args *a) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = a->forward.forest;
    const size_t *rows = a->forward.q.shape;
    op_near_far_args forward = a->forward;
    kernel_options o;
    launch l;
    forward.kept = a->kept;
    TRY(op_near_far(q, &forward));
    forward.kept = NULL;
    TRY(queue_fill(q, a->wanted, 0, f->batch * f->heads * f->first_block[f->levels] * sizeof(cl_uint), 0.0f));
    options_begin(&o, q->device);
    options_near_far(&o, &forward);
    options_elements(&o, OP_KEPT * (double)(rows[0] * rows[1] * rows[2]));
    TRY(options_launch(&o, q->device, "wanted.cl", "wanted_nodes", &l));
    launch_near_far_inputs(&l, &o, &forward);
    launch_mem(&l, "kept", a->kept);
    launch_float(&l, "ease", a->ease);
    launch_mem(&l, "here", a->here);
    launch_mem(&l, "wanted", a->wanted);
    TRY(launch_run(&l, q, grid_of(rows[2], rows[1], rows[0], o.group), near_far_work(&forward)));
fail:
    return status;
}
