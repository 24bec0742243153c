/* Damaged safetensors files: none is believed, each is refused in words, quickly. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/random.h"
#include "base/text.h"
#include "format/files.h"
#include "format/safetensors.h"

/* A file of that header, said to be `length` bytes long, and `data` bytes of data. */
static text packed(const char *header, size_t header_bytes, uint64_t length, size_t data) {
    text t = {0};
    for (int i = 0; i < 8; ++i)
        text_add(&t, "%c", (int)(length >> 8 * i & 255));
    text_add_bytes(&t, header, header_bytes);
    for (size_t i = 0; i < data; ++i)
        text_add(&t, "%c", (int)(i & 255));
    ck_assert(text_ok(&t));
    return t;
}

static void expect_refused(files *f, const char *words) {
    safetensors *file = NULL;
    double started = clock_seconds();
    clsplat_status status = safetensors_open(f->lib, f->path, &file);
    ck_assert_msg(status == CLSPLAT_FORMAT, "not refused, for %s", words);
    ck_assert_ptr_null(file);
    files_expect_words(f, words);
    ck_assert_double_lt(clock_seconds() - started, 2);
}

static void refuse(files *f, const char *header, size_t data, const char *words) {
    text t = packed(header, strlen(header), strlen(header), data);
    files_put(f, t.data, t.length);
    text_free(&t);
    expect_refused(f, words);
}

static safetensors *accept(files *f, const char *header, size_t data) {
    safetensors *file = NULL;
    text t = packed(header, strlen(header), strlen(header), data);
    files_put(f, t.data, t.length);
    text_free(&t);
    suite_ok(f->lib, safetensors_open(f->lib, f->path, &file));
    return file;
}

/* Every tensor of the file lies in it and can be read; the sanitiser watches. */
static void expect_sound(files *f, const safetensors *file, size_t file_bytes) {
    for (size_t i = 0; i < safetensors_count(file); ++i) {
        const safetensors_entry *e = safetensors_at(file, i);
        ck_assert(e->begin <= file_bytes && e->bytes <= file_bytes - e->begin);
        unsigned element = safetensors_dtype_bytes(e->dtype);
        ck_assert(!element || e->bytes == e->count * element);
        ck_assert_ptr_nonnull(safetensors_find(file, e->name));
        char *bytes = malloc(e->bytes + 1);
        suite_ok(f->lib, safetensors_read(f->lib, file, e, bytes));
        free(bytes);
    }
}

#define ENTRY(dtype, shape, offsets)                                                                         \
    "\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" offsets "]"

START_TEST(what_is_not_used_is_tolerated) {
    files f = files_begin("input.safetensors");
    safetensors *file = accept(
        &f,
        "{\"other\":{" ENTRY("F4", "3, 3", "8, 13") "}, \"deep\":{" ENTRY(
            "U8", "1,1,1,1,1,1,1,1,1,1",
            "13, 14") ",\"more\":[1.5]},\n\"q\":{" ENTRY("F32", "2",
                                                         "0, 8") "},\"__metadata__\":{\"x\":\"y\"}}   ",
        14);
    ck_assert_uint_eq(safetensors_count(file), 3);
    expect_sound(&f, file, 1 << 20);
    ck_assert_str_eq(safetensors_find(file, "other")->dtype, "F4");
    ck_assert_uint_eq(safetensors_dtype_bytes("F4"), 0);
    ck_assert_uint_eq(safetensors_find(file, "deep")->rank, 10);
    char bytes[8];
    suite_ok(f.lib, safetensors_read(f.lib, file, safetensors_find(file, "q"), bytes));
    ck_assert_mem_eq(bytes, "\0\1\2\3\4\5\6\7", 8);
    safetensors_close(&file);
    file = accept(&f, "{\"q\":{" ENTRY("\\u001b[2J and so on and on", "", "0, 0") "}}", 0);
    ck_assert_str_eq(safetensors_find(file, "q")->dtype, "\\x1b[2J and so ");
    safetensors_close(&file);
    files_end(&f);
}
END_TEST

