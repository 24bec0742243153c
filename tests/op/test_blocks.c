/* Weights in blocks: every row of the matrix product and of embedding that fits, against float64 products of
 * what the blocks stand for; embedding bit for bit. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"
#include "base/half.h"
#include "format/blocks.h"
#include "matrix.h"
#include "naive/naive.h"
#include "op/families.h"
#include "runtime/device.h"

enum { FIRST = OP_Q8_0, TYPES = OP_TYPES - FIRST };

/* A matrix [1,1,rows,depth] of random blocks, in a buffer that begins with a block of its own. */
typedef struct packed {
    op_tensor t;
    double *values;
    float *numbers;
} packed;

/* Random bytes, with halves of the size of 0.01 where a block has them. */
static void fill(const block_type *type, unsigned char *block, random_state *random) {
    static const struct {
        const char *name;
        size_t halves[2];
    } where[] = {
        {"Q4_1", {0, 2}}, {"Q5_1", {0, 2}}, {"Q4_K", {0, 2}}, {"Q5_K", {0, 2}}, {"Q6_K", {208, 208}}};
    size_t halves[2] = {0, 0};
    for (size_t i = 0; i < sizeof where / sizeof *where; i++)
        if (strcmp(where[i].name, type->name) == 0)
            memcpy(halves, where[i].halves, sizeof halves);
    for (size_t i = 0; i < type->bytes; i++)
        block[i] = (unsigned char)random_below(random, 256);
    for (size_t i = 0; i < 2; i++) {
        uint16_t half = half_to_f16((float)(0.01 * random_normal(random)));
        memcpy(block + halves[i], &half, sizeof half);
    }
}

