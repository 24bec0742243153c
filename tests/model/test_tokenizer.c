/* Tokenisers against what Hugging Face's tokenizers and Google's sentencepiece answer (tokenizers/make.py).
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "suite.h"
#include "tokenizer/tokenizer.h"

static const struct {
    const char *folder;
    size_t vocabulary;
    bool sentencepiece, whole; /* `whole`: what is cut is decoded otherwise, see utf8_add_mended */
    bool packed;               /* as a GGUF file */
} all[] = {
    {"gpt2", 600, false, false, false},
    {"prefix_space", 403, false, false, false},
    {"llama3", 700, false, false, false},
    {"qwen", 603, false, false, false},
    {"splits", 500, false, false, false},
    {"llama2", 700, false, true, false},
    {"metaspace", 400, false, true, false},
    {"sp_bpe", 600, true, true, false},
    {"sp_unigram", 400, true, true, false},
    {"wordpiece", 700, false, true, false},
    {"wordpiece_cased", 700, false, true, false},
    {"wordpiece_txt", 700, false, true, false},
    {"unigram", 401, false, true, false},
    {"unigram_bytes", 600, false, true, false},
    {"gpt2", 600, false, false, true},
    {"llama3", 700, false, false, true},
    {"sp_bpe", 600, false, true, true},
};
enum { ALL = sizeof all / sizeof *all };

/* NULL if this build does not read it. */
static tokenizer *open_it(clsplat *lib, int i) {
    text folder = {0};
    tokenizer *t = NULL;
    text_add(&folder, TOKENIZERS "/%s%s", all[i].folder, all[i].packed ? "/tokenizer.gguf" : "");
    clsplat_status status = tokenizer_open(lib, folder.data, all[i].vocabulary, &t);
    text_free(&folder);
    if (all[i].sentencepiece && status == CLSPLAT_UNSUPPORTED)
        suite_skipped(all[i].folder, "built without SentencePiece");
    else
        suite_ok(lib, status);
    return t;
}

static json_t *expected_of(int i) {
    text path = {0};
    text_add(&path, TOKENIZERS "/%s/expected.json", all[i].folder);
    json_t *cases = json_load_file(path.data, JSON_ALLOW_NUL, NULL);
    ck_assert_msg(json_array_size(cases) > 0, "%s cannot be read", path.data);
    text_free(&path);
    return cases;
}

/* The text of a case, from its letters or as hexadecimal digits. */
static text text_of(const json_t *c) {
    text t = {0};
    const json_t *plain = json_object_get(c, "text");
    const char *digits = json_string_value(json_object_get(c, "hex"));
    text_add(&t, "%s", "");
    if (plain)
        text_add_bytes(&t, json_string_value(plain), json_string_length(plain));
    for (; digits && *digits; digits += 2) {
        unsigned byte;
        sscanf(digits, "%2x", &byte);
        text_add_bytes(&t, (char[]){(char)byte}, 1);
    }
    return t;
}

static text words_of(const int32_t *tokens, size_t count) {
    text t = {0};
    for (size_t i = 0; i < count; ++i)
        text_add(&t, " %d", (int)tokens[i]);
    return t;
}

static void expect_tokens(const tokenizer *t, clsplat *lib, const json_t *c, bool special) {
    const json_t *ids = json_object_get(c, special ? "ids" : "letters");
    text words = text_of(c), expected = {0};
    int32_t *tokens;
    size_t count;
    suite_ok(lib, tokenizer_encode(t, words.data, words.length, special, &tokens, &count));
    for (size_t i = 0; i < json_array_size(ids); ++i)
        text_add(&expected, " %d", (int)json_integer_value(json_array_get(ids, i)));
    text got = words_of(tokens, count);
    ck_assert_msg(count == json_array_size(ids) && (count == 0 || strcmp(got.data, expected.data) == 0),
                  "%s, special %d:%s, expected%s", text_show(words.data).bytes, special,
                  got.data ? got.data : "", expected.data ? expected.data : "");
    text_free(&got);
    text_free(&expected);
    text_free(&words);
    free(tokens);
}

/* Token by token the same text comes out, though perhaps with spaces at its beginning that are not all the
 * first token's. */
static void expect_stream(const tokenizer *t, clsplat *lib, const int32_t *tokens, size_t count,
                          const char *decoded, size_t decoded_bytes) {
    text whole = {0};
    int32_t previous = -1;
    text_add(&whole, "%s", "");
    for (size_t i = 0; i < count; ++i) {
        char *words;
        size_t bytes;
        suite_ok(lib, tokenizer_decode_next(t, previous, tokens[i], &words, &bytes));
        text_add_bytes(&whole, words, bytes);
        previous = tokens[i];
        free(words);
    }
    size_t spaces = whole.length > decoded_bytes ? strspn(whole.data, " ") : 0;
    size_t more = whole.length - decoded_bytes;
    ck_assert_msg(whole.length >= decoded_bytes && more <= spaces &&
                      memcmp(whole.data + more, decoded, decoded_bytes) == 0,
                  "in turn %s, at once %s", text_show(whole.data).bytes, text_show(decoded).bytes);
    text_free(&whole);
}

static void expect_text(const tokenizer *t, clsplat *lib, const json_t *c) {
    const json_t *ids = json_object_get(c, "ids");
    size_t count = json_array_size(ids), bytes;
    int32_t *tokens = malloc((count + 1) * sizeof *tokens);
    char *decoded;
    for (size_t i = 0; i < count; ++i)
        tokens[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    suite_ok(lib, tokenizer_decode(t, tokens, count, &decoded, &bytes));
    text expected = text_of(json_object_get(c, "decoded")), mended = {0};
    text_add(&mended, "%s", "");
    utf8_add_mended(&mended, decoded, bytes);
    ck_assert_msg(mended.length == expected.length &&
                      memcmp(mended.data, expected.data, expected.length) == 0,
                  "decoded %s, expected %s", text_show(mended.data).bytes, text_show(expected.data).bytes);
    text_free(&expected);
    text_free(&mended);
    expect_stream(t, lib, tokens, count, decoded, bytes);
    free(decoded);
    free(tokens);
}

START_TEST(texts_become_the_tokens_of_the_reference_and_texts_again) {
    clsplat *lib = suite_library();
    tokenizer *t = open_it(lib, _i);
    json_t *cases = expected_of(_i), *c;
    size_t i;
    json_array_foreach(cases, i, c) {
        if (!t)
            break;
        expect_tokens(t, lib, c, true);
        expect_tokens(t, lib, c, false);
        expect_text(t, lib, c);
    }
    json_decref(cases);
    tokenizer_close(&t);
    clsplat_destroy(&lib);
}
END_TEST

static void add_expected(TCase *part) {
    tcase_add_loop_test(part, texts_become_the_tokens_of_the_reference_and_texts_again, 0, ALL);
}

int main(void) {
    static const suite_part parts[] = {{"expected", add_expected}};
    return suite_run("tokenizer", parts, sizeof parts / sizeof *parts);
}
