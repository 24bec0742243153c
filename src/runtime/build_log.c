#include "runtime/build_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* How NVIDIA's compiler calls every program; it does not know #line. */
static const char nameless[] = "<kernel>:";

/* The first lines tell the cause; the rest of a long log is its echo. */
static void keep_first_lines(char *log) {
    static const char left_out[] = "(the rest of the build log is left out)";
    enum { KEPT = 7000 };
    if (strlen(log) <= KEPT)
        return;
    log[KEPT - sizeof left_out] = '\0';
    char *end = strrchr(log, '\n');
    strcpy(end ? end + 1 : log, left_out);
}

/* Adds "name:line" for a line of the whole source, by the last mark above it. */
static void add_place(text *to, const char *source, unsigned long line) {
    char name[128] = "source";
    unsigned long shift = 0, first = 0;
    for (unsigned long i = 1; i < line && *source; ++i) {
        if (sscanf(source, "#line %lu \"%127[^\"]\"", &first, name) == 2)
            shift = i + 1 - first;
        const char *end = strchr(source, '\n');
        source = end ? end + 1 : source + strlen(source);
    }
    text_add(to, "%s:%lu", name, line - shift);
}

/* The log with the places that the marks give; the caller frees it. NULL without memory. */
static char *by_marks(const char *log, const char *source) {
    text named = {0};
    text_add(&named, "%s", "");
    for (const char *at; (at = strstr(log, nameless));) {
        char *end = NULL;
        unsigned long line = strtoul(at + strlen(nameless), &end, 10);
        text_add_bytes(&named, log, (size_t)(at - log));
        add_place(&named, source, line);
        log = end;
    }
    text_add(&named, "%s", log);
    if (!text_ok(&named))
        text_free(&named);
    return named.data;
}

char *build_log_read(cl_program program, cl_device_id id, const char *source) {
    size_t bytes = 0;
    if (clGetProgramBuildInfo(program, id, CL_PROGRAM_BUILD_LOG, 0, NULL, &bytes) != CL_SUCCESS)
        return NULL;
    char *log = calloc(bytes + 1, 1);
    if (!log)
        return NULL;
    clGetProgramBuildInfo(program, id, CL_PROGRAM_BUILD_LOG, bytes, log, NULL);
    keep_first_lines(log);
    char *named = strstr(log, nameless) ? by_marks(log, source) : NULL;
    if (!named)
        return log;
    free(log);
    keep_first_lines(named);
    return named;
}
