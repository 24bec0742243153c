/* Gathers the keys of completed chunks into trees (op_forest in src/op/op.h).
 *
 * A chunk's keys are split in halves at the median along their principal direction, and the halves again, down to
 * leaves. Nothing but the chunk's own keys decides, so that a forest can grow with its sequence, and causally.
 *
 * Source: k-d trees along principal directions (Sproull 1991); power iterations from the difference of two halves'
 * means.
 *
 * Shapes: k [B,Hk,keys,D], v [B,Hk,keys,DV], bias [B,Hk,keys]; the forest's as in op.h. Work: gather_chunks, one
 * work-item a chunk; gather_nodes, one a node of a level above chunks; grid (their number rounded up to WG, Hk, B).
 * No local memory, no barrier.
 *
 * Measured on real keys (8,192 and 65,536 tokens, D = 64; error of attention at the same number of keys): directions
 * of keys and values together, or in the metric of the queries, −3 to +3 %; ten iterations instead of four no gain.
 * */
#include "shared/tensor.clh"
#include "tree/forest.clh"
#include "tree/gather.clh"

#ifndef K_TYPE
#define K_TYPE F32
#define V_TYPE F32
#define BIAS_TYPE F32
#endif
#ifndef BIAS
#define BIAS 1
#endif
#define ITERATIONS 4
#define UNROLL _Pragma("unroll")
#define WHOLE (D / W * W) /* columns in vectors */

/* A chunk while it is being ordered: its keys as they come, and which of them each slot has. */
typedef struct chunk_keys {
    global const ELEMENT(K_TYPE) *k;
    global const ELEMENT(V_TYPE) *v;
    INDEX k_pitch, v_pitch;
    float value_unit; /* the largest of the values: squares are of shares of it */
    ushort order[CHUNK];
    float along[CHUNK]; /* of the key in a slot: where it lies in the direction at hand */
    float bias[CHUNK];
} chunk_keys;

static inline global const ELEMENT(K_TYPE) *key_in(private const chunk_keys *c, uint slot) {
    return c->k + c->order[slot] * c->k_pitch;
}

static inline float dot_key(global const ELEMENT(K_TYPE) *key, private const float *x) {
    floatW lanes = (floatW)(0.0f);
    UNROLL
    for (uint d = 0; d < WHOLE; d += W)
        lanes = MAD(LOADW(K_TYPE, key, d), CAT(vload, W)(0, x + d), lanes);
    float sum = SUM(lanes);
    for (uint d = WHOLE; d < D; ++d)
        sum = MAD(LOAD(K_TYPE, key, d), x[d], sum);
    return sum;
}

/* x += a · key */
static inline void add_key(private float *x, float a, global const ELEMENT(K_TYPE) *key) {
    UNROLL
    for (uint d = 0; d < WHOLE; d += W)
        CAT(vstore, W)(MAD((floatW)(a), LOADW(K_TYPE, key, d), CAT(vload, W)(0, x + d)), 0, x + d);
    for (uint d = WHOLE; d < D; ++d)
        x[d] = MAD(a, LOAD(K_TYPE, key, d), x[d]);
}

static inline void clear(private float *x, uint count) {
    for (uint d = 0; d < count; ++d)
        x[d] = 0.0f;
}

static inline float dot_private(private const float *x, private const float *y) {
    floatW lanes = (floatW)(0.0f);
    UNROLL
    for (uint d = 0; d < WHOLE; d += W)
        lanes = MAD(CAT(vload, W)(0, x + d), CAT(vload, W)(0, y + d), lanes);
    float sum = SUM(lanes);
    for (uint d = WHOLE; d < D; ++d)
        sum = MAD(x[d], y[d], sum);
    return sum;
}

/* c->along, for the slots begin to end − 1: the principal direction, by power iterations. */
static inline void project(private chunk_keys *c, uint begin, uint end) {
    float mean[D], direction[D], next[D], share = 1.0f / (float)(end - begin);
    uint middle = begin + (end - begin) / 2;
    clear(mean, D);
    clear(direction, D);
    for (uint s = begin; s < middle; ++s)
        add_key(mean, share, key_in(c, s));
    for (uint s = middle; s < end; ++s)
        add_key(direction, share, key_in(c, s));
    for (uint d = 0; d < D; ++d) {
        float first = mean[d], second = direction[d];
        mean[d] = first + second;
        direction[d] = second * (float)(middle - begin) - first * (float)(end - middle);
    }
    for (uint turn = 0; turn < ITERATIONS; ++turn) {
        float of_mean = dot_private(mean, direction), sum = 0.0f;
        clear(next, D);
        for (uint s = begin; s < end; ++s) {
            float along = dot_key(key_in(c, s), direction) - of_mean;
            sum += along;
            add_key(next, along, key_in(c, s));
        }
        for (uint d = 0; d < D; ++d)
            next[d] = MAD(-sum, mean[d], next[d]);
        float length = rsqrt(dot_private(next, next));
        if (!isfinite(length))
            break;
        for (uint d = 0; d < D; ++d)
            direction[d] = next[d] * length;
    }
    for (uint s = begin; s < end; ++s) {
        float along = dot_key(key_in(c, s), direction);
        c->along[s] = isnan(along) ? INFINITY : along;
    }
}

