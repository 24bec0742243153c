#include "adapt/rounds.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct round_call {
    herd *h;
    size_t level;
    candidates c;
    proposals *of;  /* [heads] */
    double *square; /* [heads]: as they are now */
    size_t made;    /* columns that have been added since the candidates were judged */
} round_call;

static clsplat_status round_open(herd *h, size_t level, bool starving, round_call *r) {
    clsplat_status status = CLSPLAT_OK;
    size_t heads = h->people.heads;
    *r = (round_call){.h = h, .level = level};
    r->of = calloc(heads, sizeof *r->of);
    r->square = calloc(heads, sizeof *r->square);
    if (!r->of || !r->square)
        return log_error(h->layer->device->lib, CLSPLAT_MEMORY, "no memory for the decisions of %zu heads",
                         heads);
    TRY(candidates_open(h, PROPOSE_CANDIDATES, &r->c));
    for (size_t head = 0; head < heads; ++head)
        TRY(propose(h, head, level, starving, &r->c, &r->of[head]));
    TRY(candidates_measure(h, &r->c));
    for (size_t head = 0; head < heads; ++head) {
        r->square[head] = herd_square(h, head);
        propose_judge(h, head, &r->c, &r->of[head]);
    }
fail:
    return status;
}

static void round_close(round_call *r) {
    candidates_close(r->h, &r->c);
    free(r->of);
    free(r->square);
}

static double error_of(const round_call *r, size_t head, double square) {
    return sqrt(square / herd_norm(r->h, head));
}

static bool is_gain(const round_call *r, size_t head, double square) {
    double before = error_of(r, head, r->square[head]);
    return error_of(r, head, square) < before * (1 - r->h->how->least_gain);
}

static proposal *best_of(proposal *all, size_t count) {
    proposal *best = NULL;
    for (size_t i = 0; i < count; ++i)
        if (all[i].possible && isfinite(all[i].square) && (!best || all[i].square < best->square))
            best = &all[i];
    return best;
}

static bool share_a_column(const proposal *a, const proposal *b) {
    for (size_t i = 0; i < a->columns; ++i)
        for (size_t j = 0; j < b->columns; ++j)
            if (a->column[i] == b->column[j])
                return true;
    return false;
}

static void tell(round_call *r, size_t head, const proposal *p, double before, double after, bool kept) {
    clsplat_adapt_event e = p->event;
    e.error_before = error_of(r, head, before);
    e.error_after = error_of(r, head, after);
    e.kept = kept;
    herd_tell(r->h, e);
}

/* What grows moves in: a birth into the free column, a mitosis into the parent's and the free one. */
static void move_in(round_call *r, size_t head, proposal *p, size_t vacant) {
    herd *h = r->h;
    if (p->event.decision == CLSPLAT_MITOSIS) {
        herd_put(h, &r->c, head, p->what.come[0], 0, p->column[0]);
        p->event.to[0] = population_name(&h->people, head, p->column[0], h->cycle);
        herd_put(h, &r->c, head, p->what.come[1], 0, vacant);
        p->event.to[1] = population_name(&h->people, head, vacant, h->cycle);
        return;
    }
    herd_put(h, &r->c, head, p->what.come[0], p->what.lift[0], vacant);
    p->event.to[0] = population_name(&h->people, head, vacant, h->cycle);
}

/* What shrinks moves out; a merged splat stays in the first one's column. Returns: the column that is free
 * then. */
static size_t move_out(round_call *r, size_t head, proposal *p) {
    herd *h = r->h;
    if (p->event.decision == CLSPLAT_DEATH)
        return p->column[0];
    herd_put(h, &r->c, head, p->what.come[0], 0, p->column[0]);
    p->event.to[0] = population_name(&h->people, head, p->column[0], h->cycle);
    return p->column[1];
}

static size_t last_of_level(const herd *h, size_t level) {
    size_t c = h->people.count;
    while (c-- > 0)
        if ((size_t)h->people.level[c] == level)
            break;
    return c;
}

