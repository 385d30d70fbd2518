/* The NCCL stand-in: right results from ranks as threads, and an error, never a hang, for calls that do not fit. */
#include "on_device.h"

#include <nccl.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <thread>

namespace
{

using Clock = std::chrono::steady_clock;

/* One rank: a device, a stream, a communicator. */
struct Rank {
    int number, ranks;
    ncclComm_t comm = nullptr;
    cudaStream_t stream = nullptr;

    ncclResult_t asyncError() const
    {
        ncclResult_t error = ncclSuccess;
        EXPECT_EQ(ncclCommGetAsyncError(comm, &error), ncclSuccess);
        return error;
    }
    void synchronize() const
    {
        EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    }
};

void onRanks(int ranks, const std::function<void(Rank &)> &body)
{
    ncclUniqueId id;
    ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
    std::vector<std::thread> threads;
    for (int number = 0; number < ranks; number++)
        threads.emplace_back([&, number] {
            Rank rank{number, ranks};
            EXPECT_EQ(cudaSetDevice(number), cudaSuccess);
            EXPECT_EQ(cudaStreamCreateWithFlags(&rank.stream, cudaStreamNonBlocking), cudaSuccess);
            ASSERT_EQ(ncclCommInitRank(&rank.comm, ranks, id, number), ncclSuccess);
            body(rank);
            if (rank.comm)
                EXPECT_EQ(ncclCommDestroy(rank.comm), ncclSuccess);
            EXPECT_EQ(cudaStreamDestroy(rank.stream), cudaSuccess);
        });
    for (std::thread &thread : threads)
        thread.join();
}

class Timeout
{
  public:
    explicit Timeout(const char *seconds)
    {
        setenv("CUDASIM_NCCL_TIMEOUT", seconds, 1);
    }
    ~Timeout()
    {
        unsetenv("CUDASIM_NCCL_TIMEOUT");
    }
};

/* ---- results ----------------------------------------------------------------------------------------------------- */

TEST(Nccl, KnowsItsRanks)
{
    onRanks(3, [](Rank &rank) {
        int value = -1;
        EXPECT_EQ(ncclCommCount(rank.comm, &value), ncclSuccess);
        EXPECT_EQ(value, 3);
        EXPECT_EQ(ncclCommUserRank(rank.comm, &value), ncclSuccess);
        EXPECT_EQ(value, rank.number);
        EXPECT_EQ(ncclCommCuDevice(rank.comm, &value), ncclSuccess);
        EXPECT_EQ(value, rank.number);
    });
}

TEST(Nccl, AllReduceInPlace)
{
    onRanks(4, [](Rank &rank) {
        float mine = float(rank.number + 1);
        OnDevice<float> data({mine, -mine, 0.5f});
        const std::pair<ncclRedOp_t, std::vector<float>> cases[] = {
            {ncclSum, {10, -10, 2}}, {ncclAvg, {10, -10, 2}}, {ncclMax, {10, -10, 2}}};
        for (auto &[op, expected] : cases) { /* after the first all ranks are alike */
            EXPECT_EQ(ncclAllReduce(data, data, 3, ncclFloat32, op, rank.comm, rank.stream), ncclSuccess);
            rank.synchronize();
            EXPECT_EQ(data.fetch(), expected) << op;
        }
        OnDevice<double> other({double(rank.number), double(rank.number + 1)}), result({0.0, 0.0});
        EXPECT_EQ(ncclAllReduce(other, result, 2, ncclFloat64, ncclMin, rank.comm, rank.stream), ncclSuccess);
        rank.synchronize();
        EXPECT_EQ(result.fetch(), (std::vector<double>{0, 1}));
        EXPECT_EQ(ncclAllReduce(other, result, 2, ncclFloat64, ncclProd, rank.comm, rank.stream), ncclSuccess);
        rank.synchronize();
        EXPECT_EQ(result.fetch(), (std::vector<double>{0, 24}));
    });
}

TEST(Nccl, AllReduceOfNarrowTypes)
{
    onRanks(2, [](Rank &rank) {
        float mine = rank.number ? 0.25f : 1.0f;
        OnDevice<__half> half({__float2half_rn(mine)});
        OnDevice<__nv_bfloat16> brain({__float2bfloat16_rn(mine)});
        OnDevice<signed char> bytes({(signed char)(rank.number ? -3 : -6)});
        EXPECT_EQ(ncclAllReduce(half, half, 1, ncclFloat16, ncclSum, rank.comm, rank.stream), ncclSuccess);
        EXPECT_EQ(ncclAllReduce(brain, brain, 1, ncclBfloat16, ncclAvg, rank.comm, rank.stream), ncclSuccess);
        EXPECT_EQ(ncclAllReduce(bytes, bytes, 1, ncclInt8, ncclMin, rank.comm, rank.stream), ncclSuccess);
        rank.synchronize();
        EXPECT_EQ(__half2float(half.fetch()[0]), 1.25f);
        EXPECT_EQ(__bfloat162float(brain.fetch()[0]), 0.625f);
        EXPECT_EQ(bytes.fetch()[0], -6);
    });
}

TEST(Nccl, GatherScatterBroadcastReduce)
{
    onRanks(3, [](Rank &rank) {
        unsigned mine = 10 * unsigned(rank.number);
        OnDevice<unsigned> part({mine, mine + 1}), whole(std::vector<unsigned>(6, 0)), one({mine});
        EXPECT_EQ(ncclAllGather(part, whole, 2, ncclUint32, rank.comm, rank.stream), ncclSuccess);
        rank.synchronize();
        EXPECT_EQ(whole.fetch(), (std::vector<unsigned>{0, 1, 10, 11, 20, 21}));
        EXPECT_EQ(ncclReduceScatter(whole, part, 2, ncclUint32, ncclSum, rank.comm, rank.stream), ncclSuccess);
        rank.synchronize();
        EXPECT_EQ(part.fetch(), (std::vector<unsigned>{3 * mine, 3 * mine + 3}));
        EXPECT_EQ(ncclReduce(one, one, 1, ncclUint32, ncclSum, 2, rank.comm, rank.stream), ncclSuccess);
        rank.synchronize();
        EXPECT_EQ(one.fetch()[0], rank.number == 2 ? 30 : mine);
        EXPECT_EQ(ncclBroadcast(one, one, 1, ncclUint32, 2, rank.comm, rank.stream), ncclSuccess);
        rank.synchronize();
        EXPECT_EQ(one.fetch()[0], 30u);
    });
}

TEST(Nccl, InPlaceAllGatherAndReduceScatter)
{
    onRanks(2, [](Rank &rank) {
        std::vector<unsigned> start(4, 99);
        start[2 * size_t(rank.number)] = start[2 * size_t(rank.number) + 1] = unsigned(rank.number);
        OnDevice<unsigned> data(start);
        unsigned *slice = data + 2 * rank.number;
        EXPECT_EQ(ncclAllGather(slice, data, 2, ncclUint32, rank.comm, rank.stream), ncclSuccess);
        rank.synchronize();
        EXPECT_EQ(data.fetch(), (std::vector<unsigned>{0, 0, 1, 1}));
        EXPECT_EQ(ncclReduceScatter(data, slice, 2, ncclUint32, ncclSum, rank.comm, rank.stream), ncclSuccess);
        rank.synchronize();
        EXPECT_EQ(data.fetch()[2 * size_t(rank.number)], 2 * unsigned(rank.number));
    });
}

TEST(Nccl, GroupedSendsAndReceives)
{
    onRanks(3, [](Rank &rank) {
        unsigned mine = unsigned(rank.number);
        OnDevice<unsigned> out({mine, mine}), in(std::vector<unsigned>(6, 9));
        EXPECT_EQ(ncclGroupStart(), ncclSuccess);
        for (int peer = 0; peer < rank.ranks; peer++) { /* as many elements as the sender's number says */
            EXPECT_EQ(ncclSend(out, mine, ncclUint32, peer, rank.comm, rank.stream), ncclSuccess);
            EXPECT_EQ(ncclRecv(in + 2 * peer, size_t(peer), ncclUint32, peer, rank.comm, rank.stream), ncclSuccess);
        }
        EXPECT_EQ(ncclGroupEnd(), ncclSuccess);
        rank.synchronize();
        EXPECT_EQ(in.fetch(), (std::vector<unsigned>{9, 9, 1, 9, 2, 2}));
    });
}

TEST(Nccl, OneThreadManyRanks)
{
    ncclComm_t comms[2];
    ASSERT_EQ(ncclCommInitAll(comms, 2, nullptr), ncclSuccess);
    OnDevice<unsigned> first({1}), second({2});
    EXPECT_EQ(ncclGroupStart(), ncclSuccess);
    EXPECT_EQ(ncclAllReduce(first, first, 1, ncclUint32, ncclSum, comms[0], nullptr), ncclSuccess);
    EXPECT_EQ(ncclAllReduce(second, second, 1, ncclUint32, ncclSum, comms[1], nullptr), ncclSuccess);
    EXPECT_EQ(ncclGroupEnd(), ncclSuccess);
    for (int device = 1; device >= 0; device--) {
        EXPECT_EQ(cudaSetDevice(device), cudaSuccess);
        EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    }
    EXPECT_EQ(first.fetch()[0], 3u);
    EXPECT_EQ(second.fetch()[0], 3u);
    for (ncclComm_t comm : comms)
        EXPECT_EQ(ncclCommDestroy(comm), ncclSuccess);
}

TEST(Nccl, SplitByColor)
{
    onRanks(4, [](Rank &rank) {
        ncclComm_t part = nullptr;
        int color = rank.number == 3 ? NCCL_SPLIT_NOCOLOR : rank.number % 2;
        EXPECT_EQ(ncclCommSplit(rank.comm, color, -rank.number, &part, nullptr), ncclSuccess);
        if (rank.number == 3) {
            EXPECT_EQ(part, nullptr);
            return;
        }
        int ranks = 0, number = -1;
        EXPECT_EQ(ncclCommCount(part, &ranks), ncclSuccess);
        EXPECT_EQ(ncclCommUserRank(part, &number), ncclSuccess);
        EXPECT_EQ(ranks, color ? 1 : 2);
        EXPECT_EQ(number, rank.number == 0); /* the keys put rank 2 before rank 0 */
        OnDevice<unsigned> data({unsigned(rank.number) + 1});
        EXPECT_EQ(ncclAllReduce(data, data, 1, ncclUint32, ncclSum, part, rank.stream), ncclSuccess);
        rank.synchronize();
        EXPECT_EQ(data.fetch()[0], color ? 2u : 4u);
        EXPECT_EQ(ncclCommDestroy(part), ncclSuccess);
    });
}

TEST(Nccl, FollowsItsStream)
{
    setenv("CUDASIM_JITTER", "1000", 1);
    onRanks(2, [](Rank &rank) {
        OnDevice<unsigned> data(std::vector<unsigned>(64, 5));
        EXPECT_EQ(cudaMemsetAsync(data, 0, 256, rank.stream), cudaSuccess);
        EXPECT_EQ(ncclAllReduce(data, data, 64, ncclUint32, ncclSum, rank.comm, rank.stream), ncclSuccess);
        rank.synchronize();
        EXPECT_EQ(data.fetch(), std::vector<unsigned>(64, 0));
    });
    unsetenv("CUDASIM_JITTER");
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

/* Each rank makes its own call; all of them must then have that error, with the words in its text. */
void expectFailure(int ranks, ncclResult_t expected, const char *words,
                   const std::function<void(Rank &, float *)> &calls)
{
    onRanks(ranks, [&](Rank &rank) {
        OnDevice<float> data(std::vector<float>(64, 7.0f));
        calls(rank, data);
        rank.synchronize();
        EXPECT_EQ(rank.asyncError(), expected);
        std::string text = ncclGetLastError(rank.comm);
        EXPECT_NE(text.find(words), std::string::npos) << text;
        EXPECT_EQ(data.fetch(), std::vector<float>(64, 7.0f)) << "a failed call writes nothing";
        EXPECT_EQ(ncclAllGather(data, data, 1, ncclFloat32, rank.comm, rank.stream), expected) << "errors stick";
    });
}

TEST(NcclErrors, DifferentCounts)
{
    expectFailure(2, ncclInvalidUsage, "do not match", [](Rank &rank, float *data) {
        EXPECT_EQ(ncclAllReduce(data, data, rank.number ? 3 : 4, ncclFloat32, ncclSum, rank.comm, rank.stream),
                  ncclSuccess);
    });
}

TEST(NcclErrors, DifferentTypes)
{
    expectFailure(2, ncclInvalidUsage, "type", [](Rank &rank, float *data) {
        EXPECT_EQ(ncclAllReduce(data, data, 4, rank.number ? ncclFloat32 : ncclInt32, ncclSum, rank.comm, rank.stream),
                  ncclSuccess);
    });
}

TEST(NcclErrors, DifferentReductions)
{
    expectFailure(2, ncclInvalidUsage, "op", [](Rank &rank, float *data) {
        EXPECT_EQ(ncclAllReduce(data, data, 4, ncclFloat32, rank.number ? ncclSum : ncclMax, rank.comm, rank.stream),
                  ncclSuccess);
    });
}

TEST(NcclErrors, DifferentCollectives)
{
    expectFailure(2, ncclInvalidUsage, "ncclAllGather", [](Rank &rank, float *data) {
        EXPECT_EQ(rank.number ? ncclAllGather(data, data, 4, ncclFloat32, rank.comm, rank.stream)
                              : ncclAllReduce(data, data, 4, ncclFloat32, ncclSum, rank.comm, rank.stream),
                  ncclSuccess);
    });
}

TEST(NcclErrors, SendAndReceiveOfDifferentSizes)
{
    expectFailure(2, ncclInvalidUsage, "do not match", [](Rank &rank, float *data) {
        EXPECT_EQ(rank.number ? ncclSend(data, 4, ncclFloat32, 0, rank.comm, rank.stream)
                              : ncclRecv(data, 5, ncclFloat32, 1, rank.comm, rank.stream),
                  ncclSuccess);
    });
}

TEST(NcclErrors, MissingRankTimesOut)
{
    Timeout timeout("0.3");
    expectFailure(3, ncclRemoteError, "missing: rank 1", [](Rank &rank, float *data) {
        if (rank.number == 1)
            return std::this_thread::sleep_for(std::chrono::seconds(1));
        EXPECT_EQ(ncclAllReduce(data, data, 4, ncclFloat32, ncclSum, rank.comm, rank.stream), ncclSuccess);
    });
}

TEST(NcclErrors, MissingSenderTimesOut)
{
    Timeout timeout("0.3");
    expectFailure(2, ncclRemoteError, "ncclRecv", [](Rank &rank, float *data) {
        if (rank.number == 1)
            return std::this_thread::sleep_for(std::chrono::seconds(1));
        EXPECT_EQ(ncclRecv(data, 4, ncclFloat32, 1, rank.comm, rank.stream), ncclSuccess);
    });
}

TEST(NcclErrors, AbortWakesBlockedPeers)
{
    auto start = Clock::now();
    onRanks(3, [](Rank &rank) {
        OnDevice<float> data(std::vector<float>(4, 1.0f));
        if (rank.number == 2) {
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
            EXPECT_EQ(ncclCommAbort(rank.comm), ncclSuccess);
            rank.comm = nullptr;
            return;
        }
        EXPECT_EQ(ncclAllReduce(data, data, 4, ncclFloat32, ncclSum, rank.comm, rank.stream), ncclSuccess);
        rank.synchronize();
        EXPECT_EQ(rank.asyncError(), ncclRemoteError);
        EXPECT_NE(std::string(ncclGetLastError(rank.comm)).find("rank 2 aborted"), std::string::npos);
    });
    EXPECT_LT(Clock::now() - start, std::chrono::seconds(20)) << "long before the time limit";
}

TEST(NcclErrors, AbortEndsOnesOwnCalls)
{
    onRanks(2, [](Rank &rank) {
        if (rank.number == 1)
            return;
        OnDevice<float> data(std::vector<float>(4, 1.0f));
        EXPECT_EQ(ncclAllReduce(data, data, 4, ncclFloat32, ncclSum, rank.comm, rank.stream), ncclSuccess);
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        EXPECT_EQ(cudaStreamQuery(rank.stream), cudaErrorNotReady);
        EXPECT_EQ(ncclCommAbort(rank.comm), ncclSuccess);
        rank.comm = nullptr;
        rank.synchronize();
    });
}

TEST(NcclErrors, WrongArguments)
{
    onRanks(2, [](Rank &rank) {
        float plain[4] = {};
        OnDevice<float> data(std::vector<float>(4, 1.0f));
        EXPECT_EQ(ncclAllReduce(plain, data, 4, ncclFloat32, ncclSum, rank.comm, rank.stream), ncclInvalidArgument);
        EXPECT_EQ(ncclAllReduce(data, data, 4, ncclNumTypes, ncclSum, rank.comm, rank.stream), ncclInvalidArgument);
        EXPECT_EQ(ncclAllReduce(data, data, 4, ncclFloat32, ncclNumOps, rank.comm, rank.stream), ncclInvalidArgument);
        EXPECT_EQ(ncclSend(data, 4, ncclFloat32, 2, rank.comm, rank.stream), ncclInvalidArgument);
        EXPECT_EQ(ncclAllReduce(data, data, 4, ncclFloat32, ncclSum, nullptr, rank.stream), ncclInvalidArgument);
        EXPECT_EQ(ncclGroupEnd(), ncclInvalidUsage);
        EXPECT_EQ(rank.asyncError(), ncclSuccess) << "none of them was enqueued";
    });
}

TEST(NcclErrors, TwoRanksOnOneDevice)
{
    ncclComm_t comms[2];
    int devices[2] = {1, 1};
    EXPECT_EQ(ncclCommInitAll(comms, 2, devices), ncclInvalidUsage);
}

TEST(NcclErrors, MissingRankAtInit)
{
    Timeout timeout("0.2");
    ncclUniqueId id;
    ncclComm_t comm;
    EXPECT_EQ(ncclGetUniqueId(&id), ncclSuccess);
    EXPECT_EQ(ncclCommInitRank(&comm, 2, id, 0), ncclRemoteError);
}

} // namespace
