/* What examples are made of: tensors and arrays of random numbers, or of NaN where results go. */
#ifndef CLSPLAT_TUNING_MAKE_H
#define CLSPLAT_TUNING_MAKE_H

#include "tuning/example.h"

typedef enum make_what { MAKE_RANDOM, MAKE_RESULT } make_what;

/* [B,H,N,columns] and [B,Hk,M,columns], of the shape's type. */
clsplat_status make_rows(example *e, make_what what, size_t columns, op_tensor *t);
clsplat_status make_keys(example *e, make_what what, size_t columns, op_tensor *t);
/* What attention has, computes (lse [B,H,N,1] in F32), and passes back. */
clsplat_status make_tokens(example *e, op_tensor *q, op_tensor *k, op_tensor *v);
clsplat_status make_outputs(example *e, op_tensor *out, op_tensor *lse);
clsplat_status make_gradients(example *e, op_tensor *dq, op_tensor *dk, op_tensor *dv);
/* So many floats, which a kernel takes from the buffer's beginning. */
clsplat_status make_array(example *e, make_what what, size_t count, cl_mem *mem);
/* A set with means like the tokens and widths around 1, for every head its own. */
clsplat_status make_splats(example *e, const op_splats **ready);

/* NaN everywhere, whatever the type: what guards hold, too. */
clsplat_status make_poison(example *e, const example_buffer *b);

#endif
