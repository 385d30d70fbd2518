/* Ranks of a test: as threads that call gsAllReduce, or as single stages whose records the test carries itself. */
#ifndef GS_TESTS_RANKS_H
#define GS_TESTS_RANKS_H

#include "data.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>

namespace gst
{

/* What a run is made of. */
struct Plan {
    std::string recipe = "dense";
    gsDataType_t type = GS_FLOAT32;
    uint64_t count = 0;
    int nranks = 2;
    uint64_t seed = 7;
    int cpuThreads = 1;
    gsRedOp_t op = GS_SUM;
    int timeoutMs = 20000;
    int ranksPerNode = 0;
    const gsCluster_t *cluster = nullptr; /* for exchange=auto */
    std::vector<uint64_t> segments = {};  /* a list of tensors; count is their sum */
    uint64_t wholeBelow = 0;
    gsCollective_t collective = GS_ALL_REDUCE; /* of a half `count` is all slices' */
    const char *commName = nullptr;
};

inline bool contains(const std::string &text, const std::string &part)
{
    return text.find(part) != std::string::npos;
}

inline gsReducerConfig_t configOf(const Plan &plan)
{
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    config.datatype = plan.type;
    config.recipe = plan.recipe.c_str();
    config.count = plan.count;
    config.seed = plan.seed;
    config.cpuThreads = plan.cpuThreads;
    config.segments = plan.segments.empty() ? nullptr : plan.segments.data();
    config.segmentCount = static_cast<uint32_t>(plan.segments.size());
    config.wholeBelow = plan.wholeBelow;
    config.collective = plan.collective;
    return config;
}

gsReducerConfig_t configOf(Plan &&) = delete; /* the configuration points at the strings of its plan */

/* An environment variable for as long as this lives. */
class Environment
{
  public:
    Environment(const char *name, const char *value) : name_(name)
    {
        setenv(name, value, 1);
    }
    ~Environment()
    {
        unsetenv(name_);
    }
    Environment(const Environment &) = delete;

  private:
    const char *name_;
};

inline std::vector<const char *> instructionSets()
{
#if defined(GS_HAVE_AVX2) && defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return {"portable", "avx2"};
#endif
    return {"portable"};
}

/* Runs body(rank) on a thread for each rank. */
inline void parallel(int nranks, const std::function<void(int)> &body)
{
    std::vector<std::thread> threads;
    for (int r = 1; r < nranks; r++)
        threads.emplace_back(body, r);
    if (nranks > 0)
        body(0);
    for (std::thread &thread : threads)
        thread.join();
}

inline std::vector<uint8_t> exportState(gsReducer_t reducer)
{
    size_t bytes = 0;
    EXPECT_EQ(gsReducerExport(reducer, nullptr, &bytes), GS_SUCCESS) << gsGetLastError();
    std::vector<uint8_t> state(bytes);
    EXPECT_EQ(gsReducerExport(reducer, state.data(), &bytes), GS_SUCCESS) << gsGetLastError();
    EXPECT_LE(bytes, state.size());
    state.resize(bytes);
    return state;
}

inline gsStats_t statsOf(gsReducer_t reducer)
{
    gsStats_t stats = {};
    EXPECT_EQ(gsReducerGetStats(reducer, &stats), GS_SUCCESS) << gsGetLastError();
    return stats;
}

using Gradients = std::vector<std::vector<float>>; /* by rank */
using Vectors = std::vector<std::vector<double>>;  /* likewise, for float64 */
using Results = std::vector<std::vector<uint8_t>>; /* by rank: raw elements */

inline Gradients makeGradients(Shape shape, const Plan &plan, uint64_t step)
{
    Gradients gradients;
    for (int r = 0; r < plan.nranks; r++)
        gradients.push_back(makeGradient(shape, plan.count, plan.type, step * 1000 + static_cast<uint64_t>(r) + 1));
    return gradients;
}

/* What both kinds of ranks have in common. */
class Ranks
{
  public:
    const Plan &plan() const
    {
        return plan_;
    }
    gsComm_t comm(int rank) const
    {
        return comms_[static_cast<size_t>(rank)];
    }
    gsReducer_t reducer(int rank) const
    {
        return reducers_[static_cast<size_t>(rank)];
    }
    gsStats_t stats(int rank) const
    {
        return statsOf(reducer(rank));
    }
    std::vector<uint8_t> state(int rank) const
    {
        return exportState(reducer(rank));
    }
    std::vector<std::vector<uint8_t>> states() const
    {
        std::vector<std::vector<uint8_t>> all;
        for (int r = 0; r < plan_.nranks; r++)
            all.push_back(state(r));
        return all;
    }

