/* exchange.c: the reducers of a gradient, and the calls that send it. */
#include "exchange.h"

#include "failure.h"

bool exchangeFailed(exchange_t *exchange, gsResult_t result, const char *what)
{
    int rank = 0;
    gsCommUserRank(exchange->comm, &rank);
    exchange->result = result;
    return fail("rank %d: %s: %s", rank, what, gsGetLastError());
}

static bool makeReducers(exchange_t *exchange, gsReducerConfig_t config)
{
    for (int p = 0; p < exchange->partCount; p++) {
        config.count = exchange->parts[p].count;
        gsResult_t made = gsReducerCreate(&exchange->reducers[p], exchange->comm, &config);
        if (made != GS_SUCCESS)
            return exchangeFailed(exchange, made, "gsReducerCreate");
    }
    return true;
}

bool exchangeMake(exchange_t *exchange, const model_t *model, exchangeWay_t way, gsComm_t comm,
                  const gsReducerConfig_t *config)
{
    *exchange = (exchange_t){.comm = comm, .type = config->datatype, .partCount = 1, .parts = {{0, model->parameters}}};
    for (int p = 0; p < model->partCount && way != EXCHANGE_WHOLE; p++)
        exchange->parts[p] = model->parts[p];
    if (way != EXCHANGE_WHOLE)
        exchange->partCount = model->partCount;
    gsResult_t made = way == EXCHANGE_DURING ? gsStreamCreate(&exchange->stream) : GS_SUCCESS;
    if (made != GS_SUCCESS)
        return exchangeFailed(exchange, made, "gsStreamCreate");
    return makeReducers(exchange, *config);
}

void exchangeFree(exchange_t *exchange)
{
    gsStreamDestroy(exchange->stream);
    for (int p = 0; p < exchange->partCount; p++)
        gsReducerDestroy(exchange->reducers[p]);
}

static void *elementAt(const void *vector, size_t index, gsDataType_t type)
{
    size_t width = type == GS_FLOAT64 ? 8 : type == GS_FLOAT32 ? 4 : 2;
    return vector ? (char *)vector + index * width : NULL;
}

bool exchangeSetParams(exchange_t *exchange, const gsParams_t *params)
{
    for (int p = 0; p < exchange->partCount; p++) {
        gsParams_t part = *params;
        part.params = elementAt(params->params, exchange->parts[p].first, params->datatype);
        part.stale = elementAt(params->stale, exchange->parts[p].first, exchange->type);
        gsResult_t set = gsReducerSetParams(exchange->reducers[p], &part);
        if (set != GS_SUCCESS)
            return exchangeFailed(exchange, set, "gsReducerSetParams");
    }
    return true;
}

bool exchangeSend(exchange_t *exchange, int part, void *values)
{
    void *own = elementAt(values, exchange->parts[part].first, exchange->type);
    gsResult_t result = gsAllReduce(own, own, exchange->parts[part].count, exchange->type, GS_AVG,
                                    exchange->reducers[part], exchange->stream);
    return result == GS_SUCCESS || exchangeFailed(exchange, result, "gsAllReduce");
}

bool exchangeFinish(exchange_t *exchange)
{
    gsResult_t result = gsCommSynchronize(exchange->comm, exchange->stream);
    if (result != GS_SUCCESS)
        return exchangeFailed(exchange, result, "gsAllReduce");
    for (int p = 0; p < exchange->partCount; p++) {
        gsReducerGetAsyncError(exchange->reducers[p], &result);
        if (result != GS_SUCCESS)
            return fail("gsAllReduce: %s", gsGetErrorString(exchange->result = result));
    }
    return true;
}

bool exchangeStats(exchange_t *exchange, gsStats_t *sum)
{
    gsStats_t stats;
    *sum = (gsStats_t){0};
    for (int p = 0; p < exchange->partCount; p++) {
        gsResult_t result = gsReducerGetStats(exchange->reducers[p], &stats);
        if (result != GS_SUCCESS)
            return exchangeFailed(exchange, result, "gsReducerGetStats");
        sum->calls = stats.calls;
        sum->skipped += stats.skipped;
        sum->sentTotal += stats.sentTotal;
        sum->payloadBytes += stats.payloadBytes;
        sum->wireBytes += stats.wireBytes;
        sum->encodeSeconds += stats.encodeSeconds;
        sum->exchangeSeconds += stats.exchangeSeconds;
        sum->decodeSeconds += stats.decodeSeconds;
    }
    return true;
}

uint64_t exchangeSilent(const exchange_t *exchange, int part)
{
    gsStats_t stats = {0};
    gsReducerGetStats(exchange->reducers[part], &stats);
    return stats.skipped;
}
