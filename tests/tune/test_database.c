/* Tuning records: as text and back, looked up in their order, damaged, replaced, imported. */
#include <clsplat/tune.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "op/choose.h"
#include "op/families.h"
#include "suite.h"

static const tune_record cpu = {
    .op = "softmax",
    .variant = "wide",
    .shape = {"F32", "-", 4, 4096, 4096, 64, 64},
    .parameters = "TILE=128 RT=4 LANES=4",
    .seconds = 0.0125,
    .error = 3.5e-7,
    .source = 0x0123456789abcdef,
    .on = {"A platform", "A vendor", "A device (R) of 2 cores", "1.0", "cpu", 2, 4096, 16, 0}};

typedef struct fixture {
    clsplat *lib;
    clsplat_options options;
    char *folder;
    char path[4096];
    unsigned warnings;
    char last[1024];
    tune_database db;
} fixture;

static void count_warnings(void *user, clsplat_log_level level, const char *message) {
    fixture *f = user;
    if (level != CLSPLAT_LOG_WARNING)
        return;
    f->warnings++;
    snprintf(f->last, sizeof f->last, "%s", message);
}

static void begin(fixture *f) {
    *f = (fixture){.folder = suite_folder()};
    f->options = clsplat_options_defaults();
    f->options.log = count_warnings;
    f->options.user = f;
    ck_assert_int_eq(clsplat_create(f->options, &f->lib), CLSPLAT_OK);
    ck_assert_int_eq(setenv("XDG_DATA_HOME", f->folder, 1), 0);
}

static void end(fixture *f) {
    tune_database_free(&f->db);
    clsplat_destroy(&f->lib);
    unsetenv("XDG_DATA_HOME");
    suite_remove(f->folder);
}

static const char *in_folder(fixture *f, const char *name) {
    snprintf(f->path, sizeof f->path, "%s/%s", f->folder, name);
    return f->path;
}

static void add(fixture *f, const tune_record *record) {
    suite_ok(f->lib, tune_database_add(f->lib, &f->db, record));
}

START_TEST(a_line_is_read_as_written) {
    tune_record records[] = {cpu, cpu}, read;
    records[1].seconds = INFINITY;
    for (int i = 0; i < 2; i++) {
        text line = {0}, again = {0};
        tune_record_write(&records[i], &line);
        ck_assert(tune_record_read(line.data, &read));
        ck_assert_mem_eq(&read, &records[i], sizeof read);
        tune_record_write(&read, &again);
        ck_assert_str_eq(line.data, again.data);
        text_free(&line);
        text_free(&again);
    }
}
END_TEST

/* Wherever a line ends, and whatever byte of it is no longer there, it is read as a record or refused, no
 * more. */
START_TEST(damage_is_refused) {
    text line = {0};
    tune_record record;
    tune_record_write(&cpu, &line);
    for (size_t length = 0; length < line.length - 1; length++) {
        char *cut = strndup(line.data, length);
        ck_assert_msg(!tune_record_read(cut, &record), "a record of %zu bytes was read", length);
        free(cut);
    }
    for (size_t i = 0; i < line.length; i++) {
        char *bad = strdup(line.data);
        bad[i] = '\1';
        ck_assert_msg(!tune_record_read(bad, &record), "byte %zu was not missed", i);
        memmove(bad + i, line.data + i + 1, line.length - i);
        tune_record_read(bad, &record);
        free(bad);
    }
    text_free(&line);
}
END_TEST

/* The good lines of a file with others between them are all there, and each of the others has been told. */
START_TEST(damaged_lines_are_told_and_skipped) {
    fixture f;
    begin(&f);
    text lines = {0}, good = {0};
    tune_record other = cpu;
    tune_record_write(&cpu, &good);
    strncpy(other.op, "read", sizeof other.op); /* with zeros behind, for the comparison */
    text_add(&lines, "# a comment\n\n%s\nnonsense\n%.60s\n", good.data, good.data);
    text_add_bytes(&lines, "op=\0\n", 5);
    tune_record_write(&other, &lines);
    FILE *file = fopen(in_folder(&f, "tuning.txt"), "wb");
    ck_assert_uint_eq(fwrite(lines.data, 1, lines.length, file), lines.length);
    fclose(file);
    suite_ok(f.lib, tune_database_load(f.lib, &f.db, f.path));
    ck_assert_uint_eq(f.db.count, 2);
    ck_assert_mem_eq(&f.db.records[0], &cpu, sizeof cpu);
    ck_assert_mem_eq(&f.db.records[1], &other, sizeof other);
    ck_assert_uint_eq(f.warnings, 3);
    ck_assert_ptr_nonnull(strstr(f.last, "tuning.txt:6: "));
    text_free(&lines);
    text_free(&good);
    end(&f);
}
END_TEST

