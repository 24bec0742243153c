/* `mpirun clsplat attend`: every process reads its part of the sequence, and the first writes what all have
 * made. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/attend.h"
#include "cli/output.h"
#include "cli/ranks_device.h"
#include "parallel/launch.h"

typedef struct team {
    cli *c;
    const attend_request *request;
    clsplat_ranks *ranks;
    size_t own, count;
    clsplat_device *device;
    attend_problem problem; /* this rank's rows */
    size_t queries, keys;   /* of all */
    clsplat_attention attention;
    attend_cost cost;
} team;

static clsplat_status agree(team *t, clsplat_status status) {
    return clsplat_ranks_agree(t->ranks, status);
}

static clsplat_status read_rows(team *t, input *in, const clsplat_run runs[CLSPLAT_RUNS], bool padding) {
    const size_t run[2][2] = {{runs[0].begin, runs[0].count}, {runs[1].begin, runs[1].count}};
    return input_read_runs(t->c->lib, in, run, padding);
}

/* Of the file what is this rank's. */
static clsplat_status read_part(team *t) {
    clsplat_status status = CLSPLAT_OK;
    attend_problem *p = &t->problem;
    clsplat_part part = clsplat_ranks_part(t->attention, t->queries, t->keys, t->count, t->own);
    TRY(read_rows(t, &p->q, part.queries, false));
    TRY(read_rows(t, &p->k, part.keys, false));
    TRY(read_rows(t, &p->v, part.keys, false));
    TRY(read_rows(t, &p->key_bias, part.keys, true));
    TRY(attend_make_results(t->c->lib, t->request, p));
fail:
    return status;
}

static clsplat_status find(team *t) {
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = t->c->lib;
    bool window = t->attention.method == CLSPLAT_WINDOW;
    if (t->request->grad || t->request->show || window)
        return log_error(lib, CLSPLAT_UNSUPPORTED, "%s does not run over several ranks; leave mpirun away",
                         window             ? "--method window"
                         : t->request->grad ? "--grad"
                                            : "--show");
    if (t->own == 0)
        TRY(output_check(lib, t->request->output));
    TRY(attend_find(lib, t->request, &t->problem));
    t->queries = t->problem.q.tensor.shape[INPUT_ROWS];
    t->keys = t->problem.k.tensor.shape[INPUT_ROWS];
    t->attention.splats = t->problem.splats;
    t->attention.progress = progress_step;
    t->attention.progress_user = &t->c->progress;
fail:
    return status;
}

static clsplat_status compute(team *t) {
    clsplat_status status = CLSPLAT_OK;
    cli *c = t->c;
    launch_sum sum;
    clsplat_profile_set(t->device, c->json || c->verbose);
    double begin = clock_seconds();
    TRY(clsplat_ranks_attend(t->ranks, t->device, t->attention, t->queries, t->keys,
                             attend_tensors(&t->problem)));
    t->cost.seconds = clock_seconds() - begin;
    progress_clear(&c->progress);
    TRY(launch_sum_up(t->ranks, t->cost.seconds, &sum));
    if (t->request->near_far) {
        const size_t *q = t->problem.q.tensor.shape;
        attend_sum_near_far(&t->problem, q[0] * q[1] * q[2], t->cost.near_far);
        TRY(launch_total(t->ranks, t->cost.near_far, 2));
    }
    t->cost.ranks = t->count;
    t->cost.most_sent = sum.most_sent;
    t->cost.all_sent = sum.all_sent;
    t->cost.most_waited = sum.most_waited;
    t->cost.least_seconds = sum.least_seconds;
    t->cost.memory = clsplat_device_memory(t->device);
    status = attend_check_result(c->lib, t->request, &t->problem);
    if (status == CLSPLAT_OK)
        status = clsplat_profile_read(t->device, &t->cost.kernels, &t->cost.kernel_count);
    TRY(agree(t, status));
fail:
    return status;
}

/* The numbers of a result as the file has them: [B,H,rows,columns] of four bytes each, which the ranks hold
 * in pieces. */
enum { RESULTS = 4 };
typedef struct result {
    const void *own;
    size_t columns;
} result;

typedef struct writing {
    team *t;
    result results[RESULTS];
    size_t count;
    size_t done;           /* results that have been taken from the others */
    clsplat_status status; /* of the file; the others are heard to the end all the same */
} writing;

/* Returns: how many. */
static size_t list_results(team *t, result results[RESULTS]) {
    results[0] = (result){t->problem.out, t->problem.v.tensor.shape[INPUT_COLUMNS]};
    results[1] = (result){t->problem.lse, 1};
    results[2] = (result){t->problem.exact_keys, 1};
    results[3] = (result){t->problem.error_estimate, 1};
    return t->request->near_far ? RESULTS : 2;
}

/* Piece `i` of the sequence: whose it is, and where it is there. */
static clsplat_run piece_of(const team *t, size_t i, size_t *rank, size_t *first) {
    bool late = i >= t->count;
    *rank = late ? 2 * t->count - 1 - i : i;
    clsplat_part part = clsplat_ranks_part(t->attention, t->queries, t->keys, t->count, *rank);
    *first = late ? part.queries[0].count : 0;
    return part.queries[late];
}

