/* The CUDA stages against the CPU's: the same records, results and states, bit for bit; and what only a device can
 * get wrong. */
#include "device.h"
#include "halves.h"
#include "steps.h"

#include "rules/seal.h"

namespace gst
{
namespace
{

const char *const recipes[] = {
    "threshold",
    "threshold:density=0.1,value=f32",
    "threshold:tau=0.5,capacity=1",
    "threshold:tau=0.1,capacity=0.01,value=f32", /* overflows */
    "chunk-topk",
    "chunk-topk:k=1,value=f32",
    "chunk-topk:k=4096",
    "gspar",
    "gspar:density=0.2,value=f32",
    "gspar:density=0.1,value=shared",
    "gspar:density=0.3,value=shared,capacity=0.02", /* thinned */
    "gspar:density=1",
    "randk",
    "randk:density=0.3,value=f32",
    "randk:density=0.5,capacity=0.05", /* thinned */
};

class CudaStages : public testing::TestWithParam<std::tuple<const char *, gsDataType_t>>
{
  protected:
    static Plan plan(uint64_t count, int nranks)
    {
        Plan plan;
        plan.recipe = std::get<0>(GetParam());
        plan.type = std::get<1>(GetParam());
        plan.count = count;
        plan.nranks = nranks;
        plan.op = count % 2 ? GS_AVG : GS_SUM;
        return plan;
    }
};

/* Shapes in turn, with a NaN on the last rank in the middle: the steps after it show that no state has changed. */
void runSteps(const Plan &plan, size_t skew, int steps)
{
    static const Shape shapes[] = {Shape::Gaussian, Shape::Skewed, Shape::Gaussian, Shape::Ties,
                                   Shape::Huge,     Shape::Zero,   Shape::Denormal, Shape::NegativeZero};
    SCOPED_TRACE(plan.recipe + " of " + std::to_string(plan.count) + " " + nameOf(plan.type) + ", ranks " +
                 std::to_string(plan.nranks) + ", skew " + std::to_string(skew));
    Pair pair(plan);
    for (int step = 0; step < steps; step++) {
        SCOPED_TRACE("step " + std::to_string(step));
        Gradients gradients = makeGradients(shapes[step % 8], plan, static_cast<uint64_t>(step));
        if (step == 2 && plan.count > 0)
            gradients.back()[plan.count * 2 / 3] = plan.count % 2 ? NAN : -INFINITY;
        pair.step(gradients, skew);
        if (testing::Test::HasFatalFailure())
            return;
    }
}

TEST_P(CudaStages, SmallCountsEqualTheCpu)
{
    NEEDS_DEVICE();
    size_t number = std::strlen(std::get<0>(GetParam()));
    for (uint64_t count : {0, 1, 31, 4095, 4096, 4097})
        for (int nranks : {1, 3})
            if (isDrawn(number++ / 2 + static_cast<size_t>(nranks) / 2))
                runSteps(plan(count, nranks), (count + static_cast<uint64_t>(nranks)) % 2, runsLong() ? 8 : 4);
}

TEST_P(CudaStages, LargerCountsEqualTheCpu)
{
    NEEDS_DEVICE();
    runSteps(plan(12345, 3), 1, 4);
    if (isDrawn(0))
        runSteps(plan(runsLong() ? 70000 : 40000, 3), 0, runsLong() ? 8 : 3);
    if (isDrawn(1))
        runSteps(plan(40001, 1), 3, 2);
    if (runsLong())
        runSteps(plan(700001, 2), 0, 3);
}

/* More ranks than there is room to sum all records at once, and more than accumulate looks up at a time. */
TEST_P(CudaStages, ManyRanksEqualTheCpu)
{
    NEEDS_DEVICE();
    if ((std::get<1>(GetParam()) == GS_FLOAT32 && isDrawn(std::strlen(std::get<0>(GetParam())))) || runsLong())
        runSteps(plan(runsLong() ? 5000 : 600, 67), 0, 1);
}

/* What changes a state besides calls. */
void scaleImportAndReset(const Plan &p)
{
    Pair pair(p);
    pair.step(makeGradients(Shape::Gaussian, p, 1), 0);
    std::vector<uint8_t> saved = pair.device.state(1);
    for (int r = 0; r < 2; r++) {
        EXPECT_EQ(gsReducerScale(pair.cpu.reducer(r), 0.25f, nullptr), GS_SUCCESS);
        EXPECT_EQ(gsReducerScale(pair.device.reducer(r), 0.25f, pair.device.stream()), GS_SUCCESS);
    }
    pair.device.stream().synchronize();
    pair.step(makeGradients(Shape::Skewed, p, 2), 0);
    EXPECT_EQ(gsReducerReset(pair.cpu.reducer(0), nullptr), GS_SUCCESS);
    EXPECT_EQ(gsReducerReset(pair.device.reducer(0), pair.device.stream()), GS_SUCCESS);
    EXPECT_EQ(pair.device.state(0), pair.cpu.state(0));
    EXPECT_EQ(gsReducerImport(pair.cpu.reducer(1), saved.data(), saved.size()), GS_SUCCESS);
    EXPECT_EQ(gsReducerImport(pair.device.reducer(1), saved.data(), saved.size()), GS_SUCCESS);
    EXPECT_EQ(pair.device.state(1), saved);
    EXPECT_EQ(gsReducerReset(pair.cpu.reducer(1), nullptr), GS_SUCCESS);
    EXPECT_EQ(gsReducerReset(pair.device.reducer(1), pair.device.stream()), GS_SUCCESS);
    pair.step(makeGradients(Shape::Gaussian, p, 3), 0);
}

TEST_P(CudaStages, ScaleImportAndResetEqualTheCpu)
{
    NEEDS_DEVICE();
    scaleImportAndReset(plan(9001, 2));
}

/* A second encode of a step gives the same bytes. */
TEST_P(CudaStages, EncodeTwiceGivesTheSameRecord)
{
    NEEDS_DEVICE();
    Plan p = plan(20000, 2);
    Pair pair(p);
    pair.step(makeGradients(Shape::Gaussian, p, 1), 0);
    Gradients gradients = makeGradients(Shape::Skewed, p, 2);
    EXPECT_EQ(pair.device.encode(gradients), pair.device.encode(gradients));
}

/* ---- the methods ---- */

const char *const methods[] = {
    "identity",
    "identity:value=bf16",
    "identity:value=f16",
    "rows:width=768",
    "threshold:density=0.1",
    "threshold:rms=2,capacity=0.5",
    "threshold:density=0.1,value=f16",
    "chunk-topk:k=100,value=f16",
    "topk:density=0.05",
    "topk:k=100,value=f32",
    "ef-sign",
    "ef-sign:bucket=all",
    "gspar",
    "gspar:epsilon=1,capacity=1",
    "gspar:value=shared,density=0.3",
    "gspar:value=f16,density=0.1",
    "uniform",
    "uniform:density=0.3,value=f32",
    "terngrad",
    "terngrad:bucket=all",
    "qsgd:levels=4",
    "qsgd:bucket=all",
    "natural",
    "sign",
    "sign:bucket=all",
    "dgc:momentum=0.5",
    "dgc:warmup=20,clip=10",
    "ef21:density=0.1",
    "ef21:select=sign",
    "ef21:select=chunk-topk",
    "ef21:select=threshold",
    "diana",
    "diana:select=natural",
    "diana:select=randk,density=0.2",
    "diana:select=gspar,density=0.2,value=shared",
    "lag-wk:exchange=capacity",
    "lag-ps:exchange=capacity",
    "lasg-wk:exchange=capacity",
    "laq:exchange=capacity",
    "laq:exchange=capacity,bucket=all,levels=1",
    "clag:exchange=capacity",
    "threshold:density=0.1,value=2bit",
    "chunk-topk:k=100,value=2bit",
    "dgc:density=0.05,value=2bit",
    "ef21:select=grid",
    "tng",
    "tng:reference=last+ema+window,search=worker",
    "tng:reference=last+ema,search=hindsight",
    "tng:reference=last+ema+mean+window,search=fit",
    "tng:reference=zero+mean+last+ema+ema2+window+params,search=fit",
    "tng:reference=params",
    "tng:mode=quotient",
    "tng:mode=quotient,reference=last+ema+mean,search=worker",
    "tng:mode=quotient,reference=ema,select=gspar,density=0.2",
    "tng:select=topk,density=0.1",
};

class CudaMethods : public CudaStages
{
};

bool needsIterates(const std::string &recipe)
{
    return recipe.find("params") != std::string::npos || recipe.find("la") == 0;
}

/* Every gradient comes twice, so that triggers have something to keep silent about; the third step has a NaN. */
void runMethod(const Plan &plan, size_t skew, int steps)
{
    static const Shape shapes[] = {Shape::Gaussian, Shape::Skewed, Shape::Gaussian, Shape::Ties};
    SCOPED_TRACE(plan.recipe + " of " + std::to_string(plan.count) + " " + nameOf(plan.type) + ", ranks " +
                 std::to_string(plan.nranks) + ", skew " + std::to_string(skew));
    bool iterates = needsIterates(plan.recipe);
    Pair pair(plan);
    for (int step = 0; step < steps; step++) {
        SCOPED_TRACE("step " + std::to_string(step));
        Gradients gradients = makeGradients(shapes[step / 2 % 4], plan, static_cast<uint64_t>(step / 2));
        if (step == 2 && plan.count > 0)
            gradients.back()[plan.count * 2 / 3] = plan.count % 2 ? NAN : -INFINITY;
        if (iterates)
            pair.tellIterate(step, false);
        pair.step(gradients, skew);
        if (testing::Test::HasFatalFailure())
            return;
    }
}

/* Of the four types a recipe runs two, one on the simulator and one on devices, unless there is time. */
bool runsType(const char *recipe, gsDataType_t type)
{
    const std::vector<gsDataType_t> types = allTypes();
    const auto place = std::find(types.begin(), types.end(), type) - types.begin();
    const size_t number = std::strlen(recipe) + static_cast<size_t>(place);
    return runsLong() || (number % 2 == 0 && isDrawn(number / 2));
}

TEST_P(CudaMethods, EqualTheCpu)
{
    NEEDS_DEVICE();
    if (!runsType(std::get<0>(GetParam()), std::get<1>(GetParam())))
        GTEST_SKIP() << "another type was drawn for this recipe";
    for (uint64_t count : {0, 1, 31, 4095, 4096, 4097})
        if (runsLong() || (count + std::strlen(std::get<0>(GetParam()))) % 3 == 0)
            runMethod(plan(count, 2), count % 2, 4);
    runMethod(plan(8195, 3), 1, runsLong() ? 10 : 4);
}

TEST_P(CudaMethods, ScaleImportAndResetEqualTheCpu)
{
    NEEDS_DEVICE();
    if (!needsIterates(std::get<0>(GetParam())) && runsType(std::get<0>(GetParam()), std::get<1>(GetParam())))
        scaleImportAndReset(plan(5001, 2));
}

/* lag-wk without iterates goes by the aggregates. */
TEST(CudaLag, AggregatesEqualTheCpu)
{
    NEEDS_DEVICE();
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64}) {
        Plan plan;
        plan.recipe = "lag-wk:exchange=capacity,xi=1";
        plan.type = type;
        plan.count = 5000;
        Pair pair(plan);
        for (int step = 0; step < 6; step++)
            pair.step(makeGradients(Shape::Gaussian, plan, static_cast<uint64_t>(step / 3)), 0);
        EXPECT_GT(pair.device.stats(0).skipped, 0u);
    }
}

