/*
 * threads.c: ranks as threads of one process. A collective is one round, in which each rank reads its peers' buffers; of a
 * communicator that was split it is a round of all ranks, in which each reads those of its part.
 *
 * A round goes through three states, all of them changed under the group's lock:
 *   gathering  ranks post what they want and wait. Here, and only here, a round can fail: the deadline, gsCommAbort, a
 *              communicator destroyed, or posts that differ (found by the last to arrive).
 *   copying    all have arrived and none can leave: each copies what it needs, outside the lock. No deadline runs, as
 *              only memcpy is between here and the end, and a rank that left would take its buffers with it. A round of
 *              few bytes does without: the last to arrive copies for all, and nobody is woken twice.
 *   decided    the last to finish decides for all. The outcome is written into every rank's slot, so that one slow to
 *              wake reads its own round's outcome, whatever has become of later rounds meanwhile.
 * So a round succeeds for all ranks or fails for all. A rank that had not arrived when the others gave up finds the
 * failure noted in its slot: its next call reports it and takes no part in a round. Then all are even and may retry.
 */
#include "../core.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_RANKS = 1024, TEXT_BYTES = 240, RANKS_NAMED = 8 };

enum { SMALL_BYTES = 1 << 17 }; /* copied in a round by all ranks together: 10 us, as much as it takes to wake a few */

typedef enum { ALL_GATHER, SCATTER_SLICES, ALL_GATHER_HOST, ALL_GATHER_EXACT, ALL_TO_ALL_EXACT } operation_t;

/* What a rank wants of a round. */
typedef struct {
    operation_t operation;
    size_t bytes; /* a rank's contribution */
    size_t slice; /* from one rank's part to the next */
    const char *send;
    char *recv;
    const size_t *lengths; /* ALL_TO_ALL_EXACT: of what goes to each rank */
    gsComm_t comm;         /* whose ranks are asked; it, and what tells it from others, set by runRound */
    int split, color;
} post_t;

/* An outcome in words. */
typedef struct {
    gsResult_t result;
    char text[TEXT_BYTES];
} notice_t;

static const notice_t fine = {GS_SUCCESS, ""};

typedef struct {
    post_t post;
    bool arrived; /* in the round under way */
    bool decided; /* the round this rank is in has ended with `outcome` */
    notice_t outcome;
    notice_t missed; /* a round that failed without this rank; GS_SUCCESS: none */
} slot_t;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    atomic_int failed; /* gsResult_t; for good */
    notice_t failure;
    int nranks;
    int references; /* communicators alive */
    int arrived, copied;
    bool copying;
    slot_t slots[];
} group_t;

/* ---- words ------------------------------------------------------------------------------------------------------- */

static notice_t notice(gsResult_t result, const char *format, ...) __attribute__((format(printf, 2, 3)));
static notice_t notice(gsResult_t result, const char *format, ...)
{
    notice_t n = {.result = result};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(n.text, sizeof n.text, format, arguments);
    va_end(arguments);
    return n;
}

static gsResult_t tell(notice_t n)
{
    return n.result == GS_SUCCESS ? GS_SUCCESS : gsFail(n.result, "%s", n.text);
}

static const char *operationName(operation_t operation)
{
    static const char *const names[] = {"an all-gather", "a scatter", "a set-up", "an exact all-gather",
                                        "an exact all-to-all"};
    return names[operation];
}

/* "1, 3, 4": the ranks that have not arrived. */
static void nameMissing(const group_t *group, char *text, size_t room)
{
    int named = 0, left = group->nranks - group->arrived;
    size_t used = 0;
    for (int r = 0; r < group->nranks && named < RANKS_NAMED; r++)
        if (!group->slots[r].arrived)
            used += (size_t)snprintf(text + used, room - used, "%s%d", named++ ? ", " : "", r);
    if (left > named)
        snprintf(text + used, room - used, " and %d more", left - named);
}

static notice_t timeoutNotice(const group_t *group, gsComm_t whole)
{
    char missing[TEXT_BYTES / 2];
    nameMissing(group, missing, sizeof missing);
    return notice(GS_ERROR_TIMEOUT, "rank %d waited %lld ms in %s; did not arrive: rank %s", whole->rank,
                  (long long)whole->timeoutMs, operationName(group->slots[whole->rank].post.operation), missing);
}

/* ---- copies: while all ranks are in the round --------------------------------------------------------------------- */

static void copyBytes(char *to, const char *from, size_t bytes)
{
    if (bytes > 0 && to != from)
        memcpy(to, from, bytes);
}

