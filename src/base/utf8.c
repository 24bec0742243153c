#include "base/utf8.h"

/* The well-formed sequences by their first byte: how long, and what the second byte may be. */
static const struct {
    unsigned char first, last, length, least, most;
} sequences[] = {
    {0x00, 0x7f, 1, 0, 0},       {0xc2, 0xdf, 2, 0x80, 0xbf}, {0xe0, 0xe0, 3, 0xa0, 0xbf},
    {0xe1, 0xec, 3, 0x80, 0xbf}, {0xed, 0xed, 3, 0x80, 0x9f}, {0xee, 0xef, 3, 0x80, 0xbf},
    {0xf0, 0xf0, 4, 0x90, 0xbf}, {0xf1, 0xf3, 4, 0x80, 0xbf}, {0xf4, 0xf4, 4, 0x80, 0x8f},
};
enum { SEQUENCES = sizeof sequences / sizeof *sequences };

/* As utf8_next; *cut tells that more bytes might make a character of them. */
static size_t next(const char *words, size_t count, int32_t *code, bool *cut) {
    const unsigned char *bytes = (const unsigned char *)words;
    size_t s = 0;
    *code = -1;
    *cut = false;
    while (s < SEQUENCES && !(bytes[0] >= sequences[s].first && bytes[0] <= sequences[s].last))
        ++s;
    if (s == SEQUENCES)
        return 1;
    size_t length = sequences[s].length;
    int32_t value = length == 1 ? bytes[0] : bytes[0] & (0x7f >> length);
    for (size_t i = 1; i < length; ++i) {
        unsigned char least = i == 1 ? sequences[s].least : 0x80, most = i == 1 ? sequences[s].most : 0xbf;
        *cut = i == count;
        if (*cut || bytes[i] < least || bytes[i] > most)
            return i;
        value = value << 6 | (bytes[i] & 0x3f);
    }
    *code = value;
    return length;
}

size_t utf8_next(const char *bytes, size_t count, int32_t *code) {
    bool cut;
    return next(bytes, count, code, &cut);
}

size_t utf8_put(int32_t code, char bytes[UTF8_LONGEST]) {
    if (code < 0x80) {
        bytes[0] = (char)code;
        return 1;
    }
    size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length; --i > 0; code >>= 6)
        bytes[i] = (char)(0x80 | (code & 0x3f));
    bytes[0] = (char)((0xf00 >> length & 0xff) | code);
    return length;
}

size_t utf8_add_mended(text *to, const char *bytes, size_t count) {
    size_t mended = 0, kept = 0; /* what lies before `kept` was added */
    for (size_t i = 0; i < count;) {
        int32_t code;
        size_t length = utf8_next(bytes + i, count - i, &code);
        if (code < 0) {
            char replacement[UTF8_LONGEST];
            text_add_bytes(to, bytes + kept, i - kept);
            text_add_bytes(to, replacement, utf8_put(UTF8_REPLACEMENT, replacement));
            kept = i + length;
            ++mended;
        }
        i += length;
    }
    text_add_bytes(to, bytes + kept, count - kept);
    return mended;
}

size_t utf8_complete(const char *bytes, size_t count) {
    /* Only a first byte among the last three can begin a character that is cut. */
    for (size_t back = 1; back < UTF8_LONGEST && back <= count; ++back) {
        unsigned char byte = (unsigned char)bytes[count - back];
        if ((byte & 0xc0) == 0x80)
            continue;
        int32_t code;
        bool cut;
        next(bytes + count - back, back, &code, &cut);
        return cut ? count - back : count;
    }
    return count;
}
