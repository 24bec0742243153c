#include "train/keep.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"

enum { NAME = 32, FILE_LIMIT = 1 << 20 };
static const char *const files[] = {"config.json", "model.safetensors"};

static clsplat_status copy_config(clsplat *lib, const char *from, const char *to) {
    clsplat_status status = CLSPLAT_OK;
    text source = {0}, target = {0};
    file_writer file = {.descriptor = -1};
    char *bytes = NULL;
    size_t count = 0;
    text_add(&source, "%s/%s", from, files[0]);
    text_add(&target, "%s/%s", to, files[0]);
    if (!text_ok(&source) || !text_ok(&target))
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its path", to));
    TRY(file_load(lib, source.data, FILE_LIMIT, &bytes, &count));
    TRY(file_create(lib, target.data, &file));
    TRY(file_write(lib, &file, bytes, count));
    TRY(file_commit(lib, &file));
fail:
    file_discard(&file);
    text_free(&source);
    text_free(&target);
    free(bytes);
    return status;
}

/* "step-" and digits. */
static bool is_step(const char *name) {
    size_t digits = strncmp(name, "step-", 5) == 0 ? strspn(name + 5, "0123456789") : 0;
    return digits >= 8 && digits < NAME - 8 && name[5 + digits] == '\0';
}

/* How many steps are kept, and the oldest. */
static size_t look(const char *folder, char oldest[NAME]) {
    size_t count = 0;
    DIR *list = opendir(folder);
    for (struct dirent *entry; list && (entry = readdir(list));) {
        if (!is_step(entry->d_name))
            continue;
        if (count == 0 || strtoull(entry->d_name + 5, NULL, 10) < strtoull(oldest + 5, NULL, 10))
            snprintf(oldest, NAME, "%s", entry->d_name);
        ++count;
    }
    if (list)
        closedir(list);
    return count;
}

/* What was put there, and the folder, if that was all. */
static bool remove_step(const char *folder, const char *name) {
    text path = {0};
    bool gone = false;
    for (size_t i = 0; i < sizeof files / sizeof *files; ++i) {
        text_free(&path);
        path = (text){0};
        text_add(&path, "%s/%s/%s", folder, name, files[i]);
        if (text_ok(&path))
            unlink(path.data);
    }
    text_free(&path);
    path = (text){0};
    text_add(&path, "%s/%s", folder, name);
    gone = text_ok(&path) && rmdir(path.data) == 0;
    text_free(&path);
    return gone;
}

clsplat_status train_keep(const trainee *t, const char *folder, uint64_t step, size_t most) {
    clsplat_status status = CLSPLAT_OK;
    text path = {0};
    char oldest[NAME];
    text_add(&path, "%s/step-%08llu", folder, (unsigned long long)step);
    if (!text_ok(&path))
        TRY(log_error(t->device->lib, CLSPLAT_MEMORY, "%s: no memory for its path", folder));
    file_make_folder(path.data);
    TRY(copy_config(t->device->lib, folder, path.data));
    TRY(checkpoint_save_model(t, path.data));
    while (look(folder, oldest) > most)
        if (!remove_step(folder, oldest)) {
            log_warning(t->device->lib, "%s/%s cannot be removed, and stays", folder, oldest);
            break;
        }
fail:
    text_free(&path);
    return status;
}
