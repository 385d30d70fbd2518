/*
 * team.c: the workers' threads and their common loop.
 *
 * What workers tell each other beside the library is one share a step, written before gsAllReduce and read after it:
 * the call is the barrier. Two sets of shares take turns, so that nobody writes what another still reads.
 */
#include "team.h"

#include "train/options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    double objective;
    double bits;      /* of all calls before this one */
    uint64_t uploads; /* likewise */
    uint64_t hash;    /* of x */
} share_t;

enum { VECTORS = 8 }; /* of a worker, in one block: x, gradient, aggregate, three moments, scratch for two */

struct team {
    ranks_t ranks;
    share_t shares[2][TEAM_MAX_WORKERS];
    worker_t workers[TEAM_MAX_WORKERS];
    const job_t *job;
    outcome_t *outcome;
};

bool teamStart(team_t **team, int workers)
{
    *team = calloc(1, sizeof **team);
    if (!*team)
        return fail("no memory for %d workers", workers);
    ranksStart(&(*team)->ranks, TRANSPORT_THREADS, workers);
    return ranksConnect(&(*team)->ranks);
}

void teamStop(team_t *team)
{
    if (!team)
        return;
    ranksStop(&team->ranks);
    free(team);
}

int teamWorkers(const team_t *team)
{
    return team->ranks.count;
}

void teamFreeOutcome(outcome_t *outcome)
{
    free(outcome->x);
    outcome->x = NULL;
}

uint64_t teamUploads(const team_t *team, const outcome_t *outcome)
{
    uint64_t uploads = 0;
    for (int m = 0; m < teamWorkers(team); m++)
        uploads += outcome->uploads[m];
    return uploads;
}

/* The others are woken, and fail with this one. */
static bool failWorker(worker_t *worker, const char *text)
{
    if (!worker->failed)
        snprintf(worker->failure, sizeof worker->failure, "%s: %s", worker->job->recipe, text);
    worker->failed = true;
    gsCommAbort(worker->comm);
    return false;
}

bool workerCheck(worker_t *worker, gsResult_t result)
{
    if (result == GS_ERROR_ABORTED && !worker->failed)
        return false; /* another has failed, and tells why */
    return result == GS_SUCCESS || failWorker(worker, gsGetLastError());
}

static uint64_t countReducers(const job_t *job)
{
    return job->together ? 1 : job->lanes;
}

bool workerReduce(worker_t *worker)
{
    const job_t *job = worker->job;
    uint64_t reducers = countReducers(job), count = job->count / reducers;
    for (uint64_t l = 0; l < reducers; l++)
        if (!workerCheck(worker, gsAllReduce(worker->gradient + l * count, worker->aggregate + l * count, count,
                                             GS_FLOAT64, job->op, worker->lanes[l], NULL)))
            return false;
    return true;
}

static uint64_t hashOf(const double *x, uint64_t count)
{
    uint64_t hash = 1469598103934665603u, bits;
    for (uint64_t i = 0; i < count; i++) {
        memcpy(&bits, &x[i], sizeof bits);
        hash = (hash ^ bits) * 1099511628211u;
    }
    return hash;
}

static double sumObjectives(const share_t *shares, int workers)
{
    double sum = 0.0;
    for (int m = 0; m < workers; m++)
        sum += shares[m].objective;
    return sum;
}

static bool sameParameters(const share_t *shares, int workers)
{
    for (int m = 1; m < workers; m++)
        if (shares[m].hash != shares[0].hash)
            return false;
    return true;
}

/* True from the step `late` steps after the first that is near enough. */
static bool hasArrived(worker_t *worker, double objective)
{
    const job_t *job = worker->job;
    bool near = job->within > 0.0 && fabs(objective - job->target) < job->within;
    worker->arrivals += near || worker->arrivals > 0;
    return worker->arrivals > job->late;
}

/* By one worker for all: what the shares of a step say about the steps before it. */
static void record(worker_t *worker, const share_t *shares, double objective)
{
    outcome_t *outcome = worker->team->outcome;
    double bits = 0.0;
    uint64_t uploads = 0, before = 0;
    for (int m = 0; m < teamWorkers(worker->team); m++) {
        bits += shares[m].bits;
        uploads += shares[m].uploads;
        before += outcome->uploads[m];
        outcome->uploads[m] = shares[m].uploads;
    }
    if (worker->step > 0 && worker->step % 1000 == 0 && uploads == before)
        outcome->idleThousands++;
    if (isnan(objective))
        return;
    outcome->objective = objective;
    curveAdd(&outcome->curve, bits, objective - worker->job->target);
}

static bool countCall(worker_t *worker)
{
    gsStats_t before = worker->stats;
    if (!workerCheck(worker, gsReducerGetStats(worker->reducer, &worker->stats)))
        return false;
    worker->uploads += worker->stats.skipped == before.skipped;
    worker->wireBytes +=
        (worker->stats.wireBytes - before.wireBytes) / (worker->job->lanes / countReducers(worker->job));
    worker->bits += bitsOfCall(worker->job->bits, worker->job->count / worker->job->lanes, &before, &worker->stats);
    worker->bits += worker->job->extraBits;
    worker->sent += (double)(worker->stats.sentTotal - before.sentTotal);
    return true;
}

