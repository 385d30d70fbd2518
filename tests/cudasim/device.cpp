/* The runtime API: devices, their properties, and errors. CUDASIM_DEVICES says how many devices there are (8). */
#include "runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace cudasim
{

namespace
{

constexpr int mostDevices = 64;
thread_local int current = 0;
thread_local cudaError_t lastError = cudaSuccess;

bool isDevice(int number)
{
    return number >= 0 && number < deviceCount();
}

} // namespace

int deviceCount()
{
    const char *text = getenv("CUDASIM_DEVICES");
    int count = text ? atoi(text) : 8;
    return count < 0 ? 0 : count < mostDevices ? count : mostDevices;
}

Device &device(int number)
{
    static Device *devices = new Device[mostDevices]; /* workers may outlive static objects */
    return devices[number];
}

int currentDeviceNumber()
{
    return current;
}

cudaError_t done(cudaError_t result)
{
    if (result == cudaSuccess)
        result = currentDevice().error;
    if (result != cudaSuccess)
        lastError = result;
    return result;
}

std::vector<std::shared_ptr<Stream>> Device::liveStreams()
{
    std::lock_guard<std::mutex> lock(mutex);
    std::vector<std::shared_ptr<Stream>> live;
    std::vector<std::weak_ptr<Stream>> kept;
    for (auto &weak : streams) {
        if (auto stream = weak.lock()) {
            live.push_back(stream);
            kept.push_back(weak);
        }
    }
    streams.swap(kept);
    return live;
}

cudaError_t synchronizeDevice()
{
    for (auto &stream : currentDevice().liveStreams())
        stream->last().wait();
    return currentDevice().error;
}

} // namespace cudasim

using namespace cudasim;

