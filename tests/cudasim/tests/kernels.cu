/* Sample kernels, right and wrong ones, written as for a GPU. */
#include "kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <curand_philox4x32_x.h>

namespace
{

template <typename... Params, typename... Args>
cudaError_t launch(dim3 grid, dim3 block, size_t sharedBytes, cudaStream_t stream, void (*kernel)(Params...),
                   Args... args)
{
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = sharedBytes;
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, args...);
}

constexpr unsigned all = 0xffffffffu;

/* ---- right ------------------------------------------------------------------------------------------------------ */

template <unsigned threads>
__global__ void __launch_bounds__(threads) scanKernel(const unsigned *in, unsigned *out, unsigned n)
{
    __shared__ unsigned warpSums[threads / 32];
    unsigned i = blockIdx.x * threads + threadIdx.x, lane = threadIdx.x % warpSize, warp = threadIdx.x / 32;
    unsigned sum = i < n ? in[i] : 0;
    for (unsigned step = 1; step < 32; step *= 2) {
        unsigned below = __shfl_up_sync(all, sum, step);
        if (lane >= step)
            sum += below;
    }
    if (lane == 31)
        warpSums[warp] = sum;
    __syncthreads();
    for (unsigned w = 0; w < warp; w++)
        sum += warpSums[w];
    if (i < n)
        out[i] = sum;
}

__global__ void compactionKernel(const float *__restrict__ in, unsigned *__restrict__ kept, unsigned *keptCount,
                                 unsigned n, float threshold)
{
    __shared__ unsigned base;
    unsigned lane = threadIdx.x % 32;
    for (unsigned start = 0; start < n; start += 32) {
        unsigned i = start + lane;
        bool keep = i < n && fabsf(__ldg(in + i)) > threshold;
        unsigned ballot = __ballot_sync(all, keep);
        if (lane == 0)
            base = atomicAdd(keptCount, __popc(ballot));
        __syncwarp();
        if (keep)
            kept[base + __popc(ballot & ((1u << lane) - 1))] = i;
        __syncwarp();
    }
}

__global__ void histogramKernel(const unsigned char *in, unsigned *bins, unsigned n)
{
    __shared__ unsigned local[256];
    for (unsigned b = threadIdx.x; b < 256; b += blockDim.x)
        local[b] = 0;
    __syncthreads();
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&local[in[i]], 1);
    __syncthreads();
    for (unsigned b = threadIdx.x; b < 256; b += blockDim.x)
        if (local[b])
            atomicAdd(bins + b, local[b]);
}

__global__ void reverseKernel(const double *in, double *out, unsigned n)
{
    extern __shared__ __align__(16) unsigned char bytes[];
    double *tile = reinterpret_cast<double *>(bytes);
    unsigned start = blockIdx.x * blockDim.x, length = min(blockDim.x, n - start);
    if (threadIdx.x < length)
        tile[threadIdx.x] = in[start + threadIdx.x];
    __syncthreads();
    if (threadIdx.x < length)
        out[start + threadIdx.x] = tile[length - 1 - threadIdx.x];
}

