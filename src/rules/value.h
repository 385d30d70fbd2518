/*
 * How a value is coded, one at a time: gradient units -> code -> what every rank decodes. The sender uses the decoded value, by
 * the same functions as the receivers.
 *
 *   sign     scaled sign (Seide et al. 2014; Karimireddy et al. 2019): the block's mean |a| with a's sign, sign(0) = +
 *   ternary  W. Wen et al., "TernGrad", NeurIPS 2017: +-max|a| with probability |a|/max|a|, else 0
 *   levels   D. Alistarh et al., "QSGD", NeurIPS 2017: |a|_2 l/s, l = floor(s |a_i| / |a|_2 + u)
 *   grid     J. Sun, T. Chen, G. Giannakis, Z. Yang, "LAQ", NeurIPS 2019, (5): the nearest of levels + 1 points from -max|a| to max|a|
 *   2bit     the codebook of SparseLoCo's kind: a block's survivors in four bins of 1.5 standard deviations about their mean, each
 *            decoded as the mean of its bin
 *   natural  S. Horvath et al., "Natural compression", 2019: a power of two at |a|, the upper with probability mantissa / 2^23
 */
#ifndef GS_RULES_VALUE_H
#define GS_RULES_VALUE_H

#include "../wire.h"
#include "philox.h"

/* ---- plain numbers ---- */

/* To float32 without bias: the two neighbours of x, the farther with the probability of its share. x is finite. */
GS_HD float gsToF32Stochastic(double x, uint32_t random)
{
    float near = gsSaturate((float)x), other;
    double gap;
    if ((double)near == x || gsMagnitudeBits(near) >= 0x7f7fffffu)
        return near;
    /* The neighbour on x's other side; a near of 0 has x's sign. */
    other = gsFloat(gsBits(near) + ((fabs(x) > fabs((double)near)) ? 1u : ~0u));
    gap = fabs(x - (double)near) / fabs((double)other - (double)near);
    return (double)random * 2.3283064365386963e-10 < gap ? other : near;
}

/* x as the float32 that a coding narrower than that begins with. */
GS_REAL_RULE float gsNarrow(gsReal x, uint32_t random, int stochastic)
{
    if (sizeof x == 4 || !stochastic)
        return gsSaturate((float)x);
    return gsToF32Stochastic((double)x, random);
}

/* What float16 values are multiplied by before coding: the power of two that brings `largest` to [2^14, 2^15), so that rounding
 * stays below the largest float16. 1 where there is nothing. */
GS_HD float gsF16Scale(double largest)
{
    float x = gsSaturate((float)largest);
    int exponent = (int)(gsBits(x) >> 23) - 127; /* of the smallest normal, at least */
    if (!(largest > 0.0))
        return 1.0f;
    exponent = 14 - exponent;
    if (exponent > 126)
        exponent = 126;
    if (exponent < -126)
        exponent = -126;
    return gsFloat((uint32_t)(exponent + 127) << 23);
}

/* ---- scaled codings: `scale` is the block's, or the vector's ---- */

/* The double that comes out of a tree, as the float32 that travels; rounded up, so that |a| / scale stays at most 1. */
GS_HD float gsScaleUp(double x)
{
    float scale = gsSaturate((float)x);
    if ((double)scale < x && gsMagnitudeBits(scale) < 0x7f7fffffu)
        scale = gsFloat(gsBits(scale) + 1u);
    return scale;
}

GS_REAL_RULE uint32_t gsSignCode(gsReal a)
{
    return a < (gsReal)0;
}

/* Without a branch: signs are as good as random. A scale of 0 decodes to +0. */
GS_HD float gsSignDecode(uint32_t code, float scale)
{
    return gsFloat(gsBits(scale) | (code & (uint32_t)(scale > 0.0f)) << 31);
}

/* 0: zero, 1: plus, 2: minus. */
GS_REAL_RULE uint32_t gsTernaryCode(gsReal a, float scale, uint32_t word)
{
    double p = scale > 0.0f ? (double)gsAbs(a) / (double)scale : 0.0;
    return p >= 1.0 || (double)word < p * 4294967296.0 ? (a < (gsReal)0 ? 2u : 1u) : 0u;
}

