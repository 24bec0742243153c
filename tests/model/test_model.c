/* Models and sessions: logits against Hugging Face's, prefill against decoding, scores, windows, sampling,
 * and what a session refuses. The models are made by make_models.py; demos/bytelm-4m is a trained one. */
#include <clsplat/model.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/near_far.h"
#include "base/text.h"
#include "format/safetensors.h"
#include "suite.h"

static const char *const folders[] = {
    MODELS "/llama",
    MODELS "/llama-biases-llama3",
    MODELS "/llama-linear-shards",
    MODELS "/mistral-window",
    MODELS "/qwen2-window",
    MODELS "/qwen3-yarn",
    MODELS "/llama-longrope",
    MODELS "/phi3-window",
    MODELS "/olmo2",
    MODELS "/gemma",
    MODELS "/gemma3",
    MODELS "/gemma2",
    MODELS "/qwen2-sinks",
    MODELS "/gguf", /* all types of blocks, and rows of queries and keys in pairs */
    DEMOS "/bytelm-4m",
};
enum {
    LLAMA = 0,
    MISTRAL = 3,
    GEMMA2 = 11,
    SINKS = 12,
    FOLDERS = sizeof folders / sizeof *folders,
    TRAINED = FOLDERS - 1
};

static clsplat *lib;
static clsplat_device *device;

/* A model with what Hugging Face says of it. */
typedef struct sample {
    clsplat_model *model;
    size_t sequences, length, vocabulary;
    int32_t *tokens; /* [sequences,length] */
    float *golden;   /* [sequences,length,vocabulary] */
} sample;

static void *load(const safetensors *file, const char *name, const safetensors_entry **entry) {
    *entry = safetensors_find(file, name);
    ck_assert_msg(*entry != NULL, "%s has no %s", safetensors_path(file), name);
    void *bytes = malloc((*entry)->bytes);
    suite_ok(lib, safetensors_read(lib, file, *entry, bytes));
    return bytes;
}

static sample sample_open(const char *folder, clsplat_model_options options) {
    sample s = {0};
    text path = {0}, model = {0};
    safetensors *file = NULL;
    const safetensors_entry *entry;
    text_add(&path, "%s/golden.safetensors", folder);
    suite_ok(lib, safetensors_open(lib, path.data, &file));
    s.tokens = load(file, "input_ids", &entry);
    s.sequences = entry->shape[0];
    s.length = entry->shape[1];
    s.golden = load(file, "logits", &entry);
    s.vocabulary = entry->shape[2];
    safetensors_close(&file);
    text_free(&path);
    text_add(&model, "%s%s", folder, strcmp(folder, MODELS "/gguf") == 0 ? "/mixed.gguf" : "");
    suite_ok(lib, clsplat_model_open(device, model.data, options, &s.model));
    text_free(&model);
    return s;
}

static void sample_free(sample *s) {
    clsplat_model_close(&s->model);
    free(s->tokens);
    free(s->golden);
}

static clsplat_session *session_open(const sample *s, clsplat_model_attention attention) {
    clsplat_session *session = NULL;
    suite_ok(lib, clsplat_session_open(s->model, s->length, attention, &session));
    return session;
}

/* Each row of logits within `row`, and all together within `whole`, of the reference. */
static void check_logits(const float *got, const float *reference, size_t rows, size_t vocabulary,
                         double whole, double row) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < rows; i++) {
        double e = 0, n = 0;
        for (size_t v = 0; v < vocabulary; v++) {
            double a = (double)got[i * vocabulary + v], r = (double)reference[i * vocabulary + v];
            e += (a - r) * (a - r);
            n += r * r;
        }
        ck_assert_msg(sqrt(e / n) < row, "row %zu is off by %.1e", i, sqrt(e / n));
        error += e;
        norm += n;
    }
    ck_assert_msg(sqrt(error / norm) < whole, "logits are off by %.1e", sqrt(error / norm));
}

/* The logits of a sequence's first tokens, fed `piece` at a time. */
static float *read_in_pieces(const sample *s, clsplat_session *session, size_t sequence, size_t count,
                             size_t piece) {
    float *logits = malloc(count * s->vocabulary * sizeof *logits);
    const int32_t *tokens = s->tokens + sequence * s->length;
    suite_ok(lib, clsplat_session_rewind(session, 0));
    for (size_t at = 0, part; at < count; at += part) {
        part = count - at < piece ? count - at : piece;
        suite_ok(lib, clsplat_session_feed(session, tokens + at, part, logits + at * s->vocabulary));
    }
    ck_assert_uint_eq(clsplat_session_length(session), count);
    return logits;
}

