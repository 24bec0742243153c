/* What a device can do at most, as far as a kernel can tell: multiply-adds in registers, and a copy from memory to
 * memory.
 *
 * Work: peak_multiply_add any number of work-items, each ROUNDS rounds of CHAINS independent multiply-adds of W floats;
 * peak_copy a work-group copies `span` vectors per work-item, side by side, so that a group of one reads its memory in
 * order and a larger one reads it in rows. */
#include "shared/tensor.clh"

#ifndef CHAINS /* enough to hide the latency of a multiply-add */
#define CHAINS 12
#endif

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void peak_multiply_add(uint rounds, float factor, float term,
                                                                              global float *out) {
    floatW x[CHAINS], sum = (floatW)(0.0f);
    for (uint c = 0; c < CHAINS; ++c)
        x[c] = (floatW)((float)(get_local_id(0) + c));
    for (uint n = 0; n < rounds; ++n) {
        _Pragma("unroll") for (uint c = 0; c < CHAINS; ++c) x[c] = MAD(x[c], (floatW)(factor), (floatW)(term));
    }
    for (uint c = 0; c < CHAINS; ++c)
        sum += x[c];
    out[get_global_id(0)] = SUM(sum);
}

kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void peak_copy(uint span, global const float *from,
                                                                      global float *to) {
    INDEX at = (INDEX)get_group_id(0) * WG * span + get_local_id(0);
    for (uint n = 0; n < span; ++n, at += WG)
        CAT(vstore, W)(CAT(vload, W)(at, from), at, to);
}
