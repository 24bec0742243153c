/* clsplat attend: one attention, from a tensor file to a tensor file. */
#include <clsplat/clsplat.h>
#include <clsplat/group.h>
#include <math.h>
#include <string.h>

#include "attention/attend.h"
#include "base/clock.h"
#include "base/text.h"
#include "cli/attend.h"
#include "cli/output.h"
#include "op/variant.h"

const char *const attend_methods[] = {[CLSPLAT_SOFTMAX] = "softmax",
                                      [CLSPLAT_SPLATS] = "gaussian",
                                      [CLSPLAT_NEAR_FAR] = "near-far",
                                      [CLSPLAT_WINDOW] = "window",
                                      NULL};
static const char *const mixings[] = {[CLSPLAT_JOINT] = "joint", [CLSPLAT_PER_LEVEL] = "per-level", NULL};

static const char summary[] =
    "Reads queries q [B,H,N,D], keys k [B,Hk,M,D], values v [B,Hk,M,Dv] and, if it is there, key_bias\n"
    "[B,Hk,M] (F32, F16 or BF16 each), and writes out [B,H,N,Dv] and lse [B,H,N], both F32: exact\n"
    "softmax attention, also of the last keys only (window), the same with an error of your choice\n"
    "(near-far, which adds exact_keys and error_estimate [B,H,N]), or attention through Gaussian splats such "
    "as `clsplat init` makes.";

/* Which options go together. */
static clsplat_status check_options(cli *c, const attend_request *r, int method) {
    if (!r->output || r->output[0] == '\0')
        return cli_misuse(c, "-o is missing; it says where the result goes: -o OUT.safetensors");
    if (method == CLSPLAT_SPLATS && !r->splats)
        return cli_misuse(c,
                          "--method gaussian needs --splats SPLATS.safetensors; `clsplat init` makes them");
    if (method != CLSPLAT_SPLATS && r->splats)
        return cli_misuse(c, "--splats is for --method gaussian; leave one of the two away");
    if (method != CLSPLAT_SPLATS && r->mixing)
        return cli_misuse(c, "--mixing is for --method gaussian, which needs --splats");
    if (method == CLSPLAT_SPLATS && r->scale)
        return cli_misuse(c, "--scale is for --method softmax, near-far and window; splats have their own "
                             "width and temperature");
    if (method != CLSPLAT_WINDOW && r->window)
        return cli_misuse(c, "--window is for --method window; add that, or leave it away");
    if (method == CLSPLAT_WINDOW && !r->causal)
        return cli_misuse(c, "--method window is of the keys before a query: add --causal");
    const char *far = r->tolerance     ? "--tolerance"
                      : r->sparse_topk ? "--sparse-topk"
                      : r->chunk       ? "--chunk"
                                       : NULL;
    if (method != CLSPLAT_NEAR_FAR && far)
        return cli_misuse(c, "%s is for --method near-far; add that, or leave it away", far);
    if (r->show && (method != CLSPLAT_NEAR_FAR || c->json))
        return cli_misuse(c, "--show is for --method near-far, and for people: leave %s away",
                          c->json ? "--json" : "it");
    return CLSPLAT_OK;
}

/* How far near-far goes. */
static clsplat_status read_near_far(cli *c, const attend_request *r, clsplat_attention *attention) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t topk = 0, chunk = 0;
    TRY(cli_tolerance(c, r->tolerance, &attention->tolerance));
    TRY(cli_count(c, "--sparse-topk", r->sparse_topk, 0, &topk));
    TRY(cli_count(c, "--chunk", r->chunk, CLSPLAT_CHUNK_LEAST, &chunk));
    if (chunk > CLSPLAT_CHUNK_MOST || (chunk & (chunk - 1)))
        return cli_misuse(c, "--chunk: `%s` is not a power of two from %d to %d", r->chunk,
                          CLSPLAT_CHUNK_LEAST, CLSPLAT_CHUNK_MOST);
    if (topk && topk < CLSPLAT_CHUNK_LEAST)
        return cli_misuse(
            c,
            "--sparse-topk: `%s` is below %d, the smallest chunk, and a row's own chunk is exact; "
            "0 is no limit",
            r->sparse_topk, CLSPLAT_CHUNK_LEAST);
    if (topk && chunk > topk)
        return cli_misuse(c,
                          "--chunk %s is more than --sparse-topk %s; a row's own chunk is exact and counts",
                          r->chunk, r->sparse_topk);
    attention->sparse_topk = topk;
    attention->chunk = chunk;
