#include "parallel/far.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/buffer.h"

enum { KEYS, VALUES, BIASES, MEANS, VARIANCES, MEAN_VALUES, STATS, COVARIANCES, APART };

/* Goes through the numbers of units: counts their bytes, or takes them out of the copy, or puts them in. */
typedef struct mover {
    far_forest *forest;
    enum { COUNT, OUT, IN } how;
    char *at;
    size_t bytes;
} mover;

static void move(mover *m, char *here, size_t bytes) {
    if (m->how == OUT)
        memcpy(m->at + m->bytes, here, bytes);
    else if (m->how == IN)
        memcpy(here, m->at + m->bytes, bytes);
    m->bytes += bytes;
}

/* Lane n of an array of blocks [columns][16]. */
static void move_lane(mover *m, int which, size_t n, size_t columns, size_t size) {
    for (size_t d = 0; d < columns; ++d)
        move(m, m->forest->host[which] + ((n / 16 * columns + d) * 16 + n % 16) * size, size);
}

static void move_row(mover *m, int which, size_t n, size_t columns, size_t size) {
    move(m, m->forest->host[which] + n * columns * size, columns * size);
}

static void move_node(mover *m, size_t head, size_t level, size_t g) {
    const op_forest *f = &m->forest->f;
    size_t stored = clsplat_dtype_size(f->dtype), below = f->first_block[f->top];
    size_t n = (head * f->first_block[f->levels] + f->first_block[level]) * 16 + g;
    move_lane(m, MEANS, n, f->dim, stored);
    if (level >= f->top)
        move_lane(m, VARIANCES,
                  (head * (f->first_block[f->levels] - below) + f->first_block[level] - below) * 16 + g,
                  f->dim, sizeof(float));
    move_row(m, MEAN_VALUES, n, f->value_dim, stored);
    move_lane(m, STATS, n, OP_NODE_STATS, sizeof(float));
}

static void move_below(mover *m, size_t head, size_t g) {
    const op_forest *f = &m->forest->f;
    for (size_t level = 0; level < f->top; ++level) {
        size_t nodes = f->chunk / forest_size(f, level);
        for (size_t i = 0; i < nodes; ++i)
            move_node(m, head, level, g * nodes + i);
    }
}

static void move_slot(mover *m, size_t head, size_t slot) {
    const op_forest *f = &m->forest->f;
    size_t stored = clsplat_dtype_size(f->dtype);
    size_t n = head * (f->chunks * f->chunk + forest_apart_room(f)) + slot;
    move_lane(m, KEYS, n, f->dim, stored);
    move_row(m, VALUES, n, f->value_dim, stored);
    move_row(m, BIASES, n, 1, sizeof(float));
}

/* How many keys stand apart before a chunk, of a head; and the list of those of a chunk. */
static cl_uint *apart_before(const far_forest *forest, size_t head, size_t g) {
    const op_forest *f = &forest->f;
    size_t list = forest_apart_each(f) + FOREST_APART_FIRST;
    return (cl_uint *)(void *)forest->host[APART] + head * (f->chunks + 1 + f->chunks * list) + g;
}

static void move_list(mover *m, size_t head, size_t g) {
    const op_forest *f = &m->forest->f;
    size_t list = forest_apart_each(f) + FOREST_APART_FIRST;
    move(m, (char *)apart_before(m->forest, head, g + 1), sizeof(cl_uint));
    move(m, (char *)(apart_before(m->forest, head, f->chunks + 1) + g * list), list * sizeof(cl_uint));
}

static size_t each_of(const op_forest *f, far_kind kind) {
    return kind == FAR_APART  ? forest_apart_room(f)
           : kind == FAR_KEYS ? f->chunks * f->chunk / f->leaf
                              : f->chunks;
}

static void move_unit(mover *m, far_kind kind, size_t unit) {
    const op_forest *f = &m->forest->f;
    size_t head = unit / each_of(f, kind), i = unit % each_of(f, kind);
    if (kind == FAR_LISTS)
        move_list(m, head, i);
    else if (kind == FAR_CHUNKS)
        move_node(m, head, f->top, i);
    else if (kind == FAR_BELOW)
        move_below(m, head, i);
    else if (kind == FAR_APART)
        move_slot(m, head, f->chunks * f->chunk + i);
    else
        for (size_t s = 0; s < f->leaf; ++s)
            move_slot(m, head, i * f->leaf + s);
}

static clsplat_status no_memory(const far_forest *forest, size_t bytes) {
    return log_error(forest->call->ranks->lib, CLSPLAT_MEMORY,
                     "no memory for %zu bytes of other ranks' nodes and keys", bytes);
}

