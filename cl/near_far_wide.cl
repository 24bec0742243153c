/* Near-far attention in register tiles (wide.clh), for CPUs. Mathematics and shapes as in near_far.cl; without a limit on exact keys.
 *
 * A work-item has TILE rows: SPAN consecutive positions, aligned so that all have the same own chunk, of the GROUP query heads of a key
 * head. Every row decides alone and does only its own work; what rows share is loads:
 *   1. The own chunk, as in softmax_wide.cl.
 *   2. All roots closed. Their scores and variances stay in private memory; they give a row's base, mass and size.
 *   3. Roots again: closed ones are added. Comparing errors with the row's limit gives, over all rows, for each of 16 nodes the set of
 *      rows that open it.
 *   4. From each root that any row opens, depth first: 16 children at a time are scored for the rows that opened their parent, in
 *      groups of 6 to 1 rows; at a leaf its keys.
 * Sums of a row are formed in the same order whatever the group, so that rows do not depend on each other by a single bit.
 *
 * A row's base, which weights are relative to, starts as a lower bound of its lse: the largest of its own keys' logits and of the roots'
 * log-weights without their lift (Jensen). What exceeds it by more than MARGIN moves it.
 *
 * Work: grid (tiles, Hk, B), the last tiles first since they have most keys; work-groups of one. */
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
#ifndef ROOT_BLOCKS /* blocks of 16 roots that there may be */
#define ROOT_BLOCKS 16
#endif

#define MARGIN 60.0f
#define MASKS ((TILE + 31) / 32)
#define LEAVES (16 / LEAF) /* in a block of keys */

/* A head's forest as a reader sees it. */
typedef struct trees {
    forest f;
    global const ELEMENT(FOREST_TYPE) *keys, *values;
    global const float *biases, *means, *variances, *mean_values, *stats;
    uint covered; /* slots that have been gathered for these rows */
} trees;

/* The rows and what they know. */
typedef struct rows {
    tile t; /* its top is the base */
    float q[TILE * D] ALIGNED, squares[TILE * D] ALIGNED;
    float error_squares[TILE * 16] ALIGNED, error_sum[TILE * 16] ALIGNED;
    float size[TILE], limit[TILE], mass[TILE]; /* after the roots; the limit of errors relative to the base */
    uint exact[TILE];
    uint active[MASKS];
    bool all;
} rows;

/* For each of 16 nodes, the rows that open it. */
typedef struct openers {
    uint of[MASKS][16] ALIGNED;
} openers;

#define UINTS(p) (*(private uint16 *)(p))

/* Moves a row's base up to `base`. */
inline void rebase(private rows *w, uint r, float base)
{
    float shrink = exp(w->t.top[r] - base);
    w->t.top[r] = base;
    w->limit[r] *= shrink;
    w->mass[r] *= shrink;
    VECTOR(w->t.mass + 16 * r) *= shrink;
    VECTOR(w->error_sum + 16 * r) *= shrink;
    VECTOR(w->error_squares + 16 * r) *= shrink * shrink;
    for (uint d = 0; d < DV; d += 16)
        VECTOR(w->t.sum + r * DV + d) *= shrink;
}

inline float16 lift16(float16 variance, float knee)
{
    return select(knee * (sqrt(variance) - 0.5f * knee), 0.5f * variance, variance <= knee * knee);
}

inline float16 node_error16(float16 variance, float16 spread, float size)
{
    float lost = MASS_ERROR * size;
    return sqrt(variance * MAD(MAD((float16)(0.5f), variance, (float16)(1.0f)), spread * spread, variance * (lost * lost)));
}

/* A block of 16 nodes. */
typedef struct nodes {
    global const float *means, *variances, *values, *stats;
    uint level, begin, end; /* lanes that are nodes; beyond them memory may hold anything */
    int16 there;            /* those with keys */
    float knee;
    float16 mass, spread, outlier, log_count;
} nodes;

#define LANE ((int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))

