/* Which coordinates travel: kept bits, the residual to be, offsets by block, and the plan of the record. */
#include "block.cuh"
#include "kernels.cuh"
#include "launch.cuh"

/* The next residual, with the kept values left in place: pack takes them out as it reads them. */
struct Residuals {
    float *of[2];
    __device__ const float *current(const gsState *state) const
    {
        return state->phase ? of[1] : of[0];
    }
    __device__ float *next(const gsState *state) const
    {
        return state->phase ? of[0] : of[1];
    }
};

/* Tells the call that a non-finite value was seen: one atomic a warp, and only then. */
static __device__ __forceinline__ void reportNonFinite(gsState *state, bool bad)
{
    if (__any_sync(GS_ALL_LANES, bad) && gsLane() == 0)
        atomicOr(&state->call.nonFinite, 1u);
}

/* a = g + e, stored as the next residual. Returns whether all are finite. */
template <typename T>
static __device__ __forceinline__ bool addResidual(const T *g, const float *e, float *next, unsigned length, float *a)
{
    float residual[16];
    bool finite = true;
    gsLoadTile(g, length, a);
    gsLoadTile(e, length, residual);
#pragma unroll
    for (unsigned i = 0; i < 16; i++) {
        a[i] += residual[i];
        finite = finite && gsIsFinite(a[i]);
    }
    gsStoreTile(next, length, a);
    return finite;
}

/*
 * threshold. A CTA takes a block:
 * 1. a = g + e becomes the next residual.
 * 2. |a| > tau is kept.
 * 3. Kept bits and their count are stored.
 * Traffic: reads g and e, writes e, 12 bytes an element (bf16: 10), and an eighth of a byte for the bits.
 * Bad case: none; the work does not depend on what is kept.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, GS_CTAS_PER_SM)
    gsSelectThreshold(const __grid_constant__ gsSpec spec, gsState *state, const T *g, const Residuals residuals,
                      uint32_t *keptBits, uint32_t *blockKept)
{
    __shared__ uint32_t partial[2][GS_WARPS];
    gsCtaSum ctaSum(partial);
    const float tau = (float)state->call.tau, *e = residuals.current(state);
    float *next = residuals.next(state);
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        float a[16];
        uint32_t kept = 0;
        unsigned length = gsBlockLength(spec, b);
        bool finite = addResidual(g + b * GS_BLOCK, e + b * GS_BLOCK, next + b * GS_BLOCK, length, a);
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            kept |= (uint32_t)gsThresholdKeeps(a[i], tau) << i;
        reportNonFinite(state, !finite);
        gsStoreKept(keptBits + b * GS_BLOCK_WORDS, kept);
        uint32_t count = ctaSum(__popc(kept));
        if (threadIdx.x == 0)
            blockKept[b] = count;
    }
}

/*
 * chunk-topk. A CTA takes a block:
 * 1. a = g + e becomes the next residual.
 * 2. Bisection over the bit patterns of |a| finds the largest bound that k elements reach, and ends early where
 *    exactly k do.
 * 3. If more than k reach it, bisection over the index finds up to where elements equal to the bound are kept.
 * 4. Kept bits are stored.
 * What a last block lacks counts as zeros of the highest indices, which are kept last, that is never.
 * Traffic: as threshold.
 * Bad case: ties on the k-th place, 31 + 12 rounds of one barrier each instead of some 15.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, GS_CTAS_PER_SM)
    gsSelectTopk(const __grid_constant__ gsSpec spec, gsState *state, const T *g, const Residuals residuals,
                 uint32_t *keptBits, uint32_t *blockKept)
{
    __shared__ uint32_t partial[2][GS_WARPS];
    gsCtaSum ctaSum(partial);
    const float *e = residuals.current(state);
    float *next = residuals.next(state);
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        float a[16];
        uint32_t key[16];
        unsigned length = gsBlockLength(spec, b), k = gsTopkKept(spec.k, length);
        bool finite = addResidual(g + b * GS_BLOCK, e + b * GS_BLOCK, next + b * GS_BLOCK, length, a);
        reportNonFinite(state, !finite);
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            key[i] = gsMagnitudeBits(a[i]);

        /* At least k keys reach `bound`, `above` < k reach `limit`. */
        uint32_t bound = 0, limit = 0x80000000u, reached = GS_BLOCK, above = 0;
        while (reached > k && limit - bound > 1) {
            uint32_t middle = bound + (limit - bound) / 2, n = 0;
#pragma unroll
            for (unsigned i = 0; i < 16; i++)
                n += key[i] >= middle;
            n = ctaSum(n);
            if (n >= k)
                bound = middle, reached = n;
            else
                limit = middle, above = n;
        }

        /* Of the elements equal to the bound, those before index `end` are kept: k - above of them. */
        unsigned start = 0, end = GS_BLOCK;
        while (reached > k) {
            unsigned middle = start + (end - start) / 2, n = 0;
#pragma unroll
            for (unsigned i = 0; i < 16; i++)
                n += key[i] == bound && gsQuadAt(i / 4) + i % 4 < middle;
            n = above + ctaSum(n);
            if (n >= k)
                end = middle, reached = n;
            else
                start = middle;
        }

        uint32_t kept = 0;
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            kept |= (uint32_t)(key[i] > bound || (key[i] == bound && gsQuadAt(i / 4) + i % 4 < end)) << i;
        gsStoreKept(keptBits + b * GS_BLOCK_WORDS, kept);
        if (threadIdx.x == 0)
            blockKept[b] = k;
    }
}

