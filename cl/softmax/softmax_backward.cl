/* Gradients of exact softmax attention, from the inputs, the output and its lse; nothing of size N×M is kept.
 *
 *     p_ij = e^(scale q_i·k_j + b_j − lse_i)      δ_i = dout_i·out_i      t_ij = p_ij (dout_i·v_j − δ_i)
 *     dq_i = scale Σ_j t_ij k_j      dk_j = scale Σ_i t_ij q_i      dv_j = Σ_i p_ij dout_i      db_j = Σ_i t_ij
 *
 * lse is rounded to float32, so the p of a row sum to 1 only up to an ulp of lse: rows measures the sum and puts it
 * into the stats.
 *
 * Shapes: q, dq [B,H,N,D], k, dk [B,Hk,M,D], v, dv [B,Hk,M,DV], bias, dbias [B,Hk,M], out, dout [B,H,N,DV], lse
 * [B,H,N], stats [B,H,N,2]: lse put right, +inf for a row without keys, and δ.
 * Work: softmax_backward_rows, one work-item a query, grid (N rounded up to WG, H, B), then softmax_backward_keys, one
 * work-item a key, grid (M rounded up to WG, Hk, B), over the queries of its group of heads. No local memory, no
 * barrier, and nothing is added to by two work-items.
 * Sums are kept in two levels, FOLD terms at a time (see softmax.cl).
 * Source: Dao et al. 2022 (arXiv 2205.14135), appendix B.2. */
#include "softmax/softmax.clh"
#include "softmax/softmax_backward.clh"
#include "shared/tensor.clh"
#include "shared/backward.clh"

#ifndef JOINT /* 1: lse and out are of these keys and of others */
#define JOINT 0
#endif
#ifndef FOLD
#define FOLD 256
#endif

#include "shared/dot.clh"

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
softmax_backward_rows(uint queries, uint keys, uint group, float scale, int diagonal, global const ELEMENT(Q_TYPE) *q,
                      INDEX4 q_at, global const ELEMENT(K_TYPE) *k, INDEX4 k_at, global const ELEMENT(V_TYPE) *v,
                      INDEX4 v_at,
#if BIAS
                      global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
                      global const ELEMENT(OUT_TYPE) *out, INDEX4 out_at, global const ELEMENT(LSE_TYPE) *lse,
                      INDEX4 lse_at, global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at, global ELEMENT(DQ_TYPE) *dq,
                      INDEX4 dq_at, global float *stats DLSE_ARGUMENTS) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    if (i >= queries)
        return;
    q += q_at.s0 + b * q_at.s1 + h * q_at.s2 + i * q_at.s3;
    k += k_at.s0 + b * k_at.s1 + (h / group) * k_at.s2;
    v += v_at.s0 + b * v_at.s1 + (h / group) * v_at.s2;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + (h / group) * bias_at.s2;
#endif
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3;
    dout += dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + i * dout_at.s3;
    dq += dq_at.s0 + b * dq_at.s1 + h * dq_at.s2 + i * dq_at.s3;
    stats += 2 * (((INDEX)b * get_global_size(1) + h) * queries + i);

    float row_lse = LOAD(LSE_TYPE, lse + lse_at.s0 + b * lse_at.s1 + h * lse_at.s2, i * lse_at.s3);
    float total[D], part[D], mass = 0.0f, delta = -DLSE_OF(b, h, i);
    for (uint d = 0; d < D; ++d)
        total[d] = 0.0f;
    for (uint d = 0; d < DV; ++d)
        delta = MAD(LOAD(DOUT_TYPE, dout, d), LOAD(OUT_TYPE, out, d), delta);
    uint visible = row_lse == -INFINITY ? 0 : visible_keys(i, diagonal, keys);
    for (uint begin = first_key(i, diagonal, keys); begin < visible; begin += FOLD) {
        float sum = 0.0f;
        for (uint d = 0; d < D; ++d)
            part[d] = 0.0f;
        for (uint j = begin, end = min(begin + FOLD, visible); j < end; ++j) {
            float l = 0.0f;
#if BIAS
            l = LOAD(BIAS_TYPE, bias, j * bias_at.s3);
            if (l == -INFINITY)
                continue;
#endif
            float p = exp(MAD(scale, dot_row(q, k + j * k_at.s3), l) - row_lse);
            float t = p * (dot_value(dout, v + j * v_at.s3) - delta);
            sum += p;
            for (uint d = 0; d < D; ++d)
                part[d] = MAD(t, LOAD(K_TYPE, k, j * k_at.s3 + d), part[d]);
        }
        mass += sum;
        for (uint d = 0; d < D; ++d)
            total[d] += part[d];
    }
    bool empty = mass == 0.0f;
    for (uint d = 0; d < D; ++d)
        STORE(DQ_TYPE, dq, d, empty ? 0.0f : total[d] * (scale / (JOINT ? 1.0f : mass)));
    stats[0] = empty ? INFINITY : row_lse + (JOINT ? 0.0f : log(mass));
    stats[1] = empty ? 0.0f : delta;
}

