/* clsplat convert: language models from folders to GGUF files and back, smaller or larger. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/report.h"
#include "model/convert.h"

static const char summary[] = "Writes the weights of MODEL, a folder or a GGUF file, to OUT: a GGUF file, in "
                              "blocks of small integers if --type says so, or "
                              "a safetensors file, beside which go config.json, tokenizer.json and "
                              "chat_template.jinja unless they are there. Blocks become "
                              "F32 in safetensors if --type is not given. In GGUF files vectors are F32, "
                              "matrices whose rows are no whole blocks F16, and "
                              "embedding and head Q8_0 if the type has fewer bits.";

static clsplat_status report(cli *c, const char *out) {
    struct stat about = {0};
    if (stat(out, &about) != 0)
        return log_error(c->lib, CLSPLAT_IO, "%s: cannot be examined: %s", out, strerror(errno));
    return report_json(
        c, json_pack("{s:o, s:I}", "output", report_text(out), "bytes", (json_int_t)about.st_size));
}

static clsplat_status convert(cli *c, const char *out, const char *type) {
    clsplat_status status = CLSPLAT_OK;
    static const char *const names[] = {"f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", NULL};
    convert_request request = {
        .from = c->arguments[0], .to = out, .progress = progress_step, .progress_user = &c->progress};
    int choice = -1;
    TRY(cli_choice(c, "--type", type, names, &choice));
    if (!out)
        return cli_misuse(c, "-o OUT.gguf or OUT.safetensors is needed");
    if (choice >= 0)
        request.type = block_type_named(names[choice]);
    progress_begin(&c->progress);
    status = model_convert(c->lib, &request);
    progress_clear(&c->progress);
    if (status == CLSPLAT_OK && c->json)
        status = report(c, out);
fail:
    return status;
}

clsplat_status cmd_convert(cli *c, int argc, const char **argv) {
    char *out = NULL, *type = NULL;
    struct poptOption options[] = {
        {"output", 'o', POPT_ARG_STRING, &out, 0, "where the model goes: OUT.gguf or OUT.safetensors", "OUT"},
        {"type", 0, POPT_ARG_STRING, &type, 0, "of matrices; as they are if it is not given",
         "f32|f16|bf16|q8_0|q5_1|q5_0|q4_1|q4_0"},
        POPT_TABLEEND};
    cli_syntax syntax = {summary, "MODEL -o OUT [OPTION...]", options, .arguments = 1,
                         .without_device = true};
    clsplat_status status;
    if (cli_parse(c, argc, argv, &syntax, &status))
        status = convert(c, out, type);
    cli_free(options);
    return status;
}
