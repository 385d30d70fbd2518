/*
 * mlp.cu: data-parallel training on GPUs with gradsieve. A rank has a GPU to itself, and is a thread, or under mpirun a process.
 *
 * What gradsieve adds to a training loop over NCCL stands in four functions: makeReducers, updateLayer, passReducer
 * and reportStep. Everything else would be there without it: an MLP on images, products by cuBLAS, initial weights by cuRAND.
 */
extern "C" {
#include "data/images.h"
#include "train/failure.h"
#include "train/flags.h"
}
#include "train/hash.h"
#include "train/layers/cuda.cuh"
#include "train/random.h"
#include "gradsieve.h"

#include <curand.h>
#include <inttypes.h>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <thread>
#include <vector>
#ifdef GS_HAVE_MPI
#include <mpi.h>
#endif

/* A training program has nothing better to do than to say what failed, and to end. */
static void die(const char *call, const char *text, int line)
{
    fprintf(stderr, "mlp.cu:%d: %s: %s\n", line, call, text);
    exit(1); /* ends the other ranks of this process, too; mpirun ends the other processes */
}
#define CHECK(done, call, text) ((done) ? (void)0 : die(call, text, __LINE__))
#define CUDA(call) CHECK((call) == cudaSuccess, #call, cudaGetErrorString(cudaGetLastError()))
#define NCCL(call) CHECK((call) == ncclSuccess, #call, ncclGetLastError(NULL))
#define CUBLAS(call) CHECK((call) == CUBLAS_STATUS_SUCCESS, #call, "cuBLAS reports an error")
#define CURAND(call) CHECK((call) == CURAND_STATUS_SUCCESS, #call, "cuRAND reports an error")
#define GS(call) CHECK((call) == GS_SUCCESS, #call, gsGetLastError())
#define REQUIRE(done) CHECK(done, "mlp", failureText())

/* ---- the job ---- */

enum { MAX_LAYERS = 9 };

struct options_t {
    const char *data = "fashion-mnist", *recipe = "threshold:density=0.01", *save = NULL, *resume = NULL;
    int optimizer = 0, ranks = 0, steps = 1000, report = 100, batch = 64, hidden = 256, depth = 2, seed = 1;
    double rate = 0.001;
    bool graph = false, help = false;
};

/* The weights of a layer, inputs x outputs, and its biases lie one behind the other in the vector of all parameters. */
typedef struct {
    int inputs, outputs;
    size_t first, count;
} layer_t;

typedef struct {
    options_t options;
    dataset_t dataset;
    int devices, ranks;
    ncclUniqueId id;
    int layerCount;
    layer_t layers[MAX_LAYERS];
    size_t parameters;
} job_t;

typedef struct {
    const job_t *job;
    int number;
    ncclComm_t nccl;
    gsComm_t comm;
    gsReducer_t reducers[MAX_LAYERS]; /* one a layer */
    cublasHandle_t cublas;
    cudaStream_t compute, exchange;
    cudaEvent_t event;
    cudaGraphExec_t graph;       /* of a step; NULL: not captured yet */
    std::vector<uint32_t> order; /* of the items in this epoch */
    std::vector<void *> memory;  /* all that follows, on the device */
    float *parameters, *gradient, *m, *v, *vmax;
    float *values[MAX_LAYERS + 1], *slopes[MAX_LAYERS + 1]; /* of a batch; slopes[0], by the images, is NULL */
    uint8_t *images, *allLabels, *labels;                   /* of all items, and of a batch */
    uint32_t *items;                                        /* of a batch */
    float *losses;                                          /* of these */
    double *loss;                                           /* their mean, over all ranks */
} rank_t;

static void makeLayers(job_t *job)
{
    int inputs = (int)job->dataset.train.pixels;
    for (int l = 0; l <= job->options.depth; l++) {
        int outputs = l < job->options.depth ? job->options.hidden : IMAGE_CLASSES;
        size_t count = (size_t)(inputs + 1) * (size_t)outputs;
        job->layers[job->layerCount++] = {inputs, outputs, job->parameters, count};
        job->parameters += count;
        inputs = outputs;
    }
}

