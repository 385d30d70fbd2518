/* Which coordinates travel: kept bits, the residual to be, offsets by block, and the plan of the record. */
#include "launch.cuh"
#include "reference.cuh"
#include "rows.cuh"

/* What a rule looks at, and where it leaves what it found. */
template <typename T> struct Selection {
    gsInput input;
    gsPair<gsRealOf<T>> residual; /* where g + e is made here */
    uint32_t *keptBits, *blockKept;
};

/* a of a block: what was prepared, or g + e, which becomes the next residual with the kept values left in place: pack takes them
 * out as it reads them. */
template <typename T, bool ADD>
static __device__ __forceinline__ void loadCompared(gsState *state, const Selection<T> &s, uint64_t b, unsigned length,
                                                    gsRealOf<T> *a)
{
    using Real = gsRealOf<T>;
    gsLoadTile(s.input.template block<T>(state, b), length, a);
    if constexpr (ADD) {
        Real residual[16];
        bool finite = true;
        gsLoadTile((const Real *)s.residual.current(state) + b * GS_BLOCK, length, residual);
#pragma unroll
        for (unsigned i = 0; i < 16; i++) {
            a[i] += residual[i];
            finite = finite && gsFinite(a[i]);
        }
        gsStoreTile(s.residual.next(state) + b * GS_BLOCK, length, a);
        gsReportNonFinite(state, !finite);
    }
}

/* Stores a block's kept bits and, in group 0, their count. Ends behind a barrier. */
static __device__ __forceinline__ void storeBlock(uint32_t *keptBits, uint32_t *blockKept, uint64_t b, uint32_t kept,
                                                  gsCtaSum &ctaSum)
{
    gsStoreKept(keptBits + b * GS_BLOCK_WORDS, kept);
    const uint32_t count = ctaSum(__popc(kept));
    if (threadIdx.x == 0)
        blockKept[b] = count;
}

/* Of a block that travels whole nothing is selected. */
static __device__ __forceinline__ void keepNone(uint32_t *keptBits, uint32_t *blockKept, uint64_t b)
{
    if (threadIdx.x < GS_BLOCK_WORDS)
        keptBits[b * GS_BLOCK_WORDS + threadIdx.x] = 0;
    if (threadIdx.x == 0)
        blockKept[b] = 0;
}

/*
 * threshold. A CTA takes a block:
 * 1. a = g + e becomes the next residual, unless it was prepared.
 * 2. |a| > tau is kept.
 * 3. Kept bits and their count are stored.
 * Traffic: reads g and e, writes e, 12 bytes an element (two-byte gradients: 10; prepared: reads 4), and an eighth of a
 *   byte for the bits.
 * Bad case: none; the work does not depend on what is kept.
 */
template <typename T, bool ADD>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<gsRealOf<T>>)
    gsSelectThreshold(const __grid_constant__ gsSpec spec, gsState *state, const Selection<T> selection)
{
    using Real = gsRealOf<T>;
    __shared__ uint32_t partial[2][GS_WARPS];
    gsCtaSum ctaSum(partial);
    const Real tau = (Real)state->call.tau;
    if (state->call.skip)
        return;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        Real a[16];
        uint32_t kept = 0;
        loadCompared<T, ADD>(state, selection, b, gsBlockLength(&spec, b), a);
        if (gsBlockIsWhole(&spec, b)) {
            keepNone(selection.keptBits, selection.blockKept, b);
            continue;
        }
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            kept |= (uint32_t)gsThresholdKeeps(a[i], tau) << i;
        storeBlock(selection.keptBits, selection.blockKept, b, kept, ctaSum);
    }
}

/* Of this thread's elements with key[i] == bound, those to keep so that `missing` of the block are: the lowest indices. `there`
 * of the block equal the bound. By bisection over the index. */