/* ---- rows ---- */

/* Numbers in a fifth of the rows, zeros of both signs elsewhere. */
Gradients sparseRows(const Plan &plan, uint64_t width, uint64_t step)
{
    Gradients gradients = makeGradients(Shape::Gaussian, plan, step);
    std::mt19937_64 random(step);
    for (std::vector<float> &g : gradients)
        for (uint64_t first = 0; first < plan.count; first += width) {
            bool travels = random() % 5 == 0;
            for (uint64_t i = first; i < std::min(first + width, plan.count) && !travels; i++)
                g[i] = i % 2 ? 0.0f : -0.0f;
        }
    return gradients;
}

class CudaRows : public testing::TestWithParam<uint64_t>
{
};

TEST_P(CudaRows, EqualTheCpu)
{
    NEEDS_DEVICE();
    std::string recipe = "rows:width=" + std::to_string(GetParam());
    size_t which = GetParam() % 3;
    for (gsDataType_t type : allTypes())
        for (uint64_t count : {5, 4096, 12345, 20483}) {
            if (!isDrawn(which++ / 3))
                continue;
            Plan plan;
            plan.recipe = recipe;
            plan.type = type;
            plan.count = count;
            plan.nranks = 1 + static_cast<int>(count % 3);
            SCOPED_TRACE(recipe + ", " + nameOf(type) + ", count " + std::to_string(count));
            Pair pair(plan);
            for (uint64_t step = 0; step < 3 && !HasFatalFailure(); step++) {
                Gradients gradients = sparseRows(plan, GetParam(), step);
                if (step == 1)
                    gradients.back()[count / 2] = NAN;
                pair.step(gradients, step);
            }
        }
}