/* In one go, in pieces that do not fit the chunks, and token by token. */
START_TEST(logits_are_right) {
    enum { STEPS = 96 };
    clsplat_model_options options = clsplat_model_options_defaults();
    options.chunk = _i == TRAINED ? 300 : 7;
    sample s = sample_open(folders[_i], options);
    clsplat_session *session = session_open(&s, clsplat_model_attention_defaults());
    for (size_t b = 0; b < s.sequences; b++) {
        const float *golden = s.golden + b * s.length * s.vocabulary;
        size_t steps = s.length < STEPS ? s.length : STEPS;
        float *whole = read_in_pieces(&s, session, b, s.length, s.length);
        float *pieces = read_in_pieces(&s, session, b, steps, 5);
        float *single = read_in_pieces(&s, session, b, steps, 1);
        check_logits(whole, golden, s.length, s.vocabulary, 1e-5, 1e-4);
        check_logits(pieces, golden, steps, s.vocabulary, 1e-5, 1e-4);
        check_logits(single, whole, steps, s.vocabulary, 1e-5, 1e-4);
        free(whole);
        free(pieces);
        free(single);
    }
    clsplat_session_close(&session);
    sample_free(&s);
}
END_TEST

/* A feed without logits does less in the last layer; what comes after it must not differ. */
START_TEST(last_logits_are_right) {
    clsplat_model_options options = clsplat_model_options_defaults();
    options.chunk = 6;
    sample s = sample_open(folders[_i], options);
    clsplat_session *session = session_open(&s, clsplat_model_attention_defaults());
    float *logits = malloc(s.vocabulary * sizeof *logits);
    static const size_t parts[] = {1, 8, 6, 4, 1};
    size_t at = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; at += parts[i++]) {
        suite_ok(lib, clsplat_session_feed(session, s.tokens + at, parts[i], NULL));
        suite_ok(lib, clsplat_session_logits(session, logits));
        check_logits(logits, s.golden + (at + parts[i] - 1) * s.vocabulary, 1, s.vocabulary, 1e-4, 1e-4);
    }
    suite_ok(lib, clsplat_session_rewind(session, 9));
    ck_assert_int_eq(clsplat_session_logits(session, logits), CLSPLAT_INVALID);
    suite_ok(lib, clsplat_session_feed(session, s.tokens + 9, 2, NULL));
    suite_ok(lib, clsplat_session_logits(session, logits));
    check_logits(logits, s.golden + 10 * s.vocabulary, 1, s.vocabulary, 1e-4, 1e-4);
    free(logits);
    clsplat_session_close(&session);
    sample_free(&s);
}
END_TEST

START_TEST(scores_are_right) {
    clsplat_model_options options = clsplat_model_options_defaults();
    options.chunk = 6;
    sample s = sample_open(folders[LLAMA], options);
    clsplat_session *session = session_open(&s, clsplat_model_attention_defaults());
    size_t count = s.length - 1, first = 8;
    float *found = malloc(count * sizeof *found);
    bool *greedy = malloc(count * sizeof *greedy);
    int32_t *targets = malloc(count * sizeof *targets);
    for (size_t i = 0; i < count; i++) {
        const float *row = s.golden + i * s.vocabulary;
        targets[i] = s.tokens[i + 1];
        for (size_t v = 0; i % 2 && v < s.vocabulary; v++)
            targets[i] = row[v] > row[targets[i]] ? (int32_t)v : targets[i];
    }
    suite_ok(lib, clsplat_session_score(session, s.tokens, targets, first, found, NULL));
    suite_ok(lib, clsplat_session_rewind(session, 0));
    suite_ok(lib, clsplat_session_score(session, s.tokens, targets, first, found, greedy));
    suite_ok(lib, clsplat_session_score(session, s.tokens + first, targets + first, count - first,
                                        found + first, greedy + first));
    for (size_t i = 0; i < count; i++) {
        const float *row = s.golden + i * s.vocabulary;
        double sum = 0;
        bool best = true;
        for (size_t v = 0; v < s.vocabulary; v++) {
            sum += exp((double)row[v] - (double)row[targets[i]]);
            best = best && row[v] <= row[targets[i]];
        }
        ck_assert_msg(fabs((double)found[i] + log(sum)) < 1e-4, "token %zu: %g instead of %g", i,
                      (double)found[i], -log(sum));
        ck_assert_int_eq(greedy[i], best);
    }
    free(found);
    free(greedy);
    free(targets);
    clsplat_session_close(&session);
    sample_free(&s);
}
END_TEST

