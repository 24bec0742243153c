/* A head and an embedding that are one matrix, or are said to be: what config.json says against what the file
 * has; and logits that are no numbers. */
#include <clsplat/model.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/safetensors.h"
#include "suite.h"

enum { TOKENS = 6, VOCABULARY = 256, HIDDEN = 24, TENSORS = 64 };
#define EMBEDDING "model.embed_tokens.weight"
#define HEAD "lm_head.weight"

static clsplat *lib;
static clsplat_device *device;
static unsigned warnings;
static char warned[1024];

static void listen(void *user, clsplat_log_level level, const char *message) {
    (void)user;
    if (level != CLSPLAT_LOG_WARNING)
        return;
    ++warnings;
    snprintf(warned, sizeof warned, "%s", message);
}

/* What becomes of the embedding of the model in tests/model/llama, which has no other head. */
typedef struct variant {
    const char *name;       /* of the embedding in the file; NULL: it is not there */
    const char *second;     /* under which it is there, too */
    bool differs;           /* the second one, negated */
    bool tied;              /* says config.json */
    const char *(*pair)[2]; /* metadata */
    bool opens, negated;    /* so are the logits */
    unsigned warnings;
} variant;

static const char *alias[][2] = {{HEAD, EMBEDDING}};
static const char *back[][2] = {{EMBEDDING, HEAD}};
static const variant variants[] = {
    {EMBEDDING, NULL, false, true, NULL, true, false, 0},
    {HEAD, NULL, false, true, NULL, true, false, 0},
    {EMBEDDING, HEAD, false, true, NULL, true, false, 0},
    {EMBEDDING, HEAD, true, true, NULL, true, true, 1},
    {EMBEDDING, HEAD, true, false, NULL, true, true, 0},
    {EMBEDDING, HEAD, false, false, NULL, true, false, 0},
    {EMBEDDING, NULL, false, false, alias, true, false, 0},
    {HEAD, NULL, false, false, back, true, false, 0},
    {EMBEDDING, NULL, false, false, NULL, false, false, 0},
    {HEAD, NULL, false, false, NULL, false, false, 0},
};

static void write_config(const char *folder, bool tied) {
    char path[512];
    json_t *root = json_load_file(MODELS "/llama/config.json", 0, NULL);
    ck_assert_ptr_nonnull(root);
    json_object_set_new(root, "tie_word_embeddings", json_boolean(tied));
    snprintf(path, sizeof path, "%s/config.json", folder);
    ck_assert_int_eq(json_dump_file(root, path, 0), 0);
    json_decref(root);
}

/* The file with other embeddings; `damage` puts NaN into the last norm. */
static void write_weights(const char *folder, const variant *v, bool damage) {
    safetensors *file = NULL;
    safetensors_output out[TENSORS];
    void *bytes[TENSORS] = {0};
    char path[512];
    size_t count = 0;
    suite_ok(lib, safetensors_open(lib, MODELS "/llama/model.safetensors", &file));
    for (size_t i = 0; i < safetensors_count(file); ++i) {
        const safetensors_entry *e = safetensors_at(file, i);
        bool embedding = strcmp(e->name, EMBEDDING) == 0;
        for (int copy = 0; copy < (embedding && v->second ? 2 : 1); ++copy, ++count) {
            ck_assert_uint_lt(count, TENSORS);
            uint16_t *numbers = bytes[count] = malloc(e->bytes);
            suite_ok(lib, safetensors_read(lib, file, e, numbers));
            for (size_t n = 0; copy == 1 && v->differs && n < e->count; ++n)
                numbers[n] ^= 0x8000;
            if (damage && strcmp(e->name, "model.norm.weight") == 0)
                memset(numbers, 0xff, 4); /* NaN in every type */
            out[count] = (safetensors_output){copy == 1   ? v->second
                                              : embedding ? v->name
                                                          : e->name,
                                              e->dtype,
                                              e->rank,
                                              {0},
                                              numbers};
            memcpy(out[count].shape, e->shape, sizeof e->shape);
        }
    }
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    suite_ok(lib, safetensors_save(lib, path, out, count, (const char *const(*)[2])v->pair, v->pair ? 1 : 0));
    for (size_t i = 0; i < count; ++i)
        free(bytes[i]);
    safetensors_close(&file);
}