  protected:
    explicit Ranks(const Plan &plan)
        : plan_(plan), comms_(static_cast<size_t>(plan.nranks)), reducers_(static_cast<size_t>(plan.nranks))
    {
    }
    ~Ranks()
    {
        for (gsReducer_t reducer : reducers_)
            EXPECT_EQ(gsReducerDestroy(reducer), GS_SUCCESS) << gsGetLastError();
        for (gsComm_t comm : comms_)
            EXPECT_EQ(gsCommDestroy(comm), GS_SUCCESS) << gsGetLastError();
    }
    Ranks(const Ranks &) = delete;

    void createReducers(const gsReducerConfig_t &config)
    {
        parallel(plan_.nranks, [&](int r) {
            gsReducerConfig_t own = config;
            EXPECT_EQ(gsReducerCreate(&reducers_[static_cast<size_t>(r)], comm(r), &own), GS_SUCCESS)
                << gsGetLastError();
        });
    }

    Plan plan_;
    std::vector<gsComm_t> comms_;
    std::vector<gsReducer_t> reducers_;
};

/* Ranks as threads. */
class ThreadRanks : public Ranks
{
  public:
    explicit ThreadRanks(const Plan &plan) : ThreadRanks(plan, configOf(plan))
    {
    }
    ThreadRanks(const Plan &plan, const gsReducerConfig_t &config) : Ranks(plan)
    {
        gsCommConfig_t commConfig = GS_COMM_CONFIG_INIT;
        commConfig.timeoutMs = plan.timeoutMs;
        commConfig.ranksPerNode = plan.ranksPerNode;
        commConfig.cluster = plan.cluster;
        commConfig.commName = plan.commName;
        EXPECT_EQ(gsCommInitAll(comms_.data(), plan.nranks, &commConfig), GS_SUCCESS) << gsGetLastError();
        createReducers(config);
    }

    /* One call by every rank; checks canaries and that sendbuff is left alone. */
    template <typename Number = float>
    Results allReduce(const std::vector<std::vector<Number>> &gradients, bool inPlace = false, size_t skew = 0)
    {
        Results results(gradients.size());
        parallel(plan_.nranks, [&](int r) {
            size_t rank = static_cast<size_t>(r);
            Buffer send(plan_.type, gradients[rank], skew), recv(plan_.type, plan_.count, skew);
            Buffer &out = inPlace ? send : recv;
            std::vector<uint8_t> before = send.raw();
            EXPECT_EQ(call(r, send.data(), out.data()), GS_SUCCESS) << gsGetLastError();
            EXPECT_TRUE(send.canariesIntact() && recv.canariesIntact());
            EXPECT_TRUE(inPlace || send.raw() == before) << "sendbuff was modified";
            results[rank] = out.raw();
        });
        return results;
    }

    gsResult_t call(int rank, const void *send, void *recv, gsStream_t stream = nullptr)
    {
        return gsAllReduce(send, recv, plan_.count, plan_.type, plan_.op, reducer(rank), stream);
    }
};

/* Records of all ranks, a slot each, aligned, without room to spare at the end. */
class Slots
{
  public:
    Slots(int nranks, size_t slotBytes)
        : slotBytes_(slotBytes), bytes_(static_cast<size_t>(nranks) * slotBytes),
          memory_(static_cast<uint8_t *>(std::aligned_alloc(16, bytes_ > 0 ? bytes_ : 16)), std::free)
    {
        std::memset(memory_.get(), 0xEE, bytes_);
    }
    uint8_t *slot(int rank)
    {
        return memory_.get() + static_cast<size_t>(rank) * slotBytes_;
    }
    const uint8_t *data() const
    {
        return memory_.get();
    }
    size_t slotBytes() const
    {
        return slotBytes_;
    }
    size_t bytes() const
    {
        return bytes_;
    }

