/*
 * The road: select, pack, exchange, accumulate, commit. Nothing here knows a recipe by name. A step that travels dense leaves it behind
 * the comparison and comes back to it with the sum; a two-way reducer goes it twice, the second time alone. gsReduceScatter and
 * gsAllGather go half of it each (halves.c).
 */
#include "core.h"
#include "stage.h"

#include <stdio.h>
#include <string.h>

/* tensor: of a list, where `name` is an array; -1 of one buffer. */
static gsResult_t refuseBuffer(const char *name, int64_t tensor, const void *buffer, gsDataType_t type)
{
    char place[24] = "";
    if (tensor >= 0)
        snprintf(place, sizeof place, "s[%lld]", (long long)tensor);
    if (!buffer)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s%s is NULL; expected a buffer", name, place);
    return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s%s is %p; expected a multiple of %zu, the element's size", name, place,
                  buffer, gsTypeBytes(type));
}

static gsResult_t checkBuffer(const char *name, int64_t tensor, const void *buffer, gsDataType_t type)
{
    if (buffer && (uintptr_t)buffer % gsTypeBytes(type) == 0)
        return GS_SUCCESS;
    return refuseBuffer(name, tensor, buffer, type);
}

static gsResult_t checkElements(gsReducer_t r, size_t count, gsDataType_t type)
{
    GS_CHECK(gsCheckReducer(r));
    if (count != gsCallElements(r))
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "count is %zu; the reducer was made for %llu", count,
                      (unsigned long long)gsCallElements(r));
    if (type != (gsDataType_t)r->spec.type)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "datatype is %d; the reducer was made for %u", type, r->spec.type);
    return GS_SUCCESS;
}

static gsResult_t checkOp(gsRedOp_t op)
{
    if (op != GS_SUM && op != GS_AVG)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "op is %d; expected GS_SUM (0) or GS_AVG (4)", op);
    return GS_SUCCESS;
}

/* Recipes that look at the iterate must have been told it. lag can do without, the server's side of it cannot. */
static gsResult_t checkIterate(gsReducer_t r)
{
    const gsSpec *s = &r->spec;
    if (s->iterate || !gsSpecReadsIterate(s) || s->trigger == GS_TRIGGER_WORKER || s->trigger == GS_TRIGGER_CODED)
        return GS_SUCCESS;
    return gsFail(GS_ERROR_INVALID_USAGE, "this recipe compares iterates; call gsReducerSetParams before gsAllReduce");
}

/* One gradient and its result, or of a list one tensor. */
static gsResult_t checkBuffers(const void *sendbuff, const void *recvbuff, int64_t tensor, size_t count,
                               gsDataType_t type)
{
    if (count == 0)
        return GS_SUCCESS;
    GS_CHECK(checkBuffer("sendbuff", tensor, sendbuff, type));
    GS_CHECK(checkBuffer("recvbuff", tensor, recvbuff, type));
    uintptr_t from = (uintptr_t)sendbuff, to = (uintptr_t)recvbuff, bytes = count * gsTypeBytes(type);
    if (from != to && from < to + bytes && to < from + bytes)
        return gsFail(GS_ERROR_INVALID_ARGUMENT,
                      "sendbuff %p and recvbuff %p overlap; expected the same buffer or two apart", sendbuff, recvbuff);
    return GS_SUCCESS;
}

static gsResult_t checkCall(gsReducer_t r, const void *sendbuff, const void *recvbuff, size_t count, gsDataType_t type,
                            gsRedOp_t op)
{
    GS_CHECK(gsHalfExpect(r, GS_HALF_NONE));
    GS_CHECK(checkElements(r, count, type));
    GS_CHECK(checkOp(op));
    GS_CHECK(checkIterate(r));
    return checkBuffers(sendbuff, recvbuff, -1, count, type);
}

/* A two-way reducer's result goes through its second half: until then it stands where a was, if something else than a residual held it, and
 * no dense step has use for it. */
static void *betweenHalves(const gsReducer_t r)
{
    return r->spec.tensors || gsHasDenseSteps(&r->spec) ? NULL : r->work;
}

