/* Gradients of a transformer's layers, for GPUs, where one work-item alone reads memory slowly and some hundred columns
 * are too few work-items. Mathematics and shapes as in layer_backward.cl, norm_backward.cl and optimise.cl.
 *
 *     column_parts        parts_p = Σ of x over the p-th run of rows: column_sums adds these up
 *     norm_backward_group SHARE items of a group a row: dx and stats
 *     norm_parts          a work-item a column and a run of rows: dweight's and dshift's parts [2][runs][C]
 *     embed_parts         a group a token of the vocabulary and a run of rows: parts [runs][V][C]; its items look for
 *                         the token in WG rows at a time, and then take those that have it in their order
 *     cross_entropy_group a group a row
 *     turn_back_pairs     a work-item `some` pairs of numbers (even.clh)
 *     transpose_local     a group a tile, through local memory
 *     square_sums_group   a group a run
 *
 * A run's sum has one order and so has that of the runs: the same bits every time. Local memory: WG floats, or the tile
 * with a column more, so that neither rows nor columns meet in a bank. */
#include "shared/tensor.clh"
#include "shared/group.clh"
#include "shared/even.clh"

#include "layer/norm_backward.clh"

#ifndef SIDE /* of a tile that is transposed */
#define SIDE 32
#endif
#define UNITS __attribute__((reqd_work_group_size(WG, 1, 1)))

/* Where row `row` of all heads' rows begins. */
#define ROW_AT(at, row, rows, heads)                                                                                   \
    ((at).s0 + (row) / (rows) / (heads) * (at).s1 + (row) / (rows) % (heads) * (at).s2 + (row) % (rows) * (at).s3)

/* Rows of all heads are numbered on; grid (columns, runs). */
kernel UNITS void column_parts(uint rows, uint columns, uint heads, uint all_rows, uint run,
                               global const ELEMENT(X_TYPE) *x, INDEX4 x_at, global float *parts) {
    uint d = get_global_id(0), p = get_global_id(1);
    if (d >= columns)
        return;
    float total = 0.0f;
    for (uint i = p * run, end = min((p + 1) * run, all_rows); i < end; ++i)
        total += LOAD(X_TYPE, x + ROW_AT(x_at, (INDEX)i, rows, heads), d);
    parts[(INDEX)p * columns + d] = total;
}

kernel UNITS void norm_backward_group(uint columns, float epsilon, float offset, NORM_BACKWARD_TENSORS,
                                      global float *stats) {
    local float part[WG];
    uint item = get_local_id(0) % SHARE, i = get_global_id(0) / SHARE, h = get_global_id(1), b = get_global_id(2);
    NORM_BACKWARD_GO(b, h, i)
    float mean = 0.0f, square = 0.0f, gain = 0.0f, along = 0.0f;
#if CENTRED
    for (uint d = item; d < columns; d += SHARE)
        mean += LOAD(X_TYPE, x, d);
    mean = group_sum(part, mean) / columns;
#endif
    for (uint d = item; d < columns; d += SHARE) {
        float y = LOAD(X_TYPE, x, d) - mean, g = LOAD(DOUT_TYPE, dout, d) * (LOAD(WEIGHT_TYPE, weight, d) + offset);
        square = MAD(y, y, square);
        gain += g;
        along = MAD(g, y, along);
    }
    float inverse = 1.0f / sqrt(group_sum(part, square) / columns + epsilon);
    along = group_sum(part, along) * inverse;
#if CENTRED
    gain = group_sum(part, gain);
#else
    gain = 0.0f;
#endif
    for (uint d = item; d < columns; d += SHARE) {
        float y = (LOAD(X_TYPE, x, d) - mean) * inverse, w = LOAD(WEIGHT_TYPE, weight, d) + offset;
        NORM_BACKWARD_NUMBER(d, y, w, inverse, gain / columns, along / columns)
    }
    if (item == 0) {
        INDEX at = 2 * (((INDEX)b * get_global_size(1) + h) * (get_global_size(0) / SHARE) + i);
        stats[at] = mean;
        stats[at + 1] = inverse;
    }
}

kernel UNITS void norm_parts(uint rows, uint columns, uint heads, uint all_rows, uint run,
                             global const ELEMENT(X_TYPE) *x, INDEX4 x_at, global const ELEMENT(DOUT_TYPE) *dout,
                             INDEX4 dout_at, global const float *stats, global float *parts) {
    uint d = get_global_id(0), p = get_global_id(1);
    if (d >= columns)
        return;
    float weight = 0.0f, shift = 0.0f;
    for (uint i = p * run, end = min((p + 1) * run, all_rows); i < end; ++i) {
        float g = LOAD(DOUT_TYPE, dout + ROW_AT(dout_at, (INDEX)i, rows, heads), d);
        float y = LOAD(X_TYPE, x + ROW_AT(x_at, (INDEX)i, rows, heads), d) - stats[2 * (INDEX)i];
        weight = MAD(g * y, stats[2 * (INDEX)i + 1], weight);
        shift += g;
    }
    parts[(INDEX)p * columns + d] = weight;
    parts[((INDEX)get_num_groups(1) + p) * columns + d] = shift;
}

