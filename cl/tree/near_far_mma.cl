/* Near-far attention on NVIDIA's matrix units (mma.clh). Mathematics and shapes as in near_far.cl, from the same
 * forest: leaves of 16 keys, chunks of 256; queries, keys and values of one 16-bit type, weights rounded to it, sums
 * in float32.
 *
 * A group owns a tile of ROWS rows: TOKENS consecutive queries of SHARE heads that have one key head; a warp 16 of
 * them. All that a row adds up, nodes as well as keys, comes in blocks of 16 sources that lie alike in memory, and a
 * step multiplies KEYS / 16 such blocks, in local memory, with all rows. Rows share what is opened: **a row gets what
 * itself or an earlier token of its tile opened**. So an opened node has one number, the first token that has it
 * open; a block of its children counts for the rows from there on, and for the rows before it is the node that
 * counts. Rows only gain by it, in exactness, and later tokens change nothing.
 *
 *     1  the own chunk and the keys that stand apart (apart.cl); then all chunks before it, closed: what the row's errors are measured against
 *     2  unit by unit of 64 chunks: the chunks; the leaves of those that were opened; the keys of the leaves that were opened
 *
 * A row's sums take their sources in this order, and a block of 16 in one instruction; where other rows' blocks come
 * between, the row adds 0. And so a row's bits do not depend on later tokens either.
 *
 * near_far_pack, before: nodes in the operands' type. Work: one work-item an element; grid (elements, 1, 1).
 * near_far_mma: grid (tiles · WG, H / SHARE, B), the tiles that see most keys first, of all heads.
 *
 * The row wgmma multiplies the keys of opened leaves in Hopper's instructions (near_far_wgmma.clh), all else as here.
 *
 * Measured (H200, bf16, H = 16 on 8 key heads, D = 64, causal, a byte model's layers 1 to 4 over 1 M bytes, trees and
 * estimates included; PyTorch's SDPA takes 5.6 to 5.9 s): 1.36 s at an error of 3.9 %, 1.55 s at 3.0 %, 2.58 s at 1.0
 * %; as fast as it at 60,000 tokens and 3 %, at 100,000 and 1 %. At 3 % and 1 M keys of opened leaves take 0.6 s, 335
 * TFLOP/s (this file's 1.1 s, 190), leaves 0.5 s, chunks 0.25 s, trees 0.09 s. Nodes are bound by the instructions
 * they take. What an assembler for sm_90a makes of a step of 32 leaves had 1,447 of them while a null pointer in
 * local memory told measuring from opening, which no compiler takes for one, and the opened were also noted bit by
 * bit; now 1,274.
 *
 * Before that row, at equal error: 32 sources a step rather than 64, whose scores and errors take twice the
 * registers: 5 %. Tiles of 64 tokens, 3 to 7 % slower; of 32 tokens by 2 heads, 13 %. No limit on registers (244, one
 * group of 256 at a time): 7 %, with Hopper's instructions 25 %. Chunks opened like leaves (EASE 1): 15 % slower, as
 * their leaves are most of the work at this length. Nothing came of lists in the order of the warps that open first,
 * with warps that pass over what none of their rows has open; of scores of the next keys computed with the values of
 * the last, as in mma_tile.clh, 5 to 12 % less. Estimates cost 3 %, looking for hidden mass 7 %.
 *
 * Needs rows of q, k, v and out at multiples of 8 elements; a positive scale; TOP 1, LEAF 16. */
#ifndef Q_TYPE
#define Q_TYPE BF16
#endif
#ifndef OUT_TYPE
#define BIAS_TYPE F32
#define OUT_TYPE F32
#define LSE_TYPE F32
#define ERROR_TYPE F32
#endif
#ifndef FOREST_TYPE
#define FOREST_TYPE Q_TYPE
#endif
#ifndef OWN /* 1: there is an own chunk */
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
#ifndef SHARE /* heads of a tile, a power of two */
#define SHARE 1
#endif
#ifndef WG /* a multiple of 32 */
#define WG 256
#endif
#define HALF_TYPE Q_TYPE
#include "shared/tensor.clh"
#include "shared/mma.clh"
#include "tree/forest.clh"
#include "tree/near_far.clh"
#include "tree/near_far_together.clh"
#include "tree/near_far_tile.clh"
#include "tree/near_far_nodes.clh"
#define HOPPER (WGMMA && MATRIX_UNITS)
#if HOPPER
#include "tree/near_far_wgmma.clh"
#endif

