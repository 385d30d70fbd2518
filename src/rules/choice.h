/*
 * Which references a gradient is compared with, from their dots with it and with each other: the nearest, the one that was nearest to
 * the last result, or a least-squares combination. One thread of a backend runs these, once the dots are summed.
 */
#ifndef GS_RULES_CHOICE_H
#define GS_RULES_CHOICE_H

#include "call.h"

#define GS_DOTS ((GS_MAX_POOL + 1) * (GS_MAX_POOL + 2) / 2)

typedef struct {
    double dot[GS_DOTS];      /* of p with q at gsDotAt; those that are not in the pool are 0 */
    double own[GS_MAX_POOL];  /* each reference's coefficient when it is alone */
    double loss[GS_MAX_POOL]; /* likewise; a quotient's is summed apart */
} gsWeighing;

/* q <= p; the gradient is number GS_MAX_POOL. */
GS_HD uint32_t gsDotAt(uint32_t p, uint32_t q)
{
    return p * (p + 1) / 2 + q;
}

GS_HD int gsInPool(const gsSpec *spec, uint32_t p)
{
    return (int)(spec->pool >> p & 1u);
}

/* |g - sum c r|^2. */
GS_HD double gsDotDistance(const gsWeighing *w, const double *c)
{
    double sum = w->dot[gsDotAt(GS_MAX_POOL, GS_MAX_POOL)];
    uint32_t p, q;
    for (p = 0; p < GS_MAX_POOL; p++) {
        sum = sum - 2.0 * c[p] * w->dot[gsDotAt(GS_MAX_POOL, p)] + c[p] * c[p] * w->dot[gsDotAt(p, p)];
        for (q = 0; q < p; q++)
            sum = sum + 2.0 * c[p] * c[q] * w->dot[gsDotAt(p, q)];
    }
    return sum > 0.0 ? sum : 0.0;
}

/* Each reference alone: its coefficient, its guard, and a difference's loss. */
GS_HD void gsCallWeigh(const gsSpec *spec, gsCall *c, gsWeighing *w)
{
    double elements = spec->count ? (double)spec->count : 1.0;
    uint32_t p, i;
    for (p = 0; p < GS_MAX_POOL; p++) {
        double alone[GS_MAX_POOL];
        for (i = 0; i < GS_MAX_POOL; i++)
            alone[i] = 0.0;
        w->own[p] = alone[p] = p == GS_REFERENCE_MEAN ? gsRound(spec, w->dot[gsDotAt(GS_MAX_POOL, p)] / elements) : 1.0;
        c->floor[p] = GS_QUOTIENT_GUARD * sqrt(w->dot[gsDotAt(p, p)] / elements);
        w->loss[p] =
            gsInPool(spec, p) && spec->search == GS_SEARCH_WORKER && !spec->quotient ? gsDotDistance(w, alone) : 0.0;
    }
}

/* The one of the pool with the least loss; ties to the first. */
GS_HD uint32_t gsLeastLoss(const gsSpec *spec, const gsWeighing *w)
{
    uint32_t p, best = GS_MAX_POOL;
    for (p = 0; p < GS_MAX_POOL; p++)
        if (gsInPool(spec, p) && (best == GS_MAX_POOL || w->loss[p] < w->loss[best]))
            best = p;
    return best;
}

GS_HD void gsCallFit(const gsSpec *spec, gsCall *c, const gsWeighing *w)
{
    double A[GS_MAX_POOL][GS_MAX_POOL], b[GS_MAX_POOL], x[GS_MAX_POOL];
    uint32_t member[GS_MAX_POOL], p;
    int i, j, n = 0;
    memset(member, 0, sizeof member);
    for (p = GS_REFERENCE_MEAN; p < GS_MAX_POOL; p++)
        if (gsInPool(spec, p))
            member[n++] = p;
    for (i = 0; i < n; i++) {
        b[i] = w->dot[gsDotAt(GS_MAX_POOL, member[i])];
        for (j = 0; j <= i; j++)
            A[i][j] = w->dot[gsDotAt(member[i], member[j])];
    }
    gsFitCoefficients(n, A, b, x);
    for (i = 0; i < n; i++)
        c->coefficient[member[i]] = gsRound(spec, x[i]);
}

/* The call's coefficients, and what is left of the gradient. */
GS_HD void gsCallChoose(const gsSpec *spec, gsState *state, const gsWeighing *w)
{
    gsCall *c = &state->call;
    double all = w->dot[gsDotAt(GS_MAX_POOL, GS_MAX_POOL)];
    if (spec->search == GS_SEARCH_FIT) {
        gsCallFit(spec, c, w);
    } else {
        c->choice = spec->search == GS_SEARCH_HINDSIGHT ? state->choice : gsLeastLoss(spec, w);
        c->coefficient[c->choice] = w->own[c->choice];
    }
    if (all > 0.0)
        c->normalized = gsDotDistance(w, c->coefficient) / all;
}

#endif
