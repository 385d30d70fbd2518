/* The interface: bad input is named, nothing is half made, orders of destruction, versions, memory figures. */
#include "arena.h"
#include "oracle.h"
#include "ranks.h"

#include <cstddef>
#include <map>

namespace gst
{
namespace
{

/* One rank with a reducer, and the calls that most tests make wrong in one place. */
class Api : public testing::Test
{
  protected:
    Api()
    {
        EXPECT_EQ(gsCommInitAll(&comm_, 1, nullptr), GS_SUCCESS);
    }
    ~Api() override
    {
        EXPECT_EQ(gsReducerDestroy(reducer_), GS_SUCCESS);
        EXPECT_EQ(gsCommDestroy(comm_), GS_SUCCESS);
    }

    static gsReducerConfig_t config(const char *recipe, uint64_t count = 100)
    {
        gsReducerConfig_t c = GS_REDUCER_CONFIG_INIT;
        c.recipe = recipe;
        c.count = count;
        return c;
    }
    void make(const char *recipe, uint64_t count = 100)
    {
        gsReducerConfig_t c = config(recipe, count);
        ASSERT_EQ(gsReducerCreate(&reducer_, comm_, &c), GS_SUCCESS) << gsGetLastError();
    }
    /* Creation with this configuration fails, leaves NULL and says why. */
    void expectRefused(const gsReducerConfig_t &c, gsResult_t expected, const std::string &text = "")
    {
        gsReducer_t reducer = reinterpret_cast<gsReducer_t>(&comm_);
        gsMemory_t memory = {};
        EXPECT_EQ(gsReducerCreate(&reducer, comm_, &c), expected) << (c.recipe ? c.recipe : "NULL");
        EXPECT_EQ(reducer, nullptr);
        EXPECT_NE(std::string(gsGetLastError()).find(text), std::string::npos) << gsGetLastError();
        EXPECT_EQ(gsReducerGetMemory(&c, 1, &memory), expected);
    }

