/* Seconds of a stage, for the statistics. */
#ifndef GS_LAP_H
#define GS_LAP_H

#include "core.h"

#include <time.h>

static inline double gsNow(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Adds the time since *mark to a stage's seconds. Devices run on their own clock: nothing is added for them. */
static inline void gsLap(gsReducer_t r, double *mark, double *seconds)
{
    double time = gsNow();
    if (!r->comm->backend->onDevice)
        *seconds += time - *mark;
    *mark = time;
}

#endif
