/*
 * The halves of an all-reduce, for optimizers whose state is sharded. The call's vector is as many slices of equal size as ranks, and every
 * slice begins a block of its own, as a list's tensors do. gsReduceScatter goes by way of the owners, and half of it (owner.c).
 * gsAllGather sends every rank a record of each slice; all decode it, its sender too, and so have the same bits.
 */
#include "core.h"
#include "stage.h"

/* ---- configurations ---- */

static const char *nameOf(uint32_t half)
{
    return half == GS_HALF_GATHER ? "gsAllGather" : half == GS_HALF_SCATTER ? "gsReduceScatter" : "gsAllReduce";
}

gsReducerConfig_t gsHalfTensors(const gsReducerConfig_t *config, int nranks)
{
    gsReducerConfig_t tensors = *config;
    if (config->collective == GS_ALL_REDUCE)
        return tensors;
    tensors.segments = NULL; /* of equal size */
    tensors.segmentCount = (uint32_t)nranks;
    tensors.wholeBelow = 1;
    return tensors;
}

gsReducerConfig_t gsHalfOwn(const gsReducerConfig_t *config, int nranks, int dense)
{
    gsReducerConfig_t own = gsHalfTensors(config, nranks);
    if (config->collective == GS_ALL_REDUCE)
        return own;
    if (config->collective == GS_ALL_GATHER) {
        own.count /= (uint64_t)nranks;
        own.segmentCount = 1;
    }
    if (dense) /* slices are copied and summed as they lie */
        own.segmentCount = 0;
    return own;
}

gsResult_t gsHalfCheck(const gsReducerConfig_t *config, int nranks)
{
    if (config->collective < GS_ALL_REDUCE || config->collective > GS_ALL_GATHER)
        return gsFail(
            GS_ERROR_INVALID_ARGUMENT,
            "config->collective is %d; expected GS_ALL_REDUCE (0), GS_REDUCE_SCATTER (1) or GS_ALL_GATHER (2)",
            config->collective);
    if (config->collective == GS_ALL_REDUCE)
        return GS_SUCCESS;
    if (config->segments)
        return gsFail(GS_ERROR_UNSUPPORTED,
                      "config->segments has %u tensors; %s cuts a vector into slices of the ranks, expected NULL",
                      config->segmentCount, nameOf((uint32_t)config->collective));
    if (nranks > GS_RECORD_MAX_TENSORS)
        return gsFail(GS_ERROR_UNSUPPORTED, "%d ranks; %s takes at most %d", nranks,
                      nameOf((uint32_t)config->collective), GS_RECORD_MAX_TENSORS);
    uint64_t slice = config->count / (uint64_t)nranks, blocks = (slice + GS_BLOCK - 1) / GS_BLOCK;
    if (config->count % (uint64_t)nranks)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "config->count is %llu; %s expected a multiple of %d, the ranks",
                      (unsigned long long)config->count, nameOf((uint32_t)config->collective), nranks);
    if (blocks > 0xfffffffeu / (uint64_t)nranks)
        return gsFail(GS_ERROR_INVALID_ARGUMENT,
                      "config->count is %llu; slices of %d ranks take more than 2^32 - 2 blocks of 4096",
                      (unsigned long long)config->count, nranks);
    return GS_SUCCESS;
}

gsResult_t gsHalfRefuse(const gsReducerConfig_t *config, const char *what)
{
    if (config->collective == GS_ALL_REDUCE)
        return GS_SUCCESS;
    return gsFail(GS_ERROR_UNSUPPORTED, "config->collective is %d; %s, expected GS_ALL_REDUCE (0)", config->collective,
                  what);
}

