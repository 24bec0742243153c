#include "op/gemm/gemm.h"

#include "op/families.h"
#include "op/layer/layer_backward.h"
#include "runtime/buffer.h"

/* A copy whose summed dimension lies along the rows. */
static clsplat_status turn(queue *q, op_tensor *x, unsigned slot) {
    clsplat_status status = CLSPLAT_OK;
    op_tensor from = *x;
    size_t rows = from.shape[3], columns = from.shape[2];
    cl_mem mem;
    TRY(workspace_take(q->device, slot, (size_t)tensor_bytes(x), &mem));
    *x = (op_tensor){.mem = mem,
                     .dtype = from.dtype,
                     .shape = {from.shape[0], from.shape[1], rows, columns},
                     .stride = {from.shape[1] * rows * columns, rows * columns, columns}};
    TRY(op_transpose(q, &(op_transpose_args){.x = from, .out = *x}));
fail:
    return status;
}

static clsplat_status plain_run(queue *q, const void *args) {
    clsplat_status status = CLSPLAT_OK;
    const op_gemm_transposed_args *a = args;
    op_gemm_args product = {.a = a->a, .b = a->b, .c = a->c};
    if (a->a_transposed)
        TRY(turn(q, &product.a, WORKSPACE_GEMM_A));
    if (a->b_transposed)
        TRY(turn(q, &product.b, WORKSPACE_GEMM_B));
    TRY(op_gemm(q, &product));
fail:
    return status;
}

static const op_variant variants[] = {
    {"plain", "as the product", op_fits_all, plain_run, "layer_backward.cl", &tune_nothing},
    {"wgmma", "relative error of c below 1e-6 before it is stored", gemm_wgmma_transposed_fits,
     gemm_wgmma_transposed_run, "gemm_wgmma.cl", &gemm_wgmma_transposed_space},
};
const op_family op_gemm_transposed_family = {"gemm_transposed", variants, sizeof variants / sizeof *variants,
                                             NULL};

clsplat_status op_gemm_transposed(queue *q, const op_gemm_transposed_args *args) {
    return op_dispatch(q, &op_gemm_transposed_family, args);
}