/* The block with node g; of it the lanes begin to end − 1, as far as they have been gathered. */
inline nodes block_of(private const trees *t, uint level, uint g, uint begin, uint end)
{
    uint block = first_block_of(t->f.first_block, level) + g / 16;
    nodes n;
    n.level = level;
    n.means = t->means + (INDEX)block * D * 16;
    n.variances = t->variances + ((INDEX)block - t->f.below) * D * 16;
    n.values = t->mean_values + (INDEX)block * DV * 16;
    n.stats = t->stats + (INDEX)block * STATS * 16;
    uint gathered = (t->covered + (1u << size_shift(level)) - 1) >> size_shift(level);
    n.begin = begin;
    n.end = min(end, gathered - g / 16 * 16);
    n.knee = knee_of(size_shift(level));
    n.mass = vload16(LOG_MASS, n.stats);
    n.spread = vload16(SPREAD, n.stats);
    n.outlier = fmax(2.0f * vload16(REACH, n.stats), OUTLIER * 2.0f * n.knee);
    n.log_count = log(vload16(COUNT, n.stats));
    n.there = LANE >= (int)n.begin && LANE < (int)n.end && vload16(COUNT, n.stats) > 0.0f;
    return n;
}

/* What row r thinks of 16 nodes: sets the bits of those it opens, adds the errors of those it closes, and returns the weights of
 * these. */
inline float16 judge(private rows *w, uint r, float16 l, float16 variance, private const nodes *n, private openers *o)
{
    int16 there = n->there;
    float16 factor = node_error16(variance, n->spread, w->size[r]), most = factor;
    float16 p = select((float16)(0.0f), exp_weight(fmin(l - w->t.top[r], MARGIN)), there);
    float16 hidden = MAD(n->outlier, sqrt(variance), -n->log_count);
    if (any(hidden > 0.0f)) /* rare */
        most *= exp(fmin(fmax(hidden - lift16(variance, n->knee), (float16)(0.0f)), MARGIN));
    int16 open = w->all ? there && variance > 0.0f : p * most > w->limit[r];
    uint bit = w->active[r / 32] & (1u << r % 32);
    UINTS(o->of[r / 32]) |= as_uint16(open) & bit;
    int16 above = there && !open && l > w->t.top[r] + MARGIN;
    if (any(above)) {
        rebase(w, r, max16(select((float16)(w->t.top[r]), l, above)));
        p = select((float16)(0.0f), exp_weight(l - w->t.top[r]), there);
    }
    float16 error = p * factor;
    error = select(error, (float16)(0.0f), open || isnan(error));
    VECTOR(w->error_sum + 16 * r) += error;
    VECTOR(w->error_squares + 16 * r) = MAD(error, error, VECTOR(w->error_squares + 16 * r));
    p = select(p, (float16)(0.0f), open);
    VECTOR(w->t.mass + 16 * r) += p;
    return p;
}

/* The products s of N rows with 16 nodes or keys; two chains of sums, whatever N. */
#define PRODUCTS(N, s, from, list, type, source)                                                       \
    float16 s[N], odd_[N];                                                                             \
    UNROLL for (uint a = 0; a < N; ++a) s[a] = odd_[a] = (float16)(0.0f);                              \
    for (uint d = 0; d < D; d += 2) {                                                                  \
        float16 x0 = LOAD16(type, source, d * 16), x1 = LOAD16(type, source, d * 16 + 16);             \
        UNROLL for (uint a = 0; a < N; ++a) {                                                          \
            s[a] = MAD((float16)((from)[(list)[a] * D + d]), x0, s[a]);                                \
            odd_[a] = MAD((float16)((from)[(list)[a] * D + d + 1]), x1, odd_[a]);                      \
        }                                                                                              \
    }                                                                                                  \
    UNROLL for (uint a = 0; a < N; ++a) s[a] += odd_[a];

