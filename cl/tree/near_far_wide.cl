/* Near-far attention in register tiles (wide.clh), for CPUs. Mathematics and shapes as in near_far.cl.
 *
 * A work-item has TILE rows: SPAN consecutive positions, aligned so that all have the same own chunk, of the GROUP
 * query heads of a key head. Every row decides alone and does only its own work; what rows share is loads:
 *   1. The own chunk, as in softmax_wide.cl, and likewise the keys that stand apart (apart.cl).
 *   2. All roots closed. Their scores and deviations stay in private memory; they give a row's base, mass and size.
 *   3. Roots again: closed ones are added. Comparing errors with the row's limit gives, over all rows, for each of 16
 *      nodes the set of rows that open it.
 *   4. From each root that any row opens, depth first: 16 children at a time are scored for the rows that opened their
 *      parent, in groups of 6 to 1 rows; at a leaf its keys.
 * With a limit on exact keys steps 3 and 4 come twice, at first without keys and values, to find how far each row's
 * limit of errors must rise; and a row that is full opens no further leaf. Sums of a row are formed in the same order
 * whatever the group, so that rows do not depend on each other by a single bit.
 *
 * A row's base, which weights are relative to, starts as a lower bound of its lse: the largest of its own keys'
 * logits and of the roots' log-weights without their lift (Jensen). What exceeds it by more than MARGIN moves it.
 *
 * Measured (two Zen 5 cores, processor time against softmax_wide at 400 GFLOP/s; 4 heads on 2, D = 64, real keys of a
 * model of bytes, 8,192): everything opened 0.82 of its speed (0.72 with one leaf at a time, whose scores load a
 * number of a row for each multiply-add); 2.6 times at a Frobenius error of 3 %, 1.9 times at 1.1 %; nothing opened 8
 * times. A tenth of the time is the acceptance test, which had three square roots before, a tenth children, a twelfth
 * gathering.
 *
 * Work: grid (tiles, Hk, B), the last tiles first since they have most keys; work-groups of one. */
#include "shared/tensor.clh"

#ifndef SPAN /* positions of a tile, a power of two that divides CHUNK */
#define SPAN 32
#endif
#ifndef GROUP /* query heads of a key head */
#define GROUP 2
#endif
#define TILE ((SPAN * GROUP + 3) / 4 * 4)
#include "shared/wide.clh"
#include "tree/forest.clh"
#include "tree/near_far.clh"
#include "tree/near_far_args.clh"

#ifndef LIMITED /* 1: exact keys have a limit */
#define LIMITED 1
#endif
#ifndef ROOT_BLOCKS /* blocks of 16 roots that there may be */
#define ROOT_BLOCKS 16
#endif

#include "tree/near_far_rows.clh"
#include "tree/near_far_groups.clh"
#include "tree/near_far_walk.clh"
#include "tree/near_far_begin.clh"

/* Base, mass, size and limit of each row, from its own keys and the closed roots. */
static inline void finalise(private rows *w, private const trees *t, uint highest, bool rest, float tolerance,
                            private float *l, private float *deviation) {
    float most[TILE * 16] ALIGNED, sums[TILE * DV] ALIGNED, weights[TILE * 16] ALIGNED;
    nodes n;
    uint first;
    for (uint r = 0; r < TILE; ++r)
        VECTOR(most + 16 * r) = (float16)(-INFINITY);
    for (uint block = 0; root_block(t, highest, rest, block, &n, &first); ++block) {
        float *lb = l + block * TILE * 16, *db = deviation + block * TILE * 16;
        look_at_all(w, &n, lb, db);
        for (uint r = 0; r < TILE; ++r)
            VECTOR(most + 16 * r) = max(VECTOR(most + 16 * r), VECTOR(lb + 16 * r));
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
            float16 logit = VECTOR(l + at) + certain_lift16(VECTOR(deviation + at), n.knee);
            float16 p = select((float16)(0.0f), exp_weight(fmin(logit - w->t.top[r], MARGIN)), n.there);
            VECTOR(weights + 16 * r) = p;
            VECTOR(most + 16 * r) += p;
        }
        add_all(w, sums, weights, &n);
    }
    float spread = spread_of_values(spreads_of_values(t, 0, (t->covered / CHUNK + 15) / 16));
    for (uint r = 0; r < TILE; ++r) {
        float mass = sum16(VECTOR(most + 16 * r));
        w->mass[r] = mass;
        w->inverse_size[r] = inverse_of(norm_of(sums + r * DV, inverse_of(mass)));
        w->limit[r] = accepted_error(tolerance, spread * w->inverse_size[r], t->covered / CHUNK) * mass;
    }
}

