/* A pretrained language model goes on with a text: generate FOLDER [TEXT]
 *
 *     cc -std=c17 generate.c -o generate $(pkg-config --cflags --libs clsplat) */
#include <clsplat/clsplat.h>
#include <stdio.h>
#include <string.h>

enum { WRITTEN = 200 }; /* tokens */

typedef struct writer {
    clsplat *lib;
    clsplat_device *device;
    clsplat_model *model;
    clsplat_session *session;
    int32_t *tokens;
    size_t count; /* of the prompt */
} writer;

static clsplat_status begin(writer *w, const char *folder, const char *prompt) {
    clsplat_status status = clsplat_create(clsplat_options_defaults(), &w->lib);
    if (!status)
        status = clsplat_device_open(w->lib, NULL, &w->device);
    if (!status)
        status = clsplat_model_open(w->device, folder, clsplat_model_options_defaults(), &w->model);
    if (!status)
        status = clsplat_model_encode(w->model, prompt, strlen(prompt), true, &w->tokens, &w->count);
    if (!status)
        status = clsplat_session_open(w->model, w->count + WRITTEN, clsplat_model_attention_defaults(),
                                      &w->session);
    if (!status)
        status = clsplat_session_feed(w->session, w->tokens, w->count, NULL);
    return status;
}

static clsplat_status write_on(writer *w, clsplat_sampling sampling) {
    clsplat_status status = CLSPLAT_OK;
    int32_t previous = w->tokens[w->count - 1];
    for (int i = 0; i < WRITTEN && !status; ++i) {
        int32_t token = 0;
        char *text = NULL;
        size_t bytes = 0;
        status = clsplat_session_sample(w->session, sampling, &token);
        if (status || clsplat_model_is_end(w->model, token))
            break;
        status = clsplat_model_decode_next(w->model, previous, token, &text, &bytes);
        if (!status)
            fwrite(text, 1, bytes, stdout);
        previous = token;
        clsplat_model_free(text);
        if (!status)
            status = clsplat_session_feed(w->session, &token, 1, NULL);
    }
    putchar('\n');
    return status;
}

int main(int argc, char **argv) {
    const char *folder = argc > 1 ? argv[1] : "demos/bytelm-4m";
    const char *prompt = argc > 2 ? argv[2] : "def read_lines(path):\n    \"\"\"";
    writer w = {0};
    clsplat_sampling sampling = clsplat_sampling_defaults();
    sampling.temperature = 0.5f;
    sampling.top_p = 0.9f;

    printf("%s", prompt);
    fflush(stdout);
    clsplat_status status = begin(&w, folder, prompt);
    if (!status)
        status = write_on(&w, sampling);
    if (status)
        fprintf(stderr, "%s\n", w.lib ? clsplat_last_error(w.lib) : clsplat_status_text(status));
    clsplat_model_free(w.tokens);
    clsplat_session_close(&w.session);
    clsplat_model_close(&w.model);
    clsplat_device_close(&w.device);
    clsplat_destroy(&w.lib);
    return status ? 1 : 0;
}
