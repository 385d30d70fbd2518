/* Records in rank order -> sum -> recvbuff; then the commit. */
#include "block.cuh"
#include "kernels.cuh"
#include "launch.cuh"

/* One group of one rank's record, as far as it concerns a block: `count` slots from `first` on. */
struct Run {
    const uint8_t *values, *indices;
    uint64_t first;
    uint32_t count;
    uint32_t signs;  /* values are one bit each, */
    uint32_t map;    /* values are two bits for every element */
    float magnitude; /* set for minus this */
};

struct Coordinate {
    uint32_t place;
    float value;
};

/* The part of run q = rank groups + group that lies in block b. The records are valid. */
template <int LAYOUT>
static __device__ Run findRun(const gsSpec &spec, const gsState *state, const uint32_t *blockOffset,
                              const uint8_t *records, uint64_t q, uint32_t b)
{
    const int groups = gsRecordGroups(spec.value), group = (int)(q % groups);
    const uint8_t *record = records + q / groups * spec.slotBytes;
    const gsRecordHeader *h = (const gsRecordHeader *)record;
    const gsRecordSegment *segment = (const gsRecordSegment *)(record + sizeof *h);
    uint64_t last;
    const gsRecordShape shape = gsRecordShapeOf(h, segment);
    const gsRecordSections sections = gsRecordLayout(&shape);
    const gsRecordGroup part = group ? sections.group[1] : sections.group[0];
    Run run;
    run.values = record + part.values;
    run.indices = record + part.indices;
    run.signs = (uint32_t)group;
    run.magnitude = segment->scale;
    run.map = group && (h->flags & GS_FLAG_MAP);
    if (run.map) { /* a digit for every element */
        run.first = (uint64_t)b * GS_BLOCK;
        last = run.first + gsBlockLength(spec, b);
    } else if (LAYOUT == GS_LAYOUT_GLOBAL) {
        const uint32_t *table = (const uint32_t *)(record + part.table);
        run.first = table[b];
        last = table[b + 1];
    } else if (LAYOUT == GS_LAYOUT_CHUNKED) {
        run.first = (uint64_t)b * spec.k;
        last = run.first + gsTopkKept(spec.k, gsBlockLength(spec, b));
    } else { /* the own mask is everybody's */
        run.first = gsCallSlot(&spec, &state->call, 0, blockOffset[b]);
        last = gsCallSlot(&spec, &state->call, 0, blockOffset[b + 1]);
    }
    run.count = (uint32_t)(last - run.first);
    return run;
}

/* Coordinate n of a run, if it has that many. With a mask the list has the places. */
template <int LAYOUT>
static __device__ __forceinline__ Coordinate coordinate(const gsSpec &spec, const Run &run, uint32_t n,
                                                        const uint32_t *list)
{
    Coordinate c = {0, 0.0f};
    if (n >= run.count)
        return c;
    const uint64_t slot = run.first + n;
    if (run.map) {
        const uint32_t digit = run.values[slot / 4] >> (slot % 4 * 2) & 3u;
        return {n, gsTernaryDecode(digit, run.magnitude)};
    }
    c.place = LAYOUT == GS_LAYOUT_MASK ? list[n] : gsReadIndex12(run.indices, slot);
    if (run.signs)
        c.value = run.values[slot / 8] >> (slot % 8) & 1 ? -run.magnitude : run.magnitude;
    else if (spec.value == GS_VALUE_BF16)
        c.value = gsFromBf16(((const uint16_t *)run.values)[slot]);
    else
        c.value = ((const float *)run.values)[slot];
    return c;
}

/* The places of the mask's sent coordinates in block b, by slot. Ends behind a barrier. */
static __device__ void listMask(const gsSpec &spec, const gsCall *call, const uint32_t *keptBits, uint32_t before,
                                uint64_t b, uint32_t *list, uint32_t *warpKept, uint32_t *sent)
{
    const uint32_t word = threadIdx.x < GS_BLOCK_WORDS ? keptBits[b * GS_BLOCK_WORDS + threadIdx.x] : 0;
    const uint32_t kept = gsListKept(list, warpKept, word, 0);
    const uint64_t first = gsCallSlot(&spec, call, 0, before);
    for (uint32_t n = threadIdx.x; n < kept; n += GS_CTA) {
        const uint64_t j = (uint64_t)before + n, slot = gsCallSlot(&spec, call, 0, j);
        if (gsCallSlot(&spec, call, 0, j + 1) > slot)
            sent[slot - first] = list[n];
    }
    __syncthreads();
}

/*
 * A CTA takes a block:
 * 1. Its sums start at 0 in shared memory.
 * 2. For GS_RUNS runs at a time, a run being one group of one rank's record, a thread each finds the slots that
 *    belong to the block.
 * 3. Run after run, in rank order with a barrier between, each coordinate is added to its place; the next run's first
 *    coordinates are loaded meanwhile.
 * 4. Sums are scaled and stored, wide.
 * After a bad verdict nothing is written; after a non-finite record every element is NaN.
 * Traffic: writes 4 bytes an element (bf16: 2) and reads each record once.
 * Bad case: many ranks with few slots a block, a barrier and a load's latency each.
 */
