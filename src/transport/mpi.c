/*
 * mpi.c: ranks as MPI processes. A collective is a preamble, in which ranks compare what they are about to do, and then
 * the bytes, in pieces.
 *
 * Every MPI call is non-blocking and polled, so that a deadline and gsCommAbort can end the wait. What they end may be
 * under way inside MPI still, which goes on to read and write its buffers. So MPI only ever sees memory of this file:
 * pieces are copied out of the caller's buffers and into them, some in flight. After a failure the communicator has
 * failed for good, and what MPI may still touch is left to it, never freed: the pieces, and the duplicated MPI_Comm,
 * for which a message may come yet. One rank may meet its deadline where another has just finished the same exchange:
 * their steps then differ, which is found as a mismatch should such states ever meet again.
 *
 * A part of a communicator has an MPI_Comm of its own for the bytes; preambles are traded by all ranks of the whole.
 */
#include "../core.h"
#include "shrink.h"
#include "wait.h"

#include <mpi.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LANES = 4,              /* pieces in flight; with 2, links of 1 Gbit/s stood idle for a seventh of the time */
    LANE_BYTES = 2 << 20,   /* of all ranks' pieces together */
    PIECE_MOST = 256 << 10, /* one rank's piece */
    PIECE_LEAST = 4096,
    GOODBYE_MS = 1000, /* a rank that waits longer leaves without freeing the MPI_Comm */
    TEXT_BYTES = 160,
    RANKS_NAMED = 8
};

typedef enum {
    ALL_GATHER = 1,
    SCATTER_SLICES,
    ALL_GATHER_HOST,
    ALL_GATHER_EXACT,
    ALL_TO_ALL_EXACT,
    GOODBYE
} operation_t;

/* What a rank is about to do. operation 0: not heard from. */
typedef struct {
    uint64_t operation;
    uint64_t bytes; /* a rank's contribution; ALL_TO_ALL_EXACT: the longest part of it */
    uint64_t slice; /* from one rank's part to the next */
    int split, color;
} preamble_t;

typedef struct {
    preamble_t plan;
    const char *send;
    char *recv;
    const size_t *lengths; /* ALL_TO_ALL_EXACT: of what goes to each rank */
    gsWait wait;
} exchange_t;

typedef struct {
    MPI_Request request;
    char *send, *recv;        /* a piece for each rank */
    int *counts, *sendCounts; /* of the pieces in recv, and in send */
    int *starts;              /* where a rank's piece begins, in both */
} lane_t;

/* What all parts of a communicator share. */
typedef struct {
    MPI_Comm comm;
    atomic_int failed; /* gsResult_t; for good */
    int shrinks;       /* calls of gsCommShrinkMpi */
    bool mainThreadOnly;
    preamble_t ownPreamble;
    preamble_t *preambles;
    MPI_Request preambleRequest;
    uint64_t *ownLengths, *lengths; /* ALL_TO_ALL_EXACT: of parts to each rank, and from each */
    MPI_Request lengthsRequest;
    lane_t lanes[LANES];
} link_t;

/* impl of a part */
typedef struct {
    MPI_Comm comm;
} part_t;

static link_t *linkOf(gsComm_t comm)
{
    return gsCommWhole(comm)->impl;
}

static MPI_Comm mpiOf(gsComm_t comm)
{
    return comm->parent ? ((part_t *)comm->impl)->comm : linkOf(comm)->comm;
}

static const preamble_t *preambleOf(gsComm_t comm, int rank)
{
    return &linkOf(comm)->preambles[gsCommMember(comm, rank)];
}

/* ---- failures ---------------------------------------------------------------------------------------------------- */

static gsResult_t failForGood(link_t *link, gsResult_t result)
{
    int none = GS_SUCCESS;
    atomic_compare_exchange_strong(&link->failed, &none, result);
    return result;
}

static gsResult_t checkMpi(const char *what, int code)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (code == MPI_SUCCESS)
        return GS_SUCCESS;
    MPI_Error_string(code, text, &length);
    return gsFail(GS_ERROR_TRANSPORT, "%s: %s", what, text);
}

