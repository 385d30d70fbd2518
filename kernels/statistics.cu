/* What a call must know of a whole vector before it can look at one coordinate: sums by the fixed tree, threshold's tau from a
 * histogram, topk's limit from several. */
#include "kernels.cuh"
#include "launch.cuh"

/*
 * 1. Thread 0 begins the call. A second half whose first half has failed gets its fault, and so changes nothing.
 * 2. All clear the histogram, if this call needs one.
 * Traffic: none per element.
 * Bad case: none.
 */
__global__ void gsBeginCall(const __grid_constant__ gsSpec spec, gsState *state, const gsState *upstream,
                            uint32_t *histogram)
{
    if (threadIdx.x == 0) {
        gsCallBegin(&spec, state); /* leaves alone what gsCallWantsHistogram reads */
        if (spec.denseNow)
            state->call.skip = 0;
        if (upstream)
            state->fault = upstream->fault;
    }
    if (!gsCallWantsHistogram(&spec, state) && spec.select != GS_SELECT_LARGEST)
        return;
    for (unsigned bin = threadIdx.x; bin < GS_HISTOGRAM_BINS; bin += blockDim.x)
        histogram[bin] = 0;
}

/*
 * threshold, while tau is unknown.
 * 1. Each CTA counts the magnitudes of its blocks, |g + e| or of what was prepared, in shared memory.
 * 2. It adds its counts to the histogram.
 * Traffic: reads g and e, 8 bytes an element (two-byte gradients: 6); nothing once tau is known.
 * Bad case: equal magnitudes share one bin, and its atomics take turns. Rare: a first step, or a jump of the
 *   gradient's scale.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, gsFewCtasPerSm<gsRealOf<T>>)
    gsCountMagnitudes(const __grid_constant__ gsSpec spec, const gsState *state, const gsInput input,
                      const gsPair<gsRealOf<T>> residual, uint32_t *histogram)
{
    using Real = gsRealOf<T>;
    __shared__ uint32_t count[GS_HISTOGRAM_BINS];
    const Real *e = residual.current(state);
    if (!gsCallWantsHistogram(&spec, state) || state->call.skip)
        return;
    for (unsigned bin = threadIdx.x; bin < GS_HISTOGRAM_BINS; bin += GS_CTA)
        count[bin] = 0;
    __syncthreads();
    for (uint32_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        Real x[16], y[16] = {};
        unsigned length = gsBlockLength(&spec, b);
        uint32_t present = gsPresent(length);
        if (gsBlockIsWhole(&spec, b))
            continue;
        gsLoadTile(input.block<T>(state, b), length, x);
        if (e)
            gsLoadTile(e + (uint64_t)b * GS_BLOCK, length, y);
#pragma unroll
        for (unsigned i = 0; i < 16; i++) {
            const Real a = e ? x[i] + y[i] : x[i];
            if ((present >> i & 1u) && gsFinite(a))
                atomicAdd(&count[gsHistogramBin((float)a)], 1u);
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
    if (!gsCallWantsHistogram(&spec, state) || state->call.skip)
        return;
    for (unsigned bin = threadIdx.x; bin < GS_HISTOGRAM_BINS; bin += blockDim.x)
        count[bin] = histogram[bin];
    __syncthreads();
    if (threadIdx.x == 0)
        state->call.tau = (double)gsTauFromHistogram(count, spec.target);
}

/* Bits of a digit of the k-th largest magnitude's key; the digits reach a little above the key. */
constexpr int GS_DIGIT = 11;
static_assert(1 << GS_DIGIT == GS_HISTOGRAM_BINS, "a bin a digit");

/*
 * topk, one digit of the limit. The call's limit holds the digits above.
 * 1. Each CTA counts the digit, in shared memory, among those of its elements whose higher digits are the limit's.
 * 2. It adds its counts to the histogram.
 * Traffic: reads a, 4 bytes an element in each of three passes (float64: 8 in each of six).
 * Bad case: in the first pass most magnitudes share some dozen bins, and their atomics take turns.
 */
