/* LAG and its kin (LASG, LAQ, CLAG): lazily aggregated gradients. The invariants of each trigger, by its name, and the uploads against an
 * oracle. */
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

/* Summed anew before the call after the fortieth; a gradient that has been sent already adds nothing to it. */
TEST(LagResync, AggregateIsTheSumAgainBitwise)
{
    Descent run("lag-wk:xi=0.1,resync=40", 60, 4);
    for (int step = 1; step <= 40; step++)
        run.step();
    EXPECT_NE(run.fleet.read(2, "shared"), run.fleet.sumOf("memory")) << "the case is meant to drift";
    Vectors sent;
    for (int r = 0; r < 4; r++)
        sent.push_back(run.fleet.read(r, "memory"));
    run.fleet.sum(sent);
    EXPECT_EQ(run.fleet.read(2, "shared"), run.fleet.sumOf("memory"));
}

/* ---- kin: what they share ---- */

/* One call; which ranks were silent. */
std::vector<bool> silentIn(Fleet &fleet, const Vectors &gradients, Vector *result = nullptr)
{
    std::vector<uint64_t> before;
    for (int r = 0; r < fleet.plan().nranks; r++)
        before.push_back(fleet.stats(r).skipped);
    Vector sum = fleet.sum(gradients);
    if (result)
        *result = sum;
    std::vector<bool> silent;
    for (int r = 0; r < fleet.plan().nranks; r++)
        silent.push_back(fleet.stats(r).skipped > before[static_cast<size_t>(r)]);
    return silent;
}

/* Silent for exactly as many steps as it says, however little has changed. */
TEST(LagKin, StalenessForcesAnUpload)
{
    for (const char *recipe : {"lasg-wk:xi=1e30", "laq:xi=1e30", "clag:xi=1e30", "clag:select=sign,xi=1e30"})
        for (uint64_t most : {1u, 3u}) {
            Fleet fleet(std::string(recipe) + ",staleness=" + std::to_string(most), 500, 2);
            Vector theta(500, 0.0);
            bool told = std::string(recipe).compare(0, 4, "lasg") == 0;
            if (told)
                fleet.setParams(theta, 1.0);
            for (uint64_t step = 0; step < 12; step++) {
                theta[0] = static_cast<double>(step);
                if (told)
                    fleet.moveTo(theta);
                std::vector<bool> silent = silentIn(fleet, related(500, 2, step, 0.3));
                for (size_t r = 0; r < 2; r++)
                    EXPECT_EQ(silent[r], step % (most + 1) != 0) << recipe << " " << most << ", step " << step;
            }
        }
}

TEST(LagKin, StalenessZeroIsSilentForEver)
{
    for (const char *recipe : {"laq:xi=1e30,staleness=0", "clag:xi=1e30"}) {
        Fleet fleet(recipe, 500, 2);
        for (uint64_t step = 0; step < 150; step++) {
            std::vector<bool> silent = silentIn(fleet, related(500, 2, step, 0.3));
            EXPECT_EQ(silent[0], step != 0) << recipe << " step " << step;
        }
    }
}

TEST(LagKin, SilenceChangesNoMemoryAndSendsEightyBytes)
{
    for (const char *recipe : {"laq:xi=0.02", "laq:bucket=all,levels=63,xi=0.02", "clag:density=0.3",
                               "clag:select=sign", "lasg-wk:xi=0.3"}) {
        Fleet fleet(recipe, 5000, 3);
        fleet.setParams(Vector(5000, 0.0), 1.0);
        uint64_t silences = 0;
        for (uint64_t step = 0; step < 30; step++) {
            Vectors before;
            std::vector<uint64_t> bytes;
            for (int r = 0; r < 3; r++) {
                before.push_back(fleet.read(r, "memory"));
                bytes.push_back(fleet.stats(r).payloadBytes);
            }
            fleet.moveTo(times(randomVector(5000, step), 0.5));
            std::vector<bool> silent = silentIn(fleet, related(5000, 3, step / 3, 0.3));
            for (int r = 0; r < 3; r++) {
                size_t rank = static_cast<size_t>(r);
                if (!silent[rank])
                    continue;
                EXPECT_EQ(fleet.read(r, "memory"), before[rank]) << recipe << " step " << step;
                EXPECT_EQ(fleet.stats(r).payloadBytes, bytes[rank] + 80) << recipe << " step " << step;
                silences++;
            }
        }
        EXPECT_GT(silences, 5u) << recipe << ": the case is meant to have some";
        EXPECT_LT(silences, 87u) << recipe;
    }
}

