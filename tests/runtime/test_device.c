/* Which devices there are, which one a word means, what opening, adopting and describing one promise. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "op/workspace.h"
#include "runtime/buffer.h"
#include "runtime/describe.h"
#include "runtime/queue.h"
#include "runtime/quirks.h"
#include "suite.h"

static bool is_type(const char *type) {
    return strcmp(type, "gpu") == 0 || strcmp(type, "cpu") == 0 || strcmp(type, "accelerator") == 0 ||
           strcmp(type, "other") == 0;
}

START_TEST(every_device_is_described) {
    clsplat *lib = suite_library();
    clsplat_device_info *list = NULL;
    size_t count = 0;
    suite_ok(lib, clsplat_device_list(lib, &list, &count));
    ck_assert_uint_ge(count, 1);
    for (size_t i = 0; i < count; i++) {
        const clsplat_limits *limits = &list[i].limits;
        ck_assert_str_ne(list[i].name, "");
        ck_assert_str_ne(list[i].platform, "");
        ck_assert_int_eq(strncmp(list[i].version, "OpenCL ", 7), 0);
        ck_assert(is_type(list[i].type));
        ck_assert_int_eq(list[i].available, list[i].problem[0] == '\0');
        ck_assert_int_eq(list[i].available, list[i].score > 0);
        ck_assert_uint_ge(limits->compute_units, 1);
        ck_assert_uint_ge(limits->max_work_group, 1);
        ck_assert_uint_ge(limits->max_work_item_sizes[0], 1);
        ck_assert_uint_ge(limits->max_allocation, 1 << 20);
        ck_assert_uint_le(limits->max_allocation, limits->global_memory);
        ck_assert_uint_ge(limits->base_address_align, 1);
    }
    clsplat_device_list_free(&list);
    ck_assert_ptr_null(list);
    clsplat_device_list_free(&list);
    clsplat_device_list_free(NULL);
    clsplat_destroy(&lib);
}
END_TEST

/* A machine that no test machine is. */
// clang-format off
static const clsplat_device_info machine[] = {
    {.name = "Cortex Demo", .platform = "Portable Computing", .type = "cpu", .available = true, .score = 1000005000},
    {.name = "Radeon Demo", .platform = "Mesa Demo", .type = "gpu", .available = true, .score = 3000040000},
    {.name = "Radeon Demo XT", .platform = "Mesa Demo", .type = "gpu", .available = true, .score = 3000090000},
    {.name = "Broken Demo", .platform = "Mesa Demo", .type = "accelerator", .available = false,
     .problem = "its driver has no kernel compiler"},
    {.name = "llvmpipe", .platform = "Soft", .type = "cpu", .available = true, .score = 2400},
    {.name = "Radeon Demo XT", .platform = "Second", .type = "gpu", .available = true, .score = 3000090000},
};
static const struct choice {
    const char *which;
    int index;          /* −1: refused */
    const char *says;   /* in the error */
} choices[] = {
    {"", 2, NULL},              /* the highest score, the lower index of two */
    {"0", 0, NULL},
    {"5", 5, NULL},
    {"6", -1, "no device fits"},
    {"18446744073709551617", -1, "no device fits"},
    {"cpu", 0, NULL},           /* a type takes its highest score */
    {"GPU", 2, NULL},
    {"accelerator", -1, "no kernel compiler"},
    {"3", -1, "no kernel compiler"},
    {"broken", -1, "no kernel compiler"},
    {"CORTEX", 0, NULL},        /* part of a name, in either case */
    {"portable", 0, NULL},      /* of the platform's name */
    {"second", 5, NULL},
    {"radeon", -1, "more than one"},
    {"XT", -1, "more than one"},
    {"3x", -1, "no device fits"}, /* a name, not an index */
    {"-1", -1, "no device fits"},
    {"nvidia", -1, "no device fits"},
};
// clang-format on
enum { MACHINE = sizeof machine / sizeof *machine, CHOICES = sizeof choices / sizeof *choices };

