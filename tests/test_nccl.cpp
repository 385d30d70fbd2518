/* Ranks as NCCL ranks, a thread and a device each: on GPUs, virtual GPUs or the simulator. */
#include <gtest/gtest.h>

#include "draw.h"
#include "halves.h"
#include "nccl_ranks.h"
#include "reference.h"
#include "tensors.h"

#include <atomic>
#include <chrono>

namespace
{

using gst::Bytes;
using gst::capture;
using gst::DeviceBuffer;
using gst::deviceCount;
using gst::gradientOf;
using gst::onRanks;
using gst::Plan;
using gst::Rank;
using gst::Shape;
using std::chrono::milliseconds;

class Nccl : public gst::OnDevices
{
  protected:
    Plan planOf(const std::string &recipe, gsDataType_t type = GS_FLOAT32, uint64_t count = 10007) const
    {
        Plan plan;
        plan.recipe = recipe;
        plan.type = type;
        plan.count = count;
        plan.nranks = GetParam();
        return plan;
    }
};

INSTANTIATE_TEST_SUITE_P(Ranks, Nccl, testing::Values(1, 2, 3, 4), testing::PrintToStringParamName());

void expectSameAsThreads(const Plan &plan, bool inPlace)
{
    const int steps = 3;
    gst::Reference expected = gst::runOnThreads(plan, Shape::Skewed, steps);
    onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
        SCOPED_TRACE(plan.recipe + " " + gst::nameOf(plan.type) + " rank " + std::to_string(rank.rank));
        size_t mine = static_cast<size_t>(rank.rank);
        ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
        for (int step = 0; step < steps; step++) {
            Bytes gradient = gradientOf(plan, rank.rank, step);
            DeviceBuffer send(gradient), recv(Bytes(gradient.size()));
            DeviceBuffer &out = inPlace ? send : recv;
            ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), out.data())) << gsGetLastError();
            ASSERT_EQ(GS_SUCCESS, rank.finish()) << gsGetLastError();
            ASSERT_EQ(expected.steps[static_cast<size_t>(step)][mine], out.content()) << "step " << step;
            ASSERT_TRUE(inPlace || gradient == send.content()) << "sendbuff was modified";
        }
        EXPECT_EQ(GS_SUCCESS, rank.reducerError());
        EXPECT_EQ(expected.states[mine], gst::exportState(rank.reducer));
        gst::expectSameStats(expected.stats[mine], gst::statsOf(rank.reducer));
    });
}

TEST_P(Nccl, EveryRecipeEqualsThreads)
{
    size_t which = static_cast<size_t>(GetParam());
    for (const std::string &recipe : gst::sparseRecipes())
        for (gsDataType_t type : {GS_FLOAT32, GS_BFLOAT16}) {
            Plan plan = planOf(recipe, type);
            if (!gst::isDrawn(which++))
                continue;
            plan.op = type == GS_FLOAT32 ? GS_SUM : GS_AVG;
            expectSameAsThreads(plan, type == GS_BFLOAT16);
        }
}

/* Whole methods: dense steps, second halves, iterates. Of three and more ranks NCCL's sum in a dense step has bits of its own. */
const char *const methods[] = {
    "dgc:momentum=0.5",
    "ef21:density=0.1",
    "ef21:select=chunk-topk,first=dense",
    "diana",
    "cdadam",
    "cdadam:first=dense",
    "cdadam:select=topk,density=0.1",
    "threshold:density=0.1,twoway=1",
    "terngrad:twoway=1",
    "gdsec:xi=1",
    "gdsec:xi=1,ec=0",
    "gdsec:xi=1,value=levels",
    "gdsec:xi=1,participate=1",
    "gdsec:xi=1,resync=2",
    "lag-wk",
    "lag-ps:exchange=capacity",
    "ef21:density=0.1,exchange=exact",
    "tng:reference=last+ema,search=hindsight",
    "tng:reference=snapshot,refresh=3",
    "tng:reference=snapshot+last,refresh=2,search=worker",
    "threshold:density=0.05,exchange=owner",
    "threshold:density=0.05,twoway=1,exchange=owner",
    "chunk-topk:k=16,exchange=owner-exact",
    "gspar:density=0.1,value=shared,exchange=owner",
    "terngrad:exchange=owner",
    "randk:density=0.1,exchange=owner-exact",
    "dgc:density=0.1,exchange=owner",
    "diana:select=randk,density=0.2,exchange=owner",
    "ef21:density=0.1,exchange=owner-exact",
    "cdadam:exchange=owner",
    "gdsec:xi=1,exchange=owner",
    "tng:reference=last+ema+mean,search=worker,exchange=owner",
};

bool usesIterates(const std::string &recipe)
{
    return recipe.find("gdsec") == 0 || recipe.find("lag") == 0;
}

/* The iterate of a step, alike on all ranks. */
Bytes iterateOf(const Plan &plan, int step)
{
    Plan one = plan;
    one.nranks = 1;
    gst::Gradients theta = gst::makeGradients(Shape::Gaussian, one, 77);
    for (float &x : theta[0])
        x = x * 4 + static_cast<float>(step) * x / 8;
    return gst::Buffer(plan.type, theta[0]).raw();
}

void tellIterate(gsReducer_t reducer, const Plan &plan, const void *theta)
{
    gsParams_t params = GS_PARAMS_INIT;
    params.datatype = plan.type;
    params.params = theta;
    params.xi =
        plan.recipe.find("resync") != std::string::npos ? theta : nullptr; /* factors by coordinate: once is enough */
    params.stepSize = 0.125;
    params.smoothness = 2;
    ASSERT_EQ(GS_SUCCESS, gsReducerSetParams(reducer, &params)) << gsGetLastError();
}

/* Every gradient comes twice, so that triggers have something to keep silent about. */
gst::Reference methodOnThreads(const Plan &plan, int steps)
{
    gst::Reference reference;
    gst::ThreadRanks ranks(plan);
    for (int step = 0; step < steps; step++) {
        Bytes theta = iterateOf(plan, step);
        for (int r = 0; r < plan.nranks && usesIterates(plan.recipe); r++)
            tellIterate(ranks.reducer(r), plan, theta.data());
        reference.steps.push_back(
            ranks.allReduce(gst::makeGradients(Shape::Skewed, plan, static_cast<uint64_t>(step / 2))));
    }
    reference.states = ranks.states();
    for (int r = 0; r < plan.nranks; r++)
        reference.stats.push_back(ranks.stats(r));
    return reference;
}

TEST_P(Nccl, EveryMethodEqualsThreads)
{
    const int steps = 5;
    size_t which = 0;
    for (const char *recipe : methods) {
        std::vector<gsDataType_t> types = {gst::allTypes()[which++ % 4]};
        if (GetParam() < 4 && which % 3 != static_cast<size_t>(GetParam()) % 3 && !gst::runsLong())
            continue; /* four ranks do all that are drawn, the others a third each */
        if (!gst::isDrawn(which / 3))
            continue;
        if (gst::runsLong())
            types = gst::allTypes();
        for (gsDataType_t type : types) {
            Plan plan = planOf(recipe, type, 5003);
            plan.op = which % 2 ? GS_AVG : GS_SUM;
            gst::Reference expected = methodOnThreads(plan, steps);
            onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
                SCOPED_TRACE(plan.recipe + " " + gst::nameOf(plan.type) + " rank " + std::to_string(rank.rank));
                size_t mine = static_cast<size_t>(rank.rank);
                ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
                for (int step = 0; step < steps; step++) {
                    Bytes gradient = gradientOf(plan, rank.rank, step / 2);
                    DeviceBuffer send(gradient), recv(Bytes(gradient.size())), theta(iterateOf(plan, step));
                    if (usesIterates(plan.recipe))
                        tellIterate(rank.reducer, plan, theta.data());
                    ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), recv.data())) << gsGetLastError();
                    ASSERT_EQ(GS_SUCCESS, rank.finish()) << gsGetLastError();
                    ASSERT_EQ(expected.steps[static_cast<size_t>(step)][mine], recv.content()) << "step " << step;
                }
                EXPECT_EQ(GS_SUCCESS, rank.reducerError());
                EXPECT_EQ(expected.states[mine], gst::exportState(rank.reducer));
                gst::expectSameStats(expected.stats[mine], gst::statsOf(rank.reducer));
            });
        }
    }
}

/* Records with their true length, the host asking for it; as many bytes leave as over threads. */
TEST_P(Nccl, ExactModeEqualsThreads)
{
    for (const char *recipe : {"gspar:density=0.05", "threshold:density=0.02", "randk:density=0.03"}) {
        Plan plan = planOf(std::string(recipe) + ",exchange=exact");
        expectSameAsThreads(plan, false);
    }
}

TEST_P(Nccl, EveryCountEqualsThreads)
{
    for (uint64_t count : {0ull, 1ull, 4096ull, 4097ull})
        for (const char *recipe : {"gspar:value=shared", "threshold:density=0.1", "chunk-topk", "randk:density=0.1"})
            expectSameAsThreads(planOf(recipe, GS_BFLOAT16, count), false);
}

/* As many blocks as fill a CTA's scratch memory if they are one rank's, and do not where each owner has a share of them. */
TEST_P(Nccl, OwnersOfTwoBlocksEqualThreads)
{
    for (const char *recipe : {"threshold:density=0.05,exchange=owner", "cdadam:exchange=owner"})
        expectSameAsThreads(planOf(recipe, GS_FLOAT32, 2 * 4096 * static_cast<uint64_t>(GetParam())), false);
}