template <typename Key>
static __device__ __forceinline__ uint32_t firstTies(const Key *key, Key bound, uint32_t there, uint32_t missing,
                                                     gsCtaSum &ctaSum)
{
    unsigned start = 0, end = GS_BLOCK;
    uint32_t kept = 0;
    while (there > missing) {
        const unsigned middle = start + (end - start) / 2;
        uint32_t n = 0;
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            n += key[i] == bound && gsQuadAt(i / 4) + i % 4 < middle;
        n = ctaSum(n);
        if (n >= missing)
            end = middle, there = n;
        else
            start = middle;
    }
#pragma unroll
    for (unsigned i = 0; i < 16; i++)
        kept |= (uint32_t)(key[i] == bound && gsQuadAt(i / 4) + i % 4 < end) << i;
    return kept;
}

/*
 * chunk-topk. A CTA takes a block:
 * 1. a = g + e becomes the next residual, unless it was prepared.
 * 2. Bisection over the bit patterns of |a| finds the largest bound that k elements reach, and ends early where
 *    exactly k do.
 * 3. If more than k reach it, bisection over the index finds up to where elements equal to the bound are kept.
 * 4. Kept bits are stored.
 * What a last block lacks counts as zeros of the highest indices, which are kept last, that is never.
 * Traffic: as threshold.
 * Bad case: ties on the k-th place, 31 + 12 rounds of one barrier each instead of some 15 (float64: 63 + 12).
 */
template <typename T, bool ADD>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<gsRealOf<T>>)
    gsSelectTopk(const __grid_constant__ gsSpec spec, gsState *state, const Selection<T> selection)
{
    using Real = gsRealOf<T>;
    using Key = decltype(gsKeyOf(Real()));
    __shared__ uint32_t partial[2][GS_WARPS];
    gsCtaSum ctaSum(partial);
    if (state->call.skip)
        return;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        Real a[16];
        Key key[16];
        const unsigned length = gsBlockLength(&spec, b), k = gsTopkKept(spec.k, length);
        loadCompared<T, ADD>(state, selection, b, length, a);
        if (gsBlockIsWhole(&spec, b)) {
            keepNone(selection.keptBits, selection.blockKept, b);
            continue;
        }
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            key[i] = gsKeyOf(a[i]);

        /* At least k keys reach `bound`, `above` < k reach `limit`. */
        Key bound = 0, limit = (Key)1 << (8 * sizeof(Key) - 1);
        uint32_t reached = GS_BLOCK, above = 0;
        while (reached > k && limit - bound > 1) {
            const Key middle = bound + (limit - bound) / 2;
            uint32_t n = 0;
#pragma unroll
            for (unsigned i = 0; i < 16; i++)
                n += key[i] >= middle;
            n = ctaSum(n);
            if (n >= k)
                bound = middle, reached = n;
            else
                limit = middle, above = n;
        }

        uint32_t kept = 0;
        if (reached > k) { /* of the elements equal to the bound k - above */
            kept = firstTies(key, bound, reached - above, k - above, ctaSum);
        } else {
#pragma unroll
            for (unsigned i = 0; i < 16; i++)
                kept |= (uint32_t)(key[i] == bound) << i;
        }
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            kept |= (uint32_t)(key[i] > bound) << i;
        gsStoreKept(selection.keptBits + b * GS_BLOCK_WORDS, kept);
        if (threadIdx.x == 0)
            selection.blockKept[b] = k;
    }
}

/*
 * topk. A CTA takes a block:
 * 1. |a| above the limit is kept.
 * 2. Kept bits, their count and the number of those equal to the limit are stored.
 * Traffic: reads a, 4 bytes an element, and an eighth of a byte for the bits.
 * Bad case: none.
 */
template <typename Real>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<Real>)
    gsSelectLargest(const __grid_constant__ gsSpec spec, gsState *state, const Selection<Real> selection,
                    uint32_t *blockTies)
{
    __shared__ uint32_t partial[2][GS_WARPS];
    gsCtaSum ctaSum(partial);
    const uint64_t limit = state->call.limit;
    if (state->call.skip)
        return;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        Real a[16];
        uint32_t kept = 0, ties = 0;
        const unsigned length = gsBlockLength(&spec, b);
        const uint32_t present = gsPresent(length);
        if (gsBlockIsWhole(&spec, b)) {
            keepNone(selection.keptBits, selection.blockKept, b);
            if (threadIdx.x == 0)
                blockTies[b] = 0;
            continue;
        }
        loadCompared<Real, false>(state, selection, b, length, a);
#pragma unroll
        for (unsigned i = 0; i < 16; i++) {
            const uint64_t key = (uint64_t)gsKeyOf(a[i]);
            kept |= (uint32_t)(key > limit) << i;
            ties += key == limit && (present >> i & 1u);
        }
        storeBlock(selection.keptBits, selection.blockKept, b, kept, ctaSum);
        ties = ctaSum(ties);
        if (threadIdx.x == 0)
            blockTies[b] = ties;
    }
}

