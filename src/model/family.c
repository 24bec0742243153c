#include "model/family.h"

#include <string.h>

static const model_keys llama_keys = {.layers = "num_hidden_layers",
                                      .hidden = "hidden_size",
                                      .heads = "num_attention_heads",
                                      .intermediate = "intermediate_size",
                                      .epsilon = "rms_norm_eps",
                                      .activation = "hidden_act"};
static const model_keys gemma3_keys = {.layers = "num_hidden_layers",
                                       .hidden = "hidden_size",
                                       .heads = "num_attention_heads",
                                       .intermediate = "intermediate_size",
                                       .epsilon = "rms_norm_eps",
                                       .activation = "hidden_activation"};
static const model_keys bert_keys = {.layers = "num_hidden_layers",
                                     .hidden = "hidden_size",
                                     .heads = "num_attention_heads",
                                     .intermediate = "intermediate_size",
                                     .epsilon = "layer_norm_eps",
                                     .activation = "hidden_act"};
static const model_keys distilbert_keys = {.layers = "n_layers",
                                           .hidden = "dim",
                                           .heads = "n_heads",
                                           .intermediate = "hidden_dim",
                                           .epsilon = NULL,
                                           .activation = "activation"};

static const model_names llama_names = {.prefixes = {"model.", ""},
                                        .sinks = "self_attn.sinks",
                                        .layer = "layers.%zu.",
                                        .embedding = "embed_tokens",
                                        .norm = "norm",
                                        .head = "lm_head",
                                        .attention_norm = "input_layernorm",
                                        .q = "self_attn.q_proj",
                                        .k = "self_attn.k_proj",
                                        .v = "self_attn.v_proj",
                                        .q_norm = "self_attn.q_norm",
                                        .k_norm = "self_attn.k_norm",
                                        .out = "self_attn.o_proj",
                                        .mlp_norm = "post_attention_layernorm",
                                        .gate = "mlp.gate_proj",
                                        .up = "mlp.up_proj",
                                        .down = "mlp.down_proj"};

static const model_names clsplat_names = {.prefixes = {"model.", ""},
                                          .layer = "layers.%zu.",
                                          .embedding = "embed_tokens",
                                          .norm = "norm",
                                          .head = "lm_head",
                                          .attention_norm = "input_layernorm",
                                          .q = "self_attn.q_proj",
                                          .k = "self_attn.k_proj",
                                          .v = "self_attn.v_proj",
                                          .out = "self_attn.o_proj",
                                          .splat_shift = "self_attn.splat_shift",
                                          .splat_mean = "self_attn.splat_mean",
                                          .splat_precision = "self_attn.splat_log_precision",
                                          .splat_amplitude = "self_attn.splat_log_amplitude",
                                          .splat_strength = "self_attn.splat_strength",
                                          .splat_decay = "self_attn.splat_decay",
                                          .mlp_norm = "post_attention_layernorm",
                                          .gate = "mlp.gate_proj",
                                          .up = "mlp.up_proj",
                                          .down = "mlp.down_proj"};

static const model_names phi3_names = {.prefixes = {"model.", ""},
                                       .layer = "layers.%zu.",
                                       .embedding = "embed_tokens",
                                       .norm = "norm",
                                       .head = "lm_head",
                                       .attention_norm = "input_layernorm",
                                       .qkv = "self_attn.qkv_proj",
                                       .out = "self_attn.o_proj",
                                       .mlp_norm = "post_attention_layernorm",
                                       .gate_up = "mlp.gate_up_proj",
                                       .down = "mlp.down_proj"};
static const model_names olmo2_names = {.prefixes = {"model.", ""},
                                        .layer = "layers.%zu.",
                                        .embedding = "embed_tokens",
                                        .norm = "norm",
                                        .head = "lm_head",
                                        .q = "self_attn.q_proj",
                                        .k = "self_attn.k_proj",
                                        .v = "self_attn.v_proj",
                                        .q_norm = "self_attn.q_norm",
                                        .k_norm = "self_attn.k_norm",
                                        .out = "self_attn.o_proj",
                                        .attention_result = "post_attention_layernorm",
                                        .gate = "mlp.gate_proj",
                                        .up = "mlp.up_proj",
                                        .down = "mlp.down_proj",
                                        .mlp_result = "post_feedforward_layernorm"};

