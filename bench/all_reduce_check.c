/* all_reduce_check.c: holds results against each rank's gradient and against double-precision sums. */
#include "all_reduce_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 3, BLOCK = 4096, SAMPLES_FOR_A_MEAN = 100 };

/* How far a value may be from what it stands for: bfloat16 on the wire, and again in the result. */
static const double rounding = 0x1p-7;

/* What is expected of one step, kept by one rank of each process. */
typedef struct {
    double *sum;      /* of what the ranks let through */
    float *magnitude; /* sum of absolute values: what rounding is relative to */
} expected_t;

static gsStats_t statsOf(const checkJob_t *job)
{
    gsStats_t stats;
    PERF_REQUIRE(gsReducerGetStats(job->reducer, &stats));
    return stats;
}

static void callOnce(const checkJob_t *job, const void *send, gsRedOp_t op)
{
    PERF_REQUIRE(gsAllReduce(send, job->result, job->count, job->type, op, job->reducer, NULL));
}

static void addTo(expected_t *expected, const void *data, size_t count, gsDataType_t type)
{
    for (size_t i = 0; i < count; i++) {
        float x = perfElement(data, i, type);
        expected->sum[i] += x;
        expected->magnitude[i] += fabsf(x);
    }
}

/* ---- alone ---- */

/* One block of a record with feedback; e becomes the residual. */
static uint64_t wrongInFeedbackBlock(const checkJob_t *job, size_t from, size_t to, float *e, bool full)
{
    uint64_t wrong = 0;
    float smallestSent = INFINITY;
    for (size_t i = from; i < to; i++) {
        float a = perfElement(job->gradient, i, job->type) + e[i];
        float sent = perfElement(job->result, i, job->type);
        e[i] = a - sent;
        if (sent == 0.0f)
            continue;
        smallestSent = fminf(smallestSent, fabsf(a));
        wrong += !(fabsf(e[i]) <= rounding * fabsf(a));
    }
    for (size_t i = from; i < to && !full; i++)
        wrong += perfElement(job->result, i, job->type) == 0.0f && fabsf(e[i]) * (1.0 - rounding) > smallestSent;
    return wrong;
}

static uint64_t wrongInFeedbackTensor(const checkJob_t *job, size_t from, size_t end, float *e, bool full)
{
    uint64_t wrong = 0;
    for (; from < end; from += BLOCK)
        wrong += wrongInFeedbackBlock(job, from, from + BLOCK < end ? from + BLOCK : end, e, full);
    return wrong;
}

static uint64_t wrongWithFeedback(const checkJob_t *job, float *e, bool full)
{
    uint64_t wrong = 0;
    size_t from = 0;
    if (!job->list)
        return wrongInFeedbackTensor(job, 0, job->count, e, full);
    for (uint32_t t = 0; t < job->list->tensors; from += job->list->sizes[t++])
        wrong += wrongInFeedbackTensor(job, from, from + job->list->sizes[t], e, full);
    return wrong;
}

static uint64_t wrongUnbiased(const checkJob_t *job)
{
    uint64_t wrong = 0, sent = 0;
    double excess = 0.0, variance = 0.0;
    for (size_t i = 0; i < job->count; i++) {
        double g = perfElement(job->gradient, i, job->type), value = perfElement(job->result, i, job->type);
        excess -= fabs(g);
        if (value == 0.0)
            continue;
        double p = fmin(g / value, 1.0);
        sent++;
        excess += fabs(value);
        variance += value * value * (1.0 - p + 0x1p-16);
        wrong += !(g / value > 0.0 && fabs(value) >= fabs(g) * (1.0 - rounding));
    }
    if (sent >= SAMPLES_FOR_A_MEAN && fabs(excess) > 8.0 * sqrt(variance))
        return sent;
    return wrong;
}

