/* Device side of the simulator, force-included before every .cu file: the CUDA keywords and builtins for g++.
 *
 * The types and signatures are NVIDIA's own; this header only supplies what nvcc builds in. Each CUDA thread is a
 * fiber, so a builtin that waits for other threads is a call into the executor (executor.cpp); the rest is plain C++.
 */
#ifndef CUDASIM_H
#define CUDASIM_H

/* Under the thread sanitizer kernels of several streams run at once, each on its worker thread. */
#ifdef CUDASIM_THREAD_SANITIZER
#define CUDASIM_PER_WORKER __thread
#else
#define CUDASIM_PER_WORKER
#endif

#define __host__
#define __device__
#define __global__
#define __constant__
#define __managed__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ CUDASIM_SHARED /* for compile.sh, which rewrites the declaration */
#define __STORAGE__ extern CUDASIM_PER_WORKER const

#include <cuda_runtime.h>
#include <device_launch_parameters.h> /* threadIdx & co.; a fiber sees its own for as long as it lives */

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>

namespace cudasim
{

/* A builtin and the place in the kernel's source where it stands. */
struct Where {
    const char *builtin, *file;
    int line;
};

/* As default arguments these are the caller's. */
#define CUDASIM_WHERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define CUDASIM_HERE         \
    cudasim::Where           \
    {                        \
        __func__, file, line \
    }

enum class Collective { Sync, Ballot, Shuffle, MatchAny, Add, Min, Max, And, Or, Xor };

/* Waits for every lane in mask and returns this lane's result; `source` is the lane a shuffle reads from. */
uint64_t warpCollective(Collective what, unsigned mask, uint64_t value, int source, Where where);
/* Waits for every thread of the block and returns the number of those whose predicate is true. */
int blockBarrier(bool predicate, Where where);
void yieldThread();
[[noreturn]] void trap(Where where);
unsigned laneId();
void *dynamicSharedMemory();
void *staticSharedMemory(const void *key, size_t bytes);

/* What `extern __shared__ T name[]` becomes: a pointer to the block's dynamic shared memory. */
struct DynamicShared {
    template <typename T> operator T *() const
    {
        return static_cast<T *>(dynamicSharedMemory());
    }
};

/* What `__shared__ T name` becomes: Holder is a local struct with that one member, so each declaration has its own. */
template <typename Holder> Holder &sharedVariable()
{
    static const char key = 0;
    return *static_cast<Holder *>(staticSharedMemory(&key, sizeof(Holder)));
}

template <typename To, typename From> inline To bitCast(const From &from)
{
    static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

template <typename T> inline uint64_t toWord(T value)
{
    static_assert(sizeof(T) <= 8, "warp builtins move at most 8 bytes");
    uint64_t word = 0;
    memcpy(&word, &value, sizeof value);
    return word;
}

template <typename T> inline T fromWord(uint64_t word)
{
    T value;
    memcpy(&value, &word, sizeof value);
    return value;
}

using Body = std::function<void()>;
using Binder = Body (*)(const void *kernel, void **args);

/* Makes a kernel known, so that the type-erased cudaLaunchKernelExC can call it with copies of its arguments. */
void registerKernel(const void *kernel, Binder binder);

template <typename... Params, size_t... I>
Body bindArguments(void (*kernel)(Params...), void **args, std::index_sequence<I...>)
{
    std::tuple<std::decay_t<Params>...> copies(*static_cast<std::decay_t<Params> *>(args[I])...);
    return [kernel, copies] { std::apply(kernel, copies); };
}

template <typename... Params> Body bindKernel(const void *kernel, [[maybe_unused]] void **args)
{
    return bindArguments(reinterpret_cast<void (*)(Params...)>(const_cast<void *>(kernel)), args,
                         std::index_sequence_for<Params...>());
}

template <typename... Params> void registerTyped(void (*kernel)(Params...))
{
    registerKernel(reinterpret_cast<const void *>(kernel), bindKernel<Params...>);
}

template <typename... Params, typename... Args>
cudaError_t launchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Params...), Args &&...args)
{
    registerTyped(kernel);
    return ::cudaLaunchKernelEx(config, kernel, std::forward<Args>(args)...);
}

