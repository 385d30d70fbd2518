/* What the preload library learns of calls: plans are found, equal layers told apart, and ranks alike, whatever their buffers do. */
extern "C" {
#include "../nccl_plugin/preload_learn.h"
}

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

namespace
{

/* A call as a letter: its key; and the buffer it is about. */
struct Call {
    char letter;
    uintptr_t buffer;
};

using Step = std::vector<Call>;

/* A step of calls that have a buffer each. */
Step stepOf(const std::string &letters)
{
    Step step;
    for (char letter : letters)
        step.push_back({letter, 0x1000 * (step.size() + 1)});
    return step;
}

/* Ranks that vote as the library does: the least of their proposals, if it is everybody's. */
class Ranks
{
  public:
    explicit Ranks(int n = 1)
    {
        for (int i = 0; i < n; i++)
            learners_.push_back(std::make_unique<preloadLearner>());
        outcome_.resize(static_cast<size_t>(n));
    }

    /* One call by all; buffers[r] is rank r's. Returns its place, the same on all. */
    int call(char letter, const std::vector<uintptr_t> &buffers)
    {
        for (size_t r = 0; r < learners_.size(); r++) {
            outcome_[r] = preloadLearnCall(learners_[r].get(), {static_cast<uint64_t>(letter), 7, 0, 0},
                                           reinterpret_cast<const void *>(buffers[r]));
            EXPECT_EQ(outcome_[0], outcome_[r]) << "rank " << r;
            EXPECT_EQ(preloadLearnIsDue(learners_[0].get()), preloadLearnIsDue(learners_[r].get())) << "rank " << r;
        }
        broken += outcome_[0] == PRELOAD_BROKE;
        if (preloadLearnIsDue(learners_[0].get()))
            vote();
        return outcome_[0];
    }
    int call(const Call &one)
    {
        return call(one.letter, std::vector<uintptr_t>(learners_.size(), one.buffer));
    }
    std::vector<int> run(const Step &step)
    {
        std::vector<int> places;
        for (const Call &one : step)
            places.push_back(call(one));
        return places;
    }
    uint32_t period() const
    {
        return learners_[0]->period;
    }

    int votes = 0, broken = 0;

  private:
    void vote()
    {
        uint32_t least = UINT32_MAX, most = 0;
        votes++;
        for (auto &learner : learners_) {
            uint32_t proposal = preloadLearnProposal(learner.get());
            least = std::min(least, proposal);
            most = std::max(most, proposal);
        }
        for (auto &learner : learners_) {
            if (least != 0 && least == most)
                preloadLearnAdopt(learner.get(), least);
            else
                preloadLearnRefuse(learner.get());
        }
    }

