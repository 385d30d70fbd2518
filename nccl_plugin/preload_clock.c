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
    if (!isDone(clock->events[3]))
        return;
    clock->next = 0;
    preloadCounts.measured++;
    preloadCounts.encodeNs += nanoseconds(clock->events[0], clock->events[1]);
    preloadCounts.decodeNs += nanoseconds(clock->events[2], clock->events[3]);
}

static bool makeEvents(preloadClock *clock)
{
    for (int i = 0; i < 4; i++)
        if (!clock->events[i] && cudaEventCreate(&clock->events[i]) != cudaSuccess)
            return false;
    return true;
}

void preloadClockMark(preloadClock *clock, int when, uint32_t place, cudaStream_t stream)
{
    if (clock->next == when && clock->place == place && cudaEventRecord(clock->events[when], stream) == cudaSuccess)
        clock->next = when + 1;
}

/* Events of a graph have no times. A call that failed on its way is measured no further. */
void preloadClockBegin(preloadClock *clock, uint32_t place, cudaStream_t stream)
{
    if (preloadIsCaptured(stream))
        return;
    if (clock->next == 4)
        take(clock);
    if (clock->next < 4 && clock->place == place)
        clock->next = 0;
    if (clock->next || clock->calls++ % PRELOAD_CLOCK_EVERY || !makeEvents(clock))
        return;
    clock->place = place;
    preloadClockMark(clock, 0, place, stream);
}

void preloadClockFree(preloadClock *clock)
{
    for (int i = 0; i < 4; i++)
        if (clock->events[i])
            cudaEventDestroy(clock->events[i]);
}
