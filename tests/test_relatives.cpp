/* The relatives of the five papers: DIANA, EF21, EF14, DGC, scaled sign, grids, two bits, and the unbiased codings TernGrad, QSGD, natural and uniform; the
 * invariants of each, by name. */
#include "methods.h"
#include "record.h"

namespace gst
{
namespace
{

/* ---- memories ---- */

class Memories : public testing::TestWithParam<std::string>
{
};

TEST_P(Memories, SharedIsTheSumOfTheRanks)
{
    const uint64_t count = 5000;
    const int nranks = 4;
    for (gsDataType_t type : {GS_FLOAT64, GS_FLOAT32}) {
        Fleet fleet(GetParam(), count, nranks, type);
        double most = 0;
        for (uint64_t step = 0; step < 60; step++) {
            fleet.sum(related(count, nranks, step, 0.3, type));
            for (int r = 0; r < nranks; r++)
                most = std::max(most, largest(fleet.read(r, "memory")));
        }
        double ulp = type == GS_FLOAT64 ? std::ldexp(1.0, -53) : std::ldexp(1.0, -24);
        EXPECT_LE(largest(minus(fleet.read(0, "shared"), fleet.sumOf("memory"))), 60 * nranks * ulp * most);
        EXPECT_GT(most, 0.1);
    }
}

/* The own h is moved by what was decoded, not by what was meant. */
TEST_P(Memories, ResultIsSharedPlusWhatTheMemoriesMoveBy)
{
    const uint64_t count = 5000;
    Fleet fleet(GetParam() + ",nu=0.25,lambda=0.25", count, 3);
    for (uint64_t step = 0; step < 10; step++) {
        Vector before = fleet.read(0, "shared"), h = fleet.sumOf("memory");
        Vector result = fleet.sum(related(count, 3, step, 0.3));
        Vector moved = minus(fleet.sumOf("memory"), h);
        EXPECT_LE(largest(minus(minus(result, before), moved)), 1e-12 * (1 + largest(result))) << "step " << step;
    }
}

INSTANTIATE_TEST_SUITE_P(Recipes, Memories,
                         testing::Values("ef21:density=0.1", "ef21:select=sign", "ef21:select=chunk-topk,k=100",
                                         "ef21:select=threshold,density=0.1", "ef21:select=grid,levels=7",
                                         "ef21:density=0.1,value=2bit", "diana:bucket=4096", "diana:select=natural",
                                         "diana:select=gspar,density=0.3", "diana:select=randk,density=0.3",
                                         "diana:select=levels,levels=8"),
                         [](const auto &p) { return nameOf(p.param); });

TEST(Ef21, ErrorToAConstantGradientDecaysAtItsRate)
{
    const uint64_t count = 4000;
    Fleet fleet("ef21:density=0.05,value=f64", count, 2);
    Vectors g = related(count, 2, 0, 1.0);
    double before = squared(g[1]);
    for (int step = 1; step <= 20; step++) {
        fleet.sum(g);
        double error = squared(minus(g[1], fleet.read(1, "memory")));
        EXPECT_LE(error, 0.95 * before * (1 + 1e-12)) << "step " << step;
        before = error;
    }
    EXPECT_EQ(before, 0.0) << "twenty steps of a twentieth each";
}

TEST(Ef21, FirstDenseBeginsWithTheGradients)
{
    Fleet fleet("ef21:density=0.01,first=dense", 4000, 3);
    Vectors g = related(4000, 3, 0, 1.0);
    EXPECT_EQ(fleet.sum(g), sumOf(g));
    for (int r = 0; r < 3; r++)
        EXPECT_EQ(fleet.read(r, "memory"), g[static_cast<size_t>(r)]);
    EXPECT_EQ(fleet.sum(g), sumOf(g));
}

/* omega = sqrt(4096) + ...: with lambda = 1 / (1 + omega) the error's mean square falls by 1 - lambda a step. */
TEST(Diana, ErrorToAConstantGradientDecays)
{
    for (const char *recipe :
         {"diana:select=natural", "diana:select=levels,levels=64", "diana:select=gspar,density=0.3"}) {
        const uint64_t count = 4000;
        Fleet fleet(recipe, count, 2);
        Vectors g = related(count, 2, 0, 1.0);
        double first = squared(minus(fleet.sum(g), sumOf(g)));
        for (int step = 0; step < 60; step++)
            fleet.sum(g);
        EXPECT_LT(squared(minus(fleet.sum(g), sumOf(g))), 1e-5 * first) << recipe;
    }
}

/* The same compressor without a memory never gets better. */
TEST(Diana, WithoutMemoryTheErrorStays)
{
    const uint64_t count = 4000;
    Fleet fleet("qsgd:levels=64", count, 2);
    Vectors g = related(count, 2, 0, 1.0);
    double first = squared(minus(fleet.sum(g), sumOf(g)));
    for (int step = 0; step < 60; step++)
        fleet.sum(g);
    EXPECT_GT(squared(minus(fleet.sum(g), sumOf(g))), 0.5 * first);
}

/* ---- EF14 ---- */

class Ef14 : public testing::TestWithParam<std::string>
{
};

/* Sparsifiers: p = C(p) + e bit for bit, every entry whole on one side. */
TEST_P(Ef14, WhatIsComparedIsWhatIsSentPlusWhatIsLeftBitwise)
{
    const uint64_t count = 6000;
    Plan plan = planOf(GetParam() + ",value=f64", count, 1);
    StageRanks ranks(plan);
    for (uint64_t step = 0; step < 12; step++) {
        Vectors g = related(count, 1, step, 1.0);
        Vector a = plus(g[0], readVector(ranks.reducer(0), "residual", count, GS_FLOAT64));
        Slots slots = ranks.encode(g);
        Record record = readRecord(slots.slot(0), slots.slotBytes());
        ranks.decode(slots);
        Vector left = readVector(ranks.reducer(0), "residual", count, GS_FLOAT64), sent(count, 0.0);
        for (const Coordinate &c : record.coordinates)
            sent[c.index] = c.value;
        for (uint64_t i = 0; i < count; i++)
            ASSERT_TRUE((sent[i] == a[i] && left[i] == 0) || (sent[i] == 0 && left[i] == a[i])) << i;
    }
}

INSTANTIATE_TEST_SUITE_P(Sparsifiers, Ef14,
                         testing::Values("topk:density=0.05", "topk:k=17", "chunk-topk:k=50", "threshold:density=0.05",
                                         "threshold:rms=1,capacity=0.5", "threshold:rms=1,capacity=0.01"),
                         [](const auto &p) { return nameOf(p.param); });

/* The k largest of all, ties to the lower index. */
TEST(Topk, IsExactAndTiesGoToTheLowerIndex)
{
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64})
        for (uint64_t k : {1u, 7u, 300u, 6000u}) {
            Plan plan = planOf("topk:k=" + std::to_string(k), 6000, 1, type);
            StageRanks ranks(plan);
            std::mt19937 random(static_cast<unsigned>(k));
            Vector g(plan.count);
            for (double &x : g)
                x = static_cast<double>(random() % 41) - 20;
            std::vector<uint64_t> order(plan.count), expected, got;
            for (uint64_t i = 0; i < plan.count; i++)
                order[i] = i;
            std::stable_sort(order.begin(), order.end(),
                             [&](uint64_t i, uint64_t j) { return std::fabs(g[i]) > std::fabs(g[j]); });
            expected.assign(order.begin(), order.begin() + static_cast<long>(k));
            std::sort(expected.begin(), expected.end());
            Slots slots = ranks.encode(Vectors{g});
            for (const Coordinate &c : readRecord(slots.slot(0), slots.slotBytes()).coordinates)
                got.push_back(c.index);
            EXPECT_EQ(got, expected) << nameOf(type) << ", k " << k;
        }
}

