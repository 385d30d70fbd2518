/*
 * A rank dies in the middle of a call: the others get an error and keep their state, find who is left, and go on. Run by test_recovery.sh:
 * mpirun --enable-recovery -n RANKS test_recovery RECIPE VICTIM CALL [list]. The victim kills itself as it begins the CALL-th MPI collective of its
 * third step; 0: at any moment of it, or of the next. list: the gradient is one of tensors.
 */
#include <gtest/gtest.h>

#include <mpi.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <random>
#include <thread>
#include <unistd.h>

#include "methods.h"
#include "processes.h"
#include "reference.h"
#include "tensors.h"

namespace
{

using gst::Buffer;
using gst::Plan;
using gst::rankOf;
using gst::sizeOf;
using States = std::vector<std::vector<uint8_t>>; /* by rank */

std::string recipe;
int victim, fatalCall;
bool isList;
std::atomic<int> fuse{0}; /* collectives until the end */

void burn()
{
    if (fuse > 0 && --fuse == 0)
        kill(getpid(), SIGKILL);
}

enum { PATIENCE_MS = 20000, TIMEOUT_MS = 400, STEPS_BEFORE = 2, STEPS_AFTER = 2, COUNT = 50000 };

Plan planOf(int nranks)
{
    Plan plan = gst::planOf(recipe, COUNT, nranks, GS_FLOAT32);
    plan.op = GS_AVG;
    if (isList)
        plan.segments = {COUNT - 9000, 300, 0, 8700};
    return plan;
}

Buffer gradientOf(const Plan &plan, int rank, uint64_t step)
{
    return Buffer(plan.type, gst::related(plan.count, plan.nranks, step, 0.4, plan.type)[static_cast<size_t>(rank)]);
}

/* Everybody's bytes. */
States trade(const std::vector<uint8_t> &own, MPI_Comm comm)
{
    int ranks = sizeOf(comm), bytes = static_cast<int>(own.size());
    std::vector<int> all(static_cast<size_t>(ranks)), starts(all.size() + 1, 0);
    MPI_Allgather(&bytes, 1, MPI_INT, all.data(), 1, MPI_INT, comm);
    for (size_t r = 0; r < all.size(); r++)
        starts[r + 1] = starts[r] + all[r];
    std::vector<uint8_t> packed(static_cast<size_t>(starts.back()));
    MPI_Allgatherv(own.data(), bytes, MPI_BYTE, packed.data(), all.data(), starts.data(), MPI_BYTE, comm);
    States states;
    for (size_t r = 0; r < all.size(); r++)
        states.emplace_back(packed.begin() + starts[r], packed.begin() + starts[r + 1]);
    return states;
}

gsResult_t importRanks(gsReducer_t reducer, const States &states)
{
    std::vector<const void *> pointers;
    std::vector<size_t> bytes;
    for (const std::vector<uint8_t> &state : states) {
        pointers.push_back(state.empty() ? nullptr : state.data());
        bytes.push_back(state.size());
    }
    return gsReducerImportRanks(reducer, pointers.data(), bytes.data(), static_cast<int>(states.size()), nullptr, 0);
}

/* A communicator and its reducer. */
class Rank
{
  public:
    explicit Rank(MPI_Comm world) : plan(planOf(sizeOf(world))), number(rankOf(world))
    {
        gsCommConfig_t config = GS_COMM_CONFIG_INIT;
        config.timeoutMs = PATIENCE_MS;
        EXPECT_EQ(gsCommInitMpi(&comm, &world, &config), GS_SUCCESS) << gsGetLastError();
        gsReducerConfig_t reducerConfig = gst::configOf(plan);
        EXPECT_EQ(gsReducerCreate(&reducer, comm, &reducerConfig), GS_SUCCESS) << gsGetLastError();
        if (isList) /* which looks at no iterate */
            return;
        gsParams_t params = GS_PARAMS_INIT;
        params.params = theta.data();
        params.stepSize = 0.25;
        params.smoothness = 1.0;
        EXPECT_EQ(gsReducerSetParams(reducer, &params), GS_SUCCESS) << gsGetLastError();
    }
    ~Rank()
    {
        EXPECT_EQ(gsReducerDestroy(reducer), GS_SUCCESS) << gsGetLastError();
        EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS) << gsGetLastError();
    }
    Rank(const Rank &) = delete;

