/* Building kernels: once per source and options, with words when it fails, and through the binary cache. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "runtime/buffer.h"
#include "runtime/launch.h"
#include "runtime/program.h"
#include "runtime/ptx.h"
#include "suite.h"

static const embedded_source scale = {"scale.cl", "#line 1 \"scale.cl\"\n"
                                                  "#ifndef FACTOR\n"
                                                  "#define FACTOR 2\n"
                                                  "#endif\n"
                                                  "kernel void scale(global float *x) {\n"
                                                  "    x[get_global_id(0)] *= FACTOR;\n"
                                                  "}\n"
                                                  "kernel void shift(global float *x) {\n"
                                                  "#ifdef CLSPLAT_FMA\n"
                                                  "    x[get_global_id(0)] += CLSPLAT_FMA;\n"
                                                  "#endif\n"
                                                  "}\n"};

/* What the library said at level INFO, and its cache folder. Drivers have folders of their own beside it that
 * they make once, so XDG_CACHE_HOME is set once, in main. */
typedef struct fixture {
    clsplat *lib;
    clsplat_device *device;
    char *folder;
    int built, found;
} fixture;

static void listen(void *user, clsplat_log_level level, const char *message) {
    fixture *f = user;
    if (getenv("CLSPLAT_TEST_VERBOSE"))
        fprintf(stderr, "%s\n", message);
    if (level != CLSPLAT_LOG_INFO)
        return;
    f->built += strstr(message, " built in ") != NULL;
    f->found += strncmp(message, "kernel cache: found", 19) == 0;
}

static void begin(fixture *f) {
    *f = (fixture){0};
    ck_assert_int_gt(asprintf(&f->folder, "%s/clsplat", getenv("XDG_CACHE_HOME")), 0);
    clsplat_options options = {.log = listen, .user = f};
    ck_assert_int_eq(clsplat_create(options, &f->lib), CLSPLAT_OK);
    f->device = suite_device(f->lib);
}

/* The next start of the program. */
static void start_again(fixture *f) {
    clsplat_device_close(&f->device);
    f->built = f->found = 0;
    f->device = suite_device(f->lib);
}

static void end(fixture *f) {
    clsplat_device_close(&f->device);
    clsplat_destroy(&f->lib);
    suite_remove(f->folder);
}

/* What the kernel makes of 3. */
static float applied(fixture *f, cl_kernel kernel) {
    float x = 3;
    cl_mem mem = NULL;
    queue q;
    suite_ok(f->lib, buffer_create(f->device, sizeof x, &mem));
    queue_begin(f->device, 0, NULL, &q);
    queue_copy copy = {.mem = mem, .host = &x, .row = sizeof x, .rows = 1};
    suite_ok(f->lib, queue_upload(&q, copy));
    launch l = launch_of(kernel, "test");
    launch_mem(&l, "x", mem);
    suite_ok(f->lib, launch_run(&l, &q, grid_of(1, 1, 1, 1), (work){0}));
    suite_ok(f->lib, queue_download(&q, copy));
    buffer_release(f->device, sizeof x, &mem);
    return x;
}

static cl_kernel build(fixture *f, const char *name, const char *options) {
    cl_kernel kernel = NULL;
    suite_ok(f->lib, program_kernel_text(f->device, scale, name, options, &kernel));
    return kernel;
}

START_TEST(each_kernel_is_built_once) {
    fixture f;
    begin(&f);
    cl_kernel twice = build(&f, "scale", "-DFACTOR=2"), thrice = build(&f, "scale", "-DFACTOR=3");
    ck_assert_int_eq(f.built, 2);
    ck_assert_ptr_eq(build(&f, "scale", "-DFACTOR=2"), twice);
    ck_assert_ptr_ne(twice, thrice);
    ck_assert_ptr_ne(build(&f, "shift", "-DFACTOR=2"), twice);
    ck_assert_int_eq(f.built, 2);
    ck_assert_float_eq(applied(&f, twice), 6);
    ck_assert_float_eq(applied(&f, thrice), 9);
    end(&f);
}
END_TEST

START_TEST(the_device_decides_about_fma) {
    fixture f;
    begin(&f);
    clsplat_limits limits = f.device->info.limits;
    for (int fast = 0; fast < 2; fast++) {
        limits.fast_fma = fast;
        clsplat_device_set_limits(f.device, limits);
        ck_assert_float_eq(applied(&f, build(&f, "shift", "")), fast ? 4 : 3);
    }
    end(&f);
}
END_TEST

