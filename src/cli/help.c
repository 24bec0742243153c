#include "cli/help.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Columns: where descriptions begin, at most, and how wide a page is. */
enum { INDENT_MOST = 32, NARROWEST = 40, WIDEST = 120, WIDE = 80 };

static size_t page_width(void) {
    struct winsize window;
    const char *given = getenv("COLUMNS");
    size_t width = given ? strtoul(given, NULL, 10) : 0;
    if (width == 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0)
        width = window.ws_col;
    return width == 0 ? WIDE : width < NARROWEST ? NARROWEST : width > WIDEST ? WIDEST : width;
}

/* Characters of UTF-8. */
static size_t columns_of(const char *words, size_t bytes) {
    size_t columns = 0;
    for (size_t i = 0; i < bytes; ++i)
        columns += ((unsigned char)words[i] & 0xc0) != 0x80;
    return columns;
}

static void new_line(size_t indent) {
    printf("\n%*s", (int)indent, "");
}

/* Words from column `at` on, broken at spaces; every line but the first is indented. Ends the line. */
static void print_words(const char *words, size_t at, size_t indent, size_t width) {
    bool first = true;
    while (*(words += strspn(words, " \n"))) {
        size_t bytes = strcspn(words, " \n"), columns = columns_of(words, bytes);
        if (!first && at + 1 + columns > width) {
            new_line(indent);
            at = indent;
        } else if (!first) {
            putchar(' ');
            ++at;
        }
        printf("%.*s", (int)bytes, words);
        at += columns;
        words += bytes;
        first = false;
    }
    putchar('\n');
}

typedef struct label {
    char words[96];
} label;

/* "-n, --tokens N" */
static label label_of(const struct poptOption *o) {
    label l;
    char letter[8] = "    ";
    if (o->shortName)
        snprintf(letter, sizeof letter, "-%c%s", o->shortName, o->longName ? ", " : "");
    snprintf(l.words, sizeof l.words, "  %s%s%s%s%s", letter, o->longName ? "--" : "",
             o->longName ? o->longName : "", o->argDescrip ? " " : "", o->argDescrip ? o->argDescrip : "");
    return l;
}

static bool is_last(const struct poptOption *o) {
    return !o->longName && !o->shortName && !o->arg;
}

static bool is_group(const struct poptOption *o) {
    return (o->argInfo & POPT_ARG_MASK) == POPT_ARG_INCLUDE_TABLE;
}

/* Where the descriptions of all groups begin: behind the longest label that is not too long. */
static size_t indent_of(const struct poptOption *o) {
    size_t indent = 0;
    for (; !is_last(o); ++o) {
        size_t own = is_group(o) ? indent_of(o->arg) : strlen(label_of(o).words) + 2;
        indent = own <= INDENT_MOST && own > indent ? own : indent;
    }
    return indent;
}

static void print_option(const struct poptOption *o, size_t indent, size_t width) {
    label l = label_of(o);
    size_t at = strlen(l.words);
    fputs(l.words, stdout);
    if (at + 2 > indent)
        new_line(indent);
    else
        printf("%*s", (int)(indent - at), "");
    print_words(o->descrip ? o->descrip : "", indent, indent, width);
}

/* The options that stand in the table itself, then its groups. */
static void print_group(const char *heading, const struct poptOption *table, size_t indent, size_t width) {
    bool any = false;
    for (const struct poptOption *o = table; !is_last(o); ++o) {
        if (is_group(o))
            continue;
        if (!any)
            printf("\n%s\n", heading);
        any = true;
        print_option(o, indent, width);
    }
    for (const struct poptOption *o = table; !is_last(o); ++o)
        if (is_group(o))
            print_group(o->descrip, o->arg, indent, width);
}

void help_print(const cli *c, const cli_syntax *syntax, const struct poptOption *common) {
    size_t width = page_width(), own = indent_of(syntax->options), other = indent_of(common);
    size_t indent = own > other ? own : other;
    indent = indent > width / 2 ? width / 2 : indent;
    printf("usage: clsplat %s %s\n\n", c->command, syntax->usage);
    print_words(syntax->summary, 0, 0, width);
    print_group("Options:", syntax->options, indent, width);
    print_group("Common options:", common, indent, width);
}
