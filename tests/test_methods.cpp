/* What holds for every recipe, type and count: one result on all ranks, one record from every instruction set and number of threads, and
 * what happens when something goes wrong: NaN, corrupt records, missing ranks, another job's states. */
#include "methods.h"
#include "record.h"

namespace gst
{
namespace
{

constexpr uint64_t someCounts[] = {0, 1, 31, 4096, 4097};

class Methods : public testing::TestWithParam<std::string>
{
  protected:
    Plan plan(uint64_t count, int nranks, gsDataType_t type = GS_FLOAT32) const
    {
        return planOf(GetParam(), count, nranks, type);
    }
};

TEST_P(Methods, ResultsAreEqualOnRanksForEveryTypeAndCount)
{
    for (gsDataType_t type : allTypes())
        for (uint64_t count : someCounts) {
            SCOPED_TRACE(testing::Message() << nameOf(type) << ", count " << count);
            Course course(plan(count, 3, type));
            for (uint64_t step = 0; step < 4; step++) {
                Results results = course.step(step);
                for (const std::vector<uint8_t> &result : results)
                    ASSERT_TRUE(result == results[0]) << "ranks differ";
                for (double x : doublesOf(results[0], type))
                    ASSERT_TRUE(std::isfinite(x));
            }
            gsStats_t stats = course.fleet.stats(1);
            EXPECT_EQ(stats.calls, 4u);
            EXPECT_EQ(stats.failed + stats.nonFinite, 0u);
            EXPECT_EQ(stats.dense + stats.compressed + stats.bypassed, 4u);
        }
}

TEST_P(Methods, InstructionSetsAndThreadsGiveTheSameBits)
{
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT16, GS_FLOAT64}) {
        std::vector<Results> first;
        std::vector<std::vector<uint8_t>> firstStates;
        for (const char *set : instructionSets())
            for (int threads : {1, 3}) {
                Environment cpu("GS_CPU", set);
                Plan p = plan(9001, 2, type);
                p.cpuThreads = threads;
                Course course(p);
                std::vector<Results> got = course.steps(0, 4);
                if (first.empty()) {
                    first = got;
                    firstStates = course.fleet.states();
                }
                EXPECT_TRUE(got == first) << set << ", " << threads << " threads, " << nameOf(type);
                EXPECT_TRUE(course.fleet.states() == firstStates)
                    << set << ", " << threads << " threads, " << nameOf(type);
            }
    }
}

TEST_P(Methods, RecordsOfInstructionSetsAreTheSameBytes)
{
    if (!hasStages(GetParam()))
        GTEST_SKIP() << "a recipe with dense steps or two halves has no single stages";
    for (gsDataType_t type : allTypes())
        for (uint64_t count : someCounts) {
            Plan p = plan(count, 1, type);
            Buffer theta(type, times(randomVector(count, 3), 0.1));
            std::vector<std::vector<uint8_t>> records;
            for (const char *set : instructionSets()) {
                Environment cpu("GS_CPU", set);
                StageRanks ranks(p);
                gsParams_t params = GS_PARAMS_INIT;
                params.datatype = type;
                params.params = params.stale = theta.data();
                params.stepSize = params.smoothness = 0.5;
                ASSERT_EQ(gsReducerSetParams(ranks.reducer(0), &params), GS_SUCCESS) << gsGetLastError();
                for (uint64_t step = 0; step < 3; step++) {
                    Slots slots = ranks.encode(related(count, 1, step, 0.3, type));
                    Record record = readRecord(slots.slot(0), slots.slotBytes());
                    EXPECT_EQ(record.problem, "") << nameOf(type) << ", count " << count;
                    records.emplace_back(slots.slot(0), slots.slot(0) + record.bytes);
                    gsRecordInfo_t info;
                    ASSERT_EQ(gsRecordInspect(slots.slot(0), record.bytes, &info), GS_SUCCESS) << gsGetLastError();
                    EXPECT_EQ(info.valueBytes, record.valueBytes);
                    EXPECT_EQ(info.indexBytes, record.indexBytes);
                    ranks.decode(slots);
                }
            }
            for (size_t n = 3; n < records.size(); n++)
                EXPECT_TRUE(records[n] == records[n % 3]) << nameOf(type) << ", count " << count;
        }
}