    std::vector<std::unique_ptr<preloadLearner>> learners_;
    std::vector<int> outcome_;
};

TEST(PreloadLearn, ThreeStepsAreWatchedThenEveryCallHasItsPlace)
{
    Ranks ranks(2);
    Step step = stepOf("abcd");
    for (int s = 0; s < 3; s++)
        EXPECT_EQ(std::vector<int>(4, PRELOAD_WATCHED), ranks.run(step)) << "step " << s;
    for (int s = 0; s < 200; s++)
        ASSERT_EQ((std::vector<int>{0, 1, 2, 3}), ranks.run(step)) << "step " << s;
    EXPECT_EQ(1, ranks.votes);
}

/* DDP's buckets are rebuilt behind the first step. */
TEST(PreloadLearn, AnotherFirstStepDoesNotMatter)
{
    Ranks ranks;
    ranks.run(stepOf("dcab"));
    for (int s = 0; s < 3; s++)
        ranks.run(stepOf("aebf"));
    EXPECT_EQ(4u, ranks.period());
}

/* Every layer's tensors have the same sizes: the loop over layers is not the step, as the buffers show. */
TEST(PreloadLearn, EqualLayersAreToldApartByTheirBuffers)
{
    Ranks ranks(2);
    Step step = stepOf("wababababab");
    for (int s = 0; s < 6; s++)
        ranks.run(step);
    EXPECT_EQ(step.size(), ranks.period());
    EXPECT_EQ(0, ranks.broken);

    Ranks bare;
    Step buckets = stepOf("aaaa");
    for (int s = 0; s < 6; s++)
        bare.run(buckets);
    EXPECT_EQ(4u, bare.period());
}

/* One buffer for all layers: the first plan is wrong and ends with the layers; no other is. */
TEST(PreloadLearn, LayersInOneBufferAreMistakenOnce)
{
    Ranks ranks;
    Step step;
    for (int layer = 0; layer < 12; layer++)
        step.push_back({'a', 0x1000});
    step.push_back({'z', 0x2000});
    for (int s = 0; s < 50; s++)
        ranks.run(step);
    EXPECT_EQ(13u, ranks.period());
    EXPECT_EQ(1, ranks.broken);
}

TEST(PreloadLearn, BuffersThatNeverRepeatAreNeverPlanned)
{
    Ranks ranks;
    uintptr_t fresh = 0;
    for (int s = 0; s < 2000; s++)
        for (char letter : std::string("abc"))
            ASSERT_EQ(PRELOAD_WATCHED, ranks.call({letter, fresh += 64}));
    EXPECT_LE(ranks.votes, 13) << "each with twice as many calls behind it as the one before";
}

TEST(PreloadLearn, BuffersDoNotMatterOnceAPlanIsFollowed)
{
    Ranks ranks;
    for (int s = 0; s < 3; s++)
        ranks.run(stepOf("ab"));
    EXPECT_EQ(0, ranks.call({'a', 0x777}));
    EXPECT_EQ(1, ranks.call({'b', 0x778}));
}

TEST(PreloadLearn, AnotherCallEndsThePlanAndIsTheFirstOfANewWatch)
{
    Ranks ranks(3);
    for (int s = 0; s < 100; s++)
        ranks.run(stepOf("abc"));
    EXPECT_EQ(0, ranks.call({'a', 0x1000}));
    EXPECT_EQ(PRELOAD_BROKE, ranks.call({'c', 0x3000})) << "'b' was next";
    EXPECT_EQ(0u, ranks.period());
    for (int s = 0; s < 3; s++)
        EXPECT_EQ(std::vector<int>(2, PRELOAD_WATCHED), ranks.run(stepOf("xy"))) << "step " << s;
    EXPECT_EQ((std::vector<int>{0, 1}), ranks.run(stepOf("xy"))) << "a plan that was followed long leaves no doubt";
}

/* Each field alone: a reduce-scatter of as many elements is another call, too. */
TEST(PreloadLearn, EveryFieldOfAKeyTellsCallsApart)
{
    const preloadKey key = {4096, 7, 0, 0},
                     others[] = {{4097, 7, 0, 0}, {4096, 9, 0, 0}, {4096, 7, 4, 0}, {4096, 7, 0, 1}};
    for (const preloadKey &other : others) {
        auto learner = std::make_unique<preloadLearner>();
        for (int s = 0; s < 3; s++)
            EXPECT_EQ(PRELOAD_WATCHED, preloadLearnCall(learner.get(), key, &key));
        ASSERT_EQ(1u, preloadLearnProposal(learner.get()));
        preloadLearnAdopt(learner.get(), 1);
        EXPECT_EQ(0, preloadLearnCall(learner.get(), key, &key));
        EXPECT_EQ(PRELOAD_BROKE, preloadLearnCall(learner.get(), other, &key));
    }
}

TEST(PreloadLearn, TheLongestSequenceIsLearnedAndALongerOneIsNot)
{
    for (uint32_t period : {static_cast<uint32_t>(PRELOAD_MAX_PERIOD), PRELOAD_MAX_PERIOD + 1u}) {
        Ranks ranks;
        for (uint32_t s = 0; s < 4; s++)
            for (uint32_t i = 0; i < period; i++)
                ranks.call({i ? 'a' : 'b', 0x1000 + 64 * static_cast<uintptr_t>(i)});
        EXPECT_EQ(period > PRELOAD_MAX_PERIOD ? 0u : period, ranks.period());
    }
}

TEST(PreloadLearn, OneRankWhoseBuffersChangeKeepsAllFromAPlan)
{
    Ranks ranks(3);
    uintptr_t fresh = 0x100000;
    for (int s = 0; s < 40; s++)
        for (char letter : std::string("ab"))
            ASSERT_EQ(PRELOAD_WATCHED, ranks.call(letter, {0x1000, 0x1000, fresh += 64}));
    EXPECT_GE(ranks.votes, 1);
}

/* Whatever the program and the allocators do, ranks stay together: call() checks every outcome. */
TEST(PreloadLearn, RanksStayAlikeThroughRandomPrograms)
{
    std::mt19937 random(5);
    int plans = 0;
    for (int program = 0; program < 60; program++) {
        Ranks ranks(3);
        for (int phase = 0; phase < 4; phase++) {
            std::string step;
            for (size_t i = 0, n = 1 + random() % 7; i < n; i++)
                step += static_cast<char>('a' + random() % 3);
            unsigned moving = random() % 8; /* a bit a rank */
            for (int s = 0, n = static_cast<int>(random() % 30); s < n; s++)
                for (size_t i = 0; i < step.size(); i++) {
                    std::vector<uintptr_t> buffers;
                    for (unsigned r = 0; r < 3; r++)
                        buffers.push_back((moving >> r & 1u) && phase % 2 ? random() : 0x1000 * (i + 1) + r);
                    plans += ranks.call(step[i], buffers) == 0;
                }
        }
    }
    EXPECT_GT(plans, 100) << "otherwise nothing was tested";
}

} // namespace