fail:
    return status;
}

static clsplat_status read_variant(cli *c, const char *variant, clsplat_attention *attention) {
    clsplat_status status = CLSPLAT_OK;
    text names = {0};
    if (variant && !op_lists(attend_family(attention->method), variant, &names))
        status = cli_misuse(c, "--variant: there is no `%s`; there are %s", variant,
                            text_ok(&names) ? names.data : "others");
    attention->variant = variant;
    text_free(&names);
    return status;
}

static clsplat_status read_request(cli *c, attend_request *r, clsplat_attention *attention) {
    clsplat_status status = CLSPLAT_OK;
    int method = r->splats ? CLSPLAT_SPLATS : CLSPLAT_SOFTMAX, mixing = CLSPLAT_JOINT;
    double scale = NAN;
    uint64_t window = attention->window;
    TRY(cli_choice(c, "--method", r->method, attend_methods, &method));
    TRY(cli_choice(c, "--mixing", r->mixing, mixings, &mixing));
    TRY(cli_number(c, "--scale", r->scale, &scale));
    TRY(check_options(c, r, method));
    r->near_far = method == CLSPLAT_NEAR_FAR;
    if (r->near_far)
        TRY(read_near_far(c, r, attention));
    TRY(cli_count(c, "--window", r->window, 1, &window));
    attention->method = (clsplat_method)method;
    attention->window = window;
    attention->mixing = (clsplat_mixing)mixing;
    attention->causal = r->causal;
    attention->scale = (float)scale;
    TRY(read_variant(c, r->variant, attention));
fail:
    return status;
}

static clsplat_status compute(cli *c, clsplat_device *device, clsplat_group *group,
                              const clsplat_attention *attention, const attend_problem *p,
                              attend_cost *cost) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_attention_tensors tensors = attend_tensors(p);
    clsplat_profile_set(device, c->json || c->verbose);
    double begin = clock_seconds();
    TRY(group ? clsplat_group_attend(group, *attention, tensors)
              : clsplat_attend(device, *attention, tensors));
    cost->seconds = clock_seconds() - begin;
    if (p->grad.dout.entry) {
        begin = clock_seconds();
        TRY(clsplat_attend_backward(device, *attention, tensors, attend_grad_views(p)));
        cost->backward_seconds = clock_seconds() - begin;
    }
    cost->memory = clsplat_device_memory(device);
    TRY(clsplat_profile_read(device, &cost->kernels, &cost->kernel_count));
fail:
    return status;
}

#ifndef CLSPLAT_MPI
clsplat_status attend_over_ranks(cli *c, const attend_request *request, clsplat_attention attention) {
    (void)request, (void)attention;
    return log_error(
        c->lib, CLSPLAT_UNSUPPORTED,
        "it was started %zu times at once, and there is no MPI in it: build it with -Dmpi=enabled, or leave "
        "mpirun away",
        cli_ranks());
}
#endif