START_TEST(a_word_means_a_device) {
    const struct choice *c = &choices[_i];
    clsplat *lib = suite_library();
    size_t index = MACHINE;
    clsplat_status status = device_choose(lib, machine, MACHINE, c->which, "device", &index);
    if (c->index >= 0) {
        suite_ok(lib, status);
        ck_assert_uint_eq(index, (size_t)c->index);
    } else {
        const char *words = clsplat_last_error(lib);
        ck_assert_int_eq(status, CLSPLAT_NO_DEVICE);
        ck_assert_msg(strstr(words, c->says) != NULL, "%s: %s", c->which, words);
        ck_assert_msg(strstr(words, c->which) != NULL, "%s: %s", c->which, words);
        ck_assert_msg(strstr(words, "0: Cortex Demo (Portable Computing, cpu); 1: Radeon") != NULL, "%s",
                      words);
        ck_assert_msg(strstr(words, "5: Radeon Demo XT (Second, gpu)") != NULL, "%s", words);
    }
    clsplat_destroy(&lib);
}
END_TEST

START_TEST(nothing_to_open_is_said) {
    clsplat *lib = suite_library();
    size_t index = 0;
    ck_assert_int_eq(device_choose(lib, &machine[3], 1, "", "device", &index), CLSPLAT_NO_DEVICE);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(lib), "no kernel compiler"));
    clsplat_destroy(&lib);
}
END_TEST

START_TEST(the_environment_is_asked_last) {
    clsplat *lib = suite_library();
    clsplat_device *device = NULL;
    const char *set = getenv("CLSPLAT_DEVICE");
    char *before = set ? strdup(set) : NULL;
    setenv("CLSPLAT_DEVICE", "no such device", 1);
    ck_assert_int_eq(clsplat_device_open(lib, NULL, &device), CLSPLAT_NO_DEVICE);
    ck_assert_ptr_null(device);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(lib), "CLSPLAT_DEVICE 'no such device'"));
    ck_assert_int_eq(clsplat_device_open(lib, "", &device), CLSPLAT_NO_DEVICE);
    suite_ok(lib, clsplat_device_open(lib, "0", &device));
    clsplat_device_close(&device);
    setenv("CLSPLAT_DEVICE", "", 1);
    suite_ok(lib, clsplat_device_open(lib, NULL, &device));
    clsplat_device_close(&device);
    if (before)
        setenv("CLSPLAT_DEVICE", before, 1);
    else
        unsetenv("CLSPLAT_DEVICE");
    free(before);
    clsplat_destroy(&lib);
}
END_TEST

START_TEST(an_opened_device_tells_about_itself) {
    clsplat *lib = suite_library();
    clsplat_device *device = suite_device(lib), *second = suite_device(lib);
    const clsplat_device_info *info = clsplat_device_describe(device);
    ck_assert(info->available);
    ck_assert_ptr_nonnull(clsplat_device_context(device));
    ck_assert_ptr_nonnull(clsplat_device_queue(device));
    ck_assert(device->in_order && device->queue_profiles);
    ck_assert_uint_ne(device->serial, second->serial);
    suite_ok(lib, clsplat_device_finish(device));
    clsplat_device_close(&second);
    clsplat_device_close(&device);
    ck_assert_ptr_null(device);
    clsplat_device_close(&device);
    clsplat_device_close(NULL);
    clsplat_destroy(&lib);
}
END_TEST

START_TEST(adopting_reads_the_queue) {
    clsplat *lib = suite_library();
    clsplat_device *own = suite_device(lib), *guest = NULL;
    cl_context context = clsplat_device_context(own);
    ck_assert_int_eq(clsplat_device_adopt(lib, NULL, clsplat_device_queue(own), &guest), CLSPLAT_INVALID);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(lib), "context is NULL"));
    ck_assert_int_eq(clsplat_device_adopt(lib, context, NULL, &guest), CLSPLAT_INVALID);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(lib), "queue is NULL"));
    ck_assert_ptr_null(guest);
    cl_int code = CL_SUCCESS;
    cl_command_queue commands =
        clCreateCommandQueue(context, own->id, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE, &code);
    bool out_of_order = code == CL_SUCCESS;
    if (!out_of_order) {
        suite_skipped("adopting an out-of-order queue", "the device has none");
        commands = clCreateCommandQueue(context, own->id, 0, &code);
    }
    ck_assert_int_eq(code, CL_SUCCESS);
    suite_ok(lib, clsplat_device_adopt(lib, context, commands, &guest));
    ck_assert_int_eq(guest->in_order, !out_of_order);
    ck_assert(!guest->queue_profiles);
    ck_assert_str_eq(guest->info.name, own->info.name);
    clReleaseCommandQueue(commands);
    clsplat_device_close(&own); /* the guest has references of its own */
    suite_ok(lib, clsplat_device_finish(guest));
    clsplat_device_close(&guest);
    clsplat_destroy(&lib);
}
END_TEST

