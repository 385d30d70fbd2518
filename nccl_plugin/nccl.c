/*
 * nccl.c: ranks as NCCL ranks. Records travel by ncclAllGather, or as grouped sends; the dense sum is NCCL's own.
 *
 * The hot calls only enqueue, and may be captured into a graph, but for those that move records of true length: their host
 * waits for the lengths. The deadline is watched where the host waits: there, in gsCommSynchronize and while reducers are
 * made. Whatever fails the communicator calls ncclCommAbort, once, for it and for its parts: from then on the ncclComm_t is
 * gone, for its owner too. Otherwise it stays the caller's, and gsCommDestroy leaves it alone; parts are destroyed there.
 */
#include "../src/core.h"
#include "../src/hash.h"
#include "../src/transport/wait.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* impl of a part */
typedef struct part {
    ncclComm_t nccl;
    struct part *next;
} part_t;

/* What all parts of a communicator share. */
typedef struct {
    ncclComm_t nccl;
    part_t *parts;
    pthread_mutex_t
        life; /* held by ncclCommAbort, which frees what is in `nccl`, and by the polls that it must not overtake */
    atomic_int failed;             /* gsResult_t; for good, `nccl` is gone */
    cudaStream_t stream;           /* of set-up exchanges */
    size_t *sendBytes, *recvBytes; /* of grouped sends: to each rank, and from each */
    uint64_t *hostLengths;         /* pinned: own, then everybody's */
    uint64_t *lengths;             /* the same on the device */
} link_t;

static link_t *linkOf(gsComm_t comm)
{
    return gsCommWhole(comm)->impl;
}

static ncclComm_t ncclOf(gsComm_t comm)
{
    return comm->parent ? ((part_t *)comm->impl)->nccl : linkOf(comm)->nccl;
}

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
    for (part_t *part = link->parts; part; part = part->next)
        ncclCommAbort(part->nccl);
    pthread_mutex_unlock(&link->life);
    return true;
}

static ncclResult_t stateOf(ncclComm_t nccl)
{
    ncclResult_t state = ncclInternalError;
    return ncclCommGetAsyncError(nccl, &state) == ncclSuccess ? state : ncclInternalError;
}

/* What NCCL says of the communicator and its parts; ncclInProgress while somebody else is asking or has aborted them. */
static ncclResult_t ncclState(link_t *link)
{
    ncclResult_t state = ncclInProgress;
    if (pthread_mutex_trylock(&link->life) != 0)
        return state;
    if (atomic_load(&link->failed) == GS_SUCCESS) {
        state = stateOf(link->nccl);
        for (part_t *part = link->parts; part && state == ncclSuccess; part = part->next)
            state = stateOf(part->nccl);
    }
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
    link_t *link = linkOf(comm);
    gsComm_t whole = gsCommWhole(comm);
    GS_CHECK(checkUsable(link));
    GS_CHECK(checkState(link, ncclState(link)));
    if (gsWaitPause(wait))
        return GS_SUCCESS;
    if (!failForGood(link, GS_ERROR_TIMEOUT))
        return checkUsable(link);
    return gsFail(GS_ERROR_TIMEOUT, "rank %d waited %lld ms for the stream; the communicator is aborted", whole->rank,
                  (long long)whole->timeoutMs);
}

/* Work that has ended may have been ended by a failure. */
static gsResult_t checkEnd(gsComm_t comm, gsWait *wait)
{
    link_t *link = linkOf(comm);
    ncclResult_t state = ncclState(link);
    for (; state == ncclInProgress; state = ncclState(link))
        GS_CHECK(pauseOrFail(comm, wait));
    return checkState(link, state);
}

/* What waits for a stream cannot be part of a graph. */
static gsResult_t checkNotCaptured(cudaStream_t stream)
{
    enum cudaStreamCaptureStatus status;
    GS_CHECK(checkCuda("cudaStreamIsCapturing", cudaStreamIsCapturing(stream, &status)));
    if (status == cudaStreamCaptureStatusNone)
        return GS_SUCCESS;
    return gsFail(
        GS_ERROR_INVALID_USAGE,
        "the stream is being captured, and this call waits for it; in graphs, expected recipes that send slots "
        "of equal size (exchange=capacity)");
}

static gsResult_t awaitStream(gsComm_t comm, cudaStream_t stream)
{
    gsWait wait = gsWaitBegin(gsCommWhole(comm)->timeoutMs);
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
    link_t *link = linkOf(comm);
    gsWait wait = gsWaitBegin(gsCommWhole(comm)->timeoutMs);
    while (code == ncclInProgress) {
        GS_CHECK(pauseOrFail(comm, &wait));
        code = ncclState(link);
    }
    return checkNccl(what, code);
}

