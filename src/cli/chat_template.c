#include "cli/chat_template.h"

#include <string.h>

static const chat_template templates[] = {
    {"chatml",
     {"<|im_start|>", "<|im_end|>"},
     {"<|im_start|>system\n", "<|im_end|>\n"},
     {"<|im_start|>user\n", "<|im_end|>\n"},
     {"<|im_start|>assistant\n", "<|im_end|>\n"},
     "<|im_end|>"},
    {"llama3",
     {"<|start_header_id|>", "<|eot_id|>"},
     {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
     {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
     {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
     "<|eot_id|>"},
    {"mistral", {"[INST]", "[/INST]"}, {NULL, NULL}, {"[INST] ", "[/INST]"}, {"", "</s>"}, "</s>"},
    {"plain", {NULL, NULL}, {"", "\n\n"}, {"User: ", "\n"}, {"Assistant:", "\n"}, "\nUser:"},
};
enum { TEMPLATES = sizeof templates / sizeof *templates };

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

clsplat_status chat_template_choose(const language *l, const char *name, const chat_template **chosen) {
    static const char *const names[] = {"chatml", "llama3", "mistral", "plain", NULL};
    clsplat_status status = CLSPLAT_OK;
    int choice = 0;
    bool good = name != NULL;
    TRY(cli_choice(l->c, "--template", name, names, &choice));
    for (; !good && choice < TEMPLATES; choice += !good)
        TRY(fits(l, &templates[choice], &good));
    *chosen = &templates[choice];
    log_info(l->c->lib, "the conversation is written as %s", (*chosen)->name);
fail:
    return status;
}