/*
 * gspar. A CTA takes a block:
 * 1. A draw of four words for each quad decides with p = min(s |g|, 1).
 * 2. Kept bits and the count of each group are stored; group 1, of "shared" alone, are the kept with p < 1.
 * Traffic: reads g, 4 bytes an element (bf16: 2), and an eighth of a byte for the bits.
 * Bad case: none; about 25 integer instructions an element go into the draws.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, GS_CTAS_PER_SM)
    gsSelectGspar(const __grid_constant__ gsSpec spec, const gsState *state, const T *g, uint32_t *keptBits,
                  uint32_t *blockKept)
{
    __shared__ uint32_t partial[2][GS_WARPS];
    gsCtaSum ctaSum(partial);
    const float s = (float)state->call.s;
    const uint64_t step = state->step;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        float x[16];
        uint32_t kept = 0, drawn = 0;
        unsigned length = gsBlockLength(spec, b);
        gsLoadTile(g + b * GS_BLOCK, length, x);
#pragma unroll
        for (unsigned v = 0; v < GS_QUADS; v++) {
            gsPhilox4 draws = gsPhilox(spec.seed, (b * GS_BLOCK + gsQuadAt(v)) / 4, step, spec.rank, GS_DRAW_KEEP);
#pragma unroll
            for (unsigned c = 0; c < 4; c++) {
                kept |= (uint32_t)gsDrawKeeps(draws.word[c], gsGsparProbability(x[4 * v + c], s)) << (4 * v + c);
                drawn |= (uint32_t)(s * fabsf(x[4 * v + c]) < 1.0f) << (4 * v + c);
            }
        }
        kept &= gsPresent(length);
        gsStoreKept(keptBits + b * GS_BLOCK_WORDS, kept);
        if (spec.value != GS_VALUE_SHARED)
            drawn = 0;
        uint32_t counts = ctaSum((uint32_t)__popc(kept & ~drawn) | (uint32_t)__popc(kept & drawn) << 16);
        if (threadIdx.x == 0) {
            blockKept[b] = counts & 0xffffu;
            if (spec.value == GS_VALUE_SHARED)
                blockKept[spec.blocks + b] = counts >> 16;
        }
    }
}

/*
 * randk. A CTA takes a block:
 * 1. A draw of four words for each quad decides, alike on all ranks.
 * 2. Kept bits and their count are stored. g is read only to find what is not finite.
 * Traffic and bad case: as gspar.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, GS_CTAS_PER_SM)
    gsSelectRandk(const __grid_constant__ gsSpec spec, gsState *state, const T *g, uint32_t *keptBits,
                  uint32_t *blockKept)
{
    __shared__ uint32_t partial[2][GS_WARPS];
    gsCtaSum ctaSum(partial);
    const float probability = (float)state->call.s;
    const uint64_t step = state->step;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        float x[16];
        uint32_t kept = 0;
        bool finite = true;
        unsigned length = gsBlockLength(spec, b);
        gsLoadTile(g + b * GS_BLOCK, length, x);
#pragma unroll
        for (unsigned v = 0; v < GS_QUADS; v++) {
            gsPhilox4 draws = gsRandkDraws(spec.seed, (b * GS_BLOCK + gsQuadAt(v)) / 4, step);
#pragma unroll
            for (unsigned c = 0; c < 4; c++) {
                kept |= (uint32_t)gsDrawKeeps(draws.word[c], probability) << (4 * v + c);
                finite = finite && gsIsFinite(x[4 * v + c]);
            }
        }
        reportNonFinite(state, !finite);
        kept &= gsPresent(length);
        gsStoreKept(keptBits + b * GS_BLOCK_WORDS, kept);
        uint32_t count = ctaSum(__popc(kept));
        if (threadIdx.x == 0)
            blockKept[b] = count;
    }
}

/*
 * One CTA. For each group:
 * 1. Tiles of 8192 block counts, 8 to a thread, become offsets by an exclusive scan: in the thread, in the warp, over
 *    the warps, over the tiles.
 * 2. Behind all groups, thread 0 plans the record from the totals.
 * Traffic: 8 bytes a block of 4096.
 * Bad case: billions of elements, 128 tiles for 2^32 of them, some 2 us each.
 */
