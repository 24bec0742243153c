/* What a splat layer has beside attention, for GPUs: a work-group to a row, whose items take numbers side by side.
 * Mathematics and shapes as in splat_layer.cl.
 *
 * Work: grid (N · WG, H, B). Local memory: WG floats. */
#include "shared/tensor.clh"
#include "shared/group.clh"

#ifndef X_TYPE
#define X_TYPE F32
#endif
#ifndef DX_TYPE
#define DX_TYPE F32
#endif
#ifndef D
#define D 64
#endif

static inline float inverse_root(local float *part, global const ELEMENT(X_TYPE) *x) {
    float total = 0.0f;
    for (uint d = get_local_id(0); d < D; d += WG)
        total = MAD(LOAD(X_TYPE, x, d), LOAD(X_TYPE, x, d), total);
    return 1.0f / sqrt(group_sum(part, total) / D + 1e-5f);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
token_features_group(global const ELEMENT(X_TYPE) *x, INDEX4 x_at, global float *f, INDEX4 f_at) {
    local float part[WG];
    uint item = get_local_id(0), i = get_group_id(0), h = get_global_id(1), b = get_global_id(2);
    x += x_at.s0 + b * x_at.s1 + h * x_at.s2 + i * x_at.s3;
    f += f_at.s0 + b * f_at.s1 + h * f_at.s2 + i * f_at.s3;
    float inverse = inverse_root(part, x);
    for (uint d = item; d < D; d += WG) {
        float y = LOAD(X_TYPE, x, d) * inverse;
        f[d] = y;
        f[D + d] = y * y;
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
token_features_back_group(global const ELEMENT(X_TYPE) *x, INDEX4 x_at, global const float *f, INDEX4 f_at,
                          global const float *df, INDEX4 df_at, global ELEMENT(DX_TYPE) *dx, INDEX4 dx_at) {
    local float part[WG];
    uint item = get_local_id(0), i = get_group_id(0), h = get_global_id(1), b = get_global_id(2);
    x += x_at.s0 + b * x_at.s1 + h * x_at.s2 + i * x_at.s3;
    f += f_at.s0 + b * f_at.s1 + h * f_at.s2 + i * f_at.s3;
    df += df_at.s0 + b * df_at.s1 + h * df_at.s2 + i * df_at.s3;
    dx += dx_at.s0 + b * dx_at.s1 + h * dx_at.s2 + i * dx_at.s3;
    float inverse = inverse_root(part, x), along = 0.0f;
    for (uint d = item; d < D; d += WG)
        along = MAD(MAD(2.0f * f[d], df[D + d], df[d]), f[d], along);
    along = group_sum(part, along);
    for (uint d = item; d < D; d += WG) {
        float own = MAD(2.0f * f[d], df[D + d], df[d]) - f[d] * (along / D);
        STORE(DX_TYPE, dx, d, LOAD(DX_TYPE, dx, d) + inverse * own);
    }
}
