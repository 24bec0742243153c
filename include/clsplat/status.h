/* What a call answers, in a code and in words, and the handle everything hangs from.
 *
 * Fixed words in these headers: Shapes (row-major, slowest first), Writes, Returns (statuses other
 * than CLSPLAT_OK that a caller may want to tell apart), Ownership, Blocks (absent: the call only
 * enqueues or computes on the host), Threads, Source (the paper or derivation of a formula). */
#ifndef CLSPLAT_STATUS_H
#define CLSPLAT_STATUS_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(CLSPLAT_BUILDING)
#define CLSPLAT_API __attribute__((visibility("default")))
#else
#define CLSPLAT_API
#endif

/* Structs that may grow. Parameters and results whose first member is `size` get new members at their end in
 * later versions, and programs that were compiled before go on with a new library: `size` is the bytes that
 * the program knows of. A library that knows more takes what is missing as clsplat_x_defaults() has it (0
 * where there are no defaults), and writes no more than the program has room for. One that knows less takes a
 * larger struct if what it does not know is 0, and says UNSUPPORTED otherwise.
 *
 * C and C++ need not care: clsplat_x_defaults() and every call that takes or gives such a struct are inline
 * functions here that set `size`, around one of the library whose name ends in _sized and that takes
 * addresses. Bindings call that one, and set `size` themselves: 0 is INVALID. Other structs do not change. */
#define CLSPLAT_DEFAULTS(type)                                                                               \
    CLSPLAT_API void type##_defaults_sized(type *defaults); /* Reads: size. Writes: the rest */              \
    static inline type type##_defaults(void) {                                                               \
        type defaults;                                                                                       \
        defaults.size = sizeof defaults;                                                                     \
        type##_defaults_sized(&defaults);                                                                    \
        return defaults;                                                                                     \
    }

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

/* Called on the thread that makes the library call, or on one that clsplat_group has started for it; of
 * several threads one at a time. Must not call the library. */
typedef void clsplat_log_callback(void *user, clsplat_log_level level, const char *message);

/* Called now and then with the finished share, 0 to 1. Returning false stops the call with CANCELLED. */
typedef bool clsplat_progress(void *user, double done);

/* The library: carries the log and the words of the last error. Devices, splats and files are made
 * from it and must be destroyed before it.
 *
 * Threads: any, at once. What is made from it says for itself: a device is one thread's at a time, and
 * several threads each have one, or take turns. Nothing may be in use when the handle is destroyed. */
typedef struct clsplat clsplat;

typedef struct clsplat_options {
    size_t size;               /* see above */
    clsplat_log_callback *log; /* NULL: silent */
    void *user;                /* handed to log */
} clsplat_options;

CLSPLAT_DEFAULTS(clsplat_options)

/* Ownership: *lib is the caller's, to be given to clsplat_destroy. Returns: MEMORY. */
CLSPLAT_API clsplat_status clsplat_create_sized(const clsplat_options *options, clsplat **lib);
static inline clsplat_status clsplat_create(clsplat_options options, clsplat **lib) {
    options.size = sizeof options;
    return clsplat_create_sized(&options, lib);
}

/* Accepts NULL and a NULL handle; sets *lib to NULL. */
CLSPLAT_API void clsplat_destroy(clsplat **lib);

/* What went wrong in the calling thread's last call that failed: the file, tensor, shape or build log, and
 * how to mend it. Ownership: the library's, valid until the thread's next failing call. Never NULL. */
CLSPLAT_API const char *clsplat_last_error(const clsplat *lib);

#ifdef __cplusplus
}
#endif
#endif