/* Grid (V · WG, runs): the items of a group take every WG-th column. */
kernel UNITS void embed_parts(uint rows, uint columns, uint vocabulary, uint first, uint run, float scale,
                              global const int *ids, global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at,
                              global float *parts) {
    local uint found[(WG + 31) / 32]; /* bits: of which rows the token is */
    uint item = get_local_id(0), v = get_group_id(0), p = get_global_id(1), end = min((p + 1) * run, rows);
    dout += dout_at.s0;
    for (uint begin = 0; begin < columns; begin += WG) {
        uint d = min(begin + item, columns - 1);
        float total = 0.0f;
        for (uint i = p * run; i < end; i += WG) {
            if (item < (WG + 31) / 32)
                found[item] = 0;
            barrier(CLK_LOCAL_MEM_FENCE);
            if (i + item < end && ids[first + i + item] == (int)v)
                atomic_or(found + item / 32, 1u << item % 32);
            barrier(CLK_LOCAL_MEM_FENCE);
            for (uint word = 0; word * 32 < WG; ++word)
                for (uint bits = found[word]; bits; bits &= bits - 1) {
                    uint row = i + word * 32 + 31 - clz(bits & -bits);
                    total = MAD(scale, LOAD(DOUT_TYPE, dout, row * dout_at.s3 + d), total);
                }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        if (begin + item < columns)
            parts[((INDEX)p * vocabulary + v) * columns + d] = total;
    }
}

kernel UNITS void cross_entropy_group(uint count, uint first, float scale, global ELEMENT(X_TYPE) *logits, INDEX4 at,
                                      global const int *targets, global float *log_likelihood) {
    local float part[WG];
    uint item = get_local_id(0), i = get_group_id(0);
    int target = targets[first + i];
    logits += at.s0 + i * at.s3;
    float top = -INFINITY, mass = 0.0f;
    for (uint v = item; v < count; v += WG)
        top = fmax(top, LOAD(X_TYPE, logits, v));
    top = group_largest(part, top);
    for (uint v = item; v < count; v += WG)
        mass += exp(LOAD(X_TYPE, logits, v) - top);
    mass = group_sum(part, mass);
    if (item == 0)
        log_likelihood[first + i] = target < 0 ? 0.0f : LOAD(X_TYPE, logits, target) - top - log(mass);
    barrier(CLK_GLOBAL_MEM_FENCE);
    for (uint v = item; v < count; v += WG) {
        float p = target < 0 ? 0.0f : exp(LOAD(X_TYPE, logits, v) - top) / mass - (v == (uint)target ? 1.0f : 0.0f);
        STORE(X_TYPE, logits, v, scale * p);
    }
}

/* Grid (pairs of a row, rows, B·H). */
kernel UNITS void turn_back_pairs(uint rows, uint half_dim, uint heads, global const float *turn,
                                  global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at, global ELEMENT(DX_TYPE) *dx,
                                  INDEX4 dx_at) {
    uint n = get_global_id(0) * SOME, b = get_global_id(1), i = n / (heads * half_dim), h = n / half_dim % heads;
    uint d = n % half_dim;
    if (i >= rows)
        return;
    dout += dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + i * dout_at.s3;
    dx += dx_at.s0 + b * dx_at.s1 + h * dx_at.s2 + i * dx_at.s3;
    turn += (INDEX)i * 2 * half_dim;
    some c = LOAD_SOME(F32, turn, d), s = LOAD_SOME(F32, turn, half_dim + d);
    some lower = LOAD_SOME(DOUT_TYPE, dout, d), upper = LOAD_SOME(DOUT_TYPE, dout, half_dim + d);
    STORE_SOME(DX_TYPE, dx, d, MAD(c, lower, s * upper));
    STORE_SOME(DX_TYPE, dx, half_dim + d, MAD(c, upper, -s * lower));
}

/* Grid (⌈rows / SIDE⌉ · WG, ⌈columns / SIDE⌉, B·H). */
kernel UNITS void transpose_local(uint rows, uint columns, uint heads, global const ELEMENT(X_TYPE) *x, INDEX4 x_at,
                                  global ELEMENT(DX_TYPE) *out, INDEX4 out_at) {
    local float tile[SIDE * (SIDE + 1)];
    uint item = get_local_id(0), across = item % SIDE, down = item / SIDE;
    uint i = get_group_id(0) * SIDE, d = get_group_id(1) * SIDE, h = get_global_id(2) % heads;
    uint b = get_global_id(2) / heads;
    x += x_at.s0 + b * x_at.s1 + h * x_at.s2;
    out += out_at.s0 + b * out_at.s1 + h * out_at.s2;
    for (uint j = down; j < SIDE; j += WG / SIDE)
        if (i + j < rows && d + across < columns)
            tile[j * (SIDE + 1) + across] = LOAD(X_TYPE, x, (i + j) * x_at.s3 + d + across);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint j = down; j < SIDE; j += WG / SIDE)
        if (d + j < columns && i + across < rows)
            STORE(DX_TYPE, out, (d + j) * out_at.s3 + i + across, tile[across * (SIDE + 1) + j]);
}

kernel UNITS void square_sums_group(INDEX count, INDEX run, uint first, global const float *g, global float *partials) {
    local float part[WG];
    INDEX from = get_group_id(0) * run, end = min((INDEX)(from + run), count);
    float total = 0.0f;
    for (INDEX i = from + get_local_id(0); i < end; i += WG)
        total = MAD(g[i], g[i], total);
    total = group_sum(part, total);
    if (get_local_id(0) == 0)
        partials[first + get_group_id(0)] = total;
}
