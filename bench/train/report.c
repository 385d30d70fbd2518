/* report.c: lines for people. */
#include "report.h"

#include "clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR_WIDTH = 40 };

static const double megabyte = 1e6;

void reportJob(const job_t *job, const ranks_t *ranks)
{
    const options_t *options = job->options;
    const model_t *model = job->model;
    const modelType_t *type = model->type;
    if (options->quiet)
        return;
    if (model->ownTest)
        printf("%s: %u training and %u test %s of %u %s\n", model->data, model->trainCount, model->testCount,
               type->items, model->features, type->features);
    else
        printf("%s: %u training %s of %u %s; %s on the same %s\n", model->data, model->trainCount, type->items,
               model->features, type->features, type->measure->name, type->items);
    printf("%s: %zu parameters; %d ranks as %s; %" PRIu64 " step%s of %d x %d %s an epoch\n", type->name,
           model->parameters, ranks->count, ranks->mpi ? "MPI processes" : "threads", job->stepsPerEpoch,
           job->stepsPerEpoch == 1 ? "" : "s", ranks->count, job->batch, type->items);
}

void reportRecipe(const options_t *options, const char *recipe)
{
    if (!options->quiet)
        printf("\n%s\n", recipe);
    fflush(stdout);
}

/* Under mpirun a pseudo terminal stands before a file or a pipe, too. */
static bool hasBar(const options_t *options)
{
    return !options->quiet && options->transport == TRANSPORT_THREADS && isatty(STDOUT_FILENO);
}

void reportProgress(const options_t *options, int epoch, uint64_t step, uint64_t steps)
{
    static double drawn;
    static const char full[] = "########################################",
                      empty[] = "........................................";
    double now = clockSeconds();
    if (!hasBar(options) || (now - drawn < 0.1 && step < steps))
        return;
    drawn = now;
    int done = (int)(BAR_WIDTH * step / steps);
    printf("\r  epoch %3d/%d  [%.*s%.*s] %3d %%", epoch + 1, options->epochs, done, full, BAR_WIDTH - done, empty,
           (int)(100 * step / steps));
    fflush(stdout);
}

void reportEpoch(const options_t *options, const run_t *run)
{
    const epoch_t *epoch = &run->epochs[run->epochCount - 1];
    const measure_t *measure = run->model->type->measure;
    if (options->quiet)
        return;
    printf("%s  epoch %3d/%d  loss %#.4g  %s %#.4g%s  density %6.3f %%  payload %.4g MB  wire %.4g MB  "
           "compute %.2f s  encode %.2f s  exchange %.2f s  decode %.2f s",
           hasBar(options) ? "\r\033[K" : "", run->epochCount, options->epochs, epoch->loss, measure->name,
           measure->scale * epoch->measure, measure->unit, 100.0 * epoch->density,
           (double)epoch->payloadBytes / megabyte, (double)epoch->wireBytes / megabyte, epoch->compute, epoch->encode,
           epoch->exchange, epoch->decode);
    if (epoch->skippedRounds)
        printf("  skipped %" PRIu64 " of %" PRIu64, epoch->skippedRounds,
               run->steps / (uint64_t)run->epochCount * (uint64_t)run->ranks);
    putchar('\n');
    fflush(stdout);
}

static int widestRecipe(const run_t *runs, int count)
{
    int widest = (int)strlen("recipe");
    for (int i = 0; i < count; i++)
        widest = (int)strlen(runs[i].label) > widest ? (int)strlen(runs[i].label) : widest;
    return widest;
}

/* How many times less than a dense ring; one rank sends nothing in either case. */
static void printRatio(const run_t *run, int width, uint64_t wireBytes)
{
    if (wireBytes)
        printf(" %8.2fx", runDenseBytes(run, width) / (double)wireBytes);
    else
        printf(" %9s", "-");
}

static void printRow(const run_t *run, int width)
{
    epoch_t total = runTotal(run);
    const measure_t *measure = run->model->type->measure;
    printf("%-*s %#*.4g%s %#8.4g", width, run->label, 9 - (int)strlen(measure->unit), measure->scale * total.measure,
           measure->unit, total.loss);
    printf(" %8.3f%%", 100.0 * total.density);
    printf(" %10.4g %10.4g", (double)total.payloadBytes / megabyte, (double)total.wireBytes / megabyte);
    printRatio(run, 4, total.wireBytes);
    printRatio(run, 2, total.wireBytes);
    printf(" %8.2f %8.2f %8.2f %8.2f\n", total.compute, total.encode, total.exchange, total.decode);
}

void reportTable(const run_t *runs, int count)
{
    int width = widestRecipe(runs, count);
    const char *measure = runs[0].model->type->measure->name;
    printf("\n%-*s %9s %8s %9s %10s %10s %9s %9s %8s %8s %8s %8s\n", width, "", "", "", "", "payload", "wire",
           "less than", "less than", "compute", "encode", "exchange", "decode");
    printf("%-*s %9s %8s %9s %10s %10s %9s %9s %8s %8s %8s %8s\n", width, "recipe", measure, "loss", "density", "MB",
           "MB", "f32 ring", "bf16 ring", "s", "s", "s", "s");
    for (int i = 0; i < count; i++)
        printRow(&runs[i], width);
    printf("\nLast epoch's %s, loss and density. Payload: a rank's own records. Wire: the bytes that leave a rank.\n",
           measure);
    for (int i = 0; i < count; i++)
        printf("%-*s parameters %016" PRIx64 " on every rank\n", width, runs[i].label, runs[i].hashes[0]);
}

void reportOverlap(const run_t *runs, int count)
{
    int width = widestRecipe(runs, count);
    printf("\n%-*s %17s %17s\n%-*s %8s %8s %8s %8s %8s\n", width, "", "step, ms", "exposed, ms", width, "recipe",
           "after", "during", "after", "during", "hidden");
    for (int i = 0; i + 1 < count; i += 2) {
        const run_t *after = &runs[i], *during = &runs[i + 1];
        printf("%-*s %8.3f %8.3f %8.3f %8.3f %7.0f%%\n", width, after->recipe, runStepTime(after), runStepTime(during),
               runExposedTime(after), runExposedTime(during),
               100.0 * (1.0 - runExposedTime(during) / runExposedTime(after)));
    }
    printf("\nExchange after and during the backward pass. Exposed: when rank 0 encodes, waits or decodes and computes "
           "nothing else.\n");
}