/* Whether the second half is a reducer that is given the first one's result. */
static int hasSecondCall(const gsReducer_t r)
{
    return r->server && !gsSpecHasOwners(&r->spec) && !r->nodes.ranks;
}

static gsResult_t checkStep(gsReducer_t r, const gsOptimizer_t *optimizer, const void *gradient, size_t count,
                            gsDataType_t type, gsRedOp_t op)
{
    GS_CHECK(gsHalfExpect(r, GS_HALF_NONE));
    GS_CHECK(checkElements(r, count, type));
    GS_CHECK(checkOp(op));
    GS_CHECK(checkIterate(r));
    GS_CHECK(gsOptimizerCheck(optimizer));
    if (optimizer->datatype != gsRealType(&r->spec))
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "optimizer->datatype is %d; expected %d, that of the reducer's state",
                      optimizer->datatype, gsRealType(&r->spec));
    GS_CHECK(gsOptimizerCheckVectors(optimizer, gradient, type, count));
    if (hasSecondCall(r) && !betweenHalves(r))
        return gsFail(
            GS_ERROR_UNSUPPORTED,
            "this two-way reducer has no place for the result between its halves; expected exchange=owner, or "
            "gsAllReduce and gsOptimizerStep");
    return GS_SUCCESS;
}

/* A half: `whole` has all ranks' slices, `slice` one; in place it is this rank's of the whole. */
static gsResult_t checkHalf(gsReducer_t r, uint32_t half, const void *sendbuff, const void *recvbuff, size_t count,
                            gsDataType_t type)
{
    int scatter = half == GS_HALF_SCATTER;
    GS_CHECK(gsHalfExpect(r, half));
    GS_CHECK(checkElements(r, count, type));
    if (count == 0)
        return GS_SUCCESS;
    GS_CHECK(checkBuffer("sendbuff", -1, sendbuff, type));
    GS_CHECK(checkBuffer("recvbuff", -1, recvbuff, type));
    uintptr_t whole = (uintptr_t)(scatter ? sendbuff : recvbuff), slice = (uintptr_t)(scatter ? recvbuff : sendbuff);
    uintptr_t bytes = count * gsTypeBytes(type);
    if (slice != whole + r->spec.rank * bytes && slice < whole + r->spec.nranks * bytes && whole < slice + bytes)
        return gsFail(GS_ERROR_INVALID_ARGUMENT,
                      "sendbuff %p and recvbuff %p overlap; expected them apart, or in place %s = %s + rank * count",
                      sendbuff, recvbuff, scatter ? "recvbuff" : "sendbuff", scatter ? "sendbuff" : "recvbuff");
    return GS_SUCCESS;
}

static gsResult_t checkTensors(gsReducer_t r, const void *const *sendbuffs, void *const *recvbuffs)
{
    if (!sendbuffs || !recvbuffs)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "sendbuffs is %p and recvbuffs %p; expected arrays of %u pointers",
                      (const void *)sendbuffs, (const void *)recvbuffs, r->spec.tensors);
    for (uint32_t t = 0; t < r->spec.tensors; t++)
        GS_CHECK(checkBuffers(sendbuffs[t], recvbuffs[t], t, r->sizes[t], (gsDataType_t)r->spec.type));
    return gsListCheckResults(r, recvbuffs);
}

static gsResult_t checkList(gsReducer_t r, const void *const *sendbuffs, void *const *recvbuffs, uint32_t segmentCount,
                            gsDataType_t type, gsRedOp_t op)
{
    GS_CHECK(gsHalfExpect(r, GS_HALF_NONE));
    if (!r->spec.tensors)
        return gsFail(GS_ERROR_INVALID_USAGE,
                      "the reducer is of one gradient; gsReducerConfig_t.segments makes one of a list");
    if (segmentCount != r->spec.tensors)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "segmentCount is %u; the reducer was made for %u tensors",
                      segmentCount, r->spec.tensors);
    GS_CHECK(checkElements(r, r->spec.count, type));
    GS_CHECK(checkOp(op));
    return checkTensors(r, sendbuffs, recvbuffs);
}

