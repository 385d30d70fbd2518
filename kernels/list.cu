/* A list's tensors: their addresses, from a call's arguments to the device, and copies from one list to another. */
#include "kernels.cuh"
#include "launch.cuh"

#include <algorithm>

/* Addresses that a launch carries, within the 4 KB that its parameters may have. So they reach the device in the stream's order, and
 * stay in a captured graph, without memory on the host that would have to outlive the call. */
constexpr uint32_t GS_CARRIED = 448;

struct Addresses {
    void *of[GS_CARRIED];
};

/*
 * 1. Each thread stores an address or more.
 * Traffic: 8 bytes a tensor.
 * Bad case: thousands of tensors, a launch for every 448 addresses.
 */
__global__ void __launch_bounds__(GS_CTA)
    gsStoreAddresses(void **table, uint32_t n, const __grid_constant__ Addresses addresses)
{
    for (uint32_t i = threadIdx.x; i < n; i += GS_CTA)
        table[i] = addresses.of[i];
}

gsResult_t gsCudaSetTensors(gsReducer_t r, void *const *tensors, uint32_t first, uint32_t n, gsStream_t stream)
{
    Addresses addresses = {};
    for (uint32_t at = 0; at < n; at += GS_CARRIED) {
        const uint32_t carried = std::min(n - at, GS_CARRIED);
        std::copy(tensors + at, tensors + at + carried, addresses.of);
        GS_CHECK(gsLaunch("gsStoreAddresses", gsStoreAddresses, 1, GS_CTA, stream, r->buffers + first + at, carried,
                          addresses));
    }
    return GS_SUCCESS;
}

/*
 * A CTA copies a block.
 * Traffic: reads and writes all tensors, 8 bytes an element (float64: 16, others: 4).
 * Bad case: tensors of a few elements, a CTA each.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<gsRealOf<T>>)
    gsCopyTensors(const __grid_constant__ gsSpec spec, const void *from, void *to)
{
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        gsRealOf<T> x[16];
        const unsigned length = gsBlockLength(&spec, b);
        gsLoadTile(gsBlockOf<T>(spec.list, from, b), length, x);
        gsStoreTile(gsBlockOf<T>(spec.list, to, b), length, x);
    }
}

gsResult_t gsCudaGather(gsReducer_t r, const void *from, void *to, gsStream_t stream)
{
    return gsByType(r->spec.type, [&](auto t) {
        return gsLaunch("gsCopyTensors", gsCopyTensors<decltype(t)>, r->spec.blocks, GS_CTA, stream, r->spec, from, to);
    });
}
