/* What may be tuned about a kernel, as data: its -D definitions, the values each may take, and which of them
 * go together on a device.
 *
 * The points of a space are numbered from 0, which is the default where a device allows it, to
 * tune_space_size − 1. */
#ifndef CLSPLAT_TUNE_SPACE_H
#define CLSPLAT_TUNE_SPACE_H

#include <clsplat/device.h>

#include "base/text.h"

enum { TUNE_PARAMETERS = 6, TUNE_VALUES = 8 };

typedef struct tune_parameter {
    const char *name;             /* of the -D definition */
    uint32_t values[TUNE_VALUES]; /* the first is the default; a 0 behind it ends them. A default of 0 is left
                                     to whoever launches the kernel, who knows the problem's shape */
} tune_parameter;

/* A value for each parameter, in their order. */
typedef struct tune_point {
    uint32_t value[TUNE_PARAMETERS];
} tune_point;

typedef struct tune_space {
    size_t count; /* of parameters; 0: there is nothing to tune */
    tune_parameter parameters[TUNE_PARAMETERS];
    bool (*allows)(const clsplat_limits *limits, const tune_point *point); /* NULL: every point */
} tune_space;

/* Without parameters: one point, number 0. */
extern const tune_space tune_nothing;

size_t tune_values(const tune_parameter *parameter);
size_t tune_space_size(const tune_space *space);
tune_point tune_point_at(const tune_space *space, size_t index);
/* The first point that the limits allow; number 0 if they allow none. */
tune_point tune_default(const tune_space *space, const clsplat_limits *limits);
/* tune_space_size if it is no point of the space. */
size_t tune_point_index(const tune_space *space, const tune_point *point);
/* The point that differs from `index` in one parameter only, which has its value number `value`. */
size_t tune_neighbour(const tune_space *space, size_t index, size_t parameter, size_t value);
/* "TILE=128 RT=4", or "-" for a space without parameters; read: false unless it names every parameter once,
 * in order, each with a value of its own. */
void tune_point_write(const tune_space *space, const tune_point *point, text *to);
bool tune_point_read(const tune_space *space, const char *words, tune_point *point);
bool tune_space_allows(const tune_space *space, const clsplat_limits *limits, const tune_point *point);

#endif
