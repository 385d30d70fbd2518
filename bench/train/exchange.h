/* exchange.h: a gradient's way to its average over the ranks: in one piece, or in one for each layer, then or already during the
 * backward pass. */
#ifndef TRAIN_EXCHANGE_H
#define TRAIN_EXCHANGE_H

#include "model.h"
#include "ranks.h"

/* When a piece of the gradient travels. */
typedef enum {
    EXCHANGE_WHOLE, /* all of it at once */
    EXCHANGE_AFTER, /* one layer behind the other, once all are there */
    EXCHANGE_DURING /* each layer as soon as it is there, while the others are computed */
} exchangeWay_t;

/* What one rank holds. */
typedef struct {
    gsComm_t comm;
    gsDataType_t type;
    int partCount;
    part_t parts[MODEL_MAX_PARTS];
    gsReducer_t reducers[MODEL_MAX_PARTS]; /* one a part */
    gsStream_t stream;                     /* EXCHANGE_DURING: the worker that makes the calls; otherwise NULL */
    gsResult_t result;                     /* of the call that failed */
} exchange_t;

/* `config` as for one reducer of all parameters. False, with the library's text, where one is refused; free in either case. */
bool exchangeMake(exchange_t *exchange, const model_t *model, exchangeWay_t way, gsComm_t comm,
                  const gsReducerConfig_t *config);
void exchangeFree(exchange_t *exchange);

/* Where the iterate is: `params` as for one reducer of all parameters. */
bool exchangeSetParams(exchange_t *exchange, const gsParams_t *params);

/* The average of this part of `values`, in place; under EXCHANGE_DURING it is enqueued. */
bool exchangeSend(exchange_t *exchange, int part, void *values);

/* Waits for all that is on its way. */
bool exchangeFinish(exchange_t *exchange);

/* Sums over the reducers; calls are those of one. */
bool exchangeStats(exchange_t *exchange, gsStats_t *stats);

/* How often this rank has said nothing about the part. */
uint64_t exchangeSilent(const exchange_t *exchange, int part);

/* The library's text of what failed. */
bool exchangeFailed(exchange_t *exchange, gsResult_t result, const char *what);

#endif