/* More is selected than a record has room for: the rest stays in the residual, or the kept are thinned. */
TEST_P(Nccl, OverflowEqualsThreads)
{
    for (const char *recipe : {"threshold:tau=0.001,capacity=0.05", "gspar:density=0.2,capacity=0.02",
                               "gspar:density=0.2,capacity=0.02,value=shared", "randk:density=0.2,capacity=0.05"}) {
        Plan plan = planOf(recipe);
        gsStats_t stats = gst::runOnThreads(plan, Shape::Skewed, 3).stats[0];
        EXPECT_EQ(3u, stats.overflowed + stats.thinned) << recipe;
        expectSameAsThreads(plan, false);
    }
}

/* The order of NCCL's sum is its own: close to the rank order's, and the same bits everywhere. */
TEST_P(Nccl, DenseIsEqualOnAllRanksAndClose)
{
    for (gsDataType_t type : {GS_FLOAT32, GS_BFLOAT16}) {
        Plan plan = planOf("dense", type);
        gst::Reference expected = gst::runOnThreads(plan, Shape::Gaussian, 1);
        std::vector<float> sum = gst::numbersOf(expected.steps[0][0], type);
        gst::Gradients gradients = gst::makeGradients(Shape::Gaussian, plan, 0);
        std::vector<Bytes> results(static_cast<size_t>(plan.nranks));
        onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
            size_t mine = static_cast<size_t>(rank.rank);
            Bytes gradient = gst::Buffer(type, gradients[mine]).raw();
            DeviceBuffer send(gradient), recv(Bytes(gradient.size()));
            ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
            ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), recv.data())) << gsGetLastError();
            ASSERT_EQ(GS_SUCCESS, rank.finish());
            results[mine] = recv.content();
            EXPECT_EQ(1u, gst::statsOf(rank.reducer).dense);
        });
        for (const Bytes &result : results)
            ASSERT_EQ(results[0], result);
        std::vector<float> numbers = gst::numbersOf(results[0], type);
        for (size_t i = 0; i < numbers.size(); i++)
            ASSERT_NEAR(sum[i], numbers[i], type == GS_FLOAT32 ? 1e-5 : 0.1) << "element " << i;
    }
}

TEST_P(Nccl, NaNOnOneRankIsNaNOnAllAndChangesNoState)
{
    for (const std::string &recipe : gst::allRecipes()) {
        Plan plan = planOf(recipe);
        onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
            SCOPED_TRACE(recipe);
            Bytes gradient = gradientOf(plan, rank.rank, 0), poisoned = gradient;
            if (rank.rank == plan.nranks - 1)
                memset(&poisoned[4 * 4711], 0xff, 4);
            DeviceBuffer good(gradient), bad(poisoned), recv(Bytes(gradient.size()));
            ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
            ASSERT_EQ(GS_SUCCESS, rank.call(plan, good.data(), recv.data()));
            ASSERT_EQ(GS_SUCCESS, rank.finish());
            Bytes state = gst::exportState(rank.reducer);
            ASSERT_EQ(GS_SUCCESS, rank.call(plan, bad.data(), recv.data()));
            ASSERT_EQ(GS_SUCCESS, rank.finish());
            EXPECT_TRUE(gst::allNaN(recv.content(), plan.type));
            EXPECT_EQ(state, gst::exportState(rank.reducer));
            EXPECT_EQ(1u, gst::statsOf(rank.reducer).nonFinite);
            EXPECT_EQ(GS_SUCCESS, rank.reducerError());
        });
    }
}

TEST_P(Nccl, DifferentConfigurationsAreRefusedOnAllRanks)
{
    int nranks = GetParam();
    if (nranks == 1)
        GTEST_SKIP() << "one rank cannot differ";
    onRanks(nranks, 20000, [&](Rank &rank) {
        bool differs = rank.rank == nranks - 1;
        Plan recipe = planOf(differs ? "gspar:density=0.06" : "gspar:density=0.05"), count = planOf("gspar");
        count.count += differs;
        Plan type = planOf("gspar", differs ? GS_BFLOAT16 : GS_FLOAT32);
        for (const Plan &plan : {recipe, count, type})
            EXPECT_EQ(GS_ERROR_MISMATCH, rank.create(plan)) << gsGetLastError();
        EXPECT_EQ(GS_SUCCESS, rank.create(planOf("gspar"))) << "the communicator still works";
    });
}

const gsTransport *ncclTable;

/* As the transport's all-gather, but rank 0's record arrives with another checksum. */
gsResult_t corruptAllGather(gsComm_t comm, const void *send, void *recv, size_t bytes, gsStream_t stream)
{
    GS_CHECK(ncclTable->allGather(comm, send, recv, bytes, stream));
    EXPECT_CUDA(cudaMemsetAsync(static_cast<uint8_t *>(recv) + 56, 0x3c, 8, static_cast<cudaStream_t>(stream)));
    return GS_SUCCESS;
}

gsResult_t failingAllGather(gsComm_t, const void *, void *, size_t, gsStream_t)
{
    return gsFail(GS_ERROR_TRANSPORT, "as if NCCL had refused");
}

TEST_P(Nccl, CorruptRecordChangesNothingUntilTheErrorWasTold)
{
    for (const char *recipe : {"threshold:density=0.02", "chunk-topk", "gspar:value=shared", "randk:density=0.03"}) {
        Plan plan = planOf(recipe);
        gst::Reference expected = gst::runOnThreads(plan, Shape::Skewed, 1);
        onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
            SCOPED_TRACE(recipe);
            Bytes gradient = gradientOf(plan, rank.rank, 0), untouched(gradient.size(), 0x11);
            DeviceBuffer send(gradient), recv(untouched);
            ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
            Bytes state = gst::exportState(rank.reducer);
            if (rank.rank == 0)
                ncclTable = rank.comm->transport;
            ASSERT_EQ(GS_SUCCESS, rank.comm->transport->allGatherHost(rank.comm, &state, Bytes(64).data(), 1));
            {
                gst::OtherAllGather corrupt(rank.comm, corruptAllGather);
                ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), recv.data()));
            }
            ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), recv.data())) << "sticky: this one changes nothing";
            ASSERT_EQ(GS_SUCCESS, rank.finish());
            EXPECT_EQ(untouched, recv.content());
            EXPECT_EQ(state, gst::exportState(rank.reducer));
            EXPECT_EQ(GS_ERROR_CORRUPT, rank.reducerError());
            EXPECT_EQ(GS_SUCCESS, rank.reducerError());
            ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), recv.data()));
            ASSERT_EQ(GS_SUCCESS, rank.finish());
            EXPECT_EQ(expected.steps[0][static_cast<size_t>(rank.rank)], recv.content());
        });
    }
}

/* A second half whose first half found a corrupt record changes nothing either. */
TEST_P(Nccl, CorruptRecordStopsBothHalves)
{
    for (const char *recipe : {"cdadam", "threshold:density=0.1,twoway=1"}) {
        Plan plan = planOf(recipe);
        gst::Reference expected = gst::runOnThreads(plan, Shape::Skewed, 2);
        onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
            SCOPED_TRACE(recipe);
            size_t mine = static_cast<size_t>(rank.rank);
            Bytes first = gradientOf(plan, rank.rank, 0), second = gradientOf(plan, rank.rank, 1);
            DeviceBuffer one(first), two(second), recv(first);
            ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
            ASSERT_EQ(GS_SUCCESS, rank.call(plan, one.data(), recv.data()));
            ASSERT_EQ(GS_SUCCESS, rank.finish());
            Bytes state = gst::exportState(rank.reducer), result = recv.content();
            EXPECT_EQ(expected.steps[0][mine], result);
            if (rank.rank == 0)
                ncclTable = rank.comm->transport;
            ASSERT_EQ(GS_SUCCESS, rank.comm->transport->allGatherHost(rank.comm, &state, Bytes(64).data(), 1));
            {
                gst::OtherAllGather corrupt(rank.comm, corruptAllGather);
                ASSERT_EQ(GS_SUCCESS, rank.call(plan, two.data(), recv.data()));
            }
            ASSERT_EQ(GS_SUCCESS, rank.finish());
            EXPECT_EQ(result, recv.content());
            EXPECT_EQ(state, gst::exportState(rank.reducer));
            EXPECT_EQ(GS_ERROR_CORRUPT, rank.reducerError());
            ASSERT_EQ(GS_SUCCESS, rank.call(plan, two.data(), recv.data()));
            ASSERT_EQ(GS_SUCCESS, rank.finish());
            EXPECT_EQ(expected.steps[1][mine], recv.content());
            EXPECT_EQ(expected.states[mine], gst::exportState(rank.reducer));
        });
    }
}

