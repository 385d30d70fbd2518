/* Failures: nothing is committed, recvbuff stays as it was, everybody is told, and the next correct call works. */
#include "oracle.h"
#include "ranks.h"

#include <chrono>

namespace gst
{
namespace
{

using Clock = std::chrono::steady_clock;

double secondsSince(Clock::time_point start)
{
    return std::chrono::duration<double>(Clock::now() - start).count();
}

const std::vector<std::string> &someRecipes()
{
    static const std::vector<std::string> recipes = {"dense", "threshold:density=0.05", "chunk-topk",
                                                     "gspar:value=shared", "randk"};
    return recipes;
}

class Failures : public testing::TestWithParam<std::string>
{
  protected:
    Plan planOf(int nranks, int timeoutMs = 20000) const
    {
        Plan plan;
        plan.recipe = GetParam();
        plan.count = 5000;
        plan.nranks = nranks;
        plan.timeoutMs = timeoutMs;
        return plan;
    }
};

/* A call of one rank that is expected to fail and to leave its buffer alone. */
void expectFailure(ThreadRanks &ranks, int rank, const std::vector<float> &gradient, gsResult_t expected, bool inPlace)
{
    Buffer send(ranks.plan().type, gradient), recv(ranks.plan().type, gradient.size());
    Buffer &out = inPlace ? send : recv;
    std::vector<uint8_t> before = out.raw();
    EXPECT_EQ(ranks.call(rank, send.data(), out.data()), expected) << "rank " << rank << ": " << gsGetLastError();
    EXPECT_TRUE(out.raw() == before) << "rank " << rank << ": recvbuff was written";
}

TEST_P(Failures, DeadlineThenRetry)
{
    Plan plan = planOf(3, 150), patient = planOf(3);
    ThreadRanks ranks(plan), control(patient);
    ranks.allReduce(makeGradients(Shape::Gaussian, plan, 0));
    control.allReduce(makeGradients(Shape::Gaussian, plan, 0));
    auto before = ranks.states();
    Gradients g = makeGradients(Shape::Gaussian, plan, 1);
    for (int round = 0; round < 2; round++) {
        Clock::time_point start = Clock::now();
        parallel(2, [&](int r) { expectFailure(ranks, r, g[static_cast<size_t>(r)], GS_ERROR_TIMEOUT, round == 0); });
        EXPECT_GE(secondsSince(start), 0.14);
        EXPECT_LT(secondsSince(start), 5.0);
        start = Clock::now();
        expectFailure(ranks, 2, g[2], GS_ERROR_TIMEOUT, round == 0); /* the late one hears of it, too */
        EXPECT_LT(secondsSince(start), 0.14) << "and does not wait for it";
        EXPECT_TRUE(ranks.states() == before);
    }
    EXPECT_TRUE(ranks.allReduce(g) == control.allReduce(g)) << "the retry";
    EXPECT_EQ(ranks.stats(0).failed, 2u);
    EXPECT_EQ(ranks.stats(0).calls, 2u);
}

TEST_P(Failures, AbortWakesEverybody)
{
    Plan plan = planOf(3);
    ThreadRanks ranks(plan);
    ranks.allReduce(makeGradients(Shape::Gaussian, plan, 0));
    auto before = ranks.states();
    Gradients g = makeGradients(Shape::Gaussian, plan, 1);
    Clock::time_point start = Clock::now();
    parallel(3, [&](int r) {
        if (r < 2) {
            expectFailure(ranks, r, g[static_cast<size_t>(r)], GS_ERROR_ABORTED, false);
            return;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        EXPECT_EQ(gsCommAbort(ranks.comm(2)), GS_SUCCESS) << gsGetLastError();
    });
    EXPECT_LT(secondsSince(start), 10.0);
    for (int r = 0; r < 3; r++) {
        gsResult_t error = GS_SUCCESS;
        EXPECT_EQ(gsCommGetAsyncError(ranks.comm(r), &error), GS_SUCCESS);
        EXPECT_EQ(error, GS_ERROR_ABORTED);
        expectFailure(ranks, r, g[static_cast<size_t>(r)], GS_ERROR_ABORTED, true);
    }
    EXPECT_TRUE(ranks.states() == before) << "a state can still be exported";
}

/* What ranks would scale differently none may keep. */
TEST_P(Failures, DifferentOpsAreRefused)
{
    Plan plan = planOf(3);
    if (plan.recipe == "dense")
        GTEST_SKIP() << "a slice of the dense sum is scaled by its owner, alike for all";
    ThreadRanks ranks(plan);
    std::vector<std::vector<uint8_t>> before = ranks.states();
    Gradients gradients = makeGradients(Shape::Gaussian, plan, 0);
    parallel(plan.nranks, [&](int r) {
        Buffer buffer(plan.type, gradients[static_cast<size_t>(r)]);
        std::vector<uint8_t> sent = buffer.raw();
        EXPECT_EQ(gsAllReduce(buffer.data(), buffer.data(), plan.count, plan.type, r == 0 ? GS_AVG : GS_SUM,
                              ranks.reducer(r), nullptr),
                  GS_ERROR_MISMATCH);
        EXPECT_TRUE(buffer.raw() == sent);
    });
    EXPECT_TRUE(ranks.states() == before);
}

TEST_P(Failures, StreamsReportAtSynchronisation)
{
    Plan plan = planOf(2, 100);
    ThreadRanks ranks(plan);
    Buffer b(plan.type, makeGradients(Shape::Gaussian, plan, 0)[0]);
    std::vector<uint8_t> before = b.raw();
    gsStream_t stream = nullptr;
    ASSERT_EQ(gsStreamCreate(&stream), GS_SUCCESS);
    EXPECT_EQ(ranks.call(0, b.data(), b.data(), stream), GS_SUCCESS) << "the call only enqueues";
    EXPECT_EQ(gsCommSynchronize(ranks.comm(0), stream), GS_ERROR_TIMEOUT);
    EXPECT_EQ(gsStreamSynchronize(stream), GS_SUCCESS) << "an error is told once";
    EXPECT_TRUE(b.raw() == before);
    EXPECT_EQ(gsStreamDestroy(stream), GS_SUCCESS);
}

INSTANTIATE_TEST_SUITE_P(Recipes, Failures, testing::ValuesIn(someRecipes()), [](const auto &p) {
    return p.param.substr(0, p.param.find(':')) == "chunk-topk" ? "chunk_topk" : p.param.substr(0, p.param.find(':'));
});

/* ---- reset and scale take their turn on a stream ---- */

TEST(Streams, KeepResetAndScaleInOrder)
{
    Plan plan;
    plan.recipe = "threshold:density=0.05,value=f32";
    plan.count = 50000;
    plan.nranks = 1;
    for (bool scale : {false, true}) {
        ThreadRanks ranks(plan), control(plan);
        auto change = [scale](gsReducer_t reducer, gsStream_t stream) {
            EXPECT_EQ(scale ? gsReducerScale(reducer, 3.0f, stream) : gsReducerReset(reducer, stream), GS_SUCCESS);
        };
        gsStream_t stream = nullptr;
        ASSERT_EQ(gsStreamCreate(&stream), GS_SUCCESS);
        std::vector<Buffer> buffers;
        for (uint64_t step = 0; step < 20; step++)
            buffers.emplace_back(plan.type, makeGradients(Shape::Gaussian, plan, step)[0]);
        for (size_t step = 0; step < 20; step++) {
            EXPECT_EQ(ranks.call(0, buffers[step].data(), buffers[step].data(), stream), GS_SUCCESS);
            if (step == 10)
                change(ranks.reducer(0), stream);
        }
        EXPECT_EQ(gsStreamSynchronize(stream), GS_SUCCESS) << gsGetLastError();
        for (uint64_t step = 0; step < 20; step++) {
            EXPECT_TRUE(control.allReduce(makeGradients(Shape::Gaussian, plan, step))[0] == buffers[step].raw())
                << step;
            if (step == 10)
                change(control.reducer(0), nullptr);
        }
        EXPECT_TRUE(ranks.states() == control.states());
        EXPECT_EQ(gsStreamDestroy(stream), GS_SUCCESS);
    }
}

/* ---- ranks that disagree when reducers are made ---- */

void expectMismatch(const std::function<void(gsReducerConfig_t &)> &change, gsResult_t culprit = GS_ERROR_MISMATCH)
{
    constexpr int nranks = 3;
    gsComm_t comms[nranks];
    ASSERT_EQ(gsCommInitAll(comms, nranks, nullptr), GS_SUCCESS);
    Plan plan;
    plan.recipe = "threshold:density=0.1";
    plan.count = 100;
    Clock::time_point start = Clock::now();
    parallel(nranks, [&](int r) {
        gsReducer_t reducer = nullptr;
        gsReducerConfig_t config = configOf(plan);
        if (r == 1)
            change(config);
        EXPECT_EQ(gsReducerCreate(&reducer, comms[r], &config), r == 1 ? culprit : GS_ERROR_MISMATCH)
            << gsGetLastError();
        EXPECT_EQ(reducer, nullptr);
        EXPECT_STRNE(gsGetLastError(), "");
        config = configOf(plan); /* the communicator lives on */
        EXPECT_EQ(gsReducerCreate(&reducer, comms[r], &config), GS_SUCCESS) << gsGetLastError();
        EXPECT_EQ(gsReducerDestroy(reducer), GS_SUCCESS);
    });
    EXPECT_LT(secondsSince(start), 10.0) << "nobody waits for the deadline";
    for (gsComm_t comm : comms)
        EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS);
}

TEST(Mismatch, Count)
{
    expectMismatch([](gsReducerConfig_t &c) { c.count = 101; });
}
TEST(Mismatch, Type)
{
    expectMismatch([](gsReducerConfig_t &c) { c.datatype = GS_BFLOAT16; });
}
TEST(Mismatch, Seed)
{
    expectMismatch([](gsReducerConfig_t &c) { c.seed++; });
}
TEST(Mismatch, Recipe)
{
    expectMismatch([](gsReducerConfig_t &c) { c.recipe = "chunk-topk"; });
}
TEST(Mismatch, Density)
{
    expectMismatch([](gsReducerConfig_t &c) { c.recipe = "threshold:density=0.11"; });
}
TEST(Mismatch, Value)
{
    expectMismatch([](gsReducerConfig_t &c) { c.recipe = "threshold:density=0.1,value=f32"; });
}
TEST(Mismatch, Capacity)
{
    expectMismatch([](gsReducerConfig_t &c) { c.recipe = "threshold:density=0.1,capacity=1"; });
}
TEST(Mismatch, BadRecipeOnOneRank)
{
    expectMismatch([](gsReducerConfig_t &c) { c.recipe = "nonsense"; }, GS_ERROR_INVALID_RECIPE);
}

/* ---- records that are wrong, through gsDecode ---- */

class WrongRecords : public testing::TestWithParam<std::string>
{
  protected:
    WrongRecords()
    {
        plan_.recipe = GetParam();
        plan_.count = 4500;
        plan_.nranks = 3;
        ranks_ = std::make_unique<StageRanks>(plan_);
        ranks_->decode(ranks_->encode(makeGradients(Shape::Gaussian, plan_, 0)));
        slots_ = std::make_unique<Slots>(ranks_->encode(makeGradients(Shape::Gaussian, plan_, 1)));
        state_ = ranks_->state(0);
    }
    /* Rank 0 refuses these records, and nothing has happened. */
    void expectRefused(const Slots &slots, gsResult_t expected, const std::string &what)
    {
        Buffer recv(plan_.type, plan_.count);
        std::vector<uint8_t> before = recv.raw();
        gsResult_t result = ranks_->decodeOne(0, slots, recv);
        if (expected == GS_SUCCESS) /* any error */
            EXPECT_TRUE(result == GS_ERROR_CORRUPT || result == GS_ERROR_MISMATCH) << what << ": " << result;
        else
            EXPECT_EQ(result, expected) << what << ": " << gsGetLastError();
        EXPECT_TRUE(recv.raw() == before) << what << ": recvbuff was written";
        EXPECT_TRUE(ranks_->state(0) == state_) << what << ": the state changed";
    }
    void expectGoodAgain()
    {
        Plan plan = plan_;
        StageRanks control(plan);
        control.decode(control.encode(makeGradients(Shape::Gaussian, plan, 0)));
        Results expected = control.decode(control.encode(makeGradients(Shape::Gaussian, plan, 1)));
        EXPECT_TRUE(ranks_->decode(*slots_) == expected);
        EXPECT_TRUE(ranks_->states() == control.states());
    }

