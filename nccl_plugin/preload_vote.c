/*
 * Votes: the one thing that ranks say to each other while they learn, by one small exact all-reduce on the caller's communicator and
 * stream. A rank has made its reducers before, so that one that has no memory for them is heard of. The host waits for the
 * outcome; the first vote compares settings alone; it comes behind a communicator's first call that any settings would compress, for that
 * is the same one on all ranks.
 */
#include "preload.h"

/* The least of all ranks' is what counts. Of a value and its negative, the least tell whether all had the same. */
enum { PERIOD, MINUS_PERIOD, TURN, MINUS_TURN, PLACES, SETTINGS, MINUS_SETTINGS, BALLOT };

bool preloadIsCaptured(cudaStream_t stream)
{
    enum cudaStreamCaptureStatus status = cudaStreamCaptureStatusActive;
    return cudaStreamIsCapturing(stream, &status) != cudaSuccess || status != cudaStreamCaptureStatusNone;
}

bool preloadWantsVote(const preloadComm *c, cudaStream_t stream)
{
    bool usable = c->passes == PASS_NOT && c->failed == ncclSuccess;
    bool due = usable && c->met && (!c->greeted || preloadLearnIsDue(c->learner));
    return due && !preloadIsCaptured(stream);
}

static ncclResult_t makeBallot(preloadComm *c)
{
    if (c->ballot)
        return ncclSuccess;
    PRELOAD_CHECK(preloadFromCuda(cudaMallocHost((void **)&c->hostBallot, BALLOT * sizeof *c->hostBallot)));
    return preloadFromCuda(cudaMalloc((void **)&c->ballot, BALLOT * sizeof *c->ballot));
}

/* Earlier plans, but for those that graphs hold. */
static void freeOld(preloadComm *c)
{
    pthread_mutex_lock(&c->life);
    for (preloadPlan **at = &c->old; *at;) {
        preloadPlan *plan = *at;
        if (plan->captured) {
            at = &plan->next;
            continue;
        }
        *at = plan->next;
        preloadPlanFree(plan);
    }
    pthread_mutex_unlock(&c->life);
}

/* The plan that was followed last, if it is the same again, or another. */
static void propose(preloadVoter *v)
{
    preloadComm *c = v->comm;
    v->turn = -1;
    if (!c->greeted)
        return;
    v->period = preloadLearnProposal(c->learner);
    if (v->period)
        v->turn = preloadPlanTurn(c->old, c->learner, v->period);
    if (v->turn >= 0) {
        v->plan = c->old;
        return;
    }
    freeOld(c);
    v->plan = v->period ? preloadPlanMake(c, v->period) : NULL;
    if (!v->plan)
        v->period = 0;
}

static void fill(const preloadVoter *v)
{
    int64_t settings = (int64_t)(preloadGetSettings()->hash >> 1), *ballot = v->comm->hostBallot;
    ballot[PERIOD] = v->period;
    ballot[MINUS_PERIOD] = -(int64_t)v->period;
    ballot[TURN] = v->turn;
    ballot[MINUS_TURN] = -v->turn;
    ballot[PLACES] = v->plan ? v->plan->n : 0;
    ballot[SETTINGS] = settings;
    ballot[MINUS_SETTINGS] = -settings;
}

static ncclResult_t prepare(preloadVoter *v)
{
    preloadComm *c = v->comm;
    PRELOAD_CHECK(makeBallot(c));
    propose(v);
    fill(v);
    return preloadFromCuda(
        cudaMemcpyAsync(c->ballot, c->hostBallot, BALLOT * sizeof *c->ballot, cudaMemcpyHostToDevice, v->stream));
}

static ncclResult_t collect(preloadVoter *v)
{
    preloadComm *c = v->comm;
    PRELOAD_CHECK(preloadAwaitEnqueued(c, ncclInProgress));
    PRELOAD_CHECK(preloadFromCuda(
        cudaMemcpyAsync(c->hostBallot, c->ballot, BALLOT * sizeof *c->ballot, cudaMemcpyDeviceToHost, v->stream)));
    return preloadAwaitStream(c, v->stream);
}

