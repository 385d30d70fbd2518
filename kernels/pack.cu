/* Kept bits -> record: header and cleared sections, then values and indices, then the checksum. */
#include "block.cuh"
#include "kernels.cuh"
#include "launch.cuh"

/*
 * 1. Every thread clears its 16 bytes of the planned record: indices and signs are put together by atomics, and
 *    padding is zero.
 * 2. One thread writes header and segment into the first 80 bytes, which nobody clears.
 * Traffic: writes the payload's bytes once.
 * Bad case: none.
 */
__global__ void __launch_bounds__(GS_CTA)
    gsOpenRecord(const __grid_constant__ gsSpec spec, const gsState *state, uint8_t *record)
{
    const uint64_t bytes = state->call.sections.bytes, thread = (uint64_t)blockIdx.x * GS_CTA + threadIdx.x;
    for (uint64_t at = GS_RECORD_SECTIONS + 16 * thread; at < bytes; at += (uint64_t)gridDim.x * GS_CTA * 16)
        *(uint4 *)(record + at) = make_uint4(0, 0, 0, 0);
    if (thread == 0) {
        *(gsRecordHeader *)record = gsCallHeader(&spec, state);
        *(gsRecordSegment *)(record + sizeof(gsRecordHeader)) = gsCallSegment(&spec, &state->call);
    }
}

/* Puts `bits` at bit `at` of a section that starts at a word and is cleared; neighbours share words. */
static __device__ __forceinline__ void putBits(uint8_t *section, uint64_t at, uint32_t bits)
{
    uint32_t *word = (uint32_t *)section + at / 32, shift = (uint32_t)(at % 32);
    atomicOr(word, bits << shift);
    if (shift > 20 && bits >> (32 - shift)) /* 12 bits from 20 on reach into the next word */
        atomicOr(word + 1, bits >> (32 - shift));
}

/* Where the values come from: the residual to be, whatever the gradient's type, or the gradient itself. */
enum Source { FROM_RESIDUAL, FROM_GSPAR, FROM_RANDK };

/* What the kernel below needs of the reducer. */
struct Packing {
    const gsState *state;
    void *residual[2];
    const uint32_t *keptBits, *blockOffset;
    uint8_t *record;
};

/* The map's place for element i: 2 is minus, 1 plus. */
static __device__ __forceinline__ void putMap(uint8_t *map, uint64_t i, bool negative)
{
    atomicOr((uint32_t *)map + i / 16, (negative ? 2u : 1u) << (i % 16 * 2));
}

/* What a kept x sends, before its coding. */
template <Source SOURCE> static __device__ __forceinline__ float valueOf(const gsCall &call, int group, float x)
{
    if (SOURCE == FROM_GSPAR)
        return gsSaturate(gsGsparValue(x, (float)call.s, (float)call.inverse) * call.group[group].gain);
    if (SOURCE == FROM_RANDK)
        return gsSaturate(x * (float)call.inverse * call.group[group].gain);
    return x;
}

/* Codes x into its slot. With feedback what rounding takes away stays in the residual. */
template <Source SOURCE>
static __device__ __forceinline__ void putValue(const gsSpec &spec, uint64_t step, int group, uint8_t *values,
                                                uint64_t slot, uint64_t i, float x, float *residual)
{
    if (spec.value == GS_VALUE_SHARED && group == 1) {
        if (gsBits(x) >> 31)
            putBits(values, slot, 1u);
    } else if (spec.value != GS_VALUE_BF16) {
        ((float *)values)[slot] = x;
        if (SOURCE == FROM_RESIDUAL)
            residual[i] = 0.0f;
    } else if (SOURCE == FROM_RESIDUAL) {
        uint16_t coded = gsToBf16Value(x);
        ((uint16_t *)values)[slot] = coded;
        residual[i] = x - gsFromBf16(coded);
    } else {
        const gsPhilox4 draws = gsPhilox(spec.seed, i >> 2, step, spec.rank, GS_DRAW_ROUND); /* gsDraw, in registers */
        const uint32_t low = i & 1 ? draws.word[1] : draws.word[0], high = i & 1 ? draws.word[3] : draws.word[2];
        ((uint16_t *)values)[slot] = gsToBf16Stochastic(x, i & 2 ? high : low);
    }
}

/*
 * A CTA takes a block, a thread one word of its kept bits:
 * 1. The bits become a list of places, group 0 before group 1.
 * 2. The block table's entry is written.
 * 3. Neighbouring threads take neighbouring coordinates of the list: the j-th kept has a slot in the record or is
 *    left out (overflow, thinning); its value is gathered and coded, its index put into place by 12 bits.
 * Traffic: reads an eighth of a byte an element, and for each kept coordinate a sector of 32 bytes (with feedback,
 *   writes it too) and its payload.
 * Bad case: everything kept; lists, gathers and stores are then still consecutive, but the index words' atomics take
 *   turns, 3 words to 8 neighbours.
 */
