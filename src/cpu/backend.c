/* The CPU backend: its table, its memory, and the serial steps between the parallel stages. */
#include "../record.h"
#include "stages.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* From a huge page on, memory is aligned to huge pages and asks for them: a pass over residuals of 100 MB otherwise misses the TLB
 * at every 4 KiB. */
enum { ALIGNMENT = 256, HUGE_PAGE = 2 << 20 };

static gsResult_t allocate(void **pointer, size_t bytes)
{
    size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    size_t room = (bytes + alignment - 1) / alignment * alignment;
    *pointer = aligned_alloc(alignment, room);
    if (!*pointer)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no %zu bytes", bytes);
    if (alignment == HUGE_PAGE)
        madvise(*pointer, room, MADV_HUGEPAGE); /* a wish: without huge pages it is the same memory */
    return GS_SUCCESS;
}

static void release(void *pointer)
{
    free(pointer);
}

/* Host access waits for what the stream has enqueued. */
static gsResult_t copy(void *to, const void *from, size_t bytes, gsStream_t stream)
{
    gsResult_t result = gsStreamSynchronize(stream);
    if (bytes)
        memcpy(to, from, bytes);
    return result;
}

static gsResult_t fill(void *pointer, int byte, size_t bytes, gsStream_t stream)
{
    gsResult_t result = gsStreamSynchronize(stream);
    if (bytes)
        memset(pointer, byte, bytes);
    return result;
}

static gsResult_t prepare(gsReducer_t r)
{
    const gsCpuStages *stages;
    GS_CHECK(gsCpuStagesFind(&stages));
    r->cpuStages = stages;
    return GS_SUCCESS;
}

static const gsCpuStages *stagesOf(gsReducer_t r)
{
    return r->cpuStages;
}

/* Kept coordinates before each block, by group; totals in kept. Offsets past 2^32 - 1 stand still: the capacity is below. */
static void scanBlocks(gsReducer_t r, uint64_t kept[2])
{
    uint64_t blocks = r->spec.blocks;
    kept[0] = kept[1] = 0;
    for (int g = 0; g < gsRecordGroups(r->spec.value); g++) {
        uint32_t *offset = r->blockOffset + (uint64_t)g * (blocks + 1);
        const uint32_t *counts = r->blockKept + (uint64_t)g * blocks;
        for (uint64_t b = 0; b <= blocks; b++) {
            offset[b] = kept[g] < UINT32_MAX ? (uint32_t)kept[g] : UINT32_MAX;
            if (b < blocks)
                kept[g] += counts[b];
        }
    }
}

static gsResult_t selectStage(gsReducer_t r, const void *sendbuff, gsStream_t stream)
{
    uint64_t kept[2];
    (void)stream;
    gsCallBegin(&r->spec, r->state);
    if (gsCallWantsHistogram(&r->spec, r->state))
        stagesOf(r)->findTau(r, sendbuff);
    if (r->spec.select == GS_SELECT_GSPAR)
        stagesOf(r)->findScale(r, sendbuff);
    stagesOf(r)->select(r, sendbuff);
    scanBlocks(r, kept);
    gsCallPlan(&r->spec, r->state, kept);
    return GS_SUCCESS;
}

static gsResult_t packStage(gsReducer_t r, const void *sendbuff, void *record, gsStream_t stream)
{
    (void)stream;
    stagesOf(r)->pack(r, sendbuff, record);
    return GS_SUCCESS;
}

static uint32_t recordFault(gsReducer_t r, const uint8_t *record, uint32_t rank, uint32_t *nonFinite)
{
    gsRecordHeader h;
    gsRecordSegment segment;
    memcpy(&h, record, sizeof h);
    memcpy(&segment, record + sizeof h, sizeof segment);
    uint32_t fault = gsExpectedFault(&r->spec, r->state, &h, &segment, rank);
    if (fault)
        return fault;
    uint64_t key = gsChecksumKey(h.configHash, h.step, h.rank);
    if (stagesOf(r)->checksum(r, record, key, h.recordBytes) != h.checksum)
        return GS_FAULT_CHECKSUM;
    *nonFinite |= h.flags & GS_FLAG_NONFINITE;
    return gsRecordStructureFault(record, &h, &segment);
}

static gsResult_t validateStage(gsReducer_t r, const void *records, gsStream_t stream)
{
    gsState *state = r->state;
    (void)stream;
    state->verdict = GS_FAULT_NONE;
    state->verdictRank = 0;
    state->anyNonFinite = 0;
    for (uint32_t rank = 0; rank < r->spec.nranks && !state->verdict; rank++) {
        state->verdict =
            recordFault(r, (const uint8_t *)records + rank * r->spec.slotBytes, rank, &state->anyNonFinite);
        state->verdictRank = rank;
    }
    return GS_SUCCESS;
}

static void fillNaN(const gsSpec *spec, void *recvbuff)
{
    for (uint64_t i = 0; i < spec->count; i++)
        if (spec->type == GS_BFLOAT16)
            ((uint16_t *)recvbuff)[i] = GS_BF16_NAN;
        else
            ((uint32_t *)recvbuff)[i] = GS_F32_NAN;
}

static gsResult_t accumulateStage(gsReducer_t r, const void *records, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    (void)stream;
    if (r->state->verdict)
        return GS_SUCCESS;
    if (r->state->anyNonFinite)
        fillNaN(&r->spec, recvbuff);
    else
        stagesOf(r)->accumulate(r, records, recvbuff, op);
    return GS_SUCCESS;
}

static gsResult_t commitStage(gsReducer_t r, gsStream_t stream)
{
    (void)stream;
    gsCallCommit(&r->spec, r->state);
    return GS_SUCCESS;
}

static gsResult_t sumSlices(gsReducer_t r, const void *slices, uint64_t apart, void *out, uint64_t n, gsRedOp_t op,
                            gsStream_t stream)
{
    (void)stream;
    stagesOf(r)->sumSlices(r, slices, apart, out, n, op);
    return GS_SUCCESS;
}

static gsResult_t finishDense(gsReducer_t r, const void *sum, void *recvbuff, gsStream_t stream)
{
    (void)stream;
    r->state->verdict = GS_FAULT_NONE;
    r->state->anyNonFinite = !stagesOf(r)->allFinite(r, sum);
    if (r->state->anyNonFinite)
        fillNaN(&r->spec, recvbuff);
    else if (r->spec.count)
        memcpy(recvbuff, sum, r->spec.count * gsTypeBytes((gsDataType_t)r->spec.type));
    return GS_SUCCESS;
}

static gsResult_t scale(gsReducer_t r, float factor, gsStream_t stream)
{
    GS_CHECK(gsStreamSynchronize(stream));
    r->state->tau *= factor;
    if (r->spec.feedback)
        stagesOf(r)->scale(r, r->residual[r->state->phase], factor);
    return GS_SUCCESS;
}

const gsBackend gsCpuBackend = {
    .name = "cpu",
    .onDevice = 0,
    .prepare = prepare,
    .allocate = allocate,
    .release = release,
    .put = copy,
    .get = copy,
    .fill = fill,
    .select = selectStage,
    .pack = packStage,
    .validate = validateStage,
    .accumulate = accumulateStage,
    .commit = commitStage,
    .sumSlices = sumSlices,
    .finishDense = finishDense,
    .scale = scale,
};
