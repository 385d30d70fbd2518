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

/*
 * gsReal is what state and sums are made of: float, or double for float64 gradients. A GS_REAL_RULE is a rule over it: in C++ a
 * template, in C a function of the one type that the file is compiled for (double where GS_WIDE is defined).
 */
#ifdef __cplusplus
#define GS_REAL_RULE template <typename gsReal> GS_HD
#else
#ifdef GS_WIDE
typedef double gsReal;
#else
typedef float gsReal;
#endif
#define GS_REAL_RULE GS_HD
#endif

/* Elements of a block: statistics, index coding (12 bits) and chunked selection all count in these. */
#define GS_BLOCK 4096
#define GS_BLOCK_WORDS (GS_BLOCK / 32) /* words of a block's kept bits */

#define GS_F32_INF 0x7f800000u
#define GS_F32_NAN 0x7fc00000u /* the one NaN that results are filled with */
#define GS_F64_NAN 0x7ff8000000000000u
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

GS_REAL_RULE gsReal gsAbs(gsReal x)
{
    return sizeof x == 4 ? (gsReal)fabsf((float)x) : (gsReal)fabs((double)x);
}

/* The sign of `sign` on the magnitude of x. */
GS_REAL_RULE gsReal gsWithSign(gsReal x, gsReal sign)
{
    return sizeof x == 4 ? (gsReal)copysignf((float)x, (float)sign) : (gsReal)copysign((double)x, (double)sign);
}

/* Neither Inf nor NaN: their difference with themselves is NaN. */
GS_REAL_RULE int gsFinite(gsReal x)
{
    return x - x == (gsReal)0;
}

/* float16, in integers alone: no path depends on a processor's conversions. To nearest, ties to even; overflow gives Inf. */
#define GS_F16_INF 0x7c00u
#define GS_F16_NAN 0x7e00u
#define GS_F16_MAX 65504.0f

GS_HD float gsFromF16(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000u) << 16, magnitude = x & 0x7fffu;
    if (magnitude >= GS_F16_INF)
        return gsFloat(sign | GS_F32_INF | (magnitude - GS_F16_INF) << 13);
    if (magnitude >= 0x0400u)
        return gsFloat(sign | ((magnitude << 13) + 0x38000000u));             /* the exponents' biases differ by 112 */
    return gsFloat(sign | gsBits((float)magnitude * 5.9604644775390625e-8f)); /* subnormal: a multiple of 2^-24 */
}

GS_HD uint16_t gsToF16(float x)
{
    uint32_t bits = gsBits(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > GS_F32_INF)
        return GS_F16_NAN;
    if (magnitude >= 0x477ff000u) /* 65520 and more round to Inf */
        return (uint16_t)(sign | GS_F16_INF);
    if (magnitude >= 0x38800000u) /* 2^-14, the smallest normal */
        return (uint16_t)(sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
    /* The sum with 0.5 has 2^-24 as its last bit, so that it rounds as float16 does. */
    return (uint16_t)(sign | (gsBits(gsFloat(magnitude) + 0.5f) - 0x3f000000u));
}

/* Of the 13 bits that do not fit, `random` decides; x finite and normal in float16, or it is rounded among its subnormals. */
GS_HD uint16_t gsToF16Stochastic(float x, uint32_t random)
{
    uint32_t bits = gsBits(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu, steps;
    float scaled, below;
    if (magnitude >= 0x477fe000u)
        return (uint16_t)(sign | 0x7bffu);
    if (magnitude >= 0x38800000u)
        return (uint16_t)(sign | (magnitude - 0x38000000u + (random >> 19)) >> 13);
    scaled = gsFloat(magnitude) * 16777216.0f; /* in steps of 2^-24 */
    below = floorf(scaled);
    steps = (uint32_t)below + ((float)(random >> 8) * 5.9604644775390625e-8f < scaled - below);
    return (uint16_t)(sign | steps);
}

/* For values on the wire with feedback: overflow taken back to the largest finite value. */
GS_HD uint16_t gsToF16Value(float x)
{
    uint16_t y = gsToF16(x);
    return (y & 0x7fffu) == GS_F16_INF ? (uint16_t)(y - 1) : y;
}

/* x finite or overflowed by a gain; the wire holds finite values only. */
GS_HD float gsSaturate(float x)
{
    return gsIsFinite(x) ? x : copysignf(3.40282347e38f, x);
}

#endif
