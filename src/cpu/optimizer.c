/* Optimizer steps over one vector: parameters, gradient and moments in one pass. */
#include "../rules/optimizer.h"
#include "stages.h"

void GS_STAGE(gsOptimize)(const gsOptimizerCall *o)
{
    gsReal *x = o->params, *m = o->m, *v = o->v, *vmax = o->vmax;
    const gsReal *g = o->gradient;
    switch (o->kind) {
    case GS_OPTIMIZER_MOMENTUM:
        for (uint64_t i = 0; i < o->count; i++)
            x[i] = gsMomentum(o, x[i], g[i], &m[i]);
        break;
    case GS_OPTIMIZER_AMSGRAD:
        for (uint64_t i = 0; i < o->count; i++)
            x[i] = gsAmsgrad(o, x[i], g[i], &m[i], &v[i], &vmax[i]);
        break;
    default:
        for (uint64_t i = 0; i < o->count; i++)
            x[i] = gsAdamw(o, x[i], g[i], &m[i], &v[i]);
        break;
    }
}
