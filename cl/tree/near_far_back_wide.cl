/* Gradients of near-far attention (near_far_back.clh) in tiles of rows, for CPUs: the way through the trees once more,
 * by what near_far_wide.cl decided by, and what the rows meet there receives of them at once.
 *
 * A work-item has the tiles `range`, range + ranges, … of a key head, with sums of its own; near_far_back_add
 * (near_far_back_turn.cl) adds the ranges' in their order. Everything that rows meet comes as a job: a block of 16
 * nodes or keys and the rows that came to it. A job is worked off for ROWS_AT_ONCE rows at a time, and in one place,
 * since compilers make the whole of it anew for each:
 *
 *     scores       as near_far_wide.cl has them, to the bit, and so its decisions
 *     p, λ         of keys from lse, of nodes from their weights relative to the row's base
 *     dq           [D] along the lanes: λ of each of the 16 times its row
 *     sums         [16][D + DV] along the lanes, once a job for all of its rows: λ q' and p dout
 *
 * The own chunk is softmax_backward_wide.cl's, and what there is of dq comes from there.
 *
 * Shapes: rows and lanes as near_far_back_turn.cl makes them; kept and covariance_terms as in
 * near_far_back_rows.cl; dq float32.
 * Work: grid (ranges, Hk, B), work-groups of one. */
#include "shared/tensor.clh"

#ifndef SPAN /* positions of a tile, a power of two that divides CHUNK */
#define SPAN 32
#endif
#ifndef GROUP /* query heads of a key head */
#define GROUP 2
#endif
#define ROWS_AT_ONCE 4
#define TILE ((SPAN * GROUP + 3) / 4 * 4 + 4) /* the last is nobody's: lists are filled up with it */
#define NOBODY (TILE - 1)
#define LEAF_LANES (LEAF < 4 ? 2 : 4) /* keys of a leaf at once */
#include "shared/wide.clh"
#include "shared/wide_backward.clh"
#include "tree/forest.clh"
#include "tree/near_far.clh"
#include "tree/near_far_args.clh"

#define LIMITED 0
#include "tree/near_far_rows.clh"
#include "tree/near_far_groups.clh"
#include "tree/near_far_begin.clh"
#include "tree/near_far_walk.clh"
#include "tree/near_far_back_sums.clh"
#include "tree/near_far_back_jobs.clh"

/* The lanes of a job that a row has: of keys those of its open leaves. */
static inline float16 key_weights(private const back *b, private const job *j, float16 s, uint r) {
    float16 l = s + j->bias;
    if (LEAVES > 1)
        l = select((float16)(-INFINITY), l, ((int16)((int)j->open[r]) >> (LANE / LEAF) & 1) != 0);
    return exp_weight(l - b->lse[r]);
}

/* Adds the outer products of the job's rows to its sums, lane after lane: λ q' and p dout, [rows of the list][16]. Of
 * keys a leaf's for the rows alone that opened it. */
static inline void give(private back *b, private const job *j, private const float *p, private const float *lambda) {
    float16 mass = vload16(0, j->behind);
    for (uint i = 0; i < j->count; ++i)
        mass += VECTOR(lambda + 16 * i);
    vstore16(mass, 0, j->behind);
    uint of[TILE], count = j->count;
    for (uint i = 0; i < count; ++i)
        of[i] = i;
    if (LEAVES == 1 ? true : !j->keys) {
        for (uint lane = j->begin / 4 * 4; lane < j->end; lane += 4) {
            global float *to = j->to + lane * (D + DV);
            GIVE(4, to, D + DV, lambda + lane, j->list, of, count, b->w.q, D)
            GIVE(4, to + D, D + DV, p + lane, j->list, of, count, b->dout, DV)
        }
        return;
    }
    for (uint lane = 0; lane < j->end; lane += LEAF_LANES) {
        if (lane % LEAF == 0) {
            count = 0;
            for (uint i = 0; i < j->count; ++i) {
                of[count] = i;
                count += j->open[j->list[i]] >> (lane / LEAF) & 1;
            }
        }
        if (count == 0)
            continue;
        global float *to = j->to + lane * (D + DV);
        GIVE(LEAF_LANES, to, D + DV, lambda + lane, j->list, of, count, b->w.q, D)
        GIVE(LEAF_LANES, to + D, D + DV, p + lane, j->list, of, count, b->dout, DV)
    }
}

