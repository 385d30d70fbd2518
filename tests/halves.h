/* The halves of an all-reduce in tests: plans, calls by all ranks, and which recipes they take. */
#ifndef GS_TESTS_HALVES_H
#define GS_TESTS_HALVES_H

#include "methods.h"

#include <map>
#include <tuple>

namespace gst
{

/* `slice` elements a rank. */
inline Plan halfOf(gsCollective_t collective, const std::string &recipe, uint64_t slice, int nranks,
                   gsDataType_t type = GS_FLOAT32)
{
    Plan plan = planOf(recipe, slice * static_cast<uint64_t>(nranks), nranks, type);
    plan.collective = collective;
    return plan;
}

inline uint64_t sliceOf(const Plan &plan)
{
    return plan.count / static_cast<uint64_t>(plan.nranks);
}

/* What an all-reduce of the same recipe is to be called with, to have the same blocks. */
inline Plan wholeOf(const Plan &half)
{
    Plan plan = half;
    plan.collective = GS_ALL_REDUCE;
    if (half.recipe == "dense") /* which has no blocks */
        return plan;
    plan.segments.assign(static_cast<size_t>(half.nranks), sliceOf(half));
    plan.wholeBelow = 1;
    return plan;
}

inline std::vector<std::string> halfRecipes(gsCollective_t collective)
{
    std::vector<std::string> recipes;
    for (const std::string &recipe : methodRecipes()) {
        bool neither = recipe[0] == 'l' || contains(recipe, "clag") || contains(recipe, "gdsec") ||
                       contains(recipe, "rows") || contains(recipe, "tng") || contains(recipe, "twoway") ||
                       contains(recipe, "cdadam") || contains(recipe, "first=dense");
        bool scattered = contains(recipe, "dgc") || contains(recipe, "randk");
        if (!neither && (collective == GS_REDUCE_SCATTER || !scattered))
            recipes.push_back(recipe);
    }
    return recipes;
}

inline gsResult_t callHalf(const Plan &plan, gsReducer_t reducer, const void *send, void *recv,
                           gsStream_t stream = nullptr)
{
    if (plan.collective == GS_ALL_GATHER)
        return gsAllGather(send, recv, sliceOf(plan), plan.type, reducer, stream);
    return gsReduceScatter(send, recv, sliceOf(plan), plan.type, plan.op, reducer, stream);
}

/* Elements that a rank gives, and gets. */
inline uint64_t givenBy(const Plan &plan)
{
    return plan.collective == GS_ALL_GATHER ? sliceOf(plan) : plan.count;
}
inline uint64_t gotBy(const Plan &plan)
{
    return plan.collective == GS_ALL_GATHER ? plan.count : sliceOf(plan);
}

/* Made once for all recipes: the draws would take longer than what is tested. Not for several threads. */
inline const Vectors &givenTo(const Plan &plan, uint64_t step)
{
    static std::map<std::tuple<uint64_t, int, gsDataType_t, uint64_t>, Vectors> made;
    Vectors &given = made[{givenBy(plan), plan.nranks, plan.type, step}];
    if (given.empty())
        given = related(givenBy(plan), plan.nranks, step, 0.3, plan.type);
    return given;
}

/* The elements from `first` on. */
inline std::vector<uint8_t> cut(const std::vector<uint8_t> &raw, gsDataType_t type, uint64_t first, uint64_t n)
{
    auto begin = raw.begin() + static_cast<long>(first * bytesOf(type));
    return {begin, begin + static_cast<long>(n * bytesOf(type))};
}

/* One call by every rank, in place or not; checks canaries, and that nothing but the result is written. */
inline Results runHalf(const ThreadRanks &ranks, const Vectors &given, bool inPlace = false, size_t skew = 0)
{
    const Plan &plan = ranks.plan();
    bool gathers = plan.collective == GS_ALL_GATHER;
    uint64_t slice = sliceOf(plan);
    Results results(given.size());
    parallel(plan.nranks, [&](int r) {
        size_t rank = static_cast<size_t>(r), width = bytesOf(plan.type);
        Buffer send(plan.type, given[rank], skew), recv(plan.type, gotBy(plan), skew),
            both(plan.type, plan.count, skew);
        uint8_t *own = static_cast<uint8_t *>(both.data()) + rank * slice * width;
        for (uint64_t i = 0; i < given[rank].size(); i++)
            both.set(gathers ? rank * slice + i : i, given[rank][i]);
        std::vector<uint8_t> before = send.raw(), around = both.raw();
        const void *from = !inPlace ? send.data() : gathers ? own : both.data();
        void *to = !inPlace ? recv.data() : gathers ? both.data() : own;
        EXPECT_EQ(callHalf(plan, ranks.reducer(r), from, to), GS_SUCCESS) << gsGetLastError();
        EXPECT_TRUE(send.raw() == before) << "sendbuff was modified";
        EXPECT_TRUE(send.canariesIntact() && recv.canariesIntact() && both.canariesIntact());
        results[rank] = !inPlace ? recv.raw() : gathers ? both.raw() : cut(both.raw(), plan.type, rank * slice, slice);
        std::vector<uint8_t> after = both.raw();
        for (size_t i = 0; i < after.size(); i++)
            if (!gathers && i / width / slice == rank)
                after[i] = around[i];
        EXPECT_TRUE(gathers || after == around) << "another slice was modified";
    });
    return results;
}

/* A reduce-scatter by single stages: parts and seals that the test carries itself, and may damage on the way. */
class ScatterByHand : public StageRanks
{
  public:
    explicit ScatterByHand(const Plan &plan)
        : StageRanks(plan), seals(plan.nranks, GS_SEAL_BYTES), sent(filled(plan)), received(filled(plan))
    {
    }