static const post_t *postOf(gsComm_t comm, int rank)
{
    const group_t *group = comm->impl;
    return &group->slots[gsCommMember(comm, rank)].post;
}

static void copyAll(const post_t *mine)
{
    for (int r = 0; r < mine->comm->nranks; r++)
        copyBytes(mine->recv + (size_t)r * mine->slice, postOf(mine->comm, r)->send, postOf(mine->comm, r)->bytes);
}

static void copySlices(const post_t *mine)
{
    size_t begin = (size_t)mine->comm->rank * mine->slice;
    if (begin >= mine->bytes)
        return;
    size_t bytes = mine->bytes - begin < mine->slice ? mine->bytes - begin : mine->slice;
    for (int r = 0; r < mine->comm->nranks; r++)
        copyBytes(mine->recv + (size_t)r * mine->slice, postOf(mine->comm, r)->send + begin, bytes);
}

static void copyLengths(const post_t *mine)
{
    size_t begin = (size_t)mine->comm->rank * mine->slice;
    for (int r = 0; r < mine->comm->nranks; r++)
        copyBytes(mine->recv + (size_t)r * mine->slice, postOf(mine->comm, r)->send + begin,
                  postOf(mine->comm, r)->lengths[mine->comm->rank]);
}

/* What a rank is to receive. */
static void copyPost(const post_t *mine)
{
    if (mine->operation == SCATTER_SLICES)
        copySlices(mine);
    else if (mine->operation == ALL_TO_ALL_EXACT)
        copyLengths(mine);
    else
        copyAll(mine);
}

/* Whether one rank copies for all sooner than the others wake to do it themselves. */
static bool isSmall(const group_t *group)
{
    size_t bytes = 0;
    for (int r = 0; r < group->nranks; r++)
        bytes += group->slots[r].post.operation == ALL_TO_ALL_EXACT ? SMALL_BYTES + 1 : group->slots[r].post.bytes;
    return bytes * (size_t)group->nranks <= SMALL_BYTES;
}

/* ---- rounds: every function here is called under the lock -------------------------------------------------------- */

/* Ranks of one part move alike many bytes; those of different parts are in the same operation of the same split. */
static bool samePost(const post_t *a, const post_t *b)
{
    bool ownLength = a->operation == ALL_GATHER_EXACT || a->operation == ALL_TO_ALL_EXACT;
    if (a->operation != b->operation || a->split != b->split)
        return false;
    return a->color != b->color || (a->slice == b->slice && (a->bytes == b->bytes || ownLength));
}

/* The rank before `r` in its part, or any before it if it is the first. */
static int before(const group_t *group, int r)
{
    for (int q = r - 1; q > 0; q--)
        if (group->slots[q].post.color == group->slots[r].post.color)
            return q;
    return 0;
}

static notice_t comparePosts(const group_t *group)
{
    for (int r = 1; r < group->nranks; r++) {
        int q = before(group, r);
        const post_t *a = &group->slots[q].post, *b = &group->slots[r].post;
        if (!samePost(a, b))
            return notice(GS_ERROR_MISMATCH,
                          "rank %d is in %s of %zu bytes (slices of %zu), rank %d in %s of %zu (%zu)", q,
                          operationName(a->operation), a->bytes, a->slice, r, operationName(b->operation), b->bytes,
                          b->slice);
    }
    return fine;
}

/* Ends the round for all who are in it. */
static void decide(group_t *group, const notice_t *outcome)
{
    for (int r = 0; r < group->nranks; r++) {
        slot_t *slot = &group->slots[r];
        if (slot->arrived) {
            slot->outcome = *outcome;
            slot->decided = true;
            slot->arrived = false;
        }
    }
    group->arrived = group->copied = 0;
    group->copying = false;
    pthread_cond_broadcast(&group->changed);
}

static void failRound(group_t *group, const notice_t *outcome)
{
    for (int r = 0; r < group->nranks; r++)
        if (!group->slots[r].arrived)
            group->slots[r].missed = *outcome;
    decide(group, outcome);
}

/* Fails the group for good. Ranks that copy are let finish: their peers' buffers must not go away under them. */
static void failGroup(group_t *group, const notice_t *failure)
{
    if (atomic_load(&group->failed) != GS_SUCCESS)
        return;
    group->failure = *failure;
    atomic_store(&group->failed, failure->result);
    if (!group->copying)
        decide(group, failure);
}

