/*
 * gspar.c: Wangni, Wang, Liu, Zhang, "Gradient Sparsification for Communication-Efficient Distributed Optimization",
 * NeurIPS 2018, on the paper's synthetic data: the variance E|Q(g)|^2 / |g|^2 and the bits at a density, then what
 * stochastic gradient descent reaches with it.
 */
#include "data.h"
#include "paper.h"
#include "vector.h"

#include <math.h>
#include <stdio.h>

enum { ROWS = 1024, COLUMNS = 2048, WORKERS = 4, BATCH = 8, GRADIENTS = 200, STEPS = 2560 };

static const double pause = 200.0;    /* step k is step 0 by 1 + k / pause */
static const double roundings = 1e-5; /* more than a value of float32 makes */

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

typedef struct {
    const char *name;   /* with a place for the number, as the recipe */
    const char *recipe; /* room for all coordinates: nothing is thinned */
    bitsRule_t bits;
    bool (*observe)(worker_t *worker); /* for the variance */
} method_t;

typedef struct {
    const char *setting;
    const problem_t *problems;
    const problem_t *whole;
    double smoothness, minimum;
    int seed;
} experiment_t;

/* ---- variance ---------------------------------------------------------------------------------------------------- */

/* Every coordinate sent with p < 1 has the magnitude 1 / lambda, and p = min(lambda |g|, 1) for all: so the expectation
 * is known from one draw. A draw without such a coordinate tells nothing. */
static bool observeGspar(worker_t *worker)
{
    double magnitude = 0.0, moment = 0.0;
    int count = (int)worker->job->count;
    for (int i = 0; i < count; i++)
        if (fabs(worker->aggregate[i]) > (1.0 + roundings) * fabs(worker->gradient[i]))
            magnitude = fabs(worker->aggregate[i]);
    if (magnitude == 0.0)
        return true;
    for (int i = 0; i < count; i++)
        moment += fabs(worker->gradient[i]) * fmax(magnitude, fabs(worker->gradient[i]));
    worker->figure += moment;
    worker->weight += vectorNorm2(worker->gradient, count);
    return true;
}

/* All coordinates have the same p, and what is sent is g / p. */
static bool observeUniform(worker_t *worker)
{
    int count = (int)worker->job->count;
    double norm2 = vectorNorm2(worker->gradient, count), inverse = 0.0;
    for (int i = 0; i < count; i++)
        if (worker->aggregate[i] != 0.0)
            inverse = worker->aggregate[i] / worker->gradient[i];
    worker->figure += inverse * norm2;
    worker->weight += inverse > 0.0 ? norm2 : 0.0;
    return true;
}

static const method_t greedy = {"GSpar density %g", "gspar:density=%g,value=shared,capacity=1,exchange=exact",
                                BITS_HYBRID, observeGspar},
                      closed = {"GSpar epsilon %g", "gspar:epsilon=%g,value=shared,capacity=1,exchange=exact",
                                BITS_HYBRID, observeGspar},
                      uniform = {"UniSp density %g", "uniform:density=%g,capacity=1,exchange=exact", BITS_ENTRIES,
                                 observeUniform},
                      dense = {"dense", "dense", BITS_DENSE, NULL};

static bool measure(table_t *table, team_t *team, const experiment_t *experiment, const method_t *method, double number)
{
    char name[64], recipe[80];
    outcome_t outcome;
    snprintf(name, sizeof name, method->name, number);
    snprintf(recipe, sizeof recipe, method->recipe, number);
    descent_t descent = {.problems = experiment->problems, .batch = BATCH, .observe = method->observe};
    job_t job = {.recipe = recipe, .op = GS_AVG, .count = COLUMNS, .steps = GRADIENTS};
    job.bits = method->bits == BITS_HYBRID ? BITS_UNSIGNED : method->bits;
    job.seed = (uint64_t)experiment->seed;
    bool done = paperRun(table, team, experiment->setting, name, &job, &descent, &outcome);
    row_t *row = done ? paperAdd(table, team, experiment->setting, name, &outcome) : NULL;
    if (row) {
        row->figures[FIGURE_VARIANCE_RATIO] = method->observe ? outcome.figure : 1.0;
        curveAdd(&row->curve, outcome.bits, row->figures[FIGURE_VARIANCE_RATIO]);
    }
    teamFreeOutcome(&outcome);
    return row;
}

static const double varianceDensities[] = {0.5, 0.2, 0.1, 0.05, 0.02}, budgets[] = {0.25, 1.0, 4.0};

static bool measureAll(table_t *table, team_t *team, const experiment_t *experiment, double density)
{
    const double *densities = density > 0.0 ? &density : varianceDensities;
    bool done = measure(table, team, experiment, &dense, 0.0);
    for (int i = 0; i < (density > 0.0 ? 1 : COUNT(varianceDensities)); i++) {
        done &= measure(table, team, experiment, &greedy, densities[i]);
        done &= measure(table, team, experiment, &uniform, densities[i]);
    }
    for (int i = 0; i < COUNT(budgets); i++)
        done &= measure(table, team, experiment, &closed, budgets[i]);
    return done;
}

/* ---- convergence ------------------------------------------------------------------------------------------------- */

static const double paces[] = {0.03, 0.1, 0.3, 1.0, 3.0, 10.0}, runDensities[] = {0.2, 0.05};

