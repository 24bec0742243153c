/* A progress bar for whoever watches, and Ctrl-C for whoever has seen enough. */
#ifndef CLSPLAT_CLI_PROGRESS_H
#define CLSPLAT_CLI_PROGRESS_H

#include <signal.h>
#include <stdbool.h>

typedef struct progress {
    double started, drawn; /* seconds; drawn is 0 while no bar is shown */
    bool terminal;
    char note[96]; /* behind the bar */
    sigset_t stop; /* the signals that end the work in good order */
} progress;

/* From here on SIGINT and SIGTERM wait until progress_step asks for them: to be called from the main thread,
 * before a device is opened. */
void progress_begin(progress *p);
/* A clsplat_progress: draws the bar if the work takes more than a second and stderr is a terminal; false
 * after a signal. */
bool progress_step(void *user, double done);
/* Whether a signal has come, without a bar: while text is written. */
bool progress_stopped(const progress *p);
/* Takes the signal that progress_step told of, so that other work can begin. Returns: its number; 0 if there
 * was none. */
int progress_take(progress *p);
/* While somebody is asked for words, signals end the program; afterwards they wait again. */
void progress_listen(const progress *p, bool listening);
/* Takes the bar off the terminal. */
void progress_clear(progress *p);

#endif
