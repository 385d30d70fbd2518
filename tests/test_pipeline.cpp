/* The whole road, for every recipe, type, instruction set, shape of data and count: records against the referee, results
 * against the sum of what the records say, threads against single stages. */
#include "draw.h"
#include "oracle.h"
#include "ranks.h"

namespace gst
{
namespace
{

struct Case {
    Shape shape;
    uint64_t count;
    int nranks;
    bool inPlace;
    size_t skew;
    gsRedOp_t op;
};

constexpr uint64_t counts[] = {0, 1, 2, 31, 32, 33, 4095, 4096, 4097, 8191, 8192, 12289, 70001};

/* The full product of counts, ranks and shapes, or a few draws from it a count; the other axes are always drawn. */
std::vector<Case> casesOf(size_t salt)
{
    std::vector<Case> cases;
    std::mt19937 random(static_cast<unsigned>(salt));
    auto add = [&](uint64_t count, int nranks, Shape shape) {
        cases.push_back({shape, count, nranks, random() % 2 == 0, random() % 5, random() % 2 ? GS_SUM : GS_AVG});
    };
    for (uint64_t count : counts)
        for (size_t n = 0; n < (runsLong() ? 64 : count < 50000 ? 2 : 1); n++) {
            size_t pick = runsLong() ? n : random() % 64;
            add(count, static_cast<int>(pick / 8) + 1, allShapes()[pick % 8]);
        }
    return cases;
}

/* Results of all ranks are the same bits, and near the sum of what the records say. */
void checkResults(const Results &results, const std::vector<Record> &records, const Plan &plan)
{
    std::vector<Sum> sums(plan.count);
    for (const Record &record : records)
        for (const Coordinate &c : record.coordinates)
            sums[c.index].add(c.value);
    for (const std::vector<uint8_t> &result : results)
        EXPECT_TRUE(result == results[0]) << "ranks differ";
    std::vector<float> numbers = numbersOf(results[0], plan.type);
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < plan.count; i++) {
        double error = std::fabs(numbers[i] - sums[i].result(plan.op, plan.nranks));
        wrong += !(error <= sums[i].tolerance(plan.op, plan.nranks, plan.type));
    }
    EXPECT_EQ(wrong, 0u) << "elements are not the sum of the records";
}

/* One step of the stages: the referees judge every record. */
Results refereedStep(StageRanks &stages, std::vector<Referee> &referees, const Gradients &gradients, size_t skew)
{
    std::vector<float> taus;
    for (int r = 0; r < stages.plan().nranks; r++)
        taus.push_back(stages.stats(r).tau);
    Slots slots = stages.encode(gradients, skew);
    std::vector<Record> records;
    for (size_t r = 0; r < gradients.size(); r++)
        records.push_back(referees[r].check(gradients[r], slots.slot(static_cast<int>(r)), slots.slotBytes(), taus[r]));
    Results results = stages.decode(slots, skew);
    checkResults(results, records, stages.plan());
    return results;
}

void checkDense(const Results &results, const Gradients &gradients, const Plan &plan)
{
    std::vector<Record> records(gradients.size());
    for (size_t r = 0; r < gradients.size(); r++)
        for (uint64_t i = 0; i < plan.count; i++)
            records[r].coordinates.push_back({i, gradients[r][i], 0});
    checkResults(results, records, plan);
}

class Pipeline : public testing::TestWithParam<std::tuple<size_t, gsDataType_t>>
{
  protected:
    const Recipe &recipe() const
    {
        return allRecipes()[std::get<0>(GetParam())];
    }

    Plan planOf(const Case &c) const
    {
        Plan plan;
        plan.recipe = recipe().text();
        plan.type = std::get<1>(GetParam());
        plan.count = c.count;
        plan.nranks = c.nranks;
        plan.op = c.op;
        plan.seed = 0x123456789ull + c.count;
        return plan;
    }

    /* Three steps; returns every step's result. */
    std::vector<Results> run(const Case &c)
    {
        Plan plan = planOf(c);
        ThreadRanks threads(plan);
        std::unique_ptr<StageRanks> stages;
        std::vector<Referee> referees;
        if (recipe().rule != Rule::Dense)
            stages = std::make_unique<StageRanks>(plan);
        for (int r = 0; r < c.nranks; r++)
            referees.emplace_back(recipe(), c.count, plan.seed, static_cast<uint32_t>(r));
        std::vector<Results> all;
        for (uint64_t step = 0; step < 3 && !testing::Test::HasFatalFailure(); step++) {
            Gradients gradients = makeGradients(c.shape, plan, step);
            all.push_back(threads.allReduce(gradients, c.inPlace, c.skew));
            if (!stages)
                checkDense(all.back(), gradients, plan);
            else
                EXPECT_TRUE(refereedStep(*stages, referees, gradients, c.skew) == all.back())
                    << "threads differ from stages";
        }
        return all;
    }
};

TEST_P(Pipeline, EqualsTheOracle)
{
    for (const Case &c : casesOf(std::get<0>(GetParam()))) {
        std::vector<Results> first;
        for (const char *set : instructionSets()) {
            SCOPED_TRACE(testing::Message()
                         << set << ", " << nameOf(c.shape) << ", count " << c.count << ", ranks " << c.nranks
                         << (c.inPlace ? ", in place" : "") << ", skew " << c.skew << ", op " << c.op);
            Environment cpu("GS_CPU", set);
            std::vector<Results> all = run(c);
            if (first.empty())
                first = all;
            EXPECT_TRUE(all == first) << "instruction sets differ";
            if (testing::Test::HasFailure())
                return;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(AllRecipes, Pipeline,
                         testing::Combine(testing::Range<size_t>(0, allRecipes().size()),
                                          testing::Values(GS_FLOAT32, GS_BFLOAT16)),
                         [](const auto &p) {
                             return nameOf(allRecipes()[std::get<0>(p.param)]) + "_" + nameOf(std::get<1>(p.param));
                         });

/* The draws themselves, against the published test vectors of Philox4x32-10. */
TEST(Oracle, PhiloxKnownAnswers)
{
    using Four = std::array<uint32_t, 4>;
    EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Four{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Four{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              (Four{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

} // namespace
} // namespace gst