/* The session's own window narrows what the model lets a token see; a wide one changes nothing. */
START_TEST(windows_are_right) {
    sample s = sample_open(folders[MISTRAL], clsplat_model_options_defaults());
    clsplat_model_attention attention = clsplat_model_attention_defaults();
    attention.method = CLSPLAT_MODEL_WINDOW;
    static const size_t windows[] = {6, 100, 3};
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
        clsplat_session_statistics statistics;
        attention.window = windows[i];
        clsplat_session *session = session_open(&s, attention);
        float *whole = read_in_pieces(&s, session, 0, s.length, s.length);
        float *single = read_in_pieces(&s, session, 0, s.length, 1);
        suite_ok(lib, clsplat_session_statistics_read(session, &statistics));
        check_logits(single, whole, s.length, s.vocabulary, 1e-5, 1e-4);
        if (windows[i] >= 6)
            check_logits(whole, s.golden, s.length, s.vocabulary, 1e-5, 1e-4);
        double visible = (double)(1 + 2 + 3 + 4 + 5 + 6 * (s.length - 5)) * 2 * 4; /* layers, heads */
        double exact = windows[i] >= 6 ? visible : (double)(1 + 2 + 3 * (s.length - 2)) * 2 * 4;
        ck_assert(statistics.visible_keys == visible && statistics.exact_keys == exact);
        ck_assert_uint_eq(statistics.tokens, s.length);
        free(whole);
        free(single);
        clsplat_session_close(&session);
    }
    sample_free(&s);
}
END_TEST

/* Trees take sinks, where there are trees; lists of keys leave no mass for them, and know no caps. */
START_TEST(sinks_and_caps) {
    static const char *const words[] = {"sinks", "attn_logit_softcapping"};
    clsplat_model_attention attention = {.method = CLSPLAT_MODEL_NEAR_FAR};
    for (int i = 0; i < 2; i++) {
        sample s = sample_open(folders[i ? GEMMA2 : SINKS], clsplat_model_options_defaults());
        clsplat_session *session = NULL;
        if (!i && near_far_check_device(device) == CLSPLAT_OK) {
            session = session_open(&s, attention);
            float *logits = read_in_pieces(&s, session, 0, s.length, 7);
            check_logits(logits, s.golden, s.length, s.vocabulary, 1e-5, 1e-4);
            free(logits);
        }
        clsplat_session_close(&session);
        attention = (clsplat_model_attention){.method = CLSPLAT_MODEL_TOPK, .sparse_topk = 4};
        ck_assert_int_eq(clsplat_session_open(s.model, 20, attention, &session), CLSPLAT_UNSUPPORTED);
        ck_assert_ptr_nonnull(strstr(clsplat_last_error(lib), words[i]));
        sample_free(&s);
    }
}
END_TEST

/* Two sessions of one model share its buffers, but nothing else. */
START_TEST(sessions_are_independent) {
    sample s = sample_open(folders[LLAMA], clsplat_model_options_defaults());
    clsplat_session *a = session_open(&s, clsplat_model_attention_defaults()),
                    *b = session_open(&s, clsplat_model_attention_defaults());
    float *logits = malloc(s.vocabulary * sizeof *logits);
    for (size_t i = 0; i + 1 < s.length; i++) {
        suite_ok(lib, clsplat_session_feed(a, s.tokens + i, 1, NULL));
        suite_ok(lib, clsplat_session_feed(b, s.tokens + i + 1, 1, NULL));
    }
    suite_ok(lib, clsplat_session_logits(a, logits));
    check_logits(logits, s.golden + (s.length - 2) * s.vocabulary, 1, s.vocabulary, 1e-4, 1e-4);
    free(logits);
    clsplat_session_close(&a);
    clsplat_session_close(&b);
    sample_free(&s);
}
END_TEST

START_TEST(sampling_is_right) {
    sample s = sample_open(folders[LLAMA], clsplat_model_options_defaults());
    clsplat_session *session = session_open(&s, clsplat_model_attention_defaults());
    clsplat_sampling sampling = clsplat_sampling_defaults();
    const float *row = s.golden + 9 * s.vocabulary;
    int32_t token, again, best = 0;
    for (size_t v = 0; v < s.vocabulary; v++)
        best = row[v] > row[best] ? (int32_t)v : best;
    ck_assert_int_eq(clsplat_session_sample(session, sampling, &token), CLSPLAT_INVALID);
    suite_ok(lib, clsplat_session_feed(session, s.tokens, 10, NULL));
    suite_ok(lib, clsplat_session_sample(session, sampling, &token));
    ck_assert_int_eq(token, best);
    sampling.temperature = 2;
    size_t others = 0;
    for (sampling.seed = 0; sampling.seed < 40; sampling.seed++) {
        suite_ok(lib, clsplat_session_sample(session, sampling, &token));
        suite_ok(lib, clsplat_session_sample(session, sampling, &again));
        ck_assert_int_eq(token, again);
        others += token != best;
    }
    ck_assert_uint_ge(others, 1);
    sampling.temperature = -1;
    ck_assert_int_eq(clsplat_session_sample(session, sampling, &token), CLSPLAT_INVALID);
    sampling = clsplat_sampling_defaults();
    sampling.top_p = 0;
    ck_assert_int_eq(clsplat_session_sample(session, sampling, &token), CLSPLAT_INVALID);
    clsplat_session_close(&session);
    sample_free(&s);
}
END_TEST

