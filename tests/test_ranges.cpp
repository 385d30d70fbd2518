/*
 * What a profiler sees: every call and every stage of every mode as a range in the domain "gradsieve", with a payload that agrees with the
 * statistics, and nothing left open. The profiler is nvtx_tool.cpp.
 */
#include "halves.h"
#include "nvtx_tool.h"

namespace gst
{
namespace
{

using Ranges = std::vector<Range>;

/* NVTX asks for its tool at the first range of a process. */
const int loaded = setenv("NVTX_INJECTION64_PATH", NVTX_TOOL, 1);

/* "call(stage stage(inner))", and what is wrong with a range in the place of its name. */
std::string shapeOf(const Ranges &ranges)
{
    std::string shape;
    int depth = 0;
    for (const Range &range : ranges) {
        for (; depth > range.depth; depth--)
            shape += ")";
        shape += range.depth > depth ? "(" : shape.empty() ? "" : " ";
        depth = range.depth;
        shape += range.open ? "open!" : range.registered && range.domain == "gradsieve" ? range.name : "foreign!";
    }
    return shape + std::string(static_cast<size_t>(depth), ')');
}

/* The ranges of each rank, by what their payloads say. */
std::vector<Ranges> takeByRank(int nranks)
{
    std::vector<Ranges> byRank(static_cast<size_t>(nranks));
    for (const Range &range : takeRanges()) {
        EXPECT_EQ(range.schema, "gradsieve") << range.name;
        int rank = static_cast<int>(range.payload.at("rank").number);
        EXPECT_EQ(static_cast<int>(range.payload.at("ranks").number), nranks) << range.name;
        byRank.at(static_cast<size_t>(rank)).push_back(range);
    }
    return byRank;
}

struct Mode {
    const char *name;
    const char *recipe;
    gsMode_t mode;
    std::vector<std::string> shapes; /* of the first calls; the last one of all that follow */
    bool halves = false;             /* the second half's ranges are among them */
    std::vector<uint64_t> segments = {};
    gsCollective_t collective = GS_ALL_REDUCE;
    bool step = false; /* an optimizer's, by the result */
};

std::ostream &operator<<(std::ostream &out, const Mode &mode)
{
    return out << mode.name;
}

class OfMode : public testing::TestWithParam<Mode>
{
  protected:
    enum { RANKS = 4, CALLS = 4, COUNT = 65536 };

    Plan plan() const
    {
        Plan plan;
        plan.recipe = GetParam().recipe;
        plan.count = COUNT;
        plan.nranks = RANKS;
        plan.ranksPerNode = 2;
        plan.segments = GetParam().segments;
        plan.collective = GetParam().collective;
        plan.commName = "tensor parallel";
        return plan;
    }

    gsResult_t callStep(gsReducer_t reducer, const std::vector<float> &gradient, std::vector<float> *params)
    {
        std::vector<float> m(COUNT);
        gsOptimizer_t o = GS_OPTIMIZER_INIT;
        o.params = params->data();
        o.m = m.data();
        return gsAllReduceStep(gradient.data(), COUNT, GS_FLOAT32, GS_SUM, &o, reducer, nullptr);
    }

    /* As many elements as either side of any call needs. */
    gsResult_t call(gsReducer_t reducer, std::vector<float> *gradient, std::vector<float> *result)
    {
        if (GetParam().collective == GS_REDUCE_SCATTER)
            return gsReduceScatter(gradient->data(), result->data(), COUNT / RANKS, GS_FLOAT32, GS_SUM, reducer,
                                   nullptr);
        if (GetParam().collective == GS_ALL_GATHER)
            return gsAllGather(gradient->data(), result->data(), COUNT / RANKS, GS_FLOAT32, reducer, nullptr);
        if (GetParam().step)
            return callStep(reducer, *gradient, result);
        if (GetParam().segments.empty())
            return gsAllReduce(gradient->data(), result->data(), COUNT, GS_FLOAT32, GS_SUM, reducer, nullptr);
        std::vector<const void *> from;
        std::vector<void *> to;
        uint64_t at = 0;
        for (uint64_t n : GetParam().segments) {
            from.push_back(gradient->data() + at);
            to.push_back(result->data() + at);
            at += n;
        }
        return gsAllReduceSegments(from.data(), to.data(), static_cast<uint32_t>(from.size()), GS_FLOAT32, GS_SUM,
                                   reducer, nullptr);
    }

