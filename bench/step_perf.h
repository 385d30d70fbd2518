/* An optimizer's step by the result of an all-reduce of one rank: in a call of its own, and in the same pass. */
#ifndef GS_BENCH_STEP_PERF_H
#define GS_BENCH_STEP_PERF_H

#include "gradsieve.h"

typedef struct {
    gsComm_t comm;
    gsReducer_t reducers[2]; /* two calls, one */
    gsOptimizer_t optimizer;
    size_t count;
    gsDataType_t type;
    void *sum; /* of the type */
} stepPerf_t;

/* For float and double. */
stepPerf_t stepPerfMake(gsOptimizerKind_t kind, const char *recipe, size_t count, gsDataType_t type, int threads);
double stepPerfApart(stepPerf_t *perf, const void *gradient); /* seconds */
double stepPerfFused(stepPerf_t *perf, const void *gradient);
void stepPerfFree(stepPerf_t *perf);

#endif
