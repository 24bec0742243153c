/* One fault, wherever it may strike, and then the same call again on the same handle: the numbers are those
 * of a run without a fault, to the bit. A call that says it did well during the fault has the same numbers,
 * too. Through faults.c, which the build puts beside this program. */
#include <clsplat/model.h>
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attention/problem.h"

static void (*arm)(const char *words);
static long (*alive)(void), (*calls)(void), (*commands)(void), (*injected)(void);

static clsplat *lib;
static clsplat_device *device;

static void open_stage(void) {
    lib = suite_library();
    device = suite_device(lib);
}

static void close_stage(void) {
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
    ck_assert_int_eq(alive(), 0);
}

/* Something that can be done again and again on the same handles. */
typedef struct deed {
    clsplat_status (*run)(void *user); /* what it makes goes to `made` */
    void *user, *made;
    size_t bytes;
    bool floats; /* of `made`, which is float32 */
} deed;

static void arm_at(const char *mode, long n) {
    char words[64];
    snprintf(words, sizeof words, "%s:%ld", mode, n);
    arm(words);
}

/* A launch that is refused makes the operation's row give way to a plainer one, for good: other bits, the
 * same numbers. They are what is expected from then on. */
static void check_same(const deed *d, const char *mode, long n, void *expected) {
    const float *was = expected, *is = d->made;
    if (memcmp(d->made, expected, d->bytes) == 0)
        return;
    for (size_t i = 0; i < d->bytes / sizeof *is; i++)
        ck_assert_msg(memcmp(&is[i], &was[i], sizeof *is) == 0 ||
                          (d->floats && fabsf(is[i] - was[i]) <= 1e-3f * (1 + fabsf(was[i]))),
                      "%s:%ld: status 0 with other numbers", mode, n);
    ck_assert_msg(strcmp(mode, "once") == 0, "%s:%ld: other bits", mode, n);
    suite_ok(lib, d->run(d->user));
    memcpy(expected, d->made, d->bytes);
}

static void check_one(const deed *d, const char *mode, long n, void *expected) {
    arm_at(mode, n);
    clsplat_status status = d->run(d->user);
    long struck = injected();
    arm("never");
    if (status == CLSPLAT_OK) {
        check_same(d, mode, n, expected);
        return;
    }
    ck_assert_msg(struck > 0 && clsplat_last_error(lib)[0], "%s:%ld: it fails without a fault", mode, n);
    status = d->run(d->user);
    ck_assert_msg(status == CLSPLAT_OK, "%s:%ld: again: %s", mode, n, clsplat_last_error(lib));
    check_same(d, mode, n, expected);
}

/* About `most` places among them, the first and the last always. */
static void check_mode(const deed *d, const char *mode, long count, void *expected) {
    long most = suite_tier_wanted() == SUITE_LONG ? count : 60, step = count > most ? count / most : 1;
    for (long n = 1; n <= count; n += step)
        check_one(d, mode, n, expected);
    if (count > 0)
        check_one(d, mode, count, expected);
}

/* PoCL 3.1 locks an event that it has freed when a command behind a failed one is told of it, and aborts. */
static void skip_stop(void) {
    static bool told;
    if (!told)
        suite_skipped("commands that wait for a failed event", "PoCL aborts: pocl_lock_events_inorder");
    told = true;
}

static void check_deed(const deed *d) {
    void *expected = malloc(d->bytes);
    suite_ok(lib, d->run(d->user)); /* kernels are built by now */
    arm("never");
    suite_ok(lib, d->run(d->user));
    long all = calls(), enqueued = commands();
    ck_assert_msg(all > 0 && enqueued > 0, "the faults are not between the program and the device");
    memcpy(expected, d->made, d->bytes);
    check_mode(d, "drop", enqueued, expected);
    if (strstr(clsplat_device_describe(device)->platform, "Portable Computing"))
        skip_stop();
    else
        check_mode(d, "stop", enqueued, expected);
    check_mode(d, "once", all, expected);
    free(expected);
}

// clang-format off
static const problem_spec specs[] = {
    {.heads = 2, .queries = 45, .keys = 70, .dim = 16, .value_dim = 16, .causal = true},
    {.heads = 2, .queries = 90, .keys = 90, .dim = 16, .value_dim = 16, .causal = true, .near_far = true,
     .tolerance = 0.1f, .chunk = 16},
    {.queries = 40, .keys = 60, .dim = 16, .value_dim = 16, .splats = 9, .levels = 2, .covariance = CLSPLAT_DIAGONAL},
    {.queries = 40, .keys = 60, .dim = 16, .value_dim = 16, .splats = 9, .causal = true,
     .covariance = CLSPLAT_ISOTROPIC},
};
// clang-format on
enum { SPECS = sizeof specs / sizeof *specs };