__global__ void warpBuiltinsKernel(unsigned *out)
{
    unsigned lane = threadIdx.x, bad = 0;
    auto expect = [&bad](int bit, bool ok) { bad |= unsigned(!ok) << bit; };
    expect(0, __shfl_xor_sync(all, int(lane), 5) == int(lane ^ 5));
    expect(1, __shfl_sync(all, double(lane), 7, 8) == double((lane & ~7u) | 7));
    expect(2, __shfl_down_sync(all, lane, 3, 16) == ((lane & 15) + 3 < 16 ? lane + 3 : lane));
    expect(3, __any_sync(all, lane == 9) && !__any_sync(all, 0) && __all_sync(all, 1) && !__all_sync(all, lane != 3));
    expect(4, __match_any_sync(all, lane % 4) == 0x11111111u << lane % 4);
    expect(5, __reduce_add_sync(all, lane) == 496 && __reduce_min_sync(all, int(lane) - 40) == -40);
    expect(6, __reduce_max_sync(all, lane) == 31 && __reduce_xor_sync(all, 1u << lane) == all);
    unsigned half = lane < 16 ? 0xffffu : 0xffff0000u; /* two halves, each on its own way */
    if (lane < 16)
        expect(7, __ballot_sync(half, lane & 1) == 0xaaaau);
    else
        expect(7, __reduce_add_sync(half, 2) == 32);
    expect(8, __brev(1) == 0x80000000u && __clz(1) == 31 && __ffs(8) == 4 && __umulhi(1u << 31, 6) == 3);
    expect(9, __float2int_rn(2.5f) == 2 && __float2uint_rz(-1.0f) == 0 && __float2int_rz(1e20f) == 0x7fffffff);
    expect(10,
           __bfloat162float(__float2bfloat16_rn(1.00390625f)) == 1.0f && __half2float(__float2half_rn(0.5f)) == 0.5f);
    expect(11, __byte_perm(0x33221100, 0x77665544, 0x7410) == 0x77441100);
    uint4 drawn = curand_Philox4x32_10(make_uint4(0, 0, 0, 0), make_uint2(0, 0));
    expect(12, drawn.x == 0x6627e8d5u && drawn.w == 0x9b00dbd8u);
    expect(13, __syncthreads_count(lane < 5) == 5 && __syncthreads_or(lane == 8) && !__syncthreads_and(lane == 8));
    out[lane] = bad;
}

