/* Who does which part of an attention: units of heads and runs of their queries, and a thread for each device
 * that takes the next. It stays with a head while that has units left, so that its keys go to it once. */
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/text.h"
#include "parallel/group.h"

enum { UNITS = 16, LEAST_ROWS = 64 }; /* units for each device, if there are so many rows */
static const size_t probe_rows = 128, probe_keys = 2048;

typedef struct job {
    clsplat_group *group;
    const attend_call *call;
    size_t heads, pieces, rows; /* B·Hk; pieces of the queries, and rows of one */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t *begun;    /* [heads] pieces that were taken */
    size_t ready;     /* threads that have ended */
    double remaining; /* work of the units that nobody has taken */
    double done;
    bool stop;
} job;

typedef struct worker {
    job *job;
    member *member;
    pthread_t thread;
} worker;

/* Of a tensor: one batch entry, some heads, some rows. */
static clsplat_tensor part_of(clsplat_tensor t, size_t batch, const size_t heads[2], const size_t rows[2]) {
    if (!t.host)
        return t;
    t.offset += batch * t.stride[0] + heads[0] * t.stride[1] + rows[0] * t.stride[2];
    t.shape[0] = 1;
    t.shape[1] = heads[1];
    t.shape[2] = rows[1];
    return t;
}

typedef struct unit {
    size_t head, begin, rows; /* head: of batch and key heads together */
    double work;              /* pairs of rows */
} unit;

/* The longest rows first. */
static unit unit_at(const job *j, size_t head, size_t index) {
    const size_t *q = j->call->tensors.q.shape, *k = j->call->tensors.k.shape;
    unit u = {.head = head, .begin = (j->pieces - 1 - index) * j->rows};
    u.rows = q[2] - u.begin < j->rows ? q[2] - u.begin : j->rows;
    double sees = (double)k[2];
    if (j->call->attention.causal)
        sees = fmax(1, fmin(sees, (double)k[2] - (double)q[2] + (double)u.begin + (double)u.rows / 2));
    u.work = (double)u.rows * sees;
    return u;
}

/* The part of a member's call. */
static attend_call cut(const member *m, unit u, op_splats *splats) {
    attend_call call = m->call;
    clsplat_attention_tensors *t = &call.tensors;
    size_t kv_heads = t->k.shape[1], group = t->q.shape[1] / kv_heads;
    size_t batch = u.head / kv_heads, head = u.head % kv_heads;
    size_t heads[] = {head * group, group}, one[] = {head, 1}, rows[] = {u.begin, u.rows},
           keys[] = {0, t->k.shape[2]};
    clsplat_tensor *const by_query[] = {&t->q, &t->out, &t->lse, &t->exact_keys, &t->error_estimate};
    clsplat_tensor *const by_key[] = {&t->k, &t->v, &t->key_bias};
    for (size_t i = 0; i < sizeof by_query / sizeof *by_query; ++i)
        *by_query[i] = part_of(*by_query[i], batch, heads, rows);
    for (size_t i = 0; i < sizeof by_key / sizeof *by_key; ++i)
        *by_key[i] = part_of(*by_key[i], batch, one, keys);
    if (call.diagonal != OP_SEES_ALL)
        call.diagonal += (int32_t)u.begin;
    if (call.splats) {
        *splats = *call.splats;
        splats->first_head = heads[0];
        call.splats = splats;
    }
    return call;
}

/* The head whose keys a member has, while that has units left, then the one with most. With the lock held. */
static size_t head_for(const job *j, const member *m) {
    size_t most = 0;
    if (m->head < j->heads && j->begun[m->head] < j->pieces)
        return m->head;
    for (size_t head = 1; head < j->heads; ++head)
        if (j->begun[head] < j->begun[most])
            most = head;
    return most;
}

/* With the lock held. */
static bool is_all_taken(const job *j) {
    for (size_t head = 0; head < j->heads; ++head)
        if (j->begun[head] < j->pieces)
            return false;
    return true;
}

static bool is_work_left(job *j) {
    pthread_mutex_lock(&j->lock);
    bool left = !j->stop && !is_all_taken(j);
    pthread_mutex_unlock(&j->lock);
    return left;
}

