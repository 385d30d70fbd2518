/*
 * Communicators, known from their first call on and until they are destroyed or aborted. Another thread may abort one while a call is
 * under way: what a communicator holds goes with the last thread that is in it.
 */
#include "preload.h"
#include "../src/transport/wait.h"

#include <stdlib.h>

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static preloadComm *all;

ncclResult_t preloadFromCuda(cudaError_t code)
{
    return code == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t preloadFromGs(gsResult_t code)
{
    switch (code) {
    case GS_SUCCESS: return ncclSuccess;
    case GS_ERROR_INVALID_ARGUMENT: return ncclInvalidArgument;
    case GS_ERROR_DEVICE: return ncclUnhandledCudaError;
    default: return ncclInternalError;
    }
}

const preloadComm *preloadCommList(void)
{
    pthread_mutex_lock(&guard);
    const preloadComm *first = all;
    pthread_mutex_unlock(&guard);
    return first;
}

static preloadComm *make(ncclComm_t handle)
{
    const preloadNccl *nccl = preloadFindNccl();
    preloadComm *c = calloc(1, sizeof *c);
    if (!c || nccl->ncclCommCount(handle, &c->nranks) != ncclSuccess ||
        nccl->ncclCommUserRank(handle, &c->rank) != ncclSuccess ||
        nccl->ncclCommCuDevice(handle, &c->device) != ncclSuccess || !(c->learner = calloc(1, sizeof *c->learner))) {
        free(c);
        return NULL;
    }
    c->nccl = handle;
    c->passes = preloadGetSettings()->disabled ? PASS_DISABLED : c->nranks == 1 ? PASS_ALONE : PASS_NOT;
    pthread_mutex_init(&c->life, NULL);
    preloadReportAtExit();
    c->next = all;
    all = c;
    return c;
}

static preloadComm *find(ncclComm_t handle)
{
    for (preloadComm *c = all; c; c = c->next)
        if (c->nccl == handle && !c->gone)
            return c;
    return NULL;
}

preloadComm *preloadCommEnter(ncclComm_t handle, bool known)
{
    pthread_mutex_lock(&guard);
    preloadComm *c = find(handle);
    if (!c && !known)
        c = make(handle);
    if (c)
        c->users++;
    pthread_mutex_unlock(&guard);
    return c;
}

void preloadCommRetire(preloadComm *c, preloadPlan *plan)
{
    pthread_mutex_lock(&c->life);
    if (c->plan == plan)
        c->plan = NULL;
    plan->next = c->old;
    c->old = plan;
    pthread_mutex_unlock(&c->life);
}

void preloadCommStay(preloadComm *c)
{
    pthread_mutex_lock(&guard);
    c->users++;
    pthread_mutex_unlock(&guard);
}

ncclResult_t preloadCommError(preloadComm *c)
{
    pthread_mutex_lock(&c->life);
    ncclResult_t error = c->failed == ncclSuccess ? preloadPlanError(c->plan) : c->failed;
    pthread_mutex_unlock(&c->life);
    return error;
}

static void release(preloadComm *c)
{
    int previous = preloadEnterDevice(c);
    preloadPlanFree(c->plan);
    for (preloadPlan *next, *plan = c->old; plan; plan = next) {
        next = plan->next;
        preloadPlanFree(plan);
    }
    c->plan = c->old = NULL;
    cudaFree(c->ballot);
    cudaFreeHost(c->hostBallot);
    free(c->learner);
    preloadLeaveDevice(c, previous);
}

void preloadCommLeave(preloadComm *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&guard);
    bool last = --c->users == 0 && c->gone;
    pthread_mutex_unlock(&guard);
    if (last)
        release(c);
}

ncclResult_t preloadCommEnd(ncclComm_t handle, ncclResult_t (*end)(ncclComm_t))
{
    preloadComm *c = preloadCommEnter(handle, true);
    if (!c)
        return end(handle);
    pthread_mutex_lock(&c->life);
    c->gone = true;
    ncclResult_t result = end(handle);
    pthread_mutex_unlock(&c->life);
    preloadCommLeave(c);
    return result;
}

/* ---- waiting, with NCCL's errors and the deadline ---- */

/* What NCCL says of the communicator; an error once another thread has ended it. */
static ncclResult_t stateOf(preloadComm *c)
{
    ncclResult_t state = ncclInternalError;
    pthread_mutex_lock(&c->life);
    if (c->gone || preloadFindNccl()->ncclCommGetAsyncError(c->nccl, &state) != ncclSuccess)
        state = ncclInternalError;
    pthread_mutex_unlock(&c->life);
    return state;
}

ncclResult_t preloadAwaitEnqueued(preloadComm *c, ncclResult_t code)
{
    gsWait wait = gsWaitBegin(preloadGetSettings()->timeoutMs);
    while (code == ncclInProgress) {
        if (!gsWaitPause(&wait))
            return ncclRemoteError;
        code = stateOf(c);
    }
    return code;
}

ncclResult_t preloadAwaitStream(preloadComm *c, cudaStream_t stream)
{
    gsWait wait = gsWaitBegin(preloadGetSettings()->timeoutMs);
    for (;;) {
        cudaError_t done = cudaStreamQuery(stream);
        if (done == cudaSuccess)
            return preloadAwaitEnqueued(c, stateOf(c));
        if (done != cudaErrorNotReady)
            return preloadFromCuda(done);
        cudaGetLastError(); /* "not ready" is no error to leave behind */
        ncclResult_t state = stateOf(c);
        if (!preloadSucceeded(state))
            return state;
        if (!gsWaitPause(&wait))
            return ncclRemoteError;
    }
}
