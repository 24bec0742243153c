/* clsplat plan: what a context would take, before it is run. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "base/text.h"
#include "cli/plan.h"
#include "cli/report.h"
#include "model/folder.h"

static const char summary[] = "Says, before it is run, what reading a context of N tokens with MODEL would "
                              "take on each of so many devices or ranks: memory, bytes sent, "
                              "and seconds. --devices lists their numbers, as 1,8,64; 64*H200 is 64 devices "
                              "whose name has `H200`, by the tuner's records of them. The "
                              "device that is here is timed on the model's own shapes; under mpirun the "
                              "network is, too. Softmax attention goes in a ring, as `mpirun "
                              "clsplat attend` does it, splats by one exchange of states.";

enum { ITEMS = 32 };
typedef struct plan_request {
    char *context, *devices, *network, *splats, *dtype;
} plan_request;

static const char *const dtypes[] = {"f32", "f16", "bf16", NULL};

/* What the weights have. */
static clsplat_status weigh(cli *c, const char *model, double *bytes) {
    clsplat_status status = CLSPLAT_OK;
    model_folder *folder = NULL;
    TRY(model_folder_open(c->lib, model, &folder));
    *bytes = 0;
    for (size_t i = 0; model_folder_at(folder, i).entry; ++i)
        *bytes += (double)model_folder_at(folder, i).entry->bytes;
fail:
    model_folder_close(&folder);
    return status;
}

static clsplat_status read_model(cli *c, const plan_request *r, plan_model *m) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t context = 0, splats = 0;
    int dtype = 0;
    if (!r->context)
        return cli_misuse(c, "--context N is needed: for how many tokens?");
    TRY(cli_count(c, "--context", r->context, 1, &context));
    TRY(cli_count(c, "--splats", r->splats, 1, &splats));
    TRY(cli_choice(c, "--dtype", r->dtype, dtypes, &dtype));
    m->context = (double)context;
    m->splats = (double)splats;
    m->dtype = dtype == 0 ? CLSPLAT_F32 : dtype == 1 ? CLSPLAT_F16 : CLSPLAT_BF16;
    TRY(model_config_load(c->lib, c->arguments[0], &m->config));
    if (!m->config.frequencies)
        TRY(log_error(c->lib, CLSPLAT_UNSUPPORTED, "%s: is an encoder; models that write are planned for",
                      c->arguments[0]));
    TRY(weigh(c, c->arguments[0], &m->weight_bytes));
fail:
    return status;
}

plan_step plan_step_of(const plan_model *m, const plan_speed *speed, const plan_network *network,
                       size_t ranks) {
    enum { CHUNK = 512, CACHE_BYTES = 4 };
    const model_config *f = &m->config;
    double layers = (double)f->layers, others = (double)ranks - 1, part = m->context / (double)ranks;
    double token = 2 * (double)(f->kv_heads * f->head_dim) * CACHE_BYTES; /* of a layer's cache */
    double state = (double)f->heads * m->splats * (double)(f->head_dim + 2) * CACHE_BYTES;
    double rows = (double)f->heads * (double)f->head_dim, chunk = part < CHUNK ? part : CHUNK;
    plan_step s = {.ranks = ranks};
    s.memory = m->weight_bytes + layers * (m->splats > 0 ? state : part * token) +
               4 * chunk * (4 * (double)f->hidden + 3 * rows + 3 * (double)f->intermediate);
    if (ranks > 1)
        s.memory += m->splats > 0 ? 2 * state : 2 * part * token;
    s.traffic = ranks > 1 ? layers * (m->splats > 0 ? state : others * part * token) : 0;
    s.products = layers * speed->token * part;
    s.attention =
        layers * speed->pair * (m->splats > 0 ? part : m->context * (m->context + 1) / 2 / (double)ranks);
    if (ranks > 1)
        s.network = s.traffic / network->rate + layers * (m->splats > 0 ? 1 : others) * network->latency;
    s.seconds = s.products + (m->splats > 0 ? s.attention + s.network : fmax(s.attention, s.network));
    return s;
}

/* COUNT or COUNT*NAME. */
static clsplat_status read_item(cli *c, char *item, uint64_t *count, const char **name) {
    char *star = strchr(item, '*');
    *name = star ? star + 1 : NULL;
    if (star)
        *star = '\0';
    return cli_count(c, "--devices", item, 1, count);
}

