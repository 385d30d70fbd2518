/* Values to codes and back, by slot and by place: the same functions for the sender and for every rank. */
#ifndef GS_CODEC_CUH
#define GS_CODEC_CUH

#include "block.cuh"

/* How the values of one group of one record are coded. */
struct gsCoding {
    uint32_t value, bits, levels, stochastic;
    float scale; /* float16's; the block's, or of all values */
};

__device__ __forceinline__ gsCoding gsCodingOf(const gsSpec &spec, float scale)
{
    gsCoding c;
    c.value = spec.value;
    c.bits = spec.layout == GS_LAYOUT_ALL    ? spec.aux & 0xffu
             : spec.value == GS_VALUE_LEVELS ? 8
                                             : gsValueBits(spec.value, 0);
    c.levels = spec.levels;
    c.stochastic = spec.random;
    c.scale = scale;
    return c;
}

/* Of tensors that travel whole. */
__device__ __forceinline__ gsCoding gsWholeCodingOf(const gsSpec &spec, float scale)
{
    gsCoding c;
    c.value = spec.wholeValue;
    c.bits = gsValueBits(spec.wholeValue, 0);
    c.levels = 0;
    c.stochastic = spec.random;
    c.scale = scale;
    return c;
}

/* Plain numbers have slots; other codes of layout "all" stand bit by bit, the first in the lowest bits. */
__device__ __forceinline__ bool gsHasSlots(uint32_t value)
{
    return value == GS_VALUE_F64 || value == GS_VALUE_F32 || value == GS_VALUE_BF16 || value == GS_VALUE_F16;
}

template <typename Real>
__device__ __forceinline__ void gsPutSlot(const gsCoding &c, uint8_t *values, uint64_t slot, Real x, uint32_t word)
{
    switch (c.value) {
    case GS_VALUE_F64: ((double *)values)[slot] = (double)x; break;
    case GS_VALUE_BF16:
    case GS_VALUE_F16: ((uint16_t *)values)[slot] = gsHalfCode(c.value, x, c.scale, word, (int)c.stochastic); break;
    case GS_VALUE_LEVELS: values[slot] = (uint8_t)gsLevelCode(x, c.scale, c.levels, c.bits, word); break;
    default: ((float *)values)[slot] = gsNarrow(x, word, (int)c.stochastic); break;
    }
}

template <typename Real>
__device__ __forceinline__ Real gsGetSlot(const gsCoding &c, const uint8_t *values, uint64_t slot)
{
    switch (c.value) {
    case GS_VALUE_F64: return (Real)((const double *)values)[slot];
    case GS_VALUE_BF16:
    case GS_VALUE_F16: return (Real)gsHalfDecode(c.value, ((const uint16_t *)values)[slot], c.scale);
    case GS_VALUE_LEVELS: return (Real)gsLevelDecode(values[slot], c.scale, c.levels, c.bits);
    default: return (Real)((const float *)values)[slot];
    }
}

/* Four neighbours' slots, 16 bytes or a part of them at a time; `slot` is a multiple of four and the section aligned. */
template <typename Real>
__device__ __forceinline__ void gsGetFourSlots(const gsCoding &c, const uint8_t *values, uint64_t slot, Real *x)
{
    if (c.value == GS_VALUE_F64) {
        double wide[4];
        gsLoadState((const double *)values + slot, wide);
#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            x[i] = (Real)wide[i];
    } else if (c.value == GS_VALUE_F32) {
        float narrow[4];
        gsLoadState((const float *)values + slot, narrow);
#pragma unroll
        for (unsigned i = 0; i < 4; i++)
            x[i] = (Real)narrow[i];
    } else {
        const ushort4 half = *(const ushort4 *)((const uint16_t *)values + slot);
        x[0] = (Real)gsHalfDecode(c.value, half.x, c.scale), x[1] = (Real)gsHalfDecode(c.value, half.y, c.scale);
        x[2] = (Real)gsHalfDecode(c.value, half.z, c.scale), x[3] = (Real)gsHalfDecode(c.value, half.w, c.scale);
    }
}

template <typename Real> __device__ __forceinline__ uint32_t gsCodeOf(const gsCoding &c, Real a, uint32_t word)
{
    switch (c.value) {
    case GS_VALUE_SIGN: return gsSignCode(a);
    case GS_VALUE_TERNARY: return gsTernaryCode(a, c.scale, word);
    case GS_VALUE_LEVELS: return gsLevelCode(a, c.scale, c.levels, c.bits, word);
    case GS_VALUE_GRID: return gsGridCode(a, c.scale, c.levels);
    default: return gsNaturalCode(a, word);
    }
}

__device__ __forceinline__ float gsDecodeOf(const gsCoding &c, uint32_t code)
{
    switch (c.value) {
    case GS_VALUE_SIGN: return gsSignDecode(code, c.scale);
    case GS_VALUE_TERNARY: return gsTernaryDecode(code, c.scale);
    case GS_VALUE_LEVELS: return gsLevelDecode(code, c.scale, c.levels, c.bits);
    case GS_VALUE_GRID: return gsGridDecode(code, c.scale, c.levels);
    default: return gsNaturalDecode(code);
    }
}

/* The codes of the four elements from place `at` on of a block whose codes begin at `words`, `bits` each and at most nine: they
 * lie in two words, of which the second is read only where they reach into it. */
__device__ __forceinline__ uint64_t gsFourCodes(const uint32_t *words, unsigned at, uint32_t bits)
{
    const uint32_t first = at * bits, shift = first % 32;
    uint64_t window = words[first / 32];
    if (shift + 4 * bits > 32)
        window |= (uint64_t)words[first / 32 + 1] << 32;
    return window >> shift;
}

#endif
