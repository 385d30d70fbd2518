/* preload.h: what the files of libgradsieve_preload share. */
#ifndef GS_PRELOAD_H
#define GS_PRELOAD_H

#include "../src/core.h"
#include "preload_learn.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* ---- the NCCL behind the wrappers (preload_nccl.c) ---- */

/* Entry points by name, found where the program would have found them without this library. */
typedef struct {
#define PRELOAD_WRAPPED(name) __typeof__(name) *name;
#define PRELOAD_USED(name) __typeof__(name) *name;
#define PRELOAD_PASSED(name)
#include "preload_calls.def"
    int version;   /* as ncclGetVersion says */
    int libraries; /* NCCLs that this process has loaded */
} preloadNccl;

/* NULL: there is none. */
const preloadNccl *preloadFindNccl(void);

/* ---- which calls may be compressed (preload_rules.c) ---- */

/* Why a call passes as it is; preloadPassText says it. */
typedef enum {
    PASS_DISABLED,
    PASS_SETTINGS,
    PASS_ALONE,
    PASS_SMALL,
    PASS_TYPE,
    PASS_OP,
    PASS_SIZE,
    PASS_SCATTER,
    PASS_STATE,
    PASS_REASONS,
    PASS_NOT = PASS_REASONS /* it does not: it may be compressed */
} preloadPass;
const char *preloadPassText(preloadPass reason);

enum { PRELOAD_LEAST_BYTES = 4096 }; /* what GS_MIN_BYTES cannot go below */

/* The environment, read once. */
typedef struct {
    bool disabled;
    const char *recipe, *report;
    int64_t minBytes, stateLimit, timeoutMs;
    uint64_t hash;     /* of all that must be alike on all ranks */
    char refusal[256]; /* what cannot be used; then everything passes */
} preloadSettings;
const preloadSettings *preloadGetSettings(void);

/* By what is alike on all ranks: whether any settings would compress a call, and what these do. */
bool preloadIsCandidate(const preloadKey *key);
preloadPass preloadJudge(const preloadKey *key);

/* ---- counts, and the report at exit (preload_report.c) ---- */

typedef struct {
    atomic_ullong compressed, captured; /* calls, and those of them that went into a graph instead */
    atomic_ullong learning;
    atomic_ullong passed[PASS_REASONS];
    atomic_ullong plans, broken, resumed,
        refused; /* votes won, plans that did not last, those taken up again, votes lost */
    /* as the devices count, replays of graphs included */
    atomic_ullong exchanges, nonFinite, faults, denseBytes, wireBytes;
    atomic_ullong measured, encodeNs, decodeNs; /* calls of which the time was taken, and theirs */
} preloadTally;
extern preloadTally preloadCounts;

/* The first reason why places have no reducer. */
void preloadReportWhy(const char *reason);
/* When the process ends; once CUDA has begun, so that it has not ended then. */
void preloadReportAtExit(void);

/* ---- a plan: reducers of a communicator's sequence of calls (preload_plan.c) ---- */

/* Device time of a call now and then: where each of its stages begins and ends. */
typedef enum {
    PRELOAD_ENCODES,
    PRELOAD_ENCODED,
    PRELOAD_SUMS,
    PRELOAD_SUMMED,
    PRELOAD_DECODES,
    PRELOAD_DECODED,
    PRELOAD_TIMES
} preloadTime;
typedef struct {
    cudaEvent_t events[PRELOAD_TIMES];
    uint64_t calls;
    uint32_t place; /* whose call is measured */
    int next;       /* preloadTime; 0: no call is, PRELOAD_TIMES: its times have not been read yet */
} preloadClock;

typedef struct preloadPlan {
    gsComm_t comm;        /* of single stages: it moves nothing itself */
    uint32_t period, n;   /* places, and how many of them have a reducer: the first ones */
    uint32_t turn;        /* place 0 of what is followed is this place here */
    preloadSight *sights; /* by which it was learned */
    preloadClock clock;
    gsReducer_t *reducers;
    gsState *states; /* pinned: as each reducer's was after its last call */
    bool captured;   /* a graph has its pointers */
    struct preloadPlan *next;
} preloadPlan;

/* A communicator. Records stay until exit, for the report; what is heavy goes with the communicator. */
typedef struct preloadComm {
    ncclComm_t nccl;
    int rank, nranks, device;
    atomic_bool gone;    /* destroyed or aborted: the handle may be another's now */
    int users;           /* threads, and calls that wait for their group's end */
    bool met;            /* a call has come that some settings would compress; */
    bool greeted;        /* behind the first such, the ranks have compared theirs */
    preloadPass passes;  /* all calls, for this reason; or PASS_NOT */
    ncclResult_t failed; /* what every call returns from now on */
    preloadLearner *learner;
    preloadPlan *plan, *old; /* the one followed; earlier ones that graphs may hold */
    pthread_mutex_t life;    /* ncclCommAbort, and the polls that it must not overtake */
    int64_t *ballot, *hostBallot;
    struct preloadComm *next;
} preloadComm;

