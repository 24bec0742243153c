/* Splat layers in a session (op/splat_layer.h has what they compute): the features of keys, and the splats'
 * states of completed chunks. */
#ifndef CLSPLAT_MODEL_SPLATS_H
#define CLSPLAT_MODEL_SPLATS_H

#include "model/attention.h"
#include "model/block.h"

typedef struct splat_layer {
    op_tensor g, base;                  /* [1,Hk,S,2·D], [1,Hk,S,1] */
    op_tensor keys, strength;           /* [1,1,capacity,Hk·2·D], [1,1,capacity,Hk]: of all tokens */
    op_tensor lse, value;               /* [chunks,Hk,S,…]: of a chunk */
    op_tensor prefix_lse, prefix, bias; /* the same: of what came before */
} splat_layer;

struct splat_adapting; /* model/splats_adapt.h */

typedef struct splat_store {
    const clsplat_model *model;
    size_t capacity;
    splat_layer *layers;             /* [layers]; those of other kinds are empty */
    op_tensor queries;               /* [1,1,rows,H·2·D]: of the tokens that are being read */
    const op_tensor *v;              /* [layers] of [1,Hk,capacity,D]: the session's */
    struct splat_adapting *adapting; /* NULL: they stay as they are */
} splat_store;

/* A store of a session of `capacity` tokens with values `v`. Ownership: *store is the caller's, also after a
 * failure, for splat_store_close; NULL for a model without such layers. Returns: UNSUPPORTED (activations or
 * a cache that are not float32), MEMORY, OPENCL. */
clsplat_status splat_store_open(const clsplat_model *model, size_t capacity, const op_tensor *v,
                                splat_store **store);
/* Accepts NULL and a NULL handle; sets *store to NULL. */
void splat_store_close(splat_store **store);

/* Before the block's heads are turned: their features, and how strongly each is written. `first`: the first
 * row's token. */
clsplat_status splat_store_look(const block *b, splat_store *s, size_t layer, size_t first);
/* Once v, which ends with the block's last token, is there: the states of chunks that are complete now. */
clsplat_status splat_store_write(const block *b, splat_store *s, size_t layer, size_t first, op_tensor v);
/* Rows [1,1,n,heads·columns] as [1,heads,n,columns]; as chunks from `begin` on, [count,heads,chunk,columns];
 * and the states before each of the chunks [begin, end). */
op_tensor splat_store_heads(op_tensor rows, size_t heads, size_t columns);
op_tensor splat_store_chunks(op_tensor rows, size_t begin, size_t count, size_t chunk);
clsplat_status splat_store_scan(queue *q, const splat_store *s, size_t layer, size_t begin, size_t end);

/* In place of a form's attend. */
clsplat_status splat_store_attend(const block *b, splat_store *s, const attention_step *step);

#endif