template <Source SOURCE, typename T>
__global__ void __launch_bounds__(GS_BLOCK_WORDS)
    gsPackBlocks(const __grid_constant__ gsSpec spec, const Packing packing, const T *gradient)
{
    __shared__ gsCall call;
    __shared__ uint32_t list[GS_BLOCK];
    __shared__ uint32_t warpKept[GS_BLOCK_WORDS / 32];
    float *residual = (float *)packing.residual[packing.state->phase ^ 1u];
    const int groups = gsRecordGroups(spec.value);
    for (unsigned i = threadIdx.x; i < sizeof call / sizeof(uint32_t); i += GS_BLOCK_WORDS)
        ((uint32_t *)&call)[i] = ((const uint32_t *)&packing.state->call)[i];
    __syncthreads();

    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        const uint64_t first = b * GS_BLOCK;
        uint32_t word = packing.keptBits[b * GS_BLOCK_WORDS + threadIdx.x], drawn = 0;
        if constexpr (SOURCE == FROM_GSPAR) {
            for (uint32_t left = groups == 2 ? word : 0; left; left &= left - 1) {
                uint64_t i = first + threadIdx.x * 32 + __ffs((int)left) - 1;
                if (!((float)call.s * fabsf(gsToFloat(gradient[i])) >= 1.0f))
                    drawn |= left & -left;
            }
        }
        const uint32_t kept = gsListKept(list, warpKept, word & ~drawn, drawn), kept0 = kept & 0xffffu,
                       all = kept0 + (kept >> 16);
        const uint32_t *offset1 = packing.blockOffset + (uint64_t)spec.blocks + 1;
        const uint64_t before0 = packing.blockOffset[b], before1 = groups == 2 ? offset1[b] : 0;
        const bool map = (call.flags & GS_FLAG_MAP) != 0;
        if (spec.layout == GS_LAYOUT_GLOBAL && threadIdx.x < (unsigned)(map ? 1 : groups)) {
            const int group = (int)threadIdx.x;
            uint32_t *table = (uint32_t *)(packing.record + call.sections.group[group].table);
            table[b] = (uint32_t)gsCallSlot(&spec, &call, group, group ? before1 : before0);
            if (b + 1 == spec.blocks)
                table[b + 1] = (uint32_t)call.group[group].sent;
        }
        for (uint32_t n = threadIdx.x; n < all; n += GS_BLOCK_WORDS) {
            const int group = n >= kept0;
            const uint64_t j = group ? before1 + (n - kept0) : before0 + n, slot = gsCallSlot(&spec, &call, group, j);
            if (gsCallSlot(&spec, &call, group, j + 1) == slot)
                continue;
            const uint64_t i = first + list[n];
            const float x =
                valueOf<SOURCE>(call, group, SOURCE == FROM_RESIDUAL ? residual[i] : gsToFloat(gradient[i]));
            if (group == 1 && map) {
                putMap(packing.record + call.sections.group[1].values, i, x < 0.0f);
                continue;
            }
            putValue<SOURCE>(spec, call.step, group, packing.record + call.sections.group[group].values, slot, i, x,
                             residual);
            if (spec.layout != GS_LAYOUT_MASK)
                putBits(packing.record + call.sections.group[group].indices, 12 * slot, list[n]);
        }
        __syncthreads(); /* the list is the next block's */
    }
}

/*
 * 1. Each thread adds the terms of its words, 16 bytes at a time.
 * 2. Warps add theirs to the header's checksum, which was left 0 and is the one word not counted.
 * Traffic: reads the payload's bytes once.
 * Bad case: small records, a launch for little.
 */
__global__ void __launch_bounds__(GS_CTA)
    gsSealRecord(const __grid_constant__ gsSpec spec, const gsState *state, uint8_t *record)
{
    const uint64_t key = gsChecksumKey(spec.configHash, state->step, spec.rank), words = state->call.sections.bytes / 8;
    uint64_t sum = 0;
    for (uint64_t j = 2 * ((uint64_t)blockIdx.x * GS_CTA + threadIdx.x); j < words;
         j += 2 * (uint64_t)gridDim.x * GS_CTA) {
        ulonglong2 pair = *(const ulonglong2 *)(record + 8 * j);
        sum += gsChecksumTerm(key, j, pair.x);
        if (j + 1 != GS_RECORD_CHECKSUM_WORD)
            sum += gsChecksumTerm(key, j + 1, pair.y);
    }
    sum = gsWarpSum(sum);
    if (gsLane() == 0 && sum)
        atomicAdd((unsigned long long *)record + GS_RECORD_CHECKSUM_WORD, sum);
}

template <Source SOURCE, typename T>
static gsResult_t packBlocks(gsReducer_t r, const T *gradient, uint8_t *record, gsStream_t stream)
{
    const Packing packing = {r->state, {r->residual[0], r->residual[1]}, r->keptBits, r->blockOffset, record};
    return gsLaunch("gsPackBlocks", gsPackBlocks<SOURCE, T>, r->spec.blocks, GS_BLOCK_WORDS, stream, r->spec, packing,
                    gradient);
}

template <typename T>
static gsResult_t packGradient(gsReducer_t r, const T *gradient, uint8_t *record, gsStream_t stream)
{
    if (r->spec.feedback)
        return packBlocks<FROM_RESIDUAL, float>(r, nullptr, record, stream);
    if (r->spec.select == GS_SELECT_GSPAR)
        return packBlocks<FROM_GSPAR>(r, gradient, record, stream);
    return packBlocks<FROM_RANDK>(r, gradient, record, stream);
}

gsResult_t gsCudaPack(gsReducer_t r, const void *sendbuff, void *record, gsStream_t stream)
{
    /* How long the record will be is known on the device alone: grids are for a full one. */
    const uint64_t ctas = (r->spec.slotBytes + GS_RECORD_PART - 1) / GS_RECORD_PART;
    GS_CHECK(gsLaunch("gsOpenRecord", gsOpenRecord, ctas, GS_CTA, stream, r->spec, r->state, (uint8_t *)record));
    GS_CHECK(r->spec.type == GS_BFLOAT16 ? packGradient(r, (const gsBf16 *)sendbuff, (uint8_t *)record, stream)
                                         : packGradient(r, (const float *)sendbuff, (uint8_t *)record, stream));
    return gsLaunch("gsSealRecord", gsSealRecord, ctas, GS_CTA, stream, r->spec, r->state, (uint8_t *)record);
}
