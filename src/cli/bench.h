/* `clsplat bench` in parts: the timing of an example's variants, and the report. */
#ifndef CLSPLAT_CLI_BENCH_H
#define CLSPLAT_CLI_BENCH_H

#include "cli/cli.h"
#include "op/peak.h"
#include "tuning/example.h"

extern const char *const bench_dtype_names[]; /* the last is NULL */

typedef struct bench_request {
    const example_operation *operation;
    example_shape shape;
    const char *variant; /* NULL: every one that fits */
    size_t repeat;
} bench_request;

/* The number of the operation that is asked for, *op as it was if `given` is NULL. */
clsplat_status bench_read_op(cli *c, const char *given, int *op);
/* "B,H,N,M,D,Dv,S"; what is left away at the end stays as it is, all of it if `given` is NULL. */
clsplat_status bench_read_shape(cli *c, const char *given, example_shape *shape);

/* One variant, timed. */
typedef struct bench_result {
    const char *variant; /* "tuned": what the library takes by itself */
    size_t rows;         /* how many of the queries; fewer than all where all would take too long */
    size_t runs;
    double seconds, fastest, slowest; /* median of one run, and the others */
    double error;                     /* relative to row 0's; NaN: not compared */
    work work; /* of one run: see README's section on speed for how flops are counted */
} bench_result;
enum { BENCH_VARIANTS = 24 };

/* Times all that fit, in turns. Blocks. Returns: INVALID if the variant that is asked for does not fit,
 * CANCELLED. */
clsplat_status bench_time(cli *c, const bench_request *request, example *e,
                          bench_result results[BENCH_VARIANTS], size_t *count);

/* Either lines on stdout, or objects for the list *list, a json_t **. */
void bench_print(const bench_request *request, const op_peak *peak, const bench_result *results,
                 size_t count);
void bench_append(void *list, const bench_request *request, const op_peak *peak, const bench_result *results,
                  size_t count);

#endif
