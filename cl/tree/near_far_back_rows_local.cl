/* Gradients of near-far attention for the queries, and what later kernels need of each row (near_far_back.clh), in
 * tiles of local memory (local_rows.clh), for GPUs of any vendor; as near_far_back_rows.cl, but by what rows noted in
 * the forward pass.
 *
 * A group has ROWS rows, consecutive tokens of a head, and takes steps of SOURCES sources: keys of the own chunk, keys
 * apart, the variances of chunks, chunks, of those that some row opened the leaves, and of those the keys; at last the
 * variances of chunks again, with what they received. There is one body for all kinds of steps.
 *
 * Shapes: as near_far.cl; out, lse and notes are those of the forward pass with the same inputs; dout as out, dq as q,
 * row_numbers [B,H,N,ROW_NUMBERS], covariance_terms (τ) [B,H,N,DV]; spreads as notes: the variance of a row's logits in
 * a chunk before its own; spreads_back: what that receives.
 * Needs ROWS ≤ CHUNK, a power of two, as SOURCES is. Work: a group a tile, which begins at a multiple of ROWS in the
 * positions of keys, those with the longest past first, grid (tiles · WG, H, B). Local memory: 37 KiB for D = DV = 64,
 * TY 8 and CT 2. */
#include "shared/local_rows.clh"
#include "tree/forest.clh"
#include "tree/near_far.clh"
#include "tree/near_far_args.clh"
#include "tree/near_far_back.clh"
#include "tree/near_far_notes.clh"
#include "tree/near_far_tiles.clh"

#include "tree/near_far_back_rows_local.clh"

/* Rows of the tile, times a factor. */
#define TILE_LOAD(type, to, from, pitch, columns, factor, s)                                                           \
    for (uint e_ = get_local_id(0); e_ < ROWS * (PITCH(columns) - 4); e_ += WG) {                                      \
        uint d_ = e_ % (PITCH(columns) - 4), r_ = e_ / (PITCH(columns) - 4);                                           \
        uint i_ = min((uint)((s)->first + (int)r_), (s)->queries - 1);                                                 \
        (to)[r_ * PITCH(columns) + d_] = d_ < (columns) ? (factor)*LOAD(type, from, i_ * (pitch) + d_) : 0.0f;         \
    }

/* The sum of the items' shares in each row, in place. */
INLINED void rows_total(private float own[RT], private const stage *s) {
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL
    for (uint a = 0; a < RT; ++a)
        s->meeting[(s->y + TY * a) * TX + s->x] = own[a];
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL
    for (uint a = 0; a < RT; ++a) {
        own[a] = 0.0f;
        UNROLL
        for (uint i = 0; i < TX; ++i)
            own[a] += s->meeting[(s->y + TY * a) * TX + i];
    }
}

/* Columns begin… of the rows as weights, `from` of `pitch`. */
INLINED void columns_pass(private const stage *s, local const float *from, uint pitch, uint begin, uint columns) {
    for (uint e = get_local_id(0); e < SOURCES * ROWS; e += WG) {
        uint j = e % SOURCES, r = e / SOURCES;
        s->weights[PLACE_OF(j, r)] = begin + j < columns ? from[r * pitch + begin + j] : 0.0f;
    }
}

/* t of the rows. `columns`: D, or 0 where there are no covariances. */
INLINED void covariance_terms_make(float4 terms[RT][VECTORS(DV)], private const stage *s,
                                   global const float *covariance, uint columns) {
    SUMS_CLEAR(terms, DV)
    for (uint begin = 0; begin < columns; begin += SOURCES) {
        barrier(CLK_LOCAL_MEM_FENCE);
        columns_pass(s, s->rows, PITCH(D), begin, D);
        ROWS_LOAD(F32, s->source_gains, covariance, DV, DV, begin, SOURCES, (uint)D)
        barrier(CLK_LOCAL_MEM_FENCE);
        SUMS_ADD(terms, s->x, s->y, s->weights, s->source_gains, DV)
    }
}

/* W τ, τ in place of dout. `columns`: DV, or 0. */
INLINED void covariance_terms_add(private received *to, private const stage *s, global const float *covariance,
                                  uint columns) {
    for (uint begin = 0; begin < columns; begin += SOURCES) {
        barrier(CLK_LOCAL_MEM_FENCE);
        columns_pass(s, s->row_gains, PITCH(DV), begin, DV);
        for (uint e = get_local_id(0); e < SOURCES * D; e += WG)
            s->sources[e % SOURCES * PITCH(D) + e / SOURCES] =
                covariance[e / SOURCES * DV + min(begin + e % SOURCES, (uint)DV - 1)];
        barrier(CLK_LOCAL_MEM_FENCE);
        SUMS_ADD(to->sum, s->x, s->y, s->weights, s->sources, D)
    }
}

