/* half_check.c: holds a scattered sum against the all-reduce of the same recipe, and gathered slices against each other and what was given. */
#include "half_check.h"
#include "train/hash.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 3 };

const char *halfName(gsCollective_t collective)
{
    return collective == GS_REDUCE_SCATTER ? "reduce-scatter"
           : collective == GS_ALL_GATHER   ? "all-gather"
                                           : "all-reduce";
}

static size_t sliceBytes(const checkJob_t *job)
{
    return job->count / (size_t)job->rank->ranks->count * perfTypeBytes(job->type);
}

/* This rank's slice of a buffer of all of them. */
static void *ownSlice(const checkJob_t *job, const void *buffer)
{
    return (char *)(uintptr_t)buffer + (size_t)job->rank->number * sliceBytes(job);
}

void halfCall(const checkJob_t *job, bool inPlace)
{
    size_t slice = job->count / (size_t)job->rank->ranks->count;
    const void *from = inPlace ? job->result : job->gradient;
    if (job->collective == GS_ALL_GATHER)
        PERF_REQUIRE(gsAllGather(ownSlice(job, from), job->result, slice, job->type, job->reducer, NULL));
    else
        PERF_REQUIRE(gsReduceScatter(from, inPlace ? ownSlice(job, job->result) : job->result, slice, job->type,
                                     job->op, job->reducer, NULL));
}

static bool isDense(const checkJob_t *job)
{
    return strcmp(job->recipe, "dense") == 0;
}

/* The all-reduce whose blocks are those of the slices. */
static gsReducer_t wholeReducer(const checkJob_t *job)
{
    int ranks = job->rank->ranks->count;
    uint64_t sizes[ranks];
    perfList_t list = {.sizes = sizes, .tensors = (uint32_t)ranks};
    gsReducer_t whole;
    for (int r = 0; r < ranks; r++)
        sizes[r] = job->count / (size_t)ranks;
    gsReducerConfig_t config = perfConfig(job->recipe, job->count, isDense(job) ? NULL : &list, job->type);
    config.seed = 1;
    config.wholeBelow = isDense(job) ? 0 : 1;
    PERF_REQUIRE(gsReducerCreate(&whole, job->rank->comm, &config));
    return whole;
}

static uint64_t limitedIn(gsReducer_t reducer)
{
    gsStats_t stats;
    PERF_REQUIRE(gsReducerGetStats(reducer, &stats));
    return stats.thinned + stats.overflowed;
}

static uint64_t differing(const checkJob_t *job, const char *a, const char *b, size_t bytes)
{
    uint64_t wrong = 0;
    for (size_t at = 0, width = perfTypeBytes(job->type); at < bytes; at += width)
        wrong += memcmp(a + at, b + at, width) != 0;
    return wrong;
}

/* Whether any rank has a part's slot that was too small: from then on the sums are others. */
static bool anyLimited(const checkJob_t *job, uint64_t before, gsReducer_t whole)
{
    uint64_t own = limitedIn(job->reducer) - before + limitedIn(whole), all = 0;
    const uint64_t *shared = ranksShare(job->rank, &own, sizeof own);
    for (int r = 0; r < job->rank->ranks->count; r++)
        all += shared[r];
    return all != 0;
}

/* |result - sum| / |sum| in this rank's slice. */
static double scatterError(const checkJob_t *job)
{
    size_t slice = job->count / (size_t)job->rank->ranks->count, first = (size_t)job->rank->number * slice;
    double *sum = perfAllocate(slice * sizeof *sum), off = 0.0, all = 0.0;
    double share = job->op == GS_AVG ? 1.0 / job->rank->ranks->count : 1.0;
    void *gradient = perfAllocate(job->count * perfTypeBytes(job->type));
    memset(sum, 0, slice * sizeof *sum);
    for (int r = 0; r < job->rank->ranks->count; r++) {
        perfGradient(gradient, job->count, job->type, r);
        for (size_t i = 0; i < slice; i++)
            sum[i] += share * perfElement(gradient, first + i, job->type);
    }
    for (size_t i = 0; i < slice; i++) {
        double difference = perfElement(job->result, i, job->type) - sum[i];
        off += difference * difference;
        all += sum[i] * sum[i];
    }
    free(gradient);
    free(sum);
    return all > 0.0 ? sqrt(off / all) : 0.0;
}

static uint64_t wrongSums(const checkJob_t *job, bool inPlace, double *error)
{
    size_t bytes = job->count * perfTypeBytes(job->type);
    gsReducer_t whole = wholeReducer(job);
    void *sum = perfAllocate(bytes);
    uint64_t wrong = 0, before = limitedIn(job->reducer);
    for (int step = 0; step < STEPS; step++) {
        memcpy(job->result, job->gradient, bytes);
        halfCall(job, inPlace);
        PERF_REQUIRE(gsAllReduce(job->gradient, sum, job->count, job->type, job->op, whole, NULL));
        if (step == 0 && !inPlace)
            *error = scatterError(job);
        if (anyLimited(job, before, whole))
            break;
        wrong +=
            differing(job, inPlace ? ownSlice(job, job->result) : job->result, ownSlice(job, sum), sliceBytes(job));
    }
    free(sum);
    PERF_REQUIRE(gsReducerDestroy(whole));
    return wrong;
}

/* Not the same on all ranks: then all count. */
static uint64_t wrongBetweenRanks(const checkJob_t *job)
{
    uint64_t hash = hashBytes(job->result, job->count * perfTypeBytes(job->type));
    const uint64_t *all = ranksShare(job->rank, &hash, sizeof hash);
    for (int r = 1; r < job->rank->ranks->count; r++)
        if (all[r] != all[0])
            return job->count;
    return 0;
}

static void *allGiven(const checkJob_t *job)
{
    size_t slice = sliceBytes(job);
    char *gradient = perfAllocate(job->count * perfTypeBytes(job->type)),
         *given = perfAllocate(job->count * perfTypeBytes(job->type));
    for (int r = 0; r < job->rank->ranks->count; r++) {
        perfGradient(gradient, job->count, job->type, r);
        memcpy(given + (size_t)r * slice, gradient + (size_t)r * slice, slice);
    }
    free(gradient);
    return given;
}

static double distance(const checkJob_t *job, const void *given)
{
    double off = 0.0, all = 0.0;
    for (size_t i = 0; i < job->count; i++) {
        double x = perfElement(given, i, job->type), difference = perfElement(job->result, i, job->type) - x;
        off += difference * difference;
        all += x * x;
    }
    return all > 0.0 ? sqrt(off / all) : 0.0;
}

static uint64_t wrongSlices(const checkJob_t *job, bool inPlace, double *error)
{
    size_t bytes = job->count * perfTypeBytes(job->type);
    void *given = allGiven(job);
    uint64_t wrong = 0;
    for (int step = 0; step < STEPS; step++) {
        memcpy(job->result, job->gradient, bytes);
        halfCall(job, inPlace);
        wrong += wrongBetweenRanks(job);
        if (isDense(job))
            wrong += differing(job, job->result, given, bytes);
        if (step == 0)
            *error = distance(job, given);
    }
    free(given);
    return wrong;
}

checkResult_t halfCheck(const checkJob_t *job)
{
    checkResult_t result = {0};
    for (int inPlace = 0; inPlace < 2; inPlace++) {
        PERF_REQUIRE(gsReducerReset(job->reducer, NULL));
        result.together[inPlace] = job->collective == GS_ALL_GATHER ? wrongSlices(job, inPlace, &result.relativeError)
                                                                    : wrongSums(job, inPlace, &result.relativeError);
    }
    return result;
}
