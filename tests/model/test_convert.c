/* Models to GGUF files and back: the logits stay what Hugging Face transformers says of the folder; smaller
 * types stay near. */
#include <clsplat/model.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "format/safetensors.h"
#include "model/convert.h"
#include "suite.h"

static clsplat *lib;
static clsplat_device *device;
static char *folder;

static void begin(void) {
    lib = suite_library();
    device = suite_device(lib);
    folder = suite_folder();
}

static void end(void) {
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
    suite_remove(folder);
}

static text path_in(const char *name) {
    text path = {0};
    text_add(&path, "%s/%s", folder, name);
    return path;
}

static void *load(const char *path, const char *name, size_t *bytes) {
    safetensors *file = NULL;
    suite_ok(lib, safetensors_open(lib, path, &file));
    const safetensors_entry *e = safetensors_find(file, name);
    void *found = malloc(e->bytes);
    suite_ok(lib, safetensors_read(lib, file, e, found));
    *bytes = e->bytes;
    safetensors_close(&file);
    return found;
}

/* ‖logits − golden‖ / ‖golden‖ of the model for the tokens of golden.safetensors in `source`. */
static double error_of(const char *model_path, const char *source) {
    text path = {0};
    clsplat_model *model = NULL;
    clsplat_session *session = NULL;
    size_t bytes, count;
    double error = 0, norm = 0;
    text_add(&path, "%s/golden.safetensors", source);
    int32_t *tokens = load(path.data, "input_ids", &bytes);
    float *golden = load(path.data, "logits", &count);
    float *logits = malloc(count);
    suite_ok(lib, clsplat_model_open(device, model_path, clsplat_model_options_defaults(), &model));
    suite_ok(lib, clsplat_session_open(model, bytes / sizeof *tokens, clsplat_model_attention_defaults(),
                                       &session));
    suite_ok(lib, clsplat_session_feed(session, tokens, bytes / sizeof *tokens, logits));
    for (size_t i = 0; i < count / sizeof *golden; i++) {
        double difference = (double)logits[i] - (double)golden[i];
        error += difference * difference;
        norm += (double)golden[i] * (double)golden[i];
    }
    clsplat_session_close(&session);
    clsplat_model_close(&model);
    text_free(&path);
    free(tokens);
    free(golden);
    free(logits);
    return sqrt(error / norm);
}

static void convert(const char *from, const char *to, const char *type) {
    suite_ok(lib,
             model_convert(lib, &(convert_request){
                                    .from = from, .to = to, .type = type ? block_type_named(type) : NULL}));
}

static const char *const folders[] = {MODELS "/llama", MODELS "/llama-biases-llama3",
                                      MODELS "/llama-linear-shards", MODELS "/mistral-window",
                                      MODELS "/qwen3-yarn"};

START_TEST(a_folder_becomes_a_file_and_a_folder_again) {
    text packed = path_in("model.gguf"), back = path_in("model.safetensors");
    convert(folders[_i], packed.data, NULL);
    ck_assert_double_lt(error_of(packed.data, folders[_i]), 1e-5);
    convert(packed.data, back.data, NULL);
    ck_assert_double_lt(error_of(folder, folders[_i]), 1e-5);
    text_free(&packed);
    text_free(&back);
}
END_TEST

/* Relative errors that such types cause in a small random model. */
static const struct {
    const char *type;
    double least, most;
} types[] = {{"f32", 0, 1e-5},     {"f16", 1e-9, 2e-3},  {"bf16", 1e-9, 2e-2}, {"q8_0", 1e-9, 0.03},
             {"q5_1", 1e-3, 0.15}, {"q5_0", 1e-3, 0.15}, {"q4_1", 1e-3, 0.3},  {"q4_0", 1e-3, 0.3}};

START_TEST(smaller_types_stay_near) {
    text back = path_in("model.safetensors"), packed = path_in("model.gguf");
    convert(MODELS "/gguf/mixed.gguf", back.data, NULL);
    convert(folder, packed.data, types[_i].type);
    double error = error_of(packed.data, MODELS "/gguf");
    ck_assert_msg(error >= types[_i].least && error <= types[_i].most, "%s: %g", types[_i].type, error);
    text_free(&back);
    text_free(&packed);
}
END_TEST

/* What the target has no words for is refused, and nothing is written. */
static const struct {
    const char *from, *to, *type, *words;
} refused[] = {{MODELS "/qwen2-window", "x.gguf", NULL, "sliding window"},
               {MODELS "/llama-longrope", "x.gguf", NULL, "'longrope'"},
               {MODELS "/llama", "x.bin", NULL, "must end in .gguf or .safetensors"},
               {MODELS "/llama", "x.safetensors", "q8_0", "blocks of type Q8_0 are for .gguf"}};

START_TEST(what_cannot_be_said_is_refused) {
    text to = path_in(refused[_i].to);
    const char *type = refused[_i].type;
    clsplat_status status = model_convert(
        lib, &(convert_request){
                 .from = refused[_i].from, .to = to.data, .type = type ? block_type_named(type) : NULL});
    ck_assert_int_ne(status, CLSPLAT_OK);
    ck_assert_msg(strstr(clsplat_last_error(lib), refused[_i].words) != NULL, "%s", clsplat_last_error(lib));
    text_free(&to);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_checked_fixture(part, begin, end);
    tcase_add_loop_test(part, a_folder_becomes_a_file_and_a_folder_again, 0,
                        sizeof folders / sizeof *folders);
    tcase_add_loop_test(part, smaller_types_stay_near, 0, sizeof types / sizeof *types);
    tcase_add_loop_test(part, what_cannot_be_said_is_refused, 0, sizeof refused / sizeof *refused);
}

int main(void) {
    static const suite_part parts[] = {{"convert", add_all}};
    return suite_run("convert", parts, 1);
}
