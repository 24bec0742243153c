/* Gradients of near-far attention: what nodes and slots receive of the rows that met them (near_far_back.clh), in tiles
 * of local memory (local_rows.clh), for GPUs of any vendor; as near_far_back_nodes.cl, but by what rows have noted.
 *
 * A group owns ROWS nodes or slots of a head: with OF_NODES chunks or leaves, else keys apart or slots of chunks. It
 * lists the rows that met some of them, in their order, and takes SOURCES rows off the list's end at a time: rows that
 * met a chunk are few, and seldom neighbours.
 *
 * Shapes: row_numbers, notes and spreads as in near_far_back_rows_local.cl; sums as near_far_back.clh tells, of which a
 * group writes its own. Work: a group a tile, chunks before leaves and keys apart before slots, since these meet most
 * rows, grid (tiles · WG, Hk, B). Local memory: 30 KiB for D = DV = 64, TY 8 and CT 2. */
#include "shared/local_rows.clh"
#include "tree/forest.clh"
#include "tree/near_far.clh"
#include "tree/near_far_args.clh"
#include "tree/near_far_back.clh"
#include "tree/near_far_notes.clh"
#include "tree/near_far_tiles.clh"

#ifndef OF_NODES
#define OF_NODES 1
#endif
#define WORDS ((WG + 31) / 32)

/* A tile: nodes or slots first to first + count − 1 of a kind, which begins with number `base` of its array. */
typedef struct owned {
    bool upper; /* chunks, or keys apart */
    uint base, first, count;
    uint each, leaf; /* those of a chunk, or 1, and those of a leaf, as logarithms */
} owned;

INLINED void owned_begin(private owned *o, uint tile, forest f, uint chunks, uint apart_keys) {
    uint upper = OF_NODES ? chunks : apart_keys, tiles = ((OF_NODES ? chunks : f.room) + ROWS - 1) / ROWS;
    o->upper = tile < tiles;
    o->leaf = OF_NODES ? 0 : log2_of(LEAF);
    o->each = o->upper ? 0 : log2_of(OF_NODES ? CHUNK / LEAF : CHUNK);
    o->base = !o->upper ? 0 : OF_NODES ? f.below * 16 : f.chunks * CHUNK;
    o->first = (o->upper ? tile : tile - tiles) * ROWS;
    uint all = o->upper ? upper : chunks << o->each;
    o->count = o->first < all ? min(all - o->first, (uint)ROWS) : 0;
}

/* Whether a row that reaches so far met some of a tile: keys apart before its own chunk, or chunks, of which these are
 * its notes. */
INLINED bool row_meets(private const owned *o, uint reach, global const uint *notes, uint pitch) {
    bool meets = false;
    if (o->upper)
        return reach > o->first;
    uint last = min((o->first + o->count - 1) >> o->each, reach - 1);
    uint leaf = (o->first & ((1u << o->each) - 1)) >> o->leaf,
         leaves = max(min((uint)ROWS, 1u << o->each) >> o->leaf, 1u);
    uint mask = OF_NODES ? NOTE_OPEN : ((1u << leaves) - 1) << leaf;
    for (uint g = o->first >> o->each; reach > 0 && g <= last; ++g)
        meets = meets || notes[(INDEX)g * pitch] & mask;
    return meets;
}

/* Rows of a key head: number h N + i for query i of its head h. `words` [WORDS] is free to use. */
typedef struct listing {
    local uint *list, *words;
    uint count;
} listing;

/* Adds the rows of those items that want theirs, in the items' order. */
INLINED void list_add(private listing *l, bool wanted, uint number) {
    uint item = get_local_id(0), before = 0, all = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (item < WORDS)
        l->words[item] = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (wanted)
        atomic_or(l->words + item / 32, 1u << item % 32);
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL
    for (uint w = 0; w < WORDS; ++w) {
        uint word = l->words[w];
        all += popcount(word);
        before += popcount(w < item / 32 ? word : w == item / 32 ? word & ((1u << item % 32) - 1) : 0);
    }
    if (wanted)
        l->list[l->count + before] = number;
    l->count += all;
}

/* The rows in hand [SOURCES]: lse (+inf: there is none), δ and u; how far they reach; and where they begin. */
typedef struct taken {
    local float4 *numbers;
    local uint *reach;
    local INDEX *q, *dout, *notes;
} taken;

/* A node's or slot's numbers: log-mass or bias, −inf if it is not there; of nodes their share of the chunk's variance,
 * and slope. */
