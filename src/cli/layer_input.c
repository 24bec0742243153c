#include "cli/layer_input.h"

#include "base/log.h"

clsplat_status layer_input_read(clsplat *lib, const char *path, layer_input *t) {
    clsplat_status status = CLSPLAT_OK;
    TRY(safetensors_open(lib, path, &t->file));
    TRY(input_find(lib, t->file, "q", 4, &t->q));
    TRY(input_find(lib, t->file, "k", 4, &t->k));
    TRY(input_find(lib, t->file, "v", 4, &t->v));
    TRY(input_match(lib, &t->k, &t->q, INPUT_BATCH));
    TRY(input_match(lib, &t->k, &t->q, INPUT_COLUMNS));
    TRY(input_match_heads(lib, &t->q, &t->k));
    for (int d = INPUT_BATCH; d <= INPUT_ROWS; ++d)
        TRY(input_match(lib, &t->v, &t->k, d));
    TRY(input_find_optional(lib, t->file, "key_bias", 3, &t->key_bias));
    for (int d = INPUT_BATCH; d <= INPUT_ROWS && t->key_bias.entry; ++d)
        TRY(input_match(lib, &t->key_bias, &t->k, d));
    TRY(input_read_finite(lib, &t->key_bias, true));
    TRY(input_read_finite(lib, &t->q, false));
    TRY(input_read_finite(lib, &t->k, false));
    TRY(input_read_finite(lib, &t->v, false));
fail:
    return status;
}

void layer_input_free(layer_input *t) {
    input_free(&t->q);
    input_free(&t->k);
    input_free(&t->v);
    input_free(&t->key_bias);
    safetensors_close(&t->file);
}

clsplat_attention_tensors layer_input_tensors(const layer_input *t) {
    return (clsplat_attention_tensors){
        .q = t->q.tensor, .k = t->k.tensor, .v = t->v.tensor, .key_bias = t->key_bias.tensor};
}
