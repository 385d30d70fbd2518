/* Values to codes and back, by slot (sparse records) and by block (layout "all"): the same functions for the sender and for every rank. */
#ifndef GS_CPU_CODEC_H
#define GS_CPU_CODEC_H

#include "draws.h"
#include "stages.h"

/* How the values of one group of one record are coded. */
typedef struct {
    uint32_t value, bits, levels;
    int stochastic;
    float scale; /* float16's; of all values, if `scales` is NULL */
} coding;

GS_INLINE coding codingOf(const gsSpec *spec, float scale)
{
    coding c = {spec->value, spec->value == GS_VALUE_LEVELS ? 8 : gsValueBits(spec->value, 0), spec->levels,
                spec->random, scale};
    if (spec->layout == GS_LAYOUT_ALL)
        c.bits = spec->aux & 0xffu;
    return c;
}

/* Of tensors that travel whole. */
GS_INLINE coding wholeCodingOf(const gsSpec *spec, float scale)
{
    return (coding){spec->wholeValue, gsValueBits(spec->wholeValue, 0), 0, spec->random, scale};
}

/* ---- one slot; c->value a constant where this is inlined ---- */

GS_INLINE void putSlot(const coding *c, uint32_t value, uint8_t *values, uint64_t slot, gsReal x, uint32_t word)
{
    void *at = values;
    switch (value) {
    case GS_VALUE_F64: ((double *)at)[slot] = (double)x; break;
    case GS_VALUE_BF16:
    case GS_VALUE_F16: ((uint16_t *)at)[slot] = gsHalfCode(value, x, c->scale, word, c->stochastic); break;
    case GS_VALUE_LEVELS: values[slot] = (uint8_t)gsLevelCode(x, c->scale, c->levels, c->bits, word); break;
    default: ((float *)at)[slot] = gsNarrow(x, word, c->stochastic); break;
    }
}

GS_INLINE gsReal getSlot(const coding *c, uint32_t value, const uint8_t *values, uint64_t slot)
{
    const void *at = values;
    switch (value) {
    case GS_VALUE_F64: return (gsReal)((const double *)at)[slot];
    case GS_VALUE_BF16:
    case GS_VALUE_F16: return (gsReal)gsHalfDecode(value, ((const uint16_t *)at)[slot], c->scale);
    case GS_VALUE_LEVELS: return (gsReal)gsLevelDecode(values[slot], c->scale, c->levels, c->bits);
    default: return (gsReal)((const float *)at)[slot];
    }
}

/* Runs the statement with V, the value coding of a slot, a constant. */
#define GS_FOR_SLOT_VALUE(value, statement) \
    do {                                    \
        switch (value) {                    \
        case GS_VALUE_F64: {                \
            enum { V = GS_VALUE_F64 };      \
            statement;                      \
        } break;                            \
        case GS_VALUE_BF16: {               \
            enum { V = GS_VALUE_BF16 };     \
            statement;                      \
        } break;                            \
        case GS_VALUE_F16: {                \
            enum { V = GS_VALUE_F16 };      \
            statement;                      \
        } break;                            \
        case GS_VALUE_LEVELS: {             \
            enum { V = GS_VALUE_LEVELS };   \
            statement;                      \
        } break;                            \
        default: {                          \
            enum { V = GS_VALUE_F32 };      \
            statement;                      \
        } break;                            \
        }                                   \
    } while (0)

/* ---- a block of all coordinates ---- */

GS_INLINE float scaleOfBlock(uint32_t value, const gsReal *a, uint32_t n)
{
    gsReal largest = 0;
    switch (value) {
    case GS_VALUE_SIGN: return n ? gsSaturate((float)(magnitudesOfBlock(a, n) / (double)n)) : 0.0f;
    case GS_VALUE_GRID:
    case GS_VALUE_TERNARY:
        for (uint32_t i = 0; i < n; i++)
            largest = gsAbs(a[i]) > largest ? gsAbs(a[i]) : largest;
        return gsScaleUp((double)largest);
    default: return gsScaleUp(sqrt(dotBlock(a, a, n)));
    }
}

GS_INLINE uint32_t codeOf(const coding *c, uint32_t value, uint32_t bits, gsReal a, uint32_t word)
{
    switch (value) {
    case GS_VALUE_SIGN: return gsSignCode(a);
    case GS_VALUE_TERNARY: return gsTernaryCode(a, c->scale, word);
    case GS_VALUE_LEVELS: return gsLevelCode(a, c->scale, c->levels, bits, word);
    case GS_VALUE_GRID: return gsGridCode(a, c->scale, c->levels);
    default: return gsNaturalCode(a, word);
    }
}

GS_INLINE float decodeOf(const coding *c, uint32_t value, uint32_t bits, uint32_t code)
{
    switch (value) {
    case GS_VALUE_SIGN: return gsSignDecode(code, c->scale);
    case GS_VALUE_TERNARY: return gsTernaryDecode(code, c->scale);
    case GS_VALUE_LEVELS: return gsLevelDecode(code, c->scale, c->levels, bits);
    case GS_VALUE_GRID: return gsGridDecode(code, c->scale, c->levels);
    default: return gsNaturalDecode(code);
    }
}