GS_HD float gsTernaryDecode(uint32_t code, float scale)
{
    return code == 1u ? scale : code == 2u ? -scale : 0.0f;
}

/* Level l in 0..s, and the sign in the bit above: code = l | sign << bits - 1. */
GS_REAL_RULE uint32_t gsLevelCode(gsReal a, float scale, uint32_t levels, uint32_t bits, uint32_t word)
{
    double x = scale > 0.0f ? (double)gsAbs(a) / (double)scale * (double)levels : 0.0;
    uint32_t level = levels; /* and no more: |a| = scale, or beyond a scale that float32 ends at */
    if (x < (double)levels)
        level = (uint32_t)(x + (double)word * 2.3283064365386963e-10);
    return level ? level | (uint32_t)(a < (gsReal)0) << (bits - 1u) : 0u;
}

GS_HD float gsLevelDecode(uint32_t code, float scale, uint32_t levels, uint32_t bits)
{
    float magnitude = (float)((double)scale * ((double)(code & ((1u << (bits - 1u)) - 1u)) / (double)levels));
    return gsFloat(gsBits(magnitude) | code >> (bits - 1u) << 31);
}

/* Points 0..levels; half a step is scale / levels, and no a is farther than that from its point. */
GS_REAL_RULE uint32_t gsGridCode(gsReal a, float scale, uint32_t levels)
{
    double x = scale > 0.0f ? ((double)a / (double)scale + 1.0) * 0.5 * (double)levels + 0.5 : 0.0;
    if (x >= (double)levels)
        return levels;
    return x > 0.0 ? (uint32_t)x : 0u;
}

GS_HD float gsGridDecode(uint32_t code, float scale, uint32_t levels)
{
    return (float)((double)scale * (2.0 * (double)code / (double)levels - 1.0));
}

/* The bin of a value; `width` of a bin is 1.5 standard deviations. */
GS_REAL_RULE uint32_t gsBookCode(gsReal v, double mean, double width)
{
    double x = width > 0.0 ? ((double)v - mean) / width : 0.0;
    return x < -1.0 ? 0u : x < 0.0 ? 1u : x < 1.0 ? 2u : 3u;
}

/* Nine bits: the sign above the exponent of a float32 power of two; exponent 0 is zero. The mantissa's bits against the draw's
 * upper 23 decide. */
GS_REAL_RULE uint32_t gsNaturalCode(gsReal a, uint32_t word)
{
    float x = gsNarrow(a, word << 23, 1); /* the nine bits that the rounding below does not look at */
    uint32_t magnitude = gsMagnitudeBits(x), sign = gsBits(x) >> 31, exponent = magnitude >> 23;
    exponent += (magnitude & 0x7fffffu) > word >> 9;
    if (exponent > 254u) /* Inf is no power of two */
        exponent = 254u;
    return exponent ? exponent | sign << 8 : 0u;
}

GS_HD float gsNaturalDecode(uint32_t code)
{
    return gsFloat((code & 0xffu) << 23 | (code >> 8) << 31);
}

/* ---- a number's code of 16 bits ---- */

/* Of a draw, the upper half rounds to 16 bits and the lower half, from float64, to 32 before. */
GS_REAL_RULE uint16_t gsHalfCode(uint32_t value, gsReal x, float scale, uint32_t word, int stochastic)
{
    float narrow = gsNarrow(x, word << 16, stochastic);
    if (value == GS_VALUE_BF16)
        return stochastic ? gsToBf16Stochastic(narrow, word) : gsToBf16Value(narrow);
    narrow = narrow * scale;
    return stochastic ? gsToF16Stochastic(narrow, word) : gsToF16Value(narrow);
}

/* scale: a power of two, so that its inverse is exact. */
GS_HD float gsHalfDecode(uint32_t value, uint16_t code, float scale)
{
    return value == GS_VALUE_BF16 ? gsFromBf16(code) : gsFromF16(code) * (1.0f / scale);
}

#endif
