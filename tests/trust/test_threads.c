/* Several threads at once, each with a device of its own: of a library handle for each, or of one for all,
 * with one set of splats on all those devices. What threads share without knowing is tried, too: the first
 * look at platforms, the kernel cache and the tuner's records on disk, the loader, the driver. And several
 * that take turns with one device. Under ThreadSanitizer: tests/run.sh. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"

enum { THREADS = 4, ROUNDS = 3 };

// clang-format off
static const problem_spec specs[] = {
    {.heads = 2, .queries = 45, .keys = 70, .dim = 16, .value_dim = 16, .causal = true},
    {.heads = 2, .queries = 90, .keys = 90, .dim = 16, .value_dim = 16, .causal = true, .near_far = true,
     .tolerance = 0.1f, .chunk = 16},
    {.queries = 40, .keys = 60, .dim = 16, .value_dim = 16, .splats = 9, .causal = true,
     .covariance = CLSPLAT_DIAGONAL},
};
// clang-format on
enum { SPECS = sizeof specs / sizeof *specs };

/* Check's assertions may not be made outside of its own thread: what went wrong is told by `status`. */
typedef struct worker {
    pthread_t thread;
    pthread_barrier_t *start;
    clsplat *lib;
    clsplat_device *device;
    problem problems[SPECS];
    void *bits[SPECS];
    clsplat_status status;
    bool differs, misled; /* misled: clsplat_last_error had another thread's words */
    size_t number;
} worker;

/* A call that fails with words that only this thread has. */
static bool is_told_its_own(const worker *w) {
    char name[32];
    clsplat_device *none = NULL;
    snprintf(name, sizeof name, "device of thread %zu", w->number);
    bool failed = clsplat_device_open(w->lib, name, &none) == CLSPLAT_NO_DEVICE;
    return failed && strstr(clsplat_last_error(w->lib), name);
}

static void *work(void *user) {
    worker *w = user;
    pthread_barrier_wait(w->start);
    w->status = clsplat_device_open(w->lib, NULL, &w->device);
    for (int i = 0; i < ROUNDS * SPECS && w->status == CLSPLAT_OK; ++i) {
        problem *p = &w->problems[i % SPECS];
        const problem_tensor *out = &p->tensors[PROBLEM_OUT];
        w->status = clsplat_attend(w->device, p->attention, problem_views(p));
        if (i < SPECS && (w->bits[i] = malloc(problem_bytes(out))))
            memcpy(w->bits[i], out->bytes, problem_bytes(out));
        else if (i >= SPECS && memcmp(w->bits[i % SPECS], out->bytes, problem_bytes(out)) != 0)
            w->differs = true;
        w->misled = w->misled || !is_told_its_own(w);
    }
    clsplat_device_close(&w->device);
    return NULL;
}

static void check_worker(worker *w, const worker *first) {
    suite_ok(w->lib, w->status);
    ck_assert(!w->differs && !w->misled);
    for (int i = 0; i < SPECS; ++i) {
        ck_assert(memcmp(w->bits[i], first->bits[i], problem_bytes(&w->problems[i].tensors[PROBLEM_OUT])) ==
                  0);
        if (specs[i].near_far) /* near the reference, as near as its tolerance: test_near_far */
            continue;
        problem_expect(&w->problems[i]);
        problem_check(&w->problems[i]);
    }
}

