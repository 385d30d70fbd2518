/* The contracts that hold for every recipe, one test each, by name. */
#include "oracle.h"
#include "ranks.h"

namespace gst
{
namespace
{

Plan planOf(const Recipe &recipe, uint64_t count, int nranks, gsDataType_t type = GS_FLOAT32)
{
    Plan plan;
    plan.recipe = recipe.text();
    plan.count = count;
    plan.nranks = nranks;
    plan.type = type;
    return plan;
}

/* The same raw bytes step by step, whatever `ranks` is. */
std::vector<Results> steps(ThreadRanks &ranks, uint64_t first, uint64_t n, Shape shape = Shape::Skewed)
{
    std::vector<Results> all;
    for (uint64_t step = first; step < first + n; step++)
        all.push_back(ranks.allReduce(makeGradients(shape, ranks.plan(), step)));
    return all;
}

std::vector<Results> steps(StageRanks &ranks, uint64_t first, uint64_t n, Shape shape = Shape::Skewed)
{
    std::vector<Results> all;
    for (uint64_t step = first; step < first + n; step++)
        all.push_back(ranks.decode(ranks.encode(makeGradients(shape, ranks.plan(), step))));
    return all;
}

class Contracts : public testing::TestWithParam<std::tuple<size_t, gsDataType_t>>
{
  protected:
    Recipe recipe() const
    {
        return allRecipes()[std::get<0>(GetParam())];
    }
    gsDataType_t type() const
    {
        return std::get<1>(GetParam());
    }
    Plan planOf(uint64_t count, int nranks) const
    {
        return gst::planOf(recipe(), count, nranks, type());
    }
};

/* Not dense: there are records to look into. */
class RecordContracts : public Contracts
{
};

/* There is a residual. */
class FeedbackContracts : public Contracts
{
};

/* There is a residual, and gradients of zeros empty it in a few steps. */
class DrainingContracts : public Contracts
{
};

/* ---- 4: same bits ---- */

TEST_P(Contracts, SameBits)
{
    Plan plan = planOf(30011, 3);
    std::vector<Results> reference;
    for (const char *set : instructionSets())
        for (int threads : {1, 3}) {
            SCOPED_TRACE(testing::Message() << set << ", " << threads << " threads");
            Environment cpu("GS_CPU", set);
            plan.cpuThreads = threads;
            ThreadRanks ranks(plan);
            std::vector<Results> got = steps(ranks, 0, 4);
            if (reference.empty())
                reference = got;
            EXPECT_TRUE(got == reference);
            if (recipe().rule == Rule::Dense)
                continue;
            StageRanks stages(plan);
            EXPECT_TRUE(steps(stages, 0, 4) == reference) << "stages differ from threads";
        }
    for (const Results &results : reference)
        for (const std::vector<uint8_t> &result : results)
            EXPECT_TRUE(result == results[0]) << "ranks differ";
}

/* The sum of float32 values in rank order, bit for bit: order matters where magnitudes do. */
TEST_P(RecordContracts, SumsInRankOrder)
{
    for (gsRedOp_t op : {GS_SUM, GS_AVG}) {
        Plan plan = planOf(9000, 7);
        plan.op = op;
        StageRanks ranks(plan);
        Slots slots = ranks.encode(makeGradients(Shape::Skewed, plan, 0));
        uint64_t sent = readAt<uint64_t>(slots.slot(0), 32);
        Referee referee(recipe(), plan.count, plan.seed, 0);
        std::vector<uint64_t> mask; /* randk: the same on all ranks */
        if (recipe().rule == Rule::Randk)
            for (const Coordinate &c :
                 referee.check(makeGradients(Shape::Skewed, plan, 0)[0], slots.slot(0), slots.slotBytes(), 0)
                     .coordinates)
                mask.push_back(c.index);
        std::vector<float> sum(plan.count, 0.0f);
        for (int r = 0; r < plan.nranks; r++)
            for (const Coordinate &c : readRecord(slots.slot(r), slots.slotBytes(), {mask}).coordinates)
                sum[c.index] += static_cast<float>(c.value);
        ASSERT_GT(sent, 0u);
        std::vector<float> got = numbersOf(ranks.decode(slots)[0], plan.type);
        float scale = op == GS_AVG ? 1.0f / 7.0f : 1.0f;
        uint64_t wrong = 0;
        for (uint64_t i = 0; i < plan.count; i++) {
            float expected = sum[i] * scale;
            wrong += got[i] != (type() == GS_BFLOAT16 ? bf16Bits(toBf16Bits(expected)) : expected);
        }
        EXPECT_EQ(wrong, 0u);
    }
}

TEST(DenseSum, IsInRankOrder)
{
    Plan plan = planOf(dense(), 5000, 7);
    ThreadRanks ranks(plan);
    Gradients g = makeGradients(Shape::Skewed, plan, 0);
    std::vector<float> sum(plan.count, 0.0f), got = numbersOf(ranks.allReduce(g)[0], plan.type);
    for (const std::vector<float> &gradient : g)
        for (uint64_t i = 0; i < plan.count; i++)
            sum[i] += gradient[i];
    EXPECT_EQ(got, sum);
}

TEST_P(Contracts, AnotherSeedAnotherDraw)
{
    Plan plan = planOf(30000, 2);
    ThreadRanks one(plan);
    plan.seed++;
    ThreadRanks other(plan);
    EXPECT_EQ(steps(one, 0, 1) == steps(other, 0, 1), !recipe().unbiased());
}

/* ---- 5: nothing is lost ---- */

/* Over many steps every record is what fl(g + e) says, bit for bit; then gradients of zeros wash the residual out. */
TEST_P(FeedbackContracts, NothingIsLost)
{
    Plan plan = planOf(10007, 1);
    StageRanks ranks(plan);
    Referee referee(recipe(), plan.count, plan.seed, 0);
    for (uint64_t step = 0; step < 40; step++) {
        Gradients g = makeGradients(step < 25 ? Shape::Skewed : Shape::Zero, plan, step);
        float tau = ranks.stats(0).tau;
        Slots slots = ranks.encode(g);
        referee.check(g[0], slots.slot(0), slots.slotBytes(), tau);
        ranks.decode(slots);
    }
}

/* Small integers are exact in every format: what came out plus what is left equals what went in, to the bit. */
TEST_P(DrainingContracts, MassIsConserved)
{
    Recipe r = recipe();
    if (r.rule == Rule::Threshold)
        r = fixedThreshold(0, r.capacity, r.coding);
    Plan plan = gst::planOf(r, 5000, 3, type());
    ThreadRanks ranks(plan);
    std::vector<double> in(plan.count, 0.0), out(plan.count, 0.0);
    for (uint64_t step = 0; step < 100; step++) {
        Gradients g = makeGradients(step < 5 ? Shape::Ties : Shape::Zero, plan, step);
        for (const std::vector<float> &gradient : g)
            for (uint64_t i = 0; i < plan.count; i++)
                in[i] += gradient[i];
        std::vector<float> result = numbersOf(ranks.allReduce(g)[0], plan.type);
        for (uint64_t i = 0; i < plan.count; i++)
            out[i] += result[i];
    }
    EXPECT_EQ(in, out);
}

/* ---- overflow ---- */

TEST(Overflow, WithFeedbackTheHighestIndicesStayInTheResidual)
{
    Plan plan = planOf(fixedThreshold(0.5, 0.1, codingF32), 1000, 1);
    ThreadRanks ranks(plan);
    Gradients ones(1, std::vector<float>(1000, 1.0f)), zeros(1, std::vector<float>(1000, 0.0f));
    for (uint64_t step = 0; step < 11; step++) {
        std::vector<float> expected(1000, 0.0f);
        if (step < 10)
            std::fill_n(expected.begin() + static_cast<long>(100 * step), 100, 1.0f);
        EXPECT_EQ(numbersOf(ranks.allReduce(step == 0 ? ones : zeros)[0], GS_FLOAT32), expected) << "step " << step;
        EXPECT_EQ(ranks.stats(0).lastKept, 1000 - std::min<uint64_t>(step * 100, 1000));
        EXPECT_EQ(ranks.stats(0).lastSent, step < 10 ? 100u : 0u);
    }
    gsStats_t stats = ranks.stats(0);
    EXPECT_EQ(stats.overflowed, 9u);
    EXPECT_EQ(stats.thinned, 0u);
    EXPECT_EQ(stats.sentTotal, 1000u);
    EXPECT_EQ(stats.keptTotal, 5500u);
}

/* Kept are all with p = 1: n = 4000, m = 400, so every stayer carries ten times its value. */
TEST(Overflow, UnbiasedIsThinnedToExactlyTheCapacity)
{
    for (Coding coding : {codingF32, codingShared}) {
        Plan plan = planOf(gspar(1, coding, 0.1), 4000, 1);
        ThreadRanks ranks(plan);
        Gradients g(1, std::vector<float>(4000, 3.0f));
        for (uint64_t step = 1; step <= 5; step++) {
            std::vector<float> result = numbersOf(ranks.allReduce(g)[0], GS_FLOAT32);
            uint64_t nonZero = 0;
            for (float x : result) {
                EXPECT_TRUE(x == 0.0f || std::fabs(x - 30.0f) < 1e-4f) << x;
                nonZero += x != 0.0f;
            }
            gsStats_t stats = ranks.stats(0);
            EXPECT_EQ(nonZero, 400u);
            EXPECT_EQ(stats.lastSent, 400u);
            EXPECT_GE(stats.lastKept, 3990u); /* p may be an ulp below 1 */
            EXPECT_EQ(stats.thinned, step);
            EXPECT_EQ(stats.overflowed, 0u);
        }
    }
}

/* ---- 6: non-finite input ---- */

TEST_P(Contracts, NonFinite)
{
    Plan plan = planOf(9000, 3);
    ThreadRanks ranks(plan), control(plan);
    steps(ranks, 0, 2);
    steps(control, 0, 2);
    uint64_t bad = 0;
    for (float poison : {std::nanf(""), INFINITY, -INFINITY})
        for (size_t victim : {0u, 1u, 2u})
            for (uint64_t place : {uint64_t{0}, uint64_t{4096 + 77}, plan.count - 1}) {
                auto before = ranks.states();
                Gradients g = makeGradients(Shape::Gaussian, plan, 50 + bad);
                g[victim][place] = poison;
                for (const std::vector<uint8_t> &result : ranks.allReduce(g, bad % 2 == 0))
                    EXPECT_TRUE(allNaN(result, plan.type)) << poison << " on rank " << victim << " at " << place;
                EXPECT_TRUE(ranks.states() == before) << "a state has changed";
                bad++;
                EXPECT_EQ(ranks.stats(0).nonFinite, bad);
                EXPECT_EQ(ranks.stats(2).calls, bad + 2);
            }
    EXPECT_TRUE(steps(ranks, 2, 2) == steps(control, 2, 2)) << "as if the bad steps had not been";
}

/* g and e are finite, their sum is not: the same answer. */
TEST(NonFinite, ResidualThatOverflows)
{
    Plan plan = planOf(fixedThreshold(3.3e38, 0.5), 100, 2);
    ThreadRanks ranks(plan);
    Gradients g(2, std::vector<float>(100, 3e38f));
    EXPECT_FALSE(allNaN(ranks.allReduce(g)[0], plan.type));
    auto before = ranks.states();
    for (const std::vector<uint8_t> &result : ranks.allReduce(g))
        EXPECT_TRUE(allNaN(result, plan.type));
    EXPECT_TRUE(ranks.states() == before);
}

/* ---- 7: commit ---- */

TEST_P(RecordContracts, EncodeChangesNothing)
{
    Plan plan = planOf(9000, 2);
    StageRanks ranks(plan);
    steps(ranks, 0, 2);
    auto before = ranks.states();
    Gradients g = makeGradients(Shape::Skewed, plan, 2);
    Slots once = ranks.encode(g), twice = ranks.encode(g, 1);
    EXPECT_TRUE(ranks.states() == before);
    for (int r = 0; r < 2; r++) {
        uint64_t bytes = readAt<uint64_t>(once.slot(r), 48);
        EXPECT_EQ(std::memcmp(once.slot(r), twice.slot(r), bytes), 0) << "the second record of a step differs";
    }
}

/* ---- 10: statistics ---- */

TEST_P(Contracts, StatsArithmetic)
{
    Plan plan = planOf(20000, 4);
    ThreadRanks ranks(plan);
    size_t slot = 0;
    ASSERT_EQ(gsReducerGetSlotBytes(ranks.reducer(1), &slot), GS_SUCCESS);
    bool isDense = recipe().rule == Rule::Dense;
    uint64_t kept = 0, sent = 0;
    for (uint64_t n = 1; n <= 3; n++) {
        steps(ranks, n, 1);
        gsStats_t stats = ranks.stats(1);
        kept += stats.lastKept;
        sent += stats.lastSent;
        EXPECT_EQ(stats.calls, n);
        EXPECT_EQ(stats.compressed, isDense ? 0 : n);
        EXPECT_EQ(stats.dense, isDense ? n : 0);
        EXPECT_EQ(stats.bypassed, 0u);
        EXPECT_EQ(stats.failed, 0u);
        EXPECT_EQ(stats.nonFinite, 0u);
        EXPECT_EQ(stats.keptTotal, kept);
        EXPECT_EQ(stats.sentTotal, sent);
        EXPECT_GE(stats.lastKept, stats.lastSent);
        uint64_t denseBytes = plan.count * bytesOf(plan.type);
        EXPECT_EQ(stats.wireBytes, isDense ? n * 2 * 3 * denseBytes / 4 : n * 3 * slot);
        if (isDense)
            EXPECT_EQ(stats.payloadBytes, n * denseBytes);
        else
            EXPECT_LE(stats.payloadBytes, n * slot);
    }
    gsStats_t stats = ranks.stats(1);
    EXPECT_GE(stats.encodeSeconds + stats.exchangeSeconds + stats.decodeSeconds, 0.0);
    EXPECT_LT(stats.encodeSeconds + stats.exchangeSeconds + stats.decodeSeconds, 60.0);
}

TEST_P(RecordContracts, PayloadBytesAreTheRecords)
{
    Plan plan = planOf(20000, 1);
    StageRanks ranks(plan);
    uint64_t bytes = 0, sent = 0;
    for (uint64_t step = 0; step < 3; step++) {
        Slots slots = ranks.encode(makeGradients(Shape::Gaussian, plan, step));
        bytes += readAt<uint64_t>(slots.slot(0), 48);
        sent += readAt<uint64_t>(slots.slot(0), 32);
        ranks.decode(slots);
    }
    EXPECT_EQ(ranks.stats(0).payloadBytes, bytes);
    EXPECT_EQ(ranks.stats(0).sentTotal, sent);
}

TEST_P(Contracts, DisabledIsDenseAndCounted)
{
    Plan plan = planOf(5000, 3);
    Environment disable("GS_DISABLE", "1");
    ThreadRanks ranks(plan);
    plan.recipe = "dense";
    ThreadRanks control(plan);
    EXPECT_TRUE(steps(ranks, 0, 2) == steps(control, 0, 2));
    gsStats_t stats = ranks.stats(0);
    bool isDense = recipe().rule == Rule::Dense;
    EXPECT_EQ(stats.bypassed, isDense ? 0u : 2u);
    EXPECT_EQ(stats.dense, isDense ? 2u : 0u);
    EXPECT_EQ(stats.compressed, 0u);
    EXPECT_EQ(control.stats(0).bypassed, 0u);
}

/* ---- 12: state ---- */

TEST_P(Contracts, ExportAndImportContinueBitForBit)
{
    Plan plan = planOf(9001, 3);
    ThreadRanks first(plan), second(plan);
    steps(first, 0, 3);
    steps(second, 70, 2); /* something else, to be overwritten */
    auto states = first.states();
    for (int r = 0; r < plan.nranks; r++) {
        const std::vector<uint8_t> &state = states[static_cast<size_t>(r)];
        EXPECT_EQ(gsReducerImport(second.reducer(r), state.data(), state.size()), GS_SUCCESS) << gsGetLastError();
    }
    EXPECT_TRUE(second.states() == states);
    EXPECT_TRUE(steps(first, 3, 3) == steps(second, 3, 3));
    EXPECT_TRUE(first.states() == second.states());
}

TEST_P(Contracts, ForeignStatesAreRefused)
{
    Plan plan = planOf(500, 2);
    ThreadRanks ranks(plan);
    steps(ranks, 0, 2);
    auto before = ranks.states();
    auto refused = [&](const std::vector<uint8_t> &state, const char *what) {
        EXPECT_NE(gsReducerImport(ranks.reducer(0), state.data(), state.size()), GS_SUCCESS) << what;
        EXPECT_TRUE(ranks.states() == before) << what;
    };
    auto stateOf = [&](const Plan &other, int rank) {
        ThreadRanks others(other);
        steps(others, 0, 2);
        return others.state(rank);
    };
    refused(stateOf(plan, 1), "another rank");
    Plan other = plan;
    other.count++;
    refused(stateOf(other, 0), "another count");
    other = plan;
    other.seed++;
    refused(stateOf(other, 0), "another seed");
    other = plan;
    other.nranks = 3;
    refused(stateOf(other, 0), "another number of ranks");
    other = plan;
    other.type = type() == GS_FLOAT32 ? GS_BFLOAT16 : GS_FLOAT32;
    refused(stateOf(other, 0), "another type");
    other = plan;
    other.recipe = recipe().rule == Rule::Topk ? "threshold:density=0.3" : "chunk-topk:k=3";
    refused(stateOf(other, 0), "another recipe");
    for (size_t i = 0; i < before[0].size(); i++) {
        std::vector<uint8_t> flipped = before[0];
        flipped[i] ^= static_cast<uint8_t>(1 << i % 8);
        refused(flipped, "a flipped bit");
    }
    for (size_t length = 0; length < before[0].size(); length += 7)
        refused({before[0].begin(), before[0].begin() + static_cast<long>(length)}, "cut short");
    std::vector<uint8_t> longer = before[0];
    longer.resize(longer.size() + 8);
    refused(longer, "too long");
}

TEST_P(Contracts, ResetIsTheBeginning)
{
    Plan plan = planOf(9000, 2);
    ThreadRanks ranks(plan), fresh(plan);
    steps(ranks, 30, 3);
    for (int r = 0; r < plan.nranks; r++)
        EXPECT_EQ(gsReducerReset(ranks.reducer(r), nullptr), GS_SUCCESS) << gsGetLastError();
    EXPECT_TRUE(ranks.states() == fresh.states());
    EXPECT_TRUE(steps(ranks, 0, 3) == steps(fresh, 0, 3));
    EXPECT_EQ(ranks.stats(0).calls, 6u) << "statistics stay";
}

/* A loss scale that grows fourfold: the same run in other units, to the bit, as powers of two only move exponents. */
TEST_P(Contracts, ScaleFollowsTheLossScale)
{
    Plan plan = planOf(9000, 2);
    ThreadRanks ranks(plan), control(plan);
    steps(ranks, 0, 3);
    steps(control, 0, 3);
    for (int r = 0; r < plan.nranks; r++)
        EXPECT_EQ(gsReducerScale(ranks.reducer(r), 4.0f, nullptr), GS_SUCCESS) << gsGetLastError();
    for (uint64_t step = 3; step < 6; step++) {
        Gradients g = makeGradients(Shape::Skewed, plan, step), scaled = g;
        for (std::vector<float> &gradient : scaled)
            for (float &x : gradient)
                x *= 4;
        std::vector<float> got = numbersOf(ranks.allReduce(scaled)[0], plan.type);
        std::vector<float> expected = numbersOf(control.allReduce(g)[0], plan.type);
        for (float &x : expected)
            x *= 4;
        EXPECT_EQ(got, expected) << "step " << step;
    }
}

/* ---- 3: streams; 13: independence ---- */

TEST_P(Contracts, StreamsEqualSynchronousCalls)
{
    constexpr uint64_t n = 4;
    Plan plan = planOf(9000, 3);
    ThreadRanks ranks(plan), control(plan);
    std::vector<gsStream_t> streams(3);
    std::vector<std::vector<Buffer>> buffers(3);
    for (size_t r = 0; r < 3; r++) {
        ASSERT_EQ(gsStreamCreate(&streams[r]), GS_SUCCESS);
        for (uint64_t step = 0; step < n; step++)
            buffers[r].emplace_back(plan.type, makeGradients(Shape::Skewed, plan, step)[r]);
    }
    for (size_t r = 0; r < 3; r++) /* one thread enqueues everything: nothing may wait here */
        for (Buffer &b : buffers[r])
            EXPECT_EQ(ranks.call(static_cast<int>(r), b.data(), b.data(), streams[r]), GS_SUCCESS) << gsGetLastError();
    for (gsStream_t stream : streams)
        EXPECT_EQ(gsStreamSynchronize(stream), GS_SUCCESS) << gsGetLastError();
    std::vector<Results> expected = steps(control, 0, n);
    for (size_t r = 0; r < 3; r++)
        for (uint64_t step = 0; step < n; step++)
            EXPECT_TRUE(buffers[r][step].raw() == expected[step][r]) << "rank " << r << " step " << step;
    EXPECT_TRUE(ranks.states() == control.states());
    for (gsStream_t stream : streams)
        EXPECT_EQ(gsStreamDestroy(stream), GS_SUCCESS);
}

TEST_P(Contracts, TwoCommunicatorsAtOnce)
{
    Plan plan = planOf(9000, 2), other = plan;
    other.seed++;
    other.nranks = 3;
    ThreadRanks a(plan), b(other), controlA(plan), controlB(other);
    std::vector<Results> fromA, fromB;
    std::thread thread([&] { fromA = steps(a, 0, 5); });
    fromB = steps(b, 0, 5);
    thread.join();
    EXPECT_TRUE(fromA == steps(controlA, 0, 5));
    EXPECT_TRUE(fromB == steps(controlB, 0, 5));
}

TEST(Reducers, ShareACommunicator)
{
    constexpr int nranks = 3;
    gsComm_t comms[nranks];
    ASSERT_EQ(gsCommInitAll(comms, nranks, nullptr), GS_SUCCESS);
    const std::vector<Recipe> mix = {threshold(0.05), dense(), gspar(0.1), topk(64), randk(0.1)};
    std::vector<std::vector<Results>> expected;
    for (const Recipe &recipe : mix) {
        ThreadRanks control(planOf(recipe, 5000, nranks));
        expected.push_back(steps(control, 0, 3));
    }
    parallel(nranks, [&](int r) {
        std::vector<gsReducer_t> reducers(mix.size());
        std::vector<Plan> plans;
        for (size_t m = 0; m < mix.size(); m++) {
            plans.push_back(planOf(mix[m], 5000, nranks));
            gsReducerConfig_t config = configOf(plans[m]);
            EXPECT_EQ(gsReducerCreate(&reducers[m], comms[r], &config), GS_SUCCESS) << gsGetLastError();
        }
        for (uint64_t step = 0; step < 3; step++)
            for (size_t m = 0; m < mix.size(); m++) {
                Buffer b(GS_FLOAT32, makeGradients(Shape::Skewed, plans[m], step)[static_cast<size_t>(r)]);
                EXPECT_EQ(gsAllReduce(b.data(), b.data(), 5000, GS_FLOAT32, GS_SUM, reducers[m], nullptr), GS_SUCCESS);
                EXPECT_TRUE(b.raw() == expected[m][step][static_cast<size_t>(r)]) << mix[m].text();
            }
        for (gsReducer_t reducer : reducers)
            EXPECT_EQ(gsReducerDestroy(reducer), GS_SUCCESS);
    });
    for (gsComm_t comm : comms)
        EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS);
}

auto recipesWhere(bool (*wanted)(const Recipe &))
{
    std::vector<size_t> indices;
    for (size_t i = 0; i < allRecipes().size(); i++)
        if (wanted(allRecipes()[i]))
            indices.push_back(i);
    return testing::Combine(testing::ValuesIn(indices), testing::Values(GS_FLOAT32, GS_BFLOAT16));
}

std::string caseName(const testing::TestParamInfo<std::tuple<size_t, gsDataType_t>> &p)
{
    return nameOf(allRecipes()[std::get<0>(p.param)]) + "_" + nameOf(std::get<1>(p.param));
}

INSTANTIATE_TEST_SUITE_P(All, Contracts, recipesWhere([](const Recipe &) { return true; }), caseName);
INSTANTIATE_TEST_SUITE_P(All, RecordContracts, recipesWhere([](const Recipe &r) { return r.rule != Rule::Dense; }),
                         caseName);
INSTANTIATE_TEST_SUITE_P(All, FeedbackContracts, recipesWhere([](const Recipe &r) { return r.feedback(); }), caseName);
INSTANTIATE_TEST_SUITE_P(All, DrainingContracts, recipesWhere([](const Recipe &r) {
                             return r.rule == Rule::Topk ? r.k >= 64 : r.rule == Rule::Threshold && r.tau >= 0;
                         }),
                         caseName);

} // namespace
} // namespace gst
