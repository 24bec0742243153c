/* GGUF files: what is in them, blocks bit for bit as the gguf package of PyPI reads and makes them, and
 * damaged files, each of which is refused in words or is sound. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/random.h"
#include "base/text.h"
#include "format/blocks.h"
#include "format/files.h"
#include "format/gguf.h"
#include "format/safetensors.h"

static const char blocks_path[] = MODELS "/gguf/blocks.safetensors";

static void put(text *t, uint64_t number, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i)
        text_add_bytes(t, (char[]){(char)(number >> 8 * i)}, 1);
}

static void put_words(text *t, const char *words) {
    put(t, strlen(words), 8);
    text_add(t, "%s", words);
}

static void put_key(text *t, const char *key, gguf_kind kind) {
    put_words(t, key);
    put(t, kind, 4);
}

/* Everything that the reader knows, on 200 bytes of data: two tensors and six keys. */
static text small_file(uint32_t version) {
    text t = {0};
    text_add(&t, "GGUF");
    put(&t, version, 4);
    put(&t, 2, 8);
    put(&t, 6, 8);
    put_key(&t, "general.architecture", GGUF_STRING);
    put_words(&t, "llama");
    put_key(&t, "general.alignment", GGUF_U32);
    put(&t, 64, 4);
    put_key(&t, "a.flag", GGUF_BOOL);
    put(&t, 1, 1);
    put_key(&t, "a.real", GGUF_F32);
    put(&t, 0x3fc00000, 4);
    put_key(&t, "a.list", GGUF_ARRAY);
    put(&t, GGUF_STRING, 4);
    put(&t, 2, 8);
    put_words(&t, "one");
    put_words(&t, "");
    put_key(&t, "a.counts", GGUF_ARRAY);
    put(&t, GGUF_I16, 4);
    put(&t, 3, 8);
    put(&t, 0xffff00050001, 6);
    const char *names[] = {"first", "second"};
    for (uint64_t i = 0; i < 2; ++i) {
        put_words(&t, names[i]);
        put(&t, 2, 4);
        put(&t, 32, 8);
        put(&t, i + 1, 8);
        put(&t, i ? 2 : 0, 4); /* Q4_0: 36 bytes; F32: 128 */
        put(&t, 128 * i, 8);
    }
    while (t.length % 64)
        put(&t, 0, 1);
    for (size_t i = 0; i < 128 + 36; ++i)
        put(&t, i, 1);
    ck_assert(text_ok(&t));
    return t;
}

START_TEST(keys_and_tensors_are_found) {
    files f = files_begin("input.gguf");
    gguf *g = NULL;
    text t = small_file(2 + (uint32_t)_i);
    gguf_words words;
    uint64_t whole;
    double real;
    bool flag = false;
    size_t at = 0;
    files_put(&f, t.data, t.length);
    ck_assert(gguf_is(f.path));
    ck_assert(!gguf_is(f.folder));
    suite_ok(f.lib, gguf_open(f.lib, f.path, &g));
    ck_assert(gguf_flag(gguf_find(g, "a.flag"), &flag) && flag);
    ck_assert(gguf_number(gguf_find(g, "a.real"), 0, &real) && real == 1.5);
    ck_assert(!gguf_whole(gguf_find(g, "a.real"), 0, &whole));
    ck_assert(gguf_whole(gguf_find(g, "a.counts"), 1, &whole) && whole == 5);
    ck_assert(!gguf_whole(gguf_find(g, "a.counts"), 2, &whole)); /* −1 */
    ck_assert(gguf_number(gguf_find(g, "a.counts"), 2, &real) && real == -1);
    ck_assert(!gguf_whole(gguf_find(g, "a.counts"), 3, &whole));
    ck_assert(gguf_next(gguf_find(g, "a.list"), &at, &words) && words.count == 3);
    ck_assert(gguf_next(gguf_find(g, "a.list"), &at, &words) && words.count == 0);
    ck_assert(!gguf_next(gguf_find(g, "a.list"), &at, &words));
    ck_assert_ptr_null(gguf_find(g, "a"));
    const gguf_tensor *second = gguf_find_tensor(g, "second");
    ck_assert_str_eq(second->type->name, "Q4_0");
    ck_assert_uint_eq(second->bytes, 36);
    ck_assert_int_eq(((const unsigned char *)gguf_data(g, second))[0], 128);
    gguf_close(&g);
    text_free(&t);
    files_end(&f);
}
END_TEST

