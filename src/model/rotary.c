#include "model/rotary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum { CONTEXT_LIMIT = 1 << 30 };
static const double THETA_DEFAULT = 10000, THETA_LIMIT = 1e12, FACTOR_LIMIT = 1e6;
static const double PI = 3.14159265358979323846;

/* A scaling under way: where its keys are, and what all kinds know. */
typedef struct scaling {
    json_place at;
    const json_place *root;
    model_config *config;
    double theta;
} scaling;

static double frequency(const scaling *s, size_t i) {
    return 1 / pow(s->theta, (double)(2 * i) / (double)s->config->head_dim);
}

static clsplat_status read_factor(const scaling *s, double *factor) {
    return json_double(&s->at, "factor", JSON_NEEDED, 1, FACTOR_LIMIT, factor);
}

static clsplat_status plain(const scaling *s) {
    for (size_t i = 0; i < s->config->head_dim / 2; ++i)
        s->config->frequencies[i] = (float)frequency(s, i);
    return CLSPLAT_OK;
}

static clsplat_status linear(const scaling *s) {
    clsplat_status status = CLSPLAT_OK;
    double factor = 1;
    TRY(read_factor(s, &factor));
    for (size_t i = 0; i < s->config->head_dim / 2; ++i)
        s->config->frequencies[i] = (float)(frequency(s, i) / factor);
fail:
    return status;
}

/* Nothing changes up to the context; beyond, keys that were turned already would have to be turned anew. */
static clsplat_status dynamic(const scaling *s) {
    s->config->context_is_end = true;
    return plain(s);
}

static clsplat_status read_original(const scaling *s, double *original) {
    clsplat_status status = CLSPLAT_OK;
    const char *key = "original_max_position_embeddings";
    size_t positions = s->config->context;
    TRY(json_size(s->root, key, JSON_OPTIONAL, 1, CONTEXT_LIMIT, &positions));
    TRY(json_size(&s->at, key, JSON_OPTIONAL, 1, CONTEXT_LIMIT, &positions));
    *original = (double)positions;
fail:
    return status;
}

static clsplat_status llama3(const scaling *s) {
    clsplat_status status = CLSPLAT_OK;
    double factor = 1, low = 1, high = 4, original = 0;
    TRY(read_factor(s, &factor));
    TRY(json_double(&s->at, "low_freq_factor", JSON_NEEDED, 1e-6, FACTOR_LIMIT, &low));
    TRY(json_double(&s->at, "high_freq_factor", JSON_NEEDED, 1e-6, FACTOR_LIMIT, &high));
    TRY(read_original(s, &original));
    if (high <= low)
        return json_refuse(&s->at, CLSPLAT_FORMAT, "high_freq_factor", "must be above low_freq_factor");
    for (size_t i = 0; i < s->config->head_dim / 2; ++i) {
        double f = frequency(s, i), turns = original * f / (2 * PI); /* within the original context */
        double smooth = fmin(fmax((turns - low) / (high - low), 0), 1);
        s->config->frequencies[i] = (float)((1 - smooth) * f / factor + smooth * f);
    }
fail:
    return status;
}

static double yarn_magnitude(double factor, double by) {
    return factor <= 1 ? 1 : 0.1 * by * log(factor) + 1;
}

/* The column whose frequency makes so many turns within the original context. */
static double yarn_column(const scaling *s, double turns, double original) {
    return (double)s->config->head_dim * log(original / (turns * 2 * PI)) / (2 * log(s->theta));
}

static clsplat_status yarn_factor(const scaling *s, double factor) {
    clsplat_status status = CLSPLAT_OK;
    double magnitude = 0, all = 0, given = 0;
    TRY(json_double(&s->at, "attention_factor", JSON_OPTIONAL, 1e-6, FACTOR_LIMIT, &given));
    TRY(json_double(&s->at, "mscale", JSON_OPTIONAL, 0, FACTOR_LIMIT, &magnitude));
    TRY(json_double(&s->at, "mscale_all_dim", JSON_OPTIONAL, 0, FACTOR_LIMIT, &all));
    if (given == 0)
        given = magnitude > 0 && all > 0 ? yarn_magnitude(factor, magnitude) / yarn_magnitude(factor, all)
                                         : yarn_magnitude(factor, 1);
    s->config->attention_scaling = (float)given;
fail:
    return status;
}

static clsplat_status yarn(const scaling *s) {
    clsplat_status status = CLSPLAT_OK;
    double factor = 1, fast = 32, slow = 1, original = 0, last = (double)s->config->head_dim - 1;
    bool truncate = true;
    TRY(read_factor(s, &factor));
    TRY(json_double(&s->at, "beta_fast", JSON_OPTIONAL, 1e-6, FACTOR_LIMIT, &fast));
    TRY(json_double(&s->at, "beta_slow", JSON_OPTIONAL, 1e-6, FACTOR_LIMIT, &slow));
    TRY(json_bool(&s->at, "truncate", &truncate));
    TRY(read_original(s, &original));
    TRY(yarn_factor(s, factor));
    double low = yarn_column(s, fast, original), high = yarn_column(s, slow, original);
    low = fmax(truncate ? floor(low) : low, 0);
    high = fmin(truncate ? ceil(high) : high, last);
    if (low == high)
        high += 0.001;
    for (size_t i = 0; i < s->config->head_dim / 2; ++i) {
        double ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1), f = frequency(s, i);
        s->config->frequencies[i] = (float)(ramp * f / factor + (1 - ramp) * f);
    }
