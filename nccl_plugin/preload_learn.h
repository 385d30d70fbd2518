/*
 * preload_learn.h: which call of a communicator is about which gradient, found out by watching. Host arithmetic alone: neither NCCL nor
 * CUDA. What must be alike on all ranks follows from keys, which NCCL wants alike; what only one rank knows is a proposal, to be
 * voted on.
 */
#ifndef GS_PRELOAD_LEARN_H
#define GS_PRELOAD_LEARN_H

#include <stdbool.h>
#include <stdint.h>

enum {
    PRELOAD_MAX_PERIOD = 2048, /* calls of a sequence that can be learned */
    PRELOAD_TRUSTED = 64       /* a sequence that came so often was no accident when it ends */
};

/* What NCCL wants alike on all ranks. */
typedef struct {
    uint64_t count; /* elements that a rank gives */
    int type, op;
    int collective; /* gsCollective_t */
} preloadKey;

/* A call, and the buffer that this rank gave. */
typedef struct {
    preloadKey key;
    const void *buffer;
} preloadSight;

typedef struct {
    /* watching */
    preloadSight seen[PRELOAD_MAX_PERIOD]; /* a ring: call c at c mod PRELOAD_MAX_PERIOD */
    uint64_t watched;                      /* calls seen since the watch began */
    /* calls, up to the last one, that equal the call p before: by their keys, and by their buffers too */
    uint32_t keyRun[PRELOAD_MAX_PERIOD + 1], bufferRun[PRELOAD_MAX_PERIOD + 1];
    uint64_t voteAt; /* no vote before so many calls */
    uint64_t doubt;  /* no shorter run is believed */
    bool repeats;    /* some period's run is long enough */
    /* following */
    uint32_t period, at; /* 0: watching; which call of the plan comes next */
    uint64_t run;        /* calls in its period */
    preloadSight plan[PRELOAD_MAX_PERIOD];
} preloadLearner;

/* A call: its place in the plan, or one of these. */
enum {
    PRELOAD_WATCHED = -1,
    PRELOAD_BROKE = -2 /* it is not the plan's: the plan is forgotten, and a new watch begins */
};
int preloadLearnCall(preloadLearner *l, preloadKey key, const void *buffer);

bool preloadSameSight(const preloadSight *a, const preloadSight *b);

/* Whether the ranks have something to vote on: alike on all of them. */
bool preloadLearnIsDue(const preloadLearner *l);

/* The shortest period that this rank's buffers repeat by, too; 0: none. */
uint32_t preloadLearnProposal(const preloadLearner *l);

/* Call `place` of a proposed period. */
const preloadSight *preloadLearnSight(const preloadLearner *l, uint32_t period, uint32_t place);

/* How the vote went: the next call is the plan's first; or another vote comes when twice as many calls have been seen. */
void preloadLearnAdopt(preloadLearner *l, uint32_t period);
void preloadLearnRefuse(preloadLearner *l);

#endif
