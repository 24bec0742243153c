/* Encoders: rows and logits against Hugging Face's, texts together against texts alone, near and far, and
 * what they refuse. The models are made by make_models.py. */
#include <clsplat/model.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "compare.h"
#include "format/safetensors.h"
#include "suite.h"

static const char *const folders[] = {MODELS "/bert",        MODELS "/bert-tanh",  MODELS "/roberta",
                                      MODELS "/xlm-roberta", MODELS "/distilbert", MODELS "/eurobert"};
enum { FOLDERS = sizeof folders / sizeof *folders, LONGEST = 62, VOCABULARY = 256 };

static clsplat *lib;
static clsplat_device *device;

static void *load(const char *folder, const char *name, size_t *count) {
    text path = {0};
    safetensors *file = NULL;
    text_add(&path, "%s/golden.safetensors", folder);
    suite_ok(lib, safetensors_open(lib, path.data, &file));
    const safetensors_entry *entry = safetensors_find(file, name);
    ck_assert_msg(entry != NULL, "%s has no %s", path.data, name);
    void *bytes = malloc(entry->bytes);
    suite_ok(lib, safetensors_read(lib, file, entry, bytes));
    *count = entry->bytes / 4;
    safetensors_close(&file);
    text_free(&path);
    return bytes;
}

static clsplat_model *model_of(const char *folder, clsplat_model_options options) {
    clsplat_model *model = NULL;
    suite_ok(lib, clsplat_model_open(device, folder, options, &model));
    return model;
}

static double difference(const float *a, const float *b, size_t count) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)a[i] - (double)b[i];
        error += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(error / norm);
}

/* Also with activations of 16 bits, which cost digits and not sense. */
START_TEST(rows_and_logits_are_right) {
    static const double limits[] = {1e-5, 2e-2};
    for (int half = 0; half < 2; half++) {
        clsplat_model_options options = clsplat_model_options_defaults();
        options.activations = half ? CLSPLAT_BF16 : CLSPLAT_F32;
        clsplat_model *model = model_of(folders[_i], options);
        const clsplat_model_info *info = clsplat_model_describe(model);
        size_t count, rows, logits;
        int32_t *tokens = load(folders[_i], "input_ids", &count);
        float *wanted = load(folders[_i], "rows", &rows), *guesses = load(folders[_i], "logits", &logits);
        float *found = malloc(rows * sizeof *found), *guessed = malloc(logits * sizeof *guessed);
        ck_assert(info->encoder && info->head && info->longest == LONGEST + (_i < 2 || _i >= 4 ? 2 : 0));
        suite_ok(lib, clsplat_model_read(model, clsplat_model_attention_defaults(), tokens, count, found,
                                         guessed));
        double error = difference(found, wanted, rows), guess = difference(guessed, guesses, logits);
        ck_assert_msg(error < limits[half], "%s: rows are off by %.1e", folders[_i], error);
        ck_assert_msg(guess < 2 * limits[half], "%s: logits are off by %.1e", folders[_i], guess);
        void *all[] = {tokens, wanted, guesses, found, guessed};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            free(all[i]);
        clsplat_model_close(&model);
    }
}
END_TEST

/* A vocabulary of bytes stands around nothing: texts are what they say. */
static char *make_texts(clsplat_text *texts, size_t count) {
    char *bytes = malloc(count * LONGEST);
    for (size_t i = 0; i < count * LONGEST; i++)
        bytes[i] = (char)(2 + i * 7919 % 253);
    for (size_t i = 0; i < count; i++)
        texts[i] = (clsplat_text){bytes + i * LONGEST, 1 + i * i * 5 % LONGEST};
    return bytes;
}

/* Texts of many lengths in one call, in more passes than one, and each alone; all three ways of pooling by
 * hand. */
START_TEST(texts_do_not_meet) {
    enum { TEXTS = 90 };
    clsplat_model_options options = clsplat_model_options_defaults();
    options.chunk = 64;
    clsplat_model *model = model_of(folders[_i], options);
    size_t hidden = clsplat_model_describe(model)->hidden;
    clsplat_text texts[TEXTS];
    char *bytes = make_texts(texts, TEXTS);
    float *together = malloc(TEXTS * hidden * sizeof *together), *alone = malloc(hidden * sizeof *alone),
          *rows = malloc(LONGEST * hidden * sizeof *rows);
    for (int pooling = CLSPLAT_POOLING_MEAN; pooling <= CLSPLAT_POOLING_LAST; pooling++) {
        clsplat_embedding how = clsplat_embedding_defaults();
        how.pooling = (clsplat_pooling)pooling;
        how.normalise = pooling == CLSPLAT_POOLING_LAST;
        suite_ok(lib, clsplat_model_embed(model, how, texts, TEXTS, together));
        for (size_t i = 0; i < TEXTS; i += 7) {
            int32_t tokens[LONGEST];
            size_t count = texts[i].bytes;
            double square = 0;
            for (size_t t = 0; t < count; t++)
                tokens[t] = (unsigned char)texts[i].words[t];
            suite_ok(lib, clsplat_model_read(model, how.attention, tokens, count, rows, NULL));
            for (size_t d = 0; d < hidden; d++) {
                double sum = 0;
                for (size_t t = 0; t < count; t++)
                    sum += (double)rows[t * hidden + d] / (double)count;
                alone[d] = pooling == CLSPLAT_POOLING_MEAN  ? (float)sum
                           : pooling == CLSPLAT_POOLING_CLS ? rows[d]
                                                            : rows[(count - 1) * hidden + d];
                square += (double)alone[d] * (double)alone[d];
            }
            for (size_t d = 0; how.normalise && d < hidden; d++)
                alone[d] = (float)((double)alone[d] / sqrt(square));
            double error = difference(together + i * hidden, alone, hidden);
            ck_assert_msg(error < 1e-5, "text %zu of %zu tokens is off by %.1e", i, count, error);
        }
    }
    free(rows);
    free(alone);
    free(together);
    free(bytes);
    clsplat_model_close(&model);
}
END_TEST