static gsResult_t abortedError(void)
{
    return gsFail(GS_ERROR_ABORTED, "gsCommAbort was called on this communicator");
}

static gsResult_t checkThread(const link_t *link)
{
    int isMain = 1;
    if (link->mainThreadOnly)
        MPI_Is_thread_main(&isMain);
    if (!isMain)
        return gsFail(GS_ERROR_INVALID_USAGE,
                      "MPI was initialised for calls from the main thread only; for others, and "
                      "for streams, expected MPI_THREAD_SERIALIZED or more");
    return GS_SUCCESS;
}

static gsResult_t checkUsable(link_t *link)
{
    gsResult_t failed = (gsResult_t)atomic_load(&link->failed);
    if (failed == GS_ERROR_ABORTED)
        return abortedError();
    if (failed != GS_SUCCESS)
        return gsFail(GS_ERROR_INVALID_USAGE, "this communicator has failed for good (%s); destroy it and make another",
                      gsGetErrorString(failed));
    return checkThread(link);
}

static void nameMissing(const link_t *link, int nranks, char *text, size_t room)
{
    int named = 0;
    size_t used = 0;
    for (int r = 0; r < nranks && named < RANKS_NAMED; r++)
        if (link->preambles[r].operation == 0)
            used += (size_t)snprintf(text + used, room - used, "%s%d", named++ ? ", " : "", r);
}