/* 0: a handle for every thread; 1: one for all, and one set of splats. */
START_TEST(threads_at_once) {
    worker workers[THREADS] = {0};
    bool one = _i == 1;
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, THREADS);
    for (int t = 0; t < THREADS; ++t) {
        workers[t].start = &start;
        workers[t].number = (size_t)t;
        workers[t].lib = one && t ? workers[0].lib : suite_library();
        for (int i = 0; i < SPECS; ++i) {
            workers[t].problems[i] = problem_create(workers[t].lib, &specs[i], 20);
            if (one && workers[t].problems[i].splats)
                workers[t].problems[i].attention.splats = workers[0].problems[i].splats;
        }
    }
    for (int t = 0; t < THREADS; ++t) {
        ck_assert_int_eq(pthread_create(&workers[t].thread, NULL, work, &workers[t]), 0);
    }
    for (int t = 0; t < THREADS; ++t)
        pthread_join(workers[t].thread, NULL);
    for (int t = 0; t < THREADS; ++t)
        check_worker(&workers[t], &workers[0]);
    for (int t = 0; t < THREADS; ++t) {
        for (int i = 0; i < SPECS; ++i) {
            free(workers[t].bits[i]);
            problem_free(&workers[t].problems[i]);
        }
    }
    for (int t = 0; t < THREADS; ++t) {
        if (!one || t == 0)
            clsplat_destroy(&workers[t].lib);
    }
    pthread_barrier_destroy(&start);
}
END_TEST

/* One device whose threads take turns, each with kernels of its own. */
typedef struct chooser {
    pthread_t thread;
    pthread_mutex_t *turn;
    clsplat_device *device;
    problem problem;
    void *bits; /* of its kernels, before */
    size_t wrong;
} chooser;

static bool gives(chooser *c, void *bits) {
    const problem_tensor *out = &c->problem.tensors[PROBLEM_OUT];
    pthread_mutex_lock(c->turn);
    clsplat_status status = clsplat_attend(c->device, c->problem.attention, problem_views(&c->problem));
    pthread_mutex_unlock(c->turn);
    return status == CLSPLAT_OK && memcmp(out->bytes, bits, problem_bytes(out)) == 0;
}

static void *choose(void *user) {
    chooser *c = user;
    for (int i = 0; i < 20 * ROUNDS; ++i)
        c->wrong += !gives(c, c->bits);
    return NULL;
}

START_TEST(threads_choose_their_kernels) {
    static const char *const variants[] = {"plain", "wide"};
    enum { CHOOSERS = sizeof variants / sizeof *variants };
    clsplat *lib = suite_library();
    clsplat_device *device = NULL;
    chooser choosers[CHOOSERS] = {0};
    pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
    suite_ok(lib, clsplat_device_open(lib, NULL, &device));
    for (int t = 0; t < CHOOSERS; ++t) {
        chooser *c = &choosers[t];
        problem_spec spec = specs[0];
        spec.variant = variants[t];
        *c = (chooser){.turn = &turn, .device = device, .problem = problem_create(lib, &spec, 30)};
        problem_solve(&c->problem, device);
        c->bits = malloc(problem_bytes(&c->problem.tensors[PROBLEM_OUT]));
        memcpy(c->bits, c->problem.tensors[PROBLEM_OUT].bytes,
               problem_bytes(&c->problem.tensors[PROBLEM_OUT]));
    }
    ck_assert_msg(!clsplat_device_describe(device)->limits.cpu || !gives(&choosers[0], choosers[1].bits),
                  "both kernels give the same bits, which tells nothing");
    for (int t = 0; t < CHOOSERS; ++t)
        ck_assert_int_eq(pthread_create(&choosers[t].thread, NULL, choose, &choosers[t]), 0);
    for (int t = 0; t < CHOOSERS; ++t)
        pthread_join(choosers[t].thread, NULL);
    for (int t = 0; t < CHOOSERS; ++t) {
        ck_assert_msg(choosers[t].wrong == 0, "`%s` was another %zu times", variants[t], choosers[t].wrong);
        free(choosers[t].bits);
        problem_free(&choosers[t].problem);
    }
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
}
END_TEST

static void add_threads(TCase *part) {
    tcase_add_loop_test(part, threads_at_once, 0, 2);
    tcase_add_test(part, threads_choose_their_kernels);
}

int main(void) {
    unsetenv("CLSPLAT_CACHE");
    static const suite_part parts[] = {{"threads", add_threads}};
    return suite_run("threads", parts, sizeof parts / sizeof *parts);
}
