/*
 * Real gradients: every recipe, type and instruction set makes the same records and the same sums of them. Prints one hash a
 * case, so that logs of different machines and backends can be compared. Reads grad_*.npy in the folder GS_TEST_DATA.
 */
#include "draw.h"
#include "npy.h"
#include "oracle.h"
#include "ranks.h"

namespace gst
{
namespace
{

class RealGradients : public testing::TestWithParam<const char *>
{
  protected:
    void SetUp() override
    {
        std::string reason = readTestGradients(GetParam(), gradients_);
        if (!reason.empty())
            GTEST_SKIP() << reason;
    }

    /* Two steps through the single stages; hashes of all records, and of the sums. */
    struct Hashes {
        uint64_t records = fnv1a(nullptr, 0), sums = fnv1a(nullptr, 0);
        bool operator==(const Hashes &other) const
        {
            return records == other.records && sums == other.sums;
        }
    };
    Hashes hashesOf(const Plan &plan, const Gradients &gradients, bool judged)
    {
        Hashes hashes;
        StageRanks ranks(plan);
        for (int step = 0; step < 2; step++) {
            Slots slots = ranks.encode(gradients);
            for (int r = 0; r < plan.nranks; r++) {
                uint64_t bytes = readAt<uint64_t>(slots.slot(r), 48);
                EXPECT_TRUE(bytes <= slots.slotBytes());
                hashes.records = fnv1a(slots.slot(r), bytes, hashes.records);
            }
            if (judged && step == 0)
                judge(plan, gradients, slots);
            Results results = ranks.decode(slots);
            for (const std::vector<uint8_t> &result : results)
                EXPECT_TRUE(result == results[0]) << "ranks differ";
            hashes.sums = fnv1a(results[0].data(), results[0].size(), hashes.sums);
        }
        return hashes;
    }
    void judge(const Plan &plan, const Gradients &gradients, Slots &slots)
    {
        for (const Recipe &recipe : allRecipes())
            for (int r = 0; r < plan.nranks && recipe.text() == plan.recipe; r++) {
                Referee referee(recipe, plan.count, plan.seed, static_cast<uint32_t>(r));
                referee.check(gradients[static_cast<size_t>(r)], slots.slot(r), slots.slotBytes(), 0);
            }
    }

    Gradients gradients_;
};

TEST_P(RealGradients, SameRecordsAndSumsEverywhere)
{
    for (const Recipe &recipe : allRecipes())
        for (gsDataType_t type : {GS_FLOAT32, GS_BFLOAT16}) {
            if (recipe.rule == Rule::Dense)
                continue;
            if (!isDrawn(recipe.text().size() + std::strlen(GetParam()) + (type == GS_BFLOAT16)))
                continue; /* of the other file */
            SCOPED_TRACE(recipe.text() + " " + nameOf(type));
            Gradients gradients = roundedTo(type, gradients_);
            Plan plan;
            plan.recipe = recipe.text();
            plan.type = type;
            plan.count = gradients[0].size();
            plan.nranks = static_cast<int>(gradients.size());
            std::vector<Hashes> all;
            for (const char *set : instructionSets()) {
                Environment cpu("GS_CPU", set);
                all.push_back(hashesOf(plan, gradients, all.empty()));
                EXPECT_TRUE(all.back() == all[0]) << set;
            }
            std::printf("hash %s %s %s records %016llx sums %016llx\n", GetParam(), plan.recipe.c_str(), nameOf(type),
                        static_cast<unsigned long long>(all[0].records), static_cast<unsigned long long>(all[0].sums));
        }
}

INSTANTIATE_TEST_SUITE_P(Files, RealGradients, testing::Values("grad_cnn_step10.npy", "grad_lm_step20.npy"),
                         [](const auto &p) { return std::string(p.param).substr(0, std::string(p.param).find('.')); });

} // namespace
} // namespace gst