/* Tolerance 0 opens everything; a little leaves a little. */
START_TEST(near_and_far) {
    enum { TEXTS = 6 };
    static const double limits[] = {1e-4, 0.2};
    clsplat_model *model = model_of(folders[0], clsplat_model_options_defaults());
    size_t hidden = clsplat_model_describe(model)->hidden;
    clsplat_text texts[TEXTS];
    char *bytes = make_texts(texts, TEXTS);
    float *exact = malloc(TEXTS * hidden * sizeof *exact), *near = malloc(TEXTS * hidden * sizeof *near);
    clsplat_embedding how = clsplat_embedding_defaults();
    for (size_t i = 0; i < TEXTS; i++)
        texts[i].bytes = LONGEST - i % 3;
    suite_ok(lib, clsplat_model_embed(model, how, texts, TEXTS, exact));
    how.attention.method = CLSPLAT_MODEL_NEAR_FAR;
    how.attention.chunk = 16;
    for (int i = 0; i < 2; i++) {
        how.attention.tolerance = i ? 0.1f : 0;
        suite_ok(lib, clsplat_model_embed(model, how, texts, TEXTS, near));
        double error = difference(near, exact, TEXTS * hidden);
        ck_assert_msg(error < limits[i], "tolerance %g: off by %.1e", (double)how.attention.tolerance, error);
    }
    free(near);
    free(exact);
    free(bytes);
    clsplat_model_close(&model);
}
END_TEST

START_TEST(refusals) {
    clsplat_model *model = model_of(folders[0], clsplat_model_options_defaults()),
                  *writer = model_of(MODELS "/llama", clsplat_model_options_defaults());
    clsplat_session *session = NULL;
    clsplat_embedding how = clsplat_embedding_defaults();
    clsplat_text one = {"a", 1}, none = {"", 0};
    float vector[64];
    int32_t tokens[LONGEST + 3] = {0};
    ck_assert_int_eq(clsplat_session_open(model, 10, how.attention, &session), CLSPLAT_UNSUPPORTED);
    ck_assert_int_eq(clsplat_model_embed(writer, how, &one, 1, vector), CLSPLAT_UNSUPPORTED);
    ck_assert_int_eq(clsplat_model_embed(model, how, &none, 1, vector), CLSPLAT_INVALID);
    suite_ok(lib, clsplat_model_embed(model, how, NULL, 0, NULL));
    ck_assert_int_eq(clsplat_model_read(model, how.attention, tokens, LONGEST + 3, NULL, NULL),
                     CLSPLAT_INVALID);
    ck_assert_int_eq(clsplat_model_read(model, how.attention, tokens, 0, NULL, NULL), CLSPLAT_INVALID);
    ck_assert_int_eq(clsplat_model_read(model, how.attention, &(int32_t){VOCABULARY}, 1, NULL, NULL),
                     CLSPLAT_INVALID);
    how.attention.method = CLSPLAT_MODEL_TOPK;
    ck_assert_int_eq(clsplat_model_embed(model, how, &one, 1, vector), CLSPLAT_UNSUPPORTED);
    clsplat_model_close(&model);
    clsplat_model_close(&writer);
}
END_TEST

static void set_up(void) {
    lib = suite_library();
    device = suite_device(lib);
}

static void tear_down(void) {
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
}

static void add_all(TCase *part) {
    tcase_add_unchecked_fixture(part, set_up, tear_down);
    tcase_add_loop_test(part, rows_and_logits_are_right, 0, FOLDERS);
    tcase_add_loop_test(part, texts_do_not_meet, 0, FOLDERS);
    tcase_add_test(part, near_and_far);
    tcase_add_test(part, refusals);
}

int main(void) {
    static const suite_part parts[] = {{"encoder", add_all}};
    return suite_run("encoder", parts, sizeof parts / sizeof *parts);
}
