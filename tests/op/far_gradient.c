#include "op/far_gradient.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "op/backward.h"
#include "runtime/buffer.h"
#include "runtime/device.h"

static op_tensor tensor_on(forest_case *b, size_t heads, size_t rows, size_t columns) {
    op_tensor t = {.dtype = CLSPLAT_F32,
                   .shape = {b->p.spec.batch, heads, rows, columns},
                   .stride = {heads * rows * columns, rows * columns, columns}};
    suite_ok(b->p.lib, buffer_create(b->device, forest_case_count(&t) * sizeof(float), &t.mem));
    return t;
}

static void upload(forest_case *b, const op_tensor *t, const double *numbers) {
    size_t count = forest_case_count(t);
    float *floats = malloc(count * sizeof *floats);
    queue q;
    for (size_t i = 0; i < count; i++)
        floats[i] = numbers ? (float)numbers[i] : NAN;
    queue_begin(b->device, 0, NULL, &q);
    suite_ok(b->p.lib,
             queue_upload(
                 &q, (queue_copy){.mem = t->mem, .host = floats, .row = count * sizeof *floats, .rows = 1}));
    free(floats);
}

back_case back_create(const gradient_spec *spec, uint64_t seed) {
    back_case c = {.b = forest_case_create(&spec->far, seed)};
    const problem_spec *s = &c.b.p.spec;
    c.dout = tensor_on(&c.b, s->heads, s->queries, s->value_dim);
    c.result[DQ] = tensor_on(&c.b, s->heads, s->queries, s->dim);
    c.result[DK] = tensor_on(&c.b, s->kv_heads, s->keys, s->dim);
    c.result[DV] = tensor_on(&c.b, s->kv_heads, s->keys, s->value_dim);
    c.result[DBIAS] = tensor_on(&c.b, s->kv_heads, s->keys, 1);
    random_state r = random_seed(seed + 77);
    size_t count = forest_case_count(&c.dout);
    c.host_dout = malloc(count * sizeof *c.host_dout);
    for (size_t i = 0; i < count; i++)
        c.host_dout[i] = (double)(float)random_normal(&r);
    return c;
}

static size_t notes_count(const back_case *c) {
    return forest_case_count(&c->b.t[PROBLEM_LSE]) * c->b.forest.chunks;
}

static void notes_free(back_case *c) {
    buffer_release(c->b.device, notes_count(c) * sizeof(uint32_t), &c->notes);
    free(c->host_notes);
    c->host_notes = NULL;
}

void back_free(back_case *c) {
    buffer_release(c->b.device, forest_case_count(&c->dout) * sizeof(float), &c->dout.mem);
    for (int i = 0; i < PARTS; i++) {
        buffer_release(c->b.device, forest_case_count(&c->result[i]) * sizeof(float), &c->result[i].mem);
        free(c->got[i]);
    }
    free(c->host_dout);
    free(c->kept);
    free(c->lse);
    notes_free(c);
    forest_case_free(&c->b);
}

static op_near_far_args forward_of(back_case *c, const gradient_spec *spec) {
    const problem_spec *s = &c->b.p.spec;
    return (op_near_far_args){.forest = &c->b.forest,
                              .q = c->b.t[PROBLEM_Q],
                              .k = c->b.t[PROBLEM_K],
                              .v = c->b.t[PROBLEM_V],
                              .key_bias = c->b.t[PROBLEM_BIAS],
                              .out = c->b.t[PROBLEM_OUT],
                              .lse = c->b.t[PROBLEM_LSE],
                              .scale = 0.25F,
                              .diagonal = s->causal ? (int32_t)s->keys - (int32_t)s->queries : OP_SEES_ALL,
                              .keys = s->keys,
                              .tolerance = spec->tolerance,
                              .sparse_topk = spec->sparse_topk};
}

