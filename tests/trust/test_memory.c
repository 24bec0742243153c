/* Memory that runs out at one allocation after another, of the library's and of Jansson's, while files are
 * read and reports are made: either it is said, and goes well the next time, or the result is the one there
 * is with memory. A part that is left out for want of memory would be another model. The build lets this
 * program's calls of malloc and the like come by here (-Wl,--wrap). */
#include <clsplat/splats.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/text.h"
#include "format/safetensors.h"
#include "model/config.h"
#include "model/gguf_model.h"
#include "report/splats_story.h"
#include "report/tuning_story.h"
#include "suite.h"
#include "tokenizer/tokenizer.h"
#include "tune/database.h"

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
char *__real_strdup(const char *words);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
char *__wrap_strdup(const char *words);

/* The `at`th allocation fails, and with `on` all after it; nothing does unless `armed`. */
static struct {
    long at, calls;
    bool on, armed;
} memory;

static bool gone(void) {
    if (!memory.armed)
        return false;
    long n = ++memory.calls;
    return n == memory.at || (memory.on && memory.at && n > memory.at);
}

void *__wrap_malloc(size_t bytes) {
    return gone() ? NULL : __real_malloc(bytes);
}
void *__wrap_calloc(size_t count, size_t bytes) {
    return gone() ? NULL : __real_calloc(count, bytes);
}
void *__wrap_realloc(void *old, size_t bytes) {
    return gone() ? NULL : __real_realloc(old, bytes);
}
char *__wrap_strdup(const char *words) {
    return gone() ? NULL : __real_strdup(words);
}

/* Jansson 2.14 leaves a letter out when its buffer for a name or a number cannot grow, to 32, 64, … bytes
 * (lex_save looks at no answer), and goes on: that is for its makers to mend. */
static void *jansson_malloc(size_t bytes) {
    bool buffer = bytes >= 32 && (bytes & (bytes - 1)) == 0;
    return buffer ? __real_malloc(bytes) : __wrap_malloc(bytes);
}

/* Reads the file and tells what it found, with memory for the telling. */
typedef clsplat_status reading(clsplat *lib, const char *path, text *answer);

static clsplat_status done(clsplat_status status) {
    memory.armed = false;
    return status;
}

static void tell(text *answer, json_t *value) {
    char *words = json_dumps(value, JSON_SORT_KEYS | JSON_ENCODE_ANY);
    text_add(answer, "%s\n", words);
    free(words);
    json_decref(value);
}

static clsplat_status read_gguf_keys(clsplat *lib, const char *path, text *answer) {
    json_t *root = NULL;
    memory.armed = true;
    clsplat_status status = done(gguf_config_of(lib, path, &root));
    if (status == CLSPLAT_OK)
        tell(answer, root);
    return status;
}

static clsplat_status read_config(clsplat *lib, const char *path, text *answer) {
    model_config c = {0};
    memory.armed = true;
    clsplat_status status = done(model_config_load(lib, path, &c));
    if (status != CLSPLAT_OK)
        return status;
    text_add(answer, "%s %zu %zu %zu %zu %zu %zu %zu %zu %zu", c.family, c.layers, c.hidden, c.heads,
             c.kv_heads, c.head_dim, c.intermediate, c.vocabulary, c.context, c.window);
    text_add(answer, " %zu %g %g %d%d%d%d", c.short_context, c.epsilon, c.score_scale, c.tied, c.qkv_bias,
             c.out_bias, c.mlp_bias);
    for (size_t i = 0; c.windowed && i < c.layers; i++)
        text_add(answer, "%d", c.windowed[i]);
    for (size_t i = 0; c.frequencies && i < c.head_dim; i++)
        text_add(answer, " %a", c.frequencies[i]);
    text_add(answer, " %g %d %d", c.attention_scaling, c.begin, c.pad);
    for (size_t i = 0; i < c.end_count; i++)
        text_add(answer, " %d", c.ends[i]);
    model_config_free(&c);
    return status;
}

static clsplat_status read_tokenizer(clsplat *lib, const char *path, text *answer) {
    static const char words[] =
        "The quick brown fox, 12 345 <s> \xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80 it's\n\t  <|end|> [MASK] end";
    tokenizer *t = NULL;
    int32_t *tokens = NULL;
    size_t count = 0;
    memory.armed = true;
    clsplat_status status = tokenizer_open(lib, path, 1 << 20, &t);
    if (status == CLSPLAT_OK)
        status = tokenizer_encode(t, words, sizeof words - 1, true, &tokens, &count);
    done(status);
    for (size_t i = 0; status == CLSPLAT_OK && i < count; i++)
        text_add(answer, " %d", tokens[i]);
    free(tokens);
    tokenizer_close(&t);
    return status;
}

static clsplat_status read_tensors(clsplat *lib, const char *path, text *answer) {
    safetensors *s = NULL;
    memory.armed = true;
    clsplat_status status = done(safetensors_open(lib, path, &s));
    for (size_t i = 0; status == CLSPLAT_OK && i < safetensors_count(s); i++)
        text_add(answer, " %s %zu", safetensors_at(s, i)->name, (size_t)safetensors_at(s, i)->bytes);
    safetensors_close(&s);
    return status;
}

static clsplat_status read_hierarchy(clsplat *lib, const char *path, text *answer) {
    clsplat_hierarchy h = {0};
    memory.armed = true;
    clsplat_status status = done(clsplat_hierarchy_load(lib, path, &h));
    for (size_t i = 0; status == CLSPLAT_OK && i < h.levels; i++)
        text_add(answer, " %s %zu %g", h.names[i], h.counts[i], (double)h.weights[i]);
    clsplat_hierarchy_free(&h);
    return status;
}

