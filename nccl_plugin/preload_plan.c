/*
 * A plan: a reducer for each place of a communicator's sequence. Reducers are single stages: records are encoded before the end of a
 * group, travel in it on the caller's communicator and stream, and are decoded behind it. A reduce-scatter's parts go to the slices'
 * owners, and what owners have met, their seals, to all in another exchange. After each call its state is copied to the host's
 * memory, in graphs too, where the next call, the program's watchdog and the report find errors and counts without waiting for the
 * device.
 */
#include "preload.h"

#include <stdlib.h>
#include <string.h>

/* What single stages, and so a wrapper that may not wait, cannot do. */
static const char *refusalOf(const gsReducer_t r)
{
    if (r->spec.select == GS_SELECT_DENSE)
        return "it compresses nothing";
    if (gsSpecIsExact(&r->spec) || (gsSpecHasOwners(&r->spec) && !r->spec.half) || r->nodes.ranks)
        return "expected exchange=capacity";
    if (r->server || gsHasDenseSteps(&r->spec))
        return "expected a recipe without a second half and without dense steps";
    if (gsSpecReadsIterate(&r->spec))
        return "it compares iterates, which NCCL's calls do not tell";
    return NULL;
}

static gsReducerConfig_t configOf(const preloadSight *sight, uint32_t place)
{
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    config.recipe = preloadGetSettings()->recipe;
    config.count = sight->key.count;
    config.datatype = (gsDataType_t)sight->key.type;
    config.collective = sight->key.collective;
    config.seed = place; /* draws of one place are not those of another */
    return config;
}

/* No limit given: half of what is free now, for the program has more to allocate. */
static uint64_t limitOfDevice(void)
{
    size_t free = 0, total = 0;
    if (preloadGetSettings()->stateLimit)
        return (uint64_t)preloadGetSettings()->stateLimit;
    return cudaMemGetInfo(&free, &total) == cudaSuccess ? free / 2 : 0;
}

static gsResult_t addReducer(preloadPlan *plan, const gsReducerConfig_t *config, uint64_t *room)
{
    gsMemory_t memory;
    GS_CHECK(gsReducerGetMemory(config, plan->comm->nranks, &memory));
    uint64_t bytes = memory.stateBytes + memory.wireBytes + memory.scratchBytes;
    if (bytes > *room)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "the reducer of place %u needs %llu bytes, %llu are left", plan->n,
                      (unsigned long long)bytes, (unsigned long long)*room);
    gsReducer_t *r = &plan->reducers[plan->n];
    GS_CHECK(gsReducerCreate(r, plan->comm, config));
    const char *refusal = refusalOf(*r);
    plan->n++;
    *room -= bytes;
    return refusal ? gsFail(GS_ERROR_UNSUPPORTED, "environment GS_RECIPE is \"%s\": %s", config->recipe, refusal)
                   : GS_SUCCESS;
}

static gsResult_t addReducers(preloadPlan *plan)
{
    uint64_t room = limitOfDevice();
    for (uint32_t place = 0; place < plan->period; place++) {
        gsReducerConfig_t config = configOf(&plan->sights[place], place);
        GS_CHECK(addReducer(plan, &config, &room));
    }
    return GS_SUCCESS;
}

static gsResult_t prepare(preloadPlan *plan, preloadComm *c, uint32_t period)
{
    plan->reducers = calloc(period, sizeof *plan->reducers);
    plan->sights = calloc(period, sizeof *plan->sights);
    if (!plan->reducers || !plan->sights ||
        cudaMallocHost((void **)&plan->states, period * sizeof *plan->states) != cudaSuccess)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory for a plan of %u places", period);
    memset(plan->states, 0, period * sizeof *plan->states);
    for (uint32_t place = 0; place < period; place++)
        plan->sights[place] = *preloadLearnSight(c->learner, period, place);
    plan->period = period;
    GS_CHECK(gsCommInitStagesCuda(&plan->comm, c->rank, c->nranks, NULL));
    return addReducers(plan);
}

preloadPlan *preloadPlanMake(preloadComm *c, uint32_t period)
{
    preloadPlan *plan = calloc(1, sizeof *plan);
    if (!plan)
        return NULL;
    gsResult_t result = prepare(plan, c, period);
    if (result != GS_SUCCESS)
        preloadReportWhy(gsGetLastError());
    if (result == GS_ERROR_UNSUPPORTED)
        preloadPlanCut(plan, 0);
    return plan;
}

static bool beginsAt(const preloadPlan *plan, uint32_t turn, const preloadLearner *l)
{
    for (uint32_t place = 0; place < plan->period; place++)
        if (!preloadSameSight(&plan->sights[(place + turn) % plan->period], preloadLearnSight(l, plan->period, place)))
            return false;
    return true;
}

int64_t preloadPlanTurn(const preloadPlan *plan, const preloadLearner *l, uint32_t period)
{
    if (!plan || plan->period != period || plan->n != period)
        return -1;
    for (uint32_t turn = 0; turn < period; turn++)
        if (beginsAt(plan, turn, l))
            return turn;
    return -1;
}

/* What the devices have counted, replays of graphs included. */
static void tally(const preloadPlan *plan, uint32_t place)
{
    const gsSpec *s = &plan->reducers[place]->spec;
    const gsCounters *n = &plan->states[place].counters;
    uint64_t others = s->nranks - 1, rounds = s->half ? 1 : 2, bytes = s->count * gsTypeWidth(s->type);
    uint64_t sent = s->half ? s->partSlot + GS_SEAL_BYTES : s->slotBytes;
    preloadCounts.exchanges += n->calls;
    preloadCounts.nonFinite += n->nonFinite;
    preloadCounts.faults += plan->states[place].fault != GS_FAULT_NONE;
    preloadCounts.wireBytes += n->calls * others * sent;
    preloadCounts.denseBytes += n->calls * (rounds * others * bytes / s->nranks);
}

