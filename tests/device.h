/* Ranks of a test on a CUDA device, and beside them the same ranks on the CPU, which they must equal bit for bit. */
#ifndef GS_TESTS_DEVICE_H
#define GS_TESTS_DEVICE_H

#include "draw.h"
#include "ranks.h"
#include "record.h"

#include <cuda_runtime_api.h>

namespace gst
{

#define CUDA(call) ASSERT_EQ(call, cudaSuccess)
#define CUDA_EXPECT(call) EXPECT_EQ(call, cudaSuccess)

inline bool deviceIsThere()
{
    int devices = 0;
    return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}

#define NEEDS_DEVICE()                        \
    do {                                      \
        if (!deviceIsThere())                 \
            GTEST_SKIP() << "no CUDA device"; \
    } while (0)

/* A stream that does not wait for the legacy one: what the library forgets to order shows. */
class Stream
{
  public:
    Stream()
    {
        CUDA_EXPECT(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    }
    ~Stream()
    {
        CUDA_EXPECT(cudaStreamDestroy(stream_));
    }
    Stream(const Stream &) = delete;
    operator cudaStream_t() const
    {
        return stream_;
    }
    void synchronize() const
    {
        CUDA_EXPECT(cudaStreamSynchronize(stream_));
    }

  private:
    cudaStream_t stream_ = nullptr;
};

/* `bytes` of device memory, `skew` bytes past an aligned address, between canaries. */
class DeviceMemory
{
  public:
    DeviceMemory(size_t bytes, size_t skew = 0) : bytes_(bytes), at_(guard + skew), all_(at_ + bytes + guard, 0xA5)
    {
        CUDA_EXPECT(cudaMalloc(&memory_, all_.size()));
        CUDA_EXPECT(cudaMemcpy(memory_, all_.data(), all_.size(), cudaMemcpyHostToDevice));
    }
    ~DeviceMemory()
    {
        CUDA_EXPECT(cudaFree(memory_));
    }
    DeviceMemory(const DeviceMemory &) = delete;

    uint8_t *data() const
    {
        return static_cast<uint8_t *>(memory_) + at_;
    }
    size_t size() const
    {
        return bytes_;
    }
    void put(const void *from, cudaStream_t stream) const
    {
        CUDA_EXPECT(cudaMemcpyAsync(data(), from, bytes_, cudaMemcpyHostToDevice, stream));
    }
    std::vector<uint8_t> get(cudaStream_t stream)
    {
        CUDA_EXPECT(cudaMemcpyAsync(all_.data(), memory_, all_.size(), cudaMemcpyDeviceToHost, stream));
        CUDA_EXPECT(cudaStreamSynchronize(stream));
        for (size_t i = 0; i < all_.size(); i++)
            EXPECT_TRUE((i >= at_ && i < at_ + bytes_) || all_[i] == 0xA5)
                << "written at " << i << " of " << all_.size();
        return {all_.begin() + static_cast<long>(at_), all_.begin() + static_cast<long>(at_ + bytes_)};
    }

  private:
    static constexpr size_t guard = 256; /* what cudaMalloc aligns to */
    size_t bytes_, at_;
    std::vector<uint8_t> all_;
    void *memory_ = nullptr;
};

/* Ranks as single stages on the device. */
class DeviceRanks : public Ranks
{
  public:
    explicit DeviceRanks(const Plan &plan) : Ranks(plan)
    {
        for (int r = 0; r < plan.nranks; r++) {
            gsReducerConfig_t config = configOf(plan);
            EXPECT_EQ(gsCommInitStagesCuda(&comms_[static_cast<size_t>(r)], r, plan.nranks, nullptr), GS_SUCCESS)
                << gsGetLastError();
            EXPECT_EQ(gsReducerCreate(&reducers_[static_cast<size_t>(r)], comm(r), &config), GS_SUCCESS)
                << gsGetLastError();
        }
        EXPECT_EQ(gsReducerGetSlotBytes(reducer(0), &slotBytes_), GS_SUCCESS);
    }

    size_t slotBytes() const
    {
        return slotBytes_;
    }

    void encodeOne(int rank, const std::vector<float> &gradient, uint8_t *record, size_t skew = 0)
    {
        Buffer host(plan_.type, gradient);
        DeviceMemory send(plan_.count * bytesOf(plan_.type), skew * bytesOf(plan_.type));
        send.put(host.data(), stream_);
        EXPECT_EQ(gsEncode(send.data(), record, plan_.count, plan_.type, reducer(rank), stream_), GS_SUCCESS)
            << gsGetLastError();
        stream_.synchronize();
        EXPECT_EQ(send.get(stream_), host.raw()) << "sendbuff was modified";
    }

    /* All ranks' slots, one after the other; bytes behind a record are 0xA5. */
    std::vector<uint8_t> encode(const Gradients &gradients, size_t skew = 0)
    {
        DeviceMemory slots(static_cast<size_t>(plan_.nranks) * slotBytes_);
        for (int r = 0; r < plan_.nranks; r++)
            encodeOne(r, gradients[static_cast<size_t>(r)], slots.data() + static_cast<size_t>(r) * slotBytes_, skew);
        return slots.get(stream_);
    }

