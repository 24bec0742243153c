#include "report/tuning_story.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "format/json.h"

/* "TILE=128 RT=4". */
static void read_settings(tuning_try *t) {
    for (const char *at = t->record->parameters; *at && t->count < TUNING_PARAMETERS;) {
        size_t word = strcspn(at, " "), name = strcspn(at, "= ");
        if (name < word) {
            tuning_setting *s = &t->settings[t->count++];
            snprintf(s->name, sizeof s->name, "%.*s", (int)(name < TUNING_NAME ? name : TUNING_NAME - 1), at);
            s->value = strtod(at + name + 1, NULL);
        }
        at += word + (at[word] == ' ');
    }
}

static bool same_group(const tune_record *a, const tune_record *b) {
    return strcmp(a->op, b->op) == 0 && memcmp(&a->shape, &b->shape, sizeof a->shape) == 0 &&
           tune_device_match(&a->on, &b->on) == TUNE_SAME;
}

static int by_time(const void *a, const void *b) {
    double x = ((const tuning_try *)a)->record->seconds, y = ((const tuning_try *)b)->record->seconds;
    return (x > y) - (x < y);
}

static size_t champion_of(const tuning_story *s, const tuning_group *g) {
    const tune_record *best = g->count ? tune_database_same(&s->best, g->tries[0].record) : NULL;
    for (size_t i = 0; best && i < g->count; ++i)
        if (strcmp(g->tries[i].record->variant, best->variant) == 0 &&
            strcmp(g->tries[i].record->parameters, best->parameters) == 0)
            return i;
    return g->count > g->rejected ? 0 : SIZE_MAX;
}

static size_t differences(const tuning_try *a, const tuning_try *b) {
    size_t count = 0;
    if (strcmp(a->record->variant, b->record->variant) != 0 || a->count != b->count)
        return SIZE_MAX;
    for (size_t i = 0; i < a->count; ++i)
        count += a->settings[i].value < b->settings[i].value || a->settings[i].value > b->settings[i].value;
    return count;
}

static clsplat_status fill_group(clsplat *lib, const tuning_story *s, const tune_record *like,
                                 tuning_group *g) {
    g->tries = calloc(s->tried.count + 1, sizeof *g->tries);
    if (!g->tries)
        return log_error(lib, CLSPLAT_MEMORY, "there is no memory for %zu candidates", s->tried.count);
    for (size_t i = 0; i < s->tried.count; ++i) {
        const tune_record *r = &s->tried.records[i];
        if (!same_group(r, like))
            continue;
        g->tries[g->count] = (tuning_try){.record = r};
        read_settings(&g->tries[g->count++]);
        g->rejected += !isfinite(r->seconds);
    }
    qsort(g->tries, g->count, sizeof *g->tries, by_time);
    g->champion = champion_of(s, g);
    for (size_t i = 0; i < g->count; ++i)
        g->tries[i].differs =
            g->champion == SIZE_MAX ? SIZE_MAX : differences(&g->tries[i], &g->tries[g->champion]);
    return CLSPLAT_OK;
}

static bool has_group(const tuning_story *s, const tune_record *r) {
    for (size_t i = 0; i < s->count; ++i)
        if (same_group(s->groups[i].tries[0].record, r))
            return true;
    return false;
}

clsplat_status tuning_story_load(clsplat *lib, const char *path, tuning_story *s) {
    clsplat_status status = CLSPLAT_OK;
    text users = tune_user_path("tried.txt");
    *s = (tuning_story){.title = text_copy(path ? path : "Tuning")};
    if (!s->title)
        TRY(log_error(lib, CLSPLAT_MEMORY, "there is no memory for what was tried"));
    TRY(tune_database_load_tried(lib, &s->tried, path));
    TRY(tune_database_load_user(lib, &s->best));
    if (s->tried.count == 0)
        TRY(log_error(lib, CLSPLAT_IO,
                      "%s: nothing has been tried yet; `clsplat tune` does, and keeps it there",
                      path         ? path
                      : users.data ? users.data
                                   : "tried.txt"));
    s->groups = calloc(s->tried.count, sizeof *s->groups);
    if (!s->groups)
        TRY(log_error(lib, CLSPLAT_MEMORY, "there is no memory for what was tried"));
    for (size_t i = 0; i < s->tried.count; ++i)
        if (!has_group(s, &s->tried.records[i]))
            TRY(fill_group(lib, s, &s->tried.records[i], &s->groups[s->count++]));
fail:
    text_free(&users);
    return status;
}

void tuning_story_free(tuning_story *s) {
    for (size_t i = 0; i < s->count; ++i)
        free(s->groups[i].tries);
    free(s->groups);
    free(s->title);
    tune_database_free(&s->tried);
    tune_database_free(&s->best);
    *s = (tuning_story){0};
}

void tuning_group_name(const tuning_group *g, char *words, size_t size) {
    const tune_record *r = g->tries[0].record;
    snprintf(words, size, "%s%s%s, %s: %llu heads, %llu by %llu, %llu and %llu columns", r->op,
             strcmp(r->shape.form, "-") == 0 ? "" : " ", strcmp(r->shape.form, "-") == 0 ? "" : r->shape.form,
             r->shape.type, (unsigned long long)r->shape.heads, (unsigned long long)r->shape.rows,
             (unsigned long long)r->shape.sources, (unsigned long long)r->shape.dim,
             (unsigned long long)r->shape.value_dim);
}

static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

/* Words of a file, which may be anything. */
static json_t *words_json(const char *words) {
    text mended = {0};
    picture_mend(&mended, words);
    json_t *made = text_ok(&mended) ? json_string(mended.data ? mended.data : "") : NULL;
    text_free(&mended);
    return made;
}

static json_t *try_json(const tuning_group *g, size_t i) {
    const tuning_try *t = &g->tries[i];
    return json_pack("{s:o, s:o, s:o, s:o, s:b, s:b}", "variant", words_json(t->record->variant),
                     "parameters", words_json(t->record->parameters), "seconds", number(t->record->seconds),
                     "error", number(t->record->error), "champion", (int)(i == g->champion), "neighbour",
                     (int)(t->differs == 1));
}

json_t *tuning_story_json(const void *story) {
    const tuning_story *s = story;
    json_t *groups = json_array();
    for (size_t i = 0; i < s->count; ++i) {
        const tuning_group *g = &s->groups[i];
        char name[160];
        json_t *tries = json_array();
        for (size_t t = 0; t < g->count; ++t)
            tries = json_push(tries, try_json(g, t));
        tuning_group_name(g, name, sizeof name);
        groups = json_push(groups,
                           json_pack("{s:o, s:o, s:I, s:I, s:o}", "name", words_json(name), "device",
                                     words_json(g->tries[0].record->on.device), "tried", (json_int_t)g->count,
                                     "rejected", (json_int_t)g->rejected, "candidates", tries));
    }
    return json_pack("{s:s, s:o}", "kind", "tuning", "groups", groups);
}
