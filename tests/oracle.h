/*
 * The oracle: each recipe's rule in slow, obvious double precision, and a referee that follows one rank through its steps:
 * given the gradient and the record that the library made of it, it says whether the record is right.
 */
#ifndef GS_TESTS_ORACLE_H
#define GS_TESTS_ORACLE_H

#include "data.h"
#include "record.h"

#include <gtest/gtest.h>

#include <array>
#include <cfloat>
#include <set>
#include <string>

namespace gst
{

/* ---- recipes ------------------------------------------------------------------------------------------------------- */

enum class Rule { Dense, Threshold, Topk, Gspar, Randk };

/* A recipe in parts; text() is what the library is given. Negative numbers: not given. */
struct Recipe {
    Rule rule = Rule::Dense;
    double density = -1;
    int k = -1;
    Coding coding = codingBf16;
    double tau = -1;
    double capacity = -1;

    bool feedback() const
    {
        return rule == Rule::Threshold || rule == Rule::Topk;
    }
    bool unbiased() const
    {
        return rule == Rule::Gspar || rule == Rule::Randk;
    }
    double densityOr(double fallback) const
    {
        return density > 0 ? density : fallback;
    }
    double effectiveDensity() const
    {
        return densityOr(rule == Rule::Gspar ? 0.05 : 0.01);
    }