/* Closed nodes: what their variances receive, and their slopes. `gain` becomes λ. */
static inline float16 node_gains(private back *b, private const job *j, uint r, float16 p, float16 gain,
                                 float16 deviation) {
    const nodes *n = &j->n;
    bool leaf = n->level == 0;
    int16 none = p == 0.0f;
    if (leaf)
        gain = MAD((float16)(b->moved[r]), n->slope, gain);
    float16 lambda = select(p * (gain - b->delta[r]), (float16)(0.0f), none);
    float16 slope = select(0.5f * n->knee / deviation, (float16)(0.5f), deviation <= n->knee);
    float16 lifted = select(lambda * slope, (float16)(0.0f), none);
    if (n->level >= TOP) {
        VECTOR(b->lifted + 16 * r) = lifted;
        return lambda;
    }
    float whole = b->whole[16 * r + j->top_lane];
    b->lifted[16 * r + j->top_lane] += sum16(select(lifted * n->share * n->share, (float16)(0.0f), none));
    vstore16(MAD(lifted, (float16)(whole * whole), vload16(NODE_SHARE, j->behind)), NODE_SHARE, j->behind);
    if (leaf) {
        float16 follow = vload16(NODE_SLOPE, j->behind) + p * b->moved[r];
        vstore16(select(vload16(NODE_SLOPE, j->behind), follow, n->slope > 0.0f && !none), NODE_SLOPE, j->behind);
    }
    return lambda;
}

/* A job, for the rows list[0] to list[ROWS_AT_ONCE − 1]: their p and λ, [16] each, and what they receive. */
static inline void meet(private back *b, private const job *j, private const uint *list, private float *p,
                        private float *lambda) {
    const uint N = ROWS_AT_ONCE;
  private
    const rows *w = &b->w;
    float deviations[ROWS_AT_ONCE * 16] ALIGNED;
    uint lanes = ~0u;
    if (j->scored)
        UNROLL
    for (uint a = 0; a < N; ++a) {
        VECTOR(p + 16 * a) = VECTOR(b->scores + 16 * list[a]);
        VECTOR(deviations + 16 * a) = VECTOR(b->whole + 16 * list[a]);
    }
    else {
        PRODUCTS(ROWS_AT_ONCE, s, list, j->columns)
        UNROLL
        for (uint a = 0; a < N; ++a) {
            VECTOR(p + 16 * a) = j->keys ? key_weights(b, j, s[a], list[a]) : s[a] + j->n.mass;
            VECTOR(deviations + 16 * a) = j->keys ? s[a] : j->n.share * b->whole[16 * list[a] + j->top_lane];
        }
    }
    if (!j->keys) {
        test_nodes(&b->w, &j->n, list, N, deviations, p, j->openers);
        UNROLL
        for (uint a = 0; a < N; ++a)
            VECTOR(p + 16 * a) *= b->weigh[list[a]];
    }
    float16 gain[ROWS_AT_ONCE], odd[ROWS_AT_ONCE]; /* two chains of sums */
    UNROLL
    for (uint a = 0; a < N; ++a)
        gain[a] = odd[a] = (float16)(0.0f);
    for (uint e = 0; e < DV; e += 2) {
        float16 v = vload16(e, j->lanes), next = vload16(e + 1, j->lanes);
        UNROLL
        for (uint a = 0; a < N; ++a) {
            gain[a] = MAD((float16)(b->dout[list[a] * DV + e]), v, gain[a]);
            odd[a] = MAD((float16)(b->dout[list[a] * DV + e + 1]), next, odd[a]);
        }
    }
    UNROLL
    for (uint a = 0; a < N; ++a)
        gain[a] += odd[a];
    UNROLL
    for (uint a = 0; a < N; ++a) {
        float16 weight = VECTOR(p + 16 * a);
        if (j->keys)
            VECTOR(lambda + 16 * a) = select(weight * (gain[a] - b->delta[list[a]]), (float16)(0.0f), weight == 0.0f);
        else
            VECTOR(lambda + 16 * a) = node_gains(b, j, list[a], weight, gain[a], VECTOR(deviations + 16 * a));
    }
    if (j->keys && LEAVES > 1) {
        lanes = 0;
        UNROLL
        for (uint a = 0; a < N; ++a)
            lanes |= lanes_of(j->open[list[a]]);
    }
    ADD_ROWS(b->dq, list, lambda, j->rows, j->begin, j->end, lanes)
}

/* What a job comes to after its scores is on its way from memory meanwhile. */
static inline void job_prefetch(private const job *j) {
    for (uint i = 0; i < 16 * DV; i += 16)
        PREFETCH(j->lanes + i);
    for (uint i = j->begin * D; i < j->end * D; i += 16)
        PREFETCH(j->rows + i);
    for (uint i = j->begin * (D + DV); i < j->end * (D + DV); i += 16)
        PREFETCH(j->to + i);
}

