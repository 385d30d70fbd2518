/*
 * gsReduceScatter and gsAllGather. A scattered sum is the slice of gsAllReduce's, bit for bit; gathered slices are what their senders'
 * records say, the same on all ranks; both fail for all ranks or for none.
 */
#include "halves.h"

#include "core.h"
#include "record.h"

#include <atomic>

namespace gst
{
namespace
{

/* Whether some record did not hold all that was kept. */
bool limited(const Ranks &ranks)
{
    bool any = false;
    for (int r = 0; r < ranks.plan().nranks; r++) {
        gsStats_t stats = statsOf(ranks.reducer(r));
        any = any || stats.thinned || stats.overflowed;
    }
    return any;
}

Results slicesOf(const Plan &plan, const Results &whole)
{
    Results slices;
    for (size_t r = 0; r < whole.size(); r++)
        slices.push_back(cut(whole[r], plan.type, r * sliceOf(plan), sliceOf(plan)));
    return slices;
}

/* ---- the scattered sum ---- */

using Scatter = testing::TestWithParam<std::string>;

/* Steps of both; returns how many were compared before a part's slot, which is not the whole's, was too small. */
int expectSameSums(const Plan &half, const Plan &whole, uint64_t steps)
{
    ThreadRanks ours(half), theirs(whole);
    for (uint64_t step = 0; step < steps; step++) {
        Vectors given = givenTo(half, step);
        Results got = runHalf(ours, given, step % 2, step % 3), expected = slicesOf(half, theirs.allReduce(given));
        if (limited(ours) || limited(theirs))
            return static_cast<int>(step);
        EXPECT_TRUE(got == expected) << half.recipe << ", " << half.nranks << " ranks, slices of " << sliceOf(half)
                                     << ", " << half.type << ", step " << step;
        for (int r = 0; r < half.nranks; r++) {
            EXPECT_EQ(ours.stats(r).lastKept, theirs.stats(r).lastKept);
            EXPECT_EQ(ours.stats(r).lastSent, theirs.stats(r).lastSent);
        }
    }
    for (int r = 0; r < half.nranks; r++)
        for (const char *name : {"residual", "momentum", "memory", "shared"}) {
            bool own = std::string(name) == "shared";
            Vector found = readVector(ours.reducer(r), name, own ? sliceOf(half) : half.count, half.type),
                   all = readVector(theirs.reducer(r), name, half.count, half.type);
            uint64_t first = own ? static_cast<uint64_t>(r) * sliceOf(half) : 0;
            EXPECT_EQ(found.empty(), all.empty()) << name;
            for (uint64_t i = 0; i < found.size(); i++)
                if (found[i] != all[first + i]) {
                    ADD_FAILURE() << half.recipe << ": " << name << " " << i << " of rank " << r;
                    break;
                }
        }
    return static_cast<int>(steps);
}

TEST_P(Scatter, EqualsTheSlicesOfAListsSum)
{
    static const uint64_t slices[] = {4100, 4097, 1, 333, 0, 130, 60, 100};
    int compared = 0, ranks = 0;
    for (uint64_t slice : slices) {
        ranks++;
        Plan half = halfOf(GS_REDUCE_SCATTER, GetParam(), slice, ranks, allTypes()[static_cast<size_t>(ranks) % 4]);
        if (ranks % 3 == 2 && half.recipe != "dense" && !contains(half.recipe, "exchange"))
            half.recipe = with(half.recipe, "exchange=exact");
        half.op = ranks % 2 ? GS_AVG : GS_SUM;
        compared += expectSameSums(half, wholeOf(half), 3);
        if (HasFailure())
            return;
    }
    EXPECT_GE(compared, contains(GetParam(), "capacity=0.1") ? 3 : 12);
}

TEST_P(Scatter, OfWholeBlocksEqualsTheSlicesOfAGradientsSumByOwners)
{
    for (gsDataType_t type : {GS_BFLOAT16, GS_FLOAT64}) {
        Plan half = halfOf(GS_REDUCE_SCATTER, GetParam(), type == GS_FLOAT64 ? 8192 : 4096, 2, type), whole = half;
        whole.collective = GS_ALL_REDUCE;
        if (half.recipe != "dense" && !contains(half.recipe, "exchange"))
            whole.recipe = with(half.recipe, "exchange=owner");
        half.cpuThreads = 2;
        expectSameSums(half, whole, 2);
    }
}

INSTANTIATE_TEST_SUITE_P(Recipes, Scatter, testing::ValuesIn(halfRecipes(GS_REDUCE_SCATTER)),
                         [](const auto &p) { return nameOf(p.param); });

/* ---- gathered slices ---- */

using Gather = testing::TestWithParam<std::string>;

/* What rank q's record says: the sum where q alone has something to give. */
class Lone
{
  public:
    Lone(const Plan &half, int rank) : rank_(static_cast<size_t>(rank)), ranks_(planOfAll(half))
    {
    }
    std::vector<uint8_t> step(const Vectors &given)
    {
        Vectors alone(given.size(), Vector(given[0].size(), 0.0));
        alone[rank_] = given[rank_];
        return ranks_.allReduce(alone)[0];
    }

