/*
 * What a CTA does with a block of 4096 elements: wide loads and stores, sums, kept bits and their list.
 *
 * Thread t = 32 warp + lane of GS_CTA holds four quads; quad v is the elements 512 warp + 128 v + 4 lane .. + 3. So
 * each load of a warp is one run of 128 elements, and the elements of a warp are consecutive. float32 moves 16 bytes
 * a thread at a time, float64 twice 16; a gradient of two bytes an element moves 8, because its residuals, 16, must stay
 * consecutive too.
 */
#ifndef GS_BLOCK_CUH
#define GS_BLOCK_CUH

#include "rules/call.h"
#include "tuning.cuh"

#define GS_ALL_LANES 0xffffffffu

/* Elements of two bytes; float and double stand for themselves. */
struct gsBf16 {
    uint16_t bits;
};

struct gsF16 {
    uint16_t bits;
};

/* Four doubles move as two accesses of 16 bytes. */
struct gsDouble4 {
    double2 low, high;
};

/* An element type: the Real that state and sums are made of, and four neighbours as the hardware moves them. */
template <typename T> struct gsVector;

template <> struct gsVector<float> {
    using Real = float;
    using Type = float4;
    static __device__ __forceinline__ void unpack(float4 v, float *x)
    {
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    }
    static __device__ __forceinline__ float4 pack(const float *x)
    {
        return make_float4(x[0], x[1], x[2], x[3]);
    }
    static __device__ __forceinline__ float to(float x)
    {
        return x;
    }
    static __device__ __forceinline__ float from(float x)
    {
        return x;
    }
    static __device__ __forceinline__ float nan()
    {
        return gsFloat(GS_F32_NAN);
    }
};

template <> struct gsVector<double> {
    using Real = double;
    using Type = gsDouble4;
    static __device__ __forceinline__ void unpack(const gsDouble4 &v, double *x)
    {
        x[0] = v.low.x, x[1] = v.low.y, x[2] = v.high.x, x[3] = v.high.y;
    }
    static __device__ __forceinline__ gsDouble4 pack(const double *x)
    {
        return {make_double2(x[0], x[1]), make_double2(x[2], x[3])};
    }
    static __device__ __forceinline__ double to(double x)
    {
        return x;
    }
    static __device__ __forceinline__ double from(double x)
    {
        return x;
    }
    static __device__ __forceinline__ double nan()
    {
        return __longlong_as_double((long long)GS_F64_NAN);
    }
};

template <> struct gsVector<gsBf16> {
    using Real = float;
    using Type = ushort4;
    static __device__ __forceinline__ void unpack(ushort4 v, float *x)
    {
        x[0] = gsFromBf16(v.x), x[1] = gsFromBf16(v.y), x[2] = gsFromBf16(v.z), x[3] = gsFromBf16(v.w);
    }
    static __device__ __forceinline__ ushort4 pack(const float *x)
    {
        return make_ushort4(gsToBf16(x[0]), gsToBf16(x[1]), gsToBf16(x[2]), gsToBf16(x[3]));
    }
    static __device__ __forceinline__ float to(gsBf16 x)
    {
        return gsFromBf16(x.bits);
    }
    static __device__ __forceinline__ gsBf16 from(float x)
    {
        return {gsToBf16(x)};
    }
    static __device__ __forceinline__ gsBf16 nan()
    {
        return {GS_BF16_NAN};
    }
};

template <> struct gsVector<gsF16> {
    using Real = float;
    using Type = ushort4;
    static __device__ __forceinline__ void unpack(ushort4 v, float *x)
    {
        x[0] = gsFromF16(v.x), x[1] = gsFromF16(v.y), x[2] = gsFromF16(v.z), x[3] = gsFromF16(v.w);
    }
    static __device__ __forceinline__ ushort4 pack(const float *x)
    {
        return make_ushort4(gsToF16(x[0]), gsToF16(x[1]), gsToF16(x[2]), gsToF16(x[3]));
    }
    static __device__ __forceinline__ float to(gsF16 x)
    {
        return gsFromF16(x.bits);
    }
    static __device__ __forceinline__ gsF16 from(float x)
    {
        return {gsToF16(x)};
    }
    static __device__ __forceinline__ gsF16 nan()
    {
        return {GS_F16_NAN};
    }
};

