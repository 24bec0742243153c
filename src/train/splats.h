/* Splat layers in a pass (op/splat/splat_layer.h): what forward keeps of one, and its way there and back. */
#ifndef CLSPLAT_TRAIN_SPLATS_H
#define CLSPLAT_TRAIN_SPLATS_H

#include "train/pass.h"

/* Chunks of all windows are one batch: n = batch · length / splat_chunk; an encoder's windows are one chunk
 * each, all of whose tokens read the splats that all of them wrote (prefixes are not used). */
typedef struct pass_splats {
    op_tensor queries;  /* [1,1,rows,H·D]: before they are turned */
    op_tensor features; /* of keys: [1,1,rows,Hk·2·D] */
    op_tensor gates, mixture, biases,
        falls;         /* [1,1,rows,splat_gates·Hk], [n,Hk,chunk,1], [1,1,rows,Hk], [n,Hk,1,1] */
    op_tensor g, base; /* [1,Hk,S,2·D], [1,Hk,S,1] */
    op_tensor lse, value, prefix_lse, prefix, bias; /* [n,Hk,S,…] */
    op_tensor narrow_mean, narrow_value; /* as queries meet them in a pass that is not in float32 */
} pass_splats;

/* What backward needs besides, shared by layers. */
typedef struct pass_splats_scratch {
    op_tensor shared; /* [n,Hk,chunk,…]: what keys are shared out for, unread */
    op_tensor dfeatures, more, dgates, dmixture, dqkv; /* more: as dfeatures */
    op_tensor dg_parts, dg, dbase, dprefix, dbias, dlse, dvalue, dfalls;
    op_tensor unshifted, mix_parts; /* q, k and v of each token for itself; of splat_shift's gradient */
    op_tensor none;                 /* zeros */
} pass_splats_scratch;

/* Returns: INVALID (a length that is no multiple of the chunk), MEMORY. Ownership: the caller's, also after a
 * failure. */
clsplat_status pass_splats_open(const pass *p, pass_splats **splats);
void pass_splats_close(const pass *p, pass_splats **splats);
clsplat_status pass_splats_scratch_open(const pass *p, pass_splats_scratch **scratch);
void pass_splats_scratch_close(const pass *p, pass_splats_scratch **scratch);

/* q, k and v of p->h, with something of the token before where a layer has a weight for that; and the
 * gradient of those that `dqkv` is on entry becomes that of the tokens' own. It reads p->h, too. */
clsplat_status pass_splats_project(queue *q, const pass *p, size_t layer);
clsplat_status pass_splats_project_back(queue *q, const pass *p, size_t layer, op_tensor *dqkv);
/* From the heads before they are turned and the rows in p->h: queries, features and gates. */
clsplat_status pass_splats_look(queue *q, const pass *p, size_t layer);
/* From the turned heads: attention, as op_softmax leaves it. */
clsplat_status pass_splats_attend(queue *q, const pass *p, size_t layer);
/* p->dqkv from p->dattended; the heads are turned back. The gates' gradient is in the scratch. */
clsplat_status pass_splats_back(queue *q, const pass *p, size_t layer);

/* Within the floor. Tokens of a chunk; an encoder's whole windows. Rows as chunks of heads of `dim` columns,
 * from head `first` on: [n,heads,chunk,dim]. */
size_t pass_splats_chunk(const pass *p);
op_tensor pass_splats_rows(const pass *p, op_tensor rows, size_t first, size_t heads, size_t dim);
/* The softmaxes of a layer: over the keys of the own chunk, of the one before (of one window's chunks but the
 * first), and over splats; what writes the splats, and what shares keys out among them. */
op_softmax_args pass_splats_own(const pass *p, size_t layer);
op_softmax_args pass_splats_before(const pass *p, size_t layer, size_t window);
op_softmax_args pass_splats_read(const pass *p, size_t layer);
op_softmax_args pass_splats_write(const pass *p, size_t layer);
op_softmax_args pass_splats_share(const pass *p, size_t layer);
/* Whether windows are long enough for any row to attend through splats. */
bool pass_splats_reach(const pass *p);

#endif
