#include "compare.h"

#include <math.h>

#include "base/half.h"

double stored_get(clsplat_dtype dtype, const void *array, size_t at) {
    if (dtype == CLSPLAT_F32)
        return (double)((const float *)array)[at];
    uint16_t bits = ((const uint16_t *)array)[at];
    return (double)(dtype == CLSPLAT_F16 ? half_from_f16(bits) : half_from_bf16(bits));
}

void stored_set(clsplat_dtype dtype, void *array, size_t at, double value) {
    if (dtype == CLSPLAT_F32)
        ((float *)array)[at] = (float)value;
    else
        ((uint16_t *)array)[at] =
            dtype == CLSPLAT_F16 ? half_to_f16((float)value) : half_to_bf16((float)value);
}

double compare_norm(const double *a, const double *r, size_t count) {
    double difference = 0, norm = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        if (isnan(a[i]))
            return INFINITY;
        difference += (a[i] - r[i]) * (a[i] - r[i]);
        norm += r[i] * r[i];
        largest = fmax(largest, fabs(a[i]));
    }
    return norm > 0 ? sqrt(difference / norm) : largest;
}

double compare_lse(const double *a, const double *r, size_t count) {
    double largest = 0, squares = 0;
    size_t finite = 0;
    for (size_t i = 0; i < count; i++) {
        if (isnan(a[i]) || isinf(a[i]) != isinf(r[i]))
            return INFINITY;
        if (isinf(r[i]))
            continue;
        largest = fmax(largest, fabs(a[i] - r[i]));
        squares += r[i] * r[i];
        finite++;
    }
    return finite ? largest / fmax(1, sqrt(squares / (double)finite)) : 0;
}