template <typename... Params>
cudaError_t launchKernel(void (*kernel)(Params...), dim3 grid, dim3 block, void **args, size_t sharedBytes = 0,
                         cudaStream_t stream = nullptr)
{
    registerTyped(kernel);
    return ::cudaLaunchKernel(kernel, grid, block, args, sharedBytes, stream);
}

} // namespace cudasim

#define cudaLaunchKernelEx cudasim::launchKernelEx
#define cudaLaunchKernel cudasim::launchKernel

/* NVIDIA's typed forms of these are for nvcc alone. */
template <typename... Params>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Params...), cudaFuncAttribute attribute, int value)
{
    return ::cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), attribute, value);
}
template <typename... Params>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, void (*kernel)(Params...))
{
    return ::cudaFuncGetAttributes(attributes, reinterpret_cast<const void *>(kernel));
}
template <typename T>
cudaError_t cudaMemcpyToSymbol(const T &symbol, const void *from, size_t bytes, size_t offset = 0,
                               cudaMemcpyKind kind = cudaMemcpyHostToDevice)
{
    return ::cudaMemcpyToSymbol(static_cast<const void *>(&symbol), from, bytes, offset, kind);
}

/* ---- barriers and fences ---------------------------------------------------------------------------------------- */

inline void __syncthreads(CUDASIM_WHERE)
{
    cudasim::blockBarrier(false, CUDASIM_HERE);
}
inline int __syncthreads_count(int predicate, CUDASIM_WHERE)
{
    return cudasim::blockBarrier(predicate != 0, CUDASIM_HERE);
}
inline int __syncthreads_or(int predicate, CUDASIM_WHERE)
{
    return cudasim::blockBarrier(predicate != 0, CUDASIM_HERE) > 0;
}
inline int __syncthreads_and(int predicate, CUDASIM_WHERE)
{
    return cudasim::blockBarrier(predicate == 0, CUDASIM_HERE) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, CUDASIM_WHERE)
{
    cudasim::warpCollective(cudasim::Collective::Sync, mask, 0, 0, CUDASIM_HERE);
}
inline void __threadfence()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
inline void __threadfence_block()
{
    __threadfence();
}
inline void __threadfence_system()
{
    __threadfence();
}
inline void __nanosleep(unsigned)
{
    cudasim::yieldThread();
}
[[noreturn]] inline void __trap(CUDASIM_WHERE)
{
    cudasim::trap(CUDASIM_HERE);
}

/* ---- warp votes, shuffles, matches, reductions ------------------------------------------------------------------ */

/* Which lanes have converged is nobody's promise: a set of one is always a legal answer. */
inline unsigned __activemask()
{
    return 1u << cudasim::laneId();
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CUDASIM_WHERE)
{
    return unsigned(cudasim::warpCollective(cudasim::Collective::Ballot, mask, predicate != 0, 0, CUDASIM_HERE));
}
inline int __any_sync(unsigned mask, int predicate, CUDASIM_WHERE)
{
    return cudasim::warpCollective(cudasim::Collective::Ballot, mask, predicate != 0, 0, CUDASIM_HERE) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDASIM_WHERE)
{
    return cudasim::warpCollective(cudasim::Collective::Ballot, mask, predicate == 0, 0, CUDASIM_HERE) == 0;
}

template <typename T> inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, CUDASIM_WHERE)
{
    int source = int(cudasim::laneId() & ~unsigned(width - 1)) | (lane & (width - 1));
    return cudasim::fromWord<T>(
        cudasim::warpCollective(cudasim::Collective::Shuffle, mask, cudasim::toWord(value), source, CUDASIM_HERE));
}
template <typename T> inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDASIM_WHERE)
{
    int self = int(cudasim::laneId()), source = self - int(delta);
    if (source < (self & ~(width - 1)))
        source = self;
    return cudasim::fromWord<T>(
        cudasim::warpCollective(cudasim::Collective::Shuffle, mask, cudasim::toWord(value), source, CUDASIM_HERE));
}
template <typename T> inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDASIM_WHERE)
{
    int self = int(cudasim::laneId()), source = self + int(delta);
    if (source > (self | (width - 1)))
        source = self;
    return cudasim::fromWord<T>(
        cudasim::warpCollective(cudasim::Collective::Shuffle, mask, cudasim::toWord(value), source, CUDASIM_HERE));
}
template <typename T> inline T __shfl_xor_sync(unsigned mask, T value, int laneMask, int width = 32, CUDASIM_WHERE)
{
    int self = int(cudasim::laneId()), source = self ^ laneMask;
    if (source > (self | (width - 1)))
        source = self;
    return cudasim::fromWord<T>(
        cudasim::warpCollective(cudasim::Collective::Shuffle, mask, cudasim::toWord(value), source, CUDASIM_HERE));
}