/* What neither half has. */
static const char *refusalOfBoth(const gsSpec *s)
{
    if (s->exchange == GS_EXCHANGE_HIERARCHICAL)
        return "a node's ranks would have to share slices; expected exchange=capacity or exact";
    if (s->exchange == GS_EXCHANGE_AUTO)
        return "the cost model knows all-reduces alone; expected exchange=capacity or exact";
    if (s->twoway)
        return "the other direction is the other half's, with a reducer and a recipe of its own; expected no second "
               "half";
    if (s->trigger)
        return "whether a rank is silent depends on whole results, of which it has a slice";
    if (s->select == GS_SELECT_STEP)
        return "it looks at whole iterates, of which a rank has a slice";
    if (s->select == GS_SELECT_ROWS)
        return "rows are those of one matrix, which slices would cut";
    if (s->firstDense)
        return "no step travels dense; expected first=zero";
    return NULL;
}

static const char *refusalOf(const gsSpec *s)
{
    const char *both = refusalOfBoth(s);
    if (both)
        return both;
    if (s->half == GS_HALF_SCATTER)
        return s->pool
                   ? "references are earlier results, of which a rank has a slice; ef21 and diana compare with what "
                     "each rank remembers itself"
                   : NULL;
    if (s->pool)
        return "a rank's slice is not what ranks' gradients have in common; ef21 and diana compare with what is known "
               "of it";
    if (s->momentum > 0.0 || s->clip > 0.0)
        return "momentum correction and clipping are for gradients";
    return s->layout == GS_LAYOUT_MASK ? "of others' slices a rank draws no mask; expected uniform for randk" : NULL;
}

gsResult_t gsHalfSettle(const gsReducerConfig_t *config, gsSpec *s)
{
    const char *reason = s->half ? refusalOf(s) : NULL;
    if (reason)
        return gsFail(GS_ERROR_UNSUPPORTED, "recipe \"%s\" with %s: %s", config->recipe, nameOf(s->half), reason);
    int exact = gsSpecIsExact(s);
    if (s->half == GS_HALF_SCATTER)
        s->exchange = exact ? GS_EXCHANGE_OWNER_EXACT : GS_EXCHANGE_OWNER;
    if (s->half == GS_HALF_GATHER)
        s->exchange = exact ? GS_EXCHANGE_EXACT : GS_EXCHANGE_CAPACITY;
    return GS_SUCCESS;
}

gsResult_t gsHalfExpect(gsReducer_t r, uint32_t half)
{
    GS_CHECK(gsCheckReducer(r));
    if (r->spec.half == half)
        return GS_SUCCESS;
    return gsFail(GS_ERROR_INVALID_USAGE, "the reducer was made for %s (gsReducerConfig_t.collective), and not for %s",
                  nameOf(r->spec.half), nameOf(half));
}

/* ---- memory ---- */

gsResult_t gsHalfFill(gsReducer_t r)
{
    int32_t numbers[r->spec.nranks];
    if (!r->members)
        return GS_SUCCESS;
    for (uint32_t q = 0; q < r->spec.nranks; q++)
        numbers[q] = (int32_t)q;
    return r->comm->backend->put(r->members, numbers, sizeof numbers, NULL);
}

/* Where a dense half has its sums: behind the slices that they are made of, or in their place. */
static uint8_t *sumsOf(gsReducer_t r)
{
    int scatter = r->spec.half == GS_HALF_SCATTER;
    return r->recvRecords + (scatter ? r->spec.count * gsTypeWidth(r->spec.type) : 0);
}

/* ---- verdicts: of a call whose results stay with their owners ---- */

_Static_assert(GS_SEAL_BYTES == GS_SEALS * sizeof(gsSeal), "the header says what a rank's seals take");

gsResult_t gsHalfSeal(gsReducer_t r, gsReducer_t finder, gsSeal *seal, gsStream_t stream)
{
    return r->comm->backend->seal(finder, r->members, seal, stream);
}

gsResult_t gsHalfTradeSeals(gsReducer_t r, gsStream_t stream)
{
    return r->comm->transport->allGather(r->comm, gsHalfOwnSeal(r), r->seals, GS_SEAL_BYTES, stream);
}

