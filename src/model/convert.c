#include "model/convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "model/convert_parts.h"

enum { BUFFER = 1 << 20 };

static bool ends_with(const char *words, const char *end) {
    size_t a = strlen(words), b = strlen(end);
    return a >= b && strcmp(words + a - b, end) == 0;
}

static clsplat_status refuse(const conversion *c, const model_tensor *t, const char *problem) {
    return log_error(c->lib, CLSPLAT_UNSUPPORTED, "%s: tensor '%s' %s", model_folder_path_of(c->folder, t),
                     text_show(t->entry->name).bytes, problem);
}

/* The type that a tensor gets. */
static clsplat_status choose_type(const conversion *c, convert_tensor *t) {
    const safetensors_entry *e = t->source.entry;
    const block_type *wanted = c->request->type ? c->request->type : t->from;
    bool matrix = e->rank == 2, packed = c->packed;
    if (!packed && wanted->numbers > 1)
        wanted = block_type_named("F32");
    if (packed && !matrix)
        wanted = block_type_named("F32");
    if (matrix && c->request->type && wanted->numbers > 1 && wanted->bytes * 8 < wanted->numbers * 8 &&
        (strstr(e->name, "embed_tokens") || strstr(e->name, "lm_head")))
        wanted = block_type_named("Q8_0");
    if (t->columns % wanted->numbers != 0)
        wanted = block_type_named("F16");
    if (wanted != t->from && !wanted->write)
        return refuse(c, &t->source,
                      "would have to be made of a type that can only be read; q8_0, q5_1, q5_0, q4_1, "
                      "q4_0, bf16, f16 and f32 can be made");
    t->to = wanted;
    return CLSPLAT_OK;
}

static clsplat_status add_tensor(conversion *c, const model_tensor *source) {
    const safetensors_entry *e = source->entry;
    convert_tensor *t = &c->tensors[c->count];
    bool paired = c->packed && c->pairs && !c->from_packed;
    *t = (convert_tensor){.source = *source, .from = block_type_named(e->dtype)};
    if (!t->from)
        return refuse(c, source, "is of a type that is none of a model's weights");
    if (e->rank < 1 || e->rank > 2 || e->shape[0] == 0 || (e->rank == 2 && e->shape[1] == 0))
        return refuse(c, source, "is neither a vector nor a matrix");
    if (strstr(e->name, "rotary_emb.inv_freq") && !(c->from_packed && c->packed))
        return CLSPLAT_OK;
    bool q = strstr(e->name, "self_attn.q_proj.") != NULL, k = strstr(e->name, "self_attn.k_proj.") != NULL;
    t->heads = paired && q ? c->heads : paired && k ? c->kv_heads : c->packed ? 0 : source->heads;
    t->to_pairs = paired;
    bool by_number = e->rank == 1 && t->heads > 0;
    t->columns = (size_t)(e->rank == 2 ? e->shape[1] : by_number ? 1 : e->shape[0]);
    t->rows = (size_t)(e->rank == 2 || by_number ? e->shape[0] : 1);
    if (t->heads && t->rows % (2 * t->heads) != 0)
        return refuse(c, source, "has rows that are no whole heads");
    ++c->count;
    return choose_type(c, t);
}

/* The source's row of a row that is written: pairs stand as 2i + j where halves have j·D/2 + i. */
static size_t row_of(const convert_tensor *t, size_t row) {
    if (!t->heads)
        return row;
    size_t dim = t->rows / t->heads, head = row / dim * dim, at = row % dim;
    return t->to_pairs ? head + at % 2 * (dim / 2) + at / 2 : head + at % (dim / 2) * 2 + at / (dim / 2);
}

static size_t row_bytes(const block_type *type, size_t columns) {
    return columns / type->numbers * type->bytes;
}

static void convert_row(const convert_tensor *t, const char *source, float *numbers, char *to) {
    if (t->from == t->to) {
        memcpy(to, source, row_bytes(t->to, t->columns));
        return;
    }
    blocks_read(t->from, source, t->columns, numbers);
    blocks_write(t->to, numbers, t->columns, to);
}

static clsplat_status write_tensor(void *user, size_t index, file_writer *file) {
    clsplat_status status = CLSPLAT_OK;
    conversion *c = user;
    const convert_tensor *t = &c->tensors[index];
    if (t->own)
        return file_write(c->lib, file, t->own, t->columns * sizeof *t->own);
    const void *source = NULL;
    size_t bytes = row_bytes(t->to, t->columns), at_once = bytes < BUFFER ? BUFFER / bytes : 1;
    float *numbers = malloc(t->columns * sizeof *numbers);
    char *buffer = malloc(at_once * bytes);
    if (!numbers || !buffer)
        TRY(log_error(c->lib, CLSPLAT_MEMORY, "%s: no memory to convert '%s'", c->request->from,
                      t->source.entry->name));
    TRY(model_folder_map(c->lib, c->folder, &t->source, &source));
    for (size_t row = 0, part; row < t->rows; row += part) {
        part = t->rows - row < at_once ? t->rows - row : at_once;
        for (size_t i = 0; i < part; ++i)
            convert_row(t, (const char *)source + row_of(t, row + i) * row_bytes(t->from, t->columns),
                        numbers, buffer + i * bytes);
        TRY(file_write(c->lib, file, buffer, part * bytes));
    }
    if (c->request->progress &&
        !c->request->progress(c->request->progress_user, (double)(index + 1) / (double)c->count))
        TRY(log_error(c->lib, CLSPLAT_CANCELLED, "stopped by the caller"));
fail:
    free(numbers);
    free(buffer);
    return status;
}

