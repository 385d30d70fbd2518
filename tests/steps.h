/* Optimizer steps in tests: their vectors, on the CPU, and what a kind of step is called with. */
#ifndef GS_TESTS_STEPS_H
#define GS_TESTS_STEPS_H

#include "methods.h"

namespace gst
{

inline const std::vector<gsOptimizerKind_t> &optimizerKinds()
{
    static const std::vector<gsOptimizerKind_t> kinds = {GS_MOMENTUM, GS_AMSGRAD, GS_ADAMW};
    return kinds;
}

inline size_t vectorsOf(gsOptimizerKind_t kind)
{
    return kind == GS_MOMENTUM ? 2 : kind == GS_ADAMW ? 3 : 4;
}

/* The type of what a step changes, for gradients of another. */
inline gsDataType_t stateTypeOf(gsDataType_t type)
{
    return type == GS_FLOAT64 ? GS_FLOAT64 : GS_FLOAT32;
}

inline gsOptimizer_t optimizerOf(gsOptimizerKind_t kind, gsDataType_t type)
{
    gsOptimizer_t o = GS_OPTIMIZER_INIT;
    o.kind = kind;
    o.datatype = type;
    o.stepSize = 0.01;
    o.epsilon = 1e-6;
    o.weightDecay = 0.1;
    return o;
}

inline void pointTo(gsOptimizer_t *o, void *params, void *m, void *v, void *vmax)
{
    o->params = params;
    o->m = m;
    o->v = v;
    o->vmax = vmax;
}

/* Parameters that are drawn, and moments of 0. */
class StepVectors
{
  public:
    StepVectors(uint64_t count, gsDataType_t type, size_t skew = 0)
    {
        for (size_t v = 0; v < 4; v++)
            vectors_.emplace_back(type, v == 0 ? randomVector(count, 7, type) : Vector(count, 0.0), skew);
    }
    void give(gsOptimizer_t *o)
    {
        pointTo(o, vectors_[0].data(), vectors_[1].data(), vectors_[2].data(), vectors_[3].data());
    }
    Buffer &operator[](size_t v)
    {
        return vectors_[v];
    }
    std::vector<std::vector<uint8_t>> raw() const
    {
        std::vector<std::vector<uint8_t>> all;
        for (const Buffer &vector : vectors_) {
            EXPECT_TRUE(vector.canariesIntact());
            all.push_back(vector.raw());
        }
        return all;
    }

  private:
    std::vector<Buffer> vectors_;
};

/* One call by every rank, each with its own vectors; gradients must be left alone. */
class StepFleet
{
  public:
    StepFleet(const Plan &plan, gsOptimizerKind_t kind, size_t skew = 0) : fleet(plan), kind_(kind)
    {
        for (int r = 0; r < plan.nranks; r++)
            vectors_.emplace_back(plan.count, stateTypeOf(plan.type), skew);
    }

    void step(const Vectors &gradients, gsStream_t stream = nullptr)
    {
        parallel(plan().nranks, [&](int r) {
            Buffer gradient(plan().type, gradients[static_cast<size_t>(r)]);
            std::vector<uint8_t> before = gradient.raw();
            EXPECT_EQ(call(r, gradient, stream), GS_SUCCESS) << gsGetLastError();
            EXPECT_TRUE(gradient.raw() == before && gradient.canariesIntact());
        });
        expectEqualRanks();
    }
    gsResult_t call(int rank, const Buffer &gradient, gsStream_t stream = nullptr)
    {
        gsOptimizer_t o = optimizer(rank);
        gsResult_t result =
            gsAllReduceStep(gradient.data(), plan().count, plan().type, plan().op, &o, fleet.reducer(rank), stream);
        EXPECT_EQ(gsStreamSynchronize(stream), GS_SUCCESS) << gsGetLastError();
        return result;
    }
    /* The same in two calls. */
    void stepApart(const Vectors &gradients, uint64_t number)
    {
        Results results = fleet.allReduce(gradients);
        gsDataType_t type = stateTypeOf(plan().type);
        for (int r = 0; r < plan().nranks; r++) {
            Buffer gradient(type, doublesOf(results[static_cast<size_t>(r)], plan().type));
            gsOptimizer_t o = optimizer(r);
            o.step = number;
            EXPECT_EQ(gsOptimizerStep(fleet.comm(r), &o, gradient.data(), plan().count, nullptr), GS_SUCCESS)
                << gsGetLastError();
        }
        expectEqualRanks();
    }
    gsOptimizer_t optimizer(int rank)
    {
        gsOptimizer_t o = optimizerOf(kind_, stateTypeOf(plan().type));
        vectors_[static_cast<size_t>(rank)].give(&o);
        return o;
    }
    std::vector<std::vector<uint8_t>> vectors(int rank = 0) const
    {
        return vectors_[static_cast<size_t>(rank)].raw();
    }
    const Plan &plan() const
    {
        return fleet.plan();
    }

    Fleet fleet;

  private:
    void expectEqualRanks() const
    {
        for (int r = 1; r < plan().nranks; r++)
            EXPECT_TRUE(vectors(r) == vectors(0)) << "rank " << r << " has other bits";
    }

    gsOptimizerKind_t kind_;
    std::vector<StepVectors> vectors_;
};

} // namespace gst
#endif
