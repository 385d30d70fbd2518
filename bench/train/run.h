/* run.h: one training run with one recipe, and the figures it leaves. */
#ifndef TRAIN_RUN_H
#define TRAIN_RUN_H

#include "exchange.h"
#include "model.h"
#include "options.h"
#include "ranks.h"

enum { RUN_SETTLED_STEPS = 100 }; /* when a tracked density is expected to have settled */

typedef struct {
    double loss;                              /* mean over the training items of the epoch */
    double measure;                           /* the model's measure, mean over its test items */
    double compute, encode, exchange, decode; /* seconds of rank 0 */
    double exposed;                           /* of the exchange in all its stages: when rank 0 computed nothing else */
    uint64_t payloadBytes;                    /* of rank 0 */
    uint64_t wireBytes;
    uint64_t skippedRounds; /* calls in which a rank said nothing, summed over the ranks */
    double density;         /* share of the coordinates that rank 0 sent */
} epoch_t;

typedef struct {
    const char *recipe;
    exchangeWay_t way;
    char *label; /* what people read: recipe and way */
    const model_t *model;
    int ranks;
    uint64_t steps;
    int epochCount; /* that are done */
    epoch_t *epochs;
    uint64_t *hashes;      /* of the parameters, by rank */
    double settledDensity; /* after RUN_SETTLED_STEPS steps; NaN where there were no more steps than that */
} run_t;

/* What all runs of a job share. */
typedef struct {
    const options_t *options;
    const model_t *model;
    int batch; /* of one rank */
    uint64_t stepsPerEpoch;
} job_t;

/* False, with a failure text, where the data do not fill one step or a recipe is refused. */
bool jobMake(job_t *job, const options_t *options, const model_t *model, int ranks);

/* False, with a failure text, where a rank failed or the ranks' parameters differ; the epochs done stay in `run`. */
bool runTrain(run_t *run, const job_t *job, ranks_t *ranks, const char *recipe, exchangeWay_t way);
void runFree(run_t *run);

/* Whether two runs ended with the same parameters. */
bool runsAgree(const run_t *a, const run_t *b);

/* Sums over the epochs: the seconds field by field, the bytes, the skipped rounds; loss, measure and density are the last epoch's. */
epoch_t runTotal(const run_t *run);

/* Milliseconds of a step, and of what the exchange adds to its computing. */
double runStepTime(const run_t *run);
double runExposedTime(const run_t *run);

/* What a dense ring would have sent for this run, with elements of `width` bytes. */
double runDenseBytes(const run_t *run, int width);

#endif
