/* The beginning and the end of a session. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "attention/near_far.h"
#include "base/sized.h"
#include "model/pattern.h"
#include "model/session.h"
#include "runtime/buffer.h"

static clsplat_status check_opening(const clsplat_model *m, size_t capacity,
                                    const clsplat_model_attention *a) {
    clsplat *lib = m->device->lib;
    if (m->config.layer.encoder)
        return log_error(lib, CLSPLAT_UNSUPPORTED,
                         "a model of type %s reads whole texts and does not go on with them: `clsplat embed` "
                         "makes vectors of texts with it",
                         m->config.family);
    if (capacity < 1 || capacity > m->context)
        return log_error(lib, CLSPLAT_INVALID,
                         "a session of %zu tokens is not from 1 to the model's context of %zu", capacity,
                         m->context);
    if (!attention_form_of(a->method))
        return log_error(lib, CLSPLAT_UNSUPPORTED, "there is no attention method %d here", (int)a->method);
    return a->method == CLSPLAT_MODEL_NEAR_FAR ? near_far_check_device(m->device) : CLSPLAT_OK;
}

bool session_is_splatted(const clsplat_session *s, size_t layer) {
    return pattern_is_splatted(&s->model->config, layer);
}

/* Tokens whose keys and values a layer keeps: all, or as many as splat layers do, `splatted`, or as are here.
 */
static size_t kept_tokens(const clsplat_session *s, size_t layer, size_t splatted) {
    return session_is_splatted(s, layer)  ? splatted
           : session_is_divided(s, layer) ? s->divided->room
                                          : s->capacity;
}

/* Before it is taken: the cache is the largest thing that depends on what the caller asks for. */
static clsplat_status check_memory(const clsplat_session *s, size_t splatted) {
    static const double mib = 1024.0 * 1024.0;
    const model_config *c = &s->model->config;
    clsplat_device *device = s->model->device;
    double token = 2.0 * (double)(c->kv_heads * c->head_dim * clsplat_dtype_size(s->model->cache)),
           needed = 0;
    double left = (double)device->info.limits.global_memory - (double)clsplat_device_memory(device).now;
    for (size_t i = 0; i < c->layers; ++i)
        needed += token * (double)kept_tokens(s, i, splatted);
    if (needed > left)
        return log_error(device->lib, CLSPLAT_MEMORY,
                         "a session of %zu tokens needs %.1f MiB for keys and values; %s has %.1f MiB left",
                         s->capacity, needed / mib, device->info.name, left / mib);
    return CLSPLAT_OK;
}

static clsplat_status create_cache(clsplat_session *s, bool whole) {
    clsplat_status status = CLSPLAT_OK;
    const model_config *c = &s->model->config;
    clsplat_device *device = s->model->device;
    size_t room = c->splatted ? splat_store_room(s->model, s->capacity, whole) : 0;
    TRY(check_memory(s, room));
    s->k = calloc(2 * c->layers, sizeof *s->k);
    if (!s->k)
        return log_error(device->lib, CLSPLAT_MEMORY, "no memory for a session");
    s->v = s->k + c->layers;
    for (size_t i = 0; i < 2 * c->layers; ++i)
        TRY(tensor_create(device, s->model->cache, c->kv_heads, kept_tokens(s, i % c->layers, room),
                          c->head_dim, &s->k[i]));
    TRY(splat_store_open(s->model, room, s->k, s->v, &s->splats));
    TRY(tensor_create(device, s->model->activations, 1, 1, c->hidden, &s->last));
    TRY(tensor_create(device, CLSPLAT_F32, 1, 1, c->vocabulary, &s->logits));
fail:
    return status;
}

static clsplat_status create_distances(clsplat_session *s) {
    if (s->attention.measure_errors &&
        !(s->distances = calloc(s->model->config.layers, sizeof *s->distances)))
        return log_error(s->model->device->lib, CLSPLAT_MEMORY, "no memory for a session");
    return CLSPLAT_OK;
}

static clsplat_status create_lists(clsplat_session *s) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *device = s->model->device;
    TRY(buffer_create(device, 4 * s->capacity, &s->ids));
    TRY(buffer_create(device, 4 * s->capacity, &s->targets));
    TRY(buffer_create(device, 4 * s->capacity, &s->log_likelihood));
    TRY(buffer_create(device, 4 * s->capacity, &s->greedy));
    TRY(buffer_create(device, 4, &s->token));
fail:
    return status;
}