static packed packed_create(clsplat_dtype dtype, size_t rows, size_t depth, clsplat_device *device) {
    const block_type *type = block_type_named(op_dtype_name(dtype));
    random_state random = random_seed(rows + depth);
    size_t blocks = rows * depth / type->numbers, count = rows * depth;
    unsigned char *bytes = malloc((blocks + 1) * type->bytes);
    packed p = {.t = {.dtype = dtype,
                      .shape = {1, 1, rows, depth},
                      .offset = type->numbers,
                      .stride = {count, count, depth}},
                .values = malloc(count * sizeof *p.values),
                .numbers = malloc(count * sizeof *p.numbers)};
    cl_int code;
    memset(bytes, 0xff, type->bytes);
    for (size_t i = 1; i <= blocks; i++)
        fill(type, bytes + i * type->bytes, &random);
    blocks_read(type, bytes + type->bytes, count, p.numbers);
    for (size_t i = 0; i < count; i++)
        p.values[i] = (double)p.numbers[i];
    p.t.mem = clCreateBuffer(clsplat_device_context(device), CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR,
                             (blocks + 1) * type->bytes, bytes, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
    free(bytes);
    return p;
}

static void packed_free(packed *p) {
    clReleaseMemObject(p->t.mem);
    free(p->values);
    free(p->numbers);
}

/* Few rows, and many; the depth in blocks of 256, less two of 32 where a type has such. */
static const struct {
    size_t rows, columns, depth;
    clsplat_dtype a, c;
} shapes[] = {{3, 37, 2, 0, 0},
              {41, 67, 1, 0, 0},
              {1, 131, 3, CLSPLAT_F16, CLSPLAT_BF16},
              {257, 130, 1, CLSPLAT_BF16, CLSPLAT_F16},
              {6, 35, 2, 0, 0}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

START_TEST(every_row_of_the_product_is_right) {
    problem_stage stage = problem_on_stage();
    clsplat_dtype type = (clsplat_dtype)(FIRST + _i % TYPES);
    size_t rows = shapes[_i / TYPES].rows, columns = shapes[_i / TYPES].columns,
           depth = 256 * shapes[_i / TYPES].depth -
                   (block_type_named(op_dtype_name(type))->numbers == 32 ? 64 : 0);
    random_state random = random_seed(3);
    matrix a = matrix_create(shapes[_i / TYPES].a, (size_t[]){1, 1, rows, depth}, &random);
    packed b = packed_create(type, columns, depth, stage.device);
    double *reference = calloc(rows * columns, sizeof *reference);
    const clsplat_limits *limits = &stage.device->info.limits;
    bool few = false;
    size_t ran = 0;
    matrix_upload(&a, stage.device);
    naive_gemm(rows, columns, depth, a.values, b.values, reference);
    for (size_t i = 0; i < op_gemm_family.count; i++) {
        matrix c = matrix_create(shapes[_i / TYPES].c, (size_t[]){1, 1, rows, columns}, NULL);
        op_gemm_args args = {.a = a.t, .b = b.t, .c = c.t};
        matrix_upload(&c, stage.device);
        args.c.mem = c.t.mem;
        if (matrix_fits(&op_gemm_family, i, &args)) {
            matrix_run(&op_gemm_family, i, &args);
            matrix_check(&c, stage.device, reference, 2e-6, op_gemm_family.variants[i].name);
            few = few || strcmp(op_gemm_family.variants[i].name, "blocks") == 0;
            ran++;
        }
        matrix_free(&c);
    }
    if (rows <= 8 && (limits->local_memory || limits->vector_width_float >= 8))
        ck_assert_msg(few, "the row `blocks` does not fit few rows");
    ck_assert_uint_ge(ran, 2); /* plain, and one for the device */
    free(reference);
    matrix_free(&a);
    packed_free(&b);
}
END_TEST

START_TEST(rows_of_a_table_are_what_the_blocks_say) {
    enum { ROWS = 7, DEPTH = 512, IDS = 5 };
    static const int32_t ids[IDS] = {6, 0, 3, 3, 1};
    problem_stage stage = problem_on_stage();
    packed table = packed_create((clsplat_dtype)(FIRST + _i), ROWS, DEPTH, stage.device);
    matrix out = matrix_create(CLSPLAT_F32, (size_t[]){1, 1, IDS, DEPTH}, NULL);
    cl_mem list = numbers_create(ids, IDS);
    matrix_upload(&out, stage.device);
    matrix_run(&op_embed_family, 0, &(op_embed_args){.ids = list, .table = table.t, .out = out.t});
    matrix_download(&out, stage.device, "plain");
    for (size_t i = 0; i < IDS; i++)
        for (size_t d = 0; d < DEPTH; d++)
            ck_assert_msg(out.values[i * DEPTH + d] == table.values[(size_t)ids[i] * DEPTH + d],
                          "row %zu, number %zu: %.9g, not %.9g", i, d, out.values[i * DEPTH + d],
                          table.values[(size_t)ids[i] * DEPTH + d]);
    clReleaseMemObject(list);
    matrix_free(&out);
    packed_free(&table);
}
END_TEST

static void add_all(TCase *part) {
    problem_add_stage(part);
    int shapes_wanted = suite_tier_wanted() == SUITE_LONG ? SHAPES : 2;
    tcase_add_loop_test(part, every_row_of_the_product_is_right, 0, shapes_wanted * TYPES);
    tcase_add_loop_test(part, rows_of_a_table_are_what_the_blocks_say, 0, TYPES);
}

/* The rows for GPUs read blocks through the same functions: one type of each size will do. */
static void add_disguised(TCase *part) {
    problem_add_stage(part);
    for (int shape = 0; shape < 2; shape++)
        for (int type = OP_Q4_1 - FIRST; type < TYPES; type += OP_Q6_K - OP_Q4_1)
            tcase_add_loop_test(part, every_row_of_the_product_is_right, shape * TYPES + type,
                                shape * TYPES + type + 1);
    matrix_add_disguise(part);
}

int main(void) {
    static const suite_part parts[] = {{"blocks", add_all}, {"blocks as on a GPU", add_disguised}};
    return suite_run("blocks", parts, sizeof parts / sizeof *parts);
}
