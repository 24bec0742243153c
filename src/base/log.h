/* The library handle as the inside sees it: where messages go, and the words of the last error. */
#ifndef CLSPLAT_BASE_LOG_H
#define CLSPLAT_BASE_LOG_H

#include <stdint.h>

#include <clsplat/status.h>

struct clsplat {
    clsplat_options options;
    char last_error[8192];
    uint64_t device_serials;        /* handed out so far */
    struct clsplat_device *devices; /* the open ones: a list */
    struct trace *trace;            /* runtime/trace.h; NULL: nothing is traced */
};

/* Remembers the sentence as the last error, logs it, and returns `status`:
 *     return log_error(lib, CLSPLAT_SHAPE, "k has %zu rows, v has %zu", …); */
clsplat_status log_error(clsplat *lib, clsplat_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

void log_warning(clsplat *lib, const char *format, ...) __attribute__((format(printf, 2, 3)));
void log_info(clsplat *lib, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The one way out of a function that holds something: `clsplat_status status = CLSPLAT_OK;` at its
 * top, a label `fail:` that releases in reverse order and returns status. */
#define TRY(call)                                                                                            \
    do {                                                                                                     \
        status = (call);                                                                                     \
        if (status != CLSPLAT_OK)                                                                            \
            goto fail;                                                                                       \
    } while (0)

#endif