/* What came out must be as many coordinates as the record says it holds; of those, zeros cannot be told from absent. */
static uint64_t miscounted(const checkJob_t *job)
{
    uint64_t sent = statsOf(job).lastSent, came = 0, zeros = 0;
    for (size_t i = 0; i < job->count; i++) {
        came += perfElement(job->result, i, job->type) != 0.0f;
        zeros += perfElement(job->gradient, i, job->type) == 0.0f;
    }
    if (came > sent)
        return came - sent;
    return came + zeros < sent ? sent - came : 0;
}

static uint64_t wrongAlone(const checkJob_t *job, bool feedback, float *e, uint64_t overflowedBefore)
{
    bool full = statsOf(job).overflowed > overflowedBefore;
    return miscounted(job) + (feedback ? wrongWithFeedback(job, e, full) : wrongUnbiased(job));
}

/* Steps with one rank's gradient alone; that rank returns what is wrong with its record. */
static uint64_t runAlone(const checkJob_t *job, int loner, bool feedback, expected_t *expected)
{
    bool mine = job->rank->number == loner;
    size_t bytes = job->count * perfTypeBytes(job->type);
    void *zeros = mine ? NULL : memset(perfAllocate(bytes), 0, bytes);
    float *e = mine && feedback ? memset(perfAllocate(job->count * sizeof *e), 0, job->count * sizeof *e) : NULL;
    uint64_t wrong = 0;
    PERF_REQUIRE(gsReducerReset(job->reducer, NULL));
    for (int step = 0; step < STEPS; step++) {
        uint64_t overflowed = statsOf(job).overflowed;
        callOnce(job, mine ? job->gradient : zeros, GS_SUM);
        if (mine)
            wrong += wrongAlone(job, feedback, e, overflowed);
        if (expected)
            addTo(&expected[step], job->result, job->count, job->type);
    }
    free(zeros);
    free(e);
    return wrong;
}

/* ---- together ---- */

static uint64_t hashOf(const void *data, size_t bytes)
{
    const unsigned char *at = data;
    uint64_t hash = 0xcbf29ce484222325u, word = 0;
    for (; bytes >= sizeof word; bytes -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    }
    word = 0;
    memcpy(&word, at, bytes);
    return (hash ^ word) * 0x9E3779B97F4A7C15u;
}

/* Elements of one piece of the result that are not the same bits on all ranks. */
static uint64_t differingInPiece(const checkJob_t *job, const void *piece, size_t bytes)
{
    size_t width = perfTypeBytes(job->type);
    const char *all = ranksShare(job->rank, piece, bytes);
    uint64_t differing = 0;
    for (size_t at = 0; at < bytes; at += width) {
        int r = 1;
        while (r < job->rank->ranks->count && memcmp(all + at, all + (size_t)r * bytes + at, width) == 0)
            r++;
        differing += r < job->rank->ranks->count;
    }
    return differing;
}

/* Only where the hashes differ are the results compared piece by piece. */
static uint64_t differingBetweenRanks(const checkJob_t *job)
{
    size_t bytes = job->count * perfTypeBytes(job->type);
    const char *data = job->result;
    uint64_t hash = hashOf(data, bytes), differing = 0;
    const uint64_t *all = ranksShare(job->rank, &hash, sizeof hash);
    bool same = true;
    for (int r = 1; r < job->rank->ranks->count; r++)
        same = same && all[r] == all[0];
    for (size_t at = 0; at < bytes && !same; at += RANKS_SHARE_BYTES)
        differing += differingInPiece(job, data + at, bytes - at < RANKS_SHARE_BYTES ? bytes - at : RANKS_SHARE_BYTES);
    return differing;
}

static double shareOf(const checkJob_t *job)
{
    return job->op == GS_AVG ? 1.0 / job->rank->ranks->count : 1.0;
}

