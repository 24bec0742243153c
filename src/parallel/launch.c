#include "parallel/launch.h"

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
