/* self.c: the transport of one rank: what goes out comes back. For the second half of two-way reducers. */
#include "../core.h"

#include <string.h>

static gsResult_t selfAllGather(gsComm_t comm, const void *send, void *recv, size_t bytes, gsStream_t stream)
{
    return send == recv || bytes == 0 ? GS_SUCCESS : comm->backend->copy(recv, send, bytes, stream);
}

static gsResult_t selfAllGatherExact(gsComm_t comm, const void *send, size_t bytes, void *recv, size_t slot,
                                     gsStream_t stream)
{
    (void)slot;
    return selfAllGather(comm, send, recv, bytes, stream);
}

static gsResult_t selfAllToAllExact(gsComm_t comm, const void *send, const size_t *bytes, void *recv, size_t slot,
                                    gsStream_t stream)
{
    (void)slot;
    return selfAllGather(comm, send, recv, bytes[0], stream);
}

static gsResult_t selfScatterSlices(gsComm_t comm, const void *send, size_t totalBytes, void *recv, size_t sliceBytes,
                                    gsStream_t stream)
{
    (void)sliceBytes;
    return selfAllGather(comm, send, recv, totalBytes, stream);
}

static gsResult_t selfAllReduce(gsComm_t comm, const void *send, void *recv, size_t count, gsDataType_t type,
                                gsRedOp_t op, gsStream_t stream)
{
    (void)op;
    return selfAllGather(comm, send, recv, count * gsTypeBytes(type), stream);
}

static gsResult_t selfAllGatherHost(gsComm_t comm, const void *send, void *recv, size_t bytes)
{
    (void)comm;
    memcpy(recv, send, bytes);
    return GS_SUCCESS;
}

static gsResult_t nothingToWaitFor(gsComm_t comm, gsStream_t stream)
{
    (void)comm;
    (void)stream;
    return GS_SUCCESS;
}

static gsResult_t nothingWrong(gsComm_t comm)
{
    (void)comm;
    return GS_SUCCESS;
}

static void nothingToDestroy(gsComm_t comm)
{
    (void)comm;
}

const gsTransport gsSelfTransport = {
    .name = "self",
    .allGather = selfAllGather,
    .allGatherExact = selfAllGatherExact,
    .allToAllExact = selfAllToAllExact,
    .scatterSlices = selfScatterSlices,
    .allReduce = selfAllReduce,
    .reduceScatter = selfAllReduce, /* the only slice is all of it */
    .allGatherHost = selfAllGatherHost,
    .synchronize = nothingToWaitFor,
    .asyncError = nothingWrong,
    .abort = nothingWrong,
    .destroy = nothingToDestroy,
};
