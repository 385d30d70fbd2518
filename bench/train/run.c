/* run.c: the training loop of a rank: batch, gradient, exchange, update. */
#include "run.h"

#include "clock.h"
#include "dtype.h"
#include "failure.h"
#include "hash.h"
#include "random.h"
#include "report.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMOOTHNESS_STEPS = 50 }; /* of the power iteration: gradients of one batch */
enum { MAX_MOMENTS = 3 };

/* What the ranks of a process have in common during a run. */
typedef struct {
    const job_t *job;
    run_t *run;
    bool failed;
    char failure[FAILURE_LENGTH];
} task_t;

typedef struct {
    const job_t *job;
    const rank_t *rank;
    const dtype_t *dtype;
    const device_t *device;
    gsComm_t comm;
    void *parameters; /* these, of type dtype->state, on the device */
    void *gradient;
    void *moments[MAX_MOMENTS]; /* of the optimizer */
    void *host;                 /* a copy of the parameters */
    uint16_t *narrow;           /* the gradient in 16 bits, where asked for */
    void *anchor; /* lasg-wk: the parameters of the last gradient sent, and the step's gradient there; otherwise NULL */
    void *stale;
    uint32_t *order; /* of the training items in this epoch */
    void *workspace; /* the model's */
    exchange_t exchange;
    uint64_t silent[MODEL_MAX_PARTS]; /* lasg-wk: how often this rank had said nothing of a part before this step */
    bool sent;                        /* whether every part of this step's gradient is on its way */
    gsStats_t settled;                /* after RUN_SETTLED_STEPS steps */
    uint64_t steps;
    double loss; /* sums of this epoch */
    double compute, exposed;
} trainer_t;

/* What the ranks tell each other after an epoch. */
typedef struct {
    double loss;
    double measure; /* sum over the rank's share of the test items */
    uint64_t hash;
    uint64_t skipped; /* calls of the epoch in which the rank said nothing */
    int32_t done;
    int32_t aborted; /* failed only because another rank did */
    char failure[FAILURE_LENGTH];
} share_t;
_Static_assert(sizeof(share_t) <= RANKS_SHARE_BYTES, "a share must fit");

static gsReducerConfig_t reducerConfig(const job_t *job, const char *recipe)
{
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    config.datatype = dtypeOf(job->options->dtype)->type;
    config.recipe = recipe;
    config.count = job->model->parameters;
    config.seed = (uint64_t)job->options->seed;
    config.cpuThreads = 1;
    return config;
}

bool jobMake(job_t *job, const options_t *options, const model_t *model, int ranks)
{
    uint64_t share = model->trainCount / (uint64_t)ranks;
    uint64_t batch = options->batch ? (uint64_t)options->batch : share;
    *job = (job_t){.options = options, .model = model};
    if (batch == 0 || batch > share || batch > INT_MAX)
        return fail("--batch: got %d on each of %d ranks, expected a step of no more than the %u training %s",
                    options->batch, ranks, model->trainCount, model->type->items);
    job->batch = (int)batch;
    job->stepsPerEpoch = share / batch;
    for (int i = 0; i < options->compare.count; i++) {
        gsReducerConfig_t config = reducerConfig(job, options->compare.texts[i]);
        gsMemory_t memory;
        if (gsReducerGetMemory(&config, ranks, &memory) != GS_SUCCESS)
            return fail("%s", gsGetLastError());
    }
    return true;
}

/* The same order on every rank; that of the file where each rank takes its whole share in one step. */
static void orderItems(trainer_t *trainer, int epoch)
{
    uint32_t count = trainer->job->model->trainCount;
    random_t random = randomMake((uint64_t)trainer->job->options->seed, (uint64_t)epoch);
    if (trainer->job->options->batch)
        return randomOrder(&random, trainer->order, count);
    for (uint32_t i = 0; i < count; i++)
        trainer->order[i] = i;
}

/* The gradient of this rank's first batch, for the estimate below. */
static int firstGradient(const void *parameters, void *gradient, void *context)
{
    const trainer_t *trainer = context;
    const job_t *job = trainer->job;
    const uint32_t *mine = trainer->order + (size_t)trainer->rank->number * (size_t)job->batch;
    job->model->type->gradient(job->model, trainer->workspace, parameters, mine, job->batch, gradient, NULL);
    return 0;
}

