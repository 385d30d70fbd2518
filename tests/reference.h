/* What ranks as threads make of a few steps: the other transports must make the same, bit for bit. */
#ifndef GS_TESTS_REFERENCE_H
#define GS_TESTS_REFERENCE_H

#include "core.h"
#include "ranks.h"

namespace gst
{

inline const std::vector<std::string> &sparseRecipes()
{
    static const std::vector<std::string> recipes = {"threshold:density=0.02",
                                                     "threshold:tau=1.5,capacity=0.3",
                                                     "threshold:density=0.05,value=f32",
                                                     "chunk-topk:k=16",
                                                     "chunk-topk:k=1,value=f32",
                                                     "gspar:density=0.05",
                                                     "gspar:density=0.1,value=f32",
                                                     "gspar:value=shared",
                                                     "randk:density=0.03",
                                                     "randk:density=0.03,value=f32"};
    return recipes;
}

inline std::vector<std::string> allRecipes()
{
    std::vector<std::string> recipes = sparseRecipes();
    recipes.push_back("dense");
    return recipes;
}

struct Reference {
    std::vector<Results> steps; /* of each step, by rank */
    std::vector<std::vector<uint8_t>> states;
    std::vector<gsStats_t> stats;
};

inline Reference runOnThreads(const Plan &plan, Shape shape, int steps)
{
    Reference reference;
    ThreadRanks ranks(plan);
    for (int step = 0; step < steps; step++)
        reference.steps.push_back(ranks.allReduce(makeGradients(shape, plan, static_cast<uint64_t>(step))));
    reference.states = ranks.states();
    for (int r = 0; r < plan.nranks; r++)
        reference.stats.push_back(ranks.stats(r));
    return reference;
}

/* Puts a transport with another all-gather into a communicator, for as long as this lives. */
class OtherAllGather
{
  public:
    using AllGather = decltype(gsTransport::allGather);
    OtherAllGather(gsComm_t comm, AllGather other) : comm_(comm), original_(comm->transport), table_(*original_)
    {
        table_.allGather = other;
        comm->transport = &table_;
    }
    ~OtherAllGather()
    {
        comm_->transport = original_;
    }
    OtherAllGather(const OtherAllGather &) = delete;

  private:
    gsComm_t comm_;
    const gsTransport *original_;
    gsTransport table_;
};

} // namespace gst
#endif
