#include <math.h>

#include "naive.h"

void naive_norm(size_t columns, double epsilon, const double *x, const double *weight, double *out) {
    double sum = 0;
    for (size_t d = 0; d < columns; d++)
        sum += x[d] * x[d];
    for (size_t d = 0; d < columns; d++)
        out[d] = weight[d] * x[d] / sqrt(sum / (double)columns + epsilon);
}

void naive_layer_norm(size_t columns, double epsilon, const double *x, const double *weight,
                      const double *shift, double *out) {
    double mean = 0, sum = 0;
    for (size_t d = 0; d < columns; d++)
        mean += x[d] / (double)columns;
    for (size_t d = 0; d < columns; d++)
        sum += (x[d] - mean) * (x[d] - mean);
    for (size_t d = 0; d < columns; d++)
        out[d] = weight[d] * (x[d] - mean) / sqrt(sum / (double)columns + epsilon) + shift[d];
}

void naive_rope(size_t dim, double position, const double *frequencies, double factor, const double *x,
                double *out) {
    for (size_t d = 0; d < dim / 2; d++) {
        double c = factor * cos(position * frequencies[d]), s = factor * sin(position * frequencies[d]);
        double a = x[d], b = x[d + dim / 2];
        out[d] = a * c - b * s;
        out[d + dim / 2] = b * c + a * s;
    }
}

double naive_activate(naive_activation f, double cap, double x) {
    static const double root = 0.79788456080286535588; /* √(2/π) */
    switch (f) {
    case NAIVE_IDENTITY:
        return x;
    case NAIVE_SILU:
        return x / (1 + exp(-x));
    case NAIVE_GELU:
        return 0.5 * x * erfc(-x / sqrt(2));
    case NAIVE_GELU_TANH:
        return 0.5 * x * (1 + tanh(root * (x + 0.044715 * x * x * x)));
    case NAIVE_RELU:
        return x > 0 ? x : 0;
    case NAIVE_TANH:
        return tanh(x);
    case NAIVE_SOFT_CAP:
        return cap * tanh(x / cap);
    }
    return NAN;
}

double naive_score(size_t count, const double *logits, size_t target, bool *greedy) {
    double top = -INFINITY, sum = 0;
    size_t first = 0;
    for (size_t v = 0; v < count; v++)
        if (logits[v] > top) {
            top = logits[v];
            first = v;
        }
    for (size_t v = 0; v < count; v++)
        sum += exp(logits[v] - top);
    *greedy = first == target;
    return logits[target] - top - log(sum);
}

/* Tokens that are at least as probable as v, and what they weigh together. */
static size_t rank_of(size_t count, const double *weight, size_t v, double *above) {
    size_t better = 0;
    *above = 0;
    for (size_t u = 0; u < count; u++)
        if (weight[u] > weight[v]) {
            better++;
            *above += weight[u];
        }
    return better;
}

void naive_sample(size_t count, const double *logits, const naive_sampling *sampling, double *probability) {
    double top = -INFINITY, whole = 0, above, kept = 0;
    for (size_t v = 0; v < count; v++)
        top = fmax(top, logits[v]);
    for (size_t v = 0; v < count; v++)
        probability[v] = exp((logits[v] - top) / sampling->temperature);
    double *keep = probability + count;
    for (size_t v = 0; v < count; v++) {
        keep[v] = sampling->top_k == 0 || rank_of(count, probability, v, &above) < sampling->top_k;
        whole += keep[v] * probability[v];
    }
    for (size_t v = 0; v < count; v++) {
        rank_of(count, probability, v, &above);
        keep[v] *= above < sampling->top_p * whole;
        kept += keep[v] * probability[v];
    }
    for (size_t v = 0; v < count; v++)
        probability[v] *= keep[v] / kept;
}

double naive_relative_error(size_t count, const double *x, const double *goal) {
    double off = 0, all = 0;
    for (size_t i = 0; i < count; i++) {
        off += (x[i] - goal[i]) * (x[i] - goal[i]);
        all += goal[i] * goal[i];
    }
    return all > 0 ? off / all : 0;
}

double naive_divergence(size_t count, const double *x, const double *goal) {
    double sum = 0;
    bool greedy;
    double lse = x[0] - naive_score(count, x, 0, &greedy);
    double goal_lse = goal[0] - naive_score(count, goal, 0, &greedy);
    for (size_t i = 0; i < count; i++) {
        double p = goal[i] - goal_lse;
        sum += exp(p) * (p - (x[i] - lse));
    }
    return sum;
}
