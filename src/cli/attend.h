/* `clsplat attend` in parts: what was asked for, what goes in, what comes out. */
#ifndef CLSPLAT_CLI_ATTEND_H
#define CLSPLAT_CLI_ATTEND_H

#include <clsplat/attention.h>
#include <clsplat/group.h>

#include "cli/cli.h"
#include "cli/input.h"

/* What --method may be, by clsplat_method. */
extern const char *const attend_methods[];

typedef struct attend_request {
    const char *input;
    char *output, *splats, *method, *mixing, *scale, *window; /* as given; NULL: not given */
    char *tolerance, *sparse_topk, *chunk, *variant;          /* likewise */
    int causal, grad, show;
    bool near_far;
} attend_request;

/* --grad: dout, and the numbers of the results, each of the shape of what it is the gradient of. */
typedef struct attend_gradients {
    input dout;
    float *dq, *dk, *dv, *dkey_bias;
    clsplat_splats_gradient splats;
} attend_gradients;

typedef struct attend_problem {
    safetensors *file;
    input q, k, v, key_bias;
    clsplat_splats *splats; /* NULL: softmax */
    float *out, *lse;       /* [B,H,N,Dv], [B,H,N] */
    int32_t *exact_keys;    /* near-far only, like the estimate: [B,H,N] */
    float *error_estimate;
    attend_gradients grad;
} attend_problem;

/* Finds the tensors and reads the splats; makes room for the results of as many rows as the tensors have. */
clsplat_status attend_find(clsplat *lib, const attend_request *request, attend_problem *problem);
clsplat_status attend_make_results(clsplat *lib, const attend_request *request, attend_problem *problem);
/* Everything that can be wrong with the files is found here, before a device is opened. */
clsplat_status attend_load(clsplat *lib, const attend_request *request, attend_problem *problem);
/* Returns: NOT_FINITE, and where, if the result holds something that is no number. */
clsplat_status attend_check_result(clsplat *lib, const attend_request *request,
                                   const attend_problem *problem);
clsplat_status attend_save(clsplat *lib, const attend_request *request, const attend_problem *problem);
void attend_free(attend_problem *problem);

/* --grad (attend_grad.c): finds dout, before any number is read, and makes room; reads it; describes what the
 * library is to fill; adds the results to those to be saved, at most ATTEND_GRADIENTS. */
enum { ATTEND_GRADIENTS = 10 };
clsplat_status attend_grad_find(clsplat *lib, const attend_request *request, attend_problem *problem);
clsplat_status attend_grad_read(clsplat *lib, attend_problem *problem);
clsplat_attention_gradients attend_grad_views(const attend_problem *problem);
size_t attend_grad_list(const attend_problem *problem, safetensors_output *tensors);
void attend_grad_free(attend_problem *problem);

/* What the attention cost. */
typedef struct attend_cost {
    double seconds;          /* of the call, on the wall */
    double backward_seconds; /* of the gradients' */
    clsplat_memory memory;
    clsplat_profile_row *kernels;
    size_t kernel_count;
    const clsplat_group *group;   /* NULL: one device */
    size_t ranks;                 /* 0: one process alone; what follows is over all of them */
    uint64_t most_sent, all_sent; /* bytes */
    double most_waited;           /* seconds, for messages */
    double least_seconds;         /* of the call, on the rank that was the first to end */
    double near_far[2];           /* sums of exact keys and of expected errors */
} attend_cost;
/* The sums over so many rows. */
void attend_sum_near_far(const attend_problem *problem, size_t rows, double sums[2]);
/* On stdout, as JSON or for a person. */
clsplat_status attend_report(cli *c, const clsplat_device *device, const clsplat_attention *attention,
                             const attend_problem *problem, const attend_cost *cost);
/* --show: keys and expected errors of near-far's rows as lines of blocks. */
clsplat_status attend_show(cli *c, const clsplat_attention *attention, const attend_problem *problem);

/* The tensors that are read and the results, as the library takes them. */
clsplat_attention_tensors attend_tensors(const attend_problem *problem);

/* The whole command over the processes that mpirun started. */
clsplat_status attend_over_ranks(cli *c, const attend_request *request, clsplat_attention attention);

#endif