void back_decide(back_case *c, const gradient_spec *spec) {
    op_near_far_args args = forward_of(c, spec);
    size_t count = forest_case_count(&c->b.t[PROBLEM_LSE]) * OP_KEPT;
    suite_ok(c->b.p.lib, buffer_create(c->b.device, count * sizeof(float), &args.kept));
    ck_assert(forest_case_run(&c->b, &op_near_far_family, 0, &args));
    c->kept = forest_case_floats(&c->b, args.kept, count);
    buffer_release(c->b.device, count * sizeof(float), &args.kept);
    c->lse = forest_case_floats(&c->b, args.lse.mem, count / OP_KEPT);
}

bool back_note(back_case *c, const gradient_spec *spec, size_t row) {
    op_near_far_args args = forward_of(c, spec);
    size_t bytes = notes_count(c) * sizeof(uint32_t);
    notes_free(c);
    suite_ok(c->b.p.lib, buffer_create(c->b.device, bytes, &c->notes));
    args.notes = c->notes;
    if (!forest_case_run(&c->b, &op_near_far_family, row, &args))
        return false;
    c->host_notes = forest_case_bytes(&c->b, c->notes, bytes);
    return true;
}

bool back_run(back_case *c, const gradient_spec *spec, size_t row) {
    op_near_far_args f = forward_of(c, spec);
    op_near_far_backward_args args = {.forest = f.forest,
                                      .q = f.q,
                                      .k = f.k,
                                      .v = f.v,
                                      .key_bias = f.key_bias,
                                      .dout = c->dout,
                                      .dq = c->result[DQ],
                                      .dk = c->result[DK],
                                      .dv = c->result[DV],
                                      .dkey_bias = c->result[DBIAS],
                                      .scale = f.scale,
                                      .diagonal = f.diagonal,
                                      .tolerance = f.tolerance,
                                      .sparse_topk = f.sparse_topk,
                                      .out = f.out,
                                      .lse = f.lse,
                                      .notes = c->notes};
    upload(&c->b, &c->dout, c->host_dout);
    for (int i = 0; i < PARTS; i++)
        upload(&c->b, &c->result[i], NULL);
    if (!forest_case_run(&c->b, &op_near_far_backward_family, row, &args))
        return false;
    for (int i = 0; i < PARTS; i++) {
        free(c->got[i]);
        c->got[i] = forest_case_floats(&c->b, c->result[i].mem, forest_case_count(&c->result[i]));
    }
    return true;
}

static double *copy_of(const double *from, size_t count) {
    double *to = malloc((count + 1) * sizeof *to);
    memcpy(to, from, count * sizeof *to);
    return to;
}

static bool is_key(const head_view *h, size_t j, size_t s) {
    const forest_case *b = &h->c->b;
    size_t at = h->head * b->p.spec.keys + j, dim = h->f.dim, wide = h->f.value_dim;
    double bias = b->host[PROBLEM_BIAS] ? b->host[PROBLEM_BIAS][at] : 0;
    return bias > -INFINITY && h->x[DBIAS][s] == bias &&
           memcmp(h->x[DK] + s * dim, b->host[PROBLEM_K] + at * dim, dim * sizeof(double)) == 0 &&
           memcmp(h->x[DV] + s * wide, b->host[PROBLEM_V] + at * wide, wide * sizeof(double)) == 0;
}

/* Which slot has key j: of keys that are the same the first that is free. */
static void find_slots(head_view *h) {
    const forest_case *b = &h->c->b;
    size_t keys = b->p.spec.keys, all = h->f.slots + forest_apart_room(&b->forest), chunk = h->f.chunk,
           list = forest_apart_each(&b->forest) + FOREST_APART_FIRST;
    bool *taken = calloc(all, sizeof *taken);
    h->slot = malloc(keys * sizeof *h->slot);
    for (size_t j = 0; j < keys; j++) {
        size_t g = j / chunk;
        h->slot[j] = SIZE_MAX;
        for (size_t x = 0; x < h->apart[g + 1] - h->apart[g]; x++)
            if (h->apart[b->forest.chunks + 1 + g * list + x] == j % chunk)
                h->slot[j] = h->f.slots + h->apart[g] + x;
        for (size_t s = g * chunk; s < (g + 1) * chunk && h->slot[j] == SIZE_MAX; s++)
            if (!taken[s] && is_key(h, j, s)) {
                taken[s] = true;
                h->slot[j] = s;
            }
    }
    free(taken);
}

