/* What a call answers, in a code and in words, and the handle everything hangs from.
 *
 * Fixed words in these headers: Shapes (row-major, slowest first), Writes, Returns (statuses other
 * than CLSPLAT_OK that a caller may want to tell apart), Ownership, Blocks (absent: the call only
 * enqueues or computes on the host), Threads, Source (the paper or derivation of a formula). */
#ifndef CLSPLAT_STATUS_H
#define CLSPLAT_STATUS_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(CLSPLAT_BUILDING)
#define CLSPLAT_API __attribute__((visibility("default")))
#else
#define CLSPLAT_API
#endif

/* One list makes the enum, the names and the messages. Values are stable across releases. */
#define CLSPLAT_STATUS_LIST(X)                                                                               \
    X(OK, 0, "success")                                                                                      \
    X(INVALID, 1, "an argument is outside its documented range")                                             \
    X(SHAPE, 2, "shapes or types do not fit each other")                                                     \
    X(FORMAT, 3, "a file is damaged or holds something else")                                                \
    X(IO, 4, "a file cannot be read or written")                                                             \
    X(NO_DEVICE, 5, "no OpenCL device fits the request")                                                     \
    X(UNSUPPORTED, 6, "this device or this build cannot do it")                                              \
    X(MEMORY, 7, "host or device memory is exhausted")                                                       \
    X(BUILD, 8, "a kernel does not compile on this device")                                                  \
    X(OPENCL, 9, "an OpenCL call failed")                                                                    \
    X(CANCELLED, 10, "the caller's progress callback asked to stop")                                         \
    X(NOT_FINITE, 11, "a result is not a finite number")

typedef enum clsplat_status {
#define X(name, value, text) CLSPLAT_##name = value,
    CLSPLAT_STATUS_LIST(X)
#undef X
} clsplat_status;

/* Returns: a static sentence for the code; never NULL. */
CLSPLAT_API const char *clsplat_status_text(clsplat_status status);

typedef enum clsplat_log_level {
    CLSPLAT_LOG_ERROR,   /* a call is about to return a status other than CLSPLAT_OK */
    CLSPLAT_LOG_WARNING, /* the call goes on, but something is not as it should be */
    CLSPLAT_LOG_INFO     /* what a person debugging would like to see: devices, builds, caches */
} clsplat_log_level;

/* Called on the thread that makes the library call; must not call the library. */
typedef void clsplat_log_callback(void *user, clsplat_log_level level, const char *message);

/* Called now and then with the finished share, 0 to 1. Returning false stops the call with CANCELLED. */
typedef bool clsplat_progress(void *user, double done);

/* The library: carries the log and the words of the last error. Devices, splats and files are made
 * from it and must be destroyed before it. Threads: one at a time per library handle. */
typedef struct clsplat clsplat;

typedef struct clsplat_options {
    clsplat_log_callback *log; /* NULL: silent */
    void *user;                /* handed to log */
} clsplat_options;

CLSPLAT_API clsplat_options clsplat_options_defaults(void);

/* Ownership: *lib is the caller's, to be given to clsplat_destroy. Returns: MEMORY. */
CLSPLAT_API clsplat_status clsplat_create(clsplat_options options, clsplat **lib);

/* Accepts NULL and a NULL handle; sets *lib to NULL. */
CLSPLAT_API void clsplat_destroy(clsplat **lib);

/* What went wrong in the last call that failed: the file, tensor, shape or build log, and how to
 * mend it. Ownership: the library's, valid until its next failing call. Never NULL. */
CLSPLAT_API const char *clsplat_last_error(const clsplat *lib);

#ifdef __cplusplus
}
#endif
#endif