static gsResult_t encode(gsReducer_t r, const void *sendbuff, void *record, gsStream_t stream)
{
    const gsBackend *backend = r->comm->backend;
    gsStage stage = gsStageBegin(r, GS_RANGE_SELECT, &r->stats.encodeSeconds);
    gsResult_t result = backend->select(r, sendbuff, stream);
    gsStageEnd(&stage);
    GS_CHECK(result);
    gsKnowPlan(r);
    stage = gsStageBegin(r, GS_RANGE_PACK, &r->stats.encodeSeconds);
    result = backend->pack(r, sendbuff, record, stream);
    gsStageEnd(&stage);
    return result;
}

/* `as`: the reducer, as it sees the records. */
static gsResult_t accumulate(gsReducer_t r, gsReducer_t as, const void *records, void *recvbuff, gsRedOp_t op,
                             gsStream_t stream)
{
    const gsBackend *backend = r->comm->backend;
    gsStage stage = gsStageBegin(r, GS_RANGE_ACCUMULATE, &r->stats.decodeSeconds);
    gsResult_t result = backend->validate(as, records, stream);
    if (result == GS_SUCCESS)
        result = backend->accumulate(as, records, recvbuff, op, stream);
    gsStageEnd(&stage);
    return result;
}

static gsResult_t commit(gsReducer_t r, gsStream_t stream)
{
    gsStage stage = gsStageBegin(r, GS_RANGE_COMMIT, &r->stats.decodeSeconds);
    gsResult_t result = GS_SUCCESS;
    if (r->owners && r->server && !r->spec.denseNow)
        result = r->comm->backend->commit(r->server, stream);
    if (result == GS_SUCCESS)
        result = r->comm->backend->commit(r, stream);
    gsStageEnd(&stage);
    GS_CHECK(result);
    return gsCallError(r);
}

static gsResult_t reduceSparse(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    GS_CHECK(encode(r, sendbuff, r->sendRecord, stream));
    GS_CHECK(gsExchangeTimed(r, gsExchangeRecords, r, stream));
    return accumulate(r, r, r->recvRecords, recvbuff, op, stream);
}

/* All ranks' slices, a record each. */
static gsResult_t gatherSparse(gsReducer_t r, const void *sendbuff, void *recvbuff, gsStream_t stream)
{
    struct gsReducer all = gsHalfGathered(r);
    GS_CHECK(encode(r, sendbuff, r->sendRecord, stream));
    GS_CHECK(gsExchangeTimed(r, gsExchangeRecords, r, stream));
    return accumulate(r, &all, r->recvRecords, recvbuff, GS_SUM, stream);
}

static gsResult_t compare(gsReducer_t r, const void *sendbuff, gsStream_t stream)
{
    gsStage stage = gsStageBegin(r, GS_RANGE_COMPARE, &r->stats.encodeSeconds);
    gsResult_t result = r->comm->backend->compare(r, sendbuff, stream);
    gsStageEnd(&stage);
    return result;
}

static gsResult_t sumCompared(gsReducer_t r, gsStream_t stream)
{
    return gsExchangeVector(r, r->work, &r->denseSum, stream);
}

static gsResult_t accumulateDense(gsReducer_t r, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    const gsBackend *backend = r->comm->backend;
    gsStage stage = gsStageBegin(r, GS_RANGE_ACCUMULATE, &r->stats.decodeSeconds);
    gsResult_t result = backend->validateDense(r, r->denseSum, stream);
    if (result == GS_SUCCESS)
        result = backend->accumulateDense(r, r->denseSum, recvbuff, op, stream);
    gsStageEnd(&stage);
    return result;
}

/* A step of a sparse recipe that travels dense: what the gradient is compared to, summed. */
static gsResult_t reducePlanned(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    GS_CHECK(compare(r, sendbuff, stream));
    GS_CHECK(gsExchangeTimed(r, sumCompared, r, stream));
    return accumulateDense(r, recvbuff, op, stream);
}

static gsResult_t reduceDense(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    gsStage stage = gsStageBegin(r, GS_RANGE_EXCHANGE, &r->stats.exchangeSeconds);
    gsResult_t result = gsExchangeDense(r, sendbuff, recvbuff, op, stream);
    gsStageEnd(&stage);
    return result;
}

