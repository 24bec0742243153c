/* Which rows are whose. */
#include <clsplat/ranks.h>

#include "base/sized.h"
#include "op/op.h"

/* Piece `i` of `pieces` of so many rows. */
static clsplat_run piece_of(size_t rows, size_t pieces, size_t i) {
    size_t least = rows / pieces, more = rows % pieces;
    size_t begin = i * least + (i < more ? i : more);
    return (clsplat_run){begin, least + (i < more ? 1 : 0)};
}

static size_t below(size_t rows, int64_t at) {
    return at < 0 ? 0 : at > (int64_t)rows ? rows : (size_t)at;
}

/* The queries whose last key is one of these; those that see none are the first rank's. */
static clsplat_run queries_of(clsplat_run keys, size_t queries, size_t all_keys, bool first, bool last) {
    int64_t diagonal = (int64_t)all_keys - (int64_t)queries;
    size_t begin = first ? 0 : below(queries, (int64_t)keys.begin - diagonal);
    size_t end = last ? queries : below(queries, (int64_t)(keys.begin + keys.count) - diagonal);
    return (clsplat_run){begin, end > begin ? end - begin : 0};
}

/* Keys of trees that share their covariances, of chunks of any size that the library chooses itself. */
static size_t far_unit(const clsplat_attention *attention) {
    enum { LARGEST = 256 };
    return OP_FOREST_RUN * (attention->chunk ? attention->chunk : LARGEST);
}

static clsplat_run whole_units(size_t rows, size_t unit, size_t pieces, size_t i) {
    clsplat_run units = piece_of((rows + unit - 1) / unit, pieces, i);
    size_t begin = units.begin * unit < rows ? units.begin * unit : rows, end = begin + units.count * unit;
    return (clsplat_run){begin, (end < rows ? end : rows) - begin};
}

clsplat_part clsplat_ranks_part_sized(const clsplat_attention *attention_given, size_t queries, size_t keys,
                                      size_t ranks, size_t rank) {
    clsplat_part part = {0};
    clsplat_attention attention = clsplat_attention_defaults();
    if (SIZED_READ(NULL, attention, attention_given) != CLSPLAT_OK)
        return part;
    if (attention.method != CLSPLAT_SPLATS) {
        size_t pieces[CLSPLAT_RUNS] = {rank, 2 * ranks - 1 - rank};
        for (int i = 0; i < CLSPLAT_RUNS; ++i) {
            part.queries[i] = piece_of(queries, 2 * ranks, pieces[i]);
            part.keys[i] = piece_of(keys, 2 * ranks, pieces[i]);
            if (attention.method != CLSPLAT_NEAR_FAR)
                continue;
            part.keys[i] = whole_units(keys, far_unit(&attention), 2 * ranks, pieces[i]);
            if (attention.causal) /* a row's own chunk is where the row is */
                part.queries[i] =
                    queries_of(part.keys[i], queries, keys, pieces[i] == 0, pieces[i] + 1 == 2 * ranks);
        }
        return part;
    }
    part.keys[0] = piece_of(keys, ranks, rank);
    part.queries[0] = attention.causal ? queries_of(part.keys[0], queries, keys, rank == 0, rank + 1 == ranks)
                                       : piece_of(queries, ranks, rank);
    return part;
}