  private:
    static Plan planOfAll(const Plan &half)
    {
        Plan plan = half;
        plan.collective = GS_ALL_REDUCE;
        plan.count = sliceOf(half);
        return plan;
    }
    size_t rank_;
    ThreadRanks ranks_;
};

void expectSlicesOfTheirRecords(const Plan &half, uint64_t steps)
{
    ThreadRanks ours(half);
    std::vector<std::unique_ptr<Lone>> lone;
    for (int r = 0; r < half.nranks; r++)
        lone.push_back(std::make_unique<Lone>(half, r));
    for (uint64_t step = 0; step < steps; step++) {
        Vectors given = givenTo(half, step);
        Results got = runHalf(ours, given, step % 2, step % 3);
        std::vector<uint8_t> expected;
        for (std::unique_ptr<Lone> &one : lone) {
            std::vector<uint8_t> slice = one->step(given);
            expected.insert(expected.end(), slice.begin(), slice.end());
        }
        for (const std::vector<uint8_t> &result : got)
            ASSERT_TRUE(result == expected) << half.recipe << ", " << half.nranks << " ranks, slices of "
                                            << sliceOf(half) << ", " << half.type << ", step " << step;
    }
}

TEST_P(Gather, GivesAllWhatEachRecordSays)
{
    static const uint64_t slices[] = {0, 4097, 1, 4099, 700};
    for (int ranks = 1; ranks <= 4; ranks++) {
        Plan half = halfOf(GS_ALL_GATHER, GetParam(), slices[ranks], ranks, allTypes()[static_cast<size_t>(ranks) % 4]);
        if (ranks % 2 && half.recipe != "dense" && !contains(half.recipe, "exchange"))
            half.recipe = with(half.recipe, "exchange=exact");
        ASSERT_NO_FATAL_FAILURE(expectSlicesOfTheirRecords(half, 3));
    }
    ASSERT_NO_FATAL_FAILURE(expectSlicesOfTheirRecords(halfOf(GS_ALL_GATHER, GetParam(), 0, 3), 2));
}

INSTANTIATE_TEST_SUITE_P(Recipes, Gather, testing::ValuesIn(halfRecipes(GS_ALL_GATHER)),
                         [](const auto &p) { return nameOf(p.param); });

/* Whatever is finite arrives as it is. */
TEST(GatherDense, LosesNoBit)
{
    for (gsDataType_t type : allTypes()) {
        ThreadRanks ranks(halfOf(GS_ALL_GATHER, "dense", 3, 2, type));
        Vectors given = {{-0.0, 1.0 / 3, 6e-8}, {65504.0, -1e-7, 0.0}};
        std::vector<uint8_t> expected;
        for (const Vector &slice : given) {
            std::vector<uint8_t> raw = Buffer(type, slice).raw();
            expected.insert(expected.end(), raw.begin(), raw.end());
        }
        for (const std::vector<uint8_t> &result : runHalf(ranks, given))
            EXPECT_TRUE(result == expected);
    }
}

/* What arrived and what is still owed is what was given. */
TEST(GatherWithFeedback, OwesTheRest)
{
    Plan plan = halfOf(GS_ALL_GATHER, "topk:density=0.05,value=f64", 5000, 3, GS_FLOAT64);
    ThreadRanks ranks(plan);
    Vector arrived(plan.count, 0.0), total(plan.count, 0.0);
    for (uint64_t step = 0; step < 6; step++) {
        Vectors given = dyadic(sliceOf(plan), plan.nranks, step);
        arrived = plus(arrived, doublesOf(runHalf(ranks, given)[1], plan.type));
        for (size_t i = 0; i < plan.count; i++)
            total[i] += given[i / 5000][i % 5000];
    }
    for (size_t r = 0; r < 3; r++) {
        Vector owed = readVector(ranks.reducer(static_cast<int>(r)), "residual", 5000, plan.type);
        for (size_t i = 0; i < 5000; i++)
            ASSERT_EQ(arrived[r * 5000 + i] + owed[i], total[r * 5000 + i]);
    }
}

/* ---- a sharded optimizer: scattered gradients, steps of slices, gathered steps ---- */

double train(const std::string &down, const std::string &up, int steps)
{
    const int nranks = 3;
    const uint64_t slice = 60, count = slice * nranks;
    LeastSquares problem(count, nranks);
    ThreadRanks scatter(halfOf(GS_REDUCE_SCATTER, down, slice, nranks, GS_FLOAT64)),
        gather(halfOf(GS_ALL_GATHER, up, slice, nranks, GS_FLOAT64));
    double rate = 0.25 / problem.smoothness();
    Vectors theta(nranks, Vector(count, 0.0));
    for (int step = 0; step < steps; step++) {
        Results sums = runHalf(scatter, problem.gradients(theta[0]));
        Vectors steps;
        for (const std::vector<uint8_t> &sum : sums)
            steps.push_back(times(doublesOf(sum, GS_FLOAT64), -rate));
        Results all = runHalf(gather, steps);
        for (size_t r = 0; r < nranks; r++)
            theta[r] = plus(theta[r], doublesOf(all[r], GS_FLOAT64));
        EXPECT_TRUE(theta[1] == theta[0] && theta[2] == theta[0]) << "parameters differ";
    }
    return std::sqrt(squared(sumOf(problem.gradients(theta[0]))));
}

TEST(ShardedOptimizer, ReachesTheMinimumWithBothHalvesCompressed)
{
    double start = train("dense", "dense", 0);
    for (auto [down, up] :
         {std::pair("dense", "dense"), std::pair("topk:density=0.2", "dense"), std::pair("dense", "topk:density=0.2"),
          std::pair("ef21:density=0.2", "chunk-topk:k=512")}) {
        EXPECT_LT(train(down, up, 100), 0.1 * start) << down << ", " << up;
    }
}

/* ---- failures ---- */

struct Case {
    gsCollective_t collective;
    const char *recipe;
};

const Case someHalves[] = {{GS_REDUCE_SCATTER, "threshold:density=0.05"},
                           {GS_REDUCE_SCATTER, "gspar:density=0.1,exchange=exact"},
                           {GS_REDUCE_SCATTER, "ef21:density=0.1"},
                           {GS_REDUCE_SCATTER, "dgc:select=chunk-topk,k=30"},
                           {GS_REDUCE_SCATTER, "dense"},
                           {GS_ALL_GATHER, "threshold:density=0.05"},
                           {GS_ALL_GATHER, "qsgd:exchange=exact"},
                           {GS_ALL_GATHER, "diana"},
                           {GS_ALL_GATHER, "dense"}};

/* After two steps. */
class Halves : public testing::TestWithParam<Case>
{
  protected:
    Plan plan(gsDataType_t type = GS_FLOAT32) const
    {
        return halfOf(GetParam().collective, GetParam().recipe, 4101, 3, type);
    }
    static void begin(const ThreadRanks &ranks)
    {
        for (uint64_t step = 0; step < 2; step++)
            runHalf(ranks, givenTo(ranks.plan(), step));
    }
    bool dense() const
    {
        return std::string(GetParam().recipe) == "dense";
    }
};

/* Every rank's call ends with `error`, in place and not, and leaves everything as it was. */
void expectNothingDone(const ThreadRanks &ranks, const std::vector<gsResult_t> &error, const std::string &words,
                       const std::function<gsRedOp_t(int)> &opOf = nullptr)
{
    const Plan &plan = ranks.plan();
    std::vector<std::vector<uint8_t>> before = ranks.states();
    Vectors given = givenTo(plan, 7);
    parallel(plan.nranks, [&](int r) {
        size_t rank = static_cast<size_t>(r);
        Buffer send(plan.type, given[rank]), recv(plan.type, gotBy(plan));
        std::vector<uint8_t> untouched = recv.raw();
        Plan own = plan;
        own.op = opOf ? opOf(r) : plan.op;
        if (error[rank] == GS_SUCCESS)
            return; /* does not call */
        EXPECT_EQ(callHalf(own, ranks.reducer(r), send.data(), recv.data()), error[rank]) << gsGetLastError();
        EXPECT_TRUE(contains(gsGetLastError(), words.c_str())) << gsGetLastError();
        EXPECT_TRUE(recv.raw() == untouched);
    });
    EXPECT_TRUE(ranks.states() == before);
}

TEST_P(Halves, NaNOnOneRankIsNaNOnAllAndChangesNothing)
{
    for (size_t bad = 0; bad < 4; bad++) {
        gsDataType_t type = allTypes()[bad];
        ThreadRanks ranks(plan(type));
        begin(ranks);
        std::vector<std::vector<uint8_t>> before = ranks.states();
        Vectors given = givenTo(ranks.plan(), 2);
        given[bad % 3][4099] =
            bad == 1 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
        for (const std::vector<uint8_t> &result : runHalf(ranks, given, bad == 2))
            EXPECT_TRUE(allNaN(result, type));
        for (int r = 0; r < 3; r++)
            EXPECT_EQ(ranks.stats(r).nonFinite, 1u);
        EXPECT_TRUE(ranks.states() == before);
        ThreadRanks unharmed(ranks.plan());
        begin(unharmed);
        EXPECT_TRUE(runHalf(ranks, givenTo(ranks.plan(), 3)) == runHalf(unharmed, givenTo(ranks.plan(), 3)));
        EXPECT_TRUE(ranks.states() == unharmed.states());
    }
}

TEST_P(Halves, RanksOfDifferentOpsAllGetAMismatch)
{
    if (GetParam().collective == GS_ALL_GATHER)
        return; /* has no op */
    ThreadRanks ranks(plan());
    begin(ranks);
    expectNothingDone(ranks, std::vector<gsResult_t>(3, GS_ERROR_MISMATCH), "operation",
                      [](int r) { return r == 1 ? GS_AVG : GS_SUM; });
    runHalf(ranks, givenTo(ranks.plan(), 3));
}

TEST_P(Halves, RanksOfDifferentStepsAllGetAMismatch)
{
    if (dense() && GetParam().collective == GS_ALL_GATHER)
        return; /* remembers nothing and says nothing of steps */
    ThreadRanks ranks(plan());
    begin(ranks);
    std::vector<uint8_t> early = ranks.state(2);
    runHalf(ranks, givenTo(ranks.plan(), 3));
    std::vector<uint8_t> late = ranks.state(2);
    ASSERT_EQ(gsReducerImport(ranks.reducer(2), early.data(), early.size()), GS_SUCCESS);
    expectNothingDone(ranks, std::vector<gsResult_t>(3, GS_ERROR_MISMATCH), "another step");
    ASSERT_EQ(gsReducerImport(ranks.reducer(2), late.data(), late.size()), GS_SUCCESS);
    runHalf(ranks, givenTo(ranks.plan(), 4));
}

TEST_P(Halves, MissingRankIsADeadlineForTheOthers)
{
    Plan late = plan();
    late.timeoutMs = 1000; /* the calls before it, on a busy machine, keep it too */
    ThreadRanks ranks(late);
    begin(ranks);
    expectNothingDone(ranks, {GS_ERROR_TIMEOUT, GS_ERROR_TIMEOUT, GS_SUCCESS}, "");
}

TEST_P(Halves, StatesContinueBitForBit)
{
    ThreadRanks first(plan()), second(plan());
    begin(first);
    runHalf(second, givenTo(second.plan(), 9));
    for (int r = 0; r < 3; r++) {
        std::vector<uint8_t> state = first.state(r);
        ASSERT_EQ(gsReducerImport(second.reducer(r), state.data(), state.size()), GS_SUCCESS) << gsGetLastError();
        const void *states[] = {state.data()};
        size_t bytes = state.size();
        EXPECT_EQ(gsReducerImportRanks(second.reducer(r), states, &bytes, 1, nullptr, 0), GS_ERROR_UNSUPPORTED);
    }
    for (uint64_t step = 2; step < 5; step++)
        EXPECT_TRUE(runHalf(first, givenTo(first.plan(), step)) == runHalf(second, givenTo(second.plan(), step)));
    EXPECT_TRUE(first.states() == second.states());
}

TEST_P(Halves, WaitTheirTurnOnAStream)
{
    ThreadRanks now(plan()), later(plan());
    Results expected[2] = {runHalf(now, givenTo(now.plan(), 0)), runHalf(now, givenTo(now.plan(), 1))};
    parallel(3, [&](int r) {
        size_t rank = static_cast<size_t>(r);
        gsStream_t stream = nullptr;
        ASSERT_EQ(gsStreamCreate(&stream), GS_SUCCESS);
        Buffer a(now.plan().type, givenTo(now.plan(), 0)[rank]), b(now.plan().type, givenTo(now.plan(), 1)[rank]),
            x(now.plan().type, gotBy(now.plan())), y(now.plan().type, gotBy(now.plan()));
        EXPECT_EQ(callHalf(now.plan(), later.reducer(r), a.data(), x.data(), stream), GS_SUCCESS);
        EXPECT_EQ(callHalf(now.plan(), later.reducer(r), b.data(), y.data(), stream), GS_SUCCESS);
        EXPECT_EQ(gsStreamSynchronize(stream), GS_SUCCESS) << gsGetLastError();
        EXPECT_TRUE(x.raw() == expected[0][rank] && y.raw() == expected[1][rank]);
        EXPECT_EQ(gsStreamDestroy(stream), GS_SUCCESS);
    });
}

/* Every remembered vector doubles, and what is beside it stays. */
TEST_P(Halves, FollowAScale)
{
    ThreadRanks ranks(plan());
    begin(ranks);
    for (int r = 0; r < 3; r++)
        for (const char *name : {"residual", "momentum", "memory", "shared"})
            for (uint64_t n : {uint64_t(4101), uint64_t(3 * 4101)}) {
                Vector before = readVector(ranks.reducer(r), name, n, GS_FLOAT32);
                if (before.empty())
                    continue;
                ASSERT_EQ(gsReducerScale(ranks.reducer(r), 2.0f, nullptr), GS_SUCCESS);
                EXPECT_TRUE(readVector(ranks.reducer(r), name, n, GS_FLOAT32) == times(before, 2.0)) << name;
            }
}

/* As much is allocated as was said before. */
TEST_P(Halves, TellTheirMemory)
{
    static std::atomic<uint64_t> allocated;
    allocated = 0;
    Plan own = plan();
    gsReducerConfig_t config = configOf(own);
    gsMemory_t memory;
    ASSERT_EQ(gsReducerGetMemory(&config, 3, &memory), GS_SUCCESS) << gsGetLastError();
    config.allocate = [](size_t bytes, void *) {
        allocated += bytes;
        return std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    };
    config.release = [](void *pointer, void *) { std::free(pointer); };
    ThreadRanks ranks(own, config);
    EXPECT_EQ(allocated, 3 * (memory.stateBytes + memory.wireBytes + memory.scratchBytes));
    begin(ranks);
}

INSTANTIATE_TEST_SUITE_P(Some, Halves, testing::ValuesIn(someHalves), [](const auto &p) {
    return std::string(p.param.collective == GS_ALL_GATHER ? "gather_" : "scatter_") + nameOf(p.param.recipe);
});

/* A transport that damages what one rank is sent, once it is told to. */
std::atomic<int> victim;
const gsTransport *honest;

gsResult_t damageSlices(gsComm_t comm, const void *send, size_t totalBytes, void *recv, size_t sliceBytes,
                        gsStream_t stream)
{
    gsResult_t result = honest->scatterSlices(comm, send, totalBytes, recv, sliceBytes, stream);
    if (comm->rank == victim)
        static_cast<uint8_t *>(recv)[2 * sliceBytes + 100] ^= 1;
    return result;
}

/* One owner alone is sent a damaged part: nobody keeps its slice. */
TEST(ScatterFails, ForAllWhereOneOwnerWasSentADamagedPart)
{
    for (const char *recipe : {"threshold:density=0.05", "ef21:density=0.1", "gspar:density=0.1"})
        for (int at : {0, 1, 2}) {
            ThreadRanks ranks(halfOf(GS_REDUCE_SCATTER, recipe, 4101, 3));
            honest = ranks.comm(0)->transport;
            gsTransport damaging = *honest;
            damaging.scatterSlices = damageSlices;
            victim = -1;
            for (int r = 0; r < 3; r++)
                ranks.comm(r)->transport = &damaging;
            runHalf(ranks, givenTo(ranks.plan(), 0));
            victim = at;
            expectNothingDone(ranks, std::vector<gsResult_t>(3, GS_ERROR_CORRUPT), "rank 2's place does not match");
            victim = -1;
            runHalf(ranks, givenTo(ranks.plan(), 1));
            for (int r = 0; r < 3; r++)
                ranks.comm(r)->transport = honest;
        }
}

/* ---- single stages ---- */

void expectSameAsTheCall(const Plan &plan)
{
    ThreadRanks calls(plan);
    ScatterByHand stages(plan);
    for (uint64_t step = 0; step < 3; step++) {
        const Vectors &given = givenTo(plan, step);
        ASSERT_TRUE(stages.run(given, step) == runHalf(calls, given)) << plan.recipe << ", step " << step;
        if (plan.op == GS_SUM) { /* an exported state names the op, which single stages do not know */
            ASSERT_TRUE(stages.states() == calls.states()) << plan.recipe << ", step " << step;
        }
        for (int r = 0; r < plan.nranks; r++)
            EXPECT_EQ(stages.stats(r).lastSent, calls.stats(r).lastSent);
    }
}

TEST_P(Scatter, BySingleStagesHasTheSameBits)
{
    static const uint64_t slices[] = {0, 4097, 4099, 333, 130};
    if (GetParam() == "dense")
        return; /* has no records */
    for (int ranks = 1; ranks <= 4; ranks++) {
        Plan plan =
            halfOf(GS_REDUCE_SCATTER, GetParam(), slices[ranks], ranks, allTypes()[static_cast<size_t>(ranks) % 4]);
        plan.op = ranks % 2 ? GS_SUM : GS_AVG;
        if (ranks == 3 && !contains(plan.recipe, "exchange"))
            plan.recipe = with(plan.recipe, "exchange=exact");
        ASSERT_NO_FATAL_FAILURE(expectSameAsTheCall(plan));
    }
    ASSERT_NO_FATAL_FAILURE(expectSameAsTheCall(halfOf(GS_REDUCE_SCATTER, GetParam(), 0, 2)));
}

class ScatterStages : public testing::TestWithParam<const char *>
{
  protected:
    ScatterStages() : plan_(halfOf(GS_REDUCE_SCATTER, GetParam(), 4101, 3)), ranks_(plan_), control_(plan_)
    {
        ranks_.run(givenTo(plan_, 0));
        control_.run(givenTo(plan_, 0));
        states_ = ranks_.states();
    }
    /* All ranks refuse the step, by their seals as they are now, and nothing has happened. GS_SUCCESS: with either error. */
    void expectRefused(gsResult_t error, const std::string &what)
    {
        for (int r = 0; r < 3; r++) {
            Buffer recv(plan_.type, sliceOf(plan_));
            std::vector<uint8_t> before = recv.raw();
            gsResult_t found = ranks_.decodeOne(r, recv.data());
            bool either = found == GS_ERROR_CORRUPT || found == GS_ERROR_MISMATCH;
            ASSERT_TRUE(error == GS_SUCCESS ? either : found == error) << what << ": " << found << gsGetLastError();
            ASSERT_TRUE(recv.raw() == before) << what;
        }
        ASSERT_TRUE(ranks_.states() == states_) << what;
    }
    void expectGoodAgain()
    {
        ranks_.encode(givenTo(plan_, 1));
        ranks_.sum();
        EXPECT_TRUE(ranks_.decode() == control_.run(givenTo(plan_, 1)));
        EXPECT_TRUE(ranks_.states() == control_.states());
    }

