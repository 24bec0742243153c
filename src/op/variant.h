/* The table of variants behind every operation.
 *
 * An operation is a family: a const array of rows. Row 0 is plain OpenCL C 1.2, fits every device and
 * every shape, and is what the others are compared with. A later row says through `fits` which limits,
 * shapes and types it needs, and through `guarantee` what it promises about its result. Among the rows that
 * fit, tuning records decide, and without one the last is taken. */
#ifndef CLSPLAT_OP_VARIANT_H
#define CLSPLAT_OP_VARIANT_H

#include "base/text.h"
#include "runtime/queue.h"
#include "tune/database.h"
#include "tune/space.h"

typedef struct op_variant {
    const char *name;      /* "plain" */
    const char *guarantee; /* of the result, against a float64 reference */
    bool (*fits)(const clsplat_limits *limits, const void *args);
    clsplat_status (*run)(queue *q, const void *args);
    const char *source;      /* the file of cl/ that its records die with; NULL: it is another library's */
    const tune_space *space; /* what of it may be tuned: see queue.tuned */
} op_variant;

typedef struct op_family {
    const char *name; /* "softmax" */
    const op_variant *variants;
    size_t count;
    void (*shape)(const void *args,
                  tune_shape *shape); /* for tuning records, not rounded; NULL: it has none */
} op_family;

/* Runs a row with these parameters; NULL: its defaults. One row may run another. */
clsplat_status op_run(queue *q, const op_variant *variant, const tune_point *point, const void *args);

/* The row of that name, if it fits; NULL otherwise. */
const op_variant *op_row(const op_family *family, const char *name, const clsplat_limits *limits,
                         const void *args);

/* Whether there is a row of that name on any device; the names of all, "plain, wide", for messages. */
bool op_lists(const op_family *family, const char *name, text *names);

/* Runs the row that the call asks for (q->variant), if it has it and it fits, or else op_choose's
 * (op/choose.h); if that one does not build, or the device lacks what its kernel asks for, the next row
 * before it that fits, with a warning, then and from then on. Row 0 is for any. */
clsplat_status op_dispatch(queue *q, const op_family *family, const void *args);

/* Row 0's `fits`. */
bool op_fits_all(const clsplat_limits *limits, const void *args);

/* Every family, for tests and tools that visit all rows. */
extern const op_family *const op_families[];
extern const size_t op_family_count;

#endif
