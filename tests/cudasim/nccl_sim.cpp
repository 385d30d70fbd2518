/* The NCCL API over cliques: ranks are threads of one process (or several communicators of one thread, in groups).
 *
 * An operation is checked when it is called, travels through its CUDA stream as a host function, and meets its peers
 * there. Every function has its pnccl name too, for code that stands in front of NCCL.
 */
#include "nccl_clique.h"
#include "nccl_reduce.h"

#include <atomic>
#include <cstdio>
#include <cstring>
#include <functional>

struct ncclComm {
    std::shared_ptr<cudasim::Clique> clique;
    int rank, device;
    uint64_t collectives = 0, splits = 0;
};

namespace cudasim
{

namespace
{

thread_local std::string lastText;

ncclResult_t refuse(ncclResult_t result, const std::string &text)
{
    lastText = text;
    return result;
}

/* ---- groups ----------------------------------------------------------------------------------------------------- */

/* The calls of one group that go to one stream of one communicator. */
struct Batch {
    std::shared_ptr<Clique> clique;
    int rank, device;
    cudaStream_t stream;
    std::vector<CallPointer> calls;
};

struct Group {
    int depth = 0;
    ncclResult_t error = ncclSuccess;
    std::vector<std::function<ncclResult_t()>> waits; /* second halves of the group's inits and splits */
    std::vector<Batch> batches;
};

thread_local Group group;

/* A batch is a host function of its stream. On a device that has failed it never runs, and its peers time out. */
void CUDART_CB runBatch(void *data)
{
    std::unique_ptr<Batch> batch(static_cast<Batch *>(data));
    batch->clique->perform(batch->rank, batch->calls);
}

ncclResult_t enqueue(Batch batch)
{
    int previous = 0;
    cudaGetDevice(&previous);
    cudaSetDevice(batch.device);
    auto *owned = new Batch(std::move(batch));
    cudaError_t error = cudaLaunchHostFunc(owned->stream, runBatch, owned);
    cudaSetDevice(previous);
    if (error == cudaSuccess)
        return ncclSuccess;
    delete owned;
    return refuse(ncclUnhandledCudaError, cudaGetErrorString(error));
}

ncclResult_t endGroup()
{
    if (group.depth == 0)
        return refuse(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
    if (--group.depth > 0)
        return ncclSuccess;
    Group ended;
    std::swap(ended, group);
    ncclResult_t result = ended.error;
    for (auto &wait : ended.waits) {
        ncclResult_t waited = wait();
        if (result == ncclSuccess)
            result = waited;
    }
    if (result != ncclSuccess)
        return result;
    for (Batch &batch : ended.batches) {
        ncclResult_t queued = enqueue(std::move(batch));
        if (result == ncclSuccess)
            result = queued;
    }
    return result;
}

/* Adds to the group, which is a group of one where the caller has none. */
ncclResult_t inGroup(const std::function<ncclResult_t()> &add)
{
    group.depth++;
    ncclResult_t added = add();
    if (group.error == ncclSuccess)
        group.error = added;
    ncclResult_t ended = endGroup();
    return added != ncclSuccess ? added : ended;
}

/* ---- operations ------------------------------------------------------------------------------------------------- */

bool isDeviceMemory(const void *pointer)
{
    cudaPointerAttributes attributes;
    return cudaPointerGetAttributes(&attributes, pointer) == cudaSuccess &&
           attributes.type != cudaMemoryTypeUnregistered;
}

ncclResult_t checkBuffer(const void *buffer, const char *name)
{
    if (isDeviceMemory(buffer))
        return ncclSuccess;
    return refuse(ncclInvalidArgument, std::string(name) + " is not device memory");
}

ncclResult_t check(const Call &call, ncclComm_t comm, cudaStream_t stream)
{
    if (!comm)
        return refuse(ncclInvalidArgument, "no communicator");
    if (!widthOf(call.type))
        return refuse(ncclInvalidArgument, "unknown data type");
    if (call.op < 0 || call.op >= ncclNumOps)
        return refuse(ncclInvalidArgument, "unknown reduction");
    if (call.peer < 0 || call.peer >= comm->clique->ranks())
        return refuse(ncclInvalidArgument, "no such peer or root");
    if (ncclResult_t failed = comm->clique->errorOf(comm->rank))
        return refuse(failed, comm->clique->textOf(comm->rank));
    int device = comm->device;
    if (stream && cudaStreamGetDevice(stream, &device) != cudaSuccess)
        return ncclUnhandledCudaError;
    if (device != comm->device)
        return refuse(ncclInvalidUsage, "the stream is another device's");
    if (!call.count)
        return ncclSuccess;
    bool isRoot = comm->rank == call.peer;
    bool reads = call.kind != Kind::Recv && (call.kind != Kind::Broadcast || isRoot);
    bool writes = call.kind != Kind::Send && (call.kind != Kind::Reduce || isRoot);
    ncclResult_t result = reads ? checkBuffer(call.send, "sendbuff") : ncclSuccess;
    return result == ncclSuccess && writes ? checkBuffer(call.recv, "recvbuff") : result;
}

ncclResult_t add(Call call, ncclComm_t comm, cudaStream_t stream)
{
    ncclResult_t result = check(call, comm, stream);
    if (result != ncclSuccess)
        return result;
    call.rank = comm->rank;
    if (!call.isPointToPoint())
        call.number = ++comm->collectives;
    auto pointer = std::make_shared<Call>(call);
    for (Batch &batch : group.batches) {
        if (batch.clique != comm->clique || batch.rank != comm->rank || batch.stream != stream)
            continue;
        batch.calls.push_back(pointer);
        return ncclSuccess;
    }
    group.batches.push_back({comm->clique, comm->rank, comm->device, stream, {pointer}});
    return ncclSuccess;
}

ncclResult_t call(Kind kind, const void *send, void *recv, size_t count, ncclDataType_t type, ncclRedOp_t op, int peer,
                  ncclComm_t comm, cudaStream_t stream)
{
    return inGroup([&] { return add({kind, send, recv, count, type, op, peer}, comm, stream); });
}

/* ---- communicators ---------------------------------------------------------------------------------------------- */

/* Cliques whose ranks are still arriving, by the bytes of their id. */
std::mutex formingMutex;
std::map<std::string, std::shared_ptr<Clique>> &forming()
{
    static auto &instance = *new std::map<std::string, std::shared_ptr<Clique>>;
    return instance;
}

std::shared_ptr<Clique> findForming(const std::string &id, int ranks)
{
    std::lock_guard<std::mutex> lock(formingMutex);
    auto &clique = forming()[id];
    if (!clique)
        clique = std::make_shared<Clique>(ranks);
    return clique;
}

void forgetForming(const std::string &id)
{
    std::lock_guard<std::mutex> lock(formingMutex);
    forming().erase(id);
}

ncclResult_t beginInit(ncclComm_t *comm, int ranks, const ncclUniqueId &uniqueId, int rank)
{
    if (!comm || ranks < 1 || rank < 0 || rank >= ranks)
        return refuse(ncclInvalidArgument, "no such rank");
    *comm = nullptr;
    std::string id(uniqueId.internal, sizeof uniqueId.internal);
    auto clique = findForming(id, ranks);
    if (clique->ranks() != ranks)
        return refuse(ncclInvalidArgument, "ranks disagree on their number");
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess)
        return ncclUnhandledCudaError;
    clique->join(rank, device);
    group.waits.push_back([=] {
        ncclResult_t result = clique->waitForAll(rank);
        forgetForming(id);
        if (result != ncclSuccess)
            return refuse(result, clique->textOf(rank));
        *comm = new ncclComm{clique, rank, device};
        return ncclSuccess;
    });
    return ncclSuccess;
}

ncclResult_t newId(ncclUniqueId *id)
{
    static std::atomic<unsigned> last{0};
    if (!id)
        return refuse(ncclInvalidArgument, "no id");
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "cudasim-%u", ++last);
    return ncclSuccess;
}

ncclResult_t initAll(ncclComm_t *comms, int count, const int *devices)
{
    ncclUniqueId id;
    newId(&id);
    int previous = 0;
    cudaGetDevice(&previous);
    ncclResult_t result = inGroup([&] {
        for (int rank = 0; rank < count; rank++) {
            if (cudaSetDevice(devices ? devices[rank] : rank) != cudaSuccess)
                return ncclInvalidArgument;
            if (ncclResult_t begun = beginInit(comms + rank, count, id, rank))
                return begun;
        }
        return ncclSuccess;
    });
    cudaSetDevice(previous);
    return result;
}

ncclResult_t beginSplit(ncclComm_t comm, int color, int key, ncclComm_t *part)
{
    if (!comm || !part)
        return refuse(ncclInvalidArgument, "no communicator");
    *part = nullptr;
    uint64_t number = ++comm->splits;
    comm->clique->postSplit(comm->rank, number, color, key);
    group.waits.push_back([clique = comm->clique, rank = comm->rank, device = comm->device, number, part] {
        std::shared_ptr<Clique> partClique;
        int partRank = 0;
        ncclResult_t result = clique->waitForSplit(rank, number, &partClique, &partRank);
        if (result != ncclSuccess)
            return refuse(result, clique->textOf(rank));
        if (partClique)
            *part = new ncclComm{partClique, partRank, device};
        return ncclSuccess;
    });
    return ncclSuccess;
}

} // namespace

} // namespace cudasim