START_TEST(limits_can_be_replaced) {
    clsplat *lib = suite_library();
    clsplat_device *device = suite_device(lib);
    clsplat_limits limits = clsplat_device_describe(device)->limits;
    cl_mem mem = NULL;
    limits.max_allocation = 4096;
    clsplat_device_set_limits(device, limits);
    ck_assert_uint_eq(clsplat_device_describe(device)->limits.max_allocation, 4096);
    suite_ok(lib, buffer_create(device, 4096, &mem));
    buffer_release(device, 4096, &mem);
    ck_assert_int_eq(buffer_create(device, 3 << 20, &mem), CLSPLAT_MEMORY);
    ck_assert_ptr_null(mem);
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(lib), "3.0 MiB"));
    ck_assert_ptr_nonnull(strstr(clsplat_last_error(lib), device->info.name));
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
}
END_TEST

START_TEST(memory_is_counted) {
    clsplat *lib = suite_library();
    clsplat_device *device = suite_device(lib);
    cl_mem mem = NULL, work = NULL, again = NULL;
    suite_ok(lib, buffer_create(device, 1000, &mem));
    ck_assert_uint_eq(buffer_bytes(mem), 1000);
    suite_ok(lib, workspace_take(device, WORKSPACE_Q, 500, &work));
    suite_ok(lib, workspace_take(device, WORKSPACE_Q, 400, &again));
    ck_assert_ptr_eq(work, again);
    ck_assert_uint_eq(clsplat_device_memory(device).now, 1500);
    suite_ok(lib, workspace_take(device, WORKSPACE_Q, 700, &work));
    ck_assert_uint_eq(buffer_bytes(work), 700);
    buffer_release(device, 1000, &mem);
    ck_assert_ptr_null(mem);
    buffer_release(device, 1000, &mem);
    ck_assert_uint_eq(clsplat_device_memory(device).now, 700);
    ck_assert_uint_eq(clsplat_device_memory(device).peak, 1700);
    suite_ok(lib, buffer_create(device, 0, &mem));
    ck_assert_uint_ge(buffer_bytes(mem), 1);
    buffer_release_of(lib, UINT64_MAX, 0, &mem);
    workspace_release_all(device);
    ck_assert_uint_eq(clsplat_device_memory(device).now, 0);
    ck_assert_uint_eq(buffer_bytes(NULL), 0);
    clsplat_device_close(&device);
    clsplat_destroy(&lib);
}
END_TEST