fail:
    return status;
}

static clsplat_status longrope_divide(const scaling *s, const char *key, float *frequencies) {
    size_t half = s->config->head_dim / 2;
    const json_t *divisors = json_object_get(s->at.object, key);
    if (!json_is_array(divisors) || json_array_size(divisors) != half)
        return json_refuse(&s->at, CLSPLAT_FORMAT, key, "must be a list of head_dim / 2 = %zu numbers", half);
    for (size_t i = 0; i < half; ++i) {
        double divisor = json_number_value(json_array_get(divisors, i));
        if (!(divisor >= 1e-6 && divisor <= FACTOR_LIMIT))
            return json_refuse(&s->at, CLSPLAT_FORMAT, key, "has entry %zu that is no number from 1e-6 to %g",
                               i, FACTOR_LIMIT);
        frequencies[i] = (float)(frequency(s, i) / divisor);
    }
    return CLSPLAT_OK;
}

/* Frequencies for texts within the original context, and others for longer ones. */
static clsplat_status longrope(const scaling *s) {
    clsplat_status status = CLSPLAT_OK;
    model_config *c = s->config;
    double original = 0, factor = 0, given = 0;
    TRY(read_original(s, &original));
    factor = fmax((double)c->context / original, 1);
    TRY(json_double(&s->at, "factor", JSON_OPTIONAL, 1, FACTOR_LIMIT, &factor));
    TRY(json_double(&s->at, "attention_factor", JSON_OPTIONAL, 1e-6, FACTOR_LIMIT, &given));
    c->attention_scaling = (float)(given > 0 ? given : sqrt(1 + log(factor) / log(fmax(original, 2))));
    c->short_context = (size_t)original;
    TRY(longrope_divide(s, "short_factor", c->frequencies));
    TRY(longrope_divide(s, "long_factor", c->frequencies + c->head_dim / 2));
fail:
    return status;
}

static const struct {
    const char *name;
    clsplat_status (*fill)(const scaling *s);
} kinds[] = {
    {"default", plain}, {"linear", linear}, {"dynamic", dynamic},
    {"llama3", llama3}, {"yarn", yarn},     {"longrope", longrope},
};

static clsplat_status fill(const scaling *s, const char *kind) {
    clsplat_status status = CLSPLAT_OK;
    double part = 1;
    TRY(json_double(&s->at, "partial_rotary_factor", JSON_OPTIONAL, 0, 1, &part));
    if (part != 1)
        return json_refuse(&s->at, CLSPLAT_UNSUPPORTED, "partial_rotary_factor",
                           "is %g: only heads that are turned as a whole are supported", part);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; ++i)
        if (strcmp(kinds[i].name, kind) == 0)
            return kinds[i].fill(s);
    return json_refuse(&s->at, CLSPLAT_UNSUPPORTED, "rope_type",
                       "is '%s'; default, linear, dynamic, llama3, yarn and longrope are supported",
                       text_show(kind).bytes);
fail:
    return status;
}

/* Two places that differ: the reader of the file is told which one counts. */
static void warn_of_both(const json_place *root, const char *one, const json_t *a, const char *other,
                         const json_t *b) {
    bool same = json_is_number(a) && json_is_number(b) ? json_number_value(a) == json_number_value(b)
                                                       : json_equal(a, b);
    if (a && b && !json_is_null(a) && !json_is_null(b) && !same)
        log_warning(root->lib, "%s: keys %s and %s differ; %s counts, as in transformers 5", root->path, one,
                    other, one);
}

static bool is_empty(const json_t *object) {
    return !object || json_is_null(object) || (json_is_object(object) && json_object_size(object) == 0);
}

/* Newer files keep everything in rope_parameters, older ones theta at the root and the rest in rope_scaling,
 * with `type` for rope_type. Where both are, the older one counts unless it is empty, and within it rope_type
 * and its own theta. */
