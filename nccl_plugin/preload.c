/*
 * preload.c: LD_PRELOAD=libgradsieve_preload.so puts compressed all-reduces and reduce-scatters under an NCCL program that does not know
 * of them. Here are the wrappers, and the groups; what follows is how a call becomes compressed.
 *
 * Of each communicator, calls of ncclAllReduce and ncclReduceScatter that the rules allow (preload_rules.c: type, op, size, recipe) make a
 * sequence. All others pass, uncounted in it. The sequence is in one of two states, and moves between them alike on all ranks, for
 * what decides is what NCCL wants alike on all ranks, which calls they are and their counts, types and ops, or a vote:
 *
 *     watching     calls pass as they are. Once some period has come three times (preload_learn.c) the ranks vote: each proposes the
 *                  shortest period by which its own buffers repeat, too, and makes reducers for it, one a place, as many as its
 *                  memory allows (preload_plan.c), or takes up those of the last plan if it is the same again, wherever it now
 *                  begins. One exact all-reduce of seven integers (preload_vote.c) tells the least of what all
 *                  have. Where the proposals are the same, places up to that number are compressed from the next call on: following.
 *                  Otherwise the next vote is due when twice as many calls have been seen.
 *     following    a call that is the plan's next one, by count, type, op and collective, is compressed by the reducer of its place. Any
 *                  other ends the plan, passes as it is, and is the first of a new watch.
 *
 * Buffers tell equal layers apart, which keys do not, but have no say once a plan is followed. What equals a plan's calls for a short
 * while only, like a loop over equal layers in one buffer, is believed the second time if it lasts twice as long.
 *
 * A rank whose calls are not its peers' breaks NCCL's own rules, and NCCL says so or hangs as without this library, unless what it sends
 * has by chance the size of their records: these name recipe, count, place and step, every rank refuses them, and the
 * next call or ncclCommGetAsyncError returns the error.
 *
 * Groups: what is compressed waits for the outermost ncclGroupEnd. There records are encoded, their exchange joins the group, and behind
 * it they are decoded: on the streams of the calls. A reduce-scatter's parts, one for each owner of a slice, travel there, too; between
 * that and decoding owners sum what they were sent, and a second group tells all ranks, for all calls at once, what each owner has
 * met: a wrong part is every rank's error. Votes follow, of all communicators at once. Ranks must group calls alike.
 *
 * Graphs: calls that are captured go the same way, for nothing of it waits or allocates; votes are put off. A plan that was captured keeps
 * its memory as long as its communicator. Ranks must capture alike.
 */
#include "preload.h"

#include <stdlib.h>

/* ---- groups ---- */

/* Of a thread. */
static _Thread_local struct {
    int depth;
    preloadCall *calls; /* to be compressed at the end */
    size_t n, room;
    preloadVoter *voters; /* communicators that were called otherwise */
    size_t nvoters, voterRoom;
} group;

/* An array of n elements, with room for one more; NULL: there is none, and it is as it was. */
static void *withRoom(void *array, size_t n, size_t *room, size_t bytes)
{
    if (n < *room)
        return array;
    void *longer = realloc(array, 2 * (n + 1) * bytes);
    if (longer)
        *room = 2 * (n + 1);
    return longer;
}

/* A stage of all calls, if what came before has succeeded. */
static ncclResult_t runAll(const preloadCall *calls, size_t n, ncclResult_t (*stage)(const preloadCall *),
                           ncclResult_t result)
{
    for (size_t i = 0; i < n && result == ncclSuccess; i++) {
        int previous = preloadEnterDevice(calls[i].comm);
        result = stage(&calls[i]);
        preloadLeaveDevice(calls[i].comm, previous);
    }
    return result;
}

/* Communicators that do not block: what stands behind the exchange must find it enqueued. */
static ncclResult_t awaitAll(const preloadCall *calls, size_t n, ncclResult_t result)
{
    for (size_t i = 0; i < n && preloadSucceeded(result); i++)
        result = preloadAwaitEnqueued(calls[i].comm, result);
    return result;
}

/* In a group its end comes, whatever has failed. */
static ncclResult_t exchange(const preloadCall *calls, size_t n, bool grouped, ncclResult_t result)
{
    ncclResult_t end = ncclSuccess;
    for (size_t i = 0; i < n && preloadSucceeded(result); i++)
        result = preloadExchange(&calls[i]);
    if (grouped)
        end = preloadFindNccl()->ncclGroupEnd();
    return preloadSucceeded(result) ? awaitAll(calls, n, grouped ? end : result) : result;
}

