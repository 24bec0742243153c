/* Matrix products in Hopper's matrix instructions (shared/wgmma.clh). Mathematics and shapes as in gemm.cl; a and b of
 * one 16-bit type, sums in float32. With A_TRANSPOSED a is [B,H,K,M], with B_TRANSPOSED b [B,H,K,N]: the instructions
 * read either, and the tiles of a part are 64 columns next to each other, DEPTH rows of 128 bytes each.
 *
 * Work: a group of TEAMS · 128 items for HIGH × BROAD elements of c, a team for HIGH / TEAMS rows of them; grid (⌈M /
 * HIGH⌉ · ⌈N / BROAD⌉ · WG or fewer, 1, B·H); a group takes tile after tile. They go down BAND tiles of rows, then to
 * the next columns, so that groups that run at once share what the second cache holds. DEPTH of the summed dimension
 * at a time lies in local memory, STAGES times: two parts are multiplied or about to be, the others are on their way.
 * More than OpenCL gives a group: the memory is declared in the driver's PTX. What lies past the last row or column is
 * zeros that nobody reads; reading the last row in place of them took 67 µs for 8192 × 576 × 1536 and not 43.
 *
 * Measured (H200, bf16, back to back; cuBLAS in the same run): 4096³ 739 TFLOP/s, a group for every tile (739), and 689
 * when every copy asked whether it is inside (764); 8192³ 768 (663). A group going from tile to tile: 8192 × 3072 × 576
 * 55 µs and not 61 (57). Tiles of 192 × 192: 8192 × 576 × 576 12.5 µs and not 19.5 (21.6), 8192 × 576 × 1536 24 and not
 * 42 (25). Three stages, 480 TFLOP/s; tiles of 128 × 128 of three stages, two groups to a multiprocessor, 540. Fed by
 * the copy engine (TMA, its descriptors made by tensormap.replace in a kernel of its own, one warp more to feed) 767 at
 * 4096³ and 50 µs: not done yet.
 *
 * Needs rows of a and b at multiples of 8 elements, of c at multiples of 4; N a multiple of 8, K too, unless both lie
 * transposed, and M, if a does, which TEAMS 3 has no copies for. */
#ifndef A_TYPE
#define A_TYPE BF16
#define C_TYPE F32
#endif
#define HALF_TYPE A_TYPE
#ifndef TEAMS /* of 128 items */
#define TEAMS 2
#endif
#ifndef HIGH /* a multiple of 64 · TEAMS */
#define HIGH 128
#endif
#ifndef BROAD /* a multiple of EACH */
#define BROAD 256
#endif
#ifndef STAGES /* 3 or more */
#define STAGES 4
#endif
#ifndef BAND
#define BAND 8
#endif
#ifndef A_TRANSPOSED
#define A_TRANSPOSED 0
#endif
#ifndef B_TRANSPOSED
#define B_TRANSPOSED 0
#endif
#define WG (TEAMS * 128)
#define WGMMA 1
#include "shared/tensor.clh"
#include "shared/mma.clh"

#define DEPTH 64                   /* 128 bytes: a row of a tile */
#define BLOCKS (HIGH / 64 / TEAMS) /* of 64 rows, of a team */
#define PART (128 * (HIGH + BROAD))
#define STEP (WG / 8) /* rows from one chunk of an item to its next */

/* sum[m][n][2i], sum[m][n][2i + 1]: row 64m + 16w + 8i + l / 4 of the team, columns 8n + 2 (l % 4) and the next, for
 * warp w of the team and its item l. */
typedef struct sums {
    float c[BLOCKS][BROAD / 8][4];
} sums;

INLINED void sums_clear(private sums *s) {
    UNROLL
    for (uint m = 0; m < BLOCKS; ++m)
        UNROLL
    for (uint n = 0; n < BROAD / 8; ++n)
        UNROLL
    for (uint x = 0; x < 4; ++x)
        s->c[m][n][x] = 0.0f;
}

/* Rows on their way into tiles: an item's chunk of its first row, and how many rows there are from that one on; of an
 * operand that lies transposed, how many columns from that chunk on. */
typedef struct feed {
    global const uchar *at;
    uint row_bytes, rows;
} feed;

INLINED void feed_begin(private feed *f, const bool transposed, global const ushort *x, INDEX stride, uint first,
                        uint rows) {
    uint down = (uint)get_local_id(0) / 8, across = (uint)get_local_id(0) % 8 * 8;
    uint row = first + (transposed ? across : down);
    bool inside = row < rows;
    if (transposed)
        x += (INDEX)down * stride + (inside ? row : 0);
    else
        x += inside ? (INDEX)row * stride + across : 0;
    f->at = (global const uchar *)x;
    f->row_bytes = (uint)stride * 2;
    f->rows = inside ? rows - row : 0;
}

