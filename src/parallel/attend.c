/* One attention over all ranks: what is checked, and who does it. */
#include <clsplat/clsplat.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "attention/attend.h"
#include "attention/near_far.h"
#include "parallel/launch.h"
#include "parallel/ranks.h"
#include "runtime/program.h"
#include "splats/splats.h"

bool ranks_progress(void *user, double done) {
    const ranks_call *c = user;
    const clsplat_attention *a = &c->attention;
    return !a->progress || a->progress(a->progress_user, (c->done + done) / c->steps);
}

size_t ranks_rows(const clsplat_run runs[CLSPLAT_RUNS]) {
    return runs[0].count + runs[1].count;
}

/* A tensor without rows is absent; the shapes of the others are those of the part. */
static clsplat_status check_rows(const ranks_call *c, const char *name, const clsplat_tensor *t, size_t rows,
                                 bool optional) {
    clsplat *lib = c->ranks->lib;
    if (!t->host && (rows == 0 || optional))
        return CLSPLAT_OK;
    if (!t->host || t->buffer)
        return log_error(lib, CLSPLAT_INVALID, "%s must be in host memory here: set `host` and nothing else",
                         name);
    if (t->shape[2] != rows)
        return log_error(lib, CLSPLAT_SHAPE, "%s has %zu rows, but this rank's part has %zu", name,
                         t->shape[2], rows);
    return CLSPLAT_OK;
}

static clsplat_status check_part(const ranks_call *c) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention_tensors *t = &c->tensors;
    size_t queries = ranks_rows(c->part.queries), keys = ranks_rows(c->part.keys);
    TRY(check_rows(c, "q", &t->q, queries, false));
    TRY(check_rows(c, "k", &t->k, keys, false));
    TRY(check_rows(c, "v", &t->v, keys, false));
    TRY(check_rows(c, "key_bias", &t->key_bias, keys, true));
    TRY(check_rows(c, "out", &t->out, queries, false));
    TRY(check_rows(c, "lse", &t->lse, queries, true));
    TRY(check_rows(c, "exact_keys", &t->exact_keys, queries, true));
    TRY(check_rows(c, "error_estimate", &t->error_estimate, queries, true));
    if (c->attention.method == CLSPLAT_WINDOW)
        return log_error(c->ranks->lib, CLSPLAT_UNSUPPORTED, "a window does not run over several ranks");
    if (c->attention.method == CLSPLAT_NEAR_FAR && c->attention.sparse_topk)
        return log_error(c->ranks->lib, CLSPLAT_UNSUPPORTED,
                         "a limit on exact keys (sparse_topk) does not run over several ranks; leave it 0");
    if (t->out.dtype != CLSPLAT_F32 || t->lse.dtype != CLSPLAT_F32)
        return log_error(c->ranks->lib, CLSPLAT_INVALID, "out and lse must be float32 over several ranks");
    if (c->device->lib != c->ranks->lib)
        return log_error(c->ranks->lib, CLSPLAT_INVALID, "the device and the ranks are of two libraries");
fail:
    return status;
}

uint64_t launch_kernels(void) {
    uint64_t hash = 0;
    for (size_t i = 0; i < embedded_source_count; ++i)
        hash = XXH3_64bits_withSeed(embedded_sources[i].text, strlen(embedded_sources[i].text), hash);
    return hash;
}

static uint64_t splats_hash(clsplat_splats *splats) {
    clsplat_splats_parameters p = clsplat_splats_get(splats);
    const clsplat_splats_shape *s = &p.shape;
    size_t all = s->heads * s->count, widths = all * splats_covariance_size(s);
    const void *covariance = s->covariance == CLSPLAT_FULL ? (const void *)p.precision_chol : p.log_var;
    uint64_t hash = XXH3_64bits(p.mean, all * s->dim * sizeof(float));
    hash = XXH3_64bits_withSeed(covariance, widths * sizeof(float), hash);
    hash = XXH3_64bits_withSeed(p.log_amplitude, all * sizeof(float), hash);
    hash = XXH3_64bits_withSeed(p.log_temperature, all * sizeof(float), hash);
    hash = XXH3_64bits_withSeed(p.level, s->count * sizeof *p.level, hash);
    return XXH3_64bits_withSeed(p.level_log_weight, s->levels * sizeof(float), hash);
}