/*
 * topk. One CTA shares out the missing among the blocks' ties, the first first:
 * 1. Each thread takes a run of blocks and adds up their ties.
 * 2. From the sums of the threads before it, it tells each of its blocks how many to keep.
 * Traffic: 12 bytes a block of 4096.
 * Bad case: billions of elements, since one CTA reads all counts.
 */
__global__ void __launch_bounds__(GS_LONE_CTA)
    gsShareTies(const __grid_constant__ gsSpec spec, const gsState *state, uint32_t *blockTies)
{
    __shared__ uint64_t warpSum[GS_LONE_CTA / 32];
    const uint64_t each = ((uint64_t)spec.blocks + GS_LONE_CTA - 1) / GS_LONE_CTA, first = threadIdx.x * each;
    uint64_t own = 0;
    if (state->call.skip)
        return;
    for (uint64_t b = first; b < first + each && b < spec.blocks; b++)
        own += blockTies[b];
    uint64_t before = gsSumBefore(own, warpSum);
    const uint64_t all = state->call.ties;
    for (uint64_t b = first; b < first + each && b < spec.blocks; b++) {
        const uint64_t ties = blockTies[b], left = all > before ? all - before : 0;
        blockTies[b] = (uint32_t)(ties < left ? ties : left);
        before += ties;
    }
}

/*
 * topk. A CTA takes a block that has ties to keep:
 * 1. It looks for the first of those equal to the limit.
 * 2. It adds them to the kept bits and their count.
 * Traffic: reads a of such blocks, one as a rule, all of it again where most magnitudes are equal.
 * Bad case: that.
 */
template <typename Real>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<Real>)
    gsKeepTies(const __grid_constant__ gsSpec spec, gsState *state, const Selection<Real> selection,
               const uint32_t *blockTies)
{
    using Key = decltype(gsKeyOf(Real()));
    __shared__ uint32_t partial[2][GS_WARPS];
    gsCtaSum ctaSum(partial);
    const Key limit = (Key)state->call.limit;
    if (state->call.skip)
        return;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        const uint32_t missing = blockTies[b], present = gsPresent(gsBlockLength(&spec, b));
        Real a[16];
        Key key[16];
        uint32_t kept = 0, ties = 0;
        if (missing == 0)
            continue;
        loadCompared<Real, false>(state, selection, b, gsBlockLength(&spec, b), a);
#pragma unroll
        for (unsigned i = 0; i < 16; i++) {
            key[i] = present >> i & 1u ? gsKeyOf(a[i]) : ~(Key)0; /* no element's */
            ties += key[i] == limit;
            kept |= (uint32_t)(key[i] > limit && (present >> i & 1u)) << i;
        }
        ties = ctaSum(ties);
        kept |= firstTies(key, limit, ties, missing, ctaSum);
        storeBlock(selection.keptBits, selection.blockKept, b, kept, ctaSum);
    }
}

/* gdsec: how far the iterate has moved, and the caller's factors, by coordinate. */
template <typename Real> struct Steps {
    gsPair<Real> previous; /* the next one is this call's */
    const void *xi;
};

/*
 * gdsec. A CTA takes a block:
 * 1. |a_i| > (xi_i / ranks) |theta_i - theta_i before| is kept.
 * 2. Kept bits and their count are stored.
 * Traffic: reads a and both iterates, 12 bytes an element, 4 more for factors by coordinate, and an eighth for the bits.
 * Bad case: none.
 */
