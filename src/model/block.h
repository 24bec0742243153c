/* One layer over rows of tokens, as layer_kind describes it. What differs between writing a text and reading
 * whole ones is a driver's: where keys and values stay, and what sees what. */
#ifndef CLSPLAT_MODEL_BLOCK_H
#define CLSPLAT_MODEL_BLOCK_H

#include "model/model.h"

typedef struct block block;

typedef struct block_driver {
    /* The rows' projections are in scratch.qkv, without bias: keys and values go where they stay. */
    clsplat_status (*take)(const block *b, size_t layer);
    /* The live rows' queries, which `take` has left, become block_rows(b, scratch.attended). */
    clsplat_status (*attend)(const block *b, size_t layer);
} block_driver;

/* Rows on their way. `live` rows, the last ones, are still needed: in the last layer perhaps only one, or
 * none beyond its keys and values. */
struct block {
    queue *q;
    const clsplat_model *model;
    const block_driver *driver;
    void *user; /* the driver's */
    size_t count, live;
};

/* The live rows of a scratch tensor. */
op_tensor block_rows(const block *b, op_tensor tensor);
/* Rows whose columns are heads of D each: [1,1,n,heads·D] as [1,heads,n,D], from head `first` on, without a
 * copy. An absent tensor stays absent. */
op_tensor block_heads(op_tensor rows, size_t first, size_t heads, size_t dim);
/* out = scale · embedding of ids from `first` on; `scale` as op_embed has it. */
clsplat_status block_embed(const block *b, cl_mem ids, size_t first, float scale, op_tensor out);

/* out = norm(x); without one a copy. */
clsplat_status block_norm(const block *b, op_tensor x, const model_norm *norm, op_tensor out);

/* Before the first layer, with the embeddings of all rows in scratch.x. `added` are rows to be added to them,
 * or absent; `bias` too. Leaves in scratch.h what the first layer reads. */
clsplat_status block_begin(const block *b, op_tensor added, op_tensor bias);

/* Reads the rows in scratch.h; leaves the live ones of `live` for the next layer there, or after the last
 * layer, as the head reads them, in `to`. */
clsplat_status block_layer(block *b, size_t layer, op_tensor to);

/* The head's logits of rows that the last layer left. Writes over them if the head has a layer of its own. */
clsplat_status block_logits(queue *q, const clsplat_model *model, op_tensor rows, op_tensor logits);

#endif