TEST(ThresholdByRms, KeepsWhatIsAboveThatMuchOfTheRootMeanSquare)
{
    Plan plan = planOf("threshold:rms=1.5,capacity=1", 6000, 1);
    StageRanks ranks(plan);
    for (uint64_t step = 0; step < 5; step++) {
        Vectors g = related(plan.count, 1, step, 1.0);
        Vector a = plus(g[0], readVector(ranks.reducer(0), "residual", plan.count, plan.type));
        double tau = 1.5 * std::sqrt(squared(a) / 6000);
        Slots slots = ranks.encode(g);
        std::vector<bool> kept(plan.count, false);
        for (const Coordinate &c : readRecord(slots.slot(0), slots.slotBytes()).coordinates)
            kept[c.index] = true;
        for (uint64_t i = 0; i < plan.count; i++)
            ASSERT_TRUE(kept[i] == (std::fabs(a[i]) > tau) || std::fabs(std::fabs(a[i]) - tau) < 1e-12);
        ranks.decode(slots);
    }
}

/* ---- DGC ---- */

TEST(Dgc, WithoutMomentumAndClipItIsErrorFeedbackTopk)
{
    for (gsDataType_t type : {GS_FLOAT32, GS_BFLOAT16, GS_FLOAT64}) {
        Fleet dgc("dgc:momentum=0,density=0.05", 5000, 3, type), topk("topk:density=0.05", 5000, 3, type);
        for (uint64_t step = 0; step < 10; step++) {
            Vectors g = related(5000, 3, step, 0.5, type);
            EXPECT_EQ(dgc.sum(g), topk.sum(g));
            EXPECT_EQ(dgc.read(1, "residual"), topk.read(1, "residual"));
        }
    }
}