    Plan plan_;
    ScatterByHand ranks_, control_;
    std::vector<std::vector<uint8_t>> states_;
};

/* The owner alone is sent it; all refuse. */
TEST_P(ScatterStages, AnyDamageToOnePartIsEverybodysError)
{
    ranks_.encode(givenTo(plan_, 1));
    uint8_t *part = ranks_.received[1].slot(2);
    uint64_t bytes = readAt<uint64_t>(part, 48);
    for (size_t at = 0; at < bytes; at += at < 80 ? 1 : 37) {
        part[at] ^= static_cast<uint8_t>(1 << at % 8);
        ranks_.sum();
        ASSERT_NO_FATAL_FAILURE(expectRefused(GS_SUCCESS, "byte " + std::to_string(at)));
        part[at] ^= static_cast<uint8_t>(1 << at % 8);
    }
    std::memset(part + bytes / 2, 0, bytes - bytes / 2);
    ranks_.sum();
    ASSERT_NO_FATAL_FAILURE(expectRefused(GS_ERROR_CORRUPT, "the second half is missing"));
    std::memset(part, 0xFF, ranks_.slotBytes());
    ranks_.sum();
    ASSERT_NO_FATAL_FAILURE(expectRefused(GS_ERROR_CORRUPT, "no record at all"));
    expectGoodAgain();
}

TEST_P(ScatterStages, PartsOfOthersOrOfAnotherStepAreEverybodysError)
{
    ranks_.encode(givenTo(plan_, 1));
    std::memcpy(ranks_.received[0].slot(1), ranks_.sent[2].slot(0), ranks_.slotBytes());
    ranks_.sum();
    ASSERT_NO_FATAL_FAILURE(expectRefused(GS_ERROR_MISMATCH, "another rank's part"));
    std::memcpy(ranks_.received[0].slot(1), ranks_.sent[1].slot(2), ranks_.slotBytes());
    ranks_.sum();
    ASSERT_NO_FATAL_FAILURE(expectRefused(GS_SUCCESS, "another owner's part"));
    expectGoodAgain();
    states_ = ranks_.states();
    std::vector<uint8_t> late(ranks_.received[0].slot(1), ranks_.received[0].slot(1) + ranks_.slotBytes());
    ranks_.encode(givenTo(plan_, 2));
    std::memcpy(ranks_.received[0].slot(1), late.data(), late.size());
    ranks_.sum();
    ASSERT_NO_FATAL_FAILURE(expectRefused(GS_ERROR_MISMATCH, "a part of an earlier step"));
}

TEST_P(ScatterStages, SealsOfAnotherStepOrOfNoneAreErrors)
{
    std::vector<uint8_t> late(ranks_.seals.data(), ranks_.seals.data() + ranks_.seals.bytes());
    ranks_.encode(givenTo(plan_, 1));
    ranks_.sum();
    std::memcpy(ranks_.seals.slot(2), late.data() + 2 * GS_SEAL_BYTES, GS_SEAL_BYTES);
    ASSERT_NO_FATAL_FAILURE(expectRefused(GS_ERROR_MISMATCH, "a seal of an earlier step"));
    for (int byte : {0, 0x5A, 0xFF}) {
        ranks_.sum();
        std::memset(ranks_.seals.slot(1), byte, GS_SEAL_BYTES);
        ASSERT_NO_FATAL_FAILURE(expectRefused(GS_SUCCESS, "bytes " + std::to_string(byte)));
    }
    expectGoodAgain();
}

TEST_P(ScatterStages, NaNOnOneRankIsNaNOnAll)
{
    Vectors given = givenTo(plan_, 1);
    given[2][7] = std::numeric_limits<double>::quiet_NaN();
    for (const std::vector<uint8_t> &result : ranks_.run(given))
        EXPECT_TRUE(allNaN(result, plan_.type));
    for (int r = 0; r < 3; r++)
        EXPECT_EQ(ranks_.stats(r).nonFinite, 1u);
    control_.run(given);
    Vectors good = givenTo(plan_, 2);
    EXPECT_TRUE(ranks_.run(good) == control_.run(good));
}

/* Nothing that was sent is needed once it has been sent, and a second gsEncode gives the same. */
TEST_P(ScatterStages, KeepWhatTheyNeed)
{
    ranks_.encode(givenTo(plan_, 1));
    std::vector<uint8_t> once(ranks_.sent[0].data(), ranks_.sent[0].data() + ranks_.sent[0].bytes());
    ranks_.encode(givenTo(plan_, 1));
    EXPECT_TRUE(std::equal(once.begin(), once.end(), ranks_.sent[0].data()));
    for (Slots &slots : ranks_.sent)
        std::memset(slots.slot(0), 0xEE, slots.bytes());
    ranks_.sum();
    for (Slots &slots : ranks_.received)
        std::memset(slots.slot(0), 0xEE, slots.bytes());
    EXPECT_TRUE(ranks_.decode() == control_.run(givenTo(plan_, 1)));
    EXPECT_TRUE(ranks_.states() == control_.states());
}

/* On streams, in place. */
TEST_P(ScatterStages, WaitTheirTurnOnAStream)
{
    gsStream_t stream = nullptr;
    ASSERT_EQ(gsStreamCreate(&stream), GS_SUCCESS);
    std::vector<Buffer> both;
    for (size_t r = 0; r < 3; r++) {
        both.emplace_back(plan_.type, givenTo(plan_, 1)[r]);
        EXPECT_EQ(gsEncode(both[r].data(), ranks_.sent[r].slot(0), 4101, plan_.type,
                           ranks_.reducer(static_cast<int>(r)), stream),
                  GS_SUCCESS);
    }
    EXPECT_EQ(gsStreamSynchronize(stream), GS_SUCCESS) << gsGetLastError();
    for (int r = 0; r < 3; r++)
        for (int q = 0; q < 3; q++)
            std::memcpy(ranks_.received[static_cast<size_t>(q)].slot(r), ranks_.sent[static_cast<size_t>(r)].slot(q),
                        ranks_.slotBytes());
    for (int r = 0; r < 3; r++)
        EXPECT_EQ(gsSumParts(ranks_.received[static_cast<size_t>(r)].data(), ranks_.seals.slot(r), ranks_.reducer(r),
                             stream),
                  GS_SUCCESS);
    Results expected = control_.run(givenTo(plan_, 1));
    for (size_t r = 0; r < 3; r++) {
        uint8_t *own = static_cast<uint8_t *>(both[r].data()) + r * 4101 * bytesOf(plan_.type);
        EXPECT_EQ(gsDecode(ranks_.seals.data(), own, 4101, plan_.type, plan_.op, ranks_.reducer(static_cast<int>(r)),
                           stream),
                  GS_SUCCESS);
        EXPECT_EQ(gsStreamSynchronize(stream), GS_SUCCESS) << gsGetLastError();
        EXPECT_TRUE(cut(both[r].raw(), plan_.type, r * 4101, 4101) == expected[r]);
    }
    EXPECT_EQ(gsStreamDestroy(stream), GS_SUCCESS);
}

INSTANTIATE_TEST_SUITE_P(Some, ScatterStages,
                         testing::Values("threshold:density=0.05", "gspar:density=0.1", "ef21:density=0.1",
                                         "diana:select=ternary"),
                         [](const auto &p) { return nameOf(p.param); });

TEST(ScatterStagesRefuse, CallsThatMakeNoSense)
{
    const gsResult_t usage = GS_ERROR_INVALID_USAGE, argument = GS_ERROR_INVALID_ARGUMENT;
    Plan plan = halfOf(GS_REDUCE_SCATTER, "threshold", 100, 2);
    ScatterByHand ranks(plan);
    StageRanks whole(planOf("threshold", 200, 2, GS_FLOAT32)), dense(halfOf(GS_REDUCE_SCATTER, "dense", 100, 2));
    gsReducer_t s = ranks.reducer(0);
    const uint8_t *parts = ranks.received[0].data();
    Buffer send(plan.type, plan.count), recv(plan.type, 100);
    void *seal = ranks.seals.slot(0);
    auto expectError = [](gsResult_t found, gsResult_t error, const char *words) {
        EXPECT_EQ(found, error) << words;
        EXPECT_TRUE(contains(gsGetLastError(), words)) << gsGetLastError();
    };
    expectError(gsSumParts(parts, seal, s, nullptr), usage, "gsSumParts without the gsEncode");
    expectError(ranks.decodeOne(0, recv.data()), usage, "gsDecode without the gsSumParts");
    expectError(gsEncode(send.data(), ranks.sent[0].slot(0), 200, plan.type, s, nullptr), argument, "count is 200");
    expectError(gsReduceScatter(send.data(), recv.data(), 100, plan.type, GS_SUM, s, nullptr), usage, "moves nothing");
    ranks.encode(givenTo(plan, 0));
    expectError(ranks.decodeOne(0, recv.data()), usage, "gsDecode without the gsSumParts");
    expectError(gsSumParts(nullptr, seal, s, nullptr), argument, "parts is ");
    expectError(gsSumParts(parts + 4, seal, s, nullptr), argument, "aligned to 16");
    expectError(gsSumParts(parts, nullptr, s, nullptr), argument, "seal is ");
    expectError(gsSumParts(parts, seal, nullptr, nullptr), argument, "reducer is NULL");
    expectError(gsSumParts(parts, seal, whole.reducer(0), nullptr), usage, "for gsAllReduce");
    expectError(gsSumParts(parts, seal, dense.reducer(0), nullptr), usage, "dense");
    ranks.sum();
    expectError(gsDecode(nullptr, recv.data(), 100, plan.type, GS_SUM, s, nullptr), argument, "records is ");
    ranks.decode();
    ranks.encode(givenTo(plan, 1));
    expectError(ranks.decodeOne(0, recv.data()), usage, "gsDecode without the gsSumParts");
    ranks.sum();
    ranks.decode();
}

/* ---- what travels ---- */

TEST(HalvesSend, WhatTheStatisticsSay)
{
    const uint64_t slice = 5000, others = 3, seals = 32 * others;
    struct {
        gsCollective_t collective;
        const char *recipe;
        uint64_t bytes;
    } rows[] = {{GS_REDUCE_SCATTER, "dense", others * slice * 4 + seals},
                {GS_ALL_GATHER, "dense", others * slice * 4},
                /* header, segment, entry of the tensor, a value for each of its places */
                {GS_REDUCE_SCATTER, "identity", others * (96 + 5120 * 4) + seals},
                {GS_ALL_GATHER, "identity", others * (96 + 5120 * 4)},
                {GS_REDUCE_SCATTER, "identity:exchange=exact", others * (96 + 5120 * 4 + 8) + seals},
                {GS_ALL_GATHER, "identity:exchange=exact", others * (96 + 5120 * 4 + 8)}};
    for (auto &row : rows) {
        ThreadRanks ranks(halfOf(row.collective, row.recipe, slice, 4));
        for (uint64_t step = 0; step < 2; step++)
            runHalf(ranks, givenTo(ranks.plan(), step));
        for (int r = 0; r < 4; r++)
            EXPECT_EQ(ranks.stats(r).wireBytes, 2 * row.bytes) << row.recipe;
    }
}

/* A gradient that lies in one slice: its part has twice its share of the capacity, and what does not fit waits. */
TEST(HalvesSend, UnevenSlicesOverflowIntoTheResidual)
{
    Plan plan = halfOf(GS_REDUCE_SCATTER, "topk:density=0.1,value=f64", 4096, 4, GS_FLOAT64);
    ThreadRanks ranks(plan);
    Vectors given(4, Vector(plan.count, 0.0));
    for (Vector &g : given)
        for (size_t i = 0; i < 4096; i++)
            g[4096 + i] = 1.0 + static_cast<double>(i % 7);
    Results got = runHalf(ranks, given);
    EXPECT_GT(ranks.stats(0).overflowed, 0u);
    Vector sum = doublesOf(got[1], plan.type), owed(plan.count, 0.0);
    for (int r = 0; r < 4; r++)
        owed = plus(owed, readVector(ranks.reducer(r), "residual", plan.count, plan.type));
    for (size_t i = 0; i < 4096; i++)
        ASSERT_EQ(sum[i] + owed[4096 + i], 4 * given[0][4096 + i]);
}

TEST(HalvesBypassed, GoDense)
{
    Environment off("GS_DISABLE", "1");
    for (gsCollective_t collective : {GS_REDUCE_SCATTER, GS_ALL_GATHER}) {
        ThreadRanks bypassed(halfOf(collective, "threshold", 1000, 2)), dense(halfOf(collective, "dense", 1000, 2));
        Vectors given = givenTo(dense.plan(), 0);
        EXPECT_TRUE(runHalf(bypassed, given) == runHalf(dense, given));
        EXPECT_EQ(bypassed.stats(0).bypassed, 1u);
    }
}

/* ---- what is refused ---- */

class HalfRefusals : public testing::Test
{
  protected:
    static void expect(gsResult_t error, const std::string &words, const gsReducerConfig_t &config, int nranks = 2)
    {
        gsMemory_t memory;
        EXPECT_EQ(gsReducerGetMemory(&config, nranks, &memory), error) << config.recipe;
        EXPECT_TRUE(contains(gsGetLastError(), words.c_str())) << gsGetLastError();
        std::vector<gsComm_t> comms(static_cast<size_t>(nranks));
        ASSERT_EQ(gsCommInitAll(comms.data(), nranks, nullptr), GS_SUCCESS);
        parallel(nranks, [&](int r) {
            gsReducer_t reducer = nullptr;
            EXPECT_EQ(gsReducerCreate(&reducer, comms[static_cast<size_t>(r)], &config), error);
            EXPECT_TRUE(contains(gsGetLastError(), words.c_str())) << gsGetLastError();
        });
        for (gsComm_t comm : comms)
            EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS);
    }
};

TEST_F(HalfRefusals, Recipes)
{
    struct {
        const char *recipe, *scatter, *gather; /* NULL: allowed */
    } rows[] = {{"topk:twoway=1", "the other half's", "the other half's"},
                {"cdadam", "the other half's", "the other half's"},
                {"lag-wk", "silent", "silent"},
                {"laq", "silent", "silent"},
                {"clag", "silent", "silent"},
                {"gdsec", "iterates", "iterates"},
                {"rows:width=10", "one matrix", "one matrix"},
                {"ef21:first=dense", "no step travels dense", "no step travels dense"},
                {"tng", "earlier results", "in common"},
                {"threshold:exchange=auto", "cost model", "cost model"},
                {"dgc", nullptr, "for gradients"},
                {"randk", nullptr, "no mask"}};
    for (auto &row : rows)
        for (gsCollective_t collective : {GS_REDUCE_SCATTER, GS_ALL_GATHER}) {
            const char *words = collective == GS_ALL_GATHER ? row.gather : row.scatter;
            Plan plan = halfOf(collective, row.recipe, 100, 2);
            if (words)
                expect(GS_ERROR_UNSUPPORTED, words, configOf(plan));
            else
                ThreadRanks allowed(plan);
        }
    for (gsCollective_t collective : {GS_REDUCE_SCATTER, GS_ALL_GATHER}) {
        const Plan plan = halfOf(collective, "dense", 100, 2);
        gsReducerConfig_t config = configOf(plan);
        config.recipe = "threshold:exchange=hierarchical";
        gsMemory_t memory;
        EXPECT_EQ(gsReducerGetNodeMemory(&config, 2, 1, &memory), GS_ERROR_UNSUPPORTED);
        EXPECT_TRUE(contains(gsGetLastError(), "share slices")) << gsGetLastError();
    }
}

TEST_F(HalfRefusals, Configurations)
{
    const Plan plan = halfOf(GS_REDUCE_SCATTER, "threshold", 100, 2); /* its strings outlive the configuration */
    gsReducerConfig_t config = configOf(plan), good = config;
    config.count = 201;
    expect(GS_ERROR_INVALID_ARGUMENT, "config->count is 201; gsReduceScatter expected a multiple of 2", config);
    config = good;
    config.collective = 3;
    expect(GS_ERROR_INVALID_ARGUMENT, "config->collective is 3", config);
    const uint64_t sizes[] = {100, 100};
    config = good;
    config.segments = sizes;
    config.segmentCount = 2;
    expect(GS_ERROR_UNSUPPORTED, "slices of the ranks", config);
    config = good;
    config.count = uint64_t(4096) * 0xfffffffeu - 4; /* of 4 slices each takes a block more */
    expect(GS_ERROR_INVALID_ARGUMENT, "2^32 - 2 blocks", config, 4);
    gsCluster_t cluster = GS_CLUSTER_INIT;
    cluster.ranks = 2;
    gsPlan_t chosen;
    EXPECT_EQ(gsPlanChoose(&good, &cluster, &chosen), GS_ERROR_UNSUPPORTED);
    EXPECT_TRUE(contains(gsGetLastError(), "the cost model")) << gsGetLastError();
}

/* Ranks whose reducers are for different calls, counts or recipes. */
TEST_F(HalfRefusals, RanksMustAgree)
{
    Plan half = halfOf(GS_ALL_GATHER, "threshold", 200, 2), other = half,
         whole = planOf("threshold", 200, 2, GS_FLOAT32);
    other.collective = GS_REDUCE_SCATTER;
    Plan longer = halfOf(GS_ALL_GATHER, "threshold", 201, 2), recipe = halfOf(GS_ALL_GATHER, "topk", 200, 2);
    struct {
        Plan plan;
        const char *words;
    } rows[] = {{other, "collective"}, {whole, "collective"}, {longer, "count"}, {recipe, "recipe"}};
    for (auto &row : rows) {
        gsComm_t comms[2];
        ASSERT_EQ(gsCommInitAll(comms, 2, nullptr), GS_SUCCESS);
        parallel(2, [&](int r) {
            gsReducerConfig_t config = configOf(r ? row.plan : half);
            gsReducer_t reducer = nullptr;
            EXPECT_EQ(gsReducerCreate(&reducer, comms[r], &config), GS_ERROR_MISMATCH);
            EXPECT_TRUE(contains(gsGetLastError(), row.words)) << gsGetLastError();
        });
        for (gsComm_t comm : comms)
            EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS);
    }
}

