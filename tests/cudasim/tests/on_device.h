/* Device memory that holds a copy of a vector. */
#ifndef CUDASIM_TESTS_ON_DEVICE_H
#define CUDASIM_TESTS_ON_DEVICE_H

#include <cuda_runtime_api.h>

#include <gtest/gtest.h>
#include <numeric>
#include <vector>

template <typename T> class OnDevice
{
  public:
    explicit OnDevice(const std::vector<T> &values) : count(values.size())
    {
        EXPECT_EQ(cudaMalloc(reinterpret_cast<void **>(&data), count * sizeof(T)), cudaSuccess);
        EXPECT_EQ(cudaMemcpy(data, values.data(), count * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
    }
    ~OnDevice()
    {
        cudaFree(data);
    }
    OnDevice(const OnDevice &) = delete;
    OnDevice &operator=(const OnDevice &) = delete;

    std::vector<T> fetch() const
    {
        std::vector<T> values(count);
        EXPECT_EQ(cudaMemcpy(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
        return values;
    }
    operator T *() const
    {
        return data;
    }

  private:
    T *data = nullptr;
    size_t count;
};

inline std::vector<unsigned> ascending(unsigned count)
{
    std::vector<unsigned> values(count);
    std::iota(values.begin(), values.end(), 0);
    return values;
}

#endif /* CUDASIM_TESTS_ON_DEVICE_H */
