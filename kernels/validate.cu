/* All records -> verdict: nothing is written anywhere else before every byte that will be used has been checked. */
#include "kernels.cuh"
#include "launch.cuh"
#include "rows.cuh"

/*
 * While the checks run, the state's verdict is rank << 8 | turn of the lowest rank's first fault. Turns are the faults in the
 * order of the checks: header, checksum, values, table, index. A header has one fault.
 */
#define NO_VERDICT 0xffffffffu

static __device__ __forceinline__ uint32_t turnOf(uint32_t fault)
{
    return fault == GS_FAULT_VALUE ? (uint32_t)GS_FAULT_TABLE : fault < GS_FAULT_TABLE ? fault : fault + 1;
}

static __device__ __forceinline__ uint32_t faultOf(uint32_t turn)
{
    return turn == GS_FAULT_TABLE ? (uint32_t)GS_FAULT_VALUE : turn < GS_FAULT_TABLE ? turn : turn - 1;
}

static __device__ __forceinline__ void report(gsState *state, uint32_t rank, uint32_t fault)
{
    atomicMin(&state->verdict, rank << 8 | turnOf(fault));
}

static __device__ __forceinline__ uint32_t headerFault(const gsSpec &spec, const gsState *state, const uint8_t *record,
                                                       uint32_t rank)
{
    return gsExpectedFault(&spec, state, (const gsRecordHeader *)record,
                           (const gsRecordSegment *)(record + sizeof(gsRecordHeader)), rank);
}

/* Whether the CTA may look into a record's sections: only then are they known to lie inside the slot. */
static __device__ __forceinline__ bool hasGoodHeader(const gsSpec &spec, const gsState *state, const uint8_t *record,
                                                     uint32_t rank)
{
    return __syncthreads_or(threadIdx.x == 0 && headerFault(spec, state, record, rank) != GS_FAULT_NONE) == 0;
}

/*
 * One CTA.
 * 1. Thread 0 clears the verdict.
 * 2. Each thread checks the headers of its ranks and clears their sums.
 * Traffic: none per element.
 * Bad case: thousands of ranks, a header a thread at a time.
 */
__global__ void __launch_bounds__(GS_LONE_CTA)
    gsCheckHeaders(const __grid_constant__ gsSpec spec, gsState *state, const uint8_t *records, uint64_t *sums)
{
    if (threadIdx.x == 0) {
        state->verdict = NO_VERDICT;
        state->verdictRank = 0;
        state->anyNonFinite = 0;
    }
    __syncthreads();
    for (uint32_t rank = threadIdx.x; rank < spec.nranks; rank += GS_LONE_CTA) {
        const uint8_t *record = records + rank * spec.slotBytes;
        uint32_t fault = headerFault(spec, state, record, rank);
        if (fault != GS_FAULT_NONE)
            report(state, rank, fault);
        else if (((const gsRecordHeader *)record)->flags & GS_FLAG_NONFINITE)
            atomicOr(&state->anyNonFinite, 1u);
        if (sums)
            sums[rank] = 0;
    }
}

/*
 * `parts` CTAs a record.
 * 1. Threads add the terms of their words, 16 bytes at a time.
 * 2. The CTA's sum goes to the rank's; a CTA that has a record to itself compares at once.
 * Traffic: reads all records once.
 * Bad case: more than half as many ranks as blocks; then there is no room for the ranks' sums and each record has one
 *   CTA, which is enough, since there are many and they are short.
 */
__global__ void __launch_bounds__(GS_CTA) gsSumRecords(const __grid_constant__ gsSpec spec, gsState *state,
                                                       const uint8_t *records, uint32_t parts, uint64_t *sums)
{
    __shared__ uint64_t partial[GS_WARPS];
    for (uint64_t cta = blockIdx.x; cta < (uint64_t)parts * spec.nranks; cta += gridDim.x) {
        const uint32_t rank = (uint32_t)(cta / parts), part = (uint32_t)(cta % parts);
        const uint8_t *record = records + rank * spec.slotBytes;
        const gsRecordHeader *h = (const gsRecordHeader *)record;
        if (!hasGoodHeader(spec, state, record, rank))
            continue;
        const uint64_t key = gsChecksumKey(h->configHash, h->step, h->rank), words = h->recordBytes / 8;
        uint64_t sum = 0;
        for (uint64_t j = 2 * ((uint64_t)part * GS_CTA + threadIdx.x); j < words; j += 2 * (uint64_t)parts * GS_CTA) {
            ulonglong2 pair = *(const ulonglong2 *)(record + 8 * j);
            sum += gsChecksumTerm(key, j, pair.x);
            if (j + 1 != GS_RECORD_CHECKSUM_WORD)
                sum += gsChecksumTerm(key, j + 1, pair.y);
        }
        sum = gsWarpSum(sum);
        if (gsLane() == 0)
            partial[gsWarp()] = sum;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (unsigned w = 1; w < GS_WARPS; w++)
                sum += partial[w];
            if (sums)
                atomicAdd((unsigned long long *)&sums[rank], sum);
            else if (sum != h->checksum)
                report(state, rank, GS_FAULT_CHECKSUM);
        }
        __syncthreads();
    }
}

