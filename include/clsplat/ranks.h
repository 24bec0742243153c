/* One attention over several processes, each with a part of the sequence and a device of its own.
 *
 * MPI carries the numbers: <clsplat/mpi.h> makes a group out of a communicator. Here is all that needs no
 * mpi.h. In the library only where it was built with MPI (`-Dmpi=enabled`).
 *
 * Softmax attention: every rank keeps its queries, and the blocks of keys and values pass round a ring while
 * the block before is computed with; what a row knows of two blocks meets by the rule of all states,
 *     lse = ln(e^lse1 + e^lse2)     out = e^(lse1 − lse) out1 + e^(lse2 − lse) out2
 * in the order in which they come, so that the same number of ranks gives the same bits on the same devices.
 * Source: Liu, Zaharia and Abbeel 2023 (arXiv 2310.01889); an early and a late part to each rank as in
 * Brandon et al. 2023 (arXiv 2311.09431), so that causal rows are no more work for one than for another.
 *
 * Gaussian attention: one all-reduce of what the splats know of each rank's keys, S·(Dv + 2) numbers a head
 * however long the sequence is; an exclusive scan of them where it is causal.
 *
 * Near and far: every rank grows the trees of its own keys; keys that stand apart and the nodes of whole
 * chunks go to all, and of the rest each rank fetches what its rows open, in batches, until none misses
 * anything. The keys that a row opens are those of one process. With many rows to a rank that is nearly all
 * that there is, so that it sends about as much as the ring does; the memory of a rank is that of all keys.
 * No sparse_topk. Source: the locally essential trees of Warren and Salmon 1992.
 *
 * All calls that say Collective must be made by all ranks of the group in the same order. One that fails on
 * any rank fails on all, with the words of the lowest rank on which it does, within one block's work. A rank
 * whose process ends takes the others with it, as MPI's launcher sees to.
 *
 * Threads: as the device, one at a time. Where MPI gives MPI_THREAD_SERIALIZED or more, a thread of the
 * library's waits for messages while the device computes, and no other thread may call MPI during a call. */
#ifndef CLSPLAT_RANKS_H
#define CLSPLAT_RANKS_H

#include <clsplat/attention.h>
#include <clsplat/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct clsplat_ranks clsplat_ranks;

/* Accepts NULL and a NULL handle; sets *ranks to NULL. Collective. */
CLSPLAT_API void clsplat_ranks_destroy(clsplat_ranks **ranks);
CLSPLAT_API size_t clsplat_ranks_count(const clsplat_ranks *ranks);
CLSPLAT_API size_t clsplat_ranks_own(const clsplat_ranks *ranks); /* this process's, from 0 */

/* Rows [begin, begin + count) of a sequence; count may be 0. */
typedef struct clsplat_run {
    size_t begin, count;
} clsplat_run;

/* The rows that a rank holds, one run behind the other. */
enum { CLSPLAT_RUNS = 2 };
typedef struct clsplat_part {
    clsplat_run queries[CLSPLAT_RUNS], keys[CLSPLAT_RUNS];
} clsplat_part;

/* Who holds what, of sequences of so many queries and keys: for softmax attention an early and a late run,
 * for Gaussian attention one, the second being empty; for near and far runs of whole chunks of keys, and
 * where it is causal the queries that end in them. Together the ranks' runs are the sequence. */
CLSPLAT_API clsplat_part clsplat_ranks_part_sized(const clsplat_attention *attention, size_t queries,
                                                  size_t keys, size_t ranks, size_t rank);
static inline clsplat_part clsplat_ranks_part(clsplat_attention attention, size_t queries, size_t keys,
                                              size_t ranks, size_t rank) {
    attention.size = sizeof attention;
    return clsplat_ranks_part_sized(&attention, queries, keys, ranks, rank);
}

/* OK if every rank says OK; otherwise on every rank the status of the lowest that does not, and its words as
 * the last error. Collective. */
CLSPLAT_API clsplat_status clsplat_ranks_agree(clsplat_ranks *ranks, clsplat_status status);

/* clsplat_attend of a sequence of `queries` and `keys` rows. `tensors` are this rank's rows, in the order of
 * clsplat_ranks_part: k is [B,Hk,rows here,D]; one of 0 rows has that shape and no host. Out and lse are
 * float32; lse may be absent.
 *
 * What must be alike on all ranks is compared first: versions, kernels, shapes, options, splats. Different
 * devices work together, with a warning, since the bits then depend on who computes what.
 *
 * Writes: out, lse. Blocks. Collective. Returns: as clsplat_attend; INVALID if ranks differ; UNSUPPORTED
 * (sparse_topk, a window); IO if messages fail. */
CLSPLAT_API clsplat_status clsplat_ranks_attend_sized(clsplat_ranks *ranks, clsplat_device *device,
                                                      const clsplat_attention *attention, size_t queries,
                                                      size_t keys, const clsplat_attention_tensors *tensors);
static inline clsplat_status clsplat_ranks_attend(clsplat_ranks *ranks, clsplat_device *device,
                                                  clsplat_attention attention, size_t queries, size_t keys,
                                                  clsplat_attention_tensors tensors) {
    attention.size = sizeof attention;
    tensors.size = sizeof tensors;
    return clsplat_ranks_attend_sized(ranks, device, &attention, queries, keys, &tensors);
}

/* A session whose keys and values the ranks hold together, each about 1/ranks of its tokens: queries go to
 * the keys, and what each rank says of them meets by the rule above, so that the network carries H·(D + 2)
 * numbers a token and layer however long the text is. Everything else every rank computes for itself. Layers
 * with a window of the model's own, and those with splats, keep theirs on every rank. Near and far, every
 * rank grows trees of the keys that it has, and keeps the tolerance for them; statistics are of all ranks.
 *
 * All calls on the session are collective, with the same tokens; every rank gets the same results, and of
 * clsplat_session_sample the first rank's token. A call that fails on one fails on all, and the session is
 * then to be rewound to 0, or closed; closing is not collective.
 *
 * Returns: as clsplat_session_open; INVALID if ranks differ (version, shape of the model, capacity, method);
 * UNSUPPORTED (other methods than EXACT and NEAR_FAR, sparse_topk, measure_errors). Collective. */
CLSPLAT_API clsplat_status clsplat_ranks_session_open_sized(clsplat_ranks *ranks, clsplat_model *model,
                                                            size_t capacity,
                                                            const clsplat_model_attention *attention,
                                                            clsplat_session **session);
static inline clsplat_status clsplat_ranks_session_open(clsplat_ranks *ranks, clsplat_model *model,
                                                        size_t capacity, clsplat_model_attention attention,
                                                        clsplat_session **session) {
    attention.size = sizeof attention;
    return clsplat_ranks_session_open_sized(ranks, model, capacity, &attention, session);
}

/* Of this rank since the group was made: bytes of keys, values, states and results (not the few of agreeing),
 * and how long computing waited for them. */
typedef struct clsplat_traffic {
    uint64_t sent, received;
    double waited; /* seconds */
} clsplat_traffic;
CLSPLAT_API clsplat_traffic clsplat_ranks_traffic(const clsplat_ranks *ranks);

#ifdef __cplusplus
}
#endif
#endif
