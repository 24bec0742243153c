/* What a splat layer has beside attention: features in which a splat's log-density is a product, and the states of
 * splats from chunk to chunk.
 *
 *     token_features    f_i = [y, y²], y = x_i / √(mean x_i² + 1e-5)
 *     splat_features    g_s = [p μ, −½ p], p = e^log_precision:  f_i·g_s = φ_s(y) + ½ Σ p μ²
 *                       base_s = log_amplitude − ½ Σ p μ²: what writing leaves out
 *     token_biases      b_j = strength_j − ln Σ_s e^(base_s + f_j·g_s) − Σ_{t > j, in the chunk} fall_t, with which
 *                       token j is written; fall_t = ln(1 + e^decay_t)
 *     splat_scan        of a chunk c: the state (prefix_lse, prefix) of all chunks up to c − 2, as it has fallen since;
 *                       bias = base + prefix_lse
 *     …_backward        their gradients: of x and of parameters added to, of states and tokens written
 *
 * Shapes: x [B,H,N,D], f [B,H,N,2·D]; mean, log_precision [S,D], log_amplitude, base [S], g [S,2·D], S over all heads;
 * strength, decay, mixture, biases and their gradients [B,Hk,chunk,1], falls [B,chunks,Hk]; lse, prefix_lse, bias
 * [B,chunks,S], value, prefix [B,chunks,S,DV].
 * Work: features one work-item a row, or a splat; biases one a chunk; the scan and its gradient one a splat. No local
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
#ifndef DECAY /* 1: what is older than a chunk falls */
#define DECAY 1
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

static inline float softplus(float x) {
    return fmax(x, 0.0f) + log1p(exp(-fabs(x)));
}

/* Of a tensor [B,Hk,…] the numbers of this item's chunk and head. */
#define OF_CHUNK(at) ((at).s0 + get_global_id(0) * (at).s1 + get_global_id(1) * (at).s2)

/* Without DECAY there are no decay and falls. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
token_biases(uint chunks, uint chunk, global const float *strength, INDEX4 strength_at, global const float *mixture,
             INDEX4 mixture_at, global const float *decay, INDEX4 decay_at, global float *falls, INDEX4 falls_at,
             global float *biases, INDEX4 biases_at) {
    if (get_global_id(0) >= chunks)
        return;
    float fallen = 0.0f;
    strength += OF_CHUNK(strength_at);
    mixture += OF_CHUNK(mixture_at);
    biases += OF_CHUNK(biases_at);
    decay += DECAY ? OF_CHUNK(decay_at) : 0;
    for (uint j = chunk; j-- > 0;) {
        biases[j * biases_at.s3] = strength[j * strength_at.s3] - mixture[j * mixture_at.s3] - fallen;
        if (DECAY)
            fallen += softplus(decay[j * decay_at.s3]);
    }
    if (DECAY)
        falls[OF_CHUNK(falls_at)] = fallen;
}

/* dfalls [B,chunks,Hk,splats]: of each splat. Without DECAY there are no decay, dfalls and ddecay. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
token_biases_backward(uint chunks, uint chunk, uint splats, global const float *dbiases, INDEX4 dbiases_at,
                      global float *dmixture, INDEX4 dmixture_at, global const float *decay, INDEX4 decay_at,
                      global const float *dfalls, global float *ddecay, INDEX4 ddecay_at) {
    uint c = get_global_id(0), h = get_global_id(1);
    if (c >= chunks)
        return;
    float dfallen = 0.0f;
    dbiases += OF_CHUNK(dbiases_at);
    dmixture += OF_CHUNK(dmixture_at);
    decay += DECAY ? OF_CHUNK(decay_at) : 0;
    ddecay += DECAY ? OF_CHUNK(ddecay_at) : 0;
    for (uint s = 0; s < splats && DECAY; ++s)
        dfallen += dfalls[((INDEX)c * get_global_size(1) + h) * splats + s];
    for (uint j = 0; j < chunk; ++j) {
        float own = dbiases[j * dbiases_at.s3];
        dmixture[j * dmixture_at.s3] = -own;
        if (DECAY)
            ddecay[j * ddecay_at.s3] = dfallen / (1.0f + exp(-decay[j * decay_at.s3]));
        dfallen -= own; /* of what is written before the next */
    }
}

