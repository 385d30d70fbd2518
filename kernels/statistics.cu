/* What a call must know before it can select: threshold's tau from a histogram, gspar's scale s from three sums. */
#include "block.cuh"
#include "kernels.cuh"
#include "launch.cuh"

/*
 * 1. Thread 0 begins the call.
 * 2. All clear the histogram, if this call needs one.
 * Traffic: none per element.
 * Bad case: none.
 */
__global__ void gsBeginCall(const __grid_constant__ gsSpec spec, gsState *state, uint32_t *histogram)
{
    if (threadIdx.x == 0)
        gsCallBegin(&spec, state); /* leaves alone what gsCallWantsHistogram reads */
    if (!gsCallWantsHistogram(&spec, state))
        return;
    for (unsigned bin = threadIdx.x; bin < GS_HISTOGRAM_BINS; bin += blockDim.x)
        histogram[bin] = 0;
}

/*
 * threshold, while tau is unknown.
 * 1. Each CTA counts the magnitudes |g + e| of its blocks in shared memory.
 * 2. It adds its counts to the histogram.
 * Traffic: reads g and e, 8 bytes an element (bf16: 6); nothing once tau is known.
 * Bad case: equal magnitudes share one bin, and its atomics take turns. Rare: a first step, or a jump of the
 *   gradient's scale.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA)
    gsCountMagnitudes(const __grid_constant__ gsSpec spec, const gsState *state, const T *g, const float *e0,
                      const float *e1, uint32_t *histogram)
{
    __shared__ uint32_t count[GS_HISTOGRAM_BINS];
    const float *e = state->phase ? e1 : e0;
    if (!gsCallWantsHistogram(&spec, state))
        return;
    for (unsigned bin = threadIdx.x; bin < GS_HISTOGRAM_BINS; bin += GS_CTA)
        count[bin] = 0;
    __syncthreads();
    for (uint32_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        float x[16], y[16];
        unsigned length = gsBlockLength(spec, b);
        uint32_t present = gsPresent(length);
        gsLoadTile(g + (uint64_t)b * GS_BLOCK, length, x);
        gsLoadTile(e + (uint64_t)b * GS_BLOCK, length, y);
#pragma unroll
        for (unsigned i = 0; i < 16; i++) {
            float a = x[i] + y[i];
            if ((present >> i & 1u) && gsIsFinite(a))
                atomicAdd(&count[gsHistogramBin(a)], 1u);
        }
    }
    __syncthreads();
    for (unsigned bin = threadIdx.x; bin < GS_HISTOGRAM_BINS; bin += GS_CTA)
        if (count[bin])
            atomicAdd(&histogram[bin], count[bin]);
}

/*
 * 1. All threads bring the histogram to shared memory.
 * 2. Thread 0 walks it down to tau.
 * Traffic: none per element.
 * Bad case: 2048 steps of one thread, some 30 us, where tau was unknown.
 */
__global__ void gsFindTau(const __grid_constant__ gsSpec spec, gsState *state, const uint32_t *histogram)
{
    __shared__ uint32_t count[GS_HISTOGRAM_BINS];
    if (!gsCallWantsHistogram(&spec, state))
        return;
    for (unsigned bin = threadIdx.x; bin < GS_HISTOGRAM_BINS; bin += blockDim.x)
        count[bin] = histogram[bin];
    __syncthreads();
    if (threadIdx.x == 0)
        state->call.tau = (double)gsTauFromHistogram(count, spec.target);
}

