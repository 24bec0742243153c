/* A rank's copy of the forest, and the sums that covariances are made of. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "parallel/far.h"

enum { STATS = 6, COVARIANCES = 7 };

/* Whose the chunks are, and what of them is here. */
static void find_owners(far_forest *forest) {
    const op_forest *f = &forest->f;
    const ranks_call *c = forest->call;
    size_t each = f->chunk / f->leaf, leaves = f->chunks * each;
    for (int rank = 0; rank < c->ranks->count; ++rank) {
        clsplat_part part =
            clsplat_ranks_part(c->attention, c->queries, c->keys, (size_t)c->ranks->count, (size_t)rank);
        for (int run = 0; run < CLSPLAT_RUNS; ++run)
            for (size_t key = part.keys[run].begin; key < part.keys[run].begin + part.keys[run].count;
                 key += f->chunk)
                forest->owner[key / f->chunk] = rank;
    }
    for (size_t head = 0; head < f->batch * f->heads; ++head)
        for (size_t g = 0; g < f->chunks; ++g)
            if (forest->owner[g] == c->ranks->own) {
                forest->here[head * f->chunks + g] = 1;
                memset(forest->keys_here + head * leaves + g * each, 1, each);
            }
}

clsplat_status far_open(ranks_call *c, queue *q, const op_forest *f, far_forest *forest) {
    size_t heads = f->batch * f->heads, leaves = f->chunks * f->chunk / f->leaf,
           ranks = (size_t)c->ranks->count;
    bool good = true;
    *forest = (far_forest){.call = c, .f = *f};
    forest_sizes(f, forest->bytes);
    for (int i = 0; i < FOREST_BUFFERS; ++i) {
        forest->host[i] = calloc(forest->bytes[i] + 1, 1);
        good = good && forest->host[i];
    }
    forest->owner = calloc(f->chunks, sizeof *forest->owner);
    forest->here = calloc(heads * f->chunks, sizeof *forest->here);
    forest->keys_here = calloc(heads * leaves, 1);
    forest->out = calloc(ranks, sizeof *forest->out);
    forest->in = calloc(ranks, sizeof *forest->in);
    if (!good || !forest->owner || !forest->here || !forest->keys_here || !forest->out || !forest->in)
        return log_error(q->device->lib, CLSPLAT_MEMORY, "no memory for a copy of the trees of %zu chunks",
                         f->chunks);
    if (heads * leaves + heads * f->chunks > UINT32_MAX)
        return log_error(q->device->lib, CLSPLAT_UNSUPPORTED, "%zu leaves are more than ranks can number",
                         heads * leaves);
    find_owners(forest);
    return CLSPLAT_OK;
}

void far_close(far_forest *forest) {
    for (int i = 0; i < FOREST_BUFFERS; ++i)
        free(forest->host[i]);
    for (int i = 0; forest->call && i < forest->call->ranks->count; ++i) {
        if (forest->out)
            free(forest->out[i].units);
        if (forest->in)
            free(forest->in[i].units);
    }
    free(forest->owner);
    free(forest->here);
    free(forest->keys_here);
    free(forest->out);
    free(forest->in);
    *forest = (far_forest){0};
}

static queue_copy copy_of(far_forest *forest, int which) {
    return (queue_copy){.mem = *forest_buffer(&forest->f, which),
                        .host = forest->host[which],
                        .row = forest->bytes[which],
                        .rows = 1};
}

static clsplat_status bring(queue *q, far_forest *forest, unsigned which,
                            clsplat_status (*way)(queue *, queue_copy)) {
    clsplat_status status = CLSPLAT_OK;
    for (int i = 0; i < FOREST_BUFFERS; ++i)
        if ((which >> i & 1) && forest->bytes[i] > 0)
            TRY(way(q, copy_of(forest, i)));
fail:
    return status;
}

clsplat_status far_bring_down(queue *q, far_forest *forest, unsigned which) {
    return bring(q, forest, which, queue_download);
}

clsplat_status far_bring_up(queue *q, far_forest *forest, unsigned which) {
    return bring(q, forest, which, queue_upload);
}

/* Σ n σ over the leaves of a run, as cl/tree/covariance.cl has it. */
static double slopes_of(const far_forest *forest, size_t head, size_t run) {
    const op_forest *f = &forest->f;
    size_t each = OP_FOREST_RUN * f->chunk / f->leaf;
    const float *stats =
        (const float *)(void *)forest->host[STATS] + head * f->first_block[f->levels] * 16 * OP_NODE_STATS;
    double sum = 0;
    for (size_t leaf = run * each; leaf < (run + 1) * each; ++leaf) {
        const float *of = stats + leaf / 16 * 16 * OP_NODE_STATS + leaf % 16;
        double share = (double)of[OP_NODE_VARIANCE * 16];
        if (share > 0 && share <= 2)
            sum += (double)of[OP_NODE_COUNT * 16] * __builtin_sqrt(share) * (double)of[OP_NODE_SPREAD * 16];
    }
    return sum;
}