extern "C" {

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = deviceCount();
    return *count ? done(cudaSuccess) : done(cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int *number)
{
    if (!deviceCount())
        return done(cudaErrorNoDevice);
    *number = current;
    return done(cudaSuccess);
}

cudaError_t cudaSetDevice(int number)
{
    if (!isDevice(number))
        return done(cudaErrorInvalidDevice);
    current = number;
    return done(cudaSuccess);
}

cudaError_t cudaInitDevice(int number, unsigned, unsigned)
{
    return done(isDevice(number) ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaSetDeviceFlags(unsigned)
{
    return done(cudaSuccess);
}

cudaError_t cudaDeviceSynchronize()
{
    return done(synchronizeDevice());
}

cudaError_t cudaDeviceReset()
{
    synchronizeDevice();
    currentDevice().error = cudaSuccess;
    lastError = cudaSuccess;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    if (least)
        *least = 0;
    if (greatest)
        *greatest = -5;
    return done(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int number)
{
    if (!isDevice(number))
        return done(cudaErrorInvalidDevice);
    memset(properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "CUDA source-level simulator");
    properties->uuid.bytes[15] = char(number);
    properties->totalGlobalMem = memoryPerDevice;
    properties->sharedMemPerBlock = sharedPerBlock;
    properties->sharedMemPerBlockOptin = sharedPerBlockOptIn;
    properties->sharedMemPerMultiprocessor = sharedPerMultiprocessor;
    properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = threadsPerBlock;
    properties->maxThreadsPerMultiProcessor = threadsPerMultiprocessor;
    properties->maxBlocksPerMultiProcessor = 32;
    properties->multiProcessorCount = multiprocessors;
    const int threads[3] = {1024, 1024, 64}, grid[3] = {0x7fffffff, 65535, 65535};
    memcpy(properties->maxThreadsDim, threads, sizeof threads);
    memcpy(properties->maxGridSize, grid, sizeof grid);
    properties->major = 9;
    properties->l2CacheSize = 50 << 20;
    properties->memoryBusWidth = 5120;
    properties->asyncEngineCount = 3;
    properties->concurrentKernels = properties->unifiedAddressing = properties->canMapHostMemory = 1;
    properties->streamPrioritiesSupported = properties->memoryPoolsSupported = properties->managedMemory = 1;
    properties->pciBusID = number;
    return done(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int number)
{
    cudaDeviceProp properties;
    cudaError_t result = cudaGetDeviceProperties(&properties, number);
    if (result != cudaSuccess)
        return result;
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = threadsPerBlock; break;
    case cudaDevAttrMaxBlockDimX: *value = properties.maxThreadsDim[0]; break;
    case cudaDevAttrMaxBlockDimY: *value = properties.maxThreadsDim[1]; break;
    case cudaDevAttrMaxBlockDimZ: *value = properties.maxThreadsDim[2]; break;
    case cudaDevAttrMaxGridDimX: *value = properties.maxGridSize[0]; break;
    case cudaDevAttrMaxGridDimY: *value = properties.maxGridSize[1]; break;
    case cudaDevAttrMaxGridDimZ: *value = properties.maxGridSize[2]; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = int(sharedPerBlock); break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = int(sharedPerBlockOptIn); break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = int(sharedPerMultiprocessor); break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMaxRegistersPerBlock: *value = properties.regsPerBlock; break;
    case cudaDevAttrMaxRegistersPerMultiprocessor: *value = properties.regsPerMultiprocessor; break;
    case cudaDevAttrMultiProcessorCount: *value = multiprocessors; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = threadsPerMultiprocessor; break;
    case cudaDevAttrMaxBlocksPerMultiprocessor: *value = properties.maxBlocksPerMultiProcessor; break;
    case cudaDevAttrComputeCapabilityMajor: *value = properties.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = properties.minor; break;
    case cudaDevAttrL2CacheSize: *value = properties.l2CacheSize; break;
    case cudaDevAttrGlobalMemoryBusWidth: *value = properties.memoryBusWidth; break;
    case cudaDevAttrMemoryClockRate:
    case cudaDevAttrClockRate: *value = 1000000; break;
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrStreamPrioritiesSupported:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrMemoryPoolsSupported: *value = 1; break;
    default: *value = 0; /* a feature the simulator lacks: cooperative launch, clusters, ... */
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int number, int peer)
{
    if (!isDevice(number) || !isDevice(peer))
        return done(cudaErrorInvalidDevice);
    *can = number != peer;
    return done(cudaSuccess);
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned)
{
    return done(isDevice(peer) && peer != current ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    return cudaRuntimeGetVersion(version);
}

cudaError_t cudaGetLastError()
{
    cudaError_t result = done(lastError);
    lastError = cudaSuccess;
    return result;
}

cudaError_t cudaPeekAtLastError()
{
    return done(lastError);
}

#define CUDASIM_ERRORS(X)                                                                    \
    X(cudaSuccess, "no error")                                                               \
    X(cudaErrorInvalidValue, "invalid argument")                                             \
    X(cudaErrorMemoryAllocation, "out of memory")                                            \
    X(cudaErrorInvalidConfiguration, "invalid configuration argument")                       \
    X(cudaErrorInvalidSymbol, "invalid device symbol")                                       \
    X(cudaErrorInvalidDevicePointer, "invalid device pointer")                               \
    X(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy")                  \
    X(cudaErrorInvalidDeviceFunction, "invalid device function")                             \
    X(cudaErrorNoDevice, "no CUDA-capable device is detected")                               \
    X(cudaErrorInvalidDevice, "invalid device ordinal")                                      \
    X(cudaErrorInvalidResourceHandle, "invalid resource handle")                             \
    X(cudaErrorNotReady, "device not ready")                                                 \
    X(cudaErrorIllegalAddress, "an illegal memory access was encountered")                   \
    X(cudaErrorLaunchFailure, "unspecified launch failure")                                  \
    X(cudaErrorNotSupported, "operation not supported")                                      \
    X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing") \
    X(cudaErrorUnknown, "unknown error")

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
#define CUDASIM_NAME(code, text) \
    case code: return #code;
        CUDASIM_ERRORS(CUDASIM_NAME)
    default: return "unrecognized error code";
    }
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
#define CUDASIM_TEXT(code, text) \
    case code: return text;
        CUDASIM_ERRORS(CUDASIM_TEXT)
    default: return "unrecognized error code";
    }
}

} /* extern "C" */
