/* Splat sets in files: saved and loaded bit for bit; files that hold something else refused in words. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "attention/sets.h"
#include "base/file.h"
#include "format/safetensors.h"

/* Check's fixtures have no argument, so what they open must live here. */
static clsplat *lib;
static char *folder;

static void open_stage(void) {
    lib = suite_library();
    folder = suite_folder();
}

static void close_stage(void) {
    suite_remove(folder);
    clsplat_destroy(&lib);
}

/* A path in the temporary folder; the caller frees it. */
static char *in_folder(const char *name) {
    char *path = NULL;
    ck_assert_int_gt(asprintf(&path, "%s/%s", folder, name), 0);
    return path;
}

static void ck_words(const char *word) {
    const char *words = clsplat_last_error(lib);
    ck_assert_msg(strstr(words, word) != NULL, "\"%s\" does not name %s", words, word);
}

START_TEST(above_the_diagonal_anything_may_stand) {
    clsplat_splats *set = sets_create(lib, &sets_shapes[2]), *again = NULL;
    char *path = in_folder("triangle");
    clsplat_splats_parameters p = clsplat_splats_get(set);
    for (size_t i = 0; i < p.shape.heads * p.shape.count * p.shape.dim * p.shape.dim; i++)
        if (i % p.shape.dim > i / p.shape.dim % p.shape.dim)
            p.precision_chol[i] = i % 2 ? NAN : -INFINITY;
    suite_ok(lib, clsplat_splats_changed(set));
    suite_ok(lib, clsplat_splats_save(set, path));
    suite_ok(lib, clsplat_splats_load(lib, path, &again));
    sets_same(set, again);
    clsplat_splats_destroy(&again);
    clsplat_splats_destroy(&set);
    free(path);
}
END_TEST

START_TEST(a_file_gives_back_every_bit) {
    clsplat_splats *set = sets_create(lib, &sets_shapes[_i]), *again = NULL;
    char *path = in_folder("round.safetensors");
    sets_fill(lib, set, (uint64_t)_i);
    suite_ok(lib, clsplat_splats_set_level_name(set, 0, "\"Größe\" \\ 1\n"));
    suite_ok(lib, clsplat_splats_save(set, path));
    suite_ok(lib, clsplat_splats_load(lib, path, &again));
    sets_same(set, again);
    clsplat_splats_destroy(&again);
    clsplat_splats_destroy(&set);
    free(path);
}
END_TEST

/* The bytes of a file; the caller frees them. */
static char *contents(const char *path, size_t *count) {
    char *bytes = NULL;
    suite_ok(lib, file_load(lib, path, 1 << 20, &bytes, count));
    return bytes;
}

static void write_bytes(const char *path, const char *bytes, size_t count) {
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, count, f), count);
    ck_assert_int_eq(fclose(f), 0);
}

static void ck_unchanged(const char *path, const char *before, size_t count) {
    size_t now = 0;
    char *after = contents(path, &now);
    ck_assert_uint_eq(now, count);
    ck_assert_int_eq(memcmp(before, after, count), 0);
    free(after);
}

/* A set that may not be saved, and a disk that is full in the middle of it. */
START_TEST(a_failed_save_leaves_the_old_file) {
    clsplat_splats *set = sets_create(lib, &sets_shapes[1]);
    char *path = in_folder("kept.safetensors"), *command = NULL;
    size_t count = 0;
    sets_fill(lib, set, 1);
    suite_ok(lib, clsplat_splats_save(set, path));
    char *before = contents(path, &count);

    float *mean = clsplat_splats_get(set).mean;
    mean[3] = NAN;
    ck_assert_int_eq(clsplat_splats_save(set, path), CLSPLAT_INVALID);
    ck_words("mean");
    ck_unchanged(path, before, count);
    mean[3] = 2;

    struct rlimit unlimited, full;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
    full = (struct rlimit){count / 2, unlimited.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &full), 0);
    clsplat_status status = clsplat_splats_save(set, path);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    signal(SIGXFSZ, handler);
    ck_assert_int_eq(status, CLSPLAT_IO);
    ck_words("kept.safetensors");
    ck_unchanged(path, before, count);
    ck_assert_int_gt(asprintf(&command, "test \"$(ls -A '%s' | grep -c tmp)\" = 0", folder), 0);
    ck_assert_msg(system(command) == 0, "a temporary file is left");
    free(command);
    free(before);
    free(path);
    clsplat_splats_destroy(&set);
}
END_TEST

START_TEST(a_place_that_cannot_be_used_is_named) {
    clsplat_splats *set = sets_create(lib, &sets_shapes[0]);
    char *nowhere = in_folder("no/such/folder");
    ck_assert_int_eq(clsplat_splats_save(set, nowhere), CLSPLAT_IO);
    ck_words(nowhere);
    ck_assert_int_eq(clsplat_splats_save(set, folder), CLSPLAT_IO);
    ck_words(folder);
    clsplat_splats_destroy(&set);
    ck_assert_int_eq(clsplat_splats_load(lib, nowhere, &set), CLSPLAT_IO);
    ck_words(nowhere);
    ck_assert_int_eq(clsplat_splats_load(lib, folder, &set), CLSPLAT_IO);
    ck_assert_ptr_null(set);
    free(nowhere);
}
END_TEST

