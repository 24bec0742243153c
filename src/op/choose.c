#include "op/choose.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/program.h"

/* What was chosen for a class of shapes. */
typedef struct chosen {
    const op_family *family;
    tune_shape shape;
    bool found; /* false: there is no record, the default is to be taken */
    op_choice choice;
} chosen;

typedef struct choices {
    tune_database db;
    tune_device on;
    chosen *list;
    size_t count, capacity;
} choices;

static void forget(void *kept) {
    choices *c = kept;
    tune_database_free(&c->db);
    free(c->list);
}

static const device_keeper keeper = {sizeof(choices), forget, .by_limits = true};

void op_forget(clsplat_device *device) {
    device_forget(device, &keeper);
}

/* NULL without memory. */
static choices *remember(clsplat_device *device) {
    choices *c = device_kept(device, &keeper);
    if (c || !(c = device_keep(device, &keeper)))
        return c;
    c->on = tune_device_of(&device->info);
    log_quiet_begin(device->lib);
    if (op_records_load(device->lib, &c->db) != CLSPLAT_OK)
        log_warning(device->lib, "the tuning records cannot be read, so defaults are used: %s",
                    log_quiet_words(device->lib));
    log_quiet_end(device->lib);
    return c;
}

clsplat_status op_records_load(clsplat *lib, tune_database *db) {
    clsplat_status status = CLSPLAT_OK;
    const char *shipped = program_source("tuning.txt");
    assert(shipped);
    TRY(tune_database_parse(lib, db, "the library's tuning records", shipped));
    TRY(tune_database_load_user(lib, db));
fail:
    return status;
}

bool op_choice_of(const op_family *family, const clsplat_limits *limits, const tune_record *record,
                  const void *args, op_choice *choice) {
    for (size_t row = 0; row < family->count; ++row) {
        const op_variant *v = &family->variants[row];
        if (strcmp(v->name, record->variant) != 0 || !v->fits(limits, args))
            continue;
        choice->row = row;
        return tune_point_read(v->space, record->parameters, &choice->point) &&
               tune_space_allows(v->space, limits, &choice->point) && op_source_hash(v) == record->source;
    }
    return false;
}

static op_choice last_below(const clsplat_limits *limits, const op_family *family, const void *args,
                            size_t row) {
    do
        --row;
    while (row > 0 && !family->variants[row].fits(limits, args));
    return (op_choice){row, tune_default(family->variants[row].space, limits)};
}

op_choice op_choose_default(const clsplat_limits *limits, const op_family *family, const void *args) {
    return last_below(limits, family, args, family->count);
}

typedef struct request {
    const op_family *family;
    const clsplat_limits *limits;
    const void *args;
    op_choice *choice;
} request;

static bool accept(void *user, const tune_record *record) {
    request *r = user;
    op_choice choice;
    if (!op_choice_of(r->family, r->limits, record, r->args, &choice))
        return false;
    *r->choice = choice;
    return true;
}

/* NULL without memory. */
static chosen *look_up(choices *c, const clsplat_limits *limits, const op_family *family,
                       const tune_shape *shape, const void *args) {
    if (c->count == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 16;
        chosen *grown = realloc(c->list, capacity * sizeof *grown);
        if (!grown)
            return NULL;
        c->list = grown;
        c->capacity = capacity;
    }
    chosen *entry = &c->list[c->count++];
    *entry = (chosen){.family = family, .shape = *shape};
    request r = {family, limits, args, &entry->choice};
    tune_query query = {.op = family->name, .shape = *shape, .on = c->on, .user = &r, .accept = accept};
    entry->found = tune_database_find(&c->db, &query) != NULL;
    return entry;
}

/* The entry of the arguments' class; NULL if there is none, which is without memory. */
static chosen *entry_of(clsplat_device *device, const op_family *family, const void *args) {
    choices *c = remember(device);
    tune_shape shape = {.type = ""};
    if (!family->shape || !c)
        return NULL;
    family->shape(args, &shape);
    tune_shape_round(&shape);
    for (size_t i = 0; i < c->count; ++i)
        if (c->list[i].family == family && memcmp(&c->list[i].shape, &shape, sizeof shape) == 0)
            return &c->list[i];
    return look_up(c, &device->info.limits, family, &shape, args);
}

op_choice op_choose(clsplat_device *device, const op_family *family, const void *args) {
    const clsplat_limits *limits = &device->info.limits;
    const chosen *entry = entry_of(device, family, args);
    /* The class was looked up with other arguments: these may be laid out as its row does not fit. */
    if (entry && entry->found && family->variants[entry->choice.row].fits(limits, args))
        return entry->choice;
    return op_choose_default(limits, family, args);
}

op_choice op_choose_below(clsplat_device *device, const op_family *family, const void *args, size_t row) {
    chosen *entry = entry_of(device, family, args);
    op_choice choice = last_below(&device->info.limits, family, args, row);
    if (entry) {
        entry->found = true;
        entry->choice = choice;
    }
    return choice;
}
