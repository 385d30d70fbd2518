/* Optimizer steps over one vector: parameters, gradient and moments in one pass. */
#include "../rules/optimizer.h"
#include "stages.h"

/* Elements of a vector from `first` on; moments that the step has no use for are NULL. */
GS_INLINE gsReal *from(void *vector, uint64_t first)
{
    return vector ? (gsReal *)vector + first : NULL;
}

void GS_STAGE(gsOptimize)(const gsOptimizerCall *o, const void *gradient, uint64_t first, uint64_t count)
{
    gsReal *x = from(o->params, first), *m = from(o->m, first), *v = from(o->v, first), *vmax = from(o->vmax, first);
    const gsReal *g = gradient;
    const double *correct = gsCorrections(o);
    gsReal correct1 = (gsReal)correct[0], correct2 = (gsReal)correct[1];
    switch (o->kind) {
    case GS_MOMENTUM:
        for (uint64_t i = 0; i < count; i++)
            x[i] = gsMomentum(o, x[i], g[i], &m[i]);
        break;
    case GS_AMSGRAD:
        for (uint64_t i = 0; i < count; i++)
            x[i] = gsAmsgrad(o, x[i], g[i], &m[i], &v[i], &vmax[i]);
        break;
    default:
        for (uint64_t i = 0; i < count; i++)
            x[i] = gsAdamw(o, correct1, correct2, x[i], g[i], &m[i], &v[i]);
        break;
    }
}
