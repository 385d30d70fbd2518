/* gsAllReduceStep over NCCL: parameters and moments of every rank are those of ranks as threads, bit for bit, in graphs too. */
#include "draw.h"
#include "nccl_ranks.h"
#include "steps.h"

#include <atomic>

namespace gst
{
namespace
{

/* A rank's vectors on its device. */
class DeviceVectors
{
  public:
    explicit DeviceVectors(const Plan &plan)
    {
        for (const Bytes &vector : StepVectors(plan.count, stateTypeOf(plan.type)).raw())
            vectors_.push_back(std::make_unique<DeviceBuffer>(vector));
    }
    gsOptimizer_t optimizer(gsOptimizerKind_t kind, const Plan &plan)
    {
        gsOptimizer_t o = optimizerOf(kind, stateTypeOf(plan.type));
        pointTo(&o, vectors_[0]->data(), vectors_[1]->data(), vectors_[2]->data(), vectors_[3]->data());
        return o;
    }
    std::vector<Bytes> raw()
    {
        std::vector<Bytes> all;
        for (const std::unique_ptr<DeviceBuffer> &vector : vectors_)
            all.push_back(vector->content());
        return all;
    }

  private:
    std::vector<std::unique_ptr<DeviceBuffer>> vectors_;
};

/* Whole numbers, whose sums are exact in any order: also where NCCL sums. */
Vectors wholeGradients(const Plan &plan, uint64_t step)
{
    Vectors all(static_cast<size_t>(plan.nranks), Vector(plan.count));
    for (size_t r = 0; r < all.size(); r++)
        for (size_t i = 0; i < plan.count; i++)
            all[r][i] = static_cast<double>(((i + 1) * 2654435761u + 977 * r + 31 * step) >> 9 & 15) - 8;
    return all;
}

/* What every step leaves on the CPU. The second one has a NaN, on the last rank. */
struct Expected {
    std::vector<std::vector<Bytes>> vectors;
    std::vector<Bytes> states; /* after the last one */
};

const uint64_t steps = 4;

Vectors gradientsOf(const Plan &plan, uint64_t step)
{
    Vectors gradients = wholeGradients(plan, step);
    if (step == 1)
        gradients.back()[plan.count / 2] = std::nan("");
    return gradients;
}

Expected runThreads(const Plan &plan, gsOptimizerKind_t kind)
{
    Expected expected;
    StepFleet fleet(plan, kind);
    for (uint64_t step = 0; step < steps; step++) {
        fleet.step(gradientsOf(plan, step));
        expected.vectors.push_back(fleet.vectors());
    }
    expected.states = fleet.fleet.states();
    return expected;
}

class NcclSteps : public OnDevices
{
};

INSTANTIATE_TEST_SUITE_P(Ranks, NcclSteps, testing::Values(1, 2, 4), testing::PrintToStringParamName());

void expectStepsOfThreads(const Plan &plan, gsOptimizerKind_t kind)
{
    SCOPED_TRACE(plan.recipe + " " + nameOf(plan.type));
    Expected expected = runThreads(plan, kind);
    onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) {
        size_t mine = static_cast<size_t>(rank.rank);
        DeviceVectors vectors(plan);
        gsOptimizer_t o = vectors.optimizer(kind, plan);
        ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
        for (uint64_t step = 0; step < steps; step++) {
            Bytes gradient = Buffer(plan.type, gradientsOf(plan, step)[mine]).raw();
            DeviceBuffer send(gradient);
            ASSERT_EQ(GS_SUCCESS,
                      gsAllReduceStep(send.data(), plan.count, plan.type, plan.op, &o, rank.reducer, rank.stream))
                << gsGetLastError();
            ASSERT_EQ(GS_SUCCESS, rank.finish()) << gsGetLastError();
            ASSERT_TRUE(expected.vectors[step] == vectors.raw()) << "rank " << mine << ", step " << step;
            ASSERT_EQ(gradient, send.content()) << "the gradient was modified";
        }
        EXPECT_EQ(GS_SUCCESS, rank.reducerError());
        EXPECT_EQ(1u, statsOf(rank.reducer).nonFinite);
        EXPECT_TRUE(contains(plan.recipe, "dense") || expected.states[mine] == exportState(rank.reducer));
    });
}