/* The queries [first, last) that see key j. */
static inline uint2 rows_that_see(uint j, int diagonal, uint queries) {
    uint first = (uint)clamp((int)j - diagonal, 0, (int)queries);
    return (uint2)(first, WINDOW == 0 ? queries : (uint)clamp((int)j - diagonal + WINDOW, 0, (int)queries));
}

/* A key, and what it receives. */
typedef struct key_sums {
    float dk[D], dv[DV], dbias;
} key_sums;

static inline void key_clear(private key_sums *s) {
    s->dbias = 0.0f;
    for (uint d = 0; d < D; ++d)
        s->dk[d] = 0.0f;
    for (uint d = 0; d < DV; ++d)
        s->dv[d] = 0.0f;
}

static inline void key_add(private key_sums *s, private const key_sums *more) {
    s->dbias += more->dbias;
    for (uint d = 0; d < D; ++d)
        s->dk[d] += more->dk[d];
    for (uint d = 0; d < DV; ++d)
        s->dv[d] += more->dv[d];
}

/* Of a query with weight p and what its log-weight receives. */
static inline void key_receive(private key_sums *s, float p, float t, global const ELEMENT(Q_TYPE) *q,
                               global const ELEMENT(DOUT_TYPE) *dout) {
    s->dbias += t;
    for (uint d = 0; d < D; ++d)
        s->dk[d] = MAD(t, LOAD(Q_TYPE, q, d), s->dk[d]);
    for (uint d = 0; d < DV; ++d)
        s->dv[d] = MAD(p, LOAD(DOUT_TYPE, dout, d), s->dv[d]);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
softmax_backward_keys(uint queries, uint keys, uint group, float scale, int diagonal, global const ELEMENT(Q_TYPE) *q,
                      INDEX4 q_at, global const ELEMENT(K_TYPE) *k, INDEX4 k_at, global const ELEMENT(V_TYPE) *v,
                      INDEX4 v_at,
#if BIAS
                      global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
                      global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at, global const float *stats,
                      global ELEMENT(DK_TYPE) *dk, INDEX4 dk_at, global ELEMENT(DV_TYPE) *dv, INDEX4 dv_at
#if DBIAS
                      ,
                      global ELEMENT(DBIAS_TYPE) *dbias, INDEX4 dbias_at
#endif
) {
    uint j = get_global_id(0), kv = get_global_id(1), b = get_global_id(2), heads = get_global_size(1) * group;
    if (j >= keys)
        return;
    k += k_at.s0 + b * k_at.s1 + kv * k_at.s2 + j * k_at.s3;
    v += v_at.s0 + b * v_at.s1 + kv * v_at.s2 + j * v_at.s3;
    float key_bias = 0.0f;
#if BIAS
    key_bias = LOAD(BIAS_TYPE, bias + bias_at.s0 + b * bias_at.s1 + kv * bias_at.s2, j * bias_at.s3);
#endif
    dk += dk_at.s0 + b * dk_at.s1 + kv * dk_at.s2 + j * dk_at.s3;
    dv += dv_at.s0 + b * dv_at.s1 + kv * dv_at.s2 + j * dv_at.s3;

    key_sums total, part;
    key_clear(&total);
    uint2 rows = rows_that_see(j, diagonal, queries);
    for (uint h = kv * group; key_bias != -INFINITY && h < (kv + 1) * group; ++h) {
        global const ELEMENT(Q_TYPE) *query = q + q_at.s0 + b * q_at.s1 + h * q_at.s2;
        global const ELEMENT(DOUT_TYPE) *grad = dout + dout_at.s0 + b * dout_at.s1 + h * dout_at.s2;
        global const float *stat = stats + 2 * ((INDEX)b * heads + h) * queries;
        for (uint begin = rows.x; begin < rows.y; begin += FOLD) {
            key_clear(&part);
            for (uint i = begin, end = min(begin + FOLD, rows.y); i < end; ++i) {
                float p = exp(MAD(scale, dot_row(query + i * q_at.s3, k), key_bias) - stat[2 * i]);
                float t = p * (dot_value(grad + i * dout_at.s3, v) - stat[2 * i + 1]);
                key_receive(&part, p, t, query + i * q_at.s3, grad + i * dout_at.s3);
            }
            key_add(&total, &part);
        }
    }
    for (uint d = 0; d < D; ++d)
        STORE(DK_TYPE, dk, d, total.dk[d] * scale);
    for (uint d = 0; d < DV; ++d)
        STORE(DV_TYPE, dv, d, total.dv[d]);
#if DBIAS
    STORE(DBIAS_TYPE, dbias + dbias_at.s0 + b * dbias_at.s1 + kv * dbias_at.s2, j * dbias_at.s3, total.dbias);
#endif
}
