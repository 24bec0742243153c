/* The rule by which rows open nodes is not written twice: cl/tree/near_far.clh is C as well. */
#include <math.h>

#include "cl/shared/constants.h"
#include "naive.h"

/* What that header has from others and from OpenCL C. */
typedef unsigned int uint;
enum { LEAF = 8, CHUNK = 64, TOP = 1000 };
#define OUTLIER 1.2
#define MAD(a, b, c) ((a) * (b) + (c))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define rsqrt(x) (1 / sqrt(x))
static inline uint size_shift(uint level) {
    return level;
}
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wdouble-promotion"
#pragma GCC diagnostic ignored "-Wfloat-conversion"
#pragma GCC diagnostic ignored "-Wunused-function"
#ifdef __clang__
#pragma clang diagnostic ignored "-Wkeyword-macro"
#endif
#define float double
#include "../../cl/tree/near_far.clh"
#undef float
#pragma GCC diagnostic pop

bool naive_far_opens(const naive_forest *f, naive_far_judge *j, size_t level, const naive_node *n,
                     const double l[3]) {
    if (n->count == 0)
        return false;
    uint shift = (uint)lround(log2((double)naive_node_size(f, level)));
    double reach = 2 * n->reach, outlier = level < f->top ? reach : fmax(reach, OUTLIER * 2 * knee_of(shift));
    double most = l[0] - j->mass + hidden_mass(l[2], outlier, n->count, l[1]) +
                  log(node_error(l[2], n->spread * j->inverse_size));
    double differs = fabs(most - log(j->accepted));
    j->margin = fmin(j->margin, isnan(differs) ? 0 : differs);
    return most > log(j->accepted);
}
