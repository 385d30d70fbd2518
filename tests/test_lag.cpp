/* LAG: lazily aggregated gradients. The invariants of both triggers, each by its name, and the uploads against an oracle. */
#include "methods.h"

#include <deque>

namespace gst
{
namespace
{

/* |theta - theta before|^2 of the last steps, newest first. */
class Steps
{
  public:
    explicit Steps(size_t window) : window_(window)
    {
    }
    void add(double square)
    {
        squares_.push_front(square);
        if (squares_.size() > window_)
            squares_.pop_back();
    }
    /* 1 / (alpha^2 M^2) times the sum of xi |delta theta|^2. */
    double bound(double xi, double stepSize, int nranks) const
    {
        double sum = 0;
        for (double square : squares_)
            sum += square;
        return xi * sum / (stepSize * stepSize * nranks * nranks);
    }

  private:
    size_t window_;
    std::deque<double> squares_;
};

/* Plain descent on least squares, with all that the triggers look at. */
class Descent
{
  public:
    Descent(const std::string &recipe, uint64_t count, int nranks, bool tellParams = true, gsRedOp_t op = GS_SUM)
        : problem(count, nranks), fleet(planWith(recipe, count, nranks, op)), stepSize(1 / problem.smoothness()),
          theta(count, 0.0), lastSent(static_cast<size_t>(nranks)), lastIterate(static_cast<size_t>(nranks), theta),
          steps_(10), tell_(tellParams), share_(op == GS_AVG ? nranks : 1)
    {
        if (tell_)
            fleet.setParams(theta, stepSize * share_, problem.smoothnesses());
    }
    /* One step; `skipped` says which ranks were silent. */
    Vector step()
    {
        std::vector<uint64_t> before;
        for (int r = 0; r < fleet.plan().nranks; r++)
            before.push_back(fleet.stats(r).skipped);
        gradients = problem.gradients(theta);
        Vector result = fleet.sum(gradients), from = theta;
        skipped.clear();
        for (int r = 0; r < fleet.plan().nranks; r++) {
            size_t rank = static_cast<size_t>(r);
            skipped.push_back(fleet.stats(r).skipped > before[rank]);
            if (skipped[rank])
                continue;
            lastSent[rank] = gradients[rank];
            lastIterate[rank] = theta;
        }
        theta = minus(theta, times(result, stepSize * share_));
        steps_.add(squared(minus(theta, from)));
        if (tell_)
            fleet.moveTo(theta);
        return result;
    }
    double bound(double xi) const
    {
        return steps_.bound(xi, stepSize, fleet.plan().nranks);
    }

    LeastSquares problem;
    Fleet fleet;
    double stepSize;
    Vector theta;
    Vectors gradients, lastSent, lastIterate;
    std::vector<bool> skipped;

