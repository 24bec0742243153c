/* One reader of files after another under libFuzzer: tests/trust/fuzz.sh builds a program for each TARGET. A
 * seed is a file that the reader must accept; with CLSPLAT_FUZZ_SEED set, one that it refuses ends the
 * program.
 *
 * Chat templates are a table in src/cli/chat_template.c: no file's template is read, so there is none to
 * fuzz. What chooses among them is whether the tokeniser knows their tokens, which `tokenizer` and
 * `ggufmodel` cover. */
#include <clsplat/splats.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "format/gguf.h"
#include "format/safetensors.h"
#include "model/config.h"
#include "tokenizer/tokenizer.h"
#include "tune/database.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

/* A folder of this process, made once. */
static const char *folder(void) {
    static char path[64];
    if (!path[0]) {
        snprintf(path, sizeof path, "/tmp/clsplat-fuzz-%ld", (long)getpid());
        mkdir(path, 0700);
    }
    return path;
}

/* The input as a file of that name. */
static const char *file(const char *name, const uint8_t *bytes, size_t count) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder(), name);
    FILE *to = fopen(path, "wb");
    if (!to || fwrite(bytes, 1, count, to) != count || fclose(to) != 0)
        abort();
    return path;
}

typedef clsplat_status reader(clsplat *lib, const uint8_t *bytes, size_t count);

static clsplat_status read_safetensors(clsplat *lib, const uint8_t *bytes, size_t count) {
    safetensors *s = NULL;
    clsplat_status status = safetensors_open(lib, file("x.safetensors", bytes, count), &s);
    for (size_t i = 0; status == CLSPLAT_OK && i < safetensors_count(s); i++) {
        const void *map = NULL;
        const safetensors_entry *entry = safetensors_at(s, i);
        if (entry->bytes > 0 && safetensors_map(lib, s, entry, &map) == CLSPLAT_OK)
            ((volatile const char *)map)[entry->bytes - 1];
    }
    safetensors_close(&s);
    return status;
}

static clsplat_status read_splats(clsplat *lib, const uint8_t *bytes, size_t count) {
    clsplat_splats *splats = NULL;
    clsplat_status status = clsplat_splats_load(lib, file("x.safetensors", bytes, count), &splats);
    clsplat_splats_destroy(&splats);
    return status;
}

static clsplat_status read_hierarchy(clsplat *lib, const uint8_t *bytes, size_t count) {
    clsplat_hierarchy h = {0};
    clsplat_status status = clsplat_hierarchy_load(lib, file("x.json", bytes, count), &h);
    clsplat_hierarchy_free(&h);
    return status;
}

static clsplat_status read_config(clsplat *lib, const uint8_t *bytes, size_t count) {
    model_config config = {0};
    file("config.json", bytes, count);
    clsplat_status status = model_config_load(lib, folder(), &config);
    model_config_free(&config);
    return status;
}

static clsplat_status read_words(clsplat *lib, const char *name, const uint8_t *bytes, size_t count) {
    static const char words[] =
        "The quick brown fox, 12 345 <s> \xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80 it's\n\t  end";
    tokenizer *t = NULL;
    int32_t *tokens = NULL;
    size_t number = 0;
    file(name, bytes, count);
    clsplat_status status = tokenizer_open(lib, folder(), 1 << 20, &t);
    if (status == CLSPLAT_OK &&
        tokenizer_encode(t, words, sizeof words - 1, true, &tokens, &number) == CLSPLAT_OK)
        free(tokens);
    tokenizer_close(&t);
    return status;
}

static clsplat_status read_tokenizer(clsplat *lib, const uint8_t *bytes, size_t count) {
    return read_words(lib, "tokenizer.json", bytes, count);
}

static clsplat_status read_sentencepiece(clsplat *lib, const uint8_t *bytes, size_t count) {
    return read_words(lib, "tokenizer.model", bytes, count);
}

/* Whatever is no record is left out, and said: nothing is refused. */
static clsplat_status read_records(clsplat *lib, const uint8_t *bytes, size_t count) {
    tune_database db = {0};
    clsplat_status status = tune_database_load(lib, &db, file("tuning.txt", bytes, count));
    tune_database_free(&db);
    return status;
}

/* Every value and every tensor's first and last byte are looked at. */
static clsplat_status read_gguf(clsplat *lib, const uint8_t *bytes, size_t count) {
    gguf *g = NULL;
    clsplat_status status = gguf_open(lib, file("x.gguf", bytes, count), &g);
    const gguf_value *value;
    for (size_t i = 0; status == CLSPLAT_OK && (value = gguf_value_at(g, i)); i++) {
        gguf_words words;
        uint64_t whole;
        double number;
        bool flag;
        for (size_t at = 0; gguf_next(value, &at, &words);)
            if (words.count > 0)
                ((volatile const char *)words.bytes)[words.count - 1];
        for (size_t j = 0; j < value->count && j < 4096; j++)
            if (!gguf_whole(value, j, &whole))
                gguf_number(value, j, &number);
        gguf_flag(value, &flag);
    }
    for (size_t i = 0; status == CLSPLAT_OK && i < gguf_tensor_count(g); i++) {
        const gguf_tensor *tensor = gguf_tensor_at(g, i);
        volatile const char *data = gguf_data(g, tensor);
        if (tensor->bytes > 0) {
            data[0];
            data[tensor->bytes - 1];
        }
    }
    gguf_close(&g);
    return status;
}

/* What a GGUF file says in place of config.json and tokenizer.json. */
static clsplat_status read_ggufmodel(clsplat *lib, const uint8_t *bytes, size_t count) {
    static const char words[] = "The quick brown fox, 12 345 <s> \xc3\xa9";
    const char *path = file("x.gguf", bytes, count);
    model_config config = {0};
    tokenizer *t = NULL;
    int32_t *tokens = NULL;
    size_t number = 0;
    clsplat_status status = model_config_load(lib, path, &config);
    if (status == CLSPLAT_OK)
        status = tokenizer_open(lib, path, config.vocabulary, &t);
    if (status == CLSPLAT_OK &&
        tokenizer_encode(t, words, sizeof words - 1, true, &tokens, &number) == CLSPLAT_OK)
        free(tokens);
    tokenizer_close(&t);
    model_config_free(&config);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    clsplat *lib = NULL;
    if (clsplat_create(clsplat_options_defaults(), &lib) != CLSPLAT_OK)
        return 0;
    clsplat_status status = TARGET(lib, bytes, count);
    if (status != CLSPLAT_OK && !clsplat_last_error(lib)[0])
        abort(); /* refused without words */
    if (status != CLSPLAT_OK && getenv("CLSPLAT_FUZZ_SEED")) {
        fprintf(stderr, "the seed is refused: %s\n", clsplat_last_error(lib));
        abort();
    }
    clsplat_destroy(&lib);
    return 0;
}