/* ---- the transport ----------------------------------------------------------------------------------------------- */

static gsResult_t ncclTransportAllGather(gsComm_t comm, const void *send, void *recv, size_t bytes, gsStream_t stream)
{
    GS_CHECK(checkUsable(linkOf(comm)));
    return awaitEnqueued(comm, "ncclAllGather", ncclAllGather(send, recv, bytes, ncclUint8, ncclOf(comm), stream));
}

static gsResult_t ncclTransportAllReduce(gsComm_t comm, const void *send, void *recv, size_t count, gsDataType_t type,
                                         gsRedOp_t op, gsStream_t stream)
{
    GS_CHECK(checkUsable(linkOf(comm)));
    return awaitEnqueued(comm, "ncclAllReduce",
                         ncclAllReduce(send, recv, count, (ncclDataType_t)type, (ncclRedOp_t)op, ncclOf(comm), stream));
}

static gsResult_t ncclTransportReduceScatter(gsComm_t comm, const void *send, void *recv, size_t countPerRank,
                                             gsDataType_t type, gsRedOp_t op, gsStream_t stream)
{
    GS_CHECK(checkUsable(linkOf(comm)));
    return awaitEnqueued(comm, "ncclReduceScatter",
                         ncclReduceScatter(send, recv, countPerRank, (ncclDataType_t)type, (ncclRedOp_t)op,
                                           ncclOf(comm), stream));
}

/* ---- grouped sends: as many bytes as the link says ---- */

/* Where parts begin: rank q's at send + q sendApart and at recv + q recvApart. */
typedef struct {
    const char *send;
    char *recv;
    size_t sendApart, recvApart;
} parcels_t;

static ncclResult_t enqueueParcels(gsComm_t comm, const parcels_t *p, cudaStream_t stream)
{
    const link_t *link = linkOf(comm);
    ncclResult_t code = ncclSuccess;
    for (int q = 0; q < comm->nranks && (code == ncclSuccess || code == ncclInProgress); q++) {
        size_t at = (size_t)q;
        if (q == comm->rank)
            continue;
        if (link->sendBytes[at])
            code = ncclSend(p->send + at * p->sendApart, link->sendBytes[at], ncclUint8, q, ncclOf(comm), stream);
        if (link->recvBytes[at] && (code == ncclSuccess || code == ncclInProgress))
            code = ncclRecv(p->recv + at * p->recvApart, link->recvBytes[at], ncclUint8, q, ncclOf(comm), stream);
    }
    return code;
}

static gsResult_t tradeParcels(gsComm_t comm, const parcels_t *p, cudaStream_t stream)
{
    const link_t *link = linkOf(comm);
    size_t own = (size_t)comm->rank;
    const char *from = p->send + own * p->sendApart;
    char *to = p->recv + own * p->recvApart;
    if (link->recvBytes[own] && from != to)
        GS_CHECK(checkCuda("cudaMemcpyAsync",
                           cudaMemcpyAsync(to, from, link->recvBytes[own], cudaMemcpyDeviceToDevice, stream)));
    GS_CHECK(checkNccl("ncclGroupStart", ncclGroupStart()));
    ncclResult_t code = enqueueParcels(comm, p, stream), end = ncclGroupEnd();
    return awaitEnqueued(comm, "grouped ncclSend and ncclRecv",
                         code == ncclSuccess || code == ncclInProgress ? end : code);
}

static size_t inside(size_t total, size_t begin, size_t slice)
{
    if (begin >= total)
        return 0;
    return total - begin < slice ? total - begin : slice;
}

static gsResult_t ncclTransportScatterSlices(gsComm_t comm, const void *send, size_t totalBytes, void *recv,
                                             size_t sliceBytes, gsStream_t stream)
{
    link_t *link = linkOf(comm);
    GS_CHECK(checkUsable(link));
    for (size_t q = 0; q < (size_t)comm->nranks; q++) {
        link->sendBytes[q] = inside(totalBytes, q * sliceBytes, sliceBytes);
        link->recvBytes[q] = inside(totalBytes, (size_t)comm->rank * sliceBytes, sliceBytes);
    }
    return tradeParcels(comm, &(parcels_t){send, recv, sliceBytes, sliceBytes}, stream);
}