/* ---- what is not finite ---- */

TEST_P(Methods, NaNOnOneRankIsNaNOnAllAndLeavesEveryStateAsItWas)
{
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64}) {
        Course course(plan(5000, 3, type)), control(plan(5000, 3, type));
        for (uint64_t step = 0; step < 6; step++) {
            auto before = course.fleet.states();
            for (double poison : {std::nan(""), static_cast<double>(INFINITY)}) {
                course.at(step);
                Vectors g = course.gradients(step);
                for (size_t r = 0; r < 3; r++)
                    if (r == 1 || GetParam().find("participate") != std::string::npos) /* whoever's turn it is */
                        g[r][4999] = poison;
                int wants = 1;
                ASSERT_EQ(gsReducerWantsGradient(course.fleet.reducer(1), &wants), GS_SUCCESS);
                if (!wants)
                    continue; /* a gradient that is not read is no harm */
                for (const std::vector<uint8_t> &result : course.fleet.allReduce(g))
                    EXPECT_TRUE(allNaN(result, type)) << "step " << step;
                EXPECT_TRUE(course.fleet.states() == before) << "step " << step;
            }
            EXPECT_TRUE(course.step(step) == control.step(step)) << "as if it had not been, step " << step;
        }
        EXPECT_GT(course.fleet.stats(0).nonFinite, 0u);
        EXPECT_TRUE(course.fleet.states() == control.fleet.states());
    }
}

/* ---- what is corrupt ---- */

TEST_P(Methods, CorruptRecordIsRefusedAndTheRetryGivesTheSameBits)
{
    if (!hasStages(GetParam()))
        GTEST_SKIP() << "a recipe with dense steps or two halves has no single stages";
    Plan p = plan(5000, 2);
    StageRanks ranks(p), control(p);
    Buffer theta(p.type, randomVector(p.count, 3));
    for (StageRanks *r : {&ranks, &control})
        for (int rank = 0; rank < 2; rank++) {
            gsParams_t params = GS_PARAMS_INIT;
            params.params = params.stale = theta.data();
            params.stepSize = params.smoothness = 0.5;
            ASSERT_EQ(gsReducerSetParams(r->reducer(rank), &params), GS_SUCCESS) << gsGetLastError();
        }
    std::mt19937_64 random(4);
    for (uint64_t step = 0; step < 3; step++) {
        Slots slots = ranks.encode(related(p.count, 2, step, 0.3, p.type));
        auto before = ranks.states();
        uint64_t bytes = readAt<uint64_t>(slots.slot(1), 48);
        for (int n = 0; n < 20; n++) {
            uint64_t at = n < 4 ? static_cast<uint64_t>(n) * 20 : random() % bytes;
            slots.slot(1)[at] ^= 0x10;
            for (int rank = 0; rank < 2; rank++) {
                Buffer recv(p.type, p.count);
                std::vector<uint8_t> untouched = recv.raw();
                gsResult_t result = ranks.decodeOne(rank, slots, recv);
                EXPECT_TRUE(result == GS_ERROR_CORRUPT || result == GS_ERROR_MISMATCH) << "byte " << at;
                EXPECT_TRUE(recv.raw() == untouched);
            }
            slots.slot(1)[at] ^= 0x10;
            EXPECT_TRUE(ranks.states() == before) << "byte " << at;
        }
        Results expected = control.decode(control.encode(related(p.count, 2, step, 0.3, p.type)));
        EXPECT_TRUE(ranks.decode(slots) == expected);
    }
}

/* ---- who is missing ---- */

