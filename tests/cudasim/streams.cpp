/* The runtime API: streams, events, host functions; stream capture is answered with "not supported". */
#include "runtime.h"

#include <chrono>

using Clock = std::chrono::steady_clock;

struct CUstream_st {
    std::shared_ptr<cudasim::Stream> stream;
};

/* An event is a ticket of the stream it was last recorded in. */
struct CUevent_st {
    std::mutex mutex;
    unsigned flags;
    bool recorded = false;
    cudasim::Ticket ticket;
    std::shared_ptr<Clock::time_point> time;

    cudasim::Ticket current()
    {
        std::lock_guard<std::mutex> lock(mutex);
        return ticket;
    }
};

namespace cudasim
{

namespace
{

std::shared_ptr<Stream> makeStream(unsigned flags, int priority)
{
    auto stream = Stream::create(currentDeviceNumber(), flags, priority);
    Device &device = currentDevice();
    std::lock_guard<std::mutex> lock(device.mutex);
    device.streams.push_back(stream);
    return stream;
}

std::shared_ptr<Stream> defaultStream()
{
    {
        Device &device = currentDevice();
        std::lock_guard<std::mutex> lock(device.mutex);
        if (device.defaultStream)
            return device.defaultStream;
    }
    auto stream = makeStream(cudaStreamDefault, 0);
    Device &device = currentDevice();
    std::lock_guard<std::mutex> lock(device.mutex);
    if (!device.defaultStream)
        device.defaultStream = stream;
    return device.defaultStream;
}

/* Each thread's own default stream, for cudaStreamPerThread. */
std::shared_ptr<Stream> threadStream()
{
    struct Owned {
        std::shared_ptr<Stream> stream;
        ~Owned()
        {
            if (stream)
                stream->close();
        }
    };
    static thread_local Owned perDevice[64];
    auto &stream = perDevice[currentDeviceNumber()].stream;
    if (!stream)
        stream = makeStream(cudaStreamDefault, 0);
    return stream;
}

/* What new work in `stream` must wait for beyond its own stream: the rule of the default stream. */
std::vector<Ticket> predecessors(const std::shared_ptr<Stream> &stream)
{
    std::vector<Ticket> tickets;
    Device &owner = device(stream->device);
    std::shared_ptr<Stream> first;
    {
        std::lock_guard<std::mutex> lock(owner.mutex);
        first = owner.defaultStream;
    }
    if (stream == first) {
        for (auto &other : owner.liveStreams())
            if (other != first && !(other->flags & cudaStreamNonBlocking))
                tickets.push_back(other->last());
    } else if (first && !(stream->flags & cudaStreamNonBlocking)) {
        tickets.push_back(first->last());
    }
    return tickets;
}

} // namespace

std::shared_ptr<Stream> streamOf(cudaStream_t handle)
{
    if (!handle || handle == cudaStreamLegacy)
        return defaultStream();
    if (handle == cudaStreamPerThread)
        return threadStream();
    return handle->stream;
}

cudaError_t submit(cudaStream_t handle, std::function<void()> work, Ticket *ticket)
{
    std::shared_ptr<Stream> stream = streamOf(handle);
    Device &owner = device(stream->device);
    if (owner.error != cudaSuccess)
        return owner.error;
    Ticket mine = stream->enqueue([&owner, before = predecessors(stream), work = std::move(work)] {
        for (const Ticket &other : before)
            other.wait();
        if (owner.error == cudaSuccess)
            work();
    });
    if (ticket)
        *ticket = mine;
    return cudaSuccess;
}

} // namespace cudasim

using namespace cudasim;

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    if (!stream || flags & ~unsigned(cudaStreamNonBlocking))
        return done(cudaErrorInvalidValue);
    *stream = new CUstream_st{makeStream(flags, priority)};
    return done(cudaSuccess);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    if (!stream || stream == cudaStreamLegacy || stream == cudaStreamPerThread)
        return done(cudaErrorInvalidResourceHandle);
    stream->stream->close();
    delete stream;
    return done(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    auto stream = streamOf(handle);
    stream->last().wait();
    return done(device(stream->device).error);
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    auto stream = streamOf(handle);
    if (device(stream->device).error != cudaSuccess)
        return done(device(stream->device).error);
    return stream->last().reached() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned *flags)
{
    *flags = streamOf(stream)->flags;
    return done(cudaSuccess);
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority)
{
    *priority = streamOf(stream)->priority;
    return done(cudaSuccess);
}

cudaError_t cudaStreamGetDevice(cudaStream_t stream, int *number)
{
    *number = streamOf(stream)->device;
    return done(cudaSuccess);
}

cudaError_t cudaStreamGetId(cudaStream_t stream, unsigned long long *id)
{
    *id = reinterpret_cast<uintptr_t>(streamOf(stream).get());
    return done(cudaSuccess);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    if (!event)
        return done(cudaErrorInvalidResourceHandle);
    return done(submit(stream, [ticket = event->current()] { ticket.wait(); }));
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data)
{
    if (!function)
        return done(cudaErrorInvalidValue);
    return done(submit(stream, [function, data] { function(data); }));
}

cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t callback, void *data, unsigned)
{
    if (!callback)
        return done(cudaErrorInvalidValue);
    return done(submit(stream, [=] { callback(stream, cudaSuccess, data); }));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    if (!event)
        return done(cudaErrorInvalidValue);
    *event = new CUevent_st;
    (*event)->flags = flags;
    return done(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    if (!event)
        return done(cudaErrorInvalidResourceHandle);
    delete event;
    return done(cudaSuccess);
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned)
{
    if (!event)
        return done(cudaErrorInvalidResourceHandle);
    auto time = std::make_shared<Clock::time_point>();
    Ticket ticket;
    cudaError_t result = submit(
        stream, [time] { *time = Clock::now(); }, &ticket);
    if (result != cudaSuccess)
        return done(result);
    std::lock_guard<std::mutex> lock(event->mutex);
    event->recorded = true;
    event->ticket = ticket;
    event->time = time;
    return done(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    if (!event)
        return done(cudaErrorInvalidResourceHandle);
    return event->current().reached() ? done(cudaSuccess) : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    if (!event)
        return done(cudaErrorInvalidResourceHandle);
    event->current().wait();
    return done(cudaSuccess);
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end)
{
    if (!start || !end || !start->recorded || !end->recorded)
        return done(cudaErrorInvalidResourceHandle);
    if ((start->flags | end->flags) & cudaEventDisableTiming)
        return done(cudaErrorInvalidResourceHandle);
    if (!start->current().reached() || !end->current().reached())
        return cudaErrorNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(*end->time - *start->time).count();
    return done(cudaSuccess);
}

/* ---- capture and graphs: never capturing, never supported ------------------------------------------------------- */

cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus *status)
{
    *status = cudaStreamCaptureStatusNone;
    return done(cudaSuccess);
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus *status, unsigned long long *, cudaGraph_t *,
                                     const cudaGraphNode_t **, const cudaGraphEdgeData **, size_t *)
{
    return cudaStreamIsCapturing(nullptr, status);
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *)
{
    return done(cudaSuccess);
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode)
{
    return done(cudaErrorNotSupported);
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *)
{
    return done(cudaErrorNotSupported);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *, cudaGraph_t, unsigned long long)
{
    return done(cudaErrorNotSupported);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t)
{
    return done(cudaErrorNotSupported);
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t)
{
    return done(cudaErrorNotSupported);
}
cudaError_t cudaGraphDestroy(cudaGraph_t)
{
    return done(cudaErrorNotSupported);
}

} /* extern "C" */
