#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
static void feign_gpu(clsplat_device *device, const char *gpu) {
    static const struct {
        const char *name;
        clsplat_matrix_units units;
        uint32_t subgroup;
    } others[] = {{"wmma", CLSPLAT_UNITS_WMMA, 32},
                  {"mfma", CLSPLAT_UNITS_MFMA, 64},
                  {"dpas8", CLSPLAT_UNITS_DPAS, 8},
                  {"dpas16", CLSPLAT_UNITS_DPAS, 16}};
    clsplat_limits limits = clsplat_device_describe(device)->limits;
    limits.vector_width_float = 1;
    limits.nvidia_capability = (uint32_t)atoi(gpu);
    limits.local_memory = strcmp(gpu, "0") == 0 ? 32 << 10 : 48 << 10;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(gpu, others[i].name) == 0) {
            limits.matrix_units = others[i].units;
            limits.subgroup = others[i].subgroup;
        }
    clsplat_device_set_limits(device, limits);
}

static void open_stage(void) {
    stage.lib = suite_library();
    stage.device = suite_device(stage.lib);
    const char *gpu = getenv("CLSPLAT_TEST_GPU");
    if (gpu)
        feign_gpu(stage.device, gpu);
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

void problem_solve_here(const problem_spec *spec, uint64_t seed) {
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, spec, seed);
    problem_solve(&p, s.device);
    problem_free(&p);
}

void problem_solve_by_matrix_rows(const problem_spec *spec, uint64_t seed) {
    static const char *const rows[] = {"mma", "wgmma"};
    problem_spec by = *spec;
    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
        by.variant = rows[row];
        problem_solve_here(&by, seed);
    }
}
