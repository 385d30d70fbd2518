/* GSpar's probabilities and its hybrid code: the invariants of the method, each by its name. */
#include "methods.h"
#include "record.h"

namespace gst
{
namespace
{

/* Gradients of three skews. */
Vector skewed(uint64_t count, double power, uint64_t seed, gsDataType_t type = GS_FLOAT64)
{
    Vector g = randomVector(count, seed);
    for (double &x : g)
        x = roundTo(type, std::copysign(std::pow(std::fabs(x), power), x));
    return g;
}

/* What the library draws with: p = min(s |g|, 1), s from the magnitude that the uncertain coordinates share. */
Record recordOf(const std::string &recipe, const Vector &g, gsDataType_t type = GS_FLOAT64)
{
    Plan plan = planOf(recipe, g.size(), 1, type);
    StageRanks ranks(plan);
    Slots slots = ranks.encode(Vectors{g});
    Record record = readRecord(slots.slot(0), slots.slotBytes());
    EXPECT_EQ(record.problem, "");
    EXPECT_EQ(record.flags & flagThinned, 0u);
    return record;
}

Vector probabilitiesOf(const std::string &recipe, const Vector &g, gsDataType_t type = GS_FLOAT64)
{
    double inverse = recordOf(recipe + ",value=shared", g, type).scale;
    Vector p(g.size());
    for (size_t i = 0; i < g.size(); i++)
        p[i] = inverse > 0 ? std::min(std::fabs(g[i]) / inverse, 1.0) : 0.0;
    return p;
}

double total(const Vector &x)
{
    double sum = 0;
    for (double element : x)
        sum += element;
    return sum;
}

/* E |Q(g)|^2 = sum g^2 / p. */
double expectedSquare(const Vector &g, const Vector &p)
{
    double sum = 0;
    for (size_t i = 0; i < g.size(); i++)
        sum += g[i] != 0 ? g[i] * g[i] / p[i] : 0.0;
    return sum;
}

/* The closed form by its text: sort, then look for k. */
Vector sortedClosedForm(const Vector &g, double epsilon)
{
    Vector m(g.size()), p(g.size());
    for (size_t i = 0; i < g.size(); i++)
        m[i] = std::fabs(g[i]);
    std::sort(m.begin(), m.end(), std::greater<double>());
    double all = squared(g), magnitudes = total(m), squares = all;
    size_t k = 0;
    while (k < m.size() && m[k] * magnitudes > epsilon * all + squares) {
        magnitudes -= m[k];
        squares -= m[k] * m[k];
        k++;
    }
    double s = magnitudes / (epsilon * all + squares), edge = k > 0 ? m[k - 1] : INFINITY;
    for (size_t i = 0; i < g.size(); i++)
        p[i] = std::fabs(g[i]) >= edge ? 1.0 : std::min(1.0, s * std::fabs(g[i]));
    return p;
}

const double epsilons[] = {0.25, 1.0, 4.0};
const double powers[] = {1.0, 3.0, 8.0};

std::string closed(double epsilon)
{
    return "gspar:capacity=1,epsilon=" + std::to_string(epsilon);
}

TEST(GsparClosedForm, ExpectedSquareIsOnePlusEpsilonToFourDigits)
{
    for (gsDataType_t type : {GS_FLOAT64, GS_FLOAT32})
        for (double epsilon : epsilons)
            for (double power : powers) {
                Vector g = skewed(20000, power, 1, type);
                double ratio = expectedSquare(g, probabilitiesOf(closed(epsilon), g, type)) / squared(g);
                EXPECT_NEAR(ratio, 1 + epsilon, 1e-4 * (1 + epsilon)) << "power " << power;
            }
}

TEST(GsparClosedForm, EqualsTheSortedOneByItsText)
{
    for (double epsilon : epsilons)
        for (double power : powers) {
            Vector g = skewed(5000, power, 2), expected = sortedClosedForm(g, epsilon),
                   p = probabilitiesOf(closed(epsilon), g);
            EXPECT_LE(largest(minus(p, expected)), 1e-6) << epsilon << ", power " << power;
        }
}

TEST(GsparGreedy, ExpectedSupportIsAtMostTheDensity)
{
    for (double density : {0.01, 0.1, 0.5})
        for (double power : powers) {
            Vector g = skewed(20000, power, 3);
            double kept = total(probabilitiesOf("gspar:capacity=1,density=" + std::to_string(density), g));
            EXPECT_LE(kept, density * 20000 * (1 + 1e-6)) << density << ", power " << power;
            EXPECT_GE(kept, (power > 3 ? 0.5 : 0.9) * density * 20000) << density << ", power " << power;
        }
}

class GsparProbabilities : public testing::TestWithParam<std::string>
{
};

TEST_P(GsparProbabilities, ArePermutationEquivariant)
{
    Vector g = skewed(9000, 3, 4), p = probabilitiesOf(GetParam(), g), permuted(g.size());
    std::vector<size_t> to(g.size());
    for (size_t i = 0; i < g.size(); i++)
        to[i] = i;
    std::shuffle(to.begin(), to.end(), std::mt19937_64(1));
    for (size_t i = 0; i < g.size(); i++)
        permuted[to[i]] = g[i];
    Vector q = probabilitiesOf(GetParam(), permuted);
    for (size_t i = 0; i < g.size(); i++)
        ASSERT_NEAR(q[to[i]], p[i], 2e-7 * p[i]);
}

TEST_P(GsparProbabilities, AreFreeOfScale)
{
    Vector g = skewed(9000, 3, 5), p = probabilitiesOf(GetParam(), g);
    EXPECT_EQ(probabilitiesOf(GetParam(), times(g, 1024.0)), p) << "a power of two moves exponents alone";
    Vector q = probabilitiesOf(GetParam(), times(g, 3.7));
    for (size_t i = 0; i < g.size(); i++)
        ASSERT_NEAR(q[i], p[i], 2e-7 * p[i]);
}

TEST_P(GsparProbabilities, AreInRangeAndZeroOnlyForZeros)
{
    Vector g = skewed(9000, 3, 6);
    for (size_t i = 0; i < g.size(); i += 3)
        g[i] = 0;
    Vector p = probabilitiesOf(GetParam(), g);
    for (size_t i = 0; i < g.size(); i++) {
        ASSERT_LE(p[i], 1.0);
        ASSERT_EQ(p[i] > 0.0, g[i] != 0.0);
    }
    for (const Coordinate &c : recordOf(GetParam(), g).coordinates)
        ASSERT_NE(c.index % 3, 0u) << "a zero has travelled";
}

TEST_P(GsparProbabilities, OfZerosKeepNothing)
{
    EXPECT_TRUE(recordOf(GetParam(), Vector(5000, 0.0)).coordinates.empty());
    EXPECT_TRUE(recordOf(GetParam() + ",value=shared", Vector(5000, 0.0)).coordinates.empty());
}

/* Survivors with p < 1 have one magnitude, 1/s; those with p = 1 travel as they are. */
TEST_P(GsparProbabilities, UncertainValuesAllHaveOneMagnitude)
{
    Vector g = skewed(9000, 6, 7), p = probabilitiesOf(GetParam(), g);
    std::set<double> magnitudes;
    uint64_t certain = 0;
    for (const Coordinate &c : recordOf(GetParam() + ",value=f64", g).coordinates) {
        EXPECT_EQ(std::signbit(c.value), std::signbit(g[c.index]));
        if (p[c.index] < 1 - 1e-6)
            magnitudes.insert(std::fabs(c.value));
        else if (p[c.index] >= 1) {
            EXPECT_EQ(c.value, g[c.index]);
            certain++;
        }
    }
    EXPECT_EQ(magnitudes.size(), 1u);
    EXPECT_GT(certain, 5u) << "the case is meant to have both";
}

INSTANTIATE_TEST_SUITE_P(Forms, GsparProbabilities,
                         testing::Values("gspar:capacity=1,epsilon=1", "gspar:capacity=1,epsilon=0.2",
                                         "gspar:capacity=1,density=0.1"),
                         [](const auto &p) { return nameOf(p.param); });

/* ---- the hybrid code ---- */

/* A record's group 1 as a list of indices and signs instead of its map. */
std::vector<uint8_t> withIndices(const uint8_t *bytes, const Record &record, size_t room)
{
    uint64_t blocks = (record.count + 4095) / 4096, table = 80, first = record.aux;
    auto align = [](uint64_t n) { return (n + 15) / 16 * 16; };
    uint64_t map = table + align(4 * (blocks + 1)) + align(4 * first) + align((12 * first + 7) / 8);
    std::vector<uint8_t> out(bytes, bytes + map);
    std::vector<Coordinate> group;
    for (const Coordinate &c : record.coordinates)
        if (c.group == 1)
            group.push_back(c);
    uint64_t n = group.size(), signs = map + align(4 * (blocks + 1)), indices = signs + align((n + 7) / 8);
    out.resize(indices + align((12 * n + 7) / 8), 0);
    EXPECT_LE(out.size(), room);
    for (uint64_t b = 0, j = 0; b <= blocks; b++) {
        while (j < n && group[j].index / 4096 < b)
            j++;
        writeAt(out.data(), map + 4 * b, static_cast<uint32_t>(j));
    }
    for (uint64_t j = 0; j < n; j++) {
        if (group[j].value < 0)
            out[signs + j / 8] |= static_cast<uint8_t>(1 << j % 8);
        for (uint64_t bit = 0; bit < 12; bit++)
            if (group[j].index % 4096 >> bit & 1)
                out[indices + (12 * j + bit) / 8] |= static_cast<uint8_t>(1 << (12 * j + bit) % 8);
    }
    writeAt(out.data(), 6, static_cast<uint16_t>(record.flags & ~static_cast<uint32_t>(flagMap)));
    writeAt<uint64_t>(out.data(), 48, out.size());
    writeAt(out.data(), 56, recordChecksum(out.data(), out.size()));
    return out;
}

TEST(GsparHybrid, MapAndIndexFormsDecodeToTheSame)
{
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64})
        for (uint64_t count : {500u, 4096u, 13001u}) {
            Plan plan = planOf("gspar:density=0.4,value=shared,capacity=1", count, 2, type);
            StageRanks ranks(plan), others(plan);
            Vectors g = {skewed(count, 1.5, 8, type), skewed(count, 1.5, 9, type)};
            Slots slots = ranks.encode(g), listed = others.encode(g);
            for (int r = 0; r < 2; r++) {
                Record record = readRecord(slots.slot(r), slots.slotBytes());
                ASSERT_EQ(record.problem, "");
                ASSERT_TRUE(record.flags & flagMap) << "the case is meant to make a map";
                std::vector<uint8_t> list = withIndices(slots.slot(r), record, slots.slotBytes());
                EXPECT_GE(list.size(), record.bytes) << "the shorter form travels";
                std::memcpy(listed.slot(r), list.data(), list.size());
                EXPECT_EQ(readRecord(listed.slot(r), listed.slotBytes()).problem, "");
            }
            EXPECT_TRUE(ranks.decode(slots) == others.decode(listed));
        }
}

