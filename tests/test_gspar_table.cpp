/*
 * GSpar's variance table: logistic regression on the paper's synthetic data, the ratio of sum g^2/p to sum g^2 at w = 0,
 * with the library's own s (p = min(s |g|, 1)) read from its records.
 */
#include "oracle.h"
#include "ranks.h"

namespace gst
{
namespace
{

constexpr size_t rows = 1024, dimension = 2048, gradients = 200, batch = 8;

struct DataSet {
    double c1, c2;
    double ratio[5]; /* at the densities below */
    double tolerance;
};

constexpr double densities[] = {0.5, 0.2, 0.1, 0.05, 0.02};

/* Row a = gaussian times a magnitude that is small for most coordinates; label by the gaussian alone. */
struct Rows {
    std::vector<float> features, labels;
};

Rows makeRows(const DataSet &set, uint64_t seed)
{
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform;
    std::vector<double> magnitude(dimension), w(dimension);
    for (double &b : magnitude) {
        b = uniform(random);
        b *= b <= set.c2 ? set.c1 : 1;
    }
    for (double &x : w)
        x = normal(random);
    Rows data{std::vector<float>(rows * dimension), std::vector<float>(rows)};
    for (size_t n = 0; n < rows; n++) {
        double score = 0;
        for (size_t j = 0; j < dimension; j++) {
            double a = normal(random);
            score += a * w[j];
            data.features[n * dimension + j] = static_cast<float>(a * magnitude[j]);
        }
        data.labels[n] = score < 0 ? -1.0f : 1.0f;
    }
    return data;
}

/* The logistic loss's gradient at w = 0 over a batch: the regulariser vanishes there. */
std::vector<float> gradientOf(const Rows &data, std::mt19937_64 &random)
{
    std::vector<float> g(dimension, 0.0f);
    for (size_t b = 0; b < batch; b++) {
        size_t n = random() % rows;
        for (size_t j = 0; j < dimension; j++)
            g[j] -= 0.5f * data.labels[n] * data.features[n * dimension + j] / batch;
    }
    return g;
}

/* The scale in a record of one rank whose values with p < 1 share the magnitude 1/s. */
double scaleOfLibrary(StageRanks &ranks, const std::vector<float> &g)
{
    Slots slots = ranks.encode({g});
    Record record = readRecord(slots.slot(0), slots.slotBytes());
    EXPECT_EQ(record.problem, "");
    EXPECT_EQ(record.flags & flagThinned, 0u) << "the scale of a thinned record is not 1/s";
    return 1.0 / record.scale;
}

double ratioOf(const Rows &data, double density, uint64_t seed)
{
    Plan plan;
    plan.recipe = gspar(density, codingShared, 1.0).text();
    plan.count = dimension;
    plan.nranks = 1;
    StageRanks ranks(plan);
    std::mt19937_64 random(seed + 77);
    double numerator = 0, denominator = 0;
    for (size_t n = 0; n < gradients; n++) {
        std::vector<float> g = gradientOf(data, random);
        double s = scaleOfLibrary(ranks, g), own = gsparScale(g, density);
        EXPECT_NEAR(s / own, 1.0, 1e-6);
        for (double x : g) {
            denominator += x * x;
            numerator += x == 0 ? 0 : x * x / std::min(s * std::fabs(x), 1.0);
        }
    }
    return numerator / denominator;
}

class GsparTable : public testing::TestWithParam<DataSet>
{
};

TEST_P(GsparTable, Variance)
{
    const DataSet &set = GetParam();
    double mean[5] = {};
    for (uint64_t seed = 1; seed <= 3; seed++) {
        Rows data = makeRows(set, seed);
        for (size_t k = 0; k < 5; k++)
            mean[k] += ratioOf(data, densities[k], seed) / 3;
    }
    for (size_t k = 0; k < 5; k++) {
        std::printf("  C1=%-4g C2=%-6g density %-4g  measured %8.4f  table %8.4f  uniform %4g\n", set.c1, set.c2,
                    densities[k], mean[k], set.ratio[k], 1 / densities[k]);
        EXPECT_NEAR(mean[k], set.ratio[k], set.tolerance * set.ratio[k]) << "density " << densities[k];
    }
}

INSTANTIATE_TEST_SUITE_P(Data, GsparTable,
                         testing::Values(DataSet{0.6, 0.25, {1.11, 2.34, 4.67, 9.35, 23.4}, 0.03},
                                         DataSet{0.9, 0.0625, {1.13, 2.42, 4.84, 9.70, 24.2}, 0.03},
                                         DataSet{0.01, 0.9, {1.0001, 1.0009, 1.021, 1.50, 3.67}, 0.08}));

} // namespace
} // namespace gst
