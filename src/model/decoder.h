/* Tokens through the layers. */
#ifndef CLSPLAT_MODEL_DECODER_H
#define CLSPLAT_MODEL_DECODER_H

#include "model/session.h"

/* What the caller wants of a chunk's rows behind the last layer, normalised for the head. */
typedef enum decoder_rows {
    DECODER_NONE, /* only keys and values: more tokens follow */
    DECODER_LAST, /* the last row */
    DECODER_ALL
} decoder_rows;

/* `count` tokens, not more than the scratch has rows, that stand in the session's ids from `first` on and
 * follow its first `first` tokens. Writes: the session's `last` unless no rows are wanted. *out are the rows
 * that are wanted, until the next chunk. */
clsplat_status decoder_run(queue *q, clsplat_session *session, size_t first, size_t count, decoder_rows rows,
                           op_tensor *out);

/* The head's logits of rows [begin, begin + count) of `rows`. */
clsplat_status decoder_logits(queue *q, const clsplat_model *model, op_tensor rows, op_tensor logits);

#endif
