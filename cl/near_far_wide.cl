/* Near-far attention in register tiles (wide.clh), for CPUs. Mathematics and shapes as in near_far.cl.
 *
 * A work-item has TILE rows: SPAN consecutive positions, aligned so that all have the same own chunk, of the GROUP query heads of a key
 * head. Every row decides alone and does only its own work; what rows share is loads:
 *   1. The own chunk, as in softmax_wide.cl.
 *   2. All roots closed. Their scores and deviations stay in private memory; they give a row's base, mass and size.
 *   3. Roots again: closed ones are added. Comparing errors with the row's limit gives, over all rows, for each of 16 nodes the set of
 *      rows that open it.
 *   4. From each root that any row opens, depth first: 16 children at a time are scored for the rows that opened their parent, in
 *      groups of 6 to 1 rows; at a leaf its keys.
 * With a limit on exact keys steps 3 and 4 come twice, at first without keys and values, to find how far each row's limit of errors must
 * rise; and a row that is full opens no further leaf.
 * Sums of a row are formed in the same order whatever the group, so that rows do not depend on each other by a single bit.
 *
 * A row's base, which weights are relative to, starts as a lower bound of its lse: the largest of its own keys' logits and of the roots'
 * log-weights without their lift (Jensen). What exceeds it by more than MARGIN moves it.
 *
 * Measured (two Zen 5 cores, processor time against softmax_wide at 400 GFLOP/s; 4 heads on 2, D = 64, real keys of a model of bytes, 8,192):
 * everything opened 0.82 of its speed (0.72 with one leaf at a time, whose scores load a number of a row for each multiply-add); 2.6 times
 * at a Frobenius error of 3 %, 1.9 times at 1.1 %; nothing opened 8 times. A tenth of the time is judging, which had three square roots
 * before, a tenth children, a twelfth gathering.
 *
 * Work: grid (tiles·PARTS, Hk, B), the last tiles first since they have most keys; work-groups of one. With more than one part, for few
 * rows as in decoding, each has the roots of its turn, the first also the own chunk, and near_far_merge.cl merges the states. */
#include "tensor.clh"

#ifndef SPAN /* positions of a tile, a power of two that divides CHUNK */
#define SPAN 32
#endif
#ifndef GROUP /* query heads of a key head */
#define GROUP 2
#endif
#define TILE ((SPAN * GROUP + 3) / 4 * 4)
#include "wide.clh"
#include "forest.clh"
#include "near_far.clh"

#ifndef Q_TYPE
#define Q_TYPE F32
#define K_TYPE F32
#define V_TYPE F32
#define BIAS_TYPE F32
#define OUT_TYPE F32
#define LSE_TYPE F32
#define ERROR_TYPE F32
#endif
#ifndef OWN
#define OWN 1
#endif
#ifndef BIAS
#define BIAS 1
#endif
#ifndef COUNTED
#define COUNTED 1
#endif
#ifndef ESTIMATED
#define ESTIMATED 1
#endif
#ifndef PARTS
#define PARTS 1
#endif
#ifndef LIMITED /* 1: exact keys have a limit */
#define LIMITED 1
#endif
#ifndef ROOT_BLOCKS /* blocks of 16 roots that there may be */
#define ROOT_BLOCKS 16
#endif

#include "near_far_rows.clh"
#include "near_far_walk.clh"

/* Blocks of roots, the same as roots_of in near_far.cl: number `block` of all. False: there are no more. */
inline bool root_block(private const trees *t, uint highest, bool rest, uint block, private nodes *n, private uint *first)
{
    for (uint level = highest + 1; level-- > TOP;) {
        uint shift = size_shift(level), begin = 0, end = t->covered >> shift;
        if (level < highest)
            begin = rest ? end : t->covered >> size_shift(level + 1) << (size_shift(level + 1) - shift);
        else if (rest)
            end = (t->covered + (1u << shift) - 1) >> shift;
        uint blocks = end > begin ? (end + 15) / 16 - begin / 16 : 0;
        if (block >= blocks) {
            block -= blocks;
            continue;
        }
        *first = begin / 16 * 16 + block * 16;
        *n = block_of(t, level, *first, max(begin, *first) - *first, min(end - *first, 16u));
        return true;
    }
    return false;
}