/* Tensors of a call's buffer. An owner's slice is one vector, and of slices that are gathered all are there. */
static uint32_t tensorsOf(const gsReducer_t r, uint32_t row)
{
    if (!r->spec.half || !r->spec.tensors || row == GS_GRADIENTS)
        return r->spec.tensors;
    return r->spec.half == GS_HALF_GATHER ? r->spec.nranks : 0;
}

/* What the stages are given for a buffer: itself, or of a list the table's row that now points to the tensors in it. */
static gsResult_t placeBuffer(gsReducer_t r, uint32_t row, const void *buffer, void **placed, gsStream_t stream)
{
    uint32_t n = tensorsOf(r, row), first = row * r->spec.tensors;
    *placed = n ? (void *)(r->buffers + first) : (void *)buffer;
    if (!n)
        return GS_SUCCESS;
    gsListSpread(r, buffer, n);
    return r->comm->backend->setTensors(r, r->tensors, first, n, stream);
}

/* A call, also as it waits on a CPU stream. */
typedef struct call {
    gsResult_t (*run)(const struct call *c, gsStream_t stream);
    const void *from;
    void *to;
    gsRedOp_t op;
    gsReducer_t reducer;
} call;

/* Whether the recipe sends this step dense. */
static uint8_t isDenseStep(const gsReducer_t r)
{
    const gsSpec *s = &r->spec;
    return (s->firstDense && r->steps == 0) || (s->refresh && r->steps % s->refresh == 0);
}

/* gsReduceScatter or gsAllGather. */
static gsResult_t proposeHalf(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    if (r->spec.select == GS_SELECT_DENSE)
        return gsHalfDense(r, sendbuff, recvbuff, op, stream);
    if (r->spec.half == GS_HALF_SCATTER)
        return gsScatterToOwners(r, sendbuff, recvbuff, op, stream);
    return gatherSparse(r, sendbuff, recvbuff, stream);
}

/* One half of the road, up to the commit. */
static gsResult_t propose(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    r->spec.average = op == GS_AVG;
    r->spec.denseNow = isDenseStep(r);
    if (r->spec.half)
        return proposeHalf(r, sendbuff, recvbuff, op, stream);
    if (r->spec.select == GS_SELECT_DENSE)
        return reduceDense(r, sendbuff, recvbuff, op, stream);
    if (r->spec.denseNow)
        return reducePlanned(r, sendbuff, recvbuff, op, stream);
    if (gsSpecHasOwners(&r->spec))
        return gsReduceByOwners(r, sendbuff, recvbuff, op, stream);
    return reduceSparse(r, sendbuff, recvbuff, op, stream);
}

static gsResult_t readStep(gsReducer_t r, uint64_t *step, gsStream_t stream)
{
    GS_CHECK(gsAwaitDevice(r, stream));
    return r->comm->backend->get(step, &r->state->step, sizeof *step, stream);
}

/* How many steps are committed. On a device a call may yet fail: a dense step, on which the next one's kind depends, waits for it. */
static gsResult_t countSteps(gsReducer_t r, gsStream_t stream)
{
    if (!r->comm->backend->onDevice) {
        r->steps = r->state->step;
        return GS_SUCCESS;
    }
    r->steps++;
    if (!r->spec.denseNow)
        return GS_SUCCESS;
    return readStep(r, &r->steps, stream);
}

static gsResult_t settle(gsReducer_t r, gsStream_t stream)
{
    GS_CHECK(commit(r, stream));
    return countSteps(r, stream);
}

static gsResult_t reduceHalf(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    GS_CHECK(propose(r, sendbuff, recvbuff, op, stream));
    return settle(r, stream);
}

/* ---- hierarchical: nothing is settled before the node's last step, after which nothing can fail ---- */

static gsResult_t proposeSlice(gsReducer_t r, const void *from, void *result, gsRedOp_t op, gsStream_t stream)
{
    r->spec.preview = (uint8_t)gsSpecRemembers(&r->spec);
    return propose(r, from, result, op, stream);
}