static clsplat_status attend(cli *c, attend_request *request) {
    clsplat_status status = CLSPLAT_OK;
    clsplat_device *own = NULL, *device = NULL;
    clsplat_group *group = NULL;
    attend_problem problem = {0};
    attend_cost cost = {0};
    clsplat_attention attention = clsplat_attention_defaults();
    TRY(read_request(c, request, &attention));
    if (cli_ranks() > 1)
        return attend_over_ranks(c, request, attention);
    TRY(output_check(c->lib, request->output));
    TRY(attend_load(c->lib, request, &problem));
    progress_begin(&c->progress);
    if (clsplat_group_named(c->device)) {
        if (request->grad)
            TRY(cli_misuse(c, "--grad is one device's work; --device names several"));
        TRY(clsplat_group_open(c->lib, c->device, &group));
        cost.group = group;
    } else
        TRY(clsplat_device_open(c->lib, c->device, &own));
    device = group ? clsplat_group_device(group, 0) : own;
    attention.splats = problem.splats;
    attention.progress = progress_step;
    attention.progress_user = &c->progress;
    TRY(compute(c, device, group, &attention, &problem, &cost));
    progress_clear(&c->progress);
    TRY(attend_check_result(c->lib, request, &problem));
    /* Before the file, so that a report nobody could read leaves no file either. */
    TRY(attend_report(c, device, &attention, &problem, &cost));
    if (request->show)
        TRY(attend_show(c, &attention, &problem));
    TRY(attend_save(c->lib, request, &problem));
fail:
    clsplat_profile_free(&cost.kernels);
    attend_free(&problem);
    clsplat_group_close(&group);
    clsplat_device_close(&own);
    return status;
}

clsplat_status cmd_attend(cli *c, int argc, const char **argv) {
    attend_request r = {0};
    struct poptOption near_far[] = {
        {"tolerance", 0, POPT_ARG_STRING, &r.tolerance, 0,
         "the relative error of a row that you accept; 0.02 if it is not given, 0 is exact", "X"},
        {"sparse-topk", 0, POPT_ARG_STRING, &r.sparse_topk, 0,
         "the most keys a row attends to exactly, its own chunk's included; no limit if it is not given",
         "N"},
        {"chunk", 0, POPT_ARG_STRING, &r.chunk, 0,
         "keys gathered into one tree, a power of two; the library's choice if it is not given", "C"},
        {"show", 0, POPT_ARG_NONE, &r.show, 0,
         "print how many keys the rows of each head took one by one, and which error they expect, as lines "
         "of blocks",
         NULL},
        POPT_TABLEEND,
    };
    struct poptOption splats[] = {
        {"splats", 0, POPT_ARG_STRING, &r.splats, 0, "the splats, as `clsplat init` makes them", "SPLATS"},
        {"mixing", 0, POPT_ARG_STRING, &r.mixing, 0,
         "joint or per-level: all levels under one normaliser, or each with its own", "HOW"},
        POPT_TABLEEND,
    };
    struct poptOption options[] = {
        {"output", 'o', POPT_ARG_STRING, &r.output, 0,
         "where the result goes; it appears only when it is complete", "OUT"},
        {"method", 0, POPT_ARG_STRING, &r.method, 0,
         "softmax, gaussian, near-far or window; gaussian if --splats is given, otherwise softmax", "HOW"},
        {"causal", 0, POPT_ARG_NONE, &r.causal, 0, "query i sees the keys up to i + (M - N)", NULL},
        {"scale", 0, POPT_ARG_STRING, &r.scale, 0,
         "factor on q.k for softmax, near-far and window; 1/sqrt(D) if it is not given", "X"},
        {"window", 0, POPT_ARG_STRING, &r.window, 0,
         "for --method window: how many of the last keys a query sees, its own included; 512 if it is not "
         "given",
         "N"},
        {"variant", 0, POPT_ARG_STRING, &r.variant, 0,
         "the kernels of this name where they fit, instead of the fastest: see clsplat bench; --json tells "
         "what ran",
         "ROW"},
        {"grad", 0, POPT_ARG_NONE, &r.grad, 0, "adds the gradients of the sum of out * dout; INPUT has dout",
         NULL},
        CLI_GROUP("For --method near-far:", near_far),
        CLI_GROUP("For --method gaussian:", splats),
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "INPUT.safetensors -o OUT.safetensors [OPTION...]", options,
                         .arguments = 1};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status)) {
        r.input = c->arguments[0];
        status = attend(c, &r);
    }
    cli_free(options);
    return status;
}
