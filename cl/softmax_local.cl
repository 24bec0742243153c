/* Exact softmax attention for GPUs of any vendor: tiles in local memory, products in registers. Mathematics and shapes
 * as in softmax.cl; any storage types, float32 arithmetic.
 *
 * Work: a group of TX × TY work-items for TY·RT queries; grid (⌈N / (TY·RT)⌉ · WG, H, B), the queries that see most
 * keys first. Item (x, y) scores queries y·RT… against keys x·CT… of a tile of KEYS, and sums value columns 4(x + TX
 * c)… of the same queries. Weights change hands through local memory, over the keys that are used up. Column 0 of the
 * queries stays in registers, so that D = DV = 64 with TY 16 takes less than 32 KiB, flag and all, and 64 KiB hold two
 * groups; with TY 8 it is 24 KiB, and less than 16 with CT 2.
 *
 * Columns come first in local memory (queries, keys) so that a step of the product reads vectors of consecutive
 * queries and keys. Four keys, or four queries of the weights, move together; their place is shuffled by an exclusive
 * or, so that neither the transposing stores nor the loads meet in a bank.
 *
 * Logits are in base 2. A query's reference is raised only when a score exceeds it by more than SLACK; all items agree
 * on when to look, and each query decides by its own scores.
 *
 * Measured (H200, F32, H = 16, D = 64, N = 4096; PyTorch's SDPA 33.5 TFLOP/s): TY 16 31.8 TFLOP/s, TY 8 27.9; RT 8 with
 * TY 8 31.1, RT 8 with TY 16 and CT 2 22.4; TX 16 22; products unrolled by 16 rather than 8 +4 %; rows clamped in the
 * last tile only +9 %. */
#include "softmax.clh"

#ifndef TX /* work-items along the keys and the value columns; a power of two */
#define TX 8
#endif
#ifndef TY /* work-items along the queries */
#define TY 8
#endif
#ifndef RT /* queries per item, a multiple of 4 */
#define RT 4
#endif
#ifndef CT /* keys per item: 2 or 4 */
#if D > 64 || DV > 64
#define CT 2
#else
#define CT 4
#endif
#endif
#ifndef SLACK
#define SLACK 8.0f
#endif
#ifndef EAGER /* whether all loads of a tile are on their way at once: right for NVIDIA, spills registers on AMD */
#define EAGER 0
#endif
#define WG (TX * TY)
#include "tensor.clh"

#define ROWS (TY * RT)
#define KEYS (TX * CT)
#define VT ((DV + 4 * TX - 1) / (4 * TX)) /* vectors of value columns per item */
#define PITCH_V (4 * TX * VT)
#define SHARED (D > ROWS ? KEYS * D : KEYS * ROWS) /* keys, then weights */
#define QUERY_TILE ((D > 1 ? D - 1 : 1) * ROWS)    /* from column 1 on */
#define LOG2_E 1.44269504f
#define LN_2 0.693147181f
#define UNROLL _Pragma("unroll")
#if EAGER
#define UNROLL_LOADS _Pragma("unroll")
#else
#define UNROLL_LOADS _Pragma("unroll 4")
#endif
#define floatCT CAT(float, CT)
#define ALIGNED(type, p) (*(local type *)(p))

/* Where the CT keys of item x, and the weights of queries 4r… for key j, lie. */
#define KEY_PLACE(d, x) ((d)*KEYS + (((x) ^ (d)) & (TX - 1)) * CT)
#define WEIGHT_PLACE(j, r) ((j)*ROWS + ((r) ^ ((j) / CT & (ROWS / 4 - 1))) * 4)

/* Keys and values of one tile. Keys come eight columns of four keys at a time: whole sectors of global memory, all
 * banks of local memory. */
#define D_UP ((D + 7) / 8 * 8)
#define TILE_LOAD(row)                                                                                                 \
    {                                                                                                                  \
        UNROLL_LOADS                                                                                                   \
        for (uint i = 0; i < (KEYS * D_UP + WG - 1) / WG; ++i) {                                                       \
            uint e = item + i * WG, d = e / 32 % (D_UP / 8) * 8 + e % 8;                                               \
            uint j = e / 32 / (D_UP / 8) * 4 + e / 8 % 4;                                                              \
            if ((D == D_UP || d < D) && (KEYS * D_UP % WG == 0 || j < KEYS))                                           \
                shared_tile[KEY_PLACE(d, j / CT) + j % CT] = LOAD(K_TYPE, k, (row)*k_at.s3 + d);                       \
        }                                                                                                              \
        UNROLL_LOADS                                                                                                   \
        for (uint i = 0; i < (KEYS * PITCH_V + WG - 1) / WG; ++i) {                                                    \
            uint e = item + i * WG, d = e % PITCH_V, j = e / PITCH_V;                                                  \
            if (KEYS * PITCH_V % WG == 0 || j < KEYS)                                                                  \
                value_tile[e] = DV == PITCH_V || d < DV ? LOAD(V_TYPE, v, (row)*v_at.s3 + d) : 0.0f;                   \
        }                                                                                                              \
    }