static const embedded_source hungry = {"hungry.cl",
                                       "#line 1 \"hungry.cl\"\n"
                                       "kernel void hungry(global float *x) {\n"
                                       "    local float all[1024]; all[get_local_id(0)] = x[0];\n"
                                       "    barrier(CLK_LOCAL_MEM_FENCE);\n"
                                       "    x[get_local_id(0)] = all[63 - get_local_id(0)]; }\n"};
/* Before it is launched: a driver may take the whole context down with it. */
START_TEST(local_memory_keeps_to_the_limits) {
    fixture f;
    char words[128];
    cl_ulong bytes = 0;
    cl_kernel kernel = NULL;
    begin(&f);
    clsplat_limits limits = f.device->info.limits;
    suite_ok(f.lib, program_kernel_text(f.device, hungry, "hungry", "", &kernel));
    clGetKernelWorkGroupInfo(kernel, f.device->id, CL_KERNEL_LOCAL_MEM_SIZE, sizeof bytes, &bytes, NULL);
    snprintf(words, sizeof words, "takes %llu bytes of local memory; ", (unsigned long long)bytes);
    if (bytes < 4096)
        suite_skipped("local memory", "the driver does not say what a kernel takes");
    for (cl_ulong less = 1; less < 2 && bytes >= 4096; less--) {
        limits.local_memory = bytes - less;
        clsplat_device_set_limits(f.device, limits);
        ck_assert_int_eq(program_kernel_text(f.device, hungry, "hungry", "-DANEW", &kernel),
                         less ? CLSPLAT_UNSUPPORTED : CLSPLAT_OK);
        ck_assert(!less || strstr(clsplat_last_error(f.lib), words));
    }
    end(&f);
}
END_TEST

START_TEST(embedded_sources_are_found) {
    ck_assert_uint_ge(embedded_source_count, 1);
    for (size_t i = 0; i < embedded_source_count; i++) {
        ck_assert_str_ne(embedded_sources[i].name, "");
        ck_assert_ptr_nonnull(embedded_sources[i].text);
    }
}
END_TEST

static const embedded_source broken = {"broken.cl", "#line 1 \"broken.cl\"\n"
                                                    "kernel void broken(global float *x) {\n"
                                                    "    x[0] = undeclared_thing;\n"
                                                    "}\n"};

/* The file, the line and the compiler's sentence reach the user; then the device works as before. */
START_TEST(a_build_error_is_told) {
    fixture f;
    cl_kernel kernel = NULL;
    begin(&f);
    for (int attempt = 0; attempt < 2; attempt++) {
        ck_assert_int_eq(program_kernel_text(f.device, broken, "broken", "", &kernel), CLSPLAT_BUILD);
        ck_assert_ptr_null(kernel);
        const char *words = clsplat_last_error(f.lib);
        ck_assert_msg(strstr(words, "broken.cl:2:") != NULL, "%s", words);
        ck_assert_msg(strstr(words, "undeclared_thing") != NULL, "%s", words);
        ck_assert_msg(strstr(words, f.device->info.name) != NULL, "%s", words);
    }
    ck_assert_float_eq(applied(&f, build(&f, "scale", "")), 6);
    end(&f);
}
END_TEST

START_TEST(a_long_build_log_keeps_its_beginning) {
    enum { LINES = 400, LINE = 64 };
    fixture f;
    cl_kernel kernel = NULL;
    char *source = malloc((LINES + 2) * LINE);
    begin(&f);
    size_t used = (size_t)sprintf(source, "#line 1 \"long.cl\"\nkernel void k(global float *x) {\n");
    for (int i = 0; i < LINES; i++) /* warnings, of which compilers have no limit; then the error */
        used += (size_t)sprintf(source + used, "#warning line %d\n", i);
    strcpy(source + used, "x[0] = missing; }\n");
    embedded_source named = {"long.cl", source};
    ck_assert_int_eq(program_kernel_text(f.device, named, "k", "", &kernel), CLSPLAT_BUILD);
    const char *words = clsplat_last_error(f.lib);
    ck_assert_msg(strstr(words, "long.cl:2:") != NULL, "%.500s", words);
    ck_assert_uint_lt(strlen(words), LOG_WORDS - 1);
    ck_assert_msg(strstr(words, "left out)") != NULL, "%s", words);
    free(source);
    end(&f);
}
END_TEST