/* Whether slot a's key belongs before slot b's: a total order, whatever the numbers. */
static inline bool before(private const chunk_keys *c, uint a, float along, ushort order) {
    return c->along[a] < along || (c->along[a] == along && c->order[a] < order);
}

static inline void swap_slots(private chunk_keys *c, uint a, uint b) {
    ushort order = c->order[a];
    float along = c->along[a];
    c->order[a] = c->order[b];
    c->along[a] = c->along[b];
    c->order[b] = order;
    c->along[b] = along;
}

/* Reorders the slots begin to end − 1 until those below `middle` come before the others: quickselect. */
static inline void part(private chunk_keys *c, uint begin, uint middle, uint end) {
    while (end - begin > 1) {
        swap_slots(c, begin + (end - begin) / 2, end - 1);
        float along = c->along[end - 1];
        ushort order = c->order[end - 1];
        uint cut = begin;
        for (uint s = begin; s + 1 < end; ++s)
            if (before(c, s, along, order))
                swap_slots(c, s, cut++);
        swap_slots(c, cut, end - 1);
        if (cut == middle)
            return;
        if (cut > middle)
            end = cut;
        else
            begin = cut + 1;
    }
}

/* The means of the keys and values in `count` slots from s0 on, [D + DV], and the mean squares of what differs from
 * them, with weights e^bias; the largest square of a key's distance from the mean. Returns the logarithm of the sum
 * of weights. */
static inline float moments(private const chunk_keys *c, uint s0, uint count, private float *mean,
                            private float *square, private float *far) {
    float top = -INFINITY, mass = 0.0f;
    clear(mean, D + DV);
    clear(square, D + DV);
    *far = 0.0f;
    for (uint s = s0; s < s0 + count; ++s)
        top = fmax(top, c->bias[s]);
    for (uint s = s0; s < s0 + count; ++s)
        mass += exp(c->bias[s] - top);
    for (uint pass = 0; pass < 2; ++pass)
        for (uint s = s0; s < s0 + count; ++s) {
            float weight = exp(c->bias[s] - top) / mass;
            global const ELEMENT(K_TYPE) *k = key_in(c, s);
            global const ELEMENT(V_TYPE) *v = c->v + c->order[s] * c->v_pitch;
            if (pass == 0) {
                for (uint d = 0; d < D; ++d)
                    mean[d] = MAD(weight, LOAD(K_TYPE, k, d), mean[d]);
                for (uint d = 0; d < DV; ++d)
                    mean[D + d] = MAD(weight, LOAD(V_TYPE, v, d), mean[D + d]);
                continue;
            }
            float distance[D];
            for (uint d = 0; d < D; ++d) {
                distance[d] = LOAD(K_TYPE, k, d) - mean[d];
                square[d] = MAD(weight * distance[d], distance[d], square[d]);
            }
            *far = fmax(*far, dot_private(distance, distance));
            for (uint d = 0; d < DV; ++d) {
                float x = (LOAD(V_TYPE, v, d) - mean[D + d]) / c->value_unit;
                square[D + d] = MAD(weight * x, x, square[D + d]);
            }
        }
    return count ? top + log(mass) : -INFINITY;
}

static inline void write_node(arrays a, forest f, uint level, uint g, private const float *mean,
                              private const float *square, private const float *stats) {
    uint block = first_block_of(f.first_block, level);
    INDEX lane = lane_of(block, g, D), row = ((INDEX)block * 16 + g) * DV;
    for (uint d = 0; d < D; ++d)
        STORE(FOREST_TYPE, a.means, lane + d * 16, mean[d]);
    if (level >= TOP)
        for (uint d = 0; d < D; ++d)
            a.variances[lane_of(block - f.below, g, D) + d * 16] = square[d];
    for (uint d = 0; d < DV; ++d)
        STORE(FOREST_TYPE, a.mean_values, row + d, mean[D + d]);
    for (uint i = 0; i < STATS; ++i)
        a.stats[lane_of(block, g, STATS) + i * 16] = stats[i];
}

static inline void sum_squares(private const float *square, private float *of_keys, private float *of_values) {
    *of_keys = *of_values = 0.0f;
    for (uint d = 0; d < D; ++d)
        *of_keys += square[d];
    for (uint d = D; d < D + DV; ++d)
        *of_values += square[d];
}

