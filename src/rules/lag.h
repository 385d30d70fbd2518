/*
 * When a rank may keep silent.
 * T. Chen, G. Giannakis, T. Sun, W. Yin, "LAG: Lazily Aggregated Gradient for Communication-Efficient Distributed Learning", NeurIPS
 * 2018, conditions (7a) and (7b): with RHS = 1/(alpha^2 M^2) sum_d xi |theta^{k+1-d} - theta^{k-d}|^2,
 *   worker   sends iff |g(theta) - g(theta sent)|^2 > RHS
 *   server   asks  iff L_m^2 |theta - theta sent|^2 > RHS
 * For plain gradient descent |delta theta| = alpha |sum of gradients|, so that the squared norms of the last aggregates say the same.
 */
#ifndef GS_RULES_LAG_H
#define GS_RULES_LAG_H

#include "spec.h"

/* recent[at - 1] is the newest of the remembered squared norms of aggregates, in sum form; `newest`, where it is not negative, is one
 * that is newer still. */
GS_HD double gsLagBound(const gsSpec *spec, const double *recent, uint32_t at, double newest)
{
    double sum = newest > 0.0 ? newest : 0.0;
    uint32_t d, remembered = newest < 0.0 ? spec->window : spec->window - 1;
    for (d = 1; d <= remembered; d++)
        sum = sum + recent[(at + GS_MAX_WINDOW - d) % GS_MAX_WINDOW];
    return spec->xi * sum / ((double)spec->nranks * (double)spec->nranks);
}

/* LAQ (Sun, Chen, Giannakis, Yang, NeurIPS 2019, condition (7)): what the coding loses, now and when it last spoke, counts thrice. */
GS_HD double gsLaqBound(double lag, double error, double sentError)
{
    return lag + 3.0 * (error + sentError);
}

/* |delta theta|^2 as the squared norm of the aggregate in sum form that made it. */
GS_HD double gsLagStepNorm(const gsSpec *spec, double moved)
{
    double steps = spec->stepSize > 0.0 ? 1.0 / spec->stepSize : 0.0;
    double sum = moved * steps * steps;
    return spec->average ? sum * ((double)spec->nranks * (double)spec->nranks) : sum;
}

#endif
