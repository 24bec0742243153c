/* Splat moments in register tiles (wide.clh), for CPUs; isotropic and diagonal splats. Shapes as in splat_moments.cl.
 *
 * Tokens are measured from a common centre, x' = x − c, and the moments moved to the mean at the end, with μ' = μ − c:
 *
 *     Σ ω y = Σ ω x' − μ' Σ ω      Σ ω y² = Σ ω x'² − 2μ' Σ ω x' + μ'² Σ ω
 *
 * What they cancel is bounded by the spread of the means in units of a splat's width: see op_splats.spread.
 *
 * Needs a multiple of 16 splats. Work: one work-item for TILE splats; grid (⌈S / TILE⌉, 1, sets), work-groups of one.
 * Rows of weights come in blocks of ROWS. */
#ifndef X_TYPE
#define X_TYPE F32
#endif
#ifndef COVARIANCE /* 0 isotropic, 1 diagonal */
#define COVARIANCE 1
#endif
#ifndef TILE
#define TILE 32
#endif
#ifndef ROWS
#define ROWS 64
#endif
#ifndef D
#define D 64
#endif
#define DV D
#include "shared/tensor.clh"
#include "shared/wide.clh"
#include "shared/wide_backward.clh"

typedef struct moment_tile {
    float mass[TILE] ALIGNED, sum[TILE * D] ALIGNED, square[TILE * (COVARIANCE ? D : 1)] ALIGNED;
} moment_tile;

typedef struct token_block {
    float x[ROWS * D] ALIGNED, weights[ROWS * TILE] ALIGNED;
    float square[ROWS * (COVARIANCE ? D : 1)] ALIGNED; /* x'², isotropic: |x'|² */
    uint count;
} token_block;

/* A padding key may hold anything, but weighs nothing: 0 stands for it. */
static inline void tokens_load(private token_block *y, global const ELEMENT(X_TYPE) *x, INDEX pitch,
                               global const float *centre, global const float *weights, uint splats, uint tile) {
    for (uint i = 0; i < y->count; ++i) {
        float16 any_weight = (float16)(0.0f);
        for (uint c = 0; c < tile; c += 16) {
            float16 w = vload16(0, weights + (INDEX)i * splats + c);
            VECTOR(y->weights + i * TILE + c) = w;
            any_weight = max(any_weight, fabs(w));
        }
        bool weighs = max16(any_weight) > 0.0f;
#if !COVARIANCE
        float16 lanes = (float16)(0.0f);
#endif
        for (uint d = 0; d < D; d += 16) {
            float16 t = weighs ? LOAD16(X_TYPE, x + i * pitch, d) - vload16(0, centre + d) : (float16)(0.0f);
            VECTOR(y->x + i * D + d) = t;
#if COVARIANCE
            VECTOR(y->square + i * D + d) = t * t;
#else
            lanes = MAD(t, t, lanes);
#endif
        }
#if !COVARIANCE
        y->square[i] = sum16(lanes);
#endif
    }
}

static inline void tokens_add(private moment_tile *t, private token_block *y, uint tile) {
    for (uint c = 0; c < tile; c += 16) {
        float16 mass = (float16)(0.0f);
        for (uint i = 0; i < y->count; ++i)
            mass += VECTOR(y->weights + i * TILE + c);
        VECTOR(t->mass + c) += mass;
#if !COVARIANCE
        float16 square = (float16)(0.0f);
        for (uint i = 0; i < y->count; ++i)
            square = MAD(VECTOR(y->weights + i * TILE + c), (float16)(y->square[i]), square);
        VECTOR(t->square + c) += square;
#endif
    }
    for (uint s = 0; s < tile; s += RT) {
        ACCUMULATE(private, t->sum + s * D, y->weights + s, 1, TILE, y->x, D, y->count)
#if COVARIANCE
        ACCUMULATE(private, t->square + s * D, y->weights + s, 1, TILE, y->square, D, y->count)
#endif
    }
}

/* Moves splat s of the tile to its mean, and adds it to what is there. */
static inline void tile_close(private moment_tile *t, uint s, global const float *mean, global const float *centre,
                              uint amplitude, global float *moments) {
#if !COVARIANCE
    float16 square = (float16)(0.0f);
#endif
    if (amplitude)
        moments[0] += t->mass[s];
    for (uint d = 0; d < D; d += 16) {
        float16 m = vload16(0, mean + d) - vload16(0, centre + d), sum = VECTOR(t->sum + s * D + d);
        float16 moved = MAD(-m, (float16)(t->mass[s]), sum);
        float16 more = -m * (sum + moved); /* −2μ'Σωx' + μ'²Σω */
        vstore16(vload16(0, moments + 1 + d) + moved, 0, moments + 1 + d);
#if COVARIANCE
        float16 second = VECTOR(t->square + s * D + d) + more;
        vstore16(vload16(0, moments + 1 + D + d) + second, 0, moments + 1 + D + d);
#else
        square += more;
#endif
    }
#if !COVARIANCE
    moments[1 + D] += t->square[s] + sum16(square);
#endif
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
splat_moments_wide(uint rows, uint batch, uint heads, uint x_group, uint amplitude, uint splats, uint per_head,
                   uint first_head, global const float *mean, global const float *inverse, global const float *centre,
                   global const ELEMENT(X_TYPE) *x, INDEX4 x_at, global const float *weights, global float *moments) {
    uint begin = get_global_id(0) * TILE, own = get_global_id(2), set = per_head ? first_head + own : 0;
    uint tile = min((uint)TILE, splats - begin);
    INDEX splat = (INDEX)set * splats + begin;
    moment_tile t;
    token_block y;
    for (uint s = 0; s < TILE; ++s) {
        t.mass[s] = 0.0f;
        for (uint d = 0; d < D; d += 16)
            VECTOR(t.sum + s * D + d) = (float16)(0.0f);
        for (uint d = 0; d < (COVARIANCE ? D : 1); ++d)
            t.square[s * (COVARIANCE ? D : 1) + d] = 0.0f;
    }
    for (uint bh = 0; bh < batch * (per_head ? 1 : heads); ++bh) {
        uint b = per_head ? bh : bh / heads, h = per_head ? own : bh % heads;
        global const ELEMENT(X_TYPE) *token = x + x_at.s0 + b * x_at.s1 + (h / x_group) * x_at.s2;
        global const float *weight = weights + ((INDEX)b * heads + h) * rows * splats + begin;
        for (uint i = 0; i < rows; i += ROWS) {
            y.count = min((uint)ROWS, rows - i);
            tokens_load(&y, token + i * x_at.s3, x_at.s3, centre + set * D, weight + (INDEX)i * splats, splats, tile);
            tokens_add(&t, &y, tile);
        }
    }
    for (uint s = 0; s < tile; ++s)
        tile_close(&t, s, mean + (splat + s) * D, centre + set * D, amplitude,
                   moments + (splat + s) * (1 + D + (COVARIANCE ? D : 1)));
}
