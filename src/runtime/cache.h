/* The binary cache: opaque bytes under a key, in files that may be damaged, foreign or gone at any
 * time. Any doubt is a miss. */
#ifndef CLSPLAT_RUNTIME_CACHE_H
#define CLSPLAT_RUNTIME_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"

/* Where: $XDG_CACHE_HOME/clsplat, or $HOME/.cache/clsplat. Off: CLSPLAT_CACHE=off, or neither is set.
 * File: named by the 128-bit hash of the key; holds magic, format version, the whole key, the
 * payload's length and hash, the payload. Written under a temporary name and renamed.
 * Size: at most CACHE_LIMIT bytes; the least recently used files go first (a hit renews a file's time). */
enum { CACHE_LIMIT = 256 << 20 };

/* False if it is off, or nobody knows where: then nobody need ask for binaries, for which PoCL compiles every
 * kernel of a program a second time, for groups of any size. */
bool cache_wanted(void);
/* True with *bytes (to be freed by the caller) and *count for a hit. Never an error. */
bool cache_get(clsplat *lib, const void *key, size_t key_bytes, void **bytes, size_t *count);
/* Failures are logged as warnings once they mean something to a user (an unwritable folder), and are
 * otherwise silent. */
void cache_put(clsplat *lib, const void *key, size_t key_bytes, const void *bytes, size_t count);
/* Removes least recently used files until at most `limit` bytes are left. */
void cache_evict(clsplat *lib, uint64_t limit);

#endif
