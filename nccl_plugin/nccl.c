/*
 * nccl.c: ranks as NCCL ranks. Records travel by ncclAllGather, the dense sum is NCCL's own.
 *
 * The hot calls only enqueue, and may be captured into a graph. The deadline is watched where the host waits: in
 * gsCommSynchronize and while reducers are made. Whatever fails the communicator calls ncclCommAbort, once: from then
 * on the ncclComm_t is gone, for its owner too. Otherwise it stays the caller's, and gsCommDestroy leaves it alone.
 */
#include "../src/core.h"
#include "../src/transport/wait.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

typedef struct {
    ncclComm_t nccl;
    pthread_mutex_t life; /* held by ncclCommAbort, which frees `nccl`, and by the polls that it must not overtake */
    atomic_int failed;    /* gsResult_t; for good, `nccl` is gone */
    cudaStream_t stream;  /* of set-up exchanges */
} link_t;

/* ---- failures ---------------------------------------------------------------------------------------------------- */

static gsResult_t checkNccl(const char *what, ncclResult_t code)
{
    if (code == ncclSuccess)
        return GS_SUCCESS;
    return gsFail(GS_ERROR_TRANSPORT, "%s: %s: %s", what, ncclGetErrorString(code), ncclGetLastError(NULL));
}

static gsResult_t checkCuda(const char *what, cudaError_t code)
{
    if (code == cudaSuccess)
        return GS_SUCCESS;
    return gsFail(GS_ERROR_DEVICE, "%s: %s", what, cudaGetErrorString(code));
}

static gsResult_t checkUsable(link_t *link)
{
    gsResult_t failed = (gsResult_t)atomic_load(&link->failed);
    if (failed == GS_SUCCESS)
        return GS_SUCCESS;
    if (failed == GS_ERROR_ABORTED)
        return gsFail(GS_ERROR_ABORTED, "gsCommAbort was called on this communicator");
    return gsFail(GS_ERROR_INVALID_USAGE, "this communicator has failed for good (%s); destroy it and make another",
                  gsGetErrorString(failed));
}

/* The first reason wins, and only it aborts: false for all others. */
static bool failForGood(link_t *link, gsResult_t reason)
{
    int none = GS_SUCCESS;
    if (!atomic_compare_exchange_strong(&link->failed, &none, reason))
        return false;
    pthread_mutex_lock(&link->life);
    ncclCommAbort(link->nccl);
    pthread_mutex_unlock(&link->life);
    return true;
}

/* What NCCL says of the communicator; ncclInProgress while somebody else is asking or has aborted it. */
static ncclResult_t ncclState(link_t *link)
{
    ncclResult_t state = ncclInProgress;
    if (pthread_mutex_trylock(&link->life) != 0)
        return state;
    if (atomic_load(&link->failed) == GS_SUCCESS && ncclCommGetAsyncError(link->nccl, &state) != ncclSuccess)
        state = ncclInternalError;
    pthread_mutex_unlock(&link->life);
    return state;
}