/* GS_SUCCESS: this rank is now in the round. */
static notice_t enter(group_t *group, int rank, const post_t *post)
{
    slot_t *slot = &group->slots[rank];
    if (atomic_load(&group->failed) != GS_SUCCESS)
        return group->failure;
    if (slot->missed.result != GS_SUCCESS) {
        notice_t missed = slot->missed;
        slot->missed.result = GS_SUCCESS;
        return missed;
    }
    slot->post = *post;
    slot->arrived = true;
    slot->decided = false;
    if (++group->arrived == group->nranks) {
        notice_t agreement = comparePosts(group);
        bool small = agreement.result == GS_SUCCESS && isSmall(group);
        for (int r = 0; small && r < group->nranks; r++)
            copyPost(&group->slots[r].post);
        if (small || agreement.result != GS_SUCCESS) {
            decide(group, &agreement);
        } else {
            group->copying = true;
            pthread_cond_broadcast(&group->changed);
        }
    }
    return fine;
}

static struct timespec deadlineAfter(int64_t milliseconds)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += (time_t)(milliseconds / 1000);
    t.tv_nsec += (long)(milliseconds % 1000) * 1000000;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}

/* Turns of the scheduler before a rank sleeps: where ranks share processors the others arrive within a few, and waking costs more.
 * An all-reduce of 448 bytes over 20 ranks on two cores took 770 us without them and 115 with eight. */
enum { TURNS = 8 };

static void giveTurns(group_t *group, const slot_t *slot, const bool *done)
{
    for (int i = 0; i < TURNS && !slot->decided && !*done; i++) {
        pthread_mutex_unlock(&group->lock);
        sched_yield();
        pthread_mutex_lock(&group->lock);
    }
}

static void awaitPeers(group_t *group, gsComm_t whole)
{
    slot_t *slot = &group->slots[whole->rank];
    struct timespec deadline = deadlineAfter(whole->timeoutMs); /* turns count: on a busy machine they take long */
    giveTurns(group, slot, &group->copying);
    while (!group->copying && !slot->decided) {
        if (pthread_cond_timedwait(&group->changed, &group->lock, &deadline) != ETIMEDOUT)
            continue;
        if (!group->copying && !slot->decided) {
            notice_t timeout = timeoutNotice(group, whole);
            failRound(group, &timeout);
        }
    }
}

static void finishCopy(group_t *group, const slot_t *slot)
{
    if (++group->copied == group->nranks) {
        notice_t end = atomic_load(&group->failed) == GS_SUCCESS ? fine : group->failure;
        decide(group, &end);
    }
    giveTurns(group, slot, &slot->decided);
    while (!slot->decided)
        pthread_cond_wait(&group->changed, &group->lock);
}

static gsResult_t runRound(gsComm_t comm, post_t post)
{
    group_t *group = comm->impl;
    gsComm_t whole = gsCommWhole(comm);
    slot_t *slot = &group->slots[whole->rank];
    post.comm = comm;
    post.split = comm->split;
    post.color = comm->color;
    pthread_mutex_lock(&group->lock);
    notice_t outcome = enter(group, whole->rank, &post);
    if (outcome.result == GS_SUCCESS) {
        awaitPeers(group, whole);
        if (!slot->decided) {
            pthread_mutex_unlock(&group->lock);
            copyPost(&group->slots[whole->rank].post);
            pthread_mutex_lock(&group->lock);
            finishCopy(group, slot);
        }
        outcome = slot->outcome;
    }
    pthread_mutex_unlock(&group->lock);
    return tell(outcome);
}

/* ---- the transport ----------------------------------------------------------------------------------------------- */

static gsResult_t threadsAllGather(gsComm_t comm, const void *send, void *recv, size_t bytes, gsStream_t stream)
{
    (void)stream; /* the CPU's workers call with their stream's order kept */
    return runRound(comm, (post_t){ALL_GATHER, bytes, bytes, send, recv, .lengths = NULL});
}

static gsResult_t threadsScatterSlices(gsComm_t comm, const void *send, size_t totalBytes, void *recv,
                                       size_t sliceBytes, gsStream_t stream)
{
    (void)stream;
    return runRound(comm, (post_t){SCATTER_SLICES, totalBytes, sliceBytes, send, recv, .lengths = NULL});
}

static gsResult_t threadsAllGatherHost(gsComm_t comm, const void *send, void *recv, size_t bytes)
{
    return runRound(comm, (post_t){ALL_GATHER_HOST, bytes, bytes, send, recv, .lengths = NULL});
}