/* lag-ps decides by how smooth a rank's own function is. */
static bool findSmoothness(trainer_t *trainer, const char *recipe, double *smoothness)
{
    if (strncmp(recipe, "lag-ps", 6) != 0)
        return true;
    orderItems(trainer, 0);
    gsResult_t found =
        gsEstimateSmoothness(firstGradient, trainer, trainer->parameters, trainer->job->model->parameters,
                             trainer->dtype->state, SMOOTHNESS_STEPS, 0, smoothness);
    return found == GS_SUCCESS || exchangeFailed(&trainer->exchange, found, "gsEstimateSmoothness");
}

/* lasg-wk compares the gradient with that of the same batch where this rank last spoke. */
static bool makeAnchor(trainer_t *trainer, const char *recipe)
{
    size_t bytes = trainer->job->model->parameters * trainer->dtype->stateBytes;
    if (strncmp(recipe, "lasg-wk", 7) != 0)
        return true;
    trainer->anchor = malloc(bytes);
    trainer->stale = malloc(bytes);
    if (!trainer->anchor || !trainer->stale)
        return fail("rank %d: no memory for a second gradient", trainer->rank->number);
    memcpy(trainer->anchor, trainer->parameters, bytes);
    return true;
}

/* Recipes that look at the iterate find it in the parameters, from call to call. */
static bool setParams(trainer_t *trainer, const char *recipe)
{
    gsParams_t params = GS_PARAMS_INIT;
    if (!makeAnchor(trainer, recipe))
        return false;
    params.stale = trainer->stale;
    params.datatype = trainer->dtype->state;
    params.params = trainer->parameters;
    params.stepSize = trainer->job->options->rate;
    if (!findSmoothness(trainer, recipe, &params.smoothness))
        return false;
    return exchangeSetParams(&trainer->exchange, &params);
}

static bool connect(trainer_t *trainer, const run_t *run)
{
    gsReducerConfig_t config = reducerConfig(trainer->job, run->recipe);
    return exchangeMake(&trainer->exchange, trainer->job->model, run->way, trainer->comm, &config) &&
           setParams(trainer, run->recipe);
}

static bool makeVectors(trainer_t *trainer)
{
    const model_t *model = trainer->job->model;
    size_t bytes = model->parameters * trainer->dtype->stateBytes;
    int moments = trainer->job->options->optimizer == GS_MOMENTUM ? 1 : MAX_MOMENTS;
    bool made = true;
    trainer->parameters = trainer->device->allocate(bytes);
    trainer->gradient = trainer->device->allocate(bytes);
    for (int i = 0; i < moments; i++) {
        trainer->moments[i] = trainer->device->allocate(bytes);
        made = made && trainer->moments[i];
    }
    trainer->host = malloc(bytes);
    trainer->narrow = malloc(trainer->dtype->narrow ? model->parameters * sizeof(uint16_t) : 1);
    trainer->order = malloc(model->trainCount * sizeof(uint32_t));
    trainer->workspace = model->type->workspaceMake(model, trainer->job->batch);
    return made && trainer->parameters && trainer->gradient && trainer->host && trainer->narrow && trainer->order &&
           trainer->workspace;
}

static bool readStart(const char *path, void *parameters, size_t bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return fail("--start: %s cannot be opened: %s", path, strerror(errno));
    bool fits = fread(parameters, 1, bytes, file) == bytes && fgetc(file) == EOF;
    fclose(file);
    return fits || fail("--start: %s has not the %zu bytes of the model's parameters", path, bytes);
}

static bool start(trainer_t *trainer)
{
    const model_t *model = trainer->job->model;
    const options_t *options = trainer->job->options;
    size_t bytes = model->parameters * trainer->dtype->stateBytes;
    if (!options->start)
        model->type->start(model, trainer->host, (uint64_t)options->seed);
    else if (!readStart(options->start, trainer->host, bytes))
        return false;
    trainer->device->upload(trainer->parameters, trainer->host, bytes);
    return trainer->device->finish();
}

static bool trainerMake(trainer_t *trainer, const task_t *task, const rank_t *rank)
{
    const job_t *job = task->job;
    *trainer =
        (trainer_t){.job = job, .rank = rank, .dtype = dtypeOf(job->options->dtype), .device = job->model->device};
    if (!trainer->device->enter(rank, &trainer->comm))
        return false;
    trainer->exchange.comm = trainer->comm;
    if (!makeVectors(trainer))
        return fail("rank %d: no memory for %zu parameters and a batch of %d", rank->number, job->model->parameters,
                    job->batch);
    return start(trainer) && connect(trainer, task->run);
}

