#include <math.h>

#include "model/session.h"

static clsplat_status go_back(clsplat_session *s) {
    clsplat_status status = CLSPLAT_OK;
    queue q;
    s->failures = s->model->device->trail.failures;
    s->length = s->sure;
    s->has_last = s->has_logits = false;
    if (s->divided)
        divided_rewind(s->divided, s->length);
    queue_begin(s->model->device, 0, NULL, &q);
    if (s->form->rewind)
        TRY(s->form->rewind(&q, s->state, s->length));
fail:
    return status;
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
