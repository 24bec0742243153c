/* How far a layer's attention is from softmax attention of the same queries, keys and values. */
#ifndef CLSPLAT_MODEL_COMPARE_H
#define CLSPLAT_MODEL_COMPARE_H

#include "model/attention.h"

/* Sums of one layer, over all steps. */
typedef struct attention_distance {
    double difference, size; /* Σ (out − exact)², Σ exact² */
} attention_distance;

/* Attends to the step's keys exactly, into a workspace, and adds the distance of step->out from that. Blocks.
 */
clsplat_status attention_compare(queue *q, const attention_step *step, attention_distance *sums);

#endif
