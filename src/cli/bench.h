/* `clsplat bench` in parts: a problem of random numbers on a device, the timing of its variants, the report.
 */
#ifndef CLSPLAT_CLI_BENCH_H
#define CLSPLAT_CLI_BENCH_H

#include "cli/cli.h"
#include "op/peak.h"
#include "op/tree/forest.h"

typedef enum bench_op {
    BENCH_SOFTMAX,
    BENCH_GAUSSIAN, /* diagonal splats */
    BENCH_ISOTROPIC,
    BENCH_FULL,
    BENCH_NEAR_FAR, /* at the default tolerance, the trees grown before */
    BENCH_GEMM,     /* A Bᵀ of N × D and M × D numbers */
    BENCH_OPS
} bench_op;
extern const char *const bench_op_names[BENCH_OPS + 1]; /* the last is NULL */
extern const char *const bench_dtype_names[];           /* the last is NULL */

typedef struct bench_shape {
    size_t batch, heads, queries, keys, dim, value_dim, splats;
} bench_shape;

typedef struct bench_request {
    bench_op op;
    bench_shape shape;
    clsplat_dtype dtype; /* of all tensors but lse */
    bool causal;
    const char *variant; /* NULL: every one that fits */
    size_t repeat;
} bench_request;

/* "B,H,N,M,D,Dv,S"; what is left away at the end stays as it is, all of it if `given` is NULL. */
clsplat_status bench_read_shape(cli *c, const char *given, bench_shape *shape);

/* A problem in buffers of the device. */
typedef struct bench_case {
    bench_request request;
    clsplat_device *device;
    clsplat_splats *splats;
    const op_splats *ready;      /* its splats on the device */
    op_forest forest;            /* near and far: of all keys */
    op_tensor q, k, v, out, lse; /* gemm: a, b, absent, c, absent */
} bench_case;
clsplat_status bench_case_create(clsplat_device *device, const bench_request *request, bench_case *made);
void bench_case_free(bench_case *made);
/* Enqueues the last `rows` queries against all keys. */
clsplat_status bench_case_enqueue(const bench_case *b, size_t rows, queue *q);
/* What that does: see README's section on speed for how flops are counted. */
work bench_case_work(const bench_case *b, size_t rows);
/* Whether any operation it is made of has a row of that name that fits. */
bool bench_case_has(const bench_case *b, const char *variant);
/* The last `rows` rows of out as floats, B·H·rows·columns of them. */
clsplat_status bench_case_read(const bench_case *b, size_t rows, float *values);
/* Fills out with NaN. */
clsplat_status bench_case_poison(const bench_case *b);

/* One variant, timed. */
typedef struct bench_result {
    const char *variant; /* "tuned": what the library takes by itself */
    size_t rows;         /* how many of the queries; fewer than all where all would take too long */
    size_t runs;
    double seconds, fastest, slowest; /* median of one run, and the others */
    double error;                     /* of out, relative to row 0's; NaN: not compared */
} bench_result;
enum { BENCH_VARIANTS = 24 };

/* Times all that fit, in turns. Blocks. Returns: INVALID if the variant that is asked for does not fit,
 * CANCELLED. */
clsplat_status bench_time(cli *c, const bench_case *b, bench_result results[BENCH_VARIANTS], size_t *count);

/* Either lines on stdout, or objects for the list *list, a json_t **. */
void bench_print(const bench_case *b, const op_peak *peak, const bench_result *results, size_t count);
void bench_append(void *list, const bench_case *b, const op_peak *peak, const bench_result *results,
                  size_t count);

#endif