static ncclResult_t exchangeSeals(const preloadCall *calls, size_t n)
{
    const preloadNccl *nccl = preloadFindNccl();
    ncclResult_t result = nccl->ncclGroupStart();
    for (size_t i = 0; i < n && preloadSucceeded(result); i++)
        if (preloadHasSeals(&calls[i]))
            result = preloadExchangeSeals(&calls[i]);
    ncclResult_t end = nccl->ncclGroupEnd();
    return preloadSucceeded(result) ? awaitAll(calls, n, end) : result;
}

static bool haveSeals(const preloadCall *calls, size_t n)
{
    while (n > 0 && !preloadHasSeals(&calls[n - 1]))
        n--;
    return n > 0;
}

static ncclResult_t compress(const preloadCall *calls, size_t n, bool grouped)
{
    ncclResult_t result = runAll(calls, n, preloadEncode, ncclSuccess);
    result = exchange(calls, n, grouped, result);
    result = runAll(calls, n, preloadSum, result);
    if (result == ncclSuccess && haveSeals(calls, n))
        result = exchangeSeals(calls, n);
    return runAll(calls, n, preloadDecode, result);
}

static ncclResult_t vote(preloadVoter *voters, size_t n, ncclResult_t result)
{
    size_t wanting = 0;
    for (size_t i = 0; i < n; i++)
        if (preloadWantsVote(voters[i].comm, voters[i].stream)) {
            preloadVoter wants = voters[i];
            voters[i] = voters[wanting];
            voters[wanting++] = wants;
        }
    for (size_t i = 0; i < wanting && preloadSucceeded(result); i++)
        result = preloadAwaitEnqueued(voters[i].comm, result);
    return wanting && result == ncclSuccess ? preloadVote(voters, wanting) : result;
}

static ncclResult_t addVoter(preloadComm *c, cudaStream_t stream)
{
    for (size_t i = 0; i < group.nvoters; i++)
        if (group.voters[i].comm == c)
            return ncclSuccess;
    preloadVoter *voters = withRoom(group.voters, group.nvoters, &group.voterRoom, sizeof *voters);
    if (!voters)
        return ncclSystemError;
    group.voters = voters;
    group.voters[group.nvoters++] = (preloadVoter){.comm = c, .stream = stream};
    preloadCommStay(c);
    return ncclSuccess;
}

static ncclResult_t addCall(const preloadCall *call)
{
    preloadCall *calls = withRoom(group.calls, group.n, &group.room, sizeof *calls);
    if (!calls)
        return ncclSystemError;
    group.calls = calls;
    group.calls[group.n++] = *call;
    preloadCommStay(call->comm);
    return ncclSuccess;
}

static void emptyGroup(void)
{
    for (size_t i = 0; i < group.n; i++)
        preloadCommLeave(group.calls[i].comm);
    for (size_t i = 0; i < group.nvoters; i++)
        preloadCommLeave(group.voters[i].comm);
    group.n = group.nvoters = 0;
}

static ncclResult_t endGroup(void)
{
    ncclResult_t result = group.n ? compress(group.calls, group.n, true) : preloadFindNccl()->ncclGroupEnd();
    return preloadSucceeded(result) ? vote(group.voters, group.nvoters, result) : result;
}

/* ---- one reduction ---- */

/* It has passed; maybe the ranks have something to vote on now. */
static ncclResult_t passed(preloadComm *c, cudaStream_t stream, ncclResult_t result)
{
    if (!preloadSucceeded(result))
        return result;
    if (group.depth == 0)
        return vote(&(preloadVoter){.comm = c, .stream = stream}, 1, result);
    ncclResult_t added = addVoter(c, stream);
    return added == ncclSuccess ? result : added;
}

static ncclResult_t compressed(const preloadCall *call)
{
    bool captured = preloadIsCaptured(call->stream);
    call->plan->captured |= captured;
    preloadCounts.compressed++;
    preloadCounts.captured += captured;
    return group.depth ? addCall(call) : compress(call, 1, false);
}

/* The call's place in the plan if it is compressed; -1 if not, and why is counted. */
static int64_t placeOf(preloadComm *c, preloadKey key, const void *buffer)
{
    int place = preloadLearnCall(c->learner, key, buffer);
    if (place == PRELOAD_BROKE) {
        preloadCounts.broken++;
        preloadCommRetire(c, c->plan);
    }
    if (place >= 0 && (uint32_t)place < c->plan->n)
        return ((uint32_t)place + c->plan->turn) % c->plan->period;
    if (place >= 0)
        preloadCounts.passed[PASS_STATE]++;
    else
        preloadCounts.learning++;
    return -1;
}