TEST_P(Methods, MissingRankFailsTheCallAndTheRetryGivesTheSameBits)
{
    Plan p = plan(5000, 3);
    Course control(p);
    p.timeoutMs = 80;
    Course course(p);
    for (uint64_t step = 0; step < 2; step++) {
        auto before = course.fleet.states();
        course.at(step);
        Vectors g = course.gradients(step);
        auto fails = [&](int r) {
            Buffer send(p.type, g[static_cast<size_t>(r)]), recv(p.type, p.count);
            std::vector<uint8_t> untouched = recv.raw();
            EXPECT_EQ(course.fleet.call(r, send.data(), recv.data()), GS_ERROR_TIMEOUT) << "rank " << r;
            EXPECT_TRUE(recv.raw() == untouched);
        };
        parallel(2, fails);
        fails(2);
        EXPECT_TRUE(course.fleet.states() == before) << "step " << step;
        Results got;
        for (int attempt = 0; attempt < 3 && got.empty(); attempt++) /* 80 ms may pass on a busy machine */
            got = course.fleet.allReduce(g);
        control.at(step);
        EXPECT_TRUE(got == control.fleet.allReduce(g)) << "step " << step;
    }
    EXPECT_EQ(course.fleet.stats(0).failed, 2u);
}

/* ---- states ---- */

TEST_P(Methods, ExportAndImportContinueBitForBit)
{
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64}) {
        Course first(plan(5001, 3, type)), second(plan(5001, 3, type));
        first.steps(0, 5);
        second.steps(70, 2); /* something else, to be overwritten */
        auto states = first.fleet.states();
        for (int r = 0; r < 3; r++) {
            const std::vector<uint8_t> &state = states[static_cast<size_t>(r)];
            ASSERT_EQ(gsReducerImport(second.fleet.reducer(r), state.data(), state.size()), GS_SUCCESS)
                << gsGetLastError();
        }
        EXPECT_TRUE(second.fleet.states() == states);
        EXPECT_TRUE(first.steps(5, 5) == second.steps(5, 5)) << nameOf(type);
        EXPECT_TRUE(first.fleet.states() == second.fleet.states());
    }
}

TEST_P(Methods, ResetIsTheBeginning)
{
    Course course(plan(5001, 2)), fresh(plan(5001, 2));
    course.steps(7, 4);
    for (int r = 0; r < 2; r++)
        EXPECT_EQ(gsReducerReset(course.fleet.reducer(r), nullptr), GS_SUCCESS) << gsGetLastError();
    EXPECT_TRUE(course.fleet.states() == fresh.fleet.states());
    EXPECT_TRUE(course.steps(0, 4) == fresh.steps(0, 4));
}

TEST_P(Methods, TruncatedForeignAndFlippedStatesAreRefused)
{
    Plan p = plan(100, 2);
    Course course(p);
    course.steps(0, 3);
    auto before = course.fleet.states();
    auto refused = [&](const std::vector<uint8_t> &state, const std::string &what) {
        EXPECT_NE(gsReducerImport(course.fleet.reducer(0), state.data(), state.size()), GS_SUCCESS) << what;
        EXPECT_TRUE(course.fleet.states() == before) << what;
    };
    refused(before[1], "another rank's");
    for (size_t length = 0; length < before[0].size(); length += 1 + before[0].size() / 40)
        refused({before[0].begin(), before[0].begin() + static_cast<long>(length)}, "cut at " + std::to_string(length));
    for (size_t i = 0; i < before[0].size(); i += 1 + before[0].size() / 60) {
        std::vector<uint8_t> flipped = before[0];
        flipped[i] ^= static_cast<uint8_t>(1 << i % 8);
        refused(flipped, "flipped at " + std::to_string(i));
    }
    for (size_t n : {size_t{8}, before[0].size()}) {
        std::vector<uint8_t> longer = before[0];
        longer.resize(longer.size() + n);
        refused(longer, "too long");
    }
    p.recipe = GetParam() == "terngrad" ? "natural" : "terngrad";
    Course other(p);
    refused(other.fleet.state(0), "another recipe's");
}

/* ---- streams, scales ---- */

