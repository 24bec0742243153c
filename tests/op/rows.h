/* Which rows of the tables of variants a program has judged, and which it exists to judge: a row whose `fits`
 * has come to say no everywhere must turn a test red. rows.c says by hand which rows run on which kind of
 * device. */
#ifndef CLSPLAT_TESTS_ROWS_H
#define CLSPLAT_TESTS_ROWS_H

#include <check.h>

#include "op/variant.h"

/* A row has run in the part at hand; its result is compared by the caller. */
void rows_ran(const op_family *family, size_t row);

/* Begins and ends a part (in front of and behind its tests; it has the stage) that judges these families, a
 * list that ends with NULL and stays: the last test fails unless every row that this kind of device has ran
 * in between. */
void rows_begin(TCase *part);
void rows_end(TCase *part, const op_family *const *families);

#endif
