/* bits.c: the papers' charges, and nobody else's: what really travelled is the library's to count. */
#include "bits.h"

#include <math.h>
#include <stdbool.h>

static const double valueBits = 32.0;

static double indexBits(double count)
{
    return ceil(log2(count));
}

static double hybridBits(double count, double certain, double drawn, double signBits)
{
    double listed = drawn * (indexBits(count) + signBits), mapped = 2.0 * count;
    return certain * (valueBits + indexBits(count)) + fmin(listed, mapped) + valueBits;
}

double bitsOfCall(bitsRule_t rule, uint64_t count, const gsStats_t *before, const gsStats_t *after)
{
    double all = (double)count, sent = (double)after->lastSent, certain = (double)after->lastExact;
    bool skipped = after->skipped > before->skipped, planned = after->denseRounds > before->denseRounds;
    if (skipped)
        return 0.0;
    switch (planned ? BITS_DENSE : rule) {
    case BITS_DENSE: return valueBits * all;
    case BITS_GAPS: return fmin(sent * (valueBits + indexBits(all)), valueBits * sent + all);
    case BITS_ENTRIES: return sent * (valueBits + indexBits(all));
    case BITS_HYBRID: return hybridBits(all, certain, sent - certain, 1.0);
    case BITS_UNSIGNED: return hybridBits(all, certain, sent - certain, 0.0);
    case BITS_TERNARY: return 2.0 * all + valueBits;
    case BITS_DENSE_BOTH: return 2.0 * valueBits * all;
    case BITS_SIGN_BOTH: return 2.0 * (valueBits + all);
    }
    return 0.0;
}
