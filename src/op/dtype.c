#include "op/dtype.h"

#include <string.h>

#include "format/blocks.h"

static const char *const names[OP_TYPES] = {
    [CLSPLAT_F32] = "F32", [CLSPLAT_F16] = "F16", [CLSPLAT_BF16] = "BF16", [CLSPLAT_I32] = "I32",
    [OP_Q8_0] = "Q8_0",    [OP_Q4_0] = "Q4_0",    [OP_Q4_1] = "Q4_1",      [OP_Q5_0] = "Q5_0",
    [OP_Q5_1] = "Q5_1",    [OP_Q4_K] = "Q4_K",    [OP_Q5_K] = "Q5_K",      [OP_Q6_K] = "Q6_K"};

const char *op_dtype_name(clsplat_dtype dtype) {
    return names[dtype];
}

bool op_dtype_named(const char *name, clsplat_dtype *dtype) {
    for (size_t i = 0; i < OP_TYPES; ++i)
        if (i != CLSPLAT_I32 && strcmp(names[i], name) == 0) {
            *dtype = (clsplat_dtype)i;
            return true;
        }
    return false;
}

bool op_dtype_is_blocks(clsplat_dtype dtype) {
    return (int)dtype > CLSPLAT_I32;
}

double op_dtype_bytes(clsplat_dtype dtype, double numbers) {
    if (!op_dtype_is_blocks(dtype))
        return numbers * (double)clsplat_dtype_size(dtype);
    const block_type *type = block_type_named(names[dtype]);
    return numbers / (double)type->numbers * (double)type->bytes;
}