typedef struct rows {
    float4 sum[RT][VT];
    float top[RT], mass[RT];
} rows;

/* Raises the references of those rows that some item found a score above, by more than SLACK, to their largest score.
 * What other rows find has no part in it. `most` [ROWS][TX] is free to use. Always inlined, as in local_tile.clh. */
static inline __attribute__((always_inline)) void rows_raise(private rows *r, private const float *own, uint x, uint y,
                                                             local float *most) {
    UNROLL
    for (uint a = 0; a < RT; ++a)
        most[(y * RT + a) * TX + x] = own[a];
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL
    for (uint a = 0; a < RT; ++a) {
        float top = -INFINITY;
        UNROLL
        for (uint i = 0; i < TX; ++i)
            top = fmax(top, most[(y * RT + a) * TX + i]);
        if (top > r->top[a] + SLACK) {
            float shrink = exp2(r->top[a] - top);
            r->top[a] = top;
            r->mass[a] *= shrink;
            UNROLL
            for (uint c = 0; c < VT; ++c)
                r->sum[a][c] *= shrink;
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
softmax_local(uint queries, uint keys, uint group, float scale, int diagonal, uint accumulate,
              global const ELEMENT(Q_TYPE) *q, INDEX4 q_at, global const ELEMENT(K_TYPE) *k, INDEX4 k_at,
              global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
              global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
              global ELEMENT(OUT_TYPE) *out, INDEX4 out_at, global ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at) {
    local float query_tile[QUERY_TILE] __attribute__((aligned(16))), shared_tile[SHARED] __attribute__((aligned(16)));
    local float value_tile[KEYS * PITCH_V] __attribute__((aligned(16)));
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
    UNROLL
    for (uint a = 0; a < RT; ++a) {
        uint row = min(first + y * RT + a, queries - 1);
        r.top[a] = accumulate ? LOG2_E * LOAD(LSE_TYPE, lse, row * lse_at.s3) : -INFINITY;
        r.mass[a] = r.top[a] != -INFINITY && x == 0 ? 1.0f : 0.0f;
        UNROLL
        for (uint c = 0; c < VT; ++c) {
            float columns[4];
            UNROLL
            for (uint i = 0; i < 4; ++i) {
                uint d = 4 * (x + TX * c) + i;
                columns[i] = accumulate && d < DV ? LOAD(OUT_TYPE, out, row * out_at.s3 + d) : 0.0f;
            }
            r.sum[a][c] = vload4(0, columns);
        }
    }
#define QUERY(row, d) (LOG2_E * scale * LOAD(Q_TYPE, q, min(first + (row), queries - 1) * q_at.s3 + (d)))
    for (uint e = item; e < ROWS * D; e += WG)
        if (e % D > 0)
            query_tile[(e % D - 1) * ROWS + e / D] = QUERY(e / D, e % D);
    float4 column_0[RT / 4];
    UNROLL
    for (uint a = 0; a < RT; a += 4)
        column_0[a / 4] = (float4)(QUERY(y * RT + a, 0), QUERY(y * RT + a + 1, 0), QUERY(y * RT + a + 2, 0),
                                   QUERY(y * RT + a + 3, 0));

    uint last = visible_keys(min(first + ROWS, queries) - 1, diagonal, keys);
    for (uint begin = 0; begin < last; begin += KEYS) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (item == 0)
            raise = 0;
        if (begin + KEYS <= keys)
            TILE_LOAD(begin + j)
        else
            TILE_LOAD(min(begin + j, keys - 1))
        barrier(CLK_LOCAL_MEM_FENCE);

        floatCT s[RT];
        UNROLL
        for (uint a = 0; a < RT; ++a)
            s[a] = (floatCT)(0.0f);
        _Pragma("unroll 16") for (uint d = 0; d < D; ++d) {
            floatCT key = ALIGNED(floatCT, shared_tile + KEY_PLACE(d, x));
            UNROLL
            for (uint a = 0; a < RT; a += 4) {
                float4 query = d > 0 ? ALIGNED(float4, query_tile + (d - 1) * ROWS + y * RT + a) : column_0[a / 4];
                s[a] = MAD((floatCT)(query.x), key, s[a]);
                s[a + 1] = MAD((floatCT)(query.y), key, s[a + 1]);
                s[a + 2] = MAD((floatCT)(query.z), key, s[a + 2]);
                s[a + 3] = MAD((floatCT)(query.w), key, s[a + 3]);
            }
        }

        float score[RT][CT], most[RT];
        bool grown = false;
        UNROLL
        for (uint a = 0; a < RT; ++a)
            CAT(vstore, CT)(s[a], 0, score[a]);
#if BIAS
        UNROLL
        for (uint c = 0; c < CT; ++c) {
            float more = LOG2_E * LOAD(BIAS_TYPE, bias, min(begin + x * CT + c, keys - 1) * bias_at.s3);
            UNROLL
            for (uint a = 0; a < RT; ++a)
                score[a][c] = more == -INFINITY ? more : score[a][c] + more;
        }
#endif
        if (begin + KEYS > visible_keys(first, diagonal, keys))
            UNROLL
        for (uint a = 0; a < RT; ++a) {
            uint seen = visible_keys(first + y * RT + a, diagonal, keys);
            UNROLL
            for (uint c = 0; c < CT; ++c)
                if (begin + x * CT + c >= seen)
                    score[a][c] = -INFINITY;
        }
        UNROLL
        for (uint a = 0; a < RT; ++a) {
            most[a] = score[a][0];
            UNROLL
            for (uint c = 1; c < CT; ++c)
                most[a] = fmax(most[a], score[a][c]);
            grown = grown || most[a] > r.top[a] + SLACK;
        }
        if (grown)
            atomic_or(&raise, 1);
        barrier(CLK_LOCAL_MEM_FENCE); /* the keys are used up */
        if (raise)
            rows_raise(&r, most, x, y, shared_tile);

        UNROLL
        for (uint a = 0; a < RT; ++a) {
            float base = r.top[a] == -INFINITY ? 0.0f : r.top[a];
            UNROLL
            for (uint c = 0; c < CT; ++c) {
                score[a][c] = exp2(score[a][c] - base);
                r.mass[a] += score[a][c];
            }
        }
        UNROLL
        for (uint c = 0; c < CT; ++c)
            UNROLL
        for (uint a = 0; a < RT; ++a)
            shared_tile[WEIGHT_PLACE(x * CT + c, (y * RT + a) / 4) + a % 4] = score[a][c];
        barrier(CLK_LOCAL_MEM_FENCE);

        _Pragma("unroll 16") for (uint j = 0; j < KEYS; ++j) {
            float4 value[VT];
            UNROLL
            for (uint c = 0; c < VT; ++c)
                value[c] = ALIGNED(float4, value_tile + j * PITCH_V + 4 * (x + TX * c));
            UNROLL
            for (uint a = 0; a < RT; a += 4) {
                float4 weight = ALIGNED(float4, shared_tile + WEIGHT_PLACE(j, (y * RT + a) / 4));
                UNROLL
                for (uint c = 0; c < VT; ++c) {
                    r.sum[a][c] = MAD((float4)(weight.x), value[c], r.sum[a][c]);
                    r.sum[a + 1][c] = MAD((float4)(weight.y), value[c], r.sum[a + 1][c]);
                    r.sum[a + 2][c] = MAD((float4)(weight.z), value[c], r.sum[a + 2][c]);
                    r.sum[a + 3][c] = MAD((float4)(weight.w), value[c], r.sum[a + 3][c]);
                }
            }
        }
    }

    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL
    for (uint a = 0; a < RT; ++a)
        shared_tile[(y * RT + a) * TX + x] = r.mass[a];
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL
    for (uint a = 0; a < RT; ++a) {
        uint row = first + y * RT + a;
        float mass = 0.0f;
        UNROLL
        for (uint i = 0; i < TX; ++i)
            mass += shared_tile[(y * RT + a) * TX + i];
        float inverse = mass == 0.0f ? 0.0f : 1.0f / mass;
        if (row >= queries)
            continue;
        UNROLL
        for (uint c = 0; c < VT; ++c) {
            float columns[4];
            vstore4(r.sum[a][c] * inverse, 0, columns);
            UNROLL
            for (uint i = 0; i < 4; ++i)
                if (DV == PITCH_V || 4 * (x + TX * c) + i < DV)
                    STORE(OUT_TYPE, out, row * out_at.s3 + 4 * (x + TX * c) + i, columns[i]);
        }
        if (x == 0)
            STORE(LSE_TYPE, lse, row * lse_at.s3, mass == 0.0f ? -INFINITY : (r.top[a] + log2(mass)) * LN_2);
    }
}
