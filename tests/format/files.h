/* What the tests of file formats share: a library handle, a folder, and one file in it. */
#ifndef CLSPLAT_TESTS_FORMAT_FILES_H
#define CLSPLAT_TESTS_FORMAT_FILES_H

#include "suite.h"

typedef struct files {
    clsplat *lib;
    char *folder, *path;
} files;

files files_begin(const char *name);
void files_end(files *f);

/* Makes the file anew. */
void files_put(const files *f, const void *bytes, size_t count);

/* The last error begins with the file's path, goes on with `words` somewhere, and is one line of at most 400
 * printable characters more. */
void files_expect_words(const files *f, const char *words);

#endif