TEST(GsparHybrid, TheShorterFormTravels)
{
    Vector g = skewed(20000, 1, 10);
    EXPECT_TRUE(recordOf("gspar:density=0.4,value=shared,capacity=1", g).flags & flagMap);
    EXPECT_FALSE(recordOf("gspar:density=0.01,value=shared,capacity=1", g).flags & flagMap);
}

/* What decodes is Q(g) as drawn: g where p = 1, else the shared magnitude with g's sign; the same coordinates as without sharing. */
TEST(GsparHybrid, DecodesToTheSameDrawAsPlainValues)
{
    Vector g = skewed(9000, 1.5, 11, GS_FLOAT32);
    for (const char *density : {"0.02", "0.4"}) {
        std::string recipe = std::string("gspar:capacity=1,density=") + density;
        uint32_t map = recordOf(recipe + ",value=shared", g, GS_FLOAT32).flags & flagMap;
        EXPECT_EQ(map != 0, density == std::string("0.4")) << "the case is meant to see both forms";
        std::vector<Coordinate> shared = recordOf(recipe + ",value=shared", g, GS_FLOAT32).coordinates,
                                plain = recordOf(recipe + ",value=f32", g, GS_FLOAT32).coordinates;
        ASSERT_EQ(shared.size(), plain.size());
        for (size_t j = 0; j < plain.size(); j++) {
            EXPECT_EQ(shared[j].index, plain[j].index);
            EXPECT_EQ(shared[j].value, plain[j].value);
        }
    }
}

