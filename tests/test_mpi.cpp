/* Ranks as MPI processes. Run it by mpirun with 1 to 4 ranks; it fails on all ranks if it fails on one. */
#include <gtest/gtest.h>

#include <mpi.h>

#include "halves.h"
#include "processes.h"
#include "reference.h"
#include "tensors.h"

namespace
{

using gst::Buffer;
using gst::Plan;
using gst::rankOf;
using gst::Shape;
using gst::sizeOf;

/* A communicator of this process, with or without a reducer. */
class MpiRank
{
  public:
    explicit MpiRank(int timeoutMs = 20000, MPI_Comm world = MPI_COMM_WORLD, int ranksPerNode = 0)
    {
        gsCommConfig_t config = GS_COMM_CONFIG_INIT;
        config.timeoutMs = timeoutMs;
        config.ranksPerNode = ranksPerNode;
        EXPECT_EQ(GS_SUCCESS, gsCommInitMpi(&comm, &world, &config)) << gsGetLastError();
    }
    explicit MpiRank(const Plan &plan) : MpiRank(plan.timeoutMs, MPI_COMM_WORLD, plan.ranksPerNode)
    {
        EXPECT_EQ(GS_SUCCESS, add(plan));
    }
    ~MpiRank()
    {
        for (gsReducer_t reducer : reducers)
            EXPECT_EQ(GS_SUCCESS, gsReducerDestroy(reducer)) << gsGetLastError();
        EXPECT_EQ(GS_SUCCESS, gsCommDestroy(comm)) << gsGetLastError();
    }
    MpiRank(const MpiRank &) = delete;

    gsResult_t add(const Plan &plan)
    {
        gsReducerConfig_t config = gst::configOf(plan);
        gsReducer_t reducer = nullptr;
        gsResult_t made = gsReducerCreate(&reducer, comm, &config);
        if (made == GS_SUCCESS)
            reducers.push_back(reducer);
        return made;
    }
    gsResult_t call(const Plan &plan, const void *send, void *recv, size_t which = 0)
    {
        return gsAllReduce(send, recv, plan.count, plan.type, plan.op, reducers[which], nullptr);
    }

    gsComm_t comm = nullptr;
    std::vector<gsReducer_t> reducers;
};

class Mpi : public testing::Test
{
  protected:
    void SetUp() override
    {
        MPI_Barrier(MPI_COMM_WORLD);
    }
    void TearDown() override
    {
        MPI_Barrier(MPI_COMM_WORLD);
    }

    Plan planOf(const std::string &recipe, gsDataType_t type = GS_FLOAT32, uint64_t count = 10007) const
    {
        Plan plan;
        plan.recipe = recipe;
        plan.type = type;
        plan.count = count;
        plan.nranks = nranks;
        return plan;
    }
    Buffer gradientOf(const Plan &plan, int step) const
    {
        return Buffer(plan.type, gst::makeGradients(Shape::Skewed, plan, static_cast<uint64_t>(step))[mine()]);
    }
    size_t mine() const
    {
        return static_cast<size_t>(rank);
    }
    gsResult_t asyncError(gsComm_t comm) const
    {
        gsResult_t error = GS_ERROR_SYSTEM;
        EXPECT_EQ(GS_SUCCESS, gsCommGetAsyncError(comm, &error));
        return error;
    }

