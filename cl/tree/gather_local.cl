/* Gathers the keys of completed chunks into trees, on GPUs of any vendor. Mathematics and shapes as in gather.cl; the
 * halves of a node have the same keys, each in the order of where they lie, and so the trees are as good, if not the
 * same.
 *
 * Work: a group of CHUNK work-items for a chunk; grid (chunks · CHUNK, Hk, B). All nodes of a size are halved
 * together: an item projects its own key, which it keeps in registers (rows read item by item lie a row apart, and cost
 * a card more than all else did), and sums one column of one node. A key finds its slot by counting those that come
 * before it.
 *
 * Measured (H200, bf16, 8 key heads, D = 64): 2.7 and 10.7 ms for 65,536 and 262,144 keys, and 4.7 and 18.7 when
 * keys were read anew for each projection; gather.cl 33 for either. */
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
#define SPLITS (CHUNK / LEAF / 2) /* the most nodes that are halved together */
#define LEAVES (CHUNK / LEAF)
#ifndef HELD /* columns of its key that an item keeps in registers; it reads the others anew */
#define HELD D
#endif
#define UNROLL _Pragma("unroll")

typedef struct workplace {
    float along[CHUNK], bias[CHUNK];
    ushort order[CHUNK];
    /* Of nodes that are halved: means, directions, the next ones. Then of all nodes: means. */
    float columns[3 * SPLITS * D];
    float of_mean[SPLITS], length[SPLITS];
    float top[LEAVES], mass[LEAVES], square[LEAVES][D + DV];
    float whole, value_unit; /* the largest of the values: squares are of shares of it */
    uint count;
} workplace;

/* The key of an item, and the slot that it has among the chunk's: NOWHERE if it has none. */
#define NOWHERE CHUNK
typedef struct own_key {
    float x[HELD];
    global const ELEMENT(K_TYPE) *all;
    uint slot;
} own_key;

static inline float dot_own(private const own_key *own, local const float *x) {
    float sum = 0.0f;
    UNROLL
    for (uint d = 0; d < HELD; ++d)
        sum = MAD(own->x[d], x[d], sum);
    for (uint d = HELD; d < D; ++d)
        sum = MAD(LOAD(K_TYPE, own->all, d), x[d], sum);
    return sum;
}

static inline float dot_local(local const float *x, local const float *y) {
    float sum = 0.0f;
    for (uint d = 0; d < D; ++d)
        sum = MAD(x[d], y[d], sum);
    return sum;
}

#define MEAN(n) (place->columns + (n)*D)
#define DIRECTION(n) MEAN(SPLITS + (n))
#define NEXT(n) MEAN(2 * SPLITS + (n))

