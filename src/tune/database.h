/* What tuning has found, on this machine or on others: text, one record a line, of fields `key=value` between
 * "; ".
 *
 * A record belongs to an operation and a variant of it, a class of shapes, and a device with its driver; it
 * dies with the source of its kernel. Lines that begin with # are comments. A damaged line is reported and
 * left out, never fatal.
 *
 * The user's records are in $XDG_DATA_HOME/clsplat/tuning.txt, or else in ~/.local/share/clsplat/tuning.txt;
 * others are part of the library (cl/tuning.txt). */
#ifndef CLSPLAT_TUNE_DATABASE_H
#define CLSPLAT_TUNE_DATABASE_H

#include "base/log.h"
#include "base/text.h"

#include <clsplat/device.h>

/* `heads` problems (batch × heads × segments) of `rows` rows against `sources` sources. */
typedef struct tune_shape {
    char type[8];  /* of the sources: "F32" */
    char form[16]; /* "causal", "diagonal", … as the operation has it, or "-" */
    uint64_t heads, rows, sources, dim, value_dim; /* the first three to the nearest power of 2, up to
 64, 4096, 4096 */
} tune_shape;

typedef struct tune_device {
    char platform[96], vendor[96], device[128], driver[96], kind[16]; /* kind: "cpu" */
    uint64_t compute_units, max_work_group, vector_width, local_memory;
} tune_device;

typedef struct tune_record {
    char op[24], variant[24];
    tune_shape shape;
    char parameters[128]; /* tune_point_write */
    double
        seconds;  /* for a problem of just that shape; INFINITY: this crashed, and is not to be tried again */
    double error; /* relative, against row 0 */
    uint64_t source; /* hash of the words of the kernel's source, without comments and blanks */
    tune_device on;
} tune_record;

typedef struct tune_database {
    tune_record *records;
    size_t count, capacity;
    bool tried; /* of every candidate that a tuner tried, the latest of each, not of the best alone */
} tune_database;

tune_device tune_device_of(const clsplat_device_info *info);
/* Shapes of one class become equal: what is more than enough to fill a device is the same for tuning. */
void tune_shape_round(tune_shape *shape);

void tune_record_write(const tune_record *record, text *line);
/* False for a damaged line. */
bool tune_record_read(const char *line, tune_record *record);

/* In the place of the record for the same use, if there is one. Returns: MEMORY. */
clsplat_status tune_database_add(clsplat *lib, tune_database *db, const tune_record *record);
/* The record for the same use; NULL if there is none. */
const tune_record *tune_database_same(const tune_database *db, const tune_record *record);
/* Adds the records of a text; `origin` names it in warnings. Returns: MEMORY. */
clsplat_status tune_database_parse(clsplat *lib, tune_database *db, const char *origin, const char *lines);
/* Adds the records of a file. Returns: IO, MEMORY. */
clsplat_status tune_database_load(clsplat *lib, tune_database *db, const char *path);
/* Replaces the file in one step. Returns: IO, MEMORY. */
clsplat_status tune_database_save(clsplat *lib, const tune_database *db, const char *path);
void tune_database_free(tune_database *db);

/* Those that the tuner tried are in tried.txt beside the user's records; seconds INFINITY: it was rejected.
 * To be called with `tried` set; none are no failure. `path`: another file, which must be there; NULL: that
 * one. Returns: IO, MEMORY. */
clsplat_status tune_database_load_tried(clsplat *lib, tune_database *db, const char *path);

/* The path of a file of the user's data; empty if there is no home for it. */
text tune_user_path(const char *name);
/* Adds the user's records; none are no failure. */
clsplat_status tune_database_load_user(clsplat *lib, tune_database *db);

/* How near a record's device is to one. */
typedef enum tune_match {
    TUNE_SAME,         /* the device and its driver */
    TUNE_OTHER_DRIVER, /* to be verified by the tuner */
    TUNE_ARCHITECTURE, /* the same limits, another name */
    TUNE_NEAREST,      /* limits not too far away */
    TUNE_FOREIGN       /* too far: the default is safer */
} tune_match;
tune_match tune_device_match(const tune_device *a, const tune_device *b);
/* In doublings of limits. */
double tune_device_distance(const tune_device *a, const tune_device *b);
/* In doublings of a dimension, those of the rows twice; another form counts as two. INFINITY for another
 * type, whose fastest variant may be another one. */
double tune_shape_distance(const tune_shape *a, const tune_shape *b);

/* The best record for an operation: by match, then by distance of the device, of the shape, then by time.
 * `accept` refuses records that cannot be used, and is not asked about those that crashed. */
typedef struct tune_query {
    const char *op;
    tune_shape shape;
    tune_device on;
    void *user;
    bool (*accept)(void *user, const tune_record *record);
} tune_query;
const tune_record *tune_database_find(const tune_database *db, const tune_query *query);

#endif
