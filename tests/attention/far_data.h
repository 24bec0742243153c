/* Inputs on which near-far attention is judged: what pretrained models' layers look like, and what is hard
 * for trees. */
#ifndef CLSPLAT_TESTS_FAR_DATA_H
#define CLSPLAT_TESTS_FAR_DATA_H

#include "attention/problem.h"

/* As in layers of SmolLM2 (13, 19), keys have a common part as long as the rest, against which queries point,
 * so that logits lie at −10 with a deviation of 2; a topic lasts for some tokens, a word is anybody's, and
 * each lifts the logits of its own by 6. */
typedef enum far_data {
    FAR_TEXT,        /* that */
    FAR_SHORT_SINKS, /* and the first token and one in 200, at random, without the common part: short, with
                        logits near 0, so that they have about half of almost every row's mass; their values
                        are almost 0 */
    FAR_FIRST_SINK,  /* only the first token is one */
    FAR_SHORT_LOUD,  /* the same with values like all others */
    FAR_LONG_SINKS,  /* no common part; sinks are twice as long as others, against the queries' common part,
                        values almost 0 */
    FAR_LONG_LOUD,   /* the same with values like all others */
    FAR_SHARP,       /* nothing but noise, logits of deviation 49 */
    FAR_SHARPER,     /* of deviation 100 */
    FAR_TIGHT,       /* 24 tight clusters, queries so sharp that one key of a cluster of 46 matters */
    FAR_ONE_LONG,    /* text, and one key 40 times as long as others */
    FAR_DIFFUSE,     /* text without a common part under queries so short that all keys matter alike */
    FAR_TINY,        /* text with values of 10⁻²⁵ */
    FAR_HUGE         /* text with values of 10¹⁹ */
} far_data;

/* Overwrites queries, keys and values; what padding hides stays as it is. */
void far_fill(problem *p, far_data data, uint64_t seed);
/* The same for the tokens from `begin` on alone, of another text: keys, values, and the queries at their
 * positions. Causal only. */
void far_change(problem *p, far_data data, uint64_t seed, size_t begin);

#endif
