/*
 * Lists of tensors: one record and one exchange for all of them, small tensors whole beside what is selected of the others. A list whose
 * tensors end with their blocks equals one gradient of the same blocks bit for bit; what else a list does is checked against records
 * read byte by byte.
 */
#include "arena.h"
#include "methods.h"
#include "oracle.h"
#include "tensors.h"

#include <chrono>
#include <map>

namespace gst
{
namespace
{

std::vector<std::string> listRecipes()
{
    std::vector<std::string> recipes;
    for (const std::string &recipe : methodRecipes())
        if (!readsIterate(recipe) && recipe.compare(0, 3, "laq") != 0 && recipe.compare(0, 4, "rows") != 0)
            recipes.push_back(recipe);
    return recipes;
}

std::vector<uint8_t> rawVector(gsReducer_t reducer, const char *name, const Plan &plan)
{
    std::vector<uint8_t> raw(plan.count * bytesOf(stateType(plan.type)));
    if (gsReducerRead(reducer, name, raw.data(), plan.count) != GS_SUCCESS)
        return {};
    return raw;
}

const char *const vectorNames[] = {"residual", "momentum", "memory",          "shared",        "before",       "last",
                                   "ema",      "ema2",     "server.residual", "server.memory", "server.shared"};

/* ---- what is refused ---- */

class Refusals : public testing::Test
{
  protected:
    void SetUp() override
    {
        ASSERT_EQ(gsCommInitAll(&comm_, 1, nullptr), GS_SUCCESS);
    }
    void TearDown() override
    {
        EXPECT_EQ(gsCommDestroy(comm_), GS_SUCCESS);
    }
    /* Of a configuration: the error, and words of its text. */
    void expect(gsResult_t error, const std::string &words, const gsReducerConfig_t &config)
    {
        gsReducer_t reducer = nullptr;
        gsMemory_t memory;
        EXPECT_EQ(gsReducerCreate(&reducer, comm_, &config), error) << words;
        EXPECT_NE(std::string(gsGetLastError()).find(words), std::string::npos) << gsGetLastError();
        EXPECT_EQ(reducer, nullptr);
        EXPECT_EQ(gsReducerGetMemory(&config, 1, &memory), error) << words;
    }

