/* Tokenisers that are damaged, hostile, or ask for what there is not: refused in words, never a crash. */
#include <clsplat/clsplat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/random.h"
#include "base/text.h"
#include "base/utf8.h"
#include "format/files.h"
#include "tokenizer/tokenizer.h"

#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}"
#define BPE "\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a b\"]}"
#define DECODER "\"decoder\":{\"type\":\"ByteLevel\"}"
#define WITH(part) "{" part "," DECODER "," BPE "}"
#define MODEL(inside) "{" DECODER ",\"model\":{" inside "}}"
#define UNIGRAM(vocab) MODEL("\"type\":\"Unigram\",\"unk_id\":2,\"vocab\":[" vocab "]")
#define CHARSMAP(table) WITH("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":" table "}")
#define SPLIT(regex)                                                                                         \
    WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"" regex   \
         "\"}}")

/* A file, its refusal's status and words of it. */
static const struct {
    const char *json;
    clsplat_status status;
    const char *words;
} wrong[] = {
    {"", CLSPLAT_FORMAT, "JSON"},
    {"{\"model\":", CLSPLAT_FORMAT, ":1:"},
    {"[]", CLSPLAT_FORMAT, "JSON object"},
    {"{}", CLSPLAT_FORMAT, "model: must be an object"},
    {"{\"model\":{\"type\":\"Lattice\"}}", CLSPLAT_UNSUPPORTED, "'Lattice' is not supported"},
    {"{\"model\":{\"type\":\"Unigram\"}}", CLSPLAT_FORMAT, "needs a list vocab"},
    {UNIGRAM("[\"a\"]"), CLSPLAT_FORMAT, "entry 0 is not a name and a score"},
    {UNIGRAM("[\"a\",\"b\"]"), CLSPLAT_FORMAT, "entry 0 is not a name and a score"},
    {UNIGRAM("[\"a\",-1],[\"a\",-2]"), CLSPLAT_FORMAT, "'a' is there twice"},
    {UNIGRAM("[\"a\",-1]"), CLSPLAT_FORMAT, "unk_id 2 is no token"},
    {CHARSMAP("7"), CLSPLAT_FORMAT, "precompiled_charsmap must be a string"},
    {CHARSMAP("\"?\""), CLSPLAT_FORMAT, "is not base64"},
    {CHARSMAP("\"AAAA\""), CLSPLAT_FORMAT, "is too short"},
    {CHARSMAP("\"AAAAAAAA\""), CLSPLAT_FORMAT, "a trie longer than itself"},
    {CHARSMAP("\"CAAAAAAA\""), CLSPLAT_FORMAT, "a trie longer than itself"},
    {CHARSMAP("\"BAAAAAEAAAAB\""), CLSPLAT_FORMAT, "strings that do not end"},
    {"{\"model\":{\"vocab\":{}}}", CLSPLAT_UNSUPPORTED, "model: the type '' is not supported"},
    {MODEL("\"merges\":[]"), CLSPLAT_FORMAT, "needs an object vocab and a list merges"},
    {MODEL(VOCAB ",\"merges\":[\"a\"]"), CLSPLAT_FORMAT, "each must be two parts"},
    {MODEL(VOCAB ",\"merges\":[\"a b a\"]"), CLSPLAT_FORMAT, "each must be two parts"},
    {MODEL(VOCAB ",\"merges\":[7]"), CLSPLAT_FORMAT, "each must be two parts"},
    {MODEL(VOCAB ",\"merges\":[[\"a\",\"b\",\"a\"]]"), CLSPLAT_FORMAT, "each must be two parts"},
    {MODEL(VOCAB ",\"merges\":[[\"a\",\"b\"],\"b a\"]"), CLSPLAT_FORMAT, "model.merges[1] makes 'ba'"},
    {MODEL("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), CLSPLAT_FORMAT, "the number 0, which another has"},
    {MODEL("\"vocab\":{\"a\":-1},\"merges\":[]"), CLSPLAT_FORMAT, "the number of 'a'"},
    {MODEL("\"vocab\":{\"a\":1.5},\"merges\":[]"), CLSPLAT_FORMAT, "the number of 'a'"},
    {MODEL("\"vocab\":{\"a\":4294967296},\"merges\":[]"), CLSPLAT_FORMAT, "the number of 'a'"},
    {MODEL(VOCAB ",\"merges\":[],\"unk_token\":\"?\""), CLSPLAT_FORMAT, "unk_token '?'"},
    {MODEL(VOCAB ",\"merges\":[],\"dropout\":0.1"), CLSPLAT_UNSUPPORTED, "dropout"},
    {MODEL(VOCAB ",\"merges\":[],\"end_of_word_suffix\":\"</w>\""), CLSPLAT_UNSUPPORTED,
     "end_of_word_suffix"},
    {"{" BPE "}", CLSPLAT_UNSUPPORTED, "decoder: the type 'null'"},
    {"{\"decoder\":{\"type\":\"CTC\"}," BPE "}", CLSPLAT_UNSUPPORTED, "decoder: the type 'CTC'"},
    {"{\"decoder\":{\"type\":\"Sequence\"}," BPE "}", CLSPLAT_FORMAT, "needs the list decoders"},
    {"{\"decoder\":{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}," BPE "}",
     CLSPLAT_UNSUPPORTED, "Strip must follow Fuse"},
    {"{\"decoder\":7," BPE "}", CLSPLAT_FORMAT, "decoder: must be null or an object with a type"},
    {WITH("\"normalizer\":{\"type\":\"ByteLevel\"}"), CLSPLAT_UNSUPPORTED,
     "normalizer: the type 'ByteLevel'"},
    {WITH("\"normalizer\":{\"type\":\"Sequence\"}"), CLSPLAT_FORMAT, "needs the list normalizers"},
    {WITH("\"normalizer\":{\"type\":\"Prepend\"}"), CLSPLAT_FORMAT, "prepend must be a string"},
    {WITH("\"pre_tokenizer\":{\"type\":\"Whitespace\"}"), CLSPLAT_UNSUPPORTED, "'Whitespace'"},
    {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Best\"}"), CLSPLAT_UNSUPPORTED, "'Best'"},
    {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"String\":\"\"}}"),
     CLSPLAT_FORMAT, "pattern must be"},
    {WITH("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"x\"}"),
     CLSPLAT_UNSUPPORTED, "prepend_scheme 'x'"},
    {SPLIT("(a"), CLSPLAT_UNSUPPORTED, "cannot be read: missing closing parenthesis"},
    {SPLIT("\\\\p{Nonsense}"), CLSPLAT_UNSUPPORTED, "unknown property"},
    {SPLIT("[a&&b]"), CLSPLAT_UNSUPPORTED, "&& in brackets"},
    {SPLIT("[a[b]]"), CLSPLAT_UNSUPPORTED, "brackets in brackets"},
    {SPLIT("\\\\h"), CLSPLAT_UNSUPPORTED, "mean something else"},
    {SPLIT("a{1,2}+"), CLSPLAT_UNSUPPORTED, "possessive"},
    {SPLIT("a\\\\"), CLSPLAT_UNSUPPORTED, "a backslash at its end"},
    {SPLIT("\\\\p{L"), CLSPLAT_UNSUPPORTED, "cannot be read"},
    {SPLIT("((a{1000}){1000}){1000}"), CLSPLAT_UNSUPPORTED, "too large"},
    {WITH("\"post_processor\":{\"type\":\"Other\"}"), CLSPLAT_UNSUPPORTED, "'Other'"},
    {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\"}"), CLSPLAT_FORMAT, "single must be a list"},
    {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}]"
          "}"),
     CLSPLAT_FORMAT, "does not say what 'x' is"},
    {WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}},"
          "{\"Sequence\":{}}],\"special_tokens\":{\"x\":{\"ids\":[10]}}}"),
     CLSPLAT_FORMAT, "'x' is not a token"},
    {WITH("\"added_tokens\":{}"), CLSPLAT_FORMAT, "added_tokens: must be a list"},
    {WITH("\"added_tokens\":[7]"), CLSPLAT_FORMAT, "each needs an id and a content"},
    {WITH("\"added_tokens\":[{\"id\":-1,\"content\":\"x\\u001b\"}]"), CLSPLAT_FORMAT,
     "'x\\x1b' has the number -1"},
    {WITH("\"added_tokens\":[{\"id\":4294967296,\"content\":\"x\"}]"), CLSPLAT_FORMAT,
     "'x' has the number 4294967296"},
};

