#include "train/batch.h"

#include <math.h>
#include <stdlib.h>

#include "base/random.h"
#include "train/windows.h"

static const uint64_t HIDDEN = 0x6d61736bu; /* a stream of random numbers beside that of places */

static bool hides(const train_batch *b) {
    return b->t->model->config.layer.encoder;
}

size_t train_batch_asked(const trainee *t, const train_settings *s) {
    double some = round(s->mlm_probability * (double)s->context);
    if (!t->model->config.layer.encoder)
        return s->context;
    return some < 1 ? 1 : (size_t)some;
}

clsplat_status train_batch_open(const trainee *t, const train_settings *settings, size_t count,
                                size_t processes, train_batch *b) {
    size_t rows = count * settings->context;
    *b = (train_batch){.t = t,
                       .settings = settings,
                       .count = count,
                       .length = settings->context,
                       .processes = processes,
                       .asked = train_batch_asked(t, settings)};
    b->ids = calloc(4 * rows, sizeof *b->ids);
    if (!b->ids)
        return log_error(t->device->lib, CLSPLAT_MEMORY, "no memory for windows of %zu tokens", rows);
    b->targets = b->ids + rows;
    b->hidden = b->targets + rows;
    b->places = b->hidden + rows;
    b->tokens = (pass_tokens){b->ids, b->targets, b->hidden, b->places};
    return CLSPLAT_OK;
}

void train_batch_close(train_batch *b) {
    free(b->ids);
    *b = (train_batch){0};
}

/* The tokens at `at`; an encoder is not asked what follows them. */
static void fill(const train_batch *b, const corpus *from, size_t row, size_t at) {
    windows_fill(from, at, b->length, b->ids + row * b->length, b->targets + row * b->length);
}

/* Hides as many tokens of a window as are asked for, each choice as likely: of ten the mask stands for eight,
 * any token for one, and one stays. */
static void hide(const train_batch *b, size_t row, random_state random) {
    size_t left = b->asked, to = row * b->asked, absent = b->count * b->asked;
    const clsplat_model_info *info = &b->t->model->info;
    for (size_t i = 0; i < b->length; ++i) {
        size_t at = row * b->length + i;
        b->places[at] = (int32_t)absent;
        if (random_below(&random, b->length - i) >= left)
            continue;
        uint64_t how = random_below(&random, 10);
        b->hidden[to] = (int32_t)at;
        b->targets[to] = b->ids[at];
        b->places[at] = (int32_t)to++;
        if (how < 9)
            b->ids[at] = how < 8 ? info->mask : (int32_t)random_below(&random, info->vocabulary);
        --left;
    }
}

void train_batch_draw(const train_batch *b, const corpus *from, uint64_t step, size_t part, size_t own) {
    const train_settings *s = b->settings;
    uint64_t draw = step * s->accumulate + part;
    windows_draw(from, s, step, part, own, b->count, b->ids, b->targets);
    for (size_t row = 0; hides(b) && row < b->count; ++row)
        hide(b, row, random_stream(s->seed ^ HIDDEN, (draw * b->processes + own) * b->count + row));
}

/* Every token of an encoder's window sees the others: windows are whole, and the last begins earlier. */
static size_t next_hidden(const train_batch *b, const corpus *from, size_t most, size_t *at) {
    size_t counted = 0;
    for (size_t row = 0; row < b->count; ++row, *at += b->length) {
        size_t last = corpus_length(from) - b->length;
        bool beyond = row > 0 && *at + 1 >= most;
        fill(b, from, row, *at < last ? *at : last);
        hide(b, row, random_stream(HIDDEN, *at / b->length));
        for (size_t i = 0; i < b->asked && beyond; ++i)
            b->targets[row * b->asked + i] = -1;
        counted += beyond ? 0 : b->asked;
    }
    return counted;
}

size_t train_batch_next(const train_batch *b, const corpus *from, size_t most, size_t *at) {
    size_t counted = 0, all = corpus_length(from);
    if (hides(b))
        return next_hidden(b, from, most, at);
    for (size_t row = 0; row < b->count; ++row, *at += b->length)
        fill(b, from, row, *at < most ? *at : all);
    for (size_t i = 0; i < b->count * b->length; ++i)
        counted += b->targets[i] >= 0;
    return counted;
}
