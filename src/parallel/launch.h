/* Ranks as a launcher (mpirun) started them, for the command: without mpi.h. */
#ifndef CLSPLAT_PARALLEL_LAUNCH_H
#define CLSPLAT_PARALLEL_LAUNCH_H

#include <clsplat/ranks.h>

/* Starts MPI and makes a group of all processes. Ownership: *ranks is the caller's, for launch_end alone.
 * Blocks. Collective. */
clsplat_status launch_begin(clsplat *lib, clsplat_ranks **ranks);
/* Accepts NULL and a NULL handle. Collective. */
void launch_end(clsplat_ranks **ranks);

/* Which of the processes on this machine this is. Collective. */
clsplat_status launch_place(clsplat_ranks *ranks, size_t *place);

/* Bytes that the rank `from` has go to rank 0, piece by piece. Returns: IO. */
clsplat_status launch_send(clsplat_ranks *ranks, const void *bytes, size_t count);
clsplat_status launch_receive(clsplat_ranks *ranks, size_t from, void *bytes, size_t count);

/* The most and the sum over the ranks, on rank 0. Collective. */
typedef struct launch_sum {
    uint64_t most_sent, all_sent;
    double most_waited, most_seconds, least_seconds;
} launch_sum;
clsplat_status launch_sum_up(clsplat_ranks *ranks, double seconds, launch_sum *sum);

/* What the slowest rank sends to the next a second, all at once, as the ring of keys does, and how long a
 * small message takes. Blocks for some tenths of a second. Collective. Returns: MEMORY, IO. */
clsplat_status launch_measure(clsplat_ranks *ranks, double *bytes_per_second, double *latency);

/* Sums over the ranks, the same bits on all of them. Collective. Returns: IO. */
clsplat_status launch_sum_floats(clsplat_ranks *ranks, float *numbers, size_t count);
clsplat_status launch_most_floats(clsplat_ranks *ranks, float *numbers, size_t count); /* count < 2^31 */
clsplat_status launch_sum_doubles(clsplat_ranks *ranks, double *numbers, size_t count);

/* A hash of all kernels' sources. */
uint64_t launch_kernels(void);

/* Whether the words are the same on all ranks. Collective. Returns: INVALID, with both. */
clsplat_status launch_compare(clsplat_ranks *ranks, const char *name, const char *words);

/* Sums over the ranks, on rank 0. Collective. */
clsplat_status launch_total(clsplat_ranks *ranks, double *numbers, size_t count);

#endif
