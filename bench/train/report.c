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
    if (options->quiet)
        return;
    printf("%s: %u training and %u test images of %u pixels\n", options->data, job->dataset->train.count,
           job->dataset->test.count, job->dataset->train.pixels);
    printf("%s: %zu parameters; %d ranks as %s; %" PRIu64 " steps of %d x %d images an epoch\n",
           optionsModelName(options), job->model.parameters, ranks->count, ranks->mpi ? "MPI processes" : "threads",
           job->stepsPerEpoch, ranks->count, options->batch);
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
    if (options->quiet)
        return;
    printf("%s  epoch %3d/%d  loss %.4f  accuracy %5.2f %%  density %6.3f %%  payload %.2f MB  wire %.2f MB  "
           "compute %.2f s  encode %.2f s  exchange %.2f s  decode %.2f s\n",
           hasBar(options) ? "\r\033[K" : "", run->epochCount, options->epochs, epoch->loss, 100.0 * epoch->accuracy,
           100.0 * epoch->density, (double)epoch->payloadBytes / megabyte, (double)epoch->wireBytes / megabyte,
           epoch->compute, epoch->encode, epoch->exchange, epoch->decode);
    fflush(stdout);
}

static int widestRecipe(const run_t *runs, int count)
{
    int widest = (int)strlen("recipe");
    for (int i = 0; i < count; i++)
        widest = (int)strlen(runs[i].recipe) > widest ? (int)strlen(runs[i].recipe) : widest;
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
    printf("%-*s %8.2f%% %#8.4g", width, run->recipe, 100.0 * total.accuracy, total.loss);
    printf(" %8.3f%%", 100.0 * total.density);
    printf(" %10.2f %10.2f", (double)total.payloadBytes / megabyte, (double)total.wireBytes / megabyte);
    printRatio(run, 4, total.wireBytes);
    printRatio(run, 2, total.wireBytes);
    printf(" %8.2f %8.2f %8.2f %8.2f\n", total.compute, total.encode, total.exchange, total.decode);
}

void reportTable(const run_t *runs, int count)
{
    int width = widestRecipe(runs, count);
    printf("\n%-*s %9s %8s %9s %10s %10s %9s %9s %8s %8s %8s %8s\n", width, "", "", "", "", "payload", "wire",
           "less than", "less than", "compute", "encode", "exchange", "decode");
    printf("%-*s %9s %8s %9s %10s %10s %9s %9s %8s %8s %8s %8s\n", width, "recipe", "accuracy", "loss", "density", "MB",
           "MB", "f32 ring", "bf16 ring", "s", "s", "s", "s");
    for (int i = 0; i < count; i++)
        printRow(&runs[i], width);
    printf("\nLast epoch's accuracy, loss and density. Payload: a rank's own records. Wire: the bytes that leave a "
           "rank.\n");
    for (int i = 0; i < count; i++)
        printf("%-*s parameters %016" PRIx64 " on every rank\n", width, runs[i].recipe, runs[i].hashes[0]);
}