TEST_P(Methods, StreamsEqualSynchronousCalls)
{
    Plan p = plan(5001, 2);
    Course course(p), control(p);
    std::vector<std::vector<Buffer>> buffers(2);
    std::vector<gsStream_t> streams(2);
    course.at(0);
    for (size_t r = 0; r < 2; r++) {
        ASSERT_EQ(gsStreamCreate(&streams[r]), GS_SUCCESS);
        for (uint64_t step = 0; step < 4; step++)
            buffers[r].emplace_back(p.type, course.gradients(step)[r]);
    }
    for (size_t r = 0; r < 2; r++) /* one thread enqueues everything: nothing may wait here */
        for (Buffer &b : buffers[r])
            ASSERT_EQ(course.fleet.call(static_cast<int>(r), b.data(), b.data(), streams[r]), GS_SUCCESS)
                << gsGetLastError();
    for (gsStream_t stream : streams)
        EXPECT_EQ(gsStreamSynchronize(stream), GS_SUCCESS) << gsGetLastError();
    for (uint64_t step = 0; step < 4; step++) { /* the iterate stands still */
        Results expected = control.fleet.allReduce(course.gradients(step));
        for (size_t r = 0; r < 2; r++)
            EXPECT_TRUE(buffers[r][step].raw() == expected[r]) << "rank " << r << " step " << step;
    }
    EXPECT_TRUE(course.fleet.states() == control.fleet.states());
    for (gsStream_t stream : streams)
        EXPECT_EQ(gsStreamDestroy(stream), GS_SUCCESS);
}

/* A loss scale that grows fourfold: the same run in other units, to the bit, as powers of two only move exponents. */
TEST_P(Methods, ScaleFollowsTheLossScale)
{
    if (readsIterate(GetParam()) || GetParam().find("clip") != std::string::npos)
        GTEST_SKIP() << "iterates and norms to cut to do not change with the loss";
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64}) {
        Course course(plan(5001, 2, type)), control(plan(5001, 2, type));
        course.steps(0, 3);
        control.steps(0, 3);
        for (int r = 0; r < 2; r++)
            ASSERT_EQ(gsReducerScale(course.fleet.reducer(r), 4.0f, nullptr), GS_SUCCESS) << gsGetLastError();
        for (uint64_t step = 3; step < 7; step++) {
            Vectors g = course.gradients(step), fourfold = {times(g[0], 4.0), times(g[1], 4.0)};
            EXPECT_EQ(course.fleet.sum(fourfold), times(control.fleet.sum(g), 4.0)) << nameOf(type) << " step " << step;
        }
    }
}

/* ---- the memory that is asked for ---- */

TEST_P(Methods, HotCallAllocatesNothingOfTheCallersMemory)
{
    struct Arena {
        size_t bytes = 0, calls = 0;
    } arena;
    Plan p = plan(5000, 1);
    gsReducerConfig_t config = configOf(p);
    config.allocate = [](size_t bytes, void *context) {
        Arena *a = static_cast<Arena *>(context);
        a->bytes += bytes;
        a->calls++;
        return std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    };
    config.release = [](void *pointer, void *) { std::free(pointer); };
    config.allocatorContext = &arena;
    gsMemory_t memory = {};
    ASSERT_EQ(gsReducerGetMemory(&config, 1, &memory), GS_SUCCESS) << gsGetLastError();
    ThreadRanks ranks(p, config);
    EXPECT_EQ(arena.bytes, memory.stateBytes + memory.wireBytes + memory.scratchBytes);
    size_t calls = arena.calls;
    Buffer theta(p.type, Vector(p.count, 0.0));
    gsParams_t params = GS_PARAMS_INIT;
    params.params = params.stale = theta.data();
    params.stepSize = params.smoothness = 1;
    ASSERT_EQ(gsReducerSetParams(ranks.reducer(0), &params), GS_SUCCESS) << gsGetLastError();
    for (uint64_t step = 0; step < 3; step++)
        ranks.allReduce(related(p.count, 1, step, 0.3, p.type));
    EXPECT_EQ(arena.calls, calls);
}

INSTANTIATE_TEST_SUITE_P(Recipes, Methods, testing::ValuesIn(methodRecipes()),
                         [](const auto &p) { return nameOf(p.param); });

} // namespace
} // namespace gst
