/* Numbers as every backend sees them: GS_HD, bit views, bfloat16. Compiled by the C compiler and by nvcc. */
#ifndef GS_RULES_NUMERIC_H
#define GS_RULES_NUMERIC_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define GS_HD __host__ __device__ static __forceinline__
#else
#define GS_HD static inline __attribute__((always_inline, unused))
#endif

/* Elements of a block: statistics, index coding (12 bits) and chunked selection all count in these. */
#define GS_BLOCK 4096
#define GS_BLOCK_WORDS (GS_BLOCK / 32) /* words of a block's kept bits */

#define GS_F32_INF 0x7f800000u
#define GS_F32_NAN 0x7fc00000u /* the one NaN that results are filled with */
#define GS_BF16_INF 0x7f80u
#define GS_BF16_NAN 0x7fc0u

GS_HD uint32_t gsBits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

GS_HD float gsFloat(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* |x| as an integer: ordered like the magnitudes, NaN above Inf. */
GS_HD uint32_t gsMagnitudeBits(float x)
{
    return gsBits(x) & 0x7fffffffu;
}

GS_HD int gsIsFinite(float x)
{
    return gsMagnitudeBits(x) < GS_F32_INF;
}

GS_HD float gsFromBf16(uint16_t x)
{
    return gsFloat((uint32_t)x << 16);
}

/* To nearest, ties to even; overflow gives Inf, any NaN gives GS_BF16_NAN. For results. */
GS_HD uint16_t gsToBf16(float x)
{
    uint32_t bits = gsBits(x);
    if ((bits & 0x7fffffffu) > GS_F32_INF)
        return GS_BF16_NAN;
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* Overflow to Inf taken back to the largest finite value, so that the decoded value is always finite. */
GS_HD uint16_t gsBf16Saturate(uint16_t x)
{
    return (x & 0x7fffu) == GS_BF16_INF ? (uint16_t)(x - 1) : x;
}

/* For values on the wire with feedback. x finite. x - decoded is exact in float32: it has at most 17 significant bits. */
GS_HD uint16_t gsToBf16Value(float x)
{
    uint32_t bits = gsBits(x);
    return gsBf16Saturate((uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16));
}

/* For values on the wire without feedback: the mean over the 16 random bits is x. x finite. */
GS_HD uint16_t gsToBf16Stochastic(float x, uint32_t random)
{
    return gsBf16Saturate((uint16_t)((gsBits(x) + (random >> 16)) >> 16));
}

/* x finite or overflowed by a gain; the wire holds finite values only. */
GS_HD float gsSaturate(float x)
{
    return gsIsFinite(x) ? x : copysignf(3.40282347e38f, x);
}

#endif