TEST_P(Nccl, CallThatCouldNotBeEnqueuedCanBeMadeAgain)
{
    Plan plan = planOf("threshold:density=0.02");
    gst::Reference expected = gst::runOnThreads(plan, Shape::Skewed, 1);
    onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
        Bytes gradient = gradientOf(plan, rank.rank, 0), untouched(gradient.size(), 0x11);
        DeviceBuffer send(gradient), recv(untouched);
        ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
        Bytes state = gst::exportState(rank.reducer);
        {
            gst::OtherAllGather failing(rank.comm, failingAllGather);
            ASSERT_EQ(GS_ERROR_TRANSPORT, rank.call(plan, send.data(), recv.data()));
        }
        ASSERT_EQ(GS_SUCCESS, rank.finish());
        EXPECT_EQ(untouched, recv.content());
        EXPECT_EQ(state, gst::exportState(rank.reducer));
        ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), recv.data()));
        ASSERT_EQ(GS_SUCCESS, rank.finish());
        EXPECT_EQ(expected.steps[0][static_cast<size_t>(rank.rank)], recv.content());
        EXPECT_EQ(1u, gst::statsOf(rank.reducer).failed);
    });
}

/* All ranks are through with what they did before: a short deadline from here on is nobody's who is only late. */
void meet(std::atomic<int> &there, int nranks)
{
    for (there++; there < nranks && !testing::Test::HasFatalFailure();)
        std::this_thread::sleep_for(milliseconds(1));
}

gsResult_t silentAllGather(gsComm_t, const void *, void *, size_t, gsStream_t)
{
    return gsFail(GS_ERROR_SYSTEM, "as if this rank had died");
}

gsResult_t silentAllGatherExact(gsComm_t, const void *, size_t, void *, size_t, gsStream_t)
{
    return gsFail(GS_ERROR_SYSTEM, "as if this rank had died");
}

/* The last rank leaves before the second call, or in the middle of it, before the owners' sums are gathered. Of the others, the first to
 * lose patience aborts, in the call where its host waits for lengths, or behind it; NCCL may then tell the rest that it has gone before
 * their own deadline does. */
void oneFallsSilent(Plan plan, bool midway)
{
    SCOPED_TRACE(plan.recipe + (midway ? ", before sums are gathered" : ", before the call"));
    std::atomic<int> timeouts{0}, there{0};
    onRanks(plan.nranks, 20000, [&](Rank &rank) {
        Bytes gradient = gradientOf(plan, rank.rank, 0);
        DeviceBuffer send(gradient), recv(gradient);
        ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
        ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), recv.data()));
        ASSERT_EQ(GS_SUCCESS, rank.finish());
        meet(there, plan.nranks);
        Bytes state = gst::exportState(rank.reducer), result = recv.content();
        if (rank.rank == plan.nranks - 1) {
            const gsTransport *speaking = rank.comm->transport;
            gsTransport silent = *speaking;
            silent.allGather = silentAllGather;
            silent.allGatherExact = silentAllGatherExact;
            rank.comm->transport = &silent;
            if (midway) {
                EXPECT_EQ(GS_ERROR_SYSTEM, rank.call(plan, send.data(), recv.data()));
            }
            std::this_thread::sleep_for(milliseconds(600));
            gsCommAbort(rank.comm);
            EXPECT_EQ(state, gst::exportState(rank.reducer));
            rank.comm->transport = speaking;
            return;
        }
        rank.comm->timeoutMs = 200;
        gsResult_t end = rank.call(plan, send.data(), recv.data());
        if (end == GS_SUCCESS)
            end = rank.finish();
        timeouts += end == GS_ERROR_TIMEOUT;
        EXPECT_TRUE(end == GS_ERROR_TIMEOUT || end == GS_ERROR_TRANSPORT) << gsGetLastError();
        EXPECT_EQ(end, rank.commError());
        EXPECT_EQ(GS_ERROR_INVALID_USAGE, rank.call(plan, send.data(), recv.data()));
        EXPECT_EQ(result, recv.content());
        EXPECT_EQ(state, gst::exportState(rank.reducer)) << "the state outlives its communicator";
    });
    EXPECT_GT(timeouts, 0);
}

TEST_P(Nccl, DeadlineAbortsTheCommunicatorAndChangesNothing)
{
    if (GetParam() == 1)
        GTEST_SKIP() << "one rank waits for nobody";
    size_t which = static_cast<size_t>(GetParam());
    for (const char *recipe :
         {"dense", "threshold:density=0.02", "threshold:exchange=exact", "threshold:exchange=owner",
          "threshold:exchange=owner-exact", "cdadam", "cdadam:exchange=owner"})
        if (gst::isDrawn(which++))
            oneFallsSilent(planOf(recipe), false);
    for (const char *recipe : {"threshold:exchange=owner", "threshold:exchange=owner-exact", "cdadam:exchange=owner"})
        if (gst::isDrawn(which++))
            oneFallsSilent(planOf(recipe), true);
}

/* Rank 0 never calls, and every rank is aborted by a thread of its own. */
TEST_P(Nccl, AbortEndsTheWaitFromAnotherThread)
{
    int nranks = GetParam();
    if (nranks == 1)
        GTEST_SKIP() << "one rank waits for nobody";
    Plan plan = planOf("gspar");
    std::atomic<int> aborted{0};
    onRanks(nranks, 20000, [&](Rank &rank) {
        DeviceBuffer send(gradientOf(plan, rank.rank, 0)), recv(gradientOf(plan, rank.rank, 0));
        ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
        std::thread watchdog([&] {
            std::this_thread::sleep_for(milliseconds(rank.rank == 0 ? 500 : 100));
            EXPECT_EQ(GS_SUCCESS, gsCommAbort(rank.comm));
        });
        gsResult_t end = GS_ERROR_ABORTED;
        if (rank.rank != 0) {
            EXPECT_EQ(GS_SUCCESS, rank.call(plan, send.data(), recv.data()));
            end = rank.finish();
        }
        watchdog.join();
        aborted += rank.rank != 0 && end == GS_ERROR_ABORTED;
        EXPECT_TRUE(end == GS_ERROR_ABORTED || end == GS_ERROR_TRANSPORT) << gsGetLastError();
        EXPECT_EQ(end, rank.commError());
        EXPECT_EQ(end == GS_ERROR_ABORTED ? GS_ERROR_ABORTED : GS_ERROR_INVALID_USAGE,
                  rank.call(plan, send.data(), recv.data()));
        EXPECT_EQ(GS_SUCCESS, gsCommAbort(rank.comm)) << "a second abort is no error";
    });
    EXPECT_GT(aborted, 0);
}

/* A call of `gradient`, captured and replayed as often as there are results to expect; they are compared after every `every`-th. */
void replay(Rank &rank, const Plan &plan, const Bytes &gradient, const std::vector<gst::Results> &expected,
            size_t every, std::atomic<bool> &captured)
{
    DeviceBuffer send(gradient), recv(gradient);
    ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
    cudaGraphExec_t graph = capture(rank, [&] { return rank.call(plan, send.data(), recv.data()); });
    if (!graph) {
        captured = false;
        return;
    }
    for (size_t step = 0; step < expected.size(); step++) {
        ASSERT_EQ(cudaSuccess, cudaGraphLaunch(graph, rank.stream));
        if (step % every == 0) {
            ASSERT_EQ(GS_SUCCESS, rank.finish()) << gsGetLastError();
            ASSERT_EQ(expected[step][static_cast<size_t>(rank.rank)], recv.content()) << "replay " << step;
        }
    }
    ASSERT_EQ(GS_SUCCESS, rank.finish()) << gsGetLastError();
    EXPECT_EQ(GS_SUCCESS, rank.reducerError());
    EXPECT_CUDA(cudaGraphExecDestroy(graph));
}

TEST_P(Nccl, ReplayedGraphEqualsCalls)
{
    std::atomic<bool> captured{true};
    if (GetParam() == 4)
        GTEST_SKIP() << "three ranks show it, in less time";
    for (const char *recipe : {"gspar:density=0.05", "threshold:density=0.02", "chunk-topk:k=4", "randk",
                               "threshold:density=0.02,exchange=owner", "cdadam:exchange=owner"}) {
        Plan plan = planOf(recipe, GS_BFLOAT16, 5000);
        const bool owners = gst::contains(plan.recipe, "owner");
        const int replays = owners ? 100 : 34;
        if (owners && plan.nranks != 2)
            continue; /* long enough with two */
        std::vector<gst::Results> expected;
        {
            gst::ThreadRanks threads(plan);
            gst::Gradients gradients = gst::makeGradients(Shape::Skewed, plan, 0);
            for (int step = 0; step < replays; step++)
                expected.push_back(threads.allReduce(gradients));
        }
        onRanks(plan.nranks, 60000, [&](Rank &rank) {
            SCOPED_TRACE(recipe);
            replay(rank, plan, gradientOf(plan, rank.rank, 0), expected, 33, captured);
            if (!captured)
                return;
            EXPECT_EQ(static_cast<uint64_t>(replays), gst::statsOf(rank.reducer).calls);
        });
        EXPECT_NE(expected[0][0], expected[1][0]) << "replays draw afresh, or feed back";
    }
    if (!captured)
        GTEST_SKIP() << "no stream capture here";
}