START_TEST(quirks_are_rows) {
    clsplat_device_info old_mesa = {
        .platform = "rusticl", .name = "llvmpipe (LLVM 15.0.6, 256 bits)", .driver = "22.3.6"};
    clsplat_device_info new_mesa = {.platform = "rusticl", .name = "AMD Radeon", .driver = "25.0.1"};
    clsplat_device_info arc = {.vendor = "Intel(R) Corporation",
                               .name = "Intel(R) Arc(TM) A770 Graphics",
                               .limits.max_allocation = UINT64_C(8) << 30};
    clsplat_device_info max = {.vendor = "Intel(R) Corporation",
                               .name = "Intel(R) Data Center GPU Max 1550",
                               .limits.max_allocation = UINT64_C(8) << 30};
    clsplat_device_info xeon = {.vendor = "Intel(R) Corporation",
                                .name = "Intel(R) Xeon(R) Platinum 8480+",
                                .limits.max_allocation = UINT64_C(8) << 30};
    clsplat_device_info pocl = {.platform = "Portable Computing Language", .name = "pthread-cortex-a72"};
    clsplat_device_info cpu = {.platform = "Intel(R) OpenCL", .driver = "2026.21.6.0.21_160000"};
    clsplat_device_info neo = {.platform = "Intel(R) OpenCL Graphics", .driver = "23.43.027642"};
    ck_assert_uint_eq(quirks_apply(&old_mesa), QUIRK_WALL_CLOCK | QUIRK_SOFTWARE | QUIRK_LOOP_LIMIT);
    ck_assert_str_eq(old_mesa.quirks, "zero-event-times,software-rasteriser,loops-end-early");
    ck_assert_uint_eq(quirks_apply(&new_mesa), 0);
    ck_assert_str_eq(new_mesa.quirks, "");
    ck_assert_uint_eq(quirks_apply(&arc), QUIRK_LARGE_REGISTERS | QUIRK_BUFFER_LIMIT);
    ck_assert_uint_eq(arc.limits.max_allocation, UINT64_C(4) << 30);
    ck_assert_uint_eq(quirks_apply(&max), QUIRK_LARGE_REGISTERS | QUIRK_BUFFER_LIMIT);
    ck_assert_uint_eq(quirks_apply(&xeon), 0);
    ck_assert_uint_eq(quirks_apply(&pocl), QUIRK_TRUSTS_FOLDER);
    ck_assert_uint_eq(quirks_apply(&cpu), QUIRK_FAILURES_COMPLETE);
    ck_assert_uint_eq(quirks_apply(&neo), 0);
    ck_assert_uint_eq(xeon.limits.max_allocation, UINT64_C(8) << 30);
    for (size_t i = 0; i < quirk_count; i++) {
        ck_assert_str_ne(quirks[i].name, "");
        ck_assert_str_ne(quirks[i].why, "");
        ck_assert_uint_ne(quirks[i].flags, 0);
        ck_assert(quirks[i].platform || quirks[i].device);
    }
}
END_TEST

START_TEST(codes_have_names) {
    clsplat *lib = suite_library();
    ck_assert_str_eq(cl_error_name(CL_SUCCESS), "CL_SUCCESS");
    ck_assert_str_eq(cl_error_name(-54), "CL_INVALID_WORK_GROUP_SIZE");
    ck_assert_str_eq(cl_error_name(-72), "CL_MAX_SIZE_RESTRICTION_EXCEEDED");
    ck_assert_str_eq(cl_error_name(-1001), "CL_PLATFORM_NOT_FOUND_KHR");
    ck_assert_str_ne(cl_error_name(-123456), "");
    ck_assert_int_eq(cl_failed(lib, "clFinish(device->queue)", CL_INVALID_COMMAND_QUEUE), CLSPLAT_OPENCL);
    ck_assert_str_eq(clsplat_last_error(lib), "clFinish: CL_INVALID_COMMAND_QUEUE (-36)");
    ck_assert_int_eq(cl_failed(lib, "x", CL_MEM_OBJECT_ALLOCATION_FAILURE), CLSPLAT_MEMORY);
    ck_assert_int_eq(cl_failed(lib, "x", CL_OUT_OF_HOST_MEMORY), CLSPLAT_MEMORY);
    clsplat_destroy(&lib);
}
END_TEST

static void add_choice(TCase *part) {
    tcase_add_loop_test(part, a_word_means_a_device, 0, CHOICES);
    tcase_add_test(part, nothing_to_open_is_said);
    tcase_add_test(part, the_environment_is_asked_last);
}

static void add_description(TCase *part) {
    tcase_add_test(part, every_device_is_described);
    tcase_add_test(part, quirks_are_rows);
    tcase_add_test(part, codes_have_names);
}

static void add_handle(TCase *part) {
    tcase_add_test(part, an_opened_device_tells_about_itself);
    tcase_add_test(part, adopting_reads_the_queue);
    tcase_add_test(part, limits_can_be_replaced);
    tcase_add_test(part, memory_is_counted);
}

int main(void) {
    static const suite_part parts[] = {
        {"choice", add_choice}, {"description", add_description}, {"handle", add_handle}};
    return suite_run("device", parts, sizeof parts / sizeof *parts);
}