/* u = mu u + g, v = v + u, and both are 0 where v travelled. */
TEST(Dgc, MomentumFactorsAreMaskedWhereTheVelocityHasTravelled)
{
    const uint64_t count = 5000;
    Plan plan = planOf("dgc:density=0.05,momentum=0.75,value=f64", count, 1);
    StageRanks ranks(plan);
    Vector u(count, 0.0), v(count, 0.0);
    for (uint64_t step = 0; step < 12; step++) {
        Vectors g = related(count, 1, step, 1.0);
        for (uint64_t i = 0; i < count; i++) {
            u[i] = 0.75 * u[i] + g[0][i];
            v[i] = u[i] + v[i];
        }
        Slots slots = ranks.encode(g);
        Record record = readRecord(slots.slot(0), slots.slotBytes());
        EXPECT_EQ(record.coordinates.size(), 250u);
        double least = INFINITY;
        for (const Coordinate &c : record.coordinates) {
            ASSERT_EQ(c.value, v[c.index]);
            least = std::min(least, std::fabs(c.value));
            u[c.index] = v[c.index] = 0;
        }
        EXPECT_LE(largest(v), least) << "the largest travel";
        ranks.decode(slots);
        EXPECT_EQ(readVector(ranks.reducer(0), "momentum", count, plan.type), u) << "step " << step;
        EXPECT_EQ(readVector(ranks.reducer(0), "residual", count, plan.type), v) << "step " << step;
    }
}

TEST(Dgc, ClippedGradientsHaveAtMostTheirShareOfTheNorm)
{
    const uint64_t count = 3000;
    for (int nranks : {1, 4}) {
        Fleet fleet("dgc:density=1,momentum=0,clip=2,value=f64", count, nranks);
        Vectors g = related(count, nranks, 0, 1.0), expected = g;
        for (Vector &own : expected)
            own = times(own, 2 / std::sqrt(nranks) / std::sqrt(squared(own)));
        EXPECT_LE(largest(minus(fleet.sum(g), sumOf(expected))), 1e-14);
        for (Vector &own : g)
            own = times(own, 1e-3); /* short enough: left alone */
        EXPECT_EQ(fleet.sum(g), sumOf(g));
    }
}

TEST(Dgc, DensityWarmsUpInPowersOfItsSixthRoot)
{
    const uint64_t count = 10000;
    Fleet fleet("dgc:density=0.001,warmup=10", count, 1);
    for (uint64_t step = 0; step < 14; step++) {
        fleet.sum(related(count, 1, step, 1.0));
        double power = step < 10 ? static_cast<double>(step / 2 + 1) / 6 : 1.0;
        EXPECT_EQ(fleet.stats(0).lastSent, static_cast<uint64_t>(std::ceil(std::pow(0.001, power) * count)))
            << "step " << step;
    }
}

/* ---- scaled sign ---- */