template <typename Real>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<Real>)
    gsSelectStep(const __grid_constant__ gsSpec spec, gsState *state, const Selection<Real> selection,
                 const Steps<Real> steps)
{
    __shared__ uint32_t partial[2][GS_WARPS];
    gsCtaSum ctaSum(partial);
    const Real limit = (Real)(spec.xi / (double)spec.nranks);
    if (state->call.skip)
        return;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        uint32_t kept = 0;
#pragma unroll 2
        for (unsigned v = 0; v < GS_QUADS; v++) {
            const uint64_t i = b * GS_BLOCK + gsQuadAt(v); /* iterates are no list's */
            Real a[4], now[4], before[4], factor[4] = {(Real)1, (Real)1, (Real)1, (Real)1};
            gsLoadState(selection.input.template block<Real>(state, b) + gsQuadAt(v), a);
            gsLoadState((const Real *)steps.previous.next(state) + i, now);
            gsLoadState((const Real *)steps.previous.current(state) + i, before);
            if (steps.xi)
                gsLoadForeign(spec.paramsType, steps.xi, i, spec.count, factor);
#pragma unroll
            for (unsigned c = 0; c < 4; c++) {
                const bool keeps = gsStepKeeps(a[c], steps.xi ? limit * factor[c] : limit, now[c], before[c]);
                kept |= (uint32_t)(keeps && i + c < spec.count) << (4 * v + c);
            }
        }
        storeBlock(selection.keptBits, selection.blockKept, b, kept, ctaSum);
    }
}

/*
 * gspar, randk, uniform. A CTA takes a block:
 * 1. A draw of four words for each quad decides, with p = min(s |x|, 1) or one probability for all; the draws of a mask are
 *    everybody's.
 * 2. Kept bits and the count of each group are stored; group 1, of "shared" alone, are the kept with p < 1.
 * Traffic: reads x, 4 bytes an element (float64: 8, others: 2), and an eighth of a byte for the bits.
 * Bad case: none; about 25 integer instructions an element go into the draws.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<gsRealOf<T>>)
    gsSelectDrawn(const __grid_constant__ gsSpec spec, gsState *state, const Selection<T> selection)
{
    using Real = gsRealOf<T>;
    __shared__ uint32_t partial[2][GS_WARPS];
    gsCtaSum ctaSum(partial);
    const Real s = (Real)state->call.s;
    const uint64_t step = state->step;
    const bool gspar = spec.select == GS_SELECT_GSPAR, mask = spec.layout == GS_LAYOUT_MASK;
    const uint32_t rank = mask ? 0 : spec.rank, purpose = mask ? GS_DRAW_MASK : GS_DRAW_KEEP; /* as gsRandkDraws */
    if (state->call.skip)
        return;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        Real x[16];
        uint32_t kept = 0, drawn = 0;
        bool finite = true;
        const unsigned length = gsBlockLength(&spec, b);
        loadCompared<T, false>(state, selection, b, length, x);
        if (gsBlockIsWhole(&spec, b)) {
#pragma unroll
            for (unsigned i = 0; i < 16; i++)
                finite = finite && gsFinite(x[i]);
            gsReportNonFinite(state, !finite);
            keepNone(selection.keptBits, selection.blockKept, b);
            if (threadIdx.x == 0 && spec.value == GS_VALUE_SHARED)
                selection.blockKept[spec.blocks + b] = 0;
            continue;
        }
#pragma unroll
        for (unsigned v = 0; v < GS_QUADS; v++) {
            const gsPhilox4 draws = gsPhilox(spec.seed, (b * GS_BLOCK + gsQuadAt(v)) / 4, step, rank, purpose);
#pragma unroll
            for (unsigned c = 0; c < 4; c++) {
                const Real p = gspar ? gsGsparProbability(x[4 * v + c], s) : s;
                kept |= (uint32_t)gsDrawKeeps(draws.word[c], p) << (4 * v + c);
                drawn |= (uint32_t) !(p >= (Real)1) << (4 * v + c);
                finite = finite && gsFinite(x[4 * v + c]);
            }
        }
        gsReportNonFinite(state, !finite);
        kept &= gsPresent(length);
        gsStoreKept(selection.keptBits + b * GS_BLOCK_WORDS, kept);
        if (spec.value != GS_VALUE_SHARED)
            drawn = 0;
        const uint32_t counts = ctaSum((uint32_t)__popc(kept & ~drawn) | (uint32_t)__popc(kept & drawn) << 16);
        if (threadIdx.x == 0) {
            selection.blockKept[b] = counts & 0xffffu;
            if (spec.value == GS_VALUE_SHARED)
                selection.blockKept[spec.blocks + b] = counts >> 16;
        }
    }
}

