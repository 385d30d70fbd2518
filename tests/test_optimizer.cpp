/* Optimizer steps: against oracles in double, and as part of a call, where they must be what two calls make, or not be made at all. */
#include "reference.h"
#include "steps.h"

namespace gst
{
namespace
{

struct Step {
    Vector x, m, v, vmax;
};

/* In double; the float32 library rounds each operation. */
class Optimizers : public testing::TestWithParam<gsDataType_t>
{
  protected:
    Optimizers()
    {
        EXPECT_EQ(gsCommInitAll(&comm_, 1, nullptr), GS_SUCCESS);
        oracle_ = {start(), Vector(count, 0.0), Vector(count, 0.0), Vector(count, 0.0)};
    }
    ~Optimizers() override
    {
        EXPECT_EQ(gsCommDestroy(comm_), GS_SUCCESS);
    }
    gsResult_t step(gsOptimizerKind_t kind, uint64_t number, const Buffer &gradient)
    {
        gsOptimizer_t o = optimizerOf(kind, GetParam());
        o.step = number;
        vectors_.give(&o);
        return gsOptimizerStep(comm_, &o, gradient.data(), count, nullptr);
    }
    Vector start() const
    {
        return randomVector(count, 7, GetParam());
    }
    Vector gradient(uint64_t step) const
    {
        Vector g = randomVector(count, 20 + step, GetParam());
        for (size_t i = 0; i < count; i += 7)
            g[i] = step % 3 ? 0.0 : g[i];
        return g;
    }
    void expectNear(size_t vector, const Vector &expected, uint64_t step)
    {
        double ulp = GetParam() == GS_FLOAT64 ? 2.3e-16 : 1.2e-7;
        Vector got = doublesOf(vectors_[vector].raw(), GetParam());
        for (size_t i = 0; i < count; i++)
            ASSERT_NEAR(got[i], expected[i], 40 * ulp * static_cast<double>(step + 2) * (1 + std::fabs(expected[i])))
                << "vector " << vector << " element " << i << " step " << step;
        EXPECT_TRUE(vectors_[vector].canariesIntact());
    }

