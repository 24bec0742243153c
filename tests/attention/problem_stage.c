#include <stdio.h>
#include <stdlib.h>

#include "attention/problem.h"

void problem_describe(const problem_spec *s, char *words, size_t room) {
    static const char *const types[] = {"f32", "f16", "bf16"}, *const shapes[] = {"isotropic", "diagonal",
                                                                                  "full"};
    static const char *const biases[] = {"no", "random", "holes", "front", "all"};
    static const char *const kinds[] = {"plain", "far", "identical", "loud", "dominant", "narrow", "extreme"};
    int length = snprintf(
        words, room, "%s B=%zu H=%zu/%zu N=%zu M=%zu D=%zu Dv=%zu q:%s k:%s v:%s out:%s %s data, %s bias%s%s",
        s->splats ? shapes[s->covariance] : "softmax", s->batch, s->heads, s->kv_heads, s->queries, s->keys,
        s->dim, s->value_dim, types[s->q], types[s->k], types[s->v], types[s->out], kinds[s->data],
        biases[s->bias], s->causal ? ", causal" : "", s->layout == LAYOUT_TOKENS ? ", strided" : "");
    if (s->splats && length > 0 && (size_t)length < room)
        snprintf(words + length, room - (size_t)length, ", S=%zu L=%zu%s%s", s->splats, s->levels,
                 s->shared ? " shared" : "", s->mixing == CLSPLAT_PER_LEVEL ? ", per level" : "");
}

void problem_add_cases(TCase *part, const TTest *test, const problem_spec *cases, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (cases[i].tier <= suite_tier_wanted())
            tcase_add_loop_test(part, test, (int)i, (int)i + 1);
}

/* Check's fixtures have no argument, so what they open must live here. */
static problem_stage stage;

/* Lets a CPU run the rows for GPUs: slowly, but with every index and barrier of theirs. Matrix units are
 * emulated (cl/shared/mma.clh), which only Oclgrind compiles in reasonable time. */
static void feign_gpu(clsplat_device *device, uint32_t capability) {
    clsplat_limits limits = clsplat_device_describe(device)->limits;
    limits.vector_width_float = 1;
    limits.local_memory = capability ? 48 << 10 : 32 << 10;
    limits.nvidia_capability = capability;
    clsplat_device_set_limits(device, limits);
}

static void open_stage(void) {
    stage.lib = suite_library();
    stage.device = suite_device(stage.lib);
    const char *capability = getenv("CLSPLAT_TEST_GPU");
    if (capability)
        feign_gpu(stage.device, (uint32_t)atoi(capability));
}

static void close_stage(void) {
    clsplat_device_close(&stage.device);
    clsplat_destroy(&stage.lib);
}

void problem_add_stage(TCase *part) {
    tcase_add_unchecked_fixture(part, open_stage, close_stage);
}

problem_stage problem_on_stage(void) {
    return stage;
}
