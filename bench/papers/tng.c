/*
 * tng.c: Wangni, Li, Shi, Malik, "Trajectory Normalized Gradients for Distributed Optimization", arXiv 1901.08227: how
 * much of a gradient is left to be coded, C_nz = |g - r|^2 / |g|^2, for references r on the trajectory, and what the
 * ternary coding of that does to the objective. Then quotients: the coding's own error |decoded - g|^2 / |g|^2.
 */
#define GS_ADVANCED /* gsReducerRead: what diana remembers */
#include "data.h"
#include "paper.h"
#include "vector.h"

#include <string.h>

enum { ROWS = 2048, COLUMNS = 512, WORKERS = 4, STEPS = 400, BATCH = 8 };

static const double lambda = 0.05;

typedef struct {
    const char *setting;
    double shrink, below; /* of the data */
    double pace;          /* the step size times L */
    bool alike;           /* every worker has all rows */
    int workers;          /* 0: as many as asked for */
    int batch;            /* 0: all rows */
} setting_t;

typedef struct {
    const char *name, *recipe;
    double extraBits; /* a call: the number in the pool, the snapshots */
    bool (*observe)(worker_t *worker);
} method_t;

typedef struct {
    const setting_t *setting;
    const problem_t *problems;
    double smoothness, minimum;
    int seed;
} experiment_t;

/* Figures are means over the second half of the steps. */
static void addFigure(worker_t *worker, double figure)
{
    if (worker->step < STEPS / 2)
        return;
    worker->figure += figure;
    worker->weight += 1.0;
}

/* C_nz as the library counts it. */
static bool observeReference(worker_t *worker)
{
    addFigure(worker, worker->stats.normalized);
    return true;
}

/* C_nz of what diana remembers of this worker; it is read after each call and kept for the next in `first`. */
static bool observeMemory(worker_t *worker)
{
    int count = (int)worker->job->count;
    double left = vectorDistance2(worker->gradient, worker->first, count);
    addFigure(worker, left / vectorNorm2(worker->gradient, count));
    return workerCheck(worker, gsReducerRead(worker->reducer, "memory", worker->first, worker->job->count));
}

/* The error of the coding, where a single worker's decoded message is the aggregate. */
static bool observeError(worker_t *worker)
{
    int count = (int)worker->job->count;
    double error = vectorDistance2(worker->aggregate, worker->gradient, count);
    addFigure(worker, error / vectorNorm2(worker->gradient, count));
    return true;
}

static const setting_t trajectories[] = {
    {"disjoint shards, step 1/L", 0.6, 0.25, 1.0, false, 0, 0},
    {"the same rows on all workers, step 0.1/L", 0.6, 0.25, 0.1, true, 0, 0},
};

static const method_t references[] = {
    {"dense", "dense", 0, NULL},
    {"ternary", "tng:reference=zero,select=ternary,bucket=all", 0, observeReference},
    {"last", "tng:reference=last,select=ternary,bucket=all", 0, observeReference},
    {"EMA 1/24", "tng:reference=ema,ema=0.0416666666666667,select=ternary,bucket=all", 0, observeReference},
    {"pool of 4, each worker searches",
     "tng:reference=zero+last+ema+ema2,ema=0.25,ema2=0.0416666666666667,search=worker,select=ternary,bucket=all", 2,
     observeReference},
    {"pool of 4, in hindsight",
     "tng:reference=zero+last+ema+ema2,ema=0.25,ema2=0.0416666666666667,search=hindsight,select=ternary,bucket=all", 0,
     observeReference},
    {"pool of 4, fitted",
     "tng:reference=zero+last+ema+ema2,ema=0.25,ema2=0.0416666666666667,search=fit,select=ternary,bucket=all", 128,
     observeReference},
    {"per worker, damped 1/24 (DIANA)", "diana:select=ternary,bucket=all,lambda=0.0416666666666667", 0, observeMemory},
    {"snapshot every 20", "tng:reference=snapshot,refresh=20,select=ternary,bucket=all", 0, observeReference},
};

static const setting_t quotients[] = {
    {"coding error, batches, C1 = 0.6, C2 = 0.25", 0.6, 0.25, 0.1, true, 1, BATCH},
    {"coding error, batches, C1 = 0.01, C2 = 0.9", 0.01, 0.9, 0.1, true, 1, BATCH},
};

