#include "adapt/herd.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static clsplat_status no_memory(const herd *h) {
    return log_error(h->layer->device->lib, CLSPLAT_MEMORY, "no memory to adapt %zu splats at %zu rows",
                     h->people.capacity, h->layer->rows);
}

static clsplat_status read_limits(herd *h, const clsplat_splats_parameters *p) {
    size_t levels = p->shape.levels;
    h->least = calloc(levels, sizeof *h->least);
    h->most = calloc(levels, sizeof *h->most);
    if (!h->least || !h->most)
        return no_memory(h);
    for (size_t s = 0; s < p->shape.count; ++s)
        ++h->least[p->level[s]];
    for (size_t l = 0; l < levels; ++l) {
        size_t now = h->least[l];
        h->most[l] = h->how->most ? h->how->most[l] : now;
        h->least[l] = h->how->least ? h->how->least[l] : now < h->most[l] ? now : h->most[l];
    }
    return CLSPLAT_OK;
}

clsplat_status herd_check_limits(const herd *h) {
    clsplat *lib = h->layer->device->lib;
    clsplat_splats_parameters p = clsplat_splats_get(h->like);
    for (size_t l = 0; l < p.shape.levels; ++l) {
        if (h->people.of_level[l] == 0)
            return log_error(lib, CLSPLAT_INVALID,
                             "level '%s' has no splat to begin with; give it one, or leave the level away",
                             p.level_names[l]);
        if (h->least[l] == 0 || h->most[l] < h->least[l])
            return log_error(
                lib, CLSPLAT_INVALID,
                "level '%s' shall have at least %zu and at most %zu splats; at least 1 is always there",
                p.level_names[l], h->least[l], h->most[l]);
    }
    return CLSPLAT_OK;
}

static size_t room(const herd *h, const clsplat_splats_shape *shape) {
    size_t most = 0;
    for (size_t l = 0; l < shape->levels; ++l)
        most += h->most[l];
    return (most > shape->count ? most : shape->count) + 1;
}

clsplat_status herd_open(layer *l, const clsplat_adapt *how, clsplat_splats *splats, herd *h) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_splats_parameters p = clsplat_splats_get(splats);
    size_t heads = l->batch * l->heads;
    *h = (herd){.layer = l, .how = how, .like = splats, .random = random_seed(how->seed)};
    TRY(read_limits(h, &p));
    if (population_open(splats, room(h, &p.shape), &h->people) != CLSPLAT_OK) {
        status = no_memory(h);
        goto fail;
    }
    h->state_heads = layer_state_heads(l, splats);
    h->spacing = (l->keys + HERD_TOKENS - 1) / HERD_TOKENS;
    h->tokens = (l->keys + h->spacing - 1) / h->spacing;
    h->log_weight = calloc(heads * h->people.capacity * l->rows, sizeof *h->log_weight);
    h->cover = calloc(l->batch * h->state_heads * h->people.capacity * h->tokens, sizeof *h->cover);
    h->lse = calloc(heads * l->rows, sizeof *h->lse);
    h->out = calloc(heads * l->rows * l->value_dim, sizeof *h->out);
    h->result.rows = l->rows;
    h->row_square = calloc(heads * l->rows, sizeof *h->row_square);
    h->birth = calloc(heads * l->rows, sizeof *h->birth);
    if (!h->log_weight || !h->cover || !h->lse || !h->out || !h->row_square || !h->birth)
        status = no_memory(h);
fail:
    if (status != CLSPLAT_OK)
        herd_close(h);
    return status;
}

void herd_close(herd *h) {
    population_close(&h->people);
    free(h->least);
    free(h->most);
    free(h->log_weight);
    free(h->cover);
    free(h->lse);
    free(h->out);
    free(h->row_square);
    free(h->birth);
    layer_states_free(&h->spare);
    *h = (herd){0};
}

bool herd_serves(const herd *h, size_t set_head, size_t query_head) {
    return h->people.heads == 1 || query_head % h->layer->heads == set_head;
}

