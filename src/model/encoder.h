/* Whole texts through the layers: every token sees all of its text. */
#ifndef CLSPLAT_MODEL_ENCODER_H
#define CLSPLAT_MODEL_ENCODER_H

#include "model/model.h"
#include "tokenizer/kind.h"

/* Texts that go through together: `count` of `length` rows each, from `first_row` on; shorter ones are padded
 * behind their end, and then the bias of what is no token is −inf. */
typedef struct encoder_group {
    size_t first_row, count, length;
    bool padded;
} encoder_group;

enum { ENCODER_TEXTS = 256 }; /* in one pass */

/* A pass: so many texts, longest first, as their rows have room in the scratch. */
typedef struct encoder_pass {
    const token_list *const *texts; /* [count] */
    size_t count, rows;
    encoder_group groups[ENCODER_TEXTS];
    size_t group_count;
} encoder_pass;

/* Lays out the next pass of texts that are sorted, longest first. Returns: how many texts it takes, at least
 * one. */
size_t encoder_lay_out(const clsplat_model *model, const token_list *const *texts, size_t count,
                       encoder_pass *pass);

/* The texts' rows behind the last layer are in scratch.h, laid out as the pass says. Texts are not empty and
 * not longer than the model's context. Returns: UNSUPPORTED (an attention that is for decoders), MEMORY,
 * OPENCL. */
clsplat_status encoder_run(queue *q, clsplat_model *model, const clsplat_model_attention *attention,
                           const encoder_pass *pass);

/* The keys that a layer's tokens see in a text of so many, as op_softmax has it: all, or in a layer with a
 * window those that are at most half of it away. */
void encoder_sees(const model_config *config, size_t layer, size_t length, int32_t *diagonal,
                  uint32_t *window);

/* Rows of a group as [count,heads,length,D], from head `first` on. */
op_tensor encoder_heads(const encoder_group *group, op_tensor rows, size_t first, size_t heads, size_t dim);
/* The bias of a group's keys [count,1,length,1], repeated for heads; absent if nothing is padded. */
op_tensor encoder_bias(const encoder_group *group, op_tensor biases, size_t heads);

/* Keys and values may be anywhere on the device. Returns: UNSUPPORTED, INVALID. */
clsplat_status encoder_check(const clsplat_model *model, const clsplat_model_attention *attention);

#endif