kernel __attribute__((reqd_work_group_size(64, 1, 1))) void
near_far_pack(uint levels, uint chunks, uint room, uint16 first_block, global const ushort *means,
              global const float *variances, global const ushort *mean_values, global const float *stats,
              global ushort *half_means, global ushort *half_values, global ushort *half_variances,
              global float *packed, uint heads) {
    INDEX e = get_global_id(0);
    forest f = forest_of(levels, chunks, room, first_block);
    INDEX nodes = (INDEX)heads * f.blocks * 16;
    if (e < nodes * D)
        half_means[e] = means[e];
    if (e < nodes * DV)
        half_values[e] = mean_values[e];
    if (e < (INDEX)heads * chunks * D) {
        INDEX head = e / ((INDEX)chunks * D);
        uint g = e / D % chunks, d = e % D;
        half_variances[e] = half_of_float(variances[head * (f.blocks - f.below) * 16 * D + lane_of(0, g, D) + d * 16]);
    }
    if (e < nodes) {
        stats += lane_of(0, e, STATS);
        packed += lane_of(0, e, PACKED);
        float count = stats[COUNT * 16];
        uint level = e % (f.blocks * 16) / 16 < f.below ? 0 : TOP;
        packed[PACKED_MASS * 16] = LOG2_E * stats[LOG_MASS * 16];
        packed[PACKED_SHARE * 16] = ROOT_LOG2_E * sqrt(stats[VARIANCE * 16]);
        packed[PACKED_SPREAD * 16] = stats[SPREAD * 16] / ROOT_LOG2_E;
        packed[PACKED_OUTLIER * 16] = ROOT_LOG2_E * outlier_of(stats[REACH * 16], level);
        packed[PACKED_LOG_COUNT * 16] = log2(fmax(count, 1.0f));
        packed[PACKED_COUNT * 16] = count;
        packed[PACKED_SLOPE * 16] = slope_of(stats[VARIANCE * 16], stats[SPREAD * 16]);
    }
}

#define BLOCK 16
#if HOPPER
#define KEYS_ADD(list, count) far_keys_add(w, &r, &a, &see, leaves, list, count, far_tile, stat_tile)
#else
/* The keys of `count` leaves of a list. */
INLINED void keys_add(warp w, private rows *r, private const operands *a, private view *see, sources leaves,
                      local const uint *list, uint count, local ushort k_tile[2][KEY_TILE],
                      local ushort v_tile[2][VALUE_TILE], local float stat_tile[2][PACKED * KEYS]) {
    if (count > 0)
        list_load(leaves, 1, 0, list, 0, count, k_tile[0], v_tile[0], stat_tile[0]);
    for (uint c = 0, stage = 0; c < count; c += GROUPS, stage ^= 1) {
        scores s;
        copy_wait();
        barrier(CLK_LOCAL_MEM_FENCE);
        if (c + GROUPS < count)
            list_load(leaves, 1, 0, list, c + GROUPS, count, k_tile[stage ^ 1], v_tile[stage ^ 1],
                      stat_tile[stage ^ 1]);
        uint there = keys_score(w, &s, a, see, k_tile[stage], stat_tile[stage], list + c, count - c);
        tile_add(w, r, &s, 1.0f, there, v_tile[stage]);
    }
}
#define KEYS_ADD(list, count) keys_add(w, &r, &a, &see, leaves, list, count, k_tile, v_tile, stat_tile)
#endif

/* The keys that query i sees. */
#if OWN
#define SEEN(i) ((i) < 0 ? 0 : visible_keys((uint)(i), diagonal, keys))
#else
#define SEEN(i) keys
#endif

/* Two groups at a time, of up to 128 registers an item: by a directive or by -cl-nv-maxrregcount, which NVIDIA's
 * compiler overlooks where there is the attribute reqd_work_group_size. */
kernel
#if HOPPER
    __attribute__((reqd_work_group_size(WG, 1, 1)))