TEST(ScaledSign, ContractsAndKeepsWhatItsCodingTakesAway)
{
    for (bool whole : {false, true}) {
        Plan plan = planOf(whole ? "ef-sign:bucket=all" : "ef-sign", 9000, 1);
        StageRanks ranks(plan);
        for (uint64_t step = 0; step < 8; step++) {
            Vectors g = related(plan.count, 1, step, 1.0);
            Vector a = plus(g[0], readVector(ranks.reducer(0), "residual", plan.count, plan.type));
            Vector sent = doublesOf(ranks.decode(ranks.encode(g))[0], plan.type);
            Vector left = readVector(ranks.reducer(0), "residual", plan.count, plan.type);
            EXPECT_EQ(left, minus(a, sent)) << "e = a - decoded";
            for (size_t begin = 0; begin < plan.count; begin += whole ? plan.count : 4096) {
                size_t end = whole ? plan.count : std::min<size_t>(begin + 4096, plan.count);
                double l1 = 0, l2 = 0, error = 0, n = static_cast<double>(end - begin);
                for (size_t i = begin; i < end; i++) {
                    l1 += std::fabs(a[i]);
                    l2 += a[i] * a[i];
                    error += left[i] * left[i];
                }
                EXPECT_LE(error, (1 - l1 * l1 / (n * l2)) * l2 * (1 + 1e-6));
                for (size_t i = begin; i < end; i++)
                    ASSERT_EQ(sent[i], a[i] < 0 ? -static_cast<double>(static_cast<float>(l1 / n)) : sent[i]);
            }
        }
    }
}

TEST(ScaledSign, ZeroCountsAsPlusAndABlockOfZerosIsZero)
{
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64}) {
        Fleet fleet("sign", 9000, 1, type);
        Vector g(9000, 0.0);
        for (size_t i = 0; i < 4096; i++)
            g[i] = i % 4 == 0 ? -0.0 : i % 4 == 1 ? 0.0 : i % 4 == 2 ? -1.0 : 1.0;
        Vector result = fleet.sum({g});
        for (size_t i = 0; i < 4096; i++)
            ASSERT_EQ(result[i], i % 4 == 2 ? -0.5 : 0.5) << i;
        for (size_t i = 4096; i < 9000; i++)
            ASSERT_EQ(result[i], 0.0) << i;
    }
}

/* ---- the grid ---- */

class Grid : public testing::TestWithParam<int>
{
  protected:
    static std::string recipe(bool whole)
    {
        return "ef21:select=grid,levels=" + std::to_string(GetParam()) + (whole ? ",bucket=all" : "");
    }
    static uint32_t bits()
    {
        uint32_t n = 0;
        while (GetParam() >> n)
            n++;
        return n;
    }
};

/* Half the gap between two of levels + 1 points from -R to R, where R is the block's largest magnitude. */
TEST_P(Grid, NoCoordinateIsFartherFromItsPointThanRadiusByLevels)
{
    const double levels = GetParam();
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64})
        for (bool whole : {false, true}) {
            Plan plan = planOf(recipe(whole), 9001, 1, type);
            StageRanks ranks(plan);
            for (uint64_t step = 0; step < 6; step++) {
                Vectors g = related(plan.count, 1, step, 1.0, type);
                for (size_t i = 0; i < 4096; i++)
                    g[0][i] *= 16; /* blocks of different radius */
                Vector h = readVector(ranks.reducer(0), "memory", plan.count, type), a = minus(g[0], h);
                for (double &x : a)
                    x = roundTo(type, x);
                Slots slots = ranks.encode(g);
                Record record = readRecord(slots.slot(0), slots.slotBytes(), {{}, static_cast<uint32_t>(GetParam())});
                ASSERT_EQ(record.problem, "");
                EXPECT_EQ(record.coding, static_cast<uint32_t>(codingGrid));
                EXPECT_EQ(record.aux, bits() + (whole ? 256 : 0)) << "the codes have as many bits as levels has";
                EXPECT_EQ(record.kept, plan.count);
                EXPECT_EQ(record.scales.size(), whole ? 0u : 3u);
                EXPECT_EQ(record.valueBytes, (plan.count * bits() + 7) / 8 + (whole ? 0 : 12));
                for (size_t begin = 0; begin < plan.count; begin += whole ? plan.count : 4096) {
                    size_t end = whole ? plan.count : std::min<size_t>(begin + 4096, plan.count);
                    double radius = 0, scale = scaleOf(record, begin / 4096);
                    for (size_t i = begin; i < end; i++)
                        radius = std::max(radius, std::fabs(a[i]));
                    EXPECT_GE(scale, radius);
                    EXPECT_LE(scale, radius * (1 + std::ldexp(1.0, -22)));
                    for (size_t i = begin; i < end; i++) {
                        double point = record.coordinates[i].value;
                        ASSERT_LE(std::fabs(a[i] - point), radius / levels * (1 + 2e-5)) << i;
                        ASSERT_LE(std::fabs(point), scale) << "no code is above levels";
                        double place = (point / scale + 1) * levels / 2;
                        ASSERT_NEAR(place, std::round(place), 1e-4);
                    }
                }
                Vector result = doublesOf(ranks.decode(slots)[0], type),
                       now = readVector(ranks.reducer(0), "memory", plan.count, type);
                for (size_t i = 0; i < plan.count; i++)
                    ASSERT_EQ(now[i], roundTo(type, h[i] + record.coordinates[i].value))
                        << "h moves by what was decoded";
                EXPECT_EQ(result, now) << "one rank: H is h";
            }
        }
}

