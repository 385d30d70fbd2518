/* States of all ranks into another number of ranks: what is additive is kept in sum, joiners begin at 0, and what is wrong is named. Then the
 * calls that tell a reducer more than gradients, made wrong in one place each. */
#include "methods.h"

namespace gst
{
namespace
{

using States = std::vector<std::vector<uint8_t>>;

gsResult_t importRanks(gsReducer_t reducer, const States &states, char *report = nullptr, size_t room = 0)
{
    std::vector<const void *> pointers;
    std::vector<size_t> bytes;
    for (const std::vector<uint8_t> &state : states) {
        pointers.push_back(state.empty() ? nullptr : state.data());
        bytes.push_back(state.size());
    }
    return gsReducerImportRanks(reducer, pointers.data(), bytes.data(), static_cast<int>(states.size()), report, room);
}

struct Change {
    std::string recipe;
    int from, to;
    gsRedOp_t op;
};

class Restart : public testing::TestWithParam<Change>
{
  protected:
    static constexpr uint64_t count = 5000;

    Plan plan(int nranks) const
    {
        Plan p = planOf(GetParam().recipe, count, nranks);
        p.op = GetParam().op;
        return p;
    }
    void run(Fleet &fleet, uint64_t first, uint64_t n) const
    {
        Vector theta(count, 0.0);
        fleet.setParams(theta, 0.25);
        for (uint64_t step = first; step < first + n; step++) {
            theta = plus(theta, times(randomVector(count, step), 0.01));
            fleet.moveTo(theta);
            fleet.sum(related(count, fleet.plan().nranks, step, 0.4));
        }
    }
    static double ulps(const Vector &x)
    {
        return 1e-14 * (1 + largest(x));
    }
};

TEST_P(Restart, SumsAreKeptAndJoinersBeginAtZero)
{
    const int from = GetParam().from, to = GetParam().to;
    Fleet old(plan(from)), fresh(plan(to));
    run(old, 0, 5);
    run(fresh, 60, 2); /* to be overwritten */
    States states = old.states();
    for (int r = 0; r < to; r++) {
        char report[256] = "";
        ASSERT_EQ(importRanks(fresh.reducer(r), states, report, sizeof report), GS_SUCCESS) << gsGetLastError();
        EXPECT_NE(std::string(report).find(std::to_string(from) + " ranks to " + std::to_string(to)), std::string::npos)
            << report;
    }
    for (const char *name : {"memory", "momentum", "residual"}) {
        if (old.read(0, name).empty())
            continue;
        bool owed = std::string(name) == "residual" && GetParam().op == GS_AVG;
        double growth = owed ? static_cast<double>(to) / from : 1.0; /* the average divides by more or fewer */
        Vector before = times(old.sumOf(name), growth);
        EXPECT_LE(largest(minus(fresh.sumOf(name), before)), ulps(before)) << name;
        EXPECT_GT(squared(before), 0.0) << name;
        for (int r = 0; r < to; r++) {
            Vector expected(count, 0.0);
            for (int q = r; q < from; q += to)
                expected = plus(expected, times(old.read(q, name), growth));
            EXPECT_LE(largest(minus(fresh.read(r, name), expected)), ulps(expected)) << name << " of rank " << r;
            EXPECT_TRUE(r < from || squared(fresh.read(r, name)) == 0.0) << name << " of a joiner";
        }
    }
    if (!old.read(0, "shared").empty()) {
        for (int r = 0; r < to; r++)
            EXPECT_EQ(fresh.read(r, "shared"), old.read(0, "shared")) << "the sum of what is remembered";
        EXPECT_LE(largest(minus(fresh.read(0, "shared"), fresh.sumOf("memory"))),
                  1e-12 * (1 + largest(old.read(0, "shared"))));
    }
    for (const char *name : {"server.memory", "server.residual", "server.shared"})
        for (int r = 0; r < to && !old.read(0, name).empty(); r++) {
            double growth = GetParam().op == GS_AVG ? static_cast<double>(from) / to : 1.0; /* single precision */
            Vector expected = times(old.read(0, name), growth);
            EXPECT_LE(largest(minus(fresh.read(r, name), expected)), 1e-6 * (1 + largest(expected))) << name;
        }
    for (const char *name : {"last", "ema"}) /* what one rank's gradient is like, and fewer ranks have larger ones */
        for (int r = 0; r < to && !old.read(0, name).empty(); r++) {
            Vector expected = times(old.read(0, name), static_cast<double>(from) / to);
            EXPECT_LE(largest(minus(fresh.read(r, name), expected)), ulps(expected)) << name;
        }
    run(fresh, 5, 3); /* and ranks agree on what comes */
    EXPECT_EQ(fresh.stats(0).failed, 0u);
}

TEST_P(Restart, IntoTheSameNumberContinuesBitForBit)
{
    Fleet old(plan(GetParam().from)), fresh(plan(GetParam().from));
    run(old, 0, 5);
    States states = old.states();
    for (int r = 0; r < GetParam().from; r++)
        ASSERT_EQ(importRanks(fresh.reducer(r), states), GS_SUCCESS) << gsGetLastError();
    EXPECT_TRUE(fresh.states() == states);
    run(old, 5, 3);
    run(fresh, 5, 3);
    EXPECT_TRUE(fresh.states() == old.states());
}

/* Ranks die with their states: the others keep their own, and what all share is the sum of what is left. */
TEST_P(Restart, SurvivorsGoOnWithoutTheStatesOfTheDead)
{
    const int from = GetParam().from;
    for (int dead = 0; dead < from; dead++) {
        Fleet old(plan(from)), fresh(plan(from - 1));
        run(old, 0, 5);
        run(fresh, 60, 2); /* to be overwritten */
        States states = old.states();
        states[static_cast<size_t>(dead)].clear();
        for (int r = 0; r < from - 1; r++) {
            char report[256] = "";
            ASSERT_EQ(importRanks(fresh.reducer(r), states, report, sizeof report), GS_SUCCESS) << gsGetLastError();
            EXPECT_NE(std::string(report).find("what 1 of them owed is lost"), std::string::npos) << report;
        }
        for (const char *name : {"memory", "momentum", "residual"})
            for (int r = 0; r < from - 1 && !old.read(0, name).empty(); r++) {
                bool owed = std::string(name) == "residual" && GetParam().op == GS_AVG;
                Vector own = times(old.read(r + (r >= dead), name), owed ? (from - 1.0) / from : 1.0);
                EXPECT_LE(largest(minus(fresh.read(r, name), own)), ulps(own)) << name << " of rank " << r;
            }
        if (!old.read(0, "shared").empty()) {
            Vector memories = fresh.sumOf("memory");
            for (int r = 0; r < from - 1; r++)
                EXPECT_LE(largest(minus(fresh.read(r, "shared"), memories)), 1e-12 * (1 + largest(memories)));
        }
        run(fresh, 5, 3); /* and ranks agree on what comes */
        EXPECT_EQ(fresh.stats(0).failed, 0u);
    }
}

/* What a trigger compares with is gone, so nobody is silent before everybody has spoken. */
TEST(RestartOfTriggers, EveryRankSendsFirst)
{
    const uint64_t count = 500;
    for (const char *recipe : {"lag-wk:xi=1e30", "lag-ps:xi=1e30", "lasg-wk:xi=1e30", "laq:xi=1e30", "clag:xi=1e30"}) {
        Fleet old(recipe, count, 2), fresh(recipe, count, 3);
        for (Fleet *fleet : {&old, &fresh})
            fleet->setParams(Vector(count, 0.0), 0.25);
        for (uint64_t step = 0; step < 4; step++) {
            old.moveTo(randomVector(count, step));
            old.sum(related(count, 2, step, 0.3));
        }
        EXPECT_GT(old.stats(0).skipped, 0u) << recipe;
        for (int r = 0; r < 3; r++)
            ASSERT_EQ(importRanks(fresh.reducer(r), old.states()), GS_SUCCESS) << gsGetLastError();
        for (uint64_t step = 4; step < 6; step++) {
            fresh.moveTo(randomVector(count, step));
            fresh.sum(related(count, 3, step, 0.3));
            for (int r = 0; r < 3; r++)
                EXPECT_EQ(fresh.stats(r).skipped, step - 4) << recipe << ", rank " << r;
        }
    }
}

std::vector<Change> changes()
{
    std::vector<Change> all;
    for (const char *recipe :
         {"topk:density=0.05", "ef-sign", "dgc:density=0.05", "ef21:density=0.05", "diana:select=natural",
          "gdsec:xi=1,beta=0.1", "lag-wk", "lag-ps", "cdadam:select=topk,density=0.1", "topk:density=0.1,twoway=1",
          "tng:reference=last+ema,search=worker", "tng:reference=last+ema+window,window=3,search=hindsight",
          "threshold", "lasg-wk", "laq", "clag:density=0.1", "topk:density=0.1,value=2bit"})
        for (gsRedOp_t op : {GS_SUM, GS_AVG})
            for (auto [from, to] : {std::pair{4, 2}, std::pair{2, 4}, std::pair{3, 3}})
                all.push_back({recipe, from, to, op});
    return all;
}

INSTANTIATE_TEST_SUITE_P(Changes, Restart, testing::ValuesIn(changes()), [](const auto &p) {
    return nameOf(p.param.recipe) + "_" + std::to_string(p.param.from) + "_" + std::to_string(p.param.to) +
           (p.param.op == GS_AVG ? "_mean" : "_sum");
});

/* ---- what is wrong is named ---- */

class Refusals : public testing::Test
{
  protected:
    void refused(gsResult_t expected, gsResult_t result, const std::string &text)
    {
        EXPECT_EQ(result, expected) << gsGetLastError();
        EXPECT_NE(std::string(gsGetLastError()).find(text), std::string::npos) << gsGetLastError();
    }
};

TEST_F(Refusals, ImportRanksNamesWhatIsWrong)
{
    Fleet two("ef21:density=0.1", 500, 2), three("ef21:density=0.1", 500, 3), other("ef21:density=0.2", 500, 2);
    for (Fleet *f : {&two, &three, &other})
        f->sum(related(500, f->plan().nranks, 0, 0.3));
    States good = two.states(), swapped = {good[1], good[0]}, late, cut = good, flipped = good;
    States before = three.states();
    gsReducer_t r = three.reducer(1);
    const void *pointers[2] = {nullptr, nullptr};
    size_t bytes[2] = {good[0].size(), good[1].size()};
    two.sum(related(500, 2, 1, 0.3));
    late = {good[0], two.state(1)};
    cut[1].resize(cut[1].size() - 8);
    flipped[1][flipped[1].size() / 2] ^= 4;
    refused(GS_ERROR_INVALID_ARGUMENT, importRanks(nullptr, good), "reducer");
    refused(GS_ERROR_INVALID_ARGUMENT, gsReducerImportRanks(r, nullptr, bytes, 2, nullptr, 0), "states");
    refused(GS_ERROR_INVALID_ARGUMENT, gsReducerImportRanks(r, pointers, nullptr, 2, nullptr, 0), "bytes");
    refused(GS_ERROR_INVALID_ARGUMENT, gsReducerImportRanks(r, pointers, bytes, 0, nullptr, 0), "nstates 0");
    refused(GS_ERROR_INVALID_ARGUMENT, gsReducerImportRanks(r, pointers, bytes, 2, nullptr, 0), "all of 2 states");
    refused(GS_ERROR_MISMATCH, importRanks(r, swapped), "rank 1 of 2");
    refused(GS_ERROR_MISMATCH, importRanks(r, {good[0]}), "rank 0 of 2");
    refused(GS_ERROR_MISMATCH, importRanks(r, late), "step 2");
    refused(GS_ERROR_MISMATCH, importRanks(r, {{}, good[0]}), "expected rank 1 of 2");
    refused(GS_ERROR_MISMATCH, importRanks(r, other.states()), "another recipe");
    refused(GS_ERROR_CORRUPT, importRanks(r, cut), std::to_string(good[0].size()));
    refused(GS_ERROR_CORRUPT, importRanks(r, flipped), "checksum");
    refused(GS_ERROR_CORRUPT, importRanks(r, {std::vector<uint8_t>(5, 0), good[1]}), "5 bytes");
    EXPECT_TRUE(three.states() == before) << "a refused import has no effect";
    refused(GS_ERROR_MISMATCH, gsReducerImport(r, good[1].data(), good[1].size()), "gsReducerImportRanks");
    EXPECT_EQ(importRanks(r, good), GS_SUCCESS) << gsGetLastError();
}

/* The second half of a two-way reducer is a part of every state. */
TEST_F(Refusals, ImportRanksChecksSecondHalves)
{
    Fleet fleet("topk:density=0.1,twoway=1", 500, 2);
    fleet.sum(related(500, 2, 0, 0.3));
    States good = fleet.states(), before = good;
    for (size_t rank : {0u, 1u}) {
        States cut = good, flipped = good;
        cut[rank].resize(cut[rank].size() - 16);
        flipped[rank][flipped[rank].size() - 40] ^= 1;
        EXPECT_NE(importRanks(fleet.reducer(0), cut), GS_SUCCESS) << "rank " << rank;
        EXPECT_NE(importRanks(fleet.reducer(0), flipped), GS_SUCCESS) << "rank " << rank;
        EXPECT_TRUE(fleet.states() == before);
    }
}

TEST_F(Refusals, SetParamsNamesWhatIsWrong)
{
    Fleet server("lag-ps", 100, 1), worker("lag-wk", 100, 1), plain("topk", 100, 1);
    std::vector<float> theta(101, 0.0f);
    gsParams_t good = GS_PARAMS_INIT;
    good.params = theta.data();
    good.stepSize = good.smoothness = 1;
    gsReducer_t r = server.reducer(0);
    EXPECT_EQ(gsReducerSetParams(r, &good), GS_SUCCESS) << gsGetLastError();
    auto with = [&](auto change) {
        gsParams_t p = good;
        change(p);
        return gsReducerSetParams(r, &p);
    };
    refused(GS_ERROR_INVALID_ARGUMENT, gsReducerSetParams(nullptr, &good), "reducer");
    refused(GS_ERROR_INVALID_ARGUMENT, gsReducerSetParams(r, nullptr), "params is NULL");
    refused(GS_ERROR_INVALID_ARGUMENT, with([](gsParams_t &p) { p.size = 3; }), "size is 3");
    refused(GS_ERROR_INVALID_ARGUMENT, with([](gsParams_t &p) { p.version = 990000; }), "version is 990000");
    for (int type : {0, 5, 10, -1})
        refused(GS_ERROR_INVALID_ARGUMENT, with([&](gsParams_t &p) { p.datatype = static_cast<gsDataType_t>(type); }),
                "datatype is " + std::to_string(type));
    refused(GS_ERROR_INVALID_ARGUMENT, with([](gsParams_t &p) { p.params = nullptr; }), "params->params is NULL");
    refused(GS_ERROR_INVALID_ARGUMENT,
            with([&](gsParams_t &p) { p.params = reinterpret_cast<char *>(theta.data()) + 1; }), "multiples of 4");
    refused(GS_ERROR_INVALID_ARGUMENT, with([&](gsParams_t &p) { p.xi = reinterpret_cast<char *>(theta.data()) + 2; }),
            "multiples of 4");
    refused(GS_ERROR_INVALID_ARGUMENT, with([](gsParams_t &p) { p.stepSize = std::nan(""); }), "stepSize is");
    refused(GS_ERROR_INVALID_ARGUMENT, with([](gsParams_t &p) { p.stepSize = INFINITY; }), "stepSize is inf");
    refused(GS_ERROR_INVALID_ARGUMENT, with([](gsParams_t &p) { p.stepSize = -0.5; }), "stepSize is -0.5");
    refused(GS_ERROR_INVALID_ARGUMENT, with([](gsParams_t &p) { p.stepSize = 0; }), "stepSize is 0");
    refused(GS_ERROR_INVALID_ARGUMENT, with([](gsParams_t &p) { p.smoothness = std::nan(""); }), "smoothness");
    refused(GS_ERROR_INVALID_ARGUMENT, with([](gsParams_t &p) { p.smoothness = -2; }), "smoothness -2");
    gsParams_t zero = good;
    zero.stepSize = 0;
    EXPECT_EQ(gsReducerSetParams(plain.reducer(0), &zero), GS_SUCCESS) << "others do not divide by it";
    refused(GS_ERROR_INVALID_ARGUMENT, gsReducerSetParams(worker.reducer(0), &zero), "stepSize is 0");
}

TEST_F(Refusals, RecipesThatReadIteratesSayWhatIsMissing)
{
    std::vector<double> g(100, 1.0), out(100, -7.0);
    for (const char *recipe : {"gdsec", "lag-ps", "tng:reference=params"}) {
        Fleet fleet(recipe, 100, 1);
        refused(GS_ERROR_INVALID_USAGE, fleet.call(0, g.data(), out.data()), "gsReducerSetParams");
        EXPECT_EQ(out[0], -7.0);
    }
    Fleet server("lag-ps", 100, 1);
    int wants = 5;
    refused(GS_ERROR_INVALID_USAGE, gsReducerWantsGradient(server.reducer(0), &wants), "gsReducerSetParams");
    refused(GS_ERROR_INVALID_ARGUMENT, gsReducerWantsGradient(server.reducer(0), nullptr), "wants");
    refused(GS_ERROR_INVALID_ARGUMENT, gsReducerWantsGradient(nullptr, &wants), "reducer");
}

TEST_F(Refusals, ParticipationTakesAMemory)
{
    refused(GS_ERROR_INVALID_ARGUMENT, gsReducerSetParticipation(nullptr, 0), "reducer");
    for (const char *recipe : {"dense", "topk", "gspar", "tng", "dgc"}) {
        Fleet fleet(recipe, 100, 1);
        refused(GS_ERROR_UNSUPPORTED, gsReducerSetParticipation(fleet.reducer(0), 0), "h");
    }
    for (const char *recipe : {"ef21", "diana", "cdadam", "gdsec", "lag-wk"}) {
        Fleet fleet(recipe, 100, 1);
        EXPECT_EQ(gsReducerSetParticipation(fleet.reducer(0), 0), GS_SUCCESS) << recipe;
    }
}

TEST_F(Refusals, ReadNamesVectorsThatAreNotThere)
{
    Fleet fleet("topk", 100, 1);
    std::vector<double> values(100, -7.0);
    gsReducer_t r = fleet.reducer(0);
    refused(GS_ERROR_INVALID_ARGUMENT, gsReducerRead(nullptr, "residual", values.data(), 100), "reducer");
    refused(GS_ERROR_INVALID_ARGUMENT, gsReducerRead(r, nullptr, values.data(), 100), "name");
    refused(GS_ERROR_INVALID_ARGUMENT, gsReducerRead(r, "residual", nullptr, 100), "values");
    refused(GS_ERROR_INVALID_ARGUMENT, gsReducerRead(r, "residual", values.data(), 99), "count is 99");
    for (const char *name : {"memory", "shared", "Residual", "", "server.residual", "server."})
        refused(GS_ERROR_INVALID_ARGUMENT, gsReducerRead(r, name, values.data(), 100), std::string("\"") + name + "\"");
    EXPECT_EQ(values, std::vector<double>(100, -7.0));
    EXPECT_EQ(gsReducerRead(r, "residual", values.data(), 100), GS_SUCCESS);
    EXPECT_EQ(values, std::vector<double>(100, 0.0));
}

TEST_F(Refusals, SingleStagesAreRefusedWhereStepsTravelDense)
{
    gsComm_t comm = nullptr;
    ASSERT_EQ(gsCommInitStages(&comm, 0, 1, nullptr), GS_SUCCESS);
    for (const char *recipe : {"gdsec", "cdadam", "ef21:first=dense", "topk:twoway=1",
                               "tng:reference=snapshot,refresh=3", "lag-wk:resync=3"}) {
        gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
        config.recipe = recipe;
        config.count = 100;
        gsReducer_t reducer = nullptr;
        ASSERT_EQ(gsReducerCreate(&reducer, comm, &config), GS_SUCCESS) << gsGetLastError();
        size_t bytes = 0;
        ASSERT_EQ(gsReducerGetSlotBytes(reducer, &bytes), GS_SUCCESS);
        Slots slots(1, bytes + 16);
        std::vector<float> g(100, 1.0f);
        refused(GS_ERROR_UNSUPPORTED, gsEncode(g.data(), slots.slot(0), 100, GS_FLOAT32, reducer, nullptr),
                "single stages");
        EXPECT_EQ(gsReducerDestroy(reducer), GS_SUCCESS);
    }
    EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS);
}

} // namespace
} // namespace gst