    Plan plan_;
    std::unique_ptr<StageRanks> ranks_;
    std::unique_ptr<Slots> slots_;
    std::vector<uint8_t> state_;
};

TEST_P(WrongRecords, EveryBitOfTheHeaderCounts)
{
    for (int r = 0; r < plan_.nranks; r++)
        for (size_t at = 0; at < 80; at++)
            for (int bit = 0; bit < 8; bit++) {
                uint8_t &byte = slots_->slot(r)[at];
                byte ^= static_cast<uint8_t>(1 << bit);
                expectRefused(*slots_, GS_SUCCESS, "rank " + std::to_string(r) + ", byte " + std::to_string(at));
                byte ^= static_cast<uint8_t>(1 << bit);
            }
    EXPECT_EQ(ranks_->stats(0).failed, 3u * 80 * 8);
    expectGoodAgain();
}

TEST_P(WrongRecords, EveryByteOfTheSectionsCounts)
{
    for (int r = 0; r < plan_.nranks; r++) {
        uint64_t bytes = readAt<uint64_t>(slots_->slot(r), 48);
        for (size_t at = 80; at < bytes; at += r == 1 ? 1 : 37) {
            uint8_t &byte = slots_->slot(r)[at];
            byte ^= static_cast<uint8_t>(1 << at % 8);
            expectRefused(*slots_, GS_ERROR_CORRUPT, "rank " + std::to_string(r) + ", byte " + std::to_string(at));
            byte ^= static_cast<uint8_t>(1 << at % 8);
        }
    }
    expectGoodAgain();
}

TEST_P(WrongRecords, BytesBehindTheRecordDoNotCount)
{
    for (int r = 0; r < plan_.nranks; r++) {
        uint64_t bytes = readAt<uint64_t>(slots_->slot(r), 48);
        std::memset(slots_->slot(r) + bytes, 0x5A, slots_->slotBytes() - bytes);
    }
    expectGoodAgain();
}

TEST_P(WrongRecords, SwappedWordsCount)
{
    uint8_t *record = slots_->slot(1);
    uint64_t words = readAt<uint64_t>(record, 48) / 8;
    for (uint64_t j = 10; j + 1 < words; j++) {
        uint64_t one = readAt<uint64_t>(record, 8 * j), other = readAt<uint64_t>(record, 8 * j + 8);
        if (one == other)
            continue;
        writeAt(record, 8 * j, other);
        writeAt(record, 8 * j + 8, one);
        expectRefused(*slots_, GS_ERROR_CORRUPT, "word " + std::to_string(j));
        writeAt(record, 8 * j, one);
        writeAt(record, 8 * j + 8, other);
    }
    expectGoodAgain();
}

TEST_P(WrongRecords, OtherPlacesStepsAndConfigurations)
{
    Slots wrong(plan_.nranks, slots_->slotBytes());
    auto copy = [&](int to, const uint8_t *from) { std::memcpy(wrong.slot(to), from, wrong.slotBytes()); };
    auto restore = [&] {
        for (int r = 0; r < plan_.nranks; r++)
            copy(r, slots_->slot(r));
    };
    restore();
    copy(1, slots_->slot(2));
    copy(2, slots_->slot(1));
    expectRefused(wrong, GS_ERROR_MISMATCH, "two ranks exchanged");
    restore();
    Plan late = plan_;
    StageRanks others(late);
    Slots first = others.encode(makeGradients(Shape::Gaussian, late, 0));
    copy(1, first.slot(1));
    expectRefused(wrong, GS_ERROR_MISMATCH, "an earlier step");
    restore();
    late.seed++;
    StageRanks strangers(late);
    strangers.decode(strangers.encode(makeGradients(Shape::Gaussian, late, 0)));
    Slots strange = strangers.encode(makeGradients(Shape::Gaussian, late, 1));
    copy(1, strange.slot(1));
    expectRefused(wrong, GS_ERROR_MISMATCH, "another seed");
    std::memset(wrong.slot(1), 0, wrong.slotBytes());
    expectRefused(wrong, GS_ERROR_CORRUPT, "zeros");
    expectGoodAgain();
}

TEST_P(WrongRecords, DecodeNeedsTheEncodeOfItsStep)
{
    Buffer recv(plan_.type, plan_.count);
    StageRanks peers(plan_);
    for (uint64_t step = 0; step < 3; step++) {
        Slots slots = peers.encode(makeGradients(Shape::Gaussian, plan_, step));
        if (step < 2) {
            peers.decode(slots);
            continue;
        }
        EXPECT_EQ(ranks_->decodeOne(0, *slots_, recv), GS_SUCCESS) << gsGetLastError();
        state_ = ranks_->state(0);
        expectRefused(slots, GS_ERROR_MISMATCH, "records of a step that was not encoded");
    }
}

INSTANTIATE_TEST_SUITE_P(Recipes, WrongRecords,
                         testing::Values("threshold:density=0.05", "chunk-topk:k=50", "gspar:value=shared",
                                         "gspar:density=0.1", "randk:density=0.05,value=f32"),
                         [](const auto &p) { return "case" + std::to_string(p.index); });

} // namespace
} // namespace gst