static clsplat_status list_add(far_forest *forest, far_list *list, size_t unit) {
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 256;
        uint32_t *units = realloc(list->units, room * sizeof *units);
        if (!units)
            return no_memory(forest, room * sizeof *units);
        list->units = units;
        list->room = room;
    }
    list->units[list->count++] = (uint32_t)unit;
    return CLSPLAT_OK;
}

/* To the rank `step` places after this one what it is to have, while that before it sends. */
static clsplat_status trade_with(far_forest *forest, far_kind kind, int step) {
    clsplat_status status = CLSPLAT_OK, room = CLSPLAT_OK;
    clsplat_ranks *r = forest->call->ranks;
    mover size = {.forest = forest};
    int to = (r->own + step) % r->count, from = (r->own + r->count - step) % r->count;
    const far_list *out = &forest->out[to], *in = &forest->in[from];
    if (out->count + in->count > 0)
        move_unit(&size, kind, out->count ? out->units[0] : in->units[0]);
    char *sent = malloc(out->count * size.bytes + 1), *got = malloc(in->count * size.bytes + 1);
    if (!sent || !got)
        room = no_memory(forest, (out->count + in->count) * size.bytes);
    TRY(clsplat_ranks_agree(r, room));
    mover m = {.forest = forest, .how = OUT, .at = sent};
    for (size_t i = 0; i < out->count; ++i)
        move_unit(&m, kind, out->units[i]);
    exchange e = {.ranks = r,
                  .out = sent,
                  .out_bytes = m.bytes,
                  .to = to,
                  .in = got,
                  .in_bytes = in->count * size.bytes,
                  .from = from};
    TRY(exchange_end(&e));
    m = (mover){.forest = forest, .how = IN, .at = got};
    for (size_t i = 0; i < in->count; ++i)
        move_unit(&m, kind, in->units[i]);
fail:
    free(sent);
    free(got);
    return status;
}

static clsplat_status trade(far_forest *forest, far_kind kind) {
    clsplat_status status = CLSPLAT_OK;
    for (int step = 1; step < forest->call->ranks->count; ++step)
        TRY(trade_with(forest, kind, step));
fail:
    return status;
}

static void clear(far_forest *forest) {
    for (int i = 0; i < forest->call->ranks->count; ++i)
        forest->out[i].count = forest->in[i].count = 0;
}

/* What a chunk has of a kind goes from its owner to all others. */
static clsplat_status list_chunk(far_forest *forest, far_kind kind, size_t head, size_t g) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = &forest->f;
    int own = forest->call->ranks->own;
    size_t first = g, last = g + 1;
    if (kind == FAR_APART) {
        first = *apart_before(forest, head, g);
        last = *apart_before(forest, head, g + 1);
        last = last < forest_apart_room(f) ? last : forest_apart_room(f);
    }
    for (size_t i = first; i < last; ++i)
        for (int rank = 0; rank < forest->call->ranks->count; ++rank) {
            if (forest->owner[g] == own && rank != own)
                TRY(list_add(forest, &forest->out[rank], head * each_of(f, kind) + i));
            else if (forest->owner[g] == rank && rank != own)
                TRY(list_add(forest, &forest->in[rank], head * each_of(f, kind) + i));
        }
fail:
    return status;
}

clsplat_status far_tell_all(far_forest *forest, far_kind kind) {
    clsplat_status status = CLSPLAT_OK, listed = CLSPLAT_OK;
    const op_forest *f = &forest->f;
    clear(forest);
    for (size_t head = 0; head < f->batch * f->heads; ++head)
        for (size_t g = 0; g < f->chunks && listed == CLSPLAT_OK; ++g)
            listed = list_chunk(forest, kind, head, g);
    TRY(clsplat_ranks_agree(forest->call->ranks, listed));
    TRY(trade(forest, kind));
    clear(forest);
fail:
    return status;
}

/* Notes a wanted unit as one that comes from its owner, once. */
static clsplat_status miss(far_forest *forest, far_kind kind, size_t unit, int owner) {
    /* Kinds come one after the other: the units of nodes lie before those of keys. */
    size_t shift = kind == FAR_KEYS ? forest->f.batch * forest->f.heads * forest->f.chunks : 0;
    return list_add(forest, &forest->in[owner], shift + unit);
}

clsplat_status far_miss(far_forest *forest, const cl_uint *wanted, bool *missing) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = &forest->f;
    size_t leaves = f->chunks * f->chunk / f->leaf, each = f->chunk / f->leaf;
    *missing = false;
    for (size_t head = 0; head < f->batch * f->heads; ++head) {
        const cl_uint *of = wanted + head * f->first_block[f->levels], *tops = of + f->first_block[f->top];
        for (size_t g = 0; g < f->chunks; ++g)
            if ((tops[g / 16] >> g % 16 & 1) && !forest->here[head * f->chunks + g]) {
                *missing = true;
                TRY(miss(forest, FAR_BELOW, head * f->chunks + g, forest->owner[g]));
            }
        for (size_t leaf = 0; leaf < leaves; ++leaf)
            if ((of[leaf / 16] >> leaf % 16 & 1) && !forest->keys_here[head * leaves + leaf]) {
                *missing = true;
                TRY(miss(forest, FAR_KEYS, head * leaves + leaf, forest->owner[leaf / each]));
            }
    }
