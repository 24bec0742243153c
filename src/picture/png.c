/* The only file that knows Cairo. */
#include "picture/png.h"

#ifdef CLSPLAT_CAIRO
#include <cairo.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>

static void set_colour(cairo_t *to, picture_role role, double opacity, bool dark) {
    unsigned red = 0, green = 0, blue = 0;
    sscanf(picture_colour(role, dark), "#%2x%2x%2x", &red, &green, &blue);
    cairo_set_source_rgba(to, red / 255.0, green / 255.0, blue / 255.0, opacity);
}

static void draw_text(cairo_t *to, const picture *p, const picture_shape *s) {
    text mended = {0};
    cairo_text_extents_t extents;
    picture_mend(&mended, p->words.data + s->words);
    cairo_set_font_size(to, s->h);
    if (text_ok(&mended) && mended.data) {
        cairo_text_extents(to, mended.data, &extents);
        double shift = s->anchor == PICTURE_END      ? extents.x_advance
                       : s->anchor == PICTURE_MIDDLE ? extents.x_advance / 2
                                                     : 0;
        cairo_move_to(to, s->x - shift, s->y);
        cairo_show_text(to, mended.data);
    }
    text_free(&mended);
}

static void draw_shape(cairo_t *to, const picture *p, const picture_shape *s) {
    if (s->kind == PICTURE_TEXT) {
        draw_text(to, p, s);
    } else if (s->kind == PICTURE_RECT) {
        cairo_rectangle(to, s->x, s->y, fmax(s->w, 0), fmax(s->h, 0));
        cairo_fill(to);
    } else if (s->kind == PICTURE_ELLIPSE && s->w > 0 && s->h > 0) {
        cairo_save(to);
        cairo_translate(to, s->x, s->y);
        cairo_rotate(to, s->angle);
        cairo_scale(to, s->w, s->h);
        cairo_arc(to, 0, 0, 1, 0, 2 * M_PI);
        cairo_restore(to);
        cairo_fill(to);
    } else if (s->kind == PICTURE_LINE) {
        cairo_set_line_width(to, s->w);
        cairo_new_path(to);
        for (size_t i = 0; i < s->count; ++i)
            cairo_line_to(to, p->points[s->first + 2 * i], p->points[s->first + 2 * i + 1]);
        cairo_stroke(to);
    }
}

static cairo_status_t collect(void *closure, const unsigned char *bytes, unsigned count) {
    text_add_bytes(closure, bytes, count);
    return text_ok(closure) ? CAIRO_STATUS_SUCCESS : CAIRO_STATUS_NO_MEMORY;
}

bool picture_png(const picture *p, double zoom, bool dark, text *to) {
    if (!picture_ok(p))
        return false;
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)ceil(zoom * p->width),
                                                          (int)ceil(zoom * p->height));
    cairo_t *c = cairo_create(surface);
    cairo_scale(c, zoom, zoom);
    cairo_select_font_face(c, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    set_colour(c, PICTURE_PAPER, 1, dark);
    cairo_paint(c);
    for (size_t i = 0; i < p->shape_count; ++i) {
        set_colour(c, p->shapes[i].role, p->shapes[i].opacity, dark);
        draw_shape(c, p, &p->shapes[i]);
    }
    bool good = cairo_status(c) == CAIRO_STATUS_SUCCESS &&
                cairo_surface_write_to_png_stream(surface, collect, to) == CAIRO_STATUS_SUCCESS;
    cairo_destroy(c);
    cairo_surface_destroy(surface);
    return good;
}

bool picture_has_png(void) {
    return true;
}
#else
bool picture_png(const picture *p, double zoom, bool dark, text *to) {
    (void)p, (void)zoom, (void)dark, (void)to;
    return false;
}

bool picture_has_png(void) {
    return false;
}
#endif
