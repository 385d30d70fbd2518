/* Optimizer steps over one vector: parameters, gradient and moments in one pass. */
#include "kernels.cuh"
#include "launch.cuh"

/* One element's step, with the moments that its kind has. */
template <typename Real>
static __device__ __forceinline__ Real stepOf(const gsOptimizerCall &o, Real x, Real g, Real *m, Real *v, Real *vmax)
{
    switch (o.kind) {
    case GS_OPTIMIZER_MOMENTUM: return gsMomentum(&o, x, g, m);
    case GS_OPTIMIZER_AMSGRAD: return gsAmsgrad(&o, x, g, m, v, vmax);
    default: return gsAdamw(&o, x, g, m, v);
    }
}

/*
 * A CTA takes 4096 elements, four a thread at a time:
 * 1. Parameters, gradient and moments are loaded.
 * 2. The step is made, and all but the gradient stored.
 * Traffic: 12 bytes an element, 8 more for each moment; twice that in float64.
 * Bad case: vectors that are not aligned to 16 bytes, which move an element at a time.
 */
template <typename Real>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<Real>)
    gsOptimize(const __grid_constant__ gsOptimizerCall o, uint32_t moments, bool aligned)
{
    Real *all[4] = {(Real *)o.params, (Real *)o.m, (Real *)o.v, (Real *)o.vmax};
    const uint64_t blocks = (o.count + GS_BLOCK - 1) / GS_BLOCK;
    for (uint64_t b = blockIdx.x; b < blocks; b += gridDim.x) {
        const uint64_t first = b * GS_BLOCK;
        const unsigned length = o.count - first < GS_BLOCK ? (unsigned)(o.count - first) : GS_BLOCK;
        const bool wide = aligned && length == GS_BLOCK;
#pragma unroll 1
        for (unsigned v = 0; v < GS_QUADS; v++) {
            const unsigned at = gsQuadAt(v);
            Real x[4][4] = {}, g[4];
            gsLoadQuad((const Real *)o.gradient + first, at, length, wide, g);
#pragma unroll
            for (unsigned i = 0; i < 4; i++)
                if (i <= moments)
                    gsLoadQuad((const Real *)all[i] + first, at, length, wide, x[i]);
#pragma unroll
            for (unsigned c = 0; c < 4; c++)
                x[0][c] = stepOf(o, x[0][c], g[c], &x[1][c], &x[2][c], &x[3][c]);
#pragma unroll
            for (unsigned i = 0; i < 4; i++)
                if (i <= moments)
                    gsStoreQuad(all[i] + first, at, length, wide, x[i]);
        }
    }
}

gsResult_t gsCudaOptimize(const gsOptimizerCall *call, gsStream_t stream)
{
    const uint32_t moments = call->kind == GS_OPTIMIZER_MOMENTUM ? 1 : call->kind == GS_OPTIMIZER_ADAMW ? 2 : 3;
    const uint64_t blocks = (call->count + GS_BLOCK - 1) / GS_BLOCK;
    const uintptr_t addresses = (uintptr_t)call->params | (uintptr_t)call->gradient | (uintptr_t)call->m |
                                (uintptr_t)call->v | (uintptr_t)call->vmax;
    const bool aligned = addresses % 16 == 0;
    if (call->type == GS_FLOAT64)
        return gsLaunch("gsOptimize", gsOptimize<double>, blocks, GS_CTA, stream, *call, moments, aligned);
    return gsLaunch("gsOptimize", gsOptimize<float>, blocks, GS_CTA, stream, *call, moments, aligned);
}
