/*
 * The road by way of the owners: block b belongs to rank b mod ranks. Every rank packs a record of each owner's blocks; an owner sums what
 * it is sent, in rank order, and makes one record of its sum: lossless, or compressed once more where the recipe is two-way; all ranks
 * gather these, and find every block in its owner's.
 *
 * What comes up at an owner, a damaged record or ranks that disagree, is in its record, so that a call fails for all ranks or for none;
 * nothing is committed before.
 *
 * A scattered sum ends half way: every owner keeps what it has summed, once seals have told all that nobody has met an error.
 */
#include "core.h"
#include "stage.h"

#include <stdlib.h>

/* The reducer, seen with other specs. They share its memory. */
struct gsOwners {
    struct gsReducer own;     /* the own blocks' records, to be summed side by side */
    struct gsReducer sums;    /* the second reducer, as all owners' records are decoded */
    struct gsReducer parts[]; /* a part of the own record each */
};

/* A pipeline's bare compressor: what is decoded is all there is, and is a vector. */
static gsSpec bareSpec(const gsSpec *s)
{
    gsSpec bare = *s;
    bare.memory = bare.feedback = bare.quotient = 0;
    bare.pool = bare.search = 0;
    bare.list = NULL;
    bare.type = s->wide ? GS_FLOAT64 : GS_FLOAT32;
    return bare;
}

static struct gsReducer partOf(gsReducer_t r, uint32_t q)
{
    struct gsReducer part = *r;
    part.spec = gsPartSpec(&r->spec, q);
    part.state = r->partState + q;
    part.blockOffset = r->partOffset + (uint64_t)gsRecordGroups(r->spec.value) * (gsPartStart(&r->spec, q) + q);
    return part;
}

gsResult_t gsOwnersPrepare(gsReducer_t r)
{
    uint32_t ranks = r->spec.nranks, remembers = gsSpecRemembers(&r->spec) && !r->spec.twoway;
    struct gsOwners *owners = calloc(1, sizeof *owners + ranks * sizeof *owners->parts);
    if (!owners)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory for the parts of %u ranks", ranks);
    for (uint32_t q = 0; q < ranks; q++)
        owners->parts[q] = partOf(r, q);
    owners->own = owners->parts[r->spec.rank];
    r->owners = owners;
    if (!r->server)
        return GS_SUCCESS;
    owners->sums = *r->server;
    owners->sums.spec = gsSpecOfSums(&r->spec, &r->server->spec, remembers ? gsRealType(&r->spec) : r->spec.type);
    return GS_SUCCESS;
}

/* ---- gradient -> parts of the record -> their owners ---- */

static gsResult_t packParts(gsReducer_t r, const void *sendbuff, uint8_t *parts, gsStream_t stream)
{
    for (uint32_t q = 0; q < r->spec.nranks; q++) {
        gsReducer_t part = &r->owners->parts[q];
        part->spec.average = r->spec.average;
        GS_CHECK(r->comm->backend->pack(part, sendbuff, parts + q * r->spec.partSlot, stream));
    }
    return GS_SUCCESS;
}

static gsResult_t encodeParts(gsReducer_t r, const void *sendbuff, uint8_t *parts, gsStream_t stream)
{
    gsStage stage = gsStageBegin(r, GS_RANGE_SELECT, &r->stats.encodeSeconds);
    gsResult_t result = r->comm->backend->select(r, sendbuff, stream);
    if (result == GS_SUCCESS)
        result = r->comm->backend->planParts(r, stream);
    gsStageEnd(&stage);
    GS_CHECK(result);
    gsKnowPlan(r);
    stage = gsStageBegin(r, GS_RANGE_PACK, &r->stats.encodeSeconds);
    result = packParts(r, sendbuff, parts, stream);
    gsStageEnd(&stage);
    return result;
}

/* ---- parts -> the own blocks' sum -> its record ---- */

static gsResult_t sumParts(gsReducer_t r, const void *parts, gsStream_t stream)
{
    const gsBackend *backend = r->comm->backend;
    gsReducer_t own = &r->owners->own;
    own->spec.average = r->spec.average;
    GS_CHECK(backend->validate(own, parts, stream));
    struct gsReducer bare = *own;
    bare.spec = bareSpec(&own->spec);
    return backend->accumulate(&bare, parts, r->ownSum, GS_SUM, stream);
}

static gsResult_t makeSum(gsReducer_t r, gsRedOp_t op, gsStream_t stream)
{
    const gsBackend *backend = r->comm->backend;
    GS_CHECK(sumParts(r, r->recvRecords, stream));
    GS_CHECK(backend->handDown(r, stream));
    return r->spec.twoway ? backend->makeResult(r, op, stream) : GS_SUCCESS;
}

static gsResult_t encodeSum(gsReducer_t r, gsRedOp_t op, gsStream_t stream)
{
    const gsBackend *backend = r->comm->backend;
    const void *sum = r->spec.twoway ? r->ownResult : r->ownSum;
    gsReducer_t server = r->server;
    gsStage stage = gsStageBegin(r, GS_RANGE_OWNER, &r->stats.encodeSeconds);
    gsResult_t result = makeSum(r, op, stream);
    server->spec.average = r->spec.average;
    if (result == GS_SUCCESS)
        result = backend->select(server, sum, stream);
    if (result == GS_SUCCESS)
        result = backend->pack(server, sum, server->sendRecord, stream);
    gsStageEnd(&stage);
    gsKnowPlan(server);
    return result;
}

/* ---- all owners' records -> result and memories ---- */