/* A header, the bytes of data behind it, and words of the refusal. */
static const struct {
    const char *header;
    size_t data;
    const char *words;
} damaged[] = {
    {"", 0, "does not begin with '{'"},
    {"  ", 0, "does not begin with '{'"},
    {"[1, 2]", 0, "does not begin with '{'"},
    {"\"q\"", 0, "does not begin with '{'"},
    {"null", 0, "does not begin with '{'"},
    {"{", 0, "JSON"},
    {"{}{}", 0, "JSON"},
    {"{\"q\":{},}", 0, "tensor 'q': the header"},
    {"{\"k\":1,\"q\":{\"dtype\":\"F", 0, "tensor 'q': the header"},
    {"{\"k\":\"q:\\\",\",\"q\":\"\\u000\"}", 0, "tensor 'q': the header"},
    {"{\"q\\u0000\":1}", 0, "tensor 'q\\xf4\\x8f\\xbf\\xbf': its header entry is not an object"},
    {"{\"q\":{\"a\":1,\"a\":1}}", 0, "tensor 'q': the header"},
    {"{\"\xff\":1}", 0, "unable to decode"},
    {"{\"k\":{},\"q\":{" ENTRY("F32", "1", "0,4") "},\"q\":{" ENTRY("F32", "1", "0,4") "}}", 4, "duplicate"},
    {"{\"__metadata__\":[1]}", 0, "__metadata__"},
    {"{\"q\":7}", 0, "tensor 'q': its header entry is not an object"},
    {"{\"q\":{}}", 0, "tensor 'q': has no dtype"},
    {"{\"q\":{\"dtype\":32}}", 0, "tensor 'q': has no dtype"},
    {"{\"q\":{\"dtype\":\"\"}}", 0, "tensor 'q': has no dtype"},
    {"{\"q\":{\"dtype\":\"F32\"}}", 0, "tensor 'q': has no shape"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":4}}", 0, "tensor 'q': has no shape"},
    {"{\"q\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "tensor 'q': data_offsets"},
    {"{\"q\":{" ENTRY("F32", "1.0", "0,4") "}}", 4, "tensor 'q': dimension 0"},
    {"{\"q\":{" ENTRY("F32", "1,-1,-1", "0,4") "}}", 4, "tensor 'q': dimension 1"},
    {"{\"q\":{" ENTRY("F32", "\"1\"", "0,4") "}}", 4, "tensor 'q': dimension 0"},
    {"{\"q\":{" ENTRY("F32", "[1]", "0,4") "}}", 4, "tensor 'q': dimension 0"},
    {"{\"q\":{" ENTRY("F32", "null", "0,4") "}}", 4, "tensor 'q': dimension 0"},
    {"{\"q\":{" ENTRY("F32", "true", "0,4") "}}", 4, "tensor 'q': dimension 0"},
    {"{\"q\":{" ENTRY("F32", "9223372036854775808", "0,4") "}}", 4, "tensor 'q': the header"},
    {"{\"k\":1,\"q\":{" ENTRY("F32", "1e999", "0,4") "}}", 4, "tensor 'q': the header"},
    {"{\"q\":{" ENTRY("F32", "4294967296,4294967296", "0,4") "}}", 4, "2^64"},
    {"{\"q\":{" ENTRY("X9", "4294967296,4294967296,0", "0,4") "}}", 4, "2^64"},
    {"{\"q\":{" ENTRY("F32", "4611686018427387905", "0,4") "}}", 4, "[4611686018427387905] of F32 is 2^64"},
    {"{\"q\":{" ENTRY("F32", "1", "0") "}}", 4, "tensor 'q': data_offsets"},
    {"{\"q\":{" ENTRY("F32", "1", "0,4,4") "}}", 4, "tensor 'q': data_offsets"},
    {"{\"q\":{" ENTRY("F32", "1", "0,4.0") "}}", 4, "tensor 'q': data_offsets"},
    {"{\"q\":{" ENTRY("F32", "1", "-4,0") "}}", 4, "tensor 'q': data_offsets"},
    {"{\"q\":{" ENTRY("F32", "1", "4,0") "}}", 4, "data_offsets [4, 0] run backwards"},
    {"{\"q\":{" ENTRY("F32", "1", "0,4") "}}", 3, "data_offsets [0, 4] leave the file, which has 3 bytes"},
    {"{\"q\":{" ENTRY("F32", "1", "9223372036854775803,9223372036854775807") "}}", 4, "leave the file"},
    {"{\"q\":{" ENTRY("F32", "1,2", "0,4096") "}}", 4096,
     "tensor 'q': data_offsets [0, 4096] do not fit shape [1, 2] of F32 (8 bytes)"},
    {"{\"q\":{" ENTRY("F64", "", "0,4") "}}", 4, "do not fit shape [] of F64 (8 bytes)"},
    {"{\"q\":{" ENTRY("I8", "1,1,1,1,1,1,1,1,9", "0,4") "}}", 4,
     "[1, 1, 1, 1, 1, 1, 1, 1, ...] of I8 (9 bytes)"},
    {"{\"q\":{" ENTRY("F32", "0", "0,4") "}}", 4, "do not fit shape [0] of F32 (0 bytes)"},
    {"{\"k\":{" ENTRY("F32", "2", "0,8") "},\"q\":{" ENTRY("F32", "1", "4,8") "}}", 8,
     "tensor 'q': data_offsets [4, 8] overlap those of tensor 'k'"},
    {"{\"k\":{" ENTRY("F32", "2", "0,8") "},\"q\":{" ENTRY("F32", "0", "4,4") "}}", 8, "tensor 'q'"},
    {"{\"k\":{" ENTRY("F32", "1", "0,4") "},\"q\":{" ENTRY("F32", "1", "0,4") "}}", 4, "overlap"},
    {"{\"k\":{" ENTRY("F32", "1", "0,4") "},\"q\":{" ENTRY("F32", "1", "8,12") "}}", 12,
     "tensor 'q': before data_offsets [8, 12] are 4 bytes that belong to no tensor"},
    {"{\"q\":{" ENTRY("F32", "1", "0,4") "}}", 5, "the last 1 bytes belong to no tensor"},
    {"{}", 1, "belong to no tensor"},
    {"{\"\\u001b[2J\\n\":7}", 0, "tensor '\\x1b[2J\\x0a'"},
};

START_TEST(a_damaged_header_is_refused_with_words) {
    files f = files_begin("input.safetensors");
    refuse(&f, damaged[_i].header, damaged[_i].data, damaged[_i].words);
    files_end(&f);
}
END_TEST

START_TEST(a_wrong_header_length_is_refused) {
    static const uint64_t lengths[] = {41,         1000,           99999999,   100000001,
                                       1ull << 31, 1ull << 32,     1ull << 40, INT64_MAX,
                                       1ull << 63, UINT64_MAX - 7, UINT64_MAX};
    static const char header[] = "{\"q\":{" ENTRY("U8", "1", "0,1") "}}";
    files f = files_begin("input.safetensors");
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; ++i) {
        text t = packed(header, strlen(header), lengths[i] > 41 ? lengths[i] : strlen(header) + 2, 1);
        files_put(&f, t.data, t.length);
        expect_refused(&f, "claims a header of");
        ck_assert_int_eq(truncate(f.path, 1ll << 40),
                         0); /* the file is as large as the header says, and nearly empty */
        expect_refused(&f, "");
        text_free(&t);
    }
    files_end(&f);
}
END_TEST

