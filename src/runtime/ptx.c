#include "runtime/ptx.h"

#include <string.h>

static const char line_mark[] = PTX_MARK ": ", entry_mark[] = PTX_MARK " entry: ", target[] = ".target sm_90";

static const char *end_of_line(const char *line) {
    const char *end = strchr(line, '\n');
    return end ? end + 1 : line + strlen(line);
}

static const char *find(const char *from, const char *end, const char *words) {
    const char *at = strstr(from, words);
    return at && at < end ? at : NULL;
}

static bool is_line(const char *line, const char *words) {
    size_t length = strlen(words);
    return strncmp(line, words, length) == 0 && strchr("\n\r", line[length]);
}

/* The directives that the body from this line on asks for go in front of it. */
static void add_directives(text *to, const char *body) {
    const char *end = body;
    while (*end && !is_line(end, "}"))
        end = end_of_line(end);
    for (const char *at = body; (at = find(at, end, entry_mark));) {
        at += strlen(entry_mark);
        text_add_bytes(to, at, (size_t)(end_of_line(at) - at));
    }
}

/* A line, without its mark if it has one. */
static void add_line(text *to, const char *line, const char *end) {
    const char *mark = find(line, end, line_mark);
    if (!mark) {
        text_add_bytes(to, line, (size_t)(end - line));
        return;
    }
    text_add_bytes(to, line, (size_t)(mark - line));
    mark += strlen(line_mark);
    text_add_bytes(to, mark, (size_t)(end - mark));
}

text ptx_opened(const char *ptx) {
    text opened = {0};
    if (!strstr(ptx, line_mark) || !strstr(ptx, target))
        return opened;
    for (const char *line = ptx, *end; *line; line = end) {
        size_t named = strlen(target);
        end = end_of_line(line);
        if (strncmp(line, target, named) == 0 && line[named] != 'a') {
            text_add(&opened, "%sa", target);
            line += named;
        }
        if (is_line(line, "{"))
            add_directives(&opened, line);
        add_line(&opened, line, end);
    }
    return opened;
}