static void print(const plan_model *m, const plan_speed *speed, const plan_step *s) {
    char memory[REPORT_BYTES], traffic[REPORT_BYTES];
    printf("%zu × %s: %s of memory each, %s sent by each; %.4g s to read %.0f tokens", s->ranks,
           speed->device, report_bytes((uint64_t)s->memory, memory),
           report_bytes((uint64_t)s->traffic, traffic), s->seconds, m->context);
    printf(" (products %.3g, attention %.3g, network %.3g)", s->products, s->attention, s->network);
    if (s->ranks == 1 && isfinite(speed->single))
        printf("; then %.4g s a token", speed->single);
    printf("\n");
}

static json_t *json_of(const plan_speed *speed, const plan_step *s) {
    json_t *o = json_pack("{s:I, s:o, s:f, s:f, s:f, s:f, s:f, s:f}", "ranks", (json_int_t)s->ranks, "device",
                          report_text(speed->device), "memory_bytes", s->memory, "sent_bytes", s->traffic,
                          "products_seconds", s->products, "attention_seconds", s->attention,
                          "network_seconds", s->network, "seconds", s->seconds);
    if (s->ranks == 1 && isfinite(speed->single))
        o = json_put(o, "token_seconds", report_number(speed->single));
    return o;
}

static clsplat_status plan_all(cli *c, const plan_model *m, char *devices, const plan_network *network) {
    clsplat_status status = CLSPLAT_OK;
    plan_speed here = {0}, speed;
    json_t *list = json_array();
    char *rest = NULL;
    for (char *item = strtok_r(devices, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
        const char *name;
        uint64_t count = 1;
        TRY(read_item(c, item, &count, &name));
        if (!name && !here.device[0])
            TRY(plan_time(c, m, &here));
        speed = here;
        if (name)
            TRY(plan_look_up(c, m, name, &speed));
        plan_step step = plan_step_of(m, &speed, network, (size_t)count);
        if (c->json)
            list = json_push(list, json_of(&speed, &step));
        else
            print(m, &speed, &step);
    }
    if (c->json) {
        json_t *report =
            json_pack("{s:f, s:f, s:b, s:o}", "network_bytes_per_second", network->rate, "network_latency",
                      network->latency, "network_measured", network->measured, "plans", list);
        list = NULL;
        return report_json(c, report);
    }
    printf("network: %.3g GB/s and %.3g µs a message, %s\n", 1e-9 * network->rate, 1e6 * network->latency,
           network->measured ? "measured" : "assumed: --network, or mpirun, which measures it");
    status = cli_flush(c);
fail:
    json_decref(list);
    return status;
}

#ifndef CLSPLAT_MPI
clsplat_status plan_measure_network(cli *c, plan_network *network) {
    (void)network;
    return log_error(c->lib, CLSPLAT_UNSUPPORTED,
                     "there is no MPI in it: build it with -Dmpi=enabled, or leave mpirun away");
}
#endif

static clsplat_status plan(cli *c, const plan_request *r) {
    clsplat_status status = CLSPLAT_OK;
    plan_network network = {.rate = 12.5e9, .latency = 5e-6};
    uint64_t rate = 0;
    plan_model m = {0};
    char *devices = text_copy(r->devices ? r->devices : "1");
    if (cli_ranks() > 1)
        TRY(plan_measure_network(c, &network));
    if (c->quiet)
        goto fail; /* the first rank says it */
    TRY(cli_size(c, "--network", r->network, &rate));
    if (rate > 0)
        network = (plan_network){.rate = (double)rate, .latency = network.latency};
    if (!devices)
        TRY(log_error(c->lib, CLSPLAT_MEMORY, "no memory for a list of devices"));
    TRY(read_model(c, r, &m));
    TRY(plan_all(c, &m, devices, &network));
fail:
    model_config_free(&m.config);
    free(devices);
    return status;
}

clsplat_status cmd_plan(cli *c, int argc, const char **argv) {
    plan_request r = {0};
    struct poptOption options[] = {
        {"context", 0, POPT_ARG_STRING, &r.context, 0, "tokens that are read", "N"},
        {"devices", 0, POPT_ARG_STRING, &r.devices, 0, "how many, one plan each; 1", "COUNT[*NAME],..."},
        {"network", 0, POPT_ARG_STRING, &r.network, 0, "bytes a second between ranks; 12.5e9", "SIZE"},
        {"splats", 0, POPT_ARG_STRING, &r.splats, 0, "attention through so many splats a head", "N"},
        {"dtype", 0, POPT_ARG_STRING, &r.dtype, 0, "that it is computed in; f32", "f32|f16|bf16"},
        POPT_TABLEEND,
    };
    cli_syntax syntax = {summary, "MODEL --context N [OPTION...]", options, .arguments = 1};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = plan(c, &r);
    cli_free(options);
    return status;
}