/* A row's column of an item. */
#define FOR_COLUMNS(a, c, i)                                                                                           \
    UNROLL                                                                                                             \
    for (uint a = 0; a < RT; ++a)                                                                                      \
        UNROLL                                                                                                         \
    for (uint c = 0; c < VECTORS(DV); ++c)                                                                             \
        UNROLL                                                                                                         \
    for (uint i = 0; i < 4; ++i)
#define COLUMN(s, c, i) (4 * ((s)->x + TX * (c)) + (i))

/* What the rows go by, and ρ of each. `terms`: their covariance terms, left in `covariance_terms` for later; these, out
 * and lse: of a head. */
INLINED void rows_begin(private float share[RT], private const stage *s, float4 terms[RT][VECTORS(DV)],
                        global const ELEMENT(OUT_TYPE) *out, INDEX out_pitch, global const ELEMENT(LSE_TYPE) *lse,
                        INDEX lse_pitch, global float *covariance_terms, int diagonal, uint keys) {
    float delta[RT], moved[RT], square[RT];
    UNROLL
    for (uint a = 0; a < RT; ++a)
        delta[a] = moved[a] = square[a] = 0.0f;
    FOR_COLUMNS(a, c, i) {
        float four[4];
        uint e = COLUMN(s, c, i), query = (uint)(s->first + (int)(s->y + TY * a));
        vstore4(terms[a][c], 0, four);
        if (e < DV && query < s->queries) {
            float dout = s->row_gains[(s->y + TY * a) * PITCH(DV) + e];
            delta[a] = MAD(dout, LOAD(OUT_TYPE, out, query * out_pitch + e), delta[a]);
            moved[a] = MAD(dout, four[i], moved[a]);
            square[a] = MAD(four[i], four[i], square[a]);
            covariance_terms[(INDEX)query * DV + e] = four[i];
        }
    }
    rows_total(delta, s);
    rows_total(moved, s);
    rows_total(square, s);
    UNROLL
    for (uint a = 0; a < RT; ++a) {
        int query = s->first + (int)(s->y + TY * a);
        bool there = query >= 0 && query < (int)s->queries;
        float mass = there ? LOAD(LSE_TYPE, lse, (uint)query * lse_pitch) : -INFINITY;
        share[a] = covariance_term_share(square[a]);
        if (s->x == 0)
            s->numbers[s->y + TY * a] = mass == -INFINITY ? (float4)(INFINITY, 0.0f, 0.0f, 0.0f)
                                                          : (float4)(mass, delta[a], share[a] * moved[a],
                                                                     as_float(seen_keys(query, diagonal, keys)));
    }
}

/* The rows' sums by their mass, τ in place of dout, and their numbers. */
INLINED void rows_finish(private received *to, private const stage *s, private const float share[RT],
                         global float *covariance_terms, global float *row_numbers) {
    float inverse[RT], factor[RT], along[RT];
    rows_total(to->mass, s);
    rows_total(to->slopes, s);
    UNROLL
    for (uint a = 0; a < RT; ++a) {
        uint query = (uint)(s->first + (int)(s->y + TY * a));
        float4 numbers = s->numbers[s->y + TY * a];
        inverse[a] = to->mass[a] > 0.0f ? 1.0f / to->mass[a] : 0.0f;
        factor[a] = to->slopes[a] * share[a] * inverse[a];
        along[a] = share[a] < 1.0f ? share[a] * numbers.z : 0.0f; /* ρ² dout·t */
        if (s->x == 0 && query < s->queries) {
            row_numbers[(INDEX)query * ROW_NUMBERS] = to->mass[a] == 0.0f ? INFINITY : numbers.x + log(to->mass[a]);
            row_numbers[(INDEX)query * ROW_NUMBERS + 1] = numbers.y;
            row_numbers[(INDEX)query * ROW_NUMBERS + 2] = numbers.z;
        }
        UNROLL
        for (uint c = 0; c < VECTORS(D); ++c)
            to->sum[a][c] *= inverse[a];
    }
    FOR_COLUMNS(a, c, i) {
        uint e = COLUMN(s, c, i), row = s->y + TY * a, query = (uint)(s->first + (int)row);
        if (e < DV && query < s->queries) {
            INDEX at = (INDEX)query * DV + e;
            float term = factor[a] * MAD(-along[a], covariance_terms[at], s->row_gains[row * PITCH(DV) + e]);
            covariance_terms[at] = s->row_gains[row * PITCH(DV) + e] = term;
        }
    }
}