clsplat_status round_shrink(herd *h, size_t level, bool forced, bool *done) {
    clsplat_status status = CLSPLAT_OK;
    round_call r;
    *done = h->people.of_level[level] > 1;
    TRY(round_open(h, level, !forced, &r));
    for (size_t head = 0; head < h->people.heads && *done; ++head) {
        const proposal *best = best_of(r.of[head].shrinking, PROPOSE_SHRINKING);
        double allowed = error_of(&r, head, r.square[head]) * (1 + h->how->least_gain);
        *done = best && (forced || error_of(&r, head, best->square) <= allowed);
    }
    size_t last = last_of_level(h, level);
    for (size_t head = 0; head < h->people.heads && *done; ++head) {
        proposal *best = best_of(r.of[head].shrinking, PROPOSE_SHRINKING);
        double after = change_judge(h, &r.c, head, &best->what, true);
        size_t vacant = move_out(&r, head, best);
        tell(&r, head, best, r.square[head], after, true);
        herd_copy(h, head, last, vacant);
    }
    if (*done)
        herd_drop(h, last);
fail:
    round_close(&r);
    return status;
}

/* The proposal that promised most. */
static proposal *most_promising(proposals *of) {
    proposal *best = NULL;
    for (size_t i = 0; i < PROPOSE_GROWING; ++i)
        if (of->growing[i].possible && (!best || of->growing[i].gain > best->gain))
            best = &of->growing[i];
    return best;
}

/* The best growing proposal that is still one, with the squared error that it brings now. Those made before
 * it take from what the others promised and hardly ever add to it: only those are judged again that promised
 * more than what the best of the judged ones brings (lazy greedy: Minoux 1978). */
static proposal *pick(round_call *r, size_t head) {
    proposals *of = &r->of[head];
    for (size_t tries = 0; tries <= 2 * PROPOSE_GROWING; ++tries) {
        proposal *best = most_promising(of);
        if (!best || best->judged_at == r->made)
            return best && is_gain(r, head, best->square) ? best : NULL;
        best->square = change_judge(r->h, &r->c, head, &best->what, false);
        best->gain = isfinite(best->square) ? r->square[head] - best->square : -INFINITY;
        best->judged_at = r->made;
    }
    return NULL;
}

/* Mitosis without a displacement: no output changes. */
static void split_in_place(round_call *r, size_t head, size_t vacant) {
    herd *h = r->h;
    proposal *p = &r->of[head].growing[0]; /* of the splat with the largest share of the error */
    size_t parent = p->columns ? p->column[0] : last_of_level(h, r->level);
    p->event.decision = CLSPLAT_MITOSIS;
    herd_lift(h, head, parent, -log(2));
    herd_copy(h, head, parent, vacant);
    p->event.to[0] = population_name(&h->people, head, parent, h->cycle);
    p->event.to[1] = population_name(&h->people, head, vacant, h->cycle);
    tell(r, head, p, r->square[head], r->square[head], true);
    p->possible = false;
}

/* Candidates of columns that are something else by now are not what they were measured as. */
static void forget_column(round_call *r, size_t head, const proposal *p) {
    for (size_t i = 0; i < PROPOSE_GROWING; ++i)
        if (share_a_column(p, &r->of[head].growing[i]))
            r->of[head].growing[i].possible = false;
}

static void grow_head(round_call *r, size_t head, proposal *p, size_t vacant) {
    double before = r->square[head];
    if (!p) {
        split_in_place(r, head, vacant);
        forget_column(r, head, &r->of[head].growing[0]);
        return;
    }
    r->square[head] = change_judge(r->h, &r->c, head, &p->what, true);
    move_in(r, head, p, vacant);
    tell(r, head, p, before, r->square[head], true);
    p->possible = false;
    forget_column(r, head, p);
}

