/* Lists of tensors on a device against the CPU's: the same records, results and states, bit for bit, and the same verdict on what
 * is no record of theirs. How a call's pointers reach the device is NCCL's test. */
#include "device.h"
#include "methods.h"
#include "tensors.h"

namespace gst
{
namespace
{

const char *const recipes[] = {
    "threshold:density=0.1",
    "threshold:tau=0.1,capacity=0.01,value=f32", /* overflows */
    "threshold:rms=1.5,capacity=0.5",
    "threshold:density=0.1,value=f16",
    "threshold:density=0.1,value=2bit",
    "chunk-topk:k=100",
    "chunk-topk:k=41,value=2bit",
    "topk:density=0.05",
    "ef-sign",
    "ef-sign:bucket=all",
    "identity",
    "identity:value=f16",
    "gspar:density=0.2",
    "gspar:density=0.3,value=shared",
    "gspar:density=0.3,value=shared,capacity=0.02", /* thinned */
    "gspar:density=0.02,value=shared",
    "gspar:epsilon=1,capacity=0.8",
    "randk:density=0.3",
    "randk:density=0.5,capacity=0.05,value=f16", /* thinned */
    "terngrad",
    "qsgd:levels=5",
    "natural",
    "dgc:density=0.05,clip=2",
    "ef21:density=0.1",
    "ef21:select=grid,levels=7",
    "clag:density=0.1,exchange=capacity",
    "diana:select=natural",
    "tng:reference=last+ema+mean,search=worker",
    "tng:reference=ema+window,search=hindsight,select=gspar,density=0.3",
    "tng:reference=last+mean,search=fit,select=topk,density=0.1",
    "tng:reference=ema,search=worker,mode=quotient",
};

class CudaLists : public testing::TestWithParam<std::tuple<const char *, gsDataType_t>>
{
  protected:
    static Plan plan(const std::vector<uint64_t> &sizes, int nranks, uint64_t wholeBelow = 0)
    {
        Plan plan = listOf(std::get<0>(GetParam()), sizes, nranks, std::get<1>(GetParam()), wholeBelow);
        plan.op = nranks % 2 ? GS_AVG : GS_SUM;
        return plan;
    }
};

/* Shapes in turn, with a NaN in the first element or the last, of another rank: the steps after it show that no state has changed. */
void runSteps(const Plan &plan, size_t skew, int steps)
{
    static const Shape shapes[] = {Shape::Gaussian, Shape::Skewed, Shape::Ties, Shape::Gaussian, Shape::Zero};
    SCOPED_TRACE(plan.recipe + " " + nameOf(plan.type) + ", ranks " + std::to_string(plan.nranks));
    Pair pair(plan);
    for (int step = 0; step < steps; step++) {
        SCOPED_TRACE("step " + std::to_string(step));
        Gradients gradients = makeGradients(shapes[step % 5], plan, static_cast<uint64_t>(step));
        if (step == 1)
            gradients.back()[skew ? 0 : plan.count - 1] = NAN;
        pair.step(gradients, skew);
        if (testing::Test::HasFatalFailure())
            return;
    }
}

TEST_P(CudaLists, EqualTheCpu)
{
    NEEDS_DEVICE();
    if (std::get<1>(GetParam()) != GS_FLOAT32 && std::get<1>(GetParam()) != GS_BFLOAT16 && !runsLong())
        GTEST_SKIP() << "with GS_TEST_LONG";
    if (!isDrawn(std::strlen(std::get<0>(GetParam())) + (std::get<1>(GetParam()) == GS_BFLOAT16)))
        GTEST_SKIP() << "another type was drawn for this recipe";
    runSteps(plan(mixedSizes(), 2), 0, runsLong() ? 6 : 3);
    runSteps(plan({700, 4100, 4096, 5}, 3, 5), 1, 3);
}

/* Nothing travels whole; all does; there is nothing at all. */
TEST_P(CudaLists, OneKindAlone)
{
    NEEDS_DEVICE();
    if (std::get<1>(GetParam()) != GS_FLOAT32 && !runsLong())
        GTEST_SKIP() << "with GS_TEST_LONG";
    runSteps(plan({31, 4097, 1}, 2, 1), 1, 2);
    runSteps(plan({31, 0, 4095}, 1), 0, 3);
    runSteps(plan({0, 0}, 1), 0, 1);
}

TEST_P(CudaLists, ResetScaleAndImport)
{
    NEEDS_DEVICE();
    if (std::get<1>(GetParam()) != GS_BFLOAT16 && !runsLong())
        GTEST_SKIP() << "with GS_TEST_LONG";
    Plan p = plan({5000, 90}, 1);
    Pair pair(p);
    pair.step(makeGradients(Shape::Gaussian, p, 1), 0);
    std::vector<uint8_t> saved = pair.device.state(0);
    EXPECT_EQ(gsReducerScale(pair.cpu.reducer(0), 0.25f, nullptr), GS_SUCCESS);
    EXPECT_EQ(gsReducerScale(pair.device.reducer(0), 0.25f, pair.device.stream()), GS_SUCCESS);
    pair.device.stream().synchronize();
    pair.step(makeGradients(Shape::Skewed, p, 2), 0);
    for (const char *name : {"residual", "momentum", "memory", "shared", "last"})
        EXPECT_EQ(readVector(pair.device.reducer(0), name, p.count, p.type),
                  readVector(pair.cpu.reducer(0), name, p.count, p.type));
    EXPECT_EQ(gsReducerImport(pair.device.reducer(0), saved.data(), saved.size()), GS_SUCCESS) << gsGetLastError();
    EXPECT_EQ(pair.device.state(0), saved);
    EXPECT_EQ(gsReducerReset(pair.device.reducer(0), pair.device.stream()), GS_SUCCESS);
    EXPECT_EQ(gsReducerReset(pair.cpu.reducer(0), nullptr), GS_SUCCESS);
    EXPECT_EQ(pair.device.state(0), pair.cpu.state(0));
}

/* Any byte of the header, of the segment table, and some behind it, with a right checksum: CPU and device say the same. */
TEST_P(CudaLists, WrongRecordsAreRefusedAlike)
{
    NEEDS_DEVICE();
    if (std::get<1>(GetParam()) != GS_FLOAT32)
        GTEST_SKIP() << "the type does not enter";
    Plan p = plan({5000, 77, 4096, 0, 300}, 2);
    Pair pair(p);
    Gradients g = makeGradients(Shape::Gaussian, p, 1);
    Slots good = pair.cpu.encode(g);
    pair.device.encode(g);
    std::mt19937_64 random(7 + ownCases);
    int rejected = 0;
    for (int round = 0; round < (runsLong() ? 600 : 24); round++) {
        size_t table = 64 + 16 * 6, bytes = readAt<uint64_t>(good.slot(1), 48);
        size_t at = round % 3 ? 12 + random() % (table - 12) : random() % bytes;
        SCOPED_TRACE("byte " + std::to_string(at));
        Slots slots(2, good.slotBytes());
        std::memcpy(slots.slot(0), good.data(), good.bytes());
        slots.slot(1)[at] ^= static_cast<uint8_t>(1 + random() % 255);
        uint64_t length = readAt<uint64_t>(slots.slot(1), 48);
        if (length >= 80 && length <= slots.slotBytes())
            writeAt(slots.slot(1), 56, recordChecksum(slots.slot(1), length));
        Buffer recv(p.type, p.count);
        std::memset(recv.data(), 0x5A, recv.raw().size());
        gsResult_t expected = pair.cpu.decodeOne(0, slots, recv);
        std::string text = gsGetLastError();
        std::vector<uint8_t> found = pair.device.decodeOne(0, slots.data());
        ASSERT_EQ(pair.device.asyncError(0), expected) << text;
        ASSERT_TRUE(sameNumbers(found, recv.raw(), p.type));
        ASSERT_TRUE(pair.device.state(0) == pair.cpu.state(0));
        rejected += expected != GS_SUCCESS;
        if (expected != GS_SUCCESS)
            continue;
        ASSERT_EQ(gsReducerReset(pair.cpu.reducer(0), nullptr), GS_SUCCESS);
        ASSERT_EQ(gsReducerReset(pair.device.reducer(0), pair.device.stream()), GS_SUCCESS);
        pair.cpu.encodeOne(0, g[0], good.slot(0));
        DeviceMemory record(good.slotBytes());
        pair.device.encodeOne(0, g[0], record.data());
    }
    EXPECT_GT(rejected, 12);
}

std::string nameOfCase(const testing::TestParamInfo<CudaLists::ParamType> &info)
{
    return std::to_string(info.index) + "_" + nameOf(std::string(std::get<0>(info.param))) + "_" +
           nameOf(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(Recipes, CudaLists,
                         testing::Combine(testing::ValuesIn(recipes),
                                          testing::Values(GS_FLOAT32, GS_BFLOAT16, GS_FLOAT64, GS_FLOAT16)),
                         nameOfCase);

} // namespace
} // namespace gst
