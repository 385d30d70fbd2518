/*
 * threshold: with feedback a = g + e, coordinates with |a| > tau travel, the rest is the next e.
 * With a target density tau follows from step to step; a tau of 0 means "unknown" and is found in a histogram of |a|.
 */
#ifndef GS_RULES_THRESHOLD_H
#define GS_RULES_THRESHOLD_H

#include "numeric.h"

GS_REAL_RULE int gsThresholdKeeps(gsReal a, gsReal tau)
{
    return gsAbs(a) > tau;
}

/*
 * gdsec: Y. Chen, R. Blum, M. Takac, B. Sadler, "Distributed Learning With Sparsified Gradient Differences", IEEE JSTSP 2022, Algorithm 1:
 * coordinate i travels iff |a_i| > (xi_i / M) |theta_i - theta_i before|. limit = xi_i / M.
 */
GS_REAL_RULE int gsStepKeeps(gsReal a, gsReal limit, gsReal now, gsReal before)
{
    return gsAbs(a) > limit * gsAbs(now - before);
}

/* Bins of |a|: exponent and three bits of mantissa, so that a bin spans at most an eighth of its lower edge. */
#define GS_HISTOGRAM_BINS 2048
#define GS_HISTOGRAM_SHIFT 20

GS_HD uint32_t gsHistogramBin(float a)
{
    return gsMagnitudeBits(a) >> GS_HISTOGRAM_SHIFT;
}

/* The tau above which about `target` of the counted magnitudes lie; 0 if fewer are above the lowest bin. Inside a bin the bit
 * patterns are taken as evenly spread. Counts are integers, so every backend finds the same bits. */
GS_HD float gsTauFromHistogram(const uint32_t *bins, uint64_t target)
{
    uint64_t above = 0;
    int bin;
    for (bin = GS_HISTOGRAM_BINS - 1; bin > 0; bin--) {
        if (above + bins[bin] >= target && bins[bin] > 0) {
            double share = (double)(above + bins[bin] - target) / (double)bins[bin];
            return gsFloat(((uint32_t)bin << GS_HISTOGRAM_SHIFT) +
                           (uint32_t)(share * (double)((1u << GS_HISTOGRAM_SHIFT) - 1u)));
        }
        above += bins[bin];
    }
    return 0.0f;
}

/*
 * The next tau, from how many were kept against how many were wanted: tau (1 + (r - 1)/8), which stands still where the mean of r
 * is 1. The count of one step says little of the next (minibatch gradients differ in scale by a factor of two and more), so one
 * step moves tau by at most an eighth; a step that follows each count fully would double its variance. r counts what a record
 * can hold (`room`), because that is what travels, but at least a quarter more than is wanted, so that tau can still rise. A
 * count that is eight times off (a first step, a jump of the gradient's scale) makes tau unknown again: the next call looks at
 * a histogram.
 */
GS_HD float gsTauNext(float tau, uint64_t kept, uint64_t target, uint64_t room)
{
    uint64_t most = room > target + target / 4 ? room : target + target / 4;
    double r = (double)(kept < most ? kept : most) / (double)target;
    if (kept < target / 8 + (target < 8) || kept / 8 > target)
        return 0.0f;
    return (float)((double)tau * (1.0 + (r - 1.0) * 0.125));
}

#endif
