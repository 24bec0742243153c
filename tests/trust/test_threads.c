/* Several threads at once, each with a library handle of its own, as the headers ask (one thread at a time to
 * a handle: its log and its last error are not locked, and a lock there would only hide that two calls take
 * turns on one queue). What threads share without knowing is tried here: the first look at platforms, the
 * kernel cache and the tuner's records on disk, the loader, the driver. Under ThreadSanitizer: tests/run.sh.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "attention/problem.h"

enum { THREADS = 4, ROUNDS = 3 };

static const problem_spec specs[] = {
    {.heads = 2, .queries = 45, .keys = 70, .dim = 16, .value_dim = 16, .causal = true},
    {.heads = 2,
     .queries = 90,
     .keys = 90,
     .dim = 16,
     .value_dim = 16,
     .causal = true,
     .near_far = true,
     .tolerance = 0.1f,
     .chunk = 16},
    {.queries = 40,
     .keys = 60,
     .dim = 16,
     .value_dim = 16,
     .splats = 9,
     .causal = true,
     .covariance = CLSPLAT_DIAGONAL},
};
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
    bool differs;
} worker;

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
    }
    clsplat_device_close(&w->device);
    return NULL;
}

static void check_worker(worker *w, const worker *first) {
    suite_ok(w->lib, w->status);
    ck_assert(!w->differs);
    for (int i = 0; i < SPECS; ++i) {
        ck_assert(memcmp(w->bits[i], first->bits[i], problem_bytes(&w->problems[i].tensors[PROBLEM_OUT])) ==
                  0);
        if (specs[i].near_far) /* near the reference, as near as its tolerance: test_near_far */
            continue;
        problem_expect(&w->problems[i]);
        problem_check(&w->problems[i]);
    }
}

START_TEST(a_library_handle_for_every_thread) {
    worker workers[THREADS] = {0};
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, THREADS);
    for (int t = 0; t < THREADS; ++t) {
        workers[t].start = &start;
        workers[t].lib = suite_library();
        for (int i = 0; i < SPECS; ++i)
            workers[t].problems[i] = problem_create(workers[t].lib, &specs[i], 20);
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
        clsplat_destroy(&workers[t].lib);
    }
    pthread_barrier_destroy(&start);
}
END_TEST

static void add_threads(TCase *part) {
    tcase_add_test(part, a_library_handle_for_every_thread);
}

int main(void) {
    static const suite_part parts[] = {{"threads", add_threads}};
    return suite_run("threads", parts, sizeof parts / sizeof *parts);
}
