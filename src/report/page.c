#include "report/page.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

static void add_words(text *to, const char *words) {
    picture_escape(to, words, strlen(words));
}

static void add_plain(text *to, const char *words) {
    text_add_bytes(to, words, strlen(words));
}

void page_begin(text *to, const char *title, const char *what) {
    add_plain(to, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                  "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                  "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
                  "'unsafe-inline'; script-src 'unsafe-inline'\">\n"
                  "<meta name=\"generator\" content=\"clsplat\">\n<title>");
    add_words(to, title);
    add_plain(to, "</title>\n<style>\n");
    picture_style(to);
    add_plain(to, page_css);
    add_plain(to, "</style>\n</head>\n<body>\n<header>\n<h1>");
    add_words(to, title);
    add_plain(to, "</h1>\n<p class=\"muted\">");
    add_words(to, what);
    add_plain(to, "</p>\n</header>\n<main>\n");
}

void page_end(text *to, bool script) {
    add_plain(to, "</main>\n");
    if (script) {
        add_plain(to, "<script>\n");
        add_plain(to, page_js);
        add_plain(to, "</script>\n");
    }
    add_plain(to, "</body>\n</html>\n");
}

void page_section(text *to, const char *id, const char *title, const char *words) {
    text_add(to, "<section id=\"%s\" aria-labelledby=\"%s-title\">\n<h2 id=\"%s-title\">%s</h2>\n", id, id,
             id, title);
    if (words)
        text_add(to, "<p>%s</p>\n", words);
}

void page_section_end(text *to) {
    add_plain(to, "</section>\n");
}

void page_facts(text *to, const page_fact *facts, size_t count) {
    add_plain(to, "<ul class=\"facts\">\n");
    for (size_t i = 0; i < count; ++i) {
        text_add(to, "<li><span>%s</span> ", facts[i].name);
        add_words(to, facts[i].words);
        add_plain(to, "</li>\n");
    }
    add_plain(to, "</ul>\n");
}

void page_picture(text *to, picture *p, const char *words) {
    add_plain(to, "<figure>\n");
    picture_svg(p, false, to);
    if (words)
        text_add(to, "<figcaption class=\"muted\">%s</figcaption>\n", words);
    add_plain(to, "</figure>\n");
    picture_end(p);
}

void page_table(text *to, const char *caption, const char *const *columns) {
    text_add(to,
             "<details>\n<summary>The numbers</summary>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" "
             "aria-label=\"%s\">\n<table>\n<caption>%s</caption>\n<thead><tr>",
             caption, caption);
    for (; *columns; ++columns)
        text_add(to, "<th scope=\"col\">%s</th>", *columns);
    add_plain(to, "</tr></thead>\n<tbody>\n");
}

void page_row(text *to, const char *first) {
    add_plain(to, "<tr><th scope=\"row\" class=\"words\">");
    add_words(to, first);
    add_plain(to, "</th>");
}

void page_cell(text *to, const char *format, ...) {
    char words[256];
    va_list values;
    va_start(values, format);
    vsnprintf(words, sizeof words, format, values);
    va_end(values);
    add_plain(to, "<td>");
    add_words(to, words);
    add_plain(to, "</td>");
}

void page_table_end(text *to) {
    add_plain(to, "</tbody>\n</table>\n</div>\n</details>\n");
}

void page_string(text *to, const char *words, size_t bytes) {
    add_plain(to, "\"");
    for (size_t i = 0; i < bytes;) {
        int32_t code;
        size_t count = utf8_next(words + i, bytes - i, &code);
        if (code < 0 || (code & 0xfffe) == 0xfffe)
            add_plain(to, "\xef\xbf\xbd");
        else if (code < ' ' || code == '"' || code == '\\' || code == '<' || code == '>' || code == '&' ||
                 (code >= 127 && code < 160) || code == 0x2028 || code == 0x2029)
            text_add(to, "\\u%04x", (unsigned)code);
        else
            text_add_bytes(to, words + i, count);
        i += count;
    }
    add_plain(to, "\"");
}

void page_bytes(text *to, const void *bytes, size_t count) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *b = bytes;
    char line[1024];
    size_t length = 0;
    add_plain(to, "\"");
    for (size_t i = 0; i < count; i += 3) {
        size_t left = count - i;
        uint32_t word =
            (uint32_t)b[i] << 16 | (uint32_t)(left > 1 ? b[i + 1] : 0) << 8 | (left > 2 ? b[i + 2] : 0);
        line[length++] = letters[word >> 18];
        line[length++] = letters[word >> 12 & 63];
        line[length++] = left > 1 ? letters[word >> 6 & 63] : '=';
        line[length++] = left > 2 ? letters[word & 63] : '=';
        if (length == sizeof line || left <= 3) {
            text_add_bytes(to, line, length);
            length = 0;
        }
    }
    add_plain(to, "\"");
}
