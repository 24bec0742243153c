/* Gradients of near-far attention, for CPUs: what a key's slot has received (near_far_back.clh) goes to its key, beside
 * what the rows of its own chunk gave it.
 *
 * Shapes: dk [B,Hk,keys,D], dv [B,Hk,keys,DV], dbias [B,Hk,keys], places as in near_far_back_places.cl. Keys from
 * `first_own` on have received of their own chunk's rows already.
 * Work: one work-item a key, grid (keys, Hk, B). */
#include "shared/tensor.clh"
#include "tree/forest.clh"
#include "tree/near_far_back_slots.clh"

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
near_far_back_give(uint first_own, uint levels, uint chunks, uint room, uint16 first_block,
                   global const float *slot_sums, global const uint *places, global ELEMENT(DK_TYPE) *dk, INDEX4 dk_at,
                   global ELEMENT(DV_TYPE) *dv, INDEX4 dv_at
#if DBIAS
                   ,
                   global ELEMENT(DBIAS_TYPE) *dbias, INDEX4 dbias_at
#endif
) {
    uint j = get_global_id(0), kv = get_global_id(1), b = get_global_id(2);
    forest f = forest_of(levels, chunks, room, first_block);
    INDEX head = (INDEX)b * get_global_size(1) + kv;
    uint place = places[head * get_global_size(0) + j];
    /* No place leads beyond a head's slots, whatever a kernel left that has failed. */
    uint at = min(place, (uint)slots_of(f) - 1);
    slot_sums += head * slots_of(f) * SLOT_NUMBERS;
    global const float *slot = slot_sums + sum_of_row(0, at, SLOT_NUMBERS);
    bool there = place != NOWHERE;
    bool own = j >= first_own;
    dk += dk_at.s0 + b * dk_at.s1 + kv * dk_at.s2 + j * dk_at.s3;
    dv += dv_at.s0 + b * dv_at.s1 + kv * dv_at.s2 + j * dv_at.s3;
    for (uint d = 0; d < D; ++d)
        STORE(DK_TYPE, dk, d, (own ? LOAD(DK_TYPE, dk, d) : 0.0f) + (there ? slot[d * STEP] : 0.0f));
    for (uint e = 0; e < DV; ++e)
        STORE(DV_TYPE, dv, e, (own ? LOAD(DV_TYPE, dv, e) : 0.0f) + (there ? slot[(D + e) * STEP] : 0.0f));
#if DBIAS
    dbias += dbias_at.s0 + b * dbias_at.s1 + kv * dbias_at.s2 + j * dbias_at.s3;
    STORE(DBIAS_TYPE, dbias, 0,
          (own ? LOAD(DBIAS_TYPE, dbias, 0) : 0.0f) + (there ? slot_sums[sum_behind(0, at, SLOT_NUMBERS, 0)] : 0.0f));
#endif
}