static gsResult_t checkState(link_t *link, ncclResult_t state)
{
    if (state == ncclSuccess || state == ncclInProgress)
        return GS_SUCCESS;
    if (!failForGood(link, GS_ERROR_TRANSPORT))
        return checkUsable(link);
    return checkNccl("NCCL", state);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

/* A moment's pause; an error once there is nothing left to wait for. */
static gsResult_t pauseOrFail(gsComm_t comm, gsWait *wait)
{
    link_t *link = comm->impl;
    GS_CHECK(checkUsable(link));
    GS_CHECK(checkState(link, ncclState(link)));
    if (gsWaitPause(wait))
        return GS_SUCCESS;
    if (!failForGood(link, GS_ERROR_TIMEOUT))
        return checkUsable(link);
    return gsFail(GS_ERROR_TIMEOUT, "rank %d waited %lld ms for the stream; the communicator is aborted", comm->rank,
                  (long long)comm->timeoutMs);
}

/* Work that has ended may have been ended by a failure. */
static gsResult_t checkEnd(gsComm_t comm, gsWait *wait)
{
    link_t *link = comm->impl;
    ncclResult_t state = ncclState(link);
    for (; state == ncclInProgress; state = ncclState(link))
        GS_CHECK(pauseOrFail(comm, wait));
    return checkState(link, state);
}

static gsResult_t awaitStream(gsComm_t comm, cudaStream_t stream)
{
    gsWait wait = gsWaitBegin(comm->timeoutMs);
    for (;;) {
        cudaError_t state = cudaStreamQuery(stream);
        if (state == cudaSuccess)
            return checkEnd(comm, &wait);
        if (state != cudaErrorNotReady)
            return checkCuda("cudaStreamQuery", state);
        cudaGetLastError(); /* "not ready" is no error to leave behind */
        GS_CHECK(pauseOrFail(comm, &wait));
    }
}

/* Communicators made with blocking = 0 enqueue in the background. */
static gsResult_t awaitEnqueued(gsComm_t comm, const char *what, ncclResult_t code)
{
    link_t *link = comm->impl;
    gsWait wait = gsWaitBegin(comm->timeoutMs);
    while (code == ncclInProgress) {
        GS_CHECK(pauseOrFail(comm, &wait));
        code = ncclState(link);
    }
    return checkNccl(what, code);
}

/* ---- the transport ----------------------------------------------------------------------------------------------- */

static gsResult_t ncclTransportAllGather(gsComm_t comm, const void *send, void *recv, size_t bytes, gsStream_t stream)
{
    link_t *link = comm->impl;
    GS_CHECK(checkUsable(link));
    return awaitEnqueued(comm, "ncclAllGather", ncclAllGather(send, recv, bytes, ncclUint8, link->nccl, stream));
}

static gsResult_t ncclTransportAllReduce(gsComm_t comm, const void *send, void *recv, size_t count, gsDataType_t type,
                                         gsRedOp_t op, gsStream_t stream)
{
    link_t *link = comm->impl;
    GS_CHECK(checkUsable(link));
    return awaitEnqueued(comm, "ncclAllReduce",
                         ncclAllReduce(send, recv, count, (ncclDataType_t)type, (ncclRedOp_t)op, link->nccl, stream));
}

/* all: `bytes` of device memory for each rank. */
static gsResult_t gatherThrough(gsComm_t comm, const void *send, void *recv, size_t bytes, char *all)
{
    link_t *link = comm->impl;
    char *own = all + (size_t)comm->rank * bytes;
    size_t total = (size_t)comm->nranks * bytes;
    GS_CHECK(checkCuda("cudaMemcpyAsync", cudaMemcpyAsync(own, send, bytes, cudaMemcpyHostToDevice, link->stream)));
    GS_CHECK(ncclTransportAllGather(comm, own, all, bytes, link->stream));
    GS_CHECK(awaitStream(comm, link->stream));
    GS_CHECK(checkCuda("cudaMemcpyAsync", cudaMemcpyAsync(recv, all, total, cudaMemcpyDeviceToHost, link->stream)));
    return awaitStream(comm, link->stream);
}

static gsResult_t ncclTransportAllGatherHost(gsComm_t comm, const void *send, void *recv, size_t bytes)
{
    void *all = NULL;
    GS_CHECK(checkUsable(comm->impl));
    GS_CHECK(checkCuda("cudaMalloc", cudaMalloc(&all, (size_t)comm->nranks * bytes)));
    gsResult_t result = gatherThrough(comm, send, recv, bytes, all);
    cudaFree(all);
    return result;
}

static gsResult_t ncclTransportSynchronize(gsComm_t comm, gsStream_t stream)
{
    GS_CHECK(checkUsable(comm->impl));
    return awaitStream(comm, stream);
}

static gsResult_t ncclTransportAsyncError(gsComm_t comm)
{
    link_t *link = comm->impl;
    ncclResult_t state = ncclState(link);
    gsResult_t failed = (gsResult_t)atomic_load(&link->failed);
    if (failed != GS_SUCCESS)
        return failed;
    return state == ncclSuccess || state == ncclInProgress ? GS_SUCCESS : GS_ERROR_TRANSPORT;
}

static gsResult_t ncclTransportAbort(gsComm_t comm)
{
    failForGood(comm->impl, GS_ERROR_ABORTED);
    return GS_SUCCESS;
}

static void ncclTransportDestroy(gsComm_t comm)
{
    link_t *link = comm->impl;
    if (!link)
        return; /* never connected */
    cudaStreamDestroy(link->stream);
    pthread_mutex_destroy(&link->life);
    free(link);
}

static const gsTransport ncclTransport = {
    .name = "nccl",
    .allGather = ncclTransportAllGather,
    .allReduce = ncclTransportAllReduce,
    .allGatherHost = ncclTransportAllGatherHost,
    .synchronize = ncclTransportSynchronize,
    .asyncError = ncclTransportAsyncError,
    .abort = ncclTransportAbort,
    .destroy = ncclTransportDestroy,
};

/* ---- beginning --------------------------------------------------------------------------------------------------- */

static gsResult_t checkDevice(ncclComm_t nccl)
{
    int current = -1, theirs = -1;
    GS_CHECK(checkCuda("cudaGetDevice", cudaGetDevice(&current)));
    GS_CHECK(checkNccl("ncclCommCuDevice", ncclCommCuDevice(nccl, &theirs)));
    if (current != theirs)
        return gsFail(GS_ERROR_INVALID_USAGE, "the current device is %d; expected the communicator's, %d", current,
                      theirs);
    return GS_SUCCESS;
}

static gsResult_t connect(gsComm_t comm, ncclComm_t nccl)
{
    cudaStream_t stream = NULL;
    GS_CHECK(checkCuda("cudaStreamCreateWithFlags", cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)));
    link_t *link = calloc(1, sizeof *link);
    if (!link) {
        cudaStreamDestroy(stream);
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "gsCommInitNccl: no %zu bytes for a communicator", sizeof *link);
    }
    link->nccl = nccl;
    link->stream = stream;
    pthread_mutex_init(&link->life, NULL);
    comm->impl = link;
    return GS_SUCCESS;
}

gsResult_t gsCommInitNccl(gsComm_t *comm, void *ncclComm, const gsCommConfig_t *config)
{
    int rank = 0, nranks = 0;
    ncclComm_t nccl = ncclComm;
    if (!nccl)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "ncclComm is NULL; expected an ncclComm_t");
    GS_CHECK(checkNccl("ncclCommUserRank", ncclCommUserRank(nccl, &rank)));
    GS_CHECK(checkNccl("ncclCommCount", ncclCommCount(nccl, &nranks)));
    GS_CHECK(checkDevice(nccl));
    GS_CHECK(gsCommMake(comm, &ncclTransport, &gsCudaBackend, rank, nranks, config));
    gsResult_t result = connect(*comm, nccl);
    if (result != GS_SUCCESS) {
        gsCommDestroy(*comm);
        *comm = NULL;
    }
    return result;
}
