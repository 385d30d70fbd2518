/*
 * What a gradient is compared with.
 * J. Wangni, K. Li, J. Shi, J. Malik, "Trajectory Normalized Gradients for Distributed Optimization", 2019 (TNG): a = g - r or a = g / r,
 * with r known to both ends. The quotient needs a guard where r is small; both ends compute it from the shared r.
 */
#ifndef GS_RULES_REFERENCE_H
#define GS_RULES_REFERENCE_H

#include "spec.h"

#define GS_QUOTIENT_GUARD \
    0.1 /* of rms(r): below it the quotient of a noisy gradient is larger than any reference is worth */

/* r with its small elements replaced; floor = guard * rms(r). With r = 0 everywhere the quotient is g. */
GS_REAL_RULE gsReal gsGuarded(gsReal r, gsReal floor)
{
    if (!(floor > (gsReal)0))
        return (gsReal)1;
    return gsAbs(r) < floor ? floor : r;
}

/* What (theta before - theta) is multiplied by to be the gradient, of one rank's weight, that moved plain descent here. */
GS_HD double gsMovedFactor(const gsSpec *spec, uint64_t step)
{
    if (step == 0 || !(spec->stepSize > 0.0))
        return 0.0;
    return spec->average ? 1.0 / spec->stepSize : 1.0 / (spec->stepSize * (double)spec->nranks);
}

/* The coefficient of each reference that solves least squares: A c = b, A = dots of the references with each other (row by row
 * of the pool's n members), b = dots with the gradient. LDL' without square roots; a member that adds nothing gets 0. */
GS_HD void gsFitCoefficients(int n, double A[GS_MAX_POOL][GS_MAX_POOL], const double *b, double *c)
{
    double D[GS_MAX_POOL], y[GS_MAX_POOL];
    int i, j, k;
    for (i = 0; i < n; i++) {
        double own = A[i][i];
        for (j = 0; j < i; j++) { /* A's lower half becomes L */
            double sum = A[i][j];
            for (k = 0; k < j; k++)
                sum = sum - A[i][k] * A[j][k] * D[k];
            A[i][j] = D[j] > 0.0 ? sum / D[j] : 0.0;
        }
        D[i] = own;
        for (k = 0; k < i; k++)
            D[i] = D[i] - A[i][k] * A[i][k] * D[k];
        if (!(D[i] > own * 1e-12)) /* the others span it, as far as these sums can tell */
            D[i] = 0.0;
        y[i] = b[i];
        for (k = 0; k < i; k++)
            y[i] = y[i] - A[i][k] * y[k];
    }
    for (i = n - 1; i >= 0; i--) {
        c[i] = D[i] > 0.0 ? y[i] / D[i] : 0.0;
        for (k = i + 1; k < n; k++)
            c[i] = c[i] - A[k][i] * c[k];
        if (!(D[i] > 0.0))
            c[i] = 0.0;
    }
}

#endif