    gsComm_t comm_ = nullptr;
};

TEST_F(Refusals, Configurations)
{
    Plan plan = listOf("threshold", {5000, 100}, 1);
    gsReducerConfig_t good = configOf(plan), config = good;
    config.count = 5101;
    expect(GS_ERROR_INVALID_ARGUMENT, "add up to 5100; expected config->count, 5101", config);
    config.count = 5050;
    expect(GS_ERROR_INVALID_ARGUMENT, "from segment 1 of 100 elements on", config);
    const uint64_t huge[] = {~0ull, 5101};
    config = good;
    config.segments = huge;
    expect(GS_ERROR_INVALID_ARGUMENT, "add up to more than config->count, 5100", config);
    config = good;
    config.segmentCount = 0;
    expect(GS_ERROR_INVALID_ARGUMENT, "config->segmentCount 0; expected both", config);
    config = good;
    config.segments = nullptr;
    expect(GS_ERROR_INVALID_ARGUMENT, "config->segmentCount 2; expected both", config);
    config.segmentCount = 0;
    config.wholeBelow = 7;
    expect(GS_ERROR_INVALID_ARGUMENT, "config->wholeBelow is 7; without", config);
    config = good;
    config.reserved2 = 3;
    expect(GS_ERROR_INVALID_ARGUMENT, "reserved2 is 3", config);
    std::vector<uint64_t> many(65535, 0);
    Plan tooMany = listOf("dense", many, 1);
    expect(GS_ERROR_INVALID_ARGUMENT, "config->segmentCount is 65535; expected at most 65534", configOf(tooMany));
    many.assign(65534, 1u << 30); /* 2^34 blocks, 2^46 elements */
    Plan tooLarge = listOf("dense", many, 1);
    expect(GS_ERROR_INVALID_ARGUMENT, "config->count is", configOf(tooLarge));
}

TEST_F(Refusals, Recipes)
{
    auto refuses = [&](const std::string &recipe, const char *words) {
        const Plan plan = listOf(recipe, {5000, 100}, 1);
        expect(GS_ERROR_UNSUPPORTED, words, configOf(plan));
    };
    for (const char *recipe : {"gdsec", "lag-wk", "lag-ps", "lasg-wk", "laq", "tng:reference=params"})
        refuses(recipe, "looks at iterates");
    refuses("rows:width=50", "rows are those of one matrix");
    for (const char *exchange : {"owner", "owner-exact", "hierarchical", "auto"})
        refuses(std::string("threshold:exchange=") + exchange, "a list of tensors takes exchange=capacity or exact");
}

TEST_F(Refusals, Calls)
{
    Plan plan = listOf("threshold", {5000, 0, 100}, 1);
    gsReducerConfig_t config = configOf(plan);
    gsReducer_t reducer = nullptr, lone = nullptr;
    ASSERT_EQ(gsReducerCreate(&reducer, comm_, &config), GS_SUCCESS) << gsGetLastError();
    Plan plain;
    plain.count = 10;
    gsReducerConfig_t plainConfig = configOf(plain);
    ASSERT_EQ(gsReducerCreate(&lone, comm_, &plainConfig), GS_SUCCESS);
    Tensors send(plan, std::vector<float>(plan.count, 1.0f)), recv(plan);
    std::vector<uint8_t> before = recv.raw();
    const std::vector<void *> from = send.pointers(), to = recv.pointers();
    auto expectError = [&](gsResult_t error, const std::string &words, const void *const *s, void *const *d, uint32_t n,
                           gsDataType_t type, gsRedOp_t op, gsReducer_t r) {
        EXPECT_EQ(gsAllReduceSegments(s, d, n, type, op, r, nullptr), error) << words;
        EXPECT_NE(std::string(gsGetLastError()).find(words), std::string::npos) << gsGetLastError();
        EXPECT_TRUE(recv.raw() == before) << words;
    };
    auto expectBad = [&](const std::string &words, const std::vector<void *> &s, const std::vector<void *> &d) {
        expectError(GS_ERROR_INVALID_ARGUMENT, words, s.data(), d.data(), 3, GS_FLOAT32, GS_SUM, reducer);
    };
    expectError(GS_ERROR_INVALID_ARGUMENT, "reducer is NULL", from.data(), to.data(), 3, GS_FLOAT32, GS_SUM, nullptr);
    expectError(GS_ERROR_INVALID_USAGE, "the reducer is of one gradient", from.data(), to.data(), 3, GS_FLOAT32, GS_SUM,
                lone);
    expectError(GS_ERROR_INVALID_ARGUMENT, "segmentCount is 2; the reducer was made for 3 tensors", from.data(),
                to.data(), 2, GS_FLOAT32, GS_SUM, reducer);
    expectError(GS_ERROR_INVALID_ARGUMENT, "datatype is 9", from.data(), to.data(), 3, GS_BFLOAT16, GS_SUM, reducer);
    expectError(GS_ERROR_INVALID_ARGUMENT, "op is 1", from.data(), to.data(), 3, GS_FLOAT32, static_cast<gsRedOp_t>(1),
                reducer);
    expectError(GS_ERROR_INVALID_ARGUMENT, "recvbuffs 0x", nullptr, to.data(), 3, GS_FLOAT32, GS_SUM, reducer);
    std::vector<void *> bad = from;
    bad[2] = nullptr;
    expectBad("sendbuffs[2] is NULL", bad, to);
    expectBad("recvbuffs[2] is NULL", from, bad);
    bad[2] = static_cast<char *>(from[2]) + 2;
    expectBad("sendbuffs[2] is 0x", bad, to);
    bad[2] = static_cast<char *>(to[2]) + 4;
    expectBad("sendbuff 0x", bad, to);
    bad = to;
    bad[2] = static_cast<char *>(to[0]) + 4 * 4999;
    expectBad("recvbuffs[0] 0x", from, bad);
    bad[0] = to[2], bad[2] = to[2];
    expectBad("overlap; expected them apart", from, bad);
    gsParams_t params = GS_PARAMS_INIT;
    params.params = from[0];
    EXPECT_EQ(gsReducerSetParams(reducer, &params), GS_ERROR_UNSUPPORTED);
    EXPECT_EQ(gsReducerDestroy(reducer), GS_SUCCESS);
    EXPECT_EQ(gsReducerDestroy(lone), GS_SUCCESS);
}

/* Ranks whose lists differ in a size, or in what travels whole, all hear of it. */
TEST(Lists, RanksMustAgree)
{
    const std::vector<std::vector<uint64_t>> others = {{5000, 100}, {5100}, {4999, 101}};
    for (uint64_t below : {0ull, 100ull})
        for (const std::vector<uint64_t> &sizes : others) {
            gsComm_t comms[2];
            gsResult_t results[2];
            std::string texts[2];
            ASSERT_EQ(gsCommInitAll(comms, 2, nullptr), GS_SUCCESS);
            bool same = sizes == others[0] && below == 0;
            parallel(2, [&](int r) {
                Plan plan = r ? listOf("ef-sign", sizes, 2, GS_FLOAT32, below) : listOf("ef-sign", {5000, 100}, 2);
                gsReducerConfig_t config = configOf(plan);
                gsReducer_t reducer = nullptr;
                results[r] = gsReducerCreate(&reducer, comms[r], &config);
                texts[r] = gsGetLastError();
                EXPECT_EQ(gsReducerDestroy(reducer), GS_SUCCESS);
            });
            for (int r = 0; r < 2; r++) {
                EXPECT_EQ(results[r], same ? GS_SUCCESS : GS_ERROR_MISMATCH);
                EXPECT_TRUE(same || texts[r].find("another list of tensors") != std::string::npos) << texts[r];
                EXPECT_EQ(gsCommDestroy(comms[r]), GS_SUCCESS);
            }
        }
}

/* ---- a list is one gradient of the same blocks ---- */

using ListMethods = testing::TestWithParam<std::string>;

/* Steps of both must leave the same bits. `padded` is the place of each element in the lone gradient. */
void expectSameSteps(const Plan &list, const Plan &lone, const std::vector<uint64_t> &padded, bool stats)
{
    ThreadRanks ours(list), theirs(lone);
    size_t width = bytesOf(list.type), state = bytesOf(stateType(list.type));
    for (uint64_t step = 0; step < 3; step++) {
        Gradients g = makeGradients(Shape::Skewed, list, step);
        Gradients spread(g.size(), std::vector<float>(lone.count, 0.0f));
        for (size_t r = 0; r < g.size(); r++)
            for (uint64_t i = 0; i < list.count; i++)
                spread[r][padded[i]] = g[r][i];
        Results found = reduceList(ours, g, step % 2, 3), expected = theirs.allReduce(spread);
        for (size_t r = 0; r < g.size(); r++)
            for (uint64_t i = 0; i < list.count; i++)
                ASSERT_EQ(std::memcmp(&found[r][width * i], &expected[r][width * padded[i]], width), 0)
                    << "element " << i << " of rank " << r << " in step " << step;
    }
    for (int r = 0; r < list.nranks; r++) {
        for (const char *name : vectorNames) {
            std::vector<uint8_t> found = rawVector(ours.reducer(r), name, list),
                                 expected = rawVector(theirs.reducer(r), name, lone);
            ASSERT_EQ(found.empty(), expected.empty()) << name;
            for (uint64_t i = 0; i < list.count && !found.empty(); i++)
                ASSERT_EQ(std::memcmp(&found[state * i], &expected[state * padded[i]], state), 0) << name << " " << i;
        }
        if (!stats)
            continue;
        gsStats_t found = ours.stats(r), expected = theirs.stats(r);
        EXPECT_EQ(found.keptTotal, expected.keptTotal);
        EXPECT_EQ(found.sentTotal, expected.sentTotal);
        EXPECT_EQ(found.tau, expected.tau);
        EXPECT_EQ(found.overflowed + found.thinned, expected.overflowed + expected.thinned);
    }
}

std::vector<uint64_t> placesOf(const std::vector<uint64_t> &sizes)
{
    std::vector<uint64_t> places;
    uint64_t begin = 0;
    for (uint64_t n : sizes) {
        for (uint64_t i = 0; i < n; i++)
            places.push_back(begin + i);
        begin += (n + 4095) / 4096 * 4096;
    }
    return places;
}

TEST_P(ListMethods, WholeBlocksEqualOneGradient)
{
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64, GS_BFLOAT16, GS_FLOAT16}) {
        SCOPED_TRACE(type);
        Plan list = listOf(GetParam(), {8192, 4096, 0, 12288}, 2, type, 1), lone = list;
        lone.segments.clear();
        lone.wholeBelow = 0;
        list.op = lone.op = type == GS_FLOAT32 ? GS_SUM : GS_AVG;
        ASSERT_NO_FATAL_FAILURE(expectSameSteps(list, lone, placesOf(list.segments), true));
    }
}

