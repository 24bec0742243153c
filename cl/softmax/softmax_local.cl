/* Exact softmax attention in tiles of local memory (local_tile.clh), for GPUs of any vendor. Mathematics and shapes as
 * in softmax.cl; any storage types, float32 arithmetic.
 *
 * Work: a group for ROWS queries; grid (⌈N / ROWS⌉ · WG, H, B), the queries that see most keys first. Weights take the
 * place of the keys that are used up. Column 0 of the queries stays in registers, so that D = DV = 64 with TY 16 takes
 * less than 32 KiB, flag and all, and 64 KiB hold two groups; with TY 8 it is 24 KiB, and less than 16 with CT 2.
 *
 * Measured (H200, F32, H = 16, D = 64, N = 4096; PyTorch's SDPA 33.5 TFLOP/s): TY 16 31.8 TFLOP/s, TY 8 27.9; RT 8 with
 * TY 8 31.1, RT 8 with TY 16 and CT 2 22.4; TX 16 22; products unrolled by 16 rather than 8 +4 %; rows clamped in the
 * last tile only +9 %. */
#include "softmax/softmax.clh"
#ifndef CT
#if D > 64 || DV > 64
#define CT 2
#else
#define CT 4
#endif
#endif
#include "shared/local_tile.clh"

#define D_UP ((D + 7) / 8 * 8)
#define SHARED (D > ROWS ? KEYS * D : KEYS * ROWS) /* keys, then weights */
#define QUERY_TILE ((D > 1 ? D - 1 : 1) * ROWS)    /* from column 1 on */
#define floatCT CAT(float, CT)

/* Column d of key j; the CT keys of an item are a vector. */
#define KEY_PLACE(d, j) ((d)*KEYS + ((((j) / CT) ^ (d)) & (TX - 1)) * CT + (j) % CT)

/* Keys and values of one tile. */
#define KEYS_LOAD(row)                                                                                                 \
    TILE_LOAD(KEYS, D_UP, if (D == D_UP || d < D) shared[KEY_PLACE(d, j)] = LOAD(K_TYPE, k, (row)*k_at.s3 + d);)       \
    VALUES_LOAD(V_TYPE, value_tile, v, v_at.s3, row)

/* What the item's rows from `first` on hold already: a state, or nothing. */
INLINED void rows_begin(private rows *r, uint first, uint queries, uint x, uint accumulate,
                        global const ELEMENT(OUT_TYPE) *out, INDEX out_pitch, global const ELEMENT(LSE_TYPE) *lse,
                        INDEX lse_pitch) {
    UNROLL
    for (uint a = 0; a < RT; ++a) {
        uint row = min(first + a, queries - 1);
        r->top[a] = accumulate ? LOG2_E * LOAD(LSE_TYPE, lse, row * lse_pitch) : -INFINITY;
        r->mass[a] = r->top[a] != -INFINITY && x == 0 ? 1.0f : 0.0f;
        UNROLL
        for (uint c = 0; c < VT; ++c) {
            float columns[4];
            UNROLL
            for (uint i = 0; i < 4; ++i) {
                uint d = 4 * (x + TX * c) + i;
                columns[i] = accumulate && d < DV ? LOAD(OUT_TYPE, out, row * out_pitch + d) : 0.0f;
            }
            r->sum[a][c] = vload4(0, columns);
        }
    }
}

/* The logits of an item's rows and keys, in base 2; `queries` from column 1 on. */
INLINED void scores_multiply(private float score[RT][CT], uint x, uint y, private const float4 *column_0,
                             local const float *queries, local const float *keys) {
    floatCT s[RT];
    UNROLL
    for (uint a = 0; a < RT; ++a)
        s[a] = (floatCT)(0.0f);
    _Pragma("unroll 16") for (uint d = 0; d < D; ++d) {
        floatCT key = *(local const floatCT *)(keys + KEY_PLACE(d, CT * x));
        UNROLL
        for (uint a = 0; a < RT; a += 4) {
            float4 query = d > 0 ? *(local const float4 *)(queries + (d - 1) * ROWS + y * RT + a) : column_0[a / 4];
            s[a] = MAD((floatCT)(query.x), key, s[a]);
            s[a + 1] = MAD((floatCT)(query.y), key, s[a + 1]);
            s[a + 2] = MAD((floatCT)(query.z), key, s[a + 2]);
            s[a + 3] = MAD((floatCT)(query.w), key, s[a + 3]);
        }
    }
    UNROLL
    for (uint a = 0; a < RT; ++a)
        CAT(vstore, CT)(s[a], 0, score[a]);
}

