#include <assert.h>

#include "op/op.h"

op_tensor op_slice(op_tensor tensor, int dimension, size_t begin, size_t count) {
    assert(dimension >= 0 && dimension < 3);
    if (!tensor.mem)
        return tensor;
    assert(begin + count <= tensor.shape[dimension]);
    tensor.offset += begin * tensor.stride[dimension];
    tensor.shape[dimension] = count;
    return tensor;
}