/* More ranks than accumulate looks up at a time, most of them with nothing. */
TEST(CudaRowsOfRanks, ManyRanksEqualTheCpu)
{
    NEEDS_DEVICE();
    Plan plan;
    plan.recipe = "rows:width=100";
    plan.count = 4200;
    plan.nranks = 67;
    Pair pair(plan);
    Gradients gradients = sparseRows(plan, 100, 1);
    for (size_t r = 0; r < gradients.size(); r++)
        if (r % 3)
            gradients[r].assign(plan.count, 0.0f);
    pair.step(gradients, 0);
}

INSTANTIATE_TEST_SUITE_P(Widths, CudaRows, testing::Values(1, 3, 32, 768, 5000, 4294967295u),
                         [](const auto &p) { return std::to_string(p.param); });

/* ---- reduce-scatters ---- */

/* The same ranks on the device, each given what its peers on the CPU have sent it, and the CPU's seals. */
struct ScatterPair {
    explicit ScatterPair(const Plan &plan)
        : cpu(plan), device(plan), parts(cpu.sent[0].bytes()), seals(cpu.seals.bytes())
    {
    }

    void encode(int rank, const DeviceMemory &send)
    {
        const Plan &plan = cpu.plan();
        ASSERT_EQ(gsEncode(send.data(), parts.data(), sliceOf(plan), plan.type, device.reducer(rank), device.stream()),
                  GS_SUCCESS)
            << gsGetLastError();
        std::vector<uint8_t> found = parts.get(device.stream());
        for (int q = 0; q < plan.nranks; q++) {
            const uint8_t *a = cpu.sent[static_cast<size_t>(rank)].slot(q),
                          *b = found.data() + static_cast<size_t>(q) * cpu.slotBytes();
            ASSERT_TRUE(std::equal(a, a + readAt<uint64_t>(a, 48), b)) << "part " << q << " of rank " << rank;
        }
    }
    void sum(int rank)
    {
        gsSeal a, b;
        parts.put(cpu.received[static_cast<size_t>(rank)].data(), device.stream());
        ASSERT_EQ(gsSumParts(parts.data(), seals.data(), device.reducer(rank), device.stream()), GS_SUCCESS)
            << gsGetLastError();
        std::memcpy(&a, seals.get(device.stream()).data(), sizeof a);
        std::memcpy(&b, cpu.seals.slot(rank), sizeof b);
        EXPECT_EQ(a.call, b.call);
        EXPECT_EQ(a.verdict, b.verdict);
        EXPECT_TRUE(a.verdict == GS_FAULT_NONE || a.verdictRank == b.verdictRank);
        EXPECT_EQ(a.nonFinite != 0, b.nonFinite != 0);
    }
    void decode(int rank, void *recv)
    {
        const Plan &plan = cpu.plan();
        seals.put(cpu.seals.data(), device.stream());
        ASSERT_EQ(gsDecode(seals.data(), recv, sliceOf(plan), plan.type, plan.op, device.reducer(rank),
                           device.stream()),
                  GS_SUCCESS)
            << gsGetLastError();
    }
    /* In place on the device, where the slice alone may change. */
    void stepOf(int rank, const Vector &given)
    {
        const Plan &plan = cpu.plan();
        uint64_t width = bytesOf(plan.type), bytes = sliceOf(plan) * width, first = static_cast<uint64_t>(rank) * bytes;
        Buffer host(plan.type, given), recv(plan.type, sliceOf(plan));
        DeviceMemory both(plan.count * width, width);
        both.put(host.data(), device.stream());
        ASSERT_NO_FATAL_FAILURE(encode(rank, both));
        ASSERT_EQ(both.get(device.stream()), host.raw()) << "sendbuff was modified";
        ASSERT_NO_FATAL_FAILURE(sum(rank));
        ASSERT_NO_FATAL_FAILURE(decode(rank, both.data() + first));
        gsResult_t error = cpu.decodeOne(rank, recv.data());
        std::vector<uint8_t> expected = host.raw();
        if (error == GS_SUCCESS)
            std::memcpy(&expected[first], recv.data(), bytes);
        ASSERT_TRUE(both.get(device.stream()) == expected) << "rank " << rank;
        EXPECT_EQ(device.asyncError(rank), error);
    }
    /* damaged: a part on its way to rank 0. */
    void step(const Vectors &given, bool damaged)
    {
        cpu.encode(given);
        cpu.received[0].slot(1)[90] ^= damaged;
        cpu.sum();
        for (int rank = 0; rank < cpu.plan().nranks; rank++) {
            ASSERT_NO_FATAL_FAILURE(stepOf(rank, given[static_cast<size_t>(rank)]));
            ASSERT_TRUE(device.state(rank) == cpu.state(rank)) << "rank " << rank;
            expectSameStats(device.stats(rank), cpu.stats(rank));
        }
    }

