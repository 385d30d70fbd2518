/*
 * gspar: coordinate i travels with probability p_i = min(s |g_i|, 1) as g_i / p_i; unbiased.
 * J. Wangni, J. Wang, J. Liu, T. Zhang, "Gradient Sparsification for Communication-Efficient Distributed Optimization",
 * NeurIPS 2018, Algorithm 3 (greedy): s starts at density * d / |g|_1 and is rescaled twice, because coordinates cut at p = 1
 * leave room for others. p_i = min(c p_i, 1) with c > 1 keeps the form min(s |g_i|, 1), so s is all there is to carry.
 */
#ifndef GS_RULES_GSPAR_H
#define GS_RULES_GSPAR_H

#include "numeric.h"

#define GS_GSPAR_RESCALES 2 /* the paper's; a third moves the density by less than 0.1 % */

GS_HD float gsGsparProbability(float g, float s)
{
    float p = s * fabsf(g);
    return p < 1.0f ? p : 1.0f;
}

/* Line 1. sum = |g|_1. A gradient of zeros keeps nothing. */
GS_HD float gsGsparStart(double density, uint64_t count, double sum)
{
    double s = sum > 0.0 ? density * (double)count / sum : 0.0;
    return s < 3.40282346e38 ? (float)s : 3.40282347e38f;
}

/* Lines 3-5. Of the coordinates with s |g_i| < 1: `below` of them, their |g_i| sum to `sum`. */
GS_HD float gsGsparRescale(float s, double density, uint64_t count, uint64_t below, double sum)
{
    double room = density * (double)count - (double)(count - below); /* what p may still sum to over these */
    double used = (double)s * sum;
    double next;
    if (!(room > used) || !(used > 0.0))
        return s; /* c <= 1: done */
    next = (double)s * (room / used);
    return next < 3.40282346e38 ? (float)next : 3.40282347e38f;
}

/* What travels for a kept g: itself where p = 1, otherwise the magnitude 1/s that all others share. */
GS_HD float gsGsparValue(float g, float s, float inverse)
{
    return s * fabsf(g) >= 1.0f ? g : copysignf(inverse, g);
}

#endif