/* Where neither a count nor a block's length enters, tensors of any size equal their blocks filled up with zeros. */
TEST(Lists, EqualTheSameBlocksFilledUpWithZeros)
{
    for (const char *recipe :
         {"threshold:tau=0.5,capacity=1", "topk:k=300", "topk:k=300,value=2bit", "gspar:epsilon=0.5,capacity=1",
          "gspar:epsilon=3,value=shared,capacity=1", "randk:density=0.2,capacity=1",
          "uniform:density=0.2,capacity=1,value=f32", "terngrad", "terngrad:bucket=all", "qsgd:levels=5", "natural",
          "identity", "identity:value=bf16", "ef21:select=topk,k=200", "clag:k=100", "diana:lambda=0.25",
          "tng:reference=last+ema,search=worker", "dgc:k=200", "topk:k=100,twoway=1"}) {
        SCOPED_TRACE(recipe);
        Plan list = listOf(recipe, mixedSizes(), 2, GS_FLOAT32, 1), lone = list;
        lone.segments.clear();
        lone.wholeBelow = 0;
        lone.count = 0;
        for (uint64_t n : list.segments)
            lone.count += (n + 4095) / 4096 * 4096;
        ASSERT_NO_FATAL_FAILURE(expectSameSteps(list, lone, placesOf(list.segments), false));
    }
}

/* A call on one buffer in which the tensors stand one behind the other is the same call. */
TEST_P(ListMethods, TensorsOneBehindTheOther)
{
    Plan plan = listOf(GetParam(), mixedSizes(), 2);
    ThreadRanks apart(plan), together(plan);
    for (uint64_t step = 0; step < 3; step++) {
        Gradients g = makeGradients(Shape::Gaussian, plan, step);
        ASSERT_EQ(reduceList(apart, g, step == 1), together.allReduce(g, step == 2, 1)) << step;
        ASSERT_EQ(apart.states(), together.states());
    }
    EXPECT_EQ(apart.stats(0).calls, 3u) << "one exchange a call";
    expectSameStats(apart.stats(1), together.stats(1));
}

TEST_P(ListMethods, SameBitsOnEveryInstructionSetAndNumberOfThreads)
{
    Plan plan = listOf(GetParam(), mixedSizes(), 2, GS_BFLOAT16);
    Results first;
    std::vector<std::vector<uint8_t>> states;
    for (const char *isa : instructionSets())
        for (int threads : {1, 3}) {
            Environment environment("GS_CPU", isa);
            plan.cpuThreads = threads;
            ThreadRanks ranks(plan);
            Results results;
            for (uint64_t step = 0; step < 3; step++)
                results = reduceList(ranks, makeGradients(Shape::Skewed, plan, step));
            ASSERT_EQ(results[0], results[1]);
            if (first.empty())
                first = results, states = ranks.states();
            ASSERT_EQ(results, first) << isa << " " << threads;
            ASSERT_EQ(ranks.states(), states) << isa << " " << threads;
        }
}

/* ---- records ---- */

/* How a whole tensor's values are coded. */
uint32_t wholeCodingOf(gsDataType_t type, uint32_t coding)
{
    if (coding == codingF32 || coding == codingBf16 || coding == codingF64 || coding == codingF16)
        return coding;
    return type == GS_FLOAT64 ? codingF64 : type == GS_FLOAT32 ? codingF32 : codingBf16;
}