static bool isSame(const int64_t *least, int value, int minus)
{
    return least[value] == -least[minus];
}

static void adopt(preloadVoter *v)
{
    preloadComm *c = v->comm;
    preloadLearnAdopt(c->learner, v->period);
    preloadCounts.plans++;
    preloadCounts.resumed += v->turn >= 0;
    pthread_mutex_lock(&c->life);
    if (v->turn >= 0)
        c->old = v->plan->next;
    v->plan->turn = v->turn >= 0 ? (uint32_t)v->turn : 0;
    c->plan = v->plan;
    pthread_mutex_unlock(&c->life);
}

/* Ranks that would have taken up an earlier plan give it up as well: the next proposal is for new reducers on all. */
static void refuse(preloadVoter *v)
{
    preloadLearnRefuse(v->comm->learner);
    preloadCounts.refused++;
    if (v->turn < 0)
        preloadPlanFree(v->plan);
    freeOld(v->comm);
}

/* Alike on all ranks from here on. */
static void decide(preloadVoter *v)
{
    preloadComm *c = v->comm;
    const int64_t *least = c->hostBallot;
    bool greeting = !c->greeted;
    c->greeted = true;
    if (!isSame(least, SETTINGS, MINUS_SETTINGS))
        c->passes = PASS_SETTINGS;
    if (greeting)
        return;
    if (least[PERIOD] == 0 || !isSame(least, PERIOD, MINUS_PERIOD) || !isSame(least, TURN, MINUS_TURN)) {
        refuse(v);
        return;
    }
    preloadPlanCut(v->plan, (uint32_t)least[PLACES]);
    adopt(v);
}

/* With its device, and with leave to do what a capture elsewhere in the process forbids. */
static ncclResult_t with(preloadVoter *v, ncclResult_t (*step)(preloadVoter *))
{
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    int previous = preloadEnterDevice(v->comm);
    cudaThreadExchangeStreamCaptureMode(&mode);
    ncclResult_t result = step(v);
    cudaThreadExchangeStreamCaptureMode(&mode);
    preloadLeaveDevice(v->comm, previous);
    return result;
}

static ncclResult_t conclude(preloadVoter *v)
{
    ncclResult_t result = collect(v);
    if (result == ncclSuccess)
        decide(v);
    else if (v->plan && v->turn < 0) /* to free it now would wait for what may never end */
        preloadCommRetire(v->comm, v->plan);
    return result;
}

static ncclResult_t castAll(preloadVoter *voters, size_t n)
{
    const preloadNccl *nccl = preloadFindNccl();
    ncclResult_t result = nccl->ncclGroupStart();
    for (size_t i = 0; i < n && preloadSucceeded(result); i++)
        result = nccl->ncclAllReduce(voters[i].comm->ballot, voters[i].comm->ballot, BALLOT, ncclInt64, ncclMin,
                                     voters[i].comm->nccl, voters[i].stream);
    ncclResult_t end = nccl->ncclGroupEnd();
    return preloadSucceeded(result) ? end : result;
}

ncclResult_t preloadVote(preloadVoter *voters, size_t n)
{
    ncclResult_t result = ncclSuccess;
    for (size_t i = 0; i < n && result == ncclSuccess; i++)
        result = with(&voters[i], prepare);
    if (result == ncclSuccess)
        result = castAll(voters, n);
    for (size_t i = 0; i < n; i++) {
        ncclResult_t one = preloadSucceeded(result) ? with(&voters[i], conclude) : result;
        if (!preloadSucceeded(one))
            voters[i].comm->failed = one;
        result = preloadSucceeded(one) ? result : one;
    }
    return preloadSucceeded(result) ? ncclSuccess : result;
}