#endif
    void
    near_far_mma(uint queries, uint keys, uint group, float scale, int diagonal, uint first_key, float tolerance,
                 uint limit, uint levels, uint chunks, uint room, uint16 first_block, global const ushort *q,
                 INDEX4 q_at,
#if OWN
                 global const ushort *k, INDEX4 k_at, global const ushort *v, INDEX4 v_at,
#if BIAS
                 global const ELEMENT(BIAS_TYPE) *bias, INDEX4 bias_at,
#endif
#endif
                 global const ushort *tree_keys, global const ushort *tree_values, global const float *biases,
                 global const ushort *means, global const float *variances, global const ushort *mean_values,
                 global const float *stats, global const float *covariances, global const uint *apart,
                 global ELEMENT(OUT_TYPE) *out, INDEX4 out_at, global ELEMENT(LSE_TYPE) *lse, INDEX4 lse_at,
#if COUNTED
                 global int *exact, INDEX4 exact_at,
#endif
#if ESTIMATED
                 global ELEMENT(ERROR_TYPE) *error, INDEX4 error_at,
#endif
                 global const ushort *half_means, global const ushort *half_values, global const ushort *half_variances,
                 global const float *packed) {
#if HOPPER
    local ushort far_tile[2][FAR_TILE] __attribute__((aligned(1024)));
    local ushort(*k_tile)[KEY_TILE] = (local ushort(*)[KEY_TILE])far_tile[0];
    local ushort(*v_tile)[VALUE_TILE] = (local ushort(*)[VALUE_TILE])far_tile[1];
    __asm__ volatile("// sm_90a entry: .minnctapersm 2");
#else
    local ushort k_tile[2][KEY_TILE] ALIGNED, v_tile[2][VALUE_TILE] ALIGNED;
#endif
    local float stat_tile[2][PACKED * KEYS] ALIGNED;
    local uint chunk_list[UNIT], leaf_list[UNIT * 16];
    local board shared;
    WARP_DECLARE(w)
    /* The longest tiles of all heads first: groups begin in the order of their numbers. */
    uint heads = get_num_groups(1) * get_num_groups(2), tile, h0, b, kv;
    tile = (get_group_id(2) * get_num_groups(1) + get_group_id(1)) * get_num_groups(0) + get_group_id(0);
    h0 = tile % heads % get_num_groups(1) * SHARE;
    b = tile % heads / get_num_groups(1);
    kv = h0 / group;
    tile /= heads;
    forest f = forest_of(levels, chunks, room, first_block);
    INDEX head = (INDEX)b * (get_global_size(1) * SHARE / group) + kv, blocks = head * f.blocks;
    uint leaf_block = first_block_of(first_block, 0), chunk_block = first_block_of(first_block, TOP);
    sources nodes = {half_means + blocks * 16 * D, half_values + blocks * 16 * DV, packed + blocks * 16 * PACKED};
    sources leaves = {tree_keys + head * slots_of(f) * D, tree_values + head * slots_of(f) * DV,
                      biases + head * slots_of(f)};
    half_variances += head * chunks * D;

    int first = (int)((get_num_groups(0) - 1 - tile) * TOKENS) - (OWN ? diagonal & (TOKENS - 1) : 0);
    uint seen_last = SEEN(first + (int)TOKENS - 1);
    uint own = OWN ? max(seen_last, 1u) - 1 : keys + CHUNK - 1; /* a key of the own chunk */
    uint past = own / CHUNK, apart_keys = apart_before(f, apart, head, past);

    operands a;
    rows r;
    view see;
    q += q_at.s0 + b * q_at.s1 + h0 * q_at.s2;
    FOR_ROWS(i) {
        uint row = row_of(w, i);
        see.token[i] = row / SHARE;
        see.query[i] = first + (int)see.token[i];
        see.alive[i] = see.query[i] >= 0 && see.query[i] < (int)queries;
        INDEX at = (INDEX)clamp(see.query[i], 0, (int)queries - 1) * q_at.s3 + row % SHARE * q_at.s2;
        UNROLL
        for (uint d = 0; d < D / 16; ++d) {
            a.a[d][i] = *(global const uint *)(q + at + column_of(w, 2 * d));
            a.a[d][2 + i] = *(global const uint *)(q + at + column_of(w, 2 * d + 1));
        }
    }
    see.scale = scale;
    see.spread = see.keys = 0.0f;

#if OWN
    k += k_at.s0 + b * k_at.s1 + kv * k_at.s2;
    v += v_at.s0 + b * v_at.s1 + kv * v_at.s2;
#if BIAS
    bias += bias_at.s0 + b * bias_at.s1 + kv * bias_at.s2;
#endif
#endif

    uint turn = 0;
    for (uint measured = 0; measured < 2; ++measured) {
        rows_clear(&r);
        FOR_ROWS(i) see.exact[i] = 0;
#if OWN
        if (seen_last > 0)
            for (uint begin = past * CHUNK; begin < seen_last; begin += KEYS) {
                barrier(CLK_LOCAL_MEM_FENCE);
                for (uint c = get_local_id(0); c < KEYS * (D / 8); c += WG)
                    copy_start(k_tile[0] + ROW_AT(D, c / (D / 8), c % (D / 8) * 8),
                               k + (INDEX)(min(begin + c / (D / 8), seen_last - 1) - first_key) * k_at.s3 +
                                   c % (D / 8) * 8);
                for (uint c = get_local_id(0); c < KEYS * (DV / 8); c += WG)
                    copy_start(v_tile[0] + ROW_AT(DV, c / (DV / 8), c % (DV / 8) * 8),
                               v + (INDEX)(min(begin + c / (DV / 8), seen_last - 1) - first_key) * v_at.s3 +
                                   c % (DV / 8) * 8);
                uint place = get_local_id(0);
                if (place < KEYS)
#if BIAS
                    stat_tile[0][place] = begin + place < seen_last
                                              ? LOAD(BIAS_TYPE, bias, (begin + place - first_key) * bias_at.s3)
                                              : -INFINITY;
#else
                    stat_tile[0][place] = 0.0f;
#endif
                copy_wait();
                barrier(CLK_LOCAL_MEM_FENCE);
                scores s;
                uint seen[2];
                FOR_ROWS(i) seen[i] = max(SEEN(see.query[i]), begin) - begin;
                own_score(w, &s, &a, &see, k_tile[0], stat_tile[0], seen);
                tile_add(w, &r, &s, 1.0f, EVERY, v_tile[0]);
            }
        FOR_ROWS(i) see.exact[i] = (uint)row_sum(w, (float)see.exact[i]);
#endif
        for (uint begin = 0; begin < apart_keys; begin += UNIT * 16 * BLOCK) {
            uint blocks_apart = min((apart_keys - begin + BLOCK - 1) / BLOCK, (uint)UNIT * 16);
            barrier(CLK_LOCAL_MEM_FENCE);
            for (uint n = get_local_id(0); n < blocks_apart; n += WG)
                leaf_list[n] = ENTRY(chunks * (CHUNK / BLOCK) + begin / BLOCK + n, 0,
                                     min(apart_keys - begin - n * BLOCK, (uint)BLOCK) - 1);
            barrier(CLK_LOCAL_MEM_FENCE);
            KEYS_ADD(leaf_list, blocks_apart);
        }
        if (measured || past == 0)
            break;
        barrier(CLK_LOCAL_MEM_FENCE);
        chunks_load(nodes, half_variances, chunk_block, 0, past, k_tile, v_tile[0], stat_tile[0]);
        for (uint g = 0; g < past; g += KEYS, turn ^= 1) {
            scores s;
            spreads spread;
            copy_wait();
            barrier(CLK_LOCAL_MEM_FENCE);
            chunks_score(w, &s, &spread, &a, &see, k_tile);
            chunks_measure(w, &s, &spread, &see, stat_tile[turn], past - g, 2.0f + log2((float)past));
            barrier(CLK_LOCAL_MEM_FENCE);
            if (g + KEYS < past)
                chunks_load(nodes, half_variances, chunk_block, g + KEYS, past, k_tile, v_tile[turn ^ 1],
                            stat_tile[turn ^ 1]);
            tile_add(w, &r, &s, 1.0f, EVERY, v_tile[turn]);
        }
        view_measure(w, &see, &r, tolerance, past);
    }

    turn = 0;
    board_clear(shared.first[0]);
    for (uint unit = 0; unit < past; unit += UNIT) {
        uint opened = 0, exact_leaves = 0, stage = 0;
        for (uint g = unit; g < min(unit + UNIT, past); g += KEYS) {
            scores s;
            spreads spread;
            barrier(CLK_LOCAL_MEM_FENCE);
            chunks_load(nodes, half_variances, chunk_block, g, past, k_tile, v_tile[0], stat_tile[0]);
            copy_wait();
            barrier(CLK_LOCAL_MEM_FENCE);
            chunks_score(w, &s, &spread, &a, &see, k_tile);
            nodes_weigh(w, &s, &spread, &see, stat_tile[0], 0, past - g, EASE(past), shared.first[turn]);
            nodes_settle(w, &s, &spread, &see, &shared, turn);
            opened += nodes_list(w, shared.first[turn], stat_tile[0], chunk_list + opened, g, chunk_list, false);
            tile_add(w, &r, &s, 1.0f, EVERY, v_tile[0]);
            turn ^= 1;
        }

        barrier(CLK_LOCAL_MEM_FENCE);
        if (opened > 0)
            list_load(nodes, PACKED, leaf_block, chunk_list, 0, opened, k_tile[0], v_tile[0], stat_tile[0]);
        for (uint c = 0; c < opened; c += GROUPS, stage ^= 1, turn ^= 1) {
            scores s;
            spreads spread;
            copy_wait();
            barrier(CLK_LOCAL_MEM_FENCE);
            if (c + GROUPS < opened)
                list_load(nodes, PACKED, leaf_block, chunk_list, c + GROUPS, opened, k_tile[stage ^ 1],
                          v_tile[stage ^ 1], stat_tile[stage ^ 1]);
            parents p = parents_of(w, &a, &see, chunk_list, c, opened, half_variances);
            leaves_score(w, &s, &spread, &a, k_tile[stage], &p);
            uint there = nodes_weigh(w, &s, &spread, &see, stat_tile[stage], &p, 0, 1.0f, shared.first[turn]);
            nodes_settle(w, &s, &spread, &see, &shared, turn);
            exact_leaves +=
                nodes_list(w, shared.first[turn], stat_tile[stage], leaf_list + exact_leaves, 0, chunk_list + c, true);
            sources_add(w, &r, &s, 1.0f, there, v_tile[stage], true, stat_tile[stage]);
        }

        barrier(CLK_LOCAL_MEM_FENCE);
        KEYS_ADD(leaf_list, exact_leaves);
    }

    uint runs = min(past, seen_last / CHUNK) / RUN;
    if (runs > 0)
        covariance_terms_add(w, &r, &a, scale, covariances + (head * (chunks / RUN) + runs - 1) * D * DV, v_tile[0]);
    float size[2];
    rows_finish(w, &r, size);
    FOR_ROWS(i) {
#if ESTIMATED
        float errors = past ? row_sum(w, see.errors[i]) : 0.0f, squares = past ? row_sum(w, see.squares[i]) : 0.0f;
#endif
        if (!see.alive[i])
            continue;
        uint h = h0 + row_of(w, i) % SHARE, query = (uint)see.query[i];
        global ELEMENT(OUT_TYPE) *to = out + out_at.s0 + b * out_at.s1 + h * out_at.s2 + query * out_at.s3;
        UNROLL
        for (uint n = 0; n < DV / 8; ++n)
            STORE2(OUT_TYPE, to, column_of(w, n), r.sum[n][2 * i], r.sum[n][2 * i + 1]);
        if (w.lane % 4 != 0)
            continue;
        STORE(LSE_TYPE, lse, lse_at.s0 + b * lse_at.s1 + h * lse_at.s2 + query * lse_at.s3, r.top[i] * LN_2);
#if COUNTED
        exact[exact_at.s0 + b * exact_at.s1 + h * exact_at.s2 + query * exact_at.s3] = (int)see.exact[i];
#endif
#if ESTIMATED
        float estimate = 0.0f;
        if (errors > 0.0f)
            estimate = fmin(exp2(see.mass[i] - r.top[i]) * joint_error(squares, errors) / sqrt(size[i]), MAXFLOAT);
        STORE(ERROR_TYPE, error, error_at.s0 + b * error_at.s1 + h * error_at.s2 + query * error_at.s3, estimate);
#endif
    }
}
