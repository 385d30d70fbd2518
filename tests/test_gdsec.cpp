/* GD-SEC: sparsified gradient differences with error correction. The invariants of the method, each by its name. */
#include "methods.h"

namespace gst
{
namespace
{

/* One rank in the state's precision, slow and obvious. */
template <typename Real> struct Worker {
    std::vector<Real> h, e, sent;
    uint64_t kept = 0;

    explicit Worker(uint64_t count) : h(count, 0), e(count, 0), sent(count, 0)
    {
    }
    /* theta, before: the iterates; limit: xi / M, by coordinate where there are factors. Dense: everything travels. */
    void step(const Vector &g, const Vector &theta, const Vector &before, const std::vector<Real> &limit, double beta,
              bool dense)
    {
        kept = 0;
        for (size_t i = 0; i < g.size(); i++) {
            Real a = static_cast<Real>(static_cast<Real>(g[i]) + e[i]);
            a = static_cast<Real>(a - h[i]);
            Real moved = std::fabs(static_cast<Real>(static_cast<Real>(theta[i]) - static_cast<Real>(before[i])));
            bool keep = dense || std::fabs(a) > static_cast<Real>(limit[i] * moved);
            kept += keep;
            sent[i] = keep ? a : 0;
            e[i] = keep ? 0 : a;
            h[i] = static_cast<Real>(h[i] + static_cast<Real>(static_cast<Real>(beta) * sent[i]));
        }
    }
};

/* A fleet on least squares, beside its oracle: plain descent on the sum. */
template <typename Real> class Duet
{
  public:
    Duet(const std::string &keys, double xi, double beta, uint64_t count, int nranks)
        : problem_(count, nranks), type_(sizeof(Real) == 8 ? GS_FLOAT64 : GS_FLOAT32), xi_(xi), beta_(beta),
          fleet_("gdsec:xi=" + text(xi) + ",beta=" + text(beta) + keys, count, nranks, type_),
          workers_(static_cast<size_t>(nranks), Worker<Real>(count)), theta_(count, 0.0), before_(count, 0.0),
          server_(count, 0), factors_(count, 1.0), nranks_(nranks)
    {
    }
    void useFactors()
    {
        Vector f(theta_.size());
        for (size_t i = 0; i < f.size(); i++)
            factors_[i] = f[i] = 0.25 * static_cast<double>(i % 9);
        xiBuffer_ = std::make_unique<Buffer>(type_, f);
    }
    /* One step of both; returns the result. */
    Vector step()
    {
        fleet_.setParams(theta_, 0.0, {}, xiBuffer_ ? xiBuffer_->data() : nullptr);
        Vectors g = gradients();
        std::vector<Real> limit(theta_.size());
        for (size_t i = 0; i < limit.size(); i++)
            limit[i] = static_cast<Real>(static_cast<Real>(xi_ / nranks_) * static_cast<Real>(factors_[i]));
        std::vector<Real> sum(theta_.size(), 0), expected(theta_.size());
        for (size_t r = 0; r < workers_.size(); r++) {
            workers_[r].step(g[r], theta_, before_, limit, beta_, steps_ == 0);
            for (size_t i = 0; i < sum.size(); i++)
                sum[i] = static_cast<Real>(sum[i] + workers_[r].sent[i]);
        }
        for (size_t i = 0; i < sum.size(); i++) {
            expected[i] = static_cast<Real>(server_[i] + sum[i]);
            server_[i] = static_cast<Real>(server_[i] + static_cast<Real>(static_cast<Real>(beta_) * sum[i]));
        }
        Vector result = fleet_.sum(g);
        EXPECT_EQ(result, Vector(expected.begin(), expected.end())) << "step " << steps_;
        before_ = theta_;
        steps_++;
        return result;
    }
    void descend(const Vector &result, double stepSize)
    {
        for (size_t i = 0; i < theta_.size(); i++)
            theta_[i] = roundTo(type_, theta_[i] - stepSize * result[i]);
    }
    Vectors gradients() const
    {
        Vectors g = problem_.gradients(theta_);
        for (Vector &own : g)
            for (double &x : own)
                x = roundTo(type_, x);
        return g;
    }
    double stepSize() const
    {
        return 1.0 / problem_.smoothness();
    }
    Fleet &fleet()
    {
        return fleet_;
    }
    const std::vector<Worker<Real>> &workers() const
    {
        return workers_;
    }
    std::vector<Real> server() const
    {
        return server_;
    }

  private:
    static std::string text(double x)
    {
        char digits[32];
        std::snprintf(digits, sizeof digits, "%.17g", x);
        return digits;
    }
    LeastSquares problem_;
    gsDataType_t type_;
    double xi_, beta_;
    Fleet fleet_;
    std::vector<Worker<Real>> workers_;
    Vector theta_, before_;
    std::vector<Real> server_;
    Vector factors_;
    int nranks_;
    std::unique_ptr<Buffer> xiBuffer_;
    uint64_t steps_ = 0;
};

template <typename Real> Vector wide(const std::vector<Real> &x)
{
    return {x.begin(), x.end()};
}

/* What is compared equals what is sent plus what is left: every entry whole on one side, bit for bit with the oracle. */
template <typename Real> void expectEqualsTheOracle(double xi, double beta, bool factors)
{
    const int nranks = 3;
    Duet<Real> duet("", xi, beta, 4500, nranks);
    if (factors)
        duet.useFactors();
    uint64_t some = 0;
    for (uint64_t step = 0; step < 25; step++) {
        Vectors g = duet.gradients();
        std::vector<Vector> e, h;
        for (int r = 0; r < nranks; r++) {
            e.push_back(duet.fleet().read(r, "residual"));
            h.push_back(duet.fleet().read(r, "memory"));
        }
        Vector result = duet.step();
        for (int r = 0; r < nranks; r++) {
            size_t rank = static_cast<size_t>(r);
            const Worker<Real> &oracle = duet.workers()[rank];
            Vector left = duet.fleet().read(r, "residual"), after = duet.fleet().read(r, "memory");
            EXPECT_EQ(left, wide(oracle.e)) << "residual of rank " << r << " step " << step;
            EXPECT_EQ(after, wide(oracle.h)) << "memory of rank " << r << " step " << step;
            EXPECT_EQ(duet.fleet().stats(r).lastSent, oracle.kept);
            some += step > 0 && oracle.kept > 0 && oracle.kept < 4500;
            for (size_t i = 0; i < left.size(); i++) {
                Real a = static_cast<Real>(static_cast<Real>(g[rank][i]) + static_cast<Real>(e[rank][i]));
                a = static_cast<Real>(a - static_cast<Real>(h[rank][i]));
                ASSERT_TRUE(left[i] == 0.0 || left[i] == static_cast<double>(a)) << "an entry was split";
            }
        }
        EXPECT_EQ(duet.fleet().read(0, "shared"), wide(duet.server()));
        duet.descend(result, duet.stepSize());
    }
    EXPECT_GT(some, 40u) << "the case is meant to send some and keep some";
}

TEST(Gdsec, DifferenceIsWhatIsSentPlusWhatIsLeftBitwiseFloat64)
{
    expectEqualsTheOracle<double>(30, 0.1, false);
}

TEST(Gdsec, DifferenceIsWhatIsSentPlusWhatIsLeftBitwiseFloat32)
{
    expectEqualsTheOracle<float>(30, 0.1, false);
}

TEST(Gdsec, FactorsOnXiCountByCoordinate)
{
    expectEqualsTheOracle<double>(30, 0.1, true);
    expectEqualsTheOracle<float>(30, 0.25, true);
}

TEST(Gdsec, FirstCallTravelsDense)
{
    Duet<double> duet("", 1e30, 0.5, 1000, 3);
    Vectors g = duet.gradients();
    EXPECT_EQ(duet.step(), sumOf(g));
    gsStats_t stats = duet.fleet().stats(1);
    EXPECT_EQ(stats.denseRounds, 1u);
    EXPECT_EQ(stats.lastSent, 1000u);
    EXPECT_EQ(squared(duet.fleet().read(1, "residual")), 0.0);
    duet.descend(g[0], 1e-3);
    duet.step();
    EXPECT_EQ(duet.fleet().stats(1).denseRounds, 1u);
    EXPECT_EQ(duet.fleet().stats(1).compressed, 1u);
    EXPECT_EQ(duet.fleet().stats(1).lastSent, 0u) << "xi is huge";
}

/* H is updated by the sum, each h by its own part: they drift by rounding alone. */
template <typename Real> void expectSharedIsTheSumOfMemories(double bound)
{
    const int nranks = 5;
    const uint64_t steps = 200;
    Duet<Real> duet("", 20, 0.1, 500, nranks);
    double most = 0;
    for (uint64_t step = 0; step < steps; step++) {
        duet.descend(duet.step(), duet.stepSize());
        for (int r = 0; r < nranks; r++)
            most = std::max(most, largest(duet.fleet().read(r, "memory")));
    }
    EXPECT_LE(largest(minus(duet.fleet().read(0, "shared"), duet.fleet().sumOf("memory"))), bound * most);
}

TEST(Gdsec, SharedIsTheSumOfMemoriesFloat64)
{
    expectSharedIsTheSumOfMemories<double>(1e-13);
}

TEST(Gdsec, SharedIsTheSumOfMemoriesFloat32)
{
    expectSharedIsTheSumOfMemories<float>(200 * std::ldexp(1.0, -24));
}

TEST(Gdsec, WithoutAThresholdItIsGradientDescentForAnyBeta)
{
    for (double beta : {0.01, 0.3, 1.0}) {
        Duet<double> duet("", 0, beta, 800, 4);
        for (int step = 0; step < 60; step++) {
            Vector dense = sumOf(duet.gradients()), result = duet.step();
            EXPECT_LE(largest(minus(result, dense)), 1e-12 * largest(dense) + 1e-13)
                << "beta " << beta << " step " << step;
            duet.descend(result, duet.stepSize());
        }
    }
}

/* The sum of what was sent = the sum of the differences - what is left. */
TEST(Gdsec, WhatWasSentTelescopes)
{
    Duet<double> duet("", 40, 0.2, 900, 3);
    Vectors sent(3, Vector(900, 0.0)), differences = sent;
    for (int step = 0; step < 80; step++) {
        Vectors g = duet.gradients();
        for (int r = 0; r < 3; r++)
            differences[static_cast<size_t>(r)] =
                plus(differences[static_cast<size_t>(r)],
                     minus(g[static_cast<size_t>(r)], duet.fleet().read(r, "memory")));
        duet.descend(duet.step(), duet.stepSize());
        for (size_t r = 0; r < 3; r++)
            sent[r] = plus(sent[r], duet.workers()[r].sent);
    }
    for (int r = 0; r < 3; r++) {
        Vector gap = minus(minus(differences[static_cast<size_t>(r)], duet.fleet().read(r, "residual")),
                           sent[static_cast<size_t>(r)]);
        EXPECT_LE(largest(gap), 1e-11);
    }
}

TEST(Gdsec, NothingIsSentAtRest)
{
    Duet<double> duet("", 10, 1, 700, 3);
    Vector first = duet.step();
    for (int step = 0; step < 3; step++) { /* theta stands still, h is the gradient, e is 0 */
        EXPECT_EQ(duet.step(), first);
        for (int r = 0; r < 3; r++)
            EXPECT_EQ(duet.fleet().stats(r).lastSent, 0u);
    }
}

/* The gradient's norm at the end of a run, and how many entries a rank has sent; the same run for the method and its controls. */
struct Outcome {
    double gradient;
    double share;
};

Outcome descend(const std::string &keys)
{
    const uint64_t count = 60, steps = 1500;
    const int nranks = 3;
    LeastSquares problem(count, nranks);
    double smoothness = problem.smoothness();
    Fleet fleet("gdsec:xi=" + std::to_string(30 * smoothness) + ",beta=0.02" + keys, count, nranks);
    Vector theta(count, 0.0);
    fleet.setParams(theta, 0);
    for (uint64_t step = 0; step < steps; step++) {
        theta = minus(theta, times(fleet.sum(problem.gradients(theta)), 1.0 / smoothness));
        fleet.moveTo(theta);
    }
    return {std::sqrt(squared(sumOf(problem.gradients(theta)))),
            static_cast<double>(fleet.stats(0).sentTotal) / (steps * count)};
}

TEST(Gdsec, ConvergesAndSaves)
{
    Outcome outcome = descend("");
    EXPECT_LT(outcome.gradient, 1e-9);
    EXPECT_LT(outcome.share, 0.2);
}

TEST(Gdsec, WithoutErrorCorrectionItFailsToConverge)
{
    EXPECT_GT(descend(",ec=0").gradient, 1e-4);
}

TEST(Gdsec, QuantizedByLevelsItConvergesAndTheErrorStays)
{
    EXPECT_LT(descend(",value=levels,levels=100").gradient, 1e-6);
}

/* Levels: what is left of a sent entry is what its coding took away, less than one level of the block's norm. */
TEST(Gdsec, LevelsLeaveTheirErrorInTheResidual)
{
    const uint64_t count = 5000;
    Fleet fleet("gdsec:xi=0,beta=1,value=levels,levels=16", count, 1);
    fleet.setParams(Vector(count, 0.0), 0);
    fleet.sum({randomVector(count, 1)});
    for (uint64_t step = 2; step < 8; step++) {
        Vector g = randomVector(count, step), a = minus(plus(g, fleet.read(0, "residual")), fleet.read(0, "memory"));
        Vector shared = fleet.read(0, "shared"), result = fleet.sum({g});
        Vector error = minus(minus(a, minus(result, shared)), fleet.read(0, "residual"));
        EXPECT_LE(largest(error), 1e-12) << "a = sent + e";
        for (size_t begin = 0; begin < count; begin += 4096) {
            size_t end = std::min<size_t>(begin + 4096, count);
            Vector block(a.begin() + static_cast<long>(begin), a.begin() + static_cast<long>(end));
            Vector left = fleet.read(0, "residual");
            for (size_t i = begin; i < end; i++)
                ASSERT_LE(std::fabs(left[i]), std::sqrt(squared(block)) / 16 * (1 + 1e-6));
        }
    }
}

TEST(Gdsec, RanksTakePartInTurn)
{
    const uint64_t count = 300;
    const int nranks = 4;
    LeastSquares problem(count, nranks);
    for (int each : {1, 3}) {
        Fleet fleet("gdsec:xi=0,beta=0.5,participate=" + std::to_string(each), count, nranks);
        Vector theta(count, 0.0);
        fleet.setParams(theta, 0);
        std::vector<int> turns(nranks, 0);
        for (uint64_t step = 0; step < 13; step++) {
            std::vector<std::vector<uint8_t>> before = fleet.states();
            Vectors h, e;
            std::vector<uint64_t> skipped;
            for (int r = 0; r < nranks; r++) {
                h.push_back(fleet.read(r, "memory"));
                e.push_back(fleet.read(r, "residual"));
                skipped.push_back(fleet.stats(r).skipped);
            }
            theta = minus(theta, times(fleet.sum(problem.gradients(theta)), 0.3 / problem.smoothness()));
            fleet.moveTo(theta);
            int took = 0;
            for (int r = 0; r < nranks; r++) {
                size_t rank = static_cast<size_t>(r);
                bool silent = fleet.stats(r).skipped > skipped[rank];
                took += !silent;
                turns[rank] += !silent;
                if (!silent)
                    continue;
                EXPECT_EQ(fleet.read(r, "memory"), h[rank]) << "a rank that sits out keeps its memory";
                EXPECT_EQ(fleet.read(r, "residual"), e[rank]);
            }
            EXPECT_EQ(took, step == 0 ? nranks : each) << "step " << step;
        }
        for (int n : turns)
            EXPECT_EQ(n, 1 + 12 * each / nranks);
        EXPECT_LE(largest(minus(fleet.read(0, "shared"), fleet.sumOf("memory"))), 1e-12);
    }
}

TEST(Gdsec, AnAbsentRanksLastContributionCountsOn)
{
    const uint64_t count = 300;
    Fleet fleet("gdsec:xi=0,beta=1", count, 3);
    Vectors g = {randomVector(count, 1), randomVector(count, 2), randomVector(count, 3)};
    fleet.setParams(Vector(count, 0.0), 0);
    fleet.sum(g);
    ASSERT_EQ(gsReducerSetParticipation(fleet.reducer(1), 0), GS_SUCCESS);
    Vectors other = {randomVector(count, 4), randomVector(count, 5), randomVector(count, 6)}, counted = other;
    counted[1] = g[1];
    EXPECT_LE(largest(minus(fleet.sum(other), sumOf(counted))), 1e-13);
    EXPECT_EQ(fleet.stats(1).skipped, 1u);
    EXPECT_EQ(fleet.read(1, "memory"), g[1]);
    ASSERT_EQ(gsReducerSetParticipation(fleet.reducer(1), 1), GS_SUCCESS);
    EXPECT_LE(largest(minus(fleet.sum(other), sumOf(other))), 1e-13);
}

/* Every ten steps H is summed anew before the call: where that sends nothing, H is the sum of the memories to the last bit. */
TEST(Gdsec, ResyncMakesSharedTheSumOfMemoriesBitwise)
{
    const uint64_t count = 500;
    const int nranks = 3;
    LeastSquares problem(count, nranks);
    Fleet fleet("gdsec:xi=5,beta=0.1,resync=10", count, nranks, GS_FLOAT32),
        drifting("gdsec:xi=5,beta=0.1", count, nranks, GS_FLOAT32);
    auto gap = [&](Fleet &f) {
        std::vector<float> sum(count, 0.0f);
        for (int r = 0; r < nranks; r++) {
            Vector h = f.read(r, "memory");
            for (uint64_t i = 0; i < count; i++)
                sum[i] += static_cast<float>(h[i]);
        }
        return largest(minus(f.read(1, "shared"), Vector(sum.begin(), sum.end())));
    };
    for (Fleet *f : {&fleet, &drifting}) {
        Vector theta(count, 0.0);
        f->setParams(theta, 0);
        for (uint64_t step = 1; step <= 40; step++) {
            Vectors g = problem.gradients(theta);
            for (Vector &own : g)
                for (double &x : own)
                    x = roundTo(GS_FLOAT32, x);
            theta = minus(theta, times(f->sum(g), 1 / problem.smoothness()));
            for (double &x : theta)
                x = roundTo(GS_FLOAT32, x);
            f->moveTo(theta);
        }
        EXPECT_GT(gap(*f), 0.0) << "the case is meant to drift";
        Vectors known;
        for (int r = 0; r < nranks; r++) {
            known.push_back(minus(f->read(r, "memory"), f->read(r, "residual")));
            for (double &x : known.back())
                x = roundTo(GS_FLOAT32, x);
        }
        f->moveTo(plus(theta, Vector(count, 1.0)));
        Vectors broken = known;
        broken[2][77] = std::nan("");
        std::vector<std::vector<uint8_t>> states = f->states();
        f->allReduce(broken);
        EXPECT_TRUE(f->states() == states) << "a call that came to nothing changes nothing";
        f->sum(known);
        EXPECT_EQ(f->stats(0).lastSent, 0u);
        EXPECT_EQ(gap(*f) > 0.0, f == &drifting);
    }
}

/* A loss scale that changes: residual and memories are in gradient units. */
TEST(Gdsec, ScaleFollowsTheLossScale)
{
    const uint64_t count = 600;
    Fleet one("gdsec:xi=4,beta=0.5", count, 2), other("gdsec:xi=16,beta=0.5", count, 2);
    Vector theta(count, 0.0);
    for (Fleet *f : {&one, &other})
        f->setParams(theta, 0);
    one.sum(related(count, 2, 0, 0.3));
    other.sum({times(related(count, 2, 0, 0.3)[0], 4.0), times(related(count, 2, 0, 0.3)[1], 4.0)});
    Fleet scaled("gdsec:xi=16,beta=0.5", count, 2);
    scaled.setParams(theta, 0);
    scaled.sum(related(count, 2, 0, 0.3));
    for (int r = 0; r < 2; r++)
        EXPECT_EQ(gsReducerScale(scaled.reducer(r), 4.0f, nullptr), GS_SUCCESS);
    for (uint64_t step = 1; step < 6; step++) {
        theta = plus(theta, times(randomVector(count, step), 0.1));
        for (Fleet *f : {&one, &other, &scaled})
            f->moveTo(theta);
        Vectors g = related(count, 2, step, 0.3), fourfold = {times(g[0], 4.0), times(g[1], 4.0)};
        Vector expected = times(one.sum(g), 4.0);
        EXPECT_EQ(other.sum(fourfold), expected);
        EXPECT_EQ(scaled.sum(fourfold), expected);
    }
}

} // namespace
} // namespace gst
