/* The exchange: own record to all ranks in fixed slots (mode "capacity"), and the dense sum (mode "dense"). */
#include "core.h"

gsResult_t gsExchangeRecords(gsReducer_t r, gsStream_t stream)
{
    return r->comm->transport->allGather(r->comm, r->sendRecord, r->recvRecords, r->spec.slotBytes, stream);
}

/* Rank q sums slice q of everybody in rank order, and all gather the sums. */
static gsResult_t sumBySlices(gsReducer_t r, const void *sendbuff, uint8_t *sums, uint64_t slice, gsRedOp_t op,
                              gsStream_t stream)
{
    const gsTransport *transport = r->comm->transport;
    size_t width = gsTypeBytes((gsDataType_t)r->spec.type), sliceBytes = slice * width;
    uint64_t first = slice * r->spec.rank;
    uint64_t own = first >= r->spec.count ? 0 : r->spec.count - first < slice ? r->spec.count - first : slice;
    uint8_t *slices = r->recvRecords, *ownSum = sums + r->spec.rank * sliceBytes;
    GS_CHECK(transport->scatterSlices(r->comm, sendbuff, r->spec.count * width, slices, sliceBytes, stream));
    GS_CHECK(r->comm->backend->sumSlices(r, slices, slice, ownSum, own, op, stream));
    return transport->allGather(r->comm, ownSum, sums, sliceBytes, stream);
}

/* recvbuff is written last, from the finished sum: an exchange that fails leaves it alone, in place too. */
gsResult_t gsExchangeDense(gsReducer_t r, const void *sendbuff, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    const gsSpec *s = &r->spec;
    const gsTransport *transport = r->comm->transport;
    uint64_t slice = gsSliceElements(s);
    uint8_t *sums = r->recvRecords;
    if (transport->allReduce) {
        GS_CHECK(transport->allReduce(r->comm, sendbuff, sums, s->count, (gsDataType_t)s->type, op, stream));
    } else {
        sums += slice * s->nranks * gsTypeBytes((gsDataType_t)s->type);
        GS_CHECK(sumBySlices(r, sendbuff, sums, slice, op, stream));
    }
    return r->comm->backend->finishDense(r, sums, recvbuff, stream);
}