static void read_logits(clsplat_model *model, float *logits) {
    static const int32_t tokens[TOKENS] = {3, 1, 4, 1, 5, 9};
    clsplat_session *session = NULL;
    suite_ok(lib, clsplat_session_open(model, TOKENS, clsplat_model_attention_defaults(), &session));
    suite_ok(lib, clsplat_session_feed(session, tokens, TOKENS, logits));
    clsplat_session_close(&session);
}

START_TEST(what_the_file_has_counts) {
    const variant *v = &variants[_i];
    static float expected[TOKENS * VOCABULARY], logits[TOKENS * VOCABULARY];
    char *folder = suite_folder();
    clsplat_model *model = NULL;
    suite_ok(lib, clsplat_model_open(device, MODELS "/llama", clsplat_model_options_defaults(), &model));
    read_logits(model, expected);
    clsplat_model_close(&model);
    write_config(folder, v->tied);
    write_weights(folder, v, false);
    warnings = 0;
    clsplat_status status = clsplat_model_open(device, folder, clsplat_model_options_defaults(), &model);
    ck_assert_uint_eq(warnings, v->warnings);
    if (warnings)
        ck_assert_msg(strstr(warned, HEAD) && strstr(warned, EMBEDDING) &&
                          strstr(warned, "tie_word_embeddings"),
                      "%s", warned);
    if (v->opens) {
        suite_ok(lib, status);
        read_logits(model, logits);
        for (size_t i = 0; i < TOKENS * VOCABULARY; ++i)
            ck_assert_float_eq_tol(logits[i], v->negated ? -expected[i] : expected[i], 1e-5f);
        clsplat_model_close(&model);
    } else {
        ck_assert_int_eq(status, CLSPLAT_FORMAT);
        ck_assert_ptr_nonnull(strstr(clsplat_last_error(lib), "is missing"));
    }
    suite_remove(folder);
}
END_TEST

START_TEST(no_token_follows_from_nan) {
    static const int32_t tokens[TOKENS] = {3, 1, 4, 1, 5, 9};
    clsplat_sampling ways[3] = {clsplat_sampling_defaults(), clsplat_sampling_defaults(),
                                clsplat_sampling_defaults()};
    float scores[TOKENS - 1];
    bool greedy[TOKENS - 1];
    char *folder = suite_folder();
    clsplat_model *model = NULL;
    clsplat_session *session = NULL;
    ways[1].temperature = 1;
    ways[2] = (clsplat_sampling){.temperature = 0.5f, .top_k = 5, .top_p = 0.9f, .seed = 3};
    write_config(folder, true);
    write_weights(folder, &variants[0], true);
    suite_ok(lib, clsplat_model_open(device, folder, clsplat_model_options_defaults(), &model));
    suite_ok(lib, clsplat_session_open(model, 2 * TOKENS, clsplat_model_attention_defaults(), &session));
    suite_ok(lib, clsplat_session_feed(session, tokens, TOKENS, NULL));
    for (int i = 0; i < 3; ++i) {
        int32_t token = 7;
        ck_assert_int_eq(clsplat_session_sample(session, ways[i], &token), CLSPLAT_NOT_FINITE);
        ck_assert_int_eq(token, -1);
        ck_assert_ptr_nonnull(strstr(clsplat_last_error(lib), "not finite"));
    }
    suite_ok(lib, clsplat_session_rewind(session, 0));
    ck_assert_int_eq(clsplat_session_score(session, tokens, tokens + 1, TOKENS - 1, scores, NULL),
                     CLSPLAT_NOT_FINITE);
    suite_ok(lib, clsplat_session_rewind(session, 0));
    ck_assert_int_eq(clsplat_session_score(session, tokens, tokens + 1, TOKENS - 1, NULL, greedy),
                     CLSPLAT_NOT_FINITE);
    clsplat_session_close(&session);
    clsplat_model_close(&model);
    suite_remove(folder);
}
END_TEST

static void open_device(void) {
    clsplat_options options = clsplat_options_defaults();
    options.log = listen;
    ck_assert_int_eq(clsplat_create(options, &lib), CLSPLAT_OK);
    device = suite_device(lib);
}

static void close_device(void) {
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
}

static void add_all(TCase *part) {
    tcase_add_unchecked_fixture(part, open_device, close_device);
    tcase_add_loop_test(part, what_the_file_has_counts, 0, sizeof variants / sizeof *variants);
    tcase_add_test(part, no_token_follows_from_nan);
}

int main(void) {
    static const suite_part parts[] = {{"head", add_all}};
    return suite_run("head", parts, sizeof parts / sizeof *parts);
}