static bool runPace(table_t *table, team_t *team, const experiment_t *experiment, const method_t *method,
                    const char *name, const char *recipe, double pace, outcome_t *outcome)
{
    descent_t descent = {.problems = experiment->problems,
                         .stepSize = pace / experiment->smoothness,
                         .decay = pause,
                         .batch = BATCH,
                         .watch = STEPS / 20};
    job_t job = {.recipe = recipe,
                 .op = GS_AVG,
                 .bits = method->bits,
                 .count = COLUMNS,
                 .seed = (uint64_t)experiment->seed,
                 .steps = STEPS,
                 .target = experiment->minimum};
    char label[96];
    snprintf(label, sizeof label, "%s, step %g/L", name, pace);
    if (!paperRun(table, team, experiment->setting, label, &job, &descent, outcome))
        return false;
    outcome->objective = problemEvaluate(experiment->whole, outcome->x, NULL);
    return true;
}

static void keepLower(outcome_t *best, double *bestPace, outcome_t *outcome, double pace)
{
    if (!(outcome->objective < best->objective))
        return;
    outcome_t worse = *best;
    *best = *outcome;
    *outcome = worse;
    *bestPace = pace;
}

/* Of several step sizes, the one that ends lowest. */
static bool converge(table_t *table, team_t *team, const experiment_t *experiment, const method_t *method,
                     double number)
{
    char name[64], recipe[80];
    outcome_t best = {.objective = INFINITY};
    double bestPace = NAN;
    bool done = true;
    snprintf(name, sizeof name, method->name, number);
    snprintf(recipe, sizeof recipe, method->recipe, number);
    for (int i = 0; i < COUNT(paces) && done; i++) {
        outcome_t outcome;
        done = runPace(table, team, experiment, method, name, recipe, paces[i], &outcome);
        if (done)
            keepLower(&best, &bestPace, &outcome, paces[i]);
        teamFreeOutcome(&outcome);
    }
    row_t *row = done ? paperAdd(table, team, experiment->setting, name, &best) : NULL;
    if (row) {
        row->figures[FIGURE_OBJECTIVE_ERROR] = best.objective - experiment->minimum;
        row->figures[FIGURE_STEP_SIZE] = bestPace / experiment->smoothness;
    }
    teamFreeOutcome(&best);
    return row;
}

static bool convergeAll(table_t *table, team_t *team, const experiment_t *experiment, double density)
{
    const double *densities = density > 0.0 ? &density : runDensities;
    bool done = converge(table, team, experiment, &dense, 0.0);
    for (int i = 0; i < (density > 0.0 ? 1 : COUNT(runDensities)); i++) {
        done &= converge(table, team, experiment, &greedy, densities[i]);
        done &= converge(table, team, experiment, &uniform, densities[i]);
    }
    return done;
}

/* ---- settings ---------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *setting;
    double shrink, below; /* C1 and C2 */
    double lambda;        /* times the number of rows */
    int workers;          /* 0: as many as asked for */
    bool (*run)(table_t *table, team_t *team, const experiment_t *experiment, double density);
} setting_t;

static const setting_t settingList[] = {
    {"variance, C1 = 0.6, C2 = 0.25", 0.6, 0.25, 0.1, 1, measureAll},
    {"variance, C1 = 0.9, C2 = 0.0625", 0.9, 0.0625, 0.1, 1, measureAll},
    {"variance, C1 = 0.01, C2 = 0.9", 0.01, 0.9, 0.1, 1, measureAll},
    {"convergence, C1 = 0.01, C2 = 0.9", 0.01, 0.9, 1.0, 0, convergeAll},
    {"convergence, C1 = 0.6, C2 = 0.25", 0.6, 0.25, 1.0, 0, convergeAll},
};

static bool runExperiment(table_t *table, team_t *team, const setting_t *setting, const libsvm_t *data,
                          const settings_t *settings)
{
    problem_t problems[TEAM_MAX_WORKERS];
    problem_t whole = {data, 0, ROWS, COLUMNS, LOSS_LOGISTIC, 1.0 / ROWS, PENALTY_SQUARES, setting->lambda / ROWS};
    problemSplit(problems, teamWorkers(team), &whole);
    for (int m = 0; m < teamWorkers(team); m++)
        problems[m].scale = 1.0 / problems[m].rows;
    experiment_t experiment = {setting->setting, problems, &whole, problemSmoothness(&whole, 1), NAN, settings->seed};
    if (setting->run == convergeAll)
        experiment.minimum = problemMinimum(&whole, 1);
    return setting->run(table, team, &experiment, settings->density);
}

static bool runSetting(table_t *table, const setting_t *setting, const settings_t *settings)
{
    libsvm_t data;
    team_t *team = NULL;
    skew_t skew = {ROWS, COLUMNS, setting->shrink, setting->below};
    int workers = setting->workers ? setting->workers : settings->workers ? settings->workers : WORKERS;
    bool done = dataGenerate(&data, &skew, (uint64_t)settings->seed) && teamStart(&team, workers) &&
                runExperiment(table, team, setting, &data, settings);
    teamStop(team);
    libsvmFree(&data);
    return done;
}

static bool fill(table_t *table, const settings_t *settings)
{
    bool done = true;
    for (int i = 0; i < COUNT(settingList); i++)
        done &= runSetting(table, &settingList[i], settings);
    return done;
}

const paper_t gsparPaper = {
    .name = "gspar",
    .help = "variance and bits at a density, and convergence: GSpar, uniform sampling, dense (default 4 workers)",
    .title =
        "GSpar (Wangni, Wang, Liu, Zhang 2018): E|Q(g)|^2 / |g|^2 over 200 gradients; then f - f* after 2560 steps",
    .bitsRule =
        "uplink; GSpar A (32 + ceil(log2 d)) + min(B (ceil(log2 d) + 1), 2 d) + 32 for A coordinates sent with p = 1 "
        "and B with p < 1, for the variance min(B ceil(log2 d), 2 d) as the paper has it; UniSp n (32 + ceil(log2 d)); "
        "dense 32 d",
    .x = "bits sent by all workers",
    .y = "f - f*, or E|Q(g)|^2 / |g|^2",
    .fill = fill,
};