/*
 * All coordinates. A CTA takes a block: 1. it looks for what is not finite, unless the comparison has; 2. it says that all are kept.
 * Traffic: reads x, 4 bytes an element (float64: 8, others: 2), or nothing.
 * Bad case: none.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<gsRealOf<T>>)
    gsSelectAll(const __grid_constant__ gsSpec spec, gsState *state, const Selection<T> selection)
{
    const bool prepared = gsSpecPrepares(&spec);
    if (state->call.skip)
        return;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        const unsigned length = gsBlockLength(&spec, b);
        if (!prepared) {
            gsRealOf<T> x[16];
            bool finite = true;
            loadCompared<T, false>(state, selection, b, length, x);
#pragma unroll
            for (unsigned i = 0; i < 16; i++)
                finite = finite && gsFinite(x[i]);
            gsReportNonFinite(state, !finite);
        }
        if (threadIdx.x == 0)
            selection.blockKept[b] = gsBlockIsWhole(&spec, b) ? 0 : length;
    }
}

/* A block's rows begin anywhere in a word: 4096 of them touch one more than they fill. */
constexpr unsigned ROW_WORDS = GS_BLOCK / 32 + 1;

/* Marks the rows of a quad's nonzero elements; bit 0 of the marks is the bit of a row that begins a word. A warp's quads are
 * neighbours, and where all are of one row, one lane marks it. */
template <typename Real>
static __device__ __forceinline__ void markQuad(uint32_t *marks, const gsBlockRows &rows, unsigned at, const Real *x)
{
    const unsigned bit = (unsigned)(rows.first % 32), span = at - 4 * gsLane();
    const unsigned low = rows.after(span), high = rows.after(span + 127);
    if (low == high) {
        const bool any = x[0] != (Real)0 || x[1] != (Real)0 || x[2] != (Real)0 || x[3] != (Real)0;
        if (__any_sync(GS_ALL_LANES, any) && gsLane() == 0)
            atomicOr(&marks[(bit + low) / 32], 1u << (bit + low) % 32);
        return;
    }
#pragma unroll
    for (unsigned c = 0; c < 4; c++) {
        const unsigned row = bit + rows.after(at + c);
        if (x[c] != (Real)0)
            atomicOr(&marks[row / 32], 1u << row % 32);
    }
}

/*
 * rows. A CTA takes a block:
 * 1. It marks the rows that are not all 0 in shared memory, and looks for what is not finite.
 * 2. The marks are added to the vector's, which other blocks' rows share words with.
 * Traffic: reads x, 4 bytes an element (float64: 8, others: 2); 4 bytes for 32 rows of which one has a mark.
 * Bad case: rows of a few elements that are not 0, whose marks in shared memory take turns.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<gsRealOf<T>>)
    gsMarkRows(const __grid_constant__ gsSpec spec, gsState *state, const Selection<T> selection, uint32_t *rowBits)
{
    __shared__ uint32_t marks[ROW_WORDS];
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        const gsBlockRows rows(spec.width, b);
        gsRealOf<T> x[16];
        bool finite = true;
        for (unsigned i = threadIdx.x; i < ROW_WORDS; i += GS_CTA)
            marks[i] = 0;
        __syncthreads();
        loadCompared<T, false>(state, selection, b, gsBlockLength(&spec, b), x);
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            finite = finite && gsFinite(x[i]);
        gsReportNonFinite(state, !finite);
#pragma unroll
        for (unsigned v = 0; v < GS_QUADS; v++)
            markQuad(marks, rows, gsQuadAt(v), x + 4 * v);
        __syncthreads();
        for (unsigned i = threadIdx.x; i < ROW_WORDS; i += GS_CTA) /* whoever clears them */
            if (marks[i])
                atomicOr(&rowBits[rows.first / 32 + i], marks[i]);
    }
}

