#include "cli/language_ranks.h"

#ifdef CLSPLAT_MPI
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "cli/ranks_device.h"
#include "parallel/launch.h"

clsplat_status language_ranks_begin(language *l) {
    clsplat_status status = CLSPLAT_OK;
    TRY(launch_begin(l->c->lib, &l->ranks));
    l->silent = l->c->quiet = clsplat_ranks_own(l->ranks) > 0;
    l->c->progress.terminal = l->c->progress.terminal && !l->silent;
fail:
    return status;
}

clsplat_status language_ranks_device(language *l) {
    return ranks_open_device(l->c, l->ranks, &l->device);
}

/* What was agreed on names its rank. */
clsplat_status language_ranks_agree(const language *l, clsplat_status status) {
    bool told = status != CLSPLAT_OK && strncmp(clsplat_last_error(l->c->lib), "rank ", 5) == 0;
    return told ? status : clsplat_ranks_agree(l->ranks, status);
}

clsplat_status language_ranks_session(const language *l, size_t capacity, clsplat_session **session) {
    return clsplat_ranks_session_open(l->ranks, l->model, capacity, l->attention, session);
}

clsplat_status language_ranks_alike(const language *l, language_tokens tokens) {
    char words[64];
    snprintf(words, sizeof words, "%zu tokens, %016llx", tokens.count,
             (unsigned long long)XXH3_64bits(tokens.list, tokens.count * sizeof *tokens.list));
    return launch_compare(l->ranks, "text", words);
}

void language_ranks_end(language *l) {
    launch_end(&l->ranks);
}
#else
clsplat_status language_ranks_begin(language *l) {
    return log_error(l->c->lib, CLSPLAT_UNSUPPORTED,
                     "there is no MPI in it: build it with -Dmpi=enabled, or leave mpirun away");
}
clsplat_status language_ranks_device(language *l) {
    return clsplat_device_open(l->c->lib, l->c->device, &l->device);
}
clsplat_status language_ranks_agree(const language *l, clsplat_status status) {
    (void)l;
    return status;
}
clsplat_status language_ranks_session(const language *l, size_t capacity, clsplat_session **session) {
    return clsplat_session_open(l->model, capacity, l->attention, session);
}
clsplat_status language_ranks_alike(const language *l, language_tokens tokens) {
    (void)l, (void)tokens;
    return CLSPLAT_OK;
}
void language_ranks_end(language *l) {
    (void)l;
}
#endif