    gsComm_t comm_ = nullptr;
    gsReducer_t reducer_ = nullptr;
    std::vector<float> g_ = std::vector<float>(100, 1.0f), out_ = std::vector<float>(100, -7.0f);
};

TEST(Constants, AreNccls)
{
    EXPECT_EQ(GS_FLOAT16, 6);
    EXPECT_EQ(GS_FLOAT32, 7);
    EXPECT_EQ(GS_FLOAT64, 8);
    EXPECT_EQ(GS_BFLOAT16, 9);
    EXPECT_EQ(GS_SUM, 0);
    EXPECT_EQ(GS_AVG, 4);
}

TEST(Version, IsTheHeaders)
{
    int version = 0;
    EXPECT_EQ(gsGetVersion(&version), GS_SUCCESS);
    EXPECT_EQ(version, GS_VERSION_CODE);
    EXPECT_EQ(gsGetVersion(nullptr), GS_ERROR_INVALID_ARGUMENT);
}

TEST(Errors, EveryCodeHasItsText)
{
    std::set<std::string> texts;
    for (int code = GS_SUCCESS; code <= GS_ERROR_SYSTEM; code++)
        texts.insert(gsGetErrorString(static_cast<gsResult_t>(code)));
    EXPECT_EQ(texts.size(), static_cast<size_t>(GS_ERROR_SYSTEM) + 1);
    for (int code : {-1, 13, 1 << 30})
        EXPECT_NE(gsGetErrorString(static_cast<gsResult_t>(code)), nullptr);
}

TEST(Errors, LastErrorIsTheThreads)
{
    ASSERT_NE(gsGetLastError(), nullptr);
    EXPECT_NE(gsCommInitAll(nullptr, 1, nullptr), GS_SUCCESS);
    std::string here = gsGetLastError();
    EXPECT_FALSE(here.empty());
    std::thread([&] { EXPECT_NE(gsGetLastError(), here); }).join();
    EXPECT_EQ(gsGetLastError(), here);
}

TEST(Comm, BadArguments)
{
    gsComm_t comms[2] = {};
    int number = 0;
    gsResult_t error;
    EXPECT_EQ(gsCommInitAll(nullptr, 1, nullptr), GS_ERROR_INVALID_ARGUMENT);
    for (int nranks : {0, -1, 1025})
        EXPECT_EQ(gsCommInitAll(comms, nranks, nullptr), GS_ERROR_INVALID_ARGUMENT) << nranks;
    EXPECT_EQ(gsCommInitStages(nullptr, 0, 1, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsCommInitStages(comms, 2, 2, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsCommInitStages(comms, -1, 2, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsCommInitStages(comms, 0, 0, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsCommCount(nullptr, &number), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsCommUserRank(nullptr, &number), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsCommSynchronize(nullptr, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsCommGetAsyncError(nullptr, &error), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsCommAbort(nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsCommDestroy(nullptr), GS_SUCCESS);
}

TEST(Comm, BadConfigurations)
{
    gsComm_t comm = nullptr;
    gsCommConfig_t good = GS_COMM_CONFIG_INIT, bad = good;
    bad.size--;
    EXPECT_EQ(gsCommInitAll(&comm, 1, &bad), GS_ERROR_INVALID_ARGUMENT);
    bad = good;
    bad.version = 0;
    EXPECT_EQ(gsCommInitAll(&comm, 1, &bad), GS_ERROR_INVALID_ARGUMENT);
    bad = good;
    bad.timeoutMs = -1;
    EXPECT_EQ(gsCommInitAll(&comm, 1, &bad), GS_ERROR_INVALID_ARGUMENT);
    Environment timeout("GS_TIMEOUT_MS", "soon");
    EXPECT_EQ(gsCommInitAll(&comm, 1, &good), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_NE(std::string(gsGetLastError()).find("soon"), std::string::npos) << gsGetLastError();
}

TEST(Comm, RanksAndCounts)
{
    gsComm_t comms[5] = {};
    ASSERT_EQ(gsCommInitAll(comms, 5, nullptr), GS_SUCCESS);
    for (int r = 0; r < 5; r++) {
        int rank = -1, nranks = -1;
        gsResult_t error = GS_ERROR_SYSTEM;
        EXPECT_EQ(gsCommUserRank(comms[r], &rank), GS_SUCCESS);
        EXPECT_EQ(gsCommCount(comms[r], &nranks), GS_SUCCESS);
        EXPECT_EQ(gsCommGetAsyncError(comms[r], &error), GS_SUCCESS);
        EXPECT_EQ(rank, r);
        EXPECT_EQ(nranks, 5);
        EXPECT_EQ(error, GS_SUCCESS);
        EXPECT_EQ(gsCommUserRank(comms[r], nullptr), GS_ERROR_INVALID_ARGUMENT);
        EXPECT_EQ(gsCommCount(comms[r], nullptr), GS_ERROR_INVALID_ARGUMENT);
        EXPECT_EQ(gsCommGetAsyncError(comms[r], nullptr), GS_ERROR_INVALID_ARGUMENT);
    }
    for (int r : {2, 0, 4, 1, 3}) /* any order */
        EXPECT_EQ(gsCommDestroy(comms[r]), GS_SUCCESS);
}

TEST_F(Api, DestroyOrders)
{
    EXPECT_EQ(gsReducerDestroy(nullptr), GS_SUCCESS);
    EXPECT_EQ(gsStreamDestroy(nullptr), GS_SUCCESS);
    make("threshold");
    EXPECT_EQ(gsCommDestroy(comm_), GS_ERROR_INVALID_USAGE) << "a communicator must outlive its reducers";
    EXPECT_EQ(gsAllReduce(g_.data(), out_.data(), 100, GS_FLOAT32, GS_SUM, reducer_, nullptr), GS_SUCCESS);
}

TEST_F(Api, BadConfigurations)
{
    gsReducerConfig_t c = config("dense");
    EXPECT_EQ(gsReducerCreate(nullptr, comm_, &c), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerCreate(&reducer_, nullptr, &c), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerCreate(&reducer_, comm_, nullptr), GS_ERROR_INVALID_ARGUMENT);
    c.size += 8;
    expectRefused(c, GS_ERROR_INVALID_ARGUMENT, "size");
    c = config("dense");
    c.version = GS_VERSION(9, 0, 0);
    expectRefused(c, GS_ERROR_INVALID_ARGUMENT, "version");
    c = config(nullptr);
    expectRefused(c, GS_ERROR_INVALID_ARGUMENT, "recipe");
    c = config("dense");
    c.cpuThreads = -1;
    expectRefused(c, GS_ERROR_INVALID_ARGUMENT, "cpuThreads");
    c = config("dense");
    c.reserved2 = 1;
    expectRefused(c, GS_ERROR_INVALID_ARGUMENT, "reserved2");
    c = config("dense");
    c.allocate = [](size_t bytes, void *) { return std::malloc(bytes); };
    expectRefused(c, GS_ERROR_INVALID_ARGUMENT, "release");
    c = config("gspar", UINT64_MAX);
    expectRefused(c, GS_ERROR_INVALID_ARGUMENT, "count");
}

TEST_F(Api, UnknownTypes)
{
    gsReducerConfig_t c = config("threshold");
    for (int type : {0, 5, 10, -1}) {
        c.datatype = static_cast<gsDataType_t>(type);
        expectRefused(c, GS_ERROR_INVALID_ARGUMENT);
    }
}

TEST_F(Api, BadRecipesNameThePosition)
{
    const std::map<std::string, int> positions = {
        {"", 1},
        {"threshhold", 1},
        {"Dense", 1},
        {" dense", 1},
        {"dense ", 1},
        {"dense:density=0.1", 7},
        {"threshold:", 11},
        {"threshold:density", 11},
        {"threshold:density=", 19},
        {"threshold:density=0", 19},
        {"threshold:density=-0.1", 19},
        {"threshold:density=1.01", 19},
        {"threshold:density=nan", 19},
        {"threshold:density=inf", 19},
        {"threshold:density=0.1x", 19},
        {"threshold:density= 0.1", 19},
        {"threshold:density=0.1,", 23},
        {"threshold:density=0.1,density=0.2", 23},
        {"threshold:density=0.1,valu=f32", 23},
        {"threshold:density=0.1,value=f8", 29},
        {"threshold:density=0.1,value=sign", 29},
        {"threshold:beta=0.1", 11},
        {"terngrad:bucket=128", 17},
        {"qsgd:levels=128", 13},
        {"qsgd:levels=0", 13},
        {"topk:k=0", 8},
        {"topk:exchange=sparse", 15},
        {"ef-sign:twoway=2", 16},
        {"ef21:select=topp", 13},
        {"ef21:first=half", 12},
        {"diana:lambda=0", 14},
        {"dgc:momentum=1", 14},
        {"dgc:warmup=1.5", 12},
        {"gdsec:beta=0", 12},
        {"gdsec:xi=-1", 10},
        {"gdsec:ec=yes", 10},
        {"gdsec:twoway=1,select=topk", 16},
        {"lag-wk:window=33", 15},
        {"lag-wk:window=0", 15},
        {"lag-wk:twoway=1", 8},
        {"cdadam:twoway=1", 8},
        {"tng:reference=zero+", 15},
        {"tng:reference=next", 15},
        {"tng:mode=sum", 10},
        {"tng:search=all", 12},
        {"tng:ema=0", 9},
        {"threshold:k=4", 11},
        {"threshold:tau=-1,capacity=0.1", 15},
        {"threshold:tau=1,capacity=0", 26},
        {"threshold:tau=1,capacity=2", 26},
        {"chunk-topk:k=0", 14},
        {"chunk-topk:k=1.5", 14},
        {"chunk-topk:k=-1", 14},
        {"chunk-topk:density=0.1", 12},
        {"gspar:tau=1", 7},
        {"randk:k=1", 7},
        {"randk:density=0.1,,value=f32", 19},
        {"gspar:density=0.1;value=f32", 15},
    };
    for (const auto &[text, position] : positions)
        expectRefused(config(text.c_str()), GS_ERROR_INVALID_RECIPE, "position " + std::to_string(position) + ":");
}

TEST_F(Api, RecipesThatCannotWorkSayWhy)
{
    expectRefused(config("threshold:tau=1"), GS_ERROR_INVALID_RECIPE, "capacity");
    expectRefused(config("threshold:tau=1,density=0.1,capacity=1"), GS_ERROR_INVALID_RECIPE, "tau");
    for (const char *text : {"threshold:value=shared", "chunk-topk:value=shared", "randk:value=shared"})
        expectRefused(config(text), GS_ERROR_INVALID_RECIPE, "share");
    expectRefused(config("chunk-topk:k=4097"), GS_ERROR_INVALID_RECIPE, "4096");
    expectRefused(config("threshold:rms=1"), GS_ERROR_INVALID_RECIPE, "capacity");
    expectRefused(config("gspar:epsilon=1"), GS_ERROR_INVALID_RECIPE, "capacity");
    expectRefused(config("gspar:epsilon=1,density=0.1,capacity=1"), GS_ERROR_INVALID_RECIPE, "epsilon");
    expectRefused(config("topk:k=3,density=0.1"), GS_ERROR_INVALID_RECIPE, "density");
    expectRefused(config("topk:value=levels"), GS_ERROR_INVALID_RECIPE, "gdsec");
    expectRefused(config("gdsec:levels=3"), GS_ERROR_INVALID_RECIPE, "value=levels");
    expectRefused(config("diana:select=topk"), GS_ERROR_INVALID_RECIPE, "unbiased");
    expectRefused(config("ef21:select=gspar"), GS_ERROR_INVALID_RECIPE, "contractive");
    expectRefused(config("cdadam:select=ternary"), GS_ERROR_INVALID_RECIPE, "contractive");
    expectRefused(config("dgc:select=sign"), GS_ERROR_INVALID_RECIPE, "momentum");
    expectRefused(config("dgc:select=gspar"), GS_ERROR_INVALID_RECIPE, "momentum");
    expectRefused(config("tng:select=step"), GS_ERROR_INVALID_RECIPE, "gdsec");
    expectRefused(config("tng:reference=zero+last"), GS_ERROR_INVALID_RECIPE, "search");
    expectRefused(config("tng:mode=quotient,search=fit"), GS_ERROR_INVALID_RECIPE, "difference");
    expectRefused(config("tng:mode=quotient,select=topk"), GS_ERROR_INVALID_RECIPE, "unbiased");
    expectRefused(config("tng:reference=snapshot"), GS_ERROR_INVALID_RECIPE, "refresh");
}

TEST_F(Api, LongAndOddRecipesAreSafe)
{
    std::string longest = "threshold:density=0." + std::string(100000, '0') + "1";
    expectRefused(config(longest.c_str()), GS_ERROR_INVALID_RECIPE);
    expectRefused(config("%s%n%s:%n=%s"), GS_ERROR_INVALID_RECIPE);
    expectRefused(config((std::string(5000, 'x')).c_str()), GS_ERROR_INVALID_RECIPE);
}

TEST_F(Api, GoodRecipes)
{
    for (const char *text :
         {"dense", "threshold", "threshold:value=f32", "threshold:capacity=1,tau=0", "chunk-topk",
          "chunk-topk:value=bf16,k=4096", "gspar", "gspar:value=shared,density=1", "randk:density=1e-3"}) {
        gsReducerConfig_t c = config(text);
        EXPECT_EQ(gsReducerCreate(&reducer_, comm_, &c), GS_SUCCESS) << text << ": " << gsGetLastError();
        EXPECT_EQ(gsReducerDestroy(reducer_), GS_SUCCESS);
        reducer_ = nullptr;
    }
}

TEST_F(Api, DefaultsAreTheHeaders)
{
    const std::map<std::string, std::string> same = {
        {"threshold", "threshold:density=0.01,value=bf16"},
        {"chunk-topk", "chunk-topk:k=64,value=bf16"},
        {"gspar", "gspar:density=0.05,value=bf16"},
        {"randk", "randk:density=0.01,value=bf16"},
    };
    for (const auto &[brief, full] : same) {
        Plan plan;
        plan.count = 20000;
        plan.nranks = 1;
        plan.recipe = brief;
        StageRanks one(plan);
        plan.recipe = full;
        StageRanks other(plan);
        Gradients g = makeGradients(Shape::Gaussian, plan, 0);
        Slots a = one.encode(g), b = other.encode(g);
        EXPECT_EQ(std::vector<uint8_t>(a.data(), a.data() + a.bytes()),
                  std::vector<uint8_t>(b.data(), b.data() + b.bytes()))
            << brief;
    }
}

TEST_F(Api, BadCalls)
{
    make("threshold:density=0.5");
    const float *g = g_.data();
    float *out = out_.data();
    auto state = exportState(reducer_);
    auto refused = [&](gsResult_t expected, gsResult_t result) {
        EXPECT_EQ(result, expected) << gsGetLastError();
        EXPECT_EQ(out_, std::vector<float>(100, -7.0f));
        EXPECT_EQ(exportState(reducer_), state);
    };
    refused(GS_ERROR_INVALID_ARGUMENT, gsAllReduce(g, out, 100, GS_FLOAT32, GS_SUM, nullptr, nullptr));
    refused(GS_ERROR_INVALID_ARGUMENT, gsAllReduce(nullptr, out, 100, GS_FLOAT32, GS_SUM, reducer_, nullptr));
    refused(GS_ERROR_INVALID_ARGUMENT, gsAllReduce(g, nullptr, 100, GS_FLOAT32, GS_SUM, reducer_, nullptr));
    refused(GS_ERROR_INVALID_ARGUMENT, gsAllReduce(g, out, 99, GS_FLOAT32, GS_SUM, reducer_, nullptr));
    refused(GS_ERROR_INVALID_ARGUMENT, gsAllReduce(g, out, 0, GS_FLOAT32, GS_SUM, reducer_, nullptr));
    refused(GS_ERROR_INVALID_ARGUMENT, gsAllReduce(g, out, 100, GS_BFLOAT16, GS_SUM, reducer_, nullptr));
    for (int op : {1, 2, 3, 5, -1})
        refused(GS_ERROR_INVALID_ARGUMENT,
                gsAllReduce(g, out, 100, GS_FLOAT32, static_cast<gsRedOp_t>(op), reducer_, nullptr));
    refused(GS_ERROR_INVALID_ARGUMENT,
            gsAllReduce(reinterpret_cast<const char *>(g) + 1, out, 100, GS_FLOAT32, GS_SUM, reducer_, nullptr));
    EXPECT_EQ(gsAllReduce(g, out, 100, GS_FLOAT32, GS_SUM, reducer_, nullptr), GS_SUCCESS) << gsGetLastError();
}

TEST_F(Api, OverlapThatIsNotInPlaceIsRefused)
{
    make("threshold:density=0.5", 50);
    std::vector<float> before = g_;
    EXPECT_EQ(gsAllReduce(g_.data(), g_.data() + 10, 50, GS_FLOAT32, GS_SUM, reducer_, nullptr),
              GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsAllReduce(g_.data() + 10, g_.data(), 50, GS_FLOAT32, GS_SUM, reducer_, nullptr),
              GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(g_, before);
    EXPECT_EQ(gsAllReduce(g_.data(), g_.data() + 50, 50, GS_FLOAT32, GS_SUM, reducer_, nullptr), GS_SUCCESS);
}

TEST_F(Api, NullBuffersAreFineForNoElements)
{
    make("threshold", 0);
    EXPECT_EQ(gsAllReduce(nullptr, nullptr, 0, GS_FLOAT32, GS_SUM, reducer_, nullptr), GS_SUCCESS) << gsGetLastError();
}

TEST_F(Api, BadReducerCalls)
{
    make("threshold");
    gsStats_t stats;
    gsResult_t error;
    size_t bytes = 0;
    for (float factor : {0.0f, -1.0f, std::numeric_limits<float>::infinity(), std::nanf("")})
        EXPECT_EQ(gsReducerScale(reducer_, factor, nullptr), GS_ERROR_INVALID_ARGUMENT) << factor;
    EXPECT_EQ(gsReducerScale(nullptr, 1.0f, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerReset(nullptr, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerGetStats(nullptr, &stats), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerGetStats(reducer_, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerGetAsyncError(nullptr, &error), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerGetAsyncError(reducer_, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerGetSlotBytes(nullptr, &bytes), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerGetSlotBytes(reducer_, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerExport(reducer_, nullptr, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerExport(nullptr, nullptr, &bytes), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerImport(reducer_, nullptr, 10), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerGetAsyncError(reducer_, &error), GS_SUCCESS);
    EXPECT_EQ(error, GS_SUCCESS);
    std::vector<uint8_t> small(8);
    bytes = small.size();
    EXPECT_EQ(gsReducerExport(reducer_, small.data(), &bytes), GS_ERROR_INVALID_ARGUMENT);
}

TEST_F(Api, BadMemoryQueries)
{
    gsReducerConfig_t c = config("threshold");
    gsMemory_t memory;
    EXPECT_EQ(gsReducerGetMemory(&c, 1, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerGetMemory(nullptr, 1, &memory), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerGetMemory(&c, 0, &memory), GS_ERROR_INVALID_ARGUMENT);
}

TEST_F(Api, StagesAndCollectivesDoNotMix)
{
    make("threshold");
    alignas(16) uint8_t record[64];
    gsComm_t stages = nullptr;
    gsReducer_t reducer = nullptr;
    ASSERT_EQ(gsCommInitStages(&stages, 0, 1, nullptr), GS_SUCCESS);
    gsReducerConfig_t c = config("threshold");
    ASSERT_EQ(gsReducerCreate(&reducer, stages, &c), GS_SUCCESS) << gsGetLastError();
    EXPECT_EQ(gsAllReduce(g_.data(), out_.data(), 100, GS_FLOAT32, GS_SUM, reducer, nullptr), GS_ERROR_INVALID_USAGE);
    size_t bytes = 0;
    ASSERT_EQ(gsReducerGetSlotBytes(reducer, &bytes), GS_SUCCESS);
    Slots slots(1, bytes);
    EXPECT_EQ(gsDecode(slots.data(), out_.data(), 100, GS_FLOAT32, GS_SUM, reducer, nullptr), GS_ERROR_INVALID_USAGE)
        << "decode must follow encode";
    EXPECT_EQ(gsEncode(g_.data(), nullptr, 100, GS_FLOAT32, reducer, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsEncode(g_.data(), slots.slot(0) + 4, 100, GS_FLOAT32, reducer, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsEncode(g_.data(), slots.slot(0), 99, GS_FLOAT32, reducer, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsEncode(g_.data(), slots.slot(0), 100, GS_FLOAT32, nullptr, nullptr), GS_ERROR_INVALID_ARGUMENT);
    ASSERT_EQ(gsEncode(g_.data(), slots.slot(0), 100, GS_FLOAT32, reducer, nullptr), GS_SUCCESS) << gsGetLastError();
    EXPECT_EQ(gsDecode(nullptr, out_.data(), 100, GS_FLOAT32, GS_SUM, reducer, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsDecode(slots.data(), nullptr, 100, GS_FLOAT32, GS_SUM, reducer, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsDecode(slots.data(), out_.data(), 100, GS_BFLOAT16, GS_SUM, reducer, nullptr),
              GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsDecode(slots.data(), out_.data(), 100, GS_FLOAT32, GS_SUM, reducer, nullptr), GS_SUCCESS)
        << gsGetLastError();
    EXPECT_EQ(gsRecordInspect(nullptr, 64, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsRecordInspect(record, 64, nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerDestroy(reducer), GS_SUCCESS);
    EXPECT_EQ(gsCommDestroy(stages), GS_SUCCESS);
}

TEST_F(Api, DenseHasNoSlot)
{
    make("dense");
    size_t bytes = 1;
    EXPECT_EQ(gsReducerGetSlotBytes(reducer_, &bytes), GS_SUCCESS);
    EXPECT_EQ(bytes, 0u);
}

TEST_F(Api, UnknownInstructionSet)
{
    Environment cpu("GS_CPU", "sparc");
    gsReducerConfig_t c = config("threshold");
    EXPECT_EQ(gsReducerCreate(&reducer_, comm_, &c), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_NE(std::string(gsGetLastError()).find("sparc"), std::string::npos) << gsGetLastError();
    EXPECT_EQ(reducer_, nullptr);
}

TEST_F(Api, StreamArguments)
{
    EXPECT_EQ(gsStreamCreate(nullptr), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsStreamSynchronize(nullptr), GS_SUCCESS) << "the NULL stream has nothing to wait for";
}

/* ---- the caller's allocator ---- */

TEST(Allocator, IsAskedForWhatGetMemoryTells)
{
    for (const Recipe &recipe : allRecipes())
        for (uint64_t count : {0ull, 1ull, 5000ull}) {
            SCOPED_TRACE(recipe.text() + " " + std::to_string(count));
            Plan plan;
            plan.recipe = recipe.text();
            plan.nranks = 1;
            plan.count = count;
            Arena arena;
            gsReducerConfig_t config = configOf(plan, &arena);
            gsMemory_t memory;
            ASSERT_EQ(gsReducerGetMemory(&config, 1, &memory), GS_SUCCESS);
            {
                ThreadRanks ranks(plan, config);
                EXPECT_EQ(arena.total, memory.stateBytes + memory.wireBytes + memory.scratchBytes);
                size_t calls = arena.calls;
                ranks.allReduce(makeGradients(Shape::Gaussian, plan, 0));
                EXPECT_EQ(arena.calls, calls) << "the hot call allocates nothing";
                EXPECT_GE(memory.stateBytes, recipe.feedback() ? 2 * 4 * count : 0);
            }
            EXPECT_TRUE(arena.alive.empty());
        }
}

TEST(Allocator, FailureOfEachAllocationIsCleanedUp)
{
    Plan plan;
    plan.recipe = "gspar:value=shared";
    plan.count = 5000;
    gsComm_t comm = nullptr;
    ASSERT_EQ(gsCommInitAll(&comm, 1, nullptr), GS_SUCCESS);
    for (size_t failAt = 0;; failAt++) {
        Arena arena;
        arena.failAt = failAt;
        gsReducerConfig_t config = configOf(plan, &arena);
        gsReducer_t reducer = nullptr;
        gsResult_t result = gsReducerCreate(&reducer, comm, &config);
        if (result == GS_SUCCESS) {
            EXPECT_GT(failAt, 3u);
            EXPECT_EQ(gsReducerDestroy(reducer), GS_SUCCESS);
            break;
        }
        EXPECT_EQ(result, GS_ERROR_OUT_OF_MEMORY);
        EXPECT_EQ(reducer, nullptr);
        EXPECT_TRUE(arena.alive.empty());
    }
    EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS);
}

TEST(Capacity, DefaultHoldsWhatTheHeaderSays)
{
    for (double density : {0.001, 0.01, 0.3, 1.0})
        for (double count : {1.0, 100.0, 5000.0, 1e6}) {
            Plan plan;
            plan.recipe = randk(density, codingF32).text();
            plan.count = static_cast<uint64_t>(count);
            plan.nranks = 1;
            StageRanks ranks(plan);
            double coordinates = std::min(count, 1.25 * density * count + 6 * std::sqrt(density * count));
            double slots = (static_cast<double>(ranks.slotBytes()) - 80) / 4;
            EXPECT_GE(slots, std::floor(coordinates)) << density << " of " << count;
            EXPECT_LE(slots, coordinates + 7) << density << " of " << count;
            EXPECT_EQ(ranks.slotBytes() % 16, 0u);
        }
}

} // namespace
} // namespace gst
