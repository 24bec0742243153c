/* Splat moments in tiles of local memory (local_rows.clh), for GPUs of any vendor; isotropic and diagonal splats.
 * Shapes as in splat_moments.cl. Tokens are measured from a common centre, and the moments moved to the mean at the end
 * (splat_moments_wide.cl has the formula):
 *
 *     splat_moments_local   rows are splats, sources tokens; each part of the tokens leaves its sums in `parts`
 *     splat_moments_merge   adds the parts in their order, and what they mean for the splats to the moments
 *
 * Shapes: parts [sets,P,S,1+D+SECOND], P = heads of a set · segments.
 * Work: local: grid (⌈S / ROWS⌉ · WG, P, sets) with one set of all heads or a set a head; merge: a group a splat, grid
 * (WG, S, sets). */
#ifndef X_TYPE
#define X_TYPE F32
#endif
#ifndef D
#define D 64
#endif
#include "shared/local_rows.clh"
#ifndef COVARIANCE
#define COVARIANCE COVARIANCE_DIAGONAL
#endif
#define SECOND (COVARIANCE == COVARIANCE_DIAGONAL ? D : 1)
#define NUMBERS (1 + D + SECOND)
#define LARGEST_NUMBER 3.0e38f

/* x' of the tokens `begin`…, 0 in the columns past D; what a token without weight holds, perhaps no number, is made one
 * that 0 can be multiplied by. */
#define TOKENS_LOAD                                                                                                    \
    for (uint e_ = item; e_ < SOURCES * (PITCH(D) - 4); e_ += WG) {                                                    \
        uint d_ = e_ % (PITCH(D) - 4), r_ = e_ / (PITCH(D) - 4);                                                       \
        float x_ = d_ < D ? LOAD(X_TYPE, x, min(begin + r_, end - 1) * x_at.s3 + d_) - centre[d_] : 0.0f;              \
        x_ = fmax(fmin(x_, LARGEST_NUMBER), -LARGEST_NUMBER);                                                          \
        tokens[r_ * PITCH(D) + d_] = x_;                                                                               \
        SQUARE_LOAD                                                                                                    \
    }

#if COVARIANCE == COVARIANCE_DIAGONAL
#define SQUARES_DECLARE                                                                                                \
    local float squares[SOURCES * PITCH(D)] ALIGNED;                                                                   \
    float4 square[RT][VECTORS(D)];
#define SQUARES_CLEAR SUMS_CLEAR(square, D)
#define SQUARE_LOAD squares[r_ * PITCH(D) + d_] = fmin(x_ * x_, LARGEST_NUMBER);
#define NORMS_MAKE
#define NORM_ADD
#define SQUARES_ADD SUMS_ADD(square, tx, ty, passed, squares, D)
#define MEETING_DECLARE
#define SQUARES_STORE SUMS_STORE(F32, parts + 1 + D, (INDEX)NUMBERS, square, 1.0f, tx, ty, first, splats, D)
#else
/* |x'|² of a token comes from TX items. */
#define SQUARES_DECLARE                                                                                                \
    local float norms[SOURCES * TX];                                                                                   \
    float norm = 0.0f;
#define SQUARES_CLEAR
#define SQUARE_LOAD
#define NORMS_MAKE                                                                                                     \
    for (uint e_ = item; e_ < SOURCES * TX; e_ += WG) {                                                                \
        float norm_ = 0.0f;                                                                                            \
        for (uint d_ = e_ % TX; d_ < D; d_ += TX)                                                                      \
            norm_ = MAD(tokens[e_ / TX * PITCH(D) + d_], tokens[e_ / TX * PITCH(D) + d_], norm_);                      \
        norms[e_] = fmin(norm_, LARGEST_NUMBER / TX);                                                                  \
    }                                                                                                                  \
    barrier(CLK_LOCAL_MEM_FENCE);
#define NORM_ADD                                                                                                       \
    float norm_ = 0.0f;                                                                                                \
    for (uint i_ = 0; i_ < TX; ++i_)                                                                                   \
        norm_ += norms[j * TX + i_];                                                                                   \
    norm = MAD(weight, norm_, norm);
#define SQUARES_ADD
#define MEETING_DECLARE                                                                                                \
    local float meeting[WG];                                                                                           \
    float square = 0.0f;