/* Rows have as many elements in a block of `length` as it has slots, and none is behind the last. Lanes share the words. */
static __device__ __forceinline__ uint32_t rowsFault(const gsRecordShape &shape, const uint8_t *rows, uint32_t slots,
                                                     uint32_t length, uint64_t b)
{
    const gsBlockRows cut(shape.aux, b);
    const uint64_t n = gsRecordRows(shape.of.chosen, shape.aux);
    uint32_t found = 0;
    for (unsigned w = gsLane(); w < GS_BLOCK_WORDS; w += 32)
        found += (uint32_t)__popc(cut.kept(rows, length, w));
    if (__reduce_add_sync(GS_ALL_LANES, found) != slots)
        return GS_FAULT_INDEX;
    return b == 0 && n % 8 && rows[n / 8] >> n % 8 ? GS_FAULT_INDEX : GS_FAULT_NONE;
}

/* Elements of block b of a record of `count` that slots may be about. */
static __device__ __forceinline__ uint32_t recordLength(const gsSpec &spec, uint64_t count, uint64_t b)
{
    const uint64_t left = count - b * GS_BLOCK;
    if (spec.list)
        return spec.list[b].whole ? 0 : spec.list[b].length;
    return left < GS_BLOCK ? (uint32_t)left : GS_BLOCK;
}

/* One block's slots in one group of a record; `slots` in all. Lanes of a warp share the indices. */
static __device__ __forceinline__ uint32_t blockFault(const gsSpec &spec, const gsRecordShape &shape,
                                                      const uint8_t *record, const gsRecordGroup &group, uint64_t slots,
                                                      uint64_t b)
{
    const uint64_t blocks = shape.of.blocks;
    const uint32_t length = b < blocks ? recordLength(spec, ((const gsRecordHeader *)record)->count, b) : 0;
    uint64_t first, last;
    if (gsLayoutHasTable(spec.layout)) {
        const uint32_t *table = (const uint32_t *)(record + group.table);
        first = table[b];
        last = b < blocks ? table[b + 1] : first;
        if (first > last || last > slots || last - first > length || (b == 0 && first != 0) ||
            (b + 1 >= blocks && last != slots))
            return GS_FAULT_TABLE;
    } else { /* chunked */
        first = b < blocks ? gsBlockPlace(&spec, b) : 0;
        last = slots ? first + gsTopkKept(spec.k, length) : first;
    }
    if (spec.layout == GS_LAYOUT_ROWS)
        return rowsFault(shape, record + group.indices, (uint32_t)(last - first), length, b);
    uint32_t fault = GS_FAULT_NONE;
    for (uint64_t j = first + gsLane(); j < last; j += 32) {
        uint32_t index = gsReadIndex12(record + group.indices, j);
        if (index >= length || (j > first && gsReadIndex12(record + group.indices, j - 1) >= index))
            fault = GS_FAULT_INDEX;
    }
    return fault;
}

/* What every rank multiplies by must be a number: the references' coefficients, the blocks' scales. Lanes share the former. */
static __device__ __forceinline__ uint32_t numberFault(const gsRecordShape &shape, const uint8_t *record,
                                                       const gsRecordGroup &group, uint64_t b)
{
    bool good = true;
    if (b == 0 && (shape.flags & GS_FLAG_REFERENCES) && gsLane() < GS_MAX_POOL)
        good = gsFinite(((const double *)(record + gsRecordTableEnd(shape.of.tensors)))[gsLane()]);
    const uint32_t each = shape.value == GS_VALUE_BOOK ? GS_BOOK : 1;
    if (gsLane() < each && each * b + gsLane() < gsRecordScaleBytes(&shape) / sizeof(float)) {
        const float scale = ((const float *)(record + group.scales))[each * b + gsLane()];
        good = good && gsIsFinite(scale) && (each > 1 || !(scale < 0.0f));
    }
    return good ? GS_FAULT_NONE : GS_FAULT_VALUE;
}

/* Whether a part's share of the tensors in a record's segment table are the own ones. Threads share them. */
static __device__ __forceinline__ bool hasOwnTensors(const gsSpec &spec, const uint8_t *record, uint64_t part,
                                                     uint32_t parts)
{
    const uint2 *theirs = (const uint2 *)(record + GS_RECORD_SECTIONS), *own = (const uint2 *)spec.entries;
    bool same = true;
    for (uint64_t i = part * GS_CTA + threadIdx.x; i < 2ull * spec.tensors; i += (uint64_t)parts * GS_CTA)
        same = same && theirs[i].x == own[i].x && theirs[i].y == own[i].y;
    return same;
}

/*
 * A CTA takes eight blocks of a record, a warp each: 1. coefficients and the block's scale, 2. the block table's two entries,
 * 3. the indices between them. A silent rank's record has nothing of these. 4. All share the entries of a list's tensors.
 * Traffic: reads scales, tables and indices, 1.5 bytes a slot, twice from the cache.
 * Bad case: many ranks with few slots a block, where most lanes idle.
 */
