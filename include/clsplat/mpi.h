/* A group of ranks out of the caller's MPI communicator: the one header that needs mpi.h. */
#ifndef CLSPLAT_MPI_H
#define CLSPLAT_MPI_H

#include <clsplat/ranks.h>
#include <mpi.h>

#ifdef __cplusplus
extern "C" {
#endif

/* MPI must have been initialised. Ownership: *ranks is the caller's and has a duplicate of the communicator,
 * to be destroyed before `lib` and before MPI_Finalize. Collective. Returns: MEMORY, IO (what MPI says). */
CLSPLAT_API clsplat_status clsplat_ranks_create(clsplat *lib, MPI_Comm communicator, clsplat_ranks **ranks);

#ifdef __cplusplus
}
#endif
#endif
