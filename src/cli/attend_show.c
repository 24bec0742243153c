/* Keys and expected errors of the rows, a line of blocks for each head. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/attend.h"
#include "cli/show.h"

/* A head's rows in their order. */
static void add_head(const clsplat_attention *a, const attend_problem *p, size_t head, double *numbers,
                     text *to) {
    const size_t *q = p->q.tensor.shape;
    size_t first = head * q[2], keys = p->k.tensor.shape[2];
    char name[48];
    for (size_t i = 0; i < q[2]; ++i) {
        double visible = a->causal ? fmax((double)(i + keys) - (double)q[2] + 1, 0) : (double)keys;
        numbers[i] = visible > 0 ? 100 * p->exact_keys[first + i] / visible : NAN;
    }
    snprintf(name, sizeof name, "%zu, %zu keys", head / q[1], head % q[1]);
    show_line(to, name, numbers, q[2], " %");
    for (size_t i = 0; i < q[2]; ++i)
        numbers[i] = 100 * (double)p->error_estimate[first + i];
    snprintf(name, sizeof name, "%zu, %zu error", head / q[1], head % q[1]);
    show_line(to, name, numbers, q[2], " %");
}

clsplat_status attend_show(cli *c, const clsplat_attention *attention, const attend_problem *problem) {
    const size_t *q = problem->q.tensor.shape;
    double *numbers = malloc((q[2] + 1) * sizeof *numbers);
    text lines = {0};
    text_add(
        &lines,
        "keys one by one, and errors expected, of batch entry and head, from the first query to the last\n");
    for (size_t head = 0; numbers && head < q[0] * q[1]; ++head)
        add_head(attention, problem, head, numbers, &lines);
    free(numbers);
    bool good = numbers && text_ok(&lines);
    if (good)
        fputs(lines.data, stdout);
    text_free(&lines);
    return good ? cli_flush(c)
                : log_error(c->lib, CLSPLAT_MEMORY, "--show: there is no memory for %zu rows", q[2]);
}