/* What the proposal left as it was follows now: records, or the dense sum, are still there. */
static gsResult_t remember(gsReducer_t r, void *result, gsRedOp_t op, gsStream_t stream)
{
    const gsBackend *backend = r->comm->backend;
    gsStage stage = gsStageBegin(r, GS_RANGE_ACCUMULATE, &r->stats.decodeSeconds);
    r->spec.preview = 0;
    gsResult_t remembered = r->spec.denseNow ? backend->accumulateDense(r, r->denseSum, result, op, stream)
                                             : backend->accumulate(r, r->recvRecords, result, op, stream);
    gsStageEnd(&stage);
    return remembered;
}

static gsResult_t settleSlice(gsReducer_t r, void *result, gsRedOp_t op, gsStream_t stream)
{
    if (r->spec.preview)
        GS_CHECK(remember(r, result, op, stream));
    return settle(r, stream);
}

static gsResult_t sumInNode(gsReducer_t r, const void *sendbuff, gsRedOp_t op, gsStream_t stream)
{
    gsStage stage = gsStageBegin(r, GS_RANGE_NODE_SUM, &r->stats.exchangeSeconds);
    gsResult_t result = gsHierarchyReduceScatter(r, sendbuff, op, stream);
    gsStageEnd(&stage);
    return result;
}

static gsResult_t gatherInNode(gsReducer_t r, void *recvbuff, gsStream_t stream)
{
    gsStage stage = gsStageBegin(r, GS_RANGE_NODE_GATHER, &r->stats.exchangeSeconds);
    gsResult_t result = gsHierarchyAllGather(r, recvbuff, stream);
    gsStageEnd(&stage);
    return result;
}

static gsResult_t reduceInNodes(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    void *result = gsHierarchySlot(r);
    GS_CHECK(sumInNode(r, sendbuff, op, stream));
    GS_CHECK(proposeSlice(r, r->nodes.sum, result, op, stream));
    if (r->server)
        GS_CHECK(proposeSlice(r->server, result, result, GS_SUM, stream));
    GS_CHECK(gatherInNode(r, recvbuff, stream));
    GS_CHECK(settleSlice(r, result, op, stream));
    return r->server ? settleSlice(r->server, result, GS_SUM, stream) : GS_SUCCESS;
}

static gsResult_t reduceSteadily(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    if (r->nodes.ranks)
        return reduceInNodes(r, sendbuff, recvbuff, op, stream);
    if (!hasSecondCall(r))
        return reduceHalf(r, sendbuff, recvbuff, op, stream);
    void *between = recvbuff ? recvbuff : betweenHalves(r);
    GS_CHECK(reduceHalf(r, sendbuff, between, op, stream));
    return reduceHalf(r->server, between, recvbuff, GS_SUM, stream);
}

/* ---- resync: before a step, H from all h anew; what it has drifted by rounding is gone ---- */

static size_t sharedBytes(const gsReducer_t r)
{
    return gsVectorElements(&r->spec) * gsRealBytes(&r->spec);
}

/* H as it was waits where the slices of the sum were, which nobody needs any more. */
static gsResult_t sumMemories(gsReducer_t r, gsStream_t stream)
{
    const void *sum;
    GS_CHECK(gsExchangeVector(r, r->memory, &sum, stream));
    GS_CHECK(r->comm->backend->copy(r->denseBuffer, r->shared, sharedBytes(r), stream));
    return r->comm->backend->copy(r->shared, sum, sharedBytes(r), stream);
}

static gsResult_t resynchronize(gsReducer_t r, gsStream_t stream)
{
    gsStage stage = gsStageBegin(r, GS_RANGE_RESYNC, &r->stats.exchangeSeconds);
    gsResult_t result = sumMemories(r, stream);
    gsStageEnd(&stage);
    return result;
}

/* A call that came to nothing changes nothing. Where a device was waited for in vain all it waited for is aborted: it can be asked. */
static gsResult_t keepOrRestore(gsReducer_t r, uint64_t before, gsStream_t stream)
{
    uint64_t step;
    gsResult_t waited = gsAwaitDevice(r, stream);
    GS_CHECK(r->comm->backend->get(&step, &r->state->step, sizeof step, stream));
    if (step == before)
        GS_CHECK(r->comm->backend->copy(r->shared, r->denseBuffer, sharedBytes(r), stream));
    return waited;
}