/* Where an item's first chunk lies in a tile; STEP rows further down it is STEP · 128 bytes further. */
INLINED uint place_in_tile(void) {
    uint item = get_local_id(0);
    return item / 8 * 128 + ((item ^ item / 8) & 7) * 16;
}

#if MATRIX_UNITS
#include "gemm/gemm_wgmma.clh"

/* A copy of 16 bytes, or of zeros, from so many rows further down. */
INLINED void chunk_copy(local uchar *to, global const uchar *from, uint row_bytes, uint rows, bool inside) {
    __asm__ volatile("{ .reg .b64 at; mad.wide.u32 at, %2, %3, %1; "
                     "cp.async.cg.shared.global.L2::128B [%0], [at], 16, %4; }" ::"r"((uint)(ulong)to),
                     "l"(from), "r"(row_bytes), "r"(rows), "r"(inside ? 16u : 0u)
                     : "memory");
}

/* Copies begun since the last end are one group; all groups but the last STAGES − 3 are done. */
INLINED void copies_end(void) {
    __asm__ volatile("cp.async.commit_group;" ::: "memory");
}
INLINED void copies_wait(void) {
    __asm__ volatile("cp.async.wait_group %0;" ::"n"(STAGES - 3) : "memory");
    __asm__ volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Begins a part's products; before it, all but the part's before are done. */
INLINED void part_begin(warp w, private sums *s, local uchar *part) {
    uint a = wide_tile((local const ushort *)part) + w.index / 4 * (BLOCKS * 512),
         b = wide_tiles((local const ushort *)part, B_TRANSPOSED ? DEPTH * 8 : 64) + HIGH * 8;
    WIDE_BEGIN();
    UNROLL
    for (uint d = 0; d < DEPTH / 16; ++d)
        UNROLL
    for (uint m = 0; m < BLOCKS; ++m)
        UNROLL
    for (uint n = 0; n < BROAD; n += EACH)
        WIDE_PRODUCT(s->c[m] + n / 8, a + m * 512 + d * (A_TRANSPOSED ? 128 : 2),
                     b + n * 8 + d * (B_TRANSPOSED ? 128 : 2));
    WIDE_END();
}

INLINED void part_end(void) {
    __asm__ volatile(SM_90A "wgmma.wait_group.sync.aligned 1;" ::: "memory");
}

INLINED void sums_settle(private sums *s) {
    UNROLL
    for (uint m = 0; m < BLOCKS; ++m)
        WIDE_WAIT(s->c[m], BROAD / 8, "0");
}
#else
#define WIDE_ROOM(room, size) local uchar room[size] __attribute__((aligned(16)));

INLINED void chunk_copy(local uchar *to, global const uchar *from, uint row_bytes, uint rows, bool inside) {
    copy_start_or_zero(to, from + (ulong)row_bytes * rows, inside);
}
INLINED void copies_end(void) {}
INLINED void copies_wait(void) {}

/* Row r, column d of a tile, and, of one that lies transposed, the other way round. */
#define TILE_AT(tile, r, d) ((local const ushort *)((tile) + (r)*128 + (((d) / 8 ^ (r)) & 7) * 16) + (d) % 8)
#define TURNED_AT(tile, r, d) TILE_AT((tile) + (r) / 64 * (DEPTH * 128), d, (r) % 64)

INLINED void part_begin(warp w, private sums *s, local uchar *part) {
    local uchar *a = part + w.index / 4 * (BLOCKS * 64 * 128), *b = part + HIGH * 128;
    uint lower = w.lane % 8, middle = w.lane / 8 % 2 * 8, upper = w.lane / 16 * 8;
    for (uint d = 0; d < DEPTH; d += 16)
        for (uint m = 0; m < BLOCKS; ++m)
            for (uint n = 0; n < BROAD; n += 16) {
                uint x[4], y[4], row = m * 64 + w.index % 4 * 16;
                if (A_TRANSPOSED)
                    load_tiles_transposed(w, x, TURNED_AT(a, row + middle, d + upper + lower));
                else
                    load_tiles(w, x, TILE_AT(a, row + middle + lower, d + upper));
                if (B_TRANSPOSED)
                    load_tiles_transposed(w, y, TURNED_AT(b, n + upper, d + middle + lower));
                else
                    load_tiles(w, y, TILE_AT(b, n + upper + lower, d + middle));
                mma(w, s->c[m][n / 8], x, y[0], y[1]);
                mma(w, s->c[m][n / 8 + 1], x, y[2], y[3]);
            }
}
INLINED void part_end(void) {}
INLINED void sums_settle(private sums *s) {}
#endif

/* Begins the copies of DEPTH columns of `high` rows, of what is inside: `left` columns. */
INLINED void rows_copy(const uint high, const bool transposed, local uchar *to, private const feed *f, INDEX column,
                       uint left) {
    uint down = (uint)get_local_id(0) / 8, across = (uint)get_local_id(0) % 8 * 8;
    bool there = transposed || across < left;
    global const uchar *from = f->at + (there ? column * (transposed ? (ulong)f->row_bytes : 2) : 0);
    uint inside = there ? f->rows : 0;
    UNROLL
    for (uint row = 0; row < high; row += STEP)
        if (transposed)
            chunk_copy(to + row * 128, from + row / 64 * 128, f->row_bytes, row % 64,
                       row / 64 * 64 < inside && down + row % 64 < left);
        else if (row + STEP <= high || row + down < high)
            chunk_copy(to + row * 128, from, f->row_bytes, row, row < inside);
}

/* The same where all are: without a question for each. */
INLINED void rows_copy_whole(const uint high, const bool transposed, local uchar *to, private const feed *f,
                             INDEX column) {
    global const uchar *from = f->at + column * (transposed ? (ulong)f->row_bytes : 2);
    UNROLL
    for (uint row = 0; row < high; row += STEP)
        if (transposed)
            copy_start_below(to + row * 128, from + row / 64 * 128, f->row_bytes, row % 64);
        else if (row + STEP <= high || row + get_local_id(0) / 8 < high)
            copy_start_below(to + row * 128, from, f->row_bytes, row);
}

/* A tile of c by its number, in tiles: x along the columns, y along the rows. */
INLINED uint2 tile_of(uint rows, uint columns, uint number) {
    uint down = (rows + HIGH - 1) / HIGH, across = (columns + BROAD - 1) / BROAD;
    uint band = number / (BAND * across), within = number % (BAND * across), high = min(down - band * BAND, (uint)BAND);
    return (uint2)(within / high, band * BAND + within % high);
}

/* From columns 2t, 2t + 1 of two blocks to four columns of the first block for even items, of the second for odd ones:
 * whole sectors of memory are written. */
INLINED uint2 four_columns(warp w, uint first, uint second) {
    bool odd = w.lane % 2;
    uint other = as_uint(exchange(w, as_float(odd ? first : second), 1));
    return odd ? (uint2)(other, second) : (uint2)(first, other);
}

/* Stores what a row's four items hold of blocks n and n + 1, of which `blocks` are inside; p: the first's first. */
#define STORE_BLOCKS(type, w, p, first, second, blocks) CAT(STORE_BLOCKS_, type)(w, p, first, second, blocks)
#define STORE_BLOCKS_F32(w, p, first, second, blocks)                                                                  \
    if (blocks > 0)                                                                                                    \
        *(global float2 *)((p) + (w).lane % 4 * 2) = (float2)((first)[0], (first)[1]);                                 \
    if (blocks > 1)                                                                                                    \
        *(global float2 *)((p) + 8 + (w).lane % 4 * 2) = (float2)((second)[0], (second)[1]);
#define STORE_BLOCKS_F16(w, p, first, second, blocks) STORE_HALVES(w, p, first, second, blocks, pack_F16)
#define STORE_BLOCKS_BF16(w, p, first, second, blocks) STORE_HALVES(w, p, first, second, blocks, pack_BF16)
#define STORE_HALVES(w, p, first, second, blocks, pack)                                                                \
    uint2 four_ = four_columns(w, pack((first)[0], (first)[1]), pack((second)[0], (second)[1]));                       \
    if ((w).lane % 2 < blocks)                                                                                         \
        *(global uint2 *)((p) + (w).lane % 2 * 8 + (w).lane % 4 / 2 * 4) = four_;

/* Parts of the group's tiles on their way into local memory, in their order: the next one is DEPTH columns of tile
 * `number` from `column` on. */
typedef struct course {
    global const ushort *a_from, *b_from;
    INDEX a_stride, b_stride;
    uint rows, columns, depth, tiles;
    feed a, b;
    uint number, column;
    bool whole; /* nothing of the tile lies outside */
} course;

INLINED void course_aim(private course *o) {
    uint2 tile = tile_of(o->rows, o->columns, o->number);
    feed_begin(&o->a, A_TRANSPOSED, o->a_from, o->a_stride, tile.y * HIGH, o->rows);
    feed_begin(&o->b, B_TRANSPOSED, o->b_from, o->b_stride, tile.x * BROAD, o->columns);
    o->whole = (tile.y + 1) * HIGH <= o->rows && (tile.x + 1) * BROAD <= o->columns;
}

INLINED void course_copy(private course *o, local uchar *to) {
    if (o->number < o->tiles && o->whole && o->column + DEPTH <= o->depth) {
        rows_copy_whole(HIGH, A_TRANSPOSED, to, &o->a, o->column);
        rows_copy_whole(BROAD, B_TRANSPOSED, to + HIGH * 128, &o->b, o->column);
    } else if (o->number < o->tiles) {
        rows_copy(HIGH, A_TRANSPOSED, to, &o->a, o->column, o->depth - o->column);
        rows_copy(BROAD, B_TRANSPOSED, to + HIGH * 128, &o->b, o->column, o->depth - o->column);
    }
    copies_end();
    o->column += DEPTH;
    if (o->column >= o->depth && o->number < o->tiles) {
        o->column = 0;
        o->number += get_num_groups(0);
        course_aim(o);
    }
}

/* Stores what is inside of the group's tile. */
INLINED void sums_store(warp w, private sums *s, global ELEMENT(C_TYPE) *c, INDEX stride, uint2 tile, uint rows,
                        uint columns) {
    uint row = tile.y * HIGH, column = tile.x * BROAD;
    UNROLL
    for (uint m = 0; m < BLOCKS; ++m)
        UNROLL
    for (uint i = 0; i < 2; ++i) {
        uint at = row + (w.index / 4 * BLOCKS + m) * 64 + w.index % 4 * 16 + i * 8 + w.lane / 4;
        uint blocks = at < rows ? (columns - column) / 8 : 0;
        UNROLL
        for (uint n = 0; n < BROAD / 8; n += 2) {
            uint left = max(blocks, n) - n;
            global ELEMENT(C_TYPE) *to = c + at * stride + column + 8 * n;
            STORE_BLOCKS(C_TYPE, w, to, &s->c[m][n][2 * i], &s->c[m][n + 1][2 * i], left)
        }
    }
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void gemm_wgmma(uint rows, uint columns, uint depth, uint heads,
                                                                       global const ELEMENT(A_TYPE) *a, INDEX4 a_at,
                                                                       global const ELEMENT(A_TYPE) *b, INDEX4 b_at,
                                                                       global ELEMENT(C_TYPE) *c, INDEX4 c_at) {
    WIDE_ROOM(tiles, STAGES * PART)
    WARP_DECLARE(w)
    uint batch = get_global_id(2) / heads, head = get_global_id(2) % heads;
    c += c_at.s0 + batch * c_at.s1 + head * c_at.s2;
    course next = {.a_from = (global const ushort *)a + a_at.s0 + batch * a_at.s1 + head * a_at.s2,
                   .b_from = (global const ushort *)b + b_at.s0 + batch * b_at.s1 + head * b_at.s2,
                   .a_stride = a_at.s3,
                   .b_stride = b_at.s3,
                   .rows = rows,
                   .columns = columns,
                   .depth = depth,
                   .tiles = ((rows + HIGH - 1) / HIGH) * ((columns + BROAD - 1) / BROAD),
                   .number = get_group_id(0)};
    course_aim(&next);

    local uchar *place = tiles + place_in_tile();
    for (uint stage = 0; stage < STAGES - 2; ++stage)
        course_copy(&next, place + stage * PART);
    /* A part goes where the one before the last was: that one's products are done, of all teams at the barrier. The
     * next tile's first parts are on their way while this one's sums are stored. */
    uint now = 0, to = (STAGES - 2) * PART;
    for (uint number = get_group_id(0); number < next.tiles; number += get_num_groups(0)) {
        sums s;
        sums_clear(&s);
        for (uint d = 0; d < depth; d += DEPTH) {
            copies_wait();
            barrier(CLK_LOCAL_MEM_FENCE);
            part_begin(w, &s, tiles + now);
            course_copy(&next, place + to);
            part_end();
            now = now + PART == STAGES * PART ? 0 : now + PART;
            to = to + PART == STAGES * PART ? 0 : to + PART;
        }
        sums_settle(&s);
        sums_store(w, &s, c, c_at.s3, tile_of(rows, columns, number), rows, columns);
    }
}