/* Where a row's nodes begin to open, from the keys that it counted: as many of the largest errors as find room. */
#if LIMITED
static inline void raise_limits(private rows *w) {
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
static inline void descend(private rows *w, private const trees *t, private stack *s, uint highest, bool rest,
                           private float *l, private float *deviation) {
    float weights[TILE * 16] ALIGNED;
    uint first, every[TILE];
    nodes n;
    for (uint r = 0; r < TILE; ++r)
        every[r] = r;
    for (uint block = 0; root_block(t, highest, rest, block, &n, &first); ++block) {
        float *lb = l + block * TILE * 16, *db = deviation + block * TILE * 16;
        openers *o = &s->todo[n.level];
        for (uint m = 0; m < MASKS; ++m)
            UINTS(o->of[m]) = (uint16)(0);
#if LIMITED
        w->root_level = n.level;
#endif
        for (uint r = 0; r < TILE; ++r)
            VECTOR(weights + 16 * r) = w->done[r] ? (float16)(-INFINITY) : VECTOR(lb + 16 * r);
        test_nodes(w, &n, every, TILE, db, weights, o);
        if (!COUNTING(w))
            add_all(w, w->t.sum, weights, &n);
        s->first[n.level] = first;
        walk(w, t, s, n.level, db);
    }
}

/* The error that a row expects, with what it has opened so far. */
static inline float row_expects(private const rows *w, uint r) {
    return expected_error(sum16(VECTOR(w->error_squares + 16 * r)), sum16(VECTOR(w->error_sum + 16 * r)),
                          tile_scale(&w->t, r), w->inverse_size[r] * norm_of(w->t.sum + r * DV, tile_scale(&w->t, r)));
}

/* What rows have before they go down from the roots. */
typedef struct start {
    float sum[TILE * DV] ALIGNED, mass[TILE * 16] ALIGNED, top[TILE];
} start;

static inline void remember(private rows *w, private start *s) {
    for (uint r = 0; r < TILE; ++r) {
        w->done[r] = w->bit[r / 32][r] == 0;
        s->top[r] = w->t.top[r];
        VECTOR(s->mass + 16 * r) = VECTOR(w->t.mass + 16 * r);
        for (uint d = 0; d < DV; d += 16)
            VECTOR(s->sum + r * DV + d) = VECTOR(w->t.sum + r * DV + d);
    }
}

/* Rows that expect a larger error than they may begin anew, and accept less. Returns: whether there are any. */
static inline bool begin_anew(private rows *w, private const start *s, float tolerance) {
    bool any_row = false;
    for (uint r = 0; r < TILE; ++r) {
        float expected = w->done[r] ? 0.0f : row_expects(w, r);
        w->done[r] = !(expected > tolerance);
        if (w->done[r])
            continue;
        float shrink = exp(s->top[r] - w->t.top[r]);
        any_row = true;
        w->limit[r] *= second_share(tolerance, expected);
        VECTOR(w->t.mass + 16 * r) = VECTOR(s->mass + 16 * r) * shrink;
        for (uint d = 0; d < DV; d += 16)
            VECTOR(w->t.sum + r * DV + d) = VECTOR(s->sum + r * DV + d) * shrink;
        VECTOR(w->opened + 16 * r) = VECTOR(w->slopes + 16 * r) = (float16)(0.0f);
        VECTOR(w->error_sum + 16 * r) = VECTOR(w->error_squares + 16 * r) = (float16)(0.0f);
    }
    return any_row;
}

/* Keys before the own chunk; a row may open `keys_most`, its own chunk's included. */
static inline void attend_far(private rows *w, private const trees *t, bool rest, float tolerance, uint keys_most) {
    float l[ROOT_BLOCKS * TILE * 16] ALIGNED, deviation[ROOT_BLOCKS * TILE * 16] ALIGNED;
    uint highest = highest_level(t->f.levels, t->covered / CHUNK);
    stack s;
    start before;
    finalise(w, t, highest, rest, tolerance, l, deviation);
    remember(w, &before);
    w->all = LIMITED ? false : tolerance == 0.0f;
#if LIMITED
    for (uint r = 0; r < TILE; ++r)
        w->room[r] = keys_most > w->exact[r] ? keys_most - w->exact[r] : 0;
    for (uint i = 0; i < TILE * STEPS; ++i)
        w->steps[i] = 0;
#endif
    /* Twice at most, and in one place: compilers make the whole walk anew for each. */
    for (uint turn = 0; turn < 2; ++turn) {
#if LIMITED
        w->counting = turn == 0;
#endif
        descend(w, t, &s, highest, rest, l, deviation);
#if LIMITED
        if (turn == 0)
            raise_limits(w);
#else
        if (turn == 0 && !begin_anew(w, &before, tolerance))
            break;
#endif
    }
    if (t->covariance)
        add_covariance_terms(w, t->covariance);
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void near_far_wide(INPUTS, RESULTS) {
    uint number = get_global_size(0) - 1 - get_global_id(0), kv = get_global_id(1), b = get_global_id(2);
    trees t = TREES;
    INDEX head = (INDEX)b * get_global_size(1) + kv;
    trees_move(&t, head);
    rows w;
    place at = rows_begin(&w, number, diagonal, keys, queries, scale, q + q_at.s0 + b * q_at.s1 + kv * GROUP * q_at.s2,
                          q_at.s3, q_at.s2);
    ATTEND_OWN(&w, at)
    attend_apart(&w, &t, apart_before(t.f, apart, head, at.past));
    trees_reach(&t, at, covariances + head * (chunks / RUN) * D * DV);
    if (at.past)
        attend_far(&w, &t, !OWN, tolerance, limit);

    for (uint r = 0; r < SPAN * GROUP; ++r) {
        int i = at.i0 + (int)(r % SPAN);
        uint h = kv * GROUP + r / SPAN;
        if (!w.bit[r / 32][r])
            continue;
        float inverse = tile_scale(&w.t, r);
        for (uint d = 0; d < DV; d += 16) {
            float16 x = VECTOR(w.t.sum + r * DV + d) * inverse;
            STORE16(OUT_TYPE, out, out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3 + d, x);
        }
        STORE(LSE_TYPE, lse, lse_at.s0 + b * lse_at.s1 + h * lse_at.s2 + i * lse_at.s3, tile_lse(&w.t, r));
#if COUNTED
        exact[exact_at.s0 + b * exact_at.s1 + h * exact_at.s2 + i * exact_at.s3] = exact_keys(&w, r);
#endif
#if ESTIMATED
        float estimate = row_expects(&w, r);
        STORE(ERROR_TYPE, error, error_at.s0 + b * error_at.s1 + h * error_at.s2 + i * error_at.s3, estimate);
#endif
#if KEPT
        KEEP(kept + KEPT_NUMBERS * (((INDEX)b * (get_global_size(1) * GROUP) + h) * queries + i), w.t.top[r],
             w.inverse_size[r], w.limit[r], 0.0f);
#endif
    }
}