/* Comments are opened, and the directives of a kernel stand in front of its body. */
START_TEST(marked_lines_of_ptx_are_opened) {
    static const char ptx[] =
        ".version 9.0\n.target sm_90, texmode_independent\n.entry k()\n.reqntid 128\n{\n\t// inline\n"
        "\t// sm_90a: wgmma.fence.sync.aligned;\n\t// sm_90a entry: .minnctapersm 3\n\tret;\n}\n.entry "
        "l()\n{\n}\n";
    text opened = ptx_opened(ptx);
    ck_assert_str_eq(
        opened.data,
        ".version 9.0\n.target sm_90a, texmode_independent\n.entry k()\n.reqntid 128\n.minnctapersm 3\n{\n"
        "\t// inline\n\twgmma.fence.sync.aligned;\n\t// sm_90a entry: .minnctapersm 3\n\tret;\n}\n.entry "
        "l()\n{\n}\n");
    text_free(&opened);
    const char *others[] = {"", ".version 9.0\n.target sm_90\n.entry k()\n{\n\tret;\n}\n", "\177ELF",
                            ".target sm_80\n// sm_90a: wgmma.fence.sync.aligned;\n"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        opened = ptx_opened(others[i]);
        ck_assert_uint_eq(opened.length, 0);
    }
}
END_TEST

START_TEST(a_kernel_that_is_not_there_is_named) {
    fixture f;
    cl_kernel kernel = NULL;
    begin(&f);
    ck_assert_int_eq(program_kernel_text(f.device, scale, "absent", "", &kernel), CLSPLAT_OPENCL);
    ck_assert_ptr_nonnull(
        strstr(clsplat_last_error(f.lib), "absent in scale.cl: CL_INVALID_KERNEL_NAME (-46)"));
    ck_assert_float_eq(applied(&f, build(&f, "scale", "")), 6);
    end(&f);
}
END_TEST

/* The path of the only entry, to be freed; NULL if there is none. */
static char *only_entry(const fixture *f) {
    char *path = NULL;
    DIR *folder = opendir(f->folder);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (entry->d_name[0] == '.')
            continue;
        ck_assert_ptr_null(path);
        ck_assert_int_gt(asprintf(&path, "%s/%s", f->folder, entry->d_name), 0);
    }
    if (folder)
        closedir(folder);
    return path;
}

START_TEST(the_second_start_finds_the_binary) {
    fixture f;
    begin(&f);
    ck_assert_float_eq(applied(&f, build(&f, "scale", "")), 6);
    ck_assert_int_eq(f.built, 1);
    ck_assert_int_eq(f.found, 0);
    char *entry = only_entry(&f);
    ck_assert_ptr_nonnull(entry);
    start_again(&f);
    ck_assert_float_eq(applied(&f, build(&f, "scale", "")), 6);
    ck_assert_int_eq(f.built, 0);
    ck_assert_int_eq(f.found, 1);
    build(&f, "shift", ""); /* a kernel that the first start did not ask for */
    ck_assert_float_eq(applied(&f, build(&f, "scale", "")), 6);
    free(entry);
    end(&f);
}
END_TEST

/* Whatever the driver's compiler looks at must be in the key. */
START_TEST(the_key_tells_binaries_apart) {
    fixture f;
    begin(&f);
    build(&f, "scale", "-DFACTOR=2");
    start_again(&f);
    ck_assert_float_eq(applied(&f, build(&f, "scale", "-DFACTOR=5")), 15);
    ck_assert_int_eq(f.found, 0);
    start_again(&f);
    embedded_source other = {"scale.cl", "kernel void scale(global float *x) { x[0] = 7; }\n"};
    cl_kernel kernel = NULL;
    suite_ok(f.lib, program_kernel_text(f.device, other, "scale", "-DFACTOR=2", &kernel));
    ck_assert_float_eq(applied(&f, kernel), 7);
    ck_assert_int_eq(f.found, 0);
    start_again(&f);
    setenv("POCL_EXTRA_BUILD_FLAGS", "-DUNUSED", 1);
    build(&f, "scale", "-DFACTOR=2");
    unsetenv("POCL_EXTRA_BUILD_FLAGS");
    ck_assert_int_eq(f.found, 0);
    end(&f);
}
END_TEST

