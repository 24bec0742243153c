/* The library handle as the inside sees it: where messages go, and the words of the last error. */
#ifndef CLSPLAT_BASE_LOG_H
#define CLSPLAT_BASE_LOG_H

#include <pthread.h>
#include <stdint.h>

#include <clsplat/status.h>

/* The last error of one thread, and the last of those that are no error of a call. */
enum { LOG_WORDS = 8192 };
typedef struct log_words {
    struct log_words *next;
    pthread_t thread;
    unsigned quiet; /* how often log_quiet has begun */
    char words[2][LOG_WORDS];
} log_words;

struct clsplat {
    clsplat_options options;
    pthread_mutex_t one_at_a_time;  /* of calls to options.log */
    pthread_mutex_t lock;           /* of what follows */
    log_words *errors;              /* a list, of the threads for which a call has failed */
    uint64_t device_serials;        /* handed out so far */
    struct clsplat_device *devices; /* the open ones: a list; their memory figures are under the lock, too */
    struct trace *trace;            /* runtime/trace.h; NULL: nothing is traced */
};

/* Remembers the sentence as the last error, logs it, and returns `status`:
 *     return log_error(lib, CLSPLAT_SHAPE, "k has %zu rows, v has %zu", …); */
clsplat_status log_error(clsplat *lib, clsplat_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

void log_warning(clsplat *lib, const char *format, ...) __attribute__((format(printf, 2, 3)));
void log_info(clsplat *lib, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What fails between a begin and its end, on this thread, is no error of the call, which goes on without it:
 * it reaches neither the log nor clsplat_last_error, but log_quiet_words. They may nest. */
void log_quiet_begin(clsplat *lib);
void log_quiet_end(clsplat *lib);
const char *log_quiet_words(clsplat *lib);

/* The one way out of a function that holds something: `clsplat_status status = CLSPLAT_OK;` at its
 * top, a label `fail:` that releases in reverse order and returns status. */
#define TRY(call)                                                                                            \
    do {                                                                                                     \
        status = (call);                                                                                     \
        if (status != CLSPLAT_OK)                                                                            \
            goto fail;                                                                                       \
    } while (0)

#endif
