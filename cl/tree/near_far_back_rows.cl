/* Gradients of near-far attention for the queries, and what later kernels need of each row: near_far_back.clh.
 *
 * Shapes: as near_far.cl; out and lse are those of the forward pass with the same inputs, kept what it decided by; dout
 * as out, dq as q, row_numbers [B,H,N,ROW_NUMBERS], covariance_terms (τ) [B,H,N,DV].
 * Work: one work-item a query, grid (N rounded up to WG, H, B). No local memory, no barrier. */
#define ROWS_ALONE
#include "tree/near_far.cl"
#include "tree/near_far_back.clh"

typedef struct receiver {
    float dout[DV], lse, delta, moved, below;
    float dq[D], mass, slopes;
} receiver;

static inline void add_lanes(private float *x, float a, global const ELEMENT(FOREST_TYPE) *y) {
    UNROLL_COLUMNS
    for (uint d = 0; d < D; ++d)
        x[d] = MAD(a, LOAD(FOREST_TYPE, y, d * 16), x[d]);
}

static inline void receive_key(private receiver *r, private const walker *w, private const trees *t, uint slot,
                               float lambda, float p) {
    r->mass += p;
    add_lanes(r->dq, lambda, t->keys + lane_of(0, slot, D));
}

static inline void receive_node(private receiver *r, private const walker *w, private const trees *t, uint level,
                                uint g, float lambda, float p) {
    r->mass += p;
    add_lanes(r->dq, lambda, t->means + lane_of(first_block_of(t->f.first_block, level), g, D));
}

static inline void receive_slope(private receiver *r, private const walker *w, private const trees *t, uint g,
                                 float slope, float p) {
    r->slopes += slope;
}

static inline void receive_variance(private receiver *r, private const walker *w, private const trees *t, uint level,
                                    uint g, float lifted) {
    global const float *variance = t->variances + lane_of(first_block_of(t->f.first_block, level) - t->f.below, g, D);
    UNROLL_COLUMNS
    for (uint d = 0; d < D; ++d)
        r->dq[d] = MAD(2.0f * lifted * w->q[d], variance[d * 16], r->dq[d]);
}

static inline void receive_share(private receiver *r, private const walker *w, private const trees *t, uint level,
                                 uint g, float lifted, float whole) {}

static inline void receive_chunk(private receiver *r, private const walker *w, private const trees *t, uint g,
                                 float below) {
    receive_variance(r, w, t, TOP, g, below);
}

#include "tree/near_far_back_walk.clh"

/* t of a row, and how much of it counts. */
static inline float covariance_term_of(private const walker *w, private const trees *t,
                                       private float *covariance_term) {
    float square = 0.0f;
    UNROLL_COLUMNS
    for (uint e = 0; e < DV; ++e) {
        covariance_term[e] = 0.0f;
        UNROLL_COLUMNS
        for (uint d = 0; d < D && t->covariance; ++d)
            covariance_term[e] = MAD(w->q[d], t->covariance[d * DV + e], covariance_term[e]);
        square = MAD(covariance_term[e], covariance_term[e], square);
    }
    return covariance_term_share(square);
}

/* Everything that the row opened or left closed before its own chunk. */
static inline void receive_all(private receiver *r, private const walker *w, private const trees *t) {
    uint highest = highest_level(t->f.levels, w->past);
    for (uint root_level = highest + 1; root_level-- > TOP;) {
        uint2 roots = roots_of(w, t, root_level, highest);
        for (uint root = roots.x; root < roots.y; ++root) {
            uint level = root_level, g = root;
            do {
                if (receive_from(r, w, t, level, g) && level > TOP) {
                    g <<= fan_shift(level);
                    --level;
                    continue;
                }
                leave(&level, &g, root_level);
            } while (level < root_level);
        }
    }
}

/* What t receives: τ, which replaces it. */
static inline void covariance_term_back(private const receiver *r, float share, private float *covariance_term) {
    float along = share < 1.0f ? share * r->moved : 0.0f; /* ρ² dout·t */
    UNROLL_COLUMNS
    for (uint e = 0; e < DV; ++e)
        covariance_term[e] = r->slopes * share * MAD(-along, covariance_term[e], r->dout[e]);
}

#if OWN
/* A key of the own chunk with bias `l`. */
static inline void receive_own(private receiver *r, private const walker *w, float l, global const ELEMENT(K_TYPE) *key,
                               global const ELEMENT(V_TYPE) *value) {
    float gain = 0.0f;
    UNROLL_COLUMNS
    for (uint d = 0; d < D; ++d)
        l = MAD(w->q[d], LOAD(K_TYPE, key, d), l);
    UNROLL_COLUMNS
    for (uint d = 0; d < DV; ++d)
        gain = MAD(r->dout[d], LOAD(V_TYPE, value, d), gain);
    float p = exp(l - r->lse), lambda = p * (gain - r->delta);
    r->mass += p;
    UNROLL_COLUMNS
    for (uint d = 0; d < D; ++d)
        r->dq[d] = MAD(lambda, LOAD(K_TYPE, key, d), r->dq[d]);
}
#endif