head_view head_create(const back_case *c, size_t head) {
    const forest_case *b = &c->b;
    const problem_spec *s = &b->p.spec;
    head_view h = {.c = c, .head = head, .group = s->heads / s->kv_heads};
    double *keys;
    h.f = forest_case_head(b, head, &keys);
    size_t slots = h.f.slots + forest_apart_room(&b->forest), rows = h.group * s->queries;
    const size_t counts[PARTS] = {rows * s->dim, slots * s->dim, slots * s->value_dim, slots};
    memcpy(h.count, counts, sizeof counts);
    h.x[DQ] = copy_of(b->host[PROBLEM_Q] + head * counts[DQ], counts[DQ]);
    for (size_t i = 0; i < counts[DQ]; i++)
        h.x[DQ][i] *= 0.25;
    h.x[DK] = keys;
    h.x[DV] = copy_of(h.f.values, counts[DV]);
    h.x[DBIAS] = copy_of(h.f.biases, counts[DBIAS]);
    h.f.values = h.x[DV];
    h.f.biases = h.x[DBIAS];
    h.apart = b->apart + head * forest_case_apart(b);
    h.nodes = naive_far_index(&h.f, h.f.levels, 0);
    h.opened = calloc(rows * h.nodes + 1, 1);
    h.own_k = malloc(h.f.chunk * s->dim * sizeof *h.own_k);
    h.own_v = malloc(h.f.chunk * s->value_dim * sizeof *h.own_v);
    h.own_b = malloc(h.f.chunk * sizeof *h.own_b);
    find_slots(&h);
    return h;
}

void head_free(head_view *h) {
    for (int i = 0; i < PARTS; i++)
        free(h->x[i]);
    free(h->slot);
    free(h->opened);
    free(h->own_k);
    free(h->own_v);
    free(h->own_b);
}

/* Row number r of the head's, as the reference wants it. */
static naive_far_row row_of(head_view *h, size_t r) {
    const problem_spec *s = &h->c->b.p.spec;
    size_t i = r % s->queries, chunk = h->f.chunk;
    size_t visible = !s->causal ? s->keys : i + s->keys + 1 > s->queries ? i + s->keys + 1 - s->queries : 0;
    size_t past = s->causal ? (visible ? (visible - 1) / chunk : 0) : (visible + chunk - 1) / chunk;
    naive_far_row row = {.q = h->x[DQ] + r * s->dim,
                         .k = h->own_k,
                         .v = h->own_v,
                         .bias = h->own_b,
                         .past = past,
                         .keys = visible,
                         .apart = h->apart[past],
                         .rest = !s->causal,
                         .opened = h->opened + r * h->nodes};
    for (size_t j = past * chunk; j < visible && s->causal; j++, row.own++) {
        size_t slot = h->slot[j];
        h->own_b[row.own] = slot == SIZE_MAX ? -INFINITY : h->x[DBIAS][slot];
        if (slot == SIZE_MAX)
            continue;
        memcpy(h->own_k + row.own * s->dim, h->x[DK] + slot * s->dim, s->dim * sizeof(double));
        memcpy(h->own_v + row.own * s->value_dim, h->x[DV] + slot * s->value_dim,
               s->value_dim * sizeof(double));
    }
    return row;
}