static void tell_shape(const clsplat_tensor *t, size_t rows, char *words, size_t room) {
    snprintf(words, room, "[%zu, %zu, %zu, %zu] of type %d", t->shape[0], t->shape[1], rows, t->shape[3],
             (int)t->dtype);
}

/* Ranks without rows have no tensors, and nothing to say of their shapes but what the others say. */
enum { FACTS = 7 };
static clsplat_status compare_all(ranks_call *c) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention *a = &c->attention;
    const clsplat_attention_tensors *t = &c->tensors;
    ranks_fact facts[FACTS] = {{.name = "version"}, {.name = "kernels"}, {.name = "attention"},
                               {.name = "splats"},  {.name = "q"},       {.name = "k and v"},
                               {.name = "key_bias"}};
    char v[64];
    size_t room = sizeof facts[0].here;
    snprintf(facts[0].here, room, "%s", clsplat_version());
    snprintf(facts[1].here, room, "%016llx", (unsigned long long)launch_kernels());
    snprintf(facts[2].here, room, "%s, causal %d, mixing %d, scale %a",
             a->method == CLSPLAT_SPLATS ? "gaussian" : "softmax", a->causal, (int)a->mixing,
             (double)a->scale);
    if (a->method == CLSPLAT_NEAR_FAR)
        snprintf(facts[2].here, room,
                 "near-far in chunks of %zu (%zu asked), causal %d, tolerance %a, scale %a", c->chunk,
                 a->chunk, a->causal, (double)a->tolerance, (double)a->scale);
    snprintf(facts[3].here, room, "%016llx", a->splats ? (unsigned long long)splats_hash(a->splats) : 0ull);
    tell_shape(&t->q, c->queries, facts[4].here, room);
    tell_shape(&t->k, c->keys, facts[5].here, room / 2);
    tell_shape(&t->v, c->keys, v, sizeof v);
    snprintf(facts[5].here + strlen(facts[5].here), room / 2, " and %s", v);
    snprintf(facts[6].here, room, "%s", t->key_bias.shape[0] ? "given" : "none");
    TRY(ranks_compare(c->ranks, facts, FACTS));
    bool alike;
    TRY(ranks_alike(c->ranks, clsplat_device_describe(c->device)->name, &alike));
    if (!alike && c->ranks->own == 0)
        log_warning(c->ranks->lib, "the ranks' devices are not all alike: another division of the sequence "
                                   "among them gives other bits");
fail:
    return status;
}

clsplat_status clsplat_ranks_attend_sized(clsplat_ranks *ranks, clsplat_device *device,
                                          const clsplat_attention *attention_given, size_t queries,
                                          size_t keys, const clsplat_attention_tensors *tensors_given) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_attention attention;
    clsplat_attention_tensors tensors;
    TRY(clsplat_ranks_agree(ranks,
                            attend_read(ranks->lib, attention_given, tensors_given, &attention, &tensors)));
    ranks_call c = {
        .ranks = ranks,
        .device = device,
        .attention = attention,
        .tensors = tensors,
        .queries = queries,
        .keys = keys,
        .part = clsplat_ranks_part(attention, queries, keys, (size_t)ranks->count, (size_t)ranks->own)};
    bool far = attention.method == CLSPLAT_NEAR_FAR;
    c.chunk = attention.chunk;
    status = check_part(&c);
    if (status == CLSPLAT_OK && far)
        status = near_far_choose(device, attention.tolerance, 0, keys, &c.chunk);
    TRY(clsplat_ranks_agree(ranks, status));
    TRY(compare_all(&c));
    TRY(far ? far_attend(&c) : attention.method == CLSPLAT_SPLATS ? reduce_attend(&c) : ring_attend(&c));
fail:
    return status;
}
