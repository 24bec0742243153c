/* A program outside the tree, against the installed library: exact attention of two tokens. */
#include <clsplat/clsplat.h>
#include <math.h>
#include <stdio.h>

int main(void) {
    const float q[2] = {1, -1}, k[2] = {2, -2}, v[2] = {10, 20};
    float out[2] = {0, 0};
    clsplat *lib = NULL;
    clsplat_device *device = NULL;
    clsplat_status status = clsplat_create(clsplat_options_defaults(), &lib);
    if (status == CLSPLAT_OK)
        status = clsplat_device_open(lib, NULL, &device);
    if (status == CLSPLAT_OK)
        status = clsplat_attend(device, clsplat_attention_defaults(),
                                (clsplat_attention_tensors){
                                    .q = clsplat_tensor_host(CLSPLAT_F32, 1, 1, 2, 1, q),
                                    .k = clsplat_tensor_host(CLSPLAT_F32, 1, 1, 2, 1, k),
                                    .v = clsplat_tensor_host(CLSPLAT_F32, 1, 1, 2, 1, v),
                                    .out = clsplat_tensor_host(CLSPLAT_F32, 1, 1, 2, 1, out),
                                });
    if (status != CLSPLAT_OK)
        fprintf(stderr, "%s\n", lib ? clsplat_last_error(lib) : clsplat_status_text(status));
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
    double first = 10 + 10 / (1 + exp(4));
    printf("clsplat %s: %.6f %.6f, expected %.6f %.6f\n", clsplat_version(), (double)out[0], (double)out[1],
           first, 30 - first);
    return status == CLSPLAT_OK && fabs((double)out[0] - first) < 1e-4 &&
                   fabs((double)out[1] + first - 30) < 1e-4
               ? 0
               : 1;
}
