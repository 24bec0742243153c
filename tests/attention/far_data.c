#include "attention/far_data.h"

#include <math.h>

#include "base/random.h"

enum { TOPICS = 48, STAYS = 12, WORDS = 150, CLUSTERS = 24, RARE = 200, MOST = 256 };
enum { STREAM_TOPIC = 1000, STREAM_WALK, STREAM_COMMON, STREAM_SINK, STREAM_WORD, STREAM_TOKEN };

/* Lengths of the parts of a key and a query. */
typedef struct lengths {
    double common, topic, word, own;
} lengths;

/* What is drawn for one head. */
typedef struct head {
    far_data data;
    uint64_t seed;
    size_t dim, tokens, voice; /* of the heads of a group, which differ in what is a query's own */
} head;

static bool has_sinks(far_data data) {
    return data >= FAR_SHORT_SINKS && data <= FAR_LONG_LOUD;
}

static bool is_long(far_data data) {
    return data == FAR_LONG_SINKS || data == FAR_LONG_LOUD;
}

static bool is_sink(const head *h, size_t token) {
    random_state r = random_stream(h->seed + STREAM_SINK, token);
    return has_sinks(h->data) && (token == 0 || (h->data != FAR_FIRST_SINK && random_below(&r, RARE) == 0));
}

/* The last change of topic at or before the token decides. */
static size_t topic_of(const head *h, size_t token) {
    for (;; token--) {
        random_state r = random_stream(h->seed + STREAM_WALK, token);
        bool changes = random_below(&r, STAYS) == 0;
        size_t to = random_below(&r, TOPICS);
        if (changes || token == 0)
            return to;
    }
}

/* Adds a random direction of about the length. */
static void add(double *x, size_t dim, double length, random_state r) {
    for (size_t d = 0; d < dim; d++)
        x[d] += length / sqrt((double)dim) * random_normal(&r);
}

/* The common part has the same length in every dimension, and the sign of a coin. */
static void add_common(const head *h, double *x, double length) {
    random_state r = random_seed(h->seed + STREAM_COMMON);
    for (size_t d = 0; d < h->dim; d++)
        x[d] += length / sqrt((double)h->dim) * (random_below(&r, 2) ? 1 : -1);
}

static random_state own(const head *h, int which, size_t token) {
    uint64_t voice = which == PROBLEM_Q ? 97 * h->voice : 0;
    return random_stream(h->seed + STREAM_TOKEN + (uint64_t)which + voice, token);
}

static void mix(const head *h, int which, size_t token, lengths l, double *x) {
    random_state r = own(h, which, token);
    uint64_t word = random_below(&r, WORDS);
    add_common(h, x, l.common);
    add(x, h->dim, l.topic, random_stream(h->seed + STREAM_TOPIC, topic_of(h, token)));
    add(x, h->dim, l.word, random_stream(h->seed + STREAM_WORD, word));
    add(x, h->dim, l.own, r);
}

static void text_key(const head *h, size_t token, double *x) {
    bool odd = h->data == FAR_ONE_LONG && token == h->tokens / 3;
    double common = odd || is_long(h->data) ? 0 : 12;
    if (!is_sink(h, token))
        mix(h, PROBLEM_K, token, (lengths){common, 7, 8, 6}, x);
    else if (is_long(h->data))
        mix(h, PROBLEM_K, token, (lengths){-33, 0, 0, 0}, x);
    else
        mix(h, PROBLEM_K, token, (lengths){h->data == FAR_FIRST_SINK ? -1.5 : 1, 0, 0, 3}, x);
    for (size_t d = 0; odd && d < h->dim; d++)
        x[d] *= 40;
}

static void text_query(const head *h, size_t token, double *x) {
    mix(h, PROBLEM_Q, token, (lengths){is_long(h->data) ? -2.5 : -7, 7, 6, 6}, x);
    for (size_t d = 0; h->data == FAR_DIFFUSE && d < h->dim; d++)
        x[d] *= 0.05;
}

/* A cluster's centre has length 8 as a key, its keys differ from it by 0.8; a query looks for an earlier key.
 */
static void tight(const head *h, int which, size_t token, double *x) {
    random_state looks = own(h, which, token);
    if (which == PROBLEM_Q)
        token = random_below(&looks, token + 1);
    random_state at = random_stream(h->seed + STREAM_WALK, token);
    double far = which == PROBLEM_K ? 1 : 3, near = which == PROBLEM_K ? 1 : 60;
    add(x, h->dim, 8 * far, random_stream(h->seed + STREAM_TOPIC, random_below(&at, CLUSTERS)));
    add(x, h->dim, 0.8 * near, own(h, PROBLEM_K, token));
}

static void value(const head *h, size_t token, double *x) {
    bool quiet = is_sink(h, token) && h->data != FAR_SHORT_LOUD && h->data != FAR_LONG_LOUD;
    double unit = sqrt((double)h->dim), scale = h->data == FAR_TINY ? 1e-25 : h->data == FAR_HUGE ? 1e19 : 1;
    bool topics = h->data != FAR_SHARP && h->data != FAR_SHARPER && h->data != FAR_DIFFUSE;
    if (topics && !quiet)
        add(x, h->dim, 0.7 * unit * scale, random_stream(h->seed + STREAM_TOPIC + 500, topic_of(h, token)));
    add(x, h->dim, (quiet ? 0.02 : topics ? 0.7 : 1) * unit * scale, own(h, PROBLEM_V, token));
}

static void draw(const head *h, int which, size_t token, double *x) {
    for (size_t d = 0; d < h->dim; d++)
        x[d] = 0;
    if (which == PROBLEM_V)
        value(h, token, x);
    else if (h->data == FAR_SHARP || h->data == FAR_SHARPER)
        add(x, h->dim, (h->data == FAR_SHARP ? 7 : 10) * sqrt((double)h->dim), own(h, which, token));
    else if (h->data == FAR_TIGHT)
        tight(h, which, token, x);
    else if (which == PROBLEM_K)
        text_key(h, token, x);
    else
        text_query(h, token, x);
}

static bool is_hidden(const problem *p, size_t b, size_t h, size_t token) {
    return p->tensors[PROBLEM_BIAS].bytes &&
           problem_get(&p->tensors[PROBLEM_BIAS], b, h, token, 0) == -INFINITY;
}

/* Query i is the one at position i + (M − N); of a group's heads each has noise of its own. */
static void fill(problem *p, far_data data, uint64_t seed, int which, size_t begin) {
    problem_tensor *t = &p->tensors[which];
    const size_t *n = t->view.shape;
    size_t group = which == PROBLEM_Q ? p->spec.heads / p->spec.kv_heads : 1, keys = p->spec.keys;
    for (size_t at = 0; at < n[0] * n[1]; at++)
        for (size_t row = 0; row < n[2]; row++) {
            double x[MOST];
            size_t b = at / n[1], i = at % n[1], token = which == PROBLEM_Q ? row + keys - n[2] : row;
            head h = {data, seed + 10000 * (b * p->spec.kv_heads + i / group), n[3], keys, i % group};
            if (token < begin || (which != PROBLEM_Q && is_hidden(p, b, i, row)))
                continue;
            draw(&h, which, token, x);
            for (size_t d = 0; d < n[3]; d++)
                problem_set(t, b, i, row, d, x[d]);
        }
}

void far_fill(problem *p, far_data data, uint64_t seed) {
    far_change(p, data, seed, 0);
}

void far_change(problem *p, far_data data, uint64_t seed, size_t begin) {
    for (int which = PROBLEM_Q; which <= PROBLEM_V; which++)
        fill(p, data, seed, which, begin);
}