TEST_F(HalfRefusals, Calls)
{
    ThreadRanks scatter(halfOf(GS_REDUCE_SCATTER, "threshold", 100, 1)),
        gather(halfOf(GS_ALL_GATHER, "threshold", 100, 1)), whole(planOf("threshold", 100, 1, GS_FLOAT32));
    gsReducer_t s = scatter.reducer(0), g = gather.reducer(0), w = whole.reducer(0);
    std::vector<float> from(201, 1.0f), to(201, 5.0f), before = to;
    auto expectError = [&](gsResult_t found, gsResult_t error, const char *words) {
        EXPECT_EQ(found, error) << words;
        EXPECT_TRUE(contains(gsGetLastError(), words)) << gsGetLastError();
        EXPECT_TRUE(to == before);
    };
    float *a = from.data(), *b = to.data();
    const gsDataType_t type = GS_FLOAT32;
    const gsResult_t usage = GS_ERROR_INVALID_USAGE, argument = GS_ERROR_INVALID_ARGUMENT;
    expectError(gsReduceScatter(a, b, 100, type, GS_SUM, nullptr, nullptr), argument, "reducer is NULL");
    expectError(gsReduceScatter(a, b, 100, type, GS_SUM, g, nullptr), usage, "for gsAllGather");
    expectError(gsReduceScatter(a, b, 100, type, GS_SUM, w, nullptr), usage, "for gsAllReduce");
    expectError(gsAllGather(a, b, 100, type, s, nullptr), usage, "for gsReduceScatter");
    expectError(gsAllReduce(a, b, 100, type, GS_SUM, s, nullptr), usage, "not for gsAllReduce");
    expectError(gsEncode(a, b, 100, type, g, nullptr), GS_ERROR_UNSUPPORTED, "nor has an all-gather");
    expectError(gsReduceScatter(a, b, 99, type, GS_SUM, s, nullptr), argument, "count is 99");
    expectError(gsAllGather(a, b, 99, type, g, nullptr), argument, "count is 99");
    expectError(gsReduceScatter(a, b, 100, GS_FLOAT16, GS_SUM, s, nullptr), argument, "datatype is 6");
    expectError(gsReduceScatter(a, b, 100, type, static_cast<gsRedOp_t>(2), s, nullptr), argument, "op is 2");
    expectError(gsReduceScatter(nullptr, b, 100, type, GS_SUM, s, nullptr), argument, "sendbuff is NULL");
    expectError(gsAllGather(a, nullptr, 100, type, g, nullptr), argument, "recvbuff is NULL");
    expectError(gsReduceScatter(b + 1, b, 100, type, GS_SUM, s, nullptr), argument, "overlap");
    expectError(gsAllGather(b + 1, b, 100, type, g, nullptr), argument, "overlap");
}

} // namespace
} // namespace gst