typedef struct source {
    float offset, share, slope;
} source;

INLINED void source_begin(local source *s, private const owned *o, private const trees *t, uint r) {
    s->offset = -INFINITY;
    s->share = 1.0f;
    s->slope = 0.0f;
    if (r >= o->count)
        return;
#if OF_NODES
    global const float *stat = t->stats + lane_of(0, o->base + o->first + r, STATS);
    s->offset = stat[COUNT * 16] > 0.0f ? stat[LOG_MASS * 16] : -INFINITY;
    s->share = o->upper ? 1.0f : stat[VARIANCE * 16];
    s->slope = o->upper ? 0.0f : slope_of(s->share, stat[SPREAD * 16]);
#else
    s->offset = t->biases[o->base + o->first + r];
#endif
}

/* What an item's nodes or slots receive beside their vectors: its share. */
typedef struct totals {
    float mass[RT], share[RT], slope[RT];
} totals;

INLINED totals totals_of_none(void) {
    totals t;
    UNROLL
    for (uint a = 0; a < RT; ++a)
        t.mass[a] = t.share[a] = t.slope[a] = 0.0f;
    return t;
}

/* Scores become p, and gains λ. */
INLINED void weigh(private products *score, private products *gain, private totals *sum, local const source *own,
                   private const owned *o, private const taken *k, uint x, uint y, uint pitch, global const uint *notes,
                   global const float *spreads) {
    float knee = knee_of(size_shift(OF_NODES && !o->upper ? 0 : TOP));
    UNROLL
    for (uint c = 0; c < CT; ++c) {
        float4 row = k->numbers[x + TX * c];
        uint reach = k->reach[x + TX * c];
        UNROLL
        for (uint a = 0; a < RT; ++a) {
            source its = own[y + TY * a];
            uint n = o->first + y + TY * a, g = n >> o->each, leaf = (n & ((1u << o->each) - 1)) >> o->leaf;
            INDEX at = k->notes[x + TX * c] + (INDEX)g * pitch;
            bool met = its.offset > -INFINITY && row.x < INFINITY && reach > g;
            uint note = met && (OF_NODES || !o->upper) ? notes[at] : 0;
            float l = score->x[a][c] + its.offset, p = 0.0f, lambda = 0.0f, lift_back = 0.0f, whole = 0.0f;
            if (OF_NODES)
                met = o->upper ? note == NOTE_CLOSED : note & NOTE_OPEN && !(note >> leaf & 1);
            else
                met = met && (o->upper || note >> leaf & 1);
            if (met) {
                float variance = 0.0f;
                if (OF_NODES) {
                    whole = spreads[at];
                    variance = whole * its.share;
                    l += lift(variance, knee);
                }
                p = exp(l - row.x);
                lambda = p * (MAD(its.slope, row.z, gain->x[a][c]) - row.y);
                lift_back = lambda * lift_slope(variance, knee);
            }
            score->x[a][c] = p;
            gain->x[a][c] = lambda;
            sum->mass[a] += lambda;
            sum->share[a] = MAD(lift_back, whole, sum->share[a]);
            sum->slope[a] += its.slope > 0.0f ? p * row.z : 0.0f;
        }
    }
}

/* Column `begin` + d of node or slot `at` + r in its array of `columns`, which lie in lanes, is sum d of row r. */
#define LANES_STORE(to, columns, at, rows, begin, sum, x, y, width)                                                    \
    UNROLL                                                                                                             \
    for (uint a_ = 0; a_ < RT; ++a_)                                                                                   \
        UNROLL                                                                                                         \
    for (uint c_ = 0; c_ < VECTORS(width); ++c_) {                                                                     \
        float four_[4];                                                                                                \
        uint r_ = (y) + TY * a_;                                                                                       \
        vstore4((sum)[a_][c_], 0, four_);                                                                              \
        UNROLL                                                                                                         \
        for (uint i_ = 0; i_ < 4; ++i_) {                                                                              \
            uint d_ = 4 * ((x) + TX * c_) + i_;                                                                        \
            if (r_ < (rows) && d_ < (width))                                                                           \
                (to)[lane_of(0, (at) + r_, columns) + ((begin) + d_) * 16] = four_[i_];                                \
        }                                                                                                              \
    }

