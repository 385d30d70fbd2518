/* The runtime API: memory. Device memory is host memory of exactly the size asked for, so that the address sanitizer
 * sees overruns; it is registered, so that a copy in a wrong direction or beyond an allocation's end is an error. */
#include "runtime.h"

#include <cstdlib>
#include <cstring>
#include <map>

namespace cudasim
{

namespace
{

struct Allocation {
    size_t bytes;
    cudaMemoryType type; /* device, pinned host or managed */
    int device;
    bool owned; /* not cudaHostRegister's */
};

class Registry
{
  public:
    void add(void *base, const Allocation &allocation)
    {
        std::lock_guard<std::mutex> lock(mutex);
        allocations[reinterpret_cast<uintptr_t>(base)] = allocation;
        if (allocation.type == cudaMemoryTypeDevice)
            used += allocation.bytes;
    }
    /* Forgets the allocation that starts at base; false if there is none of that kind. */
    bool remove(void *base, bool onDevice, bool owned)
    {
        std::lock_guard<std::mutex> lock(mutex);
        auto found = allocations.find(reinterpret_cast<uintptr_t>(base));
        if (found == allocations.end() || (found->second.type != cudaMemoryTypeHost) != onDevice)
            return false;
        if (found->second.owned != owned)
            return false;
        if (found->second.type == cudaMemoryTypeDevice)
            used -= found->second.bytes;
        allocations.erase(found);
        return true;
    }
    /* The allocation around an address, and how many bytes of it follow; plain host memory is unregistered. */
    Allocation find(const void *pointer, size_t *left = nullptr)
    {
        std::lock_guard<std::mutex> lock(mutex);
        auto address = reinterpret_cast<uintptr_t>(pointer);
        auto next = allocations.upper_bound(address);
        if (next != allocations.begin()) {
            auto &[base, allocation] = *std::prev(next);
            if (address - base < allocation.bytes || address == base) {
                if (left)
                    *left = allocation.bytes - (address - base);
                return allocation;
            }
        }
        if (left)
            *left = SIZE_MAX;
        return {0, cudaMemoryTypeUnregistered, -2, false};
    }
    size_t bytesUsed()
    {
        std::lock_guard<std::mutex> lock(mutex);
        return used;
    }

  private:
    std::mutex mutex;
    std::map<uintptr_t, Allocation> allocations;
    size_t used = 0;
};

Registry &registry()
{
    static Registry &instance = *new Registry;
    return instance;
}

constexpr int freshByte = 0xcb; /* nobody may count on zeros */

cudaError_t allocate(void **pointer, size_t bytes, cudaMemoryType type)
{
    if (!pointer)
        return cudaErrorInvalidValue;
    *pointer = nullptr;
    if (!bytes)
        return type == cudaMemoryTypeHost ? cudaErrorInvalidValue : cudaSuccess;
    if (bytes > memoryPerDevice || posix_memalign(pointer, 256, bytes))
        return cudaErrorMemoryAllocation;
    memset(*pointer, freshByte, bytes);
    registry().add(*pointer, {bytes, type, currentDeviceNumber(), true});
    return cudaSuccess;
}

bool mayBeDevice(cudaMemoryType type)
{
    return type != cudaMemoryTypeUnregistered;
}
bool mayBeHost(cudaMemoryType type)
{
    return type != cudaMemoryTypeDevice;
}

cudaError_t checkCopy(const void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    if (!bytes)
        return cudaSuccess;
    if (!to || !from)
        return cudaErrorInvalidValue;
    size_t roomAt, leftAt;
    cudaMemoryType target = registry().find(to, &roomAt).type, source = registry().find(from, &leftAt).type;
    if (bytes > roomAt || bytes > leftAt)
        return cudaErrorInvalidValue;
    bool toDevice = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool fromDevice = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind == cudaMemcpyDefault)
        return cudaSuccess;
    if (!(toDevice ? mayBeDevice(target) : mayBeHost(target)))
        return cudaErrorInvalidValue;
    if (!(fromDevice ? mayBeDevice(source) : mayBeHost(source)))
        return cudaErrorInvalidValue;
    return cudaSuccess;
}

/* Pageable memory is read at once and written before the call returns, as the real driver does. */
cudaError_t copyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    cudaError_t result = checkCopy(to, from, bytes, kind);
    if (result != cudaSuccess || !bytes)
        return result;
    if (registry().find(from).type == cudaMemoryTypeUnregistered) {
        std::vector<char> staged(static_cast<const char *>(from), static_cast<const char *>(from) + bytes);
        return submit(stream, [to, staged = std::move(staged)] { memcpy(to, staged.data(), staged.size()); });
    }
    Ticket ticket;
    result = submit(
        stream, [=] { memmove(to, from, bytes); }, &ticket);
    if (registry().find(to).type == cudaMemoryTypeUnregistered)
        ticket.wait();
    return result;
}

