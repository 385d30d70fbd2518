/* A stage of a call: its range in a profile, and its seconds in the statistics. */
#ifndef GS_STAGE_H
#define GS_STAGE_H

#include "range.h"

#include <time.h>

typedef struct {
    gsReducer_t reducer;
    double *seconds;
    double begin;
} gsStage;

static inline double gsNow(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline gsStage gsStageBegin(gsReducer_t r, gsRange range, double *seconds)
{
    gsRangeBegin(r, range);
    return (gsStage){r, seconds, gsNow()};
}

/* Devices run on their own clock: nothing is added for them. */
static inline void gsStageEnd(const gsStage *stage)
{
    if (!stage->reducer->comm->backend->onDevice)
        *stage->seconds += gsNow() - stage->begin;
    gsRangeEnd(stage->reducer);
}

/* Behind select: where stages have run when they return, the record to be is known. */
static inline void gsKnowPlan(gsReducer_t r)
{
    if (!r->comm->backend->onDevice)
        gsKnowCall(r, &r->state->call);
}

#endif