    static constexpr uint64_t count = 1003;
    gsComm_t comm_ = nullptr;
    StepVectors vectors_{count, GetParam()};
    Step oracle_;
};

TEST_P(Optimizers, AmsgradIsTheTextbooksAndItsMaximumNeverFalls)
{
    Step &o = oracle_;
    for (uint64_t step = 0; step < 25; step++) {
        Vector g = gradient(step), before = doublesOf(vectors_[3].raw(), GetParam());
        Buffer raw(GetParam(), g);
        ASSERT_EQ(this->step(GS_AMSGRAD, 0, raw), GS_SUCCESS) << gsGetLastError();
        for (size_t i = 0; i < count; i++) {
            o.m[i] = 0.9 * o.m[i] + (1 - 0.9) * g[i];
            o.v[i] = 0.99 * o.v[i] + (1 - 0.99) * g[i] * g[i];
            o.vmax[i] = std::max(o.vmax[i], o.v[i]);
            o.x[i] -= 0.01 * o.m[i] / std::sqrt(o.vmax[i] + 1e-6);
        }
        expectNear(0, o.x, step);
        expectNear(1, o.m, step);
        expectNear(2, o.v, step);
        expectNear(3, o.vmax, step);
        Vector after = doublesOf(vectors_[3].raw(), GetParam()), v = doublesOf(vectors_[2].raw(), GetParam());
        for (size_t i = 0; i < count; i++)
            ASSERT_TRUE(after[i] >= before[i] && after[i] >= v[i]);
    }
}

TEST_P(Optimizers, MomentumIsTheTextbooks)
{
    Step &o = oracle_;
    for (uint64_t step = 0; step < 25; step++) {
        Vector g = gradient(step);
        Buffer raw(GetParam(), g);
        ASSERT_EQ(this->step(GS_MOMENTUM, 0, raw), GS_SUCCESS) << gsGetLastError();
        for (size_t i = 0; i < count; i++) {
            o.m[i] = 0.9 * o.m[i] + g[i];
            o.x[i] -= 0.01 * o.m[i];
        }
        expectNear(0, o.x, step);
        expectNear(1, o.m, step);
    }
}

TEST_P(Optimizers, AdamwIsTheTextbooksWithBiasCorrection)
{
    Step &o = oracle_;
    for (uint64_t step = 0; step < 25; step++) {
        Vector g = gradient(step);
        Buffer raw(GetParam(), g);
        ASSERT_EQ(this->step(GS_ADAMW, step + 1, raw), GS_SUCCESS) << gsGetLastError();
        double c1 = 1 - std::pow(0.9, static_cast<double>(step + 1)),
               c2 = 1 - std::pow(0.99, static_cast<double>(step + 1));
        for (size_t i = 0; i < count; i++) {
            o.m[i] = 0.9 * o.m[i] + (1 - 0.9) * g[i];
            o.v[i] = 0.99 * o.v[i] + (1 - 0.99) * g[i] * g[i];
            o.x[i] -= 0.01 * 0.1 * o.x[i];
            o.x[i] -= 0.01 * (o.m[i] / c1) / (std::sqrt(o.v[i] / c2) + 1e-6);
        }
        expectNear(0, o.x, step);
        expectNear(1, o.m, step);
        expectNear(2, o.v, step);
    }
}

TEST_P(Optimizers, InstructionSetsAndStreamsGiveTheSameBits)
{
    std::vector<std::vector<std::vector<uint8_t>>> results;
    gsStream_t stream = nullptr;
    ASSERT_EQ(gsStreamCreate(&stream), GS_SUCCESS);
    for (const char *set : instructionSets())
        for (gsStream_t on : {gsStream_t{nullptr}, stream}) {
            Environment cpu("GS_CPU", set);
            gsOptimizer_t o = optimizerOf(GS_AMSGRAD, GetParam());
            StepVectors vectors(count, GetParam());
            vectors.give(&o);
            for (uint64_t step = 0; step < 5; step++) {
                Buffer g(GetParam(), gradient(step));
                EXPECT_EQ(gsOptimizerStep(comm_, &o, g.data(), count, on), GS_SUCCESS);
                EXPECT_EQ(gsStreamSynchronize(on), GS_SUCCESS);
            }
            results.push_back(vectors.raw());
        }
    for (const auto &result : results)
        EXPECT_TRUE(result == results[0]);
    EXPECT_EQ(gsStreamDestroy(stream), GS_SUCCESS);
}

TEST_P(Optimizers, BadInputIsNamed)
{
    Buffer gradient(GetParam(), Vector(count, 1.0));
    std::vector<std::vector<uint8_t>> before = vectors_.raw();
    gsOptimizer_t good = optimizerOf(GS_AMSGRAD, GetParam());
    vectors_.give(&good);
    auto call = [&](gsComm_t comm, const gsOptimizer_t *o, const void *g, const std::string &text) {
        EXPECT_EQ(gsOptimizerStep(comm, o, g, count, nullptr), GS_ERROR_INVALID_ARGUMENT) << text;
        EXPECT_TRUE(contains(gsGetLastError(), text)) << gsGetLastError();
        EXPECT_TRUE(vectors_.raw() == before);
    };
    auto refused = [&](const std::string &text, const std::function<void(gsOptimizer_t *)> &spoil) {
        gsOptimizer_t o = good;
        spoil(&o);
        call(comm_, &o, gradient.data(), text);
    };
    using O = gsOptimizer_t;
    call(nullptr, &good, gradient.data(), "comm is NULL");
    call(comm_, nullptr, gradient.data(), "optimizer is NULL");
    call(comm_, &good, nullptr, "gradient is");
    call(comm_, &good, good.m, "optimizer->m");
    refused("optimizer->params is", [](O *o) { o->params = nullptr; });
    refused("optimizer->params is", [](O *o) { o->params = static_cast<char *>(o->params) + 1; });
    refused("optimizer->m is", [](O *o) { o->m = nullptr; });
    refused("optimizer->v is", [](O *o) { o->v = nullptr; });
    refused("optimizer->vmax is", [](O *o) { o->vmax = nullptr; });
    refused("overlap", [](O *o) { o->vmax = static_cast<char *>(o->v) + 8; });
    refused("overlap", [](O *o) { o->m = o->params; });
    refused("step is 0", [](O *o) { o->kind = GS_ADAMW; });
    refused("kind is 3", [](O *o) { o->kind = static_cast<gsOptimizerKind_t>(3); });
    refused("size is 8", [](O *o) { o->size = 8; });
    refused("version is 70000", [](O *o) { o->version = GS_VERSION(7, 0, 0); });
    refused("datatype is 9", [](O *o) { o->datatype = GS_BFLOAT16; });
    refused("nan", [](O *o) { o->stepSize = std::nan(""); });
    refused("nan", [](O *o) { o->weightDecay = std::nan(""); });
    refused("beta1 1", [](O *o) { o->beta1 = 1; });
    refused("beta2 -0.5", [](O *o) { o->beta2 = -0.5; });
    refused("epsilon -1", [](O *o) { o->epsilon = -1; });
}

INSTANTIATE_TEST_SUITE_P(Types, Optimizers, testing::Values(GS_FLOAT32, GS_FLOAT64),
                         [](const auto &p) { return nameOf(p.param); });

/* ---- by the result of a call ---- */

gsOptimizerKind_t kindOf(size_t which)
{
    return optimizerKinds()[which % optimizerKinds().size()];
}

/* Two-way reducers that have no place for a result between their halves. */
bool hasNoPlace(const std::string &recipe)
{
    return contains(recipe, "cdadam:select=topk") || (contains(recipe, "twoway=1") && !contains(recipe, "diana"));
}

void setIterate(Fleet *fleet, const std::string &recipe, const Vector &theta)
{
    if (readsIterate(recipe))
        fleet->setParams(theta, 0.25, {});
}

/* Results, states and all that the two have counted are the same. */
void expectTheSame(const Plan &plan, gsOptimizerKind_t kind, int steps, size_t skew = 0)
{
    StepFleet whole(plan, kind, skew), apart(plan, kind);
    Vector theta(plan.count, 0.0);
    setIterate(&whole.fleet, plan.recipe, theta);
    setIterate(&apart.fleet, plan.recipe, theta);
    for (uint64_t step = 0; step < static_cast<uint64_t>(steps); step++) {
        Vectors gradients = related(plan.count, plan.nranks, step, 0.3, plan.type);
        whole.step(gradients);
        apart.stepApart(gradients, step + 1);
        ASSERT_TRUE(whole.vectors() == apart.vectors()) << plan.recipe << ", step " << step;
        ASSERT_TRUE(whole.fleet.states() == apart.fleet.states()) << plan.recipe << ", step " << step;
    }
    EXPECT_EQ(whole.fleet.stats(0).wireBytes, apart.fleet.stats(0).wireBytes);
}

class FusedStep : public testing::TestWithParam<std::string>
{
};

TEST_P(FusedStep, EqualsTwoCallsBitwise)
{
    size_t which = std::hash<std::string>()(GetParam());
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64}) {
        Plan plan = planOf(GetParam(), 9001, 3, type);
        plan.op = which % 2 ? GS_AVG : GS_SUM;
        expectTheSame(plan, kindOf(which), 4, which % 3);
        which++;
    }
}

