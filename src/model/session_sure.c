#include <math.h>

#include "model/session.h"

/* Processes hold tokens in parts: how many of these remain here only they know, and trees grow anew of them.
 */
clsplat_status session_shorten(queue *q, clsplat_session *s, size_t length) {
    clsplat_status status = CLSPLAT_OK;
    if (s->form->rewind)
        TRY(s->form->rewind(q, s->state, length));
    if (s->splats && length == 0)
        s->splats->base = 0;
    if (!s->divided)
        return CLSPLAT_OK;
    divided_rewind(s->divided, length);
    size_t held = s->divided->counts[s->divided->team.own];
    for (size_t i = 0; i < s->model->config.layers && s->form->append && held > 0; ++i)
        if (session_is_divided(s, i))
            TRY(s->form->append(q, s->state, i, 0, op_slice(s->k[i], 2, 0, held),
                                op_slice(s->v[i], 2, 0, held)));
fail:
    return status;
}

static clsplat_status go_back(clsplat_session *s) {
    queue q;
    s->failures = s->model->device->trail.failures;
    s->length = splat_store_reach(s->splats) ? 0 : s->sure; /* what it left behind may be spoilt, too */
    s->sure = s->length;
    s->has_last = s->has_logits = false;
    queue_begin(s->model->device, 0, NULL, &q);
    return session_shorten(&q, s, s->length);
}

bool session_is_whole(const clsplat_session *s) {
    return s->failures == s->model->device->trail.failures;
}

clsplat_status session_mend(clsplat_session *s) {
    return session_is_whole(s) ? CLSPLAT_OK : go_back(s);
}

clsplat_status session_begin(clsplat_session *s) {
    clsplat_status status = CLSPLAT_OK;
    if (session_is_whole(s))
        return CLSPLAT_OK;
    TRY(go_back(s));
    status = log_error(
        s->model->device->lib, CLSPLAT_OPENCL,
        "a command failed on %s after the session's token %zu: it is back there, and wants the later ones "
        "again",
        s->model->device->info.name, s->length);
fail:
    return status;
}

clsplat_status session_end(clsplat_session *s, clsplat_status status, bool settled) {
    if (!session_is_whole(s))
        go_back(s);
    else if (status == CLSPLAT_OK && settled)
        s->sure = s->length;
    return s->divided ? divided_agree(s->divided, status) : status;
}

clsplat_status clsplat_session_errors(clsplat_session *session, double *errors) {
    if (!session->distances)
        return log_error(session->model->device->lib, CLSPLAT_INVALID,
                         "the session does not measure errors: open it with measure_errors");
    for (size_t i = 0; i < session->model->config.layers; ++i) {
        const attention_distance *d = &session->distances[i];
        errors[i] = d->size > 0 ? sqrt(d->difference / d->size) : 0;
    }
    return CLSPLAT_OK;
}