static uint64_t wrongAgainst(const checkJob_t *job, const expected_t *expected)
{
    double slack = job->type == GS_BFLOAT16  ? 0x1.02p-7
                   : job->type == GS_FLOAT16 ? 0x1.02p-10
                                             : (job->rank->ranks->count + 1) * 0x1p-24;
    double share = shareOf(job);
    uint64_t wrong = 0;
    for (size_t i = 0; i < job->count; i++) {
        double off = perfElement(job->result, i, job->type) - share * expected->sum[i];
        wrong += !(fabs(off) <= slack * share * expected->magnitude[i]);
    }
    return wrong;
}

static double relativeError(const checkJob_t *job, const expected_t *dense)
{
    double off = 0.0, all = 0.0, share = shareOf(job);
    for (size_t i = 0; i < job->count; i++) {
        double sum = share * dense->sum[i];
        double difference = perfElement(job->result, i, job->type) - sum;
        off += difference * difference;
        all += sum * sum;
    }
    return all > 0.0 ? sqrt(off / all) : 0.0;
}

/* Steps with all gradients. expected: a step each, or NULL on ranks that do not compare. */
static uint64_t runTogether(const checkJob_t *job, bool inPlace, const expected_t *expected, const expected_t *dense,
                            double *error)
{
    size_t bytes = job->count * perfTypeBytes(job->type);
    uint64_t wrong = 0;
    PERF_REQUIRE(gsReducerReset(job->reducer, NULL));
    for (int step = 0; step < STEPS; step++) {
        if (inPlace)
            memcpy(job->result, job->gradient, bytes);
        callOnce(job, inPlace ? job->result : job->gradient, job->op);
        wrong += differingBetweenRanks(job);
        if (expected)
            wrong += wrongAgainst(job, &expected[step]);
        if (dense && step == 0)
            *error = relativeError(job, dense);
    }
    return wrong;
}

/* ---- both ---- */

static expected_t expectedMake(size_t count)
{
    expected_t expected = {perfAllocate(count * sizeof(double)), perfAllocate(count * sizeof(float))};
    memset(expected.sum, 0, count * sizeof(double));
    memset(expected.magnitude, 0, count * sizeof(float));
    return expected;
}

static void expectedFree(expected_t *expected)
{
    free(expected->sum);
    free(expected->magnitude);
}

/* The gradients of all ranks, made anew. */
static expected_t denseSum(const checkJob_t *job)
{
    expected_t dense = expectedMake(job->count);
    void *gradient = perfAllocate(job->count * perfTypeBytes(job->type));
    for (int r = 0; r < job->rank->ranks->count; r++) {
        perfGradient(gradient, job->count, job->type, r);
        addTo(&dense, gradient, job->count, job->type);
    }
    free(gradient);
    return dense;
}

/* leads: this rank compares for its process. */
static checkResult_t checkWith(const checkJob_t *job, perfKind_t kind, bool leads)
{
    checkResult_t result = {0};
    expected_t dense = {0}, expected[STEPS] = {{0}};
    bool sparse = kind.sparse, compares = leads && kind.plain;
    if (leads)
        dense = denseSum(job);
    for (int step = 0; step < STEPS && compares; step++)
        expected[step] = sparse ? expectedMake(job->count) : dense;
    for (int r = 0; r < job->rank->ranks->count && sparse && kind.plain; r++)
        result.alone += runAlone(job, r, kind.feedback, leads ? expected : NULL);
    for (int inPlace = 0; inPlace < 2; inPlace++)
        result.together[inPlace] = runTogether(job, inPlace, compares ? expected : NULL,
                                               leads && !inPlace ? &dense : NULL, &result.relativeError);
    for (int step = 0; step < STEPS && compares && sparse; step++)
        expectedFree(&expected[step]);
    expectedFree(&dense);
    return result;
}

checkResult_t checkRow(const checkJob_t *job)
{
    perfKind_t kind = perfKindOf(job->recipe, job->count, job->type, job->rank->ranks->count);
    return checkWith(job, kind, rankLeads(job->rank));
}
