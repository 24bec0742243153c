/* Near-far attention: softmax attention over a forest (op_forest in src/op/op.h), opened where it matters.
 *
 *     closed node n:  l = ln mass + q'·c + lift     value: mean v     q' = scale q
 *     key:            l = q'·k + b                  value: v
 *
 * with the variance of a node's logits Σ_d q'_d² C_d, or its share of that.
 *
 * A row takes exactly its own chunk's keys and those that stand apart (apart.cl), then the nodes it starts from
 * (roots) closed: that fixes the mass Z and the size of the output against which errors are measured. Then it walks
 * from each root and opens a node while
 *
 *     e^(l + hidden_mass) / Z · node_error > accepted_error         (near_far.clh)
 *
 * What closed leaves miss of how their values follow the logits is partly the same in all, and that part is put
 * right: the row's sum gets (Σ e^l · slope of its closed leaves) · Wᵀ q', with W the covariances of the runs before
 * its own chunk.
 *
 * The errors e = e^l / Z · node_error of what is closed in the end add up to the row's. With a limit on exact keys a
 * walk before that counts the keys by the least error on their path, in steps of 2^¼, and only what lies above the
 * step that fits is opened.
 *
 * Strictly causal: a row's roots are the nodes wholly before its own chunk, everything else it reads is its own.
 *
 * Shapes: q [B,H,N,D], k and v of the own chunks from key first_key on, out [B,H,N,DV], lse, exact_keys, error [B,H,N].
 * Work: one work-item a query; grid (N rounded up to WG, H, B). No local memory, no barrier. */
#include "shared/tensor.clh"
#include "shared/state.clh"
#include "tree/forest.clh"
#include "tree/near_far.clh"
#include "tree/near_far_args.clh"
#include "tree/near_far_notes.clh"

/* Loops over columns: as the compiler sees fit, but with EAGER=0 8 at a time, since AMD's unrolls all of them, into
 * four times the registers. */
#if !defined(EAGER) || EAGER
#define UNROLL_COLUMNS
#else
#define UNROLL_COLUMNS _Pragma("unroll 8")
#endif

/* Steps of 2^¼ of a path's least error, relative to the output. */
#define STEPS 128
#define STEP_LEAST -24.0f

typedef struct walker {
    float q[D];         /* scaled */
    uint past;          /* chunks */
    uint covered;       /* slots that have keys for this row, or are padding */
    bool rest;          /* the highest level's last node may be a part */
    float mass;         /* lse after the roots */
    float inverse_size; /* of the output after the roots */
    float accepted;
    bool all;           /* open everything */
    uint step;          /* and nothing whose step is below this */
    float squares, sum; /* of the errors of closed nodes */
    float slopes;       /* ln Σ e^l · slope of closed leaves */
    uint exact;
#if NOTED
    global uint *notes; /* of chunk 0 */
    uint pitch;         /* to those of the next */
#endif
} walker;

static inline float dot_lanes(private const float *q, global const ELEMENT(FOREST_TYPE) *x) {
    float sum = 0.0f;
    UNROLL_COLUMNS
    for (uint d = 0; d < D; ++d)
        sum = MAD(q[d], LOAD(FOREST_TYPE, x, d * 16), sum);
    return sum;
}

static inline float logit_variance(private const float *q, global const float *x) {
    float sum = 0.0f;
    UNROLL_COLUMNS
    for (uint d = 0; d < D; ++d)
        sum = MAD(q[d] * q[d], x[d * 16], sum);
    return sum;
}

static inline void add_values(private state *row, float l, global const ELEMENT(FOREST_TYPE) *values) {
    float weight = state_admit(row, l);
    for (uint d = 0; d < DV; ++d)
        row->sum[d] = MAD(weight, LOAD(FOREST_TYPE, values, d), row->sum[d]);
}

static inline float log_add(float a, float b) {
    return fmax(a, b) + log1p(exp(-fabs(a - b)));
}

/* A node as a row sees it. */
typedef struct node_view {
    float l, variance, spread, slope, count, hidden;
    float error; /* what it costs to leave it closed */
    uint step;
    INDEX value;
} node_view;