/* A call that waits for lengths cannot be captured; it says so, and works as soon as nothing is captured. */
TEST_P(Nccl, ExactModeIsRefusedInACapture)
{
    std::atomic<bool> captured{true};
    Plan plan = planOf("threshold:density=0.02,exchange=exact");
    gst::Reference expected = gst::runOnThreads(plan, Shape::Skewed, 1);
    onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
        Bytes gradient = gradientOf(plan, rank.rank, 0), untouched(gradient.size(), 0x11);
        DeviceBuffer send(gradient), recv(untouched);
        ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
        Bytes state = gst::exportState(rank.reducer);
        if (cudaStreamBeginCapture(rank.stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
            cudaGetLastError();
            captured = false;
            return;
        }
        cudaGraph_t graph = nullptr;
        EXPECT_EQ(GS_ERROR_INVALID_USAGE, rank.call(plan, send.data(), recv.data()));
        EXPECT_NE(std::string::npos, std::string(gsGetLastError()).find("exchange=capacity")) << gsGetLastError();
        EXPECT_CUDA(cudaStreamEndCapture(rank.stream, &graph));
        EXPECT_CUDA(cudaGraphDestroy(graph));
        EXPECT_EQ(untouched, recv.content());
        EXPECT_EQ(state, gst::exportState(rank.reducer));
        ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), recv.data())) << gsGetLastError();
        ASSERT_EQ(GS_SUCCESS, rank.finish());
        EXPECT_EQ(expected.steps[0][static_cast<size_t>(rank.rank)], recv.content());
    });
    if (!captured)
        GTEST_SKIP() << "no stream capture here";
}

/* ---- the transport's operations, on the whole and on parts ---- */

class NcclTransport : public Nccl
{
};

INSTANTIATE_TEST_SUITE_P(Ranks, NcclTransport, testing::Values(1, 2, 3, 4), testing::PrintToStringParamName());

uint8_t byteOf(int rank, size_t i)
{
    return static_cast<uint8_t>(31 * rank + 7 * i + i / 251);
}

/* How many bytes rank `from` has for rank `to`, of at most `slot`: none among them, and whole slots. */
size_t lengthOf(int from, int to, size_t slot)
{
    return slot * static_cast<size_t>((3 * from + 5 * to) % 4) / 3;
}

Bytes bytesOf(int rank, size_t bytes)
{
    Bytes made(bytes);
    for (size_t i = 0; i < bytes; i++)
        made[i] = byteOf(rank, i);
    return made;
}

/* Every operation that moves bytes, by ranks `step` apart from each other; the first of them is rank % step. */
void expectExchanges(const Rank &rank, gsComm_t comm, int step, size_t slot)
{
    const gsTransport *transport = comm->transport;
    const size_t nranks = static_cast<size_t>(comm->nranks), own = static_cast<size_t>(comm->rank);
    auto world = [&](size_t r) { return rank.rank % step + static_cast<int>(r) * step; };
    DeviceBuffer send(bytesOf(rank.rank, nranks * slot)), recv(Bytes(nranks * slot, 0xee));
    Bytes expected(nranks * slot, 0xee);
    std::vector<size_t> lengths;
    for (size_t r = 0; r < nranks; r++) {
        lengths.push_back(lengthOf(rank.rank, world(r), slot));
        for (size_t i = 0; i < lengthOf(world(r), rank.rank, slot); i++)
            expected[r * slot + i] = byteOf(world(r), own * slot + i);
    }
    ASSERT_EQ(GS_SUCCESS, transport->allToAllExact(comm, send.data(), lengths.data(), recv.data(), slot, rank.stream))
        << gsGetLastError();
    ASSERT_EQ(GS_SUCCESS, gsCommSynchronize(comm, rank.stream));
    ASSERT_EQ(expected, recv.content());
    DeviceBuffer whole(Bytes(nranks * slot, 0xee));
    expected.assign(expected.size(), 0xee);
    for (size_t r = 0; r < nranks; r++)
        for (size_t i = 0; i < lengthOf(world(r), 0, slot); i++)
            expected[r * slot + i] = byteOf(world(r), i);
    ASSERT_EQ(GS_SUCCESS, transport->allGatherExact(comm, send.data(), lengthOf(rank.rank, 0, slot), whole.data(), slot,
                                                    rank.stream));
    ASSERT_EQ(GS_SUCCESS, gsCommSynchronize(comm, rank.stream));
    ASSERT_EQ(expected, whole.content());
    for (size_t total : {nranks * slot, nranks * slot - slot / 2, slot / 2, size_t{0}}) {
        DeviceBuffer slices(Bytes(nranks * slot, 0xee));
        expected.assign(expected.size(), 0xee);
        for (size_t r = 0; r < nranks; r++)
            for (size_t i = own * slot; i < (own + 1) * slot && i < total; i++)
                expected[r * slot + i - own * slot] = byteOf(world(r), i);
        ASSERT_EQ(GS_SUCCESS, transport->scatterSlices(comm, send.data(), total, slices.data(), slot, rank.stream));
        ASSERT_EQ(GS_SUCCESS, gsCommSynchronize(comm, rank.stream));
        ASSERT_EQ(expected, slices.content()) << "total " << total;
    }
}

/* Small whole numbers, whose sum has the same bits in any order. */
void expectReducedSlices(const Rank &rank, gsComm_t comm, int step)
{
    const size_t nranks = static_cast<size_t>(comm->nranks), n = 1000;
    std::vector<float> mine(nranks * n), sum(n);
    float ranksTogether = 0;
    for (size_t r = 0; r < nranks; r++)
        ranksTogether += static_cast<float>(rank.rank % step + static_cast<int>(r) * step);
    for (size_t i = 0; i < mine.size(); i++)
        mine[i] = static_cast<float>(i % 100) + static_cast<float>(rank.rank);
    for (size_t i = 0; i < n; i++)
        sum[i] = static_cast<float>((static_cast<size_t>(comm->rank) * n + i) % 100) * static_cast<float>(nranks) +
                 ranksTogether;
    auto raw = [](const std::vector<float> &x) {
        Bytes bytes(4 * x.size());
        memcpy(bytes.data(), x.data(), bytes.size());
        return bytes;
    };
    DeviceBuffer send(raw(mine)), recv(Bytes(4 * n));
    ASSERT_EQ(GS_SUCCESS,
              comm->transport->reduceScatter(comm, send.data(), recv.data(), n, GS_FLOAT32, GS_SUM, rank.stream));
    ASSERT_EQ(GS_SUCCESS, gsCommSynchronize(comm, rank.stream));
    ASSERT_EQ(raw(sum), recv.content());
}

/* This rank's part of two, one rank after the other into the next. */
gsComm_t dealt(gsComm_t comm, int key = 0)
{
    gsComm_t part = nullptr;
    EXPECT_EQ(GS_SUCCESS, comm->transport->split(comm, comm->rank % 2, key, &part)) << gsGetLastError();
    return part;
}

TEST_P(NcclTransport, BytesArriveWhereTheyBelong)
{
    onRanks(GetParam(), 20000, [&](Rank &rank) {
        for (size_t slot : {size_t{12}, size_t{30000}})
            expectExchanges(rank, rank.comm, 1, slot);
        expectReducedSlices(rank, rank.comm, 1);
    });
}

TEST_P(NcclTransport, PartsExchangeAmongThemselves)
{
    int nranks = GetParam();
    onRanks(nranks, 20000, [&](Rank &rank) {
        gsComm_t up = dealt(rank.comm), down = dealt(rank.comm, -rank.rank);
        int members = (nranks - rank.rank % 2 + 1) / 2;
        ASSERT_EQ(members, up->nranks);
        ASSERT_EQ(rank.rank / 2, up->rank);
        ASSERT_EQ(members - 1 - rank.rank / 2, down->rank);
        uint64_t own = 100u + static_cast<uint64_t>(rank.rank);
        std::vector<uint64_t> all(static_cast<size_t>(members));
        ASSERT_EQ(GS_SUCCESS, down->transport->allGatherHost(down, &own, all.data(), sizeof own));
        for (int r = 0; r < members; r++)
            EXPECT_EQ(static_cast<uint64_t>(100 + rank.rank % 2 + 2 * (members - 1 - r)), all[static_cast<size_t>(r)]);
        expectExchanges(rank, up, 2, 3000 + static_cast<size_t>(rank.rank % 2));
        expectReducedSlices(rank, up, 2);
        expectExchanges(rank, rank.comm, 1, 300);
    });
}

/* The last rank does not come. Of the others, the first to lose patience aborts the whole; the rest may hear it from NCCL. */
TEST_P(NcclTransport, DeadlineWhileLengthsAreTraded)
{
    int nranks = GetParam();
    if (nranks == 1)
        GTEST_SKIP() << "one rank waits for nobody";
    onRanks(nranks, 20000, [&](Rank &rank) {
        DeviceBuffer send(Bytes(64)), recv(Bytes(64 * static_cast<size_t>(nranks)));
        if (rank.rank == nranks - 1) {
            std::this_thread::sleep_for(milliseconds(600));
            gsCommAbort(rank.comm);
            return;
        }
        rank.comm->timeoutMs = 200;
        gsResult_t end = rank.comm->transport->allGatherExact(rank.comm, send.data(), 64, recv.data(), 64, rank.stream);
        EXPECT_TRUE(end == GS_ERROR_TIMEOUT || end == GS_ERROR_TRANSPORT) << gsGetLastError();
        EXPECT_EQ(end, rank.commError());
    });
}