template <typename Real>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<Real>)
    gsCountDigits(const __grid_constant__ gsSpec spec, const gsState *state, const gsInput input, int shift,
                  uint32_t *histogram)
{
    __shared__ uint32_t count[GS_HISTOGRAM_BINS];
    const uint64_t prefix = state->call.limit;
    if (state->call.skip)
        return;
    for (unsigned bin = threadIdx.x; bin < GS_HISTOGRAM_BINS; bin += GS_CTA)
        count[bin] = 0;
    __syncthreads();
    for (uint32_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        Real x[16];
        const unsigned length = gsBlockLength(&spec, b);
        const uint32_t present = gsPresent(length);
        if (gsBlockIsWhole(&spec, b))
            continue;
        gsLoadTile(input.block<Real>(state, b), length, x);
#pragma unroll
        for (unsigned i = 0; i < 16; i++) {
            const uint64_t key = (uint64_t)gsKeyOf(x[i]) >> shift;
            if ((present >> i & 1u) && key >> GS_DIGIT == prefix)
                atomicAdd(&count[key & (GS_HISTOGRAM_BINS - 1)], 1u);
        }
    }
    __syncthreads();
    for (unsigned bin = threadIdx.x; bin < GS_HISTOGRAM_BINS; bin += GS_CTA)
        if (count[bin])
            atomicAdd(&histogram[bin], count[bin]);
}

/*
 * topk, the end of a digit. One CTA, two bins a thread, from the top:
 * 1. Each thread adds up the bins above its own.
 * 2. The one whose bins hold the wanted rank appends the digit, and says how many are still missing below it.
 * 3. The histogram is cleared for the next digit.
 * Traffic: none per element.
 * Bad case: none.
 */
__global__ void __launch_bounds__(GS_LONE_CTA)
    gsTakeDigit(const __grid_constant__ gsSpec spec, gsState *state, int first, uint32_t *histogram)
{
    __shared__ uint64_t warpSum[GS_LONE_CTA / 32];
    const unsigned top = GS_HISTOGRAM_BINS - 1 - 2 * threadIdx.x;
    const uint64_t count[2] = {histogram[top], histogram[top - 1]};
    const uint64_t prefix = state->call.limit,
                   wanted = first ? gsCallTarget(&spec, state->call.step) : state->call.ties;
    if (state->call.skip)
        return;
    uint64_t above = gsSumBefore(count[0] + count[1], warpSum);
    __syncthreads(); /* all have read the call */
#pragma unroll
    for (unsigned i = 0; i < 2; i++) {
        if (above < wanted && above + count[i] >= wanted) {
            state->call.limit = prefix << GS_DIGIT | (top - i);
            state->call.ties = wanted - above;
        }
        above += count[i];
        histogram[top - i] = 0;
    }
}