INSTANTIATE_TEST_SUITE_P(Recipes, FusedStep, testing::ValuesIn([] {
                             std::vector<std::string> recipes;
                             for (const std::string &recipe : methodRecipes())
                                 if (!hasNoPlace(recipe))
                                     recipes.push_back(recipe);
                             return recipes;
                         }()),
                         [](const auto &p) { return nameOf(p.param); });

TEST(FusedSteps, GoEveryWayThatResultsGo)
{
    const std::vector<std::string> recipes = {"threshold:density=0.1", "gspar:density=0.2,value=shared",
                                              "ef21:density=0.1", "cdadam"};
    for (const char *exchange : {"exact", "owner", "owner-exact", "hierarchical"})
        for (size_t which = 0; which < recipes.size(); which++) {
            Plan plan = planOf(with(recipes[which], std::string("exchange=") + exchange), 9001, 4, GS_FLOAT32);
            plan.ranksPerNode = 2;
            expectTheSame(plan, kindOf(which), 3);
        }
    Plan alone = planOf("dense", 5000, 1, GS_FLOAT64);
    expectTheSame(alone, GS_ADAMW, 2);
    expectTheSame(planOf("topk:density=0.1,twoway=1,exchange=owner", 9001, 3, GS_FLOAT32), GS_AMSGRAD, 3);
}

