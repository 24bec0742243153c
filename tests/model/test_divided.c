/* Sessions that processes hold together, as threads of one process: the same numbers as one session's, near
 * and far within its tolerance, and a failure of one is told to all. Over MPI: tests/parallel. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/session.h"
#include "suite.h"

enum { MOST = 3, TOKENS = 420, VOCABULARY = 256, TURN = 300, FIRST = 330, PIECE = 7 };

/* Where processes meet. */
typedef struct meeting {
    pthread_barrier_t all;
    size_t count;
    void *mine[MOST];
    clsplat_status said[MOST];
    float *sum;
} meeting;

/* Check's assertions may not be made outside of its own thread: what went wrong is told by `status`. */
typedef struct process {
    meeting *met; /* NULL: it is alone */
    size_t own;
    const clsplat_model_attention *how;
    const int32_t *tokens;
    bool spoils; /* its tokens are none of the model's */
    pthread_t thread;
    clsplat_status status, spoilt;
    float *logits, *again; /* [TOKENS,VOCABULARY], [TOKENS - TURN,VOCABULARY] */
    clsplat_session_statistics told;
    int32_t token;
} process;

static clsplat_status agree(void *user, clsplat_status status) {
    process *p = user;
    meeting *m = p->met;
    m->said[p->own] = status;
    pthread_barrier_wait(&m->all);
    for (size_t i = 0; i < m->count && status == CLSPLAT_OK; ++i)
        status = m->said[i];
    pthread_barrier_wait(&m->all);
    return status;
}

static clsplat_status reduce(process *p, float *numbers, size_t count, bool most) {
    meeting *m = p->met;
    m->mine[p->own] = numbers;
    pthread_barrier_wait(&m->all);
    if (p->own == 0) {
        m->sum = malloc((count + 1) * sizeof *m->sum);
        memcpy(m->sum, numbers, count * sizeof *m->sum);
        for (size_t rank = 1; rank < m->count; ++rank)
            for (size_t i = 0; i < count; ++i) {
                float x = ((const float *)m->mine[rank])[i];
                m->sum[i] = most ? fmaxf(m->sum[i], x) : m->sum[i] + x;
            }
    }
    pthread_barrier_wait(&m->all);
    memcpy(numbers, m->sum, count * sizeof *numbers);
    pthread_barrier_wait(&m->all);
    if (p->own == 0)
        free(m->sum);
    return CLSPLAT_OK;
}

static clsplat_status most(void *user, float *numbers, size_t count) {
    return reduce(user, numbers, count, true);
}

static clsplat_status sum(void *user, float *numbers, size_t count) {
    return reduce(user, numbers, count, false);
}

/* At once, a few together, one by one; back, and on from there. */
static clsplat_status read_all(process *p, clsplat_session *s) {
    clsplat_status status = CLSPLAT_OK;
    TRY(clsplat_session_feed(s, p->tokens, FIRST, p->logits));
    for (size_t at = FIRST, part; at < TOKENS; at += part) {
        part = at + PIECE < TOKENS - PIECE ? PIECE : 1;
        TRY(clsplat_session_feed(s, p->tokens + at, part, p->logits + at * VOCABULARY));
    }
    TRY(clsplat_session_statistics_read(s, &p->told));
    TRY(clsplat_session_rewind(s, TURN));
    TRY(clsplat_session_feed(s, p->tokens + TURN, TOKENS - TURN, p->again));
    TRY(clsplat_session_sample(s, clsplat_sampling_defaults(), &p->token));
    if (p->met && p->met->count > 1) {
        int32_t bad[2] = {65, p->spoils ? -1 : 66};
        TRY(clsplat_session_rewind(s, 2));
        p->spoilt = clsplat_session_feed(s, bad, 2, NULL);
        TRY(clsplat_session_rewind(s, 0));
        TRY(clsplat_session_feed(s, p->tokens, 2, NULL));
    }
fail:
    return status;
}

static void *live(void *user) {
    process *p = user;
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = NULL;
    clsplat_device *device = NULL;
    clsplat_model *model = NULL;
    clsplat_session *s = NULL;
    divided_team team = {.own = p->own, .user = p, .agree = agree, .most = most, .sum = sum};
    p->logits = malloc((size_t)TOKENS * VOCABULARY * sizeof *p->logits);
    p->again = malloc((size_t)(TOKENS - TURN) * VOCABULARY * sizeof *p->again);
    TRY(clsplat_create(clsplat_options_defaults(), &lib));
    TRY(clsplat_device_open(lib, NULL, &device));
    TRY(clsplat_model_open(device, DEMOS "/bytelm-4m", clsplat_model_options_defaults(), &model));
    if (p->met)
        team.count = p->met->count;
    TRY(session_open(model, TOKENS, p->how, p->met ? &team : NULL, false, &s));
    TRY(read_all(p, s));
fail:
    p->status = status;
    clsplat_session_close(&s);
    clsplat_model_close(&model);
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
    return NULL;
}

static void run(process *of, meeting *m, size_t count, const clsplat_model_attention *how,
                const int32_t *tokens) {
    *m = (meeting){.count = count};
    pthread_barrier_init(&m->all, NULL, (unsigned)count);
    for (size_t i = 0; i < count; ++i) {
        of[i] = (process){.met = m, .own = i, .how = how, .tokens = tokens, .spoils = i + 1 == count};
        ck_assert_int_eq(pthread_create(&of[i].thread, NULL, live, &of[i]), 0);
    }
    for (size_t i = 0; i < count; ++i)
        pthread_join(of[i].thread, NULL);
    pthread_barrier_destroy(&m->all);
}

