#include "parallel/launch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "parallel/ranks.h"

clsplat_status launch_begin(clsplat *lib, clsplat_ranks **ranks) {
    int level = MPI_THREAD_SINGLE;
    *ranks = NULL;
    int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level);
    if (code != MPI_SUCCESS)
        return log_error(lib, CLSPLAT_IO, "MPI does not start: code %d", code);
    return clsplat_ranks_create(lib, MPI_COMM_WORLD, ranks);
}

void launch_end(clsplat_ranks **ranks) {
    int begun = 0, ended = 0;
    clsplat_ranks_destroy(ranks);
    MPI_Initialized(&begun);
    MPI_Finalized(&ended);
    if (begun && !ended)
        MPI_Finalize();
}

clsplat_status launch_place(clsplat_ranks *r, size_t *place) {
    clsplat_status status = CLSPLAT_OK;
    MPI_Comm here = MPI_COMM_NULL;
    int rank = 0;
    TRY_MPI(r, MPI_Comm_split_type(r->comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here));
    TRY_MPI(r, MPI_Comm_rank(here, &rank));
    *place = (size_t)rank;
fail:
    if (here != MPI_COMM_NULL)
        MPI_Comm_free(&here);
    return status;
}

clsplat_status launch_send(clsplat_ranks *r, const void *bytes, size_t count) {
    exchange e = {.ranks = r, .out = bytes, .out_bytes = count, .to = 0};
    return exchange_end(&e);
}

clsplat_status launch_receive(clsplat_ranks *r, size_t from, void *bytes, size_t count) {
    exchange e = {.ranks = r, .in = bytes, .in_bytes = count, .from = (int)from};
    return exchange_end(&e);
}

clsplat_status launch_sum_up(clsplat_ranks *r, double seconds, launch_sum *sum) {
    clsplat_status status = CLSPLAT_OK;
    double mine[] = {(double)r->traffic.sent, r->traffic.waited, seconds, -seconds}, most[4] = {0}, all = 0;
    TRY_MPI(r, MPI_Reduce(mine, most, 4, MPI_DOUBLE, MPI_MAX, 0, r->comm));
    TRY_MPI(r, MPI_Reduce(mine, &all, 1, MPI_DOUBLE, MPI_SUM, 0, r->comm));
    *sum = (launch_sum){(uint64_t)most[0], (uint64_t)all, most[1], most[2], -most[3]};
fail:
    return status;
}

clsplat_status launch_total(clsplat_ranks *r, double *numbers, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    TRY_MPI(r, MPI_Reduce(r->own == 0 ? MPI_IN_PLACE : numbers, numbers, (int)count, MPI_DOUBLE, MPI_SUM, 0,
                          r->comm));
fail:
    return status;
}

/* Seconds of the fastest of a few exchanges of so many bytes with the neighbours. */
static clsplat_status time_exchange(clsplat_ranks *r, char *out, char *in, size_t bytes, double *seconds) {
    enum { TIMES = 8 };
    clsplat_status status = CLSPLAT_OK;
    *seconds = INFINITY;
    for (int i = 0; i < TIMES; ++i) {
        exchange e = {.ranks = r,
                      .out = out,
                      .in = in,
                      .out_bytes = bytes,
                      .in_bytes = bytes,
                      .to = (r->own + 1) % r->count,
                      .from = (r->own + r->count - 1) % r->count};
        TRY_MPI(r, MPI_Barrier(r->comm));
        double begin = clock_seconds();
        TRY(exchange_end(&e));
        *seconds = fmin(*seconds, clock_seconds() - begin);
    }
fail:
    return status;
}

clsplat_status launch_measure(clsplat_ranks *r, double *bytes_per_second, double *latency) {
    enum { BYTES = 16 << 20, SMALL = 8 };
    clsplat_status status = CLSPLAT_OK;
    char *out = calloc(BYTES, 1), *in = calloc(BYTES, 1);
    double mine[2] = {0, 0}, most[2] = {0, 0};
    TRY(clsplat_ranks_agree(
        r, out && in ? CLSPLAT_OK
                     : log_error(r->lib, CLSPLAT_MEMORY, "no memory for messages of %d bytes", BYTES)));
    TRY(time_exchange(r, out, in, BYTES, &mine[0]));
    TRY(time_exchange(r, out, in, SMALL, &mine[1]));
    TRY_MPI(r, MPI_Allreduce(mine, most, 2, MPI_DOUBLE, MPI_MAX, r->comm));
    *latency = most[1];
    *bytes_per_second = BYTES / fmax(most[0] - most[1], 1e-9);
fail:
    free(out);
    free(in);
    return status;
}