/* Adds Σ_j weights[a][j] values[j] to the sums of N rows. */
#define ADD_VALUES(N, sums, list, weights, type, source, from_lane, to_lane)                                               \
    for (uint d = 0; d < DV; d += 16 * COLUMNS) {                                                      \
        float16 o[N][COLUMNS];                                                                         \
        UNROLL for (uint a = 0; a < N; ++a)                                                            \
            UNROLL for (uint c = 0; c < COLUMNS; ++c) o[a][c] = VECTOR((sums) + (list)[a] * DV + d + 16 * c); \
        for (uint j = (from_lane); j < (to_lane); ++j) {                                               \
            float16 v[COLUMNS];                                                                        \
            UNROLL for (uint c = 0; c < COLUMNS; ++c) v[c] = LOAD16(type, source, j * DV + d + 16 * c); \
            UNROLL for (uint a = 0; a < N; ++a)                                                        \
                UNROLL for (uint c = 0; c < COLUMNS; ++c)                                              \
                    o[a][c] = MAD((float16)((weights)[a * 16 + j]), v[c], o[a][c]);                    \
        }                                                                                              \
        UNROLL for (uint a = 0; a < N; ++a)                                                            \
            UNROLL for (uint c = 0; c < COLUMNS; ++c) VECTOR((sums) + (list)[a] * DV + d + 16 * c) = o[a][c]; \
    }

/* Children below chunks, for N rows that opened their parent; whole[16 row]: the variance of the row's logits in their chunk. */
#define DEFINE_VISIT(N)                                                                                \
    inline void visit_##N(private rows *w, private const nodes *n, private const uint *list, private const float *whole, private openers *o) \
    {                                                                                                  \
        PRODUCTS(N, s, w->q, list, F32, n->means)                                                      \
        float weights[N * 16] ALIGNED;                                                                 \
        float16 share = vload16(VARIANCE, n->stats);                                                   \
        UNROLL for (uint a = 0; a < N; ++a) {                                                          \
            float16 variance = share * whole[16 * list[a]];                                            \
            float16 l = s[a] + n->mass + lift16(variance, n->knee);                                    \
            VECTOR(weights + 16 * a) = judge(w, list[a], l, variance, n, o);                           \
        }                                                                                              \
        ADD_VALUES(N, w->t.sum, list, weights, F32, n->values, n->begin, n->end)                                         \
    }

/* A block of 16 keys for N rows; open[row]: which of its leaves the row opened, as bits. */
#define DEFINE_OPEN(N)                                                                                 \
    inline void open_##N(private rows *w, global const ELEMENT(FOREST_TYPE) *keys, global const ELEMENT(FOREST_TYPE) *values, \
                         float16 bias, private const uint *list, private const uint *open)             \
    {                                                                                                  \
        PRODUCTS(N, s, w->q, list, FOREST_TYPE, keys)                                                  \
        float weights[N * 16] ALIGNED;                                                                 \
        UNROLL for (uint a = 0; a < N; ++a) {                                                          \
            uint r = list[a];                                                                          \
            float16 l = s[a] + bias;                                                                   \
            if (LEAVES > 1)                                                                            \
                l = select((float16)(-INFINITY), l, ((int16)(open[a]) >> (LANE / LEAF) & 1) != 0);     \
            if (any(l > w->t.top[r] + MARGIN))                                                         \
                rebase(w, r, max16(l));                                                                \
            float16 p = exp_weight(l - w->t.top[r]);                                                   \
            VECTOR(weights + 16 * a) = p;                                                              \
            VECTOR(w->t.mass + 16 * r) += p;                                                           \
        }                                                                                              \
        ADD_VALUES(N, w->t.sum, list, weights, FOREST_TYPE, values, 0, 16)                                    \
    }

/* All of a list, the largest groups first. */
#define IN_GROUPS(count, CALL)                                                                         \
    {                                                                                                  \
        uint i = 0;                                                                                    \
        for (; i + 6 <= (count); i += 6) CALL(6)                                                       \
        switch ((count) - i) {                                                                         \
        case 5: CALL(3) i += 3; CALL(2) break;                                                         \
        case 4: CALL(4) break;                                                                         \
        case 3: CALL(3) break;                                                                         \
        case 2: CALL(2) break;                                                                         \
        case 1: CALL(1) break;                                                                         \
        default: break;                                                                                \
        }                                                                                              \
    }