TEST(LagKin, RecipesThatCannotWorkAreRefused)
{
    for (const char *recipe :
         {"laq:levels=0", "laq:levels=128", "laq:select=grid", "clag:select=ternary", "clag:window=3", "laq:twoway=1",
          "lasg-wk:levels=3", "lag-wk:staleness=3", "clag:staleness=-1"}) {
        gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
        gsMemory_t memory;
        config.recipe = recipe;
        config.count = 10;
        EXPECT_EQ(gsReducerGetMemory(&config, 1, &memory), GS_ERROR_INVALID_RECIPE) << recipe;
    }
}

/* ---- LAQ ---- */

/* The nearest of levels + 1 points from -R to R, by the paper's (5); R is the block's, as a float not below max |a|. */
Vector onGrid(const Vector &a, double levels, bool oneScale)
{
    Vector coded(a.size());
    size_t size = oneScale ? a.size() : 4096;
    for (size_t begin = 0; begin < a.size(); begin += size) {
        size_t end = std::min(begin + size, a.size());
        Vector block(a.begin() + static_cast<long>(begin), a.begin() + static_cast<long>(end));
        float radius = static_cast<float>(largest(block));
        if (static_cast<double>(radius) < largest(block))
            radius = std::nextafter(radius, INFINITY);
        double gap = 2 * static_cast<double>(radius) / levels;
        for (size_t i = begin; i < end && radius > 0; i++)
            coded[i] = static_cast<float>(std::floor((a[i] + radius) / gap + 0.5) * gap - radius);
    }
    return coded;
}

struct Quantized {
    const char *recipe;
    double xi, levels;
    bool oneScale, tellParams;
    gsRedOp_t op;
};

class Laq : public testing::TestWithParam<Quantized>
{
};

/* Conditions (7a), (7b): every rank and step from the gradients and memories that the test can see. */
TEST_P(Laq, SilentRanksFulfilTheInequalityAndOthersDoNot)
{
    const Quantized &c = GetParam();
    Descent run(c.recipe, 60, 4, c.tellParams, c.op);
    Vector sentError(4, 0.0);
    std::vector<int> since(4, 0);
    uint64_t silent = 0, loud = 0;
    for (int step = 0; step < 300; step++) {
        double bound = run.bound(c.xi);
        Vectors h;
        for (int r = 0; r < 4; r++)
            h.push_back(run.fleet.read(r, "memory"));
        run.step();
        for (size_t r = 0; r < 4; r++) {
            bool due = since[r] == 100; /* the default staleness */
            since[r] = run.skipped[r] ? since[r] + 1 : 0;
            Vector a = minus(run.gradients[r], h[r]), coded = onGrid(a, c.levels, c.oneScale);
            double error = squared(minus(a, coded)), limit = bound + 3 * (error + sentError[r]);
            Vector now = run.fleet.read(static_cast<int>(r), "memory");
            if (run.skipped[r]) {
                EXPECT_LE(squared(coded), limit * (1 + 1e-6)) << "rank " << r << " step " << step;
                EXPECT_TRUE(step > 0 && !due) << "rank " << r << " step " << step;
            } else {
                EXPECT_TRUE(step == 0 || due || squared(coded) >= limit * (1 - 1e-6))
                    << "rank " << r << " step " << step;
                EXPECT_LE(largest(minus(now, plus(h[r], coded))), 1e-6 * largest(a)) << "h moves by what was decoded";
                sentError[r] = squared(minus(run.gradients[r], now));
            }
            (run.skipped[r] ? silent : loud)++;
        }
    }
    EXPECT_GT(silent, 20u) << "the case is meant to have both";
    EXPECT_GT(loud, 20u);
}

