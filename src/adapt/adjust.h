/* Gradient steps on all splats of a population. */
#ifndef CLSPLAT_ADAPT_ADJUST_H
#define CLSPLAT_ADAPT_ADJUST_H

#include "adapt/herd.h"

/* Steps down the squared error of the looked-at rows by mean, covariance and amplitude; heads on their own. A
 * head whose error rises goes back to where it was best and halves its rate; in the end each is where it was
 * best. Temperatures stay: a variance does what they would.
 * Source: Kingma and Ba 2015 (arXiv 1412.6980). */
clsplat_status adjust(herd *h, unsigned steps);

#endif
