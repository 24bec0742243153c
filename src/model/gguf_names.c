/* Names of tensors in GGUF files and in folders. Source: gguf-py's tensor_mapping.py. */
#include <stdio.h>
#include <string.h>

#include "model/gguf_model.h"

typedef struct pair {
    const char *file, *folder;
} pair;

static const pair beside[] = {{"token_embd", "model.embed_tokens"},
                              {"output_norm", "model.norm"},
                              {"output", "lm_head"},
                              {"rope_freqs", "model.rotary_emb.inv_freq"}};
static const pair in_layers[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"}};
enum { BESIDE = sizeof beside / sizeof *beside, IN_LAYERS = sizeof in_layers / sizeof *in_layers };

/* The other side of the entry for the first `count` bytes of a name; NULL: there is none. */
static const char *other(const pair *list, size_t entries, const char *name, size_t count, bool to_folder) {
    for (size_t i = 0; i < entries; ++i) {
        const char *from = to_folder ? list[i].file : list[i].folder;
        if (strlen(from) == count && memcmp(from, name, count) == 0)
            return to_folder ? list[i].folder : list[i].file;
    }
    return NULL;
}

static gguf_name translate(const char *name, bool to_folder) {
    static const char *const prefix[] = {"model.layers.", "blk."};
    const char *from = prefix[to_folder], *to = prefix[!to_folder];
    gguf_name result;
    size_t layer = 0;
    snprintf(result.bytes, sizeof result.bytes, "%s", name);
    const char *dot = strrchr(name, '.'), *rest = name;
    if (!dot)
        return result;
    bool is_layer = strncmp(name, from, strlen(from)) == 0;
    if (is_layer) {
        rest = name + strlen(from);
        layer = strspn(rest, "0123456789");
        if (layer == 0 || layer > 9 || rest[layer] != '.' || rest + layer == dot)
            return result;
        rest += layer + 1;
    }
    const char *found = other(is_layer ? in_layers : beside, is_layer ? IN_LAYERS : BESIDE, rest,
                              (size_t)(dot - rest), to_folder);
    if (found)
        snprintf(result.bytes, sizeof result.bytes, "%s%.*s%s%s", is_layer ? to : "",
                 (int)(layer ? layer + 1 : 0), layer ? name + strlen(from) : "", found, dot);
    return result;
}

gguf_name gguf_name_in_folder(const char *name) {
    return translate(name, true);
}

gguf_name gguf_name_in_file(const char *name) {
    return translate(name, false);
}
