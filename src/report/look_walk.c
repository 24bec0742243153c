/* How queries go through the trees.
 *
 * A node's code, 16 bits: 8 of what it costs to leave it closed, 7 of the most that it may cost, 1 if it was
 * opened. Both costs in steps of 2^⅛ and 2^¼ of what the row accepts of one node (of 1e-6 if it accepts
 * nothing), 128 and 64 being as much; 0: none. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "op/tree/forest.h"
#include "op/tree/walk.h"
#include "report/look.h"
#include "runtime/buffer.h"

static const double UNIT_LEAST = 1e-6;

static double unit_of(const look_walk *w) {
    return w->accepted > 0 ? (double)w->accepted : UNIT_LEAST;
}

/* `fine` steps an octave, as much as the unit in the middle of `codes`. */
static uint16_t code_of(double cost, double unit, int fine, int codes) {
    double step = round(fine * log2(cost / unit)) + codes / 2;
    return isnan(step) || !(cost > 0) ? 0 : (uint16_t)fmin(fmax(step, 1), codes - 1);
}

static double cost_of(int code, double unit, int fine, int codes) {
    return code ? unit * exp2((double)(code - codes / 2) / fine) : 0;
}

/* The last query, then those in the middle of what lies between others. */
static uint32_t spread_query(size_t i, size_t count) {
    double place = 1;
    if (i > 0) {
        place = 0;
        for (double half = 0.5; i > 0; i /= 2, half /= 2)
            place += half * (double)(i % 2);
    }
    size_t query = (size_t)(place * (double)count);
    return (uint32_t)(query < count ? query : count - 1);
}

clsplat_status look_walk_choose(clsplat *lib, look *l) {
    enum { MOST = 32, LEAST = 4, HEADS = 2048 };
    size_t heads = l->layers * l->heads, wanted = HEADS / heads;
    wanted = wanted > MOST ? MOST : wanted < LEAST ? LEAST : wanted;
    l->walked_queries = malloc((wanted + 1) * sizeof *l->walked_queries);
    l->walks = calloc(heads * wanted + 1, sizeof *l->walks);
    if (!l->walked_queries || !l->walks) {
        look_free(l);
        return log_error(lib, CLSPLAT_MEMORY, "there is no memory for the walks of %zu heads", heads);
    }
    for (size_t i = 0; l->walked < wanted && i < 2 * wanted; ++i) {
        uint32_t query = spread_query(i, l->count);
        bool there = false;
        for (size_t w = 0; w < l->walked; ++w)
            there = there || l->walked_queries[w] == query;
        if (!there)
            l->walked_queries[l->walked++] = query;
    }
    return CLSPLAT_OK;
}

/* What a kernel told of a row. */
static clsplat_status keep_walk(clsplat *lib, look_walk *w, float accepted, const uint32_t counts[2],
                                size_t most, const float *told) {
    double unit;
    w->accepted = accepted;
    w->count = counts[0] < most ? counts[0] : (uint32_t)most;
    w->highest = counts[1];
    w->nodes = malloc((w->count + 1) * sizeof *w->nodes);
    if (!w->nodes)
        return log_error(lib, CLSPLAT_MEMORY, "there is no memory for a walk through %u nodes", w->count);
    unit = unit_of(w);
    for (size_t i = 0; i < w->count; ++i, told += OP_TOLD) {
        bool opened = signbit(told[1]);
        w->nodes[i] = (uint16_t)(opened << 15 | code_of(fabs((double)told[1]), unit, 4, 128) << 8 |
                                 code_of((double)told[0], unit, 8, 256));
        w->opened += opened;
    }
    return CLSPLAT_OK;
}

/* Keys in leaves that were opened: those that were told of are not read twice. */
static void count_keys(const look *l, look_walk *w, size_t position, const float *told) {
    for (walk_reader r = walk_begin(l, w, position); walk_next(&r);)
        if (r.node.level == 0 && r.node.opened)
            w->keys += (uint32_t)told[OP_TOLD * (r.at - 1) + 2];
}

static void remember_shape(look *l, const op_forest *f) {
    l->levels = f->levels;
    l->top_level = f->top;
    for (size_t level = 0; level < f->levels; ++level)
        l->sizes[level] = forest_size(f, level);
}