TEST(GsparHybrid, LastExactCountsTheCertainOnes)
{
    Vector g = skewed(9000, 5, 12);
    Plan plan = planOf("gspar:density=0.1,value=shared,capacity=1", g.size(), 1);
    StageRanks ranks(plan);
    Slots slots = ranks.encode(Vectors{g});
    Record record = readRecord(slots.slot(0), slots.slotBytes());
    ranks.decode(slots);
    EXPECT_EQ(ranks.stats(0).lastExact, record.aux);
    EXPECT_EQ(ranks.stats(0).lastSent, record.kept);
    EXPECT_GT(record.aux, 0u);
    EXPECT_LT(record.aux, record.kept);
}

/* ---- the mean, with the closed form ---- */

TEST(GsparClosedForm, MeanOverDrawsIsTheGradientWithinFiveSigma)
{
    const uint64_t count = 3000, draws = 1500;
    for (const char *value : {"f64", "f32", "f16", "bf16", "shared"}) {
        Vector g = skewed(count, 3, 13), mean(count, 0.0), p = probabilitiesOf(closed(1.0), g);
        Fleet fleet(closed(1.0) + ",value=" + value, count, 1);
        for (uint64_t n = 0; n < draws; n++)
            mean = plus(mean, times(fleet.sum({g}), 1.0 / draws));
        double coding = std::string(value) == "bf16"  ? 1.0 / 256
                        : std::string(value) == "f16" ? 1.0 / 2048
                                                      : 1e-7,
               all = 0;
        uint64_t checked = 0, wrong = 0;
        Vector error = minus(mean, g);
        for (uint64_t i = 0; i < count; i++) {
            if (p[i] == 0)
                continue;
            double rounding = g[i] * g[i] / p[i] * coding * coding,
                   variance = g[i] * g[i] * (1 - p[i]) / p[i] + rounding;
            all += variance;
            if (p[i] * draws < 25)
                continue;
            checked++;
            wrong += std::fabs(error[i]) > 5 * std::sqrt(variance / draws);
        }
        EXPECT_GT(checked, 300u);
        EXPECT_EQ(wrong, 0u) << value << ", of " << checked;
        for (uint64_t direction = 0; direction < 64; direction++) {
            std::mt19937_64 random(direction);
            double sum = 0;
            for (double e : error)
                sum += random() >> 63 ? e : -e;
            EXPECT_LT(std::fabs(sum), 5 * std::sqrt(all / draws)) << value << ", direction " << direction;
        }
    }
}

} // namespace
} // namespace gst
