/* What the parts of the runtime API share: devices, their sticky errors, and how work gets into a stream. */
#ifndef CUDASIM_RUNTIME_H
#define CUDASIM_RUNTIME_H

#include "stream.h"

#include <cuda_runtime_api.h>

namespace cudasim
{

/* One simulated device. Its default stream waits for all blocking streams, and they for it. */
struct Device {
    std::atomic<cudaError_t> error{cudaSuccess}; /* sticky, until cudaDeviceReset */
    std::mutex mutex;
    std::shared_ptr<Stream> defaultStream;
    std::vector<std::weak_ptr<Stream>> streams;

    std::vector<std::shared_ptr<Stream>> liveStreams();
};

/* Static limits; the few multiprocessors keep grids that are sized after them small. */
constexpr int multiprocessors = 4, threadsPerMultiprocessor = 2048, threadsPerBlock = 1024;
constexpr size_t sharedPerBlock = 48 << 10, sharedPerBlockOptIn = 227 << 10, sharedPerMultiprocessor = 228 << 10;
constexpr size_t memoryPerDevice = size_t(16) << 30;

int deviceCount();
Device &device(int number);
int currentDeviceNumber();
inline Device &currentDevice()
{
    return device(currentDeviceNumber());
}

/* Remembers a failed call's code for cudaGetLastError, and returns it. */
cudaError_t done(cudaError_t result);

/* The stream behind a handle, the special handles included. */
std::shared_ptr<Stream> streamOf(cudaStream_t handle);

/* Puts work into a stream, in order with the default stream, and gives its ticket. Work is skipped on a device that has
 * failed. */
cudaError_t submit(cudaStream_t handle, std::function<void()> work, Ticket *ticket = nullptr);

cudaError_t synchronizeDevice();

} // namespace cudasim

#endif /* CUDASIM_RUNTIME_H */
