/* The exchange by way of owners: the same sums as all-gathers, what a second compression does and costs, failures, states, and how evenly
 * blocks are spread. */
#include "methods.h"
#include "npy.h"

namespace gst
{
namespace
{

bool has(const std::string &recipe, const char *word)
{
    return recipe.find(word) != std::string::npos;
}

/* Linear in its record, and with a sum that owners can send. */
std::vector<std::string> linearRecipes()
{
    std::vector<std::string> linear;
    for (const std::string &recipe : methodRecipes())
        if (recipe != "dense" && recipe[0] != 'l' && !has(recipe, "clag") && !has(recipe, "quotient") &&
            !has(recipe, "twoway") && !has(recipe, "cdadam") && !has(recipe, "exchange"))
            linear.push_back(recipe);
    return linear;
}

std::string with(const std::string &recipe, const std::string &key)
{
    return recipe + (has(recipe, ":") ? "," : ":") + key;
}

void expectSameVectors(const Fleet &one, const Fleet &other, const std::string &where)
{
    for (int r = 0; r < one.plan().nranks; r++)
        for (const char *name : {"residual", "momentum", "memory", "shared", "previous", "last", "ema", "ema2", "snapshot"}) {
            std::vector<double> wide(one.plan().count + 1), alike(one.plan().count + 1);
            gsResult_t found = gsReducerRead(one.reducer(r), name, wide.data(), one.plan().count);
            ASSERT_EQ(found, gsReducerRead(other.reducer(r), name, alike.data(), one.plan().count)) << name;
            EXPECT_TRUE(wide == alike) << name << " of rank " << r << ", " << where;
        }
}

class Owners : public testing::TestWithParam<std::string>
{
};

TEST_P(Owners, SumsEqualThoseOfAnAllGather)
{
    static const uint64_t counts[] = {0, 1, 4097, 12293, 40961};
    for (int ranks = 1; ranks <= 8; ranks++)
        for (const char *exchange : {"exchange=owner"}) {
            uint64_t count = counts[(ranks + has(exchange, "exact")) % 5];
            gsDataType_t type = allTypes()[static_cast<size_t>(ranks) % 4];
            Plan plan = planOf(GetParam(), count, ranks, type), byOwners = planOf(with(GetParam(), exchange), count, ranks, type);
            plan.op = byOwners.op = ranks % 2 ? GS_AVG : GS_SUM;
            std::string where = byOwners.recipe + ", " + std::to_string(ranks) + " ranks, count " + std::to_string(count) + ", " + nameOf(type);
            Course flat(plan), owned(byOwners);
            for (uint64_t step = 0; step < 4; step++) {
                Results expected = flat.step(step), got = owned.step(step);
                uint64_t limited = 0;
                for (int r = 0; r < ranks; r++) {
                    gsStats_t a = flat.fleet.stats(r), b = owned.fleet.stats(r);
                    limited += a.thinned + a.overflowed + b.thinned + b.overflowed;
                    EXPECT_EQ(a.lastKept, b.lastKept) << where;
                }
                if (limited)
                    break; /* a part's capacity is not the whole's */
                for (int r = 0; r < ranks; r++)
                    ASSERT_TRUE(expected[0] == got[static_cast<size_t>(r)]) << where << ", step " << step;
            }
        }
}

TEST_P(Owners, RememberTheSame)
{
    for (const char *exchange : {"exchange=owner"}) {
        Course flat(planOf(GetParam(), 20001, 3)), owned(planOf(with(GetParam(), exchange), 20001, 3));
        for (uint64_t step = 0; step < 4; step++) {
            flat.step(step);
            owned.step(step);
        }
        gsStats_t a = flat.fleet.stats(1), b = owned.fleet.stats(1);
        if (a.thinned + a.overflowed + b.thinned + b.overflowed)
            continue;
        expectSameVectors(flat.fleet, owned.fleet, with(GetParam(), exchange));
    }
}

INSTANTIATE_TEST_SUITE_P(Linear, Owners, testing::ValuesIn(linearRecipes()), [](const auto &p) { return nameOf(p.param); });

/* Compressors that look at one block at a time do the same at its owner. */
class TwoWay : public testing::TestWithParam<std::string>
{
};

TEST_P(TwoWay, OwnersDoWhatEveryRankWouldReplay)
{
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64})
        for (int ranks : {1, 2, 3, 5, 8})
            for (const char *exchange : {"exchange=owner"}) {
                Plan plan = planOf(GetParam(), 20001, ranks, type), byOwners = planOf(with(GetParam(), exchange), 20001, ranks, type);
                plan.op = byOwners.op = ranks % 2 ? GS_AVG : GS_SUM;
                Course flat(plan), owned(byOwners);
                for (uint64_t step = 0; step < 5; step++) {
                    Results expected = flat.step(step), got = owned.step(step);
                    for (const std::vector<uint8_t> &result : got)
                        ASSERT_TRUE(result == expected[0]) << byOwners.recipe << ", " << ranks << " ranks, step " << step;
                }
            }
}

INSTANTIATE_TEST_SUITE_P(Blockwise, TwoWay,
                         testing::Values("cdadam", "cdadam:select=chunk-topk,k=100", "cdadam:select=identity", "ef-sign:twoway=1",
                                         "chunk-topk:k=50,twoway=1,value=f32", "ef21:select=grid,twoway=1"),
                         [](const auto &p) { return nameOf(p.param); });

} // namespace
} // namespace gst