template <typename T> using gsRealOf = typename gsVector<T>::Real;

/* The bits of a magnitude: their order is that of the magnitudes. */
__device__ __forceinline__ uint32_t gsKeyOf(float x)
{
    return gsMagnitudeBits(x);
}

__device__ __forceinline__ uint64_t gsKeyOf(double x)
{
    return (uint64_t)__double_as_longlong(x) & 0x7fffffffffffffffu;
}

__device__ __forceinline__ unsigned gsLane()
{
    return threadIdx.x % 32;
}

__device__ __forceinline__ unsigned gsWarp()
{
    return threadIdx.x / 32;
}

/* The place, inside a block, of this thread's quad v. */
__device__ __forceinline__ unsigned gsQuadAt(unsigned v)
{
    return gsWarp() * (GS_BLOCK / GS_WARPS) + v * 128 + gsLane() * 4;
}

/* Block b of a vector, or of a list, whose tensors' addresses are then what `base` points to. */
template <typename T> __device__ __forceinline__ T *gsBlockOf(const gsListBlock *list, void *base, uint64_t b)
{
    if (!list)
        return (T *)base + b * GS_BLOCK;
    return ((T *const *)base)[list[b].tensor] + list[b].offset;
}

template <typename T>
__device__ __forceinline__ const T *gsBlockOf(const gsListBlock *list, const void *base, uint64_t b)
{
    return gsBlockOf<T>(list, const_cast<void *>(base), b);
}

/* Four neighbours as one store: an assignment of their type becomes four where the compiler has lost sight of the vector they go to, and
 * four stores touch each sector of a warp's run four times. */
__device__ __forceinline__ void gsStoreWhole(float4 *to, float4 x)
{
    __stwb(to, x);
}

__device__ __forceinline__ void gsStoreWhole(gsDouble4 *to, gsDouble4 x)
{
    __stwb(&to->low, x.low);
    __stwb(&to->high, x.high);
}

__device__ __forceinline__ void gsStoreWhole(ushort4 *to, ushort4 x)
{
    __stwb(to, x);
}

/* Whether a whole block may move four elements at a time. Alike for all blocks of a vector but the last. */
template <typename T> __device__ __forceinline__ bool gsIsWide(const T *block, unsigned length)
{
    constexpr uintptr_t each = sizeof(typename gsVector<T>::Type) < 16 ? sizeof(typename gsVector<T>::Type) : 16;
    return length == GS_BLOCK && (uintptr_t)block % each == 0;
}

/* Four neighbours of a block from place `at` on, zeros beyond its end. */
template <typename T>
__device__ __forceinline__ void gsLoadQuad(const T *block, unsigned at, unsigned length, bool wide, gsRealOf<T> *x)
{
    using Vector = gsVector<T>;
    if (wide) {
        Vector::unpack(*(const typename Vector::Type *)(block + at), x);
        return;
    }
#pragma unroll
    for (unsigned c = 0; c < 4; c++)
        x[c] = at + c < length ? Vector::to(block[at + c]) : (gsRealOf<T>)0;
}

template <typename T>
__device__ __forceinline__ void gsStoreQuad(T *block, unsigned at, unsigned length, bool wide, const gsRealOf<T> *x)
{
    using Vector = gsVector<T>;
    if (wide) {
        gsStoreWhole((typename Vector::Type *)(block + at), Vector::pack(x));
        return;
    }
#pragma unroll
    for (unsigned c = 0; c < 4; c++)
        if (at + c < length)
            block[at + c] = Vector::from(x[c]);
}

/* Four neighbours of a vector of the state: those are whole blocks, aligned. */
template <typename Real> __device__ __forceinline__ void gsLoadState(const Real *quad, Real *x)
{
    gsVector<Real>::unpack(*(const typename gsVector<Real>::Type *)quad, x);
}

template <typename Real> __device__ __forceinline__ void gsStoreState(Real *quad, const Real *x)
{
    gsStoreWhole((typename gsVector<Real>::Type *)quad, gsVector<Real>::pack(x));
}