static inline node_view look_at(private const walker *w, private const trees *t, uint level, uint g, float whole) {
    uint first = first_block_of(t->f.first_block, level);
    global const float *stat = t->stats + lane_of(first, g, STATS);
    node_view s;
    s.variance = whole * stat[VARIANCE * 16];
    if (level >= TOP)
        s.variance = logit_variance(w->q, t->variances + lane_of(first - t->f.below, g, D));
    float knee = knee_of(size_shift(level)), lifted = lift(s.variance, knee);
    s.l = dot_lanes(w->q, t->means + lane_of(first, g, D)) + stat[LOG_MASS * 16] + lifted;
    s.spread = stat[SPREAD * 16];
    s.slope = slope_of(stat[VARIANCE * 16], s.spread);
    s.count = stat[COUNT * 16];
    s.hidden = hidden_mass(s.variance, outlier_of(stat[REACH * 16], level), s.count, lifted);
    s.value = ((INDEX)first * 16 + g) * DV;
    return s;
}

/* A number that grows with the error, so that counting and opening agree to the bit. */
static inline uint step_of(float error) {
    float steps = 4.0f * (log2(error) - STEP_LEAST);
    return isnan(steps) ? 0 : (uint)clamp(steps, 0.0f, STEPS - 1.0f);
}

/* The keys in slots begin to end − 1. */
static inline void open_keys(private const walker *w, private const trees *t, private state *row, uint begin,
                             uint end) {
    for (uint s = begin; s < end; ++s) {
        float l = t->biases[s];
        if (l == -INFINITY)
            continue;
        global const ELEMENT(FOREST_TYPE) *key = t->keys + lane_of(0, s, D);
        float product = 0.0f;
        for (uint d = 0; d < D; ++d)
            product = MAD(w->q[d], LOAD(FOREST_TYPE, key, d * 16), product);
        l += product;
        if (l == -INFINITY)
            continue;
        float weight = state_admit(row, l);
        for (uint d = 0; d < DV; ++d)
            row->sum[d] = MAD(weight, LOAD(FOREST_TYPE, t->values, (INDEX)s * DV + d), row->sum[d]);
    }
}

/* Whether the row opens node g of a level. `counting`: by their steps, which are needed then. */
static inline bool opens(private const walker *w, uint level, uint g, bool counting, private node_view *s) {
    if (g << size_shift(level) >= w->covered) { /* beyond the last chunk: never written */
        s->l = -INFINITY;
        s->count = 0.0f;
    }
    float factor = node_error(s->variance, s->spread * w->inverse_size), beside = s->l - w->mass;
    float most = exp(beside + s->hidden) * factor;
    s->error = exp(beside) * factor;
    s->step = counting || w->step ? step_of(most) : 0;
    return s->count > 0.0f && (w->all ? s->variance > 0.0f : most > w->accepted) && s->step >= w->step;
}

/* The node that a walk under a root comes to after g and all below it. */
static inline void leave(private uint *level, private uint *g, uint root_level) {
    ++*g;
    while (*level < root_level && (*g & ((1u << fan_shift(*level + 1)) - 1)) == 0) {
        *g >>= fan_shift(*level + 1);
        ++*level;
    }
}

/* Walks through the tree under a root. `steps`: counts keys by their step, and adds nothing to the row. Returns: what a
 * row notes of the root, if that is a chunk. */
static inline uint walk(private walker *w, private const trees *t, private state *row, uint root_level, uint root,
                        private uint *steps) {
    uint level = root_level, g = root, least[FOREST_LEVELS], note = 0;
    float whole = 0.0f;
    do {
        node_view s = look_at(w, t, level, g, whole);
        bool open = opens(w, level, g, steps != 0, &s);
        if (level == TOP)
            whole = s.variance;
        if (level == root_level)
            note = open ? NOTE_OPEN : s.l > -INFINITY ? NOTE_CLOSED : 0;
        if (steps)
            least[level] = level == root_level ? s.step : min(s.step, least[level + 1]);
        if (open && level > 0) {
            g <<= fan_shift(level);
            --level;
            continue;
        }
        if (open && steps)
            steps[least[0]] += (uint)s.count;
        else if (open) {
            w->exact += (uint)s.count;
            note |= 1u << g % 16;
            open_keys(w, t, row, g * LEAF, (g + 1) * LEAF);
        } else if (!steps && s.l > -INFINITY) {
            add_values(row, s.l, t->mean_values + s.value);
            if (level == 0 && s.slope > 0.0f)
                w->slopes = log_add(w->slopes, s.l + log(s.slope));
            if (s.error > 0.0f) {
                w->squares = MAD(s.error, s.error, w->squares);
                w->sum += s.error;
            }
        }
        leave(&level, &g, root_level);
    } while (level < root_level);
    return note;
}