TEST_P(Grid, OfZerosIsZeroAndTheEndsAreExact)
{
    for (gsDataType_t type : allTypes())
        for (bool whole : {false, true}) {
            Fleet fleet(recipe(whole), 9001, 2, type);
            Vector zeros(9001, 0.0), ends = zeros;
            EXPECT_EQ(fleet.sum({zeros, zeros}), zeros) << nameOf(type);
            for (size_t i = 0; i < 4096; i++)
                ends[i] = i % 2 ? -0.75 : 0.75;
            Vector result = fleet.sum({ends, zeros});
            for (size_t i = 0; i < 4096; i++)
                ASSERT_EQ(result[i], ends[i]) << nameOf(type);
            for (size_t i = 4096; i < 9001 && !whole; i++)
                ASSERT_EQ(result[i], 0.0) << "a block of zeros";
        }
}

/* Each step takes the rest to within 1/levels of its largest. */
TEST_P(Grid, ErrorToAConstantGradientDecaysAtItsRate)
{
    if (GetParam() < 2)
        GTEST_SKIP() << "one bit: the error need not become smaller";
    Fleet fleet(recipe(true), 5000, 2);
    Vectors g = related(5000, 2, 0, 1.0);
    double before = largest(g[1]);
    for (int step = 0; step < 12; step++) {
        fleet.sum(g);
        double error = largest(minus(g[1], fleet.read(1, "memory")));
        EXPECT_LE(error, before / GetParam() * (1 + 1e-4) + 1e-15) << "step " << step;
        before = error;
    }
}

INSTANTIATE_TEST_SUITE_P(Levels, Grid, testing::Values(1, 2, 7, 15, 127), testing::PrintToStringParamName());

/* ---- two bits ---- */

class TwoBits : public testing::TestWithParam<std::string>
{
};

/* Four bins of 1.5 standard deviations about the survivors' mean, by their definition; each means the mean of its members. */
TEST_P(TwoBits, SurvivorsDecodeToTheirBinsMeansAndTheRestIsKept)
{
    const uint64_t count = 9001;
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64}) {
        Plan plan = planOf(GetParam() + ",value=2bit", count, 1, type);
        StageRanks ranks(plan);
        uint64_t bins[4] = {};
        for (uint64_t step = 0; step < 8; step++) {
            Vectors g = related(count, 1, step, 1.0, type);
            for (double &x : g[0])
                x = roundTo(type, x * x * x); /* long tails, for the outer bins */
            Vector a = plus(g[0], readVector(ranks.reducer(0), "residual", count, type)), expected;
            for (double &x : a)
                x = roundTo(type, x);
            expected = a;
            Slots slots = ranks.encode(g);
            Record record = readRecord(slots.slot(0), slots.slotBytes());
            ASSERT_EQ(record.problem, "");
            EXPECT_EQ(record.coding, static_cast<uint32_t>(codingBook));
            EXPECT_EQ(record.scales.size(), 12u);
            EXPECT_EQ(record.valueBytes, (2 * record.kept + 7) / 8 + 48);
            for (size_t b = 0; b < 3; b++) {
                std::vector<Coordinate> members;
                for (const Coordinate &c : record.coordinates)
                    if (c.index / 4096 == b)
                        members.push_back(c);
                double n = static_cast<double>(members.size()), mean = 0, square = 0;
                for (const Coordinate &c : members)
                    mean += a[c.index] / n;
                for (const Coordinate &c : members)
                    square += (a[c.index] - mean) * (a[c.index] - mean) / n;
                double width = 1.5 * std::sqrt(square), sum[4] = {}, size[4] = {};
                auto binOf = [&](const Coordinate &c) {
                    double x = (a[c.index] - mean) / width;
                    return x < -1 ? 0 : x < 0 ? 1 : x < 1 ? 2 : 3;
                };
                for (const Coordinate &c : members) {
                    sum[binOf(c)] += a[c.index];
                    size[binOf(c)]++;
                }
                for (int bin = 0; bin < 4; bin++) {
                    EXPECT_NEAR(record.scales[4 * b + static_cast<size_t>(bin)],
                                size[bin] > 0 ? sum[bin] / size[bin] : 0, 1e-7 * largest(a));
                    bins[bin] += size[bin] > 0;
                }
                for (const Coordinate &c : members)
                    ASSERT_EQ(c.value, record.scales[4 * b + static_cast<size_t>(binOf(c))]) << c.index;
            }
            for (const Coordinate &c : record.coordinates)
                expected[c.index] = roundTo(type, a[c.index] - c.value);
            Vector result = doublesOf(ranks.decode(slots)[0], type), sent(count, 0.0);
            for (const Coordinate &c : record.coordinates)
                sent[c.index] = c.value;
            EXPECT_EQ(result, sent);
            EXPECT_EQ(readVector(ranks.reducer(0), "residual", count, type), expected) << "e' = a - decoded";
        }
        for (uint64_t used : bins)
            EXPECT_GT(used, 0u) << "the case is meant to use every code";
    }
}

