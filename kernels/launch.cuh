/* How kernels are launched and how CUDA's errors become ours. */
#ifndef GS_LAUNCH_CUH
#define GS_LAUNCH_CUH

#include "core.h"
#include "tuning.cuh"

#include <cuda_runtime.h>

#include <utility>

inline gsResult_t gsCudaCheck(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return GS_SUCCESS;
    return gsFail(error == cudaErrorMemoryAllocation ? GS_ERROR_OUT_OF_MEMORY : GS_ERROR_DEVICE, "%s: %s", what,
                  cudaGetErrorString(error));
}

/* Enqueues `kernel` with `ctas` CTAs, or as many as the device is worth: kernels stride over what is left. */
template <typename... Params, typename... Args>
gsResult_t gsLaunch(const char *name, void (*kernel)(Params...), uint64_t ctas, unsigned threads, gsStream_t stream,
                    Args &&...args)
{
    int device, multiprocessors;
    if (ctas == 0) /* an empty gradient */
        return GS_SUCCESS;
    GS_CHECK(gsCudaCheck(cudaGetDevice(&device), name));
    GS_CHECK(gsCudaCheck(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), name));
    uint64_t most = (uint64_t)multiprocessors * GS_GRID_PER_SM;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)(ctas < most ? ctas : most));
    config.blockDim = dim3(threads);
    config.stream = (cudaStream_t)stream;
    return gsCudaCheck(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...), name);
}

#endif
