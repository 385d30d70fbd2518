/* dtype.c: the table of types; 16-bit floats by their bits, for compilers that have no such types. */
#include "dtype.h"

#include "options.h"

#include <math.h>
#include <string.h>

static uint32_t bitsOf(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float floatOf(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint16_t narrowBfloat(float value)
{
    uint32_t bits = bitsOf(value);
    if (isnan(value))
        return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* Below 2^-14 a half has steps of 2^-24, as a float has from 0.5 to 1: adding 0.5 rounds to them. */
static uint16_t narrowHalf(float value)
{
    uint32_t sign = bitsOf(value) >> 16 & 0x8000, bits = bitsOf(value) & 0x7FFFFFFF;
    if (isnan(value))
        return (uint16_t)(sign | 0x7E00);
    if (bits >= 0x47800000) /* 2^16 */
        return (uint16_t)(sign | 0x7C00);
    if (bits < 0x38800000) /* 2^-14 */
        return (uint16_t)(sign | (bitsOf(floatOf(bits) + 0.5f) - bitsOf(0.5f)));
    bits -= (127 - 15) << 23;
    return (uint16_t)(sign | (bits + 0xFFF + (bits >> 13 & 1)) >> 13);
}

/* Scaling by 2^112 moves the exponent from a half's bias to a float's, subnormal numbers too. */
static float widenHalf(uint16_t narrow)
{
    uint32_t sign = (uint32_t)(narrow & 0x8000) << 16, bits = (uint32_t)(narrow & 0x7FFF) << 13;
    if (bits >= 0x7C00u << 13)
        return floatOf(sign | 0x7F800000 | bits);
    return floatOf(sign | bitsOf(floatOf(bits) * 0x1p112f));
}

static void narrowBfloats(const float *from, uint16_t *to, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] = narrowBfloat(from[i]);
}

static void widenBfloats(const uint16_t *from, float *to, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] = floatOf((uint32_t)from[i] << 16);
}

static void narrowHalves(const float *from, uint16_t *to, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] = narrowHalf(from[i]);
}

static void widenHalves(const uint16_t *from, float *to, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] = widenHalf(from[i]);
}

static const dtype_t dtypes[] = {
    [DTYPE_F32] = {GS_FLOAT32, GS_FLOAT32, sizeof(float), NULL, NULL},
    [DTYPE_BF16] = {GS_BFLOAT16, GS_FLOAT32, sizeof(float), narrowBfloats, widenBfloats},
    [DTYPE_F16] = {GS_FLOAT16, GS_FLOAT32, sizeof(float), narrowHalves, widenHalves},
    [DTYPE_F64] = {GS_FLOAT64, GS_FLOAT64, sizeof(double), NULL, NULL},
};

const dtype_t *dtypeOf(int dtype)
{
    return &dtypes[dtype];
}
