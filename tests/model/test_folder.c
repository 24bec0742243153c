/* Folders that cannot be opened, and what is said of them: one value of a good config.json changed, damaged
 * files, shards that lead elsewhere, weights that do not fit the device. */
#include <clsplat/model.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "format/safetensors.h"
#include "suite.h"

typedef struct change {
    const char *key, *value; /* JSON; NULL: the key is taken out */
    clsplat_status status;
    const char *words; /* in the error; NULL: it opens */
} change;

// clang-format off
static const change changes[] = {
    {"bos_token_id", NULL, CLSPLAT_OK, NULL},
    {"num_key_value_heads", "null", CLSPLAT_FORMAT, "k_proj"},
    {"rope_parameters", NULL, CLSPLAT_OK, NULL},
    {"layer_types", "[\"full_attention\", \"full_attention\"]", CLSPLAT_OK, NULL},
    {"hidden_size", NULL, CLSPLAT_FORMAT, "hidden_size is missing"},
    {"hidden_size", "\"24\"", CLSPLAT_FORMAT, "hidden_size must be a whole number"},
    {"hidden_size", "24.5", CLSPLAT_FORMAT, "hidden_size"},
    {"hidden_size", "1000000000000000000", CLSPLAT_FORMAT, "hidden_size"},
    {"hidden_size", "-1", CLSPLAT_FORMAT, "hidden_size"},
    {"hidden_size", "25", CLSPLAT_FORMAT, "'model.embed_tokens.weight' has the shape [256, 24]"},
    {"num_hidden_layers", "3", CLSPLAT_FORMAT, "'model.layers.2.input_layernorm.weight' is missing"},
    {"num_hidden_layers", "0", CLSPLAT_FORMAT, "num_hidden_layers"},
    {"num_hidden_layers", "4000000000", CLSPLAT_FORMAT, "num_hidden_layers"},
    {"intermediate_size", "41", CLSPLAT_FORMAT, "mlp.gate_proj.weight"},
    {"num_attention_heads", "3", CLSPLAT_FORMAT, "num_attention_heads"},
    {"num_key_value_heads", "3", CLSPLAT_FORMAT, "num_attention_heads"},
    {"head_dim", "15", CLSPLAT_UNSUPPORTED, "head_dim"},
    {"head_dim", "18", CLSPLAT_FORMAT, "q_proj.weight"},
    {"head_dim", "null", CLSPLAT_FORMAT, "q_proj.weight"},
    {"eos_token_id", "256", CLSPLAT_OK, NULL},
    {"eos_token_id", "-1", CLSPLAT_OK, NULL},
    {"bos_token_id", "-1", CLSPLAT_OK, NULL},
    {"bos_token_id", "256", CLSPLAT_OK, NULL},
    {"bos_token_id", "\"<s>\"", CLSPLAT_FORMAT, "bos_token_id must be a token"},
    {"hidden_size", "24.0", CLSPLAT_OK, NULL},
    {"rms_norm_eps", "1e-400", CLSPLAT_OK, NULL},
    {"eos_token_id", "[1, [2]]", CLSPLAT_FORMAT, "eos_token_id"},
    {"eos_token_id", "[1, 2]", CLSPLAT_OK, NULL},
    {"tie_word_embeddings", "false", CLSPLAT_FORMAT, "'lm_head.weight' is missing"},
    {"tie_word_embeddings", "\"yes\"", CLSPLAT_FORMAT, "tie_word_embeddings must be true or false"},
    {"attention_bias", "true", CLSPLAT_OK, NULL}, /* taken as 0, with a warning */
    {"mlp_bias", "true", CLSPLAT_OK, NULL},
    {"model_type", "\"gpt2\"", CLSPLAT_UNSUPPORTED, "model_type is 'gpt2'"},
    {"model_type", NULL, CLSPLAT_FORMAT, "model_type is missing"},
    {"model_type", "\"qwen3\"", CLSPLAT_FORMAT, "q_norm.weight' is missing"},
    {"architectures", "[\"LlamaForSequenceClassification\"]", CLSPLAT_UNSUPPORTED, "architectures"},
    {"hidden_act", "\"mish\"", CLSPLAT_UNSUPPORTED, "hidden_act is 'mish'"},
    {"quantization_config", "{\"bits\": 4}", CLSPLAT_UNSUPPORTED, "quantization_config"},
    {"rms_norm_eps", "\"small\"", CLSPLAT_FORMAT, "rms_norm_eps"},
    {"partial_rotary_factor", "0.5", CLSPLAT_UNSUPPORTED, "partial_rotary_factor"},
    {"rope_parameters", "3", CLSPLAT_FORMAT, "rope_parameters must be an object"},
    {"rope_parameters", "{\"rope_type\": \"ntk\"}", CLSPLAT_UNSUPPORTED, "rope_parameters.rope_type is 'ntk'"},
    {"rope_parameters", "{\"rope_type\": \"longrope\", \"short_factor\": [1, 2]}", CLSPLAT_FORMAT, "rope_parameters.short_factor must be a list of head_dim / 2 = 8 numbers"},
    {"rope_parameters", "{\"rope_type\": \"longrope\", \"short_factor\": [1, 1, 1, 1, 1, 1, 1, 0]}", CLSPLAT_FORMAT, "rope_parameters.short_factor has entry 7"},
    {"rope_parameters", "{\"rope_type\": \"linear\"}", CLSPLAT_FORMAT, "rope_parameters.factor is missing"},
    {"rope_parameters", "{\"rope_type\": \"linear\", \"factor\": 0}", CLSPLAT_FORMAT, "rope_parameters.factor"},
    {"rope_parameters", "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 1}", CLSPLAT_FORMAT, "high_freq_factor"},
    {"rope_parameters", "{\"rope_theta\": -1}", CLSPLAT_FORMAT, "rope_parameters.rope_theta"},
    {"rope_parameters", "{\"full_attention\": {}}", CLSPLAT_UNSUPPORTED, "rope_parameters differs from layer to layer"},
    {"rope_scaling", "{\"type\": \"ntk\"}", CLSPLAT_UNSUPPORTED, "rope_scaling.rope_type is 'ntk'"}, /* it counts, also beside rope_parameters */
    {"rope_scaling", "{}", CLSPLAT_OK, NULL},
    {"layer_types", "[\"full_attention\"]", CLSPLAT_FORMAT, "layer_types"},
    {"layer_types", "[\"full_attention\", \"linear_attention\"]", CLSPLAT_UNSUPPORTED, "layer_types"},
    {"layer_types", "[\"full_attention\", \"sliding_attention\"]", CLSPLAT_UNSUPPORTED, "layer_types"},
};
// clang-format on
enum { CHANGES = sizeof changes / sizeof *changes };

