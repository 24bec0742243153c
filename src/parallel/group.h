/* A group of devices as the inside sees it. */
#ifndef CLSPLAT_PARALLEL_GROUP_H
#define CLSPLAT_PARALLEL_GROUP_H

#include <clsplat/group.h>
#include <pthread.h>

#include "attention/attend.h"

/* A device with a library handle of its own, since another thread uses it. */
typedef struct member {
    clsplat *lib;
    clsplat_device *device;
    clsplat_splats *splats; /* a copy of the call's; NULL: none */
    attend_call call;       /* the whole call, on this device */
    double speed;           /* work a second; 0: not measured yet */
    double work, seconds;   /* of the units of this call */
    size_t units;
    bool measured, left; /* left: it takes no more units */
    clsplat_status status;
} member;

struct clsplat_group {
    clsplat *lib;
    member *members;
    size_t count;
    double total; /* work of the last call */
};

#endif