/* Fetches what has come into the second half of `lengths`, and waits for it. */
static gsResult_t takeLengths(gsComm_t comm, size_t slot, cudaStream_t stream)
{
    link_t *link = linkOf(comm);
    size_t ranks = (size_t)comm->nranks;
    const uint64_t *incoming = link->hostLengths + ranks;
    GS_CHECK(checkCuda("cudaMemcpyAsync", cudaMemcpyAsync(link->hostLengths + ranks, link->lengths + ranks,
                                                          ranks * sizeof *incoming, cudaMemcpyDeviceToHost, stream)));
    GS_CHECK(awaitStream(comm, stream));
    for (size_t q = 0; q < ranks; q++) {
        if (incoming[q] > slot)
            return gsFail(GS_ERROR_MISMATCH, "rank %zu sends %llu bytes; expected at most %zu", q,
                          (unsigned long long)incoming[q], slot);
        link->recvBytes[q] = incoming[q];
    }
    return GS_SUCCESS;
}

static gsResult_t putLengths(link_t *link, size_t n, cudaStream_t stream)
{
    return checkCuda("cudaMemcpyAsync", cudaMemcpyAsync(link->lengths, link->hostLengths, n * sizeof *link->lengths,
                                                        cudaMemcpyHostToDevice, stream));
}

static gsResult_t ncclTransportAllGatherExact(gsComm_t comm, const void *send, size_t bytes, void *recv, size_t slot,
                                              gsStream_t stream)
{
    link_t *link = linkOf(comm);
    size_t ranks = (size_t)comm->nranks;
    GS_CHECK(checkUsable(link));
    GS_CHECK(checkNotCaptured(stream));
    link->hostLengths[0] = bytes;
    GS_CHECK(putLengths(link, 1, stream));
    GS_CHECK(ncclTransportAllGather(comm, link->lengths, link->lengths + ranks, sizeof *link->lengths, stream));
    GS_CHECK(takeLengths(comm, slot, stream));
    for (size_t q = 0; q < ranks; q++)
        link->sendBytes[q] = bytes;
    return tradeParcels(comm, &(parcels_t){send, recv, 0, slot}, stream);
}

static gsResult_t ncclTransportAllToAllExact(gsComm_t comm, const void *send, const size_t *bytes, void *recv,
                                             size_t slot, gsStream_t stream)
{
    link_t *link = linkOf(comm);
    size_t ranks = (size_t)comm->nranks;
    GS_CHECK(checkUsable(link));
    GS_CHECK(checkNotCaptured(stream));
    for (size_t q = 0; q < ranks; q++)
        link->hostLengths[q] = bytes[q];
    GS_CHECK(putLengths(link, ranks, stream));
    GS_CHECK(ncclTransportScatterSlices(comm, link->lengths, ranks * sizeof *link->lengths, link->lengths + ranks,
                                        sizeof *link->lengths, stream));
    GS_CHECK(takeLengths(comm, slot, stream));
    for (size_t q = 0; q < ranks; q++)
        link->sendBytes[q] = bytes[q];
    return tradeParcels(comm, &(parcels_t){send, recv, slot, slot}, stream);
}

/* ---- small host buffers ---- */

/* all: `bytes` of device memory for each rank. */
static gsResult_t gatherThrough(gsComm_t comm, const void *send, void *recv, size_t bytes, char *all)
{
    link_t *link = linkOf(comm);
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
    GS_CHECK(checkUsable(linkOf(comm)));
    GS_CHECK(checkCuda("cudaMalloc", cudaMalloc(&all, (size_t)comm->nranks * bytes)));
    gsResult_t result = gatherThrough(comm, send, recv, bytes, all);
    cudaFree(all);
    return result;
}

/* ---- parts and ends ---- */

/* An abort that came in between found nothing of it to abort. */
static gsResult_t adopt(link_t *link, part_t *part)
{
    pthread_mutex_lock(&link->life);
    bool late = atomic_load(&link->failed) != GS_SUCCESS;
    if (late)
        ncclCommAbort(part->nccl);
    part->next = link->parts;
    link->parts = late ? link->parts : part;
    pthread_mutex_unlock(&link->life);
    return checkUsable(link);
}

