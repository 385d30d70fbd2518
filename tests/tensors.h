/* A list's tensors in memory, each in a place of its own between canaries, and calls on them. */
#ifndef GS_TESTS_TENSORS_H
#define GS_TESTS_TENSORS_H

#include "ranks.h"

#include <numeric>

namespace gst
{

/* A plan of a list. */
inline Plan listOf(const std::string &recipe, const std::vector<uint64_t> &segments, int nranks,
                   gsDataType_t type = GS_FLOAT32, uint64_t wholeBelow = 0)
{
    Plan plan;
    plan.recipe = recipe;
    plan.type = type;
    plan.nranks = nranks;
    plan.segments = segments;
    plan.wholeBelow = wholeBelow;
    plan.count = std::accumulate(segments.begin(), segments.end(), uint64_t{0});
    return plan;
}

/* Tensors of one block and less, of several, of none, around the limit below which they travel whole. */
inline const std::vector<uint64_t> &mixedSizes()
{
    static const std::vector<uint64_t> sizes = {5000, 768, 1, 0, 4096, 4095, 12293, 2304, 31, 8192, 4129, 0};
    return sizes;
}

/* GPT-2's tensors by its width, in llm.c's order within a layer: 148 with 12 layers. */
inline std::vector<uint64_t> gpt2Sizes(uint64_t width, uint64_t vocabulary, uint64_t positions, int layers)
{
    std::vector<uint64_t> sizes = {vocabulary * width, positions * width};
    const uint64_t w = width;
    for (int layer = 0; layer < layers; layer++)
        for (uint64_t n : {w, w, 3 * w * w, 3 * w, w * w, w, w, w, 4 * w * w, 4 * w, 4 * w * w, w})
            sizes.push_back(n);
    sizes.push_back(width);
    sizes.push_back(width);
    return sizes;
}

class Tensors
{
  public:
    /* Values one behind the other; without values what a result has before the call. */
    template <typename Number>
    Tensors(const Plan &plan, const std::vector<Number> &values, size_t skew = 0) : Tensors(plan, skew)
    {
        uint64_t element = 0;
        for (Buffer &buffer : buffers_)
            for (uint64_t i = 0; i < buffer.count(); i++)
                buffer.set(i, values[element++]);
    }
    explicit Tensors(const Plan &plan, size_t skew = 0)
    {
        for (size_t t = 0; t < plan.segments.size(); t++)
            buffers_.emplace_back(plan.type, plan.segments[t], (skew + t * skew) % 8);
    }

    /* A tensor of no elements has none. */
    std::vector<void *> pointers()
    {
        std::vector<void *> all;
        for (Buffer &buffer : buffers_)
            all.push_back(buffer.count() ? buffer.data() : nullptr);
        return all;
    }
    std::vector<uint8_t> raw() const
    {
        std::vector<uint8_t> all;
        for (const Buffer &buffer : buffers_) {
            std::vector<uint8_t> one = buffer.raw();
            all.insert(all.end(), one.begin(), one.end());
        }
        return all;
    }
    bool canariesIntact() const
    {
        for (const Buffer &buffer : buffers_)
            if (!buffer.canariesIntact())
                return false;
        return true;
    }

  private:
    std::vector<Buffer> buffers_;
};

inline gsResult_t reduceTensors(const Plan &plan, gsReducer_t reducer, const std::vector<void *> &from,
                                const std::vector<void *> &to, gsStream_t stream = nullptr)
{
    return gsAllReduceSegments(from.data(), to.data(), static_cast<uint32_t>(to.size()), plan.type, plan.op, reducer,
                               stream);
}

/* A list's tensors in one buffer, one behind the other. */
inline std::vector<void *> tensorsIn(const Plan &plan, Buffer &buffer)
{
    std::vector<void *> all;
    uint64_t first = 0;
    for (uint64_t elements : plan.segments) {
        all.push_back(static_cast<uint8_t *>(buffer.data()) + first * bytesOf(plan.type));
        first += elements;
    }
    return all;
}

/* A call, of a gradient or of a list, by what the plan says. */
inline gsResult_t reduceBuffer(const Plan &plan, gsReducer_t reducer, Buffer &send, Buffer &recv)
{
    if (!plan.segments.empty())
        return reduceTensors(plan, reducer, tensorsIn(plan, send), tensorsIn(plan, recv));
    return gsAllReduce(send.data(), recv.data(), plan.count, plan.type, plan.op, reducer, nullptr);
}

/* One call by every rank; checks canaries and that gradients are left alone. */
template <typename Number>
Results reduceList(ThreadRanks &ranks, const std::vector<std::vector<Number>> &gradients, bool inPlace = false,
                   size_t skew = 0)
{
    const Plan &plan = ranks.plan();
    Results results(gradients.size());
    parallel(plan.nranks, [&](int r) {
        size_t rank = static_cast<size_t>(r);
        Tensors send(plan, gradients[rank], skew), recv(plan, skew + 1);
        Tensors &out = inPlace ? send : recv;
        std::vector<uint8_t> before = send.raw();
        EXPECT_EQ(reduceTensors(plan, ranks.reducer(r), send.pointers(), out.pointers()), GS_SUCCESS)
            << gsGetLastError();
        EXPECT_TRUE(send.canariesIntact() && recv.canariesIntact());
        EXPECT_TRUE(inPlace || send.raw() == before) << "sendbuff was modified";
        results[rank] = out.raw();
    });
    return results;
}

} // namespace gst
#endif