/* One value among a block's survivors, or one with both signs, needs no more than two bits. */
TEST_P(TwoBits, EqualSurvivorsDecodeExactly)
{
    const uint64_t count = 9001;
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64})
        for (double value : {1.0, 0.1, -3.7e-5, 1e30})
            for (bool signs : {false, true}) {
                Fleet fleet(GetParam() + ",value=2bit", count, 1, type);
                Vector g(count, 0.0);
                for (size_t i = 0; i < count;
                     i += 150) /* fewer than travel; the rest are zeros, which are none of theirs */
                    g[i] = static_cast<float>(i / 150 % 2 && signs ? -value : value);
                bool fills = GetParam().find("chunk") != std::string::npos || GetParam().compare(0, 4, "topk") == 0;
                if (fills) /* as many as travel in each block, and no zero with them */
                    for (size_t i = 0; i < count; i++)
                        g[i] = static_cast<float>(i % 2 && signs ? -value : value);
                Vector result = fleet.sum({g}), left = fleet.read(0, "residual");
                uint64_t sent = 0;
                for (size_t i = 0; i < count; i++) {
                    ASSERT_TRUE(result[i] == 0 || result[i] == g[i]) << i << " of " << value;
                    ASSERT_EQ(left[i], result[i] == 0 ? g[i] : 0.0) << i << " of " << value;
                    sent += result[i] != 0;
                }
                EXPECT_EQ(sent, fleet.stats(0).lastSent);
                EXPECT_GT(sent, 0u);
            }
}

INSTANTIATE_TEST_SUITE_P(Sparsifiers, TwoBits,
                         testing::Values("topk:density=0.05", "topk:k=4099", "chunk-topk:k=64", "chunk-topk:k=37",
                                         "threshold:density=0.05", "threshold:rms=1.5,capacity=0.01"),
                         [](const auto &p) { return nameOf(p.param); });

TEST(TwoBitsAndGrids, RecipesThatCannotUseThemAreRefused)
{
    for (const char *recipe : {"gspar:value=2bit", "randk:value=2bit", "ef-sign:value=2bit", "identity:value=2bit",
                               "diana:select=grid", "dgc:select=grid", "ef21:select=grid,levels=0",
                               "ef21:select=grid,levels=128", "ef21:select=grid,value=f32", "topk:levels=3"}) {
        gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
        gsMemory_t memory;
        config.recipe = recipe;
        config.count = 10;
        EXPECT_EQ(gsReducerGetMemory(&config, 1, &memory), GS_ERROR_INVALID_RECIPE) << recipe;
    }
}

/* ---- unbiased codings ---- */

struct Unbiased {
    const char *recipe;
    double omega; /* |C(x) - x|^2 <= omega |x|^2 in the mean, a block of 4096 */
};