    /* Part q of each rank comes to rank q. */
    void encode(const Vectors &given, size_t skew = 0)
    {
        for (int r = 0; r < plan_.nranks; r++) {
            Buffer send(plan_.type, given[static_cast<size_t>(r)], skew);
            std::vector<uint8_t> before = send.raw();
            EXPECT_EQ(gsEncode(send.data(), sent[static_cast<size_t>(r)].slot(0), sliceOf(plan_), plan_.type,
                               reducer(r), nullptr),
                      GS_SUCCESS)
                << gsGetLastError();
            EXPECT_TRUE(send.raw() == before) << "sendbuff was modified";
        }
        for (int r = 0; r < plan_.nranks; r++)
            for (int q = 0; q < plan_.nranks; q++)
                std::memcpy(received[static_cast<size_t>(q)].slot(r), sent[static_cast<size_t>(r)].slot(q),
                            slotBytes());
    }
    void sum()
    {
        for (int r = 0; r < plan_.nranks; r++)
            EXPECT_EQ(gsSumParts(received[static_cast<size_t>(r)].data(), seals.slot(r), reducer(r), nullptr),
                      GS_SUCCESS)
                << gsGetLastError();
    }
    gsResult_t decodeOne(int rank, void *recv)
    {
        return gsDecode(seals.data(), recv, sliceOf(plan_), plan_.type, plan_.op, reducer(rank), nullptr);
    }
    Results decode(size_t skew = 0)
    {
        Results results;
        for (int r = 0; r < plan_.nranks; r++) {
            Buffer recv(plan_.type, sliceOf(plan_), skew);
            EXPECT_EQ(decodeOne(r, recv.data()), GS_SUCCESS) << gsGetLastError();
            EXPECT_TRUE(recv.canariesIntact());
            results.push_back(recv.raw());
        }
        return results;
    }
    Results run(const Vectors &given, size_t skew = 0)
    {
        encode(given, skew);
        sum();
        return decode(skew);
    }

    Slots seals;
    std::vector<Slots> sent, received; /* by rank: to and from each rank */

  private:
    std::vector<Slots> filled(const Plan &plan) const
    {
        std::vector<Slots> slots;
        for (int r = 0; r < plan.nranks; r++)
            slots.emplace_back(plan.nranks, slotBytes());
        return slots;
    }
};

} // namespace gst
#endif
