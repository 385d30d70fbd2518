/* Recipes without feedback are unbiased: means over many draws lie within five theoretical standard errors. */
#include "oracle.h"
#include "ranks.h"

namespace gst
{
namespace
{

/* The decoded values of one record, and what the step says of it. */
struct Draw {
    std::vector<float> values;
    gsStats_t stats;
};

/* One rank draws again and again from the same gradient: every step is a new draw. */
template <typename Visit> void drawMany(const Recipe &recipe, const std::vector<float> &g, uint64_t draws, Visit visit)
{
    Plan plan;
    plan.recipe = recipe.text();
    plan.count = g.size();
    plan.nranks = 1;
    plan.seed = 2024;
    StageRanks ranks(plan);
    for (uint64_t n = 0; n < draws; n++) {
        Draw draw;
        draw.values = numbersOf(ranks.decode(ranks.encode({g}))[0], GS_FLOAT32);
        draw.stats = ranks.stats(0);
        visit(draw);
    }
}

/* The probability with which each coordinate is kept, before thinning. */
std::vector<double> probabilities(const Recipe &recipe, const std::vector<float> &g)
{
    std::vector<double> p(g.size(), recipe.effectiveDensity());
    double s = recipe.rule == Rule::Gspar ? gsparScale(g, recipe.effectiveDensity()) : 0;
    for (size_t i = 0; i < g.size() && recipe.rule == Rule::Gspar; i++)
        p[i] = std::min(s * std::fabs(g[i]), 1.0);
    return p;
}

/* Coordinates that are sure to travel have no error of their own but the rounding's. */
double variance(const Recipe &recipe, double g, double p, double thinning)
{
    double q = p * thinning, rounding = recipe.coding == codingBf16 ? std::pow(g / q / 256, 2) * q : 0;
    return q > 0 ? g * g * (1 - q) / q + rounding + 1e-13 * g * g : 0;
}

/* 64 directions of +1 and -1: errors that agree in sign add up where single coordinates look innocent. */
double projection(const std::vector<double> &x, uint64_t direction)
{
    std::mt19937_64 random(direction);
    double sum = 0;
    for (double value : x)
        sum += random() >> 63 ? value : -value;
    return sum;
}

struct Case {
    Recipe recipe;
    bool thinned;
};

class Unbiased : public testing::TestWithParam<Case>
{
};

TEST_P(Unbiased, MeanIsTheGradient)
{
    constexpr uint64_t draws = 1500;
    const Recipe &recipe = GetParam().recipe;
    std::vector<float> g = makeGradient(Shape::Skewed, 3000, GS_FLOAT32, 11);
    std::vector<double> p = probabilities(recipe, g), mean(g.size(), 0.0), square(g.size(), 0.0);
    double expected = 0, kept = 0, sent = 0, keptVariance = 0;
    for (double q : p) {
        expected += q;
        keptVariance += q * (1 - q);
    }
    uint64_t thinned = 0;
    drawMany(recipe, g, draws, [&](const Draw &draw) {
        for (size_t i = 0; i < g.size(); i++)
            mean[i] += draw.values[i] / static_cast<double>(draws);
        kept += static_cast<double>(draw.stats.lastKept) / static_cast<double>(draws);
        sent += static_cast<double>(draw.stats.lastSent) / static_cast<double>(draws);
        thinned = draw.stats.thinned;
    });
    EXPECT_NEAR(kept, expected, 5 * std::sqrt(keptVariance / static_cast<double>(draws)) + 1e-3 * expected);
    EXPECT_EQ(GetParam().thinned, thinned == draws) << thinned << " thinned";
    EXPECT_TRUE(thinned == 0 || thinned == draws) << "the case is meant to be clear";
    double thinning = sent / kept, total = 0;
    uint64_t checked = 0, wrong = 0;
    std::vector<double> error(g.size());
    for (size_t i = 0; i < g.size(); i++) {
        double v = variance(recipe, g[i], p[i], thinning);
        error[i] = mean[i] - g[i];
        total += v;
        if (p[i] * thinning * draws < 25)
            continue;
        checked++;
        wrong += std::fabs(error[i]) > 5 * std::sqrt(v / draws) + 1e-6 * std::fabs(g[i]);
    }
    EXPECT_GT(checked, 50u);
    EXPECT_EQ(wrong, 0u) << "of " << checked << " coordinates";
    /* Thinning draws without replacement; its coordinates are a little dependent, at most this much. */
    double deviation = std::sqrt(total * (GetParam().thinned ? 1.5 : 1.0) / draws);
    for (uint64_t direction = 0; direction < 64; direction++)
        EXPECT_LT(std::fabs(projection(error, direction)), 5 * deviation) << "direction " << direction;
}

INSTANTIATE_TEST_SUITE_P(Recipes, Unbiased,
                         testing::Values(Case{gspar(0.05, codingF32), false}, Case{gspar(0.05, codingBf16), false},
                                         Case{gspar(0.05, codingShared), false}, Case{gspar(0.3, codingShared), false},
                                         Case{randk(0.05, codingF32), false}, Case{randk(0.05, codingBf16), false},
                                         Case{gspar(0.3, codingF32, 0.1), true},
                                         Case{gspar(0.3, codingBf16, 0.1), true},
                                         Case{gspar(0.3, codingShared, 0.1), true},
                                         Case{randk(0.3, codingF32, 0.1), true},
                                         Case{randk(0.3, codingBf16, 0.1), true}),
                         [](const auto &p) { return nameOf(p.param.recipe); });

/* Stochastic rounding alone: everything travels, so the mean's only error is the rounding's. */
TEST(StochasticRounding, KeepsTheMean)
{
    constexpr uint64_t draws = 3000;
    std::vector<float> g(512);
    for (size_t i = 0; i < g.size(); i++)
        g[i] = (i % 2 ? -1.0f : 1.0f) * (1.0f + static_cast<float>(i) / 512.0f / 128.0f); /* within one step of bf16 */
    std::vector<double> mean(g.size(), 0.0);
    drawMany(randk(1.0, codingBf16), g, draws, [&](const Draw &draw) {
        for (size_t i = 0; i < g.size(); i++)
            mean[i] += draw.values[i] / static_cast<double>(draws);
    });
    double step = 1.0 / 128, total = 0;
    for (size_t i = 0; i < g.size(); i++) {
        double share = static_cast<double>(i) / 512, deviation = step * std::sqrt(share * (1 - share) / draws);
        EXPECT_NEAR(mean[i], g[i], 5 * deviation + 1e-6) << "coordinate " << i;
        total += (mean[i] - g[i]) * (i % 2 ? -1 : 1);
    }
    EXPECT_LT(std::fabs(total), 5 * step * std::sqrt(512.0 / 6 / draws)) << "rounds away from or towards zero";
}

/* All 100 places of a systematic sample of 30 are equally likely; u is the only randomness. */
TEST(Thinning, ChiSquareOfPlaces)
{
    constexpr uint64_t draws = 4000, n = 100, m = 30;
    std::vector<float> g(n, 1.0f);
    std::vector<double> stays(n, 0.0);
    drawMany(randk(1.0, codingF32, 0.3), g, draws, [&](const Draw &draw) {
        uint64_t sent = 0;
        for (size_t i = 0; i < n; i++) {
            stays[i] += draw.values[i] != 0.0f;
            sent += draw.values[i] != 0.0f;
        }
        EXPECT_EQ(sent, m);
    });
    double expected = static_cast<double>(draws) * m / n, chiSquare = 0;
    for (double x : stays)
        chiSquare += (x - expected) * (x - expected) / (expected * (1 - 0.3));
    /* Mean 100 if the places were independent; they repeat with period n/gcd = 10, so 10 groups of 10 alike. */
    EXPECT_LT(chiSquare, 10 * 29.6) << "0.1 % of ten times a chi-square of 10 degrees";
}

/* Neighbours, ranks and steps are different draws. */
TEST(Draws, AreIndependentOverRanksAndSteps)
{
    Plan plan;
    plan.recipe = gspar(0.5, codingF32).text();
    plan.count = 20000;
    plan.nranks = 2;
    StageRanks ranks(plan);
    Gradients g(2, std::vector<float>(plan.count, 1.0f));
    std::vector<std::vector<char>> masks;
    for (uint64_t step = 0; step < 3; step++) {
        Slots slots = ranks.encode(g);
        for (int r = 0; r < 2; r++) {
            masks.emplace_back(plan.count, 0);
            for (const Coordinate &c : readRecord(slots.slot(r), slots.slotBytes()).coordinates)
                masks.back()[c.index] = 1;
        }
        ranks.decode(slots);
    }
    for (size_t a = 0; a < masks.size(); a++)
        for (size_t b = 0; b <= a; b++)
            for (uint64_t lag : {uint64_t{0}, uint64_t{1}, uint64_t{4}}) {
                if (a == b && lag == 0)
                    continue;
                double agree = 0;
                for (uint64_t i = lag; i < plan.count; i++)
                    agree += masks[a][i] == masks[b][i - lag];
                EXPECT_NEAR(agree / static_cast<double>(plan.count - lag), 0.5, 5 * 0.5 / std::sqrt(plan.count));
            }
}

} // namespace
} // namespace gst
