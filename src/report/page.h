/* One HTML file, whole in itself: no network, light and dark, for telephones, readers of screens and paper.
 *
 *     page_begin(&html, "text.txt", "What the model attends to");
 *     page_section(&html, "loss", "Loss", "Mean of every hundred steps.");
 *     page_picture(&html, &picture);
 *     page_table(…);
 *     page_section_end(&html);
 *     page_end(&html, false);
 *
 * Words of strangers go through picture_escape, or page_string into the data; nothing else reaches the page.
 */
#ifndef CLSPLAT_REPORT_PAGE_H
#define CLSPLAT_REPORT_PAGE_H

#include "picture/picture.h"

extern const char page_css[], page_js[];

/* `title` and `what` are words of any kind. */
void page_begin(text *to, const char *title, const char *what);
/* `script`: with the one that brings data to life. */
void page_end(text *to, bool script);

/* `words`: what is to be seen, of ours. */
void page_section(text *to, const char *id, const char *title, const char *words);
void page_section_end(text *to);

/* A line of big numbers. */
typedef struct page_fact {
    const char *name;
    char words[64];
} page_fact;
void page_facts(text *to, const page_fact *facts, size_t count);

/* What a report can draw, by name: begins *p, which the caller ends. */
typedef struct page_drawing {
    const char *name, *words;
    bool (*draw)(const void *of, picture *p); /* false: there is nothing to show */
} page_drawing;

/* The picture, which is ended, with `words` below it; NULL: none. */
void page_picture(text *to, picture *p, const char *words);

/* The numbers of a picture, folded away until they are asked for. Columns end with NULL. */
void page_table(text *to, const char *caption, const char *const *columns);
void page_row(text *to, const char *first); /* the row's name, of any kind */
void page_cell(text *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
void page_table_end(text *to);

/* JSON for the script: a string of any bytes, which mends what is not UTF-8 and cannot end the script; and
 * bytes in base64. Both with quotes. */
void page_string(text *to, const char *words, size_t bytes);
void page_bytes(text *to, const void *bytes, size_t count);

#endif
