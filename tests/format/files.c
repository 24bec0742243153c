#include "format/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

files files_begin(const char *name) {
    files f = {.lib = suite_library(), .folder = suite_folder()};
    ck_assert_int_gt(asprintf(&f.path, "%s/%s", f.folder, name), 0);
    return f;
}

void files_end(files *f) {
    clsplat_destroy(&f->lib);
    suite_remove(f->folder);
    free(f->path);
}

void files_put(const files *f, const void *bytes, size_t count) {
    unlink(f->path); /* a file that is cut to nothing and written again waits for the disk */
    FILE *file = fopen(f->path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, count, file), count);
    ck_assert_int_eq(fclose(file), 0);
}

void files_expect_words(const files *f, const char *words) {
    const char *error = clsplat_last_error(f->lib);
    ck_assert_msg(strncmp(error, f->path, strlen(f->path)) == 0, "%s", error);
    ck_assert_msg(strstr(error, words) != NULL, "%s: not said in: %s", words, error);
    for (const char *c = error; *c; ++c)
        if (*c < ' ' || *c > '~')
            ck_abort_msg("byte %d in an error", *c);
    ck_assert_uint_lt(strlen(error), strlen(f->path) + 400);
}