template <typename T> inline unsigned __match_any_sync(unsigned mask, T value, CUDASIM_WHERE)
{
    return unsigned(
        cudasim::warpCollective(cudasim::Collective::MatchAny, mask, cudasim::toWord(value), 0, CUDASIM_HERE));
}
template <typename T> inline unsigned __match_all_sync(unsigned mask, T value, int *same, CUDASIM_WHERE)
{
    *same = __match_any_sync(mask, value, file, line) == mask;
    return *same ? mask : 0;
}

/* Values travel as int64, where the order of int and that of unsigned both hold. */
#define CUDASIM_REDUCE(name, T, what)                                                                                  \
    inline T name(unsigned mask, T value, CUDASIM_WHERE)                                                               \
    {                                                                                                                  \
        return T(cudasim::warpCollective(cudasim::Collective::what, mask, uint64_t(int64_t(value)), 0, CUDASIM_HERE)); \
    }
CUDASIM_REDUCE(__reduce_add_sync, unsigned, Add)
CUDASIM_REDUCE(__reduce_add_sync, int, Add)
CUDASIM_REDUCE(__reduce_min_sync, unsigned, Min)
CUDASIM_REDUCE(__reduce_min_sync, int, Min)
CUDASIM_REDUCE(__reduce_max_sync, unsigned, Max)
CUDASIM_REDUCE(__reduce_max_sync, int, Max)
CUDASIM_REDUCE(__reduce_and_sync, unsigned, And)
CUDASIM_REDUCE(__reduce_or_sync, unsigned, Or)
CUDASIM_REDUCE(__reduce_xor_sync, unsigned, Xor)
#undef CUDASIM_REDUCE

/* ---- atomics: relaxed, as on the device ------------------------------------------------------------------------- */

