/* gs_train.c: data-parallel training of a small model, with one recipe or with several to compare. */
#include "train/failure.h"
#include "train/json.h"
#include "train/options.h"
#include "train/plot.h"
#include "train/ranks.h"
#include "train/report.h"
#include "train/run.h"

#include <cblas.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* Told before the training, not after an hour of it. */
static bool checkWritable(const char *flag, const char *path)
{
    if (!path)
        return true;
    bool existed = access(path, F_OK) == 0;
    FILE *file = fopen(path, "a");
    if (!file)
        return fail("%s: %s cannot be written: %s", flag, path, strerror(errno));
    fclose(file);
    if (!existed)
        remove(path);
    return true;
}

static bool checkOutputs(const options_t *options)
{
    return checkWritable("--json", options->json) && checkWritable("--plot", options->plot);
}

/* With --overlap each recipe has two runs, one behind the other. */
static int runsOf(const options_t *options)
{
    return options->overlap ? 2 : 1;
}

/* Overlapping must not change a bit. */
static bool checkPair(const run_t *during)
{
    return during->way != EXCHANGE_DURING || runsAgree(during - 1, during) ||
           fail("recipe '%s': other parameters than without overlap", during->recipe);
}

/* Stops at the first run that fails; `done` tells how many went well. */
static bool trainAll(run_t *runs, const job_t *job, ranks_t *ranks, int *done)
{
    const textList_t *recipes = &job->options->compare;
    int each = runsOf(job->options);
    for (*done = 0; *done < recipes->count * each; ++*done) {
        exchangeWay_t way = each == 1 ? EXCHANGE_WHOLE : *done % each ? EXCHANGE_DURING : EXCHANGE_AFTER;
        run_t *run = &runs[*done];
        if (!ranksAgree(ranks, runTrain(run, job, ranks, recipes->texts[*done / each], way) && checkPair(run)))
            return false;
    }
    return true;
}

static bool writeResults(const options_t *options, const run_t *runs, int count)
{
    bool written = true;
    reportTable(runs, count);
    if (options->overlap && count > 1)
        reportOverlap(runs, count);
    if (options->json && !jsonWrite(options->json, runs, count)) {
        fprintf(stderr, "gs_train: %s\n", failureText());
        written = false;
    }
    if (options->plot && !plotDraw(options->plot, runs, count)) {
        fprintf(stderr, "gs_train: %s\n", failureText());
        return false;
    }
    if (options->plot)
        printf("plot: %s\n", options->plot);
    return written;
}

/* What is done before a failure is written all the same. */
static int trainAndWrite(const job_t *job, ranks_t *ranks)
{
    run_t runs[2 * FLAGS_MAX_TEXTS] = {0};
    int done;
    bool root = ranksAreRoot(ranks);
    if (root)
        reportJob(job, ranks);
    bool trained = trainAll(runs, job, ranks, &done);
    bool written = !root || done == 0 || writeResults(job->options, runs, done);
    for (int i = 0; i < job->options->compare.count * runsOf(job->options); i++)
        runFree(&runs[i]);
    return trained && written ? 0 : EXIT_FAILED;
}

static int train(const options_t *options, const device_t *device, ranks_t *ranks)
{
    model_t model;
    job_t job;
    int status = EXIT_FAILED;
    if (ranksAgree(ranks, modelMake(&model, options, device))) {
        bool made = ranksAgree(ranks, jobMake(&job, options, &model, ranks->count));
        status = made ? trainAndWrite(&job, ranks) : EXIT_USAGE;
    }
    modelFree(&model);
    return status;
}

static int run(options_t *options, bool parsed, ranks_t *ranks)
{
    const device_t *device = NULL;
    if (!ranksAgree(ranks, parsed))
        return EXIT_USAGE;
    if (options->help) {
        if (ranksAreRoot(ranks))
            optionsPrintHelp();
        return 0;
    }
    if (!ranksAgree(ranks, modelSettle(options) && ranksCheck(ranks, options->transport, options->ranks) &&
                               (device = deviceOpen(options, ranks->local))))
        return EXIT_USAGE;
    if (!ranksAgree(ranks, !ranksAreRoot(ranks) || checkOutputs(options)) || !ranksAgree(ranks, ranksConnect(ranks)))
        return EXIT_FAILED;
    return train(options, device, ranks);
}

int main(int argc, char **argv)
{
    options_t options;
    ranks_t ranks;
    openblas_set_num_threads(1); /* one thread a rank, and the same sums in every process */
    bool parsed = optionsParse(&options, argc, argv);
    ranksStart(&ranks, options.transport, options.ranks);
    int status = run(&options, parsed, &ranks);
    ranksStop(&ranks);
    return status;
}
