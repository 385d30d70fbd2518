/*
 * lag.c: Chen, Giannakis, Sun, Yin, "LAG: Lazily Aggregated Gradient for Communication-Efficient Distributed Learning",
 * NeurIPS 2018: uploads until the objective is within 1e-8 of its least value.
 *
 * The authors' runs are followed in what their figures depend on: the first columns of three data sets, cut in file
 * order into equal parts; labels 0 and 1 left as they are; stored gradients that start as all ones; no upload in the
 * first ten steps; an upload counter that starts at 1 and counts one more on each 1000th step in which nobody uploads.
 */
#include "data.h"
#include "draw.h"
#include "paper.h"
#include "vector.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SETS = 3, WORKERS = 9, WINDOW = 10, MOST_STEPS = 400000, SYNTHETIC_ROWS = 50 };

typedef struct {
    const char *setting;
    const char *files[SETS]; /* synthetic: the first gives the labels */
    int columns;
    loss_t loss;
    double lambda; /* of each worker */
    double within;
    bool signLabels;
    double growth; /* synthetic: of the data from one worker to the next; 0: real data */
} setting_t;

static const setting_t settingList[] = {
    {"linear regression", {"lag_housing", "lag_bodyfat", "lag_abalone"}, 8, LOSS_SQUARES, 0.0, 1e-8, false, 0.0},
    {"logistic regression, labels as stored",
     {"lag_ionosphere", "lag_adult", "lag_derm"},
     34,
     LOSS_LOGISTIC,
     1e-4,
     1e-8,
     false,
     0.0},
    {"logistic regression, labels -1 and +1",
     {"lag_ionosphere", "lag_adult", "lag_derm"},
     34,
     LOSS_LOGISTIC,
     1e-4,
     1e-8,
     true,
     0.0},
    {"synthetic linear regression, L_m increasing",
     {"lag_bodyfat"},
     SYNTHETIC_ROWS,
     LOSS_SQUARES,
     0.0,
     1e-8,
     false,
     1.3},
    {"synthetic logistic regression, L_m alike", {"lag_adult"}, SYNTHETIC_ROWS, LOSS_LOGISTIC, 1e-3, 1e-7, false, 1.0},
};
enum { SETTING_COUNT = sizeof settingList / sizeof settingList[0] };

/* The step size is 1/L divided by something, which depends on the number of workers and on the data. */
typedef enum { PACE_FULL, PACE_CYCLIC, PACE_RANDOM } pace_t;

typedef struct {
    const char *name, *recipe;
    turn_t turn;
    pace_t pace;
    bool lazy; /* starts from stored ones, and its counter from 1 */
    uint64_t quietSteps;
    uint64_t late; /* steps that the authors' loop makes after the one that arrives */
} method_t;

static const method_t methods[] = {
    {"GD", "dense", TURN_ALL, PACE_FULL, false, 0, 2},
    {"Cyc-IAG", "lag-wk:xi=0", TURN_CYCLIC, PACE_CYCLIC, true, 0, 1},
    {"Num-IAG", "lag-wk:xi=0", TURN_RANDOM, PACE_RANDOM, true, 0, 1},
    {"LAG-PS", "lag-ps:window=10,xi=1", TURN_ALL, PACE_FULL, true, WINDOW, 1},
    {"LAG-WK", "lag-wk:window=10,xi=0.1", TURN_ALL, PACE_FULL, true, WINDOW, 1},
};
enum { METHOD_COUNT = sizeof methods / sizeof methods[0] };

/* One setting, ready to be run. */
typedef struct {
    const setting_t *setting;
    int workers;
    libsvm_t sets[TEAM_MAX_WORKERS];
    problem_t problems[TEAM_MAX_WORKERS];
    double smoothness[TEAM_MAX_WORKERS];
    double pooled, minimum;
} experiment_t;

static problem_t problemOf(const setting_t *setting, const libsvm_t *data, int first, int rows)
{
    return (problem_t){data, first, rows, setting->columns, setting->loss, 1.0, PENALTY_SQUARES, setting->lambda};
}

