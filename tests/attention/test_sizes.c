/* Programs that were compiled with older headers, or with newer ones: structs that begin with their size. */
#include <stddef.h>
#include <string.h>

#include "attention/problem.h"

static const problem_spec spec = {.heads = 2,
                                  .queries = 20,
                                  .keys = 30,
                                  .dim = 8,
                                  .value_dim = 8,
                                  .causal = true,
                                  .splats = 5,
                                  .covariance = CLSPLAT_DIAGONAL};

/* What an older program has: a struct that ends earlier, and memory of its own behind. */
enum { ROOM = 4096, GUARD = 0x5a };
typedef union old_struct {
    size_t size;
    unsigned char bytes[ROOM];
} old_struct;

static old_struct old_of(const void *whole, size_t size) {
    old_struct old;
    memset(&old, GUARD, sizeof old);
    memcpy(&old, whole, size);
    old.size = size;
    return old;
}

static void check_guard(const old_struct *old) {
    for (size_t i = old->size; i < ROOM; i++)
        ck_assert_uint_eq(old->bytes[i], GUARD);
}

START_TEST(an_older_program_goes_on) {
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, &spec, 1);
    problem_tensor *out = &p.tensors[PROBLEM_OUT];
    clsplat_attention_tensors tensors = problem_views(&p);
    suite_ok(s.lib, clsplat_attend(s.device, p.attention, tensors));
    void *bits = malloc(problem_bytes(out));
    memcpy(bits, out->bytes, problem_bytes(out));
    problem_poison(out);
    old_struct attention = old_of(&p.attention, offsetof(clsplat_attention, window)),
               views = old_of(&tensors, offsetof(clsplat_attention_tensors, exact_keys));
    suite_ok(s.lib, clsplat_attend_sized(s.device, (void *)&attention, (void *)&views));
    ck_assert_mem_eq(bits, out->bytes, problem_bytes(out));
    check_guard(&attention);
    free(bits);
    problem_free(&p);
}
END_TEST

/* Defaults and results are written as far as the program's struct goes, and no further. */
START_TEST(no_more_is_written_than_there_is_room_for) {
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, &spec, 1);
    clsplat_attention now = clsplat_attention_defaults();
    old_struct old = old_of(&(clsplat_attention){.size = 0}, offsetof(clsplat_attention, tolerance));
    clsplat_attention_defaults_sized((void *)&old);
    check_guard(&old);
    ck_assert_uint_eq(old.size, offsetof(clsplat_attention, tolerance));
    ck_assert_uint_eq(((clsplat_attention *)&old)->window, now.window);
    old = old_of(&(clsplat_splats_parameters){.size = 0}, offsetof(clsplat_splats_parameters, log_amplitude));
    clsplat_splats_get_sized(p.splats, (void *)&old);
    check_guard(&old);
    ck_assert_ptr_eq(((clsplat_splats_parameters *)&old)->mean, clsplat_splats_get(p.splats).mean);
    problem_free(&p);
}
END_TEST

/* What a newer program knows more is 0, or asks for what is not there yet. */
START_TEST(a_newer_program_is_told) {
    problem_stage s = problem_on_stage();
    problem p = problem_create(s.lib, &spec, 1);
    clsplat_attention_tensors tensors = problem_views(&p);
    old_struct newer = {.size = sizeof(clsplat_attention) + 24};
    tensors.size = sizeof tensors;
    clsplat_attention_defaults_sized((void *)&newer);
    for (size_t i = sizeof(clsplat_attention); i < newer.size; i++)
        ck_assert_uint_eq(newer.bytes[i], 0);
    memcpy(&newer, &p.attention, sizeof p.attention);
    newer.size = sizeof(clsplat_attention) + 24;
    suite_ok(s.lib, clsplat_attend_sized(s.device, (void *)&newer, &tensors));
    newer.bytes[newer.size - 1] = 1;
    ck_assert_int_eq(clsplat_attend_sized(s.device, (void *)&newer, &tensors), CLSPLAT_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(s.lib), "attention has "));
    newer.size = 0;
    ck_assert_int_eq(clsplat_attend_sized(s.device, (void *)&newer, &tensors), CLSPLAT_INVALID);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(s.lib), "attention.size is 0"));
    problem_free(&p);
}
END_TEST

static void add_all(TCase *part) {
    problem_add_stage(part);
    tcase_add_test(part, an_older_program_goes_on);
    tcase_add_test(part, no_more_is_written_than_there_is_room_for);
    tcase_add_test(part, a_newer_program_is_told);
}

int main(void) {
    static const suite_part parts[] = {{"sizes", add_all}};
    return suite_run("sizes", parts, sizeof parts / sizeof *parts);
}