double roundedAs(uint32_t coding, double x, float scale)
{
    switch (coding) {
    case codingF64: return x;
    case codingF32: return static_cast<float>(x);
    case codingF16: return roundTo(GS_FLOAT16, static_cast<float>(x) * scale) / scale;
    default: return roundTo(GS_BFLOAT16, static_cast<float>(x));
    }
}

uint32_t levelsOf(const std::string &recipe)
{
    size_t at = recipe.find("levels=");
    return at == std::string::npos ? 127 : static_cast<uint32_t>(std::stoul(recipe.substr(at + 7)));
}

/* The first step, of records alone: what is remembered is 0 then, and C(a) summed is the result. */
class ListRecords : public testing::TestWithParam<std::string>
{
  protected:
    void check(gsDataType_t type)
    {
        Plan plan = listOf(GetParam(), mixedSizes(), 3, type);
        StageRanks ranks(plan);
        Gradients g = makeGradients(Shape::Gaussian, plan, 4);
        Slots slots = ranks.encode(g);
        Vector sum(plan.count, 0.0);
        for (int r = 0; r < plan.nranks; r++) {
            Record record = readRecord(slots.slot(r), slots.slotBytes(), {{}, levelsOf(GetParam())});
            ASSERT_EQ(record.problem, "");
            ASSERT_EQ(record.tensors, mixedSizes().size());
            checkInspected(slots.slot(r), slots.slotBytes(), record);
            checkWhole(record, type, g[static_cast<size_t>(r)]);
            for (const std::vector<Coordinate> *part : {&record.whole, &record.coordinates})
                for (const Coordinate &c : *part)
                    sum[c.index] = type == GS_FLOAT64 ? sum[c.index] + c.value
                                                      : static_cast<float>(sum[c.index]) + static_cast<float>(c.value);
        }
        Results results = ranks.decode(slots);
        bool plain = GetParam().find("randk") == std::string::npos; /* the reader knows no mask */
        Vector found = doublesOf(results[0], type);
        for (uint64_t i = 0; i < plan.count && plain; i++)
            ASSERT_EQ(found[i], roundTo(type, sum[i])) << "element " << i;
        for (int r = 0; r < plan.nranks; r++) {
            ASSERT_EQ(results[static_cast<size_t>(r)], results[0]);
            gsStats_t stats = ranks.stats(r);
            Record record = readRecord(slots.slot(r), slots.slotBytes());
            EXPECT_EQ(stats.lastSent, record.kept + record.whole.size());
            EXPECT_EQ(stats.payloadBytes, record.bytes);
        }
    }
    void checkInspected(const uint8_t *bytes, size_t room, const Record &record)
    {
        gsRecordInfo_t info;
        ASSERT_EQ(gsRecordInspect(bytes, room, &info), GS_SUCCESS) << gsGetLastError();
        EXPECT_EQ(info.tensors, record.tensors);
        EXPECT_EQ(info.whole, record.whole.size());
        EXPECT_EQ(info.kept, record.kept);
        EXPECT_EQ(info.recordBytes, record.bytes);
        EXPECT_EQ(info.valueBytes, record.valueBytes);
        EXPECT_EQ(info.indexBytes, record.indexBytes);
    }
    /* Every element of every tensor below 4096 elements, coded as it should be. */
    void checkWhole(const Record &record, gsDataType_t type, const std::vector<float> &g)
    {
        uint64_t element = 0, at = 0;
        ASSERT_EQ(record.wholeCoding, wholeCodingOf(type, record.coding));
        for (uint64_t n : mixedSizes()) {
            for (uint64_t i = 0; i < n && n < 4096; i++, at++) {
                ASSERT_LT(at, record.whole.size());
                double x = static_cast<double>(g[element + i]), found = record.whole[at].value;
                ASSERT_EQ(record.whole[at].index, element + i);
                double slack = record.wholeCoding == codingBf16  ? 0x1p-7
                               : record.wholeCoding == codingF16 ? 0x1p-10
                                                                 : 0;
                if (type == GS_FLOAT32 && found == roundedAs(record.wholeCoding, x, record.scale))
                    continue; /* to nearest, or by chance */
                ASSERT_LE(std::fabs(found - x), slack * std::fabs(x)) << "element " << element + i;
            }
            element += n;
        }
        ASSERT_EQ(at, record.whole.size());
    }
};

TEST_P(ListRecords, ReadByteByByte)
{
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64, GS_BFLOAT16, GS_FLOAT16}) {
        SCOPED_TRACE(type);
        ASSERT_NO_FATAL_FAILURE(check(type));
    }
}

/* Those that send what the gradient itself is, in their first step. */
std::vector<std::string> recordRecipes()
{
    std::vector<std::string> recipes;
    for (const std::string &recipe : listRecipes()) {
        bool plain = hasStages(recipe);
        for (const char *word : {"quotient", "mean", "clip", "nu="})
            plain = plain && recipe.find(word) == std::string::npos;
        if (plain)
            recipes.push_back(recipe);
    }
    recipes.push_back("gspar:value=shared,density=0.9,capacity=1"); /* a map */
    return recipes;
}

INSTANTIATE_TEST_SUITE_P(Lists, ListMethods, testing::ValuesIn(listRecipes()),
                         [](const auto &p) { return std::to_string(p.index) + "_" + nameOf(p.param); });