START_TEST(a_new_record_takes_the_place_of_the_old) {
    fixture f;
    begin(&f);
    tune_record faster = cpu, crashed = cpu, driver = cpu;
    faster.seconds = 0.01;
    snprintf(faster.variant, sizeof faster.variant, "plain");
    crashed.seconds = INFINITY;
    snprintf(driver.on.driver, sizeof driver.on.driver, "2.0");
    add(&f, &cpu);
    add(&f, &faster);
    ck_assert_uint_eq(f.db.count, 1);
    add(&f, &crashed);
    add(&f, &crashed);
    add(&f, &driver);
    ck_assert_uint_eq(f.db.count, 3);
    ck_assert_str_eq(f.db.records[0].variant, "plain");
    snprintf(crashed.parameters, sizeof crashed.parameters, "TILE=64 RT=4 LANES=4");
    add(&f, &crashed);
    ck_assert_uint_eq(f.db.count, 4);
    end(&f);
}
END_TEST

static bool accept(void *user, const tune_record *record) {
    ck_assert(isfinite(record->seconds));
    return record->source != *(const uint64_t *)user;
}

/* The winner's parameters; records of source `refused` cannot be used. */
static const char *find(const fixture *f, uint64_t refused) {
    tune_query query = {
        .op = "softmax", .shape = cpu.shape, .on = cpu.on, .user = &refused, .accept = accept};
    const tune_record *found = tune_database_find(&f->db, &query);
    return found ? found->parameters : "default";
}

static tune_record named(const char *parameters, uint64_t source) {
    tune_record r = cpu;
    snprintf(r.parameters, sizeof r.parameters, "%s", parameters);
    r.source = source;
    return r;
}

/* From the least to the most wanted; each that is added wins over those before. */
START_TEST(the_nearest_record_wins) {
    fixture f;
    begin(&f);
    tune_record gpu = named("gpu", 1), far = named("far", 2), near = named("near", 3),
                nearer = named("nearer", 4);
    tune_record architecture = named("architecture", 5), driver = named("driver", 6),
                shape = named("shape", 7);
    snprintf(gpu.on.kind, sizeof gpu.on.kind, "gpu");
    far.on.local_memory = 32 << 10;
    near.on.compute_units = 64;
    snprintf(nearer.on.vendor, sizeof nearer.on.vendor, "Another vendor");
    nearer.on.compute_units = 4;
    snprintf(architecture.on.device, sizeof architecture.on.device, "Its sister");
    snprintf(driver.on.driver, sizeof driver.on.driver, "0.9");
    shape.shape.rows = 1024;
    add(&f, &gpu);
    add(&f, &far);
    ck_assert_str_eq(find(&f, 0), "default");
    const tune_record *const rising[] = {&near, &nearer, &architecture, &driver, &shape, &cpu};
    for (size_t i = 0; i < sizeof rising / sizeof *rising; i++) {
        add(&f, rising[i]);
        ck_assert_str_eq(find(&f, 0), rising[i]->parameters);
    }
    /* One whose source has changed is as if it were not there. */
    ck_assert_str_eq(find(&f, cpu.source), "shape");
    end(&f);
}
END_TEST

START_TEST(what_crashed_or_is_too_far_is_not_found) {
    fixture f;
    begin(&f);
    tune_record crashed = named("crashed", 1), decoding = named("decoding", 2);
    crashed.seconds = INFINITY;
    decoding.shape.rows = 1;
    add(&f, &crashed);
    add(&f, &decoding);
    ck_assert_str_eq(find(&f, 0), "default");
    end(&f);
}
END_TEST

START_TEST(shapes_fall_into_classes) {
    tune_shape a = {"F32", "-", 3, 4000, 100000, 64, 64}, b = {"F32", "-", 4, 4096, 65536, 64, 64};
    tune_shape_round(&a);
    tune_shape_round(&b);
    ck_assert_mem_eq(&a, &b, sizeof a);
    b.rows = 1;
    ck_assert_double_gt(tune_shape_distance(&a, &b), 8);
    snprintf(b.form, sizeof b.form, "causal");
    b.rows = a.rows;
    ck_assert_double_eq(tune_shape_distance(&a, &b), 2);
    snprintf(b.type, sizeof b.type, "F16");
    ck_assert(isinf(tune_shape_distance(&a, &b)));
}
END_TEST

START_TEST(files_are_replaced_in_one_step) {
    fixture f;
    begin(&f);
    struct stat before, after;
    tune_database read = {0};
    add(&f, &cpu);
    suite_ok(f.lib, tune_database_save(f.lib, &f.db, in_folder(&f, "tuning.txt")));
    ck_assert_int_eq(stat(f.path, &before), 0);
    suite_ok(f.lib, tune_database_save(f.lib, &f.db, f.path));
    ck_assert_int_eq(stat(f.path, &after), 0);
    ck_assert(before.st_ino !=
              after.st_ino); /* another file under the same name, not the same file written over */
    suite_ok(f.lib, tune_database_load(f.lib, &read, f.path));
    ck_assert_uint_eq(read.count, 1);
    ck_assert_mem_eq(&read.records[0], &cpu, sizeof cpu);
    tune_database_free(&read);
    ck_assert_int_eq(tune_database_save(f.lib, &f.db, in_folder(&f, "no/such/folder")), CLSPLAT_IO);
    end(&f);
}
END_TEST

