/* Matrix products of a pass, and their gradients, in the type that the pass computes in: weights stay in
 * float32, and products in bfloat16 take a rounded copy of what is not. Sums are float32 in either. */
#ifndef CLSPLAT_TRAIN_PRODUCT_H
#define CLSPLAT_TRAIN_PRODUCT_H

#include "train/pass.h"

/* The first rows × columns numbers of a buffer. */
op_tensor product_view(op_tensor buffer, size_t rows, size_t columns);

/* y = x wᵀ, of p->type or float32. */
clsplat_status product_run(queue *q, const pass *p, op_tensor x, op_tensor w, op_tensor y);

/* x, or a copy of it of p->type, which stays until the next call. */
clsplat_status product_narrow(queue *q, const pass *p, op_tensor x, op_tensor *narrow);

/* y = x wᵀ: dw += dyᵀ x, summed up in parts that do not depend on anything but the shapes. Nothing happens to
 * weights that are frozen, which have no dw. */
clsplat_status product_to_weight(queue *q, const pass *p, op_tensor dy, op_tensor x, op_tensor dw);
/* y = x wᵀ: dx = dy w. */
clsplat_status product_to_rows(queue *q, const pass *p, op_tensor dy, op_tensor w, op_tensor dx);

/* Numbers of p->product, for parameters of so many at most. */
size_t product_room(clsplat_dtype type, size_t most);

#endif