/* How far values are from the means of their chunks. */
inline float spread_of_values(private const trees *t)
{
    float16 squares = (float16)(0.0f), keys = (float16)(0.0f);
    for (uint g = 0; g < t->covered / CHUNK; g += 16) {
        nodes n = block_of(t, TOP, g, 0, min(t->covered / CHUNK - g, 16u));
        float16 count = select((float16)(0.0f), vload16(COUNT, n.stats), n.there);
        keys += count;
        squares += select((float16)(0.0f), count * n.spread * n.spread, n.there);
    }
    return sum16(keys) > 0.0f ? sqrt(sum16(squares) / sum16(keys)) : 0.0f;
}

/* Base, mass, size and limit of each row, from its own keys and the closed roots. */
inline void settle(private rows *w, private const trees *t, uint highest, bool rest, float tolerance,
                   private float *l, private float *deviation)
{
    float most[TILE * 16] ALIGNED, sums[TILE * DV] ALIGNED, weights[TILE * 16] ALIGNED;
    nodes n;
    uint first;
    for (uint r = 0; r < TILE; ++r)
        VECTOR(most + 16 * r) = (float16)(-INFINITY);
    for (uint block = 0; root_block(t, highest, rest, block, &n, &first); ++block) {
        private float *lb = l + block * TILE * 16, *db = deviation + block * TILE * 16;
        look_at_all(w, &n, lb, db);
        for (uint r = 0; r < TILE; ++r)
            VECTOR(most + 16 * r) = max(VECTOR(most + 16 * r), VECTOR(lb + 16 * r) - lift16(VECTOR(db + 16 * r), n.knee));
    }
    for (uint r = 0; r < TILE; ++r) {
        float base = fmax(w->t.top[r], max16(VECTOR(most + 16 * r)));
        w->limit[r] = w->mass[r] = 0.0f;
        if (base > w->t.top[r])
            rebase(w, r, base);
        else if (base == -INFINITY)
            w->t.top[r] = 0.0f;
        VECTOR(most + 16 * r) = VECTOR(w->t.mass + 16 * r);
        for (uint d = 0; d < DV; d += 16)
            VECTOR(sums + r * DV + d) = VECTOR(w->t.sum + r * DV + d);
    }
    for (uint block = 0; root_block(t, highest, rest, block, &n, &first); ++block) {
        for (uint r = 0; r < TILE; ++r) {
            uint at = (block * TILE + r) * 16;
            float16 logit = VECTOR(l + at) - doubtful_lift16(VECTOR(deviation + at), n.knee);
            float16 p = exp_weight(fmin(logit - w->t.top[r], MARGIN));
            VECTOR(weights + 16 * r) = p;
            VECTOR(most + 16 * r) += p;
        }
        add_all(sums, weights, &n);
    }
    float spread = spread_of_values(t);
    for (uint r = 0; r < TILE; ++r) {
        float mass = sum16(VECTOR(most + 16 * r)), square = 0.0f;
        for (uint d = 0; d < DV; d += 16)
            square += sum16(VECTOR(sums + r * DV + d) * VECTOR(sums + r * DV + d));
        w->mass[r] = mass;
        w->size[r] = mass > 0.0f ? sqrt(square) / mass : 0.0f;
        w->limit[r] = accepted_error(tolerance, w->size[r], spread, t->covered / CHUNK) * mass;
    }
}

/* Where a row's nodes begin to open, from the keys that it counted: as many of the largest errors as find room. */
#if LIMITED
inline void raise_limits(private rows *w)
{
    for (uint r = 0; r < TILE; ++r) {
        uint step = STEPS, room = w->room[r];
        while (step > 0 && w->steps[r * STEPS + step - 1] <= room)
            room -= w->steps[r * STEPS + --step];
        if (step == STEPS)
            w->limit[r] = INFINITY;
        else if (step > 0)
            w->limit[r] = fmax(w->limit[r], 0.9999f * step_error(w, r, step));
    }
}
#endif