/* A call that waits for the end of its group. */
typedef struct {
    preloadComm *comm;
    preloadPlan *plan; /* its communicator may meanwhile follow none */
    uint32_t place;
    const void *send;
    void *recv;
    ncclRedOp_t op;
    cudaStream_t stream;
} preloadCall;

/* Where an earlier plan begins as the period does, by keys and this rank's buffers, so that what its reducers owe is not lost; -1: it is
 * another. */
int64_t preloadPlanTurn(const preloadPlan *plan, const preloadLearner *l, uint32_t period);
/* Reducers for a period, as many of the first places as memory and limit allow; maybe none. */
preloadPlan *preloadPlanMake(preloadComm *c, uint32_t period);
/* The places from n on go dense. */
void preloadPlanCut(preloadPlan *plan, uint32_t n);
void preloadPlanFree(preloadPlan *plan);
/* Adds what the devices have counted; preloadPlanFree does. */
void preloadPlanTally(const preloadPlan *plan);
/* The stages of a call and, between them, its exchanges: of records or parts, and of a scattered sum's seals. */
ncclResult_t preloadEncode(const preloadCall *call);
ncclResult_t preloadExchange(const preloadCall *call);
ncclResult_t preloadSum(const preloadCall *call);
bool preloadHasSeals(const preloadCall *call);
ncclResult_t preloadExchangeSeals(const preloadCall *call);
ncclResult_t preloadDecode(const preloadCall *call);
/* The error that a reducer of the plan has met on the device, as far as that has come. */
ncclResult_t preloadPlanError(const preloadPlan *plan);

/* preload_clock.c: at the times of a call of this place, on its stream; one in 16 is measured. */
enum { PRELOAD_CLOCK_EVERY = 16 };
void preloadClockBegin(preloadClock *clock, uint32_t place, cudaStream_t stream);
void preloadClockMark(preloadClock *clock, preloadTime when, uint32_t place, cudaStream_t stream);
void preloadClockFree(preloadClock *clock);

/* ---- communicators (preload_comm.c) ---- */

/* Until the thread leaves it, a communicator keeps what it holds. NULL: NCCL does not know it either, or, with `known`, no call has
 * come by so far. */
preloadComm *preloadCommEnter(ncclComm_t handle, bool known);
void preloadCommStay(preloadComm *c); /* of a thread that is in it: once more */
void preloadCommLeave(preloadComm *c);
/* Ends it by ncclCommDestroy or ncclCommAbort. */
ncclResult_t preloadCommEnd(ncclComm_t handle, ncclResult_t (*end)(ncclComm_t));
const preloadComm *preloadCommList(void);
/* No longer followed: graphs may hold it, and it is freed later. */
void preloadCommRetire(preloadComm *c, preloadPlan *plan);
/* That a reducer of the plan has met on the device, as far as that has come; or ncclSuccess. */
ncclResult_t preloadCommError(preloadComm *c);
ncclResult_t preloadFromCuda(cudaError_t code);
ncclResult_t preloadFromGs(gsResult_t code);
/* Waits until what was called has been enqueued (communicators that do not block), or the stream has come to its end. */
ncclResult_t preloadAwaitEnqueued(preloadComm *c, ncclResult_t code);
ncclResult_t preloadAwaitStream(preloadComm *c, cudaStream_t stream);

/* ---- votes (preload_vote.c) ---- */

/* A communicator with something to vote on, and the stream of its last call. */
typedef struct {
    preloadComm *comm;
    cudaStream_t stream;
    uint32_t period;   /* this rank's proposal, */
    int64_t turn;      /* where an earlier plan has its beginning, or -1, */
    preloadPlan *plan; /* and its reducers: that plan's, or new ones */
} preloadVoter;
bool preloadIsCaptured(cudaStream_t stream);
bool preloadWantsVote(const preloadComm *c, cudaStream_t stream);
/* All at once: ranks of one thread must not wait for each other. */
ncclResult_t preloadVote(preloadVoter *voters, size_t n);

/* The device of a communicator for a while. */
static inline int preloadEnterDevice(const preloadComm *c)
{
    int previous = c->device;
    cudaGetDevice(&previous);
    if (previous != c->device)
        cudaSetDevice(c->device);
    return previous;
}

static inline void preloadLeaveDevice(const preloadComm *c, int previous)
{
    if (previous != c->device)
        cudaSetDevice(previous);
}

static inline bool preloadSucceeded(ncclResult_t code)
{
    return code == ncclSuccess || code == ncclInProgress;
}

#define PRELOAD_CHECK(call)                  \
    do {                                     \
        ncclResult_t preloadResult = (call); \
        if (preloadResult != ncclSuccess)    \
            return preloadResult;            \
    } while (0)

#endif
