/* What a splat layer has beside attention: features in which a splat's log-density is a product, and the states of
 * splats from chunk to chunk.
 *
 *     token_features    f_i = [y, y²], y = x_i / √(mean x_i² + 1e-5)
 *     splat_features    g_s = [p μ, −½ p], p = e^log_precision:  f_i·g_s = φ_s(y) + ½ Σ p μ²
 *                       base_s = log_amplitude − ½ Σ p μ²: what writing leaves out
 *     splat_scan        of a chunk c: the state (prefix_lse, prefix) of all chunks up to c − 2, bias = base + it
 *     …_backward        their gradients: of x and of parameters added to, of states written
 *
 * Shapes: x [B,H,N,D], f [B,H,N,2·D]; mean, log_precision [S,D], log_amplitude, base [S], g [S,2·D], S over all heads;
 * lse, prefix_lse, bias [B,chunks,S], value, prefix [B,chunks,S,DV].
 * Work: features one work-item a row, or a splat; the scan one a splat; its gradient one a splat and chunk. No local
 * memory, no barrier. */
#include "shared/tensor.clh"

#ifndef X_TYPE
#define X_TYPE F32
#endif
#ifndef DX_TYPE
#define DX_TYPE F32
#endif
#ifndef D
#define D 64
#endif
#ifndef DV
#define DV 64
#endif
#ifndef LAG /* chunks that a query sees key by key: its own and the one before */
#define LAG 2
#endif

static inline float inverse_root(global const ELEMENT(X_TYPE) *x) {
    float total = 0.0f;
    for (uint d = 0; d < D; ++d)
        total = MAD(LOAD(X_TYPE, x, d), LOAD(X_TYPE, x, d), total);
    return 1.0f / sqrt(total / D + 1e-5f);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void token_features(uint rows, global const ELEMENT(X_TYPE) *x,
                                                                           INDEX4 x_at, global float *f, INDEX4 f_at) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    if (i >= rows)
        return;
    x += x_at.s0 + b * x_at.s1 + h * x_at.s2 + i * x_at.s3;
    f += f_at.s0 + b * f_at.s1 + h * f_at.s2 + i * f_at.s3;
    float inverse = inverse_root(x);
    for (uint d = 0; d < D; ++d) {
        float y = LOAD(X_TYPE, x, d) * inverse;
        f[d] = y;
        f[D + d] = y * y;
    }
}

/* x may be turned: that leaves its length as it is, and y is in f. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
token_features_backward(uint rows, global const ELEMENT(X_TYPE) *x, INDEX4 x_at, global const float *f, INDEX4 f_at,
                        global const float *df, INDEX4 df_at, global ELEMENT(DX_TYPE) *dx, INDEX4 dx_at) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    if (i >= rows)
        return;
    x += x_at.s0 + b * x_at.s1 + h * x_at.s2 + i * x_at.s3;
    f += f_at.s0 + b * f_at.s1 + h * f_at.s2 + i * f_at.s3;
    df += df_at.s0 + b * df_at.s1 + h * df_at.s2 + i * df_at.s3;
    dx += dx_at.s0 + b * dx_at.s1 + h * dx_at.s2 + i * dx_at.s3;
    float inverse = inverse_root(x), along = 0.0f;
    for (uint d = 0; d < D; ++d)
        along = MAD(MAD(2.0f * f[d], df[D + d], df[d]), f[d], along);
    for (uint d = 0; d < D; ++d)
        STORE(DX_TYPE, dx, d,
              LOAD(DX_TYPE, dx, d) + inverse * (MAD(2.0f * f[d], df[D + d], df[d]) - f[d] * (along / D)));
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void splat_features(uint count, global const float *mean,
                                                                           global const float *log_precision,
                                                                           global const float *log_amplitude,
                                                                           global float *g, global float *base) {
    uint s = get_global_id(0);
    if (s >= count)
        return;
    float square = 0.0f;
    for (uint d = 0; d < D; ++d) {
        float p = exp(log_precision[s * D + d]), m = mean[s * D + d];
        g[s * 2 * D + d] = p * m;
        g[s * 2 * D + D + d] = -0.5f * p;
        square = MAD(p * m, m, square);
    }
    base[s] = MAD(-0.5f, square, log_amplitude[s]);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
splat_features_backward(uint count, global const float *mean, global const float *log_precision, global const float *dg,
                        global const float *dbase, global float *dmean, global float *dlog_precision,
                        global float *dlog_amplitude) {
    uint s = get_global_id(0);
    if (s >= count)
        return;
    float b = dbase[s];
    dlog_amplitude[s] += b;
    for (uint d = 0; d < D; ++d) {
        float p = exp(log_precision[s * D + d]), m = mean[s * D + d];
        float linear = dg[s * 2 * D + d], square = dg[s * 2 * D + D + d];
        dmean[s * D + d] += p * (linear - b * m);
        dlog_precision[s * D + d] += p * (m * linear - 0.5f * (square + b * m * m));
    }
}

/* Chunks from `first` on; those before have their prefixes. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
splat_scan(uint count, uint first, uint chunks, uint room, global const float *base, global const float *lse,
           global const float *value, global float *prefix_lse, global float *prefix, global float *bias) {
    uint s = get_global_id(0);
    INDEX at = (INDEX)get_global_id(1) * room * count + s;
    if (s >= count)
        return;
    for (uint c = first; c < chunks; ++c) {
        INDEX own = at + c * count, before = own - count, added = own - LAG * count;
        float old = c > LAG ? prefix_lse[before] : -INFINITY, more = c >= LAG ? lse[added] : -INFINITY;
        float top = fmax(old, more);
        float total = c >= LAG ? top + log(exp(old - top) + exp(more - top)) : -INFINITY;
        for (uint d = 0; d < DV; ++d) {
            float sum = c > LAG ? exp(old - total) * prefix[before * DV + d] : 0.0f;
            prefix[own * DV + d] = c >= LAG ? MAD(exp(more - total), value[added * DV + d], sum) : 0.0f;
        }
        prefix_lse[own] = total;
        bias[own] = base[s] + total;
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
splat_scan_backward(uint count, uint chunks, global const float *lse, global const float *value,
                    global const float *prefix_lse, global const float *prefix, global const float *dprefix,
                    global const float *dbias, global float *dlse, global float *dvalue) {
    uint s = get_global_id(0), i = get_global_id(1);
    INDEX first = (INDEX)get_global_id(2) * chunks * count + s, own = first + i * count;
    if (s >= count)
        return;
    float sums[DV], total = 0.0f;
    for (uint d = 0; d < DV; ++d)
        sums[d] = 0.0f;
    for (uint c = i + LAG; c < chunks; ++c) {
        INDEX at = first + c * count;
        float w = exp(lse[own] - prefix_lse[at]), gain = dbias[at];
        for (uint d = 0; d < DV; ++d) {
            float dv = dprefix[at * DV + d];
            gain = MAD(dv, value[own * DV + d] - prefix[at * DV + d], gain);
            sums[d] = MAD(w, dv, sums[d]);
        }
        total = MAD(w, gain, total);
    }
    for (uint d = 0; d < DV; ++d)
        dvalue[own * DV + d] = sums[d];
    dlse[own] = total;
}
