/*
 * What a profiler sees of a device's reducers: the same ranges as on the processor; of their records what the host knows, which is the
 * room for one until gsReducerGetStats has asked the device. The profiler is nvtx_tool.cpp.
 */
#include "device.h"
#include "nvtx_tool.h"

namespace gst
{
namespace
{

const int loaded = setenv("NVTX_INJECTION64_PATH", NVTX_TOOL, 1);

Plan planOf(const char *recipe)
{
    Plan plan;
    plan.recipe = recipe;
    plan.count = 20000;
    return plan;
}

void expectRecord(const std::vector<Range> &ranges, const char *known, double bytes, double density)
{
    ASSERT_FALSE(ranges.empty());
    for (const Range &range : ranges) {
        SCOPED_TRACE(range.name);
        EXPECT_FALSE(range.open);
        EXPECT_EQ(range.payload.at("known").text, known);
        EXPECT_EQ(range.payload.at("payload bytes").number, bytes);
        EXPECT_DOUBLE_EQ(range.payload.at("density").number, density);
    }
}

TEST(DeviceRanges, OfRecordsWhatTheHostKnows)
{
    NEEDS_DEVICE();
    DeviceRanks ranks(planOf("threshold:density=0.05,capacity=0.1"));
    takeRanges();
    for (uint64_t step = 0; step < 2; step++) {
        std::vector<uint8_t> slots = ranks.encode(makeGradients(Shape::Gaussian, ranks.plan(), step));
        for (int r = 0; r < 2; r++)
            ranks.decodeOne(r, slots.data());
        expectRecord(takeRanges(), "capacity", static_cast<double>(ranks.slotBytes()), 0.1);
    }
    gsStats_t before = ranks.stats(0);
    std::vector<uint8_t> slots = ranks.encode(makeGradients(Shape::Gaussian, ranks.plan(), 2));
    for (const Range &range : takeRanges())
        if (range.payload.at("rank").number == 0) {
            EXPECT_EQ(range.payload.at("known").text, "an earlier call");
            EXPECT_DOUBLE_EQ(range.payload.at("density").number, static_cast<double>(before.lastSent) / 20000);
        } else {
            EXPECT_EQ(range.payload.at("known").text, "capacity");
        }
}

TEST(DeviceRanges, Names)
{
    NEEDS_DEVICE();
    takeRanges();
    DeviceRanks ranks(planOf("chunk-topk"));
    std::vector<uint8_t> slots = ranks.encode(makeGradients(Shape::Gaussian, ranks.plan(), 0));
    ranks.decodeOne(0, slots.data());
    std::vector<std::string> names;
    for (const Range &range : takeRanges())
        names.push_back(range.name);
    EXPECT_EQ(names, (std::vector<std::string>{"gsEncode", "select", "pack", "gsEncode", "select", "pack", "gsDecode",
                                               "accumulate", "commit"}));
}

} // namespace
} // namespace gst
