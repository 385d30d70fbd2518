/* exchange=hierarchical on threads: what it computes, from single slices; what it refuses; and that a failure in the middle of any step
 * changes nothing on any rank. */
#include "core.h"
#include "methods.h"
#include "reference.h"

#include <atomic>
#include <sstream>

namespace gst
{
namespace
{

/* ---- nodes ---- */

class Comms
{
  public:
    Comms(int nranks, int ranksPerNode) : comms_(static_cast<size_t>(nranks))
    {
        gsCommConfig_t config = GS_COMM_CONFIG_INIT;
        config.ranksPerNode = ranksPerNode;
        config.timeoutMs = 20000;
        EXPECT_EQ(gsCommInitAll(comms_.data(), nranks, &config), GS_SUCCESS) << gsGetLastError();
    }
    ~Comms()
    {
        for (gsComm_t comm : comms_)
            EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS) << gsGetLastError();
    }
    Comms(const Comms &) = delete;
    gsComm_t operator[](int rank) const
    {
        return comms_[static_cast<size_t>(rank)];
    }

  private:
    std::vector<gsComm_t> comms_;
};

void expectNodes(const Comms &comms, int nranks, int ranksPerNode)
{
    parallel(nranks, [&](int r) {
        int nodes = -1, node = -1;
        EXPECT_EQ(gsCommGetNodes(comms[r], &nodes, &node), GS_SUCCESS) << gsGetLastError();
        EXPECT_EQ(nodes, (nranks + ranksPerNode - 1) / ranksPerNode);
        EXPECT_EQ(node, r / ranksPerNode);
    });
}

TEST(Nodes, AreOneForThreadsUnlessTheConfigurationOrTheEnvironmentDividesThem)
{
    expectNodes(Comms(5, 0), 5, 5);
    expectNodes(Comms(5, 2), 5, 2);
    expectNodes(Comms(4, 1), 4, 1);
    expectNodes(Comms(3, 64), 3, 64);
    Environment divided("GS_RANKS_PER_NODE", "2");
    expectNodes(Comms(5, 0), 5, 2);
    expectNodes(Comms(5, 3), 5, 3);
}

TEST(Nodes, AreFoundByTheHostsOfRanksInAnyOrder)
{
    const int hosts[] = {7, 3, 7, 9, 3, 7}, nodeOf[] = {0, 1, 0, 2, 1, 0};
    Comms comms(6, 0);
    parallel(6, [&](int r) {
        gsNodes nodes;
        comms[r]->host = static_cast<uint64_t>(hosts[r]);
        ASSERT_EQ(gsFindNodes(comms[r], &nodes), GS_SUCCESS);
        EXPECT_EQ(nodes.nodes, 3);
        EXPECT_EQ(nodes.node, nodeOf[r]);
        EXPECT_FALSE(nodes.even);
        EXPECT_STREQ(nodes.sizes, "3, 2, 1");
    });
}

TEST(Nodes, DifferentConfigurationsAreRefused)
{
    Comms comms(3, 1);
    comms[2]->ranksPerNode = 3;
    parallel(3, [&](int r) {
        int nodes, node;
        EXPECT_EQ(gsCommGetNodes(comms[r], &nodes, &node), GS_ERROR_MISMATCH);
    });
}

TEST(Nodes, BadArguments)
{
    gsComm_t comm = nullptr;
    gsCommConfig_t config = GS_COMM_CONFIG_INIT;
    int nodes, node;
    config.ranksPerNode = -1;
    EXPECT_EQ(gsCommInitAll(&comm, 1, &config), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_NE(std::string(gsGetLastError()).find("ranksPerNode is -1"), std::string::npos) << gsGetLastError();
    {
        Environment bad("GS_RANKS_PER_NODE", "all");
        EXPECT_EQ(gsCommInitAll(&comm, 1, nullptr), GS_ERROR_INVALID_ARGUMENT);
    }
    Comms comms(1, 0);
    EXPECT_EQ(gsCommGetNodes(nullptr, &nodes, &node), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsCommGetNodes(comms[0], nullptr, &node), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsCommGetNodes(comms[0], &nodes, nullptr), GS_ERROR_INVALID_ARGUMENT);
    ASSERT_EQ(gsCommInitStages(&comm, 0, 1, nullptr), GS_SUCCESS);
    EXPECT_EQ(gsCommGetNodes(comm, &nodes, &node), GS_ERROR_UNSUPPORTED);
    EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS);
}

/* ---- what it computes ---- */

/* The recipe with this exchange, whichever it names itself. */
std::string exchanging(const std::string &recipe, const std::string &how)
{
    size_t colon = recipe.find(':');
    std::string made = recipe.substr(0, colon) + ":";
    std::istringstream keys(colon == std::string::npos ? "" : recipe.substr(colon + 1));
    for (std::string key; std::getline(keys, key, ',');)
        if (key.find("exchange=") != 0)
            made += key + ",";
    return made + "exchange=" + how;
}

/* Those with records, and with slots that nodes can share out. */
std::vector<std::string> recordRecipes()
{
    std::vector<std::string> recipes;
    for (const std::string &recipe : methodRecipes())
        if (recipe != "dense" && recipe.compare(0, 4, "rows") != 0)
            recipes.push_back(recipe);
    return recipes;
}

/* Whether it works on nodes of several ranks. */
bool isOfSlices(const std::string &recipe)
{
    return recipe.find("lag-ps") != 0 && recipe.find("lasg") != 0 && recipe.find("clip") == std::string::npos;
}

Plan hierarchical(const std::string &recipe, int nranks, int ranksPerNode, uint64_t count,
                  gsDataType_t type = GS_FLOAT32)
{
    Plan plan = planOf(exchanging(recipe, "hierarchical"), count, nranks, type);
    plan.ranksPerNode = ranksPerNode;
    return plan;
}

/* Where the slice of a rank at `place` begins, of so many. */
uint64_t firstOf(const Plan &plan, int place)
{
    uint64_t blocks = (plan.count + 4095) / 4096, ranks = static_cast<uint64_t>(plan.ranksPerNode);
    return std::min(plan.count, (blocks + ranks - 1) / ranks * 4096 * static_cast<uint64_t>(place));
}

std::vector<double> cut(const std::vector<double> &x, uint64_t first, uint64_t end)
{
    return {x.begin() + static_cast<long>(first), x.begin() + static_cast<long>(end)};
}

void tellParams(gsReducer_t reducer, const Plan &plan, const Buffer &theta, const Buffer &xi, const Buffer &stale)
{
    gsParams_t params = GS_PARAMS_INIT;
    params.datatype = plan.type;
    params.params = theta.data();
    params.xi = plan.recipe.find("gdsec") == 0 ? xi.data() : nullptr;
    params.stale = stale.data();
    params.stepSize = 0.25;
    params.smoothness = 1.0;
    EXPECT_EQ(gsReducerSetParams(reducer, &params), GS_SUCCESS) << gsGetLastError();
}

Vector iterateOf(const Plan &plan, uint64_t step)
{
    return times(randomVector(plan.count, step / 2, plan.type), 0.5); /* every other step it stands still */
}

/* The same by ordinary means: each node's dense sum, and the records of each slice of it from all nodes. */
class BySlices
{
  public:
    explicit BySlices(const Plan &plan) : plan_(plan), nodes_(plan.nranks / plan.ranksPerNode)
    {
        for (int place = 0; place < plan.ranksPerNode; place++) {
            Plan slice = plan;
            slice.recipe = exchanging(plan.recipe, "capacity");
            slice.ranksPerNode = 0;
            slice.nranks = nodes_;
            slice.count = firstOf(plan, place + 1) - firstOf(plan, place);
            slice.seed ^= static_cast<uint64_t>(place) * 0xD1B54A32D192ED03u;
            slices_.emplace_back(new ThreadRanks(slice));
        }
    }