  private:
    static Plan planWith(const std::string &recipe, uint64_t count, int nranks, gsRedOp_t op)
    {
        Plan plan = planOf(recipe, count, nranks);
        plan.op = op;
        return plan;
    }
    Steps steps_;
    bool tell_;
    double share_;
};

struct Case {
    const char *recipe;
    bool tellParams;
    gsRedOp_t op;
};

class Lag : public testing::TestWithParam<Case>
{
  protected:
    Descent make(uint64_t count = 60, int nranks = 4) const
    {
        return Descent(GetParam().recipe, count, nranks, GetParam().tellParams, GetParam().op);
    }
    static bool serverDecides()
    {
        return std::string(GetParam().recipe).compare(0, 6, "lag-ps") == 0;
    }
    static double xi()
    {
        return serverDecides() ? 1.0 : 0.1;
    }
};

TEST_P(Lag, AggregateIsTheSumOfStoredGradients)
{
    Descent run = make();
    for (int step = 0; step < 300; step++) {
        Vector result = run.step(), stored(60, 0.0);
        double scale = 0;
        for (const Vector &g : run.lastSent) {
            stored = plus(stored, g);
            scale = std::max(scale, largest(g));
        }
        EXPECT_LE(largest(minus(run.fleet.read(0, "shared"), run.fleet.sumOf("memory"))), 1e-13 * scale * (step + 1));
        EXPECT_LE(largest(minus(run.fleet.sumOf("memory"), stored)), 1e-14 * scale * (step + 1)) << "step " << step;
        double share = GetParam().op == GS_AVG ? 0.25 : 1.0;
        EXPECT_LE(largest(minus(result, times(stored, share))), 1e-13 * scale * (step + 1)) << "step " << step;
    }
}

/* The decision of every rank and step against the paper's inequality, from iterates and gradients that the test has kept. */
TEST_P(Lag, SilentRanksFulfilTheInequalityAndOthersDoNot)
{
    Descent run = make();
    uint64_t silent = 0, loud = 0;
    for (int step = 0; step < 300; step++) {
        double bound = run.bound(xi());
        Vectors sent = run.lastSent, iterate = run.lastIterate;
        Vector theta = run.theta;
        run.step();
        for (size_t r = 0; r < 4 && step > 0; r++) {
            double smoothness = run.problem.smoothness(static_cast<int>(r));
            double changed = serverDecides() ? smoothness * smoothness * squared(minus(theta, iterate[r]))
                                             : squared(minus(run.gradients[r], sent[r]));
            if (run.skipped[r])
                EXPECT_LE(changed, bound * (1 + 1e-6)) << "rank " << r << " step " << step;
            else
                EXPECT_GE(changed, bound * (1 - 1e-6)) << "rank " << r << " step " << step;
            (run.skipped[r] ? silent : loud)++;
        }
        for (size_t r = 0; r < 4 && step == 0; r++)
            EXPECT_FALSE(run.skipped[r]) << "the first step has nothing to be compared with";
    }
    EXPECT_GT(silent, 20u) << "the case is meant to have both";
    EXPECT_GT(loud, 20u);
}

TEST_P(Lag, ConvergesAsDescentDoes)
{
    Descent run = make(), plain("dense", 60, 4, false, GetParam().op);
    double lazy = 0, dense = 0;
    for (int step = 0; step < 600; step++) {
        lazy = largest(run.step());
        dense = largest(plain.step());
    }
    EXPECT_LT(lazy, 1e3 * dense + 1e-6);
}

TEST_P(Lag, CountersAddUp)
{
    Descent run = make();
    uint64_t uploads = 0;
    std::vector<uint64_t> own(4, 0);
    for (int step = 0; step < 100; step++) {
        run.step();
        for (size_t r = 0; r < 4; r++)
            own[r] += !run.skipped[r];
    }
    for (int r = 0; r < 4; r++) {
        gsStats_t stats = run.fleet.stats(r);
        uploads += stats.calls - stats.skipped;
        EXPECT_EQ(stats.calls, 100u);
        EXPECT_EQ(stats.calls - stats.skipped, own[static_cast<size_t>(r)]);
        EXPECT_EQ(stats.sentTotal, 60 * own[static_cast<size_t>(r)]);
        EXPECT_EQ(stats.failed, 0u);
    }
    EXPECT_EQ(uploads, own[0] + own[1] + own[2] + own[3]);
}

/* exact: a record has its true length, before it its 8 bytes; silence is header and segment table, 80 bytes. */
TEST_P(Lag, SilenceSendsEightyBytesInExactMode)
{
    Descent run = make();
    for (int step = 0; step < 100; step++) {
        std::vector<gsStats_t> before;
        for (int r = 0; r < 4; r++)
            before.push_back(run.fleet.stats(r));
        run.step();
        for (size_t r = 0; r < 4; r++) {
            gsStats_t after = run.fleet.stats(static_cast<int>(r));
            uint64_t record = run.skipped[r] ? 80 : 80 + 60 * 8;
            EXPECT_EQ(after.payloadBytes - before[r].payloadBytes, record);
            EXPECT_EQ(after.wireBytes - before[r].wireBytes, 3 * (record + 8));
        }
    }
}

TEST_P(Lag, CapacityModeDecidesAlikeAndSavesNothing)
{
    Descent run = make(),
            slots(std::string(GetParam().recipe) + ",exchange=capacity", 60, 4, GetParam().tellParams, GetParam().op);
    for (int step = 0; step < 60; step++) {
        EXPECT_EQ(run.step(), slots.step());
        EXPECT_EQ(run.skipped, slots.skipped);
    }
    EXPECT_EQ(slots.fleet.stats(0).wireBytes, 60u * 3 * (80 + 60 * 8));
}

INSTANTIATE_TEST_SUITE_P(Triggers, Lag,
                         testing::Values(Case{"lag-wk:xi=0.1", true, GS_SUM}, Case{"lag-wk:xi=0.1", true, GS_AVG},
                                         Case{"lag-wk:xi=0.1", false, GS_SUM}, Case{"lag-wk:xi=0.1", false, GS_AVG},
                                         Case{"lag-ps:xi=1", true, GS_SUM}, Case{"lag-ps:xi=1", true, GS_AVG}),
                         [](const auto &p) {
                             return std::string(p.param.recipe[4] == 'w' ? "worker" : "server") +
                                    (p.param.tellParams ? "_iterates" : "_aggregates") +
                                    (p.param.op == GS_AVG ? "_mean" : "_sum");
                         });

TEST(LagWithoutXi, IsGradientDescent)
{
    for (const char *recipe : {"lag-wk:xi=0", "lag-ps:xi=0"}) {
        Descent run(recipe, 60, 4);
        for (int step = 0; step < 100; step++) {
            Vector dense = sumOf(run.problem.gradients(run.theta)), result = run.step();
            EXPECT_LE(largest(minus(result, dense)), 1e-12 * (1 + largest(dense))) << recipe << " step " << step;
        }
        for (int r = 0; r < 4; r++)
            EXPECT_EQ(run.fleet.stats(r).skipped, 0u) << recipe;
    }
}

/* L_m |theta - theta sent| is at least |g - g sent|: at one state, with one xi, the server asks whoever would have sent. */
TEST(LagTriggers, ServersUploadsContainTheWorkersAtTheSameStateAndXi)
{
    uint64_t asked = 0, sent = 0, all = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        Descent worker("lag-wk:xi=0.3", 20, 5), server("lag-ps:xi=0.3", 20, 5);
        Vector theta = times(randomVector(20, seed), 0.3);
        for (Descent *run : {&worker, &server}) {
            run->step(); /* all send: the same state */
            run->theta = plus(run->theta, theta);
            run->fleet.moveTo(run->theta);
            run->step();
        }
        for (size_t r = 0; r < 5; r++, all++) {
            EXPECT_TRUE(worker.skipped[r] || !server.skipped[r]) << "rank " << r << " seed " << seed;
            asked += !server.skipped[r];
            sent += !worker.skipped[r];
        }
    }
    EXPECT_GT(sent, 0u);
    EXPECT_LT(sent, asked) << "the case is meant to differ";
    EXPECT_LT(asked, all);
}

TEST(LagServer, WantsGradientAgreesWithWhatTheCallThenDoes)
{
    const uint64_t count = 60;
    Descent run("lag-ps:xi=1", count, 4), control("lag-ps:xi=1", count, 4);
    uint64_t unwanted = 0;
    for (int step = 0; step < 200; step++) {
        Vectors g = run.problem.gradients(run.theta);
        std::vector<int> wants(4, -1);
        for (int r = 0; r < 4; r++) {
            ASSERT_EQ(gsReducerWantsGradient(run.fleet.reducer(r), &wants[static_cast<size_t>(r)]), GS_SUCCESS)
                << gsGetLastError();
            if (!wants[static_cast<size_t>(r)])
                std::fill(g[static_cast<size_t>(r)].begin(), g[static_cast<size_t>(r)].end(),
                          std::nan("")); /* not to be read */
        }
        std::vector<uint64_t> before;
        for (int r = 0; r < 4; r++)
            before.push_back(run.fleet.stats(r).skipped);
        Vector result = run.fleet.sum(g);
        for (size_t r = 0; r < 4; r++) {
            bool skipped = run.fleet.stats(static_cast<int>(r)).skipped > before[r];
            EXPECT_EQ(skipped, wants[r] == 0) << "rank " << r << " step " << step;
            unwanted += skipped;
        }
        EXPECT_EQ(result, control.step()) << "what is not wanted does not count";
        run.theta = minus(run.theta, times(result, run.stepSize));
        run.fleet.moveTo(run.theta);
    }
    EXPECT_GT(unwanted, 100u);
}

TEST(LagServer, OthersAlwaysWantTheirGradient)
{
    for (const char *recipe : {"lag-wk", "topk", "dense", "gdsec"}) {
        Fleet fleet(recipe, 10, 1);
        int wants = -1;
        EXPECT_EQ(gsReducerWantsGradient(fleet.reducer(0), &wants), GS_SUCCESS);
        EXPECT_EQ(wants, 1) << recipe;
    }
}

/* Ranks with steeper functions are asked more often. */
TEST(LagServer, UploadsGrowWithSmoothness)
{
    Descent run("lag-ps:xi=1", 40, 4);
    for (int step = 0; step < 400; step++)
        run.step();
    for (int r = 1; r < 4; r++)
        EXPECT_LE(run.fleet.stats(r).skipped, run.fleet.stats(r - 1).skipped + 5) << "rank " << r;
    EXPECT_LT(run.fleet.stats(3).skipped, run.fleet.stats(0).skipped);
}

TEST(LagWorker, WithoutIteratesAggregatesSayTheSame)
{
    Descent told("lag-wk:xi=0.1", 60, 4, true), untold("lag-wk:xi=0.1", 60, 4, false);
    uint64_t differ = 0;
    for (int step = 0; step < 100; step++) {
        told.step();
        untold.step();
        for (size_t r = 0; r < 4; r++)
            differ += told.skipped[r] != untold.skipped[r];
    }
    EXPECT_EQ(differ, 0u);
}

TEST(LagResync, AggregateIsTheSumAgainBitwise)
{
    Descent run("lag-wk:xi=0.1,resync=5", 60, 4);
    for (int step = 1; step <= 40; step++) {
        run.step();
        Vector shared = run.fleet.read(2, "shared");
        EXPECT_TRUE(step % 5 != 0 || shared == run.fleet.sumOf("memory")) << "step " << step;
    }
}

} // namespace
} // namespace gst
