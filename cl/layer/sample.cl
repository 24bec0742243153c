/* Draws a token from a row of logits: temperature, then the k most probable, then the most probable that together have
 * a share `want`, then one of those by its probability.
 *
 *     w_v = e^((l_v − max l) / temperature)
 *
 * A row with a NaN or +inf, or of nothing but −inf, has no distribution: the token is −1.
 *
 * What is kept are the tokens whose logit reaches a threshold; tokens that tie with it are all kept. The threshold is
 * found without sorting, 8 bits of the logits' order-preserving integers (`key`) at a time: a histogram of the next 8
 * bits of the tokens whose higher bits are the threshold's (count, or mass), from which the largest digit is taken
 * above which there is not enough.
 *
 * The row is cut into parts of `share` tokens, a work-item each; a single one then joins what they found. Sums have a
 * fixed order.
 *
 *     sample_peaks    part: largest logit and its first place
 *     sample_top      joins: state, token (the first of the largest)
 *     sample_count    part: histogram [parts,256]
 *     sample_fold     digit: sum of the parts' histograms
 *     sample_choose   one: the threshold's next 8 bits
 *     sample_mass     part: mass of what is kept
 *     sample_draw     one: the token
 *
 * Work: grid (parts), (1), (256) rounded up to WG. No local memory, no barrier. */
#include "shared/tensor.clh"

#ifndef X_TYPE
#define X_TYPE F32
#endif

typedef struct sampler {
    float top;    /* the largest logit */
    uint least;   /* the threshold: keys from here on are kept */
    uint chosen;  /* the bits of the next threshold that are known */
    float above;  /* count or mass above them */
    float wanted; /* count or mass to be reached */
} sampler;

/* Integers in the order of the floats; there is no NaN among them. */
static inline uint key_of(float x) {
    uint bits = as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* By the bits: compilers may be told that no number is NaN or infinite. */
static inline bool is_infinite(float x) {
    return (as_uint(x) & 0x7fffffffu) == 0x7f800000u;
}

static inline bool is_odd(float x) {
    return (as_uint(x) & 0x7fffffffu) > 0x7f800000u || as_uint(x) == 0x7f800000u;
}

static inline float weight_of(float x, float top, float inverse) {
    return x == top ? 1.0f : exp((x - top) * inverse);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void sample_peaks(uint parts, uint share, uint count,
                                                                         global const ELEMENT(X_TYPE) *logits,
                                                                         INDEX4 at, global float *peak,
                                                                         global uint *place) {
    uint part = get_global_id(0), first = part * share;
    if (part >= parts)
        return;
    float most = -INFINITY;
    uint where = first;
    bool odd = false;
    for (uint v = first; v < min(first + share, count); ++v) {
        float x = LOAD(X_TYPE, logits, at.s0 + v);
        odd = odd || is_odd(x);
        if (x > most) {
            most = x;
            where = v;
        }
    }
    peak[part] = odd ? INFINITY : most;
    place[part] = where;
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
sample_top(uint parts, global const float *peak, global const uint *place, global sampler *s, global int *token) {
    uint best = 0;
    for (uint p = 1; p < parts; ++p)
        best = peak[p] > peak[best] ? p : best;
    s->top = peak[best];
    s->least = 0;
    *token = is_infinite(peak[best]) ? -1 : (int)place[best];
}

/* MASS: histograms of weights instead of counts. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
sample_count(uint parts, uint share, uint count, uint shift, uint mass, float inverse,
             global const ELEMENT(X_TYPE) *logits, INDEX4 at, global const sampler *s, global float *histogram) {
    uint part = get_global_id(0), first = part * share;
    if (part >= parts)
        return;
    histogram += part * 256;
    for (uint d = 0; d < 256; ++d)
        histogram[d] = 0.0f;
    uint least = s->least, chosen = s->chosen;
    float top = s->top;
    for (uint v = first; v < min(first + share, count); ++v) {
        float x = LOAD(X_TYPE, logits, at.s0 + v);
        uint key = key_of(x);
        /* The first 8 bits follow no bits: a shift by 32 is none. */
        if (key >= least && (shift == 24 || key >> (shift + 8) == chosen >> (shift + 8)))
            histogram[key >> shift & 255] += mass ? weight_of(x, top, inverse) : 1.0f;
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void sample_fold(uint parts, global const float *histogram,
                                                                        global float *folded) {
    uint digit = get_global_id(0);
    if (digit >= 256)
        return;
    float sum = 0.0f;
    for (uint p = 0; p < parts; ++p)
        sum += histogram[p * 256 + digit];
    folded[digit] = sum;
}

/* `want` is a count, or with `mass` a share of the whole. Digits without a token are passed over, so that rounding
 * cannot choose one below the last token. */
kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
sample_choose(uint shift, uint mass, float want, global const float *folded, global sampler *s) {
    if (shift == 24) {
        float whole = 0.0f;
        for (uint d = 0; d < 256; ++d)
            whole += folded[d];
        s->wanted = mass ? want * whole : want;
        s->above = 0.0f;
        s->chosen = 0;
    }
    uint digit = 0;
    float above = s->above, passed = above;
    for (uint d = 256; d-- > 0;) {
        if (folded[d] == 0.0f)
            continue;
        digit = d;
        passed = above;
        above += folded[d];
        if (above >= s->wanted)
            break;
    }
    s->above = passed;
    s->chosen |= digit << shift;
    if (shift == 0)
        s->least = max(s->least, s->chosen);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void sample_mass(uint parts, uint share, uint count,
                                                                        float inverse,
                                                                        global const ELEMENT(X_TYPE) *logits, INDEX4 at,
                                                                        global const sampler *s, global float *mass) {
    uint part = get_global_id(0), first = part * share;
    if (part >= parts)
        return;
    float sum = 0.0f;
    for (uint v = first; v < min(first + share, count); ++v) {
        float x = LOAD(X_TYPE, logits, at.s0 + v);
        sum += key_of(x) >= s->least ? weight_of(x, s->top, inverse) : 0.0f;
    }
    mass[part] = sum;
}

/* The token at the share `draw` of the mass; *token stays the most probable one if nothing has a mass, or −1. */
kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
sample_draw(uint parts, uint share, uint count, float inverse, float draw, global const ELEMENT(X_TYPE) *logits,
            INDEX4 at, global const sampler *s, global const float *mass, global int *token) {
    if (*token < 0)
        return;
    float whole = 0.0f, before = 0.0f;
    for (uint p = 0; p < parts; ++p)
        whole += mass[p];
    float aim = draw * whole;
    uint part = 0;
    for (uint p = 0; p < parts; ++p) {
        if (mass[p] == 0.0f)
            continue;
        part = p;
        if (before + mass[p] > aim)
            break;
        before += mass[p];
    }
    for (uint v = part * share; v < min((part + 1) * share, count); ++v) {
        float x = LOAD(X_TYPE, logits, at.s0 + v);
        float weight = key_of(x) >= s->least ? weight_of(x, s->top, inverse) : 0.0f;
        if (weight == 0.0f)
            continue;
        *token = v;
        before += weight;
        if (before > aim)
            break;
    }
}