/* Plain numbers have slots; other codes stand bit by bit, the first in the lowest bits. A block begins at a byte. Eight codes fill `bits` bytes. */
enum { GS_OCTET = 8 };

GS_INLINE void putOctet(uint8_t *at, const uint32_t *code, uint32_t bits, uint32_t bytes)
{
    uint64_t low = 0, high = 0; /* nine bits each are one more than a word */
    for (uint32_t j = 0; j < GS_OCTET; j++) {
        low |= (uint64_t)code[j] << (j * bits & 63u) & (j * bits < 64 ? ~0ull : 0ull);
        high |= j * bits + bits > 64 ? (uint64_t)code[j] >> (64 - j * bits) : 0;
    }
    for (uint32_t k = 0; k < bytes; k++)
        at[k] = (uint8_t)(k < 8 ? low >> 8 * k : high);
}

GS_INLINE void getOctet(const uint8_t *at, uint32_t *code, uint32_t bits, uint32_t bytes)
{
    uint64_t low = 0, high = bytes > 8 ? at[8] : 0;
    for (uint32_t k = 0; k < bytes && k < 8; k++)
        low |= (uint64_t)at[k] << 8 * k;
    for (uint32_t j = 0; j < GS_OCTET; j++) {
        uint64_t from = low >> (j * bits & 63u);
        if (j * bits + bits > 64)
            from |= high << (64 - j * bits);
        code[j] = (uint32_t)from & ((1u << bits) - 1u);
    }
}

GS_INLINE void putCodes(const coding *c, uint32_t value, uint32_t bits, uint8_t *at, uint32_t n, const gsReal *a,
                        const uint32_t *words)
{
    uint32_t code[GS_OCTET], i = 0;
    for (; i + GS_OCTET <= n; i += GS_OCTET, at += bits) {
        for (uint32_t j = 0; j < GS_OCTET; j++)
            code[j] = codeOf(c, value, bits, a[i + j], words[i + j]);
        putOctet(at, code, bits, bits);
    }
    for (uint32_t j = 0; j < GS_OCTET; j++)
        code[j] = i + j < n ? codeOf(c, value, bits, a[i + j], words[i + j]) : 0;
    putOctet(at, code, bits, ((n - i) * bits + 7) / 8);
}

GS_INLINE void getCodes(const coding *c, uint32_t value, uint32_t bits, const uint8_t *at, uint32_t n, gsReal *out)
{
    uint32_t code[GS_OCTET], i = 0;
    for (; i + GS_OCTET <= n; i += GS_OCTET, at += bits) {
        getOctet(at, code, bits, bits);
        for (uint32_t j = 0; j < GS_OCTET; j++)
            out[i + j] = (gsReal)decodeOf(c, value, bits, code[j]);
    }
    getOctet(at, code, bits, ((n - i) * bits + 7) / 8);
    for (uint32_t j = 0; i + j < n; j++)
        out[i + j] = (gsReal)decodeOf(c, value, bits, code[j]);
}

/* The value coding, and where one is usual the width, a constant in each loop. */
static inline void putBlock(const coding *c, uint8_t *values, uint64_t first, uint32_t n, const gsReal *a,
                            const uint32_t *words)
{
    uint8_t *at = values + first * c->bits / 8;
    switch (c->value) {
    case GS_VALUE_SIGN: putCodes(c, GS_VALUE_SIGN, 1, at, n, a, words); break;
    case GS_VALUE_TERNARY: putCodes(c, GS_VALUE_TERNARY, 2, at, n, a, words); break;
    case GS_VALUE_NATURAL: putCodes(c, GS_VALUE_NATURAL, 9, at, n, a, words); break;
    case GS_VALUE_GRID: putCodes(c, GS_VALUE_GRID, c->bits, at, n, a, words); break;
    case GS_VALUE_LEVELS:
        if (c->bits == 8)
            putCodes(c, GS_VALUE_LEVELS, 8, at, n, a, words);
        else
            putCodes(c, GS_VALUE_LEVELS, c->bits, at, n, a, words);
        break;
    default:
        GS_FOR_SLOT_VALUE(c->value, for (uint32_t i = 0; i < n; i++) putSlot(c, V, values, first + i, a[i], words[i]));
    }
}

static inline void getBlock(const coding *c, const uint8_t *values, uint64_t first, uint32_t n, gsReal *out)
{
    const uint8_t *at = values + first * c->bits / 8;
    switch (c->value) {
    case GS_VALUE_SIGN: getCodes(c, GS_VALUE_SIGN, 1, at, n, out); break;
    case GS_VALUE_TERNARY: getCodes(c, GS_VALUE_TERNARY, 2, at, n, out); break;
    case GS_VALUE_NATURAL: getCodes(c, GS_VALUE_NATURAL, 9, at, n, out); break;
    case GS_VALUE_GRID: getCodes(c, GS_VALUE_GRID, c->bits, at, n, out); break;
    case GS_VALUE_LEVELS:
        if (c->bits == 8)
            getCodes(c, GS_VALUE_LEVELS, 8, at, n, out);
        else
            getCodes(c, GS_VALUE_LEVELS, c->bits, at, n, out);
        break;
    default: GS_FOR_SLOT_VALUE(c->value, for (uint32_t i = 0; i < n; i++) out[i] = getSlot(c, V, values, first + i));
    }
}

#endif