static gsResult_t reduceResynchronized(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op,
                                       gsStream_t stream)
{
    uint64_t before;
    GS_CHECK(readStep(r, &before, stream));
    GS_CHECK(resynchronize(r, stream));
    gsResult_t result = reduceSteadily(r, sendbuff, recvbuff, op, stream);
    gsResult_t kept = keepOrRestore(r, before, stream);
    return result == GS_SUCCESS ? kept : result;
}

static gsResult_t reduceWhole(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    uint32_t resync = r->spec.resync;
    if (resync && r->steps && r->steps % resync == 0)
        return reduceResynchronized(r, sendbuff, recvbuff, op, stream);
    return reduceSteadily(r, sendbuff, recvbuff, op, stream);
}

static gsResult_t reduceBuffers(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    void *from, *to;
    GS_CHECK(placeBuffer(r, GS_GRADIENTS, sendbuff, &from, stream));
    GS_CHECK(placeBuffer(r, GS_RESULTS, recvbuff, &to, stream));
    return reduceWhole(r, from, to, op, stream);
}

/* The range tells from its beginning on how the step travels, which each half settles again for itself. */
static void beginCall(gsReducer_t r, gsRange range)
{
    r->spec.denseNow = isDenseStep(r);
    gsRangeBeginCall(r, range);
}

static gsResult_t endCall(gsReducer_t r, gsResult_t result)
{
    r->stats.failed += result != GS_SUCCESS;
    gsRangeEnd(r);
    return result;
}

static gsResult_t runCall(const call *c, gsStream_t stream)
{
    gsReducer_t r = c->reducer;
    beginCall(r, (gsRange)(GS_RANGE_ALL_REDUCE + r->spec.half));
    return endCall(r, reduceBuffers(r, c->from, c->to, c->op, stream));
}

/* tensors: all gradients, then all results. */
static gsResult_t reduceTensors(gsReducer_t r, void *const *tensors, gsRedOp_t op, gsStream_t stream)
{
    uint32_t n = r->spec.tensors;
    GS_CHECK(r->comm->backend->setTensors(r, tensors, 0, 2 * n, stream));
    return reduceWhole(r, r->buffers + GS_GRADIENTS * n, r->buffers + GS_RESULTS * n, op, stream);
}

static gsResult_t runAllReduceSegments(gsReducer_t r, void *const *tensors, gsRedOp_t op, gsStream_t stream)
{
    beginCall(r, GS_RANGE_ALL_REDUCE_SEGMENTS);
    return endCall(r, reduceTensors(r, tensors, op, stream));
}

/* A call without a result. */
typedef struct {
    call call;
    gsOptimizerCall optimizer;
} stepCall;

/* Whichever half comes to the result makes the step. */
static void setOptimizer(gsReducer_t r, const gsOptimizerCall *optimizer)
{
    r->optimizer = optimizer;
    if (r->server)
        r->server->optimizer = optimizer;
}

static gsResult_t reduceAndStep(const call *c, const gsOptimizerCall *optimizer, gsStream_t stream)
{
    gsReducer_t r = c->reducer;
    void *from;
    GS_CHECK(placeBuffer(r, GS_GRADIENTS, c->from, &from, stream));
    if (optimizer->counted)
        GS_CHECK(r->comm->backend->countStep(r, optimizer, stream));
    setOptimizer(r, optimizer);
    gsResult_t result = reduceWhole(r, from, NULL, c->op, stream);
    setOptimizer(r, NULL);
    return result;
}

static gsResult_t runStep(const call *c, gsStream_t stream)
{
    beginCall(c->reducer, GS_RANGE_ALL_REDUCE_STEP);
    return endCall(c->reducer, reduceAndStep(c, &((const stepCall *)c)->optimizer, stream));
}

static gsResult_t callTask(void *arguments)
{
    const call *c = arguments;
    return c->run(c, NULL);
}

/* Whether the call has to wait its turn on a worker of this process. */
static int isQueued(gsReducer_t r, gsStream_t stream)
{
    return stream && !r->comm->backend->onDevice;
}

