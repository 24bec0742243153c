/* A look at a population's health, and what mending needs of it. */
#ifndef CLSPLAT_ADAPT_HEALTH_H
#define CLSPLAT_ADAPT_HEALTH_H

#include <clsplat/health.h>

#include "adapt/herd.h"

/* Whether the splat's numbers, or the level's weight, are finite. */
bool health_is_finite(const population *p, size_t head, size_t column);

/* ln of a splat's width: half the mean log-variance of its dimensions. */
double health_log_width(const splat_form *form, const double *splat);
/* That of the middle one of the head's finite splats. Returns: MEMORY; INVALID if none is finite. */
clsplat_status health_middle_width(clsplat *lib, const population *p, size_t head, double *width);

/* Whether the last errors, four at least, rise and fall in turns without getting anywhere. */
bool health_oscillates(const double *errors, size_t count);

clsplat_status health_add(clsplat *lib, clsplat_health *health, clsplat_finding finding);
/* What is wrong with a herd that has been measured, whose numbers are all finite. */
clsplat_status health_find(const herd *h, clsplat_health *health);
/* The score, of a set of so many heads and splats. */
void health_score(clsplat_health *health, size_t heads, size_t splats);

/* Columns that are not finite become copies of the first that is, and are noted; so do level weights. */
clsplat_status health_find_numbers(clsplat *lib, population *p, clsplat_health *health);

#endif