    ScatterByHand cpu;
    DeviceRanks device;
    DeviceMemory parts, seals;
};

class CudaScatter : public testing::TestWithParam<const char *>
{
};

TEST_P(CudaScatter, StagesEqualTheCpu)
{
    NEEDS_DEVICE();
    size_t which = std::strlen(GetParam());
    for (gsDataType_t type : {GS_FLOAT32, GS_BFLOAT16, GS_FLOAT64}) {
        Plan plan = halfOf(GS_REDUCE_SCATTER, GetParam(), 4197, 3, type);
        if (!isDrawn(which++))
            continue;
        plan.op = type == GS_BFLOAT16 ? GS_AVG : GS_SUM;
        SCOPED_TRACE(plan.recipe + " " + nameOf(type));
        ScatterPair pair(plan);
        for (uint64_t step = 0; step < 4; step++) {
            Vectors given = givenTo(plan, step);
            if (step == 1)
                given[2][5000] = NAN;
            SCOPED_TRACE("step " + std::to_string(step));
            ASSERT_NO_FATAL_FAILURE(pair.step(given, step == 2));
        }
        EXPECT_EQ(pair.cpu.stats(0).nonFinite, 1u);
        EXPECT_EQ(pair.cpu.stats(2).failed, 1u);
    }
}

