/* Gradients of near-far attention on a forest, and the float64 reference with the same opened set, whose
 * differences they are compared with. The set is what a row of op_near_far says that it decided by. */
#ifndef CLSPLAT_TESTS_FAR_GRADIENT_H
#define CLSPLAT_TESTS_FAR_GRADIENT_H

#include "op/forest_case.h"

typedef struct gradient_spec {
    far_spec far;
    float tolerance;
    size_t sparse_topk;
} gradient_spec;

enum { DQ, DK, DV, DBIAS, PARTS };

/* A case with what goes in beside the forward pass's tensors, and what comes out. */
typedef struct back_case {
    forest_case b;
    op_tensor dout, result[PARTS];
    double *host_dout, *got[PARTS];
    double *kept, *lse; /* of the forward pass */
    cl_mem notes;       /* likewise, and those on the host */
    uint32_t *host_notes;
} back_case;

back_case back_create(const gradient_spec *spec, uint64_t seed);
void back_free(back_case *c);
/* What the rows of the plain forward pass decide by. The forest has been gathered. */
void back_decide(back_case *c, const gradient_spec *spec);
/* What a row of op_near_far notes, by which back_run then goes; false: the row does not fit. */
bool back_note(back_case *c, const gradient_spec *spec, size_t row);
/* Runs a row of the table into results that are NaN before, unless it does not fit, and reads them. */
bool back_run(back_case *c, const gradient_spec *spec, size_t row);

/* One key head with its query heads: numbers that may be changed, and what its rows opened. */
typedef struct head_view {
    const back_case *c;
    size_t head, group;    /* of B·Hk; query heads of it */
    naive_forest f;        /* of x[DK], x[DV] and x[DBIAS], in slots */
    double *x[PARTS];      /* x[DQ]: scaled queries [group,N,D] */
    size_t count[PARTS];   /* numbers */
    size_t *slot;          /* of each key; SIZE_MAX: padding */
    const uint32_t *apart; /* keys apart before each chunk */
    unsigned char *opened; /* [group,N,nodes] */
    size_t nodes;
    double *own_k, *own_v, *own_b; /* in the order of keys */
} head_view;

head_view head_create(const back_case *c, size_t head);
void head_free(head_view *h);
/* What the rows open; a row that was close to deciding otherwise gets no dout. Returns: how many nodes. */
size_t head_judge(head_view *h, back_case *c, float tolerance);
/* The same by notes. */
size_t head_take(head_view *h, const back_case *c);
/* The derivative of Σ dout·out of the head's rows along a direction of the numbers of one part. */
double head_difference(head_view *h, int part, const double *direction);
/* The head's part of a result, as the numbers of x[part] lie; to be freed. */
double *head_result(const head_view *h, int part);

#endif