static const method_t codings[] = {
    {"ternary", "tng:reference=zero,select=ternary,bucket=all", 0, observeError},
    {"quotient by EMA 1/24", "tng:reference=ema,ema=0.0416666666666667,mode=quotient,select=ternary,bucket=all", 0,
     observeError},
    {"quotient by EMA 1/24, searched",
     "tng:reference=zero+ema,ema=0.0416666666666667,mode=quotient,search=worker,select=ternary,bucket=all", 1,
     observeError},
};

static bool addRow(table_t *table, const team_t *team, const experiment_t *experiment, const method_t *method,
                   const outcome_t *outcome)
{
    row_t *row = paperAdd(table, team, experiment->setting->setting, method->name, outcome);
    if (!row)
        return false;
    figure_t figure = method->observe == observeError ? FIGURE_VARIANCE_RATIO : FIGURE_C_NZ;
    row->figures[FIGURE_OBJECTIVE_ERROR] = outcome->objective - experiment->minimum;
    if (method->observe)
        row->figures[figure] = outcome->figure;
    return true;
}

static bool runMethod(table_t *table, team_t *team, const experiment_t *experiment, const method_t *method)
{
    outcome_t outcome;
    const setting_t *setting = experiment->setting;
    descent_t descent = {.problems = experiment->problems,
                         .stepSize = setting->pace / experiment->smoothness,
                         .batch = setting->batch,
                         .watch = STEPS / 10,
                         .observe = method->observe};
    job_t job = {.recipe = method->recipe,
                 .op = GS_AVG,
                 .bits = method->observe ? BITS_TERNARY : BITS_DENSE,
                 .extraBits = method->extraBits,
                 .count = COLUMNS,
                 .seed = (uint64_t)experiment->seed,
                 .steps = STEPS,
                 .target = experiment->minimum};
    bool done = paperRun(table, team, setting->setting, method->name, &job, &descent, &outcome);
    if (done)
        done = addRow(table, team, experiment, method, &outcome);
    teamFreeOutcome(&outcome);
    return done;
}

static void makeProblems(problem_t *problems, int workers, const libsvm_t *data, bool alike)
{
    problem_t whole = {data, 0, data->rows, data->columns, LOSS_LOGISTIC, 1.0 / data->rows, PENALTY_SQUARES, lambda};
    problemSplit(problems, workers, &whole);
    for (int m = 0; m < workers; m++) {
        if (alike)
            problems[m] = whole;
        problems[m].scale = 1.0 / problems[m].rows;
    }
}

static bool runSetting(table_t *table, const setting_t *setting, const settings_t *settings, const method_t *methods,
                       int count)
{
    libsvm_t data;
    team_t *team = NULL;
    problem_t problems[TEAM_MAX_WORKERS];
    skew_t skew = {ROWS, COLUMNS, setting->shrink, setting->below};
    int workers = setting->workers ? setting->workers : settings->workers ? settings->workers : WORKERS;
    bool done = dataGenerate(&data, &skew, (uint64_t)settings->seed) && teamStart(&team, workers);
    if (done) {
        problem_t whole;
        makeProblems(&whole, 1, &data, true);
        makeProblems(problems, workers, &data, setting->alike);
        experiment_t experiment = {setting, problems, problemSmoothness(&whole, 1), problemMinimum(&whole, 1),
                                   settings->seed};
        for (int i = 0; i < count; i++)
            done &= runMethod(table, team, &experiment, &methods[i]);
    }
    teamStop(team);
    libsvmFree(&data);
    return done;
}

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

static bool fill(table_t *table, const settings_t *settings)
{
    bool done = true;
    for (int i = 0; i < COUNT(trajectories); i++)
        done &= runSetting(table, &trajectories[i], settings, references, COUNT(references));
    for (int i = 0; i < COUNT(quotients); i++)
        done &= runSetting(table, &quotients[i], settings, codings, COUNT(codings));
    return done;
}

const paper_t tngPaper = {
    .name = "tng",
    .help = "what references leave to be coded, C_nz, and quotients' errors (default 4 workers)",
    .title =
        "TNG (Wangni, Li, Shi, Malik 2019): ternary coding of g - r and g / r; C_nz over the second half of the steps",
    .bitsRule = "uplink; ternary 2 d + 32, and ceil(log2 P) for a worker's choice from a pool of P; a dense round 32 d",
    .x = "bits sent by all workers",
    .y = "f - f*",
    .fill = fill,
};