/* All nodes of chunk number g, the largest first. */
static inline void write_nodes(private const chunk_keys *c, arrays a, forest f, uint g, uint count) {
    float mean[D + DV], square[D + DV], whole = 0.0f, of_keys, of_values, far;
    for (uint level = TOP + 1; level-- > 0;) {
        uint shift = size_shift(level), nodes = CHUNK >> shift;
        for (uint n = 0; n < nodes; ++n) {
            uint s0 = n << shift, own = min((uint)max((int)count - (int)s0, 0), 1u << shift);
            float log_mass = moments(c, s0, own, mean, square, &far);
            sum_squares(square, &of_keys, &of_values);
            if (level == TOP)
                whole = of_keys;
            float stats[STATS] = {log_mass, whole > 0.0f ? of_keys / whole : 0.0f, c->value_unit * sqrt(of_values),
                                  (float)own, of_keys > 0.0f ? sqrt(far / of_keys) : 1.0f};
            write_node(a, f, level, g * nodes + n, mean, square, stats);
        }
    }
}

/* Rows of `columns` numbers, W at a time; those that are not there are 0. */
#define COPY_ROW(to_type, to, from_type, from, columns, there)                                                         \
    {                                                                                                                  \
        uint d_ = 0;                                                                                                   \
        for (; d_ + W <= (columns); d_ += W)                                                                           \
            STOREW(to_type, to, d_, (there) ? LOADW(from_type, from, d_) : (floatW)(0.0f));                            \
        for (; d_ < (columns); ++d_)                                                                                   \
            STORE(to_type, (to) + d_, 0, (there) ? LOAD(from_type, from, d_) : 0.0f);                                  \
    }

static inline void write_keys(private const chunk_keys *c, arrays a, uint g, uint count) {
    float rows[16 * D], lanes[16];
    for (uint s = 0; s < CHUNK; ++s) {
        INDEX slot = (INDEX)g * CHUNK + s;
        bool there = s < count;
        uint j = there ? c->order[s] : 0;
        a.biases[slot] = there ? c->bias[s] : -INFINITY;
        COPY_ROW(F32, rows + s % 16 * D, K_TYPE, c->k + j * c->k_pitch, D, there)
        COPY_ROW(FOREST_TYPE, a.values + slot * DV, V_TYPE, c->v + j * c->v_pitch, DV, there)
        if (s % 16 < 15)
            continue;
        global ELEMENT(FOREST_TYPE) *keys = a.keys + lane_of(0, slot - 15, D);
        for (uint d = 0; d < D; ++d) {
            for (uint x = 0; x < 16; ++x)
                lanes[x] = rows[x * D + d];
            for (uint x = 0; x < 16; x += W)
                STOREW(FOREST_TYPE, keys, d * 16 + x, CAT(vload, W)(0, lanes + x));
        }
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
gather_chunks(uint keys, uint first_chunk, uint levels, uint chunks, uint room, uint16 first_block,
              global const ELEMENT(K_TYPE) *k, INDEX4 k_at, global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
              global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
              global ELEMENT(FOREST_TYPE) *tree_keys, global ELEMENT(FOREST_TYPE) *tree_values, global float *biases,
              global ELEMENT(FOREST_TYPE) *means, global float *variances, global ELEMENT(FOREST_TYPE) *mean_values,
              global float *stats, global const uint *apart) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2);
    if (i * CHUNK >= keys)
        return;
    forest f = forest_of(levels, chunks, room, first_block);
    arrays a = {tree_keys, tree_values, biases, means, mean_values, variances, stats};
    a = arrays_of(a, f, (INDEX)b * get_global_size(1) + h);

    chunk_keys c;
    c.k = k + k_at.s0 + b * k_at.s1 + h * k_at.s2 + i * CHUNK * k_at.s3;
    c.v = v + v_at.s0 + b * v_at.s1 + h * v_at.s2 + i * CHUNK * v_at.s3;
    c.k_pitch = k_at.s3;
    c.v_pitch = v_at.s3;
    uint count = 0, present = min((uint)CHUNK, keys - i * CHUNK);
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + h * bias_at.s2 + i * CHUNK * bias_at.s3;
#endif
    apart += ((INDEX)b * get_global_size(1) + h) * apart_words(f);
    for (uint j = 0; j < present; ++j) {
        bool there = !stands_apart(apart, chunks, first_chunk + i, j);
#if BIAS
        there = there && LOAD(BIAS_TYPE, bias, j * bias_at.s3) != -INFINITY;
#endif
        if (there)
            c.order[count++] = j;
    }

    c.value_unit = 0.0f;
    for (uint s = 0; s < count; ++s)
        for (uint d = 0; d < DV; ++d)
            c.value_unit = fmax(c.value_unit, fabs(LOAD(V_TYPE, c.v, c.order[s] * c.v_pitch + d)));
    c.value_unit = c.value_unit > 0.0f && isfinite(c.value_unit) ? c.value_unit : 1.0f;
    for (uint size = CHUNK; size > LEAF; size /= 2)
        for (uint begin = 0; begin + size / 2 < count; begin += size) {
            uint end = min(begin + size, count);
            project(&c, begin, end);
            part(&c, begin, begin + size / 2, end);
        }

    for (uint s = 0; s < count; ++s)
#if BIAS
        c.bias[s] = LOAD(BIAS_TYPE, bias, c.order[s] * bias_at.s3);
#else
        c.bias[s] = 0.0f;
#endif
    write_keys(&c, a, first_chunk + i, count);
    write_nodes(&c, a, f, first_chunk + i, count);
}

