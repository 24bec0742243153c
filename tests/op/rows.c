#include "op/rows.h"

#include <assert.h>
#include <string.h>

#include "attention/problem.h"
#include "op/families.h"
#include "runtime/device.h"

/* Kinds of devices: any; CPUs with wide vectors; those with local memory of their own and groups of 128, or
 * that claim them. */
enum { ANY = 1, WIDE = 2, GROUPS = 4 };

/* The plain row of every family is judged everywhere. Who else judges a row that a test over its table cannot
 * run: matrix units are emulated by test_tiny under Oclgrind, causal reads take a whole attention, CLBlast
 * need not be there, test_blocks has blocks, and rows of near-far for matrix units run where there are such
 * units (test_judged), in local memory in test_forest.
 */
enum { TINY = 0, GAUSSIAN = 0, OPTIONAL = 0, BLOCKS = 0, GPU = 0, FOREST = 0 };

// clang-format off
static const struct {
    const char *family, *row;
    unsigned kinds;
} expected[] = {
    {"softmax", "wide", WIDE}, {"softmax", "split", WIDE}, {"softmax", "local", GROUPS}, {"softmax", "units", TINY},
    {"softmax", "mma", TINY}, {"softmax", "wgmma", TINY}, {"softmax", "few", GROUPS},
    {"write", "wide", WIDE}, {"write", "local", GROUPS}, {"write", "mma", TINY}, {"write", "wgmma", TINY},
    {"scan", "columns", GROUPS},
    {"log_density", "wide", WIDE}, {"log_density", "local", GROUPS},
    {"read", "wide", WIDE}, {"read", "local", GROUPS}, {"read", "causal-wide", GAUSSIAN}, {"read", "mma", TINY},
    {"read", "wgmma", TINY}, {"read", "causal-local", GAUSSIAN},
    {"gemm", "wide", WIDE}, {"gemm", "local", GROUPS}, {"gemm", "few", WIDE | GROUPS}, {"gemm", "mma", TINY},
    {"gemm", "units", TINY}, {"gemm", "wgmma", TINY}, {"gemm", "clblast", OPTIONAL}, {"gemm", "blocks", BLOCKS},
    {"gemm_transposed", "wgmma", TINY},
    {"near_far", "wide", WIDE}, {"near_far", "split", WIDE}, {"near_far", "local", FOREST}, {"near_far", "units", GPU},
    {"near_far", "mma", GPU},
    {"near_far", "wgmma", GPU},
    {"norm", "group", GROUPS},
    {"score", "group", GROUPS},
    {"rope", "pairs", GROUPS},
};
// clang-format on
enum { EXPECTED = sizeof expected / sizeof *expected, ROWS_LIMIT = 16, FAMILIES_LIMIT = 64, PARTS_LIMIT = 8 };

static bool ran[FAMILIES_LIMIT][ROWS_LIMIT];
static const op_family *const *judged[PARTS_LIMIT];
static size_t parts;

static size_t number_of(const op_family *family) {
    size_t n = 0;
    while (op_families[n] != family)
        n++;
    ck_assert_uint_lt(n, FAMILIES_LIMIT);
    return n;
}

void rows_ran(const op_family *family, size_t row) {
    ck_assert_uint_lt(row, ROWS_LIMIT);
    ran[number_of(family)][row] = true;
}

START_TEST(begin) {
    memset(ran, 0, sizeof ran);
}
END_TEST

/* From bare limits, not from what a `fits` calls. */
static unsigned kind_of(const clsplat_limits *limits) {
    if (limits->local_memory)
        return limits->max_work_group >= 128 ? ANY | GROUPS : ANY;
    return limits->vector_width_float >= 8 && limits->max_work_group >= 128 ? ANY | WIDE : ANY;
}

static void check_row(const op_family *family, size_t row) {
    const char *name = family->variants[row].name;
    unsigned kind = kind_of(&problem_on_stage().device->info.limits);
    bool plain = strcmp(name, "plain") == 0;
    size_t i = 0;
    while (!plain && i < EXPECTED &&
           (strcmp(expected[i].family, family->name) != 0 || strcmp(expected[i].row, name) != 0))
        i++;
    ck_assert_msg(i < EXPECTED, "tests/op/rows.c does not say where the row `%s` of %s is judged", name,
                  family->name);
    ck_assert_msg(!(plain || expected[i].kinds & kind) || ran[number_of(family)][row],
                  "the row `%s` of %s never ran here: does its `fits` still say yes?", name, family->name);
}

START_TEST(every_row_ran) {
    const op_family *const *family = judged[_i];
    for (; *family; family++)
        for (size_t row = 0; row < (*family)->count; row++)
            check_row(*family, row);
}
END_TEST

void rows_begin(TCase *part) {
    tcase_add_test(part, begin);
}

void rows_end(TCase *part, const op_family *const *families) {
    assert(parts < PARTS_LIMIT);
    judged[parts] = families;
    tcase_add_loop_test(part, every_row_ran, (int)parts, (int)parts + 1);
    parts++;
}