/* Parameters of a list lie one behind the other, whatever the blocks of its tensors. */
TEST(FusedSteps, ListsHaveTheirTensorsOneBehindTheOther)
{
    for (const char *recipe : {"dense", "threshold:density=0.1", "chunk-topk:k=40", "terngrad", "diana"})
        for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64}) {
            Plan plan = planOf(recipe, 0, 3, type);
            plan.segments = {5000, 0, 3, 4096, 1, 9000};
            plan.wholeBelow = 16;
            for (uint64_t elements : plan.segments)
                plan.count += elements;
            expectTheSame(plan, GS_ADAMW, 3);
        }
}

/* Sums that bfloat16 and float16 hold exactly: then to round them changes nothing. */
TEST(FusedSteps, NarrowGradientsAreNotRoundedTwice)
{
    for (gsDataType_t type : {GS_BFLOAT16, GS_FLOAT16})
        for (const char *recipe : {"dense", "chunk-topk:k=100,value=f32", "threshold:density=0.3,value=f32"}) {
            Plan plan = planOf(recipe, 5003, 2, type);
            StepFleet whole(plan, GS_ADAMW), apart(plan, GS_ADAMW);
            for (uint64_t step = 0; step < 3; step++) {
                Vectors gradients(2, Vector(plan.count));
                for (size_t i = 0; i < 2 * plan.count; i++)
                    gradients[i % 2][i / 2] = static_cast<double>((i * 2654435761u >> 7) % 9) - 4;
                whole.step(gradients);
                apart.stepApart(gradients, step + 1);
                ASSERT_TRUE(whole.vectors() == apart.vectors()) << recipe;
            }
        }
    Plan plan = planOf("identity:value=f32", 100, 2, GS_BFLOAT16);
    StepFleet fleet(plan, GS_MOMENTUM);
    fleet.step({Vector(100, 1.0), Vector(100, 1.0 / 256)}); /* 1 + 1/256 has one bit more than bfloat16 */
    EXPECT_EQ(doublesOf(fleet.vectors()[1], GS_FLOAT32)[5], 1.0 + 1.0 / 256);
}

TEST(FusedSteps, InstructionSetsThreadsAndStreamsGiveTheSameBits)
{
    std::vector<std::vector<std::vector<uint8_t>>> results;
    gsStream_t stream = nullptr;
    ASSERT_EQ(gsStreamCreate(&stream), GS_SUCCESS);
    for (const char *set : instructionSets())
        for (int threads : {1, 3})
            for (gsStream_t on : {gsStream_t{nullptr}, stream}) {
                Environment cpu("GS_CPU", set);
                Plan plan = planOf("threshold:density=0.1", 20001, 1, GS_FLOAT32);
                plan.cpuThreads = threads;
                StepFleet fleet(plan, GS_ADAMW);
                for (uint64_t step = 0; step < 3; step++)
                    fleet.step(related(plan.count, 1, step, 0.3, plan.type), on);
                results.push_back(fleet.vectors());
            }
    for (const auto &result : results)
        EXPECT_TRUE(result == results[0]);
    EXPECT_EQ(gsStreamDestroy(stream), GS_SUCCESS);
}

