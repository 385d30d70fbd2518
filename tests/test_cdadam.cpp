/* CD-Adam: compressed differences both ways and AMSGrad on every rank. */
#include "methods.h"

namespace gst
{
namespace
{

/* ---- the two Markov sequences ---- */

class Cdadam : public testing::TestWithParam<std::string>
{
};

TEST_P(Cdadam, ServersEstimateIsTheSumOfTheRanks)
{
    const uint64_t count = 5000;
    const int nranks = 4;
    for (gsDataType_t type : {GS_FLOAT64, GS_FLOAT32}) {
        Fleet fleet(GetParam(), count, nranks, type);
        double most = 0;
        for (uint64_t step = 0; step < 40; step++) {
            fleet.sum(related(count, nranks, step, 0.3, type));
            for (int r = 0; r < nranks; r++)
                most = std::max(most, largest(fleet.read(r, "memory")));
            double ulp = type == GS_FLOAT64 ? 2.3e-16 : 1.2e-7,
                   bound = static_cast<double>(step + 1) * nranks * ulp * most;
            EXPECT_LE(largest(minus(fleet.read(0, "shared"), fleet.sumOf("memory"))), bound) << "step " << step;
        }
    }
}

TEST_P(Cdadam, ServersVectorsAreEqualOnRanksBitwise)
{
    const uint64_t count = 5000;
    const int nranks = 3;
    Fleet fleet(GetParam(), count, nranks, GS_FLOAT32);
    for (uint64_t step = 0; step < 40; step++) {
        Vector result = fleet.sum(related(count, nranks, step, 0.3, GS_FLOAT32));
        for (const char *name : {"shared", "server.memory", "server.shared"})
            for (int r = 0; r < nranks; r++)
                EXPECT_EQ(fleet.read(r, name), fleet.read(0, name)) << name << " step " << step;
        EXPECT_EQ(fleet.read(0, "server.shared"), result) << "the result is what the server has said so far";
    }
}

/* |g - g_hat|^2 <= (1 - a)^t |g|^2 with the a of each step: of scaled sign |x|_1^2 / (d |x|_2^2) a block, of topk k/d. */
TEST_P(Cdadam, ConstantGradientIsApproachedAtTheCompressorsRate)
{
    const uint64_t count = 6000;
    const int nranks = 2;
    bool sign = GetParam().find("topk") == std::string::npos;
    Fleet fleet(GetParam(), count, nranks);
    Vectors g = related(count, nranks, 0, 0.5);
    auto blockError = [&](const Vector &x, size_t begin, double *share) {
        double l1 = 0, l2 = 0, n = 0;
        for (size_t i = begin; i < std::min<size_t>(begin + 4096, count); i++, n++) {
            l1 += std::fabs(x[i]);
            l2 += x[i] * x[i];
        }
        *share = l2 > 0 ? l1 * l1 / (n * l2) : 1.0;
        return l2;
    };
    for (int step = 0; step < 30; step++) {
        Vectors before;
        for (int r = 0; r < nranks; r++)
            before.push_back(minus(g[static_cast<size_t>(r)], fleet.read(r, "memory")));
        fleet.sum(g);
        for (int r = 0; r < nranks; r++) {
            Vector after = minus(g[static_cast<size_t>(r)], fleet.read(r, "memory"));
            double bound = 0, share;
            for (size_t begin = 0; begin < count; begin += 4096) {
                double error = blockError(before[static_cast<size_t>(r)], begin, &share);
                bound += (1 - (sign ? share : 0.1)) * error;
            }
            EXPECT_LE(squared(after), bound * (1 + 1e-6) + 1e-20) << "rank " << r << " step " << step;
        }
    }
    double left = squared(minus(g[0], fleet.read(0, "memory")));
    EXPECT_LE(left, (sign ? 0.05 : std::pow(0.9, 30)) * squared(g[0]));
}

INSTANTIATE_TEST_SUITE_P(Compressors, Cdadam, testing::Values("cdadam", "cdadam:select=topk,density=0.1,value=f64"),
                         [](const auto &p) { return nameOf(p.param); });

TEST(CdadamFirstDense, FirstResultIsExactAndBothEndsBeginWithIt)
{
    const uint64_t count = 5000;
    Fleet fleet("cdadam:first=dense", count, 3);
    Vectors g = related(count, 3, 0, 0.5);
    EXPECT_EQ(fleet.sum(g), sumOf(g));
    for (int r = 0; r < 3; r++) {
        EXPECT_EQ(fleet.read(r, "memory"), g[static_cast<size_t>(r)]);
        EXPECT_EQ(fleet.read(r, "server.memory"), sumOf(g));
    }
    EXPECT_EQ(fleet.stats(0).denseRounds, 1u);
    EXPECT_EQ(fleet.sum(g), sumOf(g)) << "nothing is left to be said";
}

/* Numbers that are exact in every sum: identity both ways is then the plain mean, bit for bit, and so is the whole run. */
TEST(CdadamIdentity, EqualsDenseAmsgradBitwise)
{
    const uint64_t count = 5000;
    const int nranks = 4;
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64}) {
        Plan plan = planOf("cdadam:select=identity", count, nranks, type);
        plan.op = GS_AVG;
        Fleet compressed(plan);
        plan.recipe = "dense";
        Fleet dense(plan);
        std::vector<Buffer> state[2];
        for (std::vector<Buffer> &vectors : state)
            for (int v = 0; v < 4; v++)
                vectors.emplace_back(type, Vector(count, 0.0));
        for (uint64_t step = 0; step < 30; step++) {
            Vectors g = dyadic(count, nranks, step);
            Vector results[2] = {compressed.sum(g), dense.sum(g)};
            ASSERT_EQ(results[0], results[1]) << "step " << step;
            for (int k = 0; k < 2; k++) {
                Buffer gradient(type, results[k]);
                gsOptimizer_t optimizer = GS_OPTIMIZER_INIT;
                optimizer.kind = GS_AMSGRAD;
                optimizer.datatype = type;
                optimizer.params = state[k][0].data();
                optimizer.m = state[k][1].data();
                optimizer.v = state[k][2].data();
                optimizer.vmax = state[k][3].data();
                ASSERT_EQ(gsOptimizerStep(compressed.comm(0), &optimizer, gradient.data(), count, nullptr), GS_SUCCESS)
                    << gsGetLastError();
            }
        }
        for (size_t v = 0; v < 4; v++)
            EXPECT_TRUE(state[0][v].raw() == state[1][v].raw()) << "vector " << v;
    }
}

TEST(CdadamStats, CountBothHalves)
{
    const uint64_t count = 5000;
    Fleet fleet("cdadam:select=topk,density=0.1", count, 2);
    for (uint64_t step = 0; step < 3; step++)
        fleet.sum(related(count, 2, step, 0.5));
    gsStats_t stats = fleet.stats(0);
    EXPECT_EQ(stats.lastSent, 500u);
    EXPECT_EQ(stats.sentTotal, 1500u);
    EXPECT_EQ(stats.lastServerSent, 500u);
    EXPECT_EQ(stats.serverSent, 1500u);
    EXPECT_EQ(stats.calls, 3u);
}

} // namespace
} // namespace gst
