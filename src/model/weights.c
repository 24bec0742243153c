#include "model/weights.h"

#include <stdlib.h>
#include <string.h>

#include "model/weights_plan.h"
#include "runtime/buffer.h"

enum { PIECE = 16 << 20 };
static const double MIB = 1024.0 * 1024.0;

static clsplat_status check_memory(clsplat_device *device, const char *folder, const weight_plan *plan,
                                   uint64_t bytes) {
    const clsplat_limits *limits = &device->info.limits;
    uint64_t held = clsplat_device_memory(device).now;
    if (bytes > limits->global_memory - held || held > limits->global_memory)
        return log_error(device->lib, CLSPLAT_MEMORY,
                         "%s: its weights need %.1f MiB; %s has %.1f MiB, of which %.1f are in use", folder,
                         (double)bytes / MIB, device->info.name, (double)limits->global_memory / MIB,
                         (double)held / MIB);
    for (size_t i = 0; i < plan->count; ++i)
        if (plan->targets[i].bytes > limits->max_allocation)
            return log_error(
                device->lib, CLSPLAT_MEMORY,
                "%s: tensor '%s' is part of a matrix of %.1f MiB; %s allows %.1f MiB in one piece", folder,
                plan->targets[i].parts[0].entry->name, (double)plan->targets[i].bytes / MIB,
                device->info.name, (double)limits->max_allocation / MIB);
    return CLSPLAT_OK;
}

/* Uploads in pieces, between which the caller may stop. */
typedef struct upload {
    queue q;
    const model_folder *folder;
    const clsplat_model_options *options;
    uint64_t done, total;
} upload;

/* Row 2i + j of a head's rows in pairs is row j·D/2 + i of its halves, which op_rope turns. NULL without
 * memory. */
static char *order_halves(const model_tensor *part, const char *pairs) {
    size_t rows = (size_t)part->entry->shape[0], bytes = (size_t)part->entry->bytes / rows;
    size_t dim = rows / part->heads;
    char *halves = malloc((size_t)part->entry->bytes);
    for (size_t row = 0; halves && row < rows; ++row) {
        size_t head = row / dim, pair = row % dim / 2, side = row % dim % 2;
        memcpy(halves + (head * dim + side * (dim / 2) + pair) * bytes, pairs + row * bytes, bytes);
    }
    return halves;
}

/* `count` bytes of a tensor of the file, from `begin` on, to `offset` of a buffer. */
static clsplat_status upload_part(upload *u, const model_tensor *part, size_t begin, size_t count, cl_mem mem,
                                  size_t offset) {
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = u->q.device->lib;
    const void *bytes = NULL;
    char *halves = NULL;
    TRY(model_folder_map(lib, u->folder, part, &bytes));
    if (part->heads) {
        halves = order_halves(part, bytes);
        if (!halves)
            TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory to order the rows of '%s'",
                          model_folder_path_of(u->folder, part), part->entry->name));
        bytes = halves;
    }
    for (size_t at = 0, piece; at < count; at += piece) {
        piece = count - at < PIECE ? count - at : PIECE;
        TRY(queue_upload(&u->q, (queue_copy){.mem = mem,
                                             .mem_offset = offset + at,
                                             .host = (char *)bytes + begin + at,
                                             .row = piece,
                                             .rows = 1}));
        u->done += piece;
        if (u->options->progress &&
            !u->options->progress(u->options->progress_user, (double)u->done / (double)u->total))
            TRY(log_error(lib, CLSPLAT_CANCELLED, "stopped by the caller"));
    }
fail:
    free(halves);
    return status;
}

static clsplat_status upload_all(clsplat_device *device, const model_folder *folder, const weight_plan *plan,
                                 uint64_t bytes, const clsplat_model_options *options) {
    clsplat_status status = CLSPLAT_OK;
    upload u = {.folder = folder, .options = options, .total = bytes};
    queue_begin(device, 0, NULL, &u.q);
    for (size_t i = 0; i < plan->count; ++i) {
        const weight_target *target = &plan->targets[i];
        size_t offset = 0;
        TRY(buffer_create(device, target->bytes, &target->tensor->mem));
        for (size_t part = 0; part < target->count; ++part) {
            size_t count = target->count == 1 ? target->bytes : (size_t)target->parts[part].entry->bytes;
            TRY(upload_part(&u, &target->parts[part], target->begin, count, target->tensor->mem, offset));
            offset += count;
        }
    }
fail:
    return status;
}

clsplat_status model_weights_load(clsplat_device *device, const char *folder, const model_config *config,
                                  const clsplat_model_options *options, model_weights *weights) {
    clsplat_status status = CLSPLAT_OK;
    clsplat *lib = device->lib;
    model_folder *files = NULL;
    *weights = (model_weights){0};
    TRY(model_folder_open(lib, folder, &files));
    weights->layers = calloc(config->layers, sizeof *weights->layers);
    if (!weights->layers)
        TRY(log_error(lib, CLSPLAT_MEMORY, "%s: no memory for its list of tensors", folder));
    TRY(weight_plan_make(lib, files, config, device->info.limits.max_allocation, weights, &weights->plan));
    for (size_t i = 0; i < weights->plan->count; ++i)
        weights->bytes += weights->plan->targets[i].bytes;
    weights->parameters = weights->plan->parameters;
    TRY(check_memory(device, folder, weights->plan, weights->bytes));
    TRY(upload_all(device, files, weights->plan, weights->bytes, options));
    TRY(clsplat_device_finish(device)); /* the uploads are looked at once, for every session to come */
    weights->plan->frequency_bytes = config->head_dim / 2 * sizeof(float);
    for (size_t i = 0; config->frequencies && i < (config->short_context || config->local_turn ? 2 : 1); ++i)
        TRY(buffer_create_from(device, weights->plan->frequency_bytes,
                               config->frequencies + i * (config->head_dim / 2), &weights->frequencies[i]));
    if (weights->plan->tied && (!config->names->head_dense || weights->head_dense.mem))
        memcpy(weights->head, weights->embedding, sizeof weights->head);
fail:
    model_folder_close(&files);
    if (status != CLSPLAT_OK)
        model_weights_free(device, weights);
    return status;
}

void model_weights_free(clsplat_device *device, model_weights *weights) {
    weight_plan *plan = weights->plan;
    for (size_t i = 0; plan && i < plan->count; ++i)
        buffer_release(device, plan->targets[i].bytes, &plan->targets[i].tensor->mem);
    for (size_t i = 0; plan && i < 2; ++i)
        buffer_release(device, plan->frequency_bytes, &weights->frequencies[i]);
    weight_plan_free(plan);
    free(weights->layers);
    *weights = (model_weights){0};
}
