/* The end of near-far attention's gradients: from slots to keys. */
#include <string.h>

#include "op/tree/near_far_backward.h"

/* A work-item for each slot that chunks have room for. */
static clsplat_status run_places(const near_far_back *p, const char *kernel) {
    clsplat_status status = CLSPLAT_OK;
    const op_near_far_backward_args *a = p->a;
    const op_forest *f = a->forest;
    kernel_options o;
    launch l;
    options_plain(&o, p->q);
    options_forest(&o, f);
    options_number(&o, "BIAS", a->key_bias.mem != NULL);
    options_tensor(&o, "K", &a->k);
    options_tensor(&o, "V", &a->v);
    if (a->key_bias.mem)
        options_tensor(&o, "BIAS", &a->key_bias);
    options_elements(&o, 2 * (double)(f->batch * f->heads * f->chunks * f->chunk));
    TRY(options_launch(&o, p->q->device, "near_far_back_places.cl", kernel, &l));
    launch_uint(&l, "keys", (uint32_t)p->forward.keys);
    launch_forest_shape(&l, f);
    launch_tensor(&l, &o, "k", &a->k);
    launch_tensor(&l, &o, "v", &a->v);
    if (a->key_bias.mem)
        launch_tensor(&l, &o, "bias", &a->key_bias);
    launch_forest_keys(&l, f);
    launch_mem(&l, "apart", f->apart);
    launch_mem(&l, "hashes", p->mem[BACK_HASHES]);
    if (strcmp(kernel, "near_far_back_places") == 0)
        launch_mem(&l, "places", p->mem[BACK_PLACES]);
    TRY(launch_run(&l, p->q, grid_of(f->chunks * f->chunk, f->heads, f->batch, o.group), (work){0}));
fail:
    return status;
}

clsplat_status near_far_back_places(const near_far_back *p) {
    clsplat_status status = CLSPLAT_OK;
    TRY(run_places(p, "near_far_back_hashes"));
    TRY(run_places(p, "near_far_back_places"));
fail:
    return status;
}

void options_near_far_keys(kernel_options *o, const op_near_far_backward_args *a) {
    options_tensor(o, "DK", &a->dk);
    options_tensor(o, "DV", &a->dv);
    options_optional(o, "DBIAS", &a->dkey_bias);
}

clsplat_status run_near_far_keys(launch *l, const kernel_options *o, const near_far_back *p) {
    const op_near_far_backward_args *a = p->a;
    launch_mem(l, "slot_sums", p->mem[BACK_SLOTS]);
    launch_mem(l, "places", p->mem[BACK_PLACES]);
    launch_tensor(l, o, "dk", &a->dk);
    launch_tensor(l, o, "dv", &a->dv);
    if (a->dkey_bias.mem)
        launch_tensor(l, o, "dbias", &a->dkey_bias);
    return launch_run(l, p->q, grid_of(a->k.shape[2], a->k.shape[1], a->k.shape[0], o->group), (work){0});
}

clsplat_status near_far_back_keys(const near_far_back *p) {
    clsplat_status status = CLSPLAT_OK;
    const op_near_far_backward_args *a = p->a;
    kernel_options o;
    launch l;
    options_near_far_back(&o, p, false);
    options_near_far_keys(&o, a);
    TRY(near_far_back_open(p, &o, "near_far_back_keys.cl", "near_far_back_keys", &l));
    launch_tensor(&l, &o, "dout", &a->dout);
    launch_mem(&l, "row_numbers", p->mem[BACK_ROWS]);
    TRY(run_near_far_keys(&l, &o, p));
fail:
    return status;
}
