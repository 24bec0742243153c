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
 *     1  the own chunk and the keys that stand apart (apart.cl); then all chunks before it, closed: what the row's
 *        errors are measured against
 *     2  the own chunk and the keys apart again; then, unit by unit of 64 chunks, the chunks, the leaves of those that
 *        were opened, and the keys of the leaves that were opened
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
#define K_TYPE BF16
#define V_TYPE BF16
#define BIAS_TYPE F32
#endif
#ifndef FOREST_TYPE
#define FOREST_TYPE Q_TYPE
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
#include "tree/near_far_args.clh"
#include "tree/near_far_mma.clh"

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

/* Two groups at a time, of up to 128 registers an item: by a directive or by -cl-nv-maxrregcount, which NVIDIA's
 * compiler overlooks where there is the attribute reqd_work_group_size. */
#if HOPPER
#define GROUP_SIZE __attribute__((reqd_work_group_size(WG, 1, 1)))
#define TWO_GROUPS() __asm__ volatile("// sm_90a entry: .minnctapersm 2")
#else
#define GROUP_SIZE
#define TWO_GROUPS()
#endif
kernel GROUP_SIZE void near_far_mma(INPUTS, RESULTS, global const ushort *half_means, global const ushort *half_values,
                                    global const ushort *half_variances, global const float *packed) {
    STAGE_DECLARE(s)
    WARP_DECLARE(w)
    tile t = tile_of(group, diagonal, keys);
    forest f = forest_of(levels, chunks, room, first_block);
    INDEX head = (INDEX)t.b * (get_global_size(1) * SHARE / group) + t.kv, blocks = head * f.blocks;
    uint apart_keys = apart_before(f, apart, head, t.past), runs = min(t.past, t.seen_last / CHUNK) / RUN;
    sources nodes = {half_means + blocks * 16 * D, half_values + blocks * 16 * DV, packed + blocks * 16 * PACKED};
    sources leaves = {(global const ushort *)tree_keys + head * slots_of(f) * D,
                      (global const ushort *)tree_values + head * slots_of(f) * DV, biases + head * slots_of(f)};
    near_far_nodes from = {nodes, half_variances + head * chunks * D, first_block_of(first_block, 0),
                           first_block_of(first_block, TOP)};
    own_keys own;
    OWN_BEGIN(own, t.b, t.kv, t.seen_last)
    operands a;
    rows r;
    view see;
    view_begin(w, &see, &a, t, (global const ushort *)q + (q_at.s0 + t.b * q_at.s1 + t.h0 * q_at.s2), q_at, queries,
               scale);
    TWO_GROUPS();

    for (uint measured = 0; measured < 2; ++measured) {
        rows_clear(&r);
        FOR_ROWS(i) see.exact[i] = 0;
        own_add(w, &r, &a, &see, &s, &own, t.past, diagonal, keys);
        apart_add(w, &r, &a, &see, &s, leaves, chunks, apart_keys);
        if (measured || t.past == 0)
            break;
        closed_add(w, &r, &a, &see, &s, from, t.past);
        view_measure(w, &see, &r, tolerance, t.past);
    }
    board_clear(s.shared->first[0]);
    for (uint unit = 0; unit < t.past; unit += UNIT) {
        uint opened = chunks_add(w, &r, &a, &see, &s, from, unit, t.past);
        opened = leaves_add(w, &r, &a, &see, &s, from, opened);
        keys_add(w, &r, &a, &see, &s, leaves, opened);
    }
    if (runs > 0)
        covariance_terms_add(w, &r, &a, scale, covariances + (head * (chunks / RUN) + runs - 1) * D * DV, s.v[0]);
    rows_store(w, &r, &see, t, RESULT_NAMES);
}
