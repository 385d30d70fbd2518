/* CD-Adam: compressed differences both ways and AMSGrad on every rank; and the optimizer steps themselves against an oracle. */
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
                gsOptimizer_t optimizer = GS_OPTIMIZER_INIT;
                optimizer.datatype = type;
                Buffer gradient(type, results[k]);
                ASSERT_EQ(gsAmsgradStep(compressed.comm(0), &optimizer, state[k][0].data(), gradient.data(),
                                        state[k][1].data(), state[k][2].data(), state[k][3].data(), count, nullptr),
                          GS_SUCCESS)
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

/* ---- optimizer steps ---- */

struct Step {
    Vector x, m, v, vmax;
};

/* In double; the float32 library rounds each operation. */
class Optimizers : public testing::TestWithParam<gsDataType_t>
{
  protected:
    Optimizers()
    {
        EXPECT_EQ(gsCommInitAll(&comm_, 1, nullptr), GS_SUCCESS);
        options_.datatype = GetParam();
        options_.stepSize = 0.01;
        options_.beta1 = 0.9;
        options_.beta2 = 0.99;
        options_.epsilon = 1e-6;
        options_.weightDecay = 0.1;
        for (size_t v = 0; v < 4; v++)
            vectors_.emplace_back(GetParam(), v == 0 ? start() : Vector(count, 0.0));
        oracle_ = {start(), Vector(count, 0.0), Vector(count, 0.0), Vector(count, 0.0)};
    }
    ~Optimizers() override
    {
        EXPECT_EQ(gsCommDestroy(comm_), GS_SUCCESS);
    }
    Vector start() const
    {
        return randomVector(count, 7, GetParam());
    }
    Vector gradient(uint64_t step) const
    {
        Vector g = randomVector(count, 20 + step, GetParam());
        for (size_t i = 0; i < count; i += 7)
            g[i] = step % 3 ? 0.0 : g[i];
        return g;
    }
    void expectNear(size_t vector, const Vector &expected, uint64_t step)
    {
        double ulp = GetParam() == GS_FLOAT64 ? 2.3e-16 : 1.2e-7;
        Vector got = doublesOf(vectors_[vector].raw(), GetParam());
        for (size_t i = 0; i < count; i++)
            ASSERT_NEAR(got[i], expected[i], 40 * ulp * static_cast<double>(step + 2) * (1 + std::fabs(expected[i])))
                << "vector " << vector << " element " << i << " step " << step;
        EXPECT_TRUE(vectors_[vector].canariesIntact());
    }

    static constexpr uint64_t count = 1003;
    gsComm_t comm_ = nullptr;
    gsOptimizer_t options_ = GS_OPTIMIZER_INIT;
    std::vector<Buffer> vectors_;
    Step oracle_;
};

TEST_P(Optimizers, AmsgradIsTheTextbooksAndItsMaximumNeverFalls)
{
    Step &o = oracle_;
    for (uint64_t step = 0; step < 25; step++) {
        Vector g = gradient(step), before = doublesOf(vectors_[3].raw(), GetParam());
        Buffer raw(GetParam(), g);
        ASSERT_EQ(gsAmsgradStep(comm_, &options_, vectors_[0].data(), raw.data(), vectors_[1].data(),
                                vectors_[2].data(), vectors_[3].data(), count, nullptr),
                  GS_SUCCESS)
            << gsGetLastError();
        for (size_t i = 0; i < count; i++) {
            o.m[i] = 0.9 * o.m[i] + (1 - 0.9) * g[i];
            o.v[i] = 0.99 * o.v[i] + (1 - 0.99) * g[i] * g[i];
            o.vmax[i] = std::max(o.vmax[i], o.v[i]);
            o.x[i] -= 0.01 * o.m[i] / std::sqrt(o.vmax[i] + 1e-6);
        }
        expectNear(0, o.x, step);
        expectNear(1, o.m, step);
        expectNear(2, o.v, step);
        expectNear(3, o.vmax, step);
        Vector after = doublesOf(vectors_[3].raw(), GetParam()), v = doublesOf(vectors_[2].raw(), GetParam());
        for (size_t i = 0; i < count; i++)
            ASSERT_TRUE(after[i] >= before[i] && after[i] >= v[i]);
    }
}

TEST_P(Optimizers, MomentumIsTheTextbooks)
{
    Step &o = oracle_;
    for (uint64_t step = 0; step < 25; step++) {
        Vector g = gradient(step);
        Buffer raw(GetParam(), g);
        ASSERT_EQ(gsMomentumStep(comm_, &options_, vectors_[0].data(), raw.data(), vectors_[1].data(), count, nullptr),
                  GS_SUCCESS)
            << gsGetLastError();
        for (size_t i = 0; i < count; i++) {
            o.m[i] = 0.9 * o.m[i] + g[i];
            o.x[i] -= 0.01 * o.m[i];
        }
        expectNear(0, o.x, step);
        expectNear(1, o.m, step);
    }
}