    std::vector<uint8_t> sum(const Vectors &gradients, const Vector &theta, const Vector &xi, const Vectors &stale)
    {
        Vectors sums = nodeSums(gradients), staleSums = plan_.recipe.find("lasg") == 0 ? nodeSums(stale) : sums;
        std::vector<uint8_t> whole;
        for (int place = 0; place < plan_.ranksPerNode; place++) {
            uint64_t first = firstOf(plan_, place), end = firstOf(plan_, place + 1);
            ThreadRanks &ranks = *slices_[static_cast<size_t>(place)];
            Buffer at(plan_.type, cut(theta, first, end)), factors(plan_.type, cut(xi, first, end));
            Vectors parts;
            std::vector<Buffer> own;
            for (int n = 0; n < nodes_; n++) {
                parts.push_back(cut(sums[static_cast<size_t>(n)], first, end));
                own.emplace_back(plan_.type, cut(staleSums[static_cast<size_t>(n)], first, end));
            }
            for (int n = 0; n < nodes_ && readsIterate(plan_.recipe); n++)
                tellParams(ranks.reducer(n), ranks.plan(), at, factors, own[static_cast<size_t>(n)]);
            std::vector<uint8_t> part = ranks.allReduce(parts)[0];
            whole.insert(whole.end(), part.begin(), part.end());
        }
        return whole;
    }
    ThreadRanks &slice(int place)
    {
        return *slices_[static_cast<size_t>(place)];
    }

  private:
    Vectors nodeSums(const Vectors &gradients)
    {
        Vectors sums;
        for (int n = 0; n < nodes_; n++) {
            Plan node = planOf("dense", plan_.count, plan_.ranksPerNode, plan_.type);
            node.op = plan_.op;
            Vectors own(gradients.begin() + n * plan_.ranksPerNode, gradients.begin() + (n + 1) * plan_.ranksPerNode);
            sums.push_back(doublesOf(ThreadRanks(node).allReduce(own)[0], plan_.type));
        }
        return sums;
    }

