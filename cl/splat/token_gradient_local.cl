/* Token gradient in tiles of local memory (local_rows.clh), for GPUs of any vendor; isotropic and diagonal splats.
 * Shapes as in token_gradient.cl, mathematics as in token_gradient_wide.cl: everything is measured from a common centre
 * c, with x' = x − c, μ' = μ − c,
 *
 *     diagonal    dx_d = Σ_s ω_s (r²μ')_sd − x'_d Σ_s ω_s r²_sd
 *     isotropic   dx_d = Σ_s (ω_s r_s²) μ'_sd − x'_d Σ_s ω_s r_s²
 *
 * Rows are tokens, sources splats of one head of weights after the other.
 *
 * Work: a group for COLUMNS columns of ROWS tokens; grid (⌈rows / ROWS⌉ · D / COLUMNS · WG, Hx, B). */
#ifndef X_TYPE
#define X_TYPE F32
#define DX_TYPE F32
#endif
#ifndef D
#define D 64
#endif
#ifndef COLUMNS /* a divisor of D */
#define COLUMNS D
#endif
#define STRIPS (D / COLUMNS)
#include "shared/local_rows.clh"
#ifndef COVARIANCE
#define COVARIANCE COVARIANCE_DIAGONAL
#endif
#if COVARIANCE == COVARIANCE_DIAGONAL
#define SQUARES_DECLARE local float squares[SOURCES * PITCH(COLUMNS)] ALIGNED;
#define RATE_LOAD                                                                                                      \
    float inverse_ = d_ < COLUMNS ? inverse[s_ * D + d0 + d_] : 0.0f, rate_ = inverse_ * inverse_;                     \
    squares[r_ * PITCH(COLUMNS) + d_] = rate_;
#define MIDDLE(difference) (rate_ * (difference))
#define RATE(s) 1.0f
#define PULLS VECTORS(COLUMNS)
#define PULL_ADD SUMS_ADD(pull, tx, ty, passed, squares, COLUMNS)
#define PULL(a, c) pull[a][c]
#else
#define SQUARES_DECLARE
#define RATE_LOAD
#define MIDDLE(difference) (difference)
#define RATE(s) (inverse[s] * inverse[s])
#define PULLS 1
#define PULL_ADD                                                                                                       \
    for (uint j_ = 0; j_ < SOURCES; ++j_) {                                                                            \
        float4 weight_ = VECTOR(passed + j_ * PITCH_WEIGHTS + RT * ty);                                                \
        pull[0][0] += weight_.x;                                                                                       \
        pull[1][0] += weight_.y;                                                                                       \
        pull[2][0] += weight_.z;                                                                                       \
        pull[3][0] += weight_.w;                                                                                       \
    }
#define PULL(a, c) pull[a][0]
#endif

/* r²μ' and r², or μ', of the splats from `begin` on; 0 in the columns past COLUMNS. */
#define SPLATS_LOAD                                                                                                    \
    for (uint e_ = item; e_ < SOURCES * (PITCH(COLUMNS) - 4); e_ += WG) {                                              \
        uint d_ = e_ % (PITCH(COLUMNS) - 4), r_ = e_ / (PITCH(COLUMNS) - 4);                                           \
        INDEX s_ = splat + min(begin + r_, splats - 1);                                                                \
        RATE_LOAD                                                                                                      \
        middles[r_ * PITCH(COLUMNS) + d_] = d_ < COLUMNS ? MIDDLE(mean[s_ * D + d0 + d_] - middle[d0 + d_]) : 0.0f;    \
    }

/* Σ_s of one head of weights is complete: what it means for the tokens. */
#define HEAD_CLOSE                                                                                                     \
    UNROLL                                                                                                             \
    for (uint a = 0; a < RT; ++a) {                                                                                    \
        INDEX at = min(first + ty + TY * a, rows - 1) * x_at.s3;                                                       \
        UNROLL                                                                                                         \
        for (uint c = 0; c < VECTORS(COLUMNS); ++c) {                                                                  \
            float from[4], pulled[4];                                                                                  \
            vstore4(PULL(a, c), 0, pulled);                                                                            \
            UNROLL                                                                                                     \
            for (uint i = 0; i < 4; ++i) {                                                                             \
                uint d = 4 * (tx + TX * c) + i;                                                                        \
                bool counts = d < COLUMNS && pulled[i] != 0.0f; /* a token without weight may hold anything */         \
                from[i] = counts ? LOAD(X_TYPE, x, at + d0 + d) - middle[d0 + d] : 0.0f;                               \
            }                                                                                                          \
            sum[a][c] = MAD(-PULL(a, c), vload4(0, from), sum[a][c]);                                                  \
        }                                                                                                              \
    }

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
token_gradient_local(uint rows, uint sources, uint splats, uint per_head, uint first_head, global const float *mean,
                     global const float *inverse, global const float *centre, global const ELEMENT(X_TYPE) *x,
                     INDEX4 x_at, global const float *weights, global ELEMENT(DX_TYPE) *dx, INDEX4 dx_at) {
    local float middles[SOURCES * PITCH(COLUMNS)] ALIGNED, passed[SOURCES * PITCH_WEIGHTS] ALIGNED;
    SQUARES_DECLARE
    uint item = get_local_id(0), tx = item % TX, ty = item / TX, first = get_group_id(0) / STRIPS * ROWS;
    uint t = get_global_id(1), b = get_global_id(2), tokens = get_global_size(1), column = item % SOURCES;
    uint d0 = get_group_id(0) % STRIPS * COLUMNS;
    x += x_at.s0 + b * x_at.s1 + t * x_at.s2;
    dx += dx_at.s0 + b * dx_at.s1 + t * dx_at.s2;
    float4 sum[RT][VECTORS(COLUMNS)], pull[RT][PULLS];
    SUMS_CLEAR(sum, COLUMNS)
    for (uint h = t * sources; h < (t + 1) * sources; ++h) {
        uint set = per_head ? first_head + h : 0;
        INDEX splat = (INDEX)set * splats;
        global const float *middle = centre + set * D;
        global const float *weight = weights + ((INDEX)b * tokens * sources + h) * rows * splats;
        UNROLL
        for (uint a = 0; a < RT; ++a)
            UNROLL
        for (uint c = 0; c < PULLS; ++c)
            pull[a][c] = (float4)(0.0f);
        for (uint begin = 0; begin < splats; begin += SOURCES) {
            uint s = min(begin + column, splats - 1);
            float rate = begin + column < splats ? RATE(splat + s) : 0.0f;
            barrier(CLK_LOCAL_MEM_FENCE);
            SPLATS_LOAD
            for (uint p = item / SOURCES; p < ROWS; p += WG / SOURCES)
                passed[column * PITCH_WEIGHTS + p] =
                    rate * weight[(INDEX)min(first + ROW_OF(p), rows - 1) * splats + s];
            barrier(CLK_LOCAL_MEM_FENCE);
            SUMS_ADD(sum, tx, ty, passed, middles, COLUMNS)
            PULL_ADD
        }
        HEAD_CLOSE
    }
    SUMS_STORE(DX_TYPE, dx + d0, dx_at.s3, sum, 1.0f, tx, ty, first, rows, COLUMNS)
}