TEST_P(Optimizers, AdamwIsTheTextbooksWithBiasCorrection)
{
    Step &o = oracle_;
    for (uint64_t step = 0; step < 25; step++) {
        Vector g = gradient(step);
        Buffer raw(GetParam(), g);
        options_.step = step + 1;
        ASSERT_EQ(gsAdamwStep(comm_, &options_, vectors_[0].data(), raw.data(), vectors_[1].data(), vectors_[2].data(),
                              count, nullptr),
                  GS_SUCCESS)
            << gsGetLastError();
        double c1 = 1 - std::pow(0.9, static_cast<double>(step + 1)),
               c2 = 1 - std::pow(0.99, static_cast<double>(step + 1));
        for (size_t i = 0; i < count; i++) {
            o.m[i] = 0.9 * o.m[i] + (1 - 0.9) * g[i];
            o.v[i] = 0.99 * o.v[i] + (1 - 0.99) * g[i] * g[i];
            o.x[i] -= 0.01 * 0.1 * o.x[i];
            o.x[i] -= 0.01 * (o.m[i] / c1) / (std::sqrt(o.v[i] / c2) + 1e-6);
        }
        expectNear(0, o.x, step);
        expectNear(1, o.m, step);
        expectNear(2, o.v, step);
    }
}

TEST_P(Optimizers, InstructionSetsAndStreamsGiveTheSameBits)
{
    std::vector<std::vector<uint8_t>> results;
    gsStream_t stream = nullptr;
    ASSERT_EQ(gsStreamCreate(&stream), GS_SUCCESS);
    for (const char *set : instructionSets())
        for (gsStream_t on : {gsStream_t{nullptr}, stream}) {
            Environment cpu("GS_CPU", set);
            Buffer x(GetParam(), start()), m(GetParam(), Vector(count, 0.0)), v(GetParam(), Vector(count, 0.0)),
                vmax(GetParam(), Vector(count, 0.0));
            for (uint64_t step = 0; step < 5; step++) {
                Buffer g(GetParam(), gradient(step));
                EXPECT_EQ(gsAmsgradStep(comm_, &options_, x.data(), g.data(), m.data(), v.data(), vmax.data(), count,
                                        on),
                          GS_SUCCESS);
                EXPECT_EQ(gsStreamSynchronize(on), GS_SUCCESS);
            }
            results.push_back(x.raw());
        }
    for (const std::vector<uint8_t> &result : results)
        EXPECT_TRUE(result == results[0]);
    EXPECT_EQ(gsStreamDestroy(stream), GS_SUCCESS);
}

TEST_P(Optimizers, BadInputIsNamed)
{
    void *x = vectors_[0].data(), *m = vectors_[1].data(), *v = vectors_[2].data(), *vmax = vectors_[3].data();
    const void *g = vectors_[0].data();
    std::vector<uint8_t> before = vectors_[0].raw();
    auto refused = [&](gsResult_t result, const char *text) {
        EXPECT_EQ(result, GS_ERROR_INVALID_ARGUMENT) << text;
        EXPECT_NE(std::string(gsGetLastError()).find(text), std::string::npos) << gsGetLastError();
        EXPECT_TRUE(vectors_[0].raw() == before);
    };
    auto amsgrad = [&](const gsOptimizer_t &o) { return gsAmsgradStep(comm_, &o, x, g, m, v, vmax, count, nullptr); };
    refused(gsAmsgradStep(nullptr, &options_, x, g, m, v, vmax, count, nullptr), "comm");
    refused(gsAmsgradStep(comm_, nullptr, x, g, m, v, vmax, count, nullptr), "optimizer");
    refused(gsAmsgradStep(comm_, &options_, nullptr, g, m, v, vmax, count, nullptr), "params");
    refused(gsAmsgradStep(comm_, &options_, x, nullptr, m, v, vmax, count, nullptr), "gradient");
    refused(gsAmsgradStep(comm_, &options_, x, g, nullptr, v, vmax, count, nullptr), "m is");
    refused(gsAmsgradStep(comm_, &options_, x, g, m, nullptr, vmax, count, nullptr), "v is");
    refused(gsAmsgradStep(comm_, &options_, x, g, m, v, nullptr, count, nullptr), "vmax");
    refused(gsAmsgradStep(comm_, &options_, static_cast<char *>(x) + 1, g, m, v, vmax, count, nullptr), "params");
    refused(gsMomentumStep(comm_, &options_, x, g, nullptr, count, nullptr), "m is");
    refused(gsMomentumStep(nullptr, &options_, x, g, m, count, nullptr), "comm");
    refused(gsAdamwStep(comm_, &options_, x, g, m, nullptr, count, nullptr), "v is");
    refused(gsAdamwStep(comm_, nullptr, x, g, m, v, count, nullptr), "optimizer");
    gsOptimizer_t o = options_;
    o.step = 0;
    refused(gsAdamwStep(comm_, &o, x, g, m, v, count, nullptr), "step");
    o = options_;
    o.size = 8;
    refused(amsgrad(o), "size is 8");
    o = options_;
    o.version = GS_VERSION(7, 0, 0);
    refused(amsgrad(o), "version is 70000");
    o = options_;
    o.datatype = GS_BFLOAT16;
    refused(amsgrad(o), "datatype is 9");
    o = options_;
    o.stepSize = std::nan("");
    refused(amsgrad(o), "nan");
    o = options_;
    o.beta1 = 1;
    refused(amsgrad(o), "beta1 1");
    o = options_;
    o.beta2 = -0.5;
    refused(amsgrad(o), "beta2 -0.5");
    o = options_;
    o.epsilon = -1;
    refused(amsgrad(o), "epsilon -1");
    o = options_;
    o.weightDecay = std::nan("");
    refused(gsAdamwStep(comm_, &o, x, g, m, v, count, nullptr), "nan");
}

INSTANTIATE_TEST_SUITE_P(Types, Optimizers, testing::Values(GS_FLOAT32, GS_FLOAT64),
                         [](const auto &p) { return nameOf(p.param); });

} // namespace
} // namespace gst