/* The nodes of a level that a row starts from: those after what the levels above cover. */
static inline uint2 roots_of(private const walker *w, private const trees *t, uint level, uint highest) {
    uint shift = size_shift(level), before = 0;
    if (level < highest)
        before = w->covered >> size_shift(level + 1) << (size_shift(level + 1) - shift);
    uint end = w->covered >> shift;
    if (level == highest && w->rest)
        return (uint2)(0, (w->covered + (1u << shift) - 1) >> shift);
    return (uint2)(before, level < highest && w->rest ? before : end);
}

/* How far values are from the means of their chunks. */
static inline float spread_of_values(private const walker *w, private const trees *t) {
    float sum = 0.0f, keys = 0.0f;
    for (uint g = 0; g < w->past; ++g) {
        global const float *stat = t->stats + lane_of(first_block_of(t->f.first_block, TOP), g, STATS);
        sum = MAD(stat[COUNT * 16], stat[SPREAD * 16], sum);
        keys += stat[COUNT * 16];
    }
    return keys > 0.0f ? sum / keys : 0.0f;
}

/* The norm of `inverse` times DV numbers, whatever their size. */
static inline float norm_of(private const float *x, float inverse) {
    float unit = 0.0f, sum = 0.0f;
    for (uint d = 0; d < DV; ++d)
        unit = fmax(unit, fabs(x[d]));
    for (uint d = 0; d < DV && unit > 0.0f; ++d)
        sum = MAD(x[d] / unit, x[d] / unit, sum);
    return unit * inverse * sqrt(sum);
}

/* All roots closed: where the row's mass and its output's size come from. */
static inline void root_pass(private walker *w, private const trees *t, private const state *own, uint highest) {
    state row = *own;
    for (uint level = highest + 1; level-- > TOP;) {
        uint2 roots = roots_of(w, t, level, highest);
        for (uint g = roots.x; g < roots.y; ++g) {
            node_view s = look_at(w, t, level, g, 0.0f);
            if (s.l > -INFINITY)
                add_values(&row, s.l - doubtful_lift(s.variance, knee_of(size_shift(level))), t->mean_values + s.value);
        }
    }
    w->mass = log_mass(&row);
    w->inverse_size = inverse_of(norm_of(row.sum, inverse_mass(&row)));
}

/* The least step that leaves at most `room` keys. */
static inline uint step_for(private const uint *steps, uint room) {
    uint step = STEPS;
    while (step > 0 && steps[step - 1] <= room) {
        room -= steps[step - 1];
        --step;
    }
    return step;
}

/* Moves the values of closed leaves by what they follow the logits on average. */
static inline void add_covariance_term(private const walker *w, global const float *covariance, private state *row) {
    float covariance_term[DV], square = 0.0f;
    for (uint e = 0; e < DV; ++e) {
        covariance_term[e] = 0.0f;
        for (uint d = 0; d < D; ++d)
            covariance_term[e] = MAD(w->q[d], covariance[d * DV + e], covariance_term[e]);
        square = MAD(covariance_term[e], covariance_term[e], square);
    }
    float share = exp(w->slopes - row->top) * covariance_term_share(square);
    for (uint e = 0; e < DV; ++e)
        row->sum[e] = MAD(share, covariance_term[e], row->sum[e]);
}

/* From all roots down. `steps`: counts keys by their step, and adds nothing to the row. */
static inline void descend(private walker *w, private const trees *t, private state *row, uint highest,
                           private uint *steps) {
    for (uint level = highest + 1; level-- > TOP;) {
        uint2 roots = roots_of(w, t, level, highest);
        for (uint g = roots.x; g < roots.y; ++g) {
            uint note = walk(w, t, row, level, g, steps);
#if NOTED
            if (!steps)
                w->notes[(INDEX)g * w->pitch] = note;
#else
            (void)note;
#endif
        }
    }
}

/* The error that a row expects, with what it has opened so far. */
static inline float row_expects(private const walker *w, private const state *row) {
    return expected_error(w->squares, w->sum, exp(w->mass - log_mass(row)),
                          w->inverse_size * norm_of(row->sum, inverse_mass(row)));
}

