/*
 * The exchange: own record to all ranks, in fixed slots (mode "capacity") or with its true length (mode "exact"); its parts to their
 * owners; and the dense sum, of gradients (mode "dense") or of what they are compared to, in steps that travel dense.
 */
#include "core.h"
#include "stage.h"

gsResult_t gsExchangeTimed(gsReducer_t r, gsResult_t (*way)(gsReducer_t, gsStream_t), gsReducer_t of, gsStream_t stream)
{
    gsStage stage = gsStageBegin(of, GS_RANGE_EXCHANGE, &r->stats.exchangeSeconds);
    gsResult_t result = way(of, stream);
    gsStageEnd(&stage);
    return result;
}

gsResult_t gsAwaitDevice(gsReducer_t r, gsStream_t stream)
{
    return r->comm->backend->onDevice ? r->comm->transport->synchronize(r->comm, stream) : GS_SUCCESS;
}

/* Which ranks speak is known behind the exchange alone: every record travels, a silent rank's is a header. */
static gsResult_t exchangeExact(gsReducer_t r, gsStream_t stream)
{
    const gsTransport *transport = r->comm->transport;
    gsRecordHeader header;
    GS_CHECK(gsAwaitDevice(r, stream));
    GS_CHECK(r->comm->backend->get(&header, r->sendRecord, sizeof header, stream));
    gsKnowRecord(r, header.recordBytes, header.kept, header.flags);
    GS_CHECK(transport->allGatherExact(r->comm, r->sendRecord, header.recordBytes, r->recvRecords, r->spec.slotBytes,
                                       stream));
    r->exactBytes += (r->spec.nranks - 1) * (header.recordBytes + sizeof(uint64_t)); /* and its length before */
    return GS_SUCCESS;
}

gsResult_t gsExchangeRecords(gsReducer_t r, gsStream_t stream)
{
    if (gsSpecIsExact(&r->spec))
        return exchangeExact(r, stream);
    return r->comm->transport->allGather(r->comm, r->sendRecord, r->recvRecords, r->spec.slotBytes, stream);
}

static gsResult_t readLengths(gsReducer_t r, size_t *bytes, gsStream_t stream)
{
    gsRecordHeader header;
    uint64_t all = 0, kept = 0;
    for (uint32_t q = 0; q < r->spec.nranks; q++) {
        GS_CHECK(r->comm->backend->get(&header, r->sendRecord + q * r->spec.partSlot, sizeof header, stream));
        bytes[q] = header.recordBytes;
        all += header.recordBytes;
        kept += header.kept;
    }
    gsKnowRecord(r, all, kept, header.flags);
    return GS_SUCCESS;
}

/* Parts of own records to their owners. */
gsResult_t gsExchangeParts(gsReducer_t r, gsStream_t stream)
{
    const gsSpec *s = &r->spec;
    const gsTransport *transport = r->comm->transport;
    size_t bytes[s->nranks];
    if (!gsSpecIsExact(s))
        return transport->scatterSlices(r->comm, r->sendRecord, s->nranks * s->partSlot, r->recvRecords, s->partSlot,
                                        stream);
    GS_CHECK(gsAwaitDevice(r, stream));
    GS_CHECK(readLengths(r, bytes, stream));
    GS_CHECK(transport->allToAllExact(r->comm, r->sendRecord, bytes, r->recvRecords, s->partSlot, stream));
    for (uint32_t q = 0; q < s->nranks; q++)
        r->exactBytes += q == s->rank ? 0 : bytes[q] + sizeof(uint64_t);
    return GS_SUCCESS;
}

/* A vector's way to its sum. */
typedef struct {
    const void *send;
    uint64_t count;
    gsDataType_t type;
    uint8_t *slices, *sums; /* ranks' slices each */
    gsRedOp_t op;
} denseSum;

/* Rank q sums slice q of everybody in rank order, and all gather the sums. */
static gsResult_t sumBySlices(gsReducer_t r, const denseSum *d, gsStream_t stream)
{
    const gsTransport *transport = r->comm->transport;
    uint64_t slice = gsSliceElements(&r->spec, d->count), first = slice * r->spec.rank;
    size_t width = gsTypeBytes(d->type), sliceBytes = slice * width;
    uint64_t own = first >= d->count ? 0 : d->count - first < slice ? d->count - first : slice;
    uint8_t *ownSum = d->sums + r->spec.rank * sliceBytes;
    GS_CHECK(transport->scatterSlices(r->comm, d->send, d->count * width, d->slices, sliceBytes, stream));
    GS_CHECK(r->comm->backend->sumSlices(r, d->type, d->slices, r->spec.nranks, slice, ownSum, own, d->op, stream));
    return transport->allGather(r->comm, ownSum, d->sums, sliceBytes, stream);
}

static gsResult_t sumDense(gsReducer_t r, const denseSum *d, gsStream_t stream)
{
    const gsTransport *transport = r->comm->transport;
    if (transport->allReduce)
        return transport->allReduce(r->comm, d->send, d->sums, d->count, d->type, d->op, stream);
    return sumBySlices(r, d, stream);
}

gsResult_t gsAwaitAll(gsReducer_t r, gsStream_t stream)
{
    gsComm_t whole = gsCommWhole(r->comm);
    if (!gsArrivals(r))
        return GS_SUCCESS;
    GS_CHECK(r->comm->backend->fill(&r->arrived[1], 0, sizeof *r->arrived, stream));
    return whole->transport->allReduce(whole, &r->arrived[0], &r->arrived[1], 1, GS_FLOAT32, GS_SUM, stream);
}

uint8_t *gsDenseSums(gsReducer_t r)
{
    return r->recvRecords + gsSliceElements(&r->spec, r->spec.count) * r->spec.nranks * gsTypeWidth(r->spec.type);
}

/* recvbuff is written last, from the finished sum: an exchange that fails leaves it alone, in place too. A list's tensors travel one
 * behind the other. */
gsResult_t gsExchangeDense(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    const gsBackend *backend = r->comm->backend;
    denseSum d = {sendbuff, r->spec.count, (gsDataType_t)r->spec.type, r->recvRecords, gsDenseSums(r), op};
    uint32_t tensors = r->spec.tensors;
    if (tensors) {
        GS_CHECK(backend->gather(r, sendbuff, r->buffers + GS_GATHERED * tensors, stream));
        d.send = r->gathered;
    }
    GS_CHECK(sumDense(r, &d, stream));
    GS_CHECK(gsAwaitAll(r, stream));
    return backend->finishDense(r, tensors ? (void *)(r->buffers + GS_SUMS * tensors) : d.sums, recvbuff, stream);
}

/* A device is waited for here: an exchange that was aborted leaves numbers like any others, which nothing behind it could tell from a
 * sum. */
gsResult_t gsExchangeVector(gsReducer_t r, const void *vector, const void **sum, gsStream_t stream)
{
    gsDataType_t type = gsRealType(&r->spec);
    uint64_t count = gsVectorElements(&r->spec);
    uint8_t *sums = r->denseBuffer + gsSliceElements(&r->spec, count) * r->spec.nranks * gsTypeBytes(type);
    denseSum d = {vector, count, type, r->denseBuffer, sums, GS_SUM};
    GS_CHECK(sumDense(r, &d, stream));
    GS_CHECK(gsAwaitDevice(r, stream));
    r->denseBytes += 2 * (r->spec.nranks - 1) * count * gsTypeBytes(type) / r->spec.nranks;
    *sum = d.sums;
    return GS_SUCCESS;
}