    Plan plan_;
    int nodes_;
    std::vector<std::unique_ptr<ThreadRanks>> slices_;
};

const char *const vectorNames[] = {"residual",        "momentum",     "memory", "shared", "previous", "anchor",
                                   "before",          "last",         "ema",    "ema2",   "snapshot", "server.memory",
                                   "server.residual", "server.shared"};

void expectSameVectors(ThreadRanks &ranks, BySlices &expected)
{
    const Plan &plan = ranks.plan();
    for (int r = 0; r < plan.nranks; r++) {
        int node = r / plan.ranksPerNode, place = r % plan.ranksPerNode;
        size_t first = 0, count = 0;
        ASSERT_EQ(gsReducerGetSlice(ranks.reducer(r), &first, &count), GS_SUCCESS);
        ASSERT_EQ(first, firstOf(plan, place));
        ASSERT_EQ(count, firstOf(plan, place + 1) - first);
        for (const char *name : vectorNames)
            ASSERT_EQ(readVector(ranks.reducer(r), name, count, plan.type),
                      readVector(expected.slice(place).reducer(node), name, count, plan.type))
                << name << " of rank " << r;
    }
}

/* Gradients, iterates and all else of a step. */
struct Step {
    Vectors gradients, stale;
    Vector theta, xi;
};

Step stepOf(const Plan &plan, uint64_t step)
{
    Step s;
    s.gradients = related(plan.count, plan.nranks, step / 2, 0.3, plan.type);
    s.stale = related(plan.count, plan.nranks, step / 2, 0.2, plan.type);
    s.theta = iterateOf(plan, step);
    s.xi = Vector(plan.count);
    for (uint64_t i = 0; i < plan.count; i++)
        s.xi[i] = static_cast<double>(1 + i % 7);
    return s;
}

Results callAll(ThreadRanks &ranks, const Step &s)
{
    const Plan &plan = ranks.plan();
    Buffer theta(plan.type, s.theta), xi(plan.type, s.xi);
    std::vector<Buffer> stale;
    for (int r = 0; r < plan.nranks; r++)
        stale.emplace_back(plan.type, s.stale[static_cast<size_t>(r)]);
    for (int r = 0; r < plan.nranks && readsIterate(plan.recipe); r++)
        tellParams(ranks.reducer(r), plan, theta, xi, stale[static_cast<size_t>(r)]);
    return ranks.allReduce(s.gradients, plan.count % 2 == 1);
}

void expectSameAsSlices(const Plan &plan, uint64_t steps)
{
    SCOPED_TRACE(plan.recipe + " " + nameOf(plan.type) + ", " + std::to_string(plan.nranks) + " ranks, " +
                 std::to_string(plan.ranksPerNode) + " a node, count " + std::to_string(plan.count) + ", op " +
                 std::to_string(plan.op));
    ThreadRanks ranks(plan);
    BySlices expected(plan);
    for (uint64_t step = 0; step < steps; step++) {
        Step s = stepOf(plan, step);
        std::vector<uint8_t> sum = expected.sum(s.gradients, s.theta, s.xi, s.stale);
        for (const std::vector<uint8_t> &result : callAll(ranks, s))
            ASSERT_EQ(result, sum) << "step " << step;
    }
    expectSameVectors(ranks, expected);
}

/* Each recipe; the types and ops take turns. */
class Recipes : public testing::TestWithParam<std::string>
{
};

TEST_P(Recipes, EqualTheSumsOfNodesCodedSliceBySlice)
{
    static const int shapes[][2] = {{4, 2}, {6, 3}, {3, 1}, {2, 2}};
    int which = 0;
    for (const auto &shape : shapes) {
        if (!isOfSlices(GetParam()) && shape[1] > 1)
            continue;
        Plan plan = hierarchical(GetParam(), shape[0], shape[1], 9001, allTypes()[static_cast<size_t>(which) % 4]);
        plan.op = which++ % 2 ? GS_AVG : GS_SUM;
        expectSameAsSlices(plan, 4);
    }
}

/* One rank a node: as if there were no nodes, in any type. */
TEST_P(Recipes, OneRankANodeEqualsAllGather)
{
    for (gsDataType_t type : allTypes()) {
        Plan plan = hierarchical(GetParam(), 3, 1, 5003, type), flat = plan;
        flat.recipe = exchanging(GetParam(), "capacity");
        flat.ranksPerNode = 0;
        plan.op = flat.op = type == GS_FLOAT32 || type == GS_FLOAT16 ? GS_AVG : GS_SUM;
        ThreadRanks ranks(plan), expected(flat);
        for (uint64_t step = 0; step < 4; step++) {
            Step s = stepOf(plan, step);
            ASSERT_EQ(callAll(ranks, s), callAll(expected, s)) << nameOf(type) << " step " << step;
        }
        for (int r = 0; r < plan.nranks; r++) {
            gsStats_t stats = ranks.stats(r);
            stats.wireBytes -= stats.nodeBytes;
            expectSameStats(expected.stats(r), stats);
            for (const char *name : vectorNames)
                ASSERT_EQ(readVector(ranks.reducer(r), name, plan.count, type),
                          readVector(expected.reducer(r), name, plan.count, type))
                    << name;
        }
    }
}

/* A NaN in the last slice: the other slices have accumulated by then, and yet nothing of theirs may change. */
TEST_P(Recipes, NaNOnOneRankIsNaNOnAllAndChangesNoState)
{
    Plan plan = hierarchical(GetParam(), 4, isOfSlices(GetParam()) ? 2 : 1, 9001);
    ThreadRanks ranks(plan), control(plan);
    for (uint64_t step = 0; step < 2; step++) {
        callAll(ranks, stepOf(plan, step));
        callAll(control, stepOf(plan, step));
    }
    auto before = ranks.states();
    Step poisoned = stepOf(plan, 2);
    poisoned.gradients[1][9000] = NAN;
    for (const std::vector<uint8_t> &result : callAll(ranks, poisoned))
        EXPECT_TRUE(allNaN(result, plan.type));
    for (int r = 0; r < plan.nranks; r++)
        EXPECT_EQ(ranks.stats(r).nonFinite, 1u) << "rank " << r;
    EXPECT_EQ(before, ranks.states());
    ASSERT_EQ(callAll(ranks, stepOf(plan, 2)), callAll(control, stepOf(plan, 2)));
    EXPECT_EQ(ranks.states(), control.states());
}

INSTANTIATE_TEST_SUITE_P(Hierarchy, Recipes, testing::ValuesIn(recordRecipes()),
                         [](const auto &info) { return nameOf(info.param); });

/* All numbers of ranks and nodes, counts that leave slices short and empty, all types. */
TEST(Hierarchy, EveryShapeEqualsTheSumsOfNodesCodedSliceBySlice)
{
    const char *recipes[] = {
        "threshold:density=0.05", "gspar:value=shared", "chunk-topk:k=3", "ef21:density=0.1", "cdadam", "terngrad"};
    size_t which = 0;
    for (int nranks = 1; nranks <= 8; nranks++)
        for (int ranksPerNode = 1; ranksPerNode <= nranks; ranksPerNode++)
            for (uint64_t count : {0ull, 1ull, 4097ull, 20001ull}) {
                if (nranks % ranksPerNode)
                    continue;
                Plan plan = hierarchical(recipes[which % 6], nranks, ranksPerNode, count, allTypes()[which % 4]);
                plan.op = which / 4 % 2 ? GS_AVG : GS_SUM;
                which++;
                expectSameAsSlices(plan, 2);
            }
}

/* One node: the dense sum, coded once, and not a matter of slices where a recipe goes block by block. */
TEST(Hierarchy, OneNodeEqualsTheDenseSumCodedOnce)
{
    for (int nranks = 1; nranks <= 8; nranks++)
        for (const char *recipe : {"chunk-topk:k=5", "ef-sign", "threshold:tau=1.5,capacity=1", "identity",
                                   "chunk-topk:k=30,value=2bit", "ef21:select=sign"})
            for (gsRedOp_t op : {GS_SUM, GS_AVG}) {
                SCOPED_TRACE(std::string(recipe) + ", " + std::to_string(nranks) + " ranks, op " + std::to_string(op));
                Plan plan = hierarchical(recipe, nranks, nranks, 20001, allTypes()[static_cast<size_t>(nranks) % 4]);
                Plan dense = planOf("dense", plan.count, nranks, plan.type),
                     once = planOf(recipe, plan.count, 1, plan.type);
                plan.op = dense.op = op;
                ThreadRanks ranks(plan), sum(dense), coder(once);
                for (uint64_t step = 0; step < 3; step++) {
                    Step s = stepOf(plan, step);
                    Vectors total = {doublesOf(sum.allReduce(s.gradients)[0], plan.type)};
                    std::vector<uint8_t> expected = coder.allReduce(total)[0];
                    for (const std::vector<uint8_t> &result : callAll(ranks, s))
                        ASSERT_EQ(result, expected) << "step " << step;
                }
            }
}

/* Ranks dealt over the nodes one by one: places, sums and slices follow the nodes, not the ranks' numbers. */
TEST(Hierarchy, RanksMayBeDealtOverTheNodes)
{
    const int order[] = {0, 2, 1, 3}; /* rank r here is rank order[r] of nodes filled one after the other */
    Plan plan = hierarchical("chunk-topk:k=5", 4, 2, 20001);
    ThreadRanks filled(plan);
    Comms comms(4, 0);
    std::vector<gsReducer_t> reducers(4);
    parallel(4, [&](int r) {
        gsReducerConfig_t config = configOf(plan);
        comms[r]->host = static_cast<uint64_t>(r % 2);
        ASSERT_EQ(gsReducerCreate(&reducers[static_cast<size_t>(r)], comms[r], &config), GS_SUCCESS)
            << gsGetLastError();
    });
    for (uint64_t step = 0; step < 2; step++) {
        Step s = stepOf(plan, step);
        Results expected = filled.allReduce(s.gradients);
        parallel(4, [&](int r) {
            Buffer send(plan.type, s.gradients[static_cast<size_t>(order[r])]), recv(plan.type, plan.count);
            ASSERT_EQ(gsAllReduce(send.data(), recv.data(), plan.count, plan.type, plan.op,
                                  reducers[static_cast<size_t>(r)], nullptr),
                      GS_SUCCESS);
            ASSERT_EQ(recv.raw(), expected[0]);
        });
    }
    for (gsReducer_t reducer : reducers)
        EXPECT_EQ(gsReducerDestroy(reducer), GS_SUCCESS);
}

TEST(Hierarchy, CallsOnAStreamAndSeveralReducersShareTheParts)
{
    Plan plan = hierarchical("threshold:density=0.1", 4, 2, 9001);
    ThreadRanks once(plan), ranks(plan);
    gsComm_t node = ranks.comm(0)->node;
    std::vector<gsReducer_t> second(4);
    parallel(4, [&](int r) {
        gsReducerConfig_t config = configOf(plan);
        ASSERT_EQ(gsReducerCreate(&second[static_cast<size_t>(r)], ranks.comm(r), &config), GS_SUCCESS);
    });
    EXPECT_EQ(ranks.comm(0)->node, node);
    Step s = stepOf(plan, 0);
    Results expected = once.allReduce(s.gradients);
    parallel(4, [&](int r) {
        size_t rank = static_cast<size_t>(r);
        gsStream_t stream = nullptr;
        Buffer send(plan.type, s.gradients[rank]), one(plan.type, plan.count), other(plan.type, plan.count);
        ASSERT_EQ(gsStreamCreate(&stream), GS_SUCCESS);
        EXPECT_EQ(ranks.call(r, send.data(), one.data(), stream), GS_SUCCESS);
        EXPECT_EQ(gsAllReduce(send.data(), other.data(), plan.count, plan.type, plan.op, second[rank], stream),
                  GS_SUCCESS);
        EXPECT_EQ(gsStreamSynchronize(stream), GS_SUCCESS) << gsGetLastError();
        EXPECT_EQ(one.raw(), expected[rank]);
        EXPECT_EQ(other.raw(), expected[rank]);
        EXPECT_EQ(gsStreamDestroy(stream), GS_SUCCESS);
        EXPECT_EQ(gsReducerDestroy(second[rank]), GS_SUCCESS);
    });
}

/* ---- failures ---- */

const char *const failureRecipes[] = {
    "threshold:density=0.05", "ef21:density=0.1", "diana:first=dense", "tng:reference=last+ema,search=worker", "cdadam",
    "dgc:density=0.1"};

std::atomic<int> *told; /* ranks whose call has ended */
int waitsFor, silentRank;
const gsTransport *threadsTable;

void arriveLate(gsComm_t comm)
{
    while (gsCommWhole(comm)->rank == silentRank && *told < waitsFor)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

gsResult_t lateScatter(gsComm_t comm, const void *send, size_t total, void *recv, size_t slice, gsStream_t stream)
{
    arriveLate(comm);
    return threadsTable->scatterSlices(comm, send, total, recv, slice, stream);
}

gsResult_t lateAllGather(gsComm_t comm, const void *send, void *recv, size_t bytes, gsStream_t stream)
{
    arriveLate(comm);
    return threadsTable->allGather(comm, send, recv, bytes, stream);
}

/* A step of a call: the sum inside a node, records between nodes, the results inside a node. */
enum Where { SUM, RECORDS, RESULTS };

/* Puts another table into a part of every rank's communicator, for as long as this lives. */
class OtherTable
{
  public:
    OtherTable(const ThreadRanks &ranks, Where where, void (*change)(gsTransport &, Where))
    {
        for (int r = 0; r < ranks.plan().nranks; r++)
            parts_.push_back(where == RECORDS ? ranks.comm(r)->across : ranks.comm(r)->node);
        threadsTable = parts_[0]->transport;
        table_ = *threadsTable;
        change(table_, where);
        for (gsComm_t part : parts_)
            part->transport = &table_;
    }
    ~OtherTable()
    {
        for (gsComm_t part : parts_)
            part->transport = threadsTable;
    }
    OtherTable(const OtherTable &) = delete;

  private:
    gsTransport table_;
    std::vector<gsComm_t> parts_;
};

void makeLate(gsTransport &table, Where where)
{
    if (where == SUM)
        table.scatterSlices = lateScatter;
    else
        table.allGather = lateAllGather;
}

/* A rank that is silent before a step comes back when all others have been told: then all are even, and the call works. */
TEST(Hierarchy, RankSilentInAnyStepFailsAllWithinTheDeadlineAndChangesNothing)
{
    for (const char *recipe : failureRecipes)
        for (Where where : {SUM, RECORDS, RESULTS})
            for (int silent : {0, 3}) {
                SCOPED_TRACE(std::string(recipe) + ", step " + std::to_string(where) + ", rank " +
                             std::to_string(silent));
                Plan plan = hierarchical(recipe, 4, 2, 9001);
                ThreadRanks ranks(plan), control(plan);
                callAll(ranks, stepOf(plan, 0));
                callAll(control, stepOf(plan, 0));
                auto before = ranks.states();
                Step s = stepOf(plan, 1);
                std::atomic<int> count{0};
                told = &count;
                waitsFor = 3;
                silentRank = silent;
                for (int r = 0; r < 4; r++)
                    ranks.comm(r)->timeoutMs = 150;
                {
                    OtherTable late(ranks, where, makeLate);
                    parallel(4, [&](int r) {
                        Buffer send(plan.type, s.gradients[static_cast<size_t>(r)]), recv(plan.type, plan.count);
                        Buffer &out = r % 2 ? send : recv;
                        auto untouched = out.raw();
                        EXPECT_EQ(ranks.call(r, send.data(), out.data()), GS_ERROR_TIMEOUT) << gsGetLastError();
                        EXPECT_EQ(untouched, out.raw());
                        count++;
                    });
                }
                EXPECT_EQ(before, ranks.states());
                for (int r = 0; r < 4; r++)
                    ranks.comm(r)->timeoutMs = 20000;
                ASSERT_EQ(callAll(ranks, s), callAll(control, s));
                EXPECT_EQ(ranks.states(), control.states());
            }
}

/* As the transport's all-gather, but a byte of node 1's record of this slice arrives changed, on all nodes. */
gsResult_t corruptAllGather(gsComm_t comm, const void *send, void *recv, size_t bytes, gsStream_t stream)
{
    GS_CHECK(threadsTable->allGather(comm, send, recv, bytes, stream));
    if (comm->color == 1)
        static_cast<uint8_t *>(recv)[bytes + 84] ^= 4;
    return GS_SUCCESS;
}

void makeCorrupt(gsTransport &table, Where)
{
    table.allGather = corruptAllGather;
}

TEST(Hierarchy, CorruptRecordOfOneSliceIsEveryRanksErrorAndChangesNothing)
{
    for (const char *recipe : failureRecipes) {
        SCOPED_TRACE(recipe);
        Plan plan = hierarchical(recipe, 4, 2, 9001);
        ThreadRanks ranks(plan), control(plan);
        callAll(ranks, stepOf(plan, 0));
        callAll(control, stepOf(plan, 0));
        auto before = ranks.states();
        Step s = stepOf(plan, 1);
        {
            OtherTable corrupt(ranks, RECORDS, makeCorrupt);
            parallel(4, [&](int r) {
                Buffer send(plan.type, s.gradients[static_cast<size_t>(r)]), recv(plan.type, plan.count);
                auto untouched = recv.raw();
                EXPECT_EQ(ranks.call(r, send.data(), recv.data()), GS_ERROR_CORRUPT) << gsGetLastError();
                EXPECT_NE(std::string(gsGetLastError()).find("rank 3"), std::string::npos) << gsGetLastError();
                EXPECT_EQ(untouched, recv.raw());
            });
        }
        EXPECT_EQ(before, ranks.states());
        ASSERT_EQ(callAll(ranks, s), callAll(control, s));
        EXPECT_EQ(ranks.states(), control.states());
    }
}

/* An abort at any moment of a call ends it for all ranks or for none. */
TEST(Hierarchy, AbortAtAnyMomentNeverSplitsTheRanks)
{
    Plan plan = hierarchical("ef21:density=0.1", 4, 2, 9001);
    Step s = stepOf(plan, 0);
    for (unsigned seed = 1; seed <= 20; seed++) {
        ThreadRanks ranks(plan);
        std::vector<uint64_t> successes(4);
        std::thread watchdog([&] {
            std::this_thread::sleep_for(std::chrono::microseconds(seed * 397));
            gsCommAbort(ranks.comm(static_cast<int>(seed % 4)));
        });
        parallel(4, [&](int r) {
            Buffer send(plan.type, s.gradients[static_cast<size_t>(r)]), recv(plan.type, plan.count);
            while (ranks.call(r, send.data(), recv.data()) == GS_SUCCESS)
                successes[static_cast<size_t>(r)]++;
        });
        watchdog.join();
        EXPECT_EQ(std::vector<uint64_t>(4, successes[0]), successes);
        for (int r = 0; r < 4; r++)
            EXPECT_EQ(ranks.stats(r).calls, successes[0]);
    }
}

/* ---- state, figures, refusals ---- */

TEST(Hierarchy, ExportAndImportContinueBitForBit)
{
    for (const char *recipe : failureRecipes) {
        SCOPED_TRACE(recipe);
        Plan plan = hierarchical(recipe, 4, 2, 9001);
        ThreadRanks first(plan), second(plan);
        callAll(first, stepOf(plan, 0));
        callAll(first, stepOf(plan, 1));
        auto states = first.states();
        for (int r = 0; r < 4; r++) {
            const std::vector<uint8_t> &own = states[static_cast<size_t>(r)],
                                       &other = states[static_cast<size_t>(r ^ 1)];
            EXPECT_EQ(gsReducerImport(second.reducer(r), other.data(), other.size()), GS_ERROR_MISMATCH) << "the slice";
            ASSERT_EQ(gsReducerImport(second.reducer(r), own.data(), own.size()), GS_SUCCESS) << gsGetLastError();
        }
        ASSERT_EQ(callAll(first, stepOf(plan, 2)), callAll(second, stepOf(plan, 2)));
        EXPECT_EQ(first.states(), second.states());
        const void *all[] = {states[0].data(), states[1].data(), states[2].data(), states[3].data()};
        size_t bytes[] = {states[0].size(), states[1].size(), states[2].size(), states[3].size()};
        EXPECT_EQ(gsReducerImportRanks(second.reducer(0), all, bytes, 4, nullptr, 0), GS_ERROR_UNSUPPORTED);
        EXPECT_EQ(first.state(0), second.state(0)) << "a refusal changes nothing";
    }
}

TEST(Hierarchy, ResetBeginsAnewAndScaleScales)
{
    for (const char *recipe : failureRecipes) {
        SCOPED_TRACE(recipe);
        Plan plan = hierarchical(recipe, 4, 2, 9001, GS_FLOAT64);
        ThreadRanks ranks(plan), fresh(plan);
        callAll(ranks, stepOf(plan, 3));
        parallel(4, [&](int r) { EXPECT_EQ(gsReducerReset(ranks.reducer(r), nullptr), GS_SUCCESS); });
        ASSERT_EQ(callAll(ranks, stepOf(plan, 0)), callAll(fresh, stepOf(plan, 0)));
        Vector before = readVector(ranks.reducer(3), "residual", 9001 - 8192, plan.type);
        parallel(4, [&](int r) { EXPECT_EQ(gsReducerScale(ranks.reducer(r), 4.0f, nullptr), GS_SUCCESS); });
        EXPECT_EQ(readVector(ranks.reducer(3), "residual", 9001 - 8192, plan.type), times(before, 4.0));
    }
}

/* A counting allocator. */
void *countedAllocate(size_t bytes, void *context)
{
    *static_cast<std::atomic<uint64_t> *>(context) += bytes;
    return std::aligned_alloc(256, (bytes + 255) / 256 * 256);
}

void countedRelease(void *pointer, void *)
{
    std::free(pointer);
}

TEST(Hierarchy, NodeMemoryIsWhatIsAllocated)
{
    for (const char *recipe : failureRecipes) {
        Plan plan = hierarchical(recipe, 4, 2, 9001);
        std::atomic<uint64_t> bytes{0};
        gsReducerConfig_t config = configOf(plan);
        gsMemory_t memory;
        config.allocate = countedAllocate;
        config.release = countedRelease;
        config.allocatorContext = &bytes;
        ASSERT_EQ(gsReducerGetNodeMemory(&config, 4, 2, &memory), GS_SUCCESS) << gsGetLastError();
        Comms comms(4, 2);
        std::vector<gsReducer_t> reducers(4);
        std::vector<std::atomic<uint64_t>> own(4);
        parallel(4, [&](int r) {
            gsReducerConfig_t mine = config;
            mine.allocatorContext = &own[static_cast<size_t>(r)];
            EXPECT_EQ(gsReducerCreate(&reducers[static_cast<size_t>(r)], comms[r], &mine), GS_SUCCESS);
        });
        EXPECT_EQ(memory.stateBytes + memory.wireBytes + memory.scratchBytes, own[0]) << recipe;
        EXPECT_EQ(own[0], own[2]);
        EXPECT_LT(own[1], own[0]) << "the last slice is short";
        for (gsReducer_t reducer : reducers)
            EXPECT_EQ(gsReducerDestroy(reducer), GS_SUCCESS);
        EXPECT_EQ(gsReducerGetMemory(&config, 4, &memory), GS_ERROR_UNSUPPORTED);
    }
    gsMemory_t flat, nodes;
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    config.recipe = "gspar";
    config.count = 5000;
    ASSERT_EQ(gsReducerGetMemory(&config, 6, &flat), GS_SUCCESS);
    ASSERT_EQ(gsReducerGetNodeMemory(&config, 6, 3, &nodes), GS_SUCCESS);
    EXPECT_EQ(flat.stateBytes, nodes.stateBytes);
    EXPECT_EQ(flat.wireBytes, nodes.wireBytes);
    EXPECT_EQ(gsReducerGetNodeMemory(&config, 6, 4, &nodes), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerGetNodeMemory(&config, 6, 0, &nodes), GS_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(gsReducerGetNodeMemory(&config, 6, 3, nullptr), GS_ERROR_INVALID_ARGUMENT);
}

/* Bytes that leave, by hand: slices of the gradient to the node, a slot to each other node, the result to the node. */
TEST(Hierarchy, BytesAreCounted)
{
    Plan plan = hierarchical("chunk-topk:k=8", 6, 2, 9001);
    ThreadRanks ranks(plan);
    for (uint64_t step = 0; step < 3; step++)
        callAll(ranks, stepOf(plan, step));
    for (int r = 0; r < 6; r++) {
        uint64_t own = r % 2 ? 9001 - 8192 : 8192, slot = 8192 * 4 + 2 * 16;
        size_t slotBytes = 0;
        gsStats_t stats = ranks.stats(r);
        ASSERT_EQ(gsReducerGetSlotBytes(ranks.reducer(r), &slotBytes), GS_SUCCESS);
        EXPECT_EQ(stats.nodeBytes, 3 * ((9001 - own) * 4 + slot));
        EXPECT_EQ(stats.wireBytes, stats.nodeBytes + 3 * 2 * slotBytes);
        EXPECT_EQ(stats.calls, 3u);
        EXPECT_EQ(stats.compressed, 3u);
    }
}

gsResult_t createOne(gsComm_t comm, const char *recipe, gsReducer_t *reducer = nullptr)
{
    gsReducer_t made = nullptr;
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    config.recipe = recipe;
    config.count = 5000;
    gsResult_t result = gsReducerCreate(&made, comm, &config);
    if (reducer)
        *reducer = made;
    else
        gsReducerDestroy(made);
    return result;
}

TEST(Hierarchy, UnevenNodesAreRefusedByTheirSizes)
{
    Comms comms(5, 2);
    parallel(5, [&](int r) {
        EXPECT_EQ(createOne(comms[r], "gspar:exchange=hierarchical"), GS_ERROR_UNSUPPORTED);
        EXPECT_NE(std::string(gsGetLastError()).find("2, 2, 1"), std::string::npos) << gsGetLastError();
        EXPECT_EQ(createOne(comms[r], "gspar"), GS_SUCCESS) << "the communicator still works";
    });
}

TEST(Hierarchy, RecipesThatNeedAWholeGradientAreRefused)
{
    Comms comms(4, 2), single(4, 1);
    parallel(4, [&](int r) {
        for (const char *recipe : {"lag-ps", "lasg-wk", "dgc:clip=2"}) {
            EXPECT_EQ(createOne(comms[r], exchanging(recipe, "hierarchical").c_str()), GS_ERROR_UNSUPPORTED) << recipe;
            EXPECT_EQ(createOne(single[r], exchanging(recipe, "hierarchical").c_str()), GS_SUCCESS) << gsGetLastError();
        }
    });
    gsMemory_t memory;
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    config.recipe = "lag-ps:exchange=hierarchical";
    EXPECT_EQ(gsReducerGetNodeMemory(&config, 4, 2, &memory), GS_ERROR_UNSUPPORTED);
    EXPECT_EQ(gsReducerGetNodeMemory(&config, 4, 1, &memory), GS_SUCCESS);
}

TEST(Hierarchy, DifferentConfigurationsAreRefusedOnAllRanks)
{
    Comms comms(4, 2);
    parallel(4, [&](int r) {
        for (const char *other : {"gspar", "gspar:exchange=hierarchical,density=0.5", "gspar:density=2", "dense"}) {
            gsResult_t result = createOne(comms[r], r == 3 ? other : "gspar:exchange=hierarchical");
            EXPECT_NE(result, GS_SUCCESS) << other;
            EXPECT_TRUE(r == 3 || result == GS_ERROR_MISMATCH) << other << ": " << gsGetLastError();
        }
        EXPECT_EQ(createOne(comms[r], "gspar:exchange=hierarchical"), GS_SUCCESS) << gsGetLastError();
    });
}

TEST(Hierarchy, WhatItCannotDoIsSaid)
{
    gsComm_t stages = nullptr;
    ASSERT_EQ(gsCommInitStages(&stages, 0, 1, nullptr), GS_SUCCESS);
    EXPECT_EQ(createOne(stages, "gspar:exchange=hierarchical"), GS_ERROR_UNSUPPORTED);
    EXPECT_EQ(gsCommDestroy(stages), GS_SUCCESS);
    Comms comms(2, 2);
    parallel(2, [&](int r) {
        gsReducer_t reducer = nullptr;
        Buffer gradient(GS_FLOAT32, 5000);
        alignas(16) static uint8_t record[1 << 16];
        size_t first, count;
        ASSERT_EQ(createOne(comms[r], "ef21:exchange=hierarchical", &reducer), GS_SUCCESS);
        EXPECT_EQ(gsReducerSetParticipation(reducer, 0), GS_ERROR_UNSUPPORTED);
        EXPECT_EQ(gsEncode(gradient.data(), record, 5000, GS_FLOAT32, reducer, nullptr), GS_ERROR_UNSUPPORTED);
        EXPECT_EQ(gsAllReduce(gradient.data(), gradient.data(), 4096, GS_FLOAT32, GS_SUM, reducer, nullptr),
                  GS_ERROR_INVALID_ARGUMENT)
            << "the slice's count is not the call's";
        EXPECT_EQ(gsReducerGetSlice(nullptr, &first, &count), GS_ERROR_INVALID_ARGUMENT);
        EXPECT_EQ(gsReducerGetSlice(reducer, nullptr, &count), GS_ERROR_INVALID_ARGUMENT);
        EXPECT_EQ(gsReducerGetSlice(reducer, &first, nullptr), GS_ERROR_INVALID_ARGUMENT);
        EXPECT_EQ(gsReducerDestroy(reducer), GS_SUCCESS);
    });
}

TEST(Hierarchy, DisabledIsDense)
{
    Environment disabled("GS_DISABLE", "1");
    Plan plan = hierarchical("ef21:density=0.1", 4, 2, 9001);
    ThreadRanks ranks(plan), dense(planOf("dense", 9001, 4, GS_FLOAT32));
    Step s = stepOf(plan, 0);
    ASSERT_EQ(callAll(ranks, s), dense.allReduce(s.gradients));
    EXPECT_EQ(ranks.stats(0).bypassed, 1u);
}

} // namespace
} // namespace gst
