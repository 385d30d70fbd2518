/* The dense sum's part of the work, and the residual's change of scale. */
#include "block.cuh"
#include "kernels.cuh"
#include "launch.cuh"

/*
 * A thread takes an element:
 * 1. It adds the slices' values in rank order.
 * 2. It scales and stores the sum.
 * Traffic: reads the slices once, writes one. Elements move one at a time, 64 or 128 consecutive bytes a warp,
 *   because slices may begin anywhere.
 * Bad case: many ranks, loads one behind the other.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA)
    gsSumSlices(const T *slices, uint64_t sliceElements, uint32_t nranks, float scale, T *out, uint64_t count)
{
    for (uint64_t i = (uint64_t)blockIdx.x * GS_CTA + threadIdx.x; i < count; i += (uint64_t)gridDim.x * GS_CTA) {
        float sum = gsToFloat(slices[i]);
        for (uint32_t rank = 1; rank < nranks; rank++)
            sum += gsToFloat(slices[rank * sliceElements + i]);
        out[i] = gsVector<T>::from(sum * scale);
    }
}

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
 * 1. A CTA multiplies a block of the current residual.
 * 2. One thread multiplies tau, where it is known.
 * Traffic: reads and writes e, 8 bytes an element.
 * Bad case: none.
 */
__global__ void __launch_bounds__(GS_CTA, GS_CTAS_PER_SM)
    gsScaleState(const __grid_constant__ gsSpec spec, gsState *state, float *e0, float *e1, float factor)
{
    float *e = state->phase ? e1 : e0;
    if (blockIdx.x == 0 && threadIdx.x == 0 && state->tau > 0.0f)
        state->tau *= factor;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        float x[16];
        const unsigned length = gsBlockLength(spec, (uint32_t)b);
        gsLoadTile(e + b * GS_BLOCK, length, x);
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            x[i] *= factor;
        gsStoreTile(e + b * GS_BLOCK, length, x);
    }
}

template <typename T>
static gsResult_t sumSlices(gsReducer_t r, const void *slices, uint64_t sliceElements, void *out, uint64_t n,
                            float scale, gsStream_t stream)
{
    return gsLaunch("gsSumSlices", gsSumSlices<T>, (n + GS_CTA - 1) / GS_CTA, GS_CTA, stream, (const T *)slices,
                    sliceElements, r->spec.nranks, scale, (T *)out, n);
}

gsResult_t gsCudaSumSlices(gsReducer_t r, const void *slices, uint64_t sliceElements, void *out, uint64_t n,
                           gsRedOp_t op, gsStream_t stream)
{
    const float scale = op == GS_AVG ? 1.0f / (float)r->spec.nranks : 1.0f;
    return r->spec.type == GS_BFLOAT16 ? sumSlices<gsBf16>(r, slices, sliceElements, out, n, scale, stream)
                                       : sumSlices<float>(r, slices, sliceElements, out, n, scale, stream);
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

gsResult_t gsCudaScale(gsReducer_t r, float factor, gsStream_t stream)
{
    if (!r->spec.feedback)
        return GS_SUCCESS;
    return gsLaunch("gsScaleState", gsScaleState, r->spec.blocks, GS_CTA, stream, r->spec, r->state, r->residual[0],
                    r->residual[1], factor);
}
