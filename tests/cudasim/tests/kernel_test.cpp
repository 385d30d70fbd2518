/* Right kernels give right results under every schedule; wrong ones are caught, each in the way it should be. */
#include "kernels.h"

#include <cstdlib>
#include <fstream>
#include <gtest/gtest.h>
#include <numeric>
#include <vector>

namespace {

/* Device memory that holds a copy of a vector. */
template <typename T> class OnDevice {
public:
    explicit OnDevice(const std::vector<T> &values) : count(values.size()) {
        EXPECT_EQ(cudaMalloc(reinterpret_cast<void **>(&data), count * sizeof(T)), cudaSuccess);
        EXPECT_EQ(cudaMemcpy(data, values.data(), count * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
    }
    ~OnDevice() { cudaFree(data); }
    std::vector<T> fetch() const {
        std::vector<T> values(count);
        EXPECT_EQ(cudaMemcpy(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
        return values;
    }
    operator T *() const { return data; }

private:
    T *data = nullptr;
    size_t count;
};

std::vector<unsigned> ascending(unsigned count) {
    std::vector<unsigned> values(count);
    std::iota(values.begin(), values.end(), 0);
    return values;
}

/* ---- right kernels ---------------------------------------------------------------------------------------------- */

class EverySchedule : public testing::TestWithParam<const char *> {
protected:
    void SetUp() override {
        setenv("CUDASIM_SCHEDULE", GetParam(), 1);
        setenv("CUDASIM_BLOCKS", GetParam(), 1);
    }
    void TearDown() override {
        EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        unsetenv("CUDASIM_SCHEDULE");
        unsetenv("CUDASIM_BLOCKS");
    }
};

INSTANTIATE_TEST_SUITE_P(Schedules, EverySchedule, testing::Values("forward", "reverse", "random:1", "random:2"));

TEST_P(EverySchedule, ScanOfEachBlock) {
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

TEST_P(EverySchedule, BallotCompactionKeepsOrder) {
    std::vector<float> values(777);
    std::vector<unsigned> expected;
    for (unsigned i = 0; i < values.size(); i++) {
        values[i] = float(i * 7919 % 1000) - 500;
        if (std::abs(values[i]) > 300) expected.push_back(i);
    }
    OnDevice<float> in(values);
    OnDevice<unsigned> kept(std::vector<unsigned>(expected.size(), 0)), count({0});
    ASSERT_EQ(ballotCompaction(in, kept, count, 777, 300), cudaSuccess);
    EXPECT_EQ(count.fetch()[0], expected.size());
    EXPECT_EQ(kept.fetch(), expected);
}

TEST_P(EverySchedule, HistogramWithSharedAtomics) {
    std::vector<unsigned char> values(5000);
    std::vector<unsigned> expected(256, 0);
    for (unsigned i = 0; i < values.size(); i++) expected[values[i] = (unsigned char)(i * i % 251)]++;
    OnDevice<unsigned char> in(values);
    OnDevice<unsigned> bins(std::vector<unsigned>(256, 0));
    ASSERT_EQ(histogram(in, bins, 5000), cudaSuccess);
    EXPECT_EQ(bins.fetch(), expected);
}

TEST_P(EverySchedule, DynamicSharedMemory) {
    constexpr unsigned count = 300, block = 128;
    std::vector<double> values(count);
    std::iota(values.begin(), values.end(), 0.5);
    OnDevice<double> in(values), out(std::vector<double>(count, 0));
    ASSERT_EQ(reverseBlocks(in, out, count, block), cudaSuccess);
    for (unsigned start = 0; start < count; start += block)
        std::reverse(values.begin() + start, values.begin() + std::min(start + block, count));
    EXPECT_EQ(out.fetch(), values);
}

TEST_P(EverySchedule, WarpBuiltins) {
    OnDevice<unsigned> out(std::vector<unsigned>(32, ~0u));
    ASSERT_EQ(warpBuiltins(out), cudaSuccess);
    EXPECT_EQ(out.fetch(), std::vector<unsigned>(32, 0));
}

TEST_P(EverySchedule, ThreeDimensions) {
    OnDevice<int> out(std::vector<int>(12, -1));
    ASSERT_EQ(sharedCounters(out), cudaSuccess);
    EXPECT_EQ(out.fetch(), std::vector<int>(12, 180 + 2400 + 30000)); /* x, y, z */
}

} // namespace
