#include "parallel/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

clsplat_status ranks_failed(const clsplat_ranks *r, const char *call, int code) {
    char words[MPI_MAX_ERROR_STRING + 1] = "";
    int length = 0;
    MPI_Error_string(code, words, &length);
    return log_error(r->lib, CLSPLAT_IO, "%.*s: %s", (int)strcspn(call, "("), call, words);
}

clsplat_status clsplat_ranks_create(clsplat *lib, MPI_Comm communicator, clsplat_ranks **ranks) {
    clsplat_status status = CLSPLAT_OK;
    int level = MPI_THREAD_SINGLE;
    clsplat_ranks *r = calloc(1, sizeof *r);
    *ranks = NULL;
    if (!r)
        return log_error(lib, CLSPLAT_MEMORY, "no memory for a group of ranks");
    r->lib = lib;
    r->comm = MPI_COMM_NULL;
    TRY_MPI(r, MPI_Comm_dup(communicator, &r->comm));
    TRY_MPI(r, MPI_Comm_set_errhandler(r->comm, MPI_ERRORS_RETURN));
    TRY_MPI(r, MPI_Comm_rank(r->comm, &r->own));
    TRY_MPI(r, MPI_Comm_size(r->comm, &r->count));
    TRY_MPI(r, MPI_Query_thread(&level));
    r->threads = level >= MPI_THREAD_SERIALIZED;
    *ranks = r;
    return CLSPLAT_OK;
fail:
    clsplat_ranks_destroy(&r);
    return status;
}

void clsplat_ranks_destroy(clsplat_ranks **ranks) {
    if (!ranks || !*ranks)
        return;
    if ((*ranks)->comm != MPI_COMM_NULL)
        MPI_Comm_free(&(*ranks)->comm);
    free(*ranks);
    *ranks = NULL;
}

size_t clsplat_ranks_count(const clsplat_ranks *ranks) {
    return (size_t)ranks->count;
}

size_t clsplat_ranks_own(const clsplat_ranks *ranks) {
    return (size_t)ranks->own;
}

clsplat_traffic clsplat_ranks_traffic(const clsplat_ranks *ranks) {
    return ranks->traffic;
}

clsplat_status clsplat_ranks_agree(clsplat_ranks *r, clsplat_status mine) {
    clsplat_status status = CLSPLAT_OK;
    int candidate = mine == CLSPLAT_OK ? r->count : r->own, lowest = r->count;
    struct {
        int status;
        char words[LOG_WORDS];
    } told = {.status = (int)mine};
    TRY_MPI(r, MPI_Allreduce(&candidate, &lowest, 1, MPI_INT, MPI_MIN, r->comm));
    if (lowest == r->count)
        return CLSPLAT_OK;
    snprintf(told.words, sizeof told.words, "%s", mine == CLSPLAT_OK ? "" : clsplat_last_error(r->lib));
    TRY_MPI(r, MPI_Bcast(&told, sizeof told, MPI_BYTE, lowest, r->comm));
    bool named = strncmp(told.words, "rank ", 5) == 0; /* it was agreed on before */
    told.words[sizeof told.words - 1] = '\0';
    status = named ? log_error(r->lib, (clsplat_status)told.status, "%s", told.words)
                   : log_error(r->lib, (clsplat_status)told.status, "rank %d of %d: %s", lowest, r->count,
                               told.words[0] ? told.words : clsplat_status_text((clsplat_status)told.status));
fail:
    return status;
}

clsplat_status ranks_compare(clsplat_ranks *r, const ranks_fact *facts, size_t count) {
    clsplat_status status = CLSPLAT_OK, mine = CLSPLAT_OK;
    for (size_t i = 0; i < count; ++i) {
        ranks_fact first = facts[i];
        TRY_MPI(r, MPI_Bcast(&first, sizeof first, MPI_BYTE, 0, r->comm));
        if (mine == CLSPLAT_OK && strncmp(first.here, facts[i].here, sizeof first.here) != 0)
            mine = log_error(r->lib, CLSPLAT_INVALID,
                             "%s: %.150s here, but %.150s on rank 0; all ranks need the same", facts[i].name,
                             facts[i].here, first.here);
    }
    TRY(clsplat_ranks_agree(r, mine));
fail:
    return status;
}

clsplat_status ranks_alike(clsplat_ranks *r, const char *words, bool *alike) {
    clsplat_status status = CLSPLAT_OK;
    char first[RANKS_WORDS];
    int same, all = 1;
    snprintf(first, sizeof first, "%s", words);
    TRY_MPI(r, MPI_Bcast(first, sizeof first, MPI_BYTE, 0, r->comm));
    same = strncmp(first, words, sizeof first - 1) == 0;
    TRY_MPI(r, MPI_Allreduce(&same, &all, 1, MPI_INT, MPI_MIN, r->comm));
    *alike = all != 0;
fail:
    return status;
}
