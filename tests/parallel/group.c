/* A program that has a communicator of its own: ranks.py starts three, of which two attend together and the
 * third alone; each compares with what it gets without a group. Prints nothing unless something is wrong. */
#include <clsplat/clsplat.h>
#include <clsplat/mpi.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 2, QUERIES = 37, KEYS = 53, DIM = 16 };

static void fill(float *x, size_t count, unsigned seed) {
    for (size_t i = 0; i < count; ++i)
        x[i] = (float)((seed = seed * 1664525u + 1013904223u) >> 8) / (float)(1 << 23) - 1.0f;
}

/* The rows of a part out of all rows. */
static void take(const float *all, size_t rows, const clsplat_run runs[CLSPLAT_RUNS], float *to) {
    for (size_t h = 0; h < HEADS; ++h)
        for (int r = 0; r < CLSPLAT_RUNS; ++r)
            for (size_t i = 0; i < runs[r].count * DIM; ++i)
                *to++ = all[(h * rows + runs[r].begin) * DIM + i];
}

static clsplat_tensor tensor(size_t rows, float *x) {
    return clsplat_tensor_host(CLSPLAT_F32, 1, HEADS, rows, DIM, x);
}

/* Every row of any sequence belongs to one rank. */
static int check_parts(bool causal, clsplat_method method) {
    clsplat_attention a = {.causal = causal, .method = method, .chunk = 1};
    for (size_t ranks = 1; ranks <= 7; ++ranks)
        for (size_t queries = 1; queries < 40; queries += 3)
            for (size_t keys = 1; keys < 40; keys += 3) {
                int of_query[40] = {0}, of_key[40] = {0};
                for (size_t r = 0; r < ranks; ++r) {
                    clsplat_part p = clsplat_ranks_part(a, queries, keys, ranks, r);
                    for (int i = 0; i < CLSPLAT_RUNS; ++i) {
                        for (size_t j = 0; j < p.queries[i].count; ++j)
                            ++of_query[p.queries[i].begin + j];
                        for (size_t j = 0; j < p.keys[i].count; ++j)
                            ++of_key[p.keys[i].begin + j];
                    }
                }
                for (size_t i = 0; i < 40; ++i)
                    if (of_query[i] != (i < queries) || of_key[i] != (i < keys))
                        return 1;
            }
    return 0;
}

/* What the group says, against what one process says, of this rank's rows. */
static clsplat_status compare(clsplat_device *device, clsplat_ranks *ranks, clsplat_attention a,
                              double *error) {
    static float q[HEADS * QUERIES * DIM], k[HEADS * KEYS * DIM], v[HEADS * KEYS * DIM],
        out[HEADS * QUERIES * DIM];
    static float mine[4][HEADS * KEYS * DIM], expected[HEADS * KEYS * DIM];
    clsplat_part p =
        clsplat_ranks_part(a, QUERIES, KEYS, clsplat_ranks_count(ranks), clsplat_ranks_own(ranks));
    size_t queries = p.queries[0].count + p.queries[1].count, keys = p.keys[0].count + p.keys[1].count;
    fill(q, HEADS * QUERIES * DIM, 1);
    fill(k, HEADS * KEYS * DIM, 2);
    fill(v, HEADS * KEYS * DIM, 3);
    take(q, QUERIES, p.queries, mine[0]);
    take(k, KEYS, p.keys, mine[1]);
    take(v, KEYS, p.keys, mine[2]);
    clsplat_attention_tensors all = {
        .q = tensor(QUERIES, q), .k = tensor(KEYS, k), .v = tensor(KEYS, v), .out = tensor(QUERIES, out)};
    clsplat_attention_tensors part = {.q = tensor(queries, mine[0]),
                                      .k = tensor(keys, mine[1]),
                                      .v = tensor(keys, mine[2]),
                                      .out = tensor(queries, mine[3])};
    clsplat_status status = clsplat_attend(device, a, all);
    if (status == CLSPLAT_OK)
        status = clsplat_ranks_attend(ranks, device, a, QUERIES, KEYS, part);
    take(out, QUERIES, p.queries, expected);
    *error = 0;
    for (size_t i = 0; i < HEADS * queries * DIM; ++i)
        *error = fmax(*error, fabs((double)mine[3][i] - (double)expected[i]));
    return status;
}

int main(int argc, char **argv) {
    clsplat *lib = NULL;
    clsplat_device *device = NULL;
    clsplat_ranks *ranks = NULL;
    MPI_Comm some = MPI_COMM_NULL;
    clsplat_attention a = clsplat_attention_defaults();
    int rank = 0;
    double error = 1;
    a.causal = true;
    MPI_Init(&argc, &argv); /* without threads: messages and kernels then take turns */
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_split(MPI_COMM_WORLD, rank < 2, rank, &some);
    clsplat_status status = clsplat_create(clsplat_options_defaults(), &lib);
    if (status == CLSPLAT_OK)
        status = clsplat_device_open(lib, NULL, &device);
    if (status == CLSPLAT_OK)
        status = clsplat_ranks_create(lib, some, &ranks);
    if (status == CLSPLAT_OK)
        status = compare(device, ranks, a, &error);
    if (status != CLSPLAT_OK)
        fprintf(stderr, "rank %d: %s\n", rank, clsplat_last_error(lib));
    else if (!(error < 1e-6))
        fprintf(stderr, "rank %d: off by %g\n", rank, error);
    bool good = status == CLSPLAT_OK && error < 1e-6;
    static const clsplat_method methods[] = {CLSPLAT_SOFTMAX, CLSPLAT_SPLATS, CLSPLAT_NEAR_FAR};
    for (int i = 0; i < 6; ++i)
        if (check_parts(i & 1, methods[i / 2]) != 0) {
            fprintf(stderr, "a row belongs to no rank, or to two (causal %d, method %d)\n", i & 1, i / 2);
            good = false;
        }
    clsplat_ranks_destroy(&ranks);
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
    MPI_Comm_free(&some);
    MPI_Finalize();
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