/* Rows that do not fill a part are left out. */
static bool makeReal(experiment_t *experiment, const settings_t *settings)
{
    const setting_t *setting = experiment->setting;
    int parts = experiment->workers / SETS;
    for (int i = 0; i < SETS; i++) {
        libsvm_t *set = &experiment->sets[i];
        if (!dataRead(set, settings->dataDir, setting->files[i]))
            return false;
        dataCut(set, setting->columns);
        if (setting->signLabels)
            dataSignLabels(set);
        int rows = set->rows / parts;
        for (int j = 0; j < parts; j++)
            experiment->problems[i * parts + j] = problemOf(setting, set, j * rows, rows);
    }
    return true;
}

/* A direction at right angles to those before it: what a QR factorisation of normal numbers gives. */
static void drawDirection(random_t *random, double (*directions)[SYNTHETIC_ROWS], int number)
{
    double *direction = directions[number];
    for (int i = 0; i < SYNTHETIC_ROWS; i++)
        direction[i] = drawNormal(random);
    for (int pass = 0; pass < 2; pass++)
        for (int j = 0; j < number; j++)
            vectorAddMultiple(direction, -vectorDot(direction, directions[j], SYNTHETIC_ROWS), directions[j],
                              SYNTHETIC_ROWS);
    vectorScale(direction, 1.0 / vectorNorm(direction, SYNTHETIC_ROWS), SYNTHETIC_ROWS);
}

/* growth^m q q' + I, so that the worker's L_m is (growth^m + 1)^2 */
static void fillSynthetic(libsvm_t *set, const double *direction, double scale, const double *labels)
{
    for (int row = 0; row < SYNTHETIC_ROWS; row++) {
        double *values = set->value + set->rowStart[row];
        for (int i = 0; i < SYNTHETIC_ROWS; i++)
            values[i] = scale * direction[row] * direction[i] + (row == i);
    }
    memcpy(set->label, labels, SYNTHETIC_ROWS * sizeof *labels);
}

static bool makeSynthetic(experiment_t *experiment, const settings_t *settings)
{
    const setting_t *setting = experiment->setting;
    double directions[TEAM_MAX_WORKERS][SYNTHETIC_ROWS];
    random_t random = randomMake((uint64_t)settings->seed, 0);
    libsvm_t *labels = &experiment->sets[experiment->workers];
    if (!dataRead(labels, settings->dataDir, setting->files[0]))
        return false;
    for (int m = 0; m < experiment->workers; m++) {
        libsvm_t *set = &experiment->sets[m];
        if (!dataMakeFull(set, SYNTHETIC_ROWS, SYNTHETIC_ROWS))
            return false;
        drawDirection(&random, directions, m);
        fillSynthetic(set, directions[m], pow(setting->growth, m), labels->label);
        experiment->problems[m] = problemOf(setting, set, 0, SYNTHETIC_ROWS);
    }
    return true;
}

static bool makeExperiment(experiment_t *experiment, const settings_t *settings)
{
    bool synthetic = experiment->setting->growth > 0.0;
    if (!(synthetic ? makeSynthetic(experiment, settings) : makeReal(experiment, settings)))
        return false;
    for (int m = 0; m < experiment->workers; m++)
        experiment->smoothness[m] = problemSmoothness(&experiment->problems[m], 1);
    experiment->pooled = problemSmoothness(experiment->problems, experiment->workers);
    experiment->minimum = problemMinimum(experiment->problems, experiment->workers);
    return true;
}

static void freeExperiment(experiment_t *experiment)
{
    for (int i = 0; i < TEAM_MAX_WORKERS; i++)
        libsvmFree(&experiment->sets[i]);
}