/*
 * rows. A warp takes a block: 1. the marks of its rows become kept bits and their count.
 * Traffic: writes an eighth of a byte an element.
 * Bad case: rows of one element, a load each from the cache.
 */
__global__ void __launch_bounds__(GS_CTA)
    gsKeepRows(const __grid_constant__ gsSpec spec, const uint32_t *rowBits, uint32_t *keptBits, uint32_t *blockKept)
{
    for (uint64_t b = (uint64_t)blockIdx.x * GS_WARPS + gsWarp(); b < spec.blocks;
         b += (uint64_t)gridDim.x * GS_WARPS) {
        const gsBlockRows rows(spec.width, b);
        const unsigned length = gsBlockLength(&spec, b);
        uint32_t count = 0;
        for (unsigned w = gsLane(); w < GS_BLOCK_WORDS; w += 32) {
            const uint32_t word = rows.kept((const uint8_t *)rowBits, length, w);
            keptBits[b * GS_BLOCK_WORDS + w] = word;
            count += (uint32_t)__popc(word);
        }
        count = __reduce_add_sync(GS_ALL_LANES, count);
        if (gsLane() == 0)
            blockKept[b] = count;
    }
}

/*
 * Of a reducer's blocks, or a part's: block counts -> offsets, by an exclusive scan of tiles of 8192, 8 counts to a thread: in the thread,
 * in the warp, over the warps, over the tiles. `apart`: from one group's counts to the next. Then thread 0 plans the record from the
 * totals; a silent call has none.
 */
static __device__ void planBlocks(const gsSpec &spec, gsState *state, const uint32_t *blockKept, uint64_t apart,
                                  uint32_t *blockOffset)
{
    constexpr unsigned EACH = 8, TILE = GS_LONE_CTA * EACH;
    __shared__ uint32_t warpTotal[GS_LONE_CTA / 32];
    __shared__ uint64_t kept[2]; /* thread 0's */
    const int groups = state->call.skip ? 0 : gsRecordGroups(spec.value);
    if (threadIdx.x == 0)
        kept[0] = kept[1] = 0;
    __syncthreads(); /* all have read the call */
    for (int group = 0; group < groups; group++) {
        const uint32_t *count = blockKept + (uint64_t)group * apart;
        uint32_t *offset = blockOffset + (uint64_t)group * ((uint64_t)spec.blocks + 1);
        uint64_t before = 0; /* the tile; sums inside a tile fit 32 bits */
        for (uint64_t tile = 0; tile < spec.blocks; tile += TILE) {
            uint64_t first = tile + threadIdx.x * EACH;
            uint32_t value[EACH], own = 0, inclusive;
#pragma unroll
            for (unsigned i = 0; i < EACH; i++) {
                value[i] = first + i < spec.blocks ? count[gsBlockAt(&spec, first + i)] : 0;
                own += value[i];
            }
            inclusive = own;
            for (unsigned distance = 1; distance < 32; distance *= 2) {
                uint32_t lower = __shfl_up_sync(GS_ALL_LANES, inclusive, distance);
                inclusive += gsLane() >= distance ? lower : 0;
            }
            if (gsLane() == 31)
                warpTotal[gsWarp()] = inclusive;
            __syncthreads();
            uint64_t at = before + (inclusive - own);
            for (unsigned w = 0; w < GS_LONE_CTA / 32; w++) {
                at += w < gsWarp() ? warpTotal[w] : 0;
                before += warpTotal[w];
            }
#pragma unroll
            for (unsigned i = 0; i < EACH; i++) {
                if (first + i < spec.blocks)
                    offset[first + i] = (uint32_t)(at < GS_RECORD_MAX_KEPT ? at : GS_RECORD_MAX_KEPT);
                at += value[i];
            }
            __syncthreads();
        }
        if (threadIdx.x == 0) {
            offset[spec.blocks] = (uint32_t)(before < GS_RECORD_MAX_KEPT ? before : GS_RECORD_MAX_KEPT);
            kept[group] = before;
        }
    }
    if (threadIdx.x == 0)
        gsCallPlan(&spec, state, kept);
}