__global__ void sharedCountersKernel(int *out)
{
    __shared__ int counter;
    if (threadIdx.x + threadIdx.y + threadIdx.z == 0)
        counter = 0;
    __syncthreads();
    atomicAdd(&counter, int(threadIdx.x + 10 * threadIdx.y + 100 * threadIdx.z));
    __syncthreads();
    if (threadIdx.x + threadIdx.y + threadIdx.z == 0)
        out[(blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x] = counter;
}

/* ---- wrong ------------------------------------------------------------------------------------------------------ */

template <unsigned size> __global__ void sharedOverrunKernel(float *out, unsigned index)
{
    __shared__ float tile[size];
    float *element = tile; /* through a pointer, where only red zones tell */
    element[index] = 1.0f;
    *out = element[0];
}

__global__ void dynamicSharedOverrunKernel(float *out, unsigned index)
{
    extern __shared__ float dynamicTile[];
    dynamicTile[index] = 1.0f;
    *out = dynamicTile[index];
}

__global__ void staleSharedKernel(unsigned *out)
{
    __shared__ unsigned counter; /* never set to 0 */
    atomicAdd(&counter, 1);
    out[blockIdx.x] = counter;
}

__global__ void globalWriteKernel(float *out, unsigned index)
{
    out[index] = 1.0f;
}

__global__ void unsynchronisedReverseKernel(const unsigned *in, unsigned *out)
{
    __shared__ unsigned tile[256];
    tile[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

__global__ void unsynchronisedRotateKernel(const unsigned *in, unsigned *out)
{
    __shared__ unsigned tile[32];
    tile[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = tile[(threadIdx.x + 1) % 32];
}

__global__ void divergentBarrierKernel(bool byExit)
{
    if (threadIdx.x == 5 && byExit)
        return;
    if (threadIdx.x != 5)
        __syncthreads();
    else
        __syncwarp(1u << 5);
}

__global__ void barriersAtTwoLinesKernel()
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}

__global__ void laneOutsideItsMaskKernel()
{
    __ballot_sync(0xfffffff7u, 1);
}

__global__ void maskWithExitedLaneKernel(bool exitFirst)
{
    if (exitFirst && threadIdx.x == 0)
        return;
    if (!exitFirst && threadIdx.x == 31)
        return;
    __syncwarp();
}

__global__ void maskBeyondBlockKernel()
{
    __any_sync(all, 1);
}

__global__ void shuffleFromAbsentLaneKernel()
{
    if (threadIdx.x < 16)
        __shfl_down_sync(0xffffu, threadIdx.x, 1);
}

__global__ void syncwarpThatNeverCompletesKernel()
{
    if (threadIdx.x < 16)
        __syncwarp();
    else
        __ballot_sync(all, 1);
}

__global__ void trappedKernel()
{
    __trap();
}

/* ---- for launches and streams ------------------------------------------------------------------------------------ */

__global__ void largeSharedKernel(unsigned bytes)
{
    extern __shared__ char large[];
    if (threadIdx.x == 0)
        large[bytes - 1] = 1;
}

__global__ void addOneKernel(unsigned *values, unsigned n)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        values[i]++;
}

} // namespace

cudaError_t blockScan(const unsigned *in, unsigned *out, unsigned n, cudaStream_t stream)
{
    return launch((n + 127) / 128, 128, 0, stream, scanKernel<128>, in, out, n);
}
cudaError_t ballotCompaction(const float *in, unsigned *kept, unsigned *keptCount, unsigned n, float threshold)
{
    return launch(1, 32, 0, nullptr, compactionKernel, in, kept, keptCount, n, threshold);
}
cudaError_t histogram(const unsigned char *in, unsigned *bins, unsigned n)
{
    return launch(3, 96, 0, nullptr, histogramKernel, in, bins, n);
}
cudaError_t reverseBlocks(const double *in, double *out, unsigned n, unsigned block)
{
    return launch((n + block - 1) / block, block, block * sizeof(double), nullptr, reverseKernel, in, out, n);
}
cudaError_t warpBuiltins(unsigned *out)
{
    return launch(1, 32, 0, nullptr, warpBuiltinsKernel, out);
}
cudaError_t sharedCounters(int *out)
{
    return launch(dim3(2, 3, 2), dim3(4, 5, 6), 0, nullptr, sharedCountersKernel, out);
}
cudaError_t sharedOverrun(float *out, unsigned index)
{
    return launch(1, 1, 0, nullptr, sharedOverrunKernel<32>, out, index);
}
cudaError_t dynamicSharedOverrun(float *out, unsigned index)
{
    return launch(1, 1, 32 * sizeof(float), nullptr, dynamicSharedOverrunKernel, out, index);
}
cudaError_t staleShared(unsigned *out, unsigned blocks)
{
    return launch(blocks, 1, 0, nullptr, staleSharedKernel, out);
}
cudaError_t globalWrite(float *out, unsigned index)
{
    return launch(1, 1, 0, nullptr, globalWriteKernel, out, index);
}
cudaError_t reverseWithoutSyncthreads(const unsigned *in, unsigned *out, unsigned block)
{
    return launch(1, block, 0, nullptr, unsynchronisedReverseKernel, in, out);
}
cudaError_t rotateWithoutSyncwarp(const unsigned *in, unsigned *out)
{
    return launch(1, 32, 0, nullptr, unsynchronisedRotateKernel, in, out);
}
cudaError_t divergentBarrier(bool byExit)
{
    return launch(1, 32, 0, nullptr, divergentBarrierKernel, byExit);
}
cudaError_t barriersAtTwoLines()
{
    return launch(1, 64, 0, nullptr, barriersAtTwoLinesKernel);
}
cudaError_t laneOutsideItsMask()
{
    return launch(1, 32, 0, nullptr, laneOutsideItsMaskKernel);
}
cudaError_t maskWithExitedLane(bool exitFirst)
{
    return launch(1, 32, 0, nullptr, maskWithExitedLaneKernel, exitFirst);
}
cudaError_t maskBeyondBlock()
{
    return launch(1, 20, 0, nullptr, maskBeyondBlockKernel);
}
cudaError_t shuffleFromAbsentLane()
{
    return launch(1, 32, 0, nullptr, shuffleFromAbsentLaneKernel);
}
cudaError_t syncwarpThatNeverCompletes()
{
    return launch(1, 32, 0, nullptr, syncwarpThatNeverCompletesKernel);
}
cudaError_t trapped()
{
    return launch(1, 1, 0, nullptr, trappedKernel);
}
cudaError_t largeShared(unsigned bytes, bool askFor)
{
    if (askFor) {
        cudaError_t asked =
            cudaFuncSetAttribute(largeSharedKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
        if (asked != cudaSuccess)
            return asked;
    }
    return launch(1, 32, bytes, nullptr, largeSharedKernel, bytes);
}
cudaError_t addOne(unsigned *values, unsigned n, cudaStream_t stream)
{
    return launch((n + 63) / 64, 64, 0, stream, addOneKernel, values, n);
}
