/* The record's bytes: offsets and figures as documented, read by the independent reader; what gsRecordInspect says of them. */
#include "oracle.h"
#include "ranks.h"

namespace gst
{
namespace
{

class Wire : public testing::TestWithParam<std::tuple<size_t, uint64_t>>
{
  protected:
    const Recipe &recipe() const
    {
        return allRecipes()[std::get<0>(GetParam())];
    }
    Plan plan() const
    {
        Plan plan;
        plan.recipe = recipe().text();
        plan.count = std::get<1>(GetParam());
        plan.nranks = 3;
        return plan;
    }
};

uint32_t layoutOf(const Recipe &recipe)
{
    return recipe.rule == Rule::Topk ? chunkedLayout : recipe.rule == Rule::Randk ? maskLayout : globalLayout;
}

std::vector<uint64_t> maskOf(const Recipe &recipe, const Plan &plan, const uint8_t *record)
{
    std::vector<uint64_t> all =
                              randkMask(plan.count, recipe.effectiveDensity(), plan.seed, readAt<uint64_t>(record, 16)),
                          sent;
    uint64_t m = readAt<uint64_t>(record, 32), n = all.size();
    uint32_t word = draw(plan.seed, 0, readAt<uint64_t>(record, 16), 0, drawThin);
    for (uint64_t j = 0; j < n; j++)
        if (m >= n || thinningStays(j, n, m, word))
            sent.push_back(all[j]);
    return sent;
}

TEST_P(Wire, FieldsAreWhereTheyAreDocumented)
{
    StageRanks ranks(plan());
    for (uint64_t step = 0; step < 2; step++) {
        Slots slots = ranks.encode(makeGradients(Shape::Gaussian, plan(), step));
        for (int r = 0; r < 3; r++) {
            const uint8_t *bytes = slots.slot(r);
            Record record = readRecord(bytes, slots.slotBytes(), {maskOf(recipe(), plan(), bytes)});
            EXPECT_EQ(record.problem, "");
            EXPECT_EQ(readAt<uint32_t>(bytes, 0), 0x31525347u);
            EXPECT_EQ(readAt<uint64_t>(bytes, 56), recordChecksum(bytes, record.bytes));
            EXPECT_EQ(record.rank, static_cast<uint32_t>(r));
            EXPECT_EQ(record.step, step);
            EXPECT_EQ(record.count, plan().count);
            EXPECT_EQ(record.layout, layoutOf(recipe()));
            EXPECT_EQ(record.coding, recipe().coding);
            EXPECT_EQ(record.kept, record.coordinates.size());
            EXPECT_LE(record.bytes, slots.slotBytes());
            EXPECT_EQ(record.configHash, readAt<uint64_t>(slots.slot(0), 40)) << "alike on all ranks";
            bool shared = recipe().coding == codingShared;
            EXPECT_TRUE(shared || record.aux == (recipe().rule == Rule::Topk ? static_cast<uint32_t>(recipe().k) : 0u));
            EXPECT_TRUE(shared || readAt<uint32_t>(bytes, 76) == 0u);
        }
        ranks.decode(slots);
    }
}

TEST_P(Wire, InspectSaysTheSame)
{
    static const char *layouts[] = {"global", "chunked", "mask", "all", "rows"}, *codings[] = {"f32", "bf16", "shared"};
    StageRanks ranks(plan());
    Slots slots = ranks.encode(makeGradients(Shape::Gaussian, plan(), 0));
    Record record = readRecord(slots.slot(2), slots.slotBytes(), {maskOf(recipe(), plan(), slots.slot(2))});
    gsRecordInfo_t info;
    ASSERT_EQ(gsRecordInspect(slots.slot(2), slots.slotBytes(), &info), GS_SUCCESS) << gsGetLastError();
    EXPECT_EQ(info.rank, 2u);
    EXPECT_EQ(info.flags, record.flags);
    EXPECT_EQ(info.step, 0u);
    EXPECT_EQ(info.count, record.count);
    EXPECT_EQ(info.kept, record.kept);
    EXPECT_EQ(info.configHash, record.configHash);
    EXPECT_EQ(info.recordBytes, record.bytes);
    EXPECT_STREQ(info.layout, layouts[record.layout]);
    EXPECT_STREQ(info.value, codings[record.coding]);
    EXPECT_EQ(info.valueBytes, record.valueBytes);
    EXPECT_EQ(info.indexBytes, record.indexBytes);
    EXPECT_EQ(gsRecordInspect(slots.slot(2), record.bytes, &info), GS_SUCCESS) << "no byte more is needed";
    EXPECT_EQ(gsRecordInspect(slots.slot(2), record.bytes - 1, &info), GS_ERROR_CORRUPT);
}

/* What travels is what is decoded: one rank's result is its record. */
TEST_P(Wire, DecodedAsRead)
{
    Plan one = plan();
    one.nranks = 1;
    StageRanks ranks(one);
    Slots slots = ranks.encode(makeGradients(Shape::Skewed, one, 0));
    std::vector<float> expected(one.count, 0.0f);
    for (const Coordinate &c :
         readRecord(slots.slot(0), slots.slotBytes(), {maskOf(recipe(), one, slots.slot(0))}).coordinates)
        expected[c.index] = static_cast<float>(c.value);
    EXPECT_EQ(numbersOf(ranks.decode(slots)[0], GS_FLOAT32), expected);
}

TEST_P(Wire, NonFiniteRecordsAreEmpty)
{
    StageRanks ranks(plan());
    Gradients g = makeGradients(Shape::Gaussian, plan(), 0);
    g[1][plan().count / 2] = INFINITY;
    Slots slots = ranks.encode(g);
    gsRecordInfo_t info;
    ASSERT_EQ(gsRecordInspect(slots.slot(1), slots.slotBytes(), &info), GS_SUCCESS) << gsGetLastError();
    EXPECT_EQ(info.flags, GS_RECORD_NONFINITE);
    EXPECT_EQ(info.kept, 0u);
    EXPECT_EQ(info.valueBytes, 0u);
    for (const std::vector<uint8_t> &result : ranks.decode(slots))
        EXPECT_TRUE(allNaN(result, GS_FLOAT32));
}

std::vector<size_t> sparseRecipes()
{
    std::vector<size_t> indices;
    for (size_t i = 0; i < allRecipes().size(); i++)
        if (allRecipes()[i].rule != Rule::Dense)
            indices.push_back(i);
    return indices;
}

INSTANTIATE_TEST_SUITE_P(Recipes, Wire,
                         testing::Combine(testing::ValuesIn(sparseRecipes()), testing::Values(1, 100, 4096, 30001)),
                         [](const auto &p) {
                             return nameOf(allRecipes()[std::get<0>(p.param)]) + "_" +
                                    std::to_string(std::get<1>(p.param));
                         });

/* A record small enough to be written down: two of five coordinates, float32. */
TEST(Wire, ByteByByte)
{
    Plan plan;
    plan.recipe = "threshold:tau=2,capacity=1,value=f32";
    plan.count = 5;
    plan.nranks = 1;
    StageRanks ranks(plan);
    Slots slots = ranks.encode({{1.0f, -3.0f, 2.0f, 0.0f, 4.0f}});
    const uint8_t *r = slots.slot(0);
    const std::vector<uint8_t> head = {'G', 'S', 'R', '1', 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0};
    EXPECT_EQ(std::vector<uint8_t>(r, r + 16), head);
    EXPECT_EQ(readAt<uint64_t>(r, 24), 5u);
    EXPECT_EQ(readAt<uint64_t>(r, 32), 2u);
    EXPECT_EQ(readAt<uint64_t>(r, 48), 128u);
    const std::vector<uint8_t> sections = {
        5, 0,    0,    0,    0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0,  /* segment */
        0, 0,    0,    0,    2, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0,  /* table: 0, 2 */
        0, 0,    0x40, 0xc0, 0, 0, 0x80, 0x40, 0, 0, 0, 0, 0, 0, 0, 0,  /* -3, 4 */
        1, 0x40, 0,    0,    0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0}; /* 1, 4 */
    EXPECT_EQ(std::vector<uint8_t>(r + 64, r + 128), sections);
}

} // namespace
} // namespace gst
