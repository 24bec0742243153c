/* Splats in few bits, and as what differs from a base. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attention/sets.h"
#include "base/random.h"
#include "splats/file.h"

static clsplat *lib;
static char *folder, path[300];

static void open_folder(void) {
    lib = suite_library();
    folder = suite_folder();
    snprintf(path, sizeof path, "%s/splats.safetensors", folder);
}

static void close_folder(void) {
    suite_remove(folder);
    clsplat_destroy(&lib);
}

/* Numbers as layers have them. */
static clsplat_splats *usual_set(const clsplat_splats_shape *shape, uint64_t seed) {
    clsplat_splats *set = sets_create(lib, shape);
    clsplat_splats_parameters p = clsplat_splats_get(set);
    splats_array arrays[SPLATS_ARRAYS];
    random_state r = random_seed(seed);
    splats_arrays(set, arrays);
    for (size_t i = 0; i < SPLATS_ARRAYS; i++)
        for (size_t n = 0; n < shape->heads * shape->count * arrays[i].columns; n++)
            arrays[i].values[n] = (float)random_normal(&r);
    for (size_t n = 0; p.precision_chol && n < shape->heads * shape->count * shape->dim; n++)
        p.precision_chol[n * shape->dim + n % shape->dim] = 1 + (float)random_uniform(&r);
    for (size_t s = 0; s < shape->count; s++)
        p.level[s] = (int32_t)(s % shape->levels);
    suite_ok(lib, clsplat_splats_changed(set));
    return set;
}

static double farthest(clsplat_splats *a, clsplat_splats *b, size_t array) {
    splats_array x[SPLATS_ARRAYS], y[SPLATS_ARRAYS];
    const clsplat_splats_shape *s = &a->parameters.shape;
    double most = 0;
    splats_arrays(a, x);
    splats_arrays(b, y);
    for (size_t n = 0; n < s->heads * s->count * x[array].columns; n++) {
        size_t column = n % x[array].columns;
        bool counts = strcmp(x[array].name, "precision_chol") != 0 || column % s->dim <= column / s->dim;
        double apart = fabs((double)x[array].values[n] - (double)y[array].values[n]);
        most = counts && apart > most ? apart : most;
    }
    return most;
}

START_TEST(few_bits_lose_what_they_say) {
    const clsplat_splats_shape *shape = &sets_shapes[_i / 2];
    unsigned bits = _i % 2 ? 8 : 16;
    clsplat_splats *set = usual_set(shape, 3), *loaded;
    clsplat_splats_loss loss;
    suite_ok(lib, clsplat_splats_save_compact(set, path, bits, &loss));
    suite_ok(lib, clsplat_splats_load(lib, path, &loaded));
    ck_assert_int_eq(clsplat_splats_get(loaded).shape.covariance, shape->covariance);
    ck_assert_mem_eq(clsplat_splats_get(loaded).level, clsplat_splats_get(set).level,
                     shape->count * sizeof(int32_t));
    for (size_t l = 0; l < shape->levels; l++)
        ck_assert_str_eq(clsplat_splats_get(loaded).level_names[l], clsplat_splats_get(set).level_names[l]);
    /* Normal numbers span 12 at most: half a step of that. */
    for (size_t i = 0; i < SPLATS_ARRAYS; i++)
        ck_assert_double_le(farthest(set, loaded, i), 6.01 / ((1 << bits) - 1));
    ck_assert_double_le(farthest(set, loaded, 2), loss.log_amplitude * (1 + 1e-9));
    ck_assert_double_le(farthest(set, loaded, 3), loss.log_temperature * (1 + 1e-9));
    if (shape->covariance != CLSPLAT_FULL)
        ck_assert_double_le(farthest(set, loaded, 1), loss.covariance * (1 + 1e-9));
    clsplat_splats_destroy(&loaded);
    sets_fill(lib, set, 5); /* any finite numbers at all */
    suite_ok(lib, clsplat_splats_save_compact(set, path, bits, NULL));
    suite_ok(lib, clsplat_splats_load(lib, path, &loaded));
    clsplat_splats_destroy(&loaded);
    ck_assert_int_eq(clsplat_splats_save_compact(set, path, 4, NULL), CLSPLAT_INVALID);
    clsplat_splats_destroy(&set);
}
END_TEST

/* A set of other splats: the first `count` are the base's but for every third. */
static clsplat_splats *changed_set(clsplat_splats *base, size_t count) {
    clsplat_splats_shape shape = clsplat_splats_get(base).shape, old = shape;
    shape.count = count;
    clsplat_splats *set = usual_set(&shape, 9);
    splats_array own[SPLATS_ARRAYS], from[SPLATS_ARRAYS];
    splats_arrays(set, own);
    splats_arrays(base, from);
    for (size_t h = 0; h < shape.heads; h++)
        for (size_t s = 0; s < count && s < old.count; s++)
            for (size_t i = 0; i < SPLATS_ARRAYS && s % 3; i++)
                memcpy(own[i].values + (h * count + s) * own[i].columns,
                       from[i].values + (h * old.count + s) * own[i].columns, own[i].columns * sizeof(float));
    return set;
}