namespace cudasim
{

/* The second operand is not deduced, so atomicAdd(&unsignedCounter, 1) converts as it does under nvcc. */
template <typename T> struct Identity {
    using type = T;
};
template <typename T> using Same = typename Identity<T>::type;

template <typename T> using Word = std::conditional_t<sizeof(T) == 8, unsigned long long, unsigned>;

/* Replaces *address by update(*address) in one step and returns the old value; floats go through their bits. */
template <typename T, typename Update> inline T atomicUpdate(T *address, Update update)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomics work on 4 or 8 bytes");
    auto *word = reinterpret_cast<Word<T> *>(address);
    Word<T> seen = __atomic_load_n(word, __ATOMIC_RELAXED), wanted;
    do {
        wanted = bitCast<Word<T>>(T(update(bitCast<T>(seen))));
    } while (!__atomic_compare_exchange_n(word, &seen, wanted, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return bitCast<T>(seen);
}

} // namespace cudasim

#define CUDASIM_ATOMIC(name, expression)                                                   \
    template <typename T> inline T name(T *address, cudasim::Same<T> value)                \
    {                                                                                      \
        return cudasim::atomicUpdate(address, [value](T old) -> T { return expression; }); \
    }                                                                                      \
    template <typename T> inline T name##_block(T *address, cudasim::Same<T> value)        \
    {                                                                                      \
        return name(address, value);                                                       \
    }                                                                                      \
    template <typename T> inline T name##_system(T *address, cudasim::Same<T> value)       \
    {                                                                                      \
        return name(address, value);                                                       \
    }
CUDASIM_ATOMIC(atomicAdd, old + value)
CUDASIM_ATOMIC(atomicSub, old - value)
CUDASIM_ATOMIC(atomicMin, value < old ? value : old)
CUDASIM_ATOMIC(atomicMax, value > old ? value : old)
CUDASIM_ATOMIC(atomicAnd, old &value)
CUDASIM_ATOMIC(atomicOr, old | value)
CUDASIM_ATOMIC(atomicXor, old ^ value)
CUDASIM_ATOMIC(atomicExch, ((void)old, value))
CUDASIM_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
CUDASIM_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
#undef CUDASIM_ATOMIC

template <typename T> inline T atomicCAS(T *address, cudasim::Same<T> expected, cudasim::Same<T> wanted)
{
    return cudasim::atomicUpdate(address, [=](T old) -> T { return old == expected ? wanted : old; });
}
template <typename T> inline T atomicCAS_block(T *address, cudasim::Same<T> expected, cudasim::Same<T> wanted)
{
    return atomicCAS(address, expected, wanted);
}

/* ---- loads and stores with a cache hint ------------------------------------------------------------------------- */

#define CUDASIM_LOAD(name)                                \
    template <typename T> inline T name(const T *address) \
    {                                                     \
        return *address;                                  \
    }
CUDASIM_LOAD(__ldg)
CUDASIM_LOAD(__ldca)
CUDASIM_LOAD(__ldcg)
CUDASIM_LOAD(__ldcs)
CUDASIM_LOAD(__ldcv)
CUDASIM_LOAD(__ldlu)
#undef CUDASIM_LOAD

#define CUDASIM_STORE(name)                                                    \
    template <typename T> inline void name(T *address, cudasim::Same<T> value) \
    {                                                                          \
        *address = value;                                                      \
    }
CUDASIM_STORE(__stcg)
CUDASIM_STORE(__stcs)
CUDASIM_STORE(__stwb)
CUDASIM_STORE(__stwt)
#undef CUDASIM_STORE

inline size_t __cvta_generic_to_shared(const void *pointer)
{
    return reinterpret_cast<size_t>(pointer);
}

/* ---- bits and integers ------------------------------------------------------------------------------------------ */

inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
inline int __clz(int x)
{
    return x ? __builtin_clz(unsigned(x)) : 32;
}
inline int __clzll(long long x)
{
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
inline int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}
inline unsigned __brev(unsigned x)
{
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(x);
}
inline unsigned long long __brevll(unsigned long long x)
{
    return (unsigned long long)__brev(unsigned(x)) << 32 | __brev(unsigned(x >> 32));
}
inline unsigned __umulhi(unsigned a, unsigned b)
{
    return unsigned((unsigned long long)a * b >> 32);
}
inline int __mulhi(int a, int b)
{
    return int((long long)a * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift)
{
    return unsigned((((unsigned long long)high << 32 | low) << (shift & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift)
{
    return unsigned(((unsigned long long)high << 32 | low) >> (shift & 31));
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    unsigned long long bytes = (unsigned long long)y << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++)
        result |= unsigned(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    return result;
}
inline unsigned __sad(int x, int y, unsigned z)
{
    return z + unsigned(x > y ? x - y : y - x);
}

/* ---- floating point: each is one correctly rounded operation; compile with -ffp-contract=off --------------------- */

inline int __float_as_int(float x)
{
    return cudasim::bitCast<int>(x);
}
inline unsigned __float_as_uint(float x)
{
    return cudasim::bitCast<unsigned>(x);
}
inline float __int_as_float(int x)
{
    return cudasim::bitCast<float>(x);
}
inline float __uint_as_float(unsigned x)
{
    return cudasim::bitCast<float>(x);
}
inline long long __double_as_longlong(double x)
{
    return cudasim::bitCast<long long>(x);
}
inline double __longlong_as_double(long long x)
{
    return cudasim::bitCast<double>(x);
}
inline int __double2hiint(double x)
{
    return int(__double_as_longlong(x) >> 32);
}
inline int __double2loint(double x)
{
    return int(__double_as_longlong(x));
}
inline double __hiloint2double(int high, int low)
{
    return __longlong_as_double((long long)((unsigned long long)unsigned(high) << 32 | unsigned(low)));
}

inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
inline double __fma_rn(double a, double b, double c)
{
    return fma(a, b, c);
}
inline float __fadd_rn(float a, float b)
{
    return a + b;
}
inline float __fsub_rn(float a, float b)
{
    return a - b;
}
inline float __fmul_rn(float a, float b)
{
    return a * b;
}
inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
inline float __frcp_rn(float a)
{
    return 1.0f / a;
}
inline float __fsqrt_rn(float a)
{
    return sqrtf(a);
}
inline double __dadd_rn(double a, double b)
{
    return a + b;
}
inline double __dsub_rn(double a, double b)
{
    return a - b;
}
inline double __dmul_rn(double a, double b)
{
    return a * b;
}
inline double __ddiv_rn(double a, double b)
{
    return a / b;
}
inline double __drcp_rn(double a)
{
    return 1.0 / a;
}
inline double __dsqrt_rn(double a)
{
    return sqrt(a);
}

namespace cudasim
{

/* Conversions to an integer saturate on the device, and NaN becomes 0 (for 64-bit results, the top bit alone). */
template <typename To, typename From> inline To saturate(From rounded)
{
    if (std::isnan(rounded))
        return sizeof(To) == 8 ? To(1ull << 63) : To(0);
    const double above = std::ldexp(1.0, int(8 * sizeof(To)) - std::is_signed_v<To>);
    const double below = std::is_signed_v<To> ? -above : 0.0;
    if (double(rounded) >= above)
        return std::is_signed_v<To> ? To(~(1ull << (8 * sizeof(To) - 1))) : To(~0ull);
    if (double(rounded) <= below)
        return std::is_signed_v<To> ? To(1ull << (8 * sizeof(To) - 1)) : To(0);
    return To(rounded);
}

} // namespace cudasim

#define CUDASIM_TO_INTEGER(from, From, to, To)           \
    inline To __##from##2##to##_rn(From x)               \
    {                                                    \
        return cudasim::saturate<To>(std::nearbyint(x)); \
    }                                                    \
    inline To __##from##2##to##_rz(From x)               \
    {                                                    \
        return cudasim::saturate<To>(std::trunc(x));     \
    }                                                    \
    inline To __##from##2##to##_ru(From x)               \
    {                                                    \
        return cudasim::saturate<To>(std::ceil(x));      \
    }                                                    \
    inline To __##from##2##to##_rd(From x)               \
    {                                                    \
        return cudasim::saturate<To>(std::floor(x));     \
    }
CUDASIM_TO_INTEGER(float, float, int, int)
CUDASIM_TO_INTEGER(float, float, uint, unsigned)
CUDASIM_TO_INTEGER(float, float, ll, long long)
CUDASIM_TO_INTEGER(float, float, ull, unsigned long long)
CUDASIM_TO_INTEGER(double, double, int, int)
CUDASIM_TO_INTEGER(double, double, uint, unsigned)
CUDASIM_TO_INTEGER(double, double, ll, long long)
CUDASIM_TO_INTEGER(double, double, ull, unsigned long long)
#undef CUDASIM_TO_INTEGER

inline float __int2float_rn(int x)
{
    return float(x);
}
inline float __uint2float_rn(unsigned x)
{
    return float(x);
}
inline float __ll2float_rn(long long x)
{
    return float(x);
}
inline float __ull2float_rn(unsigned long long x)
{
    return float(x);
}
inline double __int2double_rn(int x)
{
    return double(x);
}
inline double __uint2double_rn(unsigned x)
{
    return double(x);
}
inline double __ll2double_rn(long long x)
{
    return double(x);
}
inline double __ull2double_rn(unsigned long long x)
{
    return double(x);
}
inline float __double2float_rn(double x)
{
    return float(x);
}
inline float __saturatef(float x)
{
    return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}

/* nvcc has min and max for every pair of arithmetic types; those of floats ignore a NaN. */
template <typename A, typename B> constexpr std::common_type_t<A, B> min(A a, B b)
{
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>)
        return std::fmin(T(a), T(b));
    else
        return T(b) < T(a) ? T(b) : T(a);
}
template <typename A, typename B> constexpr std::common_type_t<A, B> max(A a, B b)
{
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>)
        return std::fmax(T(a), T(b));
    else
        return T(a) < T(b) ? T(b) : T(a);
}

#endif /* CUDASIM_H */
