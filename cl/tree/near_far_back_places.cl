/* Which slot of a forest each key is in. A forest does not tell: the key is found by its numbers. Of keys that are the
 * same in key, value and bias any one is as good as another.
 *
 * Shapes: k [B,Hk,keys,D], v [B,Hk,keys,DV], bias [B,Hk,keys]; the forest's as in op.h; hashes [B,Hk,2,slots of
 * chunks], of keys and of what is in slots; places [B,Hk,keys]: a slot of the head's, or NOWHERE. Work:
 * near_far_back_hashes, one work-item a slot, grid (their number rounded up to WG, Hk, B); near_far_back_places, one a
 * key, likewise. No local memory, no barrier. */
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

#if BIAS
#define BIAS_KEYS , global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at
#define BIAS_OF(j)                                                                                                     \
    LOAD(BIAS_TYPE, bias, bias_at.s0 + get_global_id(2) * bias_at.s1 + get_global_id(1) * bias_at.s2 + (j)*bias_at.s3)
#define SAME_BIAS(a, b) ((a) == (b))
#else
#define BIAS_KEYS
#define SAME_BIAS(a, b) true
#define BIAS_OF(j) 0.0f
#endif

/* A number of `count` numbers that differs where they differ, mostly. */
#define MIX(hash, type, from, count, pitch)                                                                            \
    for (uint x_ = 0; x_ < (count); ++x_)                                                                              \
        hash = (hash ^ as_uint((float)LOAD(type, from, x_ * (pitch)))) * 0x01000193u + (hash >> 15);

/* Whether they are the same to the bit. */
#define COMPARE(same, type, from, other_type, other, count, pitch)                                                     \
    for (uint x_ = 0; x_ < (count) && same; ++x_)                                                                      \
        same = as_uint((float)LOAD(type, from, x_)) == as_uint((float)LOAD(other_type, other, x_ * (pitch)));

#define KEYS                                                                                                           \
    uint keys, uint levels, uint chunks, uint room, uint16 first_block, global const ELEMENT(K_TYPE) *k, INDEX4 k_at,  \
        global const ELEMENT(V_TYPE) *v, INDEX4 v_at BIAS_KEYS, global const ELEMENT(FOREST_TYPE) *tree_keys,          \
        global const ELEMENT(FOREST_TYPE) *tree_values, global const float *biases, global const uint *apart

/* From the first head's to those of this item's head, and to key number j. */
#define KEYS_MOVE(f, head, j)                                                                                          \
    k += k_at.s0 + get_global_id(2) * k_at.s1 + get_global_id(1) * k_at.s2 + (j)*k_at.s3;                              \
    v += v_at.s0 + get_global_id(2) * v_at.s1 + get_global_id(1) * v_at.s2 + (j)*v_at.s3;                              \
    tree_keys += (head)*slots_of(f) * D;                                                                               \
    tree_values += (head)*slots_of(f) * DV;                                                                            \
    biases += (head)*slots_of(f);

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void near_far_back_hashes(KEYS, global uint *hashes) {
    uint j = get_global_id(0), all = chunks * CHUNK, hash = 0, tree_hash = 0;
    if (j >= all)
        return;
    forest f = forest_of(levels, chunks, room, first_block);
    INDEX head = (INDEX)get_global_id(2) * get_global_size(1) + get_global_id(1);
    KEYS_MOVE(f, head, min(j, keys - 1))
    MIX(hash, K_TYPE, k, D, 1)
    MIX(hash, V_TYPE, v, DV, 1)
    if (biases[j] > -INFINITY) {
        MIX(tree_hash, FOREST_TYPE, tree_keys + lane_of(0, j, D), D, 16)
        MIX(tree_hash, FOREST_TYPE, tree_values + (INDEX)j * DV, DV, 1)
    }
    hashes[2 * head * all + j] = hash;
    hashes[(2 * head + 1) * all + j] = tree_hash;
}

/* The slot of key j, if it stands apart. */
static inline uint place_apart(global const uint *apart, uint chunks, uint room, uint j) {
    uint g = j / CHUNK;
    for (uint x = 0; APART_LIST && x < min(apart[g + 1] - apart[g], (uint)APART_LIST); ++x)
        if (apart[chunks + 1 + (INDEX)g * APART_LIST + x] == j % CHUNK && apart[g] + x < room)
            return chunks * CHUNK + apart[g] + x;
    return NOWHERE;
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void near_far_back_places(KEYS, global const uint *hashes,
                                                                                 global uint *places) {
    uint j = get_global_id(0), first = j / CHUNK * CHUNK, before = 0;
    if (j >= keys)
        return;
    forest f = forest_of(levels, chunks, room, first_block);
    INDEX head = (INDEX)get_global_id(2) * get_global_size(1) + get_global_id(1);
    KEYS_MOVE(f, head, j)
    apart += head * apart_words(f);
    hashes += 2 * head * chunks * CHUNK;
    uint place = place_apart(apart, chunks, room, j), hash = hashes[j];
    /* Of keys that are the same each takes the slot of its turn. */
    for (uint x = first; x < j && place == NOWHERE; ++x) {
        bool same = hashes[x] == hash && SAME_BIAS(BIAS_OF(x), BIAS_OF(j));
        COMPARE(same, K_TYPE, k, K_TYPE, k - (j - x) * k_at.s3, D, 1)
        COMPARE(same, V_TYPE, v, V_TYPE, v - (j - x) * v_at.s3, DV, 1)
        before += same && place_apart(apart, chunks, room, x) == NOWHERE;
    }
    hashes += chunks * CHUNK;
    for (uint s = first; s < first + CHUNK && place == NOWHERE && biases[s] > -INFINITY; ++s) {
        bool same = hashes[s] == hash && SAME_BIAS(BIAS_OF(j), biases[s]);
        COMPARE(same, K_TYPE, k, FOREST_TYPE, tree_keys + lane_of(0, s, D), D, 16)
        COMPARE(same, V_TYPE, v, FOREST_TYPE, tree_values + (INDEX)s * DV, DV, 1)
        if (same && before-- == 0)
            place = s;
    }
    places[head * keys + j] = place;
}