/* The same of a number that items have shares of; `meeting` [ROWS · TX]. */
INLINED void total_store(global float *to, uint columns, uint at, uint rows, uint begin, private const float *own,
                         uint x, uint y, local float *meeting) {
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL
    for (uint a = 0; a < RT; ++a)
        meeting[(y + TY * a) * TX + x] = own[a];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint r = get_local_id(0); r < rows; r += WG) {
        float total = 0.0f;
        for (uint i = 0; i < TX; ++i)
            total += meeting[r * TX + i];
        to[lane_of(0, at + r, columns) + begin * 16] = total;
    }
}

/* The nodes' or slots' vectors, which lie in lanes, into rows of D. */
INLINED void lanes_load(local float *to, global const ELEMENT(FOREST_TYPE) *from, uint at, uint all) {
    for (uint e = get_local_id(0); e < ROWS * (PITCH(D) - 4); e += WG) {
        uint d = e / 16 % (PITCH(D) - 4), r = e / 16 / (PITCH(D) - 4) * 16 + e % 16;
        to[r * PITCH(D) + d] = d < D ? LOAD(FOREST_TYPE, from, lane_of(0, min(at + r, all - 1), D) + d * 16) : 0.0f;
    }
}

/* Rows of a tensor by where they begin, times a factor. */
#define TAKEN_LOAD(type, to, from, begins, columns, factor)                                                            \
    for (uint e_ = get_local_id(0); e_ < SOURCES * (PITCH(columns) - 4); e_ += WG) {                                   \
        uint d_ = e_ % (PITCH(columns) - 4), r_ = e_ / (PITCH(columns) - 4);                                           \
        (to)[r_ * PITCH(columns) + d_] = d_ < (columns) ? (factor)*LOAD(type, from, (begins)[r_] + d_) : 0.0f;         \
    }

/* A tile's nodes or slots, and their numbers. */
#define OWN_LOAD(own, rows, row_gains, o, t)                                                                           \
    {                                                                                                                  \
        uint at_ = (o)->base + (o)->first, all_ = OF_NODES ? (t)->f.blocks * 16 : (uint)slots_of((t)->f);              \
        if (get_local_id(0) < ROWS)                                                                                    \
            source_begin((own) + get_local_id(0), o, t, get_local_id(0));                                              \
        lanes_load(rows, OF_NODES ? (t)->means : (t)->keys, at_, all_);                                                \
        ROWS_LOAD(FOREST_TYPE, row_gains, OF_NODES ? (t)->mean_values : (t)->values, DV, DV, at_, ROWS, all_)          \
    }

/* What they have received. */
#define SUMS_GIVE(to, columns, o, sum, value_sum, total)                                                               \
    {                                                                                                                  \
        uint at_ = (o)->base + (o)->first;                                                                             \
        LANES_STORE(to, columns, at_, (o)->count, 0, sum, x, y, D)                                                     \
        LANES_STORE(to, columns, at_, (o)->count, D, value_sum, x, y, DV)                                              \
        total_store(to, columns, at_, (o)->count, D + DV, (total)->mass, x, y, weights);                               \
        if (OF_NODES) {                                                                                                \
            total_store(to, columns, at_, (o)->count, D + DV + NODE_SHARE, (total)->share, x, y, weights);             \
            total_store(to, columns, at_, (o)->count, D + DV + NODE_SLOPE, (total)->slope, x, y, weights);             \
        }                                                                                                              \
    }

/* The rows of a key head. */
typedef struct head_rows {
    uint queries, keys, chunks;
    int diagonal;
    INDEX first; /* number of the first */
    global const float *numbers;
    global const uint *apart;
} head_rows;

/* How far a query reaches. */
INLINED uint reach_of(private const owned *o, private const head_rows *r, forest f, INDEX head, uint i) {
    uint past = past_of(visible_keys(i, r->diagonal, r->keys));
    return o->upper && !OF_NODES ? apart_before(f, r->apart, head, past) : past;
}

/* Takes the last `count` rows of a list in hand, SOURCES at most. */
INLINED void rows_take(private const taken *k, local const uint *list, uint count, private const owned *o,
                       private const head_rows *r, forest f, INDEX head, INDEX4 q_at, INDEX4 dout_at) {
    uint item = get_local_id(0);
    if (item >= SOURCES)
        return;
    uint number = list[min(item, count - 1)], i = number % r->queries, h = number / r->queries;
    INDEX row = r->first + number;
    float3 numbers = vload3(row, r->numbers);
    k->numbers[item] = (float4)(item < count ? numbers.x : INFINITY, numbers.yz, 0.0f);
    k->reach[item] = reach_of(o, r, f, head, i);
    k->q[item] = h * q_at.s2 + i * q_at.s3;
    k->dout[item] = h * dout_at.s2 + i * dout_at.s3;
    k->notes[item] = (row - i) * r->chunks + i;
}