static const model_names gemma3_names = {.prefixes = {"model.", ""},
                                         .layer = "layers.%zu.",
                                         .embedding = "embed_tokens",
                                         .norm = "norm",
                                         .head = "lm_head",
                                         .attention_norm = "input_layernorm",
                                         .q = "self_attn.q_proj",
                                         .k = "self_attn.k_proj",
                                         .v = "self_attn.v_proj",
                                         .q_norm = "self_attn.q_norm",
                                         .k_norm = "self_attn.k_norm",
                                         .out = "self_attn.o_proj",
                                         .attention_result = "post_attention_layernorm",
                                         .mlp_norm = "pre_feedforward_layernorm",
                                         .gate = "mlp.gate_proj",
                                         .up = "mlp.up_proj",
                                         .down = "mlp.down_proj",
                                         .mlp_result = "post_feedforward_layernorm"};

#define BERT_LAYERS                                                                                          \
    .layer = "encoder.layer.%zu.", .embedding = "embeddings.word_embeddings",                                \
    .positions = "embeddings.position_embeddings", .types = "embeddings.token_type_embeddings",              \
    .embedding_norm = "embeddings.LayerNorm", .q = "attention.self.query", .k = "attention.self.key",        \
    .v = "attention.self.value", .out = "attention.output.dense",                                            \
    .attention_result = "attention.output.LayerNorm", .up = "intermediate.dense", .down = "output.dense",    \
    .mlp_result = "output.LayerNorm"

static const model_names bert_names = {
    .prefixes = {"", "bert."},
    BERT_LAYERS,
    .head = "cls.predictions.decoder",
    .head_dense = "cls.predictions.transform.dense",
    .head_norm = "cls.predictions.transform.LayerNorm",
    .head_bias = "cls.predictions",
    .unused = {"pooler.", "bert.pooler.", "cls.seq_relationship.", "cls.predictions.decoder.bias"}};
static const model_names roberta_names = {.prefixes = {"", "roberta."},
                                          BERT_LAYERS,
                                          .head = "lm_head.decoder",
                                          .head_dense = "lm_head.dense",
                                          .head_norm = "lm_head.layer_norm",
                                          .head_bias = "lm_head",
                                          .unused = {"pooler.", "roberta.pooler.", "lm_head.decoder.bias"}};
static const model_names distilbert_names = {.prefixes = {"", "distilbert."},
                                             .layer = "transformer.layer.%zu.",
                                             .embedding = "embeddings.word_embeddings",
                                             .positions = "embeddings.position_embeddings",
                                             .embedding_norm = "embeddings.LayerNorm",
                                             .q = "attention.q_lin",
                                             .k = "attention.k_lin",
                                             .v = "attention.v_lin",
                                             .out = "attention.out_lin",
                                             .attention_result = "sa_layer_norm",
                                             .up = "ffn.lin1",
                                             .down = "ffn.lin2",
                                             .mlp_result = "output_layer_norm",
                                             .head = "vocab_projector",
                                             .head_dense = "vocab_transform",
                                             .head_norm = "vocab_layer_norm",
                                             .head_bias = "vocab_projector"};

#define LLAMA                                                                                                \
    .layer = {.activation = OP_SILU, .gated = true}, .names = &llama_names, .keys = &llama_keys,             \
    .epsilon = 1e-6
#define BERT(n, after, head)                                                                                 \
    .layer = {.encoder = true,                                                                               \
              .position_after_pad = (after),                                                                 \
              .centred = true,                                                                               \
              .sums = true,                                                                                  \
              .activation = OP_GELU,                                                                         \
              .head_activation = (head)},                                                                    \
    .names = &(n), .context = 512, .epsilon = 1e-12, .qkv_bias = true, .out_bias = true, .mlp_bias = true,   \
    .tied = true

