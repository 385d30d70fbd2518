/* Streams keep their order and no other, events tie them together, and memory is what it was allocated as. */
#include "kernels.h"
#include "on_device.h"

#include <chrono>
#include <cstdlib>
#include <thread>

namespace
{

class Stream
{
  public:
    explicit Stream(unsigned flags = cudaStreamNonBlocking)
    {
        EXPECT_EQ(cudaStreamCreateWithFlags(&stream, flags), cudaSuccess);
    }
    ~Stream()
    {
        EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
    }
    operator cudaStream_t() const
    {
        return stream;
    }

  private:
    cudaStream_t stream = nullptr;
};

/* Fills memory in one stream and adds one in another, with or without an event between; whether the sum is right. */
bool addsAfterFill(bool withEvent)
{
    constexpr unsigned count = 256;
    OnDevice<unsigned> values(std::vector<unsigned>(count, 77));
    Stream filling, adding;
    cudaEvent_t filled;
    EXPECT_EQ(cudaEventCreateWithFlags(&filled, cudaEventDisableTiming), cudaSuccess);
    EXPECT_EQ(cudaMemsetAsync(values, 0, count * sizeof(unsigned), filling), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(filled, filling), cudaSuccess);
    if (withEvent) {
        EXPECT_EQ(cudaStreamWaitEvent(adding, filled, 0), cudaSuccess);
    }
    EXPECT_EQ(addOne(values, count, adding), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(cudaEventDestroy(filled), cudaSuccess);
    return values.fetch() == std::vector<unsigned>(count, 1);
}

class Jitter : public testing::Test
{
  protected:
    void SetUp() override
    {
        setenv("CUDASIM_JITTER", "2000", 1);
    }
    void TearDown() override
    {
        unsetenv("CUDASIM_JITTER");
    }
    static constexpr int trials = 40;
};

TEST_F(Jitter, WaitEventOrdersTwoStreams)
{
    for (int i = 0; i < trials; i++)
        ASSERT_TRUE(addsAfterFill(true));
}

#ifdef CUDASIM_THREAD_SANITIZER
TEST_F(Jitter, MissingWaitEventIsARace)
{
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    EXPECT_DEATH(for (int i = 0; i < trials; i++) addsAfterFill(false), "data race");
}
#else
TEST_F(Jitter, MissingWaitEventIsARace)
{
    int wrong = 0;
    for (int i = 0; i < trials; i++)
        wrong += !addsAfterFill(false);
    EXPECT_GT(wrong, 0);
    EXPECT_LT(wrong, trials);
}
#endif

TEST_F(Jitter, DefaultStreamWaitsForBlockingStreamsOnly)
{
    OnDevice<unsigned> values(std::vector<unsigned>(64, 0));
    Stream blocking(cudaStreamDefault);
    for (int i = 0; i < 10; i++) {
        EXPECT_EQ(addOne(values, 64, blocking), cudaSuccess);
        EXPECT_EQ(addOne(values, 64, nullptr), cudaSuccess);
    }
    EXPECT_EQ(values.fetch(), std::vector<unsigned>(64, 20));
}

void sleepBriefly(void *)
{
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
}

TEST(Streams, CallsReturnBeforeTheWorkIsDone)
{
    Stream stream;
    cudaEvent_t before, after;
    EXPECT_EQ(cudaEventCreate(&before), cudaSuccess);
    EXPECT_EQ(cudaEventCreate(&after), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(before, stream), cudaSuccess);
    EXPECT_EQ(cudaLaunchHostFunc(stream, sleepBriefly, nullptr), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(after, stream), cudaSuccess);
    EXPECT_EQ(cudaStreamQuery(stream), cudaErrorNotReady);
    EXPECT_EQ(cudaEventQuery(after), cudaErrorNotReady);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    EXPECT_EQ(cudaStreamQuery(stream), cudaSuccess);
    float milliseconds = 0;
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, before, after), cudaSuccess);
    EXPECT_GE(milliseconds, 19.0f);
    EXPECT_EQ(cudaEventDestroy(before), cudaSuccess);
    EXPECT_EQ(cudaEventDestroy(after), cudaSuccess);
}

TEST(Streams, CaptureIsNotSupported)
{
    Stream stream;
    cudaStreamCaptureStatus status;
    EXPECT_EQ(cudaStreamIsCapturing(stream, &status), cudaSuccess);
    EXPECT_EQ(status, cudaStreamCaptureStatusNone);
    EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaErrorNotSupported);
    cudaGetLastError();
}

TEST(Memory, KnowsItsOwn)
{
    unsigned plain = 0, *pinned = nullptr;
    OnDevice<unsigned> device(ascending(8));
    EXPECT_EQ(cudaMallocHost(reinterpret_cast<void **>(&pinned), 32), cudaSuccess);
    cudaPointerAttributes attributes;
    EXPECT_EQ(cudaPointerGetAttributes(&attributes, device + 3), cudaSuccess);
    EXPECT_EQ(attributes.type, cudaMemoryTypeDevice);
    EXPECT_EQ(attributes.hostPointer, nullptr);
    EXPECT_EQ(cudaPointerGetAttributes(&attributes, pinned), cudaSuccess);
    EXPECT_EQ(attributes.type, cudaMemoryTypeHost);
    EXPECT_EQ(cudaPointerGetAttributes(&attributes, &plain), cudaSuccess);
    EXPECT_EQ(attributes.type, cudaMemoryTypeUnregistered);
    EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

TEST(Memory, RefusesWrongCopies)
{
    unsigned plain[8];
    OnDevice<unsigned> device(ascending(8));
    EXPECT_EQ(cudaMemcpy(plain, device, 32, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemcpy(plain, plain, 32, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemcpy(plain, device, 36, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemset(plain, 0, 32), cudaErrorInvalidValue);
    EXPECT_EQ(cudaFree(plain), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemcpy(plain, device, 32, cudaMemcpyDeviceToHost), cudaSuccess);
    cudaGetLastError();
}

TEST(Memory, StreamOrderedFreeComesAfterTheWork)
{
    Stream stream;
    unsigned *values = nullptr;
    EXPECT_EQ(cudaMallocAsync(reinterpret_cast<void **>(&values), 64 * 4, stream), cudaSuccess);
    EXPECT_EQ(cudaLaunchHostFunc(stream, sleepBriefly, nullptr), cudaSuccess);
    EXPECT_EQ(cudaMemsetAsync(values, 0, 64 * 4, stream), cudaSuccess);
    EXPECT_EQ(addOne(values, 64, stream), cudaSuccess);
    EXPECT_EQ(cudaFreeAsync(values, stream), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
}

TEST(Devices, CountAndChoice)
{
    setenv("CUDASIM_DEVICES", "3", 1);
    int count = 0, device = -1;
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
    EXPECT_EQ(count, 3);
    EXPECT_EQ(cudaSetDevice(3), cudaErrorInvalidDevice);
    EXPECT_EQ(cudaSetDevice(2), cudaSuccess);
    EXPECT_EQ(cudaGetDevice(&device), cudaSuccess);
    EXPECT_EQ(device, 2);
    EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
    setenv("CUDASIM_DEVICES", "0", 1);
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
    unsetenv("CUDASIM_DEVICES");
    cudaGetLastError();
}

} // namespace