    std::string text() const
    {
        static const char *names[] = {"dense", "threshold", "chunk-topk", "gspar", "randk"};
        static const char *codings[] = {"f32", "bf16", "shared", "f64", "f16"};
        std::string keys;
        auto add = [&keys](const std::string &key) { keys += (keys.empty() ? ":" : ",") + key; };
        auto number = [](double x) {
            char digits[32];
            std::snprintf(digits, sizeof digits, "%.9g", x);
            return std::string(digits);
        };
        if (density > 0)
            add("density=" + number(density));
        if (k > 0)
            add("k=" + std::to_string(k));
        if (tau >= 0)
            add("tau=" + number(tau));
        if (rule != Rule::Dense)
            add(std::string("value=") + codings[coding]);
        if (capacity > 0)
            add("capacity=" + number(capacity));
        return names[static_cast<int>(rule)] + keys;
    }
};

inline Recipe dense()
{
    return {};
}

inline Recipe threshold(double density, Coding coding = codingBf16, double capacity = -1)
{
    return {Rule::Threshold, density, -1, coding, -1, capacity};
}

inline Recipe fixedThreshold(double tau, double capacity, Coding coding = codingBf16)
{
    return {Rule::Threshold, -1, -1, coding, tau, capacity};
}

inline Recipe topk(int k, Coding coding = codingBf16)
{
    return {Rule::Topk, -1, k, coding, -1, -1};
}

inline Recipe gspar(double density, Coding coding = codingBf16, double capacity = -1)
{
    return {Rule::Gspar, density, -1, coding, -1, capacity};
}

inline Recipe randk(double density, Coding coding = codingBf16, double capacity = -1)
{
    return {Rule::Randk, density, -1, coding, -1, capacity};
}

/* What the pipeline is tested with: every rule and coding, and capacities that overflow. */
inline const std::vector<Recipe> &allRecipes()
{
    static const std::vector<Recipe> recipes = {
        dense(),
        threshold(0.01),
        threshold(0.1, codingF32),
        threshold(0.05, codingBf16, 0.02),
        fixedThreshold(1.5, 0.5),
        fixedThreshold(0.5, 0.1, codingF32),
        topk(64),
        topk(4096),
        topk(1, codingF32),
        topk(100, codingF32),
        gspar(0.05),
        gspar(0.2, codingF32),
        gspar(0.05, codingShared),
        gspar(0.1, codingBf16, 0.03),
        gspar(0.3, codingShared, 0.1),
        randk(0.01),
        randk(0.1, codingF32),
        randk(0.2, codingF32, 0.05),
    };
    return recipes;
}

/* A name for googletest. */
inline std::string nameOf(const Recipe &recipe)
{
    std::string name = recipe.text();
    for (char &c : name)
        if (!std::isalnum(static_cast<unsigned char>(c)))
            c = c == '.' ? 'p' : '_';
    return name;
}

/* ---- random draws -------------------------------------------------------------------------------------------------- */

/* Philox4x32-10, written from the paper: ten rounds of two multiplications, keys bumped by Weyl constants. */
inline std::array<uint32_t, 4> philox(std::array<uint32_t, 4> c, std::array<uint32_t, 2> key)
{
    for (int round = 0; round < 10; round++) {
        uint64_t left = 3528531795ull * c[0], right = 3449720151ull * c[2];
        c = {static_cast<uint32_t>(right >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(right),
             static_cast<uint32_t>(left >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(left)};
        key[0] += 2654435769u;
        key[1] += 3144134277u;
    }
    return c;
}

enum Purpose { drawKeep = 1, drawThin = 3, drawMask = 4 };

inline uint32_t draw(uint64_t seed, uint64_t i, uint64_t step, uint32_t rank, Purpose purpose)
{
    uint64_t quad = i / 4;
    std::array<uint32_t, 4> counter = {static_cast<uint32_t>(quad), static_cast<uint32_t>(quad >> 32),
                                       static_cast<uint32_t>(step), rank * 256 + purpose};
    return philox(counter, {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)})[i % 4];
}

/* ---- rules --------------------------------------------------------------------------------------------------------- */

/* GSpar, Algorithm 3 with two rescalings: p_i = min(s |g_i|, 1). */
inline double gsparScale(const std::vector<float> &g, double density)
{
    double norm = 0, wanted = density * static_cast<double>(g.size());
    for (float x : g)
        norm += std::fabs(static_cast<double>(x));
    double s = norm > 0 ? std::min(wanted / norm, static_cast<double>(FLT_MAX)) : 0;
    for (int j = 0; j < 2 && s > 0; j++) {
        double below = 0, sum = 0;
        for (float x : g)
            if (s * std::fabs(x) < 1) {
                below++;
                sum += s * std::fabs(static_cast<double>(x));
            }
        double c = sum > 0 ? (wanted - static_cast<double>(g.size()) + below) / sum : 0;
        if (c > 1)
            s = std::min(s * c, static_cast<double>(FLT_MAX));
    }
    return s;
}

/* Systematic sampling: does number j of n stay, when m are to stay and u = word / 2^32? Exact. */
inline bool thinningStays(uint64_t j, uint64_t n, uint64_t m, uint32_t word)
{
    using wide = unsigned __int128;
    auto before = [&](uint64_t i) { /* floor(i m / n + u) */
                                    return ((static_cast<wide>(i) * m << 32) + static_cast<wide>(word) * n) /
                                           (static_cast<wide>(n) << 32);
    };
    return before(j + 1) > before(j);
}

inline uint64_t topkOfChunk(uint64_t k, uint64_t length)
{
    return (k * length + 4095) / 4096;
}

/* The k largest magnitudes of every 4096, ties to the lower index; in index order. */
inline std::vector<uint64_t> topkIndices(const std::vector<float> &a, uint64_t k)
{
    std::vector<uint64_t> kept;
    for (uint64_t begin = 0; begin < a.size(); begin += 4096) {
        uint64_t length = std::min<uint64_t>(4096, a.size() - begin);
        std::vector<uint64_t> order(length);
        for (uint64_t i = 0; i < length; i++)
            order[i] = begin + i;
        std::stable_sort(order.begin(), order.end(),
                         [&a](uint64_t i, uint64_t j) { return std::fabs(a[i]) > std::fabs(a[j]); });
        order.resize(topkOfChunk(k, length));
        std::sort(order.begin(), order.end());
        kept.insert(kept.end(), order.begin(), order.end());
    }
    return kept;
}

/* Selected coordinates, in index order. `doubtful`: float32 and double may decide differently about these. */
struct Kept {
    std::vector<uint64_t> indices;
    std::vector<uint64_t> doubtful;
};

/* Coordinates with word < p 2^32. slack: relative uncertainty of p. */
template <typename Probability, typename Word>
Kept drawn(uint64_t count, double slack, Probability probability, Word word)
{
    Kept kept;
    for (uint64_t i = 0; i < count; i++) {
        double p = probability(i), edge = p * 4294967296.0, w = p > 0 && p < 1 ? word(i) : 0;
        if (p >= 1 || (p > 0 && w < edge))
            kept.indices.push_back(i);
        if (p > 0 && p < 1 && slack > 0 && std::fabs(w - edge) <= slack * edge + 1)
            kept.doubtful.push_back(i);
    }
    return kept;
}

inline Kept gsparKept(const std::vector<float> &g, double s, uint64_t seed, uint64_t step, uint32_t rank)
{
    return drawn(
        g.size(), 5e-7, [&](uint64_t i) { return s * std::fabs(static_cast<double>(g[i])); },
        [&](uint64_t i) { return draw(seed, i, step, rank, drawKeep); });
}

/* The same on all ranks. */
inline std::vector<uint64_t> randkMask(uint64_t count, double density, uint64_t seed, uint64_t step)
{
    double p = static_cast<float>(density);
    return drawn(
               count, 0, [p](uint64_t) { return p; }, [&](uint64_t i) { return draw(seed, i, step, 0, drawMask); })
        .indices;
}

/* ---- the referee --------------------------------------------------------------------------------------------------- */

/* Follows one rank: its residual, its step. Sees records, never the library. */
class Referee
{
  public:
    Referee(const Recipe &recipe, uint64_t count, uint64_t seed, uint32_t rank)
        : recipe_(recipe), seed_(seed), rank_(rank), e_(recipe.feedback() ? count : 0, 0.0f)
    {
    }

    /* Reads the record of gradient g, checks it, moves on to the next step. tau: the threshold in force, 0 if unknown. */
    Record check(const std::vector<float> &g, const uint8_t *bytes, uint64_t room, float tau)
    {
        std::vector<uint64_t> mask =
            recipe_.rule == Rule::Randk ? sentMask(g.size(), readAt<uint64_t>(bytes, 32)) : mask_;
        Record record = readRecord(bytes, room, {mask});
        EXPECT_EQ(record.problem, "");
        EXPECT_EQ(record.rank, rank_);
        EXPECT_EQ(record.step, step_);
        EXPECT_EQ(record.count, g.size());
        EXPECT_EQ(record.kept, record.coordinates.size());
        EXPECT_EQ(record.flags & ~static_cast<uint32_t>(flagThinned | flagOverflowed | flagMap), 0u);
        EXPECT_TRUE(!(record.flags & flagMap) || recipe_.coding == codingShared);
        if (record.problem.empty() && recipe_.feedback())
            checkFeedback(g, record, tau);
        else if (record.problem.empty())
            checkUnbiased(g, record);
        step_++;
        return record;
    }

    const std::vector<float> &residual() const
    {
        return e_;
    }
    uint64_t step() const
    {
        return step_;
    }

  private:
    void checkCapacity(const Record &record)
    {
        double share = recipe_.capacity;
        double d = recipe_.effectiveDensity(), n = static_cast<double>(record.count);
        if (share <= 0)
            share = std::min(1.0, 1.25 * d + 6 * std::sqrt(d / n));
        EXPECT_NEAR(static_cast<double>(record.kept), std::min(n, share * n), 2.0) << "not exactly the capacity";
    }

    void checkFeedback(const std::vector<float> &g, const Record &record, float tau)
    {
        std::vector<float> a(g.size());
        for (uint64_t i = 0; i < g.size(); i++)
            a[i] = static_cast<float>(static_cast<double>(g[i]) + e_[i]); /* 53 bits: rounds once */
        std::vector<uint64_t> kept = recipe_.rule == Rule::Topk ? topkIndices(a, static_cast<uint64_t>(recipe_.k))
                                                                : thresholdIndices(a, record, tau);
        if (record.flags & flagOverflowed) { /* the highest indices stay behind */
            EXPECT_EQ(recipe_.rule, Rule::Threshold);
            EXPECT_GT(kept.size(), record.kept);
            checkCapacity(record);
            kept.resize(std::min<uint64_t>(kept.size(), record.kept));
        }
        EXPECT_EQ(indicesOf(record), kept);
        e_ = a;
        uint64_t wrong = 0;
        for (const Coordinate &c : record.coordinates) {
            float sent = recipe_.coding == codingBf16 ? static_cast<float>(roundToBf16(a[c.index])) : a[c.index];
            float got = static_cast<float>(c.value);
            wrong += std::memcmp(&sent, &got, 4) != 0;
            e_[c.index] = a[c.index] - got;
        }
        EXPECT_EQ(wrong, 0u) << "values are not the kept coordinates of g + e, bit for bit";
    }

    /* |a| > tau. With an unknown tau: every kept magnitude lies above every other one, up to where the capacity cut. */
    std::vector<uint64_t> thresholdIndices(const std::vector<float> &a, const Record &record, float tau)
    {
        double edge = recipe_.tau >= 0 ? static_cast<float>(recipe_.tau) : tau;
        if (recipe_.tau < 0 && tau == 0.0f)
            edge = largestLeft(a, record);
        std::vector<uint64_t> kept;
        for (uint64_t i = 0; i < a.size(); i++)
            if (std::fabs(a[i]) > edge)
                kept.push_back(i);
        return kept;
    }

    double largestLeft(const std::vector<float> &a, const Record &record)
    {
        bool cut = record.flags & flagOverflowed;
        uint64_t end = cut && record.kept > 0 ? record.coordinates.back().index + 1 : a.size();
        std::vector<char> kept(a.size(), 0);
        for (const Coordinate &c : record.coordinates)
            kept[c.index] = 1;
        double edge = 0;
        for (uint64_t i = 0; i < end; i++)
            edge = kept[i] ? edge : std::max(edge, static_cast<double>(std::fabs(a[i])));
        return edge;
    }

    void checkUnbiased(const std::vector<float> &g, const Record &record)
    {
        double s = recipe_.rule == Rule::Gspar ? gsparScale(g, recipe_.effectiveDensity()) : 0;
        Kept kept = recipe_.rule == Rule::Gspar ? gsparKept(g, s, seed_, step_, rank_) : Kept{mask_, {}};
        if (record.flags & flagThinned) {
            EXPECT_GT(kept.indices.size() + kept.doubtful.size(), record.kept);
            checkCapacity(record);
        }
        bool thinned = record.flags & flagThinned;
        if (thinned && !kept.doubtful.empty())
            return; /* one coordinate more or less moves all others */
        double gain[2] = {1, 1};
        std::vector<uint64_t> sent = thinned ? thin(kept.indices, g, s, record, gain) : kept.indices;
        expectSame(indicesOf(record), sent, kept.doubtful);
        uint64_t wrong = 0;
        for (const Coordinate &c : record.coordinates)
            wrong += !valueIsRight(g[c.index], s, gain, c);
        EXPECT_EQ(wrong, 0u) << "values are not g / p";
    }

    bool valueIsRight(float g, double s, const double gain[2], const Coordinate &c) const
    {
        bool whole = s * std::fabs(g) >= 1;
        double x = recipe_.rule == Rule::Randk ? g / static_cast<double>(static_cast<float>(recipe_.effectiveDensity()))
                   : whole                     ? g
                                               : std::copysign(1 / s, g);
        x *= gain[c.group];
        double tolerance = 1e-6 * std::fabs(x) + 4 * FLT_TRUE_MIN;
        if (recipe_.coding == codingBf16) /* one of the two neighbours */
            tolerance += std::ldexp(1.0, std::max(x == 0 ? -126 : std::ilogb(x), -126) - 7);
        return std::fabs(x) > FLT_MAX ? std::isfinite(c.value) : std::fabs(c.value - x) <= tolerance;
    }

    /* Thins each group by itself; `gain` becomes n/m of each. */
    std::vector<uint64_t> thin(const std::vector<uint64_t> &kept, const std::vector<float> &g, double s,
                               const Record &record, double gain[2]) const
    {
        std::vector<uint64_t> group[2], sent;
        for (uint64_t i : kept)
            group[recipe_.coding == codingShared && s * std::fabs(g[i]) < 1].push_back(i);
        uint64_t m[2] = {recipe_.coding == codingShared ? record.aux : record.kept, 0};
        m[1] = record.kept - m[0];
        double fair =
            static_cast<double>(record.kept) * static_cast<double>(group[0].size()) / static_cast<double>(kept.size());
        EXPECT_NEAR(static_cast<double>(m[0]), fair, 1.001) << "the capacity is shared out in proportion";
        uint32_t word = draw(seed_, 0, step_, recipe_.rule == Rule::Randk ? 0 : rank_, drawThin);
        for (int b = 0; b < 2; b++) {
            if (m[b] > 0)
                gain[b] = static_cast<double>(group[b].size()) / static_cast<double>(m[b]);
            for (uint64_t j = 0; j < group[b].size(); j++)
                if (thinningStays(j, group[b].size(), m[b], word))
                    sent.push_back(group[b][j]);
        }
        std::sort(sent.begin(), sent.end());
        return sent;
    }

    /* randk's mask of this step, thinned to `sent`. */
    std::vector<uint64_t> sentMask(uint64_t count, uint64_t sent)
    {
        mask_ = randkMask(count, recipe_.effectiveDensity(), seed_, step_);
        uint32_t word = draw(seed_, 0, step_, 0, drawThin);
        std::vector<uint64_t> stay;
        for (uint64_t j = 0; j < mask_.size(); j++)
            if (sent >= mask_.size() || thinningStays(j, mask_.size(), sent, word))
                stay.push_back(mask_[j]);
        return stay;
    }

    static std::vector<uint64_t> indicesOf(const Record &record)
    {
        std::vector<uint64_t> indices;
        for (const Coordinate &c : record.coordinates)
            indices.push_back(c.index);
        return indices;
    }

    static void expectSame(const std::vector<uint64_t> &got, const std::vector<uint64_t> &expected,
                           const std::vector<uint64_t> &doubtful)
    {
        std::vector<uint64_t> differ, unexplained;
        std::set_symmetric_difference(got.begin(), got.end(), expected.begin(), expected.end(),
                                      std::back_inserter(differ));
        std::set_difference(differ.begin(), differ.end(), doubtful.begin(), doubtful.end(),
                            std::back_inserter(unexplained));
        EXPECT_TRUE(unexplained.empty()) << unexplained.size() << " of " << expected.size()
                                         << " kept coordinates differ, the first is " << unexplained.front();
        EXPECT_LE(doubtful.size(), 3u);
    }

    Recipe recipe_;
    uint64_t seed_;
    uint32_t rank_;
    uint64_t step_ = 0;
    std::vector<float> e_;
    std::vector<uint64_t> mask_; /* randk: before thinning */
};

/* ---- sums over ranks ----------------------------------------------------------------------------------------------- */

/* What the result may be: the exact sum in double, and how far float32 sums in rank order can be from it. */
struct Sum {
    double value = 0, magnitude = 0;
    void add(double x)
    {
        value += x;
        magnitude += std::fabs(x);
    }
    double result(gsRedOp_t op, int nranks) const
    {
        return op == GS_AVG ? value / nranks : value;
    }
    double tolerance(gsRedOp_t op, int nranks, gsDataType_t type) const
    {
        double scale = op == GS_AVG ? 1.0 / nranks : 1.0;
        double bound = (nranks + 1) * 6e-8 * magnitude * scale + 4 * FLT_TRUE_MIN;
        return type == GS_BFLOAT16 ? bound + (std::fabs(result(op, nranks)) + bound) / 256 + std::ldexp(1.0, -133)
                                   : bound;
    }
};

} // namespace gst
#endif
