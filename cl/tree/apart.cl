/* Keys that stand apart from the trees (op_forest in src/op/op.h): attention sinks, and the like.
 *
 * Pretrained models give a good part of a row's attention to a few keys that are unlike all others: the first token,
 * and one in some hundred along the text. All other keys have a large part in common, against which queries point,
 * and these have not: they are short, or far away. No moment of a node shows them, so they leave their chunk before
 * its tree is built, and every later row takes them exactly. A key k of a chunk with mean m stands apart if
 *
 *     (µ − k·m) / σ > LOW  and  (µ − k·m) / µ > LACKS     µ, σ: of the chunk's k·m, without those far from the others
 *     or  |k − m|² / ρ > FAR                              ρ: the mean of |k − m|², without those
 *
 * at most APART_EACH of a chunk, those that exceed it most, and the first APART_FIRST of all. Nothing but the chunk's
 * own keys decides.
 *
 * Source: attention sinks, Xiao et al. 2023 (arXiv 2309.17453); heavy hitters, Zhang et al. 2023 (arXiv 2306.14048),
 * here found by their keys instead of by their attention, which queries of other calls would have to tell.
 *
 * Measured (SmolLM2-135M, layers 3, 7, 13, 29, 8,192 tokens): finds 0.1 to 2 % of the keys, among them nearly all that
 * draw 1 % of the attention or more; the layers' errors at one tolerance are those of keys chosen by attention. LOW
 * 4.5: errors up to 1.4 times as large; 3: a third more keys.
 * LACKS: a key that has most of what others have in common draws hardly more than they do, and the trees see it.
 * Chunks of 32, tolerance 0.1, keys of layers 3, 7, 29: 3.1, 6.1, 2.5 % for errors of 0.023, 0.025, 0.017; with LACKS
 * 0 4.4, 6.8, 3.0 % for 0.025, 0.026, 0.016; 0.45: 3.4, 6.2, 2.5 %; 0.75 finds too
 * few: layer 3 errs by 0.033. bytelm-4m, where no key draws much: 6.0 instead of 7.2 % of the keys.
 *
 * Shapes: k [B,Hk,keys,D], v [B,Hk,keys,DV], bias [B,Hk,keys], row 0 the first key of chunk first_chunk; apart as
 * apart_words tells. Work: find_apart and place_apart, a group of WG work-items for a chunk, grid (chunks · WG, Hk,
 * B); count_apart, one for a head, grid (1, Hk, B). */
#include "shared/tensor.clh"
#include "tree/forest.clh"

#ifndef K_TYPE
#define K_TYPE F32
#define V_TYPE F32
#define BIAS_TYPE F32
#endif
#ifndef BIAS
#define BIAS 1
#endif
#ifndef LOW
#define LOW 3.5f
#define FAR 4.0f
#endif
#ifndef LACKS
#define LACKS 0.6f
#endif

/* A chunk's keys while they are compared. */
typedef struct chunk_place {
    float mean[D];
    float along[CHUNK], far[CHUNK]; /* k·m and |k − m|²; then along: by how much a key exceeds what is allowed */
    uchar there[CHUNK];
} chunk_place;

/* The mean and deviation of those of x that are there and from `least` to `most`. */
typedef struct spread {
    float mean, deviation;
} spread;

static inline spread spread_within(local const float *x, local const uchar *there, float least, float most) {
    float sum = 0.0f, squares = 0.0f, count = 0.0f;
    for (uint j = 0; j < CHUNK; ++j)
        if (there[j] && x[j] >= least && x[j] <= most) {
            sum += x[j];
            count += 1.0f;
        }
    spread s = {sum / fmax(count, 1.0f), 0.0f};
    for (uint j = 0; j < CHUNK; ++j)
        if (there[j] && x[j] >= least && x[j] <= most)
            squares = MAD(x[j] - s.mean, x[j] - s.mean, squares);
    s.deviation = sqrt(squares / fmax(count, 1.0f));
    return s;
}

/* place->along: above 1, a key stands apart. */
static inline void compare(local chunk_place *place) {
    spread low = spread_within(place->along, place->there, -INFINITY, INFINITY);
    low = spread_within(place->along, place->there, low.mean - 2.0f * low.deviation, INFINITY);
    low = spread_within(place->along, place->there, low.mean - 2.5f * low.deviation, INFINITY);
    spread far = spread_within(place->far, place->there, 0.0f, INFINITY);
    far = spread_within(place->far, place->there, 0.0f, 2.0f * far.mean);
    for (uint j = 0; j < CHUNK; ++j) {
        float below = low.mean - place->along[j],
              lacks = fmin(below / (LOW * low.deviation), below / (LACKS * low.mean)),
              exceeds = fmax(lacks, place->far[j] / (FAR * far.mean));
        place->along[j] = place->there[j] ? exceeds : 0.0f;
    }
}

/* Chooses the keys, and notes how many they are, and which. */
static inline void choose(local chunk_place *place, bool may, bool first, global uint *count, global uint *list) {
    uint found = 0, firsts = 0;
    for (uint j = 0; j < CHUNK && first && firsts < APART_FIRST; ++j)
        if (place->there[j]) {
            place->there[j] = 2;
            ++firsts;
        }
    for (uint x = 0; x < APART_EACH && may; ++x) {
        float most = 1.0f;
        uint at = CHUNK;
        for (uint j = 0; j < CHUNK; ++j)
            if (place->there[j] == 1 && place->along[j] > most) {
                most = place->along[j];
                at = j;
            }
        if (at == CHUNK)
            break;
        place->there[at] = 2;
    }
    for (uint j = 0; j < CHUNK; ++j)
        if (place->there[j] == 2)
            list[found++] = j;
    *count = found;
}