size_t head_judge(head_view *h, back_case *c, float tolerance) {
    const problem_spec *s = &c->b.p.spec;
    size_t opened = 0;
    for (size_t r = 0; r < h->group * s->queries; r++) {
        size_t at = h->head * h->group * s->queries + r;
        const double *kept = c->kept + at * OP_KEPT;
        double least = kept[3] == 0 ? 0 : kept[3] >= 128 ? INFINITY : exp2(kept[3] / 4 - 24);
        naive_far_judge j = {.mass = kept[0],
                             .inverse_size = kept[1],
                             .accepted = tolerance == 0 ? 0 : fmax(kept[2], least),
                             .opened = h->opened + r * h->nodes,
                             .margin = INFINITY};
        naive_far_row row = row_of(h, r);
        double out[256];
        naive_far far = {.out = out};
        row.opened = NULL;
        row.judge = &j;
        row.keys = 0; /* no tilt: it decides nothing */
        naive_near_far(&h->f, &row, &far);
        for (size_t n = 0; n < h->nodes; n++)
            opened += j.opened[n];
        bool close = j.margin < 1e-3;
        ck_assert_msg(close || !(fabs(far.lse - c->lse[at]) > 1e-5 * fmax(1, fabs(far.lse))),
                      "row %zu of head %zu: lse %g, expected %g", r, h->head, c->lse[at], far.lse);
        for (size_t e = 0; e < s->value_dim && close; e++)
            c->host_dout[at * s->value_dim + e] = 0;
    }
    return opened;
}

size_t head_take(head_view *h, const back_case *c) {
    const size_t queries = c->b.p.spec.queries, rows = h->group * queries, chunks = c->b.forest.chunks;
    enum { OPEN = 1 << 17, FAN = 16 };
    size_t opened = 0;
    memset(h->opened, 0, rows * h->nodes);
    for (size_t r = 0; r < rows; r++) {
        naive_far_row row = row_of(h, r);
        unsigned char *of = h->opened + r * h->nodes;
        for (size_t g = 0; g < row.past; g++) {
            size_t at = ((h->head * h->group + r / queries) * chunks + g) * queries + r % queries;
            uint32_t note = c->host_notes[at];
            of[naive_far_index(&h->f, 1, g)] = (note & OPEN) != 0;
            opened += (note & OPEN) != 0;
            for (size_t leaf = 0; leaf < FAN && note & OPEN; leaf++)
                of[naive_far_index(&h->f, 0, g * FAN + leaf)] = note >> leaf & 1;
        }
    }
    return opened;
}

/* Σ dout·out of the head's rows. */
static double loss(head_view *h) {
    const problem_spec *s = &h->c->b.p.spec;
    double *covariances = naive_covariances(&h->f), sum = 0, out[256];
    h->f.covariances = covariances;
    for (size_t r = 0; r < h->group * s->queries; r++) {
        const double *dout = h->c->host_dout + (h->head * h->group * s->queries + r) * s->value_dim;
        naive_far_row row = row_of(h, r);
        naive_far far = {.out = out};
        naive_near_far(&h->f, &row, &far);
        for (size_t e = 0; e < s->value_dim && far.lse > -INFINITY; e++)
            sum += dout[e] * out[e];
    }
    free(covariances);
    return sum;
}

double head_difference(head_view *h, int part, const double *direction) {
    enum { SIDES = 2 };
    const double step = 1e-5;
    double *x = h->x[part], *before = copy_of(x, h->count[part]), value[SIDES];
    for (int side = 0; side < SIDES; side++) {
        for (size_t i = 0; i < h->count[part]; i++)
            x[i] = before[i] + (side ? -step : step) * direction[i];
        value[side] = loss(h);
    }
    memcpy(x, before, h->count[part] * sizeof *x);
    free(before);
    return (value[0] - value[1]) / (2 * step);
}

double *head_result(const head_view *h, int part) {
    const problem_spec *s = &h->c->b.p.spec;
    size_t columns = part == DBIAS ? 1 : part == DV ? s->value_dim : s->dim;
    double *g = calloc(h->count[part] + 1, sizeof *g);
    const double *got = h->c->got[part];
    for (size_t i = 0; part == DQ && i < h->count[DQ]; i++)
        g[i] = got[h->head * h->count[DQ] + i] / 0.25;
    for (size_t j = 0; part != DQ && j < s->keys; j++)
        for (size_t d = 0; d < columns; d++) {
            double x = got[(h->head * s->keys + j) * columns + d];
            if (h->slot[j] == SIZE_MAX)
                ck_assert_msg(x == 0, "padding %zu receives %g in part %d", j, x, part);
            else
                g[h->slot[j] * columns + d] = x;
        }
    return g;
}