INSTANTIATE_TEST_SUITE_P(Lists, ListRecords, testing::ValuesIn(recordRecipes()),
                         [](const auto &p) { return std::to_string(p.index) + "_" + nameOf(p.param); });

/* ---- whole tensors ---- */

/* What rounding takes from them stays in the residual, and travels next time. */
TEST(WholeTensors, NothingIsLost)
{
    Plan plan = listOf("threshold:density=0.05", {5000, 700, 33}, 1);
    StageRanks ranks(plan);
    std::vector<float> e(plan.count, 0.0f);
    for (uint64_t step = 0; step < 4; step++) {
        Gradients g = makeGradients(Shape::Gaussian, plan, step);
        Slots slots = ranks.encode(g);
        Results results = ranks.decode(slots);
        std::vector<float> sent = numbersOf(results[0], GS_FLOAT32);
        std::vector<uint8_t> residual = rawVector(ranks.reducer(0), "residual", plan);
        for (uint64_t i = 5000; i < plan.count; i++) {
            float a = g[0][i] + e[i];
            ASSERT_EQ(sent[i], static_cast<float>(roundTo(GS_BFLOAT16, static_cast<double>(a)))) << i;
            ASSERT_EQ(readAt<float>(residual.data(), 4 * i), a - sent[i]) << i;
        }
        e = numbersOf(residual, GS_FLOAT32);
    }
}

/* dgc: their momentum is plain momentum, since nothing of them waits. */
TEST(WholeTensors, MomentumGoesOn)
{
    Plan plan = listOf("dgc:density=0.05,momentum=0.5,value=f32", {5000, 700}, 1);
    ThreadRanks ranks(plan);
    std::vector<float> u(plan.count, 0.0f);
    for (uint64_t step = 0; step < 4; step++) {
        Gradients g = makeGradients(Shape::Gaussian, plan, step);
        std::vector<float> sent = numbersOf(reduceList(ranks, g)[0], GS_FLOAT32);
        for (uint64_t i = 5000; i < plan.count; i++) {
            u[i] = 0.5f * u[i] + g[0][i];
            ASSERT_EQ(sent[i], u[i]) << i;
        }
    }
}

/* Without a residual rounding is by chance, and right in the mean. */
TEST(WholeTensors, RoundingHasNoBias)
{
    enum { STEPS = 400 };
    Plan plan = listOf("gspar:density=0.2", {5000, 500}, 1);
    ThreadRanks ranks(plan);
    Gradients g = makeGradients(Shape::Gaussian, plan, 1);
    Vector mean(plan.count, 0.0);
    uint64_t rounded = 0;
    for (int step = 0; step < STEPS; step++) {
        std::vector<float> sent = numbersOf(reduceList(ranks, g)[0], GS_FLOAT32);
        for (uint64_t i = 5000; i < plan.count; i++) {
            mean[i] += static_cast<double>(sent[i]) / STEPS;
            rounded += sent[i] != static_cast<float>(roundTo(GS_BFLOAT16, static_cast<double>(g[0][i])));
        }
    }
    EXPECT_GT(rounded, 1000u) << "always to nearest";
    for (uint64_t i = 5000; i < plan.count; i++) {
        double x = static_cast<double>(g[0][i]), ulp = std::ldexp(1.0, std::ilogb(x) - 7);
        ASSERT_NEAR(mean[i], x, 6 * 0.5 * ulp / std::sqrt(static_cast<double>(STEPS))) << i;
    }
}

/* Densities and capacities are the others'; a list of small tensors alone is the plain sum. */
TEST(WholeTensors, DoNotCount)
{
    Plan list = listOf("topk:density=0.01,value=f32", {100000, 3000, 4000, 3000}, 1);
    ThreadRanks ranks(list);
    reduceList(ranks, makeGradients(Shape::Gaussian, list, 0));
    EXPECT_EQ(ranks.stats(0).lastKept, 1000u + 10000u);

    for (const char *recipe : {"threshold:value=f32", "gspar:value=shared", "ef-sign", "chunk-topk:value=f32",
                               "randk:value=f32", "tng", "ef21:value=f32"}) {
        Plan small = listOf(recipe, {100, 0, 4095, 7}, 3);
        ThreadRanks alone(small);
        Gradients g = makeGradients(Shape::Gaussian, small, 0);
        std::vector<float> sum = numbersOf(reduceList(alone, g)[0], GS_FLOAT32);
        for (uint64_t i = 0; i < small.count; i++)
            ASSERT_EQ(sum[i], g[0][i] + g[1][i] + g[2][i]) << recipe << " " << i;
        EXPECT_EQ(alone.stats(0).lastSent, small.count);
    }
}

/* ---- contracts ---- */

/* A NaN in a small tensor or a large one is NaN in all of both, and changes no state. */
TEST_P(ListMethods, NonFinite)
{
    Plan plan = listOf(GetParam(), mixedSizes(), 2);
    ThreadRanks ranks(plan);
    reduceList(ranks, makeGradients(Shape::Gaussian, plan, 0));
    std::vector<std::vector<uint8_t>> states = ranks.states();
    uint64_t seen = 0;
    for (uint64_t at : {uint64_t{3}, uint64_t{5001}, plan.count - 1})
        for (float bad : {INFINITY, NAN}) {
            Gradients g = makeGradients(Shape::Gaussian, plan, 1);
            g[1][at] = bad;
            Results results = reduceList(ranks, g, at == 3);
            ASSERT_TRUE(allNaN(results[0], plan.type) && results[0] == results[1]) << at;
            ASSERT_EQ(ranks.states(), states) << at;
            EXPECT_EQ(ranks.stats(0).nonFinite, ++seen);
        }
    Results results = reduceList(ranks, makeGradients(Shape::Gaussian, plan, 2));
    EXPECT_FALSE(allNaN(results[0], plan.type));
}

