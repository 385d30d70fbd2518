/* An optimizer's step by the result of an all-reduce of one rank: in a call of its own, and in the same pass. */
#include "step_perf.h"
#include "perf.h"
#include "train/clock.h"

#include <stdlib.h>
#include <string.h>

stepPerf_t stepPerfMake(gsOptimizerKind_t kind, const char *recipe, size_t count, gsDataType_t type, int threads)
{
    stepPerf_t perf = {.count = count, .type = type, .optimizer = GS_OPTIMIZER_INIT};
    gsOptimizer_t *o = &perf.optimizer;
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    config.datatype = type;
    config.recipe = recipe;
    config.count = count;
    config.cpuThreads = threads;
    PERF_REQUIRE(gsCommInitAll(&perf.comm, 1, NULL));
    for (int i = 0; i < 2; i++)
        PERF_REQUIRE(gsReducerCreate(&perf.reducers[i], perf.comm, &config));
    o->kind = kind;
    o->datatype = type;
    o->step = 1;
    void **vectors[] = {&perf.sum, &o->params, &o->m, &o->v, &o->vmax};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        *vectors[i] = memset(perfAllocate(count * perfTypeBytes(type)), 0, count * perfTypeBytes(type));
    return perf;
}

double stepPerfApart(stepPerf_t *perf, const void *gradient)
{
    double start = clockSeconds();
    PERF_REQUIRE(gsAllReduce(gradient, perf->sum, perf->count, perf->type, GS_SUM, perf->reducers[0], NULL));
    PERF_REQUIRE(gsOptimizerStep(perf->comm, &perf->optimizer, perf->sum, perf->count, NULL));
    return clockSeconds() - start;
}

double stepPerfFused(stepPerf_t *perf, const void *gradient)
{
    double start = clockSeconds();
    PERF_REQUIRE(gsAllReduceStep(gradient, perf->count, perf->type, GS_SUM, &perf->optimizer, perf->reducers[1], NULL));
    return clockSeconds() - start;
}

void stepPerfFree(stepPerf_t *perf)
{
    gsOptimizer_t *o = &perf->optimizer;
    void *vectors[] = {perf->sum, o->params, o->m, o->v, o->vmax};
    for (int i = 0; i < 2; i++)
        PERF_REQUIRE(gsReducerDestroy(perf->reducers[i]));
    PERF_REQUIRE(gsCommDestroy(perf->comm));
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        free(vectors[i]);
}
