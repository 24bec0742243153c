/* What stands beside a tokeniser's file, and what Python's libraries write into it that is no matter. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "format/files.h"
#include "suite.h"
#include "tokenizer/tokenizer.h"

#define DECODER "\"decoder\":{\"type\":\"ByteLevel\"}"
#define LEVEL "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"<s>\":3,\"</s>\":4}"
#define HEAD "{" DECODER "," LEVEL ","
#define PLAIN HEAD "\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a b\"]}}"
#define ADDED(list, model) HEAD "\"added_tokens\":[" list "],\"model\":{\"type\":\"BPE\"," model "}}"
#define TOKEN(id, name) "{\"id\":" id ",\"content\":\"" name "\",\"special\":true,\"normalized\":false}"
#define DECODED(id, name)                                                                                    \
    "{\"added_tokens_decoder\":{\"" id "\":{\"content\":\"" name "\",\"special\":true}}}"

/* Files, a text, and the tokens that Hugging Face's tokenizers make of it; a status where there are none. */
static const struct {
    const char *tokenizer, *config, *added, *special, *words;
    int32_t tokens[6]; /* up to −1 */
    clsplat_status status;
} cases[] = {
    {PLAIN, NULL, NULL, NULL, "abb", {2, 1, -1}, CLSPLAT_OK},
    /* more than the model has: a padding token, and a vocabulary that goes on */
    {ADDED(TOKEN("10", "[PAD]"), VOCAB ",\"merges\":[\"a b\"]"), NULL, NULL, NULL, "ab", {2, -1}, CLSPLAT_OK},
    {ADDED(TOKEN("10", "[PAD]"), VOCAB ",\"merges\":[\"a b\"]"),
     NULL,
     NULL,
     NULL,
     "a[PAD]",
     {-1},
     CLSPLAT_INVALID},
    {HEAD "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":99},\"merges\":[]}}",
     NULL,
     NULL,
     NULL,
     "aa",
     {0, 0, -1},
     CLSPLAT_OK},
    {HEAD "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":99},\"merges\":[]}}",
     NULL,
     NULL,
     NULL,
     "ab",
     {-1},
     CLSPLAT_INVALID},
    /* a line of merges.txt that is no merge */
    {HEAD "\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"#version: 0.2\",\"a b\"]}}",
     NULL,
     NULL,
     NULL,
     "ab",
     {2, -1},
     CLSPLAT_OK},
    /* the token for unknown characters among those that were added */
    {ADDED(TOKEN("5", "<unk>"), VOCAB ",\"merges\":[],\"unk_token\":\"<unk>\""),
     NULL,
     NULL,
     NULL,
     "ac",
     {0, 5, -1},
     CLSPLAT_OK},
    /* a token twice, and NUL in a name, which is Ā here in the vocabulary and NUL among those added */
    {HEAD "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"a\":2},\"merges\":[]}}",
     NULL,
     NULL,
     NULL,
     "a",
     {2, -1},
     CLSPLAT_OK},
    {ADDED(TOKEN("5", "a\\u0000b"), VOCAB ",\"merges\":[]"), NULL, NULL, NULL, "a", {0, -1}, CLSPLAT_OK},
    /* tokens that only tokenizer_config.json knows, or added_tokens.json; the second one is not read beside
       the first */
    {PLAIN, DECODED("6", "<x>"), "{\"<y>\":7}", NULL, "a<x>b", {0, 6, 1, -1}, CLSPLAT_OK},
    {PLAIN, "{}", "{\"<y>\":7}", "{\"eos_token\":{\"content\":\"<y>\"}}", "a<y>", {0, 7, -1}, CLSPLAT_OK},
    {PLAIN, "{\"added_tokens_decoder\":{\"x\":{\"content\":\"y\"}}}", NULL, NULL, "a", {-1}, CLSPLAT_FORMAT},
    {PLAIN, NULL, "{\"<y>\":\"7\"}", NULL, "a", {-1}, CLSPLAT_FORMAT},
    {PLAIN,
     "{\"model_max_length\":1000000000000000019884624838656,\"x\":NaN}",
     NULL,
     NULL,
     "a",
     {0, -1},
     CLSPLAT_OK},
    /* tokens that are only named, and one of which the config says how it is found */
    {PLAIN,
     "{\"eos_token\":\"<z>\",\"additional_special_tokens\":[\"<w>\"]}",
     NULL,
     NULL,
     "a<w><z>",
     {0, 6, 5, -1},
     CLSPLAT_OK},
    {ADDED(TOKEN("5", "<x>"), VOCAB ",\"merges\":[]"),
     "{\"added_tokens_decoder\":{\"5\":{\"content\":\"<x>\",\"special\":true,\"lstrip\":true}}}",
     NULL,
     NULL,
     "a  <x>b",
     {0, 5, 1, -1},
     CLSPLAT_OK},
    /* what stands around a text, said in two places: the post-processor counts */
    {PLAIN, "{\"add_bos_token\":true,\"bos_token\":\"<s>\"}", NULL, NULL, "a", {0, -1}, CLSPLAT_OK},
    {HEAD
     "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
     "{\"Sequence\":{}}],\"special_tokens\":{\"<s>\":{\"ids\":[3]}}},\"model\":{\"type\":\"BPE\"," VOCAB
     ",\"merges\":[]}}",
     "{\"add_bos_token\":false,\"bos_token\":\"<s>\"}",
     NULL,
     NULL,
     "a",
     {3, 0, -1},
     CLSPLAT_OK},
};