/* Own parts, decoded where h is to take its share of them. */
static gsResult_t decodeOwn(gsReducer_t r, gsStream_t stream)
{
    for (uint32_t q = 0; q < r->spec.nranks && r->spec.memory; q++) {
        struct gsReducer part = r->owners->parts[q];
        part.spec = bareSpec(&part.spec);
        part.spec.nranks = 1; /* the record that stands there */
        part.spec.spread = 1;
        GS_CHECK(r->comm->backend->accumulate(&part, r->sendRecord + q * r->spec.partSlot, r->work, GS_SUM, stream));
    }
    return GS_SUCCESS;
}

/* The sums are a vector like that of a dense step, and are remembered like one. */
static gsResult_t rememberSums(gsReducer_t r, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    const gsBackend *backend = r->comm->backend;
    GS_CHECK(backend->accumulate(&r->owners->sums, r->server->recvRecords, r->sum, GS_SUM, stream));
    GS_CHECK(backend->handBack(r, stream));
    GS_CHECK(decodeOwn(r, stream));
    return backend->accumulateDense(r, r->sum, recvbuff, op, stream);
}

static gsResult_t useSums(gsReducer_t r, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    const gsBackend *backend = r->comm->backend;
    GS_CHECK(
        backend->accumulate(&r->owners->sums, r->server->recvRecords, recvbuff, r->spec.twoway ? GS_SUM : op, stream));
    GS_CHECK(backend->handBack(r, stream));
    GS_CHECK(decodeOwn(r, stream));
    return r->spec.memory ? backend->rememberParts(r, stream) : GS_SUCCESS;
}

static gsResult_t decodeSums(gsReducer_t r, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    const gsBackend *backend = r->comm->backend;
    gsStage stage = gsStageBegin(r, GS_RANGE_ACCUMULATE, &r->stats.decodeSeconds);
    r->owners->sums.spec.average = r->spec.average;
    r->owners->sums.optimizer = r->optimizer;
    gsResult_t result = backend->validate(&r->owners->sums, r->server->recvRecords, stream);
    if (result == GS_SUCCESS && gsSpecRemembers(&r->spec) && !r->spec.twoway)
        result = rememberSums(r, recvbuff, op, stream);
    else if (result == GS_SUCCESS)
        result = useSums(r, recvbuff, op, stream);
    gsStageEnd(&stage);
    return result;
}

gsResult_t gsReduceByOwners(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    GS_CHECK(encodeParts(r, sendbuff, r->sendRecord, stream));
    GS_CHECK(gsExchangeTimed(r, gsExchangeParts, r, stream));
    GS_CHECK(encodeSum(r, op, stream));
    GS_CHECK(gsExchangeTimed(r, gsExchangeRecords, r->server, stream));
    return decodeSums(r, recvbuff, op, stream);
}

/* ---- a scattered sum: the stages, and the road ---- */

/* h takes its share of own parts when the call is settled: where they are not packed in their own place, that keeps a copy. */
gsResult_t gsScatterEncode(gsReducer_t r, const void *sendbuff, void *parts, gsStream_t stream)
{
    GS_CHECK(encodeParts(r, sendbuff, parts, stream));
    if (!r->spec.memory || parts == r->sendRecord)
        return GS_SUCCESS;
    return r->comm->backend->copy(r->sendRecord, parts, r->spec.nranks * r->spec.partSlot, stream);
}

gsResult_t gsScatterSum(gsReducer_t r, const void *parts, gsSeal *seal, gsStream_t stream)
{
    gsStage stage = gsStageBegin(r, GS_RANGE_OWNER, &r->stats.decodeSeconds);
    gsResult_t result = sumParts(r, parts, stream);
    if (result == GS_SUCCESS)
        result = gsHalfSeal(r, &r->owners->own, seal, stream);
    gsStageEnd(&stage);
    return result;
}

/* The own sum goes to recvbuff; and the own record to h, where there is one. */
static gsResult_t keepOwn(gsReducer_t r, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    const gsBackend *backend = r->comm->backend;
    struct gsReducer own = r->owners->own;
    own.spec = bareSpec(&own.spec);
    own.spec.type = r->spec.type;
    own.state = r->state;
    GS_CHECK(backend->handBack(r, stream));
    if (!r->spec.memory)
        return backend->accumulateDense(&own, r->ownSum, recvbuff, op, stream);
    GS_CHECK(backend->makeResult(r, op, stream));
    GS_CHECK(backend->accumulateDense(&own, r->ownResult, recvbuff, GS_SUM, stream));
    GS_CHECK(decodeOwn(r, stream));
    return backend->rememberParts(r, stream);
}

gsResult_t gsScatterDecode(gsReducer_t r, const void *seals, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    gsStage stage = gsStageBegin(r, GS_RANGE_ACCUMULATE, &r->stats.decodeSeconds);
    gsResult_t result = gsHalfOpen(r, seals, stream);
    if (result == GS_SUCCESS)
        result = keepOwn(r, recvbuff, op, stream);
    gsStageEnd(&stage);
    return result;
}

gsResult_t gsScatterToOwners(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    GS_CHECK(gsScatterEncode(r, sendbuff, r->sendRecord, stream));
    GS_CHECK(gsExchangeTimed(r, gsExchangeParts, r, stream));
    GS_CHECK(gsScatterSum(r, r->recvRecords, gsHalfOwnSeal(r), stream));
    GS_CHECK(gsExchangeTimed(r, gsHalfTradeSeals, r, stream));
    return gsScatterDecode(r, r->seals, recvbuff, op, stream);
}