class Codings : public testing::TestWithParam<Unbiased>
{
  protected:
    /* The variance of each coordinate, given the whole vector. */
    static Vector variance(const std::string &recipe, const Vector &g)
    {
        Vector v(g.size());
        bool all = recipe.find("bucket=all") != std::string::npos;
        size_t size = all ? g.size() : 4096, at = recipe.find("levels=");
        double levels = at == std::string::npos ? 127 : std::atof(recipe.c_str() + at + 7);
        for (size_t begin = 0; begin < g.size(); begin += size) {
            size_t end = std::min(begin + size, g.size());
            Vector block(g.begin() + static_cast<long>(begin), g.begin() + static_cast<long>(end));
            double most = largest(block), norm = std::sqrt(squared(block));
            for (size_t i = begin; i < end; i++) {
                double x = std::fabs(g[i]);
                if (recipe.compare(0, 8, "terngrad") == 0)
                    v[i] = x * (most - x);
                else if (recipe.compare(0, 4, "qsgd") == 0) {
                    double level = x / norm * levels, part = level - std::floor(level);
                    v[i] = part * (1 - part) * norm * norm / (levels * levels);
                } else if (recipe.compare(0, 7, "natural") == 0) {
                    double low = std::exp2(std::floor(std::log2(x)));
                    v[i] = x > 0 ? (x - low) * (2 * low - x) : 0.0;
                } else
                    v[i] = x * x * (1 / 0.2 - 1);
            }
        }
        return v;
    }
};

/* How far apart the two values of coordinate i are. */
double jump(const std::string &recipe, const Vector &g, size_t i)
{
    bool all = recipe.find("bucket=all") != std::string::npos;
    size_t size = all ? g.size() : 4096, begin = i / size * size, end = std::min(begin + size, g.size());
    Vector block(g.begin() + static_cast<long>(begin), g.begin() + static_cast<long>(end));
    size_t at = recipe.find("levels=");
    if (recipe.compare(0, 8, "terngrad") == 0)
        return largest(block);
    if (recipe.compare(0, 4, "qsgd") == 0)
        return std::sqrt(squared(block)) / std::atof(recipe.c_str() + at + 7);
    if (recipe.compare(0, 7, "natural") == 0)
        return std::exp2(std::floor(std::log2(std::fabs(g[i]))));
    return std::fabs(g[i]) / 0.2;
}

TEST_P(Codings, MeanIsTheGradientWithinFiveSigmaAndOmegaIsBounded)
{
    const uint64_t count = 5000, draws = 500;
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64}) {
        Fleet fleet(GetParam().recipe, count, 1, type);
        Vector g = randomVector(count, 3, type), v = variance(GetParam().recipe, g), mean(count, 0.0);
        double energy = 0, expected = 0;
        for (uint64_t n = 0; n < draws; n++) {
            Vector result = fleet.sum({g});
            mean = plus(mean, times(result, 1.0 / draws));
            energy += squared(minus(result, g)) / draws;
        }
        Vector error = minus(mean, g);
        uint64_t wrong = 0, checked = 0;
        for (uint64_t i = 0; i < count; i++) {
            expected += v[i];
            double largestJump =
                jump(GetParam().recipe, g, i); /* v = p (1 - p) jump^2: rare events have no normal tail */
            if (v[i] * draws < 25 * largestJump * largestJump * 0.95)
                continue;
            wrong += std::fabs(error[i]) > 5 * std::sqrt(v[i] / draws) + 1e-6;
            checked++;
        }
        EXPECT_GT(checked, 1000u);
        EXPECT_EQ(wrong, 0u) << nameOf(type) << ", of " << checked;
        for (uint64_t direction = 0; direction < 64; direction++) {
            std::mt19937_64 random(direction);
            double sum = 0;
            for (double e : error)
                sum += random() >> 63 ? e : -e;
            EXPECT_LT(std::fabs(sum), 5 * std::sqrt(expected / draws)) << "direction " << direction;
        }
        EXPECT_NEAR(energy, expected, 0.02 * expected);
        EXPECT_LE(energy, GetParam().omega * squared(g) * 1.02);
    }
}

/* All zeros have no norm to be divided by. */
TEST_P(Codings, OfZerosAreZeros)
{
    for (gsDataType_t type : allTypes()) {
        Fleet fleet(GetParam().recipe, 5000, 2, type);
        Vector zeros(5000, 0.0), one = zeros;
        EXPECT_EQ(fleet.sum({zeros, zeros}), zeros) << nameOf(type);
        one[4999] = -2;
        Vector result = fleet.sum({zeros, one});
        for (size_t i = 0; i < 4999; i++)
            ASSERT_EQ(result[i], 0.0);
        EXPECT_TRUE(std::isfinite(result[4999]));
    }
}

