/* descent.h: gradient descent by a team, x = x - step * aggregate, from x = 0: all the tables but CD-Adam's. */
#ifndef PAPERS_DESCENT_H
#define PAPERS_DESCENT_H

#include "problem.h"
#include "team.h"

/* Who takes part in a step. */
typedef enum { TURN_ALL, TURN_CYCLIC, TURN_RANDOM } turn_t;

enum { DESCENT_MAX_BATCH = 64 };

typedef struct {
    const problem_t *problems; /* one a worker; the objective is their sum or mean, as the job's op says */
    double stepSize;
    double decay; /* step k has stepSize / (1 + k / decay); 0: all have stepSize */
    int batch;    /* rows of a worker's gradient, drawn with replacement; 0: all rows */
    int watch;    /* with a batch: the objective is evaluated every so many steps; 0: never */
    turn_t turn;
    const double *smoothness;          /* of the workers; NULL: not told. TURN_RANDOM draws them with these weights */
    bool tellsParams;                  /* the recipe follows the iterate */
    uint64_t quietSteps;               /* nobody takes part in these first steps */
    bool storesOnes;                   /* the stored gradients start as all ones, as in the LAG authors' runs */
    bool (*observe)(worker_t *worker); /* after each call; may be NULL */
} descent_t;

/* Fills the functions and the context of the job, and runs it. */
bool descentRun(team_t *team, job_t *job, const descent_t *descent, outcome_t *outcome);

#endif