/* Far keys, at most `room` of them exactly. */
static inline void attend_far(private walker *w, private const trees *t, private state *row, float tolerance,
                              uint room) {
    uint highest = highest_level(t->f.levels, w->past), exact = w->exact;
    root_pass(w, t, row, highest);
    w->all = tolerance == 0.0f;
    w->accepted = accepted_error(tolerance, spread_of_values(w, t) * w->inverse_size, w->past);
    w->step = 0;
    if (room < w->covered) {
        uint steps[STEPS];
        for (uint s = 0; s < STEPS; ++s)
            steps[s] = 0;
        descend(w, t, row, highest, steps);
        w->step = step_for(steps, room);
    }
    state start = *row;
    for (uint again = 0; again < 2; ++again) {
        *row = start;
        w->exact = exact;
        w->squares = w->sum = 0.0f;
        w->slopes = -INFINITY;
        descend(w, t, row, highest, 0);
        float expected = row_expects(w, row);
        if (again || !(expected > tolerance) || room < w->covered)
            break;
        w->accepted *= second_share(tolerance, expected);
    }
    if (t->covariance && w->slopes > -INFINITY)
        add_covariance_term(w, t->covariance, row);
}

#ifndef ROWS_ALONE /* by those who need no kernel */
#include "tree/near_far_own.clh"

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void near_far(INPUTS, RESULTS) {
    uint i = get_global_id(0), h = get_global_id(1), b = get_global_id(2), kv = h / group;
    if (i >= queries)
        return;
    trees t = TREES;
    INDEX head = (INDEX)b * (get_global_size(1) / group) + kv;
    trees_move(&t, head);
    walker w;
    state row;
    state_clear(&row);
    q += q_at.s0 + b * q_at.s1 + h * q_at.s2 + i * q_at.s3;
    for (uint d = 0; d < D; ++d)
        w.q[d] = scale * LOAD(Q_TYPE, q, d);
    w.squares = w.sum = 0.0f;
    w.slopes = -INFINITY;
    w.exact = 0;
    uint visible = visible_keys(i, diagonal, keys);
#if OWN
    w.past = visible ? (visible - 1) / CHUNK : 0;
    w.rest = false;
    INDEX own = w.past * CHUNK - first_key;
    attend_own(&w, &row, visible - w.past * CHUNK, k + k_at.s0 + b * k_at.s1 + kv * k_at.s2 + own * k_at.s3, k_at.s3,
               v + v_at.s0 + b * v_at.s1 + kv * v_at.s2 + own * v_at.s3, v_at.s3 OWN_BIAS);
#else
    w.past = (visible + CHUNK - 1) / CHUNK;
    w.rest = true;
#endif
    w.covered = w.past * CHUNK;
    uint apart_keys = apart_before(t.f, apart, head, w.past);
    open_keys(&w, &t, &row, chunks * CHUNK, chunks * CHUNK + apart_keys);
    w.exact += apart_keys;
    uint runs = min(w.past, visible / CHUNK) / RUN;
    if (runs > 0)
        t.covariance = covariances + (head * (chunks / RUN) + runs - 1) * D * DV;
    w.mass = w.inverse_size = w.accepted = 0.0f;
    w.step = 0;
#if NOTED
    w.notes = notes + (((INDEX)b * get_global_size(1) + h) * chunks * queries + i);
    w.pitch = queries;
#endif
    if (w.past)
        attend_far(&w, &t, &row, tolerance, limit ? (limit > w.exact ? limit - w.exact : 0) : w.covered);

    float inverse = inverse_mass(&row);
    for (uint d = 0; d < DV; ++d)
        STORE(OUT_TYPE, out, out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3 + d, row.sum[d] * inverse);
    STORE(LSE_TYPE, lse, lse_at.s0 + b * lse_at.s1 + h * lse_at.s2 + i * lse_at.s3, log_mass(&row));
#if COUNTED
    exact[exact_at.s0 + b * exact_at.s1 + h * exact_at.s2 + i * exact_at.s3] = w.exact;
#endif
#if ESTIMATED
    float estimate = row_expects(&w, &row);
    STORE(ERROR_TYPE, error, error_at.s0 + b * error_at.s1 + h * error_at.s2 + i * error_at.s3, estimate);
#endif
#if KEPT
    KEEP(kept + KEPT_NUMBERS * (((INDEX)b * get_global_size(1) + h) * queries + i), w.mass, w.inverse_size, w.accepted,
         w.step);
#endif
}
#endif
