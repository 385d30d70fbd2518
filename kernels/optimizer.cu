/* Optimizer steps over one vector: parameters, gradient and moments in one pass. By the result of a call: optimizer.cuh. */
#include "launch.cuh"
#include "optimizer.cuh"

/*
 * A CTA takes 4096 elements, four a thread at a time:
 * 1. Parameters, gradient and moments are loaded.
 * 2. The step is made, and all but the gradient stored.
 * Traffic: 12 bytes an element, 8 more for each moment; twice that in float64.
 * Bad case: vectors that are not aligned to 16 bytes, which move an element at a time.
 */
template <typename Real>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<Real>) gsOptimize(const __grid_constant__ gsOptimizerCall o)
{
    const uint64_t blocks = (o.count + GS_BLOCK - 1) / GS_BLOCK;
    for (uint64_t b = blockIdx.x; b < blocks; b += gridDim.x) {
        const uint64_t first = b * GS_BLOCK;
        const Real *gradient = (const Real *)o.gradient + first;
        const unsigned length = o.count - first < GS_BLOCK ? (unsigned)(o.count - first) : GS_BLOCK;
        const bool wide = gsIsWide(gradient, length);
#pragma unroll 1
        for (unsigned v = 0; v < GS_QUADS; v++) {
            Real g[4];
            gsLoadQuad(gradient, gsQuadAt(v), length, wide, g);
            gsStepQuad(o, first, gsQuadAt(v), length, g);
        }
    }
}

/*
 * 1. One thread finds AdamW's bias corrections in the step that follows the last committed one.
 * Traffic: none per element.
 * Bad case: none.
 */
__global__ void gsCountStep(const __grid_constant__ gsOptimizerCall o, gsState *state)
{
    gsCorrect(&o, state->step + 1, state->correct);
}

gsResult_t gsCudaOptimize(const gsOptimizerCall *call, gsStream_t stream)
{
    const uint64_t blocks = (call->count + GS_BLOCK - 1) / GS_BLOCK;
    if (call->type == GS_FLOAT64)
        return gsLaunch("gsOptimize", gsOptimize<double>, blocks, GS_CTA, stream, *call);
    return gsLaunch("gsOptimize", gsOptimize<float>, blocks, GS_CTA, stream, *call);
}

gsResult_t gsCudaCountStep(gsReducer_t r, const gsOptimizerCall *call, gsStream_t stream)
{
    return gsLaunch("gsCountStep", gsCountStep, 1, 1, stream, *call, r->state);
}