static bool callLibrary(worker_t *worker, share_t *share)
{
    const job_t *job = worker->job;
    int wanted = 1;
    if (job->prepare && !job->prepare(worker))
        return false;
    if (!workerCheck(worker, gsReducerWantsGradient(worker->reducer, &wanted)))
        return false;
    double objective = job->evaluate(worker, wanted != 0);
    *share = (share_t){objective, worker->bits, worker->uploads, hashOf(worker->x, job->count)};
    return workerReduce(worker);
}

/* The call at an x that is good enough was made to learn that, and is not counted. */
static bool takeStep(worker_t *worker, bool *arrived)
{
    team_t *team = worker->team;
    share_t *shares = team->shares[worker->step % 2];
    if (!callLibrary(worker, &shares[worker->number]))
        return false;
    if (!sameParameters(shares, teamWorkers(team)))
        return failWorker(worker, "the workers' parameters differ");
    double objective = sumObjectives(shares, teamWorkers(team));
    *arrived = hasArrived(worker, objective);
    if (worker->number == 0)
        record(worker, shares, objective);
    return *arrived || (countCall(worker) && worker->job->update(worker));
}

static bool runSteps(worker_t *worker)
{
    bool arrived = false;
    if (worker->job->start && !worker->job->start(worker))
        return false;
    if (!workerCheck(worker, gsReducerGetStats(worker->reducer, &worker->stats)))
        return false;
    for (worker->step = 0; worker->step < worker->job->steps && !arrived; worker->step += !arrived)
        if (!takeStep(worker, &arrived))
            return false;
    return true;
}

static bool makeReducers(worker_t *worker)
{
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    uint64_t reducers = countReducers(worker->job);
    config.datatype = GS_FLOAT64;
    config.recipe = worker->job->recipe;
    config.count = worker->job->count / reducers;
    config.cpuThreads = 1;
    for (uint64_t l = 0; l < reducers; l++) {
        config.seed = worker->job->seed + l;
        if (!workerCheck(worker, gsReducerCreate(&worker->lanes[l], worker->comm, &config)))
            return false;
    }
    worker->reducer = worker->lanes[0];
    return true;
}

static bool allocateVectors(worker_t *worker)
{
    uint64_t count = worker->job->count;
    worker->x = calloc(VECTORS * count, sizeof *worker->x);
    if (!worker->x)
        return failWorker(worker, "no memory for the worker's vectors");
    worker->gradient = worker->x + count;
    worker->aggregate = worker->gradient + count;
    worker->first = worker->aggregate + count;
    worker->second = worker->first + count;
    worker->largest = worker->second + count;
    worker->scratch = worker->largest + count;
    return true;
}

static void runWorker(const rank_t *rank, void *context)
{
    team_t *team = context;
    worker_t *worker = &team->workers[rank->number];
    *worker = (worker_t){.job = team->job, .team = team, .number = rank->number, .comm = rank->comm};
    worker->random = randomMake(team->job->seed, (uint64_t)rank->number + 1);
    worker->stats = (gsStats_t){0};
    if (allocateVectors(worker) && makeReducers(worker))
        runSteps(worker);
    for (int l = 0; l < TEAM_MAX_LANES; l++)
        gsReducerDestroy(worker->lanes[l]);
}

static void sumWorkers(team_t *team, outcome_t *outcome)
{
    const job_t *job = team->job;
    int workers = teamWorkers(team);
    double sent = 0.0, figure = 0.0, weight = 0.0;
    for (int m = 0; m < workers; m++) {
        const worker_t *worker = &team->workers[m];
        outcome->uploads[m] = worker->uploads;
        outcome->bits += worker->bits;
        outcome->wireBytes += (double)worker->wireBytes;
        figure += worker->figure;
        weight += worker->weight;
        sent += worker->sent;
    }
    outcome->figure = figure / weight;
    outcome->steps = team->workers[0].step;
    uint64_t calls = outcome->steps ? outcome->steps : 1, elements = job->count / countReducers(job);
    outcome->density = sent / ((double)elements * workers * (double)calls);
}

static const char *findFailure(const team_t *team)
{
    for (int m = 0; m < teamWorkers(team); m++)
        if (team->workers[m].failed)
            return team->workers[m].failure;
    return NULL;
}

/* After a failure the communicators are of no use any more. */
static bool reconnect(team_t *team)
{
    int workers = teamWorkers(team);
    ranksStop(&team->ranks);
    ranksStart(&team->ranks, TRANSPORT_THREADS, workers);
    return ranksConnect(&team->ranks);
}

bool teamRun(team_t *team, const job_t *job, outcome_t *outcome)
{
    *outcome = (outcome_t){.figure = NAN};
    team->job = job;
    team->outcome = outcome;
    ranksRun(&team->ranks, runWorker, team);
    sumWorkers(team, outcome);
    outcome->x = team->workers[0].x; /* handed over, with all that is in its block */
    outcome->first = team->workers[0].first;
    outcome->second = team->workers[0].second;
    for (int m = 1; m < teamWorkers(team); m++)
        free(team->workers[m].x);
    const char *failure = findFailure(team);
    return !failure || (reconnect(team) && fail("%s", failure));
}
