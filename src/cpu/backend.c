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
    GS_CHECK(gsCpuStagesFind(r->spec.wide ? 64 : 32, &stages));
    r->cpuStages = stages;
    return GS_SUCCESS;
}

static const gsCpuStages *stagesOf(gsReducer_t r)
{
    return r->cpuStages;
}

/* Kept coordinates before each block of a reducer or a part of one, by group; totals in kept. Offsets past 2^32 - 1 stand still: the
 * capacity is below. */
static void scanBlocks(gsReducer_t r, const gsSpec *s, uint32_t *offset, uint64_t kept[2])
{
    kept[0] = kept[1] = 0;
    for (int g = 0; g < gsRecordGroups(s->value); g++, offset += s->blocks + 1) {
        const uint32_t *counts = r->blockKept + (uint64_t)g * r->spec.blocks;
        for (uint64_t b = 0; b <= s->blocks; b++) {
            offset[b] = kept[g] < UINT32_MAX ? (uint32_t)kept[g] : UINT32_MAX;
            if (b < s->blocks)
                kept[g] += counts[gsBlockAt(s, b)];
        }
    }
}

/* ---- what a call compares ---- */

static gsVector gradientOf(gsReducer_t r, const void *sendbuff)
{
    return (gsVector){sendbuff, r->spec.type, r->spec.list};
}

/* Where a stands, once it does: in the residual to be; without feedback in `work`, or it is the gradient itself. */
static void *preparedIn(gsReducer_t r)
{
    return r->spec.feedback && !r->spec.denseNow ? r->residual[r->state->phase ^ 1] : r->work;
}

static gsVector comparedOf(gsReducer_t r, const void *sendbuff)
{
    if (!r->spec.feedback && !gsSpecPrepares(&r->spec))
        return gradientOf(r, sendbuff);
    return (gsVector){preparedIn(r), gsRealType(&r->spec), NULL};
}

static gsVector remembered(gsReducer_t r, const void *vector)
{
    return (gsVector){vector, gsRealType(&r->spec), NULL};
}

/* How far the iterate has moved; and, where the server decides, whether this rank is asked. */
static void watchIterate(gsReducer_t r)
{
    gsCall *c = &r->state->call;
    gsVector iterate = {r->params, r->spec.paramsType, NULL};
    if (!r->spec.iterate || !r->previous[0] || !r->spec.trigger)
        return;
    if (r->state->step) {
        gsVector last = remembered(r, r->previous[r->state->phase]);
        c->moved = gsLagStepNorm(&r->spec, stagesOf(r)->distance(r, iterate, last));
    }
    if (r->spec.trigger == GS_TRIGGER_SERVER) {
        double gap = stagesOf(r)->distance(r, iterate, remembered(r, r->anchor));
        gsCallTrigger(&r->spec, r->state, c, r->spec.smoothness * r->spec.smoothness * gap,
                      gsCallLagBound(&r->spec, r->state));
    }
}

/* The triggers that look at gradients, once a is there. */
static void watchGradient(gsReducer_t r, gsVector gradient, gsVector a)
{
    const gsSpec *spec = &r->spec;
    const gsCpuStages *stages = stagesOf(r);
    gsCall *c = &r->state->call;
    double bound = gsCallLagBound(spec, r->state), changed;
    if (spec->trigger == GS_TRIGGER_STALE) {
        changed = stages->distance(r, gradient, (gsVector){r->stale, spec->type, NULL});
    } else {
        changed = stages->sumVector(r, a, 0.0, GS_SUM_SQUARES | GS_SUM_ALL).squares;
        if (spec->trigger == GS_TRIGGER_CHANGE)
            bound = spec->xi * stages->distance(r, gradient, remembered(r, r->before[r->state->phase]));
    }
    gsCallTrigger(spec, r->state, c, changed, bound);
}