void preloadPlanTally(const preloadPlan *plan)
{
    for (uint32_t place = 0; plan && place < plan->n; place++)
        tally(plan, place);
}

void preloadPlanCut(preloadPlan *plan, uint32_t n)
{
    while (plan->n > n)
        gsReducerDestroy(plan->reducers[--plan->n]);
}

void preloadPlanFree(preloadPlan *plan)
{
    if (!plan)
        return;
    cudaDeviceSynchronize(); /* the last states are on their way */
    preloadPlanTally(plan);
    preloadPlanCut(plan, 0);
    gsCommDestroy(plan->comm);
    cudaFreeHost(plan->states);
    preloadClockFree(&plan->clock);
    free(plan->sights);
    free(plan->reducers);
    free(plan);
}

/* ---- calls ---- */

static gsReducer_t reducerOf(const preloadCall *call)
{
    return call->plan->reducers[call->place];
}

static ncclResult_t errorOf(const gsState *state)
{
    if (state->fault == GS_FAULT_NONE)
        return ncclSuccess;
    gsVerdictError(state);
    return gsIsMismatch(state->fault) ? ncclInvalidUsage : ncclRemoteError;
}

ncclResult_t preloadPlanError(const preloadPlan *plan)
{
    for (uint32_t place = 0; plan && place < plan->n; place++)
        PRELOAD_CHECK(errorOf(&plan->states[place]));
    return ncclSuccess;
}

static void mark(const preloadCall *call, preloadTime when)
{
    preloadClockMark(&call->plan->clock, when, call->place, call->stream);
}

ncclResult_t preloadEncode(const preloadCall *call)
{
    gsReducer_t r = reducerOf(call);
    PRELOAD_CHECK(errorOf(&call->plan->states[call->place]));
    preloadClockBegin(&call->plan->clock, call->place, call->stream);
    PRELOAD_CHECK(preloadFromGs(
        gsEncode(call->send, r->sendRecord, gsCallElements(r), (gsDataType_t)r->spec.type, r, call->stream)));
    mark(call, PRELOAD_ENCODED);
    return ncclSuccess;
}

/* Part q to rank q, this one too. */
static ncclResult_t tradeParts(const preloadCall *call)
{
    const preloadNccl *nccl = preloadFindNccl();
    gsReducer_t r = reducerOf(call);
    size_t bytes = r->spec.partSlot;
    ncclResult_t result = ncclSuccess;
    for (int q = 0; q < call->comm->nranks && preloadSucceeded(result); q++) {
        size_t at = (size_t)q * bytes;
        result = nccl->ncclSend(r->sendRecord + at, bytes, ncclUint8, q, call->comm->nccl, call->stream);
        if (preloadSucceeded(result))
            result = nccl->ncclRecv(r->recvRecords + at, bytes, ncclUint8, q, call->comm->nccl, call->stream);
    }
    return result;
}

ncclResult_t preloadExchange(const preloadCall *call)
{
    const preloadNccl *nccl = preloadFindNccl();
    gsReducer_t r = reducerOf(call);
    if (!r->spec.half)
        return nccl->ncclAllGather(r->sendRecord, r->recvRecords, r->spec.slotBytes, ncclUint8, call->comm->nccl,
                                   call->stream);
    PRELOAD_CHECK(nccl->ncclGroupStart());
    ncclResult_t result = tradeParts(call), end = nccl->ncclGroupEnd();
    return preloadSucceeded(result) ? end : result;
}

bool preloadHasSeals(const preloadCall *call)
{
    return reducerOf(call)->spec.half != GS_HALF_NONE;
}

/* Of an all-reduce there is nothing to sum before its records are decoded. */
ncclResult_t preloadSum(const preloadCall *call)
{
    gsReducer_t r = reducerOf(call);
    mark(call, PRELOAD_SUMS);
    if (preloadHasSeals(call))
        PRELOAD_CHECK(preloadFromGs(gsSumParts(r->recvRecords, gsHalfOwnSeal(r), r, call->stream)));
    mark(call, PRELOAD_SUMMED);
    return ncclSuccess;
}

ncclResult_t preloadExchangeSeals(const preloadCall *call)
{
    gsReducer_t r = reducerOf(call);
    return preloadFindNccl()->ncclAllGather(gsHalfOwnSeal(r), r->seals, GS_SEAL_BYTES, ncclUint8, call->comm->nccl,
                                            call->stream);
}

ncclResult_t preloadDecode(const preloadCall *call)
{
    gsReducer_t r = reducerOf(call);
    gsState *mirror = &call->plan->states[call->place];
    const void *records = preloadHasSeals(call) ? (void *)r->seals : r->recvRecords;
    mark(call, PRELOAD_DECODES);
    PRELOAD_CHECK(preloadFromGs(gsDecode(records, call->recv, gsCallElements(r), (gsDataType_t)r->spec.type,
                                         (gsRedOp_t)call->op, r, call->stream)));
    mark(call, PRELOAD_DECODED);
    return preloadFromCuda(cudaMemcpyAsync(mirror, r->state, sizeof *mirror, cudaMemcpyDeviceToHost, call->stream));
}