/*
 * gspar, one pass. A warp takes a block, in eight parts of 512 elements:
 * 1. Lanes load four quads each, wide, and put the magnitudes into shared memory.
 * 2. Lane l takes those at l mod 32 in index order and adds, in double, and counts those with s |g| < 1: the
 *    summation order is the contract's, the loads stay wide. With the s = 0 of the first pass that is all of them; a
 *    NaN or Inf never is one of them.
 * 3. Lanes fold 16, 8, 4, 2, 1.
 * Traffic: reads g, 4 bytes an element (bf16: 2), in each of three passes.
 * Bad case: few blocks, since a warp adds 128 doubles one after the other whatever the grid.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, GS_CTAS_PER_SM)
    gsSumMagnitudes(const __grid_constant__ gsSpec spec, gsState *state, const T *g, double *blockSum,
                    uint32_t *blockBelow)
{
    constexpr unsigned PART = GS_BLOCK / 8, QUADS = PART / 128;
    __shared__ float4 staged[GS_WARPS][PART / 4];
    const float *magnitude = (const float *)staged[gsWarp()];
    const float s = (float)state->call.s;
    for (uint64_t b = (uint64_t)blockIdx.x * GS_WARPS + gsWarp(); b < spec.blocks;
         b += (uint64_t)gridDim.x * GS_WARPS) {
        const T *block = g + b * GS_BLOCK;
        unsigned length = gsBlockLength(spec, (uint32_t)b);
        bool wide = gsIsWide(block, length);
        double sum = 0.0;
        uint32_t below = 0, bad = 0;
        for (unsigned part = 0; part < GS_BLOCK; part += PART) {
            float x[4 * QUADS];
#pragma unroll
            for (unsigned v = 0; v < QUADS; v++) {
                unsigned at = part + v * 128 + gsLane() * 4;
                if (wide) {
                    gsVector<T>::unpack(*(const typename gsVector<T>::Type *)(block + at), x + 4 * v);
                } else {
#pragma unroll
                    for (unsigned c = 0; c < 4; c++)
                        x[4 * v + c] = at + c < length ? gsToFloat(block[at + c]) : 0.0f;
                }
            }
#pragma unroll
            for (unsigned i = 0; i < 4 * QUADS; i++) {
                bad |= !gsIsFinite(x[i]);
                x[i] = fabsf(x[i]);
            }
#pragma unroll
            for (unsigned v = 0; v < QUADS; v++)
                staged[gsWarp()][v * 32 + gsLane()] = gsVector<float>::pack(x + 4 * v);
            __syncwarp();
#pragma unroll
            for (unsigned j = 0; j < PART / 32; j++) {
                float m = magnitude[j * 32 + gsLane()];
                bool counts = s * m < 1.0f && part + j * 32 + gsLane() < length;
                sum += counts ? (double)m : 0.0;
                below += counts;
            }
            __syncwarp();
        }
        sum = gsWarpSum(sum);
        below = __reduce_add_sync(GS_ALL_LANES, below);
        bad = __any_sync(GS_ALL_LANES, bad != 0);
        if (gsLane() == 0) {
            blockSum[b] = sum;
            blockBelow[b] = below;
            if (bad)
                atomicOr(&state->call.nonFinite, 1u);
        }
    }
}

/* The tree of a warp's 32 values in ascending order: 1, 2, 4, 8, 16. */
static __device__ __forceinline__ double warpTree(double x)
{
    for (int offset = 1; offset < 32; offset *= 2)
        x += __shfl_xor_sync(GS_ALL_LANES, x, offset);
    return x;
}

/*
 * gspar, one level of the pairwise tree over the block number. A CTA folds 1024 sums, `stride` apart, into their
 * first: 1. inside its warps, 2. then over the warps. Sums are not negative, so that a missing one may be added as 0.
 * Traffic: 8 bytes a block of 4096.
 * Bad case: beyond 1024 blocks a second level, a launch more.
 */
__global__ void __launch_bounds__(GS_LONE_CTA) gsFoldSums(double *blockSum, uint32_t blocks, uint64_t stride)
{
    __shared__ double partial[GS_LONE_CTA / 32];
    const uint64_t span = stride * GS_LONE_CTA;
    for (uint64_t first = blockIdx.x * span; first < blocks; first += gridDim.x * span) {
        uint64_t at = first + threadIdx.x * stride;
        double sum = warpTree(at < blocks ? blockSum[at] : 0.0);
        if (gsLane() == 0)
            partial[gsWarp()] = sum;
        __syncthreads();
        if (gsWarp() == 0)
            sum = warpTree(partial[gsLane()]);
        if (threadIdx.x == 0)
            blockSum[first] = sum;
        __syncthreads();
    }
}

