#include "op/tree/forest.h"

#include <assert.h>

#include "op/kernel.h"
#include "runtime/buffer.h"

/* Siblings in a block: the vectors of the kernels. */
enum { BLOCK = 16, SHORT_CHUNK = 32, USUAL_CHUNK = 256 };

size_t forest_chunk(const clsplat_limits *limits, size_t keys, size_t sparse_topk) {
    enum { SHORT = 4096, SHORT_WIDE = 16384 };
    size_t chunk = keys <= (limits_are_wide(limits) ? SHORT_WIDE : SHORT) ? SHORT_CHUNK : USUAL_CHUNK,
           limit = sparse_topk && sparse_topk < keys ? sparse_topk : keys;
    while (chunk > CLSPLAT_CHUNK_LEAST && chunk > limit)
        chunk /= 2;
    return chunk;
}

/* Chunks of up to 256 keys are 16 leaves, which is fastest, unless that makes leaves too small to have
 * statistics. Those of 32, which are for short sequences, have leaves of 2, and those of 64 and of more than
 * 256 three levels: fewer keys at the same error, and more nodes. (SmolLM2 at 8,192 tokens, bits/byte and
 * keys: chunk 32, tolerance 0.16 +0.05 %, 3.2 %; chunk 64, leaves of 2, 0.15 +0.13 %, 3.2 %; of 4, 0.14 +0.15
 * %, 6.5 %; chunk 256, 0.1 +0.14 %, 15.6 % in less time.) */
static size_t leaf_of(size_t chunk) {
    if (chunk == SHORT_CHUNK || chunk == 2 * SHORT_CHUNK)
        return 2;
    size_t leaf = chunk <= BLOCK * BLOCK ? chunk / BLOCK : chunk / (BLOCK * BLOCK);
    size_t least = chunk < SHORT_CHUNK ? 4 : 2;
    return leaf < least ? least : leaf > FOREST_LEAF_MOST ? FOREST_LEAF_MOST : leaf;
}

static size_t apart_each(size_t chunk) {
    enum { SHARE = 32 };
    return chunk < SHARE ? 1 : chunk < 2 * SHARE ? 2 : chunk / SHARE;
}

size_t forest_apart_each(const op_forest *f) {
    return f->apart_chunks ? apart_each(f->chunk) : 0;
}

size_t forest_apart_room(const op_forest *f) {
    size_t most = f->apart_chunks < f->chunks ? f->apart_chunks : f->chunks;
    return most ? (FOREST_APART_FIRST + most * forest_apart_each(f) + BLOCK - 1) / BLOCK * BLOCK : 0;
}

/* A row may have to take its own chunk's keys and all that stand apart. */
static size_t apart_chunks(size_t chunk, size_t sparse_topk) {
    size_t room = sparse_topk > chunk ? sparse_topk - chunk : 0;
    if (!sparse_topk)
        return SIZE_MAX;
    room = room < sparse_topk / 4 ? room : sparse_topk / 4;
    return room > FOREST_APART_FIRST ? (room - FOREST_APART_FIRST) / apart_each(chunk) : 0;
}

size_t forest_size(const op_forest *f, size_t level) {
    return level < f->top ? f->leaf << 4 * level : f->chunk << 4 * (level - f->top);
}

static size_t blocks_of(size_t count) {
    return (count + BLOCK - 1) / BLOCK;
}

op_forest forest_shape(const op_tensor *k, const op_tensor *v, size_t keys, size_t chunk,
                       size_t sparse_topk) {
    assert(chunk >= CLSPLAT_CHUNK_LEAST && chunk <= CLSPLAT_CHUNK_MOST && (chunk & (chunk - 1)) == 0);
    op_forest f = {.batch = k->shape[0],
                   .heads = k->shape[1],
                   .dim = k->shape[3],
                   .value_dim = v->shape[3],
                   .dtype = k->dtype == v->dtype ? k->dtype : CLSPLAT_F32,
                   .leaf = leaf_of(chunk),
                   .chunk = chunk,
                   .chunks = keys ? (keys + chunk - 1) / chunk : 1,
                   .apart_chunks = apart_chunks(chunk, sparse_topk)};
    while (f.leaf << 4 * f.top < chunk)
        ++f.top;
    size_t slots = f.chunks * chunk, blocks = 0, nodes = 0;
    do {
        size_t size = forest_size(&f, f.levels);
        nodes = (slots + size - 1) / size;
        f.first_block[f.levels++] = blocks;
        blocks += blocks_of(nodes);
    } while ((nodes > 1 || f.levels <= f.top) && f.levels < OP_FOREST_LEVELS);
    f.first_block[f.levels] = blocks;
    return f;
}

