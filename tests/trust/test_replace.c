/* A file that takes another's place, and a process that is killed at every system call of that, one after
 * another: what is read afterwards is the old file or the new one, whole; the next writer sweeps; and what
 * must survive a power cut was synced before it was renamed. Through ptrace. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
/* after sys/ptrace.h, whose names it has as macros */
#include <linux/ptrace.h>

#include "base/file.h"
#include "runtime/cache.h"
#include "suite.h"
#include "tune/database.h"
#include "tune/journal.h"

typedef struct stage {
    clsplat *lib;
    char *folder, path[4096];
} stage;

enum { OLD, NEW, NEITHER, ANSWERS };

/* What is replaced: first by OLD, then, in the process that is killed, by NEW. */
typedef struct deed {
    const char *name;
    void (*replace)(stage *s, int by);
    int (*look)(stage *s);
    bool synced, may_be_gone;
} deed;

enum { BYTES = 3 * 4096 };

static const char *content(int by) {
    static char bytes[2][BYTES + 1];
    memset(bytes[by], by == OLD ? 'o' : 'n', BYTES - 100 * (size_t)by);
    return bytes[by];
}

static int which(const char *bytes) {
    return strcmp(bytes, content(OLD)) == 0 ? OLD : strcmp(bytes, content(NEW)) == 0 ? NEW : NEITHER;
}

static void replace_file(stage *s, int by) {
    file_writer file = {0};
    size_t bytes = strlen(content(by));
    suite_ok(s->lib, file_create(s->lib, s->path, &file));
    suite_ok(s->lib, file_write(s->lib, &file, content(by), 5000));
    suite_ok(s->lib, file_write(s->lib, &file, content(by) + 5000, bytes - 5000));
    suite_ok(s->lib, file_commit(s->lib, &file));
    file_discard(&file);
}

static int look_at_file(stage *s) {
    char *bytes = NULL;
    size_t count = 0;
    suite_ok(s->lib, file_load(s->lib, s->path, 1 << 20, &bytes, &count));
    int answer = which(bytes);
    free(bytes);
    return answer;
}

static const char key[] = "a key";

static void replace_entry(stage *s, int by) {
    setenv("XDG_CACHE_HOME", s->folder, 1);
    unsetenv("CLSPLAT_CACHE");
    cache_put(s->lib, key, sizeof key, content(by), strlen(content(by)) + 1);
}

static int look_at_entry(stage *s) {
    void *bytes = NULL;
    size_t count = 0;
    if (!cache_get(s->lib, key, sizeof key, &bytes, &count))
        return NEITHER;
    int answer = which(bytes);
    free(bytes);
    return answer;
}

static tune_record record_of(int by) {
    return (tune_record){.op = "gemm",
                         .variant = "tiles",
                         .shape = {"F32", "-", 1, 64, 64, 64, 64},
                         .parameters = "m=4",
                         .seconds = by == OLD ? 1 : 2,
                         .on = {"p", "v", "d", "1", "cpu", 1, 1, 1, 1}};
}

static void replace_records(stage *s, int by) {
    tune_record record = record_of(by);
    tune_database db = {.records = &record, .count = 1, .capacity = 1};
    suite_ok(s->lib, tune_database_save(s->lib, &db, s->path));
}

static int look_at_records(stage *s) {
    tune_database db = {0};
    suite_ok(s->lib, tune_database_load(s->lib, &db, s->path));
    int answer = db.count != 1 ? NEITHER : db.records[0].seconds == 1 ? OLD : NEW;
    tune_database_free(&db);
    return answer;
}

/* Its lines say what is tried just now; between two of them nothing is. */
static void replace_line(stage *s, int by) {
    tune_journal journal;
    text left = {0};
    suite_ok(s->lib, tune_journal_open(s->lib, s->path, &journal, &left));
    suite_ok(s->lib, tune_journal_begin(s->lib, &journal, content(by) + BYTES - 200));
    tune_journal_close(&journal);
    text_free(&left);
}

static int look_at_line(stage *s) {
    tune_journal journal;
    text left = {0};
    suite_ok(s->lib, tune_journal_open(s->lib, s->path, &journal, &left));
    const char *line = left.data ? left.data : "";
    int answer = strcmp(line, content(OLD) + BYTES - 200) == 0   ? OLD
                 : strcmp(line, content(NEW) + BYTES - 200) == 0 ? NEW
                                                                 : NEITHER;
    ck_assert(answer != NEITHER || !*line);
    tune_journal_close(&journal);
    text_free(&left);
    return answer;
}

static const deed deeds[] = {{"an output", replace_file, look_at_file, true, false},
                             {"a cache entry", replace_entry, look_at_entry, false, false},
                             {"tuning records", replace_records, look_at_records, true, false},
                             {"the journal", replace_line, look_at_line, false, true}};