INSTANTIATE_TEST_SUITE_P(Recipes, CudaScatter,
                         testing::Values("threshold:density=0.05", "gspar:density=0.1,value=shared", "chunk-topk:k=40",
                                         "ef21:density=0.1", "dgc:density=0.05", "diana:select=ternary"),
                         [](const auto &p) { return nameOf(p.param); });

/* ---- optimizers ---- */

TEST(CudaOptimizers, EqualTheCpu)
{
    NEEDS_DEVICE();
    for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64})
        for (uint64_t count : {0, 1, 4095, 20001})
            for (size_t skew : {0, 1}) {
                Plan plan;
                plan.type = type;
                plan.count = count;
                plan.nranks = 1;
                StageRanks cpu(plan);
                DeviceRanks device(plan);
                const Stream &stream = device.stream();
                Buffer gradient(type, makeGradients(Shape::Skewed, plan, 1)[0]);
                std::vector<std::unique_ptr<Buffer>> host;
                std::vector<std::unique_ptr<DeviceMemory>> there;
                for (uint64_t i = 0; i < 4; i++) { /* parameters, then moments, which are not negative */
                    std::vector<float> x = makeGradients(Shape::Gaussian, plan, 2 + i)[0];
                    for (float &y : x)
                        y = i ? std::fabs(y) : y;
                    host.push_back(std::make_unique<Buffer>(type, x));
                    there.push_back(std::make_unique<DeviceMemory>(count * bytesOf(type), skew * bytesOf(type)));
                    there.back()->put(host.back()->data(), stream);
                }
                DeviceMemory g(count * bytesOf(type));
                g.put(gradient.data(), stream);
                for (gsOptimizerKind_t kind : optimizerKinds()) {
                    gsOptimizer_t o = optimizerOf(kind, type);
                    o.step = 3;
                    pointTo(&o, host[0]->data(), host[1]->data(), host[2]->data(), host[3]->data());
                    EXPECT_EQ(gsOptimizerStep(cpu.comm(0), &o, gradient.data(), count, nullptr), GS_SUCCESS);
                    pointTo(&o, there[0]->data(), there[1]->data(), there[2]->data(), there[3]->data());
                    EXPECT_EQ(gsOptimizerStep(device.comm(0), &o, g.data(), count, stream), GS_SUCCESS);
                }
                for (size_t i = 0; i < 4; i++)
                    EXPECT_EQ(there[i]->get(stream), host[i]->raw())
                        << nameOf(type) << " " << count << ", vector " << i;
            }
}

