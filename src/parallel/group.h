/* A group of devices as the inside sees it. */
#ifndef CLSPLAT_PARALLEL_GROUP_H
#define CLSPLAT_PARALLEL_GROUP_H

#include <clsplat/group.h>
#include <pthread.h>

#include "attention/attend.h"

typedef struct member {
    clsplat_device *device;
    attend_call call;     /* the whole call, on this device */
    double speed;         /* work a second, of a small part until it has done a unit; 0: not measured yet */
    double work, seconds; /* of the units of this call */
    double doing, since;  /* work of the unit that it is at, or 0, and when that began */
    size_t units, head;   /* done; and whose keys it has, SIZE_MAX: none */
    attend_keys keys;     /* of that head, where softmax left them */
    bool measured, left;  /* it has done a unit; it takes no more */
    clsplat_status status;
    char *words; /* of what failed; NULL: nothing, or no memory for them */
} member;

struct clsplat_group {
    clsplat *lib;
    member *members;
    size_t count;
    double total; /* work of the last call */
};

#endif
