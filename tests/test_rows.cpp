/* Rows: the dense sum to the bit, whatever rows there are and however blocks cut them, for the bytes of those that are not 0. */
#include "methods.h"
#include "record.h"

namespace gst
{
namespace
{

std::string rowsOf(uint64_t width)
{
    return "rows:width=" + std::to_string(width);
}

/* Normal numbers in a share of the rows, one of them at least, zeros of both signs elsewhere. */
Vector sparseRows(uint64_t count, uint64_t width, double share, uint64_t seed, gsDataType_t type)
{
    Vector g = randomVector(count, seed, type);
    std::mt19937_64 random(seed + 3);
    for (uint64_t first = 0; first < count; first += width) {
        bool travels = static_cast<double>(random() % 1000) < 1000 * share;
        for (uint64_t i = first; i < std::min(first + width, count) && !travels; i++)
            g[i] = i % 3 ? 0.0 : -0.0;
    }
    return g;
}

Vectors gradientsOf(const Plan &plan, uint64_t width, double share, uint64_t step)
{
    Vectors all;
    for (int r = 0; r < plan.nranks; r++)
        all.push_back(sparseRows(plan.count, width, share, 10 * step + static_cast<uint64_t>(r), plan.type));
    return all;
}

/* What dense makes of it; a sum that is -0 there is 0 here, where only some may have travelled. */
std::vector<uint8_t> denseSum(const Plan &plan, const Vectors &gradients)
{
    Plan dense = plan;
    dense.recipe = "dense";
    Fleet fleet(dense);
    std::vector<uint8_t> sum = fleet.allReduce(gradients)[0];
    for (size_t at = 0; at < sum.size(); at += bytesOf(plan.type))
        if (getElement(plan.type, &sum[at]) == 0)
            putElement(plan.type, &sum[at], 0.0);
    return sum;
}

uint64_t align16(uint64_t bytes)
{
    return (bytes + 15) / 16 * 16;
}

/* By the description: header and segment, table, values, rows' bits. */
uint64_t recordBytes(uint64_t count, uint64_t width, uint64_t kept, uint64_t valueWidth)
{
    return 80 + align16(4 * ((count + 4095) / 4096 + 1)) + align16(valueWidth * kept) +
           align16(((count + width - 1) / width + 7) / 8);
}

class Rows : public testing::TestWithParam<uint64_t>
{
  protected:
    uint64_t width() const
    {
        return GetParam();
    }
    Plan plan(uint64_t count, int nranks, gsDataType_t type = GS_FLOAT32) const
    {
        return planOf(rowsOf(width()), count, nranks, type);
    }
};

TEST_P(Rows, EqualTheDenseSum)
{
    uint64_t turn = 0; /* 7 counts take turns with 3 shares: over the types every count meets every share */
    for (gsDataType_t type : allTypes())
        for (uint64_t count : {0, 1, 767, 768, 4096, 5001, 12293}) {
            const double share = std::vector<double>{0.0, 0.2, 1.0}[turn++ % 3];
            int ranks = 1 + static_cast<int>(count % 4);
            Plan p = plan(count, ranks, type);
            p.op = count % 2 ? GS_AVG : GS_SUM;
            Fleet fleet(p);
            Vectors g = gradientsOf(p, width(), share, 0);
            std::vector<uint8_t> expected = denseSum(p, g);
            bool inPlace = share > 0;
            for (const std::vector<uint8_t> &result : fleet.allReduce(g, inPlace, share < 1 ? 0 : 1))
                ASSERT_TRUE(result == expected)
                    << nameOf(type) << ", count " << count << ", " << ranks << " ranks, share " << share;
        }
}

TEST_P(Rows, EveryShapeEqualsTheDenseSum)
{
    for (Shape shape : allShapes()) {
        Plan p = plan(5001, 3);
        Fleet fleet(p);
        Vectors g;
        for (const std::vector<float> &x : makeGradients(shape, p, 0))
            g.emplace_back(x.begin(), x.end());
        EXPECT_TRUE(fleet.allReduce(g)[2] == denseSum(p, g)) << nameOf(shape);
    }
}

/* One element travels with its row, and nothing else does. */
TEST_P(Rows, OneElementTakesItsRow)
{
    uint64_t count = 3 * 4096 + 1;
    for (uint64_t i : {uint64_t{0}, uint64_t{767}, uint64_t{4095}, uint64_t{4096}, uint64_t{9999}, count - 1}) {
        StageRanks ranks(plan(count, 1, GS_FLOAT64));
        Vector g(count, -0.0);
        g[i] = 1e-300;
        Slots slots = ranks.encode(Vectors{g});
        Record record = readRecord(slots.slot(0), slots.slotBytes());
        ASSERT_EQ(record.problem, "");
        uint64_t first = i / width() * width(), end = std::min(first + width(), count);
        EXPECT_EQ(record.kept, end - first);
        EXPECT_EQ(record.layout, static_cast<uint32_t>(rowsLayout));
        EXPECT_EQ(record.aux, width());
        for (const Coordinate &c : record.coordinates) {
            EXPECT_TRUE(c.index >= first && c.index < end);
            EXPECT_EQ(c.value, c.index == i ? 1e-300 : 0.0);
        }
        EXPECT_EQ(record.bytes, recordBytes(count, width(), end - first, 8));
    }
}

TEST_P(Rows, ZerosOfEitherSignDoNotTravel)
{
    for (gsDataType_t type : allTypes()) {
        Plan p = plan(9001, 2, type);
        Fleet fleet(p);
        Vectors g = {Vector(p.count, 0.0), Vector(p.count, -0.0)};
        EXPECT_EQ(fleet.sum(g), Vector(p.count, 0.0));
        gsStats_t stats = fleet.stats(1);
        EXPECT_EQ(stats.lastKept, 0u);
        EXPECT_EQ(stats.payloadBytes, recordBytes(p.count, width(), 0, 1));
    }
}

TEST_P(Rows, ARankMayHaveNothing)
{
    Plan p = plan(20001, 3);
    Fleet fleet(p);
    for (uint64_t step = 0; step < 3; step++) {
        Vectors g = gradientsOf(p, width(), 0.3, step);
        g[step] = Vector(p.count, 0.0);
        EXPECT_TRUE(fleet.allReduce(g)[0] == denseSum(p, g)) << "step " << step;
        EXPECT_EQ(fleet.stats(static_cast<int>(step)).lastKept, 0u) << "nor what it had before";
    }
}

TEST_P(Rows, NonFiniteIsNaNEverywhere)
{
    for (gsDataType_t type : allTypes()) {
        Plan p = plan(5001, 2, type);
        Fleet fleet(p);
        Vectors good = gradientsOf(p, width(), 0.2, 0);
        for (double poison : {std::nan(""), static_cast<double>(INFINITY), -static_cast<double>(INFINITY)}) {
            Vectors g = good;
            g[1][5000] = poison;
            for (const std::vector<uint8_t> &result : fleet.allReduce(g))
                EXPECT_TRUE(allNaN(result, type));
        }
        EXPECT_TRUE(fleet.allReduce(good)[0] == denseSum(p, good)) << "and then as ever";
    }
}

/* What leaves a rank: its length and its record, for every other rank. */
TEST_P(Rows, BytesFollowTheRows)
{
    for (gsDataType_t type : allTypes()) {
        uint64_t valueWidth = type == GS_FLOAT64 ? 8 : type == GS_BFLOAT16 ? 2 : 4;
        for (double share : {0.05, 1.0}) {
            Plan p = plan(12293, 3, type);
            Fleet fleet(p);
            Vectors g = gradientsOf(p, width(), share, 0);
            fleet.allReduce(g);
            for (int r = 0; r < 3; r++) {
                const Vector &own = g[static_cast<size_t>(r)];
                uint64_t kept = 0;
                for (uint64_t first = 0; first < p.count; first += width()) {
                    auto from = own.begin() + static_cast<long>(first);
                    auto to = own.begin() + static_cast<long>(std::min(first + width(), p.count));
                    bool any = std::any_of(from, to, [](double x) { return x != 0; });
                    kept += any ? static_cast<uint64_t>(to - from) : 0;
                }
                gsStats_t stats = fleet.stats(r);
                uint64_t bytes = recordBytes(p.count, width(), kept, valueWidth);
                EXPECT_EQ(stats.lastKept, kept);
                EXPECT_EQ(stats.lastSent, kept);
                EXPECT_EQ(stats.payloadBytes, bytes);
                EXPECT_EQ(stats.wireBytes, 2 * (bytes + 8)) << nameOf(type) << ", share " << share;
            }
        }
    }
}

TEST_P(Rows, RememberNothing)
{
    Fleet fleet(plan(9001, 2));
    for (const char *name : {"residual", "memory", "shared", "momentum"})
        EXPECT_TRUE(fleet.read(0, name).empty()) << name;
    gsMemory_t memory = {};
    Plan p = plan(9001, 2);
    gsReducerConfig_t config = configOf(p);
    ASSERT_EQ(gsReducerGetMemory(&config, 2, &memory), GS_SUCCESS) << gsGetLastError();
    EXPECT_LT(memory.stateBytes, 4096u);
}

INSTANTIATE_TEST_SUITE_P(Widths, Rows, testing::Values(1, 3, 32, 768, 5000, 4294967295u),
                         [](const auto &p) { return std::to_string(p.param); });

/* Three rows of two, of five elements: the first and the short last one travel. */
TEST(RowsRecord, ByteByByte)
{
    StageRanks ranks(planOf("rows:width=2", 5, 1, GS_FLOAT32));
    Slots slots = ranks.encode(Gradients{{1.0f, 0.0f, 0.0f, -0.0f, 4.0f}});
    const uint8_t *r = slots.slot(0);
    EXPECT_EQ(r[14], 4);
    EXPECT_EQ(r[15], 0);
    EXPECT_EQ(readAt<uint64_t>(r, 32), 3u);
    EXPECT_EQ(readAt<uint64_t>(r, 48), 128u);
    const std::vector<uint8_t> sections = {
        5, 0, 0,    0,    0, 0, 0, 0, 2, 0, 0,    0,    0, 0, 0, 0,  /* segment */
        0, 0, 0,    0,    3, 0, 0, 0, 0, 0, 0,    0,    0, 0, 0, 0,  /* table: 0, 3 */
        0, 0, 0x80, 0x3f, 0, 0, 0, 0, 0, 0, 0x80, 0x40, 0, 0, 0, 0,  /* 1, 0; 4 */
        5, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0,    0,    0, 0, 0, 0}; /* rows 0 and 2 */
    EXPECT_EQ(std::vector<uint8_t>(r + 64, r + 128), sections);
}

TEST(RowsRecipe, SaysWhatItDoesNotTake)
{
    struct {
        const char *recipe, *text;
    } const wrong[] = {
        {"rows", "width=W"},
        {"rows:width=0", "a whole number from 1"},
        {"rows:width=2.5", "a whole number from 1"},
        {"rows:width=4294967296", "a whole number from 1"},
        {"rows:width=8,density=0.1", "expected exchange, width"},
        {"rows:width=8,value=bf16", "expected exchange, width"},
        {"rows:width=8,twoway=1", "expected exchange, width"},
        {"rows:width=8,exchange=capacity", "a slot of fixed size"},
        {"rows:width=8,exchange=hierarchical", "a slot of fixed size"},
        {"rows:width=8,exchange=owner", "owners share out blocks"},
        {"rows:width=8,exchange=owner-exact", "owners share out blocks"},
        {"rows:width=8,exchange=auto", "not known in advance"},
        {"ef21:select=rows", "rows loses nothing"},
        {"dgc:select=rows,width=8", "rows loses nothing"},
        {"topk:width=8", "key \"width\""},
    };
    for (const auto &w : wrong) {
        Plan p = planOf(w.recipe, 100, 1);
        gsReducerConfig_t config = configOf(p);
        gsMemory_t memory;
        EXPECT_EQ(gsReducerGetMemory(&config, 1, &memory), GS_ERROR_INVALID_RECIPE) << w.recipe;
        EXPECT_NE(std::string(gsGetLastError()).find(w.text), std::string::npos)
            << w.recipe << ": " << gsGetLastError();
    }
    Plan p = planOf("rows:width=8", 4294967296ull, 1);
    gsReducerConfig_t config = configOf(p);
    gsMemory_t memory;
    EXPECT_EQ(gsReducerGetMemory(&config, 1, &memory), GS_ERROR_INVALID_RECIPE);
    EXPECT_NE(std::string(gsGetLastError()).find("4294967295"), std::string::npos) << gsGetLastError();
    p.count = config.count = 4294967295ull;
    EXPECT_EQ(gsReducerGetMemory(&config, 1, &memory), GS_SUCCESS) << gsGetLastError();
}

/* The cost model knows no more than that every row may travel. */
TEST(RowsRecipe, CanBePlanned)
{
    Plan p = planOf("rows:width=768", 768000, 8, GS_FLOAT32);
    gsReducerConfig_t config = configOf(p);
    gsCluster_t cluster = GS_CLUSTER_INIT;
    cluster.ranks = 8;
    gsPlan_t plan;
    ASSERT_EQ(gsPlanChoose(&config, &cluster, &plan), GS_SUCCESS) << gsGetLastError();
    EXPECT_GT(plan.seconds[GS_MODE_EXACT], 0);
    EXPECT_LT(plan.seconds[GS_MODE_CAPACITY], 0) << "not possible";
    EXPECT_LT(plan.seconds[GS_MODE_OWNER], 0);
}

} // namespace
} // namespace gst