static clsplat *lib;
static clsplat_device *device;
static char *folder;

static char *path_of(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const void *bytes, size_t count) {
    FILE *file = fopen(path_of(name), "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, count, file), count);
    fclose(file);
}

static void write_text(const char *name, const char *words) {
    write_file(name, words, strlen(words));
}

static void use_weights(void) {
    ck_assert_int_eq(symlink(MODELS "/llama/model.safetensors", path_of("model.safetensors")), 0);
}

/* The good configuration with one value changed. */
static void write_config(const char *key, const char *value) {
    json_error_t error;
    json_t *root = json_load_file(MODELS "/llama/config.json", 0, &error);
    ck_assert_ptr_nonnull(root);
    if (key && value)
        json_object_set_new(root, key, json_loads(value, JSON_DECODE_ANY, &error));
    else if (key)
        json_object_del(root, key);
    ck_assert_int_eq(json_dump_file(root, path_of("config.json"), 0), 0);
    json_decref(root);
}

static clsplat_status open_folder(void) {
    clsplat_model *model = NULL;
    uint64_t before = clsplat_device_memory(device).now;
    clsplat_status status = clsplat_model_open(device, folder, clsplat_model_options_defaults(), &model);
    ck_assert((status == CLSPLAT_OK) == (model != NULL));
    clsplat_model_close(&model);
    ck_assert_uint_eq(clsplat_device_memory(device).now, before);
    return status;
}

static void check_refusal(clsplat_status status, const char *words) {
    clsplat_status got = open_folder();
    ck_assert_msg(got == status, "%s (%s) instead of %s", clsplat_status_text(got), clsplat_last_error(lib),
                  clsplat_status_text(status));
    ck_assert_msg(strstr(clsplat_last_error(lib), words) != NULL, "'%s' does not say '%s'",
                  clsplat_last_error(lib), words);
    ck_assert_msg(strstr(clsplat_last_error(lib), folder) != NULL, "'%s' names no file",
                  clsplat_last_error(lib));
}

START_TEST(one_value_changed) {
    const change *c = &changes[_i];
    use_weights();
    write_config(c->key, c->value);
    if (c->words)
        check_refusal(c->status, c->words);
    else
        suite_ok(lib, open_folder());
}
END_TEST

START_TEST(config_is_damaged) {
    char *deep = malloc(200001);
    use_weights();
    check_refusal(CLSPLAT_IO, "config.json");
    write_text("config.json", "");
    check_refusal(CLSPLAT_FORMAT, "JSON");
    write_text("config.json", "[1, 2]");
    check_refusal(CLSPLAT_FORMAT, "must be a JSON object");
    write_text("config.json",
               "{\"model_type\": \"llama\", \"model_type\": \"gpt2\"}"); /* the last one counts */
    check_refusal(CLSPLAT_UNSUPPORTED, "model_type is 'gpt2'");
    memset(deep, '[', 200000);
    deep[200000] = '\0';
    write_text("config.json", deep);
    check_refusal(CLSPLAT_FORMAT, "JSON");
    for (size_t i = 0; i + 5 < 200000; i += 5)
        memcpy(deep + i, "{\"a\":", 5);
    write_text("config.json", deep);
    check_refusal(CLSPLAT_FORMAT, "JSON");
    free(deep);
}
END_TEST

START_TEST(weights_are_damaged) {
    static const uint16_t zeros[256 * 24];
    static const int32_t numbers[256 * 24];
    const safetensors_output half = {"model.embed_tokens.weight", "BF16", 2, {256, 24}, zeros};
    safetensors_output other = {"model.embed_tokens.weight", "I32", 2, {256, 24}, numbers};
    write_config(NULL, NULL);
    check_refusal(CLSPLAT_IO, "model.safetensors");
    write_text("model.safetensors", "short");
    check_refusal(CLSPLAT_FORMAT, "model.safetensors");
    suite_ok(lib, safetensors_save(lib, path_of("model.safetensors"), &half, 1, NULL, 0));
    check_refusal(CLSPLAT_FORMAT, "'model.norm.weight' is missing");
    suite_ok(lib, safetensors_save(lib, path_of("model.safetensors"), &other, 1, NULL, 0));
    check_refusal(CLSPLAT_UNSUPPORTED, "is of type I32");
    other = (safetensors_output){"model.embed_tokens.weight", "BF16", 1, {256 * 24}, zeros};
    suite_ok(lib, safetensors_save(lib, path_of("model.safetensors"), &other, 1, NULL, 0));
    check_refusal(CLSPLAT_FORMAT, "has the shape [6144], where config.json asks for [256, 24]");
}
END_TEST

START_TEST(index_is_damaged) {
    static const char index[] = "model.safetensors.index.json";
    write_config(NULL, NULL);
    write_text(index, "{}");
    check_refusal(CLSPLAT_FORMAT, "weight_map");
    write_text(index, "{\"weight_map\": {\"model.norm.weight\": \"../model.safetensors\"}}");
    check_refusal(CLSPLAT_FORMAT, "weight_map names no file of the folder for tensor 'model.norm.weight'");
    write_text(index, "{\"weight_map\": {\"model.norm.weight\": 3}}");
    check_refusal(CLSPLAT_FORMAT, "weight_map");
    write_text(index, "{\"weight_map\": {\"model.norm.weight\": \"shard.safetensors\"}}");
    check_refusal(CLSPLAT_IO, "shard.safetensors");
    ck_assert_int_eq(symlink(MODELS "/llama/model.safetensors", path_of("shard.safetensors")), 0);
    suite_ok(lib, open_folder()); /* what a shard has is there, also where the index does not say so */
}
END_TEST

/* Known before anything is uploaded. */
START_TEST(memory_is_short) {
    clsplat_limits real = clsplat_device_describe(device)->limits, small = real;
    use_weights();
    write_config(NULL, NULL);
    small.global_memory = 10000;
    clsplat_device_set_limits(device, small);
    check_refusal(CLSPLAT_MEMORY, "weights need");
    small = real;
    small.max_allocation = 40; /* not even a row */
    clsplat_device_set_limits(device, small);
    check_refusal(CLSPLAT_MEMORY, "in one piece");
    clsplat_device_set_limits(device, real);
}
END_TEST

/* generation_config.json adds tokens that end a text. */
START_TEST(ends_are_joined) {
    clsplat_model *model = NULL;
    use_weights();
    write_config("eos_token_id", "[7, 9]");
    write_text("generation_config.json", "{\"eos_token_id\": [9, 11]}");
    suite_ok(lib, clsplat_model_open(device, folder, clsplat_model_options_defaults(), &model));
    ck_assert_uint_eq(clsplat_model_describe(model)->end_count, 3);
    ck_assert(clsplat_model_is_end(model, 7) && clsplat_model_is_end(model, 9) &&
              clsplat_model_is_end(model, 11));
    ck_assert(!clsplat_model_is_end(model, 0));
    clsplat_model_close(&model);
    write_text("generation_config.json", "{\"eos_token_id\": \"</s>\"}");
    check_refusal(CLSPLAT_FORMAT, "generation_config.json: key eos_token_id");
    write_text("generation_config.json", "{\"eos_token_id\": [-1, 300, null, 9]}");
    suite_ok(lib, clsplat_model_open(device, folder, clsplat_model_options_defaults(), &model));
    ck_assert_uint_eq(clsplat_model_describe(model)->end_count, 2);
    clsplat_model_close(&model);
    ck_assert_int_eq(unlink(path_of("generation_config.json")), 0);
    ck_assert_int_eq(symlink("nowhere", path_of("generation_config.json")), 0);
    check_refusal(CLSPLAT_IO, "generation_config.json"); /* it is there, though it cannot be read */
}
END_TEST

static bool stop(void *user, double done) {
    *(double *)user = done;
    return false;
}

START_TEST(options_are_checked) {
    clsplat_model_options options = clsplat_model_options_defaults();
    clsplat_model *model = NULL;
    double done = 0;
    use_weights();
    write_config("rope_parameters", "{\"rope_type\": \"dynamic\", \"factor\": 2}");
    options.context = 65;
    ck_assert_int_eq(clsplat_model_open(device, folder, options, &model), CLSPLAT_UNSUPPORTED);
    options.context = 64;
    suite_ok(lib, clsplat_model_open(device, folder, options, &model));
    clsplat_model_close(&model);
    options.chunk = (1 << 16) + 1;
    ck_assert_int_eq(clsplat_model_open(device, folder, options, &model), CLSPLAT_INVALID);
    options = clsplat_model_options_defaults();
    options.progress = stop;
    options.progress_user = &done;
    ck_assert_int_eq(clsplat_model_open(device, folder, options, &model), CLSPLAT_CANCELLED);
    ck_assert(done > 0 && done < 1);
}
END_TEST

static void open_device(void) {
    lib = suite_library();
    device = suite_device(lib);
}

static void close_device(void) {
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
}

static void make_folder(void) {
    folder = suite_folder();
}

static void remove_folder(void) {
    suite_remove(folder);
}

static void add_all(TCase *part) {
    tcase_add_unchecked_fixture(part, open_device, close_device);
    tcase_add_checked_fixture(part, make_folder, remove_folder);
    tcase_add_loop_test(part, one_value_changed, 0, CHANGES);
    tcase_add_test(part, config_is_damaged);
    tcase_add_test(part, weights_are_damaged);
    tcase_add_test(part, index_is_damaged);
    tcase_add_test(part, memory_is_short);
    tcase_add_test(part, ends_are_joined);
    tcase_add_test(part, options_are_checked);
}

int main(void) {
    static const suite_part parts[] = {{"folder", add_all}};
    return suite_run("folder", parts, sizeof parts / sizeof *parts);
}
