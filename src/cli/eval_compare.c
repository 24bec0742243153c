/* A text read with every attention in turn: near-far first, the others with as many keys as it took. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/eval.h"
#include "cli/report.h"

/* What is known of one attention. */
typedef struct rival {
    const char *name, *words;
    clsplat_model_method method;
    double bits, share, *errors; /* [layers] */
} rival;

enum { RIVALS = 5 };

/* How many keys, at most, each of the first `rows` tokens of a text may have so that they have the share of
 * what they see. */
static size_t keys_of(double share, size_t rows) {
    double wanted = share * (double)rows * ((double)rows + 1) / 2;
    size_t low = 1, high = rows;
    while (low < high) {
        size_t middle = (low + high) / 2;
        double keys = (double)middle * ((double)rows - ((double)middle - 1) / 2);
        if (keys < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static clsplat_status run(const language *l, eval_reading *r, size_t keys, int number, rival *x) {
    clsplat_status status = CLSPLAT_OK;
    language one = *l;
    one.attention.method = x->method;
    one.attention.measure_errors = true;
    if (number > 0)
        one.attention.window = one.attention.sparse_topk = keys;
    TRY(eval_reading_run(&one, (language_span){(double)number / RIVALS, (double)(number + 1) / RIVALS}, r));
    x->bits = eval_reading_bits(r);
    x->share = eval_share(&r->cost);
    for (size_t i = 0; i < l->info->layers; ++i)
        x->errors[i] = r->errors[i];
fail:
    return status;
}

/* Near-far's error of a layer, beside what float32 rounds. */
static bool is_above(const language *l, const rival *x, size_t layer) {
    return !(x->errors[layer] <= (double)l->attention.tolerance + 1e-5);
}

/* The layers that do not keep what was asked of near-far. */
static json_t *above_json(const language *l, const rival *x) {
    json_t *above = json_array();
    for (size_t i = 0; i < l->info->layers; ++i)
        if (is_above(l, x, i))
            above = json_push(above, json_integer((json_int_t)i));
    return above;
}

static void print_above(const language *l, const rival *x) {
    size_t count = 0;
    for (size_t i = 0; i < l->info->layers; ++i)
        count += is_above(l, x, i);
    if (count == 0) {
        printf("near-far: no layer's error is above the tolerance of %g\n", (double)l->attention.tolerance);
        return;
    }
    printf("near-far: above the tolerance of %g %s", (double)l->attention.tolerance,
           count == 1 ? "is the error of layer" : "are the errors of layers");
    for (size_t i = 0, said = 0; i < l->info->layers; ++i)
        if (is_above(l, x, i))
            printf("%s%zu", said++ ? ", " : " ", i);
    printf("\n");
}

static json_t *rival_json(const language *l, const rival *x) {
    json_t *errors = json_array();
    for (size_t i = 0; i < l->info->layers; ++i)
        errors = json_push(errors, report_number(x->errors[i]));
    return json_pack("{s:s, s:o, s:o, s:o}", "attention", x->name, "bits_per_byte", report_number(x->bits),
                     "exact_keys_share", report_number(x->share), "errors", errors);
}

static clsplat_status report(const language *l, const eval_reading *r, const rival rivals[RIVALS]) {
    cli *c = l->c;
    double exact = rivals[1].bits;
    progress_clear(&c->progress);
    if (c->json) {
        json_t *all = json_array();
        for (int i = 0; i < RIVALS; ++i)
            all = json_push(all, rival_json(l, &rivals[i]));
        return report_json(c, json_pack("{s:I, s:I, s:o, s:o, s:o}", "tokens", (json_int_t)r->scored,
                                        "context", (json_int_t)r->window, "device",
                                        report_text(clsplat_device_describe(l->device)->name), "attentions",
                                        all, "layers_above_tolerance", above_json(l, &rivals[0])));
    }
    printf("%-38s %9s %9s %7s   error of each layer\n", "", "bits/byte", "", "keys");
    for (int i = 0; i < RIVALS; ++i) {
        const rival *x = &rivals[i];
        printf("%-38s %9.4f %+8.2f%% %6.1f%%  ", x->words, x->bits, 100 * (x->bits / exact - 1),
               100 * x->share);
        for (size_t layer = 0; layer < l->info->layers; ++layer)
            printf(" %.3f", x->errors[layer]);
        printf("\n");
    }
    print_above(l, &rivals[0]);
    return cli_flush(c);
}

clsplat_status eval_compare(const language *l, const char *path) {
    clsplat_status status = CLSPLAT_OK;
    size_t layers = l->info->layers;
    double *errors = calloc(RIVALS * layers, sizeof *errors);
    eval_reading r;
    rival rivals[RIVALS] = {
        {"near-far", "near-far", CLSPLAT_MODEL_NEAR_FAR, 0, 0, NULL},
        {"softmax", "exact", CLSPLAT_MODEL_EXACT, 0, 0, NULL},
        {"window", "the last keys only", CLSPLAT_MODEL_WINDOW, 0, 0, NULL},
        {"topk", "the keys of the largest scores", CLSPLAT_MODEL_TOPK, 0, 0, NULL},
        {"blocks", "blocks of the largest mean scores", CLSPLAT_MODEL_BLOCKS, 0, 0, NULL},
    };
    TRY(eval_reading_begin(l, path, &r));
    r.errors = calloc(layers, sizeof *r.errors);
    if (!errors || !r.errors)
        TRY(log_error(l->c->lib, CLSPLAT_MEMORY, "there is no memory for the errors of %zu layers", layers));
    for (int i = 0; i < RIVALS; ++i) {
        rivals[i].errors = errors + (size_t)i * layers;
        TRY(run(l, &r, keys_of(rivals[0].share, r.window), i, &rivals[i]));
    }
    TRY(report(l, &r, rivals));
fail:
    eval_reading_end(&r);
    free(errors);
    return status;
}