    gsResult_t call(uint64_t step, Buffer &recv)
    {
        Buffer send = gradientOf(plan, number, step);
        return gst::reduceBuffer(plan, reducer, send, recv);
    }

    const Plan plan;
    const int number;
    gsComm_t comm = nullptr;
    gsReducer_t reducer = nullptr;
    std::vector<float> theta = std::vector<float>(COUNT, 0.0f);
};

/* Steps until one fails: here, or, where this rank had finished when the victim died, at the next. */
void stepUntilFailure(Rank &rank, uint64_t step)
{
    for (;; step++) {
        Buffer recv(rank.plan.type, rank.plan.count);
        std::vector<uint8_t> state = gst::exportState(rank.reducer), untouched = recv.raw();
        double begin = MPI_Wtime();
        gsResult_t result = rank.call(step, recv);
        if (result == GS_SUCCESS)
            continue;
        EXPECT_LT(MPI_Wtime() - begin, PATIENCE_MS / 2000.0) << "not this call's deadline";
        EXPECT_TRUE(result == GS_ERROR_TIMEOUT || result == GS_ERROR_TRANSPORT) << gsGetErrorString(result);
        EXPECT_EQ(recv.raw(), untouched);
        EXPECT_EQ(gst::exportState(rank.reducer), state);
        return;
    }
}

MPI_Comm shrink(const Rank &rank)
{
    MPI_Comm left = MPI_COMM_NULL;
    gsResult_t result = GS_ERROR_TIMEOUT;
    for (int attempt = 0; attempt < 3 && (result == GS_ERROR_TIMEOUT || result == GS_ERROR_MISMATCH); attempt++)
        result = gsCommShrinkMpi(rank.comm, &left, 3 * TIMEOUT_MS);
    EXPECT_EQ(result, GS_SUCCESS) << gsGetLastError();
    return left;
}

/* By their old numbers; the victim's is empty. */
States statesOfSurvivors(const Rank &rank, MPI_Comm left)
{
    States traded = trade(gst::exportState(rank.reducer), left), states;
    for (int r = 0, next = 0; r < rank.plan.nranks; r++)
        states.push_back(r == victim ? std::vector<uint8_t>() : traded[static_cast<size_t>(next++)]);
    return states;
}

/* The same continuation by ranks that are threads. States may be of two steps, where the victim died at any moment. */
void expectSameAsThreads(MPI_Comm left, const States &states)
{
    Rank rank(left);
    gst::Fleet threads(rank.plan);
    if (!isList)
        threads.setParams(gst::Vector(COUNT, 0.0), 0.25);
    gsResult_t imported = importRanks(rank.reducer, states);
    if (fatalCall == 0 && imported == GS_ERROR_MISMATCH)
        return;
    ASSERT_EQ(imported, GS_SUCCESS) << gsGetLastError();
    for (int r = 0; r < rank.plan.nranks; r++)
        ASSERT_EQ(importRanks(threads.reducer(r), states), GS_SUCCESS) << gsGetLastError();
    for (uint64_t step = 10; step < 10 + STEPS_AFTER; step++) {
        Buffer recv(rank.plan.type, rank.plan.count);
        gst::Results expected =
            threads.allReduce(gst::related(rank.plan.count, rank.plan.nranks, step, 0.4, rank.plan.type));
        ASSERT_EQ(rank.call(step, recv), GS_SUCCESS) << gsGetLastError();
        ASSERT_EQ(recv.raw(), expected[static_cast<size_t>(rank.number)]) << "step " << step;
    }
    EXPECT_EQ(gst::exportState(rank.reducer), threads.state(rank.number));
}

