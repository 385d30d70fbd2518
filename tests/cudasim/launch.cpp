/* The runtime API: launching kernels and asking about them.
 *
 * CUDASIM_TRACE=FILE appends one line per launch: the kernel's name, grid and block.
 */
#include "executor.h"
#include "runtime.h"
#include "symbol.h"

#undef cudaLaunchKernel
#undef cudaLaunchKernelEx

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>

namespace cudasim
{

namespace
{

struct Kernel {
    std::atomic<Binder> binder{nullptr};
    std::string name;
    std::atomic<int> dynamicSharedLimit{int(sharedPerBlock)};
};

/* By address; nodes of a map stay where they are. */
class Kernels
{
  public:
    Kernel &operator[](const void *address)
    {
        std::lock_guard<std::mutex> lock(mutex);
        return kernels[address];
    }
    std::string nameOf(const void *address)
    {
        std::lock_guard<std::mutex> lock(mutex);
        Kernel &kernel = kernels[address];
        if (kernel.name.empty())
            kernel.name = functionName(address);
        return kernel.name;
    }

  private:
    std::mutex mutex;
    std::map<const void *, Kernel> kernels;
};

Kernels &kernels()
{
    static Kernels &instance = *new Kernels;
    return instance;
}

void trace(const Launch &launch)
{
    const char *path = getenv("CUDASIM_TRACE");
    if (!path)
        return;
    static std::mutex oneLineAtATime;
    std::lock_guard<std::mutex> lock(oneLineAtATime);
    FILE *file = fopen(path, "a");
    if (!file)
        return;
    fprintf(file, "%s grid %u %u %u block %u %u %u shared %zu\n", launch.name.c_str(), launch.grid.x, launch.grid.y,
            launch.grid.z, launch.block.x, launch.block.y, launch.block.z, launch.sharedBytes);
    fclose(file);
}

cudaError_t checkShape(const dim3 &grid, const dim3 &block, size_t sharedBytes, const Kernel &kernel)
{
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535)
        return cudaErrorInvalidConfiguration;
    size_t threads = size_t(block.x) * block.y * block.z;
    if (!threads || threads > size_t(threadsPerBlock) || block.z > 64)
        return cudaErrorInvalidConfiguration;
    return sharedBytes > size_t(kernel.dynamicSharedLimit) ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t launch(const void *function, dim3 grid, dim3 block, void **args, size_t sharedBytes, cudaStream_t stream)
{
    Kernel &kernel = kernels()[function];
    Binder binder = kernel.binder;
    if (!binder)
        return cudaErrorInvalidDeviceFunction;
    cudaError_t result = checkShape(grid, block, sharedBytes, kernel);
    if (result != cudaSuccess)
        return result;
    Launch launch{kernels().nameOf(function), grid, block, sharedBytes, binder(function, args)};
    Device &owner = device(streamOf(stream)->device);
    return submit(stream, [launch, &owner] {
        trace(launch);
        if (!execute(launch))
            owner.error = cudaErrorLaunchFailure;
    });
}

} // namespace

void registerKernel(const void *kernel, Binder binder)
{
    kernels()[kernel].binder = binder;
}

} // namespace cudasim

using namespace cudasim;

extern "C" {

cudaError_t cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **args, size_t sharedBytes,
                             cudaStream_t stream)
{
    return done(launch(function, grid, block, args, sharedBytes, stream));
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *function, void **args)
{
    for (unsigned i = 0; i < config->numAttrs; i++) {
        const cudaLaunchAttribute &attribute = config->attrs[i];
        if (attribute.id == cudaLaunchAttributeCooperative && attribute.val.cooperative)
            return done(cudaErrorNotSupported);
    }
    return done(launch(function, config->gridDim, config->blockDim, args, config->dynamicSmemBytes, config->stream));
}

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value)
{
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (value < 0 || size_t(value) > sharedPerBlockOptIn)
            return done(cudaErrorInvalidValue);
        kernels()[function].dynamicSharedLimit = value;
    }
    return done(cudaSuccess);
}

cudaError_t cudaFuncSetCacheConfig(const void *, cudaFuncCache)
{
    return done(cudaSuccess);
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *function)
{
    *attributes = {};
    attributes->maxThreadsPerBlock = threadsPerBlock;
    attributes->numRegs = 32;
    attributes->ptxVersion = attributes->binaryVersion = 90;
    attributes->maxDynamicSharedSizeBytes = kernels()[function].dynamicSharedLimit;
    return done(cudaSuccess);
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *, int blockSize,
                                                                   size_t sharedBytes, unsigned)
{
    if (blockSize <= 0 || blockSize > threadsPerBlock || sharedBytes > sharedPerBlockOptIn)
        return done(cudaErrorInvalidValue);
    int byThreads = threadsPerMultiprocessor / blockSize;
    int byShared = int(sharedPerMultiprocessor / (sharedBytes + 1024));
    *blocks = std::min({byThreads, byShared, 32});
    return done(cudaSuccess);
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int blockSize,
                                                          size_t sharedBytes)
{
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, blockSize, sharedBytes, 0);
}

} /* extern "C" */
