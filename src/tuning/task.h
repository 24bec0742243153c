/* One operation's part of a tuning run: its candidates as the search sees them, and as records. */
#ifndef CLSPLAT_TUNING_TASK_H
#define CLSPLAT_TUNING_TASK_H

#include "tune/journal.h"
#include "tune/search.h"
#include "tuning/verify.h"

typedef struct tuning_task {
    clsplat_device *device;
    clsplat *lib;      /* the device's; what a candidate does wrong is no error of the call */
    const char *words; /* "softmax causal" */
    const tune_journal *journal;
    const tune_database *db; /* the user's records, with those that crashed */
    tune_device on;
    verification verified;
    tune_shape shape; /* the class of what is timed */
    double
        *errors[TUNE_ROWS]; /* by index; NaN: not tried yet, INFINITY: rejected; NULL: the row does not fit */
    size_t points;          /* of all rows that fit */
} tuning_task;

/* Sets the search's spaces and callback. `c` has device, words, journal and db.
 * Ownership: the caller's, for task_close, whatever this returns. Blocks. */
clsplat_status task_open(tuning_task *c, const example_kind *kind, const example_shape *shape,
                         tune_search *search);
void task_close(tuning_task *c);

/* Up to `limit` candidates that records of this or a similar device name, those of the nearest devices first.
 */
size_t task_known(const tuning_task *c, const tune_database *db, tune_candidate *known, size_t limit);

tune_record task_record(const tuning_task *c, tune_candidate candidate, double seconds);

#endif
