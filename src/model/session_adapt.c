#include "base/sized.h"
#include "model/session.h"
#include "model/splats_adapt.h"

model_adaptation session_adaptation(const clsplat_session *s) {
    model_adaptation how = s->model->config.adaptation;
    const clsplat_model_attention *a = &s->attention;
    how.tokens = a->adapt_every == SIZE_MAX ? 0 : a->adapt_every ? a->adapt_every : how.tokens;
    return how;
}

clsplat_status session_open_adaptation(clsplat_session *s) {
    model_adaptation how = session_adaptation(s);
    const clsplat_model_attention *a = &s->attention;
    return s->splats && how.tokens ? splat_adapting_open(s->splats, how, a->adapt_listener, a->adapt_user)
                                   : CLSPLAT_OK;
}

clsplat_status session_adapt(queue *q, clsplat_session *s) {
    bool made = false;
    clsplat_status status = s->splats ? splat_adapting_cycle(q, s->splats, s->length, &made) : CLSPLAT_OK;
    if (made && session_is_whole(s))
        s->sure = s->length;
    return status;
}

void clsplat_session_adaptation_read_sized(const clsplat_session *session,
                                           clsplat_session_adaptation *adaptation) {
    const splat_adapting *a = session->splats ? session->splats->adapting : NULL;
    clsplat_session_adaptation own = a ? a->told : (clsplat_session_adaptation){0};
    sized_write(&own, sizeof own, adaptation);
}