/*
 * One CTA. 1. It plans the record, as above.
 * Traffic: 8 bytes a block of 4096.
 * Bad case: billions of elements, 128 tiles for 2^32 of them, some 2 us each.
 */
__global__ void __launch_bounds__(GS_LONE_CTA)
    gsPlanRecord(const __grid_constant__ gsSpec spec, gsState *state, const uint32_t *blockKept, uint32_t *blockOffset)
{
    planBlocks(spec, state, blockKept, spec.blocks, blockOffset);
}

/*
 * A CTA takes an owner's part: 1. Its state begins as a copy of the call's. 2. Its record is planned, as above.
 * Traffic: 8 bytes a block of 4096.
 * Bad case: two ranks, whose CTAs each go through half of the blocks.
 */
__global__ void __launch_bounds__(GS_LONE_CTA)
    gsPlanParts(const __grid_constant__ gsSpec spec, const gsState *state, gsState *partState,
                const uint32_t *blockKept, uint32_t *partOffset)
{
    __shared__ gsSpec part;
    for (uint32_t q = blockIdx.x; q < spec.nranks; q += gridDim.x) {
        uint32_t *to = (uint32_t *)(partState + q);
        if (threadIdx.x == 0)
            part = gsPartSpec(&spec, q);
        for (unsigned i = threadIdx.x; i < sizeof *state / sizeof *to; i += GS_LONE_CTA)
            to[i] = ((const uint32_t *)state)[i];
        __syncthreads();
        planBlocks(part, partState + q, blockKept, spec.blocks,
                   partOffset + gsRecordGroups(spec.value) * (gsPartStart(&spec, q) + q));
        __syncthreads(); /* the spec is the next part's */
    }
}

/*
 * 1. One thread adds the parts' plans to the call's.
 * Traffic: none per element.
 * Bad case: thousands of ranks.
 */
__global__ void gsAddParts(const __grid_constant__ gsSpec spec, gsState *state, const gsState *partState)
{
    for (uint32_t q = 0; q < spec.nranks; q++)
        gsCallAddPart(&state->call, &partState[q].call, q);
}

template <typename T> static Selection<T> selectionOf(gsReducer_t r, const gsInput &x)
{
    return {x, gsPairOf<gsRealOf<T>>(r->residual), r->keptBits, r->blockKept};
}

/* A rule over a's magnitudes: of what was prepared, a Real, or of g + e, of the gradient's type. */
template <typename T, bool ADD> static gsResult_t selectMagnitudes(gsReducer_t r, const gsInput &x, gsStream_t stream)
{
    const gsSpec &spec = r->spec;
    const Selection<T> selection = selectionOf<T>(r, x);
    if (spec.select == GS_SELECT_THRESHOLD)
        return gsLaunch("gsSelectThreshold", gsSelectThreshold<T, ADD>, spec.blocks, GS_CTA, stream, spec, r->state,
                        selection);
    return gsLaunch("gsSelectTopk", gsSelectTopk<T, ADD>, spec.blocks, GS_CTA, stream, spec, r->state, selection);
}

/* Until the offsets are made their memory holds the blocks' ties. */
template <typename Real> static gsResult_t selectLargest(gsReducer_t r, const gsInput &x, gsStream_t stream)
{
    const gsSpec &spec = r->spec;
    const Selection<Real> selection = selectionOf<Real>(r, x);
    GS_CHECK(gsLaunch("gsSelectLargest", gsSelectLargest<Real>, spec.blocks, GS_CTA, stream, spec, r->state, selection,
                      r->blockOffset));
    GS_CHECK(gsLaunch("gsShareTies", gsShareTies, 1, GS_LONE_CTA, stream, spec, r->state, r->blockOffset));
    return gsLaunch("gsKeepTies", gsKeepTies<Real>, spec.blocks, GS_CTA, stream, spec, r->state, selection,
                    r->blockOffset);
}