/* Rank 0 never comes to its part; abort of the whole ends the wait of the others in theirs. */
TEST_P(NcclTransport, AbortOfTheWholeEndsTheWaitInAPart)
{
    int nranks = GetParam();
    if (nranks < 3)
        GTEST_SKIP() << "no part of two ranks";
    onRanks(nranks, 20000, [&](Rank &rank) {
        gsComm_t part = dealt(rank.comm);
        DeviceBuffer own(Bytes(64)), all(Bytes(64 * static_cast<size_t>(part->nranks)));
        std::thread watchdog([&] {
            std::this_thread::sleep_for(milliseconds(100));
            EXPECT_EQ(GS_SUCCESS, gsCommAbort(rank.comm));
        });
        if (rank.rank != 0) {
            gsResult_t end = part->transport->allGather(part, own.data(), all.data(), 64, rank.stream);
            if (rank.rank % 2 == 0) {
                EXPECT_EQ(GS_SUCCESS, end);
                end = gsCommSynchronize(part, rank.stream);
                EXPECT_TRUE(end == GS_ERROR_ABORTED || end == GS_ERROR_TRANSPORT) << gsGetLastError();
            }
        }
        watchdog.join();
        EXPECT_NE(GS_SUCCESS, rank.commError());
        EXPECT_NE(GS_SUCCESS, gsCommSynchronize(part, rank.stream));
    });
}

/* ---- nodes ---- */

class NcclNodes : public Nccl
{
  protected:
    /* As many ranks a node as go into all of them, one after the other. */
    template <class Body> void forEachShape(const std::string &recipe, gsDataType_t type, Body body)
    {
        for (int ranksPerNode = 1; ranksPerNode <= GetParam(); ranksPerNode++) {
            if (GetParam() % ranksPerNode)
                continue;
            Plan plan = planOf(recipe + (recipe.find(':') == std::string::npos ? ":" : ",") + "exchange=hierarchical",
                               type, 9001);
            plan.ranksPerNode = ranksPerNode;
            SCOPED_TRACE(plan.recipe + " " + gst::nameOf(type) + ", " + std::to_string(ranksPerNode) + " ranks a node");
            body(plan);
        }
    }
};

INSTANTIATE_TEST_SUITE_P(Ranks, NcclNodes, testing::Values(1, 2, 3, 4), testing::PrintToStringParamName());

/* Whole numbers whose sums are exact in every type, and so the same in any order. */
gst::Gradients wholeGradients(const Plan &plan, int step)
{
    gst::Gradients gradients = gst::makeGradients(Shape::Skewed, plan, static_cast<uint64_t>(step));
    for (std::vector<float> &g : gradients)
        for (float &x : g)
            x = std::fmax(-60.0f, std::fmin(60.0f, std::nearbyint(8 * x)));
    return gradients;
}

Bytes wholeGradient(const Plan &plan, int rank, int step)
{
    return gst::Buffer(plan.type, wholeGradients(plan, step)[static_cast<size_t>(rank)]).raw();
}

gst::Reference nodesOnThreads(const Plan &plan, int steps)
{
    gst::Reference reference;
    gst::ThreadRanks ranks(plan);
    for (int step = 0; step < steps; step++) {
        Bytes theta = iterateOf(plan, step);
        for (int r = 0; r < plan.nranks && usesIterates(plan.recipe); r++)
            tellIterate(ranks.reducer(r), plan, theta.data());
        reference.steps.push_back(ranks.allReduce(wholeGradients(plan, step / 2)));
    }
    reference.states = ranks.states();
    for (int r = 0; r < plan.nranks; r++)
        reference.stats.push_back(ranks.stats(r));
    return reference;
}

TEST_P(NcclNodes, AreFoundByTheHostOrGiven)
{
    int nranks = GetParam();
    onRanks(nranks, 20000, [&](Rank &rank) {
        int nodes = -1, node = -1;
        ASSERT_EQ(GS_SUCCESS, gsCommGetNodes(rank.comm, &nodes, &node)) << gsGetLastError();
        EXPECT_EQ(1, nodes);
        EXPECT_EQ(0, node);
        rank.comm->ranksPerNode = 2;
        ASSERT_EQ(GS_SUCCESS, gsCommGetNodes(rank.comm, &nodes, &node)) << gsGetLastError();
        EXPECT_EQ((nranks + 1) / 2, nodes);
        EXPECT_EQ(rank.rank / 2, node);
    });
}

TEST_P(NcclNodes, HierarchicalEqualsThreads)
{
    const int steps = 3;
    size_t which = 0;
    for (const char *recipe :
         {"threshold:density=0.05", "gspar:value=shared", "chunk-topk:k=4", "ef21:density=0.1", "diana:first=dense",
          "cdadam", "gdsec:xi=1", "tng:reference=last+ema,search=hindsight", "threshold:density=0.1,twoway=1"})
        forEachShape(recipe, gst::allTypes()[which++ % 4], [&](Plan plan) {
            if (!gst::isDrawn(which + static_cast<size_t>(plan.ranksPerNode + plan.nranks)))
                return;
            plan.op = plan.ranksPerNode == 3 || which % 2 ? GS_SUM : GS_AVG; /* thirds are exact nowhere */
            gst::Reference expected = nodesOnThreads(plan, steps);
            onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
                SCOPED_TRACE(plan.recipe + ", " + std::to_string(plan.ranksPerNode) + " a node, rank " +
                             std::to_string(rank.rank));
                size_t mine = static_cast<size_t>(rank.rank);
                ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
                for (int step = 0; step < steps; step++) {
                    Bytes gradient = wholeGradient(plan, rank.rank, step / 2);
                    DeviceBuffer send(gradient), recv(Bytes(gradient.size())), theta(iterateOf(plan, step));
                    DeviceBuffer &out = step % 2 ? send : recv;
                    if (usesIterates(plan.recipe))
                        tellIterate(rank.reducer, plan, theta.data());
                    ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), out.data())) << gsGetLastError();
                    ASSERT_EQ(GS_SUCCESS, rank.finish()) << gsGetLastError();
                    ASSERT_EQ(expected.steps[static_cast<size_t>(step)][mine], out.content()) << "step " << step;
                }
                EXPECT_EQ(GS_SUCCESS, rank.reducerError());
                EXPECT_EQ(expected.states[mine], gst::exportState(rank.reducer));
                gst::expectSameStats(expected.stats[mine], gst::statsOf(rank.reducer));
                EXPECT_EQ(expected.stats[mine].nodeBytes, gst::statsOf(rank.reducer).nodeBytes);
            });
        });
}

/* Slices that fill the gradient need no copy of it; short and empty ones do. */
TEST_P(NcclNodes, EveryCountEqualsThreads)
{
    for (uint64_t count : {0ull, 1ull, 4097ull, 4ull * 3 * 4096})
        forEachShape("chunk-topk:k=4", GS_FLOAT32, [&](Plan plan) {
            plan.count = count;
            gst::Reference expected = nodesOnThreads(plan, 1);
            onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
                Bytes gradient = wholeGradient(plan, rank.rank, 0);
                DeviceBuffer send(gradient), recv(Bytes(gradient.size()));
                ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
                ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), recv.data())) << gsGetLastError();
                ASSERT_EQ(GS_SUCCESS, rank.finish());
                EXPECT_EQ(expected.steps[0][static_cast<size_t>(rank.rank)], recv.content()) << "count " << count;
                EXPECT_EQ(gradient, send.content());
            });
        });
}

TEST_P(NcclNodes, NaNOnOneRankIsNaNOnAllAndChangesNoState)
{
    for (const char *recipe : {"threshold:density=0.05", "ef21:density=0.1", "cdadam", "diana:first=dense"})
        forEachShape(recipe, GS_FLOAT32, [&](Plan plan) {
            onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
                Bytes gradient = wholeGradient(plan, rank.rank, 0), poisoned = gradient;
                if (rank.rank == plan.nranks - 1)
                    memset(&poisoned[4 * 9000], 0xff, 4);
                DeviceBuffer good(gradient), bad(poisoned), recv(Bytes(gradient.size()));
                ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
                ASSERT_EQ(GS_SUCCESS, rank.call(plan, good.data(), recv.data()));
                ASSERT_EQ(GS_SUCCESS, rank.finish());
                Bytes state = gst::exportState(rank.reducer);
                ASSERT_EQ(GS_SUCCESS, rank.call(plan, bad.data(), recv.data()));
                ASSERT_EQ(GS_SUCCESS, rank.finish());
                EXPECT_TRUE(gst::allNaN(recv.content(), plan.type));
                EXPECT_EQ(state, gst::exportState(rank.reducer));
                EXPECT_EQ(1u, gst::statsOf(rank.reducer).nonFinite);
                EXPECT_EQ(GS_SUCCESS, rank.reducerError());
            });
        });
}

/* Node 1's record of the second slice arrives with another checksum on all nodes: an error of every rank, named alike. */
gsResult_t corruptSlice(gsComm_t comm, const void *send, void *recv, size_t bytes, gsStream_t stream)
{
    GS_CHECK(ncclTable->allGather(comm, send, recv, bytes, stream));
    if (comm->color != 1)
        return GS_SUCCESS;
    EXPECT_CUDA(cudaMemsetAsync(static_cast<uint8_t *>(recv) + bytes + 56, 0x3c, 8, static_cast<cudaStream_t>(stream)));
    return GS_SUCCESS;
}