/* The kernel's arrays and arguments. */
#define STAGE_BEGIN(s, across, along, chunk)                                                                           \
    (s).rows = rows, (s).row_gains = row_gains, (s).sources = sources, (s).source_gains = source_gains;                \
    (s).weights = weights, (s).lifts = lifts, (s).wholes = wholes, (s).meeting = meeting;                              \
    (s).notes = row_notes, (s).opened = opened, (s).numbers = numbers, (s).its = its;                                  \
    (s).x = across, (s).y = along, (s).first = first, (s).queries = queries;                                           \
    (s).noted = notes + (chunk), (s).spreads = spreads + (chunk), (s).spreads_back = spreads_back + (chunk);

kernel GROUP_SIZE void near_far_back_rows_local(INPUTS, global const ELEMENT(OUT_TYPE) *out, INDEX4 out_at,
                                                global const ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at,
                                                global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at,
                                                global ELEMENT(DQ_TYPE) *dq, INDEX4 dq_at, global float *row_numbers,
                                                global float *covariance_terms, global const uint *notes,
                                                global float *spreads, global float *spreads_back) {
    local float rows[ROWS * PITCH(D)] ALIGNED, row_gains[ROWS * PITCH(DV)] ALIGNED;
    local float sources[SOURCES * PITCH(D)] ALIGNED, source_gains[SOURCES * PITCH(DV)] ALIGNED;
    local float weights[BY_SOURCE] ALIGNED, lifts[BY_SOURCE] ALIGNED, wholes[BY_SOURCE] ALIGNED, meeting[ROWS * TX];
    local uint row_notes[BY_SOURCE], opened[SOURCES];
    local float4 numbers[ROWS];
    local source its[SOURCES];
    uint h = get_global_id(1), b = get_global_id(2), kv = h / group;
    int first = (int)((get_num_groups(0) - 1 - get_group_id(0)) * ROWS) - (OWN ? diagonal & (int)(ROWS - 1) : 0);
    stage s;
    uint seen_last = seen_keys(first + (int)ROWS - 1, diagonal, keys), past = past_of(seen_last);
    trees t = TREES;
    INDEX head = (INDEX)b * (get_global_size(1) / group) + kv, row = ((INDEX)b * get_global_size(1) + h) * queries;
    uint apart_keys = apart_before(t.f, apart, head, past), run = run_after(past, seen_last);
    float share[RT];
    float4 terms[RT][VECTORS(DV)];
    received to;
    place p = {OWN_KEYS, (OWN ? past * CHUNK : 0) - SOURCES, 0, 0, 0};
    own_keys own;
    STAGE_BEGIN(s, get_local_id(0) % TX, get_local_id(0) / TX, row * chunks)
    OWN_BEGIN(own, b, kv, seen_last)
    trees_move(&t, head);
    if (run > 0)
        t.covariance = covariances + (head * (chunks / RUN) + run - 1) * D * DV;
    q += q_at.s0 + b * q_at.s1 + h * q_at.s2;
    dout += dout_at.s0 + b * dout_at.s1 + h * dout_at.s2;
    covariance_terms += row * DV;
    received_clear(&to);
    TILE_LOAD(Q_TYPE, rows, q, q_at.s3, D, scale, &s)
    TILE_LOAD(DOUT_TYPE, row_gains, dout, dout_at.s3, DV, 1.0f, &s)
    covariance_terms_make(terms, &s, t.covariance, t.covariance ? D : 0);
    barrier(CLK_LOCAL_MEM_FENCE);
    rows_begin(share, &s, terms, out + out_at.s0 + b * out_at.s1 + h * out_at.s2, out_at.s3,
               lse + lse_at.s0 + b * lse_at.s1 + h * lse_at.s2, lse_at.s3, covariance_terms, diagonal, keys);
    for (place_move(&p, opened, own.end, apart_keys); p.kind != SPREADS || p.g < past;
         place_move(&p, opened, own.end, apart_keys))
        step(&to, &s, &p, &t, &own, past, apart_keys);
    rows_finish(&to, &s, share, covariance_terms, row_numbers + row * ROW_NUMBERS);
    covariance_terms_add(&to, &s, t.covariance, t.covariance ? DV : 0);
    dq += dq_at.s0 + b * dq_at.s1 + h * dq_at.s2;
    SUMS_STORE(DQ_TYPE, dq, dq_at.s3, to.sum, scale, s.x, s.y, (uint)first, queries, D)
}