static float *covariance_of(const far_forest *forest, size_t head, size_t run) {
    const op_forest *f = &forest->f;
    return (float *)(void *)forest->host[COVARIANCES] +
           (head * (f->chunks / OP_FOREST_RUN) + run) * f->dim * f->value_dim;
}

/* The whole runs of a piece of the sequence. */
static clsplat_run runs_of(const far_forest *forest, int rank, int piece) {
    const ranks_call *c = forest->call;
    size_t run = OP_FOREST_RUN * forest->f.chunk;
    clsplat_run keys =
        clsplat_ranks_part(c->attention, c->queries, c->keys, (size_t)c->ranks->count, (size_t)rank)
            .keys[piece];
    return (clsplat_run){keys.begin / run, (keys.begin + keys.count) / run - keys.begin / run};
}

/* Adds a run's sums, or with the sums so far writes its mean. */
static void add_run(far_forest *forest, size_t head, size_t run, double *sums) {
    size_t numbers = forest->f.dim * forest->f.value_dim;
    const float *of = covariance_of(forest, head, run);
    for (size_t i = 0; i < numbers; ++i)
        sums[i] += (double)of[i];
    sums[numbers] += slopes_of(forest, head, run);
}

static void write_mean(far_forest *forest, size_t head, size_t run, const double *sums) {
    size_t numbers = forest->f.dim * forest->f.value_dim;
    float *of = covariance_of(forest, head, run);
    for (size_t i = 0; i < numbers; ++i)
        of[i] = sums[numbers] > 0 ? (float)(sums[i] / sums[numbers]) : 0.0f;
}

/* `all`: of rank after rank, piece after piece, head after head. Piece `i` of the sequence is whose it is. */
static void average_head(far_forest *forest, size_t head, const double *all, double *sums) {
    const op_forest *f = &forest->f;
    int ranks = forest->call->ranks->count, own = forest->call->ranks->own;
    size_t numbers = f->dim * f->value_dim + 1, heads = f->batch * f->heads;
    memset(sums, 0, numbers * sizeof *sums);
    for (int i = 0; i < CLSPLAT_RUNS * ranks; ++i) {
        int rank = i < ranks ? i : 2 * ranks - 1 - i, piece = i >= ranks;
        clsplat_run runs = runs_of(forest, rank, piece);
        if (rank == own) {
            if (runs.begin > 0 && runs.begin <= f->chunks / OP_FOREST_RUN)
                write_mean(forest, head, runs.begin - 1, sums);
            for (size_t run = runs.begin; run < runs.begin + runs.count; ++run) {
                add_run(forest, head, run, sums);
                write_mean(forest, head, run, sums);
            }
            continue;
        }
        const double *theirs = all + (((size_t)rank * CLSPLAT_RUNS + (size_t)piece) * heads + head) * numbers;
        for (size_t n = 0; n < numbers; ++n)
            sums[n] += theirs[n];
    }
    size_t last = forest->call->keys / (OP_FOREST_RUN * f->chunk);
    if (last > 0)
        write_mean(forest, head, last - 1, sums);
}

clsplat_status far_average(far_forest *forest) {
    clsplat_status status = CLSPLAT_OK;
    const op_forest *f = &forest->f;
    clsplat_ranks *r = forest->call->ranks;
    size_t numbers = f->dim * f->value_dim + 1, heads = f->batch * f->heads,
           each = CLSPLAT_RUNS * heads * numbers;
    double *mine = calloc(each, sizeof *mine), *all = calloc(each * (size_t)r->count, sizeof *all),
           begin = clock_seconds();
    TRY(clsplat_ranks_agree(
        r, mine && all && each < INT32_MAX
               ? CLSPLAT_OK
               : log_error(r->lib, CLSPLAT_MEMORY, "no memory for the covariances of %zu heads", heads)));
    for (int piece = 0; piece < CLSPLAT_RUNS; ++piece) {
        clsplat_run runs = runs_of(forest, r->own, piece);
        for (size_t head = 0; head < heads; ++head)
            for (size_t run = runs.begin; run < runs.begin + runs.count; ++run)
                add_run(forest, head, run, mine + ((size_t)piece * heads + head) * numbers);
    }
    TRY_MPI(r, MPI_Allgather(mine, (int)each, MPI_DOUBLE, all, (int)each, MPI_DOUBLE, r->comm));
    r->traffic.sent += (uint64_t)(r->count - 1) * each * sizeof *mine;
    r->traffic.received += (uint64_t)(r->count - 1) * each * sizeof *mine;
    r->traffic.waited += clock_seconds() - begin;
    for (size_t head = 0; head < heads; ++head)
        average_head(forest, head, all, mine);
fail:
    free(mine);
    free(all);
    return status;
}