TEST_P(Laq, SharedIsTheSumOfMemoriesAndTheResult)
{
    const Quantized &c = GetParam();
    Descent run(c.recipe, 60, 4, c.tellParams, c.op);
    double most = 0;
    for (int step = 0; step < 200; step++) {
        Vector result = run.step(), shared = run.fleet.read(1, "shared");
        for (int r = 0; r < 4; r++)
            most = std::max(most, largest(run.fleet.read(r, "memory")));
        EXPECT_LE(largest(minus(shared, run.fleet.sumOf("memory"))), 1e-15 * 4 * most * (step + 1));
        EXPECT_LE(largest(minus(result, times(shared, c.op == GS_AVG ? 0.25 : 1.0))), 1e-15 * 4 * most * (step + 1));
    }
}

INSTANTIATE_TEST_SUITE_P(Recipes, Laq,
                         testing::Values(Quantized{"laq", 0.08, 15, false, false, GS_SUM},
                                         Quantized{"laq:window=10,xi=0.08", 0.08, 15, false, true, GS_SUM},
                                         Quantized{"laq:bucket=all,levels=7", 0.08, 7, true, false, GS_AVG},
                                         Quantized{"laq:bucket=all,levels=7,xi=0.08", 0.08, 7, true, true, GS_SUM},
                                         Quantized{"laq:levels=127,xi=0.05", 0.05, 127, false, true, GS_AVG}),
                         [](const auto &p) { return nameOf(p.param.recipe) + std::to_string(p.index); });

/* At 1/L of the sum; with three bits ranks are silent for longer than this step size bears. */
TEST(LaqDescent, ConvergesAsDescentDoes)
{
    for (const char *recipe : {"laq", "laq:bucket=all,levels=31", "laq:levels=127,xi=0.05"})
        for (bool tell : {false, true}) {
            Descent run(recipe, 60, 4, tell);
            double first = largest(sumOf(run.problem.gradients(run.theta)));
            for (int step = 0; step < 900; step++)
                run.step();
            EXPECT_LT(largest(sumOf(run.problem.gradients(run.theta))), 1e-3 * first) << recipe;
        }
}

/* Without xi silence hides no more than what the coding loses anyway: gradients that grow are all told, one that stays is not. */
TEST(LaqWithoutXi, IsSilentOnlyWhereNothingChanged)
{
    Fleet fleet("laq:xi=0", 5000, 2);
    for (uint64_t step = 0; step < 20; step++) {
        Vectors g = {times(randomVector(5000, 2 * step), std::ldexp(1.0, static_cast<int>(step))),
                     times(randomVector(5000, 2 * step + 1), std::ldexp(1.0, static_cast<int>(step)))};
        EXPECT_EQ(silentIn(fleet, g), std::vector<bool>(2, false)) << "step " << step;
        for (int again = 0; again < 2; again++)
            EXPECT_EQ(silentIn(fleet, g), std::vector<bool>(2, true)) << "step " << step << " again";
    }
}

/* Several blocks: the scale of each, and the sum of their errors. */
TEST(LaqOfManyBlocks, DecidesByTheWholeVector)
{
    for (bool oneScale : {false, true}) {
        const uint64_t count = 9000;
        Fleet fleet(oneScale ? "laq:bucket=all,xi=0.02" : "laq:xi=0.02", count, 3);
        std::deque<double> recent;
        Vector sentError(3, 0.0);
        uint64_t silent = 0, loud = 0;
        for (uint64_t step = 0; step < 60; step++) {
            Vectors g = related(count, 3, step / 2, step % 8 < 4 ? 0.02 : 0.6), h;
            double bound = 0;
            for (double square : recent)
                bound += 0.02 * square / 9;
            for (int r = 0; r < 3; r++)
                h.push_back(fleet.read(r, "memory"));
            Vector result;
            std::vector<bool> skipped = silentIn(fleet, g, &result);
            for (size_t r = 0; r < 3; r++) {
                Vector a = minus(g[r], h[r]), coded = onGrid(a, 15, oneScale);
                double error = squared(minus(a, coded)), limit = bound + 3 * (error + sentError[r]);
                EXPECT_EQ(skipped[r], step > 0 && squared(coded) <= limit)
                    << "rank " << r << " step " << step << ": " << squared(coded) << " against " << limit;
                sentError[r] = skipped[r] ? sentError[r] : error;
                (skipped[r] ? silent : loud)++;
            }
            recent.push_front(squared(result));
            if (recent.size() > 10)
                recent.pop_back();
        }
        EXPECT_GT(silent, 5u);
        EXPECT_GT(loud, 5u);
    }
}