static clsplat_status attend(void *user) {
    const problem *p = user;
    return clsplat_attend(device, p->attention, problem_views(p));
}

START_TEST(attend_again) {
    problem p = problem_create(lib, &specs[_i], 7);
    problem_tensor *out = &p.tensors[PROBLEM_OUT];
    check_deed(&(deed){attend, &p, out->bytes, problem_bytes(out), true});
    problem_free(&p);
}
END_TEST

/* A guest, who hears of it by the event. */
typedef struct guest {
    problem p;
    cl_mem mem[PROBLEM_TENSORS];
} guest;

static clsplat_status attend_as_guest(void *user) {
    clsplat_status status = CLSPLAT_OK;
    guest *g = user;
    cl_event done = NULL;
    clsplat_tensor v[PROBLEM_TENSORS];
    for (int i = 0; i < PROBLEM_TENSORS; i++) {
        v[i] = g->p.tensors[i].view;
        v[i].offset =
            (size_t)((char *)v[i].host - (char *)g->p.tensors[i].bytes) / clsplat_dtype_size(v[i].dtype);
        v[i].host = NULL;
        v[i].buffer = g->mem[i];
    }
    clsplat_attention_tensors t = {.q = v[PROBLEM_Q],
                                   .k = v[PROBLEM_K],
                                   .v = v[PROBLEM_V],
                                   .out = v[PROBLEM_OUT],
                                   .lse = v[PROBLEM_LSE]};
    status = clsplat_attend_enqueue(device, g->p.attention, t, 0, NULL, &done);
    if (status != CLSPLAT_OK)
        return status;
    bool failed = clWaitForEvents(1, &done) != CL_SUCCESS;
    clReleaseEvent(done);
    if (failed) { /* told once by the event, and once by the next call that looks */
        clsplat_device_finish(device);
        return CLSPLAT_OPENCL;
    }
    const problem_tensor *out = &g->p.tensors[PROBLEM_OUT];
    return clEnqueueReadBuffer(clsplat_device_queue(device), g->mem[PROBLEM_OUT], CL_TRUE, 0,
                               problem_bytes(out), out->bytes, 0, NULL, NULL) == CL_SUCCESS
               ? CLSPLAT_OK
               : CLSPLAT_OPENCL;
}

START_TEST(a_guest_is_told_by_the_event) {
    guest g = {.p = problem_create(lib, &specs[_i], 7)};
    cl_int code = CL_SUCCESS;
    for (int i = 0; i < PROBLEM_TENSORS; i++) {
        const problem_tensor *t = &g.p.tensors[i];
        g.mem[i] = t->bytes ? clCreateBuffer(clsplat_device_context(device), CL_MEM_COPY_HOST_PTR,
                                             problem_bytes(t), t->bytes, &code)
                            : NULL;
        ck_assert_int_eq(code, CL_SUCCESS);
    }
    problem_tensor *out = &g.p.tensors[PROBLEM_OUT];
    check_deed(&(deed){attend_as_guest, &g, out->bytes, problem_bytes(out), true});
    for (int i = 0; i < PROBLEM_TENSORS; i++)
        if (g.mem[i])
            clReleaseMemObject(g.mem[i]);
    problem_free(&g.p);
}
END_TEST

enum { PROMPT = 20, WRITTEN = 6 };

typedef struct writer {
    clsplat_session *session;
    int32_t tokens[PROMPT + WRITTEN];
} writer;

/* Goes on from wherever the session is; the tokens that it has read stay what they are. */
static clsplat_status write_on(void *user) {
    clsplat_status status = CLSPLAT_OK;
    writer *w = user;
    size_t length = clsplat_session_length(w->session);
    if (length >= PROMPT + WRITTEN - 1) {
        status = clsplat_session_rewind(w->session, 0);
        length = 0;
        memset(w->tokens + PROMPT, 0, WRITTEN * sizeof *w->tokens);
    }
    if (status == CLSPLAT_OK && length < PROMPT)
        status = clsplat_session_feed(w->session, w->tokens + length, PROMPT - length, NULL);
    else if (status == CLSPLAT_OK && length > 0) { /* what comes after the last token is to be had again */
        status = clsplat_session_rewind(w->session, length - 1);
        if (status == CLSPLAT_OK)
            status = clsplat_session_feed(w->session, w->tokens + length - 1, 1, NULL);
    }
    for (size_t i = length < PROMPT ? PROMPT : length; i < PROMPT + WRITTEN && status == CLSPLAT_OK; i++) {
        status = clsplat_session_sample(w->session, clsplat_sampling_defaults(), &w->tokens[i]);
        if (status == CLSPLAT_OK && i + 1 < PROMPT + WRITTEN)
            status = clsplat_session_feed(w->session, &w->tokens[i], 1, NULL);
    }
    return status;
}