/* The largest of the values of children begin to end − 1: as value_unit. */
static inline float unit_of(arrays a, uint below, uint begin, uint end) {
    float unit = 0.0f;
    for (uint c = begin; c < end; ++c)
        if (a.stats[lane_of(below, c, STATS) + COUNT * 16] > 0.0f) {
            unit = fmax(unit, a.stats[lane_of(below, c, STATS) + SPREAD * 16]);
            for (uint d = 0; d < DV; ++d)
                unit = fmax(unit, fabs(LOAD(FOREST_TYPE, a.mean_values, ((INDEX)below * 16 + c) * DV + d)));
        }
    return unit > 0.0f && isfinite(unit) ? unit : 1.0f;
}

/* Nodes first to first + nodes − 1 of a level above chunks, out of their children, of which there are `children` in
 * all. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
gather_nodes(uint level, uint first, uint nodes, uint children, uint levels, uint chunks, uint room, uint16 first_block,
             global ELEMENT(FOREST_TYPE) *means, global float *variances, global ELEMENT(FOREST_TYPE) *mean_values,
             global float *stats) {
    uint i = get_global_id(0);
    if (i >= nodes)
        return;
    forest f = forest_of(levels, chunks, room, first_block);
    arrays a = {0, 0, 0, means, mean_values, variances, stats};
    a = arrays_of(a, f, (INDEX)get_global_id(2) * get_global_size(1) + get_global_id(1));
    uint g = first + i, end = min((g + 1) * 16, children), below = first_block_of(f.first_block, level - 1);
    float mean[D + DV], square[D + DV], top = -INFINITY, mass = 0.0f, count = 0.0f, of_keys, of_values, spread = 0.0f,
                                        far = 0.0f;
    clear(mean, D + DV);
    clear(square, D + DV);
    for (uint c = g * 16; c < end; ++c)
        top = fmax(top, a.stats[lane_of(below, c, STATS) + LOG_MASS * 16]);
    for (uint c = g * 16; c < end && top > -INFINITY; ++c) {
        mass += exp(a.stats[lane_of(below, c, STATS) + LOG_MASS * 16] - top);
        count += a.stats[lane_of(below, c, STATS) + COUNT * 16];
    }
    float unit = unit_of(a, below, g * 16, end);
    for (uint pass = 0; pass < 2; ++pass)
        for (uint c = g * 16; c < end && top > -INFINITY; ++c) {
            global const float *stat = a.stats + lane_of(below, c, STATS);
            float weight = exp(stat[LOG_MASS * 16] - top) / mass, inner = stat[SPREAD * 16] / unit;
            INDEX lane = lane_of(below, c, D), diagonal = lane_of(below - f.below, c, D),
                  row = ((INDEX)below * 16 + c) * DV;
            if (pass == 1)
                spread = MAD(weight * inner, inner, spread);
            float distance = 0.0f, within = 0.0f;
            for (uint d = 0; d < D; ++d) {
                float x = LOAD(FOREST_TYPE, a.means, lane + d * 16), variance = a.variances[diagonal + d * 16];
                if (pass == 0)
                    mean[d] = MAD(weight, x, mean[d]);
                else {
                    square[d] += weight * MAD(x - mean[d], x - mean[d], variance);
                    distance = MAD(x - mean[d], x - mean[d], distance);
                    within += variance;
                }
            }
            far = fmax(far, sqrt(distance) + stat[REACH * 16] * sqrt(within));
            for (uint d = 0; d < DV; ++d) {
                float x = LOAD(FOREST_TYPE, a.mean_values, row + d);
                if (pass == 0)
                    mean[D + d] = MAD(weight, x, mean[D + d]);
                else {
                    float differs = (x - mean[D + d]) / unit;
                    square[D + d] = MAD(weight * differs, differs, square[D + d]);
                }
            }
        }
    sum_squares(square, &of_keys, &of_values);
    float result[STATS] = {mass > 0.0f ? top + log(mass) : -INFINITY, 1.0f, unit * sqrt(of_values + spread), count,
                           of_keys > 0.0f ? far / sqrt(of_keys) : 1.0f};
    write_node(a, f, level, g, mean, square, result);
}