static clsplat_status read_records(clsplat *lib, const char *path, text *answer) {
    tune_database db = {0};
    memory.armed = true;
    clsplat_status status = done(tune_database_load(lib, &db, path));
    for (size_t i = 0; status == CLSPLAT_OK && i < db.count; i++)
        tune_record_write(&db.records[i], answer);
    tune_database_free(&db);
    return status;
}

/* A story whose JSON is NULL is told as the command tells it. */
static clsplat_status whole(clsplat *lib, bool good) {
    return good ? CLSPLAT_OK : log_error(lib, CLSPLAT_MEMORY, "there is no memory for the report");
}

static clsplat_status look_at_splats(clsplat *lib, const char *path, text *answer) {
    clsplat_splats *splats = NULL;
    splats_story story = {0};
    json_t *told = NULL;
    text page = {0};
    memory.armed = true;
    clsplat_status status = clsplat_splats_load(lib, path, &splats);
    if (status == CLSPLAT_OK)
        status = splats_story_create(lib, splats, "splats", &story);
    if (status == CLSPLAT_OK) {
        told = splats_story_json(&story);
        splats_story_page(&story, &page);
        status = whole(lib, told && text_ok(&page));
    }
    done(status);
    if (status == CLSPLAT_OK) {
        tell(answer, json_incref(told));
        text_add(answer, "%s", page.data);
    }
    json_decref(told);
    text_free(&page);
    splats_story_free(&story);
    clsplat_splats_destroy(&splats);
    return status;
}

static const struct {
    const char *name, *path;
    reading *read;
} all[] = {{"safetensors", MODELS "/llama/golden.safetensors", read_tensors},
           {"hierarchy", MODELS "/../trust/seeds/hierarchy.json", read_hierarchy},
           {"records", DEMOS "/../cl/tuning.txt", read_records},
           {"splats", GOLDEN "/diagonal-joint/splats.safetensors", look_at_splats},
           {"keys of GGUF", MODELS "/../trust/seeds/model.gguf", read_gguf_keys},
           {"config of GGUF", MODELS "/../trust/seeds/model.gguf", read_config},
           {"config: llama3", MODELS "/llama-biases-llama3", read_config},
           {"config: longrope", MODELS "/llama-longrope", read_config},
           {"config: windows", MODELS "/gemma2", read_config},
           {"config: encoder", MODELS "/bert", read_config},
           {"tokenizer of GGUF: gpt2", TOKENIZERS "/gpt2/tokenizer.gguf", read_tokenizer},
           {"tokenizer of GGUF: llama3", TOKENIZERS "/llama3/tokenizer.gguf", read_tokenizer},
           {"tokenizer of GGUF: llama", TOKENIZERS "/sp_bpe/tokenizer.gguf", read_tokenizer},
           {"tokenizer: byte-level BPE", TOKENIZERS "/qwen", read_tokenizer},
           {"tokenizer: BPE", TOKENIZERS "/llama2", read_tokenizer},
           {"tokenizer: unigram", TOKENIZERS "/unigram_bytes", read_tokenizer},
           {"tokenizer: WordPiece", TOKENIZERS "/wordpiece", read_tokenizer},
           {"tokenizer: vocab.txt", TOKENIZERS "/wordpiece_txt", read_tokenizer}};

/* What is found with memory; then with one allocation failing, or all from there on. */
static void check_one(clsplat *lib, int i, long at, bool on, const char *expected) {
    text answer = {0};
    log_error(lib, CLSPLAT_INVALID, "no words yet");
    memory.at = at;
    memory.on = on;
    memory.calls = 0;
    clsplat_status status = all[i].read(lib, all[i].path, &answer);
    memory.at = 0;
    if (status == CLSPLAT_OK)
        ck_assert_msg(strcmp(answer.data, expected) == 0,
                      "%s, allocation %ld: status 0, another answer: %.300s, not %.300s", all[i].name, at,
                      answer.data, expected);
    else
        ck_assert_msg(strcmp(clsplat_last_error(lib), "no words yet") != 0, "%s, allocation %ld: no words",
                      all[i].name, at);
    text_free(&answer);
}

START_TEST(what_is_read_is_whole) {
    clsplat *lib = suite_library();
    text expected = {0}, again = {0};
    suite_ok(lib, all[_i].read(lib, all[_i].path, &expected));
    memory.calls = 0;
    suite_ok(lib, all[_i].read(lib, all[_i].path, &again));
    const long count = memory.calls, most = suite_tier_wanted() == SUITE_LONG ? count : 150;
    ck_assert(count > 0 && expected.length > 0);
    ck_assert_str_eq(expected.data, again.data);
    for (long n = 0; n < most && n < count; n++) {
        long at = count <= most ? n + 1 : 1 + (long)((double)n * (double)(count - 1) / (double)(most - 1));
        check_one(lib, _i, at, false, expected.data);
        check_one(lib, _i, at, true, expected.data);
    }
    text_free(&again);
    suite_ok(lib, all[_i].read(lib, all[_i].path, &again));
    ck_assert_str_eq(expected.data, again.data);
    text_free(&again);
    text_free(&expected);
    clsplat_destroy(&lib);
}
END_TEST

static void add_readers(TCase *part) {
    tcase_add_loop_test(part, what_is_read_is_whole, 0, (int)(sizeof all / sizeof *all));
}

int main(void) {
    static const suite_part parts[] = {{"readers", add_readers}};
    json_set_alloc_funcs(jansson_malloc, free);
    return suite_run("memory", parts, sizeof parts / sizeof *parts);
}
