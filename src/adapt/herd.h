/* A population at work on a layer: what each of its splats has at each looked-at row, and what all of them
 * make of the rows. Kept up while splats come and go, so that a decision is judged by what it changes alone.
 */
#ifndef CLSPLAT_ADAPT_HERD_H
#define CLSPLAT_ADAPT_HERD_H

#include <clsplat/adapt.h>

#include "adapt/layer.h"
#include "adapt/population.h"
#include "base/random.h"

enum { HERD_TOKENS = 1024 }; /* keys per head that coverage is taken at, about */

/* What a birth could make of a row: see lift.c. */
typedef struct birth_row {
    double own, cross, come, weight;
} birth_row;

typedef struct herd {
    layer *layer;
    const clsplat_adapt *how;
    clsplat_splats *like; /* for the levels' names */
    population people;
    size_t *least, *most; /* [L] */
    size_t state_heads;   /* Hw */
    size_t spacing, tokens;
    float *log_weight;  /* [B·H][capacity][rows], with ln w */
    float *cover;       /* [B·Hw][capacity][tokens]: φ of keys */
    double *lse, *out;  /* [B·H][rows], [B·H][rows][Dv]: attention of the rows */
    double *row_square; /* [B·H][rows]: ‖out − target‖² */
    birth_row *birth;   /* [B·H·rows]: room to look at one */
    layer_states spare; /* room for what the next candidates have at the rows */
    random_state random;
    unsigned cycle;
    clsplat_adapt_result result;
} herd;

/* Room for `capacity` columns; nothing is measured yet. Returns: INVALID, MEMORY. */
clsplat_status herd_open(layer *l, const clsplat_adapt *how, clsplat_splats *splats, herd *h);
void herd_close(herd *h);

/* Whether levels have splats, and least and most fit together. Returns: INVALID. */
clsplat_status herd_check_limits(const herd *h);

/* Measures everything on the device. */
clsplat_status herd_measure(herd *h);
/* The attention of the rows alone: all that their errors need. */
clsplat_status herd_attend(herd *h);

/* Whether a head of queries (over the batch, B·H) is served by a head of the set; and the head of states of
 * it. */
bool herd_serves(const herd *h, size_t set_head, size_t query_head);
size_t herd_writer(const herd *h, size_t query_head);

/* ‖out − target‖² and ‖target‖² of a head of the set, and the error of the head or of the layer. */
double herd_square(const herd *h, size_t head);
double herd_norm(const herd *h, size_t head);
double herd_error(const herd *h, size_t head);
double herd_layer_error(const herd *h);

/* What the splats of one head do. All [count] but by_token [tokens], for each column or for each token. */
typedef struct herd_look {
    double *use, *blame, *entropy,
        *leave_one_out; /* share of the attention; of the squared error; see adapt.h */
    double *row_square; /* [B·H·rows]: the squared errors of rows; 0 of other heads' */
    double row_total;
    size_t *nearest; /* [B·Hw·tokens]: the column that covers a key best; SIZE_MAX for other heads' */
    float *reach;    /* and its φ */
} herd_look;
clsplat_status herd_look_at(const herd *h, size_t head, herd_look *look);
void herd_look_free(herd_look *look);

/* Splats that might be: measured on the device, of every head as many. */
typedef struct candidates {
    size_t count;   /* per head of the set */
    double *splats; /* [heads][count][numbers] */
    layer_states states;
    float *cover; /* [B·Hw][tokens][count] */
} candidates;
clsplat_status candidates_open(const herd *h, size_t count, candidates *c);
clsplat_status candidates_measure(herd *h, candidates *c);
/* What the candidates had at the rows is room for the next ones'. */
void candidates_close(herd *h, candidates *c);
double *candidates_splat(const herd *h, const candidates *c, size_t head, size_t i);

/* A change to a head: candidates that go (they are columns too) and candidates that come, at a level. */
enum { CHANGE_MOST = 4 };
typedef struct change {
    size_t level, going, coming;
    size_t gone[CHANGE_MOST], come[CHANGE_MOST];
    double lift[CHANGE_MOST]; /* added to ln a of what comes */
} change;

/* The head's squared error after the change; INFINITY if what remains cannot be told from rounding. With
 * `apply` out and lse become those after it. */
double change_judge(herd *h, const candidates *c, size_t head, const change *what, bool apply);

/* Of a row, from its out. */
double herd_row_square(const herd *h, size_t at);

/* e·e, e·u and u·u of a row with e = out − target and u = value − target. */
birth_row birth_products(const double *out, const float *target, const float *value, size_t columns);

/* The column's splat becomes the candidate. The caller names it. */
void herd_put(herd *h, const candidates *c, size_t head, size_t i, double lift, size_t column);
/* The splat of one column becomes another's; number and all. */
void herd_copy(herd *h, size_t head, size_t from, size_t to);
/* Adds to ln a of a column. */
void herd_lift(herd *h, size_t head, size_t column, double lift);
/* A new column at the level, and the end of one, which the last one replaces. */
size_t herd_append(herd *h, size_t level);
void herd_drop(herd *h, size_t column);

void herd_tell(herd *h, clsplat_adapt_event event);

#endif
