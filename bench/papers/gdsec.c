/*
 * gdsec.c: Chen, Blum, Takac, Sadler, "Distributed Learning With Sparsified Gradient Differences", IEEE JSTSP 2022:
 * steps and bits until a logistic regression is within 1e-8 of its least value. All methods make the same steps of 1/L
 * from x = 0; they differ in what travels.
 */
#include "data.h"
#include "paper.h"

#include <stdio.h>

static const double lambda = 0.01, within = 1e-8;

typedef struct {
    const char *file;
    int workers;
    uint64_t steps; /* at most */
} setting_t;

static const setting_t settingList[] = {{"mushrooms", 5, 6000}, {"a9a", 10, 4000}};
enum { SETTING_COUNT = sizeof settingList / sizeof settingList[0] };

typedef struct {
    const char *name;
    const char *recipe; /* with a place for one number */
    double number;
    bool timesL; /* the number is in units of the smoothness L */
    bitsRule_t bits;
    bool tellsParams;
} method_t;

/* CGD sends the whole difference where |g - h| > (xi/M) |x - x before|: lag-wk with a window of one and (xi/L)^2, as
 * the step is 1/L. */
static const method_t methods[] = {
    {"GD", "dense", 0, false, BITS_DENSE, false},
    {"GD-SEC xi=0", "gdsec:xi=%.17g,beta=0.01,exchange=exact", 0, true, BITS_GAPS, true},
    {"GD-SEC xi=10L", "gdsec:xi=%.17g,beta=0.01,exchange=exact", 10, true, BITS_GAPS, true},
    {"GD-SEC xi=30L", "gdsec:xi=%.17g,beta=0.01,exchange=exact", 30, true, BITS_GAPS, true},
    {"GD-SEC xi=100L", "gdsec:xi=%.17g,beta=0.01,exchange=exact", 100, true, BITS_GAPS, true},
    {"GD-SEC xi=300L", "gdsec:xi=%.17g,beta=0.01,exchange=exact", 300, true, BITS_GAPS, true},
    {"GD-SEC xi=10L beta=0.1", "gdsec:xi=%.17g,beta=0.1,exchange=exact", 10, true, BITS_GAPS, true},
    {"GD-SEC xi=30L beta=0.1", "gdsec:xi=%.17g,beta=0.1,exchange=exact", 30, true, BITS_GAPS, true},
    {"GD-SEC xi=10L beta=1", "gdsec:xi=%.17g,beta=1,exchange=exact", 10, true, BITS_GAPS, true},
    {"GD-SEC xi=10L no error correction", "gdsec:xi=%.17g,beta=0.01,ec=0,exchange=exact", 10, true, BITS_GAPS, true},
    {"GD-SEC xi=100L no error correction", "gdsec:xi=%.17g,beta=0.01,ec=0,exchange=exact", 100, true, BITS_GAPS, true},
    {"CGD xi=0.1L", "lag-wk:window=1,xi=%.17g", 0.01, false, BITS_DENSE, true},
    {"CGD xi=L", "lag-wk:window=1,xi=%.17g", 1, false, BITS_DENSE, true},
    {"CGD xi=3L", "lag-wk:window=1,xi=%.17g", 9, false, BITS_DENSE, true},
    {"top-1 with feedback", "topk:k=%.0f,exchange=exact", 1, false, BITS_GAPS, false},
    {"top-11 with feedback", "topk:k=%.0f,exchange=exact", 11, false, BITS_GAPS, false},
    {"EF21 top-1", "ef21:select=topk,k=%.0f,exchange=exact", 1, false, BITS_GAPS, false},
};
enum { METHOD_COUNT = sizeof methods / sizeof methods[0] };

typedef struct {
    const setting_t *setting;
    const problem_t *problems;
    double smoothness, minimum;
} experiment_t;

static bool addRow(table_t *table, const team_t *team, const experiment_t *experiment, const method_t *method,
                   const outcome_t *outcome)
{
    row_t *row = paperAdd(table, team, experiment->setting->file, method->name, outcome);
    if (!row)
        return false;
    row->figures[FIGURE_UPLOADS] = (double)teamUploads(team, outcome);
    row->figures[FIGURE_OBJECTIVE_ERROR] = outcome->objective - experiment->minimum;
    return true;
}

static bool runMethod(table_t *table, team_t *team, const experiment_t *experiment, const method_t *method, int seed)
{
    outcome_t outcome;
    char recipe[128];
    snprintf(recipe, sizeof recipe, method->recipe, method->number * (method->timesL ? experiment->smoothness : 1.0));
    descent_t descent = {
        .problems = experiment->problems, .stepSize = 1.0 / experiment->smoothness, .tellsParams = method->tellsParams};
    job_t job = {.recipe = recipe,
                 .op = GS_SUM,
                 .bits = method->bits,
                 .count = (uint64_t)experiment->problems->dimension,
                 .seed = (uint64_t)seed,
                 .steps = experiment->setting->steps,
                 .target = experiment->minimum,
                 .within = within};
    bool done = paperRun(table, team, experiment->setting->file, method->name, &job, &descent, &outcome);
    if (done)
        done = addRow(table, team, experiment, method, &outcome);
    teamFreeOutcome(&outcome);
    return done;
}

static bool runMethods(table_t *table, team_t *team, const setting_t *setting, const libsvm_t *data, int seed)
{
    int workers = teamWorkers(team);
    problem_t problems[TEAM_MAX_WORKERS];
    problem_t whole = {
        data, 0, data->rows, data->columns, LOSS_LOGISTIC, 1.0 / data->rows, PENALTY_SQUARES, lambda / workers};
    problemSplit(problems, workers, &whole);
    experiment_t experiment = {setting, problems, problemSmoothness(problems, workers),
                               problemMinimum(problems, workers)};
    bool done = true;
    for (int i = 0; i < METHOD_COUNT; i++)
        done &= runMethod(table, team, &experiment, &methods[i], seed);
    return done;
}

static bool runSetting(table_t *table, const setting_t *setting, const settings_t *settings)
{
    libsvm_t data;
    team_t *team = NULL;
    bool done = dataRead(&data, settings->dataDir, setting->file) &&
                teamStart(&team, settings->workers ? settings->workers : setting->workers);
    if (!done)
        paperLeaveOut(table, setting->file);
    if (done) {
        dataSignLabels(&data);
        done = runMethods(table, team, setting, &data, settings->seed);
    }
    teamStop(team);
    libsvmFree(&data);
    return done;
}

static bool fill(table_t *table, const settings_t *settings)
{
    bool done = true;
    for (int i = 0; i < SETTING_COUNT; i++)
        done &= runSetting(table, &settingList[i], settings);
    return done;
}

const paper_t gdsecPaper = {
    .name = "gdsec",
    .help = "steps and bits to 1e-8: GD, GD-SEC, CGD, top-j, EF21 (default 5 and 10 workers)",
    .title = "GD-SEC (Chen, Blum, Takac, Sadler 2022): logistic regression until f - f* < 1e-8",
    .bitsRule = "uplink; a sparse message of n entries min(n (32 + ceil(log2 d)), 32 n + d), a dense one 32 d",
    .x = "bits sent by all workers",
    .y = "f - f*",
    .fill = fill,
};