/* laq: what would be told, against what the coding loses. */
static void watchCoding(gsReducer_t r, gsVector a)
{
    gsCall *c = &r->state->call;
    gsCodedNorms norms = stagesOf(r)->codedNorms(r, a);
    c->error = norms.error;
    gsCallTrigger(&r->spec, r->state, c, norms.coded,
                  gsLaqBound(gsCallLagBound(&r->spec, r->state), norms.error, r->state->sentError));
}

/* a = the gradient against what is remembered. */
static void compare(gsReducer_t r, const void *sendbuff)
{
    gsCall *c = &r->state->call;
    const gsCpuStages *stages = stagesOf(r);
    gsVector gradient = gradientOf(r, sendbuff);
    gsSums sums;
    watchIterate(r);
    if (r->spec.clip > 0.0 && !c->skip) {
        sums = stages->sumVector(r, gradient, 0.0, GS_SUM_SQUARES | GS_SUM_ALL);
        gsCallClip(&r->spec, c, &sums);
    }
    if (r->spec.pool && !r->spec.denseNow && !c->skip)
        stages->chooseReference(r, gradient);
    stages->compare(r, gradient, preparedIn(r));
    if (r->spec.trigger && r->spec.trigger != GS_TRIGGER_SERVER && r->spec.trigger != GS_TRIGGER_CODED && !c->skip)
        watchGradient(r, gradient, comparedOf(r, sendbuff));
}

/* What the rule must know of all of x before it can look at one coordinate. */
static void measure(gsReducer_t r, gsVector x, const void *sendbuff)
{
    const gsSpec *spec = &r->spec;
    const gsCpuStages *stages = stagesOf(r);
    gsCall *c = &r->state->call;
    double all = 0.0;
    gsSums sums;
    if (gsCallWantsHistogram(spec, r->state))
        stages->findTau(r, gsSpecPrepares(spec) ? x : gradientOf(r, sendbuff));
    if (spec->select == GS_SELECT_LARGEST)
        stages->findLimit(r, x, gsCallTarget(spec, c->step));
    if (spec->select == GS_SELECT_GSPAR)
        for (int pass = 0; pass < gsCallScalePasses(spec); pass++) {
            sums = stages->sumVector(r, x, c->s, GS_SUM_MAGNITUDES | (spec->epsilon > 0.0 ? GS_SUM_SQUARES : 0));
            gsCallRescale(spec, c, pass, &sums, &all);
        }
    if (spec->rms > 0.0 || spec->aux & GS_RECORD_ONE_SCALE || spec->value == GS_VALUE_F16) {
        sums = stages->sumVector(r, x, 0.0, GS_SUM_MAGNITUDES | GS_SUM_SQUARES | GS_SUM_LARGEST);
        c->largest = sums.largest;
        if (spec->rms > 0.0)
            gsCallTauFromSquares(spec, c, sums.squares);
        if (spec->aux & GS_RECORD_ONE_SCALE)
            gsCallOneScale(spec, c, &sums);
    }
}

static gsResult_t selectStage(gsReducer_t r, const void *sendbuff, gsStream_t stream)
{
    uint64_t kept[2] = {0, 0};
    (void)stream;
    gsCallBegin(&r->spec, r->state);
    if (gsSpecPrepares(&r->spec))
        compare(r, sendbuff);
    if (!r->state->call.skip) {
        gsVector x = comparedOf(r, sendbuff);
        measure(r, x, sendbuff);
        if (r->spec.trigger == GS_TRIGGER_CODED)
            watchCoding(r, x);
        stagesOf(r)->select(r, gsSpecPrepares(&r->spec) ? x : gradientOf(r, sendbuff));
        scanBlocks(r, &r->spec, r->blockOffset, kept);
    }
    gsCallPlan(&r->spec, r->state, kept);
    return GS_SUCCESS;
}

static gsResult_t packStage(gsReducer_t r, const void *sendbuff, void *record, gsStream_t stream)
{
    (void)stream;
    stagesOf(r)->pack(r, comparedOf(r, sendbuff), record);
    return GS_SUCCESS;
}