/* What the variances of a block of chunks, or above, receive, and queries of them. */
static inline void variances_back(private back *b, private const job *j) {
    const uint N = ROWS_AT_ONCE;
    for (uint r = 0; r < TILE; r += ROWS_AT_ONCE) {
        uint list[ROWS_AT_ONCE];
        float pull[ROWS_AT_ONCE * D] ALIGNED;
        UNROLL
        for (uint a = 0; a < N; ++a) {
            list[a] = a;
            for (uint d = 0; d < D; d += 16)
                VECTOR(pull + a * D + d) = (float16)(0.0f);
        }
        for (uint d = 0; d < D; ++d) {
            float16 sum = vload16(d, j->to);
            UNROLL
            for (uint a = 0; a < N; ++a)
                sum = MAD((float16)(b->w.squares[(r + a) * D + d]), VECTOR(b->lifted + 16 * (r + a)), sum);
            vstore16(sum, d, j->to);
        }
        ADD_ROWS(pull, list, b->lifted + 16 * r, j->rows, j->begin, j->end, ~0u)
        for (uint a = 0; a < N; ++a)
            for (uint d = 0; d < D; d += 16) {
                float16 twice = 2.0f * VECTOR(b->w.q + (r + a) * D + d);
                float *dq = b->dq + (r + a) * D + d;
                VECTOR(dq) = MAD(twice, VECTOR(pull + a * D + d), VECTOR(dq));
            }
    }
}

/* What a tile's rows have beside the forward pass's. */
static inline void row_begin(private back *b, uint r, float lse, global const float *kept,
                             global const ELEMENT(DOUT_TYPE) *dout, global const ELEMENT(OUT_TYPE) *out) {
    float16 delta = (float16)(0.0f);
    bool there = kept && !(lse == -INFINITY);
    for (uint e = 0; e < DV; e += 16) {
        float16 x = there ? LOAD16(DOUT_TYPE, dout, e) : (float16)(0.0f);
        VECTOR(b->dout + r * DV + e) = x;
        if (there)
            delta = MAD(x, LOAD16(OUT_TYPE, out, e), delta);
    }
    for (uint d = 0; d < D; d += 16)
        VECTOR(b->dq + r * D + d) = (float16)(0.0f);
    b->lse[r] = there ? lse : INFINITY;
    b->delta[r] = sum16(delta);
    b->moved[r] = 0.0f;
    b->w.t.top[r] = there ? kept[0] : 0.0f;
    b->weigh[r] = there ? exp(kept[0] - lse) : 0.0f;
    b->w.inverse_size[r] = there ? kept[1] : 0.0f;
    b->w.limit[r] = there ? kept[2] : INFINITY;
}

/* t of all rows, to `covariance_term` [TILE][DV], and what they gain by it. */
static inline void covariance_terms_begin(private back *b, global const float *covariance,
                                          private float *covariance_term) {
    for (uint r = 0; r < TILE; r += RT) {
        uint list[RT];
        UNROLL
        for (uint a = 0; a < RT; ++a)
            list[a] = a;
        for (uint e = 0; e < RT * DV; e += 16)
            VECTOR(covariance_term + r * DV + e) = (float16)(0.0f);
        ADD_VALUES(RT, covariance_term + r * DV, list, b->w.q + r * D, D, F32, covariance, 0, D)
        for (uint a = 0; a < RT; ++a) {
            float16 square = (float16)(0.0f), along = (float16)(0.0f);
            for (uint e = 0; e < DV; e += 16) {
                float16 t = VECTOR(covariance_term + (r + a) * DV + e);
                square = MAD(t, t, square);
                along = MAD(t, VECTOR(b->dout + (r + a) * DV + e), along);
            }
            b->share[r + a] = covariance_term_share(sum16(square));
            b->moved[r + a] = b->share[r + a] * sum16(along);
        }
    }
}

/* τ of a row, in the place of t, and what its query has of it. */
static inline void covariance_term_back(private back *b, uint r, global const float *covariance,
                                        private float *covariance_term) {
    float share = b->share[r], slopes = share * b->weigh[r] * sum16(VECTOR(b->w.slopes + 16 * r)),
          along = share < 1.0f ? share * b->moved[r] : 0.0f;
    for (uint e = 0; e < DV; e += 16)
        VECTOR(covariance_term + e) =
            slopes * MAD((float16)(-along), VECTOR(covariance_term + e), VECTOR(b->dout + r * DV + e));
    for (uint d = 0; d < D; ++d) {
        float16 sum = (float16)(0.0f);
        for (uint e = 0; e < DV; e += 16)
            sum = MAD(vload16(0, covariance + d * DV + e), VECTOR(covariance_term + e), sum);
        b->dq[r * D + d] += sum16(sum);
    }
}