/* Half-precision storage of activations and cache costs digits, not sense. */
START_TEST(half_storage) {
    clsplat_model_options options = clsplat_model_options_defaults();
    options.activations = options.cache = _i == 0 ? CLSPLAT_BF16 : CLSPLAT_F16;
    sample s = sample_open(folders[LLAMA], options);
    clsplat_session *session = session_open(&s, clsplat_model_attention_defaults());
    float *logits = read_in_pieces(&s, session, 0, s.length, s.length);
    check_logits(logits, s.golden, s.length, s.vocabulary, 3e-2, 2e-1);
    free(logits);
    clsplat_session_close(&session);
    sample_free(&s);
}
END_TEST

START_TEST(refusals) {
    sample s = sample_open(folders[LLAMA], clsplat_model_options_defaults());
    clsplat_session *session = NULL;
    clsplat_model_attention attention = clsplat_model_attention_defaults();
    float score;
    ck_assert_int_eq(clsplat_session_open(s.model, 0, attention, &session), CLSPLAT_INVALID);
    ck_assert_int_eq(clsplat_session_open(s.model, 65, attention, &session), CLSPLAT_INVALID);
    attention.method = CLSPLAT_MODEL_WINDOW;
    attention.window = 0;
    ck_assert_int_eq(clsplat_session_open(s.model, 20, attention, &session), CLSPLAT_INVALID);
    ck_assert_ptr_null(session);
    session = session_open(&s, clsplat_model_attention_defaults());
    ck_assert_int_eq(clsplat_session_feed(session, &(int32_t){256}, 1, NULL), CLSPLAT_INVALID);
    ck_assert_int_eq(clsplat_session_feed(session, &(int32_t){-1}, 1, NULL), CLSPLAT_INVALID);
    ck_assert_int_eq(clsplat_session_score(session, s.tokens, &(int32_t){999}, 1, &score, NULL),
                     CLSPLAT_INVALID);
    ck_assert_uint_eq(clsplat_session_length(session), 0);
    suite_ok(lib, clsplat_session_feed(session, s.tokens, 0, NULL));
    suite_ok(lib, clsplat_session_feed(session, s.tokens, s.length, NULL));
    ck_assert_int_eq(clsplat_session_feed(session, s.tokens, 1, NULL), CLSPLAT_INVALID);
    ck_assert_int_eq(clsplat_session_rewind(session, s.length + 1), CLSPLAT_INVALID);
    clsplat_session_close(&session);
    sample_free(&s);
}
END_TEST

/* A longer context than the model was made for is a choice; memory that is not there is not. */
START_TEST(limits_are_kept) {
    clsplat_model_options options = clsplat_model_options_defaults();
    clsplat_limits real = clsplat_device_describe(device)->limits, small = real;
    clsplat_session *session = NULL;
    options.context = 1 << 20;
    sample s = sample_open(folders[LLAMA], options);
    uint64_t before = clsplat_device_memory(device).now;
    small.global_memory = before + (1 << 20);
    clsplat_device_set_limits(device, small);
    ck_assert_int_eq(clsplat_session_open(s.model, 1 << 20, clsplat_model_attention_defaults(), &session),
                     CLSPLAT_MEMORY);
    suite_ok(lib, clsplat_session_open(s.model, 100, clsplat_model_attention_defaults(), &session));
    clsplat_session_close(&session);
    ck_assert_uint_eq(clsplat_device_memory(device).now, before);
    sample_free(&s);
    clsplat_device_set_limits(device, real);
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
    tcase_add_loop_test(part, logits_are_right, 0, FOLDERS);
    tcase_add_loop_test(part, last_logits_are_right, 0, FOLDERS - 1);
    tcase_add_test(part, scores_are_right);
    tcase_add_test(part, windows_are_right);
    tcase_add_test(part, sinks_and_caps);
    tcase_add_test(part, sessions_are_independent);
    tcase_add_test(part, sampling_is_right);
    tcase_add_loop_test(part, half_storage, 0, 2);
    tcase_add_test(part, refusals);
    tcase_add_test(part, limits_are_kept);
}

int main(void) {
    static const suite_part parts[] = {{"model", add_all}};
    return suite_run("model", parts, sizeof parts / sizeof *parts);
}
