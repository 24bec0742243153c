/* From tensors of a file to buffers: as many as a device's largest buffer asks for. */
#include <string.h>

#include "model/weights_plan.h"

static op_tensor tensor_of(size_t columns, size_t size, clsplat_dtype dtype) {
    size_t rows = columns ? size : 1, across = columns ? columns : size;
    return (op_tensor){
        .dtype = dtype, .shape = {1, 1, rows, across}, .stride = {rows * across, rows * across, across}};
}

/* Plans a buffer for parts of one type, one below the other. */
static void plan_whole(weight_plan *plan, weight_place *to, size_t columns, const model_tensor *parts,
                       size_t count) {
    weight_target *target = &plan->targets[plan->count++];
    clsplat_dtype dtype = CLSPLAT_F32;
    size_t size = 0;
    *target = (weight_target){.tensor = to->tensors, .count = count};
    for (size_t i = 0; i < count; ++i) {
        target->parts[i] = parts[i];
        target->bytes += parts[i].entry->bytes;
        size += (size_t)parts[i].entry->shape[0];
    }
    op_dtype_named(parts[0].entry->dtype, &dtype);
    *to->tensors++ = tensor_of(columns, size, dtype);
    --to->room;
}

/* The same for one part, in `pieces` buffers of about as many rows each. */
static void plan_pieces(weight_plan *plan, weight_place *to, size_t columns, const model_tensor *part,
                        size_t pieces) {
    size_t rows = (size_t)part->entry->shape[0], row = (size_t)part->entry->bytes / rows;
    for (size_t piece = 0; piece < pieces; ++piece) {
        size_t first = rows * piece / pieces, end = rows * (piece + 1) / pieces;
        op_tensor *tensor = to->tensors;
        plan_whole(plan, to, columns, part, 1);
        weight_target *target = &plan->targets[plan->count - 1];
        target->begin = first * row;
        target->bytes = (end - first) * row;
        *tensor = tensor_of(columns, end - first, tensor->dtype);
    }
    plan->cut = true;
}

/* How many buffers a part needs; 0: not even a row has room. */
static size_t pieces_of(const weight_plan *plan, const model_tensor *part) {
    uint64_t rows = part->entry->shape[0], fit = plan->limit / (part->entry->bytes / rows);
    return fit ? (size_t)((rows + fit - 1) / fit) : 0;
}

size_t weight_plan_alike(weight_plan *plan, weight_place *to, size_t columns, const model_tensor *parts,
                         size_t count) {
    uint64_t bytes = 0;
    size_t alike = 0, pieces = 0;
    for (; alike < count && strcmp(parts[alike].entry->dtype, parts[0].entry->dtype) == 0; ++alike) {
        bytes += parts[alike].entry->bytes;
        pieces += pieces_of(plan, &parts[alike]);
        plan->parameters += parts[alike].entry->count;
    }
    if (!columns || bytes <= plan->limit || pieces < alike || pieces + (count - alike) > to->room) {
        plan_whole(plan, to, columns, parts, alike);
        return alike;
    }
    for (size_t i = 0; i < alike; ++i)
        plan_pieces(plan, to, columns, &parts[i], pieces_of(plan, &parts[i]));
    return alike;
}