/* Likewise, in shared memory. */
template <typename Real> __device__ __forceinline__ void gsStoreStaged(Real *quad, const Real *x)
{
    *(typename gsVector<Real>::Type *)quad = gsVector<Real>::pack(x);
}

/* This thread's 16 elements of a block, zeros beyond its end. All loads are issued before the first is used. */
template <typename T> __device__ __forceinline__ void gsLoadTile(const T *block, unsigned length, gsRealOf<T> *x)
{
    using Vector = gsVector<T>;
    if (gsIsWide(block, length)) {
        typename Vector::Type raw[GS_QUADS];
#pragma unroll
        for (unsigned v = 0; v < GS_QUADS; v++)
            raw[v] = *(const typename Vector::Type *)(block + gsQuadAt(v));
#pragma unroll
        for (unsigned v = 0; v < GS_QUADS; v++)
            Vector::unpack(raw[v], x + 4 * v);
        return;
    }
#pragma unroll
    for (unsigned v = 0; v < GS_QUADS; v++)
        gsLoadQuad(block, gsQuadAt(v), length, false, x + 4 * v);
}

template <typename T> __device__ __forceinline__ void gsStoreTile(T *block, unsigned length, const gsRealOf<T> *x)
{
    if (gsIsWide(block, length)) {
#pragma unroll
        for (unsigned v = 0; v < GS_QUADS; v++)
            gsStoreQuad(block, gsQuadAt(v), length, true, x + 4 * v);
        return;
    }
#pragma unroll
    for (unsigned v = 0; v < GS_QUADS; v++)
        gsStoreQuad(block, gsQuadAt(v), length, false, x + 4 * v);
}

/* Which of this thread's 16 elements a block of `length` has, as bits. */
__device__ __forceinline__ uint32_t gsPresent(unsigned length)
{
    uint32_t present = 0;
    if (length == GS_BLOCK)
        return 0xffffu;
#pragma unroll
    for (unsigned i = 0; i < 4 * GS_QUADS; i++)
        present |= (uint32_t)(gsQuadAt(i / 4) + i % 4 < length) << i;
    return present;
}

/* Adds over the threads of a CTA. Two rows of partial sums take turns, so that one barrier a sum is enough. */
class gsCtaSum
{
  public:
    __device__ explicit gsCtaSum(uint32_t (*partial)[GS_WARPS]) : partial_(partial), turn_(0)
    {
    }

    __device__ __forceinline__ uint32_t operator()(uint32_t x)
    {
        uint32_t *row = partial_[turn_], sum = 0;
        turn_ ^= 1u;
        x = __reduce_add_sync(GS_ALL_LANES, x);
        if (gsLane() == 0)
            row[gsWarp()] = x;
        __syncthreads();
#pragma unroll
        for (unsigned w = 0; w < GS_WARPS; w++)
            sum += row[w];
        return sum;
    }

  private:
    uint32_t (*partial_)[GS_WARPS];
    unsigned turn_;
};

/* Sum of x over a warp's lanes, in every lane; the same bits as folding 16, 8, 4, 2, 1. */
template <typename T> __device__ __forceinline__ T gsWarpSum(T x)
{
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
        x += __shfl_xor_sync(GS_ALL_LANES, x, offset);
    return x;
}

/* x of all threads of the CTA before this one, summed; warpSum has room for a number a warp. Ends behind a barrier. */
__device__ __forceinline__ uint64_t gsSumBefore(uint64_t x, uint64_t *warpSum)
{
    uint64_t upTo = x, before = 0;
    for (unsigned offset = 1; offset < 32; offset *= 2) {
        const uint64_t lower = __shfl_up_sync(GS_ALL_LANES, upTo, offset);
        upTo += gsLane() >= offset ? lower : 0;
    }
    if (gsLane() == 31)
        warpSum[gsWarp()] = upTo;
    __syncthreads();
    for (unsigned w = 0; w < gsWarp(); w++)
        before += warpSum[w];
    return before + upTo - x;
}

/* Elements that a warp stages in shared memory at a time, to sum them in the contract's order; and where there is less room. */
constexpr unsigned GS_PART = GS_BLOCK / GS_WARPS;
constexpr unsigned GS_SMALL_PART = 128;