/*
 * A warp takes a block, in eight parts of 512 elements:
 * 1. Lanes load four quads each, wide, and put them into shared memory.
 * 2. Lane l takes those at l mod 32 in index order and adds, in double: the summation order is the contract's, the
 *    loads stay wide. With a cut, gspar's s, those with s |x| >= 1 are left out; so is what is not finite.
 * 3. Lanes fold 16, 8, 4, 2, 1.
 * 4. The largest magnitude goes to the call as bits, whose order is the same: one atomic a warp.
 * Traffic: reads x, 4 bytes an element (float64: 8, others: 2).
 * Bad case: few blocks, since a warp adds 128 doubles one after the other whatever the grid.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<gsRealOf<T>>)
    gsSumVector(const __grid_constant__ gsSpec spec, gsState *state, const gsInput input, uint32_t what,
                double *blockSum, uint32_t *blockBelow)
{
    using Real = gsRealOf<T>;
    __shared__ __align__(16) Real staged[GS_WARPS][GS_PART];
    const Real s = what & GS_SUM_BELOW ? (Real)state->call.s : (Real)0;
    Real largest = 0;
    if (state->call.skip)
        return;
    for (uint64_t b = (uint64_t)blockIdx.x * GS_WARPS + gsWarp(); b < spec.blocks;
         b += (uint64_t)gridDim.x * GS_WARPS) {
        const T *block = input.block<T>(state, b);
        const unsigned length = gsBlockLength(&spec, b);
        const unsigned counted = gsBlockIsWhole(&spec, b) && !(what & GS_SUM_ALL) ? 0 : length;
        const bool wide = gsIsWide(block, length);
        double magnitudes = 0.0, squares = 0.0, plain = 0.0;
        uint32_t below = 0;
        gsOverLanes(
            staged[gsWarp()], [&](unsigned at, Real *quad) { gsLoadQuad(block, at, length, wide, quad); },
            [&](Real g, unsigned at) {
                const Real m = gsAbs(g);
                const bool finite = gsFinite(g), take = finite && s * m < (Real)1 && at < counted;
                const double part = take ? (double)m : 0.0;
                magnitudes += part;
                if (what & GS_SUM_SQUARES)
                    squares += part * part;
                if (what & GS_SUM_PLAIN)
                    plain += take ? (double)g : 0.0;
                largest = finite && m > largest ? m : largest;
                below += take;
            });
        magnitudes = gsWarpSum(magnitudes);
        squares = gsWarpSum(squares);
        plain = gsWarpSum(plain);
        below = __reduce_add_sync(GS_ALL_LANES, below);
        if (gsLane() != 0)
            continue;
        if (what & GS_SUM_MAGNITUDES)
            blockSum[b] = magnitudes;
        if (what & GS_SUM_SQUARES)
            blockSum[spec.blocks + b] = squares;
        if (what & GS_SUM_PLAIN)
            blockSum[2 * (uint64_t)spec.blocks + b] = plain;
        if (what & GS_SUM_BELOW)
            blockBelow[b] = below;
    }
    if (!(what & GS_SUM_LARGEST))
        return;
    double most = (double)largest;
    for (int offset = 16; offset > 0; offset /= 2) {
        const double other = __shfl_xor_sync(GS_ALL_LANES, most, offset);
        most = other > most ? other : most;
    }
    if (gsLane() == 0 && most > 0.0)
        atomicMax((unsigned long long *)&state->call.largest, (unsigned long long)gsKeyOf(most));
}

/* The tree of a warp's 32 values in ascending order: 1, 2, 4, 8, 16. */
static __device__ __forceinline__ double warpTree(double x)
{
    for (int offset = 1; offset < 32; offset *= 2)
        x += __shfl_xor_sync(GS_ALL_LANES, x, offset);
    return x;
}

/*
 * One level of the pairwise tree over the block number, for every row whose bit is set. A CTA folds 1024 sums, `stride`
 * apart, into their first: 1. inside its warps, 2. then over the warps. A missing one is added as 0, which changes
 * nothing: no sum is -0, since they all began at +0.
 * Traffic: 8 bytes a block of 4096 and row.
 * Bad case: beyond 1024 blocks a second level, a launch more.
 */
__global__ void __launch_bounds__(GS_LONE_CTA)
    gsFoldSums(double *blockSum, uint32_t blocks, uint64_t rows, uint32_t parts, uint64_t stride)
{
    __shared__ double partial[GS_LONE_CTA / 32];
    const uint64_t span = stride * GS_LONE_CTA, ctas = (uint64_t)parts * (64 - __clzll((long long)rows));
    for (uint64_t cta = blockIdx.x; cta < ctas; cta += gridDim.x) {
        const uint64_t row = cta / parts, first = cta % parts * span, at = first + threadIdx.x * stride;
        double *sums = blockSum + row * blocks;
        if (!(rows >> row & 1u))
            continue;
        double sum = warpTree(at < blocks ? sums[at] : 0.0);
        if (gsLane() == 0)
            partial[gsWarp()] = sum;
        __syncthreads();
        if (gsWarp() == 0)
            sum = warpTree(partial[gsLane()]);
        if (threadIdx.x == 0)
            sums[first] = sum;
        __syncthreads();
    }
}