/* ---- LASG ---- */

/* |g - stale|^2 against |theta - theta before|^2, in numbers that are exact: at equality a rank is silent. */
TEST(Lasg, DecidesByTheGapToTheStaleGradientExactly)
{
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64}) {
        Fleet fleet("lasg-wk:xi=1,window=1,staleness=0", 4, 1, type);
        Vector theta = {0, 0, 0, 0}, g = {1, 1, 1, 1};
        fleet.setParams(theta, 1.0);
        EXPECT_FALSE(silentIn(fleet, {g})[0]) << "nothing to compare with yet";
        for (int step = 1; step < 40; step++) {
            double tip = step % 3 == 0 ? 0 : std::ldexp(1.0, -9); /* the square is 4 exactly, or a little more */
            theta[0] += 2;
            fleet.moveTo(theta);
            g = {100.0 * step, 3, 0.5, -7}; /* far from what was sent: that does not count */
            fleet.setStale(0, {g[0] - 2, g[1] + tip, g[2], g[3]});
            EXPECT_EQ(silentIn(fleet, {g})[0], tip == 0) << "step " << step;
        }
    }
}

TEST(Lasg, SilentRanksFulfilTheInequalityAndOthersDoNot)
{
    const uint64_t count = 5000;
    Fleet fleet("lasg-wk:xi=0.2,window=4", count, 3);
    Vector theta(count, 0.0);
    Vectors sent(3, Vector(count, 0.0));
    std::deque<double> moved;
    fleet.setParams(theta, 0.5);
    uint64_t silent = 0, loud = 0;
    for (uint64_t step = 0; step < 60; step++) {
        Vectors g = related(count, 3, step, 1.0);
        double bound = 0;
        for (double square : moved)
            bound += 0.2 * square / (0.25 * 9);
        Vector gap;
        for (size_t r = 0; r < 3; r++) {
            double size = 0.02 * static_cast<double>((step * 7 + r * 3) % 11);
            Vector stale = plus(g[r], times(randomVector(count, 500 + 3 * step + r), size));
            fleet.setStale(static_cast<int>(r), stale);
            gap.push_back(squared(minus(g[r], stale)));
        }
        Vector result;
        std::vector<bool> skipped = silentIn(fleet, g, &result);
        for (size_t r = 0; r < 3; r++) {
            EXPECT_EQ(skipped[r], step > 0 && gap[r] <= bound) << "rank " << r << " step " << step;
            sent[r] = skipped[r] ? sent[r] : g[r];
            (skipped[r] ? silent : loud)++;
        }
        EXPECT_LE(largest(minus(result, sumOf(sent))), 1e-12 * (1 + largest(result)));
        Vector next = times(randomVector(count, step), 0.1);
        moved.push_front(squared(minus(next, theta)));
        if (moved.size() > 4)
            moved.pop_back();
        theta = next;
        fleet.moveTo(theta);
    }
    EXPECT_GT(silent, 20u) << "the case is meant to have both";
    EXPECT_GT(loud, 20u);
}