START_TEST(a_wrong_file_is_refused_with_words) {
    files f = files_begin("tokenizer.json");
    tokenizer *t = NULL;
    files_put(&f, wrong[_i].json, strlen(wrong[_i].json));
    clsplat_status status = tokenizer_open(f.lib, f.folder, 10, &t);
    ck_assert_msg(status == wrong[_i].status && !t, "status %d: %s", status, wrong[_i].json);
    files_expect_words(&f, wrong[_i].words);
    files_end(&f);
}
END_TEST

START_TEST(deep_nesting_is_refused) {
    files f = files_begin("tokenizer.json");
    tokenizer *t = NULL;
    text deep = {0};
    text_add(&deep, "{" BPE "," DECODER ",\"normalizer\":");
    for (int i = 0; i < 100000; ++i)
        text_add(&deep, "{\"type\":\"Sequence\",\"normalizers\":[");
    files_put(&f, deep.data, deep.length);
    ck_assert_int_eq(tokenizer_open(f.lib, f.folder, 10, &t), CLSPLAT_FORMAT);
    files_expect_words(&f, "depth");
    text_free(&deep);
    files_end(&f);
}
END_TEST

START_TEST(a_pattern_that_takes_too_long_is_refused) {
    files f = files_begin("tokenizer.json");
    tokenizer *t = NULL;
    static const char json[] = SPLIT("(a+)+$"), letters[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";
    int32_t *tokens;
    size_t count;
    files_put(&f, json, strlen(json));
    suite_ok(f.lib, tokenizer_open(f.lib, f.folder, 10, &t));
    ck_assert_int_eq(tokenizer_encode(t, letters, strlen(letters), true, &tokens, &count),
                     CLSPLAT_UNSUPPORTED);
    ck_assert(!tokens && count == 0);
    files_expect_words(&f, "the pattern fails on this text");
    tokenizer_close(&t);
    files_end(&f);
}
END_TEST

/* What may be on a disk after an accident: the opened ones must also encode, whatever comes out. */
static void open_damaged(const files *f, const char *bytes, size_t count, size_t vocabulary) {
    static const char words[] = "Hello  w\xc3\xb6rld, it's \xf0\x9f\x98\x80 12 <s>\n";
    tokenizer *t = NULL;
    int32_t *tokens;
    size_t tokens_count;
    files_put(f, bytes, count);
    if (tokenizer_open(f->lib, f->folder, vocabulary, &t) != CLSPLAT_OK) {
        ck_assert_ptr_null(t);
        files_expect_words(f, "");
        return;
    }
    if (tokenizer_encode(t, words, strlen(words), true, &tokens, &tokens_count) == CLSPLAT_OK)
        free(tokens);
    tokenizer_close(&t);
}

static const struct {
    const char *path, *name;
    size_t vocabulary;
} damaged[] = {{TOKENIZERS "/llama2/tokenizer.json", "tokenizer.json", 700},
               {TOKENIZERS "/llama3/tokenizer.json", "tokenizer.json", 700},
               {TOKENIZERS "/unigram/tokenizer.json", "tokenizer.json", 401},
               {TOKENIZERS "/sp_bpe/tokenizer.model", "tokenizer.model", 600},
               {TOKENIZERS "/sp_unigram/tokenizer.model", "tokenizer.model", 400}};

START_TEST(a_damaged_file_is_no_crash) {
    files f = files_begin(damaged[_i].name);
    random_state r = random_seed(7);
    char *bytes;
    size_t count, vocabulary = damaged[_i].vocabulary;
    suite_ok(f.lib, file_load(f.lib, damaged[_i].path, 1 << 24, &bytes, &count));
    int rounds = suite_tier_wanted() == SUITE_LONG ? 3000 : 150;
    for (int round = 0; round < rounds; ++round) {
        size_t cut = random_below(&r, count);
        open_damaged(&f, bytes, cut, vocabulary);
        size_t at = random_below(&r, count < 4000 || round % 2 ? count : 4000);
        char kept = bytes[at];
        bytes[at] = (char)random_next(&r);
        open_damaged(&f, bytes, count, vocabulary);
        if (round % 8 != 0) /* damages add up */
            bytes[at] = kept;
    }
    free(bytes);
    files_end(&f);
}
END_TEST

START_TEST(only_bytes_do_without_a_file) {
    files f = files_begin("tokenizer.json");
    tokenizer *t = NULL;
    int32_t *tokens;
    size_t count, bytes;
    char *words;
    suite_ok(f.lib, tokenizer_open(f.lib, f.folder, 257, &t)); /* for who has tokens */
    ck_assert_int_eq(tokenizer_encode(t, "", 0, true, &tokens, &count), CLSPLAT_IO);
    ck_assert(!tokens && count == 0);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(f.lib), "neither tokenizer.json nor tokenizer.model"));
    ck_assert_int_eq(tokenizer_decode(t, (int32_t[]){256}, 1, &words, &bytes), CLSPLAT_IO);
    ck_assert(!words && bytes == 0);
    tokenizer_close(&t);
    suite_ok(f.lib, tokenizer_open(f.lib, f.folder, 256, &t));
    suite_ok(f.lib, tokenizer_encode(t, "\0\xff z", 4, true, &tokens, &count));
    ck_assert(count == 4 && tokens[0] == 0 && tokens[1] == 255 && tokens[2] == ' ' && tokens[3] == 'z');
    suite_ok(f.lib, tokenizer_decode(t, tokens, count, &words, &bytes));
    ck_assert(bytes == 4 && memcmp(words, "\0\xff z", 5) == 0);
    free(words);
    tokens[3] = 256;
    ck_assert_int_eq(tokenizer_decode(t, tokens, count, &words, &bytes), CLSPLAT_INVALID);
    tokens[3] = -1;
    ck_assert_int_eq(tokenizer_decode(t, tokens, count, &words, &bytes), CLSPLAT_INVALID);
    free(tokens);
    suite_ok(f.lib, tokenizer_encode(t, "", 0, true, &tokens, &count));
    ck_assert(count == 0 && tokens);
    free(tokens);
    tokenizer_close(&t);
    files_end(&f);
}
END_TEST

