/* Gradients of near-far attention for keys, values and biases: what their slots have received (near_far_back.clh), and
 * what the rows give them whose own chunk they are in.
 *
 * Shapes: k, dk [B,Hk,keys,D], v, dv [B,Hk,keys,DV], bias, dbias [B,Hk,keys], places as in near_far_back_places.cl.
 * Work: one work-item a key, grid (keys rounded up to WG, Hk, B). No local memory, no barrier. */
#define ROWS_ALONE
#include "tree/near_far.cl"
#include "tree/near_far_back.clh"

/* A key, and what it receives. */
typedef struct key_sums {
    float key[D], value[DV], dk[D], dv[DV], dbias;
} key_sums;

static inline void key_begin(private key_sums *s, global const float *slot, global const float *behind) {
    for (uint d = 0; d < D; ++d)
        s->dk[d] = slot ? slot[d * STEP] : 0.0f;
    for (uint e = 0; e < DV; ++e)
        s->dv[e] = slot ? slot[(D + e) * STEP] : 0.0f;
    s->dbias = slot ? *behind : 0.0f;
}

/* Of a row of its own chunk; l: its bias. */
static inline void key_receive(private key_sums *s, float l, float scale, global const float *numbers,
                               global const ELEMENT(Q_TYPE) *q, global const ELEMENT(DOUT_TYPE) *dout) {
    float gain = 0.0f;
    for (uint d = 0; d < D; ++d)
        l = MAD(scale * LOAD(Q_TYPE, q, d), s->key[d], l);
    for (uint e = 0; e < DV; ++e)
        gain = MAD(LOAD(DOUT_TYPE, dout, e), s->value[e], gain);
    float p = exp(l - numbers[0]), lambda = p * (gain - numbers[1]);
    s->dbias += lambda;
    for (uint d = 0; d < D; ++d)
        s->dk[d] = MAD(lambda * scale, LOAD(Q_TYPE, q, d), s->dk[d]);
    for (uint e = 0; e < DV; ++e)
        s->dv[e] = MAD(p, LOAD(DOUT_TYPE, dout, e), s->dv[e]);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
near_far_back_keys(INPUTS, global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at, global const float *row_numbers,
                   global const float *slot_sums, global const uint *places, global ELEMENT(DK_TYPE) *dk, INDEX4 dk_at,
                   global ELEMENT(DV_TYPE) *dv, INDEX4 dv_at
#if DBIAS
                   ,
                   global ELEMENT(DBIAS_TYPE) *dbias, INDEX4 dbias_at
#endif
) {
    uint j = get_global_id(0), kv = get_global_id(1), b = get_global_id(2);
    if (j >= keys)
        return;
    forest f = forest_of(levels, chunks, room, first_block);
    INDEX head = (INDEX)b * get_global_size(1) + kv;
    uint place = places[head * keys + j];
    key_sums s;
    /* No place leads beyond a head's slots, whatever a kernel left that has failed. */
    uint slot = min(place, (uint)slots_of(f) - 1);
    slot_sums += head * slots_of(f) * SLOT_NUMBERS;
    key_begin(&s, place == NOWHERE ? 0 : slot_sums + sum_of_row(0, slot, SLOT_NUMBERS),
              slot_sums + sum_behind(0, slot, SLOT_NUMBERS, 0));
#if OWN
    float l = 0.0f;
    k += k_at.s0 + b * k_at.s1 + kv * k_at.s2 + (j - first_key) * k_at.s3;
    v += v_at.s0 + b * v_at.s1 + kv * v_at.s2 + (j - first_key) * v_at.s3;
#if BIAS
    l = LOAD(BIAS_TYPE, bias, bias_at.s0 + b * bias_at.s1 + kv * bias_at.s2 + (j - first_key) * bias_at.s3);
#endif
    for (uint d = 0; d < D; ++d)
        s.key[d] = LOAD(K_TYPE, k, d);
    for (uint e = 0; e < DV; ++e)
        s.value[e] = LOAD(V_TYPE, v, e);
    for (uint h = kv * group; h < (kv + 1) * group && l > -INFINITY; ++h)
        for (uint i = (uint)max((int)j - diagonal, 0); i < queries; ++i) {
            if (past_of(visible_keys(i, diagonal, keys)) > j / CHUNK)
                break;
            key_receive(&s, l, scale,
                        row_numbers + ROW_NUMBERS * (((INDEX)b * (get_global_size(1) * group) + h) * queries + i),
                        q + q_at.s0 + b * q_at.s1 + h * q_at.s2 + i * q_at.s3,
                        dout + dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + i * dout_at.s3);
        }
#endif
    dk += dk_at.s0 + b * dk_at.s1 + kv * dk_at.s2 + j * dk_at.s3;
    dv += dv_at.s0 + b * dv_at.s1 + kv * dv_at.s2 + j * dv_at.s3;
    for (uint d = 0; d < D; ++d)
        STORE(DK_TYPE, dk, d, s.dk[d]);
    for (uint e = 0; e < DV; ++e)
        STORE(DV_TYPE, dv, e, s.dv[e]);
#if DBIAS
    STORE(DBIAS_TYPE, dbias, dbias_at.s0 + b * dbias_at.s1 + kv * dbias_at.s2 + j * dbias_at.s3, s.dbias);
#endif
}