    void callAll(ThreadRanks &ranks, uint64_t step)
    {
        Gradients gradients = makeGradients(Shape::Gaussian, ranks.plan(), step);
        parallel(RANKS, [&](int r) {
            std::vector<float> result(COUNT);
            EXPECT_EQ(call(ranks.reducer(r), &gradients[static_cast<size_t>(r)], &result), GS_SUCCESS)
                << gsGetLastError();
        });
    }
};

/* What densities are shares of: a slice where the reducer is about one, of a node's two ranks or of all four. */
double reducerElements(const Mode &mode)
{
    return mode.mode == GS_MODE_HIERARCHICAL ? 65536.0 / 2 : mode.collective == GS_ALL_GATHER ? 65536.0 / 4 : 65536.0;
}

/* The last of a rank's records, by its statistics; before the first the slot, whose density nobody checks here. */
struct Known {
    double bytes, density;
};

void checkPayload(const Range &range, const Mode &mode, bool dense, const Known &record, const char *of)
{
    SCOPED_TRACE(range.name + " of " + of);
    const auto &payload = range.payload;
    double count = mode.collective == GS_ALL_GATHER ? 65536 / 4 : 65536;
    EXPECT_EQ(payload.at("communicator").text, "tensor parallel");
    EXPECT_EQ(payload.at("reducer").text, std::string("0 ") + mode.recipe);
    EXPECT_EQ(payload.at("count").number, count);
    EXPECT_EQ(payload.at("dense bytes").number, 4 * count);
    EXPECT_EQ(payload.at("mode").text, gsGetModeName(dense ? GS_MODE_DENSE : mode.mode));
    EXPECT_EQ(payload.at("known").text, of);
    EXPECT_EQ(payload.at("payload bytes").number, record.bytes);
    EXPECT_DOUBLE_EQ(payload.at("density").number, record.density);
}

bool isSecondHalf(const Range &range)
{
    return contains(range.payload.at("reducer").text, ", second half");
}

/* Up to `select` a record is one of an earlier call, or the room for it; behind it is this call's. A dense step has no secrets. */
void checkRank(const Ranges &ranges, const Mode &mode, bool dense, bool first, const Known &before, const Known &now)
{
    bool selected = false;
    for (const Range &range : ranges) {
        if (isSecondHalf(range))
            continue;
        if (dense || selected)
            checkPayload(range, mode, dense, now, "this call");
        else if (first)
            EXPECT_EQ(range.payload.at("known").text, "capacity") << range.name;
        else
            checkPayload(range, mode, dense, before, "an earlier call");
        selected = selected || range.name == "select";
    }
}

TEST_P(OfMode, EveryStageIsARangeWithTheStatistics)
{
    const Mode &mode = GetParam();
    takeRanges();
    ThreadRanks ranks(plan());
    std::vector<gsStats_t> before(RANKS);
    std::vector<Known> last(RANKS);
    EXPECT_TRUE(takeRanges().empty()) << "a reducer without a call";
    bool sparse = false; /* a record has been made */
    for (size_t c = 0; c < CALLS; c++) {
        SCOPED_TRACE(c);
        callAll(ranks, c);
        std::vector<Ranges> byRank = takeByRank(RANKS);
        bool dense = false;
        for (size_t r = 0; r < RANKS; r++) {
            SCOPED_TRACE(r);
            gsStats_t stats = ranks.stats(static_cast<int>(r));
            Known now = {static_cast<double>(stats.payloadBytes - before[r].payloadBytes),
                         static_cast<double>(stats.lastSent) / reducerElements(mode)};
            dense = stats.dense > before[r].dense;
            EXPECT_EQ(shapeOf(byRank[r]), mode.shapes[std::min(c, mode.shapes.size() - 1)]);
            EXPECT_EQ(std::any_of(byRank[r].begin(), byRank[r].end(), isSecondHalf), mode.halves);
            checkRank(byRank[r], mode, dense, !sparse, last[r], now);
            before[r] = stats;
            if (!dense)
                last[r] = now;
        }
        sparse = sparse || !dense;
    }
    EXPECT_EQ(registrations().domains, 1);
    EXPECT_EQ(registrations().schemas, 1);
    EXPECT_EQ(registrations().enums, 2);
}

const std::string road = "select pack exchange accumulate commit";
const std::string owners = "select pack exchange owner exchange accumulate commit";
const std::string denseStep = "compare exchange accumulate commit";

INSTANTIATE_TEST_SUITE_P(
    All, OfMode,
    testing::Values(
        Mode{"capacity", "threshold:density=0.02", GS_MODE_CAPACITY, {"gsAllReduce(" + road + ")"}},
        Mode{"unbiased", "gspar:density=0.02,value=shared", GS_MODE_CAPACITY, {"gsAllReduce(" + road + ")"}},
        Mode{"exact", "threshold:density=0.02,exchange=exact", GS_MODE_EXACT, {"gsAllReduce(" + road + ")"}},
        Mode{"owner", "chunk-topk:k=64,exchange=owner", GS_MODE_OWNER, {"gsAllReduce(" + owners + ")"}, true},
        Mode{"ownerExact",
             "threshold:density=0.02,exchange=owner-exact",
             GS_MODE_OWNER_EXACT,
             {"gsAllReduce(" + owners + ")"},
             true},
        Mode{"ownerTwoway",
             "ef21:select=topk,exchange=owner,twoway=1",
             GS_MODE_OWNER,
             {"gsAllReduce(" + owners + ")"},
             true},
        Mode{"hierarchical",
             "threshold:density=0.02,exchange=hierarchical",
             GS_MODE_HIERARCHICAL,
             {"gsAllReduce(reduce-scatter select pack exchange accumulate all-gather commit)"}},
        Mode{"hierarchicalMemory",
             "ef21:select=topk,exchange=hierarchical",
             GS_MODE_HIERARCHICAL,
             {"gsAllReduce(reduce-scatter select pack exchange accumulate all-gather accumulate commit)"}},
        Mode{"dense", "dense", GS_MODE_DENSE, {"gsAllReduce(exchange commit)"}},
        Mode{"firstDense",
             "diana:select=ternary,first=dense",
             GS_MODE_CAPACITY,
             {"gsAllReduce(" + denseStep + ")", "gsAllReduce(" + road + ")"}},
        Mode{"refresh",
             "tng:select=ternary,reference=snapshot,refresh=2",
             GS_MODE_CAPACITY,
             {"gsAllReduce(" + denseStep + ")", "gsAllReduce(" + road + ")", "gsAllReduce(" + denseStep + ")",
              "gsAllReduce(" + road + ")"}},
        Mode{"resync",
             "lag-wk:resync=2",
             GS_MODE_EXACT,
             {"gsAllReduce(" + road + ")", "gsAllReduce(" + road + ")", "gsAllReduce(resync " + road + ")",
              "gsAllReduce(" + road + ")"}},
        Mode{"twoway", "cdadam:select=sign", GS_MODE_CAPACITY, {"gsAllReduce(" + road + " " + road + ")"}, true},
        Mode{"list",
             "threshold:density=0.02",
             GS_MODE_CAPACITY,
             {"gsAllReduceSegments(" + road + ")"},
             false,
             {60000, 36, 5000, 500}},
        Mode{"denseList", "dense", GS_MODE_DENSE, {"gsAllReduceSegments(exchange commit)"}, false, {65000, 36, 500}},
        Mode{"scatter",
             "threshold:density=0.02",
             GS_MODE_OWNER,
             {"gsReduceScatter(" + owners + ")"},
             false,
             {},
             GS_REDUCE_SCATTER},
        Mode{"step",
             "threshold:density=0.02",
             GS_MODE_CAPACITY,
             {"gsAllReduceStep(" + road + ")"},
             false,
             {},
             GS_ALL_REDUCE,
             true},
        Mode{"gather", "ef-sign", GS_MODE_CAPACITY, {"gsAllGather(" + road + ")"}, false, {}, GS_ALL_GATHER},
        Mode{
            "denseScatter", "dense", GS_MODE_DENSE, {"gsReduceScatter(exchange commit)"}, false, {}, GS_REDUCE_SCATTER},
        Mode{"denseGather", "dense", GS_MODE_DENSE, {"gsAllGather(exchange commit)"}, false, {}, GS_ALL_GATHER}),
    [](const testing::TestParamInfo<Mode> &info) { return info.param.name; });

/* ---- other roads to a range ---- */

Plan planOf(const char *recipe, int nranks = 2)
{
    Plan plan;
    plan.recipe = recipe;
    plan.count = 20000;
    plan.nranks = nranks;
    return plan;
}

const std::string sparseCall = "gsAllReduce(" + road + ")";

TEST(Ranges, SingleStages)
{
    takeRanges();
    StageRanks ranks(planOf("threshold:density=0.05"));
    for (uint64_t step = 0; step < 2; step++) {
        Slots slots = ranks.encode(makeGradients(Shape::Gaussian, ranks.plan(), step));
        for (const Ranges &own : takeByRank(2))
            EXPECT_EQ(shapeOf(own), "gsEncode(select pack)");
        ranks.decode(slots);
        std::vector<Ranges> byRank = takeByRank(2);
        for (size_t r = 0; r < 2; r++) {
            gsRecordInfo_t info = {};
            ASSERT_EQ(gsRecordInspect(slots.slot(static_cast<int>(r)), slots.slotBytes(), &info), GS_SUCCESS);
            EXPECT_EQ(shapeOf(byRank[r]), "gsDecode(accumulate commit)");
            for (const Range &range : byRank[r]) {
                EXPECT_EQ(range.payload.at("payload bytes").number, static_cast<double>(info.recordBytes));
                EXPECT_DOUBLE_EQ(range.payload.at("density").number, static_cast<double>(info.kept) / 20000.0);
                EXPECT_EQ(range.payload.at("known").text, "this call");
                EXPECT_EQ(range.payload.at("communicator").text, "stages");
            }
        }
    }
}

TEST(Ranges, SingleStagesOfAReduceScatter)
{
    takeRanges();
    ScatterByHand ranks(halfOf(GS_REDUCE_SCATTER, "threshold:density=0.05", 10000, 2));
    auto expectShape = [](const char *shape) {
        for (const Ranges &own : takeByRank(2))
            EXPECT_EQ(shapeOf(own), shape);
    };
    ranks.encode(givenTo(ranks.plan(), 0));
    expectShape("gsEncode(select pack)");
    ranks.sum();
    expectShape("gsSumParts(owner)");
    ranks.decode();
    expectShape("gsDecode(accumulate commit)");
}

/* The room for a record, before there is one. */
TEST(Ranges, CapacityIsTheSlot)
{
    takeRanges();
    StageRanks ranks(planOf("threshold:density=0.05,capacity=0.1"));
    ranks.encode(makeGradients(Shape::Gaussian, ranks.plan(), 0));
    for (const Ranges &own : takeByRank(2)) {
        EXPECT_EQ(own.at(0).payload.at("payload bytes").number, static_cast<double>(ranks.slotBytes()));
        EXPECT_DOUBLE_EQ(own.at(0).payload.at("density").number, 0.1);
    }
}

TEST(Ranges, ReducersAreNumbered)
{
    takeRanges();
    Plan plan = planOf("dense", 1);
    ThreadRanks ranks(plan);
    plan.recipe = "ef-sign";
    gsReducerConfig_t config = configOf(plan);
    gsReducer_t second = nullptr;
    ASSERT_EQ(gsReducerCreate(&second, ranks.comm(0), &config), GS_SUCCESS) << gsGetLastError();
    std::vector<float> gradient(plan.count, 1.0f);
    EXPECT_EQ(gsAllReduce(gradient.data(), gradient.data(), plan.count, plan.type, GS_SUM, second, nullptr),
              GS_SUCCESS);
    Ranges own = takeRanges();
    EXPECT_EQ(shapeOf(own), sparseCall);
    EXPECT_EQ(own.at(0).payload.at("reducer").text, "1 ef-sign");
    EXPECT_EQ(own.at(0).payload.at("communicator").text, "threads");
    EXPECT_EQ(gsReducerDestroy(second), GS_SUCCESS);
}

TEST(Ranges, OnAStreamsWorker)
{
    takeRanges();
    ThreadRanks ranks(planOf("threshold"));
    Gradients gradients = makeGradients(Shape::Gaussian, ranks.plan(), 0);
    parallel(2, [&](int r) {
        gsStream_t stream = nullptr;
        std::vector<float> &own = gradients[static_cast<size_t>(r)];
        ASSERT_EQ(gsStreamCreate(&stream), GS_SUCCESS);
        EXPECT_EQ(ranks.call(r, own.data(), own.data(), stream), GS_SUCCESS);
        EXPECT_EQ(gsStreamSynchronize(stream), GS_SUCCESS);
        EXPECT_EQ(gsStreamDestroy(stream), GS_SUCCESS);
    });
    for (const Ranges &own : takeByRank(2))
        EXPECT_EQ(shapeOf(own), sparseCall);
}

/* ---- after errors ---- */

void expectSteady(ThreadRanks &ranks, const std::string &shape)
{
    ranks.allReduce(makeGradients(Shape::Gaussian, ranks.plan(), 9));
    for (const Ranges &own : takeByRank(ranks.plan().nranks))
        EXPECT_EQ(shapeOf(own), shape);
}

TEST(AfterErrors, NonFinite)
{
    takeRanges();
    ThreadRanks ranks(planOf("threshold"));
    Gradients gradients = makeGradients(Shape::Gaussian, ranks.plan(), 0);
    gradients[1][77] = std::numeric_limits<float>::quiet_NaN();
    ranks.allReduce(gradients);
    std::vector<Ranges> byRank = takeByRank(2);
    EXPECT_EQ(shapeOf(byRank[0]), sparseCall);
    EXPECT_EQ(shapeOf(byRank[1]), sparseCall);
    EXPECT_GT(byRank[0].back().payload.at("density").number, 0.0);
    EXPECT_EQ(byRank[1].back().payload.at("density").number, 0.0);
    EXPECT_EQ(byRank[1].back().payload.at("payload bytes").number, static_cast<double>(ranks.stats(1).payloadBytes));
    expectSteady(ranks, sparseCall);
}

/* A rank whose steps are others: its peers' verdict, found in accumulate, ends the call there or behind it. */
TEST(AfterErrors, Mismatch)
{
    for (const char *recipe :
         {"threshold", "threshold:exchange=owner", "cdadam:select=sign", "threshold:exchange=exact"}) {
        SCOPED_TRACE(recipe);
        takeRanges();
        ThreadRanks ranks(planOf(recipe));
        ranks.allReduce(makeGradients(Shape::Gaussian, ranks.plan(), 0));
        std::string steady = shapeOf(takeByRank(2)[0]);
        ASSERT_EQ(gsReducerReset(ranks.reducer(1), nullptr), GS_SUCCESS);
        Gradients gradients = makeGradients(Shape::Gaussian, ranks.plan(), 1);
        parallel(2, [&](int r) {
            std::vector<float> &own = gradients[static_cast<size_t>(r)];
            EXPECT_EQ(ranks.call(r, own.data(), own.data()), GS_ERROR_MISMATCH);
        });
        for (const Ranges &own : takeByRank(2))
            EXPECT_FALSE(contains(shapeOf(own), "open!")) << shapeOf(own);
        ASSERT_EQ(gsReducerReset(ranks.reducer(0), nullptr), GS_SUCCESS);
        expectSteady(ranks, steady);
    }
}

TEST(AfterErrors, Deadline)
{
    for (const char *recipe : {"threshold", "dense", "threshold:exchange=owner", "threshold:exchange=hierarchical"}) {
        SCOPED_TRACE(recipe);
        takeRanges();
        Plan plan = planOf(recipe);
        plan.timeoutMs = 300;
        plan.ranksPerNode = 1;
        ThreadRanks ranks(plan);
        std::vector<float> gradient(plan.count, 1.0f);
        EXPECT_EQ(ranks.call(0, gradient.data(), gradient.data()), GS_ERROR_TIMEOUT);
        Ranges own = takeByRank(2)[0];
        EXPECT_FALSE(contains(shapeOf(own), "open!")) << shapeOf(own);
        EXPECT_EQ(own.at(0).depth, 0);
        EXPECT_FALSE(contains(shapeOf(own), "commit")) << shapeOf(own);
    }
}

/* What is refused before it begins is no range. */
TEST(AfterErrors, Refused)
{
    takeRanges();
    ThreadRanks ranks(planOf("threshold", 1));
    EXPECT_EQ(ranks.call(0, nullptr, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_TRUE(takeRanges().empty());
}

/* ---- off ---- */

TEST(Disable, NoRanges)
{
    takeRanges();
    Environment off("GS_NVTX_DISABLE", "1");
    for (const char *recipe : {"dense", "threshold", "cdadam:select=sign", "threshold:exchange=owner"}) {
        ThreadRanks ranks(planOf(recipe));
        ranks.allReduce(makeGradients(Shape::Gaussian, ranks.plan(), 0));
        EXPECT_TRUE(takeRanges().empty()) << recipe;
    }
}

TEST(Disable, NotAnAnswer)
{
    Environment off("GS_NVTX_DISABLE", "yes");
    Plan plan = planOf("threshold", 1);
    gsReducerConfig_t config = configOf(plan);
    gsComm_t comm = nullptr;
    gsReducer_t reducer = nullptr;
    ASSERT_EQ(gsCommInitAll(&comm, 1, nullptr), GS_SUCCESS);
    EXPECT_EQ(gsReducerCreate(&reducer, comm, &config), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_TRUE(contains(gsGetLastError(), "GS_NVTX_DISABLE")) << gsGetLastError();
    EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS);
}

TEST(Names, TooLong)
{
    std::string most(63, 'x'), more(64, 'x');
    gsCommConfig_t config = GS_COMM_CONFIG_INIT;
    gsComm_t comm = nullptr;
    config.commName = more.c_str();
    EXPECT_EQ(gsCommInitAll(&comm, 1, &config), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_TRUE(contains(gsGetLastError(), "commName")) << gsGetLastError();
    config.commName = most.c_str();
    EXPECT_EQ(gsCommInitAll(&comm, 1, &config), GS_SUCCESS) << gsGetLastError();
    EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS);
}

} // namespace
} // namespace gst