template <typename T, int LAYOUT>
__global__ void __launch_bounds__(GS_CTA, GS_CTAS_PER_SM)
    gsAccumulate(const __grid_constant__ gsSpec spec, const gsState *state, const uint32_t *keptBits,
                 const uint32_t *blockOffset, const uint8_t *records, float scale, T *out)
{
    constexpr bool MASK = LAYOUT == GS_LAYOUT_MASK;
    __shared__ float4 sums[GS_BLOCK / 4];
    __shared__ Run run[GS_RUNS];
    __shared__ uint32_t sent[MASK ? GS_BLOCK : 1];
    __shared__ uint32_t warpKept[GS_WARPS];
    float *sum = (float *)sums;
    const uint64_t runs = (uint64_t)spec.nranks * gsRecordGroups(spec.value);
    if (state->fault != GS_FAULT_NONE || state->verdict != GS_FAULT_NONE)
        return;
    if (state->anyNonFinite) {
        for (uint64_t i = (uint64_t)blockIdx.x * GS_CTA + threadIdx.x; i < spec.count;
             i += (uint64_t)gridDim.x * GS_CTA)
            out[i] = gsVector<T>::nan();
        return;
    }
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        if constexpr (MASK) /* the sums' memory first serves as the list of the kept */
            listMask(spec, &state->call, keptBits, blockOffset[b], b, (uint32_t *)sums, warpKept, sent);
#pragma unroll
        for (unsigned v = 0; v < GS_QUADS; v++)
            sums[v * GS_CTA + threadIdx.x] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        for (uint64_t q0 = 0; q0 < runs; q0 += GS_RUNS) {
            const unsigned found = runs - q0 < GS_RUNS ? (unsigned)(runs - q0) : GS_RUNS;
            if (threadIdx.x < found)
                run[threadIdx.x] = findRun<LAYOUT>(spec, state, blockOffset, records, q0 + threadIdx.x, (uint32_t)b);
            __syncthreads();
            Coordinate next = coordinate<LAYOUT>(spec, run[0], threadIdx.x, sent);
            for (unsigned q = 0; q < found; q++) {
                const Coordinate now = next;
                const uint32_t count = run[q].count;
                if (q + 1 < found)
                    next = coordinate<LAYOUT>(spec, run[q + 1], threadIdx.x, sent);
                if (threadIdx.x < count)
                    sum[now.place] += now.value;
                for (uint32_t n = threadIdx.x + GS_CTA; n < count; n += GS_CTA) {
                    const Coordinate c = coordinate<LAYOUT>(spec, run[q], n, sent);
                    sum[c.place] += c.value;
                }
                __syncthreads();
            }
        }
        float x[16];
#pragma unroll
        for (unsigned v = 0; v < GS_QUADS; v++) {
            gsVector<float>::unpack(sums[gsQuadAt(v) / 4], x + 4 * v);
#pragma unroll
            for (unsigned c = 0; c < 4; c++)
                x[4 * v + c] *= scale;
        }
        gsStoreTile(out + b * GS_BLOCK, gsBlockLength(spec, (uint32_t)b), x);
        __syncthreads(); /* the sums are the next block's */
    }
}

/*
 * 1. One thread ends the call: phase, step, counters.
 * Traffic: none per element.
 * Bad case: none.
 */
__global__ void gsCommitCall(const __grid_constant__ gsSpec spec, gsState *state)
{
    gsCallCommit(&spec, state);
}

template <typename T, int LAYOUT>
static gsResult_t accumulate(gsReducer_t r, const void *records, void *recvbuff, float scale, gsStream_t stream)
{
    return gsLaunch("gsAccumulate", gsAccumulate<T, LAYOUT>, r->spec.blocks, GS_CTA, stream, r->spec, r->state,
                    r->keptBits, r->blockOffset, (const uint8_t *)records, scale, (T *)recvbuff);
}

template <typename T>
static gsResult_t accumulateLayout(gsReducer_t r, const void *records, void *recvbuff, float scale, gsStream_t stream)
{
    switch (r->spec.layout) {
    case GS_LAYOUT_GLOBAL: return accumulate<T, GS_LAYOUT_GLOBAL>(r, records, recvbuff, scale, stream);
    case GS_LAYOUT_CHUNKED: return accumulate<T, GS_LAYOUT_CHUNKED>(r, records, recvbuff, scale, stream);
    default: return accumulate<T, GS_LAYOUT_MASK>(r, records, recvbuff, scale, stream);
    }
}

gsResult_t gsCudaAccumulate(gsReducer_t r, const void *records, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    const float scale = op == GS_AVG ? 1.0f / (float)r->spec.nranks : 1.0f; /* times 1 changes no bits */
    return r->spec.type == GS_BFLOAT16 ? accumulateLayout<gsBf16>(r, records, recvbuff, scale, stream)
                                       : accumulateLayout<float>(r, records, recvbuff, scale, stream);
}

gsResult_t gsCudaCommit(gsReducer_t r, gsStream_t stream)
{
    return gsLaunch("gsCommitCall", gsCommitCall, 1, 1, stream, r->spec, r->state);
}