TEST_P(NcclNodes, CorruptRecordOfOneSliceIsEveryRanksError)
{
    if (GetParam() != 4)
        GTEST_SKIP() << "two nodes of two ranks";
    for (const char *recipe : {"threshold:density=0.05", "ef21:density=0.1", "cdadam"}) {
        Plan plan =
            planOf(std::string(recipe) + (recipe[0] == 'c' ? ":" : ",") + "exchange=hierarchical", GS_FLOAT32, 9001);
        plan.ranksPerNode = 2;
        gst::Reference expected = nodesOnThreads(plan, 2);
        onRanks(4, plan.timeoutMs, [&](Rank &rank) {
            SCOPED_TRACE(recipe);
            Bytes gradient = wholeGradient(plan, rank.rank, 0), untouched(gradient.size(), 0x11);
            DeviceBuffer send(gradient), recv(untouched);
            ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
            ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), recv.data()));
            ASSERT_EQ(GS_SUCCESS, rank.finish());
            Bytes state = gst::exportState(rank.reducer), result = recv.content();
            if (rank.rank == 0)
                ncclTable = rank.comm->transport;
            ASSERT_EQ(GS_SUCCESS, rank.comm->transport->allGatherHost(rank.comm, &state, Bytes(64).data(), 1));
            {
                gst::OtherAllGather corrupt(rank.comm->across, corruptSlice);
                ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), recv.data()));
            }
            ASSERT_EQ(GS_SUCCESS, rank.finish());
            EXPECT_EQ(result, recv.content());
            EXPECT_EQ(state, gst::exportState(rank.reducer));
            EXPECT_EQ(GS_ERROR_CORRUPT, rank.reducerError());
            EXPECT_NE(std::string::npos, std::string(gsGetLastError()).find("rank 3")) << gsGetLastError();
            ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), recv.data()));
            ASSERT_EQ(GS_SUCCESS, rank.finish());
            EXPECT_EQ(expected.steps[1][static_cast<size_t>(rank.rank)], recv.content());
            EXPECT_EQ(expected.states[static_cast<size_t>(rank.rank)], gst::exportState(rank.reducer));
        });
    }
}

gsResult_t silentReduceScatter(gsComm_t, const void *, void *, size_t, gsDataType_t, gsRedOp_t, gsStream_t)
{
    return gsFail(GS_ERROR_SYSTEM, "as if this rank had died");
}

/* The last rank leaves before the sum inside its node, before records travel, or before the results are gathered: nobody commits, not
 * even nodes that need nothing more from it. */
TEST_P(NcclNodes, RankSilentInAnyStepFailsAllAndChangesNothing)
{
    int nranks = GetParam();
    if (nranks == 1)
        GTEST_SKIP() << "one rank waits for nobody";
    size_t which = static_cast<size_t>(nranks);
    for (const char *recipe : {"threshold:density=0.05", "ef21:density=0.1"})
        for (int step = 0; step < 3; step++)
            forEachShape(recipe, GS_FLOAT32, [&](Plan plan) {
                if (!gst::isDrawn(which++))
                    return;
                std::atomic<int> there{0};
                onRanks(nranks, 20000, [&](Rank &rank) {
                    SCOPED_TRACE(plan.recipe + ", step " + std::to_string(step) + ", " +
                                 std::to_string(plan.ranksPerNode) + " a node, rank " + std::to_string(rank.rank));
                    Bytes gradient = wholeGradient(plan, rank.rank, 0);
                    DeviceBuffer send(gradient), recv(gradient);
                    ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
                    ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), recv.data()));
                    ASSERT_EQ(GS_SUCCESS, rank.finish());
                    meet(there, nranks);
                    Bytes state = gst::exportState(rank.reducer), result = recv.content();
                    gsComm_t part = step == 1 ? rank.comm->across : rank.comm->node;
                    gsTransport table = *part->transport;
                    if (step == 0)
                        table.reduceScatter = silentReduceScatter;
                    else
                        table.allGather = silentAllGather;
                    if (rank.rank == nranks - 1) {
                        part->transport = &table;
                        EXPECT_EQ(GS_ERROR_SYSTEM, rank.call(plan, send.data(), recv.data()));
                        std::this_thread::sleep_for(milliseconds(600));
                        gsCommAbort(rank.comm);
                    } else {
                        rank.comm->timeoutMs = 200;
                        ASSERT_EQ(GS_SUCCESS, rank.call(plan, send.data(), recv.data()));
                        gsResult_t end = rank.finish();
                        EXPECT_TRUE(end == GS_ERROR_TIMEOUT || end == GS_ERROR_TRANSPORT) << gsGetLastError();
                    }
                    EXPECT_EQ(result, recv.content());
                    EXPECT_EQ(state, gst::exportState(rank.reducer));
                });
            });
}

TEST_P(NcclNodes, ReplayedGraphEqualsCalls)
{
    const int replays = 12;
    std::atomic<bool> captured{true};
    for (const char *recipe : {"threshold:density=0.02", "ef21:density=0.1", "gspar:density=0.05"})
        forEachShape(recipe, GS_BFLOAT16, [&](Plan plan) {
            plan.count = 5000;
            std::vector<gst::Results> expected;
            gst::ThreadRanks threads(plan);
            for (int step = 0; step < replays; step++)
                expected.push_back(threads.allReduce(wholeGradients(plan, 0)));
            onRanks(plan.nranks, 60000, [&](Rank &rank) {
                replay(rank, plan, wholeGradient(plan, rank.rank, 0), expected, 5, captured);
                if (!captured)
                    return;
                EXPECT_EQ(threads.state(rank.rank), gst::exportState(rank.reducer));
            });
        });
    if (!captured)
        GTEST_SKIP() << "no stream capture here";
}

/* ---- lists of tensors ---- */

/* A list's tensors on the device, each in memory of its own. */
class DeviceTensors
{
  public:
    DeviceTensors(const Plan &plan, const Bytes &content)
    {
        auto at = content.begin();
        for (uint64_t n : plan.segments) {
            auto end = at + static_cast<long>(n * gst::bytesOf(plan.type));
            buffers_.push_back(std::make_unique<DeviceBuffer>(Bytes(at, end)));
            at = end;
        }
    }
    std::vector<void *> pointers() const
    {
        std::vector<void *> all;
        for (const auto &buffer : buffers_)
            all.push_back(buffer->data());
        return all;
    }
    Bytes content() const
    {
        Bytes all;
        for (const auto &buffer : buffers_) {
            Bytes one = buffer->content();
            all.insert(all.end(), one.begin(), one.end());
        }
        return all;
    }

  private:
    std::vector<std::unique_ptr<DeviceBuffer>> buffers_;
};

gsResult_t callList(Rank &rank, const Plan &plan, const DeviceTensors &from, const DeviceTensors &to)
{
    std::vector<void *> send = from.pointers(), recv = to.pointers();
    gsResult_t result = gst::reduceTensors(plan, rank.reducer, send, recv, rank.stream);
    std::fill(send.begin(), send.end(), nullptr); /* the arrays are the caller's again, before the call has run */
    std::fill(recv.begin(), recv.end(), nullptr);
    return result;
}

/* Other tensors every time, apart and in place; more of them than one launch carries. */
void expectListAsThreads(const Plan &plan)
{
    const int steps = 3;
    gst::Reference expected = gst::runOnThreads(plan, Shape::Skewed, steps);
    onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
        SCOPED_TRACE(plan.recipe + " " + gst::nameOf(plan.type) + " rank " + std::to_string(rank.rank));
        size_t mine = static_cast<size_t>(rank.rank);
        ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
        for (int step = 0; step < steps; step++) {
            Bytes gradient = gradientOf(plan, rank.rank, step);
            DeviceTensors send(plan, gradient), recv(plan, Bytes(gradient.size()));
            const DeviceTensors &out = step % 2 ? send : recv;
            ASSERT_EQ(GS_SUCCESS, callList(rank, plan, send, out)) << gsGetLastError();
            ASSERT_EQ(GS_SUCCESS, rank.finish()) << gsGetLastError();
            ASSERT_EQ(expected.steps[static_cast<size_t>(step)][mine], out.content()) << "step " << step;
            ASSERT_TRUE(step % 2 || gradient == send.content()) << "a gradient was modified";
        }
        EXPECT_EQ(GS_SUCCESS, rank.reducerError());
        EXPECT_EQ(expected.states[mine], gst::exportState(rank.reducer));
        gst::expectSameStats(expected.stats[mine], gst::statsOf(rank.reducer));
    });
}

TEST_P(Nccl, ListsEqualThreads)
{
    size_t which = static_cast<size_t>(GetParam());
    for (const char *recipe : {"threshold:density=0.05", "chunk-topk:k=16", "gspar:value=shared", "randk:density=0.1",
                               "ef-sign", "cdadam", "tng:reference=last+ema,search=worker"}) {
        gsDataType_t type = which / 2 % 2 ? GS_FLOAT32 : GS_BFLOAT16;
        Plan plan = gst::listOf(recipe, {5000, 300, 4096, 0, 1}, GetParam(), type);
        if (!gst::isDrawn(which++))
            continue;
        plan.op = type == GS_FLOAT32 ? GS_SUM : GS_AVG;
        expectListAsThreads(plan);
    }
    std::vector<uint64_t> many(300, 3);
    many[7] = 4100;
    expectListAsThreads(gst::listOf("threshold:density=0.05", many, GetParam()));
}