  private:
    size_t slotBytes_, bytes_;
    std::unique_ptr<uint8_t, void (*)(void *)> memory_;
};

/* Ranks as single stages, one after the other. */
class StageRanks : public Ranks
{
  public:
    explicit StageRanks(const Plan &plan) : Ranks(plan)
    {
        for (int r = 0; r < plan.nranks; r++) {
            gsReducerConfig_t config = configOf(plan);
            EXPECT_EQ(gsCommInitStages(&comms_[static_cast<size_t>(r)], r, plan.nranks, nullptr), GS_SUCCESS)
                << gsGetLastError();
            EXPECT_EQ(gsReducerCreate(&reducers_[static_cast<size_t>(r)], comm(r), &config), GS_SUCCESS)
                << gsGetLastError();
        }
    }

    size_t slotBytes() const
    {
        size_t bytes = 0;
        EXPECT_EQ(gsReducerGetSlotBytes(reducer(0), &bytes), GS_SUCCESS) << gsGetLastError();
        return bytes;
    }

    template <typename Number = float>
    gsResult_t encodeOne(int rank, const std::vector<Number> &gradient, uint8_t *record, size_t skew = 0)
    {
        Buffer send(plan_.type, gradient, skew);
        return gsEncode(send.data(), record, plan_.count, plan_.type, reducer(rank), nullptr);
    }

    template <typename Number = float> Slots encode(const std::vector<std::vector<Number>> &gradients, size_t skew = 0)
    {
        Slots slots(plan_.nranks, slotBytes());
        for (int r = 0; r < plan_.nranks; r++)
            EXPECT_EQ(encodeOne(r, gradients[static_cast<size_t>(r)], slots.slot(r), skew), GS_SUCCESS)
                << gsGetLastError();
        return slots;
    }

    gsResult_t decodeOne(int rank, const Slots &slots, Buffer &recv)
    {
        return gsDecode(slots.data(), recv.data(), plan_.count, plan_.type, plan_.op, reducer(rank), nullptr);
    }

    Results decode(const Slots &slots, size_t skew = 0)
    {
        Results results;
        for (int r = 0; r < plan_.nranks; r++) {
            Buffer recv(plan_.type, plan_.count, skew);
            EXPECT_EQ(decodeOne(r, slots, recv), GS_SUCCESS) << gsGetLastError();
            EXPECT_TRUE(recv.canariesIntact());
            results.push_back(recv.raw());
        }
        return results;
    }
};

/* The raw elements of a result as numbers. */
inline std::vector<double> doublesOf(const std::vector<uint8_t> &raw, gsDataType_t type)
{
    std::vector<double> numbers(raw.size() / bytesOf(type));
    for (size_t i = 0; i < numbers.size(); i++)
        numbers[i] = getElement(type, &raw[bytesOf(type) * i]);
    return numbers;
}

inline std::vector<float> numbersOf(const std::vector<uint8_t> &raw, gsDataType_t type)
{
    std::vector<double> wide = doublesOf(raw, type);
    return {wide.begin(), wide.end()};
}

inline bool allNaN(const std::vector<uint8_t> &raw, gsDataType_t type)
{
    for (double x : doublesOf(raw, type))
        if (!std::isnan(x))
            return false;
    return true;
}

/* All that neither transport nor backend can change: everything but times. */
inline void expectSameStats(const gsStats_t &expected, const gsStats_t &actual)
{
    EXPECT_EQ(expected.calls, actual.calls);
    EXPECT_EQ(expected.compressed, actual.compressed);
    EXPECT_EQ(expected.dense, actual.dense);
    EXPECT_EQ(expected.nonFinite, actual.nonFinite);
    EXPECT_EQ(expected.thinned, actual.thinned);
    EXPECT_EQ(expected.overflowed, actual.overflowed);
    EXPECT_EQ(expected.failed, actual.failed);
    EXPECT_EQ(expected.lastKept, actual.lastKept);
    EXPECT_EQ(expected.lastSent, actual.lastSent);
    EXPECT_EQ(expected.keptTotal, actual.keptTotal);
    EXPECT_EQ(expected.sentTotal, actual.sentTotal);
    EXPECT_EQ(expected.payloadBytes, actual.payloadBytes);
    EXPECT_EQ(expected.wireBytes, actual.wireBytes);
    EXPECT_EQ(expected.tau, actual.tau);
}

} // namespace gst
#endif
