/* Gaussian attention with its gradients, and the operations that it is made of. */
#include "op/families.h"
#include "op/kernel.h"
#include "tuning/make.h"

static clsplat_status make_write(example *e) {
    clsplat_status status = CLSPLAT_OK;
    const example_shape *s = &e->shape;
    op_write_args *a = &e->args.write;
    e->parts[0] = (example_part){&op_write_family, a};
    *a = (op_write_args){.heads = s->heads};
    TRY(make_splats(e, &a->splats));
    TRY(make_keys(e, MAKE_RANDOM, s->dim, &a->k));
    TRY(make_keys(e, MAKE_RANDOM, s->value_dim, &a->v));
    gaussian_call call = {.splats = a->splats, .q = a->k, .k = a->k, .v = a->v};
    size_t segments = gaussian_segments(&e->device->info.limits, &call);
    a->segment = (s->keys + segments - 1) / segments;
    a->state.segments = (s->keys + a->segment - 1) / a->segment;
    size_t states = s->batch * s->heads * a->state.segments * s->splats;
    TRY(make_array(e, MAKE_RESULT, states, &a->state.lse));
    TRY(make_array(e, MAKE_RESULT, states * s->value_dim, &a->state.value));
fail:
    return status;
}

const example_kind example_write = {.make = make_write, .by_key = true, .of_splats = true};

static clsplat_status make_log_density(example *e) {
    clsplat_status status = CLSPLAT_OK;
    const example_shape *s = &e->shape;
    op_log_density_args *a = &e->args.log_density;
    e->parts[0] = (example_part){&op_log_density_family, a};
    *a = (op_log_density_args){.heads = s->heads};
    TRY(make_splats(e, &a->splats));
    TRY(make_rows(e, MAKE_RANDOM, s->dim, &a->x));
    TRY(make_array(e, MAKE_RESULT, s->batch * s->heads * s->queries * s->splats, &a->log_density));
fail:
    return status;
}

const example_kind example_log_density = {.make = make_log_density, .of_splats = true};

/* Causal: as many keys as queries, and a state in front of each chunk of them. */
static clsplat_status make_read(example *e) {
    clsplat_status status = CLSPLAT_OK;
    const example_shape *s = &e->shape;
    op_read_args *a = &e->args.read;
    size_t heads = s->batch * s->heads, log_densities = heads * s->queries * s->splats;
    e->parts[0] = (example_part){&op_read_family, a};
    *a = (op_read_args){.kv_heads = s->heads, .causal = s->causal, .chunk = GAUSSIAN_CHUNK};
    a->state.segments = s->causal ? (s->queries + a->chunk - 1) / a->chunk : 1;
    size_t states = heads * a->state.segments * s->splats;
    TRY(make_splats(e, &a->splats));
    TRY(make_rows(e, MAKE_RANDOM, s->dim, &a->q));
    TRY(make_outputs(e, &a->out, &a->lse));
    TRY(make_array(e, MAKE_RANDOM, states, &a->state.lse));
    TRY(make_array(e, MAKE_RANDOM, states * s->value_dim, &a->state.value));
    if (s->causal) {
        TRY(make_array(e, MAKE_RANDOM, log_densities, &a->query_log_density));
        TRY(make_array(e, MAKE_RANDOM, log_densities, &a->key_log_density));
        TRY(make_rows(e, MAKE_RANDOM, s->value_dim, &a->v));
    }
fail:
    return status;
}

const example_kind example_read = {.make = make_read, .of_splats = true};

/* The call as its families see it; what does not decide whether a row fits is left out. */
static clsplat_status make_gaussian(example *e) {
    clsplat_status status = CLSPLAT_OK;
    gaussian_call *a = &e->args.gaussian;
    op_write_args *write = &e->fitting.forward.write;
    op_read_args *read = &e->fitting.forward.read;
    e->parts[0] = (example_part){&op_write_family, write};
    e->parts[1] = (example_part){&op_read_family, read};
    e->diagonal = &a->diagonal;
    TRY(make_splats(e, &a->splats));
    TRY(make_tokens(e, &a->q, &a->k, &a->v));
    TRY(make_outputs(e, &a->out, &a->lse));
    *write = (op_write_args){
        .splats = a->splats, .heads = e->shape.heads, .segment = e->shape.keys, .k = a->k, .v = a->v};
    *read = (op_read_args){.splats = a->splats,
                           .kv_heads = e->shape.heads,
                           .q = a->q,
                           .out = a->out,
                           .lse = a->lse,
                           .causal = e->shape.causal,
                           .diagonal = (int32_t)e->shape.keys - (int32_t)e->shape.queries,
                           .chunk = GAUSSIAN_CHUNK,
                           .v = a->v};
fail:
    return status;
}