gsResult_t gsHalfOpen(gsReducer_t r, const void *seals, gsStream_t stream)
{
    gsHierarchy slots = {.ranks = r->comm->nranks, .slots = (uint8_t *)seals, .slotBytes = GS_SEAL_BYTES};
    return r->comm->backend->openSeals(r, &slots, 0, stream);
}

uint64_t gsHalfSealBytes(const gsReducer_t r)
{
    return r->seals ? (r->spec.nranks - 1) * (uint64_t)GS_SEAL_BYTES : 0;
}

/* ---- dense ---- */

/* The reducer, as it sees a vector of so many elements in one buffer. */
static struct gsReducer vectorOf(gsReducer_t r, uint64_t count)
{
    struct gsReducer vector = *r;
    vector.spec.count = count;
    vector.spec.blocks = (uint32_t)((count + GS_BLOCK - 1) / GS_BLOCK);
    return vector;
}

static gsResult_t sumOwnSlice(gsReducer_t r, const void *sendbuff, gsRedOp_t op, gsStream_t stream)
{
    const gsTransport *transport = r->comm->transport;
    gsDataType_t type = (gsDataType_t)r->spec.type;
    uint64_t slice = gsSliceCount(&r->spec), bytes = slice * gsTypeBytes(type);
    if (transport->reduceScatter)
        return transport->reduceScatter(r->comm, sendbuff, sumsOf(r), slice, type, op, stream);
    GS_CHECK(transport->scatterSlices(r->comm, sendbuff, r->spec.nranks * bytes, r->recvRecords, bytes, stream));
    return r->comm->backend->sumSlices(r, type, r->recvRecords, r->spec.nranks, slice, sumsOf(r), slice, op, stream);
}

/* The finished slice waits in the first of those it was made of until all agree. */
static gsResult_t scatterDense(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    const gsBackend *backend = r->comm->backend;
    struct gsReducer own = vectorOf(r, gsSliceCount(&r->spec));
    gsHierarchy slot = {
        .ranks = 1, .count = own.spec.count, .slice = (uint64_t)own.spec.blocks * GS_BLOCK, .slots = r->recvRecords};
    GS_CHECK(sumOwnSlice(r, sendbuff, op, stream));
    GS_CHECK(backend->finishDense(&own, sumsOf(r), slot.slots, stream));
    GS_CHECK(gsHalfSeal(r, r, gsHalfOwnSeal(r), stream));
    GS_CHECK(gsHalfTradeSeals(r, stream));
    GS_CHECK(gsHalfOpen(r, r->seals, stream));
    return backend->assemble(&own, &slot, recvbuff, stream);
}

static gsResult_t gatherDense(gsReducer_t r, const void *sendbuff, void *recvbuff, gsStream_t stream)
{
    struct gsReducer all = vectorOf(r, r->spec.count * r->spec.nranks);
    size_t bytes = r->spec.count * gsTypeBytes((gsDataType_t)r->spec.type);
    GS_CHECK(r->comm->transport->allGather(r->comm, sendbuff, sumsOf(r), bytes, stream));
    GS_CHECK(gsAwaitAll(r, stream));
    return r->comm->backend->finishDense(&all, sumsOf(r), recvbuff, stream);
}

gsResult_t gsHalfDense(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    gsStage stage = gsStageBegin(r, GS_RANGE_EXCHANGE, &r->stats.exchangeSeconds);
    gsResult_t result = r->spec.half == GS_HALF_SCATTER ? scatterDense(r, sendbuff, recvbuff, op, stream)
                                                        : gatherDense(r, sendbuff, recvbuff, stream);
    gsStageEnd(&stage);
    return result;
}

/* ---- records of all slices ---- */

struct gsReducer gsHalfGathered(gsReducer_t r)
{
    struct gsReducer all = *r;
    all.spec.count *= r->spec.nranks;
    all.spec.blocks *= r->spec.nranks;
    all.spec.parts = r->spec.nranks;
    return all;
}