DEFINE_VISIT(1) DEFINE_VISIT(2) DEFINE_VISIT(3) DEFINE_VISIT(4) DEFINE_VISIT(6)
DEFINE_OPEN(1) DEFINE_OPEN(2) DEFINE_OPEN(3) DEFINE_OPEN(4) DEFINE_OPEN(6)

/* The rows of a set, in order. */
inline uint list_rows(private const uint *set, private uint *list)
{
    uint count = 0;
    for (uint m = 0; m < MASKS; ++m)
        for (uint bits = set[m]; bits; bits &= bits - 1)
            list[count++] = 32 * m + (31 - clz(bits & -bits));
    return count;
}

/* Score and variance of all rows and 16 nodes of whole chunks, or more. */
inline void look_at_all(private const rows *w, private const nodes *n, private float *l, private float *variance)
{
    for (uint r = 0; r < TILE; r += 4) {
        float16 s[4], v[4];
        UNROLL for (uint a = 0; a < 4; ++a)
            s[a] = v[a] = (float16)(0.0f);
        for (uint d = 0; d < D; ++d) {
            float16 x = vload16(d, n->means), c = vload16(d, n->variances);
            UNROLL for (uint a = 0; a < 4; ++a) {
                s[a] = MAD((float16)(w->q[(r + a) * D + d]), x, s[a]);
                v[a] = MAD((float16)(w->squares[(r + a) * D + d]), c, v[a]);
            }
        }
        UNROLL for (uint a = 0; a < 4; ++a) {
            VECTOR(l + 16 * (r + a)) = select((float16)(-INFINITY), s[a] + n->mass + lift16(v[a], n->knee), n->there);
            VECTOR(variance + 16 * (r + a)) = v[a];
        }
    }
}

/* Adds weights[TILE][16] of 16 nodes to the sums of all rows. */
inline void add_all(private float *sums, private const float *weights, private const nodes *n)
{
    for (uint r = 0; r < TILE; r += 4) {
        const uint list[4] = {r, r + 1, r + 2, r + 3};
        ADD_VALUES(4, sums, list, weights + 16 * r, F32, n->values, n->begin, n->end)
    }
}

/* Where a walk is: at each level the block it is in, and what of it is still to be opened. */
typedef struct stack {
    openers todo[FOREST_LEVELS];
    uint first[FOREST_LEVELS];            /* node of the block's lane 0 */
    float whole[TILE * 16] ALIGNED;       /* variances of the block at level TOP, where the walk found it */
    float scores[TILE * 16] ALIGNED;
} stack;

/* The first node that is still to be opened, which is taken off, with its rows; 16: none. */
inline uint take_next(private openers *o, private uint *set)
{
    for (uint c = 0; c < 16; ++c) {
        uint any_row = 0;
        for (uint m = 0; m < MASKS; ++m)
            any_row |= o->of[m][c];
        if (!any_row)
            continue;
        for (uint m = 0; m < MASKS; ++m) {
            set[m] = o->of[m][c];
            o->of[m][c] = 0;
        }
        return c;
    }
    return 16;
}

/* The keys of a leaf that the rows of a set opened, and of the leaves beside it in their block. */
inline void open_leaves(private rows *w, private const trees *t, uint leaf, uint lane, private openers *o, private uint *set)
{
    uint first = leaf - leaf % LEAVES, lane0 = lane - leaf % LEAVES, of[LEAVES][MASKS], every[MASKS], list[TILE], open[TILE];
    for (uint m = 0; m < MASKS; ++m) {
        every[m] = 0;
        for (uint x = 0; x < LEAVES; ++x) {
            of[x][m] = x == leaf % LEAVES ? set[m] : o->of[m][lane0 + x];
            o->of[m][lane0 + x] = 0;
            every[m] |= of[x][m];
        }
    }
    uint count = list_rows(every, list), block = first_block_of(t->f.first_block, 0);
    for (uint i = 0; i < count; ++i) {
        uint r = list[i];
        open[i] = 0;
        for (uint x = 0; x < LEAVES; ++x)
            if (of[x][r / 32] >> r % 32 & 1) {
                open[i] |= 1u << x;
                w->exact[r] += (uint)t->stats[lane_of(block, first + x, STATS) + COUNT * 16];
            }
    }
    INDEX slot = (INDEX)first * LEAF;
    global const ELEMENT(FOREST_TYPE) *keys = t->keys + slot * D, *values = t->values + slot * DV;
    float16 bias = vload16(0, t->biases + slot);
#define CALL(N) open_##N(w, keys, values, bias, list + i, open + i);
    IN_GROUPS(count, CALL)
#undef CALL
}