static void end(process *of, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        free(of[i].logits);
        free(of[i].again);
    }
}

static double distance(const float *a, const float *b, size_t rows) {
    double off = 0, norm = 0;
    for (size_t i = 0; i < rows * VOCABULARY; ++i) {
        off += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(off / norm);
}

/* Of the text of a program. */
static void read_text(int32_t *tokens) {
    unsigned char bytes[TOKENS];
    FILE *file = fopen(DEMOS "/generate.c", "rb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fread(bytes, 1, TOKENS, file), TOKENS);
    fclose(file);
    for (size_t i = 0; i < TOKENS; ++i)
        tokens[i] = bytes[i];
}

/* Of one session alone, softmax: what all others are compared with. */
static process alone(const int32_t *tokens) {
    static const clsplat_model_attention exact = {.size = sizeof exact, .window = 512, .tolerance = 0.02f};
    process p = {.how = &exact, .tokens = tokens};
    live(&p);
    ck_assert_int_eq(p.status, CLSPLAT_OK);
    ck_assert_double_lt(distance(p.again, p.logits + (size_t)TURN * VOCABULARY, TOKENS - TURN), 1e-5);
    return p;
}

static const struct way {
    size_t processes;
    clsplat_model_method method;
    float tolerance;
    double off; /* from softmax alone */
} ways[] = {{1, CLSPLAT_MODEL_EXACT, 0, 1e-5},        {2, CLSPLAT_MODEL_EXACT, 0, 1e-5},
            {3, CLSPLAT_MODEL_EXACT, 0, 1e-5},        {2, CLSPLAT_MODEL_NEAR_FAR, 0, 1e-5},
            {3, CLSPLAT_MODEL_NEAR_FAR, 0, 1e-5},     {1, CLSPLAT_MODEL_NEAR_FAR, 0.02f, 0.02},
            {2, CLSPLAT_MODEL_NEAR_FAR, 0.02f, 0.02}, {3, CLSPLAT_MODEL_NEAR_FAR, 0.1f, 0.1}};

START_TEST(sessions_are_held_together) {
    const struct way *w = &ways[_i];
    int32_t tokens[TOKENS];
    process of[MOST];
    meeting m;
    clsplat_model_attention how = clsplat_model_attention_defaults();
    how.method = w->method;
    how.tolerance = w->tolerance;
    how.chunk = 16;
    read_text(tokens);
    process one = alone(tokens);
    run(of, &m, w->processes, &how, tokens);
    for (size_t i = 0; i < w->processes; ++i) {
        const float *turned = of[i].logits + (size_t)TURN * VOCABULARY;
        ck_assert_int_eq(of[i].status, CLSPLAT_OK);
        double off = distance(of[i].logits, one.logits, TOKENS),
               later = distance(of[i].again, one.again, TOKENS - TURN);
        ck_assert_msg(off < w->off && later < w->off, "off by %.1e, and %.1e after a rewind", off, later);
        ck_assert_double_lt(distance(of[i].again, turned, TOKENS - TURN), w->off);
        ck_assert_int_eq(of[i].token, one.token);
        ck_assert_mem_eq(of[i].logits, of[0].logits, (size_t)TOKENS * VOCABULARY * sizeof(float));
        ck_assert_mem_eq(of[i].again, of[0].again, (size_t)(TOKENS - TURN) * VOCABULARY * sizeof(float));
        ck_assert_double_eq(of[i].told.visible_keys, one.told.visible_keys);
        ck_assert_double_eq(of[i].told.exact_keys, of[0].told.exact_keys);
        if (w->processes > 1)
            ck_assert_int_eq(of[i].spoilt, CLSPLAT_INVALID);
    }
    double share = of[0].told.exact_keys / one.told.visible_keys;
    if (w->method == CLSPLAT_MODEL_EXACT)
        ck_assert_double_eq(share, 1);
    else
        ck_assert_msg(share <= 1 && share > 0.05 && (w->tolerance < 0.1f || share < 0.8), "%.3f of the keys",
                      share);
    if (getenv("CLSPLAT_TEST_VERBOSE"))
        printf("%zu processes, method %d to %g: off %.1e, %.3f of the keys, %llu bytes\n", w->processes,
               (int)w->method, (double)w->tolerance, distance(of[0].logits, one.logits, TOKENS), share,
               (unsigned long long)of[0].told.bytes);
    end(of, w->processes);
    end(&one, 1);
}
END_TEST

/* The same words from whoever is asked for what it does not do. */
START_TEST(what_is_not_divided_is_refused) {
    int32_t tokens[TOKENS] = {0};
    process of[MOST];
    meeting m;
    clsplat_model_attention how = clsplat_model_attention_defaults();
    how.method = CLSPLAT_MODEL_WINDOW;
    run(of, &m, 1, &how, tokens);
    ck_assert_int_eq(of[0].status, CLSPLAT_UNSUPPORTED);
    end(of, 1);
    how.method = CLSPLAT_MODEL_NEAR_FAR;
    how.sparse_topk = 64;
    run(of, &m, 1, &how, tokens);
    ck_assert_int_eq(of[0].status, CLSPLAT_UNSUPPORTED);
    end(of, 1);
}
END_TEST

static void add_divided(TCase *part) {
    tcase_add_loop_test(part, sessions_are_held_together, 0, sizeof ways / sizeof *ways);
    tcase_add_test(part, what_is_not_divided_is_refused);
}

int main(void) {
    static const suite_part parts[] = {{"divided", add_divided}};
    return suite_run("divided", parts, sizeof parts / sizeof *parts);
}
