#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <clsplat/clsplat.h>

#include "base/sized.h"

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

void clsplat_options_defaults_sized(clsplat_options *defaults) {
    sized_write(&(clsplat_options){0}, sizeof *defaults, defaults);
}

clsplat_status clsplat_create_sized(const clsplat_options *options_given, clsplat **lib) {
    clsplat_options options = {0};
    *lib = NULL;
    clsplat_status status = SIZED_READ(NULL, options, options_given);
    if (status != CLSPLAT_OK)
        return status;
    *lib = calloc(1, sizeof **lib);
    if (!*lib)
        return CLSPLAT_MEMORY;
    (*lib)->options = options;
    pthread_mutex_init(&(*lib)->one_at_a_time, NULL);
    pthread_mutex_init(&(*lib)->lock, NULL);
    return CLSPLAT_OK;
}

void clsplat_destroy(clsplat **lib) {
    if (!lib || !*lib)
        return;
    for (log_words *e; (e = (*lib)->errors);) {
        (*lib)->errors = e->next;
        free(e);
    }
    pthread_mutex_destroy(&(*lib)->lock);
    pthread_mutex_destroy(&(*lib)->one_at_a_time);
    free(*lib);
    *lib = NULL;
}

/* The calling thread's, who alone reads and writes the words. A later thread may have the number of one that
 * has ended, and its place. */
static log_words *own_words(clsplat *lib, bool make) {
    pthread_t self = pthread_self();
    pthread_mutex_lock(&lib->lock);
    log_words *e = lib->errors;
    while (e && !pthread_equal(e->thread, self))
        e = e->next;
    if (!e && make && (e = calloc(1, sizeof *e))) {
        e->thread = self;
        e->next = lib->errors;
        lib->errors = e;
    }
    pthread_mutex_unlock(&lib->lock);
    return e;
}

const char *clsplat_last_error(const clsplat *lib) {
    const log_words *e = own_words((clsplat *)lib, false);
    return e ? e->words[0] : "";
}

void log_quiet_begin(clsplat *lib) {
    log_words *e = own_words(lib, true);
    if (e)
        e->quiet++;
}

void log_quiet_end(clsplat *lib) {
    log_words *e = own_words(lib, false);
    if (e && e->quiet)
        e->quiet--;
}

const char *log_quiet_words(clsplat *lib) {
    const log_words *e = own_words(lib, false);
    return e ? e->words[1] : "";
}

static void pass_on(clsplat *lib, clsplat_log_level level, const char *message) {
    if (!lib->options.log)
        return;
    pthread_mutex_lock(&lib->one_at_a_time);
    lib->options.log(lib->options.user, level, message);
    pthread_mutex_unlock(&lib->one_at_a_time);
}

clsplat_status log_error(clsplat *lib, clsplat_status status, const char *format, ...) {
    /* Formatted beside the old message, which may be among the arguments. */
    char message[LOG_WORDS];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    log_words *own = own_words(lib, true);
    bool quiet = own && own->quiet;
    if (own) /* without memory for the words there is still the log */
        snprintf(own->words[quiet], LOG_WORDS, "%s", message);
    if (!quiet)
        pass_on(lib, CLSPLAT_LOG_ERROR, message);
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