static void put(const files *f, const char *name, const char *words) {
    char path[512];
    if (!words)
        return;
    snprintf(path, sizeof path, "%s/%s", f->folder, name);
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(words, 1, strlen(words), file), strlen(words));
    fclose(file);
}

static void expect(const tokenizer *t, clsplat *lib, const char *words, size_t bytes,
                   const int32_t *expected) {
    int32_t *tokens;
    size_t count;
    suite_ok(lib, tokenizer_encode(t, words, bytes, true, &tokens, &count));
    for (size_t i = 0; i < count; ++i)
        ck_assert_msg(expected[i] == tokens[i], "token %zu is %d, not %d", i, (int)tokens[i],
                      (int)expected[i]);
    ck_assert_int_eq(expected[count], -1);
    free(tokens);
}

START_TEST(what_is_said_beside_counts) {
    files f = files_begin("tokenizer.json");
    tokenizer *t = NULL;
    int32_t *tokens;
    size_t count;
    put(&f, "tokenizer.json", cases[_i].tokenizer);
    put(&f, "tokenizer_config.json", cases[_i].config);
    put(&f, "added_tokens.json", cases[_i].added);
    put(&f, "special_tokens_map.json", cases[_i].special);
    clsplat_status status = tokenizer_open(f.lib, f.folder, 10, &t);
    if (cases[_i].status == CLSPLAT_FORMAT) {
        ck_assert_int_eq(status, CLSPLAT_FORMAT);
    } else {
        suite_ok(f.lib, status);
        if (cases[_i].status == CLSPLAT_OK)
            expect(t, f.lib, cases[_i].words, strlen(cases[_i].words), cases[_i].tokens);
        else
            ck_assert_int_eq(
                tokenizer_encode(t, cases[_i].words, strlen(cases[_i].words), true, &tokens, &count),
                cases[_i].status);
    }
    tokenizer_close(&t);
    files_end(&f);
}
END_TEST

/* A vocabulary of characters, as SentencePiece's models become, has NUL itself. */
START_TEST(a_name_may_have_nul) {
    files f = files_begin("tokenizer.json");
    tokenizer *t = NULL;
    char *words;
    size_t bytes;
    put(&f, "tokenizer.json",
        "{\"decoder\":{\"type\":\"Fuse\"},\"added_tokens\":[" TOKEN(
            "4", "\\u0000x\\u0000") "],\"model\":{\"type\":\"BPE\","
                                    "\"vocab\":{\"\\u0000\":1,\"a\":2,\"\\u0000a\":3},\"merges\":[\"\\u0000 "
                                    "a\"]}}");
    suite_ok(f.lib, tokenizer_open(f.lib, f.folder, 10, &t));
    expect(t, f.lib, "\0\0a", 3, (int32_t[]){1, 3, -1});
    expect(t, f.lib, "a\0x\0", 4, (int32_t[]){2, 4, -1});
    suite_ok(f.lib, tokenizer_decode(t, (int32_t[]){3, 1}, 2, &words, &bytes));
    ck_assert(bytes == 3 && memcmp(words, "\0a\0", 3) == 0);
    free(words);
    tokenizer_close(&t);
    files_end(&f);
}
END_TEST

