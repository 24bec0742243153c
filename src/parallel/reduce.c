/* Gaussian attention: what the splats know of every rank's keys, merged over the ranks by MPI. A state is
 * (top, mass, sum[Dv]) as op_scan keeps it; the order of the ranks is that of the sequence, and MPI is told
 * that the rule does not commute, so that it keeps it. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/attend.h"
#include "attention/stage.h"
#include "base/clock.h"
#include "parallel/ranks.h"
#include "splats/splats.h"

/* later := earlier + later. The signature is MPI's. */
static void merge_states(void *earlier, void *later, int *count, MPI_Datatype *type) {
    int bytes = 0;
    MPI_Type_size(*type, &bytes);
    size_t numbers = (size_t)bytes / sizeof(float);
    const float *a = earlier;
    float *b = later;
    for (int i = 0; i < *count; ++i, a += numbers, b += numbers) {
        if (a[1] == 0)
            continue;
        if (b[1] == 0) {
            memcpy(b, a, (size_t)bytes);
            continue;
        }
        double top = fmax((double)a[0], (double)b[0]), wa = exp((double)a[0] - top),
               wb = exp((double)b[0] - top);
        b[0] = (float)top;
        for (size_t d = 1; d < numbers; ++d)
            b[d] = (float)(wa * (double)a[d] + wb * (double)b[d]);
    }
}

static void clear(float *states, size_t count, size_t numbers) {
    memset(states, 0, count * numbers * sizeof *states);
    for (size_t i = 0; i < count; ++i)
        states[i * numbers] = -INFINITY;
}

/* `mine` of every rank to `theirs`: of all ranks, or of those before this one. */
static clsplat_status reduce(ranks_call *c, const float *mine, float *theirs, size_t states, size_t numbers) {
    clsplat_status status = CLSPLAT_OK;
    MPI_Datatype type = MPI_DATATYPE_NULL;
    MPI_Op op = MPI_OP_NULL;
    double begin = clock_seconds();
    if (states > INT_MAX)
        return log_error(c->ranks->lib, CLSPLAT_UNSUPPORTED, "%zu states are more than MPI can count",
                         states);
    TRY_MPI(c->ranks, MPI_Type_contiguous((int)numbers, MPI_FLOAT, &type));
    TRY_MPI(c->ranks, MPI_Type_commit(&type));
    TRY_MPI(c->ranks, MPI_Op_create(merge_states, 0, &op));
    if (c->attention.causal)
        TRY_MPI(c->ranks, MPI_Exscan(mine, theirs, (int)states, type, op, c->ranks->comm));
    else
        TRY_MPI(c->ranks, MPI_Allreduce(mine, theirs, (int)states, type, op, c->ranks->comm));
    if (c->attention.causal && c->ranks->own == 0)
        clear(theirs, states, numbers); /* MPI leaves it as it was */
    c->ranks->traffic.sent += states * numbers * sizeof *mine;
    c->ranks->traffic.received += states * numbers * sizeof *mine;
    c->ranks->traffic.waited += clock_seconds() - begin;
fail:
    if (op != MPI_OP_NULL)
        MPI_Op_free(&op);
    if (type != MPI_DATATYPE_NULL)
        MPI_Type_free(&type);
    return status;
}

/* One half on this rank's rows. Where there are none of one side, which that half does not look at, a row
 * that nobody reads stands for them. */
static clsplat_status half(ranks_call *c, attend_half which, float *carry) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_attention_tensors t = c->tensors;
    clsplat_tensor *const all[] = {&t.q, &t.k, &t.v, &t.out};
    float nobody = 0;
    attend_call call;
    if (c->part.keys[0].count == 0)
        t.key_bias = (clsplat_tensor){0};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i)
        if (all[i]->shape[2] == 0) {
            all[i]->shape[2] = 1;
            all[i]->host = &nobody;
        }
    if (c->part.queries[0].count == 0) {
        t.lse = (clsplat_tensor){0};
        for (int d = 0; d < 3; ++d)
            t.out.shape[d] = t.q.shape[d];
        t.out.shape[3] = t.v.shape[3];
        t.out.host = &nobody;
    }
    clsplat_attention attention = c->attention;
    attention.progress = ranks_progress;
    attention.progress_user = c;
    TRY(attend_check(c->device, attention, t, true, &call));
    call.half = which;
    call.carry = carry;
    if (attention.causal)
        call.diagonal = (int32_t)((int64_t)c->keys - (int64_t)c->queries + (int64_t)c->part.queries[0].begin -
                                  (int64_t)c->part.keys[0].begin);
    TRY(attend_blocks(c->device, &call));
    c->done += 1;
fail:
    return status;
}

/* Causal queries before the first key: all that a rank without keys may have. */
static void see_nothing(const ranks_call *c) {
    const clsplat_attention_tensors *t = &c->tensors;
    const size_t *q = t->q.shape;
    stage_box all = {{0, 0, 0}, {q[0], q[1], q[2]}};
    stage_fill(&t->out, all, 0.0f);
    stage_fill(&t->lse, all, -INFINITY);
}

clsplat_status reduce_attend(ranks_call *c) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention_tensors *t = &c->tensors;
    clsplat_splats_shape s = clsplat_splats_get(c->attention.splats).shape;
    size_t states = t->q.shape[0] * (s.heads > 1 ? t->q.shape[1] : t->k.shape[1]) * s.count,
           numbers = t->v.shape[3] + 2, keys = c->part.keys[0].count, queries = c->part.queries[0].count;
    float *mine = malloc(states * numbers * sizeof *mine),
          *theirs = malloc(states * numbers * sizeof *theirs);
    c->steps = 2;
    clsplat_status ready = mine && theirs
                               ? CLSPLAT_OK
                               : log_error(c->ranks->lib, CLSPLAT_MEMORY,
                                           "no memory for the states of %zu splats, twice", states);
    if (ready == CLSPLAT_OK) {
        clear(mine, states, numbers);
        ready = keys > 0 ? half(c, ATTEND_ACCUMULATE, mine) : CLSPLAT_OK;
    }
    TRY(clsplat_ranks_agree(c->ranks, ready));
    TRY(reduce(c, mine, theirs, states, numbers));
    if (queries > 0 && c->attention.causal && keys == 0)
        see_nothing(c);
    else if (queries > 0)
        ready = half(c, ATTEND_QUERY, theirs);
    TRY(clsplat_ranks_agree(c->ranks, ready));
fail:
    free(mine);
    free(theirs);
    return status;
}