static clsplat_status list_tensors(conversion *c) {
    clsplat_status status = CLSPLAT_OK;
    size_t all = 0;
    while (model_folder_at(c->folder, all).entry)
        ++all;
    c->tensors = calloc(all + 2, sizeof *c->tensors);
    if (!c->tensors)
        return log_error(c->lib, CLSPLAT_MEMORY, "%s: no memory for its list of tensors", c->request->from);
    for (size_t i = 0; i < all; ++i) {
        model_tensor source = model_folder_at(c->folder, i);
        TRY(add_tensor(c, &source));
    }
    if (c->divisors) {
        const block_type *f32 = block_type_named("F32");
        c->tensors[c->count++] = (convert_tensor){
            .from = f32, .to = f32, .rows = 1, .columns = c->config.head_dim / 2, .own = c->divisors};
    }
fail:
    return status;
}

static clsplat_status save_safetensors(conversion *c) {
    static const char *const metadata[][2] = {{"format", "pt"}};
    clsplat_status status = CLSPLAT_OK;
    safetensors_output *outputs = calloc(c->count + 1, sizeof *outputs);
    safetensors_parts parts = {outputs, c->count, write_tensor, c};
    if (!outputs)
        return log_error(c->lib, CLSPLAT_MEMORY, "%s: no memory for its list of tensors", c->request->to);
    for (size_t i = 0; i < c->count; ++i) {
        const safetensors_entry *e = c->tensors[i].source.entry;
        outputs[i] = (safetensors_output){.name = e->name, .dtype = c->tensors[i].to->name, .rank = e->rank};
        memcpy(outputs[i].shape, e->shape, sizeof e->shape);
    }
    TRY(safetensors_save_parts(c->lib, c->request->to, &parts, metadata, 1));
    TRY(convert_save_folder(c));
fail:
    free(outputs);
    return status;
}

static void describe(const convert_tensor *t, gguf_name *name, gguf_tensor *output) {
    const safetensors_entry *e = t->source.entry;
    *name = gguf_name_in_file(t->own ? "model.rotary_emb.inv_freq.weight" : e->name);
    *output = (gguf_tensor){.name = name->bytes,
                            .type = t->to,
                            .rank = t->own ? 1 : e->rank,
                            .shape = {t->own ? t->columns : e->shape[e->rank - 1], t->own ? 1 : e->shape[0]},
                            .bytes = t->rows * row_bytes(t->to, t->columns)};
}

static clsplat_status save_gguf(conversion *c) {
    clsplat_status status = CLSPLAT_OK;
    gguf_values values = {0};
    gguf_tensor *outputs = calloc(c->count + 1, sizeof *outputs);
    gguf_name *names = calloc(c->count + 1, sizeof *names);
    if (!outputs || !names)
        TRY(log_error(c->lib, CLSPLAT_MEMORY, "%s: no memory for its list of tensors", c->request->to));
    for (size_t i = 0; i < c->count; ++i)
        describe(&c->tensors[i], &names[i], &outputs[i]);
    TRY(convert_values(c, &values));
    TRY(gguf_save(c->lib, c->request->to, &(gguf_content){&values, outputs, c->count, write_tensor, c}));
fail:
    text_free(&values.bytes);
    free(outputs);
    free(names);
    return status;
}

clsplat_status model_convert(clsplat *lib, const convert_request *request) {
    clsplat_status status = CLSPLAT_OK;
    conversion c = {.lib = lib, .request = request, .packed = ends_with(request->to, ".gguf")};
    if (!c.packed && !ends_with(request->to, ".safetensors"))
        return log_error(lib, CLSPLAT_INVALID, "%s: must end in .gguf or .safetensors", request->to);
    if (!c.packed && request->type && request->type->numbers > 1)
        return log_error(lib, CLSPLAT_INVALID,
                         "%s: blocks of type %s are for .gguf; here f32, f16 and bf16 are possible",
                         request->to, request->type->name);
    TRY(model_folder_open(lib, request->from, &c.folder));
    TRY(convert_read(&c));
    TRY(list_tensors(&c));
    TRY(c.packed ? save_gguf(&c) : save_safetensors(&c));
fail:
    convert_free(&c);
    free(c.tensors);
    model_folder_close(&c.folder);
    return status;
}