static gsResult_t timeoutError(gsComm_t whole)
{
    char missing[TEXT_BYTES] = "";
    nameMissing(whole->impl, whole->nranks, missing, sizeof missing);
    if (*missing)
        return gsFail(GS_ERROR_TIMEOUT, "rank %d waited %lld ms; not heard from: rank %s", whole->rank,
                      (long long)whole->timeoutMs, missing);
    return gsFail(GS_ERROR_TIMEOUT, "rank %d: the exchange did not end within %lld ms, though all ranks began it",
                  whole->rank, (long long)whole->timeoutMs);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static gsResult_t await(gsComm_t comm, MPI_Request *request, gsWait *wait)
{
    link_t *link = linkOf(comm);
    for (;;) {
        int done = 0;
        GS_CHECK(checkMpi("MPI_Test", MPI_Test(request, &done, MPI_STATUS_IGNORE)));
        if (done)
            break;
        if (atomic_load(&link->failed) != GS_SUCCESS)
            return abortedError();
        if (!gsWaitPause(wait))
            return timeoutError(gsCommWhole(comm));
    }
    gsWaitProgress(wait);
    return GS_SUCCESS;
}

/* ---- the preamble ------------------------------------------------------------------------------------------------ */

static const char *operationName(uint64_t operation)
{
    static const char *const names[] = {"nothing",      "an all-gather",       "a scatter",
                                        "a set-up",     "an exact all-gather", "an exact all-to-all",
                                        "gsCommDestroy"};
    return names[operation <= GOODBYE ? operation : 0];
}

/* A rank that is leaving answers no call any more: its peers' communicators have failed for good. */
static gsResult_t checkPresent(link_t *link, int nranks)
{
    for (int r = 0; r < nranks; r++)
        if (link->preambles[r].operation == GOODBYE && link->ownPreamble.operation != GOODBYE)
            return failForGood(link, gsFail(GS_ERROR_INVALID_USAGE, "rank %d's communicator has been destroyed", r));
    return GS_SUCCESS;
}

/* Whether lengths are each rank's own. */
static bool isExact(uint64_t operation)
{
    return operation == ALL_GATHER_EXACT || operation == ALL_TO_ALL_EXACT;
}

/* Ranks of one part move alike many bytes; those of different parts are in the same operation of the same split. */
static bool samePlan(const preamble_t *a, const preamble_t *b)
{
    if (a->operation != b->operation || a->split != b->split)
        return false;
    return a->color != b->color || (a->slice == b->slice && (a->bytes == b->bytes || isExact(a->operation)));
}

/* The rank before `r` in its part, or any before it if it is the first. */
static int before(const link_t *link, int r)
{
    for (int q = r - 1; q > 0; q--)
        if (link->preambles[q].color == link->preambles[r].color)
            return q;
    return 0;
}

static gsResult_t comparePreambles(const link_t *link, int nranks)
{
    for (int r = 1; r < nranks; r++) {
        int q = before(link, r);
        const preamble_t *a = &link->preambles[q], *b = &link->preambles[r];
        if (!samePlan(a, b))
            return gsFail(GS_ERROR_MISMATCH,
                          "rank %d is in %s of %llu bytes (slices of %llu), rank %d in %s of %llu (%llu)", q,
                          operationName(a->operation), (unsigned long long)a->bytes, (unsigned long long)a->slice, r,
                          operationName(b->operation), (unsigned long long)b->bytes, (unsigned long long)b->slice);
    }
    return GS_SUCCESS;
}

static gsResult_t tradePreambles(gsComm_t whole, exchange_t *x)
{
    link_t *link = whole->impl;
    link->ownPreamble = x->plan;
    memset(link->preambles, 0, (size_t)whole->nranks * sizeof *link->preambles);
    GS_CHECK(
        checkMpi("MPI_Iallgather", MPI_Iallgather(&link->ownPreamble, sizeof(preamble_t), MPI_BYTE, link->preambles,
                                                  sizeof(preamble_t), MPI_BYTE, link->comm, &link->preambleRequest)));
    return await(whole, &link->preambleRequest, &x->wait);
}

/* How long the parts are that are about to come. */
static gsResult_t tradeLengths(gsComm_t comm, exchange_t *x)
{
    link_t *link = linkOf(comm);
    for (int q = 0; q < comm->nranks; q++)
        link->ownLengths[q] = x->lengths[q];
    GS_CHECK(checkMpi("MPI_Ialltoall", MPI_Ialltoall(link->ownLengths, sizeof(uint64_t), MPI_BYTE, link->lengths,
                                                     sizeof(uint64_t), MPI_BYTE, mpiOf(comm), &link->lengthsRequest)));
    return await(comm, &link->lengthsRequest, &x->wait);
}

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Bytes that begin..begin + piece has inside a buffer of `total`. */
static size_t inside(size_t total, size_t begin, size_t piece)
{
    return begin < total ? smaller(total - begin, piece) : 0;
}

static void copyBytes(char *to, const char *from, size_t bytes)
{
    if (bytes > 0)
        memcpy(to, from, bytes);
}

/* One rank's piece: large enough for full speed, small enough for several to overlap. */
static size_t pieceMost(int nranks)
{
    size_t share = LANE_BYTES / (size_t)nranks;
    return smaller(PIECE_MOST, share > PIECE_LEAST ? share : PIECE_LEAST);
}

static gsResult_t sendSlices(gsComm_t comm, const exchange_t *x, lane_t *lane, size_t at, size_t piece)
{
    const preamble_t *plan = &x->plan;
    for (size_t q = 0; q < (size_t)comm->nranks; q++) {
        size_t begin = q * plan->slice + at;
        copyBytes(lane->send + q * piece, x->send + begin, inside(plan->bytes, begin, piece));
    }
    return checkMpi("MPI_Ialltoall", MPI_Ialltoall(lane->send, (int)piece, MPI_BYTE, lane->recv, (int)piece, MPI_BYTE,
                                                   mpiOf(comm), &lane->request));
}

static gsResult_t sendParts(gsComm_t comm, const exchange_t *x, lane_t *lane, size_t at, size_t piece)
{
    link_t *link = linkOf(comm);
    for (size_t q = 0; q < (size_t)comm->nranks; q++) {
        lane->sendCounts[q] = (int)inside(x->lengths[q], at, piece);
        lane->counts[q] = (int)inside(link->lengths[q], at, piece);
        lane->starts[q] = (int)(q * piece);
        copyBytes(lane->send + q * piece, x->send + q * x->plan.slice + at, (size_t)lane->sendCounts[q]);
    }
    return checkMpi("MPI_Ialltoallv",
                    MPI_Ialltoallv(lane->send, lane->sendCounts, lane->starts, MPI_BYTE, lane->recv, lane->counts,
                                   lane->starts, MPI_BYTE, mpiOf(comm), &lane->request));
}

/* Ranks whose contribution has ended take part with nothing. */
static gsResult_t sendWhole(gsComm_t comm, const exchange_t *x, lane_t *lane, size_t at, size_t piece)
{
    for (int r = 0; r < comm->nranks; r++) {
        lane->counts[r] = (int)inside(preambleOf(comm, r)->bytes, at, piece);
        lane->starts[r] = (int)((size_t)r * piece);
    }
    copyBytes(lane->send, x->send + at, (size_t)lane->counts[comm->rank]);
    if (x->plan.operation != ALL_GATHER_EXACT)
        return checkMpi("MPI_Iallgather", MPI_Iallgather(lane->send, (int)piece, MPI_BYTE, lane->recv, (int)piece,
                                                         MPI_BYTE, mpiOf(comm), &lane->request));
    return checkMpi("MPI_Iallgatherv",
                    MPI_Iallgatherv(lane->send, lane->counts[comm->rank], MPI_BYTE, lane->recv, lane->counts,
                                    lane->starts, MPI_BYTE, mpiOf(comm), &lane->request));
}

static gsResult_t sendPiece(gsComm_t comm, const exchange_t *x, lane_t *lane, size_t at, size_t piece)
{
    switch (x->plan.operation) {
    case SCATTER_SLICES: return sendSlices(comm, x, lane, at, piece);
    case ALL_TO_ALL_EXACT: return sendParts(comm, x, lane, at, piece);
    default: return sendWhole(comm, x, lane, at, piece);
    }
}

static void takePiece(gsComm_t comm, const exchange_t *x, const lane_t *lane, size_t at, size_t piece)
{
    for (size_t r = 0; r < (size_t)comm->nranks; r++) {
        size_t bytes = x->plan.operation == SCATTER_SLICES ? piece : (size_t)lane->counts[r];
        copyBytes(x->recv + r * x->plan.slice + at, lane->recv + r * piece, bytes);
    }
}

/* What the longest contribution has. */
static size_t longest(gsComm_t comm, const exchange_t *x)
{
    size_t most = 0;
    if (!isExact(x->plan.operation))
        return x->plan.slice;
    for (int r = 0; r < comm->nranks; r++)
        most = preambleOf(comm, r)->bytes > most ? preambleOf(comm, r)->bytes : most;
    return smaller(most, x->plan.slice);
}

/* The pieces behind one that is copied out are on their way already. */
static gsResult_t movePieces(gsComm_t comm, exchange_t *x)
{
    link_t *link = linkOf(comm);
    size_t total = longest(comm, x), most = pieceMost(comm->nranks), pieces = (total + most - 1) / most, sent = 0;
    for (size_t k = 0; k < pieces; k++) {
        for (; sent < pieces && sent < k + LANES; sent++)
            GS_CHECK(sendPiece(comm, x, &link->lanes[sent % LANES], sent * most, inside(total, sent * most, most)));
        lane_t *lane = &link->lanes[k % LANES];
        GS_CHECK(await(comm, &lane->request, &x->wait));
        takePiece(comm, x, lane, k * most, inside(total, k * most, most));
    }
    return GS_SUCCESS;
}

static gsResult_t moveBytes(gsComm_t comm, exchange_t *x)
{
    if (x->lengths)
        GS_CHECK(tradeLengths(comm, x));
    return movePieces(comm, x);
}

static gsResult_t exchange(gsComm_t comm, exchange_t x)
{
    link_t *link = linkOf(comm);
    gsComm_t whole = gsCommWhole(comm);
    x.plan.split = comm->split;
    x.plan.color = comm->color;
    x.wait = gsWaitBegin(whole->timeoutMs);
    GS_CHECK(checkUsable(link));
    gsResult_t result = tradePreambles(whole, &x);
    if (result != GS_SUCCESS)
        return failForGood(link, result);
    GS_CHECK(checkPresent(link, whole->nranks));
    GS_CHECK(comparePreambles(link, whole->nranks)); /* seen by all ranks alike, and nothing is under way */
    result = moveBytes(comm, &x);
    return result == GS_SUCCESS ? GS_SUCCESS : failForGood(link, result);
}

/* ---- the transport ----------------------------------------------------------------------------------------------- */

static gsResult_t mpiAllGather(gsComm_t comm, const void *send, void *recv, size_t bytes, gsStream_t stream)
{
    (void)stream; /* the CPU's workers call with their stream's order kept */
    return exchange(comm, (exchange_t){.plan = {ALL_GATHER, bytes, bytes, 0, 0}, .send = send, .recv = recv});
}

static gsResult_t mpiScatterSlices(gsComm_t comm, const void *send, size_t totalBytes, void *recv, size_t sliceBytes,
                                   gsStream_t stream)
{
    (void)stream;
    return exchange(comm,
                    (exchange_t){.plan = {SCATTER_SLICES, totalBytes, sliceBytes, 0, 0}, .send = send, .recv = recv});
}

static gsResult_t mpiAllGatherHost(gsComm_t comm, const void *send, void *recv, size_t bytes)
{
    return exchange(comm, (exchange_t){.plan = {ALL_GATHER_HOST, bytes, bytes, 0, 0}, .send = send, .recv = recv});
}

static gsResult_t mpiAllGatherExact(gsComm_t comm, const void *send, size_t bytes, void *recv, size_t slot,
                                    gsStream_t stream)
{
    (void)stream;
    return exchange(comm, (exchange_t){.plan = {ALL_GATHER_EXACT, bytes, slot, 0, 0}, .send = send, .recv = recv});
}

static gsResult_t mpiAllToAllExact(gsComm_t comm, const void *send, const size_t *bytes, void *recv, size_t slot,
                                   gsStream_t stream)
{
    size_t most = 0;
    (void)stream;
    for (int q = 0; q < comm->nranks; q++)
        most = bytes[q] > most ? bytes[q] : most;
    return exchange(
        comm, (exchange_t){.plan = {ALL_TO_ALL_EXACT, most, slot, 0, 0}, .send = send, .recv = recv, .lengths = bytes});
}

/* All ranks are there: MPI's own call, which has no deadline, does not wait long. */
static gsResult_t mpiSplit(gsComm_t comm, int color, int key, gsComm_t *part)
{
    GS_CHECK(gsCommMakePart(comm, color, key, part));
    part_t *made = calloc(1, sizeof *made);
    if (!made)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no %zu bytes for a part", sizeof *made);
    made->comm = MPI_COMM_NULL;
    (*part)->impl = made;
    GS_CHECK(checkMpi("MPI_Comm_split", MPI_Comm_split(linkOf(comm)->comm, color, key, &made->comm)));
    return checkMpi("MPI_Comm_set_errhandler", MPI_Comm_set_errhandler(made->comm, MPI_ERRORS_RETURN));
}

static gsResult_t mpiSynchronize(gsComm_t comm, gsStream_t stream)
{
    (void)comm; /* the deadline runs inside the calls on the stream */
    return gsStreamSynchronize(stream);
}

static gsResult_t mpiAsyncError(gsComm_t comm)
{
    return (gsResult_t)atomic_load(&linkOf(comm)->failed);
}

/* Ends this rank's wait; no MPI call, so that any thread may do it. The peers meet their deadlines. */
static gsResult_t mpiAbort(gsComm_t comm)
{
    failForGood(linkOf(comm), GS_ERROR_ABORTED);
    return GS_SUCCESS;
}

static bool isDone(MPI_Request *request)
{
    int done = 0;
    return *request == MPI_REQUEST_NULL || (MPI_Test(request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done);
}

static bool isQuiet(link_t *link)
{
    bool quiet = isDone(&link->preambleRequest) && isDone(&link->lengthsRequest);
    for (int i = 0; i < LANES; i++)
        quiet = isDone(&link->lanes[i].request) && quiet;
    return quiet;
}

static void freeLink(link_t *link)
{
    for (int i = 0; i < LANES; i++) {
        free(link->lanes[i].send);
        free(link->lanes[i].recv);
        free(link->lanes[i].counts);
        free(link->lanes[i].sendCounts);
        free(link->lanes[i].starts);
    }
    free(link->preambles);
    free(link->ownLengths);
    free(link->lengths);
    free(link);
}

/* Whether all ranks are leaving, so that no message can come any more. Freeing an MPI_Comm before that is an error. */
static bool saidGoodbye(gsComm_t comm)
{
    link_t *link = comm->impl;
    comm->timeoutMs = (int64_t)smaller((size_t)comm->timeoutMs, GOODBYE_MS);
    exchange_t x = {.plan = {.operation = GOODBYE}, .wait = gsWaitBegin(comm->timeoutMs)};
    return checkUsable(link) == GS_SUCCESS && tradePreambles(comm, &x) == GS_SUCCESS &&
           comparePreambles(link, comm->nranks) == GS_SUCCESS;
}

static void freeParts(gsComm_t comm, bool withComms)
{
    for (gsComm_t p = comm->parts; p; p = p->next) {
        part_t *part = p->impl;
        if (withComms && part && part->comm != MPI_COMM_NULL)
            MPI_Comm_free(&part->comm);
        free(part);
    }
}

static void mpiDestroy(gsComm_t comm)
{
    link_t *link = comm->impl;
    int finalized = 0;
    if (!link)
        return; /* never connected */
    MPI_Finalized(&finalized);
    bool together = !finalized && saidGoodbye(comm);
    freeParts(comm, together);
    if (together)
        MPI_Comm_free(&link->comm);
    if (finalized || isQuiet(link))
        freeLink(link); /* otherwise MPI still has these buffers */
}

static const gsTransport mpiTransport = {
    .name = "mpi",
    .allGather = mpiAllGather,
    .allGatherExact = mpiAllGatherExact,
    .allToAllExact = mpiAllToAllExact,
    .scatterSlices = mpiScatterSlices,
    .allGatherHost = mpiAllGatherHost,
    .split = mpiSplit,
    .synchronize = mpiSynchronize,
    .asyncError = mpiAsyncError,
    .abort = mpiAbort,
    .destroy = mpiDestroy,
};

/* ---- beginning --------------------------------------------------------------------------------------------------- */

static gsResult_t checkState(const void *mpiComm)
{
    int initialized = 0, finalized = 0, inter = 0;
    if (!mpiComm || *(const MPI_Comm *)mpiComm == MPI_COMM_NULL)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "mpiComm is NULL; expected a pointer to an MPI_Comm");
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    if (!initialized || finalized)
        return gsFail(GS_ERROR_INVALID_USAGE, "gsCommInitMpi: expected it between MPI_Init and MPI_Finalize");
    MPI_Comm_test_inter(*(const MPI_Comm *)mpiComm, &inter);
    if (inter)
        return gsFail(GS_ERROR_UNSUPPORTED, "mpiComm is an intercommunicator; expected one group of ranks");
    return GS_SUCCESS;
}

static link_t *makeLink(int nranks)
{
    size_t ranks = (size_t)nranks, room = ranks * pieceMost(nranks);
    link_t *link = calloc(1, sizeof *link);
    if (!link)
        return NULL;
    link->preambleRequest = link->lengthsRequest = MPI_REQUEST_NULL;
    link->preambles = calloc(ranks, sizeof *link->preambles);
    link->ownLengths = calloc(ranks, sizeof *link->ownLengths);
    link->lengths = calloc(ranks, sizeof *link->lengths);
    bool complete = link->preambles && link->ownLengths && link->lengths;
    for (int i = 0; i < LANES; i++) {
        lane_t *lane = &link->lanes[i];
        *lane = (lane_t){.request = MPI_REQUEST_NULL,
                         .send = calloc(room, 1),
                         .recv = calloc(room, 1),
                         .counts = calloc(ranks, sizeof(int)),
                         .sendCounts = calloc(ranks, sizeof(int)),
                         .starts = calloc(ranks, sizeof(int))};
        complete = complete && lane->send && lane->recv && lane->counts && lane->sendCounts && lane->starts;
    }
    if (complete)
        return link;
    freeLink(link);
    return NULL;
}

static gsResult_t duplicate(link_t *link, MPI_Comm theirs)
{
    GS_CHECK(checkMpi("MPI_Comm_dup", MPI_Comm_dup(theirs, &link->comm)));
    return checkMpi("MPI_Comm_set_errhandler", MPI_Comm_set_errhandler(link->comm, MPI_ERRORS_RETURN));
}

/* How many ranks share this one's memory, and the lowest of them, which names the host. */
static gsResult_t findHost(MPI_Comm comm, gsComm_t made)
{
    MPI_Comm node;
    int lowest = made->rank;
    GS_CHECK(checkMpi("MPI_Comm_split_type", MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node)));
    MPI_Comm_size(node, &made->localRanks);
    gsResult_t result = checkMpi("MPI_Bcast", MPI_Bcast(&lowest, 1, MPI_INT, 0, node));
    made->host = (uint64_t)lowest;
    GS_CHECK(checkMpi("MPI_Comm_free", MPI_Comm_free(&node)));
    return result;
}

