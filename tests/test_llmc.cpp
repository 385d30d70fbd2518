/* The lines for llm.c, between lines that stand for llm.c: lists of tensors of two layers and of what is outside of them. */
#include <gtest/gtest.h>

#include "examples/gs_llmc.cuh"

#include <thread>
#include <vector>

namespace
{

using Floats = __nv_bfloat16;

constexpr size_t C = 96, T = 8, V = 64;

/* A device's gradients: tensor after tensor, and an element between them that nobody may touch. */
class Tensors
{
  public:
    Tensors(std::vector<size_t> sizes, int rank) : sizes_(std::move(sizes))
    {
        for (size_t size : sizes_)
            count_ += size + 1;
        EXPECT_EQ(cudaSuccess, cudaMalloc(&memory_, count_ * sizeof(Floats)));
        fill(rank);
    }
    ~Tensors()
    {
        EXPECT_EQ(cudaSuccess, cudaFree(memory_));
    }
    Tensors(const Tensors &) = delete;

    /* Small even numbers: two ranks' average is exact. */
    static float value(size_t i, int rank)
    {
        return static_cast<float>(2 * (static_cast<int>(i * 7) % 31 - 15 + rank));
    }
    void fill(int rank)
    {
        std::vector<Floats> values;
        for (size_t i = 0; i < count_; i++)
            values.push_back(__float2bfloat16(value(i, rank)));
        EXPECT_EQ(cudaSuccess, cudaMemcpy(memory_, values.data(), count_ * sizeof(Floats), cudaMemcpyHostToDevice));
    }
    Floats *at(size_t tensor) const
    {
        Floats *first = memory_;
        for (size_t i = 0; i < tensor; i++)
            first += sizes_[i] + 1;
        return first;
    }
    /* Averages of two ranks, and between the tensors still this rank's own. */
    void check(int rank) const
    {
        std::vector<Floats> values(count_);
        EXPECT_EQ(cudaSuccess, cudaMemcpy(values.data(), memory_, count_ * sizeof(Floats), cudaMemcpyDeviceToHost));
        size_t i = 0;
        for (size_t size : sizes_) {
            for (size_t end = i + size; i < end; i++)
                ASSERT_EQ((value(i, 0) + value(i, 1)) / 2, __bfloat162float(values[i])) << "element " << i;
            ASSERT_EQ(value(i, rank), __bfloat162float(values[i])) << "behind a tensor, element " << i;
            i++;
        }
    }

  private:
    std::vector<size_t> sizes_;
    size_t count_ = 0;
    Floats *memory_ = nullptr;
};

/* As llm.c calls it for a layer, and for what is outside of the layers. */
void reduceLayer(GsGradients *gs, const Tensors &t, cudaStream_t stream)
{
    Floats *const pointers[] = {t.at(0), t.at(1), t.at(2), t.at(3), t.at(4),  t.at(5),
                                t.at(6), t.at(7), t.at(8), t.at(9), t.at(10), t.at(11)};
    const size_t sizes[] = {C, C, 3 * C * C, 3 * C, C * C, C, C, C, 4 * C * C, 4 * C, C * 4 * C, C};
    gs_gradients_reduce(gs, pointers, sizes, stream);
}

void reduceRest(GsGradients *gs, const Tensors &t, cudaStream_t stream)
{
    Floats *const pointers[] = {t.at(0), t.at(1), t.at(2), t.at(3)};
    const size_t sizes[] = {V * C, T * C, C, C};
    gs_gradients_reduce(gs, pointers, sizes, stream);
}

void trainOn(int rank, ncclUniqueId id)
{
    const std::vector<size_t> layer = {C, C, 3 * C * C, 3 * C, C * C, C, C, C, 4 * C * C, 4 * C, C * 4 * C, C};
    ncclComm_t nccl;
    cudaStream_t stream;
    GsGradients gs;
    ASSERT_EQ(cudaSuccess, cudaSetDevice(rank));
    ASSERT_EQ(cudaSuccess, cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    ASSERT_EQ(ncclSuccess, ncclCommInitRank(&nccl, 2, id, rank));
    gs_gradients_init(&gs, nccl, "identity");
    {
        Tensors second(layer, rank), first(layer, rank), rest({V * C, T * C, C, C}, rank);
        for (int step = 0; step < 3; step++) {
            for (Tensors *t : {&second, &first, &rest})
                t->fill(rank);
            ASSERT_EQ(cudaSuccess, cudaDeviceSynchronize());
            reduceLayer(&gs, second, stream);
            reduceLayer(&gs, first, stream);
            reduceRest(&gs, rest, stream);
            ASSERT_EQ(cudaSuccess, cudaStreamSynchronize(stream));
            for (Tensors *t : {&second, &first, &rest})
                t->check(rank);
        }
        EXPECT_EQ(3, gs.lists);
    }
    gs_gradients_free(&gs);
    EXPECT_EQ(ncclSuccess, ncclCommDestroy(nccl));
    EXPECT_EQ(cudaSuccess, cudaStreamDestroy(stream));
}

TEST(Llmc, AveragesListsInPlaceStepByStep)
{
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices < 2)
        GTEST_SKIP() << "two ranks need as many devices, there are " << devices;
    ncclUniqueId id;
    ASSERT_EQ(ncclSuccess, ncclGetUniqueId(&id));
    std::thread other(trainOn, 1, id);
    trainOn(0, id);
    other.join();
}

} // namespace