/* The first `apart_chunks` chunks may set keys apart. Leaves each chunk's number of keys in the place after its own. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
find_apart(uint keys, uint first_chunk, uint apart_chunks, uint levels, uint chunks, uint room, uint16 first_block,
           global const ELEMENT(K_TYPE) *k, INDEX4 k_at,
#if BIAS
           global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
           global uint *apart) {
    local chunk_place place;
    uint item = get_local_id(0), i = get_group_id(0), h = get_global_id(1), b = get_global_id(2), g = first_chunk + i;
    forest f = forest_of(levels, chunks, room, first_block);
    uint present = min((uint)CHUNK, keys - i * CHUNK);
    apart += ((INDEX)b * get_global_size(1) + h) * apart_words(f);
    k += k_at.s0 + b * k_at.s1 + h * k_at.s2 + i * CHUNK * k_at.s3;
    for (uint j = item; j < CHUNK; j += WG) {
        place.there[j] = j < present;
#if BIAS
        INDEX at = bias_at.s0 + b * bias_at.s1 + h * bias_at.s2 + (i * CHUNK + j) * bias_at.s3;
        place.there[j] = j < present && LOAD(BIAS_TYPE, bias, at) != -INFINITY;
#endif
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint d = item; d < D; d += WG) {
        float sum = 0.0f, count = 0.0f;
        for (uint j = 0; j < present; ++j) {
            sum += place.there[j] ? LOAD(K_TYPE, k, j * k_at.s3 + d) : 0.0f;
            count += place.there[j];
        }
        place.mean[d] = sum / fmax(count, 1.0f);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint j = item; j < CHUNK; j += WG) {
        float along = 0.0f, far = 0.0f;
        for (uint d = 0; d < D && j < present; ++d) {
            float x = LOAD(K_TYPE, k, j * k_at.s3 + d), m = place.mean[d];
            along = MAD(x, m, along);
            far = MAD(x - m, x - m, far);
        }
        place.along[j] = along;
        place.far[j] = far;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (item == 0) {
        compare(&place);
        if (g == 0)
            apart[0] = 0;
        choose(&place, g < apart_chunks, g == 0 && apart_chunks > 0, apart + g + 1,
               apart + chunks + 1 + g * APART_LIST);
    }
}

/* How many keys of each chunk become how many there are before each, from chunk `first_chunk` to `last_chunk` − 1. */
kernel __attribute__((reqd_work_group_size(1, 1, 1))) void count_apart(uint first_chunk, uint last_chunk, uint levels,
                                                                       uint chunks, uint room, uint16 first_block,
                                                                       global uint *apart) {
    forest f = forest_of(levels, chunks, room, first_block);
    apart += ((INDEX)get_global_id(2) * get_global_size(1) + get_global_id(1)) * apart_words(f);
    for (uint g = first_chunk; g < last_chunk; ++g)
        apart[g + 1] += apart[g];
}

/* Copies them to the slots after those of the trees. */
kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
place_apart(uint keys, uint first_chunk, uint levels, uint chunks, uint room, uint16 first_block,
            global const ELEMENT(K_TYPE) *k, INDEX4 k_at, global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
            global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
            global const uint *apart, global ELEMENT(FOREST_TYPE) *tree_keys, global ELEMENT(FOREST_TYPE) *tree_values,
            global float *biases) {
    uint item = get_local_id(0), i = get_group_id(0), h = get_global_id(1), b = get_global_id(2), g = first_chunk + i;
    forest f = forest_of(levels, chunks, room, first_block);
    INDEX head = (INDEX)b * get_global_size(1) + h, slots = head * slots_of(f);
    apart += head * apart_words(f);
    tree_keys += slots * D;
    tree_values += slots * DV;
    biases += slots;
    k += k_at.s0 + b * k_at.s1 + h * k_at.s2;
    v += v_at.s0 + b * v_at.s1 + h * v_at.s2;
    for (uint x = 0; x < min(apart[g + 1] - apart[g], (uint)APART_LIST) && apart[g] + x < room; ++x) {
        uint slot = chunks * CHUNK + apart[g] + x;
        INDEX j = min(i * CHUNK + min(apart[chunks + 1 + g * APART_LIST + x], CHUNK - 1u), keys - 1);
        for (uint d = item; d < D; d += WG)
            STORE(FOREST_TYPE, tree_keys, lane_of(0, slot, D) + d * 16, LOAD(K_TYPE, k, j * k_at.s3 + d));
        for (uint d = item; d < DV; d += WG)
            STORE(FOREST_TYPE, tree_values, (INDEX)slot * DV + d, LOAD(V_TYPE, v, j * v_at.s3 + d));
        if (item == 0) {
            biases[slot] = 0.0f;
#if BIAS
            biases[slot] = LOAD(BIAS_TYPE, bias, bias_at.s0 + b * bias_at.s1 + h * bias_at.s2 + j * bias_at.s3);
#endif
        }
    }
}