static gsResult_t connect(gsComm_t comm, MPI_Comm theirs)
{
    int level = MPI_THREAD_SINGLE;
    link_t *link = makeLink(comm->nranks);
    if (!link)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "gsCommInitMpi: no memory for pieces of %d ranks", comm->nranks);
    gsResult_t result = duplicate(link, theirs);
    if (result == GS_SUCCESS)
        result = findHost(link->comm, comm);
    if (result != GS_SUCCESS) {
        freeLink(link);
        return result;
    }
    MPI_Query_thread(&level);
    link->mainThreadOnly = level < MPI_THREAD_SERIALIZED;
    comm->impl = link;
    return GS_SUCCESS;
}

gsResult_t gsCommInitMpi(gsComm_t *comm, const void *mpiComm, const gsCommConfig_t *config)
{
    int rank = 0, nranks = 0;
    GS_CHECK(checkState(mpiComm));
    MPI_Comm theirs = *(const MPI_Comm *)mpiComm;
    GS_CHECK(checkMpi("MPI_Comm_rank", MPI_Comm_rank(theirs, &rank)));
    GS_CHECK(checkMpi("MPI_Comm_size", MPI_Comm_size(theirs, &nranks)));
    GS_CHECK(gsCommMake(comm, &mpiTransport, &gsCpuBackend, rank, nranks, config));
    gsResult_t result = connect(*comm, theirs);
    if (result != GS_SUCCESS) {
        gsCommDestroy(*comm);
        *comm = NULL;
    }
    return result;
}

/* ---- after a failure --------------------------------------------------------------------------------------------- */

gsResult_t gsCommShrinkMpi(gsComm_t comm, void *survivors, int timeoutMs)
{
    if (!comm || !survivors)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s is NULL; expected %s", comm ? "survivors" : "comm",
                      comm ? "a pointer to an MPI_Comm" : "a communicator");
    if (timeoutMs < 0)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "timeoutMs is %d; expected 0 (twice the communicator's) or more",
                      timeoutMs);
    if (comm->transport->abort != mpiAbort)
        return gsFail(GS_ERROR_INVALID_USAGE, "the ranks are connected by %s; expected a communicator of gsCommInitMpi",
                      comm->transport->name);
    link_t *link = linkOf(comm);
    GS_CHECK(checkThread(link));
    return gsMpiShrink(link->comm, link->shrinks++, timeoutMs ? timeoutMs : 2 * comm->timeoutMs, survivors);
}
