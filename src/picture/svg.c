#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/utf8.h"
#include "picture/picture.h"

/* What XML cannot have. */
static bool is_forbidden(int32_t code) {
    return code < 0 || (code < 32 && code != '\n' && code != '\t') || (code >= 127 && code < 160) ||
           (code & 0xfffe) == 0xfffe;
}

static void add_mended(text *to, const char *words, size_t bytes, bool escaped) {
    for (size_t i = 0; i < bytes;) {
        int32_t code;
        size_t count = utf8_next(words + i, bytes - i, &code);
        if (is_forbidden(code))
            text_add(to, "\xef\xbf\xbd");
        else if (escaped && (code == '<' || code == '>' || code == '&' || code == '"' || code == '\''))
            text_add(to, "&#%d;", (int)code);
        else
            text_add_bytes(to, words + i, count);
        i += count;
    }
}

void picture_escape(text *to, const char *words, size_t bytes) {
    add_mended(to, words, bytes, true);
}

void picture_mend(text *to, const char *words) {
    add_mended(to, words, strlen(words), false);
}

static void add_words(text *to, const picture *p, size_t at) {
    picture_escape(to, p->words.data + at, strlen(p->words.data + at));
}

/* A coordinate, to a hundredth. */
static double cut(double x) {
    return round(100 * x) / 100 + 0.0;
}

static void add_rect(text *to, const picture_shape *s) {
    text_add(to, "<rect class=\"f%d\" x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\"", (int)s->role, cut(s->x),
             cut(s->y), cut(fmax(s->w, 0)), cut(fmax(s->h, 0)));
}

static void add_ellipse(text *to, const picture_shape *s) {
    text_add(to, "<ellipse class=\"f%d\" cx=\"%g\" cy=\"%g\" rx=\"%g\" ry=\"%g\"", (int)s->role, cut(s->x),
             cut(s->y), cut(s->w), cut(s->h));
    if (s->angle != 0)
        text_add(to, " transform=\"rotate(%g %g %g)\"", cut(s->angle * 180 / M_PI), cut(s->x), cut(s->y));
}

static void add_line(text *to, const picture *p, const picture_shape *s) {
    text_add(to, "<polyline class=\"l%d\" stroke-width=\"%g\" points=\"", (int)s->role, s->w);
    for (size_t i = 0; i < s->count; ++i)
        text_add(to, "%s%g,%g", i ? " " : "", cut(p->points[s->first + 2 * i]),
                 cut(p->points[s->first + 2 * i + 1]));
    text_add(to, "\"");
}

static void add_text(text *to, const picture *p, const picture_shape *s) {
    static const char *const anchors[] = {"start", "middle", "end"};
    text_add(to, "<text class=\"f%d\" x=\"%g\" y=\"%g\" font-size=\"%g\"", (int)s->role, cut(s->x), cut(s->y),
             s->h);
    if (s->anchor != PICTURE_START)
        text_add(to, " text-anchor=\"%s\"", anchors[s->anchor]);
    text_add(to, ">");
    add_words(to, p, s->words);
    text_add(to, "</text>\n");
}

static void add_shape(text *to, const picture *p, const picture_shape *s) {
    static const char *const names[] = {"rect", "polyline", "ellipse"};
    if (s->kind == PICTURE_TEXT) {
        add_text(to, p, s);
        return;
    }
    if (s->kind == PICTURE_RECT)
        add_rect(to, s);
    else if (s->kind == PICTURE_ELLIPSE)
        add_ellipse(to, s);
    else
        add_line(to, p, s);
    if (s->opacity < 1)
        text_add(to, " opacity=\"%g\"", cut(s->opacity));
    if (s->hint == SIZE_MAX) {
        text_add(to, "/>\n");
        return;
    }
    text_add(to, "><title>");
    add_words(to, p, s->hint);
    text_add(to, "</title></%s>\n", names[s->kind]);
}

void picture_svg(const picture *p, bool alone, text *to) {
    if (!picture_ok(p)) { /* some of its words are nowhere */
        to->failed = true;
        return;
    }
    text_add(to,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\" "
             "role=\"img\">\n<title>",
             p->width, p->height, p->width, p->height);
    add_words(to, p, 0);
    text_add(to, "</title>\n");
    if (alone) {
        text_add(to, "<style>svg{font-family:system-ui,sans-serif}\n");
        picture_style(to);
        text_add(to, "</style>\n");
        text_add(to, "<rect class=\"f%d\" width=\"%g\" height=\"%g\"/>\n", PICTURE_PAPER, p->width,
                 p->height);
    }
    for (size_t i = 0; i < p->shape_count; ++i)
        add_shape(to, p, &p->shapes[i]);
    text_add(to, "</svg>\n");
}
