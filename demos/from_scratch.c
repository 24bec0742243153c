/* Attention from nothing but three arrays: exact, and through splats made from the tokens.
 *
 *     cc -std=c17 from_scratch.c -o from_scratch $(pkg-config --cflags --libs clsplat) -lm */
#include <clsplat/clsplat.h>
#include <math.h>
#include <stdio.h>

enum { HEADS = 2, TOKENS = 2048, DIM = 32, NUMBERS = HEADS * TOKENS * DIM };

/* Waves of several lengths, as in position codes: tokens near in time are near in space, and all have one
 * norm. Splats can follow that well; how well they can follow a trained model is another question (see
 * README.md). */
static void fill(float *x, float phase) {
    for (int i = 0; i < NUMBERS; ++i) {
        int token = i / DIM % TOKENS, wave = 1 + i % DIM / 2, quarter = i % 2;
        x[i] = 3 * sinf(0.001f * (float)(wave * token) + phase + 1.5708f * (float)quarter);
    }
}

static clsplat_tensor tensor(const float *x) {
    return clsplat_tensor_host(CLSPLAT_F32, 1, HEADS, TOKENS, DIM, x);
}

static double relative_error(const float *a, const float *reference) {
    double error = 0, norm = 0;
    for (int i = 0; i < NUMBERS; ++i) {
        error += pow((double)a[i] - (double)reference[i], 2);
        norm += pow((double)reference[i], 2);
    }
    return sqrt(error / norm);
}

int main(void) {
    static float q[NUMBERS], k[NUMBERS], v[NUMBERS], exact[NUMBERS], through[NUMBERS];
    fill(q, 0.0f);
    fill(k, 0.1f);
    fill(v, 0.5f);

    clsplat *lib = NULL;
    clsplat_device *device = NULL;
    clsplat_splats *splats = NULL;
    clsplat_attention attention = clsplat_attention_defaults();
    clsplat_attention_tensors tensors = {
        .q = tensor(q), .k = tensor(k), .v = tensor(v), .out = tensor(exact)};
    attention.causal = true;

    clsplat_status status = clsplat_create(clsplat_options_defaults(), &lib);
    if (!status)
        status = clsplat_device_open(lib, NULL, &device);
    if (!status)
        status = clsplat_attend(device, attention, tensors); /* exact */
    if (!status)
        status = clsplat_splats_init(device, clsplat_init_defaults(), tensors.q, tensors.k, &splats);
    attention.method = CLSPLAT_SPLATS;
    attention.splats = splats;
    tensors.out = tensor(through);
    if (!status)
        status = clsplat_attend(device, attention, tensors); /* through the splats */

    if (!status)
        printf("%s: %d tokens, splats differ from exact attention by %.1f %%\n",
               clsplat_device_describe(device)->name, TOKENS, 100 * relative_error(through, exact));
    else
        fprintf(stderr, "%s\n", lib ? clsplat_last_error(lib) : clsplat_status_text(status));
    clsplat_splats_destroy(&splats);
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
    return status ? 1 : 0;
}