/* Summed up by the first rank, which tells the others: no rank has another order of additions. */
static clsplat_status sum_on_all(clsplat_ranks *r, void *numbers, int count, MPI_Datatype type) {
    clsplat_status status = CLSPLAT_OK;
    TRY_MPI(r, MPI_Reduce(r->own == 0 ? MPI_IN_PLACE : numbers, numbers, count, type, MPI_SUM, 0, r->comm));
    TRY_MPI(r, MPI_Bcast(numbers, count, type, 0, r->comm));
fail:
    return status;
}

/* Of many numbers every rank sums up a part, of all ranks in their order, and tells the others: all links
 * carry the same, and at once. `room`: for R times the largest part; `table`: 4 R. */
static clsplat_status sum_by_parts(clsplat_ranks *r, float *numbers, int count, float *room, int *table) {
    clsplat_status status = CLSPLAT_OK;
    int ranks = r->count, *counts = table, *first = table + ranks, *own_counts = table + 2 * ranks,
        *own_first = table + 3 * ranks;
    for (int i = 0; i < ranks; ++i) {
        first[i] = (int)((int64_t)count * i / ranks);
        counts[i] = (int)((int64_t)count * (i + 1) / ranks) - first[i];
    }
    int own = counts[r->own];
    float *sums = numbers + first[r->own];
    for (int i = 0; i < ranks; ++i) {
        own_counts[i] = own;
        own_first[i] = i * own;
    }
    TRY_MPI(
        r, MPI_Alltoallv(numbers, counts, first, MPI_FLOAT, room, own_counts, own_first, MPI_FLOAT, r->comm));
    memcpy(sums, room, (size_t)own * sizeof *sums);
    for (int i = 1; i < ranks; ++i)
        for (int n = 0; n < own; ++n)
            sums[n] += room[(size_t)i * (size_t)own + (size_t)n];
    TRY_MPI(r,
            MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, numbers, counts, first, MPI_FLOAT, r->comm));
fail:
    return status;
}

clsplat_status launch_sum_floats(clsplat_ranks *r, float *numbers, size_t count) {
    enum { PIECE = 1 << 22, FEW = 1 << 12 };
    clsplat_status status = CLSPLAT_OK, room_status = CLSPLAT_OK;
    double begin = clock_seconds();
    size_t most = count < PIECE ? count : PIECE, ranks = (size_t)r->count;
    float *room = NULL;
    int *table = NULL;
    if (count > FEW) {
        room = malloc((most + ranks * ranks) * sizeof *room); /* R parts of ⌈most / R⌉ at most */
        table = malloc(4 * ranks * sizeof *table);
        if (!room || !table)
            room_status = log_error(r->lib, CLSPLAT_MEMORY, "no memory for the sums of %zu numbers", most);
        TRY(clsplat_ranks_agree(r, room_status));
    }
    for (size_t done = 0; done < count; done += PIECE) {
        int piece = (int)(count - done < PIECE ? count - done : PIECE);
        TRY(count > FEW ? sum_by_parts(r, numbers + done, piece, room, table)
                        : sum_on_all(r, numbers + done, piece, MPI_FLOAT));
    }
    size_t moved = count > FEW ? 2 * count / ranks * (ranks - 1) : count; /* parts go out, sums come back */
    r->traffic.sent += moved * sizeof *numbers;
    r->traffic.received += moved * sizeof *numbers;
    r->traffic.waited += clock_seconds() - begin;
fail:
    free(room);
    free(table);
    return status;
}

clsplat_status launch_most_floats(clsplat_ranks *r, float *numbers, size_t count) {
    clsplat_status status = CLSPLAT_OK;
    TRY_MPI(r, MPI_Allreduce(MPI_IN_PLACE, numbers, (int)count, MPI_FLOAT, MPI_MAX, r->comm));
    r->traffic.sent += count * sizeof *numbers;
    r->traffic.received += count * sizeof *numbers;
fail:
    return status;
}

clsplat_status launch_sum_doubles(clsplat_ranks *r, double *numbers, size_t count) {
    return sum_on_all(r, numbers, (int)count, MPI_DOUBLE);
}

clsplat_status launch_compare(clsplat_ranks *r, const char *name, const char *words) {
    ranks_fact fact = {0};
    snprintf(fact.name, sizeof fact.name, "%s", name);
    snprintf(fact.here, sizeof fact.here, "%s", words);
    return ranks_compare(r, &fact, 1);
}
