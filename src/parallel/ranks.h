/* A group of processes as the inside sees it. MPI is known here and above nowhere. */
#ifndef CLSPLAT_PARALLEL_RANKS_H
#define CLSPLAT_PARALLEL_RANKS_H

#include <clsplat/mpi.h>
#include <pthread.h>

#include "base/log.h"

struct clsplat_ranks {
    clsplat *lib;
    MPI_Comm comm;
    int own, count;
    bool threads; /* another thread than this may call MPI */
    clsplat_traffic traffic;
};

/* Returns: IO with what MPI says of the code. */
clsplat_status ranks_failed(const clsplat_ranks *r, const char *call, int code);
#define TRY_MPI(ranks, call)                                                                                 \
    do {                                                                                                     \
        int code_ = (call);                                                                                  \
        if (code_ != MPI_SUCCESS)                                                                            \
            TRY(ranks_failed(ranks, #call, code_));                                                          \
    } while (0)

/* What must be alike everywhere: a name and what it is here, in words. Collective. Returns: INVALID, naming
 * the first that differs and both sides. */
enum { RANKS_WORDS = 192 };
typedef struct ranks_fact {
    char name[32], here[RANKS_WORDS];
} ranks_fact;
clsplat_status ranks_compare(clsplat_ranks *r, const ranks_fact *facts, size_t count);
/* Whether it is alike everywhere. Collective. */
clsplat_status ranks_alike(clsplat_ranks *r, const char *words, bool *alike);

/* Messages of any size, in pieces that MPI can count, to the rank `to` and from the rank `from` at once, in a
 * thread of their own where MPI allows that. The bytes must stay as they are until exchange_end. */
typedef struct exchange {
    clsplat_ranks *ranks;
    const char *out;
    char *in;
    size_t out_bytes, in_bytes;
    int to, from;
    pthread_t thread;
    bool threaded;
    int code;
} exchange;
void exchange_begin(exchange *e);
clsplat_status exchange_end(exchange *e);

/* What is needed of a call on every rank. */
typedef struct ranks_call {
    clsplat_ranks *ranks;
    clsplat_device *device;
    clsplat_attention attention;
    clsplat_attention_tensors tensors; /* this rank's; strides filled in */
    size_t chunk;                      /* of near and far, whatever the caller left open */
    size_t queries, keys;              /* of the whole sequence */
    clsplat_part part;
    double done, steps; /* for progress */
} ranks_call;

/* Tells the caller's callback how far one step of several has come. */
clsplat_progress ranks_progress;

size_t ranks_rows(const clsplat_run runs[CLSPLAT_RUNS]);

clsplat_status far_attend(ranks_call *c);
clsplat_status ring_attend(ranks_call *c);
clsplat_status reduce_attend(ranks_call *c);

#endif
