#include "runtime/causes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static bool out_of_files(void) {
    int descriptor = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (descriptor >= 0)
        close(descriptor);
    return descriptor < 0 && (errno == EMFILE || errno == ENFILE);
}

/* As much as a driver with its compiler takes: LLVM's library alone is 100 MiB. */
static bool out_of_memory(void) {
    enum { BYTES = 256 << 20 };
    void *map = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return true;
    munmap(map, BYTES);
    return false;
}

causes causes_find(void) {
    causes c = {""};
    if (out_of_files())
        snprintf(c.words, sizeof c.words,
                 " (this process may open no more files: close some, or raise the limit, `ulimit -n`)");
    else if (out_of_memory())
        snprintf(c.words, sizeof c.words,
                 " (this process gets no more memory: see `ulimit -v`, and what is free)");
    return c;
}