using namespace cudasim;

/* Defines an API function under both its names. */
#define CUDASIM_NCCL(name, parameters)                                        \
    extern "C" ncclResult_t p##name parameters __attribute__((alias(#name))); \
    extern "C" ncclResult_t name parameters

CUDASIM_NCCL(ncclGetVersion, (int *version))
{
    if (!version)
        return ncclInvalidArgument;
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

CUDASIM_NCCL(ncclGetUniqueId, (ncclUniqueId * id))
{
    return newId(id);
}

CUDASIM_NCCL(ncclCommInitRank, (ncclComm_t * comm, int ranks, ncclUniqueId id, int rank))
{
    return inGroup([&] { return beginInit(comm, ranks, id, rank); });
}

CUDASIM_NCCL(ncclCommInitRankConfig, (ncclComm_t * comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t *))
{
    return inGroup([&] { return beginInit(comm, ranks, id, rank); });
}

CUDASIM_NCCL(ncclCommInitAll, (ncclComm_t * comms, int count, const int *devices))
{
    return initAll(comms, count, devices);
}

CUDASIM_NCCL(ncclCommSplit, (ncclComm_t comm, int color, int key, ncclComm_t *part, ncclConfig_t *))
{
    return inGroup([&] { return beginSplit(comm, color, key, part); });
}

CUDASIM_NCCL(ncclCommFinalize, (ncclComm_t comm))
{
    return comm ? ncclSuccess : ncclInvalidArgument;
}

/* Operations still in a stream keep what they need. */
CUDASIM_NCCL(ncclCommDestroy, (ncclComm_t comm))
{
    delete comm;
    return ncclSuccess;
}

CUDASIM_NCCL(ncclCommAbort, (ncclComm_t comm))
{
    if (!comm)
        return ncclSuccess;
    comm->clique->abort(comm->rank);
    delete comm;
    return ncclSuccess;
}

CUDASIM_NCCL(ncclCommCount, (const ncclComm_t comm, int *count))
{
    if (!comm || !count)
        return ncclInvalidArgument;
    *count = comm->clique->ranks();
    return ncclSuccess;
}

CUDASIM_NCCL(ncclCommUserRank, (const ncclComm_t comm, int *rank))
{
    if (!comm || !rank)
        return ncclInvalidArgument;
    *rank = comm->rank;
    return ncclSuccess;
}

CUDASIM_NCCL(ncclCommCuDevice, (const ncclComm_t comm, int *device))
{
    if (!comm || !device)
        return ncclInvalidArgument;
    *device = comm->device;
    return ncclSuccess;
}

CUDASIM_NCCL(ncclCommGetAsyncError, (ncclComm_t comm, ncclResult_t *error))
{
    if (!comm || !error)
        return ncclInvalidArgument;
    *error = comm->clique->errorOf(comm->rank);
    return ncclSuccess;
}

CUDASIM_NCCL(ncclMemAlloc, (void **pointer, size_t bytes))
{
    return cudaMalloc(pointer, bytes) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

CUDASIM_NCCL(ncclMemFree, (void *pointer))
{
    return cudaFree(pointer) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

CUDASIM_NCCL(ncclCommRegister, (const ncclComm_t comm, void *buffer, size_t, void **handle))
{
    if (!comm || !handle)
        return ncclInvalidArgument;
    *handle = buffer;
    return ncclSuccess;
}

CUDASIM_NCCL(ncclCommDeregister, (const ncclComm_t comm, void *))
{
    return comm ? ncclSuccess : ncclInvalidArgument;
}

CUDASIM_NCCL(ncclGroupStart, ())
{
    group.depth++;
    return ncclSuccess;
}

CUDASIM_NCCL(ncclGroupEnd, ())
{
    return endGroup();
}

CUDASIM_NCCL(ncclAllReduce, (const void *send, void *recv, size_t count, ncclDataType_t type, ncclRedOp_t op,
                             ncclComm_t comm, cudaStream_t stream))
{
    return call(Kind::AllReduce, send, recv, count, type, op, 0, comm, stream);
}

CUDASIM_NCCL(ncclReduce, (const void *send, void *recv, size_t count, ncclDataType_t type, ncclRedOp_t op, int root,
                          ncclComm_t comm, cudaStream_t stream))
{
    return call(Kind::Reduce, send, recv, count, type, op, root, comm, stream);
}

CUDASIM_NCCL(ncclReduceScatter, (const void *send, void *recv, size_t count, ncclDataType_t type, ncclRedOp_t op,
                                 ncclComm_t comm, cudaStream_t stream))
{
    return call(Kind::ReduceScatter, send, recv, count, type, op, 0, comm, stream);
}

CUDASIM_NCCL(ncclAllGather,
             (const void *send, void *recv, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream))
{
    return call(Kind::AllGather, send, recv, count, type, ncclSum, 0, comm, stream);
}

CUDASIM_NCCL(ncclBroadcast, (const void *send, void *recv, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                             cudaStream_t stream))
{
    return call(Kind::Broadcast, send, recv, count, type, ncclSum, root, comm, stream);
}

CUDASIM_NCCL(ncclBcast,
             (void *buffer, size_t count, ncclDataType_t type, int root, ncclComm_t comm, cudaStream_t stream))
{
    return call(Kind::Broadcast, buffer, buffer, count, type, ncclSum, root, comm, stream);
}

CUDASIM_NCCL(ncclSend,
             (const void *send, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream))
{
    return call(Kind::Send, send, nullptr, count, type, ncclSum, peer, comm, stream);
}

CUDASIM_NCCL(ncclRecv, (void *recv, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream))
{
    return call(Kind::Recv, nullptr, recv, count, type, ncclSum, peer, comm, stream);
}

extern "C" const char *pncclGetErrorString(ncclResult_t) __attribute__((alias("ncclGetErrorString")));
extern "C" const char *ncclGetErrorString(ncclResult_t result)
{
    switch (result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
    default: return "unknown result code";
    }
}

extern "C" const char *pncclGetLastError(ncclComm_t) __attribute__((alias("ncclGetLastError")));
extern "C" const char *ncclGetLastError(ncclComm_t comm)
{
    if (comm && comm->clique->errorOf(comm->rank) != ncclSuccess)
        return comm->clique->textOf(comm->rank);
    return lastText.c_str();
}