#define SQUARES_STORE                                                                                                  \
    norm = lanes_total(norm, meeting);                                                                                 \
    if (lane == 0 && s < splats)                                                                                       \
        parts[s * NUMBERS + 1 + D] = norm;
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
splat_moments_local(uint rows, uint heads, uint x_group, uint segments, uint splats, uint per_head, uint first_head,
                    global const float *centre, global const ELEMENT(X_TYPE) *x, INDEX4 x_at,
                    global const float *weights, global float *parts) {
    local float tokens[SOURCES * PITCH(D)] ALIGNED, passed[SOURCES * PITCH_WEIGHTS] ALIGNED, meeting[WG];
    SQUARES_DECLARE
    uint item = get_local_id(0), tx = item % TX, ty = item / TX, p = item % ROWS, lane = item / ROWS;
    uint first = get_group_id(0) * ROWS, s = first + ROW_OF(p), own = min(s, splats - 1);
    uint bh = get_global_id(1) / segments, set = get_global_id(2), step = (rows + segments - 1) / segments;
    uint b = per_head ? bh : bh / heads, h = per_head ? set : bh % heads;
    uint begin = min((uint)get_global_id(1) % segments * step, rows), end = min(begin + step, rows);
    centre += (per_head ? first_head + set : 0) * D;
    x += x_at.s0 + b * x_at.s1 + (h / x_group) * x_at.s2;
    weights += ((INDEX)b * heads + h) * rows * splats + own;
    parts += ((INDEX)set * get_global_size(1) + get_global_id(1)) * splats * NUMBERS;

    float mass = 0.0f;
    float4 sum[RT][VECTORS(D)];
    SUMS_CLEAR(sum, D)
    SQUARES_CLEAR
    for (; begin < end; begin += SOURCES) {
        barrier(CLK_LOCAL_MEM_FENCE);
        TOKENS_LOAD
        barrier(CLK_LOCAL_MEM_FENCE);
        NORMS_MAKE
        for (uint j = lane; j < SOURCES; j += LANES) {
            float weight = begin + j < end ? weights[(INDEX)(begin + j) * splats] : 0.0f;
            mass += weight;
            passed[j * PITCH_WEIGHTS + p] = weight;
            NORM_ADD
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        SUMS_ADD(sum, tx, ty, passed, tokens, D)
        SQUARES_ADD
    }
    mass = lanes_total(mass, meeting);
    if (lane == 0 && s < splats)
        parts[s * NUMBERS] = mass;
    SUMS_STORE(F32, parts + 1, (INDEX)NUMBERS, sum, 1.0f, tx, ty, first, splats, D)
    SQUARES_STORE
}

/* A number of a splat, over all parts. */
static inline float parts_total(global const float *part, uint count, INDEX pitch) {
    float total = 0.0f;
    for (uint i = 0; i < count; ++i)
        total += part[i * pitch];
    return total;
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
splat_moments_merge(uint count, uint amplitude, uint splats, uint per_head, uint first_head, global const float *mean,
                    global const float *centre, global const float *parts, global float *moments) {
    MEETING_DECLARE
    uint item = get_local_id(0), s = get_global_id(1), set = get_global_id(2), own = per_head ? first_head + set : 0;
    INDEX splat = (INDEX)own * splats + s, pitch = (INDEX)splats * NUMBERS;
    mean += splat * D;
    centre += own * D;
    moments += splat * NUMBERS;
    parts += (INDEX)set * count * pitch + s * NUMBERS;
    float mass = parts_total(parts, count, pitch);
    if (item == 0 && amplitude)
        moments[0] += mass;
    for (uint d = item; d < D; d += WG) {
        float m = mean[d] - centre[d], sum = parts_total(parts + 1 + d, count, pitch), moved = MAD(-m, mass, sum);
        float more = -m * (sum + moved); /* −2μ'Σωx' + μ'²Σω */
        moments[1 + d] += moved;
#if COVARIANCE == COVARIANCE_DIAGONAL
        moments[1 + D + d] += parts_total(parts + 1 + D + d, count, pitch) + more;
#else
        square += more;
#endif
    }
#if COVARIANCE == COVARIANCE_ISOTROPIC
    meeting[item] = square;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (item > 0)
        return;
    square = parts_total(parts + 1 + D, count, pitch);
    for (uint i = 0; i < WG; ++i)
        square += meeting[i];
    moments[1 + D] += square;
#endif
}