cudaError_t fillAsync(void *pointer, int value, size_t bytes, cudaStream_t stream)
{
    if (!bytes)
        return cudaSuccess;
    size_t room;
    if (!mayBeDevice(registry().find(pointer, &room).type) || bytes > room)
        return cudaErrorInvalidValue;
    return submit(stream, [=] { memset(pointer, value, bytes); });
}

/* The blocking form of a call just queued. */
cudaError_t finish(cudaError_t queued)
{
    if (queued != cudaSuccess)
        return queued;
    auto stream = streamOf(nullptr);
    stream->last().wait();
    return currentDevice().error;
}

} // namespace

} // namespace cudasim

using namespace cudasim;

extern "C" {

cudaError_t cudaMalloc(void **pointer, size_t bytes)
{
    return done(allocate(pointer, bytes, cudaMemoryTypeDevice));
}

cudaError_t cudaMallocManaged(void **pointer, size_t bytes, unsigned)
{
    return done(allocate(pointer, bytes, cudaMemoryTypeManaged));
}

cudaError_t cudaMallocAsync(void **pointer, size_t bytes, cudaStream_t)
{
    return cudaMalloc(pointer, bytes);
}

cudaError_t cudaFree(void *pointer)
{
    synchronizeDevice();
    if (!pointer)
        return done(cudaSuccess);
    if (!registry().remove(pointer, true, true))
        return done(cudaErrorInvalidValue);
    free(pointer);
    return done(cudaSuccess);
}

cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream)
{
    if (!pointer)
        return done(cudaSuccess);
    if (!registry().remove(pointer, true, true))
        return done(cudaErrorInvalidValue);
    return done(submit(stream, [pointer] { free(pointer); }));
}

cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned)
{
    return done(allocate(pointer, bytes, cudaMemoryTypeHost));
}

cudaError_t cudaMallocHost(void **pointer, size_t bytes)
{
    return cudaHostAlloc(pointer, bytes, 0);
}

cudaError_t cudaFreeHost(void *pointer)
{
    if (!pointer)
        return done(cudaSuccess);
    synchronizeDevice();
    if (!registry().remove(pointer, false, true))
        return done(cudaErrorInvalidValue);
    free(pointer);
    return done(cudaSuccess);
}

cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned)
{
    if (!pointer || !bytes)
        return done(cudaErrorInvalidValue);
    registry().add(pointer, {bytes, cudaMemoryTypeHost, currentDeviceNumber(), false});
    return done(cudaSuccess);
}

cudaError_t cudaHostUnregister(void *pointer)
{
    return done(registry().remove(pointer, false, false) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaHostGetDevicePointer(void **onDevice, void *onHost, unsigned)
{
    if (registry().find(onHost).type != cudaMemoryTypeHost)
        return done(cudaErrorInvalidValue);
    *onDevice = onHost;
    return done(cudaSuccess);
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    size_t used = registry().bytesUsed();
    *total = memoryPerDevice;
    *available = used < memoryPerDevice ? memoryPerDevice - used : 0;
    return done(cudaSuccess);
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer)
{
    Allocation allocation = registry().find(pointer);
    memset(attributes, 0, sizeof *attributes);
    attributes->type = allocation.type;
    attributes->device = allocation.device;
    if (mayBeDevice(allocation.type))
        attributes->devicePointer = const_cast<void *>(pointer);
    if (mayBeHost(allocation.type))
        attributes->hostPointer = const_cast<void *>(pointer);
    return done(cudaSuccess);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    return done(copyAsync(to, from, bytes, kind, stream));
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    return done(finish(copyAsync(to, from, bytes, kind, nullptr)));
}

cudaError_t cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t bytes, cudaStream_t stream)
{
    return done(copyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream));
}

cudaError_t cudaMemcpyPeer(void *to, int, const void *from, int, size_t bytes)
{
    return done(finish(copyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, nullptr)));
}

cudaError_t cudaMemcpyToSymbol(const void *symbol, const void *from, size_t bytes, size_t offset, cudaMemcpyKind)
{
    char *to = static_cast<char *>(const_cast<void *>(symbol)) + offset;
    return done(finish(submit(nullptr, [=] { memcpy(to, from, bytes); })));
}

cudaError_t cudaMemsetAsync(void *pointer, int value, size_t bytes, cudaStream_t stream)
{
    return done(fillAsync(pointer, value, bytes, stream));
}

cudaError_t cudaMemset(void *pointer, int value, size_t bytes)
{
    return done(finish(fillAsync(pointer, value, bytes, nullptr)));
}

} /* extern "C" */