/* A rank that is late: an error for all, nothing has changed anywhere, and the call can be made again. */
TEST_P(ListMethods, DeadlineLeavesEverything)
{
    Plan plan = listOf(GetParam(), {5000, 77, 4096}, 2);
    plan.timeoutMs = 30;
    ThreadRanks ranks(plan);
    Plan patient = plan;
    patient.timeoutMs = 20000;
    ThreadRanks undisturbed(patient);
    Gradients g = makeGradients(Shape::Gaussian, plan, 0);
    std::vector<std::vector<uint8_t>> states = ranks.states();
    Tensors inPlace(plan, g[0]);
    std::vector<uint8_t> before = inPlace.raw();
    ASSERT_EQ(reduceTensors(plan, ranks.reducer(0), inPlace.pointers(), inPlace.pointers()), GS_ERROR_TIMEOUT);
    EXPECT_TRUE(inPlace.raw() == before);
    EXPECT_EQ(ranks.states(), states);
    Tensors other(plan, g[1]);
    ASSERT_EQ(reduceTensors(plan, ranks.reducer(1), other.pointers(), other.pointers()), GS_ERROR_TIMEOUT);
    for (int attempt = 0; attempt < 200; attempt++) { /* a slow machine may be late again */
        Results results(2);
        gsResult_t found[2];
        parallel(2, [&](int r) {
            Tensors tensors(plan, g[static_cast<size_t>(r)]);
            found[r] = reduceTensors(plan, ranks.reducer(r), tensors.pointers(), tensors.pointers());
            results[static_cast<size_t>(r)] = tensors.raw();
        });
        if (found[0] != GS_SUCCESS || found[1] != GS_SUCCESS)
            continue;
        EXPECT_EQ(results, reduceList(undisturbed, g));
        EXPECT_EQ(ranks.states(), undisturbed.states());
        return;
    }
    FAIL() << "never in time";
}

TEST_P(ListMethods, ExportGoesOn)
{
    Plan plan = listOf(GetParam(), mixedSizes(), 2);
    ThreadRanks whole(plan), second(plan);
    for (uint64_t step = 0; step < 3; step++)
        reduceList(whole, makeGradients(Shape::Gaussian, plan, step));
    for (int r = 0; r < 2; r++) {
        std::vector<uint8_t> state = whole.state(r);
        ASSERT_EQ(gsReducerImport(second.reducer(r), state.data(), state.size()), GS_SUCCESS) << gsGetLastError();
    }
    Gradients g = makeGradients(Shape::Gaussian, plan, 3);
    EXPECT_EQ(reduceList(whole, g), reduceList(second, g));
    EXPECT_EQ(whole.states(), second.states());

    std::vector<uint64_t> others = mixedSizes();
    std::swap(others[0], others[1]);
    Plan other = listOf(GetParam(), others, 2);
    ThreadRanks strangers(other);
    std::vector<uint8_t> state = whole.state(0);
    EXPECT_EQ(gsReducerImport(strangers.reducer(0), state.data(), state.size()), GS_ERROR_MISMATCH);

    ThreadRanks three(listOf(GetParam(), mixedSizes(), 3)); /* of two ranks, into three */
    std::vector<std::vector<uint8_t>> states = whole.states();
    const void *pointers[] = {states[0].data(), states[1].data()};
    const size_t bytes[] = {states[0].size(), states[1].size()};
    for (int r = 0; r < 3; r++)
        ASSERT_EQ(gsReducerImportRanks(three.reducer(r), pointers, bytes, 2, nullptr, 0), GS_SUCCESS)
            << gsGetLastError();
    for (const char *name : {"memory", "residual"})
        for (int r = 0; r < 2; r++)
            EXPECT_EQ(rawVector(three.reducer(r), name, plan), rawVector(whole.reducer(r), name, plan)) << name;
    Results results = reduceList(three, makeGradients(Shape::Gaussian, three.plan(), 4));
    EXPECT_TRUE(results[0] == results[1] && results[0] == results[2]);

    for (int r = 0; r < 2; r++)
        ASSERT_EQ(gsReducerReset(second.reducer(r), nullptr), GS_SUCCESS);
    EXPECT_EQ(second.states(), ThreadRanks(plan).states());
}

/* A residual in units that change: all of it, and none of it twice. */
TEST(Lists, Scale)
{
    Plan plan = listOf("threshold:density=0.05,value=f32", mixedSizes(), 1);
    ThreadRanks ranks(plan);
    reduceList(ranks, makeGradients(Shape::Gaussian, plan, 0));
    std::vector<float> before = numbersOf(rawVector(ranks.reducer(0), "residual", plan), GS_FLOAT32);
    ASSERT_EQ(gsReducerScale(ranks.reducer(0), 4.0f, nullptr), GS_SUCCESS);
    std::vector<float> after = numbersOf(rawVector(ranks.reducer(0), "residual", plan), GS_FLOAT32);
    for (uint64_t i = 0; i < plan.count; i++)
        ASSERT_EQ(after[i], 4.0f * before[i]) << i;
}