/* place->along of every slot: where its key lies in the principal direction of its node, by power iterations. */
static inline void project(local workplace *place, private const own_key *own, global const ELEMENT(K_TYPE) *k,
                           INDEX pitch, uint size) {
    uint s = get_local_id(0), count = place->count, node = own->slot / size;
    for (uint e = s; e < D * (CHUNK / size); e += WG) {
        uint n = e / D, d = e % D, begin = n * size, end = min(begin + size, count), middle = begin + (end - begin) / 2;
        float first = 0.0f, second = 0.0f;
        if (begin + size / 2 >= count)
            continue;
        float share = 1.0f / (float)(end - begin);
        for (uint t = begin; t < middle; ++t)
            first = MAD(share, LOAD(K_TYPE, k, place->order[t] * pitch + d), first);
        for (uint t = middle; t < end; ++t)
            second = MAD(share, LOAD(K_TYPE, k, place->order[t] * pitch + d), second);
        MEAN(n)[d] = first + second;
        DIRECTION(n)[d] = second * (float)(middle - begin) - first * (float)(end - middle);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint turn = 0; turn < ITERATIONS; ++turn) {
        if (s < CHUNK / size)
            place->of_mean[s] = dot_local(MEAN(s), DIRECTION(s));
        barrier(CLK_LOCAL_MEM_FENCE);
        if (own->slot < NOWHERE)
            place->along[own->slot] = dot_own(own, DIRECTION(node)) - place->of_mean[node];
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint e = s; e < D * (CHUNK / size); e += WG) {
            uint n = e / D, d = e % D, begin = n * size, end = min(begin + size, count);
            float next = 0.0f, sum = 0.0f;
            for (uint t = begin; t < end; ++t) {
                next = MAD(place->along[t], LOAD(K_TYPE, k, place->order[t] * pitch + d), next);
                sum += place->along[t];
            }
            NEXT(n)[d] = MAD(-sum, MEAN(n)[d], next);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (s < CHUNK / size)
            place->length[s] = rsqrt(dot_local(NEXT(s), NEXT(s)));
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint e = s; e < D * (CHUNK / size); e += WG)
            if (isfinite(place->length[e / D]))
                DIRECTION(e / D)[e % D] = NEXT(e / D)[e % D] * place->length[e / D];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (own->slot < NOWHERE) {
        float along = dot_own(own, DIRECTION(node));
        place->along[own->slot] = isnan(along) ? INFINITY : along;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

/* Sorts the slots of each node by where they lie: a total order, whatever the numbers. */
static inline void sort_nodes(local workplace *place, private own_key *own, uint size) {
    uint item = get_local_id(0), count = place->count, begin = own->slot / size * size, end = min(begin + size, count),
         slot = begin;
    bool there = own->slot < NOWHERE && begin + size / 2 < count;
    float along = there ? place->along[own->slot] : 0.0f;
    for (uint t = begin; there && t < end; ++t)
        slot += place->along[t] < along || (place->along[t] == along && place->order[t] < item);
    barrier(CLK_LOCAL_MEM_FENCE);
    if (there) {
        place->order[slot] = item;
        own->slot = slot;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

static inline void measure_values(local workplace *place, bool there, global const ELEMENT(V_TYPE) *v) {
    uint item = get_local_id(0);
    float most = 0.0f;
    for (uint d = 0; d < DV && there; ++d)
        most = fmax(most, fabs(LOAD(V_TYPE, v, d)));
    place->along[item] = most;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (item == 0) {
        for (uint s = 0; s < CHUNK; ++s)
            most = fmax(most, place->along[s]);
        place->value_unit = most > 0.0f && isfinite(most) ? most : 1.0f;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

/* The weights of a level's nodes: place->top and place->mass. */
static inline void weigh_nodes(local workplace *place, uint size) {
    uint item = get_local_id(0), end = min((item + 1) * size, place->count);
    if (item < CHUNK / size) {
        float top = -INFINITY, mass = 0.0f;
        for (uint s = item * size; s < end; ++s)
            top = fmax(top, place->bias[s]);
        for (uint s = item * size; s < end; ++s)
            mass += exp(place->bias[s] - top);
        place->top[item] = top;
        place->mass[item] = mass;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

/* The stats of nodes whose means and mean squares are there, from chunk number g. */
static inline void write_stats(local workplace *place, private const own_key *own, arrays a, uint level, uint block,
                               uint g) {
    uint item = get_local_id(0), count = place->count, size = 1u << size_shift(level), nodes = CHUNK / size;
    float distance = 0.0f, far = 0.0f, of_keys = 0.0f, of_values = 0.0f;
    if (own->slot < NOWHERE) {
        UNROLL
        for (uint d = 0; d < HELD; ++d) {
            float x = own->x[d] - MEAN(own->slot / size)[d];
            distance = MAD(x, x, distance);
        }
        for (uint d = HELD; d < D; ++d) {
            float x = LOAD(K_TYPE, own->all, d) - MEAN(own->slot / size)[d];
            distance = MAD(x, x, distance);
        }
        place->along[own->slot] = distance;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (item < nodes) {
        for (uint s = item * size; s < min((item + 1) * size, count); ++s)
            far = fmax(far, place->along[s]);
        for (uint d = 0; d < D; ++d)
            of_keys += place->square[item][d];
        for (uint d = D; d < D + DV; ++d)
            of_values += place->square[item][d];
        if (level == TOP)
            place->whole = of_keys;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (item < nodes) {
        global float *stats = a.stats + lane_of(block, g * nodes + item, STATS);
        uint keys = min((uint)max((int)count - (int)(item * size), 0), size);
        stats[LOG_MASS * 16] = keys ? place->top[item] + log(place->mass[item]) : -INFINITY;
        stats[VARIANCE * 16] = place->whole > 0.0f ? of_keys / place->whole : 0.0f;
        stats[SPREAD * 16] = place->value_unit * sqrt(of_values);
        stats[COUNT * 16] = (float)keys;
        stats[REACH * 16] = of_keys > 0.0f ? sqrt(far / of_keys) : 1.0f;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

/* The nodes of a level of chunk number g. */
static inline void write_nodes(local workplace *place, private const own_key *own, arrays a, forest f, uint level,
                               uint g, global const ELEMENT(K_TYPE) *k, INDEX k_pitch, global const ELEMENT(V_TYPE) *v,
                               INDEX v_pitch) {
    uint count = place->count, size = 1u << size_shift(level), nodes = CHUNK / size;
    uint block = first_block_of(f.first_block, level);
    weigh_nodes(place, size);
    for (uint e = get_local_id(0); e < nodes * (D + DV); e += WG) {
        uint n = e / (D + DV), d = e % (D + DV), begin = n * size, end = min(begin + size, count), node = g * nodes + n;
        float mean = 0.0f, square = 0.0f, top = place->top[n], share = 1.0f / place->mass[n];
        for (uint pass = 0; pass < 2; ++pass)
            for (uint s = begin; s < end; ++s) {
                float weight = exp(place->bias[s] - top) * share, x;
                if (d < D)
                    x = LOAD(K_TYPE, k, place->order[s] * k_pitch + d);
                else
                    x = LOAD(V_TYPE, v, place->order[s] * v_pitch + d - D);
                if (pass == 0)
                    mean = MAD(weight, x, mean);
                else {
                    float differs = d < D ? x - mean : (x - mean) / place->value_unit;
                    square = MAD(weight * differs, differs, square);
                }
            }
        place->square[n][d] = square;
        if (d < D) {
            MEAN(n)[d] = mean;
            STORE(FOREST_TYPE, a.means, lane_of(block, node, D) + d * 16, mean);
        } else
            STORE(FOREST_TYPE, a.mean_values, ((INDEX)block * 16 + node) * DV + d - D, mean);
        if (level >= TOP && d < D)
            a.variances[lane_of(block - f.below, node, D) + d * 16] = square;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    write_stats(place, own, a, level, block, g);
}

/* Keys and values in the order of the slots. */
static inline void write_keys(local workplace *place, arrays a, uint g, global const ELEMENT(K_TYPE) *k, INDEX k_pitch,
                              global const ELEMENT(V_TYPE) *v, INDEX v_pitch) {
    uint item = get_local_id(0), count = place->count;
    INDEX slot = (INDEX)g * CHUNK;
    a.biases[slot + item] = item < count ? place->bias[item] : -INFINITY;
    for (uint e = item; e < CHUNK * D; e += WG) {
        uint s = e / (16 * D) * 16 + e % 16, d = e / 16 % D;
        STORE(FOREST_TYPE, a.keys, slot * D + e, s < count ? LOAD(K_TYPE, k, place->order[s] * k_pitch + d) : 0.0f);
    }
    for (uint e = item; e < CHUNK * DV; e += WG) {
        uint s = e / DV;
        STORE(FOREST_TYPE, a.values, slot * DV + e,
              s < count ? LOAD(V_TYPE, v, place->order[s] * v_pitch + e % DV) : 0.0f);
    }
}

/* The keys that there are, in slots as they come. Returns: the slot of the item's own. */
static inline uint place_keys(local workplace *place, float log_weight) {
    uint item = get_local_id(0), before = 0, all = 0;
    place->bias[item] = log_weight;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint t = 0; t < CHUNK; ++t) {
        before += t < item && place->bias[t] != -INFINITY;
        all += place->bias[t] != -INFINITY;
    }
    if (log_weight != -INFINITY)
        place->order[before] = item;
    if (item == 0)
        place->count = all;
    barrier(CLK_LOCAL_MEM_FENCE);
    return log_weight != -INFINITY ? before : NOWHERE;
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
gather_local(uint keys, uint first_chunk, uint levels, uint chunks, uint room, uint16 first_block,
             global const ELEMENT(K_TYPE) *k, INDEX4 k_at, global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
             global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
             global ELEMENT(FOREST_TYPE) *tree_keys, global ELEMENT(FOREST_TYPE) *tree_values, global float *biases,
             global ELEMENT(FOREST_TYPE) *means, global float *variances, global ELEMENT(FOREST_TYPE) *mean_values,
             global float *stats, global const uint *apart) {
    local workplace place;
    uint item = get_local_id(0), i = get_group_id(0), h = get_global_id(1), b = get_global_id(2), g = first_chunk + i;
    forest f = forest_of(levels, chunks, room, first_block);
    INDEX head = (INDEX)b * get_global_size(1) + h;
    arrays a = {tree_keys, tree_values, biases, means, mean_values, variances, stats};
    a = arrays_of(a, f, head);
    uint present = min((uint)CHUNK, keys - i * CHUNK);
    k += k_at.s0 + b * k_at.s1 + h * k_at.s2 + i * CHUNK * k_at.s3;
    v += v_at.s0 + b * v_at.s1 + h * v_at.s2 + i * CHUNK * v_at.s3;

    bool there = item < present && !stands_apart(apart + head * apart_words(f), chunks, g, item);
    float log_weight = there ? 0.0f : -INFINITY;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + h * bias_at.s2 + i * CHUNK * bias_at.s3;
    if (there)
        log_weight = LOAD(BIAS_TYPE, bias, item * bias_at.s3);
    there = log_weight != -INFINITY;
#endif
    own_key own;
    own.all = k + item * k_at.s3;
    UNROLL
    for (uint d = 0; d < HELD; ++d)
        own.x[d] = there ? LOAD(K_TYPE, k, item * k_at.s3 + d) : 0.0f;
    own.slot = place_keys(&place, log_weight);
    measure_values(&place, there, v + item * v_at.s3);
    for (uint size = CHUNK; size > LEAF; size /= 2) {
        project(&place, &own, k, k_at.s3, size);
        sort_nodes(&place, &own, size);
    }

    place.bias[item] = -INFINITY;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (there)
        place.bias[own.slot] = log_weight;
    place.whole = 0.0f;
    barrier(CLK_LOCAL_MEM_FENCE);
    write_keys(&place, a, g, k, k_at.s3, v, v_at.s3);
    for (uint level = TOP + 1; level-- > 0;)
        write_nodes(&place, &own, a, f, level, g, k, k_at.s3, v, v_at.s3);
}
