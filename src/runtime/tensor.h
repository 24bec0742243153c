/* Tensors that callers hand in. */
#ifndef CLSPLAT_RUNTIME_TENSOR_H
#define CLSPLAT_RUNTIME_TENSOR_H

#include <stdbool.h>

#include <clsplat/tensor.h>

#include "base/log.h"

/* Whether a tensor, of any type, has a shape and lies where it must; fills in the strides of a dense one.
 * Returns: INVALID, SHAPE, naming it. */
clsplat_status tensor_lay_out(clsplat *lib, const char *name, clsplat_tensor *t, bool on_host);

/* The same for one of floating point. */
clsplat_status tensor_check_place(clsplat *lib, const char *name, clsplat_tensor *t, bool on_host);

/* Whether it has the shape that the other tensors say. Returns: SHAPE, naming it. */
clsplat_status tensor_check_shape(clsplat *lib, const char *name, const clsplat_tensor *t,
                                  const size_t expected[4]);

/* Whether queries fit keys: the same batch and columns, and a multiple of their heads. Returns: SHAPE. */
clsplat_status tensor_check_queries(clsplat *lib, const clsplat_tensor *q, const clsplat_tensor *k);

#endif
