#include "cli/output.h"

#include <sys/stat.h>

#include "base/file.h"

clsplat_status output_check(clsplat *lib, const char *path) {
    struct stat there;
    if (stat(path, &there) == 0 && !S_ISREG(there.st_mode))
        return log_error(lib, CLSPLAT_IO, "%s: this is %s; the output must be the name of a file", path,
                         S_ISDIR(there.st_mode) ? "a folder" : "not an ordinary file");
    file_writer probe;
    clsplat_status status = file_create(lib, path, &probe);
    file_discard(&probe);
    return status;
}
