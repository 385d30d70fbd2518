/* The exchange by way of owners: the same sums as all-gathers, what a second compression does and costs, failures, states, and how evenly
 * blocks are spread. */
#include "draw.h"
#include "methods.h"
#include "npy.h"

#include <numeric>

namespace gst
{
namespace
{

/* Linear in its record, and with a sum that owners can send. */
std::vector<std::string> linearRecipes()
{
    std::vector<std::string> linear;
    for (const std::string &recipe : methodRecipes())
        if (recipe != "dense" && recipe[0] != 'l' && !contains(recipe, "clag") && !contains(recipe, "quotient") &&
            !contains(recipe, "twoway") && !contains(recipe, "cdadam") && !contains(recipe, "exchange"))
            linear.push_back(recipe);
    return linear;
}

void expectSameVectors(const Fleet &one, const Fleet &other, const std::string &where)
{
    for (int r = 0; r < one.plan().nranks; r++)
        for (const char *name :
             {"residual", "momentum", "memory", "shared", "previous", "last", "ema", "ema2", "snapshot"}) {
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
    static const uint64_t counts[] = {0, 1, 4097, 12293, 36865};
    for (int ranks = 1; ranks <= 8; ranks++)
        for (const char *exchange : {"exchange=owner", "exchange=owner-exact"}) {
            if (!isDrawn(GetParam().size() + static_cast<size_t>(ranks) + contains(exchange, "exact")))
                continue;
            uint64_t count = counts[(ranks + contains(exchange, "exact")) % 5];
            gsDataType_t type = allTypes()[static_cast<size_t>(ranks) % 4];
            Plan plan = planOf(GetParam(), count, ranks, type),
                 byOwners = planOf(with(GetParam(), exchange), count, ranks, type);
            plan.op = byOwners.op = ranks % 2 ? GS_AVG : GS_SUM;
            std::string where = byOwners.recipe + ", " + std::to_string(ranks) + " ranks, count " +
                                std::to_string(count) + ", " + nameOf(type);
            Course flat(plan), owned(byOwners);
            for (uint64_t step = 0; step < 3; step++) {
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
    for (const char *exchange : {"exchange=owner", "exchange=owner-exact"}) {
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

INSTANTIATE_TEST_SUITE_P(Linear, Owners, testing::ValuesIn(linearRecipes()),
                         [](const auto &p) { return nameOf(p.param); });

/* Compressors that look at one block at a time do the same at its owner. */
class TwoWay : public testing::TestWithParam<std::string>
{
};

TEST_P(TwoWay, OwnersDoWhatEveryRankWouldReplay)
{
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64})
        for (int ranks : {1, 2, 3, 5, 8})
            for (const char *exchange : {"exchange=owner", "exchange=owner-exact"}) {
                Plan plan = planOf(GetParam(), 20001, ranks, type),
                     byOwners = planOf(with(GetParam(), exchange), 20001, ranks, type);
                plan.op = byOwners.op = ranks % 2 ? GS_AVG : GS_SUM;
                Course flat(plan), owned(byOwners);
                for (uint64_t step = 0; step < 5; step++) {
                    Results expected = flat.step(step), got = owned.step(step);
                    for (const std::vector<uint8_t> &result : got)
                        ASSERT_TRUE(result == expected[0])
                            << byOwners.recipe << ", " << ranks << " ranks, step " << step;
                }
            }
}

INSTANTIATE_TEST_SUITE_P(Blockwise, TwoWay,
                         testing::Values("cdadam", "cdadam:select=chunk-topk,k=100", "cdadam:select=identity",
                                         "ef-sign:twoway=1", "chunk-topk:k=50,twoway=1,value=f32",
                                         "ef21:select=grid,twoway=1"),
                         [](const auto &p) { return nameOf(p.param); });

/* ---- what travels ---- */

/* Of two calls; one gradient for all ranks and both. */
uint64_t wireBytes(const Plan &plan)
{
    Fleet fleet(plan);
    Vectors gradients(static_cast<size_t>(plan.nranks), randomVector(plan.count, 1, plan.type));
    for (int step = 0; step < 2; step++)
        fleet.allReduce(gradients);
    return fleet.stats(0).wireBytes;
}

/* What an owner compresses again does not grow with the ranks; a flat all-gather does. */
TEST(OwnersSend, BytesOfARankThatDoNotGrowWithTheRanks)
{
    const uint64_t count = 1 << 18; /* 64 blocks: parts are alike */
    for (const char *recipe : {"topk:density=0.01,twoway=1,exchange=owner-exact", "chunk-topk:twoway=1,exchange=owner",
                               "cdadam:exchange=owner", "gspar:twoway=1,exchange=owner-exact"})
        EXPECT_LE(static_cast<double>(wireBytes(planOf(recipe, count, 8))),
                  1.2 * static_cast<double>(wireBytes(planOf(recipe, count, 4))))
            << recipe;
    EXPECT_GE(wireBytes(planOf("chunk-topk", count, 8)), 2 * wireBytes(planOf("chunk-topk", count, 4)));
}

/* Slots: (ranks - 1) parts and (ranks - 1) sums; true lengths: no more than the records have, and their lengths. */
TEST(OwnersSend, WhatTheStatisticsSay)
{
    const uint64_t count = 50000; /* 13 blocks: one more in part 0, of 848 elements */
    const uint64_t largest = 80 + 8 * (3 * 4096 + 848), others = 80 + 8 * 3 * 4096;
    Plan slots = planOf("identity:exchange=owner", count, 4), exact = planOf("identity:exchange=owner-exact", count, 4);
    EXPECT_EQ(wireBytes(slots), 2 * 6 * largest);
    EXPECT_EQ(wireBytes(exact), 2 * (3 * (others + 8) + 3 * (largest + 8)));
}

class RealLoads : public testing::TestWithParam<const char *>
{
};

/* The most that one owner is sent of a record over what all are sent in the mean. */
TEST_P(RealLoads, AreEven)
{
    Gradients gradients;
    std::string reason = readTestGradients(GetParam(), gradients);
    if (!reason.empty())
        GTEST_SKIP() << reason;
    const size_t owners = gradients.size();
    for (const std::vector<float> &gradient : gradients) {
        std::vector<float> magnitudes;
        for (float g : gradient)
            magnitudes.push_back(std::fabs(g));
        size_t kept = gradient.size() / 100;
        std::nth_element(magnitudes.begin(), magnitudes.begin() + static_cast<long>(kept), magnitudes.end(),
                         std::greater<float>());
        std::vector<double> load(owners, 0.0);
        for (size_t i = 0; i < gradient.size(); i++)
            load[i / 4096 % owners] += std::fabs(gradient[i]) >= magnitudes[kept];
        double most = *std::max_element(load.begin(), load.end()), all = std::accumulate(load.begin(), load.end(), 0.0);
        EXPECT_LE(most, 1.5 * all / static_cast<double>(owners));
        RecordProperty("most_over_mean", std::to_string(most * static_cast<double>(owners) / all));
        printf("%s: largest over mean load of %zu owners %.3f\n", GetParam(), owners,
               most * static_cast<double>(owners) / all);
    }
}

INSTANTIATE_TEST_SUITE_P(Files, RealLoads, testing::Values("grad_cnn_step10.npy", "grad_lm_step20.npy"),
                         [](const auto &p) { return p.param[5] == 'c' ? "cnn" : "lm"; });

/* ---- failures ---- */

const char *const someOwners[] = {"threshold:density=0.05,exchange=owner", "gspar:density=0.1,exchange=owner-exact",
                                  "cdadam:exchange=owner", "diana:select=randk,density=0.3,exchange=owner",
                                  "chunk-topk:k=30,twoway=1,exchange=owner-exact"};

class OwnersFail : public testing::TestWithParam<const char *>
{
};

TEST_P(OwnersFail, NaNOnOneRankIsNaNOnAllAndChangesNothing)
{
    for (gsDataType_t type : allTypes()) {
        Course course(planOf(GetParam(), 20001, 3, type));
        course.steps(0, 2);
        std::vector<std::vector<uint8_t>> before = course.fleet.states();
        Vectors gradients = course.gradients(2);
        gradients[1][17777] = std::numeric_limits<double>::quiet_NaN();
        for (const std::vector<uint8_t> &result : course.fleet.allReduce(gradients))
            EXPECT_TRUE(allNaN(result, type));
        EXPECT_TRUE(course.fleet.states() == before);
        EXPECT_EQ(course.fleet.stats(2).nonFinite, 1u);
    }
}

/* Parts of a sum and of an average meet at their owners: all ranks hear of it, and nothing is changed. */
TEST_P(OwnersFail, RanksThatDisagreeAllGetAMismatch)
{
    Plan plan = planOf(GetParam(), 20001, 3);
    Course course(plan);
    course.steps(0, 2);
    std::vector<std::vector<uint8_t>> before = course.fleet.states();
    Vectors gradients = course.gradients(2);
    parallel(3, [&](int r) {
        Buffer send(plan.type, gradients[static_cast<size_t>(r)]), recv(plan.type, plan.count);
        std::vector<uint8_t> untouched = recv.raw();
        EXPECT_EQ(gsAllReduce(send.data(), recv.data(), plan.count, plan.type, r == 1 ? GS_AVG : GS_SUM,
                              course.fleet.reducer(r), nullptr),
                  GS_ERROR_MISMATCH)
            << gsGetLastError();
        EXPECT_TRUE(recv.raw() == untouched);
    });
    EXPECT_TRUE(course.fleet.states() == before);
    course.fleet.allReduce(gradients); /* succeeds */
}

TEST_P(OwnersFail, MissingRankIsADeadlineForTheOthers)
{
    Plan plan = planOf(GetParam(), 20001, 3);
    plan.timeoutMs = 300;
    Course course(plan);
    course.steps(0, 2);
    std::vector<std::vector<uint8_t>> before = course.fleet.states();
    Vectors gradients = course.gradients(2);
    parallel(3, [&](int r) {
        Buffer send(plan.type, gradients[static_cast<size_t>(r)]), recv(plan.type, plan.count);
        std::vector<uint8_t> untouched = recv.raw();
        if (r == 2)
            return;
        EXPECT_EQ(course.fleet.call(r, send.data(), recv.data()), GS_ERROR_TIMEOUT) << gsGetLastError();
        EXPECT_TRUE(recv.raw() == untouched);
    });
    EXPECT_TRUE(course.fleet.states() == before);
}

/* ---- states ---- */

TEST_P(OwnersFail, StatesContinueBitForBit)
{
    Plan plan = planOf(GetParam(), 20001, 3);
    Course course(plan), resumed(plan);
    course.steps(0, 3);
    resumed.steps(50, 2);
    for (int r = 0; r < 3; r++) {
        std::vector<uint8_t> state = course.fleet.state(r);
        ASSERT_EQ(gsReducerImport(resumed.fleet.reducer(r), state.data(), state.size()), GS_SUCCESS)
            << gsGetLastError();
    }
    EXPECT_TRUE(course.steps(3, 3) == resumed.steps(3, 3));
    EXPECT_TRUE(course.fleet.states() == resumed.fleet.states());
}

INSTANTIATE_TEST_SUITE_P(Recipes, OwnersFail, testing::ValuesIn(someOwners),
                         [](const auto &p) { return nameOf(std::string(p.param)); });

/* From P ranks to Q and back: owners' blocks go to their new owners and home again, whole. */
TEST(OwnersRestart, BlocksFollowTheirOwners)
{
    for (const char *recipe :
         {"cdadam:exchange=owner", "chunk-topk:k=30,twoway=1,exchange=owner-exact", "ef21:exchange=owner"})
        for (int between : {1, 2, 5}) {
            Plan plan = planOf(recipe, 20001, 3), other = planOf(recipe, 20001, between);
            plan.op = other.op = GS_SUM;
            Course course(plan), elsewhere(other), back(plan);
            course.steps(0, 3);
            auto move = [](const Course &from, Course &to) {
                std::vector<std::vector<uint8_t>> states = from.fleet.states();
                std::vector<const void *> pointers;
                std::vector<size_t> bytes;
                for (const std::vector<uint8_t> &state : states) {
                    pointers.push_back(state.data());
                    bytes.push_back(state.size());
                }
                for (int r = 0; r < to.fleet.plan().nranks; r++)
                    ASSERT_EQ(gsReducerImportRanks(to.fleet.reducer(r), pointers.data(), bytes.data(),
                                                   static_cast<int>(states.size()), nullptr, 0),
                              GS_SUCCESS)
                        << gsGetLastError();
            };
            move(course, elsewhere);
            move(elsewhere, back);
            for (int r = 0; r < 3; r++)
                for (const char *name : {"shared", "server.shared", "server.residual", "server.memory"}) {
                    std::vector<double> a(20001), b(20001);
                    for (uint64_t n : {uint64_t(20001), uint64_t(8192), uint64_t(4096 + 3617), uint64_t(4096)})
                        if (gsReducerRead(course.fleet.reducer(r), name, a.data(), n) == GS_SUCCESS) {
                            ASSERT_EQ(gsReducerRead(back.fleet.reducer(r), name, b.data(), n), GS_SUCCESS)
                                << gsGetLastError();
                            EXPECT_TRUE(a == b) << recipe << " " << name << " by way of " << between;
                        }
                }
        }
}

/* Elements of a vector that a rank has as the owner of blocks: of the whole one's, in order. */
Vector ownedOf(const Vector &whole, int rank, int nranks)
{
    Vector own;
    for (size_t i = 0; i < whole.size(); i++)
        if (static_cast<int>(i / 4096) % nranks == rank)
            own.push_back(whole[i]);
    return own;
}

Vector readOwned(const Fleet &fleet, int rank, const char *name)
{
    const Plan &plan = fleet.plan();
    uint64_t n = ownedOf(Vector(plan.count), rank, plan.nranks).size();
    return readVector(fleet.reducer(rank), name, n, plan.type);
}

/* What a two-way reducer remembers of the result is all ranks', and an owner's H its own blocks': both are scaled, and no more. */
TEST(OwnersRestart, ScalesReachEveryBlock)
{
    Plan plan = planOf("cdadam:exchange=owner", 20001, 3), fewer = planOf("cdadam:exchange=owner", 20001, 2);
    plan.op = fewer.op = GS_AVG;
    Course course(plan), other(fewer);
    course.steps(0, 3);
    Vector all = readVector(course.fleet.reducer(0), "server.shared", 20001, plan.type),
           own = readVector(course.fleet.reducer(0), "shared", 8192, plan.type);
    ASSERT_FALSE(all.empty() || own.empty());
    std::vector<std::vector<uint8_t>> states = course.fleet.states();
    std::vector<const void *> pointers;
    std::vector<size_t> bytes;
    for (const std::vector<uint8_t> &state : states) {
        pointers.push_back(state.data());
        bytes.push_back(state.size());
    }
    ASSERT_EQ(gsReducerImportRanks(other.fleet.reducer(0), pointers.data(), bytes.data(), 3, nullptr, 0), GS_SUCCESS);
    EXPECT_TRUE(readVector(other.fleet.reducer(0), "server.shared", 20001, plan.type) == times(all, 1.5));
    ASSERT_EQ(gsReducerScale(course.fleet.reducer(0), 2.0f, nullptr), GS_SUCCESS);
    EXPECT_TRUE(readVector(course.fleet.reducer(0), "server.shared", 20001, plan.type) == times(all, 2.0));
    EXPECT_TRUE(readVector(course.fleet.reducer(0), "shared", 8192, plan.type) == times(own, 2.0));
}

/* An owner dies: what it remembered of its blocks is what all have heard of it; what it owed is gone; and all else is there. */
TEST(OwnersRestart, TheBlocksOfADeadOwnerFindOthers)
{
    for (const char *recipe : {"cdadam:exchange=owner", "chunk-topk:k=30,twoway=1,exchange=owner-exact"})
        for (int dead = 0; dead < 3; dead++) {
            SCOPED_TRACE(recipe + std::string(" without rank ") + std::to_string(dead));
            Course course(planOf(recipe, 20001, 3)), left(planOf(recipe, 20001, 2));
            course.steps(0, 3);
            left.steps(50, 2); /* to be overwritten */
            std::vector<std::vector<uint8_t>> states = course.fleet.states();
            std::vector<const void *> pointers;
            std::vector<size_t> bytes;
            for (int r = 0; r < 3; r++) {
                pointers.push_back(r == dead ? nullptr : states[static_cast<size_t>(r)].data());
                bytes.push_back(states[static_cast<size_t>(r)].size());
            }
            for (int r = 0; r < 2; r++)
                ASSERT_EQ(gsReducerImportRanks(left.fleet.reducer(r), pointers.data(), bytes.data(), 3, nullptr, 0),
                          GS_SUCCESS)
                    << gsGetLastError();
            Vector sent = course.fleet.read(0, "server.shared"), owed(20001, 0.0);
            for (int r = 0; r < 3; r++) {
                Vector own = readOwned(course.fleet, r, "server.residual");
                for (size_t i = 0, at = 0; i < owed.size() && !own.empty() && r != dead; i++)
                    if (static_cast<int>(i / 4096) % 3 == r)
                        owed[i] = own[at++];
            }
            for (int r = 0; r < 2; r++) {
                Vector residual = readOwned(left.fleet, r, "server.residual");
                EXPECT_EQ(residual.empty(), recipe[1] == 'd') << "cdadam has none";
                EXPECT_TRUE(residual.empty() || residual == ownedOf(owed, r, 2));
                if (sent.empty())
                    continue;
                EXPECT_TRUE(left.fleet.read(r, "server.shared") == sent);
                EXPECT_TRUE(readOwned(left.fleet, r, "server.memory") == ownedOf(sent, r, 2));
                EXPECT_TRUE(readOwned(left.fleet, r, "shared") == ownedOf(left.fleet.sumOf("memory"), r, 2));
            }
            left.steps(3, 3); /* and ranks agree on what comes */
            EXPECT_EQ(left.fleet.stats(0).failed, 0u);
        }
}

TEST(OwnersRefuse, WhatHasNoSumToSend)
{
    gsMemory_t memory;
    for (const char *recipe :
         {"lag-wk:exchange=owner", "tng:mode=quotient,exchange=owner", "cdadam:first=dense,exchange=owner",
          "randk:twoway=1,exchange=owner-exact", "gdsec:twoway=1,exchange=owner"}) {
        Plan plan = planOf(recipe, 5000, 2);
        gsReducerConfig_t config = configOf(plan);
        EXPECT_EQ(gsReducerGetMemory(&config, 2, &memory), GS_ERROR_INVALID_RECIPE) << recipe;
    }
}

} // namespace
} // namespace gst
