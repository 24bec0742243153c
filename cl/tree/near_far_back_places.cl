/* Which slot of a forest each key is in. A forest does not tell: the key is found by its numbers. Of keys that are the
 * same in key, value and bias any one is as good as another.
 *
 * Shapes: k [B,Hk,keys,D], v [B,Hk,keys,DV], bias [B,Hk,keys]; the forest's as in op.h; places [B,Hk,keys]: a slot of
 * the head's, or NOWHERE. Work: one work-item a chunk, grid (chunks rounded up to WG, Hk, B). No local memory, no
 * barrier. */
#include "shared/tensor.clh"
#include "tree/forest.clh"
#include "tree/near_far_back_slots.clh"

#ifndef K_TYPE
#define K_TYPE F32
#define V_TYPE F32
#define BIAS_TYPE F32
#endif
#ifndef BIAS
#define BIAS 1
#endif

/* A number of `count` numbers that differs where they differ, mostly. */
#define MIX(hash, type, from, count, pitch)                                                                            \
    for (uint x_ = 0; x_ < (count); ++x_)                                                                              \
        hash = (hash ^ as_uint((float)LOAD(type, from, x_ * (pitch)))) * 0x01000193u + (hash >> 15);

/* Whether they are the same to the bit. */
#define COMPARE(same, type, from, other_type, other, count, pitch)                                                     \
    for (uint x_ = 0; x_ < (count) && same; ++x_)                                                                      \
        same = as_uint((float)LOAD(type, from, x_)) == as_uint((float)LOAD(other_type, other, x_ * (pitch)));

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
near_far_back_places(uint keys, uint levels, uint chunks, uint room, uint16 first_block,
                     global const ELEMENT(K_TYPE) *k, INDEX4 k_at, global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
                     global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
                     global const ELEMENT(FOREST_TYPE) *tree_keys, global const ELEMENT(FOREST_TYPE) *tree_values,
                     global const float *biases, global const uint *apart, global uint *places) {
    uint g = get_global_id(0), h = get_global_id(1), b = get_global_id(2), hashes[CHUNK];
    if (g * CHUNK >= keys)
        return;
    forest f = forest_of(levels, chunks, room, first_block);
    INDEX head = (INDEX)b * get_global_size(1) + h, slots = head * slots_of(f);
    uint present = min((uint)CHUNK, keys - g * CHUNK);
    k += k_at.s0 + b * k_at.s1 + h * k_at.s2 + g * CHUNK * k_at.s3;
    v += v_at.s0 + b * v_at.s1 + h * v_at.s2 + g * CHUNK * v_at.s3;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + h * bias_at.s2 + g * CHUNK * bias_at.s3;
#endif
    tree_keys += slots * D;
    tree_values += slots * DV;
    biases += slots;
    apart += head * apart_words(f);
    places += head * keys + g * CHUNK;
    for (uint j = 0; j < present; ++j) {
        uint hash = 0;
        MIX(hash, K_TYPE, k + j * k_at.s3, D, 1)
        MIX(hash, V_TYPE, v + j * v_at.s3, DV, 1)
        hashes[j] = hash;
        places[j] = NOWHERE;
    }
    for (uint x = 0; APART_LIST && x < min(apart[g + 1] - apart[g], (uint)APART_LIST); ++x)
        if (apart[g] + x < room)
            places[min(apart[chunks + 1 + (INDEX)g * APART_LIST + x], present - 1)] = chunks * CHUNK + apart[g] + x;
    for (uint s = g * CHUNK; s < (g + 1) * CHUNK && biases[s] > -INFINITY; ++s) {
        uint hash = 0;
        MIX(hash, FOREST_TYPE, tree_keys + lane_of(0, s, D), D, 16)
        MIX(hash, FOREST_TYPE, tree_values + (INDEX)s * DV, DV, 1)
        for (uint j = 0; j < present; ++j) {
            bool same = hashes[j] == hash && places[j] == NOWHERE;
#if BIAS
            same = same && LOAD(BIAS_TYPE, bias, j * bias_at.s3) == biases[s];
#endif
            COMPARE(same, K_TYPE, k + j * k_at.s3, FOREST_TYPE, tree_keys + lane_of(0, s, D), D, 16)
            COMPARE(same, V_TYPE, v + j * v_at.s3, FOREST_TYPE, tree_values + (INDEX)s * DV, DV, 1)
            if (!same)
                continue;
            places[j] = s;
            break;
        }
    }
}