/* The plain sum of a list, where NCCL's order is the rank order. */
TEST_P(Nccl, DenseListsAreClose)
{
    Plan plan = gst::listOf("dense", {5000, 300, 1, 0, 4097}, GetParam(), GS_FLOAT32);
    std::vector<float> sum = gst::numbersOf(gst::runOnThreads(plan, Shape::Skewed, 1).steps[0][0], plan.type);
    onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
        ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
        DeviceTensors tensors(plan, gradientOf(plan, rank.rank, 0));
        ASSERT_EQ(GS_SUCCESS, callList(rank, plan, tensors, tensors)) << gsGetLastError();
        ASSERT_EQ(GS_SUCCESS, rank.finish());
        std::vector<float> found = gst::numbersOf(tensors.content(), plan.type);
        for (size_t i = 0; i < found.size(); i++)
            ASSERT_NEAR(sum[i], found[i], 1e-5) << "element " << i;
    });
}

/* A graph keeps the tensors that it was captured with, whatever calls come between its replays. */
TEST_P(Nccl, ReplayedListsKeepTheirTensors)
{
    const int rounds = 4;
    std::atomic<bool> captured{true};
    for (const char *recipe : {"gspar:density=0.05", "threshold:density=0.02"}) {
        Plan plan = gst::listOf(recipe, {5000, 300, 4096, 700}, GetParam(), GS_BFLOAT16);
        std::vector<gst::Results> expected;
        gst::ThreadRanks threads(plan);
        for (int step = 0; step < 2 * rounds; step++)
            expected.push_back(threads.allReduce(gst::makeGradients(Shape::Skewed, plan, step % 2)));
        onRanks(plan.nranks, 60000, [&](Rank &rank) {
            SCOPED_TRACE(recipe);
            size_t mine = static_cast<size_t>(rank.rank);
            ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
            Bytes zeros(plan.count * gst::bytesOf(plan.type));
            DeviceTensors even(plan, gradientOf(plan, rank.rank, 0)), odd(plan, gradientOf(plan, rank.rank, 1));
            DeviceTensors evenSum(plan, zeros), oddSum(plan, zeros);
            cudaGraphExec_t graph = capture(rank, [&] { return callList(rank, plan, even, evenSum); });
            if (!graph) {
                captured = false;
                return;
            }
            for (size_t round = 0; round < rounds; round++) {
                ASSERT_EQ(cudaSuccess, cudaGraphLaunch(graph, rank.stream));
                ASSERT_EQ(GS_SUCCESS, callList(rank, plan, odd, oddSum)) << gsGetLastError();
                ASSERT_EQ(GS_SUCCESS, rank.finish()) << gsGetLastError();
                ASSERT_EQ(expected[2 * round][mine], evenSum.content()) << "replay " << round;
                ASSERT_EQ(expected[2 * round + 1][mine], oddSum.content()) << "call " << round;
            }
            EXPECT_EQ(GS_SUCCESS, rank.reducerError());
            EXPECT_CUDA(cudaGraphExecDestroy(graph));
        });
    }
    if (!captured)
        GTEST_SKIP() << "no stream capture here";
}

/* llm.c's way: a reducer a layer, on one communicator and stream, in place, without waiting in between. */
TEST_P(Nccl, ReducersOfLayersShareACommunicator)
{
    enum { LAYERS = 3 };
    const uint64_t w = 40;
    Plan plan = gst::listOf("chunk-topk:k=64", {w, w, 3 * w * w, 3 * w, w * w, w, w, w, 4 * w * w, 4 * w, 4 * w * w, w},
                            GetParam(), GS_BFLOAT16);
    plan.op = GS_AVG;
    gst::Results expected[LAYERS];
    for (int layer = 0; layer < LAYERS; layer++) {
        gst::ThreadRanks threads(plan);
        expected[layer] = threads.allReduce(gst::makeGradients(Shape::Skewed, plan, static_cast<uint64_t>(layer)));
    }
    onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
        gsReducer_t reducers[LAYERS] = {};
        std::vector<std::unique_ptr<DeviceTensors>> layers;
        for (int layer = 0; layer < LAYERS; layer++) {
            ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
            std::swap(reducers[layer], rank.reducer);
            layers.push_back(std::make_unique<DeviceTensors>(plan, gradientOf(plan, rank.rank, layer)));
        }
        for (int layer = LAYERS - 1; layer >= 0; layer--) {
            std::swap(reducers[layer], rank.reducer);
            const DeviceTensors &tensors = *layers[static_cast<size_t>(layer)];
            ASSERT_EQ(GS_SUCCESS, callList(rank, plan, tensors, tensors)) << gsGetLastError();
            std::swap(reducers[layer], rank.reducer);
        }
        ASSERT_EQ(GS_SUCCESS, rank.finish()) << gsGetLastError();
        for (int layer = 0; layer < LAYERS; layer++) {
            EXPECT_EQ(expected[layer][static_cast<size_t>(rank.rank)], layers[static_cast<size_t>(layer)]->content());
            EXPECT_EQ(GS_SUCCESS, gsReducerDestroy(reducers[layer]));
        }
    });
}

/* ---- the halves ---- */

/* What this rank gives at a step, in the buffer that it is given from: in place that of the whole vector. */
struct Given {
    Given(const Plan &plan, int rank, int step, bool inPlace)
        : own(gst::Buffer(plan.type, gst::givenTo(plan, static_cast<uint64_t>(step))[static_cast<size_t>(rank)]).raw()),
          gathers(plan.collective == GS_ALL_GATHER),
          first(static_cast<size_t>(rank) * gst::sliceOf(plan) * gst::bytesOf(plan.type)), inPlace(inPlace),
          slice(gst::sliceOf(plan) * gst::bytesOf(plan.type)), apart(own),
          result(Bytes(gst::gotBy(plan) * gst::bytesOf(plan.type))), both(Bytes(plan.count * gst::bytesOf(plan.type)))
    {
        EXPECT_CUDA(cudaMemcpy(static_cast<uint8_t *>(both.data()) + (gathers ? first : 0), own.data(), own.size(),
                               cudaMemcpyHostToDevice));
        EXPECT_CUDA(cudaDeviceSynchronize());
    }
    const void *send()
    {
        return !inPlace ? apart.data() : static_cast<uint8_t *>(both.data()) + (gathers ? first : 0);
    }
    void *recv()
    {
        return !inPlace ? result.data() : static_cast<uint8_t *>(both.data()) + (gathers ? 0 : first);
    }
    Bytes got()
    {
        Bytes all = inPlace ? both.content() : result.content();
        if (!inPlace || gathers)
            return all;
        return Bytes(all.begin() + static_cast<long>(first), all.begin() + static_cast<long>(first + slice));
    }

    Bytes own;
    bool gathers;
    size_t first;
    bool inPlace;
    size_t slice;
    DeviceBuffer apart, result, both;
};

gst::Reference halfOnThreads(const Plan &plan, int steps)
{
    gst::Reference reference;
    gst::ThreadRanks ranks(plan);
    for (int step = 0; step < steps; step++)
        reference.steps.push_back(gst::runHalf(ranks, gst::givenTo(plan, static_cast<uint64_t>(step))));
    reference.states = ranks.states();
    for (int r = 0; r < plan.nranks; r++)
        reference.stats.push_back(ranks.stats(r));
    return reference;
}

void expectHalfAsThreads(const Plan &plan)
{
    const int steps = 3;
    gst::Reference expected = halfOnThreads(plan, steps);
    onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
        SCOPED_TRACE(plan.recipe + " " + gst::nameOf(plan.type) +
                     (plan.collective == GS_ALL_GATHER ? " gathered" : "") + " rank " + std::to_string(rank.rank));
        size_t mine = static_cast<size_t>(rank.rank);
        ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
        for (int step = 0; step < steps; step++) {
            Given given(plan, rank.rank, step, step % 2);
            ASSERT_EQ(GS_SUCCESS, gst::callHalf(plan, rank.reducer, given.send(), given.recv(), rank.stream))
                << gsGetLastError();
            ASSERT_EQ(GS_SUCCESS, rank.finish()) << gsGetLastError();
            ASSERT_EQ(expected.steps[static_cast<size_t>(step)][mine], given.got()) << "step " << step;
        }
        EXPECT_EQ(GS_SUCCESS, rank.reducerError());
        EXPECT_EQ(expected.states[mine], gst::exportState(rank.reducer));
        gst::expectSameStats(expected.stats[mine], gst::statsOf(rank.reducer));
    });
}

/* All that is made once is made before the ranks are: their threads only read. */
TEST_P(Nccl, HalvesEqualThreads)
{
    size_t which = static_cast<size_t>(GetParam());
    for (gsCollective_t collective : {GS_REDUCE_SCATTER, GS_ALL_GATHER})
        for (const char *recipe :
             {"threshold:density=0.05", "chunk-topk:k=40,exchange=exact", "gspar:density=0.1,value=shared", "terngrad",
              "qsgd:bucket=all", "topk:density=0.1,value=2bit", "ef21:density=0.1", "diana:select=gspar,density=0.2",
              "randk:density=0.1", "diana:select=randk,density=0.2,exchange=exact", "dgc:density=0.05,clip=2"}) {
            bool scattered = gst::contains(recipe, "randk") || gst::contains(recipe, "dgc");
            if ((scattered && collective == GS_ALL_GATHER) || !gst::isDrawn(++which))
                continue;
            static const uint64_t slices[] = {4099, 1333, 4096};
            Plan plan = gst::halfOf(collective, recipe, slices[which % 3], GetParam(), gst::allTypes()[which / 2 % 4]);
            plan.op = which % 3 ? GS_AVG : GS_SUM;
            expectHalfAsThreads(plan);
        }
    expectHalfAsThreads(gst::halfOf(GS_ALL_GATHER, "dense", 4099, GetParam(), GS_BFLOAT16));
    expectHalfAsThreads(gst::halfOf(GS_REDUCE_SCATTER, "threshold", 0, GetParam(), GS_BFLOAT16));
    expectHalfAsThreads(gst::halfOf(GS_ALL_GATHER, "ef-sign", 1, GetParam(), GS_BFLOAT16));
}

