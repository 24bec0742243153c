#include "tune/search.h"

#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/random.h"

enum { TIMINGS = 3, SEEDS = 8 };

/* A first timing that much slower than the best is no noise. */
static const double HOPELESS = 1.3, PROMISING = 2;

typedef struct row_state {
    bool *seen;    /* by index; NULL: the row is left out */
    double *least; /* of the timings, by index */
    size_t size, best;
    double seconds; /* of its best */
} row_state;

typedef struct walk {
    const tune_search *search;
    tune_result *result;
    row_state rows[TUNE_ROWS];
    random_state random;
    double begun;
    clsplat_status status;
    bool over;
} walk;

static double time_of(walk *w, tune_candidate c) {
    double seconds = w->search->evaluate(w->search->user, c);
    double *least = &w->rows[c.row].least[c.index];
    *least = fmin(*least, seconds);
    return seconds;
}

/* One round of the duel; *seconds is the challenger's best. */
static bool is_faster(walk *w, tune_candidate c, double *seconds) {
    double champion = INFINITY;
    *seconds = INFINITY;
    for (int i = 0; i < TIMINGS; ++i) {
        *seconds = fmin(*seconds, time_of(w, c));
        champion = fmin(champion, time_of(w, w->result->best));
    }
    w->result->seconds = champion;
    return *seconds < (1 - TUNE_MARGIN) * champion;
}

static void crown(walk *w, tune_candidate c, double seconds) {
    w->result->best = c;
    w->result->seconds = seconds;
    w->rows[c.row].best = c.index;
    w->rows[c.row].seconds = seconds;
}

static void compare(walk *w, tune_candidate c) {
    row_state *row = &w->rows[c.row];
    double seconds = time_of(w, c);
    if (!isfinite(seconds)) {
        ++w->result->rejected;
        return;
    }
    if (!isfinite(w->result->seconds)) {
        for (int i = 1; i < TIMINGS; ++i)
            seconds = fmin(seconds, time_of(w, c));
        w->result->first = seconds;
        crown(w, c, seconds);
        return;
    }
    if (seconds < HOPELESS * w->result->seconds && is_faster(w, c, &seconds) && is_faster(w, c, &seconds))
        crown(w, c, seconds);
    else if (c.row != w->result->best.row && seconds < row->seconds) {
        row->best = c.index;
        row->seconds = seconds;
    }
}

static void visit(walk *w, tune_candidate c) {
    const tune_search *s = w->search;
    const row_state *row = &w->rows[c.row];
    if (w->over || !row->seen || c.index >= row->size || row->seen[c.index])
        return;
    tune_point point = tune_point_at(s->spaces[c.row], c.index);
    if (!tune_space_allows(s->spaces[c.row], s->limits, &point))
        return;
    w->status = s->report(s->listener, w->result);
    w->over = w->status != CLSPLAT_OK || w->result->tried >= s->candidates ||
              (isfinite(w->result->seconds) && clock_seconds() - w->begun >= s->seconds);
    if (w->over)
        return;
    row->seen[c.index] = true;
    ++w->result->tried;
    compare(w, c);
}

/* Before anything has run, every row is. */
static bool is_promising(const walk *w, size_t row) {
    return w->rows[row].seen && !(w->rows[row].seconds > PROMISING * w->result->seconds);
}

static void visit_random(walk *w) {
    size_t promising[TUNE_ROWS], count = 0;
    for (size_t r = 0; r < w->search->rows; ++r)
        if (is_promising(w, r))
            promising[count++] = r;
    if (count == 0)
        return;
    size_t row = promising[random_below(&w->random, count)];
    visit(w, (tune_candidate){row, random_below(&w->random, w->rows[row].size)});
}

/* Moves on from each improvement at once; ends when no single change helps. */
static void descend(walk *w, size_t row) {
    const tune_space *space = w->search->spaces[row];
    size_t start;
    do {
        start = w->rows[row].best;
        for (size_t p = 0; p < space->count; ++p)
            for (size_t v = 0; v < tune_values(&space->parameters[p]); ++v)
                visit(w, (tune_candidate){row, tune_neighbour(space, w->rows[row].best, p, v)});
    } while (w->rows[row].best != start && !w->over);
}

static void look_around(walk *w) {
    tune_candidate before;
    do {
        before = w->result->best;
        for (int i = 0; i < SEEDS; ++i)
            visit_random(w);
        if (isfinite(w->result->seconds))
            descend(w, w->result->best.row);
        for (size_t r = 0; r < w->search->rows; ++r)
            if (is_promising(w, r))
                descend(w, r);
    } while (!w->over && (before.row != w->result->best.row || before.index != w->result->best.index));
}

static void walk_through(walk *w) {
    const tune_search *s = w->search;
    for (size_t i = 0; i < s->known_count; ++i)
        visit(w, s->known[i]);
    for (size_t r = s->rows; r-- > 0;)
        if (s->spaces[r]) {
            tune_point begin = tune_default(s->spaces[r], s->limits);
            visit(w, (tune_candidate){r, tune_point_index(s->spaces[r], &begin)});
        }
    look_around(w);
    for (size_t r = s->rows; s->exhaustive && r-- > 0;)
        for (size_t i = 0; i < w->rows[r].size; ++i)
            visit(w, (tune_candidate){r, i});
}

static void tell_tried(const walk *w) {
    for (size_t r = 0; w->search->tried && r < w->search->rows; ++r)
        for (size_t i = 0; w->rows[r].seen && i < w->rows[r].size; ++i)
            if (w->rows[r].seen[i])
                w->search->tried(w->search->listener, (tune_candidate){r, i}, w->rows[r].least[i]);
}

clsplat_status tune_search_run(clsplat *lib, const tune_search *search, tune_result *result) {
    clsplat_status status = CLSPLAT_OK;
    walk w = {
        .search = search, .result = result, .random = random_seed(search->seed), .begun = clock_seconds()};
    *result = (tune_result){.seconds = INFINITY};
    for (size_t r = 0; r < search->rows; ++r) {
        if (!search->spaces[r])
            continue;
        w.rows[r].size = tune_space_size(search->spaces[r]);
        w.rows[r].seconds = INFINITY;
        w.rows[r].seen = calloc(w.rows[r].size, sizeof(bool));
        w.rows[r].least = malloc(w.rows[r].size * sizeof(double));
        if (!w.rows[r].seen || !w.rows[r].least)
            TRY(log_error(lib, CLSPLAT_MEMORY, "no memory for a search over %zu points", w.rows[r].size));
        for (size_t i = 0; i < w.rows[r].size; ++i)
            w.rows[r].least[i] = INFINITY;
    }
    walk_through(&w);
    tell_tried(&w);
    TRY(w.status);
    TRY(search->report(search->listener, result));
fail:
    for (size_t r = 0; r < search->rows; ++r) {
        free(w.rows[r].seen);
        free(w.rows[r].least);
    }
    return status;
}