/* ---- a rank's beginning and end ---- */

template <typename T> static T *onDevice(rank_t *rank, size_t count)
{
    void *memory;
    CUDA(cudaMalloc(&memory, count * sizeof(T)));
    CUDA(cudaMemset(memory, 0, count * sizeof(T)));
    rank->memory.push_back(memory);
    return (T *)memory;
}

static void makeMemory(rank_t *rank)
{
    const job_t *job = rank->job;
    const images_t *train = &job->dataset.train;
    size_t batch = (size_t)job->options.batch;
    for (float **vector : {&rank->parameters, &rank->gradient, &rank->m, &rank->v, &rank->vmax})
        *vector = onDevice<float>(rank, job->parameters);
    rank->values[0] = onDevice<float>(rank, batch * train->pixels);
    for (int l = 0; l < job->layerCount; l++) {
        rank->values[l + 1] = onDevice<float>(rank, batch * (size_t)job->layers[l].outputs);
        rank->slopes[l + 1] = onDevice<float>(rank, batch * (size_t)job->layers[l].outputs);
    }
    rank->images = onDevice<uint8_t>(rank, (size_t)train->count * train->pixels);
    rank->allLabels = onDevice<uint8_t>(rank, train->count);
    rank->labels = onDevice<uint8_t>(rank, batch);
    rank->items = onDevice<uint32_t>(rank, batch);
    rank->losses = onDevice<float>(rank, batch);
    rank->loss = onDevice<double>(rank, 1);
    rank->order.resize(train->count);
    CUDA(cudaMemcpy(rank->images, train->values, (size_t)train->count * train->pixels, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(rank->allLabels, train->labels, train->count, cudaMemcpyHostToDevice));
    CUDA(cudaDeviceSynchronize()); /* the copies are not in the streams that follow */
}

/* Weights uniform within 1 / sqrt(inputs), biases 0. Rank 0 draws, so that different GPUs may work together. */
static void drawWeights(rank_t *rank)
{
    const job_t *job = rank->job;
    curandGenerator_t generator;
    CURAND(curandCreateGenerator(&generator, CURAND_RNG_PSEUDO_PHILOX4_32_10));
    CURAND(curandSetStream(generator, rank->compute));
    CURAND(curandSetPseudoRandomGeneratorSeed(generator, (unsigned long long)job->options.seed));
    for (int l = 0; l < job->layerCount; l++) {
        const layer_t *layer = &job->layers[l];
        float *weights = rank->parameters + layer->first, range = 1.0f / sqrtf((float)layer->inputs);
        size_t count = layer->count - (size_t)layer->outputs;
        CURAND(curandGenerateUniform(generator, weights, count));
        forEach(count, rank->compute, scaleWeights, weights, range, count);
    }
    CURAND(curandDestroyGenerator(generator));
    NCCL(ncclBroadcast(rank->parameters, rank->parameters, job->parameters, ncclFloat, 0, rank->nccl, rank->compute));
    GS(gsCommSynchronize(rank->comm, rank->compute));
}

/* gradsieve: a communicator over NCCL's, and a reducer for each layer's gradient. */
static void makeReducers(rank_t *rank)
{
    const job_t *job = rank->job;
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    GS(gsCommInitNccl(&rank->comm, rank->nccl, NULL));
    config.datatype = GS_FLOAT32;
    config.recipe = job->options.recipe;
    config.seed = (uint64_t)job->options.seed;
    for (int l = 0; l < job->layerCount; l++) {
        config.count = job->layers[l].count;
        GS(gsReducerCreate(&rank->reducers[l], rank->comm, &config));
    }
}

static void makeRank(rank_t *rank)
{
    const job_t *job = rank->job;
    CUDA(cudaSetDevice(rank->number % job->devices));
    CUDA(cudaStreamCreateWithFlags(&rank->compute, cudaStreamNonBlocking));
    CUDA(cudaStreamCreateWithFlags(&rank->exchange, cudaStreamNonBlocking));
    CUDA(cudaEventCreateWithFlags(&rank->event, cudaEventDisableTiming));
    CUBLAS(cublasCreate(&rank->cublas));
    CUBLAS(cublasSetStream(rank->cublas, rank->compute));
    NCCL(ncclCommInitRank(&rank->nccl, job->ranks, job->id, rank->number));
    makeMemory(rank);
    makeReducers(rank);
}

static void endRank(rank_t *rank)
{
    if (rank->graph)
        CUDA(cudaGraphExecDestroy(rank->graph)); /* it uses what the reducers own */
    for (int l = 0; l < rank->job->layerCount; l++)
        GS(gsReducerDestroy(rank->reducers[l]));
    GS(gsCommDestroy(rank->comm));
    NCCL(ncclCommDestroy(rank->nccl));
    CUBLAS(cublasDestroy(rank->cublas));
    CUDA(cudaEventDestroy(rank->event));
    CUDA(cudaStreamDestroy(rank->compute));
    CUDA(cudaStreamDestroy(rank->exchange));
    for (void *memory : rank->memory)
        CUDA(cudaFree(memory));
}

/* ---- a step ---- */

/* From `items` to the loss. */
static void forward(rank_t *rank)
{
    const job_t *job = rank->job;
    int last = job->layerCount - 1, batch = job->options.batch;
    uint32_t pixels = job->dataset.train.pixels;
    size_t count = (size_t)batch * pixels;
    forEach(count, rank->compute, gatherImages, rank->values[0], rank->labels, rank->images, rank->allLabels,
            rank->items, job->dataset.mean, pixels, count);
    for (int l = 0; l <= last; l++) {
        const layer_t *layer = &job->layers[l];
        float *out = rank->values[l + 1];
        count = (size_t)batch * (size_t)layer->outputs;
        CUBLAS(denseForward(rank->cublas, rank->compute, rank->parameters + layer->first, rank->values[l], out,
                            layer->inputs, layer->outputs, batch));
        if (l < last)
            forEach(count, rank->compute, relu, out, out, count);
    }
    forEach((size_t)batch, rank->compute, softmaxLosses, rank->values[last + 1], rank->slopes[last + 1], rank->losses,
            rank->labels, IMAGE_CLASSES, batch);
    meanLoss<<<1, 1, 0, rank->compute>>>(rank->loss, rank->losses, batch);
}

/* What follows on the stream `later` waits for what is on `earlier` so far. */
static void await(rank_t *rank, cudaStream_t later, cudaStream_t earlier)
{
    CUDA(cudaEventRecord(rank->event, earlier));
    CUDA(cudaStreamWaitEvent(later, rank->event, 0));
}

/* gradsieve: a layer's gradient is averaged over the ranks as soon as it is there, on a stream of its own, and its parameters take their
 * step by the sum as it comes to be. AdamW's steps are counted by the reducer, on the device: a replayed graph, too, corrects the bias of
 * the step that it is. */
static void updateLayer(rank_t *rank, int l)
{
    const layer_t *layer = &rank->job->layers[l];
    gsOptimizer_t optimizer = GS_OPTIMIZER_INIT;
    optimizer.kind = rank->job->options.optimizer == 0 ? GS_ADAMW : GS_AMSGRAD;
    optimizer.stepSize = rank->job->options.rate;
    optimizer.params = rank->parameters + layer->first;
    optimizer.m = rank->m + layer->first;
    optimizer.v = rank->v + layer->first;
    optimizer.vmax = rank->vmax + layer->first;
    await(rank, rank->exchange, rank->compute);
    /* Where ncclAllReduce and the optimizer's kernel stood: */
    GS(gsAllReduceStep(rank->gradient + layer->first, layer->count, GS_FLOAT32, GS_AVG, &optimizer, rank->reducers[l],
                       rank->exchange));
}

static void backward(rank_t *rank)
{
    const job_t *job = rank->job;
    for (int l = job->layerCount - 1; l >= 0; l--) {
        const layer_t *layer = &job->layers[l];
        float *before = rank->slopes[l];
        size_t count = (size_t)job->options.batch * (size_t)layer->inputs;
        CUBLAS(denseBackward(rank->cublas, rank->compute, rank->parameters + layer->first, rank->values[l],
                             rank->slopes[l + 1], before, rank->gradient + layer->first, layer->inputs, layer->outputs,
                             job->options.batch));
        updateLayer(rank, l);
        if (before)
            forEach(count, rank->compute, reluSlopes, before, before, rank->values[l], count);
    }
    NCCL(ncclAllReduce(rank->loss, rank->loss, 1, ncclDouble, ncclAvg, rank->nccl, rank->exchange));
    await(rank, rank->compute, rank->exchange);
}

static void enqueueStep(rank_t *rank)
{
    forward(rank);
    backward(rank);
    CUDA(cudaPeekAtLastError()); /* of the kernels' launches */
}

/* This rank's part of the step's items. An epoch has its own order, alike on all ranks. */
static void chooseItems(rank_t *rank, uint64_t step, bool newOrder)
{
    const job_t *job = rank->job;
    uint64_t batch = (uint64_t)job->options.batch, stepsPerEpoch = job->dataset.train.count / (job->ranks * batch);
    uint64_t part = step % stepsPerEpoch * (uint64_t)job->ranks + (uint64_t)rank->number;
    if (newOrder || step % stepsPerEpoch == 0) {
        random_t random = randomMake((uint64_t)job->options.seed, step / stepsPerEpoch);
        randomOrder(&random, rank->order.data(), job->dataset.train.count);
    }
    CUDA(cudaMemcpyAsync(rank->items, &rank->order[part * batch], batch * sizeof(uint32_t), cudaMemcpyHostToDevice,
                         rank->compute));
}

/* The first step of a program is not captured: cuBLAS allocates, and some recipes send it dense. */
static void trainStep(rank_t *rank, uint64_t step, bool first)
{
    cudaGraph_t graph;
    chooseItems(rank, step, first);
    if (!rank->job->options.graph || first)
        return enqueueStep(rank);
    if (!rank->graph) {
        CUDA(cudaStreamBeginCapture(rank->compute, cudaStreamCaptureModeThreadLocal));
        enqueueStep(rank);
        CUDA(cudaStreamEndCapture(rank->compute, &graph));
        CUDA(cudaGraphInstantiate(&rank->graph, graph, 0));
        CUDA(cudaGraphDestroy(graph));
    }
    CUDA(cudaGraphLaunch(rank->graph, rank->compute));
}

/* ---- checkpoints: a file a rank, for what a reducer remembers is the rank's own ---- */

/* Saving and resuming pass over the same things in the same order. */
typedef struct {
    FILE *file;
    bool save;
    char path[4096];
} checkpoint_t;

static void pass(checkpoint_t *c, void *bytes, size_t count)
{
    size_t done = c->save ? fwrite(bytes, 1, count, c->file) : fread(bytes, 1, count, c->file);
    REQUIRE(done == count || fail("%s: %s", c->path, c->save ? "cannot be written" : "too short"));
}

/* The batch, as steps are counted in batches. All that reducers depend on is in their states. */
static void passHead(checkpoint_t *c, int batch, uint64_t *step)
{
    uint64_t head[] = {(uint64_t)batch, *step};
    pass(c, head, sizeof head);
    REQUIRE(head[0] == (uint64_t)batch || fail("%s: for batches of %" PRIu64 ", expected %d", c->path, head[0], batch));
    *step = head[1];
}

static void passVector(checkpoint_t *c, float *vector, size_t count)
{
    std::vector<float> values(count);
    if (c->save)
        CUDA(cudaMemcpy(values.data(), vector, count * sizeof(float), cudaMemcpyDeviceToHost));
    pass(c, values.data(), count * sizeof(float));
    if (!c->save)
        CUDA(cudaMemcpy(vector, values.data(), count * sizeof(float), cudaMemcpyHostToDevice));
}

/* gradsieve: what a reducer remembers goes with the parameters; without it the gradient not sent so far would be lost. */
static void passReducer(checkpoint_t *c, gsReducer_t reducer)
{
    size_t bytes;
    GS(gsReducerExport(reducer, NULL, &bytes));
    std::vector<char> state(bytes);
    if (c->save)
        GS(gsReducerExport(reducer, state.data(), &bytes));
    pass(c, state.data(), bytes);
    if (!c->save)
        GS(gsReducerImport(reducer, state.data(), bytes));
}

/* `name` may be NULL: then there is nothing to save, or to resume from. */
static void passCheckpoint(rank_t *rank, const char *name, bool save, uint64_t *step)
{
    checkpoint_t c = {NULL, save, ""};
    if (!name)
        return;
    snprintf(c.path, sizeof c.path, "%s.%d", name, rank->number);
    c.file = fopen(c.path, save ? "wb" : "rb");
    REQUIRE(c.file || fail("%s: cannot be opened", c.path));
    passHead(&c, rank->job->options.batch, step);
    for (int l = 0; l < rank->job->layerCount; l++)
        passReducer(&c, rank->reducers[l]);
    for (float *vector : {rank->parameters, rank->m, rank->v, rank->vmax})
        passVector(&c, vector, rank->job->parameters);
    CUDA(cudaDeviceSynchronize());
    REQUIRE(fclose(c.file) == 0 || fail("%s: cannot be written", c.path));
}

/* ---- training ---- */

/* Waits, so that what went wrong on the device or with a peer is known by now. */
static void reportStep(rank_t *rank, uint64_t step)
{
    double loss;
    gsResult_t error;
    GS(gsCommSynchronize(rank->comm, rank->compute));
    for (int l = 0; l < rank->job->layerCount; l++) {
        GS(gsReducerGetAsyncError(rank->reducers[l], &error));
        REQUIRE(error == GS_SUCCESS || fail("layer %d: %s", l, gsGetErrorString(error)));
    }
    CUDA(cudaMemcpy(&loss, rank->loss, sizeof loss, cudaMemcpyDeviceToHost));
    if (rank->number == 0)
        printf("step %6" PRIu64 "  loss %.9g\n", step, loss);
}

/* Ranks must end with the same bits: compare the hashes. */
static void reportEnd(rank_t *rank)
{
    size_t size = rank->job->parameters * sizeof(float);
    std::vector<char> parameters(size);
    uint64_t bytes = 0;
    for (int l = 0; l < rank->job->layerCount; l++) {
        gsStats_t stats;
        GS(gsReducerGetStats(rank->reducers[l], &stats));
        bytes += stats.wireBytes;
    }
    CUDA(cudaMemcpy(parameters.data(), rank->parameters, size, cudaMemcpyDeviceToHost));
    printf("rank %d: %" PRIu64 " bytes sent, parameters %016" PRIx64 "\n", rank->number, bytes,
           hashBytes(parameters.data(), size));
}

static void runRank(const job_t *job, int number)
{
    rank_t rank = {};
    uint64_t first = 0, step, steps = (uint64_t)job->options.steps;
    rank.job = job;
    rank.number = number;
    makeRank(&rank);
    drawWeights(&rank);
    passCheckpoint(&rank, job->options.resume, false, &first);
    for (step = first; step < steps;) {
        trainStep(&rank, step, step == first);
        if (++step % (uint64_t)job->options.report == 0 || step == steps)
            reportStep(&rank, step);
    }
    passCheckpoint(&rank, job->options.save, true, &step);
    reportEnd(&rank);
    endRank(&rank);
}

/* ---- the program ---- */

#define AT(member) offsetof(options_t, member)
static const flag_t flags[] = {
    {"--data", FLAG_TEXT, AT(data), "NAME|DIR", 0, 0, "fashion-mnist (default), or a directory of idx files"},
    {"--recipe", FLAG_TEXT, AT(recipe), "R", 0, 0, "how gradients travel, default threshold:density=0.01"},
    {"--optimizer", FLAG_CHOICE, AT(optimizer), "adamw|amsgrad", 0, 0, "default adamw"},
    {"--ranks", FLAG_INTEGER, AT(ranks), "N", 1, 1024, "threads, default one for each GPU; under mpirun, its number"},
    {"--steps", FLAG_INTEGER, AT(steps), "N", 0, 1e9, "those before a checkpoint included, default 1000"},
    {"--report", FLAG_INTEGER, AT(report), "N", 1, 1e9, "steps between two reports, default 100"},
    {"--batch", FLAG_INTEGER, AT(batch), "N", 1, 65536, "images of a rank in a step, default 64"},
    {"--hidden", FLAG_INTEGER, AT(hidden), "N", 1, 65536, "units of a hidden layer, default 256"},
    {"--depth", FLAG_INTEGER, AT(depth), "N", 1, MAX_LAYERS - 1, "hidden layers, default 2"},
    {"--lr", FLAG_REAL, AT(rate), "X", 1e-9, 1e6, "step size, default 0.001"},
    {"--seed", FLAG_INTEGER, AT(seed), "N", 0, 1e9, "of start, shuffling and recipes, default 1"},
    {"--graph", FLAG_SWITCH, AT(graph), "", 0, 0, "capture a step in a CUDA graph, and replay it"},
    {"--save", FLAG_TEXT, AT(save), "FILE", 0, 0, "at the end, a checkpoint in FILE.0, FILE.1, ..., one a rank"},
    {"--resume", FLAG_TEXT, AT(resume), "FILE", 0, 0, "go on from such a checkpoint"},
    {"--help", FLAG_SWITCH, AT(help), "", 0, 0, "this text"},
};

/* False, with a failure text, where the command line makes no sense here. */
static bool run(job_t *job, int argc, char **argv, int process, int processes)
{
    options_t *options = &job->options;
    const int flagCount = sizeof flags / sizeof flags[0];
    if (!flagsParse(flags, flagCount, options, argc, argv))
        return false;
    if (options->help)
        return puts("mlp: trains an MLP on GPUs, gradients exchanged by gradsieve\n"), flagsPrint(flags, flagCount),
               true;
    if (cudaGetDeviceCount(&job->devices) != cudaSuccess || job->devices == 0)
        return fail("no CUDA device; gs_train trains the same model on the CPU");
    job->ranks = processes > 1 ? processes : options->ranks ? options->ranks : job->devices;
    if (processes == 1 && job->ranks > job->devices)
        return fail("--ranks: got %d, expected no more than the %d devices", job->ranks, job->devices);
    if (!datasetLoad(&job->dataset, options->data, NULL))
        return false;
    if ((uint64_t)job->ranks * (uint64_t)options->batch > job->dataset.train.count)
        return fail("--batch: got %d on each of %d ranks, expected no more than the %u training images in a step",
                    options->batch, job->ranks, job->dataset.train.count);
    makeLayers(job);
    if (process == 0)
        NCCL(ncclGetUniqueId(&job->id));
#ifdef GS_HAVE_MPI
    MPI_Bcast(&job->id, sizeof job->id, MPI_BYTE, 0, MPI_COMM_WORLD);
#endif
    std::vector<std::thread> threads;
    for (int number = process; number < job->ranks; number += processes)
        threads.emplace_back(runRank, job, number);
    for (std::thread &thread : threads)
        thread.join();
    datasetFree(&job->dataset);
    return true;
}

int main(int argc, char **argv)
{
    job_t job = {};
    int process = 0, processes = 1;
#ifdef GS_HAVE_MPI
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &process);
    MPI_Comm_size(MPI_COMM_WORLD, &processes);
#endif
    if (!run(&job, argc, argv, process, processes)) {
        fprintf(stderr, "mlp: %s\n", failureText());
        return 2; /* mpirun ends the other processes */
    }
#ifdef GS_HAVE_MPI
    MPI_Finalize();
#endif
    return 0;
}