void dieInStep(Rank &rank, uint64_t step)
{
    Buffer recv(rank.plan.type, rank.plan.count);
    std::thread killer;
    if (fatalCall > 0)
        fuse = fatalCall;
    else
        killer = std::thread([] {
            std::this_thread::sleep_for(std::chrono::microseconds(std::random_device{}() % 4000));
            kill(getpid(), SIGKILL);
        });
    while (rank.call(step, recv) == GS_SUCCESS) /* on a busy machine others may have given it up before */
        step++;
    kill(getpid(), SIGKILL);
}

TEST(Recovery, SurvivorsGoOn)
{
    MPI_Comm left;
    States checkpoint, states;
    {
        Rank rank(MPI_COMM_WORLD);
        uint64_t step = 0;
        for (; step < STEPS_BEFORE; step++) {
            Buffer recv(rank.plan.type, rank.plan.count);
            ASSERT_EQ(rank.call(step, recv), GS_SUCCESS) << gsGetLastError();
        }
        checkpoint = trade(gst::exportState(rank.reducer), MPI_COMM_WORLD);
        rank.comm->timeoutMs = TIMEOUT_MS;
        if (rank.number == victim)
            dieInStep(rank, step);
        stepUntilFailure(rank, step);
        left = shrink(rank);
        ASSERT_EQ(sizeOf(left), rank.plan.nranks - 1);
        states = statesOfSurvivors(rank, left);
    }
    if (recipe.find("hierarchical") == std::string::npos) { /* whose states fit the nodes that there were */
        expectSameAsThreads(left, states);                  /* what the dead rank owed is lost */
        expectSameAsThreads(left, checkpoint);              /* or everybody goes back */
    }
    MPI_Barrier(left); /* nobody leaves while others still have to talk to it */
    MPI_Comm_free(&left);
}

/* The test's alone of all ranks' output: what fails. */
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

/* Stand before MPI's own, which libgradsieve_mpi would call. */
extern "C" {

int MPI_Iallgather(const void *send, int sends, MPI_Datatype sendType, void *recv, int recvs, MPI_Datatype recvType,
                   MPI_Comm comm, MPI_Request *request)
{
    burn();
    return PMPI_Iallgather(send, sends, sendType, recv, recvs, recvType, comm, request);
}

int MPI_Iallgatherv(const void *send, int sends, MPI_Datatype sendType, void *recv, const int recvs[],
                    const int starts[], MPI_Datatype recvType, MPI_Comm comm, MPI_Request *request)
{
    burn();
    return PMPI_Iallgatherv(send, sends, sendType, recv, recvs, starts, recvType, comm, request);
}

int MPI_Ialltoall(const void *send, int sends, MPI_Datatype sendType, void *recv, int recvs, MPI_Datatype recvType,
                  MPI_Comm comm, MPI_Request *request)
{
    burn();
    return PMPI_Ialltoall(send, sends, sendType, recv, recvs, recvType, comm, request);
}

int MPI_Ialltoallv(const void *send, const int sends[], const int sendStarts[], MPI_Datatype sendType, void *recv,
                   const int recvs[], const int recvStarts[], MPI_Datatype recvType, MPI_Comm comm,
                   MPI_Request *request)
{
    burn();
    return PMPI_Ialltoallv(send, sends, sendStarts, sendType, recv, recvs, recvStarts, recvType, comm, request);
}
}

int main(int argc, char **argv)
{
    int level = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
    testing::InitGoogleTest(&argc, argv);
    if (argc != 4 && argc != 5)
        return 2;
    isList = argc == 5;
    recipe = argv[1];
    victim = std::atoi(argv[2]);
    fatalCall = std::atoi(argv[3]);
    testing::TestEventListeners &listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailurePrinter);
    int failed = RUN_ALL_TESTS();
    if (!failed)
        std::printf("rank %d went on\n", rankOf(MPI_COMM_WORLD));
    std::fflush(stdout);
    _exit(failed); /* MPI_Finalize may wait for the dead */
}
