/* A rank goes silent in the middle of a call, before each of the exchanges that the call is made of, in every mode: the others meet their
 * deadline, nobody's state changes, and the call can be made again. (Over MPI: test_mpi.) */
#include "core.h"
#include "methods.h"
#include "tensors.h"

#include <atomic>
#include <chrono>
#include <thread>

namespace gst
{
namespace
{

constexpr int nranks = 4, silentRank = 2;

/* What all ranks' exchanges pass through. */
std::atomic<int> exchanges{0}; /* the silent rank's in this call */
std::atomic<int> silentAt{0};  /* before which of them it waits; 0: none */
std::atomic<int> ended{0};     /* calls of its peers */

const gsTransport *original;

void perhapsWait(gsComm_t comm)
{
    if (gsCommMember(comm, comm->rank) != silentRank || ++exchanges != silentAt)
        return;
    while (ended < nranks - 1)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

gsResult_t allGather(gsComm_t comm, const void *send, void *recv, size_t bytes, gsStream_t stream)
{
    perhapsWait(comm);
    return original->allGather(comm, send, recv, bytes, stream);
}

gsResult_t allGatherExact(gsComm_t comm, const void *send, size_t bytes, void *recv, size_t slot, gsStream_t stream)
{
    perhapsWait(comm);
    return original->allGatherExact(comm, send, bytes, recv, slot, stream);
}

gsResult_t allToAllExact(gsComm_t comm, const void *send, const size_t *bytes, void *recv, size_t slot,
                         gsStream_t stream)
{
    perhapsWait(comm);
    return original->allToAllExact(comm, send, bytes, recv, slot, stream);
}

gsResult_t scatterSlices(gsComm_t comm, const void *send, size_t totalBytes, void *recv, size_t sliceBytes,
                         gsStream_t stream)
{
    perhapsWait(comm);
    return original->scatterSlices(comm, send, totalBytes, recv, sliceBytes, stream);
}

/* Ranks whose exchanges are seen, those of their nodes too. */
class Watched
{
  public:
    explicit Watched(const Plan &plan) : fleet(plan)
    {
        original = fleet.comm(0)->transport;
        table_ = *original;
        table_.allGather = allGather;
        table_.allGatherExact = allGatherExact;
        table_.allToAllExact = allToAllExact;
        table_.scatterSlices = scatterSlices;
        if (plan.segments.empty()) /* lists look at no iterate */
            fleet.setParams(Vector(plan.count, 0.0), 0.25);
        use(&table_);
    }
    ~Watched()
    {
        use(original);
    }
    void setDeadline(int64_t timeoutMs)
    {
        for (int r = 0; r < nranks; r++)
            fleet.comm(r)->timeoutMs = timeoutMs;
    }

    Fleet fleet;

  private:
    void use(const gsTransport *table)
    {
        for (int r = 0; r < nranks; r++) {
            gsComm_t whole = fleet.comm(r);
            for (gsComm_t comm : {whole, whole->node, whole->across})
                if (comm)
                    comm->transport = table;
        }
    }
    gsTransport table_;
};

Vectors gradientsOf(const Plan &plan, uint64_t step)
{
    return related(plan.count, plan.nranks, step, 0.4, plan.type);
}

/* A call in which one rank is silent before its exchange number `at`. On a busy machine another may miss the short deadline before: that
 * is the same to all. */
void callInSilence(Watched &ranks, const Vectors &gradients, int at)
{
    const Plan &plan = ranks.fleet.plan();
    std::vector<std::vector<uint8_t>> states = ranks.fleet.states();
    exchanges = ended = 0;
    silentAt = at;
    ranks.setDeadline(50);
    auto begin = std::chrono::steady_clock::now();
    parallel(nranks, [&](int r) {
        Buffer send(plan.type, gradients[static_cast<size_t>(r)]), recv(plan.type, plan.count);
        std::vector<uint8_t> untouched = recv.raw();
        gsResult_t result = reduceBuffer(plan, ranks.fleet.reducer(r), send, recv);
        ended += r != silentRank;
        EXPECT_EQ(result, GS_ERROR_TIMEOUT) << "rank " << r << ": " << gsGetLastError();
        EXPECT_TRUE(recv.raw() == untouched) << "rank " << r;
    });
    auto waited = std::chrono::steady_clock::now() - begin;
    EXPECT_LT(waited, std::chrono::milliseconds(plan.timeoutMs / 2)) << "not this call's deadline";
    EXPECT_TRUE(ranks.fleet.states() == states);
    silentAt = 0;
    ranks.setDeadline(plan.timeoutMs);
}

void expectDeadlineAtEveryExchange(const Plan &plan)
{
    Environment nodes("GS_RANKS_PER_NODE", "2");
    Watched ranks(plan), undisturbed(plan);
    int most = 0;
    for (uint64_t step = 0; step < 3; step++) {
        Vectors gradients = gradientsOf(plan, step);
        exchanges = 0;
        Results expected = undisturbed.fleet.allReduce(gradients);
        int number = exchanges;
        most = number > most ? number : most;
        for (int at = 1; at <= number; at++) {
            SCOPED_TRACE("step " + std::to_string(step) + ", exchange " + std::to_string(at));
            callInSilence(ranks, gradients, at);
        }
        ASSERT_TRUE(ranks.fleet.allReduce(gradients) == expected) << "step " << step;
        ASSERT_TRUE(ranks.fleet.states() == undisturbed.fleet.states()) << "step " << step;
    }
    EXPECT_GE(most, 1);
}

class Silence : public testing::TestWithParam<const char *>
{
};

TEST_P(Silence, IsADeadlineForAllAtEveryExchange)
{
    expectDeadlineAtEveryExchange(planOf(GetParam(), 20001, nranks));
}

INSTANTIATE_TEST_SUITE_P(Modes, Silence,
                         testing::Values("threshold:density=0.05", "chunk-topk:k=64,exchange=exact", "dense",
                                         "threshold:density=0.05,exchange=owner", "cdadam:exchange=owner-exact",
                                         "chunk-topk:twoway=1,exchange=owner", "cdadam", "gdsec:xi=1,resync=2",
                                         "lag-wk:resync=2", "tng:reference=snapshot,refresh=2",
                                         "threshold:density=0.05,exchange=hierarchical", "cdadam:exchange=hierarchical",
                                         "gdsec:xi=1,resync=2,exchange=hierarchical"),
                         [](const auto &p) { return nameOf(std::string(p.param)); });

class SilenceInLists : public testing::TestWithParam<const char *>
{
};

TEST_P(SilenceInLists, IsADeadlineForAllAtEveryExchange)
{
    Plan plan = planOf(GetParam(), 20001, nranks);
    plan.segments = {9000, 300, 0, 10701};
    plan.wholeBelow = 1000;
    expectDeadlineAtEveryExchange(plan);
}

INSTANTIATE_TEST_SUITE_P(Modes, SilenceInLists,
                         testing::Values("threshold:density=0.05", "ef21:density=0.05,exchange=exact", "dense",
                                         "cdadam:first=dense"),
                         [](const auto &p) { return nameOf(std::string(p.param)); });

} // namespace
} // namespace gst
