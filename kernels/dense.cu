/* The dense sum's part of the work, and the residual's change of scale. */
#include "block.cuh"
#include "kernels.cuh"
#include "launch.cuh"

/*
 * 1. One thread begins a dense call's end: no verdict, nothing non-finite seen.
 * Traffic: none per element.
 * Bad case: none.
 */
__global__ void gsBeginDense(gsState *state)
{
    state->verdict = GS_FAULT_NONE;
    state->verdictRank = 0;
    state->anyNonFinite = 0;
}

/*
 * A CTA takes a block: 1. It looks for an element that is not finite.
 * Traffic: reads the sum, 4 bytes an element (bf16: 2).
 * Bad case: all are not finite, one atomic a warp and block.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, GS_CTAS_PER_SM)
    gsCheckDense(const __grid_constant__ gsSpec spec, gsState *state, const T *sum)
{
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        float x[16];
        bool finite = true;
        gsLoadTile(sum + b * GS_BLOCK, gsBlockLength(spec, (uint32_t)b), x);
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            finite = finite && gsIsFinite(x[i]);
        if (__any_sync(GS_ALL_LANES, !finite) && gsLane() == 0)
            atomicOr(&state->anyNonFinite, 1u);
    }
}

/*
 * A CTA takes a block: 1. It copies the sum, or NaN if anything was not finite.
 * Traffic: reads the sum and writes recvbuff, 8 bytes an element (bf16: 4).
 * Bad case: none.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, GS_CTAS_PER_SM)
    gsFinishDense(const __grid_constant__ gsSpec spec, const gsState *state, const T *sum, T *out)
{
    const bool bad = state->anyNonFinite != 0;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        float x[16];
        const unsigned length = gsBlockLength(spec, (uint32_t)b);
        gsLoadTile(sum + b * GS_BLOCK, length, x);
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            x[i] = bad ? gsToFloat(gsVector<T>::nan()) : x[i];
        gsStoreTile(out + b * GS_BLOCK, length, x);
    }
}

/*
 * 1. One thread multiplies what the state itself holds in gradient units.
 * Traffic: none per element.
 * Bad case: none.
 */
__global__ void gsScaleState(gsState *state, float factor)
{
    gsStateScale(state, factor);
}

/*
 * 1. A CTA multiplies a block of a remembered vector.
 * Traffic: reads and writes it, 8 bytes an element.
 * Bad case: none.
 */
__global__ void __launch_bounds__(GS_CTA, GS_CTAS_PER_SM)
    gsScaleVector(const __grid_constant__ gsSpec spec, float *e, float factor)
{
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        float x[16];
        const unsigned length = GS_BLOCK; /* vectors are whole blocks */
        gsLoadTile(e + b * GS_BLOCK, length, x);
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            x[i] *= factor;
        gsStoreTile(e + b * GS_BLOCK, length, x);
    }
}

template <typename T> static gsResult_t finishDense(gsReducer_t r, const T *sum, T *recvbuff, gsStream_t stream)
{
    GS_CHECK(gsLaunch("gsBeginDense", gsBeginDense, 1, 1, stream, r->state));
    GS_CHECK(gsLaunch("gsCheckDense", gsCheckDense<T>, r->spec.blocks, GS_CTA, stream, r->spec, r->state, sum));
    return gsLaunch("gsFinishDense", gsFinishDense<T>, r->spec.blocks, GS_CTA, stream, r->spec, r->state, sum,
                    recvbuff);
}

gsResult_t gsCudaFinishDense(gsReducer_t r, const void *sum, void *recvbuff, gsStream_t stream)
{
    return r->spec.type == GS_BFLOAT16 ? finishDense(r, (const gsBf16 *)sum, (gsBf16 *)recvbuff, stream)
                                       : finishDense(r, (const float *)sum, (float *)recvbuff, stream);
}

gsResult_t gsCudaScaleState(gsReducer_t r, float factor, gsStream_t stream)
{
    return gsLaunch("gsScaleState", gsScaleState, 1, 1, stream, r->state, factor);
}

gsResult_t gsCudaScale(gsReducer_t r, void *vector, float factor, gsStream_t stream)
{
    return gsLaunch("gsScaleVector", gsScaleVector, r->spec.blocks, GS_CTA, stream, r->spec, (float *)vector, factor);
}