kernel GROUP_SIZE void near_far_back_local(INPUTS, global const ELEMENT(DOUT_TYPE) *dout, INDEX4 dout_at,
                                           global const float *row_numbers, global const uint *notes,
                                           global const float *spreads, SUMS) {
    local float rows[ROWS * PITCH(D)] ALIGNED, row_gains[ROWS * PITCH(DV)] ALIGNED;
    local float sources[SOURCES * PITCH(D)] ALIGNED, source_gains[SOURCES * PITCH(DV)] ALIGNED;
    local float weights[SOURCES * PITCH_WEIGHTS] ALIGNED;
    local float4 numbers[SOURCES];
    local source own[ROWS];
    local uint reaches[SOURCES], list[SOURCES + WG], words[WORDS];
    local INDEX q_begins[SOURCES], dout_begins[SOURCES], note_begins[SOURCES];
    uint x = get_local_id(0) % TX, y = get_local_id(0) / TX, there = (keys + CHUNK - 1) / CHUNK;
    INDEX kv = get_global_id(1), b = get_global_id(2), head = b * get_global_size(1) + kv;
    owned o;
    trees t = TREES;
    trees_move(&t, head);
    owned_begin(&o, get_group_id(0), t.f, there, apart_before(t.f, apart, head, there));
    head_rows r = {queries, keys, chunks, diagonal, head * group * queries, row_numbers, apart};
    taken hand = {numbers, reaches, q_begins, dout_begins, note_begins};
    listing l = {list, words, 0};
    float4 sum[RT][VECTORS(D)], value_sum[RT][VECTORS(DV)];
    totals total = totals_of_none();
    OWN_LOAD(own, rows, row_gains, &o, &t)
    SUMS_CLEAR(sum, D)
    SUMS_CLEAR(value_sum, DV)
    q += q_at.s0 + b * q_at.s1 + kv * group * q_at.s2;
    dout += dout_at.s0 + b * dout_at.s1 + kv * group * dout_at.s2;
    uint begin = o.upper && !OF_NODES ? 0 : first_row(((o.first >> o.each) + 1) * CHUNK, diagonal);
    for (uint h = 0; h < group && o.count > 0; ++h)
        for (uint from = begin; from < queries; from += WG) {
            uint i = min(from + (uint)get_local_id(0), queries - 1), number = h * queries + i;
            bool there = from + get_local_id(0) < queries && row_numbers[(r.first + number) * ROW_NUMBERS] < INFINITY;
            uint reach = reach_of(&o, &r, t.f, head, i);
            list_add(&l, there && row_meets(&o, reach, notes + ((r.first + h * queries) * chunks + i), queries),
                     number);
            while (l.count >= SOURCES || (l.count > 0 && h + 1 == group && from + WG >= queries)) {
                products score, gain;
                uint count = min(l.count, (uint)SOURCES);
                l.count -= count;
                barrier(CLK_LOCAL_MEM_FENCE);
                rows_take(&hand, list + l.count, count, &o, &r, t.f, head, q_at, dout_at);
                barrier(CLK_LOCAL_MEM_FENCE);
                TAKEN_LOAD(Q_TYPE, sources, q, q_begins, D, scale)
                TAKEN_LOAD(DOUT_TYPE, source_gains, dout, dout_begins, DV, 1.0f)
                barrier(CLK_LOCAL_MEM_FENCE);
                products_make(&score, x, y, rows, sources, D);
                products_make(&gain, x, y, row_gains, source_gains, DV);
                weigh(&score, &gain, &total, own, &o, &hand, x, y, queries, notes, spreads);
                weights_pass(&score, x, y, weights);
                SUMS_ADD(value_sum, x, y, weights, source_gains, DV)
                weights_pass(&gain, x, y, weights);
                SUMS_ADD(sum, x, y, weights, sources, D)
            }
        }
    sums s;
    sums_begin(&s, t.f, head, slot_sums, node_sums, variance_sums);
    SUMS_GIVE(OF_NODES ? s.nodes : s.slots, OF_NODES ? NODE_NUMBERS : SLOT_NUMBERS, &o, sum, value_sum, &total)
}