/* From all roots down. */
inline void descend(private rows *w, private const trees *t, private stack *s, uint highest, bool rest, private float *l,
                    private float *deviation)
{
    float weights[TILE * 16] ALIGNED;
    nodes n;
    uint first;
    for (uint block = 0; root_block(t, highest, rest, block, &n, &first); ++block) {
        private float *lb = l + block * TILE * 16, *db = deviation + block * TILE * 16;
        private openers *o = &s->todo[n.level];
        for (uint m = 0; m < MASKS; ++m)
            UINTS(o->of[m]) = (uint16)(0);
#if LIMITED
        w->root_level = n.level;
#endif
        if (PARTS > 1)
            n.there = n.there && (LANE + (int)first) % PARTS == (int)w->part;
        for (uint r = 0; r < TILE; ++r)
            VECTOR(weights + 16 * r) = judge(w, r, VECTOR(lb + 16 * r), VECTOR(db + 16 * r), &n, o);
        if (!COUNTING(w))
            add_all(w->t.sum, weights, &n);
        s->first[n.level] = first;
        walk(w, t, s, n.level, db);
    }
}

/* The own chunk is the first part's. */
inline void forget_own(private rows *w)
{
    for (uint r = 0; r < TILE && w->part > 0; ++r) {
        w->exact[r] = 0;
        VECTOR(w->t.mass + 16 * r) = (float16)(0.0f);
        for (uint d = 0; d < DV; d += 16)
            VECTOR(w->t.sum + r * DV + d) = (float16)(0.0f);
    }
}

/* Moves the values of closed leaves by what they follow the logits on average (near_far.cl). */
inline void add_tilts(private rows *w, global const float *covariance)
{
    const uint list[4] = {0, 1, 2, 3};
    for (uint r = 0; r < TILE; r += 4) {
        float tilts[4 * DV] ALIGNED;
        for (uint d = 0; d < 4 * DV; d += 16)
            VECTOR(tilts + d) = (float16)(0.0f);
        ADD_VALUES(4, tilts, list, w->q + r * D, D, F32, covariance, 0, D)
        for (uint a = 0; a < 4; ++a) {
            private float *sum = w->t.sum + (r + a) * DV;
            float16 squares = (float16)(0.0f);
            for (uint d = 0; d < DV; d += 16)
                squares = MAD(VECTOR(tilts + a * DV + d), VECTOR(tilts + a * DV + d), squares);
            float share = sum16(VECTOR(w->slopes + 16 * (r + a))) * tilt_share(sum16(squares));
            for (uint d = 0; d < DV; d += 16)
                VECTOR(sum + d) = MAD((float16)(share), VECTOR(tilts + a * DV + d), VECTOR(sum + d));
        }
    }
}

/* Keys before the own chunk; a row may open `keys_most`, its own chunk's included. */
inline void attend_far(private rows *w, private const trees *t, bool rest, float tolerance, uint keys_most)
{
    float l[ROOT_BLOCKS * TILE * 16] ALIGNED, deviation[ROOT_BLOCKS * TILE * 16] ALIGNED;
    uint highest = highest_level(t->f.levels, t->covered / CHUNK);
    stack s;
    settle(w, t, highest, rest, tolerance, l, deviation);
    forget_own(w);
    w->all = LIMITED ? false : tolerance == 0.0f;
#if LIMITED
    for (uint r = 0; r < TILE; ++r)
        w->room[r] = keys_most > w->exact[r] ? keys_most - w->exact[r] : 0;
    for (uint i = 0; i < TILE * STEPS; ++i)
        w->steps[i] = 0;
    w->counting = true;
    descend(w, t, &s, highest, rest, l, deviation);
    raise_limits(w);
    w->counting = false;
#endif
    descend(w, t, &s, highest, rest, l, deviation);
    if (t->covariance)
        add_tilts(w, t->covariance);
}

/* A tile's place: position t of head g is row g·SPAN + t, query i0 + t, which sees the keys up to t + p0 (all, without OWN). */
typedef struct place {
    int p0, i0;
    uint keys, last, past; /* the most keys that a row sees; chunks before the own one */
} place;

inline uint seen_by(place at, uint r)
{
    return OWN ? (uint)clamp(at.p0 + (int)(r % SPAN) + 1, 0, (int)at.keys) : at.keys;
}

