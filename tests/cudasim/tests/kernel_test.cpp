/* Right kernels give right results under every schedule; wrong ones are caught, each in the way it should be. */
#include "kernels.h"
#include "on_device.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>

namespace
{

/* ---- right kernels ---------------------------------------------------------------------------------------------- */

class EverySchedule : public testing::TestWithParam<const char *>
{
  protected:
    void SetUp() override
    {
        setenv("CUDASIM_SCHEDULE", GetParam(), 1);
        setenv("CUDASIM_BLOCKS", GetParam(), 1);
    }
    void TearDown() override
    {
        EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        unsetenv("CUDASIM_SCHEDULE");
        unsetenv("CUDASIM_BLOCKS");
    }
};

INSTANTIATE_TEST_SUITE_P(Schedules, EverySchedule, testing::Values("forward", "reverse", "random:1", "random:2"));

TEST_P(EverySchedule, ScanOfEachBlock)
{
    constexpr unsigned count = 1000;
    OnDevice<unsigned> in(ascending(count)), out(std::vector<unsigned>(count, 0));
    ASSERT_EQ(blockScan(in, out, count, nullptr), cudaSuccess);
    unsigned sum = 0, i = 0;
    for (unsigned got : out.fetch()) {
        sum = i % 128 ? sum + i : i;
        ASSERT_EQ(got, sum) << "at " << i;
        i++;
    }
}

TEST_P(EverySchedule, BallotCompactionKeepsOrder)
{
    std::vector<float> values(777);
    std::vector<unsigned> expected;
    for (unsigned i = 0; i < values.size(); i++) {
        values[i] = float(i * 7919 % 1000) - 500;
        if (std::abs(values[i]) > 300)
            expected.push_back(i);
    }
    OnDevice<float> in(values);
    OnDevice<unsigned> kept(std::vector<unsigned>(expected.size(), 0)), count({0});
    ASSERT_EQ(ballotCompaction(in, kept, count, 777, 300), cudaSuccess);
    EXPECT_EQ(count.fetch()[0], expected.size());
    EXPECT_EQ(kept.fetch(), expected);
}

TEST_P(EverySchedule, HistogramWithSharedAtomics)
{
    std::vector<unsigned char> values(5000);
    std::vector<unsigned> expected(256, 0);
    for (unsigned i = 0; i < values.size(); i++)
        expected[values[i] = (unsigned char)(i * i % 251)]++;
    OnDevice<unsigned char> in(values);
    OnDevice<unsigned> bins(std::vector<unsigned>(256, 0));
    ASSERT_EQ(histogram(in, bins, 5000), cudaSuccess);
    EXPECT_EQ(bins.fetch(), expected);
}

TEST_P(EverySchedule, DynamicSharedMemory)
{
    constexpr unsigned count = 300, block = 128;
    std::vector<double> values(count);
    std::iota(values.begin(), values.end(), 0.5);
    OnDevice<double> in(values), out(std::vector<double>(count, 0));
    ASSERT_EQ(reverseBlocks(in, out, count, block), cudaSuccess);
    for (unsigned start = 0; start < count; start += block)
        std::reverse(values.begin() + start, values.begin() + std::min(start + block, count));
    EXPECT_EQ(out.fetch(), values);
}

TEST_P(EverySchedule, WarpBuiltins)
{
    OnDevice<unsigned> out(std::vector<unsigned>(32, ~0u));
    ASSERT_EQ(warpBuiltins(out), cudaSuccess);
    EXPECT_EQ(out.fetch(), std::vector<unsigned>(32, 0));
}

TEST_P(EverySchedule, ThreeDimensions)
{
    OnDevice<int> out(std::vector<int>(12, -1));
    ASSERT_EQ(sharedCounters(out), cudaSuccess);
    EXPECT_EQ(out.fetch(), std::vector<int>(12, 180 + 2400 + 30000)); /* x, y, z */
}

/* ---- wrong kernels: missing barriers, seen by comparing schedules ------------------------------------------------ */

template <typename Kernel> std::vector<unsigned> underSchedule(const char *schedule, unsigned count, Kernel kernel)
{
    setenv("CUDASIM_SCHEDULE", schedule, 1);
    OnDevice<unsigned> in(ascending(count)), out(std::vector<unsigned>(count, 0));
    EXPECT_EQ(kernel(in, out), cudaSuccess);
    std::vector<unsigned> result = out.fetch();
    unsetenv("CUDASIM_SCHEDULE");
    return result;
}

#ifdef CUDASIM_THREAD_SANITIZER

extern "C" const char *__tsan_default_options()
{
    return "halt_on_error=1";
}

/* Runs a kernel that the thread sanitizer must object to. */
template <typename Kernel> void expectRace(unsigned count, Kernel kernel)
{
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    EXPECT_DEATH(underSchedule("forward", count, kernel), "data race");
}

TEST(MissingBarrier, SyncthreadsIsARace)
{
    expectRace(256, [](const unsigned *in, unsigned *out) { return reverseWithoutSyncthreads(in, out, 256); });
}

TEST(MissingBarrier, SyncwarpIsARace)
{
    expectRace(32, rotateWithoutSyncwarp);
}

#else

TEST(MissingBarrier, SyncthreadsShowsInTheSchedules)
{
    auto kernel = [](const unsigned *in, unsigned *out) { return reverseWithoutSyncthreads(in, out, 256); };
    EXPECT_NE(underSchedule("forward", 256, kernel), underSchedule("reverse", 256, kernel));
}

TEST(MissingBarrier, SyncwarpShowsInTheSchedules)
{
    EXPECT_NE(underSchedule("forward", 32, rotateWithoutSyncwarp), underSchedule("reverse", 32, rotateWithoutSyncwarp));
}

#endif

TEST(StaleShared, EveryBlockFindsGarbage)
{
    OnDevice<unsigned> out({0, 0, 0});
    EXPECT_EQ(staleShared(out, 3), cudaSuccess);
    EXPECT_EQ(out.fetch(), std::vector<unsigned>(3, 0xa5a5a5a6u));
}

/* ---- wrong kernels: errors that stick ---------------------------------------------------------------------------- */

/* Runs a kernel that must fail; the message must have all the words. */
template <typename Kernel> void expectError(Kernel kernel, const std::vector<std::string> &words)
{
    testing::internal::CaptureStderr();
    kernel(); /* may tell already */
    EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
    std::string text = testing::internal::GetCapturedStderr();
    for (const std::string &word : words)
        EXPECT_NE(text.find(word), std::string::npos) << word << " in: " << text;
    void *memory = nullptr;
    EXPECT_EQ(cudaMalloc(&memory, 4), cudaErrorLaunchFailure) << "the error must stick";
    EXPECT_EQ(trapped(), cudaErrorLaunchFailure) << "and no launch may follow";
    cudaFree(memory);
    EXPECT_EQ(cudaDeviceReset(), cudaSuccess);
    OnDevice<unsigned> out(std::vector<unsigned>(32, 1));
    EXPECT_EQ(warpBuiltins(out), cudaSuccess);
    EXPECT_EQ(out.fetch(), std::vector<unsigned>(32, 0)) << "after a reset all is well again";
}

TEST(WrongKernel, BarrierAfterExit)
{
    expectError([] { return divergentBarrier(true); },
                {"divergentBarrierKernel", "kernels.cu:", "__syncthreads", "exited"});
}

TEST(WrongKernel, DivergentBarrier)
{
    expectError([] { return divergentBarrier(false); }, {"divergentBarrierKernel", "__syncthreads"});
}

TEST(WrongKernel, BarriersAtTwoLines)
{
    expectError(barriersAtTwoLines, {"barriersAtTwoLinesKernel", "divergent barrier", "another thread waits at line"});
}

TEST(WrongKernel, LaneOutsideItsMask)
{
    expectError(laneOutsideItsMask,
                {"laneOutsideItsMaskKernel", "__ballot_sync", "thread (3,0,0)", "not in its own mask 0xfffffff7"});
}

TEST(WrongKernel, MaskWithExitedLane)
{
    expectError([] { return maskWithExitedLane(true); }, {"__syncwarp", "lane 0 of mask 0xffffffff has exited"});
    expectError([] { return maskWithExitedLane(false); }, {"__syncwarp", "lane 31 of its mask 0xffffffff has exited"});
}

TEST(WrongKernel, MaskBeyondBlock)
{
    expectError(maskBeyondBlock, {"__any_sync", "lane 20", "beyond the end"});
}

TEST(WrongKernel, ShuffleFromAbsentLane)
{
    expectError(shuffleFromAbsentLane, {"__shfl_down_sync", "thread (15,0,0)", "lane 16, which is absent"});
}

TEST(WrongKernel, SyncwarpThatNeverCompletes)
{
    expectError(syncwarpThatNeverCompletes, {"syncwarpThatNeverCompletesKernel", "waits for ever"});
}

TEST(WrongKernel, Trap)
{
    expectError(trapped, {"trappedKernel", "trapped", "block (0,0,0)"});
}

/* ---- wrong kernels: overruns, which are the address sanitizer's -------------------------------------------------- */

class Overrun : public testing::Test
{
  protected:
    void SetUp() override
    {
#ifndef __SANITIZE_ADDRESS__
        GTEST_SKIP() << "built without the address sanitizer";
#endif
        testing::FLAGS_gtest_death_test_style = "threadsafe";
    }
    /* The last element is in bounds and must pass; the next one must not. */
    template <typename Kernel> void expectLimit(Kernel kernel, unsigned limit, const char *message)
    {
        OnDevice<float> out(std::vector<float>(32, 0));
        EXPECT_EQ(kernel(out, limit - 1), cudaSuccess);
        EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        EXPECT_DEATH(
            {
                kernel(out, limit);
                cudaDeviceSynchronize();
            },
            message);
    }
};

TEST_F(Overrun, StaticShared)
{
    expectLimit(sharedOverrun, 32, "heap-buffer-overflow");
}
TEST_F(Overrun, DynamicShared)
{
    expectLimit(dynamicSharedOverrun, 32, "heap-buffer-overflow");
}
TEST_F(Overrun, Global)
{
    expectLimit(globalWrite, 32, "heap-buffer-overflow");
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

TEST(Launch, RefusesImpossibleShapes)
{
    double *none = nullptr;
    EXPECT_EQ(reverseBlocks(none, none, 0, 128), cudaErrorInvalidConfiguration) << "an empty grid";
    EXPECT_EQ(reverseBlocks(none, none, 2048, 2048), cudaErrorInvalidConfiguration) << "a block too large";
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST(Launch, LargeDynamicSharedMemoryMustBeAskedFor)
{
    EXPECT_EQ(largeShared(64 << 10, false), cudaErrorInvalidValue);
    EXPECT_EQ(largeShared(64 << 10, true), cudaSuccess);
    EXPECT_EQ(largeShared(228 << 10, true), cudaErrorInvalidValue);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    cudaGetLastError();
}

TEST(Launch, TraceNamesTheKernels)
{
    std::string path = testing::TempDir() + "cudasim_trace.txt";
    remove(path.c_str());
    setenv("CUDASIM_TRACE", path.c_str(), 1);
    OnDevice<unsigned> in(ascending(300)), out(std::vector<unsigned>(300, 0));
    EXPECT_EQ(blockScan(in, out, 300, nullptr), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    unsetenv("CUDASIM_TRACE");
    std::ifstream file(path);
    std::string line;
    ASSERT_TRUE(std::getline(file, line));
    EXPECT_NE(line.find("scanKernel<128u> grid 3 1 1 block 128 1 1"), std::string::npos) << line;
    EXPECT_FALSE(std::getline(file, line)) << line;
    remove(path.c_str());
}

} // namespace