TEST(Lasg, MissingStaleGradientIsRefusedWithAText)
{
    Fleet fleet("lasg-wk", 100, 1), other("lag-wk", 100, 1), none("lasg-wk", 0, 1);
    Vector g(100, 1.0), out(100, -7.0), stale(101, 0.0);
    EXPECT_EQ(fleet.call(0, g.data(), out.data()), GS_ERROR_INVALID_USAGE);
    EXPECT_NE(std::string(gsGetLastError()).find("gsReducerSetParams"), std::string::npos) << gsGetLastError();
    gsParams_t params = GS_PARAMS_INIT;
    params.datatype = GS_FLOAT64;
    params.params = g.data();
    params.stepSize = 1;
    EXPECT_EQ(gsReducerSetParams(fleet.reducer(0), &params), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_NE(std::string(gsGetLastError()).find("params->stale is NULL"), std::string::npos) << gsGetLastError();
    EXPECT_EQ(fleet.call(0, g.data(), out.data()), GS_ERROR_INVALID_USAGE);
    EXPECT_EQ(out, Vector(100, -7.0));
    EXPECT_EQ(gsReducerSetParams(other.reducer(0), &params), GS_SUCCESS) << gsGetLastError();
    EXPECT_EQ(gsReducerSetParams(none.reducer(0), &params), GS_SUCCESS) << "no element, no gradient to point to";
    params.stale = reinterpret_cast<char *>(stale.data()) + 4;
    EXPECT_EQ(gsReducerSetParams(fleet.reducer(0), &params), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_NE(std::string(gsGetLastError()).find("multiple of 8"), std::string::npos) << gsGetLastError();
    params.stale = stale.data();
    EXPECT_EQ(gsReducerSetParams(fleet.reducer(0), &params), GS_SUCCESS) << gsGetLastError();
    EXPECT_EQ(fleet.call(0, g.data(), out.data()), GS_SUCCESS) << gsGetLastError();
    EXPECT_EQ(out, g);
}

/* ---- CLAG ---- */

class Clag : public testing::TestWithParam<std::string>
{
};

TEST_P(Clag, IsSilentIffTheGapIsBelowXiTimesTheChange)
{
    const uint64_t count = 5000;
    uint64_t silent = 0, loud = 0;
    for (double xi : {0.3, 1.0, 4.0}) {
        Fleet fleet(GetParam() + ",xi=" + std::to_string(xi), count, 3);
        Vectors last;
        for (uint64_t step = 0; step < 60; step++) {
            Vectors g = related(count, 3, step, step % 6 < 3 ? 0.1 : 0.5), h;
            for (int r = 0; r < 3; r++)
                h.push_back(fleet.read(r, "memory"));
            std::vector<bool> skipped = silentIn(fleet, g);
            for (size_t r = 0; r < 3 && step > 0; r++) {
                EXPECT_EQ(skipped[r], squared(minus(g[r], h[r])) <= xi * squared(minus(g[r], last[r])))
                    << "rank " << r << " step " << step << " xi " << xi;
                (skipped[r] ? silent : loud)++;
            }
            EXPECT_TRUE(step > 0 || skipped == std::vector<bool>(3, false));
            EXPECT_LE(largest(minus(fleet.read(1, "shared"), fleet.sumOf("memory"))), 1e-12);
            last = g; /* of silent steps, too */
        }
    }
    EXPECT_GT(loud, 20u) << "the case is meant to have both";
    EXPECT_GT(silent, 20u);
}

TEST_P(Clag, WithoutXiItIsEf21BitForBit)
{
    for (gsDataType_t type : allTypes()) {
        Fleet clag(GetParam() + ",xi=0", 5000, 3, type), ef21("ef21" + GetParam().substr(4), 5000, 3, type);
        for (uint64_t step = 0; step < 12; step++) {
            Vectors g = related(5000, 3, step / 2, 0.3, type); /* every other step nothing changes */
            EXPECT_EQ(clag.sum(g), ef21.sum(g)) << nameOf(type) << " step " << step;
            for (int r = 0; r < 3; r++)
                EXPECT_EQ(clag.read(r, "memory"), ef21.read(r, "memory")) << nameOf(type) << " step " << step;
        }
        EXPECT_EQ(clag.stats(0).skipped, 0u);
        EXPECT_EQ(clag.stats(0).payloadBytes, ef21.stats(0).payloadBytes);
    }
}

INSTANTIATE_TEST_SUITE_P(Compressors, Clag,
                         testing::Values("clag:density=0.1", "clag:select=sign", "clag:select=grid,levels=7",
                                         "clag:select=chunk-topk,k=300,value=2bit"),
                         [](const auto &p) { return nameOf(p.param); });

} // namespace
} // namespace gst
