/* The hierarchical exchange's last step: seals behind the own slice, and everybody's slices into the result. */
#include "launch.cuh"
#include "optimizer.cuh"

/*
 * 1. One thread writes what this rank's call has found behind its slice.
 * Traffic: none per element.
 * Bad case: none.
 */
__global__ void gsSealSlice(const gsState *state, uint32_t average, const int32_t *ranks, gsSeal *seal)
{
    *seal = gsSealOf(state, average, ranks);
}

/*
 * 1. One thread reads all slots' seals: what one has found is everybody's. Where arrivals are counted and not all ranks have
 *    arrived, the exchange was aborted, and the seals may be anything.
 * Traffic: none per element.
 * Bad case: none.
 */
__global__ void gsOpenSeals(gsState *state, uint32_t average, const float *arrived, float ranks, const uint8_t *slots,
                            uint64_t slotBytes, uint32_t n, uint32_t half)
{
    gsSealOpen(state, average, slots, slotBytes, n, half);
    if (arrived && arrived[1] != ranks)
        state->verdict = GS_FAULT_UNFINISHED;
}

/* Where the slices of a result stand; all are whole blocks but the gradient's end. */
struct Slices {
    const uint8_t *slots;
    uint64_t slotBytes, count;
    uint32_t blocks, blocksOfSlice;
};

/*
 * A CTA takes a block: 1. It copies it from its slice, or writes NaN if anything was not finite; nothing after a bad verdict. Or it makes
 * the optimizer's step, if everything was finite.
 * Traffic: reads the slices and writes recvbuff, 8 bytes an element (float64: 16, others: 4), or the optimizer's vectors.
 * Bad case: none.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, gsFewCtasPerSm<gsRealOf<T>>)
    gsAssemble(const gsState *state, const __grid_constant__ Slices s, const __grid_constant__ gsSink to)
{
    const bool bad = state->anyNonFinite != 0;
    if (state->fault != GS_FAULT_NONE || state->verdict != GS_FAULT_NONE || (bad && !to.out))
        return;
    for (uint64_t b = blockIdx.x; b < s.blocks; b += gridDim.x) {
        const T *slice = (const T *)(s.slots + b / s.blocksOfSlice * s.slotBytes);
        const uint64_t left = s.count - b * GS_BLOCK;
        const unsigned length = left < GS_BLOCK ? (unsigned)left : GS_BLOCK;
        gsSinkBlock<T>(to, nullptr, b, b * GS_BLOCK, length).finish(slice + b % s.blocksOfSlice * GS_BLOCK, bad);
    }
}

gsResult_t gsCudaSeal(gsReducer_t r, const int32_t *ranks, gsSeal *seal, gsStream_t stream)
{
    return gsLaunch("gsSealSlice", gsSealSlice, 1, 1, stream, r->state, r->spec.average, ranks, seal);
}

gsResult_t gsCudaOpenSeals(gsReducer_t r, const gsHierarchy *h, uint32_t half, gsStream_t stream)
{
    return gsLaunch("gsOpenSeals", gsOpenSeals, 1, 1, stream, r->state, r->spec.average, gsArrivals(r),
                    (float)gsCommWhole(r->comm)->nranks, h->slots, h->slotBytes, (uint32_t)h->ranks, half);
}

gsResult_t gsCudaAssemble(gsReducer_t r, const gsHierarchy *h, void *recvbuff, gsStream_t stream)
{
    const uint32_t blocks = (uint32_t)((h->count + GS_BLOCK - 1) / GS_BLOCK);
    const Slices slices = {h->slots, h->slotBytes, h->count, blocks, (uint32_t)(h->slice / GS_BLOCK)};
    return gsByType(r->spec.type, [&](auto t) {
        using T = decltype(t);
        return gsLaunch("gsAssemble", gsAssemble<T>, blocks, GS_CTA, stream, r->state, slices, gsSinkOf(r, recvbuff));
    });
}