TEST_P(Nccl, DenseScatteredSumsAreClose)
{
    Plan plan = gst::halfOf(GS_REDUCE_SCATTER, "dense", 4099, GetParam());
    gst::Reference expected = halfOnThreads(plan, 2);
    onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
        ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
        for (int step = 0; step < 2; step++) {
            Given given(plan, rank.rank, step, step == 1);
            ASSERT_EQ(GS_SUCCESS, gst::callHalf(plan, rank.reducer, given.send(), given.recv(), rank.stream));
            ASSERT_EQ(GS_SUCCESS, rank.finish());
            std::vector<float> sum = gst::numbersOf(
                                   expected.steps[static_cast<size_t>(step)][static_cast<size_t>(rank.rank)],
                                   plan.type),
                               found = gst::numbersOf(given.got(), plan.type);
            for (size_t i = 0; i < found.size(); i++)
                ASSERT_NEAR(sum[i], found[i], 1e-5) << "element " << i;
        }
        EXPECT_EQ(GS_SUCCESS, rank.reducerError());
    });
}

TEST_P(Nccl, NaNInOneSliceIsNaNInAll)
{
    for (gsCollective_t collective : {GS_REDUCE_SCATTER, GS_ALL_GATHER})
        for (const char *recipe : {"dense", "threshold:density=0.1", "diana"}) {
            Plan plan = gst::halfOf(collective, recipe, 4099, GetParam());
            gst::givenTo(plan, 0);
            onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
                SCOPED_TRACE(recipe);
                Given good(plan, rank.rank, 0, false), bad(plan, rank.rank, 0, true);
                if (rank.rank == plan.nranks - 1) {
                    void *from = const_cast<void *>(bad.send());
                    EXPECT_CUDA(cudaMemset(static_cast<float *>(from) + 4098, 0xff, 4));
                    EXPECT_CUDA(cudaDeviceSynchronize());
                }
                ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
                ASSERT_EQ(GS_SUCCESS, gst::callHalf(plan, rank.reducer, good.send(), good.recv(), rank.stream));
                ASSERT_EQ(GS_SUCCESS, rank.finish());
                Bytes state = gst::exportState(rank.reducer);
                ASSERT_EQ(GS_SUCCESS, gst::callHalf(plan, rank.reducer, bad.send(), bad.recv(), rank.stream));
                ASSERT_EQ(GS_SUCCESS, rank.finish());
                EXPECT_TRUE(gst::allNaN(bad.got(), plan.type));
                EXPECT_EQ(state, gst::exportState(rank.reducer));
                EXPECT_EQ(1u, gst::statsOf(rank.reducer).nonFinite);
                EXPECT_EQ(GS_SUCCESS, rank.reducerError());
            });
        }
}

/* As the transport's, but rank 0's part reaches the last owner with another checksum. */
gsResult_t corruptScatter(gsComm_t comm, const void *send, size_t totalBytes, void *recv, size_t sliceBytes,
                          gsStream_t stream)
{
    GS_CHECK(ncclTable->scatterSlices(comm, send, totalBytes, recv, sliceBytes, stream));
    if (comm->rank != comm->nranks - 1)
        return GS_SUCCESS;
    EXPECT_CUDA(cudaMemsetAsync(static_cast<uint8_t *>(recv) + 56, 0x3c, 8, static_cast<cudaStream_t>(stream)));
    return GS_SUCCESS;
}

TEST_P(Nccl, CorruptPartOfOneOwnerIsEveryRanksError)
{
    for (const char *recipe : {"threshold:density=0.05", "ef21:density=0.1"}) {
        Plan plan = gst::halfOf(GS_REDUCE_SCATTER, recipe, 4099, GetParam());
        gst::Reference expected = halfOnThreads(plan, 2);
        onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
            SCOPED_TRACE(recipe);
            size_t mine = static_cast<size_t>(rank.rank);
            Given first(plan, rank.rank, 0, false), second(plan, rank.rank, 1, false);
            ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
            ASSERT_EQ(GS_SUCCESS, gst::callHalf(plan, rank.reducer, first.send(), first.recv(), rank.stream));
            ASSERT_EQ(GS_SUCCESS, rank.finish());
            Bytes state = gst::exportState(rank.reducer), untouched = second.got();
            if (rank.rank == 0)
                ncclTable = rank.comm->transport;
            ASSERT_EQ(GS_SUCCESS, rank.comm->transport->allGatherHost(rank.comm, &state, Bytes(64).data(), 1));
            gsTransport corrupt = *rank.comm->transport;
            corrupt.scatterSlices = corruptScatter;
            rank.comm->transport = &corrupt;
            ASSERT_EQ(GS_SUCCESS, gst::callHalf(plan, rank.reducer, second.send(), second.recv(), rank.stream));
            rank.comm->transport = ncclTable;
            ASSERT_EQ(GS_SUCCESS, rank.finish());
            EXPECT_EQ(untouched, second.got());
            EXPECT_EQ(state, gst::exportState(rank.reducer));
            EXPECT_EQ(GS_ERROR_CORRUPT, rank.reducerError());
            ASSERT_EQ(GS_SUCCESS, rank.comm->transport->allGatherHost(rank.comm, &state, Bytes(64).data(), 1));
            ASSERT_EQ(GS_SUCCESS, gst::callHalf(plan, rank.reducer, second.send(), second.recv(), rank.stream));
            ASSERT_EQ(GS_SUCCESS, rank.finish());
            EXPECT_EQ(expected.steps[1][mine], second.got());
            EXPECT_EQ(expected.states[mine], gst::exportState(rank.reducer));
        });
    }
}

TEST_P(Nccl, ReplayedHalvesEqualCalls)
{
    const int replays = 20;
    std::atomic<bool> captured{true};
    if (GetParam() > 2)
        GTEST_SKIP() << "two ranks show it, in less time";
    for (gsCollective_t collective : {GS_REDUCE_SCATTER, GS_ALL_GATHER})
        for (const char *recipe : {"threshold:density=0.05", "diana"}) {
            Plan plan = gst::halfOf(collective, recipe, 4099, GetParam(), GS_BFLOAT16);
            std::vector<gst::Results> expected;
            gst::ThreadRanks threads(plan);
            for (int step = 0; step < replays; step++)
                expected.push_back(gst::runHalf(threads, gst::givenTo(plan, 0)));
            onRanks(plan.nranks, 60000, [&](Rank &rank) {
                SCOPED_TRACE(recipe);
                Given given(plan, rank.rank, 0, false);
                ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
                cudaGraphExec_t graph = capture(rank, [&] {
                    return gst::callHalf(plan, rank.reducer, given.send(), given.recv(), rank.stream);
                });
                if (!graph) {
                    captured = false;
                    return;
                }
                for (int step = 0; step < replays; step++) {
                    ASSERT_EQ(cudaSuccess, cudaGraphLaunch(graph, rank.stream));
                    ASSERT_EQ(GS_SUCCESS, rank.finish()) << gsGetLastError();
                    ASSERT_EQ(expected[static_cast<size_t>(step)][static_cast<size_t>(rank.rank)], given.got()) << step;
                }
                EXPECT_EQ(threads.state(rank.rank), gst::exportState(rank.reducer));
                EXPECT_CUDA(cudaGraphExecDestroy(graph));
            });
        }
    if (!captured)
        GTEST_SKIP() << "no stream capture here";
}

TEST(NcclArguments, AreChecked)
{
    gsComm_t comm = nullptr;
    EXPECT_EQ(GS_ERROR_INVALID_ARGUMENT, gsCommInitNccl(&comm, nullptr, nullptr));
    if (deviceCount() < 2)
        GTEST_SKIP() << "the rest needs two devices";
    ncclUniqueId id;
    ncclComm_t nccl = nullptr;
    ASSERT_EQ(cudaSuccess, cudaSetDevice(1));
    ASSERT_EQ(ncclSuccess, ncclGetUniqueId(&id));
    ASSERT_EQ(ncclSuccess, ncclCommInitRank(&nccl, 1, id, 0));
    EXPECT_EQ(GS_ERROR_INVALID_ARGUMENT, gsCommInitNccl(nullptr, nccl, nullptr));
    EXPECT_CUDA(cudaSetDevice(0));
    EXPECT_EQ(GS_ERROR_INVALID_USAGE, gsCommInitNccl(&comm, nccl, nullptr)) << "another device is current";
    EXPECT_EQ(nullptr, comm);
    EXPECT_EQ(ncclSuccess, ncclCommDestroy(nccl));
}

} // namespace