static clsplat_status take_piece(writing *w, const result *r, size_t head, size_t i, file_writer *file) {
    clsplat_status status = CLSPLAT_OK;
    team *t = w->t;
    size_t rank, first, own = t->problem.q.tensor.shape[INPUT_ROWS];
    clsplat_run piece = piece_of(t, i, &rank, &first);
    size_t bytes = piece.count * r->columns * sizeof(float);
    const void *rows = (const float *)r->own + (head * own + first) * r->columns;
    void *theirs = NULL;
    if (bytes == 0)
        return CLSPLAT_OK;
    if (rank > 0) {
        if (!(theirs = malloc(bytes)))
            TRY(log_error(t->c->lib, CLSPLAT_MEMORY, "no memory for %zu rows of a result", piece.count));
        TRY(launch_receive(t->ranks, rank, theirs, bytes));
        rows = theirs;
    }
    if (w->status == CLSPLAT_OK && file)
        w->status = file_write(t->c->lib, file, rows, bytes);
fail:
    free(theirs);
    return status;
}

/* Takes the next result from all ranks. */
static clsplat_status write_result(void *user, size_t index, file_writer *file) {
    clsplat_status status = CLSPLAT_OK;
    writing *w = user;
    const size_t *q = w->t->problem.q.tensor.shape;
    w->done = index + 1;
    for (size_t head = 0; head < q[0] * q[1]; ++head)
        for (size_t i = 0; i < 2 * w->t->count; ++i)
            TRY(take_piece(w, &w->results[index], head, i, file));
    status = w->status;
fail:
    return status;
}

static clsplat_status save(team *t) {
    const size_t *q = t->problem.q.tensor.shape;
    writing w = {.t = t};
    w.count = list_results(t, w.results);
    safetensors_output tensors[] = {{"out", "F32", 4, {q[0], q[1], t->queries, w.results[0].columns}, NULL},
                                    {"lse", "F32", 3, {q[0], q[1], t->queries}, NULL},
                                    {"exact_keys", "I32", 3, {q[0], q[1], t->queries}, NULL},
                                    {"error_estimate", "F32", 3, {q[0], q[1], t->queries}, NULL}};
    safetensors_parts parts = {tensors, w.count, write_result, &w};
    w.status = safetensors_save_parts(t->c->lib, t->request->output, &parts, NULL, 0);
    clsplat_status status = w.status;
    while (w.done < w.count) /* what they send has to go somewhere */
        write_result(&w, w.done, NULL);
    return status;
}

/* In the order in which the first rank wants it. */
static clsplat_status send_results(team *t) {
    clsplat_status status = CLSPLAT_OK;
    const size_t *q = t->problem.q.tensor.shape;
    result results[RESULTS];
    size_t count = list_results(t, results);
    for (size_t r = 0; r < count; ++r)
        for (size_t head = 0; head < q[0] * q[1]; ++head)
            for (size_t i = 0; i < 2 * t->count; ++i) {
                size_t rank, first, columns = results[r].columns;
                clsplat_run piece = piece_of(t, i, &rank, &first);
                if (rank == t->own && piece.count > 0)
                    TRY(launch_send(t->ranks, (const float *)results[r].own + (head * q[2] + first) * columns,
                                    piece.count * columns * sizeof(float)));
            }
fail:
    return status;
}

/* Of the whole sequence, by the first rank; its kernels and its memory are what is told of. */
static clsplat_status report(team *t) {
    attend_problem whole = t->problem;
    whole.q.tensor.shape[INPUT_ROWS] = t->queries;
    whole.k.tensor.shape[INPUT_ROWS] = t->keys;
    return attend_report(t->c, t->device, &t->attention, &whole, &t->cost);
}

static clsplat_status run(team *t) {
    clsplat_status status = CLSPLAT_OK;
    TRY(agree(t, find(t)));
    progress_begin(&t->c->progress);
    t->c->progress.terminal = t->c->progress.terminal && t->own == 0;
    TRY(ranks_open_device(t->c, t->ranks, &t->device));
    TRY(agree(t, read_part(t)));
    TRY(compute(t));
    TRY(agree(t, t->own == 0 ? report(t) : CLSPLAT_OK));
    TRY(agree(t, t->own == 0 ? save(t) : send_results(t)));
fail:
    return status;
}

clsplat_status attend_over_ranks(cli *c, const attend_request *request, clsplat_attention attention) {
    clsplat_status status = CLSPLAT_OK;
    team t = {.c = c, .request = request, .attention = attention};
    TRY(launch_begin(c->lib, &t.ranks));
    t.own = clsplat_ranks_own(t.ranks);
    t.count = clsplat_ranks_count(t.ranks);
    c->quiet = t.own > 0; /* from here on the ranks agree on what is said */
    status = run(&t);
fail:
    if (status != CLSPLAT_OK) /* before any rank can end: a launcher then ends the others at once */
        cli_print_error(c, status);
    c->quiet = true;
    clsplat_profile_free(&t.cost.kernels);
    attend_free(&t.problem);
    clsplat_device_close(&t.device);
    launch_end(&t.ranks);
    return status;
}