/* What the folded sums become; thread 0's work. Row 2, which gspar has no use for, keeps its first pass's squares. */
static __device__ void takeSums(const gsSpec &spec, gsState *state, gsPurpose purpose, int pass, const gsSums &sums,
                                double *blockSum)
{
    gsCall *c = &state->call;
    double none = 0.0, *all = spec.blocks ? blockSum + 2 * (uint64_t)spec.blocks : &none;
    switch (purpose) {
    case GS_FOR_CLIP: gsCallClip(&spec, c, &sums); return;
    case GS_FOR_TRIGGER: /* magnitudes: the distance of the gradient from another */
        gsCallTrigger(&spec, state, c, spec.trigger == GS_TRIGGER_STALE ? sums.magnitudes : sums.squares,
                      spec.trigger == GS_TRIGGER_CHANGE ? spec.xi * sums.magnitudes : gsCallLagBound(&spec, state));
        return;
    case GS_FOR_CODED: /* magnitudes: the coded squares; squares: the errors' */
        c->error = sums.squares;
        gsCallTrigger(&spec, state, c, sums.magnitudes,
                      gsLaqBound(gsCallLagBound(&spec, state), c->error, state->sentError));
        return;
    case GS_FOR_MOVED: c->moved = state->step ? gsLagStepNorm(&spec, sums.magnitudes) : 0.0; return;
    case GS_FOR_GAP:
        gsCallTrigger(&spec, state, c, spec.smoothness * spec.smoothness * sums.magnitudes,
                      gsCallLagBound(&spec, state));
        return;
    case GS_FOR_GSPAR: gsCallRescale(&spec, c, pass, &sums, all); return;
    case GS_FOR_SCALES:
        if (spec.rms > 0.0)
            gsCallTauFromSquares(&spec, c, sums.squares);
        if (spec.aux & GS_RECORD_ONE_SCALE)
            gsCallOneScale(&spec, c, &sums);
        return;
    case GS_FOR_RESULT:
        state->resultNorm = sums.magnitudes;
        for (uint32_t p = 0; p < GS_MAX_POOL && spec.search == GS_SEARCH_HINDSIGHT; p++)
            if (spec.pool >> p & 1u)
                state->missed[p] = spec.blocks ? blockSum[(uint64_t)(1 + p) * spec.blocks] : 0.0;
        return;
    }
}

/*
 * The end of a sum.
 * 1. One CTA adds the blocks' counts, where there are any.
 * 2. Thread 0 takes the folded sums to what they are for.
 * Traffic: 4 bytes a block of 4096, gspar alone.
 * Bad case: billions of elements, since one CTA reads all counts.
 */
__global__ void __launch_bounds__(GS_LONE_CTA)
    gsTakeSums(const __grid_constant__ gsSpec spec, gsState *state, gsPurpose purpose, int pass, uint32_t what,
               double *blockSum, const uint32_t *blockBelow)
{
    __shared__ uint64_t partial[GS_LONE_CTA / 32];
    const bool decides = purpose == GS_FOR_MOVED || purpose == GS_FOR_GAP || purpose == GS_FOR_RESULT;
    uint64_t below = 0;
    if (state->call.skip && !decides)
        return;
    for (uint64_t b = threadIdx.x; (what & GS_SUM_BELOW) && b < spec.blocks; b += GS_LONE_CTA)
        below += blockBelow[b];
    below = gsWarpSum(below);
    if (gsLane() == 0)
        partial[gsWarp()] = below;
    __syncthreads();
    if (gsWarp() == 0)
        below = gsWarpSum(partial[gsLane()]);
    if (threadIdx.x != 0)
        return;
    const uint32_t there = spec.blocks ? what : 0;
    gsSums sums;
    sums.magnitudes = there & GS_SUM_MAGNITUDES ? blockSum[0] : 0.0;
    sums.squares = there & GS_SUM_SQUARES ? blockSum[spec.blocks] : 0.0;
    sums.plain = there & GS_SUM_PLAIN ? blockSum[2 * (uint64_t)spec.blocks] : 0.0;
    sums.largest = state->call.largest;
    sums.below = below;
    takeSums(spec, state, purpose, pass, sums, blockSum);
}

gsResult_t gsCudaBegin(gsReducer_t r, gsStream_t stream)
{
    return gsLaunch("gsBeginCall", gsBeginCall, 1, GS_CTA, stream, r->spec, r->state, r->upstream, r->histogram);
}

gsResult_t gsCudaSumVector(gsReducer_t r, const gsInput &x, uint32_t what, gsStream_t stream)
{
    const uint64_t ctas = ((uint64_t)r->spec.blocks + GS_WARPS - 1) / GS_WARPS;
    GS_CHECK(gsByType(x.type, [&](auto t) {
        return gsLaunch("gsSumVector", gsSumVector<decltype(t)>, ctas, GS_CTA, stream, r->spec, r->state, x, what,
                        r->blockSum, r->blockBelow);
    }));
    return gsCudaFold(r, what & (GS_SUM_MAGNITUDES | GS_SUM_SQUARES | GS_SUM_PLAIN), stream);
}

