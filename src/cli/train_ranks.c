/* `mpirun clsplat train`: processes that learn one model together. */
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "cli/ranks_device.h"
#include "cli/train.h"
#include "format/json.h"
#include "parallel/launch.h"

static clsplat_status sum(void *user, float *numbers, size_t count) {
    return launch_sum_floats(user, numbers, count);
}

static clsplat_status meet(void *user, double *numbers, size_t count) {
    return launch_sum_doubles(user, numbers, count);
}

static clsplat_status agree(void *user, clsplat_status status) {
    return clsplat_ranks_agree(user, status);
}

clsplat_status train_team_begin(cli *c, train_team *team) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_ranks *ranks = NULL;
    TRY(launch_begin(c->lib, &ranks));
    *team = (train_team){.own = clsplat_ranks_own(ranks),
                         .count = clsplat_ranks_count(ranks),
                         .user = ranks,
                         .sum = sum,
                         .meet = meet,
                         .agree = agree};
    c->quiet = team->own > 0; /* from here on the ranks agree on what is said */
    c->progress.terminal = c->progress.terminal && team->own == 0;
fail:
    return status;
}

void train_team_end(train_team *team) {
    clsplat_ranks *ranks = team->user;
    launch_end(&ranks);
    *team = (train_team){0};
}

clsplat_status train_team_device(cli *c, const train_team *team, clsplat_device **device) {
    return ranks_open_device(c, team->user, device);
}

clsplat_status train_team_compare(const train_team *team, const train_request *r) {
    char words[160];
    json_t *settings = train_settings_write(&r->settings);
    char *all = json_write(settings, JSON_COMPACT | JSON_REAL_PRECISION(17));
    snprintf(words, sizeof words, "version %s, settings %016llx, texts %016llx and %016llx, step %llu",
             clsplat_version(), all ? (unsigned long long)XXH3_64bits(all, strlen(all)) : 0ull,
             (unsigned long long)XXH3_64bits(r->text->bytes, r->text->count),
             (unsigned long long)XXH3_64bits(r->held_out->bytes, r->held_out->count),
             (unsigned long long)r->progress.step);
    free(all);
    json_decref(settings);
    return launch_compare(team->user, "training", words);
}