static void trainerFree(trainer_t *trainer)
{
    exchangeFree(&trainer->exchange);
    trainer->job->model->type->workspaceFree(trainer->workspace);
    trainer->device->release(trainer->parameters);
    trainer->device->release(trainer->gradient);
    for (int i = 0; i < MAX_MOMENTS; i++)
        trainer->device->release(trainer->moments[i]);
    free(trainer->host);
    free(trainer->narrow);
    free(trainer->anchor);
    free(trainer->stale);
    free(trainer->order);
    trainer->device->leave(trainer->comm);
}

/* lasg-wk: the gradient of the step's items where this rank last spoke. */
static void computeStale(trainer_t *trainer, const uint32_t *items)
{
    const job_t *job = trainer->job;
    if (!trainer->anchor)
        return;
    job->model->type->gradient(job->model, trainer->workspace, trainer->anchor, items, job->batch, trainer->stale,
                               NULL);
    if (!trainer->dtype->narrow)
        return;
    trainer->dtype->narrow(trainer->stale, trainer->narrow, job->model->parameters);
    memcpy(trainer->stale, trainer->narrow, job->model->parameters * sizeof *trainer->narrow);
}

/* The one line that differs from a dense training loop: gsAllReduce where MPI_Allreduce or ncclAllReduce was. */
static void sendPart(void *context, int part)
{
    trainer_t *trainer = context;
    const dtype_t *dtype = trainer->dtype;
    const part_t *range = &trainer->exchange.parts[part];
    double start = clockSeconds();
    if (dtype->narrow)
        dtype->narrow((float *)trainer->gradient + range->first, trainer->narrow + range->first, range->count);
    if (trainer->anchor)
        trainer->silent[part] = exchangeSilent(&trainer->exchange, part);
    trainer->sent = trainer->sent &&
                    exchangeSend(&trainer->exchange, part, dtype->narrow ? (void *)trainer->narrow : trainer->gradient);
    trainer->exposed += clockSeconds() - start;
}

/* The gradient of this rank's part of the step's items. */
static void computeGradient(trainer_t *trainer, uint64_t step)
{
    const job_t *job = trainer->job;
    uint64_t part = step * (uint64_t)trainer->rank->ranks->count + (uint64_t)trainer->rank->number;
    const uint32_t *mine = trainer->order + part * (uint64_t)job->batch;
    watcher_t watcher = {sendPart, trainer};
    trainer->sent = true;
    computeStale(trainer, mine);
    trainer->loss += job->model->type->gradient(job->model, trainer->workspace, trainer->parameters, mine, job->batch,
                                                trainer->gradient, trainer->exchange.stream ? &watcher : NULL);
}

/* lasg-wk: where this rank has spoken, the parameters are those of the last gradient sent. */
static void moveAnchor(trainer_t *trainer)
{
    size_t width = trainer->dtype->stateBytes;
    for (int p = 0; p < trainer->exchange.partCount && trainer->anchor; p++) {
        const part_t *range = &trainer->exchange.parts[p];
        if (exchangeSilent(&trainer->exchange, p) == trainer->silent[p])
            memcpy((char *)trainer->anchor + range->first * width, (char *)trainer->parameters + range->first * width,
                   range->count * width);
    }
}

/* What has not been sent while it was computed; then all of it comes back. */
static bool averageGradient(trainer_t *trainer)
{
    exchange_t *exchange = &trainer->exchange;
    for (int p = 0; p < exchange->partCount && !exchange->stream; p++)
        sendPart(trainer, p);
    double start = clockSeconds();
    bool done = trainer->sent && exchangeFinish(exchange);
    moveAnchor(trainer);
    if (trainer->dtype->widen)
        trainer->dtype->widen(trainer->narrow, trainer->gradient, trainer->job->model->parameters);
    trainer->exposed += clockSeconds() - start;
    return done;
}

