/* What a report becomes: a page, a picture, numbers. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/make_report.h"
#include "cli/report.h"
#include "picture/png.h"

static clsplat_status save(cli *c, const char *path, const text *words) {
    clsplat_status status = CLSPLAT_OK;
    file_writer file = {0};
    if (!text_ok(words))
        return log_error(c->lib, CLSPLAT_MEMORY, "%s: there is no memory for it", path);
    TRY(file_create(c->lib, path, &file));
    status = file_write(c->lib, &file, words->data, words->length);
    if (status == CLSPLAT_OK)
        status = file_commit(c->lib, &file);
    file_discard(&file);
fail:
    return status;
}

static clsplat_status find(cli *c, const report_request *r, const report_kind *kind,
                           const page_drawing **found) {
    text names = {0};
    for (size_t i = 0; i < kind->drawing_count; ++i) {
        *found = &kind->drawings[i];
        if (!r->which || strcmp(r->which, (*found)->name) == 0) {
            text_free(&names);
            return CLSPLAT_OK;
        }
        text_add(&names, "%s%s", i ? ", " : "", (*found)->name);
    }
    clsplat_status status =
        cli_misuse(c, "--picture: `%s` is none of %s", r->which, text_ok(&names) ? names.data : "");
    text_free(&names);
    return status;
}

static clsplat_status save_picture(cli *c, const report_request *r, const report_kind *kind, const void *of) {
    enum { ZOOM = 2 };
    clsplat_status status = CLSPLAT_OK;
    const page_drawing *drawing = NULL;
    picture p = {0};
    text svg = {0}, png = {0};
    TRY(find(c, r, kind, &drawing));
    if (!drawing->draw(of, &p))
        return log_error(c->lib, CLSPLAT_UNSUPPORTED, "--picture %s: there is nothing to show there",
                         drawing->name);
    if (r->svg) {
        picture_svg(&p, true, &svg);
        TRY(save(c, r->svg, &svg));
    }
    if (r->png) {
        if (!picture_png(&p, ZOOM, r->dark, &png))
            TRY(log_error(c->lib, CLSPLAT_MEMORY, "%s: the picture could not be drawn", r->png));
        TRY(save(c, r->png, &png));
    }
fail:
    picture_end(&p);
    text_free(&svg);
    text_free(&png);
    return status;
}

static void print_line(const report_request *r, const char *line, size_t bytes) {
    char size[REPORT_BYTES];
    if (r->output)
        printf("%s: %s; %s\n", r->output, report_bytes(bytes, size), line);
    else
        printf("%s: %s\n", r->svg ? r->svg : r->png, line);
}

clsplat_status report_deliver(cli *c, const report_request *r, const report_kind *kind, const void *of,
                              const char *line) {
    clsplat_status status = CLSPLAT_OK;
    text page = {0};
    progress_clear(&c->progress);
    if (r->output)
        kind->page(of, &page);
    /* Before the files, so that numbers nobody could read leave no file either. */
    if (c->json) {
        TRY(report_json_digits(c, kind->numbers(of), 9));
    } else {
        print_line(r, line, page.length);
        TRY(cli_flush(c));
    }
    if (r->svg || r->png)
        TRY(save_picture(c, r, kind, of));
    if (r->output)
        TRY(save(c, r->output, &page));
fail:
    text_free(&page);
    return status;
}
