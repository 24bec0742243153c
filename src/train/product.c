#include "train/product.h"

#include "op/layer/layer_backward.h"

/* Parts of a sum over rows at most, and numbers of all parts; c's tiles that fill a device. */
enum { CUTS_MOST = 32, TILES_WANTED = 256, SIDE = OP_GEMM_MMA_SIDE, GRAIN = 64 };
static const size_t ROOM_MOST = (size_t)1 << 23;

size_t product_room(clsplat_dtype type, size_t most) {
    return type == CLSPLAT_F32 || most > ROOM_MOST ? most : ROOM_MOST;
}

op_tensor product_view(op_tensor buffer, size_t rows, size_t columns) {
    size_t numbers = rows * columns;
    return (op_tensor){.mem = buffer.mem,
                       .dtype = buffer.dtype,
                       .shape = {1, 1, rows, columns},
                       .stride = {numbers, numbers, columns}};
}

static clsplat_status convert(queue *q, op_tensor x, op_tensor buffer, op_tensor *out) {
    *out = product_view(buffer, x.shape[2], x.shape[3]);
    return op_norm(q, &(op_norm_args){.x = x, .out = *out});
}

clsplat_status product_narrow(queue *q, const pass *p, op_tensor x, op_tensor *narrow) {
    *narrow = x;
    return x.dtype == p->type ? CLSPLAT_OK : convert(q, x, p->narrow, narrow);
}

/* A weight as products take it. */
static clsplat_status round_weight(queue *q, const pass *p, op_tensor *w) {
    return w->dtype == p->type ? CLSPLAT_OK : convert(q, *w, p->weight, w);
}

clsplat_status product_run(queue *q, const pass *p, op_tensor x, op_tensor w, op_tensor y) {
    clsplat_status status = CLSPLAT_OK;
    TRY(round_weight(q, p, &w));
    TRY(op_gemm(q, &(op_gemm_args){.a = x, .b = w, .c = y}));
fail:
    return status;
}

/* Into how many parts a sum over rows is cut: few tiles of c leave most of a GPU idle. */
static size_t parts_of(const pass *p, size_t rows, const op_tensor *dw) {
    size_t down = (dw->shape[2] + SIDE - 1) / SIDE, across = (dw->shape[3] + SIDE - 1) / SIDE, parts = 1;
    size_t numbers = dw->shape[2] * dw->shape[3];
    while (p->type != CLSPLAT_F32 && parts < CUTS_MOST && 2 * parts * numbers <= ROOM_MOST &&
           parts * down * across < TILES_WANTED && rows % (2 * parts * GRAIN) == 0)
        parts *= 2;
    return parts;
}

/* As so many heads, each with its rows. */
static op_tensor cut(op_tensor x, size_t parts) {
    x.shape[1] = parts;
    x.shape[2] /= parts;
    x.stride[1] = x.shape[2] * x.stride[2];
    return x;
}

clsplat_status product_to_weight(queue *q, const pass *p, op_tensor dy, op_tensor x, op_tensor dw) {
    clsplat_status status = CLSPLAT_OK;
    size_t numbers = dw.shape[2] * dw.shape[3], parts = parts_of(p, dy.shape[2], &dw);
    op_tensor product = product_view(p->product, dw.shape[2], dw.shape[3]);
    op_tensor rows = product_view(p->product, parts, numbers);
    if (!dw.mem)
        return CLSPLAT_OK;
    product.shape[1] = parts;
    TRY(op_gemm_transposed(q, &(op_gemm_transposed_args){.a = cut(dy, parts),
                                                         .b = cut(x, parts),
                                                         .c = product,
                                                         .a_transposed = true,
                                                         .b_transposed = true}));
    if (parts == 1)
        return op_norm(q, &(op_norm_args){.x = dw, .add = product, .out = dw});
    TRY(op_column_sums(q, &(op_column_sums_args){.x = rows, .sums = dw.mem}));
fail:
    return status;
}

clsplat_status product_to_rows(queue *q, const pass *p, op_tensor dy, op_tensor w, op_tensor dx) {
    clsplat_status status = CLSPLAT_OK;
    TRY(round_weight(q, p, &w));
    TRY(op_gemm_transposed(q, &(op_gemm_transposed_args){.a = dy, .b = w, .c = dx, .b_transposed = true}));
fail:
    return status;
}