static double stepSize(const experiment_t *experiment, pace_t pace)
{
    double workers = experiment->workers;
    bool cyclic = pace == PACE_CYCLIC || experiment->setting->growth > 0.0;
    if (pace == PACE_FULL)
        return 1.0 / experiment->pooled;
    return (cyclic ? 1.0 / workers : 0.5 / sqrt(workers)) / experiment->pooled;
}

static void fillUploads(row_t *row, const team_t *team, const outcome_t *outcome, bool lazy)
{
    double counterStart = lazy ? 1.0 + (double)outcome->idleThousands : 0.0;
    row->figures[FIGURE_UPLOADS] = (double)teamUploads(team, outcome) + counterStart;
    row->hasUploads = true;
    memcpy(row->uploads, outcome->uploads, sizeof row->uploads);
}

static bool addRow(table_t *table, const team_t *team, const experiment_t *experiment, const method_t *method,
                   const outcome_t *outcome)
{
    row_t *row = paperAdd(table, team, experiment->setting->setting, method->name, outcome);
    if (!row)
        return false;
    fillUploads(row, team, outcome, method->lazy);
    row->figures[FIGURE_OBJECTIVE_ERROR] = outcome->objective - experiment->minimum;
    return true;
}

static bool runMethod(table_t *table, team_t *team, const experiment_t *experiment, const method_t *method, int seed)
{
    outcome_t outcome;
    descent_t descent = {.problems = experiment->problems,
                         .stepSize = stepSize(experiment, method->pace),
                         .turn = method->turn,
                         .smoothness = experiment->smoothness,
                         .tellsParams = method->lazy,
                         .quietSteps = method->quietSteps,
                         .storesOnes = method->lazy};
    job_t job = {.recipe = method->recipe,
                 .op = GS_SUM,
                 .bits = BITS_DENSE,
                 .count = (uint64_t)experiment->setting->columns,
                 .seed = (uint64_t)seed,
                 .steps = MOST_STEPS,
                 .target = experiment->minimum,
                 .within = experiment->setting->within,
                 .late = method->late};
    bool done = paperRun(table, team, experiment->setting->setting, method->name, &job, &descent, &outcome);
    if (done)
        done = addRow(table, team, experiment, method, &outcome);
    teamFreeOutcome(&outcome);
    return done;
}

static bool runSetting(table_t *table, team_t *team, const setting_t *setting, const settings_t *settings)
{
    experiment_t experiment = {.setting = setting, .workers = teamWorkers(team)};
    bool done = makeExperiment(&experiment, settings);
    if (!done)
        paperLeaveOut(table, setting->setting);
    for (int i = 0; done && i < METHOD_COUNT; i++)
        done &= runMethod(table, team, &experiment, &methods[i], settings->seed);
    freeExperiment(&experiment);
    return done;
}

static bool fill(table_t *table, const settings_t *settings)
{
    team_t *team = NULL;
    int workers = settings->workers ? settings->workers : WORKERS;
    if (workers % SETS || workers > SYNTHETIC_ROWS)
        return fail("--workers: got %d, expected a multiple of %d up to %d", workers, SETS, SYNTHETIC_ROWS);
    bool done = teamStart(&team, workers);
    bool connected = done;
    for (int i = 0; connected && i < SETTING_COUNT; i++) {
        if (settingList[i].growth > 0.0 && workers != WORKERS) /* the synthetic sets are made for nine */
            continue;
        done &= runSetting(table, team, &settingList[i], settings);
    }
    teamStop(team);
    return done;
}

const paper_t lagPaper = {
    .name = "lag",
    .help = "uploads to 1e-8: GD, cyclic and random IAG, LAG-PS, LAG-WK (default 9 workers; 18, 27)",
    .title = "LAG (Chen, Giannakis, Sun, Yin 2018): uploads until f - f* < 1e-8 (1e-7: synthetic logistic)",
    .bitsRule =
        "32 d an upload. uploads counts as the authors' programs do: from 1, and one more on each 1000th step in "
        "which nobody uploads; those of each worker are records that travelled",
    .x = "bits sent by all workers",
    .y = "f - f*",
    .fill = fill,
};