template <typename Real> static gsResult_t selectSteps(gsReducer_t r, const gsInput &x, gsStream_t stream)
{
    const Steps<Real> steps = {gsPairOf<Real>(r->previous), r->xi};
    return gsLaunch("gsSelectStep", gsSelectStep<Real>, r->spec.blocks, GS_CTA, stream, r->spec, r->state,
                    selectionOf<Real>(r, x), steps);
}

template <typename T> static gsResult_t selectAny(gsReducer_t r, const gsInput &x, gsStream_t stream)
{
    const gsSpec &spec = r->spec;
    if (spec.select == GS_SELECT_ALL)
        return gsLaunch("gsSelectAll", gsSelectAll<T>, spec.blocks, GS_CTA, stream, spec, r->state,
                        selectionOf<T>(r, x));
    return gsLaunch("gsSelectDrawn", gsSelectDrawn<T>, spec.blocks, GS_CTA, stream, spec, r->state,
                    selectionOf<T>(r, x));
}

template <typename T> static gsResult_t selectRows(gsReducer_t r, const gsInput &x, gsStream_t stream)
{
    const gsSpec &spec = r->spec;
    const uint64_t words = (gsRecordRows(spec.count, spec.width) + 31) / 32;
    GS_CHECK(r->comm->backend->fill(r->rowBits, 0, words * sizeof *r->rowBits, stream));
    GS_CHECK(gsLaunch("gsMarkRows", gsMarkRows<T>, spec.blocks, GS_CTA, stream, spec, r->state, selectionOf<T>(r, x),
                      r->rowBits));
    return gsLaunch("gsKeepRows", gsKeepRows, ((uint64_t)spec.blocks + GS_WARPS - 1) / GS_WARPS, GS_CTA, stream, spec,
                    r->rowBits, r->keptBits, r->blockKept);
}

static gsResult_t selectBlocks(gsReducer_t r, const gsInput &x, gsStream_t stream)
{
    switch (r->spec.select) {
    case GS_SELECT_THRESHOLD:
    case GS_SELECT_TOPK:
        if (!gsSpecAdds(&r->spec))
            return gsByReal(r->spec, [&](auto real) { return selectMagnitudes<decltype(real), false>(r, x, stream); });
        return gsByType(x.type, [&](auto t) { return selectMagnitudes<decltype(t), true>(r, x, stream); });
    case GS_SELECT_LARGEST:
        return gsByReal(r->spec, [&](auto real) { return selectLargest<decltype(real)>(r, x, stream); });
    case GS_SELECT_ROWS: return gsByType(x.type, [&](auto t) { return selectRows<decltype(t)>(r, x, stream); });
    case GS_SELECT_STEP: return gsByReal(r->spec, [&](auto real) { return selectSteps<decltype(real)>(r, x, stream); });
    default: return gsByType(x.type, [&](auto t) { return selectAny<decltype(t)>(r, x, stream); });
    }
}

gsResult_t gsCudaSelect(gsReducer_t r, const void *sendbuff, gsStream_t stream)
{
    const bool prepares = gsSpecPrepares(&r->spec);
    const gsInput x = prepares ? gsCompared(r, sendbuff) : gsGradient(r, sendbuff);
    GS_CHECK(gsCudaBegin(r, stream));
    if (prepares)
        GS_CHECK(gsCudaPrepare(r, sendbuff, stream));
    GS_CHECK(gsCudaMeasure(r, x, stream));
    GS_CHECK(gsCudaWatchCoding(r, x, stream));
    GS_CHECK(selectBlocks(r, x, stream));
    return gsLaunch("gsPlanRecord", gsPlanRecord, 1, GS_LONE_CTA, stream, r->spec, r->state, r->blockKept,
                    r->blockOffset);
}

gsResult_t gsCudaPlanParts(gsReducer_t r, gsStream_t stream)
{
    GS_CHECK(gsLaunch("gsPlanParts", gsPlanParts, r->spec.nranks, GS_LONE_CTA, stream, r->spec, r->state, r->partState,
                      r->blockKept, r->partOffset));
    return gsLaunch("gsAddParts", gsAddParts, 1, 1, stream, r->spec, r->state, r->partState);
}
