#include "naive.h"

void naive_gemm(size_t rows, size_t columns, size_t depth, const double *a, const double *b, double *c) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++) {
            c[i * columns + j] = 0;
            for (size_t d = 0; d < depth; d++)
                c[i * columns + j] += a[i * depth + d] * b[j * depth + d];
        }
}