/* A small part of the call into memory of its own, twice: the first time kernels are made. */
static clsplat_status measure(job *j, const member *m, double *speed) {
    clsplat_status status = CLSPLAT_OK;
    const clsplat_attention_tensors *whole = &j->call->tensors;
    size_t rows = whole->q.shape[2] < probe_rows ? whole->q.shape[2] : probe_rows;
    size_t keys = whole->k.shape[2] < probe_keys ? whole->k.shape[2] : probe_keys;
    op_splats splats;
    attend_call call = cut(m, (unit){.rows = rows}, &splats);
    clsplat_attention_tensors *t = &call.tensors;
    t->k.shape[2] = t->v.shape[2] = keys;
    if (t->key_bias.host)
        t->key_bias.shape[2] = keys;
    call.diagonal = OP_SEES_ALL;
    call.window = 0;
    call.attention.causal = false;
    size_t group = t->q.shape[1], numbers = group * rows * t->v.shape[3];
    float *out = malloc(numbers * sizeof *out);
    if (!out)
        return log_error(m->device->lib, CLSPLAT_MEMORY, "no memory for %zu numbers to measure the speed",
                         numbers);
    t->out = (clsplat_tensor){.dtype = CLSPLAT_F32,
                              .shape = {1, group, rows, t->v.shape[3]},
                              .stride = {numbers, rows * t->v.shape[3], t->v.shape[3]},
                              .host = out};
    t->lse = t->exact_keys = t->error_estimate = (clsplat_tensor){0};
    for (int i = 0; i < 2 && is_work_left(j); ++i) {
        double begin = clock_seconds();
        TRY(attend_blocks(m->device, &call));
        *speed = (double)rows * (double)keys / fmax(clock_seconds() - begin, 1e-6);
    }
fail:
    free(out);
    return status;
}

/* Whether the others, who have units of their own to end, would not be done with all that is left before this
 * one was with the next. Of those that are there the fastest always takes it, so that somebody does. */
static bool is_worth_it(const job *j, const member *m, const unit *u) {
    double others = 0, fastest = 0, left = j->remaining, now = clock_seconds();
    for (size_t i = 0; i < j->group->count; ++i) {
        const member *o = &j->group->members[i];
        if (o->left)
            continue;
        fastest = fmax(fastest, o->speed);
        if (o == m)
            continue;
        others += o->speed;
        left += fmax(0, o->doing - (now - o->since) * o->speed);
    }
    return m->speed >= fastest || u->work * others <= left * m->speed;
}

/* With the lock held. */
static bool take(job *j, member *m, unit *u) {
    if (j->stop || is_all_taken(j))
        return false;
    size_t head = head_for(j, m);
    *u = unit_at(j, head, j->begun[head]);
    if (!is_worth_it(j, m, u))
        return false;
    if (head != m->head)
        m->keys = (attend_keys){0};
    m->head = head;
    m->doing = u->work;
    m->since = clock_seconds();
    j->begun[head]++;
    j->remaining -= u->work;
    return true;
}

static void do_units(job *j, member *m) {
    unit u;
    while (m->status == CLSPLAT_OK && take(j, m, &u)) {
        op_splats splats;
        attend_call call = cut(m, u, &splats);
        call.left = &m->keys;
        pthread_mutex_unlock(&j->lock);
        double begin = clock_seconds();
        clsplat_status status = attend_blocks(m->device, &call);
        double seconds = clock_seconds() - begin;
        pthread_mutex_lock(&j->lock);
        m->status = status;
        m->doing = 0;
        m->work += u.work;
        m->seconds += seconds;
        m->units++;
        m->speed = m->work / fmax(m->seconds, 1e-6);
        m->measured = true;
        pthread_cond_broadcast(&j->changed);
        j->done += u.work;
        j->stop = j->stop || status != CLSPLAT_OK;
    }
    m->left = true;
}

/* A device that the list of devices puts lower does not begin before better ones have done a unit: its own
 * first one might take longer than all the rest, and a part small enough for a CPU's speed to be measured
 * shows but a GPU's latency. The better ones do not wait for it. */
static bool must_wait(const job *j, const member *m) {
    for (size_t i = 0; i < j->group->count; ++i) {
        const member *o = &j->group->members[i];
        if (!o->measured && !o->left && o->device->info.score > m->device->info.score)
            return true;
    }
    return false;
}

static void *in_thread(void *user) {
    worker *w = user;
    job *j = w->job;
    double speed = 0;
    clsplat_status status = j->group->count > 1 ? measure(j, w->member, &speed) : CLSPLAT_OK;
    pthread_mutex_lock(&j->lock);
    w->member->status = status;
    w->member->speed = speed;
    while (must_wait(j, w->member))
        pthread_cond_wait(&j->changed, &j->lock);
    do_units(j, w->member);
    if (w->member->status != CLSPLAT_OK)
        w->member->words = text_copy(clsplat_last_error(j->group->lib));
    j->ready++;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

/* With the lock held, until all have ended; the caller's callback is called by the caller's thread. */
static void watch(job *j, size_t threads) {
    const clsplat_attention *a = &j->call->attention;
    while (j->ready < threads) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&j->changed, &j->lock, &until);
        double share = fmin(j->done / j->group->total, 1);
        pthread_mutex_unlock(&j->lock);
        bool go_on = !a->progress || a->progress(a->progress_user, share);
        pthread_mutex_lock(&j->lock);
        j->stop = j->stop || !go_on;
    }
}