__global__ void __launch_bounds__(GS_CTA)
    gsCheckSections(const __grid_constant__ gsSpec spec, gsState *state, const uint8_t *records, uint32_t parts)
{
    for (uint64_t cta = blockIdx.x; cta < (uint64_t)parts * spec.nranks; cta += gridDim.x) {
        const uint32_t rank = (uint32_t)(cta / parts);
        const uint8_t *record = records + rank * spec.slotBytes;
        const gsRecordHeader *h = (const gsRecordHeader *)record;
        const uint64_t b = cta % parts * GS_WARPS + gsWarp();
        if (!hasGoodHeader(spec, state, record, rank))
            continue;
        if (!hasOwnTensors(spec, record, cta % parts, parts))
            report(state, rank, GS_FAULT_LAYOUT);
        const gsRecordExtent extent = gsSpecExtent(&spec, h->count);
        const gsRecordShape shape = gsRecordShapeOf(h, (const gsRecordSegment *)(record + sizeof *h), &extent);
        const gsRecordSections sections = gsRecordLayout(&shape);
        if (h->flags & GS_FLAG_SKIP ||
            b >= (shape.of.blocks ? shape.of.blocks : 1)) /* of no blocks there is a table of one entry */
            continue;
        const uint32_t number = numberFault(shape, record, sections.group[0], b);
        if (number != GS_FAULT_NONE)
            report(state, rank, number);
        if (spec.layout == GS_LAYOUT_MASK || spec.layout == GS_LAYOUT_ALL)
            continue; /* no indices */
#pragma unroll
        for (int group = 0; group < 2; group++) {
            if (group >= (h->flags & GS_FLAG_MAP ? 1 : gsRecordGroups(spec.value)))
                break;
            uint32_t fault = blockFault(spec, shape, record, sections.group[group], shape.slots[group], b);
            if (fault != GS_FAULT_NONE)
                report(state, rank, fault);
        }
    }
}

/*
 * One CTA.
 * 1. Each thread compares the sums of its ranks with the headers of those that have a sum.
 * 2. Thread 0 takes the verdict apart.
 * Traffic: none per element.
 * Bad case: none.
 */
__global__ void __launch_bounds__(GS_LONE_CTA)
    gsJudge(const __grid_constant__ gsSpec spec, gsState *state, const uint8_t *records, const uint64_t *sums)
{
    for (uint32_t rank = threadIdx.x; sums && rank < spec.nranks; rank += GS_LONE_CTA) {
        const uint8_t *record = records + rank * spec.slotBytes;
        if (headerFault(spec, state, record, rank) == GS_FAULT_NONE &&
            ((const gsRecordHeader *)record)->checksum != sums[rank])
            report(state, rank, GS_FAULT_CHECKSUM);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t verdict = state->verdict;
        state->verdict = verdict == NO_VERDICT ? (uint32_t)GS_FAULT_NONE : faultOf(verdict & 0xffu);
        state->verdictRank = verdict == NO_VERDICT ? 0 : verdict >> 8;
        if (verdict != NO_VERDICT)
            state->anyNonFinite = 0;
    }
}

gsResult_t gsCudaValidate(gsReducer_t r, const void *records, gsStream_t stream)
{
    const gsSpec &spec = r->spec;
    const uint8_t *bytes = (const uint8_t *)records;
    /* The offsets are made, so the block counts' memory is free, and mostly large enough for a sum a rank. Where records are of
     * parts, the counts are of the own part. */
    const uint32_t counts = spec.parts ? gsPartBlocks(&spec, spec.rank) : spec.blocks;
    uint64_t *sums = 2 * (uint64_t)spec.nranks <= counts ? (uint64_t *)r->blockKept : nullptr;
    const uint32_t sumParts = sums ? (uint32_t)((spec.slotBytes + GS_RECORD_PART - 1) / GS_RECORD_PART) : 1;
    const uint32_t blockParts = spec.blocks / GS_WARPS + 1;
    GS_CHECK(gsLaunch("gsCheckHeaders", gsCheckHeaders, 1, GS_LONE_CTA, stream, spec, r->state, bytes, sums));
    GS_CHECK(gsLaunch("gsSumRecords", gsSumRecords, (uint64_t)sumParts * spec.nranks, GS_CTA, stream, spec, r->state,
                      bytes, sumParts, sums));
    const bool places = gsLayoutHasTable(spec.layout) || gsLayoutHasIndices(spec.layout);
    if (places || gsValueIsScaled(spec.value) || spec.pool || spec.tensors)
        GS_CHECK(gsLaunch("gsCheckSections", gsCheckSections, (uint64_t)blockParts * spec.nranks, GS_CTA, stream, spec,
                          r->state, bytes, blockParts));
    return gsLaunch("gsJudge", gsJudge, 1, GS_LONE_CTA, stream, spec, r->state, bytes, sums);
}
