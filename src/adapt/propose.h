/* Who might come and who might go: candidates of one round, and the decisions that they are for. */
#ifndef CLSPLAT_ADAPT_PROPOSE_H
#define CLSPLAT_ADAPT_PROPOSE_H

#include "adapt/herd.h"

enum {
    PROPOSE_SPLITS = 4,
    PROPOSE_BIRTHS = 10,
    PROPOSE_DEATHS = 4,
    PROPOSE_MERGES = 3,
    PROPOSE_GROWING = PROPOSE_SPLITS + PROPOSE_BIRTHS,
    PROPOSE_SHRINKING = PROPOSE_DEATHS + PROPOSE_MERGES,
    /* A split has its parent and two children, a merge its pair and what it becomes. */
    PROPOSE_CANDIDATES = 3 * PROPOSE_SPLITS + PROPOSE_BIRTHS + PROPOSE_DEATHS + 3 * PROPOSE_MERGES
};

typedef struct proposal {
    bool possible;
    change what;
    size_t column[2]; /* that it concerns: the parent, the dead one, the pair; SIZE_MAX for births */
    size_t columns;
    double square;    /* the head's squared error if it is made alone */
    double gain;      /* of growing: by how much that was less when it was judged */
    size_t judged_at; /* after so many columns of the round */
    clsplat_adapt_event event;
} proposal;

typedef struct proposals {
    proposal growing[PROPOSE_GROWING], shrinking[PROPOSE_SHRINKING];
} proposals;

/* Fills in the candidates of a head and what they are for, at one level. `starving`: deaths are of splats
 * that have starved long enough only. */
clsplat_status propose(herd *h, size_t head, size_t level, bool starving, candidates *c, proposals *p);

/* After the candidates have been measured: what each proposal brings alone; births get the amplitude that is
 * best. */
void propose_judge(herd *h, size_t head, const candidates *c, proposals *p);

#endif
