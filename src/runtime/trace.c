#include "runtime/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"

enum { MOST = 2000000, FOLD = 8192, HOST = 1, DEVICE = 2 };

typedef struct step {
    char name[48];
    double begin, seconds; /* by clock_seconds() */
    int thread;
} step;

/* A command whose times are still to be read. */
typedef struct waiting {
    cl_event event;
    const clsplat_device *device;
    char name[48];
} waiting;

struct trace {
    pthread_mutex_t lock;
    step *steps;
    size_t count, capacity;
    waiting waiting[FOLD];
    size_t waiting_count;
    double offset; /* from a device's clock to the host's */
    const clsplat_device *offset_of;
    size_t left_out;
};

clsplat_status trace_begin(clsplat *lib) {
    if (!lib->trace)
        lib->trace = calloc(1, sizeof *lib->trace);
    else
        return CLSPLAT_OK;
    if (lib->trace)
        pthread_mutex_init(&lib->trace->lock, NULL);
    else
        return log_error(lib, CLSPLAT_MEMORY, "there is no memory for a trace");
    return CLSPLAT_OK;
}

bool trace_is_on(const clsplat *lib) {
    return lib->trace != NULL;
}

static void add_step(struct trace *t, const char *name, int thread, double begin, double seconds) {
    if (t->count == t->capacity && t->capacity < MOST) {
        size_t capacity = t->capacity ? 2 * t->capacity : 1024;
        step *grown = realloc(t->steps, capacity * sizeof *grown);
        if (grown) {
            t->steps = grown;
            t->capacity = capacity;
        }
    }
    if (t->count == t->capacity) {
        ++t->left_out;
        return;
    }
    step *s = &t->steps[t->count++];
    *s = (step){.begin = begin, .seconds = seconds, .thread = thread};
    snprintf(s->name, sizeof s->name, "%s", name);
}

static double time_of(cl_event event, cl_profiling_info what) {
    cl_ulong ns = 0;
    return clGetEventProfilingInfo(event, what, sizeof ns, &ns, NULL) == CL_SUCCESS ? 1e-9 * (double)ns : 0;
}

/* Those of the device, or of all; what has not ended is waited for. */
static void fold(struct trace *t, const clsplat_device *device) {
    size_t kept = 0;
    for (size_t i = 0; i < t->waiting_count; ++i) {
        waiting *w = &t->waiting[i];
        if (device && w->device != device) {
            t->waiting[kept++] = *w;
            continue;
        }
        if (clWaitForEvents(1, &w->event) == CL_SUCCESS) {
            double begin = time_of(w->event, CL_PROFILING_COMMAND_START),
                   end = time_of(w->event, CL_PROFILING_COMMAND_END);
            if (end >= begin && end > 0)
                add_step(t, w->name, DEVICE, begin + t->offset, end - begin);
            else
                ++t->left_out;
        }
        clReleaseEvent(w->event);
    }
    t->waiting_count = kept;
}

/* Clocks are brought together by the first command of a device: it was queued just now. */
static void compare_clocks(struct trace *t, const clsplat_device *device, cl_event event) {
    double queued = time_of(event, CL_PROFILING_COMMAND_QUEUED);
    if (t->offset_of == device || queued <= 0)
        return;
    t->offset = clock_seconds() - queued;
    t->offset_of = device;
}

void trace_command(clsplat_device *device, const char *name, cl_event event) {
    struct trace *t = device->lib->trace;
    if (!t || !event)
        return;
    pthread_mutex_lock(&t->lock);
    compare_clocks(t, device, event);
    if (t->waiting_count == FOLD) {
        clFlush(device->queue);
        fold(t, NULL);
    }
    if (clRetainEvent(event) == CL_SUCCESS) {
        waiting *w = &t->waiting[t->waiting_count++];
        *w = (waiting){.event = event, .device = device};
        snprintf(w->name, sizeof w->name, "%s", name);
    }
    pthread_mutex_unlock(&t->lock);
}

void trace_step(clsplat *lib, const char *name, double began) {
    if (!lib->trace)
        return;
    pthread_mutex_lock(&lib->trace->lock);
    add_step(lib->trace, name, HOST, began, clock_seconds() - began);
    pthread_mutex_unlock(&lib->trace->lock);
}

void trace_leave(clsplat_device *device) {
    struct trace *t = device->lib->trace;
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    fold(t, device);
    pthread_mutex_unlock(&t->lock);
}

/* Names are kernels' and our own: letters, digits, dots, blanks. */
static void add_name(text *to, const char *name) {
    for (; *name; ++name)
        text_add_bytes(to, *name == '"' || *name == '\\' || (unsigned char)*name < ' ' ? "?" : name, 1);
}

static const char *category_of(const step *s) {
    return s->thread == HOST                                        ? "host"
           : strstr(s->name, "buffer") || strstr(s->name, "Buffer") ? "copy"
                                                                    : "kernel";
}

clsplat_status trace_save(clsplat *lib, const char *path) {
    clsplat_status status = CLSPLAT_OK;
    struct trace *t = lib->trace;
    text words = {0};
    file_writer file = {0};
    double first = t->count ? t->steps[0].begin : 0;
    for (size_t i = 0; i < t->count; ++i)
        first = t->steps[i].begin < first ? t->steps[i].begin : first;
    text_add(&words,
             "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"left_out\":%zu},\"traceEvents\":[\n"
             "{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"args\":{\"name\":\"host\"}},\n"
             "{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"args\":{\"name\":\"device\"}}",
             t->left_out, HOST, DEVICE);
    for (size_t i = 0; i < t->count; ++i) {
        const step *s = &t->steps[i];
        text_add(&words, ",\n{\"name\":\"");
        add_name(&words, s->name);
        text_add(&words, "\",\"cat\":\"%s\",\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f}",
                 category_of(s), s->thread, 1e6 * (s->begin - first), 1e6 * s->seconds);
    }
    text_add(&words, "\n]}\n");
    if (!text_ok(&words))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: there is no memory for a trace of %zu steps", path,
                      t->count));
    TRY(file_create(lib, path, &file));
    status = file_write(lib, &file, words.data, words.length);
    if (status == CLSPLAT_OK)
        status = file_commit(lib, &file);
    file_discard(&file);
fail:
    text_free(&words);
    return status;
}

void trace_end(clsplat *lib) {
    if (!lib->trace)
        return;
    for (size_t i = 0; i < lib->trace->waiting_count; ++i)
        clReleaseEvent(lib->trace->waiting[i].event);
    pthread_mutex_destroy(&lib->trace->lock);
    free(lib->trace->steps);
    free(lib->trace);
    lib->trace = NULL;
}
