/* Matrices that are larger than a buffer may be lie in several, and nothing else changes: rows of whole
 * heads, of heads in pairs, and of blocks; an embedding that is the head, and one that is not. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "model/weights_plan.h"
#include "suite.h"

enum { TOKENS = 9, CHUNK = 1 };

/* A model, and bytes of a buffer that are too few for most of its matrices. */
static const struct {
    const char *path;
    uint64_t bytes;
} cases[] = {{MODELS "/llama", 1500}, {MODELS "/gguf/mixed.gguf", 9000}};
enum { CASES = sizeof cases / sizeof *cases };

/* The logits of TOKENS tokens, with the model's weights in buffers of at most so many bytes. */
static float *logits_of(clsplat *lib, clsplat_device *device, const char *path, uint64_t bytes,
                        size_t *count) {
    clsplat_limits real = clsplat_device_describe(device)->limits, small = real;
    clsplat_model_options options = clsplat_model_options_defaults();
    clsplat_model *model = NULL;
    clsplat_session *session = NULL;
    int32_t tokens[TOKENS];
    options.chunk = CHUNK;
    small.max_allocation = bytes < real.max_allocation ? bytes : real.max_allocation;
    clsplat_device_set_limits(device, small);
    suite_ok(lib, clsplat_model_open(device, path, options, &model));
    clsplat_device_set_limits(device, real); /* for the session */
    ck_assert(model->weights.plan->cut == (bytes < real.max_allocation));
    ck_assert(!model->weights.plan->cut ||
              (model->weights.embedding[1].mem && model->weights.layers[0].gate_up[3].mem));
    for (int32_t i = 0; i < TOKENS; i++)
        tokens[i] = 11 * i + 3; /* of all parts of an embedding */
    *count = TOKENS * clsplat_model_describe(model)->vocabulary;
    float *logits = malloc(*count * sizeof *logits);
    suite_ok(lib, clsplat_session_open(model, TOKENS, clsplat_model_attention_defaults(), &session));
    suite_ok(lib, clsplat_session_feed(session, tokens, TOKENS, logits));
    clsplat_session_close(&session);
    clsplat_model_close(&model);
    return logits;
}

START_TEST(parts_are_the_matrix) {
    clsplat *lib = suite_library();
    clsplat_device *device = suite_device(lib);
    size_t count = 0;
    float *whole = logits_of(lib, device, cases[_i].path, UINT64_MAX, &count);
    float *parts = logits_of(lib, device, cases[_i].path, cases[_i].bytes, &count);
    double error = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        double e = (double)parts[i] - (double)whole[i];
        error += e * e;
        norm += (double)whole[i] * (double)whole[i];
    }
    ck_assert_msg(norm > 0 && sqrt(error / norm) < 1e-6, "logits are off by %.1e", sqrt(error / norm));
    free(parts);
    free(whole);
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_loop_test(part, parts_are_the_matrix, 0, CASES);
}

int main(void) {
    static const suite_part parts[] = {{"parts", add_all}};
    return suite_run("parts", parts, sizeof parts / sizeof *parts);
}