/* Import adds what is new or faster, export writes what import has read. */
START_TEST(export_and_import_meet) {
    fixture f;
    begin(&f);
    tune_record slower = cpu, other = cpu;
    slower.seconds = 1;
    strncpy(other.op, "read", sizeof other.op); /* with zeros behind, for the comparison */
    add(&f, &cpu);
    add(&f, &other);
    suite_ok(f.lib, tune_database_save(f.lib, &f.db, in_folder(&f, "given.txt")));
    suite_ok(f.lib, clsplat_tune_import(f.lib, f.path));
    tune_database_free(&f.db);
    add(&f, &slower);
    suite_ok(f.lib, tune_database_save(f.lib, &f.db, in_folder(&f, "slower.txt")));
    suite_ok(f.lib, clsplat_tune_import(f.lib, f.path));
    suite_ok(f.lib, clsplat_tune_export(f.lib, in_folder(&f, "taken.txt")));
    tune_database_free(&f.db);
    suite_ok(f.lib, tune_database_load(f.lib, &f.db, f.path));
    ck_assert_uint_eq(f.db.count, 2);
    ck_assert_mem_eq(&f.db.records[0], &cpu, sizeof cpu);
    ck_assert_mem_eq(&f.db.records[1], &other, sizeof other);
    ck_assert_int_eq(clsplat_tune_import(f.lib, in_folder(&f, "missing.txt")), CLSPLAT_IO);
    end(&f);
}
END_TEST

/* Only what a compiler sees of a kernel can make its records worthless. */
START_TEST(records_hang_on_words_alone) {
    const char *plain = "#define A 1\nint f(int x) { return x + A; }\n";
    const char *same[] = {
        "#line 7 \"a.cl\"\n#define A 1 /* one */\n#line 9 \"b.cl\"\nint f( int  x ) {\n return x+A;}",
        "/* \"f\" */ #define \\\n A 1\nint f(int x)\n{\treturn x /**/ + A;}",
        "#define A 1\nint f(int x){return x+A;}//"};
    const char *other[] = {"#define A 1\nint f(int x) { return x - A; }\n",
                           "#define A 1\nint f(int x) { return xA; }\n",
                           "#define A 1\nint f(int x) { return A + x; }\n", ""};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        ck_assert_msg(op_text_hash(same[i]) == op_text_hash(plain), "%s", same[i]);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        ck_assert_msg(op_text_hash(other[i]) != op_text_hash(plain), "%s", other[i]);
    ck_assert(op_text_hash("\"a // b\"") != op_text_hash("\"a // c\""));
    ck_assert(op_text_hash("\"a  b\"") != op_text_hash("\"a b\""));
    ck_assert(op_text_hash("\"\\\" /* b\" c") != op_text_hash("\"\\\" /* b\" d"));
}
END_TEST

/* The library's own records are whole, and of kernels as they are now. */
START_TEST(shipped_records_are_alive) {
    fixture f;
    begin(&f);
    suite_ok(f.lib, op_records_load(f.lib, &f.db));
    ck_assert_uint_eq(f.warnings, 0);
    for (size_t i = 0; i < f.db.count; i++) {
        const tune_record *r = &f.db.records[i];
        const op_variant *v = NULL;
        tune_point point;
        for (size_t n = 0; n < op_family_count; n++)
            for (size_t row = 0; row < op_families[n]->count && strcmp(op_families[n]->name, r->op) == 0;
                 row++)
                if (strcmp(op_families[n]->variants[row].name, r->variant) == 0)
                    v = &op_families[n]->variants[row];
        ck_assert_msg(v != NULL, "record %zu is of an unknown variant", i);
        ck_assert_msg(op_source_hash(v) == r->source,
                      "cl/tuning.txt: %s %s has changed since its record was made: tune again, or write "
                      "source=%016" PRIx64 " where the change does not touch its speed",
                      r->op, r->variant, op_source_hash(v));
        ck_assert(tune_point_read(v->space, r->parameters, &point));
    }
    end(&f);
}
END_TEST

static void add_all(TCase *part) {
    tcase_add_test(part, a_line_is_read_as_written);
    tcase_add_test(part, damage_is_refused);
    tcase_add_test(part, damaged_lines_are_told_and_skipped);
    tcase_add_test(part, a_new_record_takes_the_place_of_the_old);
    tcase_add_test(part, the_nearest_record_wins);
    tcase_add_test(part, what_crashed_or_is_too_far_is_not_found);
    tcase_add_test(part, shapes_fall_into_classes);
    tcase_add_test(part, files_are_replaced_in_one_step);
    tcase_add_test(part, export_and_import_meet);
    tcase_add_test(part, records_hang_on_words_alone);
    tcase_add_test(part, shipped_records_are_alive);
}

int main(void) {
    static const suite_part parts[] = {{"database", add_all}};
    return suite_run("database", parts, sizeof parts / sizeof *parts);
}
