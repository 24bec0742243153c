/* Write in register tiles (wide.clh), for CPUs; isotropic and diagonal splats. Mathematics and shapes as in write.cl.
 *
 * Everything is measured from a common centre c, the mean of the head's splat means:
 *     diagonal    φ = −½ Σ_d (x'_d r_d − m_d)²                       x' = x − c, m = (μ − c) r
 *     isotropic   φ = r² (x'·μ' − ½|x'|²) − ½ r² |μ'|²               μ' = μ − c
 * two multiply-adds a dimension and one. What they cancel is bounded by the spread of the means in units of a splat's
 * width: see op_splats.spread.
 *
 * Work: one work-item for TILE splats and one segment; grid (⌈S / TILE⌉, G, B·Hw), work-groups of one. */
#ifndef K_TYPE
#define K_TYPE F32
#define V_TYPE F32
#define BIAS_TYPE F32
#endif
#include "shared/tensor.clh"
#include "shared/wide.clh"

#ifndef COVARIANCE /* 0 isotropic, 1 diagonal */
#define COVARIANCE 1
#endif
#ifndef BIAS
#define BIAS 1
#endif

typedef struct centred_splats {
    float middle[TILE * D] ALIGNED;                    /* m, or μ' */
    float factor[TILE * (COVARIANCE ? D : 1)] ALIGNED; /* r, or r² */
    float shift[TILE];                                 /* ½ r² |μ'|²; isotropic */
} centred_splats;

/* Rows past the last one repeat it. */
INLINED void splats_centre(private centred_splats *to, uint rows, global const float *mean, global const float *inverse,
                           global const float *centre) {
    for (uint r = 0; r < TILE; ++r) {
        uint row = min(r, rows - 1);
        to->shift[r] = 0.0f;
        for (uint d = 0; d < D; ++d) {
            float m = mean[row * D + d] - centre[d];
#if COVARIANCE
            to->factor[r * D + d] = inverse[row * D + d];
            to->middle[r * D + d] = m * inverse[row * D + d];
#else
            to->middle[r * D + d] = m;
            to->shift[r] = MAD(m, m, to->shift[r]);
#endif
        }
#if !COVARIANCE
        to->factor[r] = inverse[row] * inverse[row];
        to->shift[r] *= 0.5f * to->factor[r];
#endif
    }
}

/* x' in place of x, and ½|x'|². */
INLINED void keys_centre(private float *packed, private float16 half_square[LANES], global const float *centre) {
    UNROLL
    for (uint c = 0; c < LANES; ++c)
        half_square[c] = (float16)(0.0f);
    for (uint d = 0; d < D; ++d)
        UNROLL
    for (uint c = 0; c < LANES; ++c) {
        float *x = packed + d * BLOCK + 16 * c;
        VECTOR(x) -= (float16)(centre[d]);
        half_square[c] = MAD(0.5f * VECTOR(x), VECTOR(x), half_square[c]);
    }
}

/* The sums over dimensions of φ, for splats r to r + RT − 1 and a block of keys. */
INLINED void scores_sum(private scores *s, private const centred_splats *splats, uint r, private float *packed) {
    scores_clear(s);
    for (uint d = 0; d < D; ++d) {
        float16 x[LANES];
        UNROLL
        for (uint c = 0; c < LANES; ++c)
            x[c] = VECTOR(packed + d * BLOCK + 16 * c);
        UNROLL
        for (uint a = 0; a < RT; ++a) {
            float16 m = (float16)(splats->middle[(r + a) * D + d]);
#if COVARIANCE
            float16 f = (float16)(splats->factor[(r + a) * D + d]);
#endif
            UNROLL
            for (uint c = 0; c < LANES; ++c) {
#if COVARIANCE
                float16 y = MAD(x[c], f, -m);
                s->s[a][c] = MAD(y, y, s->s[a][c]);
#else
                s->s[a][c] = MAD(m, x[c], s->s[a][c]);
#endif
            }
        }
    }
}

/* φ and the keys' offsets from those sums; a key of offset −inf has no weight, whatever its φ. */
INLINED void scores_finish(private scores *s, private const centred_splats *splats, uint r,
                           private const float16 half_square[LANES], private float *offset, bool masked) {
    UNROLL
    for (uint a = 0; a < RT; ++a)
        UNROLL
    for (uint c = 0; c < LANES; ++c) {
#if COVARIANCE
        float16 l = -0.5f * s->s[a][c];
#else
        float16 l =
            MAD((float16)(splats->factor[r + a]), s->s[a][c] - half_square[c], (float16)(-splats->shift[r + a]));
#endif
        float16 lanes = VECTOR(offset + 16 * c);
        s->s[a][c] = masked ? select(l + lanes, (float16)(-INFINITY), lanes == (float16)(-INFINITY)) : l;
    }
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
write_wide(uint keys, uint segment, uint heads, uint group, uint splats, uint per_head, uint first_head,
           global const float *mean, global const float *inverse, global const float *centre,
           global const ELEMENT(K_TYPE) *k, INDEX4 k_at, global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
           global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
           global float *state_lse, global float *state_value) {
    uint first = get_global_id(0) * TILE, g = get_global_id(1), segments = get_global_size(1);
    uint b = get_global_id(2) / heads, h = get_global_id(2) % heads;
    uint rows = min((uint)TILE, splats - first), set = per_head ? first_head + h : 0;
    mean += ((INDEX)set * splats + first) * D;
    inverse += ((INDEX)set * splats + first) * (COVARIANCE ? D : 1);
    centre += set * D;
    k += k_at.s0 + b * k_at.s1 + (h / group) * k_at.s2;
    v += v_at.s0 + b * v_at.s1 + (h / group) * v_at.s2;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + (h / group) * bias_at.s2;
#endif

    tile t;
    float packed[D * BLOCK] ALIGNED, weights[RT * BLOCK] ALIGNED, offset[BLOCK] ALIGNED, shrink[RT];
    centred_splats own;
    scores s;
    tile_clear(&t);
    splats_centre(&own, rows, mean, inverse, centre);

    uint last = min(keys, (g + 1) * segment);
    for (uint begin = g * segment; begin < last; begin += BLOCK) {
        PACK(K_TYPE, k, k_at.s3, begin, keys, packed)
        float16 half_square[LANES];
        keys_centre(packed, half_square, centre);
        bool masked = BIAS || begin + BLOCK > last;
        for (uint j = 0; j < BLOCK; ++j) {
            offset[j] = begin + j < last ? 0.0f : -INFINITY;
#if BIAS
            offset[j] += LOAD(BIAS_TYPE, bias, min(begin + j, keys - 1) * bias_at.s3);
#endif
        }
        for (uint r = 0; r < TILE && r < rows; r += RT) {
            scores_sum(&s, &own, r, packed);
            scores_finish(&s, &own, r, half_square, offset, masked);
            tile_weigh(&t, r, &s, weights, shrink);
            TILE_ADD(&t, r, weights, shrink, V_TYPE, v + begin * v_at.s3, v_at.s3, min((uint)BLOCK, last - begin))
        }
    }

    INDEX at = ((INDEX)get_global_id(2) * segments + g) * splats + first;
    for (uint r = 0; r < rows; ++r) {
        float inverse_mass = tile_scale(&t, r);
        state_lse[at + r] = tile_lse(&t, r);
        for (uint d = 0; d < DV; d += 16)
            vstore16(VECTOR(t.sum + r * DV + d) * inverse_mass, 0, state_value + (at + r) * DV + d);
    }
}