/* The tensors of a good file of 2 heads, 3 splats, 4 dimensions and 2 levels, to be broken in one place. */
enum { MEAN, LOG_VAR, CHOL, AMPLITUDE, TEMPERATURE, LEVEL, WEIGHT, TENSORS };
typedef struct splats_file {
    safetensors_output t[TENSORS];
    bool left_out[TENSORS];
    float numbers[TENSORS][2 * 3 * 4 * 4];
    int32_t level[3];
    const char *version;
} splats_file;

static void good_file(splats_file *f) {
    *f = (splats_file){.t = {{"mean", "F32", 3, {2, 3, 4}, NULL},
                             {"log_var", "F32", 3, {2, 3, 4}, NULL},
                             {"precision_chol", "F32", 4, {2, 3, 4, 4}, NULL},
                             {"log_amplitude", "F32", 2, {2, 3}, NULL},
                             {"log_temperature", "F32", 2, {2, 3}, NULL},
                             {"level", "I32", 1, {3}, NULL},
                             {"level_log_weight", "F32", 1, {2}, NULL}},
                       .level = {1, 0, 1}};
    f->left_out[CHOL] = true;
    for (size_t i = 0; i < TENSORS; i++)
        f->t[i].data = i == LEVEL ? (void *)f->level : f->numbers[i];
}

/* Full covariance in place of diagonal. */
static void full_file(splats_file *f) {
    good_file(f);
    f->left_out[LOG_VAR] = true;
    f->left_out[CHOL] = false;
}

static clsplat_status load_file(const splats_file *f, clsplat_splats **set) {
    static const char key[] = "format_version";
    const char *const metadata[][2] = {{key, f->version}};
    safetensors_output present[TENSORS];
    size_t count = 0;
    for (size_t i = 0; i < TENSORS; i++)
        if (!f->left_out[i])
            present[count++] = f->t[i];
    char *path = in_folder("broken.safetensors");
    suite_ok(lib, safetensors_save(lib, path, present, count, metadata, f->version != NULL));
    *set = NULL;
    clsplat_status status = clsplat_splats_load(lib, path, set);
    free(path);
    return status;
}

/* Loading fails, and the message names the file and the word. */
static void ck_refused(const splats_file *f, clsplat_status expected, const char *word) {
    clsplat_splats *set = NULL;
    clsplat_status status = load_file(f, &set);
    ck_assert_msg(status == expected, "%s: %s instead of %s: %s", word, clsplat_status_text(status),
                  clsplat_status_text(expected), clsplat_last_error(lib));
    ck_assert_ptr_null(set);
    ck_words("broken.safetensors");
    ck_words(word);
}

/* A tensor that is absent, of another type, rank or shape, or has a dimension of 0. */
START_TEST(a_tensor_that_does_not_fit_is_named) {
    splats_file f;
    for (int t = 0; t < TENSORS; t++) {
        void (*good)(splats_file *) = t == CHOL ? full_file : good_file;
        good(&f);
        f.left_out[t] = true;
        ck_refused(&f, CLSPLAT_FORMAT, f.t[t].name);

        good(&f);
        f.t[t].dtype = t == LEVEL ? "F32" : "I32";
        ck_refused(&f, CLSPLAT_FORMAT, f.t[t].name);
        f.t[t].dtype = "F16";
        ck_refused(&f, CLSPLAT_FORMAT, f.t[t].name);

        good(&f);
        f.t[t].shape[f.t[t].rank++] = 1;
        ck_refused(&f, CLSPLAT_FORMAT, f.t[t].name);
        f.t[t].rank -= 2;
        ck_refused(&f, CLSPLAT_FORMAT, f.t[t].name);

        good(&f);
        for (size_t d = 0; d < f.t[t].rank; d++) {
            good(&f);
            f.t[t].shape[d] = 0;
            ck_refused(&f, CLSPLAT_FORMAT, f.t[t].name);
        }
    }
}
END_TEST

/* One dimension of one tensor against the others. The mean says what the others must be. */
START_TEST(shapes_must_fit_each_other) {
    splats_file f;
    for (int t = LOG_VAR; t < WEIGHT; t++)
        for (size_t d = 0; d < 4; d++) {
            (t == CHOL ? full_file : good_file)(&f);
            if (d >= f.t[t].rank)
                continue;
            f.t[t].shape[d] = f.t[t].shape[d] == 2 ? 1 : 2;
            ck_refused(&f, CLSPLAT_FORMAT, f.t[t].name);
        }
}
END_TEST

