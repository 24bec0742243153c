/* Which tokens a report records. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/make_report.h"

enum { MOST_ROWS = 4096, USUAL_ROWS = 256, LEAST_ROWS = 8, LAST_ROWS = 16, MANY_HEADS = 64 };

size_t report_top(size_t heads) {
    return heads > MANY_HEADS ? 8 : LOOK_TOP_MOST;
}

/* What a page has room for. */
static size_t usual_rows(size_t heads) {
    static const double BYTES = 2.2e6;
    size_t each = (24 + 5 * report_top(heads) + LOOK_BLOCKS) * 4 / 3 * heads,
           rows = (size_t)(BYTES / (double)each);
    return rows > USUAL_ROWS ? USUAL_ROWS : rows < LEAST_ROWS ? LEAST_ROWS : rows;
}

/* "100,200-210": marks what it names. */
static clsplat_status read_rows(cli *c, const char *rows, size_t total, uint8_t *chosen) {
    const char *at = rows;
    for (char *end; *at; at = *end ? end + 1 : end) {
        unsigned long long first = strtoull(at, &end, 10), last = first;
        bool good = end != at && *at != '-';
        if (good && *end == '-') {
            at = end + 1;
            last = strtoull(at, &end, 10);
            good = end != at;
        }
        if (!good || (*end && *end != ',') || last < first)
            return cli_misuse(c, "--rows: `%s` is not a list such as 100,200-210", rows);
        if (last >= total)
            return log_error(c->lib, CLSPLAT_INVALID, "--rows: there is no row %llu; the last one is %zu",
                             last, total - 1);
        for (; first <= last; ++first)
            chosen[first] = 1;
    }
    return CLSPLAT_OK;
}

static void spread_rows(size_t total, size_t rows, uint8_t *chosen) {
    size_t last = total < LAST_ROWS ? total : LAST_ROWS, spread = rows > last ? rows - last : 1;
    if (rows >= total) {
        memset(chosen, 1, total);
        return;
    }
    for (size_t i = 0; i < spread; ++i)
        chosen[i * (total - 1) / spread] = 1;
    for (size_t i = rows > last ? total - last : total - 1; i < total; ++i)
        chosen[i] = 1;
}

clsplat_status report_choose(cli *c, const char *rows, size_t total, size_t heads, uint32_t **list,
                             size_t *count) {
    clsplat_status status = CLSPLAT_OK;
    uint8_t *chosen = calloc(total + 1, 1);
    *list = NULL;
    *count = 0;
    if (!chosen)
        return log_error(c->lib, CLSPLAT_MEMORY, "there is no memory for %zu tokens", total);
    if (rows)
        TRY(read_rows(c, rows, total, chosen));
    else
        spread_rows(total, usual_rows(heads), chosen);
    for (size_t i = 0; i < total; ++i)
        *count += chosen[i];
    if (*count == 0 || *count > MOST_ROWS)
        TRY(log_error(c->lib, CLSPLAT_INVALID, "--rows: %zu rows are not from 1 to %d", *count, MOST_ROWS));
    *list = malloc(*count * sizeof **list);
    if (!*list)
        TRY(log_error(c->lib, CLSPLAT_MEMORY, "there is no memory for %zu tokens", *count));
    for (size_t i = 0, at = 0; i < total; ++i)
        if (chosen[i])
            (*list)[at++] = (uint32_t)i;
fail:
    free(chosen);
    return status;
}

void report_count_kernels(story *s) {
    s->kernel_seconds = 0;
    for (size_t i = 0; i < s->kernel_count; ++i)
        s->kernel_seconds += s->kernels[i].seconds;
}
