/* Small layers to adapt to: tokens in clusters, values that follow them, and splats of a few levels. */
#ifndef CLSPLAT_TESTS_LAYERS_H
#define CLSPLAT_TESTS_LAYERS_H

#include <clsplat/adapt.h>

#include "naive/naive.h"
#include "suite.h"

typedef struct layer_case {
    naive_shape shape;
    bool causal, shared, padded; /* padded: every fifth key; the others have biases */
    clsplat_covariance covariance;
    size_t levels, splats; /* per level */
} layer_case;
enum { LAYER_CASES = 6 };
extern const layer_case layer_cases[LAYER_CASES];

typedef struct layer_data {
    layer_case is;
    float *q, *k, *v, *bias;
    clsplat_attention_tensors tensors; /* q, k, v and key_bias */
    naive_tensors naive;               /* of softmax: out and lse */
    double *numbers;                   /* what naive points to */
} layer_data;
layer_data layer_make(const layer_case *c, uint64_t seed);
void layer_free(layer_data *d);

/* Splats from the keys, by clsplat_splats_init; and random ones, anywhere near. */
clsplat_splats *layer_splats(clsplat *lib, clsplat_device *device, const layer_data *d);

/* ‖out − softmax‖ / ‖softmax‖ of every `step`-th row up to the last, by clsplat_attend. */
double layer_error(clsplat_device *device, const layer_data *d, clsplat_splats *set, size_t step);

#endif
