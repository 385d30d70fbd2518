/* device_cuda.cu: CUDA devices, a rank each, connected by NCCL. All work is on the legacy default stream, in order. */
extern "C" {
#include "device.h"
#include "failure.h"
}
#include "layers/cuda.cuh"

#include <nccl.h>
#include <stdio.h>
#include <vector>

/* The calling thread's rank. */
static thread_local struct {
    cublasHandle_t cublas;
    ncclComm_t nccl;
    char failure[FAILURE_LENGTH]; /* the first; empty: none */
} own;

static bool note(bool done, const char *what, const char *why)
{
    if (!done && !own.failure[0])
        snprintf(own.failure, sizeof own.failure, "%s: %s", what, why);
    return done;
}

static bool noteCuda(cudaError_t code, const char *what)
{
    return note(code == cudaSuccess, what, cudaGetErrorString(code));
}

static void noteCublas(cublasStatus_t code)
{
    note(code == CUBLAS_STATUS_SUCCESS, "cublasSgemm", cublasGetStatusString(code));
}

/* ---- ranks ---- */

static int deviceCount()
{
    int devices = 0;
    return cudaGetDeviceCount(&devices) == cudaSuccess ? devices : 0;
}

static bool enoughDevices(int ranks)
{
    int devices = deviceCount();
    if (devices == 0)
        return fail("--device: got cuda, but this machine has no CUDA device");
    return ranks <= devices || fail("--ranks: got %d, expected no more than the %d CUDA devices", ranks, devices);
}

static bool enterDevice(int number)
{
    own.failure[0] = 0;
    return noteCuda(cudaSetDevice(number % deviceCount()), "cudaSetDevice") &&
           note(cublasCreate(&own.cublas) == CUBLAS_STATUS_SUCCESS, "cublasCreate", "cuBLAS cannot be used");
}

/* What the ranks tell each other before they connect; rank 0's id counts. */
typedef struct {
    ncclUniqueId id;
    bool ready;
} greeting_t;

static bool connectRank(const rank_t *rank, const greeting_t *greetings, gsComm_t *comm)
{
    int ranks = rank->ranks->count;
    for (int r = 0; r < ranks; r++)
        if (!greetings[r].ready)
            return note(false, "a rank", "has no device");
    ncclResult_t code = ncclCommInitRank(&own.nccl, ranks, greetings[0].id, rank->number);
    return note(code == ncclSuccess, "ncclCommInitRank", ncclGetErrorString(code)) &&
           note(gsCommInitNccl(comm, own.nccl, NULL) == GS_SUCCESS, "gsCommInitNccl", gsGetLastError());
}

static bool enter(const rank_t *rank, gsComm_t *comm)
{
    greeting_t mine = {};
    mine.ready = enterDevice(rank->number) && ncclGetUniqueId(&mine.id) == ncclSuccess;
    const greeting_t *all = (const greeting_t *)ranksShare(rank, &mine, sizeof mine);
    return connectRank(rank, all, comm) || fail("rank %d: %s", rank->number, own.failure);
}

/* What has failed has taken its ncclComm_t along. */
static void leave(gsComm_t comm)
{
    gsResult_t failed = GS_SUCCESS;
    gsCommGetAsyncError(comm, &failed);
    gsCommDestroy(comm);
    if (own.nccl && failed == GS_SUCCESS)
        ncclCommDestroy(own.nccl);
    if (own.cublas)
        cublasDestroy(own.cublas);
    own.nccl = NULL;
    own.cublas = NULL;
}

/* ---- memory ---- */

static void *allocate(size_t bytes)
{
    void *memory = NULL;
    if (cudaMalloc(&memory, bytes ? bytes : 1) != cudaSuccess)
        return NULL;
    noteCuda(cudaMemset(memory, 0, bytes), "cudaMemset");
    return memory;
}

static void release(void *memory)
{
    cudaFree(memory);
}

static void upload(void *to, const void *from, size_t bytes)
{
    noteCuda(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
}

static void download(void *to, const void *from, size_t bytes)
{
    noteCuda(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
}

static bool finish()
{
    noteCuda(cudaGetLastError(), "a kernel's launch");
    noteCuda(cudaDeviceSynchronize(), "a kernel");
    return !own.failure[0] || fail("%s", own.failure);
}

/* ---- layers: the host's shapes, with functions of the device ---- */

static void forwardDense(const layer_t *layer, const float *parameters, const float *in, float *out, int batch, float *)
{
    noteCublas(
        denseForward(own.cublas, NULL, parameters + layer->weights, in, out, layer->fanIn, layer->out.channels, batch));
}

static void backwardDense(const layer_t *layer, const float *parameters, const float *in, const float *slopes,
                          float *before, int batch, float *gradient, float *)
{
    noteCublas(denseBackward(own.cublas, NULL, parameters + layer->weights, in, slopes, before,
                             gradient + layer->weights, layer->fanIn, layer->out.channels, batch));
}

static layer_t denseOnDevice(shape_t in, int outputs)
{
    layer_t layer = denseLayer(in, outputs);
    layer.forward = forwardDense;
    layer.backward = backwardDense;
    return layer;
}

static void forwardRelu(const layer_t *layer, const float *, const float *in, float *out, int batch, float *)
{
    size_t count = (size_t)batch * shapeSize(layer->in);
    forEach(count, NULL, relu, out, in, count);
}

static void backwardRelu(const layer_t *layer, const float *, const float *in, const float *slopes, float *before,
                         int batch, float *, float *)
{
    size_t count = (size_t)batch * shapeSize(layer->in);
    forEach(count, NULL, reluSlopes, before, slopes, in, count);
}

static layer_t reluOnDevice(shape_t in)
{
    layer_t layer = reluLayer(in);
    layer.forward = forwardRelu;
    layer.backward = backwardRelu;
    return layer;
}

static double loss(const float *logits, float *slopes, const uint8_t *labels, int classes, int rows, float *scratch)
{
    std::vector<float> losses((size_t)rows);
    double sum = 0.0;
    forEach((size_t)rows, NULL, softmaxLosses, logits, slopes, scratch, labels, classes, rows);
    download(losses.data(), scratch, losses.size() * sizeof(float));
    for (float one : losses)
        sum += one;
    return sum;
}

extern "C" GS_API const device_t gsTrainCuda;
const device_t gsTrainCuda = {enoughDevices, enter,         leave,        allocate, release, upload, download,
                              finish,        denseOnDevice, reluOnDevice, NULL,     NULL,    loss};
