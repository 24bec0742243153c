/* What the tests of queues and launches work with: a device, a buffer of numbers, two kernels of which no two
 * launches can be swapped unnoticed. */
#ifndef CLSPLAT_TESTS_STEPS_H
#define CLSPLAT_TESTS_STEPS_H

#include "runtime/launch.h"
#include "runtime/program.h"
#include "suite.h"

enum { STEPS_COUNT = 1000, STEPS_GROUP = 8 };

/* scale(x, factor, n), shift(x, by, n), and fours(x), which wants groups of 4. */
extern const embedded_source steps_source;

typedef struct steps {
    clsplat *lib;
    clsplat_device *device;
    cl_mem mem; /* STEPS_COUNT floats, all 1 at first */
    float x[STEPS_COUNT];
} steps;

void steps_begin(steps *s);
/* The same on a queue of a guest's, of one of STEPS_KINDS kinds: in-order or not, profiling or not. False,
 * and nothing begun, if the device has no such queue. */
enum { STEPS_KINDS = 4 };
bool steps_begin_guest(steps *s, int kind);
bool steps_kind_profiles(int kind);
bool steps_kind_reorders(int kind);
void steps_end(steps *s);

/* A call without a wait-list. */
queue steps_call(steps *s);
queue_copy steps_all(steps *s);
/* All 1 again. */
void steps_refill(steps *s);
clsplat_status steps_scale(steps *s, queue *q, float factor);
clsplat_status steps_shift(steps *s, queue *q, int by);
/* Fails the test unless every number is `value`. */
void steps_expect(steps *s, float value);

#endif
