/* The splats of a set while they come and go, and who they are.
 *
 * Columns are what the set's splats are: column c has level[c] in every head, and in each head a splat of its
 * own. */
#ifndef CLSPLAT_ADAPT_POPULATION_H
#define CLSPLAT_ADAPT_POPULATION_H

#include "adapt/moments.h"
#include "base/log.h"

/* Who a splat is. */
typedef struct splat_life {
    uint64_t number;  /* 0: none yet */
    unsigned born;    /* cycle; 0: before */
    unsigned starved; /* cycles in a row of hardly any use */
} splat_life;

typedef struct population {
    splat_form form;
    size_t heads, levels, count, capacity;
    int32_t *level;   /* [capacity] */
    double *splats;   /* [heads][capacity][form.numbers] */
    splat_life *life; /* [heads][capacity] */
    uint64_t *born;   /* [heads]: numbers given so far */
    double *level_log_weight;
    size_t *of_level; /* [levels]: columns of each */
} population;

/* Room for `capacity` columns. Returns: MEMORY. */
clsplat_status population_open(clsplat_splats *set, size_t capacity, population *p);
void population_close(population *p);

double *population_splat(const population *p, size_t head, size_t column);
splat_life *population_life(const population *p, size_t head, size_t column);

/* Names the splat of a column anew. Returns: its number. */
uint64_t population_name(population *p, size_t head, size_t column, unsigned cycle);

/* A column at the end; its splats are the caller's to fill in. */
size_t population_append(population *p, size_t level);

/* A set of these splats, with the level names of `like`. Ownership: the caller's. */
clsplat_status population_set(const population *p, clsplat *lib, clsplat_splats *like, clsplat_splats **set);

/* A set of `count` splats for each head at one level: splats [heads][count][form.numbers]. */
clsplat_status population_loose(const population *p, clsplat *lib, double *splats, size_t count,
                                clsplat_splats **set);

#endif