/* ---- records that cannot be believed ---- */

/* Where both a table and an index are wrong, either may be named: blocks are checked in parallel. */
std::string faultOf(const std::string &text)
{
    bool structure = text.find("block table") != std::string::npos || text.find("index out of") != std::string::npos;
    return structure ? text.substr(0, text.find(" has an ")) : text;
}

class Corruption : public CudaStages
{
  protected:
    void prepare(uint64_t count)
    {
        plan_ = plan(count, 2);
        pair_ = std::make_unique<Pair>(plan_);
        pair_->step(makeGradients(Shape::Gaussian, plan_, 1), 0);
        gradients_ = makeGradients(Shape::Skewed, plan_, 2);
        for (int r = 0; r < 2; r++)
            saved_.push_back(pair_->cpu.state(r));
        encode();
    }

    void encode()
    {
        Slots slots = pair_->cpu.encode(gradients_);
        good_.assign(slots.data(), slots.data() + slots.bytes());
        slotBytes_ = slots.slotBytes();
        pair_->device.encode(gradients_);
    }

    /* Makes the checksum fit again, so that what lies behind it is looked at. */
    void mend(std::vector<uint8_t> &slots, size_t rank) const
    {
        uint8_t *record = slots.data() + rank * slotBytes_;
        uint64_t bytes = readAt<uint64_t>(record, 48);
        if (bytes >= 80 && bytes <= slotBytes_)
            writeAt(record, 56, recordChecksum(record, bytes));
    }

    /* Rank 0 of both decodes; verdict, text, result and state must agree. */
    void expectSame(const std::vector<uint8_t> &slots, const std::string &what)
    {
        SCOPED_TRACE(what);
        Slots aligned(2, slotBytes_);
        std::memcpy(aligned.slot(0), slots.data(), slots.size());
        Buffer recv(plan_.type, plan_.count);
        std::memset(recv.data(), 0x5A, recv.raw().size());
        gsResult_t expected = pair_->cpu.decodeOne(0, aligned, recv);
        std::string text = gsGetLastError();
        std::vector<uint8_t> found = pair_->device.decodeOne(0, slots.data());
        EXPECT_EQ(pair_->device.asyncError(0), expected) << text;
        EXPECT_TRUE(sameNumbers(found, recv.raw(), plan_.type)) << "another result";
        EXPECT_TRUE(pair_->device.state(0) == pair_->cpu.state(0)) << "another state";
        if (expected != GS_SUCCESS) {
            EXPECT_EQ(faultOf(gsGetLastError()), faultOf(text));
            rejected_++;
            return;
        }
        accepted_++;
        for (int r = 0; r < 2; r++) {
            EXPECT_EQ(gsReducerImport(pair_->cpu.reducer(r), saved_[static_cast<size_t>(r)].data(), saved_[0].size()),
                      GS_SUCCESS);
            EXPECT_EQ(gsReducerImport(pair_->device.reducer(r), saved_[static_cast<size_t>(r)].data(),
                                      saved_[0].size()),
                      GS_SUCCESS);
        }
        encode();
    }

    Plan plan_;
    std::unique_ptr<Pair> pair_;
    Gradients gradients_;
    std::vector<std::vector<uint8_t>> saved_;
    std::vector<uint8_t> good_;
    size_t slotBytes_ = 0;
    int rejected_ = 0, accepted_ = 0;
};

