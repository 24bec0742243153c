/* How queries go through the trees: what a page shows of it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "picture/picture.h"
#include "report/story.h"

static const char section[] =
    "<section id=\"walk-section\" aria-labelledby=\"walk-title\">\n<h2 id=\"walk-title\">The way through the "
    "trees</h2>\n<p>From coarse nodes, on top, to leaves. A query opens a node, and looks at what is below "
    "it, while the error that may hide in the node is more than it accepts; everything else it takes as one "
    "splat. Orange: opened. Blue: closed, the darker the nearer to being opened. A click chooses a chunk "
    "of the text, and its nodes are told below.</p>\n<p id=\"walked\" role=\"status\"></p>\n"
    "<canvas id=\"walk\" role=\"img\" aria-label=\"nodes of the trees; their numbers are in the tables "
    "below\"></canvas>\n<div class=\"choose\"><label>chunk<input id=\"chunk\" type=\"number\" min=\"0\" "
    "placeholder=\"all\"></label></div>\n<div class=\"pictures\">\n<div class=\"wide\" tabindex=\"0\" "
    "role=\"region\" aria-label=\"nodes by size\">\n<table id=\"walk-levels\">\n<caption>Nodes by size"
    "</caption>\n<thead><tr><th scope=\"col\">keys each</th><th scope=\"col\">looked at</th><th "
    "scope=\"col\">opened</th><th scope=\"col\">error of the closed</th></tr></thead>\n<tbody><tr><td></td>"
    "</tr></tbody>\n</table>\n</div>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"nodes "
    "that may hide most\">\n<table id=\"walk-nodes\">\n<caption>Nodes that may hide most</caption>\n<thead>"
    "<tr><th scope=\"col\">keys of the text</th><th scope=\"col\">in the node</th><th scope=\"col\">may hide"
    "</th><th scope=\"col\">of accepted</th><th scope=\"col\">expected, closed</th><th scope=\"col\">so it is"
    "</th></tr></thead>\n<tbody><tr><td></td></tr></tbody>\n</table>\n</div>\n</div>\n</section>\n";

void story_add_walks(const story *s, text *to) {
    (void)s;
    text_add_bytes(to, section, sizeof section - 1);
}

/* The last query in the head that opened most. */
static const look_walk *fullest(const look *l, size_t *layer, size_t *head) {
    const look_walk *most = NULL;
    for (size_t i = 0; l->levels && i < l->layers * l->heads; ++i) {
        const look_walk *w = look_walk_at(l, i / l->heads, i % l->heads, 0);
        if (w->count == 0 || (most && w->opened <= most->opened))
            continue;
        most = w;
        *layer = i / l->heads;
        *head = i % l->heads;
    }
    return most;
}

enum { WIDTH = 640, COLUMNS = 208, ROW = 30, LEFT = 60, TOP = 36 };

/* Nodes of a level in a column of the picture. */
typedef struct cell {
    size_t seen, opened;
    double most; /* error of a closed one */
} cell;

static void count_cells(const look *l, const look_walk *w, size_t position, size_t covered, cell *cells) {
    for (walk_reader r = walk_begin(l, w, position); walk_next(&r);) {
        size_t first = r.node.first * COLUMNS / covered,
               end = (r.node.first + r.node.keys) * COLUMNS / covered;
        for (size_t x = first; x < COLUMNS && (x < end || x == first); ++x) {
            cell *c = &cells[r.node.level * COLUMNS + x];
            ++c->seen;
            c->opened += r.node.opened;
            c->most = fmax(c->most, r.node.opened ? 0 : r.node.error);
        }
    }
}

/* Equal neighbours become one rectangle. */
static void draw_level(picture *p, const cell *cells, double accepted, double y) {
    const double each = (WIDTH - LEFT - 8.0) / COLUMNS;
    for (size_t x = 0, end; x < COLUMNS; x = end) {
        const cell *c = &cells[x];
        end = x + 1;
        if (c->seen == 0)
            continue;
        picture_role role =
            c->opened ? (picture_role)(PICTURE_SERIES + 1)
                      : picture_heat(accepted > 0 && c->most > 0 ? 1 + 0.08 * log2(c->most / accepted) : 0);
        while (end < COLUMNS && cells[end].seen == c->seen && cells[end].opened == c->opened &&
               cells[end].most >= c->most && cells[end].most <= c->most)
            ++end;
        picture_rect(p, role, 1, LEFT + each * (double)x, y, each * (double)(end - x), ROW - 3);
        picture_hint(p, "%zu nodes, %zu opened; of a closed one up to %.2g expected, %.2g accepted", c->seen,
                     c->opened, c->most, accepted);
    }
}