static clsplat_status read_place(scaling *s, const json_place *root, const char **kind) {
    clsplat_status status = CLSPLAT_OK;
    const json_t *old = json_object_get(root->object, "rope_scaling"),
                 *new = json_object_get(root->object, "rope_parameters");
    const char *key = is_empty(old) ? "rope_parameters" : "rope_scaling";
    if (!json_has(root, key))
        return CLSPLAT_OK;
    s->at.object = json_object_get(root->object, key);
    s->at.prefix = is_empty(old) ? "rope_parameters." : "rope_scaling.";
    if (!json_is_object(s->at.object))
        return json_refuse(root, CLSPLAT_FORMAT, key, "must be an object");
    if (!is_empty(old) && !is_empty(new))
        warn_of_both(root, "rope_scaling", old, "rope_parameters", new);
    warn_of_both(root, is_empty(old) ? "rope_parameters.rope_theta" : "rope_scaling.rope_theta",
                 json_object_get(s->at.object, "rope_theta"), "rope_theta",
                 json_object_get(root->object, "rope_theta"));
    warn_of_both(root, is_empty(old) ? "rope_parameters.rope_type" : "rope_scaling.rope_type",
                 json_object_get(s->at.object, "rope_type"), "type", json_object_get(s->at.object, "type"));
    if (json_has(&s->at, "full_attention") || json_has(&s->at, "sliding_attention"))
        return json_refuse(root, CLSPLAT_UNSUPPORTED, key, "differs from layer to layer");
    TRY(json_word(&s->at, "type", JSON_OPTIONAL, kind));
    TRY(json_word(&s->at, "rope_type", JSON_OPTIONAL, kind));
    TRY(json_double(&s->at, "rope_theta", JSON_OPTIONAL, 1.0001, THETA_LIMIT, &s->theta));
fail:
    return status;
}

/* A place of its own for layers of a kind, as newer files have it. */
static clsplat_status read_nested(scaling *s, const json_place *root, const char *key, const char **kind) {
    clsplat_status status = CLSPLAT_OK;
    const json_t *all = json_object_get(root->object, "rope_parameters");
    if (is_empty(json_object_get(all, key)))
        return CLSPLAT_OK;
    s->at.object = json_object_get(all, key);
    s->at.prefix = strcmp(key, "full_attention") == 0 ? "rope_parameters.full_attention."
                                                      : "rope_parameters.sliding_attention.";
    if (!json_is_object(s->at.object))
        return json_refuse(root, CLSPLAT_FORMAT, "rope_parameters", "must hold objects");
    TRY(json_word(&s->at, "rope_type", JSON_OPTIONAL, kind));
    TRY(json_double(&s->at, "rope_theta", JSON_OPTIONAL, 1.0001, THETA_LIMIT, &s->theta));
fail:
    return status;
}

/* Layers with a window have plain frequencies of their own: the second ones. Older files have rope_theta and
 * rope_scaling for the others, and rope_local_base_freq. */
static clsplat_status load_both(const json_place *root, model_config *c) {
    clsplat_status status = CLSPLAT_OK;
    const char *kind = "default", *local_kind = "default";
    bool nested = !is_empty(json_object_get(root->object, "rope_parameters"));
    scaling s = {.at = *root, .root = root, .config = c, .theta = 1e6};
    scaling local = {.at = *root, .root = root, .config = c, .theta = THETA_DEFAULT};
    TRY(json_double(root, "rope_local_base_freq", JSON_OPTIONAL, 1.0001, THETA_LIMIT, &local.theta));
    if (nested)
        TRY(read_nested(&local, root, "sliding_attention", &local_kind));
    TRY(json_double(root, "rope_theta", JSON_OPTIONAL, 1.0001, THETA_LIMIT, &s.theta));
    TRY(nested ? read_nested(&s, root, "full_attention", &kind) : read_place(&s, root, &kind));
    if (strcmp(local_kind, "default") != 0)
        return json_refuse(&local.at, CLSPLAT_UNSUPPORTED, "rope_type", "is '%s'; only default is supported",
                           text_show(local_kind).bytes);
    if (strcmp(kind, "default") != 0 && strcmp(kind, "linear") != 0)
        return json_refuse(&s.at, CLSPLAT_UNSUPPORTED, "rope_type",
                           "is '%s'; default and linear are supported", text_show(kind).bytes);
    TRY(plain(&local));
    memcpy(c->frequencies + c->head_dim / 2, c->frequencies, c->head_dim / 2 * sizeof *c->frequencies);
    TRY(fill(&s, kind));
fail:
    return status;
}

clsplat_status rotary_load(const json_place *root, model_config *config) {
    clsplat_status status = CLSPLAT_OK;
    const char *kind = "default";
    scaling s = {.at = *root, .root = root, .config = config, .theta = THETA_DEFAULT};
    config->attention_scaling = 1;
    config->frequencies = calloc(config->head_dim, sizeof *config->frequencies);
    if (!config->frequencies)
        return log_error(root->lib, CLSPLAT_MEMORY, "%s: no memory for frequencies", root->path);
    if (config->local_turn)
        return load_both(root, config);
    TRY(json_double(root, "rope_theta", JSON_OPTIONAL, 1.0001, THETA_LIMIT, &s.theta));
    if (json_has(root, "partial_rotary_factor"))
        TRY(fill(&s, "default"));
    TRY(read_place(&s, root, &kind));
    TRY(fill(&s, kind));
fail:
    return status;
}
