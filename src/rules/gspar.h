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

/* The closed form's active set stands still after at most this many rounds: 1 to 6 were seen on real and skewed gradients. A round
 * that changes nothing is harmless, one that is missing costs density, never the mean. */
#define GS_GSPAR_ROUNDS 8

GS_REAL_RULE gsReal gsGsparProbability(gsReal g, gsReal s)
{
    gsReal p = s * gsAbs(g);
    return p < (gsReal)1 ? p : (gsReal)1;
}

/* Algorithm 2, by its active set A = { s |g_i| >= 1 }: s = S1 / (epsilon G + S2), with S1 and S2 the sums of |g| and g^2 outside A and
 * G the sum of g^2 over all. E|Q(g)|^2 is then (1 + epsilon) G. s only grows; `before` is the last round's, 0 in the first. */
GS_HD double gsGsparClosed(double epsilon, double all, double magnitudes, double squares, double before)
{
    double next = magnitudes > 0.0 ? magnitudes / (epsilon * all + squares) : before;
    return next > before ? next : before;
}

/* Algorithm 3, line 1. sum = |g|_1. A gradient of zeros keeps nothing. */
GS_HD double gsGsparStart(double density, uint64_t count, double sum)
{
    return sum > 0.0 ? density * (double)count / sum : 0.0;
}

/* Lines 3-5. Of the coordinates with s |g_i| < 1: `below` of them, their |g_i| sum to `sum`. */
GS_HD double gsGsparRescale(double s, double density, uint64_t count, uint64_t below, double sum)
{
    double room = density * (double)count - (double)(count - below); /* what p may still sum to over these */
    double used = s * sum;
    if (!(room > used) || !(used > 0.0))
        return s; /* c <= 1: done */
    return s * (room / used);
}

/* What travels for a kept g: itself where p = 1, otherwise the magnitude 1/s that all others share. */
GS_REAL_RULE gsReal gsGsparValue(gsReal g, gsReal s, gsReal inverse)
{
    return s * gsAbs(g) >= (gsReal)1 ? g : gsWithSign(inverse, g);
}

#endif