gsResult_t gsCudaFold(gsReducer_t r, uint64_t rows, gsStream_t stream)
{
    const uint64_t blocks = r->spec.blocks;
    uint32_t highest = 0;
    while (highest < 63 && rows >> highest >> 1)
        highest++;
    for (uint64_t stride = 1; stride < blocks; stride *= GS_LONE_CTA) {
        const uint32_t parts = (uint32_t)((blocks + stride * GS_LONE_CTA - 1) / (stride * GS_LONE_CTA));
        GS_CHECK(gsLaunch("gsFoldSums", gsFoldSums, (uint64_t)parts * (highest + 1), GS_LONE_CTA, stream, r->blockSum,
                          r->spec.blocks, rows, parts, stride));
    }
    return GS_SUCCESS;
}

gsResult_t gsCudaTakeSums(gsReducer_t r, gsPurpose purpose, int pass, uint32_t what, gsStream_t stream)
{
    return gsLaunch("gsTakeSums", gsTakeSums, 1, GS_LONE_CTA, stream, r->spec, r->state, purpose, pass, what,
                    r->blockSum, r->blockBelow);
}

/* threshold: of g + e where that has no pass of its own. */
static gsResult_t findTau(gsReducer_t r, const gsInput &x, gsStream_t stream)
{
    void *const none[2] = {};
    const bool adds = gsSpecAdds(&r->spec);
    GS_CHECK(gsByType(x.type, [&](auto t) {
        using T = decltype(t);
        return gsLaunch("gsCountMagnitudes", gsCountMagnitudes<T>, r->spec.blocks, GS_CTA, stream, r->spec, r->state, x,
                        gsPairOf<gsRealOf<T>>(adds ? r->residual : none), r->histogram);
    }));
    return gsLaunch("gsFindTau", gsFindTau, 1, GS_CTA, stream, r->spec, r->state, r->histogram);
}

static gsResult_t findLimit(gsReducer_t r, const gsInput &x, gsStream_t stream)
{
    const int width = r->spec.wide ? 63 : 31, digits = (width + GS_DIGIT - 1) / GS_DIGIT;
    for (int digit = digits - 1; digit >= 0; digit--) {
        GS_CHECK(gsByReal(r->spec, [&](auto real) {
            return gsLaunch("gsCountDigits", gsCountDigits<decltype(real)>, r->spec.blocks, GS_CTA, stream, r->spec,
                            r->state, x, digit * GS_DIGIT, r->histogram);
        }));
        GS_CHECK(gsLaunch("gsTakeDigit", gsTakeDigit, 1, GS_LONE_CTA, stream, r->spec, r->state,
                          (int)(digit == digits - 1), r->histogram));
    }
    return GS_SUCCESS;
}

static gsResult_t findScale(gsReducer_t r, const gsInput &x, gsStream_t stream)
{
    const uint32_t what = GS_SUM_MAGNITUDES | GS_SUM_BELOW | (r->spec.epsilon > 0.0 ? (uint32_t)GS_SUM_SQUARES : 0);
    for (int pass = 0; pass < gsCallScalePasses(&r->spec); pass++) {
        GS_CHECK(gsCudaSumVector(r, x, what, stream));
        GS_CHECK(gsCudaTakeSums(r, GS_FOR_GSPAR, pass, what, stream));
    }
    return GS_SUCCESS;
}

gsResult_t gsCudaMeasure(gsReducer_t r, const gsInput &x, gsStream_t stream)
{
    const gsSpec &spec = r->spec;
    const uint32_t what = GS_SUM_MAGNITUDES | GS_SUM_SQUARES | GS_SUM_LARGEST;
    /* Whether tau is known the device alone can tell. */
    if (spec.select == GS_SELECT_THRESHOLD && spec.tau < 0.0f && !(spec.rms > 0.0))
        GS_CHECK(findTau(r, x, stream));
    if (spec.select == GS_SELECT_LARGEST)
        GS_CHECK(findLimit(r, x, stream));
    if (spec.select == GS_SELECT_GSPAR)
        GS_CHECK(findScale(r, x, stream));
    if (!(spec.rms > 0.0) && !(spec.aux & GS_RECORD_ONE_SCALE) && spec.value != GS_VALUE_F16)
        return GS_SUCCESS;
    GS_CHECK(gsCudaSumVector(r, x, what, stream));
    return gsCudaTakeSums(r, GS_FOR_SCALES, 0, what, stream);
}