START_TEST(nesting_without_end_is_refused) {
    enum { DEPTH = 200000 };
    static const char *const openings[] = {"{\"q\":[", "{\"q\":{\"shape\":[", "{\"q\":"};
    static const char *const pieces[] = {"[", "[", "{\"a\":"};
    files f = files_begin("input.safetensors");
    for (size_t i = 0; i < 3; ++i) {
        text t = {0};
        text_add(&t, "%s", openings[i]);
        for (int d = 0; d < DEPTH; ++d)
            text_add(&t, "%s", pieces[i]);
        refuse(&f, t.data, 0, "tensor 'q': the header");
        text_free(&t);
    }
    files_end(&f);
}
END_TEST

START_TEST(a_long_name_is_cut_in_the_words) {
    files f = files_begin("input.safetensors");
    text t = {0};
    text_add(&t, "{\"%0100000d\":7}", 0);
    refuse(&f, t.data, 0, "000...': its header entry");
    text_free(&t);
    files_end(&f);
}
END_TEST

/* A small file with everything a header can hold. */
static text small_file(size_t *header) {
    static const char json[] =
        "{\"__metadata__\":{\"format\":\"x\"},\"q\":{" ENTRY("F32", "1,3,2", "0,24") "},\"nothing\":{" ENTRY(
            "BOOL", "0,4", "24,24") "},\"h\\u00e9\\n\":{" ENTRY("BF16", "",
                                                                "24,26") "},\"?\":{" ENTRY("F4", "3",
                                                                                           "26,28") "}} ";
    *header = 8 + strlen(json);
    return packed(json, strlen(json), strlen(json), 28);
}