/*
 * A warp over a block, PART elements at a time: load(at, quad) fills four neighbours from place `at` on, zeros beyond the
 * block's end; lane l then gets those at l mod 32 in index order as add(x, at). Loads stay wide, sums keep the fixed tree's
 * order.
 */
template <typename Real, unsigned PART = GS_PART, typename Load, typename Add>
__device__ __forceinline__ void gsOverLanes(Real *staged, Load load, Add add)
{
    constexpr unsigned QUADS = PART / 128;
#pragma unroll 1
    for (unsigned part = 0; part < GS_BLOCK; part += PART) {
        Real x[4 * QUADS];
#pragma unroll
        for (unsigned v = 0; v < QUADS; v++)
            load(part + v * 128 + gsLane() * 4, x + 4 * v);
#pragma unroll
        for (unsigned v = 0; v < QUADS; v++)
            gsStoreStaged(staged + v * 128 + gsLane() * 4, x + 4 * v);
        __syncwarp();
#pragma unroll 4
        for (unsigned j = 0; j < PART / 32; j++)
            add(staged[j * 32 + gsLane()], part + j * 32 + gsLane());
        __syncwarp();
    }
}

/* The fixed tree over a block that stands in shared memory, by one warp; what(x) of each element is added. */
template <typename Real, typename What> __device__ __forceinline__ double gsTreeOf(const Real *tile, What what)
{
    double sum = 0.0;
#pragma unroll 8
    for (unsigned j = 0; j < GS_BLOCK / 32; j++)
        sum += what(tile[j * 32 + gsLane()]);
    return gsWarpSum(sum);
}

/* Writes a block's kept bits, of which this thread holds 16. Eight lanes share a word of 32 elements; the word of
 * quad v is put together in all eight and kept by the v-th, so that half of the lanes store, 64 consecutive bytes
 * a warp. */
__device__ __forceinline__ void gsStoreKept(uint32_t *words, uint32_t kept)
{
    uint32_t mine = 0;
#pragma unroll
    for (unsigned v = 0; v < GS_QUADS; v++) {
        uint32_t word = (kept >> (4 * v) & 15u) << (4 * (gsLane() % 8));
        word |= __shfl_xor_sync(GS_ALL_LANES, word, 1);
        word |= __shfl_xor_sync(GS_ALL_LANES, word, 2);
        word |= __shfl_xor_sync(GS_ALL_LANES, word, 4);
        if (gsLane() % 8 == v)
            mine = word;
    }
    if (gsLane() % 8 < GS_QUADS)
        words[gsWarp() * (GS_BLOCK_WORDS / GS_WARPS) + 4 * (gsLane() % 8) + gsLane() / 8] = mine;
}

/*
 * A block's kept coordinates as a list of their places: group 0 in index order, then group 1. Word t of each group is
 * in thread t < GS_BLOCK_WORDS; warpKept has room for a number a warp. Returns both groups' lengths, 16 bits each: a
 * sum of two such pairs never carries, since a block has 4096 elements. Ends behind a barrier.
 */
template <typename Place>
__device__ __forceinline__ uint32_t gsListKept(Place *list, uint32_t *warpKept, uint32_t word0, uint32_t word1)
{
    uint32_t own = (uint32_t)__popc(word0) | (uint32_t)__popc(word1) << 16, before = own, total = 0;
    for (unsigned offset = 1; offset < 32; offset *= 2) {
        uint32_t lower = __shfl_up_sync(GS_ALL_LANES, before, offset);
        before += gsLane() >= offset ? lower : 0;
    }
    if (gsLane() == 31)
        warpKept[gsWarp()] = before;
    before -= own;
    __syncthreads();
    for (unsigned w = 0; w < blockDim.x / 32; w++) {
        before += w < gsWarp() ? warpKept[w] : 0;
        total += warpKept[w];
    }
    Place *place0 = list + (before & 0xffffu), *place1 = list + (total & 0xffffu) + (before >> 16);
    for (; word0; word0 &= word0 - 1)
        *place0++ = (Place)(threadIdx.x * 32 + (unsigned)__ffs((int)word0) - 1);
    for (; word1; word1 &= word1 - 1)
        *place1++ = (Place)(threadIdx.x * 32 + (unsigned)__ffs((int)word1) - 1);
    __syncthreads();
    return total;
}

#endif