/* ---- steps that are not taken ---- */

TEST(FusedSteps, NoRankStepsBySomethingThatIsNoNumber)
{
    for (const char *recipe :
         {"dense", "threshold:density=0.1", "terngrad", "randk:density=0.2", "rows:width=50,exchange=exact", "diana",
          "cdadam", "threshold:exchange=owner", "threshold:exchange=hierarchical"})
        for (gsDataType_t type : {GS_FLOAT32, GS_BFLOAT16}) {
            Plan plan = planOf(recipe, 9000, 4, type);
            plan.ranksPerNode = 2;
            StepFleet fleet(plan, GS_ADAMW), never(plan, GS_ADAMW);
            Vectors gradients = related(plan.count, 4, 0, 0.3, type), bad = gradients;
            bad[2][4999] = std::nan("");
            fleet.step(gradients);
            std::vector<std::vector<uint8_t>> before = fleet.vectors();
            std::vector<std::vector<uint8_t>> states = fleet.fleet.states();
            fleet.step(bad);
            EXPECT_TRUE(fleet.vectors() == before) << recipe;
            EXPECT_TRUE(fleet.fleet.states() == states) << recipe;
            EXPECT_EQ(fleet.fleet.stats(0).nonFinite, 1u) << recipe;
            fleet.step(gradients); /* AdamW's second step, and not its third */
            never.step(gradients);
            never.step(gradients);
            EXPECT_TRUE(fleet.vectors() == never.vectors()) << recipe;
        }
}

TEST(FusedSteps, CountGoesOnWhereAnImportedReducerWas)
{
    Plan plan = planOf("threshold:density=0.1", 5000, 2, GS_FLOAT32);
    StepFleet first(plan, GS_ADAMW), whole(plan, GS_ADAMW);
    for (uint64_t step = 0; step < 3; step++) {
        first.step(related(plan.count, 2, step, 0.3, plan.type));
        whole.step(related(plan.count, 2, step, 0.3, plan.type));
    }
    StepFleet second(plan, GS_ADAMW);
    for (int r = 0; r < 2; r++) {
        std::vector<uint8_t> state = first.fleet.state(r);
        ASSERT_EQ(gsReducerImport(second.fleet.reducer(r), state.data(), state.size()), GS_SUCCESS);
        gsOptimizer_t from = first.optimizer(r), to = second.optimizer(r);
        for (auto [x, y] : {std::pair{from.params, to.params}, {from.m, to.m}, {from.v, to.v}})
            std::memcpy(y, x, plan.count * 4);
    }
    second.step(related(plan.count, 2, 3, 0.3, plan.type));
    whole.step(related(plan.count, 2, 3, 0.3, plan.type));
    EXPECT_TRUE(second.vectors() == whole.vectors());
}

/* A record that has been damaged on its way: nothing has changed, and the call can be made again. */
TEST(FusedSteps, DamagedRecordsChangeNothing)
{
    for (const char *recipe : {"threshold:density=0.1", "diana", "cdadam"}) {
        Plan plan = planOf(recipe, 9000, 1, GS_FLOAT32);
        StepFleet fleet(plan, GS_AMSGRAD), never(plan, GS_AMSGRAD);
        Vectors gradients = related(plan.count, 1, 0, 0.3, plan.type);
        Buffer gradient(plan.type, gradients[0]);
        std::vector<std::vector<uint8_t>> before = fleet.vectors();
        {
            OtherAllGather damaged(fleet.fleet.comm(0),
                                   [](gsComm_t, const void *send, void *recv, size_t bytes, gsStream_t) {
                                       std::memcpy(recv, send, bytes);
                                       static_cast<uint8_t *>(recv)[100] ^= 1;
                                       return GS_SUCCESS;
                                   });
            EXPECT_NE(fleet.call(0, gradient), GS_SUCCESS) << recipe;
        }
        EXPECT_TRUE(fleet.vectors() == before) << recipe;
        fleet.step(gradients);
        never.step(gradients);
        EXPECT_TRUE(fleet.vectors() == never.vectors()) << recipe;
    }
}

