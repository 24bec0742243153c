/* Long runs on one handle: 10,000 calls of attend of random shapes, and 100,000 tokens of a small model.
 * Memory stays what it was, and the numbers at the end are those of the beginning, to the bit. For the long
 * tier; in others a hundredth of it. */
#include <clsplat/model.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attention/problem.h"
#include "base/random.h"

enum { CALLS = 10000, TOKENS = 100000, CONTEXT = 64 };
static const size_t allowance = 64 << 20; /* PoCL keeps a kernel for every size of work-group that it met */

static size_t much(size_t whole) {
    return suite_tier_wanted() == SUITE_LONG ? whole : whole / 100;
}

/* Bytes of this process in memory. */
static size_t resident(void) {
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    ck_assert(f && fscanf(f, "%*u %lu", &pages) == 1);
    fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* A fifth of the way is for caches to fill. */
static void check_memory(const char *what, size_t done, size_t all, size_t *settled) {
    if (done == all / 5)
        *settled = resident();
    if (done < all)
        return;
    printf("%s: %zu, %zu MiB after a fifth, %zu MiB at the end\n", what, all, *settled >> 20,
           resident() >> 20);
    if (suite_tier_wanted() == SUITE_LONG) /* before, kernels are still being compiled */
        ck_assert_uint_le(resident(), *settled + allowance);
}

static problem_spec draw(random_state *dice) {
    static const size_t dims[] = {16, 40};
    problem_spec s = {.heads = 2, .kv_heads = 1 + random_below(dice, 2)};
    s.queries = 1 + random_below(dice, 200);
    s.keys = 1 + random_below(dice, 300);
    s.dim = dims[random_below(dice, 2)];
    s.value_dim = dims[random_below(dice, 2)];
    s.causal = random_below(dice, 2) == 1;
    size_t method = random_below(dice, 3);
    if (method == 1) {
        s.near_far = true;
        s.tolerance = 0.1f;
        s.chunk = 16;
    }
    if (method == 2) {
        s.splats = 1 + random_below(dice, 20);
        s.covariance = (clsplat_covariance)random_below(dice, 3);
    }
    return s;
}

static void attend_once(problem_stage at, problem *p) {
    clsplat_status status = clsplat_attend(at.device, p->attention, problem_views(p));
    suite_ok(at.lib, status);
}

START_TEST(attend_ten_thousand_times) {
    problem_stage at = problem_on_stage();
    random_state dice = random_seed(20);
    size_t calls = much(CALLS), settled = 0, held = 0;
    problem_spec first = draw(&dice);
    problem p = problem_create(at.lib, &first, 1);
    problem_tensor *out = &p.tensors[PROBLEM_OUT];
    attend_once(at, &p);
    void *expected = malloc(problem_bytes(out));
    memcpy(expected, out->bytes, problem_bytes(out));
    for (size_t i = 1; i <= calls; ++i) {
        problem_spec spec = draw(&dice);
        problem one = problem_create(at.lib, &spec, i);
        attend_once(at, &one);
        problem_free(&one);
        if (i == calls / 5)
            held = clsplat_device_memory(at.device).now;
        check_memory("calls of attend", i, calls, &settled);
    }
    ck_assert_uint_le(clsplat_device_memory(at.device).now, 2 * held + (1 << 20));
    problem_poison(out);
    attend_once(at, &p);
    ck_assert(memcmp(expected, out->bytes, problem_bytes(out)) == 0);
    free(expected);
    problem_free(&p);
}
END_TEST

/* One text as long as the session; its tokens. */
static void write_text(clsplat *lib, clsplat_session *session, int32_t tokens[CONTEXT]) {
    suite_ok(lib, clsplat_session_rewind(session, 0));
    tokens[0] = 7;
    for (size_t i = 0; i + 1 < CONTEXT; ++i) {
        suite_ok(lib, clsplat_session_feed(session, &tokens[i], 1, NULL));
        suite_ok(lib, clsplat_session_sample(session, clsplat_sampling_defaults(), &tokens[i + 1]));
    }
}

START_TEST(a_hundred_thousand_tokens) {
    problem_stage at = problem_on_stage();
    clsplat_model *model = NULL;
    clsplat_session *session = NULL;
    int32_t first[CONTEXT], tokens[CONTEXT];
    size_t texts = much(TOKENS) / CONTEXT + 1, settled = 0;
    suite_ok(at.lib,
             clsplat_model_open(at.device, MODELS "/llama", clsplat_model_options_defaults(), &model));
    suite_ok(at.lib, clsplat_session_open(model, CONTEXT, clsplat_model_attention_defaults(), &session));
    write_text(at.lib, session, first);
    for (size_t i = 1; i <= texts; ++i) {
        write_text(at.lib, session, tokens);
        ck_assert(memcmp(first, tokens, sizeof first) == 0);
        check_memory("texts of 64 tokens", i, texts, &settled);
    }
    clsplat_session_close(&session);
    clsplat_model_close(&model);
}
END_TEST

static void add_attend(TCase *part) {
    problem_add_stage(part);
    tcase_add_test(part, attend_ten_thousand_times);
}

static void add_generate(TCase *part) {
    problem_add_stage(part);
    tcase_add_test(part, a_hundred_thousand_tokens);
}

int main(void) {
    static const suite_part parts[] = {{"attend", add_attend}, {"generate", add_generate}};
    return suite_run("long", parts, sizeof parts / sizeof *parts);
}