/* What is there and cannot be read is no file that is absent. */
START_TEST(a_link_to_nowhere_is_an_error) {
    static const char *const names[] = {"tokenizer_config.json", "added_tokens.json",
                                        "special_tokens_map.json", "tokenizer.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
        files f = files_begin("tokenizer.json");
        tokenizer *t = NULL;
        char path[512];
        snprintf(path, sizeof path, "%s/%s", f.folder, names[i]);
        if (strcmp(names[i], "tokenizer.json") != 0)
            put(&f, "tokenizer.json", PLAIN);
        ck_assert_int_eq(symlink("nowhere", path), 0);
        ck_assert_int_eq(tokenizer_open(f.lib, f.folder, 256, &t), CLSPLAT_IO);
        ck_assert_msg(strstr(clsplat_last_error(f.lib), names[i]) != NULL, "%s", clsplat_last_error(f.lib));
        files_end(&f);
    }
}
END_TEST

static void link_model(const files *f) {
    char path[512];
    snprintf(path, sizeof path, "%s/tokenizer.model", f->folder);
    ck_assert_int_eq(symlink(TOKENIZERS "/sp_bpe/tokenizer.model", path), 0);
}

/* 600 pieces, and what was added; a piece that is called anew. */
START_TEST(sentencepiece_has_added_tokens) {
    static const char *const sides[][3] = {
        {DECODED("600", "<|im_start|>"), NULL, NULL},
        {NULL, "{\"<|im_start|>\":600}", "{\"additional_special_tokens\":[\"<|im_start|>\"]}"},
        {"{}", "{\"<|im_start|>\":600}", NULL}};
    for (size_t i = 0; i < 3; ++i) {
        files f = files_begin("tokenizer.model");
        tokenizer *t = NULL;
        int32_t *tokens;
        char *words;
        size_t count, bytes;
        link_model(&f);
        put(&f, "tokenizer_config.json", sides[i][0]);
        put(&f, "added_tokens.json", sides[i][1]);
        put(&f, "special_tokens_map.json", sides[i][2]);
        clsplat_status status = tokenizer_open(f.lib, f.folder, 601, &t);
        if (status == CLSPLAT_UNSUPPORTED) {
            suite_skipped("added tokens of SentencePiece", "this build does not read its models");
            files_end(&f);
            return;
        }
        suite_ok(f.lib, status);
        suite_ok(f.lib, tokenizer_encode(t, "<|im_start|><|im_start|>", 24, true, &tokens, &count));
        ck_assert_uint_eq(count, 3);
        ck_assert(tokens[1] == 600 && tokens[2] == 600);
        suite_ok(f.lib, tokenizer_decode(t, tokens, count, &words, &bytes));
        ck_assert_str_eq(
            words, i < 2 ? "" : "<|im_start|><|im_start|>"); /* nothing says that the last one is special */
        free(words);
        free(tokens);
        tokenizer_close(&t);
        files_end(&f);
    }
}
END_TEST

/* Words that follow on an added token, as transformers 5.24 reads them; `legacy` puts a space of the model's
 * before them. */
START_TEST(sentencepiece_goes_on_behind_added_tokens) {
    static const char words[] = "<|im_start|>user hello<|im_start|> x";
    static const struct {
        const char *config;
        int32_t tokens[12];
    } ways[] = {{"{\"tokenizer_class\":\"LlamaTokenizer\",\"added_tokens_decoder\":{\"600\":{\"content\":\"<|"
                 "im_start|>\",\"special\":true}}}",
                 {1, 600, 527, 263, 519, 411, 320, 360, 600, 513, 548, -1}},
                {"{\"legacy\":true,\"added_tokens_decoder\":{\"600\":{\"content\":\"<|im_start|>\","
                 "\"special\":true}}}",
                 {1, 600, 468, 519, 411, 320, 360, 600, 513, 548, -1}}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; ++i) {
        files f = files_begin("tokenizer.model");
        tokenizer *t = NULL;
        link_model(&f);
        put(&f, "tokenizer_config.json", ways[i].config);
        if (tokenizer_open(f.lib, f.folder, 601, &t) == CLSPLAT_OK) /* else it was skipped above */
            expect(t, f.lib, words, strlen(words), ways[i].tokens);
        tokenizer_close(&t);
        files_end(&f);
    }
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_loop_test(part, what_is_said_beside_counts, 0, sizeof cases / sizeof *cases);
    tcase_add_test(part, a_name_may_have_nul);
    tcase_add_test(part, a_link_to_nowhere_is_an_error);
    tcase_add_test(part, sentencepiece_has_added_tokens);
    tcase_add_test(part, sentencepiece_goes_on_behind_added_tokens);
}

int main(void) {
    static const suite_part parts[] = {{"beside", add_all}};
    return suite_run("beside", parts, sizeof parts / sizeof *parts);
}
