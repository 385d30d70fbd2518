/* The arithmetic of the NCCL stand-in: element types and reductions, ranks in order, rounded after every step. */
#ifndef CUDASIM_NCCL_REDUCE_H
#define CUDASIM_NCCL_REDUCE_H

#include <nccl.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace cudasim
{

/* Bytes of an element; 0 for a type that is not simulated. */
inline size_t widthOf(ncclDataType_t type)
{
    switch (type) {
    case ncclInt8:
    case ncclUint8: return 1;
    case ncclFloat16:
    case ncclBfloat16: return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32: return 4;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64: return 8;
    default: return 0;
    }
}

inline float widen(__half x)
{
    return __half2float(x);
}
inline float widen(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
template <typename T> inline T widen(T x)
{
    return x;
}

template <typename T, typename Wide> inline T narrow(Wide x)
{
    if constexpr (std::is_same_v<T, __half>)
        return __float2half_rn(x);
    else if constexpr (std::is_same_v<T, __nv_bfloat16>)
        return __float2bfloat16_rn(x);
    else
        return T(x);
}

/* Integers wrap around; so they are added and multiplied as unsigned. */
template <typename Wide> inline Wide combineTwo(ncclRedOp_t op, Wide a, Wide b)
{
    using Sum = std::conditional_t<std::is_integral_v<Wide>, uint64_t, Wide>;
    switch (op) {
    case ncclProd: return Wide(Sum(a) * Sum(b));
    case ncclMax: return std::max(a, b);
    case ncclMin: return std::min(a, b);
    default: return Wide(Sum(a) + Sum(b));
    }
}

/* NCCL's average: floating-point inputs are scaled before the sum, integer sums are divided after it. */
template <typename T>
void reduceElements(const std::vector<const void *> &inputs, void *result, size_t count, ncclRedOp_t op)
{
    using Wide = decltype(widen(T()));
    constexpr bool isInteger = std::is_integral_v<T>;
    const bool average = op == ncclAvg;
    const Wide ranks = Wide(inputs.size());
    for (size_t i = 0; i < count; i++) {
        auto input = [&](size_t rank) {
            Wide value = widen(static_cast<const T *>(inputs[rank])[i]);
            if constexpr (!isInteger)
                if (average)
                    value = widen(narrow<T>(value * (Wide(1) / ranks)));
            return value;
        };
        Wide sum = input(0);
        for (size_t rank = 1; rank < inputs.size(); rank++)
            sum = widen(narrow<T>(combineTwo<Wide>(op, sum, input(rank))));
        if (isInteger && average)
            sum = Wide(sum / ranks);
        static_cast<T *>(result)[i] = narrow<T>(sum);
    }
}

inline void reduce(const std::vector<const void *> &inputs, void *result, size_t count, ncclDataType_t type,
                   ncclRedOp_t op)
{
    switch (type) {
    case ncclInt8: return reduceElements<int8_t>(inputs, result, count, op);
    case ncclUint8: return reduceElements<uint8_t>(inputs, result, count, op);
    case ncclInt32: return reduceElements<int32_t>(inputs, result, count, op);
    case ncclUint32: return reduceElements<uint32_t>(inputs, result, count, op);
    case ncclInt64: return reduceElements<int64_t>(inputs, result, count, op);
    case ncclUint64: return reduceElements<uint64_t>(inputs, result, count, op);
    case ncclFloat16: return reduceElements<__half>(inputs, result, count, op);
    case ncclBfloat16: return reduceElements<__nv_bfloat16>(inputs, result, count, op);
    case ncclFloat32: return reduceElements<float>(inputs, result, count, op);
    case ncclFloat64: return reduceElements<double>(inputs, result, count, op);
    default: return; /* refused when the call was made */
    }
}

} // namespace cudasim

#endif /* CUDASIM_NCCL_REDUCE_H */