    /* Rank's result, or 0x5A everywhere if nothing was written. */
    std::vector<uint8_t> decodeOne(int rank, const uint8_t *slots, size_t skew = 0)
    {
        DeviceMemory records(static_cast<size_t>(plan_.nranks) * slotBytes_);
        DeviceMemory recv(plan_.count * bytesOf(plan_.type), skew * bytesOf(plan_.type));
        std::vector<uint8_t> untouched(recv.size(), 0x5A);
        records.put(slots, stream_);
        recv.put(untouched.data(), stream_);
        EXPECT_EQ(gsDecode(records.data(), recv.data(), plan_.count, plan_.type, plan_.op, reducer(rank), stream_),
                  GS_SUCCESS)
            << gsGetLastError();
        return recv.get(stream_);
    }

    gsResult_t asyncError(int rank)
    {
        gsResult_t error = GS_SUCCESS;
        EXPECT_EQ(gsReducerGetAsyncError(reducer(rank), &error), GS_SUCCESS) << gsGetLastError();
        return error;
    }

    const Stream &stream() const
    {
        return stream_;
    }

  private:
    Stream stream_;
    size_t slotBytes_ = 0;
};

/* Payloads of NaN are nobody's promise, except in results that are NaN throughout. */
inline bool sameNumbers(const std::vector<uint8_t> &a, const std::vector<uint8_t> &b, gsDataType_t type)
{
    std::vector<float> x = numbersOf(a, type), y = numbersOf(b, type);
    if (x.size() != y.size())
        return false;
    for (size_t i = 0; i < x.size(); i++)
        if (std::memcmp(&x[i], &y[i], 4) != 0 && !(std::isnan(x[i]) && std::isnan(y[i])))
            return false;
    return true;
}

/* The same ranks twice. */
struct Pair {
    explicit Pair(const Plan &plan) : cpu(plan), device(plan), plan(plan)
    {
    }

    /* One step on both; every record, result, state and count must agree. */
    void step(const Gradients &gradients, size_t skew)
    {
        ASSERT_EQ(cpu.slotBytes(), device.slotBytes());
        Slots expected = cpu.encode(gradients);
        std::vector<uint8_t> found = device.encode(gradients, skew);
        for (int r = 0; r < plan.nranks; r++) {
            const uint8_t *a = expected.slot(r), *b = found.data() + static_cast<size_t>(r) * device.slotBytes();
            uint64_t bytes = readAt<uint64_t>(a, 48);
            for (uint64_t i = 0; i < bytes; i++)
                ASSERT_EQ(a[i], b[i]) << "byte " << i << " of " << bytes << " of rank " << r << "'s record";
            for (uint64_t i = bytes; i < device.slotBytes(); i++)
                ASSERT_EQ(b[i], 0xA5) << "written behind the record, at " << i;
        }
        Results results = cpu.decode(expected);
        for (int r = 0; r < plan.nranks; r++) {
            ASSERT_TRUE(device.decodeOne(r, expected.data(), skew) == results[static_cast<size_t>(r)]) << "rank " << r;
            EXPECT_EQ(device.asyncError(r), GS_SUCCESS);
            ASSERT_TRUE(device.state(r) == cpu.state(r)) << "rank " << r;
            expectSameStats(device.stats(r), cpu.stats(r));
        }
    }

    /* The iterate of a step on both, alike on all ranks, and for gdsec factors by coordinate; the server's triggers must agree. */
    void tellIterate(int step, bool factors)
    {
        Gradients theta = makeGradients(Shape::Gaussian, plan, 77);
        for (float &x : theta[0])
            x = x * 4 + static_cast<float>(step) * x / 8;
        if (!iterate)
            iterate = std::make_unique<DeviceMemory>(plan.count * bytesOf(plan.type));
        host = std::make_unique<Buffer>(plan.type, theta[0]);
        iterate->put(host->data(), device.stream());
        device.stream().synchronize();
        for (int r = 0; r < plan.nranks; r++) {
            gsParams_t params = GS_PARAMS_INIT;
            params.datatype = plan.type;
            params.stepSize = 0.125;
            params.smoothness = 2;
            params.params = host->data();
            params.xi = factors ? host->data() : nullptr;
            params.stale = host->data();
            ASSERT_EQ(gsReducerSetParams(cpu.reducer(r), &params), GS_SUCCESS) << gsGetLastError();
            params.params = iterate->data();
            params.xi = factors ? iterate->data() : nullptr;
            params.stale = iterate->data();
            ASSERT_EQ(gsReducerSetParams(device.reducer(r), &params), GS_SUCCESS) << gsGetLastError();
            int wants[2] = {-1, -1};
            ASSERT_EQ(gsReducerWantsGradient(cpu.reducer(r), &wants[0]), GS_SUCCESS) << gsGetLastError();
            ASSERT_EQ(gsReducerWantsGradient(device.reducer(r), &wants[1]), GS_SUCCESS) << gsGetLastError();
            ASSERT_EQ(wants[0], wants[1]) << "rank " << r;
        }
    }

    StageRanks cpu;
    DeviceRanks device;
    Plan plan;
    std::unique_ptr<DeviceMemory> iterate;
    std::unique_ptr<Buffer> host;
};

} // namespace gst

#endif