START_TEST(what_is_cut_waits_for_its_rest) {
    static const struct {
        const char *bytes;
        size_t complete;
    } cases[] = {{"", 0},
                 {"a", 1},
                 {"a\xc3", 1},
                 {"\xc3\xa4", 2},
                 {"\xe2\x82", 0},
                 {"\xe2", 0},
                 {"\xe2\x82\xac", 3},
                 {"x\xf0\x9f\x98", 1},
                 {"\xf0\x9f\x98\x80", 4},
                 {"\xff", 1},
                 {"\x80\x80", 2},
                 {"\xe2(", 2},
                 {"\xf4\x90", 2},
                 {"\xed\xa0", 2},
                 {"\xc0", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i)
        ck_assert_uint_eq(utf8_complete(cases[i].bytes, strlen(cases[i].bytes)), cases[i].complete);
    for (int32_t code = 0; code <= 0x10ffff; code += code < 0x1000 ? 1 : 251) {
        char bytes[UTF8_LONGEST];
        int32_t back;
        size_t length = utf8_put(code, bytes);
        if (code >= 0xd800 && code < 0xe000)
            continue;
        ck_assert_uint_eq(utf8_next(bytes, length, &back), length);
        ck_assert_int_eq(back, code);
    }
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_loop_test(part, a_wrong_file_is_refused_with_words, 0, sizeof wrong / sizeof *wrong);
    tcase_add_test(part, deep_nesting_is_refused);
    tcase_add_test(part, a_pattern_that_takes_too_long_is_refused);
    tcase_add_loop_test(part, a_damaged_file_is_no_crash, 0, sizeof damaged / sizeof *damaged);
    tcase_add_test(part, only_bytes_do_without_a_file);
    tcase_add_test(part, what_is_cut_waits_for_its_rest);
}

int main(void) {
    static const suite_part parts[] = {{"damage", add_all}};
    return suite_run("tokenizer_damage", parts, sizeof parts / sizeof *parts);
}
