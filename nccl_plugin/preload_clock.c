/* How long our stages take on the device: of one call in sixteen, by events that are read when a later call finds them done. */
#include "preload.h"

static uint64_t nanoseconds(cudaEvent_t from, cudaEvent_t to)
{
    float ms = 0;
    return cudaEventElapsedTime(&ms, from, to) == cudaSuccess ? (uint64_t)(1e6f * ms) : 0;
}

/* A question that would spoil a capture anywhere in the process. */
static bool isDone(cudaEvent_t event)
{
    enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaThreadExchangeStreamCaptureMode(&mode);
    bool done = cudaEventQuery(event) == cudaSuccess;
    if (!done)
        cudaGetLastError(); /* "not ready" is no error to leave behind */
    cudaThreadExchangeStreamCaptureMode(&mode);
    return done;
}

/* Reads the times of the last call measured, if they are there. */
static void take(preloadClock *clock)
{
    const cudaEvent_t *events = clock->events;
    if (!isDone(events[PRELOAD_DECODED]))
        return;
    clock->next = 0;
    preloadCounts.measured++;
    preloadCounts.encodeNs += nanoseconds(events[PRELOAD_ENCODES], events[PRELOAD_ENCODED]);
    preloadCounts.decodeNs += nanoseconds(events[PRELOAD_SUMS], events[PRELOAD_SUMMED]) +
                              nanoseconds(events[PRELOAD_DECODES], events[PRELOAD_DECODED]);
}

static bool makeEvents(preloadClock *clock)
{
    for (int i = 0; i < PRELOAD_TIMES; i++)
        if (!clock->events[i] && cudaEventCreate(&clock->events[i]) != cudaSuccess)
            return false;
    return true;
}

void preloadClockMark(preloadClock *clock, preloadTime when, uint32_t place, cudaStream_t stream)
{
    if (clock->next == (int)when && clock->place == place &&
        cudaEventRecord(clock->events[when], stream) == cudaSuccess)
        clock->next++;
}

/* Events of a graph have no times. A call that failed on its way is measured no further. */
void preloadClockBegin(preloadClock *clock, uint32_t place, cudaStream_t stream)
{
    if (preloadIsCaptured(stream))
        return;
    if (clock->next == PRELOAD_TIMES)
        take(clock);
    if (clock->next < PRELOAD_TIMES && clock->place == place)
        clock->next = 0;
    if (clock->next || clock->calls++ % PRELOAD_CLOCK_EVERY || !makeEvents(clock))
        return;
    clock->place = place;
    preloadClockMark(clock, PRELOAD_ENCODES, place, stream);
}

void preloadClockFree(preloadClock *clock)
{
    for (int i = 0; i < PRELOAD_TIMES; i++)
        if (clock->events[i])
            cudaEventDestroy(clock->events[i]);
}
