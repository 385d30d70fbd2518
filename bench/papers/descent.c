/* descent.c: the steps of gradient descent, for one worker. */
#include "descent.h"

#include "draw.h"
#include "vector.h"

#include <math.h>

/* The LAG authors' loop counts from 2. */
enum { CYCLE_START = 2 };

static const descent_t *descentOf(const worker_t *worker)
{
    return worker->job->context;
}

static bool tellParams(worker_t *worker)
{
    const descent_t *descent = descentOf(worker);
    gsParams_t params = GS_PARAMS_INIT;
    params.datatype = GS_FLOAT64;
    params.params = worker->x;
    params.stepSize = descent->stepSize;
    params.smoothness = descent->smoothness ? descent->smoothness[worker->number] : 0.0;
    return workerCheck(worker, gsReducerSetParams(worker->reducer, &params));
}

/* A first message of all ones that no step follows, and that is not counted. */
static bool storeOnes(worker_t *worker)
{
    for (uint64_t i = 0; i < worker->job->count; i++)
        worker->gradient[i] = 1.0;
    return workerReduce(worker);
}

static bool start(worker_t *worker)
{
    const descent_t *descent = descentOf(worker);
    if (descent->tellsParams && !tellParams(worker))
        return false;
    return !descent->storesOnes || storeOnes(worker);
}

/* The same for all workers: the draw depends on the seed and the step alone. */
static int chosenWorker(const worker_t *worker)
{
    int workers = teamWorkers(worker->team);
    if (descentOf(worker)->turn == TURN_CYCLIC)
        return (int)((worker->step + CYCLE_START) % (uint64_t)workers);
    random_t random = randomMake(worker->job->seed, worker->step);
    return drawWeighted(&random, descentOf(worker)->smoothness, workers);
}

static bool takesPart(const worker_t *worker)
{
    const descent_t *descent = descentOf(worker);
    if (worker->step < descent->quietSteps)
        return false;
    return descent->turn == TURN_ALL || chosenWorker(worker) == worker->number;
}

/* Told only where it can have changed. */
static bool prepare(worker_t *worker)
{
    const descent_t *descent = descentOf(worker);
    bool changes = descent->turn != TURN_ALL || (descent->quietSteps > 0 && worker->step <= descent->quietSteps);
    return !changes || workerCheck(worker, gsReducerSetParticipation(worker->reducer, takesPart(worker)));
}

static void batchGradient(worker_t *worker, const problem_t *problem)
{
    int batch = descentOf(worker)->batch, rows[DESCENT_MAX_BATCH] = {0};
    for (int i = 0; i < batch; i++)
        rows[i] = (int)randomBelow(&worker->random, (uint32_t)problem->rows);
    problemBatchGradient(problem, rows, batch, worker->x, worker->gradient);
}

static double objectiveOf(const worker_t *worker, const double *x, double *gradient)
{
    const problem_t *problem = &descentOf(worker)->problems[worker->number];
    double weight = worker->job->op == GS_AVG ? 1.0 / teamWorkers(worker->team) : 1.0;
    return weight * problemEvaluate(problem, x, gradient);
}

static double evaluate(worker_t *worker, bool gradient)
{
    const descent_t *descent = descentOf(worker);
    if (!descent->batch)
        return objectiveOf(worker, worker->x, gradient ? worker->gradient : NULL);
    if (gradient)
        batchGradient(worker, &descent->problems[worker->number]);
    bool watched = descent->watch && worker->step % (uint64_t)descent->watch == 0;
    return watched ? objectiveOf(worker, worker->x, NULL) : NAN;
}

static bool update(worker_t *worker)
{
    const descent_t *descent = descentOf(worker);
    double pace = descent->decay > 0.0 ? 1.0 + (double)worker->step / descent->decay : 1.0;
    vectorAddMultiple(worker->x, -descent->stepSize / pace, worker->aggregate, (int)worker->job->count);
    return !descent->observe || descent->observe(worker);
}

bool descentRun(team_t *team, job_t *job, const descent_t *descent, outcome_t *outcome)
{
    job->context = descent;
    job->lanes = 1;
    job->start = start;
    job->prepare = prepare;
    job->evaluate = evaluate;
    job->update = update;
    return teamRun(team, job, outcome);
}
