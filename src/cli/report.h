/* What the commands print: one JSON value, or lines for a person. */
#ifndef CLSPLAT_CLI_REPORT_H
#define CLSPLAT_CLI_REPORT_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/cli.h"
#include "format/json.h"

/* Prints and releases the value; NULL is out of memory. */
clsplat_status report_json(cli *c, json_t *value);
/* The same with more digits; a float32 needs 9 to be itself again. */
clsplat_status report_json_digits(cli *c, json_t *value, unsigned digits);

/* The parts of a report. Whatever fails is NULL, and makes NULL of what it goes into (json_push, json_put),
 * so that report_json says it.
 *
 * Words: what is not UTF-8 in them is U+FFFD, since JSON can hold nothing else. */
json_t *report_words(const char *words, size_t bytes);
json_t *report_text(const char *words);
/* null where it is not finite, which JSON cannot say. */
json_t *report_number(double number);

/* "7.7 GiB", "312 KiB", in a buffer of the caller's. */
enum { REPORT_BYTES = 24 };
const char *report_bytes(uint64_t bytes, char text[REPORT_BYTES]);

/* As in the command line and the files. */
const char *report_covariance(int covariance);

#endif
