/* What every floor stands on: clock, half floats, log, random numbers, text. Files have test_file.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/half.h"
#include "base/log.h"
#include "base/random.h"
#include "base/text.h"
#include "suite.h"

START_TEST(clock_never_runs_backwards) {
    double started = clock_seconds(), before = started;
    for (int i = 0; i < 10000; ++i) {
        double now = clock_seconds();
        ck_assert_double_ge(now, before);
        before = now;
    }
    ck_assert_double_gt(before, started);
}
END_TEST

static void add_clock(TCase *part) {
    tcase_add_test(part, clock_never_runs_backwards);
}

/* A 16-bit format, and what its numbers are by its definition. */
typedef struct half_format {
    float (*from)(uint16_t bits);
    uint16_t (*to)(float value);
    int fraction_bits, bias;
    uint16_t infinity;
} half_format;
static const half_format half_formats[] = {{half_from_f16, half_to_f16, 10, 15, 0x7c00},
                                           {half_from_bf16, half_to_bf16, 7, 127, 0x7f80}};

/* Of a finite number, or of the power of two at which infinity stands. */
static double meaning(const half_format *f, uint16_t bits) {
    int fraction = bits & ((1 << f->fraction_bits) - 1), exponent = (bits & 0x7fff) >> f->fraction_bits;
    double magnitude = exponent
                           ? ldexp(fraction + (1 << f->fraction_bits), exponent - f->bias - f->fraction_bits)
                           : ldexp(fraction, 1 - f->bias - f->fraction_bits);
    return bits & 0x8000 ? -magnitude : magnitude;
}

START_TEST(half_numbers_are_what_their_bits_mean) {
    const half_format *f = &half_formats[_i];
    for (uint32_t b = 0; b < 0x10000; ++b) {
        uint16_t bits = (uint16_t)b, magnitude = bits & 0x7fff;
        float value = f->from(bits);
        if (magnitude > f->infinity) {
            ck_assert(isnan(value));
            ck_assert(isnan(f->from(f->to(value))));
            continue;
        }
        if (magnitude == f->infinity)
            ck_assert(isinf(value));
        else
            ck_assert_double_eq((double)value, meaning(f, bits));
        ck_assert(!signbit(value) == !(bits & 0x8000));
        ck_assert_uint_eq(f->to(value), bits);
    }
}
END_TEST

/* Between any two neighbours the middle goes to the even one, and whatever is off the middle to the nearer.
 */
START_TEST(half_rounds_to_nearest_even) {
    const half_format *f = &half_formats[_i];
    for (uint16_t lower = 0; lower < f->infinity; ++lower) {
        uint16_t upper = lower + 1;
        float middle = (float)(0.5 * (meaning(f, lower) + meaning(f, upper)));
        ck_assert_uint_eq(f->to(middle), lower % 2 ? upper : lower);
        ck_assert_uint_eq(f->to(nextafterf(middle, 0)), lower);
        ck_assert_uint_eq(f->to(nextafterf(middle, INFINITY)), upper);
        ck_assert_uint_eq(f->to(-middle), 0x8000 | (lower % 2 ? upper : lower));
    }
    ck_assert_uint_eq(f->to(INFINITY), f->infinity);
    ck_assert_uint_eq(f->to(-INFINITY), 0x8000 | f->infinity);
}
END_TEST

static void add_half(TCase *part) {
    tcase_add_loop_test(part, half_numbers_are_what_their_bits_mean, 0, 2);
    tcase_add_loop_test(part, half_rounds_to_nearest_even, 0, 2);
}

typedef struct heard {
    clsplat_log_level level;
    char message[256];
    int count;
} heard;

static void hear(void *user, clsplat_log_level level, const char *message) {
    heard *h = user;
    h->level = level;
    h->count++;
    snprintf(h->message, sizeof h->message, "%s", message);
}

START_TEST(log_passes_messages_on_with_their_level) {
    heard h = {0};
    clsplat *lib = NULL;
    ck_assert_int_eq(clsplat_create((clsplat_options){.log = hear, .user = &h}, &lib), CLSPLAT_OK);
    ck_assert_str_eq(clsplat_last_error(lib), "");
    ck_assert_int_eq(log_error(lib, CLSPLAT_SHAPE, "k has %d rows", 7), CLSPLAT_SHAPE);
    ck_assert_str_eq(h.message, "k has 7 rows");
    ck_assert_int_eq(h.level, CLSPLAT_LOG_ERROR);
    log_warning(lib, "slow: %s", "x");
    ck_assert_str_eq(h.message, "slow: x");
    ck_assert_int_eq(h.level, CLSPLAT_LOG_WARNING);
    log_info(lib, "built in %.1f s", 0.5);
    ck_assert_str_eq(h.message, "built in 0.5 s");
    ck_assert_int_eq(h.level, CLSPLAT_LOG_INFO);
    ck_assert_int_eq(h.count, 3);
    ck_assert_str_eq(clsplat_last_error(lib), "k has 7 rows");
    clsplat_destroy(&lib);
    ck_assert_ptr_null(lib);
}
END_TEST