/* The children of node g, for the rows that opened it: to the top of the stack. */
inline void visit_children(private rows *w, private const trees *t, private stack *s, uint level, uint g, uint lane,
                           private const uint *set, private const float *whole)
{
    uint fan = 1u << fan_shift(level), child = g << fan_shift(level), list[TILE];
    private openers *o = &s->todo[level - 1];
    nodes n = block_of(t, level - 1, child, child % 16, child % 16 + fan);
    uint count = list_rows(set, list);
    s->first[level - 1] = child - child % 16;
    for (uint m = 0; m < MASKS; ++m)
        UINTS(o->of[m]) = (uint16)(0);
    if (level - 1 >= TOP) {
        look_at_all(w, &n, s->scores, s->whole);
        for (uint i = 0; i < count; ++i) {
            uint r = list[i];
            float weights[16] ALIGNED;
            VECTOR(weights) = judge(w, r, VECTOR(s->scores + 16 * r), VECTOR(s->whole + 16 * r), &n, o);
            ADD_VALUES(1, w->t.sum, &r, weights, F32, n.values, n.begin, n.end)
        }
        return;
    }
#define CALL(N) visit_##N(w, &n, list + i, whole + lane, o);
    IN_GROUPS(count, CALL)
#undef CALL
}

/* Everything below the roots of a block that is in s->todo[level]. variances: of the rows' logits in these roots. */
inline void walk(private rows *w, private const trees *t, private stack *s, uint root_level, private const float *variances)
{
    uint level = root_level, set[MASKS];
    private const float *whole = variances;
    uint top_lane = 0;
    for (;;) {
        uint lane = take_next(&s->todo[level], set);
        if (lane == 16) {
            if (level == root_level)
                return;
            ++level;
            continue;
        }
        uint g = s->first[level] + lane;
        if (level == TOP) {
            whole = level == root_level ? variances : s->whole;
            top_lane = lane;
        }
        if (level == 0)
            open_leaves(w, t, g, lane, &s->todo[0], set);
        else {
            visit_children(w, t, s, level, g, top_lane, set, whole);
            --level;
        }
    }
}

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

/* Base, mass, size and limit of each row, from its own keys and the closed roots. */
inline void settle(private rows *w, private const trees *t, uint highest, bool rest, float tolerance,
                   private float *l, private float *variance)
{
    float most[TILE * 16] ALIGNED, sums[TILE * DV] ALIGNED, weights[TILE * 16] ALIGNED;
    nodes n;
    uint first;
    for (uint r = 0; r < TILE; ++r)
        VECTOR(most + 16 * r) = (float16)(-INFINITY);
    for (uint block = 0; root_block(t, highest, rest, block, &n, &first); ++block) {
        private float *lb = l + block * TILE * 16, *vb = variance + block * TILE * 16;
        look_at_all(w, &n, lb, vb);
        for (uint r = 0; r < TILE; ++r)
            VECTOR(most + 16 * r) = max(VECTOR(most + 16 * r), VECTOR(lb + 16 * r) - lift16(VECTOR(vb + 16 * r), n.knee));
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
            float16 p = exp_weight(fmin(VECTOR(l + (block * TILE + r) * 16) - w->t.top[r], MARGIN));
            VECTOR(weights + 16 * r) = p;
            VECTOR(most + 16 * r) += p;
        }
        add_all(sums, weights, &n);
    }
    for (uint r = 0; r < TILE; ++r) {
        float mass = sum16(VECTOR(most + 16 * r)), square = 0.0f;
        for (uint d = 0; d < DV; d += 16)
            square += sum16(VECTOR(sums + r * DV + d) * VECTOR(sums + r * DV + d));
        w->mass[r] = mass;
        w->size[r] = mass > 0.0f ? sqrt(square) / mass : 0.0f;
        w->limit[r] = accepted_error(tolerance, w->size[r], t->covered / CHUNK) * mass;
    }
}