const model_family model_families[] = {
    {.name = "llama", LLAMA, .context = 2048, .bias_key = true, .mlp_bias_key = true},
    {.name = "mistral", LLAMA, .context = 4096 * 32, .kv_heads = 8, .window_always = true},
    {.name = "qwen2", LLAMA, .context = 32768, .qkv_bias = true, .window_some = true},
    {.name = "qwen3",
     .layer = {.qk = QK_HEAD_BY_HEAD, .activation = OP_SILU, .gated = true},
     .names = &llama_names,
     .keys = &llama_keys,
     .epsilon = 1e-6,
     .context = 32768,
     .head_dim = 128,
     .bias_key = true,
     .window_some = true},
    {.name = "phi3",
     .layer = {.activation = OP_SILU, .gated = true},
     .names = &phi3_names,
     .keys = &llama_keys,
     .epsilon = 1e-5,
     .context = 4096,
     .window_always = true,
     .window_unsaid = true},
    {.name = "olmo2",
     .layer = {.qk = QK_ALL_HEADS, .activation = OP_SILU, .gated = true},
     .names = &olmo2_names,
     .keys = &llama_keys,
     .epsilon = 1e-5,
     .context = 2048,
     .bias_key = true},
    {.name = "clsplat",
     .layer = {.activation = OP_SILU, .gated = true},
     .names = &clsplat_names,
     .keys = &llama_keys,
     .epsilon = 1e-5,
     .context = 2048,
     .patterns = true},
    {.name = "eurobert",
     .layer = {.encoder = true, .activation = OP_SILU, .gated = true},
     .names = &llama_names,
     .keys = &llama_keys,
     .epsilon = 1e-5,
     .context = 8192,
     .bias_key = true,
     .mlp_bias_key = true},
    {.name = "gemma",
     .layer = {.offset = 1, .activation = OP_GELU_TANH, .gated = true},
     .names = &llama_names,
     .keys = &llama_keys,
     .epsilon = 1e-6,
     .context = 8192,
     .head_dim = 256,
     .bias_key = true,
     .embedding_scaled = true,
     .gelu_is_tanh = true,
     .tied = true},
    {.name = "gemma2",
     .layer = {.offset = 1, .activation = OP_GELU_TANH, .gated = true},
     .names = &gemma3_names,
     .keys = &gemma3_keys,
     .epsilon = 1e-6,
     .context = 8192,
     .kv_heads = 4,
     .head_dim = 256,
     .bias_key = true,
     .window_always = true,
     .window_pattern = 2,
     .caps = true,
     .caps_scores = 50,
     .caps_logits = 30,
     .embedding_scaled = true,
     .tied = true},
    {.name = "gemma3_text",
     .layer = {.offset = 1, .qk = QK_HEAD_BY_HEAD, .activation = OP_GELU_TANH, .gated = true},
     .names = &gemma3_names,
     .keys = &gemma3_keys,
     .epsilon = 1e-6,
     .context = 131072,
     .kv_heads = 4,
     .head_dim = 256,
     .bias_key = true,
     .window_always = true,
     .window_pattern = 6,
     .local_turn = true,
     .caps = true,
     .embedding_scaled = true,
     .tied = true},
    {.name = "bert", BERT(bert_names, false, OP_IDENTITY), .keys = &bert_keys},
    {.name = "roberta", BERT(roberta_names, true, OP_GELU), .keys = &bert_keys},
    {.name = "xlm-roberta", BERT(roberta_names, true, OP_GELU), .keys = &bert_keys},
    {.name = "camembert", BERT(roberta_names, true, OP_GELU), .keys = &bert_keys},
    {.name = "distilbert", BERT(distilbert_names, false, OP_IDENTITY), .keys = &distilbert_keys},
};
const size_t model_family_count = sizeof model_families / sizeof *model_families;

const model_family *model_family_find(const char *name) {
    for (size_t i = 0; i < model_family_count; ++i)
        if (strcmp(model_families[i].name, name) == 0)
            return &model_families[i];
    return NULL;
}