/* dense and the kill switch: the rank-ordered sum, in every type. */
TEST(Lists, DenseSum)
{
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64, GS_BFLOAT16, GS_FLOAT16})
        for (bool disabled : {false, true}) {
            std::unique_ptr<Environment> environment(disabled ? new Environment("GS_DISABLE", "1") : nullptr);
            Plan plan = listOf(disabled ? "threshold" : "dense", mixedSizes(), 3, type);
            Plan lone = plan;
            lone.segments.clear();
            plan.op = lone.op = GS_AVG;
            ThreadRanks ranks(plan), one(lone);
            for (uint64_t step = 0; step < 2; step++) {
                Gradients g = makeGradients(Shape::Gaussian, plan, step);
                EXPECT_EQ(reduceList(ranks, g, step, step), one.allReduce(g));
            }
            Gradients g = makeGradients(Shape::Gaussian, plan, 2);
            g[2][plan.count - 1] = NAN;
            EXPECT_TRUE(allNaN(reduceList(ranks, g)[1], type));
            EXPECT_EQ(ranks.stats(0).wireBytes, one.stats(0).wireBytes / 2 * 3);
            EXPECT_EQ(disabled ? ranks.stats(0).bypassed : ranks.stats(0).dense, 3u);
        }
}

/* ---- llm.c's pattern: a reducer a layer, called as the backward pass goes, bf16, in place, averaged ---- */

TEST(Lists, ReducersOfLayersOnOneCommunicator)
{
    enum { LAYERS = 4, RANKS = 2 };
    const uint64_t w = 48;
    std::vector<uint64_t> sizes = {w, w, 3 * w * w, 3 * w, w * w, w, w, w, 4 * w * w, 4 * w, 4 * w * w, w};
    Plan plan = listOf("chunk-topk:k=64", sizes, RANKS, GS_BFLOAT16);
    plan.op = GS_AVG;
    Results apart[LAYERS], together[LAYERS];
    for (int layer = 0; layer < LAYERS; layer++) {
        ThreadRanks ranks(plan);
        for (uint64_t step = 0; step < 3; step++)
            apart[layer] =
                reduceList(ranks, makeGradients(Shape::Gaussian, plan, 10 * step + static_cast<uint64_t>(layer)), true);
        together[layer].resize(RANKS);
    }
    gsComm_t comms[RANKS];
    ASSERT_EQ(gsCommInitAll(comms, RANKS, nullptr), GS_SUCCESS);
    parallel(RANKS, [&](int r) {
        gsReducer_t reducers[LAYERS];
        gsStream_t stream = nullptr;
        gsReducerConfig_t config = configOf(plan);
        EXPECT_EQ(gsStreamCreate(&stream), GS_SUCCESS);
        for (gsReducer_t &reducer : reducers)
            EXPECT_EQ(gsReducerCreate(&reducer, comms[r], &config), GS_SUCCESS) << gsGetLastError();
        for (uint64_t step = 0; step < 3; step++) {
            std::vector<Tensors> layers;
            for (uint64_t layer = 0; layer < LAYERS; layer++) {
                layers.emplace_back(plan,
                                    makeGradients(Shape::Gaussian, plan, 10 * step + layer)[static_cast<size_t>(r)]);
            }
            for (int layer = LAYERS - 1; layer >= 0; layer--) {
                std::vector<void *> pointers = layers[static_cast<size_t>(layer)].pointers();
                EXPECT_EQ(reduceTensors(plan, reducers[layer], pointers, pointers, stream), GS_SUCCESS)
                    << gsGetLastError();
                std::fill(pointers.begin(), pointers.end(), nullptr); /* the arrays are the caller's again */
            }
            EXPECT_EQ(gsStreamSynchronize(stream), GS_SUCCESS) << gsGetLastError();
            for (size_t layer = 0; layer < LAYERS; layer++)
                together[layer][static_cast<size_t>(r)] = layers[layer].raw();
        }
        EXPECT_EQ(gsStreamDestroy(stream), GS_SUCCESS);
        for (gsReducer_t reducer : reducers)
            EXPECT_EQ(gsReducerDestroy(reducer), GS_SUCCESS);
    });
    for (int layer = 0; layer < LAYERS; layer++)
        EXPECT_EQ(together[layer], apart[layer]) << "layer " << layer;
    for (gsComm_t comm : comms)
        EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS);
}

/* GPT-2's 148 tensors, narrow: one exchange for all of them, and one rank's wire is one slot to each of the others. */
TEST(Lists, OneExchangeForAllOfGpt2)
{
    std::vector<uint64_t> sizes = gpt2Sizes(64, 4000, 64, 12);
    ASSERT_EQ(sizes.size(), 148u);
    Plan plan = listOf("threshold:density=0.01", sizes, 2, GS_BFLOAT16);
    plan.op = GS_AVG;
    ThreadRanks ranks(plan);
    for (uint64_t step = 0; step < 2; step++)
        reduceList(ranks, makeGradients(Shape::Skewed, plan, step), true);
    gsStats_t stats = ranks.stats(0);
    size_t slot = 0;
    ASSERT_EQ(gsReducerGetSlotBytes(ranks.reducer(0), &slot), GS_SUCCESS);
    EXPECT_EQ(stats.calls, 2u);
    EXPECT_EQ(stats.wireBytes, 2 * slot);
    uint64_t small = 0;
    for (uint64_t n : sizes)
        small += n < 4096 ? n : 0;
    EXPECT_GE(stats.lastSent, small);
    EXPECT_LE(slot, 64 + 16 * 149 + 2 * small + 4 * plan.count / 4096 + plan.count / 100 * 5);
}