/* Keys before the own chunk. */
inline void attend_far(private rows *w, private const trees *t, bool rest, float tolerance)
{
    float l[ROOT_BLOCKS * TILE * 16] ALIGNED, variance[ROOT_BLOCKS * TILE * 16] ALIGNED, weights[TILE * 16] ALIGNED;
    uint highest = highest_level(t->f.levels, t->covered / CHUNK), first;
    stack s;
    nodes n;
    settle(w, t, highest, rest, tolerance, l, variance);
    w->all = tolerance == 0.0f;
    for (uint block = 0; root_block(t, highest, rest, block, &n, &first); ++block) {
        private const float *lb = l + block * TILE * 16, *vb = variance + block * TILE * 16;
        private openers *o = &s.todo[n.level];
        for (uint m = 0; m < MASKS; ++m)
            UINTS(o->of[m]) = (uint16)(0);
        for (uint r = 0; r < TILE; ++r)
            VECTOR(weights + 16 * r) =
                judge(w, r, VECTOR((private float *)lb + 16 * r), VECTOR((private float *)vb + 16 * r), &n, o);
        add_all(w->t.sum, weights, &n);
        s.first[n.level] = first;
        walk(w, t, &s, n.level, vb);
    }
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
              global const float *mean_values, global const float *stats,
              global ELEMENT(OUT_TYPE) *out, INDEX4 out_at, global ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at
#if COUNTED
              , global int *exact, INDEX4 exact_at
#endif
#if ESTIMATED
              , global ELEMENT(ERROR_TYPE) *error, INDEX4 error_at
#endif
              )
{
    uint number = get_global_size(0) - 1 - get_global_id(0), kv = get_global_id(1), b = get_global_id(2);
    trees t = {forest_of(levels, chunks, first_block), tree_keys, tree_values, biases, means, variances, mean_values, stats, 0};
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
    if (at.past)
        attend_far(&w, &t, !OWN, tolerance);

    for (uint r = 0; r < SPAN * GROUP; ++r) {
        int i = at.i0 + (int)(r % SPAN);
        uint h = kv * GROUP + r / SPAN;
        if (!(w.active[r / 32] >> r % 32 & 1))
            continue;
        float inverse = tile_scale(&w.t, r), square = 0.0f;
        for (uint d = 0; d < DV; d += 16) {
            float16 x = VECTOR(w.t.sum + r * DV + d) * inverse;
            square += sum16(x * x);
            STORE16(OUT_TYPE, out, out_at.s0 + b * out_at.s1 + h * out_at.s2 + i * out_at.s3 + d, x);
        }
        STORE(LSE_TYPE, lse, lse_at.s0 + b * lse_at.s1 + h * lse_at.s2 + i * lse_at.s3, tile_lse(&w.t, r));
#if COUNTED
        exact[exact_at.s0 + b * exact_at.s1 + h * exact_at.s2 + i * exact_at.s3] = w.exact[r];
#endif
#if ESTIMATED
        float sum = sum16(VECTOR(w.error_sum + 16 * r)), squares = sum16(VECTOR(w.error_squares + 16 * r));
        float estimate = squares > 0.0f ? inverse * joint_error(squares, sum) / sqrt(square) : 0.0f;
        STORE(ERROR_TYPE, error, error_at.s0 + b * error_at.s1 + h * error_at.s2 + i * error_at.s3, estimate);
#endif
    }
}