TEST(FusedSteps, BadInputIsNamed)
{
    Plan plan = planOf("threshold:density=0.1", 5000, 1, GS_BFLOAT16);
    StepFleet fleet(plan, GS_ADAMW);
    Buffer gradient(plan.type, Vector(plan.count, 1.0));
    std::vector<std::vector<uint8_t>> before = fleet.vectors();
    auto refused = [&](const std::string &text, gsResult_t expected,
                       const std::function<gsResult_t(gsOptimizer_t *)> &call) {
        gsOptimizer_t o = fleet.optimizer(0);
        EXPECT_EQ(call(&o), expected) << text;
        EXPECT_TRUE(contains(gsGetLastError(), text)) << gsGetLastError();
        EXPECT_TRUE(fleet.vectors() == before) << text;
    };
    gsReducer_t reducer = fleet.fleet.reducer(0);
    auto call = [&](const gsOptimizer_t *o, const void *g, size_t count = 5000, gsDataType_t type = GS_BFLOAT16,
                    gsRedOp_t op = GS_SUM) { return gsAllReduceStep(g, count, type, op, o, reducer, nullptr); };
    const gsResult_t invalid = GS_ERROR_INVALID_ARGUMENT;
    refused("reducer", invalid,
            [&](auto *o) { return gsAllReduceStep(gradient.data(), 5000, GS_BFLOAT16, GS_SUM, o, nullptr, nullptr); });
    refused("optimizer is NULL", invalid, [&](auto *) { return call(nullptr, gradient.data()); });
    refused("gradient is", invalid, [&](auto *o) { return call(o, nullptr); });
    refused("count is 4", invalid, [&](auto *o) { return call(o, gradient.data(), 4); });
    refused("datatype is 7", invalid, [&](auto *o) { return call(o, gradient.data(), 5000, GS_FLOAT32); });
    refused("op is 2", invalid,
            [&](auto *o) { return call(o, gradient.data(), 5000, GS_BFLOAT16, static_cast<gsRedOp_t>(2)); });
    refused("optimizer->datatype is 8; expected 7", invalid, [&](auto *o) {
        o->datatype = GS_FLOAT64;
        return call(o, gradient.data());
    });
    refused("overlap", invalid, [&](auto *o) { return o->m = gradient.data(), call(o, gradient.data()); });
    refused("optimizer->v is", invalid, [&](auto *o) { return o->v = nullptr, call(o, gradient.data()); });
    Plan half = planOf("threshold", 5000, 1, GS_FLOAT32);
    half.collective = GS_REDUCE_SCATTER;
    StepFleet scattered(half, GS_MOMENTUM);
    EXPECT_EQ(scattered.call(0, Buffer(GS_FLOAT32, Vector(5000, 1.0))), GS_ERROR_INVALID_USAGE);
    for (const char *recipe : {"topk:density=0.1,twoway=1", "cdadam:first=dense"}) {
        StepFleet twoway(planOf(recipe, 5000, 1, GS_FLOAT32), GS_AMSGRAD);
        EXPECT_EQ(twoway.call(0, Buffer(GS_FLOAT32, Vector(5000, 1.0))), GS_ERROR_UNSUPPORTED) << recipe;
        EXPECT_TRUE(contains(gsGetLastError(), "exchange=owner")) << gsGetLastError();
    }
}

} // namespace
} // namespace gst