static gsResult_t threadsAllGatherExact(gsComm_t comm, const void *send, size_t bytes, void *recv, size_t slot,
                                        gsStream_t stream)
{
    (void)stream;
    return runRound(comm, (post_t){ALL_GATHER_EXACT, bytes, slot, send, recv, .lengths = NULL});
}

static gsResult_t threadsAllToAllExact(gsComm_t comm, const void *send, const size_t *bytes, void *recv, size_t slot,
                                       gsStream_t stream)
{
    (void)stream;
    return runRound(comm, (post_t){ALL_TO_ALL_EXACT, 0, slot, send, recv, .lengths = bytes});
}

static gsResult_t threadsSplit(gsComm_t comm, int color, int key, gsComm_t *part)
{
    GS_CHECK(gsCommMakePart(comm, color, key, part));
    (*part)->impl = comm->impl;
    return GS_SUCCESS;
}

static gsResult_t threadsSynchronize(gsComm_t comm, gsStream_t stream)
{
    (void)comm; /* the deadline runs inside the calls on the stream */
    return gsStreamSynchronize(stream);
}

static gsResult_t threadsAsyncError(gsComm_t comm)
{
    group_t *group = comm->impl;
    return (gsResult_t)atomic_load(&group->failed);
}

static gsResult_t threadsAbort(gsComm_t comm)
{
    group_t *group = comm->impl;
    notice_t aborted = notice(GS_ERROR_ABORTED, "gsCommAbort was called on rank %d", gsCommWhole(comm)->rank);
    pthread_mutex_lock(&group->lock);
    failGroup(group, &aborted);
    pthread_mutex_unlock(&group->lock);
    return GS_SUCCESS;
}

static void release(group_t *group)
{
    pthread_mutex_lock(&group->lock);
    bool last = --group->references == 0;
    pthread_mutex_unlock(&group->lock);
    if (!last)
        return;
    pthread_cond_destroy(&group->changed);
    pthread_mutex_destroy(&group->lock);
    free(group);
}

/* Peers that still wait for this rank would wait in vain. */
static void threadsDestroy(gsComm_t comm)
{
    group_t *group = comm->impl;
    notice_t gone = notice(GS_ERROR_INVALID_USAGE, "rank %d's communicator has been destroyed", comm->rank);
    pthread_mutex_lock(&group->lock);
    failGroup(group, &gone);
    pthread_mutex_unlock(&group->lock);
    release(group);
}

static const gsTransport threadsTransport = {
    .name = "threads",
    .allGather = threadsAllGather,
    .allGatherExact = threadsAllGatherExact,
    .allToAllExact = threadsAllToAllExact,
    .scatterSlices = threadsScatterSlices,
    .allGatherHost = threadsAllGatherHost,
    .split = threadsSplit,
    .synchronize = threadsSynchronize,
    .asyncError = threadsAsyncError,
    .abort = threadsAbort,
    .destroy = threadsDestroy,
};

static group_t *makeGroup(int nranks)
{
    group_t *group = calloc(1, sizeof *group + (size_t)nranks * sizeof(slot_t));
    if (!group)
        return NULL;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&group->lock, NULL);
    pthread_cond_init(&group->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    group->nranks = nranks;
    group->references = 1; /* its maker's, until all communicators are there */
    return group;
}

static gsResult_t makeComms(gsComm_t *comms, group_t *group, const gsCommConfig_t *config)
{
    for (int r = 0; r < group->nranks; r++) {
        gsResult_t made = gsCommMake(&comms[r], &threadsTransport, &gsCpuBackend, r, group->nranks, config);
        if (made != GS_SUCCESS) {
            while (r-- > 0)
                gsCommDestroy(comms[r]);
            return made;
        }
        comms[r]->impl = group;
        comms[r]->localRanks = group->nranks;
        group->references++;
    }
    return GS_SUCCESS;
}

gsResult_t gsCommInitAll(gsComm_t *comms, int nranks, const gsCommConfig_t *config)
{
    if (!comms)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "gsCommInitAll: comms is NULL");
    if (nranks < 1 || nranks > MAX_RANKS)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "gsCommInitAll: nranks is %d, expected 1 to %d", nranks, MAX_RANKS);
    group_t *group = makeGroup(nranks);
    if (!group)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "gsCommInitAll: no memory for %d ranks", nranks);
    gsResult_t made = makeComms(comms, group, config);
    release(group);
    return made;
}
