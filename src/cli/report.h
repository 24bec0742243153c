/* What the commands print: one JSON value, or lines for a person. */
#ifndef CLSPLAT_CLI_REPORT_H
#define CLSPLAT_CLI_REPORT_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/cli.h"

/* Prints and releases the value; NULL is out of memory. */
clsplat_status report_json(cli *c, json_t *value);

/* "7.7 GiB", "312 KiB", in a buffer of the caller's. */
enum { REPORT_BYTES = 24 };
const char *report_bytes(uint64_t bytes, char text[REPORT_BYTES]);

/* As in the command line and the files. */
const char *report_covariance(int covariance);

#endif