static ncclResult_t pass(const preloadComm *c, const preloadKey *key, const void *send, void *recv, cudaStream_t stream)
{
    const preloadNccl *nccl = preloadFindNccl();
    ncclDataType_t type = (ncclDataType_t)key->type;
    ncclRedOp_t op = (ncclRedOp_t)key->op;
    if (key->collective == GS_ALL_REDUCE)
        return nccl->ncclAllReduce(send, recv, key->count, type, op, c->nccl, stream);
    return nccl->ncclReduceScatter(send, recv, key->count / (size_t)c->nranks, type, op, c->nccl, stream);
}

static ncclResult_t reduce(preloadComm *c, preloadKey key, const void *send, void *recv, cudaStream_t stream)
{
    preloadPass reason = c->passes == PASS_NOT ? preloadJudge(&key) : c->passes;
    int64_t place = -1;
    if (c->failed != ncclSuccess)
        return c->failed;
    c->met |= preloadIsCandidate(&key);
    if (reason == PASS_NOT)
        place = placeOf(c, key, send);
    else
        preloadCounts.passed[reason]++;
    if (place >= 0)
        return compressed(&(preloadCall){c, c->plan, (uint32_t)place, send, recv, (ncclRedOp_t)key.op, stream});
    return passed(c, stream, pass(c, &key, send, recv, stream));
}

/* ---- the wrappers: all that this library exports ---- */

#pragma GCC visibility push(default)

/* Without NCCL behind it a call has nowhere to go. */
#define PRELOAD_NEEDS(nccl)                                                  \
    const preloadNccl *nccl = preloadFindNccl();                             \
    if (!nccl) {                                                             \
        gsLog(GS_LOG_WARN, "no NCCL was found behind libgradsieve_preload"); \
        return ncclSystemError;                                              \
    }

ncclResult_t ncclAllReduce(const void *send, void *recv, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream)
{
    PRELOAD_NEEDS(nccl)
    preloadComm *c = preloadCommEnter(comm, false);
    if (!c)
        return nccl->ncclAllReduce(send, recv, count, type, op, comm, stream);
    ncclResult_t result = reduce(c, (preloadKey){count, (int)type, (int)op, GS_ALL_REDUCE}, send, recv, stream);
    preloadCommLeave(c);
    return result;
}

ncclResult_t ncclReduceScatter(const void *send, void *recv, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream)
{
    PRELOAD_NEEDS(nccl)
    preloadComm *c = preloadCommEnter(comm, false);
    if (!c)
        return nccl->ncclReduceScatter(send, recv, count, type, op, comm, stream);
    preloadKey key = {count * (size_t)c->nranks, (int)type, (int)op, GS_REDUCE_SCATTER};
    ncclResult_t result = reduce(c, key, send, recv, stream);
    preloadCommLeave(c);
    return result;
}

ncclResult_t ncclGroupStart(void)
{
    PRELOAD_NEEDS(nccl)
    ncclResult_t result = nccl->ncclGroupStart();
    group.depth += result == ncclSuccess;
    return result;
}

ncclResult_t ncclGroupEnd(void)
{
    PRELOAD_NEEDS(nccl)
    if (group.depth != 1) {
        group.depth -= group.depth > 0;
        return nccl->ncclGroupEnd();
    }
    group.depth = 0;
    ncclResult_t result = endGroup();
    emptyGroup();
    return result;
}

ncclResult_t ncclGroupSimulateEnd(ncclSimInfo_t *info)
{
    PRELOAD_NEEDS(nccl)
    group.depth -= group.depth > 0;
    if (group.depth == 0)
        emptyGroup();
    return nccl->ncclGroupSimulateEnd(info);
}

/* NCCL's error, or one that a record's receiver has met. */
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *asyncError)
{
    PRELOAD_NEEDS(nccl)
    ncclResult_t result = nccl->ncclCommGetAsyncError(comm, asyncError);
    if (result != ncclSuccess || *asyncError != ncclSuccess)
        return result;
    preloadComm *c = preloadCommEnter(comm, true);
    if (c)
        *asyncError = preloadCommError(c);
    preloadCommLeave(c);
    return result;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    PRELOAD_NEEDS(nccl)
    return preloadCommEnd(comm, nccl->ncclCommDestroy);
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    PRELOAD_NEEDS(nccl)
    return preloadCommEnd(comm, nccl->ncclCommAbort);
}

#pragma GCC visibility pop