/* A dense step: a in `work`. */
static gsResult_t compareStage(gsReducer_t r, const void *sendbuff, gsStream_t stream)
{
    (void)stream;
    gsCallBegin(&r->spec, r->state);
    r->state->call.skip = 0;
    compare(r, sendbuff);
    return GS_SUCCESS;
}

/* Whether the server would ask for this rank's gradient: what the next select will find. */
static gsResult_t wantsGradient(gsReducer_t r, int *wants)
{
    gsCallBegin(&r->spec, r->state);
    watchIterate(r);
    *wants = !r->state->call.skip;
    return GS_SUCCESS;
}

/* The tensors that a record's segment table lists, against the own. */
static uint32_t tensorsFault(const gsSpec *spec, const uint8_t *record)
{
    size_t bytes = spec->tensors * sizeof(gsRecordSegment);
    return bytes && memcmp(record + GS_RECORD_SECTIONS, spec->entries, bytes) != 0 ? GS_FAULT_LAYOUT : GS_FAULT_NONE;
}

static uint32_t recordFault(gsReducer_t r, const uint8_t *record, uint32_t rank, uint32_t *nonFinite)
{
    gsRecordHeader h;
    gsRecordSegment segment;
    gsRecordExtent extent;
    memcpy(&h, record, sizeof h);
    memcpy(&segment, record + sizeof h, sizeof segment);
    uint32_t fault = gsExpectedFault(&r->spec, r->state, &h, &segment, rank);
    if (!fault)
        fault = tensorsFault(&r->spec, record);
    if (fault)
        return fault;
    uint64_t key = gsChecksumKey(h.configHash, h.step, h.rank);
    if (stagesOf(r)->checksum(r, record, key, h.recordBytes) != h.checksum)
        return GS_FAULT_CHECKSUM;
    *nonFinite |= h.flags & GS_FLAG_NONFINITE;
    extent = gsSpecExtent(&r->spec, h.count);
    return gsRecordStructureFault(record, &h, &segment, &extent);
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

static void fillNaN(uint32_t type, uint64_t count, void *recvbuff)
{
    for (uint64_t i = 0; i < count; i++)
        switch (type) {
        case GS_BFLOAT16: ((uint16_t *)recvbuff)[i] = GS_BF16_NAN; break;
        case GS_FLOAT16: ((uint16_t *)recvbuff)[i] = GS_F16_NAN; break;
        case GS_FLOAT64: ((uint64_t *)recvbuff)[i] = GS_F64_NAN; break;
        default: ((uint32_t *)recvbuff)[i] = GS_F32_NAN; break;
        }
}

/* An optimizer whose gradient it would be makes no step. */
static void fillAllNaN(const gsSpec *spec, void *recvbuff)
{
    for (uint64_t b = 0; recvbuff && b < spec->blocks; b++)
        fillNaN(spec->type, gsBlockLength(spec, b), outputOf(spec, recvbuff, b));
}

static gsResult_t accumulateStage(gsReducer_t r, const void *records, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    (void)stream;
    if (r->state->verdict)
        return GS_SUCCESS;
    if (r->state->anyNonFinite)
        fillAllNaN(&r->spec, recvbuff);
    else
        stagesOf(r)->accumulate(r, records, NULL, recvbuff, op);
    return GS_SUCCESS;
}

/* sum: of everybody's a, as gsReal. */
static gsResult_t validateDense(gsReducer_t r, const void *sum, gsStream_t stream)
{
    (void)stream;
    r->state->verdict = GS_FAULT_NONE;
    r->state->anyNonFinite = !stagesOf(r)->allFinite(r, remembered(r, sum));
    return GS_SUCCESS;
}

static gsResult_t accumulateDense(gsReducer_t r, const void *sum, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    (void)stream;
    if (r->state->verdict)
        return GS_SUCCESS;
    if (r->state->anyNonFinite)
        fillAllNaN(&r->spec, recvbuff);
    else if (r->spec.count) /* of no elements there is no sum */
        stagesOf(r)->accumulate(r, NULL, sum, recvbuff, op);
    return GS_SUCCESS;
}

/* ---- owners ---- */

static gsResult_t planParts(gsReducer_t r, gsStream_t stream)
{
    uint32_t *offset = r->partOffset;
    (void)stream;
    for (uint32_t q = 0; q < r->spec.nranks; q++) {
        gsSpec part = gsPartSpec(&r->spec, q);
        uint64_t kept[2] = {0, 0};
        if (!r->state->call.skip)
            scanBlocks(r, &part, offset, kept);
        offset += (uint64_t)gsRecordGroups(part.value) * (part.blocks + 1);
        r->partState[q] = *r->state;
        gsCallPlan(&part, &r->partState[q], kept);
        gsCallAddPart(&r->state->call, &r->partState[q].call, q);
    }
    return GS_SUCCESS;
}

static gsResult_t handDown(gsReducer_t r, gsStream_t stream)
{
    (void)stream;
    gsOwnerHandDown(&r->spec, r->state, &r->partState[r->spec.rank], r->server->state, r->recvRecords);
    return GS_SUCCESS;
}

static gsResult_t handBack(gsReducer_t r, gsStream_t stream)
{
    (void)stream;
    if (r->server)
        gsOwnerHandBack(&r->spec, r->state, r->server->state, &r->partState[r->spec.rank]);
    for (uint32_t q = 0; q < r->spec.nranks; q++)
        gsOwnerHandTo(&r->partState[q], r->state);
    return GS_SUCCESS;
}

static gsResult_t makeResult(gsReducer_t r, gsRedOp_t op, gsStream_t stream)
{
    (void)stream;
    stagesOf(r)->makeResult(r, op);
    return GS_SUCCESS;
}

static gsResult_t rememberParts(gsReducer_t r, gsStream_t stream)
{
    (void)stream;
    if (!r->state->verdict && !r->state->anyNonFinite)
        stagesOf(r)->rememberParts(r);
    return GS_SUCCESS;
}

static gsResult_t commitStage(gsReducer_t r, gsStream_t stream)
{
    (void)stream;
    gsCallCommit(&r->spec, r->state);
    return GS_SUCCESS;
}

static gsResult_t sumSlices(gsReducer_t r, gsDataType_t type, const void *slices, uint32_t ranks, uint64_t apart,
                            void *out, uint64_t n, gsRedOp_t op, gsStream_t stream)
{
    (void)stream;
    stagesOf(r)->sumSlices(r, (gsVector){slices, type, NULL}, ranks, apart, out, n, op);
    return GS_SUCCESS;
}

/* A finished result, as a vector: its slice from element `first` on is the gradient of an optimizer's step. */
static void optimizeBy(gsReducer_t r, const void *result, uint64_t first, uint64_t count)
{
    stagesOf(r)->optimizeBy(r, (gsVector){result, r->spec.type, NULL}, first, count);
}

/* From one place to another; of a list from one's tensors to the other's. */
static void copyBlocks(const gsSpec *spec, const void *from, void *to)
{
    gsVector x = {from, spec->type, spec->list};
    size_t width = gsTypeWidth(spec->type);
    if (!spec->list) {
        if (spec->count)
            memcpy(to, from, spec->count * width);
        return;
    }
    for (uint64_t b = 0; b < spec->blocks; b++)
        memcpy(outputOf(spec, to, b), blockOf(x, b).values, gsBlockLength(spec, b) * width);
}

static gsResult_t finishDense(gsReducer_t r, const void *sum, void *recvbuff, gsStream_t stream)
{
    (void)stream;
    r->state->verdict = GS_FAULT_NONE;
    r->state->anyNonFinite = !stagesOf(r)->allFinite(r, gradientOf(r, sum));
    if (r->state->anyNonFinite)
        fillAllNaN(&r->spec, recvbuff);
    else if (recvbuff)
        copyBlocks(&r->spec, sum, recvbuff);
    else
        optimizeBy(r, gsDenseSums(r), 0, r->spec.count);
    return GS_SUCCESS;
}

/* A list's tensors, wherever they are. */
static gsResult_t setTensors(gsReducer_t r, void *const *tensors, uint32_t first, uint32_t n, gsStream_t stream)
{
    (void)stream;
    memcpy(r->buffers + first, tensors, n * sizeof *tensors);
    return GS_SUCCESS;
}

static gsResult_t gather(gsReducer_t r, const void *from, void *to, gsStream_t stream)
{
    (void)stream;
    copyBlocks(&r->spec, from, to);
    return GS_SUCCESS;
}

static gsResult_t sealSlice(gsReducer_t r, const int32_t *ranks, gsSeal *seal, gsStream_t stream)
{
    (void)stream;
    *seal = gsSealOf(r->state, r->spec.average, ranks);
    return GS_SUCCESS;
}

static gsResult_t openSeals(gsReducer_t r, const gsHierarchy *h, uint32_t half, gsStream_t stream)
{
    (void)stream;
    gsSealOpen(r->state, r->spec.average, h->slots, h->slotBytes, (uint32_t)h->ranks, half);
    return GS_SUCCESS;
}

/* n elements of a slice of the result, from `at` on in the whole. */
static void placeSlice(gsReducer_t r, const void *slice, void *recvbuff, uint64_t at, uint64_t n)
{
    size_t width = gsTypeBytes((gsDataType_t)r->spec.type);
    if (recvbuff)
        memcpy((char *)recvbuff + at * width, slice, n * width);
    else
        optimizeBy(r, slice, at, n);
}

static gsResult_t assemble(gsReducer_t r, const gsHierarchy *h, void *recvbuff, gsStream_t stream)
{
    (void)stream;
    if (r->state->verdict)
        return GS_SUCCESS;
    if (r->state->anyNonFinite && recvbuff)
        fillNaN(r->spec.type, h->count, recvbuff);
    for (uint64_t q = 0, at = 0; at < h->count && !r->state->anyNonFinite; q++, at += h->slice) {
        uint64_t n = h->count - at < h->slice ? h->count - at : h->slice;
        placeSlice(r, h->slots + q * h->slotBytes, recvbuff, at, n);
    }
    return GS_SUCCESS;
}

static gsResult_t scaleState(gsReducer_t r, float factor, gsStream_t stream)
{
    GS_CHECK(gsStreamSynchronize(stream));
    gsStateScale(r->state, factor);
    return GS_SUCCESS;
}

static gsResult_t scale(gsReducer_t r, void *vector, float factor, gsStream_t stream)
{
    GS_CHECK(gsStreamSynchronize(stream));
    stagesOf(r)->scale(r, vector, factor);
    return GS_SUCCESS;
}

static gsResult_t optimize(const gsOptimizerCall *call, gsStream_t stream)
{
    const gsCpuStages *stages;
    GS_CHECK(gsStreamSynchronize(stream));
    GS_CHECK(gsCpuStagesFind(call->type == GS_FLOAT64 ? 64 : 32, &stages));
    stages->optimize(call, call->gradient, 0, call->count);
    return GS_SUCCESS;
}

static gsResult_t countStep(gsReducer_t r, const gsOptimizerCall *call, gsStream_t stream)
{
    (void)stream;
    gsCorrect(call, r->state->step + 1, r->state->correct);
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
    .copy = copy,
    .fill = fill,
    .select = selectStage,
    .pack = packStage,
    .validate = validateStage,
    .accumulate = accumulateStage,
    .commit = commitStage,
    .planParts = planParts,
    .handDown = handDown,
    .makeResult = makeResult,
    .handBack = handBack,
    .rememberParts = rememberParts,
    .compare = compareStage,
    .validateDense = validateDense,
    .accumulateDense = accumulateDense,
    .wantsGradient = wantsGradient,
    .sumSlices = sumSlices,
    .finishDense = finishDense,
    .setTensors = setTensors,
    .gather = gather,
    .seal = sealSlice,
    .openSeals = openSeals,
    .assemble = assemble,
    .scaleState = scaleState,
    .scale = scale,
    .optimize = optimize,
    .countStep = countStep,
};
