#include "base/sized.h"

#include <string.h>

#include <clsplat/clsplat.h>

static size_t size_of(const void *given) {
    size_t size;
    memcpy(&size, given, sizeof size);
    return size;
}

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

clsplat_status sized_read(clsplat *lib, const char *name, const void *given, void *own, size_t bytes) {
    size_t size = size_of(given);
    if (size < sizeof size)
        return !lib ? CLSPLAT_INVALID
                    : log_error(lib, CLSPLAT_INVALID,
                                "%s.size is %zu; begin with the defaults, or set it to the struct's bytes",
                                name, size);
    for (size_t i = bytes; i < size; ++i)
        if (((const char *)given)[i])
            return !lib ? CLSPLAT_UNSUPPORTED
                        : log_error(
                              lib, CLSPLAT_UNSUPPORTED,
                              "%s has %zu bytes, of which version %s knows %zu, and what follows is not 0: "
                              "the program was made for a later version; install that",
                              name, size, clsplat_version(), bytes);
    memcpy(own, given, smaller(size, bytes));
    memcpy(own, &bytes, sizeof bytes);
    return CLSPLAT_OK;
}

void sized_write(const void *own, size_t bytes, void *given) {
    size_t size = size_of(given), shared = smaller(size, bytes), head = sizeof size;
    if (shared > head)
        memcpy((char *)given + head, (const char *)own + head, shared - head);
    if (size > bytes)
        memset((char *)given + bytes, 0, size - bytes);
}
