/*
 * Optimizer steps, one element at a time.
 *   AMSGrad   S. Reddi, S. Kale, S. Kumar, "On the Convergence of Adam and Beyond", ICLR 2018, as CD-Adam runs it: no bias correction, and
 *             epsilon inside the root (Wang, Lin, Chen, AISTATS 2022, Algorithm 1)
 *   AdamW     I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, Algorithm 2
 */
#ifndef GS_RULES_OPTIMIZER_H
#define GS_RULES_OPTIMIZER_H

#include "gradsieve.h"
#include "numeric.h"

/* One step of one vector. */
typedef struct {
    void *params, *m, *v, *vmax;
    const void *gradient; /* NULL: the result of a call, where it comes to be */
    uint64_t count;
    uint32_t kind, type; /* gsOptimizerKind_t, gsDataType_t */
    uint32_t aligned;    /* all vectors begin at multiples of 16 bytes */
    double stepSize, beta1, beta2, epsilon, weightDecay;
    double correct[2];     /* AdamW: 1 / (1 - beta^step), */
    const double *counted; /* or where it stands, in the backend's memory; NULL otherwise */
} gsOptimizerCall;

/* Vectors beside params. */
GS_HD uint32_t gsMoments(uint32_t kind)
{
    return kind == GS_MOMENTUM ? 1 : kind == GS_ADAMW ? 2 : 3;
}

/* beta^n by squaring: products alone, so that every machine finds the same bits. */
GS_HD double gsPower(double beta, uint64_t n)
{
    double result = 1.0;
    for (; n; n >>= 1, beta *= beta)
        if (n & 1)
            result *= beta;
    return result;
}

/* AdamW's bias corrections in this step, from 1. */
GS_HD void gsCorrect(const gsOptimizerCall *o, uint64_t step, double *correct)
{
    correct[0] = 1.0 / (1.0 - gsPower(o->beta1, step));
    correct[1] = 1.0 / (1.0 - gsPower(o->beta2, step));
}

GS_HD const double *gsCorrections(const gsOptimizerCall *o)
{
    return o->counted ? o->counted : o->correct;
}

GS_REAL_RULE gsReal gsRoot(gsReal x)
{
    return sizeof x == 4 ? (gsReal)sqrtf((float)x) : (gsReal)sqrt((double)x);
}

GS_REAL_RULE gsReal gsMomentum(const gsOptimizerCall *o, gsReal x, gsReal g, gsReal *m)
{
    *m = (gsReal)o->beta1 * *m + g;
    return x - (gsReal)o->stepSize * *m;
}

GS_REAL_RULE gsReal gsAmsgrad(const gsOptimizerCall *o, gsReal x, gsReal g, gsReal *m, gsReal *v, gsReal *vmax)
{
    *m = (gsReal)o->beta1 * *m + (gsReal)(1.0 - o->beta1) * g;
    *v = (gsReal)o->beta2 * *v + (gsReal)(1.0 - o->beta2) * g * g;
    *vmax = *v > *vmax ? *v : *vmax;
    return x - (gsReal)o->stepSize * *m / gsRoot(*vmax + (gsReal)o->epsilon);
}

GS_REAL_RULE gsReal gsAdamw(const gsOptimizerCall *o, gsReal correct1, gsReal correct2, gsReal x, gsReal g, gsReal *m,
                            gsReal *v)
{
    gsReal first, second;
    *m = (gsReal)o->beta1 * *m + (gsReal)(1.0 - o->beta1) * g;
    *v = (gsReal)o->beta2 * *v + (gsReal)(1.0 - o->beta2) * g * g;
    first = *m * correct1;
    second = *v * correct2;
    x = x - (gsReal)(o->stepSize * o->weightDecay) * x;
    return x - (gsReal)o->stepSize * first / (gsRoot(second) + (gsReal)o->epsilon);
}

#endif