/*
 * gspar, the end of a pass.
 * 1. One CTA adds the blocks' counts.
 * 2. Thread 0 takes the folded sum and rescales s.
 * Traffic: 4 bytes a block of 4096.
 * Bad case: billions of elements, since one CTA reads all counts.
 */
__global__ void __launch_bounds__(GS_LONE_CTA) gsRescale(const __grid_constant__ gsSpec spec, gsState *state, int pass,
                                                         const double *blockSum, const uint32_t *blockBelow)
{
    __shared__ uint64_t partial[GS_LONE_CTA / 32];
    uint64_t below = 0;
    for (uint64_t b = threadIdx.x; b < spec.blocks; b += GS_LONE_CTA)
        below += blockBelow[b];
    below = gsWarpSum(below);
    if (gsLane() == 0)
        partial[gsWarp()] = below;
    __syncthreads();
    if (gsWarp() == 0)
        below = gsWarpSum(partial[gsLane()]);
    if (threadIdx.x == 0) {
        gsSums sums = {spec.blocks ? blockSum[0] : 0.0, 0.0, 0.0, 0.0, below};
        double squares;
        gsCallRescale(&spec, &state->call, pass, &sums, &squares);
    }
}

template <typename T> static gsResult_t findTau(gsReducer_t r, const T *g, gsStream_t stream)
{
    GS_CHECK(gsLaunch("gsCountMagnitudes", gsCountMagnitudes<T>, r->spec.blocks, GS_CTA, stream, r->spec, r->state, g,
                      (const float *)r->residual[0], (const float *)r->residual[1], r->histogram));
    return gsLaunch("gsFindTau", gsFindTau, 1, GS_CTA, stream, r->spec, r->state, r->histogram);
}

template <typename T> static gsResult_t findScale(gsReducer_t r, const T *g, gsStream_t stream)
{
    const uint64_t blocks = r->spec.blocks;
    for (int pass = 0; pass <= GS_GSPAR_RESCALES; pass++) {
        GS_CHECK(gsLaunch("gsSumMagnitudes", gsSumMagnitudes<T>, (blocks + GS_WARPS - 1) / GS_WARPS, GS_CTA, stream,
                          r->spec, r->state, g, r->blockSum, r->blockBelow));
        for (uint64_t stride = 1; stride < blocks; stride *= GS_LONE_CTA)
            GS_CHECK(gsLaunch("gsFoldSums", gsFoldSums, (blocks + stride * GS_LONE_CTA - 1) / (stride * GS_LONE_CTA),
                              GS_LONE_CTA, stream, r->blockSum, r->spec.blocks, stride));
        GS_CHECK(gsLaunch("gsRescale", gsRescale, 1, GS_LONE_CTA, stream, r->spec, r->state, pass, r->blockSum,
                          r->blockBelow));
    }
    return GS_SUCCESS;
}

template <typename T> static gsResult_t statistics(gsReducer_t r, const T *g, gsStream_t stream)
{
    GS_CHECK(gsLaunch("gsBeginCall", gsBeginCall, 1, GS_CTA, stream, r->spec, r->state, r->histogram));
    if (r->spec.select == GS_SELECT_THRESHOLD && r->spec.tau < 0.0f)
        return findTau(r, g, stream);
    if (r->spec.select == GS_SELECT_GSPAR)
        return findScale(r, g, stream);
    return GS_SUCCESS;
}

gsResult_t gsCudaStatistics(gsReducer_t r, const void *sendbuff, gsStream_t stream)
{
    return r->spec.type == GS_BFLOAT16 ? statistics(r, (const gsBf16 *)sendbuff, stream)
                                       : statistics(r, (const float *)sendbuff, stream);
}
