/*
 * cdadam.c: Wang, Lin, Chen, "Communication-Compressed Adaptive Gradient Method for Distributed Nonconvex
 * Optimization", AISTATS 2022: |grad f|^2 after 1000 steps of AMSGrad on a logistic regression with a bounded penalty,
 * from several starting points, each with the best of six step sizes.
 *
 * All starts and step sizes run side by side, as lanes of one vector: lane = step size * starts + start. Each lane has
 * a reducer of its own, and the data are read once for all.
 */
#include "data.h"
#include "draw.h"
#include "paper.h"
#include "vector.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WORKERS = 20, STEPS = 1000, WARM_STEPS = STEPS / 8, WATCH = 100 };

static const double lambda = 0.1, beta1 = 0.9, beta2 = 0.99, epsilon = 1e-8;

static const double stepSizes[] = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1};
enum { STEP_SIZES = sizeof stepSizes / sizeof stepSizes[0], MOST_DRAWS = PROBLEM_MAX_LANES / STEP_SIZES };

static const char *const files[] = {"phishing", "mushrooms"};
enum { FILE_COUNT = sizeof files / sizeof files[0] };

/* What a worker does with its gradient and with the aggregate. */
typedef enum {
    RULE_AMSGRAD,
    RULE_ADAM,        /* the largest second moment is forgotten */
    RULE_FROZEN_ADAM, /* 1-bit Adam: workers send momenta, second moments stay as they are */
} rule_t;

typedef struct {
    const char *name;
    const char *recipe;
    bitsRule_t bits;
    rule_t rule;
    bool warm; /* begins with dense steps of Adam */
} method_t;

static const method_t methods[] = {
    {"dense AMSGrad", "dense", BITS_DENSE_BOTH, RULE_AMSGRAD, false},
    {"naive, both ways", "sign:bucket=all,twoway=1", BITS_SIGN_BOTH, RULE_AMSGRAD, false},
    {"error feedback, both ways", "ef-sign:bucket=all,twoway=1", BITS_SIGN_BOTH, RULE_AMSGRAD, false},
    {"CD-Adam", "cdadam:select=sign,bucket=all", BITS_SIGN_BOTH, RULE_AMSGRAD, false},
    {"1-bit Adam", "ef-sign:bucket=all,twoway=1", BITS_SIGN_BOTH, RULE_FROZEN_ADAM, true},
};
enum { METHOD_COUNT = sizeof methods / sizeof methods[0] };

static const method_t warmUp = {"1-bit Adam's dense start", "dense", BITS_DENSE_BOTH, RULE_ADAM, false};

/* One method on one data set. */
typedef struct {
    const char *setting;
    const problem_t *problems;
    const double *x, *first, *second; /* where it starts; moments may be NULL */
    rule_t rule;
    int workers, draws, lanes, dimension;
} experiment_t;

static const experiment_t *experimentOf(const worker_t *worker)
{
    return worker->job->context;
}

/* [row][column] to [column][row] */
static void transpose(double *out, const double *in, int rows, int columns)
{
    for (int row = 0; row < rows; row++)
        for (int column = 0; column < columns; column++)
            out[column * rows + row] = in[row * columns + column];
}

static void laneGradients(const problem_t *problem, int lanes, const double *x, double *gradient, double *scratch)
{
    int dimension = problem->dimension;
    double *turned = scratch + lanes * dimension;
    transpose(scratch, x, lanes, dimension);
    problemLaneGradients(problem, lanes, scratch, turned);
    transpose(gradient, turned, dimension, lanes);
}

/* ---- |grad f|^2 -------------------------------------------------------------------------------------------------- */

/* Of each lane, f being the mean over the workers. */
static bool gradientNorms(const experiment_t *experiment, const double *x, double *norms)
{
    size_t count = (size_t)experiment->lanes * (size_t)experiment->dimension;
    double *sum = calloc(4 * count, sizeof *sum), *part = sum + count;
    if (!sum)
        return fail("no memory for %zu elements", 4 * count);
    for (int m = 0; m < experiment->workers; m++) {
        laneGradients(&experiment->problems[m], experiment->lanes, x, part, part + count);
        vectorAddMultiple(sum, 1.0 / experiment->workers, part, (int)count);
    }
    for (int l = 0; l < experiment->lanes; l++)
        norms[l] = vectorNorm2(sum + (size_t)l * (size_t)experiment->dimension, experiment->dimension);
    free(sum);
    return true;
}

