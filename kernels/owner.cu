/* An owner's share of a call: what its blocks' sum tells its record, and the two-way memories. */
#include "kernels.cuh"
#include "launch.cuh"

/*
 * 1. One thread tells the sum's state what came up in the own part's records, and adds up the ranks' coefficients.
 * Traffic: none per element.
 * Bad case: thousands of ranks with references.
 */
__global__ void gsHandDown(const __grid_constant__ gsSpec spec, gsState *state, const gsState *part, gsState *sum,
                           const uint8_t *records)
{
    gsOwnerHandDown(&spec, state, part, sum, records);
}

/*
 * One CTA. 1. Thread 0 makes the sums' verdict the call's, where there are sums. 2. Each thread tells its parts.
 * Traffic: none per element.
 * Bad case: none.
 */
__global__ void __launch_bounds__(GS_LONE_CTA)
    gsHandBack(const __grid_constant__ gsSpec spec, gsState *state, const gsState *sum, gsState *partState)
{
    if (threadIdx.x == 0 && sum)
        gsOwnerHandBack(&spec, state, sum, partState + spec.rank);
    __syncthreads();
    for (uint32_t q = threadIdx.x; q < spec.nranks; q += GS_LONE_CTA)
        gsOwnerHandTo(partState + q, state);
}

/*
 * 1. Four elements a thread: H + nu sum, or the sum, times what the average asks for.
 * Traffic: 8 bytes an own element, 12 with memory (float64: twice that).
 * Bad case: none.
 */
template <typename Real>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<Real>)
    gsMakeResult(const __grid_constant__ gsSpec spec, const Real *all, const Real *sum, Real *result, Real factor)
{
    const Real nu = (Real)spec.nu;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x)
#pragma unroll
        for (unsigned v = 0; v < GS_QUADS; v++) {
            const uint64_t at = b * GS_BLOCK + gsQuadAt(v);
            Real x[4], h[4];
            gsLoadState(sum + at, x);
            if (spec.memory)
                gsLoadState(all + at, h);
#pragma unroll
            for (unsigned c = 0; c < 4; c++)
                x[c] = (spec.memory ? h[c] + nu * x[c] : x[c]) * factor;
            gsStoreState(result + at, x);
        }
}

/*
 * 1. Four elements a thread: a memory takes its share of what was decoded, if the call has succeeded.
 * Traffic: 12 bytes an element (float64: 24).
 * Bad case: none.
 */
template <typename Real>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<Real>)
    gsTakeShare(const __grid_constant__ gsSpec spec, const gsState *state, Real *memory, const Real *decoded)
{
    const Real lambda = (Real)spec.lambda;
    if (state->fault != GS_FAULT_NONE || state->verdict != GS_FAULT_NONE || state->anyNonFinite)
        return;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x)
#pragma unroll
        for (unsigned v = 0; v < GS_QUADS; v++) {
            const uint64_t at = b * GS_BLOCK + gsQuadAt(v);
            Real x[4], h[4];
            gsLoadState(decoded + at, x);
            gsLoadState((const Real *)memory + at, h);
#pragma unroll
            for (unsigned c = 0; c < 4; c++)
                h[c] += lambda * x[c];
            gsStoreState(memory + at, h);
        }
}

gsResult_t gsCudaHandDown(gsReducer_t r, gsStream_t stream)
{
    return gsLaunch("gsHandDown", gsHandDown, 1, 1, stream, r->spec, r->state, r->partState + r->spec.rank,
                    r->server->state, r->recvRecords);
}

gsResult_t gsCudaHandBack(gsReducer_t r, gsStream_t stream)
{
    return gsLaunch("gsHandBack", gsHandBack, 1, GS_LONE_CTA, stream, r->spec, r->state,
                    r->server ? r->server->state : nullptr, r->partState);
}

gsResult_t gsCudaMakeResult(gsReducer_t r, gsRedOp_t op, gsStream_t stream)
{
    const gsSpec own = gsPartSpec(&r->spec, r->spec.rank);
    return gsByReal(r->spec, [&](auto real) {
        using Real = decltype(real);
        const Real factor = op == GS_AVG ? (Real)1 / (Real)r->spec.nranks : (Real)1;
        return gsLaunch("gsMakeResult", gsMakeResult<Real>, own.blocks, GS_CTA, stream, own, (const Real *)r->shared,
                        (const Real *)r->ownSum, (Real *)r->ownResult, factor);
    });
}

gsResult_t gsCudaRememberParts(gsReducer_t r, gsStream_t stream)
{
    const gsSpec own = gsPartSpec(&r->spec, r->spec.rank);
    return gsByReal(r->spec, [&](auto real) {
        using Real = decltype(real);
        GS_CHECK(gsLaunch("gsTakeShare", gsTakeShare<Real>, r->spec.blocks, GS_CTA, stream, r->spec, r->state,
                          (Real *)r->memory, (const Real *)r->work));
        return gsLaunch("gsTakeShare", gsTakeShare<Real>, own.blocks, GS_CTA, stream, own, r->state, (Real *)r->shared,
                        (const Real *)r->ownSum);
    });
}