START_TEST(differences_lose_nothing) {
    const clsplat_splats_shape *shape = &sets_shapes[_i];
    clsplat_splats *base = usual_set(shape, 3), *loaded = NULL;
    size_t counts[] = {shape->count, shape->count + 5, shape->count > 1 ? shape->count - 1 : 1};
    for (size_t n = 0; n < 3; n++) {
        clsplat_splats *set = changed_set(base, counts[n]);
        suite_ok(lib, clsplat_splats_save_delta(set, base, path));
        suite_ok(lib, clsplat_splats_load_delta(lib, path, base, &loaded));
        sets_same(set, loaded);
        clsplat_splats_destroy(&loaded);
        ck_assert_int_eq(clsplat_splats_load(lib, path, &loaded), CLSPLAT_FORMAT);
        ck_assert_ptr_nonnull(strstr(clsplat_last_error(lib), "difference from other splats only"));
        clsplat_splats_destroy(&set);
    }
    suite_ok(lib, clsplat_splats_save_delta(base, base, path));
    suite_ok(lib, clsplat_splats_load_delta(lib, path, base, &loaded));
    sets_same(base, loaded);
    clsplat_splats_destroy(&loaded);
    clsplat_splats_get(base).log_temperature[0] += 0.5f;
    ck_assert_int_eq(clsplat_splats_load_delta(lib, path, base, &loaded), CLSPLAT_INVALID);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(lib), "another base"));
    suite_ok(lib, clsplat_splats_save(base, path));
    ck_assert_int_eq(clsplat_splats_load_delta(lib, path, base, &loaded), CLSPLAT_FORMAT);
    ck_assert_ptr_null(loaded);
    clsplat_splats_destroy(&base);
}
END_TEST

START_TEST(another_shape_is_no_base) {
    clsplat_splats_shape shape = {CLSPLAT_DIAGONAL, 2, 5, 4, 1}, other = {CLSPLAT_FULL, 2, 5, 4, 1};
    clsplat_splats *set = usual_set(&shape, 1), *base = usual_set(&other, 1);
    ck_assert_int_eq(clsplat_splats_save_delta(set, base, path), CLSPLAT_INVALID);
    ck_assert_int_ne(access(path, F_OK), 0);
    clsplat_splats_destroy(&base);
    clsplat_splats_destroy(&set);
}
END_TEST

/* Every byte of the header changed, and every length cut short: a set or a refusal with words, nothing else.
 */
START_TEST(damaged_files) {
    clsplat_splats_shape shape = {CLSPLAT_DIAGONAL, 1, 4, 3, 2};
    clsplat_splats *base = usual_set(&shape, 1), *set = changed_set(base, 6), *loaded = NULL;
    char damaged[310];
    static char bytes[20000];
    snprintf(damaged, sizeof damaged, "%s.bad", path);
    if (_i)
        suite_ok(lib, clsplat_splats_save_delta(set, base, path));
    else
        suite_ok(lib, clsplat_splats_save_compact(set, path, 16, NULL));
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    size_t length = fread(bytes, 1, sizeof bytes, file),
           header = 8 + (size_t)(unsigned char)bytes[0] + 256 * (size_t)(unsigned char)bytes[1];
    fclose(file);
    for (size_t n = 0; n < 2 * header; n += suite_tier_wanted() == SUITE_SMALL ? 5 : 1) {
        size_t kept = n < header ? length : (n - header) * length / header;
        char before = bytes[n % header];
        bytes[n % header] ^= n < header ? (char)(1 + n % 5) : 0;
        file = fopen(damaged, "wb");
        ck_assert_uint_eq(fwrite(bytes, 1, kept, file), kept);
        fclose(file);
        bytes[n % header] = before;
        clsplat_status status = _i ? clsplat_splats_load_delta(lib, damaged, base, &loaded)
                                   : clsplat_splats_load(lib, damaged, &loaded);
        if (kept < length)
            ck_assert_int_ne(status, CLSPLAT_OK);
        ck_assert((status == CLSPLAT_OK) == (loaded != NULL));
        clsplat_splats_destroy(&loaded);
    }
    clsplat_splats_destroy(&set);
    clsplat_splats_destroy(&base);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_checked_fixture(part, open_folder, close_folder);
    tcase_add_loop_test(part, few_bits_lose_what_they_say, 0, 2 * SETS_SHAPES);
    tcase_add_loop_test(part, differences_lose_nothing, 0, SETS_SHAPES);
    tcase_add_test(part, another_shape_is_no_base);
    tcase_add_loop_test(part, damaged_files, 0, 2);
}

int main(void) {
    static const suite_part parts[] = {{"small", add_all}};
    return suite_run("splats_small", parts, sizeof parts / sizeof *parts);
}