static bool updateParameters(trainer_t *trainer)
{
    const options_t *options = trainer->job->options;
    size_t count = trainer->job->model->parameters;
    gsOptimizer_t optimizer = GS_OPTIMIZER_INIT;
    optimizer.datatype = trainer->dtype->state;
    optimizer.kind = (gsOptimizerKind_t)options->optimizer;
    optimizer.stepSize = options->rate;
    optimizer.step = trainer->steps + 1;
    if (optimizer.kind == GS_MOMENTUM)
        optimizer.beta1 = options->momentum;
    optimizer.params = trainer->parameters;
    optimizer.m = trainer->moments[0];
    optimizer.v = trainer->moments[1];
    optimizer.vmax = trainer->moments[2];
    gsResult_t result = gsOptimizerStep(trainer->comm, &optimizer, trainer->gradient, count, NULL);
    return result == GS_SUCCESS || exchangeFailed(&trainer->exchange, result, "gsOptimizerStep");
}

static bool trainStep(trainer_t *trainer, uint64_t step)
{
    double start = clockSeconds(), exposed = trainer->exposed;
    computeGradient(trainer, step);
    bool updated = averageGradient(trainer) && updateParameters(trainer) && trainer->device->finish();
    trainer->compute += clockSeconds() - start - (trainer->exposed - exposed);
    if (!updated)
        return false;
    return ++trainer->steps != RUN_SETTLED_STEPS || exchangeStats(&trainer->exchange, &trainer->settled);
}

static bool trainEpoch(trainer_t *trainer, int epoch)
{
    uint64_t steps = trainer->job->stepsPerEpoch;
    trainer->loss = trainer->compute = trainer->exposed = 0.0;
    orderItems(trainer, epoch);
    for (uint64_t step = 0; step < steps; step++) {
        if (!trainStep(trainer, step))
            return false;
        if (trainer->rank->number == 0)
            reportProgress(trainer->job->options, epoch, step + 1, steps);
    }
    return true;
}

/* Of this rank's share of the test items. */
static double testModel(trainer_t *trainer)
{
    const model_t *model = trainer->job->model;
    uint64_t rank = (uint64_t)trainer->rank->number, ranks = (uint64_t)trainer->rank->ranks->count;
    return model->type->test(model, trainer->workspace, trainer->parameters,
                             (uint32_t)(model->testCount * rank / ranks),
                             (uint32_t)(model->testCount * (rank + 1) / ranks));
}

/* Share of the coordinates sent between two moments. */
static double density(const trainer_t *trainer, const gsStats_t *from, const gsStats_t *to)
{
    double coordinates = (double)(to->calls - from->calls) * (double)trainer->job->model->parameters;
    return (double)(to->sentTotal - from->sentTotal) / coordinates;
}

static const share_t *shareEpoch(trainer_t *trainer, uint64_t skipped, bool done)
{
    share_t mine = {.loss = trainer->loss,
                    .skipped = skipped,
                    .done = done,
                    .aborted = trainer->exchange.result == GS_ERROR_ABORTED};
    if (done) {
        size_t bytes = trainer->job->model->parameters * trainer->dtype->stateBytes;
        mine.measure = testModel(trainer);
        trainer->device->download(trainer->host, trainer->parameters, bytes);
        mine.hash = hashBytes(trainer->host, bytes);
    } else {
        gsCommAbort(trainer->comm); /* the others must not wait for this rank */
        memcpy(mine.failure, failureText(), sizeof mine.failure);
    }
    return ranksShare(trainer->rank, &mine, sizeof mine);
}

/* The first rank that failed by itself, else the first that failed, else NULL. */
static const share_t *firstFailure(const share_t *shares, int count)
{
    const share_t *failed = NULL;
    for (int r = count - 1; r >= 0; r--)
        if (!shares[r].done && (!failed || failed->aborted || !shares[r].aborted))
            failed = &shares[r];
    return failed;
}

static bool sameHashes(const run_t *run)
{
    for (int r = 1; r < run->ranks; r++)
        if (run->hashes[r] != run->hashes[0])
            return false;
    return true;
}