/* All ranks are there: ncclCommSplit, which may block without a deadline, does not wait long. */
static gsResult_t ncclTransportSplit(gsComm_t comm, int color, int key, gsComm_t *part)
{
    link_t *link = linkOf(comm);
    GS_CHECK(gsCommMakePart(comm, color, key, part));
    part_t *made = calloc(1, sizeof *made);
    if (!made)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no %zu bytes for a part", sizeof *made);
    (*part)->impl = made;
    GS_CHECK(awaitEnqueued(comm, "ncclCommSplit", ncclCommSplit(link->nccl, color, key, &made->nccl, NULL)));
    GS_CHECK(adopt(link, made));
    return awaitEnqueued(comm, "ncclCommSplit", ncclState(link));
}

static gsResult_t ncclTransportSynchronize(gsComm_t comm, gsStream_t stream)
{
    GS_CHECK(checkUsable(linkOf(comm)));
    GS_CHECK(checkNotCaptured(stream));
    return awaitStream(comm, stream);
}

static gsResult_t ncclTransportAsyncError(gsComm_t comm)
{
    link_t *link = linkOf(comm);
    ncclResult_t state = ncclState(link);
    gsResult_t failed = (gsResult_t)atomic_load(&link->failed);
    if (failed != GS_SUCCESS)
        return failed;
    return state == ncclSuccess || state == ncclInProgress ? GS_SUCCESS : GS_ERROR_TRANSPORT;
}

static gsResult_t ncclTransportAbort(gsComm_t comm)
{
    failForGood(linkOf(comm), GS_ERROR_ABORTED);
    return GS_SUCCESS;
}

static void freeLink(link_t *link)
{
    if (link->stream)
        cudaStreamDestroy(link->stream);
    cudaFree(link->lengths);
    cudaFreeHost(link->hostLengths);
    free(link->sendBytes);
    free(link->recvBytes);
    pthread_mutex_destroy(&link->life);
    free(link);
}

static void ncclTransportDestroy(gsComm_t comm)
{
    link_t *link = comm->impl;
    if (!link)
        return; /* never connected */
    for (part_t *part = link->parts; part && atomic_load(&link->failed) == GS_SUCCESS; part = part->next)
        ncclCommDestroy(part->nccl);
    for (gsComm_t part = comm->parts; part; part = part->next)
        free(part->impl);
    freeLink(link);
}

static const gsTransport ncclTransport = {
    .name = "nccl",
    .allGather = ncclTransportAllGather,
    .allGatherExact = ncclTransportAllGatherExact,
    .allToAllExact = ncclTransportAllToAllExact,
    .scatterSlices = ncclTransportScatterSlices,
    .allReduce = ncclTransportAllReduce,
    .reduceScatter = ncclTransportReduceScatter,
    .allGatherHost = ncclTransportAllGatherHost,
    .split = ncclTransportSplit,
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

static gsResult_t fillLink(link_t *link, size_t ranks)
{
    size_t bytes = 2 * ranks * sizeof *link->lengths;
    GS_CHECK(checkCuda("cudaStreamCreateWithFlags", cudaStreamCreateWithFlags(&link->stream, cudaStreamNonBlocking)));
    GS_CHECK(checkCuda("cudaMalloc", cudaMalloc((void **)&link->lengths, bytes)));
    GS_CHECK(checkCuda("cudaMallocHost", cudaMallocHost((void **)&link->hostLengths, bytes)));
    link->sendBytes = calloc(ranks, sizeof *link->sendBytes);
    link->recvBytes = calloc(ranks, sizeof *link->recvBytes);
    if (link->sendBytes && link->recvBytes)
        return GS_SUCCESS;
    return gsFail(GS_ERROR_OUT_OF_MEMORY, "gsCommInitNccl: no memory for the lengths of %zu ranks", ranks);
}

/* Over the host's name and its kernel's boot: hosts of one name differ in the second, containers of one host in the first. */
static uint64_t hostIdentity(void)
{
    char text[320] = "";
    gethostname(text, 255);
    FILE *boot = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (boot) {
        if (!fgets(text + strlen(text), 64, boot))
            gsLog(GS_LOG_WARN, "no boot identity; nodes are told apart by their names");
        fclose(boot);
    }
    return gsHashBytes(GS_HASH_BASIS, text, strlen(text));
}

static gsResult_t connect(gsComm_t comm, ncclComm_t nccl)
{
    link_t *link = calloc(1, sizeof *link);
    if (!link)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "gsCommInitNccl: no %zu bytes for a communicator", sizeof *link);
    link->nccl = nccl;
    pthread_mutex_init(&link->life, NULL);
    gsResult_t result = fillLink(link, (size_t)comm->nranks);
    if (result != GS_SUCCESS) {
        freeLink(link);
        return result;
    }
    comm->impl = link;
    comm->host = hostIdentity();
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