/* All that it sees. */
static inline void receive_own_keys(private receiver *r, private const walker *w, private const own_keys *own) {
#if OWN
    for (uint j = w->covered; j < own->end; ++j) {
        uint at = j - own->first_key;
        float l = 0.0f;
#if BIAS
        l = LOAD(BIAS_TYPE, own->bias, at * own->bias_pitch);
#endif
        if (l > -INFINITY)
            receive_own(r, w, l, own->k + at * own->k_pitch, own->v + at * own->v_pitch);
    }
#endif
}

static inline void receiver_begin(private receiver *r, global const ELEMENT(DOUT_TYPE) *dout,
                                  global const ELEMENT(OUT_TYPE) *out, float lse) {
    r->lse = lse;
    r->delta = r->moved = r->mass = r->slopes = 0.0f;
    UNROLL_COLUMNS
    for (uint d = 0; d < D; ++d)
        r->dq[d] = 0.0f;
    UNROLL_COLUMNS
    for (uint e = 0; e < DV; ++e) {
        r->dout[e] = LOAD(DOUT_TYPE, dout, e);
        r->delta = MAD(r->dout[e], LOAD(OUT_TYPE, out, e), r->delta);
    }
}

/* dq and τ of a row, by its mass. */
static inline void write_row(private const receiver *r, private const trees *t, float scale,
                             private float *covariance_term, global float *covariance_terms,
                             global ELEMENT(DQ_TYPE) *dq) {
    float inverse = r->mass > 0.0f ? 1.0f / r->mass : 0.0f;
    UNROLL_COLUMNS
    for (uint e = 0; e < DV; ++e)
        covariance_terms[e] = covariance_term[e] *= inverse;
    UNROLL_COLUMNS
    for (uint d = 0; d < D; ++d) {
        float sum = r->dq[d] * inverse;
        UNROLL_COLUMNS
        for (uint e = 0; e < DV && t->covariance; ++e)
            sum = MAD(t->covariance[d * DV + e], covariance_term[e], sum);
        STORE(DQ_TYPE, dq, d, scale * sum);
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
near_far_back_rows(INPUTS, global const ELEMENT(OUT_TYPE) *out, INDEX4 out_at, global const ELEMENT(LSE_TYPE) *lse,
                   INDEX4 lse_at, global const float *kept, global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at,
                   global ELEMENT(DQ_TYPE) *dq, INDEX4 dq_at, global float *row_numbers,
                   global float *covariance_terms) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2), kv = h / group;
    if (i >= queries)
        return;
    trees t = TREES;
    INDEX head = (INDEX)b * (get_global_size(1) / group) + kv, row = ((INDEX)b * get_global_size(1) + h) * queries + i;
    trees_move(&t, head);
    walker w;
    receiver r;
    float covariance_term[DV], share;
    uint visible = visible_keys(i, diagonal, keys);
    recall(&w, q + q_at.s0 + b * q_at.s1 + h * q_at.s2 + i * q_at.s3, scale, visible, tolerance,
           kept + KEPT_NUMBERS * row);
    receiver_begin(&r, dout + dout_at.s0 + b * dout_at.s1 + h * dout_at.s2 + i * dout_at.s3,
                   out + out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3,
                   LOAD(LSE_TYPE, lse, lse_at.s0 + b * lse_at.s1 + h * lse_at.s2 + i * lse_at.s3));
    uint run = run_after(w.past, visible);
    if (run > 0)
        t.covariance = covariances + (head * (chunks / RUN) + run - 1) * D * DV;
    share = covariance_term_of(&w, &t, covariance_term);
    UNROLL_COLUMNS
    for (uint e = 0; e < DV; ++e)
        r.moved = MAD(r.dout[e], share * covariance_term[e], r.moved);
    bool there = r.lse > -INFINITY || isnan(r.lse);
    own_keys own;
    OWN_BEGIN(own, b, kv, visible)
    if (there) {
        receive_own_keys(&r, &w, &own);
        receive_keys(&r, &w, &t, chunks * CHUNK, chunks * CHUNK + apart_before(t.f, apart, head, w.past));
        if (w.past)
            receive_all(&r, &w, &t);
    }
    covariance_term_back(&r, share, covariance_term);

    write_row(&r, &t, scale, covariance_term, covariance_terms + row * DV,
              dq + dq_at.s0 + b * dq_at.s1 + h * dq_at.s2 + i * dq_at.s3);
    row_numbers += ROW_NUMBERS * row;
    row_numbers[0] = r.mass == 0.0f ? INFINITY : r.lse + log(r.mass);
    row_numbers[1] = r.delta;
    row_numbers[2] = r.moved;
}