TEST_P(Corruption, EveryHeaderByte)
{
    NEEDS_DEVICE();
    prepare(9000);
    const size_t first = runsLong() ? 0 : 2 * (plan_.recipe.size() % 3) + ownCases,
                 stride = runsLong() ? 1 : 6; /* all, over the recipes */
    for (size_t at = first; at < 80; at += stride)
        for (int flip : {0x01, 0x80, 0xff})
            for (bool mended : {false, true}) {
                size_t rank = (at + static_cast<size_t>(flip)) % 2;
                std::vector<uint8_t> slots = good_;
                slots[rank * slotBytes_ + at] ^= static_cast<uint8_t>(flip);
                if (mended)
                    mend(slots, rank);
                expectSame(slots, "byte " + std::to_string(at) + " of rank " + std::to_string(rank) + " ^ " +
                                      std::to_string(flip) + (mended ? ", mended" : ""));
                if (!runsLong() && at % 8 != 0 && mended)
                    break;
            }
    EXPECT_GT(rejected_, 200 / static_cast<int>(stride));
}

TEST_P(Corruption, SectionsAndWholeSlots)
{
    NEEDS_DEVICE();
    prepare(9000);
    std::mt19937_64 random(5 + ownCases);
    for (int round = 0; round < (runsLong() ? 400 : 12); round++) {
        std::vector<uint8_t> slots = good_;
        size_t rank = random() % 2, bytes = readAt<uint64_t>(&slots[rank * slotBytes_], 48);
        bool mended = round % 4 != 0;
        for (uint64_t n = random() % 3; bytes > 80 && n < 3; n++)
            slots[rank * slotBytes_ + 80 + random() % (bytes - 80)] = static_cast<uint8_t>(random());
        if (mended)
            mend(slots, rank);
        expectSame(slots, "round " + std::to_string(round));
    }
    for (int round = 0; round < 8; round++) {
        std::vector<uint8_t> slots = good_;
        for (size_t i = round < 4 ? 80 : 0; i < slotBytes_; i++)
            slots[i] = round % 4 == 0 ? 0 : static_cast<uint8_t>(random());
        if (round % 2)
            mend(slots, 0);
        expectSame(slots, "whole slot " + std::to_string(round));
    }
    std::vector<uint8_t> exchanged = good_, twice = good_;
    std::memcpy(&exchanged[0], &good_[slotBytes_], slotBytes_);
    std::memcpy(&exchanged[slotBytes_], &good_[0], slotBytes_);
    std::memcpy(&twice[slotBytes_], &good_[0], slotBytes_);
    expectSame(exchanged, "ranks exchanged");
    expectSame(twice, "rank 0 twice");
    expectSame(good_, "good after all");
    EXPECT_GT(accepted_, 0);
}

/* After a fault nothing changes until somebody has asked for it. */
TEST_P(Corruption, FaultsStick)
{
    NEEDS_DEVICE();
    prepare(5000);
    std::vector<uint8_t> slots = good_, before = pair_->device.state(0);
    slots[3] ^= 1;
    pair_->device.decodeOne(0, slots.data());
    std::vector<uint8_t> untouched = pair_->device.decodeOne(0, good_.data());
    EXPECT_EQ(untouched, std::vector<uint8_t>(untouched.size(), 0x5A));
    EXPECT_EQ(pair_->device.state(0), before);
    EXPECT_EQ(pair_->device.asyncError(0), GS_ERROR_CORRUPT);
    EXPECT_EQ(pair_->device.asyncError(0), GS_SUCCESS);
    expectSame(good_, "afterwards");
}

/* ---- CUDA graphs ---- */