START_TEST(both_covariances_or_neither) {
    splats_file f;
    good_file(&f);
    f.left_out[CHOL] = false;
    ck_refused(&f, CLSPLAT_FORMAT, "log_var");
    ck_words("precision_chol");
    f.left_out[CHOL] = f.left_out[LOG_VAR] = true;
    ck_refused(&f, CLSPLAT_FORMAT, "log_var");
    ck_words("precision_chol");
}
END_TEST

START_TEST(a_bad_value_is_named) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static const int32_t levels[] = {-1, 2, INT32_MAX, INT32_MIN};
    splats_file f;
    for (int t = 0; t < TENSORS; t++)
        for (size_t b = 0; t != LEVEL && b < 3; b++) {
            (t == CHOL ? full_file : good_file)(&f);
            f.numbers[t][t == WEIGHT ? 1 : 4] = bad[b]; /* [0,0,1,0] of the factors: below the diagonal */
            ck_refused(&f, CLSPLAT_FORMAT, f.t[t].name);
        }
    for (size_t b = 0; b < sizeof levels / sizeof *levels; b++) {
        good_file(&f);
        f.level[2] = levels[b];
        ck_refused(&f, CLSPLAT_FORMAT, "level");
    }
}
END_TEST

START_TEST(versions) {
    static const char *const newer[] = {"3", "10", "99999999999999999999999"};
    splats_file f;
    clsplat_splats *set = NULL;
    good_file(&f);
    suite_ok(lib, load_file(&f, &set)); /* no metadata */
    clsplat_splats_destroy(&set);
    f.version = "1";
    suite_ok(lib, load_file(&f, &set));
    clsplat_splats_destroy(&set);
    f.version = "2";
    suite_ok(lib, load_file(&f, &set));
    clsplat_splats_destroy(&set);
    for (size_t i = 0; i < sizeof newer / sizeof *newer; i++) {
        f.version = newer[i];
        ck_refused(&f, CLSPLAT_UNSUPPORTED, "version");
    }
}
END_TEST

START_TEST(one_variance_for_all_dimensions) {
    splats_file f;
    clsplat_splats *set = NULL;
    good_file(&f);
    f.t[LOG_VAR].shape[2] = 1;
    suite_ok(lib, load_file(&f, &set));
    ck_assert_int_eq(clsplat_splats_get(set).shape.covariance, CLSPLAT_ISOTROPIC);
    clsplat_splats_destroy(&set);
}
END_TEST

/* Cut at every length; every byte of the header changed: never a crash, and words for every failure. */
START_TEST(a_damaged_file_is_refused) {
    clsplat_splats *set = sets_create(lib, &sets_shapes[0]);
    char *path = in_folder("damaged.safetensors");
    size_t count = 0, refused = 0;
    suite_ok(lib, clsplat_splats_save(set, path));
    clsplat_splats_destroy(&set);
    char *bytes = contents(path, &count);
    for (size_t length = 0; length < count; length++) {
        write_bytes(path, bytes, length);
        ck_assert_msg(clsplat_splats_load(lib, path, &set) == CLSPLAT_FORMAT, "of %zu bytes", length);
        ck_assert_ptr_null(set);
        ck_words("damaged.safetensors");
    }
    size_t header = 8 + (unsigned char)bytes[0] + 256 * (size_t)(unsigned char)bytes[1];
    for (size_t i = 0; i < 2 * header; i++) {
        bytes[i / 2] ^= i % 2 ? 0x40 : 0x01;
        write_bytes(path, bytes, count);
        clsplat_status status = clsplat_splats_load(lib, path, &set);
        bytes[i / 2] ^= i % 2 ? 0x40 : 0x01;
        refused += status != CLSPLAT_OK;
        ck_assert((status == CLSPLAT_OK) == (set != NULL));
        if (status != CLSPLAT_OK)
            ck_words("damaged.safetensors");
        clsplat_splats_destroy(&set);
    }
    ck_assert_uint_gt(refused, header);
    free(bytes);
    free(path);
}
END_TEST

static void add_round_trip(TCase *part) {
    tcase_add_unchecked_fixture(part, open_stage, close_stage);
    tcase_add_loop_test(part, a_file_gives_back_every_bit, 0, SETS_SHAPES);
    tcase_add_test(part, above_the_diagonal_anything_may_stand);
    tcase_add_test(part, a_failed_save_leaves_the_old_file);
    tcase_add_test(part, a_place_that_cannot_be_used_is_named);
}

static void add_refusals(TCase *part) {
    tcase_add_unchecked_fixture(part, open_stage, close_stage);
    tcase_add_test(part, a_tensor_that_does_not_fit_is_named);
    tcase_add_test(part, shapes_must_fit_each_other);
    tcase_add_test(part, both_covariances_or_neither);
    tcase_add_test(part, a_bad_value_is_named);
    tcase_add_test(part, versions);
    tcase_add_test(part, one_variance_for_all_dimensions);
    tcase_add_test(part, a_damaged_file_is_refused);
}

int main(void) {
    static const suite_part parts[] = {{"round trip", add_round_trip}, {"refusals", add_refusals}};
    return suite_run("splats_file", parts, sizeof parts / sizeof *parts);
}
