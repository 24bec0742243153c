/* Softmax attention over the keys of the largest scores, or over the blocks of BLOCK consecutive keys of the largest
 * mean scores: the yardstick of sparse attention, not a fast way to have it.
 *
 *     l_ij = scale q_i·k_j      out_i = Σ_{j kept} e^(l_ij) v_j / Σ_{j kept} e^(l_ij)
 *
 * over the keys j ≤ i + diagonal. The block of the last of them is always kept.
 *
 * Shapes: q [B,H,N,D], k [B,Hk,M,D], v [B,Hk,M,DV], out [B,H,N,DV], scores [B,H,N,M + blocks].
 * Work: one work-item a query; grid (N rounded up to WG, H, B). No local memory, no barrier. */
#include "shared/tensor.clh"
#include "shared/state.clh"

#ifndef D
#define D 64
#endif
#ifndef BLOCK /* keys that are kept or dropped together */
#define BLOCK 1
#endif
#ifndef Q_TYPE
#define Q_TYPE F32
#define K_TYPE F32
#define V_TYPE F32
#define OUT_TYPE F32
#endif
#include "shared/dot.clh"

/* In the order of the numbers: a bit pattern that is larger if and only if x is. */
static inline uint ordered(float x) {
    uint bits = as_uint(x);
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

/* The keep-th largest of `count` numbers, as ordered() has it, bit by bit; 0 if there are no more than that. */
static inline uint threshold(global const float *rank, uint count, uint keep) {
    uint found = 0;
    if (count <= keep)
        return found;
    for (uint bit = 0x80000000u; bit; bit >>= 1) {
        uint above = 0;
        for (uint n = 0; n < count; ++n)
            above += ordered(rank[n]) >= (found | bit);
        if (above >= keep)
            found |= bit;
    }
    return found;
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
topk_attention(uint queries, uint keys, uint group, float scale, int diagonal, uint keep, uint pitch,
               global float *scores, global const ELEMENT(Q_TYPE) *q, INDEX4 q_at, global const ELEMENT(K_TYPE) *k,
               INDEX4 k_at, global const ELEMENT(V_TYPE) *v, INDEX4 v_at, global ELEMENT(OUT_TYPE) *out,
               INDEX4 out_at) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    if (i >= queries)
        return;
    q += q_at.s0 + b * q_at.s1 + h * q_at.s2 + i * q_at.s3;
    k += k_at.s0 + b * k_at.s1 + (h / group) * k_at.s2;
    v += v_at.s0 + b * v_at.s1 + (h / group) * v_at.s2;
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3;
    scores += (((INDEX)b * get_global_size(1) + h) * queries + i) * pitch;

    uint visible = visible_keys(i, diagonal, keys), blocks = (visible + BLOCK - 1) / BLOCK;
    global float *rank = BLOCK == 1 ? scores : scores + keys;
    for (uint n = 0; n < blocks; ++n) {
        uint begin = n * BLOCK, end = min(begin + BLOCK, visible);
        float total = 0.0f;
        for (uint j = begin; j < end; ++j) {
            scores[j] = scale * dot_row(q, k + j * k_at.s3);
            total += scores[j];
        }
        if (BLOCK > 1)
            rank[n] = end == visible ? INFINITY : total / (end - begin);
    }

    uint least = threshold(rank, blocks, keep);
    state row;
    state_clear(&row);
    for (uint j = 0; j < visible; ++j) {
        if (ordered(rank[j / BLOCK]) < least || scores[j] == -INFINITY)
            continue;
        float weight = state_admit(&row, scores[j]);
        for (uint d = 0; d < DV; ++d)
            row.sum[d] = MAD(weight, LOAD(V_TYPE, v, j * v_at.s3 + d), row.sum[d]);
    }
    float inverse = inverse_mass(&row);
    for (uint d = 0; d < DV; ++d)
        STORE(OUT_TYPE, out, d, row.sum[d] * inverse);
}