#if OWN
/* The keys of the own chunk, exactly. k and v: from key number `past`·CHUNK on. */
inline void attend_own(private rows *w, place at, global const ELEMENT(K_TYPE) *k, INDEX k_pitch,
                       global const ELEMENT(V_TYPE) *v, INDEX v_pitch
#if BIAS
                       , global const ELEMENT(BIAS_TYPE) *bias, INDEX bias_pitch
#endif
                       )
{
    float packed[D * BLOCK] ALIGNED, weights[RT * BLOCK] ALIGNED, offset[BLOCK] ALIGNED, shrink[RT];
    uint begin0 = at.past * CHUNK, end = at.last - begin0;
    scores s;
    for (uint begin = 0; begin < end; begin += BLOCK) {
        PACK(K_TYPE, k, k_pitch, begin, end, packed)
        for (uint j = 0; j < BLOCK; ++j) {
            offset[j] = begin + j < end ? 0.0f : -INFINITY;
#if BIAS
            offset[j] += LOAD(BIAS_TYPE, bias, min(begin + j, end - 1) * bias_pitch);
#endif
            for (uint r = 0; r < TILE && offset[j] > -INFINITY; ++r)
                w->exact[r] += begin0 + begin + j < seen_by(at, r);
        }
        for (uint r = 0; r < TILE; r += RT) {
            uint seen[RT];
            UNROLL for (uint a = 0; a < RT; ++a)
                seen[a] = max(seen_by(at, r + a), begin0) - begin0;
            scores_multiply(&s, w->q + r * D, D, packed, D);
            scores_mask(&s, offset, seen, begin);
            tile_weigh(&w->t, r, &s, weights, shrink);
            TILE_ADD(&w->t, r, weights, shrink, V_TYPE, v + begin * v_pitch, v_pitch, min((uint)BLOCK, end - begin))
        }
    }
}
#endif

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
near_far_wide(uint queries, uint keys, uint group, float scale, int diagonal, uint first_key, float tolerance, uint limit,
              uint levels, uint chunks, uint16 first_block,
              global const ELEMENT(Q_TYPE) *q, INDEX4 q_at,
#if OWN
              global const ELEMENT(K_TYPE) *k, INDEX4 k_at, global const ELEMENT(V_TYPE) *v, INDEX4 v_at,
#if BIAS
              global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
#endif
              global const ELEMENT(FOREST_TYPE) *tree_keys, global const ELEMENT(FOREST_TYPE) *tree_values,
              global const float *biases, global const float *means, global const float *variances,
              global const float *mean_values, global const float *stats, global const float *covariances,
#if PARTS > 1
              global float *part_numbers, global float *part_values
#else
              global ELEMENT(OUT_TYPE) *out, INDEX4 out_at, global ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at
#if COUNTED
              , global int *exact, INDEX4 exact_at
#endif
#if ESTIMATED
              , global ELEMENT(ERROR_TYPE) *error, INDEX4 error_at
#endif
#endif
              )
{
    uint number = get_global_size(0) / PARTS - 1 - get_global_id(0) / PARTS, kv = get_global_id(1), b = get_global_id(2);
    trees t = {forest_of(levels, chunks, first_block), tree_keys, tree_values, biases, means, variances, mean_values, stats, 0, 0};
    INDEX head = (INDEX)b * get_global_size(1) + kv, slots = head * chunks * CHUNK, blocks = head * t.f.blocks * 16;
    t.keys += slots * D;
    t.values += slots * DV;
    t.biases += slots;
    t.means += blocks * D;
    t.variances += head * (t.f.blocks - t.f.below) * 16 * D;
    t.mean_values += blocks * DV;
    t.stats += blocks * STATS;

    place at;
    int shift = OWN ? diagonal : 0, aligned = shift & ~(SPAN - 1);
    at.p0 = aligned + (int)(number * SPAN);
    at.i0 = at.p0 - shift;
    at.keys = keys;
    at.last = 0;
    rows w;
    w.part = get_global_id(0) % PARTS;
    tile_clear(&w.t);
    for (uint m = 0; m < MASKS; ++m)
        w.active[m] = 0;
    for (uint r = 0; r < TILE; ++r) {
        int i = at.i0 + (int)(r % SPAN);
        bool active = r < SPAN * GROUP && i >= 0 && i < (int)queries;
        uint h = kv * GROUP + min(r / SPAN, GROUP - 1u);
        global const ELEMENT(Q_TYPE) *from = q + q_at.s0 + b * q_at.s1 + h * q_at.s2 + clamp(i, 0, (int)queries - 1) * q_at.s3;
        for (uint d = 0; d < D; d += 16) {
            float16 x = LOAD16(Q_TYPE, from, d) * (active ? scale : 0.0f);
            VECTOR(w.q + r * D + d) = x;
            VECTOR(w.squares + r * D + d) = x * x;
        }
        w.active[r / 32] |= (uint)active << r % 32;
        w.limit[r] = w.mass[r] = w.size[r] = 0.0f;
        w.exact[r] = 0;
        VECTOR(w.opened + 16 * r) = VECTOR(w.slopes + 16 * r) = (float16)(0.0f);
        VECTOR(w.error_sum + 16 * r) = VECTOR(w.error_squares + 16 * r) = (float16)(0.0f);
        if (active)
            at.last = max(at.last, seen_by(at, r));
    }
#if OWN
    at.past = at.last ? (at.last - 1) / CHUNK : 0;
    INDEX row = at.past * CHUNK - first_key;
    if (at.last)
        attend_own(&w, at, k + k_at.s0 + b * k_at.s1 + kv * k_at.s2 + row * k_at.s3, k_at.s3,
                   v + v_at.s0 + b * v_at.s1 + kv * v_at.s2 + row * v_at.s3, v_at.s3
#if BIAS
                   , bias + bias_at.s0 + b * bias_at.s1 + kv * bias_at.s2 + row * bias_at.s3, bias_at.s3
#endif
                   );
#else
    at.past = (at.last + CHUNK - 1) / CHUNK;
#endif
    t.covered = at.past * CHUNK;
    uint runs = min(at.past, at.last / CHUNK) / RUN;
    if (runs > 0)
        t.covariance = covariances + (head * (chunks / RUN) + runs - 1) * D * DV;
    if (at.past)
        attend_far(&w, &t, !OWN, tolerance, limit);
    else
        forget_own(&w);

    for (uint r = 0; r < SPAN * GROUP; ++r) {
        int i = at.i0 + (int)(r % SPAN);
        uint h = kv * GROUP + r / SPAN;
        if (!(w.active[r / 32] >> r % 32 & 1))
            continue;
#if PARTS > 1
        INDEX part = (((INDEX)b * get_global_size(1) * GROUP + h) * queries + i) * PARTS + w.part;
        float of_part = tile_scale(&w.t, r), of_all = w.mass[r] > 0.0f ? 1.0f / w.mass[r] : 0.0f;
        float numbers[PART_NUMBERS] = {tile_lse(&w.t, r), of_all * of_all * sum16(VECTOR(w.error_squares + 16 * r)),
                                       of_all * sum16(VECTOR(w.error_sum + 16 * r)), w.t.top[r] + log(w.mass[r]), (float)exact_keys(&w, r)};
        for (uint n = 0; n < PART_NUMBERS; ++n)
            part_numbers[part * PART_NUMBERS + n] = numbers[n];
        for (uint d = 0; d < DV; d += 16)
            vstore16(VECTOR(w.t.sum + r * DV + d) * of_part, 0, part_values + part * DV + d);
#else
        float inverse = tile_scale(&w.t, r), square = 0.0f;
        for (uint d = 0; d < DV; d += 16) {
            float16 x = VECTOR(w.t.sum + r * DV + d) * inverse;
            square += sum16(x * x);
            STORE16(OUT_TYPE, out, out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3 + d, x);
        }
        STORE(LSE_TYPE, lse, lse_at.s0 + b * lse_at.s1 + h * lse_at.s2 + i * lse_at.s3, tile_lse(&w.t, r));
#if COUNTED
        exact[exact_at.s0 + b * exact_at.s1 + h * exact_at.s2 + i * exact_at.s3] = exact_keys(&w, r);
#endif
#if ESTIMATED
        float sum = sum16(VECTOR(w.error_sum + 16 * r)), squares = sum16(VECTOR(w.error_squares + 16 * r));
        float estimate = squares > 0.0f ? inverse * joint_error(squares, sum) / sqrt(square) : 0.0f;
        STORE(ERROR_TYPE, error, error_at.s0 + b * error_at.s1 + h * error_at.s2 + i * error_at.s3, estimate);
#endif
#endif
    }
}