TEST_P(NcclSteps, EqualThreads)
{
    const char *const recipes[] = {"dense",
                                   "threshold:density=0.1",
                                   "gspar:density=0.2,value=shared",
                                   "terngrad",
                                   "randk:density=0.2",
                                   "rows:width=50,exchange=exact",
                                   "diana",
                                   "cdadam",
                                   "tng:reference=last+ema,search=worker",
                                   "chunk-topk:k=40,exchange=owner",
                                   "ef21:density=0.1,exchange=owner",
                                   "threshold:density=0.1,exchange=hierarchical"};
    const gsDataType_t types[] = {GS_FLOAT32, GS_BFLOAT16, GS_FLOAT64};
    const size_t ranks = static_cast<size_t>(GetParam());
    for (size_t i = 0; i < std::size(recipes); i++)
        for (size_t type = 0; type < 3; type++) {
            Plan plan = planOf(recipes[i], 9001, GetParam(), types[type]);
            plan.ranksPerNode = GetParam() > 1 ? 2 : 1;
            if (runsLong() || (isDrawn(i + ranks / 2) && type == (i + ranks) % 3)) /* a type each */
                expectStepsOfThreads(plan, optimizerKinds()[(i / 3 + ranks) % 3]);
        }
}

TEST_P(NcclSteps, OfListsEqualThreads)
{
    size_t which = 0;
    for (const char *recipe : {"dense", "threshold:density=0.1", "diana"})
        for (gsDataType_t type : {GS_FLOAT32, GS_BFLOAT16}) {
            if (!isDrawn(which++))
                continue;
            Plan plan = planOf(recipe, 0, GetParam(), type);
            plan.segments = {5000, 0, 3, 4096, 1, 9000};
            plan.wholeBelow = 16;
            for (uint64_t elements : plan.segments)
                plan.count += elements;
            expectStepsOfThreads(plan, GS_ADAMW);
        }
}

/* A replay counts AdamW's steps itself, and those alone that were taken. */
void replay(Rank &rank, const Plan &plan, const Expected &expected, std::atomic<bool> *captured)
{
    size_t mine = static_cast<size_t>(rank.rank);
    DeviceVectors vectors(plan);
    gsOptimizer_t o = vectors.optimizer(GS_ADAMW, plan);
    DeviceBuffer send(Bytes(plan.count * bytesOf(plan.type)));
    ASSERT_EQ(GS_SUCCESS, rank.create(plan)) << gsGetLastError();
    cudaGraphExec_t graph = capture(rank, [&] {
        return gsAllReduceStep(send.data(), plan.count, plan.type, plan.op, &o, rank.reducer, rank.stream);
    });
    if (!graph) {
        *captured = false;
        return;
    }
    for (uint64_t step = 0; step < steps; step++) {
        Bytes gradient = Buffer(plan.type, gradientsOf(plan, step)[mine]).raw();
        ASSERT_EQ(cudaSuccess, cudaMemcpy(send.data(), gradient.data(), gradient.size(), cudaMemcpyHostToDevice));
        ASSERT_EQ(cudaSuccess, cudaDeviceSynchronize());
        ASSERT_EQ(cudaSuccess, cudaGraphLaunch(graph, rank.stream));
        ASSERT_EQ(GS_SUCCESS, rank.finish()) << gsGetLastError();
        ASSERT_TRUE(expected.vectors[step] == vectors.raw()) << "replay " << step;
    }
    EXPECT_CUDA(cudaGraphExecDestroy(graph));
}

TEST_P(NcclSteps, ReplayedGraphEqualsCalls)
{
    std::atomic<bool> captured{true};
    for (const char *recipe : {"threshold:density=0.1", "cdadam", "dense"}) {
        SCOPED_TRACE(recipe);
        Plan plan = planOf(recipe, 5000, GetParam(), GS_FLOAT32);
        Expected expected = runThreads(plan, GS_ADAMW);
        onRanks(plan.nranks, plan.timeoutMs, [&](Rank &rank) { replay(rank, plan, expected, &captured); });
    }
    if (!captured)
        GTEST_SKIP() << "no stream capture here";
}

} // namespace
} // namespace gst