/* bytes: of the call, which may be the first member of something longer. */
static gsResult_t enqueue(const call *c, size_t bytes, gsStream_t stream)
{
    if (isQueued(c->reducer, stream))
        return gsStreamPush(stream, callTask, c, bytes);
    return c->run(c, stream);
}

gsResult_t gsAllReduce(const void *sendbuff, void *recvbuff, size_t count, gsDataType_t type, gsRedOp_t op,
                       gsReducer_t reducer, gsStream_t stream)
{
    GS_CHECK(checkCall(reducer, sendbuff, recvbuff, count, type, op));
    return enqueue(&(call){runCall, sendbuff, recvbuff, op, reducer}, sizeof(call), stream);
}

gsResult_t gsAllReduceStep(const void *gradient, size_t count, gsDataType_t type, gsRedOp_t op,
                           const gsOptimizer_t *optimizer, gsReducer_t reducer, gsStream_t stream)
{
    GS_CHECK(checkStep(reducer, optimizer, gradient, count, type, op));
    stepCall c = {{runStep, gradient, NULL, op, reducer}, gsOptimizerCallOf(optimizer, count)};
    if (optimizer->kind == GS_ADAMW && !optimizer->step)
        c.optimizer.counted = reducer->state->correct;
    return enqueue(&c.call, sizeof c, stream);
}

gsResult_t gsReduceScatter(const void *sendbuff, void *recvbuff, size_t recvcount, gsDataType_t type, gsRedOp_t op,
                           gsReducer_t reducer, gsStream_t stream)
{
    GS_CHECK(checkHalf(reducer, GS_HALF_SCATTER, sendbuff, recvbuff, recvcount, type));
    GS_CHECK(checkOp(op));
    return enqueue(&(call){runCall, sendbuff, recvbuff, op, reducer}, sizeof(call), stream);
}

gsResult_t gsAllGather(const void *sendbuff, void *recvbuff, size_t sendcount, gsDataType_t type, gsReducer_t reducer,
                       gsStream_t stream)
{
    GS_CHECK(checkHalf(reducer, GS_HALF_GATHER, sendbuff, recvbuff, sendcount, type));
    return enqueue(&(call){runCall, sendbuff, recvbuff, GS_SUM, reducer}, sizeof(call), stream);
}

static gsResult_t allReduceSegmentsTask(void *arguments)
{
    const gsListCall *c = arguments;
    return runAllReduceSegments(c->reducer, c->tensors, c->op, NULL);
}

gsResult_t gsAllReduceSegments(const void *const *sendbuffs, void *const *recvbuffs, uint32_t segmentCount,
                               gsDataType_t type, gsRedOp_t op, gsReducer_t reducer, gsStream_t stream)
{
    GS_CHECK(checkList(reducer, sendbuffs, recvbuffs, segmentCount, type, op));
    size_t row = segmentCount * sizeof(void *), bytes = sizeof(gsListCall) + 2 * row;
    gsListCall *c = reducer->listCall;
    c->reducer = reducer;
    c->op = op;
    memcpy(c->tensors, sendbuffs, row);
    memcpy(c->tensors + segmentCount, recvbuffs, row);
    if (isQueued(reducer, stream))
        return gsStreamPush(stream, allReduceSegmentsTask, c, bytes);
    return runAllReduceSegments(reducer, c->tensors, op, stream);
}

/* ---- single stages ---- */

static gsResult_t checkStage(gsReducer_t r, const char *name, const void *slot)
{
    if (r->spec.select == GS_SELECT_DENSE)
        return gsFail(GS_ERROR_INVALID_USAGE, "the reducer is dense: it has no records to encode or decode");
    if (r->server || r->nodes.ranks || r->spec.half == GS_HALF_GATHER || gsHasDenseSteps(&r->spec))
        return gsFail(
            GS_ERROR_UNSUPPORTED,
            "a recipe with dense steps, a second half, owners or nodes has no single stages, nor has an all-gather");
    GS_CHECK(checkIterate(r));
    if (!slot || (uintptr_t)slot % GS_RECORD_ALIGN)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s is %p; expected a slot aligned to %d bytes", name, slot,
                      GS_RECORD_ALIGN);
    return GS_SUCCESS;
}