/* A device whose thread does not start has left. */
static clsplat_status run(job *j) {
    clsplat_group *g = j->group;
    worker *workers = calloc(g->count, sizeof *workers);
    size_t threads = 0;
    if (!workers)
        return log_error(g->lib, CLSPLAT_MEMORY, "no memory for %zu threads", g->count);
    pthread_mutex_lock(&j->lock);
    for (size_t i = 0; i < g->count; ++i) {
        workers[threads] = (worker){.job = j, .member = &g->members[i]};
        if (pthread_create(&workers[threads].thread, NULL, in_thread, &workers[threads]) == 0) {
            ++threads;
            continue;
        }
        g->members[i].left = true;
    }
    watch(j, threads);
    pthread_mutex_unlock(&j->lock);
    for (size_t i = 0; i < threads; ++i)
        pthread_join(workers[i].thread, NULL);
    free(workers);
    return threads > 0 ? CLSPLAT_OK : log_error(g->lib, CLSPLAT_MEMORY, "no thread starts");
}

/* The first device's that failed, in its words; or that not all was done. */
static clsplat_status outcome(const job *j) {
    for (size_t i = 0; i < j->group->count; ++i) {
        const member *m = &j->group->members[i];
        if (m->status != CLSPLAT_OK)
            return log_error(j->group->lib, m->status, "%s: %s", m->device->info.name,
                             m->words ? m->words : clsplat_status_text(m->status));
    }
    if (!is_all_taken(j))
        return log_error(j->group->lib, CLSPLAT_CANCELLED, "stopped by the caller");
    return CLSPLAT_OK;
}

static clsplat_status prepare(member *m, clsplat_attention attention, clsplat_attention_tensors tensors) {
    clsplat_status status = CLSPLAT_OK;
    attention.progress = NULL;
    TRY(attend_check(m->device, attention, tensors, true, &m->call));
    m->speed = m->work = m->seconds = m->doing = 0;
    m->units = 0;
    m->head = SIZE_MAX;
    m->measured = m->left = false;
    m->status = CLSPLAT_OK;
fail:
    return status;
}

/* Splats and trees are a head's: only softmax is cut along queries. */
static void cut_rows(job *j) {
    const clsplat_attention_tensors *t = &j->call->tensors;
    size_t queries = t->q.shape[2], wanted = UNITS * j->group->count;
    j->heads = t->k.shape[0] * t->k.shape[1];
    j->rows = queries;
    if (!j->call->splats && j->call->attention.method != CLSPLAT_NEAR_FAR && j->group->count > 1) {
        size_t pieces = (wanted + j->heads - 1) / j->heads;
        j->rows = (queries + pieces - 1) / pieces;
        j->rows = j->rows < LEAST_ROWS ? LEAST_ROWS : (j->rows + LEAST_ROWS - 1) / LEAST_ROWS * LEAST_ROWS;
    }
    j->pieces = (queries + j->rows - 1) / j->rows;
}

clsplat_status clsplat_group_attend_sized(clsplat_group *group, const clsplat_attention *attention_given,
                                          const clsplat_attention_tensors *tensors_given) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_attention attention;
    clsplat_attention_tensors tensors;
    attend_call whole;
    job j = {.group = group, .call = &whole};
    pthread_mutex_init(&j.lock, NULL);
    pthread_cond_init(&j.changed, NULL);
    TRY(attend_read(group->lib, attention_given, tensors_given, &attention, &tensors));
    for (size_t i = 0; i < group->count; ++i)
        TRY(prepare(&group->members[i], attention, tensors));
    whole = group->members[0].call;
    whole.attention.progress = attention.progress;
    cut_rows(&j);
    j.begun = calloc(j.heads, sizeof *j.begun);
    if (!j.begun)
        TRY(log_error(group->lib, CLSPLAT_MEMORY, "no memory for the counts of %zu heads", j.heads));
    for (size_t i = 0; i < j.pieces; ++i)
        j.remaining += (double)j.heads * unit_at(&j, 0, i).work;
    group->total = j.remaining;
    TRY(run(&j));
    TRY(outcome(&j));
fail:
    free(j.begun);
    for (size_t i = 0; i < group->count; ++i) {
        free(group->members[i].words);
        group->members[i].words = NULL;
    }
    pthread_cond_destroy(&j.changed);
    pthread_mutex_destroy(&j.lock);
    return status;
}