bool story_draw_walk(const void *of, picture *p) {
    const story *s = of;
    const look *l = &s->look;
    size_t layer = 0, head = 0;
    const look_walk *w = fullest(l, &layer, &head);
    cell *cells = w ? calloc((w->highest + 1) * COLUMNS, sizeof *cells) : NULL;
    if (!cells)
        return false;
    size_t position = l->positions[l->walked_queries[0]],
           covered =
               l->causal ? position / l->chunk * l->chunk : (l->keys + l->chunk - 1) / l->chunk * l->chunk;
    count_cells(l, w, position, covered, cells);
    picture_begin(p, WIDTH, TOP + ROW * (double)(w->highest + 1) + 40, "Which nodes a query opens");
    picture_text(p, PICTURE_INK, PICTURE_START, 14, 8, 18,
                 "Which nodes query %zu opens: %s %zu, head %zu; %u keys one by one", position, s->layer_word,
                 layer, head, (unsigned)w->keys);
    for (size_t row = 0; row <= w->highest; ++row) {
        size_t level = w->highest - row;
        double y = TOP + ROW * (double)row;
        picture_text(p, PICTURE_MUTED, PICTURE_END, 11, LEFT - 6, y + 18, "%zu keys", l->sizes[level]);
        draw_level(p, cells + level * COLUMNS, (double)w->accepted, y);
    }
    double bottom = TOP + ROW * (double)(w->highest + 1) + 14;
    picture_text(p, PICTURE_MUTED, PICTURE_START, 11, LEFT, bottom, "0");
    picture_text(p, PICTURE_MUTED, PICTURE_END, 11, WIDTH - 8, bottom, "%zu", covered);
    picture_text(p, PICTURE_MUTED, PICTURE_MIDDLE, 12, LEFT + (WIDTH - LEFT) / 2.0, bottom + 16,
                 "keys, by chunks");
    free(cells);
    return true;
}

enum { STRONGEST = 10 };

/* The nodes that may hide most, falling. Returns: how many. */
static size_t strongest_of(const look *l, const look_walk *w, size_t position, walk_node list[STRONGEST]) {
    size_t count = 0;
    for (walk_reader r = walk_begin(l, w, position); walk_next(&r);) {
        size_t at = count < STRONGEST ? count++ : STRONGEST;
        if (at == STRONGEST && list[--at].most >= r.node.most)
            continue;
        for (; at > 0 && list[at - 1].most < r.node.most; --at)
            list[at] = list[at - 1];
        list[at] = r.node;
    }
    return count;
}

static json_t *levels_json(const look *l, const look_walk *w, size_t position) {
    json_t *list = json_array();
    for (size_t level = w->highest + 1; level-- > 0;) {
        size_t seen = 0, opened = 0;
        double squares = 0;
        for (walk_reader r = walk_begin(l, w, position); walk_next(&r);) {
            if (r.node.level != level)
                continue;
            ++seen;
            opened += r.node.opened;
            squares += r.node.opened ? 0 : r.node.error * r.node.error;
        }
        list = json_push(list,
                         json_pack("{s:I, s:I, s:I, s:f}", "keys", (json_int_t)l->sizes[level], "nodes",
                                   (json_int_t)seen, "opened", (json_int_t)opened, "error", sqrt(squares)));
    }
    return list;
}

static json_t *walk_json(const look *l, size_t layer, size_t head, size_t walk) {
    const look_walk *w = look_walk_at(l, layer, head, walk);
    size_t position = l->positions[l->walked_queries[walk]];
    walk_node nodes[STRONGEST];
    size_t count = strongest_of(l, w, position, nodes);
    json_t *list = json_array();
    for (size_t i = 0; i < count; ++i)
        list = json_push(list, json_pack("{s:I, s:I, s:f, s:f, s:b}", "first", (json_int_t)nodes[i].first,
                                         "keys", (json_int_t)nodes[i].keys, "may_hide", nodes[i].most,
                                         "error", nodes[i].error, "opened", (int)nodes[i].opened));
    return json_pack("{s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:o, s:o}", "layer", (json_int_t)layer, "head",
                     (json_int_t)head, "position", (json_int_t)position, "accepted", (double)w->accepted,
                     "nodes", (json_int_t)w->count, "opened", (json_int_t)w->opened, "opened_keys",
                     (json_int_t)w->keys, "levels", levels_json(l, w, position), "strongest", list);
}

json_t *story_walks_json(const look *l) {
    json_t *list = json_array();
    size_t walks = story_walks(l);
    for (size_t i = 0; i < l->layers * l->heads; ++i)
        for (size_t w = 0; w < walks; ++w)
            if (look_walk_at(l, i / l->heads, i % l->heads, w)->count)
                list = json_push(list, walk_json(l, i / l->heads, i % l->heads, w));
    return list;
}