fail:
    return status;
}

static int by_unit(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Each once: several blocks of rows may have missed it. */
static void sort_out(far_list *list) {
    size_t kept = 0;
    if (list->count > 1)
        qsort(list->units, list->count, sizeof *list->units, by_unit);
    for (size_t i = 0; i < list->count; ++i)
        if (i == 0 || list->units[i] != list->units[kept - 1])
            list->units[kept++] = list->units[i];
    list->count = kept;
}

/* What the others request of this rank: lists of units. */
static clsplat_status receive_requests(far_forest *forest) {
    clsplat_status status = CLSPLAT_OK, room = CLSPLAT_OK;
    clsplat_ranks *r = forest->call->ranks;
    uint64_t *mine = calloc((size_t)r->count, sizeof *mine),
             *theirs = calloc((size_t)r->count, sizeof *theirs);
    room = mine && theirs ? CLSPLAT_OK : no_memory(forest, (size_t)r->count * 16);
    for (int i = 0; i < r->count && room == CLSPLAT_OK; ++i) {
        sort_out(&forest->in[i]);
        mine[i] = forest->in[i].count;
    }
    TRY(clsplat_ranks_agree(r, room));
    TRY_MPI(r, MPI_Alltoall(mine, 1, MPI_UINT64_T, theirs, 1, MPI_UINT64_T, r->comm));
    for (int i = 0; i < r->count && room == CLSPLAT_OK; ++i)
        while (forest->out[i].count < theirs[i] && room == CLSPLAT_OK)
            room = list_add(forest, &forest->out[i], 0);
    TRY(clsplat_ranks_agree(r, room));
    for (int step = 1; step < r->count; ++step) {
        int to = (r->own + step) % r->count, from = (r->own + r->count - step) % r->count;
        exchange e = {.ranks = r,
                      .out = (const char *)forest->in[to].units,
                      .out_bytes = forest->in[to].count * sizeof(uint32_t),
                      .to = to,
                      .in = (char *)forest->out[from].units,
                      .in_bytes = forest->out[from].count * sizeof(uint32_t),
                      .from = from};
        TRY(exchange_end(&e));
    }
fail:
    free(mine);
    free(theirs);
    return status;
}

/* The part of a sorted list that is of a kind, its units numbered from 0. */
static far_list part_of(const far_list *list, size_t nodes, far_kind kind) {
    size_t split = 0;
    while (split < list->count && list->units[split] < nodes)
        ++split;
    far_list part = {.units = list->units, .count = split};
    if (kind == FAR_KEYS) {
        part = (far_list){.units = list->units + split, .count = list->count - split};
        for (size_t i = 0; i < part.count; ++i)
            part.units[i] -= (uint32_t)nodes;
    }
    return part;
}

/* Both kinds, one after the other. */
static clsplat_status trade_kind(far_forest *forest, far_list *lists[2], far_kind kind) {
    size_t nodes = forest->f.batch * forest->f.heads * forest->f.chunks;
    int count = forest->call->ranks->count;
    far_list *whole[2] = {forest->out, forest->in};
    for (int i = 0; i < 2; ++i)
        for (int rank = 0; rank < count; ++rank)
            lists[i][rank] = part_of(&whole[i][rank], nodes, kind);
    forest->out = lists[0];
    forest->in = lists[1];
    clsplat_status status = trade(forest, kind);
    forest->out = whole[0];
    forest->in = whole[1];
    for (int rank = 0; rank < count && status == CLSPLAT_OK; ++rank)
        for (size_t i = 0; i < lists[1][rank].count; ++i) {
            if (kind == FAR_KEYS)
                forest->keys_here[lists[1][rank].units[i]] = 1;
            else
                forest->here[lists[1][rank].units[i]] = 1;
        }
    return status;
}

clsplat_status far_fetch(far_forest *forest) {
    clsplat_status status = CLSPLAT_OK;
    size_t count = (size_t)forest->call->ranks->count;
    far_list *parts = calloc(2 * count, sizeof *parts), *lists[2] = {parts, parts + count};
    TRY(clsplat_ranks_agree(forest->call->ranks,
                            parts ? CLSPLAT_OK : no_memory(forest, 2 * count * sizeof *parts)));
    TRY(receive_requests(forest));
    TRY(trade_kind(forest, lists, FAR_BELOW));
    TRY(trade_kind(forest, lists, FAR_KEYS));
    clear(forest);
fail:
    free(parts);
    return status;
}
