#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "format/json.h"
#include "format/safetensors.h"

static uint64_t bytes_of(const safetensors_output *t) {
    uint64_t bytes = safetensors_dtype_bytes(t->dtype);
    assert(bytes > 0 && t->rank <= SAFETENSORS_MAX_RANK);
    for (size_t i = 0; i < t->rank; ++i)
        bytes *= t->shape[i];
    return bytes;
}

static clsplat_status no_memory(clsplat *lib, const char *path) {
    return log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its header", path);
}

static clsplat_status add_metadata(clsplat *lib, const char *path, json_t *header,
                                   const char *const (*metadata)[2], size_t pairs) {
    json_t *about = json_object();
    for (size_t i = 0; i < pairs; ++i)
        if (json_object_set_new(about, metadata[i][0], json_string(metadata[i][1])) != 0) {
            json_decref(about);
            return log_error(lib, CLSPLAT_INVALID, "%s: the metadata '%s' cannot be written; is '%s' UTF-8?",
                             path, metadata[i][0], text_show(metadata[i][1]).bytes);
        }
    return json_object_set_new(header, "__metadata__", about) == 0 ? CLSPLAT_OK : no_memory(lib, path);
}

static clsplat_status add_tensor(clsplat *lib, const char *path, json_t *header, const safetensors_output *t,
                                 uint64_t begin) {
    json_t *shape = json_array();
    int failed = 0;
    for (size_t i = 0; i < t->rank; ++i)
        failed |= json_array_append_new(shape, json_integer((json_int_t)t->shape[i]));
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", t->dtype, "shape", shape, "data_offsets",
                              (json_int_t)begin, (json_int_t)(begin + bytes_of(t)));
    failed |= json_object_set_new(header, t->name, entry);
    return failed ? no_memory(lib, path) : CLSPLAT_OK;
}

/* The length and the header, padded with spaces to a multiple of 8 so that the data are aligned. */
static clsplat_status write_header(clsplat *lib, file_writer *file, const json_t *header) {
    clsplat_status status = CLSPLAT_OK;
    unsigned char prefix[8];
    text padded = {0};
    char *compact = json_write(header, JSON_COMPACT);
    if (compact)
        text_add(&padded, "%s%*s", compact, (int)(-strlen(compact) % 8), "");
    if (!compact || !text_ok(&padded)) {
        status = no_memory(lib, file->path);
        goto fail;
    }
    for (int i = 0; i < 8; ++i)
        prefix[i] = (unsigned char)((uint64_t)padded.length >> 8 * i);
    TRY(file_write(lib, file, prefix, sizeof prefix));
    TRY(file_write(lib, file, padded.data, padded.length));
fail:
    text_free(&padded);
    free(compact);
    return status;
}

clsplat_status safetensors_save_parts(clsplat *lib, const char *path, const safetensors_parts *parts,
                                      const char *const (*metadata)[2], size_t pairs) {
    clsplat_status status = CLSPLAT_OK;
    file_writer file = {.descriptor = -1};
    json_t *header = json_object();
    uint64_t begin = 0;
    if (pairs > 0)
        TRY(add_metadata(lib, path, header, metadata, pairs));
    for (size_t i = 0; i < parts->count; ++i) {
        TRY(add_tensor(lib, path, header, &parts->tensors[i], begin));
        begin += bytes_of(&parts->tensors[i]);
    }
    TRY(file_create(lib, path, &file));
    TRY(write_header(lib, &file, header));
    for (size_t i = 0; i < parts->count; ++i)
        TRY(parts->write(parts->user, i, &file));
    TRY(file_commit(lib, &file));
fail:
    file_discard(&file);
    json_decref(header);
    return status;
}

/* Tensors that lie in memory. */
typedef struct whole {
    clsplat *lib;
    const safetensors_output *tensors;
} whole;

static clsplat_status write_whole(void *user, size_t index, file_writer *file) {
    const whole *w = user;
    const safetensors_output *t = &w->tensors[index];
    return file_write(w->lib, file, t->data, (size_t)bytes_of(t));
}

clsplat_status safetensors_save(clsplat *lib, const char *path, const safetensors_output *tensors,
                                size_t count, const char *const (*metadata)[2], size_t pairs) {
    whole w = {lib, tensors};
    safetensors_parts parts = {tensors, count, write_whole, &w};
    return safetensors_save_parts(lib, path, &parts, metadata, pairs);
}