/* What a row's query receives, beside what it has of its own chunk, and its τ. */
static inline void row_end(private back *b, uint r, global const float *covariance, private float *covariance_term,
                           bool own, float scale, global float *covariance_terms, global float *dq) {
    if (covariance)
        covariance_term_back(b, r, covariance, covariance_term);
    for (uint e = 0; e < DV && covariance; e += 16)
        vstore16(VECTOR(covariance_term + e), 0, covariance_terms + e);
    for (uint d = 0; d < D; d += 16) {
        float16 sum = VECTOR(b->dq + r * D + d) * scale;
        vstore16(own ? vload16(0, dq + d) + sum : sum, 0, dq + d);
    }
}

kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
near_far_back_wide(INPUTS, global const ELEMENT(OUT_TYPE) *out, INDEX4 out_at, global const ELEMENT(LSE_TYPE) *lse,
                   INDEX4 lse_at, global const float *kept, global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at,
                   global float *dq, INDEX4 dq_at, global float *covariance_terms, TURNED, SUMS) {
    uint range = get_global_id(0), kv = get_global_id(1), b = get_global_id(2);
    INDEX head = (INDEX)b * get_global_size(1) + kv, heads = (INDEX)get_global_size(1) * get_global_size(2);
    trees whole_forest = TREES;
    trees_move(&whole_forest, head);
    back x;
    float p[(TILE + ROWS_AT_ONCE) * 16] ALIGNED, lambda[(TILE + ROWS_AT_ONCE) * 16] ALIGNED; /* of a job's rows */
    turned_begin(&x, whole_forest.f, head, TURNED_ARGS);
    sums_begin(&x.sums, whole_forest.f, range * heads + head, slot_sums, node_sums, variance_sums);
    uint lead = OWN ? (uint)(diagonal & (SPAN - 1)) : 0, tiles = (lead + queries + SPAN - 1) / SPAN;
    for (uint number = range; number < tiles; number += get_global_size(0)) {
        trees t = whole_forest;
        float covariance_term[TILE * DV] ALIGNED;
        place at = rows_begin(&x.w, number, diagonal, keys, queries, scale,
                              q + q_at.s0 + b * q_at.s1 + kv * GROUP * q_at.s2, q_at.s3, q_at.s2);
        for (uint r = 0; r < TILE; ++r) {
            INDEX i = at.i0 + (int)(r % SPAN), h = kv * GROUP + r / SPAN;
            bool active = r < SPAN * GROUP && x.w.bit[r / 32][r] != 0;
            INDEX row = active ? ((INDEX)b * (get_global_size(1) * GROUP) + h) * queries + i : 0;
            row_begin(&x, r,
                      active ? LOAD(LSE_TYPE, lse, lse_at.s0 + b * lse_at.s1 + h * lse_at.s2 + i * lse_at.s3)
                             : -INFINITY,
                      active ? kept + KEPT_NUMBERS * row : 0,
                      dout + (active ? dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + i * dout_at.s3 : 0),
                      out + (active ? out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3 : 0));
        }
        x.w.all = tolerance == 0.0f;
        trees_reach(&t, at, covariances + head * (chunks / RUN) * D * DV);
        if (t.covariance)
            covariance_terms_begin(&x, t.covariance, covariance_term);
        way s;
        job j;
        way_begin(&s, at, &t, apart_before(t.f, apart, head, at.past));
        while (next_job(&s, &x, &t, &j)) {
            if (j.variances)
                variances_back(&x, &j);
            else {
                job_prefetch(&j);
                if (j.scored)
                    look_at_all(&x.w, &j.n, x.scores, x.whole);
                for (uint i = 0; i < j.count; i += ROWS_AT_ONCE)
                    meet(&x, &j, j.list + i, p + 16 * i, lambda + 16 * i);
                give(&x, &j, p, lambda);
            }
        }
        for (uint r = 0; r < SPAN * GROUP; ++r) {
            INDEX i = at.i0 + (int)(r % SPAN), h = kv * GROUP + r / SPAN;
            if (x.w.bit[r / 32][r])
                row_end(&x, r, t.covariance, covariance_term + r * DV, OWN && seen_by(at, r) > 0, scale,
                        covariance_terms + (((INDEX)b * (get_global_size(1) * GROUP) + h) * queries + i) * DV,
                        dq + dq_at.s0 + b * dq_at.s1 + h * dq_at.s2 + i * dq_at.s3);
        }
    }
}