static void noteEpoch(task_t *task, const trainer_t *trainer, const share_t *shares, const gsStats_t *from,
                      const gsStats_t *to)
{
    run_t *run = task->run;
    const job_t *job = task->job;
    epoch_t *epoch = &run->epochs[run->epochCount++];
    *epoch = (epoch_t){.compute = trainer->compute,
                       .encode = to->encodeSeconds - from->encodeSeconds,
                       .exchange = to->exchangeSeconds - from->exchangeSeconds,
                       .decode = to->decodeSeconds - from->decodeSeconds,
                       .exposed = trainer->exposed,
                       .payloadBytes = to->payloadBytes - from->payloadBytes,
                       .wireBytes = to->wireBytes - from->wireBytes,
                       .density = density(trainer, from, to)};
    for (int r = 0; r < run->ranks; r++) {
        epoch->loss += shares[r].loss;
        epoch->measure += shares[r].measure;
        epoch->skippedRounds += shares[r].skipped;
        run->hashes[r] = shares[r].hash;
    }
    epoch->loss /= (double)job->stepsPerEpoch * run->ranks * job->batch;
    epoch->measure /= job->model->testCount;
    run->steps = trainer->steps;
    run->settledDensity = trainer->steps > RUN_SETTLED_STEPS ? density(trainer, &trainer->settled, to) : NAN;
    if (trainer->rank->number == 0)
        reportEpoch(job->options, run);
}

static void noteFailure(task_t *task, const share_t *failed)
{
    task->failed = true;
    memcpy(task->failure, failed->failure, sizeof task->failure);
}

static void trainRank(const rank_t *rank, void *context)
{
    task_t *task = context;
    trainer_t trainer;
    gsStats_t from, to = {0};
    bool done = trainerMake(&trainer, task, rank);
    for (int epoch = 0; epoch < task->job->options->epochs; epoch++) {
        from = to;
        done = done && trainEpoch(&trainer, epoch) && exchangeStats(&trainer.exchange, &to);
        const share_t *shares = shareEpoch(&trainer, to.skipped - from.skipped, done);
        const share_t *failed = firstFailure(shares, rank->ranks->count);
        if (failed && rankLeads(rank))
            noteFailure(task, failed);
        if (failed)
            break;
        if (rankLeads(rank))
            noteEpoch(task, &trainer, shares, &from, &to);
    }
    trainerFree(&trainer);
}

static char *labelOf(const char *recipe, exchangeWay_t way)
{
    static const char *const ways[] = {"", ", by layer", ", overlapped"};
    char *label = NULL;
    return asprintf(&label, "%s%s", recipe, ways[way]) < 0 ? NULL : label;
}

bool runTrain(run_t *run, const job_t *job, ranks_t *ranks, const char *recipe, exchangeWay_t way)
{
    task_t task = {.job = job, .run = run};
    *run = (run_t){.recipe = recipe,
                   .way = way,
                   .label = labelOf(recipe, way),
                   .model = job->model,
                   .ranks = ranks->count,
                   .epochs = calloc((size_t)job->options->epochs, sizeof *run->epochs),
                   .hashes = calloc((size_t)ranks->count, sizeof *run->hashes),
                   .settledDensity = NAN};
    if (!run->label || !run->epochs || !run->hashes)
        return fail("no memory for %d epochs and %d ranks", job->options->epochs, ranks->count);
    if (ranksAreRoot(ranks))
        reportRecipe(job->options, run->label);
    ranksRun(ranks, trainRank, &task);
    if (task.failed)
        return fail("recipe '%s': %s", run->label, task.failure);
    return sameHashes(run) || fail("recipe '%s': the ranks ended with different parameters", run->label);
}

void runFree(run_t *run)
{
    free(run->label);
    free(run->epochs);
    free(run->hashes);
}

bool runsAgree(const run_t *a, const run_t *b)
{
    return a->hashes[0] == b->hashes[0];
}

epoch_t runTotal(const run_t *run)
{
    epoch_t total = {0};
    for (int e = 0; e < run->epochCount; e++) {
        epoch_t sum = run->epochs[e];
        sum.compute += total.compute;
        sum.encode += total.encode;
        sum.exchange += total.exchange;
        sum.decode += total.decode;
        sum.exposed += total.exposed;
        sum.payloadBytes += total.payloadBytes;
        sum.wireBytes += total.wireBytes;
        sum.skippedRounds += total.skippedRounds;
        total = sum;
    }
    return total;
}

static double perStep(const run_t *run, double seconds)
{
    return 1e3 * seconds / (double)run->steps;
}

double runStepTime(const run_t *run)
{
    epoch_t total = runTotal(run);
    return perStep(run, total.compute + total.exposed);
}

double runExposedTime(const run_t *run)
{
    return perStep(run, runTotal(run).exposed);
}

double runDenseBytes(const run_t *run, int width)
{
    return 2.0 * (run->ranks - 1) / run->ranks * (double)run->model->parameters * width * (double)run->steps;
}
