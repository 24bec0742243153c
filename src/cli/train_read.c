/* What train and distill are told alike: how long, how, on which texts, and how often to save. */
#include <inttypes.h>
#include <string.h>

#include "base/number.h"
#include "cli/train.h"

/* Steps, or with a letter behind it time. */
clsplat_status train_read_budget(cli *c, const char *value, train_settings *s) {
    static const char units[] = "smhd";
    static const double seconds[] = {1, 60, 3600, 86400};
    char *end = NULL;
    if (!value)
        return CLSPLAT_OK;
    double number = number_read(value, &end);
    const char *unit = *end && !end[1] ? strchr(units, *end) : NULL;
    if (end == value || !(number > 0) || !(number < 1e9) || (*end && !unit) ||
        (!unit && number != (double)(uint64_t)number))
        return cli_misuse(
            c, "--budget: `%s` is neither a number of steps, as 1000, nor a time, as 90s, 20m, 8h or 2d",
            value);
    s->steps = unit ? 0 : (size_t)number;
    s->seconds = unit ? number * seconds[unit - units] : 0;
    return CLSPLAT_OK;
}

clsplat_status train_read_numbers(cli *c, const train_options *o, train_settings *s) {
    clsplat_status status = CLSPLAT_OK;
    uint64_t context = s->context, batch = s->batch, accumulate = s->accumulate;
    TRY(cli_count(c, "--context", o->context, 2, &context));
    TRY(cli_count(c, "--batch", o->batch, 1, &batch));
    TRY(cli_count(c, "--accumulate", o->accumulate, 1, &accumulate));
    TRY(cli_count(c, "--seed", o->seed, 0, &s->seed));
    TRY(cli_number(c, "--rate", o->rate, &s->rate));
    s->context = context;
    s->batch = batch;
    s->accumulate = accumulate;
    if (o->dtype && !train_type_named(o->dtype, &s->type))
        return cli_misuse(c, "--dtype: `%s` is neither auto, f32 nor bf16", o->dtype);
    if (s->rate < 0)
        return cli_misuse(c, "--rate: `%s` is below 0", o->rate);
fail:
    return status;
}

/* The last part of the text, unless there are files for that. */
static clsplat_status split(cli *c, const train_options *o, corpus *data, corpus *held, size_t context) {
    enum { PARTS = 50, MOST = 1 << 20 };
    const char *const paths[] = {o->validation};
    if (o->validation)
        return corpus_add(c->lib, paths, 1, o->match, held);
    size_t count = data->count / PARTS < MOST ? data->count / PARTS : MOST;
    count = count < 2 * context ? 2 * context : count;
    if (data->count < 4 * count)
        return CLSPLAT_OK;
    while (count < data->count / 2 && (data->bytes[data->count - count] & 0xc0) == 0x80)
        ++count; /* no character is cut */
    data->count -= count;
    *held = (corpus){.bytes = data->bytes + data->count, .count = count};
    return CLSPLAT_OK;
}

clsplat_status train_read_texts(cli *c, const train_options *o, const train_settings *s, size_t first,
                                corpus *data, corpus *held) {
    clsplat_status status = CLSPLAT_OK;
    size_t count = 0;
    while (first + count < CLI_ARGUMENTS && c->arguments[first + count])
        ++count;
    TRY(corpus_add(c->lib, (const char *const *)c->arguments + first, count, o->match, data));
    TRY(split(c, o, data, held, s->context));
    log_info(c->lib, "%zu files, %zu skipped; %zu bytes to learn from, %zu held out", data->files,
             data->skipped, data->count, held->count);
fail:
    return status;
}

clsplat_status train_read_saving(cli *c, const train_options *o, train_request *r) {
    clsplat_status status = CLSPLAT_OK;
    enum { EVERY = 300, REPORT = 10, VALIDATION = 1 << 16 };
    train_settings every = {0};
    uint64_t keep = 0;
    TRY(train_read_budget(c, o->save, &every));
    r->save_steps = every.steps;
    r->save_every = o->save ? every.seconds : EVERY;
    TRY(cli_count(c, "--keep", o->keep, 0, &keep));
    r->keep = keep;
    r->report_every = REPORT;
    TRY(cli_number(c, "--report", o->report, &r->report_every));
    r->validation_most = VALIDATION;
    r->again = o->recompute;
    r->folder = o->folder;
fail:
    return status;
}

void train_free_texts(const train_options *o, corpus *data, corpus *held) {
    if (!o->validation)
        held->bytes = NULL; /* data's */
    corpus_free(held);
    corpus_free(data);
}