clsplat_status round_grow(herd *h, size_t level, size_t most, bool forced, size_t *grown) {
    clsplat_status status = CLSPLAT_OK;
    round_call r;
    size_t heads = h->people.heads;
    proposal **picked = calloc(heads, sizeof *picked);
    *grown = 0;
    TRY(round_open(h, level, false, &r));
    if (!picked) {
        status = log_error(h->layer->device->lib, CLSPLAT_MEMORY, "no memory for %zu heads", heads);
        goto fail;
    }
    while (*grown < most) {
        size_t helped = 0;
        for (size_t head = 0; head < heads; ++head) {
            picked[head] = pick(&r, head);
            helped += picked[head] != NULL;
        }
        if (helped < heads && (*grown || (!helped && !forced)))
            break;
        size_t vacant = herd_append(h, level);
        for (size_t head = 0; head < heads; ++head)
            grow_head(&r, head, picked[head], vacant);
        r.made = ++*grown;
    }
fail:
    free(picked);
    round_close(&r);
    return status;
}

/* Both at once, with the lift of the birth. */
static change both(const proposal *out, const proposal *in) {
    change c = out->what;
    for (size_t i = 0; i < in->what.going; ++i)
        c.gone[c.going++] = in->what.gone[i];
    for (size_t i = 0; i < in->what.coming; ++i) {
        c.lift[c.coming] = in->what.lift[i];
        c.come[c.coming++] = in->what.come[i];
    }
    return c;
}

/* Only the best few stay possible: pairs of them are judged. */
static void keep_best(proposal *all, size_t count) {
    enum { FEW = 3 };
    for (size_t i = 0; i < count; ++i) {
        size_t better = 0;
        for (size_t j = 0; j < count; ++j)
            better += all[j].possible &&
                      (all[j].square < all[i].square || (all[j].square == all[i].square && j < i));
        all[i].event.kept = better < FEW; /* only a mark until all are counted */
    }
    for (size_t i = 0; i < count; ++i) {
        all[i].possible &= all[i].event.kept && isfinite(all[i].square);
        all[i].event.kept = false;
    }
}

/* What was done, and what was to be done to the same splats, is no longer possible. */
static void forget(proposals *all, proposal *done) {
    done->possible = false;
    for (size_t i = 0; i < PROPOSE_SHRINKING; ++i)
        all->shrinking[i].possible &= !share_a_column(done, &all->shrinking[i]);
    for (size_t i = 0; i < PROPOSE_GROWING; ++i)
        all->growing[i].possible &= !share_a_column(done, &all->growing[i]);
}

/* Returns: whether a trade was kept. */
static bool trade_head(round_call *r, size_t head) {
    proposals *p = &r->of[head];
    proposal *best_out = NULL, *best_in = NULL;
    double best = INFINITY, before = r->square[head];
    keep_best(p->shrinking, PROPOSE_SHRINKING);
    keep_best(p->growing, PROPOSE_GROWING);
    for (size_t o = 0; o < PROPOSE_SHRINKING; ++o)
        for (size_t i = 0; i < PROPOSE_GROWING; ++i) {
            proposal *out = &p->shrinking[o], *in = &p->growing[i];
            /* What comes has to make up for what goes, about: the two alone add up to first order. */
            if (!out->possible || !in->possible || !(out->square + in->square < 2 * before) ||
                share_a_column(out, in))
                continue;
            change c = both(out, in);
            double square = change_judge(r->h, &r->c, head, &c, false);
            if (square < best)
                best = square, best_out = out, best_in = in;
        }
    if (!best_out)
        return false;
    bool kept = is_gain(r, head, best);
    if (kept) {
        change c = both(best_out, best_in);
        change_judge(r->h, &r->c, head, &c, true);
        move_in(r, head, best_in, move_out(r, head, best_out));
        r->square[head] = best;
        forget(p, best_out);
        forget(p, best_in);
    }
    tell(r, head, best_out, before, best, kept);
    tell(r, head, best_in, before, best, kept);
    return kept;
}

clsplat_status round_trade(herd *h, size_t level) {
    clsplat_status status = CLSPLAT_OK;
    round_call r;
    TRY(round_open(h, level, false, &r));
    for (size_t head = 0; head < h->people.heads && h->people.of_level[level] > 1; ++head)
        if (trade_head(&r, head)) { /* measuring them was the work: a second one of what is left */
            propose_judge(h, head, &r.c, &r.of[head]);
            trade_head(&r, head);
        }
fail:
    round_close(&r);
    return status;
}