START_TEST(log_remembers_the_last_error_alone) {
    clsplat *lib = NULL;
    ck_assert_int_eq(clsplat_create(clsplat_options_defaults(), &lib), CLSPLAT_OK);
    log_error(lib, CLSPLAT_IO, "inner");
    log_error(lib, CLSPLAT_IO, "outer: %s", clsplat_last_error(lib));
    ck_assert_str_eq(clsplat_last_error(lib), "outer: inner");
    char *longer = malloc(100000);
    memset(longer, 'x', 99999);
    longer[99999] = '\0';
    log_error(lib, CLSPLAT_BUILD, "%s", longer);
    log_info(lib, "%s", longer);
    ck_assert_uint_eq(strlen(clsplat_last_error(lib)), LOG_WORDS - 1);
    free(longer);
    clsplat_destroy(&lib);
    clsplat_destroy(&lib);
    clsplat_destroy(NULL);
}
END_TEST

START_TEST(log_has_words_for_every_status) {
#define X(name, value, text) ck_assert_str_eq(clsplat_status_text(CLSPLAT_##name), text);
    CLSPLAT_STATUS_LIST(X)
#undef X
    ck_assert_ptr_nonnull(clsplat_status_text((clsplat_status)1000));
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", CLSPLAT_VERSION_MAJOR, CLSPLAT_VERSION_MINOR,
             CLSPLAT_VERSION_PATCH);
    ck_assert_str_eq(clsplat_version(), version);
}
END_TEST

static void add_log(TCase *part) {
    tcase_add_test(part, log_passes_messages_on_with_their_level);
    tcase_add_test(part, log_remembers_the_last_error_alone);
    tcase_add_test(part, log_has_words_for_every_status);
}

START_TEST(random_is_splitmix64) {
    random_state r = random_seed(1234567); /* the published test vector of the algorithm */
    static const uint64_t expected[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                        4593380528125082431u, 16408922859458223821u};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; ++i)
        ck_assert_uint_eq(random_next(&r), expected[i]);
}
END_TEST

START_TEST(random_streams_differ_and_repeat) {
    uint64_t first[100];
    for (uint64_t s = 0; s < 100; ++s) {
        random_state r = random_stream(5, s), again = random_stream(5, s), other = random_stream(6, s);
        first[s] = random_next(&r);
        ck_assert_uint_eq(random_next(&again), first[s]);
        ck_assert_uint_ne(random_next(&other), first[s]);
        for (uint64_t t = 0; t < s; ++t)
            ck_assert_uint_ne(first[s], first[t]);
    }
}
END_TEST

START_TEST(random_numbers_have_their_moments) {
    enum { DRAWS = 200000 };
    random_state r = random_seed(1);
    double uniform = 0, normal = 0, square = 0;
    for (int i = 0; i < DRAWS; ++i) {
        double u = random_uniform(&r), n = random_normal(&r);
        ck_assert(u >= 0 && u < 1);
        ck_assert(isfinite(n));
        uniform += u / DRAWS;
        normal += n / DRAWS;
        square += n * n / DRAWS;
    }
    ck_assert_double_eq_tol(uniform, 0.5, 0.004); /* five standard errors and more */
    ck_assert_double_eq_tol(normal, 0, 0.012);
    ck_assert_double_eq_tol(square, 1, 0.017);
}
END_TEST

START_TEST(random_below_is_even) {
    enum { LIMIT = 7, DRAWS = 70000 };
    random_state r = random_seed(2);
    int seen[LIMIT] = {0};
    for (int i = 0; i < DRAWS; ++i) {
        size_t x = random_below(&r, LIMIT);
        ck_assert_uint_lt(x, LIMIT);
        ++seen[x];
    }
    for (int x = 0; x < LIMIT; ++x)
        ck_assert_int_le(abs(seen[x] - DRAWS / LIMIT), 500); /* a standard deviation is 93 */
    ck_assert_uint_eq(random_below(&r, 1), 0);
    size_t upper_half = 0;
    for (int i = 0; i < 1000; ++i) /* of a limit that a plain remainder would favour by half */
        upper_half += random_below(&r, 3ul << 62) >= 3ul << 61;
    ck_assert_uint_ge(upper_half, 400);
}
END_TEST