    const int rank = rankOf(MPI_COMM_WORLD), nranks = sizeOf(MPI_COMM_WORLD);
};

void expectSameAsThreads(const Plan &plan, int rank, bool inPlace)
{
    const int steps = 3;
    size_t mine = static_cast<size_t>(rank);
    gst::Reference expected = gst::runOnThreads(plan, Shape::Skewed, steps);
    MpiRank ranks(plan);
    for (int step = 0; step < steps; step++) {
        Buffer send(plan.type, gst::makeGradients(Shape::Skewed, plan, static_cast<uint64_t>(step))[mine]);
        Buffer recv(plan.type, plan.count);
        Buffer &out = inPlace ? send : recv;
        ASSERT_EQ(GS_SUCCESS, ranks.call(plan, send.data(), out.data())) << gsGetLastError();
        ASSERT_EQ(expected.steps[static_cast<size_t>(step)][mine], out.raw()) << "step " << step;
    }
    EXPECT_EQ(expected.states[mine], gst::exportState(ranks.reducers[0]));
    gst::expectSameStats(expected.stats[mine], gst::statsOf(ranks.reducers[0]));
}

TEST_F(Mpi, EveryRecipeEqualsThreads)
{
    for (const std::string &recipe : gst::allRecipes())
        for (gsDataType_t type : {GS_FLOAT32, GS_BFLOAT16})
            for (gsRedOp_t op : {GS_SUM, GS_AVG}) {
                SCOPED_TRACE(recipe + " " + gst::nameOf(type) + " op " + std::to_string(op));
                Plan plan = planOf(recipe, type);
                plan.op = op;
                expectSameAsThreads(plan, rank, op == GS_AVG);
            }
}

/* The same iterate for every rank at this step, in the gradient's type. */
gst::Vector iterateOf(const Plan &plan, uint64_t step)
{
    gst::Vector theta = gst::times(gst::randomVector(plan.count, step), 0.01);
    for (double &x : theta)
        x = gst::roundTo(plan.type, x);
    return theta;
}

/* Skips, dense steps, second halves, references, records of true length: bytes that left, results and states. */
void expectMethodSameAsThreads(const Plan &plan, int rank)
{
    size_t mine = static_cast<size_t>(rank);
    gst::Fleet threads(plan);
    MpiRank ranks(plan);
    Buffer theta(plan.type, iterateOf(plan, 0)), stale(plan.type, gst::staleOf(plan));
    gsParams_t params = GS_PARAMS_INIT;
    params.datatype = plan.type;
    params.params = theta.data();
    params.stale = stale.data();
    params.stepSize = 0.25;
    params.smoothness = 1.0;
    threads.setParams(iterateOf(plan, 0), 0.25);
    ASSERT_EQ(GS_SUCCESS, gsReducerSetParams(ranks.reducers[0], &params)) << gsGetLastError();
    for (uint64_t step = 0; step < 6; step++) {
        gst::Vector moved = iterateOf(plan, step / 2); /* every other step it stands still */
        threads.moveTo(moved);
        for (uint64_t i = 0; i < plan.count; i++)
            theta.set(i, moved[i]);
        gst::Vectors gradients = gst::related(plan.count, plan.nranks, step / 3, 0.3, plan.type);
        Buffer send(plan.type, gradients[mine]), recv(plan.type, plan.count);
        gst::Results expected = threads.allReduce(gradients);
        ASSERT_EQ(GS_SUCCESS, ranks.call(plan, send.data(), recv.data())) << gsGetLastError();
        ASSERT_EQ(expected[mine], recv.raw()) << "step " << step;
    }
    EXPECT_EQ(threads.state(rank), gst::exportState(ranks.reducers[0]));
    gsStats_t stats = gst::statsOf(ranks.reducers[0]);
    gst::expectSameStats(threads.stats(rank), stats);
    EXPECT_EQ(threads.stats(rank).skipped, stats.skipped);
    EXPECT_EQ(threads.stats(rank).denseRounds, stats.denseRounds);
    EXPECT_EQ(threads.stats(rank).serverSent, stats.serverSent);
    EXPECT_EQ(threads.stats(rank).nodeBytes, stats.nodeBytes);
}

TEST_F(Mpi, EveryMethodEqualsThreads)
{
    for (const std::string &recipe : gst::methodRecipes())
        for (gsDataType_t type : {GS_FLOAT32, GS_FLOAT64}) {
            SCOPED_TRACE(recipe + " " + gst::nameOf(type));
            expectMethodSameAsThreads(planOf(recipe, type, 5001), rank);
        }
}

/* gsReduceScatter, and gsAllGather apart and in place. */
TEST_F(Mpi, HalvesEqualThreads)
{
    static const uint64_t slices[] = {4097, 1333, 0, 300};
    size_t which = 0;
    for (gsCollective_t collective : {GS_REDUCE_SCATTER, GS_ALL_GATHER})
        for (const std::string &recipe : gst::halfRecipes(collective)) {
            const uint64_t slice = slices[which++ % 4];
            SCOPED_TRACE(recipe + " slices of " + std::to_string(slice));
            Plan plan = gst::halfOf(collective, recipe, slice, nranks, slice % 3 ? GS_BFLOAT16 : GS_FLOAT64);
            plan.op = slice % 2 ? GS_AVG : GS_SUM;
            bool gathers = collective == GS_ALL_GATHER;
            size_t first = gst::sliceOf(plan) * mine() * gst::bytesOf(plan.type);
            gst::ThreadRanks threads(plan);
            MpiRank ranks(plan);
            for (uint64_t step = 0; step < 3; step++) {
                const gst::Vectors &given = gst::givenTo(plan, step);
                Buffer send(plan.type, given[mine()]), recv(plan.type, gst::gotBy(plan));
                bool inPlace = step == 1 && gathers;
                uint8_t *own = static_cast<uint8_t *>(recv.data()) + first;
                if (inPlace)
                    memcpy(own, send.data(), send.raw().size());
                ASSERT_EQ(GS_SUCCESS, gst::callHalf(plan, ranks.reducers[0], inPlace ? own : send.data(), recv.data()))
                    << gsGetLastError();
                ASSERT_EQ(gst::runHalf(threads, given)[mine()], recv.raw()) << "step " << step;
            }
            EXPECT_EQ(threads.state(rank), gst::exportState(ranks.reducers[0]));
            gst::expectSameStats(threads.stats(rank), gst::statsOf(ranks.reducers[0]));
        }
}

TEST_F(Mpi, NaNInOneSliceIsNaNInAll)
{
    for (gsCollective_t collective : {GS_REDUCE_SCATTER, GS_ALL_GATHER})
        for (const char *recipe : {"dense", "threshold:density=0.1", "diana"}) {
            Plan plan = gst::halfOf(collective, recipe, 4097, nranks);
            MpiRank ranks(plan);
            std::vector<uint8_t> before = gst::exportState(ranks.reducers[0]);
            Buffer send(plan.type, gst::givenTo(plan, 0)[mine()]), recv(plan.type, gst::gotBy(plan));
            if (rank == nranks - 1)
                send.set(4096, std::numeric_limits<double>::quiet_NaN());
            ASSERT_EQ(GS_SUCCESS, gst::callHalf(plan, ranks.reducers[0], send.data(), recv.data())) << gsGetLastError();
            EXPECT_TRUE(gst::allNaN(recv.raw(), plan.type)) << recipe;
            EXPECT_EQ(before, gst::exportState(ranks.reducers[0]));
        }
}

TEST_F(Mpi, ExactModeEqualsCapacityModeAndSendsWhatIsThere)
{
    for (const char *recipe :
         {"topk:density=0.05", "gspar:density=0.1", "ef-sign", "tng:reference=last+ema,search=worker"}) {
        SCOPED_TRACE(recipe);
        Plan exact = planOf(std::string(recipe) + ",exchange=exact"), slots = planOf(recipe);
        if (std::string(recipe).find(':') == std::string::npos)
            exact.recipe = std::string(recipe) + ":exchange=exact";
        MpiRank one(exact), other(slots);
        for (int step = 0; step < 4; step++) {
            Buffer send = gradientOf(exact, step), a(exact.type, exact.count), b(exact.type, exact.count);
            ASSERT_EQ(GS_SUCCESS, one.call(exact, send.data(), a.data())) << gsGetLastError();
            ASSERT_EQ(GS_SUCCESS, other.call(slots, send.data(), b.data())) << gsGetLastError();
            ASSERT_EQ(a.raw(), b.raw()) << "step " << step;
        }
        gsStats_t stats = gst::statsOf(one.reducers[0]);
        EXPECT_EQ(stats.wireBytes, (stats.payloadBytes + 4 * 8) * static_cast<uint64_t>(nranks - 1));
        EXPECT_LE(stats.wireBytes,
                  gst::statsOf(other.reducers[0]).wireBytes + 4 * 8 * static_cast<uint64_t>(nranks - 1));
    }
}

/* No element, less elements than ranks, and around a block's end. */
TEST_F(Mpi, EveryCountEqualsThreads)
{
    for (uint64_t count : {0ull, 1ull, 3ull, 4096ull, 4097ull})
        for (const char *recipe : {"dense", "gspar", "threshold:density=0.1", "chunk-topk"}) {
            SCOPED_TRACE(std::string(recipe) + " count " + std::to_string(count));
            expectSameAsThreads(planOf(recipe, GS_BFLOAT16, count), rank, false);
        }
}

uint8_t byteOf(size_t rank, size_t i)
{
    return static_cast<uint8_t>(i * 7 + i / 251 + rank * 31);
}

const std::vector<size_t> sizes = {0, 1, 1 << 20, (3 << 20) + 5};

TEST_F(Mpi, AllGatherBringsEveryRanksBytes)
{
    MpiRank ranks;
    for (size_t bytes : sizes) {
        std::vector<uint8_t> send(bytes), all(bytes * static_cast<size_t>(nranks) + 1, 0xee);
        for (size_t i = 0; i < bytes; i++)
            send[i] = byteOf(mine(), i);
        ASSERT_EQ(GS_SUCCESS, ranks.comm->transport->allGather(ranks.comm, send.data(), all.data(), bytes, nullptr));
        for (size_t r = 0; r < static_cast<size_t>(nranks); r++)
            for (size_t i = 0; i < bytes; i++)
                ASSERT_EQ(byteOf(r, i), all[r * bytes + i]);
        ASSERT_EQ(0xee, all.back());
    }
}

/* The last slices are short or empty. */
TEST_F(Mpi, ScatterBringsEachRankItsSlices)
{
    MpiRank ranks;
    for (size_t slice : sizes) {
        size_t total = slice * static_cast<size_t>(nranks) - slice / 3 * static_cast<size_t>(nranks);
        std::vector<uint8_t> send(total), slices(slice * static_cast<size_t>(nranks) + 1, 0xee);
        for (size_t i = 0; i < total; i++)
            send[i] = byteOf(mine(), i);
        ASSERT_EQ(GS_SUCCESS,
                  ranks.comm->transport->scatterSlices(ranks.comm, send.data(), total, slices.data(), slice, nullptr));
        for (size_t r = 0; r < static_cast<size_t>(nranks); r++)
            for (size_t i = mine() * slice; i < (mine() + 1) * slice && i < total; i++)
                ASSERT_EQ(byteOf(r, i), slices[r * slice + i - mine() * slice]);
        ASSERT_EQ(0xee, slices.back());
    }
}

/* How many bytes rank `from` has for rank `to`, of at most `slot`: none among them, and whole slots. */
size_t lengthOf(size_t from, size_t to, size_t slot)
{
    return slot * ((3 * from + 5 * to) % 4) / 3;
}

/* On the whole and on parts: ranks of a part are `step` apart, the first of them is rank % step. */
void expectExactExchanges(gsComm_t comm, size_t rank, size_t step, size_t slot)
{
    const size_t nranks = static_cast<size_t>(comm->nranks), own = static_cast<size_t>(comm->rank);
    auto world = [&](size_t r) { return rank % step + r * step; };
    std::vector<uint8_t> send(nranks * slot), recv(nranks * slot + 1, 0xee), expected = recv;
    std::vector<size_t> lengths;
    for (size_t i = 0; i < send.size(); i++)
        send[i] = byteOf(rank, i);
    for (size_t r = 0; r < nranks; r++) {
        lengths.push_back(lengthOf(rank, world(r), slot));
        for (size_t i = 0; i < lengthOf(world(r), rank, slot); i++)
            expected[r * slot + i] = byteOf(world(r), own * slot + i);
    }
    ASSERT_EQ(GS_SUCCESS,
              comm->transport->allToAllExact(comm, send.data(), lengths.data(), recv.data(), slot, nullptr));
    ASSERT_EQ(expected, recv) << "slot " << slot;
    recv.assign(recv.size(), 0xee);
    expected = recv;
    for (size_t r = 0; r < nranks; r++)
        for (size_t i = 0; i < lengthOf(world(r), 0, slot); i++)
            expected[r * slot + i] = byteOf(world(r), i);
    ASSERT_EQ(GS_SUCCESS,
              comm->transport->allGatherExact(comm, send.data(), lengthOf(rank, 0, slot), recv.data(), slot, nullptr));
    ASSERT_EQ(expected, recv) << "slot " << slot;
}

TEST_F(Mpi, ExactExchangesBringWhatThereIs)
{
    MpiRank ranks;
    for (size_t slot : {size_t{0}, size_t{3}, size_t{3} << 18, size_t{9} << 18})
        expectExactExchanges(ranks.comm, mine(), 1, slot);
}

/* ---- parts ---- */

/* This rank's part of two, one rank after the other into the next. */
gsComm_t dealt(gsComm_t comm, int key = 0)
{
    gsComm_t part = nullptr;
    EXPECT_EQ(GS_SUCCESS, comm->transport->split(comm, comm->rank % 2, key, &part)) << gsGetLastError();
    return part;
}

/* One all-gather of 8 bytes. */
gsResult_t meet(gsComm_t comm)
{
    uint64_t own = 1;
    std::vector<uint64_t> all(static_cast<size_t>(comm->nranks));
    return comm->transport->allGather(comm, &own, all.data(), sizeof own, nullptr);
}

TEST_F(Mpi, PartsExchangeAmongThemselves)
{
    MpiRank ranks;
    gsComm_t up = dealt(ranks.comm), down = dealt(ranks.comm, -rank);
    int members = (nranks - rank % 2 + 1) / 2;
    ASSERT_EQ(members, up->nranks);
    ASSERT_EQ(rank / 2, up->rank);
    ASSERT_EQ(members - 1 - rank / 2, down->rank);
    uint64_t own = 100u + static_cast<uint64_t>(rank);
    std::vector<uint64_t> all(static_cast<size_t>(members));
    ASSERT_EQ(GS_SUCCESS, down->transport->allGather(down, &own, all.data(), sizeof own, nullptr));
    for (int r = 0; r < members; r++)
        EXPECT_EQ(static_cast<uint64_t>(100 + rank % 2 + 2 * (members - 1 - r)), all[static_cast<size_t>(r)]);
    for (size_t slot : {size_t{300}, size_t{3} << 20}) /* and other lengths in the other part */
        expectExactExchanges(up, mine(), 2, slot + static_cast<size_t>(rank % 2));
    std::vector<uint8_t> send(static_cast<size_t>(members) * 100), recv(send.size());
    for (size_t i = 0; i < send.size(); i++)
        send[i] = byteOf(mine(), i);
    ASSERT_EQ(GS_SUCCESS, up->transport->scatterSlices(up, send.data(), send.size(), recv.data(), 100, nullptr));
    for (size_t i = 0; i < recv.size(); i++)
        ASSERT_EQ(byteOf(mine() % 2 + 2 * (i / 100), static_cast<size_t>(up->rank) * 100 + i % 100), recv[i]);
}

TEST_F(Mpi, MismatchInOnePartFailsEveryRank)
{
    if (nranks < 3)
        GTEST_SKIP() << "no part of two ranks";
    MpiRank ranks;
    gsComm_t part = dealt(ranks.comm), other = dealt(ranks.comm);
    std::vector<uint8_t> send(64), recv(64 * static_cast<size_t>(nranks));
    EXPECT_EQ(GS_ERROR_MISMATCH,
              part->transport->allGather(part, send.data(), recv.data(), rank == 2 ? 48 : 64, nullptr));
    size_t lengths[4] = {};
    EXPECT_EQ(GS_ERROR_MISMATCH,
              part->transport->allToAllExact(part, send.data(), lengths, recv.data(), rank == 0 ? 8 : 16, nullptr));
    EXPECT_EQ(GS_ERROR_MISMATCH, meet(rank == 1 ? other : part)) << "another split";
    EXPECT_EQ(GS_ERROR_MISMATCH, meet(rank == 1 ? ranks.comm : part)) << "the whole";
    EXPECT_EQ(GS_SUCCESS, meet(part)) << gsGetLastError();
}

/* The last rank is missing, in whichever part it is. */
TEST_F(Mpi, DeadlineInAPartIsEveryRanks)
{
    if (nranks == 1)
        GTEST_SKIP() << "one rank waits for nobody";
    MpiRank ranks;
    gsComm_t part = dealt(ranks.comm);
    ranks.comm->timeoutMs = 300;
    if (rank != nranks - 1) {
        EXPECT_EQ(GS_ERROR_TIMEOUT, meet(part));
        std::string text = gsGetLastError(), absent = "rank " + std::to_string(nranks - 1);
        EXPECT_NE(std::string::npos, text.find("not heard from: " + absent)) << text;
        EXPECT_EQ(GS_ERROR_TIMEOUT, asyncError(part));
        EXPECT_EQ(GS_ERROR_INVALID_USAGE, meet(ranks.comm)) << "the whole has failed with it";
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

TEST_F(Mpi, AbortOfTheWholeWakesRanksInTheirParts)
{
    if (nranks == 1)
        GTEST_SKIP() << "one rank waits for nobody";
    MpiRank ranks;
    gsComm_t part = dealt(ranks.comm);
    if (rank != 0) {
        std::thread watchdog([&] {
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            EXPECT_EQ(GS_SUCCESS, gsCommAbort(ranks.comm));
        });
        EXPECT_EQ(GS_ERROR_ABORTED, meet(part));
        watchdog.join();
        EXPECT_EQ(GS_ERROR_ABORTED, asyncError(part));
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

TEST_F(Mpi, NaNOnOneRankIsNaNOnAllAndChangesNoState)
{
    for (const std::string &recipe : gst::allRecipes()) {
        SCOPED_TRACE(recipe);
        Plan plan = planOf(recipe);
        MpiRank ranks(plan);
        Buffer send = gradientOf(plan, 0), recv(plan.type, plan.count);
        ASSERT_EQ(GS_SUCCESS, ranks.call(plan, send.data(), recv.data()));
        auto before = gst::exportState(ranks.reducers[0]);
        if (rank == nranks - 1)
            send.set(4711, std::nanf(""));
        ASSERT_EQ(GS_SUCCESS, ranks.call(plan, send.data(), recv.data()));
        EXPECT_TRUE(gst::allNaN(recv.raw(), plan.type));
        EXPECT_EQ(before, gst::exportState(ranks.reducers[0]));
        EXPECT_EQ(1u, gst::statsOf(ranks.reducers[0]).nonFinite);
    }
}

TEST_F(Mpi, DifferentConfigurationsAreRefusedOnAllRanks)
{
    if (nranks == 1)
        GTEST_SKIP() << "one rank cannot differ";
    MpiRank ranks;
    bool differs = rank == nranks - 1;
    Plan recipe = planOf(differs ? "gspar:density=0.06" : "gspar:density=0.05"), count = planOf("gspar"), seed = count;
    count.count += differs;
    seed.seed += differs;
    Plan type = planOf("gspar", differs ? GS_BFLOAT16 : GS_FLOAT32);
    Plan invalid = planOf(differs ? "gspar:density=2" : "gspar:density=0.5");
    for (const Plan &plan : {recipe, count, seed, type})
        EXPECT_EQ(GS_ERROR_MISMATCH, ranks.add(plan)) << gsGetLastError();
    EXPECT_NE(GS_SUCCESS, ranks.add(invalid));
    EXPECT_EQ(GS_SUCCESS, ranks.add(planOf("gspar"))) << "the communicator still works";
}

/* Two reducers, and one rank takes the other one: by slot size, and by configuration alone. */
TEST_F(Mpi, DifferentCallsAreMismatchesOnAllRanks)
{
    if (nranks == 1)
        GTEST_SKIP() << "one rank cannot differ";
    for (bool sameSize : {false, true}) {
        Plan plan = planOf("threshold:density=0.02"), other = plan;
        other.count = plan.count / 2;
        if (sameSize)
            other = plan, other.seed++;
        MpiRank ranks(plan);
        ASSERT_EQ(GS_SUCCESS, ranks.add(other));
        Buffer send = gradientOf(plan, 0), recv(plan.type, plan.count);
        ASSERT_EQ(GS_SUCCESS, ranks.call(plan, send.data(), recv.data()));
        auto states = {gst::exportState(ranks.reducers[0]), gst::exportState(ranks.reducers[1])};
        auto result = recv.raw();
        bool differs = rank == 0;
        EXPECT_EQ(GS_ERROR_MISMATCH, ranks.call(differs ? other : plan, send.data(), recv.data(), differs)) << sameSize;
        EXPECT_EQ(result, recv.raw());
        EXPECT_EQ(states.begin()[0], gst::exportState(ranks.reducers[0]));
        EXPECT_EQ(states.begin()[1], gst::exportState(ranks.reducers[1]));
        EXPECT_EQ(GS_SUCCESS, ranks.call(plan, send.data(), recv.data())) << gsGetLastError();
    }
}

/* As the transport's all-gather, but a byte of rank 0's record arrives changed. */
gsResult_t corruptAllGather(gsComm_t comm, const void *send, void *recv, size_t bytes, gsStream_t)
{
    GS_CHECK(comm->transport->allGatherHost(comm, send, recv, bytes));
    static_cast<uint8_t *>(recv)[84] ^= 4;
    return GS_SUCCESS;
}

TEST_F(Mpi, CorruptRecordIsRefusedAndTheCallCanBeMadeAgain)
{
    for (const std::string &recipe : gst::sparseRecipes()) {
        SCOPED_TRACE(recipe);
        Plan plan = planOf(recipe);
        gst::Reference expected = gst::runOnThreads(plan, Shape::Skewed, 1);
        MpiRank ranks(plan);
        Buffer send = gradientOf(plan, 0), recv(plan.type, plan.count);
        auto state = gst::exportState(ranks.reducers[0]), untouched = recv.raw();
        {
            gst::OtherAllGather corrupt(ranks.comm, corruptAllGather);
            EXPECT_EQ(GS_ERROR_CORRUPT, ranks.call(plan, send.data(), recv.data())) << gsGetLastError();
        }
        EXPECT_EQ(untouched, recv.raw());
        EXPECT_EQ(state, gst::exportState(ranks.reducers[0]));
        ASSERT_EQ(GS_SUCCESS, ranks.call(plan, send.data(), recv.data())) << gsGetLastError();
        EXPECT_EQ(expected.steps[0][mine()], recv.raw());
    }
}

TEST_F(Mpi, DeadlineFailsTheCommunicatorAndChangesNothing)
{
    if (nranks == 1)
        GTEST_SKIP() << "one rank waits for nobody";
    for (const char *recipe : {"threshold:density=0.02", "dense"}) {
        Plan plan = planOf(recipe);
        plan.timeoutMs = 2000; /* for creation; then less */
        MpiRank ranks(plan);
        Buffer send = gradientOf(plan, 0), recv(plan.type, plan.count);
        ASSERT_EQ(GS_SUCCESS, ranks.call(plan, send.data(), recv.data()));
        auto state = gst::exportState(ranks.reducers[0]), result = recv.raw();
        ranks.comm->timeoutMs = 300;
        if (rank != nranks - 1) {
            EXPECT_EQ(GS_ERROR_TIMEOUT, ranks.call(plan, send.data(), recv.data()));
            std::string text = gsGetLastError(), absent = "rank " + std::to_string(nranks - 1);
            EXPECT_NE(std::string::npos, text.find("not heard from: " + absent)) << text;
            EXPECT_EQ(GS_ERROR_TIMEOUT, asyncError(ranks.comm));
            EXPECT_EQ(GS_ERROR_INVALID_USAGE, ranks.call(plan, send.data(), recv.data()));
        }
        MPI_Barrier(MPI_COMM_WORLD);
        if (rank == nranks - 1) {
            EXPECT_EQ(GS_ERROR_TIMEOUT, ranks.call(plan, send.data(), recv.data())) << "its peers have gone";
        }
        EXPECT_EQ(result, recv.raw());
        EXPECT_EQ(state, gst::exportState(ranks.reducers[0]));
    }
    MpiRank another;
    EXPECT_EQ(GS_SUCCESS, another.add(planOf("gspar"))) << gsGetLastError();
}

TEST_F(Mpi, AbortEndsTheWaitFromAnotherThread)
{
    if (nranks == 1)
        GTEST_SKIP() << "one rank waits for nobody";
    Plan plan = planOf("gspar");
    MpiRank ranks(plan);
    Buffer send = gradientOf(plan, 0), recv(plan.type, plan.count);
    if (rank != 0) {
        std::thread watchdog([&] {
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            EXPECT_EQ(GS_SUCCESS, gsCommAbort(ranks.comm));
        });
        EXPECT_EQ(GS_ERROR_ABORTED, ranks.call(plan, send.data(), recv.data()));
        watchdog.join();
        EXPECT_EQ(GS_ERROR_ABORTED, asyncError(ranks.comm));
        EXPECT_EQ(GS_ERROR_ABORTED, ranks.call(plan, send.data(), recv.data()));
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

TEST_F(Mpi, DestroyedRankFailsItsPeersAtOnce)
{
    if (nranks == 1)
        GTEST_SKIP() << "one rank waits for nobody";
    MpiRank ranks(planOf("gspar"));
    Buffer send = gradientOf(planOf("gspar"), 0), recv(GS_FLOAT32, send.count());
    if (rank == 0)
        return;
    EXPECT_EQ(GS_ERROR_INVALID_USAGE, ranks.call(planOf("gspar"), send.data(), recv.data()));
    EXPECT_EQ(GS_ERROR_INVALID_USAGE, asyncError(ranks.comm));
}

TEST_F(Mpi, PartsOfTheWorldAreIndependent)
{
    MPI_Comm part;
    MPI_Comm_split(MPI_COMM_WORLD, rank % 2, 0, &part);
    {
        MpiRank ranks(20000, part);
        int count = 0, own = -1;
        EXPECT_EQ(GS_SUCCESS, gsCommCount(ranks.comm, &count));
        EXPECT_EQ(GS_SUCCESS, gsCommUserRank(ranks.comm, &own));
        EXPECT_EQ(sizeOf(part), count);
        EXPECT_EQ(rankOf(part), own);
        Plan plan = planOf("dense");
        std::vector<float> ones(plan.count, 1.0f), sum(plan.count);
        ASSERT_EQ(GS_SUCCESS, ranks.add(plan));
        for (int call = 0; call <= rank % 2; call++)
            ASSERT_EQ(GS_SUCCESS, ranks.call(plan, ones.data(), sum.data()));
        EXPECT_EQ(std::vector<float>(plan.count, static_cast<float>(count)), sum);
    }
    MPI_Comm_free(&part);
}

TEST_F(Mpi, OtherThreadsAreRefusedWhereMpiForbidsThem)
{
    MpiRank ranks;
    uint64_t own = 1;
    std::vector<uint64_t> all(static_cast<size_t>(nranks));
    auto gather = [&] { return ranks.comm->transport->allGatherHost(ranks.comm, &own, all.data(), sizeof own); };
    std::thread other([&] { EXPECT_EQ(GS_ERROR_INVALID_USAGE, gather()); });
    other.join();
    EXPECT_EQ(GS_SUCCESS, gather());
}

TEST_F(Mpi, RefusesWhatIsNoCommunicator)
{
    gsComm_t comm = nullptr;
    MPI_Comm none = MPI_COMM_NULL, world = MPI_COMM_WORLD;
    gsCommConfig_t config = GS_COMM_CONFIG_INIT;
    config.timeoutMs = -1;
    EXPECT_EQ(GS_ERROR_INVALID_ARGUMENT, gsCommInitMpi(&comm, nullptr, nullptr));
    EXPECT_EQ(GS_ERROR_INVALID_ARGUMENT, gsCommInitMpi(&comm, &none, nullptr));
    EXPECT_EQ(GS_ERROR_INVALID_ARGUMENT, gsCommInitMpi(nullptr, &world, nullptr));
    EXPECT_EQ(GS_ERROR_INVALID_ARGUMENT, gsCommInitMpi(&comm, &world, &config));
}

/* ---- nodes ---- */

TEST_F(Mpi, NodesAreFoundOrGiven)
{
    int nodes = -1, node = -1;
    MpiRank found, given(20000, MPI_COMM_WORLD, 2);
    ASSERT_EQ(GS_SUCCESS, gsCommGetNodes(found.comm, &nodes, &node)) << gsGetLastError();
    EXPECT_EQ(1, nodes) << "all processes share this machine's memory";
    EXPECT_EQ(0, node);
    ASSERT_EQ(GS_SUCCESS, gsCommGetNodes(given.comm, &nodes, &node)) << gsGetLastError();
    EXPECT_EQ((nranks + 1) / 2, nodes);
    EXPECT_EQ(rank / 2, node);
}

const char *const nodeRecipes[] = {"threshold:density=0.05", "gspar:density=0.1,value=shared",
                                   "ef21:density=0.1",       "diana:first=dense",
                                   "cdadam:select=sign",     "gdsec:xi=1,resync=2",
                                   "terngrad:bucket=all",    "tng:reference=last+ema,search=worker"};

Plan onNodes(Plan plan, int ranksPerNode)
{
    plan.recipe += ",exchange=hierarchical";
    plan.ranksPerNode = ranksPerNode;
    return plan;
}

TEST_F(Mpi, HierarchicalEqualsThreads)
{
    for (int ranksPerNode = 1; ranksPerNode <= nranks; ranksPerNode++)
        for (const char *recipe : nodeRecipes) {
            if (nranks % ranksPerNode)
                continue;
            SCOPED_TRACE(std::string(recipe) + ", " + std::to_string(ranksPerNode) + " ranks a node");
            gsDataType_t type = ranksPerNode % 2 ? GS_FLOAT32 : GS_BFLOAT16;
            Plan plan = onNodes(planOf(recipe, type, 9001), ranksPerNode);
            plan.op = ranksPerNode % 2 ? GS_AVG : GS_SUM;
            expectMethodSameAsThreads(plan, rank);
        }
}

/* ---- a rank that falls silent ---- */

const gsTransport *original;
int exchanges, silentAt; /* this rank's in a call, and before which it leaves; 0: none */

bool isSilent()
{
    return ++exchanges == silentAt;
}

gsResult_t silence()
{
    return gsFail(GS_ERROR_SYSTEM, "as if this rank had died");
}

gsResult_t allGather(gsComm_t comm, const void *send, void *recv, size_t bytes, gsStream_t stream)
{
    return isSilent() ? silence() : original->allGather(comm, send, recv, bytes, stream);
}

gsResult_t allGatherExact(gsComm_t comm, const void *send, size_t bytes, void *recv, size_t slot, gsStream_t stream)
{
    return isSilent() ? silence() : original->allGatherExact(comm, send, bytes, recv, slot, stream);
}

gsResult_t allToAllExact(gsComm_t comm, const void *send, const size_t *bytes, void *recv, size_t slot,
                         gsStream_t stream)
{
    return isSilent() ? silence() : original->allToAllExact(comm, send, bytes, recv, slot, stream);
}

gsResult_t scatterSlices(gsComm_t comm, const void *send, size_t totalBytes, void *recv, size_t sliceBytes,
                         gsStream_t stream)
{
    return isSilent() ? silence() : original->scatterSlices(comm, send, totalBytes, recv, sliceBytes, stream);
}

gsTransport watched(const gsTransport *transport)
{
    original = transport;
    gsTransport table = *transport;
    table.allGather = allGather;
    table.allGatherExact = allGatherExact;
    table.allToAllExact = allToAllExact;
    table.scatterSlices = scatterSlices;
    return table;
}

/* The last rank leaves before exchange number `at` of a call, where it has so many: false if not. On a busy machine another rank may miss
 * the short deadline before: that is the same to all. */
bool expectDeadline(const Plan &plan, int at, Buffer send)
{
    MpiRank ranks(plan);
    Buffer recv(plan.type, plan.count);
    gsTransport table = watched(ranks.comm->transport);
    for (gsComm_t comm : {ranks.comm, ranks.comm->node, ranks.comm->across})
        if (comm)
            comm->transport = &table;
    exchanges = silentAt = 0;
    bool leaver = ranks.comm->rank == plan.nranks - 1, there = false;
    EXPECT_EQ(GS_SUCCESS, gst::reduceBuffer(plan, ranks.reducers[0], send, recv)) << gsGetLastError();
    there = at <= exchanges;
    if (there) {
        auto state = gst::exportState(ranks.reducers[0]), result = recv.raw();
        ranks.comm->timeoutMs = 150;
        exchanges = 0;
        silentAt = leaver ? at : 0;
        double begin = MPI_Wtime();
        gsResult_t ended = gst::reduceBuffer(plan, ranks.reducers[0], send, recv);
        EXPECT_TRUE(ended == GS_ERROR_TIMEOUT || (leaver && ended == GS_ERROR_SYSTEM)) << gsGetLastError();
        EXPECT_LT(MPI_Wtime() - begin, plan.timeoutMs / 2000.0) << "not this call's deadline";
        EXPECT_EQ(result, recv.raw());
        EXPECT_EQ(state, gst::exportState(ranks.reducers[0]));
    }
    MPI_Barrier(MPI_COMM_WORLD);
    for (gsComm_t comm : {ranks.comm, ranks.comm->node, ranks.comm->across})
        if (comm)
            comm->transport = original;
    return there;
}

/* In every mode; of a list too. */
TEST_F(Mpi, RankSilentBeforeAnyExchangeFailsAllAndChangesNothing)
{
    if (nranks < 3)
        GTEST_SKIP() << "three or four ranks show it";
    auto expectAll = [&](const Plan &plan) {
        SCOPED_TRACE(plan.recipe + (plan.segments.empty() ? "" : ", a list"));
        int at = 1;
        while (expectDeadline(plan, at, gradientOf(plan, 0)))
            at++;
        EXPECT_GT(at, 1);
    };
    for (const char *recipe : {"threshold:density=0.05", "ef21:density=0.1,exchange=exact", "dense"}) {
        Plan plan = planOf(recipe, GS_FLOAT32, 9001);
        expectAll(plan);
        plan.segments = {8000, 300, 0, 701};
        expectAll(plan);
    }
    expectAll(planOf("threshold:density=0.05,exchange=owner", GS_FLOAT32, 9001));
    expectAll(planOf("ef21:density=0.1,exchange=owner-exact", GS_FLOAT32, 9001));
    expectAll(onNodes(planOf("ef21:density=0.1", GS_FLOAT32, 9001), nranks % 2 ? 1 : 2));
}

/* Rank 0 prints everything, the others what fails. */
class FailurePrinter : public testing::EmptyTestEventListener
{
    void OnTestPartResult(const testing::TestPartResult &part) override
    {
        if (part.failed())
            std::printf("rank %d: %s:%d: %s\n", rankOf(MPI_COMM_WORLD), part.file_name(), part.line_number(),
                        part.message());
    }
};

} // namespace

int main(int argc, char **argv)
{
    int level = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
    testing::InitGoogleTest(&argc, argv);
    testing::TestEventListeners &listeners = testing::UnitTest::GetInstance()->listeners();
    if (rankOf(MPI_COMM_WORLD) != 0) {
        delete listeners.Release(listeners.default_result_printer());
        listeners.Append(new FailurePrinter);
    }
    int failed = RUN_ALL_TESTS(), anyFailed = 0;
    MPI_Allreduce(&failed, &anyFailed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    MPI_Finalize();
    return anyFailed;
}
