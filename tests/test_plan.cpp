/* The cost model: its formulas against a simulation and against counted bytes, what it chooses and says, and exchange=auto. */
#include "ranks.h"

#include "plan/simulate.h"

#include <array>
#include <functional>

namespace gst
{
namespace
{

const double least = 1e-30; /* 0 would be "not known" */

gsReducerConfig_t configOfRecipe(const char *recipe, uint64_t count, gsDataType_t type = GS_FLOAT32)
{
    gsReducerConfig_t c = GS_REDUCER_CONFIG_INIT;
    c.recipe = recipe;
    c.count = count;
    c.datatype = type;
    return c;
}

gsCluster_t clusterOf(int ranks, int ranksPerNode, int over)
{
    gsCluster_t c = GS_CLUSTER_INIT;
    c.ranks = ranks;
    c.ranksPerNode = ranksPerNode;
    c.over = over;
    return c;
}

/* Links alone cost something: bytes decide. */
gsCluster_t bytesAlone(int ranks)
{
    gsCluster_t c = clusterOf(ranks, 1, GS_OVER_MPI);
    c.bandwidth = c.nodeBandwidth = 1e9;
    c.latency = c.nodeLatency = c.message = c.call = c.encode = c.decode = c.write = c.sum = least;
    return c;
}

gsPlan_t planOf(const gsReducerConfig_t &config, const gsCluster_t &cluster)
{
    gsPlan_t plan = {};
    EXPECT_EQ(gsPlanChoose(&config, &cluster, &plan), GS_SUCCESS) << gsGetLastError();
    return plan;
}

std::string explain(const gsReducerConfig_t &config, const gsCluster_t &cluster)
{
    std::vector<char> text(8192);
    EXPECT_EQ(gsPlanExplain(&config, &cluster, text.data(), text.size()), GS_SUCCESS) << gsGetLastError();
    return text.data();
}

const std::vector<double gsCluster_t::*> &figures()
{
    static const std::vector<double gsCluster_t::*> all = {&gsCluster_t::latency,     &gsCluster_t::bandwidth,
                                                           &gsCluster_t::nodeLatency, &gsCluster_t::nodeBandwidth,
                                                           &gsCluster_t::message,     &gsCluster_t::call,
                                                           &gsCluster_t::encode,      &gsCluster_t::decode,
                                                           &gsCluster_t::write,       &gsCluster_t::sum};
    return all;
}

/* ---- input ---- */

TEST(PlanInput, ModesHaveTheNamesOfTheKey)
{
    for (int mode = GS_MODE_CAPACITY; mode < GS_MODES; mode++) {
        std::string recipe = std::string("threshold:exchange=") + gsGetModeName(static_cast<gsMode_t>(mode));
        gsReducerConfig_t c = configOfRecipe(recipe.c_str(), 1000);
        gsCluster_t cluster = clusterOf(4, 2, GS_OVER_MPI);
        EXPECT_EQ(planOf(c, cluster).seconds[mode] > 0, true) << recipe;
    }
    EXPECT_STREQ(gsGetModeName(GS_MODE_DENSE), "dense");
    EXPECT_NE(gsGetModeName(static_cast<gsMode_t>(77)), nullptr);
}

TEST(PlanInput, WrongClustersAreNamed)
{
    gsReducerConfig_t config = configOfRecipe("threshold", 1000);
    gsPlan_t plan;
    auto refused = [&](const gsCluster_t &cluster, const std::string &name) {
        EXPECT_EQ(gsPlanChoose(&config, &cluster, &plan), GS_ERROR_INVALID_ARGUMENT) << name;
        EXPECT_TRUE(contains(gsGetLastError(), name)) << gsGetLastError();
    };
    gsCluster_t good = clusterOf(8, 4, GS_OVER_MPI), bad = good;
    bad.size--;
    refused(bad, "size");
    bad = good;
    bad.version = 1 << 20;
    refused(bad, "version");
    for (int ranks : {0, -1, 1 << 24}) {
        bad = good;
        bad.ranks = ranks;
        refused(bad, "ranks is " + std::to_string(ranks));
    }
    for (int local : {-1, 9}) {
        bad = good;
        bad.ranksPerNode = local;
        refused(bad, "anksPerNode");
    }
    for (int over : {-1, 3}) {
        bad = good;
        bad.over = over;
        refused(bad, "over");
    }
    const std::array<const char *, 10> names = {"latency", "bandwidth", "nodeLatency", "nodeBandwidth", "message",
                                                "call",    "encode",    "decode",      "write",         "sum"};
    for (size_t i = 0; i < names.size(); i++)
        for (double value : {-1.0, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
            bad = good;
            bad.*figures()[i] = value;
            refused(bad, names[i]);
        }
}

TEST(PlanInput, MissingPlacesAndRecipes)
{
    gsReducerConfig_t config = configOfRecipe("threshold", 1000), wrong = configOfRecipe("treshold", 1000);
    gsCluster_t cluster = clusterOf(8, 4, GS_OVER_MPI);
    gsPlan_t plan;
    char text[16];
    gsMode_t mode;
    EXPECT_EQ(gsPlanChoose(nullptr, &cluster, &plan), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsPlanChoose(&config, nullptr, &plan), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsPlanChoose(&config, &cluster, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsPlanChoose(&wrong, &cluster, &plan), GS_ERROR_INVALID_RECIPE);
    EXPECT_EQ(gsPlanExplain(&config, &cluster, nullptr, 16), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsPlanExplain(&config, &cluster, text, 0), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsPlanExplain(&wrong, &cluster, text, 16), GS_ERROR_INVALID_RECIPE);
    EXPECT_EQ(gsReducerGetMode(nullptr, &mode), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsCommMeasure(nullptr, nullptr, &cluster), GS_ERROR_INVALID_ARGUMENT);
}

TEST(PlanInput, AnyCountAndNumberOfRanks)
{
    for (const char *recipe : {"threshold", "chunk-topk", "ef-sign", "randk", "cdadam", "gdsec", "lag-wk", "dense"})
        for (uint64_t count : {0ull, 1ull, 4096ull, 4097ull, 1ull << 31})
            for (int ranks : {1, 2, 7, 16384, (1 << 24) - 1}) {
                gsPlan_t plan = planOf(configOfRecipe(recipe, count), clusterOf(ranks, 0, GS_OVER_NCCL));
                for (int mode = 0; mode < GS_MODES; mode++)
                    EXPECT_TRUE(std::isfinite(plan.seconds[mode])) << recipe << " " << count << " " << ranks;
            }
}

/* ---- formulas ---- */

TEST(PlanFormula, BreakEvenDensityIsTheBytes)
{
    gsCluster_t c = clusterOf(32, 1, GS_OVER_NCCL);
    EXPECT_NEAR(planOf(configOfRecipe("chunk-topk", 4096 * 1000, GS_BFLOAT16), c).breakEven, 2.0 * 16 / (32 * 28),
                1e-4);
    c.ranks = 128;
    EXPECT_NEAR(planOf(configOfRecipe("chunk-topk", 4096 * 1000, GS_BFLOAT16), c).breakEven, 2.0 * 16 / (128 * 28),
                1e-4);
}

/* The formulas' own crossing is there, for any number of ranks: chunk-topk's k just below and just above. */
TEST(PlanFormula, BreakEvenDensityFallsOutOfTheTimes)
{
    for (int ranks : {8, 32, 128, 512}) {
        double even = 4096 * 2.0 * 16 / (ranks * 28.0);
        for (double k : {std::floor(even), std::ceil(even)}) {
            std::string recipe = "chunk-topk:k=" + std::to_string(static_cast<int>(k));
            gsReducerConfig_t config = configOfRecipe(recipe.c_str(), 4096 * 20000, GS_BFLOAT16);
            gsPlan_t plan = planOf(config, bytesAlone(ranks));
            EXPECT_EQ(plan.seconds[GS_MODE_CAPACITY] < plan.seconds[GS_MODE_DENSE], k < even)
                << ranks << ", " << recipe;
            EXPECT_EQ(plan.density < plan.breakEven, k < even) << ranks << " ranks, " << recipe;
        }
    }
}

TEST(PlanFormula, TimesAreMonotone)
{
    for (int over : {GS_OVER_MPI, GS_OVER_NCCL})
        for (int ranks : {2, 16, 128}) {
            gsReducerConfig_t config = configOfRecipe("threshold:density=0.01", 10000000);
            gsCluster_t base;
            gsCluster_t start = clusterOf(ranks, ranks < 8 ? 1 : 8, over);
            ASSERT_EQ(gsPlanComplete(&config, &start, &base), GS_SUCCESS);
            gsPlan_t before = planOf(config, base);
            for (double gsCluster_t::*figure : figures()) {
                gsCluster_t slower = base;
                bool isSpeed = figure == &gsCluster_t::bandwidth || figure == &gsCluster_t::nodeBandwidth;
                slower.*figure *= isSpeed ? 0.5 : 2.0;
                gsPlan_t after = planOf(config, slower);
                for (int mode = 0; mode < GS_MODES; mode++)
                    EXPECT_GE(after.seconds[mode], before.seconds[mode]) << gsGetModeName(static_cast<gsMode_t>(mode));
            }
            gsPlan_t denser = planOf(configOfRecipe("threshold:density=0.02", 10000000), base);
            for (gsMode_t mode : {GS_MODE_CAPACITY, GS_MODE_EXACT, GS_MODE_HIERARCHICAL})
                EXPECT_GE(denser.seconds[mode], before.seconds[mode]) << gsGetModeName(mode);
            EXPECT_EQ(denser.seconds[GS_MODE_DENSE], before.seconds[GS_MODE_DENSE]);
        }
}

/* Recompressed sums do not grow with the number of ranks; a flat all-gather does. */
TEST(PlanFormula, BytesGrowAsTheModesSay)
{
    gsReducerConfig_t config = configOfRecipe("threshold:density=0.001,twoway=1", 25557032);
    gsPlan_t four = planOf(config, clusterOf(4, 1, GS_OVER_MPI)), eight = planOf(config, clusterOf(8, 1, GS_OVER_MPI));
    EXPECT_LT(eight.bytes[GS_MODE_OWNER_EXACT], 1.2 * four.bytes[GS_MODE_OWNER_EXACT]);
    EXPECT_NEAR(eight.bytes[GS_MODE_CAPACITY] / four.bytes[GS_MODE_CAPACITY], 7.0 / 3, 1e-9);
}

TEST(PlanFormula, BytesAreThoseCounted)
{
    for (const char *recipe :
         {"dense", "threshold:exchange=capacity", "chunk-topk:exchange=exact", "ef-sign:exchange=exact"}) {
        Plan plan;
        plan.recipe = recipe;
        plan.count = 50000;
        plan.nranks = 3;
        ThreadRanks ranks(plan);
        ranks.allReduce(makeGradients(Shape::Gaussian, plan, 0));
        gsPlan_t planned = planOf(configOf(plan), clusterOf(3, 3, GS_OVER_THREADS));
        gsMode_t mode;
        ASSERT_EQ(gsReducerGetMode(ranks.reducer(0), &mode), GS_SUCCESS);
        double lengths = mode == GS_MODE_EXACT ? 2 * 8 : 0; /* go before the records */
        EXPECT_NEAR(planned.bytes[mode] + lengths, static_cast<double>(ranks.stats(0).wireBytes), 8) << recipe;
    }
}

/* ---- the simulation ---- */

/* Of several draws where owners' loads differ much. */
double simulatedMean(const gsSchedule &schedule, gsMode_t mode)
{
    double sum = 0;
    const int seeds = mode == GS_MODE_OWNER_EXACT && schedule.ownerSpread > 0.05 ? 8 : 1;
    for (int seed = 1; seed <= seeds; seed++)
        sum += simulateSchedule(&schedule, static_cast<uint64_t>(seed)) / seeds;
    return sum;
}

void expectSimulated(const gsReducerConfig_t &config, const gsCluster_t &cluster, const std::vector<gsMode_t> &modes)
{
    gsCluster_t whole;
    ASSERT_EQ(gsPlanComplete(&config, &cluster, &whole), GS_SUCCESS) << gsGetLastError();
    for (gsMode_t mode : modes) {
        gsSchedule schedule;
        if (gsPlanSchedule(&config, &whole, mode, &schedule))
            continue;
        double simulated = simulatedMean(schedule, mode);
        EXPECT_NEAR(gsScheduleSeconds(&schedule) / simulated, 1.0, 0.10)
            << gsGetModeName(mode) << ", " << config.recipe << ", " << config.count << " elements, " << whole.ranks
            << " ranks, " << whole.ranksPerNode << " a node, over " << whole.over << ", " << whole.latency << " s, "
            << whole.bandwidth << " bytes/s: " << simulated << " s";
    }
}

const std::vector<gsMode_t> allModes = {GS_MODE_DENSE, GS_MODE_CAPACITY,    GS_MODE_EXACT,
                                        GS_MODE_OWNER, GS_MODE_OWNER_EXACT, GS_MODE_HIERARCHICAL};

struct Link {
    double latency, bandwidth, nodeLatency, nodeBandwidth;
};

class Simulated : public testing::TestWithParam<std::tuple<int, int>>
{
  protected:
    static void run(int ranks, int local, const std::vector<uint64_t> &counts)
    {
        static const std::array<Link, 3> links = {
            {{1e-3, 125e6, 20e-6, 2e9}, {50e-6, 1.25e9, 2e-6, 5e9}, {5e-6, 50e9, 2e-6, 200e9}}};
        for (int over : {GS_OVER_MPI, GS_OVER_NCCL})
            for (const Link &link : links)
                for (uint64_t count : counts)
                    for (const char *recipe :
                         {"threshold:density=0.01", "topk:density=0.0005,twoway=1", "chunk-topk"}) {
                        gsCluster_t c = clusterOf(ranks, local, over);
                        c.latency = link.latency;
                        c.bandwidth = link.bandwidth;
                        c.nodeLatency = link.nodeLatency;
                        c.nodeBandwidth = link.nodeBandwidth;
                        expectSimulated(configOfRecipe(recipe, count), c, allModes);
                    }
    }
};

TEST_P(Simulated, AgreesWithTheFormulas)
{
    auto [ranks, local] = GetParam();
    run(ranks, local, {uint64_t{500000} * static_cast<uint64_t>(ranks), 1000000000});
}

INSTANTIATE_TEST_SUITE_P(Clusters, Simulated,
                         testing::Values(std::make_tuple(2, 1), std::make_tuple(4, 1), std::make_tuple(8, 8),
                                         std::make_tuple(16, 4), std::make_tuple(64, 1), std::make_tuple(64, 8),
                                         std::make_tuple(128, 8)));

TEST(SimulatedLarge, AgreesWithTheFormulas)
{
    gsReducerConfig_t config = configOfRecipe("threshold:density=0.001", 1000000000);
    expectSimulated(config, clusterOf(1024, 1, GS_OVER_MPI), {GS_MODE_OWNER_EXACT});
    expectSimulated(config, clusterOf(4096, 1, GS_OVER_MPI),
                    {GS_MODE_DENSE, GS_MODE_CAPACITY, GS_MODE_EXACT, GS_MODE_OWNER});
    expectSimulated(config, clusterOf(4096, 8, GS_OVER_NCCL), {GS_MODE_DENSE, GS_MODE_CAPACITY, GS_MODE_HIERARCHICAL});
}

TEST(SimulatedLarge, DrawsByItsSeed)
{
    gsReducerConfig_t config = configOfRecipe("threshold", 10000000);
    gsCluster_t cluster = clusterOf(16, 1, GS_OVER_MPI), whole;
    gsSchedule schedule;
    ASSERT_EQ(gsPlanComplete(&config, &cluster, &whole), GS_SUCCESS);
    ASSERT_EQ(gsPlanSchedule(&config, &whole, GS_MODE_EXACT, &schedule), nullptr);
    EXPECT_EQ(simulateSchedule(&schedule, 5), simulateSchedule(&schedule, 5));
    EXPECT_NE(simulateSchedule(&schedule, 5), simulateSchedule(&schedule, 6));
}

/* ---- the choice and its words ---- */

TEST(PlanChoice, SlowLinksCompressAndFastOnesDoNot)
{
    gsReducerConfig_t config = configOfRecipe("threshold:density=0.01", 25557032);
    gsCluster_t slow = clusterOf(4, 1, GS_OVER_MPI), fast = slow;
    slow.bandwidth = 12.5e6;
    fast.bandwidth = 1e12;
    EXPECT_NE(planOf(config, slow).mode, GS_MODE_DENSE);
    EXPECT_EQ(planOf(config, fast).mode, GS_MODE_DENSE);
    EXPECT_TRUE(contains(explain(config, fast), "Do not compress here")) << explain(config, fast);
    EXPECT_TRUE(contains(explain(config, slow), " wins: ")) << explain(config, slow);
}

TEST(PlanChoice, ManyRanksLeaveTheAllGather)
{
    gsReducerConfig_t config = configOfRecipe("threshold:density=0.01", 25557032);
    gsCluster_t few = clusterOf(4, 1, GS_OVER_MPI), many = clusterOf(1024, 1, GS_OVER_MPI);
    few.bandwidth = many.bandwidth = 125e6;
    gsPlan_t p = planOf(config, few), q = planOf(config, many);
    EXPECT_TRUE(p.mode == GS_MODE_CAPACITY || p.mode == GS_MODE_EXACT);
    EXPECT_TRUE(q.mode == GS_MODE_OWNER || q.mode == GS_MODE_OWNER_EXACT) << gsGetModeName(q.mode);
}

TEST(PlanChoice, OwnExchangeDoesNotMatter)
{
    gsCluster_t cluster = clusterOf(16, 4, GS_OVER_MPI);
    gsPlan_t plain = planOf(configOfRecipe("threshold:density=0.01,value=f32", 1000000), cluster);
    for (const char *recipe :
         {"threshold:density=0.01,exchange=exact,value=f32", "threshold:exchange=owner,density=0.01,value=f32",
          "threshold:density=0.01,value=f32,exchange=auto"}) {
        gsPlan_t other = planOf(configOfRecipe(recipe, 1000000), cluster);
        for (int mode = 0; mode < GS_MODES; mode++)
            EXPECT_EQ(plain.seconds[mode], other.seconds[mode]) << recipe;
    }
}

TEST(PlanChoice, WhatIsNotPossibleIsNotChosen)
{
    gsPlan_t dgc = planOf(configOfRecipe("dgc:density=0.5", 100000), clusterOf(2, 1, GS_OVER_MPI));
    EXPECT_LT(dgc.seconds[GS_MODE_DENSE], 0);
    EXPECT_NE(dgc.mode, GS_MODE_DENSE);
    gsPlan_t node = planOf(configOfRecipe("threshold", 100000), clusterOf(8, 8, GS_OVER_MPI));
    EXPECT_LT(node.seconds[GS_MODE_HIERARCHICAL], 0);
    gsPlan_t dense = planOf(configOfRecipe("dense", 100000), clusterOf(8, 4, GS_OVER_MPI));
    EXPECT_EQ(dense.mode, GS_MODE_DENSE);
    for (int mode = GS_MODE_CAPACITY; mode < GS_MODES; mode++)
        EXPECT_LT(dense.seconds[mode], 0);
    Environment disabled("GS_DISABLE", "1");
    EXPECT_EQ(planOf(configOfRecipe("threshold", 100000), clusterOf(8, 4, GS_OVER_MPI)).mode, GS_MODE_DENSE);
}

TEST(PlanChoice, TextHasEveryModeAndOneWinner)
{
    gsReducerConfig_t config = configOfRecipe("dgc:density=0.01", 1000000, GS_BFLOAT16);
    std::string text = explain(config, clusterOf(64, 8, GS_OVER_NCCL));
    for (int mode = 0; mode < GS_MODES; mode++)
        EXPECT_TRUE(contains(text, std::string("\n") + gsGetModeName(static_cast<gsMode_t>(mode)))) << text;
    EXPECT_TRUE(contains(text, "dgc:density=0.01, 1000000 elements of bfloat16")) << text;
    EXPECT_TRUE(contains(text, "64 ranks on 8 nodes over NCCL")) << text;
    EXPECT_TRUE(contains(text, "momentum")) << text;
    EXPECT_EQ(text.find("<-"), text.rfind("<-")) << text;
    EXPECT_NE(text.find("<-"), std::string::npos) << text;
}

TEST(PlanChoice, TextEndsWhereItsRoomDoes)
{
    gsReducerConfig_t config = configOfRecipe("threshold", 1000000);
    gsCluster_t cluster = clusterOf(4, 1, GS_OVER_MPI);
    std::string whole = explain(config, cluster);
    for (size_t bytes : {size_t{1}, size_t{2}, size_t{100}, whole.size(), whole.size() + 1}) {
        std::vector<char> text(bytes + 1, '#');
        ASSERT_EQ(gsPlanExplain(&config, &cluster, text.data(), bytes), GS_SUCCESS);
        EXPECT_EQ(std::string(text.data()), whole.substr(0, bytes - 1));
        EXPECT_EQ(text[bytes], '#');
    }
}

/* ---- measuring ---- */

gsCluster_t measured(gsComm_t comm, const gsCluster_t &known)
{
    gsCluster_t c = known;
    EXPECT_EQ(gsCommMeasure(comm, nullptr, &c), GS_SUCCESS) << gsGetLastError();
    return c;
}

class Comms
{
  public:
    explicit Comms(int nranks, const gsCluster_t *cluster = nullptr, int ranksPerNode = 0)
        : all_(static_cast<size_t>(nranks))
    {
        gsCommConfig_t config = GS_COMM_CONFIG_INIT;
        config.cluster = cluster;
        config.ranksPerNode = ranksPerNode;
        config.timeoutMs = 60000;
        EXPECT_EQ(gsCommInitAll(all_.data(), nranks, &config), GS_SUCCESS) << gsGetLastError();
    }
    ~Comms()
    {
        for (gsComm_t comm : all_)
            EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS) << gsGetLastError();
    }
    Comms(const Comms &) = delete;
    gsComm_t operator[](int rank) const
    {
        return all_[static_cast<size_t>(rank)];
    }

  private:
    std::vector<gsComm_t> all_;
};

TEST(Measured, FiguresAreThereAndEqual)
{
    for (int nodes : {1, 2}) {
        Comms comms(4, nullptr, 4 / nodes);
        std::array<gsCluster_t, 4> found = {};
        parallel(4, [&](int r) { found[static_cast<size_t>(r)] = measured(comms[r], GS_CLUSTER_INIT); });
        EXPECT_EQ(found[0].ranks, 4);
        EXPECT_EQ(found[0].ranksPerNode, 4 / nodes);
        EXPECT_EQ(found[0].over, GS_OVER_THREADS);
        for (double gsCluster_t::*figure : figures())
            for (const gsCluster_t &c : found) {
                EXPECT_GT(c.*figure, 0);
                EXPECT_EQ(c.*figure, found[0].*figure);
            }
    }
}

TEST(Measured, WhatIsKnownStays)
{
    gsCluster_t known = GS_CLUSTER_INIT;
    known.nodeBandwidth = 123e6;
    known.encode = 4.5e-9;
    Comms comms(2);
    parallel(2, [&](int r) {
        gsCluster_t c = measured(comms[r], known);
        EXPECT_EQ(c.nodeBandwidth, 123e6);
        EXPECT_EQ(c.encode, 4.5e-9);
        EXPECT_GT(c.decode, 0);
    });
}

TEST(Measured, OneRankHasACodec)
{
    Comms comms(1);
    gsCluster_t c = measured(comms[0], GS_CLUSTER_INIT);
    EXPECT_GT(c.encode, 0);
    EXPECT_EQ(planOf(configOfRecipe("threshold", 1000000), c).bytes[GS_MODE_CAPACITY], 0);
}

TEST(Measured, RecipesThatCannotBeTimedAreRefused)
{
    Comms comms(2);
    for (const char *recipe : {"gdsec", "nothing", "dense"})
        parallel(2, [&](int r) {
            gsReducerConfig_t config = configOfRecipe(r == 1 ? recipe : "threshold", 100000);
            gsCluster_t c = GS_CLUSTER_INIT;
            EXPECT_NE(gsCommMeasure(comms[r], &config, &c), GS_SUCCESS);
        });
    parallel(2, [&](int r) {
        gsReducerConfig_t config = configOfRecipe(r == 1 ? "ef-sign" : "threshold", 100000);
        gsCluster_t c = GS_CLUSTER_INIT;
        EXPECT_EQ(gsCommMeasure(comms[r], &config, &c), GS_ERROR_MISMATCH);
    });
    for (const char *recipe : {"cdadam", "ef21:first=dense", "tng", "lag-wk", "diana"})
        parallel(2, [&](int r) {
            gsReducerConfig_t config = configOfRecipe(recipe, 100000);
            gsCluster_t c = GS_CLUSTER_INIT;
            EXPECT_EQ(gsCommMeasure(comms[r], &config, &c), GS_SUCCESS) << recipe << ": " << gsGetLastError();
        });
}

/* ---- exchange=auto ---- */

/* A cluster where everything is known, on which this mode is the fastest for `threshold`. */
gsCluster_t known(bool slowLinks)
{
    gsCluster_t c = GS_CLUSTER_INIT;
    c.latency = c.nodeLatency = c.message = c.call = 1e-9;
    c.bandwidth = c.nodeBandwidth = slowLinks ? 1e5 : 1e12;
    c.encode = c.decode = c.write = c.sum = 1e-9;
    return c;
}

class Auto : public testing::Test
{
  protected:
    static gsMode_t modeOf(gsReducer_t reducer)
    {
        gsMode_t mode = GS_MODE_DENSE;
        EXPECT_EQ(gsReducerGetMode(reducer, &mode), GS_SUCCESS) << gsGetLastError();
        return mode;
    }
};

TEST_F(Auto, SumsAsTheModeItComesTo)
{
    for (bool slow : {false, true}) {
        gsCluster_t cluster = known(slow);
        Plan plan;
        plan.recipe = "threshold:density=0.02,exchange=auto,value=f32";
        plan.count = 60000;
        plan.nranks = 3;
        plan.cluster = &cluster;
        ThreadRanks ranks(plan);
        gsMode_t mode = modeOf(ranks.reducer(0));
        EXPECT_EQ(mode == GS_MODE_DENSE, !slow) << gsGetModeName(mode);
        for (int r = 1; r < plan.nranks; r++)
            EXPECT_EQ(modeOf(ranks.reducer(r)), mode);
        Plan same = plan;
        same.recipe = mode == GS_MODE_DENSE
                          ? "dense"
                          : std::string("threshold:density=0.02,value=f32,exchange=") + gsGetModeName(mode);
        ThreadRanks explicitly(same);
        for (uint64_t step = 0; step < 3; step++) {
            Gradients gradients = makeGradients(Shape::Skewed, plan, step);
            EXPECT_EQ(ranks.allReduce(gradients), explicitly.allReduce(gradients)) << step;
        }
        expectSameStats(explicitly.stats(0), ranks.stats(0));
        EXPECT_EQ(ranks.stats(0).dense, slow ? 0u : 3u);
        std::vector<uint8_t> state = ranks.state(0);
        EXPECT_EQ(gsReducerImport(explicitly.reducer(0), state.data(), state.size()), GS_SUCCESS) << gsGetLastError();
    }
}

TEST_F(Auto, MeasuresWhereNothingIsKnown)
{
    Plan plan;
    plan.recipe = "chunk-topk:exchange=auto";
    plan.count = 20000;
    plan.nranks = 4;
    ThreadRanks ranks(plan);
    gsMode_t mode = modeOf(ranks.reducer(0));
    for (int r = 1; r < plan.nranks; r++)
        EXPECT_EQ(modeOf(ranks.reducer(r)), mode);
    Results results = ranks.allReduce(makeGradients(Shape::Gaussian, plan, 0));
    for (int r = 1; r < plan.nranks; r++)
        EXPECT_EQ(results[static_cast<size_t>(r)], results[0]);
}

TEST_F(Auto, MemoryIsThatOfTheLargestMode)
{
    gsReducerConfig_t all = configOfRecipe("threshold:exchange=auto", 100000);
    gsMemory_t most = {}, one = {};
    ASSERT_EQ(gsReducerGetMemory(&all, 4, &most), GS_SUCCESS) << gsGetLastError();
    for (const char *recipe : {"dense", "threshold", "threshold:exchange=exact"}) {
        gsReducerConfig_t config = configOfRecipe(recipe, 100000);
        ASSERT_EQ(gsReducerGetMemory(&config, 4, &one), GS_SUCCESS) << gsGetLastError();
        EXPECT_GE(most.stateBytes, one.stateBytes) << recipe;
        EXPECT_GE(most.wireBytes, one.wireBytes) << recipe;
    }
}

TEST_F(Auto, RanksThatDoNotAllWantItDisagree)
{
    Comms comms(2);
    for (const char *other : {"threshold", "threshold:exchange=exact", "no recipe"})
        parallel(2, [&](int r) {
            gsReducerConfig_t config = configOfRecipe(r ? other : "threshold:exchange=auto", 10000);
            gsReducer_t reducer;
            gsResult_t expected = r && std::string(other) == "no recipe" ? GS_ERROR_INVALID_RECIPE : GS_ERROR_MISMATCH;
            EXPECT_EQ(gsReducerCreate(&reducer, comms[r], &config), expected) << other << ": " << gsGetLastError();
        });
}

TEST_F(Auto, NotWhereNothingCanBeKnown)
{
    gsComm_t comm;
    gsReducer_t reducer;
    ASSERT_EQ(gsCommInitStages(&comm, 0, 2, nullptr), GS_SUCCESS);
    gsReducerConfig_t config = configOfRecipe("threshold:exchange=auto", 10000);
    EXPECT_EQ(gsReducerCreate(&reducer, comm, &config), GS_ERROR_UNSUPPORTED);
    EXPECT_TRUE(contains(gsGetLastError(), "auto")) << gsGetLastError();
    EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS);
    gsMemory_t memory;
    for (const char *recipe :
         {"lag-wk:exchange=auto", "laq:exchange=auto", "clag:exchange=auto", "gdsec:exchange=auto"}) {
        config.recipe = recipe;
        EXPECT_EQ(gsReducerGetMemory(&config, 2, &memory), GS_ERROR_INVALID_RECIPE) << recipe;
        EXPECT_TRUE(contains(gsGetLastError(), "auto")) << gsGetLastError();
    }
}

TEST_F(Auto, ClustersOfCommunicatorsAreChecked)
{
    gsCluster_t bad = GS_CLUSTER_INIT;
    bad.latency = -1;
    gsCommConfig_t config = GS_COMM_CONFIG_INIT;
    config.cluster = &bad;
    gsComm_t comm = nullptr;
    EXPECT_EQ(gsCommInitAll(&comm, 1, &config), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_TRUE(contains(gsGetLastError(), "latency")) << gsGetLastError();
}

} // namespace
} // namespace gst
