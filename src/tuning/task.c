#include "tuning/task.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "op/choose.h"

static const op_variant *variant_of(const tuning_task *c, size_t row) {
    return &c->verified.timed.family->variants[row];
}

static tune_point point_of(const tuning_task *c, tune_candidate candidate) {
    return tune_point_at(variant_of(c, candidate.row)->space, candidate.index);
}

static tune_shape timed_shape(const tuning_task *c) {
    tune_shape shape;
    c->verified.timed.family->shape(&c->verified.timed.args, &shape);
    return shape;
}

static double pairs(const tune_shape *s) {
    return (double)s->heads * (double)s->rows * (double)s->sources;
}

tune_record task_record(const tuning_task *c, tune_candidate candidate, double seconds) {
    const op_variant *v = variant_of(c, candidate.row);
    tune_shape timed = timed_shape(c);
    tune_point point = point_of(c, candidate);
    tune_record r = {.shape = c->shape,
                     .seconds = seconds * pairs(&c->shape) / pairs(&timed),
                     .error = c->errors[candidate.row][candidate.index],
                     .source = op_source_hash(v),
                     .on = c->on};
    text words = {0};
    tune_point_write(v->space, &point, &words);
    snprintf(r.op, sizeof r.op, "%s", c->verified.timed.family->name);
    snprintf(r.variant, sizeof r.variant, "%s", v->name);
    snprintf(r.parameters, sizeof r.parameters, "%s", text_ok(&words) ? words.data : "");
    text_free(&words);
    return r;
}

static bool has_crashed(const tuning_task *c, const tune_record *candidate) {
    for (size_t i = 0; i < c->db->count; ++i) {
        const tune_record *r = &c->db->records[i];
        if (isinf(r->seconds) && strcmp(r->op, candidate->op) == 0 &&
            strcmp(r->variant, candidate->variant) == 0 &&
            strcmp(r->parameters, candidate->parameters) == 0 && r->source == candidate->source &&
            tune_device_match(&r->on, &c->on) == TUNE_SAME)
            return true;
    }
    return false;
}

/* The first run; its error goes to *error. */
static clsplat_status try_first(tuning_task *c, tune_candidate candidate, double *error) {
    clsplat_status status = CLSPLAT_OK;
    tune_point point = point_of(c, candidate);
    text line = {0};
    *error = 0; /* for the journal */
    tune_record record = task_record(c, candidate, INFINITY);
    tune_record_write(&record, &line);
    if (has_crashed(c, &record))
        TRY(log_error(c->lib, CLSPLAT_UNSUPPORTED, "it crashed before"));
    if (!text_ok(&line))
        TRY(log_error(c->lib, CLSPLAT_MEMORY, "no memory for the journal"));
    log_info(c->lib, "trying %s: %s %s", c->words, record.variant, record.parameters);
    TRY(tune_journal_begin(c->lib, c->journal, line.data));
    status = verify_row(&c->verified, variant_of(c, candidate.row), &point, error);
    tune_journal_end(c->journal);
fail:
    if (status != CLSPLAT_OK) {
        *error = INFINITY;
        log_info(c->lib, "rejected %s: %s %s: %s", c->words, record.variant, record.parameters,
                 log_quiet_words(c->lib));
    }
    text_free(&line);
    return status;
}

static double evaluate(void *user, tune_candidate candidate) {
    tuning_task *c = user;
    clsplat_status status = CLSPLAT_OK;
    double *error = &c->errors[candidate.row][candidate.index], seconds = INFINITY;
    tune_point point = point_of(c, candidate);
    log_quiet_begin(c->lib);
    if (isnan(*error))
        status = try_first(c, candidate, error);
    if (status == CLSPLAT_OK)
        status = verify_time(&c->verified, variant_of(c, candidate.row), &point, &seconds);
    log_quiet_end(c->lib);
    return status == CLSPLAT_OK ? seconds : INFINITY;
}

size_t task_known(const tuning_task *c, const tune_database *db, tune_candidate *known, size_t limit) {
    const op_family *family = c->verified.timed.family;
    size_t count = 0;
    for (int match = TUNE_SAME; match < TUNE_FOREIGN; ++match)
        for (size_t i = 0; i < db->count && count < limit; ++i) {
            const tune_record *r = &db->records[i];
            op_choice choice;
            if (strcmp(r->op, family->name) != 0 || !isfinite(r->seconds) ||
                (int)tune_device_match(&r->on, &c->on) != match ||
                !op_choice_of(family, &c->device->info.limits, r, &c->verified.timed.args, &choice))
                continue;
            known[count++] = (tune_candidate){
                choice.row, tune_point_index(family->variants[choice.row].space, &choice.point)};
        }
    return count;
}

clsplat_status task_open(tuning_task *c, const example_kind *kind, const example_shape *shape,
                         tune_search *search) {
    clsplat_status status = CLSPLAT_OK;
    c->lib = c->device->lib;
    c->on = tune_device_of(&c->device->info);
    TRY(verify_create(c->device, kind, shape, &c->verified));
    c->shape = timed_shape(c);
    tune_shape_round(&c->shape);
    const op_family *family = c->verified.timed.family;
    assert(family->count <= TUNE_ROWS);
    search->rows = family->count;
    search->user = c;
    search->evaluate = evaluate;
    for (size_t r = 0; r < family->count; ++r) {
        const op_variant *v = &family->variants[r];
        size_t size = tune_space_size(v->space);
        if (!verify_fits(&c->verified, v))
            continue;
        c->errors[r] = malloc(size * sizeof *c->errors[r]);
        if (!c->errors[r])
            TRY(log_error(c->lib, CLSPLAT_MEMORY, "no memory for %zu candidates", size));
        for (size_t i = 0; i < size; ++i)
            c->errors[r][i] = NAN;
        search->spaces[r] = v->space;
        c->points += size;
    }
fail:
    return status;
}

void task_close(tuning_task *c) {
    for (size_t r = 0; r < TUNE_ROWS; ++r)
        free(c->errors[r]);
    verify_free(&c->verified);
}