/* Chunks from `first` on; those before have their prefixes. `splats` of a head fall as one. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
splat_scan(uint count, uint splats, uint first, uint chunks, uint room, global const float *base,
           global const float *lse, global const float *value, global const float *falls, global float *prefix_lse,
           global float *prefix, global float *bias) {
    uint s = get_global_id(0);
    INDEX at = (INDEX)get_global_id(1) * room * count + s;
    if (s >= count)
        return;
    uint heads = count / splats;
    falls += (INDEX)get_global_id(1) * room * heads + s / splats;
    for (uint c = first; c < chunks; ++c) {
        INDEX own = at + c * count, before = own - count, added = own - LAG * count;
        float old = c > LAG ? prefix_lse[before] : -INFINITY, more = c >= LAG ? lse[added] : -INFINITY;
        float top = fmax(old, more);
        float total = c >= LAG ? top + log(exp(old - top) + exp(more - top)) : -INFINITY;
        float fall = c >= LAG ? falls[(c - 1) * heads] : 0.0f;
        for (uint d = 0; d < DV; ++d) {
            float sum = c > LAG ? exp(old - total) * prefix[before * DV + d] : 0.0f;
            prefix[own * DV + d] = c >= LAG ? MAD(exp(more - total), value[added * DV + d], sum) : 0.0f;
        }
        prefix_lse[own] = total - fall;
        bias[own] = base[s] + total - fall;
    }
}

/* Backwards over the chunks: with ω the part that the state before has in a chunk's,
 *
 *     R_c = dprefix_c + ω R_c+1        U_c = dbias_c + ω (U_c+1 + R_c+1·(prefix_c − prefix_c+1))
 *
 * are what the chunk's prefix and its logarithm receive in all. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
splat_scan_backward(uint count, uint splats, uint chunks, global const float *lse, global const float *value,
                    global const float *falls, global const float *prefix_lse, global const float *prefix,
                    global const float *dprefix, global const float *dbias, global float *dlse, global float *dvalue,
                    global float *dfalls) {
    uint s = get_global_id(0);
    INDEX first = (INDEX)get_global_id(1) * chunks * count + s;
    float sums[DV], total = 0.0f;
    if (s >= count)
        return;
    uint heads = count / splats;
    falls += (INDEX)get_global_id(1) * chunks * heads + s / splats;
    for (uint d = 0; d < DV; ++d)
        sums[d] = 0.0f;
    for (uint c = chunks; c-- > 0;) {
        INDEX own = first + c * count, next = own + count, after = next + count;
        bool written = c + LAG < chunks, read = c + 1 >= LAG && c + 1 < chunks;
        /* Here sums and total are those of chunk c + 2, and then of c + 1. */
        float fall = written ? falls[(c + 1) * heads] : 0.0f;
        float share = written ? exp(prefix_lse[next] - fall - prefix_lse[after]) : 0.0f;
        float part = written ? exp(lse[own] - fall - prefix_lse[after]) : 0.0f;
        float gain = total, kept = total;
        for (uint d = 0; d < DV; ++d) {
            float later = written ? prefix[after * DV + d] : 0.0f;
            gain = written ? MAD(sums[d], value[own * DV + d] - later, gain) : 0.0f;
            dvalue[own * DV + d] = part * sums[d];
            kept = written && read ? MAD(sums[d], prefix[next * DV + d] - later, kept) : 0.0f;
            sums[d] = MAD(share, sums[d], read ? dprefix[next * DV + d] : 0.0f);
        }
        dlse[own] = part * gain;
        total = MAD(share, kept, read ? dbias[next] : 0.0f);
        dfalls[own] = -total;
    }
}
