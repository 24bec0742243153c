#include "format/blocks.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "base/half.h"

static float half_at(const unsigned char *p) {
    return half_from_f16((uint16_t)(p[0] | p[1] << 8));
}

static void set_half(unsigned char *p, float x) {
    uint16_t bits = half_to_f16(x);
    p[0] = (unsigned char)bits;
    p[1] = (unsigned char)(bits >> 8);
}

static uint32_t word_at(const unsigned char *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void set_word(unsigned char *p, uint32_t word) {
    for (int i = 0; i < 4; ++i)
        p[i] = (unsigned char)(word >> 8 * i);
}

static void read_f32(const unsigned char *b, float *to) {
    uint32_t bits = word_at(b);
    memcpy(to, &bits, sizeof bits);
}

static void write_f32(const float *from, unsigned char *b) {
    uint32_t bits;
    memcpy(&bits, from, sizeof bits);
    set_word(b, bits);
}

static void read_f16(const unsigned char *b, float *to) {
    *to = half_at(b);
}

static void write_f16(const float *from, unsigned char *b) {
    set_half(b, *from);
}

static void read_bf16(const unsigned char *b, float *to) {
    *to = half_from_bf16((uint16_t)(b[0] | b[1] << 8));
}

static void write_bf16(const float *from, unsigned char *b) {
    uint16_t bits = half_to_bf16(*from);
    b[0] = (unsigned char)bits;
    b[1] = (unsigned char)(bits >> 8);
}

enum { SMALL = 32, LARGE = 256 };

/* The 4 bits of number i of 32. */
static unsigned nibble(const unsigned char *q, size_t i) {
    return i < 16 ? q[i] & 15u : q[i - 16] >> 4;
}

static void set_nibbles(unsigned char *q, const unsigned numbers[SMALL]) {
    for (size_t i = 0; i < 16; ++i)
        q[i] = (unsigned char)((numbers[i] & 15u) | (numbers[i + 16] & 15u) << 4);
}

static uint32_t fifth_bits(const unsigned numbers[SMALL]) {
    uint32_t bits = 0;
    for (size_t i = 0; i < SMALL; ++i)
        bits |= (uint32_t)(numbers[i] >> 4 & 1u) << i;
    return bits;
}

static void read_q8_0(const unsigned char *b, float *to) {
    float d = half_at(b);
    for (size_t i = 0; i < SMALL; ++i)
        to[i] = (float)(int8_t)b[2 + i] * d;
}

static void write_q8_0(const float *from, unsigned char *b) {
    float most = 0;
    for (size_t i = 0; i < SMALL; ++i)
        most = fmaxf(most, fabsf(from[i]));
    float d = most / 127, inverse = d != 0 ? 1 / d : 0;
    set_half(b, d);
    for (size_t i = 0; i < SMALL; ++i) {
        float q = roundf(from[i] * inverse);
        b[2 + i] = (unsigned char)(int8_t)(q >= -128 && q <= 127 ? (int)q : 0);
    }
}

static void read_q4_0(const unsigned char *b, float *to) {
    float d = half_at(b);
    for (size_t i = 0; i < SMALL; ++i)
        to[i] = d * (float)((int)nibble(b + 2, i) - 8);
}

static void read_q4_1(const unsigned char *b, float *to) {
    float d = half_at(b), m = half_at(b + 2);
    for (size_t i = 0; i < SMALL; ++i) {
        float scaled = d * (float)nibble(b + 4, i);
        to[i] = scaled + m;
    }
}

static void read_q5_0(const unsigned char *b, float *to) {
    float d = half_at(b);
    uint32_t high = word_at(b + 2);
    for (size_t i = 0; i < SMALL; ++i)
        to[i] = d * (float)((int)(nibble(b + 6, i) | (high >> i & 1u) << 4) - 16);
}

static void read_q5_1(const unsigned char *b, float *to) {
    float d = half_at(b), m = half_at(b + 2);
    uint32_t high = word_at(b + 4);
    for (size_t i = 0; i < SMALL; ++i) {
        float scaled = d * (float)(nibble(b + 8, i) | (high >> i & 1u) << 4);
        to[i] = scaled + m;
    }
}

/* x cut to a whole number from 0 to `most`. */
static unsigned cut(float x, unsigned most) {
    return x >= (float)most ? most : x > 0 ? (unsigned)x : 0;
}

/* Of both signs: the number of the largest magnitude becomes −`half` of the integers' middle. Returns: d. */
static float round_signed(const float *from, int half, unsigned numbers[SMALL]) {
    float most = 0, extreme = 0;
    for (size_t i = 0; i < SMALL; ++i)
        if (fabsf(from[i]) > most) {
            most = fabsf(from[i]);
            extreme = from[i];
        }
    float d = extreme / (float)-half, inverse = d != 0 ? 1 / d : 0;
    for (size_t i = 0; i < SMALL; ++i) {
        float scaled = from[i] * inverse;
        numbers[i] = cut(scaled + ((float)half + 0.5f), 2 * (unsigned)half - 1);
    }
    return d;
}

/* From the smallest number to the largest. Returns: d; and *least. */
static float round_range(const float *from, unsigned top, unsigned numbers[SMALL], float *least) {
    float most = from[0];
    *least = from[0];
    for (size_t i = 1; i < SMALL; ++i) {
        most = fmaxf(most, from[i]);
        *least = fminf(*least, from[i]);
    }
    float d = (most - *least) / (float)top, inverse = d != 0 ? 1 / d : 0;
    for (size_t i = 0; i < SMALL; ++i) {
        float scaled = (from[i] - *least) * inverse;
        numbers[i] = cut(scaled + 0.5f, top);
    }
    return d;
}

static void write_q4_0(const float *from, unsigned char *b) {
    unsigned numbers[SMALL];
    set_half(b, round_signed(from, 8, numbers));
    set_nibbles(b + 2, numbers);
}

static void write_q4_1(const float *from, unsigned char *b) {
    unsigned numbers[SMALL];
    float least;
    set_half(b, round_range(from, 15, numbers, &least));
    set_half(b + 2, least);
    set_nibbles(b + 4, numbers);
}

static void write_q5_0(const float *from, unsigned char *b) {
    unsigned numbers[SMALL];
    set_half(b, round_signed(from, 16, numbers));
    set_word(b + 2, fifth_bits(numbers));
    set_nibbles(b + 6, numbers);
}

static void write_q5_1(const float *from, unsigned char *b) {
    unsigned numbers[SMALL];
    float least;
    set_half(b, round_range(from, 31, numbers, &least));
    set_half(b + 2, least);
    set_word(b + 4, fifth_bits(numbers));
    set_nibbles(b + 8, numbers);
}

/* The 6 bits of scale and minimum of the group g of eight. */
static void scale_and_minimum(const unsigned char *s, size_t g, unsigned *scale, unsigned *minimum) {
    *scale = g < 4 ? s[g] & 63u : (s[g + 4] & 15u) | (unsigned)(s[g - 4] >> 6) << 4;
    *minimum = g < 4 ? s[g + 4] & 63u : (unsigned)(s[g + 4] >> 4) | (unsigned)(s[g] >> 6) << 4;
}

/* `high` is NULL for Q4_K. */
static void read_groups(const unsigned char *b, const unsigned char *high, const unsigned char *q,
                        float *to) {
    float d = half_at(b), e = half_at(b + 2);
    for (size_t g = 0; g < 8; ++g) {
        unsigned scale, minimum;
        scale_and_minimum(b + 4, g, &scale, &minimum);
        float ds = d * (float)scale, em = e * (float)minimum;
        for (size_t i = 0; i < SMALL; ++i) {
            unsigned number = q[g / 2 * SMALL + i] >> 4 * (g & 1) & 15u;
            float scaled = ds * (float)(number | (high ? (high[i] >> g & 1u) << 4 : 0));
            to[g * SMALL + i] = scaled - em;
        }
    }
}

static void read_q4_k(const unsigned char *b, float *to) {
    read_groups(b, NULL, b + 16, to);
}

static void read_q5_k(const unsigned char *b, float *to) {
    read_groups(b, b + 16, b + 48, to);
}

static void read_q6_k(const unsigned char *b, float *to) {
    float d = half_at(b + 208);
    for (size_t i = 0; i < LARGE; ++i) {
        size_t half = i / 128, quarter = i / 32 % 4, at = i % 32;
        unsigned low = b[64 * half + 32 * (quarter & 1) + at] >> 4 * (quarter >> 1) & 15u;
        unsigned high = b[128 + 32 * half + at] >> 2 * quarter & 3u;
        float ds = d * (float)(int8_t)b[192 + i / 16];
        to[i] = ds * (float)((int)(low | high << 4) - 32);
    }
}

static const block_type types[] = {
    {"F32", 0, 0, 1, 4, read_f32, write_f32},         {"F16", 1, 1, 1, 2, read_f16, write_f16},
    {"BF16", 30, 32, 1, 2, read_bf16, write_bf16},    {"Q4_0", 2, 2, SMALL, 18, read_q4_0, write_q4_0},
    {"Q4_1", 3, 3, SMALL, 20, read_q4_1, write_q4_1}, {"Q5_0", 6, 8, SMALL, 22, read_q5_0, write_q5_0},
    {"Q5_1", 7, 9, SMALL, 24, read_q5_1, write_q5_1}, {"Q8_0", 8, 7, SMALL, 34, read_q8_0, write_q8_0},
    {"Q4_K", 12, 15, LARGE, 144, read_q4_k, NULL},    {"Q5_K", 13, 17, LARGE, 176, read_q5_k, NULL},
    {"Q6_K", 14, 18, LARGE, 210, read_q6_k, NULL},
};
enum { TYPES = sizeof types / sizeof *types };

const block_type *block_type_of_id(uint32_t id) {
    for (size_t i = 0; i < TYPES; ++i)
        if (types[i].id == id)
            return &types[i];
    return NULL;
}

const block_type *block_type_named(const char *name) {
    for (size_t i = 0; i < TYPES; ++i)
        if (strcasecmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

const block_type *block_type_at(size_t index) {
    return index < TYPES ? &types[index] : NULL;
}

void blocks_read(const block_type *type, const void *blocks, size_t count, float *to) {
    const unsigned char *from = blocks;
    for (size_t i = 0; i < count; i += type->numbers, from += type->bytes)
        type->read(from, to + i);
}

void blocks_write(const block_type *type, const float *from, size_t count, void *blocks) {
    unsigned char *to = blocks;
    for (size_t i = 0; i < count; i += type->numbers, to += type->bytes)
        type->write(from + i, to);
}
