/* team.h: workers as threads, each a rank of the library, who run one distributed method step by step. */
#ifndef PAPERS_TEAM_H
#define PAPERS_TEAM_H

#include "bits.h"
#include "curve.h"
#include "train/failure.h"
#include "train/random.h"
#include "train/ranks.h"

#include <stdbool.h>
#include <stdint.h>

enum { TEAM_MAX_WORKERS = 64, TEAM_MAX_LANES = 64 };

typedef struct worker worker_t;
typedef struct team team_t;

/* A method, and how long it runs. The functions are called by every worker; those that may be NULL say so. */
typedef struct {
    const char *recipe;
    gsRedOp_t op;
    bitsRule_t bits;
    double extraBits; /* beside the record's, every call */
    uint64_t count;   /* elements of x */
    uint64_t lanes;   /* runs side by side, of count / lanes elements each; bits and bytes are those of one of them */
    bool together;    /* one reducer serves all lanes: what it does with an element depends on no other */
    uint64_t seed;
    uint64_t steps;        /* at most */
    double target, within; /* stops where |f - target| < within; 0: never */
    uint64_t late;         /* steps made after that all the same */
    const void *context;
    bool (*start)(worker_t *worker);                     /* after the reducer is made; NULL: from x = 0 */
    bool (*prepare)(worker_t *worker);                   /* before every call; may be NULL */
    double (*evaluate)(worker_t *worker, bool gradient); /* its part of f(x), and the gradient there if wanted */
    bool (*update)(worker_t *worker);                    /* x from the aggregate */
} job_t;

struct worker {
    const job_t *job;
    team_t *team;
    int number;
    gsComm_t comm;
    gsReducer_t reducer; /* of the first lane */
    gsReducer_t lanes[TEAM_MAX_LANES];
    uint64_t step;     /* calls before this one */
    uint64_t arrivals; /* calls since the target was reached */
    double *x, *gradient, *aggregate;
    double *first, *second, *largest; /* moments, for those who keep them */
    double *scratch;                  /* 2 count elements */
    random_t random;                  /* of this worker */
    gsStats_t stats;                  /* after the last call */
    uint64_t uploads;                 /* calls in which it sent more than a header */
    uint64_t wireBytes;
    double bits, sent;     /* sums over the calls */
    double figure, weight; /* the method's own figure, as a sum, and what it is to be divided by */
    bool failed;
    char failure[FAILURE_LENGTH];
};

typedef struct {
    uint64_t steps;
    uint64_t idleThousands; /* steps 1000, 2000 ... in which nobody sent anything */
    double objective;       /* at the last x that was evaluated */
    uint64_t uploads[TEAM_MAX_WORKERS];
    double bits, wireBytes;
    double density;             /* mean share of coordinates that a call sent */
    double figure;              /* the workers' figures together by their weights together */
    curve_t curve;              /* f - target against bits */
    double *x, *first, *second; /* the last, of one worker for all; until teamFreeOutcome */
} outcome_t;

bool teamStart(team_t **team, int workers);
void teamStop(team_t *team); /* NULL is allowed */
int teamWorkers(const team_t *team);

/* False, with a failure text, where a call of the library fails. teamFreeOutcome in either case. */
bool teamRun(team_t *team, const job_t *job, outcome_t *outcome);
void teamFreeOutcome(outcome_t *outcome);

uint64_t teamUploads(const team_t *team, const outcome_t *outcome);

/* For the functions of a job: one call of the library, all lanes; every worker makes it. */
bool workerReduce(worker_t *worker);

/* For the functions of a job: true if the library's result is a success; otherwise the worker keeps what went wrong. */
bool workerCheck(worker_t *worker, gsResult_t result);

#endif