/* Entries of a chunk's list. */
static size_t forest_apart_list(const op_forest *f) {
    return f->apart_chunks ? forest_apart_each(f) + FOREST_APART_FIRST : 0;
}

void forest_sizes(const op_forest *f, size_t bytes[FOREST_BUFFERS]) {
    size_t heads = f->batch * f->heads, slots = heads * (f->chunks * f->chunk + forest_apart_room(f)),
           stored = clsplat_dtype_size(f->dtype), blocks = heads * f->first_block[f->levels];
    bytes[0] = slots * f->dim * stored;
    bytes[1] = slots * f->value_dim * stored;
    bytes[2] = slots * sizeof(float);
    bytes[3] = blocks * BLOCK * f->dim * stored;
    bytes[4] = (blocks - heads * f->first_block[f->top]) * BLOCK * f->dim * sizeof(float);
    bytes[5] = blocks * BLOCK * f->value_dim * stored;
    bytes[6] = blocks * BLOCK * OP_NODE_STATS * sizeof(float);
    bytes[7] = heads * (f->chunks / OP_FOREST_RUN) * f->dim * f->value_dim * sizeof(float);
    bytes[8] = heads * (f->chunks + 1 + f->chunks * forest_apart_list(f)) * sizeof(cl_uint);
}

cl_mem *forest_buffer(op_forest *f, int which) {
    cl_mem *const all[FOREST_BUFFERS] = {&f->keys,  &f->values,      &f->biases,
                                         &f->means, &f->variances,   &f->mean_values,
                                         &f->stats, &f->covariances, &f->apart};
    return all[which];
}

clsplat_status forest_clear(queue *q, const op_forest *f) {
    size_t bytes[FOREST_BUFFERS];
    clsplat_status status = CLSPLAT_OK;
    size_t room = forest_apart_room(f), slots = f->chunks * f->chunk + room,
           stored = clsplat_dtype_size(f->dtype);
    forest_sizes(f, bytes);
    TRY(queue_fill(q, f->mean_values, 0, bytes[5], 0.0f));
    TRY(queue_fill(q, f->apart, 0, bytes[8], 0.0f)); /* counts of 0: nothing may ever be gathered */
    for (size_t head = 0; head < f->batch * f->heads && room; ++head) {
        size_t first = head * slots + slots - room;
        TRY(queue_fill(q, f->keys, first * f->dim * stored, room * f->dim * stored, 0.0f));
        TRY(queue_fill(q, f->values, first * f->value_dim * stored, room * f->value_dim * stored, 0.0f));
    }
fail:
    return status;
}

clsplat_status forest_create(clsplat_device *device, op_forest *f) {
    clsplat_status status = CLSPLAT_OK;
    size_t bytes[FOREST_BUFFERS];
    forest_sizes(f, bytes);
    for (int i = 0; i < FOREST_BUFFERS; ++i)
        *forest_buffer(f, i) = NULL;
    for (int i = 0; i < FOREST_BUFFERS; ++i)
        TRY(buffer_create(device, bytes[i], forest_buffer(f, i)));
    return CLSPLAT_OK;
fail:
    forest_release(device, f);
    return status;
}

void forest_release(clsplat_device *device, op_forest *f) {
    size_t bytes[FOREST_BUFFERS];
    if (f->levels == 0)
        return;
    forest_sizes(f, bytes);
    for (int i = 0; i < FOREST_BUFFERS; ++i)
        buffer_release(device, bytes[i], forest_buffer(f, i));
}
