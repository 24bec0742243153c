/* Near-far attention in tiles of local memory (local_tile.clh), for GPUs of any vendor. Mathematics and shapes as
 * in near_far.cl, but that rows start from chunks however many there are; any storage types, float32 arithmetic.
 *
 * A group has ROWS rows, consecutive tokens of SHARE heads of a key head, and takes steps of 16 sources: keys of the
 * own chunk, keys apart, chunks, of those that some row opens the leaves, and of those the keys. As in near_far_mma.cl
 * **a row gets what itself or an earlier token of its tile opened**, and has no weight for the rest; item (x, y) has
 * the same sources of a step whatever came before. So later tokens make no difference to a row's bits. There is one
 * body for all kinds of steps, and no barrier of its own that depends on a condition: compilers copy what follows.
 *
 * The first pass, with all chunks closed, finds a row's mass and its output's size. The second opens.
 *
 * Needs CHUNK = 16 LEAF, no limit on exact keys, SHARE and ROWS / SHARE ≤ CHUNK powers of two.
 * Work: a group a tile, which begins at a multiple of ROWS / SHARE in the positions of keys; grid (tiles · WG,
 * H / SHARE, B), those with the longest past first. Local memory: queries, keys or weights and values, a few
 * numbers a row and node statistics: 15 KiB for D = DV = 64 and TY 8, 25 KiB for TY 16.
 *
 * With UNITS, products are those of AMD's or Intel's matrix units (near_far_units.clh) in place of
 * near_far_floats.clh's; all else is the same code.
 *
 * Measured (H200, bf16, H = 16 on 8 key heads, 65,536 tokens, tolerance 0.1): 99 ms where near_far_mma takes 16.7; a
 * tile takes 378 steps with keys of leaves, 61 with leaves, 17 with chunks in each pass, and three quarters of its time
 * goes into the former, which reads of local memory bound (24 bytes an item for 8 multiply-adds of a product). It was
 * 131 ms with elements loaded one by one, shuffled places of keys and two groups at a time. Without gain: the next
 * step's sources fetched during the sums (2 to 4 %, and much code), 4 items along the sources (127 ms), 8 rows an item
 * (131 ms), steps of two whole leaves, of which mostly one is open (half as long again), a third pass with smaller
 * shares, for all rows of a tile where one expects too much (twice). */
#ifndef UNITS /* whose matrix units, of units.clh; 0: none */
#define UNITS 0
#endif
#if UNITS /* TX: items that share a row */
#define RT 1
#define CT (16 / TX)
#define VALUE_COLUMN(x, c) ((c)*4 / CT * 16 + (x)*CT + (c)*4 % CT)
#define WEIGHT_SHARE(to, j, r, weight)
#else
#define CT 2
#endif
#ifndef SHARE /* heads of a tile */
#define SHARE 1
#endif
#include "shared/local_tile.clh"
#if UNITS
#undef UNROLL
#define HALF_TYPE Q_TYPE
#include "shared/mma.clh"
#endif
#include "tree/forest.clh"
#include "tree/near_far.clh"
#include "tree/near_far_together.clh"
#include "tree/near_far_args.clh"
#include "tree/near_far_notes.clh"
#include "tree/near_far_tiles.clh"

#include "tree/near_far_local.clh"