/* Whatever is accepted is sound: every value and every tensor can be read; the sanitiser watches. */
static void visit(const gguf *g) {
    gguf_words words;
    uint64_t whole;
    double real;
    for (size_t i = 0; gguf_value_at(g, i); ++i) {
        const gguf_value *v = gguf_value_at(g, i);
        size_t at = 0;
        ck_assert_ptr_eq(gguf_find(g, v->key), v);
        for (size_t e = 0; e < v->count; ++e) {
            gguf_whole(v, e, &whole);
            gguf_number(v, e, &real);
        }
        while (gguf_next(v, &at, &words))
            for (size_t b = 0; b < words.count; ++b)
                whole += (unsigned char)words.bytes[b];
    }
    for (size_t i = 0; i < gguf_tensor_count(g); ++i) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        float *numbers = malloc(t->count * sizeof *numbers);
        ck_assert_ptr_eq(gguf_find_tensor(g, t->name), t);
        blocks_read(t->type, gguf_data(g, t), t->count, numbers);
        free(numbers);
    }
}

static void expect_answer(files *f, const void *bytes, size_t count) {
    gguf *g = NULL;
    double started = clock_seconds();
    files_put(f, bytes, count);
    clsplat_status status = gguf_open(f->lib, f->path, &g);
    if (status == CLSPLAT_OK) {
        visit(g);
    } else {
        ck_assert(status == CLSPLAT_FORMAT || status == CLSPLAT_UNSUPPORTED ||
                  (status == CLSPLAT_IO && count == 0));
        files_expect_words(f, "");
    }
    gguf_close(&g);
    ck_assert_double_lt(clock_seconds() - started, 5);
}

/* A number written over a place of the small file, and words of the refusal. */
static const struct {
    size_t at, bytes;
    uint64_t number;
    const char *words;
} damaged[] = {
    {0, 4, 0x46554748, "does not begin with 'GGUF'"},
    {4, 4, 1, "version 1"},
    {4, 4, 4, "version 4"},
    {4, 4, 0x03000000, "big-endian"},
    {8, 8, 3, "a tensor's name of 0 bytes"},
    {8, 8, UINT64_MAX, "claims 18446744073709551615 tensors"},
    {16, 8, UINT64_MAX / 2, "keys, more than its"},
    {16, 8, 7, "a tensor's name"},
    {24, 8, UINT64_MAX, "leaves the file"},
    {24, 8, 0, "is empty"},
    {32, 1, 0, "has a NUL"},
    {52, 4, 13, "type 13, which the format does not have"},
    {56, 8, UINT64_MAX - 3, "leaves the file"},
};

START_TEST(a_damaged_file_is_refused_with_words) {
    files f = files_begin("input.gguf");
    gguf *g = NULL;
    text t = small_file(3);
    for (size_t i = 0; i < damaged[_i].bytes; ++i)
        t.data[damaged[_i].at + i] = (char)(damaged[_i].number >> 8 * i);
    files_put(&f, t.data, t.length);
    clsplat_status status = gguf_open(f.lib, f.path, &g);
    ck_assert_msg(status == CLSPLAT_FORMAT || status == CLSPLAT_UNSUPPORTED, "not refused, for %s",
                  damaged[_i].words);
    files_expect_words(&f, damaged[_i].words);
    text_free(&t);
    files_end(&f);
}
END_TEST

/* The same by the words that stand before the place. */
static const struct {
    const char *mark;
    size_t behind, bytes;
    uint64_t number;
    const char *words;
} misplaced[] = {
    {"general.alignment", 4, 4, 48, "power of two"},
    {"general.alignment", 4, 4, 0, "power of two"},
    {"general.alignment", 4, 4, 1u << 30, "power of two"},
    {"a.flag", 4, 1, 2, "neither 0 nor 1"},
    {"a.list", 4, 4, GGUF_ARRAY, "list of lists"},
    {"a.list", 8, 8, UINT64_MAX / 4, "elements of type string leave the file"},
    {"a.counts", 8, 8, 1 << 20, "elements of type int16 leave the file"},
    {"first", 0, 4, 5, "5 dimensions"},
    {"first", 0, 4, 0, "0 dimensions"},
    {"first", 4, 8, 0, "dimension 0 is 0"},
    {"first", 4, 8, 1 << 20, "leave the file"},
    {"first", 12, 8, UINT64_MAX / 16, "2^64"},
    {"first", 20, 4, 10, "Q2_K (10); F32"},
    {"first", 20, 4, 12, "no whole blocks of 256, as type Q4_K"},
    {"first", 24, 8, 4, "no multiple of the alignment, 64"},
    {"second", 24, 8, 64, "overlap"},
    {"second", 24, 8, 1 << 20, "leave the file"},
    {"second", 24, 8, UINT64_MAX - 63, "leave the file"},
};