__global__ void __launch_bounds__(GS_LONE_CTA)
    gsPlanRecord(const __grid_constant__ gsSpec spec, gsState *state, const uint32_t *blockKept, uint32_t *blockOffset)
{
    constexpr unsigned EACH = 8, TILE = GS_LONE_CTA * EACH;
    __shared__ uint32_t warpTotal[GS_LONE_CTA / 32];
    __shared__ uint64_t kept[2]; /* thread 0's */
    if (threadIdx.x == 0)
        kept[1] = 0;
    for (int group = 0; group < gsRecordGroups(spec.value); group++) {
        const uint32_t *count = blockKept + (uint64_t)group * spec.blocks;
        uint32_t *offset = blockOffset + (uint64_t)group * ((uint64_t)spec.blocks + 1);
        uint64_t before = 0; /* the tile; sums inside a tile fit 32 bits */
        for (uint64_t tile = 0; tile < spec.blocks; tile += TILE) {
            uint64_t first = tile + threadIdx.x * EACH;
            uint32_t value[EACH], own = 0, inclusive;
#pragma unroll
            for (unsigned i = 0; i < EACH; i++) {
                value[i] = first + i < spec.blocks ? count[first + i] : 0;
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

template <typename T> static gsResult_t selectBlocks(gsReducer_t r, const T *g, gsStream_t stream)
{
    const gsSpec &spec = r->spec;
    const Residuals residuals = {{(float *)r->residual[0], (float *)r->residual[1]}};
    switch (spec.select) {
    case GS_SELECT_THRESHOLD:
        return gsLaunch("gsSelectThreshold", gsSelectThreshold<T>, spec.blocks, GS_CTA, stream, spec, r->state, g,
                        residuals, r->keptBits, r->blockKept);
    case GS_SELECT_TOPK:
        return gsLaunch("gsSelectTopk", gsSelectTopk<T>, spec.blocks, GS_CTA, stream, spec, r->state, g, residuals,
                        r->keptBits, r->blockKept);
    case GS_SELECT_GSPAR:
        return gsLaunch("gsSelectGspar", gsSelectGspar<T>, spec.blocks, GS_CTA, stream, spec, r->state, g, r->keptBits,
                        r->blockKept);
    default:
        return gsLaunch("gsSelectRandk", gsSelectRandk<T>, spec.blocks, GS_CTA, stream, spec, r->state, g, r->keptBits,
                        r->blockKept);
    }
}

gsResult_t gsCudaSelect(gsReducer_t r, const void *sendbuff, gsStream_t stream)
{
    GS_CHECK(gsCudaStatistics(r, sendbuff, stream));
    GS_CHECK(r->spec.type == GS_BFLOAT16 ? selectBlocks(r, (const gsBf16 *)sendbuff, stream)
                                         : selectBlocks(r, (const float *)sendbuff, stream));
    return gsLaunch("gsPlanRecord", gsPlanRecord, 1, GS_LONE_CTA, stream, r->spec, r->state, r->blockKept,
                    r->blockOffset);
}
