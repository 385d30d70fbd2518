/* Trajectory normalized gradients: the invariants of the method, each by its name, against references read from the reducer. */
#include "methods.h"
#include "record.h"

namespace gst
{
namespace
{

enum Reference { zero, mean, last, ema, ema2, window, params, snapshot };

/* The pool as it stands, by name. */
Vector referenceOf(const Fleet &fleet, int which, const Vector &gradient)
{
    static const char *names[] = {nullptr, nullptr, "last", "ema", "ema2", nullptr, nullptr, "snapshot"};
    if (which == zero)
        return Vector(gradient.size(), 0.0);
    if (which == mean)
        return Vector(gradient.size(),
                      dot(gradient, Vector(gradient.size(), 1.0)) / static_cast<double>(gradient.size()));
    return fleet.read(0, names[which]);
}

/* The mean over ranks, as each rank remembers it. */
Vector meanOf(const Vector &sum, int nranks)
{
    return times(sum, 1.0 / nranks);
}

/* r where it is small: 0.1 rms(r). */
Vector guarded(Vector r)
{
    double floor = 0.1 * std::sqrt(squared(r) / static_cast<double>(r.size()));
    for (double &x : r)
        x = floor > 0 ? (std::fabs(x) < floor ? floor : x) : 1.0;
    return r;
}

/* ---- (i) identity ---- */

class TngIdentity : public testing::TestWithParam<std::string>
{
};

TEST_P(TngIdentity, ReturnsTheGradientToAnUlp)
{
    const uint64_t count = 5000;
    const int nranks = 3;
    for (gsDataType_t type : {GS_FLOAT64, GS_FLOAT32}) {
        Fleet fleet("tng:select=identity," + GetParam(), count, nranks, type);
        double ulp = type == GS_FLOAT64 ? 2.3e-16 : 1.2e-7;
        Vector theta(count, 0.0);
        fleet.setParams(theta, 0.1);
        for (uint64_t step = 0; step < 6; step++) {
            Vectors g = related(count, nranks, step, 0.3, type);
            Vector result = fleet.sum(g), error = minus(result, sumOf(g));
            EXPECT_LE(largest(error), 40 * ulp * nranks) << "step " << step; /* elements of about 1, at most 5 */
            theta = minus(theta, times(result, 0.1 / nranks));
            fleet.moveTo(theta);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(References, TngIdentity,
                         testing::Values("reference=zero", "reference=mean", "reference=last", "reference=ema",
                                         "reference=window,window=3", "reference=params",
                                         "reference=snapshot,refresh=4", "reference=last,mode=quotient",
                                         "reference=mean,mode=quotient", "reference=last+ema+mean,search=worker",
                                         "reference=last+ema,search=hindsight",
                                         "reference=last+ema+mean+params,search=fit",
                                         "reference=last+ema,search=worker,mode=quotient"),
                         [](const auto &p) { return nameOf(p.param); });

/* ---- (ii) the mean ---- */

/* Variance of the ternary code of v, by coordinate: |v| (max |v| - |v|), the maximum of each 4096. */
Vector ternaryVariance(const Vector &v)
{
    Vector variance(v.size());
    for (size_t begin = 0; begin < v.size(); begin += 4096) {
        size_t end = std::min(begin + 4096, v.size());
        double most = largest(Vector(v.begin() + static_cast<long>(begin), v.begin() + static_cast<long>(end)));
        for (size_t i = begin; i < end; i++)
            variance[i] = std::fabs(v[i]) * (most - std::fabs(v[i]));
    }
    return variance;
}

/* Given the reference, which is of the past, every step's mean is the gradient: the errors are a martingale, and their variances,
 * computed from the reference of each step, add up. */
void expectMeanIsTheGradient(const std::string &recipe, bool quotient)
{
    const uint64_t count = 6000, draws = 600;
    Fleet fleet(recipe, count, 1);
    Vector g = randomVector(count, 5), error(count, 0.0), variance(count, 0.0);
    for (uint64_t n = 0; n < draws; n++) {
        Vector r = fleet.read(0, "ema");
        Vector v = quotient ? g : minus(g, r), factor = quotient ? guarded(r) : Vector(count, 1.0);
        for (uint64_t i = 0; quotient && i < count; i++)
            v[i] = g[i] / factor[i];
        Vector own = ternaryVariance(v);
        for (uint64_t i = 0; i < count; i++)
            variance[i] += own[i] * factor[i] * factor[i];
        error = plus(error, minus(fleet.sum({g}), g));
    }
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < count; i++)
        wrong += std::fabs(error[i]) > 5 * std::sqrt(variance[i]) + 1e-9;
    EXPECT_EQ(wrong, 0u);
    double total = 0;
    for (double v : variance)
        total += v;
    for (uint64_t direction = 0; direction < 64; direction++) {
        std::mt19937_64 random(direction);
        double sum = 0;
        for (double e : error)
            sum += random() >> 63 ? e : -e;
        EXPECT_LT(std::fabs(sum), 5 * std::sqrt(total)) << "direction " << direction;
    }
}

TEST(Tng, MeanOverDrawsIsTheGradientWithinFiveSigma)
{
    expectMeanIsTheGradient("tng:reference=ema,ema=0.05", false);
}

TEST(Tng, MeanOfTheQuotientIsTheGradientWithinFiveSigma)
{
    expectMeanIsTheGradient("tng:reference=ema,ema=0.05,mode=quotient", true);
}

/* ---- (iii) pools ---- */

TEST(Tng, PoolsAreEqualOnRanksAfterAThousandSteps)
{
    const uint64_t count = 300;
    const int nranks = 3;
    Fleet fleet("tng:reference=zero+mean+last+ema+ema2+window+params+snapshot,search=worker,refresh=50", count, nranks,
                GS_FLOAT32);
    Vector theta(count, 0.0);
    fleet.setParams(theta, 0.01);
    for (uint64_t step = 0; step < 1000; step++) {
        Vector result = fleet.sum(related(count, nranks, step, 0.5, GS_FLOAT32));
        fleet.moveTo(theta = minus(theta, times(result, 0.01 / nranks)));
    }
    for (const char *name : {"last", "ema", "ema2", "snapshot", "history", "previous"}) {
        Vector first = fleet.read(0, name);
        ASSERT_FALSE(first.empty()) << name;
        EXPECT_GT(squared(first), 0.0) << name;
        for (int r = 1; r < nranks; r++)
            EXPECT_EQ(fleet.read(r, name), first) << name << " of rank " << r;
    }
    EXPECT_EQ(fleet.stats(0).denseRounds, 20u);
}

/* ---- (iv) the search ---- */

/* Before the first result all references are zero. */
TEST(Tng, TiesGoToTheFirstOfThePool)
{
    Fleet fleet("tng:reference=last+ema,search=worker", 500, 2);
    fleet.sum(related(500, 2, 0, 0.3));
    for (int r = 0; r < 2; r++)
        EXPECT_EQ(fleet.stats(r).reference, static_cast<uint32_t>(zero));
}

TEST(Tng, ChosenNormalizationIsTheLeastOfThePoolAndAtMostOne)
{
    const uint64_t count = 5000;
    const int nranks = 3;
    Fleet fleet("tng:reference=mean+last+ema+ema2,search=worker", count, nranks);
    std::set<uint32_t> chosen;
    for (uint64_t step = 0; step < 40; step++) {
        Vectors g = related(count, nranks, step, step < 20 ? 0.05 : 3.0);
        std::vector<Vector> pool;
        for (int p : {zero, mean, last, ema, ema2})
            pool.push_back(p == mean ? Vector() : referenceOf(fleet, p, g[0]));
        fleet.sum(g);
        for (int r = 0; r < nranks; r++) {
            const Vector &own = g[static_cast<size_t>(r)];
            pool[mean] = referenceOf(fleet, mean, own);
            double least = INFINITY;
            uint32_t best = 0;
            for (uint32_t p = 0; p < pool.size(); p++)
                if (squared(minus(own, pool[p])) < least * (1 - 1e-12)) {
                    least = squared(minus(own, pool[p]));
                    best = p;
                }
            gsStats_t stats = fleet.stats(r);
            EXPECT_LE(stats.normalized, 1.0 + 1e-14);
            EXPECT_NEAR(stats.normalized, least / squared(own), 1e-11);
            EXPECT_EQ(stats.reference, best) << "rank " << r << " step " << step;
            chosen.insert(best);
        }
    }
    EXPECT_GE(chosen.size(), 2u) << "the case is meant to choose";
}

TEST(Tng, HindsightChoosesWhatWouldHaveBeenBestForTheLastResult)
{
    const uint64_t count = 5000;
    const int nranks = 2;
    Fleet fleet("tng:reference=last+ema+ema2,search=hindsight", count, nranks);
    uint32_t expected = zero;
    for (uint64_t step = 0; step < 20; step++) {
        Vectors g = related(count, nranks, step, step < 10 ? 0.05 : 2.0);
        std::vector<std::pair<int, Vector>> pool;
        for (int p : {zero, last, ema, ema2})
            pool.emplace_back(p, referenceOf(fleet, p, g[0]));
        Vector result = meanOf(fleet.sum(g), nranks);
        for (int r = 0; r < nranks; r++)
            EXPECT_EQ(fleet.stats(r).reference, expected) << "step " << step;
        double least = INFINITY;
        for (const auto &[p, r] : pool)
            if (squared(minus(result, r)) < least) {
                least = squared(minus(result, r));
                expected = static_cast<uint32_t>(p);
            }
    }
}

/* ---- (v) what is known is not said ---- */

TEST(Tng, GradientEqualToTheReferenceSendsZerosAndComesBackBitwise)
{
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64}) {
        Plan plan = planOf("tng:reference=last", 5000, 1, type);
        StageRanks ranks(plan);
        std::vector<uint8_t> before = ranks.decode(ranks.encode(related(plan.count, 1, 0, 0.1, type)))[0];
        Slots slots = ranks.encode(Vectors{doublesOf(before, type)});
        Record record = readRecord(slots.slot(0), slots.slotBytes());
        EXPECT_EQ(record.problem, "");
        for (const Coordinate &c : record.coordinates)
            ASSERT_EQ(c.value, 0.0) << c.index;
        for (float scale : record.scales)
            EXPECT_EQ(scale, 0.0f);
        EXPECT_TRUE(ranks.decode(slots)[0] == before);
        EXPECT_EQ(ranks.stats(0).normalized, 0.0);
    }
}

TEST(Tng, QuotientOfAGradientEqualToTheReferenceIsOneAndComesBackBitwise)
{
    Plan plan = planOf("tng:reference=last,mode=quotient", 3000, 1);
    StageRanks ranks(plan);
    Vector g(plan.count);
    for (uint64_t i = 0; i < plan.count; i++)
        g[i] = i % 3 ? 0.75 : -0.75; /* ternary codes it without error */
    std::vector<uint8_t> before = ranks.decode(ranks.encode(Vectors{g}))[0];
    EXPECT_EQ(doublesOf(before, plan.type), g);
    Slots slots = ranks.encode(Vectors{g});
    for (const Coordinate &c : readRecord(slots.slot(0), slots.slotBytes()).coordinates)
        ASSERT_EQ(c.value, 1.0);
    EXPECT_TRUE(ranks.decode(slots)[0] == before);
}

/* ---- quotients ---- */

TEST(Tng, QuotientGuardIsATenthOfTheReferencesRmsAlikeOnBothEnds)
{
    Plan plan = planOf("tng:reference=last,mode=quotient,select=identity", 5000, 2);
    StageRanks ranks(plan);
    auto shrunk = [&](uint64_t step) { /* a tenth of the coordinates far below the rest, some of them 0 */
                                       Vectors g = related(plan.count, 2, step, 0.2);
                                       for (uint64_t i = 0; i < plan.count; i += 10)
                                           for (Vector &x : g)
                                               x[i] *= i % 20 ? 0.0 : 1e-3;
                                       return g;
    };
    ranks.decode(ranks.encode(shrunk(0)));
    uint64_t small = 0;
    for (uint64_t step = 1; step < 5; step++) {
        Vector r = readVector(ranks.reducer(0), "last", plan.count, plan.type), safe = guarded(r);
        Vectors g = shrunk(step);
        Slots slots = ranks.encode(g);
        for (int rank = 0; rank < 2; rank++)
            for (const Coordinate &c : readRecord(slots.slot(rank), slots.slotBytes()).coordinates) {
                double expected = g[static_cast<size_t>(rank)][c.index] / safe[c.index];
                ASSERT_NEAR(c.value, expected, 1e-12 * std::fabs(expected));
            }
        for (uint64_t i = 0; i < plan.count; i++)
            small += safe[i] != r[i];
        Results results = ranks.decode(slots);
        EXPECT_TRUE(results[0] == results[1]);
        EXPECT_LE(largest(minus(doublesOf(results[0], plan.type), sumOf(g))), 1e-14);
    }
    EXPECT_GE(small, 4 * plan.count / 10) << "the case is meant to need the guard";
}

/* Steps of related gradients: the mean squared error of the decoded one. */
double codingError(const std::string &recipe, double noise)
{
    const uint64_t count = 4000, steps = 120;
    Fleet fleet(recipe, count, 1);
    double error = 0;
    for (uint64_t step = 0; step < steps; step++) {
        Vectors g = related(count, 1, step, noise);
        error += squared(minus(fleet.sum(g), g[0])) / squared(g[0]);
    }
    return error / static_cast<double>(steps);
}

TEST(Tng, SearchedQuotientNeverCodesWorseThanPlain)
{
    for (double noise : {0.01, 0.3, 3.0, 100.0}) {
        double plain = codingError("terngrad", noise);
        EXPECT_LE(codingError("tng:reference=ema+last,search=worker,mode=quotient", noise), 1.1 * plain) << noise;
        EXPECT_LE(codingError("tng:reference=ema+last,search=worker", noise), 1.1 * plain) << noise;
    }
}

/* The search is what keeps it: without it a quotient by a noisy reference is worse. */
TEST(Tng, UnsearchedQuotientOfUnrelatedGradientsIsWorseThanPlain)
{
    EXPECT_GT(codingError("tng:reference=last,mode=quotient", 100.0), 1.1 * codingError("terngrad", 100.0));
}

/* ---- the fit ---- */

TEST(Tng, FittedCoefficientsSolveLeastSquares)
{
    Plan plan = planOf("tng:reference=mean+last+ema+ema2,search=fit,select=natural", 5000, 2);
    StageRanks ranks(plan);
    for (uint64_t step = 0; step < 8; step++) {
        Vectors g = related(plan.count, 2, step, 0.4);
        std::vector<Vector> pool(8, Vector(plan.count, 0.0));
        pool[mean] = Vector(plan.count, 1.0);
        for (int p : {last, ema, ema2}) {
            static const char *names[] = {"", "", "last", "ema", "ema2"};
            pool[static_cast<size_t>(p)] = readVector(ranks.reducer(0), names[p], plan.count, plan.type);
        }
        Slots slots = ranks.encode(g);
        for (int rank = 0; rank < 2; rank++) {
            Record record = readRecord(slots.slot(rank), slots.slotBytes());
            ASSERT_EQ(record.problem, "");
            ASSERT_EQ(record.coefficients.size(), 8u);
            Vector left = g[static_cast<size_t>(rank)];
            for (size_t p = 0; p < 8; p++)
                left = minus(left, times(pool[p], record.coefficients[p]));
            for (size_t p = 0; p < 8; p++) /* what is left is orthogonal to every reference */
                EXPECT_LE(std::fabs(dot(left, pool[p])),
                          1e-9 * std::sqrt(squared(g[static_cast<size_t>(rank)]) * squared(pool[p])))
                    << "reference " << p << " step " << step;
            EXPECT_NEAR(ranks.stats(rank).normalized, squared(left) / squared(g[static_cast<size_t>(rank)]), 1e-9);
        }
        ranks.decode(slots);
    }
}

/* ---- references ---- */

/* Plain descent moves by the mean result: (theta before - theta) / step is the last one. */
TEST(Tng, ParameterDifferenceIsTheLastResultOfPlainDescent)
{
    const uint64_t count = 3000;
    const int nranks = 2;
    Fleet byParams("tng:reference=params", count, nranks), byLast("tng:reference=last", count, nranks);
    Vector theta(count, 0.0);
    byParams.setParams(theta, 0.125 / nranks); /* the caller descends by the sum */
    for (uint64_t step = 0; step < 10; step++) {
        Vectors g = related(count, nranks, step, 0.2);
        Vector result = byParams.sum(g);
        byLast.sum(g);
        EXPECT_NEAR(byParams.stats(1).normalized, byLast.stats(1).normalized, 1e-9) << "step " << step;
        Vector before = byParams.read(0, "previous");
        EXPECT_EQ(before, theta);
        theta = minus(theta, times(result, 0.125 / nranks));
        byParams.moveTo(theta);
        EXPECT_LE(largest(minus(times(minus(before, theta), 8.0), times(result, 1.0 / nranks))), 1e-13);
    }
}

TEST(Tng, SnapshotIsTheDenseMeanOfTheRefreshSteps)
{
    const uint64_t count = 3000;
    const int nranks = 3;
    Fleet fleet("tng:reference=snapshot,refresh=4", count, nranks);
    Vector kept;
    for (uint64_t step = 0; step < 10; step++) {
        Vectors g = related(count, nranks, step, 0.5);
        Vector result = fleet.sum(g);
        if (step % 4 == 0) {
            EXPECT_LE(largest(minus(result, sumOf(g))), 1e-14) << "a dense step is exact";
            kept = fleet.read(0, "snapshot");
            EXPECT_LE(largest(minus(kept, times(result, 1.0 / nranks))), 1e-15);
        }
        EXPECT_EQ(fleet.read(0, "snapshot"), kept);
        EXPECT_EQ(fleet.stats(0).denseRounds, step / 4 + 1);
    }
}

/* And `last` is the last of them. */
TEST(Tng, AveragesForgetOldResultsAtTheirRates)
{
    const uint64_t count = 2000;
    const int nranks = 3;
    Fleet fleet("tng:reference=last+ema+ema2,ema=0.25,ema2=0.0625,search=worker", count, nranks);
    Vector fast(count, 0.0), slow = fast;
    for (uint64_t step = 0; step < 8; step++) {
        Vector result = meanOf(fleet.sum(related(count, nranks, step, 0.5)), nranks);
        fast = plus(times(fast, 0.75), times(result, 0.25));
        slow = plus(times(slow, 0.9375), times(result, 0.0625));
        EXPECT_LE(largest(minus(fleet.read(0, "last"), result)), 1e-14 * largest(result));
        EXPECT_LE(largest(minus(fleet.read(0, "ema"), fast)), 1e-13 * (1 + largest(fast))) << "step " << step;
        EXPECT_LE(largest(minus(fleet.read(0, "ema2"), slow)), 1e-13 * (1 + largest(slow))) << "step " << step;
    }
}

TEST(Tng, WindowIsTheMeanOfItsLastResults)
{
    Plan plan = planOf("tng:reference=window,window=3,select=identity", 2000, 1);
    StageRanks ranks(plan);
    Vectors results;
    for (uint64_t step = 0; step < 8; step++) {
        Vectors g = related(plan.count, 1, step, 0.5);
        Slots slots = ranks.encode(g);
        Vector expected(plan.count, 0.0);
        size_t there = std::min<size_t>(results.size(), 3);
        for (size_t w = 0; w < there; w++)
            expected = plus(expected, times(results[results.size() - 1 - w], 1.0 / static_cast<double>(there)));
        for (const Coordinate &c : readRecord(slots.slot(0), slots.slotBytes()).coordinates)
            ASSERT_NEAR(c.value, g[0][c.index] - expected[c.index], 1e-13);
        results.push_back(doublesOf(ranks.decode(slots)[0], plan.type));
    }
}

} // namespace
} // namespace gst
