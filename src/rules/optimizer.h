/*
 * Optimizer steps, one element at a time.
 *   AMSGrad   S. Reddi, S. Kale, S. Kumar, "On the Convergence of Adam and Beyond", ICLR 2018, as CD-Adam runs it: no bias correction, and
 *             epsilon inside the root (Wang, Lin, Chen, AISTATS 2022, Algorithm 1)
 *   AdamW     I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, Algorithm 2
 */
#ifndef GS_RULES_OPTIMIZER_H
#define GS_RULES_OPTIMIZER_H

#include "numeric.h"

enum { GS_OPTIMIZER_MOMENTUM = 0, GS_OPTIMIZER_AMSGRAD = 1, GS_OPTIMIZER_ADAMW = 2 };

/* One step of one vector. */
typedef struct {
    void *params, *m, *v, *vmax;
    const void *gradient;
    uint64_t count;
    uint32_t kind, type; /* GS_OPTIMIZER_, gsDataType_t */
    double stepSize, beta1, beta2, epsilon, weightDecay;
    double correct1, correct2; /* AdamW: 1 / (1 - beta^step) */
} gsOptimizerCall;

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

GS_REAL_RULE gsReal gsAdamw(const gsOptimizerCall *o, gsReal x, gsReal g, gsReal *m, gsReal *v)
{
    gsReal first, second;
    *m = (gsReal)o->beta1 * *m + (gsReal)(1.0 - o->beta1) * g;
    *v = (gsReal)o->beta2 * *v + (gsReal)(1.0 - o->beta2) * g * g;
    first = *m * (gsReal)o->correct1;
    second = *v * (gsReal)o->correct2;
    x = x - (gsReal)(o->stepSize * o->weightDecay) * x;
    return x - (gsReal)o->stepSize * first / (gsRoot(second) + (gsReal)o->epsilon);
}

#endif