START_TEST(a_misplaced_number_is_refused_with_words) {
    files f = files_begin("input.gguf");
    gguf *g = NULL;
    text t = small_file(3);
    char *mark = memmem(t.data, t.length, misplaced[_i].mark, strlen(misplaced[_i].mark));
    ck_assert_ptr_nonnull(mark);
    mark += strlen(misplaced[_i].mark) + misplaced[_i].behind;
    for (size_t i = 0; i < misplaced[_i].bytes; ++i)
        mark[i] = (char)(misplaced[_i].number >> 8 * i);
    files_put(&f, t.data, t.length);
    clsplat_status status = gguf_open(f.lib, f.path, &g);
    ck_assert_msg(status == CLSPLAT_FORMAT || status == CLSPLAT_UNSUPPORTED, "not refused, for %s",
                  misplaced[_i].words);
    files_expect_words(&f, misplaced[_i].words);
    text_free(&t);
    files_end(&f);
}
END_TEST

START_TEST(every_truncation_has_an_answer) {
    files f = files_begin("input.gguf");
    text t = small_file(3);
    for (size_t count = 0; count < t.length; ++count)
        expect_answer(&f, t.data, count);
    text_free(&t);
    files_end(&f);
}
END_TEST

/* Bytes changed, and pieces copied over other places, so that the header stays nearly right. */
START_TEST(every_mutation_has_an_answer) {
    files f = files_begin("input.gguf");
    text t = small_file(3);
    char *bytes = malloc(t.length);
    int tries = suite_tier_wanted() == SUITE_LONG ? 10000 : 1500;
    for (int i = 0; i < tries; ++i) {
        random_state r = random_stream(14, (uint64_t)i);
        memcpy(bytes, t.data, t.length);
        for (size_t change = 0; change <= random_below(&r, 3); ++change) {
            size_t count = 1 + random_below(&r, 12), limit = t.length - count;
            size_t to = random_below(&r, limit);
            if (random_below(&r, 2))
                memcpy(bytes + to, t.data + random_below(&r, limit), count);
            else
                bytes[to] = (char)(random_below(&r, 4) ? random_below(&r, 256) : 0xff * random_below(&r, 2));
        }
        expect_answer(&f, bytes, t.length);
    }
    free(bytes);
    text_free(&t);
    files_end(&f);
}
END_TEST

static void *load(const files *f, const safetensors *file, const char *type, const char *what,
                  size_t *bytes) {
    char name[32];
    snprintf(name, sizeof name, "%s.%s", type, what);
    const safetensors_entry *e = safetensors_find(file, name);
    if (!e)
        return NULL;
    void *found = malloc(e->bytes);
    suite_ok(f->lib, safetensors_read(f->lib, file, e, found));
    *bytes = e->bytes;
    return found;
}

START_TEST(blocks_are_the_package_s_bit_for_bit) {
    files f = files_begin("unused");
    const block_type *type = block_type_at((size_t)_i);
    safetensors *file = NULL;
    size_t stored = 0, wanted = 0, given = 0, made_bytes = 0;
    suite_ok(f.lib, safetensors_open(f.lib, blocks_path, &file));
    void *blocks = load(&f, file, type->name, "blocks", &stored);
    float *numbers = load(&f, file, type->name, "numbers", &wanted);
    float *from = load(&f, file, type->name, "from", &given);
    if (blocks) {
        float *got = malloc(wanted);
        ck_assert_uint_eq(stored / type->bytes * type->numbers * sizeof *got, wanted);
        blocks_read(type, blocks, wanted / sizeof *got, got);
        ck_assert_mem_eq(got, numbers, wanted);
        free(got);
    }
    if (from) {
        unsigned char *made = load(&f, file, type->name, "made", &made_bytes), *got = malloc(made_bytes);
        blocks_write(type, from, given / sizeof *from, got);
        ck_assert_mem_eq(got, made, made_bytes);
        free(got);
        free(made);
    }
    ck_assert_msg(blocks || type->numbers == 1, "no blocks of %s", type->name);
    free(blocks);
    free(numbers);
    free(from);
    safetensors_close(&file);
    files_end(&f);
}
END_TEST

static void add_reading(TCase *part) {
    tcase_add_loop_test(part, keys_and_tensors_are_found, 0, 2);
    tcase_add_loop_test(part, blocks_are_the_package_s_bit_for_bit, 0, 11);
}

static void add_damage(TCase *part) {
    tcase_add_loop_test(part, a_damaged_file_is_refused_with_words, 0, sizeof damaged / sizeof *damaged);
    tcase_add_loop_test(part, a_misplaced_number_is_refused_with_words, 0,
                        sizeof misplaced / sizeof *misplaced);
    tcase_add_test(part, every_truncation_has_an_answer);
    tcase_add_test(part, every_mutation_has_an_answer);
}

int main(void) {
    static const suite_part parts[] = {{"reading", add_reading}, {"damage", add_damage}};
    return suite_run("gguf", parts, sizeof parts / sizeof *parts);
}
