/* Which rows are whose. */
#include <clsplat/ranks.h>

#include "base/sized.h"

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
        }
        return part;
    }
    part.keys[0] = piece_of(keys, ranks, rank);
    part.queries[0] = attention.causal ? queries_of(part.keys[0], queries, keys, rank == 0, rank + 1 == ranks)
                                       : piece_of(queries, ranks, rank);
    return part;
}
