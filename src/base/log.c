#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <clsplat/clsplat.h>

#define TEXT_OF_(x) #x
#define TEXT_OF(x) TEXT_OF_(x)

const char *clsplat_version(void) {
    return TEXT_OF(CLSPLAT_VERSION_MAJOR) "." TEXT_OF(CLSPLAT_VERSION_MINOR) "." TEXT_OF(
        CLSPLAT_VERSION_PATCH);
}

const char *clsplat_status_text(clsplat_status status) {
    switch (status) {
#define X(name, value, text)                                                                                 \
    case CLSPLAT_##name:                                                                                     \
        return text;
        CLSPLAT_STATUS_LIST(X)
#undef X
    }
    return "not a status of this library";
}

clsplat_options clsplat_options_defaults(void) {
    return (clsplat_options){0};
}

clsplat_status clsplat_create(clsplat_options options, clsplat **lib) {
    *lib = calloc(1, sizeof **lib);
    if (!*lib)
        return CLSPLAT_MEMORY;
    (*lib)->options = options;
    return CLSPLAT_OK;
}

void clsplat_destroy(clsplat **lib) {
    if (!lib)
        return;
    free(*lib);
    *lib = NULL;
}

const char *clsplat_last_error(const clsplat *lib) {
    return lib->last_error;
}

static void pass_on(clsplat *lib, clsplat_log_level level, const char *message) {
    if (lib->options.log)
        lib->options.log(lib->options.user, level, message);
}

clsplat_status log_error(clsplat *lib, clsplat_status status, const char *format, ...) {
    /* Formatted beside the old message, which may be among the arguments. */
    char message[sizeof lib->last_error];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    snprintf(lib->last_error, sizeof lib->last_error, "%s", message);
    pass_on(lib, CLSPLAT_LOG_ERROR, lib->last_error);
    return status;
}

static void say(clsplat *lib, clsplat_log_level level, const char *format, va_list arguments) {
    char message[1024];
    vsnprintf(message, sizeof message, format, arguments);
    pass_on(lib, level, message);
}

void log_warning(clsplat *lib, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    say(lib, CLSPLAT_LOG_WARNING, format, arguments);
    va_end(arguments);
}

void log_info(clsplat *lib, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    say(lib, CLSPLAT_LOG_INFO, format, arguments);
    va_end(arguments);
}
