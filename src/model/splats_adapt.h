/* Splats of a session that adapt to what it reads, by adaptation.* of the model's configuration or as the
 * session was asked to: every so many tokens a cycle of model/colony.h in every key head, over a sample of
 * the keys since the last cycle and of all before, which count as much. A splat that is new gathers from the
 * last LOOK_BACK tokens. */
#ifndef CLSPLAT_MODEL_SPLATS_ADAPT_H
#define CLSPLAT_MODEL_SPLATS_ADAPT_H

#include "adapt/population.h"
#include "model/splats.h"

/* The splats of a layer on the host, by head: mean, log_precision [Hk,S,D], log_amplitude [Hk,S] in one
 * array. */
typedef struct splat_folk {
    float *numbers;
    splat_life *life; /* [Hk,S] */
    uint64_t *named;  /* [Hk] */
    bool *changed;    /* [Hk,S]: since the device had them */
} splat_folk;

typedef struct splat_adapting {
    model_adaptation how;
    clsplat_adapt_listener *listener;
    void *user;
    size_t done;                         /* tokens up to which cycles were made */
    splat_folk *now, *next;              /* [layers]; empty for layers without splats */
    bool *stale;                         /* [layers]: the device has not got them all */
    cl_mem log_precision, log_amplitude; /* of one layer, on their way into features */
    float *sample, *weight;              /* [SAMPLE, Hk·2·D], [SAMPLE] */
    clsplat_adapt_event *events; /* of the cycle that is being decided, told once nothing can undo it */
    size_t event_count, event_room;
    bool forgotten;                             /* there was no memory for one */
    clsplat_session_adaptation told, next_told; /* the last cycle's, and of the one that is being decided */
} splat_adapting;

/* For a store whose splats shall adapt, and which has room for the whole session. Ownership: the store's, for
 * splat_adapting_close. Returns: MEMORY, OPENCL. */
clsplat_status splat_adapting_open(splat_store *s, model_adaptation how, clsplat_adapt_listener *listener,
                                   void *user);
void splat_adapting_close(splat_store *s);

/* Tokens from `length` on that may be read until the next cycle is due; SIZE_MAX: no splats adapt. */
size_t splat_adapting_room(const splat_store *s, size_t length);
/* A cycle, if one is due after so many tokens. Blocks. Writes: *made, whether there was one. Returns: MEMORY,
 * OPENCL: it is made up for with the next tokens then. */
clsplat_status splat_adapting_cycle(queue *q, splat_store *s, size_t length, bool *made);
/* Before a layer's next keys are written: what a cycle that failed has left undone. */
clsplat_status splat_adapting_mend(queue *q, splat_store *s, size_t layer, size_t length);
void splat_adapting_rewind(splat_store *s, size_t length);

#endif