/* Denormals and the largest numbers: what is decoded is finite. */
TEST_P(Codings, OfExtremesAreFinite)
{
    for (gsDataType_t type : allTypes())
        for (double size : {1e-45, 1e-40, 6e-8, 1e4, 6e4, 1e30}) {
            Fleet fleet(GetParam().recipe, 5000, 1, type);
            Vector g = randomVector(5000, 2);
            for (double &x : g)
                x = roundTo(type, std::copysign(size, x));
            if (!std::isfinite(g[0]))
                continue;
            Vector result = fleet.sum({g});
            for (double x : result)
                ASSERT_TRUE(std::isfinite(x) || type == GS_FLOAT16) << nameOf(type) << " " << size;
        }
}

INSTANTIATE_TEST_SUITE_P(Recipes, Codings,
                         testing::Values(Unbiased{"terngrad", 64}, Unbiased{"terngrad:bucket=all", 71},
                                         Unbiased{"qsgd:levels=4", 16}, Unbiased{"qsgd:levels=127", 0.26},
                                         Unbiased{"qsgd:levels=16,bucket=all", 4.5}, Unbiased{"natural", 0.125},
                                         Unbiased{"uniform:density=0.2,value=f64", 4.1}),
                         [](const auto &p) { return nameOf(std::string(p.param.recipe)); });

/* Scales travel as float32 and end where that does: what is beyond them comes as near as they do, with its sign. */
TEST(BeyondFloat32, CodingsSaturateWithTheSignOfTheGradient)
{
    for (const char *recipe : {"terngrad", "terngrad:bucket=all", "qsgd:levels=4", "qsgd:levels=127", "natural",
                               "ef21:select=grid,levels=7", "ef21:select=sign"})
        for (auto [type, size] : {std::pair{GS_FLOAT32, 3.2e38}, {GS_FLOAT64, 3.2e38}, {GS_FLOAT64, 1e300}}) {
            Vector g = randomVector(5000, 2);
            for (double &x : g)
                x = roundTo(type, std::copysign(size, x));
            Vector result = Fleet(recipe, 5000, 1, type).sum({g});
            for (size_t i = 0; i < g.size(); i++)
                ASSERT_TRUE(std::isfinite(result[i]) && result[i] / g[i] > 0 && std::fabs(result[i]) > 1e38)
                    << recipe << " " << nameOf(type) << " " << g[i] << " became " << result[i];
        }
}

/* ---- float16's scale ---- */

/* g / p is far beyond float16's range; the record's power of two takes it there and back. */
TEST(Float16Values, LargeQuotientsDoNotOverflow)
{
    for (const char *recipe : {"gspar:density=0.01,value=f16,capacity=1", "randk:density=0.01,value=f16,capacity=1",
                               "uniform:density=0.01,value=f16,capacity=1", "topk:density=0.01,value=f16"})
        for (double size : {1e-20, 1.0, 60000.0, 1e20}) {
            Plan plan = planOf(recipe, 20000, 1, GS_FLOAT32);
            StageRanks ranks(plan);
            Vector g = times(randomVector(plan.count, 4), size);
            for (double &x : g)
                x = roundTo(GS_FLOAT32, x);
            Slots slots = ranks.encode(Vectors{g});
            Vector result = doublesOf(ranks.decode(slots)[0], GS_FLOAT32);
            EXPECT_GT(largest(result), 0.5 * largest(g)) << recipe << " " << size;
            for (double x : result)
                ASSERT_TRUE(std::isfinite(x)) << recipe << " " << size;
            for (size_t i = 0; i < g.size(); i++)
                ASSERT_TRUE(std::string(recipe).compare(0, 4, "topk") != 0 || result[i] == 0 ||
                            std::fabs(result[i] - g[i]) <= std::fabs(g[i]) / 2000)
                    << size;
        }
}

TEST(Float64, GoesThroughWithoutLosingABit)
{
    Vector g = randomVector(5000, 6);
    for (const char *recipe : {"dense", "identity", "topk:k=5000", "randk:density=1", "ef21:k=5000", "lag-wk",
                               "tng:select=identity,reference=zero"})
        EXPECT_EQ(Fleet(recipe, 5000, 1).sum({g}), g) << recipe;
}

} // namespace
} // namespace gst
