#include "attention/sets.h"

#include <math.h>
#include <string.h>

#include "base/random.h"

const clsplat_splats_shape sets_shapes[SETS_SHAPES] = {
    {CLSPLAT_ISOTROPIC, 1, 5, 3, 2}, {CLSPLAT_DIAGONAL, 4, 7, 6, 3}, {CLSPLAT_FULL, 2, 3, 5, 1},
    {CLSPLAT_DIAGONAL, 1, 1, 1, 1},  {CLSPLAT_FULL, 1, 2, 1, 4},
};

void sets_list(clsplat_splats *set, sets_array arrays[SETS_ARRAYS]) {
    clsplat_splats_parameters p = clsplat_splats_get(set);
    size_t splats = p.shape.heads * p.shape.count, size = splats_covariance_size(&p.shape);
    arrays[0] = (sets_array){"mean", p.mean, splats * p.shape.dim};
    arrays[1] = (sets_array){"log_var", p.log_var, p.log_var ? splats * size : 0};
    arrays[2] = (sets_array){"precision_chol", p.precision_chol, p.precision_chol ? splats * size : 0};
    arrays[3] = (sets_array){"log_amplitude", p.log_amplitude, splats};
    arrays[4] = (sets_array){"log_temperature", p.log_temperature, splats};
    arrays[5] = (sets_array){"level_log_weight", p.level_log_weight, p.shape.levels};
    arrays[6] = (sets_array){"level", p.level, p.shape.count};
}

clsplat_splats *sets_create(clsplat *lib, const clsplat_splats_shape *shape) {
    clsplat_splats *set = NULL;
    suite_ok(lib, clsplat_splats_create(lib, *shape, &set));
    return set;
}

static float random_bits(random_state *r) {
    union {
        uint32_t bits;
        float value;
    } x;
    do
        x.bits = (uint32_t)random_next(r);
    while (!isfinite(x.value));
    return x.value;
}

void sets_fill(clsplat *lib, clsplat_splats *set, uint64_t seed) {
    random_state r = random_seed(seed);
    clsplat_splats_parameters p = clsplat_splats_get(set);
    sets_array arrays[SETS_ARRAYS];
    sets_list(set, arrays);
    for (size_t a = 0; a < SETS_ARRAYS - 1; a++)
        for (size_t i = 0; i < arrays[a].count; i++)
            ((float *)arrays[a].data)[i] = random_bits(&r);
    p.mean[0] = -0.0f;
    for (size_t s = 0; s < p.shape.count; s++)
        p.level[s] = (int32_t)random_below(&r, p.shape.levels);
    suite_ok(lib, clsplat_splats_changed(set));
}

void sets_same(clsplat_splats *a, clsplat_splats *b) {
    sets_array x[SETS_ARRAYS], y[SETS_ARRAYS];
    sets_list(a, x);
    sets_list(b, y);
    clsplat_splats_parameters p = clsplat_splats_get(a), q = clsplat_splats_get(b);
    ck_assert_uint_eq(p.shape.levels, q.shape.levels);
    for (size_t i = 0; i < SETS_ARRAYS; i++) {
        ck_assert_uint_eq(x[i].count, y[i].count);
        ck_assert_msg(!x[i].count || memcmp(x[i].data, y[i].data, 4 * x[i].count) == 0, "%s differs",
                      x[i].name);
    }
    for (size_t l = 0; l < p.shape.levels; l++)
        ck_assert_str_eq(p.level_names[l], q.level_names[l]);
}
