/* `clsplat plan` in parts: what a model asks for, how fast devices are, and what that comes to. */
#ifndef CLSPLAT_CLI_PLAN_H
#define CLSPLAT_CLI_PLAN_H

#include "cli/cli.h"
#include "model/config.h"
#include "tuning/example.h"

/* A model and how it is to be run. */
typedef struct plan_model {
    model_config config;
    double weight_bytes;
    double context, splats; /* tokens; of a head, 0: softmax attention */
    clsplat_dtype dtype;    /* of what is timed */
} plan_model;

/* Seconds on one device. */
typedef struct plan_speed {
    char device[128];
    double token;  /* products of a layer, for a token among many */
    double pair;   /* softmax attention of a layer: a query and a key; or with splats a token */
    double single; /* a token alone: all layers and the head, with the whole context; NaN: not known */
} plan_speed;

/* Bytes a second from one rank to the next, and seconds a message. */
typedef struct plan_network {
    double rate, latency;
    bool measured;
} plan_network;

/* What each of `ranks` ranks has to do to read the context once. */
typedef struct plan_step {
    size_t ranks;
    double memory, traffic;              /* bytes, of the fullest rank; bytes sent */
    double products, attention, network; /* seconds */
    double seconds;                      /* messages of the ring beside computation */
} plan_step;

/* Times the device's operations on the model's shapes. Blocks for a few seconds. */
clsplat_status plan_time(cli *c, const plan_model *m, plan_speed *speed);
/* By the tuning records of a device whose name has these words. Returns: INVALID if there are none. */
clsplat_status plan_look_up(cli *c, const plan_model *m, const char *name, plan_speed *speed);

plan_step plan_step_of(const plan_model *m, const plan_speed *speed, const plan_network *network,
                       size_t ranks);

/* Between the processes that mpirun started; all but the first are quiet afterwards. Collective. */
clsplat_status plan_measure_network(cli *c, plan_network *network);

#endif