/* ---- memory ---- */

TEST_P(ListMethods, MemoryIsWhatGetMemoryTells)
{
    Plan plan = listOf(GetParam(), mixedSizes(), 1);
    Arena arena;
    gsReducerConfig_t config = configOf(plan, &arena);
    gsMemory_t memory;
    ASSERT_EQ(gsReducerGetMemory(&config, 1, &memory), GS_SUCCESS);
    {
        ThreadRanks ranks(plan, config);
        EXPECT_EQ(arena.total, memory.stateBytes + memory.wireBytes + memory.scratchBytes);
        size_t calls = arena.calls;
        reduceList(ranks, makeGradients(Shape::Gaussian, plan, 0));
        EXPECT_EQ(arena.calls, calls) << "the hot call allocates nothing";
    }
    EXPECT_TRUE(arena.alive.empty());
    gsComm_t comm = nullptr;
    ASSERT_EQ(gsCommInitAll(&comm, 1, nullptr), GS_SUCCESS);
    for (size_t failAt = 0, calls = arena.calls; failAt < calls; failAt++) {
        Arena poor;
        poor.failAt = failAt;
        config.allocatorContext = &poor;
        gsReducer_t reducer = nullptr;
        EXPECT_EQ(gsReducerCreate(&reducer, comm, &config), GS_ERROR_OUT_OF_MEMORY);
        EXPECT_TRUE(poor.alive.empty());
    }
    EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS);
}

/* ---- records that are not this list's ---- */

class ListStructure : public testing::Test
{
  protected:
    void make(const char *recipe, const std::vector<uint64_t> &sizes)
    {
        plan_ = listOf(recipe, sizes, 1);
        ranks_ = std::make_unique<StageRanks>(plan_);
        slots_ = std::make_unique<Slots>(ranks_->encode(makeGradients(Shape::Gaussian, plan_, 0)));
        record_ = slots_->slot(0);
        good_ = {record_, record_ + slots_->bytes()};
    }
    /* With a right checksum decode refuses it, and inspect too where the record itself is wrong. */
    void expectRefused(const char *what, bool inspectable)
    {
        writeAt(record_, 56, recordChecksum(record_, readAt<uint64_t>(record_, 48)));
        gsRecordInfo_t info;
        Buffer recv(GS_FLOAT32, plan_.count);
        std::vector<uint8_t> before = recv.raw();
        EXPECT_EQ(gsRecordInspect(record_, slots_->bytes(), &info), inspectable ? GS_SUCCESS : GS_ERROR_CORRUPT)
            << what;
        EXPECT_EQ(ranks_->decodeOne(0, *slots_, recv), GS_ERROR_CORRUPT) << what;
        EXPECT_TRUE(recv.raw() == before) << what;
        std::memcpy(record_, good_.data(), good_.size());
    }

    Plan plan_;
    std::unique_ptr<StageRanks> ranks_;
    std::unique_ptr<Slots> slots_;
    uint8_t *record_ = nullptr;
    std::vector<uint8_t> good_;
};

TEST_F(ListStructure, SegmentTables)
{
    make("threshold:density=0.05", {5000, 300, 4096, 0, 300}); /* entries at 80, 96, 112, 128, 144 */
    writeAt<uint64_t>(record_, 80, 4999);
    writeAt<uint64_t>(record_, 112, 4097);
    expectRefused("other sizes that take another block", false);
    writeAt<uint64_t>(record_, 80, 4998);
    writeAt<uint64_t>(record_, 112, 4096);
    writeAt<uint64_t>(record_, 128, 2);
    expectRefused("an element more in an empty tensor", false);
    writeAt<uint64_t>(record_, 96, 301);
    writeAt<uint64_t>(record_, 144, 299);
    expectRefused("other sizes of the same blocks", true);
    writeAt<uint64_t>(record_, 80, 5001);
    expectRefused("an element too many", false);
    writeAt<uint64_t>(record_, 80, ~0ull);
    expectRefused("a size that wraps around", false);
    for (uint32_t kind : {0u, 1u, 256u, 258u, 259u, 260u, 261u, ~0u}) {
        writeAt<uint32_t>(record_, 104, kind);
        expectRefused("another kind of tensor", false);
    }
    writeAt<uint32_t>(record_, 88, 257);
    expectRefused("a large tensor that is said to travel whole", false);
    writeAt<float>(record_, 108, 1.0f);
    expectRefused("a scale where there is none", false);
    for (uint16_t segments : {0, 1, 2, 5, 7, 65535}) {
        writeAt<uint16_t>(record_, 12, segments);
        expectRefused("another number of tensors", false);
    }
}

TEST_F(ListStructure, WholeTensorsHaveNoSlots)
{
    make("threshold:density=0.05,value=f32", {5000, 300, 4096}); /* four blocks; whole values end at 80 + 48 + 1200 */
    uint64_t table = 80 + 48 + 1200;
    uint32_t begin = readAt<uint32_t>(record_, table + 8);
    ASSERT_EQ(begin, readAt<uint32_t>(record_, table + 12)) << "block 2 is the small tensor";
    writeAt<uint32_t>(record_, table + 12, begin + 1);
    expectRefused("a slot in a whole tensor's block", false);
    writeAt<uint32_t>(record_, table + 8, begin - 1);
    expectRefused("a slot of its neighbour's", false);
}

} // namespace
} // namespace gst