/* A record of a single stage names no op: gsDecode alone is told it. */
static gsResult_t encodeBuffer(gsReducer_t r, const void *sendbuff, void *record, gsStream_t stream)
{
    void *from;
    r->spec.average = 0;
    GS_CHECK(placeBuffer(r, GS_GRADIENTS, sendbuff, &from, stream));
    return r->spec.half ? gsScatterEncode(r, from, record, stream) : encode(r, from, record, stream);
}

static gsResult_t runEncode(const call *c, gsStream_t stream)
{
    gsRangeBeginCall(c->reducer, GS_RANGE_ENCODE);
    return endCall(c->reducer, encodeBuffer(c->reducer, c->from, c->to, stream));
}

gsResult_t gsEncode(const void *sendbuff, void *record, size_t count, gsDataType_t type, gsReducer_t reducer,
                    gsStream_t stream)
{
    GS_CHECK(checkElements(reducer, count, type));
    GS_CHECK(checkStage(reducer, "record", record));
    if (count)
        GS_CHECK(checkBuffer("sendbuff", -1, sendbuff, type));
    reducer->staged = GS_STAGED_RECORD;
    return enqueue(&(call){runEncode, sendbuff, record, GS_SUM, reducer}, sizeof(call), stream);
}

static gsResult_t sumParts(gsReducer_t r, const void *parts, void *seal, gsStream_t stream)
{
    GS_CHECK(r->comm->backend->fill(seal, 0, GS_SEAL_BYTES, stream));
    return gsScatterSum(r, parts, seal, stream);
}

static gsResult_t runSumParts(const call *c, gsStream_t stream)
{
    gsRangeBegin(c->reducer, GS_RANGE_SUM_PARTS);
    return endCall(c->reducer, sumParts(c->reducer, c->from, c->to, stream));
}

gsResult_t gsSumParts(const void *parts, void *seal, gsReducer_t reducer, gsStream_t stream)
{
    GS_CHECK(gsHalfExpect(reducer, GS_HALF_SCATTER));
    GS_CHECK(checkStage(reducer, "parts", parts));
    GS_CHECK(checkStage(reducer, "seal", seal));
    if (reducer->staged == GS_STAGED_NOTHING)
        return gsFail(GS_ERROR_INVALID_USAGE, "gsSumParts without the gsEncode of the same step");
    reducer->staged = GS_STAGED_SUM;
    return enqueue(&(call){runSumParts, parts, seal, GS_SUM, reducer}, sizeof(call), stream);
}

static gsResult_t decodeBuffer(gsReducer_t r, const void *records, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    void *to;
    GS_CHECK(placeBuffer(r, GS_RESULTS, recvbuff, &to, stream));
    GS_CHECK(r->spec.half ? gsScatterDecode(r, records, to, op, stream) : accumulate(r, r, records, to, op, stream));
    return commit(r, stream);
}

static gsResult_t runDecode(const call *c, gsStream_t stream)
{
    gsRangeBegin(c->reducer, GS_RANGE_DECODE);
    return endCall(c->reducer, decodeBuffer(c->reducer, c->from, c->to, c->op, stream));
}

gsResult_t gsDecode(const void *records, void *recvbuff, size_t count, gsDataType_t type, gsRedOp_t op,
                    gsReducer_t reducer, gsStream_t stream)
{
    GS_CHECK(checkElements(reducer, count, type));
    GS_CHECK(checkOp(op));
    GS_CHECK(checkStage(reducer, "records", records));
    if (count)
        GS_CHECK(checkBuffer("recvbuff", -1, recvbuff, type));
    if (reducer->staged != (reducer->spec.half ? GS_STAGED_SUM : GS_STAGED_RECORD))
        return gsFail(GS_ERROR_INVALID_USAGE, "gsDecode without the %s of the same step",
                      reducer->spec.half ? "gsSumParts" : "gsEncode");
    return enqueue(&(call){runDecode, records, recvbuff, op, reducer}, sizeof(call), stream);
}
