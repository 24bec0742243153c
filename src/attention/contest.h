/* One operation's part of a tuning run: its candidates as the search sees them, and as records. */
#ifndef CLSPLAT_ATTENTION_CONTEST_H
#define CLSPLAT_ATTENTION_CONTEST_H

#include "attention/trial.h"
#include "tune/journal.h"
#include "tune/search.h"

typedef struct contest {
    clsplat_device *device;
    clsplat *lib; /* the device's own, while a candidate runs with `quiet`: what a candidate does wrong is no
                     error of the call */
    clsplat quiet;
    const char *words; /* "softmax causal" */
    const tune_journal *journal;
    const tune_database *db; /* the user's records, with those that crashed */
    tune_device on;
    trial trial;
    tune_shape shape; /* the class of what is timed */
    double
        *errors[TUNE_ROWS]; /* by index; NaN: not tried yet, INFINITY: rejected; NULL: the row does not fit */
    size_t points;          /* of all rows that fit */
} contest;

/* Sets the search's spaces and callback. `c` has device, words, journal and db.
 * Ownership: the caller's, for contest_close, whatever this returns. Blocks. */
clsplat_status contest_open(contest *c, probe_kind kind, const probe_shape *shape, tune_search *search);
void contest_close(contest *c);

/* Up to `limit` candidates that records of this or a similar device name, those of the nearest devices first.
 */
size_t contest_known(const contest *c, const tune_database *db, tune_candidate *known, size_t limit);

tune_record contest_record(const contest *c, tune_candidate candidate, double seconds);

#endif