#if BIAS
/* Adds the biases of the item's keys, from `begin` on; a key of bias −inf has no weight, whatever its logit. */
INLINED void scores_bias(private float score[RT][CT], uint begin, uint keys, global const ELEMENT(BIAS_TYPE) *bias,
                         INDEX pitch) {
    UNROLL
    for (uint c = 0; c < CT; ++c) {
        float more = LOG2_E * LOAD(BIAS_TYPE, bias, min(begin + c, keys - 1) * pitch);
        UNROLL
        for (uint a = 0; a < RT; ++a)
            score[a][c] = more == -INFINITY ? more : score[a][c] + more;
    }
}
#endif

/* No weight for keys that the item's rows, from `first` on, do not see. */
INLINED void scores_mask(private float score[RT][CT], uint first, uint begin, int diagonal, uint keys) {
    UNROLL
    for (uint a = 0; a < RT; ++a) {
        uint seen = visible_keys(first + a, diagonal, keys), from = first_key(first + a, diagonal, keys);
        UNROLL
        for (uint c = 0; c < CT; ++c)
            if (begin + c >= seen || begin + c < from)
                score[a][c] = -INFINITY;
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
softmax_local(uint queries, uint keys, uint group, float scale, int diagonal, uint accumulate,
              global const ELEMENT(Q_TYPE) *q, INDEX4 q_at, global const ELEMENT(K_TYPE) *k, INDEX4 k_at,
              global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
              global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
              global ELEMENT(OUT_TYPE) *out, INDEX4 out_at, global ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at) {
    local float query_tile[QUERY_TILE] ALIGNED, shared[SHARED] ALIGNED, value_tile[KEYS * PITCH_V] ALIGNED;
    local int raise;
    uint item = get_local_id(0), x = item % TX, y = item / TX, h = get_global_id(1), b = get_global_id(2);
    uint first = (get_num_groups(0) - 1 - get_group_id(0)) * ROWS;
    q += q_at.s0 + b * q_at.s1 + h * q_at.s2;
    k += k_at.s0 + b * k_at.s1 + (h / group) * k_at.s2;
    v += v_at.s0 + b * v_at.s1 + (h / group) * v_at.s2;
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2;
    lse += lse_at.s0 + b * lse_at.s1 + h * lse_at.s2;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + (h / group) * bias_at.s2;
#endif

    rows r;
    rows_begin(&r, first + y * RT, queries, x, accumulate, out, out_at.s3, lse, lse_at.s3);
#define QUERY(row, d) (LOG2_E * scale * LOAD(Q_TYPE, q, min(first + (row), queries - 1) * q_at.s3 + (d)))
    for (uint e = item; e < ROWS * D; e += WG)
        if (e % D > 0)
            query_tile[(e % D - 1) * ROWS + e / D] = QUERY(e / D, e % D);
    float4 column_0[RT / 4];
    UNROLL
    for (uint a = 0; a < RT; a += 4)
        column_0[a / 4] = (float4)(QUERY(y * RT + a, 0), QUERY(y * RT + a + 1, 0), QUERY(y * RT + a + 2, 0),
                                   QUERY(y * RT + a + 3, 0));
    if (item == 0)
        raise = 0;
    uint last = visible_keys(min(first + ROWS, queries) - 1, diagonal, keys);
    for (uint begin = first_key(first, diagonal, keys) / KEYS * KEYS; begin < last; begin += KEYS) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (begin + KEYS <= keys) {
            KEYS_LOAD(begin + j)
        } else {
            KEYS_LOAD(min(begin + j, keys - 1))
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        float score[RT][CT];
        scores_multiply(score, x, y, column_0, query_tile, shared);
#if BIAS
        scores_bias(score, begin + CT * x, keys, bias, bias_at.s3);
#endif
        if (WINDOW || begin + KEYS > visible_keys(first, diagonal, keys))
            scores_mask(score, first + y * RT, begin + CT * x, diagonal, keys);
        rows_weigh(&r, score, x, y, shared, &raise);
        rows_add(&r, x, y, shared, value_tile);
    }

    ROWS_STORE(r, first + y * RT, queries, x, y, shared, OUT_TYPE, out, out_at.s3, LSE_TYPE, lse, lse_at.s3)
}
