#include "cli/chat_template.h"

#include <stdlib.h>
#include <string.h>

#include "model/template.h"

/* Source: the models' own templates, as transformers' apply_chat_template writes them. */
static const chat_template templates[] = {
    {"chatml",
     {"<|im_start|>", "<|im_end|>"},
     {"<|im_start|>", NULL},
     {"<|im_start|>system\n", "<|im_end|>\n"},
     false,
     {"<|im_start|>user\n", "<|im_end|>\n"},
     {"<|im_start|>assistant\n", "<|im_end|>\n"},
     "<|im_end|>",
     false},
    {"llama3",
     {"<|start_header_id|>", "<|eot_id|>"},
     {"<|start_header_id|>", NULL},
     {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
     false,
     {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
     {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
     "<|eot_id|>",
     false},
    {"gemma",
     {"<start_of_turn>", "<end_of_turn>"},
     {"<start_of_turn>", NULL},
     {"", "\n\n"},
     true,
     {"<start_of_turn>user\n", "<end_of_turn>\n"},
     {"<start_of_turn>model\n", "<end_of_turn>\n"},
     "<end_of_turn>",
     false},
    {"phi3",
     {"<|user|>", "<|end|>"},
     {"<|user|>", "<|end|>"},
     {"<|system|>\n", "<|end|>\n"},
     false,
     {"<|user|>\n", "<|end|>\n"},
     {"<|assistant|>\n", "<|end|>\n"},
     "<|end|>",
     false},
    {"zephyr",
     {"</s>", NULL},
     {"<|user|>", "eos_token"},
     {"<|system|>\n", "</s>\n"},
     false,
     {"<|user|>\n", "</s>\n"},
     {"<|assistant|>\n", "</s>\n"},
     "</s>",
     true},
    {"llama2",
     {"</s>", NULL},
     {"[INST]", "<<SYS>>"},
     {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     true,
     {"[INST] ", " [/INST]"},
     {"", " </s><s>"},
     "</s>",
     true},
    {"mistral",
     {"[INST]", "[/INST]"},
     {"[INST]", "\"[/INST]"}, /* older ones have a blank before it */
     {"", "\n\n"},
     true,
     {"[INST] ", "[/INST]"},
     {"", "</s>"},
     "</s>",
     false},
    {"plain",
     {NULL, NULL},
     {NULL, NULL},
     {"", "\n\n"},
     false,
     {"User: ", "\n"},
     {"Assistant:", "\n"},
     "\nUser:",
     false},
};
enum { TEMPLATES = sizeof templates / sizeof *templates };

static bool has_marks(const chat_template *t, const char *words) {
    return t->marks[0] && strstr(words, t->marks[0]) && (!t->marks[1] || strstr(words, t->marks[1]));
}

/* What is added around a text stands around every name alike: one token more than around nothing. */
clsplat_status chat_token(const language *l, const char *name, int32_t *token) {
    clsplat_status status = CLSPLAT_OK;
    language_tokens one = {0}, none = {0};
    *token = -1;
    TRY(language_encode(l, name, strlen(name), true, &one));
    TRY(clsplat_model_encode(l->model, "", 0, true, &none.list, &none.count));
    size_t before = one.count > 0 && none.count > 0 && one.list[0] == none.list[0] ? 1 : 0;
    if (one.count == before + 1)
        *token = one.list[before];
fail:
    language_free(&one);
    language_free(&none);
    return status;
}

static clsplat_status fits(const language *l, const chat_template *t, bool *good) {
    clsplat_status status = CLSPLAT_OK;
    *good = true;
    for (int i = 0; i < 2 && t->needs[i] && *good; ++i) {
        int32_t token;
        TRY(chat_token(l, t->needs[i], &token));
        *good = token >= 0;
    }
fail:
    return status;
}

/* The one that the model's own template is, whose tokens it must have. *told: its template is none of these.
 */
static clsplat_status choose_by_words(const language *l, const chat_template **chosen, bool *told) {
    clsplat_status status = CLSPLAT_OK;
    char *words = NULL;
    bool good = false;
    int i = 0;
    TRY(model_template(l->c->lib, l->c->arguments[0], &words));
    while (words && i < TEMPLATES && !has_marks(&templates[i], words))
        ++i;
    if (words && i < TEMPLATES)
        TRY(fits(l, &templates[i], &good));
    *chosen = good ? &templates[i] : NULL;
    *told = words && !good;
fail:
    free(words);
    return status;
}

static clsplat_status choose(const language *l, const chat_template **chosen) {
    clsplat_status status = CLSPLAT_OK;
    bool good = false, told = false;
    TRY(choose_by_words(l, chosen, &told));
    for (int i = 0; !*chosen; ++i) {
        if (!templates[i].by_words)
            TRY(fits(l, &templates[i], &good));
        *chosen = good ? &templates[i] : NULL;
    }
    if (told)
        log_warning(
            l->c->lib,
            "%s: its chat template is none that is known here, and turns are written as %s; --template "
            "says how else",
            l->c->arguments[0], (*chosen)->name);
fail:
    return status;
}

clsplat_status chat_template_choose(const language *l, const char *name, const chat_template **chosen) {
    static const char *const names[] = {"chatml", "llama3",  "gemma", "phi3", "zephyr",
                                        "llama2", "mistral", "plain", NULL};
    clsplat_status status = CLSPLAT_OK;
    int choice = 0;
    *chosen = NULL;
    if (name)
        TRY(cli_choice(l->c, "--template", name, names, &choice));
    else
        TRY(choose(l, chosen));
    *chosen = name ? &templates[choice] : *chosen;
    log_info(l->c->lib, "the conversation is written as %s", (*chosen)->name);
fail:
    return status;
}
