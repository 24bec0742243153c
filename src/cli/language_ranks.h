/* A model that several processes run together, for language.c. Without MPI the first says so. */
#ifndef CLSPLAT_CLI_LANGUAGE_RANKS_H
#define CLSPLAT_CLI_LANGUAGE_RANKS_H

#include "cli/language.h"

/* Fills in ranks and silent. Collective, as are the others but the last. */
clsplat_status language_ranks_begin(language *l);
clsplat_status language_ranks_device(language *l);
clsplat_status language_ranks_agree(const language *l, clsplat_status status);
clsplat_status language_ranks_session(const language *l, size_t capacity, clsplat_session **session);
clsplat_status language_ranks_alike(const language *l, language_tokens tokens);
void language_ranks_end(language *l);

#endif
