/* Token gradient in register tiles (wide.clh), for CPUs; isotropic and diagonal splats. Shapes as in token_gradient.cl.
 *
 * Everything is measured from a common centre c, the mean of the head's splat means, with x' = x − c, μ' = μ − c:
 *
 *     diagonal    dx_d = Σ_s ω_s (r²μ')_sd − x'_d Σ_s ω_s r²_sd
 *     isotropic   dx_d = Σ_s (ω_s r_s²) μ'_sd − x'_d Σ_s ω_s r_s²
 *
 * What they cancel is bounded by the spread of the means in units of a splat's width: see op_splats.spread.
 *
 * Needs a multiple of 16 splats. Work: one work-item for TILE tokens; grid (⌈rows / TILE⌉, Hx, B), work-groups of one.
 * */
#ifndef X_TYPE
#define X_TYPE F32
#define DX_TYPE F32
#endif
#ifndef COVARIANCE /* 0 isotropic, 1 diagonal */
#define COVARIANCE 1
#endif
#ifndef TILE
#define TILE 64
#endif
#ifndef D
#define D 64
#endif
#define DV D
#include "shared/tensor.clh"
#include "shared/wide.clh"
#include "shared/wide_backward.clh"

typedef struct token_tile {
    float dx[TILE * D] ALIGNED, sum[TILE * D] ALIGNED;
    float pull[TILE * (COVARIANCE ? D : 16)] ALIGNED; /* Σ ω r² */
} token_tile;

/* A block of splats: r²μ' and r², or μ' and r². */
typedef struct pull_block {
    float middle[BLOCK * D] ALIGNED, factor[BLOCK * (COVARIANCE ? D : 1)] ALIGNED;
    uint count;
} pull_block;

static inline void pull_load(private pull_block *y, global const float *mean, global const float *inverse,
                             global const float *centre, uint begin) {
    for (uint j = 0; j < y->count; ++j) {
        INDEX s = begin + j;
#if !COVARIANCE
        y->factor[j] = inverse[s] * inverse[s];
#endif
        for (uint d = 0; d < D; d += 16) {
            float16 m = vload16(0, mean + s * D + d) - vload16(0, centre + d);
#if COVARIANCE
            float16 r = vload16(0, inverse + s * D + d);
            VECTOR(y->factor + j * D + d) = r * r;
            m *= r * r;
#endif
            VECTOR(y->middle + j * D + d) = m;
        }
    }
}

static inline void tile_pull(private token_tile *t, private pull_block *y, global const float *weights, uint splats,
                             uint rows) {
    float w[RT * BLOCK] ALIGNED;
    for (uint r = 0; r < rows; r += RT) {
        for (uint a = 0; a < RT; ++a)
            for (uint c = 0; c < y->count; c += 16) {
                float16 omega = vload16(0, weights + (INDEX)min(r + a, rows - 1) * splats + c);
#if !COVARIANCE
                omega *= VECTOR(y->factor + c);
                VECTOR(t->pull + (r + a) * 16) += omega;
#endif
                VECTOR(w + a * BLOCK + c) = omega;
            }
        ACCUMULATE(private, t->sum + r * D, w, BLOCK, 1, y->middle, D, y->count)
#if COVARIANCE
        ACCUMULATE(private, t->pull + r * D, w, BLOCK, 1, y->factor, D, y->count)
#endif
    }
}

/* Σ_s of one head of weights is complete: what it means for the tokens. */
static inline void tile_close(private token_tile *t, global const ELEMENT(X_TYPE) *x, INDEX pitch,
                              global const float *centre, uint rows) {
    for (uint r = 0; r < TILE; ++r)
        for (uint d = 0; d < D; d += 16) {
            float16 y = LOAD16(X_TYPE, x + min(r, rows - 1) * pitch, d) - vload16(0, centre + d);
#if COVARIANCE
            float16 pull = VECTOR(t->pull + r * D + d);
#else
            float16 pull = (float16)(sum16(VECTOR(t->pull + r * 16)));
#endif
            VECTOR(t->dx + r * D + d) += VECTOR(t->sum + r * D + d) - y * pull;
        }
}

static inline void tile_open(private token_tile *t) {
    for (uint i = 0; i < TILE * D; i += 16)
        VECTOR(t->sum + i) = (float16)(0.0f);
    for (uint i = 0; i < TILE * (COVARIANCE ? D : 16); i += 16)
        VECTOR(t->pull + i) = (float16)(0.0f);
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
token_gradient_wide(uint rows, uint sources, uint splats, uint per_head, uint first_head, global const float *mean,
                    global const float *inverse, global const float *centre, global const ELEMENT(X_TYPE) *x,
                    INDEX4 x_at, global const float *weights, global ELEMENT(DX_TYPE) *dx, INDEX4 dx_at) {
    uint first = get_global_id(0) * TILE, tok = get_global_id(1), b = get_global_id(2), tokens = get_global_size(1);
    uint count = min((uint)TILE, rows - first);
    x += x_at.s0 + b * x_at.s1 + tok * x_at.s2 + first * x_at.s3;
    dx += dx_at.s0 + b * dx_at.s1 + tok * dx_at.s2 + first * dx_at.s3;
    token_tile t;
    pull_block y;
    for (uint i = 0; i < TILE * D; i += 16)
        VECTOR(t.dx + i) = (float16)(0.0f);
    for (uint h = tok * sources; h < (tok + 1) * sources; ++h) {
        uint set = per_head ? first_head + h : 0;
        INDEX splat = (INDEX)set * splats;
        tile_open(&t);
        for (uint begin = 0; begin < splats; begin += BLOCK) {
            y.count = min((uint)BLOCK, splats - begin);
            pull_load(&y, mean + splat * D, inverse + splat * (COVARIANCE ? D : 1), centre + set * D, begin);
            tile_pull(&t, &y, weights + (((INDEX)b * tokens * sources + h) * rows + first) * splats + begin, splats,
                      count);
        }
        tile_close(&t, x, x_at.s3, centre + set * D, count);
    }
    for (uint r = 0; r < count; ++r)
        for (uint d = 0; d < D; d += 16)
            STORE16(DX_TYPE, dx, r * dx_at.s3 + d, VECTOR(t.dx + r * D + d));
}