START_TEST(every_truncation_is_refused) {
    files f = files_begin("input.safetensors");
    size_t header;
    text whole = small_file(&header);
    for (size_t count = 0; count < whole.length; ++count) {
        files_put(&f, whole.data, count);
        expect_refused(&f, "");
    }
    text_free(&whole);
    files_end(&f);
}
END_TEST

/* Whatever is changed, the file is refused in words or sound. */
static void expect_answer(files *f, const char *bytes, size_t count) {
    safetensors *file = NULL;
    files_put(f, bytes, count);
    if (safetensors_open(f->lib, f->path, &file) == CLSPLAT_OK)
        expect_sound(f, file, count);
    else
        expect_refused(f, "");
    safetensors_close(&file);
}

START_TEST(every_changed_byte_has_an_answer) {
    static const char others[] = "\0\"0-.,:[]{}\\ \x7f\x80\xff";
    files f = files_begin("input.safetensors");
    size_t header;
    text whole = small_file(&header);
    for (size_t i = 0; i < header; ++i) {
        char kept = whole.data[i];
        for (int bit = 0; bit < 8; ++bit) {
            whole.data[i] = (char)(kept ^ 1 << bit);
            expect_answer(&f, whole.data, whole.length);
        }
        for (size_t o = 0; o < sizeof others; ++o) {
            whole.data[i] = others[o];
            expect_answer(&f, whole.data, whole.length);
        }
        whole.data[i] = kept;
    }
    text_free(&whole);
    files_end(&f);
}
END_TEST

/* Pieces of the file copied over other places, so that the header stays nearly right. */
START_TEST(every_shuffled_file_has_an_answer) {
    files f = files_begin("input.safetensors");
    size_t header;
    text whole = small_file(&header);
    char *bytes = malloc(whole.length);
    int tries = suite_tier_wanted() == SUITE_LONG ? 100000 : 2000;
    for (int i = 0; i < tries; ++i) {
        random_state r = random_stream(1, (uint64_t)i);
        memcpy(bytes, whole.data, whole.length);
        for (size_t change = 0; change <= random_below(&r, 3); ++change) {
            size_t count = 1 + random_below(&r, 12), limit = whole.length - count;
            memcpy(bytes + random_below(&r, limit), whole.data + random_below(&r, limit), count);
        }
        expect_answer(&f, bytes, whole.length);
    }
    free(bytes);
    text_free(&whole);
    files_end(&f);
}
END_TEST

START_TEST(a_header_of_too_many_values_is_refused) {
    enum { VALUES = 3000000 };
    files f = files_begin("input.safetensors");
    char *header = malloc(2 * VALUES + 1);
    for (size_t i = 0; i < VALUES; ++i)
        memcpy(header + 2 * i, i ? "0," : "{[", 2);
    header[2 * VALUES] = '\0';
    refuse(&f, header, 0, "values");
    free(header);
    files_end(&f);
}
END_TEST

static void add_headers(TCase *part) {
    tcase_add_test(part, what_is_not_used_is_tolerated);
    tcase_add_loop_test(part, a_damaged_header_is_refused_with_words, 0, sizeof damaged / sizeof *damaged);
    tcase_add_test(part, a_wrong_header_length_is_refused);
    tcase_add_test(part, nesting_without_end_is_refused);
    tcase_add_test(part, a_long_name_is_cut_in_the_words);
    tcase_add_test(part, a_header_of_too_many_values_is_refused);
}

static void add_fuzzing(TCase *part) {
    tcase_add_test(part, every_truncation_is_refused);
    tcase_add_test(part, every_changed_byte_has_an_answer);
    tcase_add_test(part, every_shuffled_file_has_an_answer);
}

int main(void) {
    static const suite_part parts[] = {{"headers", add_headers}, {"fuzzing", add_fuzzing}};
    return suite_run("damage", parts, sizeof parts / sizeof *parts);
}