attention_shape session_shape(const clsplat_model *m, size_t capacity) {
    const model_config *c = &m->config;
    return (attention_shape){.layers = c->layers,
                             .heads = c->heads,
                             .kv_heads = c->kv_heads,
                             .head_dim = c->head_dim,
                             .capacity = capacity,
                             .room = capacity,
                             .processes = 1,
                             .cache = m->cache,
                             .windowed = c->windowed,
                             .scaled = c->score_scale != 1 / sqrtf((float)c->head_dim),
                             .capped = c->layer.score_cap != 0,
                             .sinks = m->weights.has_sinks};
}

bool session_keeps(const clsplat_session *s, size_t layer) {
    return !session_is_divided(s, layer) || s->divided->holder == s->divided->team.own;
}

bool session_is_divided(const clsplat_session *s, size_t layer) {
    return s->divided && !s->model->config.windowed[layer] && !session_is_splatted(s, layer);
}

static clsplat_status create_divided(clsplat_session *s, const divided_team *team) {
    clsplat *lib = s->model->device->lib;
    if (!team)
        return CLSPLAT_OK;
    if (!s->form->divides)
        return log_error(lib, CLSPLAT_UNSUPPORTED,
                         "%s attention does not share a model's keys among processes; exact and near-far do, "
                         "or leave mpirun away",
                         s->form->name);
    if (s->form->attend_past && s->attention.sparse_topk)
        return log_error(
            lib, CLSPLAT_UNSUPPORTED,
            "a limit on exact keys (sparse_topk) is not kept over several processes; leave it 0");
    if (s->attention.measure_errors)
        return log_error(lib, CLSPLAT_UNSUPPORTED, "errors are not measured over several processes");
    attention_shape shape = session_shape(s->model, s->capacity);
    return divided_open(s->model->device, team, &shape, s->model->scratch.rows, &s->divided);
}

clsplat_status clsplat_session_open_sized(clsplat_model *model, size_t capacity,
                                          const clsplat_model_attention *attention,
                                          clsplat_session **session) {
    return session_open(model, capacity, attention, NULL, false, session);
}

clsplat_status session_open(clsplat_model *model, size_t capacity,
                            const clsplat_model_attention *attention_given, const divided_team *team,
                            bool whole, clsplat_session **session) {
    clsplat_model_attention attention = clsplat_model_attention_defaults();
    clsplat_status status = CLSPLAT_OK;
    assert(model && session);
    uint64_t before = clsplat_device_memory(model->device).now;
    *session = NULL;
    TRY(SIZED_READ(model->device->lib, attention, attention_given));
    TRY(check_opening(model, capacity, &attention));
    clsplat_session *s = calloc(1, sizeof *s);
    if (!s)
        return log_error(model->device->lib, CLSPLAT_MEMORY, "no memory for a session");
    *s = (clsplat_session){.model = model, .capacity = capacity, .attention = attention};
    s->form = attention_form_of(attention.method);
    *session = s;
    TRY(create_divided(s, team));
    TRY(create_cache(s, whole || session_adaptation(s).tokens > 0));
    TRY(create_lists(s));
    TRY(create_distances(s));
    TRY(session_open_adaptation(s));
    attention_shape shape = session_shape(model, capacity);
    if (s->divided) {
        shape.room = s->divided->room;
        shape.processes = team->count;
    }
    const char *lacking = attention_lacks(s->form, &shape);
    if (lacking)
        TRY(log_error(s->model->device->lib, CLSPLAT_UNSUPPORTED,
                      "%s attention is not there for a model %s; exact and window are", s->form->name,
                      lacking));
    TRY(s->form->open(model->device, &shape, &attention, &s->state));
    if (s->divided) {
        s->divided->form = s->form;
        s->divided->state = s->state;
        s->divided->parameters = &s->attention;
    }
    TRY(clsplat_device_finish(model->device)); /* what it begins with is whole */
    s->failures = model->device->trail.failures;
    s->bytes = clsplat_device_memory(model->device).now - before;
    return CLSPLAT_OK;
fail:
    clsplat_session_close(session);
    return status;
}

void clsplat_session_close(clsplat_session **session) {
    if (!session || !*session)
        return;
    clsplat_session *s = *session;
    clsplat_device *device = s->model->device;
    cl_mem *lists[] = {&s->ids, &s->targets, &s->log_likelihood, &s->greedy};
    if (s->form->close)
        s->form->close(device, &s->state);
    splat_store_close(&s->splats);
    divided_close(&s->divided);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; ++i)
        buffer_release(device, 4 * s->capacity, lists[i]);
    buffer_release(device, 4, &s->token);
    tensor_release(device, &s->last);
    tensor_release(device, &s->logits);
    for (size_t i = 0; s->k && i < 2 * s->model->config.layers; ++i)
        tensor_release(device, &s->k[i]);
    free(s->distances);
    free(s->k);
    free(s);
    *session = NULL;
}
