/* How a model is trained: numbers that a configuration's "training" object may set. */
#ifndef CLSPLAT_TRAIN_SETTINGS_H
#define CLSPLAT_TRAIN_SETTINGS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"

typedef enum train_shape { TRAIN_COSINE, TRAIN_WSD, TRAIN_CONSTANT } train_shape;
/* What layers and products compute in; weights, their gradients and all sums are float32 in any case. AUTO:
 * bfloat16 where the device has matrix units for it. */
typedef enum train_type { TRAIN_AUTO, TRAIN_F32, TRAIN_BF16 } train_type;

typedef struct train_settings {
    size_t context;           /* tokens of a window */
    size_t batch, accumulate; /* windows that go through the layers together; so many times for a step */
    double rate, final_rate;  /* the highest learning rate; what is left of it at the end, as a share */
    double warmup, cooldown;  /* shares of the budget: the rate rises; with "wsd" it falls at the end */
    train_shape shape;
    train_type type;
    double decay, beta1, beta2, epsilon; /* AdamW; matrices decay, vectors do not */
    double clip;                         /* of the gradients' norm; 0: none */
    double mlm_probability;              /* of an encoder: the share of a window's tokens that is hidden */
    uint64_t seed;
    size_t steps;   /* the budget; 0: */
    double seconds; /* of this run and those that it goes on from */
} train_settings;

train_settings train_settings_defaults(void);

/* The object's keys: context, batch_size, gradient_accumulation, learning_rate, final_rate, warmup, cooldown,
 * schedule, dtype, weight_decay, beta1, beta2, epsilon, clip, mlm_probability, seed, steps, seconds. A key
 * that is none of them is refused. `path` is for messages. Returns: FORMAT. */
clsplat_status train_settings_read(clsplat *lib, const char *path, const json_t *object,
                                   train_settings *settings);
/* The same as an object, for the caller to release; NULL without memory. */
json_t *train_settings_write(const train_settings *settings);

/* The type of that name: auto, f32 or bf16. Returns: whether there is one. */
bool train_type_named(const char *name, train_type *type);

/* The learning rate at `done`, the share of the budget that is behind the step when it ends. */
double train_rate(const train_settings *settings, double done);

#endif