static clsplat_status bring(queue *q, cl_mem mem, size_t bytes, void **host) {
    *host = malloc(bytes);
    if (!*host)
        return log_error(q->device->lib, CLSPLAT_MEMORY, "there is no memory for the walk of a query");
    return queue_download(q, (queue_copy){.mem = mem, .host = *host, .row = bytes, .rows = 1});
}

clsplat_status look_walk_query(queue *q, look *l, size_t layer, size_t walk, const op_near_far_args *args) {
    enum { KEPT, COUNTS, TOLD, BUFFERS };
    clsplat_status status = CLSPLAT_OK;
    op_walk_args a = {.forward = *args, .most = 16 * args->forest->first_block[args->forest->levels]};
    const size_t bytes[BUFFERS] = {4 * OP_KEPT * l->heads, 8 * l->heads, 4 * OP_TOLD * a.most * l->heads};
    void *host[BUFFERS] = {NULL};
    cl_mem *const mem[BUFFERS] = {&a.kept, &a.counts, &a.told};
    remember_shape(l, args->forest);
    for (int i = 0; i < BUFFERS; ++i)
        TRY(buffer_create(q->device, bytes[i], mem[i]));
    TRY(op_walk(q, &a));
    for (int i = 0; i < BUFFERS; ++i)
        TRY(bring(q, *mem[i], bytes[i], &host[i]));
    for (size_t head = 0; head < l->heads; ++head) {
        look_walk *w = look_walk_at(l, layer, head, walk);
        const float *told = (const float *)host[TOLD] + OP_TOLD * a.most * head;
        TRY(keep_walk(q->device->lib, w, ((const float *)host[KEPT])[OP_KEPT * head + 2],
                      (const uint32_t *)host[COUNTS] + 2 * head, a.most, told));
        count_keys(l, w, l->positions[l->walked_queries[walk]], told);
    }
fail:
    for (int i = 0; i < BUFFERS; ++i) {
        if (*mem[i])
            buffer_release(q->device, bytes[i], mem[i]);
        free(host[i]);
    }
    return status;
}

/* The roots of a level: after what the levels above cover, as roots_of in cl/tree/near_far.cl. */
static void roots_begin(walk_reader *r) {
    const look *l = r->l;
    size_t size = l->sizes[r->root_level], covered = r->covered;
    bool highest = r->root_level == r->walk->highest;
    r->root = highest ? 0 : covered / l->sizes[r->root_level + 1] * l->sizes[r->root_level + 1] / size;
    r->root_end = covered / size;
    if (!l->causal)
        r->root_end = highest ? (covered + size - 1) / size : r->root;
}

walk_reader walk_begin(const look *l, const look_walk *walk, size_t position) {
    size_t past = l->causal ? position / l->chunk : (l->keys + l->chunk - 1) / l->chunk;
    walk_reader r = {.l = l, .walk = walk, .covered = past * l->chunk, .root_level = walk->highest};
    if (walk->count)
        roots_begin(&r);
    return r;
}

/* To the next root; false: there is none. */
static bool next_root(walk_reader *r) {
    while (r->root >= r->root_end) {
        if (r->root_level == r->l->top_level)
            return false;
        --r->root_level;
        roots_begin(r);
    }
    r->level = r->root_level;
    r->g = r->root++;
    return true;
}

/* Where the walk goes after a node: below it, beside it, or beside what it is under. */
static bool step_on(walk_reader *r) {
    const size_t *sizes = r->l->sizes;
    if (r->node.opened && r->level > 0) {
        r->g *= sizes[r->level] / sizes[r->level - 1];
        --r->level;
        return true;
    }
    ++r->g;
    while (r->level < r->root_level && r->g % (sizes[r->level + 1] / sizes[r->level]) == 0) {
        r->g /= sizes[r->level + 1] / sizes[r->level];
        ++r->level;
    }
    return r->level < r->root_level || next_root(r);
}

bool walk_next(walk_reader *r) {
    if (r->at >= r->walk->count || !(r->begun ? step_on(r) : next_root(r)))
        return false;
    double unit = unit_of(r->walk);
    unsigned code = r->walk->nodes[r->at++];
    r->begun = true;
    r->node = (walk_node){.level = r->level,
                          .first = r->g * r->l->sizes[r->level],
                          .keys = r->l->sizes[r->level],
                          .opened = code >> 15,
                          .most = cost_of(code >> 8 & 127, unit, 4, 128),
                          .error = cost_of(code & 255, unit, 8, 256)};
    return true;
}
