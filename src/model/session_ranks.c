/* A session that ranks hold together. */
#include <clsplat/clsplat.h>
#include <clsplat/ranks.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/sized.h"
#include "model/session.h"
#include "parallel/launch.h"

static clsplat_status agree(void *user, clsplat_status status) {
    return clsplat_ranks_agree(user, status);
}

static clsplat_status most(void *user, float *numbers, size_t count) {
    return launch_most_floats(user, numbers, count);
}

static clsplat_status sum(void *user, float *numbers, size_t count) {
    return launch_sum_floats(user, numbers, count);
}

/* Of the last norm's weights, which no two models have alike. */
static clsplat_status hash_weights(const clsplat_model *m, unsigned long long *hash) {
    clsplat_status status = CLSPLAT_OK;
    const op_tensor *norm = &m->weights.norm.weight;
    size_t size = clsplat_dtype_size(norm->dtype), bytes = m->config.hidden * size;
    void *numbers = malloc(bytes);
    queue q;
    *hash = 0;
    if (!numbers)
        return log_error(m->device->lib, CLSPLAT_MEMORY, "no memory for %zu bytes of weights", bytes);
    queue_begin(m->device, 0, NULL, &q);
    if (norm->mem)
        TRY(queue_download(&q, (queue_copy){.mem = norm->mem,
                                            .mem_offset = norm->offset * size,
                                            .host = numbers,
                                            .row = bytes,
                                            .rows = 1}));
    *hash = norm->mem ? XXH3_64bits(numbers, bytes) : 0;
fail:
    free(numbers);
    return status;
}

static clsplat_status compare(clsplat_ranks *ranks, const clsplat_model *m, size_t capacity,
                              const clsplat_model_attention *a) {
    clsplat_status status = CLSPLAT_OK;
    char words[192];
    unsigned long long weights = 0;
    const model_config *c = &m->config;
    TRY(clsplat_ranks_agree(ranks, hash_weights(m, &weights)));
    snprintf(words, sizeof words,
             "version %s, kernels %016llx, %s, %zu layers of %zu, weights %016llx, type %d; %zu tokens, "
             "method %d to %g, %zu at once",
             clsplat_version(), (unsigned long long)launch_kernels(), c->family, c->layers, c->hidden,
             weights, (int)m->activations, capacity, (int)a->method, (double)a->tolerance, m->scratch.rows);
    TRY(launch_compare(ranks, "session", words));
fail:
    return status;
}

clsplat_status clsplat_ranks_session_open_sized(clsplat_ranks *ranks, clsplat_model *model, size_t capacity,
                                                const clsplat_model_attention *attention_given,
                                                clsplat_session **session) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_model_attention attention = clsplat_model_attention_defaults();
    divided_team team = {.own = clsplat_ranks_own(ranks),
                         .count = clsplat_ranks_count(ranks),
                         .user = ranks,
                         .agree = agree,
                         .most = most,
                         .sum = sum};
    *session = NULL;
    TRY(clsplat_ranks_agree(ranks, SIZED_READ(model->device->lib, attention, attention_given)));
    TRY(compare(ranks, model, capacity, &attention));
    TRY(clsplat_ranks_agree(ranks, session_open(model, capacity, &attention, &team, false, session)));
    return CLSPLAT_OK;
fail:
    clsplat_session_close(session);
    return status;
}