START_TEST(random_sample_takes_each_alike) {
    enum { LIMIT = 20, COUNT = 5, DRAWS = 20000 };
    random_state r = random_seed(3);
    size_t chosen[LIMIT];
    int seen[LIMIT] = {0};
    for (int i = 0; i < DRAWS; ++i) {
        random_sample(&r, LIMIT, COUNT, chosen);
        for (int c = 0; c < COUNT; ++c) {
            ck_assert_uint_lt(chosen[c], LIMIT);
            ck_assert(c == 0 || chosen[c - 1] < chosen[c]);
            ++seen[chosen[c]];
        }
    }
    for (int x = 0; x < LIMIT; ++x)
        ck_assert_int_le(abs(seen[x] - DRAWS * COUNT / LIMIT), 350); /* a standard deviation is 61 */
    random_sample(&r, LIMIT, LIMIT, chosen);
    for (size_t x = 0; x < LIMIT; ++x)
        ck_assert_uint_eq(chosen[x], x);
    random_sample(&r, 0, 0, chosen);
}
END_TEST

static void add_random(TCase *part) {
    tcase_add_test(part, random_is_splitmix64);
    tcase_add_test(part, random_streams_differ_and_repeat);
    tcase_add_test(part, random_numbers_have_their_moments);
    tcase_add_test(part, random_below_is_even);
    tcase_add_test(part, random_sample_takes_each_alike);
}

START_TEST(text_grows) {
    text t = {0};
    ck_assert(text_ok(&t));
    for (int i = 0; i < 1000; ++i)
        text_add(&t, "%03d%s", i, ",");
    ck_assert_uint_eq(t.length, 4000);
    ck_assert_uint_eq(strlen(t.data), 4000);
    for (int i = 0; i < 1000; ++i)
        ck_assert_int_eq(atoi(t.data + 4 * i), i);
    text_add_bytes(&t, "a\0b", 3);
    ck_assert_uint_eq(t.length, 4003);
    ck_assert_mem_eq(t.data + 4000, "a\0b", 4);
    ck_assert(text_ok(&t));
    text_free(&t);
    ck_assert_ptr_null(t.data);
}
END_TEST

START_TEST(text_remembers_a_failure) {
    text t = {0};
    text_add(&t, "before");
    t.failed = true;
    text_add(&t, "after");
    text_add_bytes(&t, "after", 5);
    ck_assert(!text_ok(&t));
    ck_assert_str_eq(t.data, "before");
    text_free(&t);
    ck_assert(text_ok(&t));
}
END_TEST

START_TEST(text_is_found_in_either_case) {
    ck_assert(text_contains("Portable Computing Language", "comPUTing"));
    ck_assert(text_contains("NVIDIA H200", "nvidia h200"));
    ck_assert(text_contains("aab", "AB"));
    ck_assert(text_contains("abc", "c"));
    ck_assert(text_contains("abc", ""));
    ck_assert(text_contains("", ""));
    ck_assert(!text_contains("", "a"));
    ck_assert(!text_contains("abc", "abcd"));
    ck_assert(!text_contains("abc", "ac"));
    ck_assert(!text_contains("[", "{"));
}
END_TEST

START_TEST(text_is_shown_on_one_line) {
    ck_assert_str_eq(text_show("layers.0.q").bytes, "layers.0.q");
    ck_assert_str_eq(text_show("").bytes, "");
    ck_assert_str_eq(text_show("a\n\x1b[2J\x7f").bytes, "a\\x0a\\x1b[2J\\x7f");
    ck_assert_str_eq(text_show("\xc3\xa9").bytes, "\\xc3\\xa9");
    for (int length = 1; length < 1000; ++length) {
        char *plain = NULL;
        ck_assert_int_gt(asprintf(&plain, "%0*d", length, 0), 0);
        const text_shown shown = text_show(plain);
        bool cut = strcmp(shown.bytes, plain) != 0;
        ck_assert(cut ? length > 100 : length < (int)sizeof shown);
        ck_assert(!cut || strcmp(shown.bytes + strlen(shown.bytes) - 4, "0...") == 0);
        memset(plain, '\n', (size_t)length);
        ck_assert_uint_lt(strlen(text_show(plain).bytes), sizeof shown);
        free(plain);
    }
}
END_TEST

static void add_text(TCase *part) {
    tcase_add_test(part, text_grows);
    tcase_add_test(part, text_remembers_a_failure);
    tcase_add_test(part, text_is_found_in_either_case);
    tcase_add_test(part, text_is_shown_on_one_line);
}

int main(void) {
    static const suite_part parts[] = {{"clock", add_clock},
                                       {"half", add_half},
                                       {"log", add_log},
                                       {"random", add_random},
                                       {"text", add_text}};
    return suite_run("base", parts, sizeof parts / sizeof *parts);
}