static int compareNumbers(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of each start the least over the step sizes, in order. */
static void bestOfStarts(const experiment_t *experiment, const double *norms, double *best)
{
    for (int draw = 0; draw < experiment->draws; draw++) {
        best[draw] = INFINITY;
        for (int l = draw; l < experiment->lanes; l += experiment->draws)
            best[draw] = fmin(best[draw], norms[l]);
    }
    qsort(best, (size_t)experiment->draws, sizeof *best, compareNumbers);
}

/* NaN without memory. */
static double medianNorm(const experiment_t *experiment, const double *x)
{
    double norms[PROBLEM_MAX_LANES], best[MOST_DRAWS];
    if (!gradientNorms(experiment, x, norms))
        return NAN;
    bestOfStarts(experiment, norms, best);
    return best[experiment->draws / 2];
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static bool start(worker_t *worker)
{
    const experiment_t *experiment = experimentOf(worker);
    size_t bytes = worker->job->count * sizeof *worker->x;
    memcpy(worker->x, experiment->x, bytes);
    if (experiment->first)
        memcpy(worker->first, experiment->first, bytes);
    if (experiment->second)
        memcpy(worker->second, experiment->second, bytes);
    return true;
}

/* What the curve shows, by one worker for all. */
static double watched(const worker_t *worker)
{
    if (worker->step % WATCH != 0)
        return NAN;
    return worker->number == 0 ? medianNorm(experimentOf(worker), worker->x) : 0.0;
}

static double evaluate(worker_t *worker, bool gradient)
{
    const experiment_t *experiment = experimentOf(worker);
    if (gradient)
        laneGradients(&experiment->problems[worker->number], experiment->lanes, worker->x, worker->gradient,
                      worker->scratch);
    if (experiment->rule == RULE_FROZEN_ADAM)
        for (uint64_t i = 0; i < worker->job->count; i++)
            worker->gradient[i] = beta1 * worker->first[i] + (1.0 - beta1) * worker->gradient[i];
    return watched(worker);
}

/* The lanes of one step size lie together. */
static gsResult_t stepLanes(worker_t *worker, int number)
{
    gsOptimizer_t optimizer = GS_OPTIMIZER_INIT;
    size_t count = worker->job->count / STEP_SIZES, at = count * (size_t)number;
    optimizer.datatype = GS_FLOAT64;
    optimizer.stepSize = stepSizes[number];
    optimizer.beta1 = beta1;
    optimizer.beta2 = beta2;
    optimizer.epsilon = epsilon;
    optimizer.params = worker->x + at;
    if (experimentOf(worker)->rule != RULE_FROZEN_ADAM) {
        optimizer.kind = GS_AMSGRAD;
        optimizer.m = worker->first + at;
        optimizer.v = worker->second + at;
        optimizer.vmax = worker->largest + at;
    } else {
        optimizer.beta1 = 0.0;
        optimizer.m = worker->largest + at;
    }
    return gsOptimizerStep(worker->comm, &optimizer, worker->aggregate + at, count, NULL);
}

/* The aggregate is the momentum; it becomes the step, by second moments that stay as they are. */
static void takeMomentum(worker_t *worker)
{
    for (uint64_t i = 0; i < worker->job->count; i++) {
        worker->first[i] = worker->aggregate[i];
        worker->aggregate[i] /= sqrt(worker->second[i] + epsilon);
    }
}

static bool update(worker_t *worker)
{
    rule_t rule = experimentOf(worker)->rule;
    if (rule == RULE_ADAM)
        memset(worker->largest, 0, worker->job->count * sizeof *worker->largest);
    if (rule == RULE_FROZEN_ADAM)
        takeMomentum(worker);
    for (int i = 0; i < STEP_SIZES; i++)
        if (!workerCheck(worker, stepLanes(worker, i)))
            return false;
    return true;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static bool runPhase(table_t *table, team_t *team, const experiment_t *experiment, const method_t *method,
                     uint64_t steps, int seed, outcome_t *outcome)
{
    job_t job = {.recipe = method->recipe,
                 .op = GS_AVG,
                 .bits = method->bits,
                 .count = (uint64_t)experiment->lanes * (uint64_t)experiment->dimension,
                 .lanes = (uint64_t)experiment->lanes,
                 .together = method->bits == BITS_DENSE_BOTH,
                 .seed = (uint64_t)seed,
                 .steps = steps,
                 .context = experiment,
                 .start = start,
                 .evaluate = evaluate,
                 .update = update};
    return paperRun(table, team, experiment->setting, method->name, &job, NULL, outcome);
}

static void addBefore(outcome_t *outcome, const outcome_t *before)
{
    curve_t curve = before->curve;
    for (int i = 0; i < outcome->curve.count; i++)
        curveAdd(&curve, before->bits + outcome->curve.x[i], outcome->curve.y[i]);
    outcome->curve = curve;
    outcome->steps += before->steps;
    outcome->bits += before->bits;
    outcome->wireBytes += before->wireBytes;
}

/* The dense steps go before, and their charges to the same account. */
static bool runWarm(table_t *table, team_t *team, experiment_t experiment, const method_t *method, int seed,
                    outcome_t *outcome)
{
    outcome_t before;
    experiment.rule = warmUp.rule;
    bool done = runPhase(table, team, &experiment, &warmUp, WARM_STEPS, seed, &before);
    *outcome = (outcome_t){0};
    if (done) {
        experiment.rule = method->rule;
        experiment.x = before.x;
        experiment.first = before.first;
        experiment.second = before.second;
        done = runPhase(table, team, &experiment, method, STEPS - WARM_STEPS, seed, outcome);
    }
    addBefore(outcome, &before);
    teamFreeOutcome(&before);
    return done;
}

static bool addRow(table_t *table, const team_t *team, const experiment_t *experiment, const method_t *method,
                   const outcome_t *outcome)
{
    double norms[PROBLEM_MAX_LANES], best[MOST_DRAWS];
    row_t *row = paperAdd(table, team, experiment->setting, method->name, outcome);
    if (!row || !gradientNorms(experiment, outcome->x, norms))
        return false;
    bestOfStarts(experiment, norms, best);
    row->figures[FIGURE_BITS] = outcome->bits / experiment->workers;
    row->figures[FIGURE_GRADIENT_NORM2] = best[experiment->draws / 2];
    row->figures[FIGURE_GRADIENT_NORM2_LEAST] = best[0];
    row->figures[FIGURE_GRADIENT_NORM2_MOST] = best[experiment->draws - 1];
    return true;
}

static bool runMethod(table_t *table, team_t *team, experiment_t experiment, const method_t *method, int seed)
{
    outcome_t outcome;
    experiment.rule = method->rule;
    bool done = method->warm ? runWarm(table, team, experiment, method, seed, &outcome)
                             : runPhase(table, team, &experiment, method, STEPS, seed, &outcome);
    if (done)
        done = addRow(table, team, &experiment, method, &outcome);
    teamFreeOutcome(&outcome);
    return done;
}

/* Every step size starts from the same points. */
static double *drawStarts(const experiment_t *experiment, int seed)
{
    size_t one = (size_t)experiment->draws * (size_t)experiment->dimension;
    double *x = malloc(STEP_SIZES * one * sizeof *x);
    random_t random = randomMake((uint64_t)seed, 0);
    for (size_t i = 0; x && i < STEP_SIZES * one; i++)
        x[i] = i < one ? drawNormal(&random) : x[i - one];
    return x;
}

static bool runMethods(table_t *table, team_t *team, const char *file, const libsvm_t *data, const settings_t *settings)
{
    problem_t problems[TEAM_MAX_WORKERS];
    problem_t whole = {data, 0, data->rows, data->columns, LOSS_LOGISTIC, 1.0, PENALTY_BOUNDED, lambda};
    int workers = teamWorkers(team), draws = settings->draws;
    problemSplit(problems, workers, &whole);
    for (int m = 0; m < workers; m++)
        problems[m].scale = 1.0 / problems[m].rows;
    experiment_t experiment = {.setting = file,
                               .problems = problems,
                               .workers = workers,
                               .draws = draws,
                               .lanes = STEP_SIZES * draws,
                               .dimension = data->columns};
    double *x = drawStarts(&experiment, settings->seed);
    bool done = x || fail("no memory for %d starting points", draws);
    experiment.x = x;
    for (int i = 0; x && i < METHOD_COUNT; i++)
        done &= runMethod(table, team, experiment, &methods[i], settings->seed);
    free(x);
    return done;
}

static bool runFile(table_t *table, team_t *team, const char *file, const settings_t *settings)
{
    libsvm_t data;
    bool done = dataRead(&data, settings->dataDir, file);
    if (!done)
        paperLeaveOut(table, file);
    if (done) {
        dataSignLabels(&data);
        done = runMethods(table, team, file, &data, settings);
    }
    libsvmFree(&data);
    return done;
}

static bool fill(table_t *table, const settings_t *settings)
{
    team_t *team = NULL;
    if (settings->draws > MOST_DRAWS)
        return fail("--draws: got %d, expected %d at most", settings->draws, MOST_DRAWS);
    bool done = teamStart(&team, settings->workers ? settings->workers : WORKERS);
    bool connected = done;
    for (int i = 0; connected && i < FILE_COUNT; i++)
        done &= runFile(table, team, files[i], settings);
    teamStop(team);
    return done;
}

const paper_t cdadamPaper = {
    .name = "cdadam",
    .help = "|grad f|^2 after 1000 steps: AMSGrad, naive, error feedback, CD-Adam, 1-bit Adam (default 20 workers)",
    .title =
        "CD-Adam (Wang, Lin, Chen 2022): |grad f|^2 after 1000 steps, median over the starting points, least and most",
    .bitsRule =
        "of one worker and one start, up and down; sign 2 (32 + d) a step, dense 64 d. Wire bytes: of all workers",
    .x = "bits of all workers, up and down",
    .y = "|grad f|^2",
    .fill = fill,
};