START_TEST(a_session_goes_on) {
    clsplat_model *model = NULL;
    clsplat_model_attention attention = clsplat_model_attention_defaults();
    writer w = {0};
    suite_ok(lib, clsplat_model_open(device, MODELS "/qwen3-yarn", clsplat_model_options_defaults(), &model));
    if (_i) {
        attention.method = CLSPLAT_MODEL_NEAR_FAR;
        attention.chunk = 16;
    }
    for (int32_t i = 0; i < PROMPT; i++)
        w.tokens[i] = 1 + i * 7 % 50;
    suite_ok(lib, clsplat_session_open(model, PROMPT + WRITTEN, attention, &w.session));
    check_deed(&(deed){write_on, &w, w.tokens, sizeof w.tokens, false});
    clsplat_session_close(&w.session);
    clsplat_model_close(&model);
}
END_TEST

/* Somebody else's call finds the failure; the session has to hear of it all the same. */
START_TEST(a_session_hears_of_what_another_call_found) {
    clsplat_model *model = NULL;
    clsplat_session *session = NULL;
    int32_t tokens[] = {1, 2, 3, 4}, token = 0, expected = 0;
    suite_ok(lib, clsplat_model_open(device, MODELS "/llama", clsplat_model_options_defaults(), &model));
    suite_ok(lib, clsplat_session_open(model, 8, clsplat_model_attention_defaults(), &session));
    suite_ok(lib, clsplat_session_feed(session, tokens, 4, NULL));
    suite_ok(lib, clsplat_session_sample(session, clsplat_sampling_defaults(), &expected));
    suite_ok(lib, clsplat_session_rewind(session, 2));
    arm("drop:5");
    suite_ok(lib, clsplat_session_feed(session, tokens + 2, 2, NULL));
    arm("never");
    ck_assert_int_ne(clsplat_device_finish(device), CLSPLAT_OK);
    ck_assert_int_ne(clsplat_session_sample(session, clsplat_sampling_defaults(), &token), CLSPLAT_OK);
    ck_assert_uint_eq(clsplat_session_length(session), 2);
    suite_ok(lib, clsplat_session_feed(session, tokens + 2, 2, NULL));
    suite_ok(lib, clsplat_session_sample(session, clsplat_sampling_defaults(), &token));
    ck_assert_int_eq(token, expected);
    clsplat_session_close(&session);
    clsplat_model_close(&model);
}
END_TEST

static void add_retry(TCase *part) {
    tcase_add_checked_fixture(part, open_stage, close_stage);
    tcase_add_loop_test(part, attend_again, 0, SPECS);
    tcase_add_loop_test(part, a_guest_is_told_by_the_event, 0, SPECS);
    tcase_add_loop_test(part, a_session_goes_on, 0, 2);
    tcase_add_test(part, a_session_hears_of_what_another_call_found);
}

/* The loader reads its environment before main. One that knows no layers has the same file loaded before it.
 */
static void load_layer(char **arguments) {
    char path[512] = "";
    cl_uint platforms = 0;
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 16);
    if (length <= 0)
        exit(EXIT_FAILURE);
    strcpy(strrchr(path, '/'), "/faults.so");
    if (!getenv("OPENCL_LAYERS")) {
        setenv("OPENCL_LAYERS", path, 1);
        execv("/proc/self/exe", arguments);
    }
    void *layer = dlopen(path, RTLD_NOW);
    *(void **)&arm = layer ? dlsym(layer, "faults_arm") : NULL;
    *(void **)&alive = layer ? dlsym(layer, "faults_alive") : NULL;
    *(void **)&calls = layer ? dlsym(layer, "faults_calls") : NULL;
    *(void **)&commands = layer ? dlsym(layer, "faults_commands") : NULL;
    *(void **)&injected = layer ? dlsym(layer, "faults_injected") : NULL;
    if (!arm || !alive || !calls || !commands || !injected) {
        fprintf(stderr, "%s: %s\n", path, dlerror());
        exit(EXIT_FAILURE);
    }
    clGetPlatformIDs(0, NULL, &platforms);
    if (calls() == 0 && !getenv("LD_PRELOAD")) {
        setenv("LD_PRELOAD", path, 1);
        execv("/proc/self/exe", arguments);
    }
}

int main(int count, char **arguments) {
    static const suite_part parts[] = {{"retry", add_retry}};
    (void)count;
    load_layer(arguments);
    return suite_run("retry", parts, sizeof parts / sizeof *parts);
}