/* The norms of the rows' means. */
INLINED void rows_norm(private float norm[RT], private const rows *r, private const stage *s) {
    float most[RT], square[RT];
    barrier(CLK_LOCAL_MEM_FENCE);
    FOR_ROWS(a) {
        float4 unit = (float4)(0.0f);
        UNROLL
        for (uint c = 0; c < VT; ++c)
            unit = fmax(unit, fabs(r->sum[a][c]));
        s->shared[(s->rows.y * RT + a) * TX + s->rows.x] = fmax(fmax(unit.x, unit.y), fmax(unit.z, unit.w));
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    FOR_ROWS(a) {
        most[a] = square[a] = 0.0f;
        UNROLL
        for (uint i = 0; i < TX; ++i)
            most[a] = fmax(most[a], s->shared[(s->rows.y * RT + a) * TX + i]);
        UNROLL
        for (uint c = 0; c < VT; ++c) {
            float4 part = r->sum[a][c] / most[a];
            square[a] += most[a] > 0.0f ? dot(part, part) : 0.0f;
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    rows_total(norm, square, s->rows.x, s->rows.y, s->shared);
    FOR_ROWS(a) norm[a] = most[a] * sqrt(norm[a]);
}

/* The sum of an item's shares in each row, in place. */
INLINED void share_total(private float *share, private const stage *s) {
    float total[RT];
    barrier(CLK_LOCAL_MEM_FENCE);
    rows_total(total, share, s->rows.x, s->rows.y, s->shared);
    FOR_ROWS(a) share[a] = total[a];
}

/* How far values are from the means of their chunks, times the number of keys, and that number: shares of an item. */
INLINED float spread_of_values(private const stage *s, private const trees *t, uint past) {
    float sum = 0.0f, keys = 0.0f;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint g = get_local_id(0); g < past; g += WG) {
        global const float *stat = t->stats + lane_of(first_block_of(t->f.first_block, TOP), g, STATS);
        sum = MAD(stat[COUNT * 16], stat[SPREAD * 16], sum);
        keys += stat[COUNT * 16];
    }
    s->shared[get_local_id(0)] = sum;
    s->shared[WG + get_local_id(0)] = keys;
    barrier(CLK_LOCAL_MEM_FENCE);
    sum = keys = 0.0f;
    for (uint i = 0; i < WG; ++i) {
        sum += s->shared[i];
        keys += s->shared[WG + i];
    }
    return keys > 0.0f ? sum / keys : 0.0f;
}

/* What rows learn from a pass over which chunks were closed: their mass, and what errors are measured against. */
INLINED void view_measure(private view *w, private const float norm[RT], private const float log_mass[RT],
                          float tolerance, float spread, uint past) {
    FOR_ROWS(a) {
        w->mass[a] = log_mass[a];
        w->inverse_size[a] = inverse_of(norm[a]);
        w->accepted[a] =
            tolerance == 0.0f ? -1.0f : TOGETHER * accepted_error(tolerance, spread * w->inverse_size[a], past);
    }
}

/* The errors that rows expect of their means. */
INLINED void rows_expect(private float expected[RT], private const view *w, private const float norm[RT],
                         private const float log_mass[RT]) {
    FOR_ROWS(a)
    expected[a] = expected_error(w->squares[a], w->sum[a], exp(w->mass[a] - log_mass[a]), w->inverse_size[a] * norm[a]);
}

/* Moves the means by what values of closed leaves follow the logits on average: near_far.cl. */
INLINED void covariance_terms_add(private rows *r, private const view *w, private const float log_mass[RT],
                                  private const stage *s, global const float *covariance, uint columns) {
    rows covariance_terms;
    float square[RT];
    rows_clear(&covariance_terms);
    for (uint begin = 0; begin < columns; begin += KEYS) {
        float query[RT][CT];
        barrier(CLK_LOCAL_MEM_FENCE);
        FOR_SOURCES(c)
        FOR_ROWS(a) {
            query[a][c] = query_of(&s->rows, a, begin + CT * s->rows.x + c);
            WEIGHT_SHARE(s->shared, CT * s->rows.x + c, s->rows.y * RT + a, query[a][c]);
        }
        VALUES_LOAD(F32, s->shared + VALUES, covariance, DV, min(begin + j, (uint)D - 1))
        barrier(CLK_LOCAL_MEM_FENCE);
        sums_add(&covariance_terms, query, &s->rows, s->shared);
    }
    FOR_ROWS(a) {
        square[a] = 0.0f;
        UNROLL
        for (uint c = 0; c < VT; ++c)
            square[a] += dot(covariance_terms.sum[a][c], covariance_terms.sum[a][c]);
    }
    share_total(square, s);
    FOR_ROWS(a) {
        float share = w->slopes[a] * exp2(r->top[a] - LOG2_E * log_mass[a]) * covariance_term_share(square[a]);
        share = w->slopes[a] > 0.0f ? share : 0.0f;
        UNROLL
        for (uint c = 0; c < VT; ++c)
            r->sum[a][c] = MAD((float4)(share), covariance_terms.sum[a][c], r->sum[a][c]);
    }
}

/* A pass over everything before and in the own chunk. */
INLINED void pass_over(private rows *r, private view *w, private const stage *s, private const trees *t,
                       private const own_keys *own, uint past, uint apart_keys, bool measure) {
    float chunk[RT][CT];
    uint begin = OWN ? past * CHUNK : 0;
    place p = {OWN_KEYS, begin - 16, 0, 0, 0};
    rows_clear(r);
    FOR_SOURCES(c)
    FOR_ROWS(a) chunk[a][c] = 0.0f;
    FOR_ROWS(a) w->squares[a] = w->sum[a] = w->slopes[a] = w->exact[a] = 0.0f;
    for (place_move(&p, s->opened, own->end, apart_keys, measure); p.kind != SPREADS || p.at < past;
         place_move(&p, s->opened, own->end, apart_keys, measure))
        step(r, w, chunk, s, &p, t, own, past, apart_keys, measure);
}

/* What the rows of a tile see, and which are there. */
INLINED void view_begin(private view *w, private const stage *s, int first, uint queries, int diagonal, uint keys) {
    FOR_ROWS(a) {
        int query = first + (int)((s->rows.y * RT + a) / SHARE);
        w->seen[a] = seen_keys(query, diagonal, keys);
        w->alive[a] = query >= 0 && query < (int)queries;
        w->mass[a] = w->inverse_size[a] = w->accepted[a] = 0.0f;
    }
    if (get_local_id(0) == 0)
        *s->raise = 0;
}

/* Both passes of a tile: means and log-masses of its rows, and what they expect. */
INLINED void rows_attend(private rows *r, private view *w, private float log_mass[RT], private float expected[RT],
                         private const stage *s, private const trees *t, private const own_keys *own, float tolerance,
                         uint past, uint apart_keys, global const float *covariance) {
    float spread = spread_of_values(s, t, past), norm[RT];
    for (uint pass = past ? 0 : 1; pass < 2; ++pass) {
        pass_over(r, w, s, t, own, past, apart_keys, pass == 0);
        rows_finish(r, log_mass, s->rows.x, s->rows.y, s->shared);
        rows_norm(norm, r, s);
        if (pass == 0)
            view_measure(w, norm, log_mass, tolerance, spread, past);
    }
    share_total(w->squares, s);
    share_total(w->sum, s);
    share_total(w->slopes, s);
    share_total(w->exact, s);
    covariance_terms_add(r, w, log_mass, s, covariance, covariance ? D : 0);
#if ESTIMATED
    rows_norm(norm, r, s);
    rows_expect(expected, w, norm, log_mass);
#endif
}

kernel GROUP_SIZE ONE_WIDTH void near_far_local(INPUTS, RESULTS) {
    local float shared[SHARED] ALIGNED, stat_tile[STATS * KEYS] ALIGNED;
    local float whole[ROWS];
    local uint opened[OPENED];
    local int raise;
    stage s;
    s.shared = shared;
    s.stats = stat_tile;
    s.whole = whole;
    s.opened = opened;
    s.raise = &raise;
    ROWS_BEGIN(s.rows)
    uint h0 = get_global_id(1) * SHARE, b = get_global_id(2), kv = h0 / group;
    int first = (int)((get_num_groups(0) - 1 - get_group_id(0)) * TOKENS) - (OWN ? diagonal & (int)(TOKENS - 1) : 0);
    uint seen_last = seen_keys(first + (int)TOKENS - 1, diagonal, keys),
         past = (OWN ? max(seen_last, 1u) - 1 : keys + CHUNK - 1) / CHUNK;
    trees t = TREES;
    INDEX head = (INDEX)b * (get_global_size(1) * SHARE / group) + kv;
    uint apart_keys = apart_before(t.f, apart, head, past), runs = min(past, seen_last / CHUNK) / RUN;
    view w;
    rows r;
    float log_mass[RT], expected[RT];
    own_keys own;
    OWN_BEGIN(own, b, kv, seen_last)
    if (runs > 0)
        t.covariance = covariances + (head * (chunks / RUN) + runs - 1) * D * DV;
    trees_move(&t, head);
#if NOTED
    s.notes = notes + ((INDEX)b * get_global_size(1) * SHARE + h0) * chunks * queries;
    s.queries = queries;
    s.head = (INDEX)chunks * queries;
    s.first = first;
#endif
    queries_load(&s.rows, q + q_at.s0 + b * q_at.s1 + h0 * q_at.s2, q_at, scale, first, queries);
    view_begin(&w, &s, first, queries, diagonal, keys);
    rows_attend(&r, &w, log_mass, expected, &s, &t, &own, tolerance, past, apart_keys, t.covariance);
    FOR_ROWS(a) {
        uint row = s.rows.y * RT + a, h = h0 + row % SHARE, query = (uint)(first + (int)(row / SHARE));
        if (!w.alive[a])
            continue;
        ROW_STORE(OUT_TYPE, out + out_at.s0 + b * out_at.s1 + h * out_at.s2 + query * out_at.s3, r, a, s.rows.x)
        if (s.rows.x > 0)
            continue;
        STORE(LSE_TYPE, lse, lse_at.s0 + b * lse_at.s1 + h * lse_at.s2 + query * lse_at.s3, log_mass[a]);
#if COUNTED
        exact[exact_at.s0 + b * exact_at.s1 + h * exact_at.s2 + query * exact_at.s3] = (int)w.exact[a];
#endif
#if ESTIMATED
        STORE(ERROR_TYPE, error, error_at.s0 + b * error_at.s1 + h * error_at.s2 + query * error_at.s3, expected[a]);
#endif
    }
}