/* One call, captured, replayed: fresh draws each time, and in the end what eager calls give. */
void replay(const Plan &p, int calls, bool changes)
{
    DeviceRanks eager(p), replayed(p);
    Buffer gradient(p.type, makeGradients(Shape::Gaussian, p, 1)[0]);
    DeviceMemory send(gradient.raw().size()), record(eager.slotBytes()), recv(gradient.raw().size());
    const Stream stream;
    auto call = [&](DeviceRanks &ranks) {
        ASSERT_EQ(gsEncode(send.data(), record.data(), p.count, p.type, ranks.reducer(0), stream), GS_SUCCESS)
            << gsGetLastError();
        ASSERT_EQ(gsDecode(record.data(), recv.data(), p.count, p.type, p.op, ranks.reducer(0), stream), GS_SUCCESS)
            << gsGetLastError();
    };
    send.put(gradient.data(), stream);

    cudaGraph_t graph;
    cudaGraphExec_t executable;
    if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) != cudaSuccess) {
        cudaGetLastError();
        GTEST_SKIP() << "no capture on this device";
    }
    call(replayed);
    CUDA(cudaStreamEndCapture(stream, &graph));
    CUDA(cudaGraphInstantiate(&executable, graph, 0));

    std::vector<uint64_t> hashes[2];
    for (int i = 0; i < calls; i++) {
        call(eager);
        std::vector<uint8_t> result = recv.get(stream);
        hashes[0].push_back(fnv1a(result.data(), result.size()));
    }
    for (int i = 0; i < calls; i++) {
        CUDA(cudaGraphLaunch(executable, stream));
        std::vector<uint8_t> result = recv.get(stream);
        hashes[1].push_back(fnv1a(result.data(), result.size()));
    }
    EXPECT_EQ(hashes[0], hashes[1]);
    EXPECT_EQ(eager.state(0), replayed.state(0));
    EXPECT_EQ(eager.stats(0).calls, static_cast<uint64_t>(calls));
    EXPECT_EQ(replayed.stats(0).calls, static_cast<uint64_t>(calls));
    if (changes) {
        EXPECT_NE(hashes[1].front(), hashes[1].back());
    }
    CUDA(cudaGraphExecDestroy(executable));
    CUDA(cudaGraphDestroy(graph));
}

TEST_P(CudaStages, GraphReplaysEqualEagerCalls)
{
    NEEDS_DEVICE();
    Plan p = plan(6000, 1);
    bool all =
        p.recipe == "chunk-topk:k=4096" || p.recipe == "gspar:density=1"; /* rounding apart, nothing is left to draw */
    replay(p, p.type == GS_FLOAT32 || runsLong() ? 40 : 8, !all);
}

TEST_P(CudaMethods, GraphReplaysEqualEagerCalls)
{
    NEEDS_DEVICE();
    Plan p = plan(4500, 1);
    if (needsIterates(p.recipe))
        GTEST_SKIP() << "the iterate is the caller's: a test of its own";
    if (p.type == GS_FLOAT32 || runsLong())
        replay(p, 8, false);
}

std::string nameOfCase(const testing::TestParamInfo<CudaStages::ParamType> &info)
{
    std::string name = std::string(std::get<0>(info.param)) + "_" + nameOf(std::get<1>(info.param));
    for (char &c : name)
        if (!std::isalnum(static_cast<unsigned char>(c)))
            c = '_';
    return name;
}

INSTANTIATE_TEST_SUITE_P(Recipes, CudaMethods,
                         testing::Combine(testing::ValuesIn(methods), testing::ValuesIn(allTypes())), nameOfCase);
INSTANTIATE_TEST_SUITE_P(Recipes, CudaStages,
                         testing::Combine(testing::ValuesIn(recipes), testing::Values(GS_FLOAT32, GS_BFLOAT16)),
                         nameOfCase);
INSTANTIATE_TEST_SUITE_P(Methods, Corruption,
                         testing::Combine(testing::Values("sign", "terngrad:bucket=all",
                                                          "gspar:value=shared,density=0.3", "ef21:density=0.1",
                                                          "tng:reference=last+ema,search=worker",
                                                          "chunk-topk:k=16,value=2bit", "rows:width=7"),
                                          testing::Values(GS_FLOAT16, GS_FLOAT64)),
                         nameOfCase);
INSTANTIATE_TEST_SUITE_P(
    Recipes, Corruption,
    testing::Combine(testing::Values("threshold:tau=0.5,capacity=1", "chunk-topk", "gspar:density=0.1,value=f32",
                                     "gspar:density=0.3,value=shared,capacity=0.02", "randk:density=0.3"),
                     testing::Values(GS_FLOAT32, GS_BFLOAT16)),
    nameOfCase);

} // namespace
} // namespace gst
