/* The CUDA backend's table, its memory and its copies. */
#include "kernels.cuh"
#include "launch.cuh"

static gsResult_t allocate(void **pointer, size_t bytes)
{
    return gsCudaCheck(cudaMalloc(pointer, bytes), "cudaMalloc");
}

static void release(void *pointer)
{
    cudaFree(pointer);
}

static gsResult_t synchronize(gsStream_t stream)
{
    return gsCudaCheck(cudaStreamSynchronize((cudaStream_t)stream), "cudaStreamSynchronize");
}

/* Host access without a stream waits for all of them: the work of a call may be on any. */
static gsResult_t waitForWork(gsStream_t stream)
{
    return stream ? GS_SUCCESS : gsCudaCheck(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

static gsResult_t put(void *to, const void *hostFrom, size_t bytes, gsStream_t stream)
{
    GS_CHECK(waitForWork(stream));
    GS_CHECK(gsCudaCheck(cudaMemcpyAsync(to, hostFrom, bytes, cudaMemcpyHostToDevice, (cudaStream_t)stream),
                         "copy to device"));
    return synchronize(stream);
}

static gsResult_t get(void *hostTo, const void *from, size_t bytes, gsStream_t stream)
{
    GS_CHECK(waitForWork(stream));
    if (bytes)
        GS_CHECK(gsCudaCheck(cudaMemcpyAsync(hostTo, from, bytes, cudaMemcpyDeviceToHost, (cudaStream_t)stream),
                             "copy from device"));
    return synchronize(stream);
}

static gsResult_t copy(void *to, const void *from, size_t bytes, gsStream_t stream)
{
    return gsCudaCheck(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, (cudaStream_t)stream),
                       "copy on the device");
}

static gsResult_t fill(void *pointer, int byte, size_t bytes, gsStream_t stream)
{
    return gsCudaCheck(cudaMemsetAsync(pointer, byte, bytes, (cudaStream_t)stream), "cudaMemsetAsync");
}

extern "C" {

const gsBackend gsCudaBackend = {
    "cuda",
    1,       /* onDevice */
    nullptr, /* prepare: the kernels do whatever the CPU does */
    allocate,
    release,
    put,
    get,
    copy,
    fill,
    gsCudaSelect,
    gsCudaPack,
    gsCudaValidate,
    gsCudaAccumulate,
    gsCudaCommit,
    gsCudaPlanParts,
    gsCudaHandDown,
    gsCudaMakeResult,
    gsCudaHandBack,
    gsCudaRememberParts,
    gsCudaCompare,
    gsCudaValidateDense,
    gsCudaAccumulateDense,
    gsCudaWantsGradient,
    nullptr, /* sumSlices: NCCL sums */
    gsCudaFinishDense,
    gsCudaSetTensors,
    gsCudaGather,
    gsCudaSeal,
    gsCudaOpenSeals,
    gsCudaAssemble,
    gsCudaScaleState,
    gsCudaScale,
    gsCudaOptimize,
    gsCudaCountStep,
};

gsResult_t gsCommInitStagesCuda(gsComm_t *comm, int rank, int nranks, const gsCommConfig_t *config)
{
    return gsCommMake(comm, &gsNoTransport, &gsCudaBackend, rank, nranks, config);
}
}