/* Bytes: what softmax attention moves, too. */
static work gaussian_work(const example *e) {
    const gaussian_call *a = &e->args.gaussian;
    return (work){.flops = (double)(a->q.shape[0] * a->q.shape[1] * a->splats->count) *
                           (splat_flops(a->splats) + 2 * (double)a->v.shape[3]) *
                           (double)(a->q.shape[2] + a->k.shape[2]),
                  .bytes = tensor_bytes(&a->q) + tensor_bytes(&a->k) + tensor_bytes(&a->v) +
                           tensor_bytes(&a->out) + tensor_bytes(&a->lse)};
}

static clsplat_status enqueue_gaussian(queue *q, const void *args) {
    return gaussian_enqueue(q, args);
}

const example_kind example_gaussian = {make_gaussian, enqueue_gaussian, gaussian_work, .of_splats = true};

static clsplat_status make_gaussian_backward(example *e) {
    clsplat_status status = CLSPLAT_OK;
    const example_shape *s = &e->shape;
    gaussian_gradient *a = &e->args.gaussian_backward;
    op_write_backward_args *write = &e->fitting.backward.write;
    op_read_backward_args *read = &e->fitting.backward.read;
    queue q;
    e->parts[0] = (example_part){&op_write_backward_family, write};
    e->parts[1] = (example_part){&op_read_backward_family, read};
    e->diagonal = &a->call.diagonal;
    TRY(make_splats(e, &a->call.splats));
    TRY(make_tokens(e, &a->call.q, &a->call.k, &a->call.v));
    TRY(make_rows(e, MAKE_RANDOM, s->value_dim, &a->dout));
    TRY(make_gradients(e, &a->dq, &a->dk, &a->dv));
    if (!gaussian_backward_fits(&e->device->info.limits, &a->call, s->batch, s->heads))
        TRY(log_error(e->device->lib, CLSPLAT_INVALID, "%zu heads are too many for gradients at once here",
                      s->batch * s->heads));
    size_t moments = e->ready->heads * e->ready->count * op_moments_size(e->ready);
    TRY(make_array(e, MAKE_RANDOM, moments, &a->moments)); /* is added to */
    queue_begin(e->device, 0, NULL, &q);
    TRY(queue_fill(&q, a->moments, 0, 4 * moments, 0));
    *write = (op_write_backward_args){.splats = a->call.splats,
                                      .heads = s->heads,
                                      .v = a->call.v,
                                      .causal = s->causal,
                                      .chunk = GAUSSIAN_CHUNK,
                                      .dout = a->dout};
    *read = (op_read_backward_args){.splats = a->call.splats,
                                    .kv_heads = s->heads,
                                    .dout = a->dout,
                                    .causal = s->causal,
                                    .chunk = GAUSSIAN_CHUNK,
                                    .v = a->call.v};
fail:
    return status;
}

/* Of every token and splat: φ, and what it passes to the token and to the splat; of a row two sums of value
 * columns, of a key the forward pass's and two. */
static work gaussian_backward_work(const example *e) {
    const gaussian_gradient *a = &e->args.gaussian_backward;
    const gaussian_call *c = &a->call;
    double rows = (double)c->q.shape[2], keys = (double)c->k.shape[2], value_dim = (double)c->v.shape[3];
    double flops = 3 * splat_flops(c->splats) * (rows + keys) + 2 * value_dim * (2 * rows + 3 * keys);
    return (work){.flops = flops * (double)(c->q.shape[0] * c->q.shape[1] * c->splats->count),
                  .bytes = 2 * (tensor_bytes(&c->q) + tensor_bytes(&c->k) + tensor_bytes(&c->v)) +
                           tensor_bytes(&a->dout)};
}

static clsplat_status enqueue_gaussian_backward(queue *q, const void *args) {
    return gaussian_backward(q, args);
}

const example_kind example_gaussian_backward = {make_gaussian_backward, enqueue_gaussian_backward,
                                                gaussian_backward_work, .of_splats = true};