START_TEST(a_damaged_binary_is_built_anew) {
    fixture f;
    begin(&f);
    build(&f, "scale", "");
    char *entry = only_entry(&f);
    ck_assert_ptr_nonnull(entry);
    FILE *file = fopen(entry, "r+b");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fseek(file, -100, SEEK_END), 0);
    int byte = fgetc(file);
    ck_assert_int_eq(fseek(file, -100, SEEK_END), 0);
    fputc(byte ^ 0x10, file);
    fclose(file);
    for (int start = 0; start < 2; start++) {
        start_again(&f);
        ck_assert_float_eq(applied(&f, build(&f, "scale", "")), 6);
        ck_assert_int_eq(f.built, start == 0); /* the second start finds the new one */
        ck_assert_int_eq(f.found, start);
    }
    free(entry);
    end(&f);
}
END_TEST

/* Replaces the payload of an entry and the length and hash that speak for it: see entry_header in cache.c. */
static void replace_payload(const char *path, const char *payload) {
    uint64_t key_bytes = 0, payload_bytes = strlen(payload);
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(payload, payload_bytes));
    FILE *file = fopen(path, "r+b");
    ck_assert_ptr_nonnull(file);
    fseek(file, 16, SEEK_SET);
    ck_assert_uint_eq(fread(&key_bytes, sizeof key_bytes, 1, file), 1);
    fseek(file, 24, SEEK_SET);
    fwrite(&payload_bytes, sizeof payload_bytes, 1, file);
    fwrite(&hash, sizeof hash, 1, file);
    fseek(file, (long)key_bytes + 48, SEEK_SET);
    fputs(payload, file);
    fclose(file);
    ck_assert_int_eq(truncate(path, (off_t)(48 + key_bytes + payload_bytes)), 0);
}

START_TEST(a_binary_that_the_driver_refuses_is_built_anew) {
    fixture f;
    begin(&f);
    if (strstr(f.device->info.platform, "rusticl")) {
        suite_skipped("a binary that the driver refuses", "rusticl aborts the process");
        end(&f);
        return;
    }
    build(&f, "scale", "");
    char *entry = only_entry(&f);
    ck_assert_ptr_nonnull(entry);
    replace_payload(entry, "this is not a program binary, whatever the hash beside it says about its bytes");
    start_again(&f);
    ck_assert_float_eq(applied(&f, build(&f, "scale", "")), 6);
    ck_assert_int_eq(f.found, 1);
    ck_assert_int_eq(f.built, 1);
    start_again(&f);
    ck_assert_float_eq(applied(&f, build(&f, "scale", "")), 6);
    ck_assert_int_eq(f.built, 0);
    free(entry);
    end(&f);
}
END_TEST

START_TEST(without_the_cache_nothing_is_kept) {
    fixture f;
    begin(&f);
    setenv("CLSPLAT_CACHE", "off", 1);
    build(&f, "scale", "");
    ck_assert_ptr_null(only_entry(&f));
    start_again(&f);
    ck_assert_float_eq(applied(&f, build(&f, "scale", "")), 6);
    ck_assert_int_eq(f.built, 1);
    unsetenv("CLSPLAT_CACHE");
    end(&f);
}
END_TEST

static void add_build(TCase *part) {
    tcase_add_test(part, each_kernel_is_built_once);
    tcase_add_test(part, the_device_decides_about_fma);
    tcase_add_test(part, local_memory_keeps_to_the_limits);
    tcase_add_test(part, embedded_sources_are_found);
    tcase_add_test(part, a_build_error_is_told);
    tcase_add_test(part, a_long_build_log_keeps_its_beginning);
    tcase_add_test(part, marked_lines_of_ptx_are_opened);
    tcase_add_test(part, a_kernel_that_is_not_there_is_named);
}

static void add_cache(TCase *part) {
    tcase_add_test(part, the_second_start_finds_the_binary);
    tcase_add_test(part, the_key_tells_binaries_apart);
    tcase_add_test(part, a_damaged_binary_is_built_anew);
    tcase_add_test(part, a_binary_that_the_driver_refuses_is_built_anew);
    tcase_add_test(part, without_the_cache_nothing_is_kept);
}

int main(void) {
    static const suite_part parts[] = {{"build", add_build}, {"cache", add_cache}};
    char home[] = "/tmp/clsplat-test-XXXXXX";
    if (!mkdtemp(home) || setenv("XDG_CACHE_HOME", home, 1) != 0 || unsetenv("CLSPLAT_CACHE") != 0)
        return EXIT_FAILURE;
    int result = suite_run("program", parts, sizeof parts / sizeof *parts);
    suite_remove(strdup(home));
    return result;
}
