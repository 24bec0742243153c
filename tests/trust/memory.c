/* Memory that runs out on purpose (LD_PRELOAD): for clsplat, its library, Jansson and popt, not for drivers.
 *
 *     LD_PRELOAD=…/memory.so CLSPLAT_MEMORY=once:17 CLSPLAT_MEMORY_REPORT=report.txt clsplat …
 *
 * CLSPLAT_MEMORY is once:N (the Nth allocation fails), from:N (it and all after it) or never; N from 1. The
 * report tells how many allocations there were, how many failed, and how many blocks were never freed. */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trust/ours.h"

/* glibc's own names for what is replaced here. */
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void __libc_free(void *);

enum { SLOTS = 1 << 20 };
static long at, calls, injected, left;
static bool from;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uintptr_t slots[SLOTS]; /* blocks of ours; 1 where one was freed */

__attribute__((constructor)) static void begin(void) {
    const char *words = getenv("CLSPLAT_MEMORY");
    char mode[8] = "";
    ours_find();
    if (words && sscanf(words, "%7[a-z]:%ld", mode, &at) == 2)
        from = strcmp(mode, "from") == 0;
}

__attribute__((destructor)) static void report(void) {
    const char *path = getenv("CLSPLAT_MEMORY_REPORT");
    long blocks = left;
    FILE *to = path ? fopen(path, "w") : NULL;
    if (!to)
        return;
    fprintf(to, "allocations %ld\ninjected %ld\nleft blocks %ld\n", calls, injected, blocks);
    fclose(to);
}

static bool fails(void) {
    pthread_mutex_lock(&mutex);
    long n = ++calls;
    bool now = at && (from ? n >= at : n == at);
    injected += now;
    pthread_mutex_unlock(&mutex);
    if (now)
        errno = ENOMEM;
    return now;
}

static size_t slot_of(uintptr_t p) {
    return (size_t)((p >> 4) * 0x9E3779B97F4A7C15u >> 44) % SLOTS;
}

static void *keep(void *p) {
    if (!p)
        return NULL;
    pthread_mutex_lock(&mutex);
    size_t i = slot_of((uintptr_t)p);
    while (slots[i] > 1)
        i = (i + 1) % SLOTS;
    slots[i] = (uintptr_t)p;
    left++;
    pthread_mutex_unlock(&mutex);
    return p;
}

static void forget(void *p) {
    if (!p || !left)
        return;
    pthread_mutex_lock(&mutex);
    for (size_t i = slot_of((uintptr_t)p); slots[i]; i = (i + 1) % SLOTS)
        if (slots[i] == (uintptr_t)p) {
            slots[i] = 1;
            left--;
            break;
        }
    pthread_mutex_unlock(&mutex);
}

void *malloc(size_t bytes) {
    if (!ours(__builtin_return_address(0)))
        return __libc_malloc(bytes);
    return fails() ? NULL : keep(__libc_malloc(bytes));
}

void *calloc(size_t count, size_t bytes) {
    if (!ours(__builtin_return_address(0)))
        return __libc_calloc(count, bytes);
    return fails() ? NULL : keep(__libc_calloc(count, bytes));
}

void *realloc(void *old, size_t bytes) {
    bool mine = ours(__builtin_return_address(0));
    if (mine && fails())
        return NULL;
    forget(old);
    void *p = __libc_realloc(old, bytes);
    if (!p && bytes && old && mine)
        return keep(old), NULL;
    return mine ? keep(p) : p;
}

void free(void *p) {
    forget(p);
    __libc_free(p);
}

static char *copy(const char *s, size_t length) {
    char *p = __libc_malloc(length + 1);
    if (p) {
        memcpy(p, s, length);
        p[length] = '\0';
    }
    return p;
}

char *strdup(const char *s) {
    if (!ours(__builtin_return_address(0)))
        return copy(s, strlen(s));
    return fails() ? NULL : keep(copy(s, strlen(s)));
}

char *strndup(const char *s, size_t most) {
    if (!ours(__builtin_return_address(0)))
        return copy(s, strnlen(s, most));
    return fails() ? NULL : keep(copy(s, strnlen(s, most)));
}
