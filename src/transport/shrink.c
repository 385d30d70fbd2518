/*
 * shrink.c: who of an MPI communicator's ranks is still there, and a communicator of these, without MPI's help: a rank that has died
 * answers no message, and that is all one knows of it.
 *
 * First everybody tells everybody that it is there, and waits for the others until all have answered or the deadline has come.
 * Then those who have answered tell each other whom they have heard. Only where all have heard the same ranks do they make a
 * communicator. A rank that was too late is not among those whom the others ask, waits in vain, and gets an error.
 *
 * What is sent to the dead may never be done. Requests that are left over keep their memory, which is never freed.
 */
#include "shrink.h"
#include "wait.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { TAG_PRESENT = 1000, TAG_HEARD, TAG_GROUP, TAGS = 3, ATTEMPTS = 4096 };

/* A message to each rank and one from each. */
typedef struct {
    MPI_Request *sends, *recvs;
    unsigned char *in; /* [nranks][bytes] */
} round_t;

typedef struct {
    MPI_Comm comm;
    int rank, nranks;
    int tagBase;
    int64_t timeoutMs;
    unsigned char *heard; /* [nranks] */
    round_t rounds[2];
} rollCall_t;

static gsResult_t failed(const char *what, int code)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    return gsFail(GS_ERROR_TRANSPORT, "gsCommShrinkMpi: %s: %s", what, text);
}

static bool makeRound(round_t *round, int nranks, size_t bytes)
{
    size_t n = (size_t)nranks;
    *round = (round_t){malloc(n * sizeof(MPI_Request)), malloc(n * sizeof(MPI_Request)), calloc(n, bytes)};
    for (size_t r = 0; r < n && round->sends && round->recvs; r++)
        round->sends[r] = round->recvs[r] = MPI_REQUEST_NULL;
    return round->sends && round->recvs && round->in;
}

static rollCall_t *makeRollCall(MPI_Comm comm, int attempt, int64_t timeoutMs)
{
    rollCall_t *call = calloc(1, sizeof *call);
    if (!call)
        return NULL;
    *call = (rollCall_t){.comm = comm, .tagBase = attempt % ATTEMPTS * TAGS, .timeoutMs = timeoutMs};
    MPI_Comm_rank(comm, &call->rank);
    MPI_Comm_size(comm, &call->nranks);
    call->heard = calloc((size_t)call->nranks, 1);
    bool complete = call->heard && makeRound(&call->rounds[0], call->nranks, 1) &&
                    makeRound(&call->rounds[1], call->nranks, (size_t)call->nranks);
    return complete ? call : NULL; /* without memory a few bytes more are lost */
}

/* A dead peer may make a call fail at once: it is then as good as silent. */
static void start(rollCall_t *call, round_t *round, int tag, const unsigned char *out, int bytes)
{
    for (int r = 0; r < call->nranks; r++) {
        if (r == call->rank || (tag == TAG_HEARD && !call->heard[r]))
            continue;
        if (MPI_Irecv(round->in + (size_t)r * (size_t)bytes, bytes, MPI_BYTE, r, call->tagBase + tag, call->comm,
                      &round->recvs[r]) != MPI_SUCCESS ||
            MPI_Isend(out, bytes, MPI_BYTE, r, call->tagBase + tag, call->comm, &round->sends[r]) != MPI_SUCCESS)
            gsLog(GS_LOG_INFO, "rank %d: rank %d cannot be reached", call->rank, r);
    }
}

static bool hasAnswered(MPI_Request *request)
{
    int done = 0;
    return MPI_Test(request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done;
}

/* Marks in `answered` whoever has answered; false where somebody of `asked` has not until the deadline. */
static bool collect(rollCall_t *call, round_t *round, const unsigned char *asked, unsigned char *answered)
{
    gsWait wait = gsWaitBegin(call->timeoutMs);
    answered[call->rank] = 1;
    for (;;) {
        bool all = true;
        for (int r = 0; r < call->nranks; r++) {
            if (!answered[r] && (!asked || asked[r]) && hasAnswered(&round->recvs[r]))
                answered[r] = 1;
            all = all && (answered[r] || (asked && !asked[r]));
        }
        if (all || !gsWaitPause(&wait))
            return all;
    }
}

static gsResult_t compareViews(const rollCall_t *call)
{
    for (int r = 0; r < call->nranks; r++) {
        const unsigned char *theirs = call->rounds[1].in + (size_t)r * (size_t)call->nranks;
        if (r != call->rank && call->heard[r] && memcmp(theirs, call->heard, (size_t)call->nranks) != 0)
            return gsFail(GS_ERROR_MISMATCH,
                          "gsCommShrinkMpi: rank %d and rank %d have heard from different ranks; call again",
                          call->rank, r);
    }
    return GS_SUCCESS;
}

static gsResult_t agree(rollCall_t *call)
{
    static const unsigned char present = 1;
    unsigned char *answered = calloc((size_t)call->nranks, 1);
    if (!answered)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "gsCommShrinkMpi: no memory for %d ranks", call->nranks);
    start(call, &call->rounds[0], TAG_PRESENT, &present, 1);
    collect(call, &call->rounds[0], NULL, call->heard);
    start(call, &call->rounds[1], TAG_HEARD, call->heard, call->nranks);
    bool all = collect(call, &call->rounds[1], call->heard, answered);
    free(answered);
    if (!all)
        return gsFail(GS_ERROR_TIMEOUT,
                      "gsCommShrinkMpi: rank %d: a rank that had answered does so no more; call again", call->rank);
    return compareViews(call);
}

/* All members have just agreed to come: MPI's own call, which has no deadline, does not wait long. */
static gsResult_t makeComm(const rollCall_t *call, MPI_Comm *survivors)
{
    MPI_Group all, some;
    int *ranks = malloc((size_t)call->nranks * sizeof *ranks), n = 0;
    if (!ranks)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "gsCommShrinkMpi: no memory for %d ranks", call->nranks);
    for (int r = 0; r < call->nranks; r++)
        if (call->heard[r])
            ranks[n++] = r;
    MPI_Comm_group(call->comm, &all);
    MPI_Group_incl(all, n, ranks, &some);
    int code = MPI_Comm_create_group(call->comm, some, call->tagBase + TAG_GROUP, survivors);
    MPI_Group_free(&some);
    MPI_Group_free(&all);
    free(ranks);
    return code == MPI_SUCCESS ? GS_SUCCESS : failed("MPI_Comm_create_group", code);
}

static bool isQuiet(rollCall_t *call)
{
    bool quiet = true;
    for (int k = 0; k < 2; k++)
        for (int r = 0; r < call->nranks; r++)
            quiet = hasAnswered(&call->rounds[k].sends[r]) && hasAnswered(&call->rounds[k].recvs[r]) && quiet;
    return quiet;
}

static void freeRollCall(rollCall_t *call)
{
    if (!isQuiet(call))
        return;
    for (int k = 0; k < 2; k++) {
        free(call->rounds[k].sends);
        free(call->rounds[k].recvs);
        free(call->rounds[k].in);
    }
    free(call->heard);
    free(call);
}

gsResult_t gsMpiShrink(MPI_Comm comm, int attempt, int64_t timeoutMs, MPI_Comm *survivors)
{
    rollCall_t *call = makeRollCall(comm, attempt, timeoutMs);
    *survivors = MPI_COMM_NULL;
    if (!call)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "gsCommShrinkMpi: no memory for a roll call");
    gsResult_t result = agree(call);
    if (result == GS_SUCCESS)
        result = makeComm(call, survivors);
    freeRollCall(call);
    return result;
}
