/* The dense sum's part of the work, and the state's change of scale. */
#include "launch.cuh"
#include "optimizer.cuh"

/*
 * 1. One thread begins a dense call's end: nothing non-finite seen, and no verdict, unless arrivals are counted and not all ranks have
 *    arrived: then the sum may be anything.
 * Traffic: none per element.
 * Bad case: none.
 */
__global__ void gsBeginDense(gsState *state, const float *arrived, float ranks)
{
    state->verdict = arrived && arrived[1] != ranks ? GS_FAULT_UNFINISHED : GS_FAULT_NONE;
    state->verdictRank = 0;
    state->anyNonFinite = 0;
}

/*
 * A CTA takes a block: 1. It looks for an element that is not finite.
 * Traffic: reads the sum, 4 bytes an element (float64: 8, others: 2).
 * Bad case: all are not finite, one atomic a warp and block.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<gsRealOf<T>>)
    gsCheckDense(const __grid_constant__ gsSpec spec, gsState *state, const gsInput sum)
{
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        gsRealOf<T> x[16];
        bool finite = true;
        gsLoadTile(sum.block<T>(state, b), gsBlockLength(&spec, b), x);
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            finite = finite && gsFinite(x[i]);
        if (__any_sync(GS_ALL_LANES, !finite) && gsLane() == 0)
            atomicOr(&state->anyNonFinite, 1u);
    }
}

/*
 * A CTA takes a block: 1. It copies the sum, or NaN if anything was not finite; nothing after a bad verdict. Or it makes the optimizer's
 * step, if everything was finite.
 * Traffic: reads the sum and writes recvbuff, 8 bytes an element (float64: 16, others: 4), or the optimizer's vectors.
 * Bad case: none.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, gsFewCtasPerSm<gsRealOf<T>>)
    gsFinishDense(const __grid_constant__ gsSpec spec, const gsState *state, const void *sum,
                  const __grid_constant__ gsSink to)
{
    const bool bad = state->anyNonFinite != 0;
    if (state->fault != GS_FAULT_NONE || state->verdict != GS_FAULT_NONE || (bad && !to.out))
        return;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        gsSinkBlock<T>(to, spec.list, b, gsBlockFirst(&spec, b), gsBlockLength(&spec, b))
            .finish(gsBlockOf<T>(spec.list, sum, b), bad);
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
template <typename Real>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<Real>)
    gsScaleVector(const __grid_constant__ gsSpec spec, Real *e, Real factor)
{
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        Real x[16];
        const unsigned length = GS_BLOCK; /* the state's vectors are whole blocks */
        gsLoadTile(e + b * GS_BLOCK, length, x);
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            x[i] *= factor;
        gsStoreTile(e + b * GS_BLOCK, length, x);
    }
}

gsResult_t gsCudaCheckDense(gsReducer_t r, const gsInput &sum, gsStream_t stream)
{
    const float *arrived =
        r->spec.select == GS_SELECT_DENSE ? gsArrivals(r) : nullptr; /* a dense step's host has waited */
    GS_CHECK(gsLaunch("gsBeginDense", gsBeginDense, 1, 1, stream, r->state, arrived, (float)r->comm->nranks));
    return gsByType(sum.type, [&](auto t) {
        return gsLaunch("gsCheckDense", gsCheckDense<decltype(t)>, r->spec.blocks, GS_CTA, stream, r->spec, r->state,
                        sum);
    });
}

gsResult_t gsCudaFinishDense(gsReducer_t r, const void *sum, void *recvbuff, gsStream_t stream)
{
    GS_CHECK(gsCudaCheckDense(r, gsGradient(r, sum), stream));
    return gsByType(r->spec.type, [&](auto t) {
        return gsLaunch("gsFinishDense", gsFinishDense<decltype(t)>, r->spec.blocks, GS_CTA, stream, r->spec, r->state,
                        sum, gsSinkOf(r, recvbuff));
    });
}

gsResult_t gsCudaScaleState(gsReducer_t r, float factor, gsStream_t stream)
{
    return gsLaunch("gsScaleState", gsScaleState, 1, 1, stream, r->state, factor);
}

gsResult_t gsCudaScale(gsReducer_t r, void *vector, float factor, gsStream_t stream)
{
    return gsByReal(r->spec, [&](auto real) {
        using Real = decltype(real);
        return gsLaunch("gsScaleVector", gsScaleVector<Real>, r->spec.blocks, GS_CTA, stream, r->spec, (Real *)vector,
                        (Real)factor);
    });
}
