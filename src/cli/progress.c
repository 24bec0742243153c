#include "cli/progress.h"

#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum { BAR = 40 };
static const double patience = 1.0, redraw = 0.1; /* seconds */

/* A signal that is ignored stays so: `nohup`, or a job in the background of a script. */
static void add_unless_ignored(sigset_t *set, int number) {
    struct sigaction action;
    if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_IGN)
        sigaddset(set, number);
}

/* Threads that libraries start before main (OpenBLAS does) let the signal through and may get it instead:
 * they hand it to the main thread, where it waits. */
static void hand_to_main(int number) {
    syscall(SYS_tgkill, getpid(), getpid(), number);
}

void progress_listen(const progress *p, bool listening) {
    struct sigaction action = {.sa_handler = listening ? SIG_DFL : hand_to_main, .sa_flags = SA_RESTART};
    static const int numbers[] = {SIGINT, SIGTERM};
    if (!listening)
        sigprocmask(SIG_BLOCK, &p->stop, NULL);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; ++i)
        if (sigismember(&p->stop, numbers[i]) == 1)
            sigaction(numbers[i], &action, NULL);
    if (listening)
        sigprocmask(SIG_UNBLOCK, &p->stop, NULL);
}

void progress_begin(progress *p) {
    *p = (progress){.started = clock_seconds(), .terminal = isatty(STDERR_FILENO) != 0};
    sigemptyset(&p->stop);
    add_unless_ignored(&p->stop, SIGINT);
    add_unless_ignored(&p->stop, SIGTERM);
    progress_listen(p, false);
}

bool progress_stopped(const progress *p) {
    sigset_t pending;
    if (sigpending(&pending) != 0)
        return false;
    return (sigismember(&p->stop, SIGINT) == 1 && sigismember(&pending, SIGINT) == 1) ||
           (sigismember(&p->stop, SIGTERM) == 1 && sigismember(&pending, SIGTERM) == 1);
}

int progress_take(progress *p) {
    const struct timespec at_once = {0};
    int number = progress_stopped(p) ? sigtimedwait(&p->stop, NULL, &at_once) : 0;
    return number > 0 ? number : 0;
}

static void draw(double done, double elapsed, const char *note) {
    char bar[BAR + 1];
    int full = (int)(done * BAR);
    for (int i = 0; i < BAR; ++i)
        bar[i] = i < full ? '#' : '.';
    bar[BAR] = '\0';
    fprintf(stderr, "\r\033[K[%s] %3.0f %%  %.0f s  %s", bar, 100 * done, elapsed, note);
    fflush(stderr);
}

bool progress_step(void *user, double done) {
    progress *p = user;
    double now = clock_seconds();
    if (p->terminal && now - p->started > patience && now - p->drawn > redraw) {
        draw(done < 0 ? 0 : done > 1 ? 1 : done, now - p->started, p->note);
        p->drawn = now;
    }
    return !progress_stopped(p);
}

void progress_clear(progress *p) {
    if (p->drawn > 0) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
    p->drawn = 0;
}