size_t herd_writer(const herd *h, size_t query_head) {
    size_t b = query_head / h->layer->heads, head = query_head % h->layer->heads;
    return b * h->state_heads + head / (h->layer->heads / h->state_heads);
}

/* Where each column stands among those sorted by level, as a set on the device has them. */
static void find_places(const population *p, size_t *place) {
    size_t next = 0;
    for (size_t l = 0; l < p->levels; ++l)
        for (size_t c = 0; c < p->count; ++c)
            if ((size_t)p->level[c] == l)
                place[c] = next++;
}

/* [rows][count] in the set's order becomes [count][rows] in that of the columns, a block at a time that
 * caches hold. */
static void turn_round(const population *p, const size_t *place, const float *from, size_t rows, bool levels,
                       float *to) {
    enum { BLOCK = 16 };
    for (size_t begin = 0; begin < rows; begin += BLOCK) {
        size_t end = begin + BLOCK < rows ? begin + BLOCK : rows;
        for (size_t c = 0; c < p->count; ++c) {
            float weight = levels ? (float)p->level_log_weight[p->level[c]] : 0;
            for (size_t t = begin; t < end; ++t)
                to[c * rows + t] = from[t * p->count + place[c]] + weight;
        }
    }
}

static void keep_columns(herd *h, const layer_states *s, const float *cover, const size_t *place) {
    const layer *l = h->layer;
    const population *p = &h->people;
    for (size_t i = 0; i < l->batch * l->heads; ++i)
        turn_round(p, place, s->log_weight + i * l->rows * p->count, l->rows, true,
                   h->log_weight + i * p->capacity * l->rows);
    for (size_t i = 0; i < l->batch * h->state_heads; ++i)
        turn_round(p, place, cover + i * h->tokens * p->count, h->tokens, false,
                   h->cover + i * p->capacity * h->tokens);
}

static void keep_rows(herd *h, const float *out, const float *lse) {
    size_t rows = h->layer->batch * h->layer->heads * h->layer->rows;
    for (size_t i = 0; i < rows; ++i)
        h->lse[i] = (double)lse[i];
    for (size_t i = 0; i < rows * h->layer->value_dim; ++i)
        h->out[i] = (double)out[i];
    for (size_t i = 0; i < rows; ++i)
        h->row_square[i] = herd_row_square(h, i);
}

/* With states: also what each splat has at each row, and the coverage of keys. */
static clsplat_status look(herd *h, bool with_states) {
    clsplat_status status = CLSPLAT_OK;
    layer *l = h->layer;
    size_t rows = l->batch * l->heads * l->rows;
    clsplat_splats *set = NULL;
    layer_states states = {0};
    float *out = malloc(rows * l->value_dim * sizeof *out), *lse = malloc(rows * sizeof *lse), *cover = NULL;
    size_t *place = malloc(h->people.count * sizeof *place);
    if (!out || !lse || !place) {
        status = no_memory(h);
        goto fail;
    }
    TRY(population_set(&h->people, l->device->lib, h->like, &set));
    TRY(layer_evaluate(l, set, out, lse, with_states ? &states : NULL));
    keep_rows(h, out, lse);
    if (with_states) {
        TRY(layer_cover(l, set, h->spacing, &cover));
        find_places(&h->people, place);
        keep_columns(h, &states, cover, place);
    }
fail:
    clsplat_splats_destroy(&set);
    layer_states_free(&states);
    free(cover);
    free(place);
    free(lse);
    free(out);
    return status;
}

clsplat_status herd_measure(herd *h) {
    return look(h, true);
}

clsplat_status herd_attend(herd *h) {
    return look(h, false);
}

double herd_row_square(const herd *h, size_t at) {
    const layer *l = h->layer;
    const double *out = h->out + at * l->value_dim;
    const float *target = l->target + at * l->value_dim;
    double sum = 0;
    for (size_t d = 0; d < l->value_dim; ++d)
        sum += (out[d] - (double)target[d]) * (out[d] - (double)target[d]);
    return sum;
}

