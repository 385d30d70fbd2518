/* Ranks of a test as NCCL ranks, a thread and a device each. */
#ifndef GS_TESTS_NCCL_RANKS_H
#define GS_TESTS_NCCL_RANKS_H

#include "core.h"
#include "ranks.h"

#include <cuda_runtime.h>
#include <nccl.h>

namespace gst
{

using Bytes = std::vector<uint8_t>;

inline int deviceCount()
{
    int devices = 0;
    return cudaGetDeviceCount(&devices) == cudaSuccess ? devices : 0;
}

#define EXPECT_CUDA(call) EXPECT_EQ(cudaSuccess, (call))

/* Device memory of the current device, with canaries on both sides of it. */
class DeviceBuffer
{
  public:
    explicit DeviceBuffer(const Bytes &content) : bytes_(content.size())
    {
        EXPECT_CUDA(cudaMalloc(&memory_, bytes_ + 2 * guard));
        EXPECT_CUDA(cudaMemset(memory_, 0xA5, bytes_ + 2 * guard));
        EXPECT_CUDA(cudaMemcpy(data(), content.data(), bytes_, cudaMemcpyHostToDevice));
        EXPECT_CUDA(cudaDeviceSynchronize());
    }
    ~DeviceBuffer()
    {
        EXPECT_CUDA(cudaFree(memory_));
    }
    DeviceBuffer(const DeviceBuffer &) = delete;

    void *data()
    {
        return static_cast<uint8_t *>(memory_) + guard;
    }
    Bytes content()
    {
        Bytes all(bytes_ + 2 * guard);
        EXPECT_CUDA(cudaMemcpy(all.data(), memory_, all.size(), cudaMemcpyDeviceToHost));
        Bytes canary(guard, 0xA5), inside(all.begin() + guard, all.end() - guard);
        EXPECT_EQ(canary, Bytes(all.begin(), all.begin() + guard));
        EXPECT_EQ(canary, Bytes(all.end() - guard, all.end()));
        return inside;
    }

  private:
    static constexpr size_t guard = 256;
    size_t bytes_;
    void *memory_ = nullptr;
};

/* One rank: its device, NCCL communicator, stream, and what it gives and gets. */
struct Rank {
    int rank = 0;
    ncclComm_t nccl = nullptr;
    cudaStream_t stream = nullptr;
    gsComm_t comm = nullptr;
    gsReducer_t reducer = nullptr;

    gsResult_t create(const Plan &plan)
    {
        gsReducerConfig_t config = configOf(plan);
        comm->ranksPerNode = plan.ranksPerNode;
        return gsReducerCreate(&reducer, comm, &config);
    }
    gsResult_t call(const Plan &plan, const void *send, void *recv)
    {
        return gsAllReduce(send, recv, plan.count, plan.type, plan.op, reducer, stream);
    }
    gsResult_t finish()
    {
        return gsCommSynchronize(comm, stream);
    }
    gsResult_t reducerError() const
    {
        gsResult_t error = GS_ERROR_SYSTEM;
        EXPECT_EQ(GS_SUCCESS, gsReducerGetAsyncError(reducer, &error));
        return error;
    }
    gsResult_t commError() const
    {
        gsResult_t error = GS_ERROR_SYSTEM;
        EXPECT_EQ(GS_SUCCESS, gsCommGetAsyncError(comm, &error));
        return error;
    }
};

inline Bytes gradientOf(const Plan &plan, int rank, int step)
{
    Gradients all = makeGradients(Shape::Skewed, plan, static_cast<uint64_t>(step));
    return Buffer(plan.type, all[static_cast<size_t>(rank)]).raw();
}

/* Runs body(rank) on a thread and a device for each rank, between the making and the end of its communicators. */
template <class Body> void onRanks(int nranks, int timeoutMs, Body body)
{
    ncclUniqueId id;
    ASSERT_EQ(ncclSuccess, ncclGetUniqueId(&id));
    parallel(nranks, [&](int number) {
        Rank rank;
        gsCommConfig_t config = GS_COMM_CONFIG_INIT;
        config.timeoutMs = timeoutMs;
        rank.rank = number;
        ASSERT_EQ(cudaSuccess, cudaSetDevice(number));
        ASSERT_EQ(cudaSuccess, cudaStreamCreateWithFlags(&rank.stream, cudaStreamNonBlocking));
        ASSERT_EQ(ncclSuccess, ncclCommInitRank(&rank.nccl, nranks, id, number));
        ASSERT_EQ(GS_SUCCESS, gsCommInitNccl(&rank.comm, rank.nccl, &config)) << gsGetLastError();
        body(rank);
        EXPECT_EQ(GS_SUCCESS, gsReducerDestroy(rank.reducer)) << gsGetLastError();
        bool alive = rank.commError() == GS_SUCCESS;
        EXPECT_EQ(GS_SUCCESS, gsCommDestroy(rank.comm)) << gsGetLastError();
        if (alive) {
            EXPECT_EQ(ncclSuccess, ncclCommDestroy(rank.nccl));
        }
        EXPECT_CUDA(cudaStreamDestroy(rank.stream));
    });
}

/* The parameter: how many ranks. */
class OnDevices : public testing::TestWithParam<int>
{
  protected:
    void SetUp() override
    {
        if (GetParam() > deviceCount())
            GTEST_SKIP() << GetParam() << " ranks need as many devices, there are " << deviceCount();
    }
};

/* A captured call: empty where the platform cannot capture. */
template <class Call> cudaGraphExec_t capture(Rank &rank, Call call)
{
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    if (cudaStreamBeginCapture(rank.stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
        cudaGetLastError();
        return nullptr;
    }
    EXPECT_EQ(GS_SUCCESS, call()) << gsGetLastError();
    EXPECT_CUDA(cudaStreamEndCapture(rank.stream, &graph));
    EXPECT_CUDA(cudaGraphInstantiate(&executable, graph, 0));
    EXPECT_CUDA(cudaGraphDestroy(graph));
    return executable;
}

} // namespace gst
#endif
