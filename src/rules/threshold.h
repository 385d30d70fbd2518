/*
 * threshold: with feedback a = g + e, coordinates with |a| > tau travel, the rest is the next e.
 * With a target density tau follows from step to step; a tau of 0 means "unknown" and is found in a histogram of |a|.
 */
#ifndef GS_RULES_THRESHOLD_H
#define GS_RULES_THRESHOLD_H

#include "numeric.h"

GS_HD int gsThresholdKeeps(float a, float tau)
{
    return fabsf(a) > tau;
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
 * The next tau, from how many were kept against how many were wanted. A residual's tail falls about like tau^-2 (a random walk
 * reaches tau after tau^2 steps), so the step is close to the square root of the ratio: (1 + 3r)/(3 + r) agrees with it to
 * the second order at r = 1 and stays within [1/3, 3]. A count that is far off (a first step, a jump of the gradient's scale)
 * makes tau unknown again, which costs the next call one histogram.
 */
GS_HD float gsTauNext(float tau, uint64_t kept, uint64_t target)
{
    double r = (double)kept / (double)target;
    if (kept == 0 || kept / 8 > target)
        return 0.0f;
    return (float)((double)tau * (1.0 + 3.0 * r) / (3.0 + r));
}

#endif