/* The calls that matter for a power cut, in their order. */
typedef struct calls {
    long count, synced, renamed;
} calls;

static void note(calls *c, uint64_t number) {
    ++c->count;
    if (number == SYS_fsync)
        c->synced = c->count;
#ifdef SYS_rename
    if (number == SYS_rename)
        c->renamed = c->count;
#endif
    if (number == SYS_renameat || number == SYS_renameat2)
        c->renamed = c->count;
}

/* Goes on to the next system call that begins; false once the process is gone. */
static bool go_on(pid_t child, calls *c) {
    struct __ptrace_syscall_info about;
    int how, passed = 0;
    for (;;) {
        ck_assert_int_eq(ptrace(PTRACE_SYSCALL, child, NULL, (void *)(intptr_t)passed), 0);
        ck_assert_int_eq(waitpid(child, &how, 0), child);
        if (!WIFSTOPPED(how)) {
            ck_assert_msg(WIFEXITED(how) && WEXITSTATUS(how) == 0, "the replacement fails by itself");
            return false;
        }
        passed = WSTOPSIG(how) == (SIGTRAP | 0x80) ? 0 : WSTOPSIG(how);
        if (passed)
            continue;
        ck_assert_int_gt(ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof about, &about), 0);
        if (about.op == PTRACE_SYSCALL_INFO_ENTRY) {
            note(c, about.entry.nr);
            return true;
        }
    }
}

/* Killed instead of its `at`th system call; false if it has none so late. */
static bool kill_at(stage *s, const deed *d, long at, calls *c) {
    int how;
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        d->replace(s, NEW);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &how, 0), child);
    ck_assert_int_eq(
        ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)), 0);
    while (go_on(child, c))
        if (c->count == at) {
            kill(child, SIGKILL);
            waitpid(child, &how, 0);
            return true;
        }
    return false;
}

/* Temporary files in the folder and below it; they become old enough to be swept. */
static int left_over(const char *folder) {
    static const struct timespec long_ago[2];
    int count = 0;
    DIR *list = opendir(folder);
    ck_assert_ptr_nonnull(list);
    for (struct dirent *entry; (entry = readdir(list));) {
        char path[8192];
        struct stat about;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] == '.' || stat(path, &about) != 0)
            continue;
        if (S_ISDIR(about.st_mode))
            count += left_over(path);
        if (strstr(entry->d_name, ".tmp")) {
            utimensat(AT_FDCWD, path, long_ago, 0);
            ++count;
        }
    }
    closedir(list);
    return count;
}

/* Some places give no process another's system calls to see. */
static bool may_trace(void) {
    int how;
    pid_t child = fork();
    if (child == 0)
        _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0);
    waitpid(child, &how, 0);
    return WIFEXITED(how) && WEXITSTATUS(how) == 0;
}

START_TEST(it_is_whole_whenever_one_dies) {
    const deed *d = &deeds[_i];
    stage s = {.lib = suite_library(), .folder = suite_folder()};
    int seen[ANSWERS] = {0}, swept = 0;
    bool going = may_trace();
    if (!going)
        suite_skipped("a process killed at every system call", "there is no ptrace here");
    for (long at = 1; going; at++) {
        calls c = {0};
        snprintf(s.path, sizeof s.path, "%s/target", s.folder);
        d->replace(&s, OLD);
        going = kill_at(&s, d, at, &c);
        int answer = d->look(&s);
        ck_assert_msg(answer != NEITHER || d->may_be_gone, "%s, killed at call %ld: neither", d->name, at);
        ck_assert_msg(going || answer == NEW, "%s: not replaced", d->name);
        ++seen[answer];
        swept += left_over(s.folder);
        d->replace(&s, NEW);
        ck_assert_int_eq(d->look(&s), NEW);
        ck_assert_msg(left_over(s.folder) == 0, "%s, killed at call %ld: not swept", d->name, at);
        ck_assert(going || !d->synced || (c.synced > 0 && c.synced < c.renamed));
    }
    ck_assert(!may_trace() || (seen[OLD] > 0 && seen[NEW] > 0 && (d->may_be_gone || swept > 0)));
    clsplat_destroy(&s.lib);
    suite_remove(s.folder);
}
END_TEST

static void add_replace(TCase *part) {
    tcase_add_loop_test(part, it_is_whole_whenever_one_dies, 0, (int)(sizeof deeds / sizeof *deeds));
}

int main(void) {
    static const suite_part parts[] = {{"replace", add_replace}};
    return suite_run("replace", parts, sizeof parts / sizeof *parts);
}
