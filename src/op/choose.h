/* Which row of a table runs, with which parameters, where a call does not say: as tuning found it for the
 * device and the class of shapes, or the last row that fits with its defaults. */
#ifndef CLSPLAT_OP_CHOOSE_H
#define CLSPLAT_OP_CHOOSE_H

#include "op/variant.h"

typedef struct op_choice {
    size_t row;
    tune_point point;
} op_choice;

/* The tuning records are read at the first call on a device, and searched at the first for a class of shapes;
 * later ones find their class in a list. Trouble with the records is a warning, and then the default. */
op_choice op_choose(clsplat_device *device, const op_family *family, const void *args);

/* The next call reads the records anew. */
void op_forget(clsplat_device *device);

/* The last row before `row` that fits, with its defaults, for the class of these arguments from now on: `row`
 * was chosen, and does not run here. */
op_choice op_choose_below(clsplat_device *device, const op_family *family, const void *args, size_t row);

/* The last row that fits, with its defaults. */
op_choice op_choose_default(const clsplat_limits *limits, const op_family *family, const void *args);

/* The records of the library, then those of the user, which take their places. Returns: IO, MEMORY. */
clsplat_status op_records_load(clsplat *lib, tune_database *db);

/* False if the record is not of a row of the family, or is of another source, has other parameters, or does
 * not fit. */
bool op_choice_of(const op_family *family, const clsplat_limits *limits, const tune_record *record,
                  const void *args, op_choice *choice);

/* Of the source of a row, with all that it includes. */
uint64_t op_source_hash(const op_variant *variant);

/* Of the words of a text in C, one after another: a comment, a blank or a mark `#line` that comes or goes
 * leaves it as it is. (So do blanks that matter, as in `#define F (x)`: rarer than a mended comment, and
 * tests run what they make.) */
uint64_t op_text_hash(const char *words);

#endif