double herd_square(const herd *h, size_t head) {
    size_t rows = h->layer->rows;
    double sum = 0;
    for (size_t i = 0; i < h->layer->batch * h->layer->heads; ++i)
        for (size_t t = 0; t < rows && herd_serves(h, head, i); ++t)
            sum += h->row_square[i * rows + t];
    return sum;
}

double herd_norm(const herd *h, size_t head) {
    double sum = 0;
    for (size_t i = 0; i < h->layer->batch * h->layer->heads; ++i)
        sum += herd_serves(h, head, i) ? h->layer->norm[i] : 0;
    return sum > 0 ? sum : 1;
}

double herd_error(const herd *h, size_t head) {
    return sqrt(herd_square(h, head) / herd_norm(h, head));
}

double herd_layer_error(const herd *h) {
    double square = 0, norm = 0;
    for (size_t head = 0; head < h->people.heads; ++head) {
        square += herd_square(h, head);
        norm += herd_norm(h, head);
    }
    return sqrt(square / norm);
}

void herd_put(herd *h, const candidates *c, size_t head, size_t i, double lift, size_t column) {
    const layer *l = h->layer;
    population *p = &h->people;
    double *splat = population_splat(p, head, column);
    memcpy(splat, candidates_splat(h, c, head, i), p->form.numbers * sizeof *splat);
    *splat_log_amplitude(&p->form, splat) += lift;
    float more = (float)(lift + p->level_log_weight[p->level[column]]);
    for (size_t q = 0; q < l->batch * l->heads; ++q) {
        if (!herd_serves(h, head, q))
            continue;
        size_t w = herd_writer(h, q);
        for (size_t t = 0; t < l->rows; ++t)
            h->log_weight[(q * p->capacity + column) * l->rows + t] =
                c->states.log_weight[(q * l->rows + t) * c->count + i] + more;
        for (size_t t = 0; t < h->tokens; ++t)
            h->cover[(w * p->capacity + column) * h->tokens + t] =
                c->cover[(w * h->tokens + t) * c->count + i];
    }
}

void herd_copy(herd *h, size_t head, size_t from, size_t to) {
    const layer *l = h->layer;
    population *p = &h->people;
    if (from == to)
        return;
    memcpy(population_splat(p, head, to), population_splat(p, head, from), p->form.numbers * sizeof(double));
    *population_life(p, head, to) = *population_life(p, head, from);
    for (size_t q = 0; q < l->batch * l->heads; ++q) {
        if (!herd_serves(h, head, q))
            continue;
        float *rows = h->log_weight + q * p->capacity * l->rows;
        float *tokens = h->cover + herd_writer(h, q) * p->capacity * h->tokens;
        memcpy(rows + to * l->rows, rows + from * l->rows, l->rows * sizeof *rows);
        memcpy(tokens + to * h->tokens, tokens + from * h->tokens, h->tokens * sizeof *tokens);
    }
}

void herd_lift(herd *h, size_t head, size_t column, double lift) {
    const layer *l = h->layer;
    population *p = &h->people;
    *splat_log_amplitude(&p->form, population_splat(p, head, column)) += lift;
    for (size_t q = 0; q < l->batch * l->heads; ++q)
        for (size_t t = 0; t < l->rows && herd_serves(h, head, q); ++t)
            h->log_weight[(q * p->capacity + column) * l->rows + t] += (float)lift;
}

size_t herd_append(herd *h, size_t level) {
    return population_append(&h->people, level);
}

void herd_drop(herd *h, size_t column) {
    population *p = &h->people;
    --p->of_level[p->level[column]];
    --p->count;
    for (size_t head = 0; head < p->heads; ++head)
        herd_copy(h, head, p->count, column);
    p->level[column] = p->level[p->count];
}

void herd_tell(herd *h, clsplat_adapt_event event) {
    event.cycle = h->cycle;
    ++(event.kept ? h->result.kept : h->result.undone)[event.decision];
    if (h->how->listener)
        h->how->listener(h->how->listener_user, &event);
}
